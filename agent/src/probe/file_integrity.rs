//! Whether watched files differ from their baseline.
//!
//! Every look scans everything, and the evidence comes from scans alone. The baseline, the differences known before and the
//! scan are three streams in one order, merged line by line, so that no list of files is ever held whole; between looks
//! nothing is held.

mod baseline;
mod compare;
mod explain;

use std::{io, path::Path};

use muster_proto::{
    fact::{Baseline, Cause, Fact, FileIntegrity, PathText, Reading, Text, Unknown, UnreadablePath, WatchedPath},
    limits, report,
    time::Timestamp,
};

use self::{baseline::Opened, compare::Merge};
use super::{Look, Probe, Settings};
use crate::host::{self, Host};

/// Reason of a baseline that no operator asked for.
const FIRST_SCAN: &str = "first scan";
const PATHS_CHANGED: &str = "watched paths changed";

/// The probe of `file_integrity`.
pub struct FileIntegrityProbe;

impl Probe for FileIntegrityProbe {
    fn id(&self) -> report::Probe {
        report::Probe::FileIntegrity
    }

    fn name(&self) -> &'static str {
        "file_integrity"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        vec![Fact::FileIntegrity(match state(look) {
            Ok(state) => Reading::Known(state),
            Err(unknown) => Reading::Unknown { unknown },
        })]
    }
}

/// Takes the baseline afresh, for the `reason` that an operator gave, and forgets the differences from the one before.
///
/// # Errors
///
/// When the scan does not end or the baseline cannot be written; the one before is then still in force.
pub fn rebaseline(
    host: &dyn Host,
    settings: &Settings,
    memory: &Path,
    now: Timestamp,
    reason: &str,
) -> io::Result<Baseline> {
    let opened = take_baseline(host, settings, memory, now, reason, &mut Seen::default())?;
    compare::forget(memory)?;
    Ok(opened.baseline)
}

/// What a scan saw, beyond the entries themselves.
#[derive(Debug, Default)]
struct Seen {
    paths: Vec<WatchedPath>,
    entries: u64,
    unreadable: Vec<UnreadablePath>,
    unreadable_total: u64,
}

impl Seen {
    fn add_unreadable(&mut self, path: &Path, error: &io::Error) {
        self.unreadable_total += 1;
        if self.unreadable.len() < limits::UNREADABLE_PATHS {
            let path = PathText::from_bytes(&host::path_bytes(path));
            self.unreadable.push(UnreadablePath { path, unknown: host::unknown("read", error) });
        }
    }
}

fn state(look: &Look<'_>) -> Result<FileIntegrity, Unknown> {
    let mut seen = Seen::default();
    let failed = |error: &io::Error| host::unknown("scan the watched paths", error);
    let paths = watched(look.settings);
    let reason = match baseline::open(look.memory) {
        Ok(Some(opened)) if opened.paths == paths => {
            return compared(look, &opened, &mut seen).map_err(|error| failed(&error));
        }
        Ok(Some(_)) => PATHS_CHANGED,
        Ok(None) => FIRST_SCAN,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let detail = "the baseline file is damaged: take it afresh with muster-agent fim rebaseline";
            return Err(Unknown::new(Cause::Garbled, detail));
        }
        Err(error) => return Err(host::unknown("read the baseline", &error)),
    };
    let opened = take_baseline(look.host, look.settings, look.memory, look.now, reason, &mut seen)
        .map_err(|error| failed(&error))?;
    compare::start(look, &opened).map_err(|error| failed(&error))?;
    Ok(fact(look, &opened, seen, compare::Summary::default()))
}

fn compared(look: &Look<'_>, opened: &Opened, seen: &mut Seen) -> io::Result<FileIntegrity> {
    let mut merge = Merge::start(look, opened)?;
    scan(look.host, &opened.paths, seen, &mut |path, scanned| merge.found(path, scanned))?;
    let summary = merge.finish()?;
    Ok(fact(look, opened, std::mem::take(seen), summary))
}

fn fact(look: &Look<'_>, opened: &Opened, seen: Seen, summary: compare::Summary) -> FileIntegrity {
    FileIntegrity {
        paths: seen.paths,
        baseline: opened.baseline.clone(),
        entries: seen.entries,
        unreadable: seen.unreadable,
        unreadable_total: seen.unreadable_total,
        changes: summary.changes,
        changes_total: summary.changes_total,
        explained_total: summary.explained_total,
        watch: look.watch,
    }
}

fn take_baseline(
    host: &dyn Host,
    settings: &Settings,
    memory: &Path,
    now: Timestamp,
    reason: &str,
    seen: &mut Seen,
) -> io::Result<Opened> {
    let paths = watched(settings);
    baseline::write(memory, now, &Text::new(reason), &paths, |writer| {
        scan(host, &paths, seen, &mut |path, scanned| writer.add(path, scanned))
    })
}

/// Returns the watched paths in order of a scan, without those that lie below another.
fn watched(settings: &Settings) -> Vec<Vec<u8>> {
    let mut paths: Vec<Vec<u8>> = settings.watched_paths.iter().map(|path| host::path_bytes(path)).collect();
    paths.retain(|path| path.starts_with(b"/"));
    paths.sort_by(|a, b| baseline::order(a, b));
    paths.dedup_by(|path, above| baseline::is_at_or_below(path, above));
    paths
}

/// Visits what is at and below `paths`, in one order, and counts it.
fn scan(host: &dyn Host, paths: &[Vec<u8>], seen: &mut Seen, visit: &mut crate::host::Visit<'_>) -> io::Result<()> {
    for bytes in paths {
        let root = host::path_of(bytes);
        let before = seen.entries;
        let result = host.scan(&root, &mut |path, scanned| {
            match &scanned {
                Ok(_) => seen.entries += 1,
                Err(error) => seen.add_unreadable(path, error),
            }
            visit(path, scanned)
        });
        let entries = match result {
            Ok(()) => Reading::Known(seen.entries - before),
            // What was below it is gone, and the comparison says so.
            Err(error) if matches!(host::cause(&error), Cause::Absent) => {
                Reading::unknown(Cause::Absent, "it does not exist")
            }
            Err(error) if host::cause(&error) == Cause::Forbidden => {
                let unknown = host::unknown("open", &error);
                seen.add_unreadable(&root, &error);
                visit(&root, Err(error))?;
                Reading::Unknown { unknown }
            }
            Err(error) => return Err(error),
        };
        seen.paths.push(WatchedPath { path: PathText::from_bytes(bytes), entries });
    }
    seen.paths.sort_by(|a, b| a.path.cmp(&b.path));
    seen.unreadable.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}
