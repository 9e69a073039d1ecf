//! The example settings parse, name every key, and show the defaults that hold.

use std::path::Path;

use muster_collector::{config::Variables, profile::Profiles};
use muster_proto::watch_set::WatchSet;
use toml::{Table, Value};

use crate::{root, text};

/// Returns an example with every key that stands behind `#` put in force.
fn in_force(example: &str) -> String {
    let is_setting = |line: &str| {
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        line.starts_with('[') || (!key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let lines = example.lines().map(|line| line.strip_prefix('#').filter(|rest| is_setting(rest)).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the path of every key of `table`, such as `log.format`.
fn keys(table: &Table, prefix: &str) -> Vec<String> {
    let below = |(key, value): (&String, &Value)| match value {
        Value::Table(inner) => keys(inner, &format!("{prefix}{key}.")),
        _ => vec![format!("{prefix}{key}")],
    };
    table.iter().flat_map(below).collect()
}

fn check_keys(config: &impl serde::Serialize, example: &str) {
    let shown = keys(&example.parse().unwrap(), "");
    for key in keys(&Table::try_from(config).unwrap(), "") {
        assert!(shown.contains(&key), "the example does not name {key}");
    }
}

fn load_agent(path: &Path) -> muster_agent::config::Config {
    muster_agent::config::load(Some(path), std::iter::empty()).unwrap().config
}

#[test]
fn the_agents_example_shows_every_key_with_its_default() {
    let defaults = muster_agent::config::Config::default();
    assert_eq!(load_agent(&root().join("deploy/config/agent.toml")), defaults, "as it is installed");

    let example = in_force(&text(Path::new("deploy/config/agent.toml")));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, &example).unwrap();
    let mut shown = load_agent(&file);
    assert!(shown.collector.take().is_some(), "the one key without a default is shown by an example");
    let sets = std::mem::take(&mut shown.probes.watch_sets);
    assert_eq!(shown, defaults);
    let [set] = &sets[..] else { panic!("one set is shown") };
    let bare = WatchSet { exclude: set.exclude.clone(), ..WatchSet::of_paths(&set.name, set.paths.clone()) };
    assert_eq!(*set, bare, "each key of a set is shown with its default");
    for key in Table::try_from(set).unwrap().keys() {
        assert!(example.lines().any(|line| line.starts_with(&format!("{key} = "))), "the example does not name {key}");
    }
    check_keys(&defaults, &example);
}

#[test]
fn the_collectors_example_shows_every_key_with_its_default() {
    let path = Path::new("deploy/config/collector.toml");
    let parse = |text: &str| muster_collector::config::Config::parse(path, text, &Variables::default()).unwrap();
    let as_installed = parse(&text(path));
    let example = in_force(&text(path));
    let mut shown = parse(&example);
    assert!(shown.catalogue.take().is_some(), "a key without a default is shown by an example");
    assert!(shown.profiles.take().is_some(), "a key without a default is shown by an example");
    assert_eq!(shown, as_installed);
    check_keys(&as_installed, &example);
}

#[test]
fn the_example_of_profiles_is_taken_by_both_ends() {
    let text = text(Path::new("deploy/config/profiles.toml"));
    Profiles::parse(&text).unwrap();
    let table: Table = text.parse().unwrap();
    let mut seen = 0;
    for profile in table["profile"].as_array().unwrap() {
        let sets: Vec<WatchSet> = profile["watch_sets"].clone().try_into().unwrap();
        muster_agent::fim::sets::Sets::new(&sets).unwrap();
        seen += sets.len();
    }
    assert!(seen > 0, "the example has no watch set");
}
