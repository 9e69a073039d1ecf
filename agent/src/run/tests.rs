//! A whole agent against a collector in this process, over real TLS.

use std::{path::Path, time::Duration};

use muster_proto::{
    fact::{Cause, Fact, Package, PackageManager, Reading, Software, Subject, Text},
    report::{Body, GapCause, LifecycleKind, PROBES, Report},
    v1::{self, stream_reports_response::Step},
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::*;
use crate::{
    connect::{self, Trust},
    enroll::{self, Request, Token},
    identity::Folder,
    moment::Moment,
    report::draft_unknown,
    testing::{Collector, Seen},
};

/// Probes whose facts a test sets: unknown ones with this detail, or `packages N` for a software list of that many.
struct TestProbes {
    detail: String,
    /// Looks that never end.
    stuck: Option<Probe>,
}

impl Looker for TestProbes {
    fn look(&mut self, probe: Probe, reach: Reach) -> Looking {
        let now = Moment::now();
        let subjects = Subject::ALL.into_iter().filter(|subject| subject.probe() == probe);
        let facts: Vec<Fact> = subjects.map(|subject| fact(subject, &self.detail)).collect();
        if self.stuck == Some(probe) {
            return Box::pin(std::future::pending());
        }
        let is_whole = reach.is_whole();
        Box::pin(async move { (Look { probe, is_whole, facts, started: now, ended: Moment::now() }, Outcome::Done) })
    }

    fn watch_sets(&mut self, _: Vec<WatchSet>) {}
}

fn fact(subject: Subject, detail: &str) -> Fact {
    let count = detail.strip_prefix("packages ").map(|count| count.parse::<u32>().unwrap());
    let (Subject::Software, Some(count)) = (subject, count) else {
        return draft_unknown(subject, Cause::Unsupported, detail);
    };
    let package = |number| Package {
        name: Text::new(&format!("package-{number:06}")),
        version: Text::new(&format!("{count}-1")),
        architecture: Text::new("amd64"),
        manager: PackageManager::Dpkg,
    };
    Fact::Software(Reading::Known(Software { packages: (0..count).map(package).collect() }))
}

struct Agent {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
    hints: mpsc::Sender<Hint>,
}

impl Agent {
    fn start(state: &Path, detail: &str) -> Self {
        Self::start_with(config(state), detail)
    }

    fn start_with(config: Config, detail: &str) -> Self {
        Self::start_probes(config, TestProbes { detail: detail.to_owned(), stuck: None })
    }

    fn start_probes(config: Config, probes: TestProbes) -> Self {
        let (stop, asked) = oneshot::channel();
        let (hints, receiver) = mpsc::channel(4);
        let stopped = Stop::when(async { asked.await.unwrap_or_default() });
        let local = run(config, Box::new(probes), v1::HostClaim::default(), receiver, stopped);
        Self { stop, task: tokio::task::spawn_local(local), hints }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }

    /// Ends it without a word, as SIGKILL does.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn config(state: &Path) -> Config {
    Config {
        state_directory: state.to_owned(),
        enroll_file: state.join("enroll.toml"),
        jitter: 0.0,
        ..Config::default()
    }
}

fn request(collector: &Collector) -> Request {
    Request { collector: collector.url.clone(), token: Token::new("good"), trust: Trust::Pin(collector.pin) }
}

/// A state folder with an identity, and its collector.
struct Fleet {
    collector: Collector,
    state: std::path::PathBuf,
    _temporary: tempfile::TempDir,
}

impl Fleet {
    async fn new() -> Self {
        let fleet = Self::without_identity().await;
        let folder = Folder::open(&fleet.state).unwrap();
        enroll::enroll(&folder, &request(&fleet.collector), v1::HostClaim::default()).await.unwrap();
        fleet
    }

    async fn without_identity() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let state = temporary.path().join("state");
        Folder::open(&state).unwrap();
        Self { collector: Collector::start(24).await, state, _temporary: temporary }
    }

    fn spool_state(&self) -> spool::State {
        spool::peek_state(&self.state.join("spool")).unwrap()
    }

    /// Waits until the status says something of which `is_it` is true.
    async fn until_status(&self, is_it: impl Fn(&Status) -> bool) -> Status {
        for _ in 0..2_000 {
            if let Some(status) = Status::read(&self.state).filter(&is_it) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", Status::read(&self.state));
    }
}

/// Runs `test` on one thread, as the agent runs.
fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

fn is_event(report: &Report, kind: LifecycleKind) -> bool {
    matches!(&report.body, Body::Lifecycle(event) if event.kind == kind)
}

fn is_attestation(report: &Report) -> bool {
    matches!(report.body, Body::Attestation(_))
}

/// A first run says as many `Facts` as there are probes, one for each.
fn is_last_facts() -> impl Fn(&Report) -> bool {
    let seen = std::cell::Cell::new(0);
    move |report| {
        seen.set(seen.get() + usize::from(matches!(report.body, Body::Facts(_))));
        seen.get() == PROBES.len()
    }
}

#[test]
fn a_host_enrols_by_the_digest_of_the_ca_and_twice_with_one_token_is_one_agent() {
    on_one_thread(async {
        let fleet = Fleet::without_identity().await;
        let folder = Folder::open(&fleet.state).unwrap();
        let first = enroll::enroll(&folder, &request(&fleet.collector), v1::HostClaim::default()).await.unwrap();
        assert_eq!(folder.identity().unwrap(), Some(first.clone()));
        // As after a crash before the last file.
        std::fs::remove_file(fleet.state.join("identity/identity.toml")).unwrap();
        let again = enroll::enroll(&folder, &request(&fleet.collector), v1::HostClaim::default()).await.unwrap();
        assert_eq!(again.agent, first.agent);
    });
}

#[test]
fn a_collector_that_cannot_prove_itself_gets_no_token() {
    on_one_thread(async {
        let mut fleet = Fleet::without_identity().await;
        let folder = Folder::open(&fleet.state).unwrap();
        let stranger = Collector::start(24).await;
        let ca = identity::certificates(stranger.ca_pem.as_bytes()).unwrap();
        for trust in [Trust::Pin(stranger.pin), Trust::Authorities(ca)] {
            let request = Request { trust, ..request(&fleet.collector) };
            let error = enroll::enroll(&folder, &request, v1::HostClaim::default()).await.unwrap_err();
            assert!(matches!(error, enroll::Error::Connect(connect::Error::Untrusted { .. })), "{error}");
        }
        // The right CA, another name.
        let url = format!("https://localhost:{}", fleet.collector.url.host_port().1).parse().unwrap();
        let request = Request { collector: url, ..request(&fleet.collector) };
        let error = enroll::enroll(&folder, &request, v1::HostClaim::default()).await.unwrap_err().to_string();
        assert!(error.contains("is for 127.0.0.1") || error.contains("not for localhost"), "{error}");
        assert!(folder.identity().unwrap().is_none());
        assert!(fleet.collector.seen.try_recv().is_err());
    });
}

#[test]
fn an_expired_collector_is_named_with_its_date() {
    on_one_thread(async {
        let fleet = Fleet::without_identity().await;
        let collector = Collector::start(-48).await;
        let folder = Folder::open(&fleet.state).unwrap();
        let error = enroll::enroll(&folder, &request(&collector), v1::HostClaim::default()).await.unwrap_err();
        assert!(error.is_passing());
        assert!(error.to_string().contains("its certificate expired 20"), "{error}");
    });
}

#[test]
fn an_answer_that_is_not_this_agents_is_not_kept() {
    on_one_thread(async {
        let fleet = Fleet::without_identity().await;
        let folder = Folder::open(&fleet.state).unwrap();
        fleet.collector.inner().script.misnames = true;
        let error = enroll::enroll(&folder, &request(&fleet.collector), v1::HostClaim::default()).await.unwrap_err();
        assert!(error.to_string().contains("another agent"), "{error}");
        fleet.collector.inner().script.misnames = false;
        fleet.collector.inner().script.other_ca = true;
        let error = enroll::enroll(&folder, &request(&fleet.collector), v1::HostClaim::default()).await.unwrap_err();
        assert!(error.to_string().contains("CA certificates"), "{error}");
        assert!(folder.identity().unwrap().is_none());
        let bad = Request { token: Token::new("bad"), ..request(&fleet.collector) };
        let error = enroll::enroll(&folder, &bad, v1::HostClaim::default()).await.unwrap_err();
        assert!(matches!(&error, enroll::Error::Refused { reason, .. } if reason == "TOKEN_INVALID"), "{error}");
    });
}

#[test]
fn an_agent_reports_stops_in_order_and_after_a_restart_says_only_what_is_new() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        let agent = Agent::start(&fleet.state, "one");
        let reports = fleet.collector.until(is_last_facts()).await;
        assert!(is_event(&reports[0], LifecycleKind::EpochStarted) && is_event(&reports[1], LifecycleKind::Started));
        let options = crate::status::Options { reports: 0, facts: false };
        let is_running = || crate::status::show(&fleet.state, options).unwrap().is_running;
        assert!(is_running());
        agent.stop().await;
        assert!(!is_running(), "although a process of that number runs");
        let reports = fleet.collector.until(|report| is_event(report, LifecycleKind::Stopped)).await;
        assert!(is_attestation(&reports[reports.len() - 2]));
        assert_eq!(fleet.spool_state().durable, fleet.spool_state().sealed, "flushed");
        assert_eq!(Status::read(&fleet.state).unwrap().phase, Phase::Stopped);

        let agent = Agent::start(&fleet.state, "one");
        let reports = fleet.collector.until(is_attestation).await;
        let kinds: Vec<_> = reports.iter().map(|report| report.body.to_string()).collect();
        assert_eq!(kinds, ["gap", "lifecycle", "attestation"]);
        let Body::Gap(gap) = &reports[0].body else { panic!() };
        assert_eq!(gap.cause, GapCause::NotRunning);
        assert!(gap.detail.as_str().contains("stopped in order"), "{}", gap.detail);
        agent.kill().await;

        let agent = Agent::start(&fleet.state, "two");
        let reports = fleet.collector.until(is_last_facts()).await;
        let Body::Gap(gap) = &reports[0].body else { panic!() };
        assert!(gap.detail.as_str().contains("ended without a last report"), "{}", gap.detail);
        assert!(reports.iter().all(|report| !matches!(&report.body, Body::Facts(facts) if facts.resync)));
        agent.kill().await;
    });
}

