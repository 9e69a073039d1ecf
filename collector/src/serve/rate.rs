//! Token buckets by key, such as an address, and in all, for attempts and for log lines. Pure: the instant is passed in.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// Keys that are told apart, at most; beyond that all others share the total alone.
const KEYS: usize = 4096;

/// How often something may happen: `burst` at once, and one more each `interval`.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How many at once.
    pub burst: u32,
    /// Time for one more.
    pub interval: Duration,
}

/// A bucket as the instant when it will be full again.
#[derive(Clone, Copy, Debug)]
pub struct Bucket(Instant);

impl Bucket {
    /// Returns a bucket that is full at `now`.
    pub fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Returns how long to wait before one more; zero when it may happen at `now`.
    pub fn delay(self, pace: Pace, now: Instant) -> Duration {
        let room = pace.interval * (pace.burst - 1);
        self.0.saturating_duration_since(now).saturating_sub(room)
    }

    /// Counts one.
    pub fn take(&mut self, pace: Pace, now: Instant) {
        self.0 = self.0.max(now) + pace.interval;
    }
}

/// Counts by key and in all.
#[derive(Debug)]
pub struct Rate<K> {
    each: Pace,
    all: Pace,
    keys: HashMap<K, Bucket>,
    total: Bucket,
}

impl<K: Clone + Eq + Hash> Rate<K> {
    /// Returns a rate of `each` for a key and `all` for all together.
    pub fn new(each: Pace, all: Pace, now: Instant) -> Self {
        Self { each, all, keys: HashMap::new(), total: Bucket(now) }
    }

    /// Counts one of `key`.
    ///
    /// # Errors
    ///
    /// How long to wait, when it is too many; it is not counted then.
    pub fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        let delay = self.delay(key, now).max(self.total.delay(self.all, now));
        if !delay.is_zero() {
            return Err(delay);
        }
        self.total.take(self.all, now);
        if self.keys.len() >= KEYS && !self.keys.contains_key(key) {
            self.keys.retain(|_, bucket| bucket.0 > now);
        }
        if self.keys.len() < KEYS || self.keys.contains_key(key) {
            self.keys.entry(key.clone()).or_insert(Bucket(now)).take(self.each, now);
        }
        Ok(())
    }

    /// Returns how long `key` alone would have to wait; zero when it need not.
    pub fn delay(&self, key: &K, now: Instant) -> Duration {
        self.keys.get(key).map_or(Duration::ZERO, |bucket| bucket.delay(self.each, now))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn an_address_gets_its_burst_and_then_its_pace() {
        let start = Instant::now();
        let mut rate = Rate::new(Pace { burst: 3, interval: SECOND }, Pace { burst: 100, interval: SECOND }, start);
        for _ in 0..3 {
            assert_eq!(rate.take(&address(1), start), Ok(()));
        }
        assert_eq!(rate.take(&address(1), start), Err(SECOND));
        assert_eq!(rate.take(&address(2), start), Ok(()), "another address does not wait");
        assert_eq!(rate.take(&address(1), start + SECOND), Ok(()));
        assert_eq!(rate.take(&address(1), start + SECOND), Err(SECOND));
    }

    #[test]
    fn many_addresses_share_the_total_and_a_bounded_memory() {
        let start = Instant::now();
        let all = Pace { burst: 10_000, interval: Duration::from_millis(1) };
        let mut rate = Rate::new(Pace { burst: 1, interval: SECOND }, all, start);
        let taken = (0..20_000).filter(|number| rate.take(&address(*number), start).is_ok()).count();
        assert_eq!(taken, 10_000);
        assert!(rate.keys.len() <= KEYS);
    }
}
