//! nf_tables as the kernel dumps it (linux/netfilter/nf_tables.h). Pure.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::fact::{ChainPolicy, FilterEngine, FilterFamily, InputChain, Text};

use super::{
    netlink::{Message, attributes, find, messages, number, text},
    rules::{self, Act, Rule, Scope},
};

// Messages.
const NEW_TABLE: u8 = 0;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const NEW_ELEMENTS: u8 = 12;
// NFT_SET_ELEM_INTERVAL_END and NFT_SET_ELEM_CATCHALL
const ELEMENT_ENDS_RANGE: u32 = 1;
const ELEMENT_IS_ANY: u32 = 2;
// NF_INET_LOCAL_IN
const HOOK_INPUT: u32 = 1;
const TABLE_IS_DORMANT: u32 = 1;
/// `NF_CT_STATE_BIT` of a connection that is new, and of one that is not tracked.
const STATE_NEW: u32 = 8 | 64;
/// Addresses with a prefix shorter than this are too wide to be called narrow.
const NARROW_PREFIX_BITS: u32 = 8;

/// Family, table, and chain or set.
type Name = (u8, String, String);
/// Sets by name.
pub(super) type Sets = BTreeMap<Name, Vec<Element>>;

/// An element of a set or a map.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Element {
    /// `None` for what no other element holds.
    key: Option<Vec<u8>>,
    ends_range: bool,
    /// Of a verdict map: code and chain.
    verdict: Option<(i32, Option<String>)>,
}

/// Returns the elements of a dump; `None` when it does not follow its format.
pub(super) fn parse_elements(bytes: &[u8]) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    for message in messages(bytes)?.into_iter().filter(|message| message.kind == NEW_ELEMENTS) {
        let list = attributes(message.attributes)?;
        for (_, element) in attributes(find(&list, 3).unwrap_or_default())? {
            let element = attributes(element)?;
            let flags = find(&element, 3).and_then(number).unwrap_or(0);
            let key = if flags & ELEMENT_IS_ANY != 0 { None } else { Some(value(find(&element, 1)?)?) };
            let verdict = find(&element, 2).and_then(verdict_of);
            elements.push(Element { key, ends_range: flags & ELEMENT_ENDS_RANGE != 0, verdict });
        }
    }
    Some(elements)
}

/// Returns the sets whose elements decide what a rule speaks of, or does.
pub(super) fn wanted_sets(rules: &[u8]) -> Option<BTreeSet<Name>> {
    let mut wanted = BTreeSet::new();
    let sets = Sets::new();
    for message in messages(rules)?.into_iter().filter(|message| message.kind == NEW_RULE) {
        let rule = attributes(message.attributes)?;
        let name = (message.family, text(find(&rule, 1)?), text(find(&rule, 2)?));
        let mut reader = RuleReader::new(&name, &sets);
        for (_, expression) in attributes(find(&rule, 4).unwrap_or_default())? {
            let expression = attributes(expression)?;
            reader.take(&text(find(&expression, 1)?), find(&expression, 2).unwrap_or_default())?;
        }
        wanted.extend(reader.wanted);
    }
    Some(wanted)
}

#[derive(Debug, Default)]
pub(super) struct RuleSet {
    chains: BTreeMap<Name, Vec<Rule<Name>>>,
    inputs: Vec<(Name, i32, ChainPolicy)>,
    tables: BTreeSet<String>,
    rule_counts: BTreeMap<Name, u32>,
    /// The dump without counters, handles and use counts.
    pub canonical: Vec<u8>,
}

impl RuleSet {
    /// Returns the names of tables and chains.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(String::as_str).chain(self.chains.keys().map(|(_, _, chain)| chain.as_str()))
    }

    pub fn input_chains(&self) -> Vec<InputChain> {
        let chain = |(name, priority, policy): &(Name, i32, ChainPolicy)| {
            Some(InputChain {
                engine: FilterEngine::NfTables,
                family: family(name.0)?,
                table: Text::new(&name.1),
                chain: Text::new(&name.2),
                priority: *priority,
                policy: *policy,
                default_verdict: rules::verdict(&self.chains, name, *policy),
                rule_count: self.rule_counts.get(name).copied().unwrap_or(0),
            })
        };
        self.inputs.iter().filter_map(chain).collect()
    }
}

