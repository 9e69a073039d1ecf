//! Applies log entries, one after the other, to what is known of each agent.
//!
//! What an entry brings depends on the entries before it and on nothing else: neither on a clock nor on how entries are cut into
//! batches. So views that were followed live equal views made again from the log. An attestation costs no statement by itself:
//! an agent's run and head are written once for each batch.

mod evidence;
mod files;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use muster_proto::{
    fact::{Fact, Subject},
    fact_set::Held,
    id::AgentId,
    report::{Attestation, Body, Facts, Gap, Report},
    time::Timestamp,
    v1::{self, act::Act, log_entry::Entry},
};
use prost::Message as _;

use super::{
    agent::{Agent, Asked, BodyExt as _, name},
    cache::{Cache, Changes},
    standing::{Known, passed, verdict_at},
};
use crate::{
    control::{
        self, Catalogue, Control, Evidence, Reporting, Verdict,
        reports::{mends, on_collector},
    },
    views::{
        AgentRow, Batch, Broken, Error, FactRow, GapRow, HostRow, HostState, SnapshotRow, VerdictRow, Writer, empty_set,
    },
};
use evidence::{Brought, changed_at, evidence};

/// How old, by the entries' times, a verdict that time can turn may be before it is judged again.
pub(super) const REJUDGE: Duration = Duration::from_secs(60);

/// Place in the history of what an entry itself brought, after what time brought before it: a turn and staleness.
const LAST_STEP: u64 = 2;

/// What is known of every agent.
pub(super) struct Fleet {
    pub agents: HashMap<AgentId, Agent>,
    cache: Cache,
    /// What judges at this place of the log.
    pub catalogue: Arc<Catalogue>,
    /// Agents with a run and a head to write.
    touched: BTreeSet<AgentId>,
    pub news: News,
}

/// What a batch brought that others wait for.
#[derive(Default)]
pub(super) struct News {
    /// Directives that reports answered.
    pub answered: Vec<(AgentId, u64)>,
    /// Agents whose facts are needed again.
    pub resync: Vec<AgentId>,
}

/// A report in the log.
pub(super) struct Place {
    /// Its log index.
    pub index: u64,
    /// When it was received; never before the agent's report before it.
    pub received: Timestamp,
    /// Skew of the host's clock.
    pub skew_millis: i64,
    /// When it was sealed, host's clock.
    pub observed: Timestamp,
}

/// How an agent stood before a report.
struct Before<'a> {
    /// What was known of when its facts were confirmed.
    known: Known<'a>,
    is_first: bool,
    was_broken: bool,
    /// Whether another skew of its clock was measured.
    is_skewed: bool,
    /// Whether that moves times by its clock.
    is_moved: bool,
    /// What the class of the host was.
    class: String,
}

/// Why an entry is passed over.
enum Pass {
    /// It is not one that can be applied.
    Bad(String),
    /// The views refused.
    Views(Error),
}

impl From<Error> for Pass {
    fn from(error: Error) -> Self {
        Self::Views(error)
    }
}

impl Fleet {
    /// Returns what the views know. Before the log names a catalogue, `first` judges.
    pub fn load(writer: &Writer, first: Arc<Catalogue>) -> Result<Self, Error> {
        let catalogue = match writer.catalogue()? {
            Some((_, entry)) => in_force(&entry).map(Arc::new).ok_or(Error::Garbled("catalogues"))?,
            None => first,
        };
        let agents = writer.hosts()?.into_iter().map(|host| (host.agent.agent, Agent::of(host, &catalogue))).collect();
        Ok(Self { agents, cache: Cache::default(), catalogue, touched: BTreeSet::new(), news: News::default() })
    }

