//! Whether a restart is needed for installed updates to take effect.

use std::{cmp::Ordering, io, path::Path};

use debversion::Version;
use muster_proto::{
    fact::{Cause, Reading, Text, Unknown},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::dpkg::Installed;
use crate::{
    host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES},
    probe::{Look, memory},
};

/// Packages' scripts make it (Debian policy has no word on it; update-notifier and unattended-upgrades read it).
pub(super) const NOTE: &str = "/run/reboot-required";
/// The packages that asked, a line each.
pub(super) const PACKAGES: &str = "/run/reboot-required.pkgs";
/// `uname -v`, which names the build where [`host::Machine`] has the release alone.
const BUILD: &str = "/proc/sys/kernel/version";
/// States when the first process started (proc_pid_stat(5), `starttime`).
const FIRST_PROCESS: &str = "/proc/1/stat";
/// Drawn at each start of the kernel (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Since when the kernel runs is among its counters (proc_stat(5), `btime`).
const STAT: &str = "/proc/stat";
/// Of the start of a process, a second (proc_pid_stat(5) counts in `sysconf(_SC_CLK_TCK)`, which is 100 on all machines that
/// Linux's distributions are made for).
pub(super) const TICKS: u64 = 100;
/// Live patches that are loaded, a folder each.
const LIVE_PATCHES: &str = "/sys/kernel/livepatch";
/// When a restart was first seen to be needed, in the probe's memory.
const NEEDED: &str = "restart_needed.json";
const VERSION: u32 = 1;

pub(super) struct Restart {
    pub required: Reading<bool>,
    pub since: Option<Reading<Timestamp>>,
    pub packages: Vec<Text>,
}

/// The kernel that runs.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// As `uname -r`.
    pub release: Option<String>,
    /// As `uname -v`.
    pub build: Option<String>,
    /// Id of this start of the kernel.
    pub boot: Option<String>,
    /// When the first process started, in hundredths of a second since the kernel did. In a container that is when it started.
    pub first_process: Option<u64>,
    /// Whether this is a container, whose kernel is its host's and none of its packages.
    pub is_container: bool,
}

impl Running {
    pub fn look(host: &dyn Host, release: Option<&str>) -> Self {
        let line = |path: &str| {
            let bytes = host.read(Path::new(path), SMALL_FILE_BYTES).ok()?;
            Some(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        Self {
            release: release.map(str::to_owned),
            build: line(BUILD),
            boot: line(BOOT),
            first_process: line(FIRST_PROCESS).as_deref().and_then(start_of),
            is_container: is_container(host),
        }
    }

    /// Returns why a restart is not known to be needed or not, as no installed kernel is of the line of the running one.
    /// `has_kernel` says whether any kernel package is installed.
    pub fn incomparable(&self, has_kernel: bool) -> Unknown {
        let why = match &self.release {
            Some(own) if self.is_container => format!("kernel {own} runs, which is of the host of this container"),
            Some(own) if has_kernel => format!("kernel {own} runs, which is of none of the installed kernel packages"),
            _ => "no kernel package is installed to compare with".to_owned(),
        };
        Unknown::new(Cause::Undecidable, why)
    }

    /// Returns the version of the package that the running kernel is of, which Debian and Ubuntu write into its build:
    /// `#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-09-01)` and `#101-Ubuntu SMP`.
    fn package_version(&self) -> Option<Version> {
        let (release, build) = (Release::of(self.release.as_deref()?), self.build.as_deref()?);
        let mut words = build.split_whitespace();
        let first = words.next()?;
        if let Some(upload) = first.strip_prefix('#').and_then(|upload| upload.strip_suffix("-Ubuntu")) {
            return format!("{}.{upload}", release.abi).parse().ok();
        }
        words.find(|word| *word == "Debian")?;
        words.next()?.parse().ok()
    }
}

/// Returns the start of a process by its `stat`, whose second field may hold anything in its parentheses.
fn start_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    // The first of these is the third of all, and the start is the 22nd.
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Returns when the host started: when the kernel did, or the first process where that is later, as in a container
/// (`get_boot_time` of dnf's plug-in takes the latest, too).
pub(super) fn started(host: &dyn Host, running: &Running) -> Result<Timestamp, Unknown> {
    let bytes = host.read(Path::new(STAT), FILE_BYTES);
    let bytes = bytes.map_err(|error| host::unknown(format!("read {STAT}"), &error))?;
    let text = String::from_utf8_lossy(&bytes);
    let btime = || text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<i64>().ok();
    let first_process = i64::try_from(running.first_process.unwrap_or_default() / TICKS).ok();
    let seconds = btime().zip(first_process).and_then(|(btime, later)| btime.checked_add(later));
    let garbled = || Unknown::new(Cause::Garbled, format!("{STAT} has no btime"));
    seconds.and_then(Timestamp::from_seconds).ok_or_else(garbled)
}

/// Returns whether this is a container: by systemd's marks (its `CONTAINER_INTERFACE`), or by another PID namespace than the
/// initial one, whose number is fixed (`PROC_PID_INIT_INO` of linux/proc_ns.h). What is not shown is no sign.
fn is_container(host: &dyn Host) -> bool {
    let exists = |path: &str| host.metadata(Path::new(path)).is_ok();
    let is_apart = match host.read_link(Path::new("/proc/self/ns/pid")) {
        Ok(target) => target.as_os_str().as_encoded_bytes() != b"pid:[4026531836]",
        // An image that was made from a container keeps these marks, so they are asked last.
        Err(_) => exists("/.dockerenv") || exists("/run/.containerenv"),
    };
    let environ = || host.read(Path::new("/proc/1/environ"), SMALL_FILE_BYTES).unwrap_or_default();
    is_apart
        || exists("/run/systemd/container")
        || environ().split(|&byte| byte == 0).any(|variable| variable.starts_with(b"container="))
}

/// A kernel's release in its two parts, such as `6.1.0-56` and `cloud-amd64`: flavours of one ABI are as new as each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Release<'r> {
    abi: &'r str,
    flavour: &'r str,
}

impl<'r> Release<'r> {
    fn of(release: &'r str) -> Self {
        /// Flavours that begin with a digit as an ABI does.
        const FLAVOURS: &[&str] = &["686", "4kc", "5kc"];
        let mut end = release.find('-').unwrap_or(release.len());
        if let Some(rest) = release.get(end + 1..) {
            let part = rest.split('-').next().unwrap_or_default();
            if part.starts_with(|c: char| c.is_ascii_digit()) && !FLAVOURS.contains(&part) {
                end += 1 + part.len();
            }
        }
        Self { abi: &release[..end], flavour: release.get(end + 1..).unwrap_or_default() }
    }