fn family(number: u8) -> Option<FilterFamily> {
    match number {
        1 => Some(FilterFamily::Inet),
        2 => Some(FilterFamily::Ip),
        10 => Some(FilterFamily::Ip6),
        _ => None,
    }
}

/// Returns the rule set of three dumps; `None` when one does not follow its format.
pub(super) fn parse(tables: &[u8], chains: &[u8], rules: &[u8], sets: &Sets) -> Option<RuleSet> {
    let mut set = RuleSet::default();
    let mut dormant = BTreeSet::new();
    for message in messages(tables)?.into_iter().filter(|message| message.kind == NEW_TABLE) {
        let table = attributes(message.attributes)?;
        let name = text(find(&table, 1)?);
        let flags = find(&table, 2).and_then(number).unwrap_or(0);
        if flags & TABLE_IS_DORMANT != 0 {
            dormant.insert((message.family, name.clone()));
        }
        set.keep(&message, &[(1, name.as_bytes()), (2, &flags.to_be_bytes())]);
        set.tables.insert(name);
    }
    for message in messages(chains)?.into_iter().filter(|message| message.kind == NEW_CHAIN) {
        set.add_chain(&message, &dormant)?;
    }
    for message in messages(rules)?.into_iter().filter(|message| message.kind == NEW_RULE) {
        set.add_rule(&message, sets)?;
    }
    Some(set)
}

impl RuleSet {
    fn add_chain(&mut self, message: &Message<'_>, dormant: &BTreeSet<(u8, String)>) -> Option<()> {
        let chain = attributes(message.attributes)?;
        let name = (message.family, text(find(&chain, 1)?), text(find(&chain, 3)?));
        self.chains.entry(name.clone()).or_default();
        let kept: Vec<_> = chain.iter().copied().filter(|(kind, _)| [1, 3, 4, 5, 7, 10].contains(kind)).collect();
        self.keep(message, &kept);
        let Some(hook) = find(&chain, 4) else { return Some(()) };
        let hook = attributes(hook)?;
        let is_filter = find(&chain, 7).is_none_or(|kind| text(kind) == "filter");
        if number(find(&hook, 1)?)? != HOOK_INPUT
            || !is_filter
            || family(message.family).is_none()
            || dormant.contains(&(message.family, name.1.clone()))
        {
            return Some(());
        }
        let policy = match find(&chain, 5).and_then(number) {
            Some(0) => ChainPolicy::Drop,
            _ => ChainPolicy::Accept,
        };
        self.inputs.push((name, number(find(&hook, 2)?)?.cast_signed(), policy));
        Some(())
    }

    fn add_rule(&mut self, message: &Message<'_>, sets: &Sets) -> Option<()> {
        let rule = attributes(message.attributes)?;
        let name = (message.family, text(find(&rule, 1)?), text(find(&rule, 2)?));
        let mut reader = RuleReader::new(&name, sets);
        let mut canonical = vec![(1, name.1.as_bytes()), (2, name.2.as_bytes())];
        for (_, expression) in attributes(find(&rule, 4).unwrap_or_default())? {
            let expression = attributes(expression)?;
            let kind = find(&expression, 1)?;
            let data = find(&expression, 2).unwrap_or_default();
            canonical.push((3, kind));
            if !matches!(text(kind).as_str(), "counter" | "last" | "quota") {
                canonical.push((4, data));
            }
            reader.take(&text(kind), data)?;
        }
        self.keep(message, &canonical);
        // An anonymous set is a part of its rule; what is in a named one may change by itself.
        for set in reader.wanted.iter().filter(|set| set.2.starts_with("__")) {
            for element in sets.get(set).into_iter().flatten() {
                self.canonical.extend_from_slice(format!("{element:?}").as_bytes());
            }
        }
        *self.rule_counts.entry(name.clone()).or_default() += 1;
        self.chains.entry(name.clone()).or_default().extend(reader.rules());
        Some(())
    }