    /// Applies `entries`, which begin at `first` in the log, and returns the agents that they touched.
    ///
    /// # Errors
    ///
    /// The database's. The fleet is then ahead of the views, and must be loaded again.
    pub fn apply(&mut self, writer: &mut Writer, first: u64, entries: &[Vec<u8>]) -> Result<BTreeSet<AgentId>, Error> {
        let batch = writer.begin()?;
        for (index, bytes) in (first..).zip(entries) {
            match self.entry(&batch, index, bytes) {
                Ok(()) => {}
                Err(Pass::Bad(what)) => {
                    tracing::warn!(index, what, "a log entry is passed over");
                    batch.put_bad_entry(index, &what)?;
                }
                Err(Pass::Views(error)) => return Err(error),
            }
        }
        let touched = std::mem::take(&mut self.touched);
        for id in &touched {
            if let Some(agent) = self.agents.get_mut(id) {
                agent.flush(&batch)?;
            }
        }
        self.cache.flush(&batch)?;
        batch.commit(first + entries.len() as u64)?;
        Ok(touched)
    }

    fn entry(&mut self, batch: &Batch<'_>, index: u64, bytes: &[u8]) -> Result<(), Pass> {
        let bad = |what: &str| Pass::Bad(what.to_owned());
        let entry = v1::LogEntry::decode(bytes).map_err(|_| bad("not a LogEntry"))?;
        let received = entry.received_time.as_ref().and_then(Timestamp::from_wire);
        let received = received.ok_or_else(|| bad("without received_time"))?;
        match entry.entry.ok_or_else(|| bad("of no kind that this version knows"))? {
            Entry::Report(admitted) => self.report(batch, index, received, admitted),
            Entry::Enrollment(enrollment) => {
                batch.put_member(index, bytes)?;
                self.enrollment(batch, index, received, &enrollment)
            }
            Entry::Act(act) => {
                // What is acknowledged has a table of its own, and says nothing of who is who.
                if !matches!(act.act, Some(Act::FileChangesAcknowledged(_))) {
                    batch.put_member(index, bytes)?;
                }
                self.act(batch, index, received, act)
            }
            Entry::Conflict(conflict) => {
                batch.put_member(index, bytes)?;
                self.set_state(batch, index, received, &conflict.agent_id, |_| HostState::Frozen)
            }
            Entry::Catalogue(version) => self.change_catalogue(batch, index, bytes, received, &version),
            Entry::Access(_) => Ok(()),
        }
    }

    /// Judges with another catalogue from an entry on. What the one before said stays in the history under its own version.
    fn change_catalogue(
        &mut self,
        batch: &Batch<'_>,
        index: u64,
        bytes: &[u8],
        received: Timestamp,
        version: &v1::CatalogueVersion,
    ) -> Result<(), Pass> {
        let catalogue = Catalogue::from_entry(version).map_err(|error| Pass::Bad(error.to_string()))?;
        batch.put_catalogue(index, catalogue.digest(), bytes)?;
        if catalogue.digest() == self.catalogue.digest() {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.catalogue, Arc::new(catalogue));
        let agents: BTreeSet<AgentId> = self.agents.keys().copied().collect();
        for id in agents {
            let Some(agent) = self.agents.get_mut(&id) else { continue };
            let run = agent.host.agent.run;
            let place = Place {
                index,
                received: run.map_or(received, |run| received.max(run.last_time)),
                skew_millis: run.map(|run| run.skew_millis).unwrap_or_default(),
                observed: received,
            };
            agent.host.agent.judged_at = place.received;
            agent.is_dirty = true;
            self.touched.insert(id);
            settle(batch, agent, &before, &self.catalogue, &place)?;
            self.judge(batch, id, &place, &[], None, |_, _, _| true)?;
        }
        Ok(())
    }

