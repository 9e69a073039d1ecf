//! Where dnf and zypper keep the metadata that they fetched.

use std::{
    io,
    path::{Path, PathBuf},
};

use muster_proto::fact::{Cause, PackageManager, Unknown};

use super::super::{
    packing::{Packing, unpack},
    repodata,
};
use crate::host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES};

const DNF_CACHES: &[&str] = &["/var/cache/libdnf5", "/var/cache/dnf"];
const ZYPPER_CACHE: &str = "/var/cache/zypp/raw";

/// Returns the folders of all metadata.
pub(super) fn folders(host: &dyn Host) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for cache in DNF_CACHES.iter().copied().chain([ZYPPER_CACHE]) {
        let names = host.list(Path::new(cache)).unwrap_or_default();
        folders.extend(names.iter().map(|name| Path::new(cache).join(name).join("repodata")));
    }
    folders
}

/// Returns the folder of a repository's metadata, and what its index says: of several, the newest.
pub(super) fn newest(
    host: &dyn Host,
    manager: PackageManager,
    id: &str,
) -> Result<(PathBuf, repodata::Index), Unknown> {
    let roots = if manager == PackageManager::Zypper { &[ZYPPER_CACHE] } else { DNF_CACHES };
    let mut newest: Option<(PathBuf, repodata::Index)> = None;
    for root in roots {
        let names = match host.list(Path::new(root)) {
            Ok(names) => names,
            Err(error) if host::cause(&error) == Cause::Absent => continue,
            Err(error) => return Err(host::unknown(format!("list {root}"), &error)),
        };
        for name in names.iter().filter_map(|name| name.to_str()).filter(|name| is_cache_of(name, manager, id)) {
            let folder = Path::new(root).join(name).join("repodata");
            let path = folder.join("repomd.xml");
            let unknown = |error: &io::Error| host::unknown(format!("read {}", path.display()), error);
            let bytes = match host.read(&path, SMALL_FILE_BYTES) {
                Ok(bytes) => bytes,
                Err(error) if host::cause(&error) == Cause::Absent => continue,
                Err(error) => return Err(unknown(&error)),
            };
            let index = repodata::index(&bytes).map_err(|error| unknown(&error))?;
            if newest.as_ref().is_none_or(|(_, known)| known.made < index.made) {
                newest = Some((folder, index));
            }
        }
    }
    newest.ok_or_else(|| {
        Unknown::new(Cause::Absent, format!("repository {id} is enabled, and no metadata of it were fetched"))
    })
}

/// Returns the list of mirrors that was fetched for the repository with these metadata.
pub(super) fn mirrors(host: &dyn Host, folder: &Path) -> Result<String, Unknown> {
    let path = folder.with_file_name("mirrorlist");
    let bytes =
        host.read(&path, FILE_BYTES).map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns whether a folder is the cache of a repository: dnf puts a digest of its address behind its id.
fn is_cache_of(folder: &str, manager: PackageManager, id: &str) -> bool {
    if manager == PackageManager::Zypper {
        return folder == id;
    }
    let digest = folder.strip_prefix(id).and_then(|rest| rest.strip_prefix('-'));
    digest.is_some_and(|digest| digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Returns the file of a list of this kind.
pub(super) fn list(folder: &Path, index: &repodata::Index, kind: &str) -> Option<PathBuf> {
    index.lists.get(kind).map(|name| folder.join(name))
}

/// Returns whether a list of this kind was fetched in the format of zchunk, and not in the usual one.
pub(super) fn is_zchunk_alone(host: &dyn Host, folder: &Path, index: &repodata::Index, kind: &str) -> bool {
    let is_there = |kind: &str| list(folder, index, kind).is_some_and(|path| host.metadata(&path).is_ok());
    is_there(&format!("{kind}_zck")) && !is_there(kind)
}

/// Writes the unpacked content of a list.
pub(super) fn fill(host: &dyn Host, path: &Path, to: &mut dyn io::Write) -> io::Result<()> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let ending = if extension == "xml" { String::new() } else { format!(".{extension}") };
    unpack(host.stream(path)?, Packing::of_ending(&ending), to).map(drop)
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::PathText;

    use super::{super::automatic, *};

    #[test]
    fn lists_in_the_format_of_zchunk_alone_are_seen() {
        let (_case, mut host) = automatic::tests::machine(&[], &[]);
        let lists = [("primary", "p.xml.gz"), ("primary_zck", "p.xml.zck"), ("updateinfo", "u.xml.gz")];
        let lists = lists.map(|(kind, name)| (kind.to_owned(), name.to_owned())).into();
        let index = repodata::Index { lists, ..repodata::Index::default() };
        let entry = *host.index_mut().metadata.values().next().unwrap();
        let mut is_alone = |there: &[&str]| {
            let paths: Vec<_> = there.iter().map(|name| format!("/c/{name}")).collect();
            host.index_mut().metadata =
                paths.iter().map(|path| (PathText::from_bytes(path.as_bytes()), entry)).collect();
            is_zchunk_alone(&host, Path::new("/c"), &index, "primary")
        };
        assert!(is_alone(&["p.xml.zck"]));
        assert!(!is_alone(&["p.xml.zck", "p.xml.gz"]) && !is_alone(&["p.xml.gz"]) && !is_alone(&[]));
    }

    #[test]
    fn a_cache_belongs_to_the_repository_whose_whole_id_it_begins_with() {
        for (folder, manager, expected) in [
            ("updates-e36d5c2e50dbc8ae", PackageManager::Dnf, true),
            ("updates-testing-e36d5c2e50dbc8ae", PackageManager::Dnf, false),
            ("updates", PackageManager::Dnf, false),
            ("updates", PackageManager::Zypper, true),
        ] {
            assert_eq!(is_cache_of(folder, manager, "updates"), expected, "{folder}");
        }
    }
}
