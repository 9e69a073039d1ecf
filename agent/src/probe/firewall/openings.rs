//! What rules let in together of which each lets in some narrower kind of packets alone. Pure, and the same for both engines.

use std::collections::BTreeMap;

use super::{
    packet::{
        self, Ask, Condition, Field, IPV4, IPV6, KIND_LOCAL, STATE_INVALID, STATE_NEW, STATE_UNTRACKED, SYN, TCP, Test,
        Tracking, UDP,
    },
    rules::{Act, DEPTH, Known, Rule, Scope},
    senders::{Part, Senders},
    share::{self, Share},
    surroundings::name_number,
};
use crate::host::Family;

/// Rules, and ranges of their ports and addresses, that are summed for one protocol, at most.
const STEPS: usize = 20_000_000;
/// The loopback's number in every namespace.
const LOOPBACK: u128 = 1;
/// Shares of all ports from all addresses of IPv4, as bits, above the share of all ports.
const ALL_SENDERS: u32 = 66;

/// Returns the rule with which those that packets meet from `chain` on let in more than is narrow: its chain and its number.
///
/// `falls` tells of a chain whether a packet of no narrower kind may leave it for the one that called it.
pub(super) fn one_too_many<C: Clone + Ord>(
    chains: &BTreeMap<C, Vec<Rule<C>>>,
    chain: &C,
    packet: Known,
    falls: &dyn Fn(&C) -> bool,
) -> Option<(C, u32)> {
    let every = Kind { ports: Part::All, senders: Part::All, is_narrow: false };
    [TCP, UDP].into_iter().find_map(|protocol| {
        let mut sum = Sum {
            chains,
            packet: Known { protocol: Some(protocol), ..packet },
            protocol,
            falls,
            lets_in: BTreeMap::new(),
            steps: STEPS,
            ports: Ports::default(),
            kept_out: Senders::outside(packet.family),
            of_senders: Share::LEAST,
            of_both: Share::LEAST,
        };
        sum.chain(chain, &every, DEPTH)
    })
}

/// Packets to some ports from some addresses.
struct Kind {
    ports: Part,
    senders: Part,
    /// Whether a rule brought them here that speaks of a narrower kind.
    is_narrow: bool,
}

struct Sum<'c, C> {
    chains: &'c BTreeMap<C, Vec<Rule<C>>>,
    packet: Known,
    protocol: u8,
    falls: &'c dyn Fn(&C) -> bool,
    /// Chains by whether some rule in them or further on lets packets in.
    lets_in: BTreeMap<&'c C, bool>,
    steps: usize,
    /// Ports that are open to everyone.
    ports: Ports,
    /// From where not every port is open, and how much is not in it.
    kept_out: Senders,
    of_senders: Share,
    /// What is open by port and by address.
    of_both: Share,
}

impl<'c, C: Clone + Ord> Sum<'c, C> {
    fn chain(&mut self, name: &C, kind: &Kind, depth: usize) -> Option<(C, u32)> {
        let (name, rules) = self.chains.get_key_value(name)?;
        let depth = depth.checked_sub(1)?;
        for rule in rules {
            let scope = rule.scope_in(self.packet);
            if let Some(found) = self.rule(name, rule, scope, kind, depth) {
                return Some(found);
            }
            let goes_on = match &rule.act {
                Act::Continue => true,
                Act::Jump(to) => (self.falls)(to),
                Act::Accept | Act::Translate | Act::Drop | Act::Reject | Act::Return | Act::Goto(_) | Act::Unclear => {
                    false
                }
            };
            // A narrower kind may be what this rule does not speak of.
            if !goes_on && scope == Scope::All && (!kind.is_narrow || rule.conditions.is_empty()) {
                break;
            }
        }
        None
    }