    fn enrollment(
        &mut self,
        batch: &Batch<'_>,
        index: u64,
        received: Timestamp,
        enrollment: &v1::Enrollment,
    ) -> Result<(), Pass> {
        let id = agent_id(&enrollment.agent_id)?;
        self.touched.insert(id);
        let agent = Self::agent(&mut self.agents, &self.catalogue, id);
        agent.is_dirty = true;
        if agent.host.agent.enrolled.is_some() {
            return Ok(());
        }
        agent.host.agent.enrolled = Some((index, received));
        if let Some(claim) = enrollment.claim.as_ref().filter(|_| agent.host.agent.hostname.is_empty()) {
            agent.host.agent.hostname = name(&claim.hostname);
            agent.host.agent.agent_version = name(&claim.agent_version);
        }
        if agent.host.agent.run.is_none() {
            batch.put_state(id, index, received, HostState::Enrolled)?;
            let place = Place { index, received, skew_millis: 0, observed: received };
            let facts = Arc::clone(&agent.host.facts);
            let known = Known::of(&agent.host.agent, &facts);
            self.judge(batch, id, &place, &[], Some(&known), |_, _, _| true)?;
        }
        Ok(())
    }

    fn act(&mut self, batch: &Batch<'_>, index: u64, received: Timestamp, act: v1::Act) -> Result<(), Pass> {
        match act.act {
            Some(Act::AgentRevoked(revoked)) => {
                self.set_state(batch, index, received, &revoked.agent_id, |_| HostState::Revoked)
            }
            Some(Act::ConflictResolved(resolved)) => {
                self.set_state(batch, index, received, &resolved.agent_id, |row| match (row.state, row.run) {
                    (HostState::Revoked, _) => HostState::Revoked,
                    (_, None) => HostState::Enrolled,
                    (_, Some(_)) => HostState::Active,
                })
            }
            Some(Act::FileChangesAcknowledged(acknowledged)) => {
                self.acknowledge(batch, index, received, &act.actor, &acknowledged)
            }
            Some(Act::SnapshotExported(snapshot)) => {
                let digest = muster_proto::id::Digest::from_slice(&snapshot.digest);
                let row = SnapshotRow {
                    log_index: index,
                    id: name(&snapshot.snapshot_id),
                    digest: digest.ok_or_else(|| Pass::Bad("a snapshot without digest".to_owned()))?,
                    hosts: snapshot.hosts,
                    time: received,
                    actor: name(&act.actor),
                };
                Ok(batch.put_snapshot(&row)?)
            }
            _ => Ok(()),
        }
    }

    fn set_state(
        &mut self,
        batch: &Batch<'_>,
        index: u64,
        received: Timestamp,
        agent: &[u8],
        state: impl Fn(&AgentRow) -> HostState,
    ) -> Result<(), Pass> {
        let id = agent_id(agent)?;
        let Some(agent) = self.agents.get_mut(&id) else {
            return Err(Pass::Bad("about an agent that was never enrolled".to_owned()));
        };
        let state = state(&agent.host.agent);
        if agent.host.agent.state == HostState::Revoked && state != HostState::Revoked {
            return Ok(());
        }
        self.touched.insert(id);
        agent.host.agent.state = state;
        agent.is_dirty = true;
        Ok(batch.put_state(id, index, received, state)?)
    }

