//! Since when updates are available: what the publisher says of it, or what this agent saw from look to look.
//!
//! The time is told as two bounds, since apt's lists date no package: an update surely was there when the agent first saw it, and
//! surely was not there in the last metadata that it saw without it. At the agent's first look there are none such.

use std::{collections::BTreeMap, io};

use muster_proto::{
    fact::{Cause, Reading},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::probe::{Look, memory};

/// Name of the file in the probe's memory.
const OFFERED: &str = "offered.json";
/// Version of it.
const VERSION: u32 = 2;

/// An update that is pending.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Update {
    /// Names the installed package: `package:architecture`.
    pub key: String,
    pub installed_version: String,
    pub security: bool,
    /// Date that the publisher gives the oldest fix that is not installed.
    pub published: Option<Timestamp>,
}

/// Since when an update is available.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Since {
    /// It surely was available then.
    pub first_offered: Timestamp,
    /// It surely was not available before this; `None` when that is not known.
    pub available_after: Option<Timestamp>,
}

impl Since {
    pub fn available_after_time(&self) -> Reading<Timestamp> {
        let unknown = || Reading::unknown(Cause::Undecidable, "it was on offer at the first look of this agent");
        self.available_after.map_or_else(unknown, Reading::Known)
    }
}

/// What the agent knows of all updates when it looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub now: Timestamp,
    /// Whether the metadata were seen whole: only then is what is not among them not on offer.
    pub is_complete: bool,
    /// When the oldest metadata of the security repositories were made.
    pub metadata: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Kept {
    version: u32,
    /// [`Sight::metadata`] of the last look that was complete.
    seen_whole: Option<Timestamp>,
    /// By [`Update::key`]. Security updates are counted for themselves: one is not as old as another update of its package.
    security: BTreeMap<String, KeptUpdate>,
    other: BTreeMap<String, KeptUpdate>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct KeptUpdate {
    installed_version: String,
    since: Since,
}

/// Returns since when each of `updates` is available, and keeps it for the next look. `installed` says the
/// versions of a key; `None` when they are not known.
pub(super) fn since(
    look: &Look<'_>,
    sight: Sight,
    updates: &[Update],
    installed: &dyn Fn(&str) -> Option<Vec<String>>,
) -> io::Result<Vec<Since>> {
    let before = memory::read_json::<Kept>(&look.memory.join(OFFERED)).filter(|kept| kept.version == VERSION);
    let (after, since) = next(before.unwrap_or_default(), sight, updates, installed);
    memory::write_json(look.memory, OFFERED, &after)?;
    Ok(since)
}

fn next(
    mut before: Kept,
    sight: Sight,
    updates: &[Update],
    installed: &dyn Fn(&str) -> Option<Vec<String>>,
) -> (Kept, Vec<Since>) {
    let seen_whole = if sight.is_complete { sight.metadata.map(|time| time.min(sight.now)) } else { before.seen_whole };
    let mut after = Kept { version: VERSION, seen_whole, security: BTreeMap::new(), other: BTreeMap::new() };
    let since = updates
        .iter()
        .map(|update| {
            let (old, new) = match update.security {
                true => (&mut before.security, &mut after.security),
                false => (&mut before.other, &mut after.other),
            };
            let since = since_of(old.remove(&update.key), before.seen_whole, sight.now, update);
            let kept = KeptUpdate { installed_version: update.installed_version.clone(), since: since.clone() };
            new.insert(update.key.clone(), kept);
            since
        })
        .collect();
    if !sight.is_complete {
        // What cannot be seen this time is not installed meanwhile, while the package is as it was.
        for (old, new) in [(before.security, &mut after.security), (before.other, &mut after.other)] {
            let is_as_it_was = |key: &str, kept: &KeptUpdate| {
                installed(key).is_none_or(|versions| versions.contains(&kept.installed_version))
            };
            new.extend(old.into_iter().filter(|(key, kept)| is_as_it_was(key, kept)));
        }
    }
    (after, since)
}

fn since_of(before: Option<KeptUpdate>, seen_whole: Option<Timestamp>, now: Timestamp, update: &Update) -> Since {
    let seen = match before {
        Some(before) if before.installed_version == update.installed_version => before.since,
        // Another version was installed, which may have been the update that was seen; what is on offer may be as old as it.
        Some(before) => Since { first_offered: now, ..before.since },
        None => Since { first_offered: now, available_after: seen_whole },
    };
    let first_offered = seen.first_offered.min(now);
    match update.published {
        Some(published) => Since {
            first_offered: first_offered.min(published),
            // A date from the future says no more than that it is there.
            available_after: Some(published.min(now)),
        },
        None => Since { first_offered, ..seen },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(day: u64) -> Timestamp {
        let first: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        first.plus(std::time::Duration::from_secs((day - 1) * 86400))
    }

    fn update(security: bool, version: &str) -> Update {
        Update { key: "a:amd64".to_owned(), installed_version: version.to_owned(), security, published: None }
    }

    /// A look: its day, whether it is complete, the day of the metadata, and the update that is on offer.
    type Seen = (u64, bool, Option<u64>, Option<Update>);

    /// Returns what the last of these looks says: since which day, and after which day.
    fn after(looks: &[Seen]) -> Option<(Timestamp, Option<Timestamp>)> {
        let (mut kept, mut last) = (Kept::default(), None);
        for (now, is_complete, metadata, update) in looks {
            let sight = Sight { now: day(*now), is_complete: *is_complete, metadata: metadata.map(day) };
            let updates: Vec<Update> = update.iter().cloned().collect();
            let (after, since) = next(kept, sight, &updates, &|_| Some(vec!["1".to_owned()]));
            (kept, last) = (after, since.first().map(|since| (since.first_offered, since.available_after)));
        }
        last
    }

    #[test]
    fn an_update_is_available_since_between_the_metadata_without_it_and_the_first_look_with_it() {
        let (security, other) = (|| Some(update(true, "1")), || Some(update(false, "1")));
        for (looks, expected) in [
            // Before the first look it may have been there for years.
            (vec![(1, true, Some(1), security())], (day(1), None)),
            (vec![(1, true, Some(1), security()), (9, true, Some(9), security())], (day(1), None)),
            (vec![(1, true, Some(1), None), (2, true, Some(2), security())], (day(2), Some(day(1)))),
            // The host was off, or its lists were old: the fix came at any time after the old lists.
            (vec![(1, true, Some(1), None), (20, true, Some(20), security())], (day(20), Some(day(1)))),
            (vec![(9, true, Some(1), None), (10, true, Some(10), security())], (day(10), Some(day(1)))),
            // What was not seen whole says nothing of what is not on offer.
            (vec![(1, false, Some(1), None), (2, true, Some(2), security())], (day(2), None)),
            (vec![(1, true, None, None), (2, true, Some(2), security())], (day(2), None)),
            (
                vec![(1, true, Some(1), None), (5, false, Some(5), None), (6, true, Some(6), security())],
                (day(6), Some(day(1))),
            ),
            // A look that sees nothing does not set the count back.
            (
                vec![(1, true, Some(1), security()), (2, false, Some(2), None), (3, true, Some(3), security())],
                (day(1), None),
            ),
            // A security update is not as old as another update that waited before it.
            (vec![(1, true, Some(1), other()), (9, true, Some(9), security())], (day(9), Some(day(1)))),
            // Another version was installed: at the earliest as old as before, at the latest of today.
            (vec![(1, true, Some(1), security()), (9, true, Some(9), Some(update(true, "2")))], (day(9), None)),
            // The clock went back.
            (vec![(9, true, Some(9), security()), (3, true, Some(3), security())], (day(3), None)),
        ] {
            assert_eq!(after(&looks), Some(expected), "{looks:?}");
        }
    }

    #[test]
    fn what_the_publisher_dates_is_as_old_as_that() {
        let dated = |published| Some(Update { published: Some(day(published)), ..update(true, "1") });
        assert_eq!(after(&[(9, true, Some(9), dated(2))]), Some((day(2), Some(day(2)))));
        assert_eq!(after(&[(9, true, Some(9), dated(20))]), Some((day(9), Some(day(9)))));
    }

    proptest! {
        #[test]
        fn the_bounds_hold_the_day_on_which_the_fix_came(
            fix in 2_u64..40,
            looks in proptest::collection::vec((1_u64..4, any::<bool>(), 0_u64..5), 1..20),
        ) {
            let (mut kept, mut now, mut metadata) = (Kept::default(), 1, 1);
            for (step, is_complete, lag) in looks {
                now += step;
                metadata = metadata.max(now.saturating_sub(lag)).max(1);
                let is_offered = metadata >= fix;
                let updates: Vec<Update> = is_offered.then(|| update(true, "1")).into_iter().collect();
                let sight = Sight { now: day(now), is_complete, metadata: Some(day(metadata)) };
                let (after, since) = next(kept, sight, &updates, &|_| Some(vec!["1".to_owned()]));
                for since in &since {
                    prop_assert!(since.first_offered >= day(fix));
                    prop_assert!(since.available_after.is_none_or(|after| after < day(fix)));
                }
                kept = after;
            }
        }
    }
}
