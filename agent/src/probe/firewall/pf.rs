//! Rules of pf as pfctl(8) prints them, as far as they decide for every new packet from outside.
//!
//! The last rule that matches decides, or the first with `quick` (pf.conf(5)). A rule with a condition beyond direction and family is
//! narrower than "every packet" and is passed over, as everywhere in this probe. That may be taken for granted of `block` alone: a rule
//! that lets pass is narrower where its conditions are known to be, and else nothing is told.

use std::net::IpAddr;

use crate::host::Family;

/// What rules come to for a packet that no narrower rule decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict<'r> {
    /// No rule decides for every packet; pf lets it pass.
    None,
    Pass,
    Block,
    /// This rule may let every packet pass, and nothing behind it undoes that.
    Undecided(&'r str),
}

/// What a rule is for, of all that comes from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scope {
    /// Everything, or with `pass` everything of an interface.
    Every,
    /// It cannot be told that some of it is left out.
    Untold,
    Narrower,
}

/// Returns the status of `pfctl -s info`, whose first line is `Status: Enabled for 0 days 00:10:00` or `Status: Disabled ...`.
pub(super) fn is_enabled(output: &[u8]) -> Option<bool> {
    let text = String::from_utf8_lossy(output);
    let status = text.lines().find_map(|line| line.trim_start().strip_prefix("Status:"))?;
    match status.split_ascii_whitespace().next()? {
        "Enabled" => Some(true),
        "Disabled" => Some(false),
        _ => None,
    }
}

/// Returns the names of `pfctl -v -s Anchors`, one a line.
pub(super) fn anchors(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let mut names: Vec<String> =
        text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// Returns the first interface of `pfctl -v -s Interfaces`, but for the loopback, on which pf does nothing: `set skip` of pf.conf(5). Each
/// line is a name, and `(skip)` behind it. `None` when that is not so; `all` is always among them.
pub(super) fn skipped(output: &[u8]) -> Option<Option<String>> {
    let text = std::str::from_utf8(output).ok()?.strip_suffix('\n')?;
    let (mut skipped, mut has_all) = (None, false);
    for line in text.split('\n') {
        let mut words = line.split(' ');
        let name = words.next().filter(|name| !name.is_empty() && !name.contains(char::is_whitespace))?;
        has_all |= name == "all";
        let is_skipped = match (words.next(), words.next()) {
            (None, _) => false,
            (Some("(skip)"), None) => true,
            _ => return None,
        };
        if is_skipped && !is_loopback(name) && skipped.is_none() {
            skipped = Some(name.to_owned());
        }
    }
    has_all.then_some(skipped)
}

fn is_loopback(interface: &str) -> bool {
    interface.strip_prefix("lo").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns what the `rules` of `pfctl -s rules` come to. `None` when a line has no form of pf.conf(5) that is known.
pub(super) fn verdict(rules: &[u8], family: Family) -> Option<Verdict<'_>> {
    let text = std::str::from_utf8(rules).ok()?;
    let mut verdict = Verdict::None;
    let mut undecided = None;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let words = words(line)?;
        let is_pass = match *words.first()? {
            "pass" => true,
            "block" => false,
            // They change packets or name other rules, which are read for themselves.
            "scrub" | "scrub-anchor" | "no" | "match" | "anchor" | "nat" | "nat-anchor" | "rdr" | "rdr-anchor"
            | "binat-anchor" | "dummynet" | "dummynet-anchor" | "antispoof" | "load" | "set" | "table" | "altq"
            | "queue" => continue,
            _ => return None,
        };
        let is_quick = words.contains(&"quick");
        match (scope(&words[1..], family, is_pass)?, is_pass) {
            (Scope::Every, true) => verdict = Verdict::Pass,
            (Scope::Every, false) => verdict = Verdict::Block,
            // What it let pass no later rule holds up.
            (Scope::Untold, true) if is_quick => {
                undecided.get_or_insert(line);
                continue;
            }
            (Scope::Untold, true) if verdict != Verdict::Pass => verdict = Verdict::Undecided(line),
            (Scope::Untold | Scope::Narrower, _) => continue,
        }
        if is_quick {
            break;
        }
    }
    Some(match undecided {
        Some(line) if verdict != Verdict::Pass => Verdict::Undecided(line),
        _ => verdict,
    })
}

