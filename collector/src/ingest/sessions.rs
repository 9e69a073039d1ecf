//! The open streams, and what is known of each agent's chain. Hears from the sequencer what became durable.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use muster_proto::{
    id::{AgentId, Digest, Epoch, ReportSeq},
    seal::sealed_digest,
    time::{Clock, Timestamp},
    v1,
};
use prost::Message as _;
use tokio::sync::oneshot;
use tonic::Status;

use super::{
    ReportLookup, Settings,
    admit::{self, Sender},
    allowance::Allowance,
    chain::{Chain, Head, Sequenced},
};
use crate::{
    inbox::{Inbox, frame::Record},
    log::{
        self, Checkpoint, Log,
        sequencer::{Follower, Run},
    },
    members::{AgentState, Members},
    serve::status::{Reason, chain as causes, refuse, retry_after},
};

/// Directives that wait for one agent, at most.
const DIRECTIVES: usize = 16;
/// How often the disk's free space is looked at.
const DISK_LOOK: Duration = Duration::from_secs(2);

/// The durable head of one agent's epoch, as the views know it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KnownHead {
    /// Whose.
    pub agent: AgentId,
    /// Which epoch.
    pub epoch: Epoch,
    /// The last durable report.
    pub head: Head,
}

/// Why a stream ends before its agent wants it to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The agent was revoked.
    Revoked,
    /// The agent was frozen by a conflict.
    Frozen,
    /// The agent opened another stream.
    Replaced,
    /// The collector stops.
    Draining,
    /// The log takes nothing any more, or the inbox lost something.
    Unavailable,
    /// The disk is nearly full.
    DiskFull,
    /// The agent sent too much that was refused.
    Refused,
}

impl End {
    /// Returns what the agent hears.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Revoked => {
                refuse(Reason::AgentRevoked, "the agent was revoked; enrol it anew with a new state folder")
            }
            Self::Frozen => {
                refuse(Reason::AgentFrozen, "two claims contradict each other; an operator must resolve the conflict")
            }
            Self::Replaced => {
                refuse(Reason::AlreadyStreaming, "the agent opened another stream, and the newest counts")
            }
            Self::Draining => retry_after(Reason::Draining, "the collector is stopping", Duration::from_secs(5)),
            Self::Unavailable => {
                retry_after(Reason::Draining, "the collector takes no reports at the moment", Duration::from_secs(5))
            }
            Self::DiskFull => {
                retry_after(Reason::DiskFull, "the collector's disk is nearly full", Duration::from_secs(60))
            }
            Self::Refused => refuse(Reason::TooManyAttempts, "too many of the agent's reports were refused"),
        }
    }
}

/// A directive could not be given.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The agent has no open stream.
    #[error("the agent is not connected")]
    NotConnected,
    /// The agent does not take what was given before.
    #[error("too many directives wait for the agent")]
    Busy,
}

/// The open streams. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    pub(super) registry: Arc<Registry>,
}

/// Everything that streams share.
pub(super) struct Registry {
    pub(super) settings: Settings,
    pub(super) members: Members,
    pub(super) inbox: Inbox,
    pub(super) log: Log,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) lookup: Arc<dyn ReportLookup>,
    agents: RwLock<HashMap<AgentId, Arc<Slot>>>,
    next_stream: AtomicU64,
    connected: AtomicUsize,
    last_directive: AtomicU64,
    /// Why no stream may be open; checked before and after registering one.
    closed: Mutex<Option<End>>,
    is_disk_low: AtomicBool,
    disk: PathBuf,
    disk_looked: Mutex<Option<Instant>>,
    /// Counts reports; looked up once, because each batch counts.
    pub(super) admitted: metrics::Counter,
}

