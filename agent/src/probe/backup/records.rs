//! Records that backup clients keep of backups that ended well.

use std::{
    ffi::OsString,
    io::{self, Read as _},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use jiff::{civil::DateTime, tz::TimeZone};
use muster_proto::{
    fact::{Cause, Reading, Unknown},
    time::Timestamp,
};

use crate::host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES};

/// Where duplicity keeps the manifests of root's backups: duplicity(1), `--archive-dir`.
const ARCHIVES: &str = "/root/.cache/duplicity";
/// Sets of backups of duplicity that are looked at, at most.
const SETS: usize = 100;
/// Manifests whose host is looked for, at most.
const MANIFESTS: usize = 1_000;
/// Bytes of a manifest in which its first line ends.
const MANIFEST_BYTES: usize = 512;
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
const RSNAPSHOT: &str = "/etc/rsnapshot.conf";
const LOCALTIME: &str = "/etc/localtime";

/// Returns when the newest whole backup of duplicity was begun. Its manifest gets its name when every volume is at its place; before
/// that it ends with `.part`. Whoever looks at the backups of another host gets their manifests, which name that host.
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
    let mut manifests = Vec::new();
    for set in sets {
        let folder = Path::new(ARCHIVES).join(set);
        for name in list(&folder)? {
            manifests.extend(name.to_str().and_then(manifest_time).map(|time| (time, folder.join(&name))));
        }
    }
    manifests.sort_unstable();
    let Some((_, last)) = manifests.last() else { return Ok(None) };
    let own = hostname(host)?;
    let foreign = format!("{}: a backup of another host, or one that does not say of which", last.display());
    for (time, path) in manifests.iter().rev().take(MANIFESTS) {
        let start = host.read_start(path, MANIFEST_BYTES);
        let start = start.map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
        if manifest_host(&start).is_some_and(|name| is_same_host(name, &own)) {
            return Ok(Some(*time));
        }
    }
    Err(Unknown::new(Cause::Undecidable, foreign))
}

fn hostname(host: &dyn Host) -> Result<String, Unknown> {
    let bytes = host.read(Path::new(HOSTNAME), SMALL_FILE_BYTES);
    let bytes = bytes.map_err(|error| host::unknown(format!("read {HOSTNAME}"), &error))?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Returns the host that a manifest is of: its first line is such as `Hostname web1.example.com`.
fn manifest_host(start: &[u8]) -> Option<&str> {
    let line = start.split(|&byte| byte == b'\n').next()?;
    std::str::from_utf8(line).ok()?.strip_prefix("Hostname ").map(|name| name.trim().trim_matches('"'))
}

/// Returns whether two names are of one host. Of a name with its domain and one without, the first part counts.
fn is_same_host(name: &str, other: &str) -> bool {
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_short = !name.contains('.') || !other.contains('.');
    !name.is_empty() && (name.eq_ignore_ascii_case(other) || is_short && first(name) == first(other))
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

/// Returns when rsnapshot last ended a backup well, by its log. What lies at the backup's place does not say it: each run makes a
/// folder or touches one, however it ends.
pub(super) fn rsnapshot(host: &dyn Host) -> Reading<Timestamp> {
    last_success(host).unwrap_or_else(|unknown| Reading::Unknown { unknown })
}

fn last_success(host: &dyn Host) -> Result<Reading<Timestamp>, Unknown> {
    let read = |path: &str, limit| {
        let bytes = host.read(Path::new(path), limit).map_err(|error| host::unknown(format!("read {path}"), &error))?;
        Ok::<_, Unknown>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let Some(settings) = Rsnapshot::parse(&read(RSNAPSHOT, SMALL_FILE_BYTES)?) else {
        let detail = format!("{RSNAPSHOT} names no snapshot_root, no retain or no logfile");
        return Ok(Reading::unknown(Cause::Absent, detail));
    };
    if let Some(elsewhere) = &settings.elsewhere {
        let detail = format!("{RSNAPSHOT} takes settings from {elsewhere}, which this build does not follow");
        return Ok(Reading::unknown(Cause::Undecidable, detail));
    }
    let mut path = settings.log.clone();
    let mut log = read(&path, FILE_BYTES)?;
    if last_end(&log, settings.command()).is_none()
        && let Some(rotated) = rotated(host, &path)?
    {
        (path, log) = rotated;
    }
    let at = match last_end(&log, settings.command()) {
        Some(End { is_well: true, at }) => at,
        Some(End { is_well: false, .. }) => {
            let detail = format!("{path}: the last backup ended with warnings, which may be of what it left out");
            return Ok(Reading::unknown(Cause::Undecidable, detail));
        }
        None => return Ok(Reading::unknown(Cause::Absent, format!("{path} tells of no end of a backup"))),
    };
    is_kept(host, &settings)?;
    let Some(time) = log_time(at, &zone(host)?) else {
        return Ok(Reading::unknown(Cause::Garbled, format!("{path} has a time that cannot be read")));
    };
    let written =
        host.metadata(Path::new(&path)).map_err(|error| host::unknown(format!("look at {path}"), &error))?.modified;
    // A job may have another time zone than the host. One that makes the backup younger than its log is not believed.
    if written.is_none_or(|written| time > written) {
        let detail = format!("{path} has a later time than that of its last change");
        return Ok(Reading::unknown(Cause::Undecidable, detail));
    }
    Ok(Reading::Known(time))
}

/// Returns the log that was begun before the one at `path`, which logrotate(8) renamed and may have packed.
fn rotated(host: &dyn Host, path: &str) -> Result<Option<(String, String)>, Unknown> {
    for ending in [".1", ".1.gz"] {
        let path = format!("{path}{ending}");
        let unknown = |error: &io::Error| host::unknown(format!("read {path}"), error);
        let bytes = match host.read(Path::new(&path), FILE_BYTES) {
            Ok(bytes) if ending == ".1.gz" => unpack(&bytes).map_err(|error| unknown(&error))?,
            Ok(bytes) => bytes,
            Err(error) if host::cause(&error) == Cause::Absent => continue,
            Err(error) => return Err(unknown(&error)),
        };
        return Ok(Some((path, String::from_utf8_lossy(&bytes).into_owned())));
    }
    Ok(None)
}

fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(bytes).take(FILE_BYTES as u64 + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() > FILE_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(unpacked) }
}

/// Checks that the newest copy is there.
fn is_kept(host: &dyn Host, settings: &Rsnapshot) -> Result<(), Unknown> {
    let newest = format!("{}/{}.0", settings.root, settings.level);
    let staged = settings.syncs_first.then(|| format!("{}/.sync", settings.root));
    let mut missing = None;
    for place in staged.into_iter().chain([newest]) {
        match host.metadata(Path::new(&place)) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing = Some(Unknown::new(Cause::Absent, format!("{place} is not there")));
            }
            Err(error) => return Err(host::unknown(format!("look at {place}"), &error)),
        }
    }
    missing.map_or(Ok(()), Err)
}

