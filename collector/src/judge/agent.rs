//! One agent: what the views have of it, and what a batch has still to write.

use muster_proto::{
    fact::{Fact, Reading, Text},
    report::{Body, Coverage, Report},
    seal::sealed_digest,
    time::Timestamp,
    v1,
};

use super::{
    apply::{Place, REJUDGE},
    standing::{Known, verdict_at},
};
use crate::{
    control::{Catalogue, Control, Verdict},
    views::{Batch, Error, Head, HostRow, Run, VerdictRow},
};

/// Reports of a run, at most, so that looking into one stays cheap.
const RUN_REPORTS: u64 = 256;
/// How often the wait for another request for facts doubles, at most: then it is about an hour.
const ASK_DOUBLINGS: u32 = 6;
/// Bytes of names that hosts give themselves, at most.
const NAME_BYTES: usize = 255;

/// What is known of one agent.
pub(super) struct Agent {
    /// As the views have it after the batch.
    pub host: HostRow,
    /// The verdicts that were published last, by the catalogue's order.
    pub shown: Vec<Option<Verdict>>,
    /// Whether a verdict is `no_data` that a look at what was reported before could change.
    pub has_stale: bool,
    /// Whether the agent's own row is to be written.
    pub is_dirty: bool,
    ended_runs: Vec<Run>,
    /// The last report of the batch.
    pub head: Option<v1::SealedReport>,
    /// How often its facts were asked for since its reports do not add up.
    pub asked: Asked,
}

/// When an agent was asked for its facts, while its reports do not add up. Kept in memory alone: a restart may ask once more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    last: Option<Timestamp>,
    times: u32,
}

impl Asked {
    /// Returns whether to ask at `now`, and takes note of it: at once, then after [`REJUDGE`], then each time after twice as long.
    pub fn take_turn(&mut self, now: Timestamp) -> bool {
        let doublings = self.times.saturating_sub(1).min(ASK_DOUBLINGS);
        if self.last.is_some_and(|last| now.since(last) < REJUDGE * 2_u32.pow(doublings)) {
            return false;
        }
        *self = Self { last: Some(now), times: self.times.saturating_add(1) };
        true
    }
}

impl Agent {
    /// Returns an agent as the views have it.
    pub fn of(host: HostRow, catalogue: &Catalogue) -> Self {
        let shown = vec![None; catalogue.controls().len()];
        let mut agent = Self {
            host,
            shown,
            has_stale: false,
            is_dirty: false,
            ended_runs: Vec::new(),
            head: None,
            asked: Asked::default(),
        };
        agent.note_stale(catalogue);
        agent
    }

    /// Returns what `control` said last.
    pub fn verdict(&self, control: &Control) -> Option<&VerdictRow> {
        self.host.verdicts.get(control.id.as_str())
    }

    /// Returns the verdicts at `now`, by the catalogue's order.
    pub fn verdicts_at(&self, catalogue: &Catalogue, now: Timestamp) -> Vec<Option<Verdict>> {
        let known = Known::of(&self.host.agent, &self.host.facts);
        let verdict = |control| self.verdict(control).map(|row| verdict_at(control, row, &known, now));
        catalogue.controls().map(verdict).collect()
    }

    pub fn note_stale(&mut self, catalogue: &Catalogue) {
        let known = Known::of(&self.host.agent, &self.host.facts);
        self.has_stale = catalogue.controls().any(|control| {
            self.verdict(control).is_some_and(|row| row.verdict == Verdict::NoData) && known.stale(control).is_some()
        });
    }

    /// Puts a report at the end of the agent's run, or begins another run.
    pub fn follow(&mut self, report: &Report, place: &Place) {
        let seq = report.seq.number();
        let (through, mut looks) = (report.body.through(report.observed), self.host.agent.looks());
        if let Some(coverage) = report.body.coverage() {
            looks.add(coverage, place.index, place.skew_millis, place.received);
        }
        let run = Run {
            epoch: report.epoch,
            first_seq: seq,
            last_seq: seq,
            first_index: place.index,
            last_index: place.index,
            first_time: place.received,
            last_time: place.received,
            observed: report.observed,
            through,
            skew_millis: place.skew_millis,
            looks,
        };
        let follows = |old: &Run| {
            old.epoch == run.epoch
                && old.last_seq + 1 == seq
                && old.last_index + 1 == place.index
                && old.last_seq - old.first_seq + 1 < RUN_REPORTS
        };
        self.host.agent.run = Some(match self.host.agent.run {
            Some(old) if follows(&old) => {
                Run { first_seq: old.first_seq, first_index: old.first_index, first_time: old.first_time, ..run }
            }
            Some(old) => {
                self.is_dirty |= old.epoch != run.epoch;
                self.ended_runs.push(old);
                run
            }
            None => {
                self.is_dirty = true;
                run
            }
        });
    }

    /// Takes what the host says of itself.
    pub fn introduce(&mut self, system: Option<&Fact>) {
        let text = |reading: &Reading<Text>| reading.known().map(|text| name(text.as_str())).unwrap_or_default();
        let Some(Fact::System(Reading::Known(system))) = system else {
            self.host.agent.host_class.clear();
            return;
        };
        self.host.agent.hostname = text(&system.hostname);
        self.host.agent.os_id = text(&system.os_id);
        self.host.agent.os_version = text(&system.os_version);
        self.host.agent.host_class =
            system.host_class.known().map(|class| class.as_str().to_owned()).unwrap_or_default();
    }

    pub fn flush(&mut self, batch: &Batch<'_>) -> Result<(), Error> {
        let id = self.host.agent.agent;
        if std::mem::take(&mut self.is_dirty) {
            batch.put_agent(&self.host.agent)?;
        }
        for run in self.ended_runs.drain(..) {
            batch.put_run(id, &run)?;
        }
        if let (Some(run), Some(sealed)) = (&self.host.agent.run, self.head.take()) {
            batch.put_run(id, run)?;
            let head = Head {
                agent: id,
                epoch: run.epoch,
                seq: run.last_seq,
                digest: sealed_digest(&sealed),
                log_index: run.last_index,
            };
            batch.put_head(&head, run.first_seq)?;
        }
        Ok(())
    }
}

/// Returns a name that somebody else chose, made harmless and short.
pub(super) fn name(text: &str) -> String {
    Text::cut(text, NAME_BYTES).as_str().to_owned()
}

/// Parts of a report that follow from its kind.
pub(super) trait BodyExt {
    fn coverage(&self) -> Option<&Coverage>;
    fn through(&self, observed: Timestamp) -> Timestamp;
}

impl BodyExt for Body {
    fn coverage(&self) -> Option<&Coverage> {
        match self {
            Self::Facts(facts) => Some(&facts.coverage),
            Self::Attestation(attestation) => Some(&attestation.coverage),
            Self::Gap(_) | Self::Lifecycle(_) => None,
        }
    }

    /// Returns until when it speaks, host's clock.
    fn through(&self, observed: Timestamp) -> Timestamp {
        match self {
            Self::Facts(facts) => facts.coverage.end,
            Self::Attestation(attestation) => attestation.coverage.end,
            Self::Gap(gap) => gap.end,
            Self::Lifecycle(_) => observed,
        }
    }
}