/// What is known of one agent.
pub(super) struct Slot {
    pub(super) id: AgentId,
    chain: Mutex<Chain>,
    mailbox: Mutex<Option<Arc<Mailbox>>>,
    /// Collector's clock in microseconds; 0 before anything was heard.
    last_seen: AtomicI64,
    /// Set from the moment a conflict is seen until its entry is applied.
    pub(super) is_suspended: AtomicBool,
    /// Those who wait for the index of a report on its way.
    awaited: Mutex<Vec<(Epoch, ReportSeq, oneshot::Sender<u64>)>>,
    allowance: Mutex<Allowance>,
    /// Set while one Hello is answered: an agent has one at a time, so that it cannot take up all threads.
    is_greeting: AtomicBool,
}

/// What waits to be told to one stream.
pub(super) struct Mailbox {
    pub(super) stream: u64,
    pub(super) waker: AtomicWaker,
    mail: Mutex<Mail>,
}

#[derive(Default)]
struct Mail {
    durable: Option<(Epoch, ReportSeq, Arc<[u8]>)>,
    directives: VecDeque<v1::Directive>,
    end: Option<End>,
}

/// One thing from a mailbox.
pub(super) enum Letter {
    Durable(Epoch, ReportSeq, Arc<[u8]>),
    Directive(v1::Directive),
    End(End),
}

impl Sessions {
    /// Returns the registry with the chains that are durable: `heads` as of the log's first `applied` entries, and what the
    /// log holds after those. Reads the log; blocks.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn load(
        settings: Settings,
        (members, inbox, log): (Members, Inbox, Log),
        clock: Arc<dyn Clock>,
        lookup: Arc<dyn ReportLookup>,
        heads: impl IntoIterator<Item = KnownHead>,
        applied: u64,
    ) -> Result<Self, log::Error> {
        let mut agents: HashMap<AgentId, Arc<Slot>> = HashMap::new();
        let mut add = |known: KnownHead| {
            let slot = agents.entry(known.agent).or_insert_with(|| Arc::new(Slot::new(known.agent)));
            slot.chain().with_head(known.epoch, known.head);
        };
        heads.into_iter().for_each(&mut add);
        let size = log.size();
        for start in (applied.min(size)..size).step_by(4096) {
            for (at, bytes) in log.entries(start..size.min(start + 4096))?.iter().enumerate() {
                head_of(bytes, start + at as u64).into_iter().for_each(&mut add);
            }
        }
        let disk = settings.data.clone();
        let registry = Registry {
            settings,
            members,
            inbox,
            log,
            clock,
            lookup,
            agents: RwLock::new(agents),
            next_stream: AtomicU64::new(1),
            connected: AtomicUsize::new(0),
            last_directive: AtomicU64::new(0),
            closed: Mutex::new(None),
            is_disk_low: AtomicBool::new(false),
            disk,
            disk_looked: Mutex::new(None),
            admitted: metrics::counter!("muster_ingest_reports_total", "outcome" => "admitted"),
        };
        Ok(Self { registry: Arc::new(registry) })
    }

    /// Returns whether `agent` has an open stream.
    pub fn connected(&self, agent: AgentId) -> bool {
        self.registry.find(agent).is_some_and(|slot| slot.mailbox().is_some())
    }

    /// Returns how many agents have an open stream.
    pub fn connected_count(&self) -> usize {
        self.registry.connected.load(Ordering::Relaxed)
    }

    /// Returns when `agent` was heard of last, since the collector started: now, while its stream is open, for the connection's
    /// keepalive closes it when the host does not answer. This is liveness, never evidence.
    pub fn last_seen(&self, agent: AgentId) -> Option<Timestamp> {
        let slot = self.registry.find(agent)?;
        if slot.mailbox().is_some() {
            return Some(self.registry.clock.now());
        }
        Timestamp::from_micros(slot.last_seen.load(Ordering::Relaxed)).filter(|time| *time > Timestamp::EPOCH)
    }

    /// Gives `agent` a directive and returns its id.
    ///
    /// # Errors
    ///
    /// When it is not connected or does not take what it was given before.
    pub fn direct(&self, agent: AgentId, directive: v1::directive::Directive) -> Result<u64, Error> {
        let mailbox = self.registry.find(agent).and_then(|slot| slot.mailbox().clone()).ok_or(Error::NotConnected)?;
        let id = self.registry.next_directive();
        mailbox.direct(v1::Directive { id, directive: Some(directive) })?;
        Ok(id)
    }

    /// Ends the stream of `agent`, if it has one.
    pub fn end(&self, agent: AgentId, why: End) {
        if let Some(mailbox) = self.registry.find(agent).and_then(|slot| slot.mailbox().clone()) {
            mailbox.end(why);
        }
    }

    /// Ends every stream and takes no new one: the collector stops.
    pub fn drain(&self) {
        self.registry.close(End::Draining);
    }

    /// Returns who hears from the sequencer.
    pub fn follower(&self) -> impl Follower + use<> {
        Listener { registry: Arc::clone(&self.registry), last: None, barred: HashSet::new() }
    }
}

