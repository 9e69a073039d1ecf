//! Keys, signed checkpoints and proofs: what anyone who checks a log needs, without the log. Pure.
//!
//! A checkpoint is a signed note (C2SP signed-note, tlog-checkpoint):
//!
//! ```text
//! <origin>
//! <size, decimal>
//! <root hash, base64>
//!
//! — <origin> <key id and Ed25519 signature, base64>
//! ```

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::{SecureRandom as _, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use muster_proto::{caller, id::Digest};
use signed_note::{Note, StandardSigner, StandardVerifier, VerifierList};
use tlog_tiles::Hash;

/// Signed-note's number of the Ed25519 algorithm.
const ALGORITHM: u8 = 1;

/// A key, checkpoint or proof is not what it must be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The log's name is none.
    #[error("not a log's name: expected 1 to 64 of a-z, 0-9, '.', '_' and '-'")]
    Name,
    /// The text is no key.
    #[error("not a signed-note key of an Ed25519 log")]
    Key,
    /// The machine gives no randomness.
    #[error("no randomness for a new key")]
    Randomness,
    /// The note has no valid signature by the key.
    #[error("not signed by the log's key")]
    Signature,
    /// The signed text is no checkpoint of this log.
    #[error("signed note is not a checkpoint of this log")]
    Checkpoint,
    /// The proof does not prove it.
    #[error("proof does not verify")]
    Proof,
}

/// A signed size and root of a log.
#[derive(Clone, Eq, PartialEq)]
pub struct Checkpoint {
    /// Entries that it covers.
    pub size: u64,
    /// RFC 6962 root hash over them.
    pub root: Digest,
    /// The signed note itself.
    pub note: Arc<[u8]>,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {})", self.size, self.root)
    }
}

/// The key that signs a log's checkpoints, with the log's name.
pub struct Key {
    signer: StandardSigner,
    name: String,
    text: String,
    vkey: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.vkey)
    }
}

impl Key {
    /// Makes a key for the log `name`.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] and [`Error::Randomness`].
    pub fn generate(name: &str) -> Result<Self, Error> {
        if !caller::is_name(name) {
            return Err(Error::Name);
        }
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| Error::Randomness)?;
        let public = public_half(&seed)?;
        let secret = [&[ALGORITHM], seed.as_slice()].concat();
        let id = signed_note::key_id(name, &public);
        Self::parse(&format!("PRIVATE+KEY+{name}+{id:08x}+{}", STANDARD.encode(secret)))
    }

    /// Returns the key of its text form (signed-note's `PRIVATE+KEY+…`).
    ///
    /// # Errors
    ///
    /// [`Error::Key`] and [`Error::Name`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim_end();
        let signer = StandardSigner::new(text).map_err(|_| Error::Key)?;
        let mut parts = text.strip_prefix("PRIVATE+KEY+").ok_or(Error::Key)?.splitn(3, '+');
        let (Some(name), Some(id), Some(secret)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Error::Key);
        };
        if !caller::is_name(name) {
            return Err(Error::Name);
        }
        let secret = STANDARD.decode(secret).map_err(|_| Error::Key)?;
        let public = public_half(secret.get(1..).ok_or(Error::Key)?)?;
        let vkey = format!("{name}+{id}+{}", STANDARD.encode(public));
        Ok(Self { signer, name: name.to_owned(), text: text.to_owned(), vkey })
    }

    /// Returns its text form, secret.
    pub fn secret_text(&self) -> &str {
        &self.text
    }

    /// Returns the key that verifies (signed-note vkey).
    pub fn vkey(&self) -> &str {
        &self.vkey
    }

    /// Returns the log's name, which is its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the signed checkpoint of `size` entries under `root`.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] when the note cannot be made.
    pub(crate) fn sign(&self, size: u64, root: Hash) -> Result<Checkpoint, Error> {
        let checkpoint = tlog_tiles::Checkpoint::new(&self.name, size, root, "").map_err(|_| Error::Checkpoint)?;
        let note = self.sign_note(&checkpoint.to_bytes())?;
        Ok(Checkpoint { size, root: Digest::new(root.0), note: note.into() })
    }

    /// Returns the signed note of a `text` that is no checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] when the note cannot be made, or the text could be taken for a checkpoint.
    pub(crate) fn sign_text(&self, text: &str) -> Result<Vec<u8>, Error> {
        if tlog_tiles::Checkpoint::from_bytes(text.as_bytes()).is_ok() {
            return Err(Error::Checkpoint);
        }
        self.sign_note(text.as_bytes())
    }

    fn sign_note(&self, text: &[u8]) -> Result<Vec<u8>, Error> {
        let mut note = Note::new(text, &[]).map_err(|_| Error::Checkpoint)?;
        note.add_sigs(&[&self.signer]).map_err(|_| Error::Checkpoint)?;
        Ok(note.to_bytes())
    }
}

/// `ALGORITHM` and the public key of `seed`.
fn public_half(seed: &[u8]) -> Result<Vec<u8>, Error> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::Key)?;
    Ok([&[ALGORITHM], pair.public_key().as_ref()].concat())
}

/// Returns the log's name in `vkey`.
///
/// # Errors
///
/// [`Error::Key`] when it is no key that verifies.
pub fn origin(vkey: &str) -> Result<&str, Error> {
    StandardVerifier::new(vkey).map_err(|_| Error::Key)?;
    vkey.split('+').next().ok_or(Error::Key)
}

