//! Counts reads for the evidence log: who called what, how often answered and refused. It never waits and never forgets; somebody
//! else writes the entry.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use muster_proto::{caller::Caller, v1};
use tokio::sync::Notify;

/// Counts that one entry holds, at most: a count has at most 256 bytes, an entry 65535.
const COUNTS_PER_ENTRY: usize = 200;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Count {
    answered: u64,
    refused: u64,
}

type Key = (Caller, &'static str);

/// Counts since they were last taken; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Access(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counts: Mutex<BTreeMap<Key, Count>>,
    filled: Notify,
}

/// Counts that were taken and fit into one entry.
#[derive(Debug)]
pub struct Taken(Vec<(Key, Count)>);

impl Taken {
    /// Returns the entry that holds them.
    pub fn summary(&self) -> v1::AccessSummary {
        let count = |((caller, method), count): &(Key, Count)| v1::AccessCount {
            actor: caller.to_string(),
            method: (*method).to_owned(),
            answered: count.answered,
            refused: count.refused,
        };
        v1::AccessSummary { counts: self.0.iter().map(count).collect() }
    }
}

impl Access {
    /// Counts a call of `method`, a row of the table of roles.
    pub fn count(&self, caller: &Caller, method: &'static str, was_answered: bool) {
        let (answered, refused) = if was_answered { (1, 0) } else { (0, 1) };
        self.add([((caller.clone(), method), Count { answered, refused })]);
    }

    /// Waits until there is something to take, since this was last awaited.
    pub async fn filled(&self) {
        self.0.filled.notified().await;
    }

    /// Takes the counts in parts that each fit into an entry of the log; none when nobody called.
    pub fn take(&self) -> Vec<Taken> {
        let counts = std::mem::take(&mut *self.0.counts.lock().unwrap_or_else(PoisonError::into_inner));
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_cached_key(|((caller, method), _)| (caller.to_string(), *method));
        let mut parts = Vec::new();
        while !counts.is_empty() {
            let rest = counts.split_off(counts.len().min(COUNTS_PER_ENTRY));
            parts.push(Taken(std::mem::replace(&mut counts, rest)));
        }
        parts
    }

    /// Puts back what was taken and has no entry.
    pub fn give_back(&self, taken: Taken) {
        self.add(taken.0);
    }

    fn add(&self, added: impl IntoIterator<Item = (Key, Count)>) {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = counts.is_empty();
        for (key, added) in added {
            let count = counts.entry(key).or_default();
            count.answered += added.answered;
            count.refused += added.refused;
        }
        if was_empty {
            self.0.filled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::{caller, limits};
    use prost::Message as _;

    use super::*;

    #[test]
    fn counts_come_out_sorted_once_and_fit_into_entries() {
        let access = Access::default();
        let long = "x".repeat(64);
        for number in 0..30 {
            let name = format!("{number:02}{}", "n".repeat(62));
            let caller = Caller::new(&long, caller::Role::Operator, &name).unwrap();
            for (method, _) in caller::ALLOWED {
                access.count(&caller, method, true);
                access.count(&caller, method, false);
                access.count(&caller, method, false);
            }
        }
        // What found no entry is counted on.
        let taken = access.take();
        let first = taken[0].summary();
        taken.into_iter().for_each(|taken| access.give_back(taken));
        let entries: Vec<_> = access.take().iter().map(Taken::summary).collect();
        assert_eq!(entries[0], first);
        assert!(entries.iter().all(|entry| entry.encoded_len() < limits::ENTRY_BYTES - 64));
        let counts: Vec<_> = entries.into_iter().flat_map(|entry| entry.counts).collect();
        assert_eq!(counts.len(), 30 * caller::ALLOWED.len());
        assert!(counts.is_sorted_by_key(|count| (count.actor.clone(), count.method.clone())));
        assert!(counts.iter().all(|count| (count.answered, count.refused) == (1, 2)));
        assert!(access.take().is_empty());
    }

    #[tokio::test]
    async fn the_first_count_and_what_is_given_back_wake_who_writes_them() {
        use futures_util::FutureExt as _;
        let access = Access::default();
        assert!(access.filled().now_or_never().is_none());
        let caller = Caller::new("c1", caller::Role::Operator, "ann").unwrap();
        access.count(&caller, caller::ALLOWED[0].0, true);
        access.count(&caller, caller::ALLOWED[0].0, true);
        access.filled().await;
        let taken = access.take().pop().unwrap();
        assert!(access.filled().now_or_never().is_none());
        access.give_back(taken);
        access.filled().await;
        assert_eq!(access.take()[0].summary().counts[0].answered, 2);
    }
}
