//! How watched files differ from their baseline.

use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::{
    PathText, Reading, Text, Unknown, text_enum,
    wire::{self, Wire},
};
use crate::{id::Digest, time::Timestamp, v1};

text_enum!(
    /// How a file differs from its baseline.
    ChangeKind { Created = "created", Deleted = "deleted", Content = "content", Metadata = "metadata", Type = "type" }
);
text_enum!(
    /// Type of a file-system entry.
    FileType {
        File = "file", Folder = "folder", Link = "link", Pipe = "pipe", Socket = "socket",
        CharacterDevice = "character_device", BlockDevice = "block_device", Other = "other",
    }
);
text_enum!(
    /// Whether file changes are noticed as they happen.
    WatchState { Live = "live", Partial = "partial", ScanOnly = "scan_only" }
);
text_enum!(
    /// How much a difference in a watch set matters; in rising order.
    Severity { Low = "low", Medium = "medium", High = "high", Critical = "critical" }
);
text_enum!(
    /// What explains a difference.
    ExplanationSource { Dpkg = "dpkg", Rpm = "rpm", Pacman = "pacman", Generated = "generated" }
);

/// How watched files differ from their baseline.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct FileIntegrity {
    pub paths: Vec<WatchedPath>,
    pub baseline: Baseline,
    pub entries: u64,
    pub unreadable: Vec<UnreadablePath>,
    pub unreadable_total: u64,
    pub changes: Vec<FileChange>,
    pub changes_total: u64,
    pub explained_total: u64,
    pub watch: WatchState,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<WatchSet>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub explained: Vec<ExplainedChanges>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub explained_groups_total: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub folders_live: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub folders_scan_only: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scan_only: Vec<UnreadablePath>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub scan_only_total: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reread_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reread_in_time: Option<Reading<bool>>,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub state_digest: Text,
}

/// Paths that are watched alike.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct WatchSet {
    pub name: Text,
    pub severity: Severity,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub owner: Text,
    pub entries: u64,
    pub changes_total: u64,
    pub explained_total: u64,
    pub unreadable_total: u64,
    pub digest: Text,
}

/// Differences that one thing explains.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct ExplainedChanges {
    pub explanation: Explanation,
    pub changes_total: u64,
    pub first_detected_time: Timestamp,
    pub last_detected_time: Timestamp,
}

/// Why a difference is expected.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Explanation {
    pub source: ExplanationSource,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub package: Text,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub version: Text,
    pub basis: Text,
}

/// A path that is watched with everything below it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct WatchedPath {
    pub path: PathText,
    pub entries: Reading<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Reading<bool>>,
}

/// The state that files are compared with.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Baseline {
    pub id: Text,
    pub created_time: Timestamp,
    pub reason: Text,
    pub entries: u64,
    pub digest: Text,
}

/// An entry that could not be read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct UnreadablePath {
    pub path: PathText,
    pub unknown: Unknown,
}

/// A difference between a watched file and its baseline.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct FileChange {
    pub path: PathText,
    pub kind: ChangeKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<FileState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<FileState>,
    pub last_unchanged_time: Timestamp,
    pub detected_time: Timestamp,
    pub while_not_observed: bool,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub set: Text,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<Actor>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub states_seen: u64,
}

impl Baseline {
    /// Reason of one that an agent takes because it has none.
    pub const FIRST_SCAN: &str = "first scan";
    /// Reason of one that keeps what the one before says, because other watch sets are in force: it accepts nothing.
    pub const SETS_CHANGED: &str = "watch sets changed; what was watched before is compared with its state of then";
}

impl FileChange {
    /// Returns the digest of the state that was found: what an operator acknowledges. Another content, owner, mode, time of the last
    /// content change or extended attribute has another digest; where the file lies on the disk, and how many names it has, has not.
    ///
    /// It is SHA-256 over `muster/file-state/v1`, a zero byte, and lines, each with its line end: type, `sha256`, size, mode (octal),
    /// owner, group, time of the last content change (RFC 3339, or `unknown`), and for each extended attribute its name, a zero byte
    /// and its digest. Of a deletion it is over `muster/file-deletion/v1`, a zero byte, and those lines of the state before, so that
    /// another file that goes from the same path has another digest.
    pub fn after_digest(&self) -> Digest {
        let (domain, state) = match &self.after {
            Some(after) => ("muster/file-state/v1", Some(after)),
            None => ("muster/file-deletion/v1", self.before.as_ref()),
        };
        Digest::of(domain, &[state.map(FileState::canonical).unwrap_or_default().as_bytes()])
    }
}