#[test]
fn what_a_collector_without_memory_missed_is_sent_again() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        fleet.collector.inner().script.forgets_once = true;
        let agent = Agent::start(&fleet.state, "one");
        let reports = fleet.collector.until(is_last_facts()).await;
        let sequence: Vec<_> = reports.iter().map(|report| report.seq.number()).collect();
        assert_eq!(sequence, (1..=PROBES.len() as u64 + 2).collect::<Vec<_>>());
        agent.kill().await;
    });
}

#[test]
fn reports_wait_while_the_collector_is_away_and_arrive_in_order() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        fleet.collector.inner().script.refuses = Some("DRAINING");
        let agent = Agent::start(&fleet.state, "one");
        let status = fleet.until_status(|status| status.uplink.error.is_some()).await;
        assert!(!status.uplink.needs_someone, "{status:?}");
        fleet.collector.inner().script.refuses = None;
        let reports = fleet.collector.until(is_last_facts()).await;
        assert_eq!(reports.len(), PROBES.len() + 2);
        fleet.collector.drop_streams();
        agent.hints.send(Hint { probes: vec![Probe::Firewall], ..Hint::default() }).await.unwrap();
        fleet.until_status(|status| status.uplink.error.is_some()).await;
        fleet.until_status(|status| status.uplink.is_up).await;
        agent.stop().await;
        fleet.collector.until(|report| is_event(report, LifecycleKind::Stopped)).await;
    });
}

