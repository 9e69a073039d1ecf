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
use sha2::Digest as _;

use super::{
    attributes::Attributes,
    budget::Budget,
    cache::{self, AtOnce, Cache},
    open::{self, Opener, changed},
    owners::{Named, Owners},
    sha256::{self, Sha256},
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

/// An entry that is no folder, and what is wanted of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub folder: BorrowedFd<'a>,
    pub name: &'a CStr,
    /// What lstat(2) said of it.
    pub looked: &'a Metadata,
    pub want: Want,
}

/// An entry that is read at its own time.
pub(super) trait Job {
    fn wanted(&self) -> Wanted<'_>;
}

/// Reads entries.
#[derive(Debug)]
pub(super) struct Reader<'w> {
    rules: &'w Rules,
    opener: Opener,
    attributes: Attributes,
    /// Those that are not in use, of [`PIECE_BYTES`] each.
    buffers: Vec<Vec<u8>>,
}

/// What was found of an entry, or what there is to read before it is.
enum Begun {
    Read(Option<Scanned>),
    File(File),
}

/// A file whose content is being read.
struct File {
    file: OwnedFd,
    before: Stat,
    content: Content,
    hash: Sha256,
}

/// A file that is read beside others, with what of its content is not hashed yet.
struct Lane<J> {
    job: J,
    file: File,
    buffer: Vec<u8>,
    piece: Piece,
}

impl<J> Lane<J> {
    /// Returns whether there is something to hash; reads it if need be.
    fn has_more(&mut self, rules: &Rules) -> io::Result<bool> {
        if self.piece.is_empty() {
            self.piece = self.file.content.next(rules, &self.file.file, &mut self.buffer)?;
        }
        Ok(!self.piece.is_empty())
    }

    fn unhashed(&mut self) -> (&mut Sha256, &[u8]) {
        (&mut self.file.hash, self.piece.of(&self.buffer))
    }
}

impl<'w> Reader<'w> {
    pub(super) fn new(rules: &'w Rules) -> Self {
        Self { rules, opener: Opener::new(true), attributes: Attributes::default(), buffers: Vec::new() }
    }

