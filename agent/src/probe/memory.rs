//! Durable state of a probe: small files that are replaced as a whole, so that a kill at any point leaves the old or the new.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

/// Returns the value in the file at `path`; `None` when it is not there or not whole.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Replaces the file `name` in `folder` with `value`.
///
/// # Errors
///
/// When it cannot be written; the file is then as before.
pub fn write_json<T: Serialize>(folder: &Path, name: &str, value: &T) -> io::Result<()> {
    replace(folder, name, |file| Ok(serde_json::to_writer(file, value)?))
}

/// Replaces the file `name` in `folder` with what `write` writes, and syncs it before it takes its name.
///
/// # Errors
///
/// When it cannot be written; the file is then as before.
pub fn replace(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut io::BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.new"));
    let mut file = io::BufWriter::new(File::create(&temporary)?);
    write(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    fs::rename(&temporary, folder.join(name))?;
    sync_folder(folder)
}

/// Makes a rename in `folder` durable.
///
/// # Errors
///
/// As fsync(2) says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
