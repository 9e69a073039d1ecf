//! Reads of what is current.

use std::{collections::BTreeMap, sync::Arc};

use muster_proto::{
    fact::Subject,
    fact_set::{Held, Number},
    id::{AgentId, Digest, Epoch},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{
    AgentRow, Broken, Error, Head, HostState, Looks, Partial, Run, Views,
    rows::{subject, unpack},
    write::{epoch_bytes, sql},
};
use crate::control::Verdict;

/// A current fact, without its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FactRow {
    /// What it is about.
    pub subject: Subject,
    /// Log index of the report that completed it.
    pub from_index: u64,
    /// When the look that gave it ended, on the collector's clock: less the skew, and never after it was received.
    pub confirmed: Timestamp,
    /// Log indexes of the reports that brought it, one for each part.
    pub origins: Vec<u64>,
}

/// A verdict as it was judged, and how time alone will change it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerdictRow {
    /// The control.
    pub control: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Since when, by the observation that began it, host's clock.
    pub since: Option<Timestamp>,
    /// Received time of the entry at which it was judged.
    pub judged_at: Timestamp,
    /// From when on its condition gives another verdict by time alone, which, and why.
    pub turn: Option<(Timestamp, Verdict, String)>,
}

/// An agent's current facts by subject, those about subjects that this build does not know, and the one under way in parts.
pub type FactSetParts = (BTreeMap<Subject, Held<u64>>, BTreeMap<Number, Held<u64>>, Option<Partial>);

/// A host as it is: the agent, its verdicts, and its facts without their bytes. Cheap to clone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostRow {
    /// The agent.
    pub agent: AgentRow,
    /// Its verdicts by control.
    pub verdicts: Arc<BTreeMap<String, VerdictRow>>,
    /// Its facts by subject.
    pub facts: Arc<BTreeMap<Subject, FactRow>>,
}

impl HostRow {
    /// Returns an agent of which nothing more is known.
    pub fn new(agent: AgentRow) -> Self {
        Self { agent, verdicts: Arc::default(), facts: Arc::default() }
    }
}

/// What an agent did not observe, or did not keep.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GapRow {
    /// Log index of the report that says so.
    pub log_index: u64,
    /// When that was received.
    pub received: Timestamp,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place.
    pub seq: u64,
    /// Why, as a number of the wire's `GapCause`.
    pub cause: i32,
    /// Start of the span, host's clock.
    pub start: Timestamp,
    /// End of the span.
    pub end: Timestamp,
    /// First and last of the sequence numbers that were used up and lost.
    pub lost: Option<(u64, u64)>,
    /// What was lost, by kind.
    pub counts: Vec<(String, u64)>,
    /// For a person.
    pub detail: String,
}

/// A snapshot that was handed out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SnapshotRow {
    /// Log index of the act.
    pub log_index: u64,
    /// Its id.
    pub id: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Hosts in it.
    pub hosts: u64,
    /// When the act was taken.
    pub time: Timestamp,
    /// Who asked for it.
    pub actor: String,
}

