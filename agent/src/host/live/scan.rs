//! Walks a tree and reads every regular file of it, without following a link anywhere below the root.
//!
//! Each name is opened relative to its folder's descriptor with `O_NOFOLLOW`, so that a tree changed under the scan
//! cannot lead it elsewhere. Only what lstat(2) calls a regular file is opened, and fstat(2) must agree.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use md5::Md5;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, Stat};
use sha2::{Digest as _, Sha256};

use super::{
    Live,
    linux::{component, metadata},
};
use crate::host::{Digests, EntryKind, FOLDER_NAMES, SCAN_ENTRIES, Scanned, Visit};

/// Folders inside each other, at most.
const DEPTH: usize = 128;
/// Bytes read at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// How often a file that changes while it is read is read again.
const TRIES: u32 = 3;

pub(super) fn scan(live: Live, root: &Path, visit: &mut Visit<'_>) -> io::Result<()> {
    let mut scan = Scan { live, visit, buffer: vec![0; BUFFER_BYTES], entries: 0 };
    // The root's own error is the caller's: it decides whether a missing root is a finding.
    let stat = rustix::fs::statat(CWD, root, AtFlags::SYMLINK_NOFOLLOW)?;
    if metadata(&stat).kind == EntryKind::Folder {
        open(CWD, root.as_os_str(), OFlags::DIRECTORY)?;
    }
    scan.entry(CWD, root, root.as_os_str(), &stat, 0)
}

pub(super) fn digests(live: Live, path: &Path) -> io::Result<Digests> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let update = |hashes: &mut (Sha256, Md5), bytes: &[u8]| {
        hashes.0.update(bytes);
        hashes.1.update(bytes);
    };
    let (_, hashes) = read_unchanged(live, CWD, path.as_os_str(), &stat, &mut buffer, update)?;
    Ok(Digests { sha256: hashes.0.finalize().into(), md5: hashes.1.finalize().into() })
}

struct Scan<'a, 'v> {
    live: Live,
    visit: &'a mut Visit<'v>,
    buffer: Vec<u8>,
    entries: u64,
}

impl Scan<'_, '_> {
    fn entry(
        &mut self,
        folder: BorrowedFd<'_>,
        path: &Path,
        name: &std::ffi::OsStr,
        stat: &Stat,
        depth: usize,
    ) -> io::Result<()> {
        self.live.check_deadline()?;
        self.entries += 1;
        if self.entries > SCAN_ENTRIES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more entries than a scan may have"));
        }
        let found = metadata(stat);
        match found.kind {
            EntryKind::Folder => self.folder(folder, path, name, depth),
            EntryKind::File => {
                let scanned = self.file(folder, name, stat);
                if scanned.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                    return scanned.map(drop);
                }
                (self.visit)(path, scanned)
            }
            EntryKind::Link => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new()).map_err(io::Error::from);
                let sha256 = target.map(|target| Some(Sha256::digest(target.as_bytes()).into()));
                (self.visit)(path, sha256.map(|sha256| Scanned { metadata: found, sha256, attributes: Vec::new() }))
            }
            EntryKind::Other => {
                (self.visit)(path, Ok(Scanned { metadata: found, sha256: None, attributes: Vec::new() }))
            }
        }
    }

    fn folder(&mut self, parent: BorrowedFd<'_>, path: &Path, name: &std::ffi::OsStr, depth: usize) -> io::Result<()> {
        let opened = open(parent, name, OFlags::DIRECTORY).and_then(|folder| {
            let names = if depth < DEPTH { names(&folder)? } else { return Err(io::ErrorKind::FileTooLarge.into()) };
            Ok((metadata(&rustix::fs::fstat(&folder)?), folder, names))
        });
        let (found, folder, names) = match opened {
            Ok(opened) => opened,
            Err(error) => return (self.visit)(path, Err(error)),
        };
        (self.visit)(path, Ok(Scanned { metadata: found, sha256: None, attributes: Vec::new() }))?;
        for name in names {
            let name = component(&name);
            let path = path.join(name);
            match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => self.entry(folder.as_fd(), &path, name, &stat, depth + 1)?,
                // It ended between listing and looking: as if it had ended before.
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => (self.visit)(&path, Err(error.into()))?,
            }
        }
        Ok(())
    }

    fn file(&mut self, folder: BorrowedFd<'_>, name: &std::ffi::OsStr, stat: &Stat) -> io::Result<Scanned> {
        let update = |hash: &mut Sha256, bytes: &[u8]| hash.update(bytes);
        let (stat, hash) = read_unchanged(self.live, folder, name, stat, &mut self.buffer, update)?;
        Ok(Scanned { metadata: metadata(&stat), sha256: Some(hash.finalize().into()), attributes: Vec::new() })
    }
}

