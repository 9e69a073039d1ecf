//! The fleet's certificate authority: makes it, opens it, and issues certificates of the collector, of agents and of people.
//!
//! It owns `pki/ca.pem` and `pki/ca.key`, and the shape of every certificate. Of a request only the public key is used. Who may have
//! a certificate is decided elsewhere.

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::rand;
use muster_proto::{
    caller::Caller,
    id::{Digest, Serial},
    time::Timestamp,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

mod request;

pub use request::{CsrError, RequestedKey};

/// Life of a CA that `init` makes: ten years.
const CA_LIFETIME: Duration = Duration::from_secs(3653 * 86_400);
/// How far before its issue a certificate starts to hold, so that a host whose clock is behind can use it.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// The authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("failed to {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no certificate or key that can be used.
    #[error("{} cannot be used: {message}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// The CA certificate has ended.
    #[error(
        "the CA certificate in {} ended at {ended}; put a CA that holds, and its key, in its place: agents and credentials of \
         the old one must then be made anew",
        path.display()
    )]
    Ended {
        /// The file.
        path: PathBuf,
        /// When.
        ended: Timestamp,
    },
    /// The CA certificate does not hold so far.
    #[error("the CA certificate in {} holds only from {starts}; is this machine's clock right?", path.display())]
    NotStarted {
        /// The file.
        path: PathBuf,
        /// When it starts.
        starts: Timestamp,
    },
    /// Making a key or certificate failed.
    #[error("failed to make a {what}")]
    Make {
        /// What.
        what: &'static str,
        /// Why.
        source: rcgen::Error,
    },
    /// The system gives no randomness.
    #[error("failed to draw random bytes")]
    Random,
    /// A name cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate")]
    Name {
        /// The name.
        name: String,
    },
}

/// A certificate that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Its serial number.
    pub serial: Serial,
    /// Its end.
    pub expires: Timestamp,
    /// When to renew it: half of its life.
    pub renew: Timestamp,
    /// The chain (PEM), leaf first, without the CA.
    pub chain_pem: String,
}

/// The fleet's certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The active one first; further ones are trusted too.
    certificates: Vec<CertificateDer<'static>>,
    ends: Timestamp,
}

