//! What a register may be loaded with: parts of a packet, and how large a part of all packets has a value there. Pure.

use super::super::{
    packet::{self, Ask, Field, Test},
    rules::Scope,
    share::{self, Share},
    xt,
};

/// `NF_CT_STATE_BIT` of a connection that is new, and of one that is not tracked.
const STATE_NEW: u32 = packet::STATE_NEW as u32;
const STATE_UNTRACKED: u32 = packet::STATE_UNTRACKED as u32;
/// IFNAMSIZ
const INTERFACE_NAME_BYTES: usize = 16;
/// The test of what is not followed.
pub(super) const UNTOLD: Test = Test { field: Field::Other, ask: Ask::Within(0, 0) };

/// What a register was loaded with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// Address of the sender, of 4 or of 16 bytes.
    Sender(usize),
    /// Address of the receiver.
    Receiver(usize),
    /// Addresses of sender and receiver side by side, of so many bytes each.
    Addresses(usize),
    /// Ports of sender and receiver side by side.
    Ports,
    SenderPort,
    ReceiverPort,
    TcpFlags,
    /// Address family, as `NFPROTO_` or as the type of an Ethernet frame.
    Family,
    /// Protocol above IP, of whatever header.
    Protocol,
    /// What follows the first header of IPv6: before the protocol above it, there may be more headers.
    NextHeader,
    /// Place of a fragment, with flags.
    Fragment,
    Interface,
    InterfaceName,
    CtState,
    CtStatus,
    /// Kind of the receiver's address (`RTN_` of linux/rtnetlink.h).
    ReceiverType,
    /// `PACKET_` of linux/if_packet.h.
    PacketKind,
    /// The interface to which what goes back to the sender goes, or whether there is one.
    WayBack {
        is_present: bool,
    },
    /// What a sender makes as it likes, such as an option or the length.
    Chosen,
    Other,
}

