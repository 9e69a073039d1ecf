//! What AIDE reports, ours reports: random changes to a tree, and both asked.

use std::{collections::BTreeSet, fs, time::Instant};

use muster_tests::{
    harness::{Folder, left_out, random::Random, setting},
    integrity::{
        Aide, Own,
        changes::{self, ALL, Change},
        tree,
    },
};

/// After how many sets of changes a tree is made afresh: it loses and gains, and drifts from what it was meant to be.
const SETS_OF_A_TREE: u64 = 25;

#[test]
fn what_aide_reports_is_reported() {
    assert!(Aide::is_there(), "aide is not installed: apt install aide");
    let mut random = Random::printed("changes, to be reported as AIDE reports them");
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        left_out("changes of owner and capabilities", "need root");
    }
    let kinds: Vec<Change> = ALL.into_iter().filter(|change| is_root || !change.is_of_root()).collect();
    let (sets, start) = (setting("MUSTER_TEST_SETS", 60), Instant::now());
    let (mut reported, mut more) = (0, 0);
    for tree_number in 0..sets.div_ceil(SETS_OF_A_TREE) {
        let folder = Folder::new();
        let root = folder.join("tree");
        fs::create_dir(&root).unwrap();
        tree::grow(&root, &mut random).unwrap();
        let (aide, own) = (Aide::at(&root, folder.path()).unwrap(), Own::at(&root, folder.path()));
        for set in 0..SETS_OF_A_TREE.min(sets - tree_number * SETS_OF_A_TREE) {
            aide.init().unwrap();
            own.baseline().unwrap();
            let done = changes::apply(&root, &kinds, 6, &mut random).unwrap();
            let (expected, _) = aide.check().unwrap();
            let name = format!("set {set} of tree {tree_number}");
            // Stamps first: a full look must find no less after them.
            for what in ["quick", "check"] {
                let (told, _) = own.run(what, &[]).unwrap();
                let ours: BTreeSet<Vec<u8>> = told.changes.keys().cloned().collect();
                let missed: Vec<_> = expected.difference(&ours).map(|path| path.escape_ascii().to_string()).collect();
                assert!(missed.is_empty(), "{name}: fim {what} misses {missed:#?} after {done:#?}\n{}", told.summary);
                assert_eq!(told.code, i32::from(!ours.is_empty()), "{name}: fim {what} after {done:#?}: {told:#?}");
                more += ours.len() - expected.len();
            }
            reported += expected.len();
        }
    }
    assert!(reported as u64 > sets, "hardly anything was changed: {reported} paths");
    eprintln!(
        "{sets} sets of changes in {:.0?}: {reported} paths that AIDE reports, all of them reported; {more} that it does not, by two looks \
         at each set",
        start.elapsed()
    );
}
