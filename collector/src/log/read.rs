//! Reads entries and proofs from the files of a log, also while it grows.
//!
//! Files below the newest checkpoint never change, but a partial tile goes away soon after a wider one is there; a reader
//! that meets that reads the newest checkpoint again. Hashes for proofs are checked against the checkpoint's root.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use muster_proto::id::Digest;
use tlog_tiles::{HASH_SIZE, Hash, TileHashReader, TileReader};

use super::{
    Checkpoint, Error, Inner, Log, bundle,
    path::{HEIGHT, Kind, Tile, WIDTH},
    tree,
};

/// Bytes of full tiles and bundles kept in memory.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

impl Log {
    /// Returns the entries of `range`, which lies below the newest checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Position`] when it does not; [`Error::Damaged`] and [`Error::Io`] when the files do not hold them.
    pub fn entries(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, Error> {
        let size = self.size();
        if range.start > range.end || range.end > size {
            return Err(Error::Position { position: range.end.max(range.start), size });
        }
        let mut entries = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or_default());
        let mut at = range.start;
        while at < range.end {
            let index = at / WIDTH;
            let until = range.end.min((index + 1) * WIDTH);
            let (path, bytes) = self.inner.tile(Kind::Entries, index)?;
            let places = (at % WIDTH) as usize..(until - index * WIDTH) as usize;
            let bundle = bundle::split(&bytes).filter(|bundle| bundle.len() >= places.end);
            let bundle = bundle.ok_or(Error::Damaged { path: path.path(), what: "not a bundle of its width" })?;
            entries.extend(bundle[places].iter().map(|entry| entry.to_vec()));
            at = until;
        }
        Ok(entries)
    }

    /// Returns the entry at `index`.
    ///
    /// # Errors
    ///
    /// As [`Self::entries`].
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, Error> {
        let position = || Error::Position { position: index, size: self.size() };
        let range = index..index.checked_add(1).ok_or_else(position)?;
        self.entries(range)?.pop().ok_or_else(position)
    }

    /// Returns the proof that the log of `size` entries holds that at `index` (RFC 6962 section 2.1.1).
    ///
    /// # Errors
    ///
    /// [`Error::Position`] unless index < size <= the newest checkpoint's; else the disk's.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, Error> {
        let reader = self.inner.reader(size)?;
        if index >= size {
            return Err(Error::Position { position: index, size });
        }
        reader.run(|hashes| tlog_tiles::prove_record(size, index, hashes)).map(to_digests)
    }

    /// Returns the proof that the log grew from `old` to `new` entries (RFC 6962 section 2.1.2); empty when `old` is 0 or
    /// equal to `new`.
    ///
    /// # Errors
    ///
    /// [`Error::Position`] unless old <= new <= the newest checkpoint's size; else the disk's.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Digest>, Error> {
        let reader = self.inner.reader(new)?;
        if old > new {
            return Err(Error::Position { position: old, size: new });
        }
        if old == 0 || old == new {
            return Ok(Vec::new());
        }
        reader.run(|hashes| tlog_tiles::prove_tree(new, old, hashes)).map(to_digests)
    }
}

impl Inner {
    pub(super) fn root_at(&self, size: u64) -> Result<Digest, Error> {
        let reader = self.reader(size)?;
        if size == 0 {
            return Ok(Digest::new(tree::empty_root().0));
        }
        if size == reader.checkpoint.size {
            return Ok(reader.checkpoint.root);
        }
        reader.run(|hashes| tlog_tiles::tree_hash(size, hashes)).map(|hash| Digest::new(hash.0))
    }

    /// Returns a reader of hashes under the newest checkpoint, which covers `size` entries.
    fn reader(&self, size: u64) -> Result<Reader<'_>, Error> {
        let checkpoint = self.newest.borrow().clone();
        if size > checkpoint.size {
            return Err(Error::Position { position: size, size: checkpoint.size });
        }
        Ok(Reader { log: self, checkpoint, failed: Mutex::new(None) })
    }

    /// Returns the tile `index` of `kind` as wide as the newest checkpoint has it.
    fn tile(&self, kind: Kind, index: u64) -> Result<(Tile, Arc<[u8]>), Error> {
        let mut tries = 0;
        loop {
            let size = self.newest.borrow().size;
            let outside = Error::Position { position: index.saturating_mul(WIDTH), size };
            let tile = Tile::at(kind, index, size).ok_or(outside)?;
            if let Some(bytes) = lock(&self.cache).get(tile) {
                return Ok((tile, bytes));
            }
            match fs::read(self.dir.join(tile.path())) {
                Ok(bytes) => {
                    let bytes: Arc<[u8]> = bytes.into();
                    if tile.is_full() {
                        lock(&self.cache).insert(tile, Arc::clone(&bytes));
                    }
                    return Ok((tile, bytes));
                }
                // The log grew twice meanwhile and this partial form is gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 8 => tries += 1,
                Err(source) => return Err(Error::Io { what: "read", path: tile.path(), source }),
            }
        }
    }
}

/// Gives checked hashes to the proof functions, and keeps the first error of the disk, which they cannot carry.
struct Reader<'a> {
    log: &'a Inner,
    checkpoint: Checkpoint,
    failed: Mutex<Option<Error>>,
}

impl Reader<'_> {
    fn run<T>(&self, prove: impl FnOnce(&TileHashReader<'_>) -> Result<T, tlog_tiles::Error>) -> Result<T, Error> {
        let root = Hash(*self.checkpoint.root.as_bytes());
        prove(&TileHashReader::new(self.checkpoint.size, root, self)).map_err(|_| {
            let what = "not what the checkpoint's root says";
            lock(&self.failed).take().unwrap_or(Error::Damaged { path: super::path::TILES.into(), what })
        })
    }
}

impl TileReader for Reader<'_> {
    fn height(&self) -> u8 {
        HEIGHT
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |wanted: &tlog_tiles::Tile| {
            let (tile, bytes) = self.log.tile(Kind::Hashes(wanted.level()), wanted.level_index())?;
            // The file may be wider than the checkpoint that the proof is for.
            let cut = bytes.get(..wanted.width() as usize * HASH_SIZE).map(<[u8]>::to_vec);
            cut.ok_or(Error::Damaged { path: tile.path(), what: "shorter than its width" })
        };
        tiles.iter().map(read).collect::<Result<_, Error>>().map_err(|error| {
            *lock(&self.failed) = Some(error);
            tlog_tiles::Error::InvalidTile
        })
    }

    fn save_tiles(&self, _tiles: &[tlog_tiles::Tile], _data: &[Vec<u8>]) {}
}

/// Full tiles and bundles, the oldest dropped first.
#[derive(Default)]
pub(super) struct Cache {
    tiles: HashMap<Tile, Arc<[u8]>>,
    order: VecDeque<Tile>,
    bytes: usize,
}

impl Cache {
    fn get(&self, tile: Tile) -> Option<Arc<[u8]>> {
        self.tiles.get(&tile).cloned()
    }

    pub(super) fn insert(&mut self, tile: Tile, bytes: Arc<[u8]>) {
        if bytes.len() > CACHE_BYTES / 2 || self.tiles.contains_key(&tile) {
            return;
        }
        self.bytes += bytes.len();
        self.tiles.insert(tile, bytes);
        self.order.push_back(tile);
        while self.bytes > CACHE_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.tiles.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }
}

/// Takes a lock whose data stay whole when a holder panics: each change under it is a single step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn to_digests(hashes: Vec<Hash>) -> Vec<Digest> {
    hashes.into_iter().map(|hash| Digest::new(hash.0)).collect()
}
