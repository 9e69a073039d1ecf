//! TLS 1.3 of the one port: the collector's certificate, the check of the client's, and a refusal that says what to do.
//!
//! No session is kept and no ticket is handed out: resumption would skip the check of the client's certificate.

use std::{cell::RefCell, fmt, io, sync::Arc};

use arc_swap::ArcSwap;
use muster_proto::{limits, time::Clock};
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    time_provider::TimeProvider,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::peer;

/// The only application protocol spoken.
const HTTP2: &[u8] = b"h2";

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client verifier cannot be made.
    #[error("failed to make the verifier of client certificates")]
    Verifier(#[from] VerifierBuilderError),
    /// The configuration is refused.
    #[error("failed to set up TLS")]
    Config(#[from] rustls::Error),
}

/// Returns the one provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The collector's certificate, which can be replaced while connections are accepted.
pub struct ServerCertificate(ArcSwap<CertifiedKey>);

impl ServerCertificate {
    /// Returns the holder of `certificate`.
    pub fn new(certificate: Arc<CertifiedKey>) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(certificate)))
    }

    /// Shows `certificate` to connections from here on.
    pub fn replace(&self, certificate: Arc<CertifiedKey>) {
        self.0.store(certificate);
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCertificate")
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// The two ways to be served.
#[derive(Clone, Debug)]
pub struct Tls {
    members: Arc<ServerConfig>,
    enrolling: Arc<ServerConfig>,
}

impl Tls {
    /// Returns the set-up of the collector `fleet`, which trusts `roots` alone.
    ///
    /// # Errors
    ///
    /// When rustls refuses it.
    pub fn new(
        fleet: &str,
        roots: RootCertStore,
        certificate: &Arc<ServerCertificate>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        let verifier = Arc::new(MemberVerifier { fleet: fleet.to_owned(), inner: verifier });
        let time: Arc<dyn TimeProvider> = Arc::new(Time(clock));
        let builder = || {
            ServerConfig::builder_with_details(provider(), Arc::clone(&time))
                .with_protocol_versions(&[&rustls::version::TLS13])
        };
        let members = builder()?.with_client_cert_verifier(verifier).with_cert_resolver(Arc::clone(certificate) as _);
        let enrolling = builder()?.with_no_client_auth().with_cert_resolver(Arc::clone(certificate) as _);
        let finish = |mut config: ServerConfig| {
            config.alpn_protocols = vec![HTTP2.to_vec()];
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Arc::new(config)
        };
        Ok(Self { members: finish(members), enrolling: finish(enrolling) })
    }

    /// Returns the set-up that the client's first message asks for, and whether it is the one for enrolment.
    pub fn choose(&self, hello: &ClientHello<'_>) -> (Arc<ServerConfig>, bool) {
        let is_enrolling = hello.alpn().is_some_and(|mut offered| offered.any(|name| name == limits::ENROLL_ALPN));
        (Arc::clone(if is_enrolling { &self.enrolling } else { &self.members }), is_enrolling)
    }
}

struct Time(Arc<dyn Clock>);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().seconds()).ok()?;
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

tokio::task_local! {
    /// The client certificate that the handshake under way refused. rustls's error does not carry it.
    static REFUSED: RefCell<Option<Presented>>;
}

/// What can be said of a certificate that was refused.
#[derive(Clone, Debug, Default)]
struct Presented {
    issuer: String,
    identity: Option<Result<peer::Certificate, peer::Error>>,
}

/// Runs a handshake. On failure, returns why, for a log line that says what to do; `None` when the peer just went away.
pub async fn explained<T>(handshake: impl Future<Output = io::Result<T>>) -> Result<T, Option<String>> {
    REFUSED
        .scope(RefCell::default(), async {
            match handshake.await {
                Ok(done) => Ok(done),
                Err(error) => Err(explain(&error, &REFUSED.with(RefCell::take).unwrap_or_default())),
            }
        })
        .await
}

/// Checks that the client's certificate is of the fleet's CA, for clients, in its time, and carries an identity of this fleet.
#[derive(Debug)]
struct MemberVerifier {
    fleet: String,
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for MemberVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now);
        let identity = peer::identify(end_entity, &self.fleet);
        let outcome = match (verified, &identity) {
            (Ok(verified), Ok(_)) => return Ok(verified),
            (Ok(_), Err(_)) => CertificateError::ApplicationVerificationFailure.into(),
            (Err(error), _) => error,
        };
        let issuer = X509Certificate::from_der(end_entity)
            .map(|(_, parsed)| printable(&parsed.issuer().to_string()))
            .unwrap_or_default();
        // Outside of `explained` there is nobody to tell.
        let _ = REFUSED.try_with(|refused| refused.replace(Some(Presented { issuer, identity: Some(identity) })));
        Err(outcome)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

const ANOTHER: &str = "issue another with 'musterctl credentials create', or let the agent rejoin";

fn explain(error: &io::Error, presented: &Presented) -> Option<String> {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => None,
            _ => Some(format!("the handshake failed: {error}")),
        };
    };
    let whose = match &presented.identity {
        Some(Ok(certificate)) => format!(" of {} (serial {})", certificate.caller, certificate.serial),
        Some(Err(_)) | None => String::new(),
    };
    Some(match error {
        rustls::Error::NoCertificatesPresented => {
            "it showed no client certificate; pass one with --credential, or enrol with a token".to_owned()
        }
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::Expired => format!("its client certificate{whose} expired; {ANOTHER}"),
            CertificateError::ExpiredContext { not_after, .. } => {
                format!("its client certificate{whose} expired {}; {ANOTHER}", date(*not_after))
            }
            CertificateError::NotValidYet => {
                format!("its client certificate{whose} does not hold yet; is this machine's clock right?")
            }
            CertificateError::NotValidYetContext { not_before, .. } => format!(
                "its client certificate{whose} holds only from {}; is this machine's clock right?",
                date(*not_before)
            ),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "its client certificate was issued by {}, which is not this fleet's CA; {ANOTHER}",
                if presented.issuer.is_empty() { "an unnamed issuer" } else { &presented.issuer }
            ),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                format!("its certificate{whose} is not one for clients; {ANOTHER}")
            }
            CertificateError::ApplicationVerificationFailure => match &presented.identity {
                Some(Err(problem)) => {
                    format!("its client certificate names no caller of this fleet: {problem}; {ANOTHER}")
                }
                Some(Ok(_)) | None => format!("its client certificate names no caller of this fleet; {ANOTHER}"),
            },
            other => format!("its client certificate{whose} was refused: {other}; {ANOTHER}"),
        },
        rustls::Error::AlertReceived(alert) => {
            format!("it refused this collector's certificate or offer: {}", alert_text(*alert))
        }
        rustls::Error::PeerIncompatible(problem) => {
            format!("it cannot speak TLS 1.3 as this collector does ({problem:?}); use a current client")
        }
        rustls::Error::NoApplicationProtocol => "it does not offer HTTP/2 (ALPN h2); use a gRPC client".to_owned(),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS; use https and a gRPC client".to_owned(),
        other => format!("the handshake failed: {other}"),
    })
}

fn alert_text(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            format!(
                "{alert:?}; does it trust this fleet's CA and use a name that is in the certificate (setting 'names')?"
            )
        }
        other => format!("{other:?}"),
    }
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    muster_proto::time::Timestamp::from_seconds(seconds).map_or_else(|| "long ago".to_owned(), |time| time.to_string())
}

/// Returns at most 128 characters of `text`, those that are not printable ASCII replaced: a stranger chose it.
fn printable(text: &str) -> String {
    text.chars().take(128).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}
