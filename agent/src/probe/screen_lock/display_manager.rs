//! Which display manager starts with the host: GNOME locks sessions by its own alone, and any of them may open one again.

use std::{collections::BTreeSet, path::Path};

use muster_proto::fact::{Cause, Unknown};

use crate::host::{self, Host, SMALL_FILE_BYTES};

/// The unit that systemd starts for it: a link to its own.
const UNIT: &str = "/etc/systemd/system/display-manager.service";
/// Where Debian and its kin name its program.
const FILE: &str = "/etc/X11/default-display-manager";
/// Units of SUSE that start the one that update-alternatives(1) and a setting before it name.
const SUSE: [&str; 2] = ["display-manager", "display-manager-legacy"];
const ALTERNATIVE: &str = "/etc/alternatives/default-displaymanager";
const SETTINGS: &str = "/etc/sysconfig/displaymanager";
/// Names of GNOME's.
pub const GNOME: [&str; 2] = ["gdm", "gdm3"];

/// Returns the names that the host has for what it starts: usually one, and none where nothing is named.
pub fn look(host: &dyn Host) -> Result<BTreeSet<String>, Unknown> {
    let mut names = BTreeSet::new();
    if let Some(unit) = link(host, UNIT)? {
        let name = unit.strip_suffix(".service").unwrap_or(&unit);
        if SUSE.contains(&name) {
            names.extend(link(host, ALTERNATIVE)?);
            names.extend(read(host, SETTINGS)?.iter().filter_map(|line| setting(line)));
        } else {
            names.insert(name.to_owned());
        }
    }
    // Its program has to be this one, or its unit does not start.
    names.extend(read(host, FILE)?.iter().filter_map(|line| line.rsplit('/').next()).map(str::to_owned));
    Ok(names)
}

/// Returns why GNOME may not lock: its shell has a lock where the display manager has GDM's name on D-Bus (`canLock` of `loginManager.js`).
pub fn keeps_gnome_open(names: &BTreeSet<String>) -> Option<Unknown> {
    if names.is_empty() {
        return Some(Unknown::new(Cause::Absent, "GNOME locks by GDM alone, and no display manager is named"));
    }
    let other = names.iter().find(|name| !GNOME.contains(&name.as_str()))?;
    Some(Unknown::new(Cause::Undecidable, format!("GNOME locks by GDM alone, and the display manager is {other}")))
}

/// Returns the last part of where a link leads; `None` without one.
fn link(host: &dyn Host, path: &str) -> Result<Option<String>, Unknown> {
    match host.read_link(Path::new(path)) {
        Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(None),
        Err(error) => Err(host::unknown(format!("read link {path}"), &error)),
    }
}

/// Returns the lines of a file that are not empty.
fn read(host: &dyn Host, path: &str) -> Result<Vec<String>, Unknown> {
    match host.read(Path::new(path), SMALL_FILE_BYTES) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
        }
        Err(error) if host::cause(&error) == Cause::Absent => Ok(Vec::new()),
        Err(error) => Err(host::unknown(format!("read {path}"), &error)),
    }
}

/// Returns the display manager of a line of SUSE's settings; `None` of another, or where none is set.
fn setting(line: &str) -> Option<String> {
    let value = line.strip_prefix("DISPLAYMANAGER=")?.trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps_open(names: &[&str]) -> Option<(Cause, String)> {
        let why = keeps_gnome_open(&names.iter().map(|name| (*name).to_owned()).collect())?;
        Some((why.cause, why.detail.as_str().to_owned()))
    }

    #[test]
    fn gnome_locks_where_gdm_alone_is_named() {
        assert_eq!(keeps_open(&["gdm"]), None);
        assert_eq!(keeps_open(&["gdm", "gdm3"]), None);
        let of = |name: &str| {
            Some((Cause::Undecidable, format!("GNOME locks by GDM alone, and the display manager is {name}")))
        };
        assert_eq!(keeps_open(&["lightdm"]), of("lightdm"));
        assert_eq!(keeps_open(&["gdm", "null"]), of("null"));
        assert_eq!(keeps_open(&[]).unwrap().0, Cause::Absent);
    }

    #[test]
    fn the_setting_of_suse_names_one_or_none() {
        for (line, expected) in [
            ("DISPLAYMANAGER=\"gdm\"", Some("gdm")),
            ("DISPLAYMANAGER=sddm", Some("sddm")),
            ("DISPLAYMANAGER=\"\"", None),
            ("DISPLAYMANAGER_XSERVER=\"Xorg\"", None),
            ("# DISPLAYMANAGER=x", None),
        ] {
            assert_eq!(setting(line).as_deref(), expected, "{line}");
        }
    }
}
