//! A collector in this process: real TLS, real gRPC, a real log in memory, and whatever faults a test asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use muster_proto::{
    caller::Caller,
    id::{AgentId, Digest, Epoch},
    limits,
    report::Report,
    seal::{self, EvidencePublicKey},
    time::{Clock as _, SystemClock},
    v1::{
        self,
        enrollment_service_server::{EnrollmentService, EnrollmentServiceServer},
        ingest_service_server::{IngestService, IngestServiceServer},
        stream_reports_request as request, stream_reports_response as response,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair, SanType,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{checkpoint::testing::TestLog, identity::CollectorUrl};

/// What the collector does, as a test sets it.
pub(crate) struct Script {
    /// Lifetime of certificates that it issues.
    pub lifetime: Duration,
    /// The token that it takes.
    pub token: &'static str,
    /// Whether certificates carry another agent's name.
    pub misnames: bool,
    /// Whether certificates come with another fleet's CA.
    pub other_ca: bool,
    /// Signs checkpoints with another key from here on.
    pub forges: bool,
    /// Refuses the next report as out of order, once.
    pub forgets_once: bool,
    /// Refuses the next report of facts as malformed, and takes nothing more of its epoch.
    pub refuses_facts_once: bool,
    /// Acknowledges nothing.
    pub is_mute: bool,
    /// Ends a stream before Welcome with this reason.
    pub refuses: Option<&'static str>,
    /// Says in Welcome that this many reports are durable, whatever is.
    pub claims_durable: Option<u64>,
}

/// What the collector saw, in order.
#[derive(Debug)]
pub(crate) enum Seen {
    Enrolled,
    Rejoined,
    Renewed(AgentId),
    Hello,
    Report(Box<Report>),
}

pub(crate) struct Inner {
    pub script: Script,
    pub log: TestLog,
    other_log: TestLog,
    /// Epochs of which a report was refused.
    refused: BTreeSet<Epoch>,
    /// Durable heads.
    heads: BTreeMap<Epoch, (u64, Digest)>,
    keys: BTreeMap<AgentId, EvidencePublicKey>,
    streams: Vec<mpsc::Sender<Result<v1::StreamReportsResponse, Status>>>,
}

/// The collector.
pub(crate) struct Collector {
    pub url: CollectorUrl,
    pub ca_pem: String,
    pub pin: Digest,
    pub inner: Arc<Mutex<Inner>>,
    pub seen: mpsc::UnboundedReceiver<Seen>,
}

#[derive(Clone)]
struct Service {
    inner: Arc<Mutex<Inner>>,
    authority: Arc<CertifiedIssuer<'static, KeyPair>>,
    other: Arc<CertifiedIssuer<'static, KeyPair>>,
    seen: mpsc::UnboundedSender<Seen>,
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Collector {
    /// Starts a collector on loopback. `lifetime` is that of its own certificate; a negative one has ended.
    pub(crate) async fn start(lifetime_hours: i64) -> Self {
        let authority = Arc::new(authority("CA"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, seen) = mpsc::unbounded_channel();
        let script = Script {
            lifetime: Duration::from_secs(3_600),
            token: "good",
            misnames: false,
            other_ca: false,
            forges: false,
            forgets_once: false,
            refuses_facts_once: false,
            is_mute: false,
            refuses: None,
            claims_durable: None,
        };
        let inner = Arc::new(Mutex::new(Inner {
            script,
            log: TestLog::new("c1", 7),
            other_log: TestLog::new("c1", 8),
            refused: BTreeSet::new(),
            heads: BTreeMap::new(),
            keys: BTreeMap::new(),
            streams: Vec::new(),
        }));
        let service = Service {
            inner: Arc::clone(&inner),
            authority: Arc::clone(&authority),
            other: Arc::new(self::authority("other")),
            seen: sender,
        };
        let tls = TlsAcceptor::from(server_tls(&authority, lifetime_hours));
        tokio::spawn(serve(listener, tls, service));
        Self {
            url: format!("https://127.0.0.1:{port}").parse().unwrap(),
            ca_pem: authority.pem(),
            pin: Digest::of_bytes(authority.der()),
            inner,
            seen,
        }
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Says something on every open stream.
    pub(crate) fn say(&self, step: response::Step) {
        for stream in &self.inner().streams {
            // A stream that has ended hears nothing.
            let _ = stream.try_send(Ok(v1::StreamReportsResponse { step: Some(step.clone()) }));
        }
    }

    /// Ends every stream as a collector that stops does.
    pub(crate) fn drop_streams(&self) {
        self.inner().streams.clear();
    }

    pub(crate) async fn next(&mut self) -> Seen {
        let next = tokio::time::timeout(Duration::from_secs(20), self.seen.recv()).await;
        next.expect("nothing came within 20 s").expect("the collector lives")
    }

    /// Waits for a report of which `is_it` is true, and returns it with those before it.
    pub(crate) async fn until(&mut self, is_it: impl Fn(&Report) -> bool) -> Vec<Report> {
        let mut reports = Vec::new();
        loop {
            if let Seen::Report(report) = self.next().await {
                reports.push(*report);
                if reports.last().is_some_and(&is_it) {
                    return reports;
                }
            }
        }
    }
}

fn server_tls(authority: &CertifiedIssuer<'static, KeyPair>, lifetime_hours: i64) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let now = SystemClock.now().seconds();
    let at = |seconds: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap());
    params.not_before = at(now - 100 * 3_600);
    params.not_after = at(now + lifetime_hours * 3_600);
    let certificate = params.signed_by(&key, authority).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(
            vec![certificate.der().clone(), authority.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, service: Service) {
    let (sender, incoming) = mpsc::channel::<io::Result<Connection>>(4);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = tls.accept(stream).await
                && sender.send(Ok(Connection(stream))).await.is_err()
            {
                return;
            }
        }
    });
    tonic::transport::Server::builder()
        .add_service(EnrollmentServiceServer::new(service.clone()))
        .add_service(IngestServiceServer::new(service).max_decoding_message_size(limits::AGENT_MESSAGE_BYTES))
        .serve_with_incoming(ReceiverStream::new(incoming))
        .await
        .unwrap();
}

struct Connection(TlsStream<TcpStream>);

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Option<CertificateDer<'static>>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Some(self.0.get_ref().1.peer_certificates()?.first()?.clone().into_owned())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn refused(reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "muster.v1", std::collections::HashMap::new());
    Status::with_error_details(tonic::Code::PermissionDenied, "no", details)
}

impl Service {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn identity(&self, agent: AgentId, csr: Vec<u8>) -> v1::AgentIdentity {
        let inner = self.lock();
        let request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let named = if inner.script.misnames { AgentId::new([0; 16]) } else { agent };
        let mut params = CertificateParams::default();
        let id = Caller::agent("c1", named).unwrap().to_string();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        let now = SystemClock.now();
        let expire = now.plus(inner.script.lifetime);
        let at = |seconds: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap());
        (params.not_before, params.not_after) = (at(now.seconds() - 3_600), at(expire.seconds()));
        let certificate = params.signed_by(&request.public_key, &*self.authority).unwrap();
        let bundle = if inner.script.other_ca { &self.other } else { &self.authority };
        v1::AgentIdentity {
            agent_id: agent.as_bytes().to_vec(),
            certificate_chain_pem: certificate.pem(),
            ca_bundle_pem: bundle.pem(),
            log_key: inner.log.key().to_owned(),
            renew_time: Some(now.plus(inner.script.lifetime / 2).to_wire()),
        }
    }

    fn caller(request: &Request<impl Sized>) -> Result<AgentId, Status> {
        let certificate = request.extensions().get::<Option<CertificateDer<'static>>>().cloned().flatten();
        let certificate = certificate.ok_or_else(|| Status::unauthenticated("no certificate"))?;
        Ok(crate::identity::leaf(&certificate).unwrap().caller.agent_id().unwrap())
    }

    fn proved(&self, agent: AgentId, domain: &str, signed: &[u8], proof: &[u8]) -> Result<(), Status> {
        let key = self.lock().keys.get(&agent).cloned().ok_or_else(|| refused("AGENT_UNKNOWN"))?;
        key.verify(domain, signed, proof).map_err(|_| refused("PROOF_INVALID"))
    }
}

