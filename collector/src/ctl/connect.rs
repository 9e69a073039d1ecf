//! The connection to the collector: a credential file, TLS 1.3 that trusts the fleet's CA alone, and a gRPC channel on top.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use muster_proto::{
    caller::Caller,
    limits,
    time::{Clock as _, SystemClock, Timestamp},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use super::{
    Error,
    print::{safe, say},
};

/// The collector's port when the address names none.
const DEFAULT_PORT: u16 = 7443;
/// How long reaching the collector may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A key, its certificate chain, and the CA certificates to trust.
pub struct Credential {
    caller: Option<Caller>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
}

impl Credential {
    /// Reads a credential file and checks that it is valid at `now`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no credential, or its certificate is not valid now.
    pub fn load(path: &Path, now: Timestamp) -> Result<Self, Error> {
        let read = |source| Error::CredentialFile { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(read)?;
        let mode = file.metadata().map_err(read)?.mode();
        if is_open_to_others(mode) {
            say(&format!(
                "warning: other users of this machine may read {}, which holds a private key: chmod 600 it",
                path.display()
            ));
        }
        let mut pem = Vec::new();
        file.read_to_end(&mut pem).map_err(read)?;
        Self::parse(&pem, now).map_err(|fault| match fault {
            Fault::Malformed(reason) => Error::Credential { path: path.to_owned(), reason },
            Fault::Expired { who, from, until } => Error::Expired { who, from, until, now },
        })
    }

    fn parse(pem: &[u8], now: Timestamp) -> Result<Self, Fault> {
        let malformed = |reason: &str| Fault::Malformed(reason.to_owned());
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| malformed("it has no private key"))?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| malformed("a certificate is garbled"))?;
        let mut chain = Vec::new();
        let mut roots = RootCertStore::empty();
        let mut leaf = None;
        for (index, der) in certificates.into_iter().enumerate() {
            let (_, parsed) =
                x509_parser::parse_x509_certificate(&der).map_err(|_| malformed("a certificate is garbled"))?;
            if index > 0 && parsed.issuer() == parsed.subject() {
                roots.add(der.clone()).map_err(|_| malformed("a CA certificate cannot be used"))?;
                continue;
            }
            if index == 0 {
                let seconds = |time: x509_parser::time::ASN1Time| Timestamp::from_seconds(time.timestamp());
                let validity = parsed.validity();
                leaf = Some((caller_of(&parsed), seconds(validity.not_before), seconds(validity.not_after)));
            }
            chain.push(der);
        }
        let (caller, from, until) = leaf.ok_or_else(|| malformed("it has no certificate"))?;
        if roots.is_empty() {
            return Err(malformed("it has no CA certificate"));
        }
        let from = from.unwrap_or(Timestamp::EPOCH);
        let until = until.ok_or_else(|| malformed("its certificate ends after the year 2999"))?;
        if now < from || now > until {
            let who = caller.as_ref().map_or_else(String::new, ToString::to_string);
            return Err(Fault::Expired { who, from, until });
        }
        Ok(Self { caller, chain, key, roots })
    }

    fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// Returns whether users beside owner and group may read a file of this mode.
fn is_open_to_others(mode: u32) -> bool {
    mode & 0o004 != 0
}

enum Fault {
    Malformed(String),
    Expired { who: String, from: Timestamp, until: Timestamp },
}

/// Returns whom the certificate's one URI names.
fn caller_of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Option<Caller> {
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => uri.parse().ok(),
        _ => None,
    })
}

/// An open connection.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Channel,
    address: String,
    caller: Option<Caller>,
}

macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident: $module:ident::$client:ident),* $(,)?) => {
        $(
            $(#[$doc])*
            pub fn $name(&self) -> muster_proto::v1::$module::$client<Channel> {
                muster_proto::v1::$module::$client::new(self.channel.clone())
                    .max_decoding_message_size(limits::CLIENT_MESSAGE_BYTES)
            }
        )*
    };
}

impl Connection {
    /// Reaches the collector at `address` with the credential in `file`.
    ///
    /// # Errors
    ///
    /// A sentence that says which step failed and what to do.
    pub async fn open(address: &str, file: &Path) -> Result<Self, Error> {
        let (host, port) = parse_address(address)?;
        let credential = Credential::load(file, SystemClock.now())?;
        let config = credential
            .client_config()
            .map_err(|error| Error::Credential { path: file.to_owned(), reason: error.to_string() })?;
        let server = ServerName::try_from(host.clone()).map_err(|_| Error::Address(address.to_owned()))?;
        let dialer = Dialer { connector: TlsConnector::from(Arc::new(config)), server, host, port };
        let first = tokio::time::timeout(CONNECT_TIMEOUT, dialer.dial()).await;
        let first = first.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")));
        let first = first.map_err(|source| unreachable(address, source))?;
        let channel = channel(dialer, first).await.map_err(|error| Error::Refused {
            address: address.to_owned(),
            who: credential.caller.as_ref().map_or_else(String::new, ToString::to_string),
            reason: safe(&error.to_string()),
        })?;
        Ok(Self { channel, address: address.to_owned(), caller: credential.caller })
    }

