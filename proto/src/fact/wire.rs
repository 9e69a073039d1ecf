//! Facts from and to the wire.

use super::{Fact, Subject};

/// Bytes are not a fact of the contract.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// They are not an encoded `Fact`.
    #[error("fact is not a protobuf message of the contract")]
    Encoding,
    /// A field has no value that the contract allows.
    #[error("fact field {0} is missing or outside its range")]
    Field(&'static str),
    /// An enum value or a subject that this version does not know.
    #[error("fact field {0} has a value that this version does not know")]
    UnknownKind(&'static str),
}

impl Fact {
    /// Returns the fact of `bytes`, every field checked.
    ///
    /// # Errors
    ///
    /// Says which field is not what the contract allows.
    pub fn decode(_bytes: &[u8]) -> Result<Self, Error> {
        Err(Error::Encoding)
    }

    /// Returns the encoded fact.
    pub fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Returns what the fact is about.
    pub fn subject(&self) -> Subject {
        match self {
            Self::System(_) => Subject::System,
            Self::DiskEncryption(_) => Subject::DiskEncryption,
            Self::PatchLevel(_) => Subject::PatchLevel,
            Self::Software(_) => Subject::Software,
            Self::Firewall(_) => Subject::Firewall,
            Self::Listeners(_) => Subject::Listeners,
            Self::FileIntegrity(_) => Subject::FileIntegrity,
            Self::Agent(_) => Subject::Agent,
        }
    }
}

impl Subject {
    /// Every subject, in order of name.
    pub const ALL: [Self; 8] = [
        Self::Agent,
        Self::DiskEncryption,
        Self::FileIntegrity,
        Self::Firewall,
        Self::Listeners,
        Self::PatchLevel,
        Self::Software,
        Self::System,
    ];

    /// Returns its name, such as `disk_encryption`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::DiskEncryption => "disk_encryption",
            Self::FileIntegrity => "file_integrity",
            Self::Firewall => "firewall",
            Self::Listeners => "listeners",
            Self::PatchLevel => "patch_level",
            Self::Software => "software",
            Self::System => "system",
        }
    }

    /// Returns the probe whose looks keep the subject fresh.
    pub fn probe(self) -> crate::report::Probe {
        use crate::report::Probe;
        match self {
            Self::System | Self::Listeners | Self::Agent => Probe::System,
            Self::DiskEncryption => Probe::DiskEncryption,
            Self::PatchLevel | Self::Software => Probe::PatchLevel,
            Self::Firewall => Probe::Firewall,
            Self::FileIntegrity => Probe::FileIntegrity,
        }
    }
}
