//! The inbox: what was admitted and is not yet in the evidence log. The only module that knows sled.
//!
//! Absorbs bursts and stalls of the log on disk, within a bound. It is never the reason of an acknowledgement, so whatever it
//! loses is sent again; sled 0.34 neither survives a power cut nor notices every flipped bit, therefore each value carries
//! its own checksum, a frame that does not match is dropped and counted, and a store that does not open is set aside.
//!
//! ```text
//! tree `frames`   key: number (8 bytes, big-endian)   value: version (1), check (8), records
//! tree `nonces`   key: agent id (16)                  value: version (1), check (8), as the owner of the sessions writes it
//! record          length of what follows (4, big-endian), agent (16), epoch (16), sequence (8), stream (8), digest (32), body
//! ```
//!
//! The check is the first 8 bytes of SHA-256 over what follows it. A body is an encoded `LogEntry` without its received time.

pub mod frame;
mod store;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use muster_proto::{id::AgentId, time::Timestamp};
use serde::Deserialize;
use tokio::sync::watch;

use frame::Sealed;
use store::{Lease, Store};

/// How the inbox is bounded.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Bytes of reports that wait for the log, in memory and on disk; default 268435456 (256 MiB). When they are reached,
    /// agents are not read from until the log has caught up.
    pub limit_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limit_bytes: 256 * 1024 * 1024 }
    }
}

/// Bytes that wait in memory for the store, at most.
const MEMORY_BYTES: u64 = 16 * 1024 * 1024;

/// Why the inbox cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be used, not even a new one.
    #[error("failed to open the inbox in {}", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The damaged store cannot be moved away.
    #[error("failed to move the unusable inbox {} aside", path.display())]
    SetAside {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its thread cannot be started.
    #[error("failed to start the inbox's thread")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

/// There is no room until the log has caught up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

/// A handle of the inbox. Cheap to clone.
#[derive(Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
}

/// Whether the inbox takes anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It does.
    Open,
    /// It does not, for its store failed and no new one can be opened yet; that is tried again and again.
    Broken,
    /// Its thread has ended, for it was asked to.
    Closed,
    /// Its thread has ended although nobody asked for it; only a restart helps.
    Dead,
}

/// Records in order of admission, with the number that releases them.
pub(crate) struct Drained {
    /// Frames in order.
    pub(crate) frames: Vec<Sealed>,
    /// Whether frames of the process before are among them; those come first and alone.
    pub(crate) is_recovered: bool,
    /// Release through this number once the log covers them.
    pub(crate) through: u64,
    /// Whether more waits.
    pub(crate) has_more: bool,
    /// Whether something that was pushed is gone: a damaged frame, or a store that was begun anew.
    pub(crate) is_lossy: bool,
    /// Whether the store did not take in time what is on its way to it.
    pub(crate) is_stalled: bool,
}

struct Shared {
    state: Mutex<State>,
    /// The thread has something to do.
    work: Condvar,
    /// The store holds more than before.
    stored: Condvar,
    store: Mutex<Lease>,
    standing: watch::Sender<Standing>,
    limit_bytes: u64,
    #[cfg(test)]
    faults: faults::Faults,
}

#[derive(Default)]
struct State {
    /// Records of the frame that is being filled.
    open: Vec<u8>,
    /// Sealed frames on the way to the store.
    queue: VecDeque<(u64, Vec<u8>)>,
    queue_bytes: u64,
    /// Bytes in the store that are not released.
    stored_bytes: u64,
    /// Number of the next frame.
    next: u64,
    /// Frames below are in the store.
    stored: u64,
    /// Frames below are drained.
    drained: u64,
    /// Frames below may be removed.
    released: u64,
    removed: u64,
    /// Frames below come from the process before.
    recovered: u64,
    /// Whether the sequencer was told of what waits.
    is_told: bool,
    tell: Option<Box<dyn Fn() + Send>>,
    waiting: Vec<Waker>,
    /// Whether the store was begun anew since the last drain; what was in it is gone.
    is_lossy: bool,
    /// Whether there is no store at all.
    is_broken: bool,
    is_stopped: bool,
}

