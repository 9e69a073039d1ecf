//! The same capture gives the same bytes, on every run and every system.

use std::{fmt::Write as _, fs, path::Path};

use muster_proto::fact::{Fact, Reading, Text};
use sha2::{Digest as _, Sha256};

use super::faults::Case;

/// Returns the SHA-256 of the facts of a look, encoded one after the other.
fn digest(case: &Case) -> String {
    let mut hash = Sha256::new();
    let memory = case.memory();
    for mut fact in case.look(&case.host, memory.path(), case.at(0)) {
        // Of this build, and of nothing that was captured.
        if let Fact::Agent(Reading::Known(agent)) = &mut fact {
            agent.version = Text::new("0.0.0");
        }
        hash.update(fact.encode());
    }
    hex::encode(hash.finalize())
}

#[test]
fn a_capture_gives_the_same_bytes_whatever_the_order_of_folders() {
    for mut case in Case::all() {
        let before = digest(&case);
        case.host.index_mut().lists.values_mut().for_each(|names| names.reverse());
        assert_eq!(digest(&case), before, "{}", case.name);
    }
}

/// The table is of no one machine: a digest that changes only elsewhere is a reading that depends on where it is taken.
#[test]
fn a_capture_gives_the_bytes_that_it_gave_before() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digests.txt");
    let mut found = String::new();
    for case in Case::all() {
        writeln!(found, "{}  {}", digest(&case), case.name).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} should be, if the facts were meant to change:\n{found}", path.display());
}
