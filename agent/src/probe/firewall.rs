//! What a packet from outside would meet: the kernel's own packet filters, nf_tables and the legacy tables beside it.
//!
//! The policy of a chain is not the answer: firewalld accepts by policy and rejects by its last rule. So rules are
//! followed as a new packet would, of which only its being new and from outside is known; see [`rules`].

mod legacy;
mod macos;
#[cfg(test)]
mod model;
mod netlink;
mod nf_tables;
mod openings;
mod packet;
mod pf;
mod reach;
mod rule_set;
mod rules;
mod senders;
mod share;
mod surroundings;
mod walk;
mod windows;
mod xt;

use std::{collections::BTreeMap, io, net::IpAddr, path::Path};

use muster_proto::{
    fact::{
        Cause, DefaultVerdict, Fact, Firewall, FirewallManager, Inbound, InputChain, OsFamily, Reach, Reading, Text,
        Transport, Unknown,
    },
    report,
};
use sha2::{Digest as _, Sha256};

use self::{
    nf_tables::{Kind, Set},
    reach::{Place, Reaches, place_of},
    rule_set::{Hook, Name, Rewriting, RuleSet},
    rules::Verdict,
    surroundings::{Surroundings, ipv6_is_off, loopback_is_lo, loopback_is_open},
};
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
        vec![Fact::Firewall(match look.host.os_family() {
            OsFamily::Linux => state(look.host),
            OsFamily::Macos => Reading::Known(macos::state(look.host)),
            OsFamily::Windows => match windows::state(look.host) {
                Ok(state) => Reading::Known(state),
                Err(unknown) => Reading::Unknown { unknown },
            },
        })]
    }
}

/// A chain that packets from outside enter.
#[derive(Debug)]
struct Input {
    chain: InputChain,
    /// What becomes of a packet of each family, if it sees that one.
    ipv4: Option<Verdict<Name>>,
    ipv6: Option<Verdict<Name>>,
}

/// What the engines hold, or why it is not known: nf_tables, and the legacy tables of each family.
struct Filters {
    engines: [Result<Vec<RuleSet>, Unknown>; 3],
}

impl Filters {
    fn read(host: &dyn Host) -> Self {
        let nf_tables = nf_tables(host).map(|set| vec![set]);
        Self::of([nf_tables, legacy(host, Family::Ipv4), legacy(host, Family::Ipv6)])
    }

    fn of(engines: [Result<Vec<RuleSet>, Unknown>; 3]) -> Self {
        let mut filters = Self { engines };
        let is_read = filters.engines.iter().all(Result::is_ok);
        if is_read && filters.sets().all(|set| set.untracking.is_empty()) {
            filters.engines.iter_mut().flatten().flatten().for_each(RuleSet::note_tracking);
        }
        filters
    }

    fn sets(&self) -> impl Iterator<Item = &RuleSet> + Clone {
        self.engines.iter().flatten().flatten()
    }

    /// Returns why some rules for `family` are not known.
    fn unread(&self, family: Family) -> Option<Unknown> {
        let [nf_tables, ipv4, ipv6] = &self.engines;
        let legacy = match family {
            Family::Ipv4 => ipv4,
            Family::Ipv6 => ipv6,
        };
        [nf_tables, legacy].into_iter().find_map(|engine| engine.as_ref().err().cloned())
    }

    fn digest(&self) -> Reading<Text> {
        let unread = self.unread(Family::Ipv4).or(self.unread(Family::Ipv6));
        let left_out = || self.sets().find_map(|set| set.left_out.clone());
        match unread.or_else(left_out) {
            Some(unknown) => Reading::Unknown { unknown },
            None => {
                let mut hash = Sha256::new_with_prefix(DIGEST_DOMAIN);
                self.sets().for_each(|set| hash.update(&set.canonical));
                Reading::Known(Text::new(&hex::encode(hash.finalize())))
            }
        }
    }

