//! Statements of providers: their word for what no agent can see.
//!
//! An agent in a virtual machine cannot see whether the storage below it is encrypted, and says so: `unknown(hidden)`. Who runs that
//! storage may have stated it, in a contract or a report. An operator puts the statement into the file of controls, and so into the
//! catalogue, which is an entry of the evidence log and in every snapshot: who verifies judges with it again.
//!
//! A statement decides nothing that was observed, and nothing that is unknown for another cause than `hidden`: it only stands in for
//! hidden readings of the hosts that it names, between its two instants, for controls that take it. The verdict then says that it rests
//! on a statement, whose, and of which readings.

use std::{collections::BTreeSet, fmt, time::Duration};

use muster_proto::{
    fact::Subject,
    id::{AgentId, Digest},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// Statements of a file, at most.
const STATEMENTS: usize = 64;
/// Bytes of the name of a provider, at most.
const PROVIDER_BYTES: usize = 128;
/// Bytes of a reference, at most.
const REFERENCE_BYTES: usize = 256;
/// For how long a statement holds, at most: whoever relies on one asks for it again about once a year.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// What a provider stated of hosts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// What it speaks of.
    pub kind: Kind,
    /// Who stated it; 1 to 128 bytes.
    pub provider: String,
    /// Where it is found, such as the number of a contract and its section; 1 to 256 bytes.
    pub reference: String,
    /// SHA-256 of the document, which the operator keeps.
    pub document_sha256: Digest,
    /// Hosts that it speaks of, by full id: what hosts say of themselves does not choose them.
    pub hosts: BTreeSet<AgentId>,
    /// From when on it holds, a whole second.
    pub from: Timestamp,
    /// Until when it holds, not included, a whole second at most 400 days later.
    pub until: Timestamp,
}

/// What statements can speak of.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// All storage below what the host can see is encrypted at rest.
    DiskEncryption,
}

impl Kind {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DiskEncryption => "disk_encryption",
        }
    }

    /// Returns the subject whose hidden readings it stands in for.
    pub fn subject(self) -> Subject {
        match self {
            Self::DiskEncryption => Subject::DiskEncryption,
        }
    }

    /// Returns the name of those readings. What is stated is that they are true.
    pub(super) fn reading(self) -> &'static str {
        match self {
            Self::DiskEncryption => "encrypted",
        }
    }
}

impl Statement {
    /// Checks what it says of itself.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let Self { provider, reference, hosts, from, until, .. } = self;
        for (name, text, most) in [("provider", provider, PROVIDER_BYTES), ("reference", reference, REFERENCE_BYTES)] {
            if text.trim().is_empty() || text.len() > most || text.chars().any(muster_proto::fact::is_unsafe) {
                return Err(format!("its {name} is empty, longer than {most} bytes, or has control characters"));
            }
        }
        if hosts.is_empty() {
            return Err("it names no host".to_owned());
        }
        if *from != from.to_second() || *until != until.to_second() {
            return Err("it does not begin and end at whole seconds".to_owned());
        }
        if until <= from || until.since(*from) > LONGEST {
            let days = LONGEST.as_secs() / 86_400;
            return Err(format!("it ends before it begins, or holds for more than {days} days"));
        }
        Ok(())
    }

    /// Returns whether it speaks of `host` at `now`.
    pub fn covers(&self, host: AgentId, now: Timestamp) -> bool {
        self.from <= now && now < self.until && self.hosts.contains(&host)
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { provider, reference, document_sha256, from, until, .. } = self;
        write!(f, "{provider} ({reference}, sha256:{document_sha256}, from {from} until {until})")
    }
}

/// Checks the statements of a file. Says which is wrong, from 1, and why.
pub(super) fn check(statements: &[Statement]) -> Result<(), (usize, String)> {
    if statements.len() > STATEMENTS {
        return Err((STATEMENTS + 1, format!("at most {STATEMENTS} have a place in a file")));
    }
    statements.iter().enumerate().try_for_each(|(index, statement)| statement.check().map_err(|why| (index + 1, why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        Statement {
            kind: Kind::DiskEncryption,
            provider: "Example Cloud".to_owned(),
            reference: "contract 7, section 3".to_owned(),
            document_sha256: Digest::of_bytes(b"a document"),
            hosts: [AgentId::new([7; 16])].into(),
            from: "2026-01-01T00:00:00Z".parse().unwrap(),
            until: "2027-01-01T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_statement_names_who_of_what_and_for_how_long() {
        assert_eq!(check(&[statement()]), Ok(()));
        let wrong = |change: &dyn Fn(&mut Statement)| {
            let mut changed = statement();
            change(&mut changed);
            check(&[statement(), changed]).unwrap_err()
        };
        for (change, why) in [
            (&(|it: &mut Statement| it.provider.clear()) as &dyn Fn(&mut Statement), "provider is empty"),
            (&|it| it.reference = "x".repeat(257), "reference is empty, longer than 256"),
            (&|it| it.provider = "a\u{202e}b".to_owned(), "control characters"),
            (&|it| it.hosts.clear(), "no host"),
            (&|it| it.until = it.from, "ends before it begins"),
            (&|it| it.until = it.from.plus(LONGEST + Duration::from_secs(1)), "more than 400 days"),
            (&|it| it.from = it.from.plus(Duration::from_millis(1)), "whole seconds"),
        ] {
            let (number, said) = wrong(change);
            assert!(number == 2 && said.contains(why), "{said}");
        }
        assert_eq!(check(&vec![statement(); STATEMENTS]), Ok(()));
        assert_eq!(check(&vec![statement(); STATEMENTS + 1]).unwrap_err().0, STATEMENTS + 1);
    }

    #[test]
    fn it_holds_from_its_first_instant_to_before_its_last() {
        let (it, host) = (statement(), AgentId::new([7; 16]));
        let second = Duration::from_secs(1);
        for (now, covers) in
            [(it.from.minus(second), false), (it.from, true), (it.until.minus(second), true), (it.until, false)]
        {
            assert_eq!(it.covers(host, now), covers, "{now}");
        }
        assert!(!it.covers(AgentId::new([8; 16]), it.from));
    }
}
