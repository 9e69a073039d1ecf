//! Reads one entry: a file's content, a link's target, extended attributes.
//!
//! What is told of an entry is from one state of it: one that changes while it is read is read again, and after some tries it is
//! unreadable. A hole of a file is hashed as the zeroes that it stands for, without a read.

use std::{
    ffi::CStr,
    io,
    ops::Range,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use md5::Md5;
use rustix::{
    fs::{AtFlags, SeekFrom, Stat},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use super::{
    attributes::Attributes,
    budget::Budget,
    cache::{self, AtOnce, Cache},
    open::{self, Opener, changed},
    owners::{Named, Owners},
};
use crate::host::{
    Digests, EntryKind, LARGEST_FILE_BYTES, Metadata, Pace, Scanned, Want,
    live::{Live, linux::metadata},
};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 128 * 1024;
/// How often an entry that changes while it is read is read again.
const TRIES: u32 = 3;

/// What a hole has.
static ZEROES: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// What the readers of one walk share.
#[derive(Debug)]
pub(super) struct Rules {
    live: Live,
    budget: Budget,
    owners: Owners,
    named: Named,
    largest_file_bytes: u64,
    /// Set when the walk ends early: nobody waits for what is still read.
    pub is_over: AtomicBool,
}

impl Rules {
    pub(super) fn new(live: Live, pace: &Pace) -> Self {
        let budget = Budget::new(pace.bytes_per_second);
        let (owners, named) = (Owners::new(pace.owner_bytes), Named::default());
        let largest_file_bytes = pace.largest_file_bytes;
        Self { live, budget, owners, named, largest_file_bytes, is_over: AtomicBool::new(false) }
    }

    pub(super) fn check(&self) -> io::Result<()> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.live.check_deadline()
    }
}

/// Reads entries, one after the other.
#[derive(Debug)]
pub(super) struct Reader<'w> {
    rules: &'w Rules,
    opener: Opener,
    attributes: Attributes,
    buffer: Vec<u8>,
}

impl<'w> Reader<'w> {
    pub(super) fn new(rules: &'w Rules) -> Self {
        Self { rules, opener: Opener::new(true), attributes: Attributes::default(), buffer: Vec::new() }
    }

    pub(super) fn rules(&self) -> &'w Rules {
        self.rules
    }

    /// Reads what is wanted of the entry `name` in `folder`, which is no folder, and of which lstat(2) said `looked`.
    pub(super) fn read(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        looked: &Metadata,
        want: Want,
    ) -> io::Result<Scanned> {
        until_unchanged(|| match looked.kind {
            EntryKind::File => self.file(folder, name, looked, want),
            _ => self.unopened(folder, name, looked),
        })
    }

    /// Reads the attributes of a folder that is open.
    pub(super) fn folder(&mut self, folder: BorrowedFd<'_>) -> io::Result<Scanned> {
        until_unchanged(|| {
            let before = rustix::fs::fstat(folder)?;
            let attributes = self.attributes.of_open(folder);
            let attributes = self.counted(before.st_uid, attributes);
            unchanged(folder, &before, attributes.map(|list| (None, list)))
        })
    }

    /// Returns what was read, or `None` when it changed meanwhile.
    fn file(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        looked: &Metadata,
        want: Want,
    ) -> io::Result<Option<Scanned>> {
        let (file, before) = self.opener.file(folder, name, looked)?;
        // A small file is read sooner than remembered.
        let has_names =
            before.st_nlink > 1 && u64::try_from(before.st_size).is_ok_and(|size| size > PIECE_BYTES as u64);
        let known = if has_names { self.rules.named.digest(&metadata(&before)) } else { None };
        let sha256 = if want != Want::Read {
            Ok(None)
        } else if known.is_some() {
            Ok(known)
        } else {
            let mut hash = Sha256::new();
            content(self.rules, &file, &before, &mut self.buffer, |bytes| hash.update(bytes))
                .map(|()| Some(hash.finalize().into()))
        };
        let attributes = self.attributes.of_open(file.as_fd());
        let attributes = self.counted(before.st_uid, attributes);
        let scanned = unchanged(file.as_fd(), &before, sha256.and_then(|sha256| Ok((sha256, attributes?))))?;
        if let Some(Scanned { metadata, sha256: Some(sha256), .. }) = &scanned
            && has_names
        {
            self.rules.named.add(metadata, *sha256);
        }
        Ok(scanned)
    }

    /// Returns the attributes that were read of an entry of `owner`, if they were no more than may be read.
    fn counted<T>(&mut self, owner: u32, read: io::Result<T>) -> io::Result<T> {
        let bytes = self.attributes.take_bytes();
        if bytes > 0 {
            self.rules.owners.take(owner, bytes)?;
            self.rules.budget.wait(bytes, || self.rules.check())?;
        }
        read
    }

    fn unopened(&mut self, folder: BorrowedFd<'_>, name: &CStr, looked: &Metadata) -> io::Result<Option<Scanned>> {
        let (entry, before) = open::name_only(folder, name, looked)?;
        let sha256 = if looked.kind == EntryKind::Link {
            let target = rustix::fs::readlinkat(&entry, c"", Vec::new());
            target.map(|target| Some(Sha256::digest(target.as_bytes()).into())).map_err(io::Error::from)
        } else {
            Ok(None)
        };
        let attributes = self.attributes.of_named(entry.as_fd());
        let attributes = self.counted(before.st_uid, attributes);
        unchanged(entry.as_fd(), &before, sha256.and_then(|sha256| Ok((sha256, attributes?))))
    }
}