    fn report(
        &mut self,
        batch: &Batch<'_>,
        index: u64,
        received: Timestamp,
        admitted: v1::AdmittedReport,
    ) -> Result<(), Pass> {
        let sealed = admitted.sealed.ok_or_else(|| Pass::Bad("a report without its seal".to_owned()))?;
        let report = Report::decode(&sealed.report).map_err(|error| Pass::Bad(error.to_string()))?;
        let id = report.agent;
        let agent = Self::agent(&mut self.agents, &self.catalogue, id);
        let last = agent.host.agent.run.filter(|run| run.epoch == report.epoch);
        if last.is_some_and(|run| report.seq.number() <= run.last_seq) {
            return Err(Pass::Bad("a report at a place of its chain that is taken".to_owned()));
        }
        self.touched.insert(id);
        // Received times of one agent never go back, so that what was known at an instant is a prefix of its reports.
        let received = agent.host.agent.run.map_or(received, |run| received.max(run.last_time));
        let place = Place { index, received, skew_millis: admitted.clock_skew_millis, observed: report.observed };
        let before = agent.host.agent.run;
        let facts_before = Arc::clone(&agent.host.facts);
        let known = Known::of(&agent.host.agent, &facts_before);
        if agent.host.agent.run.is_some_and(|run| run.epoch != report.epoch) {
            // The head of the epoch that ends.
            agent.flush(batch)?;
        }
        agent.follow(&report, &place);
        agent.head = Some(sealed);
        if agent.host.agent.state == HostState::Enrolled {
            agent.host.agent.state = HostState::Active;
            agent.is_dirty = true;
            batch.put_state(id, index, received, HostState::Active)?;
        }
        if agent.host.agent.agent_version != report.agent_version.as_str() {
            agent.host.agent.agent_version = report.agent_version.as_str().to_owned();
            agent.is_dirty = true;
        }
        // As the views can hold it.
        let revision = report.profile_revision.min(i64::MAX as u64);
        if agent.host.agent.profile_revision != revision {
            agent.host.agent.profile_revision = revision;
            agent.is_dirty = true;
        }
        if let Some(coverage) = report.body.coverage() {
            self.news.answered.extend(coverage.directive_ids.iter().map(|directive| (id, *directive)));
        }
        let was_broken = agent.host.agent.broken.is_some();
        let class = agent.host.agent.host_class.clone();
        let changed = match &report.body {
            Body::Facts(facts) => self.facts(batch, id, facts, &place)?,
            Body::Attestation(attestation) => self.attestation(batch, id, attestation, &place)?,
            Body::Gap(gap) => {
                batch.put_gap(id, &gap_row(gap, &report, &place))?;
                Vec::new()
            }
            Body::Lifecycle(_) => Vec::new(),
        };
        let is_first = before.is_none();
        let is_skewed = before.is_some_and(|run| run.skew_millis != place.skew_millis);
        let ahead = |skew_millis| Reporting { last_received: None, skew_millis }.ahead_minutes();
        let is_moved = before.is_some_and(|run| ahead(run.skew_millis) != ahead(place.skew_millis));
        self.rejudge(batch, id, &place, &changed, &Before { known, is_first, was_broken, is_skewed, is_moved, class })
    }

    /// Judges what a report may have changed.
    fn rejudge(
        &mut self,
        batch: &Batch<'_>,
        id: AgentId,
        place: &Place,
        changed: &[Subject],
        before: &Before<'_>,
    ) -> Result<(), Pass> {
        let Some(agent) = self.agents.get_mut(&id) else { return Ok(()) };
        let is_turned = before.was_broken != agent.host.agent.broken.is_some();
        let host_class = &agent.host.agent.host_class;
        // Or another reason why it cannot be told, which verdicts name.
        let is_other_class = *host_class != before.class || host_class.is_empty() && changed.contains(&Subject::System);
        let all = before.is_first || is_turned;
        let is_due = place.received.since(agent.host.agent.judged_at) >= REJUDGE;
        if all || is_due {
            agent.host.agent.judged_at = place.received;
            agent.is_dirty = true;
        }
        let received = place.received;
        // What time alone made of a verdict since it was judged: the report may end it, and it has been all the same.
        let is_overtaken = |control: &Control, row: Option<&VerdictRow>| {
            row.is_some_and(|row| verdict_at(control, row, &before.known, received) != row.verdict)
        };
        let any_overtaken = self.catalogue.controls().any(|control| is_overtaken(control, agent.verdict(control)));
        let is_same = !all && !is_due && !is_other_class && !before.is_skewed && changed.is_empty();
        if is_same && !agent.has_stale && !any_overtaken {
            return Ok(());
        }
        let has_stale = agent.has_stale;
        self.judge(batch, id, place, changed, Some(&before.known), |control, known, row| {
            all || is_due && control.reads_now
                || is_other_class && control.reads_class
                || before.is_skewed && control.reads_skew
                || before.is_moved && control.reads_host_times
                || control.subjects.iter().any(|subject| changed.contains(subject))
                || any_overtaken && is_overtaken(control, row)
                || has_stale
                    && row.is_some_and(|row| row.verdict == Verdict::NoData)
                    && known.stale(control).is_some_and(|(at, ..)| at > received)
        })
    }

