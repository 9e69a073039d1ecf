//! From looks to the bodies of reports. Pure: looks and instants come in, bodies go out.
//!
//! It owns what was reported last, what differs from it, and the coverage under way. Drafting changes nothing; a draft counts only
//! after the chain has taken it, so that a full spool loses no change.

mod coverage;
mod draft;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_proto::{
    fact::{Fact, Subject, Text},
    fact_set,
    id::Digest,
    report::{Body, Gap, GapCause, GapKind, Lifecycle, LifecycleKind, Lost, PROBES, Probe},
    time::Timestamp,
};

use crate::moment::Moment;
use coverage::Span;

pub use draft::Draft;
#[cfg(test)]
pub(crate) use draft::unknown as draft_unknown;

/// Rounds that are waited for at once; who asks for more waits for the last of them.
const OPEN_ASKS: usize = 64;
/// Look-now directives that can be open at once; more are refused.
const OPEN_IDS: usize = 4_096;
/// The wall clock may differ this much from the boot clock between two moments before it counts as set.
const CLOCK_TOLERANCE_MILLIS: i64 = 10_000;
/// A suspend shorter than this is not told.
const SUSPEND_TOLERANCE: Duration = Duration::from_secs(1);

/// A subject's fact: the exact bytes, and when this state was first seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Observed {
    /// Host's clock when the look that first gave it ended.
    pub at: Timestamp,
    /// The encoded fact.
    pub bytes: Vec<u8>,
}

/// The facts that were reported, by subject.
pub type Reported = BTreeMap<Subject, Observed>;

/// Returns the digest that reports carry of `reported`.
pub fn digest_of(reported: &Reported) -> Digest {
    fact_set::digest_of(reported.iter().map(|(subject, fact)| (*subject, fact.bytes.as_slice())))
}

/// One look, as it ended.
#[derive(Clone, Debug)]
pub struct Look {
    /// The probe that looked.
    pub probe: Probe,
    /// Whether it looked at everything. A look at some places says what is so there, and nothing of when the rest was looked at.
    pub is_whole: bool,
    /// What it saw.
    pub facts: Vec<Fact>,
    /// When it began.
    pub started: Moment,
    /// When it ended.
    pub ended: Moment,
}

/// Turns looks into bodies of reports.
#[derive(Clone, Debug)]
pub struct Reporter {
    reported: Reported,
    /// Facts that differ from the reported ones.
    changed: Reported,
    /// Whether everything must be reported again, from an empty set.
    is_resync: bool,
    span: Span,
    asks: Vec<Ask>,
    /// Set while the spool takes nothing.
    held: Option<Held>,
    last: Moment,
}

/// Someone wants to hear of a whole round of looks.
#[derive(Clone, Debug)]
struct Ask {
    /// Directives that it answers; none when the agent itself wants it.
    ids: Vec<u64>,
    since: Moment,
    waiting: BTreeSet<Probe>,
}

/// What went unreported while the spool was full.
#[derive(Clone, Copy, Debug)]
struct Held {
    since: Timestamp,
    looks: u64,
    reports: u64,
}

/// How the last run ended, as far as it is known.
#[derive(Clone, Debug)]
pub struct LastRun {
    /// End of its last coverage.
    pub covered_until: Option<Timestamp>,
    /// Whether it stopped in order.
    pub stopped: bool,
    /// Its version.
    pub agent_version: String,
    /// Whether the host was booted since.
    pub is_rebooted: bool,
}

impl Reporter {
    /// Returns a reporter that goes on from `reported`, or that begins with an empty set when that is `None`.
    pub fn new(reported: Option<Reported>, now: Moment) -> Self {
        let is_resync = reported.is_none();
        let mut reporter = Self {
            reported: reported.unwrap_or_default(),
            changed: Reported::new(),
            is_resync,
            span: Span::new(now),
            asks: Vec::new(),
            held: None,
            last: now,
        };
        // The first round is told in any case, so that a start is followed by fresh facts.
        reporter.ask(None, now);
        reporter
    }

    /// Returns the facts that were reported.
    pub fn reported(&self) -> &Reported {
        &self.reported
    }

    /// Returns how many bytes a report of everything would take.
    pub fn resync_bytes(&self) -> usize {
        let unchanged = self.reported.iter().filter(|(subject, _)| !self.changed.contains_key(subject));
        unchanged.chain(&self.changed).map(|(_, fact)| fact.bytes.len()).sum()
    }

