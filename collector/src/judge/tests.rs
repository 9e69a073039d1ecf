//! The judge against logs made in memory: verdicts, histories, views and their rebuilding, watchers.

use std::{
    path::Path,
    sync::{LazyLock, Mutex},
};

use futures_util::FutureExt as _;
pub(crate) use muster_proto::report::PROBES;
use muster_proto::{
    fact::{Cause, Fact, HostClass, Reading, Subject},
    fact_set::FactSet,
    id::{Digest, Epoch, ReportSeq},
    report::{
        Attestation, Body, Coverage, Facts, Gap, GapCause, GapKind, Lifecycle, LifecycleKind, Probe, ProbeLooks,
        Report, SubjectFact, SubjectPart,
    },
    seal::{EvidenceKey, sealed_digest},
    v1,
};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::{
    control::{judge, sample},
    snapshot::select::Selector,
    views::{self, HISTORY_KEPT, HostRow, Origin, Views},
};

pub(crate) mod files;

pub(crate) static CATALOGUE: LazyLock<Arc<Catalogue>> = LazyLock::new(|| Arc::new(Catalogue::built_in()));

/// A log in memory.
#[derive(Default)]
pub(crate) struct MemoryLog(pub Mutex<Vec<Vec<u8>>>);

impl Entries for MemoryLog {
    fn entries(&self, range: std::ops::Range<u64>) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>> {
        let entries = self.0.lock().unwrap();
        entries.get(range.start as usize..range.end as usize).map(<[_]>::to_vec).ok_or_else(|| "outside".into())
    }
}

/// A clock that stands where it is put.
#[derive(Clone, Default)]
pub(crate) struct StillClock(pub Arc<Mutex<i64>>);

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(*self.0.lock().unwrap()).unwrap()
    }
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(sample::NOW_SECONDS + seconds).unwrap()
}

/// An agent that makes reports as the contract has them.
pub(crate) struct Sim {
    key: EvidenceKey,
    epoch: Epoch,
    seq: u64,
    previous: Option<Digest>,
    set: FactSet<()>,
    covered: Timestamp,
    skew_millis: i64,
    pub directives: Vec<u64>,
}

impl Sim {
    pub fn new() -> Self {
        Self {
            key: EvidenceKey::generate().unwrap().0,
            epoch: Epoch::new([1; 16]),
            seq: 0,
            previous: None,
            set: FactSet::default(),
            covered: at(0),
            skew_millis: 0,
            directives: Vec::new(),
        }
    }

    pub fn id(&self) -> AgentId {
        self.key.agent_id()
    }

