//! Forks, clones, replays and the reports of others.

use std::time::Duration;

use muster_proto::{
    report::Body,
    v1::{HostState, RejectionReason as Reason},
};
use muster_tests::{
    harness::{
        agent::{Agent, FAST},
        check, now,
        scene::Scene,
        until,
    },
    load::{Chain, Event, Session, session::reason},
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_report_is_kept_once() {
    let mut scene = Scene::set("replays").await;
    let identity = scene.enroll("replayer").await;
    let mut chain = Chain::begin(identity.id, &mut scene.random, now());
    let mut session = Session::open(&identity, &chain, &[]).await.unwrap();
    let mut sent = Vec::new();
    for _ in 0..20 {
        let body = chain.usual(now());
        sent.push(chain.seal(&identity.keys.evidence, body, now()));
        session.send(sent[sent.len() - 1].clone()).await;
    }
    session.durable_through(20).await.unwrap();
    for sealed in sent.iter().chain(&sent).rev() {
        session.send(sealed.clone()).await;
    }
    // All on a stream of its own too, from the beginning.
    let mut again =
        Session::open(&identity, &chain, &session.welcome.session_nonce.clone()).await.expect("it may come again");
    assert_eq!(again.welcome.durable_through_sequence, 20);
    for sealed in &sent {
        again.send(sealed.clone()).await;
    }
    let body = chain.usual(now());
    again.send(chain.seal(&identity.keys.evidence, body, now())).await;
    again.durable_through(21).await.unwrap();

    let log = scene.end().await;
    let chains = log.chains().unwrap();
    muster_tests::evidence::check_chains(&chains).unwrap();
    assert_eq!(chains[&(identity.id, chain.epoch)].len(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_report_of_another_agent_is_refused() {
    let mut scene = Scene::set("reports of others").await;
    let (victim, thief) = (scene.enroll("victim").await, scene.enroll("thief").await);
    let mut of_victim = Chain::begin(victim.id, &mut scene.random, now());
    let body = of_victim.epoch_started();
    let stolen = of_victim.seal(&victim.keys.evidence, body, now());

    // The report as it was stolen; then the victim's name under the thief's signature; then the victim's epoch as the thief's own.
    let own = Chain { agent: thief.id, ..Chain::begin(victim.id, &mut scene.random, now()) };
    let mut session = Session::open(&thief, &own, &[]).await.unwrap();
    session.send(stolen.clone()).await;
    assert_eq!(session.rejection().await.unwrap().reason(), Reason::ForeignAgent);
    let mut forged = own.clone();
    forged.agent = victim.id;
    let body = forged.epoch_started();
    session.send(forged.seal(&thief.keys.evidence, body, now())).await;
    assert_eq!(session.rejection().await.unwrap().reason(), Reason::ForeignAgent);

    // The victim is none the worse.
    let mut session =
        Session::open(&victim, &Chain { next: muster_proto::id::ReportSeq::FIRST, head: None, ..of_victim }, &[])
            .await
            .unwrap();
    session.send(stolen).await;
    session.durable_through(1).await.unwrap();
    let log = scene.end().await;
    assert!(!log.chains().unwrap().keys().any(|(agent, _)| *agent == thief.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_is_kept_as_a_conflict_and_freezes_the_identity_until_an_operator_decides() {
    let mut scene = Scene::set("a fork").await;
    let identity = scene.enroll("forked").await;
    let key = &identity.keys.evidence;
    let mut chain = Chain::begin(identity.id, &mut scene.random, now());
    let mut session = Session::open(&identity, &chain, &[]).await.unwrap();
    let body = chain.epoch_started();
    session.send(chain.seal(key, body, now())).await;
    let before = chain.clone();
    let body = chain.usual(now());
    session.send(chain.seal(key, body, now())).await;
    session.durable_through(2).await.unwrap();

    let mut other = before.clone();
    // The same place, a moment later: another digest.
    let body = other.usual(now());
    let contradicting = other.seal(key, body, now());
    session.send(contradicting.clone()).await;
    let rejection = session.rejection().await.unwrap();
    assert_eq!(rejection.reason(), Reason::Conflict, "{rejection:?}");

    let id = identity.id.to_string();
    becomes(&scene, &id, HostState::Frozen).await;
    let refused = Session::open(&identity, &chain, &session.welcome.session_nonce.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::PermissionDenied, "AGENT_FROZEN".to_owned()));
    let body = chain.usual(now());
    let third = chain.seal(key, body, now());
    session.send(third.clone()).await;
    // Whether its old stream ends or refuses, nothing of it is taken.
    loop {
        match session.next().await.unwrap() {
            Event::Durable(durable) => assert!(durable.through_sequence < 3, "a frozen agent's report is durable"),
            Event::Directive(_) => {}
            Event::Rejection(_) | Event::End(_) => break,
        }
    }

    let request = muster_proto::v1::ResolveConflictRequest { host: id, reason: "it was a test".to_owned() };
    scene.admin.changes().resolve_conflict(request).await.unwrap();
    let mut session = Session::open(&identity, &chain, &session.welcome.session_nonce.clone())
        .await
        .expect("an operator has decided");
    assert_eq!(session.welcome.durable_through_sequence, 2);
    session.send(third).await;
    session.durable_through(3).await.unwrap();

    let log = scene.end().await;
    let conflicts = log.conflicts().unwrap();
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert_eq!((conflicts[0].kind.as_str(), conflicts[0].contradicting.as_ref()), ("fork", Some(&contradicting)));
    let standing = usize::try_from(conflicts[0].standing_index).unwrap();
    let entries = log.decoded().unwrap();
    let Some(muster_proto::v1::log_entry::Entry::Report(standing)) = &entries[standing].entry else {
        panic!("the conflict does not name a report: {conflicts:?}")
    };
    let standing = muster_proto::report::Report::decode(&standing.sealed.as_ref().unwrap().report).unwrap();
    assert_eq!((standing.agent, standing.seq.number()), (identity.id, 2));
    assert!(matches!(standing.body, Body::Attestation(_)), "the report that stood is the one that stands");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_epoch_needs_no_permission_and_leaves_the_first_as_it_is() {
    let mut scene = Scene::set("epochs").await;
    let identity = scene.enroll("two epochs").await;
    let mut nonce = Vec::new();
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let mut chain = Chain::begin(identity.id, &mut scene.random, now());
        let mut session = Session::open(&identity, &chain, &nonce).await.unwrap();
        assert_eq!(session.welcome.durable_through_sequence, 0);
        for _ in 0..5 {
            let body = chain.usual(now());
            session.send(chain.seal(&identity.keys.evidence, body, now())).await;
        }
        session.durable_through(5).await.unwrap();
        nonce.clone_from(&session.welcome.session_nonce);
        epochs.push(chain.epoch);
    }
    let chains = scene.end().await.chains().unwrap();
    muster_tests::evidence::check_chains(&chains).unwrap();
    for epoch in epochs {
        assert_eq!(chains[&(identity.id, epoch)].len(), 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_state_folder_that_was_overtaken_is_found_out_at_once() {
    let scene = Scene::set("an overtaken copy").await;
    let (mut original, id) = reporting(&scene).await;
    let mut copy = original.copied();
    // Each session shows the nonce of the one before; the copy's is then two sessions old.
    for _ in 0..2 {
        let before = kept_nonce(&original);
        original.start();
        until("a session of its own", async || {
            let nonce = kept_nonce(&original);
            check(nonce != before, format!("still the nonce {nonce}"))
        })
        .await;
        original.stop(Duration::from_secs(30));
    }
    copy.start();
    becomes(&scene, &id, HostState::Frozen).await;
    drop(copy);
    let conflicts = scene.end().await.conflicts().unwrap();
    assert_eq!(conflicts.iter().map(|conflict| conflict.kind.as_str()).collect::<Vec<_>>(), ["nonce"]);
    assert_eq!(hex_of(&conflicts[0].agent_id), id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_state_folder_is_found_out_when_both_hosts_report() {
    let scene = Scene::set("two of one").await;
    let (mut original, id) = reporting(&scene).await;
    let mut copy = original.copied();
    copy.start();
    let before = sequence(&scene, &id).await;
    until_further(&scene, &id, before).await;
    original.start();
    becomes(&scene, &id, HostState::Frozen).await;
    drop((original, copy));
    let conflicts = scene.end().await.conflicts().unwrap();
    assert!(
        !conflicts.is_empty() && conflicts.iter().all(|conflict| hex_of(&conflict.agent_id) == id),
        "{conflicts:?}"
    );
}

/// Returns a real agent that has reported and was stopped, and its id.
async fn reporting(scene: &Scene) -> (Agent, String) {
    let mut agent = Agent::of(&scene.collector, FAST);
    agent.start();
    let id = until("a real agent enrols and reports", async || {
        let hosts = scene.admin.fleet().list_hosts(muster_proto::v1::ListHostsRequest::default()).await;
        let hosts = hosts.map_err(|status| status.to_string())?.into_inner().hosts;
        let reporting = hosts.into_iter().find(|host| host.hostname != "honest" && host.sequence > 1);
        reporting.map(|host| host.id).ok_or_else(|| agent.process().output())
    })
    .await;
    agent.stop(Duration::from_secs(30));
    (agent, id)
}

/// Returns the nonce of the last session that the agent was welcomed to. What the collector's views say of an agent may still
/// be of the session before, so that its own state is asked.
fn kept_nonce(agent: &Agent) -> String {
    let state = std::fs::read(agent.state().join("spool/state.json")).unwrap();
    muster_agent::spool::State::decode(&state).unwrap().session_nonce
}

async fn sequence(scene: &Scene, id: &str) -> u64 {
    scene.admin.host(id).await.unwrap().host.unwrap_or_default().sequence
}

/// Waits until the agent's sequence is not `before` any more: it goes on, or begins an epoch.
async fn until_further(scene: &Scene, id: &str, before: u64) {
    until("the agent reports further", async || {
        let sequence =
            scene.admin.host(id).await.map_err(|status| status.to_string())?.host.unwrap_or_default().sequence;
        check(sequence != before, sequence.to_string())
    })
    .await;
}

async fn becomes(scene: &Scene, id: &str, state: HostState) {
    until("the identity is frozen", async || {
        let host = scene.admin.host(id).await.map_err(|status| status.to_string())?.host.unwrap_or_default();
        check(host.state() == state, format!("{host:?}"))
    })
    .await;
}

fn hex_of(id: &[u8]) -> String {
    muster_proto::id::AgentId::from_slice(id).unwrap().to_string()
}
