//! KDE's screen locker: `kscreenlockerrc`, of the host and over it of the account.
//!
//! The files are those of KConfig: groups, keys, and a mark `[$i]` behind either that keeps later files from changing it, also a key
//! of the group that the file does not have.

use std::path::Path;

use muster_proto::fact::{Cause, Reading, Unknown};

use super::Settings;
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Folder of the host's files, and of folders whose files go before them in some sessions.
const XDG: &str = "/etc/xdg";
const NAME: &str = "kscreenlockerrc";
/// Files of an account, the later over the earlier: what its theme sets, which startplasma puts before the host's folders, and its own.
const OWN: [&str; 2] = [".config/kdedefaults/kscreenlockerrc", ".config/kscreenlockerrc"];
/// Folders beside the host's files that are looked into, at most.
const FOLDERS: usize = 100;
/// Whether an idle session is locked, whether its lock ever closes, and whether it opens by a password alone. Each is on without a
/// value, and without one of them whoever moves the mouse is in: KScreenLocker's `kscreenlockersettings.kcfg` and `ksldapp.cpp`.
const NEEDED: [&str; 3] = ["Autolock", "Lock", "RequirePassword"];
/// When it is locked, and how long it then opens without a password.
const TIMES: [&str; 2] = ["Timeout", "LockGrace"];
/// The former without a value: five minutes, as KScreenLocker's own description of its settings says.
const IDLE_SECONDS: u64 = 300;

/// Returns what the settings of the account with `home` come to; without one, of an account without its own.
pub fn settings(host: &dyn Host, home: Option<&Path>) -> Settings {
    match read(host, home) {
        Ok(settings) => settings,
        Err(unknown) => Settings::untold(&unknown),
    }
}

fn read(host: &dyn Host, home: Option<&Path>) -> Result<Settings, Unknown> {
    let system = daemon(host, &Path::new(XDG).join(NAME))?;
    check_beside(host)?;
    let mut files = vec![system];
    for own in OWN {
        files.extend(home.map(|home| daemon(host, &home.join(own))).transpose()?);
    }
    let of = |key: &str| value(&files, key);
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
    let enforced = NEEDED.iter().chain(&TIMES).all(|key| files[0].is_fixed(key));
    Ok(Settings {
        enabled: Reading::Known(enabled),
        idle_seconds: Reading::Known(
            of("Timeout")
                .map_or(Ok(IDLE_SECONDS), |value| idle_seconds(value).ok_or_else(|| garbled("Timeout", value)))?,
        ),
        grace_seconds: Reading::Known(number("LockGrace", 5)?),
        enforced: Reading::Known(enforced),
    })
}

/// Returns the seconds of a number of minutes. Plasma 6 takes one with a fraction, for which Plasma 5 has its default: the longer holds.
fn idle_seconds(value: &str) -> Option<u64> {
    if let Ok(minutes) = value.parse::<u64>() {
        return Some(minutes.saturating_mul(60));
    }
    let minutes = value.parse::<f64>().ok().filter(|minutes| minutes.is_finite() && *minutes >= 0.0)?;
    // A number that is too large becomes the largest.
    Some(((minutes * 60.0).ceil() as u64).max(IDLE_SECONDS))
}

/// Returns the group `Daemon` of a file, which is empty without one.
fn daemon(host: &dyn Host, path: &Path) -> Result<Daemon, Unknown> {
    let bytes = match host.read(path, SMALL_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if host::cause(&error) == Cause::Absent => return Ok(Daemon::default()),
        Err(error) => return Err(host::unknown(format!("read {}", path.display()), &error)),
    };
    // KConfig writes UTF-8 alone.
    let text =
        String::from_utf8(bytes).map_err(|_| Unknown::new(Cause::Garbled, format!("{} is no text", path.display())))?;
    Daemon::parse(&text).map_err(|line| Unknown::new(Cause::Undecidable, format!("{}: {line}", path.display())))
}

/// Checks that no folder like `/etc/xdg/xdg-plasma` sets anything, which display managers of some distributions put before `/etc/xdg`.
fn check_beside(host: &dyn Host) -> Result<(), Unknown> {
    let names = match host.list(Path::new(XDG)) {
        Ok(names) => names,
        Err(error) if host::cause(&error) == Cause::Absent => return Ok(()),
        Err(error) => return Err(host::unknown(format!("list {XDG}"), &error)),
    };
    let folders: Vec<_> = names.iter().filter(|name| name.to_string_lossy().starts_with("xdg-")).collect();
    if folders.len() > FOLDERS {
        return Err(Unknown::new(Cause::Limit, format!("{XDG} has more folders than are looked into")));
    }
    for folder in folders {
        let path = Path::new(XDG).join(folder).join(NAME);
        if !daemon(host, &path)?.is_empty() {
            return Err(Unknown::new(Cause::Undecidable, format!("{} may hold in a session", path.display())));
        }
    }
    Ok(())
}

