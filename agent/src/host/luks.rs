//! What a LUKS header says of its cipher and of what unlocks it, without its keys, salts and digests.
//!
//! LUKS1: "LUKS On-Disk Format Specification 1.2.3". LUKS2: "LUKS2 On-Disk Format Specification 1.1.4". Tokens:
//! systemd-cryptenroll(1), clevis-luks-bind(1), cryptsetup-token(8).

use std::collections::BTreeMap;

use muster_proto::fact::{KeySlot, KeySlotKind};
use serde::{Deserialize, Serialize};

/// Bytes of the start of a device that [`parse`] needs: the binary header and the JSON area of LUKS2 at its largest default.
pub const HEADER_BYTES: usize = 64 * 1024;

const MAGIC: &[u8] = b"LUKS\xba\xbe";
/// Place of the uuid, of both versions.
const UUID_AT: usize = 168;
const UUID_BYTES: usize = 40;
const LUKS1_SLOTS: usize = 8;
const LUKS1_SLOTS_AT: usize = 208;
const LUKS1_SLOT_BYTES: usize = 48;
const LUKS1_SLOT_IN_USE: u32 = 0x00ac_71f3;
const LUKS2_BINARY_HEADER_BYTES: usize = 4096;
/// Key slots that the format of LUKS2 has, at most.
const LUKS2_SLOTS: u32 = 32;

/// What a LUKS header says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Luks {
    /// 1 or 2.
    pub version: u16,
    /// Cipher and mode, such as `aes-xts-plain64`. Empty when the drive alone encrypts.
    pub cipher: String,
    /// Size of the key of `cipher`; 0 when the drive alone encrypts.
    pub key_bits: u64,
    /// Whether the drive encrypts all that is written to it (OPAL).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drive_encrypts: bool,
    /// Whether data goes through unencrypted: all of it with the null cipher, some of it while a device is encrypted or
    /// decrypted in place and that has not ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaves_plain: bool,
    /// Uuid of the device, which the one that is opened by this header bears too. `None` in captures of a version that did not look
    /// for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// What unlocks it, sorted by number. `None` in captures of a version that did not look for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_slots: Option<Vec<KeySlot>>,
}

/// Returns what the start of a device says, or `None` when it is no LUKS header or a damaged one.
pub fn parse(bytes: &[u8]) -> Option<Luks> {
    let version = bytes.strip_prefix(MAGIC)?.first_chunk::<2>()?;
    match u16::from_be_bytes(*version) {
        1 => parse_luks1(bytes),
        2 => parse_luks2(bytes),
        _ => None,
    }
}

fn parse_luks1(bytes: &[u8]) -> Option<Luks> {
    let cipher = c_text(bytes.get(8..40)?)?;
    let mode = c_text(bytes.get(40..72)?)?;
    let key_bytes = u32::from_be_bytes(*bytes.get(108..112)?.first_chunk()?);
    let slots = bytes.get(LUKS1_SLOTS_AT..)?.as_chunks::<LUKS1_SLOT_BYTES>().0.get(..LUKS1_SLOTS)?;
    let in_use = |slot: &[u8; LUKS1_SLOT_BYTES]| {
        slot.first_chunk().is_some_and(|state| u32::from_be_bytes(*state) == LUKS1_SLOT_IN_USE)
    };
    let key_slots = slots.iter().zip(0..).filter(|(slot, _)| in_use(slot));
    Some(Luks {
        version: 1,
        cipher: format!("{cipher}-{mode}"),
        key_bits: u64::from(key_bytes) * 8,
        drive_encrypts: false,
        leaves_plain: is_null(cipher),
        uuid: Some(uuid(bytes)?),
        key_slots: Some(key_slots.map(|(_, number)| KeySlot { number, kind: KeySlotKind::Passphrase }).collect()),
    })
}

#[derive(Deserialize)]
struct Json {
    segments: BTreeMap<String, Segment>,
    keyslots: BTreeMap<String, Keyslot>,
    digests: BTreeMap<String, KeyDigest>,
    #[serde(default)]
    tokens: BTreeMap<String, Token>,
}

