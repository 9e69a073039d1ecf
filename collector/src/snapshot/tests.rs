//! Snapshots of a small fleet in a real log, verified as made and after every kind of change.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_proto::{
    fact::{self, Cause, Fact, Reading, Subject, Text, sample},
    fact_set::{self, FactSet},
    id::{AgentId, Digest, Epoch, ReportSeq},
    report::{
        Attestation, Body, Coverage, Facts, Lifecycle, LifecycleKind, PROBES, ProbeLooks, Report, SubjectFact,
        SubjectPart,
    },
    seal::{ENROLL_DOMAIN, EvidenceKey, sealed_digest},
    time::Timestamp,
    v1::{self, act::Act, log_entry::Entry},
};
use prost::Message as _;

use super::{
    archive,
    bundle::{BUILT_IN, Bundle, Inputs, Told, entry_name},
    make::{self, Made},
    manifest::{FileRef, Manifest, NAME, Parameters},
    select::Selector,
    signature,
    verify::{Trust, Verification, verify},
};
use crate::{
    control::{self, Catalogue, Evidence, Observed, Reporting, Texts},
    log::{Appender, Checkpoint, Key, Log},
};

/// Seconds after the fleet's beginning, which is when the sample facts are of.
fn at(seconds: i64) -> Timestamp {
    sample::time(seconds)
}

struct Host {
    key: EvidenceKey,
    seq: ReportSeq,
    previous: Option<Digest>,
    set: FactSet<()>,
    skew_millis: i64,
}

impl Host {
    fn new() -> Self {
        let (key, _) = EvidenceKey::generate().unwrap();
        Self { key, seq: ReportSeq::FIRST, previous: None, set: FactSet::default(), skew_millis: 0 }
    }

    fn id(&self) -> AgentId {
        self.key.agent_id()
    }

    fn enrollment(&self, received: Timestamp) -> v1::LogEntry {
        let csr_digest = Digest::of_bytes(b"csr").as_bytes().to_vec();
        entry(
            received,
            Entry::Enrollment(v1::Enrollment {
                agent_id: self.id().as_bytes().to_vec(),
                evidence_public_key: self.key.public_key().to_vec(),
                proof: self.key.sign(ENROLL_DOMAIN, &csr_digest).to_vec(),
                csr_digest,
                token_id: "t1".to_owned(),
                ..Default::default()
            }),
        )
    }

    fn report(&mut self, observed: Timestamp, received: Timestamp, body: Body) -> v1::LogEntry {
        let report = Report {
            agent: self.id(),
            epoch: Epoch::new([7; 16]),
            seq: self.seq,
            previous: self.previous,
            observed,
            boot_id: [1; 16],
            since_boot_millis: 1,
            agent_version: Text::new("0.1.0"),
            profile_revision: 0,
            last_checkpoint: None,
            body,
        };
        let sealed = self.key.seal(report.encode());
        self.seq = self.seq.next();
        self.previous = Some(sealed_digest(&sealed));
        entry(received, Entry::Report(v1::AdmittedReport { sealed: Some(sealed), clock_skew_millis: self.skew_millis }))
    }

    fn facts(&mut self, time: Timestamp, received: Timestamp, facts: &[Fact]) -> v1::LogEntry {
        let mut all: BTreeMap<Subject, Vec<u8>> =
            self.set.facts().iter().map(|(subject, held)| (*subject, held.bytes.clone())).collect();
        all.extend(facts.iter().map(|fact| (fact.subject(), fact.encode())));
        let digest = fact_set::digest_of(all.iter().map(|(subject, bytes)| (*subject, bytes.as_slice())));
        let subjects = facts.iter().map(|fact| SubjectFact { observed: time, fact: fact.encode() }).collect();
        let resync = self.set.facts().is_empty();
        let facts = Facts { subjects, part: None, fact_set_digest: digest, coverage: coverage(time), resync };
        self.set.apply(&facts, &()).unwrap();
        self.report(time, received, Body::Facts(facts))
    }

    fn in_parts(&mut self, time: Timestamp, fact: &Fact) -> Vec<v1::LogEntry> {
        let bytes = fact.encode();
        let chunks: Vec<_> = bytes.chunks(bytes.len().div_ceil(3)).collect();
        let parts: Vec<_> = chunks
            .iter()
            .enumerate()
            .map(|(index, chunk)| SubjectPart {
                observed: time,
                index: u32::try_from(index).unwrap(),
                count: u32::try_from(chunks.len()).unwrap(),
                digest: Digest::of_bytes(&bytes),
                bytes: chunk.to_vec(),
            })
            .collect();
        parts.into_iter().map(|part| self.part(time, part, &bytes)).collect()
    }

    fn part(&mut self, time: Timestamp, part: SubjectPart, whole: &[u8]) -> v1::LogEntry {
        let mut all: BTreeMap<Subject, Vec<u8>> =
            self.set.facts().iter().map(|(subject, held)| (*subject, held.bytes.clone())).collect();
        if part.index + 1 == part.count {
            all.insert(Fact::decode(whole).unwrap().subject(), whole.to_vec());
        }
        let digest = fact_set::digest_of(all.iter().map(|(subject, bytes)| (*subject, bytes.as_slice())));
        let facts = Facts {
            subjects: Vec::new(),
            part: Some(part),
            fact_set_digest: digest,
            coverage: coverage(time),
            resync: false,
        };
        self.set.apply(&facts, &()).unwrap();
        self.report(time, time, Body::Facts(facts))
    }

    fn attestation(&mut self, time: Timestamp, received: Timestamp) -> v1::LogEntry {
        let body = Attestation { fact_set_digest: self.set.digest(), coverage: coverage(time) };
        self.report(time, received, Body::Attestation(body))
    }
}

fn coverage(end: Timestamp) -> Coverage {
    let probes = PROBES;
    let looks = probes.map(|probe| ProbeLooks { probe, count: 1, last_before_end_millis: 0, largest_gap_millis: 1000 });
    Coverage {
        start: end.minus(Duration::from_secs(60)),
        end,
        looks: looks.to_vec(),
        suspended_millis: 0,
        directive_ids: Vec::new(),
    }
}

fn entry(received: Timestamp, entry: Entry) -> v1::LogEntry {
    v1::LogEntry { received_time: Some(received.to_wire()), entry: Some(entry) }
}

fn act(received: Timestamp, act: Act) -> v1::LogEntry {
    let act = v1::Act { actor: "spiffe://c1/admin/a".to_owned(), credential_serial: String::new(), act: Some(act) };
    entry(received, Entry::Act(act))
}

struct Fixture {
    _folder: tempfile::TempDir,
    log: Log,
    /// What signs the log and its snapshots.
    key: Key,
    appender: Appender,
    catalogue: Catalogue,
    web: Host,
    silent: AgentId,
    revoked: AgentId,
}

