//! What a hostile agent may put into good reports: nothing breaks, and nothing of it reaches a terminal unescaped.

use muster_proto::{
    fact::{Fact, Package, PackageManager, Reading, Software, Subject, Text},
    fact_set,
    id::Digest,
    limits,
    report::{Body, Coverage, Facts, SubjectFact, SubjectPart},
    v1::{self, RejectionReason as Reason, Verdict},
};
use muster_tests::{
    harness::{check, now, scene::Scene, until},
    load::{
        Chain, Event, Identity, Session,
        chain::agent_fact,
        invent::{Inventor, TEXTS, unprintable},
    },
};
use prost::Message as _;

/// What a person or program may ask for.
const QUESTIONS: &[&[&str]] =
    &[&["hosts", "list"], &["findings", "list"], &["controls", "list"], &["fleet"], &["token", "list"]];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invented_facts_break_nothing_and_are_never_printed_raw() {
    let mut scene = Scene::set("invented facts").await;
    let identity = scene.enroll("inventor").await;
    let mut inventor = Inventor::new(scene.random.clone());
    let mut nonce = Vec::new();
    for round in 0..12 {
        // A fact set that is garbled stays so until it is sent anew, so each round is an epoch.
        let mut chain = Chain::begin(identity.id, &mut scene.random, now());
        let mut session = Session::open(&identity, &chain, &nonce).await.unwrap();
        nonce.clone_from(&session.welcome.session_nonce);
        let body = chain.epoch_started();
        send(&mut session, &mut chain, &identity, body).await;
        inventor.list_items = if round % 4 == 3 { 40 } else { 4 };
        inventor.hostile_texts = round % 3 != 0;
        for variant in inventor.fact_variants() {
            let fact = inventor.fact(variant);
            if fact.len() > limits::SUBJECT_BYTES_PER_REPORT {
                continue;
            }
            let subjects = vec![SubjectFact { observed: now(), fact: fact.clone() }];
            let fact_set_digest = match Fact::decode(&fact) {
                Ok(good) => fact_set::digest_of([(good.subject(), fact.as_slice())].into_iter()),
                Err(_) => Digest::of_bytes(&fact),
            };
            let body = Body::Facts(Facts { subjects, part: None, fact_set_digest, coverage: coverage(), resync: true });
            send(&mut session, &mut chain, &identity, body).await;
        }
    }
    scene.honest_goes_on().await;
    judged(&scene).await;
    nothing_unprintable(&scene, &identity.id.to_string());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_that_are_none_never_pass() {
    let mut scene = Scene::set("facts that are none").await;
    let identity = scene.enroll("garbled").await;
    let id = identity.id.to_string();
    let mut chain = Chain::begin(identity.id, &mut scene.random, now());
    let mut session = Session::open(&identity, &chain, &[]).await.unwrap();
    let body = chain.epoch_started();
    send(&mut session, &mut chain, &identity, body).await;
    let good = Body::Facts(Facts { ..facts_of(&mut chain, &[agent_fact("1")]) });
    send(&mut session, &mut chain, &identity, good).await;
    // Then bytes that are no fact, in parts: nobody can tell before the last one, so that they are admitted.
    let (observed, bytes) = (now(), [0xff; 20]);
    let digest = Digest::of_bytes(&bytes.repeat(2));
    for index in 0..2 {
        let part = SubjectPart { observed, index, count: 2, digest, bytes: bytes.to_vec() };
        // Right until the last part: the set that a resync empties.
        let fact_set_digest = fact_set::digest_of(std::iter::empty());
        let (subjects, resync) = (Vec::new(), index == 0);
        let bad = Body::Facts(Facts { subjects, part: Some(part), fact_set_digest, coverage: coverage(), resync });
        assert_eq!(send(&mut session, &mut chain, &identity, bad).await, None);
    }
    judged(&scene).await;
    let verdicts = scene.admin.host(&id).await.unwrap().verdicts;
    // That it reports on time is true, whatever it reports.
    let about_facts = verdicts.iter().filter(|verdict| verdict.control_id != "INV-02");
    let passing: Vec<_> = about_facts.filter(|verdict| verdict.verdict() == Verdict::Pass).collect();
    assert!(passing.is_empty(), "{passing:?}");
    nothing_unprintable(&scene, &id);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fact_that_no_agent_can_mean_is_refused_and_nothing_of_it_is_in_the_log() {
    let mut scene = Scene::set("facts of unknown numbers").await;
    let identity = scene.enroll("numbers").await;
    let mut chain = Chain::begin(identity.id, &mut scene.random, now());
    let mut session = Session::open(&identity, &chain, &[]).await.unwrap();
    let body = chain.epoch_started();
    assert_eq!(send(&mut session, &mut chain, &identity, body).await, None);
    let of_cause = |cause: i32| {
        let unknown = v1::Unknown { cause, detail: String::new() };
        let reading = Some(v1::firewall_fact::Reading::Unknown(unknown));
        v1::Fact { fact: Some(v1::fact::Fact::Firewall(v1::FirewallFact { reading })) }.encode_to_vec()
    };
    let whole = |fact: &[u8]| {
        let subjects = vec![SubjectFact { observed: now(), fact: fact.to_vec() }];
        let fact_set_digest = fact_set::digest_of([(Subject::Firewall, fact)].into_iter());
        Body::Facts(Facts { subjects, part: None, fact_set_digest, coverage: coverage(), resync: true })
    };
    for (fact, reason, word) in [
        (of_cause(99), Reason::UnknownKind, "firewall"),
        (of_cause(0), Reason::UnknownKind, "firewall"),
        (of_cause(i32::MIN), Reason::UnknownKind, "firewall"),
        (vec![0xff; 40], Reason::Malformed, "protobuf"),
        (Vec::new(), Reason::Malformed, "fact"),
        (of_cause(1)[..3].to_vec(), Reason::Malformed, "protobuf"),
    ] {
        let place = chain.next;
        let rejection = send(&mut session, &mut chain, &identity, whole(&fact)).await.expect("it is refused");
        assert_eq!(rejection.reason(), reason, "{rejection:?}");
        assert!(rejection.detail.contains(word), "{rejection:?}");
        assert_eq!((rejection.sequence, chain.next), (place.number(), place));
    }
    // What only a newer agent can say is evidence.
    let newer = whole(&[0xa2, 0x06, 0x02, 0x0a, 0x00]);
    assert_eq!(send(&mut session, &mut chain, &identity, newer).await, None);
    assert_eq!(send(&mut session, &mut chain, &identity, whole(&of_cause(1))).await, None);
    judged(&scene).await;
    let host = scene.admin.host(&identity.id.to_string()).await.unwrap();
    assert_eq!(host.facts.iter().map(|held| held.fact.clone()).collect::<Vec<_>>(), [of_cause(1)]);
    let log = scene.end().await;
    let chains = log.chains().unwrap();
    muster_tests::evidence::check_chains(&chains).unwrap();
    assert_eq!(chains[&(identity.id, chain.epoch)].len(), 3, "the start and the two that were taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_packages_travel_in_parts_and_are_all_there() {
    let mut scene = Scene::set("ten thousand packages").await;
    let identity = scene.enroll("large").await;
    let mut chain = Chain::begin(identity.id, &mut scene.random, now());
    let mut session = Session::open(&identity, &chain, &[]).await.unwrap();
    let body = chain.epoch_started();
    send(&mut session, &mut chain, &identity, body).await;
    let packages = (0..10_000)
        .map(|n| Package {
            name: Text::new(&format!("package-{n:05}")),
            version: Text::new("1:2.3.4-5+deb12u6"),
            architecture: Text::new("amd64"),
            manager: PackageManager::Dpkg,
        })
        .collect();
    let fact = Fact::Software(Reading::Known(Software { packages })).encode();
    let (observed, digest) = (now(), Digest::of_bytes(&fact));
    let parts: Vec<_> = fact.chunks(limits::SUBJECT_BYTES_PER_REPORT).collect();
    let count = u32::try_from(parts.len()).unwrap();
    assert!(count > 2, "the list is too short to need parts");
    for (index, bytes) in (0..).zip(parts) {
        let part = SubjectPart { observed, index, count, digest, bytes: bytes.to_vec() };
        let whole = index + 1 == count;
        let subject = (muster_proto::fact::Subject::Software, fact.as_slice());
        let fact_set_digest = fact_set::digest_of(whole.then_some(subject).into_iter());
        let resync = index == 0;
        let body = Facts { subjects: Vec::new(), part: Some(part), fact_set_digest, coverage: coverage(), resync };
        send(&mut session, &mut chain, &identity, Body::Facts(body)).await;
    }
    judged(&scene).await;
    let host = scene.admin.host(&identity.id.to_string()).await.unwrap();
    let software = host.facts.iter().find(|held| held.subject == "software").expect("the packages are there");
    assert_eq!(software.fact, fact);
    nothing_unprintable(&scene, &identity.id.to_string());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_at_enrolment_is_never_printed_raw() {
    let scene = Scene::set("claims").await;
    let mut taken = 0;
    for text in TEXTS.iter().map(|text| (*text).to_owned()).chain([String::from("x").repeat(5000)]) {
        let keys = muster_tests::load::identity::Keys::generate();
        let mut request = keys.request(&scene.token, &text);
        request.claim = Some(v1::HostClaim {
            hostname: text.clone(),
            machine_id_digest: text.clone(),
            hardware_serial: text.clone(),
            agent_version: text.clone(),
        });
        taken += u32::from(muster_tests::load::identity::enroll(&scene.target, request).await.is_ok());
    }
    eprintln!("{taken} of {} claims were taken", TEXTS.len() + 1);
    assert!(taken > 0, "not even a plain claim is taken");
    for question in QUESTIONS {
        printable(&scene, question);
    }
    scene.end().await;
}

fn coverage() -> Coverage {
    Coverage { start: now(), end: now(), looks: Vec::new(), suspended_millis: 0, directive_ids: Vec::new() }
}

fn facts_of(chain: &mut Chain, facts: &[Fact]) -> Facts {
    match chain.facts(facts, true, now()) {
        Body::Facts(facts) => facts,
        other => panic!("not facts: {other:?}"),
    }
}

/// Sends a body at the next place. It is taken or refused; if refused, the place stays free, and the refusal is returned.
async fn send(session: &mut Session, chain: &mut Chain, identity: &Identity, body: Body) -> Option<v1::Rejection> {
    let place = chain.next.number();
    let sealed = identity.keys.evidence.seal(chain.report(body, now()).encode());
    session.send(sealed.clone()).await;
    loop {
        match session.next().await.unwrap() {
            Event::Durable(durable) if durable.through_sequence >= place => {
                chain.advance(&sealed);
                return None;
            }
            Event::Rejection(rejection) => {
                assert_eq!(unprintable(&rejection.detail), None, "{rejection:?}");
                return Some(rejection);
            }
            Event::Durable(_) | Event::Directive(_) => {}
            Event::End(status) => panic!("the stream ended: {status:?}"),
        }
    }
}

/// Waits until all that is in the log is judged.
async fn judged(scene: &Scene) {
    let checkpoint = scene.admin.log().get_checkpoint(v1::GetCheckpointRequest {}).await.unwrap().into_inner();
    let text = String::from_utf8(checkpoint.checkpoint).unwrap();
    let size: u64 = text.lines().nth(1).unwrap().parse().unwrap();
    until("the log is judged", async || {
        let summary = scene.admin.fleet().get_fleet_summary(v1::GetFleetSummaryRequest {}).await;
        let judged = summary.map_err(|status| status.to_string())?.into_inner().log_size;
        check(judged >= size, format!("{judged} of {size}"))
    })
    .await;
}

fn nothing_unprintable(scene: &Scene, id: &str) {
    for question in QUESTIONS {
        printable(scene, question);
    }
    printable(scene, &["hosts", "show", id]);
}

fn printable(scene: &Scene, question: &[&str]) {
    let ctl = scene.collector.ctl();
    for form in ["table", "json"] {
        let text = ctl.text(&[question, &["-o", form]].concat());
        assert_eq!(unprintable(&text), None, "musterctl {question:?} -o {form} prints it:\n{text:?}");
    }
}
