//! Destinations of syslog-ng.conf(5) to which a log path sends the host's own log.
//!
//! A log path counts where nothing in it or before it can keep something back. Any other that sends leaves a doubt.

use std::collections::BTreeMap;

use muster_proto::fact::Transmission;

use super::{Sending, others::is_other, own::Own, url_host};

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

/// Drivers of sources that give what the host itself logs.
const SYSTEM: [&str; 3] = ["system", "systemd-journal", "systemd-syslog"];
/// Options that say where a driver sends to, where that does not stand first.
const TARGETS: [&str; 5] = ["bootstrap-servers", "host", "hec-url", "metadata.broker.list", "url"];

/// How the main file takes in the files of the folder, after `/etc/syslog-ng/`.
const FOLDER: [&str; 3] = ["conf.d", "conf.d/", "conf.d/*.conf"];

/// Returns whether the main file takes in the files of `conf.d`.
pub(super) fn takes_folder(main: &str) -> bool {
    included(&without_comments(main)).any(is_folder)
}

/// Returns the paths of lines such as `@include "scl.conf"`.
fn included(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(included_by)
}

fn included_by(line: &str) -> Option<&str> {
    line.trim().strip_prefix("@include").map(|path| path.trim().trim_matches(['"', '\'']))
}

fn is_folder(path: &str) -> bool {
    FOLDER.contains(&path.strip_prefix("/etc/syslog-ng/").unwrap_or(path))
}

/// Returns what settings in `main` send. `folder` is the text of `conf.d`, in order of name.
pub(super) fn parse(main: &str, folder: &str, own: &Own) -> Sending {
    let text = spliced(&without_comments(main), &without_comments(folder));
    let elsewhere = included(&text).find(|&path| path != "scl.conf" && !is_folder(path)).map(Sending::elsewhere);
    let statements = statements(&text);
    let named = |kind: &str| -> BTreeMap<String, &str> {
        let of_kind = statements.iter().filter(|statement| statement.kind == kind);
        of_kind.map(|statement| (statement.name.clone(), statement.body)).collect()
    };
    let settings =
        Settings { sources: named("source"), destinations: named("destination"), filters: named("filter"), own };
    let mut sending = Sending::default();
    // Why what comes next may not get all of the log.
    let mut before = elsewhere.clone();
    for statement in statements.iter().filter(|statement| statement.kind == "log") {
        let path = settings.path(statement.body);
        if !path.ways.is_empty() {
            match before.clone().or(path.doubt) {
                Some(doubt) => sending.doubt = Some(doubt),
                None => sending.ways.extend(path.ways),
            }
        } else if path.is_unclear {
            sending.doubt = Some("where a destination sends to is not told by its own text".to_owned());
        }
        if path.is_final {
            before = Some("a log path before it with flags(final) may keep something back".to_owned());
        }
    }
    if !sending.ways.is_empty() {
        sending.doubt = None;
    } else if sending.doubt.is_none() {
        sending.doubt = elsewhere;
    }
    sending
}

/// Puts `folder` where the main file takes it in for the first time.
fn spliced(main: &str, folder: &str) -> String {
    let mut out = String::with_capacity(main.len() + folder.len() + 1);
    let mut folder = Some(folder);
    for line in main.lines() {
        if included_by(line).is_some_and(is_folder)
            && let Some(folder) = folder.take()
        {
            out.push_str(folder);
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut quote = None;
        let end = line.char_indices().find(|(_, c)| {
            match (quote, c) {
                (None, '"' | '\'') => quote = Some(*c),
                (Some(open), c) if open == *c => quote = None,
                _ => {}
            }
            *c == '#' && quote.is_none()
        });
        out.push_str(&line[..end.map_or(line.len(), |(at, _)| at)]);
        out.push('\n');
    }
    out
}

/// A word, a name where there is one, and what stands in brackets after them: `source s_src { … }` or `flags(final)`.
struct Statement<'a> {
    kind: &'a str,
    name: String,
    body: &'a str,
    is_block: bool,
}

