//! Whether watched files differ from their baseline.
//!
//! Every look scans everything, and the evidence comes from scans alone. The baseline, the differences known before and the
//! scan are three streams in one order, merged line by line, so that no list of files is ever held whole; between looks
//! nothing is held.

mod baseline;
mod compare;
mod explain;

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use muster_proto::{
    fact::{Baseline, Cause, Fact, FileIntegrity, PathText, Reading, Text, Unknown, UnreadablePath, WatchedPath},
    limits, report,
    time::Timestamp,
};

use self::{
    baseline::{Entries, Opened, Writer, is_at_or_below, order},
    compare::Merge,
};
use super::{Look, Probe, Settings};
use crate::host::{self, EntryKind, Host, Metadata, Pace, Scanned, Visitor, Want};

/// Reason of a baseline that no operator asked for.
const FIRST_SCAN: &str = "first scan";
const PATHS_CHANGED: &str = "watched paths changed; what was watched before is compared with its state of then";

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
    compare::start(memory, now, compare::NO_RUN, &opened)?;
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
    fn add_unreadable(&mut self, path: &[u8], unknown: Unknown) {
        self.unreadable_total += 1;
        if self.unreadable.len() < limits::UNREADABLE_PATHS {
            self.unreadable.push(UnreadablePath { path: PathText::from_bytes(path), unknown });
        }
    }

    /// Takes what was read and has no state in the baseline to be compared with.
    fn add_not_compared(&mut self, summary: &mut compare::Summary) {
        self.unreadable_total += summary.not_compared_total;
        self.unreadable.append(&mut summary.not_compared);
        self.unreadable.sort_by(|a, b| a.path.cmp(&b.path));
        self.unreadable.truncate(limits::UNREADABLE_PATHS);
    }
}

fn state(look: &Look<'_>) -> Result<FileIntegrity, Unknown> {
    let failed = |error: io::Error| host::unknown("scan the watched paths", &error);
    let paths = watched(look.settings);
    let opened = match baseline::open(look.memory) {
        Ok(Some(opened)) if opened.paths == paths => opened,
        Ok(Some(before)) => cover(look, &before, &paths).map_err(failed)?,
        Ok(None) if compare::is_started(look.memory) => {
            let detail = "the baseline file is gone, with which files were compared: take one afresh with muster-agent \
                          fim rebaseline";
            return Err(Unknown::new(Cause::Absent, detail));
        }
        Ok(None) => return first_scan(look).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let detail = "the baseline file is damaged: take it afresh with muster-agent fim rebaseline";
            return Err(Unknown::new(Cause::Garbled, detail));
        }
        Err(error) => return Err(host::unknown("read the baseline", &error)),
    };
    compared(look, &opened).map_err(failed)
}

fn first_scan(look: &Look<'_>) -> io::Result<FileIntegrity> {
    let mut seen = Seen::default();
    let opened = take_baseline(look.host, look.settings, look.memory, look.now, FIRST_SCAN, &mut seen)?;
    compare::start(look.memory, look.now, look.run, &opened)?;
    Ok(fact(look, &opened, seen, compare::Summary::default()))
}

fn compared(look: &Look<'_>, opened: &Opened) -> io::Result<FileIntegrity> {
    let mut seen = Seen::default();
    let mut merge = Merge::start(look, opened)?;
    scan(look.host, &opened.paths, &mut seen, &mut |path, scanned| merge.found(path, scanned))?;
    let mut summary = merge.finish()?;
    seen.add_not_compared(&mut summary);
    Ok(fact(look, opened, seen, summary))
}

/// Puts a baseline of `paths` into force that keeps what the one `before` says: a new list of paths forgives no difference.
/// Only what was not watched before is scanned for it.
fn cover(look: &Look<'_>, before: &Opened, paths: &[Vec<u8>]) -> io::Result<Opened> {
    let opened = baseline::write(look.memory, look.now, &PATHS_CHANGED.into(), paths, |writer| {
        let mut kept = Entries::open(look.memory)?;
        for root in paths {
            if !before.covers(root) {
                let path = std::slice::from_ref(root);
                scan(look.host, path, &mut Seen::default(), &mut |path, scanned| {
                    let bytes = host::path_bytes(path);
                    keep(&mut kept, writer, root, Some(&bytes))?;
                    if before.covers(&bytes) { Ok(()) } else { writer.add(path, scanned) }
                })?;
            }
            keep(&mut kept, writer, root, None)?;
        }
        Ok(())
    })?;
    compare::carry_over(look.memory, before, &opened)?;
    Ok(opened)
}

