//! What USBGuard is told: usbguard-daemon.conf(5) and usbguard-rules.conf(5).

use std::path::Path;

use muster_proto::fact::{Cause, Unknown};

use super::{FILES, Finding, is_hidden};
use crate::host::{self, FILE_BYTES, Host};

pub(super) const FOLDER: &str = "/etc/usbguard";
const CONFIG: &str = "/etc/usbguard/usbguard-daemon.conf";
/// Interfaces that a rule names, at most: a device has 32 in one configuration.
const INTERFACES: usize = 64;

/// What USBGuard is told.
pub(super) struct Guard {
    /// What becomes of a device that no rule names.
    implicit: String,
    /// What becomes of a device that is there before USBGuard is.
    present: String,
    /// The first rule that may let storage in.
    rule: Option<String>,
}

impl Guard {
    pub fn finding(&self) -> Finding {
        let untold = |detail: &str| Finding::Untold(Unknown::new(Cause::Undecidable, detail));
        match (self.present.as_str(), self.implicit.as_str(), &self.rule) {
            ("allow", _, _) | (_, "allow", None) => Finding::Silent,
            (_, _, Some(rule)) => untold(rule),
            ("apply-policy" | "block" | "reject", "block" | "reject", None) => Finding::Blocks,
            (present, implicit, None) => {
                untold(&format!("{CONFIG}: PresentDevicePolicy is {present}, ImplicitPolicyTarget {implicit}"))
            }
        }
    }
}

/// Returns what USBGuard is told; `None` where it is not installed.
pub(super) fn guard(host: &dyn Host) -> Result<Option<Guard>, Unknown> {
    let Some(config) = read(host, Path::new(CONFIG))? else { return Ok(None) };
    let told = |name: &str, otherwise: &str| setting(&config, name).unwrap_or(otherwise).to_owned();
    let file = told("RuleFile", "/etc/usbguard/rules.conf");
    let folder = told("RuleFolder", "/etc/usbguard/rules.d");
    for (name, value) in [("RuleFile", &file), ("RuleFolder", &folder)] {
        if value.is_empty() {
            return Err(Unknown::new(Cause::Garbled, format!("{CONFIG}: {name} names nothing")));
        }
    }
    let mut rule = read(host, Path::new(&file))?.and_then(|text| opening_rule(&text, &file));
    let names = match host.list(Path::new(&folder)) {
        Ok(names) => names,
        Err(error) if host::cause(&error) == Cause::Absent => Vec::new(),
        Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
    };
    if names.len() > FILES {
        return Err(Unknown::new(Cause::Limit, format!("{folder} has more than {FILES} files")));
    }
    // Every regular file, whatever its name: `getConfigsFromDir` in src/Common/Utility.cpp.
    for name in names {
        let path = Path::new(&folder).join(name);
        let bytes = match host.read(&path, FILE_BYTES) {
            Ok(bytes) => bytes,
            // It is not a regular file, or a link to nothing.
            Err(error) if host::cause(&error) == Cause::Garbled || is_hidden(host, &path, &error) => continue,
            Err(error) => return Err(host::unknown(format!("read {}", path.display()), &error)),
        };
        rule = rule.or(opening_rule(&text(bytes, &path)?, &path.display().to_string()));
    }
    let (implicit, present) = (told("ImplicitPolicyTarget", "block"), told("PresentDevicePolicy", "apply-policy"));
    Ok(Some(Guard { implicit, present, rule }))
}

fn read(host: &dyn Host, path: &Path) -> Result<Option<String>, Unknown> {
    match host.read(path, FILE_BYTES) {
        Ok(bytes) => text(bytes, path).map(Some),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(None),
        Err(error) => Err(host::unknown(format!("read {}", path.display()), &error)),
    }
}

fn text(bytes: Vec<u8>, path: &Path) -> Result<String, Unknown> {
    String::from_utf8(bytes).map_err(|_| Unknown::new(Cause::Garbled, format!("{} is no text", path.display())))
}