const CA: [u8; 32] = [9; 32];

impl Fixture {
    /// A collector, a host with all facts (some in parts), one with a hostile name, one that never reported, one revoked.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::generate("c1").unwrap();
        let log_key = key.vkey().to_owned();
        let dir = folder.path().join("log");
        Log::create(&dir, &key).unwrap();
        let (log, appender) = Log::open(&dir, Key::parse(key.secret_text()).unwrap()).unwrap();
        let (mut web, mut hostile, silent, mut revoked) = (Host::new(), Host::new(), Host::new(), Host::new());
        let catalogue = Catalogue::built_in();
        let mut fixture = Self {
            _folder: folder,
            log,
            key,
            appender,
            silent: silent.id(),
            revoked: revoked.id(),
            web: Host::new(),
            catalogue,
        };
        let created = v1::CollectorCreated { name: "c1".to_owned(), log_key, ca_digest: CA.to_vec() };
        let version = fixture.catalogue.to_entry();
        fixture.add(&[act(at(0), Act::CollectorCreated(created)), entry(at(0), Entry::Catalogue(version))]);
        for host in [&web, &hostile, &silent, &revoked] {
            fixture.add(&[host.enrollment(at(1))]);
        }
        let started =
            Lifecycle { kind: LifecycleKind::EpochStarted, detail: Text::default(), previous: None, probe: None };
        fixture.add(&[
            web.report(at(2), at(2), Body::Lifecycle(started)),
            web.facts(at(10), at(11), &sample::facts()),
            hostile.facts(at(10), at(12), &[hostile_system()]),
            revoked.facts(at(10), at(12), &sample::facts()),
        ]);
        fixture.add(&web.in_parts(at(20), &Fact::Software(Reading::Known(sample::software()))));
        fixture.add(&[
            web.facts(at(30), at(31), &[sample::unknown(Subject::Firewall, Cause::Forbidden, "netlink")]),
            web.attestation(at(3600), at(3601)),
            act(
                at(3602),
                Act::AgentRevoked(v1::AgentRevoked {
                    agent_id: revoked.id().as_bytes().to_vec(),
                    reason: "retired".to_owned(),
                }),
            ),
        ]);
        fixture.web = web;
        fixture
    }

    fn add(&mut self, entries: &[v1::LogEntry]) -> Checkpoint {
        for entry in entries {
            self.appender.append(&[&entry.encode_to_vec()]).unwrap();
        }
        self.appender.commit().unwrap()
    }

    fn make(&self, checkpoint: &Checkpoint, as_of: Timestamp) -> Made {
        let parameters = Parameters { as_of, log_size: checkpoint.size, controls: None, hosts: None };
        make::make(&self.log, &self.key, checkpoint, &self.catalogue, parameters).unwrap()
    }

    fn made(&self) -> Made {
        self.make(&self.log.checkpoint().unwrap(), at(3700))
    }

    /// What an auditor knows who got the key from the operator.
    fn trust(&self) -> Trust {
        Trust { log_key: Some(self.log.key().to_owned()), ca_digest: Some(Digest::new(CA)) }
    }

    /// Takes the host that reports out, so that it can report while the fixture's log grows.
    fn take_web(&mut self) -> Host {
        std::mem::replace(&mut self.web, Host::new())
    }
}

fn hostile_system() -> Fact {
    let mut system = sample::system();
    system.hostname = Reading::Known(Text::new("=HYPERLINK(\"http://x\")\u{1b}]0;\u{202e}../../etc"));
    Fact::System(Reading::Known(system))
}

fn assert_valid(verification: &Verification) {
    assert!(verification.valid, "{:#?}", verification.problems);
}

