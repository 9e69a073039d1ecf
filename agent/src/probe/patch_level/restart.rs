//! Whether a restart is needed for installed updates to take effect.

use std::{io, path::Path};

use debversion::Version;
use muster_proto::fact::{Cause, Reading, Text};

use super::dpkg::Installed;
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Packages' scripts make it (Debian policy has no word on it; update-notifier and unattended-upgrades read it).
pub(super) const NOTE: &str = "/run/reboot-required";
/// The packages that asked, a line each.
pub(super) const PACKAGES: &str = "/run/reboot-required.pkgs";

pub(super) struct Restart {
    pub required: Reading<bool>,
    pub since: Option<Reading<muster_proto::time::Timestamp>>,
    pub packages: Vec<Text>,
}

/// Returns the release of the newest installed kernel package.
pub(super) fn newest_kernel(installed: &Installed) -> Option<String> {
    let releases = installed.packages.keys().filter_map(|name| {
        let release = name.strip_prefix("linux-image-")?.trim_start_matches("unsigned-");
        let is_kernel = release.starts_with(|c: char| c.is_ascii_digit()) && !release.ends_with("-dbg");
        is_kernel.then_some(release.strip_suffix("-unsigned").unwrap_or(release))
    });
    releases.max_by(|a, b| compare(a, b)).map(str::to_owned)
}

fn compare(a: &str, b: &str) -> std::cmp::Ordering {
    match (a.parse::<Version>(), b.parse::<Version>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(b),
    }
}

pub(super) fn look(host: &dyn Host, running: Option<&str>, newest: Option<&str>) -> Restart {
    let note = host.metadata(Path::new(NOTE));
    let mut packages: Vec<Text> = match host.read(Path::new(PACKAGES), SMALL_FILE_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).lines().filter(|line| !line.is_empty()).map(Text::new).collect(),
        Err(_) => Vec::new(),
    };
    let is_kernel_old = match (running, newest) {
        (Some(running), Some(newest)) => Some(compare(running, newest).is_lt()),
        _ => None,
    };
    if is_kernel_old == Some(true) {
        packages.extend(newest.map(|newest| Text::new(&format!("linux-image-{newest}"))));
    }
    packages.sort();
    packages.dedup();
    let (required, since) = match (note, is_kernel_old) {
        (Ok(note), _) => (Reading::Known(true), Some(note.modified_time())),
        (Err(_), Some(true)) => {
            let image = format!("/boot/vmlinuz-{}", newest.unwrap_or_default());
            let made = match host.metadata(Path::new(&image)) {
                Ok(metadata) => metadata.modified_time(),
                Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {image}"), &error) },
            };
            (Reading::Known(true), Some(made))
        }
        (Err(error), Some(false)) if error.kind() == io::ErrorKind::NotFound => (Reading::Known(false), None),
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => {
            (Reading::unknown(Cause::Undecidable, "no kernel package is installed to compare with"), None)
        }
        (Err(error), _) => (Reading::Unknown { unknown: host::unknown(format!("look at {NOTE}"), &error) }, None),
    };
    Restart { required, since, packages }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::patch_level::dpkg::installed;

    #[test]
    fn the_newest_kernel_is_by_version_and_no_meta_package() {
        let kernels = installed(&[
            ("linux-image-amd64", "amd64", "6.1.170-1"),
            ("linux-image-6.1.0-9-amd64", "amd64", "6.1.27-1"),
            ("linux-image-6.1.0-56-amd64", "amd64", "6.1.176-1"),
            ("linux-image-6.1.0-57-amd64-dbg", "amd64", "6.1.177-1"),
        ]);
        assert_eq!(newest_kernel(&kernels).as_deref(), Some("6.1.0-56-amd64"));
        assert_eq!(newest_kernel(&installed(&[("bash", "amd64", "5")])), None);
    }
}