#[tonic::async_trait]
impl EnrollmentService for Service {
    async fn enroll_agent(
        &self,
        request: Request<v1::EnrollAgentRequest>,
    ) -> Result<Response<v1::EnrollAgentResponse>, Status> {
        let request = request.into_inner();
        if request.token != self.lock().script.token {
            return Err(refused("TOKEN_INVALID"));
        }
        let key = EvidencePublicKey::new(&request.evidence_public_key).unwrap();
        let agent = key.agent_id();
        self.lock().keys.insert(agent, key);
        self.proved(agent, seal::ENROLL_DOMAIN, Digest::of_bytes(&request.csr).as_bytes(), &request.proof)?;
        let identity = self.identity(agent, request.csr);
        self.seen.send(Seen::Enrolled).unwrap();
        Ok(Response::new(v1::EnrollAgentResponse { identity: Some(identity) }))
    }

    async fn rejoin_agent(
        &self,
        request: Request<v1::RejoinAgentRequest>,
    ) -> Result<Response<v1::RejoinAgentResponse>, Status> {
        let request = request.into_inner();
        let agent = AgentId::from_slice(&request.agent_id).unwrap();
        let seconds = request.request_time.unwrap().seconds;
        let signed = [Digest::of_bytes(&request.csr).as_bytes().as_slice(), &seconds.to_be_bytes()].concat();
        self.proved(agent, seal::REJOIN_DOMAIN, &signed, &request.proof)?;
        let identity = self.identity(agent, request.csr);
        self.seen.send(Seen::Rejoined).unwrap();
        Ok(Response::new(v1::RejoinAgentResponse { identity: Some(identity) }))
    }

