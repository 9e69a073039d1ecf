//! A running agent: one loop, whose arms each call one `on_*`, and one order of stopping.

use std::time::Duration;

use muster_proto::{
    report::{Body, GapCause, LifecycleKind},
    time::{Clock as _, SystemClock, Timestamp},
    v1::{self, directive, stream_reports_response::Step},
};
use tokio::{sync::mpsc, time::Instant};

use super::{Error, Looker, Looking, Outcome, Reach, Stop, notify, profile, random, scans::Scans, write_status};
use crate::{
    chain::{Chain, Opened, VERSION},
    checkpoint::{Checkpoint, LogKey},
    config::Config,
    connect::chain_of,
    enroll,
    host::live,
    identity::{Folder, Identity},
    moment::{self, Moment},
    report::{self, LastRun, Look, Reporter},
    schedule::{Lane, Schedule, Why},
    spool::{self, Found},
    status::{Phase, ProbeStatus, Status},
    uplink::{self, Event, Target, Uplink, session},
    watch::Hint,
};

/// The clocks are compared, and the service manager is told, at least this often.
const TICK: Duration = crate::status::WRITTEN_EVERY;
/// Status is written at most this often, except when the link changes.
const STATUS_EVERY: Duration = Duration::from_secs(15);
/// What happens together goes into one status.
const STATUS_SETTLES: Duration = Duration::from_secs(1);
/// A stopping agent tries this long to send its last words.
const FLUSH: Duration = Duration::from_secs(2);
/// Words that wait for room in the spool, at most.
const PENDING: usize = 32;
/// A stream for a new epoch is opened this long after the collector contradicted the one before.
const EPOCH_PAUSE: Duration = Duration::from_secs(1);
/// An epoch that a refused report made necessary is not followed by another such one before this.
const EPOCH_AGAIN: Duration = Duration::from_secs(600);
/// While the spool takes nothing, it is tried this often.
const FULL_AGAIN: Duration = Duration::from_secs(60);
/// A failed renewal is tried again after this.
const RENEW_AGAIN: Duration = Duration::from_secs(600);

type Renewing = std::pin::Pin<Box<dyn Future<Output = Result<Identity, enroll::Error>> + Send>>;

/// A running agent.
pub struct Agent {
    config: Config,
    folder: Folder,
    identity: Identity,
    log_key: LogKey,
    chain: Chain,
    reporter: Reporter,
    schedule: Schedule,
    looker: Box<dyn Looker>,
    uplink: Uplink,
    status: Status,
    /// Bodies that the spool has not taken yet, in order.
    pending: Vec<Body>,
    looking: Option<(Instant, Looking)>,
    /// The scan of file integrity, which may take minutes, beside the other looks.
    scanning: Option<(Instant, Looking)>,
    scans: Scans,
    /// Processor time of the program when the scan under way began.
    scan_began: Duration,
    renewing: Option<Renewing>,
    /// No renewal is tried before this.
    renew_after: Instant,
    /// No report that is refused begins an epoch before this.
    epoch_after: Instant,
    /// The spool was full and is not tried before this.
    full_until: Option<Instant>,
    attest_at: Instant,
    tick_at: Instant,
    tick: Duration,
    status_at: Option<Instant>,
    status_written: Instant,
    has_watchdog: bool,
    /// The last trouble of the uplink that was logged, so that one trouble is one line.
    trouble: Option<String>,
}

