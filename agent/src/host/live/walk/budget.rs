//! How many bytes may be read when: one allowance for all readers of a walk.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Longest sleep before what may end the walk is looked at again.
const SLEEP: Duration = Duration::from_millis(50);
/// Part of a second whose bytes may be read at once after a pause.
const BURST_PART: u64 = 8;

/// An allowance of bytes in a second; 0 is without limit.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_per_second: u64,
    bucket: Mutex<Bucket>,
}

impl Budget {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, bucket: Mutex::new(Bucket::new(bytes_per_second, Instant::now())) }
    }

    /// Waits until `bytes` may be read. `tick` is called while it waits, and its error ends the waiting.
    pub(super) fn wait(&self, bytes: u64, tick: impl Fn() -> io::Result<()>) -> io::Result<()> {
        if self.bytes_per_second == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let wait = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now, bytes);
        let until = now + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SLEEP));
            tick()?;
        }
    }
}

/// Bytes that may be read now, and those that were promised already.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: u64,
    /// When every promise is kept: what is taken next waits until then. In the past, as far as a burst goes.
    kept: Instant,
}

impl Bucket {
    fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), kept: now }
    }

    /// Promises `bytes` and returns how long to wait for them.
    fn take(&mut self, now: Instant, bytes: u64) -> Duration {
        let burst = Duration::from_secs(1) / u32::try_from(BURST_PART).unwrap_or(1);
        let oldest = now.checked_sub(burst).unwrap_or(now);
        self.kept = self.kept.max(oldest);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        self.kept += Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(Duration::from_secs(86_400));
        self.kept.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_allowance_is_read_in_any_time() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1000, start);
        let mut now = start;
        let mut bytes = 0;
        for _ in 0..100 {
            now += bucket.take(now, 250);
            bytes += 250;
            let allowed = (now - start).as_millis() + 1000 / u128::from(BURST_PART);
            assert!(bytes <= allowed, "{bytes} bytes after {:?}", now - start);
        }
        assert_eq!(now - start, Duration::from_secs(25), "and no less");
    }

    #[test]
    fn a_pause_saves_an_eighth_of_a_second_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(8000, start);
        let later = start + Duration::from_secs(3600);
        assert_eq!(bucket.take(later, 1000), Duration::ZERO);
        assert_eq!(bucket.take(later, 8), Duration::from_millis(1));
        assert_eq!(bucket.take(later, 8), Duration::from_millis(2), "readers wait one after the other");
    }

    #[test]
    fn waiting_ends_when_the_walk_does() {
        let budget = Budget::new(1);
        let over = || Err(io::ErrorKind::TimedOut.into());
        assert_eq!(budget.wait(1_000_000, over).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
