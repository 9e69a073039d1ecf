//! Reads of changes of files.

use muster_proto::{
    fact::{Baseline, ExplainedChanges, Explanation, ExplanationSource, Text},
    id::{AgentId, Digest},
    time::Timestamp,
};
use rusqlite::{Connection, Row, params};

use super::{
    AcknowledgementRow, BaselineRow, Cursor, FileChangeRow, FileEnd, FileHost, FilesDropped, GroupRow, LastingChange,
    Tally,
};
use crate::{
    control::Acknowledged,
    views::{
        Error, Views,
        read::{agent, blob, number, rows, rows_within, time},
        write::sql,
    },
};

/// Bytes of changes that are read at once, about.
const CHANGES_BYTES: usize = 8 << 20;

/// Columns of a change and of its acknowledgement, in the order in which [`change`] reads them.
const CHANGE: &str = "c.agent, c.number, c.path, c.kind, c.set_name, c.severity, c.before_sha256, c.after_sha256,
    c.after_digest, c.detected, c.is_listed, c.from_index, c.from_time, c.to_index, c.to_time, c.end_cause, c.end_reason,
    a.log_index, a.time, a.actor, a.reason, a.reference";
const JOINED: &str = "FROM file_changes c LEFT JOIN acknowledgements a
    ON a.agent = c.agent AND a.path = c.path AND a.after_digest = c.after_digest";

impl Views {
    /// Returns up to `most` changes of files after `after`, ordered by agent and number: those of `of` alone, and of `path` alone,
    /// where they are given. Fewer where they are large; none after the last alone.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn file_changes(
        &self,
        after: Option<Cursor>,
        of: Option<AgentId>,
        path: Option<&str>,
        most: u64,
    ) -> Result<Vec<FileChangeRow>, Error> {
        let (after_agent, after_number) = from(after);
        let text = format!(
            "SELECT {CHANGE}, c.change_bytes {JOINED} WHERE (c.agent, c.number) > (?1, ?2) {} {}
             ORDER BY c.agent, c.number LIMIT ?5",
            if of.is_some() { "AND c.agent = ?3" } else { "AND ?3 IS NULL" },
            if path.is_some() { "AND c.path = ?4" } else { "AND ?4 IS NULL" },
        );
        self.read(|connection| {
            let of = of.as_ref().map(|agent| agent.as_bytes().as_slice());
            let parse = |row: &Row<'_>| Some(FileChangeRow { bytes: blob(row, 22)?, ..change(row)? });
            let params = params![after_agent, after_number, of, path, sql(most)];
            rows_within(connection, &text, params, parse, |change| change.bytes.len(), CHANGES_BYTES)
        })
    }

    /// Returns every change of `path` that is kept, ordered by agent and number, without its bytes.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn file_contents(&self, path: &str) -> Result<Vec<FileChangeRow>, Error> {
        let text = format!("SELECT {CHANGE} {JOINED} WHERE c.path = ? ORDER BY c.agent, c.number");
        self.read(|connection| rows(connection, &text, [path], change))
    }

    /// Returns up to `most` groups of explained changes after `after`, ordered by agent and number; those of `of` alone where it is
    /// given.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn explained_groups(
        &self,
        after: Option<Cursor>,
        of: Option<AgentId>,
        most: u64,
    ) -> Result<Vec<GroupRow>, Error> {
        let (after_agent, after_number) = from(after);
        let text = format!(
            "SELECT agent, number, source, package, version, basis, changes_total, first_detected, last_detected,
             from_index, from_time, to_index, to_time FROM file_groups WHERE (agent, number) > (?1, ?2) {}
             ORDER BY agent, number LIMIT ?4",
            if of.is_some() { "AND agent = ?3" } else { "AND ?3 IS NULL" },
        );
        self.read(|connection| {
            let of = of.as_ref().map(|agent| agent.as_bytes().as_slice());
            rows(connection, &text, params![after_agent, after_number, of, sql(most)], group)
        })
    }

    /// Returns the baselines of an agent that are kept, in the order in which it told them.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn file_baselines(&self, agent: AgentId) -> Result<Vec<BaselineRow>, Error> {
        self.read(|connection| {
            let text = "SELECT number, id, created, reason, entries, digest, lost_before, from_index, from_time
                        FROM file_baselines WHERE agent = ? ORDER BY number";
            rows(connection, text, [agent.as_bytes()], |row| {
                Some(BaselineRow {
                    number: number(row, 0)?,
                    baseline: Baseline {
                        id: word(row, 1)?,
                        created_time: time(row, 2)?,
                        reason: word(row, 3)?,
                        entries: number(row, 4)?,
                        digest: word(row, 5)?,
                    },
                    lost_before: row.get(6).ok()?,
                    from: (number(row, 7)?, time(row, 8)?),
                })
            })
        })
    }

    /// Returns where each agent that told of its files stands, ordered by agent.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn file_hosts(&self) -> Result<Vec<(AgentId, FileHost)>, Error> {
        self.read(|connection| rows(connection, &format!("SELECT {HOST} ORDER BY agent"), [], host))
    }

    /// Returns how many changes, groups and baselines are no longer kept: of `of` alone, where it is given.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn files_dropped(&self, of: Option<AgentId>) -> Result<FilesDropped, Error> {
        let text = format!(
            "SELECT COALESCE(SUM(changes_dropped), 0), COALESCE(SUM(groups_dropped), 0), COALESCE(SUM(baselines_dropped), 0)
             FROM file_hosts WHERE {}",
            if of.is_some() { "agent = ?1" } else { "?1 IS NULL" },
        );
        self.read(|connection| {
            let of = of.as_ref().map(|agent| agent.as_bytes().as_slice());
            let found = rows(connection, &text, [of], |row| {
                Some(FilesDropped { changes: number(row, 0)?, groups: number(row, 1)?, baselines: number(row, 2)? })
            })?;
            Ok(found.first().copied().unwrap_or_default())
        })
    }

    /// Returns where an agent stands with its files; `None` when it never told of them.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn file_host(&self, agent: AgentId) -> Result<Option<FileHost>, Error> {
        self.read(|connection| file_host(connection, agent))
    }
}

