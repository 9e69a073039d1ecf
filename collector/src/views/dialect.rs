//! What the database at hand calls things by other words than the standard, in one place: another database is another such file.
//!
//! Statements outside of it are ones that SQLite and PostgreSQL both take, but for how each writes a parameter.

use std::time::Duration;

use rusqlite::Connection;

/// How long to wait for another connection's lock.
const BUSY: Duration = Duration::from_secs(5);
/// Words of the tables, and those of SQLite. `CLUSTERED` keeps a table of small rows in the order of its key.
const WORDS: [(&str, &str); 3] = [("BYTES", "BLOB"), ("BIGINT", "INTEGER"), (") CLUSTERED;", ") WITHOUT ROWID;")];

/// Returns `tables` in the words of SQLite.
pub(super) fn tables(tables: &str) -> String {
    WORDS.iter().fold(tables.to_owned(), |text, (word, own)| text.replace(word, own))
}

/// Sets up a connection that writes. WAL, so that readers never wait for the writer. NORMAL, because what a power cut takes is read
/// from the log again.
pub(super) fn configure_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -32768; PRAGMA journal_size_limit = 67108864;",
    )
}

/// Sets up a connection that reads.
pub(super) fn configure_reader(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)
}

/// Returns the version of the tables; 0 where there are none.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Sets the version of the tables.
pub(super) fn set_version(connection: &Connection, version: i64) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("PRAGMA user_version = {version}"))
}

/// Returns what is damaged, if anything is.
pub(super) fn damage(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok(Some(check).filter(|check| check != "ok"))
}
