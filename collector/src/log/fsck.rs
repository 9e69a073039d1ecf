//! Recomputes a whole log from its raw entries and compares every file with it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use muster_proto::words::counted;
use tlog_tiles::HASH_SIZE;

use super::{
    Error,
    appender::leaf_hash,
    bundle, note,
    path::{self, CHECKPOINT, Kind, Tile, WIDTH},
    tree::Tree,
};

/// What a check of a whole log found.
#[derive(Debug)]
pub struct Report {
    /// Entries that the checkpoint covers; 0 when it could not be read.
    pub size: u64,
    /// Entries that were read and hashed.
    pub entries: u64,
    /// Tiles and bundles that were compared.
    pub files: u64,
    /// The first file that is not what it must be; `None` when the log is whole.
    pub bad: Option<Bad>,
}

/// A file that is not what it must be.
#[derive(Debug, Eq, PartialEq)]
pub struct Bad {
    /// The file, below the log's folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// Checks the log in `dir` against the key that verifies it: the checkpoint's signature, every bundle, every tile that the
/// entries give, and the root. Reads only; the collector may write meanwhile.
///
/// # Errors
///
/// When the folder cannot be read at all; damage is in the report.
pub fn fsck(dir: &Path, vkey: &str) -> Result<Report, Error> {
    let mut report = Report { size: 0, entries: 0, files: 0, bad: None };
    let path = dir.join(CHECKPOINT);
    let note = match fs::read(&path) {
        Ok(note) => note,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Err(Error::Missing { path: dir.to_owned() }),
        Err(source) => return Err(Error::Io { what: "read", path, source }),
    };
    report.bad = match note::verify_checkpoint(&note, vkey) {
        Err(error) => Some(Bad { path: CHECKPOINT.into(), what: error.to_string() }),
        Ok(checkpoint) => {
            report.size = checkpoint.size;
            match compare(&Place { dir, vkey, size: checkpoint.size }, &mut report) {
                Err(bad) => Some(bad),
                Ok(tree) if tree.root().0 == *checkpoint.root.as_bytes() => None,
                Ok(tree) => {
                    let root = muster_proto::id::Digest::new(tree.root().0);
                    let what = format!("signed root {} is not that of the entries, {root}", checkpoint.root);
                    Some(Bad { path: CHECKPOINT.into(), what })
                }
            }
        }
    };
    Ok(report)
}

/// The log that is checked.
struct Place<'a> {
    dir: &'a Path,
    vkey: &'a str,
    size: u64,
}

/// Returns the tree of all entries, every file on the way compared.
fn compare(place: &Place<'_>, report: &mut Report) -> Result<Tree, Bad> {
    let size = place.size;
    let mut tree = Tree::default();
    let mut full = Vec::new();
    for index in 0..size.div_ceil(WIDTH) {
        let tile = Tile::at(Kind::Entries, index, size).expect("below the size");
        let bytes = place.read(tile)?;
        let torn = || Bad { path: tile.path(), what: "is torn".to_owned() };
        let entries = bundle::split(&bytes).ok_or_else(torn)?;
        if entries.len() != usize::from(tile.width) {
            let what = format!("holds {} instead of {}", counted(entries.len(), "entry"), tile.width);
            return Err(Bad { path: tile.path(), what });
        }
        // The hashes beside the bundle tell which entry of it was changed.
        let hashes = Tile { kind: Kind::Hashes(0), ..tile };
        let beside = place.read(hashes)?;
        for (at, entry) in entries.iter().enumerate() {
            let leaf = leaf_hash(&[entry]);
            if beside.get(at * HASH_SIZE..(at + 1) * HASH_SIZE) != Some(&leaf.0[..]) {
                let entry = index * WIDTH + at as u64;
                let what = format!("or {}: entry {entry} does not have its hash", hashes.path().display());
                return Err(Bad { path: tile.path(), what });
            }
            tree.append(leaf, &mut full);
            report.entries += 1;
        }
        report.files += 1;
        for (tile, bytes) in full.drain(..) {
            same(place, tile, &bytes, report)?;
        }
    }
    for level in path::levels(size) {
        if let Some(tile) = Tile::edge(Kind::Hashes(level), size) {
            same(place, tile, tree.edge(level), report)?;
        }
    }
    Ok(tree)
}

fn same(place: &Place<'_>, tile: Tile, expected: &[u8], report: &mut Report) -> Result<(), Bad> {
    report.files += 1;
    if place.read(tile)? == expected {
        return Ok(());
    }
    Err(Bad { path: tile.path(), what: "is not what the entries give".to_owned() })
}

impl Place<'_> {
    /// Returns the tile's bytes. When the log has grown since the checkpoint was read, the start of a wider form is the same.
    fn read(&self, tile: Tile) -> Result<Vec<u8>, Bad> {
        let path = tile.path();
        let failed = |error: io::Error| Bad { path: tile.path(), what: format!("cannot be read: {error}") };
        match fs::read(self.dir.join(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !tile.is_full() && self.has_grown() => {
                let wider = (tile.width + 1..=256).map(|width| Tile { width, ..tile });
                let found = wider.filter_map(|wider| fs::read(self.dir.join(wider.path())).ok()).next();
                found.and_then(|bytes| start(&bytes, tile)).ok_or_else(|| failed(error))
            }
            other => other.map_err(failed),
        }
    }

    /// Returns whether there is a later checkpoint than the one that is checked. Nothing else may remove a partial file.
    fn has_grown(&self) -> bool {
        let newest = fs::read(self.dir.join(CHECKPOINT)).ok();
        let newest = newest.and_then(|note| note::verify_checkpoint(&note, self.vkey).ok());
        newest.is_some_and(|newest| newest.size > self.size)
    }
}

/// Returns what `bytes` of a wider form hold of `tile`.
fn start(bytes: &[u8], tile: Tile) -> Option<Vec<u8>> {
    let width = usize::from(tile.width);
    let end = match tile.kind {
        Kind::Hashes(_) => width * HASH_SIZE,
        Kind::Entries => bundle::split(bytes)?.iter().take(width).map(|entry| entry.len() + 2).sum(),
    };
    bytes.get(..end).map(<[u8]>::to_vec)
}