    fn facts(&mut self, batch: &Batch<'_>, id: AgentId, facts: &Facts, place: &Place) -> Result<Vec<Subject>, Pass> {
        let set = self.cache.get(batch, id)?;
        let (was_partial, had_opaque) = (set.is_partial(), !set.opaque().is_empty());
        let before: Vec<Subject> = if facts.resync { set.facts().keys().copied().collect() } else { Vec::new() };
        let applied = set.apply(facts, &place.index);
        let mut changes = Changes { partial: was_partial || set.is_partial(), opaque: false };
        let digest = set.digest();
        let changed = match applied {
            Ok(changed) => changed,
            Err(error) => {
                self.cache.changed(id, changes);
                self.break_off(batch, id, place, &error.to_string())?;
                self.ask_again(id, place);
                return Ok(Vec::new());
            }
        };
        let is_new = |held: &Held<u64>| held.origins.last() == Some(&place.index);
        changes.opaque = facts.resync && had_opaque || set.opaque().values().any(is_new);
        let gone: Vec<Subject> = before.into_iter().filter(|subject| !set.facts().contains_key(subject)).collect();
        let Some(agent) = self.agents.get_mut(&id) else { return Ok(Vec::new()) };
        for subject in gone.iter().chain(&changed) {
            if let Some(old) = Arc::make_mut(&mut agent.host.facts).remove(subject) {
                batch.end_fact(id, *subject, old.from_index, place.index, place.received)?;
            }
            let Some(held) = set.facts().get(subject) else { continue };
            let confirmed = on_collector(held.observed, place.skew_millis, place.received);
            let row = FactRow { subject: *subject, from_index: place.index, confirmed, origins: held.origins.clone() };
            batch.put_fact(id, &row, held, place.received)?;
            if *subject == Subject::FileIntegrity {
                files::follow(batch, id, &held.bytes, place)?;
            }
            Arc::make_mut(&mut agent.host.facts).insert(*subject, row);
        }
        agent.host.agent.set_digest = digest;
        agent.is_dirty = true;
        if changed.contains(&Subject::System) || gone.contains(&Subject::System) {
            let system = set.facts().get(&Subject::System).and_then(|held| Fact::decode(&held.bytes).ok());
            agent.introduce(system.as_ref());
        }
        self.cache.changed(id, changes);
        self.mend(batch, id, place)?;
        Ok(changed.into_iter().chain(gone).collect())
    }

    fn attestation(
        &mut self,
        batch: &Batch<'_>,
        id: AgentId,
        attestation: &Attestation,
        place: &Place,
    ) -> Result<Vec<Subject>, Pass> {
        let Some(agent) = self.agents.get_mut(&id) else { return Ok(Vec::new()) };
        if attestation.fact_set_digest == agent.host.agent.set_digest {
            self.mend(batch, id, place)?;
        } else {
            self.break_off(batch, id, place, "an attestation is about another fact set")?;
            self.ask_again(id, place);
        }
        Ok(Vec::new())
    }

    /// Asks an agent whose reports do not add up for every subject again, if that is due. An answer may be as wrong as what it
    /// is to mend, and each brings a whole fact set into the log.
    fn ask_again(&mut self, id: AgentId, place: &Place) {
        if let Some(agent) = self.agents.get_mut(&id)
            && agent.asked.take_turn(place.received)
        {
            self.news.resync.push(id);
        }
    }

    /// Takes note that an agent's reports do not add up.
    fn break_off(&mut self, batch: &Batch<'_>, id: AgentId, place: &Place, why: &str) -> Result<(), Pass> {
        let Some(agent) = self.agents.get_mut(&id) else { return Ok(()) };
        if agent.host.agent.broken.is_some() {
            return Ok(());
        }
        let detail = format!("reports do not add up since log entry {}: {why}", place.index);
        tracing::warn!(agent = %id, detail, "facts of an agent cannot be told");
        batch.put_break(id, place.index, place.received, &detail)?;
        agent.host.agent.broken = Some(Broken { log_index: place.index, time: place.received, detail });
        agent.is_dirty = true;
        Ok(())
    }

