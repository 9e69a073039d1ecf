//! What entries of the log say of hosts: the state of each at the instant, and the verdict of each control. Pure, and the same for
//! whoever makes a snapshot and whoever verifies it.

use std::collections::BTreeMap;

use muster_proto::{
    fact::{Fact, Reading, Subject, System},
    fact_set::{Held, Number},
    id::{AgentId, Digest},
    report::{Body, Coverage, Report},
    time::Timestamp,
    v1::{self, log_entry::Entry},
};
use prost::Message as _;

use super::select::{Selection, State, Track};
use crate::control::{self, Acknowledged, Control, Evidence, Judgement, Observed, Reporting, reports::on_collector};

/// What the log said of a fleet.
#[derive(Debug)]
pub struct Fleet {
    /// The collector, as it came into being.
    pub collector: Option<Collector>,
    /// Entry that put the catalogue in force.
    pub catalogue_index: Option<u64>,
    /// Hosts, ordered by agent.
    pub hosts: Vec<Host>,
}

/// A collector, as it came into being.
#[derive(Clone, Debug)]
pub struct Collector {
    /// Log index of the entry.
    pub index: u64,
    /// Its name.
    pub name: String,
    /// Key of its log.
    pub log_key: String,
    /// SHA-256 of its CA certificate.
    pub ca_digest: Option<Digest>,
}

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Its agent.
    pub agent: AgentId,
    /// Where it stands.
    pub state: State,
    /// Whether it is judged.
    pub is_judged: bool,
    /// How it was enrolled.
    pub enrolled: Enrolled,
    /// Its last report that counts.
    pub last: Option<LastReport>,
    /// The last of them that was received by the instant.
    pub heard: Option<LastReport>,
    /// The digest of all its facts, as its newest report that has one states it.
    pub fact_set: Option<StatedSet>,
    /// Its facts by subject.
    pub facts: BTreeMap<Subject, HeldFact>,
    /// Facts about subjects that this program does not know, with the log indexes of the reports that brought them.
    pub opaque: Vec<(Number, Digest, Vec<u64>)>,
    /// The last look of each probe that looked.
    pub looks: Vec<Look>,
    /// What operators acknowledged of the changes that its facts list.
    pub acknowledged: Acknowledged,
    /// The same with who acknowledged it and why, in order of path.
    pub acknowledgements: Vec<Acknowledgement>,
}

/// An operator's word that a change of a file is as it should be.
#[derive(Clone, Debug)]
pub struct Acknowledgement {
    /// Log index of the act.
    pub index: u64,
    /// When, collector's clock.
    pub received: Timestamp,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Where the change is found; may be empty.
    pub reference: String,
    /// The path.
    pub path: String,
    /// Digest of the state that was found.
    pub after_digest: Digest,
}

/// How a host was enrolled.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Log index of the first enrolment.
    pub index: u64,
    /// When, collector's clock.
    pub received: Timestamp,
    /// The entry.
    pub entry: v1::Enrollment,
}

/// A host's last report.
#[derive(Clone, Debug)]
pub struct LastReport {
    /// Its log index.
    pub index: u64,
    /// When it was received, collector's clock.
    pub received: Timestamp,
    /// Host's clock minus collector's clock, in milliseconds.
    pub skew_millis: i64,
    /// The report.
    pub report: Report,
}

/// A digest of all facts, stated by a report.
#[derive(Clone, Copy, Debug)]
pub struct StatedSet {
    /// Log index of the report.
    pub index: u64,
    /// The digest.
    pub digest: Digest,
    /// Whether the facts have it.
    pub agrees: bool,
}

/// A fact and where it comes from.
#[derive(Clone, Debug)]
pub struct HeldFact {
    /// The exact encoded fact.
    pub bytes: Vec<u8>,
    /// Log indexes of the reports that brought it.
    pub indexes: Vec<u64>,
    /// When the look that gave it ended, host's clock.
    pub observed: Timestamp,
    /// When the report that completed it was received.
    pub received: Timestamp,
    /// When a look confirmed it last, collector's clock.
    pub confirmed: Timestamp,
    /// Log index of the report that tells of that look.
    pub confirmed_index: u64,
}

/// The last look of a probe.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Number of the probe.
    pub probe: i32,
    /// Log index of the report that tells of it.
    pub index: u64,
    /// When it ended, host's clock.
    pub ended: Timestamp,
    /// The same on the collector's clock.
    pub confirmed: Timestamp,
    /// Looks in the span of that report.
    pub count: u32,
    /// Largest time between two of them, in milliseconds.
    pub largest_gap_millis: u64,
}

