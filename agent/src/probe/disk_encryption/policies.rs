//! fscrypt policies of folders (Documentation/filesystems/fscrypt.rst).

use std::{
    io,
    path::{Path, PathBuf},
};

use muster_proto::fact::{Cause, PathText, Reading, Unknown};

use super::{below::Below, chain::Chain, mounts::Mount, own};
use crate::host::{self, path_bytes, path_of};

/// Folders of one volume that are asked for an fscrypt policy, at most.
const FOLDERS_ASKED: usize = 1000;
/// Encrypted folders of one volume that are named, at most.
const FOLDERS_NAMED: usize = 32;

/// ENODATA: the folder has no fscrypt policy, and could have one.
pub(super) const NO_POLICY: i32 = 61;
/// ENOTTY and EOPNOTSUPP: a file system of this kind, or this one, has none.
pub(super) const NEVER_POLICIES: [i32; 2] = [25, 95];

/// Folders of a volume that fscrypt encrypts.
#[derive(Debug, Default)]
pub(super) struct EncryptedFolders {
    /// Sorted, at most [`FOLDERS_NAMED`].
    pub named: Vec<PathText>,
    /// Whether the volume has nothing beside them.
    pub are_all_there_is: bool,
    /// Why that is not known.
    pub unread: Option<Unknown>,
}

/// What is in a folder.
#[derive(Debug, Default)]
struct Entries {
    /// Folders with an fscrypt policy.
    encrypted: Vec<PathBuf>,
    /// Folders without one.
    plain: Vec<PathBuf>,
    /// Those that could not be asked, and why.
    unread: Vec<(PathBuf, Unknown)>,
    /// Whether there is anything else.
    has_others: bool,
}