    pub fn enrollment(&self, received: Timestamp) -> Vec<u8> {
        let enrollment = v1::Enrollment {
            agent_id: self.id().as_bytes().to_vec(),
            evidence_public_key: self.key.public_key().to_vec(),
            claim: Some(v1::HostClaim { hostname: "claimed".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        entry(received, v1::log_entry::Entry::Enrollment(enrollment))
    }

    pub fn report(&mut self, received: Timestamp, body: Body) -> Vec<u8> {
        self.seq += 1;
        let report = Report {
            agent: self.id(),
            epoch: self.epoch,
            seq: ReportSeq::new(self.seq).unwrap(),
            previous: self.previous,
            observed: received,
            boot_id: [0; 16],
            since_boot_millis: 1,
            agent_version: "0.1.0".into(),
            profile_revision: 0,
            last_checkpoint: None,
            body,
        };
        let sealed = self.key.seal(report.encode());
        self.previous = Some(sealed_digest(&sealed));
        let admitted = v1::AdmittedReport { sealed: Some(sealed), clock_skew_millis: self.skew_millis };
        entry(received, v1::log_entry::Entry::Report(admitted))
    }

    fn coverage(&mut self, now: Timestamp, probes: &[Probe]) -> Coverage {
        let start = self.covered.min(now);
        self.covered = now;
        let looks = probes
            .iter()
            .map(|probe| ProbeLooks { probe: *probe, count: 1, last_before_end_millis: 0, largest_gap_millis: 0 })
            .collect();
        Coverage { start, end: now, looks, suspended_millis: 0, directive_ids: std::mem::take(&mut self.directives) }
    }

    pub fn facts(&mut self, now: Timestamp, facts: &[Fact], resync: bool) -> Vec<u8> {
        let mut probes: Vec<Probe> = facts.iter().map(|fact| fact.subject().probe()).collect();
        probes.sort_unstable();
        probes.dedup();
        let coverage = self.coverage(now, &probes);
        self.encoded_facts(now, facts.iter().map(Fact::encode).collect(), coverage, resync)
    }

    /// Reports encoded facts, also such as this build cannot read.
    fn encoded_facts(&mut self, now: Timestamp, facts: Vec<Vec<u8>>, coverage: Coverage, resync: bool) -> Vec<u8> {
        let mut body = Facts {
            subjects: facts.into_iter().map(|fact| SubjectFact { observed: now, fact }).collect(),
            part: None,
            fact_set_digest: Digest::new([0; 32]),
            coverage,
            resync,
        };
        self.put_digest(&mut body);
        self.report(now, Body::Facts(body))
    }

    /// Returns a fact in two reports.
    fn facts_in_parts(&mut self, now: Timestamp, fact: &Fact) -> [Vec<u8>; 2] {
        let bytes = fact.encode();
        let (left, right) = bytes.split_at(bytes.len() / 2);
        self.parts(now, fact, &[left, right]).try_into().unwrap()
    }

    fn parts(&mut self, now: Timestamp, fact: &Fact, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let digest = Digest::of_bytes(&parts.concat());
        let count = u32::try_from(parts.len()).unwrap();
        let mut report = |(index, part): (u32, &&[u8])| {
            let coverage = self.coverage(now, &[fact.subject().probe()]);
            let part = SubjectPart { observed: now, index, count, digest, bytes: part.to_vec() };
            let mut body = Facts {
                subjects: Vec::new(),
                part: Some(part),
                fact_set_digest: Digest::new([0; 32]),
                coverage,
                resync: false,
            };
            self.put_digest(&mut body);
            self.report(now, Body::Facts(body))
        };
        (0..).zip(parts).map(&mut report).collect()
    }

    /// Returns a fact in as many reports as it needs.
    pub fn in_parts(&mut self, now: Timestamp, fact: &Fact) -> Vec<Vec<u8>> {
        let bytes = fact.encode();
        let parts: Vec<&[u8]> = bytes.chunks(muster_proto::limits::SUBJECT_BYTES_PER_REPORT).collect();
        self.parts(now, fact, &parts)
    }

    /// Puts the digest of the set after `facts` into them.
    fn put_digest(&mut self, facts: &mut Facts) {
        // An empty set takes nothing but the beginning of all facts.
        facts.resync |= self.set.facts().is_empty() && !self.set.is_partial();
        // The set refuses a wrong digest and stays as it was, so that the digest is found on a copy without the check.
        let mut after = self.set.clone();
        after.replay(facts, &());
        facts.fact_set_digest = after.digest();
        self.set.apply(facts, &()).unwrap();
    }

    pub fn attestation(&mut self, now: Timestamp, probes: &[Probe]) -> Vec<u8> {
        let coverage = self.coverage(now, probes);
        self.report(now, Body::Attestation(Attestation { fact_set_digest: self.set.digest(), coverage }))
    }

    fn lie(&mut self, now: Timestamp) -> Vec<u8> {
        let coverage = self.coverage(now, &PROBES);
        self.report(now, Body::Attestation(Attestation { fact_set_digest: Digest::new([9; 32]), coverage }))
    }

    /// Reports everything again, with a fact that is none.
    fn undecodable(&mut self, now: Timestamp) -> Vec<u8> {
        let coverage = self.coverage(now, &PROBES);
        let subjects = vec![SubjectFact { observed: now, fact: b"\xff\xff".to_vec() }];
        let fact_set_digest = Digest::new([9; 32]);
        self.report(now, Body::Facts(Facts { subjects, part: None, fact_set_digest, coverage, resync: true }))
    }

    fn lifecycle(&mut self, now: Timestamp) -> Vec<u8> {
        let lifecycle = Lifecycle { kind: LifecycleKind::Started, detail: "".into(), previous: None, probe: None };
        self.report(now, Body::Lifecycle(lifecycle))
    }

    fn gap(&mut self, now: Timestamp) -> Vec<u8> {
        let gap = Gap {
            cause: GapCause::NotRunning,
            start: now,
            end: now,
            lost: None,
            counts: Vec::new(),
            detail: "".into(),
        };
        self.report(now, Body::Gap(gap))
    }

    fn new_epoch(&mut self) {
        let mut bytes = *self.epoch.as_bytes();
        bytes[0] += 1;
        (self.epoch, self.seq, self.previous, self.set) = (Epoch::new(bytes), 0, None, FactSet::default());
    }
}

pub(crate) fn entry(received: Timestamp, entry: v1::log_entry::Entry) -> Vec<u8> {
    v1::LogEntry { received_time: Some(received.to_wire()), entry: Some(entry) }.encode_to_vec()
}

pub(crate) fn act(received: Timestamp, act: v1::act::Act) -> Vec<u8> {
    let act = v1::Act { actor: "spiffe://c/admin/a".to_owned(), credential_serial: String::new(), act: Some(act) };
    entry(received, v1::log_entry::Entry::Act(act))
}

pub(crate) fn origin() -> Origin {
    Origin { log: "c".to_owned() }
}

/// Opens views at `path` and who follows `log` into them.
pub(crate) fn open(path: &Path, log: &Arc<MemoryLog>, clock: &StillClock) -> (Views, Follower) {
    let size = log.0.lock().unwrap().len() as u64;
    let (views, writer) = Views::open(path, &origin(), size).unwrap();
    let follower = Follower::new(log.clone(), writer, Arc::new(clock.clone())).unwrap();
    (views, follower)
}

fn log_of(entries: Vec<Vec<u8>>) -> Arc<MemoryLog> {
    Arc::new(MemoryLog(Mutex::new(entries)))
}

/// Returns views of the whole log, made at once.
fn views_of(dir: &Path, name: &str, log: &Arc<MemoryLog>) -> Views {
    let (views, mut follower) = open(&dir.join(name), log, &StillClock::default());
    let size = log.0.lock().unwrap().len() as u64;
    follower.catch_up(size).unwrap();
    views
}

fn changed(facts: Vec<Fact>, which: Subject, change: impl Fn(&mut Fact)) -> Fact {
    let mut fact = facts.into_iter().find(|fact| fact.subject() == which).unwrap();
    change(&mut fact);
    fact
}

fn firewall(is_open: bool) -> Fact {
    changed(sample::healthy(), Subject::Firewall, |fact| {
        if let Fact::Firewall(Reading::Known(firewall)) = fact
            && is_open
        {
            firewall.inbound_ipv6 = Reading::Known(muster_proto::fact::Inbound::Allow);
        }
    })
}

fn verdict_of(host: &HostRow, control: &str, now: Timestamp) -> Standing {
    let catalogue = &*CATALOGUE;
    let found = standings(catalogue.controls(), host, now).into_iter().find(|(c, _)| c.id.as_str() == control);
    found.unwrap().1
}

#[test]
fn a_host_is_judged_by_what_it_reported_and_by_how_long_ago() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let log = log_of(vec![sim.enrollment(at(0)), sim.facts(at(10), &sample::healthy(), true)]);
    let views = views_of(dir.path(), "v", &log);
    let (applied, hosts) = views.hosts().unwrap();
    assert_eq!((applied, hosts.len()), (2, 1));
    assert_eq!((hosts[0].agent.hostname.as_str(), hosts[0].agent.host_class.as_str()), ("web-1", "server"));
    let catalogue = &*CATALOGUE;
    for (control, standing) in standings(catalogue.controls(), &hosts[0], at(10)) {
        let applies = control.applies_to.is_empty() || control.applies_to.contains(&HostClass::Server);
        let expected = if applies { Verdict::Pass } else { Verdict::NotApplicable };
        assert_eq!(standing.verdict, expected, "{}: {}", control.id, standing.reason);
        assert_eq!(standing.since, Some(at(10)));
    }
    let day = 86_400;
    assert_eq!(verdict_of(&hosts[0], "ENC-01", at(10 + day - 1)).verdict, Verdict::Pass);
    let stale = verdict_of(&hosts[0], "ENC-01", at(10 + day));
    assert_eq!((stale.verdict, stale.since), (Verdict::NoData, Some(at(10 + day))));
    let silent = verdict_of(&hosts[0], "INV-02", at(10 + 7 * 3600));
    assert_eq!((silent.verdict, silent.since), (Verdict::Fail, Some(at(10 + 6 * 3600 + 1))));
}

#[test]
fn an_attestation_keeps_facts_fresh_and_a_change_is_a_new_verdict_with_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let hour = 3600;
    let log = log_of(vec![
        sim.enrollment(at(0)),
        sim.facts(at(10), &sample::healthy(), true),
        sim.attestation(at(20 * hour), &PROBES),
        sim.facts(at(21 * hour), &[firewall(true)], false),
        sim.facts(at(22 * hour), &[firewall(false)], false),
    ]);
    let views = views_of(dir.path(), "v", &log);
    let (_, hosts) = views.hosts().unwrap();
    assert_eq!(verdict_of(&hosts[0], "ENC-01", at(43 * hour)).verdict, Verdict::Pass);
    assert_eq!(verdict_of(&hosts[0], "ENC-01", at(44 * hour)).verdict, Verdict::NoData);
    let history = views.verdict_history(sim.id(), "FWL-01").unwrap();
    let told: Vec<_> = history.iter().map(|(index, row)| (*index, row.verdict, row.since)).collect();
    assert_eq!(
        told,
        [
            (0, Verdict::NoData, None),
            (1, Verdict::Pass, Some(at(10))),
            (3, Verdict::Fail, Some(at(21 * hour))),
            (4, Verdict::Pass, Some(at(22 * hour))),
        ]
    );
    assert!(history[2].1.reason.contains("IPv6: allow"));
    // The firewall as it was between the two changes.
    let past = views.as_of(&*log, 5, at(21 * hour + 5)).unwrap();
    assert_eq!(past[0].facts[&Subject::Firewall].held.bytes, firewall(true).encode());
    assert_eq!(past[0].last_report.unwrap().log_index, 3);
    assert_eq!(past[0].looks.get(Probe::DiskEncryption).unwrap().log_index, 2);
}

#[test]
fn a_failure_that_is_certain_without_all_subjects_goes_stale_and_holds_again_with_the_next_look() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let day = 86_400;
    let off = changed(sample::healthy(), Subject::System, |fact| {
        if let Fact::System(Reading::Known(system)) = fact {
            system.secure_boot = Reading::Known(muster_proto::fact::SecureBoot::Off);
        }
    });
    let log = log_of(vec![
        sim.enrollment(at(0)),
        sim.facts(at(10), &[off], true),
        sim.attestation(at(9 * day), &[]),
        sim.attestation(at(9 * day + 600), &PROBES),
    ]);
    let views = views_of(dir.path(), "v", &log);
    let told: Vec<_> =
        history_of(&views, &sim, "PLT-01").into_iter().map(|(index, verdict, ..)| (index, verdict)).collect();
    assert_eq!(told, [(0, Verdict::NoData), (1, Verdict::Fail), (2, Verdict::NoData), (3, Verdict::Fail)]);
    let (_, hosts) = views.hosts().unwrap();
    let stale = verdict_of(&hosts[0], "PLT-01", at(20 * day));
    assert_eq!((stale.verdict, stale.reason.as_str()), (Verdict::NoData, "nothing was reported about boot"));
}

