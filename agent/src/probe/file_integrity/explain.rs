//! Which differences the package database explains: what is there is exactly what a package installed.
//!
//! dpkg keeps an MD5 of every file it installs, and of every configuration file as it was shipped. Of a folder or a link it
//! keeps the path alone, and so they are explained only when a package that lists them was unpacked since they were last
//! unchanged, and a link only when it leads to something that a package installed. It is no proof against who can write
//! there, only the difference between an upgrade and everything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
};

use muster_proto::fact::{ChangeKind, FileChange, FileState, FileType};
use sha2::{Digest as _, Sha256};

use super::plain;
use crate::{
    host::{self, Host},
    probe::deb822::Stanzas,
};

const INFO: &str = "/var/lib/dpkg/info";
const STATUS: &str = "/var/lib/dpkg/status";
const LINE_BYTES: u64 = 8192;
/// Folders that are links into `/usr` on a merged system; packages may name either.
const MERGED: &[&str] = &["bin/", "lib/", "lib32/", "lib64/", "libx32/", "sbin/"];
/// Set-user-id and set-group-id, which no MD5 covers.
const RAISES_RIGHTS: u32 = 0o6000;
/// Write permission of others than the owner.
const OPEN_TO_OTHERS: u32 = 0o022;

/// Returns the paths of `changes` that are explained.
pub(super) fn explained(host: &dyn Host, changes: &BTreeMap<Vec<u8>, FileChange>) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut explained = BTreeSet::new();
    if changes.is_empty() {
        return Ok(explained);
    }
    let mut check = |path: &[u8], md5: &[u8]| {
        if let Some(change) = changes.get(path)
            && !explained.contains(path)
            && keeps_rights(change)
            && is_as_installed(host, path, change, md5)
        {
            explained.insert(path.to_vec());
        }
    };
    // A host without dpkg explains nothing.
    let names = host.list(Path::new(INFO)).unwrap_or_default();
    for name in names.iter().filter(|name| name.as_encoded_bytes().ends_with(b".md5sums")) {
        let Ok(file) = host.stream(&Path::new(INFO).join(name)) else { continue };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        while reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)? > 0 {
            if let Some((md5, path)) = parse_line(line.trim_ascii_end()) {
                check(&[b"/".as_slice(), path].concat(), md5);
                if MERGED.iter().any(|folder| path.starts_with(folder.as_bytes())) {
                    check(&[b"/usr/".as_slice(), path].concat(), md5);
                }
            }
            line.clear();
        }
    }
    if let Ok(mut status) = host.stream(Path::new(STATUS)) {
        let mut stanzas = Stanzas::new(&["Conffiles"], |fields| {
            for line in fields.values().flat_map(|value| value.lines()) {
                let mut parts = line.split(' ');
                if let (Some(path), Some(md5)) = (parts.next(), parts.next()) {
                    check(path.as_bytes(), md5.as_bytes());
                }
            }
        });
        io::copy(&mut status, &mut stanzas)?;
        stanzas.finish();
    }
    explained.append(&mut by_lists(host, &names, changes)?);
    Ok(explained)
}

/// Returns the folders and links of `changes` that are explained.
fn by_lists(
    host: &dyn Host,
    names: &[std::ffi::OsString],
    changes: &BTreeMap<Vec<u8>, FileChange>,
) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut explained = BTreeSet::new();
    // Links by what they lead to.
    let mut links: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    if !changes.values().any(|change| is_new_folder(change) || is_link(change)) {
        return Ok(explained);
    }
    each_listed(host, names, &mut |list, path| {
        let Some(change) = changes.get(path) else { return };
        if !is_new_folder(change) && !is_link(change) || !is_unpacked_since(host, list, change) {
            return;
        }
        if is_new_folder(change) {
            explained.insert(path.to_vec());
        } else if let Some(target) = target(host, path, change) {
            links.entry(target).or_default().push(path.to_vec());
        }
    })?;
    if !links.is_empty() {
        each_listed(host, names, &mut |_, path| explained.extend(links.remove(path).into_iter().flatten()))?;
    }
    Ok(explained)
}

