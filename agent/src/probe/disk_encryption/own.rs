//! File systems that encrypt by themselves: the layers that they are, and what ZFS says of its datasets. Pure.

use std::collections::BTreeMap;

use muster_proto::fact::{Cause, Crypt, CryptFormat, Layer, LayerKind, Reading, Text};

use super::mounts::Mount;
use crate::host::Policy;

/// Arguments of `zfs` that print the encryption of each dataset: zfs-get(8), zfsprops(7).
pub(super) const ZFS_ARGUMENTS: [&str; 8] =
    ["get", "-H", "-p", "-t", "filesystem", "-o", "name,property,value", "encryption,keystatus"];

/// Returns the layer of a folder with `policy`.
pub(super) fn fscrypt(policy: Policy) -> Layer {
    let cipher = policy.cipher();
    let later = || format!("mode {} is of a later kernel", policy.contents_mode);
    layer(
        "fscrypt",
        CryptFormat::Fscrypt,
        cipher.map_or_else(|| Reading::unknown(Cause::Unsupported, later()), |(name, _)| Reading::Known(name.into())),
        cipher.map_or_else(|| Reading::unknown(Cause::Unsupported, later()), |(_, bits)| Reading::Known(bits)),
    )
}

/// Returns the layer of an eCryptfs mount, or why it may let data through as it is: Documentation/filesystems/ecryptfs.rst.
pub(super) fn ecryptfs(mount: &Mount) -> Result<Layer, String> {
    // With the first, files below that are not encrypted are read and written as they are; with the second, the mount shows
    // files as they are below.
    for option in ["ecryptfs_passthrough", "ecryptfs_encrypted_view"] {
        if mount.has_option(option.as_bytes()) {
            return Err(format!("the mount has the option {option}"));
        }
    }
    let text = |key: &str| mount.option(key.as_bytes()).map(|value| String::from_utf8_lossy(&value).into_owned());
    let cipher = text("ecryptfs_cipher=").ok_or("the mount names no cipher")?;
    let bytes = text("ecryptfs_key_bytes=").and_then(|bytes| bytes.parse::<u64>().ok()?.checked_mul(8));
    let key_bits =
        bytes.map_or_else(|| Reading::unknown(Cause::Absent, "the mount names no size of its key"), Reading::Known);
    // eCryptfs has one mode: fs/ecryptfs/crypto.c.
    let cipher = Reading::Known(Text::new(&format!("{cipher}-cbc")));
    Ok(layer("ecryptfs", CryptFormat::Ecryptfs, cipher, key_bits))
}

/// Returns the layer of the ZFS dataset `name`, which `encryption` encrypts, such as `aes-256-gcm`.
pub(super) fn zfs(name: &str, encryption: &str) -> Layer {
    let bits = encryption.split('-').nth(1).and_then(|bits| bits.parse().ok());
    let key_bits = bits.map_or_else(|| Reading::unknown(Cause::Unsupported, "a cipher of a later ZFS"), Reading::Known);
    layer(name, CryptFormat::Zfs, Reading::Known(Text::new(encryption)), key_bits)
}

fn layer(device: &str, format: CryptFormat, cipher: Reading<Text>, key_bits: Reading<u64>) -> Layer {
    let crypt = Crypt { format, cipher, key_bits, key_slots: None };
    Layer {
        device: Text::new(device),
        kind: LayerKind::Crypt,
        name: Text::default(),
        crypt: Some(crypt),
        below: Vec::new(),
    }
}

/// What ZFS says of a dataset.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Dataset {
    /// The property `encryption`: `off`, or a cipher such as `aes-256-gcm`.
    pub encryption: String,
    /// The property `keystatus`: `available`, `unavailable`, or `-` where there is no key.
    pub key_status: String,
}

/// Returns the datasets that `zfs` printed for [`ZFS_ARGUMENTS`], by name; `None` when a line does not follow the format.
pub(super) fn parse_zfs(bytes: &[u8]) -> Option<BTreeMap<String, Dataset>> {
    let mut datasets: BTreeMap<String, Dataset> = BTreeMap::new();
    for line in std::str::from_utf8(bytes).ok()?.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [name, property, value] = fields[..] else { return None };
        let dataset = datasets.entry(name.to_owned()).or_default();
        match property {
            "encryption" => value.clone_into(&mut dataset.encryption),
            "keystatus" => value.clone_into(&mut dataset.key_status),
            _ => return None,
        }
    }
    Some(datasets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::mounts, *};

    #[test]
    fn the_datasets_that_zfs_prints_are_read() {
        let text = b"tank\tencryption\toff\ntank\tkeystatus\t-\ntank/my home\tencryption\taes-256-gcm\n\
                     tank/my home\tkeystatus\tavailable\n";
        let datasets = parse_zfs(text).unwrap();
        let dataset = |encryption: &str, key_status: &str| Dataset {
            encryption: encryption.to_owned(),
            key_status: key_status.to_owned(),
        };
        assert_eq!(datasets["tank"], dataset("off", "-"));
        assert_eq!(datasets["tank/my home"], dataset("aes-256-gcm", "available"));
        assert_eq!(parse_zfs(b""), Some(BTreeMap::new()));
        assert_eq!(parse_zfs(b"tank\tencryption\n"), None);
        assert_eq!(parse_zfs(b"tank\tmounted\tyes\n"), None);
        let crypt = zfs("tank/home", "aes-256-gcm").crypt.unwrap();
        assert_eq!((crypt.cipher, crypt.key_bits), (Reading::Known("aes-256-gcm".into()), Reading::Known(256)));
    }

    #[test]
    fn an_ecryptfs_mount_that_lets_plain_files_through_is_no_layer() {
        let mount = |options: &str| {
            let line = format!("1 1 0:9 / /home/a rw - ecryptfs /home/.ecryptfs/a/.Private {options}\n");
            ecryptfs(&mounts::parse(line.as_bytes()).unwrap()[0])
        };
        let crypt = mount("rw,ecryptfs_sig=12,ecryptfs_cipher=aes,ecryptfs_key_bytes=16").unwrap().crypt.unwrap();
        assert_eq!((crypt.cipher, crypt.key_bits), (Reading::Known("aes-cbc".into()), Reading::Known(128)));
        assert!(mount("rw,ecryptfs_cipher=aes,ecryptfs_key_bytes=16,ecryptfs_passthrough").is_err());
        assert!(mount("rw,ecryptfs_cipher=aes,ecryptfs_encrypted_view").is_err());
        assert!(mount("rw").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_zfs(&bytes);
        }
    }
}
