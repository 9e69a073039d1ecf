//! What is explained on machines that a test makes up, as captures.

use std::{collections::BTreeMap, fs, path::Path};

use md5::Md5;
use muster_proto::fact::{ChangeKind, ExplanationSource, ExtendedAttribute, FileState, OsFamily, PathText, Reading};

use super::*;
use crate::host::{
    Digests, EntryKind, Metadata, Recorded,
    recorded::{Failure, Index},
};

const ENOENT: i32 = 2;
const EIO: i32 = 5;
/// The look before, the time at which packages are unpacked, and the look after.
const BEFORE: &str = "2026-11-24T12:00:00Z";
const UNPACKED: &str = "2026-11-24T12:10:00Z";
const AFTER: &str = "2026-11-24T12:20:00Z";

const INSTALLED: &str = "install ok installed";

/// A package of dpkg.
#[derive(Clone, Default)]
struct Package {
    version: String,
    state: &'static str,
    unpacked: String,
    /// Paths with their content.
    files: Vec<(String, String)>,
    conffiles: Vec<(String, String)>,
    /// Paths of folders and links.
    others: Vec<String>,
}

/// A made-up machine.
struct Machine {
    capture: tempfile::TempDir,
    memory: tempfile::TempDir,
    packages: BTreeMap<String, Package>,
    index: Index,
    diversions: String,
    overrides: String,
    /// What update-alternatives(1) has registered, by name.
    alternatives: Vec<(&'static str, &'static str)>,
    /// When dpkg last wrote its database.
    written: &'static str,
}

/// Explains changes that the test owns.
fn explain(host: &dyn Host, memory: Option<Memory<'_>>, changes: &mut BTreeMap<Vec<u8>, FileChange>) -> io::Result<()> {
    explain_since(host, memory, changes, |change| (change.last_unchanged_time, true))
}

