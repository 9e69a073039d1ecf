//! The running agent and `fim rebaseline`, killed at random moments: what the collector was told of one file that changes.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use muster_proto::{
    fact::{Fact, FileIntegrity, Reading},
    report::{Body, Report},
    v1,
};
use muster_tests::{
    evidence::Evidence,
    harness::{Folder, agent::Agent, check, collector::Collector, program, random::Random, setting, until},
    integrity::tree,
    load::{Admin, Identity},
};

const MILLI: Duration = Duration::from_millis(1);

struct Host {
    collector: Collector,
    admin: Admin,
    log_key: String,
    id: String,
    agent: Agent,
    tree: PathBuf,
    _folder: Folder,
}

impl Host {
    async fn start() -> Self {
        let folder = Folder::new();
        let tree = folder.join("tree");
        fs::create_dir(&tree).unwrap();
        tree::generate(&tree, 4000).unwrap();
        let collector = Collector::started();
        let admin = Admin::connect(&collector.target(), &collector.data().join("admin.pem")).await.unwrap();
        let token = admin.token(1).await.unwrap().secret;
        let log_key = Identity::enroll(&collector.target(), &token, "a stranger").await.unwrap().log_key;
        let settings = format!(
            "attestation_interval = \"10s\"\njitter = 0.0\n[intervals]\nfile_integrity = \"10s\"\n[probes]\nwatched_paths = [{:?}]\n",
            tree.display().to_string()
        );
        let mut agent = Agent::of(&collector, &settings);
        agent.start();
        let mut host = Self { collector, admin, log_key, id: String::new(), agent, tree, _folder: folder };
        host.id = until("the first baseline is reported", async || host.reporting().await).await;
        host
    }

    /// Returns the id of the host that has said how its files are.
    async fn reporting(&self) -> Result<String, String> {
        let hosts = self.admin.fleet().list_hosts(v1::ListHostsRequest::default()).await;
        for host in hosts.map_err(|status| status.to_string())?.into_inner().hosts {
            let host = self.admin.host(&host.id).await.map_err(|status| status.to_string())?;
            if let Some(id) = host.host.filter(|_| host.facts.iter().any(|fact| fact.subject == "file_integrity")) {
                return Ok(id.id);
            }
        }
        Err("no host".to_owned())
    }

    async fn state(&self) -> Result<FileIntegrity, String> {
        let facts = self.admin.host(&self.id).await.map_err(|status| status.to_string())?.facts;
        let fact = facts.into_iter().find(|fact| fact.subject == "file_integrity").ok_or("no such fact")?;
        match Fact::decode(&fact.fact).unwrap() {
            Fact::FileIntegrity(Reading::Known(state)) => Ok(state),
            other => Err(format!("{other:?}")),
        }
    }

    /// Kills the agent after a while, and starts it again.
    async fn kill(&mut self, random: &mut Random) {
        let pause = if random.below(4) > 0 {
            random.duration(5 * MILLI, 400 * MILLI)
        } else {
            random.duration(MILLI, 20 * MILLI)
        };
        tokio::time::sleep(pause).await;
        self.agent.kill();
        self.agent.start();
    }

    /// Takes the baseline afresh by the command, beside the running agent, and kills that after a while. Returns whether it
    /// was in time.
    fn kill_rebaseline(&self, random: &mut Random, usual: Duration) -> bool {
        let mut child = self.rebaseline().spawn().unwrap();
        std::thread::sleep(random.duration(Duration::ZERO, usual));
        let _ = child.kill();
        child.wait().unwrap().code().is_none()
    }

    fn rebaseline(&self) -> Command {
        let mut command = Command::new(program("test-agent"));
        command
            .args(["fim", "rebaseline", "--reason", "because", "--config"])
            .arg(self.agent.folder().join("agent.toml"));
        command.arg("--state").arg(self.agent.state()).stdout(Stdio::null());
        command
    }

