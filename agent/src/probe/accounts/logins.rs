//! Sign-ins that lastlog and wtmp(5) hold, and the databases of lastlog2(8) and wtmpdb(8), which have taken their place.
//!
//! A file that holds nobody's sign-in shows nothing: not that nobody came, and not that it would have been written.

use std::{
    collections::BTreeMap,
    io::{self, Read as _},
    path::Path,
};

use muster_proto::{
    fact::{Cause, Reading, Unknown},
    time::Timestamp,
};

use super::sqlite::{self, Value};
use crate::host::{self, EntryKind, Host};

/// Seconds by which the clock may have been ahead when a sign-in was recorded.
const AHEAD: i64 = 86_400;
/// Bytes of one such file that are read, at most.
const LOG_BYTES: u64 = 32 * 1024 * 1024;
/// Accounts whose sign-ins are kept, at most.
const USERS: usize = 100_000;
/// `USER_PROCESS` of utmp(5).
const USER_PROCESS: i16 = 7;
/// The same in wtmpdb(8).
const DATABASE_USER_PROCESS: i16 = 3;

const LASTLOG: &str = "/var/log/lastlog";
/// The file, and what logrotate(8) leaves of it uncompressed.
const WTMP: [&str; 2] = ["/var/log/wtmp", "/var/log/wtmp.1"];
/// Bytes of a database, at most.
const DATABASE_BYTES: usize = 8 * 1024 * 1024;
/// What SQLite leaves beside a database while it is written.
const JOURNALS: [&str; 2] = ["-journal", "-wal"];

/// A database of sign-ins.
struct Source {
    path: &'static str,
    table: &'static str,
    /// Column of the account.
    name: &'static str,
    /// Column of the time, and how many of its units a second has.
    time: &'static str,
    per_second: i64,
}

const SOURCES: [Source; 3] = [
    Source { path: "/var/lib/lastlog/lastlog2.db", table: "Lastlog2", name: "name", time: "time", per_second: 1 },
    Source { path: "/var/lib/wtmpdb/wtmp.db", table: "wtmp", name: "user", time: "login", per_second: 1_000_000 },
    Source { path: "/var/log/wtmp.db", table: "wtmp", name: "user", time: "login", per_second: 1_000_000 },
];

/// Every sign-in that the host's files hold.
#[derive(Debug, Default)]
pub struct Logins {
    by_uid: BTreeMap<u32, i64>,
    by_name: BTreeMap<String, i64>,
    /// The oldest of anybody's.
    oldest: Option<i64>,
    /// Why they may not be all.
    untold: Option<Unknown>,
    /// The first user id whose record in lastlog was not read, and why.
    unread_from: Option<(u32, Unknown)>,
    /// Seconds from which on a sign-in is no record but damage.
    end: Option<i64>,
}

/// Where numbers stand in records: glibc's `struct lastlog` and `struct utmp` (bits/utmp.h) by kind of machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    lastlog_bytes: usize,
    utmp_bytes: usize,
    /// Where the seconds of a `struct utmp` are.
    seconds_at: usize,
    /// Bytes of a time.
    time_bytes: usize,
}

impl Layout {
    /// Returns the layout on a machine of the type that `uname -m` gives; `None` for one that this build does not know.
    pub fn of(machine: &str) -> Option<Self> {
        match machine {
            "x86_64" | "i386" | "i486" | "i586" | "i686" => {
                Some(Self { lastlog_bytes: 292, utmp_bytes: 384, seconds_at: 340, time_bytes: 4 })
            }
            "aarch64" => Some(Self { lastlog_bytes: 296, utmp_bytes: 400, seconds_at: 344, time_bytes: 8 }),
            _ => None,
        }
    }

    fn time(self, bytes: &[u8]) -> Option<i64> {
        match self.time_bytes {
            4 => bytes.first_chunk().map(|bytes| i64::from(u32::from_le_bytes(*bytes))),
            _ => bytes.first_chunk().map(|bytes| i64::from_le_bytes(*bytes)),
        }
    }
}

