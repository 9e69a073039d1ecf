//! What the host keeps of its own log.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{Cause, JournalStorage, Reading, Unknown},
    time::Timestamp,
};

use super::{
    super::processes::{self, Process},
    units,
};
use crate::host::{self, Host, SMALL_FILE_BYTES};

const PERSISTENT: &str = "/var/log/journal";
/// The file of the journal that is written.
const ACTIVE: &str = "system.journal";
const LOGS: &str = "/var/log";
/// Files that syslog daemons write sign-ins and all else to; some write both to the latter.
const SIGN_INS: [&str; 2] = ["auth.log", "secure"];
const ALL_ELSE: [&str; 2] = ["messages", "syslog"];
/// Seconds within which a log is written, if it is written at all: a day, and two hours for what runs once a day.
const LIVE_SECONDS: u64 = 26 * 3_600;
/// Seconds between two files that were put aside, at most, where it does not show how far they usually lie apart: a month, and some
/// days.
const MONTH_SECONDS: i64 = 35 * 86_400;
/// Seconds between them that are never too many.
const QUIET_SECONDS: i64 = 4 * 86_400;
/// Ends of the names of files that were compressed when they were put aside.
const COMPRESSED: [&str; 5] = [".bz2", ".gz", ".lz4", ".xz", ".zst"];
const SIGNATURE: &[u8] = b"LPKSHHRH";
/// Offset of `head_entry_realtime` in a journal file ("Journal File Format" of systemd), microseconds since 1970, little-endian.
const HEAD_TIME: usize = 184;
/// Bytes of a header up to there.
const HEADER_BYTES: usize = HEAD_TIME + 8;

/// Returns where the journal is kept: by the setting in force, and by the file that is there.
pub(super) fn storage(host: &dyn Host, processes: &Result<Vec<Process>, Unknown>) -> Reading<JournalStorage> {
    let programs = ["/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald"].map(str::to_owned);
    match processes::running(host, processes, &programs, &["systemd-journald.service".to_owned()]).0 {
        Reading::Known(true) => {}
        Reading::Known(false) => return Reading::Known(JournalStorage::None),
        Reading::Unknown { unknown } => return Reading::Unknown { unknown },
    }
    let setting = match units::setting(host, "journald.conf", "Journal", "Storage") {
        Ok(setting) => setting,
        Err(unknown) => return Reading::Unknown { unknown },
    };
    // journald.conf(5): unset is auto, which is persistent exactly where the folder is there.
    match setting.as_deref() {
        Some("none") => return Reading::Known(JournalStorage::None),
        Some("volatile") => return Reading::Known(JournalStorage::Volatile),
        None | Some("auto" | "persistent") => {}
        Some(other) => return Reading::unknown(Cause::Garbled, format!("journald.conf has Storage={other}")),
    }
    let found = folder(host).and_then(|folder| match folder {
        Some(folder) => is_there(host, &folder.join(ACTIVE)),
        None => Ok(false),
    });
    match (found, setting.as_deref()) {
        (Ok(true), _) => Reading::Known(JournalStorage::Persistent),
        (Ok(false), Some("persistent")) => Reading::unknown(
            Cause::Undecidable,
            format!("Storage=persistent, and {PERSISTENT} has no journal of this machine"),
        ),
        (Ok(false), _) => Reading::Known(JournalStorage::Volatile),
        (Err(unknown), _) => Reading::Unknown { unknown },
    }
}