impl Agent {
    /// Opens the chain and says that the agent started, and what it missed.
    ///
    /// # Errors
    ///
    /// When key or spool cannot be opened.
    pub fn start(
        config: Config,
        folder: Folder,
        identity: Identity,
        looker: Box<dyn Looker>,
        status: Status,
    ) -> Result<Self, Error> {
        let log_key = LogKey::new(&identity.log_key).map_err(crate::identity::Error::LogKey)?;
        let key = folder.evidence_key_or_new()?;
        let Opened { chain, found, reported } =
            Chain::open(&config.state_directory.join("spool"), key, config.spool_bytes)?;
        let (moment, now) = (Moment::now(), Instant::now());
        let pending = first_words(&chain, &found, moment);
        match &found {
            Found::New | Found::Whole => {}
            Found::Damaged { lost, .. } => {
                tracing::error!(first = %lost.first, last = %lost.last, "sealed reports were lost; a gap says so");
            }
            Found::Unusable { why, .. } => tracing::error!(why, "the spool was not usable; a new epoch begins"),
        }
        let watchdog = sd_notify::watchdog_enabled();
        let tick = watchdog.map_or(TICK, |limit| TICK.min(limit / 2));
        let schedule = Schedule::new(config.intervals.by_probe(), config.jitter, now);
        let mut agent = Self {
            log_key,
            reporter: Reporter::new(reported, moment),
            schedule,
            looker,
            uplink: Uplink::new(now),
            status,
            pending,
            looking: None,
            scanning: None,
            scans: Scans::default(),
            scan_began: Duration::ZERO,
            renewing: None,
            renew_after: now,
            epoch_after: now,
            full_until: None,
            attest_at: now + config.attestation_interval.duration(),
            tick_at: now + tick,
            tick,
            status_at: None,
            status_written: now,
            has_watchdog: watchdog.is_some(),
            trouble: None,
            config,
            folder,
            identity,
            chain,
        };
        agent.apply_profile(now);
        let (collector, epoch) = (agent.collector(), agent.chain.state().epoch);
        tracing::info!(agent = %agent.identity.agent, %collector, %epoch, version = VERSION, "agent started");
        agent.say(moment);
        write_status(&mut agent.status, &agent.config);
        Ok(agent)
    }

    /// Looks, reports and sends until it is asked to stop.
    pub async fn run(&mut self, mut hints: mpsc::Receiver<Hint>, stop: &mut Stop) {
        loop {
            let wake = self.next_wake();
            let newest = self.chain.spool().newest();
            tokio::select! {
                () = stop.asked() => return,
                (look, outcome) = looked(&mut self.looking) => self.on_look(look, outcome),
                (look, outcome) = looked(&mut self.scanning) => self.on_look(look, outcome),
                Some(hint) = hints.recv() => self.on_hint(hint),
                () = tokio::time::sleep_until(wake) => self.on_due(),
                event = self.uplink.next(newest) => self.on_uplink(event),
                renewed = renewed(&mut self.renewing) => self.on_renewed(renewed),
            }
        }
    }

    /// Says the last words, tries for a moment to send them, and leaves everything on disk for the next start.
    pub async fn stop(&mut self) {
        (self.looking, self.scanning) = (None, None);
        self.renewing = None;
        let moment = Moment::now();
        self.on_moment(moment);
        if self.scans.tell_lost() {
            self.push(self.reporter.events_dropped(moment));
        }
        self.attest(moment);
        let last = [report::lifecycle(LifecycleKind::Stopped, &format!("version {VERSION}"))];
        if self.pending.is_empty()
            && let Err(error) = self.chain.append_last(&last, moment)
        {
            tracing::warn!(error = chain_of(&error), "the last words were not kept");
        }
        let flushed = tokio::time::timeout(FLUSH, async {
            while self.uplink.is_up() && self.chain.backlog().reports > 0 {
                self.pump();
                let newest = self.chain.spool().newest();
                let event = self.uplink.next(newest).await;
                self.on_uplink(event);
            }
        });
        // Whatever is not sent waits in the spool.
        let _ = flushed.await;
        self.status.phase = Phase::Stopped;
        self.status.uplink.is_up = false;
        write_status(&mut self.status, &self.config);
        tracing::info!(waiting = self.chain.backlog().reports, "agent stopped");
    }

    fn next_wake(&self) -> Instant {
        let due = if self.looking.is_none() { self.schedule.next_due(Lane::Quick) } else { None };
        let scan_due = if self.scanning.is_none() { self.schedule.next_due(Lane::Scan) } else { None };
        [Some(self.tick_at), Some(self.attest_at), due, scan_due, self.status_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.tick_at)
    }