/// Writes the entries of the baseline before that are at or below `root` and come before `path`, or all with no path.
fn keep(kept: &mut Entries, writer: &mut Writer<'_>, root: &[u8], path: Option<&[u8]>) -> io::Result<()> {
    while let Some(entry) = kept.peek() {
        let is_below = is_at_or_below(&entry.path, root);
        let is_after = match path {
            Some(path) => !order(&entry.path, path).is_lt(),
            None => !is_below && order(&entry.path, root).is_gt(),
        };
        if is_after {
            break;
        }
        if let Some(entry) = kept.advance()?
            && is_below
        {
            writer.add_entry(&entry)?;
        }
    }
    Ok(())
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
        sets: Vec::new(),
        explained: Vec::new(),
        explained_groups_total: 0,
        folders_live: 0,
        folders_scan_only: 0,
        scan_only: Vec::new(),
        scan_only_total: 0,
        reread_seconds: 0,
        reread_in_time: None,
        state_digest: Text::default(),
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
    let plain = |path: &PathBuf| host::path_bytes(&plain(path));
    let mut paths: Vec<Vec<u8>> = settings.watched_paths.iter().map(plain).collect();
    paths.retain(|path| path.starts_with(b"/"));
    paths.sort_by(|a, b| order(a, b));
    paths.dedup_by(|path, above| is_at_or_below(path, above));
    paths
}

/// Visits what is at and below `paths`, in one order, and counts it.
fn scan(host: &dyn Host, paths: &[Vec<u8>], seen: &mut Seen, visit: &mut Visit<'_>) -> io::Result<()> {
    for bytes in paths {
        let root = host::path_of(bytes);
        let before = seen.entries;
        let mut is_link = false;
        let result = read_all(host, &root, &mut |path, scanned| {
            let bytes = host::path_bytes(path);
            if bytes.len() > limits::TEXT_BYTES {
                let unknown = Unknown::new(Cause::Limit, "its path is longer than a path may be");
                seen.add_unreadable(&bytes, unknown);
                return Ok(());
            }
            match &scanned {
                Ok(scanned) => {
                    seen.entries += 1;
                    is_link |= scanned.metadata.kind == EntryKind::Link && path == root;
                }
                Err(error) => seen.add_unreadable(&bytes, host::unknown("read", error)),
            }
            visit(path, scanned)
        });
        let entries = match result {
            Ok(()) if is_link => of_link(host, &root, paths, seen),
            Ok(()) => Reading::Known(seen.entries - before),
            // What was below it is gone, and the comparison says so.
            Err(error) if matches!(host::cause(&error), Cause::Absent) => {
                Reading::unknown(Cause::Absent, "it does not exist")
            }
            Err(error) if host::cause(&error) == Cause::Forbidden => {
                let unknown = host::unknown("open", &error);
                seen.add_unreadable(bytes, host::unknown("read", &error));
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

/// Called for each entry of a scan.
type Visit<'a> = dyn FnMut(&Path, io::Result<Scanned>) -> io::Result<()> + 'a;

/// Reads everything from `root` on.
fn read_all(host: &dyn Host, root: &Path, visit: &mut Visit<'_>) -> io::Result<()> {
    host.walk(root, &Pace { cross_mounts: true, ..Pace::default() }, &mut ReadAll(visit))
}

struct ReadAll<'v, 'a>(&'v mut Visit<'a>);

impl Visitor for ReadAll<'_, '_> {
    fn wants(&mut self, _: &[u8], _: &Metadata) -> io::Result<Want> {
        Ok(Want::Read)
    }

    fn unreadable(&mut self, path: &[u8], error: io::Error) -> io::Result<()> {
        (self.0)(&host::path_of(path), Err(error))
    }

    fn found(&mut self, path: &[u8], read: io::Result<Scanned>) -> io::Result<()> {
        (self.0)(&host::path_of(path), read)
    }
}

/// Returns the entries of a watched path that is a link: a scan follows none, so that what it leads to is only watched under
/// a path of its own. Without one, nothing is watched where the operator wanted it.
fn of_link(host: &dyn Host, root: &Path, paths: &[Vec<u8>], seen: &mut Seen) -> Reading<u64> {
    let own = host::path_bytes(root);
    let target = match host.read_link(root) {
        Ok(target) => target,
        Err(error) => {
            let unknown = host::unknown("read the link", &error);
            seen.add_unreadable(&own, unknown.clone());
            return Reading::Unknown { unknown };
        }
    };
    let resolved = host::path_bytes(&plain(&root.parent().unwrap_or(root).join(&target)));
    let target = target.display();
    if paths.iter().any(|path| *path != own && is_at_or_below(&resolved, path)) {
        return Reading::unknown(Cause::Unsupported, format!("it is a link to {target}, which is watched as such"));
    }
    let unknown = Unknown::new(Cause::Unsupported, format!("it is a link to {target}: watch that path"));
    seen.add_unreadable(&own, unknown.clone());
    Reading::Unknown { unknown }
}

/// Returns `path` without `.` and `..`, without a slash at its end and without two in a row.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
