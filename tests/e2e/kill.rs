//! `kill -9` at random moments under load: what was acknowledged is in the log, once, and the views are those of the log.
//!
//! `MUSTER_TEST_KILLS` says how often (200), `MUSTER_TEST_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::time::{Duration, Instant};

use muster_proto::{id::AgentId, v1};
use muster_tests::{
    evidence::{Evidence, check_chains},
    harness::{
        agent::{Agent, FAST},
        check,
        collector::Collector,
        free_address,
        process::tail,
        random::Random,
        setting, until,
    },
    load::{
        Admin, Identity,
        steady::{Pace, Steady},
    },
};

const MILLI: Duration = Duration::from_millis(1);

/// How the agents of the tests stream.
const PACE: Pace = Pace { window: 64, interval: Duration::from_millis(5) };

struct Fleet {
    collector: Collector,
    log_key: String,
    steady: Vec<(AgentId, Steady)>,
    agents: Vec<Agent>,
}

impl Fleet {
    async fn of(steady: usize, agents: usize, random: &mut Random) -> Self {
        let mut collector = Collector::at(free_address());
        collector.start();
        let target = collector.target();
        let admin = Admin::connect(&target, &collector.data().join("admin.pem")).await.expect("the first admin");
        let token = admin.token(100).await.expect("a token").secret;
        let mut log_key = String::new();
        let mut streaming = Vec::new();
        for n in 0..steady {
            let identity = Identity::enroll(&target, &token, &format!("steady-{n}")).await.expect("it enrols");
            log_key.clone_from(&identity.log_key);
            streaming.push((identity.id, Steady::start(identity, PACE, random.number())));
        }
        let mut agents: Vec<_> = (0..agents).map(|_| Agent::of(&collector, FAST)).collect();
        agents.iter_mut().for_each(Agent::start);
        let fleet = Self { collector, log_key, steady: streaming, agents };
        fleet.all_report(&admin).await;
        fleet
    }

    async fn all_report(&self, admin: &Admin) {
        let expected = self.steady.len() + self.agents.len();
        until("every agent reports", async || {
            let hosts = admin.fleet().list_hosts(v1::ListHostsRequest::default()).await;
            let hosts = hosts.map_err(|status| status.to_string())?.into_inner().hosts;
            let reporting = hosts.iter().filter(|host| host.sequence > 0).count();
            check(reporting == expected, format!("{reporting} of {expected}"))
        })
        .await;
    }