    fn on_due(&mut self) {
        let (moment, now) = (Moment::now(), Instant::now());
        self.on_moment(moment);
        if self.tick_at <= now {
            self.tick_at = now + self.tick;
            if self.has_watchdog {
                notify(&[sd_notify::NotifyState::Watchdog]);
            }
            // On the wall clock, since the run-time's stands still while the host sleeps.
            if self.identity.renew_time <= moment.wall && self.renew_after <= now {
                self.renew(now);
            }
            self.uplink.renew(now);
            self.say(moment);
            // Its age tells a person that the agent lives.
            self.touch_status();
        }
        if self.attest_at <= now {
            self.attest(moment);
            self.attest_at = now + self.config.attestation_interval.duration();
        }
        if self.looking.is_none()
            && let Some((probe, _)) = self.schedule.start_due(Lane::Quick, now)
        {
            self.looking = Some((now, self.looker.look(probe, Reach::Full)));
        }
        if self.scanning.is_none()
            && let Some((probe, why)) = self.schedule.start_due(Lane::Scan, now)
        {
            if why != Why::HintedAt && self.scans.tell_lost() {
                self.push(self.reporter.events_dropped(moment));
                self.say(moment);
            }
            let reach = self.scans.begin(why);
            self.scan_began = moment::processor_time();
            self.scanning = Some((now, self.looker.look(probe, reach)));
        }
        if self.status_at.is_some_and(|at| at <= now) {
            self.status_at = None;
            self.status_written = now;
            (self.status.scan, self.status.attribution) = (self.looker.scan(), self.looker.attribution());
            if self.status.scan.is_some() {
                self.touch_status();
            }
            write_status(&mut self.status, &self.config);
            // What happened is told, and the agent is about to rest.
            live::give_back_memory();
        }
    }

    fn on_hint(&mut self, hint: Hint) {
        let why = self.scans.hinted(hint.dirty);
        for probe in hint.probes {
            match Lane::of(probe) {
                Lane::Scan if why == Why::HintedAt => self.schedule.hint_at(probe),
                Lane::Scan | Lane::Quick => self.schedule.hint(probe),
            }
        }
        if hint.overflowed && self.scans.lost() {
            tracing::info!("the kernel dropped notices of changed files; a scan follows");
            let moment = Moment::now();
            self.push(self.reporter.events_dropped(moment));
            self.say(moment);
        }
    }

    fn on_look(&mut self, look: Look, outcome: Outcome) {
        let now = Instant::now();
        let ended = match Lane::of(look.probe) {
            Lane::Quick => self.looking.take(),
            Lane::Scan => self.scanning.take(),
        };
        let began = ended.map_or(now, |(began, _)| began);
        let took = now - began;
        // Neither the time in which other programs have the processor nor what other looks take meanwhile is the cost
        // of a scan.
        let cost = match Lane::of(look.probe) {
            Lane::Quick => took,
            Lane::Scan => took.min(moment::processor_time().saturating_sub(self.scan_began)),
        };
        self.schedule.finished(look.probe, now, cost, random());
        self.on_moment(look.ended);
        if let Outcome::Crashed(message) = &outcome {
            tracing::error!(probe = look.probe.as_str_name(), message, "probe crashed");
            self.push(report::probe_crashed(look.probe, message));
        }
        self.note_look(&look, took, &outcome);
        self.reporter.on_look(&look);
        self.say(look.ended);
    }

    fn on_uplink(&mut self, event: Event) {
        let result = match event {
            Event::Due => {
                self.dial();
                Ok(())
            }
            Event::Opened { rejoined, welcome } => self.on_welcome(rejoined, &welcome),
            Event::Received(Step::Durable(durable)) => self.on_durable(&durable),
            Event::Received(Step::Rejection(rejection)) => self.on_rejection(rejection),
            Event::Received(Step::Directive(directive)) => {
                self.on_directive(directive);
                Ok(())
            }
            Event::Received(Step::Welcome(_)) => Err(uplink::Error::Protocol("a second Welcome")),
            Event::Writable => Ok(()),
            Event::Lost(error) => Err(error),
        };
        if let Err(error) = result {
            self.on_lost(&error);
        }
        self.pump();
    }

