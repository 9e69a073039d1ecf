//! Debian and its like: dpkg's packages, and what apt's fetched lists offer.

use std::path::Path;

use debversion::Version;
use muster_proto::{
    fact::{Cause, Package, PackageManager, PatchLevel, PendingUpdate, Reading, Software, Text, Unknown},
    time::Timestamp,
};

use super::{
    Dated, Found, apt,
    dpkg::{self, Installed, InstalledPackage},
    lists::{self, Distribution, Offers},
    offered::{self, Scope, Sight},
    pins,
    restart::{self, Running},
    security,
    sources::{self, Configured},
    units,
};
use crate::{
    host::{self, Host},
    probe::Look,
};

/// Where dpkg keeps what is installed.
pub(super) const STATUS: &str = "/var/lib/dpkg/status";

/// Files that the facts are made from.
pub(super) const FILES: &[&str] = &[
    STATUS,
    restart::NOTE,
    restart::PACKAGES,
    apt::STAMP,
    apt::UPGRADE_STAMP,
    pins::FILE,
    apt::CRON_JOB,
    apt::PROGRAMS[0],
    apt::PROGRAMS[1],
    units::WANTED[1],
    sources::LIST,
    "/etc/apt/apt.conf",
];
/// Folders of such files.
pub(super) const FOLDERS: &[&str] = &[
    lists::FOLDER,
    apt::CONFIG_FOLDER,
    pins::FOLDER,
    sources::FOLDER,
    units::OWN[0],
    units::OWN[1],
    units::OWN[2],
    units::OWN[3],
    units::OWN[4],
];

pub(super) fn look(look: &Look<'_>) -> Result<Found, Unknown> {
    let installed = dpkg::read(look.host)?;
    Ok(Found { patch_level: patch_level(look, &installed)?, software: software(&installed) })
}

/// Returns why dpkg's packages cannot be read, if they are not there or not shown.
pub(super) fn check(host: &dyn Host) -> Result<(), Unknown> {
    let looked = host.metadata(Path::new(STATUS));
    looked.map(drop).map_err(|error| host::unknown(format!("look at {STATUS}"), &error))
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
    let distribution = Distribution::parse(&super::os_release(host));
    let offers = lists::read(host, installed, &configured, &apt::verifies(&config), &distribution);
    let running = host.machine().map(|machine| machine.release);
    let kernel = Running::look(host, running.as_deref().ok());
    let newest = restart::newest_kernel(installed, &kernel);
    let restart = restart::look(look, &kernel, installed);
    let pending_complete = apt::pending_complete(&config, &offers);
    // A repository that could not be read may be the one for security updates.
    let releases = &offers.releases_unknown.clone().or_else(|| offers.security_unknown.clone());
    let security_time = security::unless(releases, security::time(&offers.sources));
    let is_complete = pending_complete == Reading::Known(true);
    let sight = Sight { now: look.now, is_complete, metadata: security_time.known().copied() };
    let scope = scope(installed, configured.as_deref().unwrap_or_default());
    let updates = pending(installed, &offers, look.now);
    Ok(PatchLevel {
        manager: PackageManager::Apt,
        pending: super::pending_in(look, sight, Some(&scope), updates, &|key| installed.versions(key))?,
        pending_complete,
        security_metadata_time: security_time,
        security_metadata_valid_until_time: security::unless(releases, security::end(&offers.sources)),
        running_kernel: super::running_kernel(running),
        newest_kernel: match newest {
            Some(kernel) => Reading::Known(Text::new(kernel.release)),
            None if restart::has_kernel(installed) => {
                Reading::unknown(Cause::Absent, "no installed kernel package is of the line of the running kernel")
            }
            None => Reading::unknown(Cause::Absent, "no kernel package is installed"),
        },
        reboot_required: restart.required,
        reboot_required_since_time: restart.since,
        reboot_packages: restart.packages,
        automatic_updates: apt::automatic_updates(host, config, &offers, installed, &distribution),
        security_metadata_verified: Some(security::unless_false(releases, security::verified(&offers.sources))),
        sources: offers.sources,
        live_patches: restart::live_patches(host),
    })
}

/// Returns what a look is about: an update that was not pending at another one may have had nothing to update, or not been looked for.
fn scope(installed: &Installed, configured: &[Configured]) -> Scope<'static> {
    let packages = installed.packages.iter().flat_map(|(name, packages)| packages.iter().map(move |it| (name, it)));
    let package = |(name, it): (&String, &InstalledPackage)| {
        offered::package(&format!("{name}:{}", it.architecture), &it.version_text)
    };
    let sources = configured.iter().flat_map(|it| {
        let components = it.components.iter().map(String::as_str).chain(it.components.is_empty().then_some(""));
        components.flat_map(move |component| {
            // Those of the host itself have no name.
            let own = it.architectures.is_empty().then_some("");
            let architectures = it.architectures.iter().map(String::as_str).chain(own);
            architectures.map(move |architecture| format!("{} {component} {architecture}", it.file))
        })
    });
    Scope { installed: packages.map(package).collect(), sources: sources.collect(), is_older: &is_older }
}

fn is_older(version: &str, other: &str) -> bool {
    matches!((version.parse::<Version>(), other.parse::<Version>()), (Ok(version), Ok(other)) if version < other)
}

fn pending(installed: &Installed, offers: &Offers, now: Timestamp) -> Vec<Dated> {
    offers
        .candidates
        .iter()
        .filter_map(|((name, at), offer)| {
            let package = &installed.packages[name][*at];
            let candidate = offer.candidate()?;
            let update = PendingUpdate {
                package: Text::new(name),
                architecture: Text::new(&package.architecture),
                installed_version: Text::new(&package.version_text),
                candidate_version: Text::new(&candidate.version.to_string()),
                security: offer.security,
                held: package.held,
                origin: Text::new(&candidate.label),
                first_offered_time: now,
                available_after_time: None,
                phased_percent: candidate.phased_percent.map(Reading::Known),
            };
            Some(Dated { update, published: None })
        })
        .collect()
}
