//! What ClamAV's own files say: clamd.conf(5), freshclam.conf(5), and the header of its databases.

use std::{collections::BTreeSet, io, path::Path};

use muster_proto::{
    fact::{Cause, Reading, SensorMode, Unknown},
    time::Timestamp,
};

use super::super::processes::{self, Process};
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Places of the daemon's settings: Debian's, and those of Red Hat's packages and of a build of one's own.
const DAEMON_SETTINGS: &[&str] =
    &["/etc/clamav/clamd.conf", "/etc/clamd.d/scan.conf", "/etc/clamd.conf", "/usr/local/etc/clamd.conf"];
/// Places of the updater's settings.
const UPDATER_SETTINGS: &[&str] =
    &["/etc/clamav/freshclam.conf", "/etc/freshclam.conf", "/usr/local/etc/freshclam.conf"];
/// Where databases are when the settings do not say so: of packages, and of a build of one's own, whose settings are below this folder.
const DATABASES: &str = "/var/lib/clamav";
const OWN_BUILD: &str = "/usr/local/";
const OWN_DATABASES: &str = "/usr/local/share/clamav";
/// The database that is published each day; the others seldom change.
const DAILY: [&str; 2] = ["daily.cld", "daily.cvd"];
/// Bytes of a database's header (ClamAV manual, "CVD format").
const HEADER_BYTES: usize = 512;
/// The client that asks the daemon as files are opened.
const ON_ACCESS: (&[&str], &[&str]) =
    (&["/usr/sbin/clamonacc", "/usr/local/sbin/clamonacc"], &["clamav-clamonacc.service", "clamonacc.service"]);

/// Returns what ClamAV does with what it finds.
pub(super) fn mode(host: &dyn Host, processes: &Result<Vec<Process>, Unknown>) -> Reading<SensorMode> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let (programs, units) = (owned(ON_ACCESS.0), owned(ON_ACCESS.1));
    match processes::running(host, processes, &programs, &units).0 {
        Reading::Known(false) => return Reading::Known(SensorMode::OnDemand),
        Reading::Known(true) => {}
        Reading::Unknown { unknown } => return Reading::Unknown { unknown },
    }
    let clients = processes::of(host, processes.as_deref().unwrap_or_default(), &programs, &units);
    match daemon_settings(host, &clients) {
        // clamonacc(8): of whole mounts it is told, and does not hold back who opens a file.
        Ok((_, text)) if setting(&text, "OnAccessMountPath").is_some() => Reading::Known(SensorMode::Detect),
        Ok((_, text)) if is_on(setting(&text, "OnAccessPrevention")) => Reading::Known(SensorMode::Block),
        Ok(_) => Reading::Known(SensorMode::Detect),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

/// Returns when the daily database on the disk was published: that in the folder which `daemons` load from.
pub(super) fn definitions_time(host: &dyn Host, daemons: &[&Process]) -> Reading<Timestamp> {
    let text = match daemon_settings(host, daemons) {
        Err(unknown) if unknown.cause == Cause::Absent => settings(host, UPDATER_SETTINGS),
        result => result,
    };
    let folder = match text {
        Ok((path, text)) => {
            let default = if path.starts_with(OWN_BUILD) { OWN_DATABASES } else { DATABASES };
            setting(&text, "DatabaseDirectory").unwrap_or(default).to_owned()
        }
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

/// Returns the daemon's settings that `processes` took, which anyone may start with a file of one's own.
fn daemon_settings(host: &dyn Host, processes: &[&Process]) -> Result<Settings, Unknown> {
    let (mut files, mut other) = (BTreeSet::new(), None);
    for process in processes {
        let path = format!("/proc/{}/cmdline", process.id);
        let cmdline = match host.read(Path::new(&path), SMALL_FILE_BYTES) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if processes::has_ended(&error) => continue,
            Err(error) => return Err(host::unknown(format!("read {path}"), &error)),
        };
        match settings_file(&cmdline) {
            None => drop(files.insert(None)),
            Some(file) => match DAEMON_SETTINGS.iter().find(|&&known| known == file) {
                Some(known) => drop(files.insert(Some(*known))),
                None => other = Some(format!("{} was started with the settings {file}", process.name)),
            },
        }
    }
    match (files.pop_first(), files.is_empty(), other) {
        (None, _, Some(other)) => Err(Unknown::new(Cause::Undecidable, other)),
        (Some(Some(file)), true, _) => settings(host, &[file]),
        (None | Some(None), true, _) => settings(host, DAEMON_SETTINGS),
        (_, false, _) => Err(Unknown::new(Cause::Undecidable, "ClamAV was started with several files of settings")),
    }
}

/// Returns the file of settings that a command line names: `-c FILE` or `--config-file=FILE`, which may be shortened.
fn settings_file(cmdline: &str) -> Option<String> {
    let mut words = cmdline.split('\0').skip(1);
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            if !name.is_empty() && "config-file".starts_with(name) {
                return Some(value.or_else(|| words.next()).unwrap_or_default().to_owned());
            }
        } else if let Some(flags) = word.strip_prefix('-')
            && let Some(value) = flags.trim_start_matches(['F', 'v']).strip_prefix('c')
        {
            return Some(if value.is_empty() { words.next().unwrap_or_default() } else { value }.to_owned());
        }
    }
    None
}

