//! From whom outside a socket is reached under the packet filters.
//!
//! What is asked is whether a sender has a first packet that is let in: by some port of its own, with some flags of TCP, to some
//! address of the host.
//! So each choice that rules tell apart is tried, and a walk follows all senders at once.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::fact::{Cause, Reach, Reading, Transport, Unknown};

use super::{
    packet::{
        Ask, Condition, FLAGS_BESIDE_SYN, Field, IPV4, IPV6, Interface, PACKET_KINDS, Packet, Receiver, SYN, TCP, Test,
        Tracking, UDP, passes_next_header,
    },
    rule_set::{Base, Hook, Name, RuleSet, Translated, Translation},
    rules::{Act, Rule},
    senders::Senders,
    surroundings::{Surroundings, kind_of},
    walk::{Flow, walk},
};
use crate::host::Family;

/// Rules that are tried for all sockets of a host, at most.
const STEPS: u64 = 50_000_000;
/// Kinds of packets that are tried for one socket, at most.
const KINDS: usize = 2048;
/// A port that senders use and rules do not name.
const SENDER_PORT: u16 = 49_517;

/// Where a socket waits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    pub family: Family,
    pub protocol: Transport,
    /// `None` for every address of the host.
    pub address: Option<u128>,
    pub port: u16,
}

impl Place {
    fn family_number(self) -> u128 {
        match self.family {
            Family::Ipv4 => IPV4,
            Family::Ipv6 => IPV6,
        }
    }

    fn protocol_number(self) -> u8 {
        match self.protocol {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
        }
    }
}

/// What a sender chooses.
#[derive(Clone, Copy, Debug)]
struct Choice {
    sender_port: u16,
    tcp_flags: u8,
    packet_kind: u8,
}

/// What becomes of a packet on its whole way to a socket.
struct Followed {
    /// From whom it is let in.
    flow: Flow,
    /// The place of the first rule that leaves it open.
    because: Option<String>,
    /// That of the first rule that does so by how often packets come.
    by_rate: Option<String>,
    /// That of the first rule that may make it one for another receiver.
    translated: Option<String>,
}

/// The packet filters of a host, with what was told of places before.
#[derive(Debug)]
pub(super) struct Reaches {
    sets: Vec<RuleSet>,
    /// Why some rules are not known, by family.
    unread: [Option<Unknown>; 2],
    surroundings: Surroundings,
    /// The chains of each set that packets to the host may come to.
    met: Vec<BTreeSet<Name>>,
    /// How many rules they hold.
    rules_met: u64,
    /// Interfaces whose packets alone some chain sees.
    devices: BTreeSet<String>,
    steps: u64,
    known: BTreeMap<Place, Reading<Reach>>,
}

impl Reaches {
    pub fn new(sets: Vec<RuleSet>, unread: [Option<Unknown>; 2], surroundings: Surroundings) -> Self {
        let met: Vec<BTreeSet<Name>> = sets.iter().map(RuleSet::met).collect();
        let chains = sets.iter().zip(&met).flat_map(|(set, met)| met.iter().filter_map(|name| set.chains.get(name)));
        let rules_met = chains.map(|rules| rules.len() as u64).sum();
        let devices = sets.iter().flat_map(|set| &set.bases).flat_map(|base| base.devices.iter().cloned()).collect();
        Self { sets, unread, surroundings, met, rules_met, devices, steps: STEPS, known: BTreeMap::new() }
    }

    /// Returns from whom outside the socket at `place`, on the loopback, is reached.
    pub fn of_loopback(&mut self, place: Place) -> Reading<Reach> {
        if let Some(unknown) = self.diverted() {
            return Reading::Unknown { unknown };
        }
        if let Some(rewriting) = self.sets.iter().find_map(|set| set.rewriting(place.family)) {
            let (_, table, chain) = &rewriting.chain;
            return Reading::unknown(Cause::Undecidable, place_of(table, chain, rewriting.number));
        }
        // What comes to ::1 from outside is dropped (RFC 4291, section 2.5.3).
        if place.family == Family::Ipv6 {
            return Reading::Known(Reach::None);
        }
        match &self.surroundings.loopback_ways {
            Ok(ways) if ways.is_empty() => Reading::Known(Reach::None),
            Ok(_) if self.may_be_translated(place) => Reading::unknown(
                Cause::Undecidable,
                "rules translate addresses, and route_localnet lets packets to the loopback in",
            ),
            Ok(_) => self.of(place),
            Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
        }
    }

