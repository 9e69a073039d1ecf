//! nf_tables as the kernel dumps it (linux/netfilter/nf_tables.h). Pure.

mod elements;
mod expressions;
mod loaded;
mod source;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::fact::{ChainPolicy, FilterEngine, FilterFamily};

use super::{
    netlink::{Message, attributes, find, messages, number, text},
    rule_set::{Base, Hook, Name, Rewriting, RuleSet},
    rules::Scope,
};

pub(super) use elements::{Kind, Set, parse_elements, parse_kinds};
use expressions::RuleReader;
pub(super) use wanted::Wanted;

// Messages.
const NEW_TABLE: u8 = 0;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
// NFPROTO_NETDEV
const NETDEV: u8 = 5;
const TABLE_IS_DORMANT: u32 = 1;

/// Sets by name.
pub(super) type Sets = BTreeMap<Name, Set>;

/// Sets that packets themselves add to or take from, so that what they hold says little of the next packet. Each with
/// whether only senders do that are over some limit.
type Filled = BTreeMap<Name, bool>;

/// Returns whether a set is part of a rule, and has no name of its own.
pub(super) fn is_anonymous(set: &str) -> bool {
    set.starts_with("__")
}

/// Returns the sets that rules of any hook fill: `add`, `update` and `delete` of nft(8).
fn filled_sets(rules: &[u8]) -> Option<Filled> {
    let mut filled = Filled::new();
    read_rules(rules, |_, reader| {
        for (set, is_by_busy) in reader.fills {
            *filled.entry(set).or_insert(true) &= is_by_busy;
        }
    })?;
    Some(filled)
}

