//! Programs that send the log to other hosts, and by which way. Names and secrets of the other hosts are not kept.

mod rsyslog;
mod syslog_ng;

use std::{collections::BTreeSet, path::Path};

use muster_proto::fact::{Cause, Forwarder, ForwarderProgram, Reading, Transmission, Unknown};

use super::{
    super::processes::{self, Process},
    units,
};
use crate::host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES};

/// What the settings of a program say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Sending {
    /// Ways to other hosts.
    ways: BTreeSet<Transmission>,
    /// Settings that are taken in from elsewhere.
    elsewhere: Option<String>,
}

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

/// Returns the programs that run or are there, and whether each could be looked for.
pub(super) fn look(host: &dyn Host, processes: &Result<Vec<Process>, Unknown>) -> (Vec<Forwarder>, Reading<bool>) {
    let mut forwarders = Vec::new();
    let mut complete = match processes {
        Ok(_) => Reading::Known(true),
        Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
    };
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    for (program, paths, units) in KNOWN {
        let running = processes::running(processes, &owned(paths), &owned(units)).0;
        let is_there = processes::is_installed(host, paths).unwrap_or_else(|unknown| {
            complete = Reading::Unknown { unknown };
            false
        });
        if !is_there && running != Reading::Known(true) {
            continue;
        }
        let (sends, ways) = match sending(host, *program) {
            Ok(Sending { ways, .. }) if !ways.is_empty() => (Reading::Known(true), ways.into_iter().collect()),
            Ok(Sending { elsewhere: Some(elsewhere), .. }) => {
                let detail = format!("settings are also taken from {elsewhere}, which this build does not follow");
                (Reading::unknown(Cause::Undecidable, detail), Vec::new())
            }
            Ok(_) => (Reading::Known(false), Vec::new()),
            Err(unknown) => (Reading::Unknown { unknown }, Vec::new()),
        };
        forwarders.push(Forwarder { program: *program, running, sends, ways });
    }
    (forwarders, complete)
}

fn sending(host: &dyn Host, program: ForwarderProgram) -> Result<Sending, Unknown> {
    match program {
        ForwarderProgram::Rsyslog => {
            Ok(rsyslog::parse(&with_folder(host, "/etc/rsyslog.conf", "/etc/rsyslog.d", FILE_BYTES)?))
        }
        ForwarderProgram::SyslogNg => Ok(syslog_ng::parse(&with_folder(
            host,
            "/etc/syslog-ng/syslog-ng.conf",
            "/etc/syslog-ng/conf.d",
            FILE_BYTES,
        )?)),
        ForwarderProgram::JournalUpload => {
            let url = units::setting(host, "journal-upload.conf", "Upload", "URL")?;
            let ways = url.filter(|url| !is_local(url_host(url))).map(|_| Transmission::Http).into_iter().collect();
            Ok(Sending { ways, elsewhere: None })
        }
        ForwarderProgram::FluentBit => Ok(fluent_bit(&with_folder(
            host,
            "/etc/fluent-bit/fluent-bit.conf",
            "/etc/fluent-bit/conf.d",
            SMALL_FILE_BYTES,
        )?)),
        ForwarderProgram::Filebeat | ForwarderProgram::Vector => {
            let detail = format!("this build does not read the settings of {}", program.as_str());
            Err(Unknown::new(Cause::Unsupported, detail))
        }
    }
}