    /// Returns why packets for other places may come to any socket, if they may.
    fn diverted(&self) -> Option<Unknown> {
        let is_diverted = self.sets.iter().any(|set| set.diverts);
        is_diverted
            .then(|| Unknown::new(Cause::Undecidable, "a rule hands packets to sockets that they are not for (tproxy)"))
    }

    /// Returns from whom the socket at `place` is reached.
    pub fn of(&mut self, place: Place) -> Reading<Reach> {
        if let Some(known) = self.known.get(&place) {
            return known.clone();
        }
        let reading = self.judge(place);
        self.known.insert(place, reading.clone());
        reading
    }

    fn judge(&mut self, place: Place) -> Reading<Reach> {
        if place.family == Family::Ipv6 && self.surroundings.ipv6_is_off {
            return Reading::Known(Reach::None);
        }
        // To look which rules a packet may meet is a step for each, too.
        let too_many = || Reading::unknown(Cause::Limit, "more rules than are tried for sockets");
        let Some(steps) = self.steps.checked_sub(self.rules_met) else { return too_many() };
        self.steps = steps;
        let tests = self.tests(place);
        let receivers = self.receivers(place, &tests);
        let interfaces = self.interfaces(&tests);
        let choices = choices(place.protocol, &tests);
        if receivers.len() * interfaces.len() * choices.len() > KINDS {
            return Reading::unknown(Cause::Limit, "rules tell more kinds of packets apart than are tried");
        }
        let (outside, ordinary) = (Senders::outside(place.family), Senders::ordinary(place.family));
        let (mut is_any, mut is_none, mut is_some, mut is_not_all) = (true, true, false, false);
        let (mut because, mut by_rate, mut translated) = (None, None, None);
        for interface in interfaces {
            let mut let_in = Flow::default();
            let has_way = |receiver: &&Option<Receiver>| {
                let is_loopback = receiver.is_some_and(|one| is_loopback(place.family, one.address));
                !is_loopback || self.surroundings.routes_to_loopback(interface)
            };
            let receivers: Vec<Option<Receiver>> = receivers.iter().filter(has_way).copied().collect();
            for receiver in receivers {
                for choice in &choices {
                    let packet = self.packet(place, interface, receiver, *choice);
                    let Some(followed) = self.follow(&packet, &outside) else {
                        return too_many();
                    };
                    let_in.add(followed.flow);
                    because = because.or(followed.because);
                    by_rate = by_rate.or(followed.by_rate);
                    translated = translated.or(followed.translated);
                }
            }
            is_any &= let_in.certain.covers(&ordinary);
            is_none &= let_in.perhaps.is_empty();
            is_some |= !let_in.certain.is_empty();
            is_not_all |= !let_in.perhaps.covers(&ordinary);
        }
        let unread = match place.family {
            Family::Ipv4 => &self.unread[0],
            Family::Ipv6 => &self.unread[1],
        };
        match unread {
            _ if is_none && self.diverted().is_none() && translated.is_none() => Reading::Known(Reach::None),
            Some(unknown) if !is_none => Reading::Unknown { unknown: unknown.clone() },
            None if is_any => Reading::Known(Reach::Any),
            // Whoever asks at this place is answered by another one, which the rules for this place say nothing of.
            _ if let Some(rule) = translated => Reading::unknown(Cause::Undecidable, rule),
            _ if is_none => match self.diverted() {
                Some(unknown) => Reading::Unknown { unknown },
                None => Reading::Known(Reach::None),
            },
            Some(unknown) => Reading::Unknown { unknown: unknown.clone() },
            None if is_some && is_not_all => Reading::Known(Reach::Some),
            None => {
                let detail = because.or(by_rate).unwrap_or_else(|| "rules do not tell".to_owned());
                Reading::unknown(Cause::Undecidable, detail)
            }
        }
    }

