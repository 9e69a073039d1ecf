//! Scans of trees whose every time and fault a test sets, and what a naive model says of the same.

mod model;
mod tree;

use std::{collections::BTreeSet, time::Duration};

use muster_proto::{
    fact::{Cause, ChangeKind, ExtendedAttribute, Fact, FileIntegrity, Reading, WatchState},
    limits,
    time::Timestamp,
};
use proptest::prelude::*;

use self::{
    model::Model,
    tree::{Node, Tree},
};
use super::{manners::Power, *};
use crate::host::{EntryKind, Pace, xattr};

const DAY: Duration = Duration::from_secs(86_400);

/// A watched tree, and what scans of it leave behind.
struct Watched {
    tree: Tree,
    sets: Sets,
    store: Store,
    reread: Duration,
    run: u64,
    /// When scans begin; `None` for the clock of the tree.
    now: Option<Timestamp>,
    _folder: tempfile::TempDir,
}

impl Watched {
    fn new(paths: &[&str]) -> Self {
        let folder = folder();
        let store = Store::at(folder.path());
        let (tree, sets) = (Tree::new(), sets(&[("files", paths)]));
        Self { tree, sets, store, reread: Duration::ZERO, run: 7, now: None, _folder: folder }
    }

    fn with<T>(&self, depth: Depth, scope: Scope<'_>, act: impl FnOnce(&Request<'_>) -> T) -> T {
        self.tree.read.borrow_mut().clear();
        let progress = Progress::default();
        act(&Request {
            host: &self.tree,
            sets: &self.sets,
            store: &self.store,
            now: self.now.unwrap_or_else(|| self.tree.now()),
            run: self.run,
            depth,
            scope,
            pace: Pace::default(),
            reread: self.reread,
            power: Power::Mains,
            progress: &progress,
            actors: None,
        })
    }

    fn baseline(&mut self) -> Outcome {
        let outcome = self.with(Depth::Full, Scope::All, |request| take_baseline(request, &"first scan".into()));
        self.tree.tick();
        outcome.unwrap()
    }

    fn look(&mut self, depth: Depth, scope: Scope<'_>) -> Outcome {
        let outcome = self.with(depth, scope, check);
        self.tree.tick();
        outcome.unwrap()
    }

    fn quick(&mut self) -> Outcome {
        self.look(Depth::Quick, Scope::All)
    }

    fn below(&mut self, paths: &[&str]) -> Outcome {
        let paths: Vec<_> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        self.look(Depth::Quick, Scope::Below(&paths))
    }

    fn was_read(&self) -> Vec<String> {
        self.tree.read.borrow().iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }
}

/// Returns a folder in memory where there is one: these tests sync thousands of files.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn sets(sets: &[(&str, &[&str])]) -> Sets {
    let set = |(name, paths): &(&str, &[&str])| {
        serde_json::from_value(serde_json::json!({ "name": name, "paths": paths })).unwrap()
    };
    Sets::new(&sets.iter().map(set).collect::<Vec<_>>()).unwrap()
}

fn changes(outcome: &Outcome) -> Vec<(ChangeKind, &str)> {
    outcome.changes.iter().map(|change| (change.kind, change.path.as_str())).collect()
}

/// Three files in two folders, and their baseline.
fn small() -> Watched {
    let mut watched = Watched::new(&["/r"]);
    for (path, content) in [("/r/a/1", 1), ("/r/a/2", 2), ("/r/b", 3)] {
        watched.tree.put(path, EntryKind::File, content);
    }
    let outcome = watched.baseline();
    assert_eq!((outcome.entries, outcome.baseline.entries), (5, 5));
    watched
}

#[test]
fn a_quick_scan_reads_nothing_of_what_did_not_change() {
    let mut watched = small();
    let outcome = watched.quick();
    assert_eq!((outcome.changes_total, watched.was_read()), (0, vec![]));
    assert_eq!(outcome.stats, Stats { entries_seen: 5, files_read: 0, bytes_read: 0 });
    assert_eq!(watched.look(Depth::Full, Scope::All).stats.files_read, 3);
}

#[test]
fn a_file_whose_time_was_put_back_is_found_by_a_quick_scan() {
    let mut watched = small();
    watched.tree.write("/r/b", 9, true);
    let outcome = watched.quick();
    assert_eq!(changes(&outcome), [(ChangeKind::Content, "/r/b")]);
    assert_eq!(watched.was_read(), ["/r/b"]);
    // It is known, and not read again.
    let again = watched.quick();
    assert_eq!((&again.changes, again.state_digest), (&outcome.changes, outcome.state_digest));
    assert_eq!(watched.was_read(), [""; 0]);
}

#[test]
fn a_file_that_was_touched_is_read_once_and_the_watched_state_stays_the_same() {
    let mut watched = small();
    let before = watched.quick();
    watched.tree.change("/r/b", |_| {});
    let touched = watched.quick();
    assert_eq!((touched.changes_total, touched.state_digest), (0, before.state_digest));
    assert_eq!(watched.was_read(), ["/r/b"]);
    watched.quick();
    assert_eq!(watched.was_read(), [""; 0]);
}

