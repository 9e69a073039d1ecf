//! Since when updates are available: what the publisher says of it, or what this agent saw from look to look.
//!
//! The time is told as two bounds, since apt's lists date no package: an update surely was there when the agent first saw it, and
//! surely was not there in the last metadata that it saw without it. At the agent's first look there are none such.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use muster_proto::{
    fact::{Cause, Reading},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::probe::{Look, memory};

/// Name of the file in the probe's memory.
const OFFERED: &str = "offered.json";
/// Version of it.
const VERSION: u32 = 3;
/// The version before, which kept no [`KeptScope`].
const VERSION_WITHOUT_SCOPE: u32 = 2;

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
    /// Whether that is not known since the package or a repository changed, and not since the agent did not look before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_changed: bool,
}

impl Since {
    pub fn available_after_time(&self) -> Reading<Timestamp> {
        let why = match self.is_changed {
            true => "the installed version or a repository is new since the look before, and it may be older than that",
            false => "it was on offer at the first look of this agent",
        };
        self.available_after.map_or_else(|| Reading::unknown(Cause::Undecidable, why), Reading::Known)
    }

    fn changed(self) -> Self {
        Self { available_after: None, is_changed: true, ..self }
    }
}

/// What a look is about. That an update was not pending says that it was not on offer only where what it is for was installed, and where
/// the repositories that offer it were read.
pub(super) struct Scope<'s> {
    /// What is installed, each by [`package`].
    pub installed: BTreeSet<u64>,
    /// Names of the repositories that are read.
    pub sources: BTreeSet<String>,
    /// Returns whether the first version is older than the second.
    pub is_older: &'s dyn Fn(&str, &str) -> bool,
}

