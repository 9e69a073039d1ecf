//! Hosts and results, as JSON and as tables for spreadsheets.

use muster_proto::report::{Body, Probe};
use serde_json::{Value, json};

use super::{
    bundle::lines,
    csv::{Cell, Table},
    fleet::{Fleet, Host, Verdict},
    manifest::VerdictCounts,
    select::probe_name,
};

/// Returns every host as JSON.
pub fn hosts_json(fleet: &Fleet, verdicts: &[Vec<Verdict<'_>>]) -> Vec<u8> {
    lines(fleet.hosts.iter().zip(verdicts).map(|(host, verdicts)| host_value(host, verdicts)))
}

fn host_value(host: &Host, verdicts: &[Verdict<'_>]) -> Value {
    let system = host.system();
    let facts: Vec<_> = host
        .facts
        .iter()
        .map(|(subject, fact)| {
            json!({
                "subject": subject, "sha256": muster_proto::id::Digest::of_bytes(&fact.bytes),
                "observed_time": fact.observed, "received_time": fact.received, "confirmed_time": fact.confirmed,
                "confirmed_log_index": fact.confirmed_index, "log_indexes": fact.indexes,
            })
        })
        .collect();
    let looks: Vec<_> = host
        .looks
        .iter()
        .map(|look| {
            json!({
                "probe": Probe::try_from(look.probe).map(probe_name).unwrap_or_default(), "last_time": look.ended,
                "looks": look.count, "largest_gap_millis": look.largest_gap_millis, "log_index": look.index,
            })
        })
        .collect();
    let claim = host.enrolled.entry.claim.clone().unwrap_or_default();
    json!({
        "agent_id": host.agent,
        "state": host.state.as_str(),
        "judged": host.is_judged,
        "hostname": system.as_ref().map(|system| &system.hostname),
        "os_id": system.as_ref().map(|system| &system.os_id),
        "os_version": system.as_ref().map(|system| &system.os_version),
        "host_class": system.as_ref().map(|system| &system.host_class),
        "hardware_serial": system.as_ref().map(|system| &system.hardware_serial),
        "machine_id_digest": system.as_ref().map(|system| &system.machine_id_digest),
        "enrolled": {
            "log_index": host.enrolled.index, "time": host.enrolled.received, "claimed_hostname": claim.hostname,
            "token_id": host.enrolled.entry.token_id, "peer_address": host.enrolled.entry.peer_address,
        },
        "last_report": host.last.as_ref().map(|last| json!({
            "log_index": last.index, "epoch": last.report.epoch, "sequence": last.report.seq,
            "body": last.report.body.to_string(), "observed_time": last.report.observed,
            "received_time": last.received, "clock_skew_millis": last.skew_millis,
            "agent_version": last.report.agent_version,
            "gap": match &last.report.body {
                Body::Gap(gap) => Some(format!("{:?}", gap.cause)),
                Body::Facts(_) | Body::Attestation(_) | Body::Lifecycle(_) => None,
            },
        })),
        "last_heard": host.heard.as_ref().map(|heard| json!({
            "log_index": heard.index, "received_time": heard.received, "clock_skew_millis": heard.skew_millis,
        })),
        "fact_set": host.fact_set.map(|stated| json!({
            "digest": stated.digest, "log_index": stated.index, "agrees": stated.agrees,
        })),
        "facts": facts,
        "unknown_facts": host.opaque.iter().map(|(number, digest, indexes)| json!({
            "number": number.number(), "sha256": digest, "log_indexes": indexes,
        })).collect::<Vec<_>>(),
        "looks": looks,
        "acknowledged_changes": host.acknowledgements.iter().map(|it| json!({
            "path": it.path, "after_digest": it.after_digest, "log_index": it.index, "time": it.received,
            "actor": it.actor, "reason": it.reason, "reference": it.reference,
        })).collect::<Vec<_>>(),
        "verdicts": counts(verdicts),
    })
}

/// Returns every host as a table.
pub fn hosts_csv(fleet: &Fleet, verdicts: &[Vec<Verdict<'_>>]) -> Vec<u8> {
    let mut table = Table::new(&[
        "agent_id",
        "state",
        "judged",
        "hostname",
        "os_id",
        "os_version",
        "host_class",
        "enrolled_time",
        "enrolled_log_index",
        "last_epoch",
        "last_sequence",
        "last_observed_time",
        "last_received_time",
        "last_log_index",
        "clock_skew_millis",
        "agent_version",
        "facts_agree",
        "pass",
        "fail",
        "unknown",
        "no_data",
        "not_applicable",
        "excepted",
    ]);
    for (host, verdicts) in fleet.hosts.iter().zip(verdicts) {
        host_row(&mut table, host, counts(verdicts));
    }
    table.into_bytes()
}

fn host_row(table: &mut Table, host: &Host, counts: VerdictCounts) {
    let system = host.system();
    let told = |reading: Option<&muster_proto::fact::Reading<muster_proto::fact::Text>>| {
        reading.and_then(|reading| reading.known()).map(ToString::to_string).unwrap_or_default()
    };
    let class = system.as_ref().and_then(|system| system.host_class.known()).map(|class| class.as_str());
    let last = host.last.as_ref();
    let texts = [
        host.agent.to_string(),
        host.state.as_str().to_owned(),
        if host.is_judged { "yes" } else { "no" }.to_owned(),
        told(system.as_ref().map(|system| &system.hostname)),
        told(system.as_ref().map(|system| &system.os_id)),
        told(system.as_ref().map(|system| &system.os_version)),
        class.unwrap_or_default().to_owned(),
        host.enrolled.received.to_string(),
    ];
    let last_texts = [
        last.map(|last| last.report.epoch.to_string()),
        last.map(|last| last.report.seq.to_string()),
        last.map(|last| last.report.observed.to_string()),
        last.map(|last| last.received.to_string()),
        last.map(|last| last.index.to_string()),
    ]
    .map(Option::unwrap_or_default);
    let version = last.map(|last| last.report.agent_version.to_string()).unwrap_or_default();
    let agrees = host.fact_set.map_or("", |stated| if stated.agrees { "yes" } else { "no" });
    let mut row: Vec<Cell<'_>> = texts.iter().map(|text| Cell::Text(text)).collect();
    row.push(Cell::Number(host.enrolled.index.into()));
    row.extend(last_texts.iter().map(|text| Cell::Text(text)));
    row.push(last.map_or(Cell::Text(""), |last| Cell::Number(last.skew_millis.into())));
    row.extend([Cell::Text(&version), Cell::Text(agrees)]);
    let VerdictCounts { pass, fail, unknown, no_data, not_applicable, excepted } = counts;
    row.extend([pass, fail, unknown, no_data, not_applicable, excepted].map(|count| Cell::Number(count.into())));
    table.row(&row);
}

/// Returns every verdict as JSON.
pub fn results_json(fleet: &Fleet, verdicts: &[Vec<Verdict<'_>>]) -> Vec<u8> {
    let of_host = |(host, verdicts): (&Host, &Vec<Verdict<'_>>)| -> Vec<Value> {
        verdicts.iter().map(|verdict| result_value(host, verdict)).collect()
    };
    lines(fleet.hosts.iter().zip(verdicts).flat_map(of_host))
}

fn result_value(host: &Host, verdict: &Verdict<'_>) -> Value {
    json!({
        "agent_id": host.agent, "control_id": verdict.control.id, "verdict": verdict.judgement.verdict.as_str(),
        "severity": verdict.control.severity, "reason": verdict.judgement.reason,
        "subjects": verdict.judgement.subjects, "observed_time": verdict.observed, "confirmed_time": verdict.confirmed,
        "log_indexes": verdict.indexes,
    })
}

/// Returns every verdict as a table.
pub fn results_csv(fleet: &Fleet, verdicts: &[Vec<Verdict<'_>>]) -> Vec<u8> {
    let mut table = Table::new(&[
        "agent_id",
        "control_id",
        "verdict",
        "severity",
        "hostname",
        "reason",
        "observed_time",
        "confirmed_time",
        "log_indexes",
    ]);
    for (host, verdicts) in fleet.hosts.iter().zip(verdicts) {
        let agent = host.agent.to_string();
        let hostname = host.system().and_then(|system| system.hostname.known().map(ToString::to_string));
        for verdict in verdicts {
            let time =
                |time: Option<muster_proto::time::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
            let indexes: Vec<_> = verdict.indexes.iter().map(u64::to_string).collect();
            table.row(&[
                Cell::Text(&agent),
                Cell::Text(verdict.control.id.as_str()),
                Cell::Text(verdict.judgement.verdict.as_str()),
                Cell::Text(verdict.control.severity.as_str()),
                Cell::Text(hostname.as_deref().unwrap_or_default()),
                Cell::Text(&verdict.judgement.reason),
                Cell::Text(&time(verdict.observed)),
                Cell::Text(&time(verdict.confirmed)),
                Cell::Text(&indexes.join(" ")),
            ]);
        }
    }
    table.into_bytes()
}

fn counts(verdicts: &[Verdict<'_>]) -> VerdictCounts {
    let mut counts = VerdictCounts::default();
    verdicts.iter().for_each(|verdict| counts.count(verdict.judgement.verdict));
    counts
}
