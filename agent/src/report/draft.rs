//! Drafts: which bodies to seal now, and what is reported after them.

use muster_proto::{
    fact::{Cause, Fact, Reading, Subject},
    id::Digest,
    limits,
    report::{Attestation, Body, Facts, SubjectFact, SubjectPart},
    time::Timestamp,
};

use super::{Observed, Reported, Reporter, coverage::Span, digest_of};
use crate::moment::Moment;

/// Bodies to seal, and what holds after they are taken.
#[derive(Debug)]
pub struct Draft {
    /// In order.
    pub bodies: Vec<Body>,
    /// Digest of the fact set after them.
    pub fact_set: Digest,
    /// Whether the fact set is another one after them.
    pub changes_facts: bool,
    /// End of the coverage that they carry.
    pub covered_until: Timestamp,
    /// Whether it ends a time in which the spool took nothing.
    pub releases: bool,
    reported: Reported,
    span: Span,
    /// Directives that it answers.
    answered: Vec<u64>,
}

impl Reporter {
    /// Returns what must be said at once: facts that changed, or that a round of looks which someone waits for has ended.
    pub fn draft(&self, now: Moment) -> Option<Draft> {
        if !self.changed.is_empty() {
            return Some(self.draft_facts(now));
        }
        let is_answer_due = self.asks.iter().any(|ask| ask.waiting.is_empty());
        if is_answer_due { self.draft_attestation(now) } else { None }
    }

    /// Returns the report that nothing changed; `None` when something did, or when nothing was reported yet.
    pub fn draft_attestation(&self, now: Moment) -> Option<Draft> {
        if self.reported.is_empty() || !self.changed.is_empty() || self.is_resync {
            return None;
        }
        let fact_set = digest_of(&self.reported);
        let answered = self.answered();
        let coverage = self.span.coverage(now, answered.clone());
        let covered_until = coverage.end;
        Some(Draft {
            bodies: vec![Body::Attestation(Attestation { fact_set_digest: fact_set, coverage })],
            fact_set,
            changes_facts: false,
            covered_until,
            releases: false,
            reported: Reported::new(),
            span: self.span.next(now),
            answered,
        })
    }

    /// Returns the gap that ends a time in which the spool took nothing, with everything that is known after it: one without the
    /// other would only fill the spool again. `None` when nothing is held back.
    pub fn draft_release(&self, now: Moment) -> Option<Draft> {
        let gap = self.held_gap(now)?;
        let mut released = self.clone();
        released.span = Span::new(now);
        released.resync();
        let mut draft = released.draft_facts(now);
        draft.bodies.insert(0, gap);
        draft.releases = true;
        Some(draft)
    }

    /// Takes note that the chain has taken `draft`, which was drafted from the present state.
    pub fn commit(&mut self, draft: Draft) {
        if draft.releases {
            self.held = None;
            self.resync();
        }
        if draft.changes_facts {
            self.reported = draft.reported;
            self.changed.clear();
            self.is_resync = false;
        }
        self.span = draft.span;
        self.forget_answered(&draft.answered);
    }

    /// Takes note that the chain cannot take `draft` as it is, ever. Its subjects become unknown ones that say `why`, so that what
    /// cannot be sealed holds nothing up.
    pub fn refuse(&mut self, draft: &Draft, why: &str) {
        if draft.releases {
            self.resync();
        }
        for (subject, fact) in &mut self.changed {
            fact.bytes = unknown(*subject, Cause::Failed, why).encode();
        }
        self.span = draft.span.clone();
        self.forget_answered(&draft.answered);
    }

    /// Returns the directives that the next coverage answers; what it has no place for is left to the one after.
    fn answered(&self) -> Vec<u64> {
        let answered = self.asks.iter().filter(|ask| ask.waiting.is_empty());
        answered.flat_map(|ask| ask.ids.iter().copied()).take(limits::DIRECTIVE_IDS).collect()
    }

    fn forget_answered(&mut self, answered: &[u64]) {
        for ask in self.asks.iter_mut().filter(|ask| ask.waiting.is_empty()) {
            ask.ids.retain(|id| !answered.contains(id));
        }
        self.asks.retain(|ask| !ask.waiting.is_empty() || !ask.ids.is_empty());
    }

