//! A machine of a test's own: a tree in memory whose times a test sets, and that keeps what was read of it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{ExtendedAttribute, OsFamily},
    time::Timestamp,
};
use sha2::{Digest as _, Sha256};

use super::super::place::{is_at_or_below, order};
use crate::host::{
    AuditQuery, Digests, Dump, EntryKind, Family, Host, KernelClock, Luks, Machine, Metadata, Pace, Policy, Scanned,
    SocketOwners, Space, Tool, Visitor, Want, path_bytes, path_of,
};

/// Seconds between two changes: more than those in which a change could hide.
const STEP_SECONDS: i64 = 10;

/// An entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    pub kind: EntryKind,
    pub content: u8,
    pub mode: u32,
    pub modified: i64,
    pub changed: i64,
    pub inode: u64,
    pub is_unreadable: bool,
    pub device: u32,
    pub uid: u32,
    pub attributes: Vec<ExtendedAttribute>,
}

impl Node {
    pub fn metadata(&self) -> Metadata {
        Metadata {
            kind: self.kind,
            size_bytes: 7,
            modified: Timestamp::from_seconds(self.modified),
            mode: self.mode,
            uid: self.uid,
            gid: 0,
            device: (8, self.device),
            inode: self.inode,
            links: 1,
            // Not as on FAT, where it is the time of the content.
            changed_nanos: Some(self.changed * 1_000_000_000 + 1),
        }
    }

    /// Returns whether a folder that cannot be gone into is found all the same: some are, and some not.
    pub fn is_found_closed(&self) -> bool {
        self.kind == EntryKind::Folder && self.inode.is_multiple_of(2)
    }

    pub fn sha256(&self) -> Option<[u8; 32]> {
        matches!(self.kind, EntryKind::File | EntryKind::Link).then(|| Sha256::digest([self.content]).into())
    }
}

/// The tree.
#[derive(Clone, Debug)]
pub struct Tree {
    pub nodes: BTreeMap<Vec<u8>, Node>,
    /// Seconds since 1970.
    pub clock: i64,
    /// How many entries a walk is ahead of the oldest that is still read.
    pub ahead: usize,
    /// Paths whose content was read.
    pub read: RefCell<BTreeSet<Vec<u8>>>,
    /// A folder that moves away while it is walked: nothing after its first entry is shown.
    pub moves: Option<Vec<u8>>,
    /// A folder that ends when it is opened.
    pub vanishes: Option<Vec<u8>>,
    /// A root whose walk ends with that error of the system before anything is shown.
    pub broken: Option<(Vec<u8>, i32)>,
    inodes: u64,
}

impl Tree {
    pub fn new() -> Self {
        let read = RefCell::default();
        let (moves, vanishes, broken) = (None, None, None);
        Self { nodes: BTreeMap::new(), clock: 1_000_000, ahead: 0, read, moves, vanishes, broken, inodes: 1 }
    }

    /// Returns the time, some seconds after the last change.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_seconds(self.clock + STEP_SECONDS / 2).unwrap()
    }

    pub fn tick(&mut self) -> i64 {
        self.clock += STEP_SECONDS;
        self.clock
    }

    fn touch_folder(&mut self, path: &[u8]) {
        let now = self.clock;
        let folder = path.iter().rposition(|byte| *byte == b'/').map(|at| path[..at].to_vec());
        if let Some(folder) = folder.and_then(|folder| self.nodes.get_mut(&folder)) {
            (folder.modified, folder.changed) = (now, now);
        }
    }

    /// Makes an entry, with the folders above it, in the place of what is there.
    pub fn put(&mut self, path: &str, kind: EntryKind, content: u8) {
        let path = path.as_bytes();
        let above: Vec<_> = super::super::place::above(path).map(<[u8]>::to_vec).collect();
        for folder in above {
            if self.nodes.get(&folder).is_none_or(|node| node.kind != EntryKind::Folder) {
                self.put_one(&folder, EntryKind::Folder, 0);
            }
        }
        self.put_one(path, kind, content);
    }

    fn put_one(&mut self, path: &[u8], kind: EntryKind, content: u8) {
        let now = self.tick();
        if kind != EntryKind::Folder {
            self.nodes.retain(|other, _| !is_at_or_below(other, path));
        }
        self.inodes += 1;
        let (mode, inode, is_unreadable) = (0o644, self.inodes, false);
        let (device, uid, attributes) = (1, 0, Vec::new());
        let node =
            Node { kind, content, mode, modified: now, changed: now, inode, is_unreadable, device, uid, attributes };
        self.nodes.insert(path.to_vec(), node);
        self.touch_folder(path);
    }

    /// Writes into a file, and puts its time back if asked to.
    pub fn write(&mut self, path: &str, content: u8, keeps_time: bool) {
        let now = self.tick();
        if let Some(node) = self.nodes.get_mut(path.as_bytes()).filter(|node| node.kind != EntryKind::Folder) {
            (node.content, node.changed) = (content, now);
            node.modified = if keeps_time { node.modified } else { now };
        }
    }

    pub fn change(&mut self, path: &str, change: impl FnOnce(&mut Node)) {
        let now = self.tick();
        if let Some(node) = self.nodes.get_mut(path.as_bytes()) {
            node.changed = now;
            change(node);
        }
    }

    pub fn remove(&mut self, path: &str) {
        self.tick();
        self.nodes.retain(|other, _| !is_at_or_below(other, path.as_bytes()));
        self.touch_folder(path.as_bytes());
    }

    /// Gives what is at and below `from` another name.
    pub fn rename(&mut self, from: &str, to: &str) {
        if is_at_or_below(to.as_bytes(), from.as_bytes()) || is_at_or_below(from.as_bytes(), to.as_bytes()) {
            return;
        }
        let moved: Vec<_> = self
            .nodes
            .iter()
            .filter(|(path, _)| is_at_or_below(path, from.as_bytes()))
            .map(|(p, n)| (p.clone(), n.clone()))
            .collect();
        let Some(kind) = self.nodes.get(from.as_bytes()).map(|node| node.kind) else { return };
        self.put(to, kind, 0);
        self.remove(to);
        self.remove(from);
        let now = self.clock;
        for (path, mut node) in moved {
            if path == from.as_bytes() {
                node.changed = now;
            }
            self.nodes.insert([to.as_bytes(), &path[from.len()..]].concat(), node);
        }
        self.touch_folder(to.as_bytes());
    }

    fn read(&self, path: &[u8], node: &Node) -> io::Result<Scanned> {
        if node.is_unreadable && node.kind != EntryKind::Folder {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.read.borrow_mut().insert(path.to_vec());
        Ok(Scanned { metadata: node.metadata(), sha256: node.sha256(), attributes: node.attributes.clone() })
    }
}

