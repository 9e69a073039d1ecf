//! The chains of one engine that packets from outside meet. Pure, and the same for both engines.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use muster_proto::fact::{
    ChainPolicy, DefaultVerdict, FilterEngine, FilterFamily, FilterHook, InputChain, Text, Unknown,
};

use super::{
    Input,
    packet::{Ask, Condition, Field, STATE_NEW, STATUS_RESENT, STATUS_TRANSLATED, Test, Tracking},
    rules::{self, Act, Rule, Scope, Verdict},
};
use crate::host::Family;

/// Priority of the hook before routing at which the kernel looks up a packet's connection (NF_IP_PRI_CONNTRACK).
const TRACKING: i32 = -200;
/// That at which it changes from whom packets to the host come, of whatever priority the chains are (NF_IP_PRI_NAT_SRC).
const RESENDING: i32 = 100;

/// `NFPROTO_` number of the family, table, and chain or set.
pub(super) type Name = (u8, String, String);

/// Where a packet meets a chain, in the order in which it does.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Hook {
    Ingress,
    Prerouting,
    Input,
}

impl From<FilterHook> for Hook {
    fn from(hook: FilterHook) -> Self {
        match hook {
            FilterHook::Ingress => Self::Ingress,
            FilterHook::Prerouting => Self::Prerouting,
        }
    }
}

/// To whom a rule makes packets go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Translated {
    pub family: Family,
    /// First and last.
    pub addresses: (u128, u128),
    pub ports: (u16, u16),
}

/// A rule that changes to whom packets go.
#[derive(Clone, Debug)]
pub(super) struct Translation {
    /// Those of the packets that it changes.
    pub conditions: Vec<Condition>,
    /// `None` where it is not told.
    pub to: Option<Translated>,
}

/// A chain that the kernel itself calls.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub name: Name,
    pub engine: FilterEngine,
    pub family: FilterFamily,
    pub hook: Hook,
    /// Lower is met earlier.
    pub priority: i32,
    pub policy: ChainPolicy,
    /// Whether it is of the type that translates addresses.
    pub is_nat: bool,
    /// Interfaces whose packets alone it sees, on the ingress hook.
    pub devices: Vec<String>,
    /// A rule that packets meet in it and that writes into their headers; where there are several, one that is not narrow.
    pub rewritten_by: Option<Rewriting>,
    /// A rule that packets meet in it and that changes from whom they come.
    pub resent_by: Option<(Name, u32)>,
}

/// A rule that makes a packet another one.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Rewriting {
    /// Whether it speaks of some narrower kind of packets alone.
    pub is_narrow: bool,
    pub chain: Name,
    pub number: u32,
}

impl Base {
    pub fn sees(&self, family: Family) -> bool {
        match self.family {
            FilterFamily::Inet | FilterFamily::Netdev => true,
            FilterFamily::Ip => family == Family::Ipv4,
            FilterFamily::Ip6 => family == Family::Ipv6,
        }
    }

    /// Returns the priority from which on packets to the host come from whom a rule in it says, with that rule.
    fn resending(&self) -> Option<(i32, &(Name, u32))> {
        let rule = self.resent_by.as_ref().filter(|_| self.hook == Hook::Input)?;
        let priority = match self.engine {
            FilterEngine::IptablesLegacy if self.is_nat => RESENDING,
            // Older kernels translate at the priority of the chain.
            _ if self.is_nat => self.priority.min(RESENDING),
            _ => self.priority,
        };
        Some((priority, rule))
    }

    /// Returns whether a packet may come here from whom a rule says that changes that from the priority `from` on. Chains that
    /// translate are met by the packet as it came.
    pub fn may_see_resent(&self, from: i32) -> bool {
        self.hook == Hook::Input && !self.is_nat && from <= self.priority
    }

    /// Returns whether the connection of a packet is looked up before the packet comes here.
    pub fn tracking(&self) -> Tracking {
        match (self.hook, self.priority.cmp(&TRACKING)) {
            (Hook::Ingress, _) | (Hook::Prerouting, Ordering::Less) => Tracking::Before,
            (Hook::Prerouting, Ordering::Equal) => Tracking::Untold,
            (Hook::Prerouting, Ordering::Greater) | (Hook::Input, _) => Tracking::After,
        }
    }
}

/// Rules, by chain.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleSet {
    pub chains: BTreeMap<Name, Vec<Rule<Name>>>,
    pub bases: Vec<Base>,
    pub tables: BTreeSet<String>,
    pub rule_counts: BTreeMap<Name, u32>,
    /// The conditions of each rule that keeps packets from being tracked.
    pub untracking: Vec<Vec<Condition>>,
    /// Whether some rule changes to whom packets go.
    pub translates: bool,
    pub translations: Vec<Translation>,
    /// Whether some rule hands packets to a socket that they are not for.
    pub diverts: bool,
    /// Whether some rule leads to chains that are not told.
    pub loses_way: bool,
    /// Why some sets were not asked for, if so.
    pub left_out: Option<Unknown>,
    /// What the digest covers: all of it without counters, handles and use counts.
    pub canonical: Vec<u8>,
}

