//! Which entries of the log a snapshot rests on. Pure: entries in order in, indexes out.
//!
//! What counts at an instant T is what is in the log's first P entries and was told by T: received by then, or observed by then on
//! the host's clock moved by its measured skew. A report that was sent late therefore counts for the time it describes. Order comes
//! from the log: a host's reports count up to the first that does not, so that none that was dated back brings in what it follows.
//! When the host was *heard* is another question, and only what was received by T answers it.
//!
//! A selection of the selected entries is the same selection, so that whoever verifies finds neither too few nor too many.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::{
    fact::{Fact, Subject},
    fact_set::FactSet,
    id::{AgentId, Digest, Epoch, ReportSeq},
    report::{Body, Coverage, Probe, Report},
    time::Timestamp,
    v1::{self, act::Act, log_entry::Entry},
};
use prost::Message as _;

use crate::control::{
    Acknowledged,
    reports::{mends, on_collector},
};

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
    source: Source,
    enrolled: BTreeSet<AgentId>,
    selection: Selection,
}

/// Where the entries come from.
#[derive(Debug)]
enum Source {
    /// The log: every report is there, so that each must fit what the host said before.
    Log,
    /// A selection, with the hosts whose reports did not add up in the log. What was replaced since is not there, so that only the
    /// digest at the end can be compared.
    Selection(Broken),
}

/// Hosts whose reports do not add up, each with the log index of the first report that did not fit.
pub type Broken = BTreeMap<AgentId, u64>;

/// What a snapshot rests on.
#[derive(Debug, Default)]
pub struct Selection {
    /// Entry that made the collector.
    pub collector: Option<u64>,
    /// Last entry that put the catalogue in force.
    pub catalogue: Option<u64>,
    /// Hosts that were enrolled, each with what it rests on.
    pub hosts: BTreeMap<AgentId, Track>,
    /// Hosts that were enrolled, in scope or not.
    pub enrolled: u64,
    /// When the last entry was received.
    pub last_received: Option<Timestamp>,
}

/// What a host's state rests on, as log indexes.
#[derive(Debug, Default)]
pub struct Track {
    /// First entry that bound its keys.
    pub enrolled: Option<u64>,
    /// Entries that changed where it stands.
    pub states: Vec<u64>,
    /// The last report that counts.
    pub last: Option<u64>,
    /// The last of them that was received by the instant.
    pub heard: Option<u64>,
    /// The last report that states the digest of all facts, and that digest.
    pub digest: Option<(u64, Digest)>,
    /// For each probe, by number, the last report that tells of a look.
    pub looks: BTreeMap<i32, u64>,
    /// Its facts, each with the reports that brought it: one, or one for each part. Empty when they do not add up.
    pub set: FactSet<u64>,
    /// What operators acknowledged of the changes that its facts list, by the instant.
    pub acknowledged: Acknowledged,
    /// The first report that did not fit the facts before it, while they do not add up.
    pub broken: Option<u64>,
    /// When they added up again last.
    mended: Option<Timestamp>,
    /// When the last report was received; never before the one before it.
    received: Option<Timestamp>,
    /// Its newest epoch, and the place in it.
    head: Option<(Epoch, ReportSeq)>,
    /// Whether a report was met that does not count.
    is_over: bool,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Standing {
    #[default]
    Good,
    Frozen,
    Revoked,
}

impl Selector {
    /// Starts at the beginning of the log. `hosts` limits the scope; `catalogue` is the one that judges.
    pub fn new(as_of: Timestamp, hosts: Option<BTreeSet<AgentId>>, catalogue: Digest) -> Self {
        Self::from(Source::Log, as_of, hosts, catalogue)
    }

    /// Starts at the first entry of a selection that was made with the same arguments and found `broken`.
    pub fn again(as_of: Timestamp, hosts: Option<BTreeSet<AgentId>>, catalogue: Digest, broken: Broken) -> Self {
        Self::from(Source::Selection(broken), as_of, hosts, catalogue)
    }

