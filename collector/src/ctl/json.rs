//! Answers of the collector as JSON: the contract's field names, times as RFC 3339, enums as their names in lower case.

use muster_proto::{
    fact::Fact,
    time::Timestamp,
    v1::{self, HostState, LookOutcome, Severity},
};
use serde_json::{Value, json};

/// Returns a time as text, or null.
pub fn time(wire: Option<&prost_types::Timestamp>) -> Value {
    wire.and_then(Timestamp::from_wire).map_or(Value::Null, |time| Value::String(time.to_string()))
}

/// Returns the name of a verdict.
pub fn verdict(verdict: v1::Verdict) -> &'static str {
    match verdict {
        v1::Verdict::Unspecified => "none",
        v1::Verdict::Pass => "pass",
        v1::Verdict::Fail => "fail",
        v1::Verdict::Unknown => "unknown",
        v1::Verdict::NoData => "no_data",
        v1::Verdict::NotApplicable => "not_applicable",
        v1::Verdict::Excepted => "excepted",
    }
}

/// Returns the name of a severity.
pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Unspecified => "none",
        Severity::Critical => "critical",
        Severity::High => "high",
        Severity::Medium => "medium",
        Severity::Low => "low",
    }
}

/// Returns the name of a host's state.
pub fn state(state: HostState) -> &'static str {
    match state {
        HostState::Unspecified => "none",
        HostState::Enrolled => "enrolled",
        HostState::Active => "active",
        HostState::Frozen => "frozen",
        HostState::Revoked => "revoked",
    }
}

/// Returns the name of a look's outcome.
pub fn outcome(outcome: LookOutcome) -> &'static str {
    match outcome {
        LookOutcome::Unspecified => "none",
        LookOutcome::Done => "done",
        LookOutcome::NotConnected => "not_connected",
        LookOutcome::TimedOut => "timed_out",
    }
}

/// Returns the six counts.
pub fn counts(counts: &v1::VerdictCounts) -> Value {
    json!({
        "pass": counts.pass, "fail": counts.fail, "unknown": counts.unknown, "no_data": counts.no_data,
        "not_applicable": counts.not_applicable, "excepted": counts.excepted,
    })
}

/// Returns a control with its counts.
pub fn control_summary(control: &v1::ControlSummary) -> Value {
    json!({
        "control_id": control.control_id, "title": control.title, "family": control.family,
        "severity": severity(control.severity()), "counts": counts(&control.counts.unwrap_or_default()),
    })
}

/// Returns the fleet's summary.
pub fn fleet(fleet: &v1::GetFleetSummaryResponse) -> Value {
    let states: Vec<_> =
        fleet.states.iter().map(|count| json!({ "state": state(count.state()), "hosts": count.hosts })).collect();
    json!({
        "collector": fleet.collector, "read_time": time(fleet.read_time.as_ref()), "log_size": fleet.log_size,
        "hosts": fleet.hosts, "connected_hosts": fleet.connected_hosts, "states": states,
        "controls": fleet.controls.iter().map(control_summary).collect::<Vec<_>>(),
    })
}

/// Returns a host.
pub fn host(host: &v1::Host) -> Value {
    json!({
        "id": host.id, "hostname": host.hostname, "os_id": host.os_id, "os_version": host.os_version,
        "host_class": host.host_class, "agent_version": host.agent_version,
        "profile_revision": host.profile_revision, "state": state(host.state()),
        "connected": host.connected, "enroll_time": time(host.enroll_time.as_ref()),
        "last_seen_time": time(host.last_seen_time.as_ref()),
        "observed_through_time": time(host.observed_through_time.as_ref()), "sequence": host.sequence,
        "clock_skew_millis": host.clock_skew_millis, "worst_verdict": verdict(host.worst_verdict()),
    })
}

/// Returns a host with its facts and verdicts. A fact that this version cannot decode is null beside its bytes.
pub fn host_details(answer: &v1::GetHostResponse) -> Value {
    let facts: Vec<_> = answer.facts.iter().map(fact).collect();
    json!({
        "host": host(&answer.host.clone().unwrap_or_default()), "facts": facts,
        "verdicts": answer.verdicts.iter().map(host_verdict).collect::<Vec<_>>(),
        "gaps": answer.gaps.iter().map(gap).collect::<Vec<_>>(),
    })
}

fn gap(it: &v1::HostGap) -> Value {
    let gap = it.gap.clone().unwrap_or_default();
    let counts: std::collections::BTreeMap<_, _> = gap.counts.iter().map(|it| (it.kind.clone(), it.count)).collect();
    json!({
        "cause": gap_cause(gap.cause()), "start_time": time(gap.start_time.as_ref()), "end_time": time(gap.end_time.as_ref()),
        "first_lost_sequence": gap.first_sequence, "last_lost_sequence": gap.last_sequence, "counts": counts,
        "detail": gap.detail, "received_time": time(it.received_time.as_ref()), "log_index": it.log_index,
        "epoch": it.epoch, "sequence": it.sequence,
    })
}

