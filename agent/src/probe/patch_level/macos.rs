//! Updates that macOS' own Software Update found at its last search, from its preferences.
//!
//! `softwareupdate --list` would ask Apple's servers and take a minute; its daemon keeps what it found in a file. Written from
//! lists that others published; **it has never run on macOS**.

use std::path::Path;

use muster_proto::{
    fact::{AutomaticUpdates, Cause, PackageManager, PatchLevel, PendingUpdate, Reading, Text, Unknown},
    time::Timestamp,
};

use super::offered::{self, Sight};
use crate::{
    host::{self, FILE_BYTES, Host},
    probe::{
        Look,
        plist::{self, Value},
        system::{product_build, product_version},
    },
};

/// What Software Update keeps.
const PREFERENCES: &str = "/Library/Preferences/com.apple.SoftwareUpdate.plist";
/// What a manager of devices sets; it comes before the host's own.
const MANAGED: &str = "/Library/Managed Preferences/com.apple.SoftwareUpdate.plist";
/// What a declaration of a manager of devices set. Since macOS 15 it comes before profiles (Apple Platform Deployment, "Install and
/// enforce software updates"). The names in it are those that the baselines of the macOS Security Compliance Project ask for.
const DECLARED: &str = "/private/var/db/softwareupdate/SoftwareUpdateDDMStatePersistence.plist";
/// First release that takes declarations of updates for the Mac.
const WITH_DECLARATIONS: u64 = 15;
/// First release in which profiles manage updates no more: what one set to `true` says nothing against the host's own `false`.
const WITHOUT_PROFILES: u64 = 26;
/// Whether Software Update searches by itself. It has had no switch since macOS 15, which always does; a `false` that is set counts.
const CHECK: &str = "AutomaticCheckEnabled";
/// First release without it.
const WITHOUT_CHECK: u64 = 15;
/// What a manager of devices restricts, the delay of updates among it (Apple's "Device Management Profile", Restrictions).
const RESTRICTIONS: &str = "/Library/Managed Preferences/com.apple.applicationaccess.plist";
/// What holds updates back, with how long: the system's own, and those of the rest. Of the next release nothing is asked.
const DELAYS: [(&str, &str); 2] = [
    ("forceDelayedSoftwareUpdates", "enforcedSoftwareUpdateMinorOSDeferredInstallDelay"),
    ("forceDelayedAppSoftwareUpdates", "enforcedSoftwareUpdateNonOSDeferredInstallDelay"),
];
/// How long, where nothing is said of the kind.
const DELAY: &str = "enforcedSoftwareUpdateDelay";
/// How long, where nothing is said, on the same page.
const DELAY_DAYS: i64 = 30;
/// What holds updates back by declaration, in days: those of the system, security responses, and both (the names that
/// `SUCoreDDMDeclarationGlobalSettings` of macOS keeps them by). Of the next release nothing is asked.
const DECLARED_DELAYS: [&str; 3] =
    ["minorOSDeferralPeriod", "systemUpdatesDeferralPeriod", "combinedUpdatesDeferralPeriod"];
/// First release that keeps no count of what the last search found (`LastRecommendedUpdatesAvailable`), or one that nothing updates.
const WITHOUT_COUNT: (u64, u64) = (15, 4);
/// All of these on, updates of the system that were found are fetched and installed without a person. Each with its name in a declaration.
const SWITCHES: [(&str, &str); 3] = [
    ("AutomaticDownload", "automaticallyDownload"),
    ("AutomaticallyInstallMacOSUpdates", "automaticallyInstallOSUpdates"),
    ("CriticalUpdateInstall", "automaticallyInstallSystemAndSecurityUpdates"),
];

