//! Reads on threads of their own and hands out what they found in the order of the walk.
//!
//! ```text
//! walk -> jobs (at most 64) -> readers (at most 8) -> done -> pending, in order -> visitor
//! ```
//!
//! The walk's own thread is one of the readers, and may be the only one: handing over what is soon read costs more than it gains, and
//! where there are more jobs than places, or nothing can be shown before an earlier entry is found, it reads the smallest files of them
//! rather than wait. Every reader reads some files at once, as [`sha256`] is faster so.
//!
//! Each job holds its folder's descriptor, and a reader one more; so their number is small. What is found waits in `pending` for
//! what comes before it: as far as the walk may run ahead, in entries and in bytes.

use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread::Scope,
};

use super::{
    read::{self, Reader, Rules, Wanted},
    sha256,
};
use crate::host::{Metadata, Pace, Scanned, Visitor, Want};

/// Threads, at most, the walk's own among them.
const READERS: usize = 8;
/// A file of fewer bytes is read by the walk's own thread: to hand it over costs more than to hash them.
const SMALL_BYTES: u64 = 2 * 1024;
/// Jobs that no reader has begun, at most.
const JOBS: usize = 64;
/// Entries that are shown before an earlier one is found, at most.
const ENTRIES_AHEAD: u64 = 4096;
/// Bytes of what waits for an earlier one, at most, but for the one that is added.
const PENDING_BYTES: usize = 4 * 1024 * 1024;

/// How a walk reads.
pub(super) enum Reads<'w> {
    /// One entry after the other, and what is found is handed out at once.
    Here(Reader<'w>),
    /// Some at once, and what is found waits for its turn.
    Ahead(Ahead<'w>),
}

/// An entry that is to be read.
pub(super) struct Entry<'a> {
    pub path: &'a [u8],
    pub name: &'a CStr,
    pub folder: &'a Arc<OwnedFd>,
    pub looked: &'a Metadata,
    pub want: Want,
}

impl Entry<'_> {
    fn wanted(&self) -> Wanted<'_> {
        Wanted { folder: self.folder.as_fd(), name: self.name, looked: self.looked, want: self.want }
    }
}

impl Reads<'_> {
    /// Reads an entry that is no folder, now or soon.
    pub(super) fn read(&mut self, entry: &Entry<'_>, visitor: &mut dyn Visitor) -> io::Result<()> {
        match self {
            Self::Here(reader) => {
                let read = reader.read(entry.wanted());
                hand_out(reader.rules(), entry.path, read, visitor)
            }
            Self::Ahead(ahead) => ahead.read(entry, visitor),
        }
    }

    /// Hands out what `read` returns, when its turn comes.
    pub(super) fn read_here(
        &mut self,
        path: &[u8],
        visitor: &mut dyn Visitor,
        read: impl FnOnce(&mut Reader<'_>) -> io::Result<Scanned>,
    ) -> io::Result<()> {
        match self {
            Self::Here(reader) => hand_out(reader.rules(), path, read(reader), visitor),
            Self::Ahead(ahead) => {
                let read = read(&mut ahead.reader);
                ahead.found_here(path, read, visitor)
            }
        }
    }

    /// Takes that one more entry is about to be shown.
    pub(super) fn advance(&mut self, visitor: &mut dyn Visitor) -> io::Result<()> {
        match self {
            Self::Here(_) => Ok(()),
            Self::Ahead(ahead) => {
                ahead.entries += 1;
                ahead.wait_for_room(visitor)
            }
        }
    }

    /// Waits for everything that is still read.
    pub(super) fn finish(&mut self, visitor: &mut dyn Visitor) -> io::Result<()> {
        match self {
            Self::Here(_) => Ok(()),
            Self::Ahead(ahead) => ahead.wait_while(visitor, |ahead| !ahead.pending.is_empty()),
        }
    }
}

/// Gives `visitor` what was read, unless the time of the walk was over.
fn hand_out(rules: &Rules, path: &[u8], read: io::Result<Scanned>, visitor: &mut dyn Visitor) -> io::Result<()> {
    match read {
        Ok(scanned) => visitor.found(path, Ok(scanned)),
        Err(error) => {
            rules.check()?;
            visitor.found(path, Err(error))
        }
    }
}