impl Views {
    /// Returns how many entries of the log the views cover.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn applied(&self) -> Result<u64, Error> {
        self.read(applied)
    }

    /// Returns the last durable report of each agent's epochs.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn heads(&self) -> Result<Vec<Head>, Error> {
        self.read(|connection| {
            rows(
                connection,
                "SELECT agent, epoch, seq, digest, log_index FROM heads ORDER BY agent, epoch",
                [],
                |row| {
                    Some(Head {
                        agent: agent(row, 0)?,
                        epoch: Epoch::from_slice(&blob(row, 1)?)?,
                        seq: number(row, 2)?,
                        digest: Digest::from_slice(&blob(row, 3)?)?,
                        log_index: number(row, 4)?,
                    })
                },
            )
        })
    }

    /// Returns the log index of a durable report.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn report_index(&self, agent: AgentId, epoch: Epoch, seq: u64) -> Result<Option<u64>, Error> {
        self.read(|connection| {
            let found = rows(
                connection,
                "SELECT first_seq, last_seq, first_index FROM runs WHERE agent = ? AND epoch = ? AND first_seq <= ?
                 ORDER BY first_seq DESC LIMIT 1",
                params![agent.as_bytes(), epoch_bytes(&epoch), sql(seq)],
                |row| Some((number(row, 0)?, number(row, 1)?, number(row, 2)?)),
            )?;
            Ok(found.first().filter(|(_, last, _)| seq <= *last).map(|(first, _, index)| index + (seq - first)))
        })
    }

    /// Returns the entries that say who is who (acts, enrolments, conflicts), as they are in the log and in its order.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn member_entries(&self) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        self.read(|connection| {
            rows(connection, "SELECT log_index, entry FROM members ORDER BY log_index", [], |row| {
                Some((number(row, 0)?, blob(row, 1)?))
            })
        })
    }

    /// Returns the digest of the catalogue that an entry of the log put in force last.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn catalogue_digest(&self) -> Result<Option<Digest>, Error> {
        self.read(|connection| {
            let text = "SELECT digest FROM catalogues ORDER BY log_index DESC LIMIT 1";
            let found = rows(connection, text, [], |row| Digest::from_slice(&blob(row, 0)?))?;
            Ok(found.first().copied())
        })
    }

    /// Returns the gaps of an agent, the newest `most` of them, newest first.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn gaps(&self, agent: AgentId, most: u64) -> Result<Vec<GapRow>, Error> {
        self.read(|connection| {
            let text = "SELECT log_index, received, epoch, seq, cause, start_time, end_time, lost_first, lost_last, counts, detail
                        FROM gaps WHERE agent = ? ORDER BY log_index DESC LIMIT ?";
            rows(connection, text, params![agent.as_bytes(), sql(most)], |row| {
                Some(GapRow {
                    log_index: number(row, 0)?,
                    received: time(row, 1)?,
                    epoch: Epoch::from_slice(&blob(row, 2)?)?,
                    seq: number(row, 3)?,
                    cause: row.get(4).ok()?,
                    start: time(row, 5)?,
                    end: time(row, 6)?,
                    lost: number(row, 7).zip(number(row, 8)),
                    counts: serde_json::from_str(row.get_ref(9).ok()?.as_str().ok()?).ok()?,
                    detail: row.get(10).ok()?,
                })
            })
        })
    }

    /// Returns the snapshots that were handed out, newest first.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn snapshots(&self) -> Result<Vec<SnapshotRow>, Error> {
        self.read(|connection| {
            let text = "SELECT log_index, id, digest, hosts, time, actor FROM snapshots ORDER BY log_index DESC";
            rows(connection, text, [], |row| {
                Some(SnapshotRow {
                    log_index: number(row, 0)?,
                    id: row.get(1).ok()?,
                    digest: Digest::from_slice(&blob(row, 2)?)?,
                    hosts: number(row, 3)?,
                    time: time(row, 4)?,
                    actor: row.get(5).ok()?,
                })
            })
        })
    }

    /// Returns every host as it is, ordered by agent, and the log position that this is of.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn hosts(&self) -> Result<(u64, Vec<HostRow>), Error> {
        self.read(|connection| Ok((applied(connection)?, hosts(connection)?)))
    }

    /// Returns an agent's current facts with their bytes, and when each was received.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn facts(&self, agent: AgentId) -> Result<Vec<(Subject, Held<u64>, Timestamp)>, Error> {
        self.read(|connection| {
            rows(
                connection,
                "SELECT subject, observed, bytes, origins, from_time FROM facts WHERE agent = ? AND to_index IS NULL ORDER BY subject",
                [agent.as_bytes()],
                |row| Some((subject(row.get_ref(0).ok()?.as_str().ok()?)?, held(row)?, time(row, 4)?)),
            )
        })
    }

    /// Returns epoch and sequence of the report at a log index.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn place(&self, agent: AgentId, log_index: u64) -> Result<Option<(Epoch, u64)>, Error> {
        self.read(|connection| {
            let found = rows(
                connection,
                "SELECT epoch, first_seq, first_index FROM runs WHERE agent = ? AND first_index <= ? AND last_index >= ?",
                params![agent.as_bytes(), sql(log_index), sql(log_index)],
                |row| Some((Epoch::from_slice(&blob(row, 0)?)?, number(row, 1)? + (log_index - number(row, 2)?))),
            )?;
            Ok(found.first().copied())
        })
    }

    /// Returns the entries that were passed over, and why.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn bad_entries(&self) -> Result<Vec<(u64, String)>, Error> {
        self.read(|connection| {
            let text = "SELECT log_index, what FROM bad_entries ORDER BY log_index";
            rows(connection, text, [], |row| Some((number(row, 0)?, row.get(1).ok()?)))
        })
    }

    /// Returns how many rows of an agent are no longer kept, by table: `breaks` and `verdict_history`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn dropped(&self, agent: AgentId) -> Result<BTreeMap<String, u64>, Error> {
        self.read(|connection| {
            let text = "SELECT rows_of, count FROM dropped WHERE agent = ?";
            let counts = rows(connection, text, [agent.as_bytes()], |row| Some((row.get(0).ok()?, number(row, 1)?)))?;
            Ok(counts.into_iter().collect())
        })
    }

    /// Returns the verdicts that a control gave of an agent, in order, with the log index of the entry at which each was found:
    /// the one that brought it or, of one that time brought, the one that came after it.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn verdict_history(&self, agent: AgentId, control: &str) -> Result<Vec<(u64, VerdictRow)>, Error> {
        self.read(|connection| {
            let text = "SELECT at_index, verdict, reason, since, judged_at FROM verdict_history
                        WHERE agent = ? AND control = ? ORDER BY at_index, step";
            rows(connection, text, params![agent.as_bytes(), control], |row| {
                let verdict = VerdictRow {
                    control: control.to_owned(),
                    verdict: Verdict::parse(row.get_ref(1).ok()?.as_str().ok()?)?,
                    reason: row.get(2).ok()?,
                    since: optional_time(row, 3)?,
                    judged_at: time(row, 4)?,
                    turn: None,
                };
                Some((number(row, 0)?, verdict))
            })
        })
    }
}

