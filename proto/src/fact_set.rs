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
    /// SHA-256 of each encoded fact, so that a small report does not cost a pass over a large set.
    digests: BTreeMap<Subject, [u8; 32]>,
    partial: Option<Partial<O>>,
}

/// A subject's fact under way in parts, so that a store can keep it between two reports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Partial<O> {
    /// Host's clock when the look that gave the fact ended.
    pub observed: Timestamp,
    /// SHA-256 of the whole encoded fact, as each part states.
    pub digest: Digest,
    /// Parts in all.
    pub count: u32,
    /// The parts so far, joined.
    pub bytes: Vec<u8>,
    /// Where each part so far came from.
    pub origins: Vec<O>,
}

impl<O> Default for FactSet<O> {
    fn default() -> Self {
        Self { facts: BTreeMap::new(), digests: BTreeMap::new(), partial: None }
    }
}

impl<O: Clone> FactSet<O> {
    /// Returns a set of known facts, as a store kept them.
    pub fn from_facts(facts: BTreeMap<Subject, Held<O>>) -> Self {
        Self::from_store(facts, None)
    }

    /// Returns a set of known facts with one under way in parts, as a store kept them.
    pub fn from_store(facts: BTreeMap<Subject, Held<O>>, partial: Option<Partial<O>>) -> Self {
        let digests = facts.iter().map(|(subject, held)| (*subject, Sha256::digest(&held.bytes).into())).collect();
        Self { facts, digests, partial }
    }

    /// Returns the fact under way in parts.
    pub fn partial(&self) -> Option<&Partial<O>> {
        self.partial.as_ref()
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
        let partial = self.partial.take().filter(|_| !report.resync);
        let (staged, partial) = stage(report, origin, partial)?;
        let mut digests = if report.resync { BTreeMap::new() } else { self.digests.clone() };
        digests.extend(staged.iter().map(|(subject, held)| (*subject, <[u8; 32]>::from(Sha256::digest(&held.bytes)))));
        if digest_of_digests(&digests) != report.fact_set_digest {
            return Err(Error::SetDigest);
        }
        if report.resync {
            self.facts.clear();
        }
        let changed = staged.iter().map(|(subject, _)| *subject).collect();
        self.facts.extend(staged);
        self.digests = digests;
        self.partial = partial;
        Ok(changed)
    }

    /// Returns the digest of the set.
    ///
    /// It is SHA-256 over [`DOMAIN`], a zero byte and, for each subject in order of its name: the length of the name (one
    /// byte), the name, and the SHA-256 of its encoded fact.
    pub fn digest(&self) -> Digest {
        digest_of_digests(&self.digests)
    }
}

/// What a report brings, in the order of the report, and what it leaves under way in parts.
type Staged<O> = (Vec<(Subject, Held<O>)>, Option<Partial<O>>);

/// Returns what a report brings, without looking at the set.
fn stage<O: Clone>(report: &Facts, origin: &O, partial: Option<Partial<O>>) -> Result<Staged<O>, Error> {
    let mut staged: Vec<(Subject, Held<O>)> = Vec::with_capacity(report.subjects.len());
    for subject in &report.subjects {
        let held = Held { observed: subject.observed, bytes: subject.fact.clone(), origins: vec![origin.clone()] };
        push(&mut staged, held)?;
    }
    let Some(part) = &report.part else {
        // The parts of a subject follow each other.
        return if partial.is_some() { Err(Error::Part) } else { Ok((staged, None)) };
    };
    match take_part(partial, part, origin)? {
        Taken::Whole(held) => {
            push(&mut staged, held)?;
            Ok((staged, None))
        }
        Taken::Partial(partial) => Ok((staged, Some(partial))),
    }
}

fn push<O>(staged: &mut Vec<(Subject, Held<O>)>, held: Held<O>) -> Result<(), Error> {
    let subject = Fact::decode(&held.bytes)?.subject();
    if staged.iter().any(|(other, _)| *other == subject) {
        return Err(Error::Twice(subject));
    }
    staged.push((subject, held));
    Ok(())
}

enum Taken<O> {
    Whole(Held<O>),
    Partial(Partial<O>),
}

/// Takes a part and returns the whole fact after the last one.
fn take_part<O: Clone>(partial: Option<Partial<O>>, part: &SubjectPart, origin: &O) -> Result<Taken<O>, Error> {
    let mut partial = match (partial, part.index) {
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
        return Ok(Taken::Partial(partial));
    }
    if Digest::of_bytes(&partial.bytes) != partial.digest {
        return Err(Error::PartDigest);
    }
    Ok(Taken::Whole(Held { observed: partial.observed, bytes: partial.bytes, origins: partial.origins }))
}