    /// Returns the tests, but those of a sender's address, of the rules that packets for `place` may meet.
    fn tests(&self, place: Place) -> BTreeSet<Test> {
        let (family, protocol) = (place.family_number(), place.protocol_number());
        let passes = |Test { field, ask }: &Test| match field {
            Field::Family => Some(ask.holds(family)),
            Field::Protocol => Some(ask.holds(protocol.into())),
            Field::NextHeader => passes_next_header(*ask, protocol),
            Field::ReceiverPort => Some(ask.holds(place.port.into())),
            Field::TcpFlags if protocol != TCP => Some(false),
            Field::Ipv4Receiver | Field::Ipv4Sender if family != IPV4 => Some(false),
            Field::Ipv6Receiver | Field::Ipv6Sender if family != IPV6 => Some(false),
            _ => None,
        };
        let is_of_family =
            |(number, _, _): &Name| !matches!(u128::from(*number), IPV4 | IPV6) || u128::from(*number) == family;
        let chains = self.sets.iter().zip(&self.met).flat_map(|(set, met)| {
            met.iter().filter(|name| is_of_family(name)).filter_map(|name| set.chains.get(name))
        });
        let may_meet = |rule: &&Rule<Name>| {
            rule.act != Act::Continue
                && rule.conditions.iter().all(|condition| condition.is_met_by(passes) != Some(false))
        };
        let lists = chains.flatten().filter(may_meet).flat_map(|rule| &rule.conditions).flat_map(Condition::lists);
        let told = lists.filter(|tests| !tests.iter().any(|test| passes(test) == Some(false))).flatten();
        told.filter(|test| !matches!(test.field, Field::Ipv4Sender | Field::Ipv6Sender)).copied().collect()
    }

    /// Returns the interfaces that rules tell apart by which packets come; one that is not told where none are.
    fn interfaces(&self, tests: &BTreeSet<Test>) -> Vec<Option<Interface>> {
        let Some(interfaces) = &self.surroundings.interfaces else { return vec![None] };
        let by_interface = of(tests, &[Field::Interface, Field::InterfaceName]);
        let signature = |interface: &Interface| {
            let by_rule: Vec<_> = by_interface.iter().map(|test| interface_passes(test, interface)).collect();
            let by_chain: Vec<_> = self.devices.iter().map(|device| is_named(interface, device)).collect();
            (by_rule, by_chain, self.surroundings.routes_to_loopback(Some(*interface)))
        };
        distinct(interfaces.iter().copied(), signature).into_iter().map(Some).collect()
    }

    /// Returns the addresses that rules tell apart to which packets for `place` come.
    fn receivers(&self, place: Place, tests: &BTreeSet<Test>) -> Vec<Option<Receiver>> {
        let own = self.surroundings.receivers(place.family);
        if let Some(address) = place.address {
            return vec![kind_of(own, place.family, address).map(|kind| Receiver { address, kind })];
        }
        let Some(own) = own else { return vec![None] };
        // A connection is made with one host; datagrams are sent to many, too.
        let is_met =
            |receiver: &&Receiver| place.protocol == Transport::Udp || receiver.kind == super::packet::KIND_LOCAL;
        let has_way = |receiver: &&Receiver| {
            !is_loopback(place.family, receiver.address) || self.surroundings.lets_loopback_in(place.family)
        };
        let own: Vec<_> = own.iter().filter(is_met).filter(has_way).copied().collect();
        let receiver_tests = of(tests, &[Field::Ipv4Receiver, Field::Ipv6Receiver, Field::ReceiverKind]);
        let signature = |receiver: &Receiver| {
            let holds = |test: &Test| match test.field {
                Field::ReceiverKind => test.ask.holds(receiver.kind.into()),
                _ => test.ask.holds(receiver.address),
            };
            let is_loopback = is_loopback(place.family, receiver.address);
            (receiver.kind, is_loopback, receiver_tests.iter().map(holds).collect::<Vec<_>>())
        };
        let mut found: Vec<_> = distinct(own.into_iter(), signature).into_iter().map(Some).collect();
        // A host without an address may have one in a moment; another one has whole networks of them.
        if found.is_empty() || place.family == Family::Ipv4 && self.surroundings.has_networks {
            found.push(None);
        }
        found
    }

