//! Looks at small trees, as `muster-agent fim` makes them.

use std::{collections::BTreeMap, fs};

use muster_proto::{fact::Severity, time::Clock as _};

use super::*;
use crate::{fim::watch_set::Attributes, host::Live};

struct Case {
    folder: tempfile::TempDir,
    tree: PathBuf,
    file: PathBuf,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().canonicalize().unwrap().join("tree");
        fs::create_dir_all(tree.join("inner")).unwrap();
        for name in ["a", "b", "inner/c", "noise"] {
            fs::write(tree.join(name), name).unwrap();
        }
        let file = folder.path().join("fim.db");
        Self { folder, tree, file }
    }

    fn look(&self) -> Look<'_> {
        let now = muster_proto::time::SystemClock.now();
        Look { file: &self.file, pace: Pace::default(), now, reread: Duration::from_secs(86_400) }
    }

    fn set(&self) -> WatchSet {
        WatchSet {
            name: SET.to_owned(),
            paths: vec![self.tree.clone()],
            include: Vec::new(),
            exclude: vec!["**/noise".to_owned()],
            depth: 0,
            attributes: Attributes::default(),
            severity: Severity::Medium,
            owner: String::new(),
            cross_mounts: false,
        }
    }

    fn take(&self, is_forced: bool) -> Result<Looked, Error> {
        take(&Live::new(), &self.look(), self.set(), is_forced)
    }

    fn compare(&self, depth: Depth, paths: &[PathBuf]) -> Result<Looked, Error> {
        compare(&Live::new(), &self.look(), depth, paths)
    }

    /// Returns the changed paths below the tree with the kind of change, as a look lists them.
    fn changes(&self, depth: Depth, paths: &[PathBuf]) -> BTreeMap<String, &'static str> {
        let mut changes = BTreeMap::new();
        let visit = &mut |item: Item| {
            let Item::Change(change) = item else { panic!("{item:?}") };
            let path = change.path.as_str().strip_prefix(self.tree.to_str().unwrap()).unwrap().to_owned();
            assert_eq!(changes.insert(path, change.kind.as_str()), None);
            Ok(())
        };
        self.compare(depth, paths).unwrap().each(visit).unwrap();
        changes
    }

    fn beside(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn changed(pairs: &[(&str, &'static str)]) -> BTreeMap<String, &'static str> {
    pairs.iter().map(|(path, kind)| ((*path).to_owned(), *kind)).collect()
}

#[test]
fn later_looks_cover_what_the_file_says_and_list_every_difference() {
    let case = Case::new();
    assert_eq!(case.take(false).unwrap().outcome.entries, 5);
    assert_eq!(case.changes(Depth::Full, &[]), changed(&[]));
    fs::write(case.tree.join("a"), "other").unwrap();
    fs::write(case.tree.join("noise"), "other").unwrap();
    fs::remove_file(case.tree.join("b")).unwrap();
    fs::write(case.tree.join("inner/d"), "new").unwrap();
    let expected = changed(&[("/a", "content"), ("/b", "deleted"), ("/inner/d", "created")]);
    for depth in [Depth::Full, Depth::Quick, Depth::Full, Depth::Quick] {
        assert_eq!(case.changes(depth, &[]), expected, "{depth:?}");
    }
}

#[test]
fn a_check_writes_nothing_and_a_quick_look_leaves_the_baseline() {
    let case = Case::new();
    case.take(false).unwrap();
    let baseline = fs::read(&case.file).unwrap();
    let before = case.beside();
    fs::write(case.tree.join("a"), "other").unwrap();
    case.changes(Depth::Full, &[]);
    assert_eq!(case.beside(), before);
    case.changes(Depth::Quick, &[]);
    assert_eq!(case.beside(), before);
    assert_eq!(fs::read(&case.file).unwrap(), baseline);
}

#[test]
fn where_nothing_can_be_kept_a_quick_look_says_the_same() {
    let case = Case::new();
    case.take(false).unwrap();
    for name in case.beside().into_iter().filter(|name| name.starts_with("fim.db.")) {
        fs::remove_file(case.folder.path().join(name)).unwrap();
    }
    // Nothing can be drafted where a folder has that name.
    fs::create_dir(case.folder.path().join("fim.db.draft")).unwrap();
    fs::write(case.tree.join("a"), "other").unwrap();
    for _ in 0..2 {
        assert_eq!(case.changes(Depth::Quick, &[]), changed(&[("/a", "content")]));
    }
    assert_eq!(case.beside(), ["fim.db", "fim.db.draft", "tree"]);
}

#[test]
fn a_look_at_a_part_lists_that_part() {
    let case = Case::new();
    case.take(false).unwrap();
    for name in ["a", "inner/c"] {
        fs::write(case.tree.join(name), "other").unwrap();
    }
    let inner = case.tree.join("inner");
    for depth in [Depth::Full, Depth::Quick] {
        assert_eq!(case.changes(depth, std::slice::from_ref(&inner)), changed(&[("/inner/c", "content")]));
    }
    assert!(matches!(case.compare(Depth::Full, &["/elsewhere".into()]), Err(Error::NotCovered { .. })));
}

#[test]
fn a_baseline_is_replaced_only_by_force() {
    let case = Case::new();
    case.take(false).unwrap();
    fs::write(case.tree.join("a"), "other").unwrap();
    assert!(matches!(case.take(false), Err(Error::Exists { .. })));
    assert_eq!(case.changes(Depth::Quick, &[]), changed(&[("/a", "content")]));
    case.take(true).unwrap();
    assert_eq!(case.changes(Depth::Quick, &[]), changed(&[]));
}

#[test]
fn a_file_that_is_no_baseline_is_damaged_and_none_is_none() {
    let case = Case::new();
    assert!(matches!(case.compare(Depth::Quick, &[]), Err(Error::None { .. })));
    for text in ["", "muster-baseline 1\nid 00\n", "muster-baseline 2\n"] {
        fs::write(&case.file, text).unwrap();
        for depth in [Depth::Full, Depth::Quick] {
            assert!(matches!(case.compare(depth, &[]), Err(Error::Damaged { .. })), "{text:?}");
        }
    }
}

#[test]
fn a_baseline_among_what_it_covers_is_refused() {
    let case = Case::new();
    let file = case.tree.join("fim.db");
    let look = Look { file: &file, ..case.look() };
    let refused = take(&Live::new(), &look, case.set(), false);
    let Err(Error::Inside { pattern, .. }) = refused else { panic!("it is taken") };
    let exclude = vec![format!("{pattern}*")];
    let set = WatchSet { exclude, ..case.set() };
    take(&Live::new(), &look, set, false).unwrap();
    assert_eq!(compare(&Live::new(), &look, Depth::Full, &[]).unwrap().outcome.changes_total, 0);
}
