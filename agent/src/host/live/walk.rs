//! Walks a tree without following a link anywhere below the root, in constant memory however deep or wide it is.
//!
//! Each name is opened relative to its folder's descriptor, so that a tree changed under the walk cannot lead it elsewhere. Only what
//! lstat(2) calls a regular file is opened, and fstat(2) must agree; a mount point is not crossed unless the pace says so. A folder's
//! names are listed at once and sorted; see [`names`]. Of the folders on the way down a few are kept open; see [`folders`].

mod attributes;
mod budget;
mod cache;
mod folders;
mod names;
mod open;
mod owners;
mod read;
mod readers;
mod sha256;
mod spill;

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use rustix::fs::{AtFlags, CWD};

pub(super) use self::read::digests;
use self::{
    folders::{Folders, Way},
    names::Lister,
    open::{Identity, Opener, moved},
    read::{Reader, Rules, Wanted},
    readers::{Ahead, Entry, Reads, Shared},
    spill::Spill,
};
use super::{Live, linux::metadata};
use crate::host::{EntryKind, Metadata, Pace, Scanned, Visitor, Want, path_bytes};

/// Bytes of a path, at most: what is below a longer one is not looked at. The kernel itself takes 4096 at once.
const PATH_BYTES: usize = 4 * 1024 * 1024;
/// How often a folder that is replaced while it is opened is looked at again.
const TRIES: u32 = 3;
/// lstat(2), which mounts nothing.
const LOOK: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT);

/// Shows `visitor` everything from `root` on.
pub(super) fn walk(live: Live, root: &Path, pace: &Pace, visitor: &mut dyn Visitor) -> io::Result<()> {
    live.check_deadline()?;
    let rules = Rules::new(live, pace);
    if pace.at_once {
        return Walk::new(live, pace, Reads::Here(Reader::new(&rules)), visitor).run(root);
    }
    let shared = Shared::default();
    std::thread::scope(|scope| {
        let ahead = Ahead::start(scope, &shared, &rules, pace)?;
        Walk::new(live, pace, Reads::Ahead(ahead), visitor).run(root)
    })
}

struct Walk<'w, 'v> {
    live: Live,
    visitor: &'v mut dyn Visitor,
    reads: Reads<'w>,
    opener: Opener,
    lister: Lister,
    spill: Spill,
    folders: Folders,
    path: Way,
}

impl<'w, 'v> Walk<'w, 'v> {
    fn new(live: Live, pace: &Pace, reads: Reads<'w>, visitor: &'v mut dyn Visitor) -> Self {
        Self {
            live,
            visitor,
            reads,
            opener: Opener::new(pace.cross_mounts),
            lister: Lister::new(),
            spill: Spill::new(pace.spill_folder.as_deref()),
            folders: Folders::default(),
            path: Way::default(),
        }
    }

    fn run(mut self, root: &Path) -> io::Result<()> {
        self.root(root)?;
        while !self.folders.is_empty() {
            self.live.check_deadline()?;
            if self.folders.next_name(&mut self.spill, &mut self.path)? {
                self.entry()?;
            } else {
                self.folders.leave(&mut self.opener, &mut self.spill, &self.path);
            }
        }
        self.reads.finish(self.visitor)
    }

    /// Shows the root. Its own error is the caller's, who decides whether a missing root is a finding.
    fn root(&mut self, root: &Path) -> io::Result<()> {
        let looked = metadata(&rustix::fs::statat(CWD, root, LOOK)?);
        self.path = Way::to(&path_bytes(root));
        if looked.kind != EntryKind::Folder {
            return self.root_file(root, &looked);
        }
        let folder = Arc::new(self.opener.root(root)?);
        let identity = Identity::of(folder.as_fd())?;
        let looked = metadata(&rustix::fs::fstat(&folder)?);
        self.reads.advance(self.visitor)?;
        match self.visitor.wants(self.path.as_bytes(), &looked)? {
            Want::NothingBelow => Ok(()),
            want => self.enter(folder, identity, want),
        }
    }

