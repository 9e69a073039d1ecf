//! Matches and targets of xtables, which the legacy tables are made of and iptables over nf_tables still uses for some. Pure.

use super::{
    packet::{self, Ask, Condition, Field, STATUS_RESENT, STATUS_TRANSLATED, Test},
    rule_set::Translated,
    rules::{Act, Scope},
    share::{self, Share},
};
use crate::host::Family;

// linux/netfilter/xt_conntrack.h
const STATE_NEW: u16 = 8;
const STATE_UNTRACKED: u16 = 256;
const COUNTS_STATE: u16 = 1;
/// That the rule was written with the older name of the match.
const COUNTS_BY_OLD_NAME: u16 = 1 << 13;
// linux/netfilter/xt_state.h
const OLD_STATE_UNTRACKED: u32 = 64;
/// XT_CONNTRACK_STATE_DNAT
const STATE_TRANSLATED: u16 = 128;
/// XT_CONNTRACK_STATE_SNAT
const STATE_RESENT: u16 = 64;
/// XT_CT_NOTRACK of linux/netfilter/xt_CT.h
const CT_UNTRACKS: u16 = 1;
// linux/netfilter/xt_recent.h
const RECENT_SETS: u8 = 2;
// linux/netfilter/xt_connlimit.h
const CONNLIMIT_BYTES: usize = 24;
const CONNLIMIT_INVERTS: u32 = 1;
// linux/netfilter/xt_rpfilter.h
const INVERTS_WAY_BACK: u8 = 8;
// linux/netfilter/xt_tcpudp.h
const INVERTS_FLAGS: u8 = 4;
const INVERTS_SOURCE: u8 = 1;
const INVERTS_DESTINATION: u8 = 2;
/// Of ports, `struct xt_multiport_v1` in bytes; the older one, which knows neither ranges nor inversion, is shorter.
const MULTIPORT_BYTES: usize = 48;
const MULTIPORT_PORTS: usize = 15;
/// Kinds of addresses (`RTN_` of linux/rtnetlink.h) as bits.
const IS_LOCAL: u16 = 1 << 2;
const IS_FOR_MANY: u16 = 1 << 3 | 1 << 5;
/// Those that are no sender's: the host's own, and for many. The kernel takes no packet from them.
const IS_NO_SENDER: u16 = IS_LOCAL | IS_FOR_MANY;
// linux/netfilter/xt_hashlimit.h
const HASHLIMIT_NAME_BYTES: usize = 256;
const HASHLIMIT_INVERTS: u32 = 1 << 4;
const HASHLIMIT_BY_RATE: u32 = 1 << 6;
// NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED; NF_NAT_RANGE_PROTO_OFFSET and NF_NAT_RANGE_NETMAP
const RANGE_OF_ADDRESSES: u32 = 1;
const RANGE_OF_PORTS: u32 = 2;
const RANGE_IS_MAPPED: u32 = 32 | 64;
// linux/netfilter/xt_iprange.h: of senders, and one bit higher of receivers.
const RANGE_COUNTS: u8 = 1;
const RANGE_INVERTS: u8 = 16;

/// Returns which packets meet the match `name` with the data `info`, in a table of the family with the `NFPROTO_` number
/// `family`.
pub(super) fn read(name: &str, info: &[u8], family: Option<u128>) -> (Scope, Vec<Condition>) {
    let of_ranges = || ranges(info, family?);
    match name {
        "iprange" => of_ranges().unwrap_or_else(|| (Scope::Unclear, vec![Condition::Unclear])),
        _ => (matches(name, info), conditions(name, info)),
    }
}

