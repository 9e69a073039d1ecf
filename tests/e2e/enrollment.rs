//! How hosts become agents, and who does not.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use futures_util::future::join_all;
use muster_proto::v1::{
    self, enrollment_service_client::EnrollmentServiceClient, fleet_service_client::FleetServiceClient,
};
use muster_tests::{
    harness::{
        agent::{Agent, FAST},
        check,
        collector::Collector,
        scene::Scene,
        until,
    },
    load::{
        Admin, Identity,
        identity::{Keys, csr, enroll, enrollment},
        session::reason,
    },
};
use tonic::Code;

/// A way to spoil a request, and the reason that it is refused with; empty when more than one is right.
type Spoil<'a, T> = (&'static str, &'static str, &'a dyn Fn(&mut T));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_hosts_with_one_token_for_one_exactly_one_enrols() {
    let mut collector = Collector::at(muster_tests::harness::free_address());
    // The refusals are the point here, not how many there may be.
    collector.settings.push(("MUSTER_LIMITS_REFUSALS_PER_MINUTE", "10000".to_owned()));
    collector.settings.push(("MUSTER_LIMITS_ENROLLMENTS_PER_SECOND", "10000".to_owned()));
    collector.start();
    let target = collector.target();
    let token = collector.token(1);
    let keys: Vec<_> = (0..32).map(|_| Keys::generate()).collect();
    let answers =
        join_all(keys.iter().enumerate().map(|(n, keys)| enroll(&target, keys.request(&token, &format!("host-{n}")))))
            .await;
    let (good, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(good.len(), 1);
    for status in refused.into_iter().filter_map(Result::err) {
        assert_eq!(reason(&status), (Code::PermissionDenied, "TOKEN_USED_UP".to_owned()), "{status:?}");
    }
    assert_eq!(collector.ctl().json(&["hosts", "list"]).as_array().map(Vec::len), Some(1));

    // The same host may ask again: it gets a certificate for the same agent, and nothing is used up.
    let winner = good.into_iter().next().unwrap().unwrap().identity.unwrap().agent_id;
    let keys = keys.iter().find(|keys| keys.evidence.agent_id().as_bytes()[..] == winner).unwrap();
    let again = enroll(&target, keys.request(&token, "again")).await.unwrap().identity.unwrap();
    assert_eq!(again.agent_id, winner);
    assert_eq!(collector.ctl().json(&["hosts", "list"]).as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_many_enrols_as_many_and_no_more_across_a_restart() {
    let mut collector = Collector::started();
    let target = collector.target();
    let token = collector.token(3);
    for n in 0..2 {
        Identity::enroll(&target, &token, &format!("host-{n}")).await.unwrap();
    }
    collector.kill();
    collector.start();
    Identity::enroll(&target, &token, "host-2").await.unwrap();
    let refused = enroll(&target, Keys::generate().request(&token, "host-3")).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::PermissionDenied, "TOKEN_USED_UP".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_enrols_nobody_and_uses_nothing_up() {
    let mut collector = Collector::at(muster_tests::harness::free_address());
    collector.settings.push(("MUSTER_LIMITS_REFUSALS_PER_MINUTE", "10000".to_owned()));
    collector.start();
    let target = collector.target();
    let token = collector.token(1);
    let other = Keys::generate();
    let spoils: &[Spoil<'_, v1::EnrollAgentRequest>] = &[
        ("no token", "TOKEN_INVALID", &|request| request.token.clear()),
        ("another token", "TOKEN_INVALID", &|request| request.token = request.token.chars().rev().collect()),
        ("a huge token", "", &|request| request.token = "x".repeat(50_000)),
        ("no key", "", &|request| request.evidence_public_key.clear()),
        ("a key of small order", "", &|request| request.evidence_public_key = vec![0; 32]),
        ("the key of another", "PROOF_INVALID", &|request| {
            request.evidence_public_key = other.evidence.public_key().to_vec();
        }),
        ("no proof", "PROOF_INVALID", &|request| request.proof.clear()),
        ("a proof over another request", "PROOF_INVALID", &|request| request.csr = csr(&other.tls)),
        ("no certificate request", "", &|request| request.csr.clear()),
        ("a certificate request of noise", "", &|request| request.csr = vec![0x30; 500]),
    ];
    for (what, expected, spoil) in spoils {
        let mut request = Keys::generate().request(&token, "host");
        spoil(&mut request);
        let status = enroll(&target, request).await.expect_err(what);
        let (code, reason) = reason(&status);
        assert!(matches!(code, Code::PermissionDenied | Code::InvalidArgument), "{what}: {status:?}");
        assert!(expected.is_empty() || reason == *expected, "{what}: {status:?}");
        assert!(!reason.is_empty(), "{what}: no reason in {status:?}");
    }
    collector.check_alive();
    Identity::enroll(&target, &token, "host").await.expect("the token is as good as new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_or_expired_token_enrols_nobody() {
    let mut collector = Collector::started();
    let target = collector.target();
    let admin = Admin::connect(&target, &collector.data().join("admin.pem")).await.unwrap();
    let made = admin.token(5).await.unwrap();
    let id = made.token.unwrap().id;
    admin.changes().revoke_token(v1::RevokeTokenRequest { id }).await.unwrap();
    let refused = enroll(&target, Keys::generate().request(&made.secret, "host")).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::PermissionDenied, "TOKEN_REVOKED".to_owned()));

    let request = v1::CreateTokenRequest { uses: 1, lifetime_seconds: 1, note: String::new() };
    let brief = admin.changes().create_token(request).await.unwrap().into_inner();
    until("the token expires", async || {
        // A request that the token cannot be used up by: its proof is wrong.
        let mut request = Keys::generate().request(&brief.secret, "host");
        request.proof = vec![0; 64];
        let status = enroll(&target, request).await.unwrap_err();
        check(reason(&status).1 == "TOKEN_EXPIRED" || now_is_after(brief.token.as_ref()), format!("{status:?}"))
    })
    .await;
    let refused = enroll(&target, Keys::generate().request(&brief.secret, "host")).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::PermissionDenied, "TOKEN_EXPIRED".to_owned()));
    collector.check_alive();
}

fn now_is_after(token: Option<&v1::Token>) -> bool {
    let end = token.and_then(|token| token.expire_time).map_or(0, |time| time.seconds);
    muster_tests::harness::now().seconds() > end + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_for_enrolment_reaches_nothing_else() {
    let scene = Scene::set("connections for enrolment").await;
    let tls = scene.target.tls(None).unwrap();
    let channel = scene.target.channel(tls).await.unwrap();
    let list = FleetServiceClient::new(channel.clone()).list_hosts(v1::ListHostsRequest::default()).await;
    let mut client = EnrollmentServiceClient::new(channel);
    let renew = client.renew_certificate(v1::RenewCertificateRequest::default()).await;
    for status in [list.unwrap_err(), renew.unwrap_err()] {
        let expected = [Code::Unauthenticated, Code::PermissionDenied, Code::Unimplemented];
        assert!(expected.contains(&status.code()), "{status:?}");
    }

    // Without the mark of enrolment there is no connection at all.
    let mut unmarked = (*scene.target.tls(None).unwrap()).clone();
    unmarked.alpn_protocols = vec![b"h2".to_vec()];
    let answer = match scene.target.channel(unmarked.into()).await {
        Ok(channel) => FleetServiceClient::new(channel).list_hosts(v1::ListHostsRequest::default()).await.map(|_| ()),
        Err(error) => Err(tonic::Status::unavailable(error.to_string())),
    };
    assert!(answer.is_err(), "a caller without a certificate is answered");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_reaches_only_what_agents_may() {
    let scene = Scene::set("what agents may").await;
    let agent = scene.enroll("curious").await;
    let channel = agent.channel().await.unwrap();
    for (path, roles) in muster_proto::caller::ALLOWED {
        let code = muster_tests::load::raw::code_of(channel.clone(), path).await.unwrap();
        let may = roles.contains(&muster_proto::caller::Role::Agent);
        assert_eq!(code == Code::PermissionDenied as i32, !may, "{path}: {code}");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_rejoins_by_proof_of_its_key_and_by_nothing_less() {
    let mut scene = Scene::set("rejoining").await;
    let agent = scene.enroll("away").await;
    let mut client = enrollment(&scene.target).await.unwrap();
    let answer = client.rejoin_agent(agent.rejoin_request()).await.unwrap().into_inner();
    assert_eq!(answer.identity.unwrap().agent_id, agent.id.as_bytes());

    let other = scene.enroll("other").await;
    let spoils: &[Spoil<'_, v1::RejoinAgentRequest>] = &[
        ("an unknown agent", "AGENT_UNKNOWN", &|request| request.agent_id[0] ^= 1),
        ("the name of another", "PROOF_INVALID", &|request| request.agent_id = other.id.as_bytes().to_vec()),
        ("no proof", "", &|request| request.proof.clear()),
        ("another proof", "PROOF_INVALID", &|request| request.proof[5] ^= 1),
        ("a time that was not signed", "PROOF_INVALID", &|request| {
            request.request_time.as_mut().unwrap().seconds -= 1;
        }),
        ("no time", "", &|request| request.request_time = None),
    ];
    for (what, expected, spoil) in spoils {
        let mut request = agent.rejoin_request();
        spoil(&mut request);
        let status = client.rejoin_agent(request).await.expect_err(what);
        let (code, reason) = reason(&status);
        assert!(matches!(code, Code::PermissionDenied | Code::InvalidArgument), "{what}: {status:?}");
        assert!(expected.is_empty() || reason == *expected, "{what}: {status:?}");
    }
    let request = v1::RevokeAgentRequest { host: agent.id.to_string(), reason: "stolen".to_owned() };
    scene.admin.changes().revoke_agent(request).await.unwrap();
    let status = client.rejoin_agent(agent.rejoin_request()).await.unwrap_err();
    assert_eq!(reason(&status), (Code::PermissionDenied, "AGENT_REVOKED".to_owned()));
    scene.collector.check_alive();
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_agent_enrols_by_its_file_and_reports() {
    let scene = Scene::set("a real agent").await;
    let mut agent = Agent::of(&scene.collector, FAST);
    agent.start();
    until("it reports", async || {
        let hosts = scene.admin.fleet().list_hosts(v1::ListHostsRequest::default()).await;
        let hosts = hosts.map_err(|status| status.to_string())?.into_inner().hosts;
        let is_there = hosts.iter().any(|host| host.hostname != "honest" && host.sequence > 0 && host.connected);
        check(is_there, agent.process().output())
    })
    .await;
    agent.stop(std::time::Duration::from_secs(10));
    let log = scene.end().await;
    muster_tests::evidence::check_chains(&log.chains().unwrap()).unwrap();
}