#[derive(Deserialize)]
struct Segment {
    r#type: String,
    #[serde(default)]
    encryption: Option<String>,
    /// Bytes of the key that are the drive's own.
    #[serde(default)]
    opal_key_size: u64,
    #[serde(default)]
    flags: Vec<String>,
}

impl Segment {
    /// Returns whether it says where data lies, and not how the data lay before or will lie.
    fn is_in_use(&self) -> bool {
        !self.flags.iter().any(|flag| flag.starts_with("backup-"))
    }

    fn is_of_drive(&self) -> bool {
        matches!(self.r#type.as_str(), "hw-opal" | "hw-opal-crypt")
    }

    /// Returns whether what is written to it is encrypted by something.
    fn encrypts(&self) -> bool {
        match self.r#type.as_str() {
            "hw-opal" | "hw-opal-crypt" => true,
            "crypt" => self.encryption.as_deref().is_some_and(|cipher| !is_null(cipher)),
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct Keyslot {
    key_size: u64,
}

#[derive(Deserialize)]
struct KeyDigest {
    keyslots: Vec<String>,
    segments: Vec<String>,
}

#[derive(Deserialize)]
struct Token {
    r#type: String,
    #[serde(default)]
    keyslots: Vec<String>,
    #[serde(default, rename = "tpm2-pin")]
    tpm2_pin: bool,
}

impl Token {
    fn kind(&self) -> KeySlotKind {
        match self.r#type.as_str() {
            "systemd-tpm2" if self.tpm2_pin => KeySlotKind::Tpm2Pin,
            "systemd-tpm2" => KeySlotKind::Tpm2,
            "systemd-fido2" => KeySlotKind::Fido2,
            "systemd-pkcs11" => KeySlotKind::Pkcs11,
            "systemd-recovery" => KeySlotKind::Recovery,
            "clevis" => KeySlotKind::Clevis,
            "luks2-keyring" => KeySlotKind::Keyring,
            _ => KeySlotKind::Other,
        }
    }
}

fn parse_luks2(bytes: &[u8]) -> Option<Luks> {
    let header_bytes = usize::try_from(u64::from_be_bytes(*bytes.get(8..16)?.first_chunk()?)).ok()?;
    let area = bytes.get(LUKS2_BINARY_HEADER_BYTES..header_bytes.min(bytes.len()))?;
    let json: Json = serde_json::from_slice(area.split(|&byte| byte == 0).next()?).ok()?;
    let in_use = || json.segments.iter().filter(|(_, segment)| segment.is_in_use());
    let (id, segment) = in_use().find(|(_, segment)| segment.encryption.is_some() || segment.is_of_drive())?;
    let cipher = segment.encryption.clone().unwrap_or_default();
    // A digest binds the key slots that hold a segment's volume key; other slots hold other keys.
    let digest = json.digests.values().find(|digest| digest.segments.contains(id))?;
    let key_bytes = digest.keyslots.iter().find_map(|slot| json.keyslots.get(slot))?.key_size;
    let key_bytes = if cipher.is_empty() { 0 } else { key_bytes.checked_sub(segment.opal_key_size)? };
    Some(Luks {
        version: 2,
        cipher,
        key_bits: key_bytes.checked_mul(8)?,
        drive_encrypts: in_use().all(|(_, segment)| segment.is_of_drive()),
        leaves_plain: !in_use().all(|(_, segment)| segment.encrypts()),
        uuid: Some(uuid(bytes)?),
        key_slots: Some(key_slots(&json, digest)),
    })
}

/// Returns the uuid of a header; empty where it has none.
fn uuid(bytes: &[u8]) -> Option<String> {
    let field = bytes.get(UUID_AT..UUID_AT + UUID_BYTES)?;
    Some(c_text(field).unwrap_or_default().to_owned())
}

/// Returns the slots that `digest` binds to the volume key, each with the kind of the first token that names it.
fn key_slots(json: &Json, digest: &KeyDigest) -> Vec<KeySlot> {
    let kind = |slot: &String| {
        let token = json.tokens.values().find(|token| token.keyslots.contains(slot));
        token.map_or(KeySlotKind::Passphrase, Token::kind)
    };
    let numbered = |slot: &String| {
        let number = slot.parse().ok().filter(|&number: &u32| number < LUKS2_SLOTS)?;
        json.keyslots.contains_key(slot).then(|| (number, kind(slot)))
    };
    let slots: BTreeMap<u32, KeySlotKind> = digest.keyslots.iter().filter_map(numbered).collect();
    slots.into_iter().map(|(number, kind)| KeySlot { number, kind }).collect()
}

/// Returns whether it is the kernel's cipher that encrypts nothing, as cryptsetup names it (`crypt_is_cipher_null` in
/// lib/utils_crypt.c): in the kernel's own notation, as in `capi:ecb(cipher_null)-plain64`, the name is not at the start.
fn is_null(cipher: &str) -> bool {
    cipher.contains("cipher_null") || cipher == "null"
}

fn c_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes.split(|&byte| byte == 0).next()?).ok()?;
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "3f2a1c44-9d0e-4f6b-8a77-0123456789ab";

