//! How this host becomes an agent of a fleet and stays one: enrolment by token, renewal over mutual TLS, and rejoining by proof of
//! the evidence key once the certificate has expired.
//!
//! The evidence key is on disk before any request names it, and `identity.toml` is written after everything else. So a crash at any
//! step leaves a host that can simply enrol again: the same key with the same token is one use.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use muster_proto::{
    id::Digest,
    limits,
    seal::{ENROLL_DOMAIN, EvidenceKey, REJOIN_DOMAIN, RENEW_DOMAIN},
    time::{Clock as _, SystemClock, Timestamp},
    v1::{self, enrollment_service_client::EnrollmentServiceClient},
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    checkpoint::LogKey,
    connect::{self, Trust},
    identity::{self, CollectorUrl, Folder, Identity, Issued},
};

/// An answer that is not there after this is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// This host has no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The enrolment file cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The enrolment file may not be read.
    #[error(
        "user {user} may not read {} (mode {mode:04o}, user {owner}, group {group}); run 'chown {user} {}'",
        path.display(), path.display()
    )]
    Denied {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Who owns it.
        owner: u32,
        /// Its group.
        group: u32,
        /// Who tried.
        user: u32,
    },
    /// The enrolment file is not one.
    #[error("{} is not an enrolment file: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// No connection.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The collector refused.
    #[error("{}", refusal(reason, message))]
    Refused {
        /// Its reason.
        reason: String,
        /// What it said.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The call failed on the way.
    #[error("collector did not answer: {0}")]
    Call(String),
    /// The collector's answer cannot be used.
    #[error("collector's answer is not usable: {0}")]
    Answer(String),
    /// Keys or files of the identity.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// A key or request could not be made.
    #[error("failed to make a TLS key")]
    Key(#[from] rcgen::Error),
}

impl Error {
    /// Returns whether trying again can help without anyone doing something.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect(connect::Error::Unreachable { .. }) | Self::Call(_) => true,
            Self::Refused { reason, .. } => reason == "TOO_MANY_ATTEMPTS",
            Self::Connect(_)
            | Self::Read { .. }
            | Self::Denied { .. }
            | Self::File { .. }
            | Self::Answer(_)
            | Self::Identity(_)
            | Self::Key(_) => false,
        }
    }
}

/// Returns what a refusal says, and what to do about it.
pub fn refusal(reason: &str, message: &str) -> String {
    let advice = match reason {
        "TOKEN_INVALID" => "; make a token with 'musterctl token create'",
        "TOKEN_USED_UP" | "TOKEN_EXPIRED" | "TOKEN_REVOKED" => "; make another one with 'musterctl token create'",
        "AGENT_REVOKED" => "; to enrol this host anew, stop the agent and delete its state folder",
        "AGENT_FROZEN" => {
            "; an operator must decide: 'musterctl hosts release' lets this host go on, 'musterctl hosts revoke' ends it"
        }
        "PROOF_INVALID" => "; is this host's clock right?",
        _ => "",
    };
    // The collector may have given the advice already.
    let advice = if message.contains("musterctl") { "" } else { advice };
    format!("collector refused: {message}{advice}")
}

/// A token: whoever has it can add a host to the fleet. It is never shown.
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Returns the token in `text`, without white space around it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// SHA-256 of a CA certificate (DER), written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct CaPin(pub Digest);

impl FromStr for CaPin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected sha256: and 64 hex digits, as 'musterctl token create' prints it";
        let digits = text.trim().strip_prefix("sha256:").ok_or(expected)?;
        digits.to_ascii_lowercase().parse().map(Self).map_err(|_| expected)
    }
}

impl TryFrom<String> for CaPin {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What enrolment needs.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where.
    pub collector: CollectorUrl,
    /// By which right.
    pub token: Token,
    /// Whom to trust there.
    pub trust: Trust,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    collector: CollectorUrl,
    token: Token,
    ca_pin: Option<CaPin>,
    ca_file: Option<PathBuf>,
}

impl Request {
    /// Returns the request of an enrolment file, as `musterctl token create --enroll-file` writes it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not one.
    pub fn of_file(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| unreadable(path, source))?;
        let wrong = |reason: String| Error::File { path: path.to_owned(), reason };
        // The message of the parser could show a piece of the token; its place says enough.
        let file: File = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            wrong(format!("line {line}: expected collector, token, and ca_pin or ca_file"))
        })?;
        let trust = match (file.ca_pin, file.ca_file) {
            (Some(pin), None) => Trust::Pin(pin.0),
            (None, Some(ca_file)) => authorities(&ca_file)?,
            (None, None) | (Some(_), Some(_)) => {
                return Err(wrong(
                    "expected either ca_pin or ca_file, so that the collector can be recognised".to_owned(),
                ));
            }
        };
        Ok(Self { collector: file.collector, token: file.token, trust })
    }
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    use std::os::unix::fs::MetadataExt as _;

    match std::fs::metadata(path) {
        Ok(file) if source.kind() == io::ErrorKind::PermissionDenied => Error::Denied {
            path: path.to_owned(),
            mode: file.mode() & 0o7777,
            owner: file.uid(),
            group: file.gid(),
            user: rustix::process::geteuid().as_raw(),
        },
        Ok(_) | Err(_) => Error::Read { path: path.to_owned(), source },
    }
}