    fn compare(self, other: Self) -> Ordering {
        match (self.abi.parse::<Version>(), other.abi.parse::<Version>()) {
            (Ok(own), Ok(other)) => own.cmp(&other),
            _ => self.abi.cmp(other.abi),
        }
    }

    /// Returns whether the two are counted by one count. Ubuntu's kernels for clouds and boards count from 1000 on, each
    /// flavour for itself, and Proxmox's and those of other sources are of no count of the distribution's.
    fn is_comparable(self, other: Self) -> bool {
        let is_apart = |release: Self| {
            if release.is_proxmox() {
                return true;
            }
            let number = release.abi.split_once('-').and_then(|(_, number)| number.parse::<u64>().ok());
            number.is_some_and(|number| number >= 1000)
        };
        self.flavour == other.flavour
            || self.is_proxmox() && other.is_proxmox()
            || [self, other].into_iter().all(|release| !is_apart(release) && release.is_usual())
    }

    /// Returns whether its flavour is one of those that Debian or Ubuntu make from one source: not so `fips`, `liquorix-amd64` or
    /// `x64v3-xanmod1`.
    fn is_usual(self) -> bool {
        const PARTS: &[&str] = &[
            "generic",
            "lowlatency",
            "virtual",
            "cloud",
            "rt",
            "pae",
            "lpae",
            "16k",
            "64k",
            "amd64",
            "arm64",
            "armmp",
            "686",
            "powerpc64le",
            "powerpc64",
            "s390x",
            "riscv64",
            "loong64",
            "marvell",
            "rpi",
            "4kc",
            "5kc",
            "malta",
            "octeon",
            "loongson",
            "3",
            "mips64r2el",
            "mips32r2el",
        ];
        self.flavour.split('-').all(|part| PARTS.contains(&part))
    }

    /// Returns whether it is Proxmox's: `pve`, or `bpo12-pve` of one that was made for a later release first.
    fn is_proxmox(self) -> bool {
        self.flavour == "pve" || self.flavour.ends_with("-pve")
    }
}

/// A kernel package.
#[derive(Debug)]
pub(super) struct Kernel<'i> {
    package: &'i str,
    pub release: &'i str,
    version: &'i Version,
}

/// Returns the installed kernel packages, without meta packages.
fn kernels(installed: &Installed) -> impl Iterator<Item = Kernel<'_>> {
    installed.packages.iter().filter_map(|(package, versions)| {
        let version = versions.iter().map(|package| &package.version).max()?;
        release_of(package).map(|release| Kernel { package, release, version })
    })
}

/// Returns whether a kernel package is installed.
pub(super) fn has_kernel(installed: &Installed) -> bool {
    kernels(installed).next().is_some()
}

