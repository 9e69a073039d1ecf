//! Takes reports: `IngestService`, and what it knows of each agent's chain and stream.
//!
//! A report is checked ([`admit`]), given its place ([`chain`]), handed to the inbox, put into the log by the sequencer, and
//! acknowledged when a signed, synced checkpoint covers it. Never acknowledges anything sooner, never keeps a report that does not
//! verify, and never lets one agent hold up another: what an agent has on its way is bounded in reports and bytes.

pub mod admit;
mod allowance;
pub mod chain;
mod hello;
mod nonce;
mod session;
pub mod sessions;

use std::{
    collections::VecDeque,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{Stream, TryStreamExt as _};
use muster_proto::{
    id::{AgentId, Epoch, ReportSeq},
    limits,
    v1::{self, ingest_service_server::IngestService, stream_reports_response::Step},
};
use tokio::{sync::oneshot, time::Instant};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    log::sequencer::Sequencer,
    members::AgentState,
    serve::{
        caller,
        rate::Pace,
        status::{Reason, internal, refuse, retry_after},
    },
};
use hello::{Greeting, Hello};
use session::{Progress, Session, step};
use sessions::{End, Registry, Slot};

pub use allowance::BytePace;
pub use chain::Head;
pub use sessions::{KnownHead, Sessions};

/// How long an agent may take to say Hello.
const HELLO_TIME: Duration = Duration::from_secs(10);

/// What the intake allows.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Reports that one agent may have on their way; 1 to 65536.
    pub window_reports: u32,
    /// Bytes of reports that one agent may have on their way.
    pub window_bytes: u64,
    /// Refused reports after which a stream is ended.
    pub rejections: u32,
    /// Bytes of reports that one agent may send.
    pub bytes: BytePace,
    /// How often one agent may say Hello.
    pub hellos: Pace,
    /// How often one agent's reports may be looked up in the log, because they lie before its head.
    pub lookups: Pace,
    /// Free bytes of the disk below which no reports are taken.
    pub min_free_bytes: u64,
    /// A folder on that disk: the collector's data.
    pub data: PathBuf,
}

impl Settings {
    /// Returns the defaults for the collector's data in `data`: 1024 reports and 4 MiB an agent, 64 refused reports, 64 MiB
    /// at once and 32 KiB a second, 20 Hellos and one a second, 256 lookups and one a second, 256 MiB free.
    pub fn new(data: PathBuf) -> Self {
        Self {
            window_reports: limits::WINDOW_REPORTS,
            window_bytes: 4 * 1024 * 1024,
            rejections: 64,
            bytes: BytePace { burst: 64 * 1024 * 1024, per_second: 32 * 1024 },
            hellos: Pace { burst: 20, interval: Duration::from_secs(1) },
            lookups: Pace { burst: 256, interval: Duration::from_secs(1) },
            min_free_bytes: 256 * 1024 * 1024,
            data,
        }
    }
}

/// Checks that every field of what an agent says first is in its range, which the service does before anything else.
///
/// # Errors
///
/// HELLO_INVALID with the field.
pub fn check_hello(hello: &v1::Hello) -> Result<(), Status> {
    Hello::parse(hello).map(drop)
}

/// Finds durable reports before an agent's head. The views do it.
pub trait ReportLookup: Send + Sync + 'static {
    /// Returns the index at which the report at `seq` of `epoch` should be, at most 64 entries too high, or `None` when it is
    /// not known (yet). May block.
    fn index_of(&self, agent: AgentId, epoch: Epoch, seq: ReportSeq) -> Option<u64>;
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    registry: Arc<Registry>,
    sequencer: Sequencer,
}

impl Ingest {
    /// Returns the service over `sessions`, whose conflicts go into the log by `sequencer`.
    pub fn new(sessions: &Sessions, sequencer: Sequencer) -> Self {
        Self { registry: Arc::clone(&sessions.registry), sequencer }
    }

    /// Serves one stream of `agent`: the first request is Hello.
    pub(crate) fn serve<S>(
        &self,
        agent: AgentId,
        requests: S,
    ) -> impl Stream<Item = Result<v1::StreamReportsResponse, Status>> + use<S>
    where
        S: Stream<Item = Result<v1::StreamReportsRequest, Status>> + Unpin + Send + 'static,
    {
        let ingest = self.clone();
        futures_util::stream::once(async move { ingest.begin(agent, requests).await }).try_flatten()
    }