/// Explains changes whose state before was last seen then, and which the look that has just ended found, or an earlier one.
fn explain_since(
    host: &dyn Host,
    memory: Option<Memory<'_>>,
    changes: &mut BTreeMap<Vec<u8>, FileChange>,
    since: impl Fn(&FileChange) -> (Timestamp, bool),
) -> io::Result<()> {
    let mut all = Changes::new();
    for (path, change) in changes {
        let (since, is_new) = since(change);
        all.insert(path, Asked { change, root: b"/", since, is_new });
    }
    super::explain(host, memory, &mut all)
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn text(path: &str) -> PathText {
    PathText::from_bytes(path.as_bytes())
}

fn hex_md5(content: &str) -> String {
    hex::encode(Md5::digest(content))
}

fn metadata(kind: EntryKind, modified: &str, inode: u64) -> Metadata {
    Metadata {
        kind,
        size_bytes: 1,
        modified: Some(time(modified)),
        mode: 0o644,
        uid: 0,
        gid: 0,
        device: (8, 1),
        inode,
        links: 1,
        changed_nanos: None,
    }
}

fn package(version: &str, files: &[(&str, &str)], others: &[&str]) -> Package {
    let files = files.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect();
    let others = others.iter().map(|path| (*path).to_owned()).collect();
    let (version, unpacked) = (version.to_owned(), UNPACKED.to_owned());
    Package { version, state: INSTALLED, unpacked, files, others, ..Package::default() }
}

impl Machine {
    fn new() -> Self {
        let index = Index {
            version: 1,
            captured: time(BEFORE),
            os_family: OsFamily::Linux,
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
        Self {
            capture: tempfile::tempdir().unwrap(),
            memory: tempfile::tempdir().unwrap(),
            packages: BTreeMap::new(),
            index,
            diversions: String::new(),
            overrides: String::new(),
            alternatives: Vec::new(),
            written: "2026-11-01T00:00:00Z",
        }
    }

    fn with(packages: Vec<(&str, Package)>) -> Self {
        let mut machine = Self::new();
        machine.packages = packages.into_iter().map(|(name, package)| (name.to_owned(), package)).collect();
        machine
    }

    fn memory(&self) -> Memory<'_> {
        Memory { folder: self.memory.path(), name: NAME, owner: Owner::OfFolder }
    }

    fn write(&self, path: &str, content: &str) {
        let file = self.capture.path().join("files").join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    fn content(&mut self, path: &str, content: &str) {
        let digests = Digests { sha256: Sha256::digest(content).into(), md5: Md5::digest(content).into() };
        self.index.digests.insert(text(path), digests);
    }

    fn link(&mut self, path: &str, target: &str) {
        self.index.links.insert(text(path), text(target));
    }

    /// Returns the machine with its database of packages as it is now.
    fn host(&mut self) -> Recorded {
        let _ = fs::remove_dir_all(self.capture.path().join("files"));
        let info = "/var/lib/dpkg/info";
        let (mut status, mut names) = (String::new(), Vec::new());
        for (name, package) in &self.packages {
            let conffiles: String =
                package.conffiles.iter().map(|(path, content)| format!(" {path} {}\n", hex_md5(content))).collect();
            let conffiles = if conffiles.is_empty() { conffiles } else { format!("Conffiles:\n{conffiles}") };
            let Package { version, state, .. } = package;
            status += &format!("Package: {name}\nStatus: {state}\nVersion: {version}\n{conffiles}\n");
            let files = package.files.iter().chain(&package.conffiles).map(|(path, _)| path);
            let list: String = files.chain(&package.others).map(|path| format!("{path}\n")).collect();
            self.write(&format!("{info}/{name}.list"), &format!("/.\n{list}"));
            let sums = package.files.iter().map(|(path, content)| format!("{}  {}\n", hex_md5(content), &path[1..]));
            self.write(&format!("{info}/{name}.md5sums"), &sums.collect::<String>());
            let unpacked = metadata(EntryKind::File, &package.unpacked, 7);
            self.index.metadata.insert(text(&format!("{info}/{name}.list")), unpacked);
            names.extend([text(&format!("{name}.list")), text(&format!("{name}.md5sums"))]);
            // What a link leads to is looked at: nothing is there, unless the test says so.
            for path in package.files.iter().chain(&package.conffiles).map(|(path, _)| path).chain(&package.others) {
                let failure = Failure { errno: Some(ENOENT), kind: String::new(), text: String::new() };
                for path in [path.clone(), format!("/usr{path}")] {
                    self.index.errors.entry(format!("metadata {path}")).or_insert_with(|| failure.clone());
                }
            }
        }
        self.write("/var/lib/dpkg/status", &status);
        self.write("/var/lib/dpkg/diversions", &self.diversions);
        self.write("/var/lib/dpkg/statoverride", &self.overrides);
        self.write("/etc/passwd", "root:x:0:0:::\nwww-data:x:33:33:::\n");
        self.write("/etc/group", "root:x:0:\nwww-data:x:33:\n");
        self.index.lists.insert(text(info), names);
        let registry = "/var/lib/dpkg/alternatives";
        self.alternatives.iter().for_each(|(name, lines)| self.write(&format!("{registry}/{name}"), lines));
        self.index.lists.insert(text(registry), self.alternatives.iter().map(|(name, _)| text(name)).collect());
        for what in [
            "list /var/lib/dpkg/updates",
            "list /var/lib/pacman/local",
            "list /var/lib/alternatives",
            "list /var/lib/rpm/alternatives",
        ] {
            let failure = Failure { errno: Some(ENOENT), kind: String::new(), text: String::new() };
            self.index.errors.insert(what.to_owned(), failure);
        }
        let failure = Failure { errno: None, kind: "not_found".to_owned(), text: String::new() };
        let args = ["-qa", "--nodigest", "--nosignature", "--qf", rpm::FORMAT];
        self.index.errors.insert(crate::host::recorded::tool_name(crate::host::Tool::Rpm, &args), failure);
        // Another one after each change, as of a file that is replaced.
        let inode = self.index.metadata.get(&text("/var/lib/dpkg/status")).map_or(1, |status| status.inode + 1);
        self.index.metadata.insert(text("/var/lib/dpkg/status"), metadata(EntryKind::File, self.written, inode));
        fs::write(self.capture.path().join("index.json"), serde_json::to_vec(&self.index).unwrap()).unwrap();
        Recorded::at(self.capture.path()).unwrap()
    }

    /// Returns what explains each of `changes`: `package version basis`, or the name of a rule, or nothing.
    fn explained(&mut self, changes: Vec<FileChange>) -> BTreeMap<String, String> {
        let host = self.host();
        let mut changes = changes.into_iter().map(|change| (change.path.to_bytes().unwrap(), change)).collect();
        explain(&host, Some(self.memory()), &mut changes).unwrap();
        let told = |change: FileChange| match change.explanation {
            None => String::new(),
            Some(it) if it.source == ExplanationSource::Generated => it.basis.as_str().to_owned(),
            Some(it) => format!("{} {} {}", it.package.as_str(), it.version.as_str(), it.basis.as_str()),
        };
        changes.into_values().map(|change| (change.path.as_str().to_owned(), told(change))).collect()
    }

    fn one(&mut self, change: FileChange) -> String {
        self.explained(vec![change]).into_values().next().unwrap()
    }
}

fn file(content: &str) -> FileState {
    FileState {
        r#type: FileType::File,
        sha256: Text::new(&hex::encode(Sha256::digest(content))),
        size_bytes: content.len() as u64,
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified_time: Reading::Known(time(BEFORE)),
        changed_time: None,
        inode: 0,
        links: 0,
        md5: Text::default(),
        extended_attributes: Vec::new(),
    }
}

fn folder() -> FileState {
    FileState { r#type: FileType::Folder, sha256: Text::default(), mode: 0o755, ..file("") }
}

fn link(target: &str) -> FileState {
    FileState { r#type: FileType::Link, mode: 0o777, ..file(target) }
}

fn change(path: &str, before: Option<FileState>, after: Option<FileState>) -> FileChange {
    let kind = match (&before, &after) {
        (None, _) => ChangeKind::Created,
        (_, None) => ChangeKind::Deleted,
        (Some(before), Some(after)) if before.r#type != after.r#type => ChangeKind::Type,
        (Some(before), Some(after)) if before.sha256 != after.sha256 => ChangeKind::Content,
        _ => ChangeKind::Metadata,
    };
    FileChange {
        path: text(path),
        kind,
        before,
        after,
        last_unchanged_time: time(BEFORE),
        detected_time: time(AFTER),
        while_not_observed: false,
        set: Text::default(),
        explanation: None,
        actors: Vec::new(),
        states_seen: 1,
    }
}

fn capability(state: FileState, meaning: &str) -> FileState {
    let name = Text::new("security.capability");
    let attribute = ExtendedAttribute { name, sha256: Text::new(&"00".repeat(32)), meaning: Text::new(meaning) };
    FileState { extended_attributes: vec![attribute], ..state }
}

/// Scenario S14: an upgrade of 200 packages, and one more file that is changed in the same minute.
#[test]
fn an_upgrade_of_200_packages_is_explained_and_one_tampered_file_stands_alone() {
    let of = |number: usize, version: usize| {
        let base = format!("/usr/lib/p{number}");
        let names: Vec<_> =
            (0..5).map(|file| (format!("{base}/{file}"), format!("{number} {file} {version}"))).collect();
        let library = (format!("{base}/lib.so.{version}"), format!("{number} {version}"));
        let others = vec![base.clone(), format!("{base}/lib.so"), format!("{base}/v{version}")];
        let conffiles = vec![(format!("/etc/p{number}"), format!("conf {number} {version}"))];
        let files = names.into_iter().chain([library]).collect();
        let unpacked = if version == 1 { "2026-11-01T00:00:00Z" } else { UNPACKED };
        let (version, unpacked) = (format!("{version}-{number}"), unpacked.to_owned());
        Package { version, state: INSTALLED, unpacked, files, conffiles, others }
    };
    let mut machine = Machine::new();
    machine.packages = (0..200).map(|number| (format!("p{number}"), of(number, 1))).collect();
    let host = machine.host();
    remember(&host, machine.memory(), time(BEFORE)).unwrap();
    machine.packages = (0..200).map(|number| (format!("p{number}"), of(number, 2))).collect();
    let mut changes = Vec::new();
    for number in 0..200 {
        let (old, new) = (of(number, 1), of(number, 2));
        let base = format!("/usr/lib/p{number}");
        for ((path, before), (_, after)) in
            old.files.iter().chain(&old.conffiles).zip(new.files.iter().chain(&new.conffiles))
        {
            if path.contains("lib.so") {
                continue;
            }
            machine.content(path, after);
            changes.push(change(path, Some(file(before)), Some(file(after))));
        }
        let (gone, come) = (&old.files[5], &new.files[5]);
        machine.content(&come.0, &come.1);
        changes.push(change(&gone.0, Some(file(&gone.1)), None));
        changes.push(change(&come.0, None, Some(file(&come.1))));
        changes.push(change(&format!("{base}/v1"), Some(folder()), None));
        changes.push(change(&format!("{base}/v2"), None, Some(folder())));
        machine.link(&format!("{base}/lib.so"), "lib.so.2");
        changes.push(change(&format!("{base}/lib.so"), Some(link("lib.so.1")), Some(link("lib.so.2"))));
    }
    machine.content("/usr/bin/tampered", "evil");
    changes.push(change("/usr/bin/tampered", Some(file("good")), Some(file("evil"))));
    changes.push(change("/etc/ld.so.cache", Some(file("1")), Some(file("2"))));
    let count = changes.len();
    let explained = machine.explained(changes);
    assert_eq!(explained.len(), count);
    let unexplained: Vec<_> = explained.iter().filter(|(_, by)| by.is_empty()).map(|(path, _)| path.as_str()).collect();
    assert_eq!(unexplained, ["/usr/bin/tampered"]);
    for (path, by) in [
        ("/usr/lib/p7/0", "p7 2-7 md5"),
        ("/etc/p7", "p7 2-7 md5"),
        ("/usr/lib/p7/lib.so", "p7 2-7 path"),
        ("/usr/lib/p7/lib.so.1", "p7 1-7 not listed"),
        ("/usr/lib/p7/lib.so.2", "p7 2-7 md5"),
        ("/usr/lib/p7/v1", "p7 1-7 not listed"),
        ("/usr/lib/p7/v2", "p7 2-7 path"),
        ("/etc/ld.so.cache", "ld.so.cache"),
    ] {
        assert_eq!(explained[path], by, "{path}");
    }
}

#[test]
fn a_package_explains_no_other_rights_than_before() {
    let mut machine = Machine::with(vec![("a", package("2", &[("/usr/bin/a", "new")], &[]))]);
    machine.content("/usr/bin/a", "new");
    let with = |mode, uid, gid| FileState { mode, uid, gid, ..file("new") };
    for (before, after, expected) in [
        (Some(file("old")), file("new"), "a 2 md5"),
        (Some(file("new")), with(0o644, 0, 0), "a 2 md5"),
        (Some(file("old")), with(0o4755, 0, 0), ""),
        (Some(file("new")), with(0o4755, 0, 0), ""),
        (Some(file("old")), with(0o644, 1000, 0), ""),
        (Some(file("old")), with(0o644, 0, 1000), ""),
        (Some(FileState { mode: 0o4755, ..file("old") }), with(0o4755, 0, 0), "a 2 md5"),
        (Some(file("old")), capability(file("new"), "cap_setuid=ep"), ""),
        (Some(capability(file("old"), "cap_net_raw=ep")), capability(file("new"), "cap_net_raw=ep"), "a 2 md5"),
        (None, with(0o755, 0, 0), "a 2 md5"),
        (None, with(0o2755, 0, 0), ""),
        (None, with(0o646, 0, 0), ""),
        (None, with(0o644, 0, 5), ""),
        (None, capability(file("new"), "cap_setuid=ep"), ""),
        (Some(link("x")), with(0o644, 0, 0), "a 2 md5"),
    ] {
        assert_eq!(
            machine.one(change("/usr/bin/a", before.clone(), Some(after.clone()))),
            expected,
            "{before:?} {after:?}"
        );
    }
}

#[test]
fn an_override_explains_the_rights_that_it_names_unless_they_are_more() {
    let mut machine = Machine::with(vec![("a", package("2", &[("/usr/bin/a", "new")], &[]))]);
    machine.content("/usr/bin/a", "new");
    let after = FileState { mode: 0o750, uid: 0, gid: 33, ..file("new") };
    let one = change("/usr/bin/a", Some(file("new")), Some(after));
    assert_eq!(machine.one(one.clone()), "");
    for (line, expected) in [
        ("root www-data 0750 /usr/bin/a\n", "a 2 md5"),
        ("root #33 0750 /usr/bin/a\n", "a 2 md5"),
        ("root www-data 0755 /usr/bin/a\n", ""),
        ("root nobody-here 0750 /usr/bin/a\n", ""),
    ] {
        machine.overrides = line.to_owned();
        assert_eq!(machine.one(one.clone()), expected, "{line}");
    }
    machine.overrides = "root root 4755 /usr/bin/a\n".to_owned();
    let raised = FileState { mode: 0o4755, ..file("new") };
    assert_eq!(machine.one(change("/usr/bin/a", Some(file("new")), Some(raised))), "");
}

#[test]
fn content_that_the_scan_did_not_see_explains_nothing() {
    let mut machine = Machine::with(vec![("a", package("2", &[("/usr/bin/a", "new")], &[]))]);
    // The file was put right between the scan and the look for an explanation.
    machine.content("/usr/bin/a", "new");
    assert_eq!(machine.one(change("/usr/bin/a", Some(file("old")), Some(file("evil")))), "");
    let host = machine.host();
    let mut changes =
        BTreeMap::from([(b"/usr/bin/a".to_vec(), change("/usr/bin/a", Some(file("old")), Some(file("new"))))]);
    explain(&host, None, &mut changes).unwrap();
    let after = changes[b"/usr/bin/a".as_slice()].after.as_ref().unwrap();
    assert_eq!(after.md5.as_str(), hex_md5("new"));
}

#[test]
fn a_diverted_file_is_looked_for_where_it_lies() {
    let packages = vec![
        ("dash", package("2", &[("/usr/bin/sh", "dash")], &[])),
        ("bash", package("3", &[("/usr/bin/sh", "bash")], &[])),
    ];
    let mut machine = Machine::with(packages);
    machine.diversions = "/usr/bin/sh\n/usr/bin/sh.distrib\nbash\n".to_owned();
    for (path, content, expected) in [
        ("/usr/bin/sh", "bash", "bash 3 md5"),
        ("/usr/bin/sh", "dash", ""),
        ("/usr/bin/sh.distrib", "dash", "dash 2 md5"),
        ("/usr/bin/sh.distrib", "bash", ""),
    ] {
        machine.content(path, content);
        assert_eq!(machine.one(change(path, Some(file("old")), Some(file(content)))), expected, "{path} {content}");
    }
}

#[test]
fn folders_and_links_are_explained_by_a_package_unpacked_in_the_window() {
    let listed = ["/lib/a", "/lib/a/new", "/lib/a/to", "/lib/a/astray", "/lib/a/moved", "/lib/a/was-file"];
    let unpacked = |time: &str| {
        let package = Package { unpacked: time.to_owned(), ..package("2", &[("/lib/a/to.2", "x")], &listed) };
        Machine::with(vec![("a", package)])
    };
    let changes = vec![
        change("/usr/lib/a/astray", None, Some(link("/tmp/x"))),
        change("/usr/lib/a/moved", Some(link("to.2")), Some(link("../../../lib/a/to.2"))),
        change("/usr/lib/a/new", None, Some(folder())),
        change("/usr/lib/a/open", None, Some(FileState { mode: 0o777, ..folder() })),
        change("/usr/lib/a/other", None, Some(folder())),
        change("/usr/lib/a/to", Some(link("to.1")), Some(link("to.2"))),
        // It is a file by the package's own digests.
        change("/usr/lib/a/to.2", Some(file("x")), Some(link("to"))),
        change("/usr/lib/a/was-file", Some(file("x")), Some(link("to.2"))),
    ];
    let explained = |time| {
        let mut machine = unpacked(time);
        for (path, target) in [
            ("astray", "/tmp/x"),
            ("moved", "../../../lib/a/to.2"),
            ("to", "to.2"),
            ("to.2", "to"),
            ("was-file", "to.2"),
        ] {
            machine.link(&format!("/usr/lib/a/{path}"), target);
        }
        let explained = machine.explained(changes.clone()).into_iter().filter(|(_, by)| !by.is_empty());
        explained.map(|(path, _)| path["/usr/lib/a/".len()..].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(explained(UNPACKED), ["moved", "new", "to", "was-file"]);
    assert_eq!(explained("2026-11-24T11:59:00Z"), [] as [&str; 0]);
    assert_eq!(explained("2026-11-24T13:00:00Z"), [] as [&str; 0]);
}

#[test]
fn a_unit_that_its_package_masks_is_explained_and_nothing_else_that_leads_to_nothing() {
    let units = ["/lib/systemd/system/sudo.service", "/lib/systemd/system/other.service", "/lib/a/null"];
    let package = package("2", &[("/lib/systemd/system/other.service", "x")], &units);
    let mut machine = Machine::with(vec![("sudo", package)]);
    let mut changes = Vec::new();
    for path in units.iter().chain(&["/lib/systemd/system/not-listed.service"]) {
        let path = format!("/usr{path}");
        machine.link(&path, "/dev/null");
        changes.push(change(&path, None, Some(link("/dev/null"))));
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    let explained = machine.explained(changes).into_iter().filter(|(_, by)| !by.is_empty());
    let explained: Vec<_> = explained.map(|(path, _)| path).collect();
    assert_eq!(explained, ["/usr/lib/systemd/system/sudo.service"]);
}

#[test]
fn a_deletion_is_explained_by_a_package_that_let_the_path_go_in_the_window() {
    let old = || Package {
        unpacked: "2026-11-01T00:00:00Z".to_owned(),
        ..package("1", &[("/usr/bin/a", "a"), ("/usr/bin/b", "b")], &[])
    };
    let deleted = || vec![change("/usr/bin/a", Some(file("a")), None), change("/usr/bin/b", Some(file("b")), None)];
    let told = |explained: BTreeMap<String, String>| explained.into_values().collect::<Vec<_>>();
    let start = || {
        let mut machine = Machine::with(vec![("a", old()), ("moved-to", package("1", &[], &[]))]);
        let host = machine.host();
        remember(&host, machine.memory(), time(BEFORE)).unwrap();
        machine
    };
    // Nothing was unpacked.
    assert_eq!(told(start().explained(deleted())), ["", ""]);
    // The new version has one of them, and the one that it has not is explained.
    let mut machine = start();
    machine.packages.insert("a".to_owned(), package("2", &[("/usr/bin/b", "b")], &[]));
    assert_eq!(told(machine.explained(deleted())), ["a 1 not listed", ""]);
    // The package was removed, and another has one of them.
    let mut machine = start();
    machine.packages.remove("a");
    machine.packages.insert("moved-to".to_owned(), package("2", &[("/usr/bin/b", "b")], &[]));
    assert_eq!(told(machine.explained(deleted())), ["a 1 not listed", ""]);
    // It is found by a later scan, after what packages have was read again.
    let host = machine.host();
    remember(&host, machine.memory(), time(AFTER)).unwrap();
    let late = |mut change: FileChange, last_unchanged: &str| {
        change.last_unchanged_time = time(last_unchanged);
        change.detected_time = time("2026-11-24T13:00:00Z");
        change
    };
    let after =
        |last_unchanged: &str| deleted().into_iter().map(|change| late(change, last_unchanged)).collect::<Vec<_>>();
    assert_eq!(told(machine.explained(after(BEFORE))), ["a 1 not listed", ""]);
    // The scan that read the databases when it ended may have seen it when it began.
    assert_eq!(told(machine.explained(after(AFTER))), ["a 1 not listed", ""]);
    // It was still there after the package had let it go.
    assert_eq!(told(machine.explained(after("2026-11-24T12:50:00Z"))), ["", ""]);
    // Without a memory nothing is known of what was.
    fs::remove_file(machine.memory.path().join(NAME)).unwrap();
    assert_eq!(told(machine.explained(after(BEFORE))), ["", ""]);
}

#[test]
fn a_configuration_file_that_a_removed_package_left_is_still_its_own() {
    let mut kept = package("1", &[("/usr/bin/a", "a")], &[]);
    kept.conffiles = vec![("/etc/a".to_owned(), "a".to_owned())];
    let mut machine = Machine::with(vec![("a", kept.clone())]);
    let host = machine.host();
    remember(&host, machine.memory(), time("2026-11-20T00:00:00Z")).unwrap();
    // It is removed, which leaves its list with its configuration files, and purged days later.
    kept.files.clear();
    kept.state = "deinstall ok config-files";
    machine.packages.insert("a".to_owned(), kept);
    let host = machine.host();
    remember(&host, machine.memory(), time("2026-11-21T00:00:00Z")).unwrap();
    let deleted = change("/etc/a", Some(file("a")), None);
    assert_eq!(machine.one(deleted.clone()), "");
    machine.packages.clear();
    assert_eq!(machine.one(deleted), "a 1 not listed");
}

#[test]
fn rules_hold_only_where_packages_were_changed_in_the_window() {
    let mut machine = Machine::with(vec![(
        "a",
        package(
            "2",
            &[("/usr/lib/python3/a.py", "x"), ("/usr/bin/mawk", "x"), ("/usr/share/man/man1/mawk.1.gz", "x")],
            &["/lib/systemd/system/a.service"],
        ),
    )]);
    machine.alternatives = vec![
        (
            "awk",
            "auto\n/usr/bin/awk\nawk.1.gz\n/usr/share/man/man1/awk.1.gz\n\n/usr/bin/mawk\n5\n/usr/share/man/man1/mawk.1.gz\n\n",
        ),
        ("vi", "auto\n/usr/bin/vi\n\n/usr/bin/vim.tiny\n15\n\n"),
    ];
    let links = [
        ("/etc/systemd/system/multi-user.target.wants/a.service", "/lib/systemd/system/a.service"),
        ("/etc/systemd/system/multi-user.target.wants/evil.service", "/opt/evil.service"),
        ("/etc/alternatives/awk", "/usr/bin/mawk"),
        ("/etc/alternatives/awk.1.gz", "/usr/share/man/man1/mawk.1.gz"),
        ("/etc/alternatives/vi", "/usr/bin/mawk"),
        ("/etc/alternatives/nobody-registered", "/usr/bin/mawk"),
        ("/usr/bin/awk", "/etc/alternatives/awk"),
        ("/usr/bin/evil", "/etc/alternatives/none"),
    ];
    let bytecode = "/usr/lib/python3/__pycache__";
    let mut changes: Vec<_> = links.iter().map(|(path, target)| change(path, None, Some(link(target)))).collect();
    changes.extend([
        change(&format!("{bytecode}/a.cpython-311.pyc"), None, Some(file("x"))),
        change(&format!("{bytecode}/evil.cpython-311.pyc"), None, Some(file("x"))),
        change("/boot/initrd.img-6.1.0", Some(file("1")), Some(file("2"))),
        change("/boot/initrd.img-6.1.1", None, Some(FileState { mode: 0o4755, ..file("2") })),
        change("/etc/ld.so.cache", Some(file("1")), Some(FileState { uid: 1000, ..file("2") })),
        change("/etc/passwd", Some(file("1")), Some(file("2"))),
        change("/etc/timezone", Some(file("1")), Some(file("1"))),
        change("/etc/motd", Some(file("1")), Some(FileState { mode: 0o666, ..file("1") })),
        change("/etc/apparmor.d/local/a", None, Some(file(""))),
        change("/etc/apparmor.d/local/b", None, Some(file("/** rwx,"))),
        change("/var/lib/dpkg/info/a.list", Some(file("1")), Some(file("2"))),
    ]);
    let explained = |machine: &mut Machine| {
        links.iter().for_each(|(path, target)| machine.link(path, target));
        let explained = machine.explained(changes.clone()).into_iter().filter(|(_, by)| !by.is_empty());
        explained.map(|(path, by)| format!("{path} {by}")).collect::<Vec<_>>()
    };
    let all = [
        "/boot/initrd.img-6.1.0 initramfs",
        "/etc/alternatives/awk alternatives",
        "/etc/alternatives/awk.1.gz alternatives",
        "/etc/apparmor.d/local/a apparmor-local",
        "/etc/systemd/system/multi-user.target.wants/a.service unit-links",
        "/etc/timezone same-content",
        "/usr/bin/awk alternatives-links",
        "/usr/lib/python3/__pycache__/a.cpython-311.pyc python-bytecode",
        "/var/lib/dpkg/info/a.list package-database",
    ];
    assert_eq!(explained(&mut machine), all);
    machine.packages.get_mut("a").unwrap().unpacked = "2026-11-24T11:00:00Z".to_owned();
    assert_eq!(explained(&mut machine), [] as [&str; 0]);
    // A package that is only configured or removed shows in dpkg's database; a unit that no package brought then stays, and so does a
    // package's own file there.
    machine.written = UNPACKED;
    let is_of_unpacked = |line: &str| line.ends_with("unit-links") || line.ends_with("package-database");
    let expected: Vec<_> = all.iter().filter(|line| !is_of_unpacked(line)).collect();
    assert_eq!(explained(&mut machine).iter().collect::<Vec<_>>(), expected);
}

#[test]
fn what_package_managers_leave_beside_a_configuration_file_is_explained_by_it() {
    let mut package = package("2", &[], &[]);
    package.conffiles = vec![("/etc/a".to_owned(), "shipped".to_owned())];
    let mut machine = Machine::with(vec![("a", package)]);
    machine.content("/etc/a", "shipped");
    machine.content("/etc/a.dpkg-dist", "shipped");
    machine.content("/etc/a.dpkg-old", "mine");
    machine.content("/etc/b.dpkg-dist", "shipped");
    let explained = machine.explained(vec![
        change("/etc/a", Some(file("mine")), Some(file("shipped"))),
        change("/etc/a.dpkg-dist", None, Some(file("shipped"))),
        change("/etc/a.dpkg-new", None, Some(file("evil"))),
        change("/etc/a.dpkg-old", None, Some(file("mine"))),
        change("/etc/b.dpkg-dist", None, Some(file("shipped"))),
        change("/etc/b.dpkg-old", None, Some(file("mine"))),
    ]);
    let expected = ["a 2 md5", "a 2 md5", "", "a 2 former content", "", ""];
    assert_eq!(explained.into_values().collect::<Vec<_>>(), expected);
}

#[test]
fn a_database_that_cannot_be_read_is_an_error_and_explains_nothing() {
    let mut machine = Machine::with(vec![("a", package("2", &[("/usr/bin/a", "new")], &[]))]);
    machine.content("/usr/bin/a", "new");
    let mut host = machine.host();
    let failure = Failure { errno: Some(13), kind: String::new(), text: String::new() };
    host.index_mut().errors.insert("read /var/lib/dpkg/info/a.list".to_owned(), failure);
    let mut changes =
        BTreeMap::from([(b"/usr/bin/a".to_vec(), change("/usr/bin/a", Some(file("old")), Some(file("new"))))]);
    let before = changes.clone();
    assert_eq!(explain(&host, None, &mut changes).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(changes, before);
    assert!(remember(&host, machine.memory(), time(AFTER)).is_err());
    assert!(!Path::new(machine.memory.path()).join(NAME).exists());
}

#[test]
fn a_host_without_a_database_explains_nothing() {
    let mut host = Machine::new().host();
    let failure = Failure { errno: Some(ENOENT), kind: String::new(), text: String::new() };
    host.index_mut().errors.insert("read /var/lib/dpkg/status".to_owned(), failure);
    let mut changes = BTreeMap::from([(b"/a".to_vec(), change("/a", Some(file("old")), Some(file("new"))))]);
    let before = changes.clone();
    explain(&host, None, &mut changes).unwrap();
    assert_eq!(changes, before);
}

#[test]
fn a_package_without_a_version_explains_nothing() {
    for (version, expected) in [("2", "a 2 md5"), ("", "")] {
        let mut machine = Machine::with(vec![("a", package(version, &[("/usr/bin/a", "new")], &[]))]);
        machine.content("/usr/bin/a", "new");
        assert_eq!(machine.one(change("/usr/bin/a", Some(file("old")), Some(file("new")))), expected, "{version:?}");
    }
}

#[test]
fn a_file_of_no_package_is_told_without_a_look_through_the_database() {
    let mut machine = Machine::with(vec![("a", package("2", &[("/usr/bin/a", "new")], &[]))]);
    for path in ["/usr/bin/a", "/usr/bin/stray"] {
        machine.content(path, "new");
    }
    let mut host = machine.host();
    remember(&host, machine.memory(), time(BEFORE)).unwrap();
    // Whoever looked through it would fail.
    let failure = Failure { errno: Some(13), kind: String::new(), text: String::new() };
    host.index_mut().errors.insert("read /var/lib/dpkg/info/a.list".to_owned(), failure);
    let about = |path: &str| {
        let change = change(path, Some(file("old")), Some(file("new")));
        let mut changes = BTreeMap::from([(path.as_bytes().to_vec(), change)]);
        explain(&host, Some(machine.memory()), &mut changes).map(|()| changes.into_values().next().unwrap())
    };
    let stray = about("/usr/bin/stray").unwrap();
    assert_eq!(stray.explanation, None);
    assert_eq!(stray.after.unwrap().md5.as_str(), hex_md5("new"));
    for path in ["/usr/bin/a", "/etc/ld.so.cache", "/etc/a.dpkg-old"] {
        assert!(about(path).is_err(), "{path}");
    }
    // Nor is it when the databases are not those that were remembered.
    let mut host = machine.host();
    let failure = Failure { errno: Some(13), kind: String::new(), text: String::new() };
    host.index_mut().errors.insert("read /var/lib/dpkg/info/a.list".to_owned(), failure);
    let change = change("/usr/bin/stray", Some(file("old")), Some(file("new")));
    let mut changes = BTreeMap::from([(b"/usr/bin/stray".to_vec(), change)]);
    assert!(explain(&host, Some(machine.memory()), &mut changes).is_err());
}

#[test]
fn what_changes_again_later_is_explained_by_what_happened_since_then() {
    let mut machine = Machine::with(vec![("a", package("2", &[("/usr/lib/a", "x")], &["/usr/lib/f", "/usr/lib/l"]))]);
    machine.written = UNPACKED;
    machine.link("/usr/lib/l", "a");
    machine.content("/etc/a.conf", "shipped");
    let conffiles = vec![("/etc/a.conf".to_owned(), "shipped".to_owned())];
    machine.packages.get_mut("a").unwrap().conffiles = conffiles;
    let changes = [
        change("/etc/a.conf", Some(file("hardened")), Some(file("shipped"))),
        change("/etc/ld.so.cache", Some(file("1")), Some(file("3"))),
        change("/usr/lib/f", None, Some(folder())),
        change("/usr/lib/l", Some(link("b")), Some(link("a"))),
        change("/var/lib/dpkg/info/a.md5sums", Some(file("1")), Some(file("3"))),
    ];
    let mut explained = |since: &str, detected: &str, is_new| {
        let mut changes: BTreeMap<Vec<u8>, FileChange> = changes
            .iter()
            .map(|change| {
                (change.path.to_bytes().unwrap(), FileChange { detected_time: time(detected), ..change.clone() })
            })
            .collect();
        explain_since(&machine.host(), None, &mut changes, |_| (time(since), is_new)).unwrap();
        changes.values().filter(|change| change.explanation.is_some()).count()
    };
    // In the week in which the package was unpacked, and for the content of a package's own file whenever it was.
    assert_eq!(explained(BEFORE, AFTER, true), 5);
    // It differed from the baseline since the upgrade, and changed again after a quiet month.
    assert_eq!(explained("2026-12-24T12:00:00Z", "2026-12-24T13:00:00Z", true), 0);
    // A state that an earlier look found was not made by a program that ran after it; packages write what they list a while after.
    assert_eq!(explained("2026-11-24T11:00:00Z", "2026-11-24T12:09:00Z", false), 5);
    assert_eq!(explained("2026-11-24T11:00:00Z", "2026-11-24T12:05:00Z", true), 5);
    assert_eq!(explained("2026-11-24T11:00:00Z", "2026-11-24T12:05:00Z", false), 3);
}

#[test]
fn a_file_of_a_database_is_explained_by_its_own_package() {
    let old = Package { unpacked: "2026-11-01T00:00:00Z".to_owned(), ..package("1", &[], &[]) };
    let mut machine = Machine::with(vec![("a", package("2", &[], &[])), ("b.c", old)]);
    let info = |name: &str| format!("/var/lib/dpkg/info/{name}");
    for (path, before, after, expected) in [
        (info("a.md5sums"), Some("1"), Some("2"), true),
        (info("a:amd64.postinst"), None, Some("2"), true),
        (info("b.c.md5sums"), Some("1"), Some("2"), false),
        (info("b.c.prerm"), None, Some("2"), false),
        (info("gone.list"), Some("1"), None, true),
        (info("gone.list"), None, Some("1"), false),
        (info("format"), None, Some("1"), true),
        ("/var/lib/dpkg/status".to_owned(), Some("1"), Some("2"), true),
    ] {
        let changed = change(&path, before.map(file), after.map(file));
        assert_eq!(!machine.one(changed).is_empty(), expected, "{path} {before:?} {after:?}");
    }
}

#[test]
fn a_copy_of_what_raises_rights_is_no_configuration_file() {
    let mut machine = Machine::with(vec![("a", package("2", &[("/usr/bin/a", "new")], &[]))]);
    machine.content("/usr/bin/a", "new");
    let raised = |content| FileState { mode: 0o4755, ..file(content) };
    for (before, copy, expected) in [
        (file("old"), file("old"), "a 2 former content"),
        (raised("old"), raised("old"), ""),
        (capability(file("old"), "cap_setuid=ep"), capability(file("old"), "cap_setuid=ep"), ""),
    ] {
        let after = FileState { sha256: file("new").sha256, ..before.clone() };
        let changes = vec![
            change("/usr/bin/a", Some(before.clone()), Some(after)),
            change("/usr/bin/a.dpkg-old", None, Some(copy)),
        ];
        let explained = machine.explained(changes);
        assert_eq!(explained["/usr/bin/a"], "a 2 md5", "{before:?}");
        assert_eq!(explained["/usr/bin/a.dpkg-old"], expected, "{before:?}");
    }
}

#[test]
fn no_link_is_believed_that_leads_where_everybody_may_make_files() {
    let mut machine = Machine::with(vec![
        ("base", package("1", &[], &["/tmp", "/opt/java"])),
        ("a", package("2", &[], &["/usr/lib/java"])),
    ]);
    for (target, mode, expected) in [("/opt/java", 0o755, "a 2 path"), ("/tmp", 0o1777, "")] {
        machine.link("/usr/lib/java", target);
        let found = Metadata { mode, ..metadata(EntryKind::Folder, BEFORE, 9) };
        machine.index.metadata.insert(text(target), found);
        assert_eq!(machine.one(change("/usr/lib/java", Some(link("x")), Some(link(target)))), expected, "{target}");
    }
    // What is there cannot be told: it may be such a folder.
    machine.link("/usr/lib/java", "/opt/java");
    machine.index.metadata.remove(&text("/opt/java"));
    let failure = Failure { errno: Some(EIO), kind: String::new(), text: String::new() };
    machine.index.errors.insert("metadata /opt/java".to_owned(), failure);
    assert_eq!(machine.one(change("/usr/lib/java", Some(link("x")), Some(link("/opt/java")))), "");
}
