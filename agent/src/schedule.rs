//! Which probe is due at an instant, and why. Pure: instants come in, names of probes go out.
//!
//! Looks run one after the other, in two lanes: a scan of many files never keeps the short looks waiting. A hint brings
//! a look forward, but only as far as a bound on what hinted looks cost, so that a storm of events cannot make the
//! agent spin: a floor for the short looks, which a hint repeats as a whole, and budgets for the scan, whose hints name
//! the places to look at.

mod budget;

use std::time::Duration;

use muster_proto::report::Probe;
use tokio::time::Instant;

pub use budget::Budget;

/// Two short looks of one probe are never closer than this, unless someone asked for a look.
pub const FLOOR: Duration = Duration::from_secs(10);
/// After a short look, hints wait at least this many times as long as it took: at most one hundredth of a core goes
/// into them.
const COST_FACTOR: u32 = 100;
/// Hinted scans take at most one second in this many, once what they saved is spent.
const SCAN_ONE_IN: u32 = 50;
/// What scans of changed places save for a burst of changes.
const PARTS_SAVED: Duration = Duration::from_secs(2);
/// Less than this no scan of changed places costs, with what it takes to report it: in a flood there is one each
/// second.
const PART_COST: Duration = Duration::from_millis(20);
/// What hinted scans of everything save.
const WHOLES_SAVED: Duration = Duration::from_secs(1);
/// Less than this no hinted scan of everything costs: when notices are lost without end there is one every ten seconds.
const WHOLE_COST: Duration = Duration::from_millis(200);

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

/// Why a probe looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// Its interval is over, or the host has just begun to run.
    Due,
    /// Someone asked for a look that takes nothing for granted.
    Asked,
    /// Something changed that may be anything.
    Hinted,
    /// Something changed at places that are known.
    HintedAt,
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
    /// Whether `next` is because someone asked.
    asked: bool,
    /// Whether something hinted at a look since the last one began.
    hinted: bool,
    /// Whether something hinted at known places since the last look began.
    hinted_at: bool,
    limit: Limit,
    /// Whether the look under way began before something asked for another one.
    again: bool,
    running: Option<Why>,
}

/// What keeps hints from making a probe spin.
#[derive(Debug)]
enum Limit {
    /// No hint brings a look forward before this.
    Floor(Instant),
    /// What hinted scans of everything, and of places, may cost.
    Budgets { wholes: Budget, parts: Budget },
}

impl Limit {
    fn new(probe: Probe, now: Instant) -> Self {
        match Lane::of(probe) {
            Lane::Quick => Self::Floor(now),
            Lane::Scan => Self::Budgets {
                wholes: Budget::new(SCAN_ONE_IN, WHOLES_SAVED, now),
                parts: Budget::new(SCAN_ONE_IN, PARTS_SAVED, now),
            },
        }
    }

    /// Returns from when on a hint is followed.
    fn ready_at(&self, why: Why) -> Instant {
        match (self, why) {
            (Self::Floor(not_before), _) => *not_before,
            (Self::Budgets { parts, .. }, Why::HintedAt) => parts.ready_at(),
            (Self::Budgets { wholes, .. }, _) => wholes.ready_at(),
        }
    }

    fn spend(&mut self, why: Why, cost: Duration, now: Instant, interval: Duration) {
        match (self, why) {
            (Self::Floor(not_before), _) => {
                *not_before = now + FLOOR.max(cost.saturating_mul(COST_FACTOR)).min(interval);
            }
            (Self::Budgets { wholes, .. }, Why::Hinted) => wholes.spend(cost.max(WHOLE_COST), now),
            (Self::Budgets { parts, .. }, Why::HintedAt) => parts.spend(cost.max(PART_COST), now),
            // What its interval or a person wants is not what hints cost.
            (Self::Budgets { .. }, Why::Due | Why::Asked) => {}
        }
    }
}

impl Entry {
    /// Returns when it is due, and why: of several reasons the one that makes it look at most.
    fn due(&self) -> (Instant, Why) {
        let own = (self.next, if self.asked { Why::Asked } else { Why::Due });
        let hints = [(self.hinted, Why::Hinted), (self.hinted_at, Why::HintedAt)];
        let hints = hints.into_iter().filter(|(is_hinted, _)| *is_hinted);
        let hints = hints.map(|(_, why)| (self.limit.ready_at(why), why));
        hints.fold(own, |first, hint| if hint.0 < first.0 { hint } else { first })
    }

    /// Returns why it looks at `now`, when it is due at all.
    fn why(&self, now: Instant) -> Option<Why> {
        let (due, why) = self.due();
        if due > now {
            return None;
        }
        let is_whole_ready = self.hinted && self.limit.ready_at(Why::Hinted) <= now;
        match why {
            _ if self.next <= now => Some(if self.asked { Why::Asked } else { Why::Due }),
            Why::HintedAt if is_whole_ready => Some(Why::Hinted),
            why => Some(why),
        }
    }
}