impl Authority {
    /// Makes the authority of the collector `fleet` in the folder `pki`: `ca.pem` and, for the collector alone, `ca.key`.
    ///
    /// # Errors
    ///
    /// When a file exists or cannot be written.
    pub fn create(pki: &Path, fleet: &str, now: Timestamp) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(|source| Error::Make { what: "CA key", source })?;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(random_serial()?.as_bytes()));
        params.distinguished_name = distinguished(&format!("Muster CA of {fleet}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now.minus(BACKDATE), now.plus(CA_LIFETIME));
        let certificate = params.self_signed(&key).map_err(|source| Error::Make { what: "CA certificate", source })?;
        write_secret(&pki.join("ca.key"), key.serialize_pem().as_bytes())?;
        write_new(&pki.join("ca.pem"), certificate.pem().as_bytes(), 0o644)?;
        Self::open(pki, now)
    }

    /// Opens the authority in the folder `pki`. `ca.pem` may hold several certificates: the first, whose key is in `ca.key`, issues;
    /// all are trusted.
    ///
    /// # Errors
    ///
    /// When a file cannot be used, with its name, what is wrong, and what to do.
    pub fn open(pki: &Path, now: Timestamp) -> Result<Self, Error> {
        let (certificate_path, key_path) = (pki.join("ca.pem"), pki.join("ca.key"));
        let pem = read(&certificate_path)?;
        let certificates = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable(&certificate_path, format!("it is not PEM: {error}")))?;
        let Some(active) = certificates.first() else {
            return Err(unusable(&certificate_path, "it holds no certificate".to_owned()));
        };
        let (starts, ends) = check_ca(&certificate_path, active)?;
        if now >= ends {
            return Err(Error::Ended { path: certificate_path, ended: ends });
        }
        if now < starts {
            return Err(Error::NotStarted { path: certificate_path, starts });
        }

        let key = read_key(&key_path)?;
        let (_, parsed) = X509Certificate::from_der(active)
            .map_err(|error| unusable(&certificate_path, format!("it is not a certificate: {error}")))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            let message = format!("it is not the key of the first certificate in {}", certificate_path.display());
            return Err(unusable(&key_path, message));
        }
        let issuer = Issuer::from_ca_cert_der(active, key)
            .map_err(|error| unusable(&certificate_path, format!("it is not a CA certificate: {error}")))?;
        Ok(Self { issuer, certificates, ends })
    }

    /// Returns when the CA certificate ends.
    pub fn ends(&self) -> Timestamp {
        self.ends
    }

    /// Returns SHA-256 of the active CA certificate (DER).
    pub fn digest(&self) -> Digest {
        // `open` has refused an empty file.
        Digest::of_bytes(self.certificates.first().map_or(&[], |certificate| certificate.as_ref()))
    }

    /// Returns what a host pins: `sha256:` and [`Self::digest`].
    pub fn pin(&self) -> String {
        format!("sha256:{}", self.digest())
    }

    /// Returns the CA certificates to trust (PEM), the active one first.
    pub fn bundle_pem(&self) -> String {
        self.certificates.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
    }

    /// Returns the CA certificates to trust, for a verifier.
    ///
    /// # Errors
    ///
    /// When one is no trust anchor.
    pub fn roots(&self) -> Result<RootCertStore, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.certificates {
            roots.add(certificate.clone())?;
        }
        Ok(roots)
    }

    /// Issues the certificate of `caller` for `key`, which holds for `lifetime` from `now`, at most as long as the CA's.
    ///
    /// # Errors
    ///
    /// When signing fails.
    pub fn issue(
        &self,
        caller: &Caller,
        key: &RequestedKey,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Issued, Error> {
        let id = caller.to_string();
        let uri = id.as_str().try_into().map_err(|_| Error::Name { name: id.clone() })?;
        let mut params = leaf(caller.name());
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, key.spki(), now, lifetime).map(|(issued, _)| issued)
    }

    /// Issues a certificate for the collector itself under `names` (DNS names and IP addresses), with a key that exists in memory
    /// alone.
    ///
    /// # Errors
    ///
    /// When a name cannot stand in a certificate, or signing fails.
    pub fn issue_server(
        &self,
        names: &[String],
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<(Arc<CertifiedKey>, Issued), Error> {
        let key = KeyPair::generate().map_err(|source| Error::Make { what: "server key", source })?;
        let mut params = leaf("muster-collector");
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|_| Error::Name { name: name.clone() })?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (issued, certificate) = self.sign(params, &key, now, lifetime)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let private = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private)
            .expect("a key that was just made is of a supported type");
        // The CA certificate goes along, so that a host that enrols by its digest can find it in the handshake.
        let chain = [certificate].into_iter().chain(self.certificates.first().cloned()).collect();
        Ok((Arc::new(CertifiedKey::new(chain, private)), issued))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<(Issued, CertificateDer<'static>), Error> {
        let serial = random_serial()?;
        let expires = now.plus(lifetime).min(self.ends).to_second();
        params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        set_validity(&mut params, now.minus(BACKDATE), expires);
        let certificate =
            params.signed_by(key, &self.issuer).map_err(|source| Error::Make { what: "certificate", source })?;
        let renew = now.plus(expires.since(now) / 2).to_second();
        let issued = Issued { serial, expires, renew, chain_pem: certificate.pem() };
        Ok((issued, certificate.der().clone()))
    }
}

/// Writes a file that only the collector may read, and syncs it.
///
/// # Errors
///
/// When it exists or cannot be written.
pub fn write_secret(path: &Path, content: &[u8]) -> Result<(), Error> {
    write_new(path, content, 0o600)
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|source| Error::File { what: "write", path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File { what: "read", path: path.to_owned(), source })
}

