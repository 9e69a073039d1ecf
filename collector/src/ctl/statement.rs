//! `controls statement`: a provider's statement, written for an operator's file of controls. Needs no collector.

use std::{io::Read as _, path::Path};

use muster_proto::{
    id::{AgentId, Digest},
    time::Timestamp,
};
use serde::Serialize;

use super::{Error, Outcome, print};
use crate::control::statement::{Kind, Statement};

/// Bytes of a document, at most.
const DOCUMENT_BYTES: u64 = 256 * 1024 * 1024;

/// What is stated.
#[derive(Clone, Copy, Debug)]
pub struct Stated<'a> {
    /// Who states it.
    pub provider: &'a str,
    /// Where.
    pub reference: &'a str,
    /// The document.
    pub document: &'a Path,
    /// Hosts that it speaks of.
    pub hosts: &'a [AgentId],
    /// From when on it holds.
    pub from: Timestamp,
    /// Until when, not included.
    pub until: Timestamp,
}

/// Prints a statement as a file of controls has it.
///
/// # Errors
///
/// When the document cannot be read, or a collector would not take the statement.
pub fn write(stated: &Stated<'_>) -> Result<Outcome, Error> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(stated.document)?.take(DOCUMENT_BYTES + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 {
            0 => Err(std::io::Error::other("it is empty")),
            1..=DOCUMENT_BYTES => Ok(bytes),
            _ => Err(std::io::Error::other("it is larger than any document that is taken")),
        }
    };
    let document = read().map_err(|source| Error::Read { path: stated.document.to_owned(), source })?;
    print::write_out(&text(stated, Digest::of_bytes(&document))?)?;
    Ok(Outcome::Yes)
}

fn text(stated: &Stated<'_>, document_sha256: Digest) -> Result<String, Error> {
    #[derive(Serialize)]
    struct File {
        statement: [Statement; 1],
    }
    let statement = Statement {
        kind: Kind::DiskEncryption,
        provider: stated.provider.to_owned(),
        reference: stated.reference.to_owned(),
        document_sha256,
        hosts: stated.hosts.iter().copied().collect(),
        from: stated.from,
        until: stated.until,
    };
    statement.check().map_err(|why| Error::Usage(format!("no collector takes the statement: {why}")))?;
    Ok(toml::to_string_pretty(&File { statement: [statement] }).expect("a statement is TOML"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Catalogue, trial};

    #[test]
    fn what_is_written_is_taken_by_a_collector() {
        let hosts = [AgentId::new([7; 16]), AgentId::new([8; 16])];
        let stated = Stated {
            provider: "Example \"Cloud\"",
            reference: "contract 7, section 3",
            document: Path::new("none"),
            hosts: &hosts,
            from: "2026-01-01T00:00:00Z".parse().unwrap(),
            until: "2027-01-01T00:00:00Z".parse().unwrap(),
        };
        let text = text(&stated, Digest::of_bytes(b"a document")).unwrap();
        assert!(trial::of_file(&text).is_sound(), "{text}");
        let catalogue = Catalogue::with_overlay(&text).unwrap();
        let statements = &catalogue.control("ENC-01").unwrap().statements;
        assert_eq!((statements.len(), statements[0].provider.as_str()), (1, "Example \"Cloud\""));
        assert_eq!(statements[0].hosts.len(), 2);

        let late = Stated { until: "2030-01-01T00:00:00Z".parse().unwrap(), ..stated };
        let error = super::text(&late, Digest::of_bytes(b"")).unwrap_err();
        assert!(matches!(error, Error::Usage(_)) && error.to_string().contains("400 days"), "{error}");
    }
}
