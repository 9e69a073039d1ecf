//! The names in a folder in byte order, in bounded memory however many there are.
//!
//! Names are collected in one arena. When it is full they are sorted and written to the spill file as a run, and the runs are merged
//! into one. What a folder then holds is one piece of memory or of the file: its names one after the other, each with a NUL.

use std::{cmp::Reverse, collections::BinaryHeap, io, mem::MaybeUninit, os::fd::BorrowedFd};

use rustix::fs::RawDir;

use super::spill::{Region, Spill};

/// Bytes of names with what sorts them, in memory before they are written as a run.
const RUN_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of the names of one folder, at most: four million of the longest.
const FOLDER_BYTES: u64 = 1024 * 1024 * 1024;
/// Bytes that getdents64(2) fills at once.
const LISTING_BYTES: usize = 64 * 1024;
/// Bytes of a run that are read at once.
const RUN_BUFFER_BYTES: usize = 4096;
/// Bytes of a folder's names that are read or written at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// Names of a folder that are still to be looked at, in order.
#[derive(Debug)]
pub(super) enum Names {
    /// In memory.
    Held { bytes: Box<[u8]>, at: usize },
    /// In the spill file.
    Spilled(Cursor),
}

impl Names {
    /// Puts the next name, with its NUL, behind `path`; `false` when there is none.
    pub(super) fn next(&mut self, spill: &mut Spill, path: &mut Vec<u8>) -> io::Result<bool> {
        match self {
            Self::Held { bytes, at } => {
                let rest = &bytes[*at..];
                let Some(end) = rest.iter().position(|byte| *byte == 0) else { return Ok(false) };
                path.extend_from_slice(&rest[..=end]);
                *at += end + 1;
                Ok(true)
            }
            Self::Spilled(cursor) => cursor.next(spill, path),
        }
    }

    /// Returns the bytes of memory that it has, beyond its own.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Held { bytes, .. } => bytes.len(),
            Self::Spilled(_) => 0,
        }
    }

    /// Moves what is still to be looked at out of memory.
    pub(super) fn spill(&mut self, spill: &mut Spill) -> io::Result<()> {
        if let Self::Held { bytes, at } = self {
            let mut region = spill.begin();
            if let Err(error) = spill.extend(&mut region, &bytes[*at..]) {
                spill.release(region);
                return Err(error);
            }
            *self = Self::Spilled(Cursor::new(region, BUFFER_BYTES));
        }
        Ok(())
    }

    /// Gives back what is not needed while another folder is gone through.
    pub(super) fn rest(&mut self) {
        if let Self::Spilled(cursor) = self {
            cursor.rest();
        }
    }

    /// Gives everything back.
    pub(super) fn release(self, spill: &mut Spill) {
        if let Self::Spilled(cursor) = self {
            spill.release(cursor.region);
        }
    }
}

/// Reads names of a region of the spill file.
#[derive(Debug)]
pub(super) struct Cursor {
    region: Region,
    /// Where in the file the byte after the buffer is.
    next: u64,
    buffer: Vec<u8>,
    at: usize,
    buffer_bytes: usize,
}

impl Cursor {
    fn new(region: Region, buffer_bytes: usize) -> Self {
        Self { region, next: region.start, buffer: Vec::new(), at: 0, buffer_bytes }
    }

    fn next(&mut self, spill: &mut Spill, name: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let rest = &self.buffer[self.at..];
            if let Some(end) = rest.iter().position(|byte| *byte == 0) {
                name.extend_from_slice(&rest[..=end]);
                self.at += end + 1;
                return Ok(true);
            }
            if !self.fill(spill)? {
                return Ok(false);
            }
        }
    }

    /// Reads more behind what the buffer still has; `false` when there is no more.
    fn fill(&mut self, spill: &mut Spill) -> io::Result<bool> {
        let left = usize::try_from(self.region.end - self.next).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(false);
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        let had = self.buffer.len();
        self.buffer.resize(had + left.min(self.buffer_bytes), 0);
        spill.read(self.next, &mut self.buffer[had..])?;
        self.next += (self.buffer.len() - had) as u64;
        Ok(true)
    }

    fn rest(&mut self) {
        self.next -= (self.buffer.len() - self.at) as u64;
        (self.buffer, self.at) = (Vec::new(), 0);
    }
}

/// Lists folders; what it needs for that is made once.
pub(super) struct Lister {
    listing: Vec<MaybeUninit<u8>>,
    arena: Arena,
    run_bytes: usize,
}

impl Lister {
    pub(super) fn new() -> Self {
        Self { listing: vec![MaybeUninit::uninit(); LISTING_BYTES], arena: Arena::default(), run_bytes: RUN_BYTES }
    }