#[test]
fn a_change_that_every_time_hides_is_found_when_the_file_is_due() {
    let mut watched = small();
    watched.reread = DAY;
    watched.tree.nodes.get_mut(b"/r/b".as_slice()).unwrap().content = 9;
    let mut found = None;
    // Scans an hour apart, from the baseline on.
    for hour in 1..=24 {
        watched.now = Some(watched.tree.now().plus(Duration::from_secs(3600 * hour)));
        let outcome = watched.quick();
        assert_eq!(outcome.reread_in_time, Some(Reading::Known(true)));
        if outcome.changes_total > 0 {
            found.get_or_insert(hour);
            assert_eq!(changes(&outcome), [(ChangeKind::Content, "/r/b")]);
        }
    }
    assert!(found.is_some(), "not within the period");
}

#[test]
fn a_partial_scan_says_that_what_is_due_waits() {
    let mut watched = small();
    watched.reread = DAY;
    watched.now = Some(watched.tree.now().plus(DAY * 2));
    let outcome = watched.below(&["/r/a"]);
    assert!(matches!(outcome.reread_in_time, Some(Reading::Unknown { .. })), "{:?}", outcome.reread_in_time);
    assert_eq!(watched.quick().reread_in_time, Some(Reading::Known(true)));
    assert_eq!(watched.was_read().len(), 5);
}

#[test]
fn a_file_changed_around_its_scan_is_read_again_until_no_change_can_hide() {
    let mut watched = small();
    // A second after the change that a scan finds, the file changes again and has the same times.
    watched.tree.write("/r/b", 8, false);
    watched.now = Timestamp::from_seconds(watched.tree.clock + 1);
    assert_eq!(watched.quick().changes_total, 1);
    let found = watched.quick().changes[0].clone();
    watched.tree.nodes.get_mut(b"/r/b".as_slice()).unwrap().content = 9;
    watched.now = None;
    let outcome = watched.quick();
    assert_eq!(watched.was_read(), ["/r/b"]);
    assert_ne!(outcome.changes[0].after, found.after);
    assert_eq!(
        (outcome.changes[0].states_seen, outcome.changes[0].last_unchanged_time),
        (2, found.last_unchanged_time)
    );
    watched.quick();
    assert_eq!(watched.was_read(), [""; 0]);
}

#[test]
fn a_rename_is_what_is_gone_and_what_came() {
    let mut watched = small();
    watched.tree.rename("/r/a", "/r/c");
    let outcome = watched.quick();
    let expected = [
        (ChangeKind::Deleted, "/r/a"),
        (ChangeKind::Deleted, "/r/a/1"),
        (ChangeKind::Deleted, "/r/a/2"),
        (ChangeKind::Created, "/r/c"),
        (ChangeKind::Created, "/r/c/1"),
        (ChangeKind::Created, "/r/c/2"),
    ];
    assert_eq!((changes(&outcome), outcome.entries), (expected.to_vec(), 5));
    watched.tree.rename("/r/c", "/r/a");
    assert_eq!(watched.quick().changes_total, 0);
}

#[test]
fn two_files_that_swap_names_are_both_found() {
    let mut watched = small();
    let other = watched.tree.nodes[b"/r/a/1".as_slice()].clone();
    let one = watched.tree.nodes.insert(b"/r/a/2".to_vec(), other).unwrap();
    watched.tree.nodes.insert(b"/r/a/1".to_vec(), one);
    assert_eq!(changes(&watched.quick()), [(ChangeKind::Content, "/r/a/1"), (ChangeKind::Content, "/r/a/2")]);
}

#[test]
fn the_window_of_a_change_begins_with_the_last_scan_that_saw_the_former_state() {
    let mut watched = small();
    let first = watched.tree.now();
    watched.quick();
    watched.tree.change("/r/a", |node| node.is_unreadable = true);
    let blind = watched.quick();
    assert_eq!((blind.unreadable_total, blind.changes_total, blind.entries), (1, 0, 5));
    watched.tree.write("/r/a/1", 9, false);
    watched.quick();
    watched.tree.change("/r/a", |node| node.is_unreadable = false);
    let (now, change) = (watched.tree.now(), watched.quick().changes[0].clone());
    assert_eq!((change.last_unchanged_time, change.detected_time), (first, now));
    assert!(!change.while_not_observed);
    watched.run = 8;
    watched.tree.write("/r/b", 9, false);
    assert!(watched.quick().changes[1].while_not_observed);
}

