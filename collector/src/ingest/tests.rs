//! The whole path from a stream to the log and back, in one process, over real files and a real inbox.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
};

use futures_util::{FutureExt as _, StreamExt as _};
use muster_proto::{
    fact::Text,
    id::{Digest, Serial},
    report::{Body, Gap, GapCause, Lifecycle, LifecycleKind, Lost, Report},
    seal::{EvidenceKey, sealed_digest},
    time::{Clock, Timestamp},
    v1::log_entry::Entry,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::{
    inbox::{self, Inbox, faults::Fault},
    log::{self, Key, Log, sequencer},
    members::Members,
};

/// A clock that the test sets, and that goes on by a millisecond with each look.
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1_000, Ordering::Relaxed)).unwrap()
    }
}

/// Finds reports by reading the whole log.
struct Scan(Log);

impl ReportLookup for Scan {
    fn index_of(&self, agent: AgentId, epoch: Epoch, seq: ReportSeq) -> Option<u64> {
        let entries = self.0.entries(0..self.0.size()).unwrap();
        let found = entries.iter().position(|bytes| {
            let Some(report) = sessions::sealed_of(bytes).map(|sealed| Report::decode(&sealed.report).unwrap()) else {
                return false;
            };
            (report.agent, report.epoch, report.seq) == (agent, epoch, seq)
        });
        found.map(|at| at as u64)
    }
}

/// A collector in a folder, without a network.
struct Rig {
    log: Log,
    inbox: Inbox,
    members: Members,
    sessions: Sessions,
    sequencer: Sequencer,
    ingest: Ingest,
    vkey: String,
}

