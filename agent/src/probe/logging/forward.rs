//! Programs that send the log to other hosts, and by which way. Names and secrets of the other hosts are not kept.

mod fluent_bit;
mod others;
mod own;
mod rsyslog;
mod started;
mod syslog_ng;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{Cause, Forwarder, ForwarderProgram, Reading, Transmission, Unknown},
    time::Timestamp,
};

use self::own::Own;
use super::{
    super::processes::{self, Process},
    journal, units,
};
use crate::host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES};

/// What the settings of a program say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Sending {
    /// Ways to other hosts.
    ways: BTreeSet<Transmission>,
    /// Why there may be others that were not found.
    doubt: Option<String>,
}

impl Sending {
    /// Returns the doubt where settings are taken in from `path`.
    fn elsewhere(path: &str) -> String {
        format!("settings are also taken from {path}, which this build does not follow")
    }
}

const RSYSLOG_MAIN: &str = "/etc/rsyslog.conf";
const RSYSLOG_FOLDER: &str = "/etc/rsyslog.d";
const SYSLOG_NG_MAIN: &str = "/etc/syslog-ng/syslog-ng.conf";
const SYSLOG_NG_FOLDER: &str = "/etc/syslog-ng/conf.d";
const FLUENT_BIT_MAIN: &str = "/etc/fluent-bit/fluent-bit.conf";
const FLUENT_BIT_FOLDER: &str = "/etc/fluent-bit/conf.d";

/// Programs that may send, in order of name: where they are, and systemd units that run them.
const KNOWN: &[(ForwarderProgram, &[&str], &[&str])] = &[
    (ForwarderProgram::Filebeat, &["/usr/share/filebeat/bin/filebeat"], &["filebeat.service"]),
    (ForwarderProgram::FluentBit, &["/opt/fluent-bit/bin/fluent-bit", "/usr/bin/fluent-bit"], &["fluent-bit.service"]),
    (
        ForwarderProgram::JournalUpload,
        &["/usr/lib/systemd/systemd-journal-upload", "/lib/systemd/systemd-journal-upload"],
        &["systemd-journal-upload.service"],
    ),
    (ForwarderProgram::Rsyslog, &["/usr/sbin/rsyslogd"], &["rsyslog.service"]),
    (ForwarderProgram::SyslogNg, &["/usr/sbin/syslog-ng"], &["syslog-ng.service"]),
    (ForwarderProgram::Vector, &["/usr/bin/vector"], &["vector.service"]),
];

/// Other programs that may send and whose settings are not read, in order of name.
const OTHERS: &[(&str, &[&str], &[&str])] = &[
    ("Alloy", &["/usr/bin/alloy", "/usr/bin/grafana-agent"], &["alloy.service", "grafana-agent.service"]),
    ("Azure Monitor Agent", &["/opt/microsoft/azuremonitoragent/bin/mdsd"], &["azuremonitoragent.service"]),
    (
        "CloudWatch Agent",
        &["/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent"],
        &["amazon-cloudwatch-agent.service"],
    ),
    ("Datadog Agent", &["/opt/datadog-agent/bin/agent/agent"], &["datadog-agent.service"]),
    ("Elastic Agent", &["/opt/Elastic/Agent/elastic-agent", "/usr/bin/elastic-agent"], &["elastic-agent.service"]),
    (
        "Fluentd",
        &["/opt/fluent/bin/ruby", "/opt/td-agent/bin/ruby", "/opt/td-agent/embedded/bin/ruby"],
        &["fluentd.service", "td-agent.service"],
    ),
    ("Journalbeat", &["/usr/share/journalbeat/bin/journalbeat"], &["journalbeat.service"]),
    ("NXLog", &["/opt/nxlog/bin/nxlog", "/usr/bin/nxlog"], &["nxlog.service"]),
    (
        "OpenTelemetry Collector",
        &["/usr/bin/otelcol", "/usr/bin/otelcol-contrib", "/usr/local/bin/otelcol-sumo"],
        &["otelcol.service", "otelcol-contrib.service", "otelcol-sumo.service"],
    ),
    (
        "Ops Agent",
        &[
            "/opt/google-cloud-ops-agent/libexec/google_cloud_ops_agent_wrapper",
            "/opt/google-cloud-ops-agent/subagents/fluent-bit/bin/fluent-bit",
        ],
        &["google-cloud-ops-agent-fluent-bit.service"],
    ),
    ("Promtail", &["/usr/bin/promtail", "/usr/local/bin/promtail"], &["promtail.service"]),
    (
        "Splunk",
        &["/opt/splunk/bin/splunkd", "/opt/splunkforwarder/bin/splunkd"],
        &["SplunkForwarder.service", "Splunkd.service"],
    ),
    ("Wazuh", &["/var/ossec/bin/wazuh-logcollector"], &["wazuh-agent.service"]),
];