impl Logins {
    /// Reads every file that holds sign-ins.
    pub fn look(host: &dyn Host, now: Timestamp) -> Self {
        let mut logins = Self { end: Some(now.seconds().saturating_add(AHEAD)), ..Self::default() };
        for source in &SOURCES {
            if let Err(unknown) = logins.add_database(host, source) {
                logins.untold = Some(unknown);
            }
        }
        let files = || std::iter::once(LASTLOG).chain(WTMP);
        let sizes: Vec<(&str, io::Result<u64>)> =
            files().map(|path| (path, host.metadata(Path::new(path)).map(|metadata| metadata.size_bytes))).collect();
        let machine = match host.machine() {
            Ok(machine) => machine.machine,
            Err(error) => {
                logins.untold = Some(host::unknown("uname", &error));
                return logins;
            }
        };
        for (path, size) in sizes {
            if let Err(unknown) = logins.add_file(host, path, size, &machine) {
                logins.untold = Some(unknown);
            }
        }
        logins
    }

    fn add_file(&mut self, host: &dyn Host, path: &str, size: io::Result<u64>, machine: &str) -> Result<(), Unknown> {
        let unknown = |error: &io::Error| host::unknown(format!("read {path}"), error);
        let size = match size {
            Ok(0) => return Ok(()),
            Ok(size) => size,
            Err(error) if host::cause(&error) == Cause::Absent => return Ok(()),
            Err(error) => return Err(unknown(&error)),
        };
        let too_large = || Unknown::new(Cause::Limit, format!("{path} has more than {LOG_BYTES} bytes"));
        if size > LOG_BYTES && path != LASTLOG {
            return Err(too_large());
        }
        let layout = Layout::of(machine).ok_or_else(|| {
            Unknown::new(Cause::Unsupported, format!("this build does not know the records of {path} on {machine}"))
        })?;
        if size > LOG_BYTES {
            // One account of a directory, whose ids are large, makes it so. Those of the host are at its start.
            return self.add_start_of_lastlog(host, layout, too_large());
        }
        let mut bytes = host.stream(Path::new(path)).map_err(|error| unknown(&error))?.take(LOG_BYTES);
        let result =
            if path == LASTLOG { self.add_lastlog(&mut bytes, layout) } else { self.add_wtmp(&mut bytes, layout) };
        result.map_err(|error| unknown(&error))?;
        // Both grow and are never written shorter; it was cut, or another took its place.
        if LOG_BYTES - bytes.limit() < size { Err(shorter(path)) } else { Ok(()) }
    }

    /// Adds the records of a lastlog file that are within the bound. `why` is told of the accounts of the others.
    fn add_start_of_lastlog(&mut self, host: &dyn Host, layout: Layout, why: Unknown) -> Result<(), Unknown> {
        let unknown = |error: &io::Error| host::unknown(format!("read {LASTLOG}"), error);
        let uids = LOG_BYTES as usize / layout.lastlog_bytes;
        let bytes = uids * layout.lastlog_bytes;
        let start = host.read_start(Path::new(LASTLOG), bytes).map_err(|error| unknown(&error))?;
        if start.len() < bytes {
            return Err(shorter(LASTLOG));
        }
        self.unread_from = u32::try_from(uids).ok().map(|uid| (uid, why));
        self.add_lastlog(&mut start.as_slice(), layout).map_err(|error| unknown(&error))
    }

