//! What the kernel says of the encryption of a folder, without the name of its key.
//!
//! linux/fscrypt.h and Documentation/filesystems/fscrypt.rst: `FS_IOC_GET_ENCRYPTION_POLICY_EX`.

use serde::{Deserialize, Serialize};

/// Bytes of a policy of version 1.
const V1_BYTES: usize = 12;
/// Bytes of a policy of version 2.
const V2_BYTES: usize = 24;

/// The encryption policy of a folder, which everything below it has too.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Policy {
    /// 1 or 2.
    pub version: u8,
    /// `FSCRYPT_MODE_` number by which contents are encrypted.
    pub contents_mode: u8,
}

impl Policy {
    /// Returns the cipher and mode of contents and the size of its key in bits; `None` for a mode of a later kernel.
    pub fn cipher(self) -> Option<(&'static str, u64)> {
        match self.contents_mode {
            1 => Some(("aes-256-xts", 512)),
            5 => Some(("aes-128-cbc-essiv", 128)),
            7 => Some(("sm4-xts", 256)),
            9 => Some(("adiantum", 256)),
            _ => None,
        }
    }
}

/// Returns the policy that the kernel wrote, or `None` when it is of no version that is known.
pub fn parse(bytes: &[u8]) -> Option<Policy> {
    // fscrypt_policy_v1 has the number 0.
    let (version, size) = match bytes.first()? {
        0 => (1, V1_BYTES),
        2 => (2, V2_BYTES),
        _ => return None,
    };
    (bytes.len() == size).then(|| Policy { version, contents_mode: bytes[1] })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_policy_tells_its_cipher_and_not_its_key() {
        let mut v2 = [7; V2_BYTES];
        v2[..4].copy_from_slice(&[2, 1, 4, 3]);
        let policy = parse(&v2).unwrap();
        assert_eq!(policy, Policy { version: 2, contents_mode: 1 });
        assert_eq!(policy.cipher(), Some(("aes-256-xts", 512)));
        let mut v1 = [7; V1_BYTES];
        v1[..3].copy_from_slice(&[0, 9, 9]);
        assert_eq!(parse(&v1).unwrap().cipher(), Some(("adiantum", 256)));
        v1[1] = 99;
        assert_eq!(parse(&v1).unwrap().cipher(), None);
        assert_eq!(parse(&v2[..V1_BYTES]), None);
        assert_eq!(parse(&[3; V2_BYTES]), None);
        assert_eq!(parse(&[]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = parse(&bytes).map(Policy::cipher);
        }
    }
}
