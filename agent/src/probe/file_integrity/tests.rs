//! Looks at machines that a test makes up, one after the other, with one memory.

use std::path::PathBuf;

use muster_proto::fact::{ChangeKind, PathText, WatchState};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::fim::is_at_or_below;
use crate::host::{
    Metadata, Recorded, Scanned,
    recorded::{Answer, Failure, Index, ScanLine},
};

const EACCES: i32 = 13;
const ENOENT: i32 = 2;

/// An entry of a made-up machine.
#[derive(Clone, Copy)]
enum Made {
    /// A file whose content is of one byte, repeated.
    File(u8),
    Folder,
    /// A link to the path.
    Link(&'static str),
    Unreadable,
}

use Made::{File, Folder, Link, Unreadable};

/// A made-up machine, and what looks at it leave behind.
struct Machine {
    capture: tempfile::TempDir,
    memory: tempfile::TempDir,
    minutes: u64,
    /// A package's paths, and when it was unpacked.
    package: Option<(Vec<String>, &'static str)>,
    files: FileLook<'static>,
}

impl Machine {
    fn new() -> Self {
        Self {
            capture: tempfile::tempdir().unwrap(),
            memory: tempfile::tempdir().unwrap(),
            minutes: 0,
            package: None,
            files: FileLook::default(),
        }
    }

    /// Looks once: at a machine with these entries, in order, of which those are watched.
    fn look(&mut self, watched: &[&str], entries: &[(&str, Made)]) -> Result<FileIntegrity, Unknown> {
        let host = self.host(watched, entries);
        let settings = settings(watched);
        self.minutes += 1;
        let now = host.captured().plus(std::time::Duration::from_secs(60 * self.minutes));
        let watch = WatchState::Live;
        let (memory, files) = (self.memory.path(), self.files);
        state(&Look { host: &host, now, settings: &settings, memory, watch, run: 7, files })
    }

    fn rebaseline(&mut self, watched: &[&str], entries: &[(&str, Made)]) {
        let host = self.host(watched, entries);
        rebaseline(&host, &settings(watched), self.memory.path(), host.captured(), "reviewed").unwrap();
    }

