//! apt's settings, pins and automatic updates.

use std::{io, path::Path};

use muster_proto::fact::{AutomaticUpdates, Cause, Reading, Unknown};

use super::lists::Offers;
use crate::host::{self, FILE_BYTES, Host, Tool};

pub(super) const CONFIG_FOLDER: &str = "/etc/apt/apt.conf.d";
pub(super) const PREFERENCES: &str = "/etc/apt/preferences";
pub(super) const PREFERENCES_FOLDER: &str = "/etc/apt/preferences.d";
/// unattended-upgrades touches it when it ran to its end.
pub(super) const STAMP: &str = "/var/lib/apt/periodic/unattended-upgrades-stamp";

/// Returns `apt-config dump`.
pub(super) fn config(host: &dyn Host) -> io::Result<String> {
    String::from_utf8(host.run(Tool::AptConfig, &["dump"])?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "output is not text"))
}

/// Returns the value of `key` in `apt-config dump`: lines such as `APT::Periodic::Unattended-Upgrade "1";`.
fn value<'c>(config: &'c str, key: &str) -> Option<&'c str> {
    config.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        name.eq_ignore_ascii_case(key).then(|| value.strip_suffix("\";")?.strip_prefix('"')).flatten()
    })
}

/// Returns whether what the lists offer is all that apt would choose from.
pub(super) fn pending_complete(host: &dyn Host, config: &io::Result<String>, offers: &Offers) -> Reading<bool> {
    if let Some(unknown) = &offers.incomplete {
        return Reading::Unknown { unknown: unknown.clone() };
    }
    match pins(host) {
        Ok(None) => {}
        Ok(Some(path)) => return Reading::unknown(Cause::Unsupported, format!("{path} pins packages")),
        Err(unknown) => return Reading::Unknown { unknown },
    }
    match config {
        Ok(config) if value(config, "APT::Default-Release").is_some_and(|release| !release.is_empty()) => {
            Reading::unknown(Cause::Unsupported, "APT::Default-Release is set")
        }
        Ok(_) => Reading::Known(true),
        Err(error) => Reading::Unknown { unknown: host::unknown("run apt-config", error) },
    }
}

/// Returns a file that has a pin, which could make another version the candidate.
fn pins(host: &dyn Host) -> Result<Option<String>, Unknown> {
    let mut paths = vec![PREFERENCES.to_owned()];
    match host.list(Path::new(PREFERENCES_FOLDER)) {
        Ok(names) => {
            // As apt does: no ending, or `pref`.
            let names = names.iter().filter_map(|name| name.to_str());
            let taken = names.filter(|name| !name.contains('.') || name.ends_with(".pref"));
            paths.extend(taken.map(|name| format!("{PREFERENCES_FOLDER}/{name}")));
        }
        Err(error) if host::cause(&error) == Cause::Absent => {}
        Err(error) => return Err(host::unknown(format!("list {PREFERENCES_FOLDER}"), &error)),
    }
    for path in paths {
        match host.read(Path::new(&path), FILE_BYTES) {
            Ok(bytes) => {
                let has_pin = |line: &[u8]| line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"pin:"));
                if bytes.split(|&byte| byte == b'\n').any(has_pin) {
                    return Ok(Some(path));
                }
            }
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("read {path}"), &error)),
        }
    }
    Ok(None)
}

pub(super) fn automatic_updates(host: &dyn Host, config: io::Result<String>, is_installed: bool) -> AutomaticUpdates {
    let enabled = match config {
        // apt.systemd.daily: 0 or nothing is off; else an interval, or `always`.
        Ok(config) => {
            let interval = value(&config, "APT::Periodic::Unattended-Upgrade").unwrap_or("0");
            Reading::Known(is_installed && !matches!(interval, "" | "0"))
        }
        Err(_) if !is_installed => Reading::Known(false),
        Err(error) => Reading::Unknown { unknown: host::unknown("run apt-config", &error) },
    };
    let last_success_time = match host.metadata(Path::new(STAMP)) {
        Ok(stamp) => stamp.modified_time(),
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {STAMP}"), &error) },
    };
    AutomaticUpdates { enabled, last_success_time }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_setting_is_found_by_its_whole_name() {
        let config = "APT \"\";\nAPT::Periodic \"\";\nAPT::Periodic::Unattended-Upgrade \"1\";\nAPT::X:: \"a b\";\n";
        assert_eq!(value(config, "APT::Periodic::Unattended-Upgrade"), Some("1"));
        assert_eq!(value(config, "apt::periodic"), Some(""));
        assert_eq!(value(config, "APT::Default-Release"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*\n\\PC*", key in "\\PC{0,5}") {
            let _ = value(&text, &key);
        }
    }
}
