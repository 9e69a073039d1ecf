//! What is known of an entry beyond the baseline, and the file that holds it.
//!
//! The file `changes` is of the form that [`super::block`] draws, with the magic line `muster-changes 3`, a header that names the
//! baselines which it belongs to, no summary, and one record for each path of which there is something to say.

use muster_proto::{
    fact::{FileChange, Reading, Text, Unknown},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{
    bytes::{Taken, put_bytes, put_number, put_time},
    record::{self, State},
};
use crate::host::{EntryKind, Metadata, xattr};

/// First line of the file.
pub const MAGIC: &[u8] = b"muster-changes 3\n";

/// Header of the file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Ids of the baselines from which the records tell the differences: the one in force, and while another with the same
    /// entries takes its place, both.
    pub baselines: Vec<String>,
}

/// What is known of an entry beyond the baseline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Known {
    /// Number of the watch set that it counts for.
    pub set: usize,
    /// Whether the baseline has no such entry and the last look at it found one.
    pub is_new: bool,
    /// Why it could not be read at the last look.
    pub unreadable: Option<Unreadable>,
    /// When the look began that recorded this.
    pub seen: Timestamp,
    /// What was found when it was last read.
    pub what: What,
}

/// An entry that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unreadable {
    /// Why.
    pub unknown: Unknown,
    /// The last look at which it could be.
    pub since: Timestamp,
}

/// What was found of an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum What {
    /// What the baseline has, or nothing yet.
    AsBaseline,
    /// In what is watched the same as the baseline has, with other metadata.
    Touched(Metadata),
    /// An entry that the baseline cannot be compared with: it could not be read for it.
    NotCompared(Metadata),
    /// A difference.
    Differs(Box<Difference>),
    /// Nothing, where the baseline has an entry that could not be read for it.
    Gone,
}

/// A difference from the baseline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference {
    /// As the fact tells it.
    pub change: FileChange,
    /// What was last read of it; `None` of an entry that is gone.
    pub found: Option<State>,
    /// When a look last saw the state before this one, which need not be the baseline's.
    pub since: Timestamp,
}

impl Known {
    /// Returns the metadata that was last found, if the entry was read then.
    pub fn metadata(&self) -> Option<&Metadata> {
        match &self.what {
            What::AsBaseline | What::Gone => None,
            What::Touched(metadata) | What::NotCompared(metadata) => Some(metadata),
            What::Differs(difference) => difference.found.as_ref().map(|found| &found.metadata),
        }
    }

    /// Returns the kind of what was last found, or of what is gone since; `None` where neither was read.
    pub fn kind(&self) -> Option<EntryKind> {
        let gone = match &self.what {
            What::Differs(difference) => difference.change.before.as_ref().map(|before| record::kind(before.r#type)),
            What::AsBaseline | What::Touched(_) | What::NotCompared(_) | What::Gone => None,
        };
        self.metadata().map(|metadata| metadata.kind).or(gone)
    }

    /// Returns how many bytes of memory it takes, about.
    pub fn size_bytes(&self) -> usize {
        let What::Differs(difference) = &self.what else { return size_of::<Self>() };
        let Difference { change, found, .. } = &**difference;
        let states = change.before.iter().chain(&change.after);
        let attributes = states.flat_map(|state| &state.extended_attributes);
        let attributes = attributes.map(|one| size_of_val(one) + xattr::bytes(one)).sum::<usize>();
        let found = found.as_ref().map_or(0, State::attribute_bytes);
        let actors = change
            .actors
            .iter()
            .map(|actor| size_of_val(actor) + length(&actor.program) + length(&actor.parent_program));
        size_of::<Self>()
            + size_of::<Difference>()
            + change.path.as_str().len()
            + attributes
            + found
            + actors.sum::<usize>()
    }

    /// Returns whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.what == What::AsBaseline && self.unreadable.is_none() && !self.is_new
    }

    /// Returns the record.
    pub fn encode(&self) -> Vec<u8> {
        let what = match &self.what {
            What::AsBaseline => 0,
            What::Touched(_) => 1,
            What::NotCompared(_) => 2,
            What::Differs(_) => 3,
            What::Gone => 4,
        };
        let mut out = vec![what | u8::from(self.is_new) << 3 | u8::from(self.unreadable.is_some()) << 4];
        put_number(&mut out, self.set as u64);
        put_time(&mut out, self.seen);
        if let Some(unreadable) = &self.unreadable {
            put_time(&mut out, unreadable.since);
            put_bytes(&mut out, &serde_json::to_vec(&unreadable.unknown).unwrap_or_default());
        }
        match &self.what {
            What::AsBaseline | What::Gone => {}
            What::Touched(metadata) | What::NotCompared(metadata) => State::of_metadata(*metadata).put(&mut out),
            What::Differs(difference) => {
                out.push(u8::from(difference.found.is_some()));
                if let Some(found) = &difference.found {
                    found.put(&mut out);
                }
                put_time(&mut out, difference.since);
                put_bytes(&mut out, &difference.change.encode());
            }
        }
        out
    }

    /// Returns what `record` says; `None` when it is not one.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let mut taken = Taken(record);
        let flags = taken.byte().filter(|flags| flags >> 5 == 0)?;
        let set = taken.narrow()?;
        let seen = taken.time()?;
        let unreadable = if flags & 16 == 0 {
            None
        } else {
            let since = taken.time()?;
            Some(Unreadable { unknown: serde_json::from_slice(taken.bytes()?).ok()?, since })
        };
        let what = match flags & 7 {
            0 => What::AsBaseline,
            1 => What::Touched(State::take(&mut taken)?.metadata),
            2 => What::NotCompared(State::take(&mut taken)?.metadata),
            3 => {
                let found = match taken.byte()? {
                    0 => None,
                    1 => Some(State::take(&mut taken)?),
                    _ => return None,
                };
                let since = taken.time()?;
                let change = FileChange::decode(taken.bytes()?).ok()?;
                What::Differs(Box::new(Difference { change, found, since }))
            }
            4 => What::Gone,
            _ => return None,
        };
        taken.end(Self { set, is_new: flags & 8 != 0, unreadable, seen, what })
    }
}