impl Rig {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, inbox::Settings::default(), |_| {})
    }

    fn start_with(dir: &Path, inbox: inbox::Settings, change: impl FnOnce(&mut Settings)) -> Self {
        let key_file = dir.join("log.key");
        if !key_file.exists() {
            let key = Key::generate("c1").unwrap();
            std::fs::write(&key_file, key.secret_text()).unwrap();
            Log::create(&dir.join("log"), &key).unwrap();
        }
        let key = Key::parse(&std::fs::read_to_string(&key_file).unwrap()).unwrap();
        let vkey = key.vkey().to_owned();
        let (log, appender) = Log::open(&dir.join("log"), key).unwrap();
        let entries = log.entries(0..log.size()).unwrap().into_iter().enumerate();
        let members = Members::load(entries.map(|(at, bytes)| (at as u64, bytes))).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(Ticking(AtomicI64::new(1_700_000_000_000_000)));
        let inbox = Inbox::open(&dir.join("inbox"), &inbox, clock.now()).unwrap();
        let lookup = Arc::new(Scan(log.clone()));
        let mut settings = Settings { min_free_bytes: 0, ..Settings::new(dir.to_owned()) };
        change(&mut settings);
        let stores = (members.clone(), inbox.clone(), log.clone());
        let sessions = Sessions::load(settings, stores, Arc::clone(&clock), lookup, [], 0).unwrap();
        let rounds = sequencer::Settings { checkpoint_millis: 2 };
        let follower = sessions.follower();
        let sequencer = Sequencer::start((&log, appender), inbox.clone(), follower, clock, &rounds).unwrap();
        let ingest = Ingest::new(&sessions, sequencer.clone());
        Self { log, inbox, members, sessions, sequencer, ingest, vkey }
    }

    async fn enroll(&self, agent: &Agent) {
        let enrollment = v1::Enrollment {
            agent_id: agent.id().as_bytes().to_vec(),
            evidence_public_key: agent.key.public_key().to_vec(),
            certificate_serial: Serial::from_slice(&[7; 16]).unwrap().as_bytes().to_vec(),
            certificate_expire_time: Some(Timestamp::from_seconds(4_000_000_000).unwrap().to_wire()),
            ..Default::default()
        };
        let entry = v1::LogEntry { received_time: None, entry: Some(Entry::Enrollment(enrollment)) };
        self.sequencer.append(entry).await.unwrap();
        assert!(self.members.agent(agent.id()).is_some(), "applied before the append returns");
    }

    async fn append(&self, entry: Entry) {
        self.sequencer.append(v1::LogEntry { received_time: None, entry: Some(entry) }).await.unwrap();
    }

    async fn act(&self, act: v1::act::Act) {
        let act = v1::Act { actor: "spiffe://c1/admin/a".into(), credential_serial: String::new(), act: Some(act) };
        self.append(Entry::Act(act)).await;
    }

    /// Opens a stream and hears Welcome.
    async fn open(&self, agent: &mut Agent) -> Result<Stream, Status> {
        let mut stream = self.begin(agent, agent.hello()).await;
        match stream.next().await? {
            Step::Welcome(welcome) => {
                agent.nonce = welcome.session_nonce.clone();
                stream.welcome = Some(*welcome);
                Ok(stream)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn begin(&self, agent: &Agent, hello: v1::Hello) -> Stream {
        let (send, receive) = mpsc::channel(4096);
        let hello = v1::stream_reports_request::Step::Hello(hello);
        send.send(Ok(v1::StreamReportsRequest { step: Some(hello) })).await.unwrap();
        let answers = self.ingest.serve(agent.id(), ReceiverStream::new(receive));
        Stream { send, answers: Box::pin(answers), welcome: None }
    }

    /// The reports in the log, by agent and epoch, in their order there. Every one is verified on the way.
    fn reports(&self) -> BTreeMap<(AgentId, Epoch), Vec<u64>> {
        let mut reports: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        let mut last = Timestamp::EPOCH;
        for bytes in self.log.entries(0..self.log.size()).unwrap() {
            let entry = v1::LogEntry::decode(&*bytes).unwrap();
            let received = Timestamp::from_wire(&entry.received_time.unwrap()).unwrap();
            assert!(received >= last, "received time went back");
            last = received;
            if let Some(Entry::Report(admitted)) = entry.entry {
                let sealed = admitted.sealed.unwrap();
                let report = Report::decode(&sealed.report).unwrap();
                self.members.agent(report.agent).unwrap().key.verify_sealed(&sealed).unwrap();
                reports.entry((report.agent, report.epoch)).or_default().push(report.seq.number());
            }
        }
        reports
    }

    /// Waits, looking again after each checkpoint.
    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let mut newest = self.log.subscribe();
        while !is_so(self) {
            // What a checkpoint makes durable is applied just after it is published.
            let changed = tokio::time::timeout(Duration::from_millis(20), newest.changed()).await;
            let _ = changed.map(|changed| changed.expect("the log is open"));
        }
    }

    fn conflicts(&self) -> Vec<v1::Conflict> {
        let entries = self.log.entries(0..self.log.size()).unwrap();
        let conflict = |bytes: &Vec<u8>| match v1::LogEntry::decode(&**bytes).unwrap().entry {
            Some(Entry::Conflict(conflict)) => Some(conflict),
            _ => None,
        };
        entries.iter().filter_map(conflict).collect()
    }

    fn stop(self) {
        self.sessions.drain();
        self.sequencer.stop();
        self.inbox.stop();
    }
}

/// An agent's chain, and what it still has to send.
#[derive(Clone)]
struct Agent {
    key: Arc<EvidenceKey>,
    epoch: Epoch,
    next: u64,
    tip: Option<Digest>,
    spool: Vec<(u64, v1::SealedReport)>,
    nonce: Vec<u8>,
}

impl Agent {
    fn new() -> Self {
        let (key, _) = EvidenceKey::generate().unwrap();
        Self { key: Arc::new(key), epoch: Epoch::new([1; 16]), next: 1, tip: None, spool: vec![], nonce: vec![] }
    }

    fn id(&self) -> AgentId {
        self.key.agent_id()
    }

    fn hello(&self) -> v1::Hello {
        let next = self.spool.first().map_or(self.next, |(seq, _)| *seq);
        v1::Hello {
            contract_version: 1,
            agent_version: "0.1.0".into(),
            epoch: self.epoch.as_bytes().to_vec(),
            next_sequence: next,
            head_digest: vec![],
            last_session_nonce: self.nonce.clone(),
            last_checkpoint: None,
            host_time: Some(Timestamp::from_seconds(1_700_000_000).unwrap().to_wire()),
        }
    }

    fn report(&mut self, body: Body) -> v1::SealedReport {
        let report = Report {
            agent: self.id(),
            epoch: self.epoch,
            seq: ReportSeq::new(self.next).unwrap(),
            previous: self.tip,
            observed: Timestamp::from_seconds(1_700_000_000).unwrap(),
            boot_id: [3; 16],
            since_boot_millis: 1,
            agent_version: Text::parse("0.1.0".to_owned()).unwrap(),
            profile_revision: 0,
            last_checkpoint: None,
            body,
        };
        let sealed = self.key.seal(report.encode());
        self.tip = Some(sealed_digest(&sealed));
        self.spool.push((self.next, sealed.clone()));
        self.next += 1;
        sealed
    }

    fn look(&mut self) -> v1::SealedReport {
        let kind = if self.next == 1 { LifecycleKind::EpochStarted } else { LifecycleKind::Started };
        self.report(life(kind, ""))
    }

    fn acknowledged(&mut self, through: u64) {
        self.spool.retain(|(seq, _)| *seq > through);
    }
}

fn life(kind: LifecycleKind, detail: &str) -> Body {
    Body::Lifecycle(Lifecycle { kind, detail: Text::parse(detail.to_owned()).unwrap(), previous: None, probe: None })
}

struct Stream {
    send: mpsc::Sender<Result<v1::StreamReportsRequest, Status>>,
    answers: Pin<Box<dyn futures_util::Stream<Item = Result<v1::StreamReportsResponse, Status>> + Send>>,
    welcome: Option<v1::Welcome>,
}

impl Stream {
    async fn report(&self, sealed: v1::SealedReport) {
        let step = v1::stream_reports_request::Step::Report(sealed);
        self.send.send(Ok(v1::StreamReportsRequest { step: Some(step) })).await.unwrap();
    }

    async fn next(&mut self) -> Result<Step, Status> {
        let answer = tokio::time::timeout(Duration::from_secs(20), self.answers.next()).await.expect("an answer");
        answer.expect("the stream is open").map(|response| response.step.unwrap())
    }

    /// Waits until reports up to `seq` are durable.
    async fn durable(&mut self, seq: u64) -> v1::Durable {
        loop {
            match self.next().await.unwrap() {
                Step::Durable(durable) if durable.through_sequence >= seq => return durable,
                Step::Durable(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn rejection(&mut self) -> v1::Rejection {
        loop {
            match self.next().await.unwrap() {
                Step::Rejection(rejection) => return rejection,
                Step::Durable(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn end(&mut self) -> String {
        loop {
            if let Err(status) = self.next().await {
                return reason(&status);
            }
        }
    }
}

fn reason(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// Agents with a stream each and one report on its way, which the store has not taken yet.
async fn busy(rig: &Rig, count: usize) -> Vec<(Agent, Stream)> {
    let mut busy = Vec::new();
    for _ in 0..count {
        let mut agent = Agent::new();
        rig.enroll(&agent).await;
        let stream = rig.open(&mut agent).await.unwrap();
        busy.push((agent, stream));
    }
    rig.inbox.fail_next(Fault::Block);
    for (agent, stream) in &mut busy {
        stream.report(agent.look()).await;
        // Streams read when they are asked for answers.
        assert!(stream.answers.next().now_or_never().is_none());
        let chain = rig.sessions.registry.find(agent.id()).unwrap();
        assert_eq!(chain.chain().in_flight().0, 1);
    }
    busy
}

/// Sees every stream end, and everything that is sent again in the log, once.
async fn is_sent_again(rig: &Rig, mut busy: Vec<(Agent, Stream)>) {
    for (_, stream) in &mut busy {
        let status = stream.next().await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (tonic::Code::Unavailable, "DRAINING"));
    }
    rig.inbox.standing().wait_for(|standing| *standing == inbox::Standing::Open).await.unwrap();
    for (mut agent, _) in busy {
        let mut stream = rig.open(&mut agent).await.unwrap();
        assert_eq!(stream.welcome.as_ref().unwrap().durable_through_sequence, 0);
        stream.report(agent.spool[0].1.clone()).await;
        stream.durable(1).await;
        assert_eq!(rig.reports()[&(agent.id(), agent.epoch)], [1]);
    }
}

#[tokio::test]
async fn an_agent_whose_only_report_is_spoiled_in_the_inbox_is_told_and_sends_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let busy = busy(&rig, 1).await;
    rig.inbox.fail_next(Fault::Spoil);
    is_sent_again(&rig, busy).await;
    rig.stop();
}

#[tokio::test]
async fn when_the_store_fails_every_agent_is_told_and_sends_again() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let busy = busy(&rig, 8).await;
    rig.inbox.fail_next(Fault::Refuse);
    is_sent_again(&rig, busy).await;
    rig.stop();
}

#[tokio::test]
async fn while_no_store_can_be_opened_streams_are_refused_and_afterwards_taken_again() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut idle = Agent::new();
    rig.enroll(&idle).await;
    let mut waiting = rig.open(&mut idle).await.unwrap();
    let mut busy = busy(&rig, 2).await;
    rig.inbox.fail_opening(true);
    rig.inbox.fail_next(Fault::Refuse);
    for (_, stream) in &mut busy {
        assert_eq!(stream.end().await, "DRAINING");
    }
    assert_eq!(waiting.end().await, "DRAINING", "also a stream that has nothing on its way");
    assert_eq!(rig.open(&mut idle).await.err().unwrap().code(), tonic::Code::Unavailable);
    // The log goes on meanwhile.
    rig.enroll(&Agent::new()).await;

    let mut standing = rig.inbox.standing();
    rig.inbox.fail_opening(false);
    let opened = standing.wait_for(|standing| *standing == inbox::Standing::Open);
    tokio::time::timeout(Duration::from_secs(20), opened).await.expect("it is tried again").unwrap();
    for (mut agent, _) in busy {
        let mut stream = rig.open(&mut agent).await.unwrap();
        stream.report(agent.spool[0].1.clone()).await;
        stream.durable(1).await;
    }
    rig.stop();
}

#[tokio::test]
async fn a_store_that_hangs_holds_up_neither_an_act_nor_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let busy = busy(&rig, 1).await;
    let start = Instant::now();
    rig.enroll(&Agent::new()).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let inbox = rig.inbox.clone();
    let start = Instant::now();
    tokio::task::spawn_blocking(move || rig.stop()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    inbox.fail_next(Fault::None);
    let closed = |standing: &inbox::Standing| *standing == inbox::Standing::Closed;
    inbox.standing().wait_for(closed).await.unwrap();
    drop(busy);
}

#[tokio::test]
async fn an_inbox_whose_thread_panicked_says_so_and_lets_nobody_wait() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut busy = busy(&rig, 2).await;
    rig.inbox.fail_next(Fault::Panic);
    for (_, stream) in &mut busy {
        assert_eq!(stream.end().await, "DRAINING");
    }
    assert_eq!(*rig.inbox.standing().borrow(), inbox::Standing::Dead);
    rig.stop();
}

#[tokio::test]
async fn an_agent_says_hello_on_one_stream_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let turn = rig.sessions.registry.slot(agent.id()).turn().unwrap();
    assert_eq!(reason(&rig.open(&mut agent).await.err().unwrap()), "ALREADY_STREAMING");
    drop(turn);
    let mut stream = rig.open(&mut agent).await.unwrap();
    stream.report(agent.look()).await;
    stream.durable(1).await;
    rig.stop();
}

#[tokio::test]
async fn an_agent_that_says_hello_too_often_is_told_when_to_come_back() {
    use tonic_types::StatusExt as _;
    let dir = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3600);
    let rig = Rig::start_with(dir.path(), inbox::Settings::default(), |settings| settings.hellos.interval = hour);
    let (mut agent, mut other) = (Agent::new(), Agent::new());
    rig.enroll(&agent).await;
    rig.enroll(&other).await;
    for _ in 0..20 {
        drop(rig.open(&mut agent).await.unwrap());
    }
    let status = rig.open(&mut agent).await.err().unwrap();
    assert_eq!(reason(&status), "TOO_MANY_ATTEMPTS");
    let delay = status.get_error_details().retry_info().unwrap().retry_delay.unwrap();
    assert!(delay <= hour && delay > hour / 2, "{delay:?}");
    rig.open(&mut other).await.unwrap();
    rig.stop();
}

#[tokio::test]
async fn an_agent_that_sends_more_than_it_may_is_slowed_down_and_others_are_not() {
    let pace = BytePace { burst: 50_000, per_second: 50_000 };
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start_with(dir.path(), inbox::Settings::default(), |settings| settings.bytes = pace);
    let (mut flooding, mut honest) = (Agent::new(), Agent::new());
    rig.enroll(&flooding).await;
    rig.enroll(&honest).await;
    let mut flood = rig.open(&mut flooding).await.unwrap();
    let mut stream = rig.open(&mut honest).await.unwrap();
    let start = Instant::now();
    let mut bytes = 0;
    let mut largest = 0;
    while bytes < 100 * pace.per_second {
        let sealed = flooding.report(life(
            if flooding.next == 1 { LifecycleKind::EpochStarted } else { LifecycleKind::Started },
            &"x".repeat(200),
        ));
        largest = largest.max(sealed.encoded_len() as u64);
        bytes += sealed.encoded_len() as u64;
        let step = v1::stream_reports_request::Step::Report(sealed);
        if flood.send.try_send(Ok(v1::StreamReportsRequest { step: Some(step) })).is_err() {
            break;
        }
    }
    let mut told = Vec::new();
    let mut through = 0;
    while told.len() < 3 {
        match flood.next().await.unwrap() {
            Step::Directive(directive) => {
                let Some(v1::directive::Directive::SlowDown(slow_down)) = directive.directive else {
                    panic!("{directive:?}")
                };
                assert!(slow_down.until_time.is_some());
                told.push(through);
                // Whoever keeps to its pace is served meanwhile.
                stream.report(honest.look()).await;
                stream.durable(honest.next - 1).await;
            }
            Step::Durable(durable) => through = durable.through_sequence,
            other => panic!("{other:?}"),
        }
    }
    assert!(told[0] < told[1] && told[1] < told[2], "it goes on between the pauses: {told:?}");
    let allowed = pace.burst as f64 + pace.per_second as f64 * start.elapsed().as_secs_f64();
    let kept = through * largest;
    assert!(kept as f64 <= allowed + (32 * largest) as f64, "{kept} bytes kept, {allowed} allowed");
    rig.stop();
}

#[tokio::test]
async fn nothing_of_an_agent_that_was_shut_out_is_appended_after_the_entry_that_did_it() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut busy = busy(&rig, 2).await;
    let id = busy[0].0.id();
    let revoked = v1::AgentRevoked { agent_id: id.as_bytes().to_vec(), reason: "lost".into() };
    rig.act(v1::act::Act::AgentRevoked(revoked)).await;
    rig.inbox.fail_next(Fault::None);
    assert_eq!(busy[0].1.end().await, "AGENT_REVOKED");
    busy[1].1.durable(1).await;
    assert_eq!(rig.reports().into_keys().map(|(agent, _)| agent).collect::<Vec<_>>(), [busy[1].0.id()]);
    rig.stop();
}

#[tokio::test]
async fn an_entry_shuts_an_agent_out_of_the_round_that_it_is_in() {
    use sequencer::Follower as _;
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let busy = busy(&rig, 2).await;
    let mut follower = rig.sessions.follower();
    let conflict = v1::Conflict { agent_id: busy[0].0.id().as_bytes().to_vec(), ..Default::default() };
    follower.placed(&v1::LogEntry { received_time: None, entry: Some(Entry::Conflict(conflict)) });
    for ((agent, _), (stream, is_next)) in busy.iter().zip([(1, false), (2, true)]) {
        let digest = agent.tip.unwrap();
        let (agent, epoch) = (agent.id(), agent.epoch);
        let record = inbox::frame::Record { agent, epoch, seq: ReportSeq::FIRST, stream, digest, body: b"" };
        assert_eq!(follower.is_next(&record, false), is_next);
    }
    rig.inbox.fail_next(Fault::None);
    rig.stop();
}

#[tokio::test]
async fn a_fork_right_before_the_end_of_the_agents_half_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let mut stream = rig.open(&mut agent).await.unwrap();
    let mut clone = agent.clone();
    stream.report(agent.look()).await;
    stream.report(clone.report(life(LifecycleKind::EpochStarted, "clone"))).await;
    let (send, _) = mpsc::channel(1);
    drop(std::mem::replace(&mut stream.send, send));
    assert_eq!(stream.rejection().await.reason(), v1::RejectionReason::Conflict);
    assert_eq!(stream.end().await, "AGENT_FROZEN");
    rig.until(|rig| !rig.conflicts().is_empty()).await;
    rig.stop();
}

#[tokio::test]
async fn a_report_is_acknowledged_under_a_checkpoint_that_covers_it() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let mut stream = rig.open(&mut agent).await.unwrap();
    for _ in 0..600 {
        stream.report(agent.look()).await;
    }
    let durable = stream.durable(600).await;
    let checkpoint = log::verify_checkpoint(&durable.checkpoint, &rig.vkey).unwrap();
    assert_eq!(checkpoint.size, rig.log.size());
    for index in [0, 1, 255, 256, 600] {
        let proof = rig.log.inclusion_proof(index, checkpoint.size).unwrap();
        let entry = rig.log.entry(index).unwrap();
        log::verify_inclusion(&entry, index, checkpoint.size, &checkpoint.root, &proof).unwrap();
    }
    assert_eq!(rig.reports()[&(agent.id(), agent.epoch)], (1..=600).collect::<Vec<_>>());
    assert!(rig.sessions.connected(agent.id()));
    rig.stop();
}