    /// Takes a look. Whatever differs from what was reported waits for the next draft.
    pub fn on_look(&mut self, look: &Look) {
        if look.is_whole {
            self.span.looked(look.probe, look.ended);
        }
        if let Some(held) = &mut self.held {
            held.looks += 1;
        }
        let mut seen = BTreeSet::new();
        let mut differs = false;
        for fact in &look.facts {
            let subject = fact.subject();
            seen.insert(subject);
            let bytes = draft::bounded(fact);
            if self.reported.get(&subject).is_some_and(|reported| reported.bytes == bytes) && !self.is_resync {
                self.changed.remove(&subject);
            } else if self.changed.get(&subject).is_none_or(|changed| changed.bytes != bytes) {
                differs = true;
                self.changed.insert(subject, Observed { at: look.ended.wall, bytes });
            }
        }
        if let Some(held) = &mut self.held
            && differs
        {
            held.reports += 1;
        }
        // Only a resync takes a subject out of the set.
        let is_gone = |subject: &Subject| subject.probe() == look.probe && !seen.contains(subject);
        if self.reported.keys().any(is_gone) {
            self.reported.retain(|subject, _| !is_gone(subject));
            self.resync();
        }
        for ask in &mut self.asks {
            if look.is_whole && look.started.boot >= ask.since.boot {
                ask.waiting.remove(&look.probe);
            }
        }
    }

    /// Takes note that someone wants to hear of a whole round of looks that begin after `now`. Returns whether there was place for it.
    pub fn ask(&mut self, id: Option<u64>, now: Moment) -> bool {
        let open = || self.asks.iter().flat_map(|ask| &ask.ids);
        if id.is_some_and(|id| open().any(|known| *known == id)) {
            return true;
        }
        if id.is_some() && open().count() >= OPEN_IDS {
            return false;
        }
        let ask = Ask { ids: id.into_iter().collect(), since: now, waiting: PROBES.into() };
        if self.asks.len() < OPEN_ASKS {
            self.asks.push(ask);
        } else if let Some(last) = self.asks.last_mut() {
            last.ids.extend(ask.ids);
            (last.since, last.waiting) = (ask.since, ask.waiting);
        }
        true
    }

    /// Makes the next draft report every subject again, from an empty set.
    pub fn resync(&mut self) {
        self.is_resync = true;
        for (subject, fact) in std::mem::take(&mut self.reported) {
            self.changed.entry(subject).or_insert(fact);
        }
    }

    /// Takes note of the host's clocks and returns what they tell: that the wall clock was set, or that the host was suspended.
    pub fn on_moment(&mut self, now: Moment) -> Vec<Body> {
        let before = std::mem::replace(&mut self.last, now);
        let mut bodies = Vec::new();
        let suspended = now.suspended_since(&before);
        let jump = now.wall_jump_millis(&before);
        if jump.abs() > CLOCK_TOLERANCE_MILLIS {
            // Times before and after do not compare: the span that was under way ends at the last moment of the old clock.
            let attested = self.attest_until(before);
            let unclaimed = if attested.is_some() { before.wall } else { self.span.start().min(before.wall) };
            bodies.extend(attested);
            self.span = self.span.next(now);
            let way = if jump > 0 { "forward" } else { "back" };
            bodies.push(Body::Gap(Gap {
                cause: GapCause::ClockJump,
                start: unclaimed.min(now.wall),
                end: before.wall.max(now.wall),
                lost: None,
                counts: vec![(GapKind::Milliseconds, jump.unsigned_abs())],
                detail: Text::new(&format!("clock was set {way} by {} s", jump.unsigned_abs() / 1_000)),
            }));
        } else if suspended >= SUSPEND_TOLERANCE {
            self.span.suspended += suspended;
        }
        if suspended >= SUSPEND_TOLERANCE {
            bodies.push(lifecycle(LifecycleKind::Resumed, &format!("suspended for {} s", suspended.as_secs())));
        }
        bodies
    }

    /// Returns the attestation of the span up to `end`; `None` when there is nothing to attest.
    fn attest_until(&self, end: Moment) -> Option<Body> {
        if self.is_held() || self.span.start() >= end.wall {
            return None;
        }
        self.draft_attestation(end)?.bodies.pop().map(|body| match body {
            // Who asked for looks is answered by a report of the present.
            Body::Attestation(mut attestation) => {
                attestation.coverage.directive_ids.clear();
                Body::Attestation(attestation)
            }
            other => other,
        })
    }

