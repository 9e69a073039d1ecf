//! What is known of an entry, by what was found of it, what the baseline has, and what was known before.

use muster_proto::{
    fact::{ChangeKind, FileChange, PathText, Text, Unknown},
    limits,
    time::Timestamp,
};

use super::{
    super::{
        baseline::Before,
        inode_times::InodeTimes,
        known::{Difference, Known, Unreadable, What},
        place::is_at_or_below,
        record::State,
        watch_set::Attributes,
    },
    Entry, Merge,
};

/// Bytes of an explanation, at most: three texts.
const EXPLANATION_BYTES: usize = 3 * limits::TEXT_BYTES + 64;

impl Merge<'_> {
    /// Returns what is known of an entry that is not there.
    pub(super) fn gone(&mut self, entry: Entry, before: &Before) -> Option<Known> {
        match before {
            Before::State(state) => Some(self.differs(entry, ChangeKind::Deleted, Some(state), None)),
            Before::Unreadable(_) => {
                let (set, seen) = (entry.set, entry.known.map_or(self.request.now, |known| known.seen));
                Some(Known { set, is_new: false, unreadable: None, seen, what: What::Gone })
            }
            Before::None | Before::Hidden => None,
        }
    }

    /// Returns what is known of an entry that was read.
    pub(super) fn found_state(&mut self, entry: Entry, state: State) -> Known {
        let created = self.opened.baseline.created_time;
        let unreadable = entry.unreadable.clone();
        let plain = |what, is_new| Known { set: entry.set, is_new, unreadable: None, seen: self.request.now, what };
        let found = match &entry.before {
            Before::Hidden => plain(What::NotCompared(state.metadata), true),
            Before::Unreadable(before) => {
                let before = before.as_ref();
                match before.and_then(|before| Some((before, before.difference(&state, entry.attributes)?))) {
                    Some((before, kind)) => self.differs(entry.without_before(), kind, Some(before), Some(state)),
                    None => plain(What::NotCompared(state.metadata), false),
                }
            }
            Before::None => self.differs(entry.without_before(), ChangeKind::Created, None, Some(state)),
            Before::State(before) => match before.difference(&state, entry.attributes) {
                Some(kind) => self.differs(entry.without_before(), kind, Some(before), Some(state)),
                None if before.metadata == state.metadata && !self.inode_times.is_racy(&state.metadata, created) => {
                    plain(What::AsBaseline, false)
                }
                None => plain(What::Touched(state.metadata), false),
            },
        };
        Known { unreadable, ..unless_same(found, entry.known.as_ref(), &self.inode_times) }
    }

    /// Returns the difference of `kind`, which may be known already.
    pub(super) fn differs(
        &mut self,
        entry: Entry,
        kind: ChangeKind,
        before: Option<&State>,
        found: Option<State>,
    ) -> Known {
        let now = self.request.now;
        let is_new = kind == ChangeKind::Created;
        let known = match entry.known {
            Some(Known { what: What::Differs(difference), seen, .. }) => Some((*difference, seen)),
            _ => None,
        };
        let of = |difference, seen| Known {
            set: entry.set,
            is_new,
            unreadable: None,
            seen,
            what: What::Differs(Box::new(difference)),
        };
        if let Some((known, seen)) = &known
            && known.change.kind == kind
            && is_same_state(known.found.as_ref(), found.as_ref(), entry.attributes)
        {
            let is_recorded = known.found.as_ref().map(|state| &state.metadata)
                == found.as_ref().map(|state| &state.metadata)
                && found.as_ref().is_none_or(|state| !self.inode_times.is_racy(&state.metadata, *seen));
            let difference = Difference { change: known.change.clone(), found, since: known.since };
            return of(difference, if is_recorded { *seen } else { now });
        }
        let scan = &self.scans.roots[self.root];
        let last_seen = self.last_seen(&entry.path);
        let since = known.as_ref().map_or(last_seen, |(_, seen)| last_seen.max(*seen));
        let known = known.map(|(known, _)| known.change);
        let last_unchanged_time = known.as_ref().map_or(last_seen, |change| change.last_unchanged_time);
        let actors = self.request.actors.map(|actors| actors(&entry.path, last_unchanged_time, now));
        let mut actors = actors.unwrap_or_default();
        actors.drain(..actors.len().saturating_sub(limits::ACTORS));
        let change = FileChange {
            path: PathText::from_bytes(&entry.path),
            kind,
            before: before.map(State::to_fact),
            after: found.as_ref().map(State::to_fact),
            last_unchanged_time,
            detected_time: now,
            while_not_observed: scan.run != self.request.run || known.as_ref().is_some_and(|c| c.while_not_observed),
            set: Text::new(&self.request.sets.sets()[entry.set].name),
            explanation: None,
            actors,
            states_seen: known.map_or(0, |change| change.states_seen) + 1,
        };
        of(Difference { change: fitting(change), found, since }, now)
    }

    /// Returns what is to be told of an entry that cannot be read: what lstat(2) said of it, if that differs from the baseline and
    /// from what was known. Its content is told only if it is known and seems to be the same.
    pub(super) fn seen(&self, entry: &Entry) -> Option<State> {
        let looked = entry.looked?;
        let before = match &entry.before {
            Before::State(before) | Before::Unreadable(Some(before)) => Some(before),
            Before::None => None,
            Before::Hidden | Before::Unreadable(None) => return None,
        };
        let known = match entry.known.as_ref().map(|known| &known.what) {
            Some(What::Differs(difference)) => difference.found.as_ref(),
            _ => None,
        };
        let is_same_content = |state: &&State| {
            (state.metadata.kind, state.metadata.size_bytes, state.metadata.modified)
                == (looked.kind, looked.size_bytes, looked.modified)
        };
        let state = match known.filter(is_same_content) {
            Some(known) => State { metadata: looked, ..known.clone() },
            None => State::of_metadata(looked),
        };
        // What was known stays known, where this tells no more.
        let is_told = before.is_none_or(|before| before.difference(&state, entry.attributes).is_some())
            && known.is_none_or(|known| known.difference(&state, entry.attributes).is_some());
        is_told.then_some(state)
    }

    /// Returns when a scan last saw `path`.
    pub(super) fn last_seen(&self, path: &[u8]) -> Timestamp {
        match &self.was_blind {
            Some((blind, since)) if is_at_or_below(path, blind) => *since,
            _ => self.scans.roots[self.root].time,
        }
    }

    pub(super) fn unreadable_of(&self, path: &[u8], known: Option<&Known>, unknown: Unknown) -> Unreadable {
        let before = known.and_then(|known| known.unreadable.as_ref());
        Unreadable { unknown, since: before.map_or_else(|| self.last_seen(path), |before| before.since) }
    }
}

