//! Where the engine keeps its state: the files of one folder, each replaced as a whole.
//!
//! ```text
//! baseline    what files are compared with: `baseline.rs`
//! changes     what is known beyond it: `known.rs`
//! scans       when and by which run of the agent each path was last scanned: `scans.rs`
//! owners      which package each path belongs to: `explain.rs`
//! ```
//!
//! Whatever is put into force at once, a kill between two files leaves a state that only says less of when: `changes` of another
//! baseline are not taken, and without `scans` windows reach back to the baseline.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};

use super::{
    block::{Blocks, Digest},
    explain,
};
use crate::probe::memory::{self, Owner};

/// Bytes of a small file, at most.
const SMALL_BYTES: u64 = 4 * 1024 * 1024;
/// How often a lock that another look has is tried, and the time between: ten seconds in all.
const LOCK_TRIES: u32 = if cfg!(test) { 2 } else { 100 };
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// One of the files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "the module says it")]
pub enum Name {
    Baseline,
    Changes,
    Scans,
}

/// The files of one folder.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Of the baseline, where that is only read and the others are elsewhere.
    baseline_folder: PathBuf,
    baseline: String,
    changes: String,
    scans: String,
    owners: String,
    /// To whom new files belong.
    owner: Owner,
    #[cfg(test)]
    faults: Faults,
}

impl Store {
    /// Returns the store of an agent in `folder`, which is there.
    pub fn at(folder: &Path) -> Self {
        let others = ["changes", "scans", explain::NAME].map(str::to_owned);
        Self { owner: Owner::OfFolder, ..Self::named(folder, "baseline", others) }
    }

