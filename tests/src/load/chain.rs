//! An agent's chain of reports, and the reports that break it.

use muster_proto::{
    fact::{Fact, Reading, Text},
    fact_set::FactSet,
    id::{AgentId, Digest, Epoch, ReportSeq},
    report::{
        Attestation, Body, CheckpointRef, Coverage, Facts, Lifecycle, LifecycleKind, Probe, ProbeLooks, Report,
        SubjectFact,
    },
    seal::{EvidenceKey, sealed_digest},
    time::Timestamp,
    v1,
};
use prost::Message as _;

use crate::harness::random::Random;

/// One epoch of an agent.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Whose.
    pub agent: AgentId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The next place.
    pub next: ReportSeq,
    /// Digest of the sealed report before it.
    pub head: Option<Digest>,
    /// The complete facts so far.
    pub facts: FactSet<()>,
    /// Until when its coverage speaks.
    pub covered: Timestamp,
    /// The newest checkpoint that it holds.
    pub checkpoint: Option<CheckpointRef>,
}

impl Chain {
    /// Begins an epoch.
    pub fn begin(agent: AgentId, random: &mut Random, now: Timestamp) -> Self {
        let epoch = Epoch::from_slice(&random.bytes(16)).expect("16 bytes");
        Self {
            agent,
            epoch,
            next: ReportSeq::FIRST,
            head: None,
            facts: FactSet::default(),
            covered: now,
            checkpoint: None,
        }
    }

    /// Returns the report at the next place, not yet sealed.
    pub fn report(&self, body: Body, now: Timestamp) -> Report {
        Report {
            agent: self.agent,
            epoch: self.epoch,
            seq: self.next,
            previous: self.head,
            observed: now,
            boot_id: [7; 16],
            since_boot_millis: 3_600_000,
            agent_version: Text::new("0.1.0"),
            profile_revision: 0,
            last_checkpoint: self.checkpoint.clone(),
            body,
        }
    }

    /// Seals `body` at the next place, and goes on from it.
    pub fn seal(&mut self, key: &EvidenceKey, body: Body, now: Timestamp) -> v1::SealedReport {
        let sealed = key.seal(self.report(body, now).encode());
        self.advance(&sealed);
        sealed
    }

    /// Goes on from `sealed`, whatever it holds.
    pub fn advance(&mut self, sealed: &v1::SealedReport) {
        self.head = Some(sealed_digest(sealed));
        self.next = self.next.next();
    }

    /// Returns a body that starts the epoch.
    pub fn epoch_started(&self) -> Body {
        let kind = LifecycleKind::EpochStarted;
        Body::Lifecycle(Lifecycle { kind, detail: Text::default(), previous: None, probe: None })
    }

    /// Returns what an agent with no news reports here: that the epoch starts, and then that nothing changed.
    pub fn usual(&mut self, now: Timestamp) -> Body {
        if self.next == ReportSeq::FIRST { self.epoch_started() } else { self.attestation(now) }
    }

    /// Returns a body that says that nothing changed since the last one.
    pub fn attestation(&mut self, now: Timestamp) -> Body {
        let fact_set_digest = self.facts.digest();
        Body::Attestation(Attestation { fact_set_digest, coverage: self.coverage(now) })
    }

    /// Returns a body with `facts`, whole; `resync` empties the set before.
    ///
    /// # Panics
    ///
    /// When the facts are not those of the contract: an honest chain holds no others.
    pub fn facts(&mut self, facts: &[Fact], resync: bool, now: Timestamp) -> Body {
        let subjects: Vec<_> = facts.iter().map(|fact| SubjectFact { observed: now, fact: fact.encode() }).collect();
        self.encoded_facts(subjects, resync, now)
    }

    /// Returns a body with facts that are encoded already.
    ///
    /// # Panics
    ///
    /// When the facts are not those of the contract.
    pub fn encoded_facts(&mut self, subjects: Vec<SubjectFact>, resync: bool, now: Timestamp) -> Body {
        let coverage = self.coverage(now);
        // The set refuses a wrong digest, so the right one is worked out on a copy first.
        let mut after = if resync { Default::default() } else { self.facts.facts().clone() };
        for subject in &subjects {
            let fact = Fact::decode(&subject.fact).expect("a fact of the contract");
            let held = muster_proto::fact_set::Held {
                observed: subject.observed,
                bytes: subject.fact.clone(),
                origins: vec![()],
            };
            after.insert(fact.subject(), held);
        }
        self.facts = FactSet::from_facts(after);
        Body::Facts(Facts { subjects, part: None, fact_set_digest: self.facts.digest(), coverage, resync })
    }

    fn coverage(&mut self, now: Timestamp) -> Coverage {
        let start = self.covered.min(now);
        self.covered = now;
        let looks = [
            Probe::System,
            Probe::DiskEncryption,
            Probe::PatchLevel,
            Probe::Firewall,
            Probe::FileIntegrity,
            Probe::Sensors,
            Probe::Clock,
            Probe::Logging,
            Probe::Boot,
            Probe::Capacity,
            Probe::Backup,
        ];
        let largest_gap_millis = u64::try_from(now.since(start).as_millis()).expect("a short time");
        let looks = looks
            .into_iter()
            .map(|probe| ProbeLooks { probe, count: 1, last_before_end_millis: 0, largest_gap_millis })
            .collect();
        Coverage { start, end: now, looks, suspended_millis: 0, directive_ids: Vec::new() }
    }
}

/// Returns the wire form of `report`, to be changed and sealed by [`seal_wire`].
///
/// # Panics
///
/// Never: the contract's own encoding decodes.
pub fn wire(report: &Report) -> v1::Report {
    v1::Report::decode(report.encode().as_slice()).expect("the contract's own encoding")
}

/// Seals a wire form, whatever it holds.
pub fn seal_wire(key: &EvidenceKey, report: &v1::Report) -> v1::SealedReport {
    key.seal(report.encode_to_vec())
}

/// Returns a small fact whose content the caller can tell from others: an agent fact with `version`.
pub fn agent_fact(version: &str) -> Fact {
    Fact::Agent(Reading::Known(muster_proto::fact::Agent {
        version: Text::new(version),
        program_digest: Reading::Known(Text::new(&"ab".repeat(32))),
        matches_package: Reading::Known(true),
        settings_digest: Text::new(&"cd".repeat(32)),
        uid: 0,
        capabilities: Reading::Known(Text::new("0000000000000004")),
    }))
}
