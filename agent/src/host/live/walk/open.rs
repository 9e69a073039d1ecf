//! Opens entries below a folder's descriptor, so that no name can lead elsewhere.

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::Duration,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat, StatxFlags},
    io::Errno,
};

use crate::host::{Metadata, live::linux::metadata};

const COMMON: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
/// A FIFO or a device that took the place of a file neither waits nor becomes a terminal.
const CONTENT: OFlags = COMMON.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const FOLDER: OFlags = CONTENT.union(OFlags::DIRECTORY);
/// How long a walk waits in all for processes to give up leases on files, and between one try and the next (fcntl(2), `F_SETLEASE`).
const LEASES: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(5) };
const LEASE_PAUSE: Duration = Duration::from_millis(10);

/// What tells one folder from every other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Identity {
    /// Device: major and minor.
    pub device: (u32, u32),
    pub inode: u64,
    /// Number of the mount, from Linux 5.8 on: a bind mount has the same device.
    pub mount: Option<u64>,
}

impl Identity {
    pub(super) fn of(folder: BorrowedFd<'_>) -> io::Result<Self> {
        let asked = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID;
        match rustix::fs::statx(folder, c"", AtFlags::EMPTY_PATH, asked) {
            Ok(stat) => Ok(Self {
                device: (stat.stx_dev_major, stat.stx_dev_minor),
                inode: stat.stx_ino,
                mount: (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id),
            }),
            // A kernel before 4.11, or a filter of calls that is as old.
            Err(Errno::NOSYS | Errno::PERM) => {
                let found = metadata(&rustix::fs::fstat(folder)?);
                Ok(Self { device: found.device, inode: found.inode, mount: None })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns whether `below`, which is in this folder, is of another mount or file system.
    fn is_crossed_to(&self, below: &Self) -> bool {
        let mounts = self.mount.zip(below.mount);
        self.device != below.device || mounts.is_some_and(|(above, below)| above != below)
    }
}

/// Opens what is below folders for reading, without leaving a trace in times of access where that is allowed.
#[derive(Debug)]
pub(super) struct Opener {
    /// Whether mounts are crossed.
    cross_mounts: bool,
    /// Whether `O_NOATIME` was never refused: it is for owners and CAP_FOWNER alone.
    leaves_times: bool,
    /// How long it still waits for leases: whoever does not give one up is not to keep a walk from its end.
    patience: Duration,
}

impl Opener {
    pub(super) fn new(cross_mounts: bool) -> Self {
        Self { cross_mounts, leaves_times: true, patience: LEASES }
    }

    /// Opens the root of a walk, whose own parents may be links.
    pub(super) fn root(&mut self, path: &Path) -> io::Result<OwnedFd> {
        self.quietly(FOLDER, |flags| rustix::fs::openat(CWD, path, flags, Mode::empty()))
    }

    /// Opens the folder `name` in the folder `parent`, which `looked` is what lstat(2) said of.
    pub(super) fn folder(
        &mut self,
        parent: BorrowedFd<'_>,
        above: &Identity,
        name: &CStr,
        looked: &Metadata,
    ) -> io::Result<(OwnedFd, Identity)> {
        // Before it is opened, which could make an automounter mount it.
        if !self.cross_mounts && looked.device != above.device {
            return Err(crosses());
        }
        let folder = self.folder_unchecked(parent, name)?;
        let found = Identity::of(folder.as_fd())?;
        if !self.cross_mounts && above.is_crossed_to(&found) {
            return Err(crosses());
        }
        if (found.device, found.inode) == (looked.device, looked.inode) { Ok((folder, found)) } else { Err(moved()) }
    }

    /// Opens the folder `name` in the folder `parent` again, if it is the one that `was` tells of.
    pub(super) fn folder_again(&mut self, parent: BorrowedFd<'_>, name: &CStr, was: &Identity) -> io::Result<OwnedFd> {
        let folder = self.folder_unchecked(parent, name)?;
        if Identity::of(folder.as_fd())? == *was { Ok(folder) } else { Err(moved()) }
    }

    /// Opens the folder that holds `folder`, if it is the one that `was` tells of.
    pub(super) fn parent_again(&mut self, folder: BorrowedFd<'_>, was: &Identity) -> io::Result<OwnedFd> {
        let parent = self.quietly(FOLDER, |flags| rustix::fs::openat(folder, c"..", flags, Mode::empty()))?;
        if Identity::of(parent.as_fd())? == *was { Ok(parent) } else { Err(moved()) }
    }

    fn folder_unchecked(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
        let mounts = if self.cross_mounts { ResolveFlags::empty() } else { ResolveFlags::NO_XDEV };
        match self.quietly(FOLDER, |flags| below(parent, name, flags, mounts)) {
            Err(error) if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => Err(crosses()),
            Err(error) if is_another_kind(&error) => Err(moved()),
            opened => opened,
        }
    }

    /// Opens the file `name` in the folder `parent`, of which lstat(2) said that it is one, with what fstat(2) says of it.
    ///
    /// A file that took its place since is as good: what is told of it is its own.
    pub(super) fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        looked: &Metadata,
    ) -> io::Result<(OwnedFd, Stat)> {
        let mut opened = self.quietly(CONTENT, |flags| below(parent, name, flags, ResolveFlags::empty()));
        // The first try has asked the holder of the lease to give it up.
        while opened.as_ref().is_err_and(is_leased) {
            if self.patience.is_zero() {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "a process holds a lease on it"));
            }
            std::thread::sleep(LEASE_PAUSE);
            self.patience = self.patience.saturating_sub(LEASE_PAUSE);
            opened = self.quietly(CONTENT, |flags| below(parent, name, flags, ResolveFlags::empty()));
        }
        let file = opened.map_err(|error| if is_another_kind(&error) { changed() } else { error })?;
        let stat = rustix::fs::fstat(&file)?;
        if is_alike(&stat, looked) { Ok((file, stat)) } else { Err(changed()) }
    }