/// Reads what comes later before what was begun is handed out.
pub(super) struct Ahead<'w> {
    shared: &'w Shared,
    rules: &'w Rules,
    /// For what the walk's own thread reads.
    reader: Reader<'w>,
    /// What was begun and is not handed out, in order.
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// Number of the first of `pending`, by which readers name what they did.
    first: u64,
    /// Entries that were shown.
    entries: u64,
}

struct Pending {
    path: Box<[u8]>,
    entry: u64,
    bytes: usize,
    read: Option<io::Result<Scanned>>,
}

/// What the walk and the readers share.
#[derive(Default)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// For readers: there is a job, or never will be.
    job: Condvar,
    /// For the walk: something was done.
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    done: Vec<(u64, io::Result<Scanned>)>,
    is_closed: bool,
    /// Readers that wait for a job: to wake nobody costs a call of the kernel, too.
    idle: usize,
    /// Whether the walk waits until something was done.
    is_waiting: bool,
    /// Whether a reader ended with a job in hand.
    is_broken: bool,
}

struct Job {
    number: u64,
    folder: Arc<OwnedFd>,
    name: CString,
    looked: Metadata,
    want: Want,
}

impl read::Job for Job {
    fn wanted(&self) -> Wanted<'_> {
        Wanted { folder: self.folder.as_fd(), name: &self.name, looked: &self.looked, want: self.want }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next job, or `None` when there is none: any more, if it may wait for one.
    fn next(&self, may_wait: bool) -> Option<Job> {
        let mut queue = self.lock();
        while may_wait && queue.jobs.is_empty() && !queue.is_closed {
            queue.idle += 1;
            queue = self.job.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
        queue.jobs.pop_front()
    }

    fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        queue.jobs.clear();
        self.job.notify_all();
    }
}

impl Queue {
    /// Returns what the walk's own thread is to read: as much as it reads at once, and nothing that keeps it from giving the readers more.
    fn take_smallest(&mut self) -> Vec<Job> {
        let count = self.jobs.len().min(sha256::AT_ONCE);
        if count > 0 {
            let jobs = self.jobs.make_contiguous();
            jobs.select_nth_unstable_by_key(count - 1, |job| (job.looked.size_bytes, job.number));
        }
        self.jobs.drain(..count).collect()
    }
}

/// Tells the walk when a reader ends with a job in hand, for which it would wait for ever.
struct Held<'s>(&'s Shared);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().is_broken = true;
            self.0.done.notify_one();
        }
    }
}

fn serve(shared: &Shared, rules: &Rules) {
    let _held = Held(shared);
    let next = |is_idle| shared.next(is_idle);
    Reader::new(rules).read_all(next, |job, read| {
        let number = job.number;
        // Its descriptor is closed before the walk may open another.
        drop(job);
        let mut queue = shared.lock();
        queue.done.push((number, read));
        if queue.is_waiting {
            shared.done.notify_one();
        }
    });
}

impl<'w> Ahead<'w> {
    /// Starts the readers of `pace`.
    pub(super) fn start(
        scope: &'w Scope<'w, '_>,
        shared: &'w Shared,
        rules: &'w Rules,
        pace: &Pace,
    ) -> io::Result<Self> {
        let ahead = Self {
            shared,
            rules,
            reader: Reader::new(rules),
            pending: VecDeque::new(),
            pending_bytes: 0,
            first: 0,
            entries: 0,
        };
        for _ in 1..pace.readers.min(READERS) {
            let reader = std::thread::Builder::new().name("reader".to_owned());
            reader.spawn_scoped(scope, move || serve(shared, rules))?;
        }
        Ok(ahead)
    }

    fn read(&mut self, entry: &Entry<'_>, visitor: &mut dyn Visitor) -> io::Result<()> {
        if entry.looked.size_bytes < SMALL_BYTES {
            let read = self.reader.read(entry.wanted());
            return self.found_here(entry.path, read, visitor);
        }
        let job = Job {
            number: self.first + self.pending.len() as u64,
            folder: Arc::clone(entry.folder),
            name: entry.name.to_owned(),
            looked: *entry.looked,
            want: entry.want,
        };
        self.add(entry.path, None);
        let mut queue = self.shared.lock();
        queue.jobs.push_back(job);
        let beyond = if queue.jobs.len() > JOBS { queue.take_smallest() } else { Vec::new() };
        let is_awaited = queue.idle > 0;
        drop(queue);
        if is_awaited {
            self.shared.job.notify_one();
        }
        self.read_jobs(beyond);
        self.hand_out_ready(visitor)
    }