/// Returns the value of a key of files, of which the first that fixes it is the last to be asked.
fn value<'a>(files: &'a [Daemon], key: &str) -> Option<&'a str> {
    let fixed = files.iter().position(|file| file.is_fixed(key)).unwrap_or(files.len());
    files.iter().take(fixed + 1).rev().find_map(|file| file.get(key)).map(|(value, _)| value)
}

/// The group `Daemon` of a file.
#[derive(Debug, Default)]
struct Daemon {
    /// Key, value, and whether later files may not change it.
    values: Vec<(String, String, bool)>,
    is_fixed: bool,
}

impl Daemon {
    /// Returns the group of a file. `Err` names a line whose group or key is written with escapes, or whose value is for a language.
    fn parse(text: &str) -> Result<Self, String> {
        let mut daemon = Self::default();
        let mut is_inside = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with('[') {
                if line.contains('\\') {
                    return Err(line.to_owned());
                }
                let (group, is_fixed) = group(line);
                is_inside = group == ["Daemon"];
                // The mark alone is of the whole file.
                daemon.is_fixed |= is_fixed && (is_inside || group.is_empty());
            } else if let Some((key, value)) = line.split_once('=').filter(|_| is_inside) {
                let (name, marks) = key.trim().split_once('[').map_or((key.trim(), ""), |(name, marks)| (name, marks));
                if key.contains('\\') || !marks.is_empty() && !marks.starts_with('$') {
                    return Err(line.to_owned());
                }
                daemon.values.push((name.trim().to_owned(), value.trim().to_owned(), marks.contains("$i")));
            }
        }
        Ok(daemon)
    }

    fn is_empty(&self) -> bool {
        self.values.is_empty() && !self.is_fixed
    }

    /// Returns the value of a key, and whether later files may not change it.
    fn get(&self, key: &str) -> Option<(&str, bool)> {
        let mut of_key = self.values.iter().filter(|(own, _, _)| own == key);
        // In its own file, too, a value that is fixed stays.
        let (_, value, is_fixed) = of_key.clone().find(|(_, _, is_fixed)| *is_fixed).or_else(|| of_key.next_back())?;
        Some((value.as_str(), *is_fixed || self.is_fixed))
    }

    fn is_fixed(&self, key: &str) -> bool {
        self.is_fixed || self.get(key).is_some_and(|(_, is_fixed)| is_fixed)
    }
}