    fn on_welcome(&mut self, rejoined: Option<Box<Identity>>, welcome: &v1::Welcome) -> Result<(), uplink::Error> {
        let moment = Moment::now();
        if let Some(identity) = rejoined {
            tracing::info!(expires = %identity.expire_time, "rejoined with another certificate");
            self.identity = *identity;
        }
        let link = &mut self.status.uplink;
        link.last_contact_time = Some(moment.wall);
        let collector_time = welcome.collector_time.as_ref().and_then(Timestamp::from_wire);
        link.clock_skew_millis = collector_time.map(|collector| moment.wall.millis_after(collector));
        let nonce = hex::encode(&welcome.session_nonce);
        let durable = match session::judge_welcome(&mut self.chain, &self.log_key, welcome)? {
            session::Welcomed::GoOn { durable, checkpoint } => {
                let change = |state: &mut spool::State| {
                    state.session_nonce = nonce;
                    state.proven = checkpoint.clone().or(state.proven.take());
                    state.checkpoint = checkpoint.or(state.checkpoint.take());
                };
                match durable {
                    Some(durable) => self.chain.spool().acknowledge(durable, change)?,
                    None => self.chain.spool().update(change)?,
                }
                durable
            }
            session::Welcomed::BeginEpoch { why } => {
                tracing::error!(why, "the chain cannot go on; a new epoch begins");
                // The nonce is the agent's, not the chain's: it is kept before the new chain says anything.
                self.chain.spool().update(|state| state.session_nonce = nonce)?;
                self.begin_epoch(&why, moment)?;
                // This stream's Hello named the epoch before. A moment's pause, so that a collector that says this of
                // every chain is not asked without end.
                self.uplink.reconnect(Instant::now() + EPOCH_PAUSE);
                write_status(&mut self.status, &self.config);
                return Ok(());
            }
        };
        self.uplink.begin(durable, welcome);
        link_up(&mut self.status);
        if self.trouble.take().is_some() {
            tracing::info!(collector = %self.collector(), "collector is back");
        } else {
            tracing::debug!(collector = %self.collector(), "stream is open");
        }
        write_status(&mut self.status, &self.config);
        Ok(())
    }

    fn on_durable(&mut self, durable: &v1::Durable) -> Result<(), uplink::Error> {
        let checkpoint = session::judge_checkpoint(&self.chain, &self.log_key, &durable.checkpoint)?;
        let place = self.uplink.durable(durable.through_sequence)?;
        self.status.uplink.last_contact_time = Some(SystemClock.now());
        let change = |state: &mut spool::State| {
            // The first of all is what later ones must continue.
            state.proven.get_or_insert_with(|| checkpoint.clone());
            state.checkpoint = Some(checkpoint);
        };
        match place {
            Some(place) => {
                self.chain.spool().acknowledge(place, change)?;
                self.full_until = None;
            }
            None => self.chain.spool().update(change)?,
        }
        self.touch_status();
        // There may be room now for what was held back.
        if self.reporter.is_held() || !self.pending.is_empty() {
            self.say(Moment::now());
        }
        Ok(())
    }

    /// A report that no collector will ever take must not stop the chain for good: the agent begins another, which says
    /// why.
    fn on_rejection(&mut self, rejection: v1::Rejection) -> Result<(), uplink::Error> {
        let error = uplink::Error::from(rejection);
        let now = Instant::now();
        // Something of this chain was taken, or the next one would fare no better.
        let can_help = error.is_of_report() && self.chain.state().durable.is_some() && self.epoch_after <= now;
        if !can_help {
            return Err(error);
        }
        let why = chain_of(&error);
        tracing::error!(why, "the chain cannot go on; a new epoch begins");
        self.epoch_after = now + EPOCH_AGAIN;
        self.begin_epoch(&why, Moment::now())?;
        self.uplink.reconnect(now + EPOCH_PAUSE);
        write_status(&mut self.status, &self.config);
        Ok(())
    }

