//! Seals and opens reports: exact bytes, one strict signature rule, and the digest that chains them.
//!
//! # The signature rule
//!
//! Ed25519 as in RFC 8032 section 5.1.7 without the cofactor: `encode(S·B − k·A)` must equal the 32 bytes of `R`, and `S` must be
//! below the group order. On top of it the public key must be canonical and not of small order ([`EvidencePublicKey::new`]).
//! Both ends and the auditor use this rule. Batch verification is not used: it accepts signatures that this rule refuses.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey},
};
use prost::Message as _;

use crate::{
    id::{AgentId, Digest},
    v1,
};

/// Domain of a report's signature.
pub const REPORT_DOMAIN: &str = "muster/report/v1";
/// Domain of the digest of a sealed report.
pub const SEALED_DOMAIN: &str = "muster/sealed/v1";
/// Domain of the proof at enrolment.
pub const ENROLL_DOMAIN: &str = "muster/enroll/v1";
/// Domain of the proof at renewal.
pub const RENEW_DOMAIN: &str = "muster/renew/v1";
/// Domain of the proof at rejoining.
pub const REJOIN_DOMAIN: &str = "muster/rejoin/v1";

/// Why a key or a signature is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The public key is not 32 bytes, not canonical, of small order, or not a point.
    #[error("evidence public key is not a canonical Ed25519 point of large order")]
    PublicKey,
    /// The private key's file is not PKCS#8 of an Ed25519 key.
    #[error("evidence key is not PKCS#8 of an Ed25519 key")]
    PrivateKey,
    /// The signature does not verify.
    #[error("signature does not verify")]
    Signature,
}

/// An agent's evidence key. It never leaves the host.
pub struct EvidenceKey(Ed25519KeyPair);

impl EvidenceKey {
    /// Makes a key and returns it with its PKCS#8 form (DER), to be kept by the agent alone.
    ///
    /// # Errors
    ///
    /// [`Error::PrivateKey`] when the system gives no randomness.
    pub fn generate() -> Result<(Self, Vec<u8>), Error> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| Error::PrivateKey)?;
        Ok((Self::from_pkcs8(pkcs8.as_ref())?, pkcs8.as_ref().to_vec()))
    }

    /// Returns the key of `pkcs8` (DER).
    ///
    /// # Errors
    ///
    /// [`Error::PrivateKey`] when it is not an Ed25519 key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        Ed25519KeyPair::from_pkcs8(pkcs8).map(Self).map_err(|_| Error::PrivateKey)
    }

    /// Returns its public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    /// Returns the id of the agent that holds it.
    pub fn agent_id(&self) -> AgentId {
        AgentId::of_key(&self.public_key())
    }

    /// Returns the signature over `domain`, a zero byte and `message`.
    pub fn sign(&self, domain: &str, message: &[u8]) -> [u8; 64] {
        self.0.sign(&framed(domain, message)).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// Seals an encoded report.
    pub fn seal(&self, report: Vec<u8>) -> v1::SealedReport {
        let signature = self.sign(REPORT_DOMAIN, &report).to_vec();
        v1::SealedReport { report, signature }
    }
}

/// The public half of an evidence key, checked and ready to verify.
#[derive(Clone)]
pub struct EvidencePublicKey {
    bytes: [u8; 32],
    parsed: ParsedPublicKey,
}

impl EvidencePublicKey {
    /// Returns the key.
    ///
    /// # Errors
    ///
    /// [`Error::PublicKey`] when it is not canonical, is of small order, or is not a point.
    pub fn new(bytes: &[u8]) -> Result<Self, Error> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| Error::PublicKey)?;
        if !is_canonical(&bytes) || is_small_order(&bytes) {
            return Err(Error::PublicKey);
        }
        let parsed = ParsedPublicKey::new(&ED25519, bytes).map_err(|_| Error::PublicKey)?;
        Ok(Self { bytes, parsed })
    }

    /// Returns its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Returns the id of the agent that holds the key.
    pub fn agent_id(&self) -> AgentId {
        AgentId::of_key(&self.bytes)
    }

    /// Checks `signature` over `domain`, a zero byte and `message`.
    ///
    /// # Errors
    ///
    /// [`Error::Signature`] when it does not verify.
    pub fn verify(&self, domain: &str, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        self.parsed.verify_sig(&framed(domain, message), signature).map_err(|_| Error::Signature)
    }

    /// Checks a sealed report's signature over its exact bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Signature`] when it does not verify.
    pub fn verify_sealed(&self, sealed: &v1::SealedReport) -> Result<(), Error> {
        self.verify(REPORT_DOMAIN, &sealed.report, &sealed.signature)
    }
}

/// Returns the digest by which the next report names `sealed`.
pub fn sealed_digest(sealed: &v1::SealedReport) -> Digest {
    Digest::of(SEALED_DOMAIN, &[&sealed.report, &sealed.signature])
}

/// Returns the sealed report of these bytes, or `None` when they are not one.
pub fn decode_sealed(bytes: &[u8]) -> Option<v1::SealedReport> {
    v1::SealedReport::decode(bytes).ok()
}

fn framed(domain: &str, message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(domain.len() + 1 + message.len());
    framed.extend_from_slice(domain.as_bytes());
    framed.push(0);
    framed.extend_from_slice(message);
    framed
}

/// Returns whether the y coordinate is below 2^255 − 19. RFC 8032 section 5.1.3 demands it; libraries differ.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let high = bytes[31] & 0x7f;
    !(high == 0x7f && bytes[1..31].iter().all(|&b| b == 0xff) && bytes[0] >= 0xed)
}