/// Reads a file whose state before and after is the same, and returns that state with the hash of its content.
fn read_unchanged<H: Default>(
    live: Live,
    folder: BorrowedFd<'_>,
    name: &std::ffi::OsStr,
    looked: &Stat,
    buffer: &mut [u8],
    mut update: impl FnMut(&mut H, &[u8]),
) -> io::Result<(Stat, H)> {
    for _ in 0..TRIES {
        let mut file = File::from(open(folder, name, OFlags::empty())?);
        let before = rustix::fs::fstat(&file)?;
        if metadata(&before).kind != EntryKind::File || before.st_dev != looked.st_dev {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "changed while read"));
        }
        let mut hash = H::default();
        // A file that grows as fast as it is read would have no end.
        let mut left = u64::try_from(before.st_size).unwrap_or(0);
        while left > 0 {
            live.check_deadline()?;
            let count = file.by_ref().take(left).read(buffer)?;
            if count == 0 {
                break;
            }
            left -= count as u64;
            update(&mut hash, &buffer[..count]);
        }
        if version(&rustix::fs::fstat(&file)?) == version(&before) {
            return Ok((before, hash));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "changed while read"))
}

/// Returns what differs between two states of a file whose content or metadata changed between them.
fn version(stat: &Stat) -> impl PartialEq + use<> {
    (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec, stat.st_mode)
}

fn open(folder: BorrowedFd<'_>, name: &std::ffi::OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    if name.as_encoded_bytes().contains(&b'/') {
        // The root: its own parents may be links, which the operator named.
        return Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve) {
        // A kernel before 5.6. A single name with `O_NOFOLLOW` cannot lead elsewhere either.
        Err(rustix::io::Errno::NOSYS) => Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?),
        opened => Ok(opened?),
    }
}

fn names(folder: &OwnedFd) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if names.len() == FOLDER_NAMES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more names than a folder may have"));
        }
        names.push(name.to_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt as _, symlink},
        path::PathBuf,
    };

    use super::*;

    fn visited(root: &Path) -> Vec<(PathBuf, Option<EntryKind>)> {
        let mut visited = Vec::new();
        let result = scan(Live::new(), root, &mut |path, scanned| {
            let path = path.strip_prefix(root).unwrap().to_owned();
            visited.push((path, scanned.ok().map(|scanned| scanned.metadata.kind)));
            Ok(())
        });
        result.unwrap();
        visited
    }

    #[test]
    fn a_folder_comes_before_what_is_in_it_and_names_are_in_byte_order() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        for name in ["a/b", "a-b", "a.b"] {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        let names: Vec<_> = visited(root.path()).into_iter().map(|(path, _)| path).collect();
        assert_eq!(names, ["", "a", "a/b", "a-b", "a.b"].map(PathBuf::from));
    }

    #[test]
    fn links_are_not_followed_and_what_is_not_a_file_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        symlink(outside.path(), root.path().join("link")).unwrap();
        rustix::fs::mknodat(CWD, root.path().join("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let expected =
            [("", Some(EntryKind::Folder)), ("link", Some(EntryKind::Link)), ("pipe", Some(EntryKind::Other))];
        assert_eq!(visited(root.path()), expected.map(|(path, kind)| (PathBuf::from(path), kind)));
    }

    #[test]
    fn digests_are_of_the_content() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("f");
        std::fs::write(&path, "abc").unwrap();
        let digests = digests(Live::new(), &path).unwrap();
        assert_eq!(hex::encode(digests.md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(digests.sha256, <[u8; 32]>::from(Sha256::digest("abc")));
        let link = root.path().join("l");
        symlink(&path, &link).unwrap();
        assert!(super::digests(Live::new(), &link).is_err());
    }

    #[test]
    fn a_missing_root_is_an_error_and_a_root_that_is_a_file_is_one_entry() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("f");
        let error = scan(Live::new(), &path, &mut |_, _| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, "abc").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(visited(&path), [(PathBuf::new(), Some(EntryKind::File))]);
    }

    #[test]
    fn a_file_that_keeps_changing_is_unreadable() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("f");
        std::fs::write(&path, "abc").unwrap();
        let looked = rustix::fs::statat(CWD, &path, AtFlags::empty()).unwrap();
        let mut tries = 0;
        let write = |_: &mut (), _: &[u8]| {
            tries += 1;
            std::fs::write(&path, "x".repeat(tries as usize + 10)).unwrap();
        };
        let changed = read_unchanged(Live::new(), CWD, path.as_os_str(), &looked, &mut [0; 1024], write);
        assert_eq!(changed.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(tries >= TRIES);
    }
}
