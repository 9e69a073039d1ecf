//! What answers say of a host and of a control.

use std::{borrow::Cow, sync::Arc};

use muster_proto::{
    fact::Subject,
    id::{AgentId, Epoch},
    time::Timestamp,
    v1,
};
use tonic::Status;

use super::{Liveness, Seen, name};
use crate::{
    control::{Catalogue, Control, Statement, Verdict},
    judge::Standing,
    serve::status::{Reason, refuse},
    views::{Error, GapRow, HostRow, HostState, Views, confirmation},
};

/// Digits of an id that name a host, at least.
const PREFIX_DIGITS: usize = 4;
/// Gaps of a host that an answer has, at most.
const GAPS: u64 = 100;

/// Returns the host that `text` names: its id, a prefix of it, or its name. A host that is revoked counts only where no other
/// host is meant.
pub(super) fn resolve<'a>(hosts: &'a [Arc<HostRow>], text: &str) -> Result<&'a HostRow, Status> {
    if let Ok(id) = text.parse::<AgentId>()
        && let Some(host) = hosts.iter().find(|host| host.agent.agent == id)
    {
        return Ok(host);
    }
    let is_prefix =
        text.len() >= PREFIX_DIGITS && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let found: Vec<&HostRow> = hosts
        .iter()
        .map(Arc::as_ref)
        .filter(|host| {
            (!text.is_empty() && host.agent.hostname == text)
                || (is_prefix && host.agent.agent.to_string().starts_with(text))
        })
        .collect();
    let live: Vec<&HostRow> = found.iter().copied().filter(|host| host.agent.state != HostState::Revoked).collect();
    match (live.as_slice(), found.as_slice()) {
        ([host], _) | ([], [host]) => Ok(host),
        ([], []) => Err(refuse(
            Reason::HostNotFound,
            format!(
                "there is no host `{}`; give its id, {PREFIX_DIGITS} or more of its digits, or its name",
                name(text)
            ),
        )),
        _ => Err(refuse(
            Reason::HostAmbiguous,
            format!("several hosts are meant by `{}`; give more digits of the id", name(text)),
        )),
    }
}

pub(super) fn worst(seen: &Seen<'_>) -> Verdict {
    let verdicts = seen.standings.iter().map(|(_, standing)| standing.verdict);
    verdicts.min_by_key(|verdict| verdict.badness()).unwrap_or(Verdict::NoData)
}

pub(super) fn host(seen: &Seen<'_>, liveness: &dyn Liveness) -> v1::Host {
    let (agent, wire) = (&seen.host.agent, |time: Timestamp| time.to_wire());
    let run = agent.run;
    v1::Host {
        id: agent.agent.to_string(),
        hostname: agent.hostname.clone(),
        os_id: agent.os_id.clone(),
        os_version: agent.os_version.clone(),
        host_class: agent.host_class.clone(),
        agent_version: agent.agent_version.clone(),
        state: agent.state.to_wire().into(),
        connected: liveness.connected(agent.agent),
        enroll_time: agent.enrolled.map(|(_, time)| wire(time)),
        last_seen_time: liveness.last_seen(agent.agent).max(run.map(|run| run.last_time)).map(wire),
        observed_through_time: run.map(|run| wire(run.through)),
        sequence: run.map(|run| run.last_seq).unwrap_or_default(),
        clock_skew_millis: run.map(|run| run.skew_millis).unwrap_or_default(),
        worst_verdict: worst(seen).to_wire().into(),
        profile_revision: agent.profile_revision,
    }
}

/// Returns a field of a host for filters.
pub(super) fn field<'v>(host: &'v v1::Host, row: &HostRow, worst: Verdict, field: &str) -> Cow<'v, str> {
    match field {
        "id" => host.id.as_str().into(),
        "hostname" => host.hostname.as_str().into(),
        "os_id" => host.os_id.as_str().into(),
        "os_version" => host.os_version.as_str().into(),
        "host_class" => host.host_class.as_str().into(),
        "state" => row.agent.state.as_str().into(),
        _ => worst.as_str().into(),
    }
}

/// Returns a field of a finding for filters.
pub(super) fn finding_field<'v>(
    id: &'v str,
    row: &'v HostRow,
    control: &'v Control,
    verdict: Verdict,
    field: &str,
) -> Cow<'v, str> {
    match field {
        "host_id" => id.into(),
        "hostname" => row.agent.hostname.as_str().into(),
        "control_id" => control.id.as_str().into(),
        "verdict" => verdict.as_str().into(),
        _ => control.severity.as_str().into(),
    }
}

