//! How large a part of the packets that may come from outside a condition speaks of. Pure.
//!
//! A rule for a port, a service's few ports or a network is narrow. One for half of all ports or addresses is not, even when
//! it is written as a list of ranges.

use super::rules::Scope;

/// Every packet, in the unit of a share.
const WHOLE: u128 = 1 << 64;
/// The largest share that is narrow: 4096 ports, four networks of IPv4 with 8 bits, one of IPv6 with 16.
const NARROW: u128 = WHOLE / 16;
const SHARE_OF_PORT: u32 = 64 - 16;
const SHARE_OF_IPV4_ADDRESS: u32 = 60 - 26;
/// An address of IPv6 is less than the unit.
const IPV6_ADDRESSES_OF_SHARE: u32 = 112 - 60;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A part of the new packets that may come from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Share {
    /// Every one.
    All,
    /// At most so much.
    Part(u128),
    /// What a sender may make of any packet, and need not.
    Chosen,
}

impl Share {
    /// So little that any number of it is narrow.
    pub const LEAST: Self = Self::Part(0);
    pub const UNTOLD: Self = Self::Part(WHOLE);

    pub fn scope(self) -> Scope {
        match self {
            Self::All => Scope::All,
            Self::Part(part) if part <= NARROW => Scope::Narrow,
            Self::Part(_) => Scope::Unclear,
            Self::Chosen => Scope::Chosen,
        }
    }

    /// Returns the share of two conditions that must both hold.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, other) => other,
            (part, Self::All) => part,
            (Self::Part(a), Self::Part(b)) => Self::Part(a.min(b)),
            (Self::Chosen, other) | (other, Self::Chosen) if other.scope() == Scope::Narrow => other,
            (Self::Chosen, _) | (_, Self::Chosen) => Self::Chosen,
        }
    }

    /// Returns the share of two conditions of which one must hold.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Part(a), Self::Part(b)) => Self::Part(a.saturating_add(b)),
            (Self::Chosen, other) | (other, Self::Chosen) if other.scope() == Scope::Narrow => Self::Chosen,
            (Self::Chosen, other) | (other, Self::Chosen) => other,
        }
    }
}

/// Returns the share of the ports from `first` to `last`.
pub(super) fn ports(first: u16, last: u16) -> Share {
    port_count((u32::from(last) + 1).saturating_sub(first.into()))
}

/// Returns the share of the packets from the ports from `first` to `last`, of which a sender chooses one.
pub(super) fn sender_ports(first: u16, last: u16) -> Share {
    if (first, last) == (0, u16::MAX) { Share::UNTOLD } else { Share::Chosen }
}

/// Returns the share of so many ports.
pub(super) fn port_count(count: u32) -> Share {
    Share::Part(u128::from(count) << SHARE_OF_PORT)
}

/// Returns the share of the packets from the addresses from `first` to `last`, of 4 or of 16 bytes.
pub(super) fn sources(first: &[u8], last: &[u8]) -> Share {
    if let (Ok(first), Ok(last)) = (<[u8; 4]>::try_from(first), <[u8; 4]>::try_from(last)) {
        // Nothing comes from addresses of groups and above.
        let last = u32::from_be_bytes(last).min(0xdfff_ffff);
        let count = (u128::from(last) + 1).saturating_sub(u32::from_be_bytes(first).into());
        return Share::Part(count << SHARE_OF_IPV4_ADDRESS);
    }
    let (Ok(first), Ok(last)) = (<[u8; 16]>::try_from(first), <[u8; 16]>::try_from(last)) else { return Share::UNTOLD };
    // The whole internet is in 2000::/3; elsewhere are networks of one's own, such as fe80::/10 and fc00::/7.
    let is_global = |byte: u8| byte >> 5 == 1;
    let (start, end) = (u128::from_be_bytes(first), u128::from_be_bytes(last));
    let count = end.saturating_sub(start);
    if is_global(first[0]) && is_global(last[0]) {
        Share::Part((count >> IPV6_ADDRESSES_OF_SHARE) + u128::from(count & ((1 << IPV6_ADDRESSES_OF_SHARE) - 1) != 0))
    } else if count >> 121 == 0 && !is_global(first[0]) && !is_global(last[0]) {
        Share::LEAST
    } else {
        Share::UNTOLD
    }
}

/// Returns the share of the packets to the addresses from `first` to `last`, of 4 or of 16 bytes.
///
/// Any address may be the host's own, to which everything comes, but for groups, broadcasts and the loopback.
pub(super) fn destinations(first: &[u8], last: &[u8]) -> Share {
    let is_narrow = match (first.len(), last.len()) {
        (4, 4) => first[0] >= 224 || first[0] == 127 && last[0] == 127,
        (16, 16) => first[0] == 0xff || first == last && u128::from_be_bytes(first.try_into().expect("16 bytes")) == 1,
        _ => false,
    };
    if is_narrow { Share::LEAST } else { Share::UNTOLD }
}

/// Returns the share of the protocols above IP from `first` to `last`: narrow without TCP and UDP.
pub(super) fn protocols(first: u8, last: u8) -> Share {
    let holds = |protocol: u8| first <= protocol && protocol <= last;
    if holds(TCP) || holds(UDP) { Share::UNTOLD } else { Share::LEAST }
}

