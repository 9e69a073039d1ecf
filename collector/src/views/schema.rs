//! The tables, and whether a file has them.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, Origin, STATEMENTS};

/// Grows with each change of the tables or of what is written into them.
const VERSION: i64 = 1;

/// Times are microseconds since 1970, indexes are positions in the log, agents are 16 bytes.
pub(super) const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE agents (
    agent BLOB PRIMARY KEY, state INTEGER NOT NULL, enrolled_index INTEGER, enrolled_time INTEGER,
    epoch BLOB, set_digest BLOB NOT NULL,
    broken_index INTEGER, broken_time INTEGER, broken_detail TEXT,
    judged_at INTEGER NOT NULL,
    agent_version TEXT NOT NULL, hostname TEXT NOT NULL, os_id TEXT NOT NULL, os_version TEXT NOT NULL, host_class TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE agent_states (
    agent BLOB NOT NULL, from_index INTEGER NOT NULL, from_time INTEGER NOT NULL, state INTEGER NOT NULL,
    PRIMARY KEY (agent, from_index)
) WITHOUT ROWID;
CREATE TABLE breaks (
    agent BLOB NOT NULL, from_index INTEGER NOT NULL, from_time INTEGER NOT NULL, to_index INTEGER, to_time INTEGER,
    detail TEXT NOT NULL, PRIMARY KEY (agent, from_index)
) WITHOUT ROWID;
CREATE TABLE heads (
    agent BLOB NOT NULL, epoch BLOB NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL, log_index INTEGER NOT NULL,
    run_seq INTEGER NOT NULL, PRIMARY KEY (agent, epoch)
) WITHOUT ROWID;
CREATE TABLE runs (
    agent BLOB NOT NULL, epoch BLOB NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    first_index INTEGER NOT NULL, last_index INTEGER NOT NULL, first_time INTEGER NOT NULL, last_time INTEGER NOT NULL,
    observed INTEGER NOT NULL, through INTEGER NOT NULL, skew_millis INTEGER NOT NULL, looks BLOB NOT NULL,
    PRIMARY KEY (agent, epoch, first_seq)
) WITHOUT ROWID;
CREATE TABLE facts (
    agent BLOB NOT NULL, subject TEXT NOT NULL, from_index INTEGER NOT NULL, from_time INTEGER NOT NULL,
    to_index INTEGER, to_time INTEGER, observed INTEGER NOT NULL, confirmed INTEGER NOT NULL, origins BLOB NOT NULL,
    bytes BLOB NOT NULL, PRIMARY KEY (agent, subject, from_index)
);
CREATE TABLE partials (
    agent BLOB PRIMARY KEY, observed INTEGER NOT NULL, digest BLOB NOT NULL, count INTEGER NOT NULL, origins BLOB NOT NULL,
    bytes BLOB NOT NULL
);
CREATE TABLE verdicts (
    agent BLOB NOT NULL, control TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL, since INTEGER,
    judged_at INTEGER NOT NULL, turn_at INTEGER, turn_verdict TEXT, turn_reason TEXT, PRIMARY KEY (agent, control)
) WITHOUT ROWID;
CREATE TABLE verdict_history (
    agent BLOB NOT NULL, control TEXT NOT NULL, at_index INTEGER NOT NULL, judged_at INTEGER NOT NULL, verdict TEXT NOT NULL,
    reason TEXT NOT NULL, since INTEGER, catalogue_version TEXT NOT NULL, PRIMARY KEY (agent, control, at_index)
) WITHOUT ROWID;
CREATE TABLE members (log_index INTEGER PRIMARY KEY, entry BLOB NOT NULL);
CREATE TABLE snapshots (
    log_index INTEGER PRIMARY KEY, id TEXT NOT NULL, digest BLOB NOT NULL, hosts INTEGER NOT NULL, time INTEGER NOT NULL,
    actor TEXT NOT NULL
);
CREATE TABLE bad_entries (log_index INTEGER PRIMARY KEY, what TEXT NOT NULL);
";

/// Opens the views, if they are usable as they are; else says why not.
pub(super) fn open(path: &Path, origin: &Origin, log_size: u64) -> Result<Connection, String> {
    if !path.exists() {
        return Err("there are none".to_owned());
    }
    let said = |error: rusqlite::Error| error.to_string();
    let connection = Connection::open(path).map_err(said)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(said)?;
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
    if text("catalogue")? != Some(origin.catalogue.to_string()) {
        return Err("other controls judged them".to_owned());
    }
    let applied: i64 =
        connection.query_row("SELECT value FROM meta WHERE name = 'applied'", [], |row| row.get(0)).map_err(said)?;
    if u64::try_from(applied).is_ok_and(|applied| applied > log_size) || applied < 0 {
        return Err(format!("they cover {applied} entries of a log that has {log_size}"));
    }
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(said)?;
    if check != "ok" {
        return Err(format!("they are damaged: {check}"));
    }
    Ok(connection)
}

/// Makes empty views.
pub(super) fn create(path: &Path, origin: &Origin) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    configure(&connection)?;
    connection.execute_batch(&format!("BEGIN; {TABLES}"))?;
    let mut insert = connection.prepare("INSERT INTO meta (name, value) VALUES (?, ?)")?;
    insert.execute(params!["log", origin.log])?;
    insert.execute(params!["catalogue", origin.catalogue.to_string()])?;
    insert.execute(params!["applied", 0_i64])?;
    drop(insert);
    connection.execute_batch(&format!("PRAGMA user_version = {VERSION}; COMMIT"))?;
    Ok(connection)
}

/// WAL, so that readers never wait for the writer. NORMAL, because what a power cut takes is read from the log again.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -32768; PRAGMA journal_size_limit = 67108864;",
    )?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}
