//! The state of an entry: as it is kept, as it is compared, and as a fact names it.

use std::io;

use muster_proto::{
    fact::{ChangeKind, ExtendedAttribute, FileState, FileType, Reading, Text},
    limits,
    time::Timestamp,
};

use super::{
    bytes::{Taken, put_bytes, put_number},
    watch_set::Attributes,
};
use crate::host::{self, EntryKind, Metadata, Scanned, xattr};

const HAS_DIGEST: u8 = 1 << 2;
const HAS_MODIFIED: u8 = 1 << 3;
const HAS_CHANGED: u8 = 1 << 4;
const HAS_ATTRIBUTES: u8 = 1 << 5;
/// The kind is the one of this place in [`SPECIAL`]. Records of an agent's first versions do not say which it is.
const HAS_SPECIAL: u8 = 1 << 6;
const SPECIAL: [EntryKind; 4] =
    [EntryKind::Pipe, EntryKind::Socket, EntryKind::CharacterDevice, EntryKind::BlockDevice];
/// What is kept of an entry that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// What lstat(2) or fstat(2) said.
    pub metadata: Metadata,
    /// SHA-256 of a file's content or a link's target, where it was read.
    pub sha256: Option<[u8; 32]>,
    /// Extended attributes, sorted by name, where they were read.
    pub attributes: Option<Vec<ExtendedAttribute>>,
}

impl State {
    /// Returns the state of an entry that was read.
    ///
    /// # Errors
    ///
    /// When it has more or longer extended attributes than are recorded, of which some would not be compared.
    pub fn of_read(scanned: Scanned) -> io::Result<Self> {
        let Scanned { metadata, sha256, attributes } = scanned;
        if !xattr::is_recorded(&attributes) {
            return Err(xattr::too_many());
        }
        Ok(Self { metadata, sha256, attributes: Some(attributes) })
    }

    /// Returns the state of an entry of which only the metadata is known.
    pub fn of_metadata(metadata: Metadata) -> Self {
        Self { metadata, sha256: None, attributes: None }
    }

    /// Appends the record.
    pub fn put(&self, out: &mut Vec<u8>) {
        let metadata = &self.metadata;
        let kind = match metadata.kind {
            EntryKind::File => 0,
            EntryKind::Folder => 1,
            EntryKind::Link => 2,
            EntryKind::Pipe
            | EntryKind::Socket
            | EntryKind::CharacterDevice
            | EntryKind::BlockDevice
            | EntryKind::Other => 3,
        };
        let special = SPECIAL.iter().position(|special| *special == metadata.kind);
        let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
        out.push(
            kind | flag(self.sha256.is_some(), HAS_DIGEST)
                | flag(metadata.modified.is_some(), HAS_MODIFIED)
                | flag(metadata.changed_nanos.is_some(), HAS_CHANGED)
                | flag(self.attributes.is_some(), HAS_ATTRIBUTES)
                | flag(special.is_some(), HAS_SPECIAL),
        );
        if let Some(special) = special {
            out.push(special as u8);
        }
        for number in [
            u64::from(metadata.mode),
            metadata.size_bytes,
            u64::from(metadata.uid),
            u64::from(metadata.gid),
            metadata.inode,
            u64::from(metadata.device.0),
            u64::from(metadata.device.1),
            metadata.links,
        ] {
            put_number(out, number);
        }
        if let Some(modified) = metadata.modified {
            out.extend_from_slice(&modified.micros().to_le_bytes());
        }
        if let Some(changed) = metadata.changed_nanos {
            out.extend_from_slice(&changed.to_le_bytes());
        }
        if let Some(sha256) = &self.sha256 {
            out.extend_from_slice(sha256);
        }
        if let Some(attributes) = &self.attributes {
            put_number(out, attributes.len() as u64);
            for attribute in attributes {
                for text in [&attribute.name, &attribute.sha256, &attribute.meaning] {
                    put_bytes(out, text.as_str().as_bytes());
                }
            }
        }
    }

