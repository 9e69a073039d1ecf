//! A real watch of real folders.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::*;
use crate::host;

/// How long a test waits for what should take moments.
const PATIENCE: Duration = Duration::from_secs(60);

/// A watch of a folder, and what it told so far.
struct Watched {
    folder: tempfile::TempDir,
    watch: Watch,
    overflowed: bool,
}

impl Watched {
    /// Watches a folder in which `prepare` made something, and waits until all of it is watched.
    async fn start(folders: usize, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let watch = Watch::start(&settings(&[folder.path()], folders));
        let mut watched = Self { folder, watch, overflowed: false };
        let first = watched.next().await;
        assert_eq!(first, Places::Everything, "a scan may have passed what changed before the watch");
        watched
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    async fn next(&mut self) -> Places {
        let mut hint = tokio::time::timeout(PATIENCE, self.watch.next()).await.expect("a hint");
        self.overflowed |= hint.overflowed;
        hint.dirty.take()
    }

    /// Waits until every one of `paths`, below the folder, was told to have changed, itself or with a folder above it.
    async fn told(&mut self, paths: &[&str]) {
        let mut waiting: BTreeSet<_> = paths.iter().map(|path| self.path(path)).collect();
        while !waiting.is_empty() {
            match self.next().await {
                Places::Everything => return,
                Places::Below(places) => {
                    let places: Vec<_> = places.iter().map(|place| host::path_of(place)).collect();
                    waiting.retain(|path| !places.iter().any(|place| path.starts_with(place)));
                }
            }
        }
    }

    async fn until_folders(&mut self, live: u64, scan_only: u64) {
        let counts = |coverage: &Coverage| (coverage.folders_live, coverage.folders_scan_only);
        while counts(&self.watch.coverage()) != (live, scan_only) {
            self.next().await;
        }
    }
}

fn settings(paths: &[&Path], watched_folders: usize) -> Settings {
    let watched_paths = paths.iter().map(PathBuf::from).collect();
    Settings { watched_paths, watched_folders, ..Settings::default() }
}

fn make(folder: &Path, names: &[&str]) {
    names.iter().for_each(|name| fs::create_dir_all(folder.join(name)).unwrap());
}

#[tokio::test]
async fn a_change_in_any_folder_is_told_with_its_place() {
    let mut watched = Watched::start(100, |folder| make(folder, &["a/b", "c"])).await;
    assert_eq!(watched.watch.coverage().state, WatchState::Live);
    fs::write(watched.path("a/b/file"), "x").unwrap();
    assert_eq!(watched.next().await, Places::Below(vec![host::path_bytes(&watched.path("a/b/file"))]));
    fs::remove_file(watched.path("a/b/file")).unwrap();
    watched.told(&["a/b/file"]).await;
}

#[tokio::test]
async fn what_happens_in_folders_that_came_is_told() {
    let mut watched = Watched::start(1_000, |_| ()).await;
    // Whatever is in it at once is told with the folder, whatever comes later by itself.
    make(watched.folder.path(), &["new/in/new"]);
    fs::write(watched.path("new/in/new/file"), "x").unwrap();
    watched.told(&["new"]).await;
    watched.until_folders(4, 0).await;
    fs::write(watched.path("new/in/new/later"), "x").unwrap();
    watched.told(&["new/in/new/later"]).await;

    let outside = tempfile::tempdir_in(watched.folder.path().parent().unwrap()).unwrap();
    make(outside.path(), &["moved/in"]);
    fs::rename(outside.path().join("moved"), watched.path("moved")).unwrap();
    watched.told(&["moved"]).await;
    watched.until_folders(6, 0).await;
    fs::write(watched.path("moved/in/file"), "x").unwrap();
    watched.told(&["moved/in/file"]).await;

    // Under its other name, and outside no more.
    fs::rename(watched.path("moved"), watched.path("new/moved")).unwrap();
    watched.told(&["moved", "new/moved"]).await;
    fs::write(watched.path("new/moved/in/file"), "y").unwrap();
    watched.told(&["new/moved/in/file"]).await;
    fs::rename(watched.path("new"), outside.path().join("new")).unwrap();
    watched.told(&["new"]).await;
    watched.until_folders(1, 0).await;
    fs::write(outside.path().join("new/in/new/file"), "z").unwrap();
    fs::write(watched.path("last"), "x").unwrap();
    assert_eq!(watched.next().await, Places::Below(vec![host::path_bytes(&watched.path("last"))]));
}

#[tokio::test]
async fn a_watched_path_may_be_a_file_and_may_come_go_and_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("file"), "x").unwrap();
    let watch = Watch::start(&settings(&[&path("file"), &path("later/on/folder")], 100));
    let mut watched = Watched { folder: tempfile::tempdir().unwrap(), watch, overflowed: false };
    assert_eq!(watched.next().await, Places::Everything);
    let place = |name: &str| Places::Below(vec![host::path_bytes(&path(name))]);
    for _ in 0..3 {
        fs::write(path("other"), "y").unwrap();
        fs::rename(path("other"), path("file")).unwrap();
        assert_eq!(watched.next().await, place("file"));
    }
    make(folder.path(), &["later/on/folder/in"]);
    assert_eq!(watched.next().await, place("later/on/folder"));
    watched.until_folders(2, 0).await;
    fs::write(path("later/on/folder/in/file"), "x").unwrap();
    while watched.next().await != place("later/on/folder/in/file") {}
    fs::remove_dir_all(path("later")).unwrap();
    watched.until_folders(0, 0).await;
    make(folder.path(), &["later/on/folder"]);
    watched.until_folders(1, 0).await;
}