    pub(super) fn rules(&self) -> &'w Rules {
        self.rules
    }

    /// Reads what is wanted of an entry.
    pub(super) fn read(&mut self, wanted: Wanted<'_>) -> io::Result<Scanned> {
        until_unchanged(|| match self.begin(wanted)? {
            Begun::Read(scanned) => Ok(scanned),
            Begun::File(mut file) => {
                let mut buffer = self.buffer();
                let read = file.content.read(self.rules, &file.file, &mut buffer, |piece| file.hash.update(piece));
                self.buffers.push(buffer);
                self.end(file, read)
            }
        })
    }

    /// Reads what is wanted of the entries that `next` gives, some at once, until it gives none, and hands each to `done`.
    ///
    /// `next` is told whether nothing is left to do without another.
    pub(super) fn read_all<J: Job>(
        &mut self,
        mut next: impl FnMut(bool) -> Option<J>,
        mut done: impl FnMut(J, io::Result<Scanned>),
    ) {
        let mut lanes: Vec<Lane<J>> = Vec::with_capacity(sha256::AT_ONCE);
        loop {
            while lanes.len() < sha256::AT_ONCE
                && let Some(job) = next(lanes.is_empty())
            {
                match self.begin(job.wanted()) {
                    Ok(Begun::File(file)) => {
                        lanes.push(Lane { job, file, buffer: self.buffer(), piece: Piece::default() });
                    }
                    Ok(Begun::Read(scanned)) => self.finish(job, Ok(scanned), &mut done),
                    Err(error) => self.finish(job, Err(error), &mut done),
                }
            }
            if lanes.is_empty() {
                return;
            }
            let mut at = 0;
            while let Some(lane) = lanes.get_mut(at) {
                match lane.has_more(self.rules) {
                    Ok(true) => at += 1,
                    read => {
                        let Lane { job, file, buffer, .. } = lanes.swap_remove(at);
                        self.buffers.push(buffer);
                        let read = self.end(file, read.map(drop));
                        self.finish(job, read, &mut done);
                    }
                }
            }
            hash(&mut lanes);
        }
    }

    /// Hands out what was read of an entry, and reads it again where it changed meanwhile.
    fn finish<J: Job>(
        &mut self,
        job: J,
        read: io::Result<Option<Scanned>>,
        done: &mut impl FnMut(J, io::Result<Scanned>),
    ) {
        let read = match read {
            Ok(Some(scanned)) => Ok(scanned),
            Ok(None) => self.read(job.wanted()),
            Err(error) => Err(error),
        };
        done(job, read);
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| vec![0; PIECE_BYTES])
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

    /// Reads an entry, but for the content of a file if that is wanted and not known. Returns nothing when it changed meanwhile.
    fn begin(&mut self, wanted: Wanted<'_>) -> io::Result<Begun> {
        let Wanted { folder, name, looked, want } = wanted;
        if looked.kind != EntryKind::File {
            return self.unopened(folder, name, looked).map(Begun::Read);
        }
        let (file, before) = self.opener.file(folder, name, looked)?;
        let is_read = want == Want::Read;
        let known = (is_read && has_names(&before)).then(|| self.rules.named.digest(&metadata(&before))).flatten();
        if !is_read || known.is_some() {
            return self.scanned(&file, &before, Ok(known)).map(Begun::Read);
        }
        match Content::new(self.rules, &file, &before) {
            Ok(content) => Ok(Begun::File(File { file, before, content, hash: Sha256::new() })),
            Err(error) => self.scanned(&file, &before, Err(error)).map(Begun::Read),
        }
    }

    /// Returns what was read of a file whose content was read to the end, or `None` when it changed meanwhile.
    fn end(&mut self, file: File, read: io::Result<()>) -> io::Result<Option<Scanned>> {
        let File { file, before, hash, .. } = file;
        let scanned = self.scanned(&file, &before, read.map(|()| Some(hash.finish())))?;
        if let Some(Scanned { metadata, sha256: Some(sha256), .. }) = &scanned
            && has_names(&before)
        {
            self.rules.named.add(metadata, *sha256);
        }
        Ok(scanned)
    }

    /// Returns what was read of a file with its attributes, or `None` when it changed meanwhile.
    fn scanned(
        &mut self,
        file: &OwnedFd,
        before: &Stat,
        sha256: io::Result<Option<[u8; 32]>>,
    ) -> io::Result<Option<Scanned>> {
        let attributes = self.attributes.of_open(file.as_fd());
        let attributes = self.counted(before.st_uid, attributes);
        unchanged(file.as_fd(), before, sha256.and_then(|sha256| Ok((sha256, attributes?))))
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
            target.map(|target| Some(sha2::Sha256::digest(target.as_bytes()).into())).map_err(io::Error::from)
        } else {
            Ok(None)
        };
        let attributes = self.attributes.of_named(entry.as_fd());
        let attributes = self.counted(before.st_uid, attributes);
        unchanged(entry.as_fd(), &before, sha256.and_then(|sha256| Ok((sha256, attributes?))))
    }
}

/// Hashes what the lanes have, until one of them has no more.
fn hash<J>(lanes: &mut [Lane<J>]) {
    let mut left: [&[u8]; sha256::AT_ONCE] = [&[]; sha256::AT_ONCE];
    let mut parts = lanes.iter_mut().zip(&mut left).map(|(lane, left)| {
        let (hash, bytes) = lane.unhashed();
        *left = bytes;
        (hash, left)
    });
    let mut part = || parts.next();
    match (part(), part(), part(), part()) {
        (Some(a), Some(b), Some(c), Some(d)) => sha256::update([a, b, c, d]),
        (Some(a), Some(b), Some(c), None) => sha256::update([a, b, c]),
        (Some(a), Some(b), None, None) => sha256::update([a, b]),
        (Some(a), ..) => sha256::update([a]),
        (None, ..) => {}
    }
    let left = left.map(<[u8]>::len);
    lanes.iter_mut().zip(left).for_each(|(lane, left)| lane.piece.keep_last(left));
}

