//! The way of one packet through a base chain, for all its senders at once. Pure, and the same for both engines.

use std::collections::BTreeMap;

use muster_proto::fact::ChainPolicy;

use super::{
    packet::{Met, Packet, Rate},
    rules::{Act, DEPTH, Rule},
    senders::Senders,
};

/// From whom a packet is at some place.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Flow {
    /// For certain.
    pub certain: Senders,
    /// From no others.
    pub perhaps: Senders,
}

impl Flow {
    pub fn of(senders: Senders) -> Self {
        Self { certain: senders.clone(), perhaps: senders }
    }

    fn is_empty(&self) -> bool {
        self.perhaps.is_empty()
    }

    pub fn add(&mut self, other: Self) {
        self.certain.add(other.certain);
        self.perhaps.add(other.perhaps);
    }

    /// Takes out what meets a rule, and returns it.
    fn split(&mut self, met: &Met) -> Self {
        match met.rate {
            Rate::Steady => {
                let certain = self.certain.within(&met.certain);
                self.certain.cut(&met.perhaps);
                let perhaps = self.perhaps.within(&met.perhaps);
                self.perhaps.cut(&met.certain);
                Self { certain, perhaps }
            }
            Rate::Mostly => {
                let certain = self.certain.within(&met.certain);
                self.certain.cut(&met.perhaps);
                Self { certain, perhaps: self.perhaps.within(&met.perhaps) }
            }
            Rate::Seldom => Self { certain: Senders::default(), perhaps: self.perhaps.within(&met.perhaps) },
        }
    }
}

/// What is left of a walk.
#[derive(Debug)]
pub(super) struct Walked<C> {
    pub accepted: Flow,
    /// The first rule, by chain and number, of which it is not told whether it speaks of the packet or what it does.
    pub because: Option<(C, u32)>,
    /// The first that speaks of some packets of a sender and not of others, and so leaves open what becomes of them.
    pub by_rate: Option<(C, u32)>,
    /// The first rule that may make the packet one for another receiver.
    pub translated: Option<(C, u32)>,
}

/// Returns from whom `packet` passes the base chain `chain`. `None` when that takes more than `steps`, which it counts down.
pub(super) fn walk<C: Clone + Ord>(
    chains: &BTreeMap<C, Vec<Rule<C>>>,
    chain: &C,
    policy: ChainPolicy,
    packet: &Packet,
    flow: Flow,
    steps: &mut u64,
) -> Option<Walked<C>> {
    let accepted = Flow::default();
    let mut walk = Walk { chains, packet, steps, accepted, because: None, by_rate: None, translated: None };
    let rest = walk.chain(chain, flow, DEPTH)?;
    match policy {
        ChainPolicy::Accept => walk.accepted.add(rest),
        ChainPolicy::Drop => {}
    }
    let Walk { accepted, because, by_rate, translated, .. } = walk;
    Some(Walked { accepted, because, by_rate, translated })
}

struct Walk<'w, C> {
    chains: &'w BTreeMap<C, Vec<Rule<C>>>,
    packet: &'w Packet,
    steps: &'w mut u64,
    accepted: Flow,
    because: Option<(C, u32)>,
    by_rate: Option<(C, u32)>,
    translated: Option<(C, u32)>,
}

impl<C: Clone + Ord> Walk<'_, C> {
    /// Returns what falls off the end of the chain.
    fn chain(&mut self, name: &C, mut flow: Flow, depth: usize) -> Option<Flow> {
        let mut falls = Flow::default();
        let (Some(rules), Some(depth)) = (self.chains.get(name), depth.checked_sub(1)) else {
            // A chain that is not there, or a loop, both of which the kernel refuses.
            self.lose(name, 0, &flow);
            flow.certain.take();
            return Some(flow);
        };
        for rule in rules.iter().filter(|rule| rule.act != Act::Continue) {
            if flow.is_empty() {
                break;
            }
            *self.steps = self.steps.checked_sub(1)?;
            let met = self.packet.meets(&rule.conditions);
            if met.perhaps.is_none() {
                continue;
            }
            let mut matched = flow.split(&met);
            if matched.is_empty() {
                continue;
            }
            if met.rate == Rate::Steady && met.certain != met.perhaps {
                self.doubt(name, rule.number);
            }
            // The packet that is let in seldom may never be, and so it is with the one that is dropped mostly.
            let is_open = match (met.rate, &rule.act) {
                (Rate::Steady, _)
                | (Rate::Mostly, Act::Accept | Act::Translate)
                | (Rate::Seldom, Act::Drop | Act::Reject) => false,
                (Rate::Mostly | Rate::Seldom, _) => true,
            };
            if is_open {
                self.by_rate.get_or_insert_with(|| (name.clone(), rule.number));
            }
            match &rule.act {
                Act::Continue => {}
                Act::Accept => self.accepted.add(matched),
                Act::Translate => {
                    self.translated.get_or_insert_with(|| (name.clone(), rule.number));
                    self.accepted.add(matched);
                }
                Act::Drop | Act::Reject => {}
                Act::Return => falls.add(matched),
                Act::Jump(to) => {
                    let back = self.chain(to, matched, depth)?;
                    flow.add(back);
                }
                Act::Goto(to) => {
                    let back = self.chain(to, matched, depth)?;
                    falls.add(back);
                }
                Act::Unclear => {
                    self.lose(name, rule.number, &matched);
                    matched.certain.take();
                    flow.add(matched);
                }
            }
        }
        falls.add(flow);
        Some(falls)
    }

    /// What becomes of `flow` is not told: it may be let in.
    fn lose(&mut self, chain: &C, rule: u32, flow: &Flow) {
        self.accepted.perhaps.add(flow.perhaps.clone());
        self.doubt(chain, rule);
    }

    fn doubt(&mut self, chain: &C, rule: u32) {
        self.because.get_or_insert_with(|| (chain.clone(), rule));
    }
}