impl RuleSet {
    /// Returns the names of tables and chains.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(String::as_str).chain(self.chains.keys().map(|(_, _, chain)| chain.as_str()))
    }

    /// Returns the chains that packets to the host may come to.
    pub fn met(&self) -> BTreeSet<Name> {
        self.bases.iter().flat_map(|base| chains_from(&self.chains, &base.name)).cloned().collect()
    }

    /// Tells each base chain which of the rules that packets meet in it writes into their headers.
    pub fn note_rewriting(&mut self, rules: &[Rewriting]) {
        if rules.is_empty() {
            return;
        }
        for base in &mut self.bases {
            let met = chains_from(&self.chains, &base.name);
            let is_met =
                |rule: &&Rewriting| met.contains(&rule.chain) || self.loses_way && is_beside(&rule.chain, &base.name);
            base.rewritten_by = rules.iter().filter(is_met).min().cloned();
        }
    }

    /// Takes that no rule keeps packets from being tracked: what is new is not met by what asks for such ones beside known ones.
    pub fn note_tracking(&mut self) {
        let is_of_new = |Test { field, ask }: &Test| (*field == Field::CtState).then(|| ask.holds(STATE_NEW));
        for rule in self.chains.values_mut().flatten() {
            if rule.conditions.iter().any(|condition| condition.is_met_by(is_of_new) == Some(false)) {
                rule.scope = Scope::Narrow;
            }
        }
    }

    /// Returns a rule that may write into the headers of packets of `family` before a socket gets them.
    pub fn rewriting(&self, family: Family) -> Option<&Rewriting> {
        self.bases.iter().filter(|base| base.sees(family)).filter_map(|base| base.rewritten_by.as_ref()).min()
    }

    /// Tells each base chain which of the rules that packets meet in it changes from whom they come.
    pub fn note_resending(&mut self, rules: &[(Name, u32)]) {
        if rules.is_empty() {
            return;
        }
        for base in &mut self.bases {
            let met = chains_from(&self.chains, &base.name);
            let is_met =
                |(chain, _): &&(Name, u32)| met.contains(chain) || self.loses_way && is_beside(chain, &base.name);
            base.resent_by = rules.iter().find(is_met).cloned();
        }
    }

    /// Returns a rule that changes from whom packets of `family` to the host come, with the priority from which on it does.
    pub fn resending(&self, family: Family) -> Option<(i32, &(Name, u32))> {
        self.bases.iter().filter(|base| base.sees(family)).filter_map(Base::resending).min()
    }

    /// Returns whether some rule that packets of `family` meet asks from whom they come after that may be changed, from the priority
    /// `from` on, and may let them in for it.
    pub fn opens_for_resent(&self, family: Family, from: i32) -> bool {
        let is_of_sender = |test: &Test| match test.field {
            Field::Ipv4Sender | Field::Ipv6Sender | Field::SenderPort => true,
            Field::CtStatus => asks_for(test.ask, STATUS_RESENT),
            _ => false,
        };
        let bases = self.bases.iter().filter(|base| base.sees(family) && base.may_see_resent(from));
        let met = bases.flat_map(|base| chains_from(&self.chains, &base.name));
        met.filter_map(|chain| self.chains.get(chain)).flatten().any(|rule| is_opened_by(rule, is_of_sender))
    }

    /// Returns whether some rule lets in what is for the loopback.
    pub fn opens_for_loopback(&self) -> bool {
        let is_loopback = |address: u128| address >> 24 == 127;
        let is_of_loopback = |test: &Test| {
            test.field == Field::Ipv4Receiver
                && match test.ask {
                    Ask::Within(first, last) => is_loopback(first) && is_loopback(last),
                    Ask::Bits { value, .. } => is_loopback(value),
                }
        };
        self.chains.values().flatten().any(|rule| is_opened_by(rule, is_of_loopback))
    }

    /// Returns whether some rule lets in what another one made a packet for another receiver.
    pub fn opens_for_translated(&self) -> bool {
        let is_of_translated = |test: &Test| test.field == Field::CtStatus && asks_for(test.ask, STATUS_TRANSLATED);
        self.chains.values().flatten().any(|rule| is_opened_by(rule, is_of_translated))
    }

    /// Returns a rule that may make packets of `family` of no narrower kind ones for another receiver.
    pub fn wide_translation(&self, family: Family) -> Option<(Name, u32)> {
        if !self.translates {
            return None;
        }
        // What is left as it was is let in by none of these.
        let act = |act: &Act<Name>| match act {
            Act::Translate => Act::Accept,
            Act::Accept => Act::Drop,
            act => act.clone(),
        };
        let rules =
            |rules: &Vec<Rule<Name>>| rules.iter().map(|rule| Rule { act: act(&rule.act), ..rule.clone() }).collect();
        let chains: BTreeMap<_, _> = self.chains.iter().map(|(name, all)| (name.clone(), rules(all))).collect();
        let translating = self.bases.iter().filter(|base| base.is_nat && base.sees(family) && base.hook != Hook::Input);
        translating.into_iter().find_map(|base| {
            let found = rules::verdict(&chains, &base.name, ChainPolicy::Drop, family, base.tracking());
            match found.verdict {
                DefaultVerdict::Drop | DefaultVerdict::Reject => None,
                DefaultVerdict::Accept | DefaultVerdict::Undecidable => {
                    Some(found.because.unwrap_or_else(|| (base.name.clone(), 0)))
                }
            }
        })
    }

    /// Returns what becomes of a packet of which nothing is known in each chain that matters, by family.
    pub fn inputs(&self) -> Vec<Input> {
        self.bases.iter().filter_map(|base| self.input(base)).collect()
    }

    fn input(&self, base: &Base) -> Option<Input> {
        let told = |family| base.sees(family).then(|| self.verdict(base, family));
        let (ipv4, ipv6) = (told(Family::Ipv4), told(Family::Ipv6));
        let verdict_of = |told: &Option<Verdict<Name>>| told.as_ref().map(|told| told.verdict);
        let default_verdict = match (verdict_of(&ipv4), verdict_of(&ipv6)) {
            (Some(one), None) | (None, Some(one)) => one,
            (Some(a), Some(b)) if a == b => a,
            (Some(_), Some(_)) => DefaultVerdict::Undecidable,
            (None, None) => return None,
        };
        let rule_count = self.rule_counts.get(&base.name).copied().unwrap_or(0);
        let hook = match base.hook {
            Hook::Ingress => Some(FilterHook::Ingress),
            Hook::Prerouting => Some(FilterHook::Prerouting),
            Hook::Input => None,
        };
        // Chains that translate addresses, and empty ones before routing, are many and say nothing.
        let is_idle = rule_count == 0 && base.policy == ChainPolicy::Accept && hook.is_some();
        if default_verdict == DefaultVerdict::Accept && (base.is_nat || is_idle) {
            return None;
        }
        let chain = InputChain {
            engine: base.engine,
            family: base.family,
            table: Text::new(&base.name.1),
            chain: Text::new(&base.name.2),
            priority: base.priority,
            policy: base.policy,
            default_verdict,
            rule_count,
            hook,
        };
        Some(Input { chain, ipv4, ipv6 })
    }

    fn verdict(&self, base: &Base, family: Family) -> Verdict<Name> {
        let found = rules::verdict(&self.chains, &base.name, base.policy, family, base.tracking());
        match (base.hook, found.verdict) {
            // It is so for the packets of some interfaces.
            (Hook::Ingress, DefaultVerdict::Drop | DefaultVerdict::Reject) => {
                Verdict { verdict: DefaultVerdict::Undecidable, because: None }
            }
            _ => found,
        }
    }
}

