//! One open stream, as a state machine that is polled in one task: reads reports, hands them to the inbox, tells what is durable.
//!
//! Reading and answering share the task on purpose. An agent that does not read its answers is not read from either, so it can
//! make nothing grow; and one wake-up takes every report that has arrived and every acknowledgement that waits.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use muster_proto::{
    id::{Epoch, ReportSeq},
    v1::{self, stream_reports_response::Step},
};
use prost::Message as _;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use super::{
    admit::{self, Checked, Sender},
    allowance,
    chain::{Place, Standing},
    sessions::{End, Letter, Mailbox, Registry, Slot},
};
use crate::{
    inbox::frame::Record,
    log::sequencer::Sequencer,
    members::{Agent, AgentState},
};

/// Reports that are checked before the chain is locked, and before other streams get their turn.
const BATCH: usize = 32;
/// Batches after which other streams get their turn.
const TURN: usize = 4;
/// Rejections that wait to be sent, at most; reading waits when there are more.
const ANSWERS: usize = 8;
/// How far ahead the contract lets an agent be slowed down.
const SLOWEST: Duration = Duration::from_secs(3600);

type Requests = tonic::Streaming<v1::StreamReportsRequest>;
type Answer = Result<v1::StreamReportsResponse, Status>;

/// What a lookup in the log says of a report: at which index another one stands, `None` when it is the very same.
type Lookup = Pin<Box<dyn Future<Output = Result<Option<u64>, ()>> + Send>>;

/// An open stream.
pub(super) struct Session<S = Requests> {
    pub(super) registry: Arc<Registry>,
    pub(super) sequencer: Sequencer,
    pub(super) slot: Arc<Slot>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) requests: S,
    pub(super) epoch: Epoch,
    pub(super) skew_millis: i64,
    pub(super) answers: VecDeque<Answer>,
    pub(super) state: Progress,
}

/// What changes while a stream is open.
#[derive(Default)]
pub(super) struct Progress {
    /// Records for the inbox, which may have no room.
    outbox: Vec<u8>,
    batch: Vec<(v1::SealedReport, Checked)>,
    /// Whether the agent must hear again how far it is durable.
    again: bool,
    rejected: u32,
    /// The expected place of the last report that was out of order: those that were on their way behind it are not answered.
    skipping: Option<ReportSeq>,
    /// Bytes of reports that were read and are not counted yet.
    read_bytes: u64,
    /// Set while the agent is not read from, because it sent more than it may.
    pause: Option<Pin<Box<Sleep>>>,
    lookup: Option<(Lookup, v1::SealedReport, ReportSeq)>,
    is_half_closed: bool,
    is_over: bool,
}

impl<S> Stream for Session<S>
where
    S: Stream<Item = Result<v1::StreamReportsRequest, Status>> + Unpin,
{
    type Item = Answer;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let this = self.get_mut();
        if this.state.is_over {
            return Poll::Ready(None);
        }
        this.mailbox.waker.register(cx.waker());
        match this.advance(cx) {
            Poll::Ready(Some(Err(status))) => {
                this.state.is_over = true;
                Poll::Ready(Some(Err(status)))
            }
            Poll::Ready(None) => {
                this.state.is_over = true;
                Poll::Ready(None)
            }
            other => other,
        }
    }
}