#[test]
fn nothing_is_deleted_on_the_word_of_a_forged_checkpoint() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        fleet.collector.inner().script.forges = true;
        let agent = Agent::start(&fleet.state, "one");
        let status = fleet.until_status(|status| status.uplink.needs_someone).await;
        let error = status.uplink.error.unwrap();
        assert!(error.contains("not signed by the log key"), "{error}");
        assert!(matches!(fleet.collector.until(|_| true).await.len(), 1));
        agent.kill().await;
        let state = fleet.spool_state();
        assert_eq!((state.durable, state.checkpoint), (None, None));
        let mut kept = 0;
        spool::peek(&fleet.state.join("spool"), |_, _| kept += 1).unwrap();
        assert!(kept >= 7, "{kept}");
    });
}

#[test]
fn a_log_that_was_rewritten_behind_the_agent_is_noticed_at_the_next_contact() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        let agent = Agent::start(&fleet.state, "one");
        fleet.collector.until(is_last_facts()).await;
        agent.stop().await;
        fleet.collector.until(|report| is_event(report, LifecycleKind::Stopped)).await;
        // The same key signs another history.
        let size = fleet.collector.inner().log.size();
        let mut rewritten = crate::checkpoint::testing::TestLog::new("c1", 7);
        (0..size + 3).for_each(|_| rewritten.push(b"another"));
        fleet.collector.inner().log = rewritten;
        let agent = Agent::start(&fleet.state, "one");
        let status = fleet.until_status(|status| status.uplink.needs_someone).await;
        assert!(status.uplink.error.unwrap().contains("does not continue the log"));
        agent.kill().await;
    });
}