    /// Returns what there is to say when the kernel dropped notices of changed files: since the last scan nobody knows of each change.
    pub fn events_dropped(&self, now: Moment) -> Body {
        let since = self.span.since_look(Probe::FileIntegrity, now);
        let start = since.map_or(self.span.start(), |since| now.wall.minus(since));
        Body::Gap(Gap {
            cause: GapCause::EventOverflow,
            start: start.min(now.wall),
            end: now.wall,
            lost: None,
            counts: Vec::new(),
            detail: Text::new("the kernel dropped notices of changed files; a scan follows"),
        })
    }

    /// Takes note that the spool takes nothing. Looks go on; what they see stays in memory.
    pub fn hold(&mut self, now: Moment) {
        self.held.get_or_insert(Held { since: self.span.start().min(now.wall), looks: 0, reports: 1 });
    }

    /// Returns whether reports are held back.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    fn held_gap(&self, now: Moment) -> Option<Body> {
        let held = self.held?;
        Some(Body::Gap(Gap {
            cause: GapCause::SpoolFull,
            start: held.since.min(now.wall),
            end: held.since.max(now.wall),
            lost: None,
            counts: vec![(GapKind::Looks, held.looks), (GapKind::Reports, held.reports)],
            detail: Text::new("the spool was full, so that looks were not reported"),
        }))
    }
}

/// Returns what a chain says when it begins.
pub fn epoch_started(why: &str, previous: Option<(muster_proto::id::Epoch, u64)>) -> Body {
    Body::Lifecycle(Lifecycle {
        kind: LifecycleKind::EpochStarted,
        detail: Text::cut(why, muster_proto::limits::DETAIL_BYTES),
        previous,
        probe: None,
    })
}

/// Returns what a new chain says of the `reports` of the one before that were set aside and never sent, the first of them of `since`.
pub fn set_aside(reports: u64, since: Timestamp, now: Moment) -> Body {
    Body::Gap(Gap {
        cause: GapCause::SpoolDamaged,
        start: since.min(now.wall),
        end: since.max(now.wall),
        lost: None,
        counts: vec![(GapKind::Reports, reports)],
        detail: Text::new("reports of the epoch before were set aside on this host and not sent"),
    })
}

/// Returns what the agent says when it starts: the time that nobody looked, whether its version changed, and that it started.
pub fn started(last: &LastRun, version: &str, now: Moment) -> Vec<Body> {
    let mut bodies = Vec::new();
    let boot = if last.is_rebooted { ", host was booted since" } else { "" };
    if let Some(until) = last.covered_until {
        let how = if last.stopped { "stopped in order" } else { "ended without a last report" };
        bodies.push(Body::Gap(Gap {
            cause: GapCause::NotRunning,
            start: until.min(now.wall),
            end: until.max(now.wall),
            lost: None,
            counts: vec![(GapKind::Milliseconds, now.wall.millis_after(until).unsigned_abs())],
            detail: Text::new(&format!("agent {how}{boot}")),
        }));
    }
    if last.covered_until.is_some() && last.agent_version != version {
        let detail = format!("from {} to {version}", last.agent_version);
        bodies.push(lifecycle(LifecycleKind::Upgraded, &detail));
    }
    bodies.push(lifecycle(LifecycleKind::Started, &format!("version {version}{boot}")));
    bodies
}

/// Returns what the agent says of places that its spool lost. `since` is when the report before them was sealed: whatever they
/// covered after it is not covered any more.
pub fn spool_damaged(lost: Lost, since: Option<Timestamp>, now: Moment) -> Body {
    let start = since.unwrap_or(now.wall);
    let count = lost.last.number() - lost.first.number() + 1;
    Body::Gap(Gap {
        cause: GapCause::SpoolDamaged,
        start: start.min(now.wall),
        end: start.max(now.wall),
        lost: Some(lost),
        counts: vec![(GapKind::Reports, count)],
        detail: Text::new("sealed reports in the spool were damaged"),
    })
}

/// Returns a report of something that happened to the agent.
pub fn lifecycle(kind: LifecycleKind, detail: &str) -> Body {
    let detail = Text::cut(detail, muster_proto::limits::DETAIL_BYTES);
    Body::Lifecycle(Lifecycle { kind, detail, previous: None, probe: None })
}

/// Returns the report of a probe that crashed.
pub fn probe_crashed(probe: Probe, detail: &str) -> Body {
    let detail = Text::cut(detail, muster_proto::limits::DETAIL_BYTES);
    Body::Lifecycle(Lifecycle { kind: LifecycleKind::ProbeCrashed, detail, previous: None, probe: Some(probe) })
}

#[cfg(test)]
mod tests;
