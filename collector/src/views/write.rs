//! Writes what a batch of log entries changed, in one transaction with the position that it reaches.

use std::collections::BTreeMap;

use muster_proto::{
    fact::Subject,
    fact_set::{Held, Number},
    id::{AgentId, Digest, Epoch},
    time::Timestamp,
};
use rusqlite::{Connection, Transaction, params};

use super::{
    AgentRow, Error, Head, HostRow, HostState, Partial, Run, VerdictRow,
    read::{self, FactRow, FactSetParts, GapRow},
    rows::pack,
};

/// Bytes of the text that says why an entry was passed over, at most.
const BAD_ENTRY_BYTES: usize = 256;

/// Verdicts that the history of one control of one agent keeps, at most: an agent may bring another one with each report.
pub const HISTORY_KEPT: u64 = 1000;
/// Times at which an agent's reports did not add up that are kept, at most.
pub const BREAKS_KEPT: u64 = 1000;

/// The one writer.
pub struct Writer {
    connection: Connection,
    applied: u64,
    made_anew: Option<String>,
}

/// A transaction, to be committed whole.
pub struct Batch<'a> {
    transaction: Transaction<'a>,
    applied: &'a mut u64,
}

impl Writer {
    pub(super) fn new(connection: Connection, made_anew: Option<String>) -> Result<Self, Error> {
        let applied = read::applied(&connection)?;
        Ok(Self { connection, applied, made_anew })
    }

    /// Returns why the views were made anew and empty when they were opened; `None` when they were usable as they were.
    pub fn made_anew(&self) -> Option<&str> {
        self.made_anew.as_deref()
    }

    /// Returns how many entries of the log are applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Returns every host as it is, ordered by agent.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn hosts(&self) -> Result<Vec<HostRow>, Error> {
        read::hosts(&self.connection)
    }

    /// Returns the entry that put the last catalogue in force, and its log index.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn catalogue(&self) -> Result<Option<(u64, Vec<u8>)>, Error> {
        read::catalogue(&self.connection)
    }

    /// Begins a batch.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn begin(&mut self) -> Result<Batch<'_>, Error> {
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        Ok(Batch { transaction, applied: &mut self.applied })
    }
}

