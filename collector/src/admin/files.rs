//! Takes an operator's word that changes of files are as they should be: an act in the evidence log, and a verdict after it.

use std::{collections::BTreeSet, time::Duration};

use muster_proto::{
    fact::{PathText, is_unsafe},
    id::{AgentId, Digest},
    v1::{self, AcknowledgeOutcome, act::Act},
};
use prost::Message as _;
use tokio::time::timeout;
use tonic::Status;

use super::{Inner, NOTE_BYTES, checked_reason};
use crate::{
    query::ChangeState,
    serve::{
        caller::Calling,
        status::{self, Reason},
    },
};

/// Changes of one request, at most.
const CHANGES: usize = 1000;
/// Bytes of changes that one entry of the log has, at most: so that the rest of the entry always fits.
const CHANGES_BYTES: usize = 48 * 1024;
/// How long to wait until verdicts take an act into account.
const JUDGED: Duration = Duration::from_secs(10);

/// A change that is to be acknowledged.
type Change = (AgentId, String, Digest);

impl Inner {
    pub(super) async fn acknowledge_file_changes(
        &self,
        who: &Calling,
        request: v1::AcknowledgeFileChangesRequest,
    ) -> Result<v1::AcknowledgeFileChangesResponse, Status> {
        let changes = checked_changes(&request.changes)?;
        let reason = checked_reason(request.reason)?;
        let reference = checked_reference(request.reference)?;
        let states = self.hosts.standings_of_changes(changes.clone()).await?;
        let outcomes: Vec<AcknowledgeOutcome> = states.iter().map(|state| outcome(*state)).collect();
        let open: BTreeSet<Change> = changes
            .into_iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| **outcome == AcknowledgeOutcome::Done)
            .map(|(change, _)| change)
            .collect();
        let count = open.len();
        let mut last = None;
        for changes in entries(open) {
            let act = v1::FileChangesAcknowledged { changes, reason: reason.clone(), reference: reference.clone() };
            last = Some(self.acts.record(who, Act::FileChangesAcknowledged(act)).await?);
        }
        if let Some(index) = last {
            tracing::info!(changes = count, by = %who.caller, "changes of files acknowledged");
            let mut applied = self.judge.applied();
            // The act is durable and will be judged; who waits longer than this finds it later.
            let _ = timeout(JUDGED, applied.wait_for(|applied| *applied > index)).await;
        }
        let outcomes = outcomes.into_iter().map(i32::from).collect();
        Ok(v1::AcknowledgeFileChangesResponse { outcomes })
    }
}

fn outcome(state: ChangeState) -> AcknowledgeOutcome {
    match state {
        ChangeState::Open => AcknowledgeOutcome::Done,
        ChangeState::Acknowledged => AcknowledgeOutcome::Already,
        ChangeState::Ended => AcknowledgeOutcome::NotOpen,
    }
}

fn checked_changes(changes: &[v1::FileChangeReference]) -> Result<Vec<Change>, Status> {
    let message = format!("1 to {CHANGES}, each with host_id, path and after_digest as ListFileChanges gives them");
    let refusal = || status::invalid(Reason::ChangesInvalid, "changes", message.as_str());
    if changes.is_empty() || changes.len() > CHANGES {
        return Err(refusal());
    }
    let checked = |change: &v1::FileChangeReference| {
        let path = PathText::parse(change.path.clone())?;
        Some((change.host_id.parse().ok()?, path.as_str().to_owned(), change.after_digest.parse().ok()?))
    };
    changes.iter().map(|change| checked(change).ok_or_else(refusal)).collect()
}

fn checked_reference(reference: String) -> Result<String, Status> {
    if reference.len() > NOTE_BYTES || reference.chars().any(is_unsafe) {
        let message = format!("at most {NOTE_BYTES} bytes, without control or invisible characters");
        return Err(status::invalid(Reason::NoteInvalid, "reference", message));
    }
    Ok(reference)
}

/// Returns the changes by the entries of the log that take them.
fn entries(changes: BTreeSet<Change>) -> Vec<Vec<v1::AcknowledgedChange>> {
    let mut entries: Vec<Vec<v1::AcknowledgedChange>> = Vec::new();
    let mut bytes = 0;
    for (agent, path, digest) in changes {
        let (agent_id, after_digest) = (agent.as_bytes().to_vec(), digest.as_bytes().to_vec());
        let change = v1::AcknowledgedChange { agent_id, path, after_digest };
        // With tag and length.
        let size = change.encoded_len() + 8;
        match entries.last_mut().filter(|_| bytes + size <= CHANGES_BYTES) {
            Some(entry) => {
                entry.push(change);
                bytes += size;
            }
            None => {
                entries.push(vec![change]);
                bytes = size;
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use muster_proto::limits;

    use super::*;

    #[test]
    fn the_longest_paths_are_cut_into_entries_that_the_log_takes_and_none_is_lost() {
        let path = |at: usize| format!("/{at:04}{}", "\\xff".repeat(4000));
        let changes: BTreeSet<Change> =
            (0..100).map(|at| (AgentId::new([1; 16]), path(at), Digest::new([2; 32]))).collect();
        let entries = entries(changes.clone());
        let act = |changes: &Vec<v1::AcknowledgedChange>| v1::FileChangesAcknowledged {
            changes: changes.clone(),
            reason: "r".repeat(limits::DETAIL_BYTES),
            reference: "r".repeat(NOTE_BYTES),
        };
        assert!(entries.iter().all(|changes| act(changes).encoded_len() < limits::ENTRY_BYTES - 2048));
        assert!(entries.len() > 1);
        let written: Vec<String> = entries.into_iter().flatten().map(|change| change.path).collect();
        assert_eq!(written, changes.into_iter().map(|(_, path, _)| path).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_named_as_it_is_listed_is_refused() {
        let good = v1::FileChangeReference {
            host_id: "ab".repeat(16),
            path: "/etc/passwd".to_owned(),
            after_digest: "cd".repeat(32),
        };
        assert!(checked_changes(std::slice::from_ref(&good)).is_ok());
        assert!(checked_changes(&vec![good.clone(); CHANGES]).is_ok());
        for bad in [
            Vec::new(),
            vec![good.clone(); CHANGES + 1],
            vec![v1::FileChangeReference { host_id: "web-1".to_owned(), ..good.clone() }],
            vec![v1::FileChangeReference { path: "/etc/\u{1b}".to_owned(), ..good.clone() }],
            vec![v1::FileChangeReference { after_digest: "cd".to_owned(), ..good }],
        ] {
            assert!(checked_changes(&bad).is_err(), "{bad:?}");
        }
        for bad in ["CHG-1\n", "CHG-\u{202e}1", "CHG-1\u{200b}"] {
            assert!(checked_reference(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(checked_reference("r".repeat(NOTE_BYTES + 1)).is_err());
    }
}
