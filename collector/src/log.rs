//! The evidence log: an append-only Merkle tree in the C2SP tlog-tiles layout, with signed checkpoints.
//!
//! Owns the log's folder and everything in it. One [`Appender`] writes; any number of [`Log`] handles read at the same time.
//! Never starts a new log where one might have been, never signs over a doubt, and knows neither gRPC nor SQL.

mod appender;
mod bundle;
mod disk;
mod fsck;
mod note;
mod open;
mod path;
mod read;
pub mod sequencer;
pub mod service;
mod tree;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use muster_proto::id::Digest;
use tokio::sync::watch;

pub use appender::Appender;
pub use fsck::{Bad, Report, fsck};
pub use note::{
    Checkpoint, Error as NoteError, Key, origin, verify_checkpoint, verify_consistency, verify_inclusion, verify_text,
};

use path::Tile;
use read::Cache;

/// Why the log cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused.
    #[error("failed to {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Written files could not be made durable.
    #[error("failed to sync what was written to the log")]
    Sync {
        /// Why.
        source: io::Error,
    },
    /// There is no log.
    #[error(
        "no checkpoint in {}: put the log's folder back from a backup, or remove the collector's whole data folder and run `muster-collector init`",
        path.display()
    )]
    Missing {
        /// The log's folder.
        path: PathBuf,
    },
    /// There is a log already.
    #[error("{} is not empty: a new log needs an empty folder", path.display())]
    Exists {
        /// The log's folder.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("another process writes the log in {}", path.display())]
    Locked {
        /// The log's folder.
        path: PathBuf,
    },
    /// A file does not hold what the checkpoint says.
    #[error("log file {} is {what}: run `muster-collector fsck`, and put the log's folder back from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A position lies outside the log.
    #[error("position {position} is outside the log of {size} entries")]
    Position {
        /// What was asked for.
        position: u64,
        /// Entries in the log.
        size: u64,
    },
    /// An entry is longer than the format allows.
    #[error("entry is longer than 65535 bytes")]
    EntryTooLong,
    /// The log does not sign any more.
    #[error("the log has stopped and signs nothing until the collector is restarted: {0}")]
    Stopped(String),
    /// A key or a checkpoint is not what it must be.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// Reads a log while it grows. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

/// What the writer and the readers share.
struct Inner {
    dir: PathBuf,
    origin: String,
    vkey: String,
    /// The newest checkpoint; that of an empty log has size 0.
    newest: watch::Sender<Checkpoint>,
    stopped: watch::Sender<Option<String>>,
    cache: Mutex<Cache>,
}

impl Inner {
    fn new(dir: PathBuf, key: &Key, checkpoint: Checkpoint) -> Self {
        Self {
            dir,
            origin: key.name().to_owned(),
            vkey: key.vkey().to_owned(),
            newest: watch::Sender::new(checkpoint),
            stopped: watch::Sender::new(None),
            cache: Mutex::new(Cache::default()),
        }
    }

    fn publish(&self, checkpoint: Checkpoint) {
        self.newest.send_replace(checkpoint);
    }

    fn stop(&self, why: &str) {
        tracing::error!(why, "the log has stopped: nothing is signed or acknowledged until a restart");
        self.stopped.send_replace(Some(why.to_owned()));
    }

    /// Keeps a full tile in memory, because the judge will read it next.
    fn keep(&self, tile: Tile, bytes: Vec<u8>) {
        read::lock(&self.cache).insert(tile, bytes.into());
    }
}

impl Log {
    /// Returns the newest checkpoint; `None` while the log is empty.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        Some(self.inner.newest.borrow().clone()).filter(|checkpoint| checkpoint.size > 0)
    }

    /// Returns how many entries the newest checkpoint covers.
    pub fn size(&self) -> u64 {
        self.inner.newest.borrow().size
    }

    /// Returns a receiver of each newest checkpoint. The first has size 0 while the log is empty.
    pub fn subscribe(&self) -> watch::Receiver<Checkpoint> {
        self.inner.newest.subscribe()
    }

    /// Returns a receiver of why the log stopped signing; `None` while it signs.
    pub fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.inner.stopped.subscribe()
    }

    /// Returns the key that verifies its checkpoints (signed-note vkey).
    pub fn key(&self) -> &str {
        &self.inner.vkey
    }

    /// Returns its name, the first line of its checkpoints.
    pub fn origin(&self) -> &str {
        &self.inner.origin
    }

    /// Returns the root of the log when it had `size` entries.
    ///
    /// # Errors
    ///
    /// [`Error::Position`] when the log is smaller; else the disk's.
    pub fn root_at(&self, size: u64) -> Result<Digest, Error> {
        self.inner.root_at(size)
    }
}

#[cfg(test)]
mod tests;
