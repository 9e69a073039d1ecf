//! Outputs of fluent-bit that send the host's own log to other hosts, in its classic format: sections such as `[OUTPUT]`, and a name
//! and a value on each line. One that sends counts where what it matches is the system's log, and no filter may drop any of it.

use std::collections::BTreeMap;

use muster_proto::fact::Transmission;

use super::{Sending, own::Own, url_host};

/// How the main file takes in the files of the folder.
const FOLDER: [&str; 2] = ["conf.d/*.conf", "/etc/fluent-bit/conf.d/*.conf"];

/// Where an output sends to when nothing is set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Default {
    /// To no other host, whatever is set.
    Nowhere,
    /// To the host itself.
    Itself,
    /// To a service elsewhere.
    Service,
}

/// Outputs in order of name, as <https://docs.fluentbit.io/manual/pipeline/outputs> has them. Those for metrics alone send no log.
const OUTPUTS: &[(&str, Default, Transmission)] = &[
    ("azure", Default::Service, Transmission::Http),
    ("azure_blob", Default::Service, Transmission::Http),
    ("azure_kusto", Default::Service, Transmission::Http),
    ("azure_logs_ingestion", Default::Service, Transmission::Http),
    ("bigquery", Default::Service, Transmission::Http),
    ("chronicle", Default::Service, Transmission::Http),
    ("cloudwatch_logs", Default::Service, Transmission::Http),
    ("counter", Default::Nowhere, Transmission::Other),
    ("datadog", Default::Service, Transmission::Http),
    ("es", Default::Itself, Transmission::Http),
    ("exit", Default::Nowhere, Transmission::Other),
    ("file", Default::Nowhere, Transmission::Other),
    ("flowcounter", Default::Nowhere, Transmission::Other),
    ("forward", Default::Itself, Transmission::Other),
    ("gelf", Default::Itself, Transmission::Other),
    ("http", Default::Itself, Transmission::Http),
    ("influxdb", Default::Itself, Transmission::Http),
    ("kafka", Default::Itself, Transmission::Other),
    ("kafka-rest", Default::Itself, Transmission::Http),
    ("kinesis_firehose", Default::Service, Transmission::Http),
    ("kinesis_streams", Default::Service, Transmission::Http),
    ("lib", Default::Nowhere, Transmission::Other),
    ("logdna", Default::Service, Transmission::Http),
    ("loki", Default::Itself, Transmission::Http),
    ("nats", Default::Itself, Transmission::Other),
    ("nrlogs", Default::Service, Transmission::Http),
    ("null", Default::Nowhere, Transmission::Other),
    ("opensearch", Default::Itself, Transmission::Http),
    ("opentelemetry", Default::Itself, Transmission::Http),
    ("oracle_log_analytics", Default::Service, Transmission::Http),
    ("plot", Default::Nowhere, Transmission::Other),
    ("prometheus_exporter", Default::Nowhere, Transmission::Http),
    ("prometheus_remote_write", Default::Nowhere, Transmission::Http),
    ("s3", Default::Service, Transmission::Http),
    ("skywalking", Default::Itself, Transmission::Http),
    ("splunk", Default::Itself, Transmission::Http),
    ("stackdriver", Default::Service, Transmission::Http),
    ("stdout", Default::Nowhere, Transmission::Other),
    ("syslog", Default::Itself, Transmission::SyslogUdp),
    ("tcp", Default::Itself, Transmission::Other),
    ("td", Default::Service, Transmission::Http),
    ("udp", Default::Itself, Transmission::Other),
    ("vivo_exporter", Default::Nowhere, Transmission::Http),
    ("websocket", Default::Itself, Transmission::Http),
];