    fn on_directive(&mut self, directive: v1::Directive) {
        let (moment, now) = (Moment::now(), Instant::now());
        let Some(what) = directive.directive else {
            tracing::warn!(id = directive.id, "a directive that this version does not know");
            return;
        };
        tracing::info!(id = directive.id, "directive received");
        match what {
            directive::Directive::LookNow(_) => {
                if self.reporter.ask(Some(directive.id), moment) {
                    self.schedule.look_now(now, true);
                } else {
                    tracing::warn!(id = directive.id, "too many directives are open; this one is not followed");
                }
            }
            directive::Directive::Resync(_) => {
                self.reporter.resync();
                self.say(moment);
            }
            directive::Directive::Profile(profile) => self.on_profile(profile, moment, now),
            directive::Directive::RenewNow(_) => self.renew(now),
            directive::Directive::SlowDown(slow_down) => {
                if let Some(until) = slow_down.until_time.as_ref().and_then(Timestamp::from_wire) {
                    self.uplink.slow_down(until, now);
                }
            }
        }
    }

    fn on_profile(&mut self, profile: v1::Profile, moment: Moment, now: Instant) {
        let current = self.chain.state().profile.as_ref().map_or(0, |profile| profile.revision);
        if profile.revision <= current {
            tracing::debug!(revision = profile.revision, current, "profile is not newer");
            return;
        }
        let taken = match profile::taken(&profile) {
            Ok(taken) => taken,
            Err(reason) => {
                tracing::warn!(revision = profile.revision, reason, "profile refused");
                return;
            }
        };
        if let Err(error) = self.chain.spool().update(|state| state.profile = Some(taken)) {
            tracing::warn!(error = chain_of(&error), "profile was not kept and is not in force");
            return;
        }
        self.apply_profile(now);
        let detail = format!("revision {}", profile.revision);
        self.push(report::lifecycle(LifecycleKind::ProfileChanged, &detail));
        self.say(moment);
    }

    fn on_renewed(&mut self, renewed: Result<Identity, enroll::Error>) {
        self.renewing = None;
        match renewed {
            Ok(identity) => {
                tracing::info!(expires = %identity.expire_time, "certificate renewed");
                self.identity = identity;
                self.uplink.reconnect(Instant::now());
            }
            Err(error) => {
                tracing::warn!(error = chain_of(&error), expires = %self.identity.expire_time, "certificate was not renewed");
            }
        }
    }

    fn on_lost(&mut self, error: &uplink::Error) {
        let now = Instant::now();
        if let uplink::Error::Contradicted { held, shown: Some(shown), .. } = error {
            self.keep_contradiction(held, shown);
        }
        let next = self.uplink.failed(error, now, random());
        let text = chain_of(error);
        let link = &mut self.status.uplink;
        link.is_up = false;
        link.needs_someone = error.needs_someone();
        link.next_try_time = Some(SystemClock.now().plus(next - now));
        link.error = Some(text.clone());
        if self.trouble.as_ref() != Some(&text) {
            let waiting = self.chain.backlog().reports;
            if link.needs_someone {
                tracing::error!(error = text, waiting, "no stream to the collector");
            } else {
                tracing::warn!(error = text, waiting, "no stream to the collector");
            }
            self.trouble = Some(text);
        }
        write_status(&mut self.status, &self.config);
    }

    /// Keeps the first two checkpoints that contradict each other: both are signed, so that they prove it to anyone.
    fn keep_contradiction(&mut self, held: &Checkpoint, shown: &Checkpoint) {
        if self.chain.state().contradiction.is_some() {
            return;
        }
        let (held, shown, notice_time) = (held.clone(), shown.clone(), SystemClock.now());
        let contradiction = spool::Contradiction { held, shown, notice_time };
        if let Err(error) = self.chain.spool().update(|state| state.contradiction = Some(contradiction)) {
            tracing::warn!(error = chain_of(&error), "checkpoints that contradict each other were not kept");
        }
    }

    /// Notices that the host was suspended or its clock set.
    fn on_moment(&mut self, moment: Moment) {
        let bodies = self.reporter.on_moment(moment);
        for body in bodies {
            let now = Instant::now();
            if matches!(&body, Body::Gap(gap) if gap.cause == GapCause::ClockJump) {
                // The collector measures by how much it differs now.
                self.uplink.clock_was_set(now);
            }
            if matches!(&body, Body::Lifecycle(event) if event.kind == LifecycleKind::Resumed) {
                self.schedule.look_now(now, false);
                if !self.uplink.is_up() {
                    self.uplink.reconnect(now);
                }
            }
            self.push(body);
        }
    }