/// Returns the CA certificates of a PEM file.
///
/// # Errors
///
/// When the file cannot be read or has none.
pub fn authorities(path: &Path) -> Result<Trust, Error> {
    let pem = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let reason = "expected CA certificates (PEM)".to_owned();
    let certificates = identity::certificates(&pem).ok_or(Error::File { path: path.to_owned(), reason })?;
    Ok(Trust::Authorities(certificates))
}

/// Enrols this host and keeps the identity.
///
/// # Errors
///
/// Says which step failed. Enrolling again with the same token goes on where this stopped.
pub async fn enroll(folder: &Folder, request: &Request, claim: v1::HostClaim) -> Result<Identity, Error> {
    let evidence = folder.evidence_key_or_new()?;
    let tls = connect::stranger(&request.trust)?;
    let channel = connect::open(&request.collector, tls, SystemClock.now()).await?;
    let key = TlsKey::new()?;
    let message = v1::EnrollAgentRequest {
        token: request.token.0.clone(),
        evidence_public_key: evidence.public_key().to_vec(),
        proof: evidence.sign(ENROLL_DOMAIN, key.csr_digest().as_bytes()).to_vec(),
        csr: key.csr.clone(),
        claim: Some(claim),
    };
    let answer = answer(client(channel).enroll_agent(message)).await?;
    let issued = key.accept(answer.identity, &evidence, &request.collector, None)?;
    check_trusted(&issued, &request.trust)?;
    folder.keep(&issued)?;
    Ok(issued.identity)
}

/// Gets another certificate over an open connection and keeps it.
///
/// # Errors
///
/// Says which step failed. The present certificate stays in use.
pub async fn renew(folder: &Folder, present: &Identity, channel: Channel) -> Result<Identity, Error> {
    let evidence = folder.evidence_key_or_new()?;
    let key = TlsKey::new()?;
    let message = v1::RenewCertificateRequest {
        proof: evidence.sign(RENEW_DOMAIN, key.csr_digest().as_bytes()).to_vec(),
        csr: key.csr.clone(),
    };
    let answer = answer(client(channel).renew_certificate(message)).await?;
    let issued = key.accept(answer.identity, &evidence, &present.collector, Some(present))?;
    folder.keep(&issued)?;
    Ok(issued.identity)
}

/// Gets another certificate by proof of the evidence key, after the present one has expired or was damaged, and keeps it.
///
/// # Errors
///
/// Says which step failed.
pub async fn rejoin(folder: &Folder, present: &Identity, collector: &CollectorUrl) -> Result<Identity, Error> {
    let evidence = folder.evidence_key_or_new()?;
    let tls = connect::stranger(&Trust::Authorities(folder.roots()?))?;
    let now = SystemClock.now();
    let channel = connect::open(collector, tls, now).await?;
    let key = TlsKey::new()?;
    let request_time = now.to_second();
    let signed = [key.csr_digest().as_bytes().as_slice(), &request_time.seconds().to_be_bytes()].concat();
    let message = v1::RejoinAgentRequest {
        agent_id: evidence.agent_id().as_bytes().to_vec(),
        proof: evidence.sign(REJOIN_DOMAIN, &signed).to_vec(),
        csr: key.csr.clone(),
        request_time: Some(request_time.to_wire()),
    };
    let answer = answer(client(channel).rejoin_agent(message)).await?;
    let issued = key.accept(answer.identity, &evidence, &present.collector, Some(present))?;
    folder.keep(&issued)?;
    Ok(issued.identity)
}

/// A TLS key made on this host, and the request that carries its public half.
struct TlsKey {
    pair: KeyPair,
    csr: Vec<u8>,
}

