//! Views of the evidence log: what is current, what was, and where in the log it stands. The only module that knows SQL.
//!
//! Views are a function of the log alone, which also says what judges. They can be thrown away and made again; a file that is damaged, is of
//! another version, or does not belong to the log is. The log position that they cover is committed with them, so that
//! applying entries twice is applying them once. Nothing here knows a clock or judges anything.

mod as_of;
mod dialect;
mod digest;
mod files;
mod read;
mod rows;
mod schema;
mod write;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, OpenFlags};

pub use as_of::{Entries, FactAsOf, HostAsOf, LastReport, confirmation};
pub use files::{
    AcknowledgementRow, BASELINES_KEPT, BaselineRow, CHANGES_KEPT, Cursor, FileChangeRow, FileEnd, FileHost,
    FilesDropped, GROUPS_KEPT, GroupRow, LastingChange, NewChange, Tally, Watched,
};
pub use read::{FactRow, GapRow, HostRow, SnapshotRow, VerdictRow};
pub use rows::{AgentRow, Broken, Head, HostState, Look, Looks, Partial, Run};
pub use write::{BREAKS_KEPT, Batch, HISTORY_KEPT, Writer, empty_set};

/// Connections for reading that are kept open, at most.
const READERS: usize = 8;
/// Statements that each connection keeps prepared.
const STATEMENTS: usize = 64;

/// Views cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused.
    #[error("views cannot be {what}")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file cannot be replaced.
    #[error("failed to remove the views {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row does not hold what this program wrote.
    #[error(
        "views hold a row of {0} that this program did not write: remove the file, and they are made again from the log"
    )]
    Garbled(&'static str),
    /// The log could not be read.
    #[error("failed to read the log for the views")]
    Log {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// More was asked for than the views cover.
    #[error("views cover {covered} entries of the log, not {asked}")]
    NotCovered {
        /// What was asked for.
        asked: u64,
        /// What they cover.
        covered: u64,
    },
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        Self::Sql { what: "read or written", source }
    }
}

/// What views must belong to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    /// Name of the log.
    pub log: String,
}

/// The views, for reading. Cheap to clone. Its functions block: call them from the blocking pool.
#[derive(Clone, Debug)]
pub struct Views(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Views {
    /// Opens the views at `path` and the one writer to them. A file that is unusable, of another version or another origin, or
    /// ahead of a log of `log_size` entries, is made anew and empty.
    ///
    /// # Errors
    ///
    /// When the file can be neither opened nor replaced.
    pub fn open(path: &Path, origin: &Origin, log_size: u64) -> Result<(Self, Writer), Error> {
        let (connection, made_anew) = match schema::open(path, origin, log_size) {
            Ok(connection) => (connection, None),
            Err(why) => {
                if path.exists() {
                    tracing::warn!(path = %path.display(), %why, "views are made again from the log");
                }
                remove(path)?;
                (schema::create(path, origin)?, Some(why))
            }
        };
        let inner = Inner { path: path.to_owned(), idle: Mutex::new(Vec::new()) };
        Ok((Self(Arc::new(inner)), Writer::new(connection, made_anew)?))
    }

    /// Calls `f` with a connection that sees one state of the views.
    fn read<T>(&self, f: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let connection = match self.idle().pop() {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(&self.0.path, flags)?;
                dialect::configure_reader(&connection)?;
                connection.set_prepared_statement_cache_capacity(STATEMENTS);
                connection
            }
        };
        connection.execute_batch("BEGIN DEFERRED")?;
        let result = f(&connection);
        connection.execute_batch("COMMIT")?;
        let mut idle = self.idle();
        if idle.len() < READERS {
            idle.push(connection);
        }
        result
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns how many entries of the log named `log` the views at `path` cover; `None` when there are none of it, or none that can
/// be read. They cover nothing that was not under a durable checkpoint, so a log that has fewer entries was put back.
pub fn known_size(path: &Path, log: &str) -> Option<u64> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX).ok()?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).ok()?;
    let of_log = "SELECT a.value FROM meta a, meta l WHERE a.name = 'applied' AND l.name = 'log' AND l.value = ?";
    connection.query_row(of_log, [log], |row| row.get::<_, String>(0)).ok()?.parse().ok()
}

pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let path = PathBuf::from(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(Error::Remove { path, source }),
            _ => {}
        }
    }
    Ok(())
}

/// Runs `statements` on the file at `path` behind the back of the views, so that tests can damage it.
#[cfg(test)]
pub(crate) fn run_statements(path: &Path, statements: &str) {
    Connection::open(path).unwrap().execute_batch(statements).unwrap();
}
