//! Chance that can be repeated: a seeded generator, its seed printed.

use std::time::Duration;

use super::now;

/// A seeded generator (splitmix64). Not for keys.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Returns the generator of the seed in `MUSTER_TEST_SEED`, or of a seed of its own, and prints the seed.
    pub fn printed(purpose: &str) -> Self {
        let seed = super::setting("MUSTER_TEST_SEED", now().micros().unsigned_abs());
        eprintln!("{purpose}: MUSTER_TEST_SEED={seed}");
        Self::of(seed)
    }

    /// Returns the generator of `seed`.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.number() % end }
    }

    /// Returns an index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// Returns a time from `least` to `most`.
    pub fn duration(&mut self, least: Duration, most: Duration) -> Duration {
        let spread = most.saturating_sub(least).as_micros();
        least + Duration::from_micros(self.below(u64::try_from(spread).expect("a short time") + 1))
    }

    /// Returns `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.number().to_be_bytes()[0]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_chance() {
        let (mut a, mut b) = (Random::of(7), Random::of(7));
        assert!((0..100).all(|_| a.number() == b.number()));
        assert!((0..1000).all(|_| a.below(3) < 3));
        let (least, most) = (Duration::from_millis(5), Duration::from_millis(9));
        assert!((0..1000).all(|_| (least..=most).contains(&a.duration(least, most))));
    }
}