fn read_key(path: &Path) -> Result<KeyPair, Error> {
    let text = read(path)?;
    let mode = fs::metadata(path)
        .map_err(|source| Error::File { what: "read", path: path.to_owned(), source })?
        .permissions()
        .mode();
    if mode & 0o007 != 0 {
        let message = format!("everybody may read or write it (mode {:04o}); run 'chmod 600' on it", mode & 0o7777);
        return Err(unusable(path, message));
    }
    let text = String::from_utf8(text).map_err(|_| unusable(path, "it is not PEM".to_owned()))?;
    KeyPair::from_pem(&text).map_err(|error| unusable(path, format!("it is not a private key in PKCS#8 PEM: {error}")))
}

/// Checks that `certificate` is one of a CA, and returns when it starts and ends to hold.
fn check_ca(path: &Path, certificate: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| unusable(path, format!("it is not a certificate: {error}")))?;
    let is_ca = matches!(parsed.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
    let may_sign = match parsed.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    if !is_ca || !may_sign {
        return Err(unusable(path, "its first certificate is not one of a CA".to_owned()));
    }
    let time = |seconds| {
        Timestamp::from_seconds(seconds).ok_or_else(|| unusable(path, "its dates are out of range".to_owned()))
    };
    let validity = parsed.validity();
    Ok((time(validity.not_before.timestamp().max(0))?, time(validity.not_after.timestamp())?))
}

fn unusable(path: &Path, message: String) -> Error {
    Error::Unusable { path: path.to_owned(), message }
}

/// Returns the part that every certificate but the CA's has in common.
fn leaf(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn distinguished(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn set_validity(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let start = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = start + from.to_second().since(Timestamp::EPOCH);
    params.not_after = start + until.to_second().since(Timestamp::EPOCH);
}

/// Draws a serial number: 126 random bits behind `01`, so that it is positive and always 16 bytes long in DER.
fn random_serial() -> Result<Serial, Error> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| Error::Random)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(Serial::new(bytes))
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|b| char::from(*b)));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

#[cfg(test)]
mod tests {
    use muster_proto::caller::Role;
    use x509_parser::extensions::GeneralName;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn now() -> Timestamp {
        Timestamp::from_seconds(NOW).unwrap()
    }

