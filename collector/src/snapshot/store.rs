//! Snapshots on disk: `<id>.zip`, and `<id>.json` beside it, written last, which says what it is. What has no `.json` is not there,
//! and is removed at the next start.
//!
//! The folder is bounded. The oldest snapshots make room for new ones: each can be made again from the log.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use muster_proto::{id::Digest, time::Timestamp, v1};
use serde::{Deserialize, Serialize};

/// Digits of an id: the beginning of the file's SHA-256.
const ID_DIGITS: usize = 32;

/// Snapshots that are kept, at most.
pub const SNAPSHOTS: usize = 256;
/// Bytes of snapshots that are kept, at most. One that is larger by itself is kept alone.
pub const BYTES: u64 = 8 << 30;

/// Something is wrong with the folder of snapshots.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} {}", path.display())]
pub struct Error {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What a snapshot is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Its bytes.
    pub size_bytes: u64,
    /// When it was made first.
    pub create_time: Timestamp,
    /// The instant that it describes.
    pub as_of: Timestamp,
    /// Entries of the log that it rests on.
    pub log_size: u64,
    /// Hosts in it.
    pub hosts: u64,
    /// Who asked for it first.
    pub actor: String,
}

impl Record {
    /// Returns its id.
    pub fn id(&self) -> String {
        id(&self.sha256)
    }

    /// Returns the wire form.
    pub fn to_wire(&self) -> v1::Snapshot {
        v1::Snapshot {
            id: self.id(),
            create_time: Some(self.create_time.to_wire()),
            as_of_time: Some(self.as_of.to_wire()),
            log_size: self.log_size,
            sha256: self.sha256.to_string(),
            size_bytes: self.size_bytes,
            hosts: self.hosts,
            actor: self.actor.clone(),
        }
    }
}

/// A folder of snapshots.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    snapshots: usize,
    bytes: u64,
}

