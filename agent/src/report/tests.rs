//! Tests of drafts: whatever is drafted must make the same fact set at the other end.

use muster_proto::{
    fact::{AutomaticUpdates, Cause, Listener, Listeners, Package, PackageManager, Reading, Software, Transport},
    fact_set::FactSet,
    report::{Coverage, Facts},
};

use super::*;

fn at(seconds: u64) -> Moment {
    Moment {
        wall: Timestamp::from_seconds(1_700_000_000 + seconds as i64).unwrap(),
        boot: Duration::from_secs(500 + seconds),
        awake: Duration::from_secs(400 + seconds),
    }
}

fn listeners(port: u16) -> Fact {
    let listener = Listener {
        protocol: Transport::Tcp,
        address: "0.0.0.0".into(),
        port,
        program: Reading::Known("sshd".into()),
        reachable: None,
    };
    Fact::Listeners(Reading::Known(Listeners { listeners: vec![listener] }))
}

fn software(packages: usize) -> Fact {
    let package = |number: usize| Package {
        name: Text::new(&format!("package-{number:06}")),
        version: Text::new("1.2.3-4"),
        architecture: Text::new("amd64"),
        manager: PackageManager::Dpkg,
    };
    Fact::Software(Reading::Known(Software { packages: (0..packages).map(package).collect() }))
}

fn patch_level(detail: &str) -> Fact {
    let _ = AutomaticUpdates { enabled: Reading::Known(true), last_success_time: Reading::unknown(Cause::Absent, "") };
    Fact::PatchLevel(Reading::unknown(Cause::Unsupported, detail))
}

fn facts_of(probe: Probe, port: u16) -> Vec<Fact> {
    let unknown = |subject| draft::unknown(subject, Cause::Unsupported, "test");
    match probe {
        Probe::System => vec![unknown(Subject::System), listeners(port), unknown(Subject::Agent)],
        Probe::DiskEncryption => vec![unknown(Subject::DiskEncryption)],
        Probe::PatchLevel => vec![patch_level("no apt"), software(10)],
        Probe::Firewall => vec![unknown(Subject::Firewall)],
        Probe::Accounts => vec![unknown(Subject::Accounts)],
        Probe::RemoteAccess => vec![unknown(Subject::RemoteAccess)],
        Probe::ScreenLock => vec![unknown(Subject::ScreenLock)],
        Probe::RemovableMedia => vec![unknown(Subject::RemovableMedia)],
        Probe::Sensors => vec![unknown(Subject::Sensors)],
        Probe::Clock => vec![unknown(Subject::Clock)],
        Probe::Boot => vec![unknown(Subject::Boot)],
        Probe::Capacity => vec![unknown(Subject::Capacity)],
        Probe::Backup => vec![unknown(Subject::Backup)],
        Probe::Logging => vec![unknown(Subject::Logging)],
        _ => vec![unknown(Subject::FileIntegrity)],
    }
}

fn look(probe: Probe, facts: Vec<Fact>, second: u64) -> Look {
    Look { probe, is_whole: true, facts, started: at(second), ended: at(second) }
}

/// The other end: applies what is drafted, as collector and auditor do.
#[derive(Default)]
struct Peer {
    set: FactSet<()>,
    coverages: Vec<Coverage>,
}