/// Returns the release of the kernel that a package is of: Debian's and Ubuntu's are `linux-image-6.1.0-56-amd64`, Proxmox's
/// `proxmox-kernel-6.8.12-16-pve-signed`, and before 2023 `pve-kernel-5.15.158-2-pve`.
fn release_of(package: &str) -> Option<&str> {
    let is_version = |release: &str| release.starts_with(|c: char| c.is_ascii_digit());
    if let Some(release) = package.strip_prefix("proxmox-kernel-").or_else(|| package.strip_prefix("pve-kernel-")) {
        let release = release.strip_suffix("-signed").unwrap_or(release);
        return (is_version(release) && Release::of(release).is_proxmox()).then_some(release);
    }
    let release = package.strip_prefix("linux-image-")?.trim_start_matches("unsigned-");
    let is_kernel = is_version(release) && !release.ends_with("-dbg");
    is_kernel.then(|| release.strip_suffix("-unsigned").unwrap_or(release))
}

/// Returns the newest installed kernel: of several flavours of one ABI the one that runs, and none that is counted otherwise.
pub(super) fn newest_kernel<'i>(installed: &'i Installed, running: &Running) -> Option<Kernel<'i>> {
    let own = running.release.as_deref();
    let is_comparable =
        |kernel: &Kernel<'_>| own.is_none_or(|own| Release::of(kernel.release).is_comparable(Release::of(own)));
    kernels(installed).filter(is_comparable).max_by(|a, b| {
        let by_release = Release::of(a.release).compare(Release::of(b.release));
        by_release.then_with(|| (own == Some(a.release)).cmp(&(own == Some(b.release))))
    })
}

/// Returns whether what runs is of the line of an installed kernel package: of its release or of its flavour. A kernel of
/// Debian's own is so of another flavour for the same machines, too, such as `amd64` beside `cloud-amd64`.
fn is_of_installed(installed: &Installed, running: &Running) -> bool {
    let Some(own) = running.release.as_deref().filter(|_| !running.is_container) else { return false };
    let own_flavour = Release::of(own).flavour;
    let is_debian = running.build.as_deref().is_some_and(|build| build.split_whitespace().any(|word| word == "Debian"));
    let machine = |flavour: &str| flavour.rsplit('-').next().map(str::to_owned);
    let is_of_line = |kernel: Kernel<'_>| {
        let flavour = Release::of(kernel.release).flavour;
        kernel.release == own
            || Release::of(kernel.release).is_proxmox() && Release::of(own).is_proxmox()
            || !flavour.is_empty()
                && (flavour == own_flavour
                    || is_debian
                        && machine(flavour) == machine(own_flavour)
                        && Release::of(kernel.release).is_comparable(Release::of(own)))
    };
    kernels(installed).any(is_of_line)
}

/// Returns the kernel packages that are newer than what runs; none where they are not of its line.
fn newer<'i>(installed: &'i Installed, running: &Running) -> Vec<Kernel<'i>> {
    let Some(own) = running.release.as_deref().filter(|_| is_of_installed(installed, running)) else {
        return Vec::new();
    };
    let build = running.package_version();
    let is_newer = |kernel: &Kernel<'_>| {
        let (release, own_release) = (Release::of(kernel.release), Release::of(own));
        if kernel.release == own {
            return build.as_ref().is_some_and(|build| is_newer_build(kernel.version, build));
        }
        release.is_comparable(own_release) && release.compare(own_release).is_gt()
    };
    kernels(installed).filter(is_newer).collect()
}

/// Returns whether a package of the running release is of a newer build. Ubuntu's may be signed again, which `+1` tells.
fn is_newer_build(package: &Version, build: &Version) -> bool {
    let text = package.to_string();
    let unsigned = text.rsplit_once('+').and_then(|(text, _)| text.parse::<Version>().ok());
    package > build && unsigned.as_ref() != Some(build)
}

#[derive(Debug, Deserialize, Serialize)]
struct Needed {
    version: u32,
    boot: String,
    since: Timestamp,
}

pub(super) fn look(look: &Look<'_>, running: &Running, installed: &Installed) -> Restart {
    let host = look.host;
    let note = host.metadata(Path::new(NOTE));
    let mut packages: Vec<Text> = match host.read(Path::new(PACKAGES), SMALL_FILE_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).lines().filter(|line| !line.is_empty()).map(Text::new).collect(),
        Err(_) => Vec::new(),
    };
    let asked = asked_time(host, running, installed, &packages);
    let newer = newer(installed, running);
    packages.extend(newer.iter().map(|kernel| Text::new(kernel.package)));
    packages.sort();
    packages.dedup();
    let required = match &note {
        _ if !newer.is_empty() => Reading::Known(true),
        Ok(_) => Reading::Known(true),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Reading::Unknown { unknown: host::unknown(format!("look at {NOTE}"), error) }
        }
        Err(_) if is_of_installed(installed, running) => Reading::Known(false),
        Err(_) => Reading::Unknown { unknown: running.incomparable(has_kernel(installed)) },
    };
    let noted = note.ok().and_then(|note| note.modified);
    let kernels = newer.iter().filter_map(|kernel| installed_time(host, kernel.package));
    let told = noted.into_iter().chain(asked.clone().ok().flatten()).chain(kernels).min();
    let since = since(look, running, &required, told).map(|since| match asked {
        Ok(_) => Reading::Known(since),
        Err(unknown) => Reading::Unknown { unknown },
    });
    Restart { required, since, packages }
}

