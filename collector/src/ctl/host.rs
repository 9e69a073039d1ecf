//! `hosts show`, `hosts revoke`, `hosts release` and `look`.

use std::collections::BTreeSet;

use muster_proto::{
    fact::{self, Fact},
    v1::{self, HostState, LookOutcome, Verdict},
};
use serde_json::json;

use super::{
    Error, Outcome,
    connect::Connection,
    fleet::{field, time_text, tone},
    json,
    print::{Out, Tone, safe, say},
};

/// Prints a host with its facts, where each comes from, and its verdicts with reasons.
///
/// # Errors
///
/// When the collector does not answer or does not know the host.
pub async fn show(connection: &Connection, out: Out, host: &str) -> Result<Outcome, Error> {
    let answer = connection.fleet().get_host(v1::GetHostRequest { host: host.to_owned() }).await;
    let answer = answer.map_err(|status| connection.fault(&status))?.into_inner();
    out.show(|| json::host_details(&answer), |out| show_text(out, &answer))?;
    Ok(Outcome::Yes)
}

fn show_text(out: Out, answer: &v1::GetHostResponse) -> String {
    let mut text = head(out, &answer.host.clone().unwrap_or_default());
    for fact in &answer.facts {
        text.push_str(&fact_text(out, fact));
    }
    text.push_str(&verdicts_text(out, &answer.verdicts));
    text.push_str(&gaps_text(out, &answer.gaps));
    text
}

fn gaps_text(out: Out, gaps: &[v1::HostGap]) -> String {
    if gaps.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", out.tone(Tone::Strong, "gaps"));
    for it in gaps {
        let gap = it.gap.clone().unwrap_or_default();
        let span = format!("{} to {}", time_text(gap.start_time.as_ref()), time_text(gap.end_time.as_ref()));
        let cause = json::gap_cause(gap.cause()).replace('_', " ");
        let mut parts: Vec<String> = gap.counts.iter().map(|it| format!("{} {}", it.count, it.kind)).collect();
        if gap.first_sequence != 0 {
            parts.push(format!("sequences {} to {} lost", gap.first_sequence, gap.last_sequence));
        }
        parts.extend(Some(gap.detail).filter(|detail| !detail.is_empty()));
        let origin = format!("report {} at log index {}", it.sequence, it.log_index);
        let origin = out.tone(Tone::Dim, &origin);
        text.push_str(&format!("  {span}  {cause}  {}  {origin}\n", safe(&parts.join(", "))));
    }
    text
}

