//! Listens to the kernel's notices of who changes watched files: fanotify(7), which wants CAP_SYS_ADMIN, and CAP_DAC_READ_SEARCH to
//! find the folder that a notice is about.
#![allow(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use muster_proto::{
    fact::{Actor, Cause, PathText, Reading, Text},
    time::{Clock as _, SystemClock},
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags},
    fs::{CWD, Dir, FileType, Mode, OFlags},
};

use crate::{
    fim::actors::Actors,
    host::fanotify::{self, APPEARED, FOLDER, Notice, OVERFLOW, Place},
};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// Processes that are looked at in a second, at most: a flood of short programs must not make the agent follow each.
const LOOKS_PER_SECOND: u32 = 200;
/// Bytes of a file of `/proc/PID`, at most.
const PROC_BYTES: u64 = 4096;
/// What is told: closed after writing, attributes, moved from and to, created, deleted; in the marked folder and of folders too.
const MASK: u64 = 0x8 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | EVENT_ON_CHILD | FOLDER;
/// `FAN_EVENT_ON_CHILD`.
const EVENT_ON_CHILD: u64 = 0x0800_0000;
/// `loginuid` of a process that no sign-in began: proc_pid_loginuid(5).
const NO_LOGIN: u64 = 4_294_967_295;

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Attribution {
    stop: Arc<OwnedFd>,
}

impl Attribution {
    /// Listens for changes in and below what `roots` returns, in at most `folders` folders, and remembers who made them.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` without CAP_SYS_ADMIN; as fanotify_init(2) says otherwise.
    pub fn start(
        roots: impl FnOnce() -> Vec<PathBuf> + Send + 'static,
        folders: usize,
        actors: Arc<Actors>,
    ) -> io::Result<Self> {
        let mut listener = Listener::open(folders, actors)?;
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new().name("actors".to_owned()).spawn(move || {
            for root in roots() {
                listener.mark(CWD, root.as_os_str());
            }
            listener.listen(stopped.as_fd());
        })?;
        Ok(Self { stop })
    }
}

impl Drop for Attribution {
    fn drop(&mut self) {
        // The thread ends by itself; nobody waits for it.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
    }
}

struct Listener {
    group: OwnedFd,
    actors: Arc<Actors>,
    /// A folder of each file system, by which its handles are opened.
    file_systems: BTreeMap<u64, OwnedFd>,
    folders_left: usize,
    /// When the second of the budget began, and how many looks are left in it.
    budget: (Instant, u32),
}

