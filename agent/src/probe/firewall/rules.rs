//! What may become of a new packet from outside of which nothing else is known. Pure, and the same for both engines.

use std::collections::BTreeMap;

use muster_proto::fact::{ChainPolicy, DefaultVerdict};

use super::{
    openings,
    packet::{Ask, Condition, Field, IPV4, IPV6, STATE_INVALID, TCP, Test, Tracking, UDP, passes_next_header},
};
use crate::host::Family;

/// Chains inside each other, at most: the kernel's own bound (`NFT_JUMP_STACK_SIZE`).
pub(super) const DEPTH: usize = 16;

/// Which new packets from outside a rule speaks of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scope {
    /// Every one.
    All,
    /// Some narrower kind: to a port, of an address, of a protocol, of a known connection, on the loopback.
    Narrow,
    /// What a sender may make of any packet, and need not.
    Chosen,
    /// Not told.
    Unclear,
}

impl Scope {
    /// Returns the scope of two conditions that must both hold.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Narrow, _) | (_, Self::Narrow) => Self::Narrow,
            (Self::Chosen, _) | (_, Self::Chosen) => Self::Chosen,
            (Self::Unclear, _) | (_, Self::Unclear) => Self::Unclear,
            (Self::All, Self::All) => Self::All,
        }
    }

    /// Returns the scope of the opposite condition: a packet of no narrower kind meets it where it does not meet this.
    pub fn inverted(self) -> Self {
        match self {
            Self::All => Self::Narrow,
            Self::Narrow => Self::All,
            Self::Chosen | Self::Unclear => Self::Unclear,
        }
    }

    /// Returns the scope of a condition that may be inverted.
    pub fn inverted_if(self, is_inverted: bool) -> Self {
        if is_inverted { self.inverted() } else { self }
    }
}

/// What a rule does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Act<C> {
    /// Nothing that decides, such as counting.
    Continue,
    Accept,
    /// Accepts it, and makes it one for another receiver.
    Translate,
    Drop,
    Reject,
    Return,
    Jump(C),
    Goto(C),
    /// Something that this build does not know.
    Unclear,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Rule<C> {
    pub scope: Scope,
    /// What makes the scope, for a packet of which more is known.
    pub conditions: Vec<Condition>,
    pub act: Act<C>,
    /// Place in its chain, from 1. What one rule does to several kinds of packets has one number.
    pub number: u32,
}

impl<C> Rule<C> {
    /// Returns the scope for packets of `family`, which a rule for the other does not speak of. Before connections are looked
    /// up, every packet is invalid.
    pub fn scope_in(&self, Known { family, tracking, protocol }: Known) -> Scope {
        let number = match family {
            Family::Ipv4 => IPV4,
            Family::Ipv6 => IPV6,
        };
        let is_other = |condition: &Condition| match condition {
            Condition::AnyOf { lists, is_inverted } => match lists.as_slice() {
                [tests] => match tests.as_slice() {
                    [test] => test.field == Field::Family && (test.ask != Ask::Within(number, number)) != *is_inverted,
                    _ => false,
                },
                _ => false,
            },
            Condition::Mostly | Condition::Seldom | Condition::Unclear => false,
        };
        if self.conditions.iter().any(is_other) {
            return Scope::Narrow;
        }
        if let Some(protocol) = protocol {
            let mut met = self.conditions.iter().map(|condition| is_met_by_protocol(condition, number, protocol));
            if met.clone().any(|is_met| is_met == Some(false)) {
                return Scope::Narrow;
            }
            if self.scope == Scope::Unclear && met.len() > 0 && met.all(|is_met| is_met == Some(true)) {
                return Scope::All;
            }
        }
        if tracking == Tracking::After {
            return self.scope;
        }
        let mut scope = self.scope;
        for condition in &self.conditions {
            match is_met_by_invalid(condition) {
                Some(true) if tracking == Tracking::Before && scope == Scope::All => {}
                Some(false) if tracking == Tracking::Before || scope == Scope::Narrow => return Scope::Narrow,
                Some(true | false) => scope = Scope::Unclear,
                None => {}
            }
        }
        scope
    }
}