pub(super) fn state(look: &Look<'_>) -> Result<PatchLevel, Unknown> {
    let preferences = read(look.host, PREFERENCES)?;
    let running = product_version(look.host);
    let build = product_build(look.host);
    let has_count = running.known().is_none_or(|version| release(version.as_str()) < Some(WITHOUT_COUNT));
    let (updates, pending_complete) = match recommended(&preferences, has_count) {
        Ok(updates) => (updates, held_back(look.host, &running)),
        Err(unknown) => (Vec::new(), Reading::Unknown { unknown }),
    };
    let pending_complete = match &running {
        Reading::Unknown { unknown } if updates.iter().any(|update| update.is_system) => {
            Reading::Unknown { unknown: unknown.clone() }
        }
        _ => pending_complete,
    };
    // The list stays as it is until the next search, the installed update included; without the version of the system, an
    // update of it may be that one.
    let is_pending = |update: &Update| {
        !update.is_system || running.known().is_some_and(|version| !update.is(version, build.known()))
    };
    let updates: Vec<Update> = updates.into_iter().filter(is_pending).collect();
    let searched = searched(&preferences);
    let is_complete = pending_complete == Reading::Known(true);
    let sight = Sight { now: look.now, is_complete, metadata: searched.known().copied() };
    let installed = |update: &Update| match running.known() {
        Some(version) if update.is_system => version.to_string(),
        _ => String::new(),
    };
    let major_version = running.known().and_then(|version| major(version.as_str()));
    let is_security = |update: &Update| update.is_security(major_version);
    let seen: Vec<offered::Update> = updates
        .iter()
        .map(|update| offered::Update {
            key: update.key.clone(),
            installed_version: installed(update),
            security: is_security(update),
            published: None,
        })
        .collect();
    let versions = running.known().map(|version| vec![String::new(), version.to_string()]);
    let since = offered::since(look, sight, &seen, &|_| versions.clone())
        .map_err(|error| host::unknown("keep when updates were first offered", &error))?;
    let mut pending: Vec<PendingUpdate> = updates
        .iter()
        .zip(since)
        .map(|(update, since)| PendingUpdate {
            package: Text::new(&update.key),
            architecture: Text::default(),
            installed_version: Text::new(&installed(update)),
            candidate_version: Text::new(&update.version),
            security: is_security(update),
            held: false,
            origin: Text::new("Apple"),
            first_offered_time: since.first_offered,
            available_after_time: Some(since.available_after_time()),
            phased_percent: None,
        })
        .collect();
    pending.sort_by(|a, b| (&a.package, &a.candidate_version).cmp(&(&b.package, &b.candidate_version)));
    Ok(PatchLevel {
        manager: PackageManager::Softwareupdate,
        pending,
        pending_complete,
        sources: Vec::new(),
        security_metadata_time: searched,
        security_metadata_valid_until_time: Reading::unknown(Cause::Absent, "states none: Software Update sets no end"),
        running_kernel: match look.host.machine() {
            Ok(machine) => Reading::Known(Text::new(&machine.release)),
            Err(error) => Reading::Unknown { unknown: host::unknown("uname", &error) },
        },
        newest_kernel: unsupported(),
        reboot_required: unsupported(),
        reboot_required_since_time: None,
        reboot_packages: Vec::new(),
        automatic_updates: AutomaticUpdates {
            enabled: enabled(look.host, &preferences, &running),
            last_success_time: Reading::unknown(
                Cause::Unsupported,
                "this build reads when macOS last searched, and not when it last installed an update",
            ),
        },
        security_metadata_verified: Some(super::checked_by_updater()),
        live_patches: Vec::new(),
    })
}

fn unsupported<T>() -> Reading<T> {
    Reading::unknown(Cause::Unsupported, "this build does not read which updates of macOS wait for a restart")
}

fn read(host: &dyn Host, path: &str) -> Result<Value, Unknown> {
    let bytes =
        host.read(Path::new(path), FILE_BYTES).map_err(|error| host::unknown(format!("read {path}"), &error))?;
    plist::parse(&bytes).ok_or_else(|| Unknown::new(Cause::Garbled, format!("{path} is no property list")))
}

/// An update that was found.
#[derive(Debug)]
struct Update {
    key: String,
    /// What Apple calls it in no language, such as `Safari18.2SequoiaAuto`; the key of most is a number.
    identifier: String,
    version: String,
    /// Whether it is the system itself.
    is_system: bool,
}

impl Update {
    /// Returns whether it is what runs. Apple has given one version two builds; the key of the system names it, as `MSU_UPDATE_24B83_patch_15.1`.
    fn is(&self, version: &Text, build: Option<&Text>) -> bool {
        let own = self.key.strip_prefix(SYSTEM).and_then(|rest| rest.split('_').next()).filter(|own| is_build(own));
        let is_build = own.zip(build).is_none_or(|(own, build)| own == build.as_str());
        // As a number, 15.0 is 15.
        let plain = |version: &str| version.trim_end_matches(".0").to_owned();
        plain(&self.version) == plain(version.as_str()) && is_build
    }

