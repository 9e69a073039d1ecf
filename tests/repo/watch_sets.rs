//! The default watch sets of agents, and the control that accepts them.

use std::collections::BTreeSet;

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
