//! Filters of rsyslog.conf(5) that certainly let through nothing of sign-ins or of the kernel: all else that they may be is not
//! followed.

use std::collections::BTreeSet;

use super::{super::others::is_other, INPUTS, KERNEL_LOG, messages::Messages};

/// What is certain of each message that a filter lets through.
#[derive(Clone, Copy, Debug, Default)]
struct Certain {
    /// It is of another host, or of a program that tells of no sign-in.
    is_of_others: bool,
    is_of_kernel: bool,
    /// It has in it what the kernel writes of a packet.
    has_packet: bool,
}

impl Certain {
    fn is_enough(self) -> bool {
        // That a program gives the kernel's facility to its messages syslog daemons do not believe.
        self.is_of_others || self.is_of_kernel && self.has_packet
    }

    fn and(self, other: Self) -> Self {
        Self {
            is_of_others: self.is_enough() || other.is_enough(),
            is_of_kernel: self.is_of_kernel || other.is_of_kernel,
            has_packet: self.has_packet || other.has_packet,
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            is_of_others: self.is_enough() && other.is_enough(),
            is_of_kernel: self.is_of_kernel && other.is_of_kernel,
            has_packet: self.has_packet && other.has_packet,
        }
    }
}

/// Groups that stand in one another, at most.
const DEPTH: usize = 20;

/// Returns whether nothing is lost with the messages that `filter` lets through: what stands between `if` and `then`, or a
/// filter by a property such as `:programname, isequal, "haproxy"`.
pub(super) fn is_of_others(filter: &str) -> bool {
    if let Some(rest) = filter.strip_prefix(':') {
        let parts: Vec<&str> = rest.splitn(3, ',').map(str::trim).collect();
        let [property, operation, value] = parts[..] else { return false };
        let Some(value) = quoted(value) else { return false };
        return compared(property, operation, &value).is_enough();
    }
    let Some(words) = words(filter) else { return false };
    let mut words = words.as_slice();
    expression(&mut words, 0).is_some_and(|certain| words.is_empty() && certain.is_enough())
}

/// What a filter lets through of what the host itself logs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Chosen {
    /// Messages by their facility or level.
    Messages(Messages),
    /// All that comes from these inputs.
    Inputs(BTreeSet<&'static str>),
}