    /// Returns whether it mends what the host is exposed by: the system, and the browser that is updated beside it. Apple has security
    /// updates for the release before, so that the next one is not the only way to them; macOS 10.15 has `macOS Catalina 10.15.7
    /// Supplemental Update` and the like.
    fn is_security(&self, running: Option<u64>) -> bool {
        let is_beside = ["Safari", "Security Update", "SecUpd"].iter().any(|name| self.identifier.starts_with(name));
        let is_named = self.identifier.starts_with("macOS ") && self.identifier.contains(" Update");
        is_beside || is_named || self.is_system && !self.is_next_release(running)
    }

    /// Returns whether it is another release of the system than the one that runs, not an update of that. Software Update's keys of the
    /// system end in `_minor` or `_major`.
    fn is_next_release(&self, running: Option<u64>) -> bool {
        let is_above = || major(&self.version).zip(running).is_some_and(|(offered, running)| offered > running);
        self.is_system && (self.key.ends_with("_major") || is_above())
    }
}

/// What the keys of the system begin with.
const SYSTEM: &str = "MSU_UPDATE_";

/// Returns the first number of a version such as `15.2`.
fn major(version: &str) -> Option<u64> {
    version.split('.').next()?.parse().ok()
}

/// Returns the first two numbers of a version.
fn release(version: &str) -> Option<(u64, u64)> {
    let second = version.split('.').nth(1).map_or(Some(0), |second| second.parse().ok());
    major(version).zip(second)
}

/// Whether `text` has the form of a build: `24B83`, `24C5089c`.
fn is_build(text: &str) -> bool {
    let rest = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let number = rest.trim_start_matches(|letter: char| letter.is_ascii_uppercase());
    rest.len() < text.len() && number.len() < rest.len() && number.starts_with(|digit: char| digit.is_ascii_digit())
}