    #[test]
    fn a_luks1_header_tells_its_cipher() {
        let mut header = vec![0; 592];
        header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
        header[8..11].copy_from_slice(b"aes");
        header[40..51].copy_from_slice(b"xts-plain64");
        header[108..112].copy_from_slice(&64_u32.to_be_bytes());
        header[168..204].copy_from_slice(UUID.as_bytes());
        header[208..212].copy_from_slice(&0x0000_dead_u32.to_be_bytes());
        header[208 + 2 * 48..][..4].copy_from_slice(&0x00ac_71f3_u32.to_be_bytes());
        let luks = Luks {
            version: 1,
            cipher: "aes-xts-plain64".to_owned(),
            key_bits: 512,
            drive_encrypts: false,
            leaves_plain: false,
            uuid: Some(UUID.to_owned()),
            key_slots: Some(vec![KeySlot { number: 2, kind: KeySlotKind::Passphrase }]),
        };
        assert_eq!(parse(&header), Some(luks));
        assert_eq!(parse(&header[..591]), None);
    }

    /// Returns a LUKS2 header of these segments, whose key is in the second of two slots.
    fn luks2(segments: &str) -> Vec<u8> {
        luks2_with(segments, "")
    }

    fn luks2_with(segments: &str, tokens: &str) -> Vec<u8> {
        let json = format!(
            r#"{{"keyslots":{{"0":{{"type":"luks2","key_size":32}},"1":{{"type":"luks2","key_size":64}}}},
            "segments":{{{segments}}},
            "digests":{{"0":{{"type":"pbkdf2","keyslots":["1"],"segments":["0"]}}}},"tokens":{{{tokens}}},"config":{{}}}}"#
        );
        let mut header = vec![0; 16384];
        header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        header[8..16].copy_from_slice(&16384_u64.to_be_bytes());
        header[168..204].copy_from_slice(UUID.as_bytes());
        header[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        header
    }

    #[test]
    fn a_luks2_header_tells_the_cipher_of_its_segment_and_the_size_of_its_key() {
        let mut header = luks2(r#""0":{"type":"crypt","encryption":"aes-xts-plain64"}"#);
        let cipher = "aes-xts-plain64".to_owned();
        let key_slots = Some(vec![KeySlot { number: 1, kind: KeySlotKind::Passphrase }]);
        let luks = Luks {
            version: 2,
            cipher,
            key_bits: 512,
            drive_encrypts: false,
            leaves_plain: false,
            uuid: Some(UUID.to_owned()),
            key_slots,
        };
        assert_eq!(parse(&header), Some(luks));
        header[4096] = b'!';
        assert_eq!(parse(&header), None);
    }

    #[test]
    fn a_null_cipher_and_a_device_half_encrypted_in_place_leave_data_plain() {
        for (segments, expected) in [
            (r#""0":{"type":"crypt","encryption":"cipher_null-ecb"}"#, true),
            (r#""0":{"type":"crypt","encryption":"capi:ecb(cipher_null)-plain64"}"#, true),
            (r#""0":{"type":"crypt","encryption":"aes-xts-plain64"},"1":{"type":"linear"}"#, true),
            (
                r#""0":{"type":"crypt","encryption":"aes-xts-plain64","flags":["in-reencryption"]},
                "1":{"type":"linear","flags":["backup-previous"]}"#,
                false,
            ),
        ] {
            assert_eq!(parse(&luks2(segments)).unwrap().leaves_plain, expected, "{segments}");
        }
    }

    #[test]
    fn a_drive_that_encrypts_is_told_from_one_that_encrypts_what_is_encrypted_already() {
        let opal = r#""opal_segment_number":1,"opal_key_size":32,"opal_segment_size":"1024""#;
        let alone = parse(&luks2(&format!(r#""0":{{"type":"hw-opal",{opal}}}"#))).unwrap();
        assert_eq!((alone.cipher.as_str(), alone.key_bits), ("", 0));
        assert!(alone.drive_encrypts && !alone.leaves_plain);
        let both = format!(r#""0":{{"type":"hw-opal-crypt","encryption":"aes-xts-plain64",{opal}}}"#);
        let both = parse(&luks2(&both)).unwrap();
        // Of 64 bytes of the slot's key, 32 are the drive's.
        assert_eq!((both.cipher.as_str(), both.key_bits), ("aes-xts-plain64", 256));
        assert!(both.drive_encrypts && !both.leaves_plain);
    }

    #[test]
    fn a_segment_of_a_later_version_is_not_taken_for_encryption() {
        let segments = r#""0":{"type":"crypt","encryption":"aes-xts-plain64"},"1":{"type":"mirror"}"#;
        assert!(parse(&luks2(segments)).unwrap().leaves_plain);
    }

    #[test]
    fn a_slot_is_of_the_kind_of_the_token_that_names_it() {
        let slots = |token: &str| {
            let crypt = r#""0":{"type":"crypt","encryption":"aes-xts-plain64"}"#;
            parse(&luks2_with(crypt, token)).unwrap().key_slots.unwrap()
        };
        for (token, expected) in [
            ("", KeySlotKind::Passphrase),
            (r#""0":{"type":"systemd-tpm2","keyslots":["1"]}"#, KeySlotKind::Tpm2),
            (r#""0":{"type":"systemd-tpm2","keyslots":["1"],"tpm2-pin":true}"#, KeySlotKind::Tpm2Pin),
            (r#""0":{"type":"systemd-fido2","keyslots":["1"]}"#, KeySlotKind::Fido2),
            (r#""0":{"type":"systemd-pkcs11","keyslots":["1"]}"#, KeySlotKind::Pkcs11),
            (r#""0":{"type":"systemd-recovery","keyslots":["1"]}"#, KeySlotKind::Recovery),
            (r#""0":{"type":"clevis","keyslots":["1"],"jwe":{}}"#, KeySlotKind::Clevis),
            (r#""0":{"type":"luks2-keyring","keyslots":["1"],"key_description":"k"}"#, KeySlotKind::Keyring),
            (r#""0":{"type":"acme","keyslots":["1"]}"#, KeySlotKind::Other),
            (r#""0":{"type":"clevis","keyslots":[]}"#, KeySlotKind::Passphrase),
            (r#""0":{"type":"clevis","keyslots":["0"]}"#, KeySlotKind::Passphrase),
        ] {
            assert_eq!(slots(token), [KeySlot { number: 1, kind: expected }], "{token}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            version in 0_u8..4, bytes in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let _ = parse(&bytes);
            let _ = parse(&[MAGIC, &[0, version], &bytes].concat());
            let _ = parse(&luks2(&String::from_utf8_lossy(&bytes)));
        }
    }
}
