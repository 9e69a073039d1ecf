//! File integrity on its own: a baseline in a file, and what differs from it, without an agent, its settings or a collector.
//!
//! The file holds what it covers, so that later looks cover the same. A check writes nothing beside it; a quick look keeps what it
//! learnt in `FILE.changes`, `FILE.scans` and `FILE.owners`, where it may.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use muster_proto::{
    fact::{Cause, FileChange, PathText, Text, Unknown, UnreadablePath},
    time::Timestamp,
};

use super::{
    baseline::{self, Opened},
    block::Cursor,
    check::{self, Depth, Request, Scope},
    known::{self, Known, What},
    manners::Power,
    place::{is_at_or_below, plain},
    progress::Progress,
    scans::NO_RUN,
    sets::{self, Root, Rule, Sets},
    store::{Name, Store},
    tally::{self, Outcome},
    watch_set::WatchSet,
};
use crate::{
    host::{self, EntryKind, Host, Pace},
    inspect::Memory,
};

/// Name of the one watch set of such a baseline.
pub const SET: &str = "own";

/// It could not be looked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A baseline would be lost.
    #[error("{} is there already: compare with it by `fim check`, or put a new one in its place with --force", path.display())]
    Exists {
        /// Its file.
        path: PathBuf,
    },
    /// There is no baseline.
    #[error("there is no baseline at {}: take one with `fim baseline`", path.display())]
    None {
        /// Its file.
        path: PathBuf,
    },
    /// The baseline is damaged.
    #[error(
        "{} is damaged, or no baseline of this version: bring back a copy of it, or take it afresh with `fim baseline --force`",
        path.display()
    )]
    Damaged {
        /// Its file.
        path: PathBuf,
    },
    /// The baseline cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The baseline would be among what it covers, and would differ from itself.
    #[error("{} lies below what it covers: put it elsewhere, or leave it out with --exclude '{pattern}*'", path.display())]
    Inside {
        /// Its file.
        path: PathBuf,
        /// The path as a pattern.
        pattern: String,
    },
    /// A path is not covered.
    #[error("the baseline does not cover {}", path.display())]
    NotCovered {
        /// The path.
        path: PathBuf,
    },
    /// A path is neither in the baseline nor there.
    #[error("{} is neither in the baseline nor there: is it written rightly?", path.display())]
    NotThere {
        /// The path.
        path: PathBuf,
    },
    /// None of the paths is there.
    #[error("there is nothing to take a baseline of: {} does not exist", path.display())]
    Nothing {
        /// The first of them.
        path: PathBuf,
    },
    /// A name that the file cannot hold.
    #[error("{} is not in UTF-8: name a folder above it", path.display())]
    NotText {
        /// The path.
        path: PathBuf,
    },
    /// The baseline's file is something else.
    #[error("{} is no file: name one with --db", path.display())]
    NotFile {
        /// The path.
        path: PathBuf,
    },
    /// What is to be covered is not as it must be.
    #[error("this cannot be covered")]
    Sets(#[from] sets::Error),
    /// The look did not come to its end.
    #[error("the look did not come to its end")]
    Engine(#[from] check::Error),
    /// There is no folder for what is forgotten after the look.
    #[error("failed to make a folder for the time of the look")]
    Memory(#[source] Box<crate::inspect::Error>),
}

/// Where the baseline is, and how it is looked.
#[derive(Debug)]
pub struct Look<'a> {
    /// File of the baseline.
    pub file: &'a Path,
    /// How fast.
    pub pace: Pace,
    /// When the look begins, host's clock.
    pub now: Timestamp,
    /// Quick looks read every file again within this time; zero for never.
    pub reread: Duration,
}

/// What a look found.
pub struct Looked {
    /// What it came to.
    pub outcome: Outcome,
    store: Store,
    paths: Vec<Vec<u8>>,
    // Last, so that it goes after what is in it was read.
    _memory: Option<Memory>,
}

/// One thing that a look found.
#[derive(Debug)]
pub enum Item {
    /// A difference from the baseline.
    Change(Box<FileChange>),
    /// An entry that could not be read, or not be compared.
    Unreadable(UnreadablePath),
}

impl Looked {
    /// Shows `visit` everything that was found, in the order of a scan: all of it, however much it is.
    ///
    /// # Errors
    ///
    /// When what was kept of it cannot be read, or what `visit` returns.
    pub fn each(&self, visit: &mut dyn FnMut(Item) -> io::Result<()>) -> io::Result<()> {
        let Some(blocks) = self.store.open_blocks(Name::Changes, known::MAGIC)? else { return Ok(()) };
        let mut cursor = Cursor::start(&blocks)?;
        while let Some(path) = cursor.path() {
            let is_wanted = self.paths.is_empty() || self.paths.iter().any(|above| is_at_or_below(path, above));
            // What cannot be read above hides what is wanted.
            let is_above = self.paths.iter().any(|below| is_at_or_below(below, path));
            if is_wanted || is_above {
                let known = Known::decode(cursor.body()).ok_or(io::ErrorKind::InvalidData)?;
                let unreadable = tally::not_read(&known).map(|unknown| unreadable(path, &known, unknown));
                match known.what {
                    What::Differs(difference) if is_wanted => visit(Item::Change(Box::new(difference.change)))?,
                    _ => {}
                }
                unreadable.map(Item::Unreadable).map_or(Ok(()), &mut *visit)?;
            }
            cursor.advance()?;
        }
        Ok(())
    }
}

fn unreadable(path: &[u8], known: &Known, unknown: Unknown) -> UnreadablePath {
    let unknown = match (&known.unreadable, &known.what) {
        (Some(_), _) => unknown,
        (None, What::Gone) => {
            Unknown::new(unknown.cause, "it is gone, and could not be read when the baseline was taken")
        }
        (None, _) => {
            Unknown::new(unknown.cause, "it could not be read when the baseline was taken, so that nothing is compared")
        }
    };
    UnreadablePath { path: PathText::from_bytes(path), unknown }
}

/// Takes a baseline of `set` into a file. One that is there is lost when `is_forced`.
///
/// # Errors
///
/// When one is there and it is not forced, or it cannot be taken; the one before is then still in force.
pub fn take(host: &dyn Host, look: &Look<'_>, set: WatchSet, is_forced: bool) -> Result<Looked, Error> {
    let store = store(look)?;
    let set = WatchSet { paths: set.paths.iter().map(|path| plain(path)).collect(), ..set };
    if let Some(path) = set.paths.iter().find(|path| path.to_str().is_none()) {
        return Err(Error::NotText { path: path.clone() });
    }
    let sets = Sets::new(&[set])?;
    let is_absent = |root: &Root| {
        host.metadata(&host::path_of(&root.path)).is_err_and(|error| host::cause(&error) == Cause::Absent)
    };
    if let Some(first) = sets.roots().first().filter(|_| sets.roots().iter().all(is_absent)) {
        return Err(Error::Nothing { path: host::path_of(&first.path) });
    }
    if let Some(pattern) = inside(&sets, &store, look.file) {
        return Err(Error::Inside { path: look.file.to_owned(), pattern });
    }
    let may_be_taken = || match look.file.try_exists() {
        Ok(true) if !is_forced => Err(Error::Exists { path: look.file.to_owned() }),
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Read { path: look.file.to_owned(), source }),
    };
    may_be_taken()?;
    let lock = check::locked(&store)?;
    // The look that had the lock may have taken one.
    may_be_taken()?;
    let progress = Progress::default();
    let request = request(host, look, &sets, &store, Depth::Full, &[], &progress);
    let outcome = check::take_locked(&lock, &request, &Text::new("fim baseline"))?;
    Ok(Looked { outcome, store, paths: Vec::new(), _memory: None })
}

