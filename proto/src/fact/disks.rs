//! What data volumes rest on, and whether they are encrypted.

use serde::{Deserialize, Serialize};

use super::{PathText, Reading, Text, text_enum};

text_enum!(
    /// Kind of volume.
    VolumeKind {
        Fixed = "fixed", Removable = "removable", Network = "network", Image = "image", Memory = "memory", Boot = "boot",
    }
);
text_enum!(
    /// What BitLocker or FileVault says of a volume.
    Protection {
        On = "on", Off = "off", Suspended = "suspended", Encrypting = "encrypting", EncryptionPaused = "encryption_paused",
        Decrypting = "decrypting", DecryptionPaused = "decryption_paused", Locked = "locked", Deferred = "deferred",
        HardwareKey = "hardware_key",
    }
);
text_enum!(
    /// What opens the key of a BitLocker volume.
    KeyProtector {
        Cng = "cng", ExternalKey = "external_key", Other = "other", Password = "password", PublicKey = "public_key",
        RecoveryPassword = "recovery_password", Tpm = "tpm", TpmCertificate = "tpm_certificate", TpmPin = "tpm_pin",
        TpmPinStartupKey = "tpm_pin_startup_key", TpmStartupKey = "tpm_startup_key",
    }
);
text_enum!(
    /// Kind of swap area.
    SwapKind { Partition = "partition", File = "file", Zram = "zram" }
);
text_enum!(
    /// Kind of device below a volume.
    LayerKind {
        Disk = "disk", Partition = "partition", Crypt = "crypt", Lvm = "lvm", Raid = "raid", Loop = "loop",
        Multipath = "multipath", Bcache = "bcache", Zram = "zram", Virtual = "virtual", Apfs = "apfs",
        Other = "other",
    }
);
text_enum!(
    /// Format of a crypt layer.
    CryptFormat {
        Luks1 = "luks1", Luks2 = "luks2", Plain = "plain", Integrity = "integrity", Opal = "opal",
        OpalCrypt = "opal_crypt", Fscrypt = "fscrypt", Ecryptfs = "ecryptfs", Zfs = "zfs",
        Apfs = "apfs", Bitlocker = "bitlocker", Other = "other",
    }
);
text_enum!(
    /// What opens a key slot.
    KeySlotKind {
        Passphrase = "passphrase", Tpm2 = "tpm2", Tpm2Pin = "tpm2_pin", Fido2 = "fido2", Pkcs11 = "pkcs11",
        Recovery = "recovery", Clevis = "clevis", Keyring = "keyring", Other = "other",
    }
);

/// Every mounted file system that stores data, and every swap area.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct DiskEncryption {
    pub volumes: Vec<Volume>,
    pub swap_areas: Vec<SwapArea>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes_complete: Option<Reading<bool>>,
}

/// A mounted file system.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Volume {
    pub mount_point: PathText,
    pub file_system: Text,
    pub source: PathText,
    pub kind: VolumeKind,
    pub layers: Vec<Layer>,
    pub encrypted: Reading<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Reading<Protection>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_percent: Option<Reading<u64>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_protectors: Vec<KeyProtector>,
    /// Empty in facts of a version that did not look for them.
    #[serde(default)]
    pub encrypted_folders: Vec<PathText>,
}

/// A swap area.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct SwapArea {
    pub name: PathText,
    pub kind: SwapKind,
    pub layers: Vec<Layer>,
    pub encrypted: Reading<bool>,
}

/// One device in the chain below a volume.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Layer {
    pub device: Text,
    pub kind: LayerKind,
    pub name: Text,
    /// Present on crypt layers alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crypt: Option<Crypt>,
    pub below: Vec<Text>,
}

/// What a crypt layer does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Crypt {
    pub format: CryptFormat,
    pub cipher: Reading<Text>,
    pub key_bits: Reading<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_slots: Option<Reading<KeySlots>>,
}

/// What unlocks a LUKS device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct KeySlots {
    pub slots: Vec<KeySlot>,
}

/// A key slot in use.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct KeySlot {
    pub number: u32,
    pub kind: KeySlotKind,
}