impl Store {
    /// Opens the folder, which is made when it is not there, and removes what was left unfinished in it.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        Self::with_limits(folder, SNAPSHOTS, BYTES)
    }

    fn with_limits(folder: &Path, snapshots: usize, bytes: u64) -> Result<Self, Error> {
        let store = Self { folder: folder.to_owned(), snapshots, bytes };
        fs::create_dir_all(folder).map_err(|source| store.error("make", folder, source))?;
        store.clear()?;
        Ok(store)
    }

    /// Writes a snapshot's bytes, durably, after the oldest ones made room for it. It is listed only after [`Self::put_record`].
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn put_bytes(&self, sha256: &Digest, bytes: &[u8]) -> Result<(), Error> {
        self.make_room(sha256, bytes.len() as u64)?;
        self.write(&self.zip(&id(sha256)), bytes)
    }

    /// Removes a snapshot's bytes, unless it is listed.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn discard(&self, sha256: &Digest) -> Result<(), Error> {
        let id = id(sha256);
        if self.record(&id).is_some() { Ok(()) } else { self.remove(&self.zip(&id)) }
    }

    /// Writes what a snapshot is, durably, unless that is written already. Returns what is written.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn put_record(&self, record: &Record) -> Result<Record, Error> {
        if let Some(first) = self.record(&record.id()) {
            return Ok(first);
        }
        let text = serde_json::to_vec_pretty(record).expect("a record is JSON");
        self.write(&self.json(&record.id()), &text)?;
        Ok(record.clone())
    }

    /// Returns the snapshot `id`, if it is there.
    pub fn record(&self, id: &str) -> Option<Record> {
        if id.len() != ID_DIGITS || !id.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f')) {
            return None;
        }
        let record: Record = serde_json::from_slice(&fs::read(self.json(id)).ok()?).ok()?;
        (record.id() == id).then_some(record)
    }

    /// Returns every snapshot, newest first.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn records(&self) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        let error = |source| self.error("list", &self.folder, source);
        for entry in fs::read_dir(&self.folder).map_err(error)? {
            let name = entry.map_err(error)?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
            records.extend(id.and_then(|id| self.record(id)));
        }
        records.sort_by_key(|record| (std::cmp::Reverse(record.create_time), record.sha256));
        Ok(records)
    }

    /// Opens the bytes of a snapshot.
    ///
    /// # Errors
    ///
    /// When they are not there or not as many as they must be.
    pub fn bytes(&self, record: &Record) -> Result<File, Error> {
        let path = self.zip(&record.id());
        let open = || {
            let file = File::open(&path)?;
            if file.metadata()?.len() != record.size_bytes {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its size is not the recorded one"));
            }
            Ok(file)
        };
        open().map_err(|source| self.error("open", &path, source))
    }

    /// Removes files that no record stands for.
    fn clear(&self) -> Result<(), Error> {
        let error = |source| self.error("list", &self.folder, source);
        for entry in fs::read_dir(&self.folder).map_err(error)? {
            let path = entry.map_err(error)?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let is_listed = || path.file_stem().and_then(|id| id.to_str()).is_some_and(|id| self.record(id).is_some());
            if extension == Some("part") || extension == Some("zip") && !is_listed() {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the oldest snapshots until one of `bytes` more fits.
    fn make_room(&self, sha256: &Digest, bytes: u64) -> Result<(), Error> {
        let mut records = self.records()?;
        records.retain(|record| record.sha256 != *sha256);
        let mut total: u64 = records.iter().map(|record| record.size_bytes).sum();
        while records.len() >= self.snapshots || total.saturating_add(bytes) > self.bytes {
            let Some(oldest) = records.pop() else { return Ok(()) };
            tracing::info!(snapshot = oldest.id(), "the oldest snapshot makes room; it can be made again from the log");
            // The record first: without it, what is left is removed at the next start.
            self.remove(&self.json(&oldest.id()))?;
            self.remove(&self.zip(&oldest.id()))?;
            total -= oldest.size_bytes;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), Error> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.error("remove", path, source)),
            _ => Ok(()),
        }
    }

    fn zip(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.zip"))
    }

    fn json(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let part = path.with_extension("part");
        let write = || {
            let mut file = File::create(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&part, path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| self.error("write", path, source))
    }

    fn error(&self, what: &'static str, path: &Path, source: io::Error) -> Error {
        Error { what, path: path.to_owned(), source }
    }
}

fn id(sha256: &Digest) -> String {
    let mut id = sha256.to_string();
    id.truncate(ID_DIGITS);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: &[u8], second: i64) -> Record {
        Record {
            sha256: Digest::of_bytes(bytes),
            size_bytes: bytes.len() as u64,
            create_time: Timestamp::from_seconds(second).unwrap(),
            as_of: Timestamp::from_seconds(1).unwrap(),
            log_size: 7,
            hosts: 1,
            actor: "spiffe://c1/auditor/a".to_owned(),
        }
    }

    #[test]
    fn a_snapshot_is_listed_when_its_record_is_written_and_the_first_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("snapshots")).unwrap();
        let first = record(b"a", 10);
        store.put_bytes(&first.sha256, b"a").unwrap();
        assert!(store.records().unwrap().is_empty());
        store.put_record(&first).unwrap();
        assert_eq!(store.put_record(&record(b"a", 20)).unwrap(), first);
        let second = record(b"b", 30);
        store.put_record(&second).unwrap();
        assert_eq!(store.records().unwrap(), [second.clone(), first.clone()]);
        assert!(store.bytes(&first).is_ok());
        assert!(store.bytes(&second).is_err());
    }

    fn put(store: &Store, bytes: &[u8], second: i64) -> Record {
        let record = record(bytes, second);
        store.put_bytes(&record.sha256, bytes).unwrap();
        store.put_record(&record).unwrap()
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn the_oldest_snapshots_make_room_by_count_and_by_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::with_limits(folder.path(), 2, 100).unwrap();
        let (a, b) = (put(&store, b"a", 10), put(&store, b"b", 20));
        assert_eq!(store.records().unwrap(), [b.clone(), a.clone()]);
        // Made again, it takes no more room.
        assert_eq!(put(&store, b"a", 25), a);
        let c = put(&store, b"c", 30);
        assert_eq!(store.records().unwrap(), [c.clone(), b]);
        let large = put(&store, &[7; 99], 40);
        assert_eq!(store.records().unwrap(), [large, c]);
        let larger = put(&store, &[8; 100], 50);
        assert_eq!(store.records().unwrap(), [larger]);
        let largest = put(&store, &[9; 101], 60);
        assert_eq!(store.records().unwrap(), [largest]);
        assert_eq!(files(folder.path()), 2);
    }

    #[test]
    fn what_was_not_exported_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let kept = put(&store, b"kept", 10);
        store.put_bytes(&Digest::of_bytes(b"x"), b"x").unwrap();
        store.discard(&Digest::of_bytes(b"x")).unwrap();
        store.discard(&kept.sha256).unwrap();
        assert_eq!(files(folder.path()), 2);
        // Killed before it was exported, or while it was written.
        store.put_bytes(&Digest::of_bytes(b"y"), b"y").unwrap();
        fs::write(folder.path().join("z.part"), b"z").unwrap();
        let again = Store::open(folder.path()).unwrap();
        assert_eq!(again.records().unwrap(), [kept]);
        assert_eq!(files(folder.path()), 2);
    }

    #[test]
    fn an_id_never_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("snapshots")).unwrap();
        std::fs::write(folder.path().join("x.json"), b"{}").unwrap();
        for id in ["../x", "", "x", "../../../../../../../../../etc/pw", &"A".repeat(32)] {
            assert_eq!(store.record(id), None, "{id}");
        }
    }
}
