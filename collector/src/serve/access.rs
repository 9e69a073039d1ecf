//! Counts reads for the evidence log: who called what, how often answered and refused. It never waits and never forgets; somebody
//! else writes the entry.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use muster_proto::{caller::Caller, v1};

/// Counts that one entry holds, at most: a count has at most 256 bytes, an entry 65535.
const COUNTS_PER_ENTRY: usize = 200;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Count {
    answered: u64,
    refused: u64,
}

/// Counts since they were last taken; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Access(Arc<Mutex<BTreeMap<(Caller, &'static str), Count>>>);

impl Access {
    /// Counts a call of `method`, a row of the table of roles.
    pub fn count(&self, caller: &Caller, method: &'static str, was_answered: bool) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((caller.clone(), method)).or_default();
        if was_answered {
            count.answered += 1;
        } else {
            count.refused += 1;
        }
    }

    /// Takes the counts as entries that each fit into the log; none when nobody called.
    pub fn take(&self) -> Vec<v1::AccessSummary> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut counts: Vec<_> = counts
            .into_iter()
            .map(|((caller, method), count)| v1::AccessCount {
                actor: caller.to_string(),
                method: method.to_owned(),
                answered: count.answered,
                refused: count.refused,
            })
            .collect();
        counts.sort_by(|a, b| (&a.actor, &a.method).cmp(&(&b.actor, &b.method)));
        counts.chunks(COUNTS_PER_ENTRY).map(|chunk| v1::AccessSummary { counts: chunk.to_vec() }).collect()
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
        let entries = access.take();
        assert!(entries.iter().all(|entry| entry.encoded_len() < limits::ENTRY_BYTES - 64));
        let counts: Vec<_> = entries.into_iter().flat_map(|entry| entry.counts).collect();
        assert_eq!(counts.len(), 30 * caller::ALLOWED.len());
        assert!(counts.is_sorted_by_key(|count| (count.actor.clone(), count.method.clone())));
        assert!(counts.iter().all(|count| (count.answered, count.refused) == (1, 2)));
        assert!(access.take().is_empty());
    }
}