/// Returns what stands in `text` side by side, without what has no brackets.
fn statements(text: &str) -> Vec<Statement<'_>> {
    let (mut rest, mut found) = (text, Vec::new());
    while let Some(open) = rest.find(['{', '(']) {
        let (open_char, close) = if rest[open..].starts_with('{') { ('{', '}') } else { ('(', ')') };
        // What stands before the last end of a statement or of a line with `@` is none of it.
        let before = &rest[..open];
        let before = before.rsplit([';', '}', ')']).next().unwrap_or_default();
        let mut words =
            before.lines().filter(|line| !line.trim_start().starts_with('@')).flat_map(str::split_whitespace);
        let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let inside = &rest[open + 1..];
        let end = closing(inside, open_char, close);
        found.push(Statement { kind, name: normal(name), body: &inside[..end], is_block: open_char == '{' });
        rest = inside.get(end + 1..).unwrap_or_default();
    }
    found
}

/// Returns a name without its quotes; a hyphen and an underscore are one.
fn normal(name: &str) -> String {
    name.trim().trim_matches(['"', '\'']).replace('-', "_")
}

/// Returns where the bracket closes that was opened before `body`, outside quotes.
fn closing(body: &str, open: char, close: char) -> usize {
    let (mut depth, mut quote, mut is_escaped) = (1_u32, None, false);
    for (at, c) in body.char_indices() {
        if let Some(open_quote) = quote {
            if c == open_quote && !is_escaped {
                quote = None;
            }
            is_escaped = c == '\\' && open_quote == '"' && !is_escaped;
            continue;
        }
        match c {
            '"' | '\'' => quote = Some(c),
            c if c == open => depth += 1,
            c if c == close => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    body.len()
}

/// What the parts of log paths are.
struct Settings<'a> {
    sources: BTreeMap<String, &'a str>,
    destinations: BTreeMap<String, &'a str>,
    filters: BTreeMap<String, &'a str>,
    own: &'a Own,
}

/// What a log path does.
#[derive(Default)]
struct LogPath {
    /// To other hosts.
    ways: Vec<Transmission>,
    /// Whether it has a destination of which this cannot be told.
    is_unclear: bool,
    /// Why not all of the log may go this way.
    doubt: Option<String>,
    /// What is needed of the log may go no further.
    is_final: bool,
}

impl Settings<'_> {
    fn path(&self, body: &str) -> LogPath {
        let (mut path, mut has_system, mut has_source, mut is_for_others) = (LogPath::default(), false, false, false);
        let mut is_final = false;
        let mut doubt = |text: String| {
            let _ = path.doubt.get_or_insert(text);
        };
        let (mut ways, mut is_unclear) = (Vec::new(), false);
        for part in statements(body) {
            // A part without a name in curly brackets stands there itself.
            let named = |all: &BTreeMap<String, &'_ str>| match part.is_block {
                true => Some(part.body.to_owned()),
                false => all.get(&normal(part.body)).map(|&body| body.to_owned()),
            };
            match part.kind {
                "source" => {
                    has_source = true;
                    has_system |= named(&self.sources).is_some_and(|source| is_system(&source));
                }
                "destination" => {
                    // That of a name that is not there is none, or comes from elsewhere.
                    if let Some(destination) = named(&self.destinations) {
                        is_unclear |= self.ways(&destination, &mut ways);
                    } else {
                        is_unclear = true;
                    }
                }
                "rewrite" => {}
                "filter" => {
                    is_for_others |= named(&self.filters).is_some_and(|filter| is_of_others(&filter));
                    doubt("a log path that sends has a filter".to_owned());
                }
                "flags" => {
                    is_final |= part.body.contains("final");
                    if ["catchall", "fallback"].iter().any(|flag| part.body.contains(flag)) {
                        doubt(format!("a log path that sends has flags({})", part.body.trim()));
                    }
                }
                other => {
                    doubt(format!("a log path that sends has a part that this build does not follow: {other}"));
                    for inner_part in destinations(part.body) {
                        match inner_part {
                            Ok(body) => is_unclear |= self.ways(body, &mut ways),
                            Err(name) => match self.destinations.get(&name) {
                                Some(body) => is_unclear |= self.ways(body, &mut ways),
                                None => is_unclear = true,
                            },
                        }
                    }
                    // It may have a source, and be final, too.
                    is_final |= part.body.contains("final");
                }
            }
        }
        if !has_system {
            doubt("a log path that sends has no source of what the host itself logs".to_owned());
        }
        if body.contains('`') {
            doubt("a log path that sends has a variable".to_owned());
        }
        // What has no source is for that of all.
        let is_of_system = has_system || !has_source || body.contains('`');
        LogPath { ways, is_unclear, is_final: is_final && is_of_system && !is_for_others, doubt: path.doubt }
    }

    /// Adds the ways of the drivers in a destination. Returns whether there may be others.
    fn ways(&self, body: &str, ways: &mut Vec<Transmission>) -> bool {
        let mut is_unclear = false;
        for driver in statements(body).iter().filter(|part| !part.is_block) {
            let Some((_, way)) = DRIVERS.iter().find(|(name, _)| name.replace('-', "_") == normal(driver.kind)) else {
                continue;
            };
            let targets = targets(driver.body);
            if targets.iter().any(|target| target.contains('`')) {
                is_unclear = true;
            } else if targets.iter().any(|target| !self.own.is_local(url_host(target))) {
                ways.push(transport(driver.body).filter(|_| *way == Transmission::SyslogTcp).unwrap_or(*way));
            }
        }
        is_unclear
    }
}

