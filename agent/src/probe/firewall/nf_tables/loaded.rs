//! A register with a part of a packet, and comparisons of it. Pure.

use super::{
    super::{
        packet::{Ask, Condition, Test},
        rules::Scope,
        share,
    },
    source::Source,
};

// Operators of comparisons (`enum nft_cmp_ops`).
pub(super) const EQUAL: u32 = 0;
pub(super) const NOT_EQUAL: u32 = 1;

/// What a register was loaded with, and what is asked of it so far.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub source: Source,
    pub bytes: usize,
    pub mask: Option<Vec<u8>>,
    /// What the conditions before this one leave: two of them make a range.
    pub within: Option<(Vec<u8>, Vec<u8>)>,
}

impl Loaded {
    /// Returns what a comparison asks of a packet.
    pub fn condition(&self, operator: u32, wanted: &[u8]) -> Condition {
        let source = self.source;
        let is_inverted = operator == NOT_EQUAL;
        // Nobody has to send what is dropped, and what is let in is not told.
        if source == Source::Chosen {
            return Condition::Seldom;
        }
        if let Source::WayBack { is_present } = source {
            let is_nobody = wanted.iter().all(|byte| *byte == 0);
            return match operator {
                // To which of several interfaces it goes is not told.
                EQUAL | NOT_EQUAL if self.mask.is_some() || !is_nobody && !is_present => Condition::Unclear,
                EQUAL | NOT_EQUAL if is_nobody != is_inverted => Condition::Seldom,
                EQUAL | NOT_EQUAL => Condition::Mostly,
                _ => Condition::Unclear,
            };
        }
        if let Some([left, right]) = source.halves() {
            let half = wanted.len() / 2;
            let whole = vec![0xff; wanted.len()];
            let mask = self.mask.as_deref().unwrap_or(&whole);
            let (Some((a, b)), Some((mask_a, mask_b))) = (wanted.split_at_checked(half), mask.split_at_checked(half))
            else {
                return Condition::Unclear;
            };
            return match (share::network(a, mask_a), share::network(b, mask_b), operator) {
                (Some((first, last)), Some((other_first, other_last)), EQUAL | NOT_EQUAL) => {
                    let tests = vec![left.within(&first, &last), right.within(&other_first, &other_last)];
                    Condition::AnyOf { lists: vec![tests], is_inverted }
                }
                _ => Condition::Unclear,
            };
        }
        let within = |first, last| Condition::test(source.field(), Ask::Within(first, last), is_inverted);
        let Some(mask) = &self.mask else {
            let (Some(first), Some(last)) = (source.number(wanted, 0), source.number(wanted, 0xff)) else {
                return Condition::Unclear;
            };
            return match operator {
                EQUAL | NOT_EQUAL => within(first, last),
                _ if source.is_native() => Condition::Unclear,
                2 => first.checked_sub(1).map_or(Condition::NEVER, |last| within(0, last)),
                3 => within(0, last),
                4 => last.checked_add(1).map_or(Condition::NEVER, |first| within(first, u128::MAX)),
                5 => within(first, u128::MAX),
                _ => Condition::Unclear,
            };
        };
        if !matches!(operator, EQUAL | NOT_EQUAL) {
            return Condition::Unclear;
        }
        match (share::network(wanted, mask), source.number(mask, 0), source.number(wanted, 0)) {
            (Some((first, last)), ..) if !source.is_native() && first == wanted => {
                let Test { field, ask } = source.within(&first, &last);
                Condition::test(field, ask, is_inverted)
            }
            (_, Some(mask), Some(value)) => Condition::test(source.field(), Ask::Bits { mask, value }, is_inverted),
            _ => Condition::Unclear,
        }
    }

    /// Returns the scope of a comparison.
    pub fn compare(&mut self, operator: u32, wanted: &[u8]) -> Scope {
        let width = match self.source {
            Source::Sender(bytes) | Source::Receiver(bytes) => bytes,
            _ => wanted.len(),
        };
        let filled = |mut bytes: Vec<u8>, with: u8| {
            bytes.resize(width, with);
            bytes
        };
        let is_order = !matches!(operator, EQUAL | NOT_EQUAL);
        if wanted.len() > width || self.mask.is_some() && is_order {
            return Scope::Unclear;
        }
        let whole = vec![0xff; wanted.len()];
        let Some((first, last)) = share::network(wanted, self.mask.as_deref().unwrap_or(&whole)) else {
            return Scope::Unclear;
        };
        let (first, last) = (filled(first, 0), filled(last, 0xff));
        let (lowest, highest) = (vec![0; width], vec![0xff; width]);
        let (first, last) = match operator {
            EQUAL => (first, last),
            NOT_EQUAL => return self.source.share(&first, &last).scope().inverted(),
            // Below and at most, above and at least: one value more is no matter.
            2 | 3 => (lowest, last),
            4 | 5 => (first, highest),
            _ => return Scope::Unclear,
        };
        let (low, high) = self.within.take().unwrap_or_else(|| (first.clone(), last.clone()));
        let (first, last) = (first.max(low), last.min(high));
        let scope = self.source.share(&first, &last).scope();
        self.within = Some((first, last));
        scope
    }
}
