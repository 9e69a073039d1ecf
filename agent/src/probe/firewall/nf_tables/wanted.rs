//! Which sets are asked for, and in which order. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        rule_set::{Name, RuleSet},
        rules::Act,
    },
    NEW_CHAIN, Set, add_chain, messages, read_rules,
};

/// The sets that rules name: first those of the chains that packets to the host may come to.
#[derive(Debug, Default)]
pub(in super::super) struct Wanted {
    /// By chain, the sets that its rules name, and the chains to which they lead.
    chains: BTreeMap<Name, (BTreeSet<Name>, BTreeSet<Name>)>,
    met: BTreeSet<Name>,
    /// Sets of the chains that are met.
    first: Vec<Name>,
    /// All sets that were not yet given.
    rest: BTreeSet<Name>,
}

impl Wanted {
    /// Reads dumps of chains and rules; `None` when one does not follow its format.
    pub fn new(chains: &[u8], rules: &[u8]) -> Option<Self> {
        let mut wanted = Self::default();
        read_rules(rules, |chain, mut reader| {
            let (sets, ways) = wanted.chains.entry(chain.clone()).or_default();
            wanted.rest.extend(reader.wanted.iter().cloned());
            sets.append(&mut reader.wanted);
            ways.extend(reader.rules().into_iter().filter_map(|rule| match rule.act {
                Act::Jump(to) | Act::Goto(to) => Some(to),
                _ => None,
            }));
        })?;
        let mut set = RuleSet::default();
        for message in messages(chains)?.into_iter().filter(|message| message.kind == NEW_CHAIN) {
            add_chain(&mut set, &message, &BTreeSet::new())?;
        }
        set.bases.into_iter().for_each(|base| wanted.meet(base.name));
        Some(wanted)
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Gives one more set, each once.
    pub fn take(&mut self) -> Option<Name> {
        while let Some(set) = self.first.pop() {
            if self.rest.remove(&set) {
                return Some(set);
            }
        }
        self.rest.pop_first()
    }

    /// Notes to which chains the elements of a set that was given lead.
    pub fn note(&mut self, (family, table, _): &Name, set: &Set) {
        for element in &set.elements {
            if let Some((_, Some(chain))) = &element.verdict {
                self.meet((*family, table.clone(), chain.clone()));
            }
        }
    }

    fn meet(&mut self, chain: Name) {
        let mut open = vec![chain];
        while let Some(chain) = open.pop() {
            if !self.met.contains(&chain)
                && let Some((sets, ways)) = self.chains.get(&chain)
            {
                self.first.extend(sets.iter().cloned());
                open.extend(ways.iter().cloned());
                self.met.insert(chain);
            }
        }
    }
}