    fn rule(&mut self, name: &C, rule: &Rule<C>, scope: Scope, kind: &Kind, depth: usize) -> Option<(C, u32)> {
        let opens = match &rule.act {
            Act::Continue | Act::Drop | Act::Reject | Act::Return => false,
            // What is not narrow was followed.
            Act::Accept | Act::Translate | Act::Unclear => kind.is_narrow || scope == Scope::Narrow,
            Act::Jump(to) | Act::Goto(to) => self.lets_in(to),
        };
        if !opens {
            return None;
        }
        let place = (name.clone(), rule.number);
        let own = self.kind(&rule.conditions, scope == Scope::Narrow)?;
        let cost = 1 + [&own.ports, &own.senders, &kind.ports, &kind.senders].map(count).iter().sum::<usize>();
        let Some(steps) = self.steps.checked_sub(cost) else { return Some(place) };
        self.steps = steps;
        let both = Kind {
            ports: own.ports.and(kind.ports.clone()),
            senders: own.senders.and(kind.senders.clone()),
            is_narrow: own.is_narrow || kind.is_narrow,
        };
        if both.ports.is_none() || both.senders.is_none() {
            return None;
        }
        match &rule.act {
            Act::Jump(to) | Act::Goto(to) => self.chain(to, &both, depth),
            _ => self.add(&both).then_some(place),
        }
    }

    fn lets_in(&mut self, name: &C) -> bool {
        let Some((name, rules)) = self.chains.get_key_value(name) else { return false };
        if let Some(known) = self.lets_in.get(name) {
            return *known;
        }
        // The kernel refuses loops.
        self.lets_in.insert(name, false);
        let found = rules.iter().any(|rule| match &rule.act {
            Act::Accept | Act::Translate | Act::Unclear => true,
            Act::Jump(to) | Act::Goto(to) => self.lets_in(to),
            Act::Continue | Act::Drop | Act::Reject | Act::Return => false,
        });
        self.lets_in.insert(name, found);
        found
    }

    /// Returns which packets may meet the conditions of a rule; `None` when something else than ports and addresses makes it
    /// narrow.
    fn kind(&self, conditions: &[Condition], is_narrow: bool) -> Option<Kind> {
        let mut kind = Kind { ports: Part::All, senders: Part::All, is_narrow };
        for condition in conditions {
            match condition {
                Condition::AnyOf { lists, is_inverted: true } => {
                    if lists.iter().any(|tests| tests.iter().all(|test| self.is_wide(test))) {
                        return None;
                    }
                }
                Condition::AnyOf { lists, is_inverted: false } => {
                    let lists = lists.iter().filter(|tests| !tests.iter().any(|test| self.is_narrow(test)));
                    let (ports, senders): (Vec<Part>, Vec<Part>) = lists.map(|tests| parts(tests)).unzip();
                    if ports.is_empty() {
                        return None;
                    }
                    kind.ports = kind.ports.and(any_of(ports));
                    kind.senders = kind.senders.and(any_of(senders));
                }
                Condition::Mostly | Condition::Unclear => {}
                Condition::Seldom => return None,
            }
        }
        let is_by_neither = kind.ports == Part::All && kind.senders == Part::All;
        (!is_narrow || !is_by_neither).then_some(kind)
    }

    /// Returns whether every packet that asks for a connection passes, of no narrower kind.
    fn is_wide(&self, Test { field, ask }: &Test) -> bool {
        match field {
            Field::Family => ask.holds(self.family_number()),
            Field::Protocol => ask.holds(self.protocol.into()),
            Field::NextHeader => packet::passes_next_header(*ask, self.protocol) == Some(true),
            Field::CtState => self.states().iter().all(|state| ask.holds(*state)),
            Field::TcpFlags => self.protocol == TCP && ask.holds(SYN.into()),
            Field::SenderPort => *ask == Ask::Within(0, u16::MAX.into()),
            Field::ReceiverKind => ask.holds(KIND_LOCAL.into()),
            Field::PacketKind => ask.holds(0),
            _ => false,
        }
    }

