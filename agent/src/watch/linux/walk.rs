//! Goes through the folders of watched paths and watches each, as far as settings and kernel allow.
//!
//! A folder is watched before its names are listed, so that nothing can come into it unseen. It is opened beneath the
//! watched path's own descriptor without following a link, and that descriptor is what is watched and listed: whoever
//! swaps folders meanwhile leads nobody elsewhere.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    time::{Duration, Instant},
};

use muster_proto::{
    fact::{Cause, Unknown},
    limits,
};
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{
    super::Plan,
    kernel::{Kernel, Wd},
    tree::{Place, Placed, Tree, push},
};
use crate::host::{self, EntryKind};

/// How long a walk may take.
const TIME: Duration = Duration::from_secs(600);
/// Names of folders that wait to be gone into, at most.
const WAITING: usize = 200_000;

/// A walk under way.
pub struct Walk<'a> {
    kernel: Option<&'a Kernel>,
    plan: &'a Plan,
    tree: &'a mut Tree,
    /// Folders that may still be watched.
    left: usize,
    /// Why no further folder is watched.
    refusal: Option<Unknown>,
    /// What is gone through is only counted, since its topmost folder is not watched.
    top: Option<Top>,
    /// Topmost folders that were not watched before, or lay somewhere else.
    came: Vec<Vec<u8>>,
    waiting: usize,
    end: Instant,
    is_stopped: &'a dyn Fn() -> bool,
}

struct Top {
    path: Vec<u8>,
    unknown: Unknown,
    folders: u64,
    /// How many folders are above it.
    depth: usize,
}

/// A folder whose own folders are gone through.
struct Frame {
    number: Option<Wd>,
    is_new: bool,
    names: std::vec::IntoIter<Box<[u8]>>,
    /// Length of its path.
    length: usize,
}

impl<'a> Walk<'a> {
    /// Returns a walk that watches at most `most` folders that it comes to.
    pub fn new(
        kernel: &'a Kernel,
        plan: &'a Plan,
        tree: &'a mut Tree,
        most: usize,
        is_stopped: &'a dyn Fn() -> bool,
    ) -> Self {
        let end = Instant::now() + TIME;
        let kernel = Some(kernel);
        Self { kernel, plan, tree, left: most, refusal: None, top: None, came: Vec::new(), waiting: 0, end, is_stopped }
    }

    /// Returns a walk that watches nothing, since that is `refused`, and counts.
    pub fn counting(plan: &'a Plan, tree: &'a mut Tree, refused: Unknown, is_stopped: &'a dyn Fn() -> bool) -> Self {
        let (refusal, end) = (Some(refused), Instant::now() + TIME);
        Self { kernel: None, plan, tree, left: 0, refusal, top: None, came: Vec::new(), waiting: 0, end, is_stopped }
    }

