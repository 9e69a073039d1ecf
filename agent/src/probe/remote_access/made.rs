//! The captured Debian 13, on which process 14 is the server, with changes.

use std::{fs, path::Path};

use muster_proto::{
    fact::{Cause, Listener, Listeners, PathText, Reading, Text, Transport},
    time::Timestamp,
};
use tempfile::TempDir;

use super::programs::{KNOWN, WANTED_SOCKETS};
use crate::host::{EntryKind, Metadata, Recorded, recorded::Failure};

/// When everything on it was last changed unless a test says otherwise; the server started in the year 2026.
const BEFORE: i64 = 1_700_000_000;

pub(super) struct Made {
    folder: TempDir,
    pub host: Recorded,
}

impl Made {
    pub fn new() -> Self {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/remote_access/debian-13");
        let folder = tempfile::tempdir().unwrap();
        copy(&case, folder.path());
        let host = Recorded::at(folder.path()).unwrap();
        Self { folder, host }
    }

    /// Adds or replaces a file.
    pub fn file(mut self, path: &str, text: &str) -> Self {
        let place = self.folder.path().join("files").join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
        self.entry(path, EntryKind::File);
        self
    }

    /// Adds or replaces a link. What is at its end has to be added, too.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.entry(path, EntryKind::Link);
        self.host.index_mut().links.insert(text(path), text(target));
        self
    }

    /// Adds a folder with names.
    pub fn folder(mut self, path: &str, names: &[&str]) -> Self {
        self.entry(path, EntryKind::Folder);
        self.host.index_mut().lists.insert(text(path), names.iter().map(|name| text(name)).collect());
        self
    }

    /// Adds a process beside 1 and 14.
    pub fn process(self, id: u32, status: &str, cmdline: &str) -> Self {
        let of = |name: &str| format!("/proc/{id}/{name}");
        let own = id.to_string();
        self.folder("/proc", &["1", "14", &own])
            .file(&of("comm"), "sshd\n")
            .file(&of("status"), status)
            .file(&of("cmdline"), cmdline)
    }

    /// Lets an answer such as `metadata /usr/sbin/sshd` be that nothing is there.
    pub fn absent(mut self, what: &str) -> Self {
        let index = self.host.index_mut();
        let (verb, path) = what.split_once(' ').unwrap();
        match verb {
            "metadata" => drop(index.metadata.remove(&text(path))),
            "list" => drop(index.lists.remove(&text(path))),
            _ => {}
        }
        index.errors.insert(what.to_owned(), Failure::of(&std::io::ErrorKind::NotFound.into()));
        self
    }

    /// Lets the server be one that has no process.
    pub fn without_process(self) -> Self {
        let made = self.folder("/proc", &["1"]).absent("read /run/sshd.pid").absent("read /var/run/sshd.pid");
        super::SOCKETS.iter().fold(made, |made, link| made.absent(&format!("metadata {link}")))
    }

    /// Sets when the content of an entry and when its inode was last changed, in seconds from when the server started.
    pub fn changed(mut self, path: &str, content: i64, inode: i64) -> Self {
        let index = self.host.index_mut();
        let started = index.metadata[&text("/run/sshd.pid")].modified.unwrap();
        let metadata = index.metadata.get_mut(&text(path)).unwrap();
        metadata.modified = Timestamp::from_micros(started.micros() + content * 1_000_000);
        metadata.changed_nanos = Some((started.micros() + inode * 1_000_000) * 1_000);
        self
    }

    fn entry(&mut self, path: &str, kind: EntryKind) {
        let metadata = Metadata {
            kind,
            size_bytes: 0,
            modified: Timestamp::from_seconds(BEFORE),
            mode: 0o644,
            uid: 0,
            gid: 0,
            device: (254, 0),
            inode: 1,
            links: 1,
            changed_nanos: Some(BEFORE * 1_000_000_000),
        };
        let index = self.host.index_mut();
        index.metadata.insert(text(path), metadata);
        for verb in ["metadata", "read", "list"] {
            index.errors.remove(&format!("{verb} {path}"));
        }
    }
}

pub(super) fn listeners(rows: &[(u16, Option<&str>)]) -> Reading<Listeners> {
    let listener = |(port, program): &(u16, Option<&str>)| Listener {
        protocol: Transport::Tcp,
        address: Text::new("0.0.0.0"),
        port: *port,
        program: program.map_or_else(|| Reading::unknown(Cause::Forbidden, ""), |name| Reading::Known(Text::new(name))),
        reachable: None,
    };
    Reading::Known(Listeners { listeners: rows.iter().map(listener).collect() })
}

/// Returns a host on which none of the sockets' units is linked but `links`.
pub(super) fn host_with(links: &[&str]) -> Recorded {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/remote_access/debian-13");
    let mut host = Recorded::at(&case).unwrap();
    let index = host.index_mut();
    let file = *index.metadata.values().next().unwrap();
    let sockets = KNOWN.iter().flat_map(|known| known.sockets);
    let links_of = |socket: &&str| WANTED_SOCKETS.map(|folder| format!("{folder}/{socket}"));
    for path in sockets.flat_map(links_of).chain(super::SOCKETS.map(str::to_owned)) {
        if links.contains(&path.as_str()) {
            index.metadata.insert(text(&path), file);
        } else {
            index.errors.insert(format!("metadata {path}"), Failure::of(&std::io::ErrorKind::NotFound.into()));
        }
    }
    host
}

fn text(path: &str) -> PathText {
    PathText::from_bytes(path.as_bytes())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), place).unwrap();
        }
    }
}
