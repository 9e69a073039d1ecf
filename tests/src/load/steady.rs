//! An honest agent that streams without an end, survives every loss of its collector, and remembers what it was promised.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use muster_proto::{
    id::{Digest, ReportSeq},
    report::CheckpointRef,
    seal::sealed_digest,
    v1,
};
use tokio::task::JoinHandle;

use super::{
    chain::{Chain, agent_fact},
    identity::Identity,
    session::{Event, Session},
};
use crate::{
    evidence::{Checkpoint, Evidence},
    harness::{now, random::Random},
};

/// What the collector promised to one agent.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// Digests of all sealed reports, by place from 1; those that were never sent included.
    pub sealed: Vec<Digest>,
    /// Reports up to this place are acknowledged.
    pub through: u64,
    /// Acknowledgements, and the checkpoints that they carried, as far as they differ.
    pub checkpoints: Vec<Checkpoint>,
    /// Streams that were opened.
    pub sessions: u64,
    /// Why streams ended, the last few.
    pub ends: VecDeque<String>,
}

/// How an agent streams.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Reports under way at most.
    pub window: usize,
    /// Time between two reports; zero sends as many as the window takes.
    pub interval: Duration,
}

/// A streaming agent.
#[derive(Debug)]
pub struct Steady {
    promises: Arc<Mutex<Promises>>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Steady {
    /// Starts to stream.
    pub fn start(identity: Identity, pace: Pace, seed: u64) -> Self {
        let promises = Arc::new(Mutex::new(Promises::default()));
        let task = tokio::spawn(stream_for_ever(identity, pace, Random::of(seed), promises.clone()));
        Self { promises, task }
    }

    /// Returns what was promised so far.
    ///
    /// # Panics
    ///
    /// When the agent has failed while it held the lock.
    pub fn promises(&self) -> Promises {
        self.promises.lock().expect("no panic under the lock").clone()
    }

    /// Returns up to where reports are acknowledged.
    ///
    /// # Panics
    ///
    /// When the agent has failed while it held the lock.
    pub fn through(&self) -> u64 {
        self.promises.lock().expect("no panic under the lock").through
    }

    /// Stops it at once and returns what it was promised.
    ///
    /// # Errors
    ///
    /// When it had ended by itself: the collector said what it must not.
    pub async fn stop(self) -> anyhow::Result<Promises> {
        if self.task.is_finished() {
            self.task.await.context("the agent's task")?.context("an honest agent was treated wrongly")?;
            bail!("an agent that streams without an end ended");
        }
        self.task.abort();
        // Its end is the abort just asked for.
        let _ = self.task.await;
        Ok(Arc::into_inner(self.promises).context("the task is gone")?.into_inner()?)
    }
}

impl Promises {
    /// Checks that the log keeps every promise: each acknowledged report once and in the exact bytes, and each checkpoint a beginning
    /// of the log.
    ///
    /// # Errors
    ///
    /// Says which promise is broken.
    pub fn check(
        &self,
        chain: &std::collections::BTreeMap<u64, Vec<(Digest, u64)>>,
        log: &Evidence,
    ) -> anyhow::Result<()> {
        for (seq, digest) in (1..=self.through).zip(&self.sealed) {
            let there = chain.get(&seq).with_context(|| format!("acknowledged report {seq} is not in the log"))?;
            ensure!(there.len() == 1, "report {seq} is in the log {} times", there.len());
            ensure!(there[0].0 == *digest, "another report stands at {seq}");
        }
        for checkpoint in &self.checkpoints {
            ensure!(log.holds(checkpoint), "the log does not begin with the checkpoint of size {}", checkpoint.size);
        }
        Ok(())
    }
}

async fn stream_for_ever(
    identity: Identity,
    pace: Pace,
    mut random: Random,
    promises: Arc<Mutex<Promises>>,
) -> anyhow::Result<()> {
    let mut chain = Chain::begin(identity.id, &mut random, now());
    let mut under_way: VecDeque<v1::SealedReport> = VecDeque::new();
    let mut nonce = Vec::new();
    loop {
        let at = chain_at_first(&chain, &under_way, &promises.lock().expect("no panic under the lock").sealed);
        let session = match Session::open(&identity, &at, &nonce).await {
            Ok(session) => session,
            Err(status) => {
                note_end(&promises, format!("at opening: {status:?}"));
                refuse_final(&status)?;
                tokio::time::sleep(random.duration(Duration::from_millis(10), Duration::from_millis(60))).await;
                continue;
            }
        };
        nonce.clone_from(&session.welcome.session_nonce);
        let end = stream_once(session, &identity, pace, &mut chain, &mut under_way, &promises).await?;
        note_end(&promises, format!("{end:?}"));
        if let Some(status) = end {
            refuse_final(&status)?;
        }
    }
}

/// Streams until the session ends, and returns how it did.
async fn stream_once(
    mut session: Session,
    identity: &Identity,
    pace: Pace,
    chain: &mut Chain,
    under_way: &mut VecDeque<v1::SealedReport>,
    promises: &Mutex<Promises>,
) -> anyhow::Result<Option<tonic::Status>> {
    let durable = session.welcome.durable_through_sequence;
    {
        let mut promises = promises.lock().expect("no panic under the lock");
        promises.sessions += 1;
        ensure!(durable >= promises.through, "durable went back from {} to {durable}", promises.through);
    }
    if !session.welcome.checkpoint.is_empty() {
        take(promises, chain, identity, durable, &session.welcome.checkpoint.clone())?;
    }
    drop_durable(chain, under_way, durable);
    for sealed in under_way.iter() {
        session.send(sealed.clone()).await;
    }
    let mut ticks = (!pace.interval.is_zero()).then(|| tokio::time::interval(pace.interval));
    loop {
        let may_send = under_way.len() < pace.window;
        let tick = async {
            match &mut ticks {
                Some(ticks) => {
                    ticks.tick().await;
                }
                None => tokio::task::yield_now().await,
            }
        };
        tokio::select! {
            biased;
            event = session.next() => match event {
                Ok(Event::Durable(durable)) => {
                    take(promises, chain, identity, durable.through_sequence, &durable.checkpoint)?;
                    drop_durable(chain, under_way, durable.through_sequence);
                }
                Ok(Event::Directive(_)) => {}
                Ok(Event::Rejection(rejection)) => bail!("a good report was refused: {rejection:?}"),
                Ok(Event::End(status)) => return Ok(status),
                // With nothing under way, silence is right.
                Err(_) if under_way.is_empty() => {}
                Err(error) => return Err(error),
            },
            () = tick, if may_send => {
                let sealed = next_report(chain, identity);
                promises.lock().expect("no panic under the lock").sealed.push(sealed_digest(&sealed));
                under_way.push_back(sealed.clone());
                session.send(sealed).await;
            }
        }
    }
}

fn next_report(chain: &mut Chain, identity: &Identity) -> v1::SealedReport {
    let now = now();
    let body = match chain.next.number() {
        2 => chain.facts(&[agent_fact("0.1.0")], true, now),
        n if n.is_multiple_of(50) => chain.facts(&[agent_fact(&format!("0.1.{n}"))], false, now),
        _ => chain.usual(now),
    };
    chain.seal(&identity.keys.evidence, body, now)
}

/// Takes a promise: the checkpoint must be signed, never shrink, and reports must have been sent.
fn take(
    promises: &Mutex<Promises>,
    chain: &mut Chain,
    identity: &Identity,
    through: u64,
    note: &[u8],
) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::verify(note, &identity.log_key)?;
    let mut promises = promises.lock().expect("no panic under the lock");
    ensure!(through <= promises.sealed.len() as u64, "a report that was never sealed is acknowledged: {through}");
    ensure!(through >= promises.through, "acknowledgements went back from {} to {through}", promises.through);
    promises.through = through;
    match promises.checkpoints.last() {
        Some(last) if *last == checkpoint => {}
        Some(last) => {
            ensure!(checkpoint.size > last.size, "the log shrank or forked: {last:?}, then {checkpoint:?}");
            promises.checkpoints.push(checkpoint);
        }
        None => promises.checkpoints.push(checkpoint),
    }
    let origin = muster_proto::fact::Text::new(identity.log_key.split('+').next().unwrap_or_default());
    chain.checkpoint = Some(CheckpointRef { origin, size: checkpoint.size, root: Digest::new(checkpoint.root) });
    Ok(())
}

