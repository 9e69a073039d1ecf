//! What the metadata of all security repositories say together: the worst of them decides.

use muster_proto::{
    fact::{Cause, Reading, Unknown, UpdateSource},
    time::Timestamp,
};

/// Returns when the oldest metadata of the security repositories were made; one that is unknown makes it unknown.
pub(super) fn time(sources: &[UpdateSource]) -> Reading<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for source in sources.iter().filter(|source| source.security) {
        match &source.release_time {
            Reading::Known(time) => earliest = Some(earliest.map_or(*time, |earliest| earliest.min(*time))),
            unknown => return unknown.clone(),
        }
    }
    earliest.map_or_else(none, Reading::Known)
}

/// Returns until when the metadata of the security repositories may be used. A repository that states no end, as Ubuntu's,
/// sets none; an end that cannot be read makes it unknown.
pub(super) fn end(sources: &[UpdateSource]) -> Reading<Timestamp> {
    let mut ends = sources.iter().filter(|source| source.security).map(|source| &source.valid_until_time).peekable();
    if ends.peek().is_none() {
        return none();
    }
    let mut earliest: Option<Timestamp> = None;
    for end in ends {
        match end {
            Reading::Known(time) => earliest = Some(earliest.map_or(*time, |earliest| earliest.min(*time))),
            Reading::Unknown { unknown } if unknown.cause == Cause::Absent => {}
            unknown => return unknown.clone(),
        }
    }
    let states_none = || Reading::unknown(Cause::Absent, "states none: the security repositories set no Valid-Until");
    earliest.map_or_else(states_none, Reading::Known)
}

/// Returns whether the metadata of every security repository are verified: one that is not decides.
pub(super) fn verified(sources: &[UpdateSource]) -> Reading<bool> {
    let sources = sources.iter().filter(|source| source.security);
    let mut found: Vec<Reading<bool>> = sources.filter_map(|source| source.verified.clone()).collect();
    let rank = |verified: &Reading<bool>| match verified {
        Reading::Known(false) => 0,
        Reading::Unknown { .. } => 1,
        Reading::Known(true) => 2,
    };
    found.sort_by_key(rank);
    let unknown = || Reading::unknown(Cause::Undecidable, "no metadata of a security repository were fetched");
    found.into_iter().next().unwrap_or_else(unknown)
}

/// Returns what repositories say, unless something of them is unknown.
pub(super) fn unless<T>(unknown: &Option<Unknown>, reading: Reading<T>) -> Reading<T> {
    match unknown {
        Some(unknown) => Reading::Unknown { unknown: unknown.clone() },
        None => reading,
    }
}

/// Returns the same of whether they are verified: one that is not decides, whatever the others are.
pub(super) fn unless_false(unknown: &Option<Unknown>, reading: Reading<bool>) -> Reading<bool> {
    if reading == Reading::Known(false) { reading } else { unless(unknown, reading) }
}

fn none() -> Reading<Timestamp> {
    Reading::unknown(Cause::Absent, "no metadata of a security repository were fetched")
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::Text;

    use super::*;

    #[test]
    fn metadata_without_an_end_are_told_from_an_end_that_is_not_readable() {
        let source = |security, end: &Reading<Timestamp>| UpdateSource {
            label: Text::default(),
            codename: Text::default(),
            suite: Text::default(),
            security,
            release_time: Reading::Known(Timestamp::EPOCH),
            valid_until_time: end.clone(),
            origin: Text::default(),
            verified: None,
        };
        let (early, late) = ("2026-11-02T00:00:00Z".parse().unwrap(), "2026-11-09T00:00:00Z".parse().unwrap());
        let none = Reading::unknown(Cause::Absent, "Release file has no Valid-Until");
        let garbled = Reading::unknown(Cause::Garbled, "no date");
        let (early, late) = (Reading::Known(early), Reading::Known(late));
        let end = |sources: &[(bool, &Reading<Timestamp>)]| {
            let sources: Vec<_> = sources.iter().map(|(security, end)| source(*security, end)).collect();
            super::end(&sources)
        };
        assert_eq!(end(&[(true, &late), (true, &early), (false, &garbled)]), early);
        assert_eq!(end(&[(true, &none), (true, &late)]), late);
        assert_eq!(end(&[(true, &late), (true, &garbled)]), garbled);
        let Reading::Unknown { unknown } = end(&[(true, &none)]) else { panic!() };
        assert_eq!((unknown.cause, unknown.detail.as_str().split(':').next()), (Cause::Absent, Some("states none")));
        assert_eq!(end(&[(false, &late)]), super::none());
    }

    #[test]
    fn one_repository_that_is_not_verified_decides() {
        let source = |verified: Reading<bool>| UpdateSource {
            label: Text::default(),
            codename: Text::default(),
            suite: Text::default(),
            security: true,
            release_time: Reading::Known(Timestamp::EPOCH),
            valid_until_time: Reading::Known(Timestamp::EPOCH),
            origin: Text::default(),
            verified: Some(verified),
        };
        let (yes, no) = (|| source(Reading::Known(true)), || source(Reading::Known(false)));
        let unknown = || source(Reading::unknown(Cause::Absent, "x"));
        assert_eq!(verified(&[yes(), yes()]), Reading::Known(true));
        assert_eq!(verified(&[yes(), unknown(), no()]), Reading::Known(false));
        assert_eq!(verified(&[yes(), unknown()]), Reading::unknown(Cause::Absent, "x"));
        assert_eq!(verified(&[UpdateSource { security: false, ..yes() }]).known(), None);
    }
}