/// Returns the first and last address of a network; `None` when the mask is not that of a prefix.
pub(super) fn network(address: &[u8], mask: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
    let leading = mask.iter().take_while(|byte| **byte == 0xff).count();
    let is_prefix = mask.iter().skip(leading + 1).all(|byte| *byte == 0)
        && mask.iter().map(|byte| byte.count_ones()).sum::<u32>() == ones
        && address.len() == mask.len();
    let first = address.iter().zip(mask).map(|(byte, mask)| byte & mask).collect();
    let last = address.iter().zip(mask).map(|(byte, mask)| byte | !mask).collect();
    is_prefix.then_some((first, last))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_port_is_narrow_and_most_ports_are_not() {
        for (first, last, expected) in [
            (22, 22, Scope::Narrow),
            (60_000, 61_000, Scope::Narrow),
            (0, 4095, Scope::Narrow),
            (0, 4096, Scope::Unclear),
            (1, 65_535, Scope::Unclear),
            (0, 65_535, Scope::Unclear),
            (1024, 65_535, Scope::Unclear),
        ] {
            assert_eq!(ports(first, last).scope(), expected, "{first}-{last}");
        }
        assert_eq!(ports(0, 1023).or(ports(1024, 65_535)).scope(), Scope::Unclear);
        assert_eq!(ports(22, 22).or(ports(80, 80)).or(ports(443, 443)).scope(), Scope::Narrow);
    }

    #[test]
    fn a_senders_port_is_narrow_only_with_what_is_narrow() {
        let (chosen, port, most) = (sender_ports(53, 53), ports(22, 22), ports(1024, 65_535));
        assert_eq!(chosen.scope(), Scope::Chosen);
        assert_eq!(sender_ports(0, 65_535).scope(), Scope::Unclear);
        for (other, both, either) in [
            (port, Scope::Narrow, Scope::Chosen),
            (most, Scope::Chosen, Scope::Unclear),
            (chosen, Scope::Chosen, Scope::Chosen),
            (Share::All, Scope::Chosen, Scope::All),
        ] {
            assert_eq!((chosen.and(other).scope(), other.and(chosen).scope()), (both, both), "{other:?}");
            assert_eq!((chosen.or(other).scope(), other.or(chosen).scope()), (either, either), "{other:?}");
        }
    }

    #[test]
    fn a_network_is_narrow_and_half_of_all_addresses_is_not() {
        let v4 = |text: &str, bits: u32| {
            let address: Ipv4Addr = text.parse().unwrap();
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be_bytes();
            network(&address.octets(), &mask).unwrap()
        };
        let v6 = |text: &str, bits: u32| {
            let address: Ipv6Addr = text.parse().unwrap();
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0).to_be_bytes();
            network(&address.octets(), &mask).unwrap()
        };
        for ((first, last), source, destination) in [
            (v4("10.1.2.3", 32), Scope::Narrow, Scope::Unclear),
            (v4("10.0.0.0", 8), Scope::Narrow, Scope::Unclear),
            (v4("128.0.0.0", 1), Scope::Unclear, Scope::Unclear),
            (v4("0.0.0.0", 0), Scope::Unclear, Scope::Unclear),
            (v4("224.0.0.0", 4), Scope::Narrow, Scope::Narrow),
            (v4("224.0.0.251", 32), Scope::Narrow, Scope::Narrow),
            (v4("255.255.255.255", 32), Scope::Narrow, Scope::Narrow),
            (v4("127.0.0.0", 8), Scope::Narrow, Scope::Narrow),
            (v4("126.0.0.0", 7), Scope::Narrow, Scope::Unclear),
            (v6("2000::", 3), Scope::Unclear, Scope::Unclear),
            (v6("2a00::", 12), Scope::Unclear, Scope::Unclear),
            (v6("2001:db8::", 32), Scope::Narrow, Scope::Unclear),
            (v6("fe80::", 10), Scope::Narrow, Scope::Unclear),
            (v6("fc00::", 7), Scope::Narrow, Scope::Unclear),
            (v6("ff02::fb", 128), Scope::Narrow, Scope::Narrow),
            (v6("ff00::", 8), Scope::Narrow, Scope::Narrow),
            (v6("::1", 128), Scope::Narrow, Scope::Narrow),
            (v6("::", 0), Scope::Unclear, Scope::Unclear),
            (v6("::", 2), Scope::Unclear, Scope::Unclear),
            (v6("8000::", 1), Scope::Unclear, Scope::Unclear),
        ] {
            assert_eq!(sources(&first, &last).scope(), source, "from {first:?}");
            assert_eq!(destinations(&first, &last).scope(), destination, "to {first:?}");
        }
        let private = [v4("10.0.0.0", 8), v4("172.16.0.0", 12), v4("192.168.0.0", 16)];
        let share = private.iter().fold(Share::LEAST, |share, (first, last)| share.or(sources(first, last)));
        assert_eq!(share.scope(), Scope::Narrow);
    }

    #[test]
    fn a_mask_with_holes_is_no_network() {
        assert!(network(&[10, 0, 0, 1], &[255, 0, 0, 255]).is_none());
        assert!(network(&[10, 0, 0, 1], &[255, 0xf0, 0x80, 0]).is_none());
        assert!(network(&[10, 0, 0, 1], &[0xf1, 0, 0, 0]).is_none());
        assert_eq!(network(&[10, 9, 8, 7], &[255, 0xf0, 0, 0]), Some((vec![10, 0, 0, 0], vec![10, 15, 255, 255])));
    }

    #[test]
    fn protocols_with_tcp_or_udp_are_not_narrow() {
        for (first, last, expected) in
            [(1, 1, Scope::Narrow), (6, 6, Scope::Unclear), (17, 17, Scope::Unclear), (1, 17, Scope::Unclear)]
        {
            assert_eq!(protocols(first, last).scope(), expected);
        }
    }
}
