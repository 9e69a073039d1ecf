//! Shows the agent's state to the person at its host, and exactly what it has sent.

use std::{collections::VecDeque, fmt::Write as _, path::Path};

use muster_proto::{
    fact::{Fact, Text, render},
    id::AgentId,
    limits,
    report::{Body, Coverage, Report},
    time::{Clock as _, SystemClock, Timestamp},
};
use serde::Serialize;

use super::{Phase, Status, WRITTEN_EVERY};
use crate::{
    chain,
    connect::chain_of,
    identity, run,
    spool::{self, Contradiction, State},
};

/// What to show.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many of the newest reports.
    pub reports: usize,
    /// Whether every fact is shown in full.
    pub facts: bool,
}

/// Everything that `muster-agent status` tells.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Whether an agent runs with this state folder.
    pub is_running: bool,
    /// Unset before enrolment, and when it cannot be read.
    identity: Option<IdentityShown>,
    /// What is wrong with the identity's files.
    identity_problem: Option<String>,
    /// Unset before the agent's first run.
    status: Option<Status>,
    /// Whether the agent runs and has not written its status for some time, as on a full disk.
    is_stale: bool,
    /// Unset before the first report.
    chain: Option<ChainShown>,
    /// Newest last.
    reports: Vec<ReportShown>,
    /// What the collector holds of this host once all reports are there, by subject.
    facts: Vec<FactShown>,
}

#[derive(Debug, Serialize)]
struct IdentityShown {
    agent: AgentId,
    collector: String,
    /// Key of the collector's log, as it was taken at enrolment: what an auditor verifies snapshots with.
    log_key: Text,
    certificate_serial: String,
    renew_time: Timestamp,
    expire_time: Timestamp,
}

#[derive(Debug, Serialize)]
struct ChainShown {
    epoch: String,
    last_sequence: u64,
    last_durable_sequence: u64,
    checkpoint_size: Option<u64>,
    /// Two signed checkpoints of the collector's log that contradict each other.
    contradiction: Option<Contradiction>,
    waiting_reports: u64,
    oldest_waiting_time: Option<Timestamp>,
    spool_bytes: u64,
    profile_revision: u64,
}

#[derive(Debug, Serialize)]
struct ReportShown {
    sequence: u64,
    observed_time: Timestamp,
    is_durable: bool,
    kind: String,
    summary: Vec<String>,
}

#[derive(Debug, Serialize)]
struct FactShown {
    observed_time: Timestamp,
    #[serde(flatten)]
    fact: Fact,
}

/// Returns what there is to show of the agent in `state_directory`.
///
/// # Errors
///
/// When the state folder cannot be read.
pub fn show(state_directory: &Path, options: Options) -> Result<Shown, spool::Error> {
    let folder = state_directory.join("spool");
    let status = Status::read(state_directory);
    let state = spool::peek_state(&folder);
    let durable = state.as_ref().and_then(|state| state.durable).map_or(0, |place| place.seq.number());
    let mut newest = VecDeque::new();
    let mut oldest_waiting = None;
    if state.is_some() {
        chain::peek_reports(&folder, |report| {
            if report.seq.number() > durable {
                oldest_waiting.get_or_insert(report.observed);
            }
            newest.push_back(report);
            if newest.len() > options.reports {
                newest.pop_front();
            }
        })?;
    }
    let (identity, identity_problem) = identity_shown(state_directory);
    let is_running = run::is_locked(state_directory);
    let reported = chain::peek_reported(&folder).unwrap_or_default();
    let facts = reported
        .into_values()
        .filter_map(|fact| Some(FactShown { observed_time: fact.at, fact: Fact::decode(&fact.bytes).ok()? }));
    Ok(Shown {
        is_running,
        is_stale: is_running && status.as_ref().is_some_and(|status| is_stale(status, SystemClock.now())),
        identity,
        identity_problem,
        chain: state.map(|state| chain_shown(&state, durable, oldest_waiting, spool_bytes(&folder))),
        status,
        reports: newest.iter().map(|report| report_shown(report, durable)).collect(),
        facts: facts.collect(),
    })
}

