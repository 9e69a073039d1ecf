//! The one stream to the collector: opens it, keeps a window of reports under way, and comes back after a failure.
//!
//! It never decides what is durable: [`session`] does, from verified checkpoints. While the collector is away it costs a timer.

mod backoff;
pub mod session;

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use muster_proto::{
    id::ReportSeq,
    limits, seal,
    time::{Clock as _, SystemClock, Timestamp},
    v1::{
        self, RejectionReason, ingest_service_client::IngestServiceClient, stream_reports_request as request,
        stream_reports_response as response,
    },
};
use prost::Message as _;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    checkpoint::{self, Checkpoint},
    connect, enroll,
    identity::{self, CollectorUrl, Folder, Identity},
    spool::{self, Place, Spool},
};

pub use backoff::{Backoff, CAP};
use session::Window;

/// A Welcome that is not there after this is given up.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);
/// Reports handed to gRPC ahead of the network.
const QUEUE: usize = 8;
/// Bytes read from the spool at once.
const READ_BYTES: usize = 128 * 1024;
/// Sending stops for at most this long because the collector asks for it.
const PAUSE: Duration = Duration::from_secs(3_600);
/// A stream is not older: what its Hello told the collector of this host's clock is true for some time only.
const AGE: Duration = Duration::from_secs(3_600);
/// A stream that held this long shows that the collector works.
const PROVEN: Duration = Duration::from_secs(60);

/// The stream ended, or never was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The agent's own keys cannot be read.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// A certificate that has expired or is damaged could not be replaced.
    #[error("certificate has expired or is damaged, and this agent could not rejoin")]
    Rejoin(#[source] enroll::Error),
    /// The collector refused the stream.
    #[error("{}", enroll::refusal(reason, message))]
    Refused {
        /// Its reason, such as `AGENT_REVOKED`.
        reason: String,
        /// What it said.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The connection was closed at the first call: under TLS 1.3 that is how a refused client certificate looks.
    #[error(
        "collector at {url} closed the connection at the first call; perhaps it refused this agent's certificate, which ends {expire}: revoked or expired?"
    )]
    ClosedAtOnce {
        /// Which.
        url: CollectorUrl,
        /// End of the certificate.
        expire: Timestamp,
    },
    /// The stream ended.
    #[error("stream ended: {0}")]
    Ended(String),
    /// The collector broke the contract.
    #[error("collector broke the contract: {0}")]
    Protocol(&'static str),
    /// The log is not what this agent has seen. Nothing is deleted on its word.
    #[error("do not trust the collector's log: {0}; nothing is deleted here until it is explained")]
    Distrust(String),
    /// The log contradicts a checkpoint that this agent holds. Nothing is deleted on its word.
    #[error(
        "do not trust the collector's log: {source}; nothing is deleted here until it is explained: keep the collector's folder as it \
         is, and give its operator and auditor the checkpoints that 'muster-agent status' shows"
    )]
    Contradicted {
        /// What the agent holds.
        held: Box<Checkpoint>,
        /// What it was shown; unset when that was an empty log.
        shown: Option<Box<Checkpoint>>,
        /// What does not fit.
        source: checkpoint::Error,
    },
    /// The collector refused a report, and sending it again would not help.
    #[error("collector refused report {seq}: {}: {detail}", reason.as_str_name())]
    Rejected {
        /// Its sequence.
        seq: u64,
        /// Why.
        reason: RejectionReason,
        /// What the collector said.
        detail: String,
    },
    /// The collector misses reports that were sent, for instance because it lost its buffer: they are sent again on the next stream.
    #[error("collector expects report {expected} next, this agent sent {seq}; it sends again what is not durable")]
    OutOfOrder {
        /// What was sent.
        seq: u64,
        /// What is expected.
        expected: u64,
    },
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] spool::Error),
}

