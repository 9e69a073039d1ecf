//! Rules of pf as pfctl(8) prints them, as far as they decide for every new packet from outside.
//!
//! The last rule that matches decides, or the first with `quick` (pf.conf(5)). A rule with any condition beyond direction and
//! family is narrower than "every packet" and is passed over, as everywhere in this probe.

use crate::host::Family;

/// What rules come to for a packet that no narrower rule decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// No rule decides for every packet; pf lets it pass.
    None,
    Pass,
    Block,
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
        let is_loopback = name.strip_prefix("lo").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        if is_skipped && !is_loopback && skipped.is_none() {
            skipped = Some(name.to_owned());
        }
    }
    has_all.then_some(skipped)
}

/// Returns what the `rules` of `pfctl -s rules` come to. `None` when a line has no form of pf.conf(5) that is known.
pub(super) fn verdict(rules: &[u8], family: Family) -> Option<Verdict> {
    let text = std::str::from_utf8(rules).ok()?;
    let mut verdict = Verdict::None;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_ascii_whitespace().peekable();
        let found = match words.next()? {
            "pass" => Verdict::Pass,
            "block" => {
                // `return-rst(ttl 64)`, `return-icmp(port-unr, port-unr)`: the way in which it is refused.
                while words.peek().is_some_and(|word| *word == "drop" || word.starts_with("return")) {
                    let mut word = words.next()?;
                    while word.contains('(') && !word.ends_with(')') {
                        word = words.next()?;
                        if word.ends_with(')') {
                            break;
                        }
                    }
                }
                Verdict::Block
            }
            // They change packets or name other rules, which are read for themselves.
            "scrub" | "scrub-anchor" | "no" | "match" | "anchor" | "nat" | "nat-anchor" | "rdr" | "rdr-anchor"
            | "binat-anchor" | "dummynet" | "dummynet-anchor" | "antispoof" | "load" | "set" | "table" | "altq"
            | "queue" => continue,
            _ => return None,
        };
        let (mut is_quick, mut is_every) = (false, true);
        while let Some(word) = words.next() {
            match word {
                "in" | "all" => {}
                "out" => is_every = false,
                "quick" => is_quick = true,
                // A log takes options in brackets and changes nothing.
                "log" => {
                    if words.peek().is_some_and(|word| word.starts_with('(')) {
                        while !words.next()?.ends_with(')') {}
                    }
                }
                "inet" => is_every &= family == Family::Ipv4,
                "inet6" => is_every &= family == Family::Ipv6,
                // What follows a rule that lets pass says how its connection is kept, not which packets it is for.
                "flags" | "label" | "tag" if found == Verdict::Pass => drop(words.next()),
                "label" | "tag" => drop(words.next()),
                "keep" | "modulate" | "synproxy" | "no" if words.peek() == Some(&"state") => drop(words.next()),
                "from" | "to" if words.peek() == Some(&"any") => drop(words.next()),
                _ => is_every = false,
            }
        }
        if is_every {
            verdict = found;
            if is_quick {
                break;
            }
        }
    }
    Some(verdict)
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
            ("pass in quick on lo0 all no state\nblock drop in all label \"rest\"", Verdict::Block, Verdict::Block),
        ] {
            let found = [Family::Ipv4, Family::Ipv6].map(|family| verdict(rules.as_bytes(), family));
            assert_eq!(found, [Some(ipv4), Some(ipv6)], "{rules}");
        }
        for garbled in ["Fehler", "pfctl: /dev/pf: Permission denied", "blocked in all"] {
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
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), rule in "(block|pass)( (in|log|\\(|all|return|to|any|flags|no|state|quick|\"))*") {
            let _ = verdict(&bytes, Family::Ipv4);
            let _ = verdict(rule.as_bytes(), Family::Ipv6);
            let _ = is_enabled(&bytes);
            let _ = anchors(&bytes);
        }
    }
}