pub(super) fn applied(connection: &Connection) -> Result<u64, Error> {
    let applied: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE name = 'applied'", [], |row| row.get(0)).optional()?;
    applied.and_then(|applied| applied.parse().ok()).ok_or(Error::Garbled("meta"))
}

/// Returns the entry that put the last catalogue in force, and its log index.
pub(super) fn catalogue(connection: &Connection) -> Result<Option<(u64, Vec<u8>)>, Error> {
    let text = "SELECT log_index, entry FROM catalogues ORDER BY log_index DESC LIMIT 1";
    Ok(rows(connection, text, [], |row| Some((number(row, 0)?, blob(row, 1)?)))?.pop())
}

/// Returns every host, ordered by agent.
pub(super) fn hosts(connection: &Connection) -> Result<Vec<HostRow>, Error> {
    let mut hosts: BTreeMap<AgentId, HostRow> =
        agents(connection)?.into_iter().map(|agent| (agent.agent, HostRow::new(agent))).collect();
    for (agent, row) in verdicts(connection)? {
        if let Some(host) = hosts.get_mut(&agent) {
            Arc::make_mut(&mut host.verdicts).insert(row.control.clone(), row);
        }
    }
    for (agent, row) in fact_rows(connection)? {
        if let Some(host) = hosts.get_mut(&agent) {
            Arc::make_mut(&mut host.facts).insert(row.subject, row);
        }
    }
    Ok(hosts.into_values().collect())
}