    /// Takes note that they add up again, unless they did so only just before.
    fn mend(&mut self, batch: &Batch<'_>, id: AgentId, place: &Place) -> Result<(), Pass> {
        let Some(agent) = self.agents.get_mut(&id) else { return Ok(()) };
        if let Some(broken) = &agent.host.agent.broken
            && mends(agent.host.agent.mended, place.received)
        {
            batch.end_break(id, broken.log_index, place.index, place.received)?;
            (agent.host.agent.broken, agent.host.agent.mended) = (None, Some(place.received));
            agent.asked = Asked::default();
            agent.is_dirty = true;
        }
        Ok(())
    }

    /// Judges the controls that `which` names, at the received time of an entry. `before` is what was known before it; `None` where
    /// the catalogue changes, and with it what verdicts begin.
    fn judge(
        &mut self,
        batch: &Batch<'_>,
        id: AgentId,
        place: &Place,
        changed: &[Subject],
        before: Option<&Known<'_>>,
        which: impl Fn(&Control, &Known<'_>, Option<&VerdictRow>) -> bool,
    ) -> Result<(), Pass> {
        let Some(agent) = self.agents.get(&id) else { return Ok(()) };
        let known = Known::of(&agent.host.agent, &agent.host.facts);
        let picked: Vec<&Control> =
            self.catalogue.controls().filter(|control| which(control, &known, agent.verdict(control))).collect();
        if picked.is_empty() {
            return Ok(());
        }
        let subjects: BTreeSet<Subject> = picked.iter().flat_map(|control| control.subjects.iter().copied()).collect();
        let evidence = evidence(&mut self.cache, batch, agent, &subjects)?;
        let observed = changed_at(&mut self.cache, batch, id, changed, place)?;
        let version = self.catalogue.version();
        let mut rows = Vec::with_capacity(picked.len());
        for control in picked {
            let old = agent.verdict(control);
            let passed = old.zip(before).map(|(old, before)| passed(control, old, before, place.received));
            let passed = passed.unwrap_or_default();
            let stood = passed.last().map(|last| (last.verdict, last.since));
            let stood = stood.or_else(|| old.map(|old| (old.verdict, old.since)));
            let mut row = judged(control, &evidence, stood, &known, place, &observed);
            let is_new = stood.is_none_or(|(verdict, _)| verdict != row.verdict);
            if is_new && before.is_none() {
                row.since = row.since.map(|_| place.received);
            }
            if old.is_some_and(|old| passed.is_empty() && !is_new && old.reason == row.reason && old.turn == row.turn) {
                continue;
            }
            batch.put_verdict(id, &row)?;
            put_passed(batch, id, &passed, place, version)?;
            if is_new {
                batch.put_history(id, &row, (place.index, LAST_STEP), version)?;
            }
            rows.push((row.control.clone(), row));
        }
        let Some(agent) = self.agents.get_mut(&id) else { return Ok(()) };
        if !rows.is_empty() {
            Arc::make_mut(&mut agent.host.verdicts).extend(rows);
        }
        agent.note_stale(&self.catalogue);
        Ok(())
    }

    fn agent<'a>(agents: &'a mut HashMap<AgentId, Agent>, catalogue: &Catalogue, id: AgentId) -> &'a mut Agent {
        agents.entry(id).or_insert_with(|| {
            let mut agent = Agent::of(HostRow::new(AgentRow::new(id, empty_set())), catalogue);
            agent.is_dirty = true;
            agent
        })
    }
}