impl Source {
    /// Returns what a part of a header of packets of `family` is. Base 1 is the network header, and 2 the transport's.
    ///
    /// In the header of the one family lies another thing at the place of an address of the other.
    pub fn of_payload(family: Option<u128>, base: u32, offset: u32, length: u32) -> Self {
        match (base, family) {
            (1, Some(packet::IPV4)) => match (offset, length) {
                (9, 1) => Self::Protocol,
                (6, 2) => Self::Fragment,
                (2, 2) => Self::Chosen,
                // Networks are loaded by the bytes of their prefix.
                (12, 1..=4) => Self::Sender(4),
                (16, 1..=4) => Self::Receiver(4),
                (12, 8) => Self::Addresses(4),
                _ => Self::Other,
            },
            (1, Some(packet::IPV6)) => match (offset, length) {
                (6, 1) => Self::NextHeader,
                (4, 2) => Self::Chosen,
                (8, 1..=16) => Self::Sender(16),
                (24, 1..=16) => Self::Receiver(16),
                (8, 32) => Self::Addresses(16),
                _ => Self::Other,
            },
            (2, _) => match (offset, length) {
                (0, 4) => Self::Ports,
                (0, 2) => Self::SenderPort,
                (2, 2) => Self::ReceiverPort,
                (13, 1) => Self::TcpFlags,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }

    /// Returns what a key of `meta` is, and its bytes in a register.
    pub fn of_meta(key: u32) -> (Self, usize) {
        match key {
            0 => (Self::Chosen, 4),
            1 => (Self::Family, 2),
            4 => (Self::Interface, 4),
            6 => (Self::InterfaceName, 16),
            7 => (Self::Other, 16),
            15 => (Self::Family, 1),
            16 => (Self::Protocol, 1),
            19 => (Self::PacketKind, 1),
            _ => (Self::Other, 4),
        }
    }

    /// Returns how many packets have a value from `first` to `last` here.
    pub fn share(self, first: &[u8], last: &[u8]) -> Share {
        match (self, first, last) {
            (Self::SenderPort, &[a, b], &[c, d]) => {
                share::sender_ports(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
            }
            (Self::ReceiverPort, &[a, b], &[c, d]) => {
                share::ports(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
            }
            (Self::Sender(_), _, _) => share::sources(first, last),
            (Self::Receiver(_), _, _) => share::destinations(first, last),
            // A sender may put such a header into any packet.
            (Self::NextHeader, &[first], &[last])
                if packet::EXTENSIONS.iter().any(|one| (first..=last).contains(one)) =>
            {
                Share::UNTOLD
            }
            (Self::Protocol | Self::NextHeader, &[first], &[last]) => share::protocols(first, last),
            (Self::Chosen, _, _) => Share::Chosen,
            _ if first != last => Share::UNTOLD,
            (Self::Addresses(_) | Self::Ports, _, _) => Share::LEAST,
            // The loopback is 1 in every namespace. A name without its final zero is the beginning of names.
            (Self::Interface, _, _) if native(first) == Some(1) => Share::LEAST,
            (Self::InterfaceName, _, _) if first.starts_with(b"lo\0") => Share::LEAST,
            (Self::CtState, _, _) => share_of_scope(native(first).map(|state| state_scope(|seen| seen == state))),
            // A sender on the same link may put a datagram for the host into a frame for all or for a group.
            (Self::PacketKind, &[1 | 2], _) => Share::Chosen,
            (Self::ReceiverType, _, _) => {
                share_of_scope(native(first).and_then(|kind| 1_u16.checked_shl(kind)).map(xt::destination_type))
            }
            _ => Share::UNTOLD,
        }
    }
}

impl Source {
    pub fn field(self) -> Field {
        match self {
            Self::Sender(4) => Field::Ipv4Sender,
            Self::Sender(_) => Field::Ipv6Sender,
            Self::Receiver(4) => Field::Ipv4Receiver,
            Self::Receiver(_) => Field::Ipv6Receiver,
            Self::SenderPort => Field::SenderPort,
            Self::ReceiverPort => Field::ReceiverPort,
            Self::TcpFlags => Field::TcpFlags,
            Self::Family => Field::Family,
            Self::Protocol => Field::Protocol,
            Self::NextHeader => Field::NextHeader,
            Self::Fragment => Field::Fragment,
            Self::Interface => Field::Interface,
            Self::InterfaceName => Field::InterfaceName,
            Self::CtState => Field::CtState,
            Self::CtStatus => Field::CtStatus,
            Self::ReceiverType => Field::ReceiverKind,
            Self::PacketKind => Field::PacketKind,
            Self::Addresses(_) | Self::Ports | Self::WayBack { .. } | Self::Chosen | Self::Other => Field::Other,
        }
    }

    /// Returns what lies side by side in it.
    pub fn halves(self) -> Option<[Self; 2]> {
        match self {
            Self::Addresses(bytes) => Some([Self::Sender(bytes), Self::Receiver(bytes)]),
            Self::Ports => Some([Self::SenderPort, Self::ReceiverPort]),
            _ => None,
        }
    }

    /// Returns the tests for a value from `first` to `last`.
    pub fn tests(self, first: &[u8], last: &[u8]) -> Vec<Test> {
        match self.halves() {
            Some([left, right]) if first == last => {
                let (a, b) = first.split_at(first.len() / 2);
                vec![left.within(a, a), right.within(b, b)]
            }
            Some(_) => vec![UNTOLD],
            None => vec![self.within(first, last)],
        }
    }

    /// Returns the bytes that the field has, where fewer may be loaded or compared.
    pub fn width(self) -> Option<usize> {
        match self {
            Self::Sender(bytes) | Self::Receiver(bytes) => Some(bytes),
            Self::InterfaceName => Some(INTERFACE_NAME_BYTES),
            _ => None,
        }
    }

    /// Returns a value of the field, of which `bytes` are the beginning and `fill` the rest.
    pub fn number(self, bytes: &[u8], fill: u8) -> Option<u128> {
        if self.is_native() {
            return native(bytes).map(u128::from);
        }
        let mut whole = bytes.to_vec();
        whole.resize(self.width().unwrap_or(bytes.len()), fill);
        let number =
            (whole.len() <= 16).then(|| whole.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))?;
        Some(match (self, number) {
            (Self::Family, 0x0800) => packet::IPV4,
            (Self::Family, 0x86dd) => packet::IPV6,
            (_, number) => number,
        })
    }

    /// Returns whether its values are numbers in the byte order of the machine, which compare only as equal.
    pub fn is_native(self) -> bool {
        matches!(self, Self::Interface | Self::CtState | Self::CtStatus | Self::ReceiverType)
    }

    /// Returns the test for a value from `first` to `last`, of which the rest is any.
    pub fn within(self, first: &[u8], last: &[u8]) -> Test {
        let is_range = first != last;
        match (self.number(first, 0), self.number(last, 0xff)) {
            (Some(low), Some(high)) if !(is_range && self.is_native()) => {
                Test { field: self.field(), ask: Ask::Within(low, high) }
            }
            _ => UNTOLD,
        }
    }
}

fn share_of_scope(scope: Option<Scope>) -> Share {
    match scope {
        Some(Scope::All) => Share::All,
        Some(Scope::Narrow) => Share::LEAST,
        Some(Scope::Chosen | Scope::Unclear) | None => Share::UNTOLD,
    }
}

/// Returns the scope of a condition on the state of the connection.
pub(super) fn state_scope(is_met_by: impl Fn(u32) -> bool) -> Scope {
    match (is_met_by(STATE_NEW), is_met_by(STATE_UNTRACKED)) {
        (true, _) => Scope::All,
        (false, false) => Scope::Narrow,
        (false, true) => Scope::Unclear,
    }
}

/// A number in the byte order of the machine.
pub(super) fn native(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_header_is_a_field_of_one_family_alone() {
        let (ipv4, ipv6) = (Some(packet::IPV4), Some(packet::IPV6));
        for (offset, length, of_ipv4, of_ipv6) in [
            (9, 1, Source::Protocol, Source::Other),
            (6, 1, Source::Other, Source::NextHeader),
            (6, 2, Source::Fragment, Source::Other),
            (8, 1, Source::Other, Source::Sender(16)),
            (12, 4, Source::Sender(4), Source::Other),
            (16, 4, Source::Receiver(4), Source::Other),
            (24, 16, Source::Other, Source::Receiver(16)),
            (12, 8, Source::Addresses(4), Source::Other),
        ] {
            assert_eq!(Source::of_payload(ipv4, 1, offset, length), of_ipv4, "{offset} {length}");
            assert_eq!(Source::of_payload(ipv6, 1, offset, length), of_ipv6, "{offset} {length}");
            assert_eq!(Source::of_payload(None, 1, offset, length), Source::Other, "{offset} {length}");
        }
        for family in [ipv4, ipv6, None] {
            assert_eq!(Source::of_payload(family, 2, 2, 2), Source::ReceiverPort);
        }
    }

    #[test]
    fn a_header_that_senders_may_add_is_no_narrower_kind_of_packets() {
        for (number, expected) in [
            (0, Scope::Unclear),
            (6, Scope::Unclear),
            (43, Scope::Unclear),
            (44, Scope::Unclear),
            (51, Scope::Unclear),
            (58, Scope::Narrow),
            (60, Scope::Unclear),
            (135, Scope::Unclear),
        ] {
            assert_eq!(Source::NextHeader.share(&[number], &[number]).scope(), expected, "{number}");
        }
        assert_eq!(Source::NextHeader.share(&[50], &[58]).scope(), Scope::Unclear);
        // With IPv4, nothing lies between.
        assert_eq!(Source::Protocol.share(&[51], &[51]).scope(), Scope::Narrow);
    }
}
