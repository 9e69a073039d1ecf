//! Whether an rpm host must restart: by its kernels, and by what dnf and zypper take for a reason.

use std::path::Path;

use muster_proto::fact::{Cause, Reading, Text};

use super::{
    restart::{self, Restart, Running},
    rpm::{Installed, Rpm},
    rpm_version::{self, Evr},
};
use crate::{host, probe::Look};

/// zypper makes it when a package asks for a restart (zypper(8), `needs-rebooting`).
pub(super) const NOTE: &str = "/run/reboot-needed";
/// Packages of kernels, each with what tells its flavour in a kernel's release; SUSE's are ends, which begin with a minus. A
/// package whose kernel another one of these only asks for goes after it.
const KERNELS: &[(&str, &str)] = &[
    ("kernel-64k-core", "+64k"),
    ("kernel-rt-core", "+rt"),
    // Up to RHEL 9.2, as in `4.18.0-553.rt7.342.el8_10.x86_64`.
    ("kernel-rt-core", ".rt"),
    ("kernel-rt", ".rt"),
    ("kernel-uek-core", "uek"),
    ("kernel-uek", "uek"),
    ("kernel-default", "-default"),
    ("kernel-default-base", "-default"),
    ("kernel-azure", "-azure"),
    ("kernel-rt", "-rt"),
    ("kernel-longterm", "-longterm"),
    ("kernel-preempt", "-preempt"),
    ("kernel-core", ""),
    ("kernel", ""),
    // ELRepo's.
    ("kernel-ml-core", ""),
    ("kernel-ml", ""),
    ("kernel-lt-core", ""),
    ("kernel-lt", ""),
];
/// Packages after whose installation dnf's plug-in `needs-restarting` asks for a restart.
const CORE: &[&str] = &[
    "dbus",
    "dbus-broker",
    "dbus-daemon",
    "glibc",
    "gnutls",
    "linux-firmware",
    "microcode_ctl",
    "openssl-libs",
    "systemd",
    "udev",
];

/// Returns whether a restart is needed, and the newest installed kernel of the flavour that runs.
pub(super) fn look(look: &Look<'_>, running: &Running, installed: &Installed) -> (Restart, Reading<Text>) {
    let host = look.host;
    let own = running.release.as_deref();
    let line = own.map(|own| line(installed, own)).unwrap_or_default();
    let newest = line.last().copied();
    // A container has the kernel of its host, whatever is installed in it.
    let compared = own.filter(|_| !running.is_container && newest.is_some());
    let newer = compared.into_iter().flat_map(|own| line.iter().copied().filter(|kernel| !is_running(kernel, own)));
    let started = restart::started(host, running);
    let since_start: Vec<&Rpm> = match &started {
        Ok(started) => {
            let is_core = |package: &&Rpm| CORE.contains(&package.name.as_str());
            installed
                .values()
                .flatten()
                .filter(is_core)
                .filter(|it| it.installed.is_some_and(|at| at > *started))
                .collect()
        }
        Err(_) => Vec::new(),
    };
    let note = host.metadata(Path::new(NOTE));
    let asks: Vec<&Rpm> = newer.chain(since_start).collect();
    let required = match (&note, started) {
        _ if !asks.is_empty() => Reading::Known(true),
        (Ok(_), _) => Reading::Known(true),
        (Err(error), _) if host::cause(error) != Cause::Absent => {
            Reading::Unknown { unknown: host::unknown(format!("look at {NOTE}"), error) }
        }
        (Err(_), Err(unknown)) => Reading::Unknown { unknown },
        (Err(_), Ok(_)) if compared.is_some() => Reading::Known(false),
        (Err(_), Ok(_)) => Reading::Unknown { unknown: running.incomparable(kernels(installed).next().is_some()) },
    };
    let noted = note.ok().and_then(|note| note.modified);
    let told = asks.iter().filter_map(|package| package.installed).chain(noted).min();
    let since = restart::since(look, running, &required, told).map(Reading::Known);
    let mut packages: Vec<Text> = asks.iter().map(|package| Text::new(&package.name)).collect();
    packages.sort();
    packages.dedup();
    let newest = match newest {
        Some(kernel) => Reading::Known(Text::new(&format!("{}.{}", kernel.evr, kernel.architecture))),
        None => Reading::unknown(Cause::Absent, "no kernel package of the running flavour is installed"),
    };
    (Restart { required, since, packages }, newest)
}