/// Returns which packets meet the match `name` with the data `info`.
fn matches(name: &str, info: &[u8]) -> Scope {
    match name {
        "comment" => Scope::All,
        // The kernel takes these only for a protocol of their own, or only a packet with that header meets them.
        "icmp" | "icmp6" | "icmpv6" | "esp" | "ah" => Scope::Narrow,
        // A routing header.
        "rt" => Scope::Chosen,
        "tcp" => ports_match(info, 11).and(match info.get(8..10) {
            // No option and no flags are asked for.
            Some([0, 0]) => Scope::All,
            Some([_, 0]) => Scope::Chosen,
            _ => Scope::Unclear,
        }),
        // An option of TCP, and how long a packet is.
        "tcpmss" | "length" => Scope::Chosen,
        "udp" => ports_match(info, 8),
        "multiport" => multiport(info).unwrap_or(Scope::Unclear),
        "conntrack" => conntrack(info).unwrap_or(Scope::Unclear),
        // One word of bits.
        "state" => match info.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)) {
            Some(states) if states & (u32::from(STATE_NEW) | OLD_STATE_UNTRACKED) == 0 => Scope::Narrow,
            Some(states) if states & u32::from(STATE_NEW) != 0 => Scope::All,
            _ => Scope::Unclear,
        },
        // linux/netfilter/xt_helper.h: of a connection that another one announced; a word says whether it is inverted.
        "helper" => Scope::Narrow.inverted_if(info.iter().take(4).any(|byte| *byte != 0)),
        "addrtype" => address_type(info).unwrap_or(Scope::Unclear),
        // A sender on the same link may put a datagram for the host into a frame for all or for a group.
        "pkttype" => match (word(info, 0), word(info, 4)) {
            (Some(1 | 2), Some(0)) => Scope::Chosen,
            _ => Scope::Unclear,
        },
        // A connection is counted with those before it.
        "connlimit" if info.len() >= CONNLIMIT_BYTES => match connlimit(info) {
            Some((0, is_over)) => Scope::Narrow.inverted_if(is_over),
            _ => Scope::Unclear,
        },
        // Whom nothing goes back to is not who it says it is.
        "rpfilter" => match info.first() {
            Some(flags) => Scope::Narrow.inverted_if(flags & INVERTS_WAY_BACK == 0),
            None => Scope::Unclear,
        },
        _ => Scope::Unclear,
    }
}

/// Returns the conditions of the match `name` with the data `info` on a packet of TCP or UDP.
fn conditions(name: &str, info: &[u8]) -> Vec<Condition> {
    let found = match name {
        "comment" => Some(Vec::new()),
        "icmp" | "icmp6" | "icmpv6" | "esp" | "ah" => Some(vec![Condition::NEVER]),
        // A sender may put a routing header or an option into any packet, and need not, and make it as long as it likes.
        "rt" | "tcpmss" | "length" => Some(vec![Condition::Seldom]),
        "tcp" => tcp_conditions(info),
        "udp" => port_conditions(info, 8),
        "multiport" => {
            multiport_lists(info).map(|(lists, inverts)| vec![Condition::AnyOf { lists, is_inverted: inverts }])
        }
        "conntrack" => conntrack_condition(info).map(|condition| vec![condition]),
        "state" => info.first_chunk().map(|bytes| {
            let states = u32::from_ne_bytes(*bytes);
            vec![states_condition(
                states & u32::from(STATE_NEW) != 0,
                states & OLD_STATE_UNTRACKED != 0,
                states & 1 != 0,
            )]
        }),
        "helper" => Some(vec![Condition::fixed(info.iter().take(4).any(|byte| *byte != 0))]),
        "addrtype" => address_type(info).and_then(|_| {
            let (senders, kinds) = (half(info, 0)?, half(info, 2)?);
            let of_kind = |kind: u128| Test { field: Field::ReceiverKind, ask: Ask::Within(kind, kind) };
            let lists = (0..16).filter(|kind| kinds & 1 << kind != 0).map(|kind| vec![of_kind(kind)]).collect();
            let of_receiver = (kinds != 0).then_some(Condition::AnyOf { lists, is_inverted: false });
            Some((senders != 0).then_some(Condition::Seldom).into_iter().chain(of_receiver).collect())
        }),
        "rpfilter" => {
            let inverts = info.first().map(|flags| flags & INVERTS_WAY_BACK != 0);
            inverts.map(|inverts| vec![if inverts { Condition::Seldom } else { Condition::Mostly }])
        }
        "limit" => Some(vec![Condition::Mostly]),
        "hashlimit" => {
            is_of_busy(info).map(|is_of_busy| vec![if is_of_busy { Condition::Seldom } else { Condition::Mostly }])
        }
        "connlimit" if info.len() >= CONNLIMIT_BYTES => connlimit(info).map(|(limit, is_over)| {
            vec![match (limit, is_over) {
                (0, _) => Condition::fixed(is_over),
                (_, true) => Condition::Seldom,
                (_, false) => Condition::Mostly,
            }]
        }),
        // `struct xt_recent_mtinfo`: two words, what to do, and whether it is inverted. What is put into a list is met always.
        "recent" => match info.get(8..10) {
            Some([action, inverts]) if action & RECENT_SETS != 0 => Some(vec![Condition::fixed(*inverts == 0)]),
            Some([_, 0]) => Some(vec![Condition::Seldom]),
            Some(_) => Some(vec![Condition::Mostly]),
            None => None,
        },
        // `struct xt_pkttype_info`: kind and whether it is inverted, a word each.
        "pkttype" => word(info, 0).zip(word(info, 4)).map(|(kind, inverts)| {
            vec![Condition::test(Field::PacketKind, Ask::Within(kind.into(), kind.into()), inverts != 0)]
        }),
        _ => None,
    };
    found.unwrap_or_else(|| vec![Condition::Unclear])
}