fn drop_durable(chain: &Chain, under_way: &mut VecDeque<v1::SealedReport>, through: u64) {
    let first = chain.next.number() - under_way.len() as u64;
    let durable = usize::try_from((through + 1).saturating_sub(first)).expect("a window is small");
    under_way.drain(..durable.min(under_way.len()));
}

/// Returns the chain as Hello tells it: at the first report that is not known to be durable.
fn chain_at_first(chain: &Chain, under_way: &VecDeque<v1::SealedReport>, sealed: &[Digest]) -> Chain {
    let first = chain.next.number() - under_way.len() as u64;
    let before = usize::try_from(first - 1).expect("a test seals few reports");
    let next = ReportSeq::new(first).expect("sequences begin at 1");
    Chain { next, head: before.checked_sub(1).map(|index| sealed[index]), ..chain.clone() }
}

fn note_end(promises: &Mutex<Promises>, end: String) {
    let mut promises = promises.lock().expect("no panic under the lock");
    promises.ends.push_back(end);
    if promises.ends.len() > 5 {
        promises.ends.pop_front();
    }
}

/// An honest agent is never refused for good.
fn refuse_final(status: &tonic::Status) -> anyhow::Result<()> {
    use tonic::Code;
    match status.code() {
        Code::PermissionDenied | Code::InvalidArgument | Code::Unauthenticated | Code::Unimplemented => {
            bail!("an honest agent was refused: {status:?}")
        }
        _ => Ok(()),
    }
}