/// Returns the host's time zone. tzset(3): without the file it is UTC.
fn zone(host: &dyn Host) -> Result<TimeZone, Unknown> {
    match host.read(Path::new(LOCALTIME), SMALL_FILE_BYTES) {
        Ok(bytes) => TimeZone::tzif("localtime", &bytes)
            .map_err(|_| Unknown::new(Cause::Garbled, format!("{LOCALTIME} is no time zone"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(TimeZone::UTC),
        Err(error) => Err(host::unknown(format!("read {LOCALTIME}"), &error)),
    }
}

/// Settings of rsnapshot(1), which a tab or more separates from their names.
#[derive(Debug, Eq, PartialEq)]
struct Rsnapshot {
    root: String,
    /// The first that is retained: the one that makes backups. Higher ones only rename them.
    level: String,
    log: String,
    /// Whether `rsnapshot sync` makes the backups, and the first level only renames them too.
    syncs_first: bool,
    /// Settings that are taken in from elsewhere.
    elsewhere: Option<String>,
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
        let sync_first = lines.clone().rfind(|(name, _)| *name == "sync_first");
        Some(Self {
            root: value(&["snapshot_root"])?.trim_end_matches('/').to_owned(),
            level: value(&["retain", "interval"])?,
            log: value(&["logfile"])?,
            syncs_first: sync_first.is_some_and(|(_, value)| value == "1"),
            elsewhere: value(&["include_conf"]),
        })
    }

    /// Returns the command that makes backups.
    fn command(&self) -> &str {
        if self.syncs_first { "sync" } else { &self.level }
    }
}

/// How a backup ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct End<'a> {
    /// Without warnings.
    is_well: bool,
    /// What the log says of the time.
    at: &'a str,
}

/// Returns how the last backup by `command` ended that made no error. A line is such as
/// `[2026-11-26T14:00:52] /usr/bin/rsnapshot alpha: completed successfully` or
/// `[2026-11-26T14:00:52] WARNING: /usr/bin/rsnapshot alpha: completed, but with some warnings`.
fn last_end<'a>(log: &'a str, command: &str) -> Option<End<'a>> {
    let mut ends = log.lines().filter_map(|line| {
        let (at, line) = line.strip_prefix('[')?.split_once("] ")?;
        let (is_well, line) = line.strip_prefix("WARNING: ").map_or((true, line), |line| (false, line));
        let (run, said) = line.split_once(": ")?;
        let mut words = run.split_whitespace().rev();
        // What follows `sync` is the one place of several that is backed up.
        let is_of_command = words.next() == Some(command) && words.next() != Some("sync");
        let end = if is_well { "completed successfully" } else { "completed, but with some warnings" };
        (is_of_command && said == end).then_some(End { is_well, at })
    });
    ends.next_back()
}