    fn authority() -> (tempfile::TempDir, Authority) {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), "c1", now()).unwrap();
        (folder, authority)
    }

    fn auditor() -> Caller {
        Caller::new("c1", Role::Auditor, "alice").unwrap()
    }

    /// Returns a request for a fresh P-256 key that asks for all that `params` say.
    fn csr(params: CertificateParams) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.serialize_request(&key).unwrap().der().to_vec(), key)
    }

    fn der_of(issued: &Issued) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap()
    }

    #[test]
    fn nothing_that_a_request_asks_for_reaches_the_certificate() {
        let (_folder, authority) = authority();
        let mut greedy = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
        greedy.subject_alt_names.push(SanType::URI("spiffe://c1/admin/root".try_into().unwrap()));
        greedy.distinguished_name = distinguished("admin");
        let (request, key) = csr(greedy);

        let requested = RequestedKey::from_csr(&request).unwrap();
        let issued = authority.issue(&auditor(), &requested, now(), Duration::from_secs(3600)).unwrap();
        let der = der_of(&issued);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap().value;
        assert_eq!(names.general_names, [GeneralName::URI("spiffe://c1/auditor/alice")]);
        assert!(!certificate.is_ca());
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.client_auth && !purposes.server_auth && !purposes.any);
        assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
        assert_eq!(requested.digest(), Digest::of_bytes(certificate.public_key().raw));
        assert_eq!(certificate.raw_serial(), issued.serial.as_bytes());
        assert_eq!(certificate.validity().not_after.timestamp(), issued.expires.seconds());
        assert_eq!(issued.expires.seconds(), NOW + 3600);
    }

    #[test]
    fn only_a_p256_key_that_signed_its_own_request_is_taken() {
        let (good, _) = csr(CertificateParams::default());
        assert!(RequestedKey::from_csr(&good).is_ok());

        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let request = CertificateParams::default().serialize_request(&key).unwrap();
            assert_eq!(RequestedKey::from_csr(request.der()).unwrap_err(), CsrError::KeyKind);
        }
        let mut trailing = good.clone();
        trailing.push(0);
        assert_eq!(RequestedKey::from_csr(&trailing).unwrap_err(), CsrError::Malformed);
        assert_eq!(RequestedKey::from_csr(&vec![0x30; 9000]).unwrap_err(), CsrError::TooLarge);
        for garbage in [&b""[..], b"0", b"-----BEGIN CERTIFICATE REQUEST-----", &[0xff; 300], &good[..good.len() / 2]] {
            assert_eq!(RequestedKey::from_csr(garbage).unwrap_err(), CsrError::Malformed);
        }
        // The signature covers all but its own framing: a changed bit is refused, or means the same key.
        let digest = RequestedKey::from_csr(&good).unwrap().digest();
        let mut refused = 0;
        for bit in 0..good.len() * 8 {
            let mut changed = good.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            match RequestedKey::from_csr(&changed) {
                Ok(key) => assert_eq!(key.digest(), digest, "bit {bit}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > good.len() * 8 - 32, "{refused} of {} bits", good.len() * 8);
    }

    #[test]
    fn no_certificate_outlives_the_authority() {
        let (_folder, authority) = authority();
        let (request, _) = csr(CertificateParams::default());
        let key = RequestedKey::from_csr(&request).unwrap();
        let issued = authority.issue(&auditor(), &key, now(), Duration::from_secs(u64::MAX / 4)).unwrap();
        assert_eq!(issued.expires, authority.ends());
    }

    #[test]
    fn serial_numbers_have_one_length_and_do_not_repeat() {
        let serials: std::collections::BTreeSet<_> = (0..1000).map(|_| random_serial().unwrap()).collect();
        assert_eq!(serials.len(), 1000);
        assert!(serials.iter().all(|serial| (0x40..0x80).contains(&serial.as_bytes()[0])));
    }

    #[test]
    fn an_authority_that_cannot_be_used_says_which_file_and_why() {
        let check = |spoil: &dyn Fn(&Path), at: Timestamp, expected: &[&str]| {
            let (folder, _) = authority();
            spoil(folder.path());
            let Err(error) = Authority::open(folder.path(), at) else { panic!("{expected:?} was opened") };
            for part in expected {
                assert!(error.to_string().contains(part), "{error}");
            }
        };
        let keep: &dyn Fn(&Path) = &|_| ();
        check(keep, now().plus(CA_LIFETIME), &["ca.pem ended at 2037-01-1", "put a CA that holds"]);
        check(keep, now().minus(BACKDATE * 2), &["ca.pem holds only from 2027-01-14", "clock"]);
        check(
            &|folder| fs::write(folder.join("ca.pem"), "x").unwrap(),
            now(),
            &["ca.pem cannot be used", "no certificate"],
        );
        check(&|folder| fs::write(folder.join("ca.key"), "x").unwrap(), now(), &["ca.key cannot be used", "PEM"]);
        check(&|folder| fs::remove_file(folder.join("ca.key")).unwrap(), now(), &["failed to read", "ca.key"]);
        let open_to_all: &dyn Fn(&Path) =
            &|folder| fs::set_permissions(folder.join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
        check(open_to_all, now(), &["ca.key cannot be used", "chmod 600"]);
        let foreign_key: &dyn Fn(&Path) = &|folder| {
            fs::write(folder.join("ca.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        };
        check(foreign_key, now(), &["ca.key cannot be used", "not the key of the first certificate in"]);
        let leaf_as_ca: &dyn Fn(&Path) = &|folder| {
            let authority = Authority::open(folder, now()).unwrap();
            let (request, key) = csr(CertificateParams::default());
            let requested = RequestedKey::from_csr(&request).unwrap();
            let issued = authority.issue(&auditor(), &requested, now(), Duration::from_secs(3600)).unwrap();
            fs::write(folder.join("ca.pem"), issued.chain_pem).unwrap();
            fs::write(folder.join("ca.key"), key.serialize_pem()).unwrap();
        };
        check(leaf_as_ca, now(), &["ca.pem cannot be used", "not one of a CA"]);
    }

    #[test]
    fn the_authoritys_key_is_for_the_collector_alone() {
        let (folder, _) = authority();
        assert_eq!(fs::metadata(folder.path().join("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Authority::create(folder.path(), "c1", now()).is_err(), "an authority was overwritten");
    }
}