fn head(out: Out, host: &v1::Host) -> String {
    let through = time_text(host.observed_through_time.as_ref());
    let evidence = format!("through {through}, sequence {}", host.sequence);
    let link = if host.connected { "connected" } else { "not connected" };
    let mut text = format!("{}\n", out.tone(Tone::Strong, &safe(&format!("{}  {}", host.hostname, host.id))));
    for (name, value) in [
        ("state", format!("{}, {link}", json::state(host.state()))),
        ("system", system(host)),
        ("agent", or_dash(&host.agent_version)),
        ("profile", profile(host.profile_revision)),
        ("enrolled", time_text(host.enroll_time.as_ref())),
        ("last seen", time_text(host.last_seen_time.as_ref())),
        ("evidence", of_reported(host, evidence)),
        ("clock", of_reported(host, format!("{:+} ms against the collector", host.clock_skew_millis))),
    ] {
        text.push_str(&field(name, &value));
    }
    text
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn system(host: &v1::Host) -> String {
    let system = [host.os_id.as_str(), &host.os_version].join(" ");
    match (system.trim(), host.host_class.as_str()) {
        ("", "") => "-".to_owned(),
        (system, "") => system.to_owned(),
        (system, class) => format!("{} ({class})", or_dash(system)),
    }
}

/// Returns `text` of a host that has reported. The zeros of another one are no values.
fn of_reported(host: &v1::Host, text: String) -> String {
    if host.observed_through_time.is_some() { text } else { "-".to_owned() }
}

fn profile(revision: u64) -> String {
    if revision == 0 { "its own settings".to_owned() } else { format!("revision {revision}") }
}

fn fact_text(out: Out, fact: &v1::HostFact) -> String {
    let origin = format!(
        "since {}, confirmed {}, received {}; report {}/{} at log index {}",
        time_text(fact.observed_time.as_ref()),
        time_text(fact.confirmed_time.as_ref()),
        time_text(fact.received_time.as_ref()),
        fact.epoch.get(..8).unwrap_or(&fact.epoch),
        fact.sequence,
        fact.log_index
    );
    let mut text = format!(
        "\n{}  {}\n",
        out.tone(Tone::Strong, &safe(&fact.subject.replace('_', " "))),
        out.tone(Tone::Dim, &safe(&origin))
    );
    let lines = match Fact::decode(&fact.fact) {
        Ok(fact) => fact::render(&fact),
        Err(error) => vec![format!("cannot be shown: {error}")],
    };
    for line in lines {
        text.push_str(&format!("  {}\n", safe(&line)));
    }
    if !fact.control_ids.is_empty() {
        text.push_str(&out.tone(Tone::Dim, &format!("  read by {}", safe(&fact.control_ids.join(", ")))));
        text.push('\n');
    }
    text
}

fn verdicts_text(out: Out, verdicts: &[v1::HostVerdict]) -> String {
    let mut text = format!("\n{}\n", out.tone(Tone::Strong, "verdicts"));
    for it in verdicts {
        let verdict = it.verdict();
        let name = json::verdict(verdict);
        let pad = " ".repeat(15_usize.saturating_sub(name.len()));
        let severity = json::severity(it.severity());
        text.push_str(&format!(
            "  {:<8} {severity:<9} {}{pad}{}\n",
            safe(&it.control_id),
            out.tone(tone(verdict), name),
            safe(&it.title)
        ));
        if it.since_time.is_some() {
            let since = format!("since {}", time_text(it.since_time.as_ref()));
            text.push_str(&format!("{:<20}{}\n", "", out.tone(Tone::Dim, &since)));
        }
        // A pass has a reason where it rests on a statement.
        let is_open = matches!(verdict, Verdict::Fail | Verdict::Unknown | Verdict::NoData);
        let hint = if is_open { it.hint.as_str() } else { "" };
        for line in [it.reason.as_str(), hint].into_iter().flat_map(str::lines).filter(|line| !line.is_empty()) {
            text.push_str(&format!("{:<20}{}\n", "", safe(line)));
        }
    }
    text
}

/// Revokes a host's agent.
///
/// # Errors
///
/// When the collector refuses.
pub async fn revoke(connection: &Connection, out: Out, host: &str, reason: &str) -> Result<Outcome, Error> {
    let request = v1::RevokeAgentRequest { host: host.to_owned(), reason: reason.to_owned() };
    let answer = connection.admin().revoke_agent(request).await.map_err(|status| connection.fault(&status))?;
    let id = answer.into_inner().host_id;
    out.show(
        || json!({ "host_id": id, "state": json::state(HostState::Revoked) }),
        |_| format!("revoked {}: nothing more is taken from it\n", safe(host)),
    )?;
    Ok(Outcome::Yes)
}

/// Lets a frozen agent go on.
///
/// # Errors
///
/// When the collector refuses.
pub async fn release(connection: &Connection, out: Out, host: &str, reason: &str) -> Result<Outcome, Error> {
    let request = v1::ResolveConflictRequest { host: host.to_owned(), reason: reason.to_owned() };
    let answer = connection.admin().resolve_conflict(request).await.map_err(|status| connection.fault(&status))?;
    let id = answer.into_inner().host_id;
    out.show(
        || json!({ "host_id": id, "state": json::state(HostState::Active) }),
        |_| format!("released {}: its reports are taken again\n", safe(host)),
    )?;
    Ok(Outcome::Yes)
}

/// Asks hosts to look now and prints each outcome as it is known. No when one did not look.
///
/// # Errors
///
/// When the collector refuses.
pub async fn look(connection: &Connection, out: Out, hosts: &[String], timeout_seconds: u32) -> Result<Outcome, Error> {
    let request = v1::LookNowRequest { hosts: hosts.to_vec(), timeout_seconds };
    let answer = connection.admin().look_now(request).await;
    let mut stream = answer.map_err(|status| connection.fault(&status))?.into_inner();
    let mut outcomes = BTreeSet::new();
    while let Some(look) = stream.message().await.map_err(|status| connection.fault(&status))? {
        outcomes.insert(look.outcome());
        if !out.stream(|| json::look(&look), |out| look_text(out, &look))? {
            break;
        }
    }
    if outcomes.is_empty() {
        say("no host was asked");
    }
    Ok(if outcomes == BTreeSet::from([LookOutcome::Done]) { Outcome::Yes } else { Outcome::No })
}

fn look_text(out: Out, look: &v1::LookNowResponse) -> String {
    let tone = if look.outcome() == LookOutcome::Done { Tone::Good } else { Tone::Doubt };
    let outcome = json::outcome(look.outcome()).replace('_', " ");
    let id = look.host_id.get(..12).unwrap_or(&look.host_id);
    let mut text =
        format!("{}  {}  {}  {} ms\n", safe(id), safe(&look.hostname), out.tone(tone, &outcome), look.elapsed_millis);
    if look.outcome() == LookOutcome::TimedOut {
        text.push_str(&format!(
            "  it may still look: `musterctl hosts show {}` tells; --timeout up to 10m waits longer\n",
            safe(id)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::print::Form;

    #[test]
    fn a_hostile_host_does_not_get_a_control_character_into_the_page() {
        let hostile = "web\u{1b}[2J\u{202e}\n7".to_owned();
        let answer = v1::GetHostResponse {
            host: Some(v1::Host { hostname: hostile.clone(), id: hostile.clone(), ..Default::default() }),
            facts: vec![v1::HostFact {
                subject: hostile.clone(),
                fact: vec![0xff],
                epoch: hostile.clone(),
                control_ids: vec![hostile.clone()],
                ..Default::default()
            }],
            verdicts: vec![v1::HostVerdict {
                control_id: hostile.clone(),
                title: hostile.clone(),
                reason: hostile.clone(),
                hint: hostile.clone(),
                verdict: Verdict::Fail.into(),
                ..Default::default()
            }],
            gaps: vec![v1::HostGap {
                gap: Some(v1::Gap {
                    counts: vec![v1::GapCount { kind: hostile.clone(), count: 1 }],
                    detail: hostile,
                    ..Default::default()
                }),
                ..Default::default()
            }],
        };
        let text = show_text(Out::new(Form::Json), &answer);
        assert!(!text.chars().any(|c| c != '\n' && fact::is_unsafe(c)), "{text:?}");
    }

    #[test]
    fn a_host_that_never_reported_shows_nothing_made_up() {
        let host = v1::Host { hostname: "web-7".to_owned(), id: "ab".repeat(16), ..Default::default() };
        let text = head(Out::new(Form::Json), &host);
        for name in ["system", "agent", "last seen", "evidence", "clock"] {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            assert_eq!(line.strip_prefix(name).unwrap().trim(), "-", "{text}");
        }
        let host = v1::Host {
            os_id: "debian".to_owned(),
            os_version: "13".to_owned(),
            host_class: "server".to_owned(),
            sequence: 4,
            observed_through_time: Some(muster_proto::time::Timestamp::EPOCH.to_wire()),
            ..Default::default()
        };
        let text = head(Out::new(Form::Json), &host);
        assert!(
            text.contains("debian 13 (server)\n") && text.contains(" +0 ms") && text.contains("sequence 4"),
            "{text}"
        );
    }

    #[test]
    fn a_look_that_took_too_long_says_how_to_wait_longer() {
        let look = |outcome: LookOutcome| v1::LookNowResponse { outcome: outcome.into(), ..Default::default() };
        let text = |outcome| look_text(Out::new(Form::Json), &look(outcome));
        assert!(text(LookOutcome::TimedOut).contains("--timeout up to 10m"));
        assert_eq!(text(LookOutcome::Done).lines().count(), 1);
        assert_eq!(text(LookOutcome::NotConnected).lines().count(), 1);
    }

    #[test]
    fn a_pass_shows_a_reason_where_it_has_one_and_no_hint() {
        let verdict = |reason: &str| v1::HostVerdict {
            control_id: "ENC-01".to_owned(),
            verdict: Verdict::Pass.into(),
            reason: reason.to_owned(),
            hint: "encrypt it".to_owned(),
            ..Default::default()
        };
        let text = verdicts_text(Out::new(Form::Json), &[verdict(""), verdict("by the statement of Example Cloud")]);
        assert_eq!(text.matches("by the statement of Example Cloud").count(), 1, "{text}");
        assert!(!text.contains("encrypt it") && text.lines().count() == 5, "{text}");
    }

    #[test]
    fn a_page_shows_the_proof_and_the_reason() {
        let time = |text: &str| text.parse().ok().map(|time: muster_proto::time::Timestamp| time.to_wire());
        let software = Fact::Software(fact::Reading::unknown(fact::Cause::Forbidden, "/var/lib/dpkg/status"));
        let answer = v1::GetHostResponse {
            host: Some(v1::Host { hostname: "web-7".to_owned(), id: "ab".repeat(16), ..Default::default() }),
            facts: vec![v1::HostFact {
                subject: "software".to_owned(),
                fact: software.encode(),
                observed_time: "2026-11-24T03:00:00.5Z".parse().ok().map(muster_proto::time::Timestamp::to_wire),
                epoch: "cd".repeat(16),
                sequence: 4,
                log_index: 17,
                control_ids: vec!["INV-02".to_owned()],
                ..Default::default()
            }],
            verdicts: vec![v1::HostVerdict {
                control_id: "INV-02".to_owned(),
                title: "Software is listed".to_owned(),
                verdict: Verdict::Unknown.into(),
                severity: v1::Severity::High.into(),
                reason: "software is unknown (forbidden)".to_owned(),
                hint: "let the agent read it".to_owned(),
                since_time: time("2026-11-24T03:00:00Z"),
                ..Default::default()
            }],
            gaps: vec![v1::HostGap {
                gap: Some(v1::Gap {
                    cause: v1::GapCause::SpoolFull.into(),
                    start_time: time("2026-11-23T01:00:00Z"),
                    end_time: time("2026-11-23T02:00:00Z"),
                    first_sequence: 5,
                    last_sequence: 9,
                    counts: vec![v1::GapCount { kind: "looks".to_owned(), count: 12 }],
                    ..Default::default()
                }),
                log_index: 21,
                sequence: 10,
                ..Default::default()
            }],
        };
        let text = show_text(Out::new(Form::Json), &answer);
        let expected = "
software  since 2026-11-24T03:00:00Z, confirmed -, received -; report cdcdcdcd/4 at log index 17
  unknown (forbidden: /var/lib/dpkg/status)
  read by INV-02

verdicts
  INV-02   high      unknown        Software is listed
                    since 2026-11-24T03:00:00Z
                    software is unknown (forbidden)
                    let the agent read it

gaps
  2026-11-23T01:00:00Z to 2026-11-23T02:00:00Z  spool full  12 looks, sequences 5 to 9 lost  report 10 at log index 21
";
        assert!(text.ends_with(expected), "{text}");
        assert!(text.starts_with(&format!("web-7  {}\n", "ab".repeat(16))), "{text}");
    }
}