/// Returns whether a file has other names under which it would be read again; a small one is read sooner than remembered.
fn has_names(stat: &Stat) -> bool {
    stat.st_nlink > 1 && u64::try_from(stat.st_size).is_ok_and(|size| size > PIECE_BYTES as u64)
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

/// Bytes of a content that were read into a buffer, or are a hole's. None are its end.
#[derive(Debug, Default)]
struct Piece {
    is_hole: bool,
    range: Range<usize>,
}

impl Piece {
    fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    fn of<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        let bytes = if self.is_hole { &ZEROES } else { buffer };
        &bytes[self.range.clone()]
    }

    fn keep_last(&mut self, bytes: usize) {
        self.range.start = self.range.end - bytes;
    }
}

/// Where the reading of a file's content is.
struct Content {
    extents: Extents,
    at: u64,
    /// Data that is being read; what is before it from `at` on is a hole.
    data: Range<u64>,
    cache: Option<Cache>,
}

impl Content {
    /// Begins a file of which fstat(2) says `stat`, if it may be read.
    fn new(rules: &Rules, file: &OwnedFd, stat: &Stat) -> io::Result<Self> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size > rules.largest_file_bytes {
            let text = format!("larger than the {} bytes that are read of a file", rules.largest_file_bytes);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        rules.owners.take(stat.st_uid, size)?;
        if size == 0 && rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut [0; 1], 0))? > 0 {
            // A file of the kernel has a content that its size does not tell, and so no end that could be known.
            let text = "a file with more content than its size says";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        Ok(Self { extents: Extents { has_holes: has_holes(stat, size), size }, at: 0, data: 0..0, cache: None })
    }

    /// Hands all that is left to `update`, piece by piece.
    fn read(
        &mut self,
        rules: &Rules,
        file: &OwnedFd,
        buffer: &mut [u8],
        mut update: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        loop {
            let piece = self.next(rules, file, buffer)?;
            if piece.is_empty() {
                return Ok(());
            }
            update(piece.of(buffer));
        }
    }

    /// Reads the next piece.
    fn next(&mut self, rules: &Rules, file: &OwnedFd, buffer: &mut [u8]) -> io::Result<Piece> {
        let size = self.extents.size;
        if self.at >= size {
            return Ok(Piece::default());
        }
        if self.at == 0 && self.data.is_empty() && !self.extents.has_holes {
            // Most files are one piece that is cached: one call reads it and tells so.
            let at_once = cache::read_at_once(file.as_fd(), allowed(rules, size, buffer)?);
            self.data = 0..size;
            let count = if let AtOnce::Read(count) = at_once { count } else { 0 };
            self.at = count as u64;
            // It may be less than there is: only its start was cached.
            self.cache = (self.at < size).then(|| Cache::look(file.as_fd(), size, &at_once));
            if count > 0 {
                return Ok(Piece { is_hole: false, range: 0..count });
            }
        }
        if self.at == self.data.end {
            self.data = self.extents.data_from(file, self.at);
        }
        if self.at < self.data.start {
            // No byte of it is read, but hashing it takes as long.
            let count = allowed(rules, self.data.start - self.at, buffer)?.len();
            self.at += count as u64;
            return Ok(Piece { is_hole: true, range: 0..count });
        }
        let room = allowed(rules, self.data.end - self.at, buffer)?;
        let count = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *room, self.at))?;
        // It may have become shorter.
        self.at = if count == 0 { size } else { self.at + count as u64 };
        if let Some(cache) = &mut self.cache {
            cache.read_to(file.as_fd(), self.at);
        }
        Ok(Piece { is_hole: false, range: 0..count })
    }
}

