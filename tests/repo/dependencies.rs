//! Which package may depend on which, and which module may know what.

use std::{collections::BTreeMap, fs, process::Command};

use super::{root, rust_files};

/// Who may depend on these packages; a package not named here is free for all.
const GUARDED: &[(&str, &[&str])] = &[
    ("sled", &["muster-collector"]),
    ("rusqlite", &["muster-collector"]),
    ("cel", &["muster-collector"]),
    ("sysinfo", &["muster-agent"]),
    ("notify", &["muster-agent"]),
    ("muster-agent", &["muster-tests"]),
    ("muster-collector", &["muster-tests"]),
    ("muster-proto", &["muster-agent", "muster-collector", "muster-tests"]),
    ("muster-tests", &[]),
];

/// Packages that no build of ours may contain: one cryptographic library is enough to watch.
const BANNED: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls"];

/// Words that only these files may contain. A path ends with `/` when it stands for all below it.
const CONFINED: &[(&str, &str, &[&str])] = &[
    ("collector/src/", "sled::", &["collector/src/inbox.rs", "collector/src/inbox/"]),
    ("collector/src/", "rusqlite::", &["collector/src/views.rs", "collector/src/views/"]),
    ("agent/src/", "sysinfo::", &["agent/src/host.rs", "agent/src/host/"]),
    ("agent/src/", "notify::", &["agent/src/watch.rs", "agent/src/watch/"]),
    ("agent/src/", "unsafe {", &["agent/src/host/live.rs", "agent/src/host/live/"]),
    ("collector/src/", "unsafe {", &[]),
    ("proto/src/", "unsafe {", &[]),
];

/// Modules that know no transport, so that it can be replaced.
const WITHOUT_TONIC: &[&str] = &[
    "agent/src/probe",
    "agent/src/host",
    "agent/src/report",
    "agent/src/schedule",
    "agent/src/spool",
    "collector/src/control",
    "collector/src/inbox",
    "collector/src/judge",
    "collector/src/query/filter",
    "collector/src/query/page",
    "collector/src/snapshot/verify",
    "collector/src/views",
];

#[test]
fn packages_depend_in_one_direction() {
    let metadata = metadata();
    let names = names(&metadata);
    for node in nodes(&metadata) {
        let dependant = names[node["id"].as_str().unwrap()];
        for dependency in node["deps"].as_array().unwrap() {
            let dependency = names[dependency["pkg"].as_str().unwrap()];
            if let Some((_, allowed)) = GUARDED.iter().find(|(guarded, _)| *guarded == dependency) {
                assert!(allowed.contains(&dependant), "{dependant} must not depend on {dependency}");
            }
        }
    }
}

/// The targets of fuzzing are a workspace of their own, whose lock nobody meets who does not fuzz.
#[test]
fn the_lock_of_the_fuzz_targets_has_what_our_packages_need() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap().parse::<toml::Table>().unwrap();
    let lock = read("tests/fuzz/Cargo.lock");
    for folder in ["agent", "collector", "proto", "tests"] {
        let manifest = read(&format!("{folder}/Cargo.toml"));
        let is_it = |package: &&toml::Value| package["name"] == manifest["package"]["name"];
        let locked = lock["package"].as_array().unwrap().iter().find(is_it).unwrap();
        let locked: Vec<_> =
            locked["dependencies"].as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
        for needed in manifest["dependencies"].as_table().unwrap().keys() {
            // With a version where there are several of that name.
            let is_there = locked.iter().any(|locked| locked.split(' ').next() == Some(needed));
            assert!(is_there, "{folder}: {needed}: cargo update -w --manifest-path tests/fuzz/Cargo.toml");
        }
    }
}

#[test]
fn no_second_cryptographic_library_is_built() {
    // Not from the metadata: those list packages that an optional feature names and no build takes.
    let tree = cargo(&["tree", "--workspace", "--prefix", "none", "--format", "{p}", "--locked", "--offline"]);
    let banned: Vec<_> =
        tree.lines().filter(|line| line.split(' ').next().is_some_and(|name| BANNED.contains(&name))).collect();
    assert!(tree.contains("aws-lc-rs"), "the tree lists no cryptographic library at all:\n{tree}");
    assert!(banned.is_empty(), "{banned:?}");
}

#[test]
fn what_is_confined_stays_in_its_module() {
    for (folder, word, allowed) in CONFINED {
        for (path, text) in rust_files(folder) {
            let path = path.display().to_string();
            let is_allowed =
                allowed.iter().any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)));
            let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let user = code.find(|line| mentions(line, word));
            assert!(is_allowed || user.is_none(), "{path} must not use {word}: {}", user.unwrap_or_default());
        }
    }
}

#[test]
fn decisions_and_stores_know_no_transport() {
    for (path, text) in rust_files("agent/src").into_iter().chain(rust_files("collector/src")) {
        let module = path.with_extension("").display().to_string();
        let is_guarded = WITHOUT_TONIC
            .iter()
            .any(|guarded| module.strip_prefix(guarded).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        assert!(!is_guarded || !mentions(&text, "tonic::"), "{} must not know tonic", path.display());
    }
}

#[test]
fn a_word_is_found_only_as_a_whole() {
    assert!(mentions("use sled::Db;", "sled::"));
    assert!(!mentions("use shackled::Db;", "sled::"));
}

/// Returns whether `text` has `word` and no letter, digit or `_` before it.
fn mentions(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn metadata() -> serde_json::Value {
    let target = ["--filter-platform", "x86_64-unknown-linux-gnu"];
    let text = cargo(&[["metadata", "--format-version", "1", "--locked", "--offline"].as_slice(), &target].concat());
    serde_json::from_str(&text).expect("cargo prints JSON")
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(args).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn nodes(metadata: &serde_json::Value) -> &Vec<serde_json::Value> {
    metadata["resolve"]["nodes"].as_array().expect("a resolved graph")
}

fn names(metadata: &serde_json::Value) -> BTreeMap<&str, &str> {
    let packages = metadata["packages"].as_array().expect("packages");
    packages.iter().map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap())).collect()
}