/// Returns the history of a control: log index, verdict, since when, and when it was judged.
fn history_of(views: &Views, sim: &Sim, control: &str) -> Vec<(u64, Verdict, Option<Timestamp>, Timestamp)> {
    let history = views.verdict_history(sim.id(), control).unwrap();
    history.into_iter().map(|(index, row)| (index, row.verdict, row.since, row.judged_at)).collect()
}

#[test]
fn an_episode_that_time_brought_stays_in_the_history_when_a_report_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let (hour, day) = (3600, 86_400);
    let log = log_of(vec![
        sim.enrollment(at(0)),
        sim.facts(at(10), &sample::healthy(), true),
        sim.attestation(at(3 * day), &PROBES),
    ]);
    let views = views_of(dir.path(), "v", &log);
    let (silent, stale) = (at(10 + 6 * hour + 1), at(10 + day));
    assert_eq!(
        history_of(&views, &sim, "INV-02"),
        [
            (0, Verdict::NoData, None, at(0)),
            (1, Verdict::Pass, Some(at(10)), at(10)),
            (2, Verdict::Fail, Some(silent), silent),
            (2, Verdict::Pass, Some(at(3 * day)), at(3 * day)),
        ]
    );
    assert_eq!(
        history_of(&views, &sim, "ENC-01"),
        [
            (0, Verdict::NoData, None, at(0)),
            (1, Verdict::Pass, Some(at(10)), at(10)),
            (2, Verdict::NoData, Some(stale), stale),
            (2, Verdict::Pass, Some(at(3 * day)), at(3 * day)),
        ]
    );
    let (_, hosts) = views.hosts().unwrap();
    for control in ["INV-02", "ENC-01"] {
        assert_eq!(verdict_of(&hosts[0], control, at(3 * day)).since, Some(at(3 * day)), "{control}");
    }
}

#[test]
fn a_turn_and_then_staleness_are_two_episodes_and_what_goes_on_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let day = 86_400;
    // A restart that is overdue a day after the look, which itself holds for two days.
    let restart = changed(sample::healthy(), Subject::PatchLevel, |fact| {
        if let Fact::PatchLevel(Reading::Known(patch)) = fact {
            patch.reboot_required = Reading::Known(true);
            patch.reboot_required_since_time = Some(Reading::Known(at(-6 * day)));
        }
    });
    let mut facts = sample::healthy();
    facts.retain(|fact| fact.subject() != Subject::PatchLevel);
    facts.push(restart);
    let log = log_of(vec![
        sim.enrollment(at(0)),
        sim.facts(at(0), &facts, true),
        sim.attestation(at(5 * day), &[]),
        sim.attestation(at(6 * day), &PROBES),
        sim.attestation(at(6 * day + 600), &PROBES),
    ]);
    let views = views_of(dir.path(), "v", &log);
    let turned = at(day + 1);
    assert_eq!(
        history_of(&views, &sim, "PAT-04")[1..],
        [
            (1, Verdict::Pass, Some(at(0)), at(0)),
            (2, Verdict::Fail, Some(turned), turned),
            (2, Verdict::NoData, Some(at(2 * day)), at(2 * day)),
            (3, Verdict::Fail, Some(at(6 * day)), at(6 * day)),
        ]
    );
}

#[test]
fn a_skew_beyond_the_limit_is_judged_with_the_report_that_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let first = sim.facts(at(10), &sample::healthy(), true);
    sim.skew_millis = 9000;
    let log = log_of(vec![sim.enrollment(at(0)), first, sim.attestation(at(20), &PROBES)]);
    let views = views_of(dir.path(), "v", &log);
    let (_, hosts) = views.hosts().unwrap();
    let standing = verdict_of(&hosts[0], "TIM-01", at(20));
    assert_eq!(standing.verdict, Verdict::Fail, "{}", standing.reason);
    assert!(standing.reason.contains("9000 ms"), "{}", standing.reason);
}