    /// Takes what this thread read, and hands it out when its turn comes.
    fn found_here(&mut self, path: &[u8], read: io::Result<Scanned>, visitor: &mut dyn Visitor) -> io::Result<()> {
        if self.pending.is_empty() {
            return hand_out(self.rules, path, read, visitor);
        }
        self.wait_for_room(visitor)?;
        self.add(path, Some(read));
        self.hand_out_ready(visitor)
    }

    fn add(&mut self, path: &[u8], read: Option<io::Result<Scanned>>) {
        let bytes = size_of::<Pending>() + path.len() + read.as_ref().map_or(0, bytes_of);
        self.pending_bytes += bytes;
        self.pending.push_back(Pending { path: path.into(), entry: self.entries, bytes, read });
    }

    fn wait_for_room(&mut self, visitor: &mut dyn Visitor) -> io::Result<()> {
        self.wait_while(visitor, |ahead| {
            let oldest = ahead.pending.front().map_or(ahead.entries, |first| first.entry);
            ahead.entries - oldest >= ENTRIES_AHEAD || ahead.pending_bytes >= PENDING_BYTES
        })
    }

    /// Waits for readers, and hands out what they found, until `is_blocked` is false.
    fn wait_while(&mut self, visitor: &mut dyn Visitor, is_blocked: impl Fn(&Self) -> bool) -> io::Result<()> {
        while is_blocked(self) {
            self.wait(visitor)?;
        }
        Ok(())
    }

    /// Reads what no reader has begun, or waits until something was done, and hands out what was found.
    fn wait(&mut self, visitor: &mut dyn Visitor) -> io::Result<()> {
        let mut queue = self.shared.lock();
        if queue.done.is_empty() && !queue.jobs.is_empty() {
            let jobs = queue.take_smallest();
            drop(queue);
            self.read_jobs(jobs);
            return self.hand_out_ready(visitor);
        }
        queue.is_waiting = true;
        let nothing = |queue: &mut Queue| queue.done.is_empty() && !queue.is_broken;
        let mut queue = self.shared.done.wait_while(queue, nothing).unwrap_or_else(PoisonError::into_inner);
        queue.is_waiting = false;
        if queue.is_broken {
            return Err(io::Error::other("a reader ended"));
        }
        drop(queue);
        self.hand_out_ready(visitor)
    }

    fn read_jobs(&mut self, jobs: Vec<Job>) {
        let mut read = Vec::with_capacity(jobs.len());
        let mut jobs = jobs.into_iter();
        self.reader.read_all(|_| jobs.next(), |job, result| read.push((job.number, result)));
        read.into_iter().for_each(|(number, result)| self.is_read(number, result));
    }

    fn is_read(&mut self, number: u64, read: io::Result<Scanned>) {
        let at = usize::try_from(number - self.first).expect("what is pending is in memory");
        let pending = &mut self.pending[at];
        let bytes = bytes_of(&read);
        pending.bytes += bytes;
        self.pending_bytes += bytes;
        pending.read = Some(read);
    }

    /// Takes what readers did and hands out what has nothing unfinished before it.
    fn hand_out_ready(&mut self, visitor: &mut dyn Visitor) -> io::Result<()> {
        let done = std::mem::take(&mut self.shared.lock().done);
        done.into_iter().for_each(|(number, read)| self.is_read(number, read));
        while let Some(Pending { path, bytes, read, .. }) = self.pending.pop_front_if(|first| first.read.is_some()) {
            self.first += 1;
            self.pending_bytes -= bytes;
            let read = read.unwrap_or_else(|| Err(io::ErrorKind::Other.into()));
            hand_out(self.rules, &path, read, visitor)?;
        }
        Ok(())
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        // After an error: what is still read is read for nobody.
        self.rules.is_over.store(true, Ordering::Relaxed);
        self.shared.close();
    }
}

fn bytes_of(read: &io::Result<Scanned>) -> usize {
    let Ok(scanned) = read else { return 0 };
    let attributes = scanned.attributes.iter();
    attributes.map(|one| size_of_val(one) + one.name.as_str().len() + one.meaning.as_str().len() + 64).sum()
}
