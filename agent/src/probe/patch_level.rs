//! Updates that the host's package manager knows of, and the software that is installed.
//!
//! What the manager fetched is read as it is, in one pass, so that no list is ever held whole, and nothing is fetched.
//! A host whose files are as at the look before costs a few dozen lstat(2): the facts are kept beside a digest of what they
//! were made from.

mod apt;
mod debian;
mod dnf;
mod dpkg;
mod held;
mod ini;
mod lists;
mod macos;
mod offered;
mod packing;
mod pacman;
mod pins;
mod repodata;
mod repositories;
mod restart;
mod rpm;
mod rpm_restart;
mod rpm_version;
mod security;
mod sources;
mod tar;
mod transport;
mod units;
mod vendors;
mod windows;
mod xml;

use std::{
    io,
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{Cause, Fact, OsFamily, PatchLevel, PendingUpdate, Reading, Software, Subject, Text, Unknown},
    id::Digest,
    report,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use self::{
    offered::{Scope, Sight, Update},
    restart::Running,
};
use super::{Look, Probe, memory, system::os_release_value};
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Name of the kept facts in the probe's memory.
const CACHE: &str = "facts.json";
/// Version of it.
const VERSION: u32 = 3;

/// Where os-release(5) is looked for.
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// The probe of `patch_level` and `software`.
pub struct PatchLevelProbe;

impl Probe for PatchLevelProbe {
    fn id(&self) -> report::Probe {
        report::Probe::PatchLevel
    }

    fn name(&self) -> &'static str {
        "patch_level"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        let elsewhere = |state| {
            let unsupported = Unknown::new(Cause::Unsupported, "this build lists the software of Linux alone");
            let state = match state {
                Ok(state) => Reading::Known(state),
                Err(unknown) => Reading::Unknown { unknown },
            };
            vec![
                Fact::PatchLevel(state.map(|state| before(state, look.now))),
                Fact::unknown(Subject::Software, unsupported),
            ]
        };
        match look.host.os_family() {
            OsFamily::Linux => {}
            OsFamily::Macos => return elsewhere(macos::state(look)),
            OsFamily::Windows => return elsewhere(windows::state(look)),
        }
        match facts(look) {
            Ok(facts) => vec![
                Fact::PatchLevel(Reading::Known(before(facts.patch_level, look.now))),
                Fact::Software(Reading::Known(facts.software)),
            ],
            Err(unknown) => super::unknown(self.id(), &unknown),
        }
    }
}

#[derive(Clone, Deserialize, Serialize)]
struct Facts {
    version: u32,
    /// Digest of the names, sizes and times of all that the facts were made from.
    made_from: Digest,
    patch_level: PatchLevel,
    software: Software,
}

/// What a look at the packages gives.
struct Found {
    patch_level: PatchLevel,
    software: Software,
}

/// An update that is pending, and the date that its publisher gives the oldest fix in it.
struct Dated {
    update: PendingUpdate,
    published: Option<Timestamp>,
}

/// What keeps the packages of a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Packages {
    Dpkg,
    Rpm,
    Pacman,
}

fn facts(look: &Look<'_>) -> Result<Facts, Unknown> {
    let host = look.host;
    let packages = packages(host)?;
    let made_from = made_from(host, packages);
    if let Some(facts) = memory::read_json::<Facts>(&look.memory.join(CACHE))
        && facts.version == VERSION
        && facts.made_from == made_from
        && !is_ahead(&facts.patch_level, look.now)
    {
        return Ok(facts);
    }
    let Found { patch_level, software } = match packages {
        Packages::Dpkg => debian::look(look)?,
        Packages::Rpm => dnf::look(look)?,
        Packages::Pacman => pacman::look(look)?,
    };
    let facts = Facts { version: VERSION, made_from, patch_level, software };
    // A cache that cannot be written costs the next look its work.
    if is_lasting(&facts.patch_level) {
        let _ = memory::write_json(look.memory, CACHE, &facts);
    }
    Ok(facts)
}

