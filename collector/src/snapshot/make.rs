//! Makes snapshots from a log: reads, selects, proves. Decides nothing that [`super::bundle`] and [`super::select`] do not.

use std::collections::BTreeMap;

use muster_proto::{id::AgentId, time::Timestamp, v1};
use prost::Message as _;

use super::{
    archive,
    bundle::{Bundle, Inputs, Told},
    manifest::Parameters,
    select::{Selection, Selector},
};
use crate::{
    control::Catalogue,
    log::{self, Checkpoint, Key, Log},
};

/// Entries read at once.
const CHUNK: u64 = 4096;

/// A snapshot cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log cannot be read.
    #[error("failed to read the log for a snapshot")]
    Log(#[from] log::Error),
    /// A host in scope was not enrolled by then.
    #[error("host {0} was not enrolled at that instant and log size")]
    Host(AgentId),
    /// The entries do not hold the catalogue.
    #[error(
        "the first {0} entries of the log do not hold the catalogue in force; ask for more of them, or for the newest"
    )]
    Catalogue(u64),
    /// It would be too large.
    #[error("failed to put a snapshot together")]
    Archive(#[from] archive::Error),
    /// The log's key cannot sign it.
    #[error("failed to sign a snapshot")]
    Sign(#[from] log::NoteError),
}

/// A snapshot with its bytes.
#[derive(Debug)]
pub struct Made {
    /// The snapshot.
    pub bundle: Bundle,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Returns the checkpoint of the log when it had `size` entries, signed again if need be: the same size has the same checkpoint.
///
/// # Errors
///
/// [`log::Error::Position`] when the log is smaller; else when its files do not lead to the newest checkpoint.
pub fn checkpoint_at(log: &Log, key: &Key, newest: &Checkpoint, size: u64) -> Result<Checkpoint, log::Error> {
    if size == newest.size {
        return Ok(newest.clone());
    }
    let root = log.root_at(size)?;
    // The key signs no root that the files on disk give, unless the newest one grew from it.
    let proof = log.consistency_proof(size, newest.size)?;
    log::verify_consistency((size, &root), (newest.size, &newest.root), &proof)?;
    Ok(key.sign(size, tlog_tiles::Hash(*root.as_bytes()))?)
}

/// Returns when the first entry after the first `size` was received, if there is one.
///
/// # Errors
///
/// When the log cannot be read.
pub fn next_received(log: &Log, size: u64) -> Result<Option<Timestamp>, log::Error> {
    if size >= log.size() {
        return Ok(None);
    }
    let entry = v1::LogEntry::decode(log.entry(size)?.as_slice());
    Ok(entry.ok().and_then(|entry| entry.received_time.as_ref().and_then(Timestamp::from_wire)))
}

/// Makes the snapshot of `parameters` from the first `checkpoint.size` entries of `log`, whose `key` signs it. Reads each of them:
/// the log alone says what was so, and no view of it.
///
/// # Errors
///
/// When the log cannot be read or does not hold what was asked for, and when the snapshot would be too large.
pub fn make(
    log: &Log,
    key: &Key,
    checkpoint: &Checkpoint,
    catalogue: &Catalogue,
    parameters: Parameters,
) -> Result<Made, Error> {
    let mut selection = select(log, checkpoint, catalogue, &parameters)?;
    if let Some(host) = parameters.hosts.iter().flatten().find(|host| !selection.hosts.contains_key(host)) {
        return Err(Error::Host(*host));
    }
    if selection.catalogue.is_none() && catalogue.texts() != Catalogue::built_in().texts() {
        return Err(Error::Catalogue(checkpoint.size));
    }
    let mut entries = BTreeMap::new();
    for index in selection.indexes() {
        entries.insert(index, log.entry(index)?);
    }
    settle(&mut selection, &mut entries, catalogue, &parameters);
    let mut proofs = BTreeMap::new();
    for index in entries.keys() {
        proofs.insert(*index, log.inclusion_proof(*index, checkpoint.size)?);
    }
    let told = Told { last_received: selection.last_received, hosts_enrolled: selection.enrolled };
    let mut bundle = Bundle::new(&Inputs {
        parameters,
        made_by: concat!("muster-collector ", env!("CARGO_PKG_VERSION")).to_owned(),
        catalogue,
        log_key: log.key(),
        checkpoint,
        entries: &entries,
        selection: &selection,
        proofs: &proofs,
        told,
    });
    bundle.sign(key)?;
    let bytes = bundle.to_bytes()?;
    Ok(Made { bundle, bytes })
}

fn select(
    log: &Log,
    checkpoint: &Checkpoint,
    catalogue: &Catalogue,
    parameters: &Parameters,
) -> Result<Selection, log::Error> {
    let hosts = parameters.hosts.as_ref().map(|hosts| hosts.iter().copied().collect());
    let mut selector = Selector::new(parameters.as_of, hosts, catalogue.digest());
    let mut at = 0;
    while at < checkpoint.size {
        let end = checkpoint.size.min(at + CHUNK);
        for (index, entry) in (at..).zip(log.entries(at..end)?) {
            selector.take(index, &entry);
        }
        at = end;
    }
    Ok(selector.finish())
}

/// Gives up the facts of hosts whose selected reports do not give them again. A host that takes facts back without sending all of them
/// anew makes such a chain; whoever verifies could not follow it.
fn settle(
    selection: &mut Selection,
    entries: &mut BTreeMap<u64, Vec<u8>>,
    catalogue: &Catalogue,
    parameters: &Parameters,
) {
    let hosts = parameters.hosts.as_ref().map(|hosts| hosts.iter().copied().collect());
    let mut again = Selector::again(parameters.as_of, hosts, catalogue.digest(), selection.broken());
    for (index, entry) in &*entries {
        again.take(*index, entry);
    }
    let again = again.finish();
    for (agent, track) in &mut selection.hosts {
        let is_same = again
            .hosts
            .get(agent)
            .is_some_and(|other| other.indexes() == track.indexes() && other.set.digest() == track.set.digest());
        if let (false, Some(index)) = (is_same, track.last) {
            track.give_up(index);
        }
    }
    let needed = selection.indexes();
    entries.retain(|index, _| needed.contains(index));
}
