//! Who this agent is: its keys and certificates in `identity/` of the state folder.
//!
//! ```text
//! identity/                 0700
//!   evidence.key            0600  Ed25519 evidence key, PKCS#8 DER; made once, never replaced
//!   tls.pem                 0600  TLS key and certificate chain, replaced as one file at each renewal
//!   ca.pem                        CA certificates to trust
//!   identity.toml                 agent id, collector, log key, times; written last: an agent without it has no identity
//! ```
//!
//! Every file is written beside its place, synced and renamed, and the folder is synced after it.

use std::{
    fmt, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use muster_proto::{
    caller::Caller,
    id::AgentId,
    seal::{self, EvidenceKey},
    time::Timestamp,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, LogKey};

/// The identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("failed to {act} {}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Others can reach what must be the agent's alone.
    #[error("{} is open to others (mode {mode:04o}): it holds this host's keys; run 'chmod {expected:o} {}'", path.display(), path.display())]
    Open {
        /// What.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        expected: u32,
    },
    /// Another user owns what must be the agent's.
    #[error("{} belongs to user {owner}, but the agent runs as user {user}; run the agent as that user or change the owner", path.display())]
    Owner {
        /// What.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who runs the agent.
        user: u32,
    },
    /// A file does not hold what it should. The evidence key makes the agent, everything else can be had again.
    #[error(
        "{} is not usable: {reason}; put back a copy, or delete identity.toml beside it and enrol this host again with \
         'muster-agent enroll': it stays the same agent",
        path.display()
    )]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The evidence key is missing, not one, or another agent's.
    #[error(
        "{} is not usable: {reason}; put back a copy. Without it this host can only become another agent: revoke this one with \
         'musterctl hosts revoke', delete the state folder, and enrol again",
        path.display()
    )]
    EvidenceKey {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An evidence key could not be made.
    #[error("failed to make an evidence key")]
    Key(#[from] seal::Error),
    /// The log key is not one.
    #[error("log key of the collector is not usable")]
    LogKey(#[from] checkpoint::Error),
    /// A certificate that the collector gave is not this agent's.
    #[error("certificate is not this agent's: {0}")]
    Certificate(String),
}

/// Address of a collector: `https://HOST:PORT`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct CollectorUrl {
    host: String,
    port: u16,
}

impl CollectorUrl {
    /// Returns the name that the collector's certificate must carry.
    pub fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.host.clone()).expect("checked when it was parsed")
    }

    /// Returns host and port for a connection.
    pub fn host_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Returns the authority of HTTP requests.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for CollectorUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = || format!("{text:?} is not an address such as https://c1.example:7443");
        let uri: http::Uri = text.parse().map_err(|_| expected())?;
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(expected());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(expected());
        }
        let host = uri.host().ok_or_else(expected)?.trim_matches(['[', ']']).to_owned();
        ServerName::try_from(host.as_str()).map_err(|_| expected())?;
        Ok(Self { host, port: uri.port_u16().unwrap_or(7443) })
    }
}

impl TryFrom<String> for CollectorUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<CollectorUrl> for String {
    fn from(url: CollectorUrl) -> Self {
        url.to_string()
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

/// What the agent knows of itself: `identity.toml`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Version of this file; 1.
    pub version: u32,
    /// The agent's id: it follows from its evidence key.
    pub agent: AgentId,
    /// Where it was enrolled.
    pub collector: CollectorUrl,
    /// Key of the collector's log. It is taken at enrolment and never changed by a renewal.
    pub log_key: String,
    /// The certificate's serial number, hex.
    pub certificate_serial: String,
    /// When to renew the certificate.
    pub renew_time: Timestamp,
    /// End of the certificate.
    pub expire_time: Timestamp,
}

/// A new or renewed identity, as the collector gave it, with the key that the agent made for it.
#[derive(Debug)]
pub struct Issued {
    /// What goes into `identity.toml`.
    pub identity: Identity,
    /// TLS key and certificate chain, PEM.
    pub tls_pem: String,
    /// CA certificates, PEM.
    pub ca_pem: String,
}

/// What a TLS connection needs.
pub struct Tls {
    /// The agent's certificate chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// CA certificates to trust, and no others.
    pub roots: Vec<CertificateDer<'static>>,
}

/// The folder of the identity.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Returns the identity's folder in `state`, making both if they are not there.
    ///
    /// # Errors
    ///
    /// When they cannot be made, belong to another user, or are open to others.
    pub fn open(state: &Path) -> Result<Self, Error> {
        let path = state.join("identity");
        for folder in [state, path.as_path()] {
            make_private_folder(folder)?;
            check_private(folder, 0o700)?;
        }
        let folder = Self { path };
        for file in ["evidence.key", "tls.pem"] {
            let file = folder.path.join(file);
            if file.exists() {
                check_private(&file, 0o600)?;
            }
        }
        Ok(folder)
    }

