//! The complete facts of one agent: what reports add to, what the digest in each report covers, and what is judged.
//!
//! Agent, collector and auditor keep the same set from the same reports, so that the digest proves that no fact was left out. A
//! fact that a newer agent knows and this build does not is held by its bytes, so that the digest still covers it.

mod number;

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::{
    fact::{self, Fact, Subject},
    id::Digest,
    limits,
    report::{Facts, SubjectPart},
    time::Timestamp,
};

pub use number::Number;

/// Domain of the digest of a fact set.
pub const DOMAIN: &str = "muster/fact-set/v1";

/// Reports do not make a fact set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A fact is not one of the contract.
    #[error("fact is not one of the contract")]
    Fact(#[from] fact::Error),
    /// A report names a subject twice.
    #[error("report has two facts of number {0}")]
    Twice(Number),
    /// The set is empty, as at the beginning of an epoch, and the report adds to it.
    #[error("first facts do not empty the fact set")]
    NoResync,
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
    /// Facts about subjects that this build does not know.
    opaque: BTreeMap<Number, Held<O>>,
    /// SHA-256 of each encoded fact, so that a small report does not cost a pass over a large set.
    digests: BTreeMap<Number, [u8; 32]>,
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
        Self { facts: BTreeMap::new(), opaque: BTreeMap::new(), digests: BTreeMap::new(), partial: None }
    }
}

impl<O: Clone> FactSet<O> {
    /// Returns a set of known facts, as a store kept them.
    pub fn from_facts(facts: BTreeMap<Subject, Held<O>>) -> Self {
        Self::from_store(facts, BTreeMap::new(), None)
    }

    /// Returns a set of facts, those about subjects that this build does not know, and one under way in parts, as a store kept
    /// them.
    pub fn from_store(
        facts: BTreeMap<Subject, Held<O>>,
        opaque: BTreeMap<Number, Held<O>>,
        partial: Option<Partial<O>>,
    ) -> Self {
        let known = facts.iter().map(|(subject, held)| (Number::of(*subject), held));
        let all = known.chain(opaque.iter().map(|(number, held)| (*number, held)));
        let digests = all.map(|(number, held)| (number, sha256(&held.bytes))).collect();
        Self { facts, opaque, digests, partial }
    }

    /// Returns the fact under way in parts.
    pub fn partial(&self) -> Option<&Partial<O>> {
        self.partial.as_ref()
    }

    /// Returns the facts by subject.
    pub fn facts(&self) -> &BTreeMap<Subject, Held<O>> {
        &self.facts
    }

    /// Returns the facts about subjects that this build does not know.
    pub fn opaque(&self) -> &BTreeMap<Number, Held<O>> {
        &self.opaque
    }

    /// Returns whether a subject is under way in parts.
    pub fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Takes a report's facts and returns the subjects of this build that it changed. `origin` says where the report came from.
    ///
    /// # Errors
    ///
    /// When the facts do not fit the set. The set is then as before, with what was under way in parts dropped.
    pub fn apply(&mut self, report: &Facts, origin: &O) -> Result<Vec<Subject>, Error> {
        let partial = self.partial.take().filter(|_| !report.resync);
        if self.digests.is_empty() && partial.is_none() && !report.resync {
            return Err(Error::NoResync);
        }
        let (staged, partial) = stage(report, origin, partial)?;
        let mut digests = if report.resync { BTreeMap::new() } else { self.digests.clone() };
        digests.extend(staged.iter().map(|(number, held)| (*number, sha256(&held.bytes))));
        if digest_of_digests(&digests) != report.fact_set_digest {
            return Err(Error::SetDigest);
        }
        if report.resync {
            self.facts.clear();
            self.opaque.clear();
        }
        self.digests = digests;
        self.partial = partial;
        Ok(self.extend(staged))
    }

    /// Takes the facts of one of some reports of a chain, those that brought what the set held in the end: between them the set
    /// does not have the digests that they state, so that only the one at the end can be compared. What does not fit is passed
    /// over.
    pub fn replay(&mut self, report: &Facts, origin: &O) {
        let partial = self.partial.take().filter(|_| !report.resync);
        if report.resync {
            *self = Self::default();
        }
        let whole = Facts { part: None, ..report.clone() };
        if let Ok((staged, _)) = stage(&whole, origin, None) {
            self.adopt(staged);
        }
        match report.part.as_ref().map(|part| take_part(partial, part, origin)) {
            Some(Ok(Taken::Whole(held))) => {
                let mut staged = Vec::new();
                if push(&mut staged, held).is_ok() {
                    self.adopt(staged);
                }
            }
            Some(Ok(Taken::Partial(partial))) => self.partial = Some(partial),
            Some(Err(_)) | None => {}
        }
    }