/// Returns `true` when no manager of devices keeps updates from Software Update for a time after their release.
fn held_back(host: &dyn Host, running: &Reading<Text>) -> Reading<bool> {
    let by_profile = match read_if_there(host, RESTRICTIONS) {
        Ok(restrictions) => restrictions.as_ref().map_or(Reading::Known(true), delayed),
        Err(unknown) => Reading::Unknown { unknown },
    };
    let running = running.known().and_then(|version| major(version.as_str()));
    if by_profile != Reading::Known(true) || running.is_some_and(|running| running < WITH_DECLARATIONS) {
        return by_profile;
    }
    match declared(host) {
        Ok(declared) => declared.as_ref().map_or(Reading::Known(true), delayed_by_declaration),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

fn delayed_by_declaration(settings: &Value) -> Reading<bool> {
    for name in DECLARED_DELAYS {
        match settings.get(name) {
            None => {}
            Some(Value::Integer(days)) if *days > 0 => {
                let detail = format!("{name}: updates of the last {days} days are held back");
                return Reading::unknown(Cause::Hidden, detail);
            }
            Some(Value::Integer(_)) => {}
            Some(_) => return Reading::unknown(Cause::Garbled, format!("{name} of {DECLARED} is no number")),
        }
    }
    Reading::Known(true)
}

fn delayed(restrictions: &Value) -> Reading<bool> {
    for (switch, own_delay) in DELAYS {
        match restrictions.get(switch) {
            None | Some(Value::Bool(false)) => continue,
            Some(Value::Bool(true)) => {}
            Some(_) => return Reading::unknown(Cause::Garbled, format!("{switch} of {RESTRICTIONS} is no switch")),
        }
        let days = match restrictions.get(own_delay).or_else(|| restrictions.get(DELAY)) {
            Some(Value::Integer(days)) => *days,
            Some(_) => return Reading::unknown(Cause::Garbled, format!("a delay of {RESTRICTIONS} is no number")),
            None => DELAY_DAYS,
        };
        if days > 0 {
            let detail = format!("{switch}: updates of the last {days} days are held back");
            return Reading::unknown(Cause::Hidden, detail);
        }
    }
    Reading::Known(true)
}

/// Returns what the last search found, when that is told without contradiction.
fn recommended(preferences: &Value, has_count: bool) -> Result<Vec<Update>, Unknown> {
    let garbled = || Unknown::new(Cause::Garbled, "RecommendedUpdates does not follow its format");
    let updates = match preferences.get("RecommendedUpdates") {
        Some(Value::Array(items)) => items.iter().map(update).collect::<Option<Vec<_>>>().ok_or_else(garbled)?,
        Some(_) => return Err(garbled()),
        None if has_count => Vec::new(),
        None => return Err(Unknown::new(Cause::Absent, "RecommendedUpdates is not set: no search is on record")),
    };
    if !has_count {
        return match preferences.get("LastFullSuccessfulDate") {
            Some(Value::Date(_)) => Ok(updates),
            Some(_) => Err(Unknown::new(Cause::Garbled, "LastFullSuccessfulDate is no date")),
            None => Err(Unknown::new(Cause::Absent, "LastFullSuccessfulDate is not set: no search is on record")),
        };
    }
    match preferences.get("LastRecommendedUpdatesAvailable") {
        Some(Value::Integer(count)) if usize::try_from(*count) == Ok(updates.len()) => Ok(updates),
        // The count has been seen to outlive the list.
        Some(Value::Integer(count)) => {
            let detail =
                format!("LastRecommendedUpdatesAvailable is {count}, RecommendedUpdates has {}", updates.len());
            Err(Unknown::new(Cause::Undecidable, detail))
        }
        Some(_) => Err(garbled()),
        None => Err(Unknown::new(Cause::Absent, "LastRecommendedUpdatesAvailable is not set: no search is on record")),
    }
}

fn update(update: &Value) -> Option<Update> {
    let key = update.text("Product Key").or_else(|| update.text("Identifier"))?;
    Some(Update {
        key: key.to_owned(),
        identifier: update.text("Identifier").unwrap_or_default().to_owned(),
        version: match update.get("Display Version") {
            Some(Value::Text(version)) => version.clone(),
            // As `27` of "macOS 27".
            Some(Value::Integer(version)) => version.to_string(),
            Some(Value::Real(version)) => version.to_string(),
            _ => String::new(),
        },
        is_system: update.bool("MobileSoftwareUpdate") == Some(true) || key.starts_with(SYSTEM),
    })
}

fn searched(preferences: &Value) -> Reading<Timestamp> {
    let date = ["LastFullSuccessfulDate", "LastSuccessfulDate"].iter().find_map(|key| preferences.get(key));
    match date {
        Some(Value::Date(seconds)) => host::time_reading(Timestamp::from_seconds(*seconds)),
        Some(_) => Reading::unknown(Cause::Garbled, "LastSuccessfulDate is no date"),
        None => Reading::unknown(Cause::Absent, "no successful search is on record"),
    }
}

/// Returns the list at `path`; `None` when it is not there.
fn read_if_there(host: &dyn Host, path: &str) -> Result<Option<Value>, Unknown> {
    match read(host, path) {
        Ok(list) => Ok(Some(list)),
        Err(unknown) if unknown.cause == Cause::Absent => Ok(None),
        Err(unknown) => Err(unknown),
    }
}

/// Returns whether updates are installed without a person. Without the version of the system, only what every version would make of it.
fn enabled(host: &dyn Host, preferences: &Value, running: &Reading<Text>) -> Reading<bool> {
    let of = |running: u64| match settings(host, preferences, running) {
        Ok(settings) => settings.enabled(running),
        Err(unknown) => Reading::Unknown { unknown },
    };
    match running {
        Reading::Known(version) => major(version.as_str())
            .map_or_else(|| Reading::unknown(Cause::Garbled, "ProductVersion does not begin with a number"), of),
        Reading::Unknown { unknown } => {
            let [first, rest @ ..] = [WITH_DECLARATIONS - 1, WITH_DECLARATIONS, WITHOUT_PROFILES].map(of);
            if rest.iter().all(|other| *other == first) { first } else { Reading::Unknown { unknown: unknown.clone() } }
        }
    }
}

fn settings<'p>(host: &dyn Host, preferences: &'p Value, running: u64) -> Result<Settings<'p>, Unknown> {
    let declared = if running >= WITH_DECLARATIONS { declared(host)? } else { None };
    Ok(Settings { own: preferences, managed: read_if_there(host, MANAGED)?, declared })
}