    /// Returns why packets of `family` of no narrower kind may be let in as some that are.
    fn opened(&self, family: Family, host: &dyn Host) -> Option<Unknown> {
        let is_other = !loopback_is_lo(host);
        let other = is_other.then(|| Unknown::new(Cause::Undecidable, "interface lo is not the loopback"));
        let translation = || wide_translation(self.sets(), family, || loopback_is_open(host));
        other.or_else(translation).or_else(|| resending(self.sets(), family))
    }

    /// Returns a rule that may write into the headers of packets of no narrower kind.
    fn rewriting(&self, family: Family) -> Option<&Rewriting> {
        self.sets().filter_map(|set| set.rewriting(family)).find(|rewriting| !rewriting.is_narrow)
    }
}

fn state(host: &dyn Host) -> Reading<Firewall> {
    let filters = Filters::read(host);
    let mut inputs: Vec<Input> = filters.sets().flat_map(RuleSet::inputs).collect();
    // An engine that could not be read may hold anything.
    if let (Err(unknown), true) = (&filters.engines[0], inputs.is_empty()) {
        return Reading::Unknown { unknown: unknown.clone() };
    }
    inputs.sort_by_key(|Input { chain, .. }| {
        let hook = chain.hook.map_or(Hook::Input, |hook| hook.into());
        (hook, chain.priority, chain.engine, chain.family, chain.table.clone(), chain.chain.clone())
    });
    let mut managers: Vec<FirewallManager> = filters.sets().flat_map(|set| managers(set.names())).collect();
    managers.sort();
    managers.dedup();
    let told = |family: Family| {
        let verdict = |one: &Input| match family {
            Family::Ipv4 => one.ipv4.clone(),
            Family::Ipv6 => one.ipv6.clone(),
        };
        let met: Vec<_> = inputs.iter().filter_map(|one| Some((&one.chain, verdict(one)?))).collect();
        let told = inbound(
            met.iter().map(|(chain, verdict)| (*chain, verdict)),
            filters.unread(family),
            filters.rewriting(family),
        );
        unless_opened(told, || filters.opened(family, host))
    };
    Reading::Known(Firewall {
        inbound_ipv4: told(Family::Ipv4),
        inbound_ipv6: if ipv6_is_off(host) {
            // Whatever the rules say of it.
            Reading::Known(Inbound::Deny)
        } else {
            told(Family::Ipv6)
        },
        managers,
        rule_set_digest: filters.digest(),
        input_chains: inputs.into_iter().map(|input| input.chain).collect(),
        profiles: Vec::new(),
    })
}

/// Returns what is told of packets of no narrower kind, where what is taken for a narrower kind may not be one.
fn unless_opened(told: Reading<Inbound>, opened: impl FnOnce() -> Option<Unknown>) -> Reading<Inbound> {
    match told {
        Reading::Known(Inbound::Deny) => match opened() {
            Some(unknown) => Reading::Unknown { unknown },
            None => told,
        },
        Reading::Known(Inbound::Allow) | Reading::Unknown { .. } => told,
    }
}

/// Returns a rule that may make any packet one that other rules let in, as it was for another receiver.
fn wide_translation<'s>(
    sets: impl Iterator<Item = &'s RuleSet> + Clone,
    family: Family,
    loopback_is_open: impl FnOnce() -> bool,
) -> Option<Unknown> {
    let opens = sets.clone().any(RuleSet::opens_for_translated);
    let opens_loopback = family == Family::Ipv4 && sets.clone().any(RuleSet::opens_for_loopback);
    if !opens && !opens_loopback {
        return None;
    }
    let ((_, table, chain), number) = sets.into_iter().find_map(|set| set.wide_translation(family))?;
    (opens || loopback_is_open()).then(|| Unknown::new(Cause::Undecidable, place_of(&table, &chain, number)))
}