    fn adopt(&mut self, staged: Vec<(Number, Held<O>)>) {
        self.digests.extend(staged.iter().map(|(number, held)| (*number, sha256(&held.bytes))));
        self.extend(staged);
    }

    /// Puts facts into the set and returns the subjects of this build among them.
    fn extend(&mut self, staged: Vec<(Number, Held<O>)>) -> Vec<Subject> {
        let mut changed = Vec::with_capacity(staged.len());
        for (number, held) in staged {
            match number.subject() {
                Some(subject) => {
                    self.facts.insert(subject, held);
                    changed.push(subject);
                }
                None => drop(self.opaque.insert(number, held)),
            }
        }
        changed
    }

    /// Returns the digest of the set.
    ///
    /// It is SHA-256 over [`DOMAIN`], a zero byte and, for each fact in ascending order of the number of its field in the
    /// contract's `Fact`: that number (four bytes, big-endian) and the SHA-256 of the encoded fact. The number can be read from the
    /// bytes by whoever does not know the subject.
    pub fn digest(&self) -> Digest {
        digest_of_digests(&self.digests)
    }
}

/// What a report brings, in the order of the report, and what it leaves under way in parts.
type Staged<O> = (Vec<(Number, Held<O>)>, Option<Partial<O>>);

/// Returns what a report brings, without looking at the set.
fn stage<O: Clone>(report: &Facts, origin: &O, partial: Option<Partial<O>>) -> Result<Staged<O>, Error> {
    let mut staged: Vec<(Number, Held<O>)> = Vec::with_capacity(report.subjects.len());
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

fn push<O>(staged: &mut Vec<(Number, Held<O>)>, held: Held<O>) -> Result<(), Error> {
    if held.bytes.len() > limits::FACT_BYTES {
        return Err(Error::TooLarge);
    }
    let number = Fact::subject_of(&held.bytes)?;
    if number.subject().is_some() {
        match Fact::decode(&held.bytes) {
            // A word of a later contract makes this subject alone unknown; its bytes count all the same.
            Ok(_) => {}
            Err(error) if error.is_newer() => {}
            Err(error) => return Err(error.into()),
        }
    }
    if staged.iter().any(|(other, _)| *other == number) {
        return Err(Error::Twice(number));
    }
    staged.push((number, held));
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
    // An empty part would let the same fact come from any number of reports.
    if part.bytes.is_empty() {
        return Err(Error::Part);
    }
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

/// Returns the digest of a set of encoded facts, as [`FactSet::digest`] does.
pub fn digest_of<'a>(facts: impl Iterator<Item = (Subject, &'a [u8])>) -> Digest {
    digest_of_digests(&facts.map(|(subject, bytes)| (Number::of(subject), sha256(bytes))).collect())
}

