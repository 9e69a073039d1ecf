//! Updates that dpkg and apt know of, and the software that is installed.
//!
//! dpkg's status file and apt's fetched lists are read as they are, in one pass each, so that no list is ever held whole.
//! A host whose files are as at the look before costs a few dozen lstat(2): the facts are kept beside a digest of what they
//! were made from.

mod apt;
mod dpkg;
mod lists;
mod restart;

use std::{collections::BTreeMap, path::Path};

use muster_proto::{
    fact::{Cause, Fact, Package, PackageManager, PatchLevel, PendingUpdate, Reading, Software, Text, Unknown},
    id::Digest,
    report,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use self::{dpkg::Installed, lists::Offers, restart::Running};
use super::{Look, Probe, memory};
use crate::host::{self, Host};

/// Where dpkg keeps what is installed.
const STATUS: &str = "/var/lib/dpkg/status";
/// Name of the kept facts in the probe's memory.
const CACHE: &str = "facts.json";
/// Name of the times at which updates were first seen.
const FIRST_OFFERED: &str = "first_offered.json";
/// Version of both files.
const VERSION: u32 = 1;

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
    let offers = lists::read(host, &installed);
    let facts = Facts {
        version: VERSION,
        made_from,
        patch_level: patch_level(look, &installed, offers)?,
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
    for path in [STATUS, restart::NOTE, restart::PACKAGES, apt::STAMP, apt::PREFERENCES, "/etc/apt/apt.conf"] {
        add(Path::new(path));
    }
    for folder in [lists::FOLDER, apt::CONFIG_FOLDER, apt::PREFERENCES_FOLDER] {
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

fn patch_level(look: &Look<'_>, installed: &Installed, offers: Offers) -> Result<PatchLevel, Unknown> {
    let host = look.host;
    let config = apt::config(host);
    let running = host.machine().map(|machine| machine.release);
    let kernel = Running::look(host, running.as_deref().ok());
    let newest = restart::newest_kernel(installed, &kernel);
    let restart = restart::look(look, &kernel, installed);
    let pending = pending(look, installed, &offers)?;
    Ok(PatchLevel {
        manager: PackageManager::Apt,
        pending,
        pending_complete: apt::pending_complete(host, &config, &offers, installed),
        security_metadata_time: security_time(&offers),
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
        sources: offers.sources,
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

fn no_security_list() -> Reading<Timestamp> {
    Reading::unknown(Cause::Absent, "no list of a security repository was fetched")
}

#[derive(Default, Deserialize, Serialize)]
struct FirstOffered {
    version: u32,
    /// Time by `package:architecture`.
    times: BTreeMap<String, Timestamp>,
}

fn pending(look: &Look<'_>, installed: &Installed, offers: &Offers) -> Result<Vec<PendingUpdate>, Unknown> {
    let before: FirstOffered = memory::read_json(&look.memory.join(FIRST_OFFERED)).unwrap_or_default();
    let mut after = FirstOffered { version: VERSION, times: BTreeMap::new() };
    let mut pending = Vec::new();
    for ((name, at), offer) in &offers.candidates {
        let package = &installed.packages[name][*at];
        let Some(candidate) = offer.candidate() else { continue };
        let key = format!("{name}:{}", package.architecture);
        let first_offered = before.times.get(&key).copied().unwrap_or(look.now).min(look.now);
        after.times.insert(key, first_offered);
        pending.push(PendingUpdate {
            package: Text::new(name),
            architecture: Text::new(&package.architecture),
            installed_version: Text::new(&package.version_text),
            candidate_version: Text::new(&candidate.version.to_string()),
            security: offer.security,
            held: package.held,
            origin: Text::new(&candidate.label),
            first_offered_time: first_offered,
        });
    }
    pending.sort_by(|a, b| (&a.package, &a.architecture).cmp(&(&b.package, &b.architecture)));
    if offers.incomplete.is_some() {
        // A list that cannot be read this time takes nothing back.
        for (key, time) in before.times {
            after.times.entry(key).or_insert(time);
        }
    }
    memory::write_json(look.memory, FIRST_OFFERED, &after)
        .map_err(|error| host::unknown("keep when updates were first offered", &error))?;
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