    fn add_database(&mut self, host: &dyn Host, source: &Source) -> Result<(), Unknown> {
        let Source { path, .. } = source;
        let read = |error: &io::Error| host::unknown(format!("read {path}"), error);
        match host.metadata(Path::new(path)) {
            // Debian's wtmpdb makes a link to the place in /var/log, whether or not anything is there.
            Ok(metadata) if metadata.kind == EntryKind::Link => return Ok(()),
            Ok(_) => {}
            Err(error) if host::cause(&error) == Cause::Absent => return Ok(()),
            Err(error) => return Err(read(&error)),
        }
        for journal in JOURNALS {
            match host.metadata(Path::new(&format!("{path}{journal}"))) {
                Ok(metadata) if metadata.size_bytes > 0 => {
                    return Err(Unknown::new(Cause::Failed, format!("{path} was being written")));
                }
                Ok(_) => {}
                Err(error) if host::cause(&error) == Cause::Absent => {}
                Err(error) => return Err(host::unknown(format!("look at {path}{journal}"), &error)),
            }
        }
        let bytes = host.read(Path::new(path), DATABASE_BYTES).map_err(|error| read(&error))?;
        self.add_rows(&bytes, source).ok_or_else(|| {
            Unknown::new(Cause::Garbled, format!("{path} has no table of sign-ins that this build reads"))
        })
    }

    /// Adds the rows of a database; of one that has a type of record, those of people.
    fn add_rows(&mut self, bytes: &[u8], source: &Source) -> Option<()> {
        let database = sqlite::Database::of(bytes)?;
        let table = database.table(source.table)?;
        let column = |name: &str| table.columns.iter().position(|column| column == name);
        let (name_at, time_at, type_at) = (column(source.name)?, column(source.time)?, column("type"));
        database.each_row(&table, &mut |row| {
            let is_sign_in =
                type_at.is_none_or(|at| row.get(at) == Some(&Value::Number(i64::from(DATABASE_USER_PROCESS))));
            if let (Some(Value::Text(name)), Some(Value::Number(time))) = (row.get(name_at), row.get(time_at))
                && is_sign_in
                && *time > 0
            {
                self.add_name(&String::from_utf8_lossy(name), time / source.per_second);
            }
        })
    }

    fn add_name(&mut self, name: &str, time: i64) {
        if self.by_name.len() < USERS {
            let last = self.by_name.entry(name.to_owned()).or_insert(time);
            *last = (*last).max(time);
            self.add_oldest(time);
        }
    }

    /// Adds the records of a lastlog file: one for each user id, at its place.
    fn add_lastlog(&mut self, file: &mut dyn io::Read, layout: Layout) -> io::Result<()> {
        let mut uid = 0;
        records(file, layout.lastlog_bytes, &mut |record| {
            let time = layout.time(record).filter(|time| *time > 0);
            if let Some(time) = time
                && self.by_uid.len() < USERS
            {
                self.by_uid.insert(uid, time);
                self.add_oldest(time);
            }
            uid += 1;
        })
    }

    /// Adds the records of a wtmp file.
    fn add_wtmp(&mut self, file: &mut dyn io::Read, layout: Layout) -> io::Result<()> {
        records(file, layout.utmp_bytes, &mut |record| {
            let kind = record.first_chunk().map(|bytes| i16::from_le_bytes(*bytes));
            let time = record.get(layout.seconds_at..).and_then(|bytes| layout.time(bytes)).filter(|time| *time > 0);
            // ut_user, 32 bytes and ended by a zero when it is shorter.
            let name = record.get(44..76).and_then(|name| name.split(|byte| *byte == 0).next());
            if let (Some(USER_PROCESS), Some(time), Some(name)) = (kind, time, name)
                && !name.is_empty()
            {
                self.add_name(&String::from_utf8_lossy(name), time);
            }
        })
    }

    fn add_oldest(&mut self, time: i64) {
        self.oldest = Some(self.oldest.map_or(time, |oldest| oldest.min(time)));
    }

    fn last(&self, uid: u32, name: &str) -> Option<i64> {
        // ut_user has 32 bytes; a database has the whole name.
        let cut = name.as_bytes().get(..32).map_or_else(|| name.into(), String::from_utf8_lossy);
        let by_name = self.by_name.get(name).or_else(|| self.by_name.get(cut.as_ref()));
        self.by_uid.get(&uid).max(by_name).copied()
    }

    fn reading(&self, seconds: i64) -> Reading<Timestamp> {
        if self.end.is_some_and(|end| seconds > end) {
            return Reading::unknown(Cause::Garbled, "a sign-in is recorded for a time to come");
        }
        host::time_reading(Timestamp::from_seconds(seconds))
    }

