//! The complete facts of one agent: what reports add to, what the digest in each report covers, and what is judged.
//!
//! Agent, collector and auditor keep the same set from the same reports, so that the digest proves that no fact was left out.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::{
    fact::{self, Fact, Subject},
    id::Digest,
    limits,
    report::{Facts, SubjectPart},
    time::Timestamp,
};

/// Domain of the digest of a fact set.
pub const DOMAIN: &str = "muster/fact-set/v1";

/// Reports do not make a fact set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A fact is not one of the contract.
    #[error("fact is not one of the contract")]
    Fact(#[from] fact::Error),
    /// A report names a subject twice.
    #[error("report has two facts about {0:?}")]
    Twice(Subject),
    /// A part does not follow the part before.
    #[error("part of a fact does not follow the part before")]
    Part,
    /// The parts are larger than a fact may be.
    #[error("fact in parts is too large")]
    TooLarge,
    /// The joined parts do not have the digest that each part states.
    #[error("joined parts do not have their digest")]
    PartDigest,
    /// The set does not have the digest that the report states.
    #[error("fact set does not have the digest that the report states")]
    SetDigest,
}

/// A fact in the set. `O` is what the holder keeps of its origin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held<O> {
    /// Host's clock when the look that gave this state first ended.
    pub observed: Timestamp,
    /// The exact encoded fact.
    pub bytes: Vec<u8>,
    /// Where it came from: for a fact in parts, one for each part, in order; else one.
    pub origins: Vec<O>,
}

/// The complete facts of one agent.
#[derive(Clone, Debug)]
pub struct FactSet<O> {
    facts: BTreeMap<Subject, Held<O>>,
    partial: Option<Partial<O>>,
}

#[derive(Clone, Debug)]
struct Partial<O> {
    observed: Timestamp,
    digest: Digest,
    count: u32,
    bytes: Vec<u8>,
    origins: Vec<O>,
}

impl<O> Default for FactSet<O> {
    fn default() -> Self {
        Self { facts: BTreeMap::new(), partial: None }
    }
}

impl<O: Clone> FactSet<O> {
    /// Returns a set of known facts, as a store kept them.
    pub fn from_facts(facts: BTreeMap<Subject, Held<O>>) -> Self {
        Self { facts, partial: None }
    }

    /// Returns the facts by subject.
    pub fn facts(&self) -> &BTreeMap<Subject, Held<O>> {
        &self.facts
    }

    /// Returns whether a subject is under way in parts.
    pub fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Takes a report's facts and returns the subjects that it changed. `origin` says where the report came from.
    ///
    /// # Errors
    ///
    /// When the facts do not fit the set. The set is then as before, with what was under way in parts dropped.
    pub fn apply(&mut self, report: &Facts, origin: &O) -> Result<Vec<Subject>, Error> {
        let before = std::mem::take(self);
        let mut next = if report.resync { Self::default() } else { before.clone() };
        match next.take(report, origin) {
            Ok(changed) => {
                *self = next;
                Ok(changed)
            }
            Err(error) => {
                *self = Self { facts: before.facts, partial: None };
                Err(error)
            }
        }
    }

    fn take(&mut self, report: &Facts, origin: &O) -> Result<Vec<Subject>, Error> {
        let mut changed = Vec::with_capacity(report.subjects.len());
        for subject in &report.subjects {
            let fact = Fact::decode(&subject.fact)?;
            if changed.contains(&fact.subject()) {
                return Err(Error::Twice(fact.subject()));
            }
            changed.push(fact.subject());
            let held = Held { observed: subject.observed, bytes: subject.fact.clone(), origins: vec![origin.clone()] };
            self.facts.insert(fact.subject(), held);
        }
        if let Some(part) = &report.part
            && let Some(held) = self.take_part(part, origin)?
        {
            let subject = Fact::decode(&held.bytes)?.subject();
            if changed.contains(&subject) {
                return Err(Error::Twice(subject));
            }
            changed.push(subject);
            self.facts.insert(subject, held);
        } else if report.part.is_none() && self.partial.is_some() {
            // The parts of a subject follow each other.
            return Err(Error::Part);
        }
        if self.digest() == report.fact_set_digest { Ok(changed) } else { Err(Error::SetDigest) }
    }

    /// Takes a part and returns the whole fact after the last one.
    fn take_part(&mut self, part: &SubjectPart, origin: &O) -> Result<Option<Held<O>>, Error> {
        let mut partial = match (self.partial.take(), part.index) {
            (None, 0) => Partial {
                observed: part.observed,
                digest: part.digest,
                count: part.count,
                bytes: Vec::new(),
                origins: Vec::new(),
            },
            (Some(partial), index)
                if index as usize == partial.origins.len()
                    && partial.count == part.count
                    && partial.digest == part.digest
                    && partial.observed == part.observed =>
            {
                partial
            }
            _ => return Err(Error::Part),
        };
        if partial.bytes.len() + part.bytes.len() > limits::FACT_BYTES {
            return Err(Error::TooLarge);
        }
        partial.bytes.extend_from_slice(&part.bytes);
        partial.origins.push(origin.clone());
        if part.index + 1 < part.count {
            self.partial = Some(partial);
            return Ok(None);
        }
        if Digest::of_bytes(&partial.bytes) != partial.digest {
            return Err(Error::PartDigest);
        }
        Ok(Some(Held { observed: partial.observed, bytes: partial.bytes, origins: partial.origins }))
    }

    /// Returns the digest of the set.
    ///
    /// It is SHA-256 over [`DOMAIN`], a zero byte and, for each subject in order of its name: the length of the name (one
    /// byte), the name, and the SHA-256 of its encoded fact.
    pub fn digest(&self) -> Digest {
        digest_of(self.facts.iter().map(|(subject, held)| (*subject, held.bytes.as_slice())))
    }
}

/// Returns the digest of a set of encoded facts, as [`FactSet::digest`] does. `facts` come in order of subject.
pub fn digest_of<'a>(facts: impl Iterator<Item = (Subject, &'a [u8])>) -> Digest {
    let mut hash = Sha256::new();
    hash.update(DOMAIN.as_bytes());
    hash.update([0]);
    for (subject, bytes) in facts {
        let name = subject.as_str();
        hash.update([u8::try_from(name.len()).expect("a subject's name is short")]);
        hash.update(name.as_bytes());
        hash.update(Sha256::digest(bytes));
    }
    Digest::new(hash.finalize().into())
}
