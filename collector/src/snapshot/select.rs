//! Which entries of the log a snapshot rests on. Pure: entries in order in, indexes out.
//!
//! What counts at an instant T is what is in the log's first P entries and was either received or observed by T. A report that was
//! sent late therefore counts for the time it describes. Order comes from the log and the chain alone: everything before the last
//! report that counts, in its chain, counts too, whatever its clock said.
//!
//! A selection of the selected entries is the same selection, so that whoever verifies finds neither too few nor too many.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::{
    fact::Subject,
    id::{AgentId, Digest, Epoch},
    report::{Body, Coverage, Facts, Probe, Report},
    time::Timestamp,
    v1::{self, act::Act, log_entry::Entry},
};
use prost::Message as _;

/// Where an agent stands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// Enrolled; nothing reported so far.
    Enrolled,
    /// Reporting.
    Active,
    /// Frozen by a conflict until an operator decides.
    Frozen,
    /// Revoked: nothing more is taken from it.
    Revoked,
}

impl State {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Active => "active",
            Self::Frozen => "frozen",
            Self::Revoked => "revoked",
        }
    }
}

/// Goes through entries of the log, in order.
#[derive(Debug)]
pub struct Selector {
    as_of: Timestamp,
    hosts: Option<BTreeSet<AgentId>>,
    catalogue: Digest,
    selection: Selection,
}

/// What a snapshot rests on.
#[derive(Debug, Default)]
pub struct Selection {
    /// Entry that made the collector.
    pub collector: Option<u64>,
    /// Last entry that put the catalogue in force.
    pub catalogue: Option<u64>,
    /// Hosts that were enrolled, each with what it rests on.
    pub hosts: BTreeMap<AgentId, Track>,
}

/// What a host's state rests on.
#[derive(Debug, Default)]
pub struct Track {
    /// First entry that bound its keys.
    pub enrolled: Option<u64>,
    /// Entries that changed where it stands.
    pub states: Vec<u64>,
    /// Its chain up to the last report that counts.
    pub chain: Chain,
    /// Its chain with reports after that, while there are any.
    ahead: Option<Chain>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Standing {
    #[default]
    Good,
    Frozen,
    Revoked,
}

/// What the newest epoch of a host's chain says, as log indexes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Chain {
    epoch: Option<Epoch>,
    /// The last report.
    pub last: Option<u64>,
    /// The last report that states the digest of all facts.
    pub digest: Option<u64>,
    /// For each subject the reports that brought its fact: one, or one for each part.
    pub facts: BTreeMap<Subject, Vec<u64>>,
    /// For each probe, by number, the last report that tells of a look.
    pub looks: BTreeMap<i32, u64>,
    part: Option<Vec<u64>>,
    part_subject: Option<Subject>,
}

impl Selector {
    /// Starts at the beginning of the log. `hosts` limits the scope; `catalogue` is the one that judges.
    pub fn new(as_of: Timestamp, hosts: Option<BTreeSet<AgentId>>, catalogue: Digest) -> Self {
        Self { as_of, hosts, catalogue, selection: Selection::default() }
    }

    /// Takes the next entry. What is no entry of this version is passed over.
    pub fn take(&mut self, index: u64, bytes: &[u8]) {
        let Ok(entry) = v1::LogEntry::decode(bytes) else { return };
        let Some(received) = entry.received_time.as_ref().and_then(Timestamp::from_wire) else { return };
        let is_due = received <= self.as_of;
        match entry.entry {
            Some(Entry::Report(report)) => self.take_report(index, received, &report),
            Some(Entry::Enrollment(enrollment)) if is_due => {
                if let Some(track) = self.track(&enrollment.agent_id) {
                    track.enrolled.get_or_insert(index);
                }
            }
            Some(Entry::Conflict(conflict)) if is_due => {
                self.stand(index, &conflict.agent_id, |standing| match standing {
                    Standing::Good | Standing::Frozen => Standing::Frozen,
                    Standing::Revoked => Standing::Revoked,
                });
            }
            Some(Entry::Act(act)) if is_due => self.take_act(index, act.act),
            // The definitions in force are a parameter, whenever they came.
            Some(Entry::Catalogue(version)) if version.digest == self.catalogue.as_bytes() => {
                self.selection.catalogue = Some(index);
            }
            Some(
                Entry::Enrollment(_) | Entry::Conflict(_) | Entry::Act(_) | Entry::Catalogue(_) | Entry::Access(_),
            )
            | None => {}
        }
    }

    /// Returns the selection.
    pub fn finish(mut self) -> Selection {
        self.selection.hosts.retain(|_, track| track.enrolled.is_some());
        let is_open = self.hosts.is_none();
        for track in self.selection.hosts.values_mut() {
            if is_open && track.standing == Standing::Revoked {
                // Out of scope: counted, not judged.
                track.chain = Chain::default();
            }
        }
        self.selection
    }

    fn track(&mut self, agent: &[u8]) -> Option<&mut Track> {
        let agent = AgentId::from_slice(agent)?;
        let in_scope = self.hosts.as_ref().is_none_or(|hosts| hosts.contains(&agent));
        in_scope.then(|| self.selection.hosts.entry(agent).or_default())
    }

