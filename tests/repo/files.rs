//! What each file owes its reader, and what none may hold.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::{files, root, rust_files, text};

/// The two commands by which anyone starts.
const COMMANDS: [&str; 2] = ["./deploy/quickstart", "./tests/run"];

#[test]
fn scripts_can_be_run() {
    for path in files() {
        let bytes = fs::read(root().join(&path)).unwrap();
        let mode = fs::metadata(root().join(&path)).unwrap().permissions().mode();
        if bytes.starts_with(b"#!/") {
            assert!(mode & 0o111 == 0o111, "{} begins with #! and is not executable", path.display());
        }
    }
}

#[test]
fn the_readme_names_the_two_commands() {
    let readme = text(Path::new("README.md"));
    for command in COMMANDS {
        assert!(readme.contains(command), "README.md does not mention {command}");
    }
}

#[test]
fn the_two_commands_are_there() {
    for command in COMMANDS {
        assert!(root().join(command).is_file(), "{command} is not there");
    }
}

#[test]
fn no_test_is_skipped_in_silence() {
    let mark = ["#[", "ignore"].concat();
    for (path, text) in rust_files("") {
        assert!(!text.contains(&mark), "{} skips a test", path.display());
    }
}

#[test]
fn every_module_says_what_it_owns() {
    for (path, text) in rust_files("") {
        assert!(text.starts_with("//!"), "{} does not begin with what it owns", path.display());
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    for path in files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "md")) {
        let text = text(&path);
        for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let there = root().join(&path).parent().unwrap().join(target);
            assert!(there.exists(), "{} links to {target}, which is not there", path.display());
        }
    }
}
