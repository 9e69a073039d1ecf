//! Makes snapshots from a log: reads, selects, proves. Decides nothing that [`super::bundle`] and [`super::select`] do not.

use std::collections::BTreeMap;

use muster_proto::id::AgentId;

use super::{
    archive,
    bundle::{Bundle, Inputs},
    manifest::Parameters,
    select::Selector,
};
use crate::{
    control::Catalogue,
    log::{self, Checkpoint, Log},
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
    /// It would be too large.
    #[error("failed to put a snapshot together")]
    Archive(#[from] archive::Error),
}

/// A snapshot with its bytes.
#[derive(Debug)]
pub struct Made {
    /// The snapshot.
    pub bundle: Bundle,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Makes the snapshot of `parameters` from the first `checkpoint.size` entries of `log`. Reads each of them: the log alone says what
/// was so, and no view of it.
///
/// # Errors
///
/// When the log cannot be read or the snapshot would be too large.
pub fn make(log: &Log, checkpoint: &Checkpoint, catalogue: &Catalogue, parameters: Parameters) -> Result<Made, Error> {
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
    let selection = selector.finish();
    if let Some(host) = parameters.hosts.iter().flatten().find(|host| !selection.hosts.contains_key(host)) {
        return Err(Error::Host(*host));
    }
    let mut entries = BTreeMap::new();
    let mut proofs = BTreeMap::new();
    for index in selection.indexes() {
        entries.insert(index, log.entry(index)?);
        proofs.insert(index, log.inclusion_proof(index, checkpoint.size)?);
    }
    let bundle = Bundle::new(&Inputs {
        parameters,
        made_by: concat!("muster-collector ", env!("CARGO_PKG_VERSION")).to_owned(),
        catalogue,
        log_key: log.key(),
        checkpoint,
        entries: &entries,
        selection: &selection,
        proofs: &proofs,
    });
    let bytes = bundle.to_bytes()?;
    Ok(Made { bundle, bytes })
}
