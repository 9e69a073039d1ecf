//! The whole collector over real TLS on loopback.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use muster_proto::{
    caller::{self, Caller, Role},
    id::Digest,
    limits,
    seal::{ENROLL_DOMAIN, EvidenceKey, REJOIN_DOMAIN, RENEW_DOMAIN},
    time::{Clock, SystemClock, Timestamp},
    v1::{
        self, act::Act, admin_service_client::AdminServiceClient, enrollment_service_client::EnrollmentServiceClient,
        log_entry::Entry,
    },
};
use prost::Message as _;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    init,
    pki::{Issued, RequestedKey},
};

/// A collector in a folder of its own, and what it takes to reach it.
struct Fleet {
    folder: tempfile::TempDir,
    collector: Collector,
}

impl Fleet {
    async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plan = init::Plan {
            data: folder.path().join("data"),
            name: "c1".to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            names: Vec::new(),
        };
        init::init(&plan, SystemClock.now()).unwrap();
        let data = Data::new(&plan.data);
        let mut config = Config::read(&data.config(), &config::Variables::default()).unwrap();
        config.metrics_listen = String::new();
        config.checkpoint_interval_ms = 10;
        change(&mut config);
        let collector = Collector::start(config, &data, Arc::new(SystemClock)).await.unwrap();
        Self { folder, collector }
    }

    fn data(&self) -> Data {
        Data::new(&self.folder.path().join("data"))
    }

    fn authority(&self) -> Authority {
        Authority::open(&self.data().pki(), SystemClock.now()).unwrap()
    }

    fn ca_pem(&self) -> String {
        self.authority().bundle_pem()
    }

    fn admin_pem(&self) -> String {
        std::fs::read_to_string(self.data().admin()).unwrap()
    }

    /// Dials with the key and chain in `pem`, or without any.
    async fn dial(&self, pem: Option<&str>, alpn: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let config = client_config(&self.ca_pem(), pem, alpn);
        let stream = TcpStream::connect(self.collector.address()).await?;
        TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// Returns a channel with the credential in `pem`.
    async fn channel(&self, pem: &str) -> Channel {
        self.try_channel(Some(pem), &[b"h2"]).await.unwrap()
    }

    async fn enrolling(&self) -> EnrollmentServiceClient<Channel> {
        EnrollmentServiceClient::new(self.try_channel(None, &[limits::ENROLL_ALPN, b"h2"]).await.unwrap())
    }

    async fn try_channel(&self, pem: Option<&str>, alpn: &[&[u8]]) -> io::Result<Channel> {
        let stream = Arc::new(Mutex::new(Some(self.dial(pem, alpn).await?)));
        let connector = tower::service_fn(move |_| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { stream.map(hyper_util::rt::TokioIo::new).ok_or(io::Error::from(io::ErrorKind::NotConnected)) }
        });
        Endpoint::from_static("http://collector.invalid")
            .connect_with_connector(connector)
            .await
            .map_err(io::Error::other)
    }

    async fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel(&self.admin_pem()).await)
    }

    /// Issues a credential, and returns its serial and file.
    async fn credential(&self, role: Role) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = v1::IssueCredentialRequest {
            role: role.to_string(),
            name: format!("some-{role}"),
            lifetime_seconds: 3600,
            csr: csr(&key),
        };
        let answer = self.admin().await.issue_credential(request).await.unwrap().into_inner();
        (answer.credential.unwrap().serial, key.serialize_pem() + &answer.certificate_chain_pem)
    }

    async fn token(&self, uses: u32) -> String {
        let request = v1::CreateTokenRequest { uses, ..Default::default() };
        self.admin().await.create_token(request).await.unwrap().into_inner().secret
    }

    /// Enrols a host with a fresh key.
    async fn enroll(&self) -> Host {
        let host = Host::new();
        let request = host.enrollment(&self.token(1).await);
        let identity = self.enrolling().await.enroll_agent(request).await.unwrap().into_inner().identity.unwrap();
        host.with(&identity)
    }

    /// Returns the entries of the log that `pick` picks.
    fn entries<T>(&self, pick: impl Fn(Entry) -> Option<T>) -> Vec<T> {
        let log = &self.collector.log;
        let entries = log.entries(0..log.size()).unwrap();
        entries.iter().filter_map(|bytes| pick(v1::LogEntry::decode(&bytes[..]).unwrap().entry?)).collect()
    }
}

