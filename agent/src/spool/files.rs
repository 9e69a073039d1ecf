//! The few changes that the spool makes on disk, one by one, so that tests can stop after any of them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

/// A change on disk. Reads need no seam: what a test damages it damages in the real file.
pub trait Files: Send {
    /// Writes `bytes` at `offset` of the file at `path`, made with mode 0600 if it is not there.
    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content of the file at `path` durable (fdatasync(2)).
    fn sync(&mut self, path: &Path) -> io::Result<()>;
    /// Cuts the file at `path` to `len` bytes.
    fn truncate(&mut self, path: &Path, len: u64) -> io::Result<()>;
    /// Renames a file over another.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&mut self, path: &Path) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_data()
    }

    fn truncate(&mut self, path: &Path, len: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(path)?.set_len(len)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// Writes `bytes` to `path` so that after a crash the file is wholly old or wholly new.
pub fn replace(files: &mut dyn Files, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    files.remove(beside)?;
    let written = files.write_at(beside, 0, bytes).and_then(|()| files.sync(beside));
    if let Err(error) = written.and_then(|()| files.rename(beside, path)) {
        // What a full disk left of it would only take the room that others need. The error that counts is the first.
        let _ = files.remove(beside);
        return Err(error);
    }
    files.sync_folder(folder)
}
