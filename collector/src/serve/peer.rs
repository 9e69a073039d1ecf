//! Who is at the other end of a connection: address, and the identity that its certificate carries. Parsed once a connection.

use std::net::SocketAddr;

use muster_proto::{caller::Caller, id::Serial, time::Timestamp};
use rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// Who it is.
    pub identity: Identity,
}

/// What is known of a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Identity {
    /// It has no certificate: it may enrol, and nothing else.
    Enrolling,
    /// It has one that the fleet's CA issued.
    Certified(Certificate),
}

/// What a client certificate says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    /// Whose it is.
    pub caller: Caller,
    /// Its serial number.
    pub serial: Serial,
    /// Its end.
    pub expires: Timestamp,
}

/// A certificate carries no identity of this fleet.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// It does not parse.
    #[error("it is not a certificate that can be read")]
    Malformed,
    /// It has none or several subject alternative names, or one that is not a URI.
    #[error("it does not carry exactly one name, a URI spiffe://<collector>/<role>/<name>")]
    Names,
    /// The name is not a caller's.
    #[error("its name is {0}")]
    Caller(muster_proto::caller::Error),
    /// It is for the fleet of another collector.
    #[error("it is for the fleet of collector {0}, not of this one")]
    Fleet(String),
    /// Its serial number is not as this collector draws them.
    #[error("its serial number is none of this collector's")]
    Serial,
}

/// Returns what the certificate `der` says, if it is for `fleet`. It verifies nothing.
///
/// # Errors
///
/// Why it carries no identity of this fleet.
pub fn identify(der: &CertificateDer<'_>, fleet: &str) -> Result<Certificate, Error> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Error::Malformed)?;
    let names = certificate.subject_alternative_name().map_err(|_| Error::Malformed)?.ok_or(Error::Names)?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else { return Err(Error::Names) };
    let caller: Caller = uri.parse().map_err(Error::Caller)?;
    if caller.fleet() != fleet {
        return Err(Error::Fleet(caller.fleet().to_owned()));
    }
    let serial = Serial::from_slice(certificate.raw_serial()).ok_or(Error::Serial)?;
    let expires = Timestamp::from_seconds(certificate.validity().not_after.timestamp()).ok_or(Error::Malformed)?;
    Ok(Certificate { caller, serial, expires })
}