/// Returns the names of packages of kernels, and what tells their flavours, in the order in which they are asked. Amazon Linux
/// has some more, one for each line, such as `kernel6.12`; others have theirs for each flavour, such as `kernel-16k-core`.
fn names(installed: &Installed) -> impl Iterator<Item = (&str, &str)> {
    let is_numbered = |name: &str| {
        let number = name.strip_prefix("kernel").filter(|number| number.starts_with(|c: char| c.is_ascii_digit()));
        number.is_some_and(|number| number.chars().all(|c| c.is_ascii_digit() || c == '.'))
    };
    let all = || installed.keys().map(|(name, _)| name.as_str());
    let numbered = all().filter(move |name| is_numbered(name));
    let flavoured = all().filter_map(|name| Some((name, flavour(name)?)));
    flavoured.chain(KERNELS.iter().copied()).chain(numbered.map(|name| (name, "")))
}

/// Returns the flavour of a package of a kernel that is not among those that are known: `16k` of `kernel-16k-core`.
fn flavour(name: &str) -> Option<&str> {
    let flavour = name.strip_prefix("kernel-")?.strip_suffix("-core")?;
    let is_part = flavour.split('-').any(|part| part == "modules");
    (!is_part && KERNELS.iter().all(|(known, _)| *known != name)).then_some(flavour)
}

fn packages<'i>(installed: &'i Installed, name: &str) -> impl Iterator<Item = &'i Rpm> {
    let of_name = installed.range((name.to_owned(), String::new())..);
    let name = name.to_owned();
    of_name.take_while(move |((own, _), _)| *own == name).flat_map(|(_, packages)| packages)
}

/// Returns all installed kernels.
fn kernels(installed: &Installed) -> impl Iterator<Item = &Rpm> {
    names(installed).flat_map(|(name, _)| packages(installed, name))
}

/// Returns the kernels of the line of the running one, the newest last: kernels beside it of another flavour, or of another package,
/// are not its successors. None where it is of no line that is installed.
fn line<'i>(installed: &'i Installed, own: &str) -> Vec<&'i Rpm> {
    let is_of_flavour = |mark: &str| match mark {
        "" => !KERNELS.iter().any(|(_, other)| !other.is_empty() && own.contains(other)),
        end if end.starts_with('-') => own.ends_with(end),
        mark => own.contains(mark),
    };
    // SUSE's flavours beside those that are known, such as `kvmsmall`.
    let ends = |name: &&str| name.strip_prefix("kernel-").is_some_and(|end| is_end(own, end));
    let others = installed.keys().map(|(name, _)| name.as_str()).filter(ends);
    let known = names(installed).filter(|(_, mark)| is_of_flavour(mark)).map(|(name, _)| name);
    let unmarked = installed.keys().map(|(name, _)| name.as_str()).filter(|name| is_unmarked(name));
    let names: Vec<&str> = known.chain(others).collect();
    let is_line = |name: &&str| packages(installed, name).any(|package| is_of(package, own));
    let in_order = |mut kernels: Vec<&'i Rpm>| {
        kernels.sort_by(|a, b| a.evr.cmp(&b.evr));
        kernels
    };
    if let Some(name) = names.iter().copied().chain(unmarked).find(is_line) {
        return in_order(packages(installed, name).collect());
    }
    // The running one was removed. Of several packages of one version the first name has the kernel, and is the last of equals.
    let is_alike =
        |package: &&Rpm| line_of(package, own).is_some_and(|own| marks(&own.release) == marks(&package.evr.release));
    let alike = names.iter().rev().flat_map(|name| packages(installed, name)).filter(is_alike);
    let alike = in_order(alike.collect());
    let Some((newest, own)) = alike.last().and_then(|newest| Some((newest, line_of(newest, own)?))) else {
        return Vec::new();
    };
    // What is older and not of its series may be of another line, of which nothing is left.
    let series = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    let is_line = is_newer(&newest.evr, &own) || series(&own.version) == series(&newest.evr.version);
    if is_line { alike } else { Vec::new() }
}

/// Returns whether a kernel's release need not have the flavour of its package, as of `kernel-longterm-core`. Red Hat's have all.
fn is_unmarked(name: &str) -> bool {
    const MARKED: &[&str] = &["16k", "64k", "automotive", "debug", "rt", "zfcpdump"];
    flavour(name).is_some_and(|flavour| !flavour.split('-').any(|part| MARKED.contains(&part)))
}