/// Returns the digest of a set by the digests of its facts.
fn digest_of_digests(digests: &BTreeMap<Number, [u8; 32]>) -> Digest {
    let mut hash = Sha256::new();
    hash.update(DOMAIN.as_bytes());
    hash.update([0]);
    for (number, digest) in digests {
        hash.update(number.number().to_be_bytes());
        hash.update(digest);
    }
    Digest::new(hash.finalize().into())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;
    use crate::{
        fact::{Cause, Reading, sample},
        report::{Coverage, SubjectFact},
        v1,
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
        assert_eq!(set.digest(), Digest::of(DOMAIN, &[&[0, 0, 0, 4], hash.as_bytes()]));
        // In order of the numbers, not of the names.
        let system = sample::unknown(Subject::System, Cause::Absent, "");
        set.apply(&report(&set, std::slice::from_ref(&system)), &()).unwrap();
        let first = Digest::of_bytes(&system.encode());
        let parts: [&[u8]; 4] = [&[0, 0, 0, 1], first.as_bytes(), &[0, 0, 0, 4], hash.as_bytes()];
        assert_eq!(set.digest(), Digest::of(DOMAIN, &parts));
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
        assert!(
            matches!(set.apply(&report(&set, &[fact.clone(), fact]), &1), Err(Error::Twice(number)) if number.subject() == Some(Subject::System))
        );
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

    #[test]
    fn an_empty_part_is_refused() {
        let mut set = FactSet::default();
        set.apply(&report(&set, &sample::facts()), &1).unwrap();
        let mut parts = in_parts(&set, &sample::unknown(Subject::Software, Cause::Limit, "too many packages"), 2);
        parts[0].part.as_mut().unwrap().bytes.clear();
        assert!(matches!(set.apply(&parts[0], &2), Err(Error::Part)));
    }

    #[test]
    fn the_first_facts_must_be_all_of_them() {
        let mut set = FactSet::default();
        let mut first = report(&set, &sample::facts());
        first.resync = false;
        assert!(matches!(set.apply(&first, &1), Err(Error::NoResync)));
        first.resync = true;
        assert_eq!(set.apply(&first, &1).unwrap().len(), Subject::ALL.len());
    }

    /// A fact about a subject with field number 100, which no version has so far.
    const LATER: [u8; 6] = [0xa2, 0x06, 3, 1, 2, 3];

    #[test]
    fn a_subject_of_a_later_contract_is_held_by_its_bytes_and_counts() {
        let mut set = FactSet::default();
        let mut first = report(&set, &sample::facts());
        first.subjects.push(SubjectFact { observed: sample::time(0), fact: LATER.to_vec() });
        assert!(matches!(set.apply(&first, &1), Err(Error::SetDigest)), "its bytes must count");
        let mut digests: BTreeMap<Number, [u8; 32]> =
            sample::facts().iter().map(|fact| (Number::of(fact.subject()), sha256(&fact.encode()))).collect();
        digests.insert(Number::new(100).unwrap(), sha256(&LATER));
        first.fact_set_digest = digest_of_digests(&digests);
        assert_eq!(set.apply(&first, &1).unwrap(), Subject::ALL);
        assert_eq!(set.facts().len(), Subject::ALL.len());
        assert_eq!(set.opaque()[&Number::new(100).unwrap()].bytes, LATER);

        // What a store kept is the same set.
        let again = FactSet::from_store(set.facts().clone(), set.opaque().clone(), None);
        assert_eq!(again.digest(), set.digest());
        // A resync without it takes it out.
        let mut resync = report(&FactSet::<u64>::default(), &sample::facts());
        resync.resync = true;
        set.apply(&resync, &2).unwrap();
        assert!(set.opaque().is_empty());
    }

    #[test]
    fn a_word_of_a_later_contract_leaves_the_other_subjects_as_they_are() {
        let wire = v1::Fact::decode(Fact::Firewall(Reading::Known(sample::firewall())).encode().as_slice()).unwrap();
        let Some(v1::fact::Fact::Firewall(mut state)) = wire.fact else { panic!() };
        let Some(v1::firewall_fact::Reading::Known(known)) = &mut state.reading else { panic!() };
        known.input_chains[0].engine = "a_later_engine".to_owned();
        let bytes = v1::Fact { fact: Some(v1::fact::Fact::Firewall(state)) }.encode_to_vec();
        assert!(Fact::decode(&bytes).is_err());

        let mut set = FactSet::default();
        let mut all: BTreeMap<Subject, Vec<u8>> =
            sample::facts().iter().map(|fact| (fact.subject(), fact.encode())).collect();
        all.insert(Subject::Firewall, bytes.clone());
        let mut first = report(&set, &[]);
        let observed = sample::time(0);
        first.subjects = all.values().map(|fact| SubjectFact { observed, fact: fact.clone() }).collect();
        first.fact_set_digest = digest_of(all.iter().map(|(subject, bytes)| (*subject, bytes.as_slice())));
        assert_eq!(set.apply(&first, &1).unwrap(), Subject::ALL);
        assert_eq!(set.facts()[&Subject::Firewall].bytes, bytes);
    }

    #[test]
    fn the_reports_that_brought_the_facts_give_the_set_again() {
        let mut set = FactSet::default();
        let mut reports = vec![report(&set, &sample::facts())];
        set.apply(&reports[0], &0).unwrap();
        let steps: [&[(Subject, &str)]; 4] = [
            &[(Subject::System, "1"), (Subject::Firewall, "1")],
            &[(Subject::Listeners, "2")],
            &[(Subject::System, "3")],
            &[(Subject::PatchLevel, "4"), (Subject::Listeners, "4")],
        ];
        for step in steps {
            let facts: Vec<_> =
                step.iter().map(|(subject, detail)| sample::unknown(*subject, Cause::Failed, detail)).collect();
            reports.push(report(&set, &facts));
            set.apply(reports.last().unwrap(), &(reports.len() - 1)).unwrap();
        }
        for part in in_parts(&set, &Fact::Software(Reading::Known(sample::software())), 3) {
            set.apply(&part, &reports.len()).unwrap();
            reports.push(part);
        }
        let origins: BTreeSet<usize> = set.facts().values().flat_map(|held| held.origins.clone()).collect();
        assert!(origins.len() < reports.len());
        let mut again = FactSet::default();
        for index in origins {
            again.replay(&reports[index], &index);
        }
        assert_eq!((again.digest(), again.facts()), (set.digest(), set.facts()));
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
            resync: set.facts().is_empty() && !set.is_partial(),
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
