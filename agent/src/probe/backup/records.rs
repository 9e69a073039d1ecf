//! Records that backup clients keep of backups that ended well.

use std::{ffi::OsString, io, path::Path};

use muster_proto::{
    fact::{Cause, Reading, Unknown},
    time::Timestamp,
};

use crate::host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES};

/// Where duplicity keeps the manifests of root's backups: duplicity(1), `--archive-dir`.
const ARCHIVES: &str = "/root/.cache/duplicity";
/// Sets of backups of duplicity that are looked at, at most.
const SETS: usize = 100;
const RSNAPSHOT: &str = "/etc/rsnapshot.conf";

/// Returns when the newest whole backup of duplicity was begun. Its manifest gets its name when every volume is at its place; before
/// that it ends with `.part`.
pub(super) fn duplicity(host: &dyn Host) -> Reading<Timestamp> {
    match newest_manifest(host) {
        Ok(Some(time)) => Reading::Known(time),
        Ok(None) => Reading::unknown(Cause::Absent, format!("{ARCHIVES} has no manifest of a whole backup")),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

fn newest_manifest(host: &dyn Host) -> Result<Option<Timestamp>, Unknown> {
    let list = |folder: &Path| match host.list(folder) {
        Ok(names) => Ok(names),
        // Beside folders there may be files.
        Err(error) if host::cause(&error) == Cause::Absent => Ok(Vec::new()),
        Err(error) => Err(host::unknown(format!("list {}", folder.display()), &error)),
    };
    let sets: Vec<OsString> = list(Path::new(ARCHIVES))?;
    if sets.len() > SETS {
        return Err(Unknown::new(Cause::Limit, format!("{ARCHIVES} has more than {SETS} sets")));
    }
    let mut newest = None;
    for set in sets {
        for name in list(&Path::new(ARCHIVES).join(set))? {
            newest = newest.max(name.to_str().and_then(manifest_time));
        }
    }
    Ok(newest)
}

/// Returns the time of `duplicity-full.TIME.manifest` or `duplicity-inc.TIME.to.TIME.manifest`, such as `20261126T140056Z`.
fn manifest_time(name: &str) -> Option<Timestamp> {
    let rest = name.strip_suffix(".manifest")?;
    let time = match rest.strip_prefix("duplicity-full.") {
        Some(time) => time,
        None => rest.strip_prefix("duplicity-inc.")?.split_once(".to.")?.1,
    };
    let time = format!("{}+0000", time.strip_suffix('Z')?);
    let time = jiff::fmt::strtime::parse("%Y%m%dT%H%M%S%z", time).ok()?.to_timestamp().ok()?;
    Timestamp::from_seconds(time.as_second())
}

/// Returns when rsnapshot last ended a backup well. It touches the newest copy at the end of a backup whether it went well or not,
/// and its log says which.
pub(super) fn rsnapshot(host: &dyn Host) -> Reading<Timestamp> {
    let read = |path: &str, limit| {
        let bytes = host.read(Path::new(path), limit).map_err(|error| host::unknown(format!("read {path}"), &error))?;
        Ok::<_, Unknown>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let settings = match read(RSNAPSHOT, SMALL_FILE_BYTES) {
        Ok(text) => match Rsnapshot::parse(&text) {
            Some(settings) => settings,
            None => {
                let detail = format!("{RSNAPSHOT} names no snapshot_root, no retain or no logfile");
                return Reading::unknown(Cause::Absent, detail);
            }
        },
        Err(unknown) => return Reading::Unknown { unknown },
    };
    let log = match read(&settings.log, FILE_BYTES) {
        Ok(log) => log,
        Err(unknown) => return Reading::Unknown { unknown },
    };
    match last_end(&log, &settings.level) {
        Some(true) => {}
        Some(false) => {
            let detail =
                format!("{}: the last backup did not end well; of the one before no time is kept", settings.log);
            return Reading::unknown(Cause::Undecidable, detail);
        }
        None => return Reading::unknown(Cause::Absent, format!("{} tells of no end of a backup", settings.log)),
    }
    let newest = format!("{}/{}.0", settings.root, settings.level);
    match host.metadata(Path::new(&newest)) {
        Ok(metadata) => metadata.modified_time(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Reading::unknown(Cause::Absent, format!("{newest} is not there"))
        }
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {newest}"), &error) },
    }
}

/// Settings of rsnapshot(1), which a tab or more separates from their names.
#[derive(Debug, Eq, PartialEq)]
struct Rsnapshot {
    root: String,
    /// The first that is retained: the one that makes backups. Higher ones only rename them.
    level: String,
    log: String,
}

impl Rsnapshot {
    /// Returns `None` where one is not set.
    fn parse(text: &str) -> Option<Self> {
        let lines = text.lines().filter_map(|line| {
            let mut parts = line.split('\t').map(str::trim).filter(|part| !part.is_empty());
            Some((parts.next()?, parts.next()?))
        });
        let value =
            |names: &[&str]| lines.clone().find(|(name, _)| names.contains(name)).map(|(_, value)| value.to_owned());
        Some(Self {
            root: value(&["snapshot_root"])?.trim_end_matches('/').to_owned(),
            level: value(&["retain", "interval"])?,
            log: value(&["logfile"])?,
        })
    }
}

/// Returns whether the last backup of `level` that came to its end ended well. A line is such as
/// `[2026-11-26T14:00:52] /usr/bin/rsnapshot alpha: completed successfully`.
fn last_end(log: &str, level: &str) -> Option<bool> {
    let mut ends = log.lines().filter_map(|line| {
        let (_, line) = line.split_once("] ")?;
        let (command, said) = line.split_once(": ")?;
        let is_of_level = command.split_whitespace().next_back() == Some(level);
        (is_of_level && said.starts_with("completed")).then_some(said == "completed successfully")
    });
    ends.next_back()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_name_of_a_manifest_says_when_its_backup_was_begun() {
        for (name, expected) in [
            ("duplicity-full.20261126T140056Z.manifest", Some("2026-11-26T14:00:56Z")),
            ("duplicity-inc.20261126T140056Z.to.20261127T010203Z.manifest", Some("2026-11-27T01:02:03Z")),
            ("duplicity-full.20261126T140056Z.manifest.part", None),
            ("duplicity-full.20261126T140056Z.vol1.difftar.gz", None),
            ("duplicity-full-signatures.20261126T140056Z.sigtar.gz", None),
            ("duplicity-full.2026.manifest", None),
            ("duplicity-inc.20261126T140056Z.manifest", None),
            (".manifest", None),
        ] {
            assert_eq!(manifest_time(name), expected.map(|time| time.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn only_the_level_that_makes_backups_says_whether_they_end_well() {
        let line = |level: &str, said: &str| format!("[2026-11-26T14:00:52] /usr/bin/rsnapshot {level}: {said}\n");
        let good = line("alpha", "completed successfully");
        for (log, expected) in [
            (good.clone(), Some(true)),
            (good.clone() + &line("beta", "ERROR: x"), Some(true)),
            (good.clone() + &line("alpha", "completed, but with some errors"), Some(false)),
            (good.clone() + &line("alpha", "completed, but with some warnings"), Some(false)),
            (good.clone() + &line("alpha", "ERROR: Errors were found") + &line("alpha", "started"), Some(true)),
            (line("beta", "completed successfully"), None),
            ("[x] /usr/bin/rsnapshot -c /etc/a.conf alpha: completed successfully".to_owned(), Some(true)),
            ("[x] rm: completed successfully".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(last_end(&log, "alpha"), expected, "{log}");
        }
    }

    #[test]
    fn the_first_level_is_the_one_that_makes_backups() {
        let text =
            "#logfile\t/x\nsnapshot_root\t/srv/s/\nretain\t\talpha\t6\nretain\tbeta\t7\nlogfile\t/var/log/r.log\n";
        let expected = Rsnapshot { root: "/srv/s".into(), level: "alpha".into(), log: "/var/log/r.log".into() };
        assert_eq!(Rsnapshot::parse(text), Some(expected));
        assert_eq!(Rsnapshot::parse("snapshot_root\t/srv/s/\nretain\talpha\t6\n"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), level in any::<String>()) {
            let _ = manifest_time(&text);
            let _ = last_end(&text, &level);
            let _ = Rsnapshot::parse(&text);
        }
    }
}