/// Reads until `read` returns something: it does not when what it read changed meanwhile.
fn until_unchanged<T>(mut read: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    for _ in 0..TRIES {
        if let Some(unchanged) = read()? {
            return Ok(unchanged);
        }
    }
    Err(changed())
}

/// Content of an entry, if it has one, and its attributes.
type Parts = (Option<[u8; 32]>, Vec<muster_proto::fact::ExtendedAttribute>);

/// Returns what was read of an entry if its state is still that of `before`: an error of a state that is gone says nothing.
fn unchanged(entry: BorrowedFd<'_>, before: &Stat, read: io::Result<Parts>) -> io::Result<Option<Scanned>> {
    if version(&rustix::fs::fstat(entry)?) != version(before) {
        return Ok(None);
    }
    let (sha256, attributes) = read?;
    Ok(Some(Scanned { metadata: metadata(before), sha256, attributes }))
}

/// Returns what differs between two states of an entry whose content or metadata changed between them.
fn version(stat: &Stat) -> impl PartialEq + use<> {
    (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec, stat.st_mode)
}

/// Hands the content of `file` to `update`, piece by piece.
fn content(
    rules: &Rules,
    file: &OwnedFd,
    stat: &Stat,
    buffer: &mut Vec<u8>,
    mut update: impl FnMut(&[u8]),
) -> io::Result<()> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > rules.largest_file_bytes {
        let text = format!("larger than the {} bytes that are read of a file", rules.largest_file_bytes);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    rules.owners.take(stat.st_uid, size)?;
    buffer.resize(PIECE_BYTES, 0);
    if size == 0 {
        // A file of the kernel has a content that its size does not tell, and so no end that could be known.
        return match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *buffer, 0)) {
            Ok(0) => Ok(()),
            Ok(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "a file with more content than its size says")),
            Err(error) => Err(error.into()),
        };
    }
    let mut extents = Extents { has_holes: has_holes(stat, size), size };
    let mut at = 0;
    let mut cache = None;
    if !extents.has_holes {
        // Most files are one piece that is cached: one call reads it and tells so.
        let piece = piece_of(size);
        rules.check()?;
        rules.budget.wait(piece as u64, || rules.check())?;
        let at_once = cache::read_at_once(file.as_fd(), &mut buffer[..piece]);
        if let AtOnce::Read(count) = at_once {
            update(&buffer[..count]);
            // It may be less than there is: only its start was cached.
            at = count as u64;
        }
        cache = (at < size).then(|| Cache::look(file.as_fd(), size, &at_once));
    }
    while at < size {
        let data = extents.data_from(file, at);
        zeroes(rules, data.start - at, &mut update)?;
        at = data.start;
        while at < data.end {
            rules.check()?;
            let piece = piece_of(data.end - at);
            rules.budget.wait(piece as u64, || rules.check())?;
            let count = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut buffer[..piece], at))?;
            if count == 0 {
                return Ok(());
            }
            update(&buffer[..count]);
            at += count as u64;
            if let Some(cache) = &mut cache {
                cache.read_to(file.as_fd(), at);
            }
        }
    }
    Ok(())
}

fn piece_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).min(PIECE_BYTES)
}

fn zeroes(rules: &Rules, mut bytes: u64, update: &mut impl FnMut(&[u8])) -> io::Result<()> {
    while bytes > 0 {
        rules.check()?;
        let piece = piece_of(bytes);
        // No byte of it is read, but hashing it takes as long.
        rules.budget.wait(piece as u64, || rules.check())?;
        update(&ZEROES[..piece]);
        bytes -= piece as u64;
    }
    Ok(())
}

