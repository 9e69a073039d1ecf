//! How much may be spent on what is only hinted at: a share of all time, saved up to a bound. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// A share of all time that may be spent. What is not spent is saved, up to a bound, so that the first few go through
/// at once.
#[derive(Clone, Debug)]
pub struct Budget {
    /// One second is earned in this many.
    one_in: u32,
    /// What is saved at most.
    most: Duration,
    /// When it will be, or was, at nothing: what lies between then and now is saved.
    empty_at: Instant,
}

impl Budget {
    /// Returns a full budget that earns one second in `one_in` and saves at most `most`.
    pub fn new(one_in: u32, most: Duration, now: Instant) -> Self {
        let mut budget = Self { one_in, most, empty_at: now };
        budget.empty_at = budget.full_at(now);
        budget
    }

    /// Takes note that `cost` was spent by `now`, which may be more than there was.
    pub fn spend(&mut self, cost: Duration, now: Instant) {
        let earned_in = cost.saturating_mul(self.one_in);
        let from = self.empty_at.max(self.full_at(now));
        // A day's debt is as good as any: what is due by its interval asks no budget.
        self.empty_at = (from + earned_in.min(DAY)).min(now + DAY);
    }

    /// Returns from when on something may be spent.
    pub fn ready_at(&self) -> Instant {
        self.empty_at
    }

    /// Returns where nothing is saved when it is full at `now`.
    fn full_at(&self, now: Instant) -> Instant {
        now.checked_sub(self.most.saturating_mul(self.one_in)).unwrap_or(self.empty_at.min(now))
    }
}

const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        // Late enough after the clock's own beginning that a full budget has room before it.
        Instant::now() + DAY
    }

    #[test]
    fn what_was_saved_goes_through_at_once_and_then_a_share_of_the_time() {
        let start = start();
        let mut budget = Budget::new(50, 2 * SECOND, start);
        let (mut now, mut at_once) = (start, 0);
        let mut spent = Duration::ZERO;
        while now < start + 1_000 * SECOND {
            now = now.max(budget.ready_at());
            budget.spend(SECOND / 10, now);
            spent += SECOND / 10;
            at_once += u32::from(now == start);
        }
        assert_eq!(at_once, 21, "2 s by tenths, and one that makes the debt");
        assert!((spent.as_secs_f64() - 22.0).abs() < 0.5, "2 s, and a fiftieth of 1000 s: {spent:?}");
    }

    #[test]
    fn savings_and_debts_have_bounds() {
        let start = start();
        let mut budget = Budget::new(50, SECOND, start);
        let later = start + 10 * DAY;
        budget.spend(SECOND, later);
        assert_eq!(budget.ready_at(), later, "ten days save no more than the bound");
        budget.spend(Duration::MAX, later);
        assert_eq!(budget.ready_at(), later + DAY);
    }
}
