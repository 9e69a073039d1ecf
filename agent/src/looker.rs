//! The probes of this build, as the agent's loop sees them.

use std::path::PathBuf;

use muster_proto::{
    fact::{Fact, Reading, Text},
    report::Probe,
    v1::HostClaim,
};
use tokio::sync::mpsc;

use crate::{
    chain::VERSION,
    config::Config,
    moment::Moment,
    probe::Settings,
    prober::{self, Prober},
    report::Look,
    run::{Looker, Looking, Outcome},
};

/// The probes of this build.
pub struct Probes {
    prober: Prober,
    settings: Settings,
}

impl Probes {
    /// Starts the prober. The receiver gives probes that should look sooner.
    ///
    /// # Errors
    ///
    /// When the folders of the probes' memory cannot be made.
    pub fn start(config: &Config) -> std::io::Result<(Self, mpsc::Receiver<Probe>)> {
        let settings = config.probes.clone();
        let prober = Prober::start(settings.clone(), &config.state_directory.join("probes"))?;
        let (_, hints) = mpsc::channel(1);
        Ok((Self { prober, settings }, hints))
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

    fn watch_paths(&mut self, paths: Option<Vec<PathBuf>>) {
        let mut settings = self.settings.clone();
        if let Some(paths) = paths {
            settings.watched_paths = paths;
        }
        self.prober.set_settings(settings);
    }
}
