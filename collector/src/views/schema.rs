//! The tables, and whether a file has them.

use std::path::Path;

use muster_proto::{fact::Subject, words::counted};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, Origin, STATEMENTS, dialect, read};

/// Grows with each change of the tables or of what is written into them.
const VERSION: i64 = 7;

/// Times are microseconds since 1970, indexes are positions in the log, agents are 16 bytes. In words that `dialect` translates.
pub(super) const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) CLUSTERED;
CREATE TABLE agents (
    agent BYTES PRIMARY KEY, state BIGINT NOT NULL, enrolled_index BIGINT, enrolled_time BIGINT,
    epoch BYTES, set_digest BYTES NOT NULL,
    broken_index BIGINT, broken_time BIGINT, broken_detail TEXT, mended_time BIGINT,
    judged_at BIGINT NOT NULL,
    agent_version TEXT NOT NULL, hostname TEXT NOT NULL, os_id TEXT NOT NULL, os_version TEXT NOT NULL, host_class TEXT NOT NULL,
    profile_revision BIGINT NOT NULL
) CLUSTERED;
CREATE TABLE agent_states (
    agent BYTES NOT NULL, from_index BIGINT NOT NULL, from_time BIGINT NOT NULL, state BIGINT NOT NULL,
    PRIMARY KEY (agent, from_index)
) CLUSTERED;
CREATE TABLE breaks (
    agent BYTES NOT NULL, from_index BIGINT NOT NULL, from_time BIGINT NOT NULL, to_index BIGINT, to_time BIGINT,
    detail TEXT NOT NULL, PRIMARY KEY (agent, from_index)
) CLUSTERED;
CREATE TABLE heads (
    agent BYTES NOT NULL, epoch BYTES NOT NULL, seq BIGINT NOT NULL, digest BYTES NOT NULL, log_index BIGINT NOT NULL,
    run_seq BIGINT NOT NULL, PRIMARY KEY (agent, epoch)
) CLUSTERED;
CREATE TABLE runs (
    agent BYTES NOT NULL, epoch BYTES NOT NULL, first_seq BIGINT NOT NULL, last_seq BIGINT NOT NULL,
    first_index BIGINT NOT NULL, last_index BIGINT NOT NULL, first_time BIGINT NOT NULL, last_time BIGINT NOT NULL,
    observed BIGINT NOT NULL, through BIGINT NOT NULL, skew_millis BIGINT NOT NULL, looks BYTES NOT NULL,
    PRIMARY KEY (agent, epoch, first_seq)
) CLUSTERED;
CREATE TABLE facts (
    agent BYTES NOT NULL, subject TEXT NOT NULL, from_index BIGINT NOT NULL, from_time BIGINT NOT NULL,
    to_index BIGINT, to_time BIGINT, observed BIGINT NOT NULL, confirmed BIGINT NOT NULL, origins BYTES NOT NULL,
    bytes BYTES NOT NULL, PRIMARY KEY (agent, subject, from_index)
);
CREATE TABLE partials (
    agent BYTES PRIMARY KEY, observed BIGINT NOT NULL, digest BYTES NOT NULL, count BIGINT NOT NULL, origins BYTES NOT NULL,
    bytes BYTES NOT NULL
);
CREATE TABLE opaque_facts (
    agent BYTES NOT NULL, number BIGINT NOT NULL, observed BIGINT NOT NULL, bytes BYTES NOT NULL, origins BYTES NOT NULL,
    PRIMARY KEY (agent, number)
);
CREATE TABLE verdicts (
    agent BYTES NOT NULL, control TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL, since BIGINT,
    judged_at BIGINT NOT NULL, turn_at BIGINT, turn_verdict TEXT, turn_reason TEXT, PRIMARY KEY (agent, control)
) CLUSTERED;
CREATE TABLE verdict_history (
    agent BYTES NOT NULL, control TEXT NOT NULL, at_index BIGINT NOT NULL, step BIGINT NOT NULL, judged_at BIGINT NOT NULL,
    verdict TEXT NOT NULL, reason TEXT NOT NULL, since BIGINT, catalogue_version TEXT NOT NULL,
    PRIMARY KEY (agent, control, at_index, step)
) CLUSTERED;
CREATE TABLE dropped (
    agent BYTES NOT NULL, rows_of TEXT NOT NULL, count BIGINT NOT NULL, PRIMARY KEY (agent, rows_of)
) CLUSTERED;
CREATE TABLE gaps (
    agent BYTES NOT NULL, log_index BIGINT NOT NULL, received BIGINT NOT NULL, epoch BYTES NOT NULL, seq BIGINT NOT NULL,
    cause BIGINT NOT NULL, start_time BIGINT NOT NULL, end_time BIGINT NOT NULL, lost_first BIGINT, lost_last BIGINT,
    counts TEXT NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (agent, log_index)
) CLUSTERED;
CREATE TABLE file_hosts (
    agent BYTES PRIMARY KEY, baseline_id TEXT NOT NULL, baseline_digest TEXT NOT NULL, explained_total BIGINT NOT NULL,
    watched TEXT NOT NULL, changes_told BIGINT NOT NULL, changes_dropped BIGINT NOT NULL, groups_told BIGINT NOT NULL,
    groups_dropped BIGINT NOT NULL, baselines_told BIGINT NOT NULL, baselines_dropped BIGINT NOT NULL
);
CREATE TABLE file_changes (
    agent BYTES NOT NULL, number BIGINT NOT NULL, identity BYTES NOT NULL, path TEXT NOT NULL, kind TEXT NOT NULL,
    set_name TEXT NOT NULL, severity TEXT NOT NULL, before_sha256 TEXT NOT NULL, after_sha256 TEXT NOT NULL,
    after_digest BYTES NOT NULL, detected BIGINT NOT NULL, is_listed BIGINT NOT NULL, change_digest BYTES NOT NULL,
    from_index BIGINT NOT NULL, from_time BIGINT NOT NULL, to_index BIGINT, to_time BIGINT, end_cause BIGINT, end_reason TEXT,
    change_bytes BYTES NOT NULL, PRIMARY KEY (agent, number)
);
CREATE INDEX file_changes_by_path ON file_changes (path, agent, number);
CREATE TABLE file_groups (
    agent BYTES NOT NULL, number BIGINT NOT NULL, source TEXT NOT NULL, package TEXT NOT NULL, version TEXT NOT NULL,
    basis TEXT NOT NULL, changes_total BIGINT NOT NULL, first_detected BIGINT NOT NULL, last_detected BIGINT NOT NULL,
    from_index BIGINT NOT NULL, from_time BIGINT NOT NULL, to_index BIGINT, to_time BIGINT, PRIMARY KEY (agent, number)
) CLUSTERED;
CREATE TABLE file_baselines (
    agent BYTES NOT NULL, number BIGINT NOT NULL, id TEXT NOT NULL, created BIGINT NOT NULL, reason TEXT NOT NULL,
    entries BIGINT NOT NULL, digest TEXT NOT NULL, lost_before BIGINT NOT NULL, from_index BIGINT NOT NULL,
    from_time BIGINT NOT NULL, PRIMARY KEY (agent, number)
) CLUSTERED;
CREATE TABLE acknowledgements (
    agent BYTES NOT NULL, path TEXT NOT NULL, after_digest BYTES NOT NULL, log_index BIGINT NOT NULL, time BIGINT NOT NULL,
    actor TEXT NOT NULL, reason TEXT NOT NULL, reference TEXT NOT NULL, PRIMARY KEY (agent, path, after_digest)
);
CREATE TABLE catalogues (log_index BIGINT PRIMARY KEY, digest BYTES NOT NULL, entry BYTES NOT NULL);
CREATE TABLE members (log_index BIGINT PRIMARY KEY, entry BYTES NOT NULL);
CREATE TABLE snapshots (
    log_index BIGINT PRIMARY KEY, id TEXT NOT NULL, digest BYTES NOT NULL, hosts BIGINT NOT NULL, time BIGINT NOT NULL,
    actor TEXT NOT NULL
);
CREATE TABLE bad_entries (log_index BIGINT PRIMARY KEY, what TEXT NOT NULL);
";

