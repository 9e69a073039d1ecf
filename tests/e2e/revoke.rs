//! Ends: of an agent, of a credential, of the collector; and of a snapshot that somebody changed.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::time::{Duration, Instant};

use muster_proto::v1::{self, watch_verdicts_response::Event as Watched};
use muster_tests::{
    harness::{
        agent::{Agent, FAST},
        check, now,
        random::Random,
        scene::Scene,
        until,
    },
    load::{Admin, Chain, Session, session::reason},
};
use tokio::io::AsyncWriteExt as _;
use tonic::Code;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_agent_is_cut_off_within_a_second() {
    let mut scene = Scene::set("a revoked agent").await;
    let identity = scene.enroll("revoked").await;
    let mut chain = Chain::begin(identity.id, &mut scene.random, now());
    let mut session = Session::open(&identity, &chain, &[]).await.unwrap();
    let body = chain.epoch_started();
    session.send(chain.seal(&identity.keys.evidence, body, now())).await;
    session.durable_through(1).await.unwrap();

    let start = Instant::now();
    let request = v1::RevokeAgentRequest { host: identity.id.to_string(), reason: "lost laptop".to_owned() };
    scene.admin.changes().revoke_agent(request.clone()).await.unwrap();
    let status = session.end(SECOND.saturating_sub(start.elapsed())).await.expect("the stream ends");
    assert_eq!(reason(&status.expect("with a status")), (Code::PermissionDenied, "AGENT_REVOKED".to_owned()));
    eprintln!("the stream ended {:.0?} after the request to revoke", start.elapsed());

    // Twice is once, and there is no way back in: neither with the certificate nor by rejoining.
    scene.admin.changes().revoke_agent(request).await.unwrap();
    let id = identity.id.to_string();
    let again = scene.collector.ctl().json(&["hosts", "revoke", &id[..12], "--reason", "lost laptop"]);
    assert_eq!(again, serde_json::json!({ "host_id": id, "state": "revoked" }));
    assert!(Session::open(&identity, &chain, &session.welcome.session_nonce.clone()).await.is_err());
    let mut client = muster_tests::load::identity::enrollment(&scene.target).await.unwrap();
    let refused = client.rejoin_agent(identity.rejoin_request()).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::PermissionDenied, "AGENT_REVOKED".to_owned()));
    let host = scene.admin.host(&identity.id.to_string()).await.unwrap().host.unwrap();
    assert_eq!(host.state(), v1::HostState::Revoked);

    // A restart changes nothing about it.
    scene.collector.kill();
    scene.collector.start();
    assert!(Session::open(&identity, &chain, &[]).await.is_err());
    let log = scene.end().await;
    let revoked = log.decoded().unwrap().into_iter().filter(|entry| {
        matches!(
            &entry.entry,
            Some(v1::log_entry::Entry::Act(v1::Act { act: Some(v1::act::Act::AgentRevoked(_)), .. }))
        )
    });
    assert!(revoked.count() >= 1, "the act is in the log");
    assert_eq!(log.chains().unwrap()[&(identity.id, chain.epoch)].len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_credential_is_cut_off_within_a_second() {
    let scene = Scene::set("a revoked credential").await;
    let file = scene.collector.folder().join("viewer.pem");
    let path = file.display().to_string();
    scene.collector.ctl().text(&["credentials", "create", "--role", "viewer", "--name", "eve", "--out", &path]);
    let viewer = Admin::connect(&scene.target, &file).await.unwrap();
    let listed = scene.admin.changes().list_credentials(v1::ListCredentialsRequest::default()).await.unwrap();
    let credential = listed.into_inner().credentials.into_iter().find(|credential| credential.name == "eve").unwrap();

    // What the role does not allow is refused with an open connection, too.
    assert_eq!(viewer.token(1).await.unwrap_err().code(), Code::PermissionDenied);
    let mut watch =
        viewer.fleet().watch_verdicts(v1::WatchVerdictsRequest { send_initial: true }).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());

    let start = Instant::now();
    let request = v1::RevokeCredentialRequest { serial: credential.serial, reason: "left".to_owned() };
    scene.admin.changes().revoke_credential(request).await.unwrap();
    let until_end = async { while let Ok(Some(_)) = watch.message().await {} };
    let limit = SECOND.saturating_sub(start.elapsed());
    tokio::time::timeout(limit, until_end).await.expect("the stream ends within a second");
    eprintln!("the stream ended {:.0?} after the request to revoke", start.elapsed());
    assert!(viewer.fleet().list_hosts(v1::ListHostsRequest::default()).await.is_err());
    assert!(!scene.collector.ctl_with(&file).run(&["hosts", "list"]).status.success());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_admin_cannot_lock_everyone_out() {
    let scene = Scene::set("the last admin").await;
    let listed = scene.admin.changes().list_credentials(v1::ListCredentialsRequest::default()).await.unwrap();
    let admin = listed.into_inner().credentials.into_iter().find(|credential| credential.role == "admin").unwrap();
    let request = v1::RevokeCredentialRequest { serial: admin.serial, reason: "by mistake".to_owned() };
    let refused = scene.admin.changes().revoke_credential(request).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "LAST_ADMIN".to_owned()));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_asked_to_stop_does_so_within_five_seconds_whatever_its_clients_do() {
    let mut scene = Scene::set("stopping").await;
    let identity = scene.enroll("hung").await;
    let chain = Chain::begin(identity.id, &mut scene.random, now());
    let address = scene.target.address;
    // Connections that say nothing, ones that stop inside TLS, ones that stop inside HTTP/2, streams that nobody reads.
    let mut hung = Vec::new();
    let mut hung_tls = Vec::new();
    for n in 0..40 {
        let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        if n % 2 == 0 {
            tcp.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        }
        hung.push(tcp);
        let mut tls = scene.target.connect(identity.tls()).await.unwrap();
        if n % 2 == 0 {
            tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            tls.flush().await.unwrap();
        }
        hung_tls.push(tls);
    }
    let session = Session::open(&identity, &chain, &[]).await.unwrap();
    let watch = scene.admin.fleet().watch_verdicts(v1::WatchVerdictsRequest { send_initial: true }).await.unwrap();
    let mut agent = Agent::of(&scene.collector, FAST);
    agent.start();
    let elapsed = scene.collector.stop(Duration::from_secs(5));
    eprintln!("stopped after {elapsed:.0?}");
    drop((hung, hung_tls, session, watch));

    scene.collector.start();
    agent.stop(Duration::from_secs(30));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_verifies_offline_and_every_changed_byte_is_found() {
    let mut scene = Scene::set("a snapshot").await;
    let mut agent = Agent::of(&scene.collector, FAST);
    agent.start();
    until("a real host is judged", async || {
        let request = v1::ListHostsRequest { filter: "hostname != \"honest\"".to_owned(), ..Default::default() };
        let hosts = scene.admin.fleet().list_hosts(request).await.map_err(|status| status.to_string())?.into_inner();
        let id = hosts.hosts.first().map(|host| host.id.clone()).ok_or("no host")?;
        let verdicts = scene.admin.host(&id).await.map_err(|status| status.to_string())?.verdicts;
        let judged = verdicts.iter().filter(|verdict| verdict.verdict() != v1::Verdict::NoData).count();
        check(judged > 3, format!("{judged} verdicts"))
    })
    .await;
    let ctl = scene.collector.ctl();
    let file = scene.collector.folder().join("snapshot.zip");
    let path = file.display().to_string();
    ctl.text(&["snapshot", "create", "--out", &path]);
    agent.stop(Duration::from_secs(10));

    // No collector is needed, nor anything else but the file.
    let verify = |path: &std::path::Path| {
        std::process::Command::new(muster_tests::harness::program("test-musterctl"))
            .env_clear()
            .args(["verify".as_ref(), path.as_os_str()])
            .output()
            .unwrap()
    };
    let good = verify(&file);
    assert!(
        good.status.success(),
        "{}{}",
        String::from_utf8_lossy(&good.stdout),
        String::from_utf8_lossy(&good.stderr)
    );

    let bytes = std::fs::read(&file).unwrap();
    let mut random = Random::of(scene.random.number());
    let changed = scene.collector.folder().join("changed.zip");
    let samples = muster_tests::harness::setting("MUSTER_TEST_FLIPS", 150);
    for n in 0..samples {
        let mut copy = bytes.clone();
        // Spread over the whole file, so that each part of it is met.
        let at = usize::try_from(n * bytes.len() as u64 / samples).unwrap()
            + random.index(bytes.len() / usize::try_from(samples).unwrap());
        copy[at] ^= 1 << random.below(8);
        std::fs::write(&changed, &copy).unwrap();
        let answer = verify(&changed);
        assert_eq!(
            answer.status.code(),
            Some(1),
            "byte {at} of {} was changed:\n{}",
            bytes.len(),
            String::from_utf8_lossy(&answer.stdout)
        );
    }
    for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&changed, &bytes[..len]).unwrap();
        assert_eq!(verify(&changed).status.code(), Some(1), "cut to {len} bytes");
    }
    std::fs::write(&changed, [bytes.as_slice(), b"x"].concat()).unwrap();
    assert_eq!(verify(&changed).status.code(), Some(1), "with a byte more");

    // The same snapshot again gives the same bytes, although the log has grown.
    let listed = ctl.json(&["snapshot", "list"]);
    let first = listed.as_array().and_then(|all| all.first()).unwrap_or(&listed).clone();
    let size = first["log_size"].as_u64().or_else(|| first["log_size"].as_str().and_then(|text| text.parse().ok()));
    let instant = first["as_of_time"].as_str().expect("an instant").to_owned();
    scene.honest_goes_on().await;
    let again = scene.collector.folder().join("again.zip");
    let size = size.expect("a log size").to_string();
    let again_path = again.display().to_string();
    ctl.text(&["snapshot", "create", "--as-of", &instant, "--log-size", &size, "--out", &again_path]);
    assert!(std::fs::read(&again).unwrap() == bytes, "the same snapshot has other bytes");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_what_changes_and_heartbeats() {
    let scene = Scene::set("a watcher").await;
    let request = v1::WatchVerdictsRequest { send_initial: true };
    let mut watch = scene.admin.fleet().watch_verdicts(request).await.unwrap().into_inner();
    let first_heartbeat = async {
        loop {
            match watch.message().await.unwrap().and_then(|answer| answer.event) {
                Some(Watched::Change(change)) => assert!(change.initial, "{change:?}"),
                Some(Watched::Heartbeat(heartbeat)) => break heartbeat,
                None => panic!("the watch ended"),
            }
        }
    };
    let heartbeat = tokio::time::timeout(Duration::from_secs(10), first_heartbeat).await.expect("a heartbeat");
    assert!(heartbeat.log_size > 0);
    scene.end().await;
}
