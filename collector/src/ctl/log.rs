//! `log checkpoint`, `log proof` and `log consistency`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use muster_proto::v1;
use serde_json::json;

use super::{
    Error, Outcome,
    connect::Connection,
    fleet::field,
    print::{Out, safe, say},
};

/// Prints the newest checkpoint, and on standard error the log's key, which auditors verify snapshots with.
///
/// # Errors
///
/// When the collector does not answer or its log is empty.
pub async fn checkpoint(connection: &Connection, out: Out) -> Result<Outcome, Error> {
    let answer = connection.log().get_checkpoint(v1::GetCheckpointRequest {}).await;
    let answer = answer.map_err(|status| connection.fault(&status))?.into_inner();
    let note = note(&answer.checkpoint)?;
    out.show(
        || json!({ "checkpoint": note, "log_key": answer.log_key }),
        // As it is signed, so that it can be piped into another tool.
        |_| {
            // Beside it, so that what is piped stays exact.
            say(&format!("log key  {}", answer.log_key));
            lines(note)
        },
    )?;
    Ok(Outcome::Yes)
}

/// Prints an entry and the proof that the log holds it.
///
/// # Errors
///
/// When the collector does not answer or has no such entry.
pub async fn proof(connection: &Connection, out: Out, index: u64, log_size: u64) -> Result<Outcome, Error> {
    let answer = connection.log().get_inclusion_proof(v1::GetInclusionProofRequest { index, log_size }).await;
    let answer = answer.map_err(|status| connection.fault(&status))?.into_inner();
    let note = note(&answer.checkpoint)?;
    out.show(
        || {
            json!({
                "index": index, "log_size": answer.log_size, "entry_base64": BASE64_STANDARD.encode(&answer.entry),
                "hashes": answer.hashes.iter().map(hex::encode).collect::<Vec<_>>(), "checkpoint": note,
            })
        },
        |_| {
            let mut text = field("index", &format!("{index} of {}", answer.log_size));
            text.push_str(&field("entry", &format!("{} bytes", answer.entry.len())));
            text.push_str(&hashes(&answer.hashes));
            text + "\n" + &lines(note)
        },
    )?;
    Ok(Outcome::Yes)
}

/// Prints the proof that the log grew from one size to another.
///
/// # Errors
///
/// When the collector does not answer or never had such a size.
pub async fn consistency(connection: &Connection, out: Out, old_size: u64, new_size: u64) -> Result<Outcome, Error> {
    let request = v1::GetConsistencyProofRequest { old_size, new_size };
    let answer = connection.log().get_consistency_proof(request).await;
    let answer = answer.map_err(|status| connection.fault(&status))?.into_inner();
    let note = note(&answer.checkpoint)?;
    out.show(
        || {
            json!({
                "old_size": old_size, "new_size": answer.new_size,
                "hashes": answer.hashes.iter().map(hex::encode).collect::<Vec<_>>(), "checkpoint": note,
            })
        },
        |_| {
            let text = field("sizes", &format!("{old_size} to {}", answer.new_size));
            text + &hashes(&answer.hashes) + "\n" + &lines(note)
        },
    )?;
    Ok(Outcome::Yes)
}

fn note(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::Contract("its checkpoint is not UTF-8"))
}

fn lines(note: &str) -> String {
    note.lines().map(|line| safe(line) + "\n").collect()
}

fn hashes(hashes: &[Vec<u8>]) -> String {
    hashes.iter().map(|hash| field("hash", &hex::encode(hash))).collect()
}
