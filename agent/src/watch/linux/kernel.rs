//! The kernel's side of the watch, inotify(7): which notices it is asked for, and their order.
//!
//! Not asked for: that something was opened or read. A scan opens everything that it reads, and so does every program
//! that starts.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
};

/// Bytes of notices that are read at once: a few hundred of them.
const BUFFER_BYTES: usize = 16 * 1024;

/// A watched folder, as the kernel numbers it. A number comes again only after all others.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Wd(i32);

#[cfg(test)]
impl Wd {
    /// Returns a number for tests.
    pub fn of(number: i32) -> Self {
        Self(number)
    }
}

/// Asks the kernel for notices.
pub struct Kernel {
    inotify: OwnedFd,
    wake: OwnedFd,
}

/// Ends a wait of the thread that owns the [`Kernel`].
pub struct Waker(OwnedFd);

/// What the kernel tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice<'a> {
    /// Notices were dropped: anything may have changed.
    Overflow,
    /// A folder is watched no more: it is gone, or what it was on is.
    Ended(Wd),
    /// Something happened to a watched folder itself: it was deleted or moved, or its attributes changed.
    Itself {
        /// The folder.
        folder: Wd,
        /// Whether it is no more where it was.
        is_away: bool,
    },
    /// Something happened to what has this name in a watched folder.
    Named {
        /// The folder.
        folder: Wd,
        /// The name in it.
        name: &'a [u8],
        /// What happened.
        what: What,
        /// Whether it is a folder.
        is_folder: bool,
    },
}

/// What happened to a name in a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// It came: made, or moved here.
    Came,
    /// It went: deleted, or moved away.
    Went,
    /// Its content or its attributes changed.
    Changed,
}

impl Kernel {
    /// Opens a queue of notices.
    ///
    /// # Errors
    ///
    /// As inotify_init1(2) says: `EMFILE` beyond `fs.inotify.max_user_instances`.
    pub fn open() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { inotify, wake })
    }

    /// Returns what ends a wait.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left.
    pub fn waker(&self) -> io::Result<Waker> {
        Ok(Waker(self.wake.try_clone()?))
    }

    /// Watches `folder`. Watching it again gives the same number.
    ///
    /// # Errors
    ///
    /// As inotify_add_watch(2) says: `ENOSPC` beyond `fs.inotify.max_user_watches`.
    pub fn add(&self, folder: BorrowedFd<'_>) -> io::Result<Wd> {
        // By its descriptor: what has its name by now may be another.
        let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
        let content = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR | WatchFlags::EXCL_UNLINK;
        Ok(Wd(inotify::add_watch(&self.inotify, path, content | names | itself)?))
    }

    /// Watches a folder no more. It may have ended by itself.
    pub fn remove(&self, folder: Wd) {
        let _ = inotify::remove_watch(&self.inotify, folder.0);
    }

    /// Waits for a notice or for the waker, at most for `limit`.
    pub fn wait(&self, limit: Option<Duration>) {
        let mut polled = [&self.inotify, &self.wake].map(|fd| PollFd::new(fd, PollFlags::IN));
        let limit = limit.and_then(|limit| limit.try_into().ok());
        // Interrupted: as if there were something, which a look at the queue finds out.
        let _ = rustix::event::poll(&mut polled, limit.as_ref());
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Gives the notices in the queue to `take`, in order, and returns how many. It stops soon after `most`.
    ///
    /// # Errors
    ///
    /// As read(2) says.
    pub fn drain(&self, most: usize, mut take: impl FnMut(Notice<'_>)) -> io::Result<usize> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(self.inotify.as_fd(), &mut buffer);
        let mut count = 0;
        loop {
            if count >= most && reader.is_buffer_empty() {
                return Ok(count);
            }
            match reader.next() {
                Ok(event) => {
                    count += 1;
                    take(notice(&event));
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(count),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Waker {
    /// Ends the wait under way, or the next one.
    pub fn wake(&self) {
        // It fails only when it was woken without end, and is awake then.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

fn notice<'a>(event: &'a inotify::Event<'_>) -> Notice<'a> {
    let (flags, folder) = (event.events(), Wd(event.wd()));
    if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
        return Notice::Overflow;
    }
    if flags.contains(ReadFlags::IGNORED) {
        return Notice::Ended(folder);
    }
    let Some(name) = event.file_name().map(std::ffi::CStr::to_bytes).filter(|name| !name.is_empty()) else {
        let is_away = flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT);
        return Notice::Itself { folder, is_away };
    };
    let what = if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
        What::Came
    } else if flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
        What::Went
    } else {
        What::Changed
    };
    Notice::Named { folder, name, what, is_folder: flags.contains(ReadFlags::ISDIR) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn drained(kernel: &Kernel) -> Vec<(Vec<u8>, What, bool)> {
        let mut seen = Vec::new();
        kernel
            .drain(1_000, |notice| {
                if let Notice::Named { name, what, is_folder, .. } = notice {
                    seen.push((name.to_vec(), what, is_folder));
                }
            })
            .unwrap();
        seen.dedup();
        seen
    }

    #[test]
    fn what_is_read_makes_no_notice_and_what_is_changed_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "x").unwrap();
        let kernel = Kernel::open().unwrap();
        let watched = kernel.add(File::open(folder.path()).unwrap().as_fd()).unwrap();
        assert_eq!(kernel.add(File::open(folder.path()).unwrap().as_fd()).unwrap(), watched);
        for _ in 0..10 {
            fs::read(&path).unwrap();
            fs::read_dir(folder.path()).unwrap().count();
        }
        assert_eq!(drained(&kernel), []);
        fs::write(&path, "y").unwrap();
        fs::create_dir(folder.path().join("new")).unwrap();
        fs::rename(&path, folder.path().join("renamed")).unwrap();
        let expected = [("file", What::Changed, false), ("new", What::Came, true), ("file", What::Went, false)];
        let expected = expected.into_iter().chain([("renamed", What::Came, false)]);
        let expected: Vec<_> = expected.map(|(name, what, is)| (name.as_bytes().to_vec(), what, is)).collect();
        assert_eq!(drained(&kernel), expected);
    }

    #[test]
    fn a_waker_ends_a_wait_that_has_no_limit() {
        let kernel = Kernel::open().unwrap();
        kernel.waker().unwrap().wake();
        kernel.wait(None);
    }
}
