//! `fleet`, `hosts list`, `controls`, `findings` and `watch`.

use muster_proto::{
    v1::{self, Verdict, watch_verdicts_response::Event},
    words::counted,
};
use serde_json::Value;

use super::{
    Error, Outcome,
    connect::Connection,
    json,
    pages::all_pages,
    print::{Cell, Out, Tone, safe, say, table},
};

/// Prints the fleet's summary.
///
/// # Errors
///
/// When the collector does not answer.
pub async fn summary(connection: &Connection, out: Out) -> Result<Outcome, Error> {
    let answer = connection.fleet().get_fleet_summary(v1::GetFleetSummaryRequest {}).await;
    let fleet = answer.map_err(|status| connection.fault(&status))?.into_inner();
    out.show(|| json::fleet(&fleet), |out| summary_text(out, &fleet))?;
    Ok(Outcome::Yes)
}

fn summary_text(out: Out, fleet: &v1::GetFleetSummaryResponse) -> String {
    let states: Vec<_> =
        fleet.states.iter().map(|count| format!("{} {}", count.hosts, json::state(count.state()))).collect();
    let states = if states.is_empty() { String::new() } else { format!(" ({})", states.join(", ")) };
    format!(
        "{}  {}{states}, {} connected; log of {}, at {}\n\n{}",
        out.tone(Tone::Strong, &safe(&fleet.collector)),
        counted(fleet.hosts, "host"),
        fleet.connected_hosts,
        counted(fleet.log_size, "entry"),
        time_text(fleet.read_time.as_ref()),
        controls_table(out, &fleet.controls)
    )
}

/// Prints hosts.
///
/// # Errors
///
/// When the collector does not answer or refuses the filter.
pub async fn hosts(connection: &Connection, out: Out, filter: &str, limit: Option<usize>) -> Result<Outcome, Error> {
    let mut client = connection.fleet();
    let hosts = all_pages!(connection, limit, hosts, |page_size, page_token| {
        let filter = filter.to_owned();
        client.list_hosts(v1::ListHostsRequest { page_size, page_token: page_token.clone(), filter })
    });
    out.show(
        || Value::Array(hosts.iter().map(json::host).collect()),
        |out| {
            let rows: Vec<_> = hosts.iter().map(host_row).collect();
            let titles = ["HOST", "NAME", "SYSTEM", "CLASS", "STATE", "LINK", "WORST", "OBSERVED THROUGH", "AGENT"];
            table(out, &titles, &rows)
        },
    )?;
    Ok(Outcome::Yes)
}

fn host_row(host: &v1::Host) -> Vec<Cell> {
    let worst = host.worst_verdict();
    vec![
        host.id.get(..12).unwrap_or(&host.id).into(),
        host.hostname.as_str().into(),
        format!("{} {}", host.os_id, host.os_version).into(),
        host.host_class.as_str().into(),
        json::state(host.state()).into(),
        if host.connected { "open" } else { "-" }.into(),
        Cell::new(json::verdict(worst), tone(worst)),
        time_text(host.observed_through_time.as_ref()).into(),
        host.agent_version.as_str().into(),
    ]
}

/// Prints controls with their counts.
///
/// # Errors
///
/// When the collector does not answer or refuses the filter.
pub async fn controls(connection: &Connection, out: Out, filter: &str, limit: Option<usize>) -> Result<Outcome, Error> {
    let mut client = connection.fleet();
    let controls = all_pages!(connection, limit, controls, |page_size, page_token| {
        let filter = filter.to_owned();
        client.list_controls(v1::ListControlsRequest { page_size, page_token: page_token.clone(), filter })
    });
    out.show(
        || Value::Array(controls.iter().map(json::control_summary).collect()),
        |out| controls_table(out, &controls),
    )?;
    Ok(Outcome::Yes)
}

