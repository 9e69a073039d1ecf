//! Packet filters and listening sockets, as lines.

use super::{ITEMS, more, table, text, value, yes_no};
use crate::fact::{Firewall, FirewallProfile, Inbound, Listeners, Reach, Reading};

pub(super) fn firewall(firewall: &Firewall) -> Vec<String> {
    let inbound = |reading: &Reading<Inbound>| {
        value(reading, |inbound| match inbound {
            Inbound::Deny => "denied unless a rule lets it in".to_owned(),
            Inbound::Allow => "ALLOWED by default".to_owned(),
        })
    };
    let managers: Vec<_> = firewall.managers.iter().take(ITEMS).map(|manager| manager.as_str()).collect();
    let mut lines = table(&[
        ("inbound IPv4", inbound(&firewall.inbound_ipv4)),
        ("inbound IPv6", inbound(&firewall.inbound_ipv6)),
        ("managed by", if managers.is_empty() { "nothing recognised".to_owned() } else { managers.join(", ") }),
        ("rule set", value(&firewall.rule_set_digest, |digest| format!("sha256 {digest}"))),
    ]);
    lines.extend(firewall.input_chains.iter().take(ITEMS).map(|chain| {
        format!(
            "chain {} {} {} (priority {}, {}): policy {}, {} rules, else {}",
            chain.family.as_str(),
            chain.table,
            chain.chain,
            chain.priority,
            chain.engine.as_str(),
            chain.policy.as_str(),
            chain.rule_count,
            chain.default_verdict.as_str()
        )
    }));
    lines.extend(more(firewall.input_chains.len(), "chains"));
    lines.extend(firewall.profiles.iter().take(ITEMS).map(firewall_profile));
    lines.extend(more(firewall.profiles.len(), "profiles"));
    lines
}

fn firewall_profile(profile: &FirewallProfile) -> String {
    let mut line = profile.engine.as_str().replace('_', " ");
    if !profile.name.is_empty() {
        line.push_str(&format!(" {}", profile.name));
    }
    line.push_str(&format!(
        ": on {}, inbound {}",
        yes_no(&profile.enabled),
        value(&profile.inbound, |inbound| { inbound.as_str().to_owned() })
    ));
    for (name, switch) in [("blocks all", &profile.blocks_all), ("stealth", &profile.stealth)] {
        line.extend(switch.as_ref().map(|switch| format!(", {name} {}", yes_no(switch))));
    }
    line
}

pub(super) fn listeners(listeners: &Listeners) -> Vec<String> {
    let mut lines: Vec<_> = listeners
        .listeners
        .iter()
        .take(ITEMS)
        .map(|listener| {
            let address = if listener.address.as_str().contains(':') {
                format!("[{}]:{}", listener.address, listener.port)
            } else {
                format!("{}:{}", listener.address, listener.port)
            };
            let program = text(&listener.program);
            let reachable = listener.reachable.as_ref().map_or(String::new(), |reading| {
                let reachable = value(reading, |reach| match reach {
                    Reach::Any => "let in from ANY sender".to_owned(),
                    Reach::Some => "let in from some senders".to_owned(),
                    Reach::None => "not let in".to_owned(),
                });
                format!("  {reachable}")
            });
            format!("{} {address}  {program}{reachable}", listener.protocol.as_str())
        })
        .collect();
    lines.extend(more(listeners.listeners.len(), "listeners"));
    if lines.is_empty() {
        lines.push("nothing listens".to_owned());
    }
    lines
}
