//! Follows the evidence log: brings each entry into the views, judges what it changed, and tells those who wait.
//!
//! What goes into the views depends on the log alone ([`apply`](self)); what holds now is told by [`standing`] from what is stored.
//! This task reads the clock only to tell watchers what holds now.

mod agent;
mod answers;
mod apply;
mod cache;
mod standing;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muster_proto::{
    id::AgentId,
    time::{Clock, Timestamp},
};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    control::{Catalogue, Verdict},
    log::Checkpoint,
    views::{self, Entries, HostRow, Writer},
};

pub use answers::Answers;
pub use standing::{Known, Standing, standing, standings, verdict_at};

use answers::Awaited;
use apply::Fleet;

/// Entries that one transaction applies, at most.
const BATCH_ENTRIES: u64 = 2048;
/// Changes that wait for a slow watcher, at most; it is then told that it fell behind.
const CHANGES: usize = 4096;
/// Requests for facts that wait, at most.
const RESYNCS: usize = 1024;
/// How often verdicts are looked through for those that time alone changed.
const TICK: Duration = Duration::from_secs(30);
/// How long to wait after the views refused.
const RETRY: Duration = Duration::from_secs(1);

/// The judge cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The views refused.
    #[error("failed to bring log entries into the views")]
    Views(#[from] views::Error),
    /// The log could not be read.
    #[error("failed to read the log")]
    Log {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A verdict that changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The host.
    pub agent: AgentId,
    /// Name that it gives itself.
    pub hostname: String,
    /// The control.
    pub control: String,
    /// The verdict before; `None` when there was none.
    pub previous: Option<Verdict>,
    /// What holds.
    pub standing: Standing,
    /// Log indexes of the reports that it rests on, ascending.
    pub log_indexes: Vec<u64>,
}

/// Hears from the judge. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Judge {
    catalogue: Arc<Catalogue>,
    changes: broadcast::Sender<Arc<Change>>,
    awaited: Awaited,
    resync: broadcast::Sender<AgentId>,
    applied: watch::Sender<u64>,
    board: Arc<Mutex<Board>>,
}

/// Every host as it is at a position of the log.
#[derive(Debug, Default)]
struct Board {
    applied: u64,
    hosts: BTreeMap<AgentId, Arc<HostRow>>,
}

impl Judge {
    /// Returns the controls that judged the last entry when this handle was taken. They change with a start of the collector alone,
    /// which takes its handles after that.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// Returns every host as it is, ordered by agent, and the position of the log that it rests on, which the views cover.
    pub fn hosts(&self) -> (u64, Vec<Arc<HostRow>>) {
        let board = self.board();
        (board.applied, board.hosts.values().cloned().collect())
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a receiver of verdicts that change, from now on.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Change>> {
        self.changes.subscribe()
    }

    /// Returns who waits for answers to directives: until the reports that answer them are in the views.
    pub fn answers(&self) -> Answers {
        Answers::of(&self.awaited)
    }

    /// Returns a receiver of agents whose reports do not add up, so that they should report every subject again.
    pub fn resync(&self) -> broadcast::Receiver<AgentId> {
        self.resync.subscribe()
    }

    /// Returns a receiver of how many entries of the log are in the views.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }
}

/// Brings the log into the views: the only user of their writer.
pub struct Follower {
    log: Arc<dyn Entries>,
    writer: Writer,
    fleet: Fleet,
    clock: Arc<dyn Clock>,
    judge: Judge,
    /// What judges before the log says what does.
    first: Arc<Catalogue>,
}

impl Follower {
    /// Returns who follows `log`. Each entry is judged with the catalogue that the log has put in force before it, and with the
    /// built-in one before the first of these.
    ///
    /// # Errors
    ///
    /// When the views cannot be read.
    pub fn new(log: Arc<dyn Entries>, writer: Writer, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let first = Arc::new(Catalogue::built_in());
        let fleet = Fleet::load(&writer, Arc::clone(&first))?;
        let judge = Judge {
            catalogue: Arc::clone(&fleet.catalogue),
            changes: broadcast::Sender::new(CHANGES),
            awaited: Awaited::default(),
            resync: broadcast::Sender::new(RESYNCS),
            applied: watch::Sender::new(writer.applied()),
            board: Arc::default(),
        };
        let mut follower = Self { log, writer, fleet, clock, judge, first };
        follower.show_all();
        Ok(follower)
    }

    /// Returns a handle for those who wait for verdicts.
    pub fn judge(&self) -> Judge {
        self.judge.clone()
    }

    /// Applies the log up to `size` entries. Blocks. Called once before anyone is served, so that the views are complete.
    ///
    /// # Errors
    ///
    /// When the log or the views fail. What was applied before stays.
    pub fn catch_up(&mut self, size: u64) -> Result<(), Error> {
        while self.writer.applied() < size {
            let first = self.writer.applied();
            let until = size.min(first + BATCH_ENTRIES);
            let entries = self.log.entries(first..until).map_err(|source| Error::Log { source })?;
            self.apply(first, &entries)?;
        }
        Ok(())
    }

