//! What was known of each host at a position of the log and an instant of the collector's clock.

use std::{collections::BTreeMap, ops::Range};

use muster_proto::{
    fact::Subject,
    fact_set::Held,
    id::{AgentId, Epoch},
    report::{Body, Report},
    time::Timestamp,
    v1,
};
use prost::Message as _;
use rusqlite::{Connection, params};

use super::{
    Broken, Error, FactRow, HostState, Look, Looks, Run, Views, files,
    read::{self, agent, blob, number, rows, time},
    rows::{subject, unpack},
    write::sql,
};
use crate::control::{Acknowledged, Evidence, Observed, Reporting};

/// Reads entries of the log.
pub trait Entries: Send + Sync {
    /// Returns the entries of `range`.
    ///
    /// # Errors
    ///
    /// The log's.
    fn entries(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>>;
}

impl Entries for crate::log::Log {
    fn entries(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self::entries(self, range)?)
    }
}

/// What was known of a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostAsOf {
    /// Whose.
    pub agent: AgentId,
    /// Where it stood.
    pub state: HostState,
    /// Log index and time of its first enrolment.
    pub enrolled: Option<(u64, Timestamp)>,
    /// Its last report.
    pub last_report: Option<LastReport>,
    /// Its facts by subject.
    pub facts: BTreeMap<Subject, FactAsOf>,
    /// The last look of each probe, with the log index of the report that says so.
    pub looks: Looks,
    /// Set when its reports did not add up, so that its facts are unknown(garbled).
    pub broken: Option<Broken>,
    /// What operators had acknowledged of it.
    pub acknowledged: Acknowledged,
}

/// The last report of a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LastReport {
    /// Its log index.
    pub log_index: u64,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place.
    pub seq: u64,
    /// When it was received.
    pub received: Timestamp,
    /// When it was sealed, host's clock.
    pub observed: Timestamp,
    /// Host's clock minus collector's clock, in milliseconds.
    pub skew_millis: i64,
}

/// A fact, where it came from, and until when it was confirmed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FactAsOf {
    /// The fact: its exact bytes, when it was observed first (host's clock), and the log indexes of the reports that brought it.
    pub held: Held<u64>,
    /// When the report that completed it was received.
    pub received: Timestamp,
    /// When a look confirmed it last, collector's clock.
    pub confirmed: Timestamp,
    /// The look that confirms it; `None` when only its own report does.
    pub look: Option<Look>,
}

impl HostAsOf {
    /// Returns the evidence to judge.
    pub fn evidence(&self) -> Evidence {
        let reporting = Reporting {
            last_received: self.last_report.map(|report| report.received),
            skew_millis: self.last_report.map(|report| report.skew_millis).unwrap_or_default(),
        };
        if let Some(broken) = &self.broken {
            return Evidence::broken(self.agent, reporting, &broken.detail, broken.time);
        }
        let facts = self
            .facts
            .iter()
            .map(|(subject, fact)| (*subject, Observed::decode(*subject, &fact.held.bytes, fact.confirmed)));
        Evidence { host: self.agent, facts: facts.collect(), reporting, acknowledged: self.acknowledged.clone() }
    }
}

/// Returns when a fact was confirmed last, collector's clock, and by which look: the last one of its probe that came with or
/// after the report that completed it, else its own.
pub fn confirmation(fact: &FactRow, looks: &Looks) -> (Timestamp, Option<Look>) {
    confirm(fact.subject, fact.from_index, fact.confirmed, looks)
}

fn confirm(subject: Subject, from_index: u64, own: Timestamp, looks: &Looks) -> (Timestamp, Option<Look>) {
    let look = looks.get(subject.probe()).filter(|look| look.log_index >= from_index);
    look.map_or((own, None), |look| (look.confirmed, Some(look)))
}

impl Views {
    /// Returns what was known of each host when the log had `log_size` entries, by what was received up to `instant`, ordered by
    /// agent. The same call gives the same answer, also after more entries came.
    ///
    /// # Errors
    ///
    /// [`Error::NotCovered`] when the views do not cover that much of the log yet; else the database's or the log's.
    pub fn as_of(&self, log: &dyn Entries, log_size: u64, instant: Timestamp) -> Result<Vec<HostAsOf>, Error> {
        self.read(|connection| {
            let covered = read::applied(connection)?;
            if log_size > covered {
                return Err(Error::NotCovered { asked: log_size, covered });
            }
            let at = At { connection, log, size: log_size, instant };
            let mut hosts = Vec::new();
            for (agent, enrolled) in at.agents()? {
                hosts.extend(at.host(agent, enrolled)?);
            }
            Ok(hosts)
        })
    }
}

/// A position of the log and an instant.
struct At<'a> {
    connection: &'a Connection,
    log: &'a dyn Entries,
    size: u64,
    instant: Timestamp,
}

/// An agent, and where and when it was enrolled.
type Enrolled = (AgentId, Option<(u64, Timestamp)>);