    /// Returns the names in `folder`, each once. `tick` is called now and then, and its error ends the listing.
    pub(super) fn list(
        &mut self,
        folder: BorrowedFd<'_>,
        spill: &mut Spill,
        mut tick: impl FnMut() -> io::Result<()>,
    ) -> io::Result<Names> {
        self.arena.clear();
        let mut runs = Runs::default();
        let listed = self.collect(folder, spill, &mut runs, &mut tick);
        let names = listed.and_then(|()| self.join(spill, &mut runs, &mut tick));
        runs.release(spill);
        names
    }

    fn collect(
        &mut self,
        folder: BorrowedFd<'_>,
        spill: &mut Spill,
        runs: &mut Runs,
        tick: &mut impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut listing = RawDir::new(folder, &mut self.listing);
        loop {
            if listing.is_buffer_empty() {
                tick()?;
            }
            let Some(entry) = listing.next() else { return Ok(()) };
            let name = match &entry {
                Ok(entry) => entry.file_name().to_bytes_with_nul(),
                // The folder was removed while it was listed: nothing is in it.
                Err(rustix::io::Errno::NOENT) => return Ok(()),
                Err(error) => return Err((*error).into()),
            };
            match name {
                b".\0" | b"..\0" => continue,
                // Only a file system that breaks the rules has those.
                b"\0" => return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry has no name")),
                name if name.contains(&b'/') => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the name of an entry has a slash"));
                }
                name => self.arena.push(name),
            }
            if self.arena.bytes() >= self.run_bytes {
                runs.add(spill, &mut self.arena)?;
            }
        }
    }

    /// Joins the arena and the runs in one order.
    fn join(
        &mut self,
        spill: &mut Spill,
        runs: &mut Runs,
        tick: &mut impl FnMut() -> io::Result<()>,
    ) -> io::Result<Names> {
        if runs.regions.is_empty() {
            let mut bytes = Vec::with_capacity(self.arena.bytes.len());
            self.arena.sorted().for_each(|name| bytes.extend_from_slice(name));
            return Ok(Names::Held { bytes: bytes.into(), at: 0 });
        }
        runs.add(spill, &mut self.arena)?;
        let region = runs.merge(spill, tick)?;
        Ok(Names::Spilled(Cursor::new(region, BUFFER_BYTES)))
    }
}

/// Names in one piece of memory, each with its NUL.
#[derive(Debug, Default)]
struct Arena {
    bytes: Vec<u8>,
    keys: Vec<Key>,
}

/// A name of an arena: its first bytes, by which most are told apart, and where it is.
#[derive(Clone, Copy, Debug)]
struct Key {
    first: u64,
    start: u32,
    bytes: u32,
}

impl Arena {
    fn clear(&mut self) {
        self.bytes.clear();
        self.keys.clear();
    }

    fn push(&mut self, name: &[u8]) {
        let mut first = [0; 8];
        let known = name.len().min(8);
        first[..known].copy_from_slice(&name[..known]);
        let place = |number: usize| u32::try_from(number).expect("an arena is spilled long before");
        let (start, bytes) = (place(self.bytes.len()), place(name.len()));
        self.keys.push(Key { first: u64::from_be_bytes(first), start, bytes });
        self.bytes.extend_from_slice(name);
    }

    fn bytes(&self) -> usize {
        self.bytes.len() + self.keys.len() * size_of::<Key>()
    }

    /// Returns its names in byte order, each once. The NUL at the end comes before every byte, as the end of a name must.
    fn sorted(&mut self) -> impl Iterator<Item = &[u8]> {
        let bytes = &self.bytes;
        let name = |key: &Key| &bytes[key.start as usize..][..key.bytes as usize];
        self.keys.sort_unstable_by(|a, b| a.first.cmp(&b.first).then_with(|| name(a).cmp(name(b))));
        // A folder that changes while it is listed may show a name twice.
        self.keys.dedup_by(|a, b| a.first == b.first && name(a) == name(b));
        self.keys.iter().map(name)
    }
}

/// Sorted parts of a folder's names in the spill file.
#[derive(Debug, Default)]
struct Runs {
    regions: Vec<Region>,
    bytes: u64,
}

impl Runs {
    /// Writes the names of `arena` as a run and clears it.
    fn add(&mut self, spill: &mut Spill, arena: &mut Arena) -> io::Result<()> {
        let mut region = spill.begin();
        let written = write(spill, &mut region, arena.sorted());
        self.regions.push(region);
        arena.clear();
        written?;
        self.bytes += region.end - region.start;
        if self.bytes > FOLDER_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more names than a folder may have"));
        }
        Ok(())
    }

    /// Writes the names of all runs as one.
    fn merge(&self, spill: &mut Spill, tick: &mut impl FnMut() -> io::Result<()>) -> io::Result<Region> {
        let mut cursors: Vec<_> = self.regions.iter().map(|run| Cursor::new(*run, RUN_BUFFER_BYTES)).collect();
        let mut merged = spill.begin();
        let result = merge(spill, &mut cursors, &mut merged, tick);
        if result.is_err() {
            spill.release(merged);
        }
        result.map(|()| merged)
    }

    fn release(&self, spill: &mut Spill) {
        for region in self.regions.iter().rev() {
            spill.release(*region);
        }
    }
}

