//! Reads certificate requests (PKCS#10, RFC 2986). Only the public key leaves this file: whatever else a request asks for is
//! neither copied nor looked at.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use muster_proto::id::Digest;
use rcgen::SubjectPublicKeyInfo;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    prelude::FromDer as _,
};

/// Bytes of a request, at most.
const REQUEST_BYTES: usize = 8 * 1024;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CsrError {
    /// It is too large.
    #[error("the certificate request is larger than 8192 bytes")]
    TooLarge,
    /// It does not parse, or something follows it.
    #[error("the certificate request is not PKCS#10 in DER")]
    Malformed,
    /// The key is of a kind that is not taken.
    #[error("the certificate request is not for an ECDSA P-256 key signed with SHA-256, which is the only kind taken")]
    KeyKind,
    /// It is not signed by its own key.
    #[error("the certificate request is not signed by its own key")]
    Signature,
}

/// The public key of a request whose own signature verifies.
#[derive(Clone, Debug)]
pub struct RequestedKey {
    spki: SubjectPublicKeyInfo,
    digest: Digest,
}

impl RequestedKey {
    /// Returns the key of the request `der`.
    ///
    /// # Errors
    ///
    /// Why the request is refused.
    pub fn from_csr(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > REQUEST_BYTES {
            return Err(CsrError::TooLarge);
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let key = &request.certification_request_info.subject_pki;
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY
            || curve != Some(OID_EC_P256)
            || request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256
        {
            return Err(CsrError::KeyKind);
        }
        // Uncompressed points only (RFC 5480 section 2.2); verifying checks that the point is on the curve.
        let point = key.subject_public_key.data.as_ref();
        if point.len() != 65 || point[0] != 4 {
            return Err(CsrError::KeyKind);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(request.certification_request_info.raw, &request.signature_value.data)
            .map_err(|_| CsrError::Signature)?;
        let spki = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::KeyKind)?;
        Ok(Self { spki, digest: Digest::of_bytes(key.raw) })
    }

    /// Returns SHA-256 of its SubjectPublicKeyInfo (DER).
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn spki(&self) -> &SubjectPublicKeyInfo {
        &self.spki
    }
}