impl Registry {
    pub(super) fn find(&self, agent: AgentId) -> Option<Arc<Slot>> {
        self.agents.read().unwrap_or_else(PoisonError::into_inner).get(&agent).cloned()
    }

    /// Returns the slot of an agent that the members know; there are no more slots than members.
    pub(super) fn slot(&self, agent: AgentId) -> Arc<Slot> {
        if let Some(slot) = self.find(agent) {
            return slot;
        }
        let mut agents = self.agents.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(agents.entry(agent).or_insert_with(|| Arc::new(Slot::new(agent))))
    }

    /// Returns why no stream may be open.
    pub(super) fn closed(&self) -> Option<End> {
        let closed = *lock(&self.closed);
        closed.or_else(|| {
            self.look_at_disk();
            let is_low = self.is_disk_low.load(Ordering::Relaxed).then_some(End::DiskFull);
            is_low.or_else(|| (!self.inbox.is_open()).then_some(End::Unavailable))
        })
    }

    /// Opens a stream for `slot`; an older one of the same agent ends.
    pub(super) fn open(&self, slot: &Slot) -> Result<Arc<Mailbox>, End> {
        let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let mailbox = Arc::new(Mailbox { stream, waker: AtomicWaker::new(), mail: Mutex::default() });
        slot.chain().take_over(stream);
        let before = slot.mailbox().replace(Arc::clone(&mailbox));
        match before {
            Some(before) => before.end(End::Replaced),
            None => {
                let count = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
                metrics::gauge!("muster_ingest_streams").set(count as f64);
            }
        }
        // Whoever closed everything meanwhile did not see this one.
        match self.closed() {
            Some(end) => {
                self.leave(slot, &mailbox);
                Err(end)
            }
            None => Ok(mailbox),
        }
    }

    /// Hears that a stream ended.
    pub(super) fn leave(&self, slot: &Slot, mailbox: &Mailbox) {
        slot.chain().leave(mailbox.stream);
        slot.last_seen.store(self.clock.now().micros(), Ordering::Relaxed);
        let mut current = slot.mailbox();
        if current.as_ref().is_some_and(|current| current.stream == mailbox.stream) {
            *current = None;
            let count = self.connected.fetch_sub(1, Ordering::Relaxed) - 1;
            metrics::gauge!("muster_ingest_streams").set(count as f64);
        }
    }

    fn close(&self, why: End) {
        *lock(&self.closed) = Some(why);
        self.end_all(why);
    }

    fn end_all(&self, why: End) {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        let mailboxes: Vec<_> = agents.values().filter_map(|slot| slot.mailbox().clone()).collect();
        drop(agents);
        mailboxes.iter().for_each(|mailbox| mailbox.end(why));
    }

    /// An id that no directive of this collector had: its clock in microseconds, and never the same twice.
    pub(super) fn next_directive(&self) -> u64 {
        let now = u64::try_from(self.clock.now().micros()).unwrap_or_default();
        let next = |last: u64| Some(now.max(last + 1));
        let last = self.last_directive.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        now.max(last.unwrap_or_default() + 1)
    }

