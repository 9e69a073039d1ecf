//! Connections to the collector: TLS 1.3 by hand, gRPC over it by tonic, and words for what goes wrong.
//!
//! Only the fleet's CA is trusted, and the server's name is always checked. The connection is made before tonic sees it, so that
//! every failure has its type and its advice.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use muster_proto::{id::Digest, limits, time::Timestamp};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::identity::{CollectorUrl, Tls};

/// A connection is given up when it is not there after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between keepalives of an idle connection; they are what the collector calls "last seen".
const KEEPALIVE: Duration = Duration::from_secs(60);
/// A connection whose keepalive is not answered within this is dead.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// No connection to the collector.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached.
    #[error("cannot reach collector at {url}: {reason}")]
    Unreachable {
        /// Which.
        url: CollectorUrl,
        /// Why, and what to do.
        reason: String,
    },
    /// It was reached and is not trusted.
    #[error("do not trust the collector at {url}: {reason}")]
    Untrusted {
        /// Which.
        url: CollectorUrl,
        /// Why, and what to do.
        reason: String,
    },
    /// The agent's own certificates or keys do not serve.
    #[error("agent's TLS key or certificate is not usable: {0}")]
    Own(String),
}

/// Whom to trust before there is an identity.
#[derive(Clone, Debug)]
pub enum Trust {
    /// These CA certificates.
    Authorities(Vec<CertificateDer<'static>>),
    /// The CA certificate with this digest, which the collector sends along.
    Pin(Digest),
}

/// Returns the TLS settings of an enrolled agent.
///
/// # Errors
///
/// [`Error::Own`] when key, certificate and CA certificates do not fit together.
pub fn member(tls: Tls) -> Result<Arc<ClientConfig>, Error> {
    let own = |error: rustls::Error| Error::Own(error.to_string());
    let mut config =
        builder()?.with_root_certificates(roots(&tls.roots)?).with_client_auth_cert(tls.chain, tls.key).map_err(own)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(frugal(config)))
}

/// Returns the TLS settings of a caller without a certificate, who may only enrol.
///
/// # Errors
///
/// [`Error::Own`] when a CA certificate is not usable.
pub fn stranger(trust: &Trust) -> Result<Arc<ClientConfig>, Error> {
    let mut config = match trust {
        Trust::Authorities(authorities) => builder()?.with_root_certificates(roots(authorities)?).with_no_client_auth(),
        Trust::Pin(pin) => builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinVerifier { pin: *pin, provider: provider() }))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![limits::ENROLL_ALPN.to_vec(), b"h2".to_vec()];
    Ok(Arc::new(frugal(config)))
}

/// Opens a connection for gRPC. It does not reconnect: when it ends, its calls fail. `now` is for the words of an error.
///
/// # Errors
///
/// Says why there is none, in words for the person who must mend it.
pub async fn open(url: &CollectorUrl, tls: Arc<ClientConfig>, now: Timestamp) -> Result<Channel, Error> {
    let unreachable = |reason: String| Error::Unreachable { url: url.clone(), reason };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, handshake(url, tls))
        .await
        .map_err(|_| unreachable(format!("no answer within {} s; is a firewall between?", CONNECT_TIMEOUT.as_secs())))?
        .map_err(|error| explain(url, &error, now))?;
    let once = Mutex::new(Some(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.lock().map(|mut stream| stream.take()).ok().flatten();
        async move { stream.map(TokioIo::new).ok_or(io::Error::from(io::ErrorKind::NotConnected)) }
    });
    // TLS is done; the scheme keeps tonic from adding its own.
    let endpoint = Endpoint::from_shared(format!("http://{}", url.authority()))
        .map_err(|error| unreachable(error.to_string()))?
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .buffer_size(16);
    endpoint.connect_with_connector(connector).await.map_err(|error| unreachable(chain_of(&error)))
}