impl From<v1::Rejection> for Error {
    fn from(rejection: v1::Rejection) -> Self {
        match rejection.reason() {
            RejectionReason::OutOfOrder => {
                Self::OutOfOrder { seq: rejection.sequence, expected: rejection.expected_sequence }
            }
            reason => Self::Rejected { seq: rejection.sequence, reason, detail: rejection.detail },
        }
    }
}

impl Error {
    /// Returns whether someone must do something before it can go on.
    pub fn needs_someone(&self) -> bool {
        match self {
            Self::Distrust(_)
            | Self::Contradicted { .. }
            | Self::Rejected { .. }
            | Self::Protocol(_)
            | Self::Identity(_)
            | Self::Spool(_) => true,
            Self::Connect(connect::Error::Untrusted { .. } | connect::Error::Own(_)) => true,
            Self::Refused { reason, .. } => {
                matches!(reason.as_str(), "AGENT_REVOKED" | "AGENT_FROZEN" | "HELLO_INVALID")
            }
            Self::Rejoin(error) => !error.is_passing(),
            Self::Connect(connect::Error::Unreachable { .. })
            | Self::ClosedAtOnce { .. }
            | Self::Ended(_)
            | Self::OutOfOrder { .. } => false,
        }
    }

    /// Returns whether a report of this agent was refused for what it is, so that no later collector would take it either.
    pub fn is_of_report(&self) -> bool {
        use RejectionReason::{BrokenChain, Malformed, TooLarge};

        matches!(self, Self::Rejected { reason: Malformed | TooLarge | BrokenChain, .. })
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Something happened.
pub enum Event {
    /// It is time to open a stream: call [`Uplink::dial`].
    Due,
    /// A stream is open. The certificate may have been replaced on the way.
    Opened {
        /// Set when the agent had to rejoin.
        rejoined: Option<Box<Identity>>,
        /// The collector's answer.
        welcome: Box<v1::Welcome>,
    },
    /// The collector said something.
    Received(response::Step),
    /// More can be sent: call [`Uplink::pump`].
    Writable,
    /// The stream ended, or never was: call [`Uplink::failed`].
    Lost(Error),
}

/// What a stream is opened with.
pub struct Target {
    /// Keys and certificates.
    pub folder: Folder,
    /// The identity in force.
    pub identity: Identity,
    /// Where.
    pub collector: CollectorUrl,
    /// First step.
    pub hello: v1::Hello,
}

/// The one stream to the collector.
pub struct Uplink {
    link: Link,
    backoff: Backoff,
}

enum Link {
    Down { until: Instant },
    Opening(Pin<Box<dyn Future<Output = Result<Opened, Error>> + Send>>),
    Up(Box<Up>),
}

struct Opened {
    rejoined: Option<Box<Identity>>,
    welcome: Box<v1::Welcome>,
    up: Box<Up>,
}

struct Up {
    sender: mpsc::Sender<v1::StreamReportsRequest>,
    receiver: Streaming<v1::StreamReportsResponse>,
    channel: Channel,
    /// Set once the Welcome was judged.
    window: Option<Window>,
    /// Read from the spool, not yet sent.
    ahead: VecDeque<(ReportSeq, Vec<u8>)>,
    paused_until: Option<Instant>,
    since: Instant,
    /// Collector's clock when the Welcome came.
    collector_time: Option<Timestamp>,
}

impl Uplink {
    /// Returns an uplink that opens its first stream at `at`.
    pub fn new(at: Instant) -> Self {
        Self { link: Link::Down { until: at }, backoff: Backoff::default() }
    }

    /// Waits for the next event. `last` is the newest report in the spool. Dropping the future loses nothing.
    pub async fn next(&mut self, last: Option<ReportSeq>) -> Event {
        match &mut self.link {
            Link::Down { until } => {
                tokio::time::sleep_until(*until).await;
                Event::Due
            }
            Link::Opening(opening) => match opening.await {
                Ok(opened) => {
                    self.link = Link::Up(opened.up);
                    Event::Opened { rejoined: opened.rejoined, welcome: opened.welcome }
                }
                Err(error) => {
                    self.link = Link::Down { until: Instant::now() };
                    Event::Lost(error)
                }
            },
            Link::Up(up) => up.next(last).await,
        }
    }

    /// Begins to open a stream.
    pub fn dial(&mut self, target: Target) {
        self.link = Link::Opening(Box::pin(open(target)));
    }

    /// Begins to send after what is durable.
    pub fn begin(&mut self, durable: Option<Place>, welcome: &v1::Welcome) {
        if let Link::Up(up) = &mut self.link {
            up.window = Some(Window::new(durable, welcome.limits));
            up.collector_time = welcome.collector_time.as_ref().and_then(Timestamp::from_wire);
        }
    }

    /// Sends what the window and the network take.
    ///
    /// # Errors
    ///
    /// When the spool cannot be read.
    pub fn pump(&mut self, spool: &mut Spool, now: Instant) -> Result<(), Error> {
        let Link::Up(up) = &mut self.link else { return Ok(()) };
        up.pump(spool, now)
    }

    /// Takes note that everything up to `through` is durable; returns that place, or `None` when nothing new is.
    ///
    /// # Errors
    ///
    /// When it was never sent.
    pub fn durable(&mut self, through: u64) -> Result<Option<Place>, Error> {
        self.backoff.succeeded();
        match &mut self.link {
            Link::Up(up) => up.window.as_mut().map_or(Ok(None), |window| window.durable(through)),
            Link::Down { .. } | Link::Opening(_) => Ok(None),
        }
    }

    /// Sends nothing until the collector's clock shows `until`, at most an hour from now.
    pub fn slow_down(&mut self, until: Timestamp, now: Instant) {
        if let Link::Up(up) = &mut self.link
            && let Some(collector_time) = up.collector_time
        {
            up.paused_until = pause(up.since, collector_time, until, now);
        }
    }

    /// Returns the open connection.
    pub fn channel(&self) -> Option<Channel> {
        match &self.link {
            Link::Up(up) => Some(up.channel.clone()),
            Link::Down { .. } | Link::Opening(_) => None,
        }
    }

    /// Ends the stream after a failure and returns when the next one is tried.
    pub fn failed(&mut self, error: &Error, now: Instant, random: f64) -> Instant {
        if let Link::Up(up) = &self.link
            && now.duration_since(up.since) >= PROVEN
        {
            self.backoff.succeeded();
        }
        let mut wait = self.backoff.failed(random, error.retry_after());
        if error.needs_someone() {
            // Trying at once would only fill logs. The jitter is over the rest, since the first waits are drawn from little.
            wait = wait.max(CAP / 2 + (CAP / 2).mul_f64(random));
        }
        self.link = Link::Down { until: now + wait };
        now + wait
    }

    /// Opens another stream in the place of one that is old, unless the collector asked for a pause, which the other would not know of.
    pub fn renew(&mut self, now: Instant) {
        if let Link::Up(up) = &self.link
            && is_old(up.since, up.paused_until, now)
        {
            self.reconnect(now);
        }
    }

    /// Opens another stream in the place of one whose Hello tells a time that this host's clock, being set, is no longer after.
    pub fn clock_was_set(&mut self, now: Instant) {
        if !matches!(self.link, Link::Down { .. }) {
            self.reconnect(now);
        }
    }

    /// Ends the stream, if there is one, and opens another at once.
    pub fn reconnect(&mut self, now: Instant) {
        self.link = Link::Down { until: now };
    }

    /// Returns whether a stream is open.
    pub fn is_up(&self) -> bool {
        matches!(&self.link, Link::Up(up) if up.window.is_some())
    }
}

impl Up {
    async fn next(&mut self, last: Option<ReportSeq>) -> Event {
        let has_more = self.window.as_ref().is_some_and(|window| window.room() > 0 && last > window.last());
        let paused_until = self.paused_until;
        tokio::select! {
            message = self.receiver.message() => match message {
                Ok(Some(v1::StreamReportsResponse { step: Some(step) })) => Event::Received(step),
                Ok(Some(_)) => Event::Lost(Error::Protocol("a step that this version does not know")),
                Ok(None) => Event::Lost(Error::Ended("the collector closed it".to_owned())),
                Err(status) => Event::Lost(lost(&status)),
            },
            () = async { tokio::time::sleep_until(paused_until.unwrap_or_else(Instant::now)).await },
                if has_more && paused_until.is_some() => Event::Writable,
            permit = self.sender.reserve(), if has_more && paused_until.is_none() => match permit {
                Ok(_) => Event::Writable,
                // The receiver says why.
                Err(_) => match self.receiver.message().await {
                    Err(status) => Event::Lost(lost(&status)),
                    Ok(_) => Event::Lost(Error::Ended("the collector takes no more".to_owned())),
                },
            },
        }
    }

    fn pump(&mut self, spool: &mut Spool, now: Instant) -> Result<(), Error> {
        if self.paused_until.is_some_and(|until| until > now) {
            return Ok(());
        }
        self.paused_until = None;
        let Some(window) = &mut self.window else { return Ok(()) };
        while window.room() > 0 {
            let Ok(permit) = self.sender.try_reserve() else { return Ok(()) };
            if self.ahead.is_empty() {
                self.ahead = spool.read_after(window.last(), READ_BYTES)?.into();
            }
            let Some((seq, bytes)) = self.ahead.pop_front() else { return Ok(()) };
            let sealed = v1::SealedReport::decode(bytes.as_slice())
                .map_err(|_| Error::Protocol("a report in the spool is not one"))?;
            window.sent(Place { seq, digest: seal::sealed_digest(&sealed) });
            permit.send(v1::StreamReportsRequest { step: Some(request::Step::Report(sealed)) });
        }
        Ok(())
    }
}

fn is_old(since: Instant, paused_until: Option<Instant>, now: Instant) -> bool {
    now.duration_since(since) >= AGE && paused_until.is_none_or(|until| until <= now)
}

/// Returns when sending may go on, for a collector that wants to be left alone until its clock, which showed `collector_time` at
/// `since`, shows `until`: at most [`PAUSE`] from `now`. `None` when that has passed.
fn pause(since: Instant, collector_time: Timestamp, until: Timestamp, now: Instant) -> Option<Instant> {
    let until = (since + until.since(collector_time)).min(now + PAUSE);
    (until > now).then_some(until)
}

async fn open(target: Target) -> Result<Opened, Error> {
    let mut identity = target.identity;
    let mut rejoined = None;
    let now = SystemClock.now();
    let tls = match present_tls(&target.folder, &identity, now) {
        Ok(tls) => tls,
        Err(why) => {
            tracing::info!(why, "the certificate does not serve; rejoining by the evidence key");
            identity = enroll::rejoin(&target.folder, &identity, &target.collector).await.map_err(Error::Rejoin)?;
            rejoined = Some(Box::new(identity.clone()));
            connect::member(target.folder.tls()?)?
        }
    };
    let channel = connect::open(&target.collector, tls, now).await?;
    let mut client = IngestServiceClient::new(channel.clone()).max_decoding_message_size(limits::AGENT_MESSAGE_BYTES);
    let (sender, requests) = mpsc::channel(QUEUE);
    let hello = v1::StreamReportsRequest { step: Some(request::Step::Hello(target.hello)) };
    sender.try_send(hello).map_err(|_| Error::Protocol("no room for Hello"))?;
    let at_first = |status: &Status| match lost(status) {
        Error::Ended(_) if matches!(status.code(), Code::Cancelled | Code::Unknown | Code::Unavailable) => {
            Error::ClosedAtOnce { url: target.collector.clone(), expire: identity.expire_time }
        }
        other => other,
    };
    let first = async {
        let mut receiver = client
            .stream_reports(ReceiverStream::new(requests))
            .await
            .map_err(|status| at_first(&status))?
            .into_inner();
        let message = receiver.message().await.map_err(|status| at_first(&status))?;
        Ok::<_, Error>((receiver, message))
    };
    let (receiver, message) = tokio::time::timeout(WELCOME_TIMEOUT, first)
        .await
        .map_err(|_| Error::Ended(format!("no Welcome within {} s", WELCOME_TIMEOUT.as_secs())))??;
    let Some(v1::StreamReportsResponse { step: Some(response::Step::Welcome(welcome)) }) = message else {
        return Err(Error::Protocol("its first step is not Welcome"));
    };
    let up = Up {
        sender,
        receiver,
        channel,
        window: None,
        ahead: VecDeque::new(),
        paused_until: None,
        since: Instant::now(),
        collector_time: None,
    };
    Ok(Opened { rejoined, welcome, up: Box::new(up) })
}

/// Returns the TLS settings of the present certificate, or why they do not serve: whatever is wrong with the certificate or its key,
/// the evidence key gets another one.
fn present_tls(folder: &Folder, identity: &Identity, now: Timestamp) -> Result<Arc<rustls::ClientConfig>, String> {
    if identity.expire_time <= now {
        return Err(format!("it expired {}", identity.expire_time));
    }
    let tls = folder.tls().map_err(|error| connect::chain_of(&error))?;
    connect::member(tls).map_err(|error| connect::chain_of(&error))
}

fn lost(status: &Status) -> Error {
    match status.get_details_error_info() {
        Some(info) => Error::Refused {
            reason: info.reason,
            message: status.message().to_owned(),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
        },
        None => Error::Ended(connect::call_failure(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_that_wait_for_someone_do_not_come_back_together() {
        let now = Instant::now();
        let wait = |random| Uplink::new(now).failed(&Error::Protocol("x"), now, random) - now;
        assert_eq!((wait(0.0), wait(0.5)), (CAP / 2, CAP * 3 / 4));
    }

    #[test]
    fn a_stream_is_renewed_each_hour_but_not_while_the_collector_wants_to_be_left_alone() {
        let since = Instant::now();
        let after =
            |age: Duration, pause: Option<Duration>| is_old(since, pause.map(|pause| since + pause), since + age);
        assert!(!after(AGE - Duration::from_secs(1), None) && after(AGE, None));
        assert!(!after(AGE, Some(AGE * 2)) && after(AGE * 2, Some(AGE * 2)));
    }

    #[test]
    fn a_clock_that_was_set_is_told_anew_and_waits_are_kept() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let mut waiting = Uplink::new(later);
        waiting.clock_was_set(now);
        assert!(matches!(waiting.link, Link::Down { until } if until == later));
        let mut opening = Uplink { link: Link::Opening(Box::pin(std::future::pending())), backoff: Backoff::default() };
        opening.clock_was_set(now);
        assert!(matches!(opening.link, Link::Down { until } if until == now), "its Hello tells the time before");
    }

    #[test]
    fn a_collector_is_left_alone_until_its_own_clock_says_so_on_a_stream_of_any_age() {
        let since = Instant::now();
        let at = |seconds: i64| Timestamp::from_seconds(1_700_000_000 + seconds).unwrap();
        let second = Duration::from_secs;
        for (age, until, wait) in [(0, 30, Some(30)), (10, 30, Some(20)), (90_000, 90_030, Some(30)), (60, 60, None)] {
            let now = since + second(age);
            let paused = pause(since, at(0), at(until), now);
            assert_eq!(paused.map(|until| (until - now).as_secs()), wait, "{age} {until}");
        }
        let now = since + second(90_000);
        assert_eq!(pause(since, at(0), at(200_000), now), Some(now + PAUSE), "at most an hour");
        assert_eq!(pause(since, at(0), at(-5), now), None);
    }
}
