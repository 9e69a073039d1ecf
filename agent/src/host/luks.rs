//! What a LUKS header says of its cipher, without its keys, salts and digests.
//!
//! LUKS1: "LUKS On-Disk Format Specification 1.2.3". LUKS2: "LUKS2 On-Disk Format Specification 1.1.1".

use serde::{Deserialize, Serialize};

/// Bytes of the start of a device that [`parse`] needs: the binary header and the JSON area of LUKS2 at its largest default.
pub const HEADER_BYTES: usize = 64 * 1024;

const MAGIC: &[u8] = b"LUKS\xba\xbe";
const LUKS2_BINARY_HEADER_BYTES: usize = 4096;

/// What a LUKS header says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Luks {
    /// 1 or 2.
    pub version: u16,
    /// Cipher and mode, such as `aes-xts-plain64`.
    pub cipher: String,
    /// Size of the volume key.
    pub key_bits: u64,
    /// Whether data goes through unencrypted: all of it with the null cipher, some of it while a device is encrypted or
    /// decrypted in place and that has not ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaves_plain: bool,
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
    Some(Luks {
        version: 1,
        cipher: format!("{cipher}-{mode}"),
        key_bits: u64::from(key_bytes) * 8,
        leaves_plain: is_null(cipher),
    })
}

#[derive(Deserialize)]
struct Json {
    segments: std::collections::BTreeMap<String, Segment>,
    keyslots: std::collections::BTreeMap<String, Keyslot>,
    digests: std::collections::BTreeMap<String, KeyDigest>,
}

#[derive(Deserialize)]
struct Segment {
    r#type: String,
    #[serde(default)]
    encryption: Option<String>,
    #[serde(default)]
    flags: Vec<String>,
}

impl Segment {
    /// Returns whether it says where data lies, and not how the data lay before or will lie.
    fn is_in_use(&self) -> bool {
        !self.flags.iter().any(|flag| flag.starts_with("backup-"))
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

fn parse_luks2(bytes: &[u8]) -> Option<Luks> {
    let header_bytes = usize::try_from(u64::from_be_bytes(*bytes.get(8..16)?.first_chunk()?)).ok()?;
    let area = bytes.get(LUKS2_BINARY_HEADER_BYTES..header_bytes.min(bytes.len()))?;
    let json: Json = serde_json::from_slice(area.split(|&byte| byte == 0).next()?).ok()?;
    let in_use = || json.segments.iter().filter(|(_, segment)| segment.is_in_use());
    let (segment, cipher) = in_use().find_map(|(id, segment)| Some((id, segment.encryption.clone()?)))?;
    let leaves_plain = is_null(&cipher) || in_use().any(|(_, segment)| segment.r#type == "linear");
    // A digest binds the key slots that hold a segment's volume key; other slots hold other keys.
    let digest = json.digests.values().find(|digest| digest.segments.contains(segment))?;
    let slot = digest.keyslots.iter().find_map(|slot| json.keyslots.get(slot))?;
    Some(Luks { version: 2, cipher, key_bits: slot.key_size.checked_mul(8)?, leaves_plain })
}

/// The kernel's cipher that encrypts nothing, as cryptsetup names it.
fn is_null(cipher: &str) -> bool {
    cipher.starts_with("cipher_null") || cipher == "null"
}

fn c_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes.split(|&byte| byte == 0).next()?).ok()?;
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_luks1_header_tells_its_cipher() {
        let mut header = vec![0; 592];
        header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
        header[8..11].copy_from_slice(b"aes");
        header[40..51].copy_from_slice(b"xts-plain64");
        header[108..112].copy_from_slice(&64_u32.to_be_bytes());
        let luks = Luks { version: 1, cipher: "aes-xts-plain64".to_owned(), key_bits: 512, leaves_plain: false };
        assert_eq!(parse(&header), Some(luks));
        assert_eq!(parse(&header[..100]), None);
    }

    /// Returns a LUKS2 header of these segments, whose key is in the second of two slots.
    fn luks2(segments: &str) -> Vec<u8> {
        let json = format!(
            r#"{{"keyslots":{{"0":{{"type":"luks2","key_size":32}},"1":{{"type":"luks2","key_size":64}}}},
            "segments":{{{segments}}},
            "digests":{{"0":{{"type":"pbkdf2","keyslots":["1"],"segments":["0"]}}}},"tokens":{{}},"config":{{}}}}"#
        );
        let mut header = vec![0; 16384];
        header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        header[8..16].copy_from_slice(&16384_u64.to_be_bytes());
        header[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        header
    }

    #[test]
    fn a_luks2_header_tells_the_cipher_of_its_segment_and_the_size_of_its_key() {
        let mut header = luks2(r#""0":{"type":"crypt","encryption":"aes-xts-plain64"}"#);
        let cipher = "aes-xts-plain64".to_owned();
        let luks = Luks { version: 2, cipher, key_bits: 512, leaves_plain: false };
        assert_eq!(parse(&header), Some(luks));
        header[4096] = b'!';
        assert_eq!(parse(&header), None);
    }

    #[test]
    fn a_null_cipher_and_a_device_half_encrypted_in_place_leave_data_plain() {
        for (segments, expected) in [
            (r#""0":{"type":"crypt","encryption":"cipher_null-ecb"}"#, true),
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

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            version in 0_u8..4, bytes in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let _ = parse(&bytes);
            let _ = parse(&[MAGIC, &[0, version], &bytes].concat());
        }
    }
}