fn agents(connection: &Connection) -> Result<Vec<AgentRow>, Error> {
    let text = "SELECT a.agent, a.state, a.enrolled_index, a.enrolled_time, a.set_digest, a.broken_index, a.broken_time,
                a.broken_detail, a.mended_time, a.judged_at, a.agent_version, a.hostname, a.os_id, a.os_version, a.host_class,
                a.profile_revision, r.epoch, r.first_seq, r.last_seq, r.first_index, r.last_index, r.first_time, r.last_time, r.observed,
                r.through, r.skew_millis, r.looks
                FROM agents a LEFT JOIN heads h ON h.agent = a.agent AND h.epoch = a.epoch
                LEFT JOIN runs r ON r.agent = a.agent AND r.epoch = h.epoch AND r.first_seq = h.run_seq ORDER BY a.agent";
    rows(connection, text, [], |row| {
        let broken: Option<String> = row.get(7).ok()?;
        let enrolled: Option<i64> = row.get(2).ok()?;
        let epoch: Option<Vec<u8>> = row.get(16).ok()?;
        Some(AgentRow {
            agent: agent(row, 0)?,
            state: HostState::from_number(row.get(1).ok()?)?,
            enrolled: match enrolled {
                Some(_) => Some((number(row, 2)?, time(row, 3)?)),
                None => None,
            },
            set_digest: Digest::from_slice(&blob(row, 4)?)?,
            broken: match broken {
                Some(detail) => Some(Broken { log_index: number(row, 5)?, time: time(row, 6)?, detail }),
                None => None,
            },
            mended: optional_time(row, 8)?,
            judged_at: time(row, 9)?,
            agent_version: row.get(10).ok()?,
            hostname: row.get(11).ok()?,
            os_id: row.get(12).ok()?,
            os_version: row.get(13).ok()?,
            host_class: row.get(14).ok()?,
            profile_revision: number(row, 15)?,
            run: match epoch {
                Some(_) => Some(run(row, 16)?),
                None => None,
            },
        })
    })
}

/// Returns the run whose columns begin at `at`: epoch to looks, in the order of the table.
pub(super) fn run(row: &Row<'_>, at: usize) -> Option<Run> {
    Some(Run {
        epoch: Epoch::from_slice(&blob(row, at)?)?,
        first_seq: number(row, at + 1)?,
        last_seq: number(row, at + 2)?,
        first_index: number(row, at + 3)?,
        last_index: number(row, at + 4)?,
        first_time: time(row, at + 5)?,
        last_time: time(row, at + 6)?,
        observed: time(row, at + 7)?,
        through: time(row, at + 8)?,
        skew_millis: row.get(at + 9).ok()?,
        looks: Looks::from_bytes(&blob(row, at + 10)?)?,
    })
}

fn verdicts(connection: &Connection) -> Result<Vec<(AgentId, VerdictRow)>, Error> {
    let text =
        "SELECT agent, control, verdict, reason, since, judged_at, turn_at, turn_verdict, turn_reason FROM verdicts
                ORDER BY agent, control";
    rows(connection, text, [], |row| {
        let turn = match optional_time(row, 6)? {
            Some(at) => Some((at, Verdict::parse(row.get_ref(7).ok()?.as_str().ok()?)?, row.get(8).ok()?)),
            None => None,
        };
        let verdict = VerdictRow {
            control: row.get(1).ok()?,
            verdict: Verdict::parse(row.get_ref(2).ok()?.as_str().ok()?)?,
            reason: row.get(3).ok()?,
            since: optional_time(row, 4)?,
            judged_at: time(row, 5)?,
            turn,
        };
        Some((agent(row, 0)?, verdict))
    })
}

fn fact_rows(connection: &Connection) -> Result<Vec<(AgentId, FactRow)>, Error> {
    let text = "SELECT agent, subject, from_index, confirmed, origins FROM facts WHERE to_index IS NULL ORDER BY agent, subject";
    rows(connection, text, [], |row| {
        let fact = FactRow {
            subject: subject(row.get_ref(1).ok()?.as_str().ok()?)?,
            from_index: number(row, 2)?,
            confirmed: time(row, 3)?,
            origins: unpack(&blob(row, 4)?)?,
        };
        Some((agent(row, 0)?, fact))
    })
}