/// Returns the programs that run or are there, and whether each could be looked for.
pub(super) fn look(
    host: &dyn Host,
    processes: &Result<Vec<Process>, Unknown>,
    now: Timestamp,
) -> (Vec<Forwarder>, Reading<bool>) {
    let mut forwarders = Vec::new();
    let mut complete = match processes {
        Ok(_) => Reading::Known(true),
        Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
    };
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    for (program, paths, units) in KNOWN {
        let running = processes::running(host, processes, &owned(paths), &owned(units)).0;
        let is_there = processes::is_installed(host, paths).unwrap_or_else(|unknown| {
            complete = Reading::Unknown { unknown };
            false
        });
        if !is_there && running != Reading::Known(true) {
            continue;
        }
        let differs = differs(host, *program, processes, paths, units);
        let (sends, ways) = match differs.map_or_else(|| sending_away(host, *program, now), Err) {
            Ok(Sending { ways, .. }) if !ways.is_empty() => (Reading::Known(true), ways.into_iter().collect()),
            Ok(Sending { doubt: Some(doubt), .. }) => (Reading::unknown(Cause::Undecidable, doubt), Vec::new()),
            Ok(_) => (Reading::Known(false), Vec::new()),
            Err(unknown) => (Reading::Unknown { unknown }, Vec::new()),
        };
        forwarders.push(Forwarder { program: *program, running, sends, ways });
    }
    if complete == Reading::Known(true) {
        let others = OTHERS
            .iter()
            .map(|(name, paths, units)| (name, processes::running(host, processes, &owned(paths), &owned(units)).0));
        for (name, running) in others {
            match running {
                Reading::Known(false) => continue,
                Reading::Known(true) => {
                    let detail = format!("{name} runs, and this build does not read its settings");
                    complete = Reading::unknown(Cause::Unsupported, detail);
                }
                Reading::Unknown { unknown } => complete = Reading::Unknown { unknown },
            }
            break;
        }
    }
    (forwarders, complete)
}

/// Returns what a program sends to hosts that are not this one. Who this one is, is asked for where that matters alone.
fn sending_away(host: &dyn Host, program: ForwarderProgram, now: Timestamp) -> Result<Sending, Unknown> {
    let found = sending(host, program, &Own::default(), now)?;
    if found.ways.is_empty() { Ok(found) } else { sending(host, program, &Own::look(host)?, now) }
}

fn sending(host: &dyn Host, program: ForwarderProgram, own: &Own, now: Timestamp) -> Result<Sending, Unknown> {
    match program {
        ForwarderProgram::Rsyslog => {
            let main = text(host, RSYSLOG_MAIN, FILE_BYTES)?;
            let folder =
                if rsyslog::takes_folder(&main) { folder(host, RSYSLOG_FOLDER, FILE_BYTES)? } else { String::new() };
            let found = rsyslog::parse(&main, &folder, own);
            if !found.ways.is_empty()
                && rsyslog::is_of_socket_alone(&main, &folder)
                && let Some(doubt) = kept_back(host)?
            {
                return Ok(Sending { ways: BTreeSet::new(), doubt: Some(doubt) });
            }
            Ok(found)
        }
        ForwarderProgram::SyslogNg => {
            let main = text(host, SYSLOG_NG_MAIN, FILE_BYTES)?;
            let folder = if syslog_ng::takes_folder(&main) {
                folder(host, SYSLOG_NG_FOLDER, FILE_BYTES)?
            } else {
                String::new()
            };
            Ok(syslog_ng::parse(&main, &folder, own))
        }
        ForwarderProgram::JournalUpload => {
            let url = units::setting(host, "journal-upload.conf", "Upload", "URL")?;
            let ways = url.filter(|url| !own.is_local(url_host(url))).map(|_| Transmission::Http).into_iter().collect();
            Ok(Sending { ways, doubt: None })
        }
        ForwarderProgram::FluentBit => {
            let mut all = text(host, FLUENT_BIT_MAIN, SMALL_FILE_BYTES)?;
            if fluent_bit::takes_folder(&all) {
                all += &folder(host, FLUENT_BIT_FOLDER, SMALL_FILE_BYTES)?;
            }
            // Of a daemon that is gone the files may be left. On a quiet host nobody signs in for days.
            let is_written = |path: &str| {
                host.metadata(Path::new(path))
                    .is_ok_and(|file| fluent_bit::SIGN_INS.contains(&path) || journal::is_live(file.modified, now))
            };
            Ok(fluent_bit::parse(&all, own, &is_written))
        }
        ForwarderProgram::Filebeat | ForwarderProgram::Vector => {
            let detail = format!("this build does not read the settings of {}", program.as_str());
            Err(Unknown::new(Cause::Unsupported, detail))
        }
    }
}

