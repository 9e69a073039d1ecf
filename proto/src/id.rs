//! Identifiers. Each has one way in, and none is a bare string or number.

use std::{fmt, num::NonZeroU64, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Text is not an id of this kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected {0}")]
pub struct Error(&'static str);

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $len]);

        impl $name {
            /// Returns the id of these bytes.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Returns the id, or `None` when `bytes` have another length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Returns its bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                let mut bytes = [0; $len];
                // Upper-case digits would give one id two spellings.
                if text.bytes().any(|b| b.is_ascii_uppercase()) || hex::decode_to_slice(text, &mut bytes).is_err() {
                    return Err(Error($expected));
                }
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

hex_id!(
    /// An agent: the first 16 bytes of SHA-256 over its evidence public key, so that the key proves the id.
    AgentId, 16, "an agent id: 32 lower-case hex digits"
);
hex_id!(
    /// An epoch of an agent's chain: 16 random bytes, drawn when the agent's state is new or was unusable.
    Epoch, 16, "an epoch: 32 lower-case hex digits"
);
hex_id!(
    /// Serial number of a certificate that a collector issued: 16 random bytes, the first of them 0x40 to 0x7f, so that the
    /// number is positive and has one length.
    Serial, 16, "a serial number: 32 lower-case hex digits"
);
hex_id!(
    /// An enrolment token: 8 random bytes.
    TokenId, 8, "a token id: 16 lower-case hex digits"
);
hex_id!(
    /// A SHA-256 digest.
    Digest, 32, "a SHA-256 digest: 64 lower-case hex digits"
);

impl AgentId {
    /// Returns the id of the agent that holds the evidence key of `public_key`.
    pub fn of_key(public_key: &[u8; 32]) -> Self {
        let digest: [u8; 32] = Sha256::digest(public_key).into();
        let (id, _) = digest.split_first_chunk().expect("32 is more than 16");
        Self(*id)
    }
}

impl Digest {
    /// Returns the digest of `domain`, a zero byte and `parts`, one after the other.
    pub fn of(domain: &str, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(domain.as_bytes());
        hash.update([0]);
        for part in parts {
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// Returns the plain SHA-256 of `bytes`.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// Place of a report in its own agent's sequence: from 1, without gaps inside an epoch.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ReportSeq(NonZeroU64);

impl ReportSeq {
    /// The first place.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The largest number that is taken from outside, so that a lying agent cannot make [`Self::next`] overflow and every
    /// store can hold it as a signed number.
    pub const MAX_NUMBER: u64 = 1 << 62;

    /// Returns the place, or `None` for 0 and beyond [`Self::MAX_NUMBER`].
    pub fn new(number: u64) -> Option<Self> {
        if number > Self::MAX_NUMBER {
            return None;
        }
        NonZeroU64::new(number).map(Self)
    }

    /// Returns its number.
    pub fn number(self) -> u64 {
        self.0.get()
    }

    /// Returns the next place.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl TryFrom<u64> for ReportSeq {
    type Error = Error;

    fn try_from(number: u64) -> Result<Self, Error> {
        Self::new(number).ok_or(Error("a place in a chain: 1 to 2^62"))
    }
}

impl From<ReportSeq> for u64 {
    fn from(seq: ReportSeq) -> Self {
        seq.number()
    }
}

impl fmt::Display for ReportSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A control of the catalogue, such as `ENC-01`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ControlId(String);

impl ControlId {
    /// Returns the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ControlId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_part =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if text.len() > 64 || !text.contains('-') || !text.split('-').all(is_part) {
            return Err(Error("a control id such as ENC-01"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for ControlId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ControlId> for String {
    fn from(id: ControlId) -> Self {
        id.0
    }
}

impl fmt::Display for ControlId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let text = "00112233445566778899aabbccddeeff";
        assert_eq!(text.parse::<AgentId>().unwrap().to_string(), text);
        for bad in [
            "",
            "0011",
            "00112233445566778899AABBCCDDEEFF",
            "00112233445566778899aabbccddeeff00",
            "../../etc/passwd0000000000000000",
        ] {
            assert!(bad.parse::<AgentId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_is_read_from_json_only_inside_its_range() {
        for number in [1, 7, ReportSeq::MAX_NUMBER] {
            let seq = ReportSeq::new(number).unwrap();
            assert_eq!(serde_json::to_string(&seq).unwrap(), number.to_string());
            assert_eq!(serde_json::from_str::<ReportSeq>(&number.to_string()).unwrap(), seq);
        }
        for text in ["0", "4611686018427387905", "18446744073709551615", "-1", "1.5", "\"1\""] {
            assert!(serde_json::from_str::<ReportSeq>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_control_id_is_upper_case_parts_with_dashes() {
        for good in ["ENC-01", "ACME-NET-7"] {
            assert!(good.parse::<ControlId>().is_ok(), "{good}");
        }
        for bad in ["", "ENC", "enc-01", "ENC-", "ENC 01", "=ENC-01", "ENC--1"] {
            assert!(bad.parse::<ControlId>().is_err(), "{bad}");
        }
    }
}