/// Filters that drop nothing.
const HARMLESS: [&str; 11] = [
    "aws",
    "checklist",
    "ecs",
    "geoip2",
    "kubernetes",
    "modify",
    "nest",
    "parser",
    "record_modifier",
    "stdout",
    "type_converter",
];
/// Files that syslog daemons write sign-ins to, and all else.
pub(super) const SIGN_INS: [&str; 2] = ["/var/log/auth.log", "/var/log/secure"];
const OTHER_LOGS: [&str; 2] = ["/var/log/syslog", "/var/log/messages"];
/// A pattern for all of them.
const ALL_LOGS: &str = "/var/log/*";

/// Returns whether the main file takes in the files of `conf.d`.
pub(super) fn takes_folder(main: &str) -> bool {
    main.lines().filter_map(included).any(|path| FOLDER.contains(&path))
}

/// Returns what settings in `text` send. Of what they take in from elsewhere only `conf.d` is in the text.
///
/// `is_written` says whether a file is there and is still written.
pub(super) fn parse(text: &str, own: &Own, is_written: &dyn Fn(&str) -> bool) -> Sending {
    let (mut sending, mut inputs, mut outputs) = (Sending::default(), Vec::new(), Vec::new());
    let (mut section, mut dropping, mut is_variable) = (Section::Other, None, false);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') {
            section = Section::of(line, &mut inputs, &mut outputs);
        } else if let Some(path) = included(line) {
            if !FOLDER.contains(&path) {
                sending.doubt = Some(Sending::elsewhere(path));
            }
        } else if let Some((key, value)) = line.split_once(char::is_whitespace) {
            let (key, value) = (key.to_ascii_lowercase(), value.trim());
            match section {
                Section::Input => inputs.last_mut().into_iter().for_each(|input: &mut Input| input.set(&key, value)),
                Section::Output => {
                    outputs.last_mut().into_iter().for_each(|output: &mut Output| output.set(&key, value))
                }
                Section::Filter if key == "name" && !HARMLESS.contains(&value.to_ascii_lowercase().as_str()) => {
                    dropping = Some(value.to_owned());
                }
                Section::Filter | Section::Other => {}
            }
            is_variable |= value.contains("${") && matches!(section, Section::Input);
        }
    }
    number(&mut inputs);
    for output in outputs {
        let gets_the_log = output.gets_the_log(&inputs, is_written);
        let Some(way) = output.way(own, &mut sending) else { continue };
        if let Some(filter) = &dropping {
            sending.doubt = Some(format!("the filter {filter} may drop a part of what is sent"));
        } else if is_variable || sending.doubt.is_some() {
            sending.doubt.get_or_insert_with(|| "what an input takes in is set elsewhere".to_owned());
        } else if gets_the_log {
            sending.ways.insert(way);
        } else {
            sending.doubt = Some("no input of the system's log is certainly for an output that sends".to_owned());
        }
    }
    sending
}

/// Kind of a section.
#[derive(Clone, Copy, Debug)]
enum Section {
    Input,
    Filter,
    Output,
    Other,
}

impl Section {
    /// Begins a section.
    fn of(line: &str, inputs: &mut Vec<Input>, outputs: &mut Vec<Output>) -> Self {
        match line.to_ascii_uppercase().as_str() {
            "[INPUT]" => {
                inputs.push(Input::default());
                Self::Input
            }
            "[OUTPUT]" => {
                outputs.push(Output::default());
                Self::Output
            }
            "[FILTER]" => Self::Filter,
            _ => Self::Other,
        }
    }
}

/// A section `[INPUT]`.
#[derive(Debug, std::default::Default)]
struct Input {
    name: String,
    tag: String,
    paths: String,
    mode: String,
    /// It takes in only a part.
    is_part: bool,
}

impl Input {
    fn set(&mut self, key: &str, value: &str) {
        match key {
            "name" => self.name = value.to_ascii_lowercase(),
            "tag" => self.tag = value.to_owned(),
            "path" => self.paths = value.to_owned(),
            "mode" => self.mode = value.to_ascii_lowercase(),
            "systemd_filter" | "exclude_path" | "ignore_older" | "tag_regex" | "processors" => self.is_part = true,
            _ => {}
        }
    }