/// Returns the setting of this name in usbguard-daemon.conf(5): of several the last counts.
fn setting<'a>(config: &'a str, name: &str) -> Option<&'a str> {
    let settings = config.lines().filter_map(|line| line.split_once('='));
    settings.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next_back()
}

/// Returns the first rule that may let storage in, and where it is.
fn opening_rule(text: &str, file: &str) -> Option<String> {
    let (number, line) = text.lines().enumerate().find(|(_, line)| may_let_storage_in(line))?;
    Some(format!("{file}:{}: {}", number + 1, line.trim()))
}

/// Returns whether a rule of usbguard-rules.conf(5) may let storage in: it allows, and does not name interfaces of other kinds
/// alone.
fn may_let_storage_in(line: &str) -> bool {
    let Some(rest) = line.trim().strip_prefix("allow") else { return false };
    !words(rest).is_some_and(|words| names_other_kinds_alone(&words))
}

/// Returns the words of a rule without its comment: src/Library/RuleParser/Grammar.hpp. What is in quotes or parentheses is one word and
/// keeps them, and has to end.
fn words(rule: &str) -> Option<Vec<&str>> {
    let mut words = Vec::new();
    let mut rest = rule.trim_start();
    loop {
        let end = match rest.chars().next() {
            None | Some('#') => return Some(words),
            Some('{' | '}') => 1,
            Some('"') => end_of(rest, '"')?,
            Some('(') => end_of(rest, ')')?,
            Some(_) => rest.find([' ', '\t', '{', '}', '"', '(', '#']).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(end);
        words.push(word);
        rest = after.trim_start();
    }
}

/// Returns where a text ends that begins with a character and ends with `last`, in which a backslash takes away what the next one means.
fn end_of(text: &str, last: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if char == last => return Some(at + last.len_utf8()),
            _ => {}
        }
    }
    None
}

/// Returns whether a rule of these words is only for devices without any storage.
fn names_other_kinds_alone(words: &[&str]) -> bool {
    let mut depth = 0_usize;
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        match *word {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            "with-interface" if depth == 0 => found.push(at),
            _ => {}
        }
    }
    let [at] = found[..] else { return false };
    let (operator, list) = match &words[at + 1..] {
        ["{", list @ ..] => ("equals", list),
        [operator, "{", list @ ..] => (*operator, list),
        [interface, ..] => return is_other_kind(interface),
        [] => return false,
    };
    let Some(end) = list.iter().position(|word| *word == "}") else { return false };
    let list = &list[..end];
    if list.is_empty() || list.len() > INTERFACES || !list.iter().all(|interface| is_other_kind(interface)) {
        return false;
    }
    match operator {
        "equals-ordered" | "match-all" => true,
        // As many interfaces, and one for each of the list: where one is like two of the list, another may be of any kind, except in the
        // one device that has this hash.
        "equals" => are_distinct(list) || words.windows(2).any(|pair| pair[0] == "hash" && pair[1].starts_with('"')),
        _ => false,
    }
}

/// Returns whether an interface is written with a class other than 08, which is that of storage.
fn is_other_kind(interface: &str) -> bool {
    let is_hex = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<_> = interface.split(':').collect();
    let [class, rest @ ..] = &parts[..] else { return false };
    is_hex(class) && *class != "08" && rest.len() == 2 && rest.iter().all(|part| *part == "*" || is_hex(part))
}

