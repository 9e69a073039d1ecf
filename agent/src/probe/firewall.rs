//! What a packet from outside would meet: the kernel's own packet filters, nf_tables and the legacy tables beside it.
//!
//! The policy of a chain is not the answer: firewalld accepts by policy and rejects by its last rule. So rules are
//! followed as a new packet would, of which only its being new and from outside is known; see [`rules`].

mod legacy;
mod netlink;
mod nf_tables;
mod rules;

use std::{collections::BTreeMap, io, path::Path};

use muster_proto::{
    fact::{
        Cause, DefaultVerdict, Fact, FilterEngine, FilterFamily, Firewall, FirewallManager, Inbound, InputChain,
        Reading, Text, Unknown,
    },
    report,
};
use sha2::{Digest as _, Sha256};

use super::{Look, Probe};
use crate::host::{self, Dump, Family, Host, SMALL_FILE_BYTES};

/// Domain of the digest of a rule set.
const DIGEST_DOMAIN: &[u8] = b"muster/rule-set/v1\0";

/// Sets whose elements are asked for, at most.
const SETS: usize = 1024;

/// The probe of `firewall`.
pub struct FirewallProbe;

impl Probe for FirewallProbe {
    fn id(&self) -> report::Probe {
        report::Probe::Firewall
    }

    fn name(&self) -> &'static str {
        "firewall"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        vec![Fact::Firewall(state(look.host))]
    }
}

/// What one engine holds.
#[derive(Debug, Default)]
struct Filter {
    chains: Vec<InputChain>,
    managers: Vec<FirewallManager>,
    /// What the digest covers.
    canonical: Vec<u8>,
}

fn state(host: &dyn Host) -> Reading<Firewall> {
    let engines = [nf_tables(host), legacy(host, Family::Ipv4), legacy(host, Family::Ipv6)];
    let mut known = Filter::default();
    let mut unknown: [Option<Unknown>; 3] = [None, None, None];
    for (engine, result) in engines.into_iter().enumerate() {
        match result {
            Ok(filter) => {
                known.chains.extend(filter.chains);
                known.managers.extend(filter.managers);
                known.canonical.extend(filter.canonical);
            }
            Err(error) => unknown[engine] = Some(error),
        }
    }
    let [nf_tables, ipv4, ipv6] = unknown;
    // An engine that could not be read may hold anything.
    if let (Some(unknown), true) = (&nf_tables, known.chains.is_empty()) {
        return Reading::Unknown { unknown: unknown.clone() };
    }
    known
        .chains
        .sort_by_key(|chain| (chain.priority, chain.engine, chain.family, chain.table.clone(), chain.chain.clone()));
    known.managers.sort();
    known.managers.dedup();
    let unread = nf_tables.clone().or(ipv4.clone()).or(ipv6.clone());
    Reading::Known(Firewall {
        inbound_ipv4: inbound(&known.chains, FilterFamily::Ip, nf_tables.clone().or(ipv4)),
        inbound_ipv6: inbound(&known.chains, FilterFamily::Ip6, nf_tables.or(ipv6)),
        input_chains: known.chains,
        managers: known.managers,
        rule_set_digest: match unread {
            Some(unknown) => Reading::Unknown { unknown },
            None => {
                let mut hash = Sha256::new_with_prefix(DIGEST_DOMAIN);
                hash.update(&known.canonical);
                Reading::Known(Text::new(&hex::encode(hash.finalize())))
            }
        },
    })
}

/// A packet is let in when every chain in its way accepts it. One that denies decides, whatever the others hold.
fn inbound(chains: &[InputChain], family: FilterFamily, unread: Option<Unknown>) -> Reading<Inbound> {
    let mut undecidable = None;
    for chain in chains.iter().filter(|chain| chain.family == family || chain.family == FilterFamily::Inet) {
        match chain.default_verdict {
            DefaultVerdict::Drop | DefaultVerdict::Reject => return Reading::Known(Inbound::Deny),
            DefaultVerdict::Undecidable => undecidable = Some(chain),
            DefaultVerdict::Accept => {}
        }
    }
    match (unread, undecidable) {
        (Some(unknown), _) => Reading::Unknown { unknown },
        (None, Some(chain)) => {
            Reading::unknown(Cause::Undecidable, format!("chain {} of table {}", chain.chain, chain.table))
        }
        (None, None) => Reading::Known(Inbound::Allow),
    }
}

