//! sled itself, each call fenced: it panics on some damaged stores, and may take for ever to open one.

use std::{
    fs,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use muster_proto::{id::AgentId, time::Timestamp};

use super::{Error, OPEN_TIME, frame};

/// sled cannot do it, or panicked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("sled refused")]
    Sled(#[from] sled::Error),
    #[error("sled panicked")]
    Panic,
    #[error("sled did not open the store within {} seconds", OPEN_TIME.as_secs())]
    Time,
    #[error("there is no store")]
    Gone,
}

/// The trees of an open store.
pub(super) struct Store(Option<Trees>);

struct Trees {
    db: sled::Db,
    frames: sled::Tree,
    nonces: sled::Tree,
}

/// What a store holds.
#[derive(Default)]
pub(super) struct Span {
    /// First and last number.
    pub(super) keys: Option<(u64, u64)>,
    pub(super) bytes: u64,
}

/// What a read of frames gave.
pub(super) struct Found {
    pub(super) frames: Vec<frame::Sealed>,
    /// The number after the last one that was looked at.
    pub(super) through: u64,
    /// Frames that were missing or damaged.
    pub(super) bad: u64,
}

/// Opens the store in `dir`; one that cannot be used is moved aside and a new one begun.
pub(super) fn open_or_set_aside(dir: &Path, now: Timestamp) -> Result<Store, Error> {
    let first = match open(dir) {
        Ok(store) => return Ok(store),
        Err(error) => error,
    };
    tracing::warn!(
        error = %crate::serve::status::chain(&first),
        inbox = %dir.display(),
        "the inbox cannot be used and is moved aside; agents send again what was in it"
    );
    metrics::counter!("muster_inbox_losses_total").increment(1);
    set_aside(dir, now)?;
    open(dir).map_err(|error| Error::Open { path: dir.to_owned(), source: Box::new(error) })
}

/// Moves the folder to `<dir>.bad-<time>`.
pub(super) fn set_aside(dir: &Path, now: Timestamp) -> Result<(), Error> {
    if !dir.exists() {
        return Ok(());
    }
    let failed = |source| Error::SetAside { path: dir.to_owned(), source };
    let stamp = now.to_second().to_string().replace(':', "");
    for attempt in 0..100 {
        let mut aside = dir.as_os_str().to_owned();
        aside.push(if attempt == 0 { format!(".bad-{stamp}") } else { format!(".bad-{stamp}-{attempt}") });
        let aside = PathBuf::from(aside);
        if !aside.exists() {
            fs::rename(dir, &aside).map_err(failed)?;
            tracing::warn!(aside = %aside.display(), "kept the unusable inbox; it may be removed");
            return Ok(());
        }
    }
    Err(failed(std::io::ErrorKind::AlreadyExists.into()))
}

/// Opens on a thread of its own, so that a panic or a hang of sled stays there.
fn open(dir: &Path) -> Result<Store, Failed> {
    let (send, receive) = mpsc::channel();
    let dir = dir.to_owned();
    let spawned = thread::Builder::new().name("inbox-open".to_owned()).spawn(move || {
        let opened = catch_unwind(|| open_here(&dir)).unwrap_or(Err(Failed::Panic));
        // The receiver is gone only when the time was up.
        let _ = send.send(opened);
    });
    if spawned.is_err() {
        return Err(Failed::Gone);
    }
    receive.recv_timeout(OPEN_TIME).unwrap_or(Err(Failed::Time))
}

fn open_here(dir: &Path) -> Result<Store, Failed> {
    let db = sled::Config::new()
        .path(dir)
        .mode(sled::Mode::HighThroughput)
        .cache_capacity(64 * 1024 * 1024)
        // Acknowledgements wait for the log, so nothing here needs to be flushed; and sled's own flusher only logs errors.
        .flush_every_ms(None)
        .use_compression(false)
        .open()?;
    let store = Store(Some(Trees { frames: db.open_tree("frames")?, nonces: db.open_tree("nonces")?, db }));
    // A walk over everything finds damage at once that would panic later.
    store.fenced(|trees| {
        for pair in trees.frames.iter().chain(trees.nonces.iter()) {
            pair?;
        }
        Ok(())
    })?;
    Ok(store)
}

impl Store {
    /// Returns no store: everything fails.
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn span(&self) -> Span {
        let walked = self.fenced(|trees| {
            let (mut keys, mut bytes) = (None, 0);
            for pair in &trees.frames {
                let (key, value) = pair?;
                let Ok(key) = <[u8; 8]>::try_from(&*key).map(u64::from_be_bytes) else { continue };
                keys = Some((keys.map_or(key, |(first, _)| first), key));
                bytes += value.len() as u64;
            }
            Ok(Span { keys: keys.filter(|(_, last)| *last < u64::MAX / 2), bytes })
        });
        walked.unwrap_or_default()
    }

    pub(super) fn insert(&self, number: u64, records: &[u8]) -> Result<(), Failed> {
        self.fenced(|trees| {
            trees.frames.insert(number.to_be_bytes(), frame::seal(records))?;
            Ok(())
        })
    }

    /// Returns the frames of `numbers` up to about `limit_bytes`. Those that are missing or damaged are counted and left out.
    pub(super) fn read(&self, numbers: Range<u64>, limit_bytes: usize) -> Found {
        let (mut frames, mut bytes, mut bad) = (Vec::new(), 0, 0_u64);
        let mut at = numbers.start;
        while at < numbers.end && bytes < limit_bytes {
            match self.fenced(|trees| Ok(trees.frames.get(at.to_be_bytes())?)) {
                Ok(Some(value)) => {
                    bytes += value.len();
                    match frame::Sealed::open(value) {
                        Some(frame) => frames.push(frame),
                        None => bad += 1,
                    }
                }
                Ok(None) | Err(_) => bad += 1,
            }
            at += 1;
        }
        if bad > 0 {
            tracing::warn!(frames = bad, "dropped damaged frames of the inbox; agents send them again");
            metrics::counter!("muster_inbox_bad_frames_total").increment(bad);
        }
        Found { frames, through: at, bad }
    }

    /// Removes `numbers` and returns how many bytes that frees.
    pub(super) fn remove(&self, numbers: Range<u64>) -> Result<u64, Failed> {
        self.fenced(|trees| {
            let mut bytes = 0;
            for number in numbers {
                let removed = trees.frames.remove(number.to_be_bytes())?;
                bytes += removed.map_or(0, |value| value.len() as u64);
            }
            Ok(bytes)
        })
    }

    pub(super) fn nonces(&self, agent: AgentId) -> Option<Vec<u8>> {
        self.fenced(|trees| Ok(trees.nonces.get(agent.as_bytes())?)).ok().flatten().map(|value| value.to_vec())
    }

    pub(super) fn keep_nonces(&self, agent: AgentId, value: &[u8]) {
        let kept = self.fenced(|trees| Ok(trees.nonces.insert(agent.as_bytes(), value)?));
        if let Err(error) = kept {
            tracing::warn!(%error, "failed to keep a session nonce; a clone may go unseen");
        }
    }

    /// Writes what sled holds in memory. What that loses is sent again.
    pub(super) fn close(&self) {
        let _ = self.fenced(|trees| Ok(trees.db.flush()?));
    }

    /// Runs a call of sled with its panics caught.
    fn fenced<T>(&self, call: impl FnOnce(&Trees) -> Result<T, Failed>) -> Result<T, Failed> {
        let trees = self.0.as_ref().ok_or(Failed::Gone)?;
        catch_unwind(AssertUnwindSafe(|| call(trees))).unwrap_or(Err(Failed::Panic))
    }
}