#[test]
fn reports_that_do_not_add_up_make_every_fact_unknown_until_they_do_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let log = log_of(vec![
        sim.enrollment(at(0)),
        sim.facts(at(10), &sample::healthy(), true),
        sim.lie(at(20)),
        sim.attestation(at(30), &PROBES),
    ]);
    let (views, mut follower) = open(&dir.path().join("v"), &log, &StillClock::default());
    let mut resync = follower.judge().resync();
    follower.catch_up(3).unwrap();
    assert_eq!(resync.try_recv(), Ok(sim.id()));
    let (_, hosts) = views.hosts().unwrap();
    let standing = verdict_of(&hosts[0], "ENC-01", at(20));
    assert_eq!(standing.verdict, Verdict::Unknown);
    assert!(standing.reason.contains("garbled (reports do not add up since log entry 2"), "{}", standing.reason);
    follower.catch_up(4).unwrap();
    let (_, hosts) = views.hosts().unwrap();
    assert_eq!(verdict_of(&hosts[0], "ENC-01", at(30)).verdict, Verdict::Pass);
    let past = views.as_of(&*log, 3, at(1000)).unwrap();
    assert_eq!(judge(CATALOGUE.control("ENC-01").unwrap(), &past[0].evidence(), at(20)).verdict, Verdict::Unknown);
}

#[test]
fn an_agent_that_lies_in_every_other_report_is_judged_again_once_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let mut entries = vec![sim.enrollment(at(0)), sim.facts(at(10), &sample::healthy(), true)];
    for second in 20..80 {
        entries.extend([sim.lie(at(second)), sim.attestation(at(second), &PROBES)]);
    }
    entries.push(sim.attestation(at(80), &PROBES));
    let log = log_of(entries);
    let views = views_of(dir.path(), "v", &log);
    let history = history_of(&views, &sim, "ENC-01");
    let told: Vec<_> = history.iter().map(|(_, verdict, _, judged_at)| (*verdict, *judged_at)).collect();
    assert_eq!(
        told[1..],
        [
            (Verdict::Pass, at(10)),
            (Verdict::Unknown, at(20)),
            // The first time at once, as of an honest agent.
            (Verdict::Pass, at(20)),
            (Verdict::Unknown, at(21)),
            (Verdict::Pass, at(80)),
        ]
    );
    let breaks = views.dump().unwrap().iter().filter(|line| line.starts_with("breaks")).count();
    assert_eq!(breaks, 2);
}

#[test]
fn of_a_verdict_that_changes_without_end_the_newest_part_is_kept_and_the_rest_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let mut entries = vec![sim.enrollment(at(0)), sim.facts(at(10), &sample::healthy(), true)];
    let changes = HISTORY_KEPT + 7;
    entries.extend((0..changes).map(|change| sim.facts(at(20 + change as i64), &[firewall(change % 2 == 0)], false)));
    let log = log_of(entries);
    let views = views_of(dir.path(), "v", &log);
    let history = history_of(&views, &sim, "FWL-01");
    assert_eq!(history.len() as u64, HISTORY_KEPT);
    assert_eq!(history.last().map(|(index, ..)| *index), Some(changes + 1));
    // No data and the first pass came before.
    assert_eq!(views.dropped(sim.id()).unwrap(), [("verdict_history".to_owned(), 9)].into());
    assert_eq!(history_of(&views, &sim, "ENC-01").len(), 2);
}

/// A fact about a subject of a later contract: number 900, a state of two bytes.
const LATER: [u8; 5] = [0xa2, 0x38, 2, 8, 1];

#[test]
fn a_fact_that_this_build_cannot_read_is_kept_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let enrollment = sim.enrollment(at(0));
    let coverage = sim.coverage(at(10), &PROBES);
    let all = sample::healthy().iter().map(Fact::encode).chain([LATER.to_vec()]).collect();
    let log = log_of(vec![
        enrollment,
        sim.encoded_facts(at(10), all, coverage, true),
        sim.facts(at(20), &[firewall(true)], false),
        sim.facts(at(30), &sample::healthy(), true),
        sim.facts(at(40), &[firewall(true)], false),
    ]);
    // Opened anew for each entry: the digest of each change covers the fact that could not be read, until all is told without it.
    for (size, expected) in [(2, Verdict::Pass), (3, Verdict::Fail), (4, Verdict::Pass), (5, Verdict::Fail)] {
        let (views, mut follower) = open(&dir.path().join("v"), &log, &StillClock::default());
        let mut resync = follower.judge().resync();
        follower.catch_up(size).unwrap();
        assert!(resync.try_recv().is_err(), "everything is asked for again at {size}");
        let (_, hosts) = views.hosts().unwrap();
        let standing = verdict_of(&hosts[0], "FWL-01", at(40));
        assert_eq!(standing.verdict, expected, "{size}: {}", standing.reason);
        let kept = views.dump().unwrap().iter().filter(|line| line.starts_with("opaque_facts")).count();
        assert_eq!(kept, usize::from(size < 4), "{size}");
    }
    let (followed, _) = open(&dir.path().join("v"), &log, &StillClock::default());
    assert_eq!(followed.digest().unwrap(), views_of(dir.path(), "anew", &log).digest().unwrap());
}

#[test]
fn an_answer_that_is_as_wrong_as_before_is_not_asked_for_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let log = log_of(vec![sim.enrollment(at(0)), sim.undecodable(at(10))]);
    let (_views, mut follower) = open(&dir.path().join("v"), &log, &StillClock::default());
    let mut resync = follower.judge().resync();
    // Answers each request one second later, and attests every hour, for a day.
    let (mut answers, mut asked_first) = (0, 0);
    for hour in 0..24 {
        let mut now = 20 + hour * 3600;
        log.0.lock().unwrap().push(sim.lie(at(now)));
        let size = |log: &MemoryLog| log.0.lock().unwrap().len() as u64;
        follower.catch_up(size(&log)).unwrap();
        while resync.try_recv().is_ok() {
            now += 1;
            answers += 1;
            assert!(answers < 100, "asked without end");
            log.0.lock().unwrap().push(sim.undecodable(at(now)));
            follower.catch_up(size(&log)).unwrap();
        }
        if hour == 0 {
            asked_first = answers;
        }
    }
    assert_eq!(asked_first, 1);
    assert!((5..=24).contains(&answers), "{answers}");
    // What adds up ends it, and what does not add up after that is asked for at once.
    log.0.lock().unwrap().extend([sim.facts(at(90_000), &sample::healthy(), true), sim.lie(at(90_001))]);
    let size = log.0.lock().unwrap().len() as u64;
    follower.catch_up(size).unwrap();
    assert_eq!(resync.try_recv(), Ok(sim.id()));
}