/// What a control says of a host.
#[derive(Debug)]
pub struct Verdict<'a> {
    /// The control.
    pub control: &'a Control,
    /// What it says.
    pub judgement: Judgement,
    /// Log indexes of the reports that it rests on.
    pub indexes: Vec<u64>,
    /// The oldest observation that it rests on, host's clock.
    pub observed: Option<Timestamp>,
    /// The oldest confirmation that it rests on, collector's clock.
    pub confirmed: Option<Timestamp>,
}

/// A report with what the log says beside it.
struct Admitted {
    received: Timestamp,
    skew_millis: i64,
    report: Report,
}

impl Fleet {
    /// Returns what `entries` say by `selection`, which was made of them.
    pub fn new(entries: &BTreeMap<u64, Vec<u8>>, selection: &Selection, judges_revoked: bool) -> Self {
        let hosts = selection.hosts.iter().filter_map(|(agent, track)| host(entries, *agent, track, judges_revoked));
        Self {
            collector: selection.collector.and_then(|index| collector(entries, index)),
            catalogue_index: selection.catalogue,
            hosts: hosts.collect(),
        }
    }
}

impl Host {
    /// Returns what `controls` say of the host at `as_of`.
    pub fn judge<'a>(&self, controls: &[&'a Control], as_of: Timestamp) -> Vec<Verdict<'a>> {
        if !self.is_judged {
            return Vec::new();
        }
        let evidence = self.evidence();
        controls.iter().map(|control| self.verdict(control, control::judge(control, &evidence, as_of))).collect()
    }

    fn verdict<'a>(&self, control: &'a Control, judgement: Judgement) -> Verdict<'a> {
        // That a control does not apply follows from the class of the host.
        let class = [Subject::System];
        let does_not_apply = judgement.verdict == control::Verdict::NotApplicable;
        let subjects = if does_not_apply { class.as_slice() } else { &judgement.subjects };
        let facts: Vec<&HeldFact> = subjects.iter().filter_map(|subject| self.facts.get(subject)).collect();
        let mut indexes: Vec<u64> =
            facts.iter().flat_map(|fact| fact.indexes.iter().copied().chain([fact.confirmed_index])).collect();
        if control.reads_reporting || indexes.is_empty() {
            indexes.extend(self.heard.as_ref().or(self.last.as_ref()).map(|report| report.index));
        }
        if control.reads_acknowledged && subjects.contains(&Subject::FileIntegrity) {
            indexes.extend(self.acknowledged.iter().map(|(_, _, index)| index));
        }
        indexes.sort_unstable();
        indexes.dedup();
        Verdict {
            control,
            indexes,
            observed: facts.iter().map(|fact| fact.observed).min(),
            confirmed: facts.iter().map(|fact| fact.confirmed).min(),
            judgement,
        }
    }

    fn evidence(&self) -> Evidence {
        let reporting = Reporting {
            last_received: self.heard.as_ref().map(|heard| heard.received),
            skew_millis: self.heard.as_ref().map(|heard| heard.skew_millis).unwrap_or_default(),
        };
        if self.fact_set.is_some_and(|stated| !stated.agrees) {
            return Evidence::broken(self.agent, reporting, BROKEN, self.enrolled.received);
        }
        let observed = |(subject, fact): (&Subject, &HeldFact)| {
            (*subject, Observed::decode(*subject, &fact.bytes, fact.confirmed))
        };
        let facts = self.facts.iter().map(observed).collect();
        Evidence { host: self.agent, facts, reporting, acknowledged: self.acknowledged.clone() }
    }

    /// Returns what the host says of itself, if it could tell.
    pub fn system(&self) -> Option<System> {
        match Fact::decode(&self.facts.get(&Subject::System)?.bytes) {
            Ok(Fact::System(Reading::Known(system))) => Some(system),
            _ => None,
        }
    }
}

/// Why the facts of a host are unknown when they do not have the digest that it signed.
const BROKEN: &str = "the host's reports do not add up to the facts that it signed for";

