//! Trees to look at.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
    process::Command,
};

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};

use crate::harness::random::Random;

/// Copies `source` into `target`, which must not be there, in order of names until that are `files` files and `bytes` bytes, or all.
/// What is neither a file, a folder nor a link is left out, and so are single files of more than 64 MiB.
///
/// # Errors
///
/// When something cannot be copied.
pub fn copy(source: &Path, target: &Path, files: u64, bytes: u64) -> io::Result<()> {
    let mut copy = Copy { files, bytes };
    copy.folder(source, target)
}

const LARGE_BYTES: u64 = 64 << 20;

struct Copy {
    files: u64,
    bytes: u64,
}

impl Copy {
    fn folder(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        fs::create_dir(target)?;
        let mut entries: Vec<_> = fs::read_dir(source)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if self.files == 0 && self.bytes == 0 {
                break;
            }
            let (kind, target) = (entry.file_type()?, target.join(entry.file_name()));
            if kind.is_dir() {
                self.folder(&entry.path(), &target)?;
            } else if kind.is_symlink() {
                symlink(fs::read_link(entry.path())?, &target)?;
            } else if kind.is_file() && entry.metadata()?.len() <= LARGE_BYTES {
                let copied = fs::copy(entry.path(), &target)?;
                self.files = self.files.saturating_sub(1);
                self.bytes = self.bytes.saturating_sub(copied);
            }
        }
        Ok(())
    }
}

/// Makes a tree of `entries` entries in `root`, which must be there and empty: folders of a hundred files in folders of a hundred
/// folders, and every sixteenth file with some content.
///
/// # Errors
///
/// When it cannot be made.
pub fn generate(root: &Path, entries: u64) -> io::Result<()> {
    let mut left = entries.saturating_sub(1);
    let mut take = || {
        let is_left = left > 0;
        left = left.saturating_sub(1);
        is_left
    };
    for number in 0_u64.. {
        let outer = root.join(format!("library-{:04}", number / 100));
        if number % 100 == 0 {
            if !take() {
                return Ok(());
            }
            fs::create_dir(&outer)?;
        }
        if !take() {
            return Ok(());
        }
        let inner = outer.join(format!("package-{number:06}"));
        fs::create_dir(&inner)?;
        for file in 0..100 {
            if !take() {
                return Ok(());
            }
            let content = if file % 16 == 0 { format!("{number} {file}") } else { String::new() };
            fs::write(inner.join(format!("module-{file:03}.so")), content)?;
        }
    }
    Ok(())
}

/// Makes a tree of about a hundred entries of every kind in `root`, which must be there and empty. Kinds that only root may make are
/// not among them.
///
/// # Errors
///
/// When it cannot be made.
pub fn grow(root: &Path, random: &mut Random) -> io::Result<()> {
    let mut folders = vec![root.to_owned()];
    for number in 0..14 {
        let folder = folders[random.index(folders.len())].join(format!("folder{number}"));
        fs::create_dir(&folder)?;
        folders.push(folder);
    }
    for number in 0..70 {
        let folder = &folders[random.index(folders.len())];
        let size = match random.below(6) {
            0 => 0,
            1 => 200_000,
            _ => random.index(3000),
        };
        fs::write(folder.join(format!("file{number}")), random.bytes(size))?;
    }
    for number in 0..10 {
        let folder = &folders[random.index(folders.len())];
        symlink(format!("file{number}"), folder.join(format!("link{number}")))?;
    }
    let odd: [&[u8]; 4] = [b"caf\xe9", "naïve \u{1f980}".as_bytes(), b"with space ", &[b'n'; 255]];
    for name in odd {
        fs::write(root.join(OsStr::from_bytes(name)), name)?;
    }
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0)?;
    Ok(())
}

/// Makes `depth` folders inside each other in `root`, and a file in the innermost. Their paths are longer than a system call takes.
///
/// # Errors
///
/// When they cannot be made.
pub fn dig(root: &Path, depth: u64) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder = openat(CWD, root, flags, Mode::empty())?;
    for _ in 0..depth {
        mkdirat(&folder, "d", Mode::RWXU)?;
        folder = openat(&folder, "d", flags, Mode::empty())?;
    }
    openat(&folder, "bottom", OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR)?;
    Ok(())
}

/// Removes a tree, however deep.
///
/// # Errors
///
/// When something of it stays.
pub fn remove(root: &Path) -> io::Result<()> {
    // The standard library holds a descriptor for each folder on the way down.
    let status = Command::new("rm").arg("-rf").arg("--").arg(root).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("rm does not succeed")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integrity::bare;

    #[test]
    fn a_generated_tree_has_exactly_as_many_entries_as_asked_for() {
        for entries in [1, 2, 3, 150, 10_304, 20_000] {
            let root = tempfile::tempdir().unwrap();
            generate(root.path(), entries).unwrap();
            assert_eq!(bare::walk(root.path(), false).unwrap().entries, entries);
        }
    }

    #[test]
    fn a_copy_ends_when_it_is_large_enough() {
        let root = tempfile::tempdir().unwrap();
        let (source, target) = (root.path().join("source"), root.path().join("target"));
        fs::create_dir(&source).unwrap();
        generate(&source, 1000).unwrap();
        copy(&source, &target, 300, 0).unwrap();
        assert_eq!(bare::walk(&target, true).unwrap().files, 300);
        remove(&target).unwrap();
        copy(&source, &target, u64::MAX, 0).unwrap();
        assert_eq!(bare::walk(&target, true).unwrap(), bare::walk(&source, true).unwrap());
    }

    #[test]
    fn a_deep_tree_is_dug_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("deep");
        fs::create_dir(&deep).unwrap();
        dig(&deep, 3000).unwrap();
        assert_eq!(bare::walk(&deep, true).unwrap().entries, 3002);
        remove(&deep).unwrap();
        assert!(!deep.exists());
    }
}
