//! Durable state of a probe: small files that are replaced as a whole, so that a kill at any point leaves the old or the new.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// A folder that stays the same one, whatever its owner puts in its place meanwhile: root may write in it.
pub struct Folder {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    _opened: std::os::fd::OwnedFd,
}

impl Folder {
    /// Opens the folder at `names`, one in the other, in `state`, and makes those that are not there for the owner of `state`.
    ///
    /// # Errors
    ///
    /// When one cannot be made or opened, or is a link.
    #[cfg(target_os = "linux")]
    pub fn open(state: &Path, names: &[&str]) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;

        use rustix::{
            fs::{AtFlags, CWD, Mode, OFlags, chownat, fstat, mkdirat, openat},
            io::Errno,
            process::{Gid, Uid},
        };

        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let mut opened = openat(CWD, state, flags, Mode::empty())?;
        let owner = fstat(&opened)?;
        for name in names {
            match mkdirat(&opened, *name, Mode::RWXU) {
                Ok(()) => {
                    let (user, group) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
                    chownat(&opened, *name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            opened = openat(&opened, *name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        }
        // proc(5): this names the folder that is open, and not what has its name.
        Ok(Self { path: format!("/proc/self/fd/{}", opened.as_raw_fd()).into(), _opened: opened })
    }

    /// Opens the folder at `names`, one in the other, in `state`, and makes those that are not there.
    ///
    /// # Errors
    ///
    /// When one cannot be made.
    #[cfg(not(target_os = "linux"))]
    pub fn open(state: &Path, names: &[&str]) -> io::Result<Self> {
        let path: PathBuf = std::iter::once(state).chain(names.iter().map(Path::new)).collect();
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    /// Returns the path by which files in it are opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens a file for reading. What is none, such as a pipe that somebody put in its place, is not waited for.
///
/// # Errors
///
/// `InvalidData` when it is no regular file, or when it cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = options.read(true).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file")) }
}

/// Returns the value in the file at `path`; `None` when it is not there or not whole.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    open(path).and_then(|mut file| file.read_to_end(&mut bytes)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Replaces the file `name` in `folder` with `value`.
///
/// # Errors
///
/// When it cannot be written; the file is then as before.
pub fn write_json<T: Serialize>(folder: &Path, name: &str, value: &T) -> io::Result<()> {
    replace(folder, name, Owner::OfFolder, |file| Ok(serde_json::to_writer(file, value)?))
}

/// To whom a new file belongs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// To whom the folder belongs, so that root may act for the agent.
    OfFolder,
    /// To whoever makes it.
    Maker,
}

/// Replaces the file `name` in `folder` with what `write` writes, and syncs it before it takes its name. Its owner alone may read it.
///
/// # Errors
///
/// When it cannot be written; the file is then as before.
pub fn replace(
    folder: &Path,
    name: &str,
    owner: Owner,
    write: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.new"));
    let mut file = io::BufWriter::new(create(&temporary)?);
    let written = own(file.get_ref(), folder, owner).and_then(|()| {
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        fs::rename(&temporary, folder.join(name))
    });
    if let Err(error) = written {
        // A disk that is full is to have room again.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder(folder)
}

/// Makes a file afresh. A link that another user left in its place is removed and never followed.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true).create_new(true).open(path)
}

fn own(file: &File, folder: &Path, owner: Owner) -> io::Result<()> {
    match owner {
        #[cfg(unix)]
        Owner::OfFolder => give(file, folder),
        _ => Ok(()),
    }
}

/// Gives `file` to the owner of `folder`.
#[cfg(unix)]
fn give(file: &File, folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};

    let (owner, own) = (fs::metadata(folder)?, file.metadata()?);
    if owner.uid() == own.uid() {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Makes a rename in `folder` durable.
///
/// # Errors
///
/// As fsync(2) says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};

    use super::*;

    #[test]
    fn a_link_in_the_place_of_the_new_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "kept").unwrap();
        symlink(&other, folder.path().join("state.new")).unwrap();
        write_json(folder.path(), "state", &7).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
        assert_eq!(read_json::<u32>(&folder.path().join("state")), Some(7));
    }

    #[test]
    fn what_root_writes_belongs_to_the_owner_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        // Only root may give files away; for another user the folder is its own anyway.
        let given = chown(folder.path(), Some(65534), Some(65534)).is_ok();
        write_json(folder.path(), "state", &7).unwrap();
        let (folder, file) = (fs::metadata(folder.path()).unwrap(), fs::metadata(folder.path().join("state")).unwrap());
        assert_eq!((file.uid(), given && folder.uid() != 65534), (folder.uid(), false));
    }

    #[test]
    fn what_is_no_part_of_an_agent_belongs_to_whoever_makes_it_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let _ = chown(folder.path(), Some(65534), Some(65534));
        replace(folder.path(), "state", Owner::Maker, |file| file.write_all(b"7")).unwrap();
        let file = fs::metadata(folder.path().join("state")).unwrap();
        assert_eq!((file.uid(), file.mode() & 0o777), (rustix::process::geteuid().as_raw(), 0o600));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        write_json(folder.path(), "state", &7).unwrap();
        let full = |file: &mut io::BufWriter<File>| {
            file.write_all(&[0; 100])?;
            Err(io::ErrorKind::StorageFull.into())
        };
        assert!(replace(folder.path(), "state", Owner::Maker, full).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(read_json::<u32>(&folder.path().join("state")), Some(7));
    }

    #[test]
    fn a_folder_that_is_a_link_is_not_opened() {
        let state = tempfile::tempdir().unwrap();
        let folder = Folder::open(state.path(), &["probes", "a"]).unwrap();
        write_json(folder.path(), "state", &7).unwrap();
        assert_eq!(read_json::<u32>(&state.path().join("probes/a/state")), Some(7));
        symlink(state.path().join("probes/a"), state.path().join("probes/b")).unwrap();
        assert!(Folder::open(state.path(), &["probes", "b"]).is_err());
        assert!(Folder::open(state.path(), &["probes", "b", "c"]).is_err());
    }
}