fn client_config(ca_pem: &str, pem: Option<&str>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match pem {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
            let leaf = CertificateDer::pem_slice_iter(pem.as_bytes()).next().unwrap().unwrap();
            builder.with_client_auth_cert(vec![leaf], key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn csr(key: &rcgen::KeyPair) -> Vec<u8> {
    rcgen::CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

struct Host {
    evidence: EvidenceKey,
    tls: rcgen::KeyPair,
    chain: String,
}

impl Host {
    fn new() -> Self {
        let (evidence, _) = EvidenceKey::generate().unwrap();
        Self { evidence, tls: rcgen::KeyPair::generate().unwrap(), chain: String::new() }
    }

    fn with(self, identity: &v1::AgentIdentity) -> Self {
        assert_eq!(identity.agent_id, self.evidence.agent_id().as_bytes());
        Self { chain: identity.certificate_chain_pem.clone(), ..self }
    }

    fn pem(&self) -> String {
        self.tls.serialize_pem() + &self.chain
    }

    fn enrollment(&self, token: &str) -> v1::EnrollAgentRequest {
        let csr = csr(&self.tls);
        v1::EnrollAgentRequest {
            token: token.to_owned(),
            evidence_public_key: self.evidence.public_key().to_vec(),
            proof: self.evidence.sign(ENROLL_DOMAIN, Digest::of_bytes(&csr).as_bytes()).to_vec(),
            csr,
            claim: Some(v1::HostClaim { hostname: "web-1".to_owned(), ..Default::default() }),
        }
    }

    fn rejoin(&self, at: Timestamp) -> v1::RejoinAgentRequest {
        let csr = csr(&self.tls);
        let message = [&Digest::of_bytes(&csr).as_bytes()[..], &at.seconds().to_be_bytes()].concat();
        v1::RejoinAgentRequest {
            agent_id: self.evidence.agent_id().as_bytes().to_vec(),
            proof: self.evidence.sign(REJOIN_DOMAIN, &message).to_vec(),
            csr,
            request_time: Some(at.to_wire()),
        }
    }

    fn renewal(&self) -> v1::RenewCertificateRequest {
        let csr = csr(&self.tls);
        let proof = self.evidence.sign(RENEW_DOMAIN, Digest::of_bytes(&csr).as_bytes()).to_vec();
        v1::RenewCertificateRequest { csr, proof }
    }
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// Calls `path` with an empty message, and returns the outcome as soon as the answer begins.
async fn call(channel: &Channel, path: &'static str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    grpc.server_streaming(Request::new(()), PathAndQuery::from_static(path), codec).await.map(drop)
}

/// What the collector logged on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let lines = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Dials, and waits until the other side closes: in TLS 1.3 the client is done before it hears a refusal.
async fn dial_until_closed(fleet: &Fleet, pem: Option<&str>) {
    if let Ok(mut stream) = fleet.dial(pem, &[b"h2"]).await {
        // A settings frame may come first when the peer is not refused; then this waits for ever and the test fails.
        let mut rest = Vec::new();
        let outcome = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(outcome.expect("the collector closes the connection").is_err() || rest.is_empty(), "{rest:?}");
    }
}

#[tokio::test]
async fn a_refused_handshake_is_logged_once_and_says_what_to_do() {
    let lines = Lines::default();
    let _guard = lines.capture();
    let fleet = Fleet::start().await;
    let authority = fleet.authority();
    let now = SystemClock.now();
    let issue = |authority: &Authority, name: &str, at: Timestamp| {
        let key = rcgen::KeyPair::generate().unwrap();
        let requested = RequestedKey::from_csr(&csr(&key)).unwrap();
        let caller: Caller = name.parse().unwrap();
        let issued: Issued = authority.issue(&caller, &requested, at, Duration::from_secs(60)).unwrap();
        (key.serialize_pem() + &issued.chain_pem, issued.serial)
    };
    let (expired, serial) = issue(&authority, "spiffe://c1/auditor/alice", now.minus(Duration::from_secs(3600)));
    let other = tempfile::tempdir().unwrap();
    let other = Authority::create(other.path(), "c1", now).unwrap();
    let (foreign, _) = issue(&other, "spiffe://c1/admin/mallory", now);
    let (other_fleet, _) = issue(&authority, "spiffe://c2/admin/bob", now);
    for (pem, expected) in [
        (None, "it showed no client certificate; pass one with --credential".to_owned()),
        (
            Some(&expired),
            format!(
                "its client certificate of spiffe://c1/auditor/alice (serial {serial}) expired {}; issue another with \
                 'musterctl credentials create'",
                now.minus(Duration::from_secs(3540)).to_second()
            ),
        ),
        (Some(&foreign), "was issued by CN=Muster CA of c1, which is not this fleet's CA".to_owned()),
        (Some(&other_fleet), "it is for the fleet of collector c2, not of this one".to_owned()),
    ] {
        let before = lines.text().len();
        dial_until_closed(&fleet, pem.map(String::as_str)).await;
        let text = lines.text()[before..].to_owned();
        assert!(text.contains(&expected), "{expected:?} is not in:\n{text}");
        assert_eq!(text.matches("connection refused").count(), 1, "{text}");
        assert!(text.contains("peer=127.0.0.1:"), "{text}");
    }

    // One for servers, which the CA did issue: its key exists in memory alone, so the resolver shows it.
    let (key, _) = authority.issue_server(&["localhost".to_owned()], now, Duration::from_secs(60)).unwrap();
    let mut config = Arc::unwrap_or_clone(client_config(&fleet.ca_pem(), None, &[b"h2"]));
    config.client_auth_cert_resolver = Arc::new(Shows(key));
    let before = lines.text().len();
    let stream = TcpStream::connect(fleet.collector.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    if let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    }
    let text = lines.text()[before..].to_owned();
    assert!(text.contains("is not one for clients"), "{text}");
    fleet.collector.stop().await;
}

/// Shows one certificate, whatever it is for.
#[derive(Debug)]
struct Shows(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn every_role_reaches_the_rpcs_of_its_row_and_no_other() {
    let fleet = Fleet::start_with(|config| config.limits.enrollments_per_second = 1000).await;
    let agent = fleet.enroll().await;
    let mut channels: BTreeMap<Role, Channel> = BTreeMap::new();
    channels.insert(Role::Agent, fleet.channel(&agent.pem()).await);
    for role in [Role::Viewer, Role::Auditor, Role::Enroller, Role::Operator, Role::Admin] {
        channels.insert(role, fleet.channel(&fleet.credential(role).await.1).await);
    }
    for (path, roles) in caller::ALLOWED {
        for role in Role::ALL {
            let outcome = call(&channels[&role], path).await;
            let is_refused = outcome.as_ref().is_err_and(|status| reason(status) == "ROLE_NOT_ALLOWED");
            assert_eq!(!is_refused, roles.contains(&role), "{role} {path}: {outcome:?}");
            let code = outcome.map_or_else(|status| status.code(), |()| Code::Ok);
            if is_refused {
                assert_eq!(code, Code::PermissionDenied);
            } else if *path != "/grpc.health.v1.Health/List" {
                // tonic-health answers everything of that service but List.
                assert_ne!(code, Code::Unimplemented, "{path} is not served");
            }
        }
    }
    for path in ["/muster.v1.FleetService/Nothing", "/x/y", "/"] {
        let status = call(&channels[&Role::Admin], path).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "RPC_UNKNOWN"), "{path}");
    }
    fleet.collector.stop().await;
}

#[tokio::test]
async fn a_connection_for_enrolment_reaches_enrolment_alone() {
    let fleet = Fleet::start().await;
    let channel = fleet.try_channel(None, &[limits::ENROLL_ALPN, b"h2"]).await.unwrap();
    for (path, _) in caller::ALLOWED {
        let status = call(&channel, path).await.unwrap_err();
        let is_enrolment = path.ends_with("/EnrollAgent") || path.ends_with("/RejoinAgent");
        assert_eq!(reason(&status) == "ENROLLMENT_ONLY", !is_enrolment, "{path}: {status:?}");
    }
    fleet.collector.stop().await;
}

#[tokio::test]
async fn no_header_says_who_calls() {
    let fleet = Fleet::start().await;
    let (_, viewer) = fleet.credential(Role::Viewer).await;
    let mut admin = AdminServiceClient::new(fleet.channel(&viewer).await);
    let mut request = Request::new(v1::ListTokensRequest::default());
    for (name, value) in [
        ("x-forwarded-client-cert", "URI=spiffe://c1/admin/admin"),
        ("x-spiffe-id", "spiffe://c1/admin/admin"),
        ("authorization", "Bearer admin"),
    ] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(reason(&admin.list_tokens(request).await.unwrap_err()), "ROLE_NOT_ALLOWED");
    fleet.collector.stop().await;
}

#[tokio::test]
async fn of_32_hosts_with_one_token_one_enrols_and_the_alarm_sounds_once() {
    let fleet = Fleet::start_with(|config| config.limits.refusals_per_minute = 1000).await;
    let token = fleet.token(1).await;
    let mut attempts = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let mut client = fleet.enrolling().await;
        let request = Host::new().enrollment(&token);
        attempts.spawn(async move { client.enroll_agent(request).await });
    }
    let outcomes = attempts.join_all().await;
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err().map(reason)).collect();
    assert_eq!(refused, vec!["TOKEN_USED_UP"; 31]);
    let enrolled = fleet.entries(|entry| match entry {
        Entry::Enrollment(enrollment) => Some(enrollment),
        _ => None,
    });
    assert_eq!(enrolled.len(), 1);
    let alarms = fleet.entries(|entry| match entry {
        Entry::Act(v1::Act { act: Some(Act::TokenRefused(refused)), .. }) => Some(refused),
        _ => None,
    });
    assert_eq!(alarms.len(), 1);
    assert_eq!(alarms[0].reason, "used up");
    let tokens = fleet.admin().await.list_tokens(v1::ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    assert_eq!((tokens[0].uses, tokens[0].used), (1, 1));

    // The token itself is nowhere in the log.
    let log = &fleet.collector.log;
    let secret = token.rsplit('-').next().unwrap().as_bytes();
    let entries = log.entries(0..log.size()).unwrap();
    assert!(entries.iter().all(|entry| !entry.windows(secret.len()).any(|window| window == secret)));
    fleet.collector.stop().await;
}

#[tokio::test]
async fn an_enrolment_that_is_refused_uses_nothing_up_and_one_that_is_repeated_neither() {
    let fleet = Fleet::start().await;
    let token = fleet.token(1).await;
    let mut client = fleet.enrolling().await;
    let host = Host::new();
    let good = host.enrollment(&token);
    let spoiled = |spoil: fn(&mut v1::EnrollAgentRequest)| {
        let mut request = good.clone();
        spoil(&mut request);
        request
    };
    for (request, expected) in [
        (spoiled(|request| request.csr[40] ^= 1), "CSR_INVALID"),
        (spoiled(|request| request.csr.clear()), "CSR_INVALID"),
        (spoiled(|request| request.proof[0] ^= 1), "PROOF_INVALID"),
        (spoiled(|request| request.evidence_public_key = vec![0; 32]), "REQUEST_INVALID"),
        (spoiled(|request| request.claim.as_mut().unwrap().hostname = "a\nb".to_owned()), "REQUEST_INVALID"),
        (spoiled(|request| request.token.push('0')), "TOKEN_INVALID"),
        (spoiled(|request| request.token = String::new()), "TOKEN_INVALID"),
    ] {
        let status = client.enroll_agent(request).await.unwrap_err();
        assert_eq!(reason(&status), expected, "{status:?}");
    }
    let first = client.enroll_agent(good.clone()).await.unwrap().into_inner().identity.unwrap();
    let again = client.enroll_agent(good).await.unwrap().into_inner().identity.unwrap();
    assert_eq!(first.agent_id, again.agent_id);
    assert_ne!(first.certificate_chain_pem, again.certificate_chain_pem);
    let status = client.enroll_agent(Host::new().enrollment(&token)).await.unwrap_err();
    assert_eq!(reason(&status), "TOKEN_USED_UP");
    fleet.collector.stop().await;
}

#[tokio::test]
async fn guesses_are_refused_without_an_answer_while_an_honest_host_enrols() {
    let fleet = Fleet::start_with(|config| config.limits.refusals_per_minute = 5).await;
    let token = fleet.token(1).await;
    let mut client = fleet.enrolling().await;
    let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..50 {
        let guess = crate::members::Secret::generate().unwrap();
        let status = client.enroll_agent(Host::new().enrollment(guess.text())).await.unwrap_err();
        *reasons.entry(reason(&status)).or_default() += 1;
        if reason(&status) == "TOO_MANY_ATTEMPTS" {
            assert!(status.get_error_details().retry_info().is_some());
        }
    }
    assert_eq!(reasons.get("TOKEN_INVALID"), Some(&10), "{reasons:?}");
    assert_eq!(reasons.get("TOO_MANY_ATTEMPTS"), Some(&40), "{reasons:?}");
    client.enroll_agent(Host::new().enrollment(&token)).await.unwrap();
    fleet.collector.stop().await;
}

#[tokio::test]
async fn an_agent_renews_and_rejoins_until_it_is_revoked() {
    let fleet = Fleet::start().await;
    let agent = fleet.enroll().await;
    let mut renewing = EnrollmentServiceClient::new(fleet.channel(&agent.pem()).await);
    let renewed = renewing.renew_certificate(agent.renewal()).await.unwrap().into_inner().identity.unwrap();
    assert_ne!(renewed.certificate_chain_pem, agent.chain);
    let foreign = v1::RenewCertificateRequest { proof: Host::new().renewal().proof, ..agent.renewal() };
    assert_eq!(reason(&renewing.renew_certificate(foreign).await.unwrap_err()), "PROOF_INVALID");

    let now = SystemClock.now();
    let mut rejoining = fleet.enrolling().await;
    let rejoined = rejoining.rejoin_agent(agent.rejoin(now)).await.unwrap().into_inner().identity.unwrap();
    let agent = agent.with(&rejoined);
    for (request, expected) in [
        (agent.rejoin(now.minus(Duration::from_secs(700))), "REQUEST_INVALID"),
        (v1::RejoinAgentRequest { request_time: None, ..agent.rejoin(now) }, "REQUEST_INVALID"),
        (v1::RejoinAgentRequest { proof: vec![0; 64], ..agent.rejoin(now) }, "PROOF_INVALID"),
        (Host::new().rejoin(now), "AGENT_UNKNOWN"),
    ] {
        assert_eq!(reason(&rejoining.rejoin_agent(request).await.unwrap_err()), expected);
    }

    // The proof of each is in the log, and anyone can check it.
    let entries = fleet.entries(|entry| match entry {
        Entry::Enrollment(enrollment) => Some(enrollment),
        _ => None,
    });
    assert_eq!(entries.len(), 3);
    let key = muster_proto::seal::EvidencePublicKey::new(&agent.evidence.public_key()).unwrap();
    for (entry, domain) in entries.iter().zip([ENROLL_DOMAIN, RENEW_DOMAIN, REJOIN_DOMAIN]) {
        let mut message = entry.csr_digest.clone();
        if let Some(time) = &entry.request_time {
            message.extend(time.seconds.to_be_bytes());
        }
        key.verify(domain, &message, &entry.proof).unwrap();
    }

    let id = agent.evidence.agent_id().to_string();
    let mut admin = fleet.admin().await;
    let revoke = |host: &str, reason: &str| v1::RevokeAgentRequest { host: host.to_owned(), reason: reason.to_owned() };
    assert_eq!(reason(&admin.revoke_agent(revoke(&id, "")).await.unwrap_err()), "REASON_INVALID");
    assert_eq!(reason(&admin.revoke_agent(revoke("nothing", "x")).await.unwrap_err()), "HOST_NOT_FOUND");
    for host in [&id[..8], "web-1", &id] {
        admin.revoke_agent(revoke(host, "sold")).await.unwrap();
    }
    let revocations = fleet.entries(|entry| match entry {
        Entry::Act(v1::Act { act: Some(Act::AgentRevoked(revoked)), .. }) => Some(revoked),
        _ => None,
    });
    assert_eq!(revocations.len(), 1, "twice is once");
    for status in [
        renewing.renew_certificate(agent.renewal()).await.unwrap_err(),
        rejoining.rejoin_agent(agent.rejoin(SystemClock.now())).await.unwrap_err(),
        rejoining.enroll_agent(agent.enrollment(&fleet.token(1).await)).await.unwrap_err(),
    ] {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "AGENT_REVOKED"));
    }
    fleet.collector.stop().await;
}

#[tokio::test]
async fn a_revoked_credential_loses_its_open_stream_within_a_second_and_its_next_call() {
    let fleet = Fleet::start().await;
    let (serial, pem) = fleet.credential(Role::Viewer).await;
    let channel = fleet.channel(&pem).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    let mut watch = health.watch(tonic_health::pb::HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());

    let request = v1::RevokeCredentialRequest { serial, reason: "lost laptop".to_owned() };
    fleet.admin().await.revoke_credential(request).await.unwrap();
    let start = Instant::now();
    let status = watch.message().await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "CREDENTIAL_REVOKED"));
    let fresh = fleet.channel(&pem).await;
    for channel in [channel, fresh] {
        let status = call(&channel, "/grpc.health.v1.Health/Check").await.unwrap_err();
        assert_eq!(reason(&status), "CREDENTIAL_REVOKED");
    }
    fleet.collector.stop().await;
}

