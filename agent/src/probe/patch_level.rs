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

use self::{dpkg::Installed, lists::Offers};
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
    let offers = lists::read(host, &installed)?;
    let facts = Facts {
        version: VERSION,
        made_from,
        patch_level: patch_level(look, &installed, offers)?,
        software: software(&installed),
    };
    // A cache that cannot be written costs the next look its work.
    let _ = memory::write_json(look.memory, CACHE, &facts);
    Ok(facts)
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
    let release = host.machine().map(|machine| machine.release).unwrap_or_default();
    text.push_str(&release);
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
    let newest = restart::newest_kernel(installed);
    let restart = restart::look(host, running.as_deref().ok(), newest.as_deref());
    let pending = pending(look, installed, &offers)?;
    Ok(PatchLevel {
        manager: PackageManager::Apt,
        pending,
        pending_complete: apt::pending_complete(host, &config, &offers),
        security_metadata_time: security_time(&offers, |source| &source.release_time),
        security_metadata_valid_until_time: security_time(&offers, |source| &source.valid_until_time),
        running_kernel: match running {
            Ok(release) => Reading::Known(Text::new(&release)),
            Err(error) => Reading::Unknown { unknown: host::unknown("uname", &error) },
        },
        newest_kernel: match newest {
            Some(release) => Reading::Known(Text::new(&release)),
            None => Reading::unknown(Cause::Absent, "no kernel package is installed"),
        },
        reboot_required: restart.required,
        reboot_required_since_time: restart.since,
        reboot_packages: restart.packages,
        automatic_updates: apt::automatic_updates(host, config, installed.has("unattended-upgrades")),
        sources: offers.sources,
    })
}

/// Returns the earliest time of the security repositories; one that is unknown makes it unknown.
fn security_time(
    offers: &Offers,
    time: impl Fn(&muster_proto::fact::UpdateSource) -> &Reading<Timestamp>,
) -> Reading<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for source in offers.sources.iter().filter(|source| source.security) {
        match time(source) {
            Reading::Known(time) => earliest = Some(earliest.map_or(*time, |earliest| earliest.min(*time))),
            unknown => return unknown.clone(),
        }
    }
    match earliest {
        Some(time) => Reading::Known(time),
        None => Reading::unknown(Cause::Absent, "no list of a security repository was fetched"),
    }
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
    memory::write_json(look.memory, FIRST_OFFERED, &after)
        .map_err(|error| host::unknown("keep when updates were first offered", &error))?;
    Ok(pending)
}