/// Returns the destinations in a part of a log path, by their text or by their name.
fn destinations(body: &str) -> Vec<Result<&str, String>> {
    let mut found = Vec::new();
    for (at, word) in body.match_indices("destination") {
        if body[..at].chars().next_back().is_some_and(is_name) {
            continue;
        }
        let rest = body[at + word.len()..].trim_start();
        if let Some(inside) = rest.strip_prefix('{') {
            found.push(Ok(&inside[..closing(inside, '{', '}')]));
        } else if let Some(inside) = rest.strip_prefix('(') {
            found.push(Err(normal(&inside[..closing(inside, '(', ')')])));
        }
    }
    found
}

/// Returns whether a source gives what the host itself logs.
fn is_system(body: &str) -> bool {
    statements(body).iter().any(|driver| {
        let kind = driver.kind.replace('_', "-");
        let is_socket = matches!(kind.as_str(), "unix-dgram" | "unix-stream");
        let target = driver.body.trim_start().trim_start_matches(['"', '\'']);
        let target =
            &target[..target.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).unwrap_or(target.len())];
        SYSTEM.contains(&kind.as_str()) || is_socket && ["/dev/log", "/run/systemd/journal/syslog"].contains(&target)
    })
}

/// Returns whether a filter certainly lets through nothing of sign-ins or of the kernel but packets: parts that `and` joins, of
/// which one is such as `program("x")` or `match('^NetworkManager:')`, or those of SUSE for packets.
fn is_of_others(filter: &str) -> bool {
    let filter = filter.trim().trim_end_matches(';');
    let words: Vec<&str> = filter.split_whitespace().collect();
    let joined = words.join(" ");
    if joined.split([' ', '(', ')']).any(|word| matches!(word, "or" | "not")) {
        return false;
    }
    let value = |part: &str, kind: &str| -> Option<String> {
        let inside = part.trim().strip_prefix(kind)?.trim_start().strip_prefix('(')?.strip_suffix(')')?.trim();
        let quote = inside.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (text, rest) = inside[1..].split_once(quote)?;
        rest.trim().is_empty().then(|| text.to_owned())
    };
    let is_plain = |name: &str| name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    let parts: Vec<&str> = joined.split(" and ").collect();
    let is_tagged = |part: &&str| {
        let Some(text) = value(part, "match") else { return false };
        let Some(name) = text.strip_prefix('^').and_then(|text| text.trim_end().strip_suffix(':')) else {
            return false;
        };
        let name = name.strip_prefix("\\[").and_then(|name| name.strip_suffix("\\]")).unwrap_or(name);
        is_plain(name) && is_other(name, false)
    };
    // A part of a name is enough for it to match: that of what is needed must not have it.
    let is_program = |part: &&str| {
        value(part, "program").is_some_and(|name| name.len() > 3 && is_plain(&name) && is_other(&name, true))
    };
    let is_kernel = parts.iter().any(|part| part.replace(' ', "") == "facility(kern)");
    let is_packet = parts.iter().any(|part| value(part, "match").is_some_and(|text| text == "IN=" || text == "OUT="));
    parts.iter().any(is_tagged) || parts.iter().any(is_program) || is_kernel && is_packet
}