/// Returns whether the running release ends in a flavour as SUSE writes it.
fn is_end(own: &str, flavour: &str) -> bool {
    let stem = own.strip_suffix(flavour).and_then(|own| own.strip_suffix('-'));
    stem.is_some() && flavour.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Returns what of a version tells its publisher, such as `elelrepo` of `1.el9.elrepo`.
fn marks(release: &str) -> String {
    release.chars().filter(char::is_ascii_alphabetic).collect()
}

/// Returns the running release without what a package's version has not: `5.14.0-70.el9` of `5.14.0-70.el9.x86_64+rt` as Red
/// Hat names it, and `6.4.0-150600.23.7` of `6.4.0-150600.23.7-default` as SUSE does; and whether it is SUSE's.
fn stem<'o>(package: &Rpm, own: &'o str) -> (&'o str, bool) {
    if let Some(flavour) = package.name.strip_prefix("kernel-").filter(|flavour| is_end(own, flavour)) {
        return (own[..own.len() - flavour.len()].trim_end_matches('-'), true);
    }
    let mut ends = KERNELS.iter().map(|(_, end)| *end).filter(|end| end.starts_with('-'));
    if let Some(stem) = ends.find_map(|end| own.strip_suffix(end)) {
        return (stem, true);
    }
    let own = own.split('+').next().unwrap_or_default();
    let without = own.strip_suffix(&package.architecture).and_then(|own| own.strip_suffix('.'));
    (without.unwrap_or(own), false)
}

fn line_of(package: &Rpm, own: &str) -> Option<Evr> {
    Evr::parse(stem(package, own).0)
}

/// Returns whether the running release is of this package. SUSE's release leaves out how often the package was built:
/// 6.4.0-150600.23.7.3 is `6.4.0-150600.23.7-default`.
fn is_of(package: &Rpm, own: &str) -> bool {
    let full = format!("{}-{}", package.evr.version, package.evr.release);
    let (stem, is_suse) = stem(package, own);
    full == stem || is_suse && full.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.'))
}

/// Returns whether what runs is this package's or newer.
fn is_running(package: &Rpm, own: &str) -> bool {
    is_of(package, own) || line_of(package, own).is_some_and(|own| !is_newer(&package.evr, &own))
}

/// Returns whether a package is newer than what runs, whose release has no epoch.
fn is_newer(evr: &Evr, own: &Evr) -> bool {
    let by_version = rpm_version::compare(&evr.version, &own.version);
    by_version.then_with(|| rpm_version::compare(&evr.release, &own.release)).is_gt()
}

#[cfg(test)]
mod tests {
    use muster_proto::{fact::WatchState, time::Timestamp};

    use super::*;
    use crate::{
        host::Recorded,
        probe::{
            Settings,
            patch_level::{
                restart::{TICKS, started},
                rpm::installed,
            },
        },
    };