fn tcp_conditions(info: &[u8]) -> Option<Vec<Condition>> {
    let mut conditions = port_conditions(info, 11)?;
    let [option, mask, flags, inverts] = *info.get(8..12)?.first_chunk()?;
    if option != 0 {
        conditions.push(Condition::Seldom);
    }
    if mask != 0 {
        let ask = Ask::Bits { mask: mask.into(), value: flags.into() };
        conditions.push(Condition::test(Field::TcpFlags, ask, inverts & INVERTS_FLAGS != 0));
    }
    Some(conditions)
}

fn port_conditions(info: &[u8], invert: usize) -> Option<Vec<Condition>> {
    let inverts = info.get(invert)?;
    let port = |field: Field, at: usize, flag: u8| {
        let ask = Ask::Within(half(info, at)?.into(), half(info, at + 2)?.into());
        Some(Condition::test(field, ask, inverts & flag != 0))
    };
    Some(vec![port(Field::SenderPort, 0, INVERTS_SOURCE)?, port(Field::ReceiverPort, 4, INVERTS_DESTINATION)?])
}

/// Returns the ports of `multiport`, of the sender, the receiver or either, and whether they are inverted.
fn multiport_lists(info: &[u8]) -> Option<(Vec<Vec<Test>>, bool)> {
    let fields: &[Field] = match info.first()? {
        0 => &[Field::SenderPort],
        1 => &[Field::ReceiverPort],
        2 => &[Field::SenderPort, Field::ReceiverPort],
        _ => return None,
    };
    let (ranges, inverts) = multiport_ranges(info)?;
    let list = |(first, last): &(u16, u16)| {
        let ask = Ask::Within((*first).into(), (*last).into());
        fields.iter().map(move |field| vec![Test { field: *field, ask }]).collect::<Vec<_>>()
    };
    Some((ranges.iter().flat_map(list).collect(), inverts))
}

fn conntrack_condition(info: &[u8]) -> Option<Condition> {
    let (counts, inverts, states) = (half(info, 146)?, half(info, 148)?, half(info, 150)?);
    if counts & !COUNTS_BY_OLD_NAME != COUNTS_STATE || inverts & !COUNTS_STATE != 0 {
        return None;
    }
    let condition = states_condition(states & STATE_NEW != 0, states & STATE_UNTRACKED != 0, states & 1 != 0);
    let Condition::AnyOf { mut lists, .. } = condition else { return None };
    for (state, status) in [(STATE_TRANSLATED, STATUS_TRANSLATED), (STATE_RESENT, STATUS_RESENT)] {
        if states & state != 0 {
            let ask = Ask::Bits { mask: status, value: status };
            lists.push(vec![Test { field: Field::CtStatus, ask }]);
        }
    }
    Some(Condition::AnyOf { lists, is_inverted: inverts != 0 })
}

fn states_condition(is_new: bool, is_untracked: bool, is_invalid: bool) -> Condition {
    let states =
        [(is_new, packet::STATE_NEW), (is_untracked, packet::STATE_UNTRACKED), (is_invalid, packet::STATE_INVALID)];
    let of_state = |(_, state): (bool, u128)| vec![Test { field: Field::CtState, ask: Ask::Within(state, state) }];
    let lists = states.into_iter().filter(|(is_met, _)| *is_met).map(of_state).collect();
    Condition::AnyOf { lists, is_inverted: false }
}