/// Returns the name of why there is a gap.
pub fn gap_cause(cause: v1::GapCause) -> &'static str {
    match cause {
        v1::GapCause::Unspecified => "unspecified",
        v1::GapCause::SpoolFull => "spool_full",
        v1::GapCause::SpoolDamaged => "spool_damaged",
        v1::GapCause::NotRunning => "not_running",
        v1::GapCause::Suspended => "suspended",
        v1::GapCause::ClockJump => "clock_jump",
        v1::GapCause::EventOverflow => "event_overflow",
        v1::GapCause::ProbeFailed => "probe_failed",
    }
}

fn fact(fact: &v1::HostFact) -> Value {
    let state = Fact::decode(&fact.fact).ok().and_then(|fact| serde_json::to_value(fact).ok());
    json!({
        "subject": fact.subject, "fact": state.map_or(Value::Null, |mut state| state["state"].take()),
        "fact_hex": hex::encode(&fact.fact), "observed_time": time(fact.observed_time.as_ref()),
        "confirmed_time": time(fact.confirmed_time.as_ref()), "received_time": time(fact.received_time.as_ref()),
        "log_index": fact.log_index, "epoch": fact.epoch, "sequence": fact.sequence, "control_ids": fact.control_ids,
    })
}

/// Returns a verdict of a host.
pub fn host_verdict(it: &v1::HostVerdict) -> Value {
    json!({
        "host_id": it.host_id, "hostname": it.hostname, "control_id": it.control_id, "title": it.title,
        "severity": severity(it.severity()), "verdict": verdict(it.verdict()), "reason": it.reason,
        "since_time": time(it.since_time.as_ref()), "judge_time": time(it.judge_time.as_ref()),
        "catalogue_version": it.catalogue_version, "log_indexes": it.log_indexes, "hint": it.hint,
    })
}

/// Returns a control with its definition.
pub fn control(control: &v1::GetControlResponse) -> Value {
    let parameters = serde_json::from_str(&control.parameters_json).unwrap_or(Value::Null);
    let max_age: std::collections::BTreeMap<_, _> = control.max_age_seconds.iter().collect();
    let mappings: Vec<_> = control
        .mappings
        .iter()
        .map(|it| json!({ "framework": it.framework, "requirement": it.requirement, "confidence": it.confidence }))
        .collect();
    let statements: Vec<_> = control.statements.iter().map(statement).collect();
    json!({
        "summary": control_summary(&control.summary.clone().unwrap_or_default()), "statement": control.statement,
        "condition": control.condition, "applies_to": control.applies_to, "parameters": parameters,
        "max_age_seconds": max_age, "hint": control.hint, "mappings": mappings, "limits": control.limits,
        "catalogue_version": control.catalogue_version, "statements": statements,
    })
}

fn statement(statement: &v1::ProviderStatement) -> Value {
    json!({
        "kind": statement.kind, "provider": statement.provider, "reference": statement.reference,
        "document_sha256": hex::encode(&statement.document_digest), "host_ids": statement.host_ids,
        "start_time": time(statement.start_time.as_ref()), "end_time": time(statement.end_time.as_ref()),
    })
}

/// Returns a change of a verdict.
pub fn change(change: &v1::VerdictChange) -> Value {
    json!({
        "verdict": host_verdict(&change.verdict.clone().unwrap_or_default()),
        "previous": verdict(change.previous()), "initial": change.initial,
    })
}

/// Returns a token without its secret.
pub fn token(token: &v1::Token) -> Value {
    json!({
        "id": token.id, "note": token.note, "uses": token.uses, "used": token.used,
        "create_time": time(token.create_time.as_ref()), "expire_time": time(token.expire_time.as_ref()),
        "revoke_time": time(token.revoke_time.as_ref()),
    })
}

/// Returns a credential of a person or program.
pub fn credential(credential: &v1::Credential) -> Value {
    json!({
        "serial": credential.serial, "spiffe_id": credential.spiffe_id, "role": credential.role, "name": credential.name,
        "create_time": time(credential.create_time.as_ref()), "expire_time": time(credential.expire_time.as_ref()),
        "revoke_time": time(credential.revoke_time.as_ref()),
    })
}

/// Returns a snapshot's description.
pub fn snapshot(snapshot: &v1::Snapshot) -> Value {
    json!({
        "id": snapshot.id, "create_time": time(snapshot.create_time.as_ref()),
        "as_of_time": time(snapshot.as_of_time.as_ref()), "log_size": snapshot.log_size, "sha256": snapshot.sha256,
        "size_bytes": snapshot.size_bytes, "hosts": snapshot.hosts, "actor": snapshot.actor,
    })
}

/// Returns the outcome of a look.
pub fn look(look: &v1::LookNowResponse) -> Value {
    json!({
        "host_id": look.host_id, "hostname": look.hostname, "outcome": outcome(look.outcome()),
        "elapsed_millis": look.elapsed_millis,
    })
}