fn length(text: &Reading<Text>) -> usize {
    text.known().map_or(0, |text| text.as_str().len())
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::{Cause, ChangeKind, PathText};
    use proptest::prelude::*;

    use super::{super::record::tests::file, *};

    fn difference() -> Difference {
        let change = FileChange {
            path: PathText::from_bytes(b"/a\xff"),
            kind: ChangeKind::Content,
            before: Some(file(1).to_fact()),
            after: Some(file(2).to_fact()),
            last_unchanged_time: Timestamp::EPOCH,
            detected_time: Timestamp::EPOCH,
            while_not_observed: true,
            set: "files".into(),
            explanation: None,
            actors: Vec::new(),
            states_seen: 3,
        };
        // The text has no room for a time before 1970.
        let mut change = change;
        for state in [&mut change.before, &mut change.after].into_iter().flatten() {
            state.changed_time = None;
            state.md5 = Text::default();
        }
        Difference { change, found: Some(file(2)), since: Timestamp::EPOCH }
    }

    #[test]
    fn what_is_known_is_decoded_as_it_was_encoded_and_no_other_way() {
        let unreadable = Unreadable { unknown: Unknown::new(Cause::Forbidden, "read"), since: Timestamp::EPOCH };
        let whats = [
            What::AsBaseline,
            What::Gone,
            What::Touched(file(1).metadata),
            What::NotCompared(file(1).metadata),
            What::Differs(Box::new(difference())),
            What::Differs(Box::new(Difference { found: None, ..difference() })),
        ];
        for what in whats {
            for unreadable in [None, Some(unreadable.clone())] {
                let known = Known { set: 300, is_new: true, unreadable, seen: Timestamp::EPOCH, what: what.clone() };
                let bytes = known.encode();
                assert_eq!(Known::decode(&bytes), Some(known));
                for end in 0..bytes.len() {
                    assert_eq!(Known::decode(&bytes[..end]), None, "cut at {end}");
                }
                assert_eq!(Known::decode(&[&bytes, b"\0".as_slice()].concat()), None);
            }
        }
    }

    proptest! {
        #[test]
        fn any_record_is_refused_or_encodes_to_what_decodes_the_same(
            flags in 0_u8..32, rest in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let record = [&[flags], rest.as_slice()].concat();
            if let Some(known) = Known::decode(&record) {
                prop_assert_eq!(Known::decode(&known.encode()), Some(known));
            }
        }

        #[test]
        fn a_damaged_record_never_panics(at in 0_usize..400, byte: u8, end in 0_usize..400) {
            let what = What::Differs(Box::new(difference()));
            let mut record = Known { set: 1, is_new: false, unreadable: None, seen: Timestamp::EPOCH, what }.encode();
            let length = record.len();
            record[at % length] = byte;
            if let Some(known) = Known::decode(&record[..length - end % 2]) {
                prop_assert_eq!(Known::decode(&known.encode()), Some(known));
            }
        }
    }
}