    /// Goes through what is at and below `below` in the watched path of number `root`. `parent` is the folder that
    /// holds it, with its name in that; none for the watched path itself.
    pub fn go(&mut self, root: usize, below: &[u8], parent: Option<(Wd, &[u8])>) {
        let watched = &self.plan.roots[root];
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let base = match rustix::fs::openat(CWD, OsStr::from_bytes(watched), flags, Mode::empty()) {
            Ok(base) => base,
            // Not there, a file or a link: whoever holds it is watched for its name.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return,
            Err(error) => return self.tree.scan_only(watched, 1, host::unknown("open", &error.into())),
        };
        let mut path = watched.clone();
        below.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).for_each(|name| push(&mut path, name));
        let place = match parent {
            Some((parent, name)) => Place::In(parent, name.into()),
            None => Place::Root(root, watched.clone().into()),
        };
        let mut frames = Vec::new();
        frames.extend(self.folder(base.as_fd(), root, &path, Some((place, false)), 0));
        self.close_top(frames.len());
        while let Some(frame) = frames.last_mut() {
            path.truncate(frame.length);
            let Some(name) = frame.names.next() else {
                frames.pop();
                self.close_top(frames.len());
                continue;
            };
            self.waiting -= 1;
            push(&mut path, &name);
            let place = frame.number.map(|folder| (Place::In(folder, name), frame.is_new));
            let depth = frames.len();
            frames.extend(self.folder(base.as_fd(), root, &path, place, depth));
            self.close_top(frames.len());
        }
    }

    /// Returns the topmost folders that were not watched before, or lay somewhere else. What changed in them before was
    /// noticed by nobody.
    pub fn came(self) -> Vec<Vec<u8>> {
        self.came
    }

    /// Watches one folder, and returns what is to be gone through in it. `place` is where it lies, and whether the
    /// folder that it lies in is new; none when that is not watched.
    fn folder(
        &mut self,
        base: BorrowedFd<'_>,
        root: usize,
        path: &[u8],
        place: Option<(Place, bool)>,
        depth: usize,
    ) -> Option<Frame> {
        if (self.is_stopped)() || path.len() > limits::TEXT_BYTES || !self.plan.covers(path, EntryKind::Folder) {
            return None;
        }
        if Instant::now() > self.end {
            self.refusal = Some(Unknown::new(Cause::TimedOut, "there was no time to go through all folders"));
        }
        let watched = &self.plan.roots[root];
        let below = path[watched.len()..].strip_prefix(b"/").unwrap_or(&path[watched.len()..]);
        let folder = match open(base, below, &|| self.plan.crosses(path)) {
            Ok(folder) => folder,
            // Gone, no folder, or where no scan goes either. What may not be read is told by scans.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::ACCESS | Errno::PERM) => return None,
            Err(error) => {
                self.only_scan(path, host::unknown("open", &error.into()), depth);
                return None;
            }
        };
        let (number, is_new) = match self.watch(&folder, path, place, depth) {
            Some((number, is_new)) => (Some(number), is_new),
            None => (None, false),
        };
        let names = if Instant::now() > self.end { Vec::new() } else { self.names(folder, path) };
        self.waiting += names.len();
        Some(Frame { number, is_new, names: names.into_iter(), length: path.len() })
    }

    fn watch(
        &mut self,
        folder: &OwnedFd,
        path: &[u8],
        place: Option<(Place, bool)>,
        depth: usize,
    ) -> Option<(Wd, bool)> {
        let (None, Some((place, is_in_new))) = (&self.top, place) else {
            self.top.as_mut().into_iter().for_each(|top| top.folders += 1);
            return None;
        };
        if self.left == 0 && self.refusal.is_none() {
            let detail = "there are more folders than the setting watched_folders lets be watched";
            self.refusal = Some(Unknown::new(Cause::Limit, detail));
        }
        if let Some(refusal) = self.refusal.clone() {
            self.only_scan(path, refusal, depth);
            return None;
        }
        let added = self.kernel.map(|kernel| kernel.add(folder.as_fd()));
        let unknown = match added.unwrap_or_else(|| Err(std::io::ErrorKind::Unsupported.into())) {
            Ok(number) => match self.tree.place(number, place) {
                Placed::Twice => Unknown::new(Cause::Unsupported, "it is watched under another path"),
                placed => {
                    self.left -= 1;
                    let is_new = placed == Placed::New;
                    if is_new && !is_in_new {
                        self.came.push(path.to_vec());
                    }
                    return Some((number, is_new));
                }
            },
            Err(error) if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => {
                let detail = "the kernel lets this user watch no more folders (fs.inotify.max_user_watches)";
                self.refusal.insert(Unknown::new(Cause::Limit, detail)).clone()
            }
            Err(error) => host::unknown("watch", &error),
        };
        self.only_scan(path, unknown, depth);
        None
    }

    /// Takes note that a folder is only scanned. What is gone through below it is counted with it.
    fn only_scan(&mut self, path: &[u8], unknown: Unknown, depth: usize) {
        match &mut self.top {
            Some(top) => top.folders += 1,
            None => self.top = Some(Top { path: path.to_vec(), unknown, folders: 1, depth }),
        }
    }

    /// Ends the counting of a folder that is only scanned when `depth` folders are gone through no further than to it.
    fn close_top(&mut self, depth: usize) {
        if let Some(top) = self.top.take_if(|top| top.depth >= depth) {
            self.tree.scan_only(&top.path, top.folders, top.unknown);
        }
    }

    /// Returns the names of the folders in `folder`, sorted.
    fn names(&mut self, folder: OwnedFd, path: &[u8]) -> Vec<Box<[u8]>> {
        let (mut names, mut beyond) = (Vec::<Box<[u8]>>::new(), 0);
        // What cannot be listed cannot be scanned either, and scans say so.
        for entry in Dir::new(folder).into_iter().flatten().map_while(Result::ok) {
            let name = entry.file_name().to_bytes();
            let may_be_folder = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
            if !may_be_folder || name == b"." || name == b".." {
                continue;
            }
            if self.waiting + names.len() >= WAITING {
                beyond += 1;
                continue;
            }
            names.push(name.into());
        }
        if beyond > 0 {
            let detail = format!("{beyond} folders in it, and what is below them, are more than can be gone through");
            match &mut self.top {
                Some(top) => top.folders += beyond,
                None => self.tree.scan_only(path, beyond, Unknown::new(Cause::Limit, detail)),
            }
        }
        names.sort_unstable();
        names
    }
}

/// How folders are opened.
const FOLDER: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens the folder at `below` beneath `base`. `crosses` says whether a scan goes on below it, should it be a mount
/// point.
fn open(base: BorrowedFd<'_>, below: &[u8], crosses: &dyn Fn() -> bool) -> Result<OwnedFd, Errno> {
    let opened = |base: BorrowedFd<'_>, below: &[u8], more| {
        let below = OsStr::from_bytes(if below.is_empty() { b"." } else { below });
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | more;
        rustix::fs::openat2(base, below, FOLDER, Mode::empty(), resolve)
    };
    match opened(base, below, ResolveFlags::NO_XDEV) {
        // A kernel before 5.6, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_by_names(base, below, crosses),
        // It is a mount point, or below one that was crossed.
        Err(Errno::XDEV) => {
            let (above, name) =
                below.split_at(below.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1));
            let parent = opened(base, above, ResolveFlags::empty())?;
            match opened(parent.as_fd(), name, ResolveFlags::NO_XDEV) {
                Err(Errno::XDEV) if crosses() => opened(parent.as_fd(), name, ResolveFlags::empty()),
                opened => opened,
            }
        }
        opened => opened,
    }
}

