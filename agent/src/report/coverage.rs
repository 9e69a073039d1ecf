//! The coverage under way: looks since the last report that carried one.

use std::{collections::BTreeMap, time::Duration};

use muster_proto::{
    report::{Coverage, Probe, ProbeLooks},
    time::Timestamp,
};

use crate::moment::Moment;

/// Looks since the last report that carried a coverage.
#[derive(Clone, Debug)]
pub struct Span {
    start: Timestamp,
    /// Time of the span during which the host was suspended.
    pub suspended: Duration,
    probes: BTreeMap<i32, Looks>,
}

#[derive(Clone, Copy, Debug)]
struct Looks {
    probe: Probe,
    /// Looks that ended in the span.
    count: u32,
    /// End of the last look, also one before the span, on the boot clock.
    last: Duration,
    largest_gap: Duration,
}

impl Span {
    /// Returns a span that begins at `now`, with no look before it.
    pub fn new(now: Moment) -> Self {
        Self { start: now.wall, suspended: Duration::ZERO, probes: BTreeMap::new() }
    }

    /// Returns where the span begins.
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// Returns how long before `now` the last look of `probe` ended, also one before the span.
    pub fn since_look(&self, probe: Probe, now: Moment) -> Option<Duration> {
        self.probes.get(&probe.into()).map(|looks| now.boot.saturating_sub(looks.last))
    }

    /// Counts a look.
    pub fn looked(&mut self, probe: Probe, ended: Moment) {
        let looks = self.probes.entry(probe.into()).or_insert(Looks {
            probe,
            count: 0,
            last: ended.boot,
            largest_gap: Duration::ZERO,
        });
        looks.count = looks.count.saturating_add(1);
        looks.largest_gap = looks.largest_gap.max(ended.boot.saturating_sub(looks.last));
        looks.last = ended.boot;
    }

    /// Returns the coverage of the span that ends at `now`.
    pub fn coverage(&self, now: Moment, directive_ids: Vec<u64>) -> Coverage {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let looks = self.probes.values().filter(|looks| looks.count > 0).map(|looks| ProbeLooks {
            probe: looks.probe,
            count: looks.count,
            last_before_end_millis: millis(now.boot.saturating_sub(looks.last)),
            largest_gap_millis: millis(looks.largest_gap),
        });
        Coverage {
            // Small corrections of the clock may put the end before the start.
            start: self.start.min(now.wall),
            end: now.wall,
            looks: looks.collect(),
            suspended_millis: millis(self.suspended),
            directive_ids,
        }
    }

    /// Returns the span that follows, from `now` on. It remembers when each probe looked last.
    pub fn next(&self, now: Moment) -> Self {
        let mut probes = self.probes.clone();
        for looks in probes.values_mut() {
            (looks.count, looks.largest_gap) = (0, Duration::ZERO);
        }
        Self { start: now.wall, suspended: Duration::ZERO, probes }
    }
}