    /// Returns whether a narrower kind alone passes, but for one of ports or senders.
    fn is_narrow(&self, test: &Test) -> bool {
        let is_ipv4 = self.packet.family == Family::Ipv4;
        match test.field {
            Field::Ipv4Sender => !is_ipv4,
            Field::Ipv6Sender => is_ipv4,
            // A sender chooses its own port.
            Field::ReceiverPort | Field::SenderPort => false,
            Field::CtState => {
                !test.ask.holds(STATE_UNTRACKED) && !self.states().iter().any(|state| test.ask.holds(*state))
            }
            // A datagram is taken from a frame for all or for a group, too.
            Field::PacketKind => self.protocol != UDP && !test.ask.holds(0),
            Field::Interface => test.ask == Ask::Within(LOOPBACK, LOOPBACK),
            Field::InterfaceName => test.ask == Ask::Within(name_number("lo"), name_number("lo")),
            Field::Ipv4Receiver => !is_ipv4 || is_for_many(test.ask, 4),
            Field::Ipv6Receiver => is_ipv4 || is_for_many(test.ask, 16),
            Field::NextHeader => packet::passes_next_header(test.ask, self.protocol) == Some(false),
            _ => !self.is_wide(test),
        }
    }

    /// Returns the states that a new packet may be in.
    fn states(&self) -> &'static [u128] {
        match self.packet.tracking {
            Tracking::Before => &[STATE_INVALID],
            Tracking::Untold => &[STATE_INVALID, STATE_NEW],
            Tracking::After => &[STATE_NEW],
        }
    }

    fn family_number(&self) -> u128 {
        match self.packet.family {
            Family::Ipv4 => IPV4,
            Family::Ipv6 => IPV6,
        }
    }

    /// Adds what is let in, and returns whether all of it is more than is narrow.
    fn add(&mut self, kind: &Kind) -> bool {
        let (of_ports, of_senders) = (share_of_ports(&kind.ports), self.share_of_senders(&kind.senders));
        match (of_ports, of_senders) {
            (Share::Part(ports), Share::Part(senders)) if is_little(of_ports) && is_little(of_senders) => {
                self.of_both = self.of_both.or(Share::Part((ports * senders) >> ALL_SENDERS));
            }
            _ if is_little(of_ports) => self.ports.add(&kind.ports),
            _ if is_little(of_senders) => {
                let more = self.kept_out.cut(&kind.senders);
                let more = Part::of(more.ranges().collect());
                self.of_senders = self.of_senders.or(self.share_of_senders(&more));
            }
            _ => return true,
        }
        ![share::port_count(self.ports.count), self.of_senders, self.of_both].into_iter().all(is_little)
    }

    fn share_of_senders(&self, senders: &Part) -> Share {
        let Part::Ranges(ranges) = senders else { return Share::All };
        let share = |(first, last): &(u128, u128)| match self.packet.family {
            Family::Ipv4 => {
                let bytes = |address: u128| u32::try_from(address).unwrap_or(u32::MAX).to_be_bytes();
                share::sources(&bytes(*first), &bytes(*last))
            }
            Family::Ipv6 => share::sources(&first.to_be_bytes(), &last.to_be_bytes()),
        };
        ranges.iter().fold(Share::LEAST, |total, range| total.or(share(range)))
    }
}

/// Returns the ports and senders for which all `tests` may hold.
fn parts(tests: &[Test]) -> (Part, Part) {
    let (mut ports, mut senders) = (Part::All, Part::All);
    for test in tests {
        let Ask::Within(first, last) = test.ask else { continue };
        let part = Part::Ranges(vec![(first, last)]);
        match test.field {
            Field::ReceiverPort => ports = ports.and(part),
            Field::Ipv4Sender | Field::Ipv6Sender => senders = senders.and(part),
            _ => {}
        }
    }
    (ports, senders)
}

fn any_of(parts: Vec<Part>) -> Part {
    let mut all = Vec::new();
    for part in parts {
        match part {
            Part::All => return Part::All,
            Part::Ranges(ranges) => all.extend(ranges),
        }
    }
    Part::of(all)
}

fn is_for_many(ask: Ask, bytes: usize) -> bool {
    let Ask::Within(first, last) = ask else { return false };
    let [first, last] = [first.to_be_bytes(), last.to_be_bytes()];
    share::destinations(&first[16 - bytes..], &last[16 - bytes..]).scope() == Scope::Narrow
}

fn is_little(share: Share) -> bool {
    share.scope() == Scope::Narrow
}

fn count(part: &Part) -> usize {
    match part {
        Part::All => 0,
        Part::Ranges(ranges) => ranges.len(),
    }
}