/// Makes a consistent file of changed contents: checksums, the manifest's digests and even the collector's signature follow the
/// change, so that only what is made again can find it.
fn repack(made: &Made, key: &Key, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Vec<u8> {
    let mut files = made.bundle.files.clone();
    change(&mut files);
    let mut manifest: Manifest = serde_json::from_slice(&files[NAME]).unwrap();
    manifest.files = files
        .iter()
        .filter(|(name, _)| ![NAME, signature::NAME].contains(&name.as_str()))
        .map(|(name, content)| (name.clone(), FileRef::of(content)))
        .collect();
    let mut text = serde_json::to_vec_pretty(&manifest).unwrap();
    text.push(b'\n');
    pack(files, text, key)
}

fn repack_manifest(made: &Made, key: &Key, change: impl FnOnce(&mut String)) -> Vec<u8> {
    let mut text = String::from_utf8(made.bundle.files[NAME].clone()).unwrap();
    change(&mut text);
    assert_ne!(text.as_bytes(), made.bundle.files[NAME]);
    pack(made.bundle.files.clone(), text.into_bytes(), key)
}

fn pack(mut files: BTreeMap<String, Vec<u8>>, manifest: Vec<u8>, key: &Key) -> Vec<u8> {
    files.insert(signature::NAME.to_owned(), signature::sign(key, &manifest).unwrap());
    files.insert(NAME.to_owned(), manifest);
    zip(&files)
}

fn zip(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    archive::write(&files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect()).unwrap()
}

fn replace(content: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(content.clone()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    *content = text.replacen(from, to, 1).into_bytes();
}

#[test]
fn a_snapshot_verifies_and_its_counts_add_up() {
    let fixture = Fixture::new();
    let made = fixture.made();
    let verification = verify(&made.bytes, &Trust::default());
    assert_valid(&verification);
    let counts = &made.bundle.manifest.counts;
    assert_eq!((counts.hosts, counts.hosts_judged, counts.hosts_revoked, counts.hosts_without_report), (4, 3, 1, 1));
    assert_eq!(counts.results, counts.hosts_judged * counts.controls);
    assert_eq!(counts.verdicts.total(), counts.results);
    assert!(counts.verdicts.pass > 0 && counts.verdicts.unknown > 0 && counts.verdicts.no_data > 0, "{counts:?}");
    assert!(!verification.log_key_trusted);
    assert!(verification.claimed.iter().any(|claim| claim.contains("--log-key")));
}

#[test]
fn the_same_call_gives_the_same_bytes_after_later_data_came() {
    let mut fixture = Fixture::new();
    let checkpoint = fixture.log.checkpoint().unwrap();
    let first = fixture.make(&checkpoint, at(3700)).bytes;
    assert_eq!(first, fixture.make(&checkpoint, at(3700)).bytes);
    let mut web = std::mem::replace(&mut fixture.web, Host::new());
    fixture.add(&[web.facts(at(3650), at(3660), &[sample::unknown(Subject::System, Cause::Failed, "")])]);
    assert_eq!(first, fixture.make(&checkpoint, at(3700)).bytes);
    let newest = fixture.log.checkpoint().unwrap();
    let later = fixture.make(&newest, at(3700));
    assert_ne!(first, later.bytes);
    assert_valid(&verify(&later.bytes, &Trust::default()));
}

/// Returns the log index of the last report of `agent` that counts, and whether its facts are those that it signed for.
fn last_of(made: &Made, agent: AgentId) -> (u64, bool) {
    let host = row(made, "hosts.json", |row| row["agent_id"] == agent.to_string());
    (host["last_report"]["log_index"].as_u64().unwrap(), host["fact_set"]["agrees"].as_bool().unwrap())
}

fn verdict_of(made: &Made, agent: AgentId, control: &str) -> String {
    let result = row(made, "results.json", |row| row["agent_id"] == agent.to_string() && row["control_id"] == control);
    result["verdict"].as_str().unwrap().to_owned()
}

fn row(made: &Made, file: &str, is_it: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&made.bundle.files[file]).unwrap();
    rows.into_iter().find(is_it).unwrap()
}

#[test]
fn what_was_observed_or_received_by_the_instant_counts_and_nothing_else() {
    let mut fixture = Fixture::new();
    let mut web = fixture.take_web();
    let agent = web.id();
    let before = last_of(&fixture.made(), agent).0;
    // Sent late: observed before the instant, received after it.
    let late = fixture.add(&[web.attestation(at(3650), at(9000))]);
    assert!(before < late.size);
    assert_eq!(last_of(&fixture.make(&late, at(3700)), agent), (late.size - 1, true));
    // After the instant by both clocks.
    let after = fixture.add(&[web.facts(at(5000), at(9001), &[sample::unknown(Subject::System, Cause::Failed, "")])]);
    assert_eq!(last_of(&fixture.make(&after, at(3700)), agent), (late.size - 1, true));
    // Dated back: it does not count, and does not bring in what it follows.
    let back = fixture.add(&[web.attestation(at(3660), at(9002))]);
    assert_eq!(last_of(&fixture.make(&back, at(3700)), agent), (late.size - 1, true));
    for checkpoint in [late, after, back] {
        assert_valid(&verify(&fixture.make(&checkpoint, at(3700)).bytes, &fixture.trust()));
    }
}

#[test]
fn a_host_clock_that_goes_back_brings_no_later_evidence_into_the_past() {
    let mut fixture = Fixture::new();
    let mut web = fixture.take_web();
    let agent = web.id();
    let before = last_of(&fixture.made(), agent);
    // At 9000 the host believes that it is 3650, and the collector measures how far off it is.
    web.skew_millis = -5_350_000;
    let fact = sample::unknown(Subject::DiskEncryption, Cause::Failed, "");
    let later = fixture.add(&[web.facts(at(3650), at(9000), &[fact])]);
    assert_eq!(last_of(&fixture.make(&later, at(3700)), agent), before);
    assert_eq!(last_of(&fixture.make(&later, at(9000)), agent), (later.size - 1, true));
    // One microsecond before it was there, it was not.
    let just_before = at(9000).minus(Duration::from_micros(1));
    assert_eq!(last_of(&fixture.make(&later, just_before), agent), before);
    assert_valid(&verify(&fixture.make(&later, just_before).bytes, &fixture.trust()));
}

#[test]
fn a_fact_from_after_the_instant_does_not_count_whatever_its_report_says_of_itself() {
    let mut fixture = Fixture::new();
    let mut web = fixture.take_web();
    let agent = web.id();
    let before = last_of(&fixture.made(), agent);
    let fact = sample::unknown(Subject::DiskEncryption, Cause::Failed, "");
    // Facts and looks of 5000 in a report that says it was sealed at 3650.
    let Some(Entry::Report(honest)) = web.facts(at(5000), at(9000), &[fact]).entry else { panic!() };
    let mut report = Report::decode(&honest.sealed.unwrap().report).unwrap();
    report.observed = at(3650);
    let sealed = Some(web.key.seal(report.encode()));
    let later = fixture.add(&[entry(at(9000), Entry::Report(v1::AdmittedReport { sealed, clock_skew_millis: 0 }))]);
    assert_eq!(last_of(&fixture.make(&later, at(3700)), agent), before);
    assert_eq!(last_of(&fixture.make(&later, at(5000)), agent).0, later.size - 1);
}

#[test]
fn what_arrives_late_never_says_that_the_host_was_heard_in_time() {
    const DAY: i64 = 86_400;
    let mut fixture = Fixture::new();
    let mut web = fixture.take_web();
    let agent = web.id();
    let as_of = at(10 * DAY);
    // The collector is down from the end of the fixture on; the host goes on looking and keeps its reports.
    let down = fixture.log.checkpoint().unwrap();
    let spooled: Vec<_> = (1..10).map(|day| web.attestation(at(day * DAY), at(11 * DAY))).collect();
    let up = fixture.add(&spooled);
    let (then, now) = (fixture.make(&down, as_of), fixture.make(&up, as_of));
    assert_eq!(verdict_of(&then, agent, "INV-02"), "fail");
    assert_eq!(verdict_of(&now, agent, "INV-02"), "fail");
    // What it observed meanwhile counts.
    assert_eq!(last_of(&now, agent), (up.size - 1, true));
    assert_eq!(verdict_of(&then, agent, "ENC-01"), "no_data");
    assert_ne!(verdict_of(&now, agent, "ENC-01"), "no_data");
    let heard = row(&now, "hosts.json", |row| row["agent_id"] == agent.to_string());
    assert_eq!(heard["last_heard"]["received_time"], at(3601).to_string());
    let verification = verify(&now.bytes, &fixture.trust());
    assert_valid(&verification);
    assert!(verification.unknown.iter().any(|what| what.contains("reported late")), "{:#?}", verification.unknown);
}

#[test]
fn a_host_heard_only_after_the_instant_is_judged_by_what_it_observed_before() {
    let mut fixture = Fixture::new();
    let mut late = Host::new();
    fixture.add(&[late.enrollment(at(3000))]);
    let arrived = fixture.add(&[late.facts(at(3100), at(9000), &sample::facts())]);
    let made = fixture.make(&arrived, at(3700));
    assert_eq!(verdict_of(&made, late.id(), "INV-02"), "no_data");
    assert_eq!(
        verdict_of(&made, late.id(), "ENC-01"),
        verdict_of(&fixture.make(&arrived, at(9000)), late.id(), "ENC-01")
    );
    assert_ne!(verdict_of(&made, late.id(), "ENC-01"), "no_data");
    assert_valid(&verify(&made.bytes, &fixture.trust()));
}

#[test]
fn a_fact_confirmed_after_the_instant_cannot_tell() {
    let fixture = Fixture::new();
    let control = fixture.catalogue.control("ENC-01").unwrap();
    let evidence = |confirmed| Evidence {
        host: fixture.silent,
        facts: sample::facts().into_iter().map(|fact| (fact.subject(), Observed::new(fact, confirmed))).collect(),
        reporting: Reporting { last_received: Some(at(10)), skew_millis: 0 },
        acknowledged: control::Acknowledged::default(),
    };
    let then = control::judge(control, &evidence(at(20)), at(20));
    assert!(!then.reason.contains("after the instant"), "{}", then.reason);
    let later = control::judge(control, &evidence(at(20)), at(19));
    assert_eq!(later.verdict, control::Verdict::Unknown);
    assert!(later.reason.contains("after the instant"), "{}", later.reason);
}

#[test]
fn a_chain_that_takes_facts_back_without_sending_all_anew_still_makes_a_snapshot_that_verifies() {
    let mut fixture = Fixture::new();
    let mut web = fixture.take_web();
    let agent = web.id();
    let kept = (web.set.clone(), sample::unknown(Subject::DiskEncryption, Cause::Failed, ""));
    // Facts whose digest is wrong, then the word that nothing has changed: the judge holds what was there before.
    let Some(Entry::Report(admitted)) = web.facts(at(3610), at(3611), &[kept.1]).entry else { panic!() };
    let mut report = Report::decode(&admitted.sealed.unwrap().report).unwrap();
    let Body::Facts(facts) = &mut report.body else { panic!() };
    facts.fact_set_digest = Digest::new([4; 32]);
    let sealed = web.key.seal(report.encode());
    web.previous = Some(sealed_digest(&sealed));
    web.set = kept.0;
    let wrong = v1::AdmittedReport { sealed: Some(sealed), clock_skew_millis: 0 };
    fixture.add(&[entry(at(3611), Entry::Report(wrong))]);
    let during = fixture.made();
    assert!(!last_of(&during, agent).1);
    assert_eq!(verdict_of(&during, agent, "ENC-01"), "unknown");
    assert_valid(&verify(&during.bytes, &fixture.trust()));
    // Without looks of its own, the mending report leaves those of the wrong one the newest.
    let looks = Coverage { looks: Vec::new(), ..coverage(at(3620)) };
    let body = Attestation { fact_set_digest: web.set.digest(), coverage: looks };
    fixture.add(&[web.report(at(3620), at(3621), Body::Attestation(body))]);
    let after = fixture.made();
    assert!(!last_of(&after, agent).1);
    assert_eq!(verdict_of(&after, agent, "ENC-01"), "unknown");
    assert_valid(&verify(&after.bytes, &fixture.trust()));
}

#[test]
fn a_fact_of_a_later_contract_is_covered_and_shown() {
    let mut fixture = Fixture::new();
    let mut newer = Host::new();
    fixture.add(&[newer.enrollment(at(100))]);
    let later = vec![0xa2, 0x06, 3, 1, 2, 3];
    let Some(Entry::Report(admitted)) = newer.facts(at(110), at(111), &sample::facts()).entry else { panic!() };
    let mut report = Report::decode(&admitted.sealed.unwrap().report).unwrap();
    let Body::Facts(facts) = &mut report.body else { panic!() };
    facts.subjects.push(SubjectFact { observed: at(110), fact: later.clone() });
    let mut opaque: FactSet<()> = FactSet::default();
    opaque.replay(facts, &());
    facts.fact_set_digest = opaque.digest();
    let sealed = Some(newer.key.seal(report.encode()));
    fixture.add(&[entry(at(111), Entry::Report(v1::AdmittedReport { sealed, clock_skew_millis: 0 }))]);
    let made = fixture.made();
    assert!(last_of(&made, newer.id()).1);
    let host = row(&made, "hosts.json", |row| row["agent_id"] == newer.id().to_string());
    assert_eq!(host["unknown_facts"][0]["number"], 100);
    assert_eq!(host["unknown_facts"][0]["sha256"], Digest::of_bytes(&later).to_string());
    assert_valid(&verify(&made.bytes, &fixture.trust()));
}

#[test]
fn a_changed_removed_or_added_byte_is_found() {
    let made = Fixture::new().made();
    // A fixed sequence, so that a failure can be repeated.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).unwrap()
    };
    for round in 0..10_000 {
        let mut bytes = made.bytes.clone();
        let at = random(bytes.len());
        match round % 4 {
            0 | 1 => bytes[at] ^= 1 << random(8),
            2 => bytes.truncate(at),
            _ => bytes.insert(at, u8::try_from(random(256)).unwrap()),
        }
        assert!(archive::read(&bytes).is_err(), "round {round}, byte {at}");
    }
    let verification = verify(&made.bytes[..made.bytes.len() - 1], &Trust::default());
    assert!(!verification.valid && !verification.problems.is_empty() && verification.proven.is_empty());
}