fn nf_tables(host: &dyn Host) -> Result<Filter, Unknown> {
    let mut dumps = [Vec::new(), Vec::new(), Vec::new()];
    for (bytes, dump) in dumps.iter_mut().zip([Dump::Tables, Dump::Chains, Dump::Rules]) {
        *bytes = match host.nf_tables(dump) {
            Ok(answer) => answer,
            // A kernel without nf_tables holds no rule in it.
            Err(error) if host::cause(&error) == Cause::Unsupported => return Ok(Filter::default()),
            Err(error) => return Err(host::unknown(format!("dump nf_tables {}", dump.as_str()), &error)),
        };
    }
    let [tables, chains, rules] = dumps;
    let garbled = || Unknown::new(Cause::Garbled, "nf_tables dump does not follow its format");
    let mut sets = BTreeMap::new();
    for name in nf_tables::wanted_sets(&rules).ok_or_else(garbled)? {
        if sets.len() == SETS {
            return Err(Unknown::new(Cause::Limit, "more sets than are followed"));
        }
        let (family, table, set) = &name;
        let elements = host.nf_elements(*family, table, set);
        let elements = elements.map_err(|error| host::unknown(format!("dump nf_tables set {set}"), &error))?;
        sets.insert(name, nf_tables::parse_elements(&elements).ok_or_else(garbled)?);
    }
    let set = nf_tables::parse(&tables, &chains, &rules, &sets).ok_or_else(garbled)?;
    Ok(Filter { chains: set.input_chains(), managers: managers(set.names()), canonical: set.canonical })
}

fn legacy(host: &dyn Host, family: Family) -> Result<Filter, Unknown> {
    let (path, filter_family) = match family {
        Family::Ipv4 => ("/proc/net/ip_tables_names", FilterFamily::Ip),
        Family::Ipv6 => ("/proc/net/ip6_tables_names", FilterFamily::Ip6),
    };
    let names = match host.read(Path::new(path), SMALL_FILE_BYTES) {
        Ok(names) => String::from_utf8_lossy(&names).into_owned(),
        // A kernel without legacy tables.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Filter::default()),
        Err(error) => return Err(host::unknown(format!("read {path}"), &error)),
    };
    let mut found = Filter::default();
    // The tables that see the input hook, by priority (linux/netfilter_ipv4.h).
    for (table, priority) in [("mangle", -150), ("filter", 0), ("security", 50)] {
        if !names.lines().any(|name| name == table) {
            continue;
        }
        let bytes = host
            .iptables(family, table)
            .map_err(|error| host::unknown(format!("read legacy table {table}"), &error))?;
        let parsed = legacy::parse(family, &bytes)
            .ok_or_else(|| Unknown::new(Cause::Garbled, format!("legacy table {table} does not follow its format")))?;
        found.managers.extend(managers(parsed.names.iter().map(String::as_str)));
        found.canonical.extend_from_slice(&parsed.canonical);
        if let Some(input) = parsed.input {
            found.chains.push(InputChain {
                engine: FilterEngine::IptablesLegacy,
                family: filter_family,
                table: Text::new(table),
                chain: Text::new("INPUT"),
                priority,
                policy: input.policy,
                default_verdict: input.verdict,
                rule_count: input.rule_count,
            });
        }
    }
    Ok(found)
}

/// Returns the programs whose names for chains and tables are among `names`.
fn managers<'n>(names: impl Iterator<Item = &'n str>) -> Vec<FirewallManager> {
    names
        .filter_map(|name| match name {
            "firewalld" => Some(FirewallManager::Firewalld),
            "DOCKER" => Some(FirewallManager::Docker),
            name if name.starts_with("ufw-") || name.starts_with("ufw6-") => Some(FirewallManager::Ufw),
            name if name.starts_with("filter_IN_") => Some(FirewallManager::Firewalld),
            _ => None,
        })
        .collect()
}
