//! nf_tables as the kernel dumps it (linux/netfilter/nf_tables.h). Pure.

mod elements;
mod expressions;

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::fact::{ChainPolicy, FilterEngine, FilterFamily, InputChain, Text};

use super::{
    Input,
    netlink::{Message, attributes, find, messages, number, text},
    rules::{self, Rule},
};

use elements::Element;
pub(super) use elements::parse_elements;
use expressions::RuleReader;

// Messages.
const NEW_TABLE: u8 = 0;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
// NF_INET_LOCAL_IN
const HOOK_INPUT: u32 = 1;
const TABLE_IS_DORMANT: u32 = 1;

/// Family, table, and chain or set.
type Name = (u8, String, String);
/// Sets by name.
pub(super) type Sets = BTreeMap<Name, Vec<Element>>;

/// Returns whether a set is part of a rule, and has no name of its own.
pub(super) fn is_anonymous(set: &str) -> bool {
    set.starts_with("__")
}

/// Returns the sets whose elements decide what a rule speaks of, or does.
pub(super) fn wanted_sets(rules: &[u8]) -> Option<BTreeSet<Name>> {
    let mut wanted = BTreeSet::new();
    let sets = Sets::new();
    for message in messages(rules)?.into_iter().filter(|message| message.kind == NEW_RULE) {
        let rule = attributes(message.attributes)?;
        let name = (message.family, text(find(&rule, 1)?), text(find(&rule, 2)?));
        let mut reader = RuleReader::new(&name, 0, &sets);
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

    pub fn inputs(&self) -> Vec<Input> {
        let input = |(name, priority, policy): &(Name, i32, ChainPolicy)| {
            let found = rules::verdict(&self.chains, name, *policy);
            let chain = InputChain {
                engine: FilterEngine::NfTables,
                family: family(name.0)?,
                table: Text::new(&name.1),
                chain: Text::new(&name.2),
                priority: *priority,
                policy: *policy,
                default_verdict: found.verdict,
                rule_count: self.rule_counts.get(name).copied().unwrap_or(0),
            };
            Some(Input { chain, because: found.because.map(|((_, _, chain), rule)| (chain, rule)) })
        };
        self.inputs.iter().filter_map(input).collect()
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
        let count = self.rule_counts.entry(name.clone()).or_default();
        *count += 1;
        let mut reader = RuleReader::new(&name, *count, sets);
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
        for set in reader.wanted.iter().filter(|set| is_anonymous(&set.2)) {
            let elements: Vec<_> = sets.get(set).into_iter().flatten().map(Element::canonical).collect();
            let parts: Vec<_> = elements.iter().flatten().map(|(kind, value)| (*kind, value.as_slice())).collect();
            self.keep(message, &parts);
        }
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
            let _ = parse(&tables, &chains, &rules, &Sets::new()).map(|set| set.inputs());
            let _ = wanted_sets(&rules);
            let _ = parse_elements(&rules);
        }
    }
}