#[test]
fn a_bad_entry_is_recorded_and_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let admitted = |report: &[u8]| {
        let sealed = v1::SealedReport { report: report.to_vec(), signature: vec![0; 64] };
        v1::log_entry::Entry::Report(v1::AdmittedReport { sealed: Some(sealed), clock_skew_millis: i64::MIN })
    };
    let mut facts_of_nothing = sim.facts(at(10), &sample::healthy(), true);
    let garbled = facts_of_nothing.split_off(facts_of_nothing.len() / 2);
    let mut sim = Sim::new();
    let log = log_of(vec![
        b"\xff\xff".to_vec(),
        Vec::new(),
        garbled,
        entry(at(1), admitted(b"\xff")),
        entry(at(1), v1::log_entry::Entry::Conflict(v1::Conflict { agent_id: vec![1; 16], ..Default::default() })),
        entry(at(1), v1::log_entry::Entry::Enrollment(v1::Enrollment::default())),
        v1::LogEntry { received_time: Some(prost_types::Timestamp { seconds: -1, nanos: -1 }), entry: None }
            .encode_to_vec(),
        sim.enrollment(at(2)),
        sim.facts(at(10), &sample::healthy(), true),
    ]);
    let views = views_of(dir.path(), "v", &log);
    let bad: Vec<u64> = views.bad_entries().unwrap().into_iter().map(|(index, _)| index).collect();
    assert_eq!(bad, [0, 1, 2, 3, 4, 5, 6]);
    let (_, hosts) = views.hosts().unwrap();
    assert_eq!(verdict_of(&hosts[0], "ENC-01", at(10)).verdict, Verdict::Pass);
}

#[test]
fn a_fact_in_parts_survives_a_restart_between_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let first = sim.facts(at(10), &sample::healthy(), true);
    let [left, right] = sim.facts_in_parts(at(20), &firewall(true));
    let log = log_of(vec![sim.enrollment(at(0)), first, left, right]);
    let path = dir.path().join("v");
    for size in 1..=4 {
        let (_, mut follower) = open(&path, &log, &StillClock::default());
        follower.catch_up(size).unwrap();
    }
    let (views, _) = open(&path, &log, &StillClock::default());
    let (_, hosts) = views.hosts().unwrap();
    assert_eq!(hosts[0].facts[&Subject::Firewall].origins, [2, 3]);
    assert_eq!(verdict_of(&hosts[0], "FWL-01", at(20)).verdict, Verdict::Fail);
    assert_eq!(views.digest().unwrap(), views_of(dir.path(), "again", &log).digest().unwrap());
}

#[test]
fn damaged_or_foreign_views_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let log = log_of(vec![sim.enrollment(at(0)), sim.facts(at(10), &sample::healthy(), true)]);
    let expected = views_of(dir.path(), "fresh", &log).digest().unwrap();
    let path = dir.path().join("v");
    let check = |what: &str| {
        let (views, mut follower) = open(&path, &log, &StillClock::default());
        assert_eq!(views.applied().unwrap(), 0, "{what}");
        follower.catch_up(2).unwrap();
        drop(follower);
        assert_eq!(views.digest().unwrap(), expected, "{what}");
    };
    std::fs::write(&path, b"not a database").unwrap();
    check("not a database");
    // Else the file's pages are still in the write-ahead log, and what is overwritten does not count.
    views::run_statements(&path, "PRAGMA wal_checkpoint(TRUNCATE)");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[100..end].fill(0x55);
    std::fs::write(&path, bytes).unwrap();
    check("overwritten");
    for (statement, what) in [
        ("PRAGMA user_version = 99", "another version"),
        ("UPDATE meta SET value = 'x' WHERE name = 'log'", "another log"),
        ("UPDATE meta SET value = 3 WHERE name = 'applied'", "ahead of the log"),
        ("DROP TABLE meta", "without its position"),
    ] {
        views::run_statements(&path, statement);
        check(what);
    }
    // Untouched, they stay.
    let (views, _) = open(&path, &log, &StillClock::default());
    assert_eq!(views.applied().unwrap(), 2);
}

#[test]
fn watchers_hear_of_changes_by_entries_and_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    sim.directives = vec![41, 42];
    let log = log_of(vec![
        sim.enrollment(at(0)),
        sim.facts(at(10), &sample::healthy(), true),
        sim.attestation(at(5 * 86_400), &PROBES),
    ]);
    let clock = StillClock::default();
    *clock.0.lock().unwrap() = at(10).seconds();
    let (_, mut follower) = open(&dir.path().join("v"), &log, &clock);
    let (mut changes, mut answers) = (follower.judge().changes(), follower.judge().answers());
    answers.ask(sim.id(), || Ok::<_, ()>(42)).unwrap();
    let mut heard = move || {
        let mut heard = Vec::new();
        while let Ok(change) = changes.try_recv() {
            if ["ENC-01", "INV-02"].contains(&change.control.as_str()) {
                heard.push((change.control.clone(), change.previous, change.standing.verdict));
            }
        }
        heard
    };
    let (enc, inv) = ("ENC-01".to_owned(), "INV-02".to_owned());
    follower.catch_up(2).unwrap();
    assert_eq!(heard(), [(enc.clone(), None, Verdict::Pass), (inv.clone(), None, Verdict::Pass)]);
    assert_eq!(answers.next().now_or_never(), Some(Some((sim.id(), 42))));
    assert_eq!(answers.next().now_or_never(), None);
    follower.on_tick();
    assert_eq!(heard(), []);
    *clock.0.lock().unwrap() = at(5 * 86_400).seconds();
    follower.on_tick();
    let pass = Some(Verdict::Pass);
    assert_eq!(heard(), [(enc.clone(), pass, Verdict::NoData), (inv.clone(), pass, Verdict::Fail)]);
    follower.catch_up(3).unwrap();
    assert_eq!(heard(), [(enc, Some(Verdict::NoData), Verdict::Pass), (inv, Some(Verdict::Fail), Verdict::Pass)]);
    assert_eq!(*follower.judge().applied().borrow(), 3);
}

