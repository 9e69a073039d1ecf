//! Fact sets in memory, bounded in bytes; the least used go first and are read from the views when needed again.

use std::collections::{HashMap, HashSet};

use muster_proto::{fact_set::FactSet, id::AgentId};

use crate::views::{Batch, Error};

/// Bytes of facts that are kept, about.
const BYTES: usize = 128 * 1024 * 1024;

/// Fact sets by agent.
#[derive(Default)]
pub(super) struct Cache {
    sets: HashMap<AgentId, Cached>,
    bytes: usize,
    uses: u64,
    /// Agents whose fact under way in parts is newer than in the views.
    partial: HashSet<AgentId>,
    /// Agents whose facts about unknown subjects are newer than in the views.
    opaque: HashSet<AgentId>,
}

/// What of a set changed that the views get with the batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// The fact under way in parts.
    pub partial: bool,
    /// A fact about a subject that this build does not know.
    pub opaque: bool,
}

struct Cached {
    set: FactSet<u64>,
    bytes: usize,
    used: u64,
}

impl Cache {
    /// Returns the fact set of `agent`, read from the views if it is not in memory.
    pub fn get(&mut self, batch: &Batch<'_>, agent: AgentId) -> Result<&mut FactSet<u64>, Error> {
        self.uses += 1;
        if !self.sets.contains_key(&agent) {
            self.make_room();
            let (facts, opaque, partial) = batch.fact_set(agent)?;
            let set = FactSet::from_store(facts, opaque, partial);
            let bytes = bytes_of(&set);
            self.bytes += bytes;
            self.sets.insert(agent, Cached { set, bytes, used: 0 });
        }
        let cached = self.sets.get_mut(&agent).expect("it was just put there");
        cached.used = self.uses;
        Ok(&mut cached.set)
    }

    /// Takes note that the set of `agent` changed.
    pub fn changed(&mut self, agent: AgentId, changes: Changes) {
        if changes.partial {
            self.partial.insert(agent);
        }
        if changes.opaque {
            self.opaque.insert(agent);
        }
        if let Some(cached) = self.sets.get_mut(&agent) {
            self.bytes -= cached.bytes;
            cached.bytes = bytes_of(&cached.set);
            self.bytes += cached.bytes;
        }
    }

    /// Writes the facts under way in parts, and those about unknown subjects, that changed.
    pub fn flush(&mut self, batch: &Batch<'_>) -> Result<(), Error> {
        for agent in self.partial.drain() {
            if let Some(cached) = self.sets.get(&agent) {
                batch.put_partial(agent, cached.set.partial())?;
            }
        }
        for agent in self.opaque.drain() {
            if let Some(cached) = self.sets.get(&agent) {
                batch.put_opaque(agent, cached.set.opaque())?;
            }
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if self.bytes <= BYTES {
            return;
        }
        let is_written = |agent: &AgentId| !self.partial.contains(agent) && !self.opaque.contains(agent);
        let mut by_use: Vec<(u64, AgentId)> =
            self.sets.iter().filter(|(agent, _)| is_written(agent)).map(|(id, c)| (c.used, *id)).collect();
        by_use.sort_unstable();
        // A quarter at once, so that the scan is rare.
        for (_, agent) in by_use {
            if self.bytes <= BYTES / 4 * 3 {
                break;
            }
            if let Some(cached) = self.sets.remove(&agent) {
                self.bytes -= cached.bytes;
            }
        }
    }
}

fn bytes_of(set: &FactSet<u64>) -> usize {
    let all = set.facts().values().chain(set.opaque().values());
    let facts: usize = all.map(|held| held.bytes.len() + 128).sum();
    facts + set.partial().map_or(0, |partial| partial.bytes.len()) + 256
}