    fn from(source: Source, as_of: Timestamp, hosts: Option<BTreeSet<AgentId>>, catalogue: Digest) -> Self {
        Self { as_of, hosts, catalogue, source, enrolled: BTreeSet::new(), selection: Selection::default() }
    }

    /// Takes the next entry. What is no entry of this version is passed over.
    pub fn take(&mut self, index: u64, bytes: &[u8]) {
        let Ok(entry) = v1::LogEntry::decode(bytes) else { return };
        let Some(received) = entry.received_time.as_ref().and_then(Timestamp::from_wire) else { return };
        let is_due = received <= self.as_of;
        self.selection.last_received = Some(received);
        match entry.entry {
            Some(Entry::Report(report)) => self.take_report(index, received, &report),
            Some(Entry::Enrollment(enrollment)) if is_due => {
                self.enrolled.extend(AgentId::from_slice(&enrollment.agent_id));
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
        self.selection.enrolled = self.enrolled.len() as u64;
        let is_open = self.hosts.is_none();
        for track in self.selection.hosts.values_mut() {
            if is_open && track.standing == Standing::Revoked {
                // Out of scope: counted, not judged.
                *track = Track {
                    enrolled: track.enrolled,
                    states: std::mem::take(&mut track.states),
                    standing: track.standing,
                    ..Track::default()
                };
            }
            if let Some(index) = track.broken {
                track.give_up(index);
            }
            track.settle_acknowledged();
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
            Some(Act::FileChangesAcknowledged(act)) => {
                for change in &act.changes {
                    if let (Some(track), Some(digest)) =
                        (self.track(&change.agent_id), Digest::from_slice(&change.after_digest))
                    {
                        track.acknowledged.insert(&change.path, digest, index);
                    }
                }
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
        let as_of = self.as_of;
        let is_told = on_collector(told(&report), admitted.clock_skew_millis, received) <= as_of;
        let broken = match &self.source {
            Source::Log => None,
            Source::Selection(broken) => Some(broken.get(&report.agent).copied()),
        };
        let Some(track) = self.track(report.agent.as_bytes()) else { return };
        // A place of the chain that is taken is no report for the judge either.
        let is_taken = track.head.is_some_and(|(epoch, seq)| epoch == report.epoch && report.seq <= seq);
        track.is_over |= !is_told;
        if track.is_over || is_taken {
            return;
        }
        track.head = Some((report.epoch, report.seq));
        track.last = Some(index);
        if received <= as_of {
            track.heard = Some(index);
        }
        match broken {
            None => track.follow(index, &report, received),
            Some(broken) => track.replay(index, &report, broken),
        }
    }
}

impl Selection {
    /// Returns the indexes of all entries of the selection.
    pub fn indexes(&self) -> BTreeSet<u64> {
        let hosts = self.hosts.values().flat_map(Track::indexes);
        hosts.chain(self.collector).chain(self.catalogue).collect()
    }

    /// Returns the hosts whose reports do not add up.
    pub fn broken(&self) -> Broken {
        self.hosts.iter().filter_map(|(agent, track)| Some((*agent, track.broken?))).collect()
    }
}

impl Track {
    /// Returns the indexes of all entries that it rests on.
    pub fn indexes(&self) -> BTreeSet<u64> {
        let digest = self.digest.map(|(index, _)| index);
        let one = [self.enrolled, self.last, self.heard, digest, self.broken].into_iter().flatten();
        let known = self.set.facts().values().flat_map(|held| &held.origins);
        let facts = known.chain(self.set.opaque().values().flat_map(|held| &held.origins));
        let acts = self.acknowledged.iter().map(|(_, _, index)| index);
        let all = one.chain(self.states.iter().copied()).chain(facts.copied()).chain(self.looks.values().copied());
        all.chain(acts).collect()
    }

    /// Returns whether the facts are those that the host signed for.
    pub fn agrees(&self) -> bool {
        self.broken.is_none() && self.digest.is_none_or(|(_, digest)| digest == self.set.digest())
    }

    /// Takes note that the facts do not add up since the report at `index`: none of them can be told.
    pub fn give_up(&mut self, index: u64) {
        self.broken = Some(index);
        self.set = FactSet::default();
        self.acknowledged = Acknowledged::default();
    }

    /// Keeps the acknowledgements that something rests on: those of changes that the facts list.
    fn settle_acknowledged(&mut self) {
        let held = self.set.facts().get(&Subject::FileIntegrity);
        match held.and_then(|held| Fact::decode(&held.bytes).ok()) {
            Some(fact) => self.acknowledged.retain(&fact),
            None => self.acknowledged = Acknowledged::default(),
        }
    }

    /// Returns where the host stands.
    pub fn state(&self) -> State {
        match self.standing {
            Standing::Revoked => State::Revoked,
            Standing::Frozen => State::Frozen,
            Standing::Good if self.last.is_some() => State::Active,
            Standing::Good => State::Enrolled,
        }
    }

    /// Takes a report of the log, as the judge does.
    fn follow(&mut self, index: u64, report: &Report, received: Timestamp) {
        let received = self.received.map_or(received, |last| received.max(last));
        self.received = Some(received);
        let fits = match &report.body {
            Body::Facts(facts) => self.set.apply(facts, &index).is_ok(),
            Body::Attestation(attestation) => attestation.fact_set_digest == self.set.digest(),
            Body::Gap(_) | Body::Lifecycle(_) => return,
        };
        if !fits {
            self.broken.get_or_insert(index);
        } else if self.broken.is_some() && mends(self.mended, received) {
            (self.broken, self.mended) = (None, Some(received));
        }
        self.note(index, report);
    }

    /// Takes a report of a selection. Of a host that is `broken` no facts are taken.
    fn replay(&mut self, index: u64, report: &Report, broken: Option<u64>) {
        if broken == Some(index) {
            self.broken = broken;
        }
        if let (Body::Facts(facts), None) = (&report.body, broken) {
            self.set.replay(facts, &index);
        }
        self.note(index, report);
    }

    /// Takes note of the digest that a report states and of the looks that it tells of.
    fn note(&mut self, index: u64, report: &Report) {
        let (digest, coverage): (Digest, &Coverage) = match &report.body {
            Body::Facts(facts) => (facts.fact_set_digest, &facts.coverage),
            Body::Attestation(attestation) => (attestation.fact_set_digest, &attestation.coverage),
            Body::Gap(_) | Body::Lifecycle(_) => return,
        };
        self.digest = Some((index, digest));
        self.looks.extend(coverage.looks.iter().map(|looks| (i32::from(looks.probe), index)));
    }
}

/// Returns the last time that a report tells of, host's clock: when it was sealed, or when a look or a fact in it ended, whichever is
/// later.
fn told(report: &Report) -> Timestamp {
    match &report.body {
        Body::Facts(facts) => {
            let subjects = facts.subjects.iter().map(|subject| subject.observed);
            let times = subjects.chain(facts.part.iter().map(|part| part.observed)).chain([facts.coverage.end]);
            times.fold(report.observed, Timestamp::max)
        }
        Body::Attestation(attestation) => report.observed.max(attestation.coverage.end),
        Body::Gap(_) | Body::Lifecycle(_) => report.observed,
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
        Probe::Accounts => "accounts",
        Probe::RemoteAccess => "remote_access",
        Probe::ScreenLock => "screen_lock",
        Probe::RemovableMedia => "removable_media",
        Probe::Sensors => "sensors",
        Probe::Clock => "clock",
        Probe::Logging => "logging",
        Probe::Boot => "boot",
        Probe::Capacity => "capacity",
        Probe::Backup => "backup",
    }
}