    fn keep(&mut self, message: &Message<'_>, parts: &[(u16, &[u8])]) {
        self.canonical.extend_from_slice(&[message.kind, message.family]);
        for (kind, value) in parts {
            self.canonical.extend_from_slice(&kind.to_be_bytes());
            self.canonical.extend_from_slice(&(value.len() as u64).to_be_bytes());
            self.canonical.extend_from_slice(value);
        }
    }
}

/// What a register was loaded with.
#[derive(Clone, Debug)]
enum Source {
    Address,
    Port,
    Meta(u32),
    /// Protocol above IP, of whatever header.
    Protocol,
    CtState,
    CtStatus,
    Other,
}

/// Reads the expressions of one rule, in order.
struct RuleReader<'n> {
    chain: &'n Name,
    sets: &'n Sets,
    registers: BTreeMap<u32, (Source, Option<Vec<u8>>)>,
    scope: Scope,
    act: Act<Name>,
    /// What the elements of a verdict map do, each for its own packets.
    map: Vec<Rule<Name>>,
    wanted: BTreeSet<Name>,
}

impl<'n> RuleReader<'n> {
    fn new(chain: &'n Name, sets: &'n Sets) -> Self {
        Self {
            chain,
            sets,
            registers: BTreeMap::new(),
            scope: Scope::All,
            act: Act::Continue,
            map: Vec::new(),
            wanted: BTreeSet::new(),
        }
    }

    /// Returns the rule as one or, with a verdict map, as one for each element.
    fn rules(self) -> Vec<Rule<Name>> {
        if self.map.is_empty() {
            return vec![Rule { scope: self.scope, act: self.act }];
        }
        self.map
    }

    fn take(&mut self, kind: &str, data: &[u8]) -> Option<()> {
        let data = attributes(data)?;
        let field = |at: u16| find(&data, at);
        let register = |at: u16| field(at).and_then(number).unwrap_or(0);
        match kind {
            "counter" | "log" | "notrack" | "last" => {}
            "payload" if field(1).is_some() => {
                // Base 1 is the network header and 2 the transport's.
                let source = match (register(2), register(3), register(4)) {
                    (1, 9, 1) | (1, 6, 1) => Source::Protocol,
                    (1, 8, 1) => Source::Other,
                    (1, 8 | 12 | 16 | 24, _) => Source::Address,
                    (2, 0 | 2, _) => Source::Port,
                    _ => Source::Other,
                };
                self.registers.insert(register(1), (source, None));
            }
            "meta" if field(1).is_some() => {
                let source = if register(2) == 16 { Source::Protocol } else { Source::Meta(register(2)) };
                self.registers.insert(register(1), (source, None));
            }
            "ct" if field(1).is_some() => {
                let source = match register(2) {
                    0 => Source::CtState,
                    2 => Source::CtStatus,
                    _ => Source::Other,
                };
                self.registers.insert(register(1), (source, None));
            }
            "bitwise" => {
                let (source, _) = self.registers.get(&register(1)).cloned().unwrap_or((Source::Other, None));
                let mask = field(4).and_then(value);
                self.registers.insert(register(2), (source, mask));
            }
            "cmp" => {
                let wanted = value(field(3)?)?;
                let scope = self.compare(register(1), register(2), &wanted);
                self.scope = self.scope.and(scope);
            }
            "range" => {
                let is_port = matches!(self.registers.get(&register(1)), Some((Source::Port, _)));
                let scope = if is_port && register(2) == 0 { Scope::Narrow } else { Scope::Unclear };
                self.scope = self.scope.and(scope);
            }
            // With a destination, it is a map: to verdicts when that is register 0, else to data.
            "lookup" if field(3).is_some() && register(3) != 0 => {
                self.registers.insert(register(3), (Source::Other, None));
            }
            "lookup" => self.look_up(register(2), text(field(1)?), field(3).is_some(), register(5) & 1 != 0),
            "immediate" if register(1) == 0 => self.act = self.verdict(field(2)?)?,
            "immediate" => {}
            "reject" => self.act = Act::Reject,
            "match" => {
                let scope = xt_match(&text(field(1)?), field(3).unwrap_or_default());
                self.scope = self.scope.and(scope);
            }
            "target" => self.act = xt_target(&text(field(1)?)),
            _ => {
                self.scope = self.scope.and(Scope::Unclear);
            }
        }
        Some(())
    }