    /// Returns the identity's folder in `state` as it is, to read from it.
    pub fn below(state: &Path) -> Self {
        Self { path: state.join("identity") }
    }

    /// Returns the identity, or `None` before enrolment.
    ///
    /// # Errors
    ///
    /// When the file is there and not usable, or does not belong to the evidence key beside it.
    pub fn identity(&self) -> Result<Option<Identity>, Error> {
        let path = self.path.join("identity.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::File { act: "read", path, source }),
        };
        let unusable = |reason: String| Error::Content { path: path.clone(), reason };
        let identity: Identity = toml::from_str(&text).map_err(|error| unusable(error.message().to_owned()))?;
        if identity.version != 1 {
            return Err(unusable(format!("version {} is of a newer agent", identity.version)));
        }
        LogKey::new(&identity.log_key)?;
        let wrong_key =
            |reason: &str| Error::EvidenceKey { path: self.path.join("evidence.key"), reason: reason.to_owned() };
        let key = self.evidence_key()?.ok_or_else(|| wrong_key("it is missing"))?;
        if key.agent_id() != identity.agent {
            return Err(wrong_key(&format!("it is of agent {}, not of {}", key.agent_id(), identity.agent)));
        }
        Ok(Some(identity))
    }

    /// Returns the evidence key, or `None` when none was made yet.
    ///
    /// # Errors
    ///
    /// When the file is there and not a key.
    pub fn evidence_key(&self) -> Result<Option<EvidenceKey>, Error> {
        let path = self.path.join("evidence.key");
        match std::fs::read(&path) {
            Ok(pkcs8) => match EvidenceKey::from_pkcs8(&pkcs8) {
                Ok(key) => Ok(Some(key)),
                Err(error) => Err(Error::EvidenceKey { path, reason: error.to_string() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { act: "read", path, source }),
        }
    }

    /// Returns the evidence key, made and synced to disk now if there was none: no request may name a key that a crash could lose.
    ///
    /// # Errors
    ///
    /// When it cannot be made, kept or read.
    pub fn evidence_key_or_new(&self) -> Result<EvidenceKey, Error> {
        if let Some(key) = self.evidence_key()? {
            return Ok(key);
        }
        let (key, pkcs8) = EvidenceKey::generate()?;
        write(&self.path.join("evidence.key"), &pkcs8, 0o600)?;
        Ok(key)
    }

    /// Returns what a TLS connection needs.
    ///
    /// # Errors
    ///
    /// When a file is missing or does not hold what it should.
    pub fn tls(&self) -> Result<Tls, Error> {
        let tls = self.read("tls.pem")?;
        let chain = certificates(&tls).ok_or_else(|| self.unusable("tls.pem", "it has no certificate chain"))?;
        let key = PrivateKeyDer::from_pem_slice(&tls).map_err(|_| self.unusable("tls.pem", "it has no private key"))?;
        Ok(Tls { chain, key, roots: self.roots()? })
    }

    /// Returns the CA certificates to trust.
    ///
    /// # Errors
    ///
    /// When the file is missing or holds none.
    pub fn roots(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        certificates(&self.read("ca.pem")?).ok_or_else(|| self.unusable("ca.pem", "it has no certificate"))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.path.join(name);
        std::fs::read(&path).map_err(|source| Error::File { act: "read", path, source })
    }

    fn unusable(&self, name: &str, reason: &str) -> Error {
        Error::Content { path: self.path.join(name), reason: reason.to_owned() }
    }

    /// Keeps an identity. `identity.toml` is written last, so that a crash leaves either the old identity or the new one.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn keep(&self, issued: &Issued) -> Result<(), Error> {
        write(&self.path.join("ca.pem"), issued.ca_pem.as_bytes(), 0o644)?;
        write(&self.path.join("tls.pem"), issued.tls_pem.as_bytes(), 0o600)?;
        let text = toml::to_string(&issued.identity).expect("an identity is a table of texts");
        write(&self.path.join("identity.toml"), text.as_bytes(), 0o644)
    }
}

/// Returns the certificates of a PEM text; `None` when there is none or one is broken.
pub fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()?;
    (!certificates.is_empty()).then_some(certificates)
}

/// What a leaf certificate says.
#[derive(Debug)]
pub struct Leaf {
    /// Serial number, hex.
    pub serial: String,
    /// End of its life.
    pub expire: Timestamp,
    /// Its subject public key info, DER.
    pub public_key: Vec<u8>,
    /// The one URI among its names.
    pub caller: Caller,
}