    /// Looks at the disk's free space, now and then; streams end when there is too little.
    fn look_at_disk(&self) {
        {
            let mut looked = lock(&self.disk_looked);
            if looked.is_some_and(|at| at.elapsed() < DISK_LOOK) {
                return;
            }
            *looked = Some(Instant::now());
        }
        let Ok(disk) = rustix::fs::statvfs(&self.disk) else { return };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        metrics::gauge!("muster_disk_free_bytes").set(free as f64);
        let is_low = free < self.settings.min_free_bytes;
        if self.is_disk_low.swap(is_low, Ordering::Relaxed) != is_low {
            if is_low {
                tracing::error!(free_bytes = free, "the disk is nearly full: no reports are taken");
                self.end_all(End::DiskFull);
            } else {
                tracing::info!(free_bytes = free, "the disk has room again");
            }
        }
    }
}

impl Slot {
    fn new(id: AgentId) -> Self {
        Self {
            id,
            chain: Mutex::default(),
            mailbox: Mutex::default(),
            last_seen: AtomicI64::new(0),
            is_suspended: AtomicBool::new(false),
            awaited: Mutex::default(),
            allowance: Mutex::new(Allowance::new(tokio::time::Instant::now())),
            is_greeting: AtomicBool::new(false),
        }
    }

    pub(super) fn allowance(&self) -> MutexGuard<'_, Allowance> {
        lock(&self.allowance)
    }

    pub(super) fn chain(&self) -> MutexGuard<'_, Chain> {
        lock(&self.chain)
    }

    /// Returns a turn to say Hello; `None` while another stream of the agent has it.
    pub(super) fn turn(self: &Arc<Self>) -> Option<Turn> {
        let is_taken = self.is_greeting.swap(true, Ordering::Acquire);
        (!is_taken).then(|| Turn(Arc::clone(self)))
    }

    fn mailbox(&self) -> MutexGuard<'_, Option<Arc<Mailbox>>> {
        lock(&self.mailbox)
    }

    /// Returns the index of a report on its way, once it has one. The caller holds the chain, so that it is still on its way.
    pub(super) fn await_index(&self, epoch: Epoch, seq: ReportSeq) -> oneshot::Receiver<u64> {
        let (send, receive) = oneshot::channel();
        lock(&self.awaited).push((epoch, seq, send));
        receive
    }
}

/// The turn of one stream to say Hello.
pub(super) struct Turn(pub(super) Arc<Slot>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.is_greeting.store(false, Ordering::Release);
    }
}

impl Mailbox {
    /// Returns the next thing to tell; an end comes before everything else.
    pub(super) fn take(&self) -> Option<Letter> {
        let mut mail = lock(&self.mail);
        if let Some(end) = mail.end {
            return Some(Letter::End(end));
        }
        if let Some((epoch, seq, note)) = mail.durable.take() {
            return Some(Letter::Durable(epoch, seq, note));
        }
        mail.directives.pop_front().map(Letter::Directive)
    }

    pub(super) fn end(&self, why: End) {
        lock(&self.mail).end.get_or_insert(why);
        self.waker.wake();
    }

    fn durable(&self, epoch: Epoch, seq: ReportSeq, note: &Arc<[u8]>) {
        lock(&self.mail).durable = Some((epoch, seq, Arc::clone(note)));
        self.waker.wake();
    }

    fn direct(&self, directive: v1::Directive) -> Result<(), Error> {
        let mut mail = lock(&self.mail);
        if mail.directives.len() >= DIRECTIVES {
            return Err(Error::Busy);
        }
        mail.directives.push_back(directive);
        drop(mail);
        self.waker.wake();
        Ok(())
    }
}

/// Hears from the sequencer, on its thread.
struct Listener {
    registry: Arc<Registry>,
    /// The agent of the record before, for records come sorted by agent.
    last: Option<Subject>,
    /// Agents that an entry of this round, which is not applied yet, shut out.
    barred: HashSet<AgentId>,
}