    /// Returns how many reports of each real agent are in `log`, after checking that each has one epoch.
    fn of_agents(log: &Evidence, steady: &[AgentId], agents: usize) -> Vec<usize> {
        let chains = log.chains().expect("entries of the contract");
        let of_agents: Vec<_> = chains.iter().filter(|((agent, _), _)| !steady.contains(agent)).collect();
        let keys: Vec<_> = of_agents.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), agents, "each agent has one epoch: {keys:?}");
        of_agents.iter().map(|(_, chain)| chain.len()).collect()
    }

    /// Returns whose chains are not those of real agents.
    fn steady_ids(&self) -> Vec<AgentId> {
        self.steady.iter().map(|(id, _)| *id).collect()
    }

    fn through(&self) -> u64 {
        self.steady.iter().map(|(_, steady)| steady.through()).sum()
    }

    /// Waits until each streaming agent has had further reports acknowledged.
    async fn goes_on(&self) {
        let before: Vec<_> = self.steady.iter().map(|(_, steady)| steady.through()).collect();
        until("acknowledgements go on", async || {
            let stuck = self.steady.iter().zip(&before).find(|((_, steady), before)| steady.through() <= **before + 2);
            check(stuck.is_none(), format!("{:?}", stuck.map(|((_, steady), _)| steady.promises().ends)))
        })
        .await;
    }

    /// Stops everything and checks every promise. Returns the log.
    async fn settle(mut self) -> Evidence {
        self.goes_on().await;
        for agent in &mut self.agents {
            agent.stop(Duration::from_secs(20));
        }
        let mut promised = Vec::new();
        for (id, steady) in self.steady.drain(..) {
            promised.push((id, steady.stop().await.expect("an honest agent is treated well")));
        }
        self.collector.stop(Duration::from_secs(5));
        let log = self.collector.evidence(&self.log_key);
        let chains = log.chains().expect("entries of the contract");
        check_chains(&chains).expect("no report twice, and no hole");
        for (id, promises) in promised {
            let chain: Vec<_> = chains.iter().filter(|((agent, _), _)| *agent == id).collect();
            assert_eq!(chain.len(), 1, "one epoch of {id}");
            promises.check(chain[0].1, &log).unwrap_or_else(|error| panic!("{id}: {error:#}"));
        }
        assert!(log.conflicts().unwrap().is_empty(), "an honest agent is taken for a clone");
        self.collector.run_ok(&["fsck"]);
        self.rebuilds_equally();
        log
    }

    /// Checks that the views are those that the log gives, and gives again.
    fn rebuilds_equally(&self) {
        let rebuild = || -> serde_json::Value {
            serde_json::from_str(&self.collector.run_ok(&["rebuild", "-o", "json"])).expect("JSON")
        };
        let (first, second) = (rebuild(), rebuild());
        assert_eq!(first["same"], true, "the views were not those of the log: {first}");
        assert_eq!(second, first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_collector_loses_nothing_that_it_acknowledged() {
    let mut random = Random::printed("a killed collector");
    let kills = setting("MUSTER_TEST_KILLS", 200);
    let mut fleet = Fleet::of(6, 2, &mut random).await;
    let (start, before) = (Instant::now(), fleet.through());
    for round in 0..kills {
        // Most kills meet a collector under load, some one that has just begun.
        let busy = random.below(5) > 0;
        let pause = if busy { random.duration(20 * MILLI, 500 * MILLI) } else { random.duration(MILLI, 60 * MILLI) };
        tokio::time::sleep(pause).await;
        fleet.collector.kill();
        fleet.collector.start_unattended();
        if random.below(4) > 0 {
            fleet.collector.wait_until_it_listens();
        }
        if round % 20 == 19 {
            fleet.collector.wait_until_it_listens();
            fleet.goes_on().await;
        }
    }
    fleet.collector.wait_until_it_listens();
    let acknowledged = fleet.through() - before;
    let (steady, agents) = (fleet.steady_ids(), fleet.agents.len());
    let log = fleet.settle().await;
    let of_agents = Fleet::of_agents(&log, &steady, agents);
    assert!(acknowledged > kills, "hardly anything was under way: {acknowledged} acknowledged");
    eprintln!(
        "{kills} kills of the collector in {:.0?}: {acknowledged} reports acknowledged meanwhile, {of_agents:?} of real agents, log of {}, \
         none lost or double",
        start.elapsed(),
        log.checkpoint.size
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_goes_on_where_it_was() {
    let mut random = Random::printed("a killed agent");
    let kills = setting("MUSTER_TEST_KILLS", 200);
    let mut fleet = Fleet::of(2, 4, &mut random).await;
    let start = Instant::now();
    for _ in 0..kills {
        let pause = if random.below(4) > 0 {
            random.duration(5 * MILLI, 600 * MILLI)
        } else {
            random.duration(MILLI, 20 * MILLI)
        };
        tokio::time::sleep(pause).await;
        let index = random.index(fleet.agents.len());
        let agent = &mut fleet.agents[index];
        agent.kill();
        agent.start();
    }
    let agents = fleet.agents.len();
    let steady = fleet.steady_ids();
    // Each agent's last life is heard of before all is stopped.
    let admin = Admin::connect(&fleet.collector.target(), &fleet.collector.data().join("admin.pem")).await.unwrap();
    until("every agent is connected", async || {
        let summary = admin.fleet().get_fleet_summary(v1::GetFleetSummaryRequest {}).await;
        let connected = summary.map_err(|status| status.to_string())?.into_inner().connected_hosts;
        let logs: Vec<_> = fleet.agents.iter_mut().map(|agent| tail(&agent.process().output())).collect();
        check(connected == 6, format!("{connected} connected\n{}", logs.join("\n---\n")))
    })
    .await;
    let log = fleet.settle().await;
    let of_agents = Fleet::of_agents(&log, &steady, agents);
    let reports: usize = of_agents.iter().sum();
    // Nearly every life is long enough to say that it began.
    assert!(reports as u64 > kills / 2, "hardly anything was reported: {of_agents:?} reports in {kills} lives");
    eprintln!(
        "{kills} kills of agents in {:.0?}: {reports} reports of {agents} agents, none lost or double",
        start.elapsed()
    );
}
