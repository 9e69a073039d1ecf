//! The collector's checkpoints as this agent keeps them: each agent is a witness against a rewritten log.
//!
//! A checkpoint is a signed note (C2SP tlog-checkpoint). Nothing here trusts a size or a root that is not under the log key that the
//! agent was given when it enrolled.

use muster_proto::{
    fact::Text,
    id::{Digest, ReportSeq},
    limits::ORIGIN_BYTES,
    report::CheckpointRef,
};
use serde::{Deserialize, Serialize};
use signed_note::{Note, StandardVerifier, Verifier as _, VerifierList};
use tlog_tiles::{Hash, check_tree};

/// Why a checkpoint is not believed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The key is not a signed-note verifier key.
    #[error("log key is not a signed-note verifier key")]
    Key,
    /// It is not a signed note with a checkpoint in it.
    #[error("checkpoint is not a signed note of the form of C2SP tlog-checkpoint")]
    Form,
    /// The log key did not sign it.
    #[error("checkpoint is not signed by the log key {0} that this agent was enrolled with")]
    Signature(String),
    /// Its origin is another log.
    #[error("checkpoint is of the log {found}, expected {expected}")]
    Origin {
        /// What it says.
        found: String,
        /// What the log key says.
        expected: String,
    },
    /// The log is smaller than it was.
    #[error("log has shrunk from {from} to {to} entries")]
    Shrunk {
        /// Size that this agent holds a checkpoint of.
        from: u64,
        /// Size of the new checkpoint.
        to: u64,
    },
    /// The log does not contain what it contained.
    #[error("log of {to} entries does not continue the log of {from} entries that this agent has seen")]
    Inconsistent {
        /// Size that this agent holds a checkpoint of.
        from: u64,
        /// Size of the new checkpoint.
        to: u64,
    },
}

/// A checkpoint that was verified.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Entries in the log.
    pub size: u64,
    /// Root hash.
    pub root: Digest,
    /// The signed note.
    pub note: String,
}

impl Checkpoint {
    /// Returns origin, size and root.
    pub fn reference(&self) -> CheckpointRef {
        // The first line of a verified note is its origin.
        let origin = self.note.lines().next().unwrap_or_default();
        CheckpointRef { origin: Text::cut(origin, ORIGIN_BYTES), size: self.size, root: self.root }
    }
}

/// Verifies checkpoints of one log.
#[derive(Clone, Debug)]
pub struct LogKey {
    text: String,
    name: String,
}

impl LogKey {
    /// Returns the key of a signed-note verifier key, such as `c1+12345678+AbC…`.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] when it is not one.
    pub fn new(text: &str) -> Result<Self, Error> {
        let verifier = StandardVerifier::new(text).map_err(|_| Error::Key)?;
        Ok(Self { text: text.to_owned(), name: verifier.name().to_owned() })
    }

    /// Returns the checkpoint of a signed note.
    ///
    /// # Errors
    ///
    /// When it is not a checkpoint of this log, signed by this key.
    pub fn verify(&self, note: &[u8]) -> Result<Checkpoint, Error> {
        let verifier = StandardVerifier::new(&self.text).map_err(|_| Error::Key)?;
        let text = std::str::from_utf8(note).map_err(|_| Error::Form)?;
        let signed = Note::from_bytes(note).map_err(|_| Error::Form)?;
        signed.verify(&VerifierList::new(vec![Box::new(verifier)])).map_err(|_| Error::Signature(self.text.clone()))?;
        let checkpoint = tlog_tiles::Checkpoint::from_bytes(signed.text()).map_err(|_| Error::Form)?;
        // Far beyond any log; the proof check's arithmetic stays inside 64 bits.
        if checkpoint.size() > ReportSeq::MAX_NUMBER {
            return Err(Error::Form);
        }
        if checkpoint.origin() != self.name {
            return Err(Error::Origin { found: checkpoint.origin().to_owned(), expected: self.name.clone() });
        }
        Ok(Checkpoint { size: checkpoint.size(), root: Digest::new(checkpoint.hash().0), note: text.to_owned() })
    }
}

/// Checks by `proof` (RFC 6962 section 2.1.2) that the log of `new` continues that of `old`.
///
/// # Errors
///
/// When it shrank, or the proof does not hold.
pub fn check_growth(old: &Checkpoint, new: &Checkpoint, proof: &[Vec<u8>]) -> Result<(), Error> {
    check_size(old, new)?;
    if old.size == 0 || old.size == new.size {
        return Ok(());
    }
    let inconsistent = Error::Inconsistent { from: old.size, to: new.size };
    let hash = |digest: &Digest| Hash(*digest.as_bytes());
    let proof = proof
        .iter()
        .map(|node| node.as_slice().try_into().map(Hash))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| inconsistent.clone())?;
    check_tree(&proof, new.size, hash(&new.root), old.size, hash(&old.root)).map_err(|_| inconsistent)
}