impl Schedule {
    /// Returns a schedule in which every probe is due at once. `jitter` is the share of an interval, 0 to 0.5, by which
    /// looks may come early or late.
    pub fn new(intervals: impl IntoIterator<Item = (Probe, Duration)>, jitter: f64, now: Instant) -> Self {
        let entry = |(probe, interval)| Entry {
            probe,
            interval,
            next: now,
            asked: false,
            hinted: false,
            hinted_at: false,
            limit: Limit::new(probe, now),
            again: false,
            running: None,
        };
        Self { entries: intervals.into_iter().map(entry).collect(), jitter: jitter.clamp(0.0, 0.5) }
    }

    /// Returns the probe of `lane` that has been due the longest at `now`, and why. It counts as looking until
    /// [`Self::finished`].
    pub fn start_due(&mut self, lane: Lane, now: Instant) -> Option<(Probe, Why)> {
        let idle = self.entries.iter_mut().filter(|entry| Lane::of(entry.probe) == lane && entry.running.is_none());
        let entry = idle.filter(|entry| entry.due().0 <= now).min_by_key(|entry| entry.due().0)?;
        let why = entry.why(now)?;
        entry.running = Some(why);
        entry.hinted_at = false;
        if why != Why::HintedAt {
            (entry.hinted, entry.asked, entry.again) = (false, false, false);
        }
        Some((entry.probe, why))
    }

    /// Returns when a probe of `lane` will be due; `None` when all are looking.
    pub fn next_due(&self, lane: Lane) -> Option<Instant> {
        let idle = self.entries.iter().filter(|entry| Lane::of(entry.probe) == lane && entry.running.is_none());
        idle.map(|entry| entry.due().0).min()
    }

    /// Takes note that a look of `probe` ended at `now` and took `cost`. `random` is in [0, 1).
    pub fn finished(&mut self, probe: Probe, now: Instant, cost: Duration, random: f64) {
        let jitter = self.jitter;
        let Some(entry) = self.entry(probe) else { return };
        let Some(why) = entry.running.take() else { return };
        entry.limit.spend(why, cost, now, entry.interval);
        // What looks at some places only does not replace the look at all of them.
        if why != Why::HintedAt {
            entry.next = now + entry.interval.mul_f64(1.0 + jitter * (2.0 * random - 1.0));
        }
        if std::mem::take(&mut entry.again) {
            entry.next = now;
        }
    }

    /// Brings the next look of `probe` forward, as far as what hints may cost allows.
    pub fn hint(&mut self, probe: Probe) {
        // During a look: it may have passed what the hint is about.
        if let Some(entry) = self.entry(probe) {
            entry.hinted = true;
        }
    }

    /// Brings a look of `probe` at known places forward, as far as what hints may cost allows.
    pub fn hint_at(&mut self, probe: Probe) {
        if let Some(entry) = self.entry(probe) {
            entry.hinted_at = true;
        }
    }