impl TlsKey {
    fn new() -> Result<Self, Error> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let csr = CertificateParams::default().serialize_request(&pair)?.der().to_vec();
        Ok(Self { pair, csr })
    }

    fn csr_digest(&self) -> Digest {
        Digest::of_bytes(&self.csr)
    }

    /// Checks that what the collector gave is this agent's. A renewal does not replace the log key: whoever could do that could show
    /// this agent another log.
    fn accept(
        &self,
        given: Option<v1::AgentIdentity>,
        evidence: &EvidenceKey,
        collector: &CollectorUrl,
        present: Option<&Identity>,
    ) -> Result<Issued, Error> {
        let wrong = |reason: &str| Error::Answer(reason.to_owned());
        let given = given.ok_or_else(|| wrong("it has no identity"))?;
        if given.agent_id != evidence.agent_id().as_bytes() {
            return Err(wrong("it is for another agent"));
        }
        let chain = identity::certificates(given.certificate_chain_pem.as_bytes())
            .ok_or_else(|| wrong("it has no certificate chain"))?;
        identity::certificates(given.ca_bundle_pem.as_bytes()).ok_or_else(|| wrong("it has no CA certificate"))?;
        let leaf = identity::leaf(&chain[0])?;
        if leaf.public_key != self.pair.subject_public_key_info() {
            return Err(wrong("the certificate is for another key"));
        }
        if leaf.caller.agent_id() != Some(evidence.agent_id()) {
            return Err(wrong("the certificate is for another agent"));
        }
        let log_key = match present {
            Some(present) if present.log_key != given.log_key => {
                return Err(wrong(
                    "the collector's log key has changed since this agent was enrolled; enrol it anew if that is meant",
                ));
            }
            _ => LogKey::new(&given.log_key).map(|_| given.log_key).map_err(identity::Error::LogKey)?,
        };
        let renew_time = given.renew_time.as_ref().and_then(Timestamp::from_wire);
        let identity = Identity {
            version: 1,
            agent: evidence.agent_id(),
            collector: collector.clone(),
            log_key,
            certificate_serial: leaf.serial,
            renew_time: renew_time.ok_or_else(|| wrong("it has no time of renewal"))?,
            expire_time: leaf.expire,
        };
        let tls_pem = format!("{}{}", self.pair.serialize_pem(), given.certificate_chain_pem);
        Ok(Issued { identity, tls_pem, ca_pem: given.ca_bundle_pem })
    }
}

/// The CA that was trusted for enrolment must be among those to trust from here on.
fn check_trusted(issued: &Issued, trust: &Trust) -> Result<(), Error> {
    let given = identity::certificates(issued.ca_pem.as_bytes()).unwrap_or_default();
    let is_trusted = |certificate: &CertificateDer<'_>| match trust {
        Trust::Authorities(authorities) => authorities.iter().any(|authority| authority == certificate),
        Trust::Pin(pin) => Digest::of_bytes(certificate) == *pin,
    };
    if given.iter().any(is_trusted) {
        return Ok(());
    }
    Err(Error::Answer("its CA certificates are not those that were trusted for enrolment".to_owned()))
}

fn client(channel: Channel) -> EnrollmentServiceClient<Channel> {
    EnrollmentServiceClient::new(channel).max_decoding_message_size(limits::AGENT_MESSAGE_BYTES)
}

async fn answer<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refused(&status)),
        Err(_) => Err(Error::Call(format!("nothing came within {} s", ANSWER_TIMEOUT.as_secs()))),
    }
}

fn refused(status: &Status) -> Error {
    match status.get_details_error_info() {
        Some(info) => Error::Refused {
            reason: info.reason,
            message: status.message().to_owned(),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
        },
        None => Error::Call(connect::call_failure(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enrolment_file_names_collector_token_and_ca_and_its_errors_never_show_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enroll.toml");
        let pin = format!("ca_pin = \"sha256:{}\"", "ab".repeat(32));
        let base = "collector = \"https://c1:7443\"\ntoken = \"secret-token\"\n";
        std::fs::write(&path, format!("{base}{pin}\n")).unwrap();
        let request = Request::of_file(&path).unwrap();
        assert!(matches!(request.trust, Trust::Pin(digest) if digest.as_bytes() == &[0xab; 32]));
        assert!(!format!("{request:?}").contains("secret"));
        for bad in [
            base.to_owned(),
            format!("{base}{pin}\nca_file = \"/x\"\n"),
            format!("{base}ca_pin = \"sha256:12\"\n"),
            format!("{base}ca_file = \"/nonexistent\"\n"),
            "collector = \"https://c1:7443\"\ntoken = secret-token\n".to_owned(),
            format!("{pin}\ntoken = \"secret-token\"\n"),
            format!("{base}{pin}\nother = 1\n"),
        ] {
            std::fs::write(&path, &bad).unwrap();
            let error = Request::of_file(&path).unwrap_err();
            assert!(!connect::chain_of(&error).contains("secret"), "{error}");
        }
    }

    #[test]
    fn refusals_say_what_to_do_once() {
        let text = |reason: &str, message: &str| {
            Error::Refused { reason: reason.to_owned(), message: message.to_owned(), retry_after: None }.to_string()
        };
        assert_eq!(
            text("TOKEN_EXPIRED", "the token has expired"),
            "collector refused: the token has expired; make another one with 'musterctl token create'"
        );
        assert_eq!(text("TOKEN_EXPIRED", "expired; run 'musterctl token create'").matches("musterctl").count(), 1);
    }

    #[test]
    fn a_file_that_may_not_be_read_is_named_with_its_mode_and_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enroll.toml");
        std::fs::write(&path, "").unwrap();
        let error = unreadable(&path, io::ErrorKind::PermissionDenied.into()).to_string();
        let user = rustix::process::geteuid().as_raw();
        assert!(error.contains("(mode 0") && error.contains(&format!("user {user}, group")), "{error}");
        assert!(error.ends_with(&format!("run 'chown {user} {}'", path.display())), "{error}");
        assert!(matches!(unreadable(&path, io::ErrorKind::InvalidData.into()), Error::Read { .. }));
    }
}