/// Returns the file, and the `.conf` files of the folder in order of name.
fn with_folder(host: &dyn Host, file: &str, folder: &str, limit: usize) -> Result<String, Unknown> {
    let read =
        |path: &Path| host.read(path, limit).map_err(|error| host::unknown(format!("read {}", path.display()), &error));
    let mut bytes = read(Path::new(file))?;
    let names = match host.list(Path::new(folder)) {
        Ok(names) => names,
        Err(error) if host::cause(&error) == Cause::Absent => Vec::new(),
        Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
    };
    for name in names.iter().filter(|name| name.as_encoded_bytes().ends_with(b".conf")) {
        bytes.push(b'\n');
        bytes.extend(read(&Path::new(folder).join(name))?);
        if bytes.len() > FILE_BYTES {
            return Err(Unknown::new(Cause::Limit, format!("{file} and {folder} have more than {FILE_BYTES} bytes")));
        }
    }
    String::from_utf8(bytes).map_err(|_| Unknown::new(Cause::Garbled, format!("{file} or {folder} is not UTF-8")))
}

/// Returns the host of a URL or of `host:port`.
fn url_host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// Returns whether `target` is the host itself: what is sent there has not left it.
fn is_local(target: &str) -> bool {
    let target = target.trim().trim_start_matches('[');
    target.is_empty() || ["127.", "localhost", "::1", "0.0.0.0"].iter().any(|local| target.starts_with(local))
}

/// Reads fluent-bit's classic format: sections such as `[OUTPUT]`, and a name and a value on each line.
fn fluent_bit(text: &str) -> Sending {
    let mut sending = Sending::default();
    let mut output: Option<(String, String)> = None;
    let end = |output: &mut Option<(String, String)>, sending: &mut Sending| {
        let Some((name, host)) = output.take() else { return };
        let way = match name.as_str() {
            "" | "stdout" | "file" | "null" | "counter" | "flowcounter" | "exit" | "lib" => return,
            "syslog" => Transmission::SyslogTcp,
            "http" | "es" | "opensearch" | "loki" | "splunk" | "opentelemetry" => Transmission::Http,
            _ => Transmission::Other,
        };
        if host.is_empty() || !is_local(&host) {
            sending.ways.insert(way);
        }
    };
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') {
            end(&mut output, &mut sending);
            output = line.eq_ignore_ascii_case("[OUTPUT]").then(Default::default);
        } else if line.len() > 8 && line.is_char_boundary(8) && line[..8].eq_ignore_ascii_case("@INCLUDE") {
            sending.elsewhere = Some(line[8..].trim().to_owned());
        } else if let Some((key, value)) = line.split_once(char::is_whitespace)
            && let Some((name, host)) = &mut output
        {
            match key.to_ascii_lowercase().as_str() {
                "name" => *name = value.trim().to_ascii_lowercase(),
                "host" => *host = value.trim().to_owned(),
                _ => {}
            }
        }
    }
    end(&mut output, &mut sending);
    sending
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_host_itself_is_no_other_host() {
        for target in ["127.0.0.1", "localhost:514", "[::1]:514", "::1", "", " localhost"] {
            assert!(is_local(target), "{target}");
        }
        for target in ["10.0.0.1", "logs.example.com", "[2001:db8::1]:514"] {
            assert!(!is_local(target), "{target}");
        }
        assert_eq!(url_host("https://logs.example.com:19532/x"), "logs.example.com:19532");
    }

    #[test]
    fn an_output_of_fluent_bit_that_leaves_the_host_counts() {
        let of = |text: &str| fluent_bit(text).ways.into_iter().collect::<Vec<_>>();
        assert_eq!(of("[SERVICE]\n  Flush 1\n[OUTPUT]\n    Name stdout\n    Match *\n"), []);
        assert_eq!(of("[OUTPUT]\n Name es\n Host es.example.com\n[INPUT]\n Name tail\n"), [Transmission::Http]);
        assert_eq!(of("[OUTPUT]\n Name forward\n Host 127.0.0.1\n"), []);
        assert_eq!(of("# [OUTPUT]\n[INPUT]\n Name forward\n"), []);
        assert!(fluent_bit("@INCLUDE other.conf\n").elsewhere.is_some());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = (fluent_bit(&text), rsyslog::parse(&text), syslog_ng::parse(&text));
            let _ = (is_local(&text), url_host(&text));
        }
    }
}