#[test]
fn what_is_asked_of_a_change_that_changes_again_happened_since_the_state_before() {
    let mut watched = small();
    let baseline = watched.now.unwrap_or_else(|| watched.tree.now());
    let since = |watched: &Watched, path: &str| {
        let blocks = watched.store.open_blocks(store::Name::Changes, known::MAGIC).unwrap().unwrap();
        let mut cursor = block::Cursor::start(&blocks).unwrap();
        while cursor.path() != Some(path.as_bytes()) {
            cursor.advance().unwrap();
        }
        match known::Known::decode(cursor.body()).unwrap().what {
            known::What::Differs(difference) => difference.since,
            what => panic!("{path} is {what:?}"),
        }
    };
    watched.tree.write("/r/b", 8, false);
    watched.quick();
    assert!(since(&watched, "/r/b") < baseline, "the baseline's own time");
    let (unchanged, first) = (watched.tree.now(), since(&watched, "/r/b"));
    watched.quick();
    assert_eq!(since(&watched, "/r/b"), first, "the same state has the same window");
    watched.tree.write("/r/b", 9, false);
    let again = watched.quick();
    assert_eq!(since(&watched, "/r/b"), unchanged);
    assert!(again.changes[0].last_unchanged_time < baseline, "the fact tells of the baseline's state");
    let partial = watched.tree.now();
    watched.tree.write("/r/b", 10, false);
    watched.below(&["/r/b"]);
    watched.tree.write("/r/b", 11, false);
    watched.below(&["/r/b"]);
    assert!(since(&watched, "/r/b") >= partial, "a look at a part saw the state before");
}

#[test]
fn a_partial_scan_says_nothing_of_what_lies_elsewhere() {
    let mut watched = small();
    watched.tree.write("/r/a/1", 9, false);
    watched.tree.remove("/r/a/2");
    watched.tree.write("/r/b", 9, false);
    let part = watched.below(&["/r/a/2"]);
    assert_eq!(changes(&part), [(ChangeKind::Deleted, "/r/a/2")]);
    assert_eq!(part.entries, 4);
    let part = watched.below(&["/r/b", "/elsewhere", "/r/b/x"]);
    assert_eq!(changes(&part), [(ChangeKind::Deleted, "/r/a/2"), (ChangeKind::Content, "/r/b")]);
    let whole = watched.quick();
    assert_eq!(whole.changes_total, 3);
    assert_eq!(whole.changes[1..], part.changes);
    // What is above the watched path is the whole of it.
    assert_eq!(watched.below(&["/"]).changes, whole.changes);
}

#[test]
fn a_folder_that_moves_away_while_it_is_scanned_deletes_nothing() {
    let mut watched = small();
    watched.tree.moves = Some(b"/r/a".to_vec());
    for ahead in [0, 3] {
        watched.tree.ahead = ahead;
        for depth in [Depth::Quick, Depth::Full] {
            let outcome = watched.look(depth, Scope::All);
            assert_eq!((outcome.changes_total, outcome.unreadable_total, outcome.entries), (0, 1, 5));
            assert_eq!(outcome.unreadable[0].path.as_str(), "/r/a");
        }
    }
    // Of a baseline that was taken so, nothing more is said than it saw.
    watched.baseline();
    watched.tree.moves = None;
    let outcome = watched.quick();
    assert_eq!((outcome.changes_total, outcome.unreadable_total, outcome.entries), (0, 1, 5));
    assert_eq!(outcome.unreadable[0].path.as_str(), "/r/a/2");
}

#[test]
fn a_mount_point_is_gone_into_when_it_is_watched_itself_and_is_listed_when_not() {
    let mut watched = small();
    for path in ["/r/a", "/r/a/1", "/r/a/2"] {
        watched.tree.change(path, |node| node.device = 2);
    }
    watched.sets = sets(&[("files", &["/r", "/r/a"])]);
    let crossed = watched.baseline();
    assert_eq!((crossed.entries, crossed.unreadable_total), (5, 0));
    watched.sets = sets(&[("files", &["/r", "/r/b"])]);
    for outcome in [watched.baseline(), watched.quick(), watched.look(Depth::Full, Scope::All)] {
        assert_eq!((outcome.entries, outcome.changes_total, outcome.unreadable_total), (3, 0, 1));
        assert_eq!(outcome.unreadable[0].path.as_str(), "/r/a");
    }
    // What is below it was never seen; it cannot be told what is there.
    let below = watched.below(&["/r/a/1"]);
    assert_eq!((below.changes_total, below.unreadable_total, below.entries), (0, 2, 3));
    assert_eq!(below.unreadable[1].path.as_str(), "/r/a/1");
}

#[test]
fn what_lies_below_what_was_closed_is_unreadable_until_it_is_seen_again() {
    // Of both kinds: a folder that is found closed, and one that is not.
    for folder in ["/r/a", "/r/c"] {
        let mut watched = small();
        watched.tree.put("/r/c/1", EntryKind::File, 1);
        watched.baseline();
        watched.tree.change(folder, |node| node.is_unreadable = true);
        let path = format!("{folder}/1");
        for part in [watched.below(&[&path]), watched.below(&[&path])] {
            assert_eq!((part.changes_total, part.unreadable_total, part.entries), (0, 1, 7), "{folder}");
            assert_eq!(part.unreadable[0].path.as_str(), path);
        }
        watched.tree.write(&path, 9, true);
        assert_eq!(watched.quick().unreadable_total, 2);
        watched.tree.change(folder, |node| node.is_unreadable = false);
        let outcome = watched.quick();
        assert_eq!((changes(&outcome), outcome.unreadable_total), (vec![(ChangeKind::Content, path.as_str())], 0));
    }
}