    /// Runs `open` with `flags`, and with `O_NOATIME` as long as nobody refuses it.
    fn quietly(&mut self, flags: OFlags, open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>) -> io::Result<OwnedFd> {
        if self.leaves_times {
            match open(flags | OFlags::NOATIME) {
                Err(Errno::PERM) => self.leaves_times = false,
                opened => return Ok(opened?),
            }
        }
        Ok(open(flags)?)
    }
}

/// Returns the folder that holds `path`, which is `root` or below it, and the last name: the folder that holds `root` may be behind links,
/// and below it none is followed.
pub(super) fn folder_of(root: &Path, path: &Path) -> io::Result<(OwnedFd, CString)> {
    const ONLY_NAMED: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    let outside = || io::Error::new(io::ErrorKind::InvalidInput, "not below the watched path");
    let below = path.strip_prefix(root).map_err(|_| outside())?;
    let above = root.parent().unwrap_or(root);
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let mut folder = rustix::fs::openat(CWD, above, ONLY_NAMED.difference(OFlags::NOFOLLOW), Mode::empty())
        .map_err(io::Error::from)?;
    let mut names =
        root.file_name().into_iter().chain(below.iter()).map(|name| CString::new(name.as_bytes())).peekable();
    while let Some(name) = names.next() {
        let name = name?;
        if name.as_bytes() == b".." {
            return Err(outside());
        }
        if names.peek().is_none() {
            return Ok((folder, name));
        }
        folder = self::below(folder.as_fd(), &name, ONLY_NAMED, ResolveFlags::empty())?;
    }
    Err(outside())
}

/// Returns a descriptor that only names the entry, which is not opened: whatever it is, nothing happens to it.
pub(super) fn name_only(parent: BorrowedFd<'_>, name: &CStr, looked: &Metadata) -> io::Result<(OwnedFd, Stat)> {
    let entry = below(parent, name, COMMON | OFlags::PATH, ResolveFlags::empty())?;
    let stat = rustix::fs::fstat(&entry)?;
    if is_alike(&stat, looked) { Ok((entry, stat)) } else { Err(changed()) }
}

fn below(parent: BorrowedFd<'_>, name: &CStr, flags: OFlags, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | more;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        // A kernel before 5.6, or a sandbox that does not know the call, as systemd 247 makes. A single name with `O_NOFOLLOW` cannot
        // lead elsewhere either.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(parent, name, flags, Mode::empty()),
        opened => opened,
    }
}

fn is_alike(stat: &Stat, looked: &Metadata) -> bool {
    let found = metadata(stat);
    (found.kind, found.device) == (looked.kind, looked.device)
}

/// Returns whether what was to be opened is of another kind than lstat(2) said: a link, no folder, a socket or an absent device.
fn is_another_kind(error: &io::Error) -> bool {
    let kinds = [Errno::LOOP, Errno::NOTDIR, Errno::NXIO];
    kinds.iter().any(|kind| error.raw_os_error() == Some(kind.raw_os_error()))
}

fn is_leased(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::WOULDBLOCK.raw_os_error())
}

/// Returns the error of a file that is not the same from its look to the end of its read.
pub(super) fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "changed while read")
}

/// Returns the error of a folder that is not where it was seen.
pub(super) fn moved() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "moved or replaced while scanned")
}

fn crosses() -> io::Error {
    io::Error::new(io::ErrorKind::CrossesDevices, "a mount or a subvolume of its own is there")
}