#[test]
fn each_span_of_the_log_is_judged_by_the_catalogue_in_force_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let hour = 3600;
    let log = log_of(vec![
        sim.enrollment(at(0)),
        catalogue_entry(at(1), 0),
        sim.facts(at(10), &sample::healthy(), true),
        catalogue_entry(at(60), 2),
        sim.attestation(at(hour), &PROBES),
        catalogue_entry(at(2 * hour), 1),
        catalogue_entry(at(2 * hour + 1), 1),
        sim.attestation(at(12 * hour), &PROBES),
    ]);
    let path = dir.path().join("v");
    let (views, mut follower) = open(&path, &log, &StillClock::default());
    for size in 1..=8 {
        follower.catch_up(size).unwrap();
    }
    assert_eq!(follower.judge().catalogue().digest(), catalogue(1).digest());
    let versions = |control: &str| -> Vec<(u64, Verdict, Option<Timestamp>, String)> {
        let history = views.verdict_history(sim.id(), control).unwrap();
        let version = |at: u64, step: usize| {
            let line = format!("verdict_history {} {control:?} Integer({at}) Integer({step})", sim.id());
            let lines = views.dump().unwrap();
            let line = lines.iter().find(|found| found.starts_with(&line)).unwrap_or_else(|| panic!("no {line}"));
            line.rsplit('"').nth(1).unwrap().to_owned()
        };
        let step = |row: &views::VerdictRow| if row.judged_at == at(3 * hour + 1) { 0 } else { 2 };
        history.iter().map(|(at, row)| (*at, row.verdict, row.since, version(*at, step(row)))).collect()
    };
    let version = |which| catalogue(which).version().to_owned();
    // A control of the operator's own judges what is known from its entry on, and ends with it.
    assert_eq!(
        versions("ACME-01"),
        [(3, Verdict::Fail, Some(at(60)), version(2)), (5, Verdict::NotApplicable, Some(at(2 * hour)), version(1)),]
    );
    // A stricter limit: what was said before keeps the version that said it.
    assert_eq!(
        versions("FWL-02")[1..],
        [(2, Verdict::Pass, Some(at(10)), version(0)), (5, Verdict::Fail, Some(at(2 * hour)), version(1))]
    );
    // Silence counts by the limit in force while it lasts: after three hours, not after six.
    assert_eq!(
        versions("INV-02")[1..],
        [
            (2, Verdict::Pass, Some(at(10)), version(0)),
            (7, Verdict::Fail, Some(at(3 * hour + 1)), version(1)),
            (7, Verdict::Pass, Some(at(12 * hour)), version(1)),
        ]
    );
    let (_, hosts) = views.hosts().unwrap();
    assert!(!hosts[0].verdicts.contains_key("ACME-01"));
    // A start goes on with the catalogue in force, and views made again are the same.
    drop(follower);
    let (again, follower) = open(&path, &log, &StillClock::default());
    assert_eq!(again.applied().unwrap(), 8);
    assert_eq!(follower.judge().catalogue().digest(), catalogue(1).digest());
    assert_eq!(again.dump().unwrap(), views_of(dir.path(), "again", &log).dump().unwrap());
    // All of it can be had from the log alone.
    let texts: Vec<Vec<u8>> = log.0.lock().unwrap().clone();
    let Some(v1::log_entry::Entry::Catalogue(told)) = v1::LogEntry::decode(&texts[3][..]).unwrap().entry else {
        panic!("no catalogue")
    };
    assert!(String::from_utf8(told.overlay).unwrap().contains("ACME-01"));
}

#[test]
fn a_statement_makes_a_hidden_reading_pass_between_its_two_instants() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let overlay = format!(
        "[[statement]]\nkind = \"disk_encryption\"\nprovider = \"Example Cloud\"\nreference = \"contract 7\"\n\
         document_sha256 = \"{}\"\nhosts = [\"{}\"]\nfrom = \"{}\"\nuntil = \"{}\"",
        Digest::of_bytes(b"a document"),
        sim.id(),
        at(100),
        at(7200)
    );
    let stated = Catalogue::with_overlay(&overlay).unwrap();
    let hidden = changed(sample::healthy(), Subject::DiskEncryption, |fact| {
        if let Fact::DiskEncryption(Reading::Known(disk)) = fact {
            disk.volumes[0].encrypted = Reading::unknown(Cause::Hidden, "a virtual disk");
        }
    });
    let mut all = sample::healthy();
    all.retain(|fact| fact.subject() != Subject::DiskEncryption);
    all.push(hidden);
    let log = log_of(vec![
        sim.enrollment(at(0)),
        entry(at(1), v1::log_entry::Entry::Catalogue(stated.to_entry())),
        sim.facts(at(10), &all, true),
        sim.attestation(at(3600), &PROBES),
        entry(at(3700), v1::log_entry::Entry::Catalogue(Catalogue::built_in().to_entry())),
    ]);
    let path = dir.path().join("v");
    let (views, mut follower) = open(&path, &log, &StillClock::default());
    let standing = |now| {
        let (_, hosts) = views.hosts().unwrap();
        let found = standings(stated.controls(), &hosts[0], now).into_iter().find(|(c, _)| c.id.as_str() == "ENC-01");
        let standing = found.unwrap().1;
        (standing.verdict, standing.since, standing.reason.starts_with("by the statement of Example Cloud"))
    };
    follower.catch_up(3).unwrap();
    assert_eq!(standing(at(99)), (Verdict::Unknown, Some(at(10)), false));
    assert_eq!(standing(at(100)), (Verdict::Pass, Some(at(100)), true));
    follower.catch_up(4).unwrap();
    assert_eq!(standing(at(7199)), (Verdict::Pass, Some(at(100)), true));
    assert_eq!(standing(at(7200)), (Verdict::Unknown, Some(at(7200)), false));
    // Revoked: a catalogue without it is in force.
    follower.catch_up(5).unwrap();
    assert_eq!(standing(at(3700)).0, Verdict::Unknown);
    assert_eq!(views.dump().unwrap(), views_of(dir.path(), "again", &log).dump().unwrap());
    let judged = |size, now| {
        let past = views.as_of(&*log, size, now).unwrap();
        judge(stated.control("ENC-01").unwrap(), &past[0].evidence(), now).verdict
    };
    assert_eq!((judged(4, at(3601)), judged(4, at(7200))), (Verdict::Pass, Verdict::Unknown));
}

#[test]
fn a_catalogue_without_its_texts_is_passed_over_and_the_one_before_judges_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let mut without = catalogue(1).to_entry();
    without.overlay.clear();
    let log = log_of(vec![
        sim.enrollment(at(0)),
        entry(at(1), v1::log_entry::Entry::Catalogue(without)),
        sim.facts(at(10), &sample::healthy(), true),
    ]);
    let views = views_of(dir.path(), "v", &log);
    assert_eq!(views.bad_entries().unwrap()[0].0, 1);
    assert_eq!(views.catalogue_digest().unwrap(), None);
    let (_, hosts) = views.hosts().unwrap();
    assert_eq!(verdict_of(&hosts[0], "FWL-02", at(10)).verdict, Verdict::Pass);
}