impl At<'_> {
    fn agents(&self) -> Result<Vec<Enrolled>, Error> {
        let text = "SELECT agent, enrolled_index, enrolled_time FROM agents ORDER BY agent";
        rows(self.connection, text, [], |row| {
            let enrolled = number(row, 1).zip(time(row, 2));
            let enrolled = enrolled.filter(|(index, time)| *index < self.size && *time <= self.instant);
            Some((agent(row, 0)?, enrolled))
        })
    }

    fn host(&self, agent: AgentId, enrolled: Option<(u64, Timestamp)>) -> Result<Option<HostAsOf>, Error> {
        let states = rows(
            self.connection,
            "SELECT state FROM agent_states WHERE agent = ? AND from_index < ? AND from_time <= ?
             ORDER BY from_index DESC LIMIT 1",
            params![agent.as_bytes(), sql(self.size), self.instant.micros()],
            |row| HostState::from_number(row.get(0).ok()?),
        )?;
        let Some(state) = states.first().copied() else { return Ok(None) };
        let (last_report, looks) = self.last_report(agent)?;
        let broken = rows(
            self.connection,
            "SELECT from_index, from_time, detail FROM breaks WHERE agent = ?1 AND from_index < ?2 AND from_time <= ?3
             AND (to_index IS NULL OR to_index >= ?2 OR to_time > ?3) ORDER BY from_index DESC LIMIT 1",
            params![agent.as_bytes(), sql(self.size), self.instant.micros()],
            |row| Some(Broken { log_index: number(row, 0)?, time: time(row, 1)?, detail: row.get(2).ok()? }),
        )?;
        let facts = self.facts(agent, &looks)?;
        let broken = broken.into_iter().next();
        let acknowledged = files::acknowledged(self.connection, agent, Some((self.size, self.instant)))?;
        Ok(Some(HostAsOf { agent, state, enrolled, last_report, facts, looks, broken, acknowledged }))
    }

    fn facts(&self, agent: AgentId, looks: &Looks) -> Result<BTreeMap<Subject, FactAsOf>, Error> {
        let facts = rows(
            self.connection,
            "SELECT subject, observed, bytes, origins, from_time, from_index, confirmed FROM facts
             WHERE agent = ?1 AND from_index < ?2 AND from_time <= ?3
             AND (to_index IS NULL OR to_index >= ?2 OR to_time > ?3)",
            params![agent.as_bytes(), sql(self.size), self.instant.micros()],
            |row| {
                let subject = subject(row.get_ref(0).ok()?.as_str().ok()?)?;
                let held = Held { observed: time(row, 1)?, bytes: blob(row, 2)?, origins: unpack(&blob(row, 3)?)? };
                let (from_index, own) = (number(row, 5)?, time(row, 6)?);
                let (confirmed, look) = confirm(subject, from_index, own, looks);
                Some((subject, FactAsOf { held, received: time(row, 4)?, confirmed, look }))
            },
        )?;
        Ok(facts.into_iter().collect())
    }

    /// Returns the last report, and the looks up to it.
    fn last_report(&self, agent: AgentId) -> Result<(Option<LastReport>, Looks), Error> {
        let runs = rows(
            self.connection,
            "SELECT epoch, first_seq, last_seq, first_index, last_index, first_time, last_time, observed, through,
             skew_millis, looks FROM runs WHERE agent = ? AND first_index < ? AND first_time <= ?
             ORDER BY first_index DESC LIMIT 2",
            params![agent.as_bytes(), sql(self.size), self.instant.micros()],
            |row| read::run(row, 0),
        )?;
        let Some(run) = runs.first() else { return Ok((None, Looks::default())) };
        if run.last_index < self.size && run.last_time <= self.instant {
            let last = LastReport {
                log_index: run.last_index,
                epoch: run.epoch,
                seq: run.last_seq,
                received: run.last_time,
                observed: run.observed,
                skew_millis: run.skew_millis,
            };
            return Ok((Some(last), run.looks));
        }
        self.cut(run, runs.get(1).map(|run| run.looks).unwrap_or_default())
    }

    /// Returns the last report of a run that the position or the instant cuts, read from the log.
    fn cut(&self, run: &Run, mut looks: Looks) -> Result<(Option<LastReport>, Looks), Error> {
        let range = run.first_index..self.size.min(run.last_index + 1);
        let entries = self.log.entries(range).map_err(|source| Error::Log { source })?;
        let mut last = None;
        let mut received = run.first_time;
        for (index, bytes) in (run.first_index..).zip(entries) {
            let Some((report, time, skew_millis)) = report_of(&bytes) else {
                return Err(Error::Garbled("runs"));
            };
            received = received.max(time);
            if received > self.instant {
                break;
            }
            if let Body::Facts(muster_proto::report::Facts { coverage, .. })
            | Body::Attestation(muster_proto::report::Attestation { coverage, .. }) = &report.body
            {
                looks.add(coverage, index, skew_millis, received);
            }
            last = Some(LastReport {
                log_index: index,
                epoch: report.epoch,
                seq: report.seq.number(),
                received,
                observed: report.observed,
                skew_millis,
            });
        }
        Ok((last, looks))
    }
}

/// Returns the report of an entry, when it was received, and the skew.
fn report_of(bytes: &[u8]) -> Option<(Report, Timestamp, i64)> {
    let entry = v1::LogEntry::decode(bytes).ok()?;
    let received = Timestamp::from_wire(entry.received_time.as_ref()?)?;
    let Some(v1::log_entry::Entry::Report(admitted)) = entry.entry else { return None };
    let report = Report::decode(&admitted.sealed?.report).ok()?;
    Some((report, received, admitted.clock_skew_millis))
}