/// Checks what can be told without a proof: the log has not shrunk, and one size has one root.
///
/// # Errors
///
/// When either is not so.
pub fn check_size(old: &Checkpoint, new: &Checkpoint) -> Result<(), Error> {
    if new.size < old.size {
        return Err(Error::Shrunk { from: old.size, to: new.size });
    }
    if new.size == old.size && new.root != old.root {
        return Err(Error::Inconsistent { from: old.size, to: new.size });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod testing {
    //! A log in memory that signs its checkpoints.

    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use signed_note::{StandardSigner, key_id};
    use tlog_tiles::{Error, HashReader, prove_tree, stored_hash_count, stored_hashes, tree_hash};

    use super::*;

    /// A log of empty importance.
    pub(crate) struct TestLog {
        name: String,
        signer: StandardSigner,
        key: String,
        hashes: Hashes,
        size: u64,
    }

    struct Hashes(Vec<Hash>);

    impl HashReader for Hashes {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
            Ok(indexes.iter().map(|&index| self.0[usize::try_from(index).unwrap()]).collect())
        }
    }

    impl TestLog {
        pub(crate) fn new(name: &str, seed: u8) -> Self {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            let public = [&[1], pair.public_key().as_ref()].concat();
            let id = key_id(name, &public);
            let private = BASE64_STANDARD.encode([&[1_u8][..], &[seed; 32]].concat());
            let signer = StandardSigner::new(&format!("PRIVATE+KEY+{name}+{id:08x}+{private}")).unwrap();
            let key = format!("{name}+{id:08x}+{}", BASE64_STANDARD.encode(public));
            Self { name: name.to_owned(), signer, key, hashes: Hashes(Vec::new()), size: 0 }
        }

        pub(crate) fn key(&self) -> &str {
            &self.key
        }

        pub(crate) fn size(&self) -> u64 {
            self.size
        }

        pub(crate) fn push(&mut self, entry: &[u8]) {
            let more = stored_hashes(self.size, entry, &self.hashes).unwrap();
            self.hashes.0.extend(more);
            self.size += 1;
            assert_eq!(self.hashes.0.len() as u64, stored_hash_count(self.size));
        }

        pub(crate) fn note(&self) -> Vec<u8> {
            let root = tree_hash(self.size, &self.hashes).unwrap();
            let text = tlog_tiles::Checkpoint::new(&self.name, self.size, root, "").unwrap().to_bytes();
            let mut note = Note::new(&text, &[]).unwrap();
            note.add_sigs(&[&self.signer]).unwrap();
            note.to_bytes()
        }

        pub(crate) fn proof_from(&self, old: u64) -> Vec<Vec<u8>> {
            if old == 0 || old >= self.size {
                return Vec::new();
            }
            prove_tree(self.size, old, &self.hashes).unwrap().iter().map(|hash| hash.0.to_vec()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::TestLog, *};

    fn log(entries: u8, salt: u8) -> TestLog {
        let mut log = TestLog::new("c1", 7);
        for entry in 0..entries {
            log.push(&[entry, if entry < 3 { 0 } else { salt }]);
        }
        log
    }

    fn held(log: &TestLog) -> Checkpoint {
        LogKey::new(log.key()).unwrap().verify(&log.note()).unwrap()
    }

    #[test]
    fn a_kept_checkpoint_names_its_log() {
        let log = log(5, 0);
        let held = held(&log);
        let reference = held.reference();
        assert_eq!((reference.origin.as_str(), reference.size, reference.root), ("c1", 5, held.root));
    }

    #[test]
    fn growth_is_believed_by_proof_alone() {
        let new = log(11, 0);
        for old_size in 0..=11 {
            let old = held(&log(old_size, 0));
            assert_eq!(check_growth(&old, &held(&new), &new.proof_from(u64::from(old_size))), Ok(()), "{old_size}");
        }
        let old = held(&log(5, 0));
        let refused = Err(Error::Inconsistent { from: 5, to: 11 });
        assert_eq!(check_growth(&old, &held(&new), &[]), refused);
        assert_eq!(check_growth(&old, &held(&new), &[vec![0; 31]]), refused);
        let mut changed = new.proof_from(5);
        changed[0][0] ^= 1;
        assert_eq!(check_growth(&old, &held(&new), &changed), refused);
    }

    #[test]
    fn a_rewritten_or_shrunken_log_is_refused() {
        let (old, rewritten) = (held(&log(5, 0)), log(11, 1));
        let refused = check_growth(&old, &held(&rewritten), &rewritten.proof_from(5));
        assert_eq!(refused, Err(Error::Inconsistent { from: 5, to: 11 }));
        assert_eq!(check_size(&old, &held(&log(4, 0))), Err(Error::Shrunk { from: 5, to: 4 }));
        assert_eq!(check_size(&old, &held(&log(5, 1))), Err(Error::Inconsistent { from: 5, to: 5 }));
    }

    #[test]
    fn a_checkpoint_of_another_key_or_log_is_refused() {
        let key = LogKey::new(log(0, 0).key()).unwrap();
        let mut other_key = TestLog::new("c1", 8);
        other_key.push(b"x");
        assert!(matches!(key.verify(&other_key.note()), Err(Error::Signature(_))));
        let mut other_log = TestLog::new("c2", 7);
        other_log.push(b"x");
        assert!(matches!(key.verify(&other_log.note()), Err(Error::Signature(_))));
        assert_eq!(key.verify(b"no note"), Err(Error::Form));
        let mut note = log(3, 0).note();
        note[4] ^= 1;
        assert!(key.verify(&note).is_err());
    }
}
