//! Random changes to a tree, as people, programs and attackers make them. The same seed makes the same ones.

use std::{
    fs::{self, File, FileTimes},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, XattrFlags, mknodat, renameat_with};

use crate::harness::random::Random;

/// A kind of change, of which [`apply`] makes some.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "the name says it")]
pub enum Change {
    Content,
    Append,
    Mode,
    SetUid,
    Owner,
    Attribute,
    AttributeGone,
    AccessList,
    Capability,
    Rename,
    RenameOver,
    Exchange,
    MoveFolder,
    HardLink,
    ReplacedByHardLink,
    /// Other content of the same size, and the modified time as it was.
    TouchedBack,
    TruncatedAndRestored,
    AtomicallyReplaced,
    ModifiedTime,
    Nested,
    Created,
    Retargeted,
    Deleted,
    TreeDeleted,
    FileToFolder,
    FileToLink,
    LinkToFile,
    FileToPipe,
    PipeToSocket,
}

/// Every kind of change.
pub const ALL: [Change; 29] = [
    Change::Content,
    Change::Append,
    Change::Mode,
    Change::SetUid,
    Change::Owner,
    Change::Attribute,
    Change::AttributeGone,
    Change::AccessList,
    Change::Capability,
    Change::Rename,
    Change::RenameOver,
    Change::Exchange,
    Change::MoveFolder,
    Change::HardLink,
    Change::ReplacedByHardLink,
    Change::TouchedBack,
    Change::TruncatedAndRestored,
    Change::AtomicallyReplaced,
    Change::ModifiedTime,
    Change::Nested,
    Change::Created,
    Change::Retargeted,
    Change::Deleted,
    Change::TreeDeleted,
    Change::FileToFolder,
    Change::FileToLink,
    Change::LinkToFile,
    Change::FileToPipe,
    Change::PipeToSocket,
];

impl Change {
    /// Returns whether only root may make it.
    pub fn is_of_root(self) -> bool {
        matches!(self, Self::Owner | Self::Capability)
    }
}

/// Makes between one and `most` of `kinds` in the tree at `root`, and returns what it did, for a person.
///
/// # Errors
///
/// When the system refuses one.
pub fn apply(root: &Path, kinds: &[Change], most: u64, random: &mut Random) -> io::Result<Vec<String>> {
    let mut done = Vec::new();
    for number in 0..=random.below(most) {
        let change = kinds[random.index(kinds.len())];
        let maker = Maker { root, random, number };
        // A tree that has, say, no link left does without.
        if let Some(path) = maker.make(change)? {
            done.push(format!("{change:?} {}", path.display()));
        }
    }
    Ok(done)
}

struct Maker<'a> {
    root: &'a Path,
    random: &'a mut Random,
    number: u64,
}