/// A file of settings: its path and text.
type Settings = (&'static str, String);

/// Returns the first of `paths` that is there.
fn settings(host: &dyn Host, paths: &[&'static str]) -> Result<Settings, Unknown> {
    for &path in paths {
        match host.read(Path::new(path), SMALL_FILE_BYTES) {
            Ok(bytes) => {
                return String::from_utf8(bytes)
                    .map(|text| (path, text))
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
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::host::{Recorded, recorded::Failure};

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

    #[test]
    fn a_command_line_may_name_the_settings() {
        for (cmdline, expected) in [
            ("/usr/sbin/clamd\0--foreground=true\0", None),
            ("/usr/sbin/clamd\0-c\0/etc/clamd.d/scan.conf\0", Some("/etc/clamd.d/scan.conf")),
            ("/usr/sbin/clamonacc\0-F\0--config-file=/etc/x\0--log=/var/log/c\0", Some("/etc/x")),
            ("clamonacc\0--config-file\0/etc/x\0", Some("/etc/x")),
            ("clamonacc\0--conf=/etc/x\0", Some("/etc/x")),
            ("clamonacc\0-Fc\0/etc/x\0", Some("/etc/x")),
            ("clamonacc\0-c/etc/x", Some("/etc/x")),
            ("clamonacc\0--copy=/c\0--\0", None),
            ("clamonacc\0-c", Some("")),
            ("", None),
        ] {
            assert_eq!(settings_file(cmdline).as_deref(), expected, "{cmdline}");
        }
    }

    /// A process that executes `program`, with these words.
    fn process(id: u32, program: &str) -> Process {
        Process { id, name: "clam".to_owned(), program: Some(program.to_owned()), unit: None }
    }

    fn host_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Recorded) {
        let folder = tempfile::tempdir().unwrap();
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sensors/debian-13");
        let mut host = Recorded::at(&case).unwrap();
        let absent = Failure::of(&io::ErrorKind::NotFound.into());
        let known = DAEMON_SETTINGS.iter().chain(UPDATER_SETTINGS).map(|&path| path.to_owned());
        let databases =
            [DATABASES, OWN_DATABASES, "/srv/sigs"].map(|folder| DAILY.map(|name| format!("{folder}/{name}")));
        for path in known.chain(databases.into_iter().flatten()) {
            host.index_mut().errors.insert(format!("read {path}"), absent.clone());
        }
        for (path, text) in files {
            host.index_mut().errors.remove(&format!("read {path}"));
            let place = folder.path().join("files").join(path.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, text).unwrap();
        }
        fs::write(folder.path().join("index.json"), serde_json::to_vec(host.index_mut()).unwrap()).unwrap();
        let host = Recorded::at(folder.path()).unwrap();
        (folder, host)
    }

    #[test]
    fn a_client_that_watches_mounts_or_takes_other_settings_does_not_block() {
        let prevention = "OnAccessIncludePath /home\nOnAccessPrevention yes\n";
        let mounts = "OnAccessMountPath /home\nOnAccessPrevention yes\n";
        let plain = "/usr/sbin/clamonacc\0-F\0";
        let at = |file: &str| format!("{plain}--config-file={file}\0");
        for (settings, cmdline, expected) in [
            (prevention, plain.to_owned(), Some(SensorMode::Block)),
            (prevention, at("/etc/clamav/clamd.conf"), Some(SensorMode::Block)),
            (mounts, plain.to_owned(), Some(SensorMode::Detect)),
            ("OnAccessIncludePath /home\n", plain.to_owned(), Some(SensorMode::Detect)),
            (prevention, at("/etc/clamav/oa.conf"), None),
        ] {
            let files = [("/etc/clamav/clamd.conf", settings), ("/proc/7/cmdline", &cmdline)];
            let (_folder, host) = host_with(&files);
            let found = mode(&host, &Ok(vec![process(7, "/usr/sbin/clamonacc")]));
            assert_eq!(found.known().copied(), expected, "{settings} {cmdline}");
        }
        let (_folder, host) = host_with(&[("/etc/clamav/clamd.conf", prevention)]);
        assert!(mode(&host, &Ok(vec![process(7, "/usr/sbin/clamonacc")])).known().is_none(), "a refused command line");
        assert_eq!(mode(&host, &Ok(vec![process(7, "/usr/bin/x")])), Reading::Known(SensorMode::OnDemand));
    }

    #[test]
    fn definitions_are_those_that_the_daemon_loads() {
        let published = |day: u8| {
            let start = format!("ClamAV-VDB:{day} Nov 2026 09-24 +0000:1:2:90:x:sig:builder:");
            String::from_utf8(header(&start)).unwrap()
        };
        let (old, new) = (published(1), published(24));
        let (own, stock) = ("DatabaseDirectory /srv/sigs\n", "DatabaseDirectory /var/lib/clamav\n");
        let daily = |folder: &str| format!("{folder}/daily.cvd");
        let (clamd, freshclam) = ("/etc/clamav/clamd.conf", "/etc/clamav/freshclam.conf");
        let plain = ("/proc/7/cmdline", "/usr/sbin/clamd\0--foreground=true\0");
        let other = ("/proc/7/cmdline", "/usr/sbin/clamd\0-c\0/etc/clamd.d/mail.conf\0");
        let (sigs, lib, local) = (daily("/srv/sigs"), daily("/var/lib/clamav"), daily("/usr/local/share/clamav"));
        for (files, expected) in [
            (vec![(clamd, own), (freshclam, stock), (&lib, &new), (&sigs, &old), plain], Some(1)),
            (vec![(clamd, own), (freshclam, stock), (&lib, &new), plain], None),
            (vec![(clamd, "User clamav\n"), (freshclam, own), (&lib, &new), (&sigs, &old), plain], Some(24)),
            (vec![(freshclam, own), (&sigs, &new), plain], Some(24)),
            (vec![(&lib, &new), plain], Some(24)),
            (vec![(clamd, stock), (&lib, &new), other], None),
            (vec![("/usr/local/etc/clamd.conf", "User clamav\n"), (&local, &old), (&lib, &new), plain], Some(1)),
        ] {
            let (_folder, host) = host_with(&files);
            let time = definitions_time(&host, &[&process(7, "/usr/sbin/clamd")]);
            let expected = expected.map(|day| format!("2026-11-{day:02}T09:24:00Z").parse().unwrap());
            assert_eq!(time.known().copied(), expected, "{files:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), text in any::<String>()) {
            let _ = published(&bytes);
            let _ = published(&header(&format!("ClamAV-VDB:{text}")));
            let _ = setting(&text, "A");
            let _ = settings_file(&text);
        }
    }
}