/// An agent whose records the log is about to take.
struct Subject {
    slot: Arc<Slot>,
    is_welcome: bool,
}

impl Follower for Listener {
    fn is_next(&mut self, record: &Record<'_>, recovered: bool) -> bool {
        if self.last.as_ref().is_none_or(|last| last.slot.id != record.agent) {
            let is_welcome = self.is_welcome(record.agent);
            // Only members have slots.
            let slot =
                if is_welcome { Some(self.registry.slot(record.agent)) } else { self.registry.find(record.agent) };
            let Some(slot) = slot else { return false };
            if !is_welcome {
                // Whatever is on its way has no place any more, and the next stream must not wait for it.
                slot.chain().reset();
                lock(&slot.awaited).clear();
            }
            self.last = Some(Subject { slot, is_welcome });
        }
        let Some(Subject { slot, is_welcome: true }) = &self.last else { return false };
        if recovered {
            return is_next_recovered(&self.registry, slot, record);
        }
        let sequenced = slot.chain().sequence(record.stream, record.epoch, record.seq, record.digest);
        if sequenced == Sequenced::Lost {
            lock(&slot.awaited).clear();
            tracing::warn!(agent = %record.agent, seq = %record.seq, "the inbox lost reports before this one; its agent sends again");
            if let Some(mailbox) = &*slot.mailbox() {
                mailbox.end(End::Unavailable);
            }
        }
        sequenced == Sequenced::Next
    }

    fn placed(&mut self, entry: &v1::LogEntry) {
        let shut_out = match &entry.entry {
            Some(v1::log_entry::Entry::Conflict(conflict)) => &conflict.agent_id,
            Some(v1::log_entry::Entry::Act(v1::Act { act: Some(v1::act::Act::AgentRevoked(act)), .. })) => {
                &act.agent_id
            }
            _ => return,
        };
        self.barred.extend(AgentId::from_slice(shut_out));
        self.last = None;
    }

    fn durable(&mut self, runs: &[Run], checkpoint: &Checkpoint) {
        self.last = None;
        self.barred.clear();
        self.registry.look_at_disk();
        for run in runs {
            let Some(slot) = self.registry.find(run.agent) else { continue };
            // In the order in which a stream takes the two: the chain, then who waits.
            let mut chain = slot.chain();
            let mut awaited = lock(&slot.awaited);
            chain.commit(run.count as usize, run.index, |epoch, seq, index| {
                for (_, _, answer) in awaited.extract_if(.., |(e, s, _)| (*e, *s) == (epoch, seq)) {
                    // Whoever waited may have gone.
                    let _ = answer.send(index);
                }
            });
            drop((awaited, chain));
            let mailbox = slot.mailbox().clone();
            if let Some(mailbox) = mailbox {
                mailbox.durable(run.epoch, run.last, &checkpoint.note);
            }
        }
    }

    fn applied(&mut self, index: u64, entry: &v1::LogEntry) {
        if let Err(error) = self.registry.members.apply(index, entry) {
            tracing::error!(index, error = %causes(&error), "an entry of the log cannot be followed");
        }
        match &entry.entry {
            Some(v1::log_entry::Entry::Conflict(conflict)) => {
                let Some(slot) = AgentId::from_slice(&conflict.agent_id).map(|id| self.registry.slot(id)) else {
                    return;
                };
                slot.is_suspended.store(false, Ordering::Release);
                if let Some(mailbox) = &*slot.mailbox() {
                    mailbox.end(End::Frozen);
                }
            }
            Some(v1::log_entry::Entry::Act(v1::Act { act: Some(act), .. })) => self.applied_act(act),
            _ => {}
        }
    }

