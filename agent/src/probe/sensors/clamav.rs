//! What ClamAV's own files say: clamd.conf(5), freshclam.conf(5), and the header of its databases.

use std::{io, path::Path};

use muster_proto::{
    fact::{Cause, Reading, SensorMode, Unknown},
    time::Timestamp,
};

use super::super::processes::{self, Process};
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Places of the daemon's settings: Debian's, and those of Red Hat's packages and of a build of one's own.
const DAEMON_SETTINGS: &[&str] = &["/etc/clamav/clamd.conf", "/etc/clamd.d/scan.conf", "/etc/clamd.conf"];
/// Places of the updater's settings.
const UPDATER_SETTINGS: &[&str] = &["/etc/clamav/freshclam.conf", "/etc/freshclam.conf"];
const DATABASES: &str = "/var/lib/clamav";
/// The database that is published each day; the others seldom change.
const DAILY: [&str; 2] = ["daily.cld", "daily.cvd"];
/// Bytes of a database's header (ClamAV manual, "CVD format").
const HEADER_BYTES: usize = 512;
/// The client that asks the daemon as files are opened.
const ON_ACCESS: (&str, &[&str]) = ("/usr/sbin/clamonacc", &["clamav-clamonacc.service", "clamonacc.service"]);

/// Returns what ClamAV does with what it finds.
pub(super) fn mode(host: &dyn Host, processes: &Result<Vec<Process>, Unknown>) -> Reading<SensorMode> {
    let units: Vec<String> = ON_ACCESS.1.iter().map(|&unit| unit.to_owned()).collect();
    match processes::running(host, processes, &[ON_ACCESS.0.to_owned()], &units).0 {
        Reading::Known(false) => return Reading::Known(SensorMode::OnDemand),
        Reading::Known(true) => {}
        Reading::Unknown { unknown } => return Reading::Unknown { unknown },
    }
    match settings(host, DAEMON_SETTINGS) {
        Ok(text) if is_on(setting(&text, "OnAccessPrevention")) => Reading::Known(SensorMode::Block),
        Ok(_) => Reading::Known(SensorMode::Detect),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

/// Returns when the daily database on the disk was published.
pub(super) fn definitions_time(host: &dyn Host) -> Reading<Timestamp> {
    let folder = match settings(host, UPDATER_SETTINGS) {
        Ok(text) => setting(&text, "DatabaseDirectory").unwrap_or(DATABASES).to_owned(),
        Err(unknown) if unknown.cause == Cause::Absent => DATABASES.to_owned(),
        Err(unknown) => return Reading::Unknown { unknown },
    };
    let mut newest: Option<Timestamp> = None;
    for name in DAILY {
        let path = format!("{folder}/{name}");
        match host.read_start(Path::new(&path), HEADER_BYTES) {
            Ok(header) => match published(&header) {
                Some(time) => newest = newest.max(Some(time)),
                None => return Reading::unknown(Cause::Garbled, format!("{path} has no header of a database")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Reading::Unknown { unknown: host::unknown(format!("read {path}"), &error) },
        }
    }
    let none = || Reading::unknown(Cause::Absent, format!("{folder} has no daily database"));
    newest.map_or_else(none, Reading::Known)
}

/// Returns the first of `paths` that is there.
fn settings(host: &dyn Host, paths: &[&str]) -> Result<String, Unknown> {
    for path in paths {
        match host.read(Path::new(path), SMALL_FILE_BYTES) {
            Ok(bytes) => {
                return String::from_utf8(bytes)
                    .map_err(|_| Unknown::new(Cause::Garbled, format!("{path} is not UTF-8")));
            }
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("read {path}"), &error)),
        }
    }
    Err(Unknown::new(Cause::Absent, format!("read {}: none is there", paths.join(", "))))
}

/// Returns the value of an option, as in clamd.conf(5): name, blank, value; of several the last.
fn setting<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut values = text.lines().filter_map(|line| {
        let (option, value) = line.trim().split_once(char::is_whitespace)?;
        (option == name).then(|| value.trim().trim_matches('"'))
    });
    values.next_back()
}

/// Values that clamd.conf(5) reads as yes.
fn is_on(value: Option<&str>) -> bool {
    value.is_some_and(|value| ["yes", "true", "1"].iter().any(|yes| value.eq_ignore_ascii_case(yes)))
}

/// Returns when a database was published. `header` is `ClamAV-VDB:` and fields with `:` between; the eighth is its time in
/// seconds since 1970, the first the same as text, such as `24 Nov 2026 09-24 +0000`.
fn published(header: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(header.get(..HEADER_BYTES)?).ok()?;
    let mut fields = text.strip_prefix("ClamAV-VDB:")?.split(':');
    let date = fields.next()?;
    match fields.nth(6).map(str::trim) {
        Some(seconds) if !seconds.is_empty() => seconds.parse().ok().and_then(Timestamp::from_seconds),
        // Databases of before 0.9 have no such field.
        _ => {
            let date = jiff::fmt::strtime::parse("%d %b %Y %H-%M %z", date).ok()?.to_timestamp().ok()?;
            Timestamp::from_seconds(date.as_second())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(HEADER_BYTES, b' ');
        bytes
    }

    #[test]
    fn a_database_says_when_it_was_published() {
        let start = "ClamAV-VDB:24 Nov 2026 09-24 +0100:27800:2000000:90:d41d8cd98f00b204e9800998ecf8427e:sig:builder";
        for (text, expected) in [
            (format!("{start}:1795508640"), Some("2026-11-24T08:24:00Z")),
            (start.to_owned(), Some("2026-11-24T08:24:00Z")),
            (format!("{start}:"), Some("2026-11-24T08:24:00Z")),
            (format!("{start}:-5"), None),
            (format!("{start}:x"), None),
            ("ClamAV-VDB:".to_owned(), None),
            ("not a database".to_owned(), None),
        ] {
            let expected = expected.map(|time| time.parse().unwrap());
            assert_eq!(published(&header(&text)), expected, "{text}");
        }
        assert_eq!(published(b"ClamAV-VDB:24 Nov 2026"), None, "a torn file");
    }

    #[test]
    fn the_last_of_several_settings_holds_and_a_comment_is_none() {
        let text =
            "# OnAccessPrevention yes\nOnAccessPrevention no\n OnAccessPrevention  Yes \nOnAccessPreventionX no\n";
        assert_eq!(setting(text, "OnAccessPrevention"), Some("Yes"));
        assert!(is_on(setting(text, "OnAccessPrevention")) && !is_on(setting(text, "Other")));
        assert!(!is_on(Some("no")) && is_on(Some("1")) && is_on(Some("TRUE")));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), text in any::<String>()) {
            let _ = published(&bytes);
            let _ = published(&header(&format!("ClamAV-VDB:{text}")));
            let _ = setting(&text, "A");
        }
    }
}