/// Returns whether the point's order divides 8: those with these y coordinates, whatever their sign.
fn is_small_order(bytes: &[u8; 32]) -> bool {
    const ORDER_8_A: [u8; 32] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    const ORDER_8_B: [u8; 32] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    let mut y = *bytes;
    y[31] &= 0x7f;
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    minus_one[31] = 0x7f;
    [[0; 32], one, minus_one, ORDER_8_A, ORDER_8_B].contains(&y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_report_verifies_and_one_changed_bit_does_not() {
        let (key, pkcs8) = EvidenceKey::generate().unwrap();
        let public = EvidencePublicKey::new(&EvidenceKey::from_pkcs8(&pkcs8).unwrap().public_key()).unwrap();
        let sealed = key.seal(b"report".to_vec());
        assert_eq!(public.verify_sealed(&sealed), Ok(()));

        for bit in 0..sealed.report.len() * 8 {
            let mut changed = sealed.clone();
            changed.report[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(public.verify_sealed(&changed), Err(Error::Signature));
        }
        for bit in 0..64 * 8 {
            let mut changed = sealed.clone();
            changed.signature[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(public.verify_sealed(&changed), Err(Error::Signature));
        }
    }

    #[test]
    fn a_signature_is_bound_to_its_domain() {
        let (key, _) = EvidenceKey::generate().unwrap();
        let public = EvidencePublicKey::new(&key.public_key()).unwrap();
        let signature = key.sign(ENROLL_DOMAIN, b"x");
        assert_eq!(public.verify(ENROLL_DOMAIN, b"x", &signature), Ok(()));
        assert_eq!(public.verify(RENEW_DOMAIN, b"x", &signature), Err(Error::Signature));
    }

    /// Every encoding of a point whose order divides 8, and encodings of others whose y is not below the field's prime.
    const REFUSED_KEYS: [&str; 14] = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    #[test]
    fn weak_and_malformed_keys_are_refused() {
        for key in REFUSED_KEYS {
            let bytes: [u8; 32] = hex::decode(key).unwrap().try_into().unwrap();
            assert!(is_small_order(&bytes) || !is_canonical(&bytes), "{key}");
            assert!(matches!(EvidencePublicKey::new(&bytes), Err(Error::PublicKey)), "{key}");
        }
        for len in [0, 31, 33] {
            assert!(matches!(EvidencePublicKey::new(&vec![1; len]), Err(Error::PublicKey)), "{len} bytes");
        }
    }

    /// With a key of small order one signature is good for every message; the library alone takes such a key.
    #[test]
    fn a_signature_that_a_weak_key_would_take_for_any_message_finds_no_key() {
        let neutral: [u8; 32] = hex::decode(REFUSED_KEYS[0]).unwrap().try_into().unwrap();
        // R is the neutral element and S is zero: S·B = R + k·A for every k.
        let signature = [neutral.as_slice(), &[0; 32]].concat();
        let parsed = ParsedPublicKey::new(&ED25519, neutral).unwrap();
        assert!(parsed.verify_sig(&framed(REPORT_DOMAIN, b"any message"), &signature).is_ok());
        assert!(EvidencePublicKey::new(&neutral).is_err());
    }

    #[test]
    fn a_signature_whose_scalar_is_not_below_the_group_order_is_refused() {
        // The group order, little-endian (RFC 8032 section 5.1).
        const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
        let key = fixed_key();
        let public = EvidencePublicKey::new(&key.public_key()).unwrap();
        let good = key.sign(REPORT_DOMAIN, b"report");
        assert_eq!(public.verify(REPORT_DOMAIN, b"report", &good), Ok(()));
        let (mut malleated, mut carry) = (good, 0);
        for (byte, order) in malleated[32..].iter_mut().zip(hex::decode(ORDER).unwrap()) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            [*byte, _] = sum.to_le_bytes();
            carry = sum >> 8;
        }
        assert_eq!(carry, 0);
        assert_eq!(public.verify(REPORT_DOMAIN, b"report", &malleated), Err(Error::Signature));
        for len in [0, 32, 63, 65] {
            assert_eq!(public.verify(REPORT_DOMAIN, b"report", &vec![0; len]), Err(Error::Signature), "{len} bytes");
        }
        assert_eq!(public.verify(REPORT_DOMAIN, b"report", &[good.as_slice(), &[0]].concat()), Err(Error::Signature));
    }

    /// Known from outside: SHA-256 and Ed25519 (RFC 8032) of these very bytes, by another implementation.
    #[test]
    fn a_sealed_report_has_the_bytes_that_other_implementations_give_it() {
        let key = fixed_key();
        assert_eq!(hex::encode(key.public_key()), "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8");
        assert_eq!(key.agent_id().to_string(), "56475aa75463474c0285df5dbf2bcab7");
        let sealed = key.seal(b"a report".to_vec());
        assert_eq!(
            hex::encode(&sealed.signature),
            "f37f64bde7ee3cafcb495e15bc263389e6b1e553feac5b5721d5c1ec483c362fed143252c5b5bbf0e8ac830da4d2f99eefb661e6d695ee6c564d5496b7e99d00"
        );
        assert_eq!(
            sealed_digest(&sealed).to_string(),
            "f7d73cd763a847da1fe40e4e3ba020208a8c96165569dfb6331c0e98e872dfe4"
        );
        assert_eq!(
            hex::encode(sealed.encode_to_vec()),
            "0a0861207265706f72741240f37f64bde7ee3cafcb495e15bc263389e6b1e553feac5b5721d5c1ec483c362fed143252c5b5bbf0e8ac830da4d2f99eefb661e6d695ee6c564d5496b7e99d00"
        );
    }

    /// Returns the key of the seed 00 01 … 1f.
    fn fixed_key() -> EvidenceKey {
        let seed: Vec<u8> = (0..32).collect();
        EvidenceKey(Ed25519KeyPair::from_seed_unchecked(&seed).unwrap())
    }
}
