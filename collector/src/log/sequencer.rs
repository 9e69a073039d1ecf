//! Gives everything its place in the log: one thread that turns what waits into entries, a checkpoint and acknowledgements.
//!
//! A round takes the acts that wait and the inbox's records, sorts the records by agent (each agent's own order stays), appends
//! them under one received time, commits, and only then tells who waits. Rounds start no more often than the interval; with
//! nothing to do the thread sleeps, and the first thing after that is not held up.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use muster_proto::{
    id::{AgentId, Digest, Epoch, ReportSeq},
    limits,
    time::{Clock, Timestamp},
    v1,
};
use prost::Message as _;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::{Appender, Checkpoint, Log};
use crate::inbox::{Inbox, frame::Record};

/// How often checkpoints are made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Milliseconds between the starts of two checkpoints, at least; default 200. Smaller acknowledges sooner and costs more
    /// processor time and disk writes for each report.
    pub checkpoint_millis: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { checkpoint_millis: 200 }
    }
}

/// Bytes of the inbox that one round takes.
const ROUND_BYTES: usize = 32 * 1024 * 1024;
/// How long a round waits for the inbox's store to take what is on its way, without acts and with some.
const STALL: Duration = Duration::from_millis(100);
const ACT_STALL: Duration = Duration::from_millis(10);
/// Acts that wait, at most.
const ACTS: usize = 4096;

/// Why an entry has no place in the log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The log signs nothing any more, or the collector stops.
    #[error("the log takes no entries: {0}")]
    Stopped(String),
    /// Too many entries wait.
    #[error("too many entries wait for the log; try again in a second")]
    Busy,
    /// It is longer than the format allows.
    #[error("entry is longer than 65535 bytes")]
    TooLong,
}

/// Reports of one agent that one round made durable, which follow each other in its chain and in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// Whose.
    pub agent: AgentId,
    /// Their epoch.
    pub epoch: Epoch,
    /// How many.
    pub count: u32,
    /// Place of the last.
    pub last: ReportSeq,
    /// Digest of the last.
    pub digest: Digest,
    /// Index of the last in the log.
    pub index: u64,
}

/// Who knows the agents' chains: has the last word on each report, and hears what became of it.
pub trait Follower: Send + 'static {
    /// Returns whether `record` is the next of its agent's chain; called once for each record, in the order of the log.
    /// A record of the process before is `recovered`, and must be checked as if it had just come.
    fn is_next(&mut self, record: &Record<'_>, recovered: bool) -> bool;
    /// Hears of each other entry that has its place in this round, before the records of the round: what it means for them counts
    /// already. It is not durable yet.
    fn placed(&mut self, entry: &v1::LogEntry);
    /// Hears that reports are durable under `checkpoint`.
    fn durable(&mut self, runs: &[Run], checkpoint: &Checkpoint);
    /// Hears of each other entry that is durable, in the order of the log and before its writer does.
    fn applied(&mut self, index: u64, entry: &v1::LogEntry);
    /// Hears that reports which waited may be gone. What was not given to [`Self::is_next`] by now is void.
    fn lost(&mut self);
    /// Hears that nothing will be durable any more.
    fn stopped(&mut self, why: &str);
}

/// Puts entries into the log. Cheap to clone.
#[derive(Clone)]
pub struct Sequencer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    acts: Vec<Waiting>,
    has_reports: bool,
    is_stopping: bool,
    stopped: Option<String>,
    thread: Option<JoinHandle<()>>,
}

/// An act that waits for its place.
struct Waiting {
    entry: v1::LogEntry,
    answer: oneshot::Sender<Result<u64, Error>>,
}

impl Sequencer {
    /// Starts the thread that writes to `appender`.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] when the last entry cannot be read or no thread can be started.
    pub fn start(
        (log, appender): (&Log, Appender),
        inbox: Inbox,
        follower: impl Follower,
        clock: Arc<dyn Clock>,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        inbox.on_data(Box::new(move || {
            told.lock().has_reports = true;
            told.work.notify_one();
        }));
        let rounds = Rounds {
            last_received: last_received(log)?,
            placed: Vec::new(),
            appender,
            inbox,
            follower: Box::new(follower),
            clock,
            interval: Duration::from_millis(settings.checkpoint_millis),
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new()
            .name("sequencer".to_owned())
            .spawn(move || rounds.run())
            .map_err(|error| Error::Stopped(format!("no thread: {error}")))?;
        shared.lock().thread = Some(thread);
        Ok(Self { shared })
    }

    /// Appends `entry` and returns its index once a signed, synced checkpoint covers it. The received time is set here: it
    /// never goes back inside the log.
    ///
    /// # Errors
    ///
    /// Says whether the log is stopped, busy, or the entry too long. Dropping the future leaves it open whether the entry is
    /// in the log.
    pub async fn append(&self, entry: v1::LogEntry) -> Result<u64, Error> {
        let (answer, receive) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if let Some(why) = &state.stopped {
                return Err(Error::Stopped(why.clone()));
            }
            if state.acts.len() >= ACTS {
                return Err(Error::Busy);
            }
            state.acts.push(Waiting { entry, answer });
        }
        self.shared.work.notify_one();
        receive.await.unwrap_or_else(|_| {
            let stopped = self.shared.lock().stopped.clone();
            Err(Error::Stopped(stopped.unwrap_or_else(|| "its writer has ended".to_owned())))
        })
    }