/// Returns what the leaf certificate `der` says.
///
/// # Errors
///
/// [`Error::Certificate`] when it is not a certificate with one SPIFFE id.
pub fn leaf(der: &CertificateDer<'_>) -> Result<Leaf, Error> {
    use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

    let wrong = |reason: &str| Error::Certificate(reason.to_owned());
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| wrong("it is not X.509"))?;
    let names = certificate.subject_alternative_name().ok().flatten().ok_or_else(|| wrong("it has no names"))?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return Err(wrong("it has not exactly one name, a URI"));
    };
    let caller = uri.parse().map_err(|error| Error::Certificate(format!("{error}")))?;
    let expire = Timestamp::from_seconds(certificate.validity().not_after.timestamp())
        .ok_or_else(|| wrong("its end is outside every range"))?;
    Ok(Leaf {
        serial: hex::encode(certificate.raw_serial()),
        expire,
        public_key: certificate.public_key().raw.to_vec(),
        caller,
    })
}

fn make_private_folder(path: &Path) -> Result<(), Error> {
    match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(source) => Err(Error::File { act: "make folder", path: path.to_owned(), source }),
    }
}

/// Refuses what others can reach: whoever reads the evidence key can speak for this host.
fn check_private(path: &Path, expected: u32) -> Result<(), Error> {
    let metadata =
        std::fs::metadata(path).map_err(|source| Error::File { act: "inspect", path: path.to_owned(), source })?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::Open { path: path.to_owned(), mode, expected });
    }
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(Error::Owner { path: path.to_owned(), owner, user });
    }
    Ok(())
}

/// Writes `bytes` to `path` so that after a crash the file is wholly old or wholly new.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let folder = path.parent().expect("a file of the identity has a folder");
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let steps = || -> io::Result<()> {
        use std::io::Write as _;

        // A leftover of a crash may have another mode.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    steps().map_err(|source| Error::File { act: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_or_key_that_others_can_reach_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let state = temporary.path().join("state");
        let folder = Folder::open(&state).unwrap();
        folder.evidence_key_or_new().unwrap();
        assert!(Folder::open(&state).is_ok());
        for (path, open, private) in
            [("", 0o750, 0o700), ("identity", 0o701, 0o700), ("identity/evidence.key", 0o640, 0o600)]
        {
            let path = if path.is_empty() { state.clone() } else { state.join(path) };
            chmod(&path, open);
            let error = Folder::open(&state).unwrap_err();
            assert!(error.to_string().contains(&format!("chmod {private:o} {}", path.display())), "{error}");
            chmod(&path, private);
        }
        assert!(Folder::open(&state).is_ok());
    }

    #[test]
    fn the_evidence_key_is_made_once() {
        let temporary = tempfile::tempdir().unwrap();
        let state = temporary.path().join("state");
        let folder = Folder::open(&state).unwrap();
        let id = folder.evidence_key_or_new().unwrap().agent_id();
        assert_eq!(folder.evidence_key_or_new().unwrap().agent_id(), id);
        assert_eq!(Folder::open(&state).unwrap().evidence_key().unwrap().unwrap().agent_id(), id);
    }

    #[test]
    fn an_agent_without_identity_file_has_no_identity_and_a_broken_one_is_an_error() {
        let temporary = tempfile::tempdir().unwrap();
        let state = temporary.path().join("state");
        let folder = Folder::open(&state).unwrap();
        folder.evidence_key_or_new().unwrap();
        assert!(folder.identity().unwrap().is_none());
        std::fs::write(state.join("identity/identity.toml"), "version = 1\n").unwrap();
        let error = folder.identity().unwrap_err();
        assert!(matches!(error, Error::Content { .. }));
        assert!(
            error.to_string().contains("identity.toml is not usable")
                && error.to_string().contains("muster-agent enroll")
        );
        std::fs::write(state.join("identity/evidence.key"), "x").unwrap();
        let error = folder.evidence_key().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("evidence.key is not usable") && error.contains("musterctl hosts revoke"), "{error}");
    }

    #[test]
    fn an_address_has_a_scheme_a_host_and_a_port() {
        for (text, shown, name) in [
            ("https://c1.example:7443", "https://c1.example:7443", "c1.example"),
            ("https://c1.example", "https://c1.example:7443", "c1.example"),
            ("https://127.0.0.1:8443/", "https://127.0.0.1:8443", "127.0.0.1"),
            ("https://[::1]:7443", "https://[::1]:7443", "::1"),
        ] {
            let url: CollectorUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.server_name().to_str(), name);
        }
        for bad in
            ["", "c1:7443", "http://c1:7443", "https://", "https://c1/x", "https://c1?x", "https://a@c1", "https://c 1"]
        {
            assert!(bad.parse::<CollectorUrl>().is_err(), "{bad}");
        }
    }
}
