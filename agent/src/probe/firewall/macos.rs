//! The two filters of macOS: the application firewall, which decides by program, and pf(4), which decides by packet.
//!
//! Written from manual pages and from output that others published; **it has never run on macOS**. The lines of
//! socketfilterfw and pfctl are not translated; of the first only the number of its state is taken.

use muster_proto::fact::{Cause, FilterEngine, Firewall, FirewallProfile, Inbound, Reading, Text, Unknown};
use sha2::{Digest as _, Sha256};

use super::pf::{self, Verdict};
use crate::{
    host::{self, Family, Host, Tool},
    probe::firewall::DIGEST_DOMAIN,
};

/// Anchors whose rules are read, at most.
const ANCHORS: usize = 64;

pub(super) fn state(host: &dyn Host) -> Firewall {
    let application = application_firewall(host);
    let pf = Pf::look(host);
    let (enabled, ipv4, ipv6) = pf.readings();
    let pf_profile = FirewallProfile {
        engine: FilterEngine::Pf,
        name: Text::default(),
        enabled: enabled.clone(),
        inbound: weaker(ipv4.clone(), ipv6.clone()),
        blocks_all: None,
        stealth: None,
    };
    Firewall {
        inbound_ipv4: either(&application, &enabled, ipv4),
        inbound_ipv6: either(&application, &enabled, ipv6),
        input_chains: Vec::new(),
        managers: Vec::new(),
        rule_set_digest: pf.digest(),
        profiles: vec![application, pf_profile],
    }
}

/// A packet must pass both. The application firewall denies what no rule of a program lets in; an own program of the
/// system or one with a signature may be such a rule.
fn either(application: &FirewallProfile, pf_enabled: &Reading<bool>, pf: Reading<Inbound>) -> Reading<Inbound> {
    if application.enabled == Reading::Known(true) {
        return Reading::Known(Inbound::Deny);
    }
    let pf = match pf_enabled {
        Reading::Known(true) => pf,
        Reading::Known(false) => Reading::Known(Inbound::Allow),
        Reading::Unknown { unknown } => Reading::Unknown { unknown: unknown.clone() },
    };
    match (&application.enabled, &pf) {
        (_, Reading::Known(Inbound::Deny)) | (Reading::Known(_), _) => pf,
        (Reading::Unknown { unknown }, _) => Reading::Unknown { unknown: unknown.clone() },
    }
}

fn weaker(a: Reading<Inbound>, b: Reading<Inbound>) -> Reading<Inbound> {
    match (&a, &b) {
        (Reading::Known(Inbound::Deny), _) | (_, Reading::Known(Inbound::Allow)) => b,
        _ => a,
    }
}

fn application_firewall(host: &dyn Host) -> FirewallProfile {
    let ask = |option: &str| {
        let output = host.run(Tool::Socketfilterfw, &[option]);
        host::reading(format!("run socketfilterfw {option}"), output)
            .map(|output| String::from_utf8_lossy(&output).into_owned())
    };
    let garbled = |option: &str| Unknown::new(Cause::Garbled, format!("socketfilterfw {option} told no state"));
    let global = told(ask("--getglobalstate"), number, garbled("--getglobalstate"));
    let stealth = told(ask("--getstealthmode"), switch, garbled("--getstealthmode"));
    FirewallProfile {
        engine: FilterEngine::ApplicationFirewall,
        name: Text::default(),
        // 0 is off, 1 on for chosen programs, 2 on and nothing is let in but what the system itself needs.
        enabled: global.clone().map(|state| state != 0),
        inbound: Reading::Known(Inbound::Deny),
        blocks_all: Some(global.map(|state| state == 2)),
        stealth: Some(stealth),
    }
}

/// Returns what `parse` makes of the text; a text of which it makes nothing is `garbled`.
fn told<T>(text: Reading<String>, parse: fn(&str) -> Option<T>, garbled: Unknown) -> Reading<T> {
    match text {
        Reading::Known(text) => match parse(&text) {
            Some(value) => Reading::Known(value),
            None => Reading::Unknown { unknown: garbled },
        },
        Reading::Unknown { unknown } => Reading::Unknown { unknown },
    }
}

/// Returns the number of `(State = 1)`.
fn number(text: &str) -> Option<u8> {
    let (_, rest) = text.split_once("(State = ")?;
    rest.split_once(')')?.0.parse().ok().filter(|state| *state <= 2)
}

/// `Firewall stealth mode is on`, and `Stealth mode enabled` before macOS 15.
fn switch(text: &str) -> Option<bool> {
    match text.trim().trim_end_matches('.') {
        "Firewall stealth mode is on" | "Stealth mode enabled" => Some(true),
        "Firewall stealth mode is off" | "Stealth mode disabled" => Some(false),
        _ => None,
    }
}

/// What pfctl(8) told.
struct Pf {
    enabled: Reading<bool>,
    /// The main rule set.
    rules: Result<Vec<u8>, Unknown>,
    /// Rules of each anchor, by name.
    anchors: Result<Vec<(String, Vec<u8>)>, Unknown>,
    /// An interface that is no loopback and on which pf does nothing, if there is one.
    skipped: Result<Option<String>, Unknown>,
}

