//! Reports that break the chain, the signature or a field: each is refused with its reason, and the next good one is taken.

use std::time::Duration;

use muster_proto::{
    id::ReportSeq,
    limits,
    report::{Body, Gap, GapCause, Lost},
    seal::EvidenceKey,
    v1::{self, RejectionReason as Reason, report::Body as WireBody},
};
use muster_tests::{
    harness::{now, scene::Scene},
    load::{
        Chain, Event, Identity, Session,
        chain::{seal_wire, wire},
        session::{reason, report_step},
    },
};

/// An enrolled agent with a chain under way, and a stream that is opened again whenever it was ended.
struct Attacker {
    identity: Identity,
    chain: Chain,
    nonce: Vec<u8>,
    session: Option<Session>,
}

impl Attacker {
    async fn of(scene: &mut Scene) -> Self {
        let identity = scene.enroll("attacker").await;
        let chain = Chain::begin(identity.id, &mut scene.random, now());
        let mut attacker = Self { identity, chain, nonce: Vec::new(), session: None };
        for _ in 0..3 {
            attacker.behave().await;
        }
        attacker
    }

    fn key(&self) -> &EvidenceKey {
        &self.identity.keys.evidence
    }

    /// Returns the next good report in its wire form, without taking the place.
    fn good(&self) -> v1::Report {
        let body = self.chain.clone().usual(now());
        wire(&self.chain.report(body, now()))
    }

    async fn session(&mut self) -> &mut Session {
        while self.session.is_none() {
            match Session::open(&self.identity, &self.chain, &self.nonce).await {
                Ok(session) => {
                    self.nonce.clone_from(&session.welcome.session_nonce);
                    self.session = Some(session);
                }
                // Whoever opens streams too often has to wait.
                Err(status) if reason(&status).1 == "TOO_MANY_ATTEMPTS" => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(status) => panic!("it is not frozen: {status}"),
            }
        }
        self.session.as_mut().expect("opened above")
    }

    /// Sends the next good report and sees it taken.
    async fn behave(&mut self) {
        let sealed = seal_wire(self.key(), &self.good());
        self.chain.advance(&sealed);
        let place = self.chain.next.number() - 1;
        self.session().await.send(sealed.clone()).await;
        // A refusal may have ended the stream behind it; then the report is sent again on the next one.
        if self.session().await.durable_through(place).await.is_err() {
            self.session = None;
            self.session().await.send(sealed).await;
            self.session().await.durable_through(place).await.expect("a good report is taken");
        }
    }

    /// Sends `bad` and returns its refusal.
    async fn misbehave(&mut self, bad: v1::SealedReport) -> v1::Rejection {
        self.session().await.send(bad.clone()).await;
        if let Ok(rejection) = self.session().await.rejection().await {
            return rejection;
        }
        // The collector ends the stream of one who goes on like that; he comes again.
        self.session = None;
        self.session().await.send(bad).await;
        self.session().await.rejection().await.expect("it is refused")
    }
}

/// A way to spoil a good report.
type Spoil = fn(&mut v1::Report);

fn body<T>(report: &mut v1::Report, pick: fn(&mut WireBody) -> Option<&mut T>) -> &mut T {
    report.body.as_mut().and_then(pick).expect("the body of this case")
}

fn attestation(report: &mut v1::Report) -> &mut v1::Attestation {
    body(report, |body| if let WireBody::Attestation(attestation) = body { Some(attestation) } else { None })
}

fn coverage(report: &mut v1::Report) -> &mut v1::Coverage {
    attestation(report).coverage.as_mut().expect("a good attestation has a coverage")
}

fn lifecycle(kind: i32, probe: i32) -> Option<WireBody> {
    Some(WireBody::Lifecycle(v1::Lifecycle { kind, probe, ..v1::Lifecycle::default() }))
}

fn gap(cause: i32) -> Option<WireBody> {
    let time = Some(now().to_wire());
    Some(WireBody::Gap(v1::Gap { cause, start_time: time, end_time: time, ..v1::Gap::default() }))
}

fn gap_of(report: &mut v1::Report) -> &mut v1::Gap {
    body(report, |body| if let WireBody::Gap(gap) = body { Some(gap) } else { None })
}

