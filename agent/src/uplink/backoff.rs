//! How long to wait before the next try. Pure.

use std::time::Duration;

/// The first wait is at most this.
const BASE: Duration = Duration::from_secs(1);
/// Every wait is at most this.
pub const CAP: Duration = Duration::from_secs(300);
/// A wait is never shorter, so that no luck makes a loop.
const FLOOR: Duration = Duration::from_millis(100);

/// Exponential back-off with full jitter: each wait is drawn evenly between nothing and a bound that doubles, so that agents which
/// lost one collector together do not come back together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Returns the wait after another failure. `random` is in [0, 1); `asked` is what the collector asked for, which is obeyed up to
    /// an hour.
    pub fn failed(&mut self, random: f64, asked: Option<Duration>) -> Duration {
        let bound = BASE.saturating_mul(1 << self.failures.min(16)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        let drawn = bound.mul_f64(random.clamp(0.0, 1.0)).max(FLOOR);
        match asked {
            // The jitter goes on top: everyone was told the same.
            Some(asked) => asked.min(Duration::from_secs(3_600)) + drawn,
            None => drawn,
        }
    }

    /// Takes note that the collector works: the next wait is short again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.failed(1.0, None).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        backoff.succeeded();
        assert_eq!(backoff.failed(1.0, None), BASE);
        for _ in 0..1_000 {
            assert!(backoff.failed(1.0, None) <= CAP);
        }
    }

    #[test]
    fn jitter_covers_the_whole_range_above_the_floor() {
        for (random, expected) in [(0.0, FLOOR), (0.5, Duration::from_millis(500)), (0.25, Duration::from_millis(250))]
        {
            assert_eq!(Backoff::default().failed(random, None), expected);
        }
    }

    #[test]
    fn what_the_collector_asks_for_is_obeyed_up_to_an_hour() {
        let wait = |seconds| Backoff::default().failed(0.5, Some(Duration::from_secs(seconds)));
        assert_eq!(wait(30), Duration::from_millis(30_500));
        assert_eq!(wait(1_000_000), Duration::from_millis(3_600_500));
    }
}