    /// Reads a root that is no folder in the folder that holds it, to which the operator's links may lead.
    fn root_file(&mut self, root: &Path, looked: &Metadata) -> io::Result<()> {
        let want = self.visitor.wants(self.path.as_bytes(), looked)?;
        if !want.is_read() {
            return Ok(());
        }
        let Some((above, name)) = root.parent().zip(root.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a root has a name"));
        };
        // Only to resolve names in: it need not be readable, and may be a link.
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let folder = match rustix::fs::openat(CWD, above, flags, rustix::fs::Mode::empty()) {
            Ok(folder) => Arc::new(folder),
            Err(error) => return self.visitor.found(self.path.as_bytes(), Err(error.into())),
        };
        let name = std::ffi::CString::new(name.as_encoded_bytes())?;
        let entry = Entry { path: self.path.as_bytes(), name: &name, folder: &folder, looked, want };
        self.reads.read(&entry, self.visitor)?;
        self.reads.finish(self.visitor)
    }

    /// Shows the entry that the path names.
    fn entry(&mut self) -> io::Result<()> {
        self.reads.advance(self.visitor)?;
        let Some(folder) = self.folders.open() else {
            return self.visitor.unreadable(self.path.as_bytes(), moved());
        };
        let looked = match look(folder.as_fd(), self.path.name()) {
            Ok(Some(looked)) => looked,
            // It ended between listing and looking: as if it had ended before.
            Ok(None) => return Ok(()),
            Err(error) => return self.visitor.unreadable(self.path.as_bytes(), error),
        };
        let want = self.visitor.wants(self.path.as_bytes(), &looked)?;
        match looked.kind {
            EntryKind::Folder if want == Want::NothingBelow => Ok(()),
            EntryKind::Folder => self.folder(looked, want),
            _ if want.is_read() => {
                let (path, name) = (self.path.as_bytes(), self.path.name());
                self.reads.read(&Entry { path, name, folder, looked: &looked, want }, self.visitor)
            }
            _ => Ok(()),
        }
    }

    /// Opens a folder that was shown and goes into it.
    fn folder(&mut self, mut looked: Metadata, want: Want) -> io::Result<()> {
        let Some(above) = self.folders.open().map(Arc::clone) else { return Ok(()) };
        for _ in 0..TRIES {
            match self.opener.folder(above.as_fd(), &self.folders.identity(), self.path.name(), &looked) {
                Ok((folder, identity)) => return self.enter(Arc::new(folder), identity, want),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    return self.left_out(&above, &looked, want, error);
                }
                Err(error) => return self.visitor.unreadable(self.path.as_bytes(), error),
            }
            match look(above.as_fd(), self.path.name()) {
                Ok(Some(again)) if again.kind == EntryKind::Folder => looked = again,
                _ => break,
            }
        }
        self.visitor.unreadable(self.path.as_bytes(), moved())
    }

    /// Tells of a mount point that is not crossed. What is wanted of it is read without opening it.
    fn left_out(&mut self, above: &OwnedFd, looked: &Metadata, want: Want, error: io::Error) -> io::Result<()> {
        if want.is_read() {
            let name = self.path.name();
            let wanted = Wanted { folder: above.as_fd(), name, looked, want };
            let read = |reader: &mut Reader<'_>| reader.read(wanted);
            self.reads.read_here(self.path.as_bytes(), self.visitor, read)?;
        }
        self.visitor.unreadable(self.path.as_bytes(), error)
    }

    /// Goes into a folder that was shown and is open.
    fn enter(&mut self, folder: Arc<OwnedFd>, identity: Identity, want: Want) -> io::Result<()> {
        if want.is_read() {
            let read = |reader: &mut Reader<'_>| -> io::Result<Scanned> { reader.folder(folder.as_fd()) };
            self.reads.read_here(self.path.as_bytes(), self.visitor, read)?;
        }
        let live = self.live;
        let listed = if self.path.as_bytes().len() > PATH_BYTES || self.folders.is_full() {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, "deeper than a scan goes"))
        } else {
            let room = self.folders.make_room(&mut self.spill);
            room.and_then(|()| self.lister.list(folder.as_fd(), &mut self.spill, || live.check_deadline()))
        };
        match listed {
            Ok(names) => {
                self.folders.push(folder, identity, names, &self.path);
                Ok(())
            }
            Err(error) => {
                live.check_deadline()?;
                self.visitor.unreadable(self.path.as_bytes(), error)
            }
        }
    }
}

/// Returns what lstat(2) says of `name` in `folder`, or `None` when it is not there.
fn look(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Metadata>> {
    match rustix::fs::statat(folder, name, LOOK) {
        Ok(stat) => Ok(Some(metadata(&stat))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