#[test]
fn every_file_is_checked_even_when_checksums_and_manifest_follow_the_change() {
    let fixture = Fixture::new();
    let made = fixture.made();
    assert_valid(&verify(&repack(&made, &fixture.key, |_| {}), &Trust::default()));
    let names: Vec<String> =
        made.bundle.files.keys().filter(|name| ![NAME, signature::NAME].contains(&name.as_str())).cloned().collect();
    assert!(names.len() > 20, "{names:?}");
    let mut state = 1_usize;
    for name in &names {
        for round in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let changed = repack(&made, &fixture.key, |files| {
                let content = files.get_mut(name).unwrap();
                match (round, content.len()) {
                    (0, length) if length > 0 => content[(state >> 33) % length] ^= 1,
                    (1, length) if length > 0 => content.truncate((state >> 33) % length),
                    _ => content.push(b' '),
                }
            });
            let verification = verify(&changed, &Trust::default());
            assert!(!verification.valid, "{name}, round {round}");
        }
        let gone = repack(&made, &fixture.key, |files| drop(files.remove(name)));
        assert!(!verify(&gone, &Trust::default()).valid, "{name} removed");
    }
}

#[test]
fn a_verdict_a_count_or_an_instant_that_the_evidence_does_not_give_is_named() {
    let fixture = Fixture::new();
    let made = fixture.made();
    let cases: [(&str, &str, &str); 6] = [
        ("results.json", "\"verdict\":\"fail\"", "\"verdict\":\"pass\""),
        ("results.csv", "\"no_data\"", "\"pass\""),
        ("hosts.csv", "\"revoked\"", "\"active\""),
        ("hosts.json", "\"state\":\"revoked\"", "\"state\":\"active\""),
        ("controls.json", "\"severity\": \"high\"", "\"severity\": \"low\""),
        ("README.txt", "as of", "As of"),
    ];
    for (name, from, to) in cases {
        let verification = verify(
            &repack(&made, &fixture.key, |files| replace(files.get_mut(name).unwrap(), from, to)),
            &Trust::default(),
        );
        assert!(verification.problems.iter().any(|problem| problem.file == name), "{name}: {verification:#?}");
    }
    for (from, to) in [
        ("\"hosts_revoked\": 1", "\"hosts_revoked\": 0"),
        ("\"as_of\": \"", "\"as_of\": \"2999-01-01T00:00:00Z\", \"x\": \""),
        ("\"excepted\": 0", "\"excepted\": 1"),
        ("muster-snapshot/1", "muster-snapshot/2"),
    ] {
        let verification =
            verify(&repack_manifest(&made, &fixture.key, |text| *text = text.replacen(from, to, 1)), &Trust::default());
        assert!(!verification.valid, "{from}");
    }
    // A later instant changes what the evidence gives.
    let text = made.bundle.manifest.parameters.as_of.to_string();
    let later = verify(
        &repack_manifest(&made, &fixture.key, |manifest| *manifest = manifest.replace(&text, "2027-01-01T00:00:00Z")),
        &Trust::default(),
    );
    assert!(later.problems.iter().any(|problem| problem.file == "results.json"), "{:#?}", later.problems);
}