/// Returns a rule that may make any packet come from a sender that other rules let in.
fn resending<'s>(sets: impl Iterator<Item = &'s RuleSet> + Clone, family: Family) -> Option<Unknown> {
    let (from, ((_, table, chain), number)) = sets.clone().filter_map(|set| set.resending(family)).min()?;
    let opens = sets.into_iter().any(|set| set.opens_for_resent(family, from));
    opens.then(|| Unknown::new(Cause::Undecidable, place_of(table, chain, *number)))
}

/// A packet is let in when every chain in its way accepts it. One that denies decides, whatever the others hold.
fn inbound<'i>(
    inputs: impl Iterator<Item = (&'i InputChain, &'i Verdict<Name>)>,
    unread: Option<Unknown>,
    rewriting: Option<&Rewriting>,
) -> Reading<Inbound> {
    // It may make each packet one of a narrower kind, which is let in.
    if let Some(Rewriting { chain: (_, table, chain), number, .. }) = rewriting {
        return Reading::unknown(Cause::Undecidable, place_of(table, chain, *number));
    }
    let mut undecidable = None;
    for (chain, told) in inputs {
        match told.verdict {
            DefaultVerdict::Drop | DefaultVerdict::Reject => return Reading::Known(Inbound::Deny),
            DefaultVerdict::Undecidable => undecidable = Some((chain, told)),
            DefaultVerdict::Accept => {}
        }
    }
    match (unread, undecidable) {
        (Some(unknown), _) => Reading::Unknown { unknown },
        (None, Some((chain, told))) => {
            let (name, number) = match &told.because {
                Some(((_, _, name), number)) => (name.as_str(), *number),
                None => (chain.chain.as_str(), 0),
            };
            Reading::unknown(Cause::Undecidable, place_of(chain.table.as_str(), name, number))
        }
        (None, None) => Reading::Known(Inbound::Allow),
    }
}

/// Which sockets the packet filters let senders outside reach.
pub(super) struct Reachability {
    reaches: Reaches,
}

impl Reachability {
    /// Reads the packet filters.
    pub fn read(host: &dyn Host) -> Self {
        let filters = Filters::read(host);
        let unread = [filters.unread(Family::Ipv4), filters.unread(Family::Ipv6)];
        let sets: Vec<RuleSet> = filters.engines.into_iter().flatten().flatten().collect();
        Self { reaches: Reaches::new(sets, unread, Surroundings::read(host)) }
    }

    /// Returns from whom a socket is reached that waits at `address`. `takes_ipv4` says of one that waits at every address of
    /// IPv6 whether it may take IPv4, too.
    pub fn of(&mut self, protocol: Transport, address: IpAddr, port: u16, takes_ipv4: bool) -> Reading<Reach> {
        // Of the older family, written as the newer.
        let address = address.to_canonical();
        let (family, number) = match address {
            IpAddr::V4(address) => (Family::Ipv4, u128::from(u32::from(address))),
            IpAddr::V6(address) => (Family::Ipv6, u128::from(address)),
        };
        let place = Place { family, protocol, address: (number != 0).then_some(number), port };
        if address.is_loopback() {
            return self.reaches.of_loopback(place);
        }
        let told = self.reaches.of(place);
        if family == Family::Ipv4 || number != 0 || !takes_ipv4 {
            return told;
        }
        match (told, self.reaches.of(Place { family: Family::Ipv4, ..place })) {
            (Reading::Known(ipv6), Reading::Known(ipv4)) if ipv4 <= ipv6 => Reading::Known(ipv6),
            (Reading::Known(Reach::Any), _) => Reading::Known(Reach::Any),
            (Reading::Known(_), Reading::Known(_)) => {
                Reading::unknown(Cause::Undecidable, "IPv4 is let in, and it is not told whether the socket takes it")
            }
            (Reading::Unknown { unknown }, _) | (_, Reading::Unknown { unknown }) => Reading::Unknown { unknown },
        }
    }
}

fn nf_tables(host: &dyn Host) -> Result<RuleSet, Unknown> {
    nf_tables_with(host, SETS)
}

