//! Which probe is due at an instant. Pure: instants come in, names of probes go out.
//!
//! Looks run one after the other, in two lanes: a scan of many files never keeps the short looks waiting. A hint brings a look forward, but never closer to the look before than a floor that grows with
//! what looks cost, so that a storm of events cannot make the agent spin.

use std::time::Duration;

use muster_proto::report::Probe;
use tokio::time::Instant;

/// Two looks of one probe are never closer than this, unless someone asked for a look.
pub const FLOOR: Duration = Duration::from_secs(10);
/// After a look, hints wait at least this many times as long as it took: at most one hundredth of a core goes into hinted looks.
const COST_FACTOR: u32 = 100;

/// Where looks run one after the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lane {
    /// Looks that take moments.
    Quick,
    /// File integrity, whose scan may take minutes.
    Scan,
}

impl Lane {
    /// Returns the lane of `probe`.
    pub fn of(probe: Probe) -> Self {
        if probe == Probe::FileIntegrity { Self::Scan } else { Self::Quick }
    }
}

/// When each probe looks next.
#[derive(Debug)]
pub struct Schedule {
    entries: Vec<Entry>,
    jitter: f64,
}

#[derive(Debug)]
struct Entry {
    probe: Probe,
    interval: Duration,
    next: Instant,
    /// No hint brings `next` before this.
    not_before: Instant,
    /// Whether the look under way began before something asked for another one.
    again: bool,
    /// Whether something hinted at another look during the one under way.
    hinted: bool,
    running: bool,
}

impl Schedule {
    /// Returns a schedule in which every probe is due at once. `jitter` is the share of an interval, 0 to 0.5, by which looks may
    /// come early or late.
    pub fn new(intervals: impl IntoIterator<Item = (Probe, Duration)>, jitter: f64, now: Instant) -> Self {
        let entry = |(probe, interval)| Entry {
            probe,
            interval,
            next: now,
            not_before: now,
            again: false,
            hinted: false,
            running: false,
        };
        Self { entries: intervals.into_iter().map(entry).collect(), jitter: jitter.clamp(0.0, 0.5) }
    }

    /// Returns the probe of `lane` that has been due the longest at `now`. It counts as looking until [`Self::finished`].
    pub fn start_due(&mut self, lane: Lane, now: Instant) -> Option<Probe> {
        let idle = self.entries.iter_mut().filter(|entry| Lane::of(entry.probe) == lane && !entry.running);
        let entry = idle.filter(|entry| entry.next <= now).min_by_key(|entry| entry.next)?;
        entry.running = true;
        (entry.again, entry.hinted) = (false, false);
        Some(entry.probe)
    }

    /// Returns when a probe of `lane` will be due; `None` when all are looking.
    pub fn next_due(&self, lane: Lane) -> Option<Instant> {
        let idle = self.entries.iter().filter(|entry| Lane::of(entry.probe) == lane && !entry.running);
        idle.map(|entry| entry.next).min()
    }

    /// Takes note that a look of `probe` ended at `now` and took `cost`. `random` is in [0, 1).
    pub fn finished(&mut self, probe: Probe, now: Instant, cost: Duration, random: f64) {
        let jitter = self.jitter;
        let Some(entry) = self.entry(probe) else { return };
        entry.running = false;
        entry.not_before = now + FLOOR.max(cost.saturating_mul(COST_FACTOR)).min(entry.interval);
        entry.next = now + entry.interval.mul_f64(1.0 + jitter * (2.0 * random - 1.0));
        // The look may have passed what the hint was about.
        if std::mem::take(&mut entry.hinted) {
            entry.next = entry.next.min(entry.not_before);
        }
        if std::mem::take(&mut entry.again) {
            entry.next = now;
        }
    }

    /// Brings the next look of `probe` forward, as far as its floor allows.
    pub fn hint(&mut self, probe: Probe, now: Instant) {
        let Some(entry) = self.entry(probe) else { return };
        entry.hinted = entry.running;
        entry.next = entry.next.min(entry.not_before.max(now));
    }

    /// Makes every probe due, also one whose look is under way.
    pub fn look_now(&mut self, now: Instant) {
        for entry in &mut self.entries {
            entry.next = now;
            entry.again = entry.running;
        }
    }

    /// Sets the interval of `probe`. A look that would come later than the new interval allows is brought forward.
    pub fn set_interval(&mut self, probe: Probe, interval: Duration, now: Instant) {
        let Some(entry) = self.entry(probe) else { return };
        entry.interval = interval;
        entry.next = entry.next.min(now + interval);
    }

    fn entry(&mut self, probe: Probe) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.probe == probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn schedule(now: Instant) -> Schedule {
        Schedule::new([(Probe::Firewall, MINUTE), (Probe::System, 5 * MINUTE)], 0.1, now)
    }

    fn run_all(schedule: &mut Schedule, now: Instant) -> Vec<Probe> {
        let mut ran = Vec::new();
        while let Some(probe) = schedule.start_due(Lane::Quick, now) {
            schedule.finished(probe, now, Duration::ZERO, 0.5);
            ran.push(probe);
        }
        ran
    }