    /// Returns why the sign-ins of an account may not be all here.
    fn untold(&self, uid: u32) -> Option<&Unknown> {
        let unread = || self.unread_from.as_ref().filter(|(from, _)| uid >= *from).map(|(_, why)| why);
        self.untold.as_ref().or_else(unread)
    }

    /// Returns the last sign-in of an account.
    pub fn last_login_time(&self, uid: u32, name: &str) -> Reading<Timestamp> {
        if let Some(unknown) = self.untold(uid) {
            return Reading::Unknown { unknown: unknown.clone() };
        }
        match self.last(uid, name) {
            Some(seconds) => self.reading(seconds),
            None => Reading::unknown(Cause::Absent, "the host's records hold no sign-in of it"),
        }
    }

    /// Returns since when no sign-in of an account was recorded. `unrecorded` is why one may have left no record.
    pub fn no_login_since_time(&self, uid: u32, name: &str, unrecorded: Option<&Unknown>) -> Reading<Timestamp> {
        if let Some(unknown) = self.untold(uid) {
            return Reading::Unknown { unknown: unknown.clone() };
        }
        match (self.last(uid, name), self.oldest, unrecorded) {
            (Some(seconds), _, _) | (None, Some(seconds), None) => self.reading(seconds),
            (None, Some(_), Some(unknown)) => Reading::Unknown { unknown: unknown.clone() },
            (None, None, _) => Reading::unknown(Cause::Undecidable, "the host's records hold no sign-in of anybody"),
        }
    }
}

fn shorter(path: &str) -> Unknown {
    Unknown::new(Cause::Stale, format!("{path} has fewer bytes than its size"))
}