/// Returns the identity, and what is wrong with it. A file that is damaged must not look like one that is not there.
fn identity_shown(state_directory: &Path) -> (Option<IdentityShown>, Option<String>) {
    // Without the mode checks of the agent itself: whoever may read the files may see them.
    match identity::Folder::below(state_directory).identity() {
        Ok(None) => (None, None),
        Err(error) => (None, Some(chain_of(&error))),
        Ok(Some(identity)) => {
            let shown = IdentityShown {
                agent: identity.agent,
                collector: identity.collector.to_string(),
                log_key: Text::cut(&identity.log_key, limits::TEXT_BYTES),
                certificate_serial: identity.certificate_serial,
                renew_time: identity.renew_time,
                expire_time: identity.expire_time,
            };
            (Some(shown), None)
        }
    }
}

fn chain_shown(state: &State, durable: u64, oldest: Option<Timestamp>, spool_bytes: u64) -> ChainShown {
    let last = state.sealed.map_or(0, |place| place.seq.number());
    ChainShown {
        epoch: state.epoch.to_string(),
        last_sequence: last,
        last_durable_sequence: durable,
        checkpoint_size: state.checkpoint.as_ref().map(|checkpoint| checkpoint.size),
        contradiction: state.contradiction.clone(),
        waiting_reports: last.saturating_sub(durable),
        oldest_waiting_time: oldest,
        spool_bytes,
        profile_revision: state.profile.as_ref().map_or(0, |profile| profile.revision),
    }
}

fn spool_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(|metadata| metadata.is_file()).map(|file| file.len()).sum()
}

/// Returns whether a running agent has missed two of its turns to write `status`. One that waits for its identity writes rarely.
fn is_stale(status: &Status, now: Timestamp) -> bool {
    status.phase == Phase::Running && now.since(status.write_time) > 2 * WRITTEN_EVERY + WRITTEN_EVERY / 2
}

fn report_shown(report: &Report, durable: u64) -> ReportShown {
    ReportShown {
        sequence: report.seq.number(),
        observed_time: report.observed,
        is_durable: report.seq.number() <= durable,
        kind: report.body.to_string(),
        summary: summary(&report.body),
    }
}

fn summary(body: &Body) -> Vec<String> {
    match body {
        Body::Facts(facts) => {
            let mut lines = vec![coverage(&facts.coverage)];
            if facts.resync {
                lines.push("begins with an empty set of facts".to_owned());
            }
            for subject in &facts.subjects {
                match Fact::decode(&subject.fact) {
                    Ok(fact) => {
                        lines.push(format!("{}:", fact.subject().as_str()));
                        lines.extend(render(&fact).into_iter().map(|line| format!("  {line}")));
                    }
                    Err(error) => lines.push(error.to_string()),
                }
            }
            if let Some(part) = &facts.part {
                let bytes = part.bytes.len();
                lines.push(format!("part {} of {} of a large fact, {bytes} bytes", part.index + 1, part.count));
            }
            lines
        }
        Body::Attestation(attestation) => vec!["nothing changed".to_owned(), coverage(&attestation.coverage)],
        Body::Gap(gap) => {
            let counts: String = gap.counts.iter().map(|(kind, count)| format!(", {count} {kind}")).collect();
            let cause = gap.cause.as_str_name();
            vec![format!("{cause} from {} to {}{counts}", gap.start, gap.end), gap.detail.to_string()]
        }
        Body::Lifecycle(event) => vec![format!("{} {}", event.kind.as_str_name(), event.detail)],
    }
}

fn coverage(coverage: &Coverage) -> String {
    let one = |looks: &muster_proto::report::ProbeLooks| {
        let name = looks.probe.as_str_name().trim_start_matches("PROBE_").to_ascii_lowercase();
        format!("{} of {name} (largest gap {} s)", looks.count, looks.largest_gap_millis / 1_000)
    };
    let looks: Vec<_> = coverage.looks.iter().map(one).collect();
    let looks = if looks.is_empty() { "none".to_owned() } else { looks.join(", ") };
    format!("looks from {} to {}: {looks}", coverage.start, coverage.end)
}

impl Shown {
    /// Returns the text for a terminal. Every text that came from a host is escaped by its type.
    pub fn text(&self, options: Options) -> String {
        let mut out = String::new();
        self.write(&mut out, options).expect("a String takes every write");
        out
    }

