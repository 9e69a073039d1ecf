//! Why a program that runs may have other settings than its files hold: it takes them when it starts. Of one that takes them again
//! when it is told to, that is not seen.

use std::path::{Path, PathBuf};

use muster_proto::{
    fact::{Cause, Unknown},
    time::Timestamp,
};

use crate::{
    host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES},
    probe::{processes, remote_access::changed_after},
};

/// How a program takes its settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommandLine {
    pub name: &'static str,
    /// Flags that take an argument.
    with_argument: &'static str,
    /// The one that takes the main file, also in its long form.
    file: (char, &'static str),
    /// Those that change where files are found, or what is taken in and sent.
    others: &'static str,
    /// Whether it has no settings where it is not given a file.
    needs_file: bool,
}

/// As in rsyslogd(8).
pub(super) const RSYSLOG: CommandLine =
    CommandLine { name: "rsyslogd", with_argument: "acfgilmMNpsStTu", file: ('f', ""), others: "T", needs_file: false };
/// As in syslog-ng(8).
pub(super) const SYSLOG_NG: CommandLine = CommandLine {
    name: "syslog-ng",
    with_argument: "CRcfgpu",
    file: ('f', "--cfgfile"),
    others: "C",
    needs_file: false,
};
/// As `fluent-bit --help` tells.
pub(super) const FLUENT_BIT: CommandLine = CommandLine {
    name: "fluent-bit",
    with_argument: "CFLPRTbcefilmoprstuw",
    file: ('c', "--config"),
    others: "FRTeimopru",
    needs_file: true,
};

/// As in systemd-journal-upload.service(8). It has no main file of settings that a flag names.
pub(super) const JOURNAL_UPLOAD: CommandLine = CommandLine {
    name: "systemd-journal-upload",
    with_argument: "uD",
    file: ('\0', "--no-such"),
    others: "uD",
    needs_file: false,
};

/// States when the kernel started (proc_stat(5), `btime`).
const KERNEL: &str = "/proc/stat";
/// Hundredths of a second are what proc_pid_stat(5) tells times in.
const TICK_MICROS: i64 = 10_000;
/// The start of the kernel is told in whole seconds.
const TOLERANCE_MICROS: i64 = 1_000_000;

/// Returns why a process may have other settings than `files`, of which the first is the main file, hold.
pub(super) fn differs(host: &dyn Host, line: CommandLine, ids: &[u32], files: &[PathBuf]) -> Option<Unknown> {
    ids.iter().find_map(|id| of_process(host, line, *id, files).unwrap_or_else(Some))
}