#[test]
fn a_gap_is_in_the_views_with_its_span_cause_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let first = sim.facts(at(10), &sample::healthy(), true);
    let gap = Gap {
        cause: GapCause::SpoolFull,
        start: at(20),
        end: at(30),
        lost: None,
        counts: vec![(GapKind::Looks, 7)],
        detail: "full".into(),
    };
    let log = log_of(vec![sim.enrollment(at(0)), first, sim.report(at(40), Body::Gap(gap)), sim.gap(at(50))]);
    let views = views_of(dir.path(), "v", &log);
    let gaps = views.gaps(sim.id(), 10).unwrap();
    assert_eq!(gaps.iter().map(|gap| (gap.log_index, gap.seq)).collect::<Vec<_>>(), [(3, 3), (2, 2)]);
    let told = &gaps[1];
    assert_eq!((told.cause, told.start, told.end, told.lost), (GapCause::SpoolFull.into(), at(20), at(30), None));
    assert_eq!((told.counts.as_slice(), told.detail.as_str()), ([("looks".to_owned(), 7)].as_slice(), "full"));
    assert_eq!(views.gaps(sim.id(), 1).unwrap(), gaps[..1]);
}

/// One step of a fleet.
#[derive(Clone, Debug)]
enum Step {
    Facts { which: u32, is_open: bool, is_resync: bool },
    Old { minutes: i64 },
    Files(u32),
    Acknowledge,
    Parts,
    Attest { probes: u32 },
    Lie,
    Lifecycle,
    Gap,
    NewEpoch,
    Skew(i64),
    Freeze,
    Resolve,
    Revoke,
    Enroll,
    Garbage(Vec<u8>),
    Access,
    Snapshot,
    Catalogue(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u32>(), any::<bool>(), any::<bool>())
            .prop_map(|(which, is_open, is_resync)| Step::Facts { which, is_open, is_resync }),
        1 => (0_i64..20_000).prop_map(|minutes| Step::Old { minutes }),
        4 => any::<u32>().prop_map(Step::Files),
        2 => Just(Step::Acknowledge),
        1 => Just(Step::Parts),
        8 => any::<u32>().prop_map(|probes| Step::Attest { probes }),
        2 => Just(Step::Lie),
        1 => Just(Step::Lifecycle),
        1 => Just(Step::Gap),
        1 => Just(Step::NewEpoch),
        1 => (-20_000_i64..20_000).prop_map(Step::Skew),
        1 => Just(Step::Freeze),
        1 => Just(Step::Resolve),
        1 => Just(Step::Revoke),
        1 => Just(Step::Enroll),
        1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Step::Garbage),
        1 => Just(Step::Access),
        1 => Just(Step::Snapshot),
    ]
}

fn step_or_catalogue() -> impl Strategy<Value = Step> {
    prop_oneof![20 => step(), 2 => any::<u8>().prop_map(Step::Catalogue)]
}

/// Returns one of three catalogues: the built-in one, one with other limits, and one with one control more.
fn catalogue(which: u8) -> Catalogue {
    Catalogue::with_overlay(match which % 3 {
        0 => "",
        1 => "[parameters.INV-02]\nmax_silence_hours = { \"*\" = 2 }\n[parameters.FWL-02]\nallow = { \"*\" = [] }",
        _ => MORE,
    })
    .unwrap()
}

/// An overlay with a control that a host of two processors fails.
const MORE: &str = r#"
    [[control]]
    id = "ACME-01"
    title = "Three processors"
    statement = "The host has three processors."
    family = "acme"
    condition = "system.processors >= 3"
    severity = "low"
    max_age = { "*" = "24h" }
    remediation = { limit = "3d", hint = "Buy one." }
    limits = "None."
    fixture = [
        { name = "three", expect = "pass", set = { "system.processors" = 3 } },
        { name = "two", expect = "fail" },
        { name = "not told", expect = "unknown", set = { "system.processors" = { unknown = { cause = "absent" } } } },
    ]
"#;

fn catalogue_entry(now: Timestamp, which: u8) -> Vec<u8> {
    entry(now, v1::log_entry::Entry::Catalogue(catalogue(which).to_entry()))
}