#[test]
fn content_that_is_read_for_the_first_time_is_another_state_than_what_was_only_seen() {
    let mut watched = small();
    watched.tree.write("/r/b", 9, false);
    watched.tree.change("/r/b", |node| node.is_unreadable = true);
    let seen = watched.quick().changes[0].clone();
    assert_eq!((seen.states_seen, seen.after.as_ref().unwrap().sha256.as_str()), (1, ""));
    // Neither its size nor its time says that it was changed once more.
    watched.tree.write("/r/b", 8, true);
    let modified = watched.tree.nodes[b"/r/b".as_slice()].modified;
    watched.tree.change("/r/b", |node| (node.is_unreadable, node.modified) = (false, modified));
    let read = watched.quick().changes[0].clone();
    let digest = hex::encode(watched.tree.nodes[b"/r/b".as_slice()].sha256().unwrap());
    assert_eq!((read.states_seen, read.after.as_ref().unwrap().sha256.as_str()), (2, digest.as_str()));
    assert!(read.detected_time > seen.detected_time && read.last_unchanged_time == seen.last_unchanged_time);
    assert_eq!(watched.quick().changes[0], read);
}

#[test]
fn what_could_not_be_read_for_the_baseline_is_compared_by_what_was_seen_of_it() {
    let mut watched = Watched::new(&["/r"]);
    for path in ["/r/a", "/r/b", "/r/c"] {
        watched.tree.put(path, EntryKind::File, 1);
        watched.tree.change(path, |node| node.is_unreadable = true);
    }
    watched.baseline();
    assert_eq!((watched.quick().changes_total, watched.quick().unreadable.len()), (0, 3));
    // One still cannot be read, one can, and one is something else.
    watched.tree.change("/r/a", |node| node.mode = 0o4777);
    watched.tree.change("/r/b", |node| (node.mode, node.is_unreadable) = (0o4777, false));
    watched.tree.remove("/r/c");
    watched.tree.put("/r/c", EntryKind::Link, 1);
    let outcome = watched.quick();
    let expected = [(ChangeKind::Metadata, "/r/a"), (ChangeKind::Metadata, "/r/b"), (ChangeKind::Type, "/r/c")];
    assert_eq!(changes(&outcome), expected);
    let read =
        |change: &muster_proto::fact::FileChange| change.after.as_ref().is_some_and(|after| !after.sha256.is_empty());
    assert_eq!(outcome.changes.iter().map(read).collect::<Vec<_>>(), [false, true, true]);
    // Whose mode is as it was is still not known to be the same.
    watched.tree.change("/r/b", |node| node.mode = 0o644);
    let mode = watched.tree.nodes[b"/r/a".as_slice()].mode;
    assert_eq!(mode, 0o4777);
    watched.sets = sets(&[("files", &["/r"]), ("more", &["/r/a"])]);
    assert!(changes(&watched.quick()).contains(&(ChangeKind::Metadata, "/r/a")), "new sets forgive nothing");
}

#[test]
fn what_is_left_out_and_cannot_be_read_deletes_nothing() {
    let mut watched = Watched::new(&["/r"]);
    watched.sets = {
        let set = serde_json::json!({ "name": "files", "paths": ["/r"], "exclude": ["**/*.log"] });
        Sets::new(&[serde_json::from_value(set).unwrap()]).unwrap()
    };
    for path in ["/r/d/a/x", "/r/d/b.log/y", "/r/d/c"] {
        watched.tree.put(path, EntryKind::File, 1);
    }
    watched.baseline();
    for path in ["/r/d/a", "/r/d/b.log"] {
        watched.tree.change(path, |node| node.is_unreadable = true);
    }
    let outcome = watched.quick();
    assert_eq!((changes(&outcome), outcome.unreadable_total), (vec![], 1));
}

#[test]
fn what_is_known_is_found_anew_when_it_is_damaged() {
    let mut watched = small();
    watched.tree.write("/r/b", 9, true);
    let before = watched.quick();
    let path = watched.store.path(store::Name::Changes);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        assert_eq!(each_change(&watched.store, &mut |_| Ok(())).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
        // A partial scan looks at everything then, and reads all of it.
        let outcome = watched.below(&["/r/a"]);
        assert_eq!((changes(&outcome), outcome.stats.files_read), (changes(&before), 3), "changed at {at}");
        assert_eq!(outcome.changes[0].last_unchanged_time, outcome.baseline.created_time);
        assert!(outcome.changes[0].while_not_observed);
        assert_eq!(outcome.state_digest, before.state_digest);
    }
}

