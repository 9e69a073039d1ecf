//! Looks at small trees, as `muster-agent fim` makes them.

use std::{collections::BTreeMap, fs};

use muster_proto::{fact::Severity, time::Clock as _};

use super::*;
use crate::{
    fim::{store::Lock, watch_set::Attributes},
    host::Live,
};

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

/// More than is read of a file.
const TOO_LARGE: u64 = 5 << 30;

impl Case {
    /// Returns what a look lists: changes with their kind, and what could not be read.
    fn listed(&self, depth: Depth, paths: &[PathBuf]) -> Vec<String> {
        let mut listed = Vec::new();
        let below = |path: &PathText| path.as_str().strip_prefix(self.tree.to_str().unwrap()).unwrap().to_owned();
        let visit = &mut |item: Item| {
            listed.push(match item {
                Item::Change(change) => format!("{} {}", below(&change.path), change.kind.as_str()),
                Item::Unreadable(unreadable) => {
                    format!("{} {:?}", below(&unreadable.path), unreadable.unknown.cause).to_lowercase()
                }
            });
            Ok(())
        };
        self.compare(depth, paths).unwrap().each(visit).unwrap();
        listed
    }

    fn grow(&self, name: &str) {
        fs::File::create(self.tree.join(name)).unwrap().set_len(TOO_LARGE).unwrap();
    }
}

#[test]
fn what_could_not_be_read_and_is_gone_is_never_unchanged() {
    let case = Case::new();
    case.grow("large");
    case.take(false).unwrap();
    for depth in [Depth::Full, Depth::Quick] {
        assert_eq!(case.listed(depth, &[]), ["/large limit"]);
    }
    fs::remove_file(case.tree.join("large")).unwrap();
    for depth in [Depth::Full, Depth::Quick, Depth::Quick] {
        assert_eq!(case.listed(depth, &[]), ["/large absent"], "{depth:?}");
    }
}

#[test]
fn of_what_cannot_be_read_the_difference_that_is_seen_is_told() {
    let case = Case::new();
    case.take(false).unwrap();
    case.grow("a");
    case.grow("new");
    for depth in [Depth::Full, Depth::Quick, Depth::Full, Depth::Quick] {
        assert_eq!(case.listed(depth, &[]), ["/a content", "/a limit", "/new created", "/new limit"], "{depth:?}");
    }
    fs::write(case.tree.join("a"), "a").unwrap();
    fs::remove_file(case.tree.join("new")).unwrap();
    assert_eq!(case.listed(Depth::Quick, &[]), ["/a metadata"]);
}

#[test]
fn pipes_and_sockets_are_told_apart() {
    let case = Case::new();
    let path = case.tree.join("x");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o755), 0).unwrap();
    case.take(false).unwrap();
    fs::remove_file(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for depth in [Depth::Full, Depth::Quick] {
        assert_eq!(case.listed(depth, &[]), ["/x type"]);
    }
}

#[test]
fn a_path_of_which_nothing_would_be_said_is_refused() {
    let case = Case::new();
    case.take(false).unwrap();
    fs::write(case.tree.join("new"), "new").unwrap();
    fs::remove_dir_all(case.tree.join("inner")).unwrap();
    for depth in [Depth::Full, Depth::Quick] {
        let compare = |name: &str| case.compare(depth, &[case.tree.join(name)]);
        assert!(matches!(compare("noise"), Err(Error::NotCovered { .. })), "it is left out");
        assert!(matches!(compare("typo"), Err(Error::NotThere { .. })));
        assert_eq!(case.listed(depth, &[case.tree.join("new")]), ["/new created"]);
        assert_eq!(case.listed(depth, &[case.tree.join("inner/c")]), ["/inner/c deleted"]);
    }
}

#[test]
fn a_look_at_a_part_reads_no_more_than_that() {
    let case = Case::new();
    case.take(false).unwrap();
    let looked = case.compare(Depth::Full, &[case.tree.join("a")]).unwrap();
    assert_eq!((looked.outcome.stats.files_read, looked.outcome.changes_total), (1, 0));
}