/// Waits until as much as `buffer` takes of `bytes` may be read, and returns the place for it.
fn allowed<'b>(rules: &Rules, bytes: u64, buffer: &'b mut [u8]) -> io::Result<&'b mut [u8]> {
    let piece = usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
    rules.check()?;
    rules.budget.wait(piece as u64, || rules.check())?;
    Ok(&mut buffer[..piece])
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
    let (mut buffer, mut opener) = (vec![0; PIECE_BYTES], Opener::new(true));
    until_unchanged(|| {
        rules.check()?;
        let looked = metadata(&rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?);
        if looked.kind != EntryKind::File {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        let (file, before) = opener.file(folder.as_fd(), &name, &looked)?;
        let (mut sha256, mut md5) = (Sha256::new(), Md5::new());
        let read = Content::new(&rules, &file, &before).and_then(|mut content| {
            content.read(&rules, &file, &mut buffer, |bytes| {
                sha256.update(bytes);
                md5.update(bytes);
            })
        });
        if version(&rustix::fs::fstat(&file)?) != version(&before) {
            return Ok(None);
        }
        read.map(|()| Some(Digests { sha256: sha256.finish(), md5: md5.finalize().into() }))
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

    /// Returns how many bytes of `file` are read with `pace`, `also` being called for each piece.
    fn read_bytes(file: &std::fs::File, pace: &Pace, mut also: impl FnMut(u64)) -> u64 {
        let rules = Rules::new(Live::new(), pace);
        let stat = rustix::fs::fstat(file).unwrap();
        let opened = OwnedFd::from(file.try_clone().unwrap());
        let mut read = 0;
        let mut content = Content::new(&rules, &opened, &stat).unwrap();
        let update = |bytes: &[u8]| {
            read += bytes.len() as u64;
            also(read);
        };
        content.read(&rules, &opened, &mut vec![0; PIECE_BYTES], update).unwrap();
        read
    }

    #[test]
    fn holes_count_as_much_as_what_is_read() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 << 20).unwrap();
        let start = std::time::Instant::now();
        let pace = Pace { bytes_per_second: 8 << 20, ..Pace::default() };
        assert_eq!(read_bytes(&file, &pace, |_| {}), 2 << 20);
        // But for what a pause saved.
        assert!(start.elapsed() >= std::time::Duration::from_millis(120), "{:?}", start.elapsed());
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_has_an_end() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 300_000], 0).unwrap();
        let grow = |read| file.write_all_at(&vec![2; 100_000], 300_000 + read).unwrap();
        assert_eq!(read_bytes(&file, &Pace::default(), grow), 300_000);
    }

    #[test]
    fn a_file_that_shrinks_while_it_is_read_has_an_end() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 300_000], 0).unwrap();
        assert!(read_bytes(&file, &Pace::default(), |_| file.set_len(10).unwrap()) < 300_000);
    }

    #[test]
    fn a_file_that_changes_after_it_was_begun_beside_others_is_read_again() {
        struct Named(OwnedFd, &'static CStr, Metadata);
        impl Job for Named {
            fn wanted(&self) -> Wanted<'_> {
                Wanted { folder: self.0.as_fd(), name: self.1, looked: &self.2, want: Want::Read }
            }
        }
        let root = tempfile::tempdir().unwrap();
        let folder = rustix::fs::open(root.path(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let content = |byte| vec![byte; 300_000];
        let mut jobs: Vec<Named> = [c"beside", c"changes"]
            .map(|name| {
                std::fs::write(root.path().join(name.to_str().unwrap()), content(1)).unwrap();
                let looked = metadata(&rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).unwrap());
                Named(folder.try_clone().unwrap(), name, looked)
            })
            .into();
        let rules = Rules::new(Live::new(), &Pace::default());
        let mut found = std::collections::BTreeMap::new();
        let next = |is_idle: bool| {
            if jobs.is_empty() && !is_idle {
                // The clock of a file system may stand still for a moment.
                std::thread::sleep(std::time::Duration::from_millis(30));
                std::fs::write(root.path().join("changes"), content(2)).unwrap();
            }
            jobs.pop()
        };
        Reader::new(&rules).read_all(next, |job, read| {
            found.insert(job.1, read.unwrap().sha256.unwrap());
        });
        let expected = |byte| -> [u8; 32] { sha2::Sha256::digest(content(byte)).into() };
        assert_eq!(found, [(c"beside", expected(1)), (c"changes", expected(2))].into());
    }
}