/// Compares with the baseline of a file, at `paths` and below, or everywhere without any.
///
/// # Errors
///
/// When there is no sound baseline, it does not cover a path, or the look does not come to its end.
pub fn compare(host: &dyn Host, look: &Look<'_>, depth: Depth, paths: &[PathBuf]) -> Result<Looked, Error> {
    let own = store(look)?;
    let opened = opened(&own, look.file)?;
    let sets = Sets::new(&opened.sets)?;
    let paths: Vec<Vec<u8>> = paths.iter().map(|path| host::path_bytes(&plain(path))).collect();
    for path in &paths {
        must_be_covered(host, &opened, &sets, path, look.file)?;
    }
    // Where nothing can be kept, each look begins with what the baseline itself says.
    let (store, memory) = if depth == Depth::Quick && own.draft().is_ok() {
        (own, None)
    } else {
        let memory = Memory::make().map_err(|error| Error::Memory(Box::new(error)))?;
        let store = own.with_others_in(memory.path());
        (store, Some(memory))
    };
    let progress = Progress::default();
    let outcome = check::check(&request(host, look, &sets, &store, depth, &paths, &progress))?;
    Ok(Looked { outcome, store, paths, _memory: memory })
}

fn store(look: &Look<'_>) -> Result<Store, Error> {
    let path = || look.file.to_owned();
    if look.file.file_name().is_some_and(|name| name.to_str().is_none()) {
        return Err(Error::NotText { path: path() });
    }
    // Opening a pipe would wait for whoever writes to it.
    if std::fs::metadata(look.file).is_ok_and(|found| !found.is_file()) {
        return Err(Error::NotFile { path: path() });
    }
    Store::of_file(look.file).map_err(|source| Error::Read { path: path(), source })
}

