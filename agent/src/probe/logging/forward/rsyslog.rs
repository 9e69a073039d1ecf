//! Actions of rsyslog.conf(5) that send to other hosts, in its old form and in RainerScript.

use muster_proto::fact::Transmission;

use super::{Sending, is_local};

/// Settings that are read beside the main file.
const READ: [&str; 2] = ["/etc/rsyslog.d/*.conf", "/etc/rsyslog.d/"];

/// Returns what settings in `text` send. Of what they take in from elsewhere only `/etc/rsyslog.d` is in the text.
pub(super) fn parse(text: &str) -> Sending {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    let mut sending = Sending::default();
    let is_tls = lines.iter().any(|line| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|word| word.eq_ignore_ascii_case("$ActionSendStreamDriverMode"))
            && words.next() == Some("1")
    });
    for line in &lines {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if first.eq_ignore_ascii_case("$IncludeConfig") {
            let path = words.next().unwrap_or_default();
            if !READ.contains(&path) {
                sending.elsewhere = Some(path.to_owned());
            }
            continue;
        }
        // A selector, and an action after it; `&` repeats the selector before.
        if let Some(way) = words.next().and_then(|action| old(action, is_tls)) {
            sending.ways.insert(way);
        }
    }
    let script = lines.join("\n");
    for (kind, body) in blocks(&script) {
        match kind {
            Block::Action => sending.ways.extend(action(body)),
            Block::Include => {
                let path = parameter(body, "file").unwrap_or_default();
                if !READ.contains(&path.as_str()) {
                    sending.elsewhere = Some(path);
                }
            }
        }
    }
    sending
}

/// Returns the way of an action of the old form: `@host`, `@@host` or `:omrelp:host`, options in brackets before the host.
fn old(action: &str, is_tls: bool) -> Option<Transmission> {
    let (way, rest) = if let Some(rest) = action.strip_prefix("@@") {
        (if is_tls { Transmission::SyslogTls } else { Transmission::SyslogTcp }, rest)
    } else if let Some(rest) = action.strip_prefix('@') {
        (Transmission::SyslogUdp, rest)
    } else {
        (Transmission::Relp, action.strip_prefix(":omrelp:")?)
    };
    let target = match rest.strip_prefix('(') {
        Some(options) => options.split_once(')')?.1,
        None => rest,
    };
    (!is_local(target)).then_some(way)
}

#[derive(Clone, Copy)]
enum Block {
    Action,
    Include,
}

/// Returns the parameters of each `action(…)` and `include(…)`.
fn blocks(text: &str) -> Vec<(Block, &str)> {
    let mut blocks = Vec::new();
    for (kind, start) in [(Block::Action, "action"), (Block::Include, "include")] {
        for (at, _) in text.match_indices(start) {
            let is_word = text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
            let Some(body) = text[at + start.len()..].trim_start().strip_prefix('(') else { continue };
            if is_word {
                blocks.push((kind, &body[..end(body)]));
            }
        }
    }
    blocks
}

/// Returns where the bracket closes, outside quotes.
fn end(body: &str) -> usize {
    let mut is_quoted = false;
    for (at, c) in body.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            ')' if !is_quoted => return at,
            _ => {}
        }
    }
    body.len()
}

/// Returns the value of a parameter such as `type="omfwd"`.
fn parameter(body: &str, name: &str) -> Option<String> {
    let lower = body.to_ascii_lowercase();
    lower.match_indices(&name.to_ascii_lowercase()).find_map(|(at, _)| {
        let is_word = lower[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '.');
        let value = lower[at + name.len()..].trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?;
        is_word.then(|| value.split('"').next().unwrap_or_default().to_owned())
    })
}

fn action(body: &str) -> Option<Transmission> {
    let is = |name, value: &str| parameter(body, name).is_some_and(|found| found == value);
    let way = match parameter(body, "type")?.as_str() {
        "omfwd" if is("StreamDriverMode", "1") => Transmission::SyslogTls,
        "omfwd" if is("protocol", "tcp") => Transmission::SyslogTcp,
        "omfwd" => Transmission::SyslogUdp,
        "omrelp" => Transmission::Relp,
        "omelasticsearch" | "omhttp" => Transmission::Http,
        "omkafka" | "omgssapi" | "omamqp1" | "omrabbitmq" => Transmission::Other,
        _ => return None,
    };
    let target = parameter(body, "target").or_else(|| parameter(body, "server"));
    target.is_none_or(|target| !is_local(&target)).then_some(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_to_other_hosts_are_found_in_both_forms() {
        let of = |text: &str| parse(text).ways.into_iter().collect::<Vec<_>>();
        for (text, expected) in [
            ("*.*;auth,authpriv.none\t-/var/log/syslog\n", vec![]),
            ("*.* @logs.example.com\n", vec![Transmission::SyslogUdp]),
            ("*.* @@(z9)logs.example.com:6514\n", vec![Transmission::SyslogTcp]),
            ("$ActionSendStreamDriverMode 1\n*.* @@logs.example.com\n", vec![Transmission::SyslogTls]),
            ("# *.* @logs.example.com\n", vec![]),
            ("*.* @127.0.0.1:514\n& @@localhost\n", vec![]),
            ("*.* :omrelp:logs:2514\n", vec![Transmission::Relp]),
            (
                "action(type=\"omfwd\" target=\"l.example\" port=\"514\" protocol=\"tcp\")\n",
                vec![Transmission::SyslogTcp],
            ),
            (
                "*.* action(Type=\"omfwd\"\n  Target=\"l.example\"\n  StreamDriverMode=\"1\" Protocol=\"tcp\")\n",
                vec![Transmission::SyslogTls],
            ),
            ("action(type=\"omfwd\" target=\"127.0.0.1\")\n", vec![]),
            ("action(type=\"omfile\" file=\"/var/log/a)b\")\n", vec![]),
            ("#action(type=\"omfwd\" target=\"l.example\")\n", vec![]),
            ("action(type=\"omelasticsearch\" server=\"es\")\n", vec![Transmission::Http]),
            ("module(load=\"omrelp\")\n", vec![]),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }

    #[test]
    fn settings_from_elsewhere_are_told() {
        assert_eq!(
            parse("$IncludeConfig /etc/rsyslog.d/*.conf\ninclude(file=\"/etc/rsyslog.d/*.conf\")\n").elsewhere,
            None
        );
        assert_eq!(parse("$IncludeConfig /opt/x.conf\n").elsewhere.as_deref(), Some("/opt/x.conf"));
        assert_eq!(
            parse("include(file=\"/opt/y.conf\" mode=\"optional\")\n").elsewhere.as_deref(),
            Some("/opt/y.conf")
        );
    }
}
