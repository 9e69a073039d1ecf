//! The profiles of Windows' own firewall, as they are in force: the active store, which is the sum of all policies.
//!
//! Numbers of `MSFT_NetFirewallProfile`, never the text of `netsh`, which is in the host's language. Written from
//! Microsoft's documentation; **it has never run on Windows**.

use muster_proto::fact::{Cause, FilterEngine, Firewall, FirewallProfile, Inbound, Reading, Text, Unknown};
use serde::Deserialize;

use crate::{
    host::{Host, Script},
    probe::answer,
};

/// The services without which nothing is filtered: the base filtering engine and the firewall.
const SERVICES: [&str; 2] = ["BFE", "MpsSvc"];
/// `ServiceControllerStatus.Running` of .NET.
const RUNNING: i64 = 4;
/// The profiles that every Windows has.
const PROFILES: [&str; 3] = ["domain", "private", "public"];

#[derive(Deserialize)]
struct Service {
    name: String,
    status: i64,
}

/// `MSFT_NetFirewallProfile`.
#[derive(Debug, Deserialize)]
struct Profile {
    name: String,
    enabled: Option<i64>,
    inbound: Option<i64>,
    inbound_rules: Option<i64>,
    /// Aliases of the interfaces that it leaves alone.
    excluded: Option<Vec<Option<String>>>,
}

/// What `DisabledInterfaceAliases` has where it names none; not translated.
const NOT_CONFIGURED: &str = "NotConfigured";

impl Profile {
    /// Whether it leaves interfaces alone, on which nothing is filtered; `None` when that is not told.
    fn has_excluded(&self) -> Option<bool> {
        let mut excluded = false;
        for alias in self.excluded.as_ref()? {
            excluded |= alias.as_ref()? != NOT_CONFIGURED;
        }
        Some(excluded)
    }
}

/// `FirewallProduct` of the Security Center: a firewall of another maker.
#[derive(Deserialize)]
struct Other {}

pub(super) fn state(host: &dyn Host) -> Result<Firewall, Unknown> {
    let answer = answer::ask(host, Script::Firewall)?;
    let mut profiles: Vec<FirewallProfile> = answer.part("profiles")?.iter().map(profile).collect();
    profiles.sort_by(|a, b| a.name.cmp(&b.name));
    let running = answer.part("services").map(|services: Vec<Service>| {
        SERVICES.iter().all(|name| services.iter().any(|service| service.name == *name && service.status == RUNNING))
    });
    let others = match answer.part::<Other>("others") {
        Ok(others) => Ok(!others.is_empty()),
        // Servers have no Security Center.
        Err(unknown) if unknown.cause == Cause::Absent => Ok(false),
        Err(unknown) => Err(unknown),
    };
    let inbound = inbound(&profiles, running, others);
    Ok(Firewall {
        inbound_ipv4: inbound.clone(),
        inbound_ipv6: inbound,
        input_chains: Vec::new(),
        managers: Vec::new(),
        rule_set_digest: Reading::unknown(Cause::Unsupported, "this build reads no rules of Windows' firewall"),
        profiles,
    })
}

/// Values of `GpoBoolean` and of `Action` on the page of MSFT_NetFirewallProfile. In the active store what no policy
/// configures has its default: on, and inbound blocked.
fn profile(profile: &Profile) -> FirewallProfile {
    let switch = |value: Option<i64>, name: &str| match value {
        Some(0) => Reading::Known(false),
        Some(1 | 2) => Reading::Known(true),
        Some(other) => Reading::unknown(Cause::Unsupported, format!("{name} is {other}, which is not documented")),
        None => Reading::unknown(Cause::Garbled, format!("{name} has no value")),
    };
    let by_default = match profile.inbound {
        Some(0 | 4) => Reading::Known(Inbound::Deny),
        Some(2) => Reading::Known(Inbound::Allow),
        Some(other) => {
            Reading::unknown(Cause::Unsupported, format!("DefaultInboundAction is {other}, which is not documented"))
        }
        None => Reading::unknown(Cause::Garbled, "DefaultInboundAction has no value"),
    };
    // Without inbound rules nothing is let in at all.
    let blocks_all = switch(profile.inbound_rules, "AllowInboundRules").map(|allowed| !allowed);
    let (inbound, blocks_all) = match profile.has_excluded() {
        Some(false) => (by_default, blocks_all),
        // An interface that the profile leaves alone is open, whatever the profile says.
        Some(true) => (Reading::Known(Inbound::Allow), Reading::Known(false)),
        None => {
            let untold = || Unknown::new(Cause::Garbled, "DisabledInterfaceAliases has no value");
            let inbound = match by_default {
                Reading::Known(Inbound::Allow) => by_default,
                _ => Reading::Unknown { unknown: untold() },
            };
            (inbound, Reading::Unknown { unknown: untold() })
        }
    };
    FirewallProfile {
        engine: FilterEngine::WindowsFiltering,
        name: Text::new(&profile.name.to_ascii_lowercase()),
        enabled: switch(profile.enabled, "Enabled"),
        inbound,
        blocks_all: Some(blocks_all),
        stealth: None,
    }
}

