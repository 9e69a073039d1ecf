//! The folders from the root down to where a walk is, and the path.
//!
//! Only the root and the deepest folders are open. A folder above is opened again as the `..` of the one below it, or else from the
//! root down, and must be the same as before; where it is not, its names that are left cannot be looked at.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use super::{
    names::Names,
    open::{Identity, Opener},
    spill::Spill,
};

/// Folders that are open, at most, besides the root.
const OPEN_FOLDERS: usize = 24;
/// Folders inside each other, at most.
const DEPTH: usize = 32 * 1024;
/// Bytes of the names of all of them in memory, at most, while another is listed.
const HELD_BYTES: usize = 2 * 1024 * 1024;
/// How often a folder is looked for from the root down, which takes as long as it is deep.
const DESCENTS: u32 = 64;

/// The path of an entry: bytes with a NUL at the end, so that its last name is one that the kernel takes.
#[derive(Debug, Default)]
pub(super) struct Way {
    bytes: Vec<u8>,
    /// Where the last name starts.
    name: usize,
}

impl Way {
    /// Returns the path of a root, whose last name is none that is ever used.
    pub(super) fn to(root: &[u8]) -> Self {
        let mut bytes = root.to_vec();
        bytes.push(0);
        Self { bytes, name: 0 }
    }

    /// Returns the path.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.strip_suffix(b"\0").unwrap_or(&self.bytes)
    }

    /// Returns the last name.
    pub(super) fn name(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.bytes[self.name..]).unwrap_or_default()
    }

    /// Puts the next of `names` behind the folder of the first `folder_bytes` bytes; `false` when there is none.
    fn next_name(&mut self, folder_bytes: usize, names: &mut Names, spill: &mut Spill) -> io::Result<bool> {
        self.bytes.truncate(folder_bytes);
        if self.bytes.last() != Some(&b'/') {
            self.bytes.push(b'/');
        }
        self.name = self.bytes.len();
        names.next(spill, &mut self.bytes)
    }
}

/// A folder on the way down.
#[derive(Debug)]
struct Folder {
    /// Its descriptor, if it is open.
    open: Option<Arc<OwnedFd>>,
    identity: Identity,
    /// Bytes of its path.
    path_bytes: usize,
    /// What is still to be looked at in it.
    names: Names,
}

/// The folders on the way down.
#[derive(Debug, Default)]
pub(super) struct Folders {
    stack: Vec<Folder>,
    held_bytes: usize,
    /// How many from the root down have no names in memory.
    spilled: usize,
    descents: u32,
}

impl Folders {
    pub(super) fn is_empty(&self) -> bool {
        self.stack.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.stack.len() >= DEPTH
    }

    /// Returns the deepest folder, or `None` when it was moved.
    pub(super) fn open(&self) -> Option<&Arc<OwnedFd>> {
        self.stack.last()?.open.as_ref()
    }

    /// Returns what the deepest folder is.
    pub(super) fn identity(&self) -> Identity {
        self.stack.last().map_or(Identity { device: (0, 0), inode: 0, mount: None }, |folder| folder.identity)
    }

    /// Puts the next name of the deepest folder behind its path; `false` when there is none.
    pub(super) fn next_name(&mut self, spill: &mut Spill, path: &mut Way) -> io::Result<bool> {
        let Some(folder) = self.stack.last_mut() else { return Ok(false) };
        path.next_name(folder.path_bytes, &mut folder.names, spill)
    }

    /// Moves names out of memory until there is room for those of another folder: the highest folders' first, whose turn comes last.
    pub(super) fn make_room(&mut self, spill: &mut Spill) -> io::Result<()> {
        if let Some(folder) = self.stack.last_mut() {
            folder.names.rest();
        }
        while self.held_bytes > HELD_BYTES
            && let Some(folder) = self.stack.get_mut(self.spilled)
        {
            let held_bytes = folder.names.held_bytes();
            folder.names.spill(spill)?;
            self.held_bytes -= held_bytes;
            self.spilled += 1;
        }
        Ok(())
    }

    /// Adds the folder of `path`, which is in the deepest one.
    pub(super) fn push(&mut self, open: Arc<OwnedFd>, identity: Identity, names: Names, path: &Way) {
        self.held_bytes += names.held_bytes();
        self.stack.push(Folder { open: Some(open), identity, path_bytes: path.as_bytes().len(), names });
        if let Some(above @ 1..) = self.stack.len().checked_sub(OPEN_FOLDERS + 1) {
            self.stack[above].open = None;
        }
    }

    /// Leaves the deepest folder, whose path `path` starts with, and opens the one above it again where need be.
    pub(super) fn leave(&mut self, opener: &mut Opener, spill: &mut Spill, path: &Way) {
        let Some(left) = self.stack.pop() else { return };
        self.held_bytes -= left.names.held_bytes();
        self.spilled = self.spilled.min(self.stack.len());
        left.names.release(spill);
        let Some(above) = self.stack.last_mut() else { return };
        if above.open.is_some() {
            return;
        }
        let parent = left.open.as_ref().and_then(|below| opener.parent_again(below.as_fd(), &above.identity).ok());
        above.open = parent.map(Arc::new);
        if above.open.is_none() {
            self.descend(opener, path.as_bytes());
        }
    }

    /// Opens the deepest folder from the root down. Where that fails it stays closed.
    fn descend(&mut self, opener: &mut Opener, path: &[u8]) {
        if self.descents == DESCENTS {
            return;
        }
        self.descents += 1;
        let Some(start) = self.stack.iter().rposition(|folder| folder.open.is_some()) else { return };
        let Some(mut open) = self.stack[start].open.clone() else { return };
        for pair in self.stack[start..].windows(2) {
            let name = path[pair[0].path_bytes..pair[1].path_bytes].strip_prefix(b"/");
            let name = name.unwrap_or(&path[pair[0].path_bytes..pair[1].path_bytes]);
            let Ok(name) = std::ffi::CString::new(name) else { return };
            let Ok(next) = opener.folder_again(open.as_fd(), &name, &pair[1].identity) else { return };
            open = Arc::new(next);
        }
        if let Some(folder) = self.stack.last_mut() {
            folder.open = Some(open);
        }
    }
}
