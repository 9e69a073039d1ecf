//! Connections to a collector: TLS 1.3 by hand, gRPC over it by tonic.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use muster_proto::limits;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

/// Where a collector is, and whom it must be signed by.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address.
    pub address: SocketAddr,
    roots: Arc<RootCertStore>,
}

/// A credential: certificate chain and key.
#[derive(Debug)]
pub struct Credential {
    /// Certificates, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl Credential {
    /// Reads certificates and a key from PEM.
    ///
    /// # Errors
    ///
    /// When either is missing.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { chain, key: PrivateKeyDer::from_pem_slice(key).context("no key")? })
    }
}

impl Target {
    /// Returns the collector at `address`, signed by the CA in `ca_pem`.
    ///
    /// # Panics
    ///
    /// When the PEM holds no certificate.
    pub fn new(address: SocketAddr, ca_pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate.expect("a certificate")).expect("a CA certificate");
        }
        assert!(!roots.is_empty(), "no CA certificate");
        Self { address, roots: Arc::new(roots) }
    }

    /// Returns the TLS settings of a caller with `credential`, or of one without, who may only enrol.
    ///
    /// # Errors
    ///
    /// When certificate and key do not fit.
    pub fn tls(&self, credential: Option<&Credential>) -> anyhow::Result<Arc<ClientConfig>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots.clone());
        let mut config = match credential {
            Some(credential) => builder.with_client_auth_cert(credential.chain.clone(), credential.key.clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        if credential.is_none() {
            config.alpn_protocols.push(limits::ENROLL_ALPN.to_vec());
        }
        Ok(Arc::new(config))
    }

    /// Opens a TLS connection.
    ///
    /// # Errors
    ///
    /// When the collector does not take it.
    pub async fn connect(&self, tls: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        connect(self.address, tls).await
    }

    /// Opens a connection for gRPC.
    ///
    /// # Errors
    ///
    /// When the collector does not take it.
    pub async fn channel(&self, tls: Arc<ClientConfig>) -> Result<Channel, tonic::transport::Error> {
        let address = self.address;
        let connector = tower::service_fn(move |_: http::Uri| {
            let tls = tls.clone();
            async move { connect(address, tls).await.map(TokioIo::new) }
        });
        // TLS is the connector's matter; the scheme keeps tonic from adding its own.
        Endpoint::from_shared(format!("http://{address}"))?.connect_with_connector(connector).await
    }
}

async fn connect(address: SocketAddr, tls: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(tls).connect(ServerName::from(address.ip()), stream).await
}
