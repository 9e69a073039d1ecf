//! The least that a look at a tree can cost: a walk that asks for each entry's state, and one that reads each file too.
//!
//! It knows nothing of the agent's walk, and so counts what that one must have seen.

use std::{
    ffi::CString,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, openat, statat};
use sha2::{Digest as _, Sha256};

/// Folders inside each other that are held open, at most.
const OPEN: usize = 200;
/// Bytes read at once, and hashed at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// What a walk saw.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Entries, the root included.
    pub entries: u64,
    /// Folders among them.
    pub folders: u64,
    /// Regular files among them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

struct Frame {
    // Closed while too many folders inside it are open; `..` of the one inside leads back.
    folder: Option<OwnedFd>,
    inside: Vec<CString>,
}

/// Asks for the state of each entry at and below `root`, and with `reads` reads each regular file.
///
/// # Errors
///
/// When one cannot be looked at.
pub fn walk(root: &Path, reads: bool) -> rustix::io::Result<Counts> {
    let mut counts = Counts { entries: 1, folders: 1, ..Counts::default() };
    let mut buffer = vec![0; BUFFER_BYTES];
    let folder = openat(CWD, root, FOLDER, Mode::empty())?;
    let mut stack = vec![opened(folder, reads, &mut counts, &mut buffer)?];
    while let Some(frame) = stack.last_mut() {
        if let Some(name) = frame.inside.pop() {
            let parent = frame.folder.as_ref().expect("the innermost folder is open");
            let folder = openat(parent, &name, FOLDER, Mode::empty())?;
            let inner = opened(folder, reads, &mut counts, &mut buffer)?;
            if let Some(outer) = stack.len().checked_sub(OPEN) {
                stack[outer].folder = None;
            }
            stack.push(inner);
        } else {
            let inner = stack.pop().and_then(|frame| frame.folder).expect("the innermost folder is open");
            if let Some(outer) = stack.last_mut().filter(|outer| outer.folder.is_none()) {
                outer.folder = Some(openat(inner, "..", FOLDER, Mode::empty())?);
            }
        }
    }
    Ok(counts)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Looks at what is in `folder`, and returns it with its folders still to be gone into.
fn opened(folder: OwnedFd, reads: bool, counts: &mut Counts, buffer: &mut [u8]) -> rustix::io::Result<Frame> {
    let mut inside = Vec::new();
    let mut names = [MaybeUninit::uninit(); 32 * 1024];
    let mut listing = RawDir::new(&folder, &mut names);
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        counts.entries += 1;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                counts.folders += 1;
                inside.push(name.to_owned());
            }
            FileType::RegularFile => {
                counts.files += 1;
                counts.bytes += u64::try_from(stat.st_size).unwrap_or(0);
                if reads {
                    let file =
                        openat(&folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                    while rustix::io::read(&file, &mut *buffer)? > 0 {}
                }
            }
            _ => {}
        }
    }
    Ok(Frame { folder: Some(folder), inside })
}

/// Makes SHA-256 of `bytes` bytes of memory, a buffer again and again, and returns how long that took.
pub fn hash(mut bytes: u64) -> Duration {
    let (buffer, start) = (vec![7; BUFFER_BYTES], Instant::now());
    let mut hash = Sha256::new();
    while bytes > 0 {
        let part = usize::try_from(bytes).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        hash.update(&buffer[..part]);
        bytes -= part as u64;
    }
    std::hint::black_box(hash.finalize());
    start.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_descriptors_go_is_counted_whole() {
        let tree = tempfile::tempdir().unwrap();
        let mut folder = openat(CWD, tree.path(), FOLDER, Mode::empty()).unwrap();
        for _ in 0..3 * OPEN {
            rustix::fs::mkdirat(&folder, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&folder, "e", Mode::RWXU).unwrap();
            folder = openat(&folder, "d", FOLDER, Mode::empty()).unwrap();
        }
        std::fs::write(tree.path().join("f"), "abc").unwrap();
        let depth = 2 * 3 * OPEN as u64 + 1;
        let expected = Counts { entries: depth + 1, folders: depth, files: 1, bytes: 3 };
        assert_eq!(walk(tree.path(), true).unwrap(), expected);
        assert_eq!(walk(tree.path(), false).unwrap(), expected);
    }
}
