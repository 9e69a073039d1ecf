//! What explains a difference: a package manager's own record of what it installed, or a rule for what the system's programs make.
//!
//! The databases of dpkg, rpm and pacman are streamed once for all differences, and only what they say of the paths in question is
//! held. What they say is collected in [`Evidence`]; [`judge`] decides from that alone. It is no proof against who can write the
//! databases, only the difference between an upgrade and everything else. When in doubt a difference stays unexplained.

mod alternatives;
mod dpkg;
mod evidence;
mod generated;
mod judge;
mod owners;
mod pacman;
mod rpm;

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use muster_proto::{
    fact::{FileChange, FileType, Text},
    time::Timestamp,
};
use sha2::{Digest as _, Sha256};

use self::evidence::Evidence;
use crate::{
    host::{self, Host},
    probe::memory::Owner,
};

/// Usual name of the file of a [`Memory`].
pub const NAME: &str = "owners";
/// Files and folders that change with every change of a database of packages.
const STAMPS: [&[&str]; 2] = [&[dpkg::STATUS, dpkg::INFO, dpkg::UPDATES, pacman::LOCAL], rpm::DATABASES];

/// What package managers write last, and only when packages change: their logs are written, and rotated, at other times too.
const WRITTEN_LAST: [&[&str]; 2] = [&[dpkg::STATUS, pacman::LOCAL], rpm::DATABASES];
/// Ends the name of what readers of a database may write as well.
const WAL: &str = "-wal";

/// A scan names the time at which it began: what is unpacked while it lasts it may still see.
const SCAN_TIME: Duration = Duration::from_secs(15 * 60);
/// A package manager writes its database after what the database tells.
const LATE: Duration = Duration::from_secs(2 * 60);

/// Differences of which each is looked up by itself, at most; for more the databases are read.
const FEW: usize = 64;

/// Differences by path.
pub type Changes<'c> = BTreeMap<&'c [u8], Asked<'c>>;

/// A difference of which the explanation is looked for.
#[derive(Debug)]
pub struct Asked<'c> {
    /// The difference.
    pub change: &'c mut FileChange,
    /// The watched path that it is at or below.
    pub root: &'c [u8],
    /// When a look last saw the state before this one: what explains it happened since.
    pub since: Timestamp,
    /// Whether the look that found this state has only now ended.
    pub is_new: bool,
}

impl Asked<'_> {
    /// Returns whether nothing explains it yet.
    pub fn is_open(&self) -> bool {
        self.change.explanation.is_none()
    }

    /// Whether a package that was unpacked at `time` may have caused the difference.
    fn is_within(&self, time: Option<Timestamp>) -> bool {
        self.is_at(time, SCAN_TIME)
    }

    /// Whether a program that ran at `time` may have. What an earlier look found was there before whatever happened since.
    fn is_soon(&self, time: Option<Timestamp>) -> bool {
        self.is_at(time, if self.is_new { SCAN_TIME } else { LATE })
    }

    fn is_at(&self, time: Option<Timestamp>, late: Duration) -> bool {
        time.is_some_and(|time| time.plus(judge::SECOND) > self.since && time <= self.change.detected_time.plus(late))
    }
}

/// Where it is kept between scans which package each path belongs to: without it no deletion of a package's file is explained.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// A folder of the agent's.
    pub folder: &'a Path,
    /// Name of the file in it.
    pub name: &'a str,
    /// To whom the file belongs.
    pub owner: Owner,
}