#[tokio::test]
async fn folders_beyond_the_limit_are_counted_and_watched_when_there_is_room() {
    let mut watched = Watched::start(4, |folder| make(folder, &["a", "b/c", "d/e", "f"])).await;
    let coverage = watched.watch.coverage();
    assert_eq!((coverage.folders_live, coverage.folders_scan_only, coverage.state), (4, 3, WatchState::Partial));
    let listed: Vec<_> = coverage.scan_only.iter().map(|top| PathBuf::from(top.path.to_string())).collect();
    assert_eq!((listed, coverage.scan_only_total), (vec![watched.path("d"), watched.path("f")], 2));
    fs::remove_dir_all(watched.path("b")).unwrap();
    watched.until_folders(4, 1).await;
    // What happens below a folder that is only scanned is found out by counting again.
    make(watched.folder.path(), &["f/g/h"]);
    watched.watch.refresh();
    watched.until_folders(4, 3).await;
}

#[tokio::test]
async fn without_a_watch_the_folders_are_counted_still() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &["a/b"]);
    let watch = Watch::start(&settings(&[folder.path()], 0));
    let hint = tokio::time::timeout(PATIENCE, watch.next()).await.expect("a hint");
    assert_eq!((hint.probes, hint.dirty.is_empty()), (vec![Probe::FileIntegrity], true));
    let coverage = watch.coverage();
    assert_eq!((coverage.state, coverage.folders_live, coverage.folders_scan_only), (WatchState::ScanOnly, 0, 3));
    assert_eq!(coverage.scan_only_total, 1);
}

#[tokio::test]
async fn after_any_storm_every_folder_is_watched() {
    let mut watched = Watched::start(10_000, |folder| make(folder, &["a/0", "b"])).await;
    for round in 0..200 {
        make(watched.folder.path(), &[&format!("a/{round}/x/y"), "swapped/deep/deeper"]);
        fs::rename(watched.path(&format!("a/{round}/x")), watched.path(&format!("b/{round}"))).unwrap();
        fs::rename(watched.path("swapped"), watched.path(&format!("b/{round}/s"))).unwrap();
        if round % 3 == 0 {
            fs::remove_dir_all(watched.path(&format!("b/{round}"))).unwrap();
        }
    }
    // Each round leaves `a/N`, and two of three rounds `b/N` with `y` and `s/deep/deeper` in it.
    let left = 200 + 133 * 5 + 3;
    watched.until_folders(left, 0).await;
    for place in ["a/199/file", "b/199/s/deep/deeper/file", "b/1/y/file"] {
        fs::write(watched.path(place), "x").unwrap();
        watched.told(&[place]).await;
    }
    assert!(!watched.overflowed, "the queue holds more than this storm");
}