#[test]
fn only_a_key_from_outside_gives_trust() {
    let fixture = Fixture::new();
    let bytes = fixture.made().bytes;
    let log_key = Some(fixture.log.key().to_owned());
    let trusted = verify(&bytes, &Trust { log_key, ca_digest: Some(Digest::new(CA)) });
    assert_valid(&trusted);
    assert!(trusted.log_key_trusted);
    let other = Key::generate("c1").unwrap().vkey().to_owned();
    let refused = verify(&bytes, &Trust { log_key: Some(other), ca_digest: None });
    assert!(!refused.valid && !refused.claimed.iter().any(|claim| claim.contains("--log-key")), "{refused:?}");
    assert!(!verify(&bytes, &Trust { log_key: None, ca_digest: Some(Digest::new([1; 32])) }).valid);
}

#[test]
fn a_report_that_another_key_signed_is_found_even_when_the_log_holds_it() {
    let mut fixture = Fixture::new();
    let mut forger = Host::new();
    let forged = forger.attestation(at(3660), at(3661));
    let Some(Entry::Report(mut admitted)) = forged.entry else { panic!() };
    let mut report = Report::decode(&admitted.sealed.as_ref().unwrap().report).unwrap();
    report.agent = fixture.web.id();
    report.epoch = Epoch::new([7; 16]);
    // At the next place of the chain: at one that is taken it would be passed over.
    (report.seq, report.previous) = (fixture.web.seq, fixture.web.previous);
    admitted.sealed = Some(forger.key.seal(report.encode()));
    fixture.add(&[entry(at(3661), Entry::Report(admitted))]);
    let verification = verify(&fixture.made().bytes, &Trust::default());
    assert!(
        verification.problems.iter().any(|problem| problem.what.contains("signature does not verify")),
        "{:#?}",
        verification.problems
    );
}

#[test]
fn a_report_left_out_never_gives_a_pass() {
    let mut fixture = Fixture::new();
    let mut web = std::mem::replace(&mut fixture.web, Host::new());
    let agent = web.id();
    // The collector never writes the report with the bad news, and keeps what follows it.
    let _left_out = web.facts(at(3610), at(3611), &[sample::unknown(Subject::DiskEncryption, Cause::Failed, "")]);
    fixture.add(&[web.attestation(at(3620), at(3621))]);
    let made = fixture.made();
    let verification = verify(&made.bytes, &Trust::default());
    assert_valid(&verification);
    assert!(verification.unknown.iter().any(|what| what.contains("signed for other facts")), "{verification:#?}");
    let results: Vec<serde_json::Value> = serde_json::from_slice(&made.bundle.files["results.json"]).unwrap();
    let passes = results.iter().filter(|row| row["agent_id"] == agent.to_string() && row["verdict"] == "pass");
    let by_facts = passes.filter(|row| row["subjects"].as_array().is_some_and(|subjects| !subjects.is_empty()));
    assert_eq!(by_facts.count(), 0);
}

#[test]
fn a_hostile_host_name_stays_text_in_every_file() {
    let made = Fixture::new().made();
    let csv = String::from_utf8(made.bundle.files["hosts.csv"].clone()).unwrap();
    assert!(csv.contains("\"'=HYPERLINK(\"\"http://x\"\")\\x1b]0;\\xe2\\x80\\xae../../etc\""), "{csv}");
    for (name, content) in &made.bundle.files {
        if !name.starts_with("evidence/") {
            let text = std::str::from_utf8(content).unwrap();
            let is_layout = |c: char| matches!(c, '\n' | '\r');
            assert!(!text.chars().any(|c| muster_proto::fact::is_unsafe(c) && !is_layout(c)), "{name}");
        }
        assert!(!name.contains("etc") && !name.contains(".."), "{name}");
    }
}

#[test]
fn a_scope_of_hosts_and_controls_is_kept_to() {
    let fixture = Fixture::new();
    let checkpoint = fixture.log.checkpoint().unwrap();
    let control = fixture.catalogue.controls().next().unwrap().id.clone();
    let parameters = Parameters {
        as_of: at(3700),
        log_size: checkpoint.size,
        controls: Some(vec![control]),
        hosts: Some(vec![fixture.revoked.min(fixture.silent), fixture.revoked.max(fixture.silent)]),
    };
    let made = make::make(&fixture.log, &fixture.key, &checkpoint, &fixture.catalogue, parameters).unwrap();
    assert_valid(&verify(&made.bytes, &Trust::default()));
    let counts = &made.bundle.manifest.counts;
    assert_eq!((counts.hosts, counts.hosts_judged, counts.controls, counts.results), (2, 2, 1, 2));
    // Whoever reads it learns that it is a part, and of what.
    let claimed = verify(&made.bytes, &fixture.trust()).claimed;
    let all = fixture.catalogue.controls().count();
    for text in ["is 2 of 4 hosts enrolled:".to_owned(), format!("is 1 of {all} controls:")] {
        assert!(claimed.iter().any(|claim| claim.contains(&text)), "{text}: {claimed:#?}");
    }
    let readme = std::str::from_utf8(&made.bundle.files["README.txt"]).unwrap();
    assert!(readme.contains("2 of 4 enrolled, chosen by whoever asked"), "{readme}");
}

/// A snapshot that somebody made of what a real one holds, and of the log.
struct Forgery {
    /// The log's entries, as the forger shows them.
    entries: BTreeMap<u64, Vec<u8>>,
    parameters: Parameters,
    catalogue: Catalogue,
    made_by: String,
    /// Hosts that the forger says were enrolled.
    hosts_enrolled: u64,
}