    fn write(&self, out: &mut String, options: Options) -> std::fmt::Result {
        match (&self.identity, &self.status) {
            (Some(identity), _) => {
                writeln!(out, "agent        {}", identity.agent)?;
                writeln!(out, "collector    {}", identity.collector)?;
                writeln!(out, "log key      {}", identity.log_key)?;
                writeln!(out, "certificate  ends {}, to be renewed {}", identity.expire_time, identity.renew_time)?;
            }
            (None, _) if self.identity_problem.is_some() => {
                writeln!(out, "agent        {}", self.identity_problem.as_deref().unwrap_or_default())?;
            }
            (None, Some(Status { phase: Phase::Waiting { reason }, .. })) => writeln!(out, "agent        {reason}")?,
            (None, _) => writeln!(out, "agent        not enrolled: run 'muster-agent enroll'")?,
        }
        match &self.status {
            Some(status) if self.is_running => {
                let (pid, since) = (status.pid, status.start_time);
                writeln!(out, "process      {pid} since {since}, version {}", status.agent_version)?;
                if self.is_stale {
                    let written = status.write_time;
                    writeln!(
                        out,
                        "             what follows is of {written}: status.json was not written since; is its disk full?"
                    )?;
                }
            }
            None if self.is_running => writeln!(out, "process      running, but status.json is missing")?,
            Some(status) => writeln!(out, "process      not running, last seen {}", status.write_time)?,
            None => writeln!(out, "process      never ran")?,
        }
        if let Some(status) = &self.status {
            write_link(out, status)?;
        }
        if let Some(chain) = &self.chain {
            let (sealed, durable) = (chain.last_sequence, chain.last_durable_sequence);
            writeln!(out, "reports      {sealed} sealed, {durable} durable, {} waiting", chain.waiting_reports)?;
            if let Some(oldest) = chain.oldest_waiting_time {
                writeln!(out, "             the oldest waits since {oldest}")?;
            }
            writeln!(out, "spool        {} bytes", chain.spool_bytes)?;
            if let Some(Contradiction { held, shown, notice_time }) = &chain.contradiction {
                writeln!(
                    out,
                    "log          contradicts itself, noticed {notice_time}: give both notes to the auditor"
                )?;
                for (what, note) in [("held", &held.note), ("shown", &shown.note)] {
                    writeln!(out, "             {what}:")?;
                    for line in note.lines() {
                        writeln!(out, "               {line}")?;
                    }
                }
            }
        }
        if let Some(status) = self.status.as_ref().filter(|_| self.is_running) {
            if let Some(scan) = &status.scan {
                writeln!(out, "scan         {}; as of {}", scan.line(), status.write_time)?;
            }
            if let Some(attribution) = &status.attribution {
                writeln!(out, "attribution  of changes to processes: {attribution}")?;
            }
        }
        for probe in self.status.iter().flat_map(|status| &status.probes) {
            let (time, name) = (probe.last_look_time, &probe.probe);
            writeln!(out, "looked       {time} {name} ({} ms, {})", probe.took_millis, probe.outcome)?;
        }
        if !self.reports.is_empty() {
            writeln!(out, "\nThe newest reports, as they were sealed:")?;
        }
        for report in &self.reports {
            let sent = if report.is_durable { "durable" } else { "waiting" };
            writeln!(out, "{:>8}  {}  {}  {sent}", report.sequence, report.observed_time, report.kind)?;
            for line in &report.summary {
                writeln!(out, "          {line}")?;
            }
        }
        if options.facts {
            writeln!(out, "\nWhat the collector knows of this host once all reports are there:")?;
            for fact in &self.facts {
                writeln!(out, "{} (as first seen {})", fact.fact.subject().as_str(), fact.observed_time)?;
                for line in render(&fact.fact) {
                    writeln!(out, "  {line}")?;
                }
            }
        }
        Ok(())
    }
}

fn write_link(out: &mut String, status: &Status) -> std::fmt::Result {
    let link = &status.uplink;
    match &link.error {
        None if link.is_up => writeln!(out, "link         open")?,
        None => writeln!(out, "link         closed")?,
        Some(error) => {
            let someone = if link.needs_someone { " (someone must act)" } else { "" };
            writeln!(out, "link         {error}{someone}")?;
            if let Some(next) = link.next_try_time {
                writeln!(out, "             next try {next}")?;
            }
        }
    }
    if let Some(contact) = link.last_contact_time {
        let skew = link.clock_skew_millis.map(|skew| format!(", this clock is {skew} ms ahead")).unwrap_or_default();
        writeln!(out, "contact      {contact}{skew}")?;
    }
    if let Some(since) = status.held_since_time {
        let why = status.held_reason.as_deref().unwrap_or("spool is full");
        writeln!(out, "held back    since {since}: {why}; a gap will say what is missing")?;
    }
    Ok(())
}
