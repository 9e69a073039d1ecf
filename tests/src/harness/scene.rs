//! What most tests begin with: a collector, someone who may do everything, and an honest agent that streams all the while.

use std::time::Duration;

use super::{collector::Collector, random::Random, until};
use crate::load::{
    Admin, Identity, Target,
    steady::{Pace, Promises, Steady},
};

/// How the honest agent streams.
const HONEST: Pace = Pace { window: 32, interval: Duration::from_millis(10) };

/// A collector that runs, and an honest agent that streams to it.
#[derive(Debug)]
pub struct Scene {
    /// The collector.
    pub collector: Collector,
    /// Where it is.
    pub target: Target,
    /// Someone who may do everything.
    pub admin: Admin,
    /// A token for many agents.
    pub token: String,
    /// Chance, seeded.
    pub random: Random,
    /// Key that verifies the collector's checkpoints.
    pub log_key: String,
    honest: Steady,
    honest_id: muster_proto::id::AgentId,
}

impl Scene {
    /// Sets the scene of the test `purpose`.
    ///
    /// # Panics
    ///
    /// When it cannot be set.
    pub async fn set(purpose: &str) -> Self {
        Self::set_with(purpose, Collector::at(super::free_address())).await
    }

    /// Sets the scene with a collector that is initialised and not running.
    ///
    /// # Panics
    ///
    /// When it cannot be set.
    pub async fn set_with(purpose: &str, mut collector: Collector) -> Self {
        collector.settings.push(("MUSTER_LIMITS_ENROLLMENTS_PER_SECOND", "10000".to_owned()));
        collector.start();
        let mut random = Random::printed(purpose);
        let target = collector.target();
        let admin = Admin::connect(&target, &collector.data().join("admin.pem")).await.expect("the first admin");
        let token = admin.token(1000).await.expect("a token").secret;
        let identity = Identity::enroll(&target, &token, "honest").await.expect("an honest agent enrols");
        let (log_key, honest_id) = (identity.log_key.clone(), identity.id);
        let honest = Steady::start(identity, HONEST, random.number());
        let scene = Self { collector, target, admin, token, random, log_key, honest, honest_id };
        scene.honest_goes_on().await;
        scene
    }

    /// Enrols another agent.
    ///
    /// # Panics
    ///
    /// When the collector refuses it.
    pub async fn enroll(&self, hostname: &str) -> Identity {
        Identity::enroll(&self.target, &self.token, hostname).await.expect("the token is good")
    }

    /// Waits until the honest agent has had further reports acknowledged.
    pub async fn honest_goes_on(&self) {
        let before = self.honest.through();
        until("the honest agent's acknowledgements go on", async || {
            let now = self.honest.through();
            super::check(now > before + 5, format!("{now} after {before}; {:?}", self.honest.promises().ends))
        })
        .await;
    }

    /// Ends the scene: all is as promised to the honest agent, and the log is whole. Returns the log.
    ///
    /// # Panics
    ///
    /// When a promise is broken.
    pub async fn end(mut self) -> crate::evidence::Evidence {
        self.honest_goes_on().await;
        self.collector.check_alive();
        let promises: Promises = self.honest.stop().await.expect("the honest agent was treated well");
        self.collector.stop(Duration::from_secs(5));
        let log = self.collector.evidence(&self.log_key);
        let chains = log.chains().expect("entries of the contract");
        let mut of_honest = chains.iter().filter(|((agent, _), _)| *agent == self.honest_id);
        let (_, chain) = of_honest.next().expect("the honest agent's chain");
        assert!(of_honest.next().is_none(), "the honest agent has one epoch");
        promises.check(chain, &log).expect("promises are kept");
        self.collector.run_ok(&["fsck"]);
        log
    }
}