#[tokio::test]
async fn a_resend_after_a_restart_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::new();
    let rig = Rig::start(dir.path());
    rig.enroll(&agent).await;
    let mut stream = rig.open(&mut agent).await.unwrap();
    for _ in 0..5 {
        stream.report(agent.look()).await;
    }
    stream.durable(5).await;
    drop(stream);
    rig.stop();

    let rig = Rig::start(dir.path());
    let mut stream = rig.open(&mut agent).await.unwrap();
    let welcome = stream.welcome.clone().unwrap();
    assert_eq!(welcome.durable_through_sequence, 5);
    assert_eq!(welcome.durable_digest, agent.tip.unwrap().as_bytes());
    for (_, sealed) in agent.spool.clone() {
        stream.report(sealed).await;
    }
    stream.report(agent.look()).await;
    stream.durable(6).await;
    assert_eq!(rig.reports()[&(agent.id(), agent.epoch)], [1, 2, 3, 4, 5, 6]);
    rig.stop();
}

#[tokio::test]
async fn a_fork_is_kept_with_what_it_contradicts_and_freezes_the_agent() {
    for (behind, is_durable) in [(0, true), (0, false), (2, true)] {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::start(dir.path());
        let mut agent = Agent::new();
        rig.enroll(&agent).await;
        let mut stream = rig.open(&mut agent).await.unwrap();
        for _ in 0..4 {
            stream.report(agent.look()).await;
        }
        let mut clone = agent.clone();
        for seq in 5..=5 + behind {
            stream.report(agent.look()).await;
            if is_durable {
                stream.durable(seq).await;
            }
        }
        let contradicting = clone.report(life(LifecycleKind::Stopped, "clone"));
        stream.report(contradicting.clone()).await;
        assert_eq!(stream.rejection().await.reason(), v1::RejectionReason::Conflict);
        assert_eq!(stream.end().await, "AGENT_FROZEN");
        rig.until(|rig| !rig.conflicts().is_empty()).await;
        let conflict = &rig.conflicts()[0];
        assert_eq!(conflict.contradicting, Some(contradicting));
        let standing = rig.log.entry(conflict.standing_index).unwrap();
        let (_, seq, digest) = sessions::place_of(&standing).unwrap();
        assert_eq!((seq, digest), (5, sealed_digest(&agent.spool[4].1)));
        rig.until(|rig| rig.members.agent(agent.id()).unwrap().state == AgentState::Frozen).await;
        assert_eq!(reason(&rig.open(&mut agent).await.err().unwrap()), "AGENT_FROZEN");

        let resolved = v1::ConflictResolved { agent_id: agent.id().as_bytes().to_vec(), reason: "restored".into() };
        rig.act(v1::act::Act::ConflictResolved(resolved)).await;
        let mut stream = rig.open(&mut agent).await.unwrap();
        stream.report(agent.look()).await;
        stream.durable(agent.next - 1).await;
        rig.stop();
    }
}