/// Returns what is declared for all updates, if anything is.
fn declared(host: &dyn Host) -> Result<Option<Value>, Unknown> {
    Ok(read_if_there(host, DECLARED)?.map(declared_settings).transpose()?.flatten())
}

fn declared_settings(state: Value) -> Result<Option<Value>, Unknown> {
    let mut found = &state;
    for name in ["SUCorePersistedStatePolicyFields", "SUCoreDDMDeclarationGlobalSettings"] {
        match found.get(name) {
            Some(fields @ Value::Dict(_)) => found = fields,
            Some(_) => return Err(Unknown::new(Cause::Garbled, format!("{name} of {DECLARED} is no dictionary"))),
            None => return Ok(None),
        }
    }
    Ok(Some(found.clone()))
}

/// Who set the switches of Software Update.
struct Settings<'p> {
    own: &'p Value,
    managed: Option<Value>,
    declared: Option<Value>,
}

impl Settings<'_> {
    fn enabled(&self, running: u64) -> Reading<bool> {
        let switches = || [(CHECK, None)].into_iter().chain(SWITCHES.map(|(key, declared)| (key, Some(declared))));
        let is_off = |(key, declared): (&str, Option<&str>)| match self.declared(declared) {
            // A declaration of another number leaves it to the host, or switches it off.
            Ok(Some(())) => false,
            Ok(None) | Err(_) => self.switch(key, running) == Some(false),
        };
        if switches().any(is_off) {
            return Reading::Known(false);
        }
        for (key, declared) in switches() {
            match self.declared(declared) {
                Ok(Some(())) => continue,
                Ok(None) => {}
                Err(unknown) => return Reading::Unknown { unknown },
            }
            let is_implied = key == CHECK && running >= WITHOUT_CHECK;
            if self.switch(key, running).is_none() && !is_implied {
                let detail = format!("{key} is not set, and what holds then differs by version");
                return Reading::unknown(Cause::Absent, detail);
            }
        }
        Reading::Known(true)
    }

    /// Returns what the host and profiles say of a switch.
    fn switch(&self, key: &str, running: u64) -> Option<bool> {
        let (managed, own) = (self.managed.as_ref().and_then(|managed| managed.bool(key)), self.own.bool(key));
        match (managed, own) {
            (Some(true), Some(false)) if running >= WITHOUT_PROFILES => own,
            _ => managed.or(own),
        }
    }

    /// Returns whether a declaration switches it on: 1, which those baselines ask for. What other numbers mean is not documented.
    fn declared(&self, name: Option<&str>) -> Result<Option<()>, Unknown> {
        let Some((name, value)) = name.and_then(|name| Some((name, self.declared.as_ref()?.get(name)?))) else {
            return Ok(None);
        };
        match value {
            Value::Integer(1) => Ok(Some(())),
            Value::Integer(other) => {
                Err(Unknown::new(Cause::Unsupported, format!("{name} is declared as {other}, which is not documented")))
            }
            _ => Err(Unknown::new(Cause::Garbled, format!("{name} is declared as no number"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::host::{Recorded, recorded::Failure};

    fn list(entries: &str) -> Value {
        plist::parse(format!("<plist version=\"1.0\"><dict>{entries}</dict></plist>").as_bytes()).unwrap()
    }

    #[test]
    fn the_next_release_is_no_update_of_the_one_that_runs() {
        let update = |key: &str, version: &str, is_system| Update {
            key: key.to_owned(),
            identifier: String::new(),
            version: version.to_owned(),
            is_system,
        };
        for (key, version, is_system, running, expected) in [
            ("MSU_UPDATE_24C101_patch_15.2_minor", "15.2", true, Some(15), false),
            ("MSU_UPDATE_25B78_patch_26.1_major", "26.1", true, Some(15), true),
            ("MSU_UPDATE_25B78_patch_26.1_major", "26.1", true, None, true),
            ("MSU_UPDATE_25B78_patch_26.1", "26.1", true, Some(15), true),
            ("MSU_UPDATE_25B78_patch_26.1", "26.1", true, Some(26), false),
            ("MSU_UPDATE_25B78_patch", "", true, Some(15), false),
            ("072-44426", "16.1", false, Some(15), false),
        ] {
            let found = update(key, version, is_system).is_next_release(running);
            assert_eq!(found, expected, "{key} {version} {running:?}");
        }
    }

    fn found(key: &str, identifier: &str, version: &str, is_system: bool) -> Update {
        let entries = format!(
            "<key>Product Key</key><string>{key}</string><key>Identifier</key><string>{identifier}</string>\
             <key>Display Version</key><string>{version}</string><key>MobileSoftwareUpdate</key><{is_system}/>"
        );
        update(&list(&entries)).unwrap()
    }

    #[test]
    fn security_is_the_system_and_its_browser() {
        for (key, identifier, version, is_system, expected) in [
            ("MSU_UPDATE_24C101_patch_15.2_minor", "MSU_UPDATE_24C101_patch_15.2", "15.2", true, true),
            ("MSU_UPDATE_24C101_patch_15.2_minor", "MSU_UPDATE_24C101_patch_15.2", "15.2", false, true),
            ("MSU_UPDATE_25B78_patch_26.1_major", "MSU_UPDATE_25B78_patch_26.1", "26.1", true, false),
            ("072-44430", "Safari18.2SonomaAuto", "18.2", false, true),
            ("071-05425", "macOS Catalina 10.15.7 Supplemental Update", "10.15.7", false, true),
            ("071-00000", "macOS Catalina Security Update 2021-001", "10.15.7", false, true),
            ("071-00001", "macOS Catalina 10.15.6 Update", "10.15.6", false, true),
            ("071-00002", "macOS Big Sur", "11.0.1", false, false),
            ("072-44426", "Command Line Tools for Xcode", "16.2", false, false),
            ("062-97924", "Pro Video Formats", "2.3.2", false, false),
        ] {
            assert_eq!(found(key, identifier, version, is_system).is_security(Some(15)), expected, "{identifier}");
        }
    }

    #[test]
    fn the_same_version_in_another_build_is_not_installed() {
        let text = Text::new;
        for (key, version, build, expected) in [
            ("MSU_UPDATE_24B83_patch_15.1_minor", "15.1", Some("24B83"), true),
            ("MSU_UPDATE_24B91_patch_15.1_minor", "15.1", Some("24B83"), false),
            ("MSU_UPDATE_24B83_patch_15.1_minor", "15.0", Some("24B83"), false),
            // Without one of the builds the version alone tells.
            ("MSU_UPDATE_24B91_patch_15.1_minor", "15.1", None, true),
            ("MSU_UPDATE_patch_15.1_minor", "15.1", Some("24B83"), true),
            ("072-1", "15.1", Some("24B83"), true),
        ] {
            let build = build.map(text);
            assert_eq!(found(key, "", "15.1", true).is(&text(version), build.as_ref()), expected, "{key} {version}");
        }
        let numbered = |value: &str| {
            update(&list(&format!(
            "<key>Product Key</key><string>{SYSTEM}24A335_patch_15.0_minor</string><key>Display Version</key>{value}"
        ))).unwrap()
        };
        for (value, version) in [("<integer>15</integer>", "15"), ("<real>15.5</real>", "15.5"), ("<true/>", "")] {
            assert_eq!(numbered(value).version, version);
        }
        assert!(numbered("<integer>15</integer>").is(&text("15.0"), Some(&text("24A335"))));
        assert!(!numbered("<integer>15</integer>").is(&text("15.0.1"), Some(&text("24A335"))));
        assert!(!numbered("<integer>10</integer>").is(&text("10.10"), None));
        for (name, expected) in [("24B83", true), ("24C5089c", true), ("24B", false), ("B83", false), ("", false)] {
            assert_eq!(is_build(name), expected, "{name}");
        }
    }

    #[test]
    fn a_list_is_believed_without_its_count_where_none_is_kept() {
        let cause =
            |entries: &str, has_count| recommended(&list(entries), has_count).err().map(|unknown| unknown.cause);
        let date = "<key>LastFullSuccessfulDate</key><date>2026-11-24T05:30:00Z</date>";
        let empty = "<key>RecommendedUpdates</key><array/>";
        let count = "<key>LastRecommendedUpdatesAvailable</key><integer>1</integer>";
        for (entries, without, with) in [
            (format!("{date}{empty}"), None, Some(Cause::Absent)),
            (format!("{date}{empty}{count}"), None, Some(Cause::Undecidable)),
            (empty.to_owned(), Some(Cause::Absent), Some(Cause::Absent)),
            (date.to_owned(), Some(Cause::Absent), Some(Cause::Absent)),
            (format!("{date}<key>RecommendedUpdates</key><true/>"), Some(Cause::Garbled), Some(Cause::Garbled)),
        ] {
            assert_eq!((cause(&entries, false), cause(&entries, true)), (without, with), "{entries}");
        }
        for (version, expected) in [("15.3.2", true), ("15.4", false), ("15.10", false), ("14.7", true), ("26", false)]
        {
            assert_eq!(release(version) < Some(WITHOUT_COUNT), expected, "{version}");
        }
    }

    #[test]
    fn what_is_held_back_after_its_release_is_not_all_that_there_is() {
        let held = |entries: &str| match delayed(&list(entries)) {
            Reading::Known(complete) => Ok(complete),
            Reading::Unknown { unknown } => Err((unknown.cause, unknown.detail.to_string())),
        };
        let on = "<key>forceDelayedSoftwareUpdates</key><true/>";
        let days = |key: &str, days: u8| format!("<key>{key}</key><integer>{days}</integer>");
        let hidden = |switch: &str, days: u8| {
            Err((Cause::Hidden, format!("{switch}: updates of the last {days} days are held back")))
        };
        assert_eq!(held(on), hidden("forceDelayedSoftwareUpdates", 30));
        assert_eq!(held(&format!("{on}{}", days(DELAY, 90))), hidden("forceDelayedSoftwareUpdates", 90));
        let own = days(DELAYS[0].1, 7);
        assert_eq!(held(&format!("{on}{own}{}", days(DELAY, 90))), hidden("forceDelayedSoftwareUpdates", 7));
        let app = "<key>forceDelayedAppSoftwareUpdates</key><true/>";
        assert_eq!(held(app), hidden("forceDelayedAppSoftwareUpdates", 30));
        // A delay without its switch, none at all, and one of the next release alone.
        for nothing in
            ["", &own, &format!("{on}{}", days(DELAY, 0)), "<key>forceDelayedMajorSoftwareUpdates</key><true/>"]
        {
            assert_eq!(held(nothing), Ok(true), "{nothing}");
        }
        for garbled in [on.replace("<true/>", "<string>yes</string>"), format!("{on}<key>{DELAY}</key><true/>")] {
            assert_eq!(held(&garbled).unwrap_err().0, Cause::Garbled, "{garbled}");
        }
    }

    #[test]
    fn what_a_declaration_holds_back_is_not_all_that_there_is() {
        let held = |entries: &str| match delayed_by_declaration(&list(entries)) {
            Reading::Known(complete) => Ok(complete),
            Reading::Unknown { unknown } => Err((unknown.cause, unknown.detail.to_string())),
        };
        for name in DECLARED_DELAYS {
            let days =
                |value: &str| format!("<key>automaticallyDownload</key><integer>1</integer><key>{name}</key>{value}");
            let hidden = Err((Cause::Hidden, format!("{name}: updates of the last 90 days are held back")));
            assert_eq!(held(&days("<integer>90</integer>")), hidden);
            assert_eq!(held(&days("<integer>0</integer>")), Ok(true));
            assert_eq!(held(&days("<string>90</string>")).unwrap_err().0, Cause::Garbled);
        }
        assert_eq!(held("<key>majorOSDeferralPeriod</key><integer>90</integer>"), Ok(true));
        assert_eq!(held(""), Ok(true));
    }

    #[test]
    fn a_declaration_holds_back_from_the_release_on_that_takes_it() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/made-up-macos-declared");
        let mut host = Recorded::at(&case).unwrap();
        let refused = Failure::of(&io::ErrorKind::TimedOut.into());
        host.index_mut().errors.insert(format!("read {DECLARED}"), refused);
        for (version, expected) in [
            (Some("14.7"), Ok(true)),
            (Some("15.1"), Err(Cause::TimedOut)),
            (Some("26.1"), Err(Cause::TimedOut)),
            // It may be one that takes them.
            (None, Err(Cause::TimedOut)),
        ] {
            let running = version.map_or_else(
                || Reading::unknown(Cause::Absent, "no version"),
                |version| Reading::Known(Text::new(version)),
            );
            let found = match held_back(&host, &running) {
                Reading::Known(complete) => Ok(complete),
                Reading::Unknown { unknown } => Err(unknown.cause),
            };
            assert_eq!(found, expected, "{version:?}");
        }
    }

    const ON: &str = "<key>AutomaticDownload</key><true/><key>AutomaticallyInstallMacOSUpdates</key><true/>\
        <key>CriticalUpdateInstall</key><true/>";
    const NO_INSTALL: &str = "<key>AutomaticDownload</key><true/><key>AutomaticallyInstallMacOSUpdates</key><false/>\
        <key>CriticalUpdateInstall</key><true/>";

    fn of(own: &str, managed: Option<&str>, declared: Option<&str>, running: u64) -> Option<bool> {
        let own = list(own);
        let declared = declared.map(list);
        Settings { own: &own, managed: managed.map(list), declared }.enabled(running).known().copied()
    }

    #[test]
    fn the_search_needs_no_switch_where_there_is_none() {
        let check = |value: &str| format!("{ON}<key>AutomaticCheckEnabled</key><{value}/>");
        for (entries, running, expected) in [
            (ON.to_owned(), 15, Some(true)),
            (ON.to_owned(), 14, None),
            (check("true"), 14, Some(true)),
            (check("false"), 15, Some(false)),
            (check("false"), 14, Some(false)),
            (NO_INSTALL.to_owned(), 15, Some(false)),
            (ON.replace("<key>CriticalUpdateInstall</key><true/>", ""), 15, None),
        ] {
            assert_eq!(of(&entries, None, None, running), expected, "{entries} {running}");
        }
    }

    #[test]
    fn a_declaration_comes_before_profiles_and_the_host() {
        let declared = |number: &str| format!("<key>automaticallyInstallOSUpdates</key>{number}");
        let one = declared("<integer>1</integer>");
        assert_eq!(of(NO_INSTALL, None, Some(&one), 15), Some(true));
        assert_eq!(of(NO_INSTALL, Some(NO_INSTALL), Some(&one), 15), Some(true));
        // It says nothing of the others.
        assert_eq!(of("", None, Some(&one), 15), None);
        // What the number means is not known: off either way, or it cannot be told.
        for number in ["<integer>0</integer>", "<integer>2</integer>", "<string>1</string>", "<true/>"] {
            assert_eq!(of(ON, None, Some(&declared(number)), 15), None, "{number}");
            assert_eq!(of(NO_INSTALL, None, Some(&declared(number)), 15), Some(false), "{number}");
        }
        assert_eq!(of(ON, None, Some("<key>majorOSDeferralPeriod</key><integer>30</integer>"), 15), Some(true));
    }

    #[test]
    fn a_profile_does_not_switch_on_what_it_manages_no_more() {
        assert_eq!(of(NO_INSTALL, Some(ON), None, 15), Some(true));
        assert_eq!(of(NO_INSTALL, Some(ON), None, 26), Some(false));
        assert_eq!(of(ON, Some(NO_INSTALL), None, 26), Some(false));
    }

    #[test]
    fn a_state_of_declarations_is_read_as_far_as_it_is_one() {
        let settings = "<key>SUCoreDDMDeclarationGlobalSettings</key><dict><key>a</key><integer>1</integer></dict>";
        let fields = |inside: &str| format!("<key>SUCorePersistedStatePolicyFields</key>{inside}");
        let found = declared_settings(list(&fields(&format!("<dict>{settings}</dict>")))).unwrap().unwrap();
        assert_eq!(found.get("a"), Some(&Value::Integer(1)));
        assert_eq!(declared_settings(list("")), Ok(None));
        assert_eq!(declared_settings(list(&fields("<dict/>"))), Ok(None));
        for garbled in ["<string/>", "<dict><key>SUCoreDDMDeclarationGlobalSettings</key><true/></dict>"] {
            assert_eq!(declared_settings(list(&fields(garbled))).unwrap_err().cause, Cause::Garbled, "{garbled}");
        }
    }
}