/// A host may be on a network of any profile at any time, so that the weakest decides.
fn inbound(
    profiles: &[FirewallProfile],
    running: Result<bool, Unknown>,
    others: Result<bool, Unknown>,
) -> Reading<Inbound> {
    if let Some(missing) = PROFILES.iter().find(|name| profiles.iter().all(|profile| profile.name.as_str() != **name)) {
        return Reading::unknown(Cause::Garbled, format!("profile {missing} is not listed"));
    }
    let is_open = |profile: &FirewallProfile| {
        profile.enabled == Reading::Known(false)
            || profile.inbound == Reading::Known(Inbound::Allow) && profile.blocks_all != Some(Reading::Known(true))
    };
    let is_closed = |profile: &FirewallProfile| {
        profile.enabled == Reading::Known(true)
            && (profile.inbound == Reading::Known(Inbound::Deny) || profile.blocks_all == Some(Reading::Known(true)))
    };
    if profiles.iter().any(is_open) || running == Ok(false) {
        return match others {
            Ok(false) => Reading::Known(Inbound::Allow),
            Ok(true) => Reading::unknown(Cause::Unsupported, "a firewall of another maker is registered"),
            Err(unknown) => Reading::Unknown { unknown },
        };
    }
    match running {
        Ok(_) if profiles.iter().all(is_closed) => Reading::Known(Inbound::Deny),
        Ok(_) => {
            let why = profiles.iter().find_map(|profile| match (&profile.enabled, &profile.inbound) {
                (Reading::Unknown { unknown }, _) | (_, Reading::Unknown { unknown }) => Some(unknown.clone()),
                _ => None,
            });
            let unknown =
                why.unwrap_or_else(|| Unknown::new(Cause::Undecidable, "a profile does not say what it does"));
            Reading::Unknown { unknown }
        }
        Err(unknown) => Reading::Unknown { unknown },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: [(i64, i64); 3], running: bool, other: bool) -> Reading<Inbound> {
        let profiles: Vec<_> = PROFILES
            .iter()
            .zip(numbers)
            .map(|(name, (enabled, inbound))| {
                let (enabled, inbound, inbound_rules) = (Some(enabled), Some(inbound), Some(1));
                let excluded = Some(vec![Some(NOT_CONFIGURED.to_owned())]);
                profile(&Profile { name: name.to_string(), enabled, inbound, inbound_rules, excluded })
            })
            .collect();
        inbound(&profiles, Ok(running), Ok(other))
    }

    #[test]
    fn the_weakest_profile_decides() {
        let (deny, allow) = (Reading::Known(Inbound::Deny), Reading::Known(Inbound::Allow));
        assert_eq!(of([(1, 4), (1, 4), (1, 4)], true, false), deny);
        assert_eq!(of([(2, 0), (1, 0), (1, 4)], true, false), deny);
        assert_eq!(of([(1, 4), (0, 4), (1, 4)], true, false), allow);
        assert_eq!(of([(1, 4), (1, 4), (1, 2)], true, false), allow);
        assert_eq!(of([(1, 4), (1, 4), (1, 4)], false, false), allow);
        assert!(of([(1, 4), (1, 4), (1, 4)], false, true).known().is_none());
        assert!(of([(1, 4), (1, 4), (1, 9)], true, false).known().is_none());
        assert!(inbound(&[], Ok(true), Ok(false)).known().is_none());
    }

    #[test]
    fn an_interface_that_a_profile_leaves_alone_is_open() {
        let of = |excluded: Option<&[Option<&str>]>, enabled, action, rules| {
            let profiles: Vec<_> = PROFILES
                .iter()
                .map(|name| {
                    let (enabled, inbound, inbound_rules) = (Some(enabled), Some(action), Some(rules));
                    let aliases =
                        |aliases: &[Option<&str>]| aliases.iter().map(|alias| alias.map(str::to_owned)).collect();
                    let excluded = excluded.map(aliases);
                    profile(&Profile { name: name.to_string(), enabled, inbound, inbound_rules, excluded })
                })
                .collect();
            inbound(&profiles, Ok(true), Ok(false)).known().copied()
        };
        let none: &[Option<&str>] = &[Some(NOT_CONFIGURED)];
        assert_eq!(of(Some(none), 1, 4, 1), Some(Inbound::Deny));
        assert_eq!(of(Some(&[]), 1, 4, 1), Some(Inbound::Deny));
        assert_eq!(of(Some(none), 1, 4, 0), Some(Inbound::Deny));
        assert_eq!(of(Some(&[Some("Ethernet"), Some("WLAN")]), 1, 4, 1), Some(Inbound::Allow));
        // Also where no inbound rule counts.
        assert_eq!(of(Some(&[Some("Ethernet")]), 1, 4, 0), Some(Inbound::Allow));
        // What is not told is not pass, and what is open without it stays so.
        for untold in [None, Some(&[None][..])] {
            assert_eq!(of(untold, 1, 4, 1), None);
            assert_eq!(of(untold, 1, 4, 0), None);
            assert_eq!(of(untold, 1, 2, 1), Some(Inbound::Allow));
            assert_eq!(of(untold, 0, 4, 1), Some(Inbound::Allow));
        }
    }
}