fn share_of_ports(ports: &Part) -> Share {
    let Part::Ranges(ranges) = ports else { return Share::All };
    let port = |number: u128| u16::try_from(number).unwrap_or(u16::MAX);
    let share = |(first, last): &(u128, u128)| share::ports(port(*first), port(*last));
    ranges.iter().fold(Share::LEAST, |total, range| total.or(share(range)))
}

/// A set of ports.
#[derive(Default)]
struct Ports {
    /// A bit for each port, in words that are there once one of theirs is open.
    words: BTreeMap<u16, u64>,
    count: u32,
}

impl Ports {
    fn add(&mut self, ports: &Part) {
        let Part::Ranges(ranges) = ports else { return };
        ranges.iter().for_each(|(first, last)| self.add_range(*first, *last));
    }

    fn add_range(&mut self, first: u128, last: u128) {
        let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(last.min(u16::MAX.into()))) else { return };
        for at in first / 64..=last / 64 {
            let from = if at == first / 64 { u64::MAX << (first % 64) } else { u64::MAX };
            let to = if at == last / 64 { u64::MAX >> (63 - last % 64) } else { u64::MAX };
            let word = self.words.entry(at).or_default();
            self.count += (from & to & !*word).count_ones();
            *word |= from & to;
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::{ChainPolicy, DefaultVerdict};
    use proptest::prelude::*;

    use super::{super::rules, *};

    type Chains = BTreeMap<u8, Vec<Rule<u8>>>;

    /// Ports in parts of which 16 are all, and senders in parts of which 64 are.
    #[derive(Clone, Copy, Debug)]
    struct Block {
        ports: Option<u32>,
        senders: Option<u32>,
    }

    const PORTS: u32 = 16;
    const SENDERS: u32 = 64;

    fn within(field: Field, first: u32, last: u32) -> Condition {
        Condition::test(field, Ask::Within(first.into(), last.into()), false)
    }

    fn rule(block: Block, act: Act<u8>) -> Rule<u8> {
        let (mut conditions, mut share) = (Vec::new(), Share::All);
        if let Some(block) = block.ports {
            let (first, last) = (block << 12, block << 12 | 0xfff);
            share = share.and(share::port_count(0x1000));
            conditions.push(within(Field::ReceiverPort, first, last));
        }
        if let Some(block) = block.senders {
            let (first, last) = (block << 26, block << 26 | 0x3ff_ffff);
            share = share.and(share::sources(&first.to_be_bytes(), &last.to_be_bytes()));
            conditions.push(within(Field::Ipv4Sender, first, last));
        }
        Rule { scope: share.scope(), conditions, act, number: 0 }
    }

    fn by_ports(block: u32) -> Block {
        Block { ports: Some(block), senders: None }
    }

    fn by_senders(block: u32) -> Block {
        Block { ports: None, senders: Some(block) }
    }

    fn numbered(chains: Vec<Vec<Rule<u8>>>) -> Chains {
        let number = |rules: Vec<Rule<u8>>| (1..).zip(rules).map(|(number, rule)| Rule { number, ..rule }).collect();
        (0..).zip(chains.into_iter().map(number)).collect()
    }

    fn told(chains: Vec<Vec<Rule<u8>>>) -> (DefaultVerdict, Option<(u8, u32)>) {
        let found = rules::verdict(&numbered(chains), &0, ChainPolicy::Drop, Family::Ipv4, Tracking::After);
        (found.verdict, found.because)
    }

    const CLOSED: (DefaultVerdict, Option<(u8, u32)>) = (DefaultVerdict::Drop, None);

    fn open_by(chain: u8, number: u32) -> (DefaultVerdict, Option<(u8, u32)>) {
        (DefaultVerdict::Undecidable, Some((chain, number)))
    }

    #[test]
    fn networks_that_are_narrow_each_may_be_wide_together() {
        let accepts = |block| rule(block, Act::Accept);
        let all: Vec<_> = (0..SENDERS).map(|block| accepts(by_senders(block))).collect();
        assert_eq!(told(vec![all.clone()]), open_by(0, 2));
        assert_eq!(told(vec![vec![all[1].clone(), all[1].clone()]]), CLOSED);
        let to_one_port = |rule: &Rule<u8>| {
            let mut rule = rule.clone();
            rule.conditions.push(within(Field::ReceiverPort, 22, 22));
            rule
        };
        assert_eq!(told(vec![all.iter().map(to_one_port).collect()]), CLOSED);
        // By port and by network, everything.
        let both = (0..PORTS).flat_map(|ports| (0..SENDERS).map(move |senders| (ports, senders)));
        let both = both.map(|(ports, senders)| accepts(Block { ports: Some(ports), senders: Some(senders) }));
        assert_eq!(told(vec![both.collect()]).0, DefaultVerdict::Undecidable);
        // The networks of one's own.
        let own = [(0x0a00_0000_u32, 0x0aff_ffff), (0xac10_0000, 0xac1f_ffff), (0xc0a8_0000, 0xc0a8_ffff)];
        let own = own.map(|(first, last)| Rule {
            scope: Scope::Narrow,
            conditions: vec![within(Field::Ipv4Sender, first, last)],
            act: Act::Accept,
            number: 0,
        });
        assert_eq!(told(vec![own.to_vec()]), CLOSED);
        // Of the other family, they let nothing in.
        let of_ipv6 = rules::verdict(&numbered(vec![all]), &0, ChainPolicy::Drop, Family::Ipv6, Tracking::After);
        assert_eq!(of_ipv6.verdict, DefaultVerdict::Drop);
    }

    #[test]
    fn what_a_chain_lets_in_counts_with_the_rules_that_lead_to_it() {
        let lead = |act: fn(u8) -> Act<u8>| (0..PORTS).map(|block| rule(by_ports(block), act(1))).collect::<Vec<_>>();
        let every = Block { ports: None, senders: None };
        let accepts = vec![rule(every, Act::Accept)];
        assert_eq!(told(vec![lead(Act::Jump), accepts.clone()]), open_by(1, 1));
        assert_eq!(told(vec![lead(Act::Goto), accepts.clone()]), open_by(1, 1));
        assert_eq!(told(vec![lead(Act::Jump), vec![rule(every, Act::Unclear)]]), open_by(1, 1));
        assert_eq!(told(vec![lead(Act::Jump), vec![rule(every, Act::Drop), accepts[0].clone()]]), CLOSED);
        assert_eq!(told(vec![lead(Act::Jump), vec![rule(every, Act::Return)]]), CLOSED);
        assert_eq!(told(vec![lead(Act::Jump)[..1].to_vec(), accepts.clone()]), CLOSED);
        // The same port for each, and one network for each.
        let port = vec![rule(by_ports(3), Act::Accept)];
        assert_eq!(told(vec![lead(Act::Jump), port]), CLOSED);
        assert_eq!(told(vec![lead(Act::Jump), vec![rule(by_senders(3), Act::Accept)]]), CLOSED);
        // By way of one more chain, and after what is dropped for every packet.
        let ways = vec![lead(Act::Jump), vec![rule(every, Act::Jump(2))], accepts.clone()];
        assert_eq!(told(ways), open_by(2, 1));
        let dropped = [vec![rule(every, Act::Drop)], lead(Act::Jump)].concat();
        assert_eq!(told(vec![dropped, accepts]), CLOSED);
    }

    #[test]
    fn conditions_that_leave_most_packets_do_not_make_a_rule_narrow() {
        let with = |condition: Condition| {
            let with = |block| {
                let mut rule = rule(by_ports(block), Act::Accept);
                rule.conditions.push(condition.clone());
                rule
            };
            told(vec![(0..PORTS).map(with).collect()]).0
        };
        let number = |protocol: u8| within(Field::Protocol, protocol.into(), protocol.into());
        let name = |name: &str| {
            let name = name_number(name);
            Condition::test(Field::InterfaceName, Ask::Within(name, name), false)
        };
        let sender_port = within(Field::SenderPort, 53, 53);
        for wide in [number(TCP), number(UDP), name("eth0"), sender_port, Condition::Mostly, Condition::Unclear] {
            assert_eq!(with(wide.clone()), DefaultVerdict::Undecidable, "{wide:?}");
        }
        let known = within(Field::CtState, 2, 2);
        let group = within(Field::Ipv4Receiver, 0xe000_0001, 0xe000_0001);
        for narrow in [number(1), name("lo"), known, group, Condition::Seldom, Condition::NEVER] {
            assert_eq!(with(narrow.clone()), DefaultVerdict::Drop, "{narrow:?}");
        }
    }

    const CHAINS: u8 = 3;

    /// Some rules that do the same, each for its own block.
    fn series(chain: u8) -> impl Strategy<Value = Vec<(Block, Act<u8>)>> {
        let act = prop_oneof![
            4 => Just(Act::Accept),
            1 => Just(Act::Drop),
            1 => Just(Act::Return),
            3 => (chain + 1..=CHAINS).prop_map(Act::Jump),
            2 => (chain + 1..=CHAINS).prop_map(Act::Goto),
        ];
        let blocks = prop_oneof![
            2 => (0..PORTS, 1..=PORTS).prop_map(|(first, count)| {
                (first..first + count).map(|block| by_ports(block % PORTS)).collect::<Vec<_>>()
            }),
            2 => (0..SENDERS, 1..=SENDERS).prop_map(|(first, count)| {
                (first..first + count).map(|block| by_senders(block % SENDERS)).collect::<Vec<_>>()
            }),
            1 => (0..PORTS, 0..SENDERS, 1..=PORTS * SENDERS).prop_map(|(ports, senders, count)| {
                let block = |at: u32| Block {
                    ports: Some((ports + at) % PORTS),
                    senders: Some((senders + at / PORTS) % SENDERS),
                };
                (0..count).map(block).collect::<Vec<_>>()
            }),
            1 => Just(vec![Block { ports: None, senders: None }]),
        ];
        (blocks, act).prop_map(|(blocks, act)| blocks.into_iter().map(|block| (block, act.clone())).collect())
    }

    fn rule_set() -> impl Strategy<Value = Vec<Vec<(Block, Act<u8>)>>> {
        let chain = |chain| prop::collection::vec(series(chain), 0..4).prop_map(|series| series.concat());
        (0..CHAINS).map(chain).collect::<Vec<_>>()
    }

    /// Returns whether a packet is let in, as the kernel's loop decides it; `None` when it leaves the chain.
    fn interpret(chains: &[Vec<(Block, Act<u8>)>], chain: u8, ports: u32, senders: u32) -> Option<bool> {
        let is_met = |block: &Block| {
            block.ports.is_none_or(|block| block == ports) && block.senders.is_none_or(|block| block == senders)
        };
        for (_, act) in chains.get(usize::from(chain))?.iter().filter(|(block, _)| is_met(block)) {
            match act {
                Act::Accept => return Some(true),
                Act::Drop => return Some(false),
                Act::Goto(to) => return interpret(chains, *to, ports, senders),
                Act::Jump(to) => {
                    if let Some(is_let_in) = interpret(chains, *to, ports, senders) {
                        return Some(is_let_in);
                    }
                }
                _ => return None,
            }
        }
        None
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 5_000 }))]

        #[test]
        fn what_lets_half_of_all_packets_in_is_not_told_to_be_closed(mut chains in rule_set()) {
            chains.push(Vec::new());
            let all = (0..PORTS).flat_map(|ports| (0..SENDERS).map(move |senders| (ports, senders)));
            let is_let_in = |(ports, senders): &(u32, u32)| interpret(&chains, 0, *ports, *senders) == Some(true);
            let open = u32::try_from(all.filter(is_let_in).count()).unwrap();
            let rules = chains.iter().map(|chain| chain.iter().map(|(block, act)| rule(*block, act.clone())).collect());
            let (verdict, because) = told(rules.collect());
            let is_told_closed = matches!(verdict, DefaultVerdict::Drop | DefaultVerdict::Reject);
            prop_assert!(!is_told_closed || open < PORTS * SENDERS / 2, "{open} are open");
            prop_assert_eq!(because.is_some(), verdict == DefaultVerdict::Undecidable);
            prop_assert!(verdict != DefaultVerdict::Undecidable || open > 0 || has_drops(&chains));
        }
    }

    fn has_drops(chains: &[Vec<(Block, Act<u8>)>]) -> bool {
        chains.iter().flatten().any(|(_, act)| matches!(act, Act::Drop | Act::Return | Act::Goto(_)))
    }
}