/// Brings the verdicts of `before` to where time brought them, and takes away those of controls that `after` does not have.
fn settle(
    batch: &Batch<'_>,
    agent: &mut Agent,
    before: &Catalogue,
    after: &Catalogue,
    place: &Place,
) -> Result<(), Error> {
    let id = agent.host.agent.agent;
    let facts = Arc::clone(&agent.host.facts);
    let known = Known::of(&agent.host.agent, &facts);
    for control in before.controls() {
        let Some(row) = agent.verdict(control).cloned() else { continue };
        let passed = passed(control, &row, &known, place.received);
        put_passed(batch, id, &passed, place, before.version())?;
        let verdicts = Arc::make_mut(&mut agent.host.verdicts);
        if after.control(control.id.as_str()).is_none() {
            verdicts.remove(&row.control);
            batch.end_verdict(id, &row.control)?;
            let ended = VerdictRow {
                verdict: Verdict::NotApplicable,
                reason: "the catalogue has no such control".to_owned(),
                since: Some(place.received),
                judged_at: place.received,
                turn: None,
                ..row
            };
            batch.put_history(id, &ended, (place.index, LAST_STEP), after.version())?;
        } else if let Some(last) = passed.into_iter().last() {
            batch.put_verdict(id, &last)?;
            verdicts.insert(last.control.clone(), last);
        }
    }
    Ok(())
}

/// Writes what time brought before an entry.
fn put_passed(
    batch: &Batch<'_>,
    id: AgentId,
    passed: &[VerdictRow],
    place: &Place,
    version: &str,
) -> Result<(), Error> {
    for (row, step) in passed.iter().zip(0..LAST_STEP) {
        batch.put_history(id, row, (place.index, step), version)?;
    }
    Ok(())
}

/// Returns the catalogue that an encoded entry puts in force.
fn in_force(entry: &[u8]) -> Option<Catalogue> {
    match v1::LogEntry::decode(entry).ok()?.entry? {
        Entry::Catalogue(version) => Catalogue::from_entry(&version).ok(),
        _ => None,
    }
}

/// Returns what `control` says at an entry, and since when. `stood` is what it said just before, and since when.
fn judged(
    control: &Control,
    evidence: &Evidence,
    stood: Option<(Verdict, Option<Timestamp>)>,
    known: &Known<'_>,
    place: &Place,
    brought: &Brought,
) -> VerdictRow {
    let now = place.received;
    let judgement = control::judge(control, evidence, now);
    let max_age = *control.max_age.of(evidence.class());
    // Beyond staleness nothing can turn, and staleness moves by less than an hour before the next judgement.
    let horizon = max_age.saturating_add(Duration::from_secs(3600));
    let turn = control::turn(control, evidence, now, &judgement, horizon)
        .map(|turn| (turn.at, turn.judgement.verdict, turn.judgement.reason));
    let stale = known.stale(control).filter(|(at, ..)| *at <= now);
    let since = match (stood, judgement.verdict, stale) {
        (Some((stood, since)), verdict, _) if stood == verdict => since,
        (_, Verdict::NoData, Some((at, ..))) => Some(at),
        (_, Verdict::NoData, None) => None,
        _ => {
            let observed = control.subjects.iter().filter_map(|subject| brought.subjects.get(subject)).max();
            Some(observed.copied().unwrap_or(brought.report))
        }
    };
    VerdictRow {
        control: control.id.as_str().to_owned(),
        verdict: judgement.verdict,
        reason: judgement.reason,
        since,
        judged_at: now,
        turn,
    }
}

fn gap_row(gap: &Gap, report: &Report, place: &Place) -> GapRow {
    GapRow {
        log_index: place.index,
        received: place.received,
        epoch: report.epoch,
        seq: report.seq.number(),
        cause: gap.cause.into(),
        start: gap.start,
        end: gap.end,
        lost: gap.lost.map(|lost| (lost.first.number(), lost.last.number())),
        counts: gap.counts.iter().map(|(kind, count)| (name(kind.as_str()), *count)).collect(),
        detail: gap.detail.as_str().to_owned(),
    }
}

fn agent_id(bytes: &[u8]) -> Result<AgentId, Pass> {
    AgentId::from_slice(bytes).ok_or_else(|| Pass::Bad("an agent id that is none".to_owned()))
}