    /// Takes a set or verdict map, whose elements each speak of their own packets.
    fn look_up(&mut self, register: u32, set: String, is_map: bool, is_inverted: bool) {
        let is_place = matches!(self.registers.get(&register), Some((Source::Port | Source::Address, _)));
        if is_place && !is_map {
            self.scope = self.scope.and(if is_inverted { Scope::Unclear } else { Scope::Narrow });
            return;
        }
        let name = (self.chain.0, self.chain.1.clone(), set);
        let elements = self.sets.get(&name);
        self.wanted.insert(name);
        let Some(elements) = elements else {
            self.scope = self.scope.and(Scope::Unclear);
            self.act = if is_map { Act::Unclear } else { Act::Continue };
            return;
        };
        if is_map {
            for element in elements.iter().filter(|element| !element.ends_range) {
                let scope = self.scope.and(self.scope_of(register, element));
                let act = element.verdict.clone().map_or(Act::Unclear, |(code, chain)| self.act_of(code, chain));
                self.map.push(Rule { scope, act });
            }
            // A packet of no element goes on.
            self.map.push(Rule { scope: Scope::Narrow, act: Act::Continue });
            return;
        }
        let scopes: Vec<Scope> = elements.iter().map(|element| self.scope_of(register, element)).collect();
        let scope = if is_inverted {
            Scope::Unclear
        } else if scopes.iter().all(|scope| *scope == Scope::Narrow) {
            Scope::Narrow
        } else if scopes.contains(&Scope::All) {
            Scope::All
        } else {
            Scope::Unclear
        };
        self.scope = self.scope.and(scope);
    }

    fn scope_of(&self, register: u32, element: &Element) -> Scope {
        let Some(key) = &element.key else { return Scope::All };
        match self.registers.get(&register) {
            Some((Source::Port, _)) => Scope::Narrow,
            // An element of a range of addresses has one of its ends alone.
            Some((Source::Address, _)) if key.len() < 4 || element.ends_range => Scope::Unclear,
            _ => self.compare(register, 0, key),
        }
    }

    fn verdict(&self, data: &[u8]) -> Option<Act<Name>> {
        let (code, chain) = verdict_of(data)?;
        Some(self.act_of(code, chain))
    }

    fn act_of(&self, code: i32, chain: Option<String>) -> Act<Name> {
        let name = chain.map(|chain| (self.chain.0, self.chain.1.clone(), chain));
        match (code, name) {
            (0, _) => Act::Drop,
            (1, _) => Act::Accept,
            (-1 | -2, _) => Act::Continue,
            (-3, Some(name)) => Act::Jump(name),
            (-4, Some(name)) => Act::Goto(name),
            (-5, _) => Act::Return,
            _ => Act::Unclear,
        }
    }

    /// Operators: 0 equal, 1 not equal, and four orders.
    fn compare(&self, register: u32, operator: u32, wanted: &[u8]) -> Scope {
        let Some((source, mask)) = self.registers.get(&register) else { return Scope::Unclear };
        let native = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        match (source, operator) {
            (Source::Port, 0) => Scope::Narrow,
            (Source::Address, 0) => {
                let ones: u32 = mask.as_deref().unwrap_or(wanted).iter().map(|byte| byte.count_ones()).sum();
                let bits = if mask.is_some() { ones } else { 8 * u32::try_from(wanted.len()).unwrap_or(0) };
                if bits >= NARROW_PREFIX_BITS { Scope::Narrow } else { Scope::Unclear }
            }
            // Of a state with a mask, "not 0" is "one of these"; without one, it is the state itself.
            (Source::CtState, 1) if wanted.iter().all(|byte| *byte == 0) => match mask.as_deref().and_then(native) {
                Some(states) if states & STATE_NEW == 0 => Scope::Narrow,
                Some(states) if states & 8 != 0 => Scope::All,
                _ => Scope::Unclear,
            },
            (Source::CtState, 0) if mask.is_none() => match native(wanted) {
                Some(states) if states & STATE_NEW == 0 => Scope::Narrow,
                Some(8) => Scope::All,
                _ => Scope::Unclear,
            },
            // Interface by index (the loopback is 1 in every namespace) and by name.
            (Source::Meta(4), 0) if native(wanted) == Some(1) => Scope::Narrow,
            (Source::Meta(6), 0) if text(wanted).trim_end_matches('\0') == "lo" => Scope::Narrow,
            // Which family the packet has: a chain of `inet` sees both, and each is judged by the wider claim.
            (Source::Meta(15), 0) => Scope::Unclear,
            // Of a connection that is known, or that a rule of address translation let in.
            (Source::CtStatus, 1) if wanted.iter().all(|byte| *byte == 0) => Scope::Narrow,
            // A protocol other than TCP and UDP.
            (Source::Protocol, 0) if !matches!(wanted.first(), Some(6 | 17) | None) => Scope::Narrow,
            _ => Scope::Unclear,
        }
    }
}

