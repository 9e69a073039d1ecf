//! The thread that takes the kernel's notices: gathers them, keeps every folder watched, and tells where something
//! changed.
//!
//! What it tells of a new folder it tells after it watches it, so that a scan that follows misses nothing: what came
//! before the watch is there to be scanned, what comes after it makes a notice. After notices were lost it goes through
//! all folders again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ffi::OsStr,
    io,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use muster_proto::fact::Unknown;
use rustix::fs::{CWD, Mode, OFlags};
use tokio::time::Instant;

use super::{
    super::{Plan, Shared, dirty::Dirty},
    kernel::{Kernel, Notice, Wd, What},
    tree::{Tree, push},
    walk::Walk,
};
use crate::{
    host::{self, EntryKind},
    schedule::Budget,
};

/// How long notices are gathered before they become a hint.
const GATHER: Duration = Duration::from_millis(200);
/// While they are gathered, the queue is emptied this often, so that a burst does not fill it.
const DRAIN_EVERY: Duration = Duration::from_millis(10);
/// Notices that are taken while gathering, at most: a flood beyond it waits, or overflows the queue.
const NOTICES: usize = 50_000;
/// Paths that wait to be walked, at most; beyond it all folders are gone through.
const WALKS: usize = 1_024;
/// Walks take at most one second in this many, once what they saved is spent.
const WALK_ONE_IN: u32 = 50;
/// What walks save for a burst of new folders.
const WALKS_SAVED: Duration = Duration::from_secs(2);

/// Takes the kernel's notices.
pub struct Worker {
    kernel: Kernel,
    state: State,
    shared: Arc<Shared>,
    budget: Budget,
}

/// What is known of the watched folders.
struct State {
    plan: Plan,
    tree: Tree,
    /// Folders that hold watched paths, by the names of these in them: a watched path may come, go or be a file.
    anchors: HashMap<Wd, BTreeMap<Box<[u8]>, BTreeSet<Anchored>>>,
    packages: HashSet<Wd>,
    /// Where folders came, as watched path and what is below it.
    walks: BTreeSet<(usize, Vec<u8>)>,
    /// Whether all folders are to be gone through again.
    is_lost: bool,
    told: Told,
}

/// A watched path that a name in a folder leads to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Anchored {
    root: usize,
    /// Whether the name is that of the watched path itself, not of a folder above it that is missing.
    is_itself: bool,
}

/// What is to be told.
#[derive(Default)]
struct Told {
    dirty: Dirty,
    packages: bool,
    overflowed: bool,
    failed: bool,
}

impl Worker {
    /// Returns what takes the notices of `kernel`.
    pub fn new(kernel: Kernel, plan: Plan, shared: Arc<Shared>) -> Self {
        let told = Told { dirty: Dirty::new(plan.roots.iter().cloned()), ..Told::default() };
        let state = State {
            plan,
            tree: Tree::default(),
            anchors: HashMap::new(),
            packages: HashSet::new(),
            walks: BTreeSet::new(),
            is_lost: false,
            told,
        };
        let budget = Budget::new(WALK_ONE_IN, WALKS_SAVED, Instant::now());
        Self { kernel, state, shared, budget }
    }

    /// Works until it is stopped.
    pub fn run(mut self) {
        self.state.walk_all(&self.kernel, &self.shared);
        // What changed before the watch began, a scan may have passed already.
        self.state.told.dirty.add_everything();
        while !self.shared.is_stopped() {
            self.tell();
            self.kernel.wait(self.patience());
            if self.shared.refresh.swap(false, Ordering::Relaxed) {
                self.state.is_lost = true;
                self.walk();
            }
            if let Err(error) = self.gather() {
                tracing::warn!(%error, "notices of changed files cannot be read");
                self.state.told.dirty.add_everything();
                self.state.told.failed = true;
                self.state.tree = count(&self.state.plan, &self.shared, host::unknown("read notices", &error));
                return self.tell();
            }
            if self.has_walks() && self.budget.ready_at() <= Instant::now() {
                self.walk();
            }
        }
    }

    fn has_walks(&self) -> bool {
        self.state.is_lost || !self.state.walks.is_empty()
    }

    fn patience(&self) -> Option<Duration> {
        self.has_walks().then(|| self.budget.ready_at().saturating_duration_since(Instant::now()))
    }