/// Returns why systemd-journald, which has the system's log socket, does not hand on all of the log (journald.conf(5)). What it does
/// where nothing is set is up to who built it.
fn kept_back(host: &dyn Host) -> Result<Option<String>, Unknown> {
    let setting = |key| units::setting(host, "journald.conf", "Journal", key);
    let told =
        |key: &str, value: &str| Some(format!("systemd-journald hands on a part of the log at most: {key}={value}"));
    if let Some(forwards) = setting("ForwardToSyslog")?
        && !["1", "yes", "y", "true", "t", "on"].iter().any(|yes| forwards.eq_ignore_ascii_case(yes))
    {
        return Ok(told("ForwardToSyslog", &forwards));
    }
    Ok(match setting("MaxLevelSyslog")? {
        Some(level) if !["info", "6", "debug", "7"].contains(&level.as_str()) => told("MaxLevelSyslog", &level),
        _ => None,
    })
}

/// Returns why a program that runs may have other settings than its files hold.
fn differs(
    host: &dyn Host,
    program: ForwarderProgram,
    processes: &Result<Vec<Process>, Unknown>,
    programs: &[&str],
    units: &[&str],
) -> Option<Unknown> {
    type TakesFolder = fn(&str) -> bool;
    type Files = (&'static str, &'static str, TakesFolder);
    let (line, files): (_, Option<Files>) = match program {
        ForwarderProgram::Rsyslog => (started::RSYSLOG, Some((RSYSLOG_MAIN, RSYSLOG_FOLDER, rsyslog::takes_folder))),
        ForwarderProgram::SyslogNg => {
            (started::SYSLOG_NG, Some((SYSLOG_NG_MAIN, SYSLOG_NG_FOLDER, syslog_ng::takes_folder)))
        }
        ForwarderProgram::FluentBit => {
            (started::FLUENT_BIT, Some((FLUENT_BIT_MAIN, FLUENT_BIT_FOLDER, fluent_bit::takes_folder)))
        }
        ForwarderProgram::JournalUpload => (started::JOURNAL_UPLOAD, None),
        ForwarderProgram::Filebeat | ForwarderProgram::Vector => return None,
    };
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let found = processes::of(host, processes.as_deref().unwrap_or_default(), &owned(programs), &owned(units));
    let ids: Vec<u32> = found.into_iter().map(|process| process.id).collect();
    if ids.is_empty() {
        return None;
    }
    let Some((main, folder, takes_folder)) = files else { return started::differs(host, line, &ids, &[]) };
    let mut files = vec![PathBuf::from(main)];
    let takes_folder = text(host, main, FILE_BYTES).is_ok_and(|main| takes_folder(&main));
    // A folder that is not there has no files that may be newer.
    if takes_folder && let Ok(names) = host.list(Path::new(folder)) {
        let names = names.iter().filter(|name| is_taken_in(name));
        files.push(PathBuf::from(folder));
        files.extend(names.map(|name| Path::new(folder).join(name)));
    }
    started::differs(host, line, &ids, &files)
}