/// Returns whether fewer bytes are on the disk than the file has, and enough of them to be worth asking where.
fn has_holes(stat: &Stat, size: u64) -> bool {
    let stored = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    size > PIECE_BYTES as u64 && stored < size
}

/// Where a file has data.
struct Extents {
    has_holes: bool,
    size: u64,
}

impl Extents {
    /// Returns the first range of data from `at` on; it is empty and at the end when the rest is a hole.
    fn data_from(&mut self, file: &OwnedFd, at: u64) -> Range<u64> {
        if !self.has_holes {
            return at..self.size;
        }
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.clamp(at, self.size),
            Err(Errno::NXIO) => return self.size..self.size,
            Err(_) => {
                // The file system does not tell: every byte is read.
                self.has_holes = false;
                return at..self.size;
            }
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(self.size);
        // Short holes are read as well, so that a file of thousands costs no more questions than reads.
        start..end.max(start + PIECE_BYTES as u64).min(self.size)
    }
}

/// Returns digests of the content of the regular file at `path`, which is `root` or below it.
pub(in crate::host::live) fn digests(live: Live, root: &Path, path: &Path) -> io::Result<Digests> {
    let rules = Rules::new(live, &Pace { largest_file_bytes: LARGEST_FILE_BYTES, ..Pace::default() });
    let (folder, name) = open::folder_of(root, path)?;
    let (mut buffer, mut opener) = (Vec::new(), Opener::new(true));
    until_unchanged(|| {
        rules.check()?;
        let looked = metadata(&rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?);
        if looked.kind != EntryKind::File {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        let (file, before) = opener.file(folder.as_fd(), &name, &looked)?;
        let (mut sha256, mut md5) = (Sha256::new(), Md5::new());
        let read = content(&rules, &file, &before, &mut buffer, |bytes| {
            sha256.update(bytes);
            md5.update(bytes);
        });
        if version(&rustix::fs::fstat(&file)?) != version(&before) {
            return Ok(None);
        }
        read.map(|()| Some(Digests { sha256: sha256.finalize().into(), md5: md5.finalize().into() }))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn what_keeps_changing_is_unreadable_after_some_tries() {
        let mut tries = 0;
        let read = until_unchanged(|| {
            tries += 1;
            Ok(None::<()>)
        });
        assert_eq!((read.unwrap_err().kind(), tries), (io::ErrorKind::InvalidData, TRIES));
        let mut tries = 0;
        let read = until_unchanged(|| {
            tries += 1;
            Ok((tries == TRIES).then_some(tries))
        });
        assert_eq!(read.unwrap(), TRIES);
        let read = until_unchanged(|| Err::<Option<()>, _>(io::ErrorKind::NotFound.into()));
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_was_read_of_a_state_that_is_gone_says_nothing_not_even_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        let before = rustix::fs::fstat(&file).unwrap();
        let parts = || Ok((Some([1; 32]), Vec::new()));
        let failed = || Err(io::ErrorKind::StorageFull.into());
        assert_eq!(unchanged(file.as_fd(), &before, parts()).unwrap().unwrap().sha256, Some([1; 32]));
        assert_eq!(unchanged(file.as_fd(), &before, failed()).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_all_at(b"d", 3).unwrap();
        assert_eq!(unchanged(file.as_fd(), &before, parts()).unwrap(), None);
        assert_eq!(unchanged(file.as_fd(), &before, failed()).unwrap(), None);
    }

    #[test]
    fn holes_count_as_much_as_what_is_read() {
        let pace = Pace { bytes_per_second: 8 << 20, ..Pace::default() };
        let rules = Rules::new(Live::new(), &pace);
        let start = std::time::Instant::now();
        let mut hashed = 0;
        zeroes(&rules, 2 << 20, &mut |bytes: &[u8]| hashed += bytes.len()).unwrap();
        assert_eq!(hashed, 2 << 20);
        // But for what a pause saved.
        assert!(start.elapsed() >= std::time::Duration::from_millis(120), "{:?}", start.elapsed());
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_has_an_end() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 300_000], 0).unwrap();
        let before = rustix::fs::fstat(&file).unwrap();
        let opened = OwnedFd::from(file.try_clone().unwrap());
        let rules = Rules::new(Live::new(), &Pace::default());
        let mut read = 0;
        let grow = |bytes: &[u8]| {
            read += bytes.len() as u64;
            file.write_all_at(bytes, 300_000 + read).unwrap();
        };
        content(&rules, &opened, &before, &mut Vec::new(), grow).unwrap();
        assert_eq!(read, 300_000);
    }
}