    /// Takes notices for a while, once there is one.
    fn gather(&mut self) -> io::Result<()> {
        let end = Instant::now() + GATHER;
        let mut left = NOTICES;
        loop {
            let (kernel, state) = (&self.kernel, &mut self.state);
            let count = kernel.drain(left, |notice| state.take(notice, kernel))?;
            let rest = end.saturating_duration_since(Instant::now());
            if (count == 0 && left == NOTICES) || rest.is_zero() || self.shared.is_stopped() {
                return Ok(());
            }
            left = left.saturating_sub(count);
            std::thread::sleep(if left > 0 { rest.min(DRAIN_EVERY) } else { rest });
        }
    }

    /// Watches what came, or goes through all folders when notices were lost.
    fn walk(&mut self) {
        let start = Instant::now();
        if self.state.is_lost {
            self.state.walk_all(&self.kernel, &self.shared);
        } else {
            self.state.walk_some(&self.kernel, &self.shared);
        }
        let now = Instant::now();
        self.budget.spend(now - start, now);
    }

    fn tell(&mut self) {
        let Told { dirty, packages, overflowed, failed } = &mut self.state.told;
        let told = (dirty.split_off(), std::mem::take(packages), std::mem::take(overflowed), std::mem::take(failed));
        self.shared.tell(told.0, told.1, told.2, told.3, self.state.tree.coverage());
    }
}

/// Counts the folders below the watched paths of `plan`, none of which is watched because of `refused`.
pub fn count(plan: &Plan, shared: &Shared, refused: Unknown) -> Tree {
    let mut tree = Tree::default();
    let is_stopped = || shared.is_stopped();
    let mut walk = Walk::counting(plan, &mut tree, refused, &is_stopped);
    (0..plan.roots.len()).for_each(|root| walk.go(root, b"", None));
    tree
}

impl State {
    fn take(&mut self, notice: Notice<'_>, kernel: &Kernel) {
        match notice {
            Notice::Overflow => {
                self.lose();
                (self.told.overflowed, self.told.packages) = (true, true);
            }
            Notice::Ended(folder) => self.ended(folder, kernel),
            Notice::Itself { folder, is_away } => self.itself(folder, is_away),
            Notice::Named { folder, name, what, is_folder } => {
                self.told.packages |= self.packages.contains(&folder);
                self.anchored(folder, name, what, is_folder, kernel);
                self.named(folder, name, what, is_folder, kernel);
            }
        }
    }

    /// Anything may have changed, and folders may have come and gone.
    fn lose(&mut self) {
        self.is_lost = true;
        self.told.dirty.add_everything();
    }

    /// A folder ended without having gone: what it was on was unmounted, or its notice is still to come.
    fn ended(&mut self, folder: Wd, kernel: &Kernel) {
        self.is_lost |= self.packages.remove(&folder) | self.anchors.remove(&folder).is_some();
        if let Some((_, path)) = self.tree.path(folder) {
            self.told.dirty.add(&path);
            self.is_lost = true;
            self.unwatch(folder, kernel);
        }
    }

    fn itself(&mut self, folder: Wd, is_away: bool) {
        if is_away && let Some(names) = self.anchors.get(&folder) {
            self.is_lost = true;
            for anchored in names.values().flatten() {
                self.told.dirty.add(&self.plan.roots[anchored.root]);
            }
        }
    }

    /// Something happened to a name in a folder that holds watched paths.
    fn anchored(&mut self, folder: Wd, name: &[u8], what: What, is_folder: bool, kernel: &Kernel) {
        let Some(anchored) = self.anchors.get(&folder).and_then(|names| names.get(name)).cloned() else { return };
        for Anchored { root, is_itself } in anchored {
            self.told.dirty.add(&self.plan.roots[root]);
            if what == What::Changed {
                continue;
            }
            if let Some(number) = self.tree.find(root, b"") {
                self.unwatch(number, kernel);
            }
            if what == What::Came && is_folder && is_itself {
                self.walks.insert((root, Vec::new()));
            }
            // The folder that holds the watched path is to be watched now.
            self.is_lost |= !is_itself;
        }
    }

