//! Rules of the repository: what may depend on what, and what every file owes its reader.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

mod contract;
mod dependencies;
mod files;
mod settings;
mod watch_sets;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Returns the root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository").to_owned()
}

/// Returns the files of the repository, as git or, in an unpacked archive, the folders list them.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root()).output();
    let mut files = match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8(output.stdout).expect("paths in UTF-8").lines().map(PathBuf::from).collect()
        }
        _ => walk(&root()),
    };
    files.retain(|path| root().join(path).is_file());
    assert!(files.len() > 20, "the repository has more files than {}", files.len());
    files.sort();
    files
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry of the folder").path();
        let name = path.file_name().expect("an entry has a name");
        if path.is_dir() && name != "target" && name != ".git" {
            files.extend(walk(&path));
        } else if path.is_file() {
            files.push(path.strip_prefix(root()).expect("below the root").to_owned());
        }
    }
    files
}

/// Returns the Rust files below `folder`, with their text.
fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let is_rust = |path: &PathBuf| path.starts_with(folder) && path.extension().is_some_and(|ext| ext == "rs");
    files().into_iter().filter(is_rust).map(|path| (path.clone(), text(&path))).collect()
}

/// Returns the text of a file of the repository; bytes that are no text are replaced.
fn text(path: &Path) -> String {
    let bytes = fs::read(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}
