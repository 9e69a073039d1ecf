//! Changes of watched files as hosts told them, what became of each, and who acknowledged what.
//!
//! How much is kept of a host is bounded, and what is dropped is counted: a host may claim a thousand new changes with each report.

mod read;
mod write;

use std::{cmp::Ordering, collections::BTreeMap};

use muster_proto::{
    fact::{ExplainedChanges, FileChange},
    id::{AgentId, Digest},
    time::Timestamp,
    v1,
};
use serde::{Deserialize, Serialize};

pub use read::acknowledged;

/// Changes of files that are kept of a host, at most: five times what one report lists.
pub const CHANGES_KEPT: u64 = 5000;
/// Groups of explained changes that are kept of a host, at most.
pub const GROUPS_KEPT: u64 = 5000;
/// Baselines that are kept of a host, at most.
pub const BASELINES_KEPT: u64 = 1000;

/// Why a change of a file ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileEnd {
    /// The file is again as the same baseline has it.
    Restored,
    /// As above, or a package explains it by now.
    RestoredOrExplained,
    /// The file changed again.
    ChangedAgain,
    /// A new baseline was taken, with a reason.
    Accepted,
    /// A first baseline was taken again: nobody accepted the change.
    BaselineLost,
    /// The path is no longer watched, or in another way.
    NotWatched,
}

impl FileEnd {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Restored,
        Self::RestoredOrExplained,
        Self::ChangedAgain,
        Self::Accepted,
        Self::BaselineLost,
        Self::NotWatched,
    ];

    /// Returns the wire form.
    pub fn to_wire(self) -> v1::FileChangeEnd {
        match self {
            Self::Restored => v1::FileChangeEnd::Restored,
            Self::RestoredOrExplained => v1::FileChangeEnd::RestoredOrExplained,
            Self::ChangedAgain => v1::FileChangeEnd::ChangedAgain,
            Self::Accepted => v1::FileChangeEnd::Accepted,
            Self::BaselineLost => v1::FileChangeEnd::BaselineLost,
            Self::NotWatched => v1::FileChangeEnd::NotWatched,
        }
    }

    fn number(self) -> i64 {
        i32::from(self.to_wire()).into()
    }

    fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.number() == number)
    }
}

/// How many of something a host told, and how many of these are no longer kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// How many were told; the last one has this number.
    pub told: u64,
    /// How many are no longer kept.
    pub dropped: u64,
}

/// How many rows about files are no longer kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FilesDropped {
    /// Changes.
    pub changes: u64,
    /// Groups of explained changes.
    pub groups: u64,
    /// Baselines.
    pub baselines: u64,
}

/// What is watched on a host, by its newest fact.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Watched {
    /// Paths that are watched with everything below them, without a slash at the end, in the order of [`by_part`]; none below another.
    roots: Vec<String>,
    /// Digest of the definition of each watch set, by name.
    pub sets: BTreeMap<String, String>,
}

impl Watched {
    /// Returns what is watched: `roots` with everything below them, and sets with the digest of each.
    pub fn new<'a>(roots: impl Iterator<Item = &'a str>, sets: BTreeMap<String, String>) -> Self {
        let mut all: Vec<&str> = roots.map(|root| root.trim_end_matches('/')).collect();
        all.sort_by(|a, b| by_part(a, b));
        let mut roots: Vec<String> = Vec::new();
        for root in all {
            if roots.last().is_none_or(|above| !is_at_or_below(root, above)) {
                roots.push(root.to_owned());
            }
        }
        Self { roots, sets }
    }

    /// Returns whether `path` lies at or below a watched path. A watch set may leave it out all the same.
    pub fn covers(&self, path: &str) -> bool {
        let after = self.roots.partition_point(|root| by_part(root, path).is_le());
        after.checked_sub(1).is_some_and(|at| is_at_or_below(path, &self.roots[at]))
    }
}

/// Compares paths part by part: what is below a folder follows it at once, as in no other order.
fn by_part(a: &str, b: &str) -> Ordering {
    fn ranks(path: &str) -> impl Iterator<Item = u8> {
        path.bytes().map(|byte| if byte == b'/' { 0 } else { byte })
    }
    ranks(a).cmp(ranks(b))
}

fn is_at_or_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Where a host stands with its files.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileHost {
    /// Id and digest of its baseline; empty before the first.
    pub baseline: (String, String),
    /// How many changes were explained.
    pub explained_total: u64,
    /// What is watched.
    pub watched: Watched,
    /// Its changes.
    pub changes: Tally,
    /// Its groups of explained changes.
    pub groups: Tally,
    /// Its baselines.
    pub baselines: Tally,
}