#[tokio::test]
async fn a_copy_of_the_agents_state_is_noticed_by_its_nonce() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let mut stream = rig.open(&mut agent).await.unwrap();
    stream.report(agent.look()).await;
    stream.durable(1).await;
    let mut clone = agent.clone();
    drop(rig.open(&mut agent).await.unwrap());
    drop(rig.open(&mut agent).await.unwrap());
    assert_eq!(reason(&rig.open(&mut clone).await.err().unwrap()), "AGENT_FROZEN");
    rig.until(|rig| !rig.conflicts().is_empty()).await;
    assert_eq!(rig.conflicts()[0].kind, "nonce");
    assert_eq!(reason(&rig.open(&mut agent).await.err().unwrap()), "AGENT_FROZEN");
    rig.stop();
}

#[tokio::test]
async fn the_newest_stream_of_an_agent_counts() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let mut first = rig.open(&mut agent).await.unwrap();
    first.report(agent.look()).await;
    first.durable(1).await;
    let mut second = rig.open(&mut agent).await.unwrap();
    assert_eq!(first.end().await, "ALREADY_STREAMING");
    drop(first);
    assert!(rig.sessions.connected(agent.id()));
    assert_eq!(rig.sessions.connected_count(), 1);
    second.report(agent.look()).await;
    second.durable(2).await;
    drop(second);
    assert_eq!((rig.sessions.connected(agent.id()), rig.sessions.connected_count()), (false, 0));
    rig.stop();
}