impl FileState {
    fn canonical(&self) -> String {
        let modified = self.modified_time.known().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let mut text = format!(
            "{}\n{}\n{}\n{:o}\n{}\n{}\n{modified}\n",
            self.r#type.as_str(),
            self.sha256,
            self.size_bytes,
            self.mode,
            self.uid,
            self.gid
        );
        for attribute in &self.extended_attributes {
            text.push_str(&format!("{}\0{}\n", attribute.name, attribute.sha256));
        }
        text
    }
}

/// A process that wrote to a file, as the kernel told while it did.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Actor {
    pub time: Timestamp,
    pub pid: u32,
    pub program: Reading<Text>,
    pub uid: Reading<u64>,
    pub login_uid: Reading<u64>,
    pub parent_pid: Reading<u64>,
    pub parent_program: Reading<Text>,
    pub source: Text,
}

/// What is recorded of a file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct FileState {
    pub r#type: FileType,
    pub sha256: Text,
    pub size_bytes: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified_time: Reading<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_time: Option<Reading<Timestamp>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inode: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub links: u64,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub md5: Text,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extended_attributes: Vec<ExtendedAttribute>,
}

/// An extended attribute of a file.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct ExtendedAttribute {
    pub name: Text,
    pub sha256: Text,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub meaning: Text,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl FileChange {
    /// Returns the change of `bytes`, every field checked.
    ///
    /// # Errors
    ///
    /// Says which field is not what the contract allows; the first one found decides.
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::Error> {
        let message = v1::FileChange::decode(bytes).map_err(|_| wire::Error::Encoding)?;
        <Self as Wire>::decode(message, "FileChange")
    }

    /// Returns the encoded `FileChange`. Equal changes have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        Wire::encode(self).encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::sample;

    fn with(change: impl Fn(&mut FileState)) -> Digest {
        let mut changed = sample::file_integrity().changes.remove(0);
        changed.after.iter_mut().for_each(change);
        changed.after_digest()
    }

    /// Known from outside: `printf 'muster/file-state/v1\0file\n…' | sha256sum`.
    #[test]
    fn what_is_acknowledged_has_the_digest_that_the_contract_gives_it() {
        let mut change = sample::file_integrity().changes.remove(0);
        change.after = Some(FileState {
            r#type: FileType::File,
            sha256: "e5".repeat(32).as_str().into(),
            size_bytes: 10,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            modified_time: Reading::Known(Timestamp::EPOCH),
            changed_time: None,
            inode: 0,
            links: 0,
            md5: Text::default(),
            extended_attributes: vec![ExtendedAttribute {
                name: "user.a".into(),
                sha256: "f6".repeat(32).as_str().into(),
                meaning: Text::default(),
            }],
        });
        let lines = ["file", &"e5".repeat(32), "10", "4755", "1", "2", "1970-01-01T00:00:00Z", ""].join("\n");
        let text = format!("muster/file-state/v1\0{lines}user.a\0{}\n", "f6".repeat(32));
        assert_eq!(change.after_digest(), Digest::of_bytes(text.as_bytes()));
        change.before = change.after.take();
        let text = format!("muster/file-deletion/v1\0{lines}user.a\0{}\n", "f6".repeat(32));
        assert_eq!(change.after_digest(), Digest::of_bytes(text.as_bytes()));
    }

    #[test]
    fn a_deletion_has_the_digest_of_what_is_gone() {
        let mut change = sample::file_integrity().changes.remove(0);
        change.before = change.after.clone();
        let found = change.after_digest();
        change.after = None;
        let gone = change.after_digest();
        assert_ne!(gone, found);
        change.before.iter_mut().for_each(|before| before.inode += 1);
        assert_eq!(change.after_digest(), gone);
        change.before.iter_mut().for_each(|before| before.sha256 = "00".repeat(32).as_str().into());
        assert_ne!(change.after_digest(), gone);
    }

    #[test]
    fn a_digest_tells_states_apart_and_not_where_a_file_lies() {
        let same = with(|_| {});
        let elsewhere = with(|state| {
            (state.inode, state.links, state.changed_time, state.md5) = (99, 5, None, Text::default());
        });
        assert_eq!(elsewhere, same);
        let others = [
            with(|state| state.sha256 = "00".repeat(32).as_str().into()),
            with(|state| state.mode = 0o4755),
            with(|state| state.uid = 7),
            with(|state| state.gid = 7),
            with(|state| state.size_bytes += 1),
            with(|state| state.modified_time = Reading::Known(Timestamp::EPOCH)),
            with(|state| state.modified_time = Reading::unknown(crate::fact::Cause::Limit, "")),
            with(|state| state.extended_attributes.clear()),
            with(|state| state.extended_attributes[0].sha256 = "00".repeat(32).as_str().into()),
            with(|state| state.r#type = FileType::Other),
        ];
        let mut all = others.to_vec();
        all.push(same);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), others.len() + 1);
    }
}