/// Returns `state` with the times of the past that are still to come at `now` unknown. They are kept as they were read: another look
/// may find them in the past.
fn before(mut state: PatchLevel, now: Timestamp) -> PatchLevel {
    let sources = state.sources.iter_mut().map(|source| &mut source.release_time);
    for time in sources.chain([&mut state.security_metadata_time, &mut state.automatic_updates.last_success_time]) {
        *time = super::past(time.clone(), now);
    }
    state
}

/// Returns whether something was first seen later than `now`, by a clock that has been put back.
fn is_ahead(state: &PatchLevel, now: Timestamp) -> bool {
    let restart = state.reboot_required_since_time.iter().filter_map(Reading::known);
    state.pending.iter().map(|update| &update.first_offered_time).chain(restart).any(|time| *time > now)
}

/// Returns what keeps the packages of this host: as the distribution does, for another one's tools may be installed beside.
fn packages(host: &dyn Host) -> Result<Packages, Unknown> {
    let text = os_release(host);
    let ids = ["ID", "ID_LIKE"].map(|key| os_release_value(&text, key).unwrap_or_default()).join(" ");
    let dpkg = debian::check(host);
    let is_there = [
        (Packages::Dpkg, dpkg.is_ok()),
        (Packages::Rpm, rpm::has_database(host)),
        (Packages::Pacman, pacman::is_there(host)),
    ];
    match (packages_of(&ids), dpkg) {
        (Some(Packages::Dpkg), Err(unknown)) => return Err(unknown),
        (Some(packages), _) => return Ok(packages),
        (None, Err(unknown)) if unknown.cause != Cause::Absent => return Err(unknown),
        (None, _) => {}
    }
    let mut found = is_there.iter().filter(|(_, is_there)| *is_there).map(|(packages, _)| *packages);
    match (found.next(), found.next()) {
        (Some(packages), None) => Ok(packages),
        (Some(_), Some(_)) => {
            Err(Unknown::new(Cause::Undecidable, "several package databases, and no os-release to choose"))
        }
        (None, _) => Err(Unknown::new(Cause::Unsupported, "this build reads dpkg, rpm and pacman alone")),
    }
}