/// Returns the checkpoint of `note` after checking that the log of `vkey` signed it.
///
/// # Errors
///
/// Says whether the key, the signature or the text is wrong.
pub fn verify_checkpoint(note: &[u8], vkey: &str) -> Result<Checkpoint, Error> {
    let verifier = StandardVerifier::new(vkey).map_err(|_| Error::Key)?;
    let parsed = Note::from_bytes(note).map_err(|_| Error::Checkpoint)?;
    let (valid, _) = parsed.verify(&VerifierList::new(vec![Box::new(verifier)])).map_err(|_| Error::Signature)?;
    if valid.is_empty() {
        return Err(Error::Signature);
    }
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(parsed.text()).map_err(|_| Error::Checkpoint)?;
    if checkpoint.origin() != origin(vkey)? {
        return Err(Error::Checkpoint);
    }
    Ok(Checkpoint { size: checkpoint.size(), root: Digest::new(checkpoint.hash().0), note: note.into() })
}

/// Checks that `note` is `text` with one signature, by the log of `vkey`, in its one form.
///
/// # Errors
///
/// [`Error::Key`] and [`Error::Signature`].
pub fn verify_text(note: &[u8], text: &str, vkey: &str) -> Result<(), Error> {
    let verifier = StandardVerifier::new(vkey).map_err(|_| Error::Key)?;
    let parsed = Note::from_bytes(note).map_err(|_| Error::Signature)?;
    let signatures = parsed.verify(&VerifierList::new(vec![Box::new(verifier)])).map_err(|_| Error::Signature)?;
    let is_one = signatures.0.len() == 1 && signatures.1.is_empty();
    let is_exact = parsed.text() == text.as_bytes() && parsed.to_bytes() == note;
    if is_one && is_exact { Ok(()) } else { Err(Error::Signature) }
}

/// Checks that the log of `size` entries under `root` holds `entry` at `index` (RFC 6962 section 2.1.1).
///
/// # Errors
///
/// [`Error::Proof`].
pub fn verify_inclusion(entry: &[u8], index: u64, size: u64, root: &Digest, hashes: &[Digest]) -> Result<(), Error> {
    if index >= size {
        return Err(Error::Proof);
    }
    let leaf = tlog_tiles::record_hash(entry);
    tlog_tiles::check_record(&to_hashes(hashes), size, Hash(*root.as_bytes()), index, leaf).map_err(|_| Error::Proof)
}

/// Checks that the log of `new_size` entries under `new_root` grew from that of `old_size` under `old_root`
/// (RFC 6962 section 2.1.2). Any log grew from the empty one.
///
/// # Errors
///
/// [`Error::Proof`].
pub fn verify_consistency(
    (old_size, old_root): (u64, &Digest),
    (new_size, new_root): (u64, &Digest),
    hashes: &[Digest],
) -> Result<(), Error> {
    let is_empty_root = old_root.as_bytes() == &super::tree::empty_root().0;
    match (old_size, new_size) {
        (0, _) if hashes.is_empty() && is_empty_root => Ok(()),
        (0, _) => Err(Error::Proof),
        (old, new) if old > new => Err(Error::Proof),
        (old, new) if old == new => {
            if hashes.is_empty() && old_root == new_root {
                Ok(())
            } else {
                Err(Error::Proof)
            }
        }
        (old, new) => {
            let (old_root, new_root) = (Hash(*old_root.as_bytes()), Hash(*new_root.as_bytes()));
            tlog_tiles::check_tree(&to_hashes(hashes), new, new_root, old, old_root).map_err(|_| Error::Proof)
        }
    }
}

fn to_hashes(digests: &[Digest]) -> Vec<Hash> {
    digests.iter().map(|digest| Hash(*digest.as_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_verifies_with_its_key_alone() {
        let key = Key::generate("c1.example").unwrap();
        let again = Key::parse(key.secret_text()).unwrap();
        assert_eq!(again.vkey(), key.vkey());
        let checkpoint = again.sign(7, Hash([9; 32])).unwrap();
        assert_eq!(verify_checkpoint(&checkpoint.note, key.vkey()), Ok(checkpoint.clone()));

        let other = Key::generate("c1.example").unwrap();
        assert_eq!(verify_checkpoint(&checkpoint.note, other.vkey()), Err(Error::Signature));
        for bit in 0..checkpoint.note.len() * 8 {
            let mut note = checkpoint.note.to_vec();
            note[bit / 8] ^= 1 << (bit % 8);
            assert!(verify_checkpoint(&note, key.vkey()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_key_needs_a_name() {
        for name in ["", "A", "a b", "a+b"] {
            assert!(matches!(Key::generate(name), Err(Error::Name)), "{name}");
        }
        assert!(matches!(Key::parse("PRIVATE+KEY+x"), Err(Error::Key)));
    }

    #[test]
    fn a_log_grew_from_the_empty_one_and_from_itself() {
        let (empty, root) = (Digest::of_bytes(&[]), Digest::new([1; 32]));
        assert_eq!(verify_consistency((0, &empty), (5, &root), &[]), Ok(()));
        assert_eq!(verify_consistency((5, &root), (5, &root), &[]), Ok(()));
        assert_eq!(verify_consistency((0, &root), (5, &root), &[]), Err(Error::Proof));
        assert_eq!(verify_consistency((5, &empty), (5, &root), &[]), Err(Error::Proof));
        assert_eq!(verify_consistency((6, &root), (5, &root), &[]), Err(Error::Proof));
    }
}