const HOST: &str = "agent, baseline_id, baseline_digest, explained_total, watched, changes_told, changes_dropped,
    groups_told, groups_dropped, baselines_told, baselines_dropped FROM file_hosts";

/// Returns where an agent stands with its files.
pub(super) fn file_host(connection: &Connection, agent: AgentId) -> Result<Option<FileHost>, Error> {
    let text = format!("SELECT {HOST} WHERE agent = ?");
    let mut found = rows(connection, &text, [agent.as_bytes()], host)?;
    Ok(found.pop().map(|(_, host)| host))
}

fn host(row: &Row<'_>) -> Option<(AgentId, FileHost)> {
    let tally = |at| Some(Tally { told: number(row, at)?, dropped: number(row, at + 1)? });
    let host = FileHost {
        baseline: (row.get(1).ok()?, row.get(2).ok()?),
        explained_total: number(row, 3)?,
        watched: serde_json::from_str(row.get_ref(4).ok()?.as_str().ok()?).ok()?,
        changes: tally(5)?,
        groups: tally(7)?,
        baselines: tally(9)?,
    };
    Some((agent(row, 0)?, host))
}

/// Returns the changes of an agent that have not ended, by number.
pub(super) fn lasting_changes(connection: &Connection, agent: AgentId) -> Result<Vec<LastingChange>, Error> {
    let text = "SELECT number, identity, path, set_name, is_listed, change_digest FROM file_changes
                WHERE agent = ? AND to_index IS NULL ORDER BY number";
    rows(connection, text, [agent.as_bytes()], |row| {
        Some(LastingChange {
            number: number(row, 0)?,
            identity: Digest::from_slice(&blob(row, 1)?)?,
            path: row.get(2).ok()?,
            set: row.get(3).ok()?,
            is_listed: row.get(4).ok()?,
            told: Digest::from_slice(&blob(row, 5)?)?,
        })
    })
}