#[test]
fn a_baseline_of_nothing_is_refused() {
    let case = Case::new();
    case.take(false).unwrap();
    let before = fs::read(&case.file).unwrap();
    let taken = |paths: Vec<PathBuf>| take(&Live::new(), &case.look(), WatchSet { paths, ..case.set() }, true);
    assert!(matches!(taken(vec![case.tree.join("typo")]), Err(Error::Nothing { .. })));
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    assert!(matches!(taken(vec![case.tree.join(name)]), Err(Error::NotText { .. })));
    assert_eq!(fs::read(&case.file).unwrap(), before);
    let look = Look { file: &case.folder.path().join(name), ..case.look() };
    assert!(matches!(take(&Live::new(), &look, case.set(), true), Err(Error::NotText { .. })));
    let look = Look { file: &case.tree, ..case.look() };
    assert!(matches!(take(&Live::new(), &look, case.set(), true), Err(Error::NotFile { .. })));
}

#[test]
fn a_baseline_that_would_differ_from_itself_is_refused_by_whatever_name() {
    let case = Case::new();
    let link = case.folder.path().join("link");
    std::os::unix::fs::symlink(&case.tree, &link).unwrap();
    let (by_link, by_tree) = (link.join("inner"), case.tree.join("inner"));
    let take = |folder: &Path, path: &Path, exclude: &str| {
        let (file, exclude) = (folder.join("fim.db"), vec![exclude.to_owned()]);
        let set = WatchSet { paths: vec![path.to_owned()], exclude, ..case.set() };
        take(&Live::new(), &Look { file: &file, ..case.look() }, set, true)
    };
    for (folder, path) in [(&by_link, &by_link), (&by_tree, &by_link), (&by_link, &by_tree)] {
        assert!(matches!(take(folder, path, "none"), Err(Error::Inside { .. })), "{folder:?} {path:?}");
        let name = path.join("fim.db").to_str().unwrap()[1..].to_owned();
        assert!(matches!(take(folder, path, &name), Err(Error::Inside { .. })), "what is kept beside it is covered");
        take(folder, path, &format!("{name}*")).unwrap();
    }
}

#[test]
fn a_folder_that_somebody_keeps_locked_holds_up_no_look_for_ever() {
    let case = Case::new();
    case.take(false).unwrap();
    let folder = fs::File::open(case.folder.path()).unwrap();
    folder.lock().unwrap();
    assert!(matches!(case.compare(Depth::Quick, &[]), Err(Error::Engine(check::Error::Locked { .. }))));
    assert_eq!(case.changes(Depth::Full, &[]), changed(&[]));
    drop(folder);
    assert_eq!(case.changes(Depth::Quick, &[]), changed(&[]));
}

#[test]
fn of_two_that_take_a_baseline_at_once_one_does_and_the_other_says_that_it_is_there() {
    for _ in 0..20 {
        let case = Case::new();
        let taken: Vec<_> = std::thread::scope(|scope| {
            let both = [scope.spawn(|| case.take(false)), scope.spawn(|| case.take(false))];
            both.map(|one| one.join().unwrap()).into()
        });
        let [first, second] = &taken[..] else { panic!() };
        let (taken, refused) = if first.is_ok() { (first, second) } else { (second, first) };
        // The one that has the lock may have it for longer than the other waits in a test.
        let expected =
            |error: &Error| matches!(error, Error::Exists { .. } | Error::Engine(check::Error::Locked { .. }));
        assert!(taken.is_ok() && refused.as_ref().is_err_and(expected), "{:?}", refused.as_ref().err());
        assert_eq!(case.changes(Depth::Full, &[]), changed(&[]));
    }
}

#[test]
fn whoever_is_stopped_while_it_waits_leaves_the_drafts_of_the_other_alone() {
    let case = Case::new();
    let draft = case.folder.path().join("fim.db.new");
    let is_own = || Lock::drafts().contains(&draft);
    assert!(!is_own());
    let lock = check::locked(&store(&case.look()).unwrap()).unwrap();
    assert!(is_own());
    drop(lock);
    assert!(!is_own());
}

#[test]
fn a_pipe_in_the_place_of_what_is_kept_beside_the_baseline_holds_up_nothing() {
    let case = Case::new();
    case.take(false).unwrap();
    case.changes(Depth::Quick, &[]);
    fs::write(case.tree.join("a"), "tampered").unwrap();
    for name in ["owners", "scans", "changes"] {
        let path = case.folder.path().join(format!("fim.db.{name}"));
        let _ = fs::remove_file(&path);
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for depth in [Depth::Full, Depth::Quick] {
            assert_eq!(case.changes(depth, &[]), changed(&[("/a", "content")]), "{name}");
        }
    }
    fs::remove_file(&case.file).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, &case.file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(case.compare(Depth::Full, &[]).is_err());
}