/// A change that has not ended, as far as it is compared with what a host tells next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastingChange {
    /// Its number.
    pub number: u64,
    /// What makes it this change and not another one of the same path.
    pub identity: Digest,
    /// Its path.
    pub path: String,
    /// Its watch set.
    pub set: String,
    /// Whether the newest fact lists it.
    pub is_listed: bool,
    /// Digest of the encoded `FileChange` as it was told last.
    pub told: Digest,
}

/// A change to write.
#[derive(Clone, Copy, Debug)]
pub struct NewChange<'a> {
    /// Its number.
    pub number: u64,
    /// What makes it this change.
    pub identity: Digest,
    /// The change.
    pub change: &'a FileChange,
    /// The same, encoded.
    pub bytes: &'a [u8],
    /// Severity of its watch set; empty when it was not told.
    pub severity: &'a str,
}

/// A change, what became of it, and who acknowledged it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileChangeRow {
    /// Whose.
    pub agent: AgentId,
    /// Its number.
    pub number: u64,
    /// Its path.
    pub path: String,
    /// What kind of change, as in the contract.
    pub kind: String,
    /// Its watch set; may be empty.
    pub set: String,
    /// Severity of the set; empty when it was not told.
    pub severity: String,
    /// Content of the baseline; empty where none is recorded.
    pub before_sha256: String,
    /// Content that was found; empty where none is recorded.
    pub after_sha256: String,
    /// Digest of the state that was found.
    pub after_digest: Digest,
    /// When it was found, host's clock.
    pub detected: Timestamp,
    /// Whether the newest fact lists it.
    pub is_listed: bool,
    /// The encoded `FileChange` as it was told last; empty in [`super::Views::file_contents`].
    pub bytes: Vec<u8>,
    /// Log index and received time of the report that told it first.
    pub from: (u64, Timestamp),
    /// Log index and received time of the report that no longer told it, why, and the reason that a new baseline states.
    pub ended: Option<(u64, Timestamp, FileEnd, String)>,
    /// Who acknowledged it.
    pub acknowledged: Option<AcknowledgementRow>,
}

/// An acknowledgement of a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcknowledgementRow {
    /// Log index of the act.
    pub log_index: u64,
    /// When.
    pub time: Timestamp,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Where the change is found; may be empty.
    pub reference: String,
}

/// Explained changes of a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupRow {
    /// Whose.
    pub agent: AgentId,
    /// Their number.
    pub number: u64,
    /// What explains how many, as it was told last.
    pub group: ExplainedChanges,
    /// Log index and received time of the report that told them first.
    pub from: (u64, Timestamp),
    /// The same of the report that no longer told them.
    pub ended: Option<(u64, Timestamp)>,
}

/// A baseline of a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BaselineRow {
    /// Its number.
    pub number: u64,
    /// The baseline.
    pub baseline: muster_proto::fact::Baseline,
    /// Whether it took another one's place without a reason.
    pub lost_before: bool,
    /// Log index and received time of the report that told it first.
    pub from: (u64, Timestamp),
}

/// A place in a list that is ordered by host and number: the last one that was taken.
pub type Cursor = (AgentId, u64);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_covered_by_itself_and_by_folders_above_it_alone() {
        let watched = |root: &str| Watched::new([root].into_iter(), BTreeMap::new());
        for (root, path, expected) in [
            ("/etc", "/etc", true),
            ("/etc", "/etc/passwd", true),
            ("/etc", "/etcetera", false),
            ("/", "/etc/passwd", true),
            ("/etc/passwd", "/etc", false),
        ] {
            assert_eq!(watched(root).covers(path), expected, "{root} {path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_is_covered_as_if_every_root_were_asked(
            roots in proptest::collection::vec("(/[ab!.]{1,2}){0,3}/?", 0..8),
            path in "(/[ab!.]{1,2}){1,4}",
        ) {
            let watched = Watched::new(roots.iter().map(String::as_str), BTreeMap::new());
            let expected = roots.iter().any(|root| is_at_or_below(&path, root.trim_end_matches('/')));
            prop_assert_eq!(watched.covers(&path), expected, "{:?}", watched.roots);
        }
    }

    #[test]
    fn every_end_survives_its_number() {
        for end in FileEnd::ALL {
            assert_eq!(FileEnd::from_number(end.number()), Some(end));
        }
        assert_eq!(FileEnd::from_number(0), None);
    }
}