    fn host(&self, watched: &[&str], entries: &[(&str, Made)]) -> Recorded {
        let mut index = Index {
            version: 1,
            captured: "2026-11-24T12:00:00Z".parse().unwrap(),
            os_family: muster_proto::fact::OsFamily::Linux,
            machine: None,
            clock_is_synchronized: None,
            clock: None,
            socket_owners: None,
            lists: Default::default(),
            links: Default::default(),
            metadata: Default::default(),
            digests: Default::default(),
            space: Default::default(),
            luks: Default::default(),
            encryption_policies: Default::default(),
            scans: Default::default(),
            errors: Default::default(),
        };
        std::fs::create_dir_all(self.capture.path().join("scans")).unwrap();
        for (number, root) in (0..).zip(watched) {
            let below = entries.iter().filter(|(path, _)| is_at_or_below(path.as_bytes(), root.as_bytes()));
            let lines: String = below.map(|(path, made)| scan_line(path, *made)).collect();
            if lines.is_empty() {
                index.errors.insert(format!("scan {root}"), failure(ENOENT));
                continue;
            }
            std::fs::write(self.capture.path().join(format!("scans/{number}.jsonl")), lines).unwrap();
            index.scans.insert(text(root), number);
        }
        for (path, made) in entries {
            if let Link(target) = made {
                index.links.insert(text(path), text(target));
            }
        }
        if let Some((paths, unpacked)) = &self.package {
            let dpkg = self.capture.path().join("files/var/lib/dpkg");
            std::fs::create_dir_all(dpkg.join("info")).unwrap();
            let status = "Package: p\nStatus: install ok installed\nVersion: 1\n\n";
            std::fs::write(dpkg.join("status"), status).unwrap();
            std::fs::write(dpkg.join("info/p.list"), paths.join("\n") + "\n").unwrap();
            for empty in ["statoverride", "diversions", "info/p.md5sums"] {
                std::fs::write(dpkg.join(empty), "").unwrap();
            }
            index.lists.insert(text("/var/lib/dpkg/info"), vec![text("p.list")]);
            for file in ["status", "info/p.list"] {
                index.metadata.insert(text(&format!("/var/lib/dpkg/{file}")), metadata("file", unpacked));
            }
            index.errors.insert("list /var/lib/dpkg/updates".to_owned(), failure(ENOENT));
        }
        std::fs::write(self.capture.path().join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        Recorded::at(self.capture.path()).unwrap()
    }
}

fn settings(watched: &[&str]) -> Settings {
    Settings { watched_paths: watched.iter().map(PathBuf::from).collect(), ..Settings::default() }
}

fn text(path: &str) -> PathText {
    PathText::from_bytes(path.as_bytes())
}

fn failure(errno: i32) -> Failure {
    Failure { errno: Some(errno), kind: String::new(), text: String::new() }
}

fn scan_line(path: &str, made: Made) -> String {
    let scanned = |kind, sha256| {
        Answer::Ok(Scanned { metadata: metadata(kind, "2026-11-01T00:00:00Z"), sha256, attributes: Vec::new() })
    };
    let result = match made {
        File(content) => scanned("file", Some([content; 32])),
        Folder => scanned("folder", None),
        Link(target) => scanned("link", Some(Sha256::digest(target).into())),
        Unreadable => Answer::Err(failure(EACCES)),
    };
    serde_json::to_string(&ScanLine { path: text(path), result }).unwrap() + "\n"
}

fn metadata(kind: &str, modified: &str) -> Metadata {
    serde_json::from_value(serde_json::json!({
        "kind": kind, "size_bytes": 1, "modified": modified, "mode": 0o644, "uid": 0, "gid": 0,
        "device": [8, 1], "inode": 1,
    }))
    .unwrap()
}

fn changes(state: &FileIntegrity) -> Vec<(ChangeKind, &str)> {
    state.changes.iter().map(|change| (change.kind, change.path.as_str())).collect()
}

fn unreadable(state: &FileIntegrity) -> Vec<(&str, Cause)> {
    assert_eq!(state.unreadable_total, state.unreadable.len() as u64);
    state.unreadable.iter().map(|unreadable| (unreadable.path.as_str(), unreadable.unknown.cause)).collect()
}

#[test]
fn very_many_changes_are_explained_each_by_itself() {
    let mut machine = Machine::new();
    machine.look(&["/a"], &[("/a", Folder)]).unwrap();
    let wide = (0..9_000).map(|number| format!("/a/wide/{number:05}"));
    let deep = (0..9_000).map(|number| format!("/a/wide2/{:03}/{:03}", number / 100, number % 100));
    let folders = (0..90).map(|number| format!("/a/wide2/{number:03}"));
    let mut paths: Vec<_> =
        ["/a/wide", "/a/wide2"].map(str::to_owned).into_iter().chain(wide).chain(deep).chain(folders).collect();
    paths.sort_by(|a, b| crate::fim::order(a.as_bytes(), b.as_bytes()));
    let entries: Vec<_> =
        [("/a", Folder)].into_iter().chain(paths.iter().map(|path| (path.as_str(), Folder))).collect();
    let stranger = "/a/wide2/045/050";
    let listed = paths.iter().filter(|path| *path != stranger).cloned().collect();
    machine.package = Some((listed, "2026-11-24T12:01:30Z"));
    let state = machine.look(&["/a"], &entries).unwrap();
    assert_eq!(changes(&state), [(ChangeKind::Created, stranger)]);
    assert_eq!(state.explained_total, paths.len() as u64 - 1);
}

#[test]
fn what_the_baseline_could_not_read_is_not_covered_until_it_is_taken_afresh() {
    let mut machine = Machine::new();
    let blind = [("/a", Folder), ("/a/b", Unreadable), ("/a/d", Unreadable)];
    let readable = [("/a", Folder), ("/a/b", File(1)), ("/a/d", Folder), ("/a/d/e", File(2)), ("/a/f", File(3))];
    let state = machine.look(&["/a"], &blind).unwrap();
    assert_eq!(unreadable(&state), [("/a/b", Cause::Forbidden), ("/a/d", Cause::Forbidden)]);
    for _ in 0..2 {
        let state = machine.look(&["/a"], &readable).unwrap();
        assert_eq!(changes(&state), [(ChangeKind::Created, "/a/f")]);
        let expected = ["/a/b", "/a/d", "/a/d/e"].map(|path| (path, Cause::Absent));
        assert_eq!(unreadable(&state), expected);
    }
    machine.rebaseline(&["/a"], &readable);
    let state = machine.look(&["/a"], &readable).unwrap();
    assert_eq!((changes(&state), unreadable(&state)), (vec![], vec![]));
}

#[test]
fn a_known_change_stays_while_it_cannot_be_read() {
    let mut machine = Machine::new();
    machine.look(&["/a"], &[("/a", Folder), ("/a/b", File(1)), ("/a/c", Folder), ("/a/c/d", File(1))]).unwrap();
    let changed = [("/a", Folder), ("/a/b", File(2)), ("/a/c", Folder), ("/a/c/d", File(2)), ("/a/c/new", File(1))];
    let before = machine.look(&["/a"], &changed).unwrap();
    assert_eq!(before.changes_total, 3);
    let hidden = machine.look(&["/a"], &[("/a", Folder), ("/a/b", Unreadable), ("/a/c", Unreadable)]).unwrap();
    assert_eq!(hidden.changes, before.changes);
    assert_eq!(machine.look(&["/a"], &changed).unwrap().changes, before.changes);
}

#[test]
fn a_new_list_of_paths_forgives_no_difference() {
    let mut machine = Machine::new();
    let before = [("/a", Folder), ("/a/b", File(1)), ("/a/gone", File(1)), ("/c", Folder), ("/c/d", File(1))];
    machine.look(&["/a", "/c"], &before).unwrap();
    let after = [("/a", Folder), ("/a/b", File(2)), ("/c", Folder), ("/c/d", File(2)), ("/e", File(1))];
    let first = machine.look(&["/a", "/c"], &after).unwrap();
    assert_eq!(first.changes_total, 3);
    // `/c` is watched no more, and `/e` is new.
    let second = machine.look(&["/a", "/e"], &after).unwrap();
    assert_eq!(second.changes, first.changes[..2]);
    assert_ne!(second.baseline.id, first.baseline.id);
    assert_eq!(second.baseline.reason.as_str(), Baseline::SETS_CHANGED);
    // A difference that arose since the look before is found although the list changes with it.
    let tampered = [("/a", Folder), ("/a/b", File(3)), ("/e", File(1)), ("/f", File(1))];
    let third = machine.look(&["/a", "/e", "/f"], &tampered).unwrap();
    assert_eq!(changes(&third), [(ChangeKind::Content, "/a/b"), (ChangeKind::Deleted, "/a/gone")]);
    let fourth = machine.look(&["/a", "/e", "/f"], &[("/a", Folder), ("/e", File(2)), ("/f", File(1))]).unwrap();
    let expected = [(ChangeKind::Deleted, "/a/b"), (ChangeKind::Deleted, "/a/gone"), (ChangeKind::Content, "/e")];
    assert_eq!(changes(&fourth), expected);
}

#[test]
fn a_path_watched_above_or_below_the_old_one_keeps_its_old_state() {
    let mut machine = Machine::new();
    machine.look(&["/a/b"], &[("/a/b", Folder), ("/a/b/c", File(1)), ("/a/b/d", File(1))]).unwrap();
    let now = [("/a", Folder), ("/a/a", File(1)), ("/a/b", Folder), ("/a/b/c", File(2)), ("/a/z", File(1))];
    let wider = machine.look(&["/a"], &now).unwrap();
    assert_eq!(changes(&wider), [(ChangeKind::Content, "/a/b/c"), (ChangeKind::Deleted, "/a/b/d")]);
    assert_eq!(wider.baseline.entries, 6);
    let narrower = machine.look(&["/a/b/c", "/a/z"], &now).unwrap();
    assert_eq!(changes(&narrower), [(ChangeKind::Content, "/a/b/c")]);
    assert_eq!(narrower.changes[0].detected_time, wider.changes[0].detected_time);
}

#[test]
fn a_baseline_that_is_gone_is_never_taken_again_by_itself() {
    let entries = [("/a", Folder), ("/a/b", File(1))];
    for take in [
        (|machine: &mut Machine, entries: &[(&str, Made)]| drop(machine.look(&["/a"], entries).unwrap()))
            as fn(&mut _, &[_]),
        |machine, entries| machine.rebaseline(&["/a"], entries),
    ] {
        let mut machine = Machine::new();
        take(&mut machine, &entries);
        std::fs::remove_file(machine.memory.path().join("baseline")).unwrap();
        let unknown = machine.look(&["/a"], &entries).unwrap_err();
        assert_eq!(unknown.cause, Cause::Absent);
        machine.rebaseline(&["/a"], &entries);
        assert_eq!(machine.look(&["/a"], &entries).unwrap().changes_total, 0);
    }
}

#[test]
fn a_watched_path_that_is_a_link_covers_nothing_unless_its_target_is_watched() {
    let entries = [("/bin", Link("usr/bin")), ("/usr/bin", Folder), ("/usr/bin/a", File(1))];
    let mut machine = Machine::new();
    let alone = machine.look(&["/bin"], &entries).unwrap();
    assert_eq!(unreadable(&alone), [("/bin", Cause::Unsupported)]);
    let Reading::Unknown { unknown } = &alone.paths[0].entries else { panic!("{:?}", alone.paths) };
    assert_eq!(unknown.detail.as_str(), "it is a link to usr/bin: watch that path");
    let both = machine.look(&["/bin", "/usr/bin"], &entries).unwrap();
    assert_eq!(unreadable(&both), []);
    // The link itself, of which the target is compared; what is there counts where it is.
    assert_eq!(both.paths[0].entries, Reading::Known(1));
    assert_eq!(both.paths[1].entries, Reading::Known(2));
}

#[test]
fn without_a_time_to_read_files_again_the_fact_says_that_they_are_not() {
    let mut machine = Machine::new();
    let entries = [("/a", Folder), ("/a/b", File(1))];
    let daily = machine.look(&["/a"], &entries).unwrap();
    assert_eq!((daily.reread_seconds, daily.reread_in_time), (86_400, Some(Reading::Known(true))));
    let host = machine.host(&["/a"], &entries);
    let settings = Settings { file_reread_hours: 0, ..settings(&["/a"]) };
    let (now, memory, files) = (host.captured(), machine.memory.path(), machine.files);
    let look = Look { host: &host, now, settings: &settings, memory, watch: WatchState::Live, run: 7, files };
    let never = state(&look).unwrap();
    assert_eq!((never.reread_seconds, never.reread_in_time), (0, Some(Reading::Known(false))));
}

#[test]
fn a_baseline_is_taken_afresh_of_the_sets_of_the_one_before() {
    let mut machine = Machine::new();
    let entries = [("/a", Folder), ("/a/f", File(1)), ("/b", Folder), ("/b/g", File(1))];
    let before = machine.look(&["/a", "/b"], &entries).unwrap();
    let changed = [("/a", Folder), ("/a/f", File(2)), ("/b", Folder), ("/b/g", File(2))];
    assert_eq!(machine.look(&["/a", "/b"], &changed).unwrap().changes_total, 2);
    // The settings of this host name less than what a collector gave the agent.
    let host = machine.host(&["/a", "/b"], &changed);
    let taken = rebaseline(&host, &settings(&["/a"]), machine.memory.path(), host.captured(), "reviewed").unwrap();
    let after = machine.look(&["/a", "/b"], &changed).unwrap();
    assert_eq!((after.baseline, after.changes_total, after.entries), (taken.baseline, 0, before.entries));
}
