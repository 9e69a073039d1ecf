//! The one writer: entries in, synced files and a signed checkpoint out.
//!
//! Order of a commit: bundles and tiles written, all synced, checkpoint signed, checkpoint replaced durably, and only then
//! published. Any error or doubt on the way stops the appender for good; a restart takes up from the last checkpoint.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use tlog_tiles::Hash;

use super::{
    Checkpoint, Error, Inner, Key, bundle,
    disk::Disk,
    path::{self, CHECKPOINT, Kind, Tile, WIDTH},
    tree::Tree,
};

/// The one writer of a log. Dropping it gives up the lock on the folder.
pub struct Appender {
    log: Arc<Inner>,
    key: Key,
    disk: Box<dyn Disk>,
    tree: Tree,
    /// Entries of the bundle at the edge, framed.
    edge: Vec<u8>,
    /// Full bundles and tiles that are not written yet.
    full: Vec<(Tile, Vec<u8>)>,
    /// The checkpoint that this writer made last, or found; a size of 0 is signed too.
    last: Checkpoint,
    /// Partial files that no checkpoint needs any more, and those that only the last one but one needs.
    stale: Vec<PathBuf>,
    aging: Vec<PathBuf>,
    stopped: Option<String>,
    _lock: File,
}

impl Appender {
    pub(super) fn new(
        log: Arc<Inner>,
        key: Key,
        disk: Box<dyn Disk>,
        (tree, edge): (Tree, Vec<u8>),
        last: Checkpoint,
        lock: File,
    ) -> Self {
        Self {
            log,
            key,
            disk,
            tree,
            edge,
            full: Vec::new(),
            last,
            stale: Vec::new(),
            aging: Vec::new(),
            stopped: None,
            _lock: lock,
        }
    }

    /// Returns how many entries there are, committed or not.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Returns whether a commit would write something.
    pub fn is_dirty(&self) -> bool {
        self.tree.size() > self.last.size
    }

    /// Adds the entry that `parts` make together, and returns its index. Nothing is written before [`Self::commit`].
    ///
    /// # Errors
    ///
    /// [`Error::EntryTooLong`], after which the log goes on, and [`Error::Stopped`].
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<u64, Error> {
        if let Some(why) = &self.stopped {
            return Err(Error::Stopped(why.clone()));
        }
        let index = self.tree.size();
        if !bundle::push(&mut self.edge, parts) {
            return Err(Error::EntryTooLong);
        }
        self.tree.append(leaf_hash(parts), &mut self.full);
        if self.tree.size().is_multiple_of(WIDTH) {
            let next = Vec::with_capacity(self.edge.len());
            let bytes = std::mem::replace(&mut self.edge, next);
            self.full.push((Tile { kind: Kind::Entries, index: index / WIDTH, width: 256 }, bytes));
        }
        Ok(index)
    }

    /// Makes everything appended durable under a new signed checkpoint, publishes and returns it.
    ///
    /// # Errors
    ///
    /// Any error stops the appender: every later call gives [`Error::Stopped`].
    pub fn commit(&mut self) -> Result<Checkpoint, Error> {
        if let Some(why) = &self.stopped {
            return Err(Error::Stopped(why.clone()));
        }
        match self.try_commit() {
            Ok(checkpoint) => Ok(checkpoint),
            Err(error) => {
                self.stop(&describe(&error));
                Err(error)
            }
        }
    }

    /// Signs nothing any more.
    pub(super) fn stop(&mut self, why: &str) {
        self.log.stop(why);
        self.stopped = Some(why.to_owned());
    }

    fn try_commit(&mut self) -> Result<Checkpoint, Error> {
        if !self.is_dirty() {
            return Ok(self.last.clone());
        }
        let (old_size, size) = (self.last.size, self.tree.size());
        let mut outdated = Vec::new();
        for (tile, bytes) in std::mem::take(&mut self.full) {
            write(&mut *self.disk, &tile.path(), &bytes)?;
            if Tile::edge(tile.kind, old_size).is_some_and(|edge| edge.index == tile.index) {
                outdated.push(tile.partials());
            }
            if tile.kind == Kind::Entries {
                self.log.keep(tile, bytes);
            }
        }
        for kind in std::iter::once(Kind::Entries).chain(path::levels(size).map(Kind::Hashes)) {
            let (old, new) = (Tile::edge(kind, old_size), Tile::edge(kind, size));
            let Some(tile) = new.filter(|_| old != new) else { continue };
            let bytes = match kind {
                Kind::Entries => &self.edge,
                Kind::Hashes(level) => self.tree.edge(level),
            };
            write(&mut *self.disk, &tile.path(), bytes)?;
            if let Some(old) = old.filter(|old| old.index == tile.index) {
                outdated.push(old.path());
            }
        }
        self.disk.sync().map_err(|source| Error::Sync { source })?;

        // Another writer, or a folder put back from a backup under our feet, must not be signed over.
        let found = self.disk.read(Path::new(CHECKPOINT)).map_err(|source| io_error("read", CHECKPOINT, source))?;
        if *found != *self.last.note {
            return Err(Error::Damaged { path: CHECKPOINT.into(), what: "changed by something else than this log" });
        }
        let checkpoint = self.key.sign(size, self.tree.root())?;
        self.disk
            .replace(Path::new(CHECKPOINT), &checkpoint.note)
            .map_err(|source| io_error("replace", CHECKPOINT, source))?;

        self.last = checkpoint.clone();
        self.log.publish(checkpoint.clone());
        self.prune(outdated);
        Ok(checkpoint)
    }

    /// Removes partial files two checkpoints after a wider or full one took their place, so that readers of the checkpoint
    /// before find theirs. Not durable and not needed: what stays is removed at the next start.
    fn prune(&mut self, outdated: Vec<PathBuf>) {
        for path in std::mem::replace(&mut self.stale, std::mem::replace(&mut self.aging, outdated)) {
            if let Err(error) = self.disk.remove(&path) {
                tracing::debug!(path = %path.display(), %error, "an outdated partial tile stays");
            }
        }
    }
}

/// Returns the leaf hash of the entry that `parts` make together: SHA-256 of a zero byte and the entry (RFC 6962).
pub(crate) fn leaf_hash(parts: &[&[u8]]) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0]);
    for part in parts {
        hash.update(part);
    }
    Hash(hash.finalize().into())
}

fn write(disk: &mut dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    disk.create(path, bytes).map_err(|source| Error::Io { what: "write", path: path.to_owned(), source })
}

fn io_error(what: &'static str, path: &str, source: std::io::Error) -> Error {
    Error::Io { what, path: path.into(), source }
}

/// Returns the error with its causes, for what is kept of it.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