#[tokio::test]
async fn the_last_admin_cannot_be_revoked() {
    let fleet = Fleet::start().await;
    let mut admin = fleet.admin().await;
    let list = |admin: &mut AdminServiceClient<Channel>| {
        let mut admin = admin.clone();
        async move { admin.list_credentials(v1::ListCredentialsRequest::default()).await.unwrap().into_inner().credentials }
    };
    let first = list(&mut admin).await.remove(0).serial;
    let revoke = |serial: &str| v1::RevokeCredentialRequest { serial: serial.to_owned(), reason: "x".to_owned() };
    assert_eq!(reason(&admin.revoke_credential(revoke(&first)).await.unwrap_err()), "LAST_ADMIN");
    let (second, pem) = fleet.credential(Role::Admin).await;
    admin.revoke_credential(revoke(&first)).await.unwrap();
    let mut admin = AdminServiceClient::new(fleet.channel(&pem).await);
    assert_eq!(reason(&admin.revoke_credential(revoke(&second)).await.unwrap_err()), "LAST_ADMIN");
    assert!(list(&mut admin).await.iter().find(|credential| credential.serial == first).unwrap().revoke_time.is_some());
    for serial in ["", "zz", &"0".repeat(32)] {
        assert_eq!(reason(&admin.revoke_credential(revoke(serial)).await.unwrap_err()), "CREDENTIAL_NOT_FOUND");
    }
    fleet.collector.stop().await;
}