    /// Returns whether sign-ins are taken in, and whether all else is.
    fn takes_in(&self, is_written: &dyn Fn(&str) -> bool) -> (bool, bool) {
        let has = |file: &str| self.paths.split(',').any(|path| [file, ALL_LOGS].contains(&path.trim()));
        let reads = |files: &[&str]| files.iter().any(|file| has(file) && is_written(file));
        match self.name.as_str() {
            _ if self.is_part => (false, false),
            "systemd" if self.paths.is_empty() || self.paths.trim_end_matches('/') == "/var/log/journal" => {
                (true, true)
            }
            "syslog" if !self.paths.is_empty() && !matches!(self.mode.as_str(), "tcp" | "udp") => (true, true),
            "tail" => (reads(&SIGN_INS), reads(&OTHER_LOGS)),
            _ => (false, false),
        }
    }
}

/// Gives inputs without a tag the one that they get: their name and their place among those of the name.
fn number(inputs: &mut [Input]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for input in inputs {
        let count = counts.entry(input.name.clone()).or_default();
        if input.tag.is_empty() {
            input.tag = format!("{}.{count}", input.name);
        }
        *count += 1;
    }
}

/// Returns whether `pattern`, in which `*` stands for any text, fits `tag` whatever stands for a `*` in that.
fn fits(pattern: &str, tag: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|start| tag.strip_prefix(start)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() && !tag.contains('*') };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Returns the path of a line such as `@INCLUDE conf.d/*.conf`.
fn included(line: &str) -> Option<&str> {
    let (word, path) = line.trim().split_once(char::is_whitespace)?;
    word.eq_ignore_ascii_case("@INCLUDE").then(|| path.trim())
}

/// A section `[OUTPUT]`.
#[derive(Debug, std::default::Default)]
struct Output {
    name: String,
    /// Hosts, as far as any is set.
    targets: Vec<String>,
    /// How syslog is sent.
    mode: String,
    is_tls: bool,
    /// Which records are for it: without a rule, none is.
    pattern: Option<String>,
    /// It has a rule that is not followed.
    has_regex: bool,
    /// Where it sends to stands in another file.
    is_elsewhere: bool,
}

impl Output {
    fn set(&mut self, key: &str, value: &str) {
        match key {
            "name" => self.name = value.to_ascii_lowercase(),
            "host" | "endpoint" => self.targets.push(url_host(value).to_owned()),
            "brokers" => self.targets.extend(value.split(',').map(|broker| broker.trim().to_owned())),
            // A socket of the host itself.
            "unix_path" => self.targets.push(String::new()),
            "cloud_id" => self.targets.push("elsewhere".to_owned()),
            "mode" => self.mode = value.to_ascii_lowercase(),
            "tls" => self.is_tls = matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes"),
            "match" => self.pattern = Some(value.to_owned()),
            "match_regex" => self.has_regex = true,
            "upstream" => self.is_elsewhere = true,
            _ => {}
        }
    }

    /// Returns whether all of the system's log is for it.
    fn gets_the_log(&self, inputs: &[Input], is_written: &dyn Fn(&str) -> bool) -> bool {
        let Some(pattern) = self.pattern.as_deref().filter(|_| !self.has_regex) else { return false };
        let taken = inputs.iter().filter(|input| fits(pattern, &input.tag)).map(|input| input.takes_in(is_written));
        let (sign_ins, others) = taken.fold((false, false), |all, one| (all.0 || one.0, all.1 || one.1));
        sign_ins && others
    }

