//! What becomes of a new packet from outside of which nothing else is known. Pure, and the same for both engines.

use std::collections::BTreeMap;

use muster_proto::fact::{ChainPolicy, DefaultVerdict};

/// Chains inside each other, at most: the kernel's own bound (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;
/// Rules that are followed, at most; chains that share chains could make it exponential.
const STEPS: usize = 200_000;

/// Which new packets from outside a rule speaks of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scope {
    /// Every one.
    All,
    /// Some narrower kind: to a port, of an address, of a protocol, of a known connection, on the loopback.
    Narrow,
    /// Not told.
    Unclear,
}

impl Scope {
    /// Returns the scope of two conditions that must both hold.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Narrow, _) | (_, Self::Narrow) => Self::Narrow,
            (Self::Unclear, _) | (_, Self::Unclear) => Self::Unclear,
            (Self::All, Self::All) => Self::All,
        }
    }
}

/// What a rule does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Act<C> {
    /// Nothing that decides, such as counting.
    Continue,
    Accept,
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
    pub act: Act<C>,
}

/// Returns what becomes of the packet in the base chain `chain`.
pub(super) fn verdict<C: Clone + Ord>(
    chains: &BTreeMap<C, Vec<Rule<C>>>,
    chain: &C,
    policy: ChainPolicy,
) -> DefaultVerdict {
    let policy = match policy {
        ChainPolicy::Accept => DefaultVerdict::Accept,
        ChainPolicy::Drop => DefaultVerdict::Drop,
    };
    let mut follow = Follow { chains, steps: 0, maybe: Vec::new() };
    let verdict = follow.chain(chain, DEPTH).unwrap_or(policy);
    let is_denied = |verdict: &DefaultVerdict| matches!(verdict, DefaultVerdict::Drop | DefaultVerdict::Reject);
    let agrees = |maybe: &Option<DefaultVerdict>| {
        let maybe = maybe.unwrap_or(policy);
        maybe == verdict || is_denied(&maybe) && is_denied(&verdict)
    };
    if follow.maybe.iter().all(agrees) { verdict } else { DefaultVerdict::Undecidable }
}

struct Follow<'c, C> {
    chains: &'c BTreeMap<C, Vec<Rule<C>>>,
    steps: usize,
    /// Verdicts of rules that may or may not speak of the packet; `None` is the policy.
    maybe: Vec<Option<DefaultVerdict>>,
}

impl<C: Clone + Ord> Follow<'_, C> {
    /// Returns the verdict of a chain; `None` when it leaves the packet to the chain that called it.
    fn chain(&mut self, name: &C, depth: usize) -> Option<DefaultVerdict> {
        let Some(rules) = self.chains.get(name) else { return Some(DefaultVerdict::Undecidable) };
        let Some(depth) = depth.checked_sub(1) else { return Some(DefaultVerdict::Undecidable) };
        for rule in rules {
            self.steps += 1;
            if self.steps > STEPS {
                return Some(DefaultVerdict::Undecidable);
            }
            if rule.scope == Scope::Narrow {
                continue;
            }
            let (verdict, ends) = match &rule.act {
                Act::Continue => continue,
                Act::Accept => (Some(DefaultVerdict::Accept), true),
                Act::Drop => (Some(DefaultVerdict::Drop), true),
                Act::Reject => (Some(DefaultVerdict::Reject), true),
                Act::Unclear => (Some(DefaultVerdict::Undecidable), true),
                Act::Return => (None, true),
                Act::Jump(chain) => (self.chain(chain, depth), false),
                Act::Goto(chain) => (self.chain(chain, depth), true),
            };
            match rule.scope {
                Scope::All if verdict.is_some() || ends => return verdict,
                Scope::All | Scope::Narrow => {}
                // Returning early only skips rules; what they hold is added to what may be.
                Scope::Unclear if verdict.is_some() || ends => self.maybe.push(verdict),
                Scope::Unclear => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(scope: Scope, act: Act<u8>) -> Rule<u8> {
        Rule { scope, act }
    }

    #[test]
    fn rules_are_followed_as_an_unknown_new_packet_would() {
        use Act::{Accept, Continue, Drop, Goto, Jump, Reject, Return};
        use Scope::{All, Narrow, Unclear};
        let other = vec![rule(All, Reject)];
        let returns = vec![rule(All, Return), rule(All, Drop)];
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
            (vec![rule(Unclear, Accept)], ChainPolicy::Accept, DefaultVerdict::Accept),
            (vec![rule(Unclear, Drop), rule(All, Reject)], ChainPolicy::Accept, DefaultVerdict::Reject),
            (vec![rule(All, Act::Unclear)], ChainPolicy::Drop, DefaultVerdict::Undecidable),
            (vec![rule(All, Jump(9))], ChainPolicy::Drop, DefaultVerdict::Undecidable),
            (vec![rule(All, Jump(0))], ChainPolicy::Drop, DefaultVerdict::Undecidable),
            (vec![rule(All, Continue), rule(All, Drop)], ChainPolicy::Accept, DefaultVerdict::Drop),
        ] {
            let chains = BTreeMap::from([(0, rules.clone()), (1, other.clone()), (2, returns.clone())]);
            assert_eq!(verdict(&chains, &0, policy), expected, "{rules:?}");
        }
    }
}