impl Batch<'_> {
    /// Commits the batch: everything up to the entry before `applied` is in the views.
    ///
    /// # Errors
    ///
    /// The database's; nothing of the batch is then in the views.
    pub fn commit(self, applied: u64) -> Result<(), Error> {
        self.transaction.execute("UPDATE meta SET value = ? WHERE name = 'applied'", [applied.to_string()])?;
        self.transaction.commit()?;
        *self.applied = applied;
        Ok(())
    }

    /// Returns an agent's current facts, those about unknown subjects, and the one under way in parts, as the batch has them so far.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn fact_set(&self, agent: AgentId) -> Result<FactSetParts, Error> {
        read::fact_set(&self.transaction, agent)
    }

    /// Writes an agent, but for its runs and heads.
    pub fn put_agent(&self, row: &AgentRow) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO agents (agent, state, enrolled_index, enrolled_time, epoch, set_digest, broken_index,
             broken_time, broken_detail, mended_time, judged_at, agent_version, hostname, os_id, os_version, host_class,
             profile_revision)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent) DO UPDATE SET state = excluded.state,
             enrolled_index = excluded.enrolled_index, enrolled_time = excluded.enrolled_time, epoch = excluded.epoch,
             set_digest = excluded.set_digest, broken_index = excluded.broken_index, broken_time = excluded.broken_time,
             broken_detail = excluded.broken_detail, mended_time = excluded.mended_time, judged_at = excluded.judged_at,
             agent_version = excluded.agent_version, hostname = excluded.hostname, os_id = excluded.os_id, os_version =
             excluded.os_version, host_class = excluded.host_class, profile_revision = excluded.profile_revision",
        )?
        .execute(params![
            row.agent.as_bytes(),
            row.state.number(),
            row.enrolled.map(|(index, _)| sql(index)),
            row.enrolled.map(|(_, time)| time.micros()),
            row.run.as_ref().map(|run| run.epoch.as_bytes().as_slice()),
            row.set_digest.as_bytes(),
            row.broken.as_ref().map(|broken| sql(broken.log_index)),
            row.broken.as_ref().map(|broken| broken.time.micros()),
            row.broken.as_ref().map(|broken| &broken.detail),
            row.mended.map(Timestamp::micros),
            row.judged_at.micros(),
            row.agent_version,
            row.hostname,
            row.os_id,
            row.os_version,
            row.host_class,
            sql(row.profile_revision),
        ])?;
        Ok(())
    }

    /// Writes since when an agent is in a state.
    pub fn put_state(&self, agent: AgentId, index: u64, time: Timestamp, state: HostState) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO agent_states (agent, from_index, from_time, state) VALUES (?, ?, ?, ?) ON CONFLICT (agent,
             from_index) DO UPDATE SET from_time = excluded.from_time, state = excluded.state",
        )?
        .execute(params![agent.as_bytes(), sql(index), time.micros(), state.number()])?;
        Ok(())
    }

    /// Writes that an agent's reports do not add up from an entry on. Of an agent the newest [`BREAKS_KEPT`] are kept.
    pub fn put_break(&self, agent: AgentId, index: u64, time: Timestamp, detail: &str) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO breaks (agent, from_index, from_time, detail) VALUES (?, ?, ?, ?) ON CONFLICT (agent,
             from_index) DO UPDATE SET from_time = excluded.from_time, detail = excluded.detail",
        )?
        .execute(params![agent.as_bytes(), sql(index), time.micros(), detail])?;
        let dropped = self
            .prepare(
                "DELETE FROM breaks WHERE agent = ?1 AND from_index < (SELECT from_index FROM breaks WHERE agent = ?1
                 ORDER BY from_index DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![agent.as_bytes(), sql(BREAKS_KEPT - 1)])?;
        self.count_dropped(agent, "breaks", dropped)
    }

    /// Writes that they add up again.
    pub fn end_break(&self, agent: AgentId, from_index: u64, index: u64, time: Timestamp) -> Result<(), Error> {
        self.prepare("UPDATE breaks SET to_index = ?, to_time = ? WHERE agent = ? AND from_index = ?")?
            .execute(params![sql(index), time.micros(), agent.as_bytes(), sql(from_index)])?;
        Ok(())
    }

    /// Writes a run, new or grown.
    pub fn put_run(&self, agent: AgentId, run: &Run) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO runs (agent, epoch, first_seq, last_seq, first_index, last_index, first_time, last_time,
             observed, through, skew_millis, looks) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent,
             epoch, first_seq) DO UPDATE SET last_seq = excluded.last_seq, first_index = excluded.first_index, last_index
             = excluded.last_index, first_time = excluded.first_time, last_time = excluded.last_time, observed =
             excluded.observed, through = excluded.through, skew_millis = excluded.skew_millis, looks = excluded.looks",
        )?
        .execute(params![
            agent.as_bytes(),
            run.epoch.as_bytes(),
            sql(run.first_seq),
            sql(run.last_seq),
            sql(run.first_index),
            sql(run.last_index),
            run.first_time.micros(),
            run.last_time.micros(),
            run.observed.micros(),
            run.through.micros(),
            run.skew_millis,
            run.looks.to_bytes(),
        ])?;
        Ok(())
    }

    /// Writes the head of an epoch, which is in the run that begins at `run_seq`.
    pub fn put_head(&self, head: &Head, run_seq: u64) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO heads (agent, epoch, seq, digest, log_index, run_seq) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT
             (agent, epoch) DO UPDATE SET seq = excluded.seq, digest = excluded.digest, log_index = excluded.log_index,
             run_seq = excluded.run_seq",
        )?
        .execute(params![
            head.agent.as_bytes(),
            head.epoch.as_bytes(),
            sql(head.seq),
            head.digest.as_bytes(),
            sql(head.log_index),
            sql(run_seq),
        ])?;
        Ok(())
    }

    /// Ends the current fact of a subject, if there is one.
    pub fn end_fact(
        &self,
        agent: AgentId,
        subject: Subject,
        from: u64,
        index: u64,
        time: Timestamp,
    ) -> Result<(), Error> {
        self.prepare("UPDATE facts SET to_index = ?, to_time = ? WHERE agent = ? AND subject = ? AND from_index = ?")?
            .execute(params![sql(index), time.micros(), agent.as_bytes(), subject.as_str(), sql(from)])?;
        Ok(())
    }

    /// Writes a fact that is current from an entry on.
    pub fn put_fact(&self, agent: AgentId, row: &FactRow, held: &Held<u64>, received: Timestamp) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO facts (agent, subject, from_index, from_time, observed, confirmed, origins, bytes) VALUES (?, ?,
             ?, ?, ?, ?, ?, ?) ON CONFLICT (agent, subject, from_index) DO UPDATE SET from_time = excluded.from_time,
             observed = excluded.observed, confirmed = excluded.confirmed, origins = excluded.origins, bytes =
             excluded.bytes",
        )?
        .execute(params![
            agent.as_bytes(),
            row.subject.as_str(),
            sql(row.from_index),
            received.micros(),
            held.observed.micros(),
            row.confirmed.micros(),
            pack(&held.origins),
            held.bytes,
        ])?;
        Ok(())
    }

    /// Writes the fact under way in parts, or that there is none.
    pub fn put_partial(&self, agent: AgentId, partial: Option<&Partial>) -> Result<(), Error> {
        match partial {
            None => {
                self.prepare("DELETE FROM partials WHERE agent = ?")?.execute([agent.as_bytes()])?;
            }
            Some(partial) => {
                self.prepare(
                    "INSERT INTO partials (agent, observed, digest, count, origins, bytes) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT
             (agent) DO UPDATE SET observed = excluded.observed, digest = excluded.digest, count = excluded.count,
             origins = excluded.origins, bytes = excluded.bytes",
                )?
                .execute(params![
                    agent.as_bytes(),
                    partial.observed.micros(),
                    partial.digest.as_bytes(),
                    partial.count,
                    pack(&partial.origins),
                    partial.bytes,
                ])?;
            }
        }
        Ok(())
    }

    /// Writes the facts about subjects that this build does not know, all that there are.
    pub fn put_opaque(&self, agent: AgentId, facts: &BTreeMap<Number, Held<u64>>) -> Result<(), Error> {
        self.prepare("DELETE FROM opaque_facts WHERE agent = ?")?.execute([agent.as_bytes()])?;
        for (number, held) in facts {
            self.prepare("INSERT INTO opaque_facts (agent, number, observed, bytes, origins) VALUES (?, ?, ?, ?, ?)")?
                .execute(params![
                    agent.as_bytes(),
                    number.number(),
                    held.observed.micros(),
                    held.bytes,
                    pack(&held.origins)
                ])?;
        }
        Ok(())
    }

    /// Writes a verdict that holds from an entry on.
    pub fn put_verdict(&self, agent: AgentId, row: &VerdictRow) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO verdicts (agent, control, verdict, reason, since, judged_at, turn_at, turn_verdict, turn_reason)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent, control) DO UPDATE SET verdict = excluded.verdict,
             reason = excluded.reason, since = excluded.since, judged_at = excluded.judged_at, turn_at =
             excluded.turn_at, turn_verdict = excluded.turn_verdict, turn_reason = excluded.turn_reason",
        )?
        .execute(params![
            agent.as_bytes(),
            row.control,
            row.verdict.as_str(),
            row.reason,
            row.since.map(Timestamp::micros),
            row.judged_at.micros(),
            row.turn.as_ref().map(|(at, _, _)| at.micros()),
            row.turn.as_ref().map(|(_, verdict, _)| verdict.as_str()),
            row.turn.as_ref().map(|(_, _, reason)| reason),
        ])?;
        Ok(())
    }

    /// Writes a verdict that is another one than before to the history. `at` is the entry at which it was found, and its place
    /// among those found there: what time brought before the entry comes before what the entry brought. Of a control of an agent the
    /// newest [`HISTORY_KEPT`] are kept.
    pub fn put_history(&self, agent: AgentId, row: &VerdictRow, at: (u64, u64), version: &str) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO verdict_history (agent, control, at_index, step, judged_at, verdict, reason, since,
             catalogue_version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent, control, at_index, step) DO UPDATE
             SET judged_at = excluded.judged_at, verdict = excluded.verdict, reason = excluded.reason, since =
             excluded.since, catalogue_version = excluded.catalogue_version",
        )?
        .execute(params![
            agent.as_bytes(),
            row.control,
            sql(at.0),
            sql(at.1),
            row.judged_at.micros(),
            row.verdict.as_str(),
            row.reason,
            row.since.map(Timestamp::micros),
            version,
        ])?;
        let dropped = self
            .prepare(
                "DELETE FROM verdict_history WHERE agent = ?1 AND control = ?2 AND (at_index, step) < (SELECT at_index, step
                 FROM verdict_history WHERE agent = ?1 AND control = ?2 ORDER BY at_index DESC, step DESC LIMIT 1 OFFSET ?3)",
            )?
            .execute(params![agent.as_bytes(), row.control, sql(HISTORY_KEPT - 1)])?;
        self.count_dropped(agent, "verdict_history", dropped)
    }

    fn count_dropped(&self, agent: AgentId, rows_of: &str, count: usize) -> Result<(), Error> {
        if count > 0 {
            self.prepare(
                "INSERT INTO dropped (agent, rows_of, count) VALUES (?, ?, ?) ON CONFLICT (agent, rows_of) DO UPDATE
                 SET count = dropped.count + excluded.count",
            )?
            .execute(params![agent.as_bytes(), rows_of, sql(count as u64)])?;
        }
        Ok(())
    }

    /// Takes away the verdict of a control that there is no longer.
    pub fn end_verdict(&self, agent: AgentId, control: &str) -> Result<(), Error> {
        self.prepare("DELETE FROM verdicts WHERE agent = ? AND control = ?")?
            .execute(params![agent.as_bytes(), control])?;
        Ok(())
    }

    /// Writes what an agent did not observe, or did not keep.
    pub fn put_gap(&self, agent: AgentId, row: &GapRow) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO gaps (agent, log_index, received, epoch, seq, cause, start_time, end_time, lost_first,
             lost_last, counts, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (agent, log_index) DO NOTHING",
        )?
        .execute(params![
            agent.as_bytes(),
            sql(row.log_index),
            row.received.micros(),
            row.epoch.as_bytes(),
            sql(row.seq),
            row.cause,
            row.start.micros(),
            row.end.micros(),
            row.lost.map(|(first, _)| sql(first)),
            row.lost.map(|(_, last)| sql(last)),
            serde_json::to_string(&row.counts).expect("texts and numbers are JSON"),
            row.detail,
        ])?;
        Ok(())
    }

    /// Writes the entry that put a catalogue in force.
    pub fn put_catalogue(&self, index: u64, digest: Digest, entry: &[u8]) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO catalogues (log_index, digest, entry) VALUES (?, ?, ?) ON CONFLICT (log_index) DO NOTHING",
        )?
        .execute(params![sql(index), digest.as_bytes(), entry])?;
        Ok(())
    }

    /// Writes an entry that says who is who, as it is.
    pub fn put_member(&self, index: u64, entry: &[u8]) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO members (log_index, entry) VALUES (?, ?) ON CONFLICT (log_index) DO UPDATE SET entry =
             excluded.entry",
        )?
        .execute(params![sql(index), entry])?;
        Ok(())
    }

    /// Writes that a snapshot was handed out.
    pub fn put_snapshot(&self, row: &super::SnapshotRow) -> Result<(), Error> {
        self.prepare(
            "INSERT INTO snapshots (log_index, id, digest, hosts, time, actor) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT
             (log_index) DO UPDATE SET id = excluded.id, digest = excluded.digest, hosts = excluded.hosts, time =
             excluded.time, actor = excluded.actor",
        )?
        .execute(params![
            sql(row.log_index),
            row.id,
            row.digest.as_bytes(),
            sql(row.hosts),
            row.time.micros(),
            row.actor
        ])?;
        Ok(())
    }

    /// Writes that an entry was passed over, and why.
    pub fn put_bad_entry(&self, index: u64, what: &str) -> Result<(), Error> {
        let what = muster_proto::fact::Text::cut(what, BAD_ENTRY_BYTES);
        self.prepare(
            "INSERT INTO bad_entries (log_index, what) VALUES (?, ?) ON CONFLICT (log_index) DO UPDATE SET what =
             excluded.what",
        )?
        .execute(params![sql(index), what.as_str()])?;
        Ok(())
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.transaction
    }

    pub(super) fn prepare(&self, text: &str) -> Result<rusqlite::CachedStatement<'_>, Error> {
        Ok(self.transaction.prepare_cached(text)?)
    }
}

/// Returns a number as SQLite stores it. Positions and sequences stay below 2^62; what an entry claims beyond that is held there.
pub(super) fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the id of a head's epoch as bytes, for keys.
pub(super) fn epoch_bytes(epoch: &Epoch) -> &[u8] {
    epoch.as_bytes()
}

/// Returns the digest of an empty fact set.
pub fn empty_set() -> Digest {
    muster_proto::fact_set::digest_of(std::iter::empty())
}
