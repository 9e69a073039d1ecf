//! The probes of this build, as the agent's loop sees them.

use std::sync::Arc;

use muster_proto::{
    fact::{Fact, Reading, Text},
    report::Probe,
    v1::HostClaim,
};
use tokio::{sync::mpsc, task::AbortHandle};

use crate::{
    chain::VERSION,
    config::Config,
    fim::{Sets, actors::Actors, progress, sets, watch_set::WatchSet},
    host::{self, Live, live::Attribution},
    moment::Moment,
    probe::Settings,
    prober::{self, Prober},
    report::Look,
    run::{Looker, Looking, Outcome, Reach},
    watch::{Coverage, Hint, Watch},
};

/// Hints that wait to be taken. While they do, the watch gathers the next ones into one.
const HINTS: usize = 8;

/// The probes of this build.
pub struct Probes {
    prober: Prober,
    settings: Settings,
    hints: mpsc::Sender<Hint>,
    watch: Option<Arc<Watch>>,
    watching: Option<AbortHandle>,
    /// Who changes watched files, or why that is not told.
    attribution: Result<Attribution, String>,
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
        Ok((
            Self { prober, settings, hints, watch: None, watching: None, attribution: Err("off".to_owned()) },
            receiver,
        ))
    }

    /// Returns what the host says of itself when it enrols. It authorises nothing, so that what is unknown stays empty.
    pub async fn claim(&self) -> HostClaim {
        let answer = self.prober.look(Probe::System, Reach::Full, Moment::now().wall).await;
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
    fn look(&mut self, probe: Probe, reach: Reach) -> Looking {
        let prober = self.prober.clone();
        let is_whole = reach.is_whole();
        if probe == Probe::FileIntegrity
            && is_whole
            && let Some(watch) = &self.watch
        {
            // What could not be watched may be by now.
            watch.refresh();
        }
        Box::pin(async move {
            let started = Moment::now();
            let answer = prober.look(probe, reach, started.wall).await;
            let look = Look { probe, is_whole, facts: answer.facts, started, ended: Moment::now() };
            let outcome = match answer.outcome {
                prober::Outcome::Done => Outcome::Done,
                prober::Outcome::Crashed(message) => Outcome::Crashed(message),
                prober::Outcome::TimedOut => Outcome::TimedOut,
            };
            (look, outcome)
        })
    }

    fn scan(&self) -> Option<progress::Shown> {
        self.prober.scan()
    }

    fn attribution(&self) -> Option<String> {
        Some(self.attribution.as_ref().map_or_else(Clone::clone, |_| "by fanotify".to_owned()))
    }

    fn watch_sets(&mut self, sets: Vec<WatchSet>) {
        let mut settings = self.settings.clone();
        if !sets.is_empty() {
            settings.watched_paths.clear();
            settings.watch_sets = sets;
        }
        self.prober.set_settings(settings.clone());
        if let Some(before) = self.watching.take() {
            before.abort();
        }
        // The one before ends first, so that both together do not ask too much of the kernel.
        self.watch = None;
        self.attribution = Err("off".to_owned());
        self.attribution = attribution(settings.clone(), self.prober.actors());
        self.prober.set_coverage(Coverage::none());
        let watch = Arc::new(Watch::start(&settings));
        self.watch = Some(Arc::clone(&watch));
        self.watching = Some(listen(watch, self.prober.clone(), self.hints.clone()));
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

/// Begins to ask the kernel who changes what is watched, or says why not.
fn attribution(settings: Settings, actors: Arc<Actors>) -> Result<Attribution, String> {
    if !settings.attribute_changes {
        return Err("off by attribute_changes".to_owned());
    }
    let folders = settings.watched_folders;
    let roots = move || {
        let sets = Sets::new(&sets::in_force(&settings, &Live::new()));
        let roots = sets.iter().flat_map(Sets::roots).map(|root| host::path_of(&root.path));
        roots.collect()
    };
    Attribution::start(roots, folders, actors).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => "off: it needs CAP_SYS_ADMIN".to_owned(),
        _ => format!("off: {error}"),
    })
}

/// Hands on what `watch` hints at, and how far it reaches, until it is aborted.
fn listen(watch: Arc<Watch>, prober: Prober, hints: mpsc::Sender<Hint>) -> AbortHandle {
    let listening = tokio::spawn(async move {
        let mut before = Coverage::none();
        loop {
            let hint = watch.next().await;
            let coverage = watch.coverage();
            if coverage.scan_only_total != before.scan_only_total {
                log_coverage(&coverage);
            }
            prober.set_coverage(coverage.clone());
            before = coverage;
            if hints.send(hint).await.is_err() {
                return;
            }
        }
    });
    listening.abort_handle()
}

fn log_coverage(coverage: &Coverage) {
    let (watched, scanned) = (coverage.folders_live, coverage.folders_scan_only);
    match coverage.scan_only.first() {
        Some(first) => {
            let (path, why) = (first.path.to_string(), first.unknown.detail.to_string());
            tracing::warn!(watched, scanned, path, why, "changes in some folders are only found by scans");
        }
        None => tracing::info!(watched, "changes in all watched folders are noticed as they happen"),
    }
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