impl Maker<'_> {
    fn make(mut self, change: Change) -> io::Result<Option<PathBuf>> {
        match change {
            Change::Rename
            | Change::RenameOver
            | Change::Exchange
            | Change::MoveFolder
            | Change::HardLink
            | Change::ReplacedByHardLink => self.names(change),
            Change::Nested | Change::Created => self.creations(change),
            Change::Retargeted | Change::LinkToFile => self.links(change),
            Change::TreeDeleted => self.tree_deleted(),
            Change::PipeToSocket => self.pipe_to_socket(),
            Change::Mode
            | Change::SetUid
            | Change::Owner
            | Change::Attribute
            | Change::AttributeGone
            | Change::AccessList
            | Change::Capability => self.states(change),
            Change::Content
            | Change::Append
            | Change::TouchedBack
            | Change::TruncatedAndRestored
            | Change::AtomicallyReplaced
            | Change::ModifiedTime
            | Change::Deleted
            | Change::FileToFolder
            | Change::FileToLink
            | Change::FileToPipe => self.contents(change),
        }
    }

    fn pipe_to_socket(&self) -> io::Result<Option<PathBuf>> {
        let path = self.root.join("pipe");
        if !path.symlink_metadata().is_ok_and(|found| found.file_type().is_fifo()) {
            return Ok(None);
        }
        let mode = Mode::from(path.symlink_metadata()?.mode());
        fs::remove_file(&path)?;
        mknodat(CWD, &path, FileType::Socket, mode, 0)?;
        Ok(Some(path))
    }

    fn contents(&mut self, change: Change) -> io::Result<Option<PathBuf>> {
        let Some(path) = self.file()? else { return Ok(None) };
        let metadata = path.symlink_metadata()?;
        let size = usize::try_from(metadata.len()).expect("a small file");
        match change {
            Change::Content => fs::write(&path, self.random.bytes(size + 1))?,
            Change::Append => File::options().append(true).open(&path)?.write_all(b"more")?,
            Change::TouchedBack => {
                fs::write(&path, self.random.bytes(size.max(1)))?;
                File::options()
                    .write(true)
                    .open(&path)?
                    .set_times(FileTimes::new().set_modified(metadata.modified()?))?;
            }
            Change::TruncatedAndRestored => {
                let content = fs::read(&path)?;
                fs::write(&path, "")?;
                fs::write(&path, content)?;
            }
            Change::AtomicallyReplaced => {
                let new = self.fresh("replacement");
                fs::write(&new, self.random.bytes(size))?;
                fs::rename(new, &path)?;
            }
            Change::ModifiedTime => {
                let earlier = metadata.modified()? - std::time::Duration::from_secs(86_400 + self.random.below(1000));
                File::options().write(true).open(&path)?.set_times(FileTimes::new().set_modified(earlier))?;
            }
            _ => fs::remove_file(&path)?,
        }
        match change {
            Change::FileToFolder => fs::create_dir(&path)?,
            Change::FileToLink => symlink("elsewhere", &path)?,
            Change::FileToPipe => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0)?,
            _ => {}
        }
        Ok(Some(path))
    }

    fn states(&mut self, change: Change) -> io::Result<Option<PathBuf>> {
        let path = if change == Change::Mode || change == Change::Owner { self.any()? } else { self.file()? };
        let Some(path) = path else { return Ok(None) };
        let mode = path.symlink_metadata()?.mode();
        match change {
            Change::Mode if path.is_symlink() => return Ok(None),
            Change::Mode => fs::set_permissions(&path, fs::Permissions::from_mode((mode ^ 0o011) & 0o7777))?,
            Change::SetUid => fs::set_permissions(&path, fs::Permissions::from_mode((mode ^ 0o4000) & 0o7777))?,
            Change::Owner => {
                let (user, group) = (self.random.below(3) as u32, self.random.below(3) as u32);
                lchown(&path, Some(1000 + user), Some(1000 + group))?;
            }
            Change::Attribute => set(&path, "user.muster-test", &self.random.bytes(20))?,
            Change::AttributeGone => match rustix::fs::removexattr(&path, "user.muster-test") {
                Err(rustix::io::Errno::NODATA) => return Ok(None),
                removed => removed?,
            },
            Change::AccessList => set(&path, "system.posix_acl_access", &access_list(self.random.below(3) as u32))?,
            // cap_net_raw, permitted and effective: `struct vfs_cap_data` of revision 2, capability(7).
            _ => set(&path, "security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])?,
        }
        Ok(Some(path))
    }

    fn names(&mut self, change: Change) -> io::Result<Option<PathBuf>> {
        let (Some(one), Some(other)) = (self.file()?, self.file()?) else { return Ok(None) };
        let folder = self.folder()?;
        match change {
            Change::Rename => fs::rename(&one, folder.join(format!("renamed{}", self.random.number())))?,
            Change::HardLink => fs::hard_link(&one, folder.join(format!("hard{}", self.random.number())))?,
            Change::MoveFolder => {
                let target = self.folder()?;
                // Not the root, and not into itself.
                if folder == self.root || target.starts_with(&folder) {
                    return Ok(None);
                }
                fs::rename(&folder, target.join(format!("moved{}", self.random.number())))?;
                return Ok(Some(folder));
            }
            _ if one == other => return Ok(None),
            Change::RenameOver => fs::rename(&one, &other)?,
            Change::Exchange => renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE)?,
            _ => {
                fs::remove_file(&other)?;
                fs::hard_link(&one, &other)?;
            }
        }
        Ok(Some(one))
    }

    fn creations(&mut self, change: Change) -> io::Result<Option<PathBuf>> {
        let mut path = self.folder()?.join(format!("new{}-{}", self.number, self.random.number()));
        if change == Change::Nested {
            for depth in 0..=self.random.below(5) {
                fs::create_dir(&path)?;
                fs::write(path.join("inside"), self.random.bytes(10))?;
                path = path.join(format!("deeper{depth}"));
            }
        }
        fs::write(&path, self.random.bytes(100))?;
        Ok(Some(path))
    }

    fn links(&mut self, change: Change) -> io::Result<Option<PathBuf>> {
        let links: Vec<_> = self.entries()?.into_iter().filter(|path| path.is_symlink()).collect();
        if links.is_empty() {
            return Ok(None);
        }
        let path = &links[self.random.index(links.len())];
        fs::remove_file(path)?;
        match change {
            Change::Retargeted => symlink(format!("target{}", self.random.number()), path)?,
            _ => fs::write(path, "was a link")?,
        }
        Ok(Some(path.clone()))
    }

    fn tree_deleted(&mut self) -> io::Result<Option<PathBuf>> {
        let folder = self.folder()?;
        // A tree that loses its largest parts each time would soon be none.
        let is_small = fs::read_dir(&folder)?.count() <= 8;
        if folder == self.root || !is_small {
            return Ok(None);
        }
        fs::remove_dir_all(&folder)?;
        Ok(Some(folder))
    }

    fn fresh(&mut self, name: &str) -> PathBuf {
        self.root.join(format!("{name}{}", self.random.number()))
    }

    fn file(&mut self) -> io::Result<Option<PathBuf>> {
        let is_file = |path: &PathBuf| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        let files: Vec<_> = self.entries()?.into_iter().filter(is_file).collect();
        Ok((!files.is_empty()).then(|| files[self.random.index(files.len())].clone()))
    }

    fn folder(&mut self) -> io::Result<PathBuf> {
        let is_folder = |path: &PathBuf| path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let mut folders: Vec<_> = self.entries()?.into_iter().filter(is_folder).collect();
        folders.push(self.root.to_owned());
        Ok(folders[self.random.index(folders.len())].clone())
    }

    fn any(&mut self) -> io::Result<Option<PathBuf>> {
        let is_usual = |path: &PathBuf| path.symlink_metadata().is_ok_and(|metadata| !metadata.file_type().is_fifo());
        let entries: Vec<_> = self.entries()?.into_iter().filter(is_usual).collect();
        Ok((!entries.is_empty()).then(|| entries[self.random.index(entries.len())].clone()))
    }

    /// Returns everything below the root, in one order.
    fn entries(&self) -> io::Result<Vec<PathBuf>> {
        let (mut all, mut folders) = (Vec::new(), vec![self.root.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.symlink_metadata()?.is_dir() {
                    folders.push(path.clone());
                }
                all.push(path);
            }
        }
        all.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        Ok(all)
    }
}

