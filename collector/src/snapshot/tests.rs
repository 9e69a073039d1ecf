//! Snapshots of a small fleet in a real log, verified as made and after every kind of change.

use std::{collections::BTreeMap, time::Duration};

use muster_proto::{
    fact::{Cause, Fact, Reading, Subject, Text, sample},
    fact_set::{self, FactSet},
    id::{AgentId, Digest, Epoch, ReportSeq},
    report::{
        Attestation, Body, Coverage, Facts, Lifecycle, LifecycleKind, Probe, ProbeLooks, Report, SubjectFact,
        SubjectPart,
    },
    seal::{ENROLL_DOMAIN, EvidenceKey, sealed_digest},
    time::Timestamp,
    v1::{self, act::Act, log_entry::Entry},
};
use prost::Message as _;

use super::{
    archive,
    make::{self, Made},
    manifest::{FileRef, Manifest, NAME, Parameters},
    verify::{Trust, Verification, verify},
};
use crate::{
    control::Catalogue,
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
}

impl Host {
    fn new() -> Self {
        let (key, _) = EvidenceKey::generate().unwrap();
        Self { key, seq: ReportSeq::FIRST, previous: None, set: FactSet::default() }
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
        entry(received, Entry::Report(v1::AdmittedReport { sealed: Some(sealed), clock_skew_millis: 0 }))
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
    let probes = [Probe::System, Probe::DiskEncryption, Probe::PatchLevel, Probe::Firewall, Probe::FileIntegrity];
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
        let (log, appender) = Log::open(&dir, key).unwrap();
        let (mut web, mut hostile, silent, mut revoked) = (Host::new(), Host::new(), Host::new(), Host::new());
        let catalogue = Catalogue::built_in();
        let mut fixture = Self {
            _folder: folder,
            log,
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
        make::make(&self.log, checkpoint, &self.catalogue, parameters).unwrap()
    }

    fn made(&self) -> Made {
        self.make(&self.log.checkpoint().unwrap(), at(3700))
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

/// Makes a consistent file of changed contents: checksums and the manifest's digests follow the change.
fn repack(made: &Made, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Vec<u8> {
    let mut files = made.bundle.files.clone();
    change(&mut files);
    let mut manifest: Manifest = serde_json::from_slice(&files[NAME]).unwrap();
    manifest.files = files
        .iter()
        .filter(|(name, _)| *name != NAME)
        .map(|(name, content)| (name.clone(), FileRef::of(content)))
        .collect();
    let mut text = serde_json::to_vec_pretty(&manifest).unwrap();
    text.push(b'\n');
    files.insert(NAME.to_owned(), text);
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

#[test]
fn what_was_observed_or_received_by_the_instant_counts_and_nothing_else() {
    let mut fixture = Fixture::new();
    let mut web = std::mem::replace(&mut fixture.web, Host::new());
    let agent = web.id();
    let last = |made: &Made| -> (u64, bool) {
        let hosts: Vec<serde_json::Value> = serde_json::from_slice(&made.bundle.files["hosts.json"]).unwrap();
        let host = hosts.into_iter().find(|host| host["agent_id"] == agent.to_string()).unwrap();
        (host["last_report"]["log_index"].as_u64().unwrap(), host["fact_set"]["agrees"].as_bool().unwrap())
    };
    let before = last(&fixture.made()).0;
    // Sent late: observed before the instant, received after it.
    let late = fixture.add(&[web.attestation(at(3650), at(9000))]);
    assert_eq!(last(&fixture.make(&late, at(3700))), (late.size - 1, true));
    // After the instant by both clocks.
    let after = fixture.add(&[web.facts(at(5000), at(9001), &[sample::unknown(Subject::System, Cause::Failed, "")])]);
    assert_eq!(last(&fixture.make(&after, at(3700))), (late.size - 1, true));
    // The clock went back: what the chain has before it counts too.
    let back = fixture.add(&[web.attestation(at(3600), at(9002))]);
    let made = fixture.make(&back, at(3700));
    assert_eq!(last(&made), (back.size - 1, true));
    assert!(before < late.size);
    for made in [fixture.make(&late, at(3700)), fixture.make(&after, at(3700)), made] {
        assert_valid(&verify(&made.bytes, &Trust::default()));
    }
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
    let made = Fixture::new().made();
    assert_valid(&verify(&repack(&made, |_| {}), &Trust::default()));
    let names: Vec<String> = made.bundle.files.keys().filter(|name| *name != NAME).cloned().collect();
    assert!(names.len() > 20, "{names:?}");
    let mut state = 1_usize;
    for name in &names {
        for round in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let changed = repack(&made, |files| {
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
        let gone = repack(&made, |files| drop(files.remove(name)));
        assert!(!verify(&gone, &Trust::default()).valid, "{name} removed");
    }
}

#[test]
fn a_verdict_a_count_or_an_instant_that_the_evidence_does_not_give_is_named() {
    let made = Fixture::new().made();
    let cases: [(&str, &str, &str); 6] = [
        ("results.json", "\"verdict\":\"fail\"", "\"verdict\":\"pass\""),
        ("results.csv", "\"no_data\"", "\"pass\""),
        ("hosts.csv", "\"revoked\"", "\"active\""),
        ("hosts.json", "\"state\":\"revoked\"", "\"state\":\"active\""),
        ("controls.json", "\"severity\": \"high\"", "\"severity\": \"low\""),
        ("README.txt", "as of", "As of"),
    ];
    for (name, from, to) in cases {
        let verification =
            verify(&repack(&made, |files| replace(files.get_mut(name).unwrap(), from, to)), &Trust::default());
        assert!(verification.problems.iter().any(|problem| problem.file == name), "{name}: {verification:#?}");
    }
    for (from, to) in [
        ("\"hosts_revoked\": 1", "\"hosts_revoked\": 0"),
        ("\"as_of\": \"", "\"as_of\": \"2999-01-01T00:00:00Z\", \"x\": \""),
        ("\"excepted\": 0", "\"excepted\": 1"),
        ("muster-snapshot/1", "muster-snapshot/2"),
    ] {
        let verification =
            verify(&repack_manifest(&made, |text| *text = text.replacen(from, to, 1)), &Trust::default());
        assert!(!verification.valid, "{from}");
    }
    // A later instant changes what the evidence gives.
    let text = made.bundle.manifest.parameters.as_of.to_string();
    let later = verify(
        &repack_manifest(&made, |manifest| *manifest = manifest.replace(&text, "2027-01-01T00:00:00Z")),
        &Trust::default(),
    );
    assert!(later.problems.iter().any(|problem| problem.file == "results.json"), "{:#?}", later.problems);
}

fn repack_manifest(made: &Made, change: impl FnOnce(&mut String)) -> Vec<u8> {
    let mut files = made.bundle.files.clone();
    let mut text = String::from_utf8(files[NAME].clone()).unwrap();
    change(&mut text);
    assert_ne!(text.as_bytes(), files[NAME]);
    files.insert(NAME.to_owned(), text.into_bytes());
    archive::write(&files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect()).unwrap()
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
    assert!(!verify(&bytes, &Trust { log_key: Some(other), ca_digest: None }).valid);
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
    let made = make::make(&fixture.log, &checkpoint, &fixture.catalogue, parameters).unwrap();
    assert_valid(&verify(&made.bytes, &Trust::default()));
    let counts = &made.bundle.manifest.counts;
    assert_eq!((counts.hosts, counts.hosts_judged, counts.controls, counts.results), (2, 2, 1, 2));
}