fn text(host: &dyn Host, path: impl AsRef<Path>, limit: usize) -> Result<String, Unknown> {
    let path = path.as_ref();
    let bytes = host.read(path, limit).map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
    // A comment may be of an older encoding, and what stands for its letters is no part of any name that is looked for.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the `.conf` files of the folder in order of name, each after a line's end; nothing where it is not there.
fn folder(host: &dyn Host, folder: &str, limit: usize) -> Result<String, Unknown> {
    let names = match host.list(Path::new(folder)) {
        Ok(names) => names,
        Err(error) if host::cause(&error) == Cause::Absent => Vec::new(),
        Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
    };
    let mut all = String::new();
    for name in names.iter().filter(|name| is_taken_in(name)) {
        all.push('\n');
        all.push_str(&text(host, Path::new(folder).join(name), limit)?);
        if all.len() > FILE_BYTES {
            return Err(Unknown::new(Cause::Limit, format!("{folder} has more than {FILE_BYTES} bytes")));
        }
    }
    Ok(all)
}

/// Returns whether `*.conf` stands for the name. By glob(7) it does not for one that begins with a dot.
fn is_taken_in(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".conf") && !name.starts_with(b".")
}

/// Returns the host of a URL or of `host:port`.
fn url_host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_program_whose_settings_are_not_read_leaves_open_what_is_sent() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/logging/cloud-vm-audit");
        let host = host::Recorded::at(&case).unwrap();
        let complete = |program: &str| {
            let process = Process { id: 7, name: "x".to_owned(), program: Some(program.to_owned()), unit: None };
            look(&host, &Ok(vec![process]), "2026-11-26T14:21:58Z".parse().unwrap()).1
        };
        assert_eq!(complete("/usr/bin/sleep"), Reading::Known(true));
        for program in ["/opt/splunkforwarder/bin/splunkd", "/usr/bin/promtail"] {
            assert!(complete(program).known().is_none(), "{program}");
        }
        assert!(OTHERS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn what_journald_does_not_hand_on_is_not_sent() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/logging/debian-12-rsyslog");
        let sends = |rsyslog: &str, journald: &str| {
            let (folder, mut host) = (tempfile::tempdir().unwrap(), host::Recorded::at(&case).unwrap());
            for (path, text) in [("/etc/rsyslog.conf", rsyslog), ("/etc/systemd/journald.conf", journald)] {
                host.index_mut().errors.remove(&format!("read {path}"));
                let place = folder.path().join("files").join(path.trim_start_matches('/'));
                std::fs::create_dir_all(place.parent().unwrap()).unwrap();
                std::fs::write(place, text).unwrap();
            }
            std::fs::write(folder.path().join("index.json"), serde_json::to_vec(host.index_mut()).unwrap()).unwrap();
            !sending(
                &host::Recorded::at(folder.path()).unwrap(),
                ForwarderProgram::Rsyslog,
                &Own::default(),
                Timestamp::EPOCH,
            )
            .unwrap()
            .ways
            .is_empty()
        };
        let (socket, journal) = ("module(load=\"imuxsock\")\n*.* @@l\n", "module(load=\"imjournal\")\n*.* @@l\n");
        for (rsyslog, journald, expected) in [
            (socket, "", true),
            (socket, "[Journal]\nForwardToSyslog=yes\nMaxLevelSyslog=debug\n", true),
            (socket, "[Journal]\nForwardToSyslog=no\n", false),
            (socket, "[Journal]\nMaxLevelSyslog=emerg\n", false),
            (journal, "[Journal]\nForwardToSyslog=no\n", true),
        ] {
            assert_eq!(sends(rsyslog, journald), expected, "{rsyslog}{journald}");
        }
    }

    #[test]
    fn a_file_whose_name_begins_with_a_dot_is_not_taken_in() {
        for (name, expected) in [("90-fwd.conf", true), (".90-fwd.conf", false), ("90-fwd.conf.off", false)] {
            assert_eq!(is_taken_in(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn the_host_of_a_url_is_found() {
        for (url, host) in [
            ("https://logs.example.com:19532/x", "logs.example.com:19532"),
            ("http://logs.example.com@127.0.0.1/", "127.0.0.1"),
            ("http://[::1]?x", "[::1]"),
            ("logs:514", "logs:514"),
        ] {
            assert_eq!(url_host(url), host, "{url}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let own = Own::default();
            let _ = (fluent_bit::parse(&text, &own, &|_| true), rsyslog::parse(&text, &text, &own), syslog_ng::parse(&text, &text, &own));
            let _ = url_host(&text);
        }

        #[test]
        fn arbitrary_settings_of_rsyslog_never_panic(
            text in r#"([a-z*.,;:$&{}~()"'\\/#@=!-]|[ \n]|if |then |set |call |action\(|type="omfwd"|\*\.\*|/\*|\*/){0,60}"#
        ) {
            let _ = rsyslog::parse(&text, &text, &Own::default());
        }
    }
}