/// Ranges of source and destination ports, and which are inverted at `invert`.
fn ports_match(info: &[u8], invert: usize) -> Scope {
    let ports = |at: usize| Some((half(info, at)?, half(info, at + 2)?));
    let (Some(source), Some(destination), Some(inverts)) = (ports(0), ports(4), info.get(invert)) else {
        return Scope::Unclear;
    };
    let scope = |(first, last): (u16, u16), share: fn(u16, u16) -> Share, inverts: bool| {
        let scope = if (first, last) == (0, u16::MAX) { Scope::All } else { share(first, last).scope() };
        scope.inverted_if(inverts)
    };
    scope(source, share::sender_ports, inverts & INVERTS_SOURCE != 0).and(scope(
        destination,
        share::ports,
        inverts & INVERTS_DESTINATION != 0,
    ))
}

/// `struct xt_multiport_v1` (linux/netfilter/xt_multiport.h): flags, count, 15 ports, 15 flags that say of a port that it
/// begins a range, invert.
fn multiport(info: &[u8]) -> Option<Scope> {
    let (ranges, inverts) = multiport_ranges(info)?;
    // Of the sender, or of either: the sender chooses.
    let share: fn(u16, u16) -> Share = match info.first()? {
        0 | 2 => share::sender_ports,
        _ => share::ports,
    };
    let share = ranges.iter().fold(Share::LEAST, |total, (first, last)| total.or(share(*first, *last)));
    Some(share.scope().inverted_if(inverts))
}

/// Returns the first and last ports, and whether they are inverted.
fn multiport_ranges(info: &[u8]) -> Option<(Vec<(u16, u16)>, bool)> {
    let count = usize::from(*info.get(1)?).min(MULTIPORT_PORTS);
    let (flags, inverts) = match info.get(2 + 2 * MULTIPORT_PORTS..MULTIPORT_BYTES) {
        Some(rest) => (&rest[..MULTIPORT_PORTS], rest[MULTIPORT_PORTS] != 0),
        None => ([0; MULTIPORT_PORTS].as_slice(), false),
    };
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < count {
        let first = half(info, 2 + 2 * at)?;
        let is_range = flags[at] != 0 && at + 1 < count;
        at += usize::from(is_range);
        ranges.push((first, half(info, 2 + 2 * at)?));
        at += 1;
    }
    Some((ranges, inverts))
}

/// `struct xt_conntrack_mtinfo`, revisions 1 to 3: which parts count, which are inverted, bits of states.
fn conntrack(info: &[u8]) -> Option<Scope> {
    let (counts, inverts, states) = (half(info, 146)?, half(info, 148)?, half(info, 150)?);
    // Others than the state are not followed.
    if counts & !COUNTS_BY_OLD_NAME != COUNTS_STATE || inverts & !COUNTS_STATE != 0 {
        return None;
    }
    let scope = if states & (STATE_NEW | STATE_UNTRACKED) == 0 {
        Scope::Narrow
    } else if states & STATE_NEW != 0 {
        Scope::All
    } else {
        Scope::Unclear
    };
    Some(scope.inverted_if(inverts != 0))
}

/// `struct xt_addrtype_info_v1` (linux/netfilter/xt_addrtype.h): kinds of source and destination, flags. The older one has
/// two words for them.
fn address_type(info: &[u8]) -> Option<Scope> {
    let (source, destination, flags) = (half(info, 0)?, half(info, 2)?, info.get(4..)?);
    // Inversion, and what depends on the interface.
    if flags.iter().any(|byte| *byte != 0) {
        return None;
    }
    let source = match source {
        0 => Scope::All,
        kinds if kinds & !IS_NO_SENDER == 0 => Scope::Narrow,
        _ => return None,
    };
    Some(source.and(if destination == 0 { Scope::All } else { destination_type(destination) }))
}

/// `struct xt_hashlimit_mtinfo1` and, with a longer name, `2` and `3` (linux/netfilter/xt_hashlimit.h): name and `mode`,
/// before which the later ones have two numbers of 8 bytes. Returns whether it is met by those over the limit.
fn is_of_busy(info: &[u8]) -> Option<bool> {
    let mode = word(info, if info.len() < HASHLIMIT_NAME_BYTES { 16 } else { HASHLIMIT_NAME_BYTES + 16 })?;
    (mode & HASHLIMIT_BY_RATE == 0).then_some(mode & HASHLIMIT_INVERTS != 0)
}

