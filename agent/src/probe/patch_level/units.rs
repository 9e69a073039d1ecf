//! Whether systemd starts units with the system, and as their packages deliver them.
//!
//! What a host may have in place of a unit or beside it (systemd.unit(5)) is looked for, and not followed.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use muster_proto::fact::{Cause, Reading, Unknown};

use crate::host::{self, EntryKind, Host, SMALL_FILE_BYTES};

/// Folders of units that go before that of packages: what is in the first of them holds.
pub(super) const OWN: [&str; 5] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
];
/// The folder of packages.
const DELIVERED: &str = "/usr/lib/systemd/system";
/// Where links are that have timers started with the system: those that `systemctl enable` makes, and those that come with a
/// distribution.
pub(super) const WANTED: [&str; 2] =
    ["/etc/systemd/system/timers.target.wants", "/usr/lib/systemd/system/timers.target.wants"];
/// What has those timers started.
pub(super) const TIMERS: &str = "timers.target";

/// What the folders that go before that of packages have for a unit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Unit {
    /// Nothing.
    Usual,
    /// A link to `/dev/null`, or an empty file (systemctl(1)).
    Masked,
    /// Another one, at this place.
    Own(PathBuf),
}

/// Returns what is in the first of the folders of a host's own units where something of this name is.
pub(super) fn unit(host: &dyn Host, name: &str) -> Result<Unit, Unknown> {
    for place in OWN.map(|folder| Path::new(folder).join(name)) {
        let unknown = |error: &io::Error| host::unknown(format!("look at {}", place.display()), error);
        let is_masked = match host.read_link(&place) {
            Ok(target) => target == Path::new("/dev/null"),
            Err(error) if host::cause(&error) == Cause::Absent => continue,
            // EINVAL: it is no link.
            Err(error) if error.raw_os_error() == Some(22) => {
                let file = host.metadata(&place).map_err(|error| unknown(&error))?;
                file.kind == EntryKind::File && file.size_bytes == 0
            }
            Err(error) => return Err(unknown(&error)),
        };
        return Ok(if is_masked { Unit::Masked } else { Unit::Own(place) });
    }
    Ok(Unit::Usual)
}

/// Returns whether a timer starts with the system.
pub(super) fn is_wanted(host: &dyn Host, timer: &str) -> Reading<bool> {
    for wanted in WANTED.map(|folder| Path::new(folder).join(timer)) {
        match host.read_link(&wanted) {
            Ok(_) => return Reading::Known(true),
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => {
                return Reading::Unknown { unknown: host::unknown(format!("look at {}", wanted.display()), &error) };
            }
        }
    }
    Reading::Known(false)
}

/// Returns a file beside the units of these names that changes what they do, if there is one.
pub(super) fn changed(host: &dyn Host, names: &[&str]) -> Result<Option<PathBuf>, Unknown> {
    let beside: BTreeSet<String> = names.iter().flat_map(|name| beside(name)).collect();
    for folder in OWN.iter().chain([&DELIVERED]).map(Path::new) {
        for own in list(host, folder)?.iter().filter(|own| beside.contains(*own)) {
            let folder = folder.join(own);
            for name in list(host, &folder)?.iter().filter(|name| name.ends_with(".conf")) {
                let path = folder.join(name);
                let bytes = host.read(&path, SMALL_FILE_BYTES);
                let bytes = bytes.map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
                if !is_harmless(&String::from_utf8_lossy(&bytes)) {
                    return Ok(Some(path));
                }
            }
        }
    }
    Ok(None)
}

/// Returns whether all of `readings` are so; one that is not decides, whatever the others are.
pub(super) fn all(readings: impl IntoIterator<Item = Reading<bool>>) -> Reading<bool> {
    let is_so = |reading: &Reading<bool>| *reading == Reading::Known(true);
    let rank = |reading: &Reading<bool>| *reading != Reading::Known(false);
    let others = readings.into_iter().filter(|reading| !is_so(reading));
    others.min_by_key(rank).unwrap_or(Reading::Known(true))
}

/// Returns whether any of `readings` is so; one that is decides, whatever the others are.
pub(super) fn any(readings: impl IntoIterator<Item = Reading<bool>>) -> Reading<bool> {
    let is_not = |reading: &Reading<bool>| *reading == Reading::Known(false);
    let rank = |reading: &Reading<bool>| *reading != Reading::Known(true);
    let others = readings.into_iter().filter(|reading| !is_not(reading));
    others.min_by_key(rank).unwrap_or(Reading::Known(false))
}

/// Returns the names in a folder; none where it is not there.
fn list(host: &dyn Host, folder: &Path) -> Result<Vec<String>, Unknown> {
    match host.list(folder) {
        Ok(names) => Ok(names.iter().map(|name| name.to_string_lossy().into_owned()).collect()),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(Vec::new()),
        Err(error) => Err(host::unknown(format!("list {}", folder.display()), &error)),
    }
}

/// Returns the folders whose files change a unit: for `a-b.timer` these are `a-b.timer.d`, `a-.timer.d` and `timer.d`.
fn beside(name: &str) -> Vec<String> {
    let (stem, kind) = name.rsplit_once('.').unwrap_or(("", name));
    let starts = stem.match_indices('-').map(|(at, _)| format!("{}-.{kind}.d", &stem[..at]));
    starts.chain([format!("{name}.d"), format!("{kind}.d")]).collect()
}

/// Returns whether a file says nothing by which a unit starts less often or does less: it lifts restrictions alone, as what LXC puts
/// beside all services does, or tells how a service that hangs is ended, as Fedora's.
fn is_harmless(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    lines.all(|line| {
        let Some((key, value)) = line.split_once('=') else { return line == "[Service]" };
        match (key.trim(), value.trim()) {
            ("TimeoutStopFailureMode", _) | ("ProcSubset", "all") => true,
            ("LoadCredential" | "ImportCredential" | "ReadWritePaths", value) => value.is_empty(),
            ("NoNewPrivileges", value) => value == "no",
            (key, value) => {
                (key.starts_with("Protect") || key.starts_with("Private")) && matches!(value, "no" | "default")
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_beside_a_unit_are_in_the_folders_of_its_name_its_starts_and_its_kind() {
        let expected = ["a-.timer.d", "a-b-.timer.d", "a-b-c.timer.d", "timer.d"];
        assert_eq!(beside("a-b-c.timer"), expected);
        assert_eq!(beside("a.service"), ["a.service.d", "service.d"]);
    }

    #[test]
    fn what_only_lifts_restrictions_is_harmless() {
        for (text, expected) in [
            ("", true),
            ("# c\n[Service]\nProcSubset=all\nProtectProc=default\nNoNewPrivileges=no\nLoadCredential=\n", true),
            ("[Service]\nTimeoutStopFailureMode=abort\n", true),
            ("[Service]\nExecCondition=/bin/false\n", false),
            ("[Service]\nPrivateNetwork=yes\n", false),
            ("[Service]\nProtectSystem=strict\n", false),
            ("[Service]\nNoNewPrivileges=no\\\n", false),
            ("[Unit]\n", false),
            ("[Timer]\nOnCalendar=\n", false),
        ] {
            assert_eq!(is_harmless(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*\n\\PC*", name in "[a-z.-]{0,12}|\\PC{0,5}") {
            let _ = (is_harmless(&text), beside(&name));
        }
    }
}
