//! The probes of this build, as the agent's loop sees them.

use muster_proto::{
    fact::{Fact, Reading, Text, WatchState},
    report::Probe,
    v1::HostClaim,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use crate::{
    chain::VERSION,
    config::Config,
    fim::watch_set::WatchSet,
    moment::Moment,
    probe::Settings,
    prober::{self, Prober},
    report::Look,
    run::{Looker, Looking, Outcome},
    watch::{Hint, Watch},
};

/// Hints that wait to be taken. While they do, the watch gathers the next ones into one.
const HINTS: usize = 8;

/// The probes of this build.
pub struct Probes {
    prober: Prober,
    settings: Settings,
    hints: mpsc::Sender<Hint>,
    watching: Option<AbortHandle>,
}

impl Probes {
    /// Starts the prober. The receiver gives what changed files hint at, once [`Looker::watch_sets`] was called.
    ///
    /// # Errors
    ///
    /// When the folders of the probes' memory cannot be made.
    pub fn start(config: &Config) -> std::io::Result<(Self, mpsc::Receiver<Hint>)> {
        let settings = config.probes.clone();
        let prober = Prober::start(settings.clone(), &config.state_directory.join("probes"))?;
        let (hints, receiver) = mpsc::channel(HINTS);
        Ok((Self { prober, settings, hints, watching: None }, receiver))
    }

    /// Returns what the host says of itself when it enrols. It authorises nothing, so that what is unknown stays empty.
    pub async fn claim(&self) -> HostClaim {
        let answer = self.prober.look(Probe::System, Moment::now().wall).await;
        let mut claim = HostClaim { agent_version: VERSION.to_owned(), ..HostClaim::default() };
        for fact in answer.facts {
            if let Fact::System(Reading::Known(system)) = fact {
                let text = |reading: Reading<Text>| reading.known().map(ToString::to_string).unwrap_or_default();
                claim.hostname = text(system.hostname);
                claim.machine_id_digest = text(system.machine_id_digest);
                claim.hardware_serial = text(system.hardware_serial);
            }
        }
        claim
    }
}

impl Looker for Probes {
    fn look(&mut self, probe: Probe) -> Looking {
        let prober = self.prober.clone();
        Box::pin(async move {
            let started = Moment::now();
            let answer = prober.look(probe, started.wall).await;
            let look = Look { probe, facts: answer.facts, started, ended: Moment::now() };
            let outcome = match answer.outcome {
                prober::Outcome::Done => Outcome::Done,
                prober::Outcome::Crashed(message) => Outcome::Crashed(message),
                prober::Outcome::TimedOut => Outcome::TimedOut,
            };
            (look, outcome)
        })
    }

    fn watch_sets(&mut self, sets: Vec<WatchSet>) {
        let mut settings = self.settings.clone();
        if !sets.is_empty() {
            settings.watched_paths.clear();
            settings.watch_sets = sets;
        }
        self.prober.set_settings(settings.clone());
        let watching = watch(self.prober.clone(), settings, self.hints.clone());
        if let Some(before) = self.watching.replace(watching) {
            before.abort();
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

/// Watches the paths of `settings` and turns what the kernel tells into hints, until it is aborted.
fn watch(prober: Prober, settings: Settings, hints: mpsc::Sender<Hint>) -> AbortHandle {
    let watching = tokio::spawn(async move {
        let Some(watch) = start(settings).await else { return };
        for problem in watch.problems() {
            tracing::warn!(problem, "changes of some files are only found by scans");
        }
        prober.set_watch_state(watch.state());
        loop {
            let hint = watch.next().await;
            if hint.failed {
                prober.set_watch_state(WatchState::Partial);
            }
            if hints.send(hint).await.is_err() {
                return;
            }
        }
    });
    watching.abort_handle()
}

/// Starts the watch, which counts folders: it may take seconds, and on a file system that hangs it never ends. So it has a
/// thread of its own, for which neither other blocking work nor the end of the program waits.
async fn start(settings: Settings) -> Option<Watch> {
    let (sender, receiver) = oneshot::channel();
    let spawned = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
        // Nobody waits for a watch of settings that are no longer in force.
        let _ = sender.send(Watch::start(&settings));
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "changes of files are only found by scans");
    }
    receiver.await.ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_changed_file_makes_its_probe_look_sooner() {
        let (state, watched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut config = Config { state_directory: state.path().to_owned(), ..Config::default() };
        config.probes.watched_paths = vec![watched.path().to_owned()];
        let (mut probes, mut hints) = Probes::start(&config).unwrap();
        probes.watch_sets(Vec::new());
        // The watch begins some time after the start, so that one change alone could be missed.
        let change = async {
            loop {
                std::fs::write(watched.path().join("changed"), "x").unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let hinted =
            async { while !hints.recv().await.expect("the watch goes on").probes.contains(&Probe::FileIntegrity) {} };
        let first = async {
            tokio::select! { () = hinted => (), () = change => () }
        };
        tokio::time::timeout(Duration::from_secs(60), first).await.unwrap();
    }
}