fn controls_table(out: Out, controls: &[v1::ControlSummary]) -> String {
    let rows: Vec<_> = controls
        .iter()
        .map(|control| {
            let counts = control.counts.unwrap_or_default();
            let count = |number: u64, tone| {
                let tone = if number == 0 { Tone::Dim } else { tone };
                Cell::new(&number.to_string(), tone)
            };
            vec![
                control.control_id.as_str().into(),
                json::severity(control.severity()).into(),
                count(counts.pass, Tone::Good),
                count(counts.fail, Tone::Bad),
                count(counts.unknown, Tone::Doubt),
                count(counts.no_data, Tone::Doubt),
                count(counts.not_applicable, Tone::Plain),
                count(counts.excepted, Tone::Plain),
                control.title.as_str().into(),
            ]
        })
        .collect();
    let titles = ["CONTROL", "SEVERITY", "PASS", "FAIL", "UNKNOWN", "NO DATA", "N/A", "EXCEPTED", "TITLE"];
    table(out, &titles, &rows)
}

/// Prints a control's definition and counts.
///
/// # Errors
///
/// When the collector does not answer or has no such control.
pub async fn control(connection: &Connection, out: Out, id: &str) -> Result<Outcome, Error> {
    let request = v1::GetControlRequest { control_id: id.to_owned() };
    let answer = connection.fleet().get_control(request).await;
    let control = answer.map_err(|status| connection.fault(&status))?.into_inner();
    out.show(|| json::control(&control), |out| control_text(out, &control))?;
    Ok(Outcome::Yes)
}

fn control_text(out: Out, control: &v1::GetControlResponse) -> String {
    let summary = control.summary.clone().unwrap_or_default();
    let counts = summary.counts.unwrap_or_default();
    let title = format!("{}  {}", summary.control_id, summary.title);
    let applies = if control.applies_to.is_empty() { "all".to_owned() } else { control.applies_to.join(", ") };
    let mut ages: Vec<_> = control.max_age_seconds.iter().collect();
    ages.sort();
    let ages: Vec<_> = ages
        .into_iter()
        .map(|(class, seconds)| if class == "*" { hours(*seconds) } else { format!("{class} {}", hours(*seconds)) })
        .collect();
    let mut text = format!("{}\n\n{}\n\n", out.tone(Tone::Strong, &safe(&title)), safe(&control.statement));
    for (name, value) in [
        ("severity", json::severity(summary.severity()).to_owned()),
        ("family", summary.family.clone()),
        ("applies to", applies),
        ("condition", control.condition.clone()),
        ("parameters", control.parameters_json.clone()),
        ("holds for", ages.join(", ")),
        ("catalogue", control.catalogue_version.clone()),
        (
            "hosts",
            format!(
                "{} pass, {} fail, {} unknown, {} no data, {} not applicable, {} excepted",
                counts.pass, counts.fail, counts.unknown, counts.no_data, counts.not_applicable, counts.excepted
            ),
        ),
        ("hint", control.hint.clone()),
        ("limits", control.limits.clone()),
    ] {
        text.push_str(&field(name, &value));
    }
    for mapping in &control.mappings {
        let line = format!("{} {} (confidence {})", mapping.framework, mapping.requirement, mapping.confidence);
        text.push_str(&field("supports", &line));
    }
    for it in &control.statements {
        let (from, until) = (time_text(it.start_time.as_ref()), time_text(it.end_time.as_ref()));
        let hosts = it.host_ids.iter().map(|id| id.get(..12).unwrap_or(id)).collect::<Vec<_>>().join(" ");
        let line = format!(
            "by {} ({}), sha256:{}, from {from} until {until}, of {}\n{hosts}",
            it.provider,
            it.reference,
            hex::encode(&it.document_digest),
            counted(it.host_ids.len(), "host")
        );
        text.push_str(&field("stated", &line));
    }
    text
}

/// Returns a time in the largest unit that divides it, such as `36h`.
fn hours(seconds: u64) -> String {
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    let whole = units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{seconds}s"), |(unit, name)| format!("{}{name}", seconds / unit))
}

