//! Updates that dpkg and apt know of, and the software that is installed.
//!
//! dpkg's status file and apt's fetched lists are read as they are, in one pass each, so that no list is ever held whole.
//! A host whose files are as at the look before costs a few dozen lstat(2): the facts are kept beside a digest of what they
//! were made from.

mod apt;
mod dpkg;
mod lists;
mod macos;
mod offered;
mod restart;
mod sources;
mod windows;

use std::path::Path;

use muster_proto::{
    fact::{
        Cause, Fact, OsFamily, Package, PackageManager, PatchLevel, PendingUpdate, Reading, Software, Subject, Text,
        Unknown,
    },
    id::Digest,
    report,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use self::{
    dpkg::Installed,
    lists::Offers,
    offered::{Sight, Update},
    restart::Running,
};
use super::{Look, Probe, memory};
use crate::host::{self, Host};

/// Where dpkg keeps what is installed.
const STATUS: &str = "/var/lib/dpkg/status";
/// Name of the kept facts in the probe's memory.
const CACHE: &str = "facts.json";
/// Version of it.
const VERSION: u32 = 2;

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
            vec![Fact::PatchLevel(state), Fact::unknown(Subject::Software, unsupported)]
        };
        match look.host.os_family() {
            OsFamily::Linux => {}
            OsFamily::Macos => return elsewhere(macos::state(look)),
            OsFamily::Windows => return elsewhere(windows::state(look)),
        }
        match facts(look) {
            Ok(facts) => vec![
                Fact::PatchLevel(Reading::Known(facts.patch_level)),
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

fn facts(look: &Look<'_>) -> Result<Facts, Unknown> {
    let host = look.host;
    if let Err(error) = host.metadata(Path::new(STATUS)) {
        return Err(match host::cause(&error) {
            Cause::Absent => Unknown::new(Cause::Unsupported, "this build reads dpkg and apt alone"),
            _ => host::unknown(format!("look at {STATUS}"), &error),
        });
    }
    let made_from = made_from(host);
    if let Some(facts) = memory::read_json::<Facts>(&look.memory.join(CACHE))
        && facts.version == VERSION
        && facts.made_from == made_from
    {
        return Ok(facts);
    }
    let installed = dpkg::read(host)?;
    let facts = Facts {
        version: VERSION,
        made_from,
        patch_level: patch_level(look, &installed)?,
        software: software(&installed),
    };
    // A cache that cannot be written costs the next look its work.
    if is_lasting(&facts.patch_level) {
        let _ = memory::write_json(look.memory, CACHE, &facts);
    }
    Ok(facts)
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
fn made_from(host: &dyn Host) -> Digest {
    let mut text = String::new();
    let mut add = |path: &Path| {
        let metadata = host.metadata(path).ok();
        let state = metadata.map(|metadata| (metadata.size_bytes, metadata.modified, metadata.inode));
        text.push_str(&format!("{} {state:?}\n", path.display()));
    };
    for path in
        [STATUS, restart::NOTE, restart::PACKAGES, apt::STAMP, apt::PREFERENCES, sources::LIST, "/etc/apt/apt.conf"]
    {
        add(Path::new(path));
    }
    for folder in [lists::FOLDER, apt::CONFIG_FOLDER, apt::PREFERENCES_FOLDER, sources::FOLDER] {
        add(Path::new(folder));
        for name in host.list(Path::new(folder)).unwrap_or_default() {
            add(&Path::new(folder).join(name));
        }
    }
    let release = host.machine().map(|machine| machine.release).ok();
    text.push_str(&format!("{:?}", Running::look(host, release.as_deref())));
    Digest::of_bytes(text.as_bytes())
}

fn software(installed: &Installed) -> Software {
    let mut packages: Vec<Package> = installed
        .packages
        .iter()
        .flat_map(|(name, packages)| {
            packages.iter().map(move |package| Package {
                name: Text::new(name),
                version: Text::new(&package.version_text),
                architecture: Text::new(&package.architecture),
                manager: PackageManager::Dpkg,
            })
        })
        .collect();
    packages.sort_by(|a, b| (&a.name, &a.architecture, &a.version).cmp(&(&b.name, &b.architecture, &b.version)));
    Software { packages }
}

fn patch_level(look: &Look<'_>, installed: &Installed) -> Result<PatchLevel, Unknown> {
    let host = look.host;
    let config = apt::config(host);
    let configured = sources::read(host, installed.native());
    let offers = lists::read(host, installed, &configured, &apt::verifies(&config));
    let running = host.machine().map(|machine| machine.release);
    let kernel = Running::look(host, running.as_deref().ok());
    let newest = restart::newest_kernel(installed, &kernel);
    let restart = restart::look(look, &kernel, installed);
    let pending_complete = apt::pending_complete(host, &config, &offers, installed);
    let security_time = security_time(&offers);
    let is_complete = pending_complete == Reading::Known(true);
    let sight = Sight { now: look.now, is_complete, metadata: security_time.known().copied() };
    Ok(PatchLevel {
        manager: PackageManager::Apt,
        pending: pending(look, sight, installed, &offers)?,
        pending_complete,
        security_metadata_time: security_time,
        security_metadata_valid_until_time: security_end(&offers),
        running_kernel: match running {
            Ok(release) => Reading::Known(Text::new(&release)),
            Err(error) => Reading::Unknown { unknown: host::unknown("uname", &error) },
        },
        newest_kernel: match newest {
            Some(kernel) => Reading::Known(Text::new(kernel.release)),
            None => Reading::unknown(Cause::Absent, "no kernel package is installed"),
        },
        reboot_required: restart.required,
        reboot_required_since_time: restart.since,
        reboot_packages: restart.packages,
        automatic_updates: apt::automatic_updates(host, config, installed.has("unattended-upgrades")),
        security_metadata_verified: Some(security_verified(&offers)),
        sources: offers.sources,
        live_patches: Vec::new(),
    })
}

/// Returns when the oldest metadata of the security repositories were made; one that is unknown makes it unknown.
fn security_time(offers: &Offers) -> Reading<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for source in offers.sources.iter().filter(|source| source.security) {
        match &source.release_time {
            Reading::Known(time) => earliest = Some(earliest.map_or(*time, |earliest| earliest.min(*time))),
            unknown => return unknown.clone(),
        }
    }
    earliest.map_or_else(no_security_list, Reading::Known)
}

/// Returns until when the metadata of the security repositories may be used. A repository that states no end, as Ubuntu's,
/// sets none; an end that cannot be read makes it unknown.
fn security_end(offers: &Offers) -> Reading<Timestamp> {
    let mut ends =
        offers.sources.iter().filter(|source| source.security).map(|source| &source.valid_until_time).peekable();
    if ends.peek().is_none() {
        return no_security_list();
    }
    let mut earliest: Option<Timestamp> = None;
    for end in ends {
        match end {
            Reading::Known(time) => earliest = Some(earliest.map_or(*time, |earliest| earliest.min(*time))),
            Reading::Unknown { unknown } if unknown.cause == Cause::Absent => {}
            unknown => return unknown.clone(),
        }
    }
    let states_none = || Reading::unknown(Cause::Absent, "states none: the security repositories set no Valid-Until");
    earliest.map_or_else(states_none, Reading::Known)
}

/// Returns whether the metadata of every security repository are verified: one that is not decides.
fn security_verified(offers: &Offers) -> Reading<bool> {
    let sources = offers.sources.iter().filter(|source| source.security);
    let mut found: Vec<Reading<bool>> = sources.filter_map(|source| source.verified.clone()).collect();
    let rank = |verified: &Reading<bool>| match verified {
        Reading::Known(false) => 0,
        Reading::Unknown { .. } => 1,
        Reading::Known(true) => 2,
    };
    found.sort_by_key(rank);
    let none = || Reading::unknown(Cause::Undecidable, "no list of a security repository was fetched");
    found.into_iter().next().unwrap_or_else(none)
}

fn no_security_list() -> Reading<Timestamp> {
    Reading::unknown(Cause::Absent, "no list of a security repository was fetched")
}

fn pending(
    look: &Look<'_>,
    sight: Sight,
    installed: &Installed,
    offers: &Offers,
) -> Result<Vec<PendingUpdate>, Unknown> {
    let mut pending: Vec<PendingUpdate> = offers
        .candidates
        .iter()
        .filter_map(|((name, at), offer)| {
            let package = &installed.packages[name][*at];
            let candidate = offer.candidate()?;
            Some(PendingUpdate {
                package: Text::new(name),
                architecture: Text::new(&package.architecture),
                installed_version: Text::new(&package.version_text),
                candidate_version: Text::new(&candidate.version.to_string()),
                security: offer.security,
                held: package.held,
                origin: Text::new(&candidate.label),
                first_offered_time: sight.now,
                available_after_time: None,
                phased_percent: candidate.phased_percent.map(Reading::Known),
            })
        })
        .collect();
    pending.sort_by(|a, b| (&a.package, &a.architecture).cmp(&(&b.package, &b.architecture)));
    let updates: Vec<Update> = pending
        .iter()
        .map(|update| Update {
            key: format!("{}:{}", update.package, update.architecture),
            installed_version: update.installed_version.to_string(),
            security: update.security,
            published: None,
        })
        .collect();
    let since = offered::since(look, sight, &updates, &|key| installed.versions(key))
        .map_err(|error| host::unknown("keep when updates were first offered", &error))?;
    for (update, since) in pending.iter_mut().zip(since) {
        update.first_offered_time = since.first_offered;
        update.available_after_time = Some(since.available_after_time());
    }
    Ok(pending)
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::UpdateSource;

    use super::*;

    #[test]
    fn metadata_without_an_end_are_told_from_an_end_that_is_not_readable() {
        let source = |security, end: &Reading<Timestamp>| UpdateSource {
            label: Text::default(),
            codename: Text::default(),
            suite: Text::default(),
            security,
            release_time: Reading::Known(Timestamp::EPOCH),
            valid_until_time: end.clone(),
            origin: Text::default(),
            verified: None,
        };
        let (early, late) = ("2026-11-02T00:00:00Z".parse().unwrap(), "2026-11-09T00:00:00Z".parse().unwrap());
        let none = Reading::unknown(Cause::Absent, "Release file has no Valid-Until");
        let garbled = Reading::unknown(Cause::Garbled, "no date");
        let (early, late) = (Reading::Known(early), Reading::Known(late));
        let end = |sources: &[(bool, &Reading<Timestamp>)]| {
            let sources = sources.iter().map(|(security, end)| source(*security, end)).collect();
            security_end(&Offers { sources, ..Offers::default() })
        };
        assert_eq!(end(&[(true, &late), (true, &early), (false, &garbled)]), early);
        assert_eq!(end(&[(true, &none), (true, &late)]), late);
        assert_eq!(end(&[(true, &late), (true, &garbled)]), garbled);
        let Reading::Unknown { unknown } = end(&[(true, &none)]) else { panic!() };
        assert_eq!((unknown.cause, unknown.detail.as_str().split(':').next()), (Cause::Absent, Some("states none")));
        assert_eq!(end(&[(false, &late)]), no_security_list());
    }

    #[test]
    fn what_failed_this_time_is_not_kept_for_the_next_look() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-13");
        let mut host = crate::host::Recorded::at(&case).unwrap();
        let (memory, settings) = (tempfile::tempdir().unwrap(), super::super::Settings::default());
        let complete = |host: &crate::host::Recorded| {
            let watch = muster_proto::fact::WatchState::Live;
            let (now, memory) = (host.captured(), memory.path());
            facts(&Look { host, now, settings: &settings, memory, watch, run: 7 }).unwrap().patch_level.pending_complete
        };
        let timed_out = crate::host::recorded::Failure::of(&std::io::ErrorKind::TimedOut.into());
        host.index_mut().errors.insert("tool.apt-config.dump".to_owned(), timed_out);
        assert!(complete(&host).known().is_none());
        host.index_mut().errors.remove("tool.apt-config.dump");
        assert_eq!(complete(&host), Reading::Known(true));
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
        let facts = facts(&Look { host: &host, now, settings: &settings, memory, watch, run: 7 }).unwrap();
        assert!(!facts.software.packages.is_empty());
        let Reading::Unknown { unknown } = facts.patch_level.pending_complete else { panic!() };
        assert_eq!(unknown.cause, Cause::Absent);
    }
}
