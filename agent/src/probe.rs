//! The probes: each looks at one side of the machine and gives facts.
//!
//! A probe is a set of pure parsers and rules below a thin look that asks the [`Host`]. It never judges, and what it
//! cannot tell it says so, with the cause.

pub mod accounts;
mod answer;
pub mod backup;
pub mod boot;
pub mod capacity;
pub mod clock;
pub(crate) mod deb822;
pub mod disk_encryption;
pub mod file_integrity;
pub mod firewall;
pub mod logging;
pub(crate) mod memory;
mod packages;
pub mod patch_level;
mod plist;
mod processes;
pub mod remote_access;
pub mod removable_media;
pub mod screen_lock;
pub mod sensors;
pub mod system;

use std::path::{Path, PathBuf};

use muster_proto::{
    fact::{Cause, Fact, Reading, Subject, Unknown, WatchState},
    report,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

pub use file_integrity::FileLook;
pub use memory::Folder;

use crate::{fim::watch_set::WatchSet, host::Host};

#[cfg(test)]
mod faults;
#[cfg(test)]
mod stable;

/// Looks at one side of the machine.
pub trait Probe: Send + Sync {
    /// Returns its id in reports.
    fn id(&self) -> report::Probe;

    /// Returns its name, such as `disk_encryption`.
    fn name(&self) -> &'static str;

    /// Looks, and returns one fact of each of its subjects.
    fn look(&self, look: &Look<'_>) -> Vec<Fact>;
}

/// What a look is given.
pub struct Look<'a> {
    /// The machine.
    pub host: &'a dyn Host,
    /// When the look begins, host's clock.
    pub now: Timestamp,
    /// What probes are told to do.
    pub settings: &'a Settings,
    /// Folder of the probe's own durable state. It is there.
    pub memory: &'a Path,
    /// Whether file changes are noticed as they happen.
    pub watch: WatchState,
    /// Drawn when the agent started: tells whether it ran all the time between two looks.
    pub run: u64,
    /// How file integrity looks; no other probe takes note of it.
    pub files: FileLook<'a>,
}

/// Every probe of this build, in the order in which reports list them.
pub const PROBES: &[&dyn Probe] = &[
    &system::SystemProbe,
    &disk_encryption::DiskEncryptionProbe,
    &patch_level::PatchLevelProbe,
    &firewall::FirewallProbe,
    &file_integrity::FileIntegrityProbe,
    &accounts::AccountsProbe,
    &remote_access::RemoteAccessProbe,
    &screen_lock::ScreenLockProbe,
    &removable_media::RemovableMediaProbe,
    &sensors::SensorsProbe,
    &clock::ClockProbe,
    &logging::LoggingProbe,
    &boot::BootProbe,
    &capacity::CapacityProbe,
    &backup::BackupProbe,
];

/// Returns the probe of `id`; `None` when this build has none.
pub fn find(id: report::Probe) -> Option<&'static dyn Probe> {
    PROBES.iter().copied().find(|probe| probe.id() == id)
}

/// Returns the subjects that the probe of `id` keeps fresh.
pub fn subjects(id: report::Probe) -> impl Iterator<Item = Subject> {
    Subject::ALL.into_iter().filter(move |subject| subject.probe() == id)
}

/// Returns a fact of each subject of the probe of `id`, all unknown for the same reason.
pub fn unknown(id: report::Probe, unknown: &Unknown) -> Vec<Fact> {
    subjects(id).map(|subject| Fact::unknown(subject, unknown.clone())).collect()
}

/// Returns a time that something is said to have happened at, unless that is still to come: such a time would be recent for ever.
fn past(time: Reading<Timestamp>, now: Timestamp) -> Reading<Timestamp> {
    match time {
        Reading::Known(time) if time > now => {
            Reading::unknown(Cause::Undecidable, format!("{time} is later than the host's clock, {now}"))
        }
        other => other,
    }
}