    /// Returns whether some rule may make packets go to a port of the host's own for which they were not.
    fn may_be_translated(&self, place: Place) -> bool {
        let Place { family, port, .. } = place;
        let is_own = |first: u128, last: u128| match self.surroundings.receivers(family) {
            _ if family == Family::Ipv4
                && (self.surroundings.has_networks || first >> 24 <= 127 && last >> 24 >= 127) =>
            {
                true
            }
            Some(own) => own.iter().any(|receiver| first <= receiver.address && receiver.address <= last),
            None => true,
        };
        let comes_here = |to: &Translated| {
            to.family == family && (to.ports.0 <= port && port <= to.ports.1) && is_own(to.addresses.0, to.addresses.1)
        };
        // A packet stays one of its family and protocol.
        let passes = |Test { field, ask }: &Test| match field {
            Field::Family => Some(ask.holds(place.family_number())),
            Field::Protocol => Some(ask.holds(place.protocol_number().into())),
            Field::NextHeader => passes_next_header(*ask, place.protocol_number()),
            _ => None,
        };
        let is_of_place = |translation: &&Translation| {
            translation.conditions.iter().all(|condition| condition.is_met_by(passes) != Some(false))
        };
        let translations = self.sets.iter().flat_map(|set| &set.translations).filter(is_of_place);
        translations.into_iter().any(|translation| translation.to.as_ref().is_none_or(comes_here))
    }

    fn packet(
        &self,
        place: Place,
        interface: Option<Interface>,
        receiver: Option<Receiver>,
        Choice { sender_port, tcp_flags, packet_kind }: Choice,
    ) -> Packet {
        let is_unread = self.unread.iter().any(Option::is_some);
        let mut packet = Packet {
            family: place.family,
            protocol: place.protocol_number(),
            sender_port,
            receiver_port: place.port,
            tcp_flags,
            packet_kind,
            receiver,
            interface,
            tracking: Tracking::Before,
            may_be_untracked: is_unread,
            may_be_translated: is_unread || self.may_be_translated(place),
            may_be_resent: false,
        };
        let mut untracking = self.sets.iter().flat_map(|set| &set.untracking);
        packet.may_be_untracked |= untracking.any(|conditions| !packet.meets(conditions).perhaps.is_none());
        packet
    }

    /// Returns what becomes of `packet` from all senders `outside`.
    fn follow(&mut self, packet: &Packet, outside: &Senders) -> Option<Followed> {
        let mut bases: Vec<(&RuleSet, &Base)> =
            self.sets.iter().flat_map(|set| set.bases.iter().map(move |base| (set, base))).collect();
        bases.retain(|(_, base)| base.sees(packet.family));
        bases.sort_by_key(|(_, base)| (base.hook, base.priority));
        let is_unread = match packet.family {
            Family::Ipv4 => self.unread[0].is_some(),
            Family::Ipv6 => self.unread[1].is_some(),
        };
        let resent_from = self.sets.iter().filter_map(|set| set.resending(packet.family)).map(|(from, _)| from).min();
        let resent_from = if is_unread { Some(i32::MIN) } else { resent_from };
        let mut flow = Flow::of(outside.clone());
        let (mut because, mut by_rate, mut translated) = (None, None, None);
        let rewriting = bases.iter().rposition(|(_, base)| base.rewritten_by.is_some());
        let rewriting = rewriting.and_then(|at| Some((at, bases.get(at)?.1.rewritten_by.as_ref()?)));
        for (at, (set, base)) in bases.into_iter().enumerate() {
            let sees = match (base.hook, &packet.interface) {
                (Hook::Ingress, Some(interface)) => Some(base.devices.iter().any(|device| is_named(interface, device))),
                (Hook::Ingress, None) => None,
                (Hook::Prerouting | Hook::Input, _) => Some(true),
            };
            if sees == Some(false) {
                continue;
            }
            let may_be_resent = resent_from.is_some_and(|from| base.may_see_resent(from));
            let packet = Packet { tracking: base.tracking(), may_be_resent, ..*packet };
            let before = flow.perhaps.clone();
            let walked = walk(&set.chains, &base.name, base.policy, &packet, flow, &mut self.steps)?;
            flow = walked.accepted;
            let place = |((_, table, chain), rule): (Name, u32)| place_of(&table, &chain, rule);
            because = because.or_else(|| walked.because.map(place));
            by_rate = by_rate.or_else(|| walked.by_rate.map(place));
            translated = translated.or_else(|| walked.translated.map(place));
            // Any packet may be made this one in the chains up to that of the last rule that writes into headers.
            if let Some((_, rule)) = rewriting.filter(|(last, _)| at <= *last)
                && flow.perhaps != before
            {
                because = because.or_else(|| Some(place_of(&rule.chain.1, &rule.chain.2, rule.number)));
                flow.perhaps = before;
                continue;
            }
            // Another packet, which this chain lets in, may be made to one for this socket after it.
            let is_evaded = base.hook != Hook::Input && packet.may_be_translated;
            if (is_evaded || sees.is_none()) && flow.perhaps != before {
                because = because.or_else(|| Some(format!("chain {} of table {}", base.name.2, base.name.1)));
                flow.perhaps = before;
            }
        }
        Some(Followed { flow, because, by_rate, translated })
    }
}