/// Returns an error and its causes in one line.
pub fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Returns why a call failed, for a person: what the collector said, or what became of the connection.
pub fn call_failure(status: &tonic::Status) -> String {
    let mut cause = std::error::Error::source(status);
    let mut text = status.message().to_owned();
    while let Some(error) = cause {
        // Only for the words; nothing is decided by it.
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                return "the connection broke; the collector or the network went away".to_owned();
            }
            Some(io::ErrorKind::TimedOut) => return "the connection went silent".to_owned(),
            Some(_) | None => text = error.to_string(),
        }
        cause = error.source();
    }
    text
}

async fn handshake(url: &CollectorUrl, tls: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(url.host_port()).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(tls).connect(url.server_name(), stream).await
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Error::Own(error.to_string()))
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone()).map_err(|error| Error::Own(format!("CA certificate: {error}")))?;
    }
    Ok(store)
}

/// One connection at a time, days apart: remembering sessions would only cost memory.
fn frugal(mut config: ClientConfig) -> ClientConfig {
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// Believes a server whose chain holds the CA certificate with the right digest, and is then checked against that one alone.
#[derive(Debug)]
struct PinVerifier {
    pin: Digest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| Digest::of_bytes(certificate) == self.pin)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|_| CertificateError::UnknownIssuer)?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn explain(url: &CollectorUrl, error: &io::Error, now: Timestamp) -> Error {
    let unreachable = |reason: String| Error::Unreachable { url: url.clone(), reason };
    let untrusted = |reason: String| Error::Untrusted { url: url.clone(), reason };
    let (host, port) = url.host_port();
    // tokio-rustls hands rustls's error on inside an io::Error; there is no other way to it.
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return unreachable(match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("nothing listens on port {port} of {host}; is the collector running?"),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                "it closed the connection during the handshake; is it a Muster collector, and is this host allowed to connect?".to_owned()
            }
            _ => error.to_string(),
        });
    };
    let rustls::Error::InvalidCertificate(problem) = tls else {
        return match tls {
            rustls::Error::AlertReceived(alert) => unreachable(format!("it refused the handshake ({alert:?})")),
            rustls::Error::InvalidMessage(_) => {
                unreachable("it does not speak TLS; is this the right port?".to_owned())
            }
            other => unreachable(other.to_string()),
        };
    };
    match problem {
        CertificateError::ExpiredContext { not_after, .. } => unreachable(format!(
            "its certificate expired {} (clock here {}); if this host's clock is right, restart the collector",
            date(*not_after),
            day(now)
        )),
        CertificateError::NotValidYetContext { not_before, .. } => unreachable(format!(
            "its certificate holds only from {} (clock here {}); set this host's clock",
            date(*not_before),
            day(now)
        )),
        CertificateError::NotValidForNameContext { presented, .. } => untrusted(format!(
            "its certificate is for {}, not for {host}; use one of these names, or add {host} to 'names' in the collector's settings",
            presented.join(", ")
        )),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => untrusted(
            "its certificate is not issued by the CA that this agent trusts; is it another collector, or was its CA replaced?".to_owned(),
        ),
        other => untrusted(format!("{other:?}")),
    }
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok().and_then(Timestamp::from_seconds);
    seconds.map_or_else(|| "at an unknown time".to_owned(), day)
}

fn day(time: Timestamp) -> String {
    time.to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(error: rustls::Error) -> String {
        let url = "https://c1:7443".parse().unwrap();
        let now = Timestamp::from_seconds(1_795_392_000).unwrap();
        explain(&url, &io::Error::other(error), now).to_string()
    }

    #[test]
    fn a_refused_certificate_is_explained_with_both_dates() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = CertificateError::ExpiredContext { time: at(1_795_392_000), not_after: at(1_795_132_800) };
        assert_eq!(
            explained(expired.into()),
            "cannot reach collector at https://c1:7443: its certificate expired 2026-11-20 (clock here 2026-11-23); \
             if this host's clock is right, restart the collector"
        );
        assert!(explained(CertificateError::UnknownIssuer.into()).starts_with("do not trust the collector"));
    }
}