    async fn renew_certificate(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateResponse>, Status> {
        let agent = Self::caller(&request)?;
        let request = request.into_inner();
        self.proved(agent, seal::RENEW_DOMAIN, Digest::of_bytes(&request.csr).as_bytes(), &request.proof)?;
        let identity = self.identity(agent, request.csr);
        self.seen.send(Seen::Renewed(agent)).unwrap();
        Ok(Response::new(v1::RenewCertificateResponse { identity: Some(identity) }))
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<v1::StreamReportsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl IngestService for Service {
    type StreamReportsStream = Responses;

    async fn stream_reports(
        &self,
        request: Request<Streaming<v1::StreamReportsRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let agent = Self::caller(&request)?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.step);
        let Some(request::Step::Hello(hello)) = first else { return Err(refused("HELLO_EXPECTED")) };
        let epoch = Epoch::from_slice(&hello.epoch).unwrap();
        let (sender, responses) = mpsc::channel(64);
        {
            let mut inner = self.lock();
            if let Some(reason) = inner.script.refuses {
                return Err(refused(reason));
            }
            let (durable, digest) = match inner.heads.get(&epoch) {
                Some((durable, digest)) => (*durable, digest.as_bytes().to_vec()),
                None => (0, Vec::new()),
            };
            let durable = inner.script.claims_durable.take().unwrap_or(durable);
            let held = hello.last_checkpoint.as_ref().map_or(0, |held| held.size);
            let proven = hello.proven_checkpoint.as_ref().map_or(0, |proven| proven.size);
            let log = if inner.script.forges { &inner.other_log } else { &inner.log };
            let welcome = v1::Welcome {
                session_nonce: vec![3; 16],
                durable_through_sequence: durable,
                durable_digest: digest,
                checkpoint: if log.size() == 0 { Vec::new() } else { log.note() },
                consistency_proof: log.proof_from(held),
                proven_consistency_proof: log.proof_from(proven),
                collector_time: Some(SystemClock.now().to_wire()),
                limits: Some(v1::IngestLimits { window_reports: 4, report_bytes: 61_440 }),
            };
            let step = response::Step::Welcome(Box::new(welcome));
            sender.try_send(Ok(v1::StreamReportsResponse { step: Some(step) })).unwrap();
            inner.streams.push(sender);
        }
        self.seen.send(Seen::Hello).unwrap();
        let service = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(v1::StreamReportsRequest { step: Some(request::Step::Report(sealed)) })) =
                requests.message().await
            {
                service.take(agent, &sealed);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

impl Service {
    fn take(&self, agent: AgentId, sealed: &v1::SealedReport) {
        let mut inner = self.lock();
        inner.keys[&agent].verify_sealed(sealed).unwrap();
        let report = Report::decode(&sealed.report).unwrap();
        let (durable, head) = inner.heads.get(&report.epoch).map_or((0, None), |(seq, digest)| (*seq, Some(*digest)));
        if std::mem::take(&mut inner.script.forgets_once) || report.seq.number() > durable + 1 {
            let rejection = v1::Rejection {
                sequence: report.seq.number(),
                reason: v1::RejectionReason::OutOfOrder.into(),
                detail: "lost".to_owned(),
                expected_sequence: durable + 1,
            };
            inner.answer(response::Step::Rejection(rejection));
            return;
        }
        if inner.script.refuses_facts_once && matches!(report.body, muster_proto::report::Body::Facts(_)) {
            let rejection = v1::Rejection {
                sequence: report.seq.number(),
                reason: v1::RejectionReason::Malformed.into(),
                detail: "it is not one".to_owned(),
                expected_sequence: durable + 1,
            };
            inner.refused.insert(report.epoch);
            inner.script.refuses_facts_once = false;
            inner.answer(response::Step::Rejection(rejection));
            return;
        }
        // A report that is refused blocks its chain.
        if inner.refused.contains(&report.epoch) {
            return;
        }
        if report.seq.number() == durable + 1 {
            assert_eq!(report.previous, head, "the chain");
            inner.heads.insert(report.epoch, (durable + 1, seal::sealed_digest(sealed)));
            inner.log.push(&sealed.report);
            inner.other_log.push(&sealed.report);
            let through_sequence = report.seq.number();
            // Nobody listens at the end of a test.
            let _ = self.seen.send(Seen::Report(Box::new(report)));
            let checkpoint = if inner.script.forges { inner.other_log.note() } else { inner.log.note() };
            if !inner.script.is_mute {
                inner.answer(response::Step::Durable(v1::Durable { through_sequence, checkpoint }));
            }
        }
    }
}

impl Inner {
    fn answer(&self, step: response::Step) {
        if let Some(stream) = self.streams.last() {
            let _ = stream.try_send(Ok(v1::StreamReportsResponse { step: Some(step) }));
        }
    }
}
