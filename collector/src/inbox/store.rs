//! sled itself, each call fenced: it panics on some damaged stores, and may take for ever to open one.

use std::{
    fs, io,
    ops::{Deref, Range},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
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
    #[error("the store's numbers lie too far apart to be those of one run")]
    Numbers,
    #[error("there is no store")]
    Gone,
}

/// Numbers that may be missing between the first and the last frame of a store. Each is looked for by itself.
const HOLES: u64 = 65_536;

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

/// Moves what is in `dir` to `<dir>.bad-<time>`, and removes what was moved there before: the newest one is enough to look at.
pub(super) fn set_aside(dir: &Path, now: Timestamp) -> Result<(), Error> {
    if !dir.exists() {
        return Ok(());
    }
    let failed = |source| Error::SetAside { path: dir.to_owned(), source };
    let stamp = now.to_second().to_string().replace(':', "");
    let mut beside = dir.file_name().unwrap_or_default().to_owned();
    beside.push(".");
    let aside = match free_name(&dir.with_file_name(&beside), &stamp) {
        Some(aside) => match fs::rename(dir, &aside) {
            Ok(()) => aside,
            // A mount point does not move; what is in it does, inside of it.
            Err(error) if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices) => {
                beside.clear();
                move_content(dir, &stamp).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        },
        None => return Err(failed(io::ErrorKind::AlreadyExists.into())),
    };
    tracing::warn!(aside = %aside.display(), "kept the unusable inbox; it may be removed");
    let mut prefix = beside;
    prefix.push(BAD);
    remove_older(&aside, &prefix.to_string_lossy());
    Ok(())
}

/// Begins the name of everything that was set aside.
const BAD: &str = "bad-";

/// Returns a name that nothing has: `base` and `bad-<stamp>`, with a number if need be.
fn free_name(base: &Path, stamp: &str) -> Option<PathBuf> {
    (0..100)
        .map(|attempt| {
            let mut name = base.as_os_str().to_owned();
            name.push(if attempt == 0 { format!("{BAD}{stamp}") } else { format!("{BAD}{stamp}-{attempt}") });
            PathBuf::from(name)
        })
        .find(|name| fs::symlink_metadata(name).is_err())
}

/// Moves what is in `dir` into a new folder below it, and returns that.
pub(super) fn move_content(dir: &Path, stamp: &str) -> io::Result<PathBuf> {
    let aside = free_name(&dir.join(""), stamp).ok_or(io::ErrorKind::AlreadyExists)?;
    let content: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    fs::create_dir(&aside)?;
    for child in content {
        if !child.file_name().to_string_lossy().starts_with(BAD) {
            fs::rename(child.path(), aside.join(child.file_name()))?;
        }
    }
    Ok(aside)
}

/// Removes what lies beside `newest` and begins with `prefix`.
fn remove_older(newest: &Path, prefix: &str) {
    let Some(siblings) = newest.parent().and_then(|parent| fs::read_dir(parent).ok()) else { return };
    for sibling in siblings.flatten() {
        let path = sibling.path();
        if path == newest || !sibling.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::warn!(%error, path = %path.display(), "failed to remove an older unusable inbox");
        }
    }
}

/// Opens a store in `dir`, where nothing is that matters; a store that was begun there and does not open is removed.
pub(super) fn open_new(dir: &Path) -> Result<Store, Error> {
    open(dir).map_err(|error| {
        // What did not become a store must not pile up; if it cannot be removed, the next try says so.
        let begun = fs::read_dir(dir).into_iter().flatten().flatten();
        for child in begun.filter(|child| !child.file_name().to_string_lossy().starts_with(BAD)) {
            let path = child.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
        Error::Open { path: dir.to_owned(), source: Box::new(error) }
    })
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
        for pair in trees.nonces.iter() {
            pair?;
        }
        let (mut first, mut last, mut count) = (None, 0, 0_u64);
        for pair in trees.frames.iter() {
            let (key, _) = pair?;
            last = u64::from_be_bytes((*key).try_into().map_err(|_| Failed::Numbers)?);
            first = first.or(Some(last));
            count += 1;
        }
        let is_one_run = last < u64::MAX / 2 && last - first.unwrap_or(last) <= count + HOLES;
        is_one_run.then_some(()).ok_or(Failed::Numbers)
    })?;
    Ok(store)
}

/// A store that several hold. The last to let go hands it to a thread of its own: sled may panic or block for ever when it
/// closes.
pub(super) struct Lease(Option<Arc<Store>>);

impl Lease {
    pub(super) fn new(store: Store) -> Self {
        Self(Some(Arc::new(store)))
    }

    /// Returns the store if nobody else holds it.
    pub(super) fn into_last(mut self) -> Option<Store> {
        self.0.take().and_then(Arc::into_inner)
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Deref for Lease {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.0.as_deref().expect("taken only when it is consumed")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(store) = self.0.take().and_then(Arc::into_inner) {
            bury(store);
        }
    }
}

/// Closes a store on a thread of its own.
fn bury(store: Store) {
    if store.0.is_none() {
        return;
    }
    let store = Arc::new(Mutex::new(Some(store)));
    let buried = Arc::clone(&store);
    let spawned = thread::Builder::new().name("inbox-close".to_owned()).spawn(move || {
        if let Some(store) = buried.lock().unwrap_or_else(PoisonError::into_inner).take() {
            store.end();
        }
    });
    if spawned.is_err() {
        // Better never closed than closed by whoever stands here.
        std::mem::forget(store);
    }
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
            Ok(Span { keys, bytes })
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
        let value = self.fenced(|trees| Ok(trees.nonces.get(agent.as_bytes())?)).ok().flatten()?;
        let kept = frame::open(&value).map(<[u8]>::to_vec);
        if kept.is_none() {
            tracing::warn!(%agent, "dropped a damaged session nonce; a clone may go unseen");
        }
        kept
    }

    pub(super) fn keep_nonces(&self, agent: AgentId, value: &[u8]) {
        let kept = self.fenced(|trees| Ok(trees.nonces.insert(agent.as_bytes(), frame::seal(value))?));
        if let Err(error) = kept {
            tracing::warn!(%error, "failed to keep a session nonce; a clone may go unseen");
        }
    }

    /// Writes what sled holds in memory. What that loses is sent again.
    pub(super) fn close(&self) {
        let _ = self.fenced(|trees| Ok(trees.db.flush()?));
    }

    /// Closes the store, with what sled does then fenced too.
    pub(super) fn end(self) {
        if catch_unwind(AssertUnwindSafe(|| drop(self))).is_err() {
            tracing::warn!("sled panicked while its store was closed");
        }
    }

    /// Puts bytes in the place of a frame that it was never stored as.
    #[cfg(test)]
    pub(super) fn put(&self, number: u64, value: &[u8]) {
        self.fenced(|trees| Ok(trees.frames.insert(number.to_be_bytes(), value)?)).unwrap();
    }

    /// Puts bytes in the place of what is kept of an agent's sessions.
    #[cfg(test)]
    pub(super) fn put_nonces(&self, agent: AgentId, value: &[u8]) {
        self.fenced(|trees| Ok(trees.nonces.insert(agent.as_bytes(), value)?)).unwrap();
    }

    /// Runs a call of sled with its panics caught.
    fn fenced<T>(&self, call: impl FnOnce(&Trees) -> Result<T, Failed>) -> Result<T, Failed> {
        let trees = self.0.as_ref().ok_or(Failed::Gone)?;
        catch_unwind(AssertUnwindSafe(|| call(trees))).unwrap_or(Err(Failed::Panic))
    }
}
