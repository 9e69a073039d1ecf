//! What lies below mounts and swap areas, down to the devices.

use std::{cell::OnceCell, collections::BTreeMap};

use muster_proto::fact::{Cause, PathText, Reading, SwapArea, SwapKind, Text, Unknown, Volume, VolumeKind};

use super::{
    chain::Chain,
    devices::Devices,
    mounts::{Mount, Swap},
    own::{self, Dataset},
    policies::EncryptedFolders,
};
use crate::host::{self, Host, Tool, path_of};

/// How deep file systems may lie on files of other file systems.
pub(super) const DEPTH: usize = 8;
/// Bytes of a block of f2fs: Documentation/filesystems/f2fs.rst. Where pages are larger it may be a page, and more is not looked for.
const F2FS_BLOCK_BYTES: u64 = 4096;

/// What lies below mounts and swap areas.
pub(super) struct Below<'a> {
    pub host: &'a dyn Host,
    pub devices: Devices<'a>,
    pub mounts: &'a [Mount],
    /// ZFS datasets by name, which are asked for once and only where ZFS is mounted.
    pub datasets: OnceCell<Result<BTreeMap<String, Dataset>, Unknown>>,
}

impl Below<'_> {
    pub fn volume(&self, mount: &Mount) -> Volume {
        let mut chain = self.of_mount(mount, DEPTH);
        let folders = if mount.may_have_fscrypt() && chain.encrypted.known() != Some(&true) && !self.is_covered(mount) {
            self.encrypted_folders(mount)
        } else {
            EncryptedFolders::default()
        };
        if let Some(unknown) = folders.unread
            && chain.encrypted == Reading::Known(false)
        {
            chain.encrypted = Reading::Unknown { unknown };
        }
        if folders.are_all_there_is && chain.encrypted == Reading::Known(false) {
            let detail = "fscrypt encrypts every folder that is there, and not what is written beside them";
            chain.encrypted = Reading::unknown(Cause::Undecidable, detail);
        }
        to_volume(mount, chain, folders.named)
    }

    /// Returns the volume of a mount of another mount namespace, where no path can be asked.
    pub fn volume_elsewhere(&self, mount: &Mount) -> Volume {
        let mut chain = if mount.file_system == b"zfs" { self.of_zfs(mount) } else { self.of_ground(mount, DEPTH) };
        if mount.may_have_policy() && chain.encrypted == Reading::Known(false) {
            let detail = "an fscrypt policy is not read in another mount namespace";
            chain.encrypted = Reading::unknown(Cause::Unsupported, detail);
        }
        to_volume(mount, chain, Vec::new())
    }

    pub fn swap_area(&self, swap: &Swap) -> SwapArea {
        let name = PathText::from_bytes(&swap.name);
        let (kind, chain) = if swap.is_file {
            (SwapKind::File, self.of_swap_file(&swap.name))
        } else {
            let device = self.devices.of_path(&swap.name);
            let device = device.and_then(|device| {
                self.devices.has_room_for(swap.size_bytes, &device)?;
                Ok(device)
            });
            let chain = match &device {
                Ok(device) => self.of_device(device, DEPTH),
                Err(unknown) => Chain::unknown(unknown.clone()),
            };
            let is_zram = device.is_ok_and(|device| device.starts_with("zram")) || swap.name.starts_with(b"/dev/zram");
            (if is_zram { SwapKind::Zram } else { SwapKind::Partition }, chain)
        };
        SwapArea { name, kind, layers: chain.layers, encrypted: chain.encrypted }
    }

    pub fn of_mount(&self, mount: &Mount, depth: usize) -> Chain {
        match mount.file_system.as_slice() {
            b"overlay" => return self.of_overlay(mount, depth),
            b"ecryptfs" => return self.of_ecryptfs(mount, depth),
            b"zfs" => return self.of_zfs(mount),
            _ => {}
        }
        let chain = self.of_ground(mount, depth);
        if !mount.may_have_policy() || mount.is_network() || chain.encrypted == Reading::Known(true) {
            return chain;
        }
        let point = path_of(&mount.mount_point);
        if !self.is_covered(mount) {
            return self.with_policy(&point, chain);
        }
        if chain.encrypted != Reading::Known(false) {
            return chain;
        }
        let detail = format!("another mount covers {}, and the fscrypt policy below it is not read", point.display());
        Chain { encrypted: Reading::unknown(Cause::Undecidable, detail), ..chain }
    }

    /// Returns whether the path of its mount point leads elsewhere than to `mount`: to what is mounted on it, or on a way to it.
    fn is_covered(&self, mount: &Mount) -> bool {
        let is_mounted = |on: &Mount, beside: &Mount, above: &[u8]| {
            let is_other = |other: &Mount| ![on.id, beside.id].contains(&other.id);
            self.mounts.iter().any(|other| other.parent == on.id && is_other(other) && other.holds(above))
        };
        let lower_of = |upper: &Mount| {
            self.mounts.iter().find(|lower| lower.id == upper.parent).filter(|lower| lower.id != upper.id)
        };
        let mut way = std::iter::successors(Some(mount), |upper| lower_of(upper)).take(self.mounts.len());
        is_mounted(mount, mount, &mount.mount_point)
            || way.any(|upper| lower_of(upper).is_some_and(|lower| is_mounted(lower, upper, &upper.mount_point)))
    }

    /// Returns what the file system that is mounted stands on, whatever it does itself to what is written to it.
    pub fn of_ground(&self, mount: &Mount, depth: usize) -> Chain {
        let file_system = String::from_utf8_lossy(&mount.file_system);
        if mount.is_network() {
            return Chain::unknown(Unknown::new(Cause::Hidden, format!("{file_system} is kept by another host")));
        }
        if mount.is_memory() {
            // Never at rest: see the kind.
            return Chain { encrypted: Reading::Known(false), is_memory: true, ..Chain::default() };
        }
        if mount.device.0 != 0 {
            return match self.devices.name_of(mount.device) {
                Ok(device) => self.of_devices(mount, &device, depth),
                Err(unknown) => Chain::unknown(unknown),
            };
        }
        if mount.file_system == b"btrfs" {
            return match self.devices.btrfs_members(&mount.source) {
                Ok(members) => Chain::all(members.iter().map(|device| self.of_device(device, depth))),
                Err(unknown) => Chain::unknown(unknown),
            };
        }
        let detail = if mount.has_own_encryption() {
            format!("{file_system} may encrypt by itself, which this build does not read")
        } else {
            format!("{file_system} is on no block device that this build can follow")
        };
        Chain::unknown(Unknown::new(Cause::Unsupported, detail))
    }

    /// Returns what follows from `device`, which mountinfo names, and from the others that the file system keeps a part of itself on.
    fn of_devices(&self, mount: &Mount, device: &str, depth: usize) -> Chain {
        let mut others: Vec<_> = mount.other_devices().iter().map(|path| self.devices.of_path(path)).collect();
        if mount.may_have_journal_device() {
            others.extend(self.devices.journal_device(device).transpose());
        }
        let first = self.of_device(device, depth);
        if mount.file_system == b"f2fs"
            && first.encrypted == Reading::Known(true)
            && let Err(unknown) = self.has_one_device(mount, device)
        {
            others.push(Err(unknown));
        }
        if mount.file_system == b"jfs" && first.encrypted == Reading::Known(true) {
            let detail = format!("the journal of JFS may be a device of its own, and {device} does not tell which");
            others.push(Err(Unknown::new(Cause::Undecidable, detail)));
        }
        others.into_iter().fold(first, |chain, other| match other {
            Ok(device) => chain.and(self.of_device(&device, depth)),
            Err(unknown) => chain.and_untold(unknown),
        })
    }

    /// Returns why the f2fs that is mounted may have other devices than `device`: nothing names them, and it is larger with them.
    fn has_one_device(&self, mount: &Mount, device: &str) -> Result<(), Unknown> {
        let at = path_of(&mount.mount_point);
        let metadata =
            self.host.metadata(&at).map_err(|error| host::unknown(format!("look at {}", at.display()), &error))?;
        if metadata.device != mount.device {
            let detail = format!("{} is not shown to the agent, and f2fs may have several devices", at.display());
            return Err(Unknown::new(Cause::Undecidable, detail));
        }
        let space = self.host.space(&at).map_err(|error| host::unknown(format!("measure {}", at.display()), &error))?;
        if space.blocks.saturating_mul(F2FS_BLOCK_BYTES) > self.devices.size_bytes(device)? {
            let detail =
                format!("f2fs at {} is larger than {device}, and does not tell its other devices", at.display());
            return Err(Unknown::new(Cause::Undecidable, detail));
        }
        Ok(())
    }

    pub fn of_device(&self, device: &str, depth: usize) -> Chain {
        self.devices.chain(device, &|file| match depth.checked_sub(1) {
            Some(depth) => self.of_file(file, depth),
            None => Chain::unknown(Unknown::new(Cause::Limit, "too many file systems on files of each other")),
        })
    }

    /// Whether a dataset is encrypted is settled when it is made: zfsprops(7).
    fn of_zfs(&self, mount: &Mount) -> Chain {
        let datasets = self.datasets.get_or_init(|| {
            let printed = self.host.run(Tool::Zfs, &own::ZFS_ARGUMENTS);
            let printed = printed.map_err(|error| host::unknown("run zfs get encryption", &error))?;
            own::parse_zfs(&printed).ok_or_else(|| Unknown::new(Cause::Garbled, "zfs get does not follow its format"))
        });
        let name = String::from_utf8_lossy(&mount.source);
        let dataset = match datasets {
            Ok(datasets) => datasets.get(name.as_ref()),
            Err(unknown) => return Chain::unknown(unknown.clone()),
        };
        let (cause, detail) = match dataset.map(|dataset| (dataset.encryption.as_str(), dataset.key_status.as_str())) {
            None => (Cause::Absent, format!("zfs does not list the dataset {name}")),
            Some(("off", _)) => {
                let detail = format!("ZFS does not encrypt {name}, and what its pool stands on is not read");
                (Cause::Unsupported, detail)
            }
            Some((cipher, "available")) if cipher.contains('-') && cipher.len() > 1 => {
                return Chain::default().below(own::zfs(&name, cipher));
            }
            Some((cipher, status)) => {
                let detail = format!("zfs says of the mounted {name}: encryption {cipher}, key {status}");
                (Cause::Undecidable, detail)
            }
        };
        Chain::unknown(Unknown::new(cause, detail))
    }
}

