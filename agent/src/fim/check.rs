//! Takes a baseline, and compares files with it.

use std::{io, path::PathBuf, time::Duration};

use muster_proto::{
    fact::{Actor, Cause, FileChange, PathText, Text, Unknown},
    time::Timestamp,
};

use super::{
    baseline::{self, Opened},
    block::{Blocks, Cursor},
    cover, explain,
    known::{self, Known, What},
    legacy,
    manners::Power,
    merge::{Found, Merge},
    mounts,
    place::{is_at_or_below, order},
    progress::{Phase, Progress},
    scans::Scans,
    sets::{Root, Sets},
    slots::{Due, Slots},
    store::{Lock, Name, Store},
    survey,
    tally::{self, Outcome},
    watch_set::WatchSet,
};
use crate::host::{self, Host, Pace};

/// What a scan is to do.
pub struct Request<'a> {
    /// The machine.
    pub host: &'a dyn Host,
    /// What is watched.
    pub sets: &'a Sets,
    /// Where the engine keeps its state.
    pub store: &'a Store,
    /// When the scan begins, host's clock.
    pub now: Timestamp,
    /// Drawn when the agent started: tells whether it ran all the time between two scans. [`super::scans::NO_RUN`] is none.
    pub run: u64,
    /// How much is read.
    pub depth: Depth,
    /// Where.
    pub scope: Scope<'a>,
    /// How fast. Whether mount points are crossed is what each root says.
    pub pace: Pace,
    /// Quick scans read every file again within this time; zero for never.
    pub reread: Duration,
    /// What the host runs on: on its battery, only what is twice as late as `reread` allows is read again.
    pub power: Power,
    /// Where it is told how far the scan has come.
    pub progress: &'a Progress,
    /// Tells who wrote to a path between two times, where the kernel told.
    pub actors: Option<&'a Actors<'a>>,
}

/// Tells who wrote to a path between two times.
pub type Actors<'a> = dyn Fn(&[u8], Timestamp, Timestamp) -> Vec<Actor> + 'a;

/// How much a scan reads.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Depth {
    /// Every covered file.
    Full,
    /// What has other metadata than when it was read last, may have changed without, or is due.
    #[default]
    Quick,
}

/// Where a scan looks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Scope<'a> {
    /// At everything that is covered.
    #[default]
    All,
    /// At these paths and what is below them, so far as it is covered.
    Below(&'a [Vec<u8>]),
}

/// A scan did not come to an end, or nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no baseline yet.
    #[error("there is no baseline yet")]
    NoBaseline,
    /// There was a baseline.
    #[error("the baseline file is gone, with which files were compared: take it afresh")]
    BaselineGone,
    /// The baseline is not whole.
    #[error("the baseline file is damaged: take it afresh")]
    BaselineDamaged,
    /// A path cannot be scanned.
    #[error("failed to scan {path}")]
    Scan {
        /// The path.
        path: PathText,
        /// Why.
        source: io::Error,
    },
    /// A file of the engine's state cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the engine's state cannot be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another look goes on.
    #[error("another look at {} is under way, or somebody keeps its folder locked: try again later", path.display())]
    Locked {
        /// File of the baseline.
        path: PathBuf,
    },
    /// More folders than a scan keeps in mind could not be looked at to their end.
    #[error("too many folders were moved while they were scanned")]
    Restless,
}

impl Error {
    /// Returns why nothing is known, as a fact tells it.
    pub fn unknown(&self) -> Unknown {
        match self {
            Self::NoBaseline => Unknown::new(Cause::Absent, self.to_string()),
            Self::BaselineGone => Unknown::new(
                Cause::Absent,
                "the baseline file is gone, with which files were compared: take one afresh with muster-agent fim \
                 rebaseline",
            ),
            Self::BaselineDamaged => Unknown::new(
                Cause::Garbled,
                "the baseline file is damaged: take it afresh with muster-agent fim rebaseline",
            ),
            Self::Scan { path, source } => host::unknown(format!("scan {path}"), source),
            Self::Read { source, .. } => host::unknown("read what was known of the watched paths", source),
            Self::Write { source, .. } => host::unknown("keep what is known of the watched paths", source),
            Self::Locked { .. } | Self::Restless => Unknown::new(Cause::Limit, self.to_string()),
        }
    }

    pub(super) fn of_baseline(store: &Store, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::InvalidData => Self::BaselineDamaged,
            _ => Self::Read { path: store.path(Name::Baseline), source },
        }
    }

    pub(super) fn of_changes(store: &Store, source: io::Error) -> Self {
        Self::Read { path: store.path(Name::Changes), source }
    }

    pub(super) fn of_writing(store: &Store, name: Name) -> impl Fn(io::Error) -> Self + use<'_> {
        move |source| Self::Write { path: store.path(name), source }
    }
}