    fn dial(&mut self) {
        // A dial that rejoined and then failed left another identity than this one.
        if let Ok(Some(identity)) = self.folder.identity() {
            self.identity = identity;
        }
        let hello = session::hello(&self.chain, SystemClock.now());
        let (folder, identity) = (self.folder.clone(), self.identity.clone());
        self.uplink.dial(Target { folder, identity, collector: self.collector(), hello });
    }

    fn pump(&mut self) {
        let Err(error) = self.uplink.pump(self.chain.spool(), Instant::now()) else { return };
        if let uplink::Error::Spool(spool::Error::Io { source, .. }) = &error
            && source.kind() == std::io::ErrorKind::InvalidData
        {
            let why = chain_of(&error);
            tracing::error!(why, "the chain cannot go on; a new epoch begins");
            let began = self.begin_epoch(&why, Moment::now());
            self.uplink.reconnect(Instant::now());
            if let Err(error) = began {
                self.on_lost(&error.into());
            }
            return;
        }
        self.on_lost(&error);
    }

    /// Seals what there is to say, as far as the spool has room.
    fn say(&mut self, moment: Moment) {
        if self.full_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        if !self.pending.is_empty() {
            let bodies = std::mem::take(&mut self.pending);
            if let Err(error) = self.chain.append(&bodies, moment) {
                self.pending = bodies;
                return self.on_full(&error, moment);
            }
            self.touch_status();
        }
        if self.reporter.is_held() {
            if !self.chain.has_room(self.reporter.resync_bytes()) {
                return;
            }
            let Some(draft) = self.reporter.draft_release(moment) else { return };
            if !self.seal(draft, moment) || self.reporter.is_held() {
                return;
            }
        }
        while let Some(draft) = self.reporter.draft(moment) {
            if !self.seal(draft, moment) {
                return;
            }
        }
    }

    fn attest(&mut self, moment: Moment) {
        self.say(moment);
        if self.pending.is_empty()
            && !self.reporter.is_held()
            && let Some(draft) = self.reporter.draft_attestation(moment)
        {
            self.seal(draft, moment);
        }
    }

    /// Returns whether drafting may go on: the chain took the draft, or never will.
    fn seal(&mut self, draft: report::Draft, moment: Moment) -> bool {
        match self.chain.append_draft(&draft, moment) {
            Ok(()) => {}
            Err(spool::Error::Unfit { why }) => {
                tracing::error!(why, "facts cannot be reported; they become unknown");
                self.reporter.refuse(&draft, &format!("the report could not be sealed: {why}"));
                return true;
            }
            Err(error) => {
                self.on_full(&error, moment);
                return false;
            }
        }
        let (changes_facts, releases) = (draft.changes_facts, draft.releases);
        self.reporter.commit(draft);
        if releases {
            tracing::info!("the spool has room again; a gap says what is missing");
            (self.status.held_since_time, self.status.held_reason) = (None, None);
            self.reporter.ask(None, moment);
            self.schedule.look_now(Instant::now(), false);
        }
        if changes_facts {
            self.chain.keep_reported(self.reporter.reported());
        }
        self.attest_at = Instant::now() + self.config.attestation_interval.duration();
        self.touch_status();
        true
    }

    fn on_full(&mut self, error: &spool::Error, moment: Moment) {
        if !self.reporter.is_held() {
            tracing::error!(error = chain_of(error), "reports are held back; a gap will say what is missing");
            self.status.held_since_time = Some(moment.wall);
            self.touch_status();
        }
        self.status.held_reason = Some(chain_of(error));
        self.reporter.hold(moment);
        self.full_until = Some(Instant::now() + FULL_AGAIN);
    }

    /// Puts a body in line. What the line has no place for is covered by the gap that a full spool leaves.
    fn push(&mut self, body: Body) {
        if self.pending.len() < PENDING {
            self.pending.push(body);
        }
    }