/// Prints findings and, when asked, says by the exit code whether there are any.
///
/// # Errors
///
/// When the collector does not answer or refuses the filter.
pub async fn findings(
    connection: &Connection,
    out: Out,
    filter: &str,
    limit: Option<usize>,
    exit_code: bool,
) -> Result<Outcome, Error> {
    let mut client = connection.fleet();
    let findings = all_pages!(connection, limit, findings, |page_size, page_token| {
        let filter = filter.to_owned();
        client.list_findings(v1::ListFindingsRequest { page_size, page_token: page_token.clone(), filter })
    });
    out.show(
        || Value::Array(findings.iter().map(json::host_verdict).collect()),
        |out| {
            let rows: Vec<_> = findings.iter().map(finding_row).collect();
            table(out, &["SEVERITY", "CONTROL", "HOST", "NAME", "VERDICT", "SINCE", "REASON"], &rows)
        },
    )?;
    Ok(if exit_code && !findings.is_empty() { Outcome::No } else { Outcome::Yes })
}

fn finding_row(finding: &v1::HostVerdict) -> Vec<Cell> {
    let verdict = finding.verdict();
    vec![
        json::severity(finding.severity()).into(),
        finding.control_id.as_str().into(),
        finding.host_id.get(..12).unwrap_or(&finding.host_id).into(),
        finding.hostname.as_str().into(),
        Cell::new(json::verdict(verdict), tone(verdict)),
        time_text(finding.since_time.as_ref()).into(),
        finding.reason.as_str().into(),
    ]
}

/// Prints changes of verdicts until the stream ends or nobody reads on.
///
/// # Errors
///
/// When the collector ends the stream with an error.
pub async fn watch(connection: &Connection, out: Out, send_initial: bool) -> Result<Outcome, Error> {
    let answer = connection.fleet().watch_verdicts(v1::WatchVerdictsRequest { send_initial }).await;
    let mut stream = answer.map_err(|status| connection.fault(&status))?.into_inner();
    while let Some(message) = stream.message().await.map_err(|status| connection.fault(&status))? {
        // A heartbeat only keeps the stream from looking broken.
        let Some(Event::Change(change)) = message.event else { continue };
        if !out.stream(|| json::change(&change), |out| change_text(out, &change))? {
            return Ok(Outcome::Yes);
        }
    }
    say("the collector ended the stream");
    Ok(Outcome::No)
}

fn change_text(out: Out, change: &v1::VerdictChange) -> String {
    let now = change.verdict.clone().unwrap_or_default();
    let was = match change.previous() {
        Verdict::Unspecified => String::new(),
        previous => format!("{} -> ", json::verdict(previous)),
    };
    format!(
        "{}  {}  {}  {was}{}  {}\n",
        time_text(now.judge_time.as_ref()),
        safe(&now.control_id),
        safe(if now.hostname.is_empty() { &now.host_id } else { &now.hostname }),
        out.tone(tone(now.verdict()), json::verdict(now.verdict())),
        safe(&now.reason)
    )
}

/// Returns the tone of a verdict.
pub fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Pass => Tone::Good,
        Verdict::Fail => Tone::Bad,
        Verdict::Unknown | Verdict::NoData => Tone::Doubt,
        Verdict::NotApplicable | Verdict::Excepted => Tone::Dim,
        Verdict::Unspecified => Tone::Plain,
    }
}

/// Returns a time to the second, or `-`.
pub fn time_text(wire: Option<&prost_types::Timestamp>) -> String {
    let time = wire.and_then(muster_proto::time::Timestamp::from_wire);
    time.map_or_else(|| "-".to_owned(), |time| time.to_second().to_string())
}

/// Returns a line of a name and a value, the value's further lines below it.
pub fn field(name: &str, value: &str) -> String {
    let value: Vec<_> = value.lines().map(safe).collect();
    format!("{name:<12}{}\n", value.join(&format!("\n{:<12}", "")))
}