    /// Follows the log until `stop`. What fails is tried again.
    pub async fn run(self, mut checkpoints: watch::Receiver<Checkpoint>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut follower = self;
        loop {
            let size = checkpoints.borrow_and_update().size;
            let (back, result) = match on_blocking_pool(follower, size).await {
                Some(done) => done,
                None => return,
            };
            follower = back;
            if let Err(error) = result {
                tracing::error!(error = %chain(&error), "the judge is behind the log and tries again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => continue,
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = checkpoints.changed() => if changed.is_err() { return },
                _ = tick.tick() => follower.on_tick(),
            }
        }
    }

    fn apply(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<(), Error> {
        match self.fleet.apply(&mut self.writer, first, entries) {
            Ok(touched) => {
                self.take_catalogue();
                self.post(&touched);
                let news = std::mem::take(&mut self.fleet.news);
                let now = self.clock.now();
                for agent in touched {
                    self.show(agent, now);
                }
                self.judge.applied.send_replace(self.writer.applied());
                // Nobody may be listening, which is no fault.
                self.judge.awaited.tell(news.answered);
                news.resync.into_iter().for_each(|agent| drop(self.judge.resync.send(agent)));
                Ok(())
            }
            Err(error) => {
                let shown = std::mem::take(&mut self.fleet.agents);
                self.fleet = Fleet::load(&self.writer, Arc::clone(&self.first))?;
                for (id, agent) in shown {
                    if let Some(loaded) = self.fleet.agents.get_mut(&id) {
                        loaded.shown = agent.shown;
                    }
                }
                Err(error.into())
            }
        }
    }

    /// Takes what holds as published where another catalogue judges: its controls are others.
    fn take_catalogue(&mut self) {
        if self.judge.catalogue.digest() != self.fleet.catalogue.digest() {
            self.judge.catalogue = Arc::clone(&self.fleet.catalogue);
            self.show_all();
        }
    }

    /// Shows the hosts that a batch touched, and how far the views are.
    fn post(&self, touched: &BTreeSet<AgentId>) {
        let hosts: Vec<(AgentId, Arc<HostRow>)> =
            touched.iter().filter_map(|id| Some((*id, Arc::new(self.fleet.agents.get(id)?.host.clone())))).collect();
        let mut board = self.judge.board();
        board.hosts.extend(hosts);
        board.applied = self.writer.applied();
    }

    /// Publishes what time alone changed.
    pub(crate) fn on_tick(&mut self) {
        let now = self.clock.now();
        let agents: Vec<AgentId> = self.fleet.agents.keys().copied().collect();
        for agent in agents {
            self.show(agent, now);
        }
    }

    /// Takes what holds at the start as published.
    fn show_all(&mut self) {
        let now = self.clock.now();
        for agent in self.fleet.agents.values_mut() {
            agent.shown = agent.verdicts_at(&self.judge.catalogue, now);
        }
        self.post(&self.fleet.agents.keys().copied().collect());
    }

    /// Publishes the verdicts of an agent that differ from those published last.
    fn show(&mut self, id: AgentId, now: Timestamp) {
        let Some(agent) = self.fleet.agents.get_mut(&id) else { return };
        let verdicts = agent.verdicts_at(&self.judge.catalogue, now);
        if verdicts == agent.shown {
            return;
        }
        let shown = std::mem::replace(&mut agent.shown, verdicts);
        let known = Known::of(&agent.host.agent, &agent.host.facts);
        for (at, control) in self.judge.catalogue.controls().enumerate() {
            let (Some(row), previous) = (agent.verdict(control), shown[at]) else { continue };
            if previous == agent.shown[at] {
                continue;
            }
            let change = Change {
                agent: id,
                hostname: agent.host.agent.hostname.clone(),
                control: row.control.clone(),
                previous,
                standing: standing(control, row, &known, now),
                log_indexes: log_indexes(control, &agent.host.facts, &agent.host.agent.looks()),
            };
            drop(self.judge.changes.send(Arc::new(change)));
        }
    }
}

/// Returns the log indexes of the reports that brought the facts of a control, and of those whose looks confirm them.
pub fn log_indexes(
    control: &crate::control::Control,
    facts: &BTreeMap<muster_proto::fact::Subject, views::FactRow>,
    looks: &views::Looks,
) -> Vec<u64> {
    let mut indexes: Vec<u64> = Vec::new();
    for fact in control.subjects.iter().filter_map(|subject| facts.get(subject)) {
        indexes.extend(&fact.origins);
        indexes.extend(views::confirmation(fact, looks).1.map(|look| look.log_index));
    }
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

/// Catches up on the blocking pool; `None` when the runtime ends.
async fn on_blocking_pool(mut follower: Follower, size: u64) -> Option<(Follower, Result<(), Error>)> {
    if follower.writer.applied() >= size {
        return Some((follower, Ok(())));
    }
    let done = tokio::task::spawn_blocking(move || {
        let result = follower.catch_up(size);
        (follower, result)
    });
    match done.await {
        Ok(done) => Some(done),
        Err(error) => {
            tracing::error!(%error, "the judge has stopped; restart the collector");
            None
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
