//! Hello and Welcome: what an agent must say first, and what it hears.

use std::sync::atomic::Ordering;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use muster_proto::{
    id::{Digest, Epoch, ReportSeq},
    limits,
    report::CheckpointRef,
    time::Timestamp,
    v1,
};
use tonic::Status;

use super::{
    nonce::{Nonce, Nonces, Shown},
    sessions::{Registry, Slot, Turn},
};
use crate::serve::status::{Reason, chain as causes, internal, invalid};

/// A Hello whose every field is in its range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hello {
    pub(super) epoch: Epoch,
    pub(super) next: ReportSeq,
    pub(super) nonce: Option<Nonce>,
    pub(super) checkpoint: Option<CheckpointRef>,
    pub(super) proven: Option<CheckpointRef>,
    pub(super) host_time: Timestamp,
}

/// What the greeting decided.
pub(super) enum Greeting {
    /// The stream may go on.
    Welcome(Box<v1::Welcome>),
    /// The session does not follow the last one.
    Overtaken,
}

impl Hello {
    /// Returns the Hello of its wire form.
    ///
    /// # Errors
    ///
    /// HELLO_INVALID with the field.
    pub(super) fn parse(wire: &v1::Hello) -> Result<Self, Status> {
        let wrong = |field: &str, message: &str| invalid(Reason::HelloInvalid, field, message);
        if wire.contract_version != 1 {
            return Err(wrong("contract_version", "this collector speaks version 1"));
        }
        if wire.agent_version.len() > 64 {
            return Err(wrong("agent_version", "at most 64 bytes"));
        }
        let next = ReportSeq::new(wire.next_sequence).ok_or_else(|| wrong("next_sequence", "from 1 to 2^62"))?;
        let head = if wire.head_digest.is_empty() { None } else { Some(Digest::from_slice(&wire.head_digest)) };
        if head.is_some_and(|digest| digest.is_none()) {
            return Err(wrong("head_digest", "empty or 32 bytes"));
        }
        let nonce = match wire.last_session_nonce.as_slice() {
            [] => None,
            bytes => {
                Some(bytes.try_into().map_err(|_| wrong("last_session_nonce", "empty or the 16 bytes of a Welcome"))?)
            }
        };
        let checkpoint = |field, wire: &Option<v1::CheckpointRef>| {
            let parsed = wire.as_ref().map(CheckpointRef::from_wire).transpose();
            parsed.map_err(|_| wrong(field, "an origin of 1 to 255 bytes, a size and a root of 32 bytes"))
        };
        Ok(Self {
            epoch: Epoch::from_slice(&wire.epoch).ok_or_else(|| wrong("epoch", "16 bytes"))?,
            next,
            nonce,
            checkpoint: checkpoint("last_checkpoint", &wire.last_checkpoint)?,
            proven: checkpoint("proven_checkpoint", &wire.proven_checkpoint)?,
            host_time: wire
                .host_time
                .as_ref()
                .and_then(Timestamp::from_wire)
                .ok_or_else(|| wrong("host_time", "an instant between 1970 and 2999"))?,
        })
    }
}

impl Registry {
    /// Answers `hello` of the agent whose turn it is. Reads the log and the nonces; blocks.
    ///
    /// # Errors
    ///
    /// INTERNAL when the log cannot be read or the machine gives no randomness.
    pub(super) fn greet(&self, turn: &Turn, hello: &Hello) -> Result<Greeting, Status> {
        let slot = &turn.0;
        let (is_new_epoch, durable) = {
            let chain = slot.chain();
            (!chain.knows(hello.epoch), chain.durable(hello.epoch))
        };
        let now = self.clock.now();
        let kept = self.inbox.nonces(slot.id);
        let mut nonces = kept.as_deref().and_then(Nonces::decode);
        match nonces.get_or_insert_default().show(hello.nonce, is_new_epoch) {
            Shown::Follows => {}
            Shown::Forgotten if kept.as_deref().is_none_or(<[u8]>::is_empty) => {}
            Shown::Forgotten => {
                tracing::warn!(agent = %slot.id, "the agent shows a newer session than the collector remembers");
            }
            Shown::Overtaken => return Ok(Greeting::Overtaken),
        }
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|error| internal("no randomness for a nonce", &error))?;
        let nonces = nonces.get_or_insert_default();
        let nonce = nonces.issue(now.micros(), random);
        self.inbox.keep_nonces(slot.id, &nonces.encode());