/// Each way, and the reason that it is refused with.
const SPOILS: &[(&str, Reason, Spoil)] = &[
    ("no body", Reason::UnknownKind, |report| report.body = None),
    ("agent id empty", Reason::Malformed, |report| report.agent_id.clear()),
    ("agent id of 17 bytes", Reason::Malformed, |report| report.agent_id.push(0)),
    ("agent id of another", Reason::ForeignAgent, |report| report.agent_id[3] ^= 1),
    ("epoch empty", Reason::Malformed, |report| report.epoch.clear()),
    ("epoch of another", Reason::ForeignEpoch, |report| report.epoch[3] ^= 1),
    ("sequence 0", Reason::Malformed, |report| report.sequence = 0),
    ("sequence one ahead", Reason::OutOfOrder, |report| report.sequence += 1),
    ("sequence far ahead", Reason::OutOfOrder, |report| report.sequence = 1 << 60),
    ("sequence at the end of numbers", Reason::Malformed, |report| report.sequence = u64::MAX),
    ("no previous digest", Reason::Malformed, |report| report.previous_digest.clear()),
    ("previous digest of 31 bytes", Reason::Malformed, |report| {
        report.previous_digest.pop();
    }),
    ("another previous digest", Reason::BrokenChain, |report| report.previous_digest[0] ^= 1),
    ("no observed time", Reason::Malformed, |report| report.observed_time = None),
    ("observed time before 1970", Reason::Malformed, |report| {
        report.observed_time = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
    }),
    ("observed time at the end of numbers", Reason::Malformed, |report| {
        report.observed_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: i32::MAX });
    }),
    ("observed time with negative nanoseconds", Reason::Malformed, |report| {
        report.observed_time = Some(prost_types::Timestamp { seconds: 1, nanos: -1 });
    }),
    ("no boot id", Reason::Malformed, |report| report.boot_id.clear()),
    ("agent version with an escape", Reason::Malformed, |report| report.agent_version = "\u{1b}[31m1".to_owned()),
    ("agent version of 65 bytes", Reason::Malformed, |report| report.agent_version = "1".repeat(65)),
    ("checkpoint root of 5 bytes", Reason::Malformed, |report| {
        report.last_checkpoint = Some(v1::CheckpointRef { size: 1, root: vec![1; 5], origin: "c1".to_owned() });
    }),
    ("checkpoint of a log without a name", Reason::Malformed, |report| {
        report.last_checkpoint = Some(v1::CheckpointRef { size: 1, root: vec![1; 32], origin: String::new() });
    }),
    ("no coverage", Reason::Malformed, |report| attestation(report).coverage = None),
    ("fact set digest of 5 bytes", Reason::Malformed, |report| attestation(report).fact_set_digest = vec![1; 5]),
    ("coverage without a start", Reason::Malformed, |report| coverage(report).start_time = None),
    ("coverage that ends before it starts", Reason::Malformed, |report| {
        let coverage = coverage(report);
        std::mem::swap(&mut coverage.start_time, &mut coverage.end_time);
        coverage.end_time = Some(prost_types::Timestamp { seconds: 0, nanos: 0 });
        coverage.start_time = Some(prost_types::Timestamp { seconds: 9, nanos: 0 });
    }),
    ("probe 0", Reason::UnknownKind, |report| coverage(report).looks[0].probe = 0),
    ("probe 99", Reason::UnknownKind, |report| coverage(report).looks[4].probe = 99),
    ("probe -1", Reason::UnknownKind, |report| coverage(report).looks[0].probe = -1),
    ("probe twice", Reason::Malformed, |report| coverage(report).looks[1].probe = 1),
    ("no looks of a probe", Reason::Malformed, |report| coverage(report).looks[0].count = 0),
    ("too many directive ids", Reason::Malformed, |report| coverage(report).directive_ids = (0..65).collect()),
    ("gap cause 0", Reason::UnknownKind, |report| report.body = gap(0)),
    ("gap cause 99", Reason::UnknownKind, |report| report.body = gap(99)),
    ("gap cause at the end of numbers", Reason::UnknownKind, |report| report.body = gap(i32::MIN)),
    ("gap that lost nothing after a report", Reason::Malformed, |report| {
        report.body = gap(1);
        gap_of(report).digest_before = vec![1; 32];
    }),
    ("gap that lost reports after none", Reason::Malformed, |report| {
        report.body = gap(1);
        (gap_of(report).first_sequence, gap_of(report).last_sequence) = (2, 2);
    }),
    ("gap that counts apples", Reason::UnknownKind, |report| {
        report.body = gap(1);
        gap_of(report).counts = vec![v1::GapCount { kind: "apples".to_owned(), count: 1 }];
    }),
    ("gap that counts a kind twice", Reason::Malformed, |report| {
        report.body = gap(1);
        gap_of(report).counts = vec![v1::GapCount { kind: "looks".to_owned(), count: 1 }; 2];
    }),
    ("lifecycle with the probe of another kind", Reason::Malformed, |report| report.body = lifecycle(2, 3)),
    ("lifecycle of a crashed probe without it", Reason::UnknownKind, |report| report.body = lifecycle(7, 0)),
    ("lifecycle kind 0", Reason::UnknownKind, |report| report.body = lifecycle(0, 0)),
    ("lifecycle kind 99", Reason::UnknownKind, |report| report.body = lifecycle(99, 0)),
    ("lifecycle probe 99", Reason::UnknownKind, |report| report.body = lifecycle(7, 99)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoiled_report_is_refused_with_its_reason_and_the_next_good_one_taken() {
    let mut scene = Scene::set("spoiled reports").await;
    let mut attacker = Attacker::of(&mut scene).await;
    for (what, reason, spoil) in SPOILS {
        let mut report = attacker.good();
        spoil(&mut report);
        let expected = attacker.chain.next.number();
        let rejection = attacker.misbehave(seal_wire(attacker.key(), &report)).await;
        assert_eq!(rejection.reason(), *reason, "{what}: {rejection:?}");
        assert_eq!(rejection.expected_sequence, expected, "{what}: {rejection:?}");
        assert!(!rejection.detail.is_empty(), "{what}: no word for a person");
        attacker.behave().await;
    }
    only_good_reports_are_in_the_log(scene, &attacker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_with_another_signature_is_refused() {
    let mut scene = Scene::set("signatures").await;
    let mut attacker = Attacker::of(&mut scene).await;
    let (other, _) = EvidenceKey::generate().unwrap();
    for case in 0..5 {
        let report = attacker.good();
        let mut sealed = seal_wire(attacker.key(), &report);
        match case {
            0 => sealed.signature[40] ^= 1,
            1 => sealed.signature.clear(),
            2 => sealed.signature.push(0),
            3 => sealed = seal_wire(&other, &report),
            // Signed for another purpose.
            _ => sealed.signature = attacker.key().sign("muster/enroll/v1", &sealed.report).to_vec(),
        }
        let rejection = attacker.misbehave(sealed).await;
        assert_eq!(rejection.reason(), Reason::BadSignature, "case {case}: {rejection:?}");
        attacker.behave().await;
    }
    only_good_reports_are_in_the_log(scene, &attacker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_report_are_refused() {
    let mut scene = Scene::set("bytes that are no report").await;
    let mut attacker = Attacker::of(&mut scene).await;
    let good = seal_wire(attacker.key(), &attacker.good()).report;
    let mut cases = vec![Vec::new(), vec![0xff; 300], vec![0x80; 64], vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]];
    // Field 1 that declares 2 GiB, a group that never ends, and good reports cut at every place.
    cases.push([&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x07], [1; 40].as_slice()].concat());
    cases.push(vec![0x0b; 5000]);
    cases.extend((1..good.len()).step_by(7).map(|len| good[..len].to_vec()));
    cases.extend((0..20).map(|_| scene.random.bytes(200)));
    for bytes in cases {
        let what = format!("{bytes:02x?}");
        let rejection = attacker.misbehave(attacker.key().seal(bytes)).await;
        let expected = [Reason::Malformed, Reason::UnknownKind, Reason::OutOfOrder, Reason::BrokenChain];
        assert!(expected.contains(&rejection.reason()), "{rejection:?} for {what}");
    }
    attacker.behave().await;
    only_good_reports_are_in_the_log(scene, &attacker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_larger_than_the_limit_is_refused_and_one_at_the_limit_taken() {
    let mut scene = Scene::set("large reports").await;
    let mut attacker = Attacker::of(&mut scene).await;
    let sized = |attacker: &Attacker, len: usize| {
        // An unknown field, which a reader of this version skips, makes any size.
        let mut report = attacker.key().seal(prost::Message::encode_to_vec(&attacker.good())).report;
        let pad = len - report.len() - 5;
        report.extend_from_slice(&[0xfa, 0x7f]);
        prost::encoding::encode_varint(pad as u64, &mut report);
        report.resize(len, 0);
        attacker.key().seal(report)
    };
    for over in [1, 100, 2000] {
        let rejection = attacker.misbehave(sized(&attacker, limits::REPORT_BYTES + over)).await;
        assert_eq!(rejection.reason(), Reason::TooLarge, "{over} bytes over: {rejection:?}");
        attacker.behave().await;
    }
    let sealed = sized(&attacker, limits::REPORT_BYTES);
    attacker.chain.advance(&sealed);
    let place = attacker.chain.next.number() - 1;
    attacker.session().await.send(sealed).await;
    attacker.session().await.durable_through(place).await.expect("a report at the limit is taken");
    only_good_reports_are_in_the_log(scene, &attacker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_that_lies_about_the_chain_is_refused_and_a_true_one_taken() {
    let mut scene = Scene::set("gaps").await;
    let mut attacker = Attacker::of(&mut scene).await;
    let seq = |number| ReportSeq::new(number).unwrap();
    let gap = |lost| {
        let (start, end) = (now(), now());
        let (counts, detail) = (Vec::new(), "test".into());
        Body::Gap(Gap { cause: GapCause::SpoolDamaged, start, end, lost: Some(lost), counts, detail })
    };
    let other = muster_proto::id::Digest::new([1; 32]);
    for (what, first, last, place, before) in [
        ("it does not begin at the next place", 1, 3, 4, true),
        ("it begins before what is durable", -1, 3, 4, true),
        ("it does not end before its own place", 0, 3, 9, true),
        ("it names another report before", 0, 3, 4, false),
    ] {
        let next = i64::try_from(attacker.chain.next.number()).unwrap();
        let at = |offset: i64| seq(u64::try_from(next + offset).unwrap());
        let digest_before = if before { attacker.chain.head } else { Some(other) };
        let mut chain = attacker.chain.clone();
        chain.next = at(place);
        // The lost reports had digests that nobody knows any more.
        chain.head = Some(other);
        let report = chain.report(gap(Lost { first: at(first), last: at(last), digest_before }), now());
        let rejection = attacker.misbehave(attacker.key().seal(report.encode())).await;
        let expected = [Reason::OutOfOrder, Reason::BrokenChain, Reason::Malformed];
        assert!(expected.contains(&rejection.reason()), "{what}: {rejection:?}");
        // What is out of order again is not answered again, so a good one comes between.
        attacker.behave().await;
    }

    let next = attacker.chain.next.number();
    let lost = Lost { first: seq(next), last: seq(next + 3), digest_before: attacker.chain.head };
    attacker.chain.next = seq(next + 4);
    let mut chain = attacker.chain.clone();
    chain.head = Some(other);
    let sealed = attacker.key().seal(chain.report(gap(lost), now()).encode());
    attacker.chain.advance(&sealed);
    attacker.session().await.send(sealed).await;
    attacker.session().await.durable_through(next + 4).await.expect("a true gap is taken");
    attacker.behave().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_bad_reports_harm_only_their_sender() {
    let mut scene = Scene::set("thousands of bad reports").await;
    let mut attacker = Attacker::of(&mut scene).await;
    let (before, _) = scene.collector.process().memory_bytes();
    let (mut sent, mut refused, mut ended) = (0, 0, 0);
    while sent < 5_000 {
        let mut report = attacker.good();
        match sent % 3 {
            0 => report.sequence += 1 + scene.random.below(1_000),
            1 => report.body = None,
            _ => report.agent_id[0] ^= 1,
        }
        let bad = report_step(seal_wire(attacker.key(), &report));
        let session = attacker.session().await;
        let sender = session.sender();
        tokio::select! {
            // An ended stream shows in its answers.
            _ = sender.send(bad) => sent += 1,
            event = session.next() => match event.expect("an answer") {
                Event::Rejection(_) => refused += 1,
                Event::End(_) => {
                    ended += 1;
                    attacker.session = None;
                }
                Event::Durable(_) | Event::Directive(_) => {}
            },
        }
    }
    eprintln!("{sent} bad reports: {refused} refusals, {ended} streams ended");
    assert!(refused > 10, "{refused}");
    attacker.session = None;
    scene.honest_goes_on().await;
    let (after, _) = scene.collector.process().memory_bytes();
    assert!(after < before + 64 * 1024 * 1024, "memory grew from {before} to {after} bytes");
    attacker.behave().await;
    only_good_reports_are_in_the_log(scene, &attacker).await;
}

/// Ends the scene; of the attacker the log holds its good reports alone, in order.
async fn only_good_reports_are_in_the_log(scene: Scene, attacker: &Attacker) {
    let log = scene.end().await;
    let chains = log.chains().unwrap();
    muster_tests::evidence::check_chains(&chains).unwrap();
    let of_attacker: Vec<_> = chains.iter().filter(|((agent, _), _)| *agent == attacker.identity.id).collect();
    assert_eq!(of_attacker.len(), 1, "one epoch");
    let ((_, epoch), chain) = of_attacker[0];
    assert_eq!(*epoch, attacker.chain.epoch);
    assert_eq!(chain.len() as u64, attacker.chain.next.number() - 1);
    assert_eq!(chain.last_key_value().unwrap().1[0].0, attacker.chain.head.unwrap());
    assert!(log.conflicts().unwrap().is_empty(), "a refused report is no conflict");
}
