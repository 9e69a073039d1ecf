//! The agent's life: waits for an identity, then looks, reports and sends until it is asked to stop.
//!
//! One thread runs everything but looks. Sealing and acknowledging write and sync small files on it: a few milliseconds, and nothing
//! else here is in a hurry.

mod agent;
mod profile;
mod scans;
mod waiting;

use std::{future::Future, io, path::PathBuf, pin::Pin};

use futures_util::{FutureExt as _, future::Fuse};
use muster_proto::report::Probe;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    config::Config,
    fim::{progress, watch_set::WatchSet},
    identity,
    report::Look,
    spool,
    status::{Phase, Status},
    watch::Hint,
};

/// The lock of the state folder is tried this often, this long after each other.
const LOCK_TRIES: u32 = 5;
const LOCK_AGAIN: std::time::Duration = std::time::Duration::from_millis(20);

/// The agent cannot run, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Keys or folders are not fit for use.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] spool::Error),
    /// Another agent runs with the same state folder.
    #[error("another agent (see status.json for its process) uses the state folder {0}")]
    InUse(String),
    /// The state folder cannot be used.
    #[error("failed to {act} {}; the agent must be able to write its state folder", path.display())]
    State {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The system refuses something basic.
    #[error("failed to {act}")]
    System {
        /// What was tried.
        act: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// How a look went, beside what it saw.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It ended.
    Done,
    /// The probe crashed, and what it said.
    Crashed(String),
    /// It did not end in its time.
    TimedOut,
}

/// A look under way.
pub type Looking = Pin<Box<dyn Future<Output = (Look, Outcome)> + Send>>;

/// How far a look of file integrity reaches. Every other look reaches everything.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reach {
    /// Everything, and nothing is taken for granted: every file is read.
    Full,
    /// Everything, of which only what differs or is due is read.
    Quick,
    /// These paths with what is below them, as [`Self::Quick`].
    At(Vec<Vec<u8>>),
}

impl Reach {
    /// Returns whether everything is looked at.
    pub fn is_whole(&self) -> bool {
        !matches!(self, Self::At(_))
    }
}

/// Whoever can make probes look: the probes of this build, or a test's.
pub trait Looker {
    /// Begins a look.
    fn look(&mut self, probe: Probe, reach: Reach) -> Looking;
    /// Returns how far the scan of watched files has come that is under way.
    fn scan(&self) -> Option<progress::Shown> {
        None
    }
    /// Returns whether it is told who changes watched files, for a person.
    fn attribution(&self) -> Option<String> {
        None
    }
    /// Begins to watch files for hints. Gives file integrity the watch sets; none means the agent's own.
    fn watch_sets(&mut self, sets: Vec<WatchSet>);
}

/// Asks the agent to stop.
pub struct Stop(Fuse<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Stop {
    /// Returns what SIGTERM and SIGINT complete.
    ///
    /// # Errors
    ///
    /// When the system does not let them be caught.
    pub fn on_signals() -> Result<Self, Error> {
        let catch = |kind| signal(kind).map_err(|source| Error::System { act: "catch signals", source });
        let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
        Ok(Self::when(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }))
    }

    /// Returns what `asked` completes.
    pub fn when(asked: impl Future<Output = ()> + Send + 'static) -> Self {
        let asked: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(asked);
        Self(asked.fuse())
    }

    async fn asked(&mut self) {
        (&mut self.0).await;
    }
}

/// Runs the agent until it is asked to stop. `hints` say which probes should look sooner.
///
/// # Errors
///
/// When it cannot start. Once it runs, whatever fails is told in reports, log and status.
pub async fn run(
    config: Config,
    looker: Box<dyn Looker>,
    claim: muster_proto::v1::HostClaim,
    hints: mpsc::Receiver<Hint>,
    mut stop: Stop,
) -> Result<(), Error> {
    let folder = identity::Folder::open(&config.state_directory)?;
    let _lock = lock(&config.state_directory)?;
    let mut status = new_status();
    notify(&[sd_notify::NotifyState::Ready]);
    let Some(identity) = waiting::for_identity(&config, &folder, claim, &mut status, &mut stop).await? else {
        notify(&[sd_notify::NotifyState::Stopping]);
        status.phase = Phase::Stopped;
        write_status(&mut status, &config);
        return Ok(());
    };
    let mut agent = agent::Agent::start(config, folder, identity, looker, status)?;
    agent.run(hints, &mut stop).await;
    notify(&[sd_notify::NotifyState::Stopping]);
    agent.stop().await;
    Ok(())
}

/// Holds the state folder for one agent.
fn lock(state: &std::path::Path) -> Result<std::fs::File, Error> {
    let path = state.join("lock");
    let failed = |act, source| Error::State { act, path: path.clone(), source };
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(|source| failed("open", source))?;
    let mut tries = 0..LOCK_TRIES;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // Someone who looks whether an agent runs holds it for a moment.
            Err(std::fs::TryLockError::WouldBlock) if tries.next().is_some() => std::thread::sleep(LOCK_AGAIN),
            Err(std::fs::TryLockError::WouldBlock) => return Err(Error::InUse(state.display().to_string())),
            Err(std::fs::TryLockError::Error(source)) => return Err(failed("lock", source)),
        }
    }
}

/// Returns whether an agent runs with the state folder `state`. A process id alone would not tell: it may be another's by now.
pub fn is_locked(state: &std::path::Path) -> bool {
    std::fs::File::open(state.join("lock"))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
}

fn new_status() -> Status {
    use muster_proto::time::{Clock as _, SystemClock};

    let now = SystemClock.now();
    Status {
        agent_version: crate::chain::VERSION.to_owned(),
        pid: std::process::id(),
        start_time: now,
        write_time: now,
        phase: Phase::Running,
        uplink: crate::status::Link::default(),
        held_since_time: None,
        held_reason: None,
        probes: Vec::new(),
        scan: None,
        attribution: None,
    }
}

fn write_status(status: &mut Status, config: &Config) {
    use muster_proto::time::{Clock as _, SystemClock};

    status.write_time = SystemClock.now();
    if let Err(error) = status.write(&config.state_directory) {
        tracing::debug!(%error, "status.json was not written");
    }
}

/// Tells the service manager, if there is one (sd_notify(3)).
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// Returns a number in [0, 1).
fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter, which hurts nobody.
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests;