#[tokio::test]
async fn a_revoked_agent_is_cut_off_at_once_and_stays_out() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let mut stream = rig.open(&mut agent).await.unwrap();
    stream.report(agent.look()).await;
    stream.durable(1).await;
    let revoked = v1::AgentRevoked { agent_id: agent.id().as_bytes().to_vec(), reason: "lost".into() };
    rig.act(v1::act::Act::AgentRevoked(revoked)).await;
    assert_eq!(stream.end().await, "AGENT_REVOKED");
    assert_eq!(reason(&rig.open(&mut agent).await.err().unwrap()), "AGENT_REVOKED");
    rig.stop();
}

#[tokio::test]
async fn what_is_not_the_agents_next_report_is_refused_with_its_reason() {
    use v1::RejectionReason as Reason;
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let (mut agent, mut other) = (Agent::new(), Agent::new());
    rig.enroll(&agent).await;
    let mut stream = rig.open(&mut agent).await.unwrap();
    let no_start = agent.clone().report(life(LifecycleKind::Started, ""));
    stream.report(no_start).await;
    assert_eq!(stream.rejection().await.reason(), Reason::Malformed);
    stream.report(agent.look()).await;
    stream.durable(1).await;

    let mut ahead = agent.clone();
    ahead.look();
    let mut broken = agent.clone();
    broken.tip = Some(Digest::new([9; 32]));
    let mut foreign_epoch = agent.clone();
    foreign_epoch.epoch = Epoch::new([8; 16]);
    let mut forged = agent.clone().look();
    forged.signature[5] ^= 1;
    let mut flipped = agent.clone().look();
    flipped.report[40] ^= 1;
    let huge = v1::SealedReport { report: vec![0; limits::SEALED_REPORT_BYTES], signature: vec![0; 64] };
    let mut unknown = agent.clone();
    let unknown = {
        let sealed = unknown.look();
        let mut wire = v1::Report::decode(&*sealed.report).unwrap();
        wire.body = Some(v1::report::Body::Lifecycle(v1::Lifecycle { kind: 99, ..Default::default() }));
        agent.key.seal(wire.encode_to_vec())
    };
    for (sealed, expected) in [
        (ahead.look(), Reason::OutOfOrder),
        (broken.look(), Reason::BrokenChain),
        (foreign_epoch.look(), Reason::ForeignEpoch),
        (other.look(), Reason::ForeignAgent),
        (forged, Reason::BadSignature),
        (huge, Reason::TooLarge),
        (unknown, Reason::UnknownKind),
        (v1::SealedReport::default(), Reason::Malformed),
    ] {
        stream.report(sealed).await;
        let rejection = stream.rejection().await;
        assert_eq!(rejection.reason(), expected, "{rejection:?}");
    }
    stream.report(flipped).await;
    stream.rejection().await;
    stream.report(agent.look()).await;
    stream.durable(2).await;
    assert_eq!(rig.reports()[&(agent.id(), agent.epoch)], [1, 2]);
    rig.stop();
}

