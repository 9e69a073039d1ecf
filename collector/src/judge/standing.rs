//! What a stored verdict says now: time turns conditions, and makes observations stale. Pure.

use std::collections::BTreeMap;

use muster_proto::{
    fact::{HostClass, Subject},
    time::Timestamp,
};

use crate::{
    control::{Control, Verdict, missing_reason, stale_reason},
    views::{AgentRow, FactRow, HostRow, Looks, VerdictRow, confirmation},
};

/// What a verdict is at an instant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Since when. Where time alone brought it, that instant.
    pub since: Option<Timestamp>,
    /// When it was judged: the received time of the entry that brought it, or the instant at which time brought it.
    pub judged_at: Timestamp,
}

/// What is known of when a host's facts were confirmed.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its class.
    pub class: Option<HostClass>,
    /// Its facts by subject.
    pub facts: &'a BTreeMap<Subject, FactRow>,
    /// The last looks of its probes.
    pub looks: Looks,
    /// Of a host whose reports do not add up: when its last report was received.
    pub broken: Option<Timestamp>,
}

impl<'a> Known<'a> {
    /// Returns what is known of a host.
    pub fn of(agent: &AgentRow, facts: &'a BTreeMap<Subject, FactRow>) -> Self {
        let broken = agent.broken.as_ref().map(|broken| agent.run.map_or(broken.time, |run| run.last_time));
        // Of a host whose reports do not add up, the class cannot be told either.
        let class = HostClass::parse(&agent.host_class).filter(|_| broken.is_none());
        Self { class, facts, looks: agent.looks(), broken }
    }

    /// Returns from when on what `control` rests on no longer holds, and why; `None` when none of it can go stale.
    pub fn stale(&self, control: &Control) -> Option<(Timestamp, Subject, Timestamp)> {
        let max_age = *control.max_age.of(self.class);
        let confirmed = |subject: &Subject| match self.broken {
            Some(received) => Some((received, *subject)),
            None => Some((confirmation(self.facts.get(subject)?, &self.looks).0, *subject)),
        };
        let (confirmed, subject) = control.subjects.iter().filter_map(confirmed).min()?;
        Some((confirmed.plus(max_age), subject, confirmed))
    }

    /// Returns whether every fact that `control` rests on was reported.
    fn has_all(&self, control: &Control) -> bool {
        self.missing(control).is_none()
    }

    /// Says what of that was never reported.
    fn missing(&self, control: &Control) -> Option<String> {
        missing_reason(control, |subject| self.broken.is_some() || self.facts.contains_key(&subject))
    }
}

/// Returns the verdict of `row` at `now`, without its reason.
pub fn verdict_at(control: &Control, row: &VerdictRow, known: &Known<'_>, now: Timestamp) -> Verdict {
    match change(control, row, known, now) {
        Change::None => row.verdict,
        Change::Stale(..) => Verdict::NoData,
        Change::Turned => row.turn.as_ref().map_or(row.verdict, |(_, verdict, _)| *verdict),
    }
}

/// Returns what `row` says at `now`.
pub fn standing(control: &Control, row: &VerdictRow, known: &Known<'_>, now: Timestamp) -> Standing {
    match (change(control, row, known, now), &row.turn) {
        (Change::Stale(at, subject, confirmed), _) => Standing {
            verdict: Verdict::NoData,
            reason: known
                .missing(control)
                .unwrap_or_else(|| stale_reason(subject, confirmed, *control.max_age.of(known.class))),
            since: Some(at),
            judged_at: at,
        },
        (Change::Turned, Some((at, verdict, reason))) => {
            Standing { verdict: *verdict, reason: reason.clone(), since: Some(*at), judged_at: *at }
        }
        _ => row.standing(),
    }
}

/// Returns what time alone made of `row` up to `now`, in order: its condition turned, then it went stale. Empty when the verdict is
/// what it was.
pub fn passed(control: &Control, row: &VerdictRow, known: &Known<'_>, now: Timestamp) -> Vec<VerdictRow> {
    let by_time = |standing: Standing| VerdictRow {
        control: row.control.clone(),
        verdict: standing.verdict,
        reason: standing.reason,
        since: standing.since,
        judged_at: standing.judged_at,
        turn: None,
    };
    let mut passed = Vec::new();
    let change = change(control, row, known, now);
    let stale_at = match &change {
        Change::Stale(at, ..) => Some(*at),
        Change::None | Change::Turned => None,
    };
    if let Some((at, verdict, reason)) = &row.turn
        && *at <= now
        && stale_at.is_none_or(|stale_at| *at < stale_at)
        && *verdict != row.verdict
    {
        let (verdict, reason) = (*verdict, reason.clone());
        passed.push(by_time(Standing { verdict, reason, since: Some(*at), judged_at: *at }));
    }
    if let Change::Stale(..) = change
        && passed.last().map_or(row.verdict, |last| last.verdict) != Verdict::NoData
    {
        passed.push(by_time(standing(control, row, known, now)));
    }
    passed
}

/// Returns what each control says of a host at `now`, by control id. A control that never judged the host has no data.
pub fn standings<'c>(
    controls: impl Iterator<Item = &'c Control>,
    host: &HostRow,
    now: Timestamp,
) -> Vec<(&'c Control, Standing)> {
    let known = Known::of(&host.agent, &host.facts);
    controls
        .map(|control| {
            let standing = match host.verdicts.get(control.id.as_str()) {
                Some(row) => standing(control, row, &known, now),
                None => Standing {
                    verdict: Verdict::NoData,
                    reason: "not judged so far".to_owned(),
                    since: None,
                    judged_at: now,
                },
            };
            (control, standing)
        })
        .collect()
}

impl VerdictRow {
    /// Returns what it says as long as time alone does not change it.
    fn standing(&self) -> Standing {
        Standing { verdict: self.verdict, reason: self.reason.clone(), since: self.since, judged_at: self.judged_at }
    }

    /// Returns whether a condition gave it, or will.
    fn is_judged(&self) -> bool {
        matches!(self.verdict, Verdict::Pass | Verdict::Fail | Verdict::Unknown) || self.turn.is_some()
    }
}

enum Change {
    None,
    Stale(Timestamp, Subject, Timestamp),
    Turned,
}

fn change(control: &Control, row: &VerdictRow, known: &Known<'_>, now: Timestamp) -> Change {
    let judged = row.is_judged();
    if let Some((at, subject, confirmed)) = known.stale(control)
        && at <= now
        && (judged || row.verdict == Verdict::NoData && known.has_all(control))
    {
        return Change::Stale(at, subject, confirmed);
    }
    match &row.turn {
        Some((at, _, _)) if judged && *at <= now => Change::Turned,
        _ => Change::None,
    }
}
