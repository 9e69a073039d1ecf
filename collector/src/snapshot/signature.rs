//! `manifest.sig`: the collector's signature of a manifest, and through it of every byte of a snapshot. Pure.
//!
//! A signed note (C2SP signed-note) by the log's key, which is not among the manifest's files:
//!
//! ```text
//! muster/snapshot/v1
//! sha256:<SHA-256 of manifest.json, hex>
//!
//! — <name of the log> <key id and Ed25519 signature, base64>
//! ```
//!
//! The same key signs checkpoints. The text can be none: it has two lines where a checkpoint has three, its second line is no
//! number, and its first line cannot be the name of a log.

use muster_proto::id::Digest;

use crate::log::{self, Key};

/// Name of the signature's file.
pub const NAME: &str = "manifest.sig";
/// First line of the signed text.
const DOMAIN: &str = "muster/snapshot/v1";

/// Returns the signature of `manifest`, the bytes of its file. The same manifest has the same signature.
///
/// # Errors
///
/// When the key cannot sign.
pub fn sign(key: &Key, manifest: &[u8]) -> Result<Vec<u8>, log::NoteError> {
    key.sign_text(&text(manifest))
}

/// Checks that the log of `vkey` signed `manifest`, and that `note` says nothing else.
///
/// # Errors
///
/// Says whether the key or the signature is wrong.
pub fn verify(note: &[u8], manifest: &[u8], vkey: &str) -> Result<(), log::NoteError> {
    log::verify_text(note, &text(manifest), vkey)
}

fn text(manifest: &[u8]) -> String {
    format!("{DOMAIN}\nsha256:{}\n", Digest::of_bytes(manifest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_one_manifest_by_one_key_and_has_one_form() {
        let key = Key::generate("c1").unwrap();
        let note = sign(&key, b"{}").unwrap();
        assert_eq!(sign(&key, b"{}").unwrap(), note);
        assert_eq!(verify(&note, b"{}", key.vkey()), Ok(()));
        assert_eq!(verify(&note, b"{ }", key.vkey()), Err(log::NoteError::Signature));
        let other = Key::generate("c1").unwrap();
        assert_eq!(verify(&note, b"{}", other.vkey()), Err(log::NoteError::Signature));
        for bit in 0..note.len() * 8 {
            let mut changed = note.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&changed, b"{}", key.vkey()).is_err(), "bit {bit}");
        }
        // Another signature beside it would be bytes that nobody stands for.
        let theirs = sign(&other, b"{}").unwrap();
        let line = theirs.split(|b| *b == b'\n').nth(3).unwrap();
        let two = [note.as_slice(), line, b"\n"].concat();
        assert!(verify(&two, b"{}", key.vkey()).is_err());
    }

    #[test]
    fn no_signature_of_a_snapshot_is_a_checkpoint_nor_the_other_way_round() {
        let key = Key::generate("c1").unwrap();
        let note = sign(&key, b"{}").unwrap();
        assert!(log::verify_checkpoint(&note, key.vkey()).is_err());
        // The first line is the name of no log.
        assert!(Key::generate(DOMAIN).is_err());
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("log");
        log::Log::create(&dir, &key).unwrap();
        let checkpoint = std::fs::read(dir.join("checkpoint")).unwrap();
        assert!(log::verify_checkpoint(&checkpoint, key.vkey()).is_ok());
        assert!(verify(&checkpoint, b"{}", key.vkey()).is_err());
    }
}
