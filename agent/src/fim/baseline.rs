//! The baseline: what files are compared with. It is never changed, only replaced as a whole.
//!
//! It is a file of the form that [`super::block`] draws, with the magic line `muster-baseline 2`, a header with its id, time,
//! reason and watch sets, a summary with what it counts for each root and set, and one record for each entry that is covered: its
//! [`State`], or when it could not be read the byte `ff` and, from this version of the agent on, the state that lstat(2) told of.

use std::io;

use muster_proto::{
    fact::{Baseline, PathText, Text},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{
    block::{self, Blocks, Cursor, Digest},
    bytes::Taken,
    place::is_at_or_below,
    record::State,
    sets::{Members, Root, Sets},
    store::{Name, Store},
    watch_set::WatchSet,
};
use crate::host::{self, Metadata};

const MAGIC: &[u8] = b"muster-baseline 2\n";
/// Record of an entry that could not be read. No state begins with this byte.
const UNREADABLE: &[u8] = &[0xff];

/// Header of the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Header {
    id: Text,
    created: Timestamp,
    reason: Text,
    sets: Vec<WatchSet>,
}

/// What the baseline counts.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Entries of each root.
    pub roots: Vec<u64>,
    /// Entries of each set.
    pub sets: Vec<u64>,
    /// Entries that could not be read.
    pub unreadable: u64,
    /// Folders of which not all was seen, although they are among the entries that were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<PathText>,
}

/// A baseline of which the frame is whole.
#[derive(Debug)]
pub struct Opened {
    /// As the fact tells it.
    pub baseline: Baseline,
    /// The sets whose entries it holds.
    pub sets: Vec<WatchSet>,
    /// What it counts.
    pub counts: Counts,
    /// Paths of folders of which not all was seen.
    pub hidden: Vec<Vec<u8>>,
    /// Its records.
    pub blocks: Blocks,
}

/// What the baseline has of an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Before {
    /// Nothing: there was none.
    None,
    /// Nothing, and it could not have more: it lies in what could not be read.
    Hidden,
    /// That it could not be read, and what lstat(2) said of it, where it did.
    Unreadable(Option<State>),
    /// Its state.
    State(State),
}

/// Returns the baseline in force; `None` when there is none.
///
/// # Errors
///
/// `InvalidData` when it is damaged: that is never taken for "there is none".
pub fn open(store: &Store) -> io::Result<Option<Opened>> {
    store.open_blocks(Name::Baseline, MAGIC)?.map(of_blocks).transpose()
}

fn of_blocks(blocks: Blocks) -> io::Result<Opened> {
    let garbled = |_| io::Error::from(io::ErrorKind::InvalidData);
    let header: Header = serde_json::from_slice(blocks.header()).map_err(garbled)?;
    let counts: Counts = serde_json::from_slice(blocks.summary()).map_err(garbled)?;
    if counts.sets.len() != header.sets.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let baseline = Baseline {
        id: header.id,
        created_time: header.created,
        reason: header.reason,
        entries: blocks.records(),
        digest: Text::new(&hex::encode(blocks.digest())),
    };
    let hidden = counts.hidden.iter().map(|path| path.to_bytes().ok_or(io::ErrorKind::InvalidData));
    let hidden = hidden.collect::<Result<_, _>>()?;
    Ok(Opened { baseline, sets: header.sets, counts, hidden, blocks })
}

/// Returns what the record that `cursor` is at says.
///
/// # Errors
///
/// `InvalidData` when it is no record of a baseline.
pub fn before(cursor: &Cursor<'_>) -> io::Result<Before> {
    let body = cursor.body();
    if body == UNREADABLE {
        return Ok(Before::Unreadable(None));
    }
    let (body, is_read) = body.strip_prefix(UNREADABLE).map_or((body, true), |looked| (looked, false));
    let mut taken = Taken(body);
    let state = State::take(&mut taken).and_then(|state| taken.end(state));
    let before = state.map(|state| if is_read { Before::State(state) } else { Before::Unreadable(Some(state)) });
    before.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What a new baseline is to have of an entry.
#[derive(Clone, Copy, Debug)]
pub enum Read<'s> {
    /// Its state.
    State(&'s State),
    /// That it could not be read, and what lstat(2) said of it, where it did.
    Not(Option<Metadata>),
}

/// Takes the entries of a new baseline, in order.
pub struct Writer<'w> {
    blocks: block::Writer<'w>,
    counts: Counts,
    roots: &'w [Root],
    root: usize,
    record: Vec<u8>,
}

impl Writer<'_> {
    /// Writes an entry that counts for the sets `members`.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn add(&mut self, path: &[u8], members: Members, entry: Read<'_>) -> io::Result<()> {
        self.record.clear();
        match entry {
            Read::State(state) => state.put(&mut self.record),
            Read::Not(looked) => {
                self.record.extend_from_slice(UNREADABLE);
                if let Some(metadata) = looked {
                    State::of_metadata(metadata).put(&mut self.record);
                }
                self.counts.unreadable += 1;
            }
        }
        self.root += self.roots[self.root..].iter().take_while(|root| !is_at_or_below(path, &root.path)).count();
        let in_no_root = || io::Error::other("an entry is in no root");
        *self.counts.roots.get_mut(self.root).ok_or_else(in_no_root)? += 1;
        for set in members.iter() {
            self.counts.sets[set] += 1;
        }
        self.blocks.add(path, &self.record)
    }

    /// Takes note of a folder of which not all was seen.
    pub fn hide(&mut self, path: &[u8]) {
        self.counts.hidden.push(PathText::from_bytes(path));
    }
}

/// Writes a new baseline, whose entries `scan` adds, and puts it into force when it is whole and synced.
///
/// # Errors
///
/// When it cannot be written, or what `scan` returns; the one before is then still in force.
pub fn write(
    store: &Store,
    id: &str,
    now: Timestamp,
    reason: &Text,
    sets: &Sets,
    scan: impl FnOnce(&mut Writer<'_>) -> io::Result<()>,
) -> io::Result<Digest> {
    let header = Header { id: Text::new(id), created: now, reason: reason.clone(), sets: sets.sets().to_vec() };
    let header = serde_json::to_vec(&header)?;
    store.replace(Name::Baseline, |out| {
        let counts =
            Counts { roots: vec![0; sets.roots().len()], sets: vec![0; sets.sets().len()], ..Counts::default() };
        let blocks = block::Writer::start(out, MAGIC, &header)?;
        let mut writer = Writer { blocks, counts, roots: sets.roots(), root: 0, record: Vec::new() };
        scan(&mut writer)?;
        let counts = serde_json::to_vec(&writer.counts)?;
        writer.blocks.finish(&counts)
    })
}

/// Returns a new id.
///
/// # Errors
///
/// When there is no randomness.
pub fn new_id() -> io::Result<String> {
    Ok(hex::encode(host::random::<16>()?))
}