/// Returns the words of a rule. Blanks in quotes and in brackets part none; `None` when one of these is not closed.
fn words(line: &str) -> Option<Vec<&str>> {
    let (mut words, mut start) = (Vec::new(), None);
    let (mut is_quoted, mut depth) = (false, 0_usize);
    for (at, character) in line.char_indices() {
        match character {
            '"' => is_quoted = !is_quoted,
            '(' | '{' if !is_quoted => depth += 1,
            ')' | '}' if !is_quoted => depth = depth.checked_sub(1)?,
            _ if character.is_ascii_whitespace() && !is_quoted && depth == 0 => {
                words.extend(start.take().map(|start| &line[start..at]));
                continue;
            }
            _ => {}
        }
        start.get_or_insert(at);
    }
    words.extend(start.map(|start| &line[start..]));
    (!is_quoted && depth == 0).then_some(words)
}

/// Returns the scope of a rule with these `words` behind its action, in the order and the forms of pf's print_rule(). `None` when they end
/// too early.
fn scope(words: &[&str], family: Family, is_pass: bool) -> Option<Scope> {
    // It is for nothing that comes from outside; has words that are not known; leaves some out; may leave some out.
    let (mut is_elsewhere, mut is_strange, mut is_narrower, mut is_untold) = (false, false, false, false);
    let mut words = words.iter().copied().peekable();
    while let Some(word) = words.next() {
        match word {
            "in" | "all" | "quick" | "drop" => {}
            // How it is kept, treated and counted, not which packets it is for.
            "allow-opts" | "divert-reply" | "no-df" | "random-id" => {}
            "label" | "tag" | "queue" | "rtable" | "min-ttl" | "max-mss" => drop(words.next()?),
            // A rule with them is passed over by segments of TCP that have others.
            "flags" => is_narrower |= !has_connections(words.next()?) && !is_pass,
            "reply-to" | "dup-to" => {
                words.next()?;
                while words.next_if(|word| matches!(*word, "round-robin" | "random" | "sticky-address")).is_some() {}
            }
            "log" => drop(words.next_if(|word| word.starts_with('('))),
            "keep" | "modulate" | "synproxy" | "no" if words.peek() == Some(&"state") => {
                words.next();
                words.next_if(|word| word.starts_with('('));
            }
            "out" => is_elsewhere = true,
            "inet" => is_elsewhere |= family != Family::Ipv4,
            "inet6" => is_elsewhere |= family != Family::Ipv6,
            "on" => {
                let is_other = words.next_if_eq(&"!").is_some();
                match is_loopback(words.next()?) == is_other {
                    // Everything but the loopback.
                    true if is_other => {}
                    true => is_narrower |= !is_pass,
                    false if is_other => is_narrower |= !is_pass,
                    false => is_elsewhere = true,
                }
            }
            "from" => match address(&mut words)? {
                "any" => {}
                "!" => is_untold = true,
                from if is_wide(from) => is_untold = true,
                _ => is_narrower = true,
            },
            // The host's own addresses are all that there are for most, and which these are is not asked.
            "to" => match address(&mut words)? {
                "any" => {}
                to if is_never_own(to) => is_narrower = true,
                _ => is_untold = true,
            },
            "port" | "user" | "group" => match is_few(&mut words)? {
                true => is_narrower = true,
                false => is_untold = true,
            },
            // Most of what serves is one of these two.
            "proto" if matches!(words.next()?, "tcp" | "udp") => is_untold = true,
            "proto" | "fragment" => is_narrower = true,
            "os" | "icmp-type" | "icmp6-type" | "code" | "tos" => {
                words.next()?;
                is_narrower = true;
            }
            "divert-to" => {
                words.next()?;
                words.next_if_eq(&"port");
                words.next()?;
                is_strange = true;
            }
            _ if !is_pass && word.starts_with("return") || word.starts_with("queue(") => {}
            _ => is_strange = true,
        }
    }
    Some(if is_elsewhere || is_narrower && !is_strange || !is_pass && (is_strange || is_untold) {
        Scope::Narrower
    } else if is_strange || is_untold {
        Scope::Untold
    } else {
        Scope::Every
    })
}

