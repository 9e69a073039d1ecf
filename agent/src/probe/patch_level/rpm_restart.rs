//! Whether an rpm host must restart: by its kernels, and by what dnf and zypper take for a reason.

use std::path::Path;

use muster_proto::{
    fact::{Cause, Reading, Text},
    time::Timestamp,
};

use super::{
    restart::{self, Restart, Running},
    rpm::{Installed, Rpm},
    rpm_version::{self, Evr},
};
use crate::{
    host::{self, FILE_BYTES, Host},
    probe::Look,
};

/// zypper makes it when a package asks for a restart (zypper(8), `needs-rebooting`).
pub(super) const NOTE: &str = "/run/reboot-needed";
/// Since when the kernel runs is among its counters (proc_stat(5), `btime`).
const STAT: &str = "/proc/stat";
/// Packages of kernels, each with the end that it gives a kernel's release; a longer name goes before its beginning.
const KERNELS: &[(&str, &str)] = &[
    ("kernel-64k-core", "+64k"),
    ("kernel-rt-core", "+rt"),
    ("kernel-core", ""),
    ("kernel-uek-core", "uek"),
    ("kernel-uek", "uek"),
    ("kernel-default", "-default"),
    ("kernel-azure", "-azure"),
    ("kernel-rt", "-rt"),
    ("kernel", ""),
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
    let newest = own.and_then(|own| newest(installed, own));
    let state =
        newest.map(|newest| (newest, own.is_some_and(|own| is_running(&newest.evr, &newest.architecture, own))));
    let newer = state.filter(|(_, is_running)| !is_running).map(|(kernel, _)| kernel);
    let started = started(host);
    let since_start: Vec<&Rpm> = match started {
        Some(started) => {
            let is_core = |package: &&Rpm| CORE.contains(&package.name.as_str());
            installed
                .values()
                .flatten()
                .filter(is_core)
                .filter(|it| it.installed.is_some_and(|at| at > started))
                .collect()
        }
        None => Vec::new(),
    };
    let note = host.metadata(Path::new(NOTE));
    let asks: Vec<&Rpm> = newer.into_iter().chain(since_start).collect();
    let required = match &note {
        _ if !asks.is_empty() => Reading::Known(true),
        Ok(_) => Reading::Known(true),
        Err(error) if host::cause(error) != Cause::Absent => {
            Reading::Unknown { unknown: host::unknown(format!("look at {NOTE}"), error) }
        }
        Err(_) if started.is_none() => Reading::unknown(Cause::Garbled, format!("{STAT} has no btime")),
        Err(_) if state.is_some() => Reading::Known(false),
        Err(_) => Reading::unknown(Cause::Undecidable, "no kernel package is installed to compare with"),
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

/// Returns when the kernel started.
fn started(host: &dyn Host) -> Option<Timestamp> {
    let bytes = host.read(Path::new(STAT), FILE_BYTES).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_seconds(seconds.trim().parse().ok()?)
}

/// Returns the newest kernel of the flavour of the running one: kernels beside it of another flavour are not its successors.
fn newest<'i>(installed: &'i Installed, own: &str) -> Option<&'i Rpm> {
    let is_of_flavour = |end: &str| match end {
        "" => !KERNELS.iter().any(|(_, other)| !other.is_empty() && own.contains(other)),
        end => own.contains(end),
    };
    let names: Vec<&str> = KERNELS.iter().filter(|(_, end)| is_of_flavour(end)).map(|(name, _)| *name).collect();
    let named = |wanted: &str| {
        let of_name = installed.iter().filter(move |((name, _), _)| name == wanted);
        of_name.flat_map(|(_, packages)| packages).max_by(|a, b| a.evr.cmp(&b.evr))
    };
    // `kernel` is a meta package where `kernel-core` is.
    names.iter().find_map(|name| named(name))
}

/// Returns whether the running release is of this package: `5.14.0-70.el9.x86_64` as Red Hat names it, and
/// `6.4.0-150600.23.7-default` for 6.4.0-150600.23.7.3 as SUSE does.
fn is_running(evr: &Evr, architecture: &str, own: &str) -> bool {
    let full = format!("{}-{}", evr.version, evr.release);
    let Some(suse) = own.strip_suffix("-default").or_else(|| own.strip_suffix("-azure")) else {
        let own = own.split('+').next().unwrap_or_default();
        let own = own.strip_suffix(&format!(".{architecture}")).unwrap_or(own);
        return own == full || Evr::parse(own).is_some_and(|own| !is_newer(evr, &own));
    };
    full == suse
        || full.strip_prefix(suse).is_some_and(|rest| rest.starts_with('.'))
        || Evr::parse(suse).is_some_and(|own| !is_newer(evr, &own))
}

/// Returns whether a package is newer than what runs, whose release has no epoch.
fn is_newer(evr: &Evr, own: &Evr) -> bool {
    let by_version = rpm_version::compare(&evr.version, &own.version);
    by_version.then_with(|| rpm_version::compare(&evr.release, &own.release)).is_gt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::patch_level::rpm::installed;

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
        ] {
            let installed = installed(&packages);
            let found = newest(&installed, own).map(|kernel| is_running(&kernel.evr, &kernel.architecture, own));
            assert_eq!(found, expected, "{own} {packages:?}");
        }
    }
}