/// Returns the text of the host's os-release(5); empty when it cannot be read.
fn os_release(host: &dyn Host) -> String {
    let read = |path: &&str| host.read(Path::new(path), SMALL_FILE_BYTES).ok();
    let text = OS_RELEASE.iter().find_map(read).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// Returns what keeps the packages of a distribution by `ID` and `ID_LIKE` of os-release(5).
fn packages_of(ids: &str) -> Option<Packages> {
    ids.split_whitespace().find_map(|id| match id {
        "debian" | "ubuntu" => Some(Packages::Dpkg),
        "fedora" | "rhel" | "centos" | "suse" | "opensuse" | "sles" | "amzn" | "mageia" | "ol" => Some(Packages::Rpm),
        "arch" | "archlinux" => Some(Packages::Pacman),
        _ => None,
    })
}

/// Returns what is known of signatures where the system updates itself.
fn checked_by_updater() -> Reading<bool> {
    Reading::unknown(Cause::Absent, "the system's own updater checks signatures, and that has no switch")
}

/// Returns whether the same files will always give this: what only failed this time must be tried again.
fn is_lasting(state: &PatchLevel) -> bool {
    fn is_lasting<T>(reading: &Reading<T>) -> bool {
        match reading {
            Reading::Known(_) => true,
            Reading::Unknown { unknown } => {
                matches!(unknown.cause, Cause::Absent | Cause::Unsupported | Cause::Undecidable | Cause::Garbled)
            }
        }
    }
    let updates = &state.automatic_updates;
    is_lasting(&state.pending_complete)
        && is_lasting(&state.running_kernel)
        && is_lasting(&state.reboot_required)
        && is_lasting(&updates.enabled)
        && is_lasting(&updates.last_success_time)
}

/// Returns a digest of what tells whether any input changed.
fn made_from(host: &dyn Host, packages: Packages) -> Digest {
    let mut text = String::new();
    let mut add = |path: &Path| {
        let metadata = host.metadata(path).ok();
        let state = metadata.map(|metadata| (metadata.size_bytes, metadata.modified, metadata.inode));
        text.push_str(&format!("{} {state:?}\n", path.display()));
    };
    let (files, folders): (&[&str], Vec<PathBuf>) = match packages {
        Packages::Dpkg => (debian::FILES, debian::FOLDERS.iter().map(PathBuf::from).collect()),
        Packages::Rpm => (dnf::FILES, dnf::folders(host)),
        Packages::Pacman => (pacman::FILES, pacman::FOLDERS.iter().map(PathBuf::from).collect()),
    };
    for path in files.iter().chain(&OS_RELEASE) {
        add(Path::new(path));
    }
    for folder in folders {
        add(&folder);
        for name in host.list(&folder).unwrap_or_default() {
            add(&folder.join(name));
        }
    }
    let release = host.machine().map(|machine| machine.release).ok();
    text.push_str(&format!("{:?} {:?}", Running::look(host, release.as_deref()), restart::live_patches(host)));
    Digest::of_bytes(text.as_bytes())
}

/// Returns `updates` in order, each with since when it is available. `installed` says the versions of a key.
fn pending(
    look: &Look<'_>,
    sight: Sight,
    updates: Vec<Dated>,
    installed: &dyn Fn(&str) -> Vec<String>,
) -> Result<Vec<PendingUpdate>, Unknown> {
    pending_in(look, sight, None, updates, installed)
}

/// Returns the same of a manager whose publishers date no fix: `scope` is what the look is about.
fn pending_in(
    look: &Look<'_>,
    sight: Sight,
    scope: Option<&Scope<'_>>,
    mut updates: Vec<Dated>,
    installed: &dyn Fn(&str) -> Vec<String>,
) -> Result<Vec<PendingUpdate>, Unknown> {
    let order = |it: &Dated| (it.update.package.clone(), it.update.architecture.clone());
    updates.sort_by_key(order);
    let seen: Vec<Update> = updates
        .iter()
        .map(|Dated { update, published }| Update {
            key: format!("{}:{}", update.package, update.architecture),
            installed_version: update.installed_version.to_string(),
            security: update.security,
            published: *published,
        })
        .collect();
    let since = offered::since_in(look, sight, scope, &seen, &|key| Some(installed(key)))
        .map_err(|error| host::unknown("keep when updates were first offered", &error))?;
    let with_since = |(Dated { update, .. }, since): (Dated, offered::Since)| PendingUpdate {
        first_offered_time: since.first_offered,
        available_after_time: Some(since.available_after_time()),
        ..update
    };
    Ok(updates.into_iter().zip(since).map(with_since).collect())
}

fn running_kernel(release: io::Result<String>) -> Reading<Text> {
    match release {
        Ok(release) => Reading::Known(Text::new(&release)),
        Err(error) => Reading::Unknown { unknown: host::unknown("uname", &error) },
    }
}

/// Returns the `newest` kernel of the line of the running one, which is not told where that is not.
fn newest_kernel(running: &io::Result<String>, newest: Reading<Text>) -> Reading<Text> {
    match running {
        Ok(_) => newest,
        Err(error) => Reading::Unknown { unknown: host::unknown("uname", error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_this_time_is_not_kept_for_the_next_look() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-13");
        let mut host = crate::host::Recorded::at(&case).unwrap();
        let (memory, settings) = (tempfile::tempdir().unwrap(), super::super::Settings::default());
        let complete = |host: &crate::host::Recorded| {
            let watch = muster_proto::fact::WatchState::Live;
            let (now, memory) = (host.captured(), memory.path());
            facts(&Look { host, now, settings: &settings, memory, watch, run: 7, files: Default::default() })
                .unwrap()
                .patch_level
                .pending_complete
        };
        let timed_out = crate::host::recorded::Failure::of(&std::io::ErrorKind::TimedOut.into());
        host.index_mut().errors.insert("tool.apt-config.dump".to_owned(), timed_out);
        assert!(complete(&host).known().is_none());
        host.index_mut().errors.remove("tool.apt-config.dump");
        assert_eq!(complete(&host), Reading::Known(true));
    }

    #[test]
    fn what_is_dated_to_come_is_not_told_as_recent() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-12-pending");
        let mut host = crate::host::Recorded::at(&case).unwrap();
        let (captured, hour) = (host.captured(), std::time::Duration::from_secs(3600));
        let index = host.index_mut();
        let file = *index.metadata.values().next().unwrap();
        for stamp in [apt::STAMP, apt::UPGRADE_STAMP] {
            index.errors.remove(&format!("metadata {stamp}"));
            let path = muster_proto::fact::PathText::from_bytes(stamp.as_bytes());
            index.metadata.insert(path, crate::host::Metadata { modified: Some(captured.plus(hour)), ..file });
        }
        let (memory, settings) = (tempfile::tempdir().unwrap(), super::super::Settings::default());
        let state = |now: Timestamp| {
            let (memory, watch) = (memory.path(), muster_proto::fact::WatchState::Live);
            let look = Look { host: &host, now, settings: &settings, memory, watch, run: 7, files: Default::default() };
            match PatchLevelProbe.look(&look).remove(0) {
                Fact::PatchLevel(Reading::Known(state)) => state,
                fact => panic!("{fact:?}"),
            }
        };
        let cause = |time: &Reading<Timestamp>| match time {
            Reading::Unknown { unknown } => Some(unknown.cause),
            Reading::Known(_) => None,
        };
        let at_once = state(captured);
        assert_eq!(cause(&at_once.automatic_updates.last_success_time), Some(Cause::Undecidable));
        assert_eq!(cause(&at_once.security_metadata_time), None);
        // What was kept of the look before does not stay so.
        assert_eq!(cause(&state(captured.plus(hour)).automatic_updates.last_success_time), None);
        let long_ago = state(Timestamp::from_seconds(86_400).unwrap());
        assert_eq!(cause(&long_ago.security_metadata_time), Some(Cause::Undecidable));
        assert!(long_ago.sources.iter().all(|source| cause(&source.release_time) == Some(Cause::Undecidable)));
        assert!(!long_ago.pending.is_empty());
        let is_ahead = |update: &PendingUpdate| update.first_offered_time.seconds() > 86_400;
        assert!(!long_ago.pending.iter().any(is_ahead), "{:?}", long_ago.pending);
    }

    #[test]
    fn software_is_known_without_a_list_of_updates() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-13");
        let mut host = crate::host::Recorded::at(&case).unwrap();
        host.index_mut().lists.retain(|folder, _| folder.as_str() != lists::FOLDER);
        let absent = std::io::Error::from(std::io::ErrorKind::NotFound);
        let absent = crate::host::recorded::Failure::of(&absent);
        host.index_mut().errors.insert(format!("list {}", lists::FOLDER), absent);
        let (memory, settings) = (tempfile::tempdir().unwrap(), super::super::Settings::default());
        let (now, memory, watch) = (host.captured(), memory.path(), muster_proto::fact::WatchState::Live);
        let facts =
            facts(&Look { host: &host, now, settings: &settings, memory, watch, run: 7, files: Default::default() })
                .unwrap();
        assert!(!facts.software.packages.is_empty());
        let Reading::Unknown { unknown } = facts.patch_level.pending_complete else { panic!() };
        assert_eq!(unknown.cause, Cause::Absent);
    }
}
