//! The sets that are in force where settings and profile name none.

use std::sync::LazyLock;

use muster_proto::fact::HostClass;
use serde::Deserialize;

use super::WatchSet;
use crate::{
    host::Host,
    probe::{self, system},
};

/// Name of the set that a plain list of paths makes.
pub const PATHS: &str = "paths";

/// The file beside this one, which says why each set is as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    every: Vec<WatchSet>,
    server: Vec<WatchSet>,
    personal: Vec<WatchSet>,
}

static DEFAULTS: LazyLock<Defaults> =
    LazyLock::new(|| toml::from_str(include_str!("default.toml")).expect("a test parses the file"));

/// Returns the default sets of a host of `class`; one whose class cannot be told is taken for a server, of which more is watched.
pub fn defaults(class: Option<HostClass>) -> Vec<WatchSet> {
    let own = match class {
        Some(HostClass::Laptop | HostClass::Desktop) => &DEFAULTS.personal,
        Some(HostClass::Server | HostClass::Vm | HostClass::Container) | None => &DEFAULTS.server,
    };
    DEFAULTS.every.iter().chain(own).cloned().collect()
}

/// Returns the sets in force under `settings`, of which checked ones do not name both sets and paths.
pub fn in_force(settings: &probe::Settings, host: &dyn Host) -> Vec<WatchSet> {
    if !settings.watch_sets.is_empty() {
        return settings.watch_sets.clone();
    }
    if !settings.watched_paths.is_empty() {
        return vec![WatchSet::of_paths(PATHS, settings.watched_paths.clone())];
    }
    defaults(system::host_class(host).known().copied())
}