pub(super) fn fact_set(connection: &Connection, agent: AgentId) -> Result<FactSetParts, Error> {
    let facts = rows(
        connection,
        "SELECT subject, observed, bytes, origins FROM facts WHERE agent = ? AND to_index IS NULL",
        [agent.as_bytes()],
        |row| Some((subject(row.get_ref(0).ok()?.as_str().ok()?)?, held(row)?)),
    )?;
    let partial = rows(
        connection,
        "SELECT observed, digest, count, bytes, origins FROM partials WHERE agent = ?",
        [agent.as_bytes()],
        |row| {
            Some(Partial {
                observed: time(row, 0)?,
                digest: Digest::from_slice(&blob(row, 1)?)?,
                count: row.get(2).ok()?,
                bytes: blob(row, 3)?,
                origins: unpack(&blob(row, 4)?)?,
            })
        },
    )?;
    let opaque = rows(
        connection,
        "SELECT number, observed, bytes, origins FROM opaque_facts WHERE agent = ?",
        [agent.as_bytes()],
        |row| Some((Number::new(row.get(0).ok()?)?, held(row)?)),
    )?;
    Ok((facts.into_iter().collect(), opaque.into_iter().collect(), partial.into_iter().next()))
}

/// Returns the fact of the columns 1 to 3: observed, bytes and origins.
fn held(row: &Row<'_>) -> Option<Held<u64>> {
    Some(Held { observed: time(row, 1)?, bytes: blob(row, 2)?, origins: unpack(&blob(row, 3)?)? })
}

/// Returns what `parse` makes of each row.
pub(super) fn rows<T>(
    connection: &Connection,
    text: &str,
    params: impl rusqlite::Params,
    parse: impl Fn(&Row<'_>) -> Option<T>,
) -> Result<Vec<T>, Error> {
    rows_within(connection, text, params, parse, |_| 0, usize::MAX)
}

/// Returns what `parse` makes of each row, until they have `most` bytes or more by `bytes`. The first is always there.
pub(super) fn rows_within<T>(
    connection: &Connection,
    text: &str,
    params: impl rusqlite::Params,
    parse: impl Fn(&Row<'_>) -> Option<T>,
    bytes: impl Fn(&T) -> usize,
    most: usize,
) -> Result<Vec<T>, Error> {
    let mut statement = connection.prepare_cached(text)?;
    let mut rows = statement.query(params)?;
    let (mut out, mut taken) = (Vec::new(), 0);
    while taken < most
        && let Some(row) = rows.next()?
    {
        let item = parse(row).ok_or(Error::Garbled("a table"))?;
        taken += bytes(&item);
        out.push(item);
    }
    Ok(out)
}

pub(super) fn agent(row: &Row<'_>, at: usize) -> Option<AgentId> {
    AgentId::from_slice(row.get_ref(at).ok()?.as_blob().ok()?)
}

pub(super) fn blob(row: &Row<'_>, at: usize) -> Option<Vec<u8>> {
    row.get(at).ok()
}

pub(super) fn number(row: &Row<'_>, at: usize) -> Option<u64> {
    u64::try_from(row.get::<_, i64>(at).ok()?).ok()
}

pub(super) fn time(row: &Row<'_>, at: usize) -> Option<Timestamp> {
    Timestamp::from_micros(row.get(at).ok()?)
}

fn optional_time(row: &Row<'_>, at: usize) -> Option<Option<Timestamp>> {
    match row.get::<_, Option<i64>>(at).ok()? {
        Some(micros) => Timestamp::from_micros(micros).map(Some),
        None => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_where_they_are_large_and_the_first_is_always_there() {
        let connection = Connection::open_in_memory().unwrap();
        let text = "SELECT 4 UNION ALL SELECT 4 UNION ALL SELECT 4";
        for (most, expected) in [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (100, 3)] {
            let bytes = |row: &u64| usize::try_from(*row).unwrap();
            let rows = rows_within(&connection, text, [], |row| number(row, 0), bytes, most).unwrap();
            assert_eq!(rows.len(), expected, "{most}");
        }
    }
}