/// Returns the live patches that are in force, sorted (the kernel's `Documentation/ABI/testing/sysfs-kernel-livepatch`).
pub(super) fn live_patches(host: &dyn Host) -> Vec<Text> {
    let names = host.list(Path::new(LIVE_PATCHES)).unwrap_or_default();
    let is_on = |name: &std::ffi::OsString| {
        let file = |file: &str| host.read(&Path::new(LIVE_PATCHES).join(name).join(file), SMALL_FILE_BYTES);
        let says = |name: &str, word: &[u8]| file(name).is_ok_and(|bytes| bytes.trim_ascii() == word);
        says("enabled", b"1") && !says("transition", b"1")
    };
    names.iter().filter(|name| is_on(name)).map(|name| Text::new(&name.to_string_lossy())).collect()
}

/// Returns when dpkg unpacked the package: it then writes the list of its files. The files' own times are of their build.
fn installed_time(host: &dyn Host, package: &str) -> Option<Timestamp> {
    host.metadata(Path::new(&list_of(package))).ok()?.modified
}

fn list_of(package: &str) -> String {
    format!("/var/lib/dpkg/info/{package}.list")
}

/// Returns when the first of `packages`, which ask for a restart, was unpacked since the host started: the note has the time of the
/// last that asked.
fn asked_time(
    host: &dyn Host,
    running: &Running,
    installed: &Installed,
    packages: &[Text],
) -> Result<Option<Timestamp>, Unknown> {
    let mut first: Option<Timestamp> = None;
    for name in packages {
        let Some(versions) = installed.packages.get(name.as_str()) else { continue };
        let of_architecture = versions.iter().map(|version| format!("{name}:{}", version.architecture));
        for list in of_architecture.chain([name.to_string()]).map(|package| list_of(&package)) {
            let unpacked = match host.metadata(Path::new(&list)) {
                Ok(metadata) => metadata.modified,
                Err(error) if host::cause(&error) == Cause::Absent => None,
                Err(error) => return Err(host::unknown(format!("look at {list}"), &error)),
            };
            let Some(unpacked) = unpacked.filter(|unpacked| first.is_none_or(|first| *unpacked < first)) else {
                continue;
            };
            if unpacked > started(host, running)? {
                first = Some(unpacked);
            }
        }
    }
    Ok(first)
}