fn set(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::setxattr(path, name, value, XattrFlags::empty())?)
}

/// Returns an access list that lets another user read, as acl(5) lists it and the kernel stores it: a version, then tag, rights and
/// id of each entry.
fn access_list(user: u32) -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(0x01, 6, u32::MAX), (0x02, 4, 1000 + user), (0x04, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integrity::tree;

    #[test]
    fn every_kind_of_change_can_be_made_and_the_same_seed_makes_the_same() {
        let is_root = rustix::process::geteuid().is_root();
        for change in ALL.into_iter().filter(|change| is_root || !change.is_of_root()) {
            let made = |seed| {
                let (root, mut random) = (tempfile::tempdir().unwrap(), Random::of(seed));
                tree::grow(root.path(), &mut random).unwrap();
                let mut done = Vec::new();
                // Some need what an earlier one makes.
                let kinds =
                    if change == Change::AttributeGone { vec![Change::Attribute, change] } else { vec![change] };
                for _ in 0..40 {
                    done.extend(apply(root.path(), &kinds, 3, &mut random).unwrap());
                }
                let own = root.path().display().to_string();
                done.into_iter().map(|line| line.replace(&own, "")).collect::<Vec<_>>()
            };
            let done = made(7);
            assert!(done.iter().any(|line| line.starts_with(&format!("{change:?} "))), "{change:?}: {done:?}");
            assert_eq!(done, made(7), "{change:?}");
        }
    }
}