    #[test]
    fn stale_kernels_beside_the_running_one_are_not_newer() {
        for (own, packages, expected) in [
            ("5.14.0-70.el9.x86_64", vec!["kernel-core x86_64 5.14.0-70.el9"], Some(true)),
            (
                "5.14.0-70.el9.x86_64",
                vec![
                    "kernel-core x86_64 5.14.0-9.el9",
                    "kernel-core x86_64 5.14.0-70.el9",
                    "kernel x86_64 5.14.0-70.el9",
                ],
                Some(true),
            ),
            (
                "5.14.0-9.el9.x86_64",
                vec!["kernel-core x86_64 5.14.0-9.el9", "kernel-core x86_64 5.14.0-70.el9"],
                Some(false),
            ),
            // A kernel that was removed while it runs is newer than what is left.
            ("5.14.0-80.el9.x86_64", vec!["kernel-core x86_64 5.14.0-70.el9"], Some(true)),
            ("5.14.0-70.el9.x86_64+rt", vec!["kernel-core x86_64 5.14.0-99.el9"], None),
            ("3.10.0-1160.el7.x86_64", vec!["kernel x86_64 3.10.0-1160.el7"], Some(true)),
            ("6.4.0-150600.23.7-default", vec!["kernel-default x86_64 6.4.0-150600.23.7.3"], Some(true)),
            ("6.4.0-150600.21-default", vec!["kernel-default x86_64 6.4.0-150600.23.7.3"], Some(false)),
            ("6.4.0-150600.23.7-default", vec!["kernel-azure x86_64 6.4.0-150600.99.1"], None),
            ("6.18.44-cloud", vec!["bash x86_64 5-1"], None),
            // A kernel of SUSE for real time.
            (
                "6.4.0-150600.10.5-rt",
                vec!["kernel-rt x86_64 6.4.0-150600.10.5.1", "kernel-rt x86_64 6.4.0-150600.10.41.1"],
                Some(false),
            ),
            ("6.4.0-150600.10.41-rt", vec!["kernel-rt x86_64 6.4.0-150600.10.41.1"], Some(true)),
            (
                "6.4.0-150600.23.7-default",
                vec!["kernel-default-base x86_64 6.4.0-150600.23.7.3.150600.12.2.3"],
                Some(true),
            ),
            // Other lines beside the usual one.
            (
                "6.9.1-1.el9.elrepo.x86_64",
                vec![
                    "kernel-core x86_64 5.14.0-503.el9",
                    "kernel-ml-core x86_64 6.9.1-1.el9.elrepo",
                    "kernel-ml-core x86_64 6.12.1-1.el9.elrepo",
                ],
                Some(false),
            ),
            ("6.9.1-1.el9.elrepo.x86_64", vec!["kernel-core x86_64 5.14.0-503.el9"], None),
            (
                "6.12.40-64.amzn2023.x86_64",
                vec![
                    "kernel x86_64 6.1.150-174.amzn2023",
                    "kernel6.12 x86_64 6.12.40-64.amzn2023",
                    "kernel6.12 x86_64 6.12.46-66.amzn2023",
                ],
                Some(false),
            ),
            (
                "6.12.46-66.amzn2023.x86_64",
                vec!["kernel x86_64 6.1.150-174.amzn2023", "kernel6.12 x86_64 6.12.46-66.amzn2023"],
                Some(true),
            ),
            ("6.12.46-66.amzn2023.x86_64", vec!["kernel x86_64 6.1.150-174.amzn2023"], None),
            ("6.1.140-1.amzn2023.x86_64", vec!["kernel x86_64 6.1.150-174.amzn2023"], Some(false)),
            (
                "4.18.0-500.rt7.342.el8_10.x86_64",
                vec!["kernel-core x86_64 4.18.0-600.el8_10", "kernel-rt-core x86_64 4.18.0-553.rt7.342.el8_10"],
                Some(false),
            ),
            (
                "5.14.0-70.el9.x86_64+rt",
                vec!["kernel-core x86_64 5.14.0-99.el9", "kernel-rt-core x86_64 5.14.0-70.el9"],
                Some(true),
            ),
            // Flavours that are not known.
            (
                "6.14.8-400.asahi.fc42.x86_64+16k",
                vec![
                    "kernel-16k-core x86_64 6.14.8-400.asahi.fc42",
                    "kernel-16k-core x86_64 6.15.10-400.asahi.fc42",
                    "kernel-core x86_64 6.14.8-400.asahi.fc42",
                ],
                Some(false),
            ),
            (
                "6.12.0-60.el10.x86_64+rt-64k",
                vec!["kernel-rt-64k-core x86_64 6.12.0-60.el10", "kernel-modules-core x86_64 6.12.0-99.el10"],
                Some(true),
            ),
            (
                "5.14.0-503.el9.x86_64+debug",
                vec!["kernel-debug-core x86_64 5.14.0-503.el9", "kernel-debug-modules-core x86_64 5.14.0-503.el9"],
                Some(true),
            ),
            (
                "6.14.1-cachyos1.fc41.x86_64",
                vec![
                    "kernel-cachyos-core x86_64 6.14.1-cachyos1.fc41",
                    "kernel-cachyos-core x86_64 6.15.1-cachyos1.fc41",
                ],
                Some(false),
            ),
            (
                "5.14.0-503.el9.x86_64",
                vec!["kernel-debug-core x86_64 5.14.0-503.el9", "kernel-core x86_64 5.14.0-504.el9"],
                Some(false),
            ),
            ("6.4.0-150600.23.7-kvmsmall", vec!["kernel-kvmsmall x86_64 6.4.0-150600.23.7.1"], Some(true)),
            (
                "6.11.3-1-vanilla",
                vec![
                    "kernel-vanilla x86_64 6.11.3-1.1",
                    "kernel-vanilla x86_64 6.12.3-1.1",
                    "kernel-default x86_64 6.13.1-1.1",
                ],
                Some(false),
            ),
            ("6.11.3-1-vanilla", vec!["kernel-headers x86_64 6.11.3-1.1"], None),
            // A flavour that its release does not have, which is older than the usual kernel beside it.
            (
                "6.6.95-200.fc42.x86_64",
                vec!["kernel-longterm-core x86_64 6.6.95-200.fc42", "kernel-core x86_64 6.15.5-200.fc42"],
                Some(true),
            ),
            (
                "6.6.95-200.fc42.x86_64",
                vec![
                    "kernel-longterm-core x86_64 6.6.95-200.fc42",
                    "kernel-longterm-core x86_64 6.6.99-200.fc42",
                    "kernel-core x86_64 6.15.5-200.fc42",
                ],
                Some(false),
            ),
            (
                "6.15.5-200.fc42.x86_64",
                vec!["kernel-rt-core x86_64 6.15.5-200.fc42", "kernel-core x86_64 6.15.6-200.fc42"],
                Some(false),
            ),
            // Of a host that is another system's.
            ("5.15.0-91-generic", vec!["kernel-core x86_64 5.14.0-70.el9"], None),
            ("6.18.44-fc-v669", vec!["kernel-core x86_64 5.14.0-70.el9"], None),
            ("6.1.0-25", vec!["kernel-core x86_64 5.14.0-70.el9"], None),
        ] {
            let installed = installed(&packages);
            let found = line(&installed, own).last().map(|kernel| is_running(kernel, own));
            assert_eq!(found, expected, "{own} {packages:?}");
        }
    }