    fn lost(&mut self) {
        self.last = None;
        if !self.registry.inbox.is_open() {
            // Streams that wait for room would wait for as long as there is no inbox.
            self.registry.end_all(End::Unavailable);
        }
        let agents = self.registry.agents.read().unwrap_or_else(PoisonError::into_inner);
        let slots: Vec<_> = agents.values().cloned().collect();
        drop(agents);
        for slot in slots {
            let mut chain = slot.chain();
            if chain.in_flight().0 == 0 {
                continue;
            }
            chain.reset();
            drop(chain);
            lock(&slot.awaited).clear();
            let mailbox = slot.mailbox().clone();
            if let Some(mailbox) = mailbox {
                mailbox.end(End::Unavailable);
            }
        }
    }

    fn stopped(&mut self, _why: &str) {
        self.registry.close(End::Unavailable);
    }
}

impl Listener {
    fn applied_act(&self, act: &v1::act::Act) {
        match act {
            v1::act::Act::AgentRevoked(revoked) => {
                let slot = AgentId::from_slice(&revoked.agent_id).and_then(|id| self.registry.find(id));
                if let Some(mailbox) = slot.and_then(|slot| slot.mailbox().clone()) {
                    mailbox.end(End::Revoked);
                }
            }
            // The operator let the identity go on: whichever nonce it shows next is the one that counts.
            v1::act::Act::ConflictResolved(resolved) => {
                if let Some(agent) = AgentId::from_slice(&resolved.agent_id) {
                    self.registry.inbox.keep_nonces(agent, &[]);
                }
            }
            _ => {}
        }
    }

    /// Returns whether the log may take reports of `agent`: neither an applied entry nor one of this round shut it out.
    fn is_welcome(&self, agent: AgentId) -> bool {
        let state = self.registry.members.agent(agent).map(|agent| agent.state);
        state == Some(AgentState::Enrolled) && !self.barred.contains(&agent)
    }
}

/// A report that the process before had admitted: everything is checked again, for nothing vouches for it but its bytes.
fn is_next_recovered(registry: &Registry, slot: &Slot, record: &Record<'_>) -> bool {
    let Some(agent) = registry.members.agent(record.agent) else { return false };
    let Ok(entry) = v1::LogEntry::decode(record.body) else { return false };
    // Only the form that this collector writes: no time, and nothing that decoding would drop.
    if entry.received_time.is_some() || entry.encode_to_vec() != record.body {
        return false;
    }
    let Some(v1::log_entry::Entry::Report(v1::AdmittedReport { sealed: Some(sealed), .. })) = entry.entry else {
        return false;
    };
    let sender = Sender { agent: record.agent, key: &agent.key, epoch: record.epoch };
    let Ok(checked) = admit::check(&sealed, &sender) else { return false };
    let is_same = (checked.seq, checked.digest) == (record.seq, record.digest);
    is_same && slot.chain().recover(&checked)
}

/// Returns the head that an entry of the log makes, when it is a report.
fn head_of(bytes: &[u8], index: u64) -> Option<KnownHead> {
    let sealed = sealed_of(bytes)?;
    let report = v1::Report::decode(&*sealed.report).ok()?;
    Some(KnownHead {
        agent: AgentId::from_slice(&report.agent_id)?,
        epoch: Epoch::from_slice(&report.epoch)?,
        head: Head { seq: ReportSeq::new(report.sequence)?, digest: sealed_digest(&sealed), index },
    })
}

/// Returns the sealed report in an entry of the log, when it is one.
pub(super) fn sealed_of(bytes: &[u8]) -> Option<v1::SealedReport> {
    match v1::LogEntry::decode(bytes).ok()?.entry? {
        v1::log_entry::Entry::Report(admitted) => admitted.sealed,
        _ => None,
    }
}

/// Returns the sequence and digest of the sealed report in an entry of the log.
pub(super) fn place_of(bytes: &[u8]) -> Option<(Epoch, u64, Digest)> {
    let sealed = sealed_of(bytes)?;
    let report = v1::Report::decode(&*sealed.report).ok()?;
    Some((Epoch::from_slice(&report.epoch)?, report.sequence, sealed_digest(&sealed)))
}

/// Takes a lock whose data stay whole when a holder panics: each change under it is a single step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
