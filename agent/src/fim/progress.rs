//! How far a scan has come, for the person at the host. Numbers that one thread adds to and another reads, and no evidence.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use muster_proto::{fact::PathText, time::Timestamp, words::counted};
use serde::{Deserialize, Serialize};

/// What a scan does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It takes a baseline, and reads everything.
    Baseline,
    /// It compares everything, and reads everything.
    Full,
    /// It compares everything, and reads what changed or is due.
    Quick,
    /// It compares what notices named.
    Partial,
}

/// How far a scan has come. It may be read at any time.
#[derive(Debug, Default)]
pub struct Progress {
    entries: AtomicU64,
    bytes: AtomicU64,
    scan: Mutex<Option<Scan>>,
}

#[derive(Clone, Debug)]
struct Scan {
    phase: Phase,
    since: Timestamp,
    root: PathText,
}

/// A scan under way, as it is shown.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Shown {
    /// What it does.
    pub phase: Phase,
    /// When it began.
    pub since_time: Timestamp,
    /// The watched path that it is in.
    pub path: PathText,
    /// Entries that it has looked at.
    pub entries: u64,
    /// Bytes of content that it has read.
    pub bytes: u64,
}

impl Progress {
    /// Takes note that a scan begins.
    pub fn begin(&self, phase: Phase, now: Timestamp) {
        self.entries.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        *self.lock() = Some(Scan { phase, since: now, root: PathText::from_bytes(b"") });
    }

    /// Takes note that the scan goes on with the watched path `root`.
    pub fn enter(&self, root: &[u8]) {
        if let Some(scan) = self.lock().as_mut() {
            scan.root = PathText::from_bytes(root);
        }
    }

    /// Takes note of one more entry.
    pub fn add_entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note of content that was read.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes note that the scan ended, however it did.
    pub fn end(&self) {
        *self.lock() = None;
    }

    /// Returns the scan under way.
    pub fn shown(&self) -> Option<Shown> {
        let scan = self.lock().clone()?;
        Some(Shown {
            phase: scan.phase,
            since_time: scan.since,
            path: scan.root,
            entries: self.entries.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        })
    }

    /// Returns a number that grows as long as a scan goes on.
    pub fn mark(&self) -> u64 {
        self.entries.load(Ordering::Relaxed).wrapping_add(self.bytes.load(Ordering::Relaxed))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Scan>> {
        // Nothing under this lock can panic.
        self.scan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// Returns a line for a person, such as `first baseline: 41200 entries, 3.1 GiB read, in /usr/lib, since ...`.
    pub fn line(&self) -> String {
        let what = match self.phase {
            Phase::Baseline => "baseline",
            Phase::Full => "full scan",
            Phase::Quick => "quick scan",
            Phase::Partial => "scan of what changed",
        };
        let place = if self.path.as_str().is_empty() { String::new() } else { format!(", in {}", self.path) };
        let mebibytes = self.bytes / (1 << 20);
        format!("{what}: {}, {mebibytes} MiB read{place}, since {}", counted(self.entries, "entry"), self.since_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_is_shown_while_it_goes_on_and_its_mark_grows() {
        let progress = Progress::default();
        assert_eq!(progress.shown(), None);
        progress.begin(Phase::Baseline, Timestamp::EPOCH);
        progress.enter(b"/usr/l\nib");
        let before = progress.mark();
        progress.add_entry();
        progress.add_bytes(3 << 20);
        assert!(progress.mark() > before);
        let line = progress.shown().unwrap().line();
        assert_eq!(line, "baseline: 1 entry, 3 MiB read, in /usr/l\\x0aib, since 1970-01-01T00:00:00Z");
        progress.end();
        assert_eq!(progress.shown(), None);
    }
}