#[tokio::test]
async fn what_cannot_be_granted_is_refused_with_the_field() {
    let fleet = Fleet::start().await;
    let mut admin = fleet.admin().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let good = v1::IssueCredentialRequest {
        role: "auditor".to_owned(),
        name: "alice".to_owned(),
        lifetime_seconds: 0,
        csr: csr(&key),
    };
    for (request, expected) in [
        (v1::IssueCredentialRequest { role: "agent".to_owned(), ..good.clone() }, "ROLE_INVALID"),
        (v1::IssueCredentialRequest { role: String::new(), ..good.clone() }, "ROLE_INVALID"),
        (v1::IssueCredentialRequest { name: "a/../b".to_owned(), ..good.clone() }, "NAME_INVALID"),
        (v1::IssueCredentialRequest { lifetime_seconds: 31_622_401, ..good.clone() }, "LIFETIME_INVALID"),
        (v1::IssueCredentialRequest { csr: vec![1], ..good.clone() }, "CSR_INVALID"),
    ] {
        let status = admin.issue_credential(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, expected));
        assert!(status.get_error_details().bad_request().is_some());
    }
    for (request, expected) in [
        (v1::CreateTokenRequest { uses: 100_001, ..Default::default() }, "USES_INVALID"),
        (v1::CreateTokenRequest { lifetime_seconds: 2_592_001, ..Default::default() }, "LIFETIME_INVALID"),
        (v1::CreateTokenRequest { note: "x".repeat(257), ..Default::default() }, "NOTE_INVALID"),
    ] {
        assert_eq!(reason(&admin.create_token(request).await.unwrap_err()), expected);
    }
    let made = admin.create_token(v1::CreateTokenRequest::default()).await.unwrap().into_inner();
    let id = made.token.unwrap().id;
    for _ in 0..2 {
        let revoked = admin.revoke_token(v1::RevokeTokenRequest { id: id.clone() }).await.unwrap().into_inner();
        assert!(revoked.token.unwrap().revoke_time.is_some());
    }
    let status = fleet.enrolling().await.enroll_agent(Host::new().enrollment(&made.secret)).await.unwrap_err();
    assert_eq!(reason(&status), "TOKEN_REVOKED");
    fleet.collector.stop().await;
}