/// Returns whether packets of a family and a protocol meet a condition, all of them or none; `None` where it depends on more.
fn is_met_by_protocol(condition: &Condition, family: u128, protocol: u8) -> Option<bool> {
    condition.is_met_by(|Test { field, ask }| match field {
        Field::Family => Some(ask.holds(family)),
        Field::Protocol => Some(ask.holds(protocol.into())),
        Field::NextHeader => passes_next_header(*ask, protocol),
        Field::SenderPort | Field::ReceiverPort if *ask == Ask::Within(0, u16::MAX.into()) => Some(true),
        _ => None,
    })
}

/// Returns whether an invalid packet meets a condition on states of connections; `None` for another condition.
fn is_met_by_invalid(condition: &Condition) -> Option<bool> {
    let Condition::AnyOf { lists, is_inverted } = condition else { return None };
    let is_of_state = condition.tests().next().is_some_and(|test| test.field == Field::CtState);
    let is_met = |tests: &Vec<Test>| tests.iter().all(|test| test.ask.holds(STATE_INVALID));
    is_of_state.then(|| lists.iter().any(is_met) != *is_inverted)
}

/// What is known of a new packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub family: Family,
    pub tracking: Tracking,
    /// `None` for one of TCP or UDP.
    pub protocol: Option<u8>,
}

/// What becomes of the packet, and the rule because of which it cannot be told: its chain and its number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Verdict<C> {
    pub verdict: DefaultVerdict,
    pub because: Option<(C, u32)>,
}

/// Returns what becomes of the packet of `family` in the base chain `chain`, where its connection is looked up or not.
pub(super) fn verdict<C: Clone + Ord>(
    chains: &BTreeMap<C, Vec<Rule<C>>>,
    chain: &C,
    policy: ChainPolicy,
    family: Family,
    tracking: Tracking,
) -> Verdict<C> {
    let of = |protocol| verdict_of(chains, chain, policy, Known { family, tracking, protocol });
    let told = of(None);
    if told.verdict != DefaultVerdict::Undecidable {
        return told;
    }
    // A rule for each protocol may do what one for both would.
    match (of(Some(TCP)).verdict, of(Some(UDP)).verdict) {
        (DefaultVerdict::Undecidable, _) | (_, DefaultVerdict::Undecidable) => told,
        (tcp, udp) if tcp == udp => Verdict { verdict: tcp, because: None },
        (DefaultVerdict::Accept, _) | (_, DefaultVerdict::Accept) => told,
        (_, _) => Verdict { verdict: DefaultVerdict::Reject, because: None },
    }
}

fn verdict_of<C: Clone + Ord>(
    chains: &BTreeMap<C, Vec<Rule<C>>>,
    chain: &C,
    policy: ChainPolicy,
    packet: Known,
) -> Verdict<C> {
    let mut follow = Follow { chains, packet, known: BTreeMap::new(), doubts: BTreeMap::new() };
    let found = follow.chain(chain, DEPTH);
    let policy = match policy {
        ChainPolicy::Accept => Outcomes::ACCEPT,
        ChainPolicy::Drop => Outcomes::DROP,
    };
    let all = if found.has(Outcomes::FALLS) { found.without(Outcomes::FALLS).or(policy) } else { found };
    if !all.has(Outcomes::ACCEPT) && !all.has(Outcomes::UNDECIDABLE) {
        let falls =
            |chain: &C| follow.known.get(chain).is_none_or(|known| known.is_none_or(|one| one.has(Outcomes::FALLS)));
        let because = openings::one_too_many(chains, chain, packet, &falls);
        if because.is_some() {
            return Verdict { verdict: DefaultVerdict::Undecidable, because };
        }
    }
    let verdict = if all == Outcomes::ACCEPT {
        DefaultVerdict::Accept
    } else if all.has(Outcomes::ACCEPT) || all.has(Outcomes::UNDECIDABLE) {
        DefaultVerdict::Undecidable
    } else if all.has(Outcomes::REJECT) {
        DefaultVerdict::Reject
    } else {
        DefaultVerdict::Drop
    };
    // Of rules in doubt, the one that differs from the policy says more than one that agrees with it.
    let order = if policy == Outcomes::ACCEPT {
        [Outcomes::UNDECIDABLE, Outcomes::DROP, Outcomes::REJECT, Outcomes::ACCEPT, Outcomes::FALLS]
    } else {
        [Outcomes::UNDECIDABLE, Outcomes::ACCEPT, Outcomes::DROP, Outcomes::REJECT, Outcomes::FALLS]
    };
    let because = match verdict {
        DefaultVerdict::Undecidable => order.iter().find_map(|outcome| follow.doubts.remove(outcome)),
        DefaultVerdict::Accept | DefaultVerdict::Drop | DefaultVerdict::Reject => None,
    };
    Verdict { verdict, because }
}

