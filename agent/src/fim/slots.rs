//! Which files are due to be read again although their metadata did not change.
//!
//! Each file belongs to one of 256 slots, by a hash of its path keyed with the baseline's id. Each slot has its turn once in seven
//! eighths of the period, one after the other, so that scans share the reading evenly and a late one has time to catch up. A slot
//! whose turn came since it was last read is due: after a pause these are all whose turn was missed.

use std::time::Duration;

use muster_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How many slots there are.
pub const SLOTS: usize = 256;

/// When the files of each slot were last read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Slots(Vec<Timestamp>);

impl Slots {
    /// Returns slots that were all read at `time`.
    pub fn read_at(time: Timestamp) -> Self {
        Self(vec![time; SLOTS])
    }

    /// Returns whether there is one time for each slot.
    pub fn is_whole(&self) -> bool {
        self.0.len() == SLOTS
    }

    /// Returns which slots are due at `now`, when every file is to be read once in `period`; none where that is zero.
    pub fn due(&self, now: Timestamp, period: Duration, id: &str) -> Due {
        let mut is_due = [false; SLOTS];
        for (slot, (is_due, read)) in is_due.iter_mut().zip(&self.0).enumerate() {
            // A time still to come is one of a clock that was put back.
            *is_due = !period.is_zero() && (*read > now || *read < last_turn(slot, now, period));
        }
        Due { is_due, key: hash(OFFSET, id.as_bytes()) }
    }

    /// Returns which slots were not read for longer than `period`; none where that is zero.
    pub fn overdue(&self, now: Timestamp, period: Duration, id: &str) -> Due {
        let mut is_due = [false; SLOTS];
        for (is_due, read) in is_due.iter_mut().zip(&self.0) {
            *is_due = !period.is_zero() && (*read > now || now.since(*read) > period);
        }
        Due { is_due, key: hash(OFFSET, id.as_bytes()) }
    }

    /// Takes note that the files of the slots that are `due` were read at `now`.
    pub fn set_read(&mut self, due: &Due, now: Timestamp) {
        for (read, is_due) in self.0.iter_mut().zip(due.is_due) {
            if is_due {
                *read = now;
            }
        }
    }

    /// Returns whether some file may not have been read for longer than `period`.
    pub fn is_overdue(&self, now: Timestamp, period: Duration) -> bool {
        self.0.iter().any(|read| now.since(*read) > period)
    }
}

/// Returns when `slot` last had its turn at or before `now`.
fn last_turn(slot: usize, now: Timestamp, period: Duration) -> Timestamp {
    let turn = (period * 7 / 8 / SLOTS as u32).as_micros().max(1);
    let tick = u128::try_from(now.micros()).unwrap_or(0) / turn;
    let slots = SLOTS as u128;
    let behind = (tick + slots - slot as u128) % slots;
    let micros = tick.saturating_sub(behind) * turn;
    i64::try_from(micros).ok().and_then(Timestamp::from_micros).unwrap_or(Timestamp::EPOCH)
}

/// The slots that are due.
#[derive(Clone, Debug)]
pub struct Due {
    is_due: [bool; SLOTS],
    key: u64,
}

impl Due {
    /// Returns that every file is due, or that none is.
    pub fn every(is_due: bool) -> Self {
        Self { is_due: [is_due; SLOTS], key: 0 }
    }

    /// Returns whether the file at `path` is due.
    pub fn has(&self, path: &[u8]) -> bool {
        self.is_due[slot_of(self.key, path)]
    }

    /// Returns whether some file may be due.
    pub fn is_any(&self) -> bool {
        self.is_due.contains(&true)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "it is below the number of slots")]
fn slot_of(key: u64, path: &[u8]) -> usize {
    let hash = hash(key, path);
    // The low bits of this hash depend on few bits of each byte.
    ((hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, going on from `hash`. Whose file is in which slot is no secret from root, who could read the key.
fn hash(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn paths_are_spread_over_the_slots_and_otherwise_for_another_baseline() {
        let mut counts = [0; SLOTS];
        let (key, other) = (hash(OFFSET, b"00"), hash(OFFSET, b"01"));
        let mut moved = 0;
        for number in 0..SLOTS * 100 {
            let path = format!("/usr/lib/{number}");
            counts[slot_of(key, path.as_bytes())] += 1;
            moved += usize::from(slot_of(key, path.as_bytes()) != slot_of(other, path.as_bytes()));
        }
        assert!(counts.iter().all(|count| (40..180).contains(count)), "{counts:?}");
        assert!(moved > SLOTS * 90);
    }

    #[test]
    fn nothing_is_due_without_a_period() {
        assert!(!Slots::read_at(Timestamp::EPOCH).due(Timestamp::EPOCH.plus(DAY), Duration::ZERO, "00").is_any());
    }

    #[test]
    fn after_a_pause_longer_than_the_period_every_slot_is_due() {
        let slots = Slots::read_at(Timestamp::EPOCH.plus(DAY));
        let now = Timestamp::EPOCH.plus(DAY * 3);
        assert!(slots.is_overdue(now, DAY));
        assert_eq!(slots.due(now, DAY, "00").is_due, [true; SLOTS]);
    }

    #[test]
    fn on_battery_only_what_is_late_is_due() {
        let read = Timestamp::EPOCH.plus(DAY);
        let overdue = |now: Timestamp| Slots::read_at(read).overdue(now, DAY * 2, "00");
        assert!(!overdue(read.plus(DAY * 2)).is_any());
        assert_eq!(overdue(read.plus(DAY * 2 + Duration::from_secs(1))).is_due, [true; SLOTS]);
        assert!(overdue(Timestamp::EPOCH).is_any());
        assert!(!Slots::read_at(read).overdue(read.plus(DAY * 9), Duration::ZERO, "00").is_any());
    }

    #[test]
    fn a_slot_read_in_the_future_is_due() {
        let slots = Slots::read_at(Timestamp::EPOCH.plus(DAY * 2));
        assert_eq!(slots.due(Timestamp::EPOCH.plus(DAY), DAY, "00").is_due, [true; SLOTS]);
    }

    proptest! {
        #[test]
        fn with_scans_no_further_apart_than_an_eighth_every_slot_is_read_within_the_period(
            start in 0_u64..10_000_000, gaps in prop::collection::vec(1_u64..10_800, 1..200),
        ) {
            let mut now = Timestamp::EPOCH.plus(DAY * 20_000 + Duration::from_secs(start));
            let mut slots = Slots::read_at(now);
            for gap in gaps {
                now = now.plus(Duration::from_secs(gap));
                let due = slots.due(now, DAY, "00");
                prop_assert!(!slots.is_overdue(now, DAY));
                // The reading is shared: no more than the time since the last scan asks for.
                let most = gap * SLOTS as u64 / (86_400 * 7 / 8) + 2;
                prop_assert!(due.is_due.iter().filter(|is_due| **is_due).count() as u64 <= most);
                slots.set_read(&due, now);
            }
        }
    }
}