/// Asks for so many sets, at most.
fn nf_tables_with(host: &dyn Host, limit: usize) -> Result<RuleSet, Unknown> {
    let mut dumps = [Vec::new(), Vec::new(), Vec::new()];
    for (bytes, dump) in dumps.iter_mut().zip([Dump::Tables, Dump::Chains, Dump::Rules]) {
        *bytes = match host.nf_tables(dump) {
            Ok(answer) => answer,
            // A kernel without nf_tables holds no rule in it.
            Err(error) if host::cause(&error) == Cause::Unsupported => return Ok(RuleSet::default()),
            Err(error) => return Err(host::unknown(format!("dump nf_tables {}", dump.as_str()), &error)),
        };
    }
    let [tables, chains, rules] = dumps;
    let garbled = || Unknown::new(Cause::Garbled, "nf_tables dump does not follow its format");
    let mut sets = BTreeMap::new();
    let mut wanted = nf_tables::Wanted::new(&chains, &rules).ok_or_else(garbled)?;
    // Where it is not told of which kind a set is, what hangs on that is unclear.
    let kinds = if wanted.is_empty() { None } else { host.nf_tables(Dump::Sets).ok() };
    let kinds = nf_tables::parse_kinds(&kinds.unwrap_or_default()).ok_or_else(garbled)?;
    let (mut asked, mut left_out) = (0, None);
    while let Some(name) = wanted.take() {
        if asked == limit {
            // Their rules are unclear.
            left_out = Some(Unknown::new(Cause::Limit, "more sets than are followed"));
            break;
        }
        asked += 1;
        let (family, table, set) = &name;
        let elements = match host.nf_elements(*family, table, set) {
            Ok(elements) => elements,
            // A set too large to be read leaves its rules unclear, and nothing else. One that is part of its rule is covered
            // by the digest, and cannot be left out.
            Err(error) if host::cause(&error) == Cause::Limit && !nf_tables::is_anonymous(set) => continue,
            Err(error) => return Err(host::unknown(format!("dump nf_tables set {set}"), &error)),
        };
        let elements = nf_tables::parse_elements(&elements).ok_or_else(garbled)?;
        let kind = kinds.get(&name).copied().unwrap_or(Kind::Untold);
        let set = Set { kind, elements };
        wanted.note(&name, &set);
        sets.insert(name, set);
    }
    let set = nf_tables::parse(&tables, &chains, &rules, &sets).ok_or_else(garbled)?;
    Ok(RuleSet { left_out, ..set })
}