fn host(entries: &BTreeMap<u64, Vec<u8>>, agent: AgentId, track: &Track, judges_revoked: bool) -> Option<Host> {
    let state = track.state();
    let looks: Vec<Look> = track.looks.iter().filter_map(|(probe, index)| look(entries, *probe, *index)).collect();
    let fact = |(subject, held): (&Subject, &Held<u64>)| Some((*subject, held_fact(entries, *subject, held, &looks)?));
    let opaque = |(number, held): (&Number, &Held<u64>)| (*number, Digest::of_bytes(&held.bytes), held.origins.clone());
    Some(Host {
        agent,
        state,
        is_judged: judges_revoked || state != State::Revoked,
        enrolled: enrolled(entries, track.enrolled?)?,
        last: track.last.and_then(|index| last(entries, index)),
        heard: track.heard.and_then(|index| last(entries, index)),
        fact_set: track.digest.map(|(index, digest)| StatedSet { index, digest, agrees: track.agrees() }),
        facts: track.set.facts().iter().filter_map(fact).collect(),
        opaque: track.set.opaque().iter().map(opaque).collect(),
        looks,
        acknowledged: track.acknowledged.clone(),
        acknowledgements: track.acknowledged.iter().filter_map(|it| acknowledgement(entries, it)).collect(),
    })
}

fn acknowledgement(
    entries: &BTreeMap<u64, Vec<u8>>,
    (path, after_digest, index): (&str, Digest, u64),
) -> Option<Acknowledgement> {
    let (received, Entry::Act(act)) = decode(entries, index)? else { return None };
    let Some(v1::act::Act::FileChangesAcknowledged(acknowledged)) = act.act else { return None };
    let v1::FileChangesAcknowledged { reason, reference, .. } = acknowledged;
    Some(Acknowledgement { index, received, actor: act.actor, reason, reference, path: path.to_owned(), after_digest })
}

fn held_fact(entries: &BTreeMap<u64, Vec<u8>>, subject: Subject, held: &Held<u64>, looks: &[Look]) -> Option<HeldFact> {
    let completed = *held.origins.last()?;
    let Admitted { received, skew_millis, .. } = admitted(entries, completed)?;
    let look = looks.iter().find(|look| look.probe == i32::from(subject.probe()) && look.index >= completed);
    let (confirmed, confirmed_index) = match look {
        Some(look) => (look.confirmed, look.index),
        None => (on_collector(held.observed, skew_millis, received), completed),
    };
    Some(HeldFact {
        bytes: held.bytes.clone(),
        indexes: held.origins.clone(),
        observed: held.observed,
        received,
        confirmed,
        confirmed_index,
    })
}

fn look(entries: &BTreeMap<u64, Vec<u8>>, probe: i32, index: u64) -> Option<Look> {
    let admitted = admitted(entries, index)?;
    let coverage: Coverage = match admitted.report.body {
        Body::Facts(facts) => facts.coverage,
        Body::Attestation(attestation) => attestation.coverage,
        Body::Gap(_) | Body::Lifecycle(_) => return None,
    };
    let looks = coverage.looks.iter().find(|looks| i32::from(looks.probe) == probe)?;
    let ended = coverage.last_look(looks.probe)?;
    Some(Look {
        probe,
        index,
        ended,
        confirmed: on_collector(ended, admitted.skew_millis, admitted.received),
        count: looks.count,
        largest_gap_millis: looks.largest_gap_millis,
    })
}

fn last(entries: &BTreeMap<u64, Vec<u8>>, index: u64) -> Option<LastReport> {
    let Admitted { received, skew_millis, report } = admitted(entries, index)?;
    Some(LastReport { index, received, skew_millis, report })
}

fn enrolled(entries: &BTreeMap<u64, Vec<u8>>, index: u64) -> Option<Enrolled> {
    let (received, Entry::Enrollment(entry)) = decode(entries, index)? else { return None };
    Some(Enrolled { index, received, entry })
}

fn collector(entries: &BTreeMap<u64, Vec<u8>>, index: u64) -> Option<Collector> {
    let (_, Entry::Act(act)) = decode(entries, index)? else { return None };
    let Some(v1::act::Act::CollectorCreated(created)) = act.act else { return None };
    let ca_digest = Digest::from_slice(&created.ca_digest);
    Some(Collector { index, name: created.name, log_key: created.log_key, ca_digest })
}

fn admitted(entries: &BTreeMap<u64, Vec<u8>>, index: u64) -> Option<Admitted> {
    let (received, Entry::Report(admitted)) = decode(entries, index)? else { return None };
    let report = Report::decode(&admitted.sealed?.report).ok()?;
    Some(Admitted { received, skew_millis: admitted.clock_skew_millis, report })
}

fn decode(entries: &BTreeMap<u64, Vec<u8>>, index: u64) -> Option<(Timestamp, Entry)> {
    let entry = v1::LogEntry::decode(entries.get(&index)?.as_slice()).ok()?;
    Some((entry.received_time.as_ref().and_then(Timestamp::from_wire)?, entry.entry?))
}