#[test]
fn a_damaged_baseline_compares_nothing_and_is_never_taken_for_another() {
    let mut watched = small();
    let path = watched.store.path(store::Name::Baseline);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        for bytes in [&changed[..], &whole[..at]] {
            std::fs::write(&path, bytes).unwrap();
            let result = watched.with(Depth::Quick, Scope::All, check);
            assert!(matches!(result, Err(Error::BaselineDamaged)), "at {at}: {result:?}");
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(watched.quick().changes_total, 0);
}

#[test]
fn a_baseline_that_is_gone_is_not_taken_for_none() {
    let mut watched = Watched::new(&["/r"]);
    watched.tree.put("/r/a", EntryKind::File, 1);
    assert!(matches!(watched.with(Depth::Quick, Scope::All, check), Err(Error::NoBaseline)));
    watched.baseline();
    std::fs::remove_file(watched.store.path(store::Name::Baseline)).unwrap();
    assert!(matches!(watched.with(Depth::Quick, Scope::All, check), Err(Error::BaselineGone)));
}

/// Lets each write of `act` fail in turn, and calls `after` each time, until it goes through.
fn with_each_write_failing(
    watched: &mut Watched,
    act: impl Fn(&Request<'_>) -> bool,
    mut after: impl FnMut(&mut Watched),
) {
    for write in 0.. {
        watched.store.fail_from(Some(write));
        let is_done = watched.with(Depth::Quick, Scope::All, &act);
        watched.store.fail_from(None);
        if is_done {
            assert!(write > 3, "no write failed");
            return;
        }
        after(watched);
    }
}

#[test]
fn a_scan_that_fails_at_any_write_loses_no_difference_and_no_window() {
    let mut watched = small();
    watched.quick();
    watched.tree.write("/r/b", 9, false);
    let known = watched.quick().changes[0].clone();
    watched.tree.remove("/r/a/1");
    with_each_write_failing(
        &mut watched,
        |request| check(request).is_ok(),
        |watched| {
            let folder = folder();
            for name in ["baseline", "changes", "scans"] {
                let from = watched.store.path(store::Name::Baseline).with_file_name(name);
                std::fs::copy(from, folder.path().join(name)).unwrap();
            }
            let store = std::mem::replace(&mut watched.store, Store::at(folder.path()));
            let outcome = watched.with(Depth::Quick, Scope::All, check).unwrap();
            assert_eq!(outcome.changes[1], known);
            assert_eq!(changes(&outcome), [(ChangeKind::Deleted, "/r/a/1"), (ChangeKind::Content, "/r/b")]);
            watched.store = store;
        },
    );
}

#[test]
fn a_baseline_that_fails_at_any_write_leaves_one_that_is_whole() {
    let mut watched = small();
    watched.tree.write("/r/b", 9, false);
    let before = watched.quick();
    with_each_write_failing(
        &mut watched,
        |request| take_baseline(request, &"again".into()).is_ok(),
        |watched| {
            let outcome = watched.quick();
            if outcome.baseline == before.baseline {
                assert_eq!(outcome.changes, before.changes);
            } else {
                assert_eq!(outcome.changes_total, 0);
            }
        },
    );
}

#[test]
fn other_sets_that_fail_at_any_write_forgive_nothing() {
    let mut watched = small();
    watched.tree.put("/s/x", EntryKind::File, 1);
    watched.tree.write("/r/b", 9, false);
    let known = watched.quick().changes[0].clone();
    let (own, other) = (|| sets(&[("files", &["/r"])]), || sets(&[("files", &["/r", "/s"]), ("more", &["/r/b"])]));
    watched.sets = other();
    with_each_write_failing(
        &mut watched,
        |request| check(request).is_ok(),
        |watched| {
            watched.sets = own();
            let outcome = watched.quick();
            let found = &outcome.changes[0];
            assert_eq!((outcome.changes_total, found.path.as_str(), &found.after), (1, "/r/b", &known.after));
            watched.sets = other();
        },
    );
    let outcome = watched.quick();
    assert_eq!((outcome.changes_total, outcome.changes[0].path.as_str(), outcome.entries), (1, "/r/b", 7));
    let counts: Vec<_> = outcome.sets.iter().map(|set| (set.name.as_str(), set.entries, set.changes_total)).collect();
    assert_eq!(counts, [("files", 7, 1), ("more", 1, 1)]);
}

#[test]
fn what_new_sets_cover_is_compared_with_what_was_there_when_they_came() {
    let mut watched = small();
    watched.tree.put("/s/x", EntryKind::File, 1);
    watched.sets = sets(&[("files", &["/r", "/s"])]);
    assert_eq!(watched.quick().changes_total, 0);
    watched.tree.write("/s/x", 2, true);
    assert_eq!(changes(&watched.quick()), [(ChangeKind::Content, "/s/x")]);
}

#[test]
fn every_change_is_listed_beyond_those_of_a_fact() {
    let mut watched = small();
    let count = muster_proto::limits::FILE_CHANGES + 5;
    for number in 0..count {
        watched.tree.put(&format!("/r/new/{number}"), EntryKind::File, 1);
    }
    let outcome = watched.quick();
    assert_eq!((outcome.changes_total, outcome.changes.len()), (count as u64 + 1, count - 5));
    let mut paths = BTreeSet::new();
    each_change(&watched.store, &mut |change| {
        paths.insert(change.path);
        Ok(())
    })
    .unwrap();
    assert_eq!(paths.len(), count + 1);
}

/// Returns `count` extended attributes with names of `bytes` bytes that are no text.
fn attributes(count: u8, bytes: usize) -> Vec<ExtendedAttribute> {
    (0..count).map(|number| xattr::attribute(&[vec![0xff; bytes - 1], vec![number]].concat(), b"")).collect()
}

/// A home in which its user makes `count` entries as that tells, and a program that is tampered with.
fn flooded(count: usize, path_bytes: usize, change: impl Fn(&mut Node)) -> Watched {
    let mut watched = Watched::new(&["/home"]);
    watched.sets = sets(&[("keys", &["/home"]), ("programs", &["/usr/bin"])]);
    watched.tree.put("/home/u/.ssh/authorized_keys", EntryKind::File, 1);
    watched.tree.put("/usr/bin/sudo", EntryKind::File, 1);
    watched.baseline();
    watched.tree.write("/usr/bin/sudo", 2, true);
    let mut node = watched.tree.nodes[b"/usr/bin/sudo".as_slice()].clone();
    node.uid = 1000;
    change(&mut node);
    for number in 0..count {
        let name = [vec![0xff; path_bytes], number.to_string().into_bytes()].concat();
        node.inode += 1;
        watched.tree.nodes.insert([b"/home/u/.ssh/authorized_keys", name.as_slice()].concat(), node.clone());
    }
    watched
}

/// Returns the fact after one look, which a report can take.
fn reported(watched: &mut Watched) -> FileIntegrity {
    let fact = Fact::FileIntegrity(Reading::Known(watched.quick().fact(WatchState::Live)));
    let bytes = fact.encode();
    assert!(bytes.len() <= limits::FACT_BYTES, "{}", bytes.len());
    let decoded = Fact::decode(&bytes).unwrap();
    let Fact::FileIntegrity(Reading::Known(fact)) = decoded else { panic!("{decoded:?}") };
    fact
}

#[test]
fn what_a_user_makes_in_a_home_hides_no_change_elsewhere_and_fits_into_a_report() {
    for (path_bytes, count, bytes) in [(0, 0, 0), (240, 1, 250), (1000, 9, 250)] {
        let attributes = attributes(count, bytes);
        let mut watched = flooded(1200, path_bytes, |node| node.attributes = attributes.clone());
        let fact = reported(&mut watched);
        assert_eq!(fact.changes_total, 1201);
        let listed: BTreeSet<_> = fact.changes.iter().map(|change| change.path.as_str()).collect();
        assert!(listed.contains("/usr/bin/sudo") && listed.len() > 30, "{} of {path_bytes}", listed.len());
        assert_eq!(reported(&mut watched), fact);
    }
}

#[test]
fn paths_that_are_too_long_hide_nothing_else_that_cannot_be_read() {
    let mut watched = flooded(150, limits::TEXT_BYTES, |_| {});
    watched.tree.change("/usr/bin/sudo", |node| node.is_unreadable = true);
    let fact = reported(&mut watched);
    assert_eq!(fact.unreadable_total, 151);
    assert!(fact.unreadable.iter().any(|unreadable| unreadable.path.as_str() == "/usr/bin/sudo"));
}

#[test]
fn an_entry_with_longer_attributes_than_are_recorded_is_unreadable_and_never_cut() {
    let too_long = attributes(64, 250);
    let mut watched = flooded(1, 0, |node| node.attributes = too_long.clone());
    let fact = reported(&mut watched);
    // That it is new is seen all the same.
    assert_eq!((fact.changes_total, fact.unreadable_total), (2, 1));
    assert_eq!(fact.unreadable[0].unknown.cause, Cause::Limit);
    let baseline = watched.baseline();
    assert_eq!((baseline.changes_total, baseline.unreadable_total), (0, 1));
}

#[test]
fn a_link_that_takes_the_place_of_a_folder_on_the_way_is_a_change() {
    let mut watched = Watched::new(&["/home"]);
    let set = serde_json::json!({ "name": "keys", "paths": ["/home"], "include": ["home/*/.ssh/keys*"] });
    watched.sets = Sets::new(&[serde_json::from_value(set).unwrap()]).unwrap();
    watched.tree.put("/home/u/x", EntryKind::File, 1);
    watched.tree.put("/home/v/.ssh/keys", EntryKind::File, 1);
    assert_eq!(watched.baseline().entries, 1);
    watched.tree.put("/home/u/.ssh", EntryKind::Link, 1);
    watched.tree.remove("/home/v");
    watched.tree.put("/home/v", EntryKind::Link, 2);
    let counted = |outcome: &Outcome| (outcome.entries, outcome.sets[0].changes_total, outcome.changes_total);
    let outcome = watched.quick();
    let expected = [
        (ChangeKind::Created, "/home/u/.ssh"),
        (ChangeKind::Created, "/home/v"),
        (ChangeKind::Deleted, "/home/v/.ssh/keys"),
    ];
    assert_eq!((changes(&outcome), counted(&outcome)), (expected.to_vec(), (2, 3, 3)));
    // In the baseline, it is compared by where it leads to, and missed when it is gone, by whatever sets.
    assert_eq!(watched.baseline().entries, 2);
    watched.tree.write("/home/v", 3, true);
    watched.tree.remove("/home/u/.ssh");
    let expected = [(ChangeKind::Deleted, "/home/u/.ssh"), (ChangeKind::Content, "/home/v")];
    for set in ["keys", "other"] {
        let set = serde_json::json!({ "name": set, "paths": ["/home"], "include": ["home/*/.ssh/keys*"] });
        watched.sets = Sets::new(&[serde_json::from_value(set).unwrap()]).unwrap();
        let outcome = watched.quick();
        assert_eq!((changes(&outcome), counted(&outcome)), (expected.to_vec(), (1, 2, 2)));
    }
}

#[test]
fn attributes_that_were_not_compared_before_are_from_when_new_sets_compare_them() {
    let compared = |attributes: &[&str]| {
        let set = serde_json::json!({ "name": "files", "paths": ["/r"], "attributes": attributes });
        Sets::new(&[serde_json::from_value(set).unwrap()]).unwrap()
    };
    for before in [["content", "mode"], ["owner", "mode"]] {
        let mut watched = small();
        watched.sets = compared(&before);
        watched.baseline();
        watched.tree.change("/r/a", |node| node.mode = 0o700);
        watched.sets = compared(&["content", "mode", "extended_attributes"]);
        assert_eq!(changes(&watched.quick()), [(ChangeKind::Metadata, "/r/a")]);
        watched.tree.change("/r/b", |node| node.attributes = attributes(1, 9));
        assert_eq!(changes(&watched.quick()), [(ChangeKind::Metadata, "/r/a"), (ChangeKind::Metadata, "/r/b")]);
    }
}

#[test]
fn new_sets_forgive_no_folder_that_is_compared_by_metadata_alone() {
    let compared = |attributes: &[&str]| {
        let set = serde_json::json!({ "name": "files", "paths": ["/r"], "attributes": attributes });
        Sets::new(&[serde_json::from_value(set).unwrap()]).unwrap()
    };
    let mut watched = small();
    watched.sets = compared(&["content", "mode"]);
    watched.baseline();
    watched.tree.change("/r/a", |node| node.mode = 0o700);
    watched.sets = compared(&["content", "mode", "owner"]);
    assert_eq!(changes(&watched.quick()), [(ChangeKind::Metadata, "/r/a")]);
}

#[test]
fn a_root_that_cannot_be_opened_says_nothing_of_the_others() {
    const ESTALE: i32 = 116;
    const ETIMEDOUT: i32 = 110;
    let mut watched = small();
    watched.sets = sets(&[("files", &["/r", "/s"])]);
    watched.tree.put("/s/x", EntryKind::File, 1);
    watched.baseline();
    for (content, error) in [(8, ESTALE), (9, ETIMEDOUT)] {
        watched.tree.broken = Some((b"/s".to_vec(), error));
        watched.tree.write("/r/b", content, true);
        let outcome = watched.quick();
        assert_eq!((changes(&outcome), outcome.unreadable_total), (vec![(ChangeKind::Content, "/r/b")], 1));
        assert!(matches!(&outcome.paths[1].entries, Reading::Unknown { .. }), "{:?}", outcome.paths);
        let baseline = watched.baseline();
        assert_eq!((baseline.changes_total, baseline.unreadable_total), (0, 1));
        assert_eq!(baseline.unreadable[0].path.as_str(), "/s");
        watched.tree.broken = None;
        assert_eq!(watched.quick().changes_total, 0);
        watched.baseline();
    }
}

#[test]
fn a_folder_that_vanishes_is_not_in_a_baseline_and_holds_up_nothing() {
    let mut watched = small();
    watched.tree.vanishes = Some(b"/r/a".to_vec());
    for ahead in [0, 3] {
        watched.tree.ahead = ahead;
        let outcome = watched.baseline();
        assert_eq!((outcome.entries, outcome.unreadable_total, outcome.changes_total), (2, 0, 0));
    }
}

#[test]
fn new_sets_keep_what_was_known_of_a_folder_that_is_gone_or_closed_at_that_moment() {
    for is_gone in [false, true] {
        // Of both kinds: one that is found closed, and one that is not.
        for folder in ["/r/a", "/r/c"] {
            let mut watched = small();
            watched.tree.put("/r/c/1", EntryKind::File, 1);
            let attributes = serde_json::json!(["content", "mode"]);
            let set = serde_json::json!({ "name": "files", "paths": ["/r"], "attributes": attributes });
            watched.sets = Sets::new(&[serde_json::from_value(set).unwrap()]).unwrap();
            watched.baseline();
            watched.tree.change(folder, |node| (node.mode, node.is_unreadable) = (0o777, !is_gone));
            watched.tree.vanishes = is_gone.then(|| folder.as_bytes().to_vec());
            watched.sets = sets(&[("files", &["/r"])]);
            watched.quick();
            watched.tree.vanishes = None;
            watched.tree.change(folder, |node| node.is_unreadable = false);
            assert_eq!(changes(&watched.quick()), [(ChangeKind::Metadata, folder)], "{is_gone}");
        }
    }
}

#[test]
fn new_sets_keep_the_reason_of_an_operator_that_no_agent_has_told_of() {
    let mut watched = small();
    let rebaseline = |watched: &mut Watched| {
        let run = std::mem::replace(&mut watched.run, scans::NO_RUN);
        watched.with(Depth::Full, Scope::All, |request| take_baseline(request, &"reviewed".into())).unwrap();
        watched.tree.tick();
        watched.run = run;
    };
    rebaseline(&mut watched);
    watched.sets = sets(&[("others", &["/r"])]);
    assert_eq!(watched.quick().baseline.reason.as_str(), "reviewed");
    watched.sets = sets(&[("files", &["/r"])]);
    assert_eq!(watched.quick().baseline.reason.as_str(), muster_proto::fact::Baseline::SETS_CHANGED);
}

/// A step of a made-up history.
#[derive(Clone, Debug)]
enum Step {
    Put(&'static str, u8),
    Folder(&'static str),
    Link(&'static str, u8),
    Write(&'static str, u8),
    WriteBack(&'static str, u8),
    Mode(&'static str, u32),
    Unreadable(&'static str, bool),
    Remove(&'static str),
    Rename(&'static str, &'static str),
    Look(Depth),
    Below(Vec<&'static str>),
    Baseline,
}

const PATHS: &[&str] = &[
    "/r/a", "/r/a/b", "/r/a/b/c", "/r/a/d", "/r/a-b", "/r/a.b", "/r/ab", "/r/e/f", "/s", "/s/g", "/s/g/h", "/s/i",
    "/out",
];

fn step() -> impl Strategy<Value = Step> {
    let path = || prop::sample::select(PATHS);
    let content = || 0_u8..4;
    prop_oneof![
        3 => (path(), content()).prop_map(|(path, content)| Step::Put(path, content)),
        1 => path().prop_map(Step::Folder),
        1 => (path(), content()).prop_map(|(path, content)| Step::Link(path, content)),
        2 => (path(), content()).prop_map(|(path, content)| Step::Write(path, content)),
        2 => (path(), content()).prop_map(|(path, content)| Step::WriteBack(path, content)),
        1 => (path(), 0_u32..3).prop_map(|(path, mode)| Step::Mode(path, mode)),
        2 => (path(), any::<bool>()).prop_map(|(path, is_unreadable)| Step::Unreadable(path, is_unreadable)),
        2 => path().prop_map(Step::Remove),
        2 => (path(), path()).prop_map(|(from, to)| Step::Rename(from, to)),
        3 => any::<bool>().prop_map(|is_full| Step::Look(if is_full { Depth::Full } else { Depth::Quick })),
        3 => prop::collection::vec(path(), 1..4).prop_map(Step::Below),
        1 => Just(Step::Baseline),
    ]
}

fn play(watched: &mut Watched, model: &mut Model, step: &Step) -> Option<Outcome> {
    let tree = &mut watched.tree;
    match step {
        Step::Put(path, content) => tree.put(path, EntryKind::File, *content),
        Step::Folder(path) => tree.put(path, EntryKind::Folder, 0),
        Step::Link(path, content) => tree.put(path, EntryKind::Link, *content),
        Step::Write(path, content) => tree.write(path, *content, false),
        Step::WriteBack(path, content) => tree.write(path, *content, true),
        Step::Mode(path, mode) => tree.change(path, |node| node.mode = *mode),
        Step::Unreadable(path, is_unreadable) => tree.change(path, |node| {
            node.is_unreadable = *is_unreadable && node.kind != EntryKind::Link;
        }),
        Step::Remove(path) => tree.remove(path),
        Step::Rename(from, to) => tree.rename(from, to),
        Step::Look(depth) => {
            let outcome = watched.look(*depth, Scope::All);
            model.look(&watched.tree, None);
            return Some(outcome);
        }
        Step::Below(paths) => {
            let outcome = watched.below(paths);
            model.look(&watched.tree, Some(paths));
            return Some(outcome);
        }
        Step::Baseline => {
            let outcome = watched.baseline();
            model.baseline(&watched.tree);
            return Some(outcome);
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn scans_of_any_history_say_what_a_naive_comparison_says(
        first in prop::collection::vec(step(), 0..12), steps in prop::collection::vec(step(), 0..30), ahead in 0_usize..5,
    ) {
        let mut watched = Watched::new(&["/r", "/s"]);
        watched.sets = sets(&[("all", &["/r", "/s"]), ("part", &["/r/a"])]);
        watched.tree.ahead = ahead;
        let mut model = Model::new(&["/r", "/s"]);
        for step in &first {
            if !matches!(step, Step::Look(_) | Step::Below(_)) {
                play(&mut watched, &mut model, step);
            }
        }
        play(&mut watched, &mut model, &Step::Baseline);
        for step in steps.iter().chain([&Step::Look(Depth::Quick), &Step::Look(Depth::Full)]) {
            if let Some(outcome) = play(&mut watched, &mut model, step) {
                model.compare(&outcome);
            }
        }
    }
}