impl<S> Session<S>
where
    S: Stream<Item = Result<v1::StreamReportsRequest, Status>> + Unpin,
{
    /// Goes on until there is something to say or nothing to do.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        for _ in 0..TURN {
            if let Some(answer) = self.next_answer() {
                return Poll::Ready(Some(answer));
            }
            if self.poll_lookup(cx).is_pending() || self.push(cx).is_pending() {
                return Poll::Pending;
            }
            if self.state.is_half_closed {
                if !self.state.batch.is_empty() {
                    // What was put back, because something before it had to be on its way first.
                    if let Err(end) = self.place_batch() {
                        self.answers.push_back(Err(end.status()));
                    }
                    continue;
                }
                let is_done = self.slot.chain().in_flight().0 == 0;
                return if is_done { Poll::Ready(None) } else { Poll::Pending };
            }
            if self.is_window_full() {
                return Poll::Pending;
            }
            let agent = match self.standing() {
                Ok(agent) => agent,
                Err(end) => {
                    self.answers.push_back(Err(end.status()));
                    continue;
                }
            };
            match self.poll_pause(cx) {
                Pause::Over => {}
                Pause::Begins => continue,
                Pause::Lasts => return Poll::Pending,
            }
            let read = self.read(cx, &agent);
            self.count_bytes();
            match read {
                Ok(Read::Pending) if self.state.batch.is_empty() && self.answers.is_empty() => return Poll::Pending,
                Ok(Read::Pending | Read::More) => {}
                Ok(Read::End) => self.state.is_half_closed = true,
                // After the answers that wait.
                Err(status) => {
                    self.answers.push_back(Err(status));
                    continue;
                }
            }
            if let Err(end) = self.place_batch() {
                self.answers.push_back(Err(end.status()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What is to be said next: rejections, then what waits in the mailbox.
    fn next_answer(&mut self) -> Option<Answer> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        loop {
            match self.mailbox.take() {
                Some(Letter::End(end)) => return Some(Err(end.status())),
                Some(Letter::Durable(epoch, seq, note)) if epoch == self.epoch => {
                    self.state.again = false;
                    return Some(durable(seq, &note));
                }
                // What another stream of this agent sent in an epoch before.
                Some(Letter::Durable(..)) => {}
                Some(Letter::Directive(directive)) => return Some(step(Step::Directive(directive))),
                None => break,
            }
        }
        if std::mem::take(&mut self.state.again) {
            let head = self.slot.chain().durable(self.epoch)?;
            let checkpoint = self.registry.log.checkpoint()?;
            return Some(durable(head.seq, &checkpoint.note));
        }
        None
    }

    /// Returns the agent as the allow-list has it at this moment.
    fn standing(&self) -> Result<Arc<Agent>, End> {
        let agent = self.registry.members.agent(self.slot.id).ok_or(End::Revoked)?;
        match agent.state {
            AgentState::Revoked => Err(End::Revoked),
            AgentState::Frozen => Err(End::Frozen),
            AgentState::Enrolled if self.slot.is_suspended.load(Ordering::Relaxed) => Err(End::Frozen),
            AgentState::Enrolled => Ok(agent),
        }
    }

    fn is_window_full(&self) -> bool {
        let (reports, bytes) = self.slot.chain().in_flight();
        let settings = &self.registry.settings;
        reports >= settings.window_reports as usize || bytes >= settings.window_bytes
    }

    /// Reads and checks what has arrived, up to a batch.
    fn read(&mut self, cx: &mut Context<'_>, agent: &Agent) -> Result<Read, Status> {
        let sender = Sender { agent: self.slot.id, key: &agent.key, epoch: self.epoch };
        while self.state.batch.len() < BATCH && self.answers.len() < ANSWERS && self.state.lookup.is_none() {
            let request = match Pin::new(&mut self.requests).poll_next(cx) {
                Poll::Pending => return Ok(Read::Pending),
                Poll::Ready(None) => return Ok(Read::End),
                Poll::Ready(Some(request)) => request?,
            };
            let Some(v1::stream_reports_request::Step::Report(sealed)) = request.step else {
                let message = "after Hello, each step is a report";
                return Err(crate::serve::status::refuse(crate::serve::status::Reason::HelloInvalid, message));
            };
            self.state.read_bytes += allowance::counted(sealed.report.len() + sealed.signature.len());
            match admit::check(&sealed, &sender) {
                Ok(checked) => self.state.batch.push((sealed, checked)),
                Err(mut rejection) => {
                    // What was read before it comes first.
                    self.place_batch().map_err(End::status)?;
                    rejection.expected_sequence = self.slot.chain().expected(self.epoch).number();
                    self.reject(rejection).map_err(End::status)?;
                }
            }
        }
        Ok(Read::More)
    }

    /// Counts what was read, refused or not.
    fn count_bytes(&mut self) {
        let bytes = std::mem::take(&mut self.state.read_bytes);
        if bytes > 0 {
            self.slot.allowance().spend(bytes, self.registry.settings.bytes, Instant::now());
        }
    }

    /// Says whether the agent is read from. One that sent more than it may is told once until when it should wait; it is held up
    /// by that alone, and holds up nobody else.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Pause {
        if let Some(pause) = &mut self.state.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Pause::Lasts;
            }
            self.state.pause = None;
        }
        let wait = self.slot.allowance().pause(self.registry.settings.bytes, Instant::now());
        if wait.is_zero() {
            return Pause::Over;
        }
        tracing::debug!(agent = %self.slot.id, ?wait, "the agent sends more than it may and is slowed down");
        metrics::counter!("muster_ingest_slowed_total").increment(1);
        self.state.pause = Some(Box::pin(tokio::time::sleep(wait)));
        let until = self.registry.clock.now().plus(wait.min(SLOWEST));
        let slow_down = v1::directive::Directive::SlowDown(v1::SlowDown { until_time: Some(until.to_wire()) });
        let directive = v1::Directive { id: self.registry.next_directive(), directive: Some(slow_down) };
        self.answers.push_back(step(Step::Directive(directive)));
        Pause::Begins
    }

    /// Gives the batch its places in the chain and hands it to the inbox.
    fn place_batch(&mut self) -> Result<(), End> {
        if self.state.lookup.is_some() {
            return Ok(());
        }
        let mut batch = std::mem::take(&mut self.state.batch);
        let mut admitted = 0_u64;
        let mut reports = batch.drain(..);
        while let Some((sealed, checked)) = reports.next() {
            let mut chain = self.slot.chain();
            if !chain.is_owner(self.mailbox.stream) {
                return Err(End::Unavailable);
            }
            let place = chain.place(&checked);
            match place {
                Place::Next => {
                    chain.admit(self.mailbox.stream, &checked);
                    drop(chain);
                    self.state.skipping = None;
                    self.write(sealed, &checked);
                    admitted += 1;
                }
                Place::Known { is_durable } => self.state.again |= is_durable,
                Place::Before => {
                    drop(chain);
                    self.look_up(sealed, &checked)?;
                    // The rest waits for the answer.
                    self.state.batch = reports.collect();
                    return Ok(());
                }
                // What it contradicts may be in the outbox; it must be on its way before anything else.
                Place::Fork(_) if !self.state.outbox.is_empty() => {
                    drop(chain);
                    self.state.batch = std::iter::once((sealed, checked)).chain(reports).collect();
                    return Ok(());
                }
                Place::Fork(standing) => {
                    let index = match standing {
                        Standing::Durable(index) => Ok(index),
                        Standing::InFlight(epoch, seq) => Err(self.slot.await_index(epoch, seq)),
                    };
                    drop(chain);
                    self.conflict(sealed, checked.seq, index);
                    if let Some(rejection) = admit::reject_place(place, &checked) {
                        self.answers.push_back(step(Step::Rejection(rejection)));
                    }
                    self.answers.push_back(Err(End::Frozen.status()));
                    break;
                }
                Place::OutOfOrder(_) | Place::BrokenChain(_) | Place::NoStart | Place::TooManyEpochs => {
                    drop(chain);
                    if let Some(rejection) = admit::reject_place(place, &checked) {
                        self.reject(rejection)?;
                    }
                }
            }
        }
        drop(reports);
        self.state.batch = batch;
        if admitted > 0 {
            self.registry.admitted.increment(admitted);
        }
        Ok(())
    }

    /// Writes an admitted report as the entry that the log will hold, but for its time.
    fn write(&mut self, sealed: v1::SealedReport, checked: &Checked) {
        let report = v1::AdmittedReport { sealed: Some(sealed), clock_skew_millis: self.skew_millis };
        let entry = v1::LogEntry { received_time: None, entry: Some(v1::log_entry::Entry::Report(report)) };
        let record = Record {
            agent: self.slot.id,
            epoch: checked.epoch,
            seq: checked.seq,
            stream: self.mailbox.stream,
            digest: checked.digest,
            body: &[],
        };
        record.write_head(&mut self.state.outbox, entry.encoded_len());
        entry.encode_raw(&mut self.state.outbox);
    }

    /// Hands what is written to the inbox; pending while it has no room.
    fn push(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state.outbox.is_empty() {
            return Poll::Ready(());
        }
        // Under the chain's lock, so that a newer stream of this agent knows what the inbox has.
        let mut chain = self.slot.chain();
        if !chain.is_owner(self.mailbox.stream) {
            self.state.outbox.clear();
            drop(chain);
            self.mailbox.end(End::Unavailable);
            return Poll::Ready(());
        }
        match self.registry.inbox.push(&self.state.outbox, cx.waker()) {
            Ok(()) => {
                chain.pushed();
                self.state.outbox.clear();
                Poll::Ready(())
            }
            Err(_full) => Poll::Pending,
        }
    }

    /// Answers a refused report, and ends the stream of an agent that goes on like that.
    fn reject(&mut self, rejection: v1::Rejection) -> Result<(), End> {
        metrics::counter!("muster_ingest_reports_total", "outcome" => "rejected").increment(1);
        let expected = ReportSeq::new(rejection.expected_sequence);
        let is_echo = rejection.reason() == v1::RejectionReason::OutOfOrder && self.state.skipping == expected;
        self.state.rejected += 1;
        let settings = &self.registry.settings;
        let limit = if is_echo { settings.window_reports.saturating_mul(2) } else { settings.rejections };
        if self.state.rejected > limit {
            tracing::warn!(
                agent = %self.slot.id, rejected = self.state.rejected, reason = rejection.reason().as_str_name(),
                "ended the stream of an agent whose reports are refused"
            );
            return Err(End::Refused);
        }
        if is_echo {
            return Ok(());
        }
        self.state.skipping = expected;
        self.answers.push_back(step(Step::Rejection(rejection)));
        Ok(())
    }

    /// Looks in the log for the report that stands where this one says it belongs.
    fn look_up(&mut self, sealed: v1::SealedReport, checked: &Checked) -> Result<(), End> {
        let settings = &self.registry.settings;
        if self.slot.allowance().look_up(settings.lookups, Instant::now()).is_err() {
            tracing::warn!(agent = %self.slot.id, "ended the stream of an agent that sends old reports");
            return Err(End::Refused);
        }
        let (registry, slot) = (Arc::clone(&self.registry), Arc::clone(&self.slot));
        let Checked { epoch, seq, digest, .. } = *checked;
        let looking = tokio::task::spawn_blocking(move || {
            let (index, standing) = registry.look_up(&slot, epoch, seq).ok_or(())?;
            Ok((standing != digest).then_some(index))
        });
        let lookup = async move { looking.await.unwrap_or(Err(())) };
        self.state.lookup = Some((Box::pin(lookup), sealed, seq));
        Ok(())
    }

    fn poll_lookup(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((lookup, ..)) = &mut self.state.lookup else { return Poll::Ready(()) };
        let Poll::Ready(found) = lookup.as_mut().poll(cx) else { return Poll::Pending };
        let (_, sealed, seq) = self.state.lookup.take().expect("polled just before");
        match found {
            Ok(None) => self.state.again = true,
            Ok(Some(index)) => {
                self.conflict(sealed, seq, Ok(index));
                let detail = "another report stands at this place; the identity is frozen until an operator decides";
                self.answers.push_back(step(Step::Rejection(v1::Rejection {
                    sequence: seq.number(),
                    reason: v1::RejectionReason::Conflict.into(),
                    detail: detail.to_owned(),
                    expected_sequence: 0,
                })));
                self.answers.push_back(Err(End::Frozen.status()));
            }
            // The views have not caught up with the log, so nothing is certain: the agent hears how far it is durable.
            Err(()) => self.state.again = true,
        }
        cx.waker().wake_by_ref();
        Poll::Ready(())
    }

    /// Writes both claims into the log; the entry freezes the agent for good.
    fn conflict(
        &self,
        sealed: v1::SealedReport,
        seq: ReportSeq,
        index: Result<u64, tokio::sync::oneshot::Receiver<u64>>,
    ) {
        if !self.registry.suspend(&self.slot, "fork") {
            return;
        }
        let conflict = v1::Conflict {
            agent_id: self.slot.id.as_bytes().to_vec(),
            kind: "fork".to_owned(),
            standing_index: 0,
            contradicting: Some(sealed),
            detail: format!("two reports claim place {seq} of epoch {}", self.epoch),
            session: None,
        };
        tokio::spawn(super::record_conflict(self.sequencer.clone(), Arc::clone(&self.slot), conflict, index));
    }
}

impl<S> Drop for Session<S> {
    fn drop(&mut self) {
        self.registry.leave(&self.slot, &self.mailbox);
    }
}

/// Whether the agent is read from.
enum Pause {
    /// It is.
    Over,
    /// It is not from now on, and is to be told so.
    Begins,
    /// It is not, and was told so.
    Lasts,
}

/// How reading ended.
enum Read {
    /// Nothing more has arrived.
    Pending,
    /// There may be more.
    More,
    /// The agent sends no more.
    End,
}

pub(super) fn step(step: Step) -> Answer {
    Ok(v1::StreamReportsResponse { step: Some(step) })
}

fn durable(seq: ReportSeq, note: &[u8]) -> Answer {
    step(Step::Durable(v1::Durable { through_sequence: seq.number(), checkpoint: note.to_vec() }))
}