    /// Writes what waits, then ends the thread. Blocks.
    pub fn stop(&self) {
        let thread = {
            let mut state = self.shared.lock();
            state.is_stopping = true;
            state.thread.take()
        };
        self.shared.work.notify_all();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the sequencer's thread panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the received time of the last entry, before which no other may lie.
fn last_received(log: &Log) -> Result<Timestamp, Error> {
    let Some(checkpoint) = log.checkpoint() else { return Ok(Timestamp::EPOCH) };
    let bytes = log.entry(checkpoint.size - 1).map_err(|error| Error::Stopped(error.to_string()))?;
    let entry = v1::LogEntry::decode(&*bytes).map_err(|_| Error::Stopped("its last entry is not one".to_owned()))?;
    let received = entry.received_time.as_ref().and_then(Timestamp::from_wire);
    received.ok_or(Error::Stopped("its last entry has no time".to_owned()))
}

/// What the thread owns.
struct Rounds {
    appender: Appender,
    inbox: Inbox,
    follower: Box<dyn Follower>,
    clock: Arc<dyn Clock>,
    interval: Duration,
    last_received: Timestamp,
    /// Acts that have their place in this round. They are here so that they are given up only after it is known why.
    placed: Vec<(Waiting, u64)>,
    shared: Arc<Shared>,
}

impl Drop for Rounds {
    /// Also when a round panicked: nobody may wait for ever.
    fn drop(&mut self) {
        let why = if thread::panicking() { "the sequencer panicked" } else { "the collector stops" };
        {
            let mut state = self.shared.lock();
            state.stopped.get_or_insert_with(|| why.to_owned());
            state.acts.clear();
        }
        if thread::panicking() {
            self.appender.stop(why);
            self.follower.stopped(why);
        }
    }
}

impl Rounds {
    fn run(mut self) {
        let mut next = Instant::now();
        while let Some(acts) = self.wait(next) {
            next = Instant::now() + self.interval;
            match self.round(acts) {
                Ok(has_more) if has_more => next = Instant::now(),
                Ok(_) => {}
                Err(why) => {
                    self.shared.lock().stopped = Some(why.clone());
                    self.follower.stopped(&why);
                    return;
                }
            }
        }
    }

    /// Waits for something to do, and then until `next`; `None` when it is time to end.
    fn wait(&self, next: Instant) -> Option<Vec<Waiting>> {
        let mut state = self.shared.lock();
        loop {
            let has_work = state.has_reports || !state.acts.is_empty();
            let now = Instant::now();
            if state.is_stopping || (has_work && now >= next) {
                if state.is_stopping && !has_work {
                    return None;
                }
                state.has_reports = false;
                return Some(std::mem::take(&mut state.acts));
            }
            state = if has_work {
                self.shared.work.wait_timeout(state, next - now).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// Makes one checkpoint. Returns whether more waits already, or why the log stopped.
    fn round(&mut self, acts: Vec<Waiting>) -> Result<bool, String> {
        let started = Instant::now();
        let received = self.clock.now().max(self.last_received);
        self.append_acts(acts, received)?;
        // Whoever waits for an act does not wait for what is on its way to the store as well.
        let patience = if self.placed.is_empty() { STALL } else { ACT_STALL };
        let drained = self.inbox.drain(ROUND_BYTES, patience);
        let mut records: Vec<Record<'_>> = drained.frames.iter().flat_map(|frame| frame.records()).collect();
        // Each agent's reports lie together in the log; a stable sort keeps their own order.
        records.sort_by_key(|record| record.agent);
        let runs = self.append_reports(&records, drained.is_recovered, received)?;
        let reports = runs.iter().map(|run| u64::from(run.count)).sum::<u64>();
        drop(records);

        if self.appender.is_dirty() {
            self.last_received = received;
            let checkpoint = self.appender.commit().map_err(|error| error.to_string())?;
            for (waiting, index) in &self.placed {
                self.follower.applied(*index, &waiting.entry);
            }
            self.follower.durable(&runs, &checkpoint);
            metrics::gauge!("muster_log_entries").set(checkpoint.size as f64);
            metrics::counter!("muster_log_checkpoints_total").increment(1);
            metrics::counter!("muster_log_reports_total").increment(reports);
            metrics::histogram!("muster_log_checkpoint_seconds").record(started.elapsed().as_secs_f64());
        }
        for (waiting, index) in self.placed.drain(..) {
            // Whoever waited may have gone.
            let _ = waiting.answer.send(Ok(index));
        }
        if drained.is_lossy {
            self.follower.lost();
        }
        self.inbox.release(drained.through);
        let mut state = self.shared.lock();
        // A store that takes nothing does not hold up a stop either: what it has not taken was not acknowledged.
        let has_more = drained.has_more && !(state.is_stopping && drained.is_stalled);
        state.has_reports |= has_more;
        Ok(has_more)
    }

    fn append_acts(&mut self, acts: Vec<Waiting>, received: Timestamp) -> Result<(), String> {
        for mut waiting in acts {
            waiting.entry.received_time = Some(received.to_wire());
            let bytes = waiting.entry.encode_to_vec();
            if bytes.len() > limits::ENTRY_BYTES {
                let _ = waiting.answer.send(Err(Error::TooLong));
                continue;
            }
            let index = self.appender.append(&[&bytes]).map_err(|error| error.to_string())?;
            self.follower.placed(&waiting.entry);
            self.placed.push((waiting, index));
        }
        Ok(())
    }

    fn append_reports(
        &mut self,
        records: &[Record<'_>],
        recovered: bool,
        received: Timestamp,
    ) -> Result<Vec<Run>, String> {
        // The fields of an entry in order: the time, which is the same for the whole round, and the body.
        let time = v1::LogEntry { received_time: Some(received.to_wire()), entry: None }.encode_to_vec();
        let mut runs: Vec<Run> = Vec::new();
        for record in records {
            let is_too_long = time.len() + record.body.len() > limits::ENTRY_BYTES;
            if is_too_long || !self.follower.is_next(record, recovered) {
                metrics::counter!("muster_inbox_dropped_reports_total").increment(1);
                continue;
            }
            let index = self.appender.append(&[&time, record.body]).map_err(|error| error.to_string())?;
            let Record { agent, epoch, seq, digest, .. } = *record;
            match runs.last_mut().filter(|run| (run.agent, run.epoch) == (agent, epoch)) {
                Some(run) => *run = Run { count: run.count + 1, last: seq, digest, index, ..*run },
                None => runs.push(Run { agent, epoch, count: 1, last: seq, digest, index }),
            }
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::time::SystemClock;

    use super::*;
    use crate::{inbox, log::Key};

    /// A follower that panics when an act is applied.
    struct Panicking;

    impl Follower for Panicking {
        fn is_next(&mut self, _record: &Record<'_>, _recovered: bool) -> bool {
            false
        }
        fn placed(&mut self, _entry: &v1::LogEntry) {}
        fn durable(&mut self, _runs: &[Run], _checkpoint: &Checkpoint) {}
        fn applied(&mut self, _index: u64, _entry: &v1::LogEntry) {
            panic!("as the test wants it");
        }
        fn lost(&mut self) {}
        fn stopped(&mut self, _why: &str) {}
    }

    #[tokio::test]
    async fn whoever_waits_when_the_sequencer_panics_hears_so_and_so_does_the_collector() {
        let temp = tempfile::tempdir().unwrap();
        let key = Key::generate("c1").unwrap();
        Log::create(&temp.path().join("log"), &key).unwrap();
        let (log, appender) = Log::open(&temp.path().join("log"), key).unwrap();
        let clock = Arc::new(SystemClock);
        let inbox = Inbox::open(&temp.path().join("inbox"), &inbox::Settings::default(), clock.now()).unwrap();
        let settings = Settings::default();
        let sequencer = Sequencer::start((&log, appender), inbox.clone(), Panicking, clock, &settings).unwrap();
        let mut stopped = log.stopped();
        let panicked = Error::Stopped("the sequencer panicked".to_owned());
        // While the round runs, and afterwards.
        for _ in 0..2 {
            let entry = v1::LogEntry { received_time: None, entry: None };
            assert_eq!(sequencer.append(entry).await, Err(panicked.clone()));
        }
        let why = stopped.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(why.as_deref(), Some("the sequencer panicked"));
        sequencer.stop();
        inbox.stop();
    }
}