/// A set of what may become of the packet.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Outcomes(u8);

impl Outcomes {
    const NONE: Self = Self(0);
    const ACCEPT: Self = Self(1);
    const DROP: Self = Self(2);
    const REJECT: Self = Self(4);
    const UNDECIDABLE: Self = Self(8);
    /// The chain leaves it to the one that called it, a base chain to its policy.
    const FALLS: Self = Self(16);

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

struct Follow<'c, C> {
    chains: &'c BTreeMap<C, Vec<Rule<C>>>,
    packet: Known,
    /// Chains that were followed, each once, since a chain does the same wherever it is called from; `None` while it is.
    known: BTreeMap<&'c C, Option<Outcomes>>,
    /// By what it may do, the first rule of which it is not told whether it speaks of the packet.
    doubts: BTreeMap<Outcomes, (C, u32)>,
}

impl<'c, C: Clone + Ord> Follow<'c, C> {
    fn chain(&mut self, name: &C, depth: usize) -> Outcomes {
        let Some((name, rules)) = self.chains.get_key_value(name) else { return Outcomes::UNDECIDABLE };
        match self.known.get(name) {
            Some(Some(outcomes)) => return *outcomes,
            // A loop, which the kernel refuses.
            Some(None) => return Outcomes::UNDECIDABLE,
            None => {}
        }
        let Some(depth) = depth.checked_sub(1) else { return Outcomes::UNDECIDABLE };
        self.known.insert(name, None);
        let outcomes = self.rules(name, rules, depth);
        self.known.insert(name, Some(outcomes));
        outcomes
    }

    fn rules(&mut self, name: &C, rules: &'c [Rule<C>], depth: usize) -> Outcomes {
        let mut outcomes = Outcomes::NONE;
        for rule in rules {
            let scope = rule.scope_in(self.packet);
            // Nobody has to make a packet one that is kept out.
            let is_avoidable = scope == Scope::Chosen && matches!(rule.act, Act::Drop | Act::Reject);
            if scope == Scope::Narrow || is_avoidable {
                continue;
            }
            // What a packet of this rule may meet, and whether it may go on to the next rule.
            let (may, goes_on) = match &rule.act {
                Act::Continue => continue,
                Act::Accept | Act::Translate => (Outcomes::ACCEPT, false),
                Act::Drop => (Outcomes::DROP, false),
                Act::Reject => (Outcomes::REJECT, false),
                Act::Unclear => (Outcomes::UNDECIDABLE, false),
                Act::Return => (Outcomes::FALLS, false),
                Act::Jump(chain) => {
                    let called = self.chain(chain, depth);
                    (called.without(Outcomes::FALLS), called.has(Outcomes::FALLS))
                }
                // What falls off the end of that chain goes to the caller of this one.
                Act::Goto(chain) => (self.chain(chain, depth), false),
            };
            outcomes = outcomes.or(may);
            if scope != Scope::All || may.has(Outcomes::UNDECIDABLE) {
                self.doubt(name, rule.number, may);
            }
            if scope == Scope::All && !goes_on {
                return outcomes;
            }
        }
        outcomes.or(Outcomes::FALLS)
    }