    /// Returns the store whose baseline is `file`, with the others beside it, such as `FILE.changes`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when `file` does not name a file, or not in UTF-8.
    pub fn of_file(file: &Path) -> io::Result<Self> {
        let name = file.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self::named(folder, name, ["changes", "scans", explain::NAME].map(|part| format!("{name}.{part}"))))
    }

    fn named(folder: &Path, baseline: &str, [changes, scans, owners]: [String; 3]) -> Self {
        Self {
            folder: folder.to_owned(),
            baseline_folder: folder.to_owned(),
            baseline: baseline.to_owned(),
            changes,
            scans,
            owners,
            owner: Owner::Maker,
            #[cfg(test)]
            faults: Faults::default(),
        }
    }

    /// Returns the store with the same baseline, and the others in `folder`: for a baseline that is only read.
    #[must_use]
    pub fn with_others_in(mut self, folder: &Path) -> Self {
        // Which package a path belongs to is as true there. Without it a deletion is less explained, and package lists are read again.
        let copied = memory::open(&self.folder.join(&self.owners))
            .and_then(|mut from| io::copy(&mut from, &mut File::create(folder.join(&self.owners))?));
        // Half of them is damaged, and so none.
        let _ = copied;
        folder.clone_into(&mut self.folder);
        self
    }

    /// Returns the path of a file.
    pub fn path(&self, name: Name) -> PathBuf {
        self.folder_of(name).join(self.name(name))
    }

    /// Returns whether what a look keeps is forgotten after it, since the baseline is only read.
    pub fn forgets(&self) -> bool {
        self.baseline_folder != self.folder
    }

    /// Returns the paths of what is written before it takes a file's name, and counts for nothing until then.
    fn drafts(&self) -> Vec<PathBuf> {
        let others = [&self.changes, &self.scans, &self.owners].map(|name| self.folder.join(format!("{name}.new")));
        let baseline = self.baseline_folder.join(format!("{}.new", self.baseline));
        others.into_iter().chain([baseline, self.draft_path()]).collect()
    }

    /// Returns the paths of all its files, and of what is written before it takes their names.
    pub fn paths(&self) -> Vec<PathBuf> {
        let others = [&self.changes, &self.scans, &self.owners].map(|name| self.folder.join(name));
        [vec![self.path(Name::Baseline)], others.to_vec(), self.drafts()].concat()
    }

    /// Keeps every other look at the same files waiting until it is dropped, or waits for one that is under way. In a folder of the
    /// agent's it waits as long as that takes.
    ///
    /// # Errors
    ///
    /// When the folder cannot be opened or locked; `WouldBlock` when somebody else, who need only be able to list it, keeps it locked.
    pub fn lock(&self) -> io::Result<Lock> {
        if !cfg!(unix) {
            return Ok(Lock::of(None, self.drafts()));
        }
        // The folder itself: a file of its own could be replaced.
        let folder = File::open(&self.folder)?;
        if self.owner == Owner::OfFolder {
            folder.lock()?;
            return Ok(Lock::of(Some(folder), self.drafts()));
        }
        for _ in 0..LOCK_TRIES {
            match folder.try_lock() {
                Ok(()) => return Ok(Lock::of(Some(folder), self.drafts())),
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn draft_path(&self) -> PathBuf {
        self.folder.join(format!("{}.draft", self.baseline))
    }

    fn folder_of(&self, name: Name) -> &Path {
        match name {
            Name::Baseline => &self.baseline_folder,
            Name::Changes | Name::Scans => &self.folder,
        }
    }

    /// Returns where it is kept which package each path belongs to.
    pub fn owners(&self) -> explain::Memory<'_> {
        explain::Memory { folder: &self.folder, name: &self.owners, owner: self.owner }
    }

    fn name(&self, name: Name) -> &str {
        match name {
            Name::Baseline => &self.baseline,
            Name::Changes => &self.changes,
            Name::Scans => &self.scans,
        }
    }

    /// Opens a file; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(&self, name: Name) -> io::Result<Option<File>> {
        match memory::open(&self.path(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a file of records that begins with `magic`; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is damaged, or when it cannot be read.
    pub fn open_blocks(&self, name: Name, magic: &[u8]) -> io::Result<Option<Blocks>> {
        self.open(name)?.map(|file| Blocks::open(file, magic)).transpose()
    }

    /// Reads a small file; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is not small.
    pub fn read(&self, name: Name) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(SMALL_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > SMALL_BYTES { Err(io::ErrorKind::InvalidData.into()) } else { Ok(Some(bytes)) }
    }

    /// Replaces a file with what `write` writes, synced before it takes its name.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the file is then as before.
    pub fn replace<T>(&self, name: Name, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
        if name == Name::Baseline && self.forgets() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "this baseline is only read"));
        }
        let mut result = None;
        memory::replace(self.folder_of(name), self.name(name), self.owner, |file| {
            result = Some(write(&mut self.watched(file))?);
            self.step()
        })?;
        self.step()?;
        result.ok_or_else(|| io::Error::other("nothing was written"))
    }

    /// Replaces a file of records with what `write` writes, unless its digest, which `write` returns, is `digest` already.
    ///
    /// # Errors
    ///
    /// When it cannot be written; the file is then as before.
    pub fn replace_if_other(
        &self,
        name: Name,
        digest: Option<Digest>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<Digest>,
    ) -> io::Result<Digest> {
        let mut draft = self.draft()?;
        let written = {
            let mut out = io::BufWriter::new(&mut draft);
            let written = write(&mut self.watched(&mut out))?;
            out.flush()?;
            written
        };
        if digest != Some(written) {
            draft.seek(SeekFrom::Start(0))?;
            self.replace(name, |mut out| io::copy(&mut draft, &mut out).map(drop))?;
        }
        Ok(written)
    }

    /// Returns an empty file without a name, which is gone when it is closed.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn draft(&self) -> io::Result<File> {
        let path = self.draft_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // What another user put in its place meanwhile is not taken.
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "tests let it fail")]
    fn watched<'o>(&self, out: &'o mut dyn Write) -> &'o mut dyn Write {
        out
    }

    #[cfg(test)]
    fn watched<'o>(&'o self, out: &'o mut dyn Write) -> Faulty<'o> {
        Faulty { out, faults: &self.faults }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests let it fail")]
    fn step(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        self.faults.step()
    }

    /// Lets the write of this number, from 0, fail, and every one after it.
    #[cfg(test)]
    pub fn fail_from(&self, write: Option<u64>) {
        self.faults.left.set(write);
    }
}

/// Drafts of the looks of this process that are under way.
static DRAFTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Keeps every other look at the same files waiting until it is dropped.
#[derive(Debug)]
pub struct Lock {
    drafts: Vec<PathBuf>,
    _folder: Option<File>,
}

impl Lock {
    fn of(folder: Option<File>, drafts: Vec<PathBuf>) -> Self {
        if let Ok(mut all) = DRAFTS.lock() {
            all.extend(drafts.iter().cloned());
        }
        Self { drafts, _folder: folder }
    }

    /// Returns the drafts of this process, for when it is about to end: those of another whose look this one waits for are left to it.
    pub fn drafts() -> Vec<PathBuf> {
        DRAFTS.lock().map_or_else(|_| Vec::new(), |drafts| drafts.clone())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Ok(mut all) = DRAFTS.lock() {
            all.retain(|path| !self.drafts.contains(path));
        }
    }
}

/// Lets writes fail from one on, as when the program was killed or the disk is full.
#[cfg(test)]
#[derive(Debug, Default)]
struct Faults {
    left: std::cell::Cell<Option<u64>>,
}

#[cfg(test)]
impl Faults {
    fn step(&self) -> io::Result<()> {
        match self.left.get() {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                self.left.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
struct Faulty<'o> {
    out: &'o mut dyn Write,
    faults: &'o Faults,
}

#[cfg(test)]
impl Write for Faulty<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.faults.step()?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