impl Inbox {
    /// Opens the inbox in `dir`. A store that cannot be used is moved to `<dir>.bad-<time>` and a new one begun: that costs a
    /// resend, never evidence.
    ///
    /// # Errors
    ///
    /// When not even an empty inbox can be opened there.
    pub fn open(dir: &Path, settings: &Settings, now: Timestamp) -> Result<Self, Error> {
        let store = store::open_or_set_aside(dir, now)?;
        let span = store.span();
        let mut state = State::default();
        if let Some((first, last)) = span.keys {
            (state.drained, state.released, state.removed) = (first, first, first);
            (state.next, state.stored, state.recovered) = (last + 1, last + 1, last + 1);
            state.stored_bytes = span.bytes;
            tracing::info!(frames = last + 1 - first, bytes = span.bytes, "the inbox holds reports of the last run");
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            stored: Condvar::new(),
            store: Mutex::new(Lease::new(store)),
            standing: watch::Sender::new(Standing::Open),
            limit_bytes: settings.limit_bytes,
            #[cfg(test)]
            faults: faults::Faults::default(),
        });
        let writer = Arc::clone(&shared);
        let dir = dir.to_owned();
        thread::Builder::new()
            .name("inbox".to_owned())
            .spawn(move || {
                let ending = Ending(&writer);
                writer.run(&dir);
                drop(ending);
            })
            .map_err(|source| Error::Thread { source })?;
        Ok(Self { shared })
    }

    /// Returns a receiver of whether the inbox takes anything.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// Returns whether the inbox takes anything, or will when there is room.
    pub fn is_open(&self) -> bool {
        *self.shared.standing.borrow() == Standing::Open
    }

    /// Takes `records` (see [`frame`]), or none of them.
    ///
    /// # Errors
    ///
    /// [`Full`]: try again when `waker` is woken.
    pub fn push(&self, records: &[u8], waker: &Waker) -> Result<(), Full> {
        let mut state = self.shared.lock();
        let queued = state.queue_bytes + state.open.len() as u64;
        let all = queued + state.stored_bytes;
        if queued >= MEMORY_BYTES || all >= self.shared.limit_bytes || state.is_broken || state.is_stopped {
            state.waiting.push(waker.clone());
            return Err(Full);
        }
        let mut is_sealed = false;
        for record in frame::records(records) {
            if !state.open.is_empty() && state.open.len() + record.len() > frame::TARGET_BYTES {
                state.seal();
                is_sealed = true;
            }
            state.open.extend_from_slice(record);
        }
        if is_sealed {
            self.shared.work.notify_one();
        }
        state.tell();
        Ok(())
    }

    /// Returns how many bytes wait for the log.
    pub fn bytes(&self) -> u64 {
        let state = self.shared.lock();
        state.queue_bytes + state.open.len() as u64 + state.stored_bytes
    }

    /// Calls `tell` when something waits again after everything was drained.
    pub(crate) fn on_data(&self, tell: Box<dyn Fn() + Send>) {
        let mut state = self.shared.lock();
        state.tell = Some(tell);
        if state.drained < state.next || !state.open.is_empty() {
            state.tell();
        }
    }

    /// Returns what waits, in order, up to about `limit_bytes`, as far as the store has it. Blocks until it has everything, for
    /// `patience` at most: a store that stalls must not hold up what does not come through it.
    pub(crate) fn drain(&self, limit_bytes: usize, patience: Duration) -> Drained {
        let mut state = self.shared.lock();
        state.is_told = false;
        if !state.open.is_empty() {
            state.seal();
            self.shared.work.notify_one();
        }
        let until = state.next;
        let is_behind = |state: &mut State| state.stored < until && !state.is_stopped;
        state =
            self.shared.stored.wait_timeout_while(state, patience, is_behind).unwrap_or_else(PoisonError::into_inner).0;
        let is_stalled = is_behind(&mut state);
        let from = state.drained;
        let is_recovered = from < state.recovered;
        let until = if is_recovered { until.min(state.recovered) } else { until }.min(state.stored);
        let is_begun_anew = std::mem::take(&mut state.is_lossy);
        drop(state);

        let store::Found { frames, through, bad } = self.shared.store().read(from..until, limit_bytes);
        let mut state = self.shared.lock();
        state.drained = state.drained.max(through);
        let has_more = state.drained < state.next;
        let is_lossy = is_begun_anew || (bad > 0 && !is_recovered);
        Drained { frames, is_recovered, through, has_more, is_lossy, is_stalled }
    }

    /// Says that the log covers every frame below `through`, so that they may go. Does not block.
    pub(crate) fn release(&self, through: u64) {
        let mut state = self.shared.lock();
        if through > state.released {
            state.released = through;
            self.shared.work.notify_one();
        }
    }

    /// Returns what is kept of an agent's sessions.
    pub fn nonces(&self, agent: AgentId) -> Option<Vec<u8>> {
        self.shared.store().nonces(agent)
    }

    /// Keeps `value` of an agent's sessions; it may be lost.
    pub fn keep_nonces(&self, agent: AgentId, value: &[u8]) {
        self.shared.store().keep_nonces(agent, value);
    }

    /// Takes no more, writes what it has and closes the store. Does not wait for the log. Blocks, though not for a store that
    /// stalls: what that has not taken is sent again.
    pub fn stop(&self) {
        self.close();
        let until = Instant::now() + STOP;
        let mut state = self.shared.lock();
        let mut ended = self.shared.standing.subscribe();
        while !matches!(*ended.borrow_and_update(), Standing::Closed | Standing::Dead) {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                tracing::warn!("the inbox's store does not close; its reports will be sent again by their agents");
                return;
            }
            state = self.shared.stored.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn close(&self) {
        let mut state = self.shared.lock();
        if !state.open.is_empty() {
            state.seal();
        }
        state.is_stopped = true;
        self.shared.work.notify_all();
        self.shared.stored.notify_all();
        wake(state);
    }
}