/// Returns the groups of explained changes of an agent that have not ended, by number.
pub(super) fn lasting_groups(connection: &Connection, agent: AgentId) -> Result<Vec<GroupRow>, Error> {
    let text = "SELECT agent, number, source, package, version, basis, changes_total, first_detected, last_detected,
                from_index, from_time, to_index, to_time FROM file_groups
                WHERE agent = ? AND to_index IS NULL ORDER BY number";
    rows(connection, text, [agent.as_bytes()], group)
}

/// Returns what operators acknowledged of an agent; with `at`, what they had when the log had so many entries, by that instant.
///
/// # Errors
///
/// The database's.
pub fn acknowledged(
    connection: &Connection,
    agent: AgentId,
    at: Option<(u64, Timestamp)>,
) -> Result<Acknowledged, Error> {
    let (size, instant) = at.map_or((i64::MAX, i64::MAX), |(size, instant)| (sql(size), instant.micros()));
    let text = "SELECT path, after_digest, log_index FROM acknowledgements
                WHERE agent = ? AND log_index < ? AND time <= ?";
    let found = rows(connection, text, params![agent.as_bytes(), size, instant], |row| {
        Some((row.get::<_, String>(0).ok()?, Digest::from_slice(&blob(row, 1)?)?, number(row, 2)?))
    })?;
    let mut acknowledged = Acknowledged::default();
    found.iter().for_each(|(path, digest, index)| acknowledged.insert(path, *digest, *index));
    Ok(acknowledged)
}

/// Returns what comes before everything after `after`.
fn from(after: Option<Cursor>) -> (Vec<u8>, i64) {
    after.map_or((Vec::new(), -1), |(agent, number)| (agent.as_bytes().to_vec(), sql(number)))
}

fn change(row: &Row<'_>) -> Option<FileChangeRow> {
    let ended = match row.get::<_, Option<i64>>(13).ok()? {
        Some(_) => {
            let end = FileEnd::from_number(row.get(15).ok()?)?;
            Some((number(row, 13)?, time(row, 14)?, end, row.get(16).ok()?))
        }
        None => None,
    };
    let acknowledged = match row.get::<_, Option<i64>>(17).ok()? {
        Some(_) => Some(AcknowledgementRow {
            log_index: number(row, 17)?,
            time: time(row, 18)?,
            actor: row.get(19).ok()?,
            reason: row.get(20).ok()?,
            reference: row.get(21).ok()?,
        }),
        None => None,
    };
    Some(FileChangeRow {
        agent: agent(row, 0)?,
        number: number(row, 1)?,
        path: row.get(2).ok()?,
        kind: row.get(3).ok()?,
        set: row.get(4).ok()?,
        severity: row.get(5).ok()?,
        before_sha256: row.get(6).ok()?,
        after_sha256: row.get(7).ok()?,
        after_digest: Digest::from_slice(&blob(row, 8)?)?,
        detected: time(row, 9)?,
        is_listed: row.get(10).ok()?,
        bytes: Vec::new(),
        from: (number(row, 11)?, time(row, 12)?),
        ended,
        acknowledged,
    })
}

fn group(row: &Row<'_>) -> Option<GroupRow> {
    let group = ExplainedChanges {
        explanation: Explanation {
            source: ExplanationSource::parse(row.get_ref(2).ok()?.as_str().ok()?)?,
            package: word(row, 3)?,
            version: word(row, 4)?,
            basis: word(row, 5)?,
        },
        changes_total: number(row, 6)?,
        first_detected_time: time(row, 7)?,
        last_detected_time: time(row, 8)?,
    };
    let ended = match row.get::<_, Option<i64>>(11).ok()? {
        Some(_) => Some((number(row, 11)?, time(row, 12)?)),
        None => None,
    };
    Some(GroupRow {
        agent: agent(row, 0)?,
        number: number(row, 1)?,
        group,
        from: (number(row, 9)?, time(row, 10)?),
        ended,
    })
}

fn word(row: &Row<'_>, at: usize) -> Option<Text> {
    Text::parse(row.get(at).ok()?)
}