    fn named(&mut self, folder: Wd, name: &[u8], what: What, is_folder: bool, kernel: &Kernel) {
        let Some((root, mut path)) = self.tree.path(folder) else { return };
        push(&mut path, name);
        if !self.plan.covers(&path, if is_folder { EntryKind::Folder } else { EntryKind::File }) {
            return;
        }
        self.told.dirty.add(&path);
        if !is_folder || what == What::Changed {
            return;
        }
        if let Some(number) = self.tree.child(folder, name) {
            self.unwatch(number, kernel);
        }
        // What it takes away may leave room for what was only scanned.
        self.is_lost |= what == What::Went && self.tree.has_scan_only();
        if what == What::Came {
            let below = path[self.plan.roots[root].len()..].to_vec();
            self.walks.insert((root, below));
            self.is_lost |= self.walks.len() > WALKS;
        }
    }

    fn unwatch(&mut self, folder: Wd, kernel: &Kernel) {
        for number in self.tree.remove(folder) {
            self.forget(number, kernel);
        }
    }

    /// Tells the kernel that a folder is not watched, unless it is for another reason.
    fn forget(&self, folder: Wd, kernel: &Kernel) {
        if !self.tree.has(folder) && !self.anchors.contains_key(&folder) && !self.packages.contains(&folder) {
            kernel.remove(folder);
        }
    }

    /// Goes through all watched paths.
    fn walk_all(&mut self, kernel: &Kernel, shared: &Shared) {
        (self.is_lost, self.walks) = (false, BTreeSet::new());
        self.watch_packages(kernel);
        self.watch_anchors(kernel);
        for _ in 0..2 {
            self.tree.begin();
            let is_stopped = || shared.is_stopped();
            let mut walk = Walk::new(kernel, &self.plan, &mut self.tree, self.plan.folders, &is_stopped);
            for root in 0..self.plan.roots.len() {
                walk.go(root, b"", None);
            }
            walk.came().iter().for_each(|path| self.told.dirty.add(path));
            let gone = self.tree.end();
            gone.iter().for_each(|number| self.forget(*number, kernel));
            // What is gone made room.
            if gone.is_empty() || !self.tree.has_scan_only() {
                break;
            }
        }
    }

    /// Goes through what came. A folder that is there no more is no trouble.
    fn walk_some(&mut self, kernel: &Kernel, shared: &Shared) {
        let is_stopped = || shared.is_stopped();
        for (root, below) in std::mem::take(&mut self.walks) {
            let mut path = self.plan.roots[root].clone();
            let (above, name) = split(&below);
            let parent = match name {
                b"" => None,
                name => {
                    push(&mut path, below.strip_prefix(b"/").unwrap_or(&below));
                    // Its folder may have gone meanwhile.
                    let Some(parent) = self.tree.find(root, above) else { continue };
                    Some((parent, name))
                }
            };
            self.tree.begin_at(&path);
            let left = self.plan.folders.saturating_sub(self.tree.len());
            Walk::new(kernel, &self.plan, &mut self.tree, left, &is_stopped).go(root, &below, parent);
            // Once more, if it waited for longer than it takes to gather.
            self.told.dirty.add(&path);
        }
    }

    fn watch_packages(&mut self, kernel: &Kernel) {
        let found = self.plan.packages.iter().filter_map(|path| watch_at(kernel, path.as_bytes()));
        self.packages = found.collect();
    }

    /// Watches the nearest folder above each watched path for the name that leads to it.
    fn watch_anchors(&mut self, kernel: &Kernel) {
        let before = std::mem::take(&mut self.anchors);
        for (number, root) in self.plan.roots.iter().enumerate() {
            let mut path = &root[..];
            while let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
                let name = &path[slash + 1..];
                path = &path[..slash];
                let folder = if path.is_empty() { b"/" } else { path };
                if name.is_empty() {
                    continue;
                }
                if let Some(folder) = watch_at(kernel, folder) {
                    let anchored = Anchored { root: number, is_itself: slash + 1 + name.len() == root.len() };
                    self.anchors.entry(folder).or_default().entry(name.into()).or_default().insert(anchored);
                    break;
                }
            }
        }
        before.keys().for_each(|folder| self.forget(*folder, kernel));
    }
}

/// Returns the folder that holds `below`, and the name in it.
fn split(below: &[u8]) -> (&[u8], &[u8]) {
    match below.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&below[..slash], &below[slash + 1..]),
        None => (b"", below),
    }
}

/// Watches the folder at `path`, which an operator named: links on the way to it are followed.
fn watch_at(kernel: &Kernel, path: &[u8]) -> Option<Wd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, OsStr::from_bytes(path), flags, Mode::empty()).ok()?;
    // Without it, a watched path that comes or goes is found by the next scan.
    kernel.add(folder.as_fd()).ok()
}