/// `struct xt_connlimit_info`: a mask of 16 bytes, the limit, flags. Returns the limit, and whether it is met by those over it.
fn connlimit(info: &[u8]) -> Option<(u32, bool)> {
    Some((word(info, 16)?, word(info, 20)? & CONNLIMIT_INVERTS == 0))
}

/// `struct xt_iprange_mtinfo` (linux/netfilter/xt_iprange.h): first and last address of senders, those of receivers, flags.
fn ranges(info: &[u8], family: u128) -> Option<(Scope, Vec<Condition>)> {
    let (bytes, fields) = match family {
        packet::IPV4 => (4, [Field::Ipv4Sender, Field::Ipv4Receiver]),
        packet::IPV6 => (16, [Field::Ipv6Sender, Field::Ipv6Receiver]),
        _ => return None,
    };
    let flags = *info.get(64)?;
    let (mut scope, mut conditions) = (Scope::All, Vec::new());
    for (at, field) in fields.into_iter().enumerate().filter(|(at, _)| flags & RANGE_COUNTS << at != 0) {
        let address = |place: usize| info.get(place..place + bytes);
        let (first, last) = (address(32 * at)?, address(32 * at + 16)?);
        let is_inverted = flags & RANGE_INVERTS << at != 0;
        let share = if at == 0 { share::sources(first, last) } else { share::destinations(first, last) };
        scope = scope.and(share.scope().inverted_if(is_inverted));
        conditions.push(Condition::test(field, Ask::Within(number(first), number(last)), is_inverted));
    }
    Some((scope, conditions))
}

/// Returns which packets are for an address of one of these kinds. What comes to a host is for its own addresses or for many.
pub(super) fn destination_type(kinds: u16) -> Scope {
    if kinds & IS_LOCAL != 0 {
        Scope::All
    } else if kinds & !IS_FOR_MANY == 0 {
        Scope::Narrow
    } else {
        Scope::Unclear
    }
}

/// Returns whether the target `name` with the data `info` keeps packets from being tracked.
pub(super) fn untracks(name: &str, info: &[u8]) -> bool {
    match name {
        "NOTRACK" => true,
        "CT" => half(info, 0).is_none_or(|flags| flags & CT_UNTRACKS != 0),
        _ => false,
    }
}

/// Returns whether the target `name` changes to whom packets go.
pub(super) fn translates(name: &str) -> bool {
    matches!(name, "DNAT" | "DNPT" | "NETMAP" | "REDIRECT" | "SAME")
}

/// Returns whether the target `name`, where packets to the host meet it last, changes from whom they come.
pub(super) fn resends(name: &str) -> bool {
    matches!(name, "NETMAP" | "SAME" | "SNAT" | "SNPT")
}

