//! File systems that stand on folders of others: overlays and eCryptfs.

use std::path::Path;

use muster_proto::fact::{Cause, Reading, Unknown};

use super::{below::Below, chain::Chain, mounts::Mount, own};
use crate::host::{self, Space, path_of};

/// How often the space of two file systems is compared, at most: it changes while one is written to.
const MEASURES: usize = 3;

impl Below<'_> {
    /// What is written goes to the upper folder; without one, all that is there is in the lower ones.
    pub fn of_overlay(&self, mount: &Mount, depth: usize) -> Chain {
        let folders = match mount.option(b"upperdir=") {
            Some(upper) => vec![upper],
            None => mount.lower_folders(),
        };
        let chain = Chain::all(folders.iter().map(|folder| self.of_folder(mount, folder, depth)));
        match folders.first() {
            Some(uppermost) => self.unless_replaced(mount, uppermost, chain),
            None => chain,
        }
    }

    /// Returns what `folder`, which is below the overlay `mount`, stands on.
    fn of_folder(&self, mount: &Mount, folder: &[u8], depth: usize) -> Chain {
        let hidden =
            || Chain::unknown(Unknown::new(Cause::Hidden, "the folders below the overlay are not seen from inside"));
        if !folder.starts_with(b"/") {
            return hidden();
        }
        let Some(depth) = depth.checked_sub(1) else {
            return Chain::unknown(Unknown::new(Cause::Limit, "too many file systems on folders of each other"));
        };
        let metadata = match self.host.metadata(&path_of(folder)) {
            Ok(metadata) => metadata,
            Err(error) if host::cause(&error) == Cause::Absent => return hidden(),
            Err(error) => {
                let folder = path_of(folder);
                return Chain::unknown(host::unknown(format!("look at {}", folder.display()), &error));
            }
        };
        // In a container the folders are named as the host names them, and the overlay itself is the root.
        match self.holder(folder, metadata.device) {
            Some(holder) if holder != mount => {
                let chain = self.with_policy_of(holder, &path_of(folder), depth);
                self.unless_covered(folder, holder, chain, depth)
            }
            _ => hidden(),
        }
    }

    /// Returns `chain`, which is that of `folder`, unless that is on another file system than what `mount` has below it since it was
    /// mounted, which need not be mounted any more.
    ///
    /// statfs(2) of an overlay or of eCryptfs tells the space of its uppermost folder: `ovl_statfs` in fs/overlayfs/super.c,
    /// `ecryptfs_statfs` in fs/ecryptfs/super.c.
    fn unless_replaced(&self, mount: &Mount, folder: &[u8], chain: Chain) -> Chain {
        if chain.encrypted != Reading::Known(true) {
            return chain;
        }
        let (point, folder) = (path_of(&mount.mount_point), path_of(folder));
        let unknown = match self.have_same_space(&point, &folder) {
            Ok(true) => return chain,
            Ok(false) => {
                let (point, folder) = (point.display(), folder.display());
                Unknown::new(
                    Cause::Undecidable,
                    format!("{folder} is not, or no more, of the file system below {point}"),
                )
            }
            Err(unknown) => unknown,
        };
        Chain { encrypted: Reading::Unknown { unknown }, ..chain }
    }

    fn have_same_space(&self, upper: &Path, lower: &Path) -> Result<bool, Unknown> {
        let space =
            |at: &Path| self.host.space(at).map_err(|error| host::unknown(format!("measure {}", at.display()), &error));
        for _ in 0..MEASURES {
            let (before, between, after) = (space(upper)?, space(lower)?, space(upper)?);
            let lies_between = |of: fn(&Space) -> u64| {
                let (before, after) = (of(&before), of(&after));
                (before.min(after)..=before.max(after)).contains(&of(&between))
            };
            if lies_between(|space| space.blocks) && lies_between(|space| space.free) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub fn with_policy_of(&self, holder: &Mount, folder: &Path, depth: usize) -> Chain {
        let chain = self.of_mount(holder, depth);
        if holder.may_have_fscrypt() { self.with_policy(folder, chain) } else { chain }
    }

    /// Everything that is written through the mount is encrypted before the folder below it has it.
    pub fn of_ecryptfs(&self, mount: &Mount, depth: usize) -> Chain {
        let below = self.unless_replaced(mount, &mount.source, self.of_folder(mount, &mount.source, depth));
        match own::ecryptfs(mount) {
            Ok(layer) => below.below(layer),
            Err(_) if below.encrypted == Reading::Known(true) => below,
            Err(why) => Chain { encrypted: Reading::unknown(Cause::Undecidable, why), ..below },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::made::{MadeHost, cause, made, volume_at},
        *,
    };
    use crate::host::Policy;

    const ROOT: &str = "1 0 8:2 / / rw - xfs /dev/dm-2 rw\n";
    const OVERLAY: &str = "3 1 0:40 / /o rw - overlay overlay rw,lowerdir=/lower,upperdir=/up/u,workdir=/up/w\n";

    /// Returns a host whose `/up/u` is on the device with this number, and the mounts at `/up` before and after that of the overlay.
    fn host(before: &str, after: &str, device: usize) -> MadeHost {
        let mut host = made(&format!("{ROOT}{before}{OVERLAY}{after}"));
        host.metadata.insert("/up/u".to_owned(), device);
        host.blocks.extend(["/o", "/up/u"].map(|at| (at.to_owned(), 9)));
        host.device(5, "vda", "", &[]);
        host
    }

    #[test]
    fn an_overlay_is_unknown_where_its_upper_folder_may_be_covered_on_another_disk() {
        let encrypted = |before: &str| {
            let after = "4 2 8:3 / /up rw - xfs /dev/dm-3 rw\n";
            volume_at(&host(before, after, 3), "/o").encrypted
        };
        assert_eq!(encrypted(""), Reading::Known(true));
        assert_eq!(encrypted("2 1 8:2 /b /up rw - xfs /dev/dm-2 rw\n"), Reading::Known(true));
        assert_eq!(encrypted("2 1 0:9 / /up rw - autofs x rw\n"), Reading::Known(true));
        let plain = encrypted("2 1 8:0 / /up rw - xfs /dev/sda rw\n");
        assert_eq!(cause(&plain), Some(Cause::Undecidable), "{plain:?}");
        // Whoever has the virtual disk answers for both.
        assert_eq!(cause(&encrypted("2 1 8:5 / /up rw - xfs /dev/vda rw\n")), Some(Cause::Hidden));
    }

    #[test]
    fn an_encrypted_folder_may_cover_a_plain_one_of_its_own_file_system() {
        let encrypted = |before: &str| {
            let mut host = host(before, "4 2 8:0 /e /up rw - ext4 /dev/sda rw\n", 0);
            host.policies.insert("/up".to_owned(), Policy { version: 2, contents_mode: 1 });
            volume_at(&host, "/o").encrypted
        };
        assert_eq!(encrypted(""), Reading::Known(true));
        assert_eq!(encrypted("2 1 8:0 /e /up rw - ext4 /dev/sda rw\n"), Reading::Known(true));
        assert_eq!(cause(&encrypted("2 1 8:0 /p /up rw - ext4 /dev/sda rw\n")), Some(Cause::Undecidable));
    }

    #[test]
    fn an_overlay_is_not_on_a_file_system_that_has_other_space() {
        let encrypted = |overlay: Option<(u64, u64)>, folder: (u64, u64)| {
            let mut host = host("2 1 8:3 / /up rw - xfs /dev/dm-3 rw\n", "", 3);
            host.blocks.clear();
            for (at, space) in [("/o", overlay), ("/up/u", Some(folder))] {
                host.blocks.extend(space.map(|(blocks, _)| (at.to_owned(), blocks)));
                host.free.extend(space.map(|(_, free)| (at.to_owned(), free)));
            }
            volume_at(&host, "/o").encrypted
        };
        assert_eq!(encrypted(Some((9, 5)), (9, 5)), Reading::Known(true));
        assert_eq!(cause(&encrypted(None, (9, 5))), Some(Cause::Absent));
        for folder in [(9, 4), (9, 6), (8, 5), (10, 5)] {
            assert_eq!(cause(&encrypted(Some((9, 5)), folder)), Some(Cause::Undecidable), "{folder:?}");
        }
    }
}
