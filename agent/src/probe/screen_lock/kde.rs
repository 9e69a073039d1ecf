//! KDE's screen locker: `kscreenlockerrc`, of the host and over it of the account.
//!
//! The files are those of KConfig: groups, keys, and a mark `[$i]` behind either that keeps later files from changing it.

use std::path::Path;

use muster_proto::fact::{Cause, Reading, Unknown};

use super::Settings;
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// The host's file.
const SYSTEM: &str = "/etc/xdg/kscreenlockerrc";

/// Returns what the settings of the account with `home` come to; without one, of an account without its own.
pub fn settings(host: &dyn Host, home: Option<&Path>) -> Settings {
    match read(host, home) {
        Ok(settings) => settings,
        Err(unknown) => Settings::untold(&unknown),
    }
}

fn read(host: &dyn Host, home: Option<&Path>) -> Result<Settings, Unknown> {
    let text = |path: &Path| match host.read(path, SMALL_FILE_BYTES) {
        // KConfig writes UTF-8 alone.
        Ok(bytes) => {
            String::from_utf8(bytes).map_err(|_| Unknown::new(Cause::Garbled, format!("{} is no text", path.display())))
        }
        Err(error) if host::cause(&error) == Cause::Absent => Ok(String::new()),
        Err(error) => Err(host::unknown(format!("read {}", path.display()), &error)),
    };
    let system = Daemon::parse(&text(Path::new(SYSTEM))?);
    let own = match home {
        Some(home) => Daemon::parse(&text(&home.join(".config/kscreenlockerrc"))?),
        None => Daemon::default(),
    };
    let of = |key: &str| {
        let system = system.get(key);
        match system {
            Some((value, true)) => Some(value),
            _ => own.get(key).or(system).map(|(value, _)| value),
        }
    };
    let garbled = |key: &str, value: &str| Unknown::new(Cause::Garbled, format!("kscreenlockerrc: {key}={value}"));
    let number =
        |key: &str, default: u64| of(key).map_or(Ok(default), |value| value.parse().map_err(|_| garbled(key, value)));
    let enabled = match of("Autolock") {
        None => true,
        Some(value) if ["true", "on", "yes", "1"].iter().any(|yes| value.eq_ignore_ascii_case(yes)) => true,
        Some(value) if ["false", "off", "no", "0"].iter().any(|no| value.eq_ignore_ascii_case(no)) => false,
        Some(value) => return Err(garbled("Autolock", value)),
    };
    let enforced = ["Autolock", "Timeout", "LockGrace"].iter().all(|key| system.is_fixed(key));
    Ok(Settings {
        enabled: Reading::Known(enabled),
        // Minutes; the defaults are those of KScreenLocker's own description of its settings.
        idle_seconds: Reading::Known(number("Timeout", 5)?.saturating_mul(60)),
        grace_seconds: Reading::Known(number("LockGrace", 5)?),
        enforced: Reading::Known(enforced),
    })
}

/// The group `Daemon` of a file.
#[derive(Debug, Default)]
struct Daemon {
    /// Key, value, and whether later files may not change it.
    values: Vec<(String, String, bool)>,
    is_fixed: bool,
}

impl Daemon {
    fn parse(text: &str) -> Self {
        let mut daemon = Self::default();
        let (mut is_inside, mut is_all_fixed) = (false, false);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with('[') {
                // The mark alone is of the whole file.
                is_all_fixed |= line == "[$i]";
                is_inside = matches!(line, "[Daemon]" | "[Daemon][$i]");
                daemon.is_fixed |= line == "[Daemon][$i]";
            } else if let Some((key, value)) = line.split_once('=').filter(|_| is_inside) {
                let (name, marks) = key.trim().split_once('[').map_or((key.trim(), ""), |(name, marks)| (name, marks));
                daemon.values.push((name.trim().to_owned(), value.trim().to_owned(), marks.contains("$i")));
            }
        }
        daemon.is_fixed |= is_all_fixed;
        daemon
    }

    /// Returns the value of a key, and whether later files may not change it.
    fn get(&self, key: &str) -> Option<(&str, bool)> {
        let (_, value, is_fixed) = self.values.iter().rev().find(|(own, _, _)| own == key)?;
        Some((value.as_str(), *is_fixed || self.is_fixed))
    }

    fn is_fixed(&self, key: &str) -> bool {
        self.is_fixed || self.get(key).is_some_and(|(_, is_fixed)| is_fixed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mark_keeps_a_value_from_being_changed() {
        let daemon = Daemon::parse("[Other]\nTimeout=1\n[Daemon]\nTimeout[$i]=10\nAutolock=false\n# x\nLockGrace=0\n");
        assert_eq!(daemon.get("Timeout"), Some(("10", true)));
        assert_eq!(daemon.get("Autolock"), Some(("false", false)));
        assert!(!daemon.is_fixed("LockGrace"));
        for text in ["[$i]\n[Daemon]\nTimeout=3\n", "[Daemon][$i]\nTimeout=3\n"] {
            assert!(Daemon::parse(text).is_fixed("Timeout") && Daemon::parse(text).is_fixed("LockGrace"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in "[\\[\\]$iA-Za-z=\n0-9]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                Daemon::parse(&text).get("Timeout");
            }
        }
    }
}
