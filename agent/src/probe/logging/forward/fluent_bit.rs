//! Outputs of fluent-bit that send to other hosts, in its classic format: sections such as `[OUTPUT]`, and a name and a value on
//! each line.

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

/// Returns whether the main file takes in the files of `conf.d`.
pub(super) fn takes_folder(main: &str) -> bool {
    main.lines().filter_map(included).any(|path| FOLDER.contains(&path))
}

/// Returns what settings in `text` send. Of what they take in from elsewhere only `conf.d` is in the text.
pub(super) fn parse(text: &str, own: &Own) -> Sending {
    let mut sending = Sending::default();
    let mut output: Option<Output> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if line.starts_with('[') {
            if let Some(output) = output.take() {
                output.end(own, &mut sending);
            }
            output = line.eq_ignore_ascii_case("[OUTPUT]").then(Output::default);
        } else if let Some(path) = included(line) {
            if !FOLDER.contains(&path) {
                sending.doubt = Some(Sending::elsewhere(path));
            }
        } else if let Some(output) = &mut output
            && let Some((key, value)) = line.split_once(char::is_whitespace)
        {
            output.set(&key.to_ascii_lowercase(), value.trim());
        }
    }
    if let Some(output) = output {
        output.end(own, &mut sending);
    }
    sending
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
    /// Whether some record is for it: without a rule, none is.
    matches: bool,
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
            "match" | "match_regex" => self.matches = true,
            "upstream" => self.is_elsewhere = true,
            _ => {}
        }
    }

    fn end(self, own: &Own, sending: &mut Sending) {
        if self.name.is_empty() || !self.matches {
            return;
        }
        let Some((_, default, way)) = OUTPUTS.iter().find(|(name, ..)| *name == self.name) else {
            sending.doubt = Some(format!("this build does not know where the output {} sends to", self.name));
            return;
        };
        let is_variable = self.targets.iter().any(|target| target.contains("${"));
        let leaves = match default {
            Default::Nowhere => return,
            Default::Itself => self.targets.iter().any(|target| !own.is_local(target)),
            Default::Service => self.targets.is_empty() || self.targets.iter().any(|target| !own.is_local(target)),
        };
        if self.is_elsewhere || is_variable {
            sending.doubt = Some(format!("where the output {} sends to is set elsewhere", self.name));
        } else if leaves {
            sending.ways.insert(match (self.name.as_str(), self.mode.as_str()) {
                ("syslog", "tls") => Transmission::SyslogTls,
                ("syslog", "tcp") if self.is_tls => Transmission::SyslogTls,
                ("syslog", "tcp") => Transmission::SyslogTcp,
                _ => *way,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_leaves_the_host_counts() {
        let of = |text: &str| {
            let Sending { ways, doubt } = parse(&format!("[OUTPUT]\n Match *\n{text}"), &Own::default());
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
        assert_eq!(parse("[OUTPUT]\n Name es\n Host es.example.com\n", &Own::default()), Sending::default());
        assert_eq!(
            parse("# [OUTPUT]\n[INPUT]\n Name forward\n Host l\n Match *\n", &Own::default()),
            Sending::default()
        );
    }

    #[test]
    fn the_folder_is_read_where_it_is_taken_in() {
        assert!(takes_folder("[SERVICE]\n Flush 1\n@include  conf.d/*.conf\n"));
        assert!(!takes_folder("[SERVICE]\n Flush 1\n# @INCLUDE conf.d/*.conf\n@INCLUDE other.conf\n"));
        assert!(parse("@INCLUDE other.conf\n", &Own::default()).doubt.unwrap().contains("other.conf"));
        assert_eq!(parse("@INCLUDE conf.d/*.conf\n", &Own::default()).doubt, None);
    }

    #[test]
    fn outputs_are_in_order_of_name() {
        assert!(OUTPUTS.iter().map(|(name, ..)| name.replace('-', "_")).is_sorted_by(|a, b| a < b));
    }
}