#[test]
fn a_log_that_was_swapped_within_a_stream_is_noticed_at_the_next_contact_and_both_notes_are_kept() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        let agent = Agent::start(&fleet.state, "one");
        fleet.collector.until(is_last_facts()).await;
        let size = fleet.collector.inner().log.size();
        let mut swapped = crate::checkpoint::testing::TestLog::new("c1", 7);
        (0..size + 3).for_each(|_| swapped.push(b"another"));
        fleet.collector.inner().log = swapped;
        let look_now = v1::Directive { id: 1, directive: Some(v1::directive::Directive::LookNow(v1::LookNow {})) };
        fleet.collector.say(Step::Directive(look_now));
        fleet.collector.until(is_attestation).await;
        fleet.collector.drop_streams();
        let status = fleet.until_status(|status| status.uplink.needs_someone).await;
        let error = status.uplink.error.unwrap();
        assert!(error.contains("does not continue the log") && error.contains("muster-agent status"), "{error}");
        let before = fleet.spool_state();
        let contradiction = before.contradiction.clone().unwrap();
        assert!(
            contradiction.held.size < contradiction.shown.size && contradiction.held.note != contradiction.shown.note
        );
        let options = crate::status::Options { reports: 0, facts: false };
        let shown = crate::status::show(&fleet.state, options).unwrap().text(options);
        assert!(
            shown.contains("contradicts itself") && shown.contains(contradiction.held.note.lines().last().unwrap())
        );
        agent.stop().await;
        assert_eq!(fleet.spool_state().durable, before.durable, "nothing is acknowledged on its word");
    });
}

