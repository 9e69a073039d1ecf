//! What a file stands on that holds a file system or swap area: which mount has it, as lstat(2) says.

use std::collections::BTreeMap;

use muster_proto::fact::{Cause, Reading, Unknown};

use super::{
    below::{Below, DEPTH},
    chain::Chain,
    mounts::Mount,
};
use crate::host::{self, EntryKind, path_of};

/// The same, below what may be covered by the mount that holds a file.
const DEPTH_COVERED: usize = 2;
/// File systems mounted above one file, at most.
const MOUNTS_ABOVE: usize = 8;

impl Below<'_> {
    /// Returns what a file stands on; what it names may be a block device too.
    pub fn of_file(&self, path: &[u8], depth: usize) -> Chain {
        let Some(depth) = depth.checked_sub(1) else {
            return Chain::unknown(Unknown::new(Cause::Limit, "too many file systems on files of each other"));
        };
        if path.starts_with(b"/dev/")
            && let Ok(device) = self.devices.of_path(path)
        {
            return self.of_device(&device, depth);
        }
        let mount = match self.mount_of_file(path) {
            Ok(mount) => mount,
            Err(unknown) => return Chain::unknown(unknown),
        };
        let chain = match path_of(path).parent() {
            Some(folder) => self.with_policy_of(mount, folder, depth),
            None => self.of_mount(mount, depth),
        };
        self.unless_covered(path, mount, None, chain, depth)
    }

    /// Returns what a swap file stands on.
    ///
    /// The kernel looks up once where on its devices the file is, and then reads and writes there past the file system, which
    /// encrypts nothing of it: mm/page_io.c and mm/swapfile.c.
    pub fn of_swap_file(&self, path: &[u8]) -> Chain {
        match self.mount_of_file(path) {
            Ok(mount) => self.unless_covered(path, mount, None, self.of_ground(mount, DEPTH), DEPTH),
            Err(unknown) => Chain::unknown(unknown),
        }
    }

    /// Returns the mount that holds the file at `path`.
    fn mount_of_file(&self, path: &[u8]) -> Result<&Mount, Unknown> {
        let at = path_of(path);
        let metadata =
            self.host.metadata(&at).map_err(|error| host::unknown(format!("look at {}", at.display()), &error))?;
        if metadata.kind != EntryKind::File {
            return Err(Unknown::new(Cause::Hidden, format!("{} is no file here", at.display())));
        }
        self.holder(path, metadata.device).ok_or_else(|| {
            Unknown::new(Cause::Undecidable, format!("no mount above {} is of its device", at.display()))
        })
    }

    /// Returns `chain`, which is that of the file or folder at `path` on `mount`, unless that could be another than the one in use: one
    /// of the same name, in what `mount` covers since, and that is not known to be encrypted. No inode tells them apart. It is not on
    /// `above`, which is an overlay on it.
    pub fn unless_covered(
        &self,
        path: &[u8],
        mount: &Mount,
        above: Option<&Mount>,
        chain: Chain,
        depth: usize,
    ) -> Chain {
        if chain.encrypted != Reading::Known(true) {
            return chain;
        }
        let is_same = |other: &Mount| {
            (other.device, &other.source, other.inside(path)) == (mount.device, &mount.source, mount.inside(path))
        };
        // What is in memory or in an image is no data at rest.
        let may_hold = |other: &Mount| {
            other.holds(path)
                && !other.is_pseudo()
                && !other.is_memory()
                && !other.is_image()
                && !is_same(other)
                && above.is_none_or(|above| above.id != other.id)
        };
        let others = self.mounts.iter().filter(|other| may_hold(other));
        let others: BTreeMap<_, _> = others.map(|other| ((other.device, &other.source), other)).collect();
        let darkness = |other: &Mount| {
            let depth = depth.min(DEPTH_COVERED);
            let is_overlay = other.file_system == b"overlay";
            let below = if is_overlay { self.of_overlay(other, depth) } else { self.of_ground(other, depth) };
            let cause = match below.encrypted {
                _ if below.is_memory => return None,
                Reading::Known(true) => return None,
                // What its provider says of a virtual disk is all that is missing.
                Reading::Unknown { unknown } if !other.is_network() => unknown.cause,
                _ => Cause::Undecidable,
            };
            Some((cause, path_of(&other.mount_point)))
        };
        let path = path_of(path);
        let unknown = if others.len() > MOUNTS_ABOVE {
            Unknown::new(Cause::Limit, format!("too many mounts above {}", path.display()))
        } else if let Some((cause, point)) =
            others.into_values().filter_map(darkness).max_by_key(|(cause, _)| *cause != Cause::Hidden)
        {
            let (path, point) = (path.display(), point.display());
            let detail =
                format!("what is in use may be an earlier {path} on {point}, which is not known to be encrypted");
            Unknown::new(cause, detail)
        } else {
            return chain;
        };
        Chain { encrypted: Reading::Unknown { unknown }, ..chain }
    }

    /// Returns the mount that holds `path`, of which lstat(2) says that it is on `device`: of those above it that are of that device,
    /// the longest, and of equal ones the later, which covers the earlier.
    ///
    /// The name alone does not tell: another mount may cover it, or the name may be one of another mount namespace.
    pub fn holder(&self, path: &[u8], device: (u32, u32)) -> Option<&Mount> {
        let above = || self.mounts.iter().filter(|mount| mount.holds(path));
        let by_name = above().max_by_key(|mount| mount.mount_point.len());
        let by_device = above().filter(|mount| mount.device == device).max_by_key(|mount| mount.mount_point.len());
        // Each subvolume of btrfs has a device number of its own, which no mount tells.
        by_device.or(by_name.filter(|mount| mount.device.0 == 0 && device.0 == 0))
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::{SwapKind, VolumeKind};

    use super::{
        super::{
            made::{ABSENT, cause, failure, made, path, volume_at, volumes_of},
            policies::NEVER_POLICIES,
            state,
        },
        *,
    };
    use crate::host::{Metadata, Policy};

    #[test]
    fn a_swap_file_is_as_plain_as_its_disk_whatever_its_folder_encrypts() {
        let mut host = made(
            "1 0 8:0 / / rw - ext4 /dev/sda rw\n2 1 8:0 /home/a /srv rw - ext4 /dev/sda rw\n\
             3 1 8:2 / /var rw - ext4 /dev/dm-2 rw\n4 1 8:7 / /image rw - xfs /dev/loop7 rw\n",
        );
        host.policies
            .extend(["/home/a", "/srv"].map(|folder| (folder.to_owned(), Policy { version: 2, contents_mode: 1 })));
        host.metadata
            .extend([("/home/a/swap", 0), ("/srv/swap", 0), ("/home/a/f", 0)].map(|(at, on)| (at.to_owned(), on)));
        host.file("/proc/swaps", "Filename\n/home/a/swap file 1 0 -2\n/srv/swap file 1 0 -2\n");
        host.device(7, "loop7", "", &[]);
        host.file("/sys/class/block/loop7/loop/backing_file", "/home/a/f\n");
        let found = state(&host).unwrap();
        assert_eq!(found.swap_areas.len(), 2);
        for area in found.swap_areas {
            assert_eq!((area.kind, area.encrypted), (SwapKind::File, Reading::Known(false)), "{}", area.name);
            assert_eq!(area.layers[0].device.as_str(), "sda");
        }
        // A loop device asks the file system for what it reads and writes.
        assert_eq!(volume_at(&host, "/image").encrypted, Reading::Known(true));
    }

    #[test]
    fn a_file_in_memory_is_no_device_however_it_is_called() {
        for name in ["sda", "x.img"] {
            let mut host = made("1 0 0:5 / /dev/shm rw - tmpfs tmpfs rw\n2 0 8:7 / /image rw - xfs /dev/loop7 rw\n");
            host.device(7, "loop7", "", &[]);
            host.file("/sys/class/block/loop7/loop/backing_file", &format!("/dev/shm/{name}\n"));
            host.metadata.insert(format!("/dev/shm/{name}"), 5);
            host.device_major = 0;
            let volume = volume_at(&host, "/image");
            assert_eq!((volume.kind, volume.layers.len()), (VolumeKind::Memory, 1), "{name}");
        }
    }

    #[test]
    fn a_file_is_unknown_where_one_of_its_name_may_be_covered_on_a_plain_disk() {
        let encrypted = |mounts: &str, on: usize| {
            let mut host = made(&format!("{mounts}9 1 8:7 / /image rw - xfs /dev/loop7 rw\n"));
            host.device(7, "loop7", "", &[]);
            host.file("/sys/class/block/loop7/loop/backing_file", "/home/a/f\n");
            host.metadata.insert("/home/a/f".to_owned(), on);
            volume_at(&host, "/image").encrypted
        };
        let (plain, crypt) = ("1 0 8:0 / / rw - xfs /dev/sda rw\n", "1 0 8:2 / / rw - xfs /dev/dm-2 rw\n");
        let home = "2 1 0:9 / /home rw - autofs x rw\n2 1 8:3 / /home rw - xfs /dev/dm-3 rw\n";
        assert_eq!(encrypted(crypt, 2), Reading::Known(true));
        assert_eq!(encrypted(&format!("{crypt}{home}"), 3), Reading::Known(true));
        assert_eq!(encrypted(&format!("{plain}{home}"), 0), Reading::Known(false));
        let unknown = encrypted(&format!("{plain}{home}"), 3);
        assert_eq!(cause(&unknown), Some(Cause::Undecidable), "{unknown:?}");
    }

    #[test]
    fn a_file_is_where_its_device_says_and_not_where_its_name_does() {
        let of = |device: Option<(u32, u32)>| {
            let mounts = "1 0 8:0 / / rw - xfs /dev/sda rw\n2 1 0:50 / /var rw - nfs host:/ rw\n\
                          3 1 7:0 / /image rw - ext4 /dev/loop0 rw\n";
            let volumes = volumes_of(mounts, |index| {
                let place = path("../../devices/virtual/block/loop0");
                index.links.insert(path("/sys/dev/block/7:0"), place.clone());
                index.links.insert(path("/sys/class/block/loop0"), place);
                index.lists.insert(path("/sys/class/block/loop0/slaves"), Vec::new());
                for attribute in ["partition", "dm/name", "dm/uuid", "device/vendor", "device/model", "removable", "ro"]
                {
                    index.errors.insert(format!("read /sys/class/block/loop0/{attribute}"), failure(ABSENT));
                }
                index.errors.insert("metadata /var/x".to_owned(), failure(ABSENT));
                index.errors.insert("policy /image".to_owned(), failure(NEVER_POLICIES[1]));
                if let Some(device) = device {
                    let metadata = Metadata {
                        kind: EntryKind::File,
                        size_bytes: 1,
                        modified: None,
                        mode: 0o600,
                        uid: 0,
                        gid: 0,
                        device,
                        inode: 1,
                        links: 1,
                        changed_nanos: None,
                    };
                    index.metadata.insert(path("/var/x"), metadata);
                }
            });
            volumes.into_iter().find(|volume| volume.mount_point == path("/image")).unwrap()
        };
        // Its name is below the network share, and it is on the disk that the share covers.
        assert_eq!(of(Some((8, 0))).encrypted, Reading::Known(false));
        assert_eq!(cause(&of(Some((0, 50))).encrypted), Some(Cause::Hidden));
        assert_eq!(cause(&of(Some((8, 9))).encrypted), Some(Cause::Undecidable));
        // A file of another mount namespace.
        assert_eq!(cause(&of(None).encrypted), Some(Cause::Absent));
    }
}