/// Returns the entries that `steps` make, each of one of three agents and some minutes after the one before.
fn entries_of(steps: &[(u8, u8, Step)]) -> Vec<Vec<u8>> {
    let mut sims = [Sim::new(), Sim::new(), Sim::new()];
    let mut told: [Vec<muster_proto::fact::FileChange>; 3] = Default::default();
    let mut entries: Vec<Vec<u8>> = sims.iter().map(|sim| sim.enrollment(at(0))).collect();
    let mut minutes = 0;
    for (agent, wait, step) in steps {
        // Mostly little, now and then hours.
        minutes += if *wait < 200 { i64::from(*wait % 8) } else { i64::from(*wait) * 10 };
        let now = at(minutes * 60);
        let sim = &mut sims[usize::from(agent % 3)];
        let id = sim.id().as_bytes().to_vec();
        match step {
            Step::Facts { which, is_open, is_resync } => {
                let mut facts = sample::healthy();
                facts.retain(|fact| {
                    let place = Subject::ALL.iter().position(|subject| *subject == fact.subject()).unwrap();
                    which & (1 << place) != 0
                });
                for fact in &mut facts {
                    if fact.subject() == Subject::Firewall {
                        *fact = firewall(*is_open);
                    }
                    if let Fact::System(Reading::Known(system)) = fact
                        && *is_open
                    {
                        system.host_class = Reading::Known(HostClass::Laptop);
                    }
                }
                entries.push(sim.facts(now, &facts, *is_resync));
            }
            Step::Old { minutes } => {
                // What an agent had in its spool while it was offline.
                let then = now.minus(Duration::from_secs(*minutes as u64 * 60));
                let mut coverage = sim.coverage(then, &PROBES);
                coverage.start = then;
                let body = Attestation { fact_set_digest: sim.set.digest(), coverage };
                entries.push(sim.report(now, Body::Attestation(body)));
            }
            Step::Files(bits) => {
                let files = files::chosen(*bits, minutes * 60);
                entries.push(sim.facts(now, std::slice::from_ref(&files), false));
                if let Fact::FileIntegrity(Reading::Known(files)) = files {
                    told[usize::from(agent % 3)] = files.changes;
                }
            }
            Step::Acknowledge => {
                let changes = &told[usize::from(agent % 3)];
                entries.push(act(now, files::acknowledgement(sim.id(), &changes[..changes.len().min(2)])));
            }
            Step::Parts => entries.extend(sim.facts_in_parts(now, &firewall(true))),
            Step::Attest { probes } => {
                let probes: Vec<Probe> =
                    PROBES.into_iter().enumerate().filter(|(at, _)| probes & (1 << at) != 0).map(|(_, p)| p).collect();
                entries.push(sim.attestation(now, &probes));
            }
            Step::Lie => entries.push(sim.lie(now)),
            Step::Lifecycle => entries.push(sim.lifecycle(now)),
            Step::Gap => entries.push(sim.gap(now)),
            Step::NewEpoch => sim.new_epoch(),
            Step::Skew(millis) => sim.skew_millis = *millis,
            Step::Freeze => {
                let conflict = v1::Conflict { agent_id: id, ..Default::default() };
                entries.push(entry(now, v1::log_entry::Entry::Conflict(conflict)));
            }
            Step::Resolve => {
                let resolved = v1::ConflictResolved { agent_id: id, reason: "r".to_owned() };
                entries.push(act(now, v1::act::Act::ConflictResolved(resolved)));
            }
            Step::Revoke => {
                let revoked = v1::AgentRevoked { agent_id: id, reason: "r".to_owned() };
                entries.push(act(now, v1::act::Act::AgentRevoked(revoked)));
            }
            Step::Enroll => entries.push(sim.enrollment(now)),
            Step::Garbage(bytes) => entries.push(bytes.clone()),
            Step::Catalogue(which) => entries.push(catalogue_entry(now, *which)),
            Step::Access => entries.push(entry(now, v1::log_entry::Entry::Access(v1::AccessSummary::default()))),
            Step::Snapshot => {
                let exported = v1::SnapshotExported { snapshot_id: "s".to_owned(), digest: vec![1; 32], hosts: 1 };
                entries.push(act(now, v1::act::Act::SnapshotExported(exported)));
            }
        }
    }
    entries
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn views_followed_live_equal_views_made_again(
        steps in proptest::collection::vec((any::<u8>(), any::<u8>(), step_or_catalogue()), 1..60),
        cuts in proptest::collection::vec((1_u64..20, any::<bool>()), 1..30),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = log_of(entries_of(&steps));
        let size = log.0.lock().unwrap().len() as u64;
        let path = dir.path().join("live");
        let (mut views, mut follower) = open(&path, &log, &StillClock::default());
        let mut done = 0;
        for (step, is_restarted) in cuts.iter().cycle() {
            done = size.min(done + step);
            follower.catch_up(done).unwrap();
            if *is_restarted {
                drop((views, follower));
                (views, follower) = open(&path, &log, &StillClock::default());
                prop_assert_eq!(views.applied().unwrap(), done);
            }
            if done == size {
                break;
            }
        }
        let again = views_of(dir.path(), "again", &log);
        prop_assert_eq!(views.dump().unwrap(), again.dump().unwrap());
        prop_assert_eq!(views.digest().unwrap(), again.digest().unwrap());
        // Once more is no more.
        follower.catch_up(size).unwrap();
        prop_assert_eq!(views.digest().unwrap(), again.digest().unwrap());
    }

    #[test]
    fn the_past_is_told_as_it_was_then(
        steps in proptest::collection::vec((any::<u8>(), any::<u8>(), step()), 1..40),
        part in 0_u64..100,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let entries = entries_of(&steps);
        let size = entries.len() as u64;
        let cut = (size * part / 100).max(3);
        let prefix = log_of(entries[..cut as usize].to_vec());
        let log = log_of(entries.clone());
        let (views, before) = (views_of(dir.path(), "all", &log), views_of(dir.path(), "prefix", &prefix));
        let far = at(100_000_000);
        prop_assert_eq!(views.as_of(&*log, cut, far).unwrap(), before.as_of(&*prefix, cut, far).unwrap());
        // By time: the entries up to an instant are those of a prefix, as received times do not go back.
        let time_of = |bytes: &[u8]| {
            let entry = v1::LogEntry::decode(bytes).ok()?;
            Timestamp::from_wire(entry.received_time.as_ref()?)
        };
        let Some(instant) = entries[..cut as usize].iter().rev().find_map(|bytes| time_of(bytes)) else { return Ok(()) };
        let known = entries.iter().filter(|bytes| time_of(bytes).is_none_or(|time| time <= instant)).cloned().collect();
        let known = log_of(known);
        let count = known.0.lock().unwrap().len() as u64;
        let mut expected = views_of(dir.path(), "known", &known).as_of(&*known, count, far).unwrap();
        let mut told = views.as_of(&*log, size, instant).unwrap();
        // Entries that are none have no time; leaving them out would move indexes, so that states and times alone compare.
        for hosts in [&mut expected, &mut told] {
            for host in hosts {
                host.last_report = None;
            }
        }
        prop_assert_eq!(told, expected);
    }

    #[test]
    fn views_and_a_selection_for_a_snapshot_agree_about_whose_reports_do_not_add_up(
        steps in proptest::collection::vec((any::<u8>(), any::<u8>(), step()), 1..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let entries = entries_of(&steps);
        let (_, hosts) = views_of(dir.path(), "v", &log_of(entries.clone())).hosts().unwrap();
        let ids = hosts.iter().map(|host| host.agent.agent).collect();
        let mut selector = Selector::new(at(100_000_000), Some(ids), CATALOGUE.digest());
        (0..).zip(&entries).for_each(|(index, entry)| selector.take(index, entry));
        let selection = selector.finish();
        for host in hosts {
            let broken = host.agent.broken.map(|broken| broken.log_index);
            prop_assert_eq!(selection.hosts[&host.agent.agent].broken, broken);
        }
    }

    #[test]
    fn what_holds_now_is_what_judging_now_would_say(
        steps in proptest::collection::vec((any::<u8>(), any::<u8>(), step()), 1..40),
        later_minutes in 0_i64..20_000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = log_of(entries_of(&steps));
        let views = views_of(dir.path(), "v", &log);
        let (size, hosts) = views.hosts().unwrap();
        let last = hosts.iter().filter_map(|host| host.agent.run.map(|run| run.last_time)).max().unwrap_or(at(0));
        let now = last.plus(Duration::from_secs(later_minutes as u64 * 60));
        let catalogue = &*CATALOGUE;
        for (host, as_of) in hosts.iter().zip(views.as_of(&*log, size, now).unwrap()) {
            prop_assert_eq!(host.agent.agent, as_of.agent);
            let evidence = as_of.evidence();
            for (control, standing) in standings(catalogue.controls(), host, now) {
                let judged = judge(control, &evidence, now);
                prop_assert_eq!(standing.verdict, judged.verdict, "{}: {} | {}", control.id, standing.reason, judged.reason);
            }
        }
    }
}
