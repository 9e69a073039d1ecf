//! Random rule sets, as the kernel would give them, and what single packets meet in them, walked one by one.

mod by_hand;
mod legacy_form;
mod nf_tables_form;

use muster_proto::fact::{ChainPolicy, Reach, Reading, Transport};

use super::{
    packet::{Interface, KIND_LOCAL, Receiver},
    reach::{Place, Reaches},
    rule_set::{Hook, RuleSet},
    surroundings::{Surroundings, name_number},
};
use crate::host::Family;

const INTERFACES: [&str; 3] = ["eth0", "wg0", "wg10"];
/// Senders that rules tell apart: those of a network, and two that are given to no host. Then another of each of their networks,
/// and one of none.
const SENDERS: [u32; 14] = [
    0x0a00_0000,
    0x0a00_0001,
    0x0a00_0002,
    0x0a00_0003,
    0x0a00_0004,
    0x0a00_0005,
    0x0a00_0006,
    0x0a00_0007,
    0x0001_0203,
    0xf000_0007,
    0x0a01_0101,
    0x0009_0909,
    0xf009_0909,
    0x0909_0909,
];
const SENDER_PORTS: [u16; 5] = [53, 54, 999, 1000, 40_000];
/// The same, and others.
const TRIED_PORTS: [u16; 7] = [1, 53, 54, 999, 1000, 40_000, 40_001];
/// Masks and values of flags of TCP that rules ask for: SYN alone, of four flags or of all, and with others.
const FLAGS: [(u8, u8); 5] = [(0x17, 2), (0xff, 2), (0x3f, 2), (0xc0, 0xc0), (3, 3)];
/// Flags that come with SYN.
const TRIED_FLAGS: [u8; 5] = [2, 2 | 8, 2 | 64, 2 | 64 | 128, 2 | 32 | 64 | 128];
const PORTS: [u16; 5] = [22, 23, 80, 443, 8080];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A generator that the same seed makes give the same numbers (splitmix64).
pub(super) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn maybe<T>(&mut self, in_how_many: usize, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.one_in(in_how_many).then(|| make(self))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Not<T> {
    is_inverted: bool,
    is: T,
}

#[derive(Clone, Debug)]
pub(super) enum Acts {
    Accept,
    Drop,
    Reject,
    Return,
    Jump(usize),
    Goto(usize),
    Count,
    /// By the receiver's port; nf_tables alone.
    ByPort(Vec<(u16, Acts)>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    protocol: Option<Not<u8>>,
    /// First and last.
    ports: Option<Not<(u16, u16)>>,
    sender_ports: Option<Not<(u16, u16)>>,
    /// Network, and how many bits are of the host.
    sender: Option<Not<(u32, u32)>>,
    /// Name, or its beginning.
    interface: Option<Not<(&'static str, bool)>>,
    /// Mask and value; only where the protocol is TCP.
    flags: Option<Not<(u8, u8)>>,
    /// Bits of `NF_CT_STATE_BIT`: those of new and of established connections.
    states: Option<Not<u32>>,
}

/// A rule; the chain 0 is that of the hook.
#[derive(Clone, Debug)]
pub(super) struct OneRule {
    conditions: Conditions,
    acts: Acts,
}

#[derive(Clone, Debug)]
pub(super) struct Rules {
    policy: ChainPolicy,
    chains: Vec<Vec<OneRule>>,
}

const CHAINS: usize = 4;

impl Rules {
    fn random(random: &mut Random, has_maps: bool) -> Self {
        let policy = random.of(&[ChainPolicy::Accept, ChainPolicy::Drop]);
        let chains = (0..CHAINS).map(|chain| {
            let count = random.below(5) + usize::from(chain == 0);
            (0..count).map(|_| OneRule::random(random, chain, has_maps)).collect()
        });
        Self { policy, chains: chains.collect() }
    }
}

impl OneRule {
    fn random(random: &mut Random, chain: usize, has_maps: bool) -> Self {
        let range = |random: &mut Random, all: &[u16]| {
            let (a, b) = (random.of(all), random.of(all));
            if random.one_in(2) { (a, a) } else { (a.min(b), a.max(b)) }
        };
        let mut not = |is_inverted: usize| random.one_in(is_inverted);
        let flips: Vec<bool> = (0..7).map(|_| not(4)).collect();
        let protocol = random.maybe(3, |random| Not { is_inverted: flips[0], is: random.of(&[TCP, UDP]) });
        let is_tcp = matches!(protocol, Some(Not { is_inverted: false, is: TCP }));
        let conditions = Conditions {
            flags: random.maybe(2, |random| Not { is_inverted: flips[6], is: random.of(&FLAGS) }).filter(|_| is_tcp),
            protocol,
            ports: random.maybe(2, |random| Not { is_inverted: flips[1], is: range(random, &PORTS) }),
            sender_ports: random.maybe(6, |random| Not { is_inverted: flips[2], is: range(random, &SENDER_PORTS) }),
            sender: random.maybe(2, |random| {
                let sender = random.of(&SENDERS[..10]);
                let bits = if sender >> 24 == 10 { random.of(&[0, 0, 1, 2, 3, 24]) } else { random.of(&[0, 24]) };
                Not { is_inverted: flips[3], is: (sender >> bits << bits, bits) }
            }),
            interface: random.maybe(4, |random| {
                let is = random.of(&[("eth0", false), ("wg0", false), ("wg", true), ("wg1", true), ("ppp0", false)]);
                Not { is_inverted: flips[4], is }
            }),
            states: random.maybe(4, |random| Not { is_inverted: flips[5], is: random.of(&[2, 8, 10]) }),
        };
        let acts = if has_maps && random.one_in(5) {
            let ports: std::collections::BTreeSet<u16> = (0..3).map(|_| random.of(&PORTS)).collect();
            Acts::ByPort(ports.into_iter().map(|port| (port, Acts::random(random, chain))).collect())
        } else {
            Acts::random(random, chain)
        };
        Self { conditions, acts }
    }
}

impl Acts {
    fn random(random: &mut Random, chain: usize) -> Self {
        // Only to later chains, as the kernel refuses loops.
        let later = (chain + 1 < CHAINS).then(|| chain + 1 + random.below(CHAINS - chain - 1));
        match (random.below(9), later) {
            (0..=2, _) => Self::Accept,
            (3 | 4, _) => Self::Drop,
            (5, _) => Self::Reject,
            (6, _) => Self::Return,
            (7, Some(to)) => Self::Jump(to),
            (8, Some(to)) => Self::Goto(to),
            (_, _) => Self::Count,
        }
    }
}

/// One packet.
#[derive(Clone, Copy, Debug)]
struct One {
    protocol: u8,
    sender: u32,
    sender_port: u16,
    port: u16,
    flags: u8,
    interface: &'static str,
}

impl Conditions {
    fn are_met(&self, one: One) -> bool {
        fn holds<T>(condition: &Option<Not<T>>, is: impl Fn(&T) -> bool) -> bool {
            condition.as_ref().is_none_or(|not| is(&not.is) != not.is_inverted)
        }
        holds(&self.protocol, |protocol| *protocol == one.protocol)
            && holds(&self.ports, |(first, last)| (*first..=*last).contains(&one.port))
            && holds(&self.sender_ports, |(first, last)| (*first..=*last).contains(&one.sender_port))
            && holds(&self.sender, |(network, bits)| one.sender >> bits == network >> bits)
            && holds(&self.interface, |(name, is_beginning)| {
                if *is_beginning { one.interface.starts_with(name) } else { one.interface == *name }
            })
            && holds(&self.flags, |(mask, flags)| one.flags & mask == *flags)
            && holds(&self.states, |states| states & 8 != 0)
    }
}

impl Rules {
    /// Returns whether the kernel's loop lets one packet in: a place in a chain, and places to come back to.
    fn let_in(&self, one: One) -> bool {
        let (mut chain, mut at, mut back) = (0, 0, Vec::new());
        loop {
            let Some(rule) = self.chains[chain].get(at) else {
                match back.pop() {
                    Some(place) => (chain, at) = place,
                    None => return self.policy == ChainPolicy::Accept,
                }
                continue;
            };
            at += 1;
            if !rule.conditions.are_met(one) {
                continue;
            }
            let acts = match &rule.acts {
                Acts::ByPort(map) => match map.iter().find(|(port, _)| *port == one.port) {
                    Some((_, acts)) => acts,
                    None => continue,
                },
                acts => acts,
            };
            match acts {
                Acts::Accept => return true,
                Acts::Drop | Acts::Reject => return false,
                Acts::Count | Acts::ByPort(_) => {}
                Acts::Return => at = usize::MAX,
                Acts::Jump(to) => {
                    back.push((chain, at));
                    (chain, at) = (*to, 0);
                }
                Acts::Goto(to) => (chain, at) = (*to, 0),
            }
        }
    }
}

/// Returns from whom a socket is reached by trying every packet.
fn reach_of_each(sets: &[&Rules], protocol: u8, port: u16) -> Reach {
    let reached: Vec<(bool, bool)> = INTERFACES
        .iter()
        .flat_map(|interface| SENDERS.iter().map(move |sender| (*interface, *sender)))
        .map(|(interface, sender)| {
            let tried = TRIED_PORTS.iter().flat_map(|port| TRIED_FLAGS.iter().map(move |flags| (*port, *flags)));
            let is_let_in = tried.into_iter().any(|(sender_port, flags)| {
                let one = One { protocol, sender, sender_port, port, flags, interface };
                sets.iter().all(|rules| rules.let_in(one))
            });
            (is_let_in, matches!(sender >> 24, 1..=223))
        })
        .collect();
    match (reached.iter().any(|(is_let_in, _)| *is_let_in), reached.contains(&(false, true))) {
        (false, _) => Reach::None,
        (true, false) => Reach::Any,
        (true, true) => Reach::Some,
    }
}

fn surroundings() -> Surroundings {
    let index = |at: usize| u32::try_from(at + 2).ok();
    let interfaces = INTERFACES.iter().enumerate();
    Surroundings {
        interfaces: Some(
            interfaces.map(|(at, name)| Interface { name: name_number(name), index: index(at) }).collect(),
        ),
        ipv4: Some(vec![Receiver { address: 0x0a63_0001, kind: KIND_LOCAL }]),
        ipv6: Some(Vec::new()),
        loopback_ways: Ok(std::collections::BTreeSet::new()),
        has_networks: false,
        ipv6_is_off: false,
    }
}

/// In which form the kernel gives a rule set.
#[derive(Clone, Copy, Debug)]
enum Form {
    NfTables,
    /// Beside another one before routing.
    NfTablesTwice,
    Legacy,
    Both,
}

fn read(rules: &Rules, is_legacy: bool, hook: Hook, random: &mut Random) -> RuleSet {
    if is_legacy { legacy_form::read(rules) } else { nf_tables_form::read(rules, hook, random) }
}

/// Cases, and a seed: more with `MUSTER_FIREWALL_CASES`, others with `MUSTER_FIREWALL_SEED`.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn what_is_told_of_a_socket_is_what_single_packets_meet() {
    let cases = setting("MUSTER_FIREWALL_CASES", if cfg!(debug_assertions) { 2_000 } else { 100_000 });
    let seed = setting("MUSTER_FIREWALL_SEED", 1);
    let mut seen = [0_u64; 3];
    for case in 0..cases {
        let mut random = Random(seed.wrapping_add(case.wrapping_mul(0x1000_0001)));
        let form = random.of(&[Form::NfTables, Form::NfTablesTwice, Form::Legacy, Form::Both]);
        let parts: &[(bool, Hook)] = match form {
            Form::NfTables => &[(false, Hook::Input)],
            Form::NfTablesTwice => &[(false, Hook::Prerouting), (false, Hook::Input)],
            Form::Legacy => &[(true, Hook::Input)],
            Form::Both => &[(true, Hook::Input), (false, Hook::Input)],
        };
        let rules: Vec<Rules> = parts.iter().map(|(is_legacy, _)| Rules::random(&mut random, !is_legacy)).collect();
        let sets =
            rules.iter().zip(parts).map(|(rules, (is_legacy, hook))| read(rules, *is_legacy, *hook, &mut random));
        let sets = sets.collect();
        let mut reaches = Reaches::new(sets, [None, None], surroundings());
        for (protocol, number) in [(Transport::Tcp, TCP), (Transport::Udp, UDP)] {
            let port = random.of(&PORTS);
            let expected = reach_of_each(&rules.iter().collect::<Vec<_>>(), number, port);
            let found = reaches.of(Place { family: Family::Ipv4, protocol, address: None, port });
            assert_eq!(
                found,
                Reading::Known(expected),
                "seed {seed}, case {case}: {number}/{port} {form:?} {rules:#?}"
            );
            seen[expected as usize] += 1;
        }
    }
    let few = cases / 10;
    assert!(seen.iter().all(|count| *count >= few), "{seen:?}");
}