/// Returns an instant of which, or from before which, entries are still kept on the disk, in a log that is still written.
pub(super) fn kept_since(host: &dyn Host, now: Timestamp) -> Reading<Timestamp> {
    let logs = oldest_journal(host, now).and_then(|journal| Ok((journal, oldest_syslog(host, now)?)));
    match logs {
        Ok((Log::Live(a), Log::Live(b))) => Reading::Known(a.min(b)),
        Ok((Log::Live(time), Log::None | Log::Dead) | (Log::None | Log::Dead, Log::Live(time))) => Reading::Known(time),
        Ok((Log::None, Log::None)) => {
            Reading::unknown(Cause::Absent, format!("{PERSISTENT} and {LOGS} have no log with entries"))
        }
        Ok((Log::Dead, Log::None | Log::Dead) | (Log::None, Log::Dead)) => Reading::unknown(
            Cause::Absent,
            format!(
                "{PERSISTENT} and {LOGS} have no log that was written within {LIVE_SECONDS} s: what is there is left over"
            ),
        ),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

/// A log, or a kind of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Log {
    /// It has no entries.
    None,
    /// It has entries, and nothing writes it any more.
    Dead,
    /// It is still written, and has entries of this time or before.
    Live(Timestamp),
}

impl Log {
    fn new(oldest: Option<Timestamp>, is_live: bool) -> Self {
        match oldest {
            None => Self::None,
            Some(_) if !is_live => Self::Dead,
            Some(time) => Self::Live(time),
        }
    }
}

/// Returns whether a log that was last written at `modified` is still written. A log may be quiet for hours, and hardly for a day.
pub(super) fn is_live(modified: Option<Timestamp>, now: Timestamp) -> bool {
    modified.is_some_and(|modified| now.seconds().abs_diff(modified.seconds()) <= LIVE_SECONDS)
}

fn is_there(host: &dyn Host, path: &Path) -> Result<bool, Unknown> {
    match host.metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(false),
        Err(error) => Err(host::unknown(format!("look at {}", path.display()), &error)),
    }
}

/// Returns the folder of this machine's persistent journal.
fn folder(host: &dyn Host) -> Result<Option<PathBuf>, Unknown> {
    if !is_there(host, Path::new(PERSISTENT))? {
        return Ok(None);
    }
    let id = host
        .read(Path::new("/etc/machine-id"), SMALL_FILE_BYTES)
        .map_err(|error| host::unknown("read /etc/machine-id", &error))?;
    let id = String::from_utf8_lossy(&id).trim().to_owned();
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Unknown::new(Cause::Garbled, "/etc/machine-id is not 32 hex digits"));
    }
    let folder = Path::new(PERSISTENT).join(id);
    Ok(is_there(host, &folder)?.then_some(folder))
}

fn oldest_journal(host: &dyn Host, now: Timestamp) -> Result<Log, Unknown> {
    let Some(folder) = folder(host)? else { return Ok(Log::None) };
    let names = host.list(&folder).map_err(|error| host::unknown(format!("list {}", folder.display()), &error))?;
    let (mut oldest, mut is_written) = (None, false);
    for name in names.iter().filter_map(|name| name.to_str()) {
        let time = if name == ACTIVE {
            let path = folder.join(name);
            let header = host
                .read_start(&path, HEADER_BYTES)
                .map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
            let metadata =
                host.metadata(&path).map_err(|error| host::unknown(format!("look at {}", path.display()), &error))?;
            is_written = is_live(metadata.modified, now);
            head_time(&header)
        } else {
            archive_time(name)
        };
        oldest = earlier(oldest, time);
    }
    Ok(Log::new(oldest, is_written))
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (time, None) | (None, time) => time,
    }
}

/// Returns the time of the first entry of a journal; `None` when it has none or is no journal.
fn head_time(header: &[u8]) -> Option<Timestamp> {
    if !header.starts_with(SIGNATURE) {
        return None;
    }
    let micros = u64::from_le_bytes(header.get(HEAD_TIME..HEADER_BYTES)?.try_into().ok()?);
    if micros == 0 { None } else { Timestamp::from_micros(i64::try_from(micros).ok()?) }
}

/// Returns the time of the first entry of a file that was put aside: `system@FILE-SEQUENCE-TIME.journal`, the last two in hex.
fn archive_time(name: &str) -> Option<Timestamp> {
    let (_, time) = name.strip_prefix("system@")?.strip_suffix(".journal")?.rsplit_once('-')?;
    if time.len() != 16 {
        return None;
    }
    Timestamp::from_micros(i64::from_str_radix(time, 16).ok()?)
}