pub(super) fn verdict(
    agent: AgentId,
    hostname: &str,
    control: &Control,
    standing: &Standing,
    log_indexes: Vec<u64>,
    catalogue_version: &str,
) -> v1::HostVerdict {
    v1::HostVerdict {
        host_id: agent.to_string(),
        hostname: hostname.to_owned(),
        control_id: control.id.to_string(),
        title: control.title.clone(),
        severity: control.severity.to_wire().into(),
        verdict: standing.verdict.to_wire().into(),
        reason: standing.reason.clone(),
        since_time: standing.since.map(Timestamp::to_wire),
        judge_time: Some(standing.judged_at.to_wire()),
        catalogue_version: catalogue_version.to_owned(),
        log_indexes,
        hint: control.hint.clone(),
        excepted_verdict: v1::Verdict::Unspecified.into(),
    }
}

pub(super) fn facts(views: &Views, host: &HostRow, catalogue: &Catalogue) -> Result<Vec<v1::HostFact>, Error> {
    let agent = host.agent.agent;
    let looks = host.agent.looks();
    let mut facts = Vec::new();
    for (subject, held, received) in views.facts(agent)? {
        let log_index = held.origins.last().copied().unwrap_or_default();
        let place: Option<(Epoch, u64)> = views.place(agent, log_index)?;
        let look = host.facts.get(&subject).and_then(|row| confirmation(row, &looks).1);
        facts.push(v1::HostFact {
            subject: subject.as_str().to_owned(),
            confirmed_time: Some(look.map_or(held.observed, |look| look.ended.max(held.observed)).to_wire()),
            fact: held.bytes,
            observed_time: Some(held.observed.to_wire()),
            received_time: Some(received.to_wire()),
            log_index,
            epoch: place.map(|(epoch, _)| epoch.to_string()).unwrap_or_default(),
            sequence: place.map(|(_, seq)| seq).unwrap_or_default(),
            control_ids: readers(catalogue, subject),
        });
    }
    Ok(facts)
}

pub(super) fn gaps(views: &Views, agent: AgentId) -> Result<Vec<v1::HostGap>, Error> {
    let gap = |row: GapRow| v1::HostGap {
        gap: Some(v1::Gap {
            cause: row.cause,
            start_time: Some(row.start.to_wire()),
            end_time: Some(row.end.to_wire()),
            first_sequence: row.lost.map(|(first, _)| first).unwrap_or_default(),
            last_sequence: row.lost.map(|(_, last)| last).unwrap_or_default(),
            digest_before: Vec::new(),
            counts: row.counts.into_iter().map(|(kind, count)| v1::GapCount { kind, count }).collect(),
            detail: row.detail,
        }),
        received_time: Some(row.received.to_wire()),
        log_index: row.log_index,
        epoch: row.epoch.to_string(),
        sequence: row.seq,
    };
    Ok(views.gaps(agent, GAPS)?.into_iter().map(gap).collect())
}

fn readers(catalogue: &Catalogue, subject: Subject) -> Vec<String> {
    let reads = catalogue.controls().filter(|control| control.subjects.contains(&subject));
    reads.map(|control| control.id.to_string()).collect()
}

pub(super) fn control(control: &Control, summary: v1::ControlSummary, version: &str) -> v1::GetControlResponse {
    let mut max_age_seconds: std::collections::HashMap<String, u64> =
        control.max_age.classes.iter().map(|(class, age)| (class.as_str().to_owned(), age.as_secs())).collect();
    max_age_seconds.insert("*".to_owned(), control.max_age.default.as_secs());
    v1::GetControlResponse {
        summary: Some(summary),
        statement: control.statement.clone(),
        condition: control.condition.source().trim().to_owned(),
        applies_to: control.applies_to.iter().map(|class| class.as_str().to_owned()).collect(),
        parameters_json: serde_json::Value::Object(control.parameters.clone()).to_string(),
        max_age_seconds: max_age_seconds.into_iter().collect(),
        hint: control.hint.clone(),
        mappings: control
            .mappings
            .iter()
            .map(|mapping| v1::ControlMapping {
                framework: mapping.framework.clone(),
                requirement: mapping.requirement.clone(),
                confidence: mapping.confidence.clone(),
            })
            .collect(),
        limits: control.limits.clone(),
        catalogue_version: version.to_owned(),
        statements: control.statements.iter().map(statement).collect(),
    }
}

fn statement(statement: &Statement) -> v1::ProviderStatement {
    v1::ProviderStatement {
        kind: statement.kind.as_str().to_owned(),
        provider: statement.provider.clone(),
        reference: statement.reference.clone(),
        document_digest: statement.document_sha256.as_bytes().to_vec(),
        host_ids: statement.hosts.iter().map(ToString::to_string).collect(),
        start_time: Some(statement.from.to_wire()),
        end_time: Some(statement.until.to_wire()),
    }
}
