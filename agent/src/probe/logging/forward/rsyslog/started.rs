//! Why an rsyslogd that runs may have other settings than its files hold: it takes them when it starts, and at no other time.

use std::path::{Path, PathBuf};

use muster_proto::{
    fact::{Cause, Unknown},
    time::Timestamp,
};

use crate::{
    host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES},
    probe::{processes, remote_access::changed_after},
};

/// Flags of rsyslogd(8) that take an argument.
const WITH_ARGUMENT: &str = "acfgilmMNpsStTu";
/// States when the kernel started (proc_stat(5), `btime`).
const KERNEL: &str = "/proc/stat";
/// Hundredths of a second are what proc_pid_stat(5) tells times in.
const TICK_MICROS: i64 = 10_000;
/// The start of the kernel is told in whole seconds.
const TOLERANCE_MICROS: i64 = 1_000_000;

/// Returns why a process may have other settings than `files`, of which the first is the main file, hold.
pub(in super::super) fn differs(host: &dyn Host, ids: &[u32], files: &[PathBuf]) -> Option<Unknown> {
    ids.iter().find_map(|id| of_process(host, *id, files).unwrap_or_else(Some))
}

fn of_process(host: &dyn Host, id: u32, files: &[PathBuf]) -> Result<Option<Unknown>, Unknown> {
    let Some(arguments) = read(host, &format!("/proc/{id}/cmdline"))? else { return Ok(None) };
    let main = files.first().map(PathBuf::as_path);
    if let Some(argument) = setting(&arguments, main) {
        return Ok(Some(Unknown::new(Cause::Undecidable, format!("rsyslogd was started with {argument}"))));
    }
    let Some(process) = read(host, &format!("/proc/{id}/stat"))? else { return Ok(None) };
    let kernel =
        host.read(Path::new(KERNEL), FILE_BYTES).map_err(|error| host::unknown(format!("read {KERNEL}"), &error))?;
    let started = started(&String::from_utf8_lossy(&kernel), &process)
        .ok_or_else(|| Unknown::new(Cause::Garbled, format!("/proc/{id}/stat does not tell when it started")))?;
    for file in files {
        if let Some(changed) = changed_after(host, file, started)? {
            let detail = format!("{} was changed after rsyslogd took its settings", changed.display());
            return Ok(Some(Unknown::new(Cause::Stale, detail)));
        }
    }
    Ok(None)
}

/// Returns a file of a process; `None` of one that is gone.
fn read(host: &dyn Host, path: &str) -> Result<Option<String>, Unknown> {
    match host.read(Path::new(path), SMALL_FILE_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if processes::has_ended(&error) => Ok(None),
        Err(error) => Err(host::unknown(format!("read {path}"), &error)),
    }
}

/// Returns the flag of a command line that gives it another file than `main`, or another root.
fn setting(cmdline: &str, main: Option<&Path>) -> Option<String> {
    let words: Vec<&str> = cmdline.split('\0').collect();
    words.iter().enumerate().skip(1).find_map(|(at, word)| {
        let flags = word.strip_prefix('-')?;
        // Behind flags without an argument may be one that has one.
        let (start, flag) = flags.char_indices().find(|(_, flag)| WITH_ARGUMENT.contains(*flag))?;
        let argument = match &flags[start + 1..] {
            "" => words.get(at + 1).copied().unwrap_or_default(),
            joined => joined,
        };
        let is_setting = flag == 'T' || flag == 'f' && main != Some(Path::new(argument));
        is_setting.then(|| format!("-{flag} {argument}"))
    })
}

/// Returns a time that is no earlier than the start of a process, from `btime` of proc_stat(5) and `starttime` of
/// proc_pid_stat(5).
fn started(kernel: &str, process: &str) -> Option<Timestamp> {
    let kernel: i64 = kernel.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    // The first field behind the name is the third of all, and the start is the 22nd.
    let ticks: i64 = process.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let micros = kernel.checked_mul(1_000_000)?.checked_add(ticks.checked_mul(TICK_MICROS)?)?;
    Timestamp::from_micros(micros.checked_add(TOLERANCE_MICROS)?)
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::PathText;
    use proptest::prelude::*;

    use super::*;

    const STAT: &str = "74 (rs:main Q) b) S 1 74 74 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 250 9 10";

    #[test]
    fn another_file_of_the_command_line_is_told() {
        let main = Some(Path::new("/etc/rsyslog.conf"));
        for (words, expected) in [
            (vec!["/usr/sbin/rsyslogd", "-n", "-iNONE"], None),
            (vec!["/usr/sbin/rsyslogd", "-n", "-i", "/run/f"], None),
            (vec!["rsyslogd", "-f", "/etc/rsyslog.conf"], None),
            (vec!["rsyslogd", "-nf/etc/rsyslog.conf"], None),
            (vec!["rsyslogd", "-f", "/tmp/o.conf"], Some("-f /tmp/o.conf")),
            (vec!["rsyslogd", "-n", "-f/tmp/o.conf"], Some("-f /tmp/o.conf")),
            (vec!["rsyslogd", "-nf", "/tmp/o.conf"], Some("-f /tmp/o.conf")),
            (vec!["rsyslogd", "-T", "/srv"], Some("-T /srv")),
        ] {
            let cmdline = words.iter().map(|word| format!("{word}\0")).collect::<String>();
            assert_eq!(setting(&cmdline, main).as_deref(), expected, "{words:?}");
        }
    }

    #[test]
    fn settings_that_are_newer_than_the_process_are_told() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/logging/debian-12-rsyslog");
        let file = PathBuf::from("/etc/rsyslog.conf");
        let seconds = |seconds: i64| Timestamp::from_seconds(seconds).unwrap();
        let (started, mut host) = (started("btime 1000\n", STAT).unwrap(), host::Recorded::at(&case).unwrap());
        assert_eq!(started.micros(), 1_003_500_000);
        let entry = *host.index_mut().metadata.values().next().unwrap();
        for (changed, is_newer) in [(1_003, false), (1_004, true)] {
            let entry = host::Metadata { modified: Some(seconds(changed)), ..entry };
            host.index_mut().metadata.insert(PathText::from_bytes(b"/etc/rsyslog.conf"), entry);
            assert_eq!(changed_after(&host, &file, started).unwrap().is_some(), is_newer, "{changed}");
        }
        // That of the capture was started with the settings that it has.
        let host = host::Recorded::at(&case).unwrap();
        assert_eq!(differs(&host, &[74], std::slice::from_ref(&file)), None);
        let stale = differs(&host, &[74], &["/etc/rsyslog.conf".into(), "/var/log/syslog".into()]);
        assert_eq!(stale.map(|unknown| unknown.cause), Some(Cause::Stale));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), number in any::<i64>()) {
            let _ = (setting(&text, None), started(&text, &text));
            let _ = started(&format!("btime {number}\n"), &STAT.replace("250", &number.to_string()));
        }
    }
}