/// Returns to whom the target `name` with the data `info` makes packets of `family` go, where it is told.
///
/// `struct nf_nat_ipv4_multi_range_compat` of one range, and `struct nf_nat_range` (linux/netfilter/nf_nat.h): flags, first and
/// last address, first and last port. The newest has one more number at its end.
pub(super) fn translated_to(name: &str, info: &[u8], family: Family) -> Option<Translated> {
    let bytes = match family {
        Family::Ipv4 => 4,
        Family::Ipv6 => 16,
    };
    let (flags, at, width) = match (name, info.len()) {
        ("DNAT", 20..40) if word(info, 0) == Some(1) => (word(info, 4)?, 8, 4),
        ("DNAT", 40..) => (word(info, 0)?, 4, 16),
        _ => return None,
    };
    if flags & RANGE_OF_ADDRESSES == 0 || flags & RANGE_IS_MAPPED != 0 {
        return None;
    }
    let address = |at: usize| Some(number(info.get(at..at + bytes)?));
    let port = |at: usize| Some(u16::from_be_bytes(*info.get(at..)?.first_chunk()?));
    let ports =
        if flags & RANGE_OF_PORTS == 0 { (0, u16::MAX) } else { (port(at + 2 * width)?, port(at + 2 * width + 2)?) };
    Some(Translated { family, addresses: (address(at)?, address(at + width)?), ports })
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Returns whether the target `name` hands packets to a socket that they are not for.
pub(super) fn diverts(name: &str) -> bool {
    name == "TPROXY"
}

/// Returns what the target `name` does.
pub(super) fn target<C>(name: &str) -> Act<C> {
    match name {
        "REJECT" => Act::Reject,
        "DROP" => Act::Drop,
        "ACCEPT" | "MASQUERADE" | "SNAT" => Act::Accept,
        // The first packet of a connection is let in, to whomever it goes then.
        "DNAT" | "NETMAP" | "REDIRECT" | "SAME" => Act::Translate,
        "AUDIT" | "CLASSIFY" | "CONNMARK" | "CONNSECMARK" | "CT" | "DSCP" | "HL" | "LOG" | "MARK" | "NFLOG"
        | "SECMARK" | "SET" | "TCPMSS" | "TOS" | "TRACE" | "TTL" => Act::Continue,
        _ => Act::Unclear,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ports(source: (u16, u16), destination: (u16, u16), rest: &[u8]) -> Vec<u8> {
        let ports = [source.0, source.1, destination.0, destination.1];
        ports.iter().flat_map(|port| port.to_ne_bytes()).chain(rest.iter().copied()).collect()
    }

    const ANY: (u16, u16) = (0, u16::MAX);

    #[test]
    fn a_match_of_ports_is_as_narrow_as_its_ports() {
        for (source, destination, rest, expected) in [
            (ANY, ANY, [0, 0, 0, 0], Scope::All),
            (ANY, (22, 22), [0, 0, 0, 0], Scope::Narrow),
            (ANY, (22, 22), [0, 0, 0, INVERTS_DESTINATION], Scope::All),
            (ANY, (1, 65_535), [0, 0, 0, 0], Scope::Unclear),
            (ANY, (1, 65_535), [0, 0, 0, INVERTS_DESTINATION], Scope::Unclear),
            ((53, 53), ANY, [0, 0, 0, 0], Scope::Chosen),
            ((1024, 5119), ANY, [0, 0, 0, 0], Scope::Chosen),
            ((53, 53), ANY, [0, 0, 0, INVERTS_SOURCE], Scope::Unclear),
            ((67, 67), (68, 68), [0, 0, 0, 0], Scope::Narrow),
            // Flags: `--syn`.
            (ANY, ANY, [0, 0x17, 2, 0], Scope::Unclear),
            (ANY, (22, 22), [0, 0x17, 2, 0], Scope::Narrow),
        ] {
            assert_eq!(matches("tcp", &ports(source, destination, &rest)), expected, "{destination:?} {rest:?}");
        }
        assert_eq!(matches("udp", &ports(ANY, (53, 53), &[0, 0])), Scope::Narrow);
        assert_eq!(matches("udp", &ports(ANY, (53, 53), &[INVERTS_DESTINATION, 0])), Scope::All);
        assert_eq!(matches("udp", &ports(ANY, ANY, &[])), Scope::Unclear);
    }

    #[test]
    fn a_list_of_ports_is_as_narrow_as_all_of_them() {
        let list = |ports: &[u16], ranges: &[usize], invert: u8| {
            let mut info = vec![1, u8::try_from(ports.len()).unwrap()];
            info.extend(ports.iter().flat_map(|port| port.to_ne_bytes()));
            info.resize(MULTIPORT_BYTES, 0);
            for range in ranges {
                info[32 + range] = 1;
            }
            info[47] = invert;
            info
        };
        for (info, expected) in [
            (list(&[22, 80, 443], &[], 0), Scope::Narrow),
            (list(&[22], &[], 1), Scope::All),
            (list(&[0, 65_535], &[0], 0), Scope::Unclear),
            (list(&[22, 1024, 65_535], &[1], 0), Scope::Unclear),
            (list(&[1024, 65_535], &[], 0), Scope::Narrow),
            // A range whose end is not there.
            (list(&[22, 80], &[1], 0), Scope::Narrow),
            (list(&[22, 80], &[], 0)[..32].to_vec(), Scope::Narrow),
            (list(&[22, 80], &[], 0)[..5].to_vec(), Scope::Unclear),
        ] {
            assert_eq!(matches("multiport", &info), expected, "{info:?}");
        }
        // `--sports` and `--ports`
        for of_sender in [0, 2] {
            let mut info = list(&[53, 80, 443], &[], 0);
            info[0] = of_sender;
            assert_eq!(matches("multiport", &info), Scope::Chosen);
            info[47] = 1;
            assert_eq!(matches("multiport", &info), Scope::Unclear);
        }
    }

    #[test]
    fn a_match_of_states_tells_new_connections_from_known_ones() {
        let conntrack = |counts: u16, inverts: u16, states: u16| {
            let mut info = vec![0; 146];
            info.extend([counts, inverts, states, 0].iter().flat_map(|half| half.to_ne_bytes()));
            matches("conntrack", &info)
        };
        assert_eq!(conntrack(1, 0, 2 | 4), Scope::Narrow);
        assert_eq!(conntrack(1, 1, 2 | 4), Scope::All);
        assert_eq!(conntrack(1, 0, 8), Scope::All);
        assert_eq!(conntrack(1, 1, 8), Scope::Narrow);
        assert_eq!(conntrack(1, 0, 256), Scope::Unclear);
        assert_eq!(conntrack(3, 0, 2), Scope::Unclear);
        // `-m state`, which the kernel keeps apart by a bit.
        assert_eq!(conntrack(0x2001, 0, 2 | 4), Scope::Narrow);
        assert_eq!(conntrack(0x2001, 1, 2 | 4), Scope::All);
        for (states, expected) in [(2_u32 | 4, Scope::Narrow), (8, Scope::All), (64, Scope::Unclear)] {
            assert_eq!(matches("state", &states.to_ne_bytes()), expected);
        }
    }

    #[test]
    fn what_comes_is_for_the_hosts_own_addresses() {
        let kinds = |source: u16, destination: u16, flags: u32| {
            let info = [&source.to_ne_bytes()[..], &destination.to_ne_bytes(), &flags.to_ne_bytes()].concat();
            matches("addrtype", &info)
        };
        assert_eq!(kinds(0, 1 << 2, 0), Scope::All);
        assert_eq!(kinds(0, 1 << 3, 0), Scope::Narrow);
        assert_eq!(kinds(0, 1 << 5, 0), Scope::Narrow);
        assert_eq!(kinds(0, 1 << 1, 0), Scope::Unclear);
        assert_eq!(kinds(0, 1 << 2, 2), Scope::Unclear);
        assert_eq!(kinds(1 << 1, 0, 0), Scope::Unclear);
        // From the host itself, or from an address for many, nothing comes.
        for source in [1 << 2, 1 << 3, 1 << 5 | 1 << 3] {
            assert_eq!(kinds(source, 0, 0), Scope::Narrow);
            assert_eq!(kinds(source, 1 << 2, 0), Scope::Narrow);
            let info = [source.to_ne_bytes(), [0; 2], [0; 2], [0; 2]].concat();
            assert_eq!(conditions("addrtype", &info), [Condition::Seldom]);
        }
        assert_eq!(kinds(0, 0, 0), Scope::All);
    }

    #[test]
    fn a_header_that_senders_may_add_to_any_packet_is_no_narrower_kind() {
        assert_eq!((matches("rt", &[0; 120]), conditions("rt", &[0; 120])), (Scope::Chosen, vec![Condition::Seldom]));
        assert_eq!((matches("ah", &[0; 16]), conditions("ah", &[0; 16])), (Scope::Narrow, vec![Condition::NEVER]));
    }

    #[test]
    fn what_a_sender_may_add_is_chosen() {
        for name in ["tcpmss", "length"] {
            assert_eq!((matches(name, &[0; 8]), conditions(name, &[0; 8])), (Scope::Chosen, vec![Condition::Seldom]));
        }
        let option = ports(ANY, ANY, &[8, 0, 0, 0]);
        assert_eq!(matches("tcp", &option), Scope::Chosen);
        assert!(conditions("tcp", &option).contains(&Condition::Seldom));
    }

    #[test]
    fn a_limit_for_each_sender_is_kept_by_one_that_is_not_busy() {
        let told = |bytes: usize, at: usize, mode: u32| {
            let mut info = vec![0; bytes];
            info[at..at + 4].copy_from_slice(&mode.to_ne_bytes());
            conditions("hashlimit", &info)
        };
        for (bytes, at) in [(56, 16), (328, 272)] {
            assert_eq!(told(bytes, at, 4), [Condition::Mostly]);
            assert_eq!(told(bytes, at, 4 | 16), [Condition::Seldom]);
            assert_eq!(told(bytes, at, 4 | 64), [Condition::Unclear]);
        }
        assert_eq!(conditions("hashlimit", &[0; 12]), [Condition::Unclear]);
    }

    #[test]
    fn every_connection_is_over_a_limit_of_none() {
        let told = |limit: u32, flags: u32| {
            let info = [&[0xff; 16][..], &limit.to_ne_bytes(), &flags.to_ne_bytes()].concat();
            (matches("connlimit", &info), conditions("connlimit", &info))
        };
        assert_eq!(told(0, 0), (Scope::All, vec![Condition::fixed(true)]));
        assert_eq!(told(0, CONNLIMIT_INVERTS), (Scope::Narrow, vec![Condition::NEVER]));
        assert_eq!(told(1, 0), (Scope::Unclear, vec![Condition::Seldom]));
        assert_eq!(told(1, CONNLIMIT_INVERTS), (Scope::Unclear, vec![Condition::Mostly]));
    }

    #[test]
    fn ranges_of_addresses_are_those_of_the_tables_family() {
        let info = |flags: u8| {
            let mut info = vec![0; 65];
            for (at, last) in [(0, 8), (16, 12), (32, 1), (48, 1)] {
                info[at..at + 4].copy_from_slice(&[10, 98, 0, last]);
            }
            info[64] = flags;
            info
        };
        let within = |field: Field, first: u128, last: u128, is_inverted: bool| {
            Condition::test(field, Ask::Within(0x0a62_0000 | first, 0x0a62_0000 | last), is_inverted)
        };
        let of = |flags: u8| read("iprange", &info(flags), Some(packet::IPV4));
        assert_eq!(of(1), (Scope::Narrow, vec![within(Field::Ipv4Sender, 8, 12, false)]));
        assert_eq!(of(17), (Scope::All, vec![within(Field::Ipv4Sender, 8, 12, true)]));
        assert_eq!(of(2), (Scope::Unclear, vec![within(Field::Ipv4Receiver, 1, 1, false)]));
        assert_eq!(of(3).1.len(), 2);
        let of_ipv6 = read("iprange", &info(1), Some(packet::IPV6)).1;
        let shifted = Ask::Within(0x0a62_0008 << 96, 0x0a62_000c << 96);
        assert_eq!(of_ipv6, [Condition::test(Field::Ipv6Sender, shifted, false)]);
        let untold = (Scope::Unclear, vec![Condition::Unclear]);
        assert_eq!(read("iprange", &info(1), None), untold);
        assert_eq!(read("iprange", &info(1)[..64], Some(packet::IPV4)), untold);
    }

    #[test]
    fn a_translation_tells_to_whom_packets_go() {
        let addresses = [[172, 17, 0, 2], [172, 17, 0, 3]];
        let ports = [443_u16.to_be_bytes(), 444_u16.to_be_bytes()].concat();
        let old = |flags: u32| [&1_u32.to_ne_bytes()[..], &flags.to_ne_bytes(), &addresses.concat(), &ports].concat();
        let new = |flags: u32| {
            let addresses = addresses.map(|address| [&address[..], &[0; 12]].concat()).concat();
            [&flags.to_ne_bytes()[..], &addresses, &ports, &[0; 4]].concat()
        };
        let to =
            |ports: (u16, u16)| Some(Translated { family: Family::Ipv4, addresses: (0xac11_0002, 0xac11_0003), ports });
        for (flags, expected) in
            [(3, to((443, 444))), (1, to((0, u16::MAX))), (2, None), (0, None), (3 | 64, None), (3 | 32, None)]
        {
            for info in [old(flags), new(flags)] {
                assert_eq!(translated_to("DNAT", &info, Family::Ipv4), expected, "{flags}");
                assert_eq!(translated_to("REDIRECT", &info, Family::Ipv4), None);
            }
        }
        assert_eq!(translated_to("DNAT", &old(3)[..19], Family::Ipv4), None);
        let of_ipv6 = translated_to("DNAT", &new(1), Family::Ipv6).unwrap();
        assert_eq!(of_ipv6.addresses, (0xac11_0002 << 96, 0xac11_0003 << 96));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(info in prop::collection::vec(any::<u8>(), 0..200)) {
            for name in ["tcp", "udp", "multiport", "conntrack", "state", "helper", "addrtype", "limit", "connlimit", "recent", "pkttype", "rpfilter", "hashlimit", "iprange"] {
                for family in [packet::IPV4, packet::IPV6] {
                    let _ = read(name, &info, Some(family));
                    let _ = translated_to("DNAT", &info, Family::Ipv4);
                    let _ = translated_to("DNAT", &info, Family::Ipv6);
                }
            }
        }
    }
}