impl State {
    fn seal(&mut self) {
        let records = std::mem::replace(&mut self.open, Vec::with_capacity(frame::TARGET_BYTES));
        self.queue_bytes += records.len() as u64;
        self.queue.push_back((self.next, records));
        self.next += 1;
    }

    /// Forgets everything that waits, and has the sequencer hear so.
    fn lose(&mut self) {
        self.queue.clear();
        self.open.clear();
        self.queue_bytes = 0;
        self.stored_bytes = 0;
        (self.stored, self.drained) = (self.next, self.next);
        (self.released, self.removed, self.recovered) = (self.next, self.next, 0);
        self.is_lossy = true;
        self.is_told = false;
        self.tell();
    }

    fn tell(&mut self) {
        if !self.is_told
            && let Some(tell) = &self.tell
        {
            tell();
            self.is_told = true;
        }
    }
}

/// Wakes those who wait for room, outside the lock.
fn wake(mut state: MutexGuard<'_, State>) {
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    waiting.into_iter().for_each(Waker::wake);
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Lease {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts `store` in the place of the one that is there, and returns that.
    fn replace_store(&self, store: Store) -> Lease {
        let mut slot = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *slot, Lease::new(store))
    }

    fn insert(&self, store: &Store, number: u64, records: &[u8]) -> Result<(), store::Failed> {
        #[cfg(test)]
        if let Some(outcome) = self.faults.meet(store, number) {
            return outcome;
        }
        store.insert(number, records)
    }

    /// The inbox's thread: the only one that writes frames to the store.
    fn run(&self, dir: &Path) {
        let waiting_bytes = metrics::gauge!("muster_inbox_bytes");
        loop {
            let (queue, remove, is_stopped) = self.next_work();
            let mut bytes = 0_u64;
            let mut stored = None;
            let store = self.store();
            let mut is_lost = false;
            for (number, records) in &queue {
                if self.insert(&store, *number, records).is_err() {
                    is_lost = true;
                    break;
                }
                bytes += records.len() as u64 + 9;
                stored = Some(number + 1);
            }
            let freed = if remove.is_empty() || is_lost { Ok(0) } else { store.remove(remove.clone()) };
            is_lost |= freed.is_err();
            drop(store);
            if is_lost && !is_stopped {
                self.begin_anew(dir);
                continue;
            }
            let mut state = self.lock();
            let sent: u64 = queue.iter().map(|(_, records)| records.len() as u64).sum();
            state.queue_bytes -= sent.min(state.queue_bytes);
            state.stored_bytes = (state.stored_bytes + bytes).saturating_sub(freed.unwrap_or(0));
            state.stored = stored.unwrap_or(0).max(state.stored);
            state.removed = remove.end.max(state.removed);
            waiting_bytes.set((state.stored_bytes + state.queue_bytes) as f64);
            self.stored.notify_all();
            wake(state);
            if is_stopped {
                let store = self.replace_store(Store::none());
                store.close();
                // Here, because whoever stops the inbox may open it again at once.
                if let Some(store) = store.into_last() {
                    store.end();
                }
                return;
            }
        }
    }

    /// Waits until there is something to do; returns the frames to store and the numbers to remove.
    #[allow(clippy::type_complexity, reason = "read at one place, two lines away")]
    fn next_work(&self) -> (Vec<(u64, Vec<u8>)>, std::ops::Range<u64>, bool) {
        let mut state = self.lock();
        loop {
            if !state.queue.is_empty() || state.removed < state.released || state.is_stopped {
                let queue = state.queue.drain(..).collect();
                return (queue, state.removed..state.released, state.is_stopped);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The store failed: sets it aside and begins an empty one, however long that takes. Reports that were in it are sent again.
    fn begin_anew(&self, dir: &Path) {
        use muster_proto::time::Clock as _;
        tracing::warn!("the inbox failed; its reports will be sent again by their agents");
        metrics::counter!("muster_inbox_losses_total").increment(1);
        drop(self.replace_store(Store::none()));
        let mut state = self.lock();
        state.is_broken = true;
        self.standing.send_replace(Standing::Broken);
        state.lose();
        self.stored.notify_all();
        wake(state);

        let mut is_aside = false;
        let mut is_said = false;
        loop {
            let moved = if is_aside { Ok(()) } else { store::set_aside(dir, muster_proto::time::SystemClock.now()) };
            is_aside |= moved.is_ok();
            #[cfg(test)]
            let moved = moved.and_then(|()| self.faults.may_open(dir));
            match moved.and_then(|()| store::open_new(dir)) {
                Ok(store) => {
                    drop(self.replace_store(store));
                    break;
                }
                Err(error) if is_said => {
                    tracing::debug!(error = %crate::serve::status::chain(&error), "still no inbox");
                }
                Err(error) => {
                    is_said = true;
                    let error = crate::serve::status::chain(&error);
                    tracing::error!(error, "no inbox: no reports are taken until one can be opened; make room for it");
                }
            }
            let state = self.lock();
            let is_running = |state: &mut State| !state.is_stopped;
            let waited = self.work.wait_timeout_while(state, RETRY, is_running).unwrap_or_else(PoisonError::into_inner);
            if waited.0.is_stopped {
                return;
            }
        }
        let mut state = self.lock();
        state.is_broken = false;
        self.standing.send_replace(Standing::Open);
        tracing::info!("the inbox is open again, and empty");
        wake(state);
    }
}

/// Tells everybody that the inbox's thread has ended, also when it panicked: nobody may wait for it.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_stopped = true;
        let standing = if thread::panicking() { Standing::Dead } else { Standing::Closed };
        if standing == Standing::Dead {
            tracing::error!("the inbox's thread panicked; nothing is taken until a restart");
        }
        self.0.standing.send_replace(standing);
        if standing == Standing::Dead {
            state.lose();
        }
        self.0.stored.notify_all();
        wake(state);
    }
}

/// How long the inbox waits before it tries again to open a store.
const RETRY: Duration = Duration::from_secs(3);

/// How long the store may take for what it has, when the inbox is stopped.
const STOP: Duration = Duration::from_secs(1);

/// How long opening a store may take before it is given up for unusable.
const OPEN_TIME: Duration = Duration::from_secs(60);

#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
mod tests;