#[tokio::test]
async fn an_agent_that_goes_on_sending_refused_reports_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start_with(dir.path(), inbox::Settings::default(), |settings| settings.rejections = 10);
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let mut stream = rig.open(&mut agent).await.unwrap();
    for _ in 0..11 {
        stream.report(v1::SealedReport { report: vec![1, 2, 3], signature: vec![] }).await;
    }
    for _ in 0..10 {
        stream.rejection().await;
    }
    assert_eq!(stream.end().await, "TOO_MANY_ATTEMPTS");
    rig.stop();
}

#[tokio::test]
async fn reports_behind_one_that_is_out_of_order_are_not_answered_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let mut stream = rig.open(&mut agent).await.unwrap();
    stream.report(agent.look()).await;
    let missing = agent.look();
    for _ in 0..200 {
        stream.report(agent.look()).await;
    }
    assert_eq!(stream.rejection().await.expected_sequence, 2);
    stream.report(missing).await;
    stream.durable(2).await;
    rig.stop();
}

#[tokio::test]
async fn a_gap_takes_the_place_of_what_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let mut stream = rig.open(&mut agent).await.unwrap();
    for _ in 0..3 {
        stream.report(agent.look()).await;
    }
    stream.durable(3).await;
    let before = agent.tip;
    for _ in 0..4 {
        agent.look();
    }
    let lost = |first: u64, last: u64, digest_before| {
        let seq = |number| ReportSeq::new(number).unwrap();
        let time = Timestamp::from_seconds(1_700_000_000).unwrap();
        Body::Gap(Gap {
            cause: GapCause::SpoolDamaged,
            start: time,
            end: time,
            lost: Some(Lost { first: seq(first), last: seq(last), digest_before }),
            counts: vec![],
            detail: Text::default(),
        })
    };
    for (wrong, reason) in [
        (lost(5, 7, before), v1::RejectionReason::OutOfOrder),
        (lost(4, 6, before), v1::RejectionReason::OutOfOrder),
        (lost(4, 7, Some(Digest::new([1; 32]))), v1::RejectionReason::BrokenChain),
        (lost(3, 7, before), v1::RejectionReason::BrokenChain),
    ] {
        let mut stream = rig.open(&mut agent).await.unwrap();
        stream.report(agent.clone().report(wrong)).await;
        assert_eq!(stream.rejection().await.reason(), reason);
    }
    let mut stream = rig.open(&mut agent).await.unwrap();
    stream.report(agent.report(lost(4, 7, before))).await;
    stream.report(agent.look()).await;
    stream.durable(9).await;
    assert_eq!(rig.reports()[&(agent.id(), agent.epoch)], [1, 2, 3, 8, 9]);
    rig.stop();
}