/// Returns where a driver sends to: what stands first, or is set by an option.
fn targets(options: &str) -> Vec<&str> {
    let first = options.trim_start();
    let end = match first.chars().next() {
        Some(quote @ ('"' | '\'')) => first[1..].find(quote).map_or(first.len(), |end| end + 1),
        _ => first.find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',')).unwrap_or(first.len()),
    };
    let is_option = first[end..].trim_start().starts_with('(');
    let mut found = Vec::new();
    if !is_option && end > 0 {
        found.push(first[..end].trim_matches(['"', '\'']));
    }
    for name in TARGETS {
        for spelling in [name.to_owned(), name.replace('-', "_")] {
            for (at, _) in options.match_indices(&spelling) {
                let rest = options[at + spelling.len()..].trim_start();
                if options[..at].chars().next_back().is_some_and(is_name) {
                    continue;
                }
                if let Some(inside) = rest.strip_prefix('(') {
                    let inside = &inside[..closing(inside, '(', ')')];
                    let parts = inside.split([' ', ',', '\n', '"', '\'']).map(str::trim);
                    found.extend(parts.filter(|part| !part.is_empty()));
                }
            }
        }
    }
    found
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

    const SOURCE: &str = "source s { system(); internal(); };\nsource s_net { udp(port(5514)); };\n";

    fn of(text: &str) -> Result<Vec<Transmission>, String> {
        let Sending { ways, doubt } = parse(&format!("@version: 3.38\n{SOURCE}{text}"), "", &Own::default());
        doubt.map_or(Ok(ways.into_iter().collect()), Err)
    }

    #[test]
    fn a_destination_counts_when_a_log_path_uses_it_and_it_leaves_the_host() {
        let log = "log { source(s); destination(d); };";
        for (destination, expected) in [
            ("file(\"/var/log/x\")", vec![]),
            ("network(\"l.example\" port(601))", vec![Transmission::SyslogTcp]),
            ("network('l.example' port(601))", vec![Transmission::SyslogTcp]),
            ("network(\"l.example\" port(6514) transport(\"tls\") tls(ca-dir(\"/x\")))", vec![Transmission::SyslogTls]),
            ("syslog(\"l.example\" transport(\"udp\"))", vec![Transmission::SyslogUdp]),
            ("udp(\"10.0.0.1\")", vec![Transmission::SyslogUdp]),
            ("tcp(\"127.0.0.1\" port(514))", vec![]),
            ("http(url(\"https://l.example/\"))", vec![Transmission::Http]),
            ("http(headers(\"x: y\") url(\"http://localhost:8080/\"))", vec![]),
            ("loki(url(\"localhost:9095\"))", vec![]),
            ("amqp(vhost(\"/\"))", vec![]),
            ("kafka-c(bootstrap-servers(\"localhost:9092,k.example:9092\"))", vec![Transmission::Other]),
            ("program(\"/bin/x network(\\\"a\\\")\")", vec![]),
        ] {
            assert_eq!(of(&format!("destination d {{ {destination}; }};\n{log}")), Ok(expected), "{destination}");
        }
        assert_eq!(of("destination d { udp(\"10.0.0.1\"); };\n"), Ok(vec![]), "no log path uses it");
        assert_eq!(
            of(
                "#destination d { udp(\"10.0.0.1\"); };\ndestination d { file('/x'); };\n#log { source(s); destination(d); };"
            ),
            Ok(vec![])
        );
        assert_eq!(of("log { source(s); destination { udp(\"10.0.0.1\"); }; };"), Ok(vec![Transmission::SyslogUdp]));
        assert!(parse("@include \"/opt/x.conf\"\n", "", &Own::default()).doubt.unwrap().contains("/opt/x.conf"));
        let stock = "@include \"scl.conf\"\n@include \"/etc/syslog-ng/conf.d/*.conf\"\n";
        assert_eq!(parse(stock, "", &Own::default()).doubt, None);
    }

    #[test]
    fn what_may_not_be_sent_is_in_doubt() {
        let d = "filter f { level(crit .. emerg); };\ndestination d { tcp(\"10.0.0.1\"); };\n";
        for (log, part) in [
            ("log { source(s); filter(f); destination(d); };", "filter"),
            ("log { source(s); filter { facility(cron); }; destination(d); };", "filter"),
            ("log { source(s_net); destination(d); };", "no source"),
            ("log { source(unknown); destination(d); };", "no source"),
            ("log { source { unix-dgram(\"/dev/log_chroot\"); }; destination(d); };", "no source"),
            ("log { source(s); parser(p); destination(d); };", "parser"),
            ("log { source(s); if (facility(cron)) { destination(d); }; };", "if"),
            ("log { source(s); log { filter(f); destination(d); }; };", "log"),
            ("log { source(s); junction { channel { destination { tcp(\"10.0.0.1\"); }; }; }; };", "junction"),
            ("log { destination(d); flags(fallback); };", "fallback"),
            ("log { source(s); filter(f); flags(final); };\nlog { source(s); destination(d); };", "final"),
            (
                "log { source(s); destination { file(\"/x\"); }; flags(final); };\nlog { source(s); destination(d); };",
                "final",
            ),
            ("@define h \"10.0.0.1\"\nlog { source(s); destination { tcp(\"`h`\"); }; };", "where"),
            ("log { source(s); destination(`x`); };", "where"),
            ("@include \"/opt/x.conf\"\nlog { source(s); destination(d); };", "/opt/x.conf"),
        ] {
            let doubt = of(&format!("{d}{log}")).unwrap_err();
            assert!(doubt.contains(part), "{log}: {doubt}");
        }
    }

    #[test]
    fn what_stands_beside_does_not_hide_what_is_sent() {
        let d = "options { chain_hostnames(off); flush_lines(0); };\ndestination d_n-1 { tcp(\"10.0.0.1\"); };\n\
                 filter f_iptables { facility(kern) and match(\"IN=\") and match(\"OUT=\"); };\n\
                 filter f_acpid { level(emerg..notice) and match('^acpid: '); };\n\
                 filter f_acpid_old { match('^\\[acpid\\]:'); };\nfilter f_p { program(\"haproxy\"); };\n";
        for log in [
            "log { source(s); destination(d_n-1); };",
            "log { source(\"s\"); destination(\"d_n-1\"); };",
            "log { source(s); destination(d_n_1); flags(flow-control); };",
            "log { source(s); filter(f_iptables); destination(f); flags(final); };\nlog { source(s); destination(d_n-1); };",
            "log { source(s); filter(f_acpid); flags(final); };\nlog { source(s); filter(f_acpid_old); flags(final); };\n\
             log { source(s); filter(f_p); flags(final); };\nlog { source(s); destination(d_n-1); flags(final); };",
            "log { source(s_net); destination { file(\"/x\"); }; flags(final); };\nlog { source(s); destination(d_n-1); };",
            "log { source(s); filter { level(crit); }; destination(d_n-1); };\nlog { source(s); destination(d_n-1); };",
            "log { source { unix-dgram(\"/dev/log\"); }; destination(d_n-1); };",
        ] {
            assert_eq!(of(&format!("{d}{log}")), Ok(vec![Transmission::SyslogTcp]), "{log}");
        }
    }

    #[test]
    fn a_filter_for_others_is_told_from_one_for_what_is_needed() {
        for filter in [
            "program(\"sshd\");",
            "program('.*');",
            "not program(\"haproxy\");",
            "match('^sshd:');",
            "match('IN=');",
            "facility(kern);",
            "program(\"haproxy\") or level(info);",
        ] {
            assert!(!is_of_others(filter), "{filter}");
        }
    }

    #[test]
    fn the_folder_is_read_where_it_is_taken_in() {
        assert!(takes_folder("@version: 3.28\n@include \"/etc/syslog-ng/conf.d/*.conf\"\n"));
        assert!(takes_folder("@include 'conf.d/'\n"));
        assert!(!takes_folder("@include \"scl.conf\"\n# @include \"/etc/syslog-ng/conf.d/*.conf\"\n"));
        assert!(!takes_folder("@include \"/etc/syslog-ng/conf.d/a.conf\"\n"));
        let main =
            format!("{SOURCE}@include \"conf.d/\"\nlog {{ source(s); destination {{ tcp(\"10.0.0.1\"); }}; }};\n");
        assert_eq!(parse(&main, "", &Own::default()).ways.len(), 1);
        assert_eq!(parse(&main, "log { source(s); flags(final); };\n", &Own::default()).ways.len(), 0);
    }
}