#[test]
fn a_host_that_was_put_back_begins_an_epoch_that_names_the_old_one() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        let agent = Agent::start(&fleet.state, "one");
        fleet.collector.until(is_last_facts()).await;
        agent.stop().await;
        fleet.collector.until(|report| is_event(report, LifecycleKind::Stopped)).await;
        let old = fleet.spool_state();
        fleet.collector.inner().script.claims_durable = Some(1_000);
        let agent = Agent::start(&fleet.state, "one");
        let mut reports = fleet.collector.until(is_all_facts()).await;
        let first = reports.remove(0);
        let Body::Lifecycle(event) = &first.body else { panic!("{}", first.body) };
        assert_eq!(event.kind, LifecycleKind::EpochStarted);
        let (epoch, last) = event.previous.unwrap();
        assert_eq!(epoch, old.epoch);
        assert!(last >= old.sealed.unwrap().seq.number());
        assert!(event.detail.as_str().contains("restored"), "{}", event.detail);
        // What the second run had said before the Welcome is of the old epoch.
        let Body::Gap(gap) = &reports[0].body else { panic!("{}", reports[0].body) };
        assert!(gap.detail.as_str().contains("set aside") && gap.counts[0].1 >= 2, "{gap:?}");
        let Body::Facts(facts) = &reports[1].body else { panic!("{}", reports[1].body) };
        assert!(facts.resync && facts.subjects.len() == Subject::ALL.len(), "everything again");
        agent.kill().await;
    });
}

#[test]
fn a_report_that_no_collector_takes_ends_in_an_epoch_that_says_so() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        fleet.collector.inner().script.refuses_facts_once = true;
        let agent = Agent::start(&fleet.state, "one");
        let is_second_epoch = |report: &Report| {
            report.seq.number() == 1 && matches!(&report.body, Body::Lifecycle(event) if event.previous.is_some())
        };
        let reports = fleet.collector.until(is_second_epoch).await;
        let Body::Lifecycle(event) = &reports.last().unwrap().body else { panic!() };
        assert_eq!(event.previous.unwrap().0, reports[0].epoch);
        assert!(event.detail.as_str().contains("MALFORMED: it is not one"), "{}", event.detail);
        let reports = fleet.collector.until(is_all_facts()).await;
        let Body::Gap(gap) = &reports[0].body else { panic!("{}", reports[0].body) };
        assert!(gap.counts.iter().any(|(kind, count)| kind.as_str() == "reports" && *count >= 1), "{gap:?}");
        agent.kill().await;
    });
}

fn is_all_facts() -> impl Fn(&Report) -> bool {
    |report| matches!(&report.body, Body::Facts(facts) if facts.subjects.len() == Subject::ALL.len())
}

#[test]
fn directives_are_followed() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        let agent = Agent::start(&fleet.state, "one");
        fleet.collector.until(is_last_facts()).await;
        let directive = |id, directive| Step::Directive(v1::Directive { id, directive: Some(directive) });

        fleet.collector.say(directive(41, v1::directive::Directive::LookNow(v1::LookNow {})));
        let reports = fleet.collector.until(is_attestation).await;
        let Body::Attestation(attestation) = &reports.last().unwrap().body else { panic!() };
        assert_eq!(attestation.coverage.directive_ids, [41]);
        assert_eq!(attestation.coverage.looks.len(), PROBES.len());

        fleet.collector.say(directive(42, v1::directive::Directive::Resync(v1::Resync {})));
        fleet.collector.until(is_all_facts()).await;

        let interval = v1::ProbeInterval { probe: Probe::Firewall.into(), seconds: 5 };
        let refused = v1::Profile { revision: 3, intervals: vec![interval], watched_paths: vec![], watch_sets: vec![] };
        fleet.collector.say(directive(43, v1::directive::Directive::Profile(refused.clone())));
        let interval = v1::ProbeInterval { seconds: 30, ..interval };
        for revision in [2, 1] {
            let profile = v1::Profile { revision, intervals: vec![interval], ..refused.clone() };
            fleet.collector.say(directive(44, v1::directive::Directive::Profile(profile)));
        }
        let reports = fleet.collector.until(|report| is_event(report, LifecycleKind::ProfileChanged)).await;
        assert_eq!(reports.last().unwrap().profile_revision, 2);

        let before = Folder::open(&fleet.state).unwrap().identity().unwrap().unwrap();
        fleet.collector.say(directive(45, v1::directive::Directive::RenewNow(v1::RenewNow {})));
        loop {
            if let Seen::Renewed(id) = fleet.collector.next().await {
                assert_eq!(id, before.agent);
                break;
            }
        }
        // The next stream comes with the next certificate.
        while !matches!(fleet.collector.next().await, Seen::Hello) {}
        let after = Folder::open(&fleet.state).unwrap().identity().unwrap().unwrap();
        assert_ne!(after.certificate_serial, before.certificate_serial);
        agent.stop().await;
    });
}