    /// Hears Hello and opens the stream.
    async fn begin<S>(&self, agent: AgentId, mut requests: S) -> Result<Session<S>, Status>
    where
        S: Stream<Item = Result<v1::StreamReportsRequest, Status>> + Unpin,
    {
        let first = tokio::time::timeout(HELLO_TIME, requests.try_next()).await;
        let expected = || refuse(Reason::HelloExpected, "the first step of a stream is Hello, within ten seconds");
        let Some(v1::stream_reports_request::Step::Hello(hello)) =
            first.map_err(|_| expected())??.and_then(|request| request.step)
        else {
            return Err(expected());
        };
        let hello = Hello::parse(&hello)?;
        if let Some(end) = self.registry.closed() {
            return Err(end.status());
        }
        let slot = self.registry.slot(agent);
        // Before the state, which says so for good by the time that this is taken back.
        let is_suspended = slot.is_suspended.load(Ordering::Acquire);
        let state = self.registry.members.agent(agent).map_or(AgentState::Revoked, |agent| agent.state);
        match state {
            AgentState::Revoked => return Err(End::Revoked.status()),
            AgentState::Frozen => return Err(End::Frozen.status()),
            AgentState::Enrolled if is_suspended => return Err(End::Frozen.status()),
            AgentState::Enrolled => {}
        }
        slot.allowance().greet(self.registry.settings.hellos, Instant::now()).map_err(|delay| {
            retry_after(Reason::TooManyAttempts, "the agent opens streams too often; wait before the next", delay)
        })?;
        let skew_millis = hello.host_time.millis_after(self.registry.clock.now());
        let turn = slot.turn().ok_or_else(|| End::Replaced.status())?;
        let (registry, said) = (Arc::clone(&self.registry), hello.clone());
        let greeting = tokio::task::spawn_blocking(move || registry.greet(&turn, &said)).await;
        let welcome = match greeting.map_err(|error| internal("the greeting was cut off", &error))?? {
            Greeting::Welcome(welcome) => welcome,
            Greeting::Overtaken => return Err(self.overtaken(&slot, &hello)),
        };
        let mailbox = self.registry.open(&slot).map_err(End::status)?;
        tracing::debug!(agent = %agent, epoch = %hello.epoch, next = %hello.next, skew_millis, "stream opened");
        Ok(Session {
            registry: Arc::clone(&self.registry),
            sequencer: self.sequencer.clone(),
            slot,
            mailbox,
            requests,
            epoch: hello.epoch,
            skew_millis,
            answers: VecDeque::from([step(Step::Welcome(welcome))]),
            state: Progress::default(),
        })
    }

    /// A session that does not follow the last one is a claim that contradicts it.
    fn overtaken(&self, slot: &Arc<Slot>, hello: &Hello) -> Status {
        if self.registry.suspend(slot, "nonce") {
            let conflict = v1::Conflict {
                agent_id: slot.id.as_bytes().to_vec(),
                kind: "nonce".to_owned(),
                standing_index: 0,
                contradicting: None,
                detail: format!("a session of epoch {} does not follow the agent's last one", hello.epoch),
                session: Some(v1::SessionClaim {
                    epoch: hello.epoch.as_bytes().to_vec(),
                    next_sequence: hello.next.number(),
                    last_session_nonce: hello.nonce.map(|nonce| nonce.to_vec()).unwrap_or_default(),
                }),
            };
            tokio::spawn(record_conflict(self.sequencer.clone(), Arc::clone(slot), conflict, Ok(0)));
        }
        End::Frozen.status()
    }
}

/// Writes a conflict into the log, once the report that stands is there.
async fn record_conflict(
    sequencer: Sequencer,
    slot: Arc<Slot>,
    mut conflict: v1::Conflict,
    index: Result<u64, oneshot::Receiver<u64>>,
) {
    let index = match index {
        Ok(index) => Ok(index),
        Err(awaited) => awaited.await,
    };
    let written = match index {
        Ok(index) => {
            conflict.standing_index = index;
            let entry = v1::log_entry::Entry::Conflict(conflict);
            sequencer.append(v1::LogEntry { received_time: None, entry: Some(entry) }).await.map_err(Some)
        }
        Err(_) => Err(None),
    };
    if let Err(error) = written {
        // Nothing was kept of either claim, so neither may freeze anybody; whoever is wrong will contradict itself again.
        tracing::error!(agent = %slot.id, ?error, "a conflict could not be written into the log");
        slot.is_suspended.store(false, Ordering::Relaxed);
    }
}

#[tonic::async_trait]
impl IngestService for Ingest {
    type StreamReportsStream = Pin<Box<dyn Stream<Item = Result<v1::StreamReportsResponse, Status>> + Send>>;

    async fn stream_reports(
        &self,
        request: Request<Streaming<v1::StreamReportsRequest>>,
    ) -> Result<Response<Self::StreamReportsStream>, Status> {
        let agent = caller::of(&request)?.caller.agent_id();
        let agent = agent.ok_or_else(|| refuse(Reason::RoleNotAllowed, "only agents send reports"))?;
        Ok(Response::new(Box::pin(self.serve(agent, request.into_inner()))))
    }
}

#[cfg(test)]
mod tests;