    /// Takes the record; `None` when it is not one. Allocates nothing for an entry without extended attributes.
    pub fn take(taken: &mut Taken<'_>) -> Option<Self> {
        let flags = taken.byte()?;
        let has = |flag: u8| flags & flag != 0;
        let kind = match flags & 3 {
            0 => EntryKind::File,
            1 => EntryKind::Folder,
            2 => EntryKind::Link,
            _ if has(HAS_SPECIAL) => *SPECIAL.get(usize::from(taken.byte()?))?,
            _ => EntryKind::Other,
        };
        if flags >> 7 != 0 || has(HAS_SPECIAL) && flags & 3 != 3 {
            return None;
        }
        let mode = taken.narrow().filter(|mode| *mode <= 0o7777)?;
        let size_bytes = taken.number()?;
        let (uid, gid, inode) = (taken.narrow()?, taken.narrow()?, taken.number()?);
        let device = (taken.narrow()?, taken.narrow()?);
        let links = taken.number()?;
        let modified = if has(HAS_MODIFIED) { Some(taken.time()?) } else { None };
        let changed_nanos = if has(HAS_CHANGED) { Some(taken.signed()?) } else { None };
        let sha256 = if has(HAS_DIGEST) { Some(taken.array()?) } else { None };
        let attributes = if has(HAS_ATTRIBUTES) { Some(take_attributes(taken)?) } else { None };
        let metadata = Metadata { kind, size_bytes, modified, mode, uid, gid, device, inode, links, changed_nanos };
        Some(Self { metadata, sha256, attributes })
    }

    /// Returns how many bytes its extended attributes take, about.
    pub fn attribute_bytes(&self) -> usize {
        self.attributes.iter().flatten().map(|one| size_of_val(one) + xattr::bytes(one)).sum()
    }

    /// Returns the state as a fact names it.
    pub fn to_fact(&self) -> FileState {
        let metadata = &self.metadata;
        FileState {
            r#type: match metadata.kind {
                EntryKind::File => FileType::File,
                EntryKind::Folder => FileType::Folder,
                EntryKind::Link => FileType::Link,
                EntryKind::Pipe => FileType::Pipe,
                EntryKind::Socket => FileType::Socket,
                EntryKind::CharacterDevice => FileType::CharacterDevice,
                EntryKind::BlockDevice => FileType::BlockDevice,
                EntryKind::Other => FileType::Other,
            },
            sha256: self.sha256.map(|digest| Text::new(&hex::encode(digest))).unwrap_or_default(),
            size_bytes: metadata.size_bytes,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            modified_time: metadata.modified_time(),
            changed_time: metadata.changed_nanos.map(changed_time),
            inode: metadata.inode,
            links: metadata.links,
            md5: Text::default(),
            extended_attributes: self.attributes.clone().unwrap_or_default(),
        }
    }

    /// Returns how `after` differs in what is watched; `None` when it does not. What one of both does not have is not compared.
    pub fn difference(&self, after: &Self, watched: Attributes) -> Option<ChangeKind> {
        let (a, b) = (&self.metadata, &after.metadata);
        if !a.kind.is_like(b.kind) {
            return Some(ChangeKind::Type);
        }
        let is_file = b.kind == EntryKind::File;
        let digests = self.sha256.zip(after.sha256);
        if watched.has(Attributes::CONTENT) && digests.is_some_and(|(a, b)| a != b)
            || is_file && watched.has(Attributes::SIZE) && a.size_bytes != b.size_bytes
        {
            return Some(ChangeKind::Content);
        }
        // The size and time of a folder follow from what is in it, and the time of a link from when it was made.
        let has_own = has_own(b.kind) || watched.has(Attributes::FOLDERS);
        let changed = a.changed_nanos.zip(b.changed_nanos);
        let is_changed = watched.has(Attributes::MODE) && a.mode != b.mode
            || watched.has(Attributes::OWNER) && a.uid != b.uid
            || watched.has(Attributes::GROUP) && a.gid != b.gid
            || watched.has(Attributes::MODIFIED_TIME) && has_own && a.modified != b.modified
            || watched.has(Attributes::SIZE) && has_own && a.size_bytes != b.size_bytes
            || watched.has(Attributes::CHANGED_TIME) && changed.is_some_and(|(a, b)| a != b)
            || watched.has(Attributes::INODE) && a.inode != 0 && a.inode != b.inode
            || watched.has(Attributes::LINKS) && a.links != 0 && b.links != 0 && a.links != b.links
            || watched.has(Attributes::EXTENDED) && attributes_differ(self, after);
        is_changed.then_some(ChangeKind::Metadata)
    }

    /// Appends the text of what is watched of it, for the digest of a watched state: each field behind the one before, each ended
    /// by a zero byte, and empty where it is not watched or not known.
    pub fn put_watched(&self, watched: Attributes, out: &mut Vec<u8>) {
        let metadata = &self.metadata;
        let has_own = has_own(metadata.kind) || watched.has(Attributes::FOLDERS);
        let mut field = |is_watched: bool, text: String| {
            if is_watched {
                out.extend_from_slice(text.as_bytes());
            }
            out.push(0);
        };
        field(true, self.to_fact().r#type.as_str().to_owned());
        field(watched.has(Attributes::CONTENT), self.sha256.map(hex::encode).unwrap_or_default());
        field(watched.has(Attributes::SIZE) && has_own, metadata.size_bytes.to_string());
        field(watched.has(Attributes::MODE), format!("{:o}", metadata.mode));
        field(watched.has(Attributes::OWNER), metadata.uid.to_string());
        field(watched.has(Attributes::GROUP), metadata.gid.to_string());
        let modified = metadata.modified.map(|time| time.micros().to_string()).unwrap_or_default();
        field(watched.has(Attributes::MODIFIED_TIME) && has_own, modified);
        let changed = metadata.changed_nanos.map(|nanos| (nanos / 1000).to_string()).unwrap_or_default();
        field(watched.has(Attributes::CHANGED_TIME), changed);
        field(watched.has(Attributes::INODE), metadata.inode.to_string());
        field(watched.has(Attributes::LINKS), metadata.links.to_string());
        let attributes = self.attributes.as_deref().unwrap_or_default();
        field(watched.has(Attributes::EXTENDED), attributes.len().to_string());
        for attribute in attributes.iter().filter(|_| watched.has(Attributes::EXTENDED)) {
            field(true, attribute.name.to_string());
            field(true, attribute.sha256.to_string());
        }
    }
}