    #[test]
    fn every_probe_looks_at_the_start_and_then_at_its_interval() {
        let start = Instant::now();
        let mut schedule = schedule(start);
        assert_eq!(run_all(&mut schedule, start), [Probe::Firewall, Probe::System]);
        assert_eq!(schedule.next_due(Lane::Quick), Some(start + MINUTE));
        assert_eq!(run_all(&mut schedule, start + MINUTE - Duration::from_millis(1)), []);
        assert_eq!(run_all(&mut schedule, start + MINUTE), [Probe::Firewall]);
        assert_eq!(run_all(&mut schedule, start + 5 * MINUTE), [Probe::Firewall, Probe::System]);
    }

    #[test]
    fn jitter_stays_inside_its_share_of_the_interval() {
        let start = Instant::now();
        for (random, share) in [(0.0, 0.9), (0.5, 1.0), (0.999_999, 1.1)] {
            let mut schedule = Schedule::new([(Probe::Firewall, MINUTE)], 0.1, start);
            assert_eq!(schedule.start_due(Lane::Quick, start), Some(Probe::Firewall));
            schedule.finished(Probe::Firewall, start, Duration::ZERO, random);
            let due = schedule.next_due(Lane::Quick).unwrap() - start;
            assert!((due.as_secs_f64() - 60.0 * share).abs() < 0.01, "{random}: {due:?}");
        }
    }

    #[test]
    fn a_storm_of_hints_costs_one_look_for_each_floor() {
        let start = Instant::now();
        let mut schedule = schedule(start);
        run_all(&mut schedule, start);
        let mut looks = 0;
        for millisecond in 0..50_000 {
            let now = start + Duration::from_millis(millisecond);
            schedule.hint(Probe::Firewall, now);
            looks += run_all(&mut schedule, now).len();
        }
        assert_eq!(looks, 4);
    }

    #[test]
    fn a_costly_probe_waits_longer_for_its_next_hint_but_never_beyond_its_interval() {
        let start = Instant::now();
        let mut schedule = schedule(start);
        assert_eq!(schedule.start_due(Lane::Quick, start), Some(Probe::Firewall));
        schedule.finished(Probe::Firewall, start, Duration::from_millis(300), 0.5);
        schedule.hint(Probe::Firewall, start);
        assert_eq!(schedule.start_due(Lane::Quick, start).map(|_| ()), Some(()), "the other probe");
        assert_eq!(schedule.next_due(Lane::Quick), Some(start + Duration::from_secs(30)));

        let mut slow = Schedule::new([(Probe::Firewall, MINUTE)], 0.0, start);
        slow.start_due(Lane::Quick, start);
        slow.finished(Probe::Firewall, start, Duration::from_secs(20), 0.5);
        slow.hint(Probe::Firewall, start);
        assert_eq!(slow.next_due(Lane::Quick), Some(start + MINUTE));
    }

    #[test]
    fn a_hint_during_a_look_is_followed_after_it() {
        let start = Instant::now();
        let mut schedule = Schedule::new([(Probe::System, 60 * MINUTE)], 0.0, start);
        schedule.start_due(Lane::Quick, start);
        schedule.hint(Probe::System, start);
        schedule.finished(Probe::System, start, Duration::ZERO, 0.5);
        assert_eq!(schedule.next_due(Lane::Quick), Some(start + FLOOR));
        // Once.
        schedule.start_due(Lane::Quick, start + FLOOR);
        schedule.finished(Probe::System, start + FLOOR, Duration::ZERO, 0.5);
        assert_eq!(schedule.next_due(Lane::Quick), Some(start + FLOOR + 60 * MINUTE));
    }

    #[test]
    fn a_scan_keeps_no_other_look_waiting() {
        let start = Instant::now();
        let mut schedule = Schedule::new([(Probe::FileIntegrity, MINUTE), (Probe::Firewall, MINUTE)], 0.0, start);
        assert_eq!(schedule.start_due(Lane::Scan, start), Some(Probe::FileIntegrity));
        assert_eq!((schedule.start_due(Lane::Scan, start), schedule.next_due(Lane::Scan)), (None, None));
        assert_eq!(run_all(&mut schedule, start), [Probe::Firewall]);
        assert_eq!(run_all(&mut schedule, start + MINUTE), [Probe::Firewall]);
    }

    #[test]
    fn being_asked_ignores_the_floor_and_repeats_a_look_under_way() {
        let start = Instant::now();
        let mut schedule = schedule(start);
        assert_eq!(schedule.start_due(Lane::Quick, start), Some(Probe::Firewall));
        schedule.look_now(start);
        schedule.finished(Probe::Firewall, start, Duration::ZERO, 0.5);
        assert_eq!(run_all(&mut schedule, start), [Probe::Firewall, Probe::System]);
    }

    #[test]
    fn a_shorter_interval_brings_the_next_look_forward() {
        let start = Instant::now();
        let mut schedule = Schedule::new([(Probe::System, 60 * MINUTE)], 0.0, start);
        run_all(&mut schedule, start);
        schedule.set_interval(Probe::System, MINUTE, start);
        assert_eq!(schedule.next_due(Lane::Quick), Some(start + MINUTE));
    }
}
