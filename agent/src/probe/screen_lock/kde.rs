//! KDE's screen locker: `kscreenlockerrc`, of the host and over it of the account.
//!
//! The files are those of KConfig: groups, keys, and a mark `[$i]` behind either that keeps later files from changing it.

use std::path::Path;

use muster_proto::fact::{Cause, Reading, Unknown};

use super::Settings;
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// The host's file.
const SYSTEM: &str = "/etc/xdg/kscreenlockerrc";
/// Whether an idle session is locked, whether its lock ever closes, and whether it opens by a password alone. Each is on without a
/// value, and without one of them whoever moves the mouse is in: KScreenLocker's `kscreenlockersettings.kcfg` and `ksldapp.cpp`.
const NEEDED: [&str; 3] = ["Autolock", "Lock", "RequirePassword"];
/// When it is locked, and how long it then opens without a password.
const TIMES: [&str; 2] = ["Timeout", "LockGrace"];

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
    let yes_no = |key: &str| match of(key) {
        None => Ok(true),
        Some(value) if ["true", "on", "yes", "1"].iter().any(|yes| value.eq_ignore_ascii_case(yes)) => Ok(true),
        Some(value) if ["false", "off", "no", "0"].iter().any(|no| value.eq_ignore_ascii_case(no)) => Ok(false),
        Some(value) => Err(garbled(key, value)),
    };
    let mut enabled = true;
    for key in NEEDED {
        enabled &= yes_no(key)?;
    }
    let enforced = NEEDED.iter().chain(&TIMES).all(|key| system.is_fixed(key));
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
    use crate::host::Recorded;

    /// Returns what the settings come to with these files of the host and of an account.
    fn look(system: &str, own: &str) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.json"), r#"{"version": 1, "captured": "2026-11-26T00:00:00Z"}"#)
            .unwrap();
        for (path, text) in [("etc/xdg", system), ("home/eve/.config", own)] {
            let beside = folder.path().join("files").join(path);
            std::fs::create_dir_all(&beside).unwrap();
            std::fs::write(beside.join("kscreenlockerrc"), text).unwrap();
        }
        settings(&Recorded::at(folder.path()).unwrap(), Some(Path::new("/home/eve")))
    }

    #[test]
    fn a_session_that_asks_for_no_password_is_not_locked() {
        for (own, expected) in [
            ("", Some(true)),
            ("[Daemon]\nRequirePassword=true\nLock=on\n", Some(true)),
            ("[Daemon]\nRequirePassword=false\n", Some(false)),
            ("[Daemon]\nLock=false\n", Some(false)),
            ("[Daemon]\nAutolock=false\n", Some(false)),
            ("[Greeter]\nRequirePassword=false\n", Some(true)),
            ("[Daemon]\nRequirePassword=maybe\n", None),
        ] {
            assert_eq!(look("", own).enabled.known().copied(), expected, "{own}");
        }
        let fixed = "[Daemon]\nRequirePassword[$i]=true\n";
        assert_eq!(look(fixed, "[Daemon]\nRequirePassword=false\n").enabled, Reading::Known(true));
    }

    #[test]
    fn what_an_account_may_switch_off_is_not_enforced() {
        let fixed = |keys: &[&str]| keys.iter().map(|key| format!("{key}[$i]=1\n")).collect::<String>();
        for (keys, expected) in [
            (&["Autolock", "Timeout", "LockGrace"][..], false),
            (&["Autolock", "Lock", "Timeout", "LockGrace"], false),
            (&["Autolock", "RequirePassword", "Timeout", "LockGrace"], false),
            (&["Autolock", "Lock", "RequirePassword", "Timeout", "LockGrace"], true),
        ] {
            assert_eq!(look(&format!("[Daemon]\n{}", fixed(keys)), "").enforced, Reading::Known(expected), "{keys:?}");
        }
        assert_eq!(look("[Daemon][$i]\n", "").enforced, Reading::Known(true));
    }

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