/// Returns the words for a rule; that with number 0 is its whole chain.
pub(super) fn place_of(table: &str, chain: &str, rule: u32) -> String {
    match rule {
        0 => format!("chain {chain} of table {table}"),
        rule => format!("rule {rule} of chain {chain} of table {table}"),
    }
}

/// Returns what a sender chooses that `tests` tell apart.
fn choices(protocol: Transport, tests: &BTreeSet<Test>) -> Vec<Choice> {
    let by_port = of(tests, &[Field::SenderPort]);
    let edges = by_port.iter().flat_map(|test| match test.ask {
        Ask::Within(first, last) => [Some(first), last.checked_add(1)],
        Ask::Bits { value, .. } => [Some(value), None],
    });
    let ports = edges.flatten().filter_map(|port| u16::try_from(port).ok()).chain([1, SENDER_PORT]);
    let sender_ports = distinct(ports, |port| passed(&by_port, *port));
    // Datagrams are taken from frames for all and for groups, too, unless `drop_unicast_in_l2_multicast` is set.
    let (tcp_flags, packet_kinds) = match protocol {
        Transport::Tcp => {
            let by_flags = of(tests, &[Field::TcpFlags]);
            let all_flags = (0_u8..1 << FLAGS_BESIDE_SYN.len()).map(|chosen| {
                let chosen = (0..).zip(FLAGS_BESIDE_SYN).filter(|(at, _)| chosen & 1 << at != 0);
                chosen.fold(SYN, |flags, (_, flag)| flags | flag)
            });
            (distinct(all_flags, |flags| passed(&by_flags, *flags)), PACKET_KINDS[..1].to_vec())
        }
        Transport::Udp => {
            let by_kind = of(tests, &[Field::PacketKind]);
            (vec![0], distinct(PACKET_KINDS.into_iter(), |kind| passed(&by_kind, *kind)))
        }
    };
    let mut choices = Vec::new();
    for sender_port in sender_ports {
        for tcp_flags in &tcp_flags {
            let choice = |kind: &u8| Choice { sender_port, tcp_flags: *tcp_flags, packet_kind: *kind };
            choices.extend(packet_kinds.iter().map(choice));
        }
    }
    choices
}

/// Returns which of `tests` a number passes.
fn passed(tests: &[Test], number: impl Into<u128>) -> Vec<bool> {
    let number = number.into();
    tests.iter().map(|test| test.ask.holds(number)).collect()
}

/// Returns the tests of some fields.
fn of(tests: &BTreeSet<Test>, fields: &[Field]) -> Vec<Test> {
    tests.iter().filter(|test| fields.contains(&test.field)).copied().collect()
}

fn is_loopback(family: Family, address: u128) -> bool {
    match family {
        Family::Ipv4 => address >> 24 == 127,
        Family::Ipv6 => address == 1,
    }
}

fn interface_passes(test: &Test, interface: &Interface) -> bool {
    match test.field {
        Field::Interface => interface.index.is_some_and(|index| test.ask.holds(index.into())),
        _ => test.ask.holds(interface.name),
    }
}

fn is_named(interface: &Interface, name: &str) -> bool {
    interface.name == super::surroundings::name_number(name)
}

/// Returns the first of each signature.
fn distinct<T, S: Ord>(all: impl Iterator<Item = T>, signature: impl Fn(&T) -> S) -> Vec<T> {
    let mut seen = BTreeSet::new();
    all.filter(|one| seen.insert(signature(one))).collect()
}