impl Listener {
    fn open(folders: usize, actors: Arc<Actors>) -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_REPORT_DFID_NAME;
        let event_flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE).cast_unsigned();
        // SAFETY: fanotify_init(2) takes two numbers and returns a descriptor or -1.
        let group = unsafe { libc::fanotify_init(flags, event_flags) };
        if group < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above just made it, and nothing else has it.
        let group = unsafe { OwnedFd::from_raw_fd(group) };
        let budget = (Instant::now(), LOOKS_PER_SECOND);
        Ok(Self { group, actors, file_systems: BTreeMap::new(), folders_left: folders, budget })
    }

    /// Marks the folder `name` of `parent` and the folders below it, without following a link. What cannot be marked is not
    /// attributed.
    fn mark(&mut self, parent: BorrowedFd<'_>, name: &std::ffi::OsStr) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(folder) = rustix::fs::openat(parent, name, flags, Mode::empty()) else { return };
        // Deep trees are walked with one open folder for each level below this bound.
        let mut open = vec![folder];
        let mut below: Vec<Vec<std::ffi::CString>> = Vec::new();
        while let Some(folder) = open.last() {
            if below.len() < open.len() {
                if self.folders_left == 0 || open.len() > 64 || self.mark_one(folder.as_fd()).is_err() {
                    open.pop();
                    continue;
                }
                self.folders_left -= 1;
                below.push(folders_in(folder));
            }
            match below.last_mut().and_then(Vec::pop) {
                Some(name) => {
                    if let Ok(child) = rustix::fs::openat(folder, name, flags, Mode::empty()) {
                        open.push(child);
                    }
                }
                None => {
                    below.pop();
                    open.pop();
                }
            }
        }
    }

    fn mark_one(&mut self, folder: BorrowedFd<'_>) -> io::Result<()> {
        let file_system = rustix::fs::fstatvfs(folder)?.f_fsid;
        if let std::collections::btree_map::Entry::Vacant(place) = self.file_systems.entry(file_system) {
            place.insert(folder.try_clone_to_owned()?);
        }
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_ONLYDIR;
        // SAFETY: fanotify_mark(2) takes numbers and descriptors that are open here; without a name it marks the folder itself.
        let result =
            unsafe { libc::fanotify_mark(self.group.as_raw_fd(), flags, MASK, folder.as_raw_fd(), std::ptr::null()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn listen(&mut self, stop: BorrowedFd<'_>) {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let mut wait = [PollFd::new(&self.group, PollFlags::IN), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
            match rustix::event::poll(&mut wait, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            if !wait[1].revents().is_empty() {
                return;
            }
            match rustix::io::read(&self.group, &mut buffer) {
                Ok(count) => {
                    let notices: Vec<Notice<'_>> = fanotify::parse(&buffer[..count]).collect();
                    notices.into_iter().for_each(|notice| self.on_notice(notice));
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn on_notice(&mut self, notice: Notice<'_>) {
        let Some(place) = notice.place else {
            if notice.mask & OVERFLOW != 0 {
                tracing::debug!("the kernel dropped notices of who changed files");
            }
            return;
        };
        // 0 is a process of another namespace; the agent's own writes are no news.
        if notice.pid == 0 || notice.pid == std::process::id() {
            return;
        }
        let Some(folder) = self.folder_of(&place) else { return };
        let now = SystemClock.now();
        if let Ok(mut path) = std::fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())) {
            if place.name != b"." {
                path.push(std::ffi::OsStr::from_bytes(place.name));
            }
            let path = path.into_os_string().into_vec();
            if !self.actors.is_again(&path, notice.pid, now) && self.may_look() {
                self.actors.add(&path, actor(notice.pid, now));
            }
        }
        if notice.mask & FOLDER != 0 && notice.mask & APPEARED != 0 && place.name != b"." {
            self.mark(folder.as_fd(), std::ffi::OsStr::from_bytes(place.name));
        }
    }

    fn folder_of(&self, place: &Place<'_>) -> Option<OwnedFd> {
        let file_system = self.file_systems.get(&place.file_system)?;
        // `struct file_handle`: length, type, handle.
        let mut handle = vec![u32::try_from(place.handle.len()).ok()?, place.handle_type.cast_unsigned()];
        for chunk in place.handle.chunks(4) {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            handle.push(u32::from_ne_bytes(word));
        }
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // SAFETY: `handle` is a `struct file_handle` that holds as many bytes as its first number says, and the kernel checks what
        // they mean; the descriptor is open.
        let folder = unsafe { libc::open_by_handle_at(file_system.as_raw_fd(), handle.as_mut_ptr().cast(), flags) };
        // SAFETY: the call above just made it, and nothing else has it.
        (folder >= 0).then(|| unsafe { OwnedFd::from_raw_fd(folder) })
    }

    fn may_look(&mut self) -> bool {
        let now = Instant::now();
        if now.duration_since(self.budget.0) >= Duration::from_secs(1) {
            self.budget = (now, LOOKS_PER_SECOND);
        }
        let may = self.budget.1 > 0;
        self.budget.1 = self.budget.1.saturating_sub(1);
        may
    }
}

fn folders_in(folder: &OwnedFd) -> Vec<std::ffi::CString> {
    let Ok(entries) = Dir::read_from(folder) else { return Vec::new() };
    let is_child = |name: &std::ffi::CStr| name != c"." && name != c"..";
    let folders =
        entries.flatten().filter(|entry| matches!(entry.file_type(), FileType::Directory | FileType::Unknown));
    folders.map(|entry| entry.file_name().to_owned()).filter(|name| is_child(name)).collect()
}

/// Looks at process `pid` while it is there.
fn actor(pid: u32, time: muster_proto::time::Timestamp) -> Actor {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let status = read(&process.join("status"));
    let parent_pid = field(status.as_deref(), "PPid");
    let parent_program = match &parent_pid {
        Reading::Known(0) => Reading::unknown(Cause::Absent, "the kernel began it"),
        Reading::Known(parent) => program(&PathBuf::from(format!("/proc/{parent}"))),
        Reading::Unknown { unknown } => Reading::Unknown { unknown: unknown.clone() },
    };
    Actor {
        time,
        pid,
        program: program(&process),
        uid: field(status.as_deref(), "Uid"),
        login_uid: login_uid(read(&process.join("loginuid")).as_deref()),
        parent_pid,
        parent_program,
        source: "fanotify".into(),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(PROC_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn program(process: &Path) -> Reading<Text> {
    match std::fs::read_link(process.join("exe")) {
        Ok(program) => Reading::Known(Text::new(PathText::from_bytes(program.as_os_str().as_bytes()).as_str())),
        Err(error) => gone(&error),
    }
}

/// Returns the first number of `name` in the text of proc_pid_status(5).
fn field(status: Result<&str, &io::Error>, name: &str) -> Reading<u64> {
    let status = match status {
        Ok(status) => status,
        Err(error) => return gone(error),
    };
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = value.and_then(|value| value.split_ascii_whitespace().next()?.parse().ok());
    number.map_or_else(|| Reading::unknown(Cause::Garbled, format!("no {name} in its status")), Reading::Known)
}

fn login_uid(text: Result<&str, &io::Error>) -> Reading<u64> {
    match text.map(|text| text.trim().parse()) {
        Ok(Ok(NO_LOGIN)) => Reading::unknown(Cause::Absent, "no sign-in began it"),
        Ok(Ok(uid)) => Reading::Known(uid),
        Ok(Err(_)) => Reading::unknown(Cause::Garbled, "loginuid is no number"),
        Err(error) => gone(error),
    }
}

fn gone<T>(error: &io::Error) -> Reading<T> {
    match error.kind() {
        io::ErrorKind::NotFound => Reading::unknown(Cause::Absent, "the process had ended"),
        _ => Reading::Unknown { unknown: crate::host::unknown("look at the process", error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_by_its_status() {
        let status = "Name:\tvi\nPPid:\t41\nUid:\t1000\t0\t0\t0\n";
        assert_eq!(field(Ok(status), "PPid"), Reading::Known(41));
        assert_eq!(field(Ok(status), "Uid"), Reading::Known(1000));
        assert!(matches!(field(Ok(status), "Gid"), Reading::Unknown { .. }));
        assert_eq!(login_uid(Ok("1000\n")), Reading::Known(1000));
        assert!(matches!(login_uid(Ok("4294967295")), Reading::Unknown { unknown } if unknown.cause == Cause::Absent));
    }

    #[test]
    fn a_process_that_has_ended_is_absent() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let actor = actor(pid, muster_proto::time::Timestamp::EPOCH);
        assert!(matches!(actor.program, Reading::Unknown { unknown } if unknown.cause == Cause::Absent));
        let own = super::actor(std::process::id(), muster_proto::time::Timestamp::EPOCH);
        assert!(matches!(own.program, Reading::Known(_)) && matches!(own.parent_program, Reading::Known(_)));
    }

    /// Where the kernel does not let the tests listen, the error must say so: the end-to-end test says that it was left out.
    #[test]
    fn whoever_writes_to_a_watched_file_is_remembered_or_listening_is_forbidden() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        let actors = Arc::new(Actors::default());
        let root = folder.path().to_owned();
        let listening = match Attribution::start(move || vec![root], 100, Arc::clone(&actors)) {
            Ok(listening) => listening,
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        };
        let path = folder.path().canonicalize().unwrap().join("a/new/file");
        let script = "mkdir -p a/new; while echo x >> a/new/file; do sleep 0.02; done";
        let mut shell =
            std::process::Command::new("sh").args(["-c", script]).current_dir(folder.path()).spawn().unwrap();
        let began = Instant::now();
        let found = loop {
            let found = actors.between(
                path.as_os_str().as_bytes(),
                muster_proto::time::Timestamp::EPOCH,
                SystemClock.now().plus(Duration::from_secs(60)),
            );
            if !found.is_empty() || began.elapsed() > Duration::from_secs(60) {
                break found;
            }
            std::thread::yield_now();
        };
        shell.kill().unwrap();
        shell.wait().unwrap();
        drop(listening);
        assert_eq!(found[0].pid, shell.id());
        assert_eq!(found[0].parent_pid, Reading::Known(u64::from(std::process::id())));
    }
}