/// Reads each rule without what sets hold.
fn read_rules(rules: &[u8], mut take: impl FnMut(&Name, RuleReader<'_>)) -> Option<()> {
    let (sets, filled) = (Sets::new(), Filled::new());
    for message in messages(rules)?.into_iter().filter(|message| message.kind == NEW_RULE) {
        let rule = attributes(message.attributes)?;
        let name = (message.family, text(find(&rule, 1)?), text(find(&rule, 2)?));
        let mut reader = RuleReader::new(&name, 0, &sets, &filled);
        for (_, expression) in attributes(find(&rule, 4).unwrap_or_default())? {
            let expression = attributes(expression)?;
            reader.take(&text(find(&expression, 1)?), find(&expression, 2).unwrap_or_default())?;
        }
        take(&name, reader);
    }
    Some(())
}

fn family(number: u8) -> Option<FilterFamily> {
    match number {
        1 => Some(FilterFamily::Inet),
        NETDEV => Some(FilterFamily::Netdev),
        2 => Some(FilterFamily::Ip),
        10 => Some(FilterFamily::Ip6),
        _ => None,
    }
}

/// Returns the hook of a number (linux/netfilter.h), if packets to the host meet it.
fn hook_of(family: u8, number: u32) -> Option<Hook> {
    match (family, number) {
        (NETDEV, 0) | (1, 5) => Some(Hook::Ingress),
        (NETDEV, _) => None,
        (_, 0) => Some(Hook::Prerouting),
        (_, 1) => Some(Hook::Input),
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
        keep(&mut set, &message, &[(1, name.as_bytes()), (2, &flags.to_be_bytes())]);
        set.tables.insert(name);
    }
    for message in messages(chains)?.into_iter().filter(|message| message.kind == NEW_CHAIN) {
        add_chain(&mut set, &message, &dormant)?;
    }
    let filled = filled_sets(rules)?;
    let (mut rewriting, mut resending) = (Vec::new(), Vec::new());
    for message in messages(rules)?.into_iter().filter(|message| message.kind == NEW_RULE) {
        let noted = add_rule(&mut set, &message, sets, &filled)?;
        rewriting.extend(noted.rewriting);
        resending.extend(noted.resending);
    }
    set.note_rewriting(&rewriting);
    set.note_resending(&resending);
    Some(set)
}

fn add_chain(set: &mut RuleSet, message: &Message<'_>, dormant: &BTreeSet<(u8, String)>) -> Option<()> {
    let chain = attributes(message.attributes)?;
    let name = (message.family, text(find(&chain, 1)?), text(find(&chain, 3)?));
    set.chains.entry(name.clone()).or_default();
    let kept: Vec<_> = chain.iter().copied().filter(|(kind, _)| [1, 3, 4, 5, 7, 10].contains(kind)).collect();
    keep(set, message, &kept);
    let Some(hook) = find(&chain, 4) else { return Some(()) };
    let hook = attributes(hook)?;
    let met_at = hook_of(message.family, number(find(&hook, 1)?)?);
    let (Some(family), Some(met_at)) = (family(message.family), met_at) else { return Some(()) };
    if dormant.contains(&(message.family, name.1.clone())) {
        return Some(());
    }
    let policy = match find(&chain, 5).and_then(number) {
        Some(0) => ChainPolicy::Drop,
        _ => ChainPolicy::Accept,
    };
    let several = attributes(find(&hook, 4).unwrap_or_default())?;
    let devices = find(&hook, 3).into_iter().chain(several.into_iter().map(|(_, name)| name)).map(text).collect();
    set.bases.push(Base {
        name,
        engine: FilterEngine::NfTables,
        family,
        hook: met_at,
        priority: number(find(&hook, 2)?)?.cast_signed(),
        policy,
        is_nat: find(&chain, 7).is_some_and(|kind| text(kind) == "nat"),
        devices,
        rewritten_by: None,
        resent_by: None,
    });
    Some(())
}

/// What is to be known of a rule by the chains from which packets come to it.
struct Noted {
    /// That it writes into headers.
    rewriting: Option<Rewriting>,
    /// That it changes from whom packets come.
    resending: Option<(Name, u32)>,
}

/// Adds a rule.
fn add_rule(set: &mut RuleSet, message: &Message<'_>, sets: &Sets, filled: &Filled) -> Option<Noted> {
    let rule = attributes(message.attributes)?;
    let name = (message.family, text(find(&rule, 1)?), text(find(&rule, 2)?));
    let count = set.rule_counts.entry(name.clone()).or_default();
    *count += 1;
    let number = *count;
    let mut reader = RuleReader::new(&name, number, sets, filled);
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
    keep(set, message, &canonical);
    // An anonymous set is a part of its rule; what is in a named one may change by itself.
    for wanted in reader.wanted.iter().filter(|wanted| is_anonymous(&wanted.2)) {
        let elements: Vec<_> = sets.get(wanted).into_iter().flat_map(Set::canonical).collect();
        let parts: Vec<_> = elements.iter().flatten().map(|(kind, value)| (*kind, value.as_slice())).collect();
        keep(set, message, &parts);
    }
    set.untracking.extend(reader.untracking.take());
    set.translates |= reader.translates;
    set.translations.append(&mut reader.translations);
    set.diverts |= reader.diverts;
    set.loses_way |= reader.loses_way;
    let (rewrites, resends) = (reader.rewrites, reader.resends);
    let rules = reader.rules();
    let is_narrow = rules.iter().all(|rule| rule.scope == Scope::Narrow);
    set.chains.entry(name.clone()).or_default().extend(rules);
    Some(Noted {
        resending: resends.then(|| (name.clone(), number)),
        rewriting: rewrites.then_some(Rewriting { is_narrow, chain: name, number }),
    })
}

fn keep(set: &mut RuleSet, message: &Message<'_>, parts: &[(u16, &[u8])]) {
    set.canonical.extend_from_slice(&[message.kind, message.family]);
    for (kind, value) in parts {
        set.canonical.extend_from_slice(&kind.to_be_bytes());
        set.canonical.extend_from_slice(&(value.len() as u64).to_be_bytes());
        set.canonical.extend_from_slice(value);
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
            let _ = Wanted::new(&chains, &rules);
            let _ = parse_elements(&rules);
            let _ = parse_kinds(&rules);
        }
    }
}
