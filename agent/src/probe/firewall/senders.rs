//! Sets of addresses that packets may come from. Pure.

use std::collections::BTreeMap;

use crate::host::Family;

/// First and last address, as numbers.
pub(super) type Range = (u128, u128);

/// Addresses, kept as ranges that do not touch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Senders(BTreeMap<u128, u128>);

impl Senders {
    /// Returns the addresses from which packets may come from outside: of one host, and not of the loopback.
    pub fn outside(family: Family) -> Self {
        match family {
            // Linux takes no packet from 0.0.0.0, the loopback, groups and 255.255.255.255 (`ip_route_input_slow`).
            Family::Ipv4 => {
                Self(BTreeMap::from([(1, 0x7eff_ffff), (0x8000_0000, 0xdfff_ffff), (0xf000_0000, 0xffff_fffe)]))
            }
            Family::Ipv6 => Self::ordinary(family),
        }
    }

    /// Returns those that hosts have: who lets them all in lets everyone in.
    pub fn ordinary(family: Family) -> Self {
        match family {
            // 0.0.0.0/8 and what begins at 240.0.0.0 are given to no host (RFC 6890), and often dropped.
            Family::Ipv4 => Self(BTreeMap::from([(0x0100_0000, 0x7eff_ffff), (0x8000_0000, 0xdfff_ffff)])),
            // Neither ::, ::1 nor a group (RFC 4291, section 2.4).
            Family::Ipv6 => Self(BTreeMap::from([(2, 0xfeff << 112 | u128::MAX >> 16)])),
        }
    }

    pub fn ranges(&self) -> impl Iterator<Item = Range> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether it holds everything that `other` does.
    pub fn covers(&self, other: &Self) -> bool {
        let mut missing = other.clone();
        missing.cut(&Part::Ranges(self.ranges().collect()));
        missing.is_empty()
    }

    /// Takes every address out.
    pub fn take(&mut self) -> Self {
        Self(std::mem::take(&mut self.0))
    }

    /// Adds what `other` holds.
    pub fn add(&mut self, other: Self) {
        if self.is_empty() {
            self.0 = other.0;
            return;
        }
        for (first, last) in other.0 {
            self.add_range((first, last));
        }
    }

    fn add_range(&mut self, (mut first, mut last): Range) {
        // What overlaps the new range or touches it becomes a part of it.
        let before = first.saturating_sub(1);
        let after = last.saturating_add(1);
        while let Some((&start, &end)) = self.0.range(..=after).next_back().filter(|(_, end)| **end >= before) {
            self.0.remove(&start);
            first = first.min(start);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    /// Takes the addresses of `part` out, and returns them.
    pub fn cut(&mut self, part: &Part) -> Self {
        match part {
            Part::All => self.take(),
            Part::Ranges(ranges) => {
                let mut cut = Self::default();
                ranges.iter().for_each(|range| self.cut_range(*range, &mut cut));
                cut
            }
        }
    }

    fn cut_range(&mut self, (first, last): Range, cut: &mut Self) {
        while let Some((&start, &end)) = self.0.range(..=last).next_back().filter(|(_, end)| **end >= first) {
            self.0.remove(&start);
            if start < first {
                self.0.insert(start, first - 1);
            }
            if end > last {
                self.0.insert(last + 1, end);
            }
            cut.0.insert(start.max(first), end.min(last));
        }
    }

    /// Returns the addresses that are in `part` too.
    pub fn within(&self, part: &Part) -> Self {
        let Part::Ranges(ranges) = part else { return self.clone() };
        let mut within = Self::default();
        for &(first, last) in ranges {
            for (&start, &end) in self.0.range(..=last).rev().take_while(|(_, end)| **end >= first) {
                within.0.insert(start.max(first), end.min(last));
            }
        }
        within
    }
}

/// Addresses that a condition speaks of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Part {
    All,
    /// Sorted, without overlap.
    Ranges(Vec<Range>),
}

impl Part {
    pub const NONE: Self = Self::Ranges(Vec::new());

    /// Returns the addresses of any of `ranges`.
    pub fn of(mut ranges: Vec<Range>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<Range> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self::Ranges(merged)
    }

    pub fn is_none(&self) -> bool {
        matches!(self, Self::Ranges(ranges) if ranges.is_empty())
    }