/// Calls `see` with each whole record of `file`. What is cut off at its end is none.
fn records(file: &mut dyn io::Read, bytes: usize, see: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut file = io::BufReader::with_capacity(64 * 1024, file);
    let mut record = vec![0; bytes];
    loop {
        match file.read_exact(&mut record) {
            Ok(()) => see(&record),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::Recorded;

    fn layout() -> Layout {
        Layout::of("x86_64").unwrap()
    }

    fn utmp(kind: i16, name: &str, seconds: u32) -> Vec<u8> {
        let mut record = vec![0; 384];
        record[..2].copy_from_slice(&kind.to_le_bytes());
        record[44..44 + name.len()].copy_from_slice(name.as_bytes());
        record[340..344].copy_from_slice(&seconds.to_le_bytes());
        record
    }

    fn lastlog(uid: usize, seconds: u32) -> Vec<u8> {
        let mut file = vec![0; 292 * (uid + 1)];
        file[292 * uid..292 * uid + 4].copy_from_slice(&seconds.to_le_bytes());
        file
    }

    fn seconds(reading: &Reading<Timestamp>) -> Option<i64> {
        reading.known().map(|time| time.seconds())
    }

    #[test]
    fn the_later_of_both_files_is_the_last_sign_in() {
        let mut logins = Logins::default();
        logins.add_lastlog(&mut lastlog(1000, 500).as_slice(), layout()).unwrap();
        let wtmp = [utmp(2, "reboot", 10), utmp(7, "alice", 700), utmp(8, "", 800), utmp(7, "alice", 600)].concat();
        logins.add_wtmp(&mut wtmp.as_slice(), layout()).unwrap();
        assert_eq!(seconds(&logins.last_login_time(1000, "alice")), Some(700));
        assert_eq!(seconds(&logins.no_login_since_time(1000, "alice", None)), Some(700));
        let why = Unknown::new(Cause::Undecidable, "x");
        assert_eq!(seconds(&logins.no_login_since_time(1000, "alice", Some(&why))), Some(700));
        assert_eq!(logins.no_login_since_time(1001, "bob", Some(&why)), Reading::Unknown { unknown: why });
        // Nobody of that name came since the oldest record.
        assert_eq!(seconds(&logins.last_login_time(1001, "bob")), None);
        assert_eq!(seconds(&logins.no_login_since_time(1001, "bob", None)), Some(500));
    }

    #[test]
    fn a_sign_in_of_a_time_to_come_is_damage() {
        let mut logins = Logins { end: Some(1_000), ..Logins::default() };
        let wtmp = [utmp(7, "alice", 1_000), utmp(7, "bob", 1_001)].concat();
        logins.add_wtmp(&mut wtmp.as_slice(), layout()).unwrap();
        assert_eq!(seconds(&logins.last_login_time(1000, "alice")), Some(1_000));
        for reading in [logins.last_login_time(1001, "bob"), logins.no_login_since_time(1001, "bob", None)] {
            assert!(matches!(reading, Reading::Unknown { unknown } if unknown.cause == Cause::Garbled));
        }
    }

    #[test]
    fn an_account_of_a_large_id_in_lastlog_leaves_those_of_the_host_known() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("files/var/log/lastlog");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(folder.path().join("index.json"), r#"{"version": 1, "captured": "2026-11-26T00:00:00Z"}"#)
            .unwrap();
        std::fs::write(&file, lastlog(1000, 500)).unwrap();
        let host = Recorded::at(folder.path()).unwrap();
        let look = |path, bytes| {
            std::fs::File::options().write(true).open(&file).unwrap().set_len(bytes).unwrap();
            let mut logins = Logins::default();
            logins.add_file(&host, path, Ok(360_493_827_452), "x86_64").map(|()| logins)
        };
        let logins = look(LASTLOG, LOG_BYTES).unwrap();
        assert_eq!(seconds(&logins.last_login_time(1000, "alice")), Some(500));
        let (first, last) = (114_912, 114_911);
        assert_eq!(seconds(&logins.no_login_since_time(last, "bob", None)), Some(500));
        for reading in [logins.last_login_time(first, "eve"), logins.no_login_since_time(first, "eve", None)] {
            let Reading::Unknown { unknown } = reading else { panic!() };
            assert_eq!(unknown.detail.as_str(), "/var/log/lastlog has more than 33554432 bytes");
        }
        assert_eq!(look(LASTLOG, LOG_BYTES - 292).unwrap_err().cause, Cause::Stale);
        assert_eq!(look(WTMP[0], LOG_BYTES).unwrap_err().cause, Cause::Limit);
    }

    #[test]
    fn a_database_has_sign_ins_of_people_by_name() {
        let mut logins = Logins::default();
        logins.add_rows(include_bytes!("sample.sqlite"), &SOURCES[1]).unwrap();
        assert_eq!(seconds(&logins.last_login_time(1, "user39")), Some(1_700_000_000));
        assert_eq!(seconds(&logins.last_login_time(1, "user40")), None);
        assert_eq!(Logins::default().add_rows(include_bytes!("sample.sqlite"), &SOURCES[0]), None);
    }

    #[test]
    fn files_without_a_sign_in_say_nothing() {
        let mut logins = Logins::default();
        logins.add_wtmp(&mut utmp(2, "reboot", 10).as_slice(), layout()).unwrap();
        let Reading::Unknown { unknown } = logins.no_login_since_time(0, "root", None) else { panic!() };
        assert_eq!(unknown.cause, Cause::Undecidable);
    }

    #[test]
    fn a_machine_whose_records_are_not_known_has_none() {
        assert_eq!(Layout::of("s390x"), None);
        assert_eq!(Layout::of("aarch64").map(|layout| layout.utmp_bytes), Some(400));
    }

    proptest! {
        #[test]
        fn arbitrary_records_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for layout in ["x86_64", "aarch64"].map(|machine| Layout::of(machine).unwrap()) {
                let mut logins = Logins::default();
                logins.add_wtmp(&mut bytes.as_slice(), layout).unwrap();
                logins.add_lastlog(&mut bytes.as_slice(), layout).unwrap();
                logins.last_login_time(0, "root");
                logins.no_login_since_time(1, &"x".repeat(40), None);
            }
        }
    }
}