/// Returns what is known of an entry that cannot be read: what was, and that.
pub(super) fn blinded(entry: &Entry, unreadable: Unreadable, now: Timestamp) -> Known {
    let is_new = matches!(entry.before, Before::None | Before::Hidden);
    let plain = || Known { set: entry.set, is_new, unreadable: None, seen: now, what: What::AsBaseline };
    Known { unreadable: Some(unreadable), ..entry.known.clone().unwrap_or_else(plain) }
}

/// Returns `change` with so many of its last actors as leave room for an explanation: each may have run programs with paths at their
/// longest.
fn fitting(mut change: FileChange) -> FileChange {
    let is_too_large = |change: &FileChange| change.encode().len() > limits::FILE_CHANGE_BYTES - EXPLANATION_BYTES;
    while !change.actors.is_empty() && is_too_large(&change) {
        change.actors.remove(0);
    }
    change
}

/// What is read for the first time is another state than the one that only lstat(2) told of: nobody saw what was in it.
fn is_same_state(known: Option<&State>, found: Option<&State>, attributes: Attributes) -> bool {
    match (known, found) {
        (Some(known), Some(found)) => {
            let tells_more = known.sha256.is_none() && found.sha256.is_some()
                || known.attributes.is_none() && found.attributes.is_some();
            !tells_more && known.difference(found, attributes).is_none()
        }
        (None, None) => true,
        _ => false,
    }
}

/// Returns what was `known`, if what was found is the same and its time tells as much.
fn unless_same(found: Known, known: Option<&Known>, times: &InodeTimes) -> Known {
    match (known, &found.what) {
        (Some(known), What::Touched(metadata) | What::NotCompared(metadata))
            if known.what == found.what && known.is_new == found.is_new && !times.is_racy(metadata, known.seen) =>
        {
            Known { seen: known.seen, ..found }
        }
        _ => found,
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::{Actor, Explanation, ExplanationSource, Reading};

    use super::{super::super::record::tests::file, *};
    use crate::host::xattr;

    #[test]
    fn a_change_with_everything_at_its_longest_fits() {
        let text = Text::new(&"x".repeat(limits::TEXT_BYTES));
        let mut state = file(1);
        let mut attributes = Vec::new();
        while xattr::is_recorded(&attributes) {
            attributes.push(xattr::attribute(&[[0xff; 50].as_slice(), &[attributes.len() as u8]].concat(), b""));
        }
        attributes.pop();
        state.attributes = Some(attributes);
        let program = || Reading::Known(text.clone());
        let actor = |pid| Actor {
            time: Timestamp::EPOCH,
            pid,
            program: program(),
            uid: Reading::Known(u64::MAX),
            login_uid: Reading::Known(u64::MAX),
            parent_pid: Reading::Known(u64::MAX),
            parent_program: program(),
            source: "fanotify".into(),
        };
        let change = FileChange {
            path: PathText::from_bytes(&[0xff; 2 * limits::TEXT_BYTES]),
            kind: ChangeKind::Metadata,
            before: Some(state.to_fact()),
            after: Some(state.to_fact()),
            last_unchanged_time: Timestamp::EPOCH,
            detected_time: Timestamp::EPOCH,
            while_not_observed: true,
            set: Text::new(&"s".repeat(64)),
            explanation: None,
            actors: (0..8).map(actor).collect(),
            states_seen: u64::MAX,
        };
        let mut change = fitting(change);
        assert_eq!(change.actors.last().map(|actor| actor.pid), Some(7));
        let (package, version, basis) = (text.clone(), text.clone(), text.clone());
        change.explanation = Some(Explanation { source: ExplanationSource::Dpkg, package, version, basis });
        assert!(change.encode().len() <= limits::FILE_CHANGE_BYTES, "{}", change.encode().len());
        change.actors.insert(0, actor(9));
        assert!(change.encode().len() > limits::FILE_CHANGE_BYTES, "no more was left out than must be");
    }
}