    fn stand(&mut self, index: u64, agent: &[u8], next: impl FnOnce(Standing) -> Standing) {
        if let Some(track) = self.track(agent) {
            track.standing = next(track.standing);
            track.states.push(index);
        }
    }

    fn take_act(&mut self, index: u64, act: Option<Act>) {
        match act {
            Some(Act::CollectorCreated(_)) => {
                self.selection.collector.get_or_insert(index);
            }
            Some(Act::AgentRevoked(revoked)) => self.stand(index, &revoked.agent_id, |_| Standing::Revoked),
            Some(Act::ConflictResolved(resolved)) => {
                self.stand(index, &resolved.agent_id, |standing| match standing {
                    Standing::Good | Standing::Frozen => Standing::Good,
                    Standing::Revoked => Standing::Revoked,
                });
            }
            Some(
                Act::TokenCreated(_)
                | Act::TokenRevoked(_)
                | Act::TokenRefused(_)
                | Act::CredentialIssued(_)
                | Act::CredentialRevoked(_)
                | Act::SnapshotExported(_)
                | Act::LookRequested(_),
            )
            | None => {}
        }
    }

    fn take_report(&mut self, index: u64, received: Timestamp, admitted: &v1::AdmittedReport) {
        let Some(report) = admitted.sealed.as_ref().and_then(|sealed| Report::decode(&sealed.report).ok()) else {
            return;
        };
        let counts = received.min(report.observed) <= self.as_of;
        let Some(track) = self.track(report.agent.as_bytes()) else { return };
        if counts {
            if let Some(ahead) = track.ahead.take() {
                track.chain = ahead;
            }
            track.chain.take(index, &report);
        } else {
            track.ahead.get_or_insert_with(|| track.chain.clone()).take(index, &report);
        }
    }
}

impl Selection {
    /// Returns the indexes of all entries of the selection.
    pub fn indexes(&self) -> BTreeSet<u64> {
        let hosts = self.hosts.values().flat_map(|track| {
            let chain = &track.chain;
            let one = [track.enrolled, chain.last, chain.digest].into_iter().flatten();
            let facts = chain.facts.values().flatten().copied();
            one.chain(track.states.iter().copied()).chain(facts).chain(chain.looks.values().copied())
        });
        hosts.chain(self.collector).chain(self.catalogue).collect()
    }
}

impl Track {
    /// Returns where the host stands.
    pub fn state(&self) -> State {
        match self.standing {
            Standing::Revoked => State::Revoked,
            Standing::Frozen => State::Frozen,
            Standing::Good if self.chain.last.is_some() => State::Active,
            Standing::Good => State::Enrolled,
        }
    }
}

impl Chain {
    fn take(&mut self, index: u64, report: &Report) {
        if self.epoch != Some(report.epoch) {
            *self = Self { epoch: Some(report.epoch), ..Self::default() };
        }
        self.last = Some(index);
        match &report.body {
            Body::Facts(facts) => {
                self.digest = Some(index);
                self.take_looks(index, &facts.coverage);
                self.take_facts(index, facts);
            }
            Body::Attestation(attestation) => {
                self.digest = Some(index);
                self.take_looks(index, &attestation.coverage);
            }
            Body::Gap(_) | Body::Lifecycle(_) => {}
        }
    }

    fn take_looks(&mut self, index: u64, coverage: &Coverage) {
        for looks in &coverage.looks {
            self.looks.insert(looks.probe.into(), index);
        }
    }

    fn take_facts(&mut self, index: u64, facts: &Facts) {
        if facts.resync {
            self.facts.clear();
            self.part = None;
        }
        for subject in facts.subjects.iter().filter_map(|it| subject_of(&it.fact)) {
            self.facts.insert(subject, vec![index]);
        }
        let Some(part) = &facts.part else {
            self.part = None;
            return;
        };
        if part.index == 0 {
            self.part = Some(Vec::new());
            self.part_subject = subject_of(&part.bytes);
        }
        let Some(parts) = self.part.as_mut().filter(|parts| parts.len() == part.index as usize) else {
            self.part = None;
            return;
        };
        parts.push(index);
        if parts.len() == part.count as usize
            && let (Some(subject), Some(parts)) = (self.part_subject, self.part.take())
        {
            self.facts.insert(subject, parts);
        }
    }
}

/// Returns the subject of an encoded fact, or of the first part of one: the number of its first field says it.
pub fn subject_of(fact: &[u8]) -> Option<Subject> {
    match fact.first()? >> 3 {
        1 => Some(Subject::System),
        2 => Some(Subject::DiskEncryption),
        3 => Some(Subject::PatchLevel),
        4 => Some(Subject::Software),
        5 => Some(Subject::Firewall),
        6 => Some(Subject::Listeners),
        7 => Some(Subject::FileIntegrity),
        8 => Some(Subject::Agent),
        _ => None,
    }
}

/// Returns the name of a probe.
pub fn probe_name(probe: Probe) -> &'static str {
    match probe {
        Probe::Unspecified => "none",
        Probe::System => "system",
        Probe::DiskEncryption => "disk_encryption",
        Probe::PatchLevel => "patch_level",
        Probe::Firewall => "firewall",
        Probe::FileIntegrity => "file_integrity",
    }
}