/// Opens the views, if they are usable as they are; else says why not.
pub(super) fn open(path: &Path, origin: &Origin, log_size: u64) -> Result<Connection, String> {
    if !path.exists() {
        return Err("there are none".to_owned());
    }
    let said = |error: rusqlite::Error| error.to_string();
    let connection = Connection::open(path).map_err(said)?;
    let version = dialect::version(&connection).map_err(said)?;
    if version != VERSION {
        return Err(format!("they are of version {version}, not {VERSION}"));
    }
    configure(&connection).map_err(said)?;
    let text = |name: &str| {
        connection
            .query_row("SELECT value FROM meta WHERE name = ?", [name], |row| row.get::<_, String>(0))
            .optional()
            .map_err(said)
    };
    if text("log")?.as_deref() != Some(&origin.log) {
        return Err("they are of another log".to_owned());
    }
    // What another build could not read, this one may, and the other way round.
    if text("subjects")?.as_deref() != Some(&subjects()) {
        return Err("they are of a build that knows other subjects".to_owned());
    }
    let applied = read::applied(&connection).map_err(|error| error.to_string())?;
    if applied > log_size {
        return Err(format!("they cover {} of a log that has {log_size}", counted(applied, "entry")));
    }
    if let Some(damage) = dialect::damage(&connection).map_err(said)? {
        return Err(format!("they are damaged: {damage}"));
    }
    Ok(connection)
}

/// Makes empty views.
pub(super) fn create(path: &Path, origin: &Origin) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    configure(&connection)?;
    connection.execute_batch(&format!("BEGIN; {}", dialect::tables(TABLES)))?;
    let mut insert = connection.prepare("INSERT INTO meta (name, value) VALUES (?, ?)")?;
    insert.execute(params!["log", origin.log])?;
    insert.execute(params!["applied", "0"])?;
    insert.execute(params!["subjects", subjects()])?;
    drop(insert);
    dialect::set_version(&connection, VERSION)?;
    connection.execute_batch("COMMIT")?;
    Ok(connection)
}

/// Returns the subjects that this build knows.
fn subjects() -> String {
    Subject::ALL.map(Subject::as_str).join(" ")
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    dialect::configure_writer(connection)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_of_a_build_that_knows_other_subjects_are_not_usable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("views");
        let origin = Origin { log: "c".to_owned() };
        let connection = create(&path, &origin).unwrap();
        assert!(open(&path, &origin, 0).is_ok());
        connection.execute("UPDATE meta SET value = 'system' WHERE name = 'subjects'", []).unwrap();
        drop(connection);
        assert_eq!(open(&path, &origin, 0).unwrap_err(), "they are of a build that knows other subjects");
    }
}