impl Host for Tree {
    fn walk(&self, root: &Path, _pace: &Pace, visitor: &mut dyn Visitor) -> io::Result<()> {
        let root = path_bytes(root);
        if !self.nodes.contains_key(&root) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Some((_, error)) = self.broken.as_ref().filter(|(broken, _)| *broken == root) {
            return Err(io::Error::from_raw_os_error(*error));
        }
        let mut entries: Vec<_> = self.nodes.iter().filter(|(path, _)| is_at_or_below(path, &root)).collect();
        entries.sort_by(|(a, _), (b, _)| order(a, b));
        let mut waiting: VecDeque<(&Vec<u8>, &Node)> = VecDeque::new();
        let mut skipped: Option<&Vec<u8>> = None;
        let mut is_moved = false;
        for (path, node) in entries {
            if skipped.is_some_and(|skipped| is_at_or_below(path, skipped)) {
                continue;
            }
            if let Some(moves) = self.moves.as_ref().filter(|moves| path != *moves && is_at_or_below(path, moves)) {
                if is_moved {
                    skipped = Some(moves);
                    visitor.unreadable(moves, io::Error::other("moved while it was scanned"))?;
                    continue;
                }
                is_moved = true;
            }
            match visitor.wants(path, &node.metadata())? {
                Want::Nothing => {}
                Want::NothingBelow => {
                    skipped = Some(path);
                    continue;
                }
                Want::Read | Want::Attributes => waiting.push_back((path, node)),
            }
            if self.vanishes.as_ref() == Some(path) {
                waiting.retain(|(other, _)| *other != path);
                visitor.unreadable(path, io::ErrorKind::NotFound.into())?;
                skipped = Some(path);
                continue;
            }
            let is_closed = node.kind == EntryKind::Folder && node.is_unreadable;
            if is_closed && !node.is_found_closed() {
                waiting.retain(|(other, _)| *other != path);
            }
            while waiting.len() > self.ahead {
                let Some((path, node)) = waiting.pop_front() else { break };
                visitor.found(path, self.read(path, node))?;
            }
            if is_closed {
                skipped = Some(path);
                visitor.unreadable(path, io::ErrorKind::PermissionDenied.into())?;
            }
        }
        while let Some((path, node)) = waiting.pop_front() {
            visitor.found(path, self.read(path, node))?;
        }
        Ok(())
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let node = self.nodes.get(&path_bytes(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok(path_of(&[b'x', node.content]))
    }

    fn os_family(&self) -> OsFamily {
        OsFamily::Linux
    }
    fn read(&self, _: &Path, _: usize) -> io::Result<Vec<u8>> {
        absent()
    }
    fn stream(&self, _: &Path) -> io::Result<Box<dyn io::Read>> {
        absent()
    }
    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        absent()
    }
    fn metadata(&self, _: &Path) -> io::Result<Metadata> {
        absent()
    }
    fn machine(&self) -> io::Result<Machine> {
        absent()
    }
    fn clock_is_synchronized(&self) -> io::Result<bool> {
        absent()
    }
    fn clock(&self) -> io::Result<KernelClock> {
        absent()
    }
    fn space(&self, _: &Path) -> io::Result<Space> {
        absent()
    }
    fn audit(&self, _: AuditQuery) -> io::Result<Vec<u8>> {
        absent()
    }
    fn socket_owners(&self, _: &BTreeSet<u64>) -> io::Result<SocketOwners> {
        absent()
    }
    fn luks(&self, _: &Path) -> io::Result<Luks> {
        absent()
    }
    fn encryption_policy(&self, _: &Path) -> io::Result<Policy> {
        absent()
    }
    fn nf_tables(&self, _: Dump) -> io::Result<Vec<u8>> {
        absent()
    }
    fn nf_elements(&self, _: u8, _: &str, _: &str) -> io::Result<Vec<u8>> {
        absent()
    }
    fn iptables(&self, _: Family, _: &str) -> io::Result<Vec<u8>> {
        absent()
    }
    fn run(&self, _: Tool, _: &[&str]) -> io::Result<Vec<u8>> {
        absent()
    }
    fn digests(&self, _: &Path, _: &Path) -> io::Result<Digests> {
        absent()
    }
}

fn absent<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotFound.into())
}