impl Forgery {
    fn new(fixture: &Fixture, made: &Made) -> Self {
        let manifest = &made.bundle.manifest;
        let entries = (0..manifest.log.size).map(|index| (index, fixture.log.entry(index).unwrap())).collect();
        Self {
            entries,
            parameters: manifest.parameters.clone(),
            catalogue: Catalogue::built_in(),
            made_by: manifest.made_by.clone(),
            hosts_enrolled: manifest.log.hosts_enrolled,
        }
    }

    /// Puts the files together with the very code that makes snapshots, unsigned.
    fn bundle(&self, fixture: &Fixture) -> Bundle {
        let checkpoint = fixture.log.checkpoint().unwrap();
        let hosts = self.parameters.hosts.as_ref().map(|hosts| hosts.iter().copied().collect::<BTreeSet<_>>());
        let mut selector = Selector::new(self.parameters.as_of, hosts, self.catalogue.digest());
        self.entries.iter().for_each(|(index, entry)| selector.take(*index, entry));
        let selection = selector.finish();
        let needed = selection.indexes();
        let entries = self.entries.iter().filter(|(index, _)| needed.contains(index));
        let proof = |index: &u64| (*index, fixture.log.inclusion_proof(*index, checkpoint.size).unwrap());
        Bundle::new(&Inputs {
            parameters: self.parameters.clone(),
            made_by: self.made_by.clone(),
            catalogue: &self.catalogue,
            log_key: fixture.log.key(),
            checkpoint: &checkpoint,
            entries: &entries.map(|(index, entry)| (*index, entry.clone())).collect(),
            selection: &selection,
            proofs: &needed.iter().map(proof).collect(),
            told: Told { last_received: selection.last_received, hosts_enrolled: self.hosts_enrolled },
        })
    }
}

fn weakened(catalogue: &Catalogue) -> Catalogue {
    let mut texts: Texts = catalogue.texts().clone();
    for control in catalogue.controls() {
        let condition = control.condition.source();
        assert!(texts.built_in.contains(condition), "{condition}");
        texts.built_in = texts.built_in.replacen(condition, &format!("({condition}) || true"), 1);
    }
    Catalogue::from_texts(texts).unwrap()
}

/// The log index of the last report of `agent` in the fixture's log for which `is_it` says so.
fn index_of(fixture: &Fixture, agent: AgentId, is_it: impl Fn(&Body) -> bool) -> u64 {
    let is_report = |index: &u64| {
        let entry = v1::LogEntry::decode(fixture.log.entry(*index).unwrap().as_slice()).unwrap();
        let Some(Entry::Report(admitted)) = entry.entry else { return false };
        let report = Report::decode(&admitted.sealed.unwrap().report).unwrap();
        report.agent == agent && is_it(&report.body)
    };
    (0..fixture.log.size()).rev().find(is_report).unwrap()
}

#[test]
fn whoever_lacks_the_logs_key_cannot_make_a_snapshot_however_consistent() {
    let fixture = Fixture::new();
    let made = fixture.made();
    let web = fixture.web.id();
    let forge = |change: &dyn Fn(&mut Forgery)| {
        let mut forgery = Forgery::new(&fixture, &made);
        change(&mut forgery);
        forgery.bundle(&fixture)
    };
    // The tool of the forger makes exactly the real snapshot when nothing is changed.
    let mut unchanged = forge(&|_| {});
    unchanged.sign(&fixture.key).unwrap();
    assert!(unchanged.to_bytes().unwrap() == made.bytes);

    let passing: Vec<_> = fixture
        .catalogue
        .controls()
        .filter(|control| verdict_of(&made, web, control.id.as_str()) == "pass")
        .map(|control| control.id.clone())
        .collect();
    assert!(!passing.is_empty());
    let enrolled = (0..fixture.log.size())
        .find(|index| {
            let entry = v1::LogEntry::decode(fixture.log.entry(*index).unwrap().as_slice()).unwrap();
            matches!(entry.entry, Some(Entry::Enrollment(it)) if it.agent_id == fixture.silent.as_bytes())
        })
        .unwrap();
    let newest = index_of(&fixture, web, |body| matches!(body, Body::Attestation(_)));
    let bad_news = index_of(&fixture, web, |body| matches!(body, Body::Facts(_)));
    let forgeries: [(&str, Bundle); 6] = [
        (
            "an enrolled host dropped and recounted",
            forge(&|it| {
                it.entries.remove(&enrolled);
                it.hosts_enrolled -= 1;
            }),
        ),
        ("another program named", forge(&|it| it.made_by = "audited and certified".to_owned())),
        (
            "the instant moved into the future",
            forge(&|it| {
                it.parameters.as_of = it.parameters.as_of.plus(Duration::from_secs(4 * 3600));
            }),
        ),
        ("controls narrowed to those that pass", forge(&|it| it.parameters.controls = Some(passing.clone()))),
        ("an older report shown as the newest", forge(&|it| drop(it.entries.remove(&newest)))),
        ("a report removed", forge(&|it| drop(it.entries.remove(&bad_news)))),
    ];
    for (what, mut bundle) in forgeries {
        // With the signature of the real one, with one by another key, and without.
        for signature in [Some(made.bundle.files[signature::NAME].clone()), None] {
            match signature {
                Some(signature) => drop(bundle.files.insert(signature::NAME.to_owned(), signature)),
                None => drop(bundle.files.remove(signature::NAME)),
            }
            for trust in [fixture.trust(), Trust::default()] {
                let verification = verify(&bundle.to_bytes().unwrap(), &trust);
                assert!(!verification.valid, "{what}");
                assert_eq!(verification.problems.len(), 1, "{what}: {:#?}", verification.problems);
                assert_eq!(verification.problems[0].file, signature::NAME, "{what}");
                assert!(verification.proven.is_empty(), "{what}");
            }
        }
        bundle.sign(&Key::generate("c1").unwrap()).unwrap();
        assert!(!verify(&bundle.to_bytes().unwrap(), &fixture.trust()).valid, "{what}, signed by another key");
        // Nothing but the signature is wrong with it: it is consistent.
        bundle.sign(&fixture.key).unwrap();
        assert_valid(&verify(&bundle.to_bytes().unwrap(), &fixture.trust()));
    }
}