/// Returns what exactly `filter` lets through, where it is a comparison of one property, or names inputs that `or` joins.
pub(super) fn what_is_chosen(filter: &str) -> Option<Chosen> {
    let mut words = words(filter)?;
    while words.len() > 2 && words[0] == "(" && closes_at_the_end(&words) {
        words = words[1..words.len() - 1].to_vec();
    }
    let mut named = BTreeSet::new();
    for comparison in words.split(|word| word.eq_ignore_ascii_case("or")) {
        let mut comparison = comparison;
        if let [open, inside @ .., close] = comparison
            && open == "("
            && close == ")"
        {
            comparison = inside;
        }
        let [property, operation, values @ ..] = comparison else { break };
        let is_input = property.eq_ignore_ascii_case("$inputname") && operation == "==";
        let inputs = values.iter().filter(|word| !matches!(word.as_str(), "[" | "]" | ","));
        let inputs: Option<Vec<&'static str>> = inputs
            .map(|word| {
                INPUTS.into_iter().chain([KERNEL_LOG]).find(|input| quoted(word).is_some_and(|word| word == *input))
            })
            .collect();
        match inputs.filter(|inputs| is_input && !inputs.is_empty()) {
            Some(inputs) => named.extend(inputs),
            None => {
                named.clear();
                break;
            }
        }
    }
    if !named.is_empty() {
        return Some(Chosen::Inputs(named));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["prifilt", "(", selector, ")"] => Messages::parse(&quoted(selector)?).map(Chosen::Messages),
        [property, operation, value] => {
            let value = quoted(value).unwrap_or_else(|| value.to_owned());
            match property.to_ascii_lowercase().as_str() {
                "$fromhost-ip" if operation == "==" && value == "127.0.0.1" => Some(Chosen::Messages(Messages::ALL)),
                "$syslogseverity" | "$syslogpriority" => {
                    let level = value.parse().ok().filter(|level| *level < 8)?;
                    Messages::compared(operation, level).map(Chosen::Messages)
                }
                "$syslogseverity-text" | "$syslogpriority-text" => {
                    let messages = Messages::parse(&format!("*.={value}"))?;
                    equal(operation, messages).map(Chosen::Messages)
                }
                "$syslogfacility-text" => {
                    let messages =
                        Messages::parse(&format!("{value}.*")).filter(|_| !value.contains([',', ';', '*', '.']))?;
                    equal(operation, messages).map(Chosen::Messages)
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn equal(operation: &str, messages: Messages) -> Option<Messages> {
    match operation {
        "==" => Some(messages),
        "!=" | "<>" => Some(Messages::ALL.without(messages)),
        _ => None,
    }
}

/// Returns whether the bracket that is the first word closes with the last.
fn closes_at_the_end(words: &[String]) -> bool {
    let mut open = 0_i32;
    words.iter().enumerate().all(|(at, word)| {
        open += i32::from(word == "(") - i32::from(word == ")");
        (open > 0) == (at + 1 < words.len())
    })
}

/// A quoted text that nothing is put into.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inside = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inside.contains(['\\', quote])).then(|| inside.to_owned())
}

/// Returns what is certain where `property` compares so with `value`.
fn compared(property: &str, operation: &str, value: &str) -> Certain {
    let property = property.trim_start_matches('$').to_ascii_lowercase();
    let operation = operation.to_ascii_lowercase();
    let (is_negated, operation) = operation.strip_prefix('!').map_or((false, operation.as_str()), |rest| (true, rest));
    let is_equal = !is_negated && matches!(operation, "isequal" | "==");
    let mut certain = Certain::default();
    match property.as_str() {
        "programname" | "app-name" if is_equal => certain.is_of_others = is_other(value, false),
        "programname" | "app-name" if operation == "startswith" && !is_negated => {
            certain.is_of_others = is_other(value, true);
        }
        "syslogtag" if is_equal || operation == "startswith" && !is_negated => {
            let name = value.trim_start_matches('[');
            let end = name.find(['[', ']', ':']);
            certain.is_of_others = is_other(&name[..end.unwrap_or(name.len())], !is_equal && end.is_none());
        }
        "syslogfacility-text" => certain.is_of_kernel = is_equal && value == "kern",
        "msg" => {
            let is_part = matches!(operation, "contains" | "startswith") && !is_negated;
            certain.has_packet = is_part && ["IN=", "OUT=", "[UFW "].iter().any(|part| value.contains(part));
        }
        "inputname" => certain.is_of_others = is_equal && ["imudp", "imtcp", "imptcp", "imrelp"].contains(&value),
        // What the host itself logs is from there.
        "fromhost-ip" => {
            let differs = operation == "<>" || is_negated && matches!(operation, "isequal" | "=");
            certain.is_of_others = differs && value == "127.0.0.1";
        }
        _ => {}
    }
    certain
}

/// Cuts an expression into brackets, commas, quoted texts, operators and names; `None` where it has something else.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut rest, mut words) = (text.trim_start(), Vec::new());
    while let Some(first) = rest.chars().next() {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '$' | '_' | '-' | '!' | '.');
        let end = match first {
            '/' if rest.starts_with("/*") => rest.find("*/")? + 2,
            '"' | '\'' => {
                let mut is_escaped = false;
                let inside = rest.char_indices().skip(1);
                let (at, _) = inside.into_iter().find(|(_, c)| {
                    let ends = *c == first && !is_escaped;
                    is_escaped = *c == '\\' && !is_escaped;
                    ends
                })?;
                at + 1
            }
            '(' | ')' | '[' | ']' | ',' => 1,
            '=' | '<' | '>' => rest.find(|c| !matches!(c, '=' | '<' | '>')).unwrap_or(rest.len()),
            '!' if rest.starts_with("!=") => 2,
            c if is_of_name(c) => rest.find(|c| !is_of_name(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (word, after) = rest.split_at(end);
        if !word.starts_with("/*") {
            words.push(word.to_owned());
        }
        rest = after.trim_start();
    }
    Some(words)
}

/// Reads comparisons that `and` and `or` join, which bind alike, from left to right.
fn expression(words: &mut &[String], depth: usize) -> Option<Certain> {
    let mut certain = term(words, depth)?;
    loop {
        let joined = words.first().map(|word| word.to_ascii_lowercase());
        match joined.as_deref() {
            Some("and") => {
                *words = &words[1..];
                certain = certain.and(term(words, depth)?);
            }
            Some("or") => {
                *words = &words[1..];
                certain = certain.or(term(words, depth)?);
            }
            _ => return Some(certain),
        }
    }
}

/// Reads one comparison, or a group in brackets. Of what has another form nothing is certain.
fn term(words: &mut &[String], depth: usize) -> Option<Certain> {
    if depth == DEPTH {
        return None;
    }
    let is_end = |word: &String| word.eq_ignore_ascii_case("and") || word.eq_ignore_ascii_case("or") || word == ")";
    if words.first().is_some_and(|word| word == "(") {
        *words = &words[1..];
        let certain = expression(words, depth + 1)?;
        if words.first()? != ")" {
            return None;
        }
        *words = &words[1..];
        if words.first().is_none_or(is_end) {
            return Some(certain);
        }
    }
    let (mut open, mut end) = (0_usize, 0);
    while let Some(word) = words.get(end) {
        match word.as_str() {
            "(" => open += 1,
            ")" if open > 0 => open -= 1,
            _ if open == 0 && is_end(word) => break,
            _ => {}
        }
        end += 1;
    }
    let (comparison, rest) = words.split_at(end);
    *words = rest;
    let [property, operation, values @ ..] = comparison else { return Some(Certain::default()) };
    if !property.starts_with('$') {
        return Some(Certain::default());
    }
    // An array is as if each of it stood there, joined by `or`; what stands before a group in brackets is no comparison.
    let values: Vec<&String> = match values {
        [value] => vec![value],
        [open, values @ .., close] if open == "[" && close == "]" => {
            values.iter().filter(|word| word.as_str() != ",").collect()
        }
        _ => return Some(Certain::default()),
    };
    let each = values
        .into_iter()
        .map(|value| quoted(value).map_or_else(Certain::default, |value| compared(property, operation, &value)));
    Some(each.reduce(Certain::or).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_filter_for_others_is_told_from_one_for_what_is_needed() {
        for filter in [
            // Of cloud-init, haproxy, and SUSE's rsyslog.
            ":syslogtag, isequal, \"[CLOUDINIT]\"",
            ":programname, startswith, \"haproxy\"",
            "($programname == 'acpid' or $syslogtag == '[acpid]:') and ($syslogseverity <= 5 /* notice */)",
            "($programname == 'NetworkManager') or ($programname startswith 'nm-')",
            "($syslogfacility-text == 'kern') and ($msg contains 'IN=' and $msg contains 'OUT=')",
            "$syslogfacility-text == 'kern' and $msg contains '[UFW '",
            "$programname startswith \"haproxy\"",
            "$programname == ['a2', 'b2']",
            "$inputname == 'imudp'",
            "$fromhost-ip != '127.0.0.1'",
            ":fromhost-ip, !isequal, \"127.0.0.1\"",
        ] {
            assert!(is_of_others(filter), "{filter}");
        }
        for filter in [
            ":programname, isequal, \"sshd\"",
            ":programname, !isequal, \"haproxy\"",
            ":programname, contains, \"h\"",
            ":programname, startswith, \"s\"",
            ":programname, startswith, \"\"",
            ":syslogtag, startswith, \"sudo\"",
            ":syslogtag, isequal, \"su:\"",
            ":msg, contains, \"[UFW \"",
            ":msg, regex, \".*\"",
            ":programname, isequal",
            ":",
            "$syslogfacility-text == \"authpriv\"",
            "$syslogfacility-text == 'kern'",
            "$syslogseverity <= 7",
            "$programname == 'haproxy' or $msg contains 'x'",
            "$msg contains 'x' and $programname == 'haproxy' or $programname == 'sshd'",
            "$programname == 'sshd' or $msg contains 'haproxy'",
            "$programname != 'haproxy'",
            "not ($programname == 'haproxy')",
            "not $programname == 'haproxy'",
            "$programname == ['haproxy', 'sshd']",
            "$programname == []",
            "$programname == 'haproxy' & 'x'",
            "($programname == 'haproxy') == 0",
            "($programname == 'haproxy'",
            "$programname == 'haproxy')",
            "re_match($programname, 'haproxy')",
            "$!programname == 'haproxy'",
            "$programname == $.x",
            "$programname == `echo $X`",
            "$fromhost-ip == '127.0.0.1'",
            "",
        ] {
            assert!(!is_of_others(filter), "{filter}");
        }
        // `or` binds no less than `and`, so that here the last one holds for all.
        assert!(is_of_others("$msg contains 'x' or $msg contains 'y' and $programname == 'haproxy'"));
        assert!(!is_of_others(&format!("{}$programname == 'haproxy'{}", "(".repeat(DEPTH), ")".repeat(DEPTH))));
    }

    proptest! {
        #[test]
        fn arbitrary_filters_never_panic(text in any::<String>()) {
            let _ = (is_of_others(&text), is_of_others(&format!(":{text}")));
        }

        #[test]
        fn text_of_the_language_never_panics(
            text in r#"([()'"\[\],=!<>]|\$programname|\$msg| and | or | not |'haproxy'| == |/\*|\*/| ){0,40}"#
        ) {
            let _ = is_of_others(&text);
        }
    }
}