fn merge(
    spill: &mut Spill,
    cursors: &mut [Cursor],
    merged: &mut Region,
    tick: &mut impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let mut heads = BinaryHeap::new();
    for (run, cursor) in cursors.iter_mut().enumerate() {
        let mut name = Vec::new();
        if cursor.next(spill, &mut name)? {
            heads.push(Reverse((name, run)));
        }
    }
    let (mut block, mut last) = (Vec::with_capacity(BUFFER_BYTES), Vec::new());
    while let Some(Reverse((mut name, run))) = heads.pop() {
        if name != last {
            block.extend_from_slice(&name);
            last.clone_from(&name);
        }
        if block.len() >= BUFFER_BYTES {
            tick()?;
            spill.extend(merged, &block)?;
            block.clear();
        }
        name.clear();
        if cursors[run].next(spill, &mut name)? {
            heads.push(Reverse((name, run)));
        }
    }
    spill.extend(merged, &block)
}

fn write<'n>(spill: &mut Spill, region: &mut Region, names: impl Iterator<Item = &'n [u8]>) -> io::Result<()> {
    let mut block = Vec::with_capacity(BUFFER_BYTES);
    for name in names {
        block.extend_from_slice(name);
        if block.len() >= BUFFER_BYTES {
            spill.extend(region, &block)?;
            block.clear();
        }
    }
    spill.extend(region, &block)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    /// Returns the names as `lister` has them, and whether they are in the file.
    fn listed(lister: &mut Lister, spill: &mut Spill, folder: &std::path::Path) -> (Vec<String>, bool) {
        let opened = std::fs::File::open(folder).unwrap();
        let names = lister.list(opened.as_fd(), spill, || Ok(())).unwrap();
        let is_spilled = matches!(names, Names::Spilled(_));
        (all(names, spill), is_spilled)
    }

    fn all(mut names: Names, spill: &mut Spill) -> Vec<String> {
        let mut all = Vec::new();
        let mut name = Vec::new();
        while names.next(spill, &mut name).unwrap() {
            assert_eq!(name.pop(), Some(0));
            all.push(String::from_utf8(std::mem::take(&mut name)).unwrap());
            if all.len().is_multiple_of(7) {
                names.rest();
            }
        }
        names.release(spill);
        all
    }

    #[test]
    fn names_are_the_same_and_in_order_whether_they_fit_memory_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut expected: Vec<String> = (0..300).map(|number| format!("{:x}", number * 7919)).collect();
        expected.extend(["n".repeat(255), "samestart-1".into(), "samestart-10".into(), "samestart".into(), "é".into()]);
        for name in &expected {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        expected.sort();
        let mut spill = Spill::new(None);
        let mut lister = Lister::new();
        assert_eq!(listed(&mut lister, &mut spill, folder.path()), (expected.clone(), false));
        for run_bytes in [1, 100, 1000, 5000] {
            lister.run_bytes = run_bytes;
            assert_eq!(listed(&mut lister, &mut spill, folder.path()), (expected.clone(), true), "{run_bytes}");
            assert_eq!(spill.begin().start, 0, "nothing is left in use");
            spill.release(Region { start: 0, end: 0 });
        }
    }

    #[test]
    fn names_can_leave_memory_half_way() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c", "d"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let mut spill = Spill::new(None);
        let opened = std::fs::File::open(folder.path()).unwrap();
        let mut names = Lister::new().list(opened.as_fd(), &mut spill, || Ok(())).unwrap();
        let mut first = Vec::new();
        assert!(names.next(&mut spill, &mut first).unwrap());
        assert_eq!((first.as_slice(), names.held_bytes()), (&b"a\0"[..], 8));
        names.spill(&mut spill).unwrap();
        assert_eq!(names.held_bytes(), 0);
        assert_eq!(all(names, &mut spill), ["b", "c", "d"]);
    }

    #[test]
    fn a_tick_that_fails_ends_a_listing() {
        let folder = tempfile::tempdir().unwrap();
        let opened = std::fs::File::open(folder.path()).unwrap();
        let over = || Err(io::ErrorKind::TimedOut.into());
        let error = Lister::new().list(opened.as_fd(), &mut Spill::new(None), over).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
