//! Hints to look sooner, from the kernel's change events. Never evidence: events are lost by design, scans are not.
//!
//! The callback drops every event of reading (a scan would feed itself) before anything is kept, and keeps one bit for each
//! probe, so that no burst of events takes memory.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use muster_proto::{fact::WatchState, report::Probe};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, event::ModifyKind};
use tokio::sync::Notify;

use crate::probe::Settings;

/// How long events are gathered before they become a hint.
const QUIET: Duration = Duration::from_secs(2);
/// Folders in which dpkg and apt replace what the patch-level probe reads.
const PACKAGE_FOLDERS: &[&str] = &["/var/lib/apt/lists", "/var/lib/dpkg"];

const FILES: u32 = 1;
const PACKAGES: u32 = 2;
const OVERFLOW: u32 = 4;
const FAILED: u32 = 8;

/// What changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hint {
    /// The probes that should look sooner, in order.
    pub probes: Vec<Probe>,
    /// Whether the kernel dropped events.
    pub overflowed: bool,
    /// Whether a watch ended with an error, so that some changes are only found by scans.
    pub failed: bool,
}

/// Watches the watched paths, as far as the settings and the kernel allow.
pub struct Watch {
    shared: Arc<Shared>,
    state: WatchState,
    problems: Vec<String>,
    /// Watches until it is dropped.
    _watcher: Option<RecommendedWatcher>,
}

#[derive(Default)]
struct Shared {
    bits: AtomicU32,
    notify: Notify,
}

impl Watch {
    /// Starts to watch. What cannot be watched is left to scans, and [`Self::state`] says so.
    pub fn start(settings: &Settings) -> Self {
        let shared = Arc::new(Shared::default());
        let mut watch =
            Self { shared: Arc::clone(&shared), state: WatchState::ScanOnly, problems: Vec::new(), _watcher: None };
        if settings.watched_folders == 0 {
            return watch;
        }
        let callback = move |event: notify::Result<notify::Event>| {
            let bits = bits_of(event);
            if bits != 0 {
                shared.bits.fetch_or(bits, Ordering::Relaxed);
                shared.notify.notify_one();
            }
        };
        let config = notify::Config::default().with_follow_symlinks(false);
        let mut watcher = match RecommendedWatcher::new(callback, config) {
            Ok(watcher) => watcher,
            Err(error) => {
                watch.problems.push(error.to_string());
                return watch;
            }
        };
        let mut left = settings.watched_folders;
        let mut is_partial = false;
        let sets = crate::fim::sets::in_force(settings, &crate::host::Live::new());
        for path in sets.iter().flat_map(|set| &set.paths) {
            if !path.exists() {
                continue;
            }
            let result = match folders(path, left) {
                Some(count) => {
                    left -= count;
                    watcher.watch(path, RecursiveMode::Recursive)
                }
                None => {
                    is_partial = true;
                    watch.problems.push(format!("{} has more folders than may be watched", path.display()));
                    continue;
                }
            };
            if let Err(error) = result {
                is_partial = true;
                watch.problems.push(format!("{}: {error}", path.display()));
            }
        }
        for folder in PACKAGE_FOLDERS.iter().map(Path::new).filter(|folder| folder.exists()) {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                watch.problems.push(format!("{}: {error}", folder.display()));
            }
        }
        watch.state = match (left == settings.watched_folders, is_partial) {
            (true, _) => WatchState::ScanOnly,
            (false, true) => WatchState::Partial,
            (false, false) => WatchState::Live,
        };
        watch._watcher = Some(watcher);
        watch
    }

    /// Returns whether changes are noticed as they happen.
    pub fn state(&self) -> WatchState {
        self.state
    }

    /// Returns what could not be watched, for the log.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Waits for changes and a quiet moment after them. Without a watch, it waits for ever. May be dropped at any time.
    pub async fn next(&self) -> Hint {
        self.next_after(QUIET).await
    }

    async fn next_after(&self, quiet: Duration) -> Hint {
        loop {
            self.shared.notify.notified().await;
            tokio::time::sleep(quiet).await;
            let bits = self.shared.bits.swap(0, Ordering::Relaxed);
            if bits != 0 {
                return hint(bits);
            }
        }
    }
}

