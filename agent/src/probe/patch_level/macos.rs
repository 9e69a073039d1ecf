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
/// All of these on, updates of the system are found, fetched and installed without a person.
const SWITCHES: [&str; 4] =
    ["AutomaticCheckEnabled", "AutomaticDownload", "AutomaticallyInstallMacOSUpdates", "CriticalUpdateInstall"];

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
    let seen: Vec<offered::Update> = updates
        .iter()
        .map(|update| offered::Update {
            key: update.key.clone(),
            installed_version: installed(update),
            security: true,
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
            security: true,
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
        security_metadata_time: searched.clone(),
        security_metadata_valid_until_time: Reading::unknown(Cause::Absent, "states none: Software Update sets no end"),
        running_kernel: match look.host.machine() {
            Ok(machine) => Reading::Known(Text::new(&machine.release)),
            Err(error) => Reading::Unknown { unknown: host::unknown("uname", &error) },
        },
        newest_kernel: unsupported(),
        reboot_required: unsupported(),
        reboot_required_since_time: None,
        reboot_packages: Vec::new(),
        automatic_updates: AutomaticUpdates { enabled: enabled(&preferences, managed), last_success_time: searched },
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

fn enabled(preferences: &Value, managed: Result<Option<Value>, Unknown>) -> Reading<bool> {
    let managed = match managed {
        Ok(managed) => managed,
        Err(unknown) => return Reading::Unknown { unknown },
    };
    let switch = |key: &str| managed.as_ref().and_then(|managed| managed.bool(key)).or_else(|| preferences.bool(key));
    if SWITCHES.iter().any(|key| switch(key) == Some(false)) {
        return Reading::Known(false);
    }
    match SWITCHES.iter().find(|key| switch(key).is_none()) {
        Some(key) => {
            Reading::unknown(Cause::Absent, format!("{key} is not set, and what holds then differs by version"))
        }
        None => Reading::Known(true),
    }
}
