//! Makes a log and opens one: checks the edge against the checkpoint and discards what lies beyond it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tlog_tiles::HASH_SIZE;

use super::{
    Appender, Checkpoint, Error, Inner, Key, Log,
    appender::leaf_hash,
    bundle,
    disk::{Disk, Folder},
    note,
    path::{self, CHECKPOINT, Kind, Tile, WIDTH},
    tree::{self, Tree},
};

/// Held by the process that writes.
const LOCK: &str = "lock";

impl Log {
    /// Makes an empty log in `dir`, which is made when it is not there and must be empty: a signed checkpoint of size 0.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when the folder holds anything; else the disk's.
    pub fn create(dir: &Path, key: &Key) -> Result<(), Error> {
        let failed = |what| move |source| Error::Io { what, path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed("make"))?;
        if fs::read_dir(dir).map_err(failed("list"))?.next().is_some() {
            return Err(Error::Exists { path: dir.to_owned() });
        }
        let checkpoint = key.sign(0, tree::empty_root())?;
        let mut disk = Folder::new(dir).map_err(failed("open"))?;
        disk.replace(Path::new(CHECKPOINT), &checkpoint.note).map_err(failed("write a checkpoint in"))?;
        File::open(dir.parent().unwrap_or(dir)).and_then(|parent| parent.sync_all()).map_err(failed("sync"))
    }

    /// Opens the log in `dir` for reading and writing, whatever is known of it elsewhere; see [`Self::open_at_least`].
    ///
    /// # Errors
    ///
    /// As [`Self::open_at_least`].
    pub fn open(dir: &Path, key: Key) -> Result<(Self, Appender), Error> {
        Self::open_at_least(dir, key, 0)
    }

    /// Opens the log in `dir` for reading and writing. It must have `known` entries at least: so many are known to have been under a
    /// durable checkpoint, and a log that is shorter was put back from a copy. Going on would sign over what is missing.
    ///
    /// The checkpoint must be signed by `key`, the tiles at the edge must give its root, and the entries of the last bundle
    /// must give the edge's hashes. What lies beyond the checkpoint was never acknowledged and is removed.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] when there is no checkpoint: no log is ever started anew here. [`Error::Behind`] when there are fewer
    /// entries; nothing is changed then. [`Error::Locked`], [`Error::Damaged`], [`Error::Note`] and [`Error::Io`] as they say.
    pub fn open_at_least(dir: &Path, key: Key, known: u64) -> Result<(Self, Appender), Error> {
        let disk = Folder::new(dir).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { path: dir.to_owned() },
            _ => Error::Io { what: "open", path: dir.to_owned(), source },
        })?;
        Self::open_on(dir, key, known, Box::new(disk))
    }

    /// As [`Self::open_at_least`], writing through `disk`.
    pub(crate) fn open_on(dir: &Path, key: Key, known: u64, disk: Box<dyn Disk>) -> Result<(Self, Appender), Error> {
        let lock = take_lock(dir)?;
        let note = match fs::read(dir.join(CHECKPOINT)) {
            Ok(note) => note,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing { path: dir.to_owned() });
            }
            Err(source) => return Err(Error::Io { what: "read", path: dir.join(CHECKPOINT), source }),
        };
        let last = note::verify_checkpoint(&note, key.vkey())?;
        if last.size < known {
            return Err(Error::Behind { path: dir.to_owned(), known, size: last.size });
        }
        let (tree, edge) = read_edge(dir, &last)?;
        discard_beyond(dir, last.size)?;
        let inner = Arc::new(Inner::new(dir.to_owned(), &key, last.clone()));
        let log = Self { inner: Arc::clone(&inner) };
        Ok((log, Appender::new(inner, key, disk, (tree, edge), last, lock)))
    }
}

fn take_lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let lock = opened.map_err(|source| Error::Io { what: "open", path: path.clone(), source })?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::Io { what: "lock", path, source }),
    }
}