/// Returns whether a rule may let packets in for passing a test `is_of` which they need not pass as they came: by what it does, or
/// by not keeping them out.
fn is_opened_by(rule: &Rule<Name>, is_of: impl Fn(&Test) -> bool) -> bool {
    let keeps_out = matches!(rule.act, Act::Drop | Act::Reject);
    let opens = |condition: &Condition| {
        let is_inverted = matches!(condition, Condition::AnyOf { is_inverted: true, .. });
        (!keeps_out || is_inverted) && condition.tests().any(&is_of)
    };
    rule.act != Act::Continue && rule.conditions.iter().any(opens)
}

/// Returns whether something hangs on one of these bits.
fn asks_for(ask: Ask, bits: u128) -> bool {
    match ask {
        Ask::Bits { mask, .. } => mask & bits != 0,
        Ask::Within(..) => true,
    }
}

/// Returns whether two chains are of one table, in which alone one leads to the other.
fn is_beside(one: &Name, other: &Name) -> bool {
    (one.0, &one.1) == (other.0, &other.1)
}

/// Returns the chains that packets of the base chain `base` may come to.
fn chains_from<'c>(chains: &'c BTreeMap<Name, Vec<Rule<Name>>>, base: &'c Name) -> BTreeSet<&'c Name> {
    let mut met = BTreeSet::from([base]);
    let mut open = vec![base];
    while let Some(chain) = open.pop() {
        for rule in chains.get(chain).into_iter().flatten() {
            let (Act::Jump(to) | Act::Goto(to)) = &rule.act else { continue };
            if met.insert(to) {
                open.push(to);
            }
        }
    }
    met
}