/// Whether the `flags` of a rule, those that are set before those that are looked at, are those of every segment that opens a connection:
/// SYN without ACK, FIN and RST, with ECE and CWR or without (RFC 3168, section 6.1.1).
fn has_connections(flags: &str) -> bool {
    let Some((set, of)) = flags.split_once('/') else { return flags == "any" };
    set == if of.contains('S') { "S" } else { "" } && of.bytes().all(|flag| b"FSRPAU".contains(&flag))
}

/// Returns an address as print_fromto() writes it: the first of a range `a - b`, and `!` for all but one.
fn address<'w>(words: &mut std::iter::Peekable<impl Iterator<Item = &'w str>>) -> Option<&'w str> {
    let is_other = words.next_if_eq(&"!").is_some();
    let first = words.next()?;
    if words.next_if_eq(&"-").is_some() {
        words.next()?;
        return Some("!");
    }
    Some(if is_other { "!" } else { first })
}

/// Whether it may be most of a family: a table, or a network larger than those that one organisation has.
fn is_wide(from: &str) -> bool {
    let length = from.split_once('/').map(|(_, length)| length.parse::<u8>());
    match length {
        _ if from.starts_with('<') => true,
        None => false,
        Some(Ok(length)) => length < if from.contains(':') { 7 } else { 8 },
        Some(Err(_)) => true,
    }
}

/// Whether no packet from outside goes to it that the host takes for itself alone: the loopback, and what many take.
fn is_never_own(to: &str) -> bool {
    let (address, length) =
        to.split_once('/').map_or((to, Ok(128)), |(address, length)| (address, length.parse::<u8>()));
    match (address.parse(), length) {
        (Ok(IpAddr::V4(address)), Ok(length)) => {
            address.is_loopback() && length >= 8 || address.is_multicast() && length >= 4 || address.is_broadcast()
        }
        (Ok(IpAddr::V6(address)), Ok(length)) => {
            address.is_loopback() && length == 128 || address.is_multicast() && length >= 8
        }
        _ => false,
    }
}