/// Sets `explanation` of those `changes` that are explained, and `after.md5` of files where dpkg is in use. What has an explanation
/// is left as it is.
///
/// A database is written while packages are unpacked: a difference that is not explained by a scan in the midst of it may be so
/// afterwards. It is to be shown again whenever [`database_stamp`] is another than when it was shown last.
///
/// # Errors
///
/// When a database is there and cannot be read: nothing is set, and the changes are to be shown again.
pub fn explain(host: &dyn Host, memory: Option<Memory<'_>>, changes: &mut Changes<'_>) -> io::Result<()> {
    if !changes.values().any(Asked::is_open) {
        return Ok(());
    }
    if memory.is_some_and(|memory| is_of_no_package(host, memory, changes)) {
        if host.metadata(Path::new(dpkg::STATUS)).is_ok() {
            add_md5(host, changes);
        }
        return Ok(());
    }
    let mut evidence = Evidence::about(host, changes);
    dpkg::collect(host, &mut evidence)?;
    if is_written_since(host, rpm::DATABASES, evidence.oldest) {
        rpm::collect(host, &mut evidence)?;
    }
    if is_written_since(host, &[pacman::LOCAL], evidence.oldest) {
        pacman::collect(host, &mut evidence)?;
    }
    alternatives::collect(host, &mut evidence)?;
    let written = WRITTEN_LAST.into_iter().flatten().filter(|path| !path.ends_with(WAL));
    evidence.times.extend(written.filter_map(|path| host.metadata(Path::new(path)).ok()?.modified));
    evidence.forget_open_folders(host);
    if let Some(memory) = memory
        && changes.values().any(|asked| asked.change.after.is_none())
    {
        owners::collect(memory, changes, &mut evidence)?;
    }
    if evidence.needs_md5 {
        add_md5(host, changes);
    }
    judge::explain(changes, &evidence);
    Ok(())
}

/// Keeps which package each path belongs to, for the deletions that later scans find: to be called when a baseline was taken and
/// after each scan whose differences were explained. It does nothing while [`database_stamp`] stays the same, nor for a capture, whose
/// memory is forgotten.
///
/// # Errors
///
/// When a database is there and cannot be read, or the file cannot be written; it is then as before.
pub fn remember(host: &dyn Host, memory: Memory<'_>, now: Timestamp) -> io::Result<()> {
    if host.is_recording() {
        return Ok(());
    }
    owners::remember(host, memory, database_stamp(host), now)
}

/// Returns a digest that is another one after each change of the host's databases of packages.
pub fn database_stamp(host: &dyn Host) -> [u8; 32] {
    let mut digest = Sha256::new();
    for path in STAMPS.into_iter().flatten() {
        let Ok(metadata) = host.metadata(Path::new(path)) else { continue };
        let modified = metadata.modified.map(Timestamp::micros);
        let text =
            format!("{path} {} {} {modified:?} {:?}\n", metadata.inode, metadata.size_bytes, metadata.changed_nanos);
        digest.update(text);
    }
    digest.finalize().into()
}

/// Whether neither a package nor a rule can say anything of `changes`, by what is remembered of the databases as they are. A notice of
/// one changed file must not cost a look through every package.
fn is_of_no_package(host: &dyn Host, memory: Memory<'_>, changes: &Changes<'_>) -> bool {
    let open: Vec<_> = changes.iter().filter(|(_, asked)| asked.is_open()).collect();
    let says_nothing = |path: &[u8], change: &FileChange| {
        let is_link = change.after.as_ref().is_some_and(|after| after.r#type == FileType::Link);
        !is_link && judge::beside(path).is_none() && !generated::is_about(path, change)
    };
    open.len() <= FEW
        && open.iter().all(|(path, asked)| says_nothing(path, asked.change))
        && owners::have_none_of(memory, database_stamp(host), open.iter().map(|(path, _)| **path))
}

/// Whether one of `paths` was written since: asking rpm or pacman is dear, and a change that they did not make they do not explain.
fn is_written_since(host: &dyn Host, paths: &[&str], since: Option<Timestamp>) -> bool {
    let Some(since) = since else { return false };
    let mut times = paths.iter().filter_map(|path| host.metadata(Path::new(path)).ok());
    times.any(|metadata| metadata.modified.is_some_and(|time| time.plus(judge::SECOND) > since))
}

/// Adds the MD5 of each file: of the content that the scan saw, by one read for both digests, or none.
fn add_md5(host: &dyn Host, changes: &mut Changes<'_>) {
    for (path, asked) in changes.iter_mut().filter(|(_, asked)| asked.is_open()) {
        let Some(after) = &mut asked.change.after else { continue };
        if after.r#type != FileType::File || after.sha256.is_empty() || !after.md5.is_empty() {
            continue;
        }
        // What cannot be read is not as a package installed it so far as anybody can tell.
        let root = host::path_of(asked.root);
        let Ok(digests) = host.digests(&root, &host::path_of(path)) else { continue };
        if hex::encode(digests.sha256) == after.sha256.as_str() {
            after.md5 = Text::new(&hex::encode(digests.md5));
        }
    }
}

#[cfg(test)]
mod tests;
