//! The watch of other systems, by notify. It watches a watched path with everything below it, or not at all.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use muster_proto::fact::{Cause, PathText, Unknown, UnreadablePath, WatchState};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, event::ModifyKind};

use super::{Coverage, Dirty, Plan, Shared};
use crate::host;

/// How long events are gathered before they become a hint.
const GATHER: Duration = Duration::from_millis(200);

/// A watch under way.
pub struct Watching {
    /// Watches until it is dropped. None until every path is watched.
    watcher: Arc<Mutex<Option<RecommendedWatcher>>>,
}

/// What was gathered so far.
#[derive(Default)]
struct Gathered {
    dirty: Dirty,
    overflowed: bool,
    failed: bool,
}

impl Watching {
    /// Starts to watch.
    pub fn start(plan: Plan, shared: &Arc<Shared>) -> Self {
        let watcher = Arc::new(Mutex::new(None));
        let (kept, shared) = (Arc::clone(&watcher), Arc::clone(shared));
        let start = move || {
            let (watching, coverage) = watch(&plan, &shared);
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = watching;
            // What changed before the watch began, a scan may have passed already.
            shared.tell(Dirty::everything(), false, false, false, coverage);
        };
        // On a file system that hangs it never ends, so that nobody waits for it.
        if let Err(error) = std::thread::Builder::new().name("watch".to_owned()).spawn(start) {
            tracing::warn!(%error, "changes of files are only found by scans");
        }
        Self { watcher }
    }

    /// Nothing: the watch ends when it is dropped, and goes through no folders.
    pub fn wake(&self) {
        let _ = &self.watcher;
    }
}

fn watch(plan: &Plan, shared: &Arc<Shared>) -> (Option<RecommendedWatcher>, Coverage) {
    let mut coverage = Coverage::none();
    let (roots, gathered) = (plan.roots.clone(), Arc::new(Mutex::new(Gathered::default())));
    let told = Arc::clone(shared);
    let callback = move |event| {
        let mut now = gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = now.dirty.is_empty();
        take(event, &mut now);
        if was_empty && !now.dirty.is_empty() {
            drop(now);
            tell_later(&gathered, &told);
        }
    };
    let config = notify::Config::default().with_follow_symlinks(false);
    let mut watcher = match RecommendedWatcher::new(callback, config) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "changes of files are only found by scans");
            return (None, coverage);
        }
    };
    let mut left = plan.folders;
    for root in &roots {
        let path = host::path_of(root);
        let count = folders(&path);
        let refused = match usize::try_from(count).ok().and_then(|count| left.checked_sub(count)) {
            None => Some(Unknown::new(Cause::Limit, "it has more folders than the setting watched_folders allows")),
            Some(rest) => match watcher.watch(&path, RecursiveMode::Recursive) {
                Ok(()) => {
                    (left, coverage.folders_live) = (rest, coverage.folders_live + count);
                    None
                }
                Err(_) if count == 0 => None,
                Err(error) => Some(Unknown::new(Cause::Failed, error.to_string())),
            },
        };
        if let Some(unknown) = refused {
            coverage.folders_scan_only += count;
            coverage.scan_only_total += 1;
            coverage.scan_only.push(UnreadablePath { path: PathText::from_bytes(root), unknown });
        }
    }
    coverage.scan_only.truncate(muster_proto::limits::UNREADABLE_PATHS);
    coverage.state = match (coverage.folders_live, coverage.scan_only_total) {
        (0, _) => WatchState::ScanOnly,
        (_, 0) => WatchState::Live,
        _ => WatchState::Partial,
    };
    (Some(watcher), coverage)
}

fn take(event: notify::Result<notify::Event>, gathered: &mut Gathered) {
    let Ok(event) = event else {
        gathered.failed = true;
        return gathered.dirty.add_everything();
    };
    if event.need_rescan() {
        gathered.overflowed = true;
        return gathered.dirty.add_everything();
    }
    match event.kind {
        EventKind::Access(_) => {}
        // A scan that reads changes the time of access.
        EventKind::Modify(ModifyKind::Metadata(notify::event::MetadataKind::AccessTime)) => {}
        _ => event.paths.iter().for_each(|path| gathered.dirty.add(&host::path_bytes(path))),
    }
}

/// Tells what was gathered, after a while.
fn tell_later(gathered: &Arc<Mutex<Gathered>>, shared: &Arc<Shared>) {
    let (gathered, shared) = (Arc::clone(gathered), Arc::clone(shared));
    let tell = move || {
        std::thread::sleep(GATHER);
        let Gathered { dirty, overflowed, failed } =
            std::mem::take(&mut *gathered.lock().unwrap_or_else(PoisonError::into_inner));
        let coverage = shared.lock().coverage.clone();
        shared.tell(dirty, false, overflowed, failed, coverage);
    };
    if let Err(error) = std::thread::Builder::new().name("watch".to_owned()).spawn(tell) {
        tracing::warn!(%error, "changes of files are only found by scans");
    }
}

/// Returns how many folders are at and below `path`.
fn folders(path: &Path) -> u64 {
    let walk = walkdir::WalkDir::new(path).follow_links(false);
    // What cannot be read cannot be watched either.
    walk.into_iter().flatten().filter(|entry| entry.file_type().is_dir()).count() as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{Hint, Places},
        *,
    };
    use crate::probe::Settings;

    async fn next(shared: &Shared) -> Hint {
        let next = async {
            loop {
                shared.notify.notified().await;
                if let Some(hint) = shared.take() {
                    return hint;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), next).await.expect("a hint")
    }

    #[tokio::test]
    async fn a_path_is_watched_whole_or_not_at_all_and_a_change_is_told_with_its_place() {
        let (small, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        (0..5).for_each(|at| std::fs::create_dir(large.path().join(at.to_string())).unwrap());
        let watched_paths = vec![small.path().to_owned(), large.path().to_owned()];
        let plan = Plan::of(&Settings { watched_paths, watched_folders: 3, ..Settings::default() });
        let shared = Arc::new(Shared::new());
        let watching = Watching::start(plan, &shared);
        assert!(next(&shared).await.dirty.is_everything());
        let coverage = shared.lock().coverage.clone();
        assert_eq!((coverage.state, coverage.folders_live, coverage.folders_scan_only), (WatchState::Partial, 1, 6));
        // Reading is no change.
        std::fs::read_dir(small.path()).unwrap().count();
        std::fs::write(small.path().join("file"), "x").unwrap();
        let expected = vec![host::path_bytes(&small.path().join("file"))];
        assert_eq!(next(&shared).await.dirty.take(), Places::Below(expected));
        watching.wake();
    }

    #[test]
    fn a_lost_notice_may_be_of_anything() {
        let mut gathered = Gathered::default();
        take(Ok(notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)), &mut gathered);
        assert!(gathered.dirty.is_everything() && gathered.overflowed && !gathered.failed);
        let mut gathered = Gathered::default();
        take(Err(notify::Error::generic("x")), &mut gathered);
        assert!(gathered.dirty.is_everything() && gathered.failed);
    }
}
