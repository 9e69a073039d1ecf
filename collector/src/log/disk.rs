//! What the log's one writer does to the disk, behind a trait so that tests can fail each step.
//!
//! New files are made with `O_EXCL`: nothing that exists is ever written to. One sync step makes all files and folders of a
//! batch durable; only then the checkpoint is replaced (temp file, fsync, rename, fsync of the folder).

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// The writer's steps. Paths are below the log's folder.
pub(crate) trait Disk: Send {
    /// Makes a file that does not exist yet.
    fn create(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything created since the last call durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Replaces a file in one durable step.
    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Returns what a file holds.
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>>;
    /// Removes a file, or a folder of files.
    fn remove(&mut self, path: &Path) -> io::Result<()>;
}

/// A local folder.
pub(crate) struct Folder {
    root: PathBuf,
    /// An open handle for `syncfs`, where it is known to be sound.
    whole: Option<File>,
    files: Vec<File>,
    folders: BTreeSet<PathBuf>,
}

impl Folder {
    /// Returns the folder, which must exist.
    ///
    /// `syncfs(2)` tells errors of writing back only since Linux 5.8, and network file systems differ, so it is used on
    /// ext4, XFS, Btrfs, F2FS and tmpfs of such a kernel; elsewhere each file and folder is synced by itself.
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let handle = File::open(root)?;
        let whole = (tells_errors() && is_known(&handle)?).then_some(handle);
        Ok(Self { root: root.to_owned(), whole, files: Vec::new(), folders: BTreeSet::new() })
    }

    /// Returns the folder with each file synced by itself.
    #[cfg(test)]
    pub(crate) fn without_syncfs(root: &Path) -> io::Result<Self> {
        Ok(Self { whole: None, ..Self::new(root)? })
    }

    /// Makes the folders of `path` and remembers which must be synced.
    fn make_folders(&mut self, path: &Path) -> io::Result<()> {
        let mut made = Vec::new();
        let mut folder = path.parent();
        while let Some(at) = folder.filter(|at| !self.root.join(at).is_dir()) {
            made.push(at);
            folder = at.parent();
        }
        for at in made.into_iter().rev() {
            match fs::create_dir(self.root.join(at)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
            self.folders.insert(at.parent().map(Path::to_owned).unwrap_or_default());
        }
        Ok(())
    }
}

impl Disk for Folder {
    fn create(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let full = self.root.join(path);
        let open = || OpenOptions::new().write(true).create_new(true).mode(0o644).open(&full);
        let mut file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_folders(path)?;
                open()?
            }
            other => other?,
        };
        file.write_all(bytes)?;
        if self.whole.is_none() {
            self.files.push(file);
            self.folders.insert(path.parent().map(Path::to_owned).unwrap_or_default());
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let (files, folders) = (std::mem::take(&mut self.files), std::mem::take(&mut self.folders));
        if let Some(whole) = &self.whole {
            return rustix::fs::syncfs(whole).map_err(io::Error::from);
        }
        for file in files {
            file.sync_all()?;
        }
        for folder in folders {
            File::open(self.root.join(folder))?.sync_all()?;
        }
        Ok(())
    }

    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let full = self.root.join(path);
        let mut temp = full.clone().into_os_string();
        temp.push(".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temp, &full)?;
        File::open(full.parent().unwrap_or(&self.root))?.sync_all()
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(self.root.join(path))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let full = self.root.join(path);
        let removed = if full.is_dir() { fs::remove_dir_all(full) } else { fs::remove_file(full) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn tells_errors() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(8))
}

fn is_known(handle: &File) -> io::Result<bool> {
    /// Numbers of `statfs(2)`: ext4, XFS, Btrfs, F2FS, tmpfs.
    const SOUND: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];
    let kind = rustix::fs::fstatfs(handle)?.f_type;
    Ok(u64::try_from(kind).is_ok_and(|kind| SOUND.contains(&kind)))
}