#[tokio::test]
async fn an_epoch_that_was_left_is_not_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let mut stream = rig.open(&mut agent).await.unwrap();
    stream.report(agent.look()).await;
    stream.durable(1).await;
    let mut old = agent.clone();
    let mut anew =
        Agent { epoch: Epoch::new([2; 16]), next: 1, tip: None, spool: vec![], nonce: vec![], ..agent.clone() };
    let mut stream = rig.open(&mut anew).await.unwrap();
    assert_eq!(stream.welcome.as_ref().unwrap().durable_through_sequence, 0);
    stream.report(anew.look()).await;
    stream.durable(1).await;
    old.nonce = anew.nonce.clone();
    let mut stream = rig.open(&mut old).await.unwrap();
    stream.report(old.look()).await;
    assert_eq!(stream.rejection().await.reason(), v1::RejectionReason::Conflict);
    assert_eq!(stream.end().await, "AGENT_FROZEN");
    rig.stop();
}

#[tokio::test]
async fn the_first_step_is_a_whole_hello() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let agent = Agent::new();
    rig.enroll(&agent).await;
    let (send, receive) = mpsc::channel(4);
    send.send(Ok(v1::StreamReportsRequest { step: None })).await.unwrap();
    let mut stream =
        Stream { send, answers: Box::pin(rig.ingest.serve(agent.id(), ReceiverStream::new(receive))), welcome: None };
    assert_eq!(stream.end().await, "HELLO_EXPECTED");
    let changes: [fn(&mut v1::Hello); 7] = [
        |hello| hello.contract_version = 2,
        |hello| hello.epoch = vec![1; 15],
        |hello| hello.next_sequence = 0,
        |hello| hello.head_digest = vec![1],
        |hello| hello.last_session_nonce = vec![1; 15],
        |hello| hello.host_time = None,
        |hello| hello.last_checkpoint = Some(v1::CheckpointRef { size: 1, root: vec![] }),
    ];
    for change in changes {
        let mut hello = agent.hello();
        change(&mut hello);
        assert_eq!(rig.begin(&agent, hello).await.end().await, "HELLO_INVALID");
    }
    rig.stop();
}