/// Takes the baseline afresh and forgets the differences from the one before.
///
/// # Errors
///
/// When the scan does not end or the baseline cannot be written; the one before is then still in force.
pub fn take_baseline(request: &Request<'_>, reason: &Text) -> Result<Outcome, Error> {
    take_locked(&locked(request.store)?, request, reason)
}

/// Takes the baseline afresh, as [`take_baseline`] does, for whoever holds the lock.
pub(super) fn take_locked(_: &Lock, request: &Request<'_>, reason: &Text) -> Result<Outcome, Error> {
    request.progress.begin(Phase::Baseline, request.now);
    let outcome = survey::take(request, reason);
    request.progress.end();
    outcome
}

/// Compares what is watched with the baseline.
///
/// # Errors
///
/// When there is no baseline, it is damaged, the scan does not end, or what was found cannot be kept; what was known before is then
/// still in force.
pub fn check(request: &Request<'_>) -> Result<Outcome, Error> {
    let phase = match (request.scope, request.depth) {
        (Scope::Below(_), _) => Phase::Partial,
        (Scope::All, Depth::Full) => Phase::Full,
        (Scope::All, Depth::Quick) => Phase::Quick,
    };
    let _lock = locked(request.store)?;
    request.progress.begin(phase, request.now);
    let outcome = checked(request);
    request.progress.end();
    outcome
}

/// Two that write drafts of the same files would put halves of each other's into force.
pub(super) fn locked(store: &Store) -> Result<Lock, Error> {
    store.lock().map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { path: store.path(Name::Baseline) },
        _ => Error::Write { path: store.path(Name::Scans), source },
    })
}

/// Calls `visit` for each difference that the last scan left, explained or not, in the order of a scan.
///
/// # Errors
///
/// When what is known is damaged or cannot be read, or what `visit` returns.
pub fn each_change(store: &Store, visit: &mut dyn FnMut(FileChange) -> io::Result<()>) -> io::Result<()> {
    let Some(blocks) = store.open_blocks(Name::Changes, known::MAGIC)? else { return Ok(()) };
    let mut cursor = Cursor::start(&blocks)?;
    while cursor.path().is_some() {
        let known = Known::decode(cursor.body()).ok_or(io::ErrorKind::InvalidData)?;
        if let What::Differs(difference) = known.what {
            visit(difference.change)?;
        }
        cursor.advance()?;
    }
    Ok(())
}

/// Reads all of what `store` holds.
///
/// # Errors
///
/// When something of it is damaged or cannot be read, or there is no baseline.
pub fn verify(store: &Store) -> Result<(), Error> {
    let opened = opened(store)?;
    let mut cursor = Cursor::start(&opened.blocks).map_err(|error| Error::of_baseline(store, error))?;
    while cursor.path().is_some() {
        let read = baseline::before(&cursor).and_then(|_| cursor.advance());
        read.map_err(|error| Error::of_baseline(store, error))?;
    }
    each_change(store, &mut |_| Ok(())).map_err(|error| Error::of_changes(store, error))
}

fn checked(request: &Request<'_>) -> Result<Outcome, Error> {
    let store = request.store;
    let opened = opened(store)?;
    // Not by how they are written: the order of paths is no other definition.
    let is_same = opened.sets.iter().map(WatchSet::digest).eq(request.sets.definitions().iter().copied());
    let (opened, is_covered_anew) = if is_same { (opened, false) } else { (cover::cover(request, &opened)?, true) };
    let known = changes(store, &opened)?;
    let scans = match &known {
        Changes::Whole(_) => {
            let id = opened.baseline.id.as_str();
            Scans::read(store, id, opened.baseline.created_time, request.sets.roots())
                .map_err(|source| Error::Read { path: store.path(Name::Scans), source })?
        }
        // What differed at the last scan is not known, so that no later time is one at which files were as the baseline says.
        Changes::None | Changes::Damaged => since_baseline(&opened, request.sets),
    };
    let scope = match &known {
        Changes::Whole(_) if !is_covered_anew => request.scope,
        // What is forgotten says nothing of what was not looked at.
        Changes::None if store.forgets() && !is_covered_anew => request.scope,
        _ => Scope::All,
    };
    let depth = if matches!(known, Changes::Damaged) { Depth::Full } else { request.depth };
    let known = known.whole();
    let compared = compare(request, &opened, known.as_ref(), scans, scope, depth)?;
    tally::conclude(request, &opened, compared.0, compared.1, known.map(|blocks| blocks.digest()))
}

/// Returns the watch sets of the baseline in force, and the run of the agent that scanned last; `None` where there is no baseline
/// that can be read.
pub fn left(store: &Store) -> Option<(Sets, u64)> {
    let opened = opened(store).ok()?;
    let sets = Sets::new(&opened.sets).ok()?;
    let scans = Scans::read(store, opened.baseline.id.as_str(), opened.baseline.created_time, sets.roots()).ok()?;
    let run = scans.roots.first().map_or(super::scans::NO_RUN, |scan| scan.run);
    Some((sets, run))
}