impl Below<'_> {
    /// Returns what follows when `folder` and all that is in it lies on `chain`.
    pub fn with_policy(&self, folder: &Path, chain: Chain) -> Chain {
        if chain.encrypted == Reading::Known(true) {
            return chain;
        }
        match self.host.encryption_policy(folder) {
            Ok(policy) => chain.below(own::fscrypt(policy)),
            Err(error)
                if error
                    .raw_os_error()
                    .is_some_and(|number| number == NO_POLICY || NEVER_POLICIES.contains(&number)) =>
            {
                chain
            }
            Err(error) if chain.encrypted == Reading::Known(false) || host::cause(&error) != Cause::Absent => {
                let unknown = host::unknown(format!("read the fscrypt policy of {}", folder.display()), &error);
                Chain { encrypted: Reading::Unknown { unknown }, ..chain }
            }
            Err(_) => chain,
        }
    }

    /// Returns the folders with an fscrypt policy, at most two below the mount point; none where the file system has no policies.
    pub fn encrypted_folders(&self, mount: &Mount) -> EncryptedFolders {
        let root = path_of(&mount.mount_point);
        let unread = |what: &str, error: &io::Error| EncryptedFolders {
            unread: (host::cause(error) != Cause::Absent)
                .then(|| host::unknown(format!("{what} {}", root.display()), error)),
            ..EncryptedFolders::default()
        };
        match self.host.encryption_policy(&root) {
            Err(error) if error.raw_os_error() == Some(NO_POLICY) => {}
            Err(error) if error.raw_os_error().is_some_and(|number| NEVER_POLICIES.contains(&number)) => {
                return EncryptedFolders::default();
            }
            Err(error) => return unread("read the fscrypt policy of", &error),
            Ok(_) => return EncryptedFolders::default(),
        }
        let mut left = FOLDERS_ASKED;
        let top = match self.entries(&root, &mut left) {
            Ok(top) => top,
            Err(error) => return unread("list", &error),
        };
        let is_own = |folder: &PathBuf| folder.ends_with("lost+found") || folder.ends_with(".fscrypt");
        // One thing that is plain is enough, whatever else could not be read.
        let has_nothing_plain = !top.has_others && top.plain.iter().all(is_own);
        let unread = top.unread.into_iter().find(|(folder, _)| has_nothing_plain && !is_own(folder));
        let are_all_there_is = has_nothing_plain && unread.is_none() && !top.encrypted.is_empty();
        let mut named = top.encrypted;
        for folder in top.plain {
            // A folder that cannot be listed names none.
            named.extend(self.entries(&folder, &mut left).map(|entries| entries.encrypted).unwrap_or_default());
        }
        named.sort();
        let named = named.iter().take(FOLDERS_NAMED).map(|path| PathText::from_bytes(&path_bytes(path))).collect();
        EncryptedFolders { named, are_all_there_is, unread: unread.map(|(_, unknown)| unknown) }
    }

    /// Returns what is in `folder`, but not what is mounted there. No more is asked for a policy than is `left`.
    fn entries(&self, folder: &Path, left: &mut usize) -> io::Result<Entries> {
        let mut entries = Entries::default();
        for path in self.host.list(folder)?.into_iter().map(|name| folder.join(name)) {
            if self.mounts.iter().any(|mount| mount.mount_point == path_bytes(&path)) {
                continue;
            }
            let Some(less) = left.checked_sub(1) else {
                entries.has_others = true;
                break;
            };
            *left = less;
            match self.host.encryption_policy(&path) {
                Ok(_) => entries.encrypted.push(path),
                Err(error) if error.raw_os_error() == Some(NO_POLICY) => entries.plain.push(path),
                // A file or a link: ENOTDIR and ELOOP.
                Err(error)
                    if matches!(error.raw_os_error(), Some(20 | 40))
                        || error.raw_os_error().is_some_and(|number| NEVER_POLICIES.contains(&number)) =>
                {
                    entries.has_others = true;
                }
                // It went in between, or was not asked for when this was captured.
                Err(error) if host::cause(&error) == Cause::Absent => entries.has_others = true,
                Err(error) => {
                    let unknown = host::unknown(format!("read the fscrypt policy of {}", path.display()), &error);
                    entries.unread.push((path, unknown));
                }
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::CryptFormat;

    use super::{
        super::made::{cause, failure, path, volumes_of},
        *,
    };
    use crate::host::Policy;

    #[test]
    fn a_volume_with_fscrypt_is_encrypted_as_a_whole_only_where_its_root_has_a_policy() {
        let policy = Policy { version: 2, contents_mode: 1 };
        let mounts = "1 0 8:0 / / rw - ext4 /dev/sda rw\n2 1 8:0 /home/a /srv rw - ext4 /dev/sda rw\n";
        let volumes = volumes_of(mounts, |index| {
            index.errors.insert("policy /".to_owned(), failure(NO_POLICY));
            index.errors.insert("policy /home".to_owned(), failure(NO_POLICY));
            index.errors.insert("policy /link".to_owned(), failure(20));
            index.lists.insert(path("/"), ["home", "link", "srv"].map(path).to_vec());
            index.lists.insert(path("/home"), vec![path("a")]);
            index.encryption_policies.insert(path("/home/a"), policy);
            index.encryption_policies.insert(path("/srv"), policy);
        });
        assert_eq!(volumes[0].encrypted, Reading::Known(false));
        assert_eq!(volumes[0].encrypted_folders, [path("/home/a")]);
        assert_eq!(volumes[1].encrypted, Reading::Known(true));
        assert_eq!(volumes[1].layers[0].crypt.as_ref().unwrap().format, CryptFormat::Fscrypt);
        assert_eq!(volumes[1].layers[1].device.as_str(), "sda");
    }

    #[test]
    fn a_folder_that_cannot_be_asked_matters_only_where_nothing_is_plain() {
        const FORBIDDEN: i32 = 13;
        let encrypted = |others: &[(&str, i32)]| {
            let volumes = volumes_of("1 0 8:0 / / rw - ext4 /dev/sda rw\n", |index| {
                index.errors.insert("policy /".to_owned(), failure(NO_POLICY));
                index.lists.insert(path("/"), others.iter().map(|(name, _)| path(name)).collect());
                for (name, errno) in others {
                    index.errors.insert(format!("policy /{name}"), failure(*errno));
                    index.lists.insert(path(&format!("/{name}")), Vec::new());
                }
            });
            volumes[0].encrypted.clone()
        };
        assert_eq!(cause(&encrypted(&[("root", FORBIDDEN)])), Some(Cause::Forbidden));
        assert_eq!(encrypted(&[("root", FORBIDDEN), ("etc", NO_POLICY)]), Reading::Known(false));
        assert_eq!(encrypted(&[("lost+found", FORBIDDEN)]), Reading::Known(false));
    }

    #[test]
    fn a_volume_of_nothing_but_encrypted_folders_is_undecidable() {
        let volume = |others: &[&str]| {
            let volumes = volumes_of("1 0 8:0 / /data rw - ext4 /dev/sda rw\n", |index| {
                index.errors.insert("policy /data".to_owned(), failure(NO_POLICY));
                index.errors.insert("policy /data/lost+found".to_owned(), failure(NO_POLICY));
                index.lists.insert(path("/data/lost+found"), Vec::new());
                let names = ["a", "lost+found"].iter().chain(others).map(|name| path(name)).collect();
                index.lists.insert(path("/data"), names);
                index.encryption_policies.insert(path("/data/a"), Policy { version: 2, contents_mode: 1 });
                index.errors.insert("policy /data/file".to_owned(), failure(20));
            });
            volumes.into_iter().next().unwrap()
        };
        assert_eq!(cause(&volume(&[]).encrypted), Some(Cause::Undecidable));
        assert_eq!(volume(&["file"]).encrypted, Reading::Known(false));
        assert_eq!(volume(&["file"]).encrypted_folders, [path("/data/a")]);
    }

    #[test]
    fn a_policy_that_may_not_be_read_leaves_a_mounted_folder_unknown_and_not_plain() {
        let volumes = volumes_of("1 0 8:0 /home/a /srv rw - ext4 /dev/sda rw\n", |index| {
            index.errors.insert("policy /srv".to_owned(), failure(13));
        });
        assert_eq!(cause(&volumes[0].encrypted), Some(Cause::Forbidden));
    }
}