#[test]
fn weaker_controls_are_found_even_under_the_collectors_own_signature() {
    let fixture = Fixture::new();
    let mut forgery = Forgery::new(&fixture, &fixture.made());
    forgery.catalogue = weakened(&fixture.catalogue);
    let mut bundle = forgery.bundle(&fixture);
    assert_eq!(bundle.manifest.catalogue.log_index, None);
    assert_eq!(bundle.manifest.counts.verdicts.fail, 0);
    bundle.sign(&fixture.key).unwrap();
    let verification = verify(&bundle.to_bytes().unwrap(), &fixture.trust());
    let named: Vec<_> = verification.problems.iter().map(|problem| problem.file.as_str()).collect();
    assert_eq!(named, [BUILT_IN], "{:#?}", verification.problems);
    // No collector makes such a snapshot either.
    let checkpoint = fixture.log.checkpoint().unwrap();
    let parameters = fixture.made().bundle.manifest.parameters;
    let made = make::make(&fixture.log, &fixture.key, &checkpoint, &weakened(&fixture.catalogue), parameters);
    assert!(matches!(made, Err(make::Error::Catalogue(_))), "{made:?}");
}

#[test]
fn a_report_removed_without_saying_that_the_host_does_not_add_up_is_named() {
    let fixture = Fixture::new();
    let made = fixture.made();
    let web = fixture.web.id();
    let attestation = index_of(&fixture, web, |body| matches!(body, Body::Attestation(_)));
    let bad_news = index_of(&fixture, web, |body| matches!(body, Body::Facts(_)));
    let changed = repack(&made, &fixture.key, |files| {
        files.remove(&entry_name(bad_news)).unwrap();
    });
    let verification = verify(&changed, &fixture.trust());
    let named = |file: &str, text: &str| {
        verification.problems.iter().any(|problem| problem.file == file && problem.what.contains(text))
    };
    assert!(named(&entry_name(attestation), "signed for other facts"), "{:#?}", verification.problems);
    assert!(named("proofs.json", "one proof for each entry"), "{:#?}", verification.problems);
}

#[test]
fn the_distance_between_the_entries_and_the_instant_is_told() {
    let fixture = Fixture::new();
    let checkpoint = fixture.log.checkpoint().unwrap();
    let unknown = |as_of| verify(&fixture.make(&checkpoint, as_of).bytes, &fixture.trust()).unknown.join("\n");
    // The last entry is of 3602.
    assert!(unknown(at(3602 + 4 * 3600)).contains("received in the 4 h 0 min before"));
    assert!(unknown(at(3605)).contains("received in the 3 s before"));
    assert!(!unknown(at(3602)).contains("the last entry covered"));
}

#[test]
fn a_checkpoint_of_an_earlier_size_is_the_same_again() {
    let mut fixture = Fixture::new();
    let first = fixture.log.checkpoint().unwrap();
    let next = at(3603);
    fixture.add(&[Host::new().enrollment(next)]);
    let newest = fixture.log.checkpoint().unwrap();
    for checkpoint in [&first, &newest] {
        let again = make::checkpoint_at(&fixture.log, &fixture.key, &newest, checkpoint.size).unwrap();
        assert_eq!(again.note, checkpoint.note);
    }
    assert!(make::checkpoint_at(&fixture.log, &fixture.key, &newest, newest.size + 1).is_err());
    assert_eq!(make::next_received(&fixture.log, first.size).unwrap(), Some(next));
    assert_eq!(make::next_received(&fixture.log, newest.size).unwrap(), None);
}

/// A fixed sequence, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

#[test]
fn no_mutation_of_a_snapshot_is_valid_or_stops_the_program() {
    let fixture = Fixture::new();
    let made = fixture.made();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let names: Vec<&String> = made.bundle.files.keys().collect();
    let entries: Vec<&String> = names.iter().copied().filter(|name| name.starts_with("evidence/")).collect();
    // Of the container's bytes.
    for round in 0..400 {
        let mut bytes = made.bytes.clone();
        let (at, from) = (random.below(bytes.len()), random.below(bytes.len()));
        let length = 1 + random.below(200.min(bytes.len() - from));
        match round % 4 {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..at, made.bytes[from..from + length].iter().copied())),
            _ => drop(bytes.drain(from..from + length)),
        }
        let verification = verify(&bytes, &fixture.trust());
        assert!(bytes == made.bytes || !verification.valid, "round {round}");
    }
    // Of the files in it, under valid checksums: what the container's check would find is made good.
    for round in 0..400 {
        let mut files = made.bundle.files.clone();
        let name = names[random.below(names.len())];
        let content = files.get_mut(name).unwrap();
        let length = content.len();
        match round % 5 {
            0 if length > 0 => content[random.below(length)] ^= 1 << random.below(8),
            1 if length > 0 => content.truncate(random.below(length)),
            2 => {
                let other = &made.bundle.files[names[random.below(names.len())]];
                let end = random.below(other.len() + 1);
                content.splice(random.below(length + 1).., other[..end].iter().copied());
            }
            3 => {
                // An entry twice, under a number that is free or taken.
                let copy = files[entries[random.below(entries.len())]].clone();
                files.insert(entry_name(random.below(40) as u64), copy);
            }
            _ => {
                let (a, b) = (entries[random.below(entries.len())], entries[random.below(entries.len())]);
                let (first, second) = (files[a].clone(), files[b].clone());
                files.insert(a.clone(), second);
                files.insert(b.clone(), first);
            }
        }
        let is_same = files == made.bundle.files;
        let verification = verify(&zip(&files), &fixture.trust());
        assert!(is_same || !verification.valid, "round {round}, {name}");
        // The same under the collector's signature and the manifest's digests, as far as there is a manifest: it may be what another
        // call gives, such as a snapshot by another program's name, but it never stops the program.
        if serde_json::from_slice::<Manifest>(&files[NAME]).is_ok() {
            let made = Made { bundle: Bundle { files, manifest: made.bundle.manifest.clone() }, bytes: Vec::new() };
            let verification = verify(&repack(&made, &fixture.key, |_| {}), &fixture.trust());
            assert!(is_same || name == NAME || name == signature::NAME || !verification.valid, "round {round}, {name}");
        }
    }
}