/// Returns the baseline in force.
pub(super) fn opened(store: &Store) -> Result<Opened, Error> {
    let opened = match baseline::open(store) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData && legacy::convert(store)? => baseline::open(store),
        opened => opened,
    };
    match opened {
        Ok(Some(opened)) => Ok(opened),
        Ok(None) => {
            let exists = |name| store.open(name).map(|file| file.is_some());
            let is_started = exists(Name::Changes).and_then(|changes| Ok(changes || exists(Name::Scans)?));
            let is_started = is_started.map_err(|source| Error::of_changes(store, source))?;
            Err(if is_started { Error::BaselineGone } else { Error::NoBaseline })
        }
        Err(source) => Err(Error::of_baseline(store, source)),
    }
}

/// What is known beyond a baseline.
pub(super) enum Changes {
    /// Nothing was kept since it was taken.
    None,
    /// It is not whole.
    Damaged,
    /// This.
    Whole(Blocks),
}

impl Changes {
    pub fn whole(self) -> Option<Blocks> {
        match self {
            Self::Whole(blocks) => Some(blocks),
            Self::None | Self::Damaged => None,
        }
    }
}

/// Returns what is known beyond the baseline, every block of it checked.
pub(super) fn changes(store: &Store, opened: &Opened) -> Result<Changes, Error> {
    let read = || -> io::Result<Changes> {
        let Some(blocks) = store.open_blocks(Name::Changes, known::MAGIC)? else { return Ok(Changes::None) };
        blocks.verify()?;
        let header: known::Header = serde_json::from_slice(blocks.header())?;
        let is_of_it = header.baselines.iter().any(|id| id == opened.baseline.id.as_str());
        Ok(if is_of_it { Changes::Whole(blocks) } else { Changes::None })
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Changes::Damaged),
        other => other.map_err(|source| Error::of_changes(store, source)),
    }
}

fn since_baseline(opened: &Opened, sets: &Sets) -> Scans {
    let created = opened.baseline.created_time;
    Scans::at(opened.baseline.id.as_str(), sets.roots(), created, super::scans::NO_RUN)
}

/// Walks, and merges what is found with the baseline and with what is known beyond it.
fn compare(
    request: &Request<'_>,
    opened: &Opened,
    known: Option<&Blocks>,
    before: Scans,
    scope: Scope<'_>,
    depth: Depth,
) -> Result<(Found, Scans), Error> {
    let (now, is_all) = (request.now, scope == Scope::All);
    let due = match depth {
        Depth::Full => Due::every(true),
        Depth::Quick if is_all => {
            let (period, id) = (request.reread, opened.baseline.id.as_str());
            match request.power {
                Power::Mains => before.slots.due(now, period, id),
                Power::Battery => before.slots.overdue(now, period * 2, id),
            }
        }
        Depth::Quick => Due::every(false),
    };
    let mut scans = before.clone();
    // Another state of the package databases may explain what was not explained before.
    scans.databases = hex::encode(explain::database_stamp(request.host));
    let asks_again = scans.databases != before.databases;
    let mut merge = Merge::start(request, opened, known, &before, due.clone(), asks_again)?;
    for (number, root) in request.sets.roots().iter().enumerate() {
        let ranges = ranges(root, scope);
        if ranges.is_empty() {
            continue;
        }
        let is_whole = ranges.first() == Some(&root.path);
        request.progress.enter(&root.path);
        merge.begin_root(number, ranges);
        let pace = Pace { cross_mounts: mounts::are_crossed(root), ..request.pace.clone() };
        let walked = request.host.walk(&host::path_of(&root.path), &pace, &mut merge);
        let scan = &mut scans.roots[number];
        scan.problem = merge.end_root(walked)?;
        if is_whole {
            (scan.time, scan.run) = (now, request.run);
        }
    }
    if is_all {
        match depth {
            Depth::Full => scans.slots = Slots::read_at(now),
            Depth::Quick => scans.slots.set_read(&due, now),
        }
    }
    Ok((merge.finish()?, scans))
}

/// Returns the paths of a scope at and below `root`, in order, without those that lie below another.
fn ranges(root: &Root, scope: Scope<'_>) -> Vec<Vec<u8>> {
    let paths = match scope {
        Scope::All => return vec![root.path.clone()],
        Scope::Below(paths) => paths,
    };
    let within = |path: &Vec<u8>| {
        if is_at_or_below(&root.path, path) {
            Some(root.path.clone())
        } else {
            is_at_or_below(path, &root.path).then(|| path.clone())
        }
    };
    let mut ranges: Vec<_> = paths.iter().filter_map(within).collect();
    ranges.sort_by(|a, b| order(a, b));
    ranges.dedup_by(|path, above| is_at_or_below(path, above));
    ranges
}