#[tokio::test]
async fn directives_reach_the_open_stream_with_ids_that_grow() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path());
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let look_now = || v1::directive::Directive::LookNow(v1::LookNow {});
    assert_eq!(rig.sessions.direct(agent.id(), look_now()), Err(sessions::Error::NotConnected));
    let mut stream = rig.open(&mut agent).await.unwrap();
    let given: Vec<_> = (0..16).map(|_| rig.sessions.direct(agent.id(), look_now()).unwrap()).collect();
    assert!(given.is_sorted_by(|a, b| a < b));
    assert_eq!(rig.sessions.direct(agent.id(), look_now()), Err(sessions::Error::Busy));
    for id in given {
        let Step::Directive(directive) = stream.next().await.unwrap() else { panic!("a directive") };
        assert_eq!(directive.id, id);
    }
    rig.stop();
}

#[tokio::test]
async fn a_full_disk_and_a_stop_are_told_with_a_time_to_come_back() {
    use tonic_types::StatusExt as _;
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start_with(dir.path(), inbox::Settings::default(), |settings| settings.min_free_bytes = u64::MAX);
    let mut agent = Agent::new();
    rig.enroll(&agent).await;
    let status = rig.open(&mut agent).await.err().unwrap();
    assert_eq!(reason(&status), "DISK_FULL");
    assert!(status.get_error_details().retry_info().is_some());
    rig.stop();

    let rig = Rig::start(dir.path());
    let mut stream = rig.open(&mut agent).await.unwrap();
    rig.sessions.drain();
    assert_eq!(stream.end().await, "DRAINING");
    let status = rig.open(&mut agent).await.err().unwrap();
    assert_eq!((status.code(), reason(&status).as_str()), (tonic::Code::Unavailable, "DRAINING"));
    rig.stop();
}

/// Many agents send over streams that break, are replaced and are opened again; the collector is stopped and started, its inbox
/// sometimes removed. In the end the log holds each report once, in order, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_each_report_is_kept_once_and_in_order() {
    const REPORTS: u64 = 120;
    let dir = tempfile::tempdir().unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let small = || inbox::Settings { limit_bytes: 20_000 };
    // Streams are opened as fast as they break.
    let often = |settings: &mut Settings| {
        settings.window_reports = 16;
        settings.hellos.interval = Duration::from_micros(1);
    };
    let mut agents: Vec<Agent> = (0..8).map(|_| Agent::new()).collect();
    let mut rig = Rig::start_with(dir.path(), small(), often);
    for agent in &mut agents {
        rig.enroll(agent).await;
        for _ in 0..REPORTS {
            agent.look();
        }
    }
    let all: Vec<_> = agents.iter().map(|agent| agent.spool.clone()).collect();
    for round in 0.. {
        let mut open = Vec::new();
        for agent in agents.iter_mut().filter(|agent| !agent.spool.is_empty()) {
            let stream = rig.open(agent).await.unwrap();
            agent.acknowledged(stream.welcome.as_ref().unwrap().durable_through_sequence);
            let count = draw(agent.spool.len() as u64 + 1) as usize;
            for (_, sealed) in &agent.spool[..count] {
                stream.report(sealed.clone()).await;
                if draw(10) == 0 {
                    stream.report(sealed.clone()).await;
                }
            }
            open.push((agent, stream));
        }
        if open.is_empty() {
            break;
        }
        for (agent, mut stream) in open {
            for _ in 0..draw(4) {
                let Ok(answer) = tokio::time::timeout(Duration::from_millis(30), stream.next()).await else { break };
                match answer {
                    Ok(Step::Durable(durable)) => agent.acknowledged(durable.through_sequence),
                    Ok(Step::Rejection(rejection)) => panic!("{rejection:?}"),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
        if round % 4 == 3 {
            rig.stop();
            if draw(3) == 0 {
                std::fs::remove_dir_all(dir.path().join("inbox")).unwrap();
            }
            rig = Rig::start_with(dir.path(), small(), often);
        }
        assert!(round < 2_000, "agents do not get on");
    }
    let reports = rig.reports();
    for (agent, sealed) in agents.iter().zip(&all) {
        let expected: Vec<_> = sealed.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(reports[&(agent.id(), agent.epoch)], expected);
    }
    assert_eq!(reports.len(), agents.len());
    assert!(rig.conflicts().is_empty());
    let found = log::fsck(&dir.path().join("log"), &rig.vkey).unwrap();
    assert_eq!((found.bad, found.entries), (None, rig.log.size()));
    rig.stop();
}