impl Pf {
    fn look(host: &dyn Host) -> Self {
        let run = |args: &[&str]| {
            host.run(Tool::Pfctl, args).map_err(|error| host::unknown(format!("run pfctl {}", args.join(" ")), &error))
        };
        let enabled = match run(&["-s", "info"]) {
            Ok(output) => pf::is_enabled(&output)
                .map_or_else(|| Reading::unknown(Cause::Garbled, "pfctl -s info told no status"), Reading::Known),
            Err(unknown) => Reading::Unknown { unknown },
        };
        let rules = |args: &[&str]| {
            let output = run(args)?;
            // A line that was cut could be a part of a narrower rule.
            match output.last() {
                None | Some(b'\n') => Ok(output),
                Some(_) => Err(Unknown::new(Cause::Garbled, format!("pfctl {} printed half a line", args.join(" ")))),
            }
        };
        let anchors = || {
            let names = pf::anchors(&rules(&["-v", "-s", "Anchors"])?);
            if names.len() > ANCHORS {
                return Err(Unknown::new(Cause::Limit, "more anchors than are followed"));
            }
            names.into_iter().map(|name| Ok((name.clone(), rules(&["-a", &name, "-s", "rules"])?))).collect()
        };
        let skipped = || {
            let garbled = || Unknown::new(Cause::Garbled, "pfctl -v -s Interfaces printed no list of interfaces");
            pf::skipped(&run(&["-v", "-s", "Interfaces"])?).ok_or_else(garbled)
        };
        // Rules that are not in force decide nothing, and are not asked for.
        let off = || Unknown::new(Cause::Absent, "pf is off");
        match enabled.known() {
            Some(false) => Self { enabled, rules: Err(off()), anchors: Err(off()), skipped: Err(off()) },
            _ => Self { enabled, rules: rules(&["-s", "rules"]), anchors: anchors(), skipped: skipped() },
        }
    }

    fn readings(&self) -> (Reading<bool>, Reading<Inbound>, Reading<Inbound>) {
        let inbound = |family| {
            // Packets pass there whatever the rules say (`set skip` of pf.conf(5)).
            if let Ok(Some(_)) = self.skipped {
                return Reading::Known(Inbound::Allow);
            }
            let (rules, anchors) = match (&self.rules, &self.anchors) {
                (Ok(rules), Ok(anchors)) => (rules, anchors),
                (Err(unknown), _) | (_, Err(unknown)) => return Reading::Unknown { unknown: unknown.clone() },
            };
            // An anchor whose rules could decide for every packet makes the main rules alone no answer.
            let deciding = anchors.iter().find(|(_, rules)| pf::verdict(rules, family) != Some(Verdict::None));
            match (pf::verdict(rules, family), deciding) {
                (None, _) => Reading::unknown(Cause::Unsupported, "a rule of pf has a form that is not read"),
                (Some(_), Some((name, _))) => {
                    Reading::unknown(Cause::Undecidable, format!("rules of the pf anchor {}", Text::new(name)))
                }
                (Some(Verdict::Undecided(rule)), None) => {
                    Reading::unknown(Cause::Undecidable, format!("what the pf rule {} lets pass", Text::new(rule)))
                }
                (Some(Verdict::Block), None) => match &self.skipped {
                    Ok(_) => Reading::Known(Inbound::Deny),
                    Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
                },
                (Some(Verdict::Pass | Verdict::None), None) => Reading::Known(Inbound::Allow),
            }
        };
        (self.enabled.clone(), inbound(Family::Ipv4), inbound(Family::Ipv6))
    }

    fn digest(&self) -> Reading<Text> {
        match (&self.rules, &self.anchors) {
            (Ok(rules), Ok(anchors)) => {
                let mut hash = Sha256::new_with_prefix(DIGEST_DOMAIN);
                hash.update(rules);
                for (name, rules) in anchors {
                    hash.update([0]);
                    hash.update(name);
                    hash.update([0]);
                    hash.update(rules);
                }
                Reading::Known(Text::new(&hex::encode(hash.finalize())))
            }
            (Err(unknown), _) | (_, Err(unknown)) => Reading::Unknown { unknown: unknown.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_a_number_in_any_sentence() {
        for (text, expected) in [
            ("Firewall is enabled. (State = 1) \n", Some(1)),
            ("Firewall is disabled. (State = 0)\n", Some(0)),
            ("Firewall is set to block all non-essential incoming connections. (State = 2)\n", Some(2)),
            ("Firewall is enabled. (State = 7)", None),
            ("Firewall is enabled.", None),
            ("", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }

    #[test]
    fn one_filter_that_denies_decides_and_one_that_is_untold_leaves_it_open() {
        let unknown = || Reading::unknown(Cause::Forbidden, "");
        let profile = |enabled| FirewallProfile {
            engine: FilterEngine::ApplicationFirewall,
            name: Text::default(),
            enabled,
            inbound: Reading::Known(Inbound::Deny),
            blocks_all: None,
            stealth: None,
        };
        let (deny, allow) = (Reading::Known(Inbound::Deny), Reading::Known(Inbound::Allow));
        let (on, off) = (Reading::Known(true), Reading::Known(false));
        assert_eq!(either(&profile(on.clone()), &unknown_bool(), allow.clone()), deny);
        assert_eq!(either(&profile(off.clone()), &on, deny.clone()), deny);
        assert_eq!(either(&profile(off.clone()), &off, deny.clone()), allow);
        assert!(either(&profile(off), &unknown_bool(), allow.clone()).known().is_none());
        assert_eq!(either(&profile(unknown()), &on, deny.clone()), deny);
        assert!(either(&profile(unknown()), &on, allow).known().is_none());
    }

    fn unknown_bool() -> Reading<bool> {
        Reading::unknown(Cause::Forbidden, "")
    }
}