/// Whether a comparison of print_op() holds for few numbers: `= 22`, `6000:6010`, `6000 >< 6010`.
fn is_few<'w>(words: &mut std::iter::Peekable<impl Iterator<Item = &'w str>>) -> Option<bool> {
    const FEW: u16 = 1024;
    let is_range = |from: &str, to: &str| match (from.parse::<u16>(), to.parse::<u16>()) {
        (Ok(from), Ok(to)) => to.saturating_sub(from) <= FEW,
        _ => false,
    };
    let first = words.next()?;
    if let Some((from, to)) = first.split_once(':') {
        return Some(is_range(from, to));
    }
    let second = words.next()?;
    match (first, second) {
        ("=", _) => Some(true),
        ("!=" | "<" | "<=" | ">" | ">=", _) => Some(false),
        (from, "><") => Some(is_range(from, words.next()?)),
        _ => words.next().map(|_| false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_loopback_may_be_skipped() {
        for (text, expected) in [
            ("all\nen0\nlo\nlo0 (skip)\n", Some(None)),
            ("all\nlo (skip)\nlo0 (skip)\n", Some(None)),
            ("all\nen0 (skip)\nlo0 (skip)\n", Some(Some("en0"))),
            ("all (skip)\nen0\n", Some(Some("all"))),
            ("all\nlowpan0 (skip)\n", Some(Some("lowpan0"))),
            ("all\nen0 (skip", None),
            ("all\nen0 (skip)", None),
            ("all\nen0 (other)\n", None),
            ("all\nen0 (skip) x\n", None),
            ("all\n\tCleared: x\n", None),
            ("all\n\n", None),
            ("en0\n", None),
            ("\n", None),
            ("", None),
        ] {
            assert_eq!(skipped(text.as_bytes()), expected.map(|name| name.map(str::to_owned)), "{text:?}");
        }
    }

    #[test]
    fn the_last_rule_for_every_packet_decides_or_the_first_that_is_quick() {
        for (rules, ipv4, ipv6) in [
            ("", Verdict::None, Verdict::None),
            (
                "scrub-anchor \"com.apple/*\" all fragment reassemble\nanchor \"com.apple/*\" all",
                Verdict::None,
                Verdict::None,
            ),
            ("block drop in all", Verdict::Block, Verdict::Block),
            (
                "block drop all\npass in proto tcp from any to any port = 22 flags S/SA keep state",
                Verdict::Block,
                Verdict::Block,
            ),
            ("block drop in all\npass in all flags S/SA keep state", Verdict::Pass, Verdict::Pass),
            ("block drop in quick all\npass in all", Verdict::Block, Verdict::Block),
            ("block return in inet all", Verdict::Block, Verdict::None),
            ("block drop in inet6 all", Verdict::None, Verdict::Block),
            ("block drop out all", Verdict::None, Verdict::None),
            ("block drop in log (all) from any to any", Verdict::Block, Verdict::Block),
            ("block return-rst(ttl 64) in proto tcp all", Verdict::None, Verdict::None),
            ("block drop in on en0 all", Verdict::None, Verdict::None),
            ("block drop in all flags any", Verdict::Block, Verdict::Block),
            ("block drop in all flags S/SA", Verdict::Block, Verdict::Block),
            ("block drop in all flags S/SAFR", Verdict::Block, Verdict::Block),
            ("block drop in all flags /FRA", Verdict::Block, Verdict::Block),
            ("block drop in all flags S", Verdict::None, Verdict::None),
            ("block drop in all flags F/F", Verdict::None, Verdict::None),
            ("block drop in all flags FPU/FPU", Verdict::None, Verdict::None),
            ("block drop in all flags SA/SA", Verdict::None, Verdict::None),
            ("block drop in all flags /S", Verdict::None, Verdict::None),
            // It has ECE and CWR set where explicit congestion notification is asked for.
            ("block drop in all flags S/FSRPAUEW", Verdict::None, Verdict::None),
            ("block drop in quick all flags /FSRPAU\nblock drop in inet all", Verdict::Block, Verdict::None),
            ("pass in all flags S/SA keep state\nblock drop in all flags FPU/FPU", Verdict::Pass, Verdict::Pass),
            ("pass in quick on lo0 all no state\nblock drop in all label \"rest\"", Verdict::Block, Verdict::Block),
            ("block drop in log all label \"Block all in\"", Verdict::Block, Verdict::Block),
            ("block drop in on ! lo0 all", Verdict::Block, Verdict::Block),
            ("block return-icmp(port-unr, port-unr) in log (all, user) all", Verdict::Block, Verdict::Block),
            ("block drop in all\npass in on lo0 all flags S/SA keep state", Verdict::Block, Verdict::Block),
            ("block drop in all\npass out quick route-to (utun3 10.0.0.1) inet all", Verdict::Block, Verdict::Block),
        ] {
            let found = [Family::Ipv4, Family::Ipv6].map(|family| verdict(rules.as_bytes(), family));
            assert_eq!(found, [Some(ipv4), Some(ipv6)], "{rules}");
        }
        for garbled in ["Fehler", "pfctl: /dev/pf: Permission denied", "blocked in all"] {
            assert_eq!(verdict(garbled.as_bytes(), Family::Ipv4), None, "{garbled}");
        }
    }

    #[test]
    fn what_stands_behind_a_rule_that_lets_all_pass_makes_it_no_narrower() {
        for rest in [
            "in all flags S/SA keep state label \"USER_RULE: allow all\"",
            "in all flags any allow-opts keep state",
            "in all flags S/SA keep state queue q1",
            "in all flags S/SA keep state queue(q1, q2)",
            "in all flags S/SA keep state (source-track rule, max-src-states 1000)",
            "in all flags S/SA keep state rtable 0",
            "in all no state allow-opts tag \"a b\"",
            "in reply-to (en0 192.168.1.1) all flags S/SA keep state",
            "in dup-to { (en0 192.168.1.1), (en1 192.168.1.2) } round-robin all flags S/SA keep state",
            "in log (all, to pflog1) quick on en0 all flags S/SA keep state",
            "in on ! lo0 all flags S/SA keep state",
        ] {
            let rules = format!("block drop in all\npass {rest}");
            assert_eq!(verdict(rules.as_bytes(), Family::Ipv4), Some(Verdict::Pass), "{rules}");
            let undone = format!("{rules}\nblock drop in all");
            let expected = if rest.contains(" quick ") { Verdict::Pass } else { Verdict::Block };
            assert_eq!(verdict(undone.as_bytes(), Family::Ipv4), Some(expected), "{undone}");
        }
    }

    #[test]
    fn a_rule_that_may_let_all_pass_is_named_and_no_narrower_one() {
        for (rest, is_narrower) in [
            ("from any to 192.168.1.5 flags S/SA keep state", false),
            ("from any to (en0) flags S/SA keep state", false),
            ("from any to ! 10.0.0.1 flags S/SA keep state", false),
            ("from any to 127.0.0.0/8 flags S/SA keep state", true),
            ("from any to 224.0.0.251 keep state", true),
            ("from any to 10.0.0.1 - 10.255.255.255 keep state", false),
            ("from ! 10.0.0.1 to any flags S/SA keep state", false),
            ("from <friends> to any flags S/SA keep state", false),
            ("from 128.0.0.0/1 to any flags S/SA keep state", false),
            ("from 10.0.0.0/8 to any flags S/SA keep state", true),
            ("from (en0:network) to any flags S/SA keep state", true),
            ("proto tcp all flags S/SA keep state", false),
            ("proto icmp all keep state", true),
            ("proto tcp from any to any port = ssh flags S/SA keep state", true),
            ("proto tcp from any to any port 5900:5910 flags S/SA keep state", true),
            ("proto tcp from any to any port 1:65535 flags S/SA keep state", false),
            ("proto tcp from any to any port 5900 >< 5910 flags S/SA keep state", true),
            ("proto tcp from any to any port 22 <> 23 flags S/SA keep state", false),
            ("proto tcp from any to any port != 22 flags S/SA keep state", false),
            ("proto udp from any port = 67 to any port = 68 keep state", true),
            ("proto tcp from any to any port = 22 user = 501 flags S/SA keep state", true),
            ("all user != 501 keep state", false),
            ("all keep state probability 99%", false),
            ("all flags S/SA keep state ! tagged other", false),
            ("route-to (en0 192.168.1.1) all flags S/SA keep state", false),
            ("all flags S/SA keep state divert-to 127.0.0.1 port 80", false),
            ("all flags S/SA keep state sometime", false),
            ("proto tcp from any to any port = 22 sometime flags S/SA", false),
        ] {
            let line = format!("pass in inet {rest}");
            let expected = if is_narrower { Verdict::Block } else { Verdict::Undecided(&line) };
            let rules = format!("block drop in all\n{line}");
            assert_eq!(verdict(rules.as_bytes(), Family::Ipv4), Some(expected), "{rules}");
            assert_eq!(verdict(rules.as_bytes(), Family::Ipv6), Some(Verdict::Block), "{rules}");
            // What comes behind it undoes it, but for `quick`.
            let undone = format!("{rules}\nblock drop in all");
            assert_eq!(verdict(undone.as_bytes(), Family::Ipv4), Some(Verdict::Block), "{undone}");
            let line = format!("pass in quick inet {rest}");
            let expected = if is_narrower { Verdict::Block } else { Verdict::Undecided(&line) };
            let rules = format!("{line}\nblock drop in all");
            assert_eq!(verdict(rules.as_bytes(), Family::Ipv4), Some(expected), "{rules}");
            let rules = format!("{rules}\npass in all");
            assert_eq!(verdict(rules.as_bytes(), Family::Ipv4), Some(Verdict::Pass), "{rules}");
        }
        for garbled in
            ["pass in all label \"half", "pass in log (all all", "pass in all)", "pass in from", "block in on"]
        {
            assert_eq!(verdict(garbled.as_bytes(), Family::Ipv4), None, "{garbled}");
        }
    }

    #[test]
    fn the_status_is_a_word_of_its_line() {
        let enabled = b"No ALTQ support in kernel\nStatus: Enabled for 0 days 00:10:00     Debug: Urgent\n";
        assert_eq!(is_enabled(enabled), Some(true));
        assert_eq!(is_enabled(b"Status: Disabled for 0 days 00:10:00"), Some(false));
        assert_eq!(is_enabled(b"Status: Aktiv"), None);
        assert_eq!(anchors(b"  com.apple\n  com.apple/250.ApplicationFirewall\n\n").len(), 2);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), rule in "(block|pass)( (in|log|\\(|\\)|all|return|to|any|flags|no|state|quick|on|!|port|-|<>|\"))*") {
            let _ = verdict(&bytes, Family::Ipv4);
            let _ = verdict(rule.as_bytes(), Family::Ipv6);
            let _ = is_enabled(&bytes);
            let _ = anchors(&bytes);
        }
    }
}
