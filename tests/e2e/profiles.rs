//! Watch sets that an operator writes for a fleet: from the collector's file to what a real agent watches and reports.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::{fs, time::Duration};

use muster_proto::{
    fact::{Fact, FileIntegrity, Reading},
    v1,
    watch_set::WatchSet,
};
use muster_tests::{
    harness::{Folder, agent::Agent, check, collector::Collector, until},
    load::Admin,
};

/// Returns what the collector has of the one host: its profile's revision, and its file integrity once that is known.
async fn host(admin: &Admin) -> Result<(u64, FileIntegrity), String> {
    let said = |status: tonic::Status| status.to_string();
    let hosts = admin.fleet().list_hosts(v1::ListHostsRequest::default()).await.map_err(said)?.into_inner().hosts;
    let [host] = &hosts[..] else { return Err(format!("{} hosts", hosts.len())) };
    let facts = admin.host(&host.id).await.map_err(|error| error.to_string())?.facts;
    let fact = facts.iter().find(|fact| fact.subject == "file_integrity").ok_or("no fact of file integrity yet")?;
    match Fact::decode(&fact.fact) {
        Ok(Fact::FileIntegrity(Reading::Known(state))) => Ok((host.profile_revision, state)),
        other => Err(format!("{other:?}")),
    }
}

async fn connect(collector: &Collector) -> Admin {
    Admin::connect(&collector.target(), &collector.data().join("admin.pem")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_sets_of_a_profile_replace_the_agents_own_and_forgive_nothing() {
    let watched = Folder::new();
    for folder in ["own", "fleet"] {
        fs::create_dir(watched.join(folder)).unwrap();
        fs::write(watched.join(folder).join("file"), "as it was").unwrap();
    }
    let settings = format!(
        "attestation_interval = \"10s\"\njitter = 0.0\n[intervals]\nsystem = \"10s\"\nfile_integrity = \"10s\"\n\
         [probes]\nwatched_paths = [\"{}\"]\n",
        watched.join("own").display()
    );
    let mut collector = Collector::started();
    let mut agent = Agent::of(&collector, &settings);
    agent.start();
    let admin = connect(&collector).await;
    until("the agent's own set is watched", async || {
        let (revision, state) = host(&admin).await?;
        let names: Vec<_> = state.sets.iter().map(|set| set.name.as_str()).collect();
        check((revision, &names[..], state.changes_total) == (0, &["paths"][..], 0), format!("{revision} {state:?}"))
    })
    .await;
    fs::write(watched.join("own/file"), "as somebody made it").unwrap();
    until("the change is reported", async || {
        let (_, state) = host(&admin).await?;
        check(state.changes_total >= 1, format!("{state:?}"))
    })
    .await;

    // The fleet's set covers more than the agent's own, and leaves something out.
    let below = watched.path().to_str().unwrap().trim_start_matches('/');
    let set = format!(
        "name = \"fleet\"\npaths = [\"{}\"]\nexclude = [\"{below}/*/cache\"]\nseverity = \"critical\"\nowner = \"web team\"\n",
        watched.path().display()
    );
    let definition: WatchSet = toml::from_str(&set).unwrap();
    let profiles = format!("revision = 7\n[[profile]]\n[[profile.watch_sets]]\n{set}");
    fs::write(collector.data().join("profiles.toml"), profiles).unwrap();
    collector.settings.push(("MUSTER_PROFILES", "profiles.toml".to_owned()));
    collector.stop(Duration::from_secs(30));
    collector.start();
    let admin = connect(&collector).await;
    let state = until("the fleet's set is watched", async || {
        let (revision, state) = host(&admin).await?;
        let is_in_force = revision == 7 && state.sets.iter().any(|set| set.name.as_str() == "fleet");
        if is_in_force { Ok(state) } else { Err(format!("{revision} {state:?}\n{}", agent.process().output())) }
    })
    .await;
    let [reported] = &state.sets[..] else { panic!("{:?}", state.sets) };
    assert_eq!(reported.digest.as_str(), definition.digest().to_string(), "it is the set that the operator wrote");
    assert_eq!((reported.severity, reported.owner.as_str()), (definition.severity, "web team"));
    // Both folders, their files and the folder that holds them.
    assert_eq!(reported.entries, 5);
    let changed: Vec<_> = state.changes.iter().map(|change| change.path.to_string()).collect();
    assert!(changed.contains(&watched.join("own/file").display().to_string()), "the change is forgiven: {changed:?}");

    fs::create_dir(watched.join("fleet/cache")).unwrap();
    fs::write(watched.join("fleet/cache/file"), "passing").unwrap();
    fs::write(watched.join("fleet/file"), "as somebody made it").unwrap();
    let file = watched.join("fleet/file").display().to_string();
    let state = until("a change in the fleet's set is reported", async || {
        let (_, state) = host(&admin).await?;
        check(state.changes.iter().any(|change| change.path.as_str() == file), format!("{state:?}")).map(|()| state)
    })
    .await;
    let cache = watched.join("fleet/cache").display().to_string();
    assert!(state.changes.iter().all(|change| !change.path.as_str().starts_with(&cache)), "{:?}", state.changes);
    let id = admin.fleet().list_hosts(v1::ListHostsRequest::default()).await.unwrap().into_inner().hosts[0].id.clone();
    let shown = collector.ctl().text(&["hosts", "show", &id]);
    assert!(shown.contains("revision 7"), "{shown}");
    agent.stop(Duration::from_secs(30));
    collector.stop(Duration::from_secs(30));
}
