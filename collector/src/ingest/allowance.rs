//! How much one agent may ask of the collector, over all of its streams: bytes, streams and lookups. Pure: the instant is passed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::serve::rate::{Bucket, Pace};

/// Bytes that one agent may send: `burst` at once, and so many more each second.
#[derive(Clone, Copy, Debug)]
pub struct BytePace {
    /// Bytes at once.
    pub burst: u64,
    /// Bytes that are added each second, up to the burst.
    pub per_second: u64,
}

impl BytePace {
    fn time_of(self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.per_second.max(1) as f64)
    }
}

/// Bytes that an agent whose allowance was used up has again before it is read from; a report of any size fits.
const ENOUGH: u64 = 64 * 1024;

/// Bytes that a report counts for, at least: a small one is written, followed and judged like a large one.
const LEAST: u64 = 4 * 1024;

/// Returns what a sealed report of `bytes` counts for.
pub(super) fn counted(bytes: usize) -> u64 {
    (bytes as u64).max(LEAST)
}

/// What one agent has used of what it may.
#[derive(Debug)]
pub(super) struct Allowance {
    /// When all bytes are there again.
    bytes: Instant,
    hellos: Bucket,
    lookups: Bucket,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { bytes: now, hellos: Bucket::new(now), lookups: Bucket::new(now) }
    }

    /// Notes bytes that arrived. What is read at once may exceed what is left.
    pub(super) fn spend(&mut self, bytes: u64, pace: BytePace, now: Instant) {
        self.bytes = self.bytes.max(now) + pace.time_of(bytes);
    }

    /// Returns how long not to read, because all bytes are used up; zero while some are left.
    pub(super) fn pause(&self, pace: BytePace, now: Instant) -> Duration {
        let missing = self.bytes.saturating_duration_since(now);
        if missing < pace.time_of(pace.burst) {
            return Duration::ZERO;
        }
        missing - pace.time_of(pace.burst - ENOUGH.min(pace.burst / 2))
    }

    /// Counts a Hello.
    ///
    /// # Errors
    ///
    /// How long to wait, when there were too many; it is not counted then.
    pub(super) fn greet(&mut self, pace: Pace, now: Instant) -> Result<(), Duration> {
        take(&mut self.hellos, pace, now)
    }

    /// Counts a lookup in the log.
    ///
    /// # Errors
    ///
    /// As [`Self::greet`].
    pub(super) fn look_up(&mut self, pace: Pace, now: Instant) -> Result<(), Duration> {
        take(&mut self.lookups, pace, now)
    }
}

fn take(bucket: &mut Bucket, pace: Pace, now: Instant) -> Result<(), Duration> {
    let delay = bucket.delay(pace, now);
    if delay.is_zero() {
        bucket.take(pace, now);
        return Ok(());
    }
    Err(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_agent_has_its_burst_and_then_its_pace() {
        let pace = BytePace { burst: 1_000_000, per_second: 10_000 };
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        allowance.spend(999_999, pace, start);
        assert_eq!(allowance.pause(pace, start), Duration::ZERO, "a byte is left");
        allowance.spend(60_001, pace, start);
        // 60,000 too many, and 64 KiB before it goes on.
        let pause = allowance.pause(pace, start);
        assert_eq!(pause.as_millis(), 6_000 + 6_553);
        assert_eq!(allowance.pause(pace, start + pause), Duration::ZERO);
        let rested = start + 200 * SECOND;
        allowance.spend(999_999, pace, rested);
        assert_eq!(allowance.pause(pace, rested), Duration::ZERO, "no more than the burst is saved up, and no less");
    }

    #[test]
    fn a_small_report_counts_for_more_than_its_bytes() {
        let pace = BytePace { burst: 64 << 20, per_second: 32 << 10 };
        assert_eq!([0, 300, 4096, 61_440].map(counted), [4096, 4096, 4096, 61_440]);
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let sent = (0..100_000).take_while(|_| {
            allowance.spend(counted(300), pace, start);
            allowance.pause(pace, start).is_zero()
        });
        assert!((16_000..17_000).contains(&sent.count()));
    }

    #[test]
    fn each_thing_has_its_own_pace() {
        let pace = Pace { burst: 2, interval: SECOND };
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let hellos: Vec<_> = (0..3).map(|_| allowance.greet(pace, start)).collect();
        assert_eq!(hellos, [Ok(()), Ok(()), Err(SECOND)]);
        assert_eq!(allowance.look_up(pace, start), Ok(()));
        assert_eq!(allowance.greet(pace, start + SECOND), Ok(()));
    }
}