/// What probes are told to do.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Absolute paths that file integrity covers, each with everything below it: short for one watch set named `paths`. A path that
    /// does not exist, or is a link, which is not followed, is reported as such. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watched_paths: Vec<PathBuf>,
    /// Watch sets that file integrity covers. Default: those of [`crate::fim::sets::defaults`] for the class of host, unless
    /// `watched_paths` names any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watch_sets: Vec<WatchSet>,
    /// Folders that may be watched for changes as they happen, at most; each costs the kernel about 1 KiB. The rest is only
    /// scanned. Default: 8192; 0 watches none.
    pub watched_folders: usize,
    /// Absolute paths of files that a backup job touches when it ended well, such as by `ExecStartPost=` of its unit: for clients
    /// that keep no record on the host. Default: none; at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backup_stamps: Vec<PathBuf>,
    /// Bytes of watched files that are read in a second, at most. Default: 104857600 (100 MiB); 0 is without limit.
    pub file_bytes_per_second: u64,
    /// Hours within which every watched file is read again, also when its metadata never changes; twice that while a host runs on
    /// its battery. Default: 24; 0 reads only what its metadata says has changed, which FIM-01 does not accept.
    pub file_reread_hours: u64,
    /// Whether the kernel is asked which process changed a watched file. It needs CAP_SYS_ADMIN, and is off without. Default: true.
    pub attribute_changes: bool,
    /// Seconds that a look of one probe may take; file integrity may take ten times as long without coming further. Default: 60.
    pub look_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            watched_paths: Vec::new(),
            watch_sets: Vec::new(),
            watched_folders: 8192,
            backup_stamps: Vec::new(),
            file_bytes_per_second: 100 << 20,
            file_reread_hours: 24,
            attribute_changes: true,
            look_seconds: 60,
        }
    }
}

impl Settings {
    /// Returns how long a look of the probe of `id` may take.
    pub fn time_limit(&self, id: report::Probe) -> std::time::Duration {
        let factor = if id == report::Probe::FileIntegrity { 10 } else { 1 };
        std::time::Duration::from_secs(self.look_seconds.clamp(1, 3600) * factor)
    }
}

#[cfg(test)]
mod elsewhere;
#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::host::Recorded;

    #[test]
    fn what_is_still_to_come_is_not_taken_for_what_happened() {
        let time = |seconds| Timestamp::from_seconds(seconds).unwrap();
        for (at, expected) in [(9, Some(9)), (10, Some(10)), (11, None)] {
            assert_eq!(past(Reading::Known(time(at)), time(10)).known().copied(), expected.map(time), "{at}");
        }
    }

    #[test]
    fn probes_have_unique_names_and_ids_and_keep_every_subject_fresh() {
        let names: BTreeSet<_> = PROBES.iter().map(|probe| probe.name()).collect();
        let ids: BTreeSet<_> = PROBES.iter().map(|probe| probe.id()).collect();
        assert_eq!((names.len(), ids.len()), (PROBES.len(), PROBES.len()));
        for subject in Subject::ALL {
            assert!(find(subject.probe()).is_some(), "{subject:?} has no probe");
        }
    }

    /// Each folder under `fixtures/<probe>/` is one machine: a capture, the facts that are expected of it, and where the
    /// probe needs them `settings.json` and the `memory` that looks before left.
    #[test]
    fn fixtures_read_as_expected() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        for probe in PROBES {
            let mut seen = 0;
            for case in std::fs::read_dir(fixtures.join(probe.name())).unwrap() {
                let case = case.unwrap().path();
                let expected = std::fs::read_to_string(case.join("expected.json")).unwrap();
                let expected = expected.replace("${VERSION}", env!("CARGO_PKG_VERSION"));
                let found = serde_json::to_string_pretty(&look_at(*probe, &case)).unwrap();
                assert_eq!(found, expected.trim_end(), "{}", case.display());
                seen += 1;
            }
            assert!(seen > 0, "probe {} has no fixture", probe.name());
        }
    }

    /// Returns the facts after two looks at `case`, which must agree: nothing changed between them.
    fn look_at(probe: &dyn Probe, case: &Path) -> Vec<Fact> {
        let host = Recorded::at(case).unwrap();
        let settings = match std::fs::read(case.join("settings.json")) {
            Ok(json) => serde_json::from_slice(&json).unwrap(),
            Err(_) => Settings::default(),
        };
        let memory = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(case.join("memory")).into_iter().flatten() {
            let file = file.unwrap();
            std::fs::copy(file.path(), memory.path().join(file.file_name())).unwrap();
        }
        let look = |minutes: u64| {
            let now = host.captured().plus(std::time::Duration::from_secs(60 * minutes));
            let watch = WatchState::Live;
            probe.look(&Look {
                host: &host,
                now,
                settings: &settings,
                memory: memory.path(),
                watch,
                run: 7,
                files: Default::default(),
            })
        };
        let first = look(0);
        assert_eq!(look(1), first, "a second look differs: {}", case.display());
        for fact in &first {
            assert_eq!(Fact::decode(&fact.encode()).as_ref(), Ok(fact), "{}", case.display());
        }
        first
    }
}
