//! File systems that stand on folders of others: overlays and eCryptfs.

use std::path::Path;

use muster_proto::fact::{Cause, Reading, Unknown};

use super::{below::Below, chain::Chain, mounts::Mount, own};
use crate::host::{self, Space, path_bytes, path_of};

/// How often the space of two file systems is compared, at most: it changes while one is written to.
const MEASURES: usize = 3;

impl Below<'_> {
    /// What is written goes to the upper folder; without one, all that is there is in the lower ones.
    pub fn of_overlay(&self, mount: &Mount, depth: usize) -> Chain {
        if let Some(upper) = mount.option(b"upperdir=") {
            let upper = self.as_named_now(mount, upper);
            return self.unless_replaced(mount, &upper, self.of_folder(mount, &upper, depth));
        }
        let folders = mount.lower_folders();
        let mut chains = folders.iter().map(|folder| self.of_folder(mount, folder, depth));
        let (Some(uppermost), Some(first)) = (folders.first(), chains.next()) else { return Chain::all(chains) };
        let rest: Vec<_> = chains.collect();
        if !first.is_memory || rest.iter().all(|chain| chain.is_memory) {
            return self.unless_replaced(mount, uppermost, Chain::all(std::iter::once(first).chain(rest)));
        }
        let chain = Chain::all(rest.into_iter().map(|chain| if chain.is_memory { not_seen() } else { chain }));
        // The image of names that composefs and ostree put above the folders of data is mounted no more: where it was is an empty
        // folder in memory.
        if chain.encrypted == Reading::Known(true) && self.is_image_now(mount) {
            chain
        } else {
            self.unless_replaced(mount, uppermost, chain)
        }
    }

    /// Returns the name that `upper` has now, where what has it is as large and as full.
    ///
    /// Where the initial ramdisk mounted the overlay, as that of MicroOS does, the root was at `/sysroot`. Docker names its layers from the
    /// folder that has them all, two above the mount point, where the whole names of many would be too long (`mountFrom` in overlay2).
    fn as_named_now(&self, mount: &Mount, upper: Vec<u8>) -> Vec<u8> {
        let point = path_of(&mount.mount_point);
        let named_now = if upper.starts_with(b"/") {
            let is_gone =
                || self.host.metadata(&path_of(&upper)).is_err_and(|error| host::cause(&error) == Cause::Absent);
            let below_root = upper.strip_prefix(b"/sysroot").filter(|rest| rest.starts_with(b"/"));
            below_root.filter(|_| is_gone()).map(path_of)
        } else {
            point.ancestors().nth(2).map(|layers| layers.join(path_of(&upper)))
        };
        match named_now {
            Some(name) if self.have_same_space(&point, &name) == Ok(true) => path_bytes(&name),
            _ => upper,
        }
    }

    /// Returns whether the uppermost file system of `mount` is known to be one that nothing can be written to: it has no room.
    fn is_image_now(&self, mount: &Mount) -> bool {
        self.host.space(&path_of(&mount.mount_point)).is_ok_and(|space| space.blocks > 0 && space.free == 0)
    }

    /// Returns what `folder`, which is below the overlay `mount`, stands on.
    fn of_folder(&self, mount: &Mount, folder: &[u8], depth: usize) -> Chain {
        if !folder.starts_with(b"/") {
            return not_seen();
        }
        let Some(depth) = depth.checked_sub(1) else {
            return Chain::unknown(Unknown::new(Cause::Limit, "too many file systems on folders of each other"));
        };
        let metadata = match self.host.metadata(&path_of(folder)) {
            Ok(metadata) => metadata,
            Err(error) if host::cause(&error) == Cause::Absent => return not_seen(),
            Err(error) => {
                let folder = path_of(folder);
                return Chain::unknown(host::unknown(format!("look at {}", folder.display()), &error));
            }
        };
        // In a container the folders are named as the host names them, and the overlay itself is the root.
        match self.holder(folder, metadata.device) {
            Some(holder) if holder != mount => {
                let chain = self.with_policy_of(holder, &path_of(folder), depth);
                self.unless_covered(folder, holder, Some(mount), chain, depth)
            }
            _ => not_seen(),
        }
    }

    /// Returns `chain`, which is that of `folder`, unless that is on another file system than what `mount` has below it since it was
    /// mounted, which need not be mounted any more.
    ///
    /// statfs(2) of an overlay or of eCryptfs tells the space of its uppermost folder: `ovl_statfs` in fs/overlayfs/super.c,
    /// `ecryptfs_statfs` in fs/ecryptfs/super.c.
    fn unless_replaced(&self, mount: &Mount, folder: &[u8], chain: Chain) -> Chain {
        if chain.encrypted != Reading::Known(true) && !chain.is_memory {
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
        Chain { encrypted: Reading::Unknown { unknown }, is_memory: false, ..chain }
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

fn not_seen() -> Chain {
    Chain::unknown(Unknown::new(Cause::Hidden, "the folders below the overlay are not seen from inside"))
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::VolumeKind;

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

    /// Returns what is said of `/o`, a read-only overlay on `lower`: `/run` is memory, and all but `/plain` is encrypted. The
    /// overlay and `/run/x` have this many blocks, and those that are free.
    fn read_only(lower: &str, overlay: (u64, u64), memory: (u64, u64)) -> (VolumeKind, Reading<bool>) {
        let mut host = made(&format!(
            "1 0 8:3 / / rw - xfs /dev/dm-3 rw\n2 1 8:2 / /enc rw - xfs /dev/dm-2 rw\n3 1 8:6 / /run rw - tmpfs tmpfs rw\n\
             4 1 8:1 / /plain rw - xfs /dev/sdb rw\n5 1 0:40 / /o ro - overlay composefs ro,{lower},metacopy=on\n"
        ));
        for (folder, device) in [("/run/x", 6), ("/enc/x", 2), ("/plain/x", 1)] {
            host.metadata.insert(folder.to_owned(), device);
        }
        for (at, space) in [("/o", overlay), ("/run/x", memory)] {
            host.blocks.insert(at.to_owned(), space.0);
            host.free.insert(at.to_owned(), space.1);
        }
        let volume = volume_at(&host, "/o");
        (volume.kind, volume.encrypted)
    }

    #[test]
    fn folders_of_data_decide_below_an_image_that_was_where_memory_is() {
        use VolumeKind::{Fixed, Memory};
        let (image, memory) = ((5, 0), (9, 8));
        for (lower, expected) in [
            ("lowerdir=/run/x::/enc/x", Reading::Known(true)),
            ("lowerdir+=/run/x,datadir+=/enc/x", Reading::Known(true)),
            ("lowerdir+=/run/x,datadir+=/plain/x", Reading::Known(false)),
            ("lowerdir+=/run/x,datadir+=/enc/x,datadir+=/plain/x", Reading::Known(false)),
        ] {
            assert_eq!(read_only(lower, image, memory), (Fixed, expected), "{lower}");
        }
        let hidden = read_only("lowerdir+=/run/x,datadir+=/enc/x,datadir+=/run/x", image, memory);
        assert_eq!((hidden.0, cause(&hidden.1)), (Fixed, Some(Cause::Hidden)));
        // It is in memory indeed, or was on a disk that can be written to.
        assert_eq!(read_only("lowerdir=/run/x:/enc/x", memory, memory), (Fixed, Reading::Known(true)));
        let (kind, encrypted) = read_only("lowerdir=/run/x:/enc/x", (5, 1), memory);
        assert_eq!((kind, cause(&encrypted)), (Fixed, Some(Cause::Undecidable)));
        assert_eq!(read_only("lowerdir=/run/x", memory, memory), (Memory, Reading::Known(false)));
        for other in [(5, 1), image] {
            let (kind, encrypted) = read_only("lowerdir=/run/x", other, memory);
            assert_eq!((kind, cause(&encrypted)), (Fixed, Some(Cause::Undecidable)));
        }
    }

    #[test]
    fn what_may_be_covered_by_an_overlay_is_as_encrypted_as_what_that_is_on() {
        let encrypted = |data: &str| {
            let mut host = made(&format!(
                "1 0 0:40 / / ro - overlay composefs ro,lowerdir+=/run/x,datadir+={data}\n2 1 8:2 / /sysroot rw - xfs /dev/dm-2 rw\n\
                 3 1 8:6 / /run rw - tmpfs tmpfs rw\n4 1 8:1 / /plain rw - xfs /dev/sdb rw\n{}",
                OVERLAY.replace("/up", "/sysroot")
            ));
            for (folder, device) in [("/run/x", 6), ("/sysroot/x", 2), ("/plain/x", 1), ("/sysroot/u", 2)] {
                host.metadata.insert(folder.to_owned(), device);
            }
            host.blocks.extend(["/", "/o", "/sysroot/u"].map(|at| (at.to_owned(), 9)));
            (volume_at(&host, "/").encrypted, volume_at(&host, "/o").encrypted)
        };
        assert_eq!(encrypted("/sysroot/x"), (Reading::Known(true), Reading::Known(true)));
        let (root, above) = encrypted("/plain/x");
        assert_eq!((root, cause(&above)), (Reading::Known(false), Some(Cause::Undecidable)));
    }

    #[test]
    fn an_upper_folder_is_found_that_the_initial_ramdisk_named() {
        let encrypted = |space: u64, names: &[&str]| {
            let mut host = made(&format!("{ROOT}{}", OVERLAY.replace("/up", "/sysroot/up")));
            for name in names {
                host.metadata.insert((*name).to_owned(), 2);
            }
            host.blocks.extend([("/o".to_owned(), 9), ("/up/u".to_owned(), space)]);
            volume_at(&host, "/o").encrypted
        };
        assert_eq!(encrypted(9, &["/up/u"]), Reading::Known(true));
        assert_eq!(cause(&encrypted(8, &["/up/u"])), Some(Cause::Hidden));
        assert_eq!(cause(&encrypted(9, &[])), Some(Cause::Hidden));
        // It has the name that it had.
        assert_eq!(cause(&encrypted(9, &["/up/u", "/sysroot/up/u"])), Some(Cause::Absent));
    }

    #[test]
    fn an_upper_folder_is_found_that_is_named_from_the_folder_of_layers() {
        let encrypted = |upper: &str, space: u64| {
            let overlay = OVERLAY.replace("/o ", "/d/overlay2/a/merged ").replace("/up/u", upper);
            let mut host = made(&format!("{ROOT}{overlay}"));
            host.metadata.insert("/d/overlay2/a/diff".to_owned(), 2);
            host.blocks.extend([("/d/overlay2/a/merged".to_owned(), 9), ("/d/overlay2/a/diff".to_owned(), space)]);
            volume_at(&host, "/d/overlay2/a/merged").encrypted
        };
        assert_eq!(encrypted("a/diff", 9), Reading::Known(true));
        assert_eq!(cause(&encrypted("a/diff", 8)), Some(Cause::Hidden));
        assert_eq!(cause(&encrypted("b/diff", 9)), Some(Cause::Hidden));
    }
}
