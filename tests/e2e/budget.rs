//! A check that takes too long says so itself, and takes nothing from the others.
//!
//! Root only; elsewhere each test says that it was left out, and why.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::time::Duration;

use muster_proto::{
    fact::{Cause, Fact, Reading},
    v1,
};
use muster_tests::{
    harness::{
        agent::{Agent, private_mounts},
        check,
        collector::Collector,
        left_out, until,
    },
    load::Admin,
};

/// A file system whose every answer is waited for: of a FUSE server that never reads what it is asked. The shell's descriptor
/// is the agent's too, and with its end the file system ends.
const HUNG: &str =
    "exec 9<>/dev/fuse && mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 hung /var/lib/apt/lists";

/// A tool that never ends in the place of one that probes run, on a host that has automatic updates installed.
const HUNG_TOOL: &str = "mount -t tmpfs none /var/lib/dpkg && cd /var/lib/dpkg && \
    printf 'Package: unattended-upgrades\nStatus: install ok installed\nVersion: 2\nArchitecture: all\n\n' >status && \
    printf '#!/bin/sh\nexec sleep 1000\n' >tool && chmod 755 tool && mount --bind tool /usr/bin/apt-config && cd /";

/// A look may take a second, and each is taken again as soon as may be.
const SETTINGS: &str = "attestation_interval = \"10s\"\njitter = 0.0\n\
    [intervals]\nsystem = \"10s\"\nfirewall = \"10s\"\npatch_level = \"10s\"\nfile_integrity = \"10s\"\ndisk_encryption = \"10s\"\n\
    [probes]\nwatched_paths = [\"/etc/apt\"]\nlook_seconds = 1\n";

/// Subjects of other probes, which read nothing of what hangs here.
const OTHERS: [&str; 4] = ["disk_encryption", "file_integrity", "firewall", "system"];

struct Host {
    _collector: Collector,
    admin: Admin,
    agent: Agent,
}

impl Host {
    /// Starts an agent on a host that `script` prepares; `None` where that is not possible.
    async fn with(purpose: &str, script: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            left_out(purpose, "needs root");
            return None;
        }
        let tried = private_mounts(script).output().unwrap();
        if !tried.status.success() {
            left_out(purpose, String::from_utf8_lossy(&tried.stderr).trim());
            return None;
        }
        let collector = Collector::started();
        let admin = Admin::connect(&collector.target(), &collector.data().join("admin.pem")).await.unwrap();
        let mut agent = Agent::of(&collector, SETTINGS);
        agent.prepared(script);
        agent.start();
        Some(Self { _collector: collector, admin, agent })
    }

    async fn facts(&self) -> Result<Vec<v1::HostFact>, String> {
        let hosts = self.admin.fleet().list_hosts(v1::ListHostsRequest::default()).await;
        let hosts = hosts.map_err(|status| status.to_string())?.into_inner().hosts;
        let host = hosts.into_iter().next().ok_or("no host yet")?;
        Ok(self.admin.host(&host.id).await.map_err(|status| status.to_string())?.facts)
    }

    async fn fact(&self, subject: &str) -> Result<Fact, String> {
        let facts = self.facts().await?;
        let fact = facts.into_iter().find(|fact| fact.subject == subject).ok_or(format!("no {subject} yet"))?;
        Ok(Fact::decode(&fact.fact).unwrap())
    }

    /// Waits until the other probes have looked, and have looked again.
    async fn others_go_on(&self) {
        until("the other probes look again and again", async || {
            let facts = self.facts().await?;
            let seconds = |time: &Option<prost_types::Timestamp>| time.as_ref().map_or(0, |time| time.seconds);
            let goes_on = |subject: &&str| {
                let fact = facts.iter().find(|fact| fact.subject == **subject);
                fact.is_some_and(|fact| seconds(&fact.confirmed_time) > seconds(&fact.observed_time) + 5)
            };
            let waits: Vec<_> = OTHERS.iter().filter(|subject| !goes_on(subject)).collect();
            check(waits.is_empty(), format!("{waits:?}"))
        })
        .await;
        for subject in OTHERS {
            let fact = self.fact(subject).await.unwrap();
            let json = serde_json::to_value(&fact).unwrap();
            let cause = json["state"]["unknown"]["cause"].as_str();
            assert_ne!(cause, Some("timed_out"), "{subject}: {json}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_never_ends_is_timed_out_and_the_others_go_on() {
    let Some(mut host) = Host::with("a check that never ends", HUNG).await else { return };
    for subject in ["patch_level", "software"] {
        until(&format!("{subject} is unknown because its time was over"), async || {
            let fact = serde_json::to_value(host.fact(subject).await?).unwrap();
            check(fact["state"]["unknown"]["cause"] == "timed_out", fact)
        })
        .await;
    }
    host.others_go_on().await;
    host.agent.stop(Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_never_ends_takes_what_only_it_tells() {
    let Some(mut host) = Host::with("a tool that never ends", HUNG_TOOL).await else { return };
    until("software is known, and what apt-config alone tells is not", async || {
        let Fact::Software(Reading::Known(_)) = host.fact("software").await? else { return Err("no software".into()) };
        let Fact::PatchLevel(Reading::Known(state)) = host.fact("patch_level").await? else {
            return Err("no patch level".to_owned());
        };
        let enabled = match &state.automatic_updates.enabled {
            Reading::Unknown { unknown } => unknown.cause,
            Reading::Known(enabled) => return Err(format!("{enabled}")),
        };
        check(enabled == Cause::TimedOut, format!("{enabled:?}"))
    })
    .await;
    host.others_go_on().await;
    host.agent.stop(Duration::from_secs(10));
}