    fn doubt(&mut self, chain: &C, rule: u32, may: Outcomes) {
        let each = [Outcomes::UNDECIDABLE, Outcomes::ACCEPT, Outcomes::DROP, Outcomes::REJECT, Outcomes::FALLS];
        for outcome in each.into_iter().filter(|outcome| may.has(*outcome)) {
            self.doubts.entry(outcome).or_insert_with(|| (chain.clone(), rule));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(scope: Scope, act: Act<u8>) -> Rule<u8> {
        Rule { scope, conditions: Vec::new(), act, number: 0 }
    }

    /// Chains by their place, with rules numbered.
    fn chains(chains: Vec<Vec<Rule<u8>>>) -> BTreeMap<u8, Vec<Rule<u8>>> {
        let number = |(n, rule): (u32, Rule<u8>)| Rule { number: n, ..rule };
        (0..).zip(chains.into_iter().map(|rules| (1..).zip(rules).map(number).collect())).collect()
    }

    #[test]
    fn rules_are_followed_as_an_unknown_new_packet_would() {
        use Act::{Accept, Continue, Drop, Goto, Jump, Reject, Return};
        use Scope::{All, Chosen, Narrow, Unclear};
        let other = vec![rule(All, Reject)];
        let returns = vec![rule(All, Return), rule(All, Drop)];
        // As ufw's chain for what is not for this host: some return, the rest is dropped.
        let may_return = vec![rule(Unclear, Return), rule(All, Drop)];
        // As a zone of firewalld that accepts some ports and falls off its end.
        let zone = vec![rule(Narrow, Accept)];
        let accepts = vec![rule(All, Accept)];
        for (rules, policy, expected) in [
            (vec![], ChainPolicy::Drop, DefaultVerdict::Drop),
            (vec![], ChainPolicy::Accept, DefaultVerdict::Accept),
            (vec![rule(Narrow, Accept), rule(All, Reject)], ChainPolicy::Accept, DefaultVerdict::Reject),
            (vec![rule(All, Accept), rule(All, Drop)], ChainPolicy::Drop, DefaultVerdict::Accept),
            (vec![rule(All, Jump(1))], ChainPolicy::Accept, DefaultVerdict::Reject),
            (vec![rule(All, Jump(2)), rule(All, Accept)], ChainPolicy::Drop, DefaultVerdict::Accept),
            (vec![rule(All, Goto(2)), rule(All, Accept)], ChainPolicy::Drop, DefaultVerdict::Drop),
            (vec![rule(Narrow, Jump(1))], ChainPolicy::Accept, DefaultVerdict::Accept),
            (vec![rule(Unclear, Accept)], ChainPolicy::Drop, DefaultVerdict::Undecidable),
            (vec![rule(Chosen, Accept)], ChainPolicy::Drop, DefaultVerdict::Undecidable),
            (vec![rule(Chosen, Drop)], ChainPolicy::Accept, DefaultVerdict::Accept),
            (vec![rule(Chosen, Jump(1))], ChainPolicy::Accept, DefaultVerdict::Undecidable),
            (vec![rule(Unclear, Accept)], ChainPolicy::Accept, DefaultVerdict::Accept),
            (vec![rule(Unclear, Drop), rule(All, Reject)], ChainPolicy::Accept, DefaultVerdict::Reject),
            (vec![rule(All, Act::Unclear)], ChainPolicy::Drop, DefaultVerdict::Undecidable),
            (vec![rule(All, Jump(9))], ChainPolicy::Drop, DefaultVerdict::Undecidable),
            (vec![rule(All, Jump(0))], ChainPolicy::Drop, DefaultVerdict::Undecidable),
            (vec![rule(All, Continue), rule(All, Drop)], ChainPolicy::Accept, DefaultVerdict::Drop),
            // A conditional return hides nothing of what follows the jump.
            (vec![rule(All, Jump(3)), rule(Unclear, Accept)], ChainPolicy::Drop, DefaultVerdict::Undecidable),
            (vec![rule(All, Jump(3)), rule(All, Accept)], ChainPolicy::Drop, DefaultVerdict::Undecidable),
            (vec![rule(All, Jump(3)), rule(Narrow, Accept)], ChainPolicy::Drop, DefaultVerdict::Drop),
            (vec![rule(All, Jump(3)), rule(All, Reject)], ChainPolicy::Accept, DefaultVerdict::Reject),
            (vec![rule(All, Jump(3))], ChainPolicy::Accept, DefaultVerdict::Undecidable),
            // What falls off a zone goes to the end of the chain that went there, and not to its next rule.
            (vec![rule(Unclear, Goto(4)), rule(All, Reject)], ChainPolicy::Accept, DefaultVerdict::Undecidable),
            (vec![rule(Unclear, Goto(4)), rule(All, Reject)], ChainPolicy::Drop, DefaultVerdict::Reject),
            (vec![rule(All, Jump(6)), rule(All, Reject)], ChainPolicy::Accept, DefaultVerdict::Reject),
            (vec![rule(All, Jump(6)), rule(All, Accept)], ChainPolicy::Drop, DefaultVerdict::Accept),
            (vec![rule(Unclear, Goto(5)), rule(All, Reject)], ChainPolicy::Drop, DefaultVerdict::Undecidable),
            (vec![rule(Unclear, Jump(1)), rule(All, Jump(1))], ChainPolicy::Accept, DefaultVerdict::Reject),
        ] {
            // Zones one after the other, each taken for its own interface, as older firewalld lists them.
            let zones = vec![rule(Unclear, Goto(4)), rule(All, Goto(4)), rule(All, Drop)];
            let called =
                [other.clone(), returns.clone(), may_return.clone(), zone.clone(), accepts.clone(), zones.clone()];
            let chains = chains([vec![rules.clone()], called.to_vec()].concat());
            assert_eq!(
                verdict(&chains, &0, policy, Family::Ipv4, Tracking::After).verdict,
                expected,
                "{policy:?} {rules:?}"
            );
        }
    }

    #[test]
    fn rules_that_are_narrow_each_may_be_wide_together() {
        let ports = |first: u128, last: u128| {
            let conditions = vec![
                Condition::test(Field::Protocol, Ask::Within(6, 6), false),
                Condition::test(Field::ReceiverPort, Ask::Within(first, u16::MAX.into()), false),
                Condition::test(Field::ReceiverPort, Ask::Within(0, last), false),
            ];
            Rule { conditions, ..rule(Scope::Narrow, Act::Accept) }
        };
        let told =
            |rules: Vec<Rule<u8>>| verdict(&chains(vec![rules]), &0, ChainPolicy::Drop, Family::Ipv4, Tracking::After);
        let all: Vec<_> = (0..16).map(|part| ports(part * 4096, part * 4096 + 4095)).collect();
        let found = told(all.clone());
        assert_eq!((found.verdict, found.because), (DefaultVerdict::Undecidable, Some((0, 2))));
        assert_eq!(told(vec![all[0].clone()]).verdict, DefaultVerdict::Drop);
        // The same ports again are no more.
        assert_eq!(told(vec![all[3].clone(), all[3].clone(), ports(16_000, 16_383)]).verdict, DefaultVerdict::Drop);
        // For one sender, or for what is known.
        let sender = Condition::test(Field::Ipv4Sender, Ask::Within(1, 1), false);
        let known = Condition::test(Field::CtState, Ask::Within(2, 2), false);
        for other in [sender, known] {
            let mut rules = all.clone();
            rules.iter_mut().for_each(|rule| rule.conditions.push(other.clone()));
            assert_eq!(told(rules).verdict, DefaultVerdict::Drop, "{other:?}");
        }
    }

    #[test]
    fn rules_for_each_protocol_may_do_what_one_for_both_would() {
        let of = |protocol: u8, act: Act<u8>| {
            let conditions = vec![
                Condition::test(Field::Protocol, Ask::Within(protocol.into(), protocol.into()), false),
                // As a match of ports that says nothing of them.
                Condition::test(Field::ReceiverPort, Ask::Within(0, u16::MAX.into()), false),
            ];
            Rule { conditions, ..rule(Scope::Unclear, act) }
        };
        let to_ssh = || {
            let mut rule = of(TCP, Act::Accept);
            rule.conditions.push(Condition::test(Field::ReceiverPort, Ask::Within(22, 22), false));
            Rule { scope: Scope::Narrow, ..rule }
        };
        let by_name = || {
            let mut rule = of(TCP, Act::Reject);
            rule.conditions.push(Condition::Unclear);
            rule
        };
        use Act::{Accept, Drop, Reject};
        for (rules, policy, expected) in [
            (vec![to_ssh(), of(TCP, Reject), of(UDP, Reject)], ChainPolicy::Accept, DefaultVerdict::Reject),
            (vec![of(TCP, Drop), of(UDP, Drop)], ChainPolicy::Accept, DefaultVerdict::Drop),
            (vec![of(TCP, Reject), of(UDP, Drop)], ChainPolicy::Accept, DefaultVerdict::Reject),
            (vec![of(TCP, Accept), of(UDP, Accept)], ChainPolicy::Drop, DefaultVerdict::Accept),
            (vec![of(TCP, Reject)], ChainPolicy::Accept, DefaultVerdict::Undecidable),
            (vec![of(TCP, Accept), of(UDP, Drop)], ChainPolicy::Accept, DefaultVerdict::Undecidable),
            (vec![by_name(), of(UDP, Drop)], ChainPolicy::Accept, DefaultVerdict::Undecidable),
            (vec![of(1, Drop), of(UDP, Drop)], ChainPolicy::Accept, DefaultVerdict::Undecidable),
        ] {
            let found = verdict(&chains(vec![rules.clone()]), &0, policy, Family::Ipv4, Tracking::After);
            assert_eq!(found.verdict, expected, "{rules:?}");
            assert_eq!(found.because.is_some(), expected == DefaultVerdict::Undecidable);
        }
    }

    #[test]
    fn the_rule_that_leaves_it_open_is_named() {
        use Act::{Accept, Drop, Jump, Reject, Return};
        use Scope::{All, Narrow, Unclear};
        for (rules, called, policy, expected) in [
            (vec![rule(Narrow, Accept), rule(Unclear, Accept)], vec![], ChainPolicy::Drop, Some((0, 2))),
            (vec![rule(Unclear, Drop), rule(Unclear, Accept)], vec![], ChainPolicy::Drop, Some((0, 2))),
            (vec![rule(Unclear, Accept), rule(Unclear, Reject)], vec![], ChainPolicy::Accept, Some((0, 2))),
            (vec![rule(All, Jump(1))], vec![rule(Unclear, Accept)], ChainPolicy::Drop, Some((1, 1))),
            (vec![rule(Unclear, Jump(1))], vec![rule(All, Accept)], ChainPolicy::Drop, Some((0, 1))),
            (vec![rule(All, Jump(1))], vec![rule(Unclear, Return), rule(All, Drop)], ChainPolicy::Accept, Some((1, 1))),
            (vec![rule(All, Drop)], vec![], ChainPolicy::Accept, None),
        ] {
            let chains = chains(vec![rules.clone(), called]);
            assert_eq!(verdict(&chains, &0, policy, Family::Ipv4, Tracking::After).because, expected, "{rules:?}");
        }
    }

    #[test]
    fn chains_that_share_chains_are_followed_once_each() {
        let twice = |n: u8| vec![rule(Scope::Unclear, Act::Jump(n + 1)), rule(Scope::All, Act::Jump(n + 1))];
        let mut rules: Vec<_> = (0..15).map(twice).collect();
        rules.push(vec![rule(Scope::All, Act::Drop)]);
        let rules = chains(rules);
        assert_eq!(
            verdict(&rules, &0, ChainPolicy::Accept, Family::Ipv4, Tracking::After).verdict,
            DefaultVerdict::Drop
        );
        let deeper = chains([vec![twice(0)], rules.into_values().map(deeper).collect()].concat());
        assert_eq!(
            verdict(&deeper, &0, ChainPolicy::Accept, Family::Ipv4, Tracking::After).verdict,
            DefaultVerdict::Undecidable
        );
    }

    fn deeper(rules: Vec<Rule<u8>>) -> Vec<Rule<u8>> {
        let deeper = |act| if let Act::Jump(n) = act { Act::Jump(n + 1) } else { act };
        rules.into_iter().map(|rule| Rule { act: deeper(rule.act), ..rule }).collect()
    }

    /// A rule as the reference follows it: the packets that it speaks of as bits, those of no narrower kind in the low
    /// byte, and what it does where the walker is not told.
    #[derive(Clone, Debug)]
    struct Real {
        rule: Rule<u8>,
        packets: u16,
        really_accepts: bool,
    }

    const CHAINS: u8 = 6;
    const WIDE_PACKETS: u32 = 8;

    fn real(chain: u8, scopes: &'static [Scope]) -> impl Strategy<Value = Real> {
        let act = prop_oneof![
            1 => Just(Act::Continue),
            3 => Just(Act::Accept),
            3 => Just(Act::Drop),
            1 => Just(Act::Reject),
            3 => Just(Act::Return),
            // Only to later chains, as the kernel refuses loops. The last one is not there.
            4 => (chain + 1..=CHAINS).prop_map(Act::Jump),
            3 => (chain + 1..=CHAINS).prop_map(Act::Goto),
            1 => Just(Act::Unclear),
        ];
        (prop::sample::select(scopes), act, any::<u16>(), any::<bool>()).prop_map(
            |(scope, act, packets, really_accepts)| {
                let packets = match scope {
                    Scope::All => u16::MAX,
                    Scope::Narrow => packets & 0xff00,
                    Scope::Chosen | Scope::Unclear => packets,
                };
                Real { rule: rule(scope, act), packets, really_accepts }
            },
        )
    }

    fn rule_set(scopes: &'static [Scope]) -> impl Strategy<Value = Vec<Vec<Real>>> {
        (0..CHAINS).map(|chain| prop::collection::vec(real(chain, scopes), 0..6)).collect::<Vec<_>>()
    }

    /// Returns whether `packet` is accepted, as the kernel's loop decides it; `None` when it leaves the chain.
    fn interpret(chains: &[Vec<Real>], chain: u8, packet: u32) -> Option<bool> {
        for real in chains.get(usize::from(chain))?.iter().filter(|real| real.packets & (1 << packet) != 0) {
            match &real.rule.act {
                Act::Continue => {}
                Act::Accept | Act::Translate => return Some(true),
                Act::Drop | Act::Reject => return Some(false),
                Act::Unclear => return Some(real.really_accepts),
                Act::Return => return None,
                Act::Goto(to) => return interpret(chains, *to, packet),
                Act::Jump(to) => {
                    if let Some(accepted) = interpret(chains, *to, packet) {
                        return Some(accepted);
                    }
                }
            }
        }
        None
    }

    fn judged(reals: &[Vec<Real>], policy: ChainPolicy) -> DefaultVerdict {
        let rules = reals.iter().map(|chain| chain.iter().map(|real| real.rule.clone()).collect()).collect();
        let verdict = verdict(&chains(rules), &0, policy, Family::Ipv4, Tracking::After);
        assert!(verdict.because.is_none() || verdict.verdict == DefaultVerdict::Undecidable);
        verdict.verdict
    }

    /// More with `MUSTER_FIREWALL_CASES`.
    fn cases() -> ProptestConfig {
        let cases = std::env::var("MUSTER_FIREWALL_CASES").ok().and_then(|cases| cases.parse().ok());
        ProptestConfig::with_cases(cases.unwrap_or(5_000))
    }

    fn policy() -> impl Strategy<Value = ChainPolicy> {
        prop::sample::select(&[ChainPolicy::Accept, ChainPolicy::Drop])
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn what_is_told_holds_for_every_packet_of_no_narrower_kind(
            chains in rule_set(&[Scope::All, Scope::Narrow, Scope::Unclear, Scope::Unclear]), policy in policy(),
        ) {
            let accepted: Vec<bool> = (0..WIDE_PACKETS)
                .map(|packet| interpret(&chains, 0, packet).unwrap_or(policy == ChainPolicy::Accept))
                .collect();
            match judged(&chains, policy) {
                DefaultVerdict::Accept => prop_assert!(accepted.iter().all(|accepted| *accepted)),
                DefaultVerdict::Drop | DefaultVerdict::Reject => prop_assert!(!accepted.contains(&true)),
                DefaultVerdict::Undecidable => {}
            }
        }

        #[test]
        fn where_every_scope_is_told_the_verdict_is_too(
            chains in rule_set(&[Scope::All, Scope::Narrow, Scope::Narrow]), policy in policy(),
        ) {
            let mut chains = chains;
            for real in chains.iter_mut().flatten() {
                if real.rule.act == Act::Unclear {
                    real.rule.act = if real.really_accepts { Act::Accept } else { Act::Drop };
                }
            }
            // An empty chain stands for the last one.
            chains.push(Vec::new());
            let accepted = interpret(&chains, 0, 0).unwrap_or(policy == ChainPolicy::Accept);
            match judged(&chains, policy) {
                DefaultVerdict::Accept => prop_assert!(accepted),
                DefaultVerdict::Drop | DefaultVerdict::Reject => prop_assert!(!accepted),
                DefaultVerdict::Undecidable => prop_assert!(false, "undecidable"),
            }
        }
    }
}