    /// Makes every probe due, also one whose look is under way. `is_asked` when someone wants looks that take nothing
    /// for granted.
    pub fn look_now(&mut self, now: Instant, is_asked: bool) {
        for entry in &mut self.entries {
            entry.next = now;
            entry.asked |= is_asked;
            entry.again = entry.running.is_some();
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
        while let Some((probe, _)) = schedule.start_due(Lane::Quick, now) {
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
            assert_eq!(schedule.start_due(Lane::Quick, start), Some((Probe::Firewall, Why::Due)));
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
            schedule.hint(Probe::Firewall);
            looks += run_all(&mut schedule, now).len();
        }
        assert_eq!(looks, 4);
    }

    #[test]
    fn a_costly_probe_waits_longer_for_its_next_hint_but_never_beyond_its_interval() {
        let start = Instant::now();
        let mut schedule = schedule(start);
        assert_eq!(schedule.start_due(Lane::Quick, start), Some((Probe::Firewall, Why::Due)));
        schedule.finished(Probe::Firewall, start, Duration::from_millis(300), 0.5);
        schedule.hint(Probe::Firewall);
        assert_eq!(schedule.start_due(Lane::Quick, start).map(|_| ()), Some(()), "the other probe");
        assert_eq!(schedule.next_due(Lane::Quick), Some(start + Duration::from_secs(30)));

        let mut slow = Schedule::new([(Probe::Firewall, MINUTE)], 0.0, start);
        slow.start_due(Lane::Quick, start);
        slow.finished(Probe::Firewall, start, Duration::from_secs(20), 0.5);
        slow.hint(Probe::Firewall);
        assert_eq!(slow.next_due(Lane::Quick), Some(start + MINUTE));
    }

    #[test]
    fn a_hint_during_a_look_is_followed_after_it() {
        let start = Instant::now();
        let mut schedule = Schedule::new([(Probe::System, 60 * MINUTE)], 0.0, start);
        schedule.start_due(Lane::Quick, start);
        schedule.hint(Probe::System);
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
        assert_eq!(schedule.start_due(Lane::Scan, start), Some((Probe::FileIntegrity, Why::Due)));
        assert_eq!((schedule.start_due(Lane::Scan, start), schedule.next_due(Lane::Scan)), (None, None));
        assert_eq!(run_all(&mut schedule, start), [Probe::Firewall]);
        assert_eq!(run_all(&mut schedule, start + MINUTE), [Probe::Firewall]);
    }

    #[test]
    fn being_asked_ignores_the_floor_and_repeats_a_look_under_way() {
        let start = Instant::now();
        let mut schedule = schedule(start);
        assert_eq!(schedule.start_due(Lane::Quick, start), Some((Probe::Firewall, Why::Due)));
        schedule.look_now(start, false);
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

    /// Lets the scan run whenever it is due until `end`, each for `cost`, and returns how often it ran and why.
    fn scans(schedule: &mut Schedule, mut now: Instant, end: Instant, cost: Duration) -> (usize, Vec<Why>) {
        let mut whys = Vec::new();
        while let Some(due) = schedule.next_due(Lane::Scan).filter(|due| *due <= end) {
            now = now.max(due);
            let (probe, why) = schedule.start_due(Lane::Scan, now).unwrap();
            now += cost;
            // The storm goes on.
            schedule.hint_at(Probe::FileIntegrity);
            schedule.finished(probe, now, cost, 0.5);
            whys.push(why);
        }
        (whys.len(), whys)
    }

    fn scanned_once(start: Instant) -> Schedule {
        let mut schedule = Schedule::new([(Probe::FileIntegrity, 60 * MINUTE)], 0.0, start);
        assert_eq!(schedule.start_due(Lane::Scan, start), Some((Probe::FileIntegrity, Why::Due)));
        schedule.finished(Probe::FileIntegrity, start, 10 * MINUTE, 0.5);
        schedule
    }

    #[test]
    fn the_first_hinted_scans_start_at_once_whatever_the_scan_of_everything_cost() {
        let start = Instant::now() + 24 * 60 * MINUTE;
        let mut schedule = scanned_once(start);
        for at in 0..10 {
            let now = start + Duration::from_millis(300 * at);
            schedule.hint_at(Probe::FileIntegrity);
            assert_eq!(schedule.start_due(Lane::Scan, now), Some((Probe::FileIntegrity, Why::HintedAt)), "{at}");
            schedule.finished(Probe::FileIntegrity, now, Duration::from_millis(30), 0.5);
        }
        assert_eq!(schedule.next_due(Lane::Scan), Some(start + 60 * MINUTE), "the interval goes on");
    }

    #[test]
    fn a_storm_of_notices_costs_a_fiftieth_of_the_time() {
        let start = Instant::now() + 24 * 60 * MINUTE;
        for (cost, most) in [(1, 2 * 60 + 102), (100, 2 * 60 / 5 + 22)] {
            let mut schedule = scanned_once(start);
            schedule.hint_at(Probe::FileIntegrity);
            let (count, _) = scans(&mut schedule, start, start + 2 * MINUTE, Duration::from_millis(cost));
            assert!(count <= most && count * 10 > most * 8, "{cost} ms: {count} scans, at most {most}");
        }
    }

    #[test]
    fn lost_notices_make_everything_looked_at_and_do_not_keep_places_waiting() {
        let start = Instant::now() + 24 * 60 * MINUTE;
        let mut schedule = scanned_once(start);
        let mut now = start;
        for _ in 0..3 {
            schedule.hint(Probe::FileIntegrity);
            schedule.hint_at(Probe::FileIntegrity);
            now = now.max(schedule.next_due(Lane::Scan).unwrap());
            if schedule.start_due(Lane::Scan, now) == Some((Probe::FileIntegrity, Why::Hinted)) {
                now += 5 * MINUTE / 60;
                schedule.finished(Probe::FileIntegrity, now, Duration::from_secs(5), 0.5);
            } else {
                schedule.finished(Probe::FileIntegrity, now, Duration::ZERO, 0.5);
            }
        }
        assert!(now < start + MINUTE / 4, "{:?}", now - start);
        // What was lost is still to be looked at, once the budget allows.
        let (_, whys) = scans(&mut schedule, now, start + 10 * MINUTE, Duration::ZERO);
        assert_eq!(whys.iter().filter(|why| **why == Why::Hinted).count(), 1);
    }

    #[test]
    fn who_asks_gets_a_look_that_takes_nothing_for_granted() {
        let start = Instant::now();
        let mut schedule = scanned_once(start);
        schedule.hint_at(Probe::FileIntegrity);
        assert_eq!(schedule.start_due(Lane::Scan, start), Some((Probe::FileIntegrity, Why::HintedAt)));
        schedule.look_now(start, true);
        schedule.finished(Probe::FileIntegrity, start, Duration::ZERO, 0.5);
        assert_eq!(schedule.start_due(Lane::Scan, start), Some((Probe::FileIntegrity, Why::Asked)));
        schedule.look_now(start, false);
        schedule.finished(Probe::FileIntegrity, start, Duration::ZERO, 0.5);
        assert_eq!(schedule.start_due(Lane::Scan, start), Some((Probe::FileIntegrity, Why::Due)));
    }
}