    /// Returns the way to other hosts, if there is one.
    fn way(self, own: &Own, sending: &mut Sending) -> Option<Transmission> {
        if self.name.is_empty() || (self.pattern.is_none() && !self.has_regex) {
            return None;
        }
        let Some((_, default, way)) = OUTPUTS.iter().find(|(name, ..)| *name == self.name) else {
            sending.doubt = Some(format!("this build does not know where the output {} sends to", self.name));
            return None;
        };
        let is_variable = self.targets.iter().any(|target| target.contains("${"));
        let leaves = match default {
            Default::Nowhere => return None,
            Default::Itself => self.targets.iter().any(|target| !own.is_local(target)),
            Default::Service => self.targets.is_empty() || self.targets.iter().any(|target| !own.is_local(target)),
        };
        if self.is_elsewhere || is_variable {
            sending.doubt = Some(format!("where the output {} sends to is set elsewhere", self.name));
            return None;
        }
        leaves.then_some(match (self.name.as_str(), self.mode.as_str()) {
            ("syslog", "tls") => Transmission::SyslogTls,
            ("syslog", "tcp") if self.is_tls => Transmission::SyslogTls,
            ("syslog", "tcp") => Transmission::SyslogTcp,
            _ => *way,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_leaves_the_host_counts() {
        let of = |text: &str| {
            let Sending { ways, doubt } =
                parse(&format!("[INPUT]\n Name systemd\n[OUTPUT]\n Match *\n{text}"), &Own::default(), &|_| true);
            doubt.map_or(Ok(ways.into_iter().collect::<Vec<_>>()), Err)
        };
        for (text, expected) in [
            (" Name stdout\n", vec![]),
            (" Name es\n Host es.example.com\n[INPUT]\n Name tail\n", vec![Transmission::Http]),
            (" Name es\n Cloud_ID x:y\n", vec![Transmission::Http]),
            (" Name es\n", vec![]),
            (" Name forward\n Host 127.0.0.1\n", vec![]),
            (" Name forward\n", vec![]),
            (" Name forward\n Host l.example\n", vec![Transmission::Other]),
            (" Name forward\n Unix_Path /run/x\n", vec![]),
            (" Name prometheus_exporter\n Host 0.0.0.0\n", vec![]),
            (" Name prometheus_exporter\n Host 10.0.0.1\n", vec![]),
            (" Name syslog\n Host l.example\n", vec![Transmission::SyslogUdp]),
            (" Name syslog\n Host l.example\n Mode tcp\n", vec![Transmission::SyslogTcp]),
            (" Name syslog\n Host l.example\n Mode tcp\n tls On\n", vec![Transmission::SyslogTls]),
            (" Name kafka\n Brokers 127.0.0.1:9092, k.example:9092\n", vec![Transmission::Other]),
            (" Name s3\n bucket x\n", vec![Transmission::Http]),
            (" Name s3\n endpoint http://localhost:9000\n", vec![]),
        ] {
            assert_eq!(of(text), Ok(expected), "{text}");
        }
        for text in [" Name myown\n", " Name es\n Host ${ES}\n", " Name forward\n Upstream u.conf\n"] {
            assert!(of(text).is_err(), "{text}");
        }
        // Nothing is for it.
        assert_eq!(parse("[OUTPUT]\n Name es\n Host es.example.com\n", &Own::default(), &|_| true), Sending::default());
        assert_eq!(
            parse("# [OUTPUT]\n[INPUT]\n Name forward\n Host l\n Match *\n", &Own::default(), &|_| true),
            Sending::default()
        );
    }

    #[test]
    fn what_may_not_be_sent_is_in_doubt() {
        let of = |inputs: &str, output: &str| {
            let text = format!("{inputs}[OUTPUT]\n Name es\n Host es.example.com\n {output}\n");
            parse(&text, &Own::default(), &|_| true).doubt.is_none()
        };
        for (inputs, output) in [
            ("[INPUT]\n Name systemd\n", "Match *"),
            ("[INPUT]\n Name systemd\n", "Match systemd.0"),
            ("[INPUT]\n Name cpu\n[INPUT]\n Name systemd\n Tag host.*\n", "Match host.*"),
            ("[INPUT]\n Name systemd\n[FILTER]\n Name modify\n Match *\n", "Match *"),
            ("[INPUT]\n Name syslog\n Path /dev/log\n", "Match *"),
            ("[INPUT]\n Name tail\n Path /var/log/syslog,/var/log/auth.log\n", "Match tail.*"),
            ("[INPUT]\n Name tail\n Path /var/log/messages\n[INPUT]\n Name tail\n Path /var/log/secure\n", "Match *"),
        ] {
            assert!(of(inputs, output), "{inputs}{output}");
        }
        for (inputs, output) in [
            ("", "Match *"),
            ("[INPUT]\n Name cpu\n", "Match *"),
            ("[INPUT]\n Name systemd\n Tag host.*\n", "Match nosuch.*"),
            ("[INPUT]\n Name systemd\n Tag host.*\n", "Match host.x"),
            ("[INPUT]\n Name systemd\n", "Match_Regex nosuch"),
            ("[INPUT]\n Name systemd\n Systemd_Filter _SYSTEMD_UNIT=x.service\n", "Match *"),
            ("[INPUT]\n Name systemd\n Path /opt/journal\n", "Match *"),
            ("[INPUT]\n Name systemd\n Tag ${TAG}\n", "Match *"),
            ("[INPUT]\n Name syslog\n Mode tcp\n", "Match *"),
            ("[INPUT]\n Name tail\n Path /var/log/nginx/access.log\n", "Match *"),
            ("[INPUT]\n Name tail\n Path /var/log/syslog\n", "Match *"),
            ("[INPUT]\n Name systemd\n[FILTER]\n Name grep\n Match *\n", "Match *"),
            ("@INCLUDE x.conf\n[INPUT]\n Name systemd\n", "Match *"),
        ] {
            assert!(!of(inputs, output), "{inputs}{output}");
        }
        for (pattern, tag, does) in [
            ("*", "a.*", true),
            ("a*c", "abc", true),
            ("a*b*c", "a1b2c", true),
            ("a*c", "ab", false),
            ("abc", "abc", true),
            ("ab", "abc", false),
            ("a*a", "a", false),
            ("", "", true),
            ("a.*", "a.*", true),
        ] {
            assert_eq!(fits(pattern, tag), does, "{pattern} {tag}");
        }
    }

    #[test]
    fn a_file_that_nothing_writes_is_not_sent() {
        let of = |paths: &str, written: &[&str]| {
            let text =
                format!("[INPUT]\n Name tail\n Path {paths}\n[OUTPUT]\n Match *\n Name es\n Host es.example.com\n");
            !parse(&text, &Own::default(), &|path| written.contains(&path)).ways.is_empty()
        };
        let debian = ["/var/log/auth.log", "/var/log/syslog"];
        for (paths, written, expected) in [
            ("/var/log/syslog,/var/log/auth.log", &debian[..], true),
            ("/var/log/syslog,/var/log/auth.log", &[], false),
            ("/var/log/syslog,/var/log/auth.log", &debian[..1], false),
            ("/var/log/messages,/var/log/secure", &debian, false),
            ("/var/log/*", &debian, true),
            ("/var/log/*", &["/var/log/messages"], false),
        ] {
            assert_eq!(of(paths, written), expected, "{paths} {written:?}");
        }
    }

    #[test]
    fn the_folder_is_read_where_it_is_taken_in() {
        assert!(takes_folder("[SERVICE]\n Flush 1\n@include  conf.d/*.conf\n"));
        assert!(!takes_folder("[SERVICE]\n Flush 1\n# @INCLUDE conf.d/*.conf\n@INCLUDE other.conf\n"));
        assert!(parse("@INCLUDE other.conf\n", &Own::default(), &|_| true).doubt.unwrap().contains("other.conf"));
        assert_eq!(parse("@INCLUDE conf.d/*.conf\n", &Own::default(), &|_| true).doubt, None);
    }

    #[test]
    fn outputs_are_in_order_of_name() {
        assert!(OUTPUTS.iter().map(|(name, ..)| name.replace('-', "_")).is_sorted_by(|a, b| a < b));
    }
}