/// Returns the names of a line such as `[Greeter][Wallpaper][$i]`, and whether the mark is among them. What is behind the last bracket
/// counts for nothing.
fn group(line: &str) -> (Vec<&str>, bool) {
    let (mut names, mut is_fixed, mut rest) = (Vec::new(), false, line);
    while let Some((name, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        if name == "$i" {
            is_fixed = true;
        } else {
            names.push(name);
        }
        rest = after;
    }
    (names, is_fixed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::Recorded;

    /// Returns what the settings come to with these files of the host and of an account.
    fn look(system: &str, own: &str) -> Settings {
        look_at(&[("etc/xdg", system), ("home/eve/.config", own)])
    }

    /// Returns what the settings come to with files in these folders.
    fn look_at(files: &[(&str, &str)]) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let index = r#"{"version": 1, "captured": "2026-11-26T00:00:00Z", "lists": {"/etc/xdg": ["xdg-plasma"]}}"#;
        std::fs::write(folder.path().join("index.json"), index).unwrap();
        for path in ["etc/xdg", "etc/xdg/xdg-plasma", "home/eve/.config", "home/eve/.config/kdedefaults"] {
            let beside = folder.path().join("files").join(path);
            std::fs::create_dir_all(&beside).unwrap();
            let text = files.iter().find(|(of, _)| *of == path).map_or("", |(_, text)| *text);
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
            ("[Daemon] x\nLock=false\n", Some(false)),
            ("[Daemon][Other]\nLock=false\n", Some(true)),
            ("[\\x44aemon]\nLock=false\n", None),
            ("[Daemon]\nLoc\\x6b=false\n", None),
            ("[Other]\nLoc\\x6b=false\n", Some(true)),
            ("[Daemon]\nLock=false\nLock[de]=true\n", None),
        ] {
            assert_eq!(look("", own).enabled.known().copied(), expected, "{own}");
        }
        let fixed = "[Daemon]\nRequirePassword[$i]=true\n";
        assert_eq!(look(fixed, "[Daemon]\nRequirePassword=false\n").enabled, Reading::Known(true));
    }

    #[test]
    fn a_time_with_a_fraction_is_the_longest_that_any_release_has() {
        for (value, expected) in [
            ("10", Some(600)),
            ("2", Some(120)),
            ("10.0", Some(600)),
            ("7.01", Some(421)),
            ("2.5", Some(300)),
            ("1e400", None),
            ("-1", None),
            ("-2.5", None),
            ("nan", None),
            ("soon", None),
        ] {
            let found = look("", &format!("[Daemon]\nTimeout={value}\n")).idle_seconds;
            assert_eq!(found.known().copied(), expected, "{value}");
        }
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
        let text = "[Other]\nTimeout=1\n[Daemon]\nTimeout[$i]=10\nAutolock=false\n# x\nLockGrace=0\n";
        let daemon = Daemon::parse(text).unwrap();
        assert_eq!(daemon.get("Timeout"), Some(("10", true)));
        assert_eq!(daemon.get("Autolock"), Some(("false", false)));
        assert!(!daemon.is_fixed("LockGrace"));
        for text in ["[$i]\n[Daemon]\nTimeout=3\n", "[Daemon][$i]\nTimeout=3\n"] {
            let daemon = Daemon::parse(text).unwrap();
            assert!(daemon.is_fixed("Timeout") && daemon.is_fixed("LockGrace"), "{text}");
        }
        let daemon = Daemon::parse("[Daemon]\nTimeout=1\nTimeout[$i]=2\nTimeout=3\nLock=on\nLock=off\n").unwrap();
        assert_eq!((daemon.get("Timeout"), daemon.get("Lock")), (Some(("2", true)), Some(("off", false))));
        assert!(!Daemon::parse("[Other][$i]\n[Daemon]\nTimeout=3\n").unwrap().is_fixed("Timeout"));
    }

    #[test]
    fn what_the_host_fixed_holds_whatever_an_account_has() {
        let own = "[Daemon]\nAutolock=false\nTimeout=0\n";
        for (system, enabled, idle_seconds) in [
            ("[Daemon]\nAutolock=true\nTimeout=7\n", false, 0),
            ("[Daemon]\nAutolock=true\nTimeout[$i]=7\n", false, 420),
            ("[Daemon][$i]\nAutolock=true\n", true, 300),
            ("[$i]\n[Daemon]\nAutolock=true\nTimeout=7\n", true, 420),
            ("[Daemon][$i]\n", true, 300),
        ] {
            let found = look(system, own);
            assert_eq!(
                (found.enabled, found.idle_seconds),
                (Reading::Known(enabled), Reading::Known(idle_seconds)),
                "{system}"
            );
        }
    }

    #[test]
    fn what_a_theme_or_a_folder_of_a_session_sets_counts() {
        let off = "[Daemon]\nAutolock=false\n";
        let of = |files: &[(&str, &str)]| look_at(files).enabled;
        let (theme, own, host) = ("home/eve/.config/kdedefaults", "home/eve/.config", "etc/xdg");
        assert_eq!(of(&[(theme, off)]), Reading::Known(false));
        assert_eq!(of(&[(theme, off), (host, "[Daemon]\nAutolock=true\n")]), Reading::Known(false));
        assert_eq!(of(&[(theme, off), (host, "[Daemon][$i]\nAutolock=true\n")]), Reading::Known(true));
        assert_eq!(of(&[(theme, off), (own, "[Daemon]\nAutolock=true\n")]), Reading::Known(true));
        assert_eq!(of(&[("etc/xdg/xdg-plasma", "[Greeter]\nTheme=x\n")]), Reading::Known(true));
        let Reading::Unknown { unknown } = of(&[("etc/xdg/xdg-plasma", off)]) else { panic!() };
        assert_eq!(unknown.cause, Cause::Undecidable);
        assert_eq!(unknown.detail.as_str(), "/etc/xdg/xdg-plasma/kscreenlockerrc may hold in a session");
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in "[\\[\\]\\\\$iA-Za-z=\n0-9]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                idle_seconds(&text);
                if let Ok(daemon) = Daemon::parse(&text) {
                    daemon.get("Timeout");
                }
                group(&text);
            }
        }
    }
}