    clients! {
        /// Returns a client of the fleet's state.
        fleet: fleet_service_client::FleetServiceClient,
        /// Returns a client for changes.
        admin: admin_service_client::AdminServiceClient,
        /// Returns a client of the evidence log.
        log: log_service_client::LogServiceClient,
        /// Returns a client for snapshots.
        snapshots: snapshot_service_client::SnapshotServiceClient,
    }

    /// Returns the address that was asked for.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the sentence for an answer that is an error.
    pub fn fault(&self, status: &tonic::Status) -> Error {
        Error::from_status(status, &self.address, self.caller.as_ref())
    }
}

#[derive(Clone)]
struct Dialer {
    connector: TlsConnector,
    server: ServerName<'static>,
    host: String,
    port: u16,
}

impl Dialer {
    async fn dial(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        self.connector.connect(self.server.clone(), stream).await
    }
}

/// Returns a channel over the connection that was just made; a later one is dialled anew.
async fn channel(dialer: Dialer, first: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    let first = Arc::new(Mutex::new(Some(first)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let (dialer, first) = (dialer.clone(), Arc::clone(&first));
        async move {
            let ready = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let stream = match ready {
                Some(stream) => stream,
                None => dialer.dial().await?,
            };
            Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    // The scheme is plain because TLS is the connector's; the name only fills `:authority`.
    Endpoint::from_static("http://collector.invalid")
        .user_agent(concat!("musterctl/", env!("CARGO_PKG_VERSION")))?
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .connect_with_connector(connector)
        .await
}

fn unreachable(address: &str, source: io::Error) -> Error {
    let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(tls) => Error::Untrusted { address: address.to_owned(), reason: safe(&why_untrusted(tls)) },
        None => Error::Unreachable { address: address.to_owned(), source },
    }
}

fn why_untrusted(tls: &rustls::Error) -> String {
    use rustls::{CertificateError::NotValidForNameContext, Error::InvalidCertificate};

    match tls {
        InvalidCertificate(NotValidForNameContext { expected, presented }) => {
            // As rustls writes them: `DnsName("vm")`, `IpAddress(127.0.0.1)`.
            let bare = |name: &String| match name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')) {
                Some(name) => name.trim_matches('"').to_owned(),
                None => name.clone(),
            };
            let names: Vec<_> = presented.iter().map(bare).collect();
            format!("its certificate is for {}, not for {}", names.join(", "), expected.to_str())
        }
        tls => tls.to_string(),
    }
}

/// Returns how far `address` reaches.
///
/// # Errors
///
/// When it is no address of a collector, or none that can be connected to.
pub fn reach(address: &str) -> Result<Reach, Error> {
    let (host, _) = parse_address(address)?;
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(Error::Address(address.to_owned())),
        Ok(ip) if ip.is_loopback() => Ok(Reach::ThisMachine),
        Err(_) if host.eq_ignore_ascii_case("localhost") => Ok(Reach::ThisMachine),
        Ok(_) | Err(_) => Ok(Reach::OtherHosts),
    }
}

/// From where an address leads to the collector.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reach {
    /// From the collector's own machine alone.
    ThisMachine,
    /// From elsewhere, too.
    OtherHosts,
}