    fn draft_facts(&self, now: Moment) -> Draft {
        let mut set = if self.is_resync { Reported::new() } else { self.reported.clone() };
        let answered = self.answered();
        let mut writer = Writer {
            bodies: Vec::new(),
            coverage: Some(self.span.coverage(now, answered.clone())),
            empty: self.span.next(now),
            now,
            is_resync: self.is_resync,
        };
        let mut batch: Vec<SubjectFact> = Vec::new();
        let mut batch_bytes = 0;
        for (subject, fact) in &self.changed {
            if fact.bytes.len() > limits::SUBJECT_BYTES_PER_REPORT {
                writer.push(std::mem::take(&mut batch), None, digest_of(&set));
                batch_bytes = 0;
                writer.push_parts(*subject, fact, &mut set);
                continue;
            }
            if batch_bytes + fact.bytes.len() > limits::SUBJECT_BYTES_PER_REPORT {
                writer.push(std::mem::take(&mut batch), None, digest_of(&set));
                batch_bytes = 0;
            }
            batch_bytes += fact.bytes.len();
            batch.push(SubjectFact { observed: fact.at, fact: fact.bytes.clone() });
            set.insert(*subject, fact.clone());
        }
        let fact_set = digest_of(&set);
        writer.push(batch, None, fact_set);
        Draft {
            changes_facts: !writer.bodies.is_empty(),
            bodies: writer.bodies,
            fact_set,
            covered_until: now.wall,
            releases: false,
            reported: set,
            span: writer.empty,
            answered,
        }
    }
}

struct Writer {
    bodies: Vec<Body>,
    /// Goes with the first body; the others carry an empty one.
    coverage: Option<muster_proto::report::Coverage>,
    empty: Span,
    now: Moment,
    is_resync: bool,
}

impl Writer {
    fn push(&mut self, subjects: Vec<SubjectFact>, part: Option<SubjectPart>, fact_set_digest: Digest) {
        if subjects.is_empty() && part.is_none() {
            return;
        }
        let coverage = self.coverage.take().unwrap_or_else(|| self.empty.coverage(self.now, Vec::new()));
        let resync = std::mem::take(&mut self.is_resync);
        self.bodies.push(Body::Facts(Facts { subjects, part, fact_set_digest, coverage, resync }));
    }

    /// Until the last part, the set holds the subject's fact from before.
    fn push_parts(&mut self, subject: Subject, fact: &Observed, set: &mut Reported) {
        let count = fact.bytes.len().div_ceil(limits::SUBJECT_BYTES_PER_REPORT);
        let before = digest_of(set);
        set.insert(subject, fact.clone());
        let after = digest_of(set);
        let digest = Digest::of_bytes(&fact.bytes);
        for (index, bytes) in fact.bytes.chunks(limits::SUBJECT_BYTES_PER_REPORT).enumerate() {
            let number = |value: usize| u32::try_from(value).expect("a fact has at most 32 parts");
            let part = SubjectPart {
                observed: fact.at,
                index: number(index),
                count: number(count),
                digest,
                bytes: bytes.to_vec(),
            };
            self.push(Vec::new(), Some(part), if index + 1 == count { after } else { before });
        }
    }
}

/// Returns the fact's bytes; of a fact that the contract does not allow, those of an unknown one that says so.
///
/// A collector refuses what does not decode, and a sealed report cannot be changed: a probe's mistake must end here.
pub fn bounded(fact: &Fact) -> Vec<u8> {
    let bytes = fact.encode();
    if bytes.len() > limits::FACT_BYTES {
        let detail = format!("the fact has {} bytes, at most {} can be reported", bytes.len(), limits::FACT_BYTES);
        return unknown(fact.subject(), Cause::Limit, &detail).encode();
    }
    match Fact::decode(&bytes) {
        Ok(_) => bytes,
        Err(error) => unknown(fact.subject(), Cause::Garbled, &format!("the probe's own answer: {error}")).encode(),
    }
}

/// Returns the fact that `subject` could not be told.
pub fn unknown(subject: Subject, cause: Cause, detail: &str) -> Fact {
    match subject {
        Subject::Agent => Fact::Agent(Reading::unknown(cause, detail)),
        Subject::Clock => Fact::Clock(Reading::unknown(cause, detail)),
        Subject::Boot => Fact::Boot(Reading::unknown(cause, detail)),
        Subject::Capacity => Fact::Capacity(Reading::unknown(cause, detail)),
        Subject::Backup => Fact::Backup(Reading::unknown(cause, detail)),
        Subject::DiskEncryption => Fact::DiskEncryption(Reading::unknown(cause, detail)),
        Subject::FileIntegrity => Fact::FileIntegrity(Reading::unknown(cause, detail)),
        Subject::Firewall => Fact::Firewall(Reading::unknown(cause, detail)),
        Subject::Listeners => Fact::Listeners(Reading::unknown(cause, detail)),
        Subject::Logging => Fact::Logging(Reading::unknown(cause, detail)),
        Subject::PatchLevel => Fact::PatchLevel(Reading::unknown(cause, detail)),
        Subject::Sensors => Fact::Sensors(Reading::unknown(cause, detail)),
        Subject::Software => Fact::Software(Reading::unknown(cause, detail)),
        Subject::System => Fact::System(Reading::unknown(cause, detail)),
    }
}