fn legacy(host: &dyn Host, family: Family) -> Result<Vec<RuleSet>, Unknown> {
    let path = match family {
        Family::Ipv4 => "/proc/net/ip_tables_names",
        Family::Ipv6 => "/proc/net/ip6_tables_names",
    };
    let names = match host.read(Path::new(path), SMALL_FILE_BYTES) {
        Ok(names) => String::from_utf8_lossy(&names).into_owned(),
        // A kernel without legacy tables.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(host::unknown(format!("read {path}"), &error)),
    };
    let mut found = Vec::new();
    // Priorities are of linux/netfilter_ipv4.h. That of address translation is one before routing and another one after it.
    for (table, priority) in [("raw", -300), ("mangle", -150), ("nat", -100), ("filter", 0), ("security", 50)] {
        if !names.lines().any(|name| name == table) {
            continue;
        }
        let bytes = host
            .iptables(family, table)
            .map_err(|error| host::unknown(format!("read legacy table {table}"), &error))?;
        let garbled = || Unknown::new(Cause::Garbled, format!("legacy table {table} does not follow its format"));
        found.push(legacy::parse(family, table, priority, &bytes).ok_or_else(garbled)?);
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
            // Of its back end for nf_tables, and of that for iptables.
            name if name.starts_with("filter_IN_") || name == "INPUT_ZONES" => Some(FirewallManager::Firewalld),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs,
        path::PathBuf,
        time::{Duration, Instant},
    };

    use proptest::{prelude::*, sample::Index};

    use super::*;
    use crate::host::{Recorded, recorded::Failure};

    /// More than a look at any capture takes, on a machine that does other things too.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/firewall").join(name)
    }

    fn look_at(folder: &Path) -> Firewall {
        match state(&Recorded::at(folder).unwrap()) {
            Reading::Known(firewall) => firewall,
            Reading::Unknown { unknown } => panic!("{unknown:?}"),
        }
    }

    #[test]
    fn a_set_that_is_too_large_leaves_its_rules_unclear_and_the_rest_known() {
        let mut host = Recorded::at(&fixture("nft-named-sets")).unwrap();
        let told = |host: &Recorded| match state(host) {
            Reading::Known(firewall) => (firewall.inbound_ipv4, firewall.rule_set_digest),
            Reading::Unknown { unknown } => panic!("{unknown:?}"),
        };
        let (inbound, digest) = told(&host);
        assert_eq!(inbound, Reading::Known(Inbound::Deny));
        let failure = Failure { errno: None, kind: "too_large".to_owned(), text: String::new() };
        host.index_mut().errors.insert("nf_tables.elements.1.firewall.trusted".to_owned(), failure.clone());
        let (inbound, digest_without) = told(&host);
        assert!(matches!(inbound, Reading::Unknown { unknown } if unknown.cause == Cause::Undecidable));
        assert_eq!(digest_without, digest);
        // One that is part of its rule is covered by the digest.
        host.index_mut().errors.insert("nf_tables.elements.1.firewall.__set0".to_owned(), failure);
        let Reading::Unknown { unknown } = state(&host) else { panic!("the digest leaves out a part of a rule") };
        assert_eq!(unknown.cause, Cause::Limit);
    }

    #[test]
    fn sets_that_are_not_asked_for_leave_their_rules_unclear_and_the_digest_unknown() {
        let host = Recorded::at(&fixture("nft-named-sets")).unwrap();
        let told = |limit: usize| {
            let set = nf_tables_with(&host, limit).unwrap();
            let verdicts: Vec<_> = set.inputs().into_iter().map(|input| input.chain.default_verdict).collect();
            let digest = Filters::of([Ok(vec![set]), Ok(Vec::new()), Ok(Vec::new())]).digest();
            (verdicts, matches!(digest, Reading::Unknown { unknown } if unknown.cause == Cause::Limit))
        };
        assert_eq!(told(SETS), (vec![DefaultVerdict::Drop], false));
        assert_eq!(told(0), (vec![DefaultVerdict::Undecidable], true));
    }

    #[test]
    fn a_socket_is_reached_as_the_rules_of_its_machine_say() {
        use Transport::{Tcp, Udp};
        for (name, protocol, address, port, expected) in [
            ("empty", Tcp, "0.0.0.0", 22, "any"),
            ("empty", Tcp, "127.0.0.1", 22, "none"),
            ("empty", Tcp, "::1", 22, "none"),
            ("empty", Tcp, "::ffff:127.0.0.1", 22, "none"),
            ("forbidden", Tcp, "0.0.0.0", 22, "unknown"),
            ("forbidden", Tcp, "127.0.0.1", 22, "none"),
            ("ufw-limit", Tcp, "0.0.0.0", 22, "any"),
            ("ufw-limit", Tcp, "0.0.0.0", 80, "none"),
            ("ufw-limit", Udp, "::", 123, "any"),
            // To a group, which is let in, and to the host, which is not and is in no such group.
            ("ufw-limit", Udp, "224.0.0.251", 5353, "any"),
            ("ufw-limit", Udp, "0.0.0.0", 5353, "none"),
            ("firewalld", Tcp, "0.0.0.0", 22, "any"),
            ("firewalld", Tcp, "::", 80, "none"),
            ("nft-tproxy", Tcp, "127.0.0.1", 631, "unknown"),
            ("nft-prerouting", Tcp, "0.0.0.0", 22, "any"),
            ("nft-prerouting", Tcp, "0.0.0.0", 80, "none"),
            ("nft-ingress", Tcp, "0.0.0.0", 80, "none"),
            ("nft-ingress", Udp, "0.0.0.0", 123, "some"),
            ("nft-ingress", Udp, "::", 123, "any"),
            ("nft-one-family", Tcp, "0.0.0.0", 80, "none"),
            ("nft-one-family", Tcp, "::", 80, "any"),
            ("iptables-legacy-raw", Tcp, "0.0.0.0", 80, "none"),
            ("iptables-legacy-raw", Udp, "0.0.0.0", 123, "some"),
            ("iptables-legacy-raw", Tcp, "::", 80, "any"),
            // A capture that does not tell interfaces, of which rules let one in.
            ("iptables-nft", Tcp, "0.0.0.0", 80, "unknown"),
        ] {
            let mut reachability = Reachability::read(&Recorded::at(&fixture(name)).unwrap());
            let word = match reachability.of(protocol, address.parse().unwrap(), port, false) {
                Reading::Known(reach) => reach.as_str(),
                Reading::Unknown { .. } => "unknown",
            };
            assert_eq!(word, expected, "{name} {protocol:?} {address} {port}");
        }
    }

    #[test]
    fn a_socket_that_may_take_both_families_is_reached_by_either() {
        let host = Recorded::at(&fixture("nft-one-family")).unwrap();
        let any = "::".parse().unwrap();
        let told = |port, takes_ipv4| Reachability::read(&host).of(Transport::Tcp, any, port, takes_ipv4);
        assert_eq!(told(80, true), Reading::Known(Reach::Any));
        assert_eq!(told(80, false), Reading::Known(Reach::Any));
    }

    #[test]
    fn a_machine_without_ipv6_lets_none_in() {
        let mut host = Recorded::at(&fixture("nft-one-family")).unwrap();
        let told = |host: &Recorded| match state(host) {
            Reading::Known(firewall) => firewall.inbound_ipv6,
            Reading::Unknown { unknown } => panic!("{unknown:?}"),
        };
        assert_eq!(told(&host), Reading::Known(Inbound::Allow));
        let failure = Failure { errno: None, kind: "not_found".to_owned(), text: String::new() };
        host.index_mut().errors.insert("read /proc/net/if_inet6".to_owned(), failure);
        assert_eq!(told(&host), Reading::Known(Inbound::Deny));
        let any = "::".parse().unwrap();
        let reach = Reachability::read(&host).of(Transport::Tcp, any, 80, false);
        assert_eq!(reach, Reading::Known(Reach::None));
    }

    #[test]
    fn ufw_is_closed_until_a_rule_opens_it() {
        for (name, expected) in [("ufw-closed", true), ("ufw-open", false)] {
            let found = look_at(&fixture(name));
            for inbound in [&found.inbound_ipv4, &found.inbound_ipv6] {
                assert_eq!(*inbound == Reading::Known(Inbound::Deny), expected, "{name}");
            }
        }
    }

    /// A change to captured bytes.
    #[derive(Clone, Debug)]
    enum Damage {
        Flip(Index, u8),
        Truncate(Index),
        /// Writes a length, a type or a number over two aligned bytes.
        Put(Index, u16),
        /// Puts a part of another answer in.
        Splice {
            at: Index,
            other: Index,
            from: Index,
            bytes: usize,
        },
        Repeat {
            from: Index,
            bytes: usize,
        },
    }

    impl Damage {
        fn apply(&self, bytes: &mut Vec<u8>, all: &[Vec<u8>]) {
            let part = |bytes: &[u8], from: &Index, count: usize| {
                let from = from.index(bytes.len() + 1);
                bytes[from..bytes.len().min(from + count)].to_vec()
            };
            match self {
                Self::Flip(at, bit) if !bytes.is_empty() => {
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                }
                Self::Put(at, value) if bytes.len() >= 2 => {
                    let at = at.index(bytes.len() / 2) * 2;
                    bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
                }
                Self::Flip(..) | Self::Put(..) => {}
                Self::Truncate(at) => bytes.truncate(at.index(bytes.len() + 1)),
                Self::Splice { at, other, from, bytes: count } => {
                    let at = at.index(bytes.len() + 1);
                    bytes.splice(at..at, part(&all[other.index(all.len())], from, *count));
                }
                Self::Repeat { from, bytes: count } => bytes.extend(part(&bytes.clone(), from, *count)),
            }
        }
    }

    fn damage() -> impl Strategy<Value = Damage> {
        let value = prop_oneof![0_u16..64, Just(u16::MAX), any::<u16>()];
        prop_oneof![
            4 => (any::<Index>(), 0_u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
            1 => any::<Index>().prop_map(Damage::Truncate),
            4 => (any::<Index>(), value).prop_map(|(at, value)| Damage::Put(at, value)),
            2 => (any::<Index>(), any::<Index>(), any::<Index>(), 0_usize..400)
                .prop_map(|(at, other, from, bytes)| Damage::Splice { at, other, from, bytes }),
            1 => (any::<Index>(), 0_usize..400).prop_map(|(from, bytes)| Damage::Repeat { from, bytes }),
        ]
    }

    /// The captures, each in a folder where its answers can be changed.
    struct Captures {
        _folder: tempfile::TempDir,
        answers: Vec<(PathBuf, PathBuf)>,
        bytes: Vec<Vec<u8>>,
    }

    impl Captures {
        fn copied() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut answers = BTreeMap::new();
            for case in fs::read_dir(fixture("")).unwrap() {
                let case = case.unwrap();
                let copy = folder.path().join(case.file_name());
                for path in walkdir::WalkDir::new(case.path()) {
                    let path = path.unwrap();
                    let to = copy.join(path.path().strip_prefix(case.path()).unwrap());
                    if path.file_type().is_dir() {
                        fs::create_dir_all(to).unwrap();
                        continue;
                    }
                    fs::copy(path.path(), &to).unwrap();
                    let bytes = fs::read(path.path()).unwrap();
                    if to.parent().unwrap().ends_with("answers") && !bytes.is_empty() {
                        answers.insert((copy.clone(), to), bytes);
                    }
                }
            }
            let (answers, bytes) = answers.into_iter().unzip();
            Self { _folder: folder, answers, bytes }
        }
    }

    /// Writes a file of its own: some file systems sync one that is written over.
    fn write_anew(path: &Path, bytes: &[u8]) {
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// More with `MUSTER_FIREWALL_CASES`.
    fn cases() -> u32 {
        let cases = std::env::var("MUSTER_FIREWALL_CASES").ok().and_then(|cases| cases.parse().ok());
        cases.unwrap_or(3_000)
    }

    #[test]
    fn damaged_answers_of_a_kernel_are_read_or_refused_and_never_hold_the_agent_up() {
        let captures = Captures::copied();
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(cases()));
        let strategy = (any::<Index>(), prop::collection::vec(damage(), 1..5));
        let result = runner.run(&strategy, |(which, damages)| {
            let which = which.index(captures.answers.len());
            let (capture, answer) = &captures.answers[which];
            let mut bytes = captures.bytes[which].clone();
            for damage in &damages {
                damage.apply(&mut bytes, &captures.bytes);
            }
            write_anew(answer, &bytes);
            let started = Instant::now();
            let found = Fact::Firewall(state(&Recorded::at(capture).unwrap()));
            let elapsed = started.elapsed();
            write_anew(answer, &captures.bytes[which]);
            prop_assert!(elapsed < PATIENCE, "{elapsed:?}");
            let decoded = Fact::decode(&found.encode());
            prop_assert_eq!(decoded.as_ref(), Ok(&found));
            Ok(())
        });
        if let Err(error) = result {
            panic!("{error}");
        }
    }
}