#[tokio::test]
async fn no_session_is_resumed() {
    let fleet = Fleet::start().await;
    let config = client_config(&fleet.ca_pem(), Some(&fleet.admin_pem()), &[b"h2"]);
    for _ in 0..3 {
        let stream = TcpStream::connect(fleet.collector.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.unwrap();
        // The server's first frame: had there been tickets, they would have come before it.
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await.unwrap();
        let session: &ClientConnection = stream.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
    fleet.collector.stop().await;
}

#[tokio::test]
async fn silent_peers_keep_out_nobody() {
    let fleet = Fleet::start_with(|config| config.limits.handshakes = 8).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(fleet.collector.address()).await.unwrap());
    }
    let start = Instant::now();
    fleet.admin().await.list_tokens(v1::ListTokensRequest::default()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    fleet.collector.stop().await;
}

#[tokio::test]
async fn strangers_who_hold_connections_for_enrolment_keep_out_no_host() {
    let fleet = Fleet::start_with(|config| config.limits.enrollment_connections = 4).await;
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(fleet.dial(None, &[limits::ENROLL_ALPN, b"h2"]).await.unwrap());
    }
    fleet.enroll().await;
    fleet.collector.stop().await;
}

#[tokio::test]
async fn agents_that_are_not_there_are_told_so_at_once() {
    let fleet = Fleet::start().await;
    let agent = fleet.enroll().await;
    let mut admin = fleet.admin().await;
    let id = agent.evidence.agent_id().to_string();
    for hosts in [Vec::new(), vec![id.clone(), id.clone()]] {
        let request = v1::LookNowRequest { hosts, timeout_seconds: 600 };
        let mut outcomes = admin.look_now(request).await.unwrap().into_inner();
        let outcome = outcomes.message().await.unwrap().unwrap();
        assert_eq!((outcome.host_id.as_str(), outcome.outcome()), (id.as_str(), v1::LookOutcome::NotConnected));
        assert!(outcomes.message().await.unwrap().is_none());
    }
    let asked = fleet.entries(|entry| match entry {
        Entry::Act(v1::Act { act: Some(Act::LookRequested(look)), .. }) => Some(look.agent_ids.len()),
        _ => None,
    });
    assert_eq!(asked, [0, 1]);
    for (request, expected) in [
        (v1::LookNowRequest { hosts: vec!["nothing".to_owned()], timeout_seconds: 0 }, "HOST_NOT_FOUND"),
        (v1::LookNowRequest { hosts: Vec::new(), timeout_seconds: 601 }, "TIMEOUT_INVALID"),
    ] {
        assert_eq!(reason(&admin.look_now(request).await.unwrap_err()), expected);
    }
    let resolve = v1::ResolveConflictRequest { host: id, reason: "x".to_owned() };
    assert_eq!(reason(&admin.resolve_conflict(resolve).await.unwrap_err()), "NOT_FROZEN");
    fleet.collector.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages_that_belong_to_their_list() {
    let fleet = Fleet::start().await;
    for _ in 0..5 {
        fleet.token(1).await;
    }
    let mut admin = fleet.admin().await;
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListTokensRequest { page_size: 2, page_token };
        let page = admin.list_tokens(request).await.unwrap().into_inner();
        ids.extend(page.tokens.into_iter().map(|token| token.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        let foreign = v1::ListCredentialsRequest { page_size: 2, page_token: page_token.clone() };
        assert_eq!(reason(&admin.list_credentials(foreign).await.unwrap_err()), "PAGE_TOKEN_INVALID");
    }
    let whole = admin.list_tokens(v1::ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    assert_eq!(ids, whole.into_iter().map(|token| token.id).collect::<Vec<_>>());
    let negative = v1::ListTokensRequest { page_size: -1, page_token: String::new() };
    assert_eq!(reason(&admin.list_tokens(negative).await.unwrap_err()), "PAGE_SIZE_INVALID");
    fleet.collector.stop().await;
}

#[tokio::test]
async fn metrics_are_served_in_prometheus_text() {
    use tokio::io::AsyncWriteExt as _;
    let fleet = Fleet::start_with(|config| config.metrics_listen = "127.0.0.1:0".to_owned()).await;
    let mut stream = TcpStream::connect(fleet.collector.metrics_address().unwrap()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("muster_build_info{version="), "{answer}");
    fleet.collector.stop().await;
}

#[tokio::test]
async fn views_made_again_are_the_same_and_only_while_no_collector_runs() {
    let fleet = Fleet::start().await;
    fleet.enroll().await;
    let data = fleet.data();
    let config = Config::new("c1");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    assert!(matches!(rebuild(&config, &data, Arc::clone(&clock)), Err(Error::Log(log::Error::Locked { .. }))));
    let (log_size, folder) = (fleet.collector.log.size(), fleet.folder);
    fleet.collector.stop().await;
    let rebuilt = rebuild(&config, &data, clock).unwrap();
    assert!(rebuilt.is_same && rebuilt.log_size >= log_size, "{rebuilt:?}");
    drop(folder);
}

#[tokio::test]
async fn a_log_that_was_put_back_is_not_signed_over_while_the_views_know_better() {
    let Fleet { folder, collector } = Fleet::start().await;
    let data = Data::new(&folder.path().join("data"));
    collector.stop().await;
    let start = async || {
        let mut config = Config::read(&data.config(), &config::Variables::default()).unwrap();
        config.metrics_listen = String::new();
        Collector::start(config, &data, Arc::new(SystemClock)).await
    };
    let old = folder.path().join("old");
    copy(&data.log(), &old);
    let fleet = Fleet { folder, collector: start().await.unwrap() };
    fleet.enroll().await;
    let Fleet { folder, collector } = fleet;
    let size = collector.log.size();
    let seen = async {
        while views::known_size(&data.views(), "c1") < Some(size) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), seen).await.expect("the views follow the log");
    collector.stop().await;
    assert!(check_log(&data).unwrap().bad.is_none());
    std::fs::remove_dir_all(data.log()).unwrap();
    copy(&old, &data.log());

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for error in [start().await.err().unwrap(), rebuild(&Config::new("c1"), &data, clock).unwrap_err()] {
        assert!(matches!(error, Error::Log(log::Error::Behind { known, .. }) if known >= size), "{error}");
        assert!(error.to_string().contains("put the newest log back"), "{error}");
    }
    let bad = check_log(&data).unwrap().bad.unwrap();
    assert!(bad.what.contains("the views know"), "{bad:?}");
    views::remove(&data.views()).unwrap();
    assert!(check_log(&data).unwrap().bad.is_none());
    start().await.unwrap().stop().await;
    drop(folder);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_collector_that_cannot_start_says_what_to_do() {
    let fleet = Fleet::start().await;
    let data = fleet.data();
    let folder = fleet.folder;
    fleet.collector.stop().await;
    let start = async |name: &str, at: Timestamp| {
        let mut config = Config::new(name);
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.metrics_listen = String::new();
        Collector::start(config, &data, Arc::new(At(at))).await.err().map(|error| error.to_string())
    };
    let now = SystemClock.now();
    let error = start("c2", now).await.unwrap();
    assert!(error.contains("is that of collector c1") && error.contains("set name = \"c1\""), "{error}");
    let error = start("c1", now.plus(Duration::from_secs(20 * 366 * 86_400))).await.unwrap();
    assert!(error.contains("pki/ca.pem ended at 203"), "{error}");
    std::fs::remove_file(data.log_key()).unwrap();
    let error = start("c1", now).await.unwrap();
    assert!(error.contains("failed to read") && error.contains("log.key"), "{error}");
    drop(folder);
}

/// A clock that stands still.
struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

#[tokio::test]
async fn more_connections_than_one_caller_may_have_are_closed() {
    let fleet = Fleet::start_with(|config| config.limits.connections_per_caller = 3).await;
    let pem = fleet.admin_pem();
    let mut open = Vec::new();
    for _ in 0..3 {
        let channel = fleet.channel(&pem).await;
        call(&channel, "/grpc.health.v1.Health/Check").await.unwrap();
        open.push(channel);
    }
    dial_until_closed(&fleet, Some(&pem)).await;
    drop(open);
    fleet.collector.stop().await;
}

#[tokio::test]
async fn the_collector_stops_in_time_whatever_clients_do() {
    let fleet = Fleet::start().await;
    let silent = TcpStream::connect(fleet.collector.address()).await.unwrap();
    let no_http = fleet.dial(Some(&fleet.admin_pem()), &[b"h2"]).await.unwrap();
    let (_, pem) = fleet.credential(Role::Viewer).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(fleet.channel(&pem).await);
    let watch = health.watch(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    let start = Instant::now();
    fleet.collector.stop().await;
    assert!(start.elapsed() < Duration::from_millis(4500), "{:?}", start.elapsed());
    drop((silent, no_http, watch));
}

#[tokio::test]
async fn reads_are_in_the_log_when_the_collector_has_stopped() {
    let fleet = Fleet::start().await;
    let mut admin = fleet.admin().await;
    for _ in 0..3 {
        admin.list_tokens(v1::ListTokensRequest::default()).await.unwrap();
    }
    let (_, viewer) = fleet.credential(Role::Viewer).await;
    call(&fleet.channel(&viewer).await, "/muster.v1.AdminService/ListTokens").await.unwrap_err();
    let (log, folder) = (fleet.collector.log.clone(), fleet.folder);
    fleet.collector.stop().await;
    let mut counts = Vec::new();
    for bytes in log.entries(0..log.size()).unwrap() {
        if let Some(Entry::Access(summary)) = v1::LogEntry::decode(&bytes[..]).unwrap().entry {
            counts.extend(summary.counts);
        }
    }
    let count = |actor: &str| {
        let count = counts.iter().find(|count| count.actor == actor && count.method.ends_with("/ListTokens")).unwrap();
        (count.answered, count.refused)
    };
    assert_eq!(count("spiffe://c1/admin/admin"), (3, 0));
    assert_eq!(count("spiffe://c1/viewer/some-viewer"), (0, 1));
    drop(folder);
}

#[tokio::test]
async fn a_read_is_in_the_log_soon_after_it() {
    let fleet = Fleet::start().await;
    fleet.admin().await.list_tokens(v1::ListTokensRequest::default()).await.unwrap();
    let mut newest = fleet.collector.log.subscribe();
    let log = fleet.collector.log.clone();
    let noted = newest.wait_for(|checkpoint| {
        let entries = log.entries(0..checkpoint.size).unwrap();
        let is_access =
            |bytes: &Vec<u8>| matches!(v1::LogEntry::decode(&bytes[..]).unwrap().entry, Some(Entry::Access(_)));
        entries.iter().any(is_access)
    });
    timeout(Duration::from_secs(10), noted).await.expect("no more than seconds pass").unwrap();
    fleet.collector.stop().await;
}

#[tokio::test]
async fn health_says_when_no_reports_are_taken_and_a_dead_inbox_ends_the_collector() {
    use tonic_health::pb::health_check_response::ServingStatus;
    let mut fleet = Fleet::start().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(fleet.channel(&fleet.admin_pem()).await);
    let request = tonic_health::pb::HealthCheckRequest { service: INGEST.to_owned() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    let mut next = async || {
        let said = timeout(Duration::from_secs(20), watch.message()).await.expect("health changes");
        said.unwrap().unwrap().status()
    };
    assert_eq!(next().await, ServingStatus::Serving);
    let inbox = fleet.collector.inbox.clone();
    let push = || {
        let mut records = Vec::new();
        let record = inbox::frame::Record {
            agent: AgentId::new([1; 16]),
            epoch: Epoch::new([1; 16]),
            seq: ReportSeq::FIRST,
            stream: 1,
            digest: Digest::new([1; 32]),
            body: b"",
        };
        record.write(&mut records);
        inbox.push(&records, std::task::Waker::noop()).unwrap();
    };
    inbox.fail_opening(true);
    inbox.fail_next(inbox::faults::Fault::Refuse);
    push();
    assert_eq!(next().await, ServingStatus::NotServing);
    inbox.fail_opening(false);
    assert_eq!(next().await, ServingStatus::Serving);
    inbox.fail_next(inbox::faults::Fault::Panic);
    push();
    assert_eq!(next().await, ServingStatus::NotServing);
    let error = timeout(Duration::from_secs(10), fleet.collector.failed()).await.expect("it ends");
    assert!(error.to_string().contains("inbox"), "{error}");
    fleet.collector.stop().await;
}

#[tokio::test]
async fn a_signal_ends_a_collector_that_is_still_starting() {
    use rustix::process::{Signal, getpid, kill_process};
    let folder = tempfile::tempdir().unwrap();
    let plan = init::Plan {
        data: folder.path().join("data"),
        name: "c1".to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        names: Vec::new(),
    };
    init::init(&plan, SystemClock.now()).unwrap();
    let data = Data::new(&plan.data);
    let mut config = Config::read(&data.config(), &config::Variables::default()).unwrap();
    config.metrics_listen = String::new();
    // The start waits for what it reads here.
    let fifo = plan.data.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    config.catalogue = Some("fifo".into());
    // Whatever becomes of the collector's own, the signal does not end the test.
    let _handled = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    let running = tokio::spawn(run(config, data));
    let opened = tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(fifo));
    let mut pipe = opened.await.unwrap().unwrap();
    kill_process(getpid(), Signal::TERM).unwrap();
    let ended = timeout(Duration::from_secs(5), running).await.expect("it ends at once").unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    // So that the start, which goes on in this process, ends too.
    io::Write::write_all(&mut pipe, b"= no catalogue").unwrap();
}

#[tokio::test]
async fn a_restart_knows_who_may_call_by_the_log_alone() {
    let fleet = Fleet::start().await;
    let agent = fleet.enroll().await;
    let (serial, viewer) = fleet.credential(Role::Viewer).await;
    let request = v1::RevokeCredentialRequest { serial, reason: "x".to_owned() };
    fleet.admin().await.revoke_credential(request).await.unwrap();
    let Fleet { folder, collector } = fleet;
    collector.stop().await;
    let data = Data::new(&folder.path().join("data"));
    std::fs::remove_file(data.views()).unwrap();
    let mut config = Config::read(&data.config(), &config::Variables::default()).unwrap();
    config.metrics_listen = String::new();
    let collector = Collector::start(config, &data, Arc::new(SystemClock)).await.unwrap();
    let fleet = Fleet { folder, collector };
    let mut renewing = EnrollmentServiceClient::new(fleet.channel(&agent.pem()).await);
    renewing.renew_certificate(agent.renewal()).await.unwrap();
    let status = call(&fleet.channel(&viewer).await, "/grpc.health.v1.Health/Check").await.unwrap_err();
    assert_eq!(reason(&status), "CREDENTIAL_REVOKED");

    // A second collector never shares the folder.
    let mut config = Config::new("c1");
    config.listen = "127.0.0.1:0".parse().unwrap();
    let second = Collector::start(config, &fleet.data(), Arc::new(SystemClock)).await;
    assert!(matches!(second, Err(Error::Log(log::Error::Locked { .. }))));
    fleet.collector.stop().await;
}