/// Returns the kind of an entry that a fact names.
pub fn kind(r#type: FileType) -> EntryKind {
    match r#type {
        FileType::File => EntryKind::File,
        FileType::Folder => EntryKind::Folder,
        FileType::Link => EntryKind::Link,
        FileType::Pipe => EntryKind::Pipe,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice => EntryKind::CharacterDevice,
        FileType::BlockDevice => EntryKind::BlockDevice,
        FileType::Other => EntryKind::Other,
    }
}

fn has_own(kind: EntryKind) -> bool {
    !matches!(kind, EntryKind::Folder | EntryKind::Link)
}

fn attributes_differ(before: &State, after: &State) -> bool {
    before.attributes.as_ref().zip(after.attributes.as_ref()).is_some_and(|(before, after)| before != after)
}

fn take_attributes(taken: &mut Taken<'_>) -> Option<Vec<ExtendedAttribute>> {
    let count = taken.narrow().filter(|count| *count <= limits::EXTENDED_ATTRIBUTES)?;
    let mut text = || Text::parse(taken.text()?.to_owned());
    (0..count).map(|_| Some(ExtendedAttribute { name: text()?, sha256: text()?, meaning: text()? })).collect()
}

fn changed_time(nanos: i64) -> Reading<Timestamp> {
    host::time_reading(Timestamp::from_micros(nanos.div_euclid(1000)))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A file whose content is of one byte.
    pub fn file(content: u8) -> State {
        let metadata = Metadata {
            kind: EntryKind::File,
            size_bytes: 1,
            modified: Some(Timestamp::EPOCH),
            mode: 0o4755,
            uid: 1,
            gid: 2,
            device: (8, 1),
            inode: u64::MAX,
            links: 1,
            changed_nanos: Some(-5),
        };
        let attribute = ExtendedAttribute {
            name: "security.capability".into(),
            sha256: "a1".repeat(32).as_str().into(),
            meaning: "cap_net_raw=ep".into(),
        };
        State { metadata, sha256: Some([content; 32]), attributes: Some(vec![attribute]) }
    }

    fn changed(change: impl FnOnce(&mut State)) -> State {
        let mut state = file(1);
        change(&mut state);
        state
    }

    #[test]
    fn a_state_is_taken_as_it_was_put_and_no_other_way() {
        let folder = changed(|state| {
            state.metadata.kind = EntryKind::Folder;
            (state.sha256, state.metadata.modified, state.metadata.changed_nanos) = (None, None, None);
        });
        let special = SPECIAL.map(|kind| changed(|state| (state.metadata.kind, state.sha256) = (kind, None)));
        for state in [file(1), folder, State::of_metadata(file(1).metadata)].into_iter().chain(special) {
            let mut bytes = Vec::new();
            state.put(&mut bytes);
            let mut taken = Taken(&bytes);
            assert_eq!(State::take(&mut taken), Some(state.clone()));
            assert!(taken.0.is_empty());
            for end in 0..bytes.len() {
                assert_eq!(State::take(&mut Taken(&bytes[..end])), None, "cut at {end}");
            }
        }
    }

    #[test]
    fn a_difference_is_seen_by_the_attribute_that_watches_it_and_no_other() {
        let cases: [(State, Attributes, ChangeKind); 10] = [
            (changed(|s| s.sha256 = Some([2; 32])), Attributes::CONTENT, ChangeKind::Content),
            (changed(|s| s.metadata.size_bytes = 2), Attributes::SIZE, ChangeKind::Content),
            (changed(|s| s.metadata.mode = 0), Attributes::MODE, ChangeKind::Metadata),
            (changed(|s| s.metadata.uid = 0), Attributes::OWNER, ChangeKind::Metadata),
            (changed(|s| s.metadata.gid = 0), Attributes::GROUP, ChangeKind::Metadata),
            (changed(|s| s.metadata.modified = None), Attributes::MODIFIED_TIME, ChangeKind::Metadata),
            (changed(|s| s.metadata.changed_nanos = Some(5000)), Attributes::CHANGED_TIME, ChangeKind::Metadata),
            (changed(|s| s.metadata.inode = 8), Attributes::INODE, ChangeKind::Metadata),
            (changed(|s| s.metadata.links = 2), Attributes::LINKS, ChangeKind::Metadata),
            (changed(|s| s.attributes = Some(Vec::new())), Attributes::EXTENDED, ChangeKind::Metadata),
        ];
        for (after, attribute, kind) in cases {
            assert_eq!(file(1).difference(&after, Attributes::all()), Some(kind), "{attribute:?}");
            assert_eq!(file(1).difference(&after, attribute), Some(kind), "{attribute:?}");
            assert_eq!(file(1).difference(&after, Attributes::all().without(attribute)), None, "{attribute:?}");
            let watched = |state: &State, attributes| {
                let mut out = Vec::new();
                state.put_watched(attributes, &mut out);
                out
            };
            assert_ne!(watched(&file(1), attribute), watched(&after, attribute), "{attribute:?}");
            let others = Attributes::all().without(attribute);
            assert_eq!(watched(&file(1), others), watched(&after, others), "{attribute:?}");
        }
        assert_eq!(
            file(1).difference(&changed(|s| s.metadata.kind = EntryKind::Link), Attributes::all()),
            Some(ChangeKind::Type)
        );
    }

    #[test]
    fn kinds_differ_unless_one_of_both_is_not_told() {
        let of = |kind| changed(|state| (state.metadata.kind, state.sha256) = (kind, None));
        let differ = |a, b| of(a).difference(&of(b), Attributes::default()) == Some(ChangeKind::Type);
        for kind in SPECIAL {
            for other in SPECIAL {
                assert_eq!(differ(kind, other), kind != other, "{kind:?} {other:?}");
            }
            assert!(!differ(EntryKind::Other, kind) && !differ(kind, EntryKind::Other), "{kind:?}");
            for other in [EntryKind::File, EntryKind::Folder, EntryKind::Link] {
                assert!(differ(kind, other) && differ(other, EntryKind::Other), "{kind:?} {other:?}");
            }
        }
    }

    #[test]
    fn what_follows_from_the_content_of_a_folder_is_compared_only_when_asked() {
        let folder =
            |size| changed(|s| (s.metadata.kind, s.metadata.size_bytes, s.sha256) = (EntryKind::Folder, size, None));
        assert_eq!(folder(1).difference(&folder(2), Attributes::default()), None);
        assert_eq!(folder(1).difference(&folder(2), Attributes::all()), Some(ChangeKind::Metadata));
    }
}