/// Refuses a path of which a look would say nothing, which reads as if nothing had changed.
fn must_be_covered(host: &dyn Host, opened: &Opened, sets: &Sets, path: &[u8], file: &Path) -> Result<(), Error> {
    let at = || host::path_of(path);
    let found = host.metadata(&at());
    let kinds = match &found {
        Ok(found) => vec![found.kind],
        Err(_) => vec![EntryKind::File, EntryKind::Folder],
    };
    if kinds.iter().all(|kind| sets.rule(path, *kind) == Rule::Outside) {
        return Err(Error::NotCovered { path: at() });
    }
    if found.is_err_and(|error| host::cause(&error) == Cause::Absent) {
        let failed = |source| Error::Read { path: file.to_owned(), source };
        let mut cursor = Cursor::start(&opened.blocks).map_err(failed)?;
        cursor.seek(path).map_err(failed)?;
        if !cursor.path().is_some_and(|known| is_at_or_below(known, path)) {
            return Err(Error::NotThere { path: at() });
        }
    }
    Ok(())
}

/// Returns the baseline.
fn opened(store: &Store, file: &Path) -> Result<Opened, Error> {
    let path = || file.to_owned();
    match baseline::open(store) {
        Ok(Some(opened)) => Ok(opened),
        Ok(None) => Err(Error::None { path: path() }),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Error::Damaged { path: path() }),
        Err(source) => Err(Error::Read { path: path(), source }),
    }
}

fn request<'a>(
    host: &'a dyn Host,
    look: &Look<'_>,
    sets: &'a Sets,
    store: &'a Store,
    depth: Depth,
    paths: &'a [Vec<u8>],
    progress: &'a Progress,
) -> Request<'a> {
    Request {
        host,
        sets,
        store,
        now: look.now,
        run: NO_RUN,
        depth,
        scope: if paths.is_empty() { Scope::All } else { Scope::Below(paths) },
        pace: look.pace.clone(),
        reread: look.reread,
        // Somebody asked for it now.
        power: Power::Mains,
        progress,
        actors: None,
    }
}

/// Returns the pattern that leaves `file` and what is kept beside it out, when `sets` cover any of it.
fn inside(sets: &Sets, store: &Store, file: &Path) -> Option<String> {
    let is_covered = |folder: &Path| {
        store.paths().iter().filter_map(|path| path.file_name()).any(|name| {
            let path = host::path_bytes(&plain(&folder.join(name)));
            matches!(sets.rule(&path, EntryKind::File), Rule::Covered { .. })
        })
    };
    // By every name that a scan may meet it under: its folder, or one above a covered path, may be reached through a link.
    let absolute = std::path::absolute(file).ok()?;
    let given = absolute.parent()?.to_owned();
    let mut folders = vec![given.clone()];
    if let Ok(real) = given.canonicalize() {
        let below = |root: &Root| {
            let root = host::path_of(&root.path);
            Some(root.join(real.strip_prefix(root.canonicalize().ok()?).ok()?))
        };
        folders.extend(sets.roots().iter().filter_map(below));
        folders.push(real);
    }
    let folder = folders.iter().find(|folder| is_covered(folder))?;
    let path = plain(&folder.join(absolute.file_name()?));
    Some(path.display().to_string().trim_start_matches('/').to_owned())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
