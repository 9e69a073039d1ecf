//! Destinations of syslog-ng.conf(5) that a log path sends to other hosts.

use muster_proto::fact::Transmission;

use super::{Sending, own::Own};

/// Drivers that send to other hosts; the way of `network` and `syslog` is in their option `transport`.
const DRIVERS: &[(&str, Transmission)] = &[
    ("amqp", Transmission::Other),
    ("elasticsearch-http", Transmission::Http),
    ("http", Transmission::Http),
    ("kafka", Transmission::Other),
    ("kafka-c", Transmission::Other),
    ("loki", Transmission::Http),
    ("network", Transmission::SyslogTcp),
    ("opentelemetry", Transmission::Other),
    ("splunk-hec-event", Transmission::Http),
    ("syslog", Transmission::SyslogTcp),
    ("tcp", Transmission::SyslogTcp),
    ("tcp6", Transmission::SyslogTcp),
    ("udp", Transmission::SyslogUdp),
    ("udp6", Transmission::SyslogUdp),
];

/// How the main file takes in the files of the folder, after `/etc/syslog-ng/`.
const FOLDER: [&str; 3] = ["conf.d", "conf.d/", "conf.d/*.conf"];

/// Returns whether the main file takes in the files of `conf.d`.
pub(super) fn takes_folder(main: &str) -> bool {
    included(&without_comments(main)).any(is_folder)
}

/// Returns the paths of lines such as `@include "scl.conf"`.
fn included(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("@include"))
        .map(|path| path.trim().trim_matches(['"', '\'']))
}

fn is_folder(path: &str) -> bool {
    FOLDER.contains(&path.strip_prefix("/etc/syslog-ng/").unwrap_or(path))
}

/// Returns what settings in `text` send. Of what they take in from elsewhere only `conf.d` is in the text.
pub(super) fn parse(text: &str, own: &Own) -> Sending {
    let text = without_comments(text);
    let mut sending = Sending::default();
    for path in included(&text).filter(|&path| path != "scl.conf" && !is_folder(path)) {
        sending.doubt = Some(Sending::elsewhere(path));
    }
    for (at, word) in text.match_indices("destination") {
        if text[..at].chars().next_back().is_some_and(is_name) {
            continue;
        }
        let rest = text[at + word.len()..].trim_start();
        let (name, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        let Some(body) = rest.trim_start().strip_prefix('{') else { continue };
        // One without a name stands in the log path itself.
        if name.is_empty() || is_used(&text, name) {
            ways(&body[..closing(body, '{', '}')], own, &mut sending);
        }
    }
    sending
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut is_quoted = false;
        let end = line.char_indices().find(|(_, c)| {
            is_quoted ^= *c == '"';
            *c == '#' && !is_quoted
        });
        out.push_str(&line[..end.map_or(line.len(), |(at, _)| at)]);
        out.push('\n');
    }
    out
}

/// Returns whether some log path names the destination: `destination(NAME)`.
fn is_used(text: &str, name: &str) -> bool {
    text.match_indices("destination").any(|(at, word)| {
        let rest = text[at + word.len()..].trim_start();
        rest.strip_prefix('(').is_some_and(|rest| {
            rest.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(')'))
        })
    })
}

/// Returns where the bracket closes that was opened before `body`, outside quotes.
fn closing(body: &str, open: char, close: char) -> usize {
    let (mut depth, mut is_quoted) = (1_u32, false);
    for (at, c) in body.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            c if is_quoted || (c != open && c != close) => {}
            c if c == open => depth += 1,
            _ => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
        }
    }
    body.len()
}

/// Adds the ways of the drivers in a destination.
fn ways(body: &str, own: &Own, sending: &mut Sending) {
    let mut rest = body;
    while let Some(open) = rest.find('(') {
        let before = rest[..open].trim_end();
        let start =
            before.char_indices().rev().take_while(|(_, c)| is_name(*c)).last().map_or(before.len(), |(at, _)| at);
        let inside = &rest[open + 1..];
        let end = closing(inside, '(', ')');
        let (options, driver) = (&inside[..end], &before[start..]);
        if let Some((_, way)) = DRIVERS.iter().find(|(name, _)| *name == driver) {
            let target = options.trim_start().trim_start_matches(['"', '\'']);
            if !own.is_local(target) {
                sending.ways.insert(transport(options).filter(|_| *way == Transmission::SyslogTcp).unwrap_or(*way));
            }
        }
        rest = inside.get(end + 1..).unwrap_or_default();
    }
}

fn transport(options: &str) -> Option<Transmission> {
    let (_, rest) = options.split_once("transport")?;
    let value = rest.trim_start().strip_prefix('(')?.trim_start().trim_start_matches(['"', '\'']);
    [("tls", Transmission::SyslogTls), ("udp", Transmission::SyslogUdp), ("tcp", Transmission::SyslogTcp)]
        .into_iter()
        .find(|(name, _)| value.starts_with(name))
        .map(|(_, way)| way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_counts_when_a_log_path_uses_it_and_it_leaves_the_host() {
        let of = |text: &str| parse(text, &Own::default()).ways.into_iter().collect::<Vec<_>>();
        let log = "log { source(s); destination(d); };";
        for (destination, expected) in [
            ("file(\"/var/log/x\")", vec![]),
            ("network(\"l.example\" port(601))", vec![Transmission::SyslogTcp]),
            ("network(\"l.example\" port(6514) transport(\"tls\") tls(ca-dir(\"/x\")))", vec![Transmission::SyslogTls]),
            ("syslog(\"l.example\" transport(\"udp\"))", vec![Transmission::SyslogUdp]),
            ("udp(\"10.0.0.1\")", vec![Transmission::SyslogUdp]),
            ("tcp(\"127.0.0.1\" port(514))", vec![]),
            ("http(url(\"https://l.example/\"))", vec![Transmission::Http]),
            ("program(\"/bin/x network(\\\"a\\\")\")", vec![]),
        ] {
            assert_eq!(of(&format!("destination d {{ {destination}; }};\n{log}")), expected, "{destination}");
        }
        assert_eq!(of("destination d { udp(\"10.0.0.1\"); };\n"), [], "no log path uses it");
        assert_eq!(of("#destination d { udp(\"10.0.0.1\"); };\nlog { destination(d); };"), []);
        assert_eq!(of("log { source(s); destination { udp(\"10.0.0.1\"); }; };"), [Transmission::SyslogUdp]);
        assert!(parse("@include \"/opt/x.conf\"\n", &Own::default()).doubt.unwrap().contains("/opt/x.conf"));
        assert_eq!(
            parse("@include \"scl.conf\"\n@include \"/etc/syslog-ng/conf.d/*.conf\"\n", &Own::default()).doubt,
            None
        );
    }

    #[test]
    fn the_folder_is_read_where_it_is_taken_in() {
        assert!(takes_folder("@version: 3.28\n@include \"/etc/syslog-ng/conf.d/*.conf\"\n"));
        assert!(takes_folder("@include 'conf.d/'\n"));
        assert!(!takes_folder("@include \"scl.conf\"\n# @include \"/etc/syslog-ng/conf.d/*.conf\"\n"));
        assert!(!takes_folder("@include \"/etc/syslog-ng/conf.d/a.conf\"\n"));
    }
}
