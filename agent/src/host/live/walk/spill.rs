//! An unlinked temporary file for sorted names that memory is not to hold.
//!
//! Regions are given out at its end and come back in about the other order, so that it stays about as long as what is in use.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
};

/// Bytes of the file, at most.
const FILE_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Names that are tried for a file system without unnamed files.
const TRIES: u32 = 16;

/// Where bytes lie in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Region {
    pub start: u64,
    pub end: u64,
}

/// An unlinked temporary file, made when it is first needed.
#[derive(Debug)]
pub(super) struct Spill {
    folder: PathBuf,
    file: Option<File>,
    /// Regions by where they start, and whether each is in use.
    regions: Vec<(Region, bool)>,
}

impl Spill {
    pub(super) fn new(folder: Option<&Path>) -> Self {
        Self { folder: folder.map_or_else(std::env::temp_dir, Path::to_owned), file: None, regions: Vec::new() }
    }

    /// Begins a region at the end.
    pub(super) fn begin(&mut self) -> Region {
        let end = self.regions.last().map_or(0, |(last, _)| last.end);
        let region = Region { start: end, end };
        self.regions.push((region, true));
        region
    }

    /// Puts `bytes` behind the last region, which is `region`.
    pub(super) fn extend(&mut self, region: &mut Region, bytes: &[u8]) -> io::Result<()> {
        let end = region.end + bytes.len() as u64;
        if end > FILE_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more names than a scan may sort"));
        }
        self.file()?.write_all_at(bytes, region.end)?;
        region.end = end;
        if let Some(last) = self.regions.last_mut() {
            last.0 = *region;
        }
        Ok(())
    }

    /// Reads from `at` as many bytes as `buffer` has, which must be in a region.
    pub(super) fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file()?.read_exact_at(buffer, at)
    }

    /// Gives a region back.
    pub(super) fn release(&mut self, region: Region) {
        // One without bytes starts where the next one does.
        if let Some(held) = self.regions.iter_mut().rev().find(|(held, is_used)| *is_used && *held == region) {
            held.1 = false;
        }
        while self.regions.pop_if(|(_, is_used)| !*is_used).is_some() {}
    }

    fn file(&mut self) -> io::Result<&File> {
        match &mut self.file {
            Some(file) => Ok(file),
            none => {
                let made = unnamed(&self.folder).map_err(|error| {
                    let folder = self.folder.display();
                    let text = format!("more names than memory may hold, and no temporary file in {folder}: {error}");
                    io::Error::new(io::ErrorKind::FileTooLarge, text)
                });
                Ok(none.insert(made?))
            }
        }
    }
}

/// Makes a file in `folder` that has no name.
fn unnamed(folder: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::openat(CWD, folder, flags | OFlags::TMPFILE, mode) {
        // A file system, or a kernel before 3.11, without such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
        opened => return Ok(File::from(opened?)),
    }
    for number in 0..TRIES {
        let path = folder.join(format!(".muster-names-{}-{number}", std::process::id()));
        match rustix::fs::openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode) {
            // One that was left behind, or that somebody put there: it is not touched.
            Err(Errno::EXIST) => {}
            opened => {
                let file = File::from(opened?);
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_long_as_what_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(Some(folder.path()));
        let mut write = |bytes: &[u8]| {
            let mut region = spill.begin();
            spill.extend(&mut region, bytes).unwrap();
            region
        };
        let (a, b, c) = (write(b"aaaa"), write(b""), write(b"cc"));
        let mut read = [0; 2];
        spill.read(c.start, &mut read).unwrap();
        assert_eq!(&read, b"cc");
        spill.release(b);
        assert_eq!(spill.begin().start, 6, "what is behind is in use");
        spill.release(Region { start: 6, end: 6 });
        spill.release(c);
        assert_eq!(spill.begin(), Region { start: 4, end: 4 });
        spill.release(Region { start: 4, end: 4 });
        spill.release(a);
        assert_eq!(spill.begin().start, 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it has no name");
    }

    #[test]
    fn without_its_folder_a_limit_is_met() {
        let folder = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(Some(&folder.path().join("none")));
        let mut region = spill.begin();
        assert_eq!(spill.extend(&mut region, b"x").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
