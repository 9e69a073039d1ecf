//! A digest over every table, so that views that were followed live can be compared with views made again from the log.

use muster_proto::id::Digest;
use rusqlite::{Connection, types::ValueRef};
use sha2::{Digest as _, Sha256};

use super::{Error, Views};

/// Each table and the columns that order its rows.
const TABLES: [(&str, &str); 22] = [
    ("meta", "name"),
    ("agents", "agent"),
    ("agent_states", "agent, from_index"),
    ("breaks", "agent, from_index"),
    ("heads", "agent, epoch"),
    ("runs", "agent, epoch, first_seq"),
    ("facts", "agent, subject, from_index"),
    ("partials", "agent"),
    ("opaque_facts", "agent, number"),
    ("verdicts", "agent, control"),
    ("verdict_history", "agent, control, at_index, step"),
    ("dropped", "agent, rows_of"),
    ("gaps", "agent, log_index"),
    ("file_hosts", "agent"),
    ("file_changes", "agent, number"),
    ("file_groups", "agent, number"),
    ("file_baselines", "agent, number"),
    ("acknowledgements", "agent, path, after_digest"),
    ("catalogues", "log_index"),
    ("members", "log_index"),
    ("snapshots", "log_index"),
    ("bad_entries", "log_index"),
];

impl Views {
    /// Returns a digest of everything in the views. Two views of the same log and catalogue have the same.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn digest(&self) -> Result<Digest, Error> {
        self.read(|connection| {
            let mut hash = Sha256::new();
            for (table, order) in TABLES {
                add(connection, &mut hash, table, order)?;
            }
            Ok(Digest::new(hash.finalize().into()))
        })
    }

    /// Returns every row of every table as text, to see where two views differ.
    ///
    /// # Errors
    ///
    /// The database's.
    pub fn dump(&self) -> Result<Vec<String>, Error> {
        self.read(|connection| {
            let mut lines = Vec::new();
            for (table, order) in TABLES {
                let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY {order}"))?;
                let columns = statement.column_count();
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    let mut line = table.to_owned();
                    for column in 0..columns {
                        match row.get_ref(column)? {
                            ValueRef::Blob(bytes) => line.push_str(&format!(" {}", hex::encode(bytes))),
                            ValueRef::Text(text) => line.push_str(&format!(" {:?}", String::from_utf8_lossy(text))),
                            value => line.push_str(&format!(" {value:?}")),
                        }
                    }
                    lines.push(line);
                }
            }
            Ok(lines)
        })
    }
}

fn add(connection: &Connection, hash: &mut Sha256, table: &str, order: &str) -> Result<(), Error> {
    hash.update(table.as_bytes());
    let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY {order}"))?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            // A tag and a length before each value, so that no two rows have one spelling.
            let (tag, bytes): (u8, &[u8]) = match row.get_ref(column)? {
                ValueRef::Null => (0, &[]),
                ValueRef::Integer(number) => {
                    hash.update([1]);
                    hash.update(number.to_be_bytes());
                    continue;
                }
                ValueRef::Real(_) => return Err(Error::Garbled("a table")),
                ValueRef::Text(text) => (2, text),
                ValueRef::Blob(bytes) => (3, bytes),
            };
            hash.update([tag]);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
    }
    Ok(())
}