/// Returns since when the syslog is kept: where sign-ins have a file of their own, what both that and the one for all else reach back
/// to.
fn oldest_syslog(host: &dyn Host, now: Timestamp) -> Result<Log, Unknown> {
    let names = host.list(Path::new(LOGS)).map_err(|error| host::unknown(format!("list {LOGS}"), &error))?;
    let mut parts = [Log::None; 2];
    for (part, logs) in parts.iter_mut().zip([SIGN_INS, ALL_ELSE]) {
        for log in logs {
            *part = match (*part, of_one(host, &names, log, now)?) {
                (Log::Live(a), Log::Live(b)) => Log::Live(a.min(b)),
                (Log::Live(time), _) | (_, Log::Live(time)) => Log::Live(time),
                (Log::Dead, _) | (_, Log::Dead) => Log::Dead,
                (Log::None, Log::None) => Log::None,
            };
        }
    }
    Ok(match parts {
        [Log::Live(a), Log::Live(b)] => Log::Live(a.max(b)),
        [Log::Live(time), _] | [_, Log::Live(time)] => Log::Live(time),
        [Log::Dead, _] | [_, Log::Dead] => Log::Dead,
        [Log::None, Log::None] => Log::None,
    })
}

/// Returns the earliest time at which one of the files of `log` was last written that has something in it: its entries are no younger.
/// What was put aside counts where the file is still written that it was put aside from.
fn of_one(host: &dyn Host, names: &[OsString], log: &str, now: Timestamp) -> Result<Log, Unknown> {
    let (mut written, mut is_written, mut put_aside) = (None, false, Vec::new());
    for name in names.iter().filter_map(|name| name.to_str()).filter(|name| is_of_syslog(name, log)) {
        let path = Path::new(LOGS).join(name);
        match host.metadata(&path) {
            Ok(metadata) if metadata.kind == host::EntryKind::File => {
                // It is empty after it was put aside.
                let time = metadata.modified.filter(|_| metadata.size_bytes > 0);
                if name == log {
                    is_written = is_live(metadata.modified, now);
                    written = time;
                } else {
                    put_aside.push(Aside { number: number(name, log), time });
                }
            }
            Ok(_) => {}
            // Rotated away between the two is no error.
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("look at {}", path.display()), &error)),
        }
    }
    Ok(Log::new(earlier(written, unbroken(written, put_aside)), is_written))
}

/// A file that was put aside.
#[derive(Clone, Copy, Debug)]
struct Aside {
    /// That of `syslog.2.gz`, but none of `syslog-20261101`.
    number: Option<u32>,
    /// When it was last written; `None` of one that is empty.
    time: Option<Timestamp>,
}

/// Returns the number of a file that was put aside from `log`.
fn number(name: &str, log: &str) -> Option<u32> {
    let rest = name.strip_prefix(log)?.strip_prefix('.')?;
    // A larger one is a date.
    rest.split('.').next()?.parse().ok().filter(|number| *number < 10_000)
}

/// Returns the earliest time of the files that were put aside one after another, back from the file that is written. What lies
/// behind a gap was left over when fewer were kept: behind a number that is not there, or much longer ago than they lie apart.
fn unbroken(written: Option<Timestamp>, put_aside: Vec<Aside>) -> Option<Timestamp> {
    let numbers: BTreeSet<u32> = put_aside.iter().filter_map(|aside| aside.number).collect();
    let first = u32::from(!numbers.contains(&0));
    let end = (first..).find(|number| !numbers.contains(number))?;
    let is_next = |aside: &Aside| aside.number.is_none_or(|number| number < end);
    let mut times: Vec<i64> = put_aside
        .iter()
        .filter(|aside| is_next(aside))
        .filter_map(|aside| aside.time)
        .map(Timestamp::seconds)
        .collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    let mut apart: Vec<i64> = times.windows(2).map(|pair| pair[0] - pair[1]).collect();
    apart.sort_unstable();
    // Of files that are put aside by their size, some lie a few quiet days apart. Two or three do not show what is usual.
    let limit = match apart.len() {
        0..3 => MONTH_SECONDS,
        count => (apart[(count - 1) / 2].saturating_mul(4)).max(QUIET_SECONDS),
    };
    let mut oldest = *times.first()?;
    if written.is_some_and(|written| written.seconds().saturating_sub(oldest) > MONTH_SECONDS) {
        return None;
    }
    for time in times {
        if oldest - time > limit {
            break;
        }
        oldest = time;
    }
    Timestamp::from_seconds(oldest)
}