    fn changed_file(&self) -> PathBuf {
        self.tree.join("library-0000/package-000007/module-016.so")
    }

    /// Stops everything, and returns what the agent ever said of its files.
    fn settle(mut self) -> Vec<FileIntegrity> {
        // One that was started a moment ago does not listen to a request to stop yet.
        self.agent.kill();
        self.collector.stop(Duration::from_secs(20));
        said(&self.collector.evidence(&self.log_key))
    }
}

/// Returns every state of files that a report in the log holds. Anything but a known state is a failure.
fn said(log: &Evidence) -> Vec<FileIntegrity> {
    let mut said = Vec::new();
    for entry in log.decoded().unwrap() {
        let Some(v1::log_entry::Entry::Report(admitted)) = entry.entry else { continue };
        let Body::Facts(facts) = Report::decode(&admitted.sealed.unwrap().report).unwrap().body else { continue };
        for subject in facts.subjects {
            match Fact::decode(&subject.fact).unwrap() {
                Fact::FileIntegrity(Reading::Known(state)) => said.push(state),
                Fact::FileIntegrity(unknown) => panic!("the agent lost sight of its files: {unknown:?}"),
                _ => {}
            }
        }
    }
    said
}

fn paths(state: &FileIntegrity) -> BTreeSet<&str> {
    state.changes.iter().map(|change| change.path.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_keeps_its_baseline_and_reports_no_false_change() {
    let mut random = Random::printed("a killed agent and its baseline");
    let (kills, start) = (setting("MUSTER_TEST_KILLS", 40), Instant::now());
    let mut host = Host::start().await;
    let first = host.state().await.unwrap().baseline;
    for _ in 0..kills / 2 {
        host.kill(&mut random).await;
    }
    // One file differs from here on.
    fs::write(host.changed_file(), "changed").unwrap();
    for _ in kills / 2..kills {
        host.kill(&mut random).await;
    }
    until("the change is reported", async || {
        let state = host.state().await?;
        check(state.changes_total == 1, format!("{} changes", state.changes_total))
    })
    .await;
    assert_eq!(host.state().await.unwrap().baseline, first, "the baseline is another one");

    let usual = Instant::now();
    let mut in_time = 0;
    // The first one goes through, so that its time is known, and every state from here on is of that or a later one.
    assert!(host.rebaseline().status().unwrap().success());
    let usual = usual.elapsed();
    for _ in 0..kills.div_ceil(4) {
        in_time += u64::from(host.kill_rebaseline(&mut random, usual));
        if random.below(3) == 0 {
            host.kill(&mut random).await;
        }
    }
    until("the change is forgiven", async || {
        let state = host.state().await?;
        let is_so = state.changes_total == 0 && state.baseline.id != first.id;
        check(is_so, format!("{} changes, baseline {}", state.changes_total, state.baseline.reason))
    })
    .await;
    let changed = host.changed_file();
    let said = host.settle();
    check_said(&said, &changed, first.id.as_str());
    eprintln!(
        "{kills} kills of the agent and {in_time} of rebaselines in {:.0?}: {} states were reported, no baseline was lost, no change was false",
        start.elapsed(),
        said.len()
    );
}

/// Checks that no state says more than the one change, or has another number of entries.
fn check_said(said: &[FileIntegrity], changed: &Path, first: &str) {
    let changed = changed.to_str().unwrap();
    for state in said {
        assert_eq!((state.entries, state.unreadable_total), (4000, 0), "{state:?}");
        assert!(paths(state).is_subset(&[changed].into()), "false changes: {:?}", paths(state));
        assert_eq!(state.changes_total + state.explained_total, paths(state).len() as u64, "{state:?}");
        let is_later = state.baseline.id.as_str() != first;
        assert_eq!(
            is_later,
            state.baseline.reason.as_str() == "because",
            "a baseline that nobody asked for: {state:?}"
        );
        assert_eq!(state.baseline.entries, 4000, "a baseline that is not whole: {state:?}");
    }
}