/// Returns the digest of a set of encoded facts, as [`FactSet::digest`] does. `facts` come in order of subject.
pub fn digest_of<'a>(facts: impl Iterator<Item = (Subject, &'a [u8])>) -> Digest {
    digest_of_digests(&facts.map(|(subject, bytes)| (subject, Sha256::digest(bytes).into())).collect())
}

/// Returns the digest of a set by the digests of its facts.
fn digest_of_digests(digests: &BTreeMap<Subject, [u8; 32]>) -> Digest {
    let mut hash = Sha256::new();
    hash.update(DOMAIN.as_bytes());
    hash.update([0]);
    for (subject, digest) in digests {
        let name = subject.as_str();
        hash.update([u8::try_from(name.len()).expect("a subject's name is short")]);
        hash.update(name.as_bytes());
        hash.update(digest);
    }
    Digest::new(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fact::{Cause, Reading, sample},
        report::{Coverage, SubjectFact},
    };

    #[test]
    fn facts_are_taken_when_the_digest_covers_the_whole_set() {
        let mut set = FactSet::default();
        let samples = sample::facts();
        let changed = set.apply(&report(&set, &samples), &1).unwrap();
        assert_eq!(changed, Subject::ALL);

        let firewall = sample::unknown(Subject::Firewall, Cause::Forbidden, "");
        let changed = set.apply(&report(&set, std::slice::from_ref(&firewall)), &2).unwrap();
        assert_eq!(changed, [Subject::Firewall]);
        assert_eq!(set.facts().len(), Subject::ALL.len());
        let held = &set.facts()[&Subject::Firewall];
        assert_eq!((held.bytes.as_slice(), held.origins.as_slice()), (firewall.encode().as_slice(), [2].as_slice()));
        assert_eq!(set.facts()[&Subject::System].origins, [1]);
    }

    #[test]
    fn the_digest_covers_each_subject_and_nothing_else() {
        let mut set: FactSet<()> = FactSet::default();
        assert_eq!(set.digest(), Digest::of(DOMAIN, &[]));
        let fact = Fact::Software(Reading::Known(sample::software()));
        set.apply(&report(&set, std::slice::from_ref(&fact)), &()).unwrap();
        let hash = Digest::of_bytes(&fact.encode());
        assert_eq!(set.digest(), Digest::of(DOMAIN, &[&[8], b"software", hash.as_bytes()]));
    }

    #[test]
    fn a_wrong_digest_leaves_the_set_as_before() {
        let mut set = FactSet::default();
        set.apply(&report(&set, &sample::facts()), &1).unwrap();
        let before = set.facts().clone();
        // A fact left out: the digest is of a set that lacks the second of the two.
        let mut wrong = report(&set, &[sample::unknown(Subject::Firewall, Cause::Absent, "")]);
        wrong.subjects.push(subject(&sample::unknown(Subject::System, Cause::Absent, "")));
        assert!(matches!(set.apply(&wrong, &2), Err(Error::SetDigest)));
        assert_eq!(set.facts(), &before);
    }

    #[test]
    fn a_subject_twice_or_a_foreign_fact_is_refused() {
        let mut set = FactSet::default();
        let fact = sample::unknown(Subject::System, Cause::Absent, "");
        assert!(matches!(set.apply(&report(&set, &[fact.clone(), fact]), &1), Err(Error::Twice(Subject::System))));
        let mut foreign = report(&set, &[]);
        foreign.subjects = vec![SubjectFact { observed: sample::time(0), fact: vec![0xff] }];
        assert!(matches!(set.apply(&foreign, &1), Err(Error::Fact(_))));
        assert!(set.facts().is_empty());
    }

    #[test]
    fn a_resync_empties_the_set_first() {
        let mut set = FactSet::default();
        set.apply(&report(&set, &sample::facts()), &1).unwrap();
        let fact = sample::unknown(Subject::System, Cause::Absent, "");
        let mut resync = report(&FactSet::<()>::default(), std::slice::from_ref(&fact));
        resync.resync = true;
        assert_eq!(set.apply(&resync, &2).unwrap(), [Subject::System]);
        assert_eq!(set.facts().keys().collect::<Vec<_>>(), [&Subject::System]);
    }

    #[test]
    fn a_fact_in_parts_replaces_the_one_before_only_when_whole() {
        let mut set = FactSet::default();
        set.apply(&report(&set, &sample::facts()), &0).unwrap();
        let fact = sample::unknown(Subject::Software, Cause::Limit, "too many packages");
        let before = set.facts()[&Subject::Software].clone();
        let parts = in_parts(&set, &fact, 3);
        for (n, part) in parts[..2].iter().enumerate() {
            assert_eq!(set.apply(part, &n).unwrap(), []);
            assert!(set.is_partial());
            assert_eq!(set.facts()[&Subject::Software], before);
        }
        assert_eq!(set.apply(&parts[2], &2).unwrap(), [Subject::Software]);
        assert!(!set.is_partial());
        let held = &set.facts()[&Subject::Software];
        assert_eq!((held.bytes.clone(), held.origins.clone()), (fact.encode(), vec![0, 1, 2]));
    }

    #[test]
    fn parts_out_of_order_mixed_or_damaged_are_refused_and_dropped() {
        let fact = sample::unknown(Subject::Software, Cause::Limit, "too many packages");
        let start = || {
            let mut set = FactSet::default();
            set.apply(&report(&set, &sample::facts()), &0).unwrap();
            set
        };
        let parts = in_parts(&start(), &fact, 3);
        let mut damaged = parts.clone();
        damaged[2].part.as_mut().unwrap().bytes[0] ^= 1;
        let mut another = parts.clone();
        another[1].part.as_mut().unwrap().digest = Digest::of_bytes(b"another");
        let between = report(&start(), &[]);
        let cases: [Vec<&Facts>; 6] = [
            vec![&parts[1]],
            vec![&parts[0], &parts[2]],
            vec![&parts[0], &parts[0]],
            vec![&parts[0], &parts[1], &damaged[2]],
            vec![&parts[0], &another[1]],
            vec![&parts[0], &between],
        ];
        for (case, reports) in cases.into_iter().enumerate() {
            let mut set = start();
            let (last, first) = reports.split_last().unwrap();
            for report in first {
                set.apply(report, &1).unwrap();
            }
            assert!(matches!(set.apply(last, &1), Err(Error::Part | Error::PartDigest)), "case {case}");
            assert!(!set.is_partial(), "case {case}");
            assert_eq!(set.facts(), start().facts(), "case {case}");
        }
    }

    #[test]
    fn parts_larger_than_a_fact_are_refused() {
        let mut set: FactSet<()> = FactSet::default();
        let mut first = report(&set, &[]);
        let part = SubjectPart {
            observed: sample::time(0),
            index: 0,
            count: 2,
            digest: Digest::of_bytes(b""),
            bytes: vec![0; limits::FACT_BYTES],
        };
        first.part = Some(part.clone());
        set.apply(&first, &()).unwrap();
        let mut second = report(&set, &[]);
        second.part = Some(SubjectPart { index: 1, bytes: vec![0], ..part });
        assert!(matches!(set.apply(&second, &()), Err(Error::TooLarge)));
    }

    fn subject(fact: &Fact) -> SubjectFact {
        SubjectFact { observed: sample::time(0), fact: fact.encode() }
    }

    /// Returns a report of `facts` whose digest is that of `set` with them.
    fn report<O: Clone>(set: &FactSet<O>, facts: &[Fact]) -> Facts {
        let mut after: BTreeMap<Subject, Vec<u8>> =
            set.facts().iter().map(|(subject, held)| (*subject, held.bytes.clone())).collect();
        after.extend(facts.iter().map(|fact| (fact.subject(), fact.encode())));
        Facts {
            subjects: facts.iter().map(subject).collect(),
            part: None,
            fact_set_digest: digest_of(after.iter().map(|(subject, bytes)| (*subject, bytes.as_slice()))),
            coverage: Coverage {
                start: sample::time(-60),
                end: sample::time(0),
                looks: Vec::new(),
                suspended_millis: 0,
                directive_ids: Vec::new(),
            },
            resync: false,
        }
    }

    /// Returns the reports that carry `fact` in `count` parts; the last has the digest of the set with the whole fact.
    fn in_parts<O: Clone>(set: &FactSet<O>, fact: &Fact, count: u32) -> Vec<Facts> {
        let bytes = fact.encode();
        let chunks: Vec<&[u8]> = bytes.chunks(bytes.len().div_ceil(count as usize)).collect();
        assert_eq!(chunks.len(), count as usize);
        let with_part = |(index, chunk): (usize, &&[u8])| {
            let index = u32::try_from(index).unwrap();
            let last = index + 1 == count;
            let mut report = report(set, if last { std::slice::from_ref(fact) } else { &[] });
            report.subjects.clear();
            report.part = Some(SubjectPart {
                observed: sample::time(0),
                index,
                count,
                digest: Digest::of_bytes(&bytes),
                bytes: chunk.to_vec(),
            });
            report
        };
        chunks.iter().enumerate().map(with_part).collect()
    }
}