/// Returns since when a restart is needed: `told`, or when that was first seen since the kernel started, whichever is sooner.
pub(super) fn since(
    look: &Look<'_>,
    running: &Running,
    required: &Reading<bool>,
    told: Option<Timestamp>,
) -> Option<Timestamp> {
    match required {
        Reading::Known(true) => {}
        Reading::Known(false) => {
            // What stays is of this start of the kernel, so that a later need would look older than it is.
            let _ = std::fs::remove_file(look.memory.join(NEEDED));
            return None;
        }
        Reading::Unknown { .. } => return None,
    }
    let boot = running.boot.clone().unwrap_or_default();
    let before = memory::read_json::<Needed>(&look.memory.join(NEEDED))
        .filter(|before| before.version == VERSION && before.boot == boot)
        .map(|before| before.since);
    let since = told.into_iter().chain(before).min().unwrap_or(look.now).min(look.now);
    // Without it the next look knows what it is told alone.
    let _ = memory::write_json(look.memory, NEEDED, &Needed { version: VERSION, boot, since });
    Some(since)
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::{PathText, WatchState};

    use super::*;
    use crate::{
        host::{Metadata, Recorded, recorded::Failure},
        probe::{Settings, patch_level::dpkg::installed},
    };

    fn running(release: &str, build: &str) -> Running {
        let (release, build) = (Some(release.to_owned()), Some(build.to_owned()));
        Running { release, build, boot: Some("1".to_owned()), ..Running::default() }
    }

    fn newest(kernels: &[(&str, &str, &str)], own: &str) -> Option<String> {
        newest_kernel(&installed(kernels), &running(own, "")).map(|kernel| kernel.release.to_owned())
    }

    #[test]
    fn the_newest_kernel_is_by_version_and_no_meta_package() {
        let kernels = [
            ("linux-image-amd64", "amd64", "6.1.170-1"),
            ("linux-image-6.1.0-9-amd64", "amd64", "6.1.27-1"),
            ("linux-image-6.1.0-56-amd64", "amd64", "6.1.176-1"),
            ("linux-image-6.1.0-57-amd64-dbg", "amd64", "6.1.177-1"),
        ];
        assert_eq!(newest(&kernels, "6.1.0-9-amd64").as_deref(), Some("6.1.0-56-amd64"));
        assert_eq!(newest(&[("bash", "amd64", "5")], "6.1.0-9-amd64"), None);
    }

    #[test]
    fn a_release_has_an_abi_and_a_flavour() {
        for (release, abi, flavour) in [
            ("6.1.0-56-cloud-amd64", "6.1.0-56", "cloud-amd64"),
            ("6.1.0-56-686-pae", "6.1.0-56", "686-pae"),
            ("6.12.48+deb13-amd64", "6.12.48+deb13", "amd64"),
            ("6.12.48+deb13-686", "6.12.48+deb13", "686"),
            ("6.1.0-0.deb11.5-amd64", "6.1.0-0.deb11.5", "amd64"),
            ("5.15.0-91-generic", "5.15.0-91", "generic"),
            ("6.18.44", "6.18.44", ""),
            ("", "", ""),
        ] {
            assert_eq!(Release::of(release), Release { abi, flavour }, "{release}");
        }
    }

    #[test]
    fn a_kernel_is_newer_by_its_abi_or_by_the_build_of_the_running_one() {
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-1 (2026-08-01)";
        let kernel = |release: &str, version: &str| (format!("linux-image-{release}"), version.to_owned());
        for (own, build, packages, expected) in [
            ("6.1.0-56-amd64", debian, vec![kernel("6.1.0-56-amd64", "6.1.170-1")], false),
            ("6.1.0-56-amd64", debian, vec![kernel("6.1.0-56-amd64", "6.1.176-1")], true),
            ("6.1.0-56-amd64", "#1 SMP", vec![kernel("6.1.0-56-amd64", "6.1.176-1")], false),
            ("6.1.0-56-amd64", debian, vec![kernel("6.1.0-57-amd64", "6.1.177-1")], true),
            ("6.1.0-56-cloud-amd64", debian, vec![kernel("6.1.0-56-amd64", "6.1.170-1")], false),
            ("6.1.0-56-amd64", debian, vec![kernel("6.1.0-56-cloud-amd64", "6.1.170-1")], false),
            ("6.1.0-56-cloud-amd64", debian, vec![kernel("6.1.0-57-amd64", "6.1.177-1")], true),
            ("5.15.0-91-generic", "#101-Ubuntu SMP x", vec![kernel("5.15.0-91-generic", "5.15.0-91.101")], false),
            ("5.15.0-91-generic", "#101-Ubuntu SMP x", vec![kernel("5.15.0-91-generic", "5.15.0-91.101+1")], false),
            ("5.15.0-91-generic", "#101-Ubuntu SMP x", vec![kernel("5.15.0-91-generic", "5.15.0-91.102")], true),
            ("5.15.0-91-generic", "#101-Ubuntu SMP x", vec![kernel("5.15.0-1050-aws", "5.15.0-1050.55")], false),
            ("5.15.0-1049-aws", "#54-Ubuntu SMP x", vec![kernel("5.15.0-1050-aws", "5.15.0-1050.55")], true),
            // Of other sources.
            (
                "5.15.0-73-fips",
                "#80+fips1-Ubuntu SMP x",
                vec![kernel("5.15.0-73-fips", "5.15.0-73.80+fips1"), kernel("5.15.0-119-generic", "5.15.0-119.129")],
                false,
            ),
            (
                "5.15.0-73-fips",
                "#80+fips1-Ubuntu SMP x",
                vec![kernel("5.15.0-73-fips", "5.15.0-73.80"), kernel("5.15.0-80-fips", "5.15.0-80.89")],
                true,
            ),
            (
                "6.12.40-x64v3-xanmod1",
                "#0~20250724 SMP",
                vec![kernel("6.12.40-x64v3-xanmod1", "6.12.40-1"), kernel("6.14.0-37-generic", "6.14.0-37.37")],
                false,
            ),
            (
                "6.12.40-x64v3-xanmod1",
                "#0~20250724 SMP",
                vec![kernel("6.12.40-x64v3-xanmod1", "6.12.40-1"), kernel("6.12.41-x64v3-xanmod1", "6.12.41-1")],
                true,
            ),
            (
                "5.15.0-91-lowlatency",
                "#101-Ubuntu SMP x",
                vec![kernel("5.15.0-92-generic", "5.15.0-92.102"), kernel("5.15.0-91-lowlatency", "5.15.0-91.101")],
                true,
            ),
        ] {
            let packages: Vec<_> = packages.iter().map(|(name, version)| (&**name, "amd64", &**version)).collect();
            let installed = installed(&packages);
            let found = newer(&installed, &running(own, build));
            assert_eq!(!found.is_empty(), expected, "{own} {build} {packages:?}");
        }
    }

    #[test]
    fn stale_kernels_and_those_of_the_release_beside_one_of_backports_are_not_newer() {
        let build = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.9-1~bpo12+1 (2026-08-01)";
        let packages = [
            ("linux-image-6.1.0-56-amd64", "amd64", "6.1.176-1"),
            ("linux-image-6.1.0-57-amd64", "amd64", "6.1.177-1"),
            ("linux-image-6.12.9+bpo-amd64", "amd64", "6.12.9-1~bpo12+1"),
        ];
        let (installed, own) = (installed(&packages), running("6.12.9+bpo-amd64", build));
        assert!(newer(&installed, &own).is_empty());
        assert_eq!(newest_kernel(&installed, &own).map(|kernel| kernel.release), Some("6.12.9+bpo-amd64"));
    }

    #[test]
    fn a_running_kernel_of_no_installed_line_is_not_compared() {
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-1 (2026-08-01)";
        let (ubuntu, proxmox) = ("#101-Ubuntu SMP x", "#1 SMP PREEMPT_DYNAMIC PMX 6.8.12-1 (2024-08-05T16:17Z)");
        let old = "linux-image-6.1.0-25-amd64";
        for (own, build, packages, expected) in [
            // Proxmox's own kernels are compared with each other, and a left-over one of Debian's says nothing.
            (
                "6.8.12-1-pve",
                proxmox,
                vec![old, "proxmox-kernel-6.8.12-16-pve-signed", "proxmox-kernel-6.8"],
                Some(true),
            ),
            ("6.8.12-16-pve", proxmox, vec![old, "proxmox-kernel-6.8.12-16-pve-signed"], Some(false)),
            ("5.15.158-1-pve", proxmox, vec![old, "pve-kernel-5.15.158-2-pve", "pve-kernel-helper"], Some(true)),
            ("6.8.12-1-pve", proxmox, vec![old], None),
            // Of a later release.
            (
                "6.14.8-2-bpo12-pve",
                proxmox,
                vec!["proxmox-kernel-6.14.8-2-bpo12-pve-signed", "proxmox-kernel-6.14.11-4-bpo12-pve-signed"],
                Some(true),
            ),
            (
                "6.14.11-4-bpo12-pve",
                proxmox,
                vec!["proxmox-kernel-6.14.11-4-bpo12-pve-signed", "proxmox-kernel-6.8.12-16-pve-signed"],
                Some(false),
            ),
            // A kernel that the host of a container or of a small virtual machine has.
            ("5.15.0-91-generic", ubuntu, vec![old], None),
            ("6.18.44-cloud", "#1 SMP", vec!["linux-image-5.10.0-32-cloud-amd64"], None),
            ("6.18.44", "#1 SMP", vec!["linux-image-6.9.1"], None),
            ("6.9.1", "#1 SMP", vec!["linux-image-6.9.1"], Some(false)),
            ("6.1.0-25-amd64", debian, vec![old], Some(false)),
            ("6.1.0-24-amd64", debian, vec![old], Some(true)),
            ("6.1.0-24-rt-amd64", debian, vec![old], Some(true)),
            ("6.1.0-24-rt-amd64", "#1 SMP", vec![old], None),
            ("6.1.0-24-rt-amd64", debian, vec!["linux-image-6.9.1-1-liquorix-amd64"], None),
            ("6.1.0-24-arm64", debian, vec![old], None),
        ] {
            let packages: Vec<_> = packages.iter().map(|name| (*name, "amd64", "6.1.170-1")).collect();
            let (installed, own) = (installed(&packages), running(own, build));
            let found = is_of_installed(&installed, &own).then(|| !newer(&installed, &own).is_empty());
            assert_eq!(found, expected, "{own:?} {packages:?}");
            let contained = Running { is_container: true, ..own };
            assert!(newer(&installed, &contained).is_empty() && !is_of_installed(&installed, &contained));
        }
    }

    #[test]
    fn what_is_not_compared_is_told_with_the_running_kernel() {
        let own = || running("6.8.12-1-pve", "");
        let contained = Running { is_container: true, ..own() };
        for (running, has_kernel, expected) in [
            (own(), true, "kernel 6.8.12-1-pve runs, which is of none of the installed kernel packages"),
            (own(), false, "no kernel package is installed to compare with"),
            (contained, true, "kernel 6.8.12-1-pve runs, which is of the host of this container"),
            (Running::default(), true, "no kernel package is installed to compare with"),
        ] {
            assert_eq!(running.incomparable(has_kernel), Unknown::new(Cause::Undecidable, expected));
        }
    }

    #[test]
    fn a_container_is_told_by_its_namespace_or_by_the_marks_of_its_manager() {
        let link = |host: &mut Recorded, target: &str| {
            let path = |text: &str| PathText::from_bytes(text.as_bytes());
            host.index_mut().links.insert(path("/proc/self/ns/pid"), path(target));
        };
        let mark = |host: &mut Recorded, mark: &str| {
            let any: Metadata = *host.index_mut().metadata.values().next().unwrap();
            host.index_mut().metadata.insert(PathText::from_bytes(mark.as_bytes()), any);
        };
        for (target, marked, expected) in [
            (None, None, false),
            (Some("pid:[4026531836]"), None, false),
            (Some("pid:[4026532201]"), None, true),
            (None, Some("/.dockerenv"), true),
            (None, Some("/run/.containerenv"), true),
            // A disk image that was made from a container.
            (Some("pid:[4026531836]"), Some("/.dockerenv"), false),
            (Some("pid:[4026531836]"), Some("/run/systemd/container"), true),
        ] {
            let mut host = host(&[]);
            target.into_iter().for_each(|target| link(&mut host, target));
            marked.into_iter().for_each(|marked| mark(&mut host, marked));
            assert_eq!(Running::look(&host, None).is_container, expected, "{target:?} {marked:?}");
        }
    }

    #[test]
    fn the_first_process_tells_when_it_started() {
        let stat = "1 (a) b (c)) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10";
        for (stat, expected) in [(stat, Some(4711)), ("1 (init) S 0 1", None), ("", None), ("1 (x", None)] {
            assert_eq!(start_of(stat), expected, "{stat}");
        }
    }

    #[test]
    fn live_patches_are_told_when_they_are_in_force() {
        let mut host = host(&[]);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(live_patches(&host), Vec::<Text>::new());
        let names = ["on", "off", "coming"];
        let listed = names.map(|name| PathText::from_bytes(name.as_bytes())).to_vec();
        host.index_mut().lists.insert(PathText::from_bytes(LIVE_PATCHES.as_bytes()), listed);
        for (name, enabled, transition) in [("on", "1\n", "0\n"), ("off", "0\n", "0\n"), ("coming", "1\n", "1\n")] {
            let place = folder.path().join("files").join(LIVE_PATCHES.trim_start_matches('/')).join(name);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("enabled"), enabled).unwrap();
            std::fs::write(place.join("transition"), transition).unwrap();
        }
        std::fs::write(folder.path().join("index.json"), serde_json::to_vec(host.index_mut()).unwrap()).unwrap();
        assert_eq!(live_patches(&Recorded::at(folder.path()).unwrap()), [Text::new("on")]);
    }

    #[test]
    fn of_flavours_of_one_abi_the_running_one_is_the_newest() {
        let both = [("linux-image-6.1.0-56-amd64", "amd64", "1"), ("linux-image-6.1.0-56-cloud-amd64", "amd64", "1")];
        for own in ["6.1.0-56-amd64", "6.1.0-56-cloud-amd64"] {
            assert_eq!(newest(&both, own).as_deref(), Some(own));
        }
    }

    /// A host on which dpkg unpacked a newer kernel at these times.
    fn host(lists: &[(&str, &str)]) -> Recorded {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-13");
        let mut host = Recorded::at(&case).unwrap();
        for (package, time) in lists {
            let any: Metadata = *host.index_mut().metadata.values().next().unwrap();
            let list = PathText::from_bytes(format!("/var/lib/dpkg/info/{package}.list").as_bytes());
            host.index_mut().metadata.insert(list, Metadata { modified: Some(time.parse().unwrap()), ..any });
        }
        host
    }

    #[test]
    fn a_restart_is_needed_since_the_first_newer_kernel_was_unpacked() {
        let memory = tempfile::tempdir().unwrap();
        let (first, second) = ("linux-image-6.1.0-57-amd64", "linux-image-6.1.0-58-amd64");
        let both = installed(&[(first, "amd64", "6.1.177-1"), (second, "amd64", "6.1.180-1")]);
        let only_second = installed(&[(second, "amd64", "6.1.180-1")]);
        let (early, late) = ("2026-11-02T00:00:00Z", "2026-11-09T00:00:00Z");
        let host = host(&[(first, early), (second, late)]);
        let settings = Settings::default();
        let since = |installed: &Installed, running: &Running| {
            let now = "2026-11-10T00:00:00Z".parse().unwrap();
            let watch = WatchState::Live;
            let at = Look {
                host: &host,
                now,
                settings: &settings,
                memory: memory.path(),
                watch,
                run: 7,
                files: Default::default(),
            };
            look(&at, running, installed).since.and_then(|since| since.known().map(ToString::to_string))
        };
        let own = running("6.1.0-56-amd64", "");
        assert_eq!(since(&only_second, &own).as_deref(), Some(late));
        assert_eq!(since(&both, &own).as_deref(), Some(early));
        // The first one was removed, and the kernel did not start since.
        assert_eq!(since(&only_second, &own).as_deref(), Some(early));
        let started = Running { boot: Some("2".to_owned()), ..running("6.1.0-56-amd64", "") };
        assert_eq!(since(&only_second, &started).as_deref(), Some(late));
        assert_eq!(since(&only_second, &running("6.1.0-58-amd64", "")), None);
        assert_eq!(since(&only_second, &started).as_deref(), Some(late));
    }

    #[test]
    fn a_restart_is_needed_since_the_first_package_that_asks_was_unpacked_after_the_start() {
        let of = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-13/index.json");
        let packages = installed(&[("libc6", "amd64", "2"), ("dbus", "amd64", "1"), ("linux-base", "all", "4")]);
        let (own, settings) = (running("6.1.0-56-amd64", ""), Settings::default());
        let (start, early, late) = ("2026-11-01T00:00:00Z", "2026-11-03T00:00:00Z", "2026-11-09T00:00:00Z");
        for (names, lists, stat, expected) in [
            ("dbus\nlibc6\n", vec![("libc6:amd64", early), ("dbus", late)], true, Some(early)),
            ("dbus\n", vec![("libc6:amd64", early), ("dbus", late)], true, Some(late)),
            ("../libc6\nnone\n", vec![("../libc6", early), ("none", early)], true, Some(late)),
            // It was there before the start, and its script ran again.
            ("dbus\nlinux-base\n", vec![("linux-base", "2026-10-01T00:00:00Z"), ("dbus", early)], true, Some(early)),
            ("libc6\n", vec![("libc6:amd64", early)], false, None),
        ] {
            let (case, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            std::fs::copy(&of, case.path().join("index.json")).unwrap();
            for (path, content) in [(PACKAGES, names), (STAT, "cpu 1\nbtime 1793491200\n")] {
                let file = case.path().join("files").join(path.trim_start_matches('/'));
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, content).unwrap();
            }
            let mut host = Recorded::at(case.path()).unwrap();
            let index = host.index_mut();
            let any: Metadata = *index.metadata.values().next().unwrap();
            index.errors.retain(|key, _| !key.contains("reboot-required") && !key.contains(STAT));
            let absent = || Failure::of(&io::ErrorKind::NotFound.into());
            for package in ["libc6:amd64", "libc6", "dbus:amd64", "dbus", "linux-base:all", "linux-base"] {
                index.errors.insert(format!("metadata {}", list_of(package)), absent());
            }
            let lists = lists.iter().map(|(package, time)| (list_of(package), *time));
            for (path, time) in lists.chain([(NOTE.to_owned(), late)]) {
                index.errors.remove(&format!("metadata {path}"));
                let metadata = Metadata { modified: Some(time.parse().unwrap()), ..any };
                index.metadata.insert(PathText::from_bytes(path.as_bytes()), metadata);
            }
            if !stat {
                index.errors.insert(format!("read {STAT}"), Failure::of(&io::Error::from_raw_os_error(13)));
            }
            let now = "2026-11-10T00:00:00Z".parse().unwrap();
            let (watch, files) = (WatchState::Live, Default::default());
            let at = Look { host: &host, now, settings: &settings, memory: memory.path(), watch, run: 7, files };
            assert_eq!(started(&host, &own).ok(), stat.then(|| start.parse().unwrap()));
            let since = look(&at, &own, &packages).since.unwrap();
            assert_eq!(since.known().map(ToString::to_string).as_deref(), expected, "{names}");
        }
    }

    #[test]
    fn a_restart_is_needed_since_it_was_first_seen_where_no_time_is_told() {
        let memory = tempfile::tempdir().unwrap();
        let kernel = installed(&[("linux-image-6.1.0-57-amd64", "amd64", "6.1.177-1")]);
        let (host, settings) = (host(&[]), Settings::default());
        let first = "2026-11-10T00:00:00Z";
        for now in [first, "2026-11-20T00:00:00Z"] {
            let (now, watch) = (now.parse().unwrap(), WatchState::Live);
            let at = Look {
                host: &host,
                now,
                settings: &settings,
                memory: memory.path(),
                watch,
                run: 7,
                files: Default::default(),
            };
            let restart = look(&at, &running("6.1.0-56-amd64", ""), &kernel);
            assert_eq!(restart.since, Some(Reading::Known(first.parse().unwrap())));
            assert_eq!(restart.packages, [Text::new("linux-image-6.1.0-57-amd64")]);
        }
    }
}