fn to_volume(mount: &Mount, chain: Chain, encrypted_folders: Vec<PathText>) -> Volume {
    let kind = if mount.is_network() {
        VolumeKind::Network
    } else if chain.is_memory {
        VolumeKind::Memory
    } else if chain.is_image || mount.is_image_anywhere() || (mount.is_image() && chain.is_on_file) {
        VolumeKind::Image
    } else if chain.is_removable {
        VolumeKind::Removable
    } else {
        VolumeKind::Fixed
    };
    Volume {
        mount_point: PathText::from_bytes(&mount.mount_point),
        file_system: Text::from_bytes(&mount.file_system),
        source: PathText::from_bytes(&mount.source),
        kind,
        layers: chain.layers,
        encrypted: chain.encrypted,
        protection: None,
        encrypted_percent: None,
        key_protectors: Vec::new(),
        encrypted_folders,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            journal,
            made::{ABSENT, cause, failure, made, path, volume_at},
            state,
        },
        *,
    };
    use crate::host::{Policy, Recorded};

    #[test]
    fn a_file_system_is_encrypted_where_all_devices_are_that_its_options_name() {
        for (options, expected) in [
            ("rw,logbufs=8", Reading::Known(true)),
            ("rw,logdev=/dev/dm-3,logbufs=8", Reading::Known(true)),
            ("rw,logdev=/dev/sdb", Reading::Known(false)),
            ("rw,logdev=/dev/dm-3,rtdev=/dev/sdb", Reading::Known(false)),
            ("rw,rtdev=/dev/mapper/gone", Reading::unknown(Cause::Absent, "")),
        ] {
            let volume = volume_at(&made(&format!("1 0 8:2 / /data rw - xfs /dev/dm-2 {options}\n")), "/data");
            let encrypted = match expected {
                Reading::Known(_) => volume.encrypted,
                Reading::Unknown { .. } => Reading::unknown(cause(&volume.encrypted).unwrap(), ""),
            };
            assert_eq!(encrypted, expected, "{options}");
            let has_plain = volume.layers.iter().any(|layer| layer.device.as_str() == "sdb");
            assert_eq!(has_plain, options.contains("dm-3") || options.contains("sdb"), "{options}");
        }
    }

    #[test]
    fn an_image_is_a_file_or_an_optical_disk_and_no_disk_that_is_not_written_to() {
        let kind = |mount: &str, backing: &str| {
            let mut host = made(&format!("1 0 8:0 / / rw - xfs /dev/sda rw\n2 1 {mount} rw\n"));
            host.device(7, "loop7", "", &[]);
            host.file("/sys/class/block/loop7/loop/backing_file", &format!("{backing}\n"));
            host.file("/sys/class/block/loop7/ro", "1\n");
            host.device(8, "dm-8", "CRYPT-VERITY-00-x", &["loop7"]);
            host.device(9, "sr0", "", &[]);
            host.links.insert("/sys/dev/block/11:0".to_owned(), "../../devices/x/block/sr0".to_owned());
            host.file("/sys/class/block/sr0/removable", "1\n");
            host.device(10, "vda", "", &[]);
            host.metadata.insert("/x.img".to_owned(), 0);
            volume_at(&host, "/m").kind
        };
        use VolumeKind::{Fixed, Image, Removable};
        for (mount, backing, expected) in [
            ("8:7 / /m ro - ext4 /dev/loop7", "/x.img", Image),
            // Where a live system began is not shown.
            ("8:7 / /m ro - squashfs /dev/loop7", "/medium/live.squashfs", Image),
            ("8:8 / /m ro - erofs /dev/mapper/x", "/x.img", Image),
            ("8:7 / /m ro - ext4 /dev/loop7", "/gone.img", Fixed),
            ("8:7 / /m ro - ext4 /dev/loop7", "/dev/sdb", Fixed),
            ("8:7 / /m ro - squashfs /dev/loop7", "/dev/gone", Fixed),
            ("8:8 / /m ro - erofs /dev/mapper/x", "/dev/sdb", Fixed),
            ("8:1 / /m ro - squashfs /dev/sdb", "/x.img", Fixed),
            ("11:0 / /m ro - squashfs /dev/sr0", "/x.img", Removable),
            ("11:0 / /m ro - iso9660 /dev/sr0", "/x.img", Image),
            ("8:7 / /m ro - iso9660 /dev/loop7", "/x.img", Image),
            ("8:1 / /m ro - iso9660 /dev/sdb", "/x.img", Fixed),
            ("8:10 / /m ro - iso9660 /dev/vda", "/x.img", Fixed),
            ("0:60 / /m ro - fuse.squashfuse x", "/x.img", Image),
            ("0:61 / /m ro - erofs /x.erofs", "/x.img", Image),
        ] {
            assert_eq!(kind(mount, backing), expected, "{mount} {backing}");
        }
    }

    #[test]
    fn a_swap_area_is_on_the_device_that_its_node_is_named_after_unless_that_is_too_small() {
        let swap = |name: &str, sectors: &str| {
            let mut host = made("1 0 8:2 / / rw - xfs /dev/dm-2 rw\n");
            host.device(9, "zram0", "", &[]);
            if !sectors.is_empty() {
                host.file(&format!("/sys/class/block/{name}/size"), &format!("{sectors}\n"));
            }
            let line = format!("Filename Type Size Used Priority\n/dev/{name} partition 4092 0 -2\n");
            host.file("/proc/swaps", &line);
            let area = state(&host).unwrap().swap_areas.remove(0);
            (area.encrypted, area.layers.len())
        };
        for (name, encrypted, layers) in [("dm-2", true, 2), ("zram0", false, 1)] {
            // A page of it is its header; what was captured by an earlier version has no size.
            for sectors in ["8192", "8184", "100000", ""] {
                assert_eq!(swap(name, sectors), (Reading::Known(encrypted), layers), "{name} {sectors}");
            }
            for sectors in ["8183", "0", "x"] {
                let (encrypted, layers) = swap(name, sectors);
                assert_eq!((cause(&encrypted), layers), (Some(Cause::Garbled), 0), "{name} {sectors}");
            }
        }
    }

    #[test]
    fn a_disk_is_removable_that_is_on_usb_or_a_card_or_says_so_and_is_not_inside() {
        let kind = |name: &str, attributes: &[(&str, &str)]| {
            let mut host = made("1 0 8:5 / /m rw - vfat /dev/x rw\n");
            host.device(5, name, "", &[]);
            for (attribute, value) in attributes {
                host.file(&format!("/sys/class/block/{name}/{attribute}"), &format!("{value}\n"));
            }
            volume_at(&host, "/m").kind
        };
        use VolumeKind::{Fixed, Removable};
        for (name, attributes, expected) in [
            ("mmcblk0", [("device/type", "SD"), ("removable", "0")], Removable),
            ("mmcblk0", [("device/type", "MMC"), ("removable", "0")], Fixed),
            ("sdx", [("device/type", "SD"), ("removable", "0")], Fixed),
            ("sdx", [("device/vendor", "Generic"), ("removable", "1")], Removable),
            ("sdx", [("device/vendor", "Generic"), ("removable", "0")], Fixed),
            // A port of SATA at which a disk may be plugged in.
            ("sdx", [("device/vendor", "ATA     "), ("removable", "1")], Fixed),
        ] {
            assert_eq!(kind(name, &attributes), expected, "{name} {attributes:?}");
        }
    }

    #[test]
    fn a_file_system_of_a_cluster_is_where_its_device_is() {
        for file_system in ["gfs2", "ocfs2"] {
            let of = |number: usize, device: &str| {
                volume_at(&made(&format!("1 0 8:{number} / /m rw - {file_system} /dev/{device} rw\n")), "/m")
            };
            let (plain, encrypted) = (of(1, "sdb"), of(2, "dm-2"));
            assert_eq!((plain.kind, plain.encrypted), (VolumeKind::Fixed, Reading::Known(false)), "{file_system}");
            assert_eq!(
                (encrypted.kind, encrypted.encrypted),
                (VolumeKind::Fixed, Reading::Known(true)),
                "{file_system}"
            );
        }
    }

    #[test]
    fn the_disk_that_the_host_runs_from_is_fixed_though_it_be_a_card() {
        let mut host = made(
            "1 0 8:5 / / rw - ext4 /dev/x rw\n2 1 8:6 / /boot rw - vfat /dev/y rw\n3 1 8:7 / /m rw - vfat /dev/z rw\n",
        );
        for (minor, name, above) in [(5, "dm-5", &["mmcblk0"][..]), (6, "mmcblk0", &[]), (7, "mmcblk1", &[])] {
            host.device(minor, name, "CRYPT-PLAIN-a", above);
            host.file(&format!("/sys/class/block/{name}/device/type"), "SD\n");
        }
        for (point, expected) in [("/", VolumeKind::Fixed), ("/boot", VolumeKind::Fixed), ("/m", VolumeKind::Removable)]
        {
            assert_eq!(volume_at(&host, point).kind, expected, "{point}");
        }
    }

    #[test]
    fn a_journal_that_is_a_device_is_a_part_of_its_file_system() {
        // Names in /proc/fs/jbd2, the writer's process, its name, and what follows.
        let encrypted = |journals: &[&str], task: &str, comm: &str| {
            let mut host = made("1 0 8:2 / /data rw - ext4 /dev/dm-2 rw\n");
            host.lists.insert(journal::IN_USE.to_owned(), journals.iter().map(|&name| name.to_owned()).collect());
            if !task.is_empty() {
                host.file("/sys/fs/ext4/dm-2/journal_task", &format!("{task}\n"));
            }
            host.file("/proc/45/comm", &format!("{comm}\n"));
            volume_at(&host, "/data").encrypted
        };
        for journals in [vec!["dm-2-8"], vec!["dm-2-8", "sdb"], vec!["sda-8"], vec![]] {
            assert_eq!(encrypted(&journals, "", ""), Reading::Known(true), "{journals:?}");
        }
        assert_eq!(encrypted(&["sdb"], "45", "jbd2/sdb"), Reading::Known(false));
        assert_eq!(encrypted(&["dm-3", "sdb"], "45", "jbd2/dm-3"), Reading::Known(true));
        // It has no journal, and another file system has that one.
        assert_eq!(encrypted(&["sdb"], "<none>", ""), Reading::Known(true));
        for (task, comm) in [("", ""), ("44", ""), ("45", "other"), ("../45", "jbd2/sdb")] {
            assert_eq!(cause(&encrypted(&["sdb"], task, comm)), Some(Cause::Undecidable), "{task} {comm}");
        }
    }

    #[test]
    fn jfs_does_not_tell_where_its_journal_is() {
        let encrypted = |device: &str| volume_at(&made(&format!("1 0 {device} / /data rw - jfs /dev/x rw\n")), "/data");
        assert_eq!(cause(&encrypted("8:2").encrypted), Some(Cause::Undecidable));
        assert_eq!(encrypted("8:1").encrypted, Reading::Known(false));
    }

    #[test]
    fn f2fs_that_is_larger_than_its_device_has_others_that_are_not_told() {
        let encrypted = |blocks: Option<u64>, device: usize| {
            let mut host = made("1 0 8:2 / /data rw - f2fs /dev/dm-2 rw\n");
            host.file("/sys/class/block/dm-2/size", "8192\n");
            host.metadata.insert("/data".to_owned(), device);
            host.blocks.extend(blocks.map(|blocks| ("/data".to_owned(), blocks)));
            volume_at(&host, "/data").encrypted
        };
        assert_eq!(encrypted(Some(1000), 2), Reading::Known(true));
        assert_eq!(cause(&encrypted(Some(1025), 2)), Some(Cause::Undecidable));
        assert_eq!(cause(&encrypted(Some(1000), 0)), Some(Cause::Undecidable));
        assert_eq!(cause(&encrypted(None, 2)), Some(Cause::Absent));
    }

    #[test]
    fn a_covered_folder_is_not_asked_for_its_policy_by_its_path() {
        const ROOT: &str = "1 1 0:2 / / rw - rootfs rootfs rw\n2 1 8:2 / / rw - xfs /dev/dm-2 rw\n";
        let encrypted = |mounts: &str| {
            let mut host = made(&format!("{ROOT}{mounts}"));
            for point in ["/p", "/a/p"] {
                host.policies.insert(point.to_owned(), Policy { version: 2, contents_mode: 1 });
            }
            let volumes = state(&host).unwrap().volumes;
            volumes
                .into_iter()
                .filter(|volume| volume.source == path("/dev/sda"))
                .map(|volume| volume.encrypted)
                .collect::<Vec<_>>()
        };
        let is_unknown = |reading: &Reading<bool>| cause(reading) == Some(Cause::Undecidable);
        let plain = "3 2 8:0 /plain /p rw - ext4 /dev/sda rw\n";
        assert_eq!(encrypted(plain), [Reading::Known(true)]);
        // What is mounted beside it or below it covers nothing of it, nor what is itself covered.
        assert_eq!(encrypted(&format!("{plain}4 3 8:1 / /p/x rw - xfs /dev/sdb rw\n")), [Reading::Known(true)]);
        assert_eq!(encrypted(&format!("{plain}4 2 8:1 / /px rw - xfs /dev/sdb rw\n")), [Reading::Known(true)]);
        let found = encrypted(&format!("{plain}4 3 8:0 /enc /p rw - ext4 /dev/sda rw\n"));
        assert!(found.len() == 2 && found.iter().any(is_unknown), "{found:?}");
        assert!(found.contains(&Reading::Known(true)), "{found:?}");
        // On the way to it.
        let plain = "3 2 8:1 / /a rw - xfs /dev/sdb rw\n4 3 8:0 /plain /a/p rw - ext4 /dev/sda rw\n";
        assert_eq!(encrypted(plain), [Reading::Known(true)]);
        assert_eq!(encrypted(&format!("{plain}5 2 8:1 / /a/p rw - xfs /dev/sdb rw\n")), [Reading::Known(true)]);
        let found = encrypted(&format!("{plain}5 3 8:1 / /a rw - xfs /dev/sdb rw\n"));
        assert!(found.iter().all(is_unknown) && found.len() == 1, "{found:?}");
    }

    /// Returns what is said of the ZFS dataset `tank/home`, which the first process has mounted, when `zfs` answers so.
    fn dataset(answer: Result<&str, i32>) -> Volume {
        dataset_of(1, answer)
    }

    /// The same, of one that the process of this number has mounted.
    fn dataset_of(process: u32, answer: Result<&str, i32>) -> Volume {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("tool.zfs.{}", own::ZFS_ARGUMENTS.join(".").replace(',', "_"));
        std::fs::create_dir_all(folder.path().join("answers")).unwrap();
        let mounts =
            [(1, "1 0 0:2 / / rw - rootfs rootfs rw\n"), (process, "2 0 0:40 / /home rw - zfs tank/home rw,xattr\n")];
        for (process, mounts) in mounts {
            let of = folder.path().join(format!("files/proc/{process}"));
            std::fs::create_dir_all(&of).unwrap();
            std::fs::write(of.join("mountinfo"), mounts).unwrap();
        }
        std::fs::write(folder.path().join("files/proc/swaps"), "Filename\n").unwrap();
        std::fs::write(folder.path().join("index.json"), r#"{"version": 1, "captured": "2026-11-24T12:00:00Z"}"#)
            .unwrap();
        let mut host = Recorded::at(folder.path()).unwrap();
        host.index_mut().lists.insert(path("/proc"), vec![path("1"), path(&process.to_string())]);
        match answer {
            Ok(text) => std::fs::write(folder.path().join("answers").join(name), text).unwrap(),
            Err(errno) => drop(host.index_mut().errors.insert(name, failure(errno))),
        }
        state(&host).unwrap().volumes.remove(0)
    }

    #[test]
    fn a_file_system_of_another_mount_namespace_is_reported_that_finds_its_devices_itself() {
        let dataset = dataset_of(7, Ok("tank/home\tencryption\taes-256-gcm\ntank/home\tkeystatus\tavailable\n"));
        assert_eq!((dataset.mount_point.as_str(), dataset.encrypted), ("/home", Reading::Known(true)));
        assert_eq!(cause(&dataset_of(7, Err(13)).encrypted), Some(Cause::Forbidden));
        let mut host = made("1 0 8:2 / / rw - xfs /dev/dm-2 rw\n");
        host.lists.insert("/proc".to_owned(), ["1", "7"].map(str::to_owned).to_vec());
        host.file(
            "/proc/7/mountinfo",
            "9 0 0:50 / /data rw - bcachefs /dev/sdb rw\n10 9 0:51 / /run rw - tmpfs run rw\n",
        );
        assert_eq!(state(&host).unwrap().volumes.len(), 2);
        assert_eq!(cause(&volume_at(&host, "/data").encrypted), Some(Cause::Unsupported));
    }

    #[test]
    fn a_dataset_is_what_zfs_says_of_it() {
        let encrypted = dataset(Ok("tank/home\tencryption\taes-256-gcm\ntank/home\tkeystatus\tavailable\n"));
        assert_eq!((encrypted.kind, &encrypted.encrypted), (VolumeKind::Fixed, &Reading::Known(true)));
        assert_eq!(encrypted.layers[0].device.as_str(), "tank/home");
        // Another dataset of the pool that is encrypted says nothing of this one.
        let plain = "tank\tencryption\taes-256-gcm\ntank\tkeystatus\tavailable\n\
                     tank/home\tencryption\toff\ntank/home\tkeystatus\t-\n";
        assert_eq!(cause(&dataset(Ok(plain)).encrypted), Some(Cause::Unsupported));
        for (answer, expected) in [
            (Err(ABSENT), Cause::Absent),
            (Err(13), Cause::Forbidden),
            (Ok("tank/home\tencryption\n"), Cause::Garbled),
            (Ok(""), Cause::Absent),
            (Ok("tank/home\tencryption\taes-256-gcm\ntank/home\tkeystatus\tunavailable\n"), Cause::Undecidable),
            (Ok("tank/home\tencryption\t-\ntank/home\tkeystatus\t-\n"), Cause::Undecidable),
        ] {
            assert_eq!(cause(&dataset(answer).encrypted), Some(expected), "{answer:?}");
        }
    }
}
