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
        system::product_version,
    },
};

/// What Software Update keeps.
const PREFERENCES: &str = "/Library/Preferences/com.apple.SoftwareUpdate.plist";
/// What a manager of devices sets; it comes before the host's own.
const MANAGED: &str = "/Library/Managed Preferences/com.apple.SoftwareUpdate.plist";
/// Whether Software Update searches by itself. It has had no switch since macOS 15, which always does; a `false` that is set counts.
const CHECK: &str = "AutomaticCheckEnabled";
/// First release without it.
const WITHOUT_CHECK: u64 = 15;
/// All of these on, updates of the system that were found are fetched and installed without a person.
const SWITCHES: [&str; 3] = ["AutomaticDownload", "AutomaticallyInstallMacOSUpdates", "CriticalUpdateInstall"];

pub(super) fn state(look: &Look<'_>) -> Result<PatchLevel, Unknown> {
    let preferences = read(look.host, PREFERENCES)?;
    let managed = match read(look.host, MANAGED) {
        Ok(managed) => Ok(Some(managed)),
        Err(unknown) if unknown.cause == Cause::Absent => Ok(None),
        Err(unknown) => Err(unknown),
    };
    let (updates, pending_complete) = match recommended(&preferences) {
        Ok(updates) => (updates, Reading::Known(true)),
        Err(unknown) => (Vec::new(), Reading::Unknown { unknown }),
    };
    let running = product_version(look.host);
    let pending_complete = match &running {
        Reading::Unknown { unknown } if updates.iter().any(|update| update.is_system) => {
            Reading::Unknown { unknown: unknown.clone() }
        }
        _ => pending_complete,
    };
    // The list stays as it is until the next search, the installed update included; without the version of the system, an
    // update of it may be that one.
    let is_pending = |update: &Update| {
        !update.is_system || running.known().is_some_and(|version| version.as_str() != update.version)
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
    // Apple has security updates for the release before, so that the next one is not the only way to them.
    let is_security = |update: &Update| !update.is_next_release(major_version);
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
            enabled: enabled(&preferences, managed, major_version),
            last_success_time: Reading::unknown(
                Cause::Unsupported,
                "this build reads when macOS last searched, and not when it last installed an update",
            ),
        },
        security_metadata_verified: None,
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
    version: String,
    /// Whether it is the system itself.
    is_system: bool,
}

impl Update {
    /// Returns whether it is another release of the system than the one that runs, not an update of that. Software Update's keys of the
    /// system end in `_minor` or `_major`.
    fn is_next_release(&self, running: Option<u64>) -> bool {
        let is_above = || major(&self.version).zip(running).is_some_and(|(offered, running)| offered > running);
        self.is_system && (self.key.ends_with("_major") || is_above())
    }
}

/// Returns the first number of a version such as `15.2`.
fn major(version: &str) -> Option<u64> {
    version.split('.').next()?.parse().ok()
}

/// Returns what the last search found, when that is told without contradiction.
fn recommended(preferences: &Value) -> Result<Vec<Update>, Unknown> {
    let garbled = || Unknown::new(Cause::Garbled, "RecommendedUpdates does not follow its format");
    let updates = match preferences.get("RecommendedUpdates") {
        Some(Value::Array(items)) => items.iter().map(update).collect::<Option<Vec<_>>>().ok_or_else(garbled)?,
        Some(_) => return Err(garbled()),
        None => Vec::new(),
    };
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
    Some(Update {
        key: update.text("Product Key").or_else(|| update.text("Identifier"))?.to_owned(),
        version: update.text("Display Version").unwrap_or_default().to_owned(),
        is_system: update.bool("MobileSoftwareUpdate") == Some(true),
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

fn enabled(preferences: &Value, managed: Result<Option<Value>, Unknown>, running: Option<u64>) -> Reading<bool> {
    let managed = match managed {
        Ok(managed) => managed,
        Err(unknown) => return Reading::Unknown { unknown },
    };
    let switch = |key: &str| managed.as_ref().and_then(|managed| managed.bool(key)).or_else(|| preferences.bool(key));
    let switches = || [CHECK].into_iter().chain(SWITCHES);
    if switches().any(|key| switch(key) == Some(false)) {
        return Reading::Known(false);
    }
    let is_implied = |key: &str| key == CHECK && running.is_some_and(|running| running >= WITHOUT_CHECK);
    match switches().find(|key| switch(key).is_none() && !is_implied(key)) {
        Some(key) => {
            Reading::unknown(Cause::Absent, format!("{key} is not set, and what holds then differs by version"))
        }
        None => Reading::Known(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &str) -> Value {
        plist::parse(format!("<plist version=\"1.0\"><dict>{entries}</dict></plist>").as_bytes()).unwrap()
    }

    #[test]
    fn the_next_release_is_no_update_of_the_one_that_runs() {
        let update = |key: &str, version: &str, is_system| Update {
            key: key.to_owned(),
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

    #[test]
    fn the_search_needs_no_switch_where_there_is_none() {
        let on = "<key>AutomaticDownload</key><true/><key>AutomaticallyInstallMacOSUpdates</key><true/>\
            <key>CriticalUpdateInstall</key><true/>";
        let check = |value: &str| format!("{on}<key>AutomaticCheckEnabled</key><{value}/>");
        for (entries, running, expected) in [
            (on.to_owned(), Some(15), Some(true)),
            (on.to_owned(), Some(14), None),
            (on.to_owned(), None, None),
            (check("true"), Some(14), Some(true)),
            (check("false"), Some(15), Some(false)),
            (check("false"), Some(14), Some(false)),
            (on.replacen("true", "false", 1), Some(15), Some(false)),
            (on.replace("<key>CriticalUpdateInstall</key><true/>", ""), Some(15), None),
        ] {
            assert_eq!(enabled(&list(&entries), Ok(None), running).known().copied(), expected, "{entries} {running:?}");
        }
    }
}