    fn begin_epoch(&mut self, why: &str, moment: Moment) -> Result<(), spool::Error> {
        let (epoch, last) = (self.chain.state().epoch, self.chain.state().sealed);
        let (unsent, since) = (self.chain.backlog().reports, self.chain.unsent_since());
        self.chain.begin_epoch()?;
        self.pending = vec![report::epoch_started(why, Some((epoch, last.map_or(0, |place| place.seq.number()))))];
        self.pending.extend(since.map(|since| report::set_aside(unsent, since, moment)));
        self.full_until = None;
        self.reporter.resync();
        self.say(moment);
        Ok(())
    }

    /// Asks for another certificate over the open stream. Without one, the next comes before the certificate ends, or
    /// rejoins after.
    fn renew(&mut self, now: Instant) {
        let (Some(channel), None) = (self.uplink.channel(), &self.renewing) else { return };
        self.renew_after = now + RENEW_AGAIN;
        let (folder, identity) = (self.folder.clone(), self.identity.clone());
        self.renewing = Some(Box::pin(async move { enroll::renew(&folder, &identity, channel).await }));
    }

    fn apply_profile(&mut self, now: Instant) {
        let profile = self.chain.state().profile.clone().unwrap_or_default();
        for (probe, interval) in profile::intervals_in_force(&self.config, &profile) {
            self.schedule.set_interval(probe, interval, now);
        }
        self.looker.watch_sets(profile.sets());
    }

    fn note_look(&mut self, look: &Look, took: Duration, outcome: &Outcome) {
        let name = look.probe.as_str_name().trim_start_matches("PROBE_").to_ascii_lowercase();
        let outcome = match outcome {
            Outcome::Done => "done".to_owned(),
            Outcome::Crashed(message) => format!("crashed: {message}"),
            Outcome::TimedOut => "timed out".to_owned(),
        };
        let known = self.status.probes.iter().find(|probe| probe.probe == name).map_or(0, |probe| probe.looks);
        let status = ProbeStatus {
            probe: name,
            last_look_time: look.ended.wall,
            took_millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            looks: known + 1,
            outcome,
        };
        self.status.probes.retain(|probe| probe.probe != status.probe);
        self.status.probes.push(status);
        self.status.probes.sort_by(|a, b| a.probe.cmp(&b.probe));
        self.touch_status();
    }

    fn touch_status(&mut self) {
        let at = (self.status_written + STATUS_EVERY).max(Instant::now() + STATUS_SETTLES);
        self.status_at.get_or_insert(at);
    }

    fn collector(&self) -> crate::identity::CollectorUrl {
        let configured = self.config.collector.as_ref().and_then(|url| url.parse().ok());
        configured.unwrap_or_else(|| self.identity.collector.clone())
    }
}

/// Returns what a starting agent says, before any look.
fn first_words(chain: &Chain, found: &Found, moment: Moment) -> Vec<Body> {
    let run = &chain.state().run;
    let last = LastRun {
        covered_until: run.covered_until,
        stopped: run.stopped,
        agent_version: run.agent_version.clone(),
        is_rebooted: !run.boot_id.is_empty() && run.boot_id != hex::encode(chain.boot_id()),
    };
    // A chain begins with that report; also one whose first start was cut short before it said so.
    let mut bodies = match found {
        Found::Unusable { previous, why } => vec![report::epoch_started(why, *previous)],
        Found::New | Found::Whole if chain.state().sealed.is_none() => {
            vec![report::epoch_started("the first epoch of this agent", None)]
        }
        Found::New | Found::Whole => Vec::new(),
        // Without a report before them, the end of the last coverage is the best that is known.
        Found::Damaged { lost, since } => vec![report::spool_damaged(*lost, since.or(run.covered_until), moment)],
    };
    bodies.extend(report::started(&last, VERSION, moment));
    bodies
}

fn link_up(status: &mut Status) {
    let link = &mut status.uplink;
    (link.is_up, link.error, link.needs_someone, link.next_try_time) = (true, None, false, None);
}

async fn looked(looking: &mut Option<(Instant, Looking)>) -> (Look, Outcome) {
    match looking {
        Some((_, look)) => look.await,
        None => std::future::pending().await,
    }
}

async fn renewed(renewing: &mut Option<Renewing>) -> Result<Identity, enroll::Error> {
    match renewing {
        Some(renewing) => renewing.await,
        None => std::future::pending().await,
    }
}