#[test]
fn a_pass_that_rests_on_a_statement_says_so_and_is_judged_again_offline() {
    let mut fixture = Fixture::new();
    let mut web = fixture.take_web();
    let (from, until) = (at(0).to_second(), at(7000).to_second());
    let stated = format!(
        "[[statement]]\nkind = \"disk_encryption\"\nprovider = \"Example Cloud\"\nreference = \"contract 7\"\n\
         document_sha256 = \"{}\"\nhosts = [\"{}\"]\nfrom = \"{from}\"\nuntil = \"{until}\"",
        Digest::of_bytes(b"a document"),
        web.id()
    );
    fixture.catalogue = Catalogue::with_overlay(&stated).unwrap();
    let mut disk =
        control::sample::healthy().into_iter().find(|fact| fact.subject() == Subject::DiskEncryption).unwrap();
    if let Fact::DiskEncryption(Reading::Known(known)) = &mut disk {
        known.volumes[0].encrypted = Reading::unknown(Cause::Hidden, "a virtual disk");
    }
    let version = fixture.catalogue.to_entry();
    let checkpoint = fixture.add(&[entry(at(3650), Entry::Catalogue(version)), web.facts(at(3660), at(3661), &[disk])]);

    let made = fixture.make(&checkpoint, at(3700));
    assert_eq!(verdict_of(&made, web.id(), "ENC-01"), "pass");
    let of = |row: &serde_json::Value| row["agent_id"] == web.id().to_string() && row["control_id"] == "ENC-01";
    let reason = row(&made, "results.json", of)["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("by the statement of Example Cloud (contract 7, sha256:"), "{reason}");
    assert_eq!(made.bundle.manifest.counts.passes_by_statement, 1);
    let verification = verify(&made.bytes, &fixture.trust());
    assert_valid(&verification);
    let claims = verification.claimed.join(" ");
    assert!(
        claims.contains("rests on a statement of Example Cloud and not on an observation (1 such verdict)"),
        "{claims}"
    );

    // It is part of what the log holds: none can be put in or changed, and after its end it holds no more.
    let forged = repack(&made, &fixture.key, |files| {
        replace(files.get_mut("catalogue/overlay.toml").unwrap(), "Example Cloud", "Another Cloud");
    });
    assert!(!verify(&forged, &fixture.trust()).valid);
    let later = fixture.make(&checkpoint, at(7000));
    assert_eq!(verdict_of(&later, web.id(), "ENC-01"), "unknown");
    assert_eq!(later.bundle.manifest.counts.passes_by_statement, 0);
    assert_valid(&verify(&later.bytes, &fixture.trust()));
}

#[test]
fn a_snapshot_tells_which_requirements_its_controls_support_and_which_they_do_not_address() {
    let fixture = Fixture::new();
    let made = fixture.made();
    let soc2 = row(&made, "coverage.json", |row| row["framework"] == "soc2");
    let ids = |name: &str| soc2[name].as_array().unwrap().len();
    assert_eq!((ids("supported_in_part") + ids("not_addressed"), &soc2["list_complete"]), (61, &true.into()));
    assert!(soc2["not_addressed"].as_array().unwrap().contains(&"CC1.1".into()));
    let changed = repack(&made, &fixture.key, |files| {
        replace(files.get_mut("coverage.json").unwrap(), "\"CC1.1\",", "");
    });
    assert!(!verify(&changed, &fixture.trust()).valid);
    // With fewer controls in scope, more is not addressed by them.
    let checkpoint = fixture.log.checkpoint().unwrap();
    let controls = Some(vec!["FWL-01".parse().unwrap()]);
    let parameters = Parameters { as_of: at(3700), log_size: checkpoint.size, controls, hosts: None };
    let few = make::make(&fixture.log, &fixture.key, &checkpoint, &fixture.catalogue, parameters).unwrap();
    let soc2 = row(&few, "coverage.json", |row| row["framework"] == "soc2");
    assert_eq!(soc2["supported_in_part"].as_array().unwrap().len(), 2, "{soc2}");
    assert_valid(&verify(&few.bytes, &fixture.trust()));
}

/// Returns the act that acknowledges every change that the sample facts list, of `host`.
fn acknowledgement(host: AgentId) -> Act {
    let change = |change: &fact::FileChange| v1::AcknowledgedChange {
        agent_id: host.as_bytes().to_vec(),
        path: change.path.as_str().to_owned(),
        after_digest: change.after_digest().as_bytes().to_vec(),
    };
    Act::FileChangesAcknowledged(v1::FileChangesAcknowledged {
        changes: sample::file_integrity().changes.iter().map(change).collect(),
        reason: "planned".to_owned(),
        reference: "CHG-7".to_owned(),
    })
}

#[test]
fn a_pass_that_rests_on_an_acknowledgement_carries_the_act_and_is_judged_again_offline() {
    let mut fixture = Fixture::new();
    let mut host = fixture.take_web();
    let web = host.id();
    let readable = fact::FileIntegrity { unreadable: Vec::new(), unreadable_total: 0, ..sample::file_integrity() };
    fixture.add(&[host.facts(at(3610), at(3611), &[Fact::FileIntegrity(Reading::Known(readable))])]);
    let result = |made: &Made| {
        let is_it = |row: &serde_json::Value| row["agent_id"] == web.to_string() && row["control_id"] == "FIM-02";
        row(made, "results.json", is_it)
    };
    let before = fixture.made();
    assert_eq!(result(&before)["verdict"], "fail");
    let index = fixture.log.checkpoint().unwrap().size;
    // The second says nothing new, and the third is about a host that has no such change: neither is needed.
    let silent = fixture.silent;
    fixture.add(&[
        act(at(3650), acknowledgement(web)),
        act(at(3651), acknowledgement(web)),
        act(at(3652), acknowledgement(silent)),
    ]);
    let made = fixture.made();
    let verification = verify(&made.bytes, &fixture.trust());
    assert_valid(&verification);
    assert!(
        verification.claimed.iter().any(|claim| claim.contains("as they should be after 1 change:")),
        "{:?}",
        verification.claimed
    );
    let passed = result(&made);
    assert_eq!(passed["verdict"], "pass");
    assert_eq!(passed["reason"], "with changes that operators acknowledged: content: /etc/passwd");
    assert!(passed["log_indexes"].as_array().unwrap().contains(&index.into()), "{passed}");
    assert_eq!(made.bundle.manifest.counts.passes_by_statement, 0);
    let host = row(&made, "hosts.json", |row| row["agent_id"] == web.to_string());
    let word = &host["acknowledged_changes"][0];
    assert_eq!((word["path"].as_str(), word["reason"].as_str()), (Some("/etc/passwd"), Some("planned")));
    assert_eq!((word["log_index"].as_u64(), word["actor"].as_str()), (Some(index), Some("spiffe://c1/admin/a")));
    let acts = |made: &Made| (index..index + 3).filter(|at| made.bundle.files.contains_key(&entry_name(*at))).count();
    assert_eq!(acts(&made), 1);
    // At an instant before the act it does not hold, also when the log has it.
    let earlier = fixture.make(&fixture.log.checkpoint().unwrap(), at(3640));
    assert_valid(&verify(&earlier.bytes, &fixture.trust()));
    assert_eq!((result(&earlier)["verdict"].as_str(), acts(&earlier)), (Some("fail"), 0));
    // Without the act the verdict does not follow, whoever signs.
    let without = repack(&made, &fixture.key, |files| {
        files.remove(&entry_name(index));
    });
    assert!(!verify(&without, &fixture.trust()).valid);
}