/// Returns whether `name` is such as `syslog`, `syslog.1`, `syslog.2.gz`, `syslog-20261101` or `syslog-2026-11-01`, of the syslog `log`.
fn is_of_syslog(name: &str, log: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    name.strip_prefix(log).is_some_and(|rest| {
        let rest = COMPRESSED.iter().find_map(|end| rest.strip_suffix(end)).unwrap_or(rest);
        rest.is_empty()
            || rest
                .strip_prefix(['.', '-'])
                .is_some_and(|n| n.starts_with(is_digit) && n.chars().all(|c| is_digit(c) || matches!(c, '-' | '_')))
    })
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::PathText;
    use proptest::prelude::*;

    use super::*;
    use crate::host::{Metadata, Recorded, recorded::Failure};

    #[test]
    fn a_journal_says_when_it_begins() {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(SIGNATURE);
        assert_eq!(head_time(&header), None, "without an entry");
        // As `journalctl --header` shows it: Thu 2026-11-26 13:51:08 UTC (6612e3c4e418f).
        header[HEAD_TIME..].copy_from_slice(&0x0006_612e_3c4e_418f_u64.to_le_bytes());
        assert_eq!(head_time(&header).unwrap().to_string().get(..19), Some("2026-11-26T13:51:08"));
        assert_eq!(head_time(&header[..HEADER_BYTES - 1]), None);
        header[0] = b'X';
        assert_eq!(head_time(&header), None);
        let name = "system@0123456789abcdef0123456789abcdef-0000000000000001-0006612e3c4e418f.journal";
        assert_eq!(archive_time(name).unwrap().to_string().get(..19), Some("2026-11-26T13:51:08"));
        for name in [
            "system.journal",
            "system@x.journal",
            "user-1000@a-1-0006612e3c4e418f.journal",
            "system@a-1-0006612e3c4e418f.journal~",
        ] {
            assert_eq!(archive_time(name), None, "{name}");
        }
    }

    #[test]
    fn a_syslog_is_known_by_its_name_and_its_rotation() {
        let is_syslog = |name| SIGN_INS.iter().chain(&ALL_ELSE).any(|log| is_of_syslog(name, log));
        for name in [
            "syslog",
            "syslog.1",
            "syslog.2.gz",
            "messages-20261101",
            "secure-20261101.xz",
            "auth.log.4.gz",
            "messages-2026-11-01.bz2",
            "syslog-20261101-1793491200",
        ] {
            assert!(is_syslog(name), "{name}");
        }
        for name in ["syslog.old", "messages.gz.x", "secured", "syslog-ng", "dpkg.log", "syslog.", "syslog--"] {
            assert!(!is_syslog(name), "{name}");
        }
    }

    #[test]
    fn a_log_that_nothing_writes_keeps_nothing() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/logging/debian-12-rsyslog");
        let now = "2026-11-26T14:22:16Z".parse().unwrap();
        let since = |files: &[(&str, u64, &str)]| {
            let mut host = Recorded::at(&case).unwrap();
            let index = host.index_mut();
            let any = index.metadata[&PathText::from_bytes(b"/var/log/syslog")];
            index.metadata.retain(|path, _| !path.to_string().starts_with(LOGS));
            let absent: Failure = serde_json::from_value(serde_json::json!({ "errno": 2 })).unwrap();
            index.errors.insert(format!("metadata {PERSISTENT}"), absent);
            let path = |name: &str| PathText::from_bytes(format!("{LOGS}/{name}").as_bytes());
            for (name, size_bytes, modified) in files {
                let modified = Some(modified.parse().unwrap());
                index.metadata.insert(path(name), Metadata { size_bytes: *size_bytes, modified, ..any });
            }
            let names = files.iter().map(|(name, ..)| PathText::from_bytes(name.as_bytes())).collect();
            index.lists.insert(PathText::from_bytes(LOGS.as_bytes()), names);
            kept_since(&host, now).known().map(ToString::to_string)
        };
        let (old, today) = ("2019-01-01T00:00:00Z", "2026-11-26T04:00:00Z");
        assert_eq!(since(&[("messages-20190101", 9, old)]), None);
        assert_eq!(since(&[("messages", 9, old), ("messages-20190101", 9, old)]), None);
        // What another daemon wrote once is no part of what is written.
        let week = "2026-11-19T00:00:00Z";
        let live = [("messages-20190101", 9, old), ("syslog", 9, today), ("syslog.1", 9, week)];
        assert_eq!(since(&live).as_deref(), Some(week));
        // Of each part there is no more than of the other.
        let both = [("auth.log", 9, today), ("auth.log.1", 9, week), ("syslog", 9, today)];
        assert_eq!(since(&both).as_deref(), Some(today));
        let more = [&both[..], &[("syslog.1", 9, "2026-11-25T04:00:00Z")]].concat();
        assert_eq!(since(&more).as_deref(), Some("2026-11-25T04:00:00Z"));
        // It was put aside a moment ago.
        assert_eq!(since(&[("syslog", 0, today), ("syslog.1", 9, week)]).as_deref(), Some(week));
        assert_eq!(since(&[("syslog", 9, "2026-11-25T13:00:00Z")]).as_deref(), Some("2026-11-25T13:00:00Z"));
        assert_eq!(since(&[("syslog", 9, "2026-11-25T12:00:00Z")]), None);
    }

    #[test]
    fn what_lies_behind_a_gap_is_left_over() {
        let days = |days: i64| Timestamp::from_seconds((2_000 - days) * 86_400).unwrap();
        let kept = |files: &[(&str, i64)]| {
            let aside = |(name, age): &(&str, i64)| Aside { number: number(name, "syslog"), time: Some(days(*age)) };
            let kept = unbroken(Some(days(0)), files.iter().map(aside).collect());
            kept.map(|time| 2_000 - time.seconds() / 86_400)
        };
        for (files, expected) in [
            (vec![], None),
            (vec![("syslog.1", 1)], Some(1)),
            (vec![("syslog.1", 1), ("syslog.2.gz", 2), ("syslog.3.gz", 3)], Some(3)),
            (vec![("syslog.0", 1), ("syslog.1.gz", 2)], Some(2)),
            // What `rotate 14` left when it became `rotate 1`.
            (vec![("syslog.1.gz", 1), ("syslog.3.gz", 3), ("syslog.4.gz", 4)], Some(1)),
            (vec![("syslog.2.gz", 3), ("syslog.3.gz", 4)], None),
            (vec![("syslog-1", 1), ("syslog-2", 2), ("syslog-3", 12), ("syslog-4", 13), ("syslog-5", 14)], Some(2)),
            (vec![("syslog-1", 1), ("syslog-2", 2), ("syslog-3", 1_900)], Some(2)),
            (vec![("syslog-1", 1_000)], None),
            // By the week, by the month, and by size.
            (vec![("syslog-1", 6), ("syslog-2", 13), ("syslog-3", 20), ("syslog-4", 27)], Some(27)),
            (vec![("syslog.1", 2), ("syslog.2.gz", 33), ("syslog.3.gz", 63), ("syslog.4.gz", 94)], Some(94)),
            (vec![("syslog.1", 2), ("syslog.2.gz", 33)], Some(33)),
            (vec![("syslog.1", 0), ("syslog.2", 0), ("syslog.3", 1), ("syslog.4", 4), ("syslog.5", 8)], Some(8)),
        ] {
            assert_eq!(kept(&files), expected, "{files:?}");
        }
    }

    #[test]
    fn a_journal_that_nothing_writes_keeps_nothing() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/logging/debian-13-journal-upload");
        let host = Recorded::at(&case).unwrap();
        let at = |now: &str| kept_since(&host, now.parse().unwrap()).known().copied();
        assert!(at("2026-11-27T14:00:00Z").is_some());
        assert_eq!(at("2026-11-28T14:00:00Z"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..250), name in any::<String>()) {
            let _ = head_time(&bytes);
            let _ = archive_time(&name);
            let _ = (is_of_syslog(&name, ALL_ELSE[0]), number(&format!("syslog{name}"), "syslog"));
        }
    }
}