fn of_process(host: &dyn Host, line: CommandLine, id: u32, files: &[PathBuf]) -> Result<Option<Unknown>, Unknown> {
    let Some(arguments) = read(host, &format!("/proc/{id}/cmdline"))? else { return Ok(None) };
    let main = files.first().map(PathBuf::as_path);
    if let Some(argument) = setting(line, &arguments, main) {
        return Ok(Some(Unknown::new(Cause::Undecidable, format!("{} was started with {argument}", line.name))));
    }
    if files.is_empty() {
        return Ok(None);
    }
    let Some(process) = read(host, &format!("/proc/{id}/stat"))? else { return Ok(None) };
    let kernel =
        host.read(Path::new(KERNEL), FILE_BYTES).map_err(|error| host::unknown(format!("read {KERNEL}"), &error))?;
    let started = started(&String::from_utf8_lossy(&kernel), &process)
        .ok_or_else(|| Unknown::new(Cause::Garbled, format!("/proc/{id}/stat does not tell when it started")))?;
    for file in files {
        if let Some(changed) = changed_after(host, file, started)? {
            let detail = format!("{} was changed after {} took its settings", changed.display(), line.name);
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

/// Returns the flag of a command line that gives it another file than `main`, or other settings.
fn setting(line: CommandLine, cmdline: &str, main: Option<&Path>) -> Option<String> {
    let words: Vec<&str> = cmdline.split('\0').collect();
    let is_main = |argument: &str| main == Some(Path::new(argument));
    let mut has_file = false;
    for (at, word) in words.iter().enumerate().skip(1) {
        let next = words.get(at + 1).copied().unwrap_or_default();
        if word.starts_with("--") {
            let (name, argument) = word.split_once('=').unwrap_or((*word, next));
            let is_file = name == line.file.1;
            has_file |= is_file;
            // Long forms of the others are not told apart, but for those that begin with the flag's own letter.
            let is_other = [
                "--chroot",
                "--directory",
                "--file",
                "--filter",
                "--input",
                "--match",
                "--output",
                "--parser",
                "--plugin",
                "--prop",
                "--url",
                "--user",
            ];
            if is_file && !is_main(argument) || is_other.contains(&name) {
                return Some(format!("{name} {argument}"));
            }
            continue;
        }
        let Some(flags) = word.strip_prefix('-') else { continue };
        // Behind flags without an argument may be one that has one.
        let Some((start, flag)) = flags.char_indices().find(|(_, flag)| line.with_argument.contains(*flag)) else {
            continue;
        };
        let argument = match &flags[start + 1..] {
            "" => next,
            joined => joined,
        };
        let is_file = flag == line.file.0;
        has_file |= is_file;
        if is_file && !is_main(argument) || line.others.contains(flag) {
            return Some(format!("-{flag} {argument}"));
        }
    }
    (line.needs_file && !has_file).then(|| format!("no {}", line.file.1))
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
            assert_eq!(setting(RSYSLOG, &cmdline, main).as_deref(), expected, "{words:?}");
        }
        for (line, main, words, expected) in [
            (SYSLOG_NG, "/etc/syslog-ng/syslog-ng.conf", "syslog-ng -F", None),
            (SYSLOG_NG, "/etc/syslog-ng/syslog-ng.conf", "syslog-ng -F -p /run/s.pid --no-caps", None),
            (SYSLOG_NG, "/etc/syslog-ng/syslog-ng.conf", "syslog-ng --cfgfile=/etc/syslog-ng/syslog-ng.conf", None),
            (SYSLOG_NG, "/etc/syslog-ng/syslog-ng.conf", "syslog-ng -Ff /x", Some("-f /x")),
            (SYSLOG_NG, "/etc/syslog-ng/syslog-ng.conf", "syslog-ng --cfgfile /x", Some("--cfgfile /x")),
            (SYSLOG_NG, "/etc/syslog-ng/syslog-ng.conf", "syslog-ng --chroot=/x", Some("--chroot /x")),
            // As in the unit of its package.
            (FLUENT_BIT, "/etc/fluent-bit/fluent-bit.conf", "fluent-bit -c //etc/fluent-bit/fluent-bit.conf", None),
            (FLUENT_BIT, "/etc/fluent-bit/fluent-bit.conf", "fluent-bit -c /x.yaml", Some("-c /x.yaml")),
            (FLUENT_BIT, "/etc/fluent-bit/fluent-bit.conf", "fluent-bit -i cpu", Some("-i cpu")),
            (FLUENT_BIT, "/etc/fluent-bit/fluent-bit.conf", "fluent-bit", Some("no --config")),
            (JOURNAL_UPLOAD, "", "systemd-journal-upload --save-state", None),
            (JOURNAL_UPLOAD, "", "systemd-journal-upload --save-state --url=https://l", Some("--url https://l")),
            (JOURNAL_UPLOAD, "", "systemd-journal-upload -u https://l", Some("-u https://l")),
            (JOURNAL_UPLOAD, "", "systemd-journal-upload --user", Some("--user ")),
        ] {
            let cmdline = words.replace(' ', "\0");
            assert_eq!(setting(line, &cmdline, Some(Path::new(main))).as_deref(), expected, "{words}");
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
        assert_eq!(differs(&host, RSYSLOG, &[74], std::slice::from_ref(&file)), None);
        let stale = differs(&host, RSYSLOG, &[74], &["/etc/rsyslog.conf".into(), "/var/log/syslog".into()]);
        assert_eq!(stale.map(|unknown| unknown.cause), Some(Cause::Stale));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), number in any::<i64>()) {
            let _ = (setting(FLUENT_BIT, &text, None), started(&text, &text));
            let _ = started(&format!("btime {number}\n"), &STAT.replace("250", &number.to_string()));
        }
    }
}
