//! Hints to look sooner, from the kernel's change events, and how far they reach. Never evidence: events are lost by
//! design, scans are not.
//!
//! What changed is kept as a bounded set of places, so that no burst of events takes memory.

mod dirty;
// Built for tests on Linux too, where notify works as well.
#[cfg(any(test, not(target_os = "linux")))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use muster_proto::{
    fact::{UnreadablePath, WatchState},
    report::Probe,
};
use tokio::sync::Notify;

pub use dirty::{Dirty, PATHS, Places};
#[cfg(not(target_os = "linux"))]
use elsewhere::Watching;
#[cfg(target_os = "linux")]
use linux::Watching;

use crate::{
    fim::sets::{self, Rule, Sets},
    host::{EntryKind, Live},
    probe::Settings,
};

/// Folders in which dpkg and apt replace what the patch-level probe reads.
const PACKAGE_FOLDERS: &[&str] = &["/var/lib/apt/lists", "/var/lib/dpkg"];

/// What changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hint {
    /// The probes that should look sooner, in order.
    pub probes: Vec<Probe>,
    /// Where watched files changed.
    pub dirty: Dirty,
    /// Whether the kernel dropped events.
    pub overflowed: bool,
    /// Whether events can be read no more, so that changes are only found by scans.
    pub failed: bool,
}

/// How far changes are noticed as they happen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Coverage {
    /// Whether they are.
    pub state: WatchState,
    /// Folders below watched paths in which they are.
    pub folders_live: u64,
    /// Folders below watched paths that are only scanned.
    pub folders_scan_only: u64,
    /// The first topmost of those, by path, and why.
    pub scan_only: Vec<UnreadablePath>,
    /// How many topmost ones there are.
    pub scan_only_total: u64,
}

impl Coverage {
    /// Returns the coverage of a host on which nothing is watched.
    pub const fn none() -> Self {
        Self {
            state: WatchState::ScanOnly,
            folders_live: 0,
            folders_scan_only: 0,
            scan_only: Vec::new(),
            scan_only_total: 0,
        }
    }
}

/// What is to be watched.
#[derive(Clone, Debug)]
struct Plan {
    /// Which folders scans go into. None when the settings are not usable, and nothing is scanned.
    sets: Option<Arc<Sets>>,
    /// Watched paths, the most severe first; none lies below another.
    roots: Vec<Vec<u8>>,
    /// Folders below them that may be watched, at most.
    folders: usize,
    /// Folders whose changes make the patch-level probe look sooner.
    packages: Vec<String>,
}

impl Plan {
    fn of(settings: &Settings) -> Self {
        let sets = Sets::new(&sets::in_force(settings, &Live::new()));
        let sets = sets.inspect_err(|error| tracing::warn!(%error, "no file is watched")).ok().map(Arc::new);
        let mut roots: Vec<_> = sets.iter().flat_map(|sets| sets.roots()).collect();
        // Sets are numbered by how severe they are.
        roots.sort_by_key(|root| root.members.first());
        let roots = roots.into_iter().map(|root| root.path.clone()).collect();
        let packages = PACKAGE_FOLDERS.iter().map(|folder| (*folder).to_owned()).collect();
        Self { sets, roots, folders: settings.watched_folders, packages }
    }

    /// Returns whether scans look at `path`, or at something below it.
    fn covers(&self, path: &[u8], kind: EntryKind) -> bool {
        self.sets.as_ref().is_some_and(|sets| sets.rule(path, kind) != Rule::Outside)
    }

    /// Returns whether scans go on below the mount point at `path`.
    fn crosses(&self, path: &[u8]) -> bool {
        self.sets.as_ref().is_some_and(|sets| sets.crosses(path))
    }
}

/// Watches the watched paths, as far as the settings and the kernel allow, until it is dropped.
pub struct Watch {
    shared: Arc<Shared>,
    watching: Watching,
}

/// What the watching thread and those who listen share.
struct Shared {
    told: Mutex<Told>,
    notify: Notify,
    is_stopped: AtomicBool,
    /// Whether all folders are to be gone through again.
    refresh: AtomicBool,
}

struct Told {
    dirty: Dirty,
    packages: bool,
    overflowed: bool,
    failed: bool,
    coverage: Coverage,
    /// Whether the coverage changed since it was asked for.
    is_other_coverage: bool,
}

impl Watch {
    /// Starts to watch. What cannot be watched is left to scans, and [`Self::coverage`] says so. The first hint follows
    /// when every folder that can be is watched, and says that anything may have changed.
    pub fn start(settings: &Settings) -> Self {
        let shared = Arc::new(Shared::new());
        let watching = Watching::start(Plan::of(settings), &shared);
        Self { shared, watching }
    }

    /// Returns how far changes are noticed as they happen.
    pub fn coverage(&self) -> Coverage {
        self.shared.lock().coverage.clone()
    }

    /// Goes through all folders again, counts those that are only scanned, and tries to watch them.
    pub fn refresh(&self) {
        self.shared.refresh.store(true, Ordering::Relaxed);
        self.watching.wake();
    }

    /// Waits for changes. Without a watch, it waits for ever. May be dropped at any time.
    pub async fn next(&self) -> Hint {
        loop {
            self.shared.notify.notified().await;
            if let Some(hint) = self.shared.take() {
                return hint;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        self.watching.wake();
    }
}

impl Shared {
    fn new() -> Self {
        let told = Told {
            dirty: Dirty::default(),
            packages: false,
            overflowed: false,
            failed: false,
            coverage: Coverage::none(),
            is_other_coverage: false,
        };
        Self {
            told: Mutex::new(told),
            notify: Notify::new(),
            is_stopped: AtomicBool::new(false),
            refresh: AtomicBool::new(false),
        }
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        // No code under the lock can panic between two writes that belong together.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, dirty: Dirty, packages: bool, overflowed: bool, failed: bool, coverage: Coverage) {
        let mut told = self.lock();
        let is_other = told.coverage != coverage;
        let has_news = is_other || packages || overflowed || failed || !dirty.is_empty();
        told.dirty.merge(dirty);
        told.packages |= packages;
        told.overflowed |= overflowed;
        told.failed |= failed;
        told.is_other_coverage |= is_other;
        told.coverage = coverage;
        drop(told);
        if has_news {
            self.notify.notify_one();
        }
    }

    /// Returns what there is to tell, and forgets it.
    fn take(&self) -> Option<Hint> {
        let mut told = self.lock();
        let dirty = told.dirty.split_off();
        let is_other_coverage = std::mem::take(&mut told.is_other_coverage);
        let packages = std::mem::take(&mut told.packages);
        let (overflowed, failed) = (std::mem::take(&mut told.overflowed), std::mem::take(&mut told.failed));
        let mut probes = Vec::new();
        if packages {
            probes.push(Probe::PatchLevel);
        }
        if is_other_coverage || failed || !dirty.is_empty() {
            probes.push(Probe::FileIntegrity);
        }
        (!probes.is_empty()).then_some(Hint { probes, dirty, overflowed, failed })
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