/// Returns what stands for an installed version in [`Scope`]: some bytes of a digest, since there may be many. `key` is as
/// [`Update::key`].
pub(super) fn package(key: &str, version: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(format!("{key} {version}")).into();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
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
    /// What that look was about; `None` of a manager whose publishers date their fixes, and in older files.
    #[serde(default)]
    scope: Option<KeptScope>,
    /// By [`Update::key`]. Security updates are counted for themselves: one is not as old as another update of its package.
    security: BTreeMap<String, KeptUpdate>,
    other: BTreeMap<String, KeptUpdate>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct KeptScope {
    installed: BTreeSet<u64>,
    sources: BTreeSet<String>,
}

impl KeptScope {
    /// Returns whether each repository that is read now was read then.
    fn has_sources_of(&self, now: &Scope<'_>) -> bool {
        now.sources.is_subset(&self.sources)
    }
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
    since_in(look, sight, None, updates, installed)
}

/// Returns the same where what is installed may be older than the look before, and the updates of it as well.
pub(super) fn since_in(
    look: &Look<'_>,
    sight: Sight,
    scope: Option<&Scope<'_>>,
    updates: &[Update],
    installed: &dyn Fn(&str) -> Option<Vec<String>>,
) -> io::Result<Vec<Since>> {
    let before = memory::read_json::<Kept>(&look.memory.join(OFFERED));
    let before = before.filter(|kept| matches!(kept.version, VERSION | VERSION_WITHOUT_SCOPE));
    let (after, since) = next(before.unwrap_or_default(), sight, scope, updates, installed);
    memory::write_json(look.memory, OFFERED, &after)?;
    Ok(since)
}

fn next(
    mut before: Kept,
    sight: Sight,
    scope: Option<&Scope<'_>>,
    updates: &[Update],
    installed: &dyn Fn(&str) -> Option<Vec<String>>,
) -> (Kept, Vec<Since>) {
    let seen_whole = if sight.is_complete { sight.metadata.map(|time| time.min(sight.now)) } else { before.seen_whole };
    let kept_scope =
        |scope: &Scope<'_>| KeptScope { installed: scope.installed.clone(), sources: scope.sources.clone() };
    let kept_scope = if sight.is_complete { scope.map(kept_scope) } else { before.scope.clone() };
    let (security, other) = (BTreeMap::new(), BTreeMap::new());
    let mut after = Kept { version: VERSION, seen_whole, scope: kept_scope, security, other };
    let last = Last { seen_whole: before.seen_whole, scope: before.scope };
    let since = updates
        .iter()
        .map(|update| {
            let (old, new) = match update.security {
                true => (&mut before.security, &mut after.security),
                false => (&mut before.other, &mut after.other),
            };
            let since = since_of(old.remove(&update.key), &last, scope, sight.now, update);
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

/// The last look that was complete.
struct Last {
    seen_whole: Option<Timestamp>,
    scope: Option<KeptScope>,
}

fn since_of(
    before: Option<KeptUpdate>,
    last: &Last,
    scope: Option<&Scope<'_>>,
    now: Timestamp,
    update: &Update,
) -> Since {
    let has_sources = scope.is_none_or(|scope| last.scope.as_ref().is_some_and(|last| last.has_sources_of(scope)));
    let seen = match before {
        Some(before) if before.installed_version == update.installed_version => match before.since {
            // Another repository may have had another fix of it before.
            since if !has_sources && since.available_after.is_some() => since.changed(),
            since => since,
        },
        // Another version was installed, which may have been the update that was seen; what is on offer may be as old as it. Of an older
        // one the update may be older, too.
        Some(KeptUpdate { installed_version, since }) => {
            let since = Since { first_offered: now, ..since };
            let is_newer = scope.is_none_or(|scope| (scope.is_older)(&installed_version, &update.installed_version));
            if has_sources && is_newer { since } else { since.changed() }
        }
        None => {
            let since = Since { first_offered: now, available_after: last.seen_whole, is_changed: false };
            let package = package(&update.key, &update.installed_version);
            let was_installed = |last: &KeptScope| last.installed.contains(&package);
            let is_as_it_was = scope.is_none() || has_sources && last.scope.as_ref().is_some_and(was_installed);
            if is_as_it_was || last.scope.is_none() && last.seen_whole.is_none() { since } else { since.changed() }
        }
    };
    let first_offered = seen.first_offered.min(now);
    match update.published {
        Some(published) => Since {
            first_offered: first_offered.min(published),
            // A date from the future says no more than that it is there.
            available_after: Some(published.min(now)),
            is_changed: false,
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
            let (after, since) = next(kept, sight, None, &updates, &|_| Some(vec!["1".to_owned()]));
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

    /// A look at a package for which an update is pending, if it is: its day, the installed version and the repositories.
    type Scoped<'t> = (u64, bool, Option<&'t str>, &'t [&'t str]);

    /// Returns after which day the update of the last look is available.
    fn after_in(kept: Kept, looks: &[Scoped<'_>]) -> Reading<Timestamp> {
        let (mut kept, mut last) = (kept, Vec::new());
        for (now, is_pending, version, sources) in looks {
            let sight = Sight { now: day(*now), is_complete: true, metadata: Some(day(*now)) };
            let update = version.filter(|_| *is_pending).map(|version| update(true, version));
            let scope = Scope {
                installed: version.iter().map(|version| package("a:amd64", version)).collect(),
                sources: sources.iter().map(|source| (*source).to_owned()).collect(),
                is_older: &|a, b| a < b,
            };
            let updates: Vec<Update> = update.into_iter().collect();
            (kept, last) = next(kept, sight, Some(&scope), &updates, &|_| None);
        }
        last[0].available_after_time()
    }

    #[test]
    fn what_was_not_pending_was_not_on_offer_only_for_what_was_installed_from_where_was_read() {
        let (main, both): (&[&str], &[&str]) = (&["main"], &["main", "contrib"]);
        for (looks, expected) in [
            (vec![(1, false, Some("1"), main), (2, true, Some("1"), main)], Some(1)),
            (vec![(1, false, Some("1"), both), (2, true, Some("1"), main)], Some(1)),
            // It was installed since, or an older version of it, for which there was an update all the time.
            (vec![(1, false, None, main), (2, true, Some("1"), main)], None),
            (vec![(1, false, Some("2"), main), (2, true, Some("1"), main)], None),
            (vec![(1, false, Some("1"), main), (2, true, Some("1"), both)], None),
            (vec![(1, true, Some("1"), main)], None),
            // It stays so while it is pending.
            (vec![(1, false, Some("1"), main), (2, true, Some("1"), main), (3, true, Some("1"), main)], Some(1)),
            (vec![(1, false, None, main), (2, true, Some("1"), main), (3, true, Some("1"), main)], None),
            (vec![(1, false, Some("1"), main), (2, true, Some("1"), main), (3, true, Some("1"), both)], None),
            (vec![(1, false, Some("1"), main), (2, true, Some("1"), main), (3, true, Some("2"), main)], Some(1)),
            (vec![(1, false, Some("2"), main), (2, true, Some("2"), main), (3, true, Some("1"), main)], None),
            // What came after that is dated again.
            (vec![(1, false, None, main), (2, false, Some("1"), main), (3, true, Some("1"), main)], Some(2)),
        ] {
            let found = after_in(Kept::default(), &looks);
            assert_eq!(found.known().copied(), expected.map(day), "{looks:?}");
        }
        let detail = |looks: &[Scoped<'_>]| match after_in(Kept::default(), looks) {
            Reading::Unknown { unknown } => unknown.detail.to_string(),
            known => panic!("{known:?}"),
        };
        assert!(detail(&[(1, true, Some("1"), main)]).contains("first look"));
        assert!(detail(&[(1, false, None, main), (2, true, Some("1"), main)]).contains("new since the look before"));
    }

    #[test]
    fn what_was_kept_without_what_it_is_about_gives_no_bound_and_keeps_since_when_it_was_seen() {
        let json = r#"{"version":2,"seen_whole":"2026-11-01T00:00:00Z","security":{"a:amd64":{"installed_version":"1",
            "since":{"first_offered":"2026-11-02T00:00:00Z","available_after":"2026-11-01T00:00:00Z"}}},"other":{}}"#;
        let kept = || serde_json::from_str::<Kept>(json).unwrap();
        assert_eq!(after_in(kept(), &[(9, true, Some("1"), &["main"])]).known(), None);
        let none = Kept { security: BTreeMap::new(), ..kept() };
        assert_eq!(after_in(none, &[(9, true, Some("1"), &["main"])]).known(), None);
        let sight = Sight { now: day(9), is_complete: true, metadata: Some(day(9)) };
        let scope = Scope { installed: BTreeSet::new(), sources: BTreeSet::new(), is_older: &|_, _| false };
        for scope in [None, Some(&scope)] {
            let (_, since) = next(kept(), sight, scope, &[update(true, "1")], &|_| None);
            assert_eq!(since[0].first_offered, day(2));
            assert_eq!(since[0].available_after.is_some(), scope.is_none());
        }
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
                let (after, since) = next(kept, sight, None, &updates, &|_| Some(vec!["1".to_owned()]));
                for since in &since {
                    prop_assert!(since.first_offered >= day(fix));
                    prop_assert!(since.available_after.is_none_or(|after| after < day(fix)));
                }
                kept = after;
            }
        }
    }
}