#[test]
fn a_scan_of_files_keeps_no_other_look_waiting() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        let probes = TestProbes { detail: "one".to_owned(), stuck: Some(Probe::FileIntegrity) };
        let agent = Agent::start_probes(config(&fleet.state), probes);
        fleet.until_status(|status| status.probes.len() == PROBES.len() - 1).await;
        let look_now = v1::Directive { id: 1, directive: Some(v1::directive::Directive::LookNow(v1::LookNow {})) };
        while !matches!(fleet.collector.next().await, Seen::Hello) {}
        fleet.collector.say(Step::Directive(look_now));
        let is_second = |status: &Status| status.probes.iter().all(|probe| probe.looks >= 2);
        let status = fleet.until_status(is_second).await;
        assert_eq!(status.probes.len(), PROBES.len() - 1, "the scan has not ended");
        agent.stop().await;
    });
}

#[test]
fn events_that_the_kernel_dropped_are_a_signed_gap() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        let agent = Agent::start(&fleet.state, "one");
        fleet.collector.until(is_last_facts()).await;
        agent.hints.send(Hint { overflowed: true, ..Hint::default() }).await.unwrap();
        let is_gap = |report: &Report| matches!(&report.body, Body::Gap(gap) if gap.cause == GapCause::EventOverflow);
        fleet.collector.until(is_gap).await;
        agent.kill().await;
    });
}

#[test]
fn an_agent_whose_certificate_ended_rejoins_by_its_evidence_key() {
    on_one_thread(async {
        let fleet = Fleet::without_identity().await;
        let folder = Folder::open(&fleet.state).unwrap();
        fleet.collector.inner().script.lifetime = Duration::ZERO;
        enroll::enroll(&folder, &request(&fleet.collector), v1::HostClaim::default()).await.unwrap();
        fleet.collector.inner().script.lifetime = Duration::from_secs(3_600);
        let mut fleet = fleet;
        let agent = Agent::start(&fleet.state, "one");
        let mut has_rejoined = false;
        loop {
            match fleet.collector.next().await {
                Seen::Rejoined => has_rejoined = true,
                Seen::Hello => break,
                _ => {}
            }
        }
        assert!(has_rejoined);
        assert_eq!(fleet.collector.until(is_last_facts()).await.len(), PROBES.len() + 2);
        agent.kill().await;
    });
}

#[test]
fn an_agent_without_identity_waits_and_enrols_when_the_file_appears() {
    on_one_thread(async {
        let mut fleet = Fleet::without_identity().await;
        let agent = Agent::start(&fleet.state, "one");
        let waiting = fleet.until_status(|status| matches!(status.phase, Phase::Waiting { .. })).await;
        assert!(matches!(&waiting.phase, Phase::Waiting { reason } if reason.contains("musterctl token create")));
        let file = format!(
            "collector = \"{}\"\ntoken = \"good\"\nca_pin = \"sha256:{}\"\n",
            fleet.collector.url, fleet.collector.pin
        );
        std::fs::write(fleet.state.join("enroll.toml"), file).unwrap();
        assert_eq!(fleet.collector.until(is_last_facts()).await.len(), PROBES.len() + 2);
        agent.stop().await;
    });
}