/// Returns host and port of `https://HOST[:PORT]`.
fn parse_address(address: &str) -> Result<(String, u16), Error> {
    let wrong = || Error::Address(address.to_owned());
    let uri: http::Uri = address.parse().map_err(|_| wrong())?;
    let is_bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    if uri.scheme_str() != Some("https") || !is_bare {
        return Err(wrong());
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // `port_u16` takes a port that is none for one that is absent.
    let is_port_stated = uri.authority().is_some_and(|authority| authority.as_str() != uri.host().unwrap_or_default());
    match uri.port_u16() {
        Some(port) => Ok((host.to_owned(), port)),
        None if is_port_stated => Err(wrong()),
        None => Ok((host.to_owned(), DEFAULT_PORT)),
    }
}

/// A new file for a secret, mode 0600. It is made before the secret is asked for, which would be lost where it cannot be made.
/// Dropped unwritten, it goes away.
pub struct SecretFile {
    path: PathBuf,
    file: File,
    is_written: bool,
}

impl SecretFile {
    /// Makes the file, never over one that is there.
    ///
    /// # Errors
    ///
    /// When the file exists or cannot be made.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::Usage(format!("{} is there already; name another file", path.display()))
            }
            _ => Error::Write { path: path.to_owned(), source },
        })?;
        Ok(Self { path: path.to_owned(), file, is_written: false })
    }

    /// Writes the secret, synced.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(mut self, secret: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(secret).and_then(|()| self.file.sync_all());
        self.is_written = written.is_ok();
        written.map_err(|source| Error::Write { path: self.path.clone(), source })
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        if !self.is_written {
            // Nothing is to be done when it stays: it is empty, or holds a part that nobody takes.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_with_a_host() {
        assert_eq!(parse_address("https://c1:7443").unwrap(), ("c1".to_owned(), 7443));
        assert_eq!(parse_address("https://[::1]:1").unwrap(), ("::1".to_owned(), 1));
        assert_eq!(parse_address("https://c1/").unwrap(), ("c1".to_owned(), 7443));
        for bad in ["", "c1:7443", "http://c1:7443", "https://", "https://c1:7443/x", "https://c1:99999", "https://:1"]
        {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_loopback_address_leads_nowhere_from_another_host() {
        for address in ["https://127.0.0.1:7443", "https://127.3.2.1", "https://[::1]:7443", "https://LocalHost"] {
            assert_eq!(reach(address).unwrap(), Reach::ThisMachine, "{address}");
        }
        for address in ["https://c1:7443", "https://10.0.0.1:7443", "https://[2001:db8::1]"] {
            assert_eq!(reach(address).unwrap(), Reach::OtherHosts, "{address}");
        }
        for address in ["https://0.0.0.0:7443", "https://[::]:7443", "c1:7443"] {
            assert!(matches!(reach(address), Err(Error::Address(_))), "{address}");
        }
    }

    #[test]
    fn a_certificate_for_other_names_names_them() {
        let name = rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("c1").unwrap(),
            presented: vec!["DnsName(\"vm\")".to_owned(), "IpAddress(127.0.0.1)".to_owned(), "odd".to_owned()],
        });
        assert_eq!(why_untrusted(&name), "its certificate is for vm, 127.0.0.1, odd, not for c1");
    }

    #[test]
    fn a_key_that_everybody_may_read_is_noticed() {
        assert!(is_open_to_others(0o100_644) && is_open_to_others(0o100_604));
        assert!(!is_open_to_others(0o100_600) && !is_open_to_others(0o100_640));
    }

    #[test]
    fn a_secrets_file_is_made_before_the_secret_and_goes_away_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.pem");
        drop(SecretFile::create(&path).unwrap());
        assert!(!path.exists());
        SecretFile::create(&path).unwrap().write(b"secret").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(SecretFile::create(&path), Err(Error::Usage(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
        let nowhere = folder.path().join("absent").join("secret.pem");
        assert!(matches!(SecretFile::create(&nowhere), Err(Error::Write { .. })));
    }

    #[test]
    fn a_credential_that_cannot_be_read_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let Err(error) = Credential::load(&folder.path().join("absent.pem"), SystemClock.now()) else { panic!("read") };
        assert!(error.to_string().contains("--credential"), "{error}");
    }

    fn credential_pem(until_year: i32) -> String {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "ca");
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(Vec::new()).unwrap();
        leaf.subject_alt_names = vec![rcgen::SanType::URI("spiffe://c1/auditor/alice".try_into().unwrap())];
        leaf.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        format!("{}{}{}", key.serialize_pem(), leaf.pem(), ca_certificate.pem())
    }

    #[test]
    fn a_credential_names_its_caller_and_trusts_its_ca_alone() {
        let now = "2026-11-24T00:00:00Z".parse().unwrap();
        let credential = Credential::parse(credential_pem(2100).as_bytes(), now).ok().unwrap();
        assert_eq!(credential.caller.as_ref().map(ToString::to_string).as_deref(), Some("spiffe://c1/auditor/alice"));
        assert_eq!((credential.chain.len(), credential.roots.len()), (1, 1));
        assert!(credential.client_config().is_ok());
    }

    #[test]
    fn an_expired_credential_says_when_it_ended() {
        let now = "2026-11-24T00:00:00Z".parse().unwrap();
        let Err(Fault::Expired { until, .. }) = Credential::parse(credential_pem(2020).as_bytes(), now) else {
            panic!("taken")
        };
        assert_eq!(until.to_string(), "2020-01-01T00:00:00Z");
    }

    #[test]
    fn a_file_that_lacks_a_part_says_which() {
        let now = "2026-11-24T00:00:00Z".parse().unwrap();
        let pem = credential_pem(2100);
        let key_end = pem.find("-----BEGIN CERT").unwrap();
        for (pem, part) in [("", "private key"), (&pem[..key_end], "no certificate"), (&pem[key_end..], "private key")]
        {
            let Err(Fault::Malformed(reason)) = Credential::parse(pem.as_bytes(), now) else { panic!("taken") };
            assert!(reason.contains(part), "{reason}");
        }
    }
}