/// Returns the tree and the last bundle of the log under `checkpoint`, checked against its root.
pub(super) fn read_edge(dir: &Path, checkpoint: &Checkpoint) -> Result<(Tree, Vec<u8>), Error> {
    let read = |kind| -> Result<Vec<u8>, Error> {
        let Some(tile) = Tile::edge(kind, checkpoint.size) else { return Ok(Vec::new()) };
        let path = tile.path();
        fs::read(dir.join(&path)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Damaged { path, what: "missing" },
            _ => Error::Io { what: "read", path, source },
        })
    };
    let edges = path::levels(checkpoint.size).map(|level| read(Kind::Hashes(level))).collect::<Result<Vec<_>, _>>()?;
    let damaged = |what| Error::Damaged { path: PathBuf::from(path::TILES), what };
    let tree = Tree::from_edges(checkpoint.size, edges).ok_or(damaged("not as wide as the checkpoint says"))?;
    if tree.root().0 != *checkpoint.root.as_bytes() {
        return Err(damaged("not what the checkpoint's root says"));
    }
    let bundle = read(Kind::Entries)?;
    if let Some(tile) = Tile::edge(Kind::Entries, checkpoint.size) {
        let entries = bundle::split(&bundle).ok_or(Error::Damaged { path: tile.path(), what: "torn" })?;
        let hashes = tree.edge(0);
        let is_same = entries.len() * HASH_SIZE == hashes.len()
            && entries.iter().enumerate().all(|(at, entry)| leaf_hash(&[entry]) == tree::hash_at(hashes, at));
        if !is_same {
            return Err(Error::Damaged { path: tile.path(), what: "not what its hashes say" });
        }
    }
    Ok((tree, bundle))
}

/// Removes every file that a log of `size` entries does not have, at and after its edge.
fn discard_beyond(dir: &Path, size: u64) -> Result<(), Error> {
    let kinds = std::iter::once(Kind::Entries).chain((0..8).map(Kind::Hashes));
    let mut discarded = 0_u64;
    for kind in kinds {
        let folder = dir.join(kind.folder());
        if folder.is_dir() {
            let failed = |source| Error::Io { what: "clear", path: folder.clone(), source };
            discard(&folder, 0, kind.places(size), &mut discarded).map_err(failed)?;
        }
    }
    if discarded > 0 {
        tracing::info!(files = discarded, size, "removed log files that no checkpoint covers");
    }
    Ok(())
}

/// Below `folder`, whose name stands for the digits `prefix`: removes what a level with `places` places does not have.
fn discard(folder: &Path, prefix: u64, places: u64, discarded: &mut u64) -> io::Result<()> {
    let (edge, width) = (places / WIDTH, places % WIDTH);
    for child in fs::read_dir(folder)? {
        let child = child?;
        let (name, path) = (child.file_name(), child.path());
        let Some(name) = name.to_str() else { continue };
        let digits = |text: &str| text.parse::<u64>().ok().filter(|_| text.len() == 3);
        if let Some(group) = name.strip_prefix('x').and_then(digits) {
            // Groups have no fixed depth here, so look into each; there are a thousand at most on a path that matters.
            discard(&path, prefix * 1000 + group, places, discarded)?;
        } else if let Some(index) = name.strip_suffix(".p").and_then(digits).map(|last| prefix * 1000 + last) {
            if index == edge && width > 0 {
                for partial in fs::read_dir(&path)? {
                    let partial = partial?;
                    if partial.file_name().to_str() != Some(width.to_string().as_str()) {
                        fs::remove_file(partial.path())?;
                        *discarded += 1;
                    }
                }
            } else {
                fs::remove_dir_all(&path)?;
                *discarded += 1;
            }
        } else if digits(name).is_some_and(|last| prefix * 1000 + last >= edge) {
            fs::remove_file(&path)?;
            *discarded += 1;
        }
    }
    Ok(())
}
