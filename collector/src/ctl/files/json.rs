//! Changes of files as JSON.

use muster_proto::{
    fact::FileChange,
    v1::{self, FileChangeEnd},
};
use prost::Message as _;
use serde_json::{Value, json};

use super::state;
use crate::ctl::json::time;

/// Returns a change and what became of it.
pub fn change(change: &v1::HostFileChange) -> Value {
    let told = change.change.as_ref().and_then(|change| FileChange::decode(&change.encode_to_vec()).ok());
    json!({
        "host_id": change.host_id, "hostname": change.hostname, "number": change.number, "change": told,
        "severity": change.severity, "after_digest": change.after_digest, "state": state(change.state()),
        "received_time": time(change.received_time.as_ref()), "log_index": change.log_index, "listed": change.listed,
        "end": end(change.end()), "end_time": time(change.end_time.as_ref()), "end_log_index": change.end_log_index,
        "end_reason": change.end_reason, "acknowledgement": change.acknowledgement.as_ref().map(acknowledgement),
    })
}

fn acknowledgement(it: &v1::FileChangeAcknowledgement) -> Value {
    json!({
        "actor": it.actor, "time": time(it.time.as_ref()), "log_index": it.log_index, "reason": it.reason,
        "reference": it.reference,
    })
}

/// Returns why a change ended.
pub fn end(end: FileChangeEnd) -> &'static str {
    match end {
        FileChangeEnd::Unspecified => "none",
        FileChangeEnd::Restored => "restored",
        FileChangeEnd::RestoredOrExplained => "restored_or_explained",
        FileChangeEnd::ChangedAgain => "changed_again",
        FileChangeEnd::Accepted => "accepted",
        FileChangeEnd::BaselineLost => "baseline_lost",
        FileChangeEnd::NotWatched => "not_watched",
    }
}

/// Returns a group of explained changes.
pub fn group(group: &v1::HostExplainedChanges) -> Value {
    let it = group.explained.clone().unwrap_or_default();
    let why = it.explanation.unwrap_or_default();
    json!({
        "host_id": group.host_id, "hostname": group.hostname, "number": group.number, "source": why.source,
        "package": why.package, "version": why.version, "basis": why.basis, "changes_total": it.changes_total,
        "first_detected_time": time(it.first_detected_time.as_ref()),
        "last_detected_time": time(it.last_detected_time.as_ref()),
        "received_time": time(group.received_time.as_ref()), "log_index": group.log_index,
        "end_time": time(group.end_time.as_ref()), "end_log_index": group.end_log_index,
    })
}

/// Returns a baseline.
pub fn baseline(baseline: &v1::HostBaseline) -> Value {
    let it = baseline.baseline.clone().unwrap_or_default();
    json!({
        "number": baseline.number, "id": it.id, "created_time": time(it.created_time.as_ref()), "reason": it.reason,
        "entries": it.entries, "digest": it.digest, "received_time": time(baseline.received_time.as_ref()),
        "log_index": baseline.log_index, "lost_before": baseline.lost_before,
    })
}

/// Returns a host that has a content.
pub fn holder(holder: &v1::FileHolder) -> Value {
    json!({
        "host_id": holder.host_id, "hostname": holder.hostname, "change_number": holder.change_number,
        "sha256": holder.sha256, "found": holder.found, "current": holder.current,
        "detected_time": time(holder.detected_time.as_ref()), "log_index": holder.log_index,
    })
}
