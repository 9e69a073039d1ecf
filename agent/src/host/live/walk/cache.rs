//! Leaves the page cache as it was: what a read brought into it is dropped again, and what was there stays.
#![allow(unsafe_code)]

use std::{
    io::IoSliceMut,
    num::NonZeroU64,
    ops::Range,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use rustix::{
    fs::Advice,
    io::{Errno, ReadWriteFlags},
};

/// Bytes that are looked at together; far more than the kernel reads ahead.
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// `cachestat(2)`, which has this number on every machine of linux/unistd.h; from Linux 6.5 on.
const CACHESTAT: libc::c_long = 451;

/// What was in the cache of a file that is read from its start to its end.
#[derive(Debug)]
pub(super) struct Cache {
    size: u64,
    /// The window that is being read, and whether nothing of it was cached.
    window: Range<u64>,
    was_absent: bool,
    /// Whether nothing of the window after it was cached: looked at before the kernel reads ahead into it.
    next_was_absent: bool,
}

impl Cache {
    /// Looks at the start of `file`, before anything of its `size` bytes is read but what `at_once` tells of.
    pub(super) fn look(file: BorrowedFd<'_>, size: u64, at_once: &AtOnce) -> Self {
        let window = window_at(0, size);
        let was_absent = match at_once {
            AtOnce::Read(_) => false,
            // The kernel may read already what it would have had to wait for.
            AtOnce::WouldWait => true,
            AtOnce::Unsupported => is_absent(file, &window),
        };
        let next = window_at(window.end, size);
        Self { size, was_absent, next_was_absent: is_absent(file, &next), window }
    }

    /// Takes that everything before `at` was read.
    pub(super) fn read_to(&mut self, file: BorrowedFd<'_>, at: u64) {
        while at >= self.window.end && !self.window.is_empty() {
            self.drop_window(file);
            self.window = window_at(self.window.end, self.size);
            self.was_absent = self.next_was_absent;
            self.next_was_absent = is_absent(file, &window_at(self.window.end, self.size));
        }
    }

    fn drop_window(&self, file: BorrowedFd<'_>) {
        if let (true, Some(bytes)) = (self.was_absent, NonZeroU64::new(self.window.end - self.window.start)) {
            // Advice: when it is not taken, nothing is lost.
            let _ = rustix::fs::fadvise(file, self.window.start, Some(bytes), Advice::DontNeed);
        }
    }
}

/// What a read had that does not wait for the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AtOnce {
    /// So many bytes, which were cached.
    Read(usize),
    /// Nothing: it would wait.
    WouldWait,
    /// The file system, or a kernel before 4.14, does not have it.
    Unsupported,
}

/// Reads the start of `file` if it is cached, which tells that it is by the way.
pub(super) fn read_at_once(file: BorrowedFd<'_>, buffer: &mut [u8]) -> AtOnce {
    match rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], 0, ReadWriteFlags::NOWAIT) {
        Ok(count) => AtOnce::Read(count),
        Err(Errno::AGAIN) => AtOnce::WouldWait,
        // An error that a read has as well is met by that.
        Err(_) => AtOnce::Unsupported,
    }
}

/// Returns the window from `start` on. A file that is little longer than it is one window.
fn window_at(start: u64, size: u64) -> Range<u64> {
    start..(start + WINDOW_BYTES).min(size).max(start)
}

/// Returns whether nothing of `range` is cached. Where the kernel does not tell, it might be.
fn is_absent(file: BorrowedFd<'_>, range: &Range<u64>) -> bool {
    !range.is_empty() && cached_pages(file, range) == Some(0)
}

/// `struct cachestat_range` of linux/mman.h.
#[repr(C)]
struct CachestatRange {
    start: u64,
    bytes: u64,
}

/// `struct cachestat` of linux/mman.h.
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    written_back: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Returns how many pages of `range` are cached, or `None` where the kernel does not tell.
fn cached_pages(file: BorrowedFd<'_>, range: &Range<u64>) -> Option<u64> {
    let asked = CachestatRange { start: range.start, bytes: range.end - range.start };
    let mut told = Cachestat::default();
    // SAFETY: the descriptor is open, both structures are those of the call, and the last argument, its flags, must be 0. A kernel
    // without the call touches neither.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const asked, &raw mut told, 0) };
    (result == 0).then_some(told.cached)
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::AsFd as _};

    use super::*;

    #[test]
    fn windows_cover_a_file_once() {
        for size in [0, 1, WINDOW_BYTES - 1, WINDOW_BYTES, WINDOW_BYTES + 1, 3 * WINDOW_BYTES] {
            let mut at = 0;
            while at < size {
                let window = window_at(at, size);
                assert!(window.start == at && window.end > at && window.end <= size);
                at = window.end;
            }
            assert!(window_at(at, size).is_empty());
        }
    }

    #[test]
    fn what_was_cached_stays_cached() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![1; 100_000]).unwrap();
        let mut opened = std::fs::File::open(file.path()).unwrap();
        opened.read_to_end(&mut Vec::new()).unwrap();
        let mut buffer = vec![0; 100_000];
        let at_once = read_at_once(opened.as_fd(), &mut buffer);
        assert!(matches!(at_once, AtOnce::Read(100_000) | AtOnce::Unsupported));
        let mut cache = Cache::look(opened.as_fd(), 100_000, &at_once);
        assert!(!cache.was_absent);
        cache.read_to(opened.as_fd(), 100_000);
        assert_eq!(read_at_once(opened.as_fd(), &mut buffer), at_once);
    }
}