        let newest = self.log.checkpoint();
        let size = newest.as_ref().map(|checkpoint| checkpoint.size).unwrap_or_default();
        let proof_from = |last: &Option<CheckpointRef>| match last {
            // Of another log nothing can be proved here; the agent refuses what its own log key did not sign.
            Some(last) if last.origin.as_str() != self.log.origin() => {
                tracing::warn!(agent = %slot.id, origin = %last.origin, "an agent holds a checkpoint of another log");
                Ok(Vec::new())
            }
            Some(last) if last.size <= size => {
                let proof = self.log.consistency_proof(last.size, size);
                let proof = proof.map_err(|error| internal("failed to prove the log's growth", &error))?;
                Ok(proof.into_iter().map(|hash| hash.as_bytes().to_vec()).collect())
            }
            Some(last) => {
                tracing::error!(
                    agent = %slot.id, theirs = last.size, ours = size,
                    "an agent holds a checkpoint of a longer log: was this log put back from a backup?"
                );
                metrics::counter!("muster_ingest_longer_checkpoints_total").increment(1);
                Ok(Vec::new())
            }
            None => Ok::<_, Status>(Vec::new()),
        };
        let (proof, proven) = (proof_from(&hello.checkpoint)?, proof_from(&hello.proven)?);
        Ok(Greeting::Welcome(Box::new(v1::Welcome {
            session_nonce: nonce.to_vec(),
            durable_through_sequence: durable.map(|head| head.seq.number()).unwrap_or_default(),
            durable_digest: durable.map(|head| head.digest.as_bytes().to_vec()).unwrap_or_default(),
            checkpoint: newest.map(|checkpoint| checkpoint.note.to_vec()).unwrap_or_default(),
            consistency_proof: proof,
            proven_consistency_proof: proven,
            collector_time: Some(now.to_wire()),
            limits: Some(v1::IngestLimits {
                window_reports: self.settings.window_reports,
                report_bytes: u32::try_from(limits::SEALED_REPORT_BYTES).expect("60 KiB"),
            }),
        })))
    }

    /// Writes into the log that a claim of `slot` contradicts what stands; the agent is suspended from now on. The entry that it
    /// contradicts may still be on its way.
    pub(super) fn suspend(&self, slot: &Slot, kind: &str) -> bool {
        tracing::warn!(agent = %slot.id, kind, "two claims of one agent contradict each other; it is frozen");
        metrics::counter!("muster_ingest_conflicts_total").increment(1);
        !slot.is_suspended.swap(true, Ordering::Relaxed)
    }

    /// Returns the index of the durable report of `slot` at `seq` of `epoch`, and its digest. Reads the log; blocks.
    pub(super) fn look_up(&self, slot: &Slot, epoch: Epoch, seq: ReportSeq) -> Option<(u64, Digest)> {
        let index = self.lookup.index_of(slot.id, epoch, seq)?;
        // Numbers that a gap declared lost make index and sequence drift apart by less than a batch.
        let is_it = |at: u64| {
            let bytes = self.log.entry(at).inspect_err(|error| {
                tracing::error!(index = at, error = %causes(error), "an entry of the log cannot be read");
            });
            let (found, number, digest) = super::sessions::place_of(&bytes.ok()?)?;
            (found == epoch && number == seq.number()).then_some((at, digest))
        };
        let near = index.saturating_sub(64)..=index;
        near.rev().find_map(is_it)
    }
}