/// Opens the folder at `below` beneath `base`, one name after the other.
fn open_by_names(base: BorrowedFd<'_>, below: &[u8], crosses: &dyn Fn() -> bool) -> Result<OwnedFd, Errno> {
    let mut at = rustix::fs::openat(base, c".", FOLDER, Mode::empty())?;
    let mut names = below.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
    while let Some(name) = names.next() {
        let next = rustix::fs::openat(&at, OsStr::from_bytes(name), FOLDER, Mode::empty())?;
        // Those above it were asked when they were opened themselves.
        let is_mount = names.peek().is_none() && rustix::fs::fstat(&next)?.st_dev != rustix::fs::fstat(&at)?.st_dev;
        if is_mount && !crosses() {
            return Err(Errno::XDEV);
        }
        at = next;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        os::unix::fs::symlink,
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::probe::Settings;

    fn plan(path: &Path) -> Plan {
        Plan::of(&Settings { watched_paths: vec![path.to_owned()], ..Settings::default() })
    }

    fn walked(path: &Path, most: usize) -> Tree {
        let (kernel, plan, mut tree) = (Kernel::open().unwrap(), plan(path), Tree::default());
        tree.begin();
        Walk::new(&kernel, &plan, &mut tree, most, &|| false).go(0, b"", None);
        assert_eq!(tree.end(), []);
        tree
    }

    /// `a/0` to `a/4`, `b/0` to `b/4`, and so on: with the root 16 folders.
    fn folders() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            (0..4).for_each(|at| fs::create_dir_all(folder.path().join(format!("{name}/{at}"))).unwrap());
            fs::write(folder.path().join(name).join("file"), "x").unwrap();
        }
        folder
    }

    #[test]
    fn every_folder_is_watched_or_counted_with_the_topmost_that_is_not() {
        let folder = folders();
        for most in 0..=17 {
            let coverage = walked(folder.path(), most).coverage();
            assert_eq!(coverage.folders_live, most.min(16) as u64);
            assert_eq!(coverage.folders_live + coverage.folders_scan_only, 16, "of {most}");
        }
        // The root, `a` with its four, `b` with one.
        let coverage = walked(folder.path(), 8).coverage();
        let tops = ["b/1", "b/2", "b/3", "c"].map(|name| folder.path().join(name));
        let listed: Vec<_> = coverage.scan_only.iter().map(|top| PathBuf::from(top.path.to_string())).collect();
        assert_eq!((listed, coverage.scan_only_total, coverage.folders_scan_only), (tops.to_vec(), 4, 8));
        assert_eq!(coverage.scan_only[0].unknown.cause, Cause::Limit);
    }

    #[test]
    fn no_link_is_followed_and_a_missing_path_is_no_trouble() {
        let (folder, outside) = (folders(), folders());
        symlink(outside.path(), folder.path().join("link")).unwrap();
        assert_eq!(walked(folder.path(), 100).len(), 16);
        assert_eq!(walked(&folder.path().join("link"), 100).len(), 0);
        assert_eq!(walked(&folder.path().join("missing"), 100).len(), 0);
        assert_eq!(walked(&folder.path().join("a/file"), 100).len(), 0);
        let base = fs::File::open(folder.path()).unwrap();
        for crosses in [false, true] {
            let crosses = || crosses;
            assert_eq!(open(base.as_fd(), b"link/a", &crosses).unwrap_err(), Errno::LOOP);
            let by_names = open_by_names(base.as_fd(), b"link/a", &crosses);
            assert!(matches!(by_names.unwrap_err(), Errno::LOOP | Errno::NOTDIR));
            assert!(open(base.as_fd(), b"a/3", &crosses).is_ok());
            assert!(open_by_names(base.as_fd(), b"a/3", &crosses).is_ok());
        }
    }

    #[test]
    fn a_tree_deeper_than_there_are_descriptors_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        // By steps, since no call takes the whole path.
        let mut at = rustix::fs::openat(CWD, folder.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&at, c"d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, c"d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let expected = (limits::TEXT_BYTES - folder.path().as_os_str().len()) / 2 + 1;
        let tree = walked(folder.path(), 10_000);
        assert_eq!(tree.len(), expected);
        let numbers: BTreeSet<_> = (0..expected).map(|depth| tree.find(0, &b"d/".repeat(depth))).collect();
        assert_eq!(numbers.len(), expected);
    }
}
