//! The default watch sets of agents, and the control that accepts them.

use std::{collections::BTreeSet, ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

use muster_agent::fim::sets;
use muster_collector::control::Catalogue;
use muster_proto::fact::HostClass;

/// FIM-01 accepts sets that leave something out by their digests: another default set is another digest.
#[test]
fn fim_01_accepts_the_default_watch_sets_of_every_class_of_host_and_no_others() {
    let classes = [None, Some(HostClass::Server), Some(HostClass::Laptop)];
    let defaults: BTreeSet<String> =
        classes.into_iter().flat_map(sets::defaults).map(|set| set.digest().to_string()).collect();
    let catalogue = Catalogue::built_in();
    let control = catalogue.control("FIM-01").expect("a built-in control");
    let accepted = control.parameters["accepted_sets"].as_array().expect("a list");
    let accepted: BTreeSet<String> =
        accepted.iter().map(|digest| digest.as_str().expect("a text").to_owned()).collect();
    assert_eq!(accepted, defaults);
}

/// What a required path is met by is told by watched paths, and a path is watched by patterns alone where each set of it names some.
#[test]
fn fim_01_knows_the_paths_of_which_the_default_watch_sets_cover_patterns_alone() {
    let catalogue = Catalogue::built_in();
    let control = catalogue.control("FIM-01").expect("a built-in control");
    let named = control.parameters["patterns_only"].as_array().expect("a list");
    let named: BTreeSet<PathBuf> = named.iter().map(|path| path.as_str().expect("a text").into()).collect();
    for class in [None, Some(HostClass::Server), Some(HostClass::Laptop)] {
        let sets = sets::defaults(class);
        let paths = |by_pattern: bool| {
            sets.iter().filter(move |set| set.include.is_empty() != by_pattern).flat_map(|set| set.plain_paths())
        };
        let others: Vec<PathBuf> = paths(false).map(|path| OsString::from_vec(path).into()).collect();
        let by_pattern = paths(true).map(|path| PathBuf::from(OsString::from_vec(path)));
        let alone: BTreeSet<_> =
            by_pattern.filter(|path| !others.iter().any(|other| path.starts_with(other))).collect();
        assert_eq!(alone, named, "{class:?}");
    }
}
