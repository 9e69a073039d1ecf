//! Many agents that stream reports of a usual size, as cheaply for the sender as it goes, and when each was acknowledged.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, stream};
use muster_proto::v1;
use tokio::{sync::Mutex, task::JoinSet};

use crate::{
    evidence::Checkpoint,
    harness::{now, random::Random},
    load::{Chain, Event, Identity, Session, Target},
};

/// How reports come.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Each connection has so many under way, always.
    Closed {
        /// How many.
        window: usize,
    },
    /// Each connection sends one after each interval, whatever comes back.
    Open {
        /// The interval.
        interval: Duration,
    },
}

/// Connections that are opened at the same time; the handshakes of a fleet that comes at once are not what is measured.
const OPENED_AT_ONCE: usize = 32;

/// What was measured while the flow was even.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// Reports acknowledged.
    pub reports: u64,
    /// Bytes of the sealed reports.
    pub bytes: u64,
    /// From the sending of a report to its acknowledgement, sorted.
    pub latencies: Vec<Duration>,
}

/// Enrols `count` agents, many at a time.
///
/// # Errors
///
/// When the collector refuses one.
pub async fn enroll(target: &Target, token: &str, count: usize) -> anyhow::Result<Vec<Identity>> {
    stream::iter(0..count)
        .map(|n| async move { Identity::enroll(target, token, &format!("bench-{n}")).await })
        .buffer_unordered(OPENED_AT_ONCE)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect()
}

/// A flow under way.
pub struct Running {
    connections: JoinSet<anyhow::Result<(Arc<Identity>, Chain)>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    is_measured: AtomicBool,
    is_over: AtomicBool,
    reports: AtomicU64,
    bytes: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
}

/// Starts a connection for each identity; chains begin anew. No report is sent before all connections are open: those that came first
/// would take the collector for themselves.
///
/// # Errors
///
/// When a stream cannot be opened.
pub async fn start(identities: &[Arc<Identity>], load: Load, random: &mut Random) -> anyhow::Result<Running> {
    let chains: Vec<_> =
        identities.iter().map(|identity| (identity.clone(), Chain::begin(identity.id, random, now()))).collect();
    let mut opening = stream::iter(chains)
        .map(|(identity, chain)| async move {
            let session = Session::open(&identity, &chain, &[]).await.context("a stream of the benchmark")?;
            anyhow::Ok((identity, chain, session))
        })
        .buffer_unordered(OPENED_AT_ONCE);
    let mut open = Vec::with_capacity(identities.len());
    while let Some(opened) = opening.next().await {
        open.push(opened?);
    }
    let counts = Arc::new(Counts::default());
    let mut connections = JoinSet::new();
    for (identity, chain, session) in open {
        let offset = match load {
            Load::Closed { .. } => Duration::ZERO,
            Load::Open { interval } => random.duration(Duration::ZERO, interval),
        };
        connections.spawn(stream_reports(identity, chain, session, load, offset, counts.clone()));
    }
    Ok(Running { connections, counts })
}

impl Running {
    /// Lets it flow for `warm_up`, then measures for `span`, calling `at_edge` at both edges.
    ///
    /// # Errors
    ///
    /// When a connection ends or a report is refused.
    pub async fn measure<E>(
        &mut self,
        warm_up: Duration,
        span: Duration,
        mut at_edge: impl FnMut() -> E,
    ) -> anyhow::Result<(Flow, E, E)> {
        tokio::time::sleep(warm_up).await;
        self.check()?;
        let first = at_edge();
        self.counts.is_measured.store(true, Ordering::SeqCst);
        tokio::time::sleep(span).await;
        self.counts.is_measured.store(false, Ordering::SeqCst);
        let last = at_edge();
        self.check()?;
        let mut latencies = std::mem::take(&mut *self.counts.latencies.lock().await);
        latencies.sort_unstable();
        let (reports, bytes) = (self.counts.reports.load(Ordering::SeqCst), self.counts.bytes.load(Ordering::SeqCst));
        Ok((Flow { reports, bytes, latencies }, first, last))
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When a connection had ended by itself.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.check()?;
        self.counts.is_over.store(true, Ordering::SeqCst);
        self.connections.shutdown().await;
        Ok(())
    }

    fn check(&mut self) -> anyhow::Result<()> {
        match self.connections.try_join_next() {
            None => Ok(()),
            Some(ended) => {
                ended.context("a connection's task")?.context("a connection of the benchmark")?;
                bail!("a connection of the benchmark ended")
            }
        }
    }
}

async fn stream_reports(
    identity: Arc<Identity>,
    mut chain: Chain,
    mut session: Session,
    load: Load,
    offset: Duration,
    counts: Arc<Counts>,
) -> anyhow::Result<(Arc<Identity>, Chain)> {
    tokio::time::sleep(offset).await;
    let mut under_way: VecDeque<(Instant, usize)> = VecDeque::new();
    let mut through = session.welcome.durable_through_sequence;
    let mut ticks = match load {
        Load::Closed { .. } => None,
        Load::Open { interval } => Some(tokio::time::interval(interval)),
    };
    while !counts.is_over.load(Ordering::Relaxed) {
        if let Load::Closed { window } = load {
            while under_way.len() < window {
                under_way.push_back(send(&identity, &mut chain, &session).await);
            }
        }
        let due = async {
            match &mut ticks {
                Some(ticks) => {
                    ticks.tick().await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = session.next() => match event? {
                Event::Durable(durable) => {
                    let count = durable.through_sequence - through;
                    through = durable.through_sequence;
                    acknowledged(&counts, &mut under_way, count, &durable, &identity).await?;
                }
                Event::Directive(_) => {}
                other => bail!("the collector said {other:?}"),
            },
            () = due => under_way.push_back(send(&identity, &mut chain, &session).await),
        }
    }
    Ok((identity, chain))
}

async fn send(identity: &Identity, chain: &mut Chain, session: &Session) -> (Instant, usize) {
    let now = now();
    let body = chain.usual(now);
    let sealed = chain.seal(&identity.keys.evidence, body, now);
    let bytes = sealed.report.len() + sealed.signature.len();
    let sent = Instant::now();
    session.send(sealed).await;
    (sent, bytes)
}

async fn acknowledged(
    counts: &Counts,
    under_way: &mut VecDeque<(Instant, usize)>,
    count: u64,
    durable: &v1::Durable,
    identity: &Identity,
) -> anyhow::Result<()> {
    ensure!(count <= under_way.len() as u64, "more is acknowledged than was sent");
    // A sample is verified; verifying all would take the processor that is being measured.
    if durable.through_sequence.is_multiple_of(101) {
        Checkpoint::verify(&durable.checkpoint, &identity.log_key)?;
    }
    let is_measured = counts.is_measured.load(Ordering::Relaxed);
    let mut latencies = Vec::new();
    for (sent, bytes) in under_way.drain(..usize::try_from(count)?) {
        if is_measured {
            latencies.push(sent.elapsed());
            counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
    if is_measured {
        counts.reports.fetch_add(count, Ordering::Relaxed);
        counts.latencies.lock().await.append(&mut latencies);
    }
    Ok(())
}