impl Peer {
    fn take(&mut self, reporter: &mut Reporter, draft: Draft) -> Vec<Facts> {
        let mut facts = Vec::new();
        for body in &draft.bodies {
            match body {
                Body::Facts(body) => {
                    self.set.apply(body, &()).unwrap();
                    self.coverages.push(body.coverage.clone());
                    facts.push(body.clone());
                }
                Body::Attestation(body) => {
                    assert_eq!(body.fact_set_digest, self.set.digest());
                    self.coverages.push(body.coverage.clone());
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(self.set.digest(), draft.fact_set);
        reporter.commit(draft);
        assert_eq!(self.set.digest(), digest_of(reporter.reported()));
        facts
    }
}

/// Returns a reporter that has reported a whole round at second 0, and its peer.
fn settled() -> (Reporter, Peer) {
    let (mut reporter, mut peer) = (Reporter::new(None, at(0)), Peer::default());
    for probe in PROBES {
        reporter.on_look(&look(probe, facts_of(probe, 22), 0));
    }
    let draft = reporter.draft(at(0)).unwrap();
    peer.take(&mut reporter, draft);
    assert!(reporter.draft(at(0)).is_none());
    (reporter, peer)
}

#[test]
fn the_first_facts_begin_an_empty_set_and_later_ones_change_it() {
    let (mut reporter, mut peer) = (Reporter::new(None, at(0)), Peer::default());
    assert!(reporter.draft(at(0)).is_none() && reporter.draft_attestation(at(0)).is_none());
    reporter.on_look(&look(Probe::System, facts_of(Probe::System, 22), 1));
    let draft = reporter.draft(at(1)).unwrap();
    let facts = peer.take(&mut reporter, draft);
    assert!(facts[0].resync && facts[0].subjects.len() == 3);

    reporter.on_look(&look(Probe::System, facts_of(Probe::System, 23), 2));
    let draft = reporter.draft(at(2)).unwrap();
    let facts = peer.take(&mut reporter, draft);
    assert!(!facts[0].resync && facts[0].subjects.len() == 1, "the listeners alone");
    assert_eq!(facts[0].subjects[0].observed, at(2).wall);
}

#[test]
fn an_unchanged_host_says_nothing_until_it_attests_with_every_look_counted() {
    let (mut reporter, mut peer) = settled();
    for second in [60, 120, 200] {
        reporter.on_look(&look(Probe::Firewall, facts_of(Probe::Firewall, 22), second));
        assert!(reporter.draft(at(second)).is_none());
    }
    let draft = reporter.draft_attestation(at(210)).unwrap();
    peer.take(&mut reporter, draft);
    let coverage = peer.coverages.last().unwrap();
    assert_eq!((coverage.start, coverage.end), (at(0).wall, at(210).wall));
    let [looks] = coverage.looks.as_slice() else { panic!("{coverage:?}") };
    assert_eq!((looks.probe, looks.count), (Probe::Firewall, 3));
    assert_eq!((looks.last_before_end_millis, looks.largest_gap_millis), (10_000, 80_000));

    // The look before the span counts for the gap.
    reporter.on_look(&look(Probe::Firewall, facts_of(Probe::Firewall, 22), 500));
    let draft = reporter.draft_attestation(at(500)).unwrap();
    peer.take(&mut reporter, draft);
    assert_eq!(peer.coverages.last().unwrap().looks[0].largest_gap_millis, 300_000);
}

#[test]
fn a_change_that_is_undone_before_it_is_reported_is_not_reported() {
    let (mut reporter, _) = settled();
    reporter.on_look(&look(Probe::System, facts_of(Probe::System, 23), 60));
    reporter.on_look(&look(Probe::System, facts_of(Probe::System, 22), 61));
    assert!(reporter.draft(at(61)).is_none());
    assert!(reporter.draft_attestation(at(61)).is_some());
}

#[test]
fn a_restart_with_the_same_facts_attests_once_and_resends_nothing() {
    let (reporter, mut peer) = settled();
    let mut restarted = Reporter::new(Some(reporter.reported().clone()), at(900));
    for probe in PROBES {
        assert!(restarted.draft(at(900)).is_none());
        restarted.on_look(&look(probe, facts_of(probe, 22), 900));
    }
    let draft = restarted.draft(at(901)).unwrap();
    assert!(!draft.changes_facts);
    peer.take(&mut restarted, draft);
    assert_eq!(peer.coverages.last().unwrap().looks.len(), PROBES.len());
    assert!(restarted.draft(at(901)).is_none());
}

#[test]
fn a_large_subject_goes_in_parts_between_whole_ones() {
    for packages in [0, 10, 1_500, 2_000, 30_000] {
        let (mut reporter, mut peer) = settled();
        reporter.on_look(&look(Probe::PatchLevel, vec![patch_level("changed"), software(packages)], 60));
        reporter.on_look(&look(Probe::System, facts_of(Probe::System, 99), 60));
        if packages == 10 {
            continue;
        }
        let draft = reporter.draft(at(60)).unwrap();
        for body in &draft.bodies {
            let Body::Facts(facts) = body else { panic!("{body}") };
            let bytes: usize = facts.subjects.iter().map(|subject| subject.fact.len()).sum();
            assert!(bytes <= muster_proto::limits::SUBJECT_BYTES_PER_REPORT, "{bytes}");
        }
        let facts = peer.take(&mut reporter, draft);
        assert_eq!(facts.iter().any(|facts| facts.part.is_some()), packages >= 1_500, "{packages}");
        assert_eq!(facts.iter().filter(|facts| !facts.coverage.looks.is_empty()).count(), 1);
        assert!(reporter.draft(at(60)).is_none());
    }
}

#[test]
fn a_fact_beyond_every_limit_becomes_unknown() {
    let fact = software(60_000);
    assert!(fact.encode().len() > muster_proto::limits::FACT_BYTES);
    let bounded = Fact::decode(&draft::bounded(&fact)).unwrap();
    let Fact::Software(Reading::Unknown { unknown }) = bounded else { panic!("{bounded:?}") };
    assert_eq!(unknown.cause, Cause::Limit);
}

#[test]
fn a_fact_that_the_contract_refuses_is_sealed_as_garbled() {
    let mut agent = muster_proto::fact::sample::agent();
    agent.settings_digest = "no digest".into();
    let fact = Fact::Agent(Reading::Known(agent));
    assert!(Fact::decode(&fact.encode()).is_err());
    let bounded = Fact::decode(&draft::bounded(&fact)).unwrap();
    let Fact::Agent(Reading::Unknown { unknown }) = bounded else { panic!("{bounded:?}") };
    assert_eq!(unknown.cause, Cause::Garbled);
    assert!(unknown.detail.as_str().contains("Agent.settings_digest"), "{}", unknown.detail);
}

#[test]
fn a_directive_is_answered_by_looks_that_began_after_it() {
    let (mut reporter, mut peer) = settled();
    let stale = look(Probe::System, facts_of(Probe::System, 22), 59);
    reporter.ask(Some(7), at(60));
    reporter.ask(Some(7), at(60));
    reporter.ask(Some(8), at(60));
    reporter.on_look(&Look { ended: at(61), ..stale });
    for probe in &PROBES[1..] {
        reporter.on_look(&look(*probe, facts_of(*probe, 22), 61));
    }
    assert!(reporter.draft(at(61)).is_none(), "the system probe began before the directive");
    reporter.on_look(&look(Probe::System, facts_of(Probe::System, 22), 62));
    let draft = reporter.draft(at(62)).unwrap();
    peer.take(&mut reporter, draft);
    assert_eq!(peer.coverages.last().unwrap().directive_ids, [7, 8]);
    assert!(reporter.draft(at(62)).is_none(), "it is answered once");

    // A change that the round finds carries the answer.
    reporter.ask(Some(9), at(70));
    for probe in PROBES {
        reporter.on_look(&look(probe, facts_of(probe, 80), 70));
    }
    let draft = reporter.draft(at(70)).unwrap();
    assert_eq!(peer.take(&mut reporter, draft)[0].coverage.directive_ids, [9]);
}

#[test]
fn any_number_of_directives_is_answered_in_coverages_that_the_contract_allows() {
    let (mut reporter, mut peer) = settled();
    for id in 1..=200 {
        assert!(reporter.ask(Some(id), at(60)));
    }
    for probe in PROBES {
        reporter.on_look(&look(probe, facts_of(probe, 22), 61));
    }
    let mut answers = Vec::new();
    while let Some(draft) = reporter.draft(at(62)) {
        peer.take(&mut reporter, draft);
        answers.push(peer.coverages.last().unwrap().directive_ids.clone());
    }
    assert!(answers.iter().all(|ids| ids.len() <= muster_proto::limits::DIRECTIVE_IDS), "{answers:?}");
    assert_eq!(answers.concat(), (1..=200).collect::<Vec<_>>());

    // The bound on what is open.
    for id in 0..OPEN_IDS as u64 {
        assert!(reporter.ask(Some(1_000 + id), at(70)));
    }
    assert!(!reporter.ask(Some(1), at(70)) && reporter.ask(Some(1_000), at(70)) && reporter.ask(None, at(70)));
}

#[test]
fn what_cannot_be_sealed_becomes_unknown_and_holds_nothing_up() {
    let (mut reporter, mut peer) = settled();
    reporter.ask(Some(7), at(60));
    for probe in PROBES {
        reporter.on_look(&look(probe, facts_of(probe, 23), 61));
    }
    let refused = reporter.draft(at(62)).unwrap();
    reporter.refuse(&refused, "it does not fit");
    let draft = reporter.draft(at(63)).unwrap();
    let facts = peer.take(&mut reporter, draft);
    let fact = Fact::decode(&facts[0].subjects[0].fact).unwrap();
    let Fact::Listeners(Reading::Unknown { unknown }) = fact else { panic!("{fact:?}") };
    assert_eq!((unknown.cause, unknown.detail.as_str()), (Cause::Failed, "it does not fit"));
    assert!(facts[0].coverage.directive_ids.is_empty() && reporter.draft(at(63)).is_none());
}

#[test]
fn a_resync_reports_everything_from_an_empty_set() {
    let (mut reporter, mut peer) = settled();
    reporter.resync();
    assert!(reporter.draft_attestation(at(10)).is_none());
    let draft = reporter.draft(at(10)).unwrap();
    let facts = peer.take(&mut reporter, draft);
    assert!(facts[0].resync);
    assert_eq!(facts[0].subjects.len(), Subject::ALL.len());
}

#[test]
fn a_subject_that_a_probe_gives_no_more_leaves_the_set_by_a_resync() {
    let (mut reporter, mut peer) = settled();
    reporter.on_look(&look(Probe::PatchLevel, vec![patch_level("no apt")], 60));
    let draft = reporter.draft(at(60)).unwrap();
    let facts = peer.take(&mut reporter, draft);
    assert!(facts[0].resync);
    assert!(!peer.set.facts().contains_key(&Subject::Software) && peer.set.facts().len() == Subject::ALL.len() - 1);
}

#[test]
fn a_full_spool_is_told_later_with_its_span_and_counts_and_then_everything_again() {
    let (mut reporter, mut peer) = settled();
    reporter.on_look(&look(Probe::System, facts_of(Probe::System, 23), 60));
    reporter.hold(at(60));
    reporter.on_look(&look(Probe::System, facts_of(Probe::System, 24), 120));
    reporter.on_look(&look(Probe::System, facts_of(Probe::System, 24), 180));
    reporter.hold(at(180));
    let mut draft = reporter.draft_release(at(200)).unwrap();
    assert!(reporter.is_held(), "until the chain has taken it");
    let Body::Gap(gap) = draft.bodies.remove(0) else { panic!() };
    assert_eq!(gap.cause, GapCause::SpoolFull);
    assert_eq!((gap.start, gap.end), (at(0).wall, at(200).wall));
    assert_eq!(gap.counts, [(GapKind::Looks, 2), (GapKind::Reports, 2)]);
    let facts = peer.take(&mut reporter, draft);
    assert!(!reporter.is_held() && reporter.draft(at(200)).is_none());
    assert!(facts[0].resync && facts[0].subjects.len() == Subject::ALL.len());
    assert_eq!(facts[0].coverage.start, at(200).wall);
    let held = &peer.set.facts()[&Subject::Listeners];
    assert_eq!(held.bytes, listeners(24).encode());
}

#[test]
fn a_set_clock_is_a_gap_and_a_suspend_is_covered() {
    let (mut reporter, mut peer) = settled();
    let mut later = at(100);
    assert!(reporter.on_moment(later).is_empty());
    later.boot += Duration::from_secs(3_600);
    later.wall = later.wall.plus(Duration::from_secs(3_600));
    let bodies = reporter.on_moment(later);
    assert!(matches!(&bodies[..], [Body::Lifecycle(event)] if event.kind == LifecycleKind::Resumed), "{bodies:?}");
    let draft = reporter.draft_attestation(later).unwrap();
    peer.take(&mut reporter, draft);
    assert_eq!(peer.coverages.last().unwrap().suspended_millis, 3_600_000);

    let mut back = later;
    back.wall = back.wall.minus(Duration::from_secs(86_400));
    let bodies = reporter.on_moment(back);
    let [Body::Gap(gap)] = &bodies[..] else { panic!("{bodies:?}") };
    assert_eq!((gap.cause, gap.start, gap.end), (GapCause::ClockJump, back.wall, later.wall));
    let draft = reporter.draft_attestation(back).unwrap();
    peer.take(&mut reporter, draft);
    assert_eq!(peer.coverages.last().unwrap().start, back.wall);
}

#[test]
fn a_set_clock_ends_the_span_before_it_with_its_own_counts() {
    let (mut reporter, mut peer) = settled();
    for second in [60, 120] {
        reporter.on_look(&look(Probe::Firewall, facts_of(Probe::Firewall, 22), second));
        assert!(reporter.on_moment(at(second)).is_empty());
    }
    // Set forward by an hour within a suspend of 100 s.
    let mut set = at(240);
    set.awake -= Duration::from_secs(100);
    set.wall = set.wall.plus(Duration::from_secs(3_600));
    let bodies = reporter.on_moment(set);
    let [Body::Attestation(attestation), Body::Gap(gap), Body::Lifecycle(resumed)] = &bodies[..] else {
        panic!("{bodies:?}")
    };
    let coverage = &attestation.coverage;
    assert_eq!((coverage.start, coverage.end), (at(0).wall, at(120).wall));
    assert_eq!((coverage.looks[0].count, coverage.suspended_millis), (2, 0));
    assert_eq!((gap.start, gap.end), (at(120).wall, set.wall));
    assert_eq!(resumed.kind, LifecycleKind::Resumed);

    let later = |second: u64| Moment { wall: set.wall.plus(Duration::from_secs(second)), ..at(240 + second) };
    let next = Look { ended: later(60), ..look(Probe::Firewall, facts_of(Probe::Firewall, 22), 0) };
    reporter.on_look(&next);
    let draft = reporter.draft_attestation(later(70)).unwrap();
    peer.take(&mut reporter, draft);
    let coverage = peer.coverages.last().unwrap();
    assert_eq!((coverage.start, coverage.end), (set.wall, later(70).wall));
    assert_eq!((coverage.looks[0].count, coverage.suspended_millis), (1, 0));

    // What cannot be attested is a part of the gap.
    let (mut reporter, _) = settled();
    reporter.on_look(&look(Probe::System, facts_of(Probe::System, 99), 60));
    reporter.on_moment(at(60));
    let mut set = at(120);
    set.wall = set.wall.minus(Duration::from_secs(30));
    let bodies = reporter.on_moment(set);
    let [Body::Gap(gap)] = &bodies[..] else { panic!("{bodies:?}") };
    assert_eq!((gap.start, gap.end), (at(0).wall, set.wall));
}

#[test]
fn dropped_events_are_a_gap_since_the_last_scan() {
    let (mut reporter, _) = settled();
    reporter.on_look(&look(Probe::FileIntegrity, facts_of(Probe::FileIntegrity, 22), 60));
    let Body::Gap(gap) = reporter.events_dropped(at(100)) else { panic!() };
    assert_eq!((gap.cause, gap.start, gap.end), (GapCause::EventOverflow, at(60).wall, at(100).wall));
}

#[test]
fn a_start_says_how_long_nobody_looked_and_what_changed() {
    let last = |stopped, version: &str| LastRun {
        covered_until: Some(at(0).wall),
        stopped,
        agent_version: version.to_owned(),
        is_rebooted: true,
    };
    let bodies = started(&last(false, "0.0.9"), "0.1.0", at(60));
    let [Body::Gap(gap), Body::Lifecycle(upgraded), Body::Lifecycle(started_body)] = &bodies[..] else { panic!() };
    assert_eq!((gap.cause, gap.start, gap.end), (GapCause::NotRunning, at(0).wall, at(60).wall));
    assert_eq!(gap.counts, [(GapKind::Milliseconds, 60_000)]);
    assert_eq!(gap.detail.as_str(), "agent ended without a last report, host was booted since");
    assert_eq!((upgraded.kind, upgraded.detail.as_str()), (LifecycleKind::Upgraded, "from 0.0.9 to 0.1.0"));
    assert_eq!(started_body.kind, LifecycleKind::Started);
    assert_eq!(started(&last(true, "0.1.0"), "0.1.0", at(60)).len(), 2);
    // A clock that went back while nobody looked makes no span that ends before it starts.
    let mut back = at(60);
    back.wall = back.wall.minus(Duration::from_secs(7_200));
    let Body::Gap(gap) = &started(&last(true, "0.1.0"), "0.1.0", back)[0] else { panic!() };
    assert!(gap.start < gap.end);
}