/// Returns code and chain of a nested `NFTA_DATA_VERDICT`.
fn verdict_of(data: &[u8]) -> Option<(i32, Option<String>)> {
    let data = attributes(data)?;
    let verdict = attributes(find(&data, 2)?)?;
    Some((number(find(&verdict, 1)?)?.cast_signed(), find(&verdict, 2).map(text)))
}

/// Returns the value of a nested `NFTA_DATA_VALUE`.
fn value(data: &[u8]) -> Option<Vec<u8>> {
    find(&attributes(data)?, 1).map(<[u8]>::to_vec)
}

/// A match of xtables, which iptables over nf_tables still uses for some; also those of the legacy tables.
pub(super) fn xt_match(name: &str, info: &[u8]) -> Scope {
    let half = |at: usize| info.get(at..at + 2).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    match name {
        "comment" => Scope::All,
        "icmp" | "icmp6" | "icmpv6" | "multiport" | "rt" | "esp" | "ah" | "hl" | "ttl" | "helper" => Scope::Narrow,
        // Ranges of source and destination ports (linux/netfilter/xt_tcpudp.h).
        "tcp" | "udp" => match (half(0), half(2), half(4), half(6)) {
            (Some(0), Some(0xffff), Some(0), Some(0xffff)) => Scope::Unclear,
            (Some(_), Some(_), Some(_), Some(_)) => Scope::Narrow,
            _ => Scope::Unclear,
        },
        // linux/netfilter/xt_conntrack.h, revisions 2 and 3: match_flags, invert_flags, state_mask.
        "conntrack" => match (half(146), half(148), half(150)) {
            (Some(1), Some(0), Some(states)) if u32::from(states) & STATE_NEW == 0 => Scope::Narrow,
            (Some(1), Some(0), Some(states)) if states & 8 != 0 => Scope::All,
            _ => Scope::Unclear,
        },
        // linux/netfilter/xt_state.h: one word of the same bits.
        "state" => match info.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)) {
            Some(states) if states & STATE_NEW == 0 => Scope::Narrow,
            Some(states) if states & 8 != 0 => Scope::All,
            _ => Scope::Unclear,
        },
        _ => Scope::Unclear,
    }
}

/// A target of xtables.
pub(super) fn xt_target<C>(name: &str) -> Act<C> {
    match name {
        "REJECT" => Act::Reject,
        "DROP" => Act::Drop,
        "ACCEPT" => Act::Accept,
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" | "CLASSIFY" | "TOS" | "DSCP" | "AUDIT" | "SET" => {
            Act::Continue
        }
        _ => Act::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            tables in proptest::collection::vec(any::<u8>(), 0..200),
            chains in proptest::collection::vec(any::<u8>(), 0..200),
            rules in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let _ = parse(&tables, &chains, &rules, &Sets::new()).map(|set| set.input_chains());
            let _ = wanted_sets(&rules);
            let _ = parse_elements(&rules);
            let name = (2, String::new(), String::new());
            for kind in ["payload", "bitwise", "cmp", "immediate", "lookup", "match", "target", "range", "ct", "meta"] {
                let _ = RuleReader::new(&name, &Sets::new()).take(kind, &rules);
            }
            let _ = xt_match("conntrack", &rules);
            let _ = xt_match("tcp", &tables);
        }
    }
}