fn hint(bits: u32) -> Hint {
    let overflowed = bits & OVERFLOW != 0;
    let mut probes = Vec::new();
    if bits & PACKAGES != 0 || overflowed {
        probes.push(Probe::PatchLevel);
    }
    if bits & (FILES | FAILED) != 0 || overflowed {
        probes.push(Probe::FileIntegrity);
    }
    Hint { probes, overflowed, failed: bits & FAILED != 0 }
}

fn bits_of(event: notify::Result<notify::Event>) -> u32 {
    let event = match event {
        Ok(event) => event,
        Err(_) => return FAILED,
    };
    if event.need_rescan() {
        return OVERFLOW;
    }
    match event.kind {
        EventKind::Access(_) => 0,
        // A scan that reads changes the time of access.
        EventKind::Modify(ModifyKind::Metadata(notify::event::MetadataKind::AccessTime)) => 0,
        _ => event.paths.iter().map(|path| bit_of_path(path)).fold(0, |bits, bit| bits | bit),
    }
}

fn bit_of_path(path: &Path) -> u32 {
    let is_package = PACKAGE_FOLDERS.iter().any(|folder| path.starts_with(folder));
    if is_package { PACKAGES } else { FILES }
}

/// Returns how many folders are at and below `path`; `None` beyond `limit`.
fn folders(path: &Path, limit: usize) -> Option<usize> {
    let walk = walkdir::WalkDir::new(path).follow_links(false);
    // What cannot be read cannot be watched either.
    let count = walk.into_iter().flatten().filter(|entry| entry.file_type().is_dir()).take(limit + 1).count().max(1);
    (count <= limit).then_some(count)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use notify::{Event, event};

    use super::*;

    fn settings_of(paths: &[&Path], watched_folders: usize) -> Settings {
        let watched_paths = paths.iter().map(PathBuf::from).collect();
        Settings { watched_paths, watched_folders, ..Settings::default() }
    }

    fn event(kind: EventKind, path: &str) -> notify::Result<Event> {
        Ok(Event::new(kind).add_path(PathBuf::from(path)))
    }

    #[test]
    fn reading_is_no_hint_and_a_lost_event_is_one_for_all() {
        let read = EventKind::Access(event::AccessKind::Open(event::AccessMode::Read));
        assert_eq!(bits_of(event(read, "/etc/passwd")), 0);
        let written = EventKind::Modify(ModifyKind::Data(event::DataChange::Any));
        assert_eq!(hint(bits_of(event(written, "/etc/passwd"))).probes, [Probe::FileIntegrity]);
        assert_eq!(hint(bits_of(event(written, "/var/lib/dpkg/status"))).probes, [Probe::PatchLevel]);
        let lost = hint(bits_of(Ok(Event::new(EventKind::Other).set_flag(event::Flag::Rescan))));
        assert_eq!(lost.probes, [Probe::PatchLevel, Probe::FileIntegrity]);
        assert!(lost.overflowed);
        assert!(hint(bits_of(Err(notify::Error::generic("x")))).failed);
    }

    #[test]
    fn more_folders_than_the_limit_are_only_scanned() {
        let (small, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for at in 0..5 {
            std::fs::create_dir(large.path().join(at.to_string())).unwrap();
        }
        let watch = |limit| Watch::start(&settings_of(&[small.path(), large.path()], limit));
        assert_eq!(watch(7).state(), WatchState::Live);
        let partial = watch(6);
        assert_eq!((partial.state(), partial.problems().len()), (WatchState::Partial, 1));
        assert_eq!(watch(0).state(), WatchState::ScanOnly);
    }

    #[tokio::test]
    async fn a_burst_of_changes_is_one_hint() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Watch::start(&settings_of(&[folder.path()], 10));
        for at in 0..100 {
            std::fs::write(folder.path().join(at.to_string()), "x").unwrap();
        }
        let hint = watch.next_after(Duration::from_millis(1)).await;
        assert_eq!(hint.probes, [Probe::FileIntegrity]);
    }
}