#[test]
fn an_enrolment_file_that_was_refused_is_tried_again_when_anything_about_it_changes() {
    use std::os::unix::fs::PermissionsExt as _;

    on_one_thread(async {
        let mut fleet = Fleet::without_identity().await;
        fleet.collector.inner().script.token = "another";
        let (url, pin) = (&fleet.collector.url, fleet.collector.pin);
        let text = format!("collector = \"{url}\"\ntoken = \"good\"\nca_pin = \"sha256:{pin}\"\n");
        let file = fleet.state.join("enroll.toml");
        std::fs::write(&file, text).unwrap();
        let agent = Agent::start(&fleet.state, "one");
        let is_refused =
            |status: &Status| matches!(&status.phase, Phase::Waiting { reason } if reason.contains("refused"));
        fleet.until_status(is_refused).await;
        // Nothing of the content changes.
        fleet.collector.inner().script.token = "good";
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(fleet.collector.until(is_last_facts()).await.len(), PROBES.len() + 2);
        agent.stop().await;
    });
}

#[test]
fn an_agent_whose_certificate_is_damaged_rejoins_by_its_evidence_key() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        std::fs::write(fleet.state.join("identity/tls.pem"), "damaged").unwrap();
        let agent = Agent::start(&fleet.state, "one");
        assert_eq!(fleet.collector.until(is_last_facts()).await.len(), PROBES.len() + 2);
        assert!(Folder::open(&fleet.state).unwrap().tls().is_ok());
        agent.stop().await;
    });
}

#[test]
fn a_damaged_identity_does_not_look_like_none() {
    on_one_thread(async {
        let fleet = Fleet::new().await;
        let options = crate::status::Options { reports: 0, facts: false };
        let shown = || crate::status::show(&fleet.state, options).unwrap().text(options);
        assert!(shown().contains("collector    https://127.0.0.1"));
        std::fs::write(fleet.state.join("identity/identity.toml"), "damaged").unwrap();
        assert!(shown().contains("identity.toml is not usable"), "{}", shown());
        std::fs::remove_file(fleet.state.join("identity/identity.toml")).unwrap();
        assert!(shown().contains("not enrolled"), "{}", shown());
    });
}

#[test]
fn two_agents_never_share_a_state_folder() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        let agent = Agent::start(&fleet.state, "one");
        fleet.collector.until(is_last_facts()).await;
        let second = Agent::start(&fleet.state, "one");
        assert!(matches!(second.task.await.unwrap(), Err(Error::InUse(_))));
        agent.kill().await;
    });
}

#[test]
fn a_spool_that_fills_up_while_nobody_listens_ends_in_a_gap_and_a_resync() {
    on_one_thread(async {
        let mut fleet = Fleet::new().await;
        fleet.collector.inner().script.refuses = Some("DRAINING");
        let small = Config { spool_bytes: 1 << 20, ..config(&fleet.state) };
        // Each fills more than half of the spool.
        let agent = Agent::start_with(small.clone(), "packages 15000");
        fleet.until_status(|status| status.probes.len() == PROBES.len()).await;
        agent.kill().await;
        let agent = Agent::start_with(small, "packages 15001");
        fleet.until_status(|status| status.held_since_time.is_some()).await;
        fleet.collector.inner().script.refuses = None;
        let is_gap = |report: &Report| matches!(&report.body, Body::Gap(gap) if gap.cause == GapCause::SpoolFull);
        let reports = fleet.collector.until(is_gap).await;
        let Body::Gap(gap) = &reports.last().unwrap().body else { panic!() };
        assert!(gap.start < gap.end && gap.counts.iter().any(|(kind, count)| kind.as_str() == "reports" && *count > 0));
        let resync = fleet.collector.until(|report| matches!(report.body, Body::Facts(_))).await;
        assert!(matches!(&resync.last().unwrap().body, Body::Facts(facts) if facts.resync));
        let status = fleet.until_status(|status| status.held_since_time.is_none()).await;
        assert!(status.uplink.is_up);
        agent.kill().await;
    });
}
