//! Writes of changes of files.

use muster_proto::{
    fact::{Baseline, ExplainedChanges},
    id::{AgentId, Digest},
    time::Timestamp,
};
use rusqlite::params;

use super::{
    AcknowledgementRow, BASELINES_KEPT, CHANGES_KEPT, FileEnd, FileHost, GROUPS_KEPT, GroupRow, LastingChange,
    NewChange, read,
};
use crate::{
    control::Acknowledged,
    views::{Batch, Error, write::sql},
};

/// Where and when something was told: log index and received time of the report.
type Told = (u64, Timestamp);

impl Batch<'_> {
    /// Returns where an agent stands with its files.
    pub fn file_host(&self, agent: AgentId) -> Result<FileHost, Error> {
        Ok(read::file_host(self.connection(), agent)?.unwrap_or_default())
    }

    /// Writes where an agent stands with its files.
    pub fn put_file_host(&self, agent: AgentId, host: &FileHost) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO file_hosts (agent, baseline_id, baseline_digest, explained_total, watched, changes_told,
             changes_dropped, groups_told, groups_dropped, baselines_told, baselines_dropped) VALUES (?, ?, ?, ?, ?, ?,
             ?, ?, ?, ?, ?) ON CONFLICT (agent) DO UPDATE SET baseline_id = excluded.baseline_id, baseline_digest =
             excluded.baseline_digest, explained_total = excluded.explained_total, watched = excluded.watched,
             changes_told = excluded.changes_told, changes_dropped = excluded.changes_dropped, groups_told =
             excluded.groups_told, groups_dropped = excluded.groups_dropped, baselines_told = excluded.baselines_told,
             baselines_dropped = excluded.baselines_dropped",
        )?
        .execute(params![
            agent.as_bytes(),
            host.baseline.0,
            host.baseline.1,
            sql(host.explained_total),
            serde_json::to_string(&host.watched).expect("texts are JSON"),
            sql(host.changes.told),
            sql(host.changes.dropped),
            sql(host.groups.told),
            sql(host.groups.dropped),
            sql(host.baselines.told),
            sql(host.baselines.dropped),
        ])?;
        Ok(())
    }

    /// Returns the changes of an agent that have not ended, by number.
    pub fn lasting_changes(&self, agent: AgentId) -> Result<Vec<LastingChange>, Error> {
        read::lasting_changes(self.connection(), agent)
    }

    /// Writes a change that was told first by the report at `from`.
    pub fn begin_file_change(&self, agent: AgentId, new: &NewChange<'_>, from: Told) -> Result<(), Error> {
        let change = new.change;
        let content = |state: Option<&muster_proto::fact::FileState>| {
            state.map(|state| state.sha256.as_str().to_owned()).unwrap_or_default()
        };
        self.prepare(
            "INSERT INTO file_changes (agent, number, identity, path, kind, set_name, severity, before_sha256,
             after_sha256, after_digest, detected, is_listed, change_digest, from_index, from_time, change_bytes) VALUES
             (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?)",
        )?
        .execute(params![
            agent.as_bytes(),
            sql(new.number),
            new.identity.as_bytes(),
            change.path.as_str(),
            change.kind.as_str(),
            change.set.as_str(),
            new.severity,
            content(change.before.as_ref()),
            content(change.after.as_ref()),
            change.after_digest().as_bytes(),
            change.detected_time.micros(),
            Digest::of_bytes(new.bytes).as_bytes(),
            sql(from.0),
            from.1.micros(),
            new.bytes,
        ])?;
        Ok(())
    }

    /// Writes a change as it is told now.
    pub fn tell_file_change(&self, agent: AgentId, number: u64, bytes: &[u8]) -> Result<(), Error> {
        let text =
            "UPDATE file_changes SET is_listed = 1, change_digest = ?, change_bytes = ? WHERE agent = ? AND number = ?";
        let digest = Digest::of_bytes(bytes);
        self.prepare(text)?.execute(params![digest.as_bytes(), bytes, agent.as_bytes(), sql(number)])?;
        Ok(())
    }

    /// Writes that a change is no longer listed.
    pub fn unlist_file_change(&self, agent: AgentId, number: u64) -> Result<(), Error> {
        self.prepare("UPDATE file_changes SET is_listed = 0 WHERE agent = ? AND number = ?")?
            .execute(params![agent.as_bytes(), sql(number)])?;
        Ok(())
    }

    /// Writes that a change ended.
    pub fn end_file_change(
        &self,
        agent: AgentId,
        number: u64,
        at: Told,
        end: FileEnd,
        reason: &str,
    ) -> Result<(), Error> {
        self.prepare(
            "UPDATE file_changes SET is_listed = 0, to_index = ?, to_time = ?, end_cause = ?, end_reason = ?
             WHERE agent = ? AND number = ?",
        )?
        .execute(params![sql(at.0), at.1.micros(), end.number(), reason, agent.as_bytes(), sql(number)])?;
        Ok(())
    }

    /// Drops what is too much of an agent's changes, and returns how many: those that ended first, then those that are not listed.
    pub fn drop_file_changes(&self, agent: AgentId) -> Result<u64, Error> {
        let excess = self.excess("SELECT COUNT(*) FROM file_changes WHERE agent = ?", agent, CHANGES_KEPT)?;
        if excess == 0 {
            return Ok(0);
        }
        let dropped = self
            .prepare(
                "DELETE FROM file_changes WHERE agent = ?1 AND number IN (SELECT number FROM file_changes
                 WHERE agent = ?1 AND is_listed = 0 ORDER BY CASE WHEN to_index IS NULL THEN 1 ELSE 0 END, to_index,
                 number LIMIT ?2)",
            )?
            .execute(params![agent.as_bytes(), sql(excess)])?;
        Ok(dropped as u64)
    }

    /// Returns the groups of explained changes of an agent that have not ended, by number.
    pub fn lasting_groups(&self, agent: AgentId) -> Result<Vec<GroupRow>, Error> {
        read::lasting_groups(self.connection(), agent)
    }

    /// Writes a group of explained changes, new or with other counts, that was told first by the report at `from`.
    pub fn put_group(&self, agent: AgentId, number: u64, group: &ExplainedChanges, from: Told) -> Result<(), Error> {
        let why = &group.explanation;
        self.prepare(
            "INSERT INTO file_groups (agent, number, source, package, version, basis, changes_total, first_detected,
             last_detected, from_index, from_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent, number) DO
             UPDATE SET changes_total = excluded.changes_total, first_detected = excluded.first_detected, last_detected
             = excluded.last_detected",
        )?
        .execute(params![
            agent.as_bytes(),
            sql(number),
            why.source.as_str(),
            why.package.as_str(),
            why.version.as_str(),
            why.basis.as_str(),
            sql(group.changes_total),
            group.first_detected_time.micros(),
            group.last_detected_time.micros(),
            sql(from.0),
            from.1.micros(),
        ])?;
        Ok(())
    }

    /// Writes that a group of explained changes is no longer told.
    pub fn end_group(&self, agent: AgentId, number: u64, at: Told) -> Result<(), Error> {
        self.prepare("UPDATE file_groups SET to_index = ?, to_time = ? WHERE agent = ? AND number = ?")?
            .execute(params![sql(at.0), at.1.micros(), agent.as_bytes(), sql(number)])?;
        Ok(())
    }

    /// Drops what is too much of an agent's groups, and returns how many: those that ended first, then the oldest.
    pub fn drop_groups(&self, agent: AgentId) -> Result<u64, Error> {
        let excess = self.excess("SELECT COUNT(*) FROM file_groups WHERE agent = ?", agent, GROUPS_KEPT)?;
        if excess == 0 {
            return Ok(0);
        }
        let dropped = self
            .prepare(
                "DELETE FROM file_groups WHERE agent = ?1 AND number IN (SELECT number FROM file_groups
                 WHERE agent = ?1 ORDER BY CASE WHEN to_index IS NULL THEN 1 ELSE 0 END, to_index, number LIMIT ?2)",
            )?
            .execute(params![agent.as_bytes(), sql(excess)])?;
        Ok(dropped as u64)
    }

    /// Writes a baseline that was told first by the report at `from`, drops the oldest that are too much, and returns how many.
    pub fn put_baseline(
        &self,
        agent: AgentId,
        number: u64,
        baseline: &Baseline,
        lost_before: bool,
        from: Told,
    ) -> Result<u64, Error> {
        self.prepare(
            "INSERT INTO file_baselines (agent, number, id, created, reason, entries, digest, lost_before, from_index,
             from_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            agent.as_bytes(),
            sql(number),
            baseline.id.as_str(),
            baseline.created_time.micros(),
            baseline.reason.as_str(),
            sql(baseline.entries),
            baseline.digest.as_str(),
            lost_before,
            sql(from.0),
            from.1.micros(),
        ])?;
        let dropped = self
            .prepare("DELETE FROM file_baselines WHERE agent = ? AND number <= ?")?
            .execute(params![agent.as_bytes(), sql(number.saturating_sub(BASELINES_KEPT))])?;
        Ok(dropped as u64)
    }

    /// Writes that an operator acknowledged a state of a path. The first word on it counts.
    pub fn put_acknowledgement(
        &self,
        agent: AgentId,
        path: &str,
        after_digest: Digest,
        row: &AcknowledgementRow,
    ) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO acknowledgements (agent, path, after_digest, log_index, time, actor, reason, reference)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent, path, after_digest) DO NOTHING",
        )?
        .execute(params![
            agent.as_bytes(),
            path,
            after_digest.as_bytes(),
            sql(row.log_index),
            row.time.micros(),
            row.actor,
            row.reason,
            row.reference,
        ])?;
        Ok(())
    }

    /// Returns what operators acknowledged of an agent.
    pub fn acknowledged(&self, agent: AgentId) -> Result<Acknowledged, Error> {
        read::acknowledged(self.connection(), agent, None)
    }

    fn excess(&self, count: &str, agent: AgentId, kept: u64) -> Result<u64, Error> {
        let count: i64 = self.prepare(count)?.query_row([agent.as_bytes()], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or_default().saturating_sub(kept))
    }
}