/// Returns whether no interface is like two of these.
fn are_distinct(interfaces: &[&str]) -> bool {
    let is_like = |(a, b): (&str, &str)| a == "*" || b == "*" || a.eq_ignore_ascii_case(b);
    let are_alike = |a: &str, b: &str| a.split(':').zip(b.split(':')).all(is_like);
    (1..interfaces.len()).all(|end| interfaces[..end].iter().all(|other| !are_alike(other, interfaces[end])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_of_usbguard_lets_storage_in_unless_it_names_other_kinds_alone() {
        for (line, expected) in [
            ("allow id 1d6b:0002 serial \"x\" with-interface 09:00:00", false),
            ("allow id 046d:c31c with-interface { 03:01:01 03:00:00 }", false),
            ("allow with-interface equals { 03:00:01 }", false),
            ("allow with-interface one-of { 03:00:01 03:01:01 }", true),
            ("allow with-interface equals { 08:*:* }", true),
            ("allow with-interface 08:06:50", true),
            ("allow with-interface *:*:*", true),
            ("allow with-interface none-of { 08:*:* }", true),
            ("allow id 1234:5678", true),
            ("allow", true),
            ("block with-interface 08:*:*", false),
            ("reject", false),
            ("# allow", false),
            ("allow with-interface { 03:*:* }", false),
            ("allow with-interface equals-ordered {03:*:* 03:01:01}", false),
            ("allow with-interface match-all { 03:*:* 09:*:* }", false),
            ("allow with-interface all-of { 03:00:01 }", true),
            ("allow with-interface { 03:00:01 *:*:* }", true),
            ("allow with-interface 03:00", true),
            ("allow with-interface { }", true),
            ("allow with-interface { 03:00:01", true),
            ("allow with-interface", true),
            // A device of two interfaces, of which one is storage.
            ("allow with-interface { 0e:02:00 0E:02:00 }", true),
            ("allow with-interface { 0e:02:00 0e:*:* }", true),
            ("allow hash \"x=\" with-interface { 0e:02:00 0e:02:00 }", false),
            // What is no attribute.
            ("allow # with-interface 03:00:00 only", true),
            ("allow# with-interface 03:00:00", true),
            ("allow with-interface 03:00:00 # 08:06:50", false),
            ("allow name \"with-interface 03:00:00 \"", true),
            ("allow label \"\\\" with-interface 03:00:00 \"", true),
            ("allow name \"# x\" with-interface 03:00:00", false),
            ("allow name \"with-interface 03:00:00", true),
            ("allow if !allowed-matches(with-interface 03:00:00)", true),
            ("allow if { !allowed-matches(id 1:2) with-interface 03:00:00 }", true),
        ] {
            assert_eq!(may_let_storage_in(line), expected, "{line}");
        }
    }

    #[test]
    fn a_setting_is_found_between_blanks_and_the_last_one_counts() {
        let config = "#RuleFile=/a\nRuleFile = /b = c \r\n\tPresentDevicePolicy\t=keep\nImplicitPolicyTarget=allow\nImplicitPolicyTarget=\n";
        for (name, expected) in [
            ("RuleFile", Some("/b = c")),
            ("PresentDevicePolicy", Some("keep")),
            ("ImplicitPolicyTarget", Some("")),
            ("Rule", None),
        ] {
            assert_eq!(setting(config, name), expected, "{name}");
        }
    }

    #[test]
    fn what_becomes_of_devices_without_a_rule_decides() {
        let finding = |present: &str, implicit: &str, rule: Option<&str>| {
            let guard = Guard { present: present.into(), implicit: implicit.into(), rule: rule.map(str::to_owned) };
            match guard.finding() {
                Finding::Blocks => Some(true),
                Finding::Silent => Some(false),
                Finding::Untold(_) => None,
            }
        };
        for (present, implicit, rule, expected) in [
            ("apply-policy", "block", None, Some(true)),
            ("block", "reject", None, Some(true)),
            ("apply-policy", "block", Some("allow"), None),
            ("apply-policy", "allow", None, Some(false)),
            ("apply-policy", "", None, None),
            ("allow", "block", None, Some(false)),
            ("allow", "block", Some("allow"), Some(false)),
            ("keep", "block", None, None),
            ("", "block", None, None),
        ] {
            assert_eq!(finding(present, implicit, rule), expected, "{present} {implicit} {rule:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(text in "(allow |with-interface |[a-f0-9 :*{}()\"\\\\=,#/_-]){0,100}", any in "\\PC*") {
            for text in [text, any] {
                may_let_storage_in(&text);
                setting(&text, "RuleFile");
            }
        }
    }
}