    fn look_at(running: &Running, installed: &Installed) -> Restart {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/rpm-dnf");
        let (host, memory) = (Recorded::at(&case).unwrap(), tempfile::tempdir().unwrap());
        let (settings, watch, now) = (Settings::default(), WatchState::Live, host.captured());
        let files = Default::default();
        let at = Look { host: &host, now, settings: &settings, memory: memory.path(), watch, run: 7, files };
        look(&at, running, installed).0
    }

    #[test]
    fn a_restart_is_needed_since_the_first_newer_kernel_was_installed() {
        let running = |release: &str| Running { release: Some(release.to_owned()), ..Running::default() };
        let mut packages = installed(&[
            "kernel-core x86_64 5.14.0-502.el9",
            "kernel-core x86_64 5.14.0-503.el9",
            "kernel-core x86_64 5.14.0-504.el9",
            "kernel-core x86_64 5.14.0-505.el9",
            "kernel-core x86_64 5.14.0-506.el9",
        ]);
        let day = |day: i64| Timestamp::from_seconds(1_700_000_000 + day * 86_400).unwrap();
        for (at, package) in packages.values_mut().flatten().enumerate() {
            package.installed = Some(day(at as i64));
        }
        for (own, expected) in [(502, Some(1)), (503, Some(2)), (505, Some(4)), (506, None)] {
            let found = look_at(&running(&format!("5.14.0-{own}.el9.x86_64")), &packages);
            assert_eq!(found.since, expected.map(|at| Reading::Known(day(at))), "{own}");
            assert_eq!(found.packages.len(), usize::from(expected.is_some()), "{own}");
        }
        // The running one was removed.
        packages.values_mut().for_each(|kernels| kernels.retain(|kernel| kernel.evr.release != "503.el9"));
        assert_eq!(look_at(&running("5.14.0-503.el9.x86_64"), &packages).since, Some(Reading::Known(day(2))));
    }

    #[test]
    fn a_container_does_not_restart_for_what_its_image_brought() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/rpm-dnf");
        let host = Recorded::at(&case).unwrap();
        let since = |hours: u64| Running { first_process: Some(hours * 3600 * TICKS), ..Running::default() };
        let booted = started(&host, &Running::default()).unwrap();
        assert_eq!(started(&host, &since(24)).unwrap().seconds() - booted.seconds(), 24 * 3600);
        assert!(started(&host, &Running { first_process: Some(u64::MAX), ..Running::default() }).is_err());
        // An image that is younger than the kernel of its host, by two hours.
        let mut image = installed(&["glibc x86_64 2.34-1.el9"]);
        for package in image.values_mut().flatten() {
            package.installed = Some(booted.plus(std::time::Duration::from_secs(2 * 3600)));
        }
        for (hours, expected) in [(0, vec![Text::new("glibc")]), (1, vec![Text::new("glibc")]), (3, vec![])] {
            assert_eq!(look_at(&since(hours), &image).packages, expected, "{hours}");
        }
    }

    #[test]
    fn a_container_is_not_judged_by_the_kernel_of_its_host() {
        let release = Some("5.14.0-9.el9.x86_64".to_owned());
        let own = || Running { release: release.clone(), ..Running::default() };
        let packages = installed(&["kernel-core x86_64 5.14.0-9.el9", "kernel-core x86_64 5.14.0-70.el9"]);
        assert_eq!(look_at(&own(), &packages).required, Reading::Known(true));
        let contained = Running { is_container: true, ..own() };
        let found = look_at(&contained, &packages);
        assert_eq!(found.required, Reading::Unknown { unknown: contained.incomparable(true) });
        assert!(found.packages.is_empty());
    }
}