    /// Returns every other address.
    pub fn inverted(self) -> Self {
        let Self::Ranges(ranges) = self else { return Self::NONE };
        if ranges.is_empty() {
            return Self::All;
        }
        let mut gaps = Vec::new();
        let mut next = Some(0);
        for (first, last) in ranges {
            if let Some(start) = next.filter(|start| *start < first) {
                gaps.push((start, first - 1));
            }
            next = last.checked_add(1);
        }
        gaps.extend(next.map(|start| (start, u128::MAX)));
        Self::Ranges(gaps)
    }

    /// Returns the addresses of both.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, other) => other,
            (part, Self::All) => part,
            (Self::Ranges(a), Self::Ranges(b)) => {
                let mut both = Vec::new();
                let (mut i, mut j) = (0, 0);
                while let (Some(&(first, last)), Some(&(other_first, other_last))) = (a.get(i), b.get(j)) {
                    let (start, end) = (first.max(other_first), last.min(other_last));
                    if start <= end {
                        both.push((start, end));
                    }
                    if last < other_last { i += 1 } else { j += 1 }
                }
                Self::Ranges(both)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn loopback_groups_and_no_address_are_not_outside() {
        let is_in = |mut senders: Senders, address: u128| !senders.cut(&Part::of(vec![(address, address)])).is_empty();
        let holds = |family, address| is_in(Senders::outside(family), address);
        for (address, is_outside, is_ordinary) in [
            ("9.9.9.9", true, true),
            ("0.0.0.0", false, false),
            ("0.0.0.1", true, false),
            ("0.1.2.3", true, false),
            ("126.255.255.255", true, true),
            ("127.0.0.1", false, false),
            ("128.0.0.1", true, true),
            ("223.255.255.255", true, true),
            ("224.0.0.1", false, false),
            ("240.0.0.7", true, false),
            ("255.255.255.254", true, false),
            ("255.255.255.255", false, false),
        ] {
            let number = u128::from(u32::from(address.parse::<std::net::Ipv4Addr>().unwrap()));
            assert_eq!(holds(Family::Ipv4, number), is_outside, "{address}");
            assert_eq!(is_in(Senders::ordinary(Family::Ipv4), number), is_ordinary, "{address}");
        }
        for (address, expected) in [("::", false), ("::1", false), ("::2", true), ("fe80::1", true), ("ff02::1", false)]
        {
            let number: std::net::Ipv6Addr = address.parse().unwrap();
            assert_eq!(holds(Family::Ipv6, number.into()), expected, "{address}");
        }
    }

    fn ranges() -> impl Strategy<Value = Vec<Range>> {
        prop::collection::vec((0_u128..64, 0_u128..8).prop_map(|(first, more)| (first, (first + more).min(63))), 0..6)
    }

    /// The same as bits.
    fn bits(ranges: &[Range]) -> u64 {
        ranges.iter().flat_map(|(first, last)| *first..=*last).fold(0, |bits, address| bits | 1 << address)
    }

    fn bits_of(senders: &Senders) -> u64 {
        let ranges: Vec<_> = senders.0.iter().map(|(first, last)| (*first, *last)).collect();
        assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "{ranges:?}");
        bits(&ranges)
    }

    fn bits_of_part(part: &Part) -> u64 {
        match part {
            Part::All => u64::MAX,
            Part::Ranges(ranges) => {
                bits(&ranges.iter().map(|(first, last)| (*first, *last.min(&63))).collect::<Vec<_>>())
            }
        }
    }

    proptest! {
        #[test]
        fn sets_do_as_sets_of_single_addresses(a in ranges(), b in ranges()) {
            let (part_a, part_b) = (Part::of(a.clone()), Part::of(b.clone()));
            let mut senders = Senders::default();
            a.iter().for_each(|range| senders.add_range(*range));
            prop_assert_eq!(bits_of(&senders), bits(&a));
            prop_assert_eq!(bits_of_part(&part_a.clone().inverted()), !bits(&a));
            prop_assert_eq!(bits_of_part(&part_a.and(part_b.clone())), bits(&a) & bits(&b));
            prop_assert_eq!(bits_of(&senders.within(&part_b)), bits(&a) & bits(&b));
            let cut = senders.cut(&part_b);
            prop_assert_eq!((bits_of(&cut), bits_of(&senders)), (bits(&a) & bits(&b), bits(&a) & !bits(&b)));
            senders.add(cut);
            prop_assert_eq!(bits_of(&senders), bits(&a));
        }
    }
}