/// Returns the time of a line of the log: local, as rsnapshot writes it, in either of its forms, or with an offset of its own. An
/// hour that the clock went through twice is taken for the first.
fn log_time(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let with_offset =
        text.parse::<jiff::Timestamp>().or_else(|_| jiff::Timestamp::strptime("%Y-%m-%dT%H:%M:%S%z", text));
    let time = match with_offset {
        Ok(time) => time,
        Err(_) => {
            let local = ["%Y-%m-%dT%H:%M:%S", "%d/%b/%Y:%H:%M:%S"]
                .into_iter()
                .find_map(|form| DateTime::strptime(form, text).ok())?;
            zone.to_ambiguous_timestamp(local).earlier().ok()?
        }
    };
    Timestamp::from_seconds(time.as_second())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use muster_proto::fact::PathText;
    use proptest::prelude::*;

    use super::*;
    use crate::host::{Metadata, Recorded, recorded::Failure};

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
        let warned = "[x] WARNING: /usr/bin/rsnapshot alpha: completed, but with some warnings\n";
        for (log, expected) in [
            (good.clone(), Some(true)),
            (good.clone() + &line("beta", "ERROR: x"), Some(true)),
            (good.clone() + warned, Some(false)),
            (warned.to_owned() + &good, Some(true)),
            // That one is no success, and takes none away from the one before.
            (
                good.clone() + &line("alpha", "ERROR: /usr/bin/rsnapshot alpha: completed, but with some errors"),
                Some(true),
            ),
            (line("alpha", "ERROR: /usr/bin/rsnapshot alpha: completed, but with some errors"), None),
            (good.clone() + &line("alpha", "ERROR: Errors were found") + &line("alpha", "started"), Some(true)),
            (line("beta", "completed successfully"), None),
            ("[x] /usr/bin/rsnapshot -c /etc/a.conf alpha: completed successfully".to_owned(), Some(true)),
            ("[x] /usr/bin/rsnapshot sync alpha: completed successfully".to_owned(), None),
            ("[x] rm: completed successfully".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(last_end(&log, "alpha").map(|end| end.is_well), expected, "{log}");
        }
    }

    #[test]
    fn the_first_level_is_the_one_that_makes_backups() {
        let text =
            "#logfile\t/x\nsnapshot_root\t/srv/s/\nretain\t\talpha\t6\nretain\tbeta\t7\nlogfile\t/var/log/r.log\n";
        let expected = Rsnapshot {
            root: "/srv/s".into(),
            level: "alpha".into(),
            log: "/var/log/r.log".into(),
            syncs_first: false,
            elsewhere: None,
        };
        assert_eq!(Rsnapshot::parse(text).as_ref(), Some(&expected));
        assert_eq!(expected.command(), "alpha");
        let syncs = Rsnapshot::parse(&format!("{text}sync_first\t1\ninclude_conf\t/etc/x.conf\n")).unwrap();
        assert_eq!((syncs.command(), syncs.elsewhere.as_deref()), ("sync", Some("/etc/x.conf")));
        assert_eq!(Rsnapshot::parse("snapshot_root\t/srv/s/\nretain\talpha\t6\n"), None);
    }

    #[test]
    fn a_line_of_the_log_has_the_time_of_its_own_zone() {
        // Central European time, as a rule alone: summer time from the end of March to the end of October.
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (text, expected) in [
            ("2026-11-26T14:00:52", Some("2026-11-26T13:00:52Z")),
            ("2026-07-26T14:00:52", Some("2026-07-26T12:00:52Z")),
            ("26/Nov/2026:14:00:52", Some("2026-11-26T13:00:52Z")),
            ("2026-11-26T14:00:52+0500", Some("2026-11-26T09:00:52Z")),
            ("2026-11-26T14:00:52-05:00", Some("2026-11-26T19:00:52Z")),
            ("2026-11-26T14:00:52Z", Some("2026-11-26T14:00:52Z")),
            // An hour that was there twice.
            ("2026-10-25T02:30:00", Some("2026-10-25T00:30:00Z")),
            ("2026-11-26", None),
            ("x", None),
        ] {
            assert_eq!(log_time(text, &berlin), expected.map(|time| time.parse().unwrap()), "{text}");
        }
    }

    /// The captured host, with these settings added and this log, changed last at the end of 2026-11-26.
    fn last_success_with(settings: &str, log: &str) -> Result<Timestamp, Cause> {
        last_success_of(settings, log, [None, None])
    }

    /// The same, with what `log.1` and, packed, `log.1.gz` hold.
    fn last_success_of(settings: &str, log: &str, rotated: [Option<&str>; 2]) -> Result<Timestamp, Cause> {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/backup/debian-13-rsnapshot");
        let folder = tempfile::tempdir().unwrap();
        let mut host = Recorded::at(&case).unwrap();
        let index = host.index_mut();
        let any = *index.metadata.values().next().unwrap();
        let log_entry = Metadata { modified: Some("2026-11-26T23:59:59Z".parse().unwrap()), ..any };
        index.metadata.insert(PathText::from_bytes(b"/var/log/rsnapshot.log"), log_entry);
        let absent: Failure = serde_json::from_value(serde_json::json!({ "errno": 2 })).unwrap();
        let pack = |text: &str| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packed.write_all(text.as_bytes()).unwrap();
            packed.finish().unwrap()
        };
        let base = fs::read_to_string(case.join("files/etc/rsnapshot.conf")).unwrap();
        let mut files = vec![
            ("etc/rsnapshot.conf", (base + settings).into_bytes()),
            ("var/log/rsnapshot.log", log.as_bytes().to_vec()),
        ];
        for (path, content) in [
            ("var/log/rsnapshot.log.1", rotated[0].map(|text| text.as_bytes().to_vec())),
            ("var/log/rsnapshot.log.1.gz", rotated[1].map(pack)),
        ] {
            index.metadata.insert(PathText::from_bytes(format!("/{path}").as_bytes()), log_entry);
            match content {
                Some(content) => files.push((path, content)),
                None => drop(index.errors.insert(format!("read /{path}"), absent.clone())),
            }
        }
        index.errors.insert(format!("read {LOCALTIME}"), absent.clone());
        index.errors.insert("metadata /var/cache/rsnapshot/.sync".to_owned(), absent);
        for (path, content) in files {
            let place = folder.path().join("files").join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, content).unwrap();
        }
        fs::write(folder.path().join("index.json"), serde_json::to_vec(host.index_mut()).unwrap()).unwrap();
        match rsnapshot(&Recorded::at(folder.path()).unwrap()) {
            Reading::Known(time) => Ok(time),
            Reading::Unknown { unknown } => Err(unknown.cause),
        }
    }

    #[test]
    fn an_attempt_is_no_success() {
        let line = |at: &str, run: &str| format!("[2026-11-{at}] /usr/bin/rsnapshot {run}\n");
        let time = |text: &str| Ok(text.parse().unwrap());
        let good = line("16T01:00:00", "alpha: completed successfully");
        // The next one was killed.
        let killed = good.clone() + &line("26T01:00:00", "alpha: started");
        assert_eq!(last_success_with("link_dest\t1\n", &killed), time("2026-11-16T01:00:00Z"));
        // What is renamed alone is no backup.
        let rotated = line("26T01:00:00", "sync: ERROR: /usr/bin/rsync returned 12 while processing /etc/")
            + &line("26T01:00:01", "sync: ERROR: /usr/bin/rsnapshot sync: completed, but with some errors")
            + &line("26T02:00:00", "alpha: completed successfully");
        assert_eq!(last_success_with("sync_first\t1\n", &rotated), Err(Cause::Absent));
        let warned = good.clone()
            + "[2026-11-26T01:00:00] WARNING: /usr/bin/rsnapshot alpha: completed, but with some warnings\n";
        assert_eq!(last_success_with("", &warned), Err(Cause::Undecidable));
        let only_rotated = line("26T02:00:00", "alpha: completed successfully");
        assert_eq!(last_success_with("sync_first\t1\n", &only_rotated), Err(Cause::Absent));
        let synced = line("25T01:00:01", "sync: completed successfully") + &only_rotated;
        assert_eq!(last_success_with("sync_first\t1\n", &synced), time("2026-11-25T01:00:01Z"));
        let part = line("25T01:00:01", "sync localhost/: completed successfully") + &only_rotated;
        assert_eq!(last_success_with("sync_first\t1\n", &part), Err(Cause::Absent));
        // Of another time zone than the host's: later than the log itself.
        let ahead = line("27T09:00:00", "alpha: completed successfully");
        assert_eq!(last_success_with("", &ahead), Err(Cause::Undecidable));
        assert_eq!(last_success_with("include_conf\t/etc/x.conf\n", &good), Err(Cause::Undecidable));
    }

    #[test]
    fn a_log_that_was_rotated_still_tells_of_the_last_backup() {
        let good = "[2026-11-16T01:00:00] /usr/bin/rsnapshot alpha: completed successfully\n";
        let newer = "[2026-11-26T01:00:00] /usr/bin/rsnapshot alpha: completed successfully\n";
        let failed = "[2026-11-26T01:00:00] /usr/bin/rsnapshot alpha: ERROR: no space\n";
        let warned = "[2026-11-26T01:00:00] WARNING: /usr/bin/rsnapshot alpha: completed, but with some warnings\n";
        let time = |text: &str| Ok(text.parse().unwrap());
        for (log, rotated, expected) in [
            ("", [Some(good), None], time("2026-11-16T01:00:00Z")),
            ("", [None, Some(good)], time("2026-11-16T01:00:00Z")),
            ("", [Some(newer), Some(good)], time("2026-11-26T01:00:00Z")),
            (failed, [Some(good), None], time("2026-11-16T01:00:00Z")),
            (newer, [Some(good), None], time("2026-11-26T01:00:00Z")),
            (warned, [Some(good), None], Err(Cause::Undecidable)),
            ("", [Some(warned), Some(good)], Err(Cause::Undecidable)),
            ("", [None, Some(failed)], Err(Cause::Absent)),
            ("", [None, None], Err(Cause::Absent)),
        ] {
            assert_eq!(last_success_of("", log, rotated), expected, "{log}{rotated:?}");
        }
    }

    #[test]
    fn a_packed_log_that_is_cut_or_too_large_is_not_read() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&vec![b'x'; FILE_BYTES + 1]).unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(unpack(&packed).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(unpack(&packed[..packed.len() / 2]).is_err());
    }

    /// The captured host of this name, with these first lines of its manifest of 14:00:56 and that of 14:00:59.
    fn newest_of(name: &str, first: &str, second: &str) -> Result<Option<Timestamp>, Cause> {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/backup/debian-11-duplicity");
        let set = "root/.cache/duplicity/8356406298d158b94a68ec4c715d3874";
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("proc/sys/kernel/hostname".to_owned(), name),
            (format!("{set}/duplicity-full.20261126T140056Z.manifest"), first),
            (format!("{set}/duplicity-inc.20261126T140056Z.to.20261126T140059Z.manifest"), second),
        ] {
            let place = folder.path().join("files").join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, content).unwrap();
        }
        fs::copy(case.join("index.json"), folder.path().join("index.json")).unwrap();
        newest_manifest(&Recorded::at(folder.path()).unwrap()).map_err(|unknown| unknown.cause)
    }

    #[test]
    fn a_manifest_of_another_host_is_no_backup_of_this_one() {
        let time = |text: &str| Ok(Some(text.parse().unwrap()));
        let (own, other) = ("Hostname web1\nLocaldir /srv\n", "Hostname web2\nLocaldir /srv\n");
        for (first, second, expected) in [
            (own, own, time("2026-11-26T14:00:59Z")),
            (own, other, time("2026-11-26T14:00:56Z")),
            (other, other, Err(Cause::Undecidable)),
            ("", "Localdir /srv\n", Err(Cause::Undecidable)),
        ] {
            assert_eq!(newest_of("web1\n", first, second), expected, "{first}{second}");
        }
        assert!(is_same_host("web1.example.com", "web1") && is_same_host("WEB1", "web1.example.com"));
        assert!(
            !is_same_host("web1.example.com", "web1.example.org") && !is_same_host("", "") && !is_same_host("a", "b")
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), level in any::<String>()) {
            let _ = manifest_time(&text);
            let _ = unpack(text.as_bytes());
            let _ = manifest_host(text.as_bytes()).map(|name| is_same_host(name, &level));
            let _ = last_end(&text, &level);
            let _ = log_time(&text, &TimeZone::UTC);
            let _ = Rsnapshot::parse(&text);
        }
    }
}