/// Calls `visit` for each path of each list of a package's files, and for a path that is merged into `/usr` under both names.
fn each_listed(host: &dyn Host, names: &[std::ffi::OsString], visit: &mut dyn FnMut(&Path, &[u8])) -> io::Result<()> {
    for name in names.iter().filter(|name| name.as_encoded_bytes().ends_with(b".list")) {
        let list = Path::new(INFO).join(name);
        let Ok(file) = host.stream(&list) else { continue };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        while reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)? > 0 {
            let path = line.trim_ascii_end();
            visit(&list, path);
            if MERGED.iter().any(|folder| path.strip_prefix(b"/").is_some_and(|p| p.starts_with(folder.as_bytes()))) {
                visit(&list, &[b"/usr".as_slice(), path].concat());
            }
            line.clear();
        }
    }
    Ok(())
}

fn is_new_folder(change: &FileChange) -> bool {
    let is_safe = |state: &FileState| {
        let is_open = state.mode & (RAISES_RIGHTS | OPEN_TO_OTHERS) != 0;
        state.r#type == FileType::Folder && !is_open && state.uid == 0 && state.gid == 0
    };
    change.kind == ChangeKind::Created && change.after.as_ref().is_some_and(is_safe)
}

fn is_link(change: &FileChange) -> bool {
    matches!(change.kind, ChangeKind::Created | ChangeKind::Content)
        && change.after.as_ref().is_some_and(|state| state.r#type == FileType::Link && state.uid == 0)
}

/// dpkg writes a package's list when it unpacks the package.
fn is_unpacked_since(host: &dyn Host, list: &Path, change: &FileChange) -> bool {
    host.metadata(list).is_ok_and(|metadata| metadata.modified.is_some_and(|time| time > change.last_unchanged_time))
}

/// Returns what the link at `path` leads to, if it is the link that the scan saw.
fn target(host: &dyn Host, path: &[u8], change: &FileChange) -> Option<Vec<u8>> {
    let path = host::path_of(path);
    let target = host.read_link(&path).ok()?;
    let sha256 = hex::encode(Sha256::digest(host::path_bytes(&target)));
    let is_seen = change.after.as_ref().is_some_and(|after| after.sha256.as_str() == sha256);
    let resolved = plain(&path.parent()?.join(target));
    is_seen.then(|| host::path_bytes(&resolved))
}

/// A line of an md5sums file: digest, two spaces, path without its first slash.
fn parse_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (md5, path) = line.split_at_checked(32)?;
    Some((md5, path.strip_prefix(b"  ")?))
}

/// A package's new content does not explain other rights, nor a new file that raises them.
fn keeps_rights(change: &FileChange) -> bool {
    match (change.kind, &change.before, &change.after) {
        (ChangeKind::Created, _, Some(after)) => after.mode & RAISES_RIGHTS == 0 && after.uid == 0 && after.gid == 0,
        (ChangeKind::Content | ChangeKind::Metadata, Some(before), Some(after)) => {
            (before.mode, before.uid, before.gid) == (after.mode, after.uid, after.gid)
        }
        _ => false,
    }
}

/// The file is read once for both digests, so that what has the package's MD5 is what the scan saw.
fn is_as_installed(host: &dyn Host, path: &[u8], change: &FileChange, md5: &[u8]) -> bool {
    let Ok(digests) = host.digests(&host::path_of(path)) else { return false };
    let is_seen = change.after.as_ref().is_some_and(|after| after.sha256.as_str() == hex::encode(digests.sha256));
    is_seen && hex::encode(digests.md5).as_bytes() == md5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_digest_two_spaces_and_a_path() {
        let md5 = b"900150983cd24fb0d6963f7d28e17f72";
        let line = [md5.as_slice(), b"  usr/bin/a b"].concat();
        assert_eq!(parse_line(&line), Some((md5.as_slice(), b"usr/bin/a b".as_slice())));
        assert_eq!(parse_line(b"9001"), None);
    }
}
