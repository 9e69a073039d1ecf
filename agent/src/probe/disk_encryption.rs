//! Encryption of what holds data at rest: every mounted file system and swap area, with the chain of devices below it.
//!
//! Of Linux only the kernel is asked: proc_pid_mountinfo(5), proc_swaps(5) and sysfs. A volume is encrypted when every path down to a
//! physical device goes through a crypt device; what the kernel cannot see through is unknown, never "no".

mod devices;
mod macos;
mod mounts;
mod windows;

use std::{io, path::Path};

use muster_proto::{
    fact::{
        Cause, DiskEncryption, Fact, OsFamily, PathText, Reading, SwapArea, SwapKind, Text, Unknown, Volume, VolumeKind,
    },
    report,
};

use self::{
    devices::{Chain, Devices},
    mounts::{Mount, Swap},
};
use super::{Look, Probe};
use crate::host::{self, FILE_BYTES, Host, path_of};

/// How deep file systems may lie on files of other file systems.
const DEPTH: usize = 8;

/// The probe of `disk_encryption`.
pub struct DiskEncryptionProbe;

impl Probe for DiskEncryptionProbe {
    fn id(&self) -> report::Probe {
        report::Probe::DiskEncryption
    }

    fn name(&self) -> &'static str {
        "disk_encryption"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        let state = match look.host.os_family() {
            OsFamily::Linux => state(look.host),
            OsFamily::Macos => macos::state(look.host),
            OsFamily::Windows => windows::state(look.host),
        };
        vec![Fact::DiskEncryption(match state {
            Ok(state) => Reading::Known(state),
            Err(unknown) => Reading::Unknown { unknown },
        })]
    }
}

fn state(host: &dyn Host) -> Result<DiskEncryption, Unknown> {
    // The agent may run in a mount namespace of its own, whose binds and covers are not the host's.
    let mounts = match host.read(Path::new("/proc/1/mountinfo"), FILE_BYTES) {
        Ok(mounts) => Ok(mounts),
        Err(_) => host.read(Path::new("/proc/self/mountinfo"), FILE_BYTES),
    };
    let mounts = mounts.map_err(|error| host::unknown("read /proc/self/mountinfo", &error))?;
    let mounts = mounts::parse(&mounts)
        .ok_or_else(|| Unknown::new(Cause::Garbled, "mountinfo has a line that does not follow its format"))?;
    let swaps = match host.read(Path::new("/proc/swaps"), FILE_BYTES) {
        Ok(swaps) => mounts::parse_swaps(&swaps)
            .ok_or_else(|| Unknown::new(Cause::Garbled, "/proc/swaps has a line that does not follow its format"))?,
        // A kernel without swap.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(host::unknown("read /proc/swaps", &error)),
    };
    let below = Below { host, devices: Devices::new(host), mounts: &mounts };
    let mut volumes: Vec<Volume> =
        mounts.iter().filter(|mount| !mount.is_pseudo()).map(|mount| below.volume(mount)).collect();
    volumes.sort_by(|a, b| (&a.mount_point, &a.source).cmp(&(&b.mount_point, &b.source)));
    volumes.dedup();
    let mut swap_areas: Vec<SwapArea> = swaps.iter().map(|swap| below.swap_area(swap)).collect();
    swap_areas.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(DiskEncryption { volumes, swap_areas })
}

/// What lies below mounts and swap areas.
struct Below<'a> {
    host: &'a dyn Host,
    devices: Devices<'a>,
    mounts: &'a [Mount],
}

impl Below<'_> {
    fn volume(&self, mount: &Mount) -> Volume {
        let chain = self.of_mount(mount, DEPTH);
        let kind = if mount.is_network() {
            VolumeKind::Network
        } else if chain.is_memory {
            VolumeKind::Memory
        } else if mount.is_image() || chain.is_image {
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
        }
    }

    fn swap_area(&self, swap: &Swap) -> SwapArea {
        let name = PathText::from_bytes(&swap.name);
        let (kind, chain) = if swap.is_file {
            (SwapKind::File, self.of_file(&swap.name, DEPTH))
        } else {
            let device = self.device_of_path(&swap.name);
            let chain = match &device {
                Ok(device) => self.of_device(device, DEPTH),
                Err(unknown) => Chain::unknown(unknown.clone()),
            };
            let is_zram = device.is_ok_and(|device| device.starts_with("zram"));
            (if is_zram { SwapKind::Zram } else { SwapKind::Partition }, chain)
        };
        SwapArea { name, kind, layers: chain.layers, encrypted: chain.encrypted }
    }

    fn of_mount(&self, mount: &Mount, depth: usize) -> Chain {
        let file_system = String::from_utf8_lossy(&mount.file_system);
        if mount.is_network() {
            return Chain::unknown(Unknown::new(Cause::Hidden, format!("{file_system} is kept by another host")));
        }
        if mount.is_memory() {
            // Never at rest: see the kind.
            return Chain { encrypted: Reading::Known(false), is_memory: true, ..Chain::default() };
        }
        if mount.has_own_encryption() {
            let detail = format!("{file_system} encrypts by itself, which this build does not read");
            return Chain::unknown(Unknown::new(Cause::Unsupported, detail));
        }
        if mount.file_system == b"overlay" {
            return self.of_overlay(mount, depth);
        }
        let chain = if mount.device.0 != 0 {
            match self.devices.name_of(mount.device) {
                Ok(device) => self.of_device(&device, depth),
                Err(unknown) => Chain::unknown(unknown),
            }
        } else if mount.file_system == b"btrfs" {
            self.of_btrfs(mount, depth)
        } else {
            let detail = format!("{file_system} is on no block device that this build can follow");
            return Chain::unknown(Unknown::new(Cause::Unsupported, detail));
        };
        if chain.encrypted.known() == Some(&false) && self.has_fscrypt(mount) {
            let encrypted = Reading::unknown(Cause::Unsupported, "fscrypt is set up on the volume");
            return Chain { encrypted, ..chain };
        }
        chain
    }

    fn of_device(&self, device: &str, depth: usize) -> Chain {
        self.devices.chain(device, &|file| match depth.checked_sub(1) {
            Some(depth) => self.of_file(file, depth),
            None => Chain::unknown(Unknown::new(Cause::Limit, "too many file systems on files of each other")),
        })
    }

    /// A file is where the longest mount point above it is; of equal ones, the later mount covers the earlier.
    fn of_file(&self, path: &[u8], depth: usize) -> Chain {
        let holder = self.mounts.iter().filter(|mount| mount.holds(path)).max_by_key(|mount| mount.mount_point.len());
        match (holder, depth.checked_sub(1)) {
            (Some(mount), Some(depth)) => self.of_mount(mount, depth),
            (None, _) => Chain::unknown(Unknown::new(Cause::Hidden, "no mount holds the file")),
            (_, None) => Chain::unknown(Unknown::new(Cause::Limit, "too many file systems on files of each other")),
        }
    }

    /// What is written goes to the upper folder; without one, all that is there is in the lower ones.
    fn of_overlay(&self, mount: &Mount, depth: usize) -> Chain {
        let hidden =
            || Chain::unknown(Unknown::new(Cause::Hidden, "the folders below the overlay are not seen from inside"));
        let folder = mount.option(b"upperdir=").or_else(|| mount.option(b"lowerdir=")?.split(|&b| b == b':').next());
        let Some(folder) = folder.filter(|folder| folder.starts_with(b"/")) else { return hidden() };
        let holder = self.mounts.iter().filter(|mount| mount.holds(folder)).max_by_key(|mount| mount.mount_point.len());
        // In a container the folders are named as the host names them, and the overlay itself is the root.
        if holder.is_none_or(|holder| holder == mount) || self.host.metadata(&path_of(folder)).is_err() {
            return hidden();
        }
        self.of_file(folder, depth)
    }

    /// btrfs has device numbers of its own; its devices are in /sys/fs/btrfs/UUID/devices.
    fn of_btrfs(&self, mount: &Mount, depth: usize) -> Chain {
        match self.device_of_path(&mount.source).and_then(|device| self.devices.btrfs_members(&device)) {
            Ok(members) => Chain::all(members.iter().map(|device| self.of_device(device, depth))),
            Err(unknown) => Chain::unknown(unknown),
        }
    }

    /// Returns the kernel's name of the device that `path` below `/dev` names.
    ///
    /// sysfs is asked first: the agent's own `/dev` may have no disks, as with `PrivateDevices=` of systemd.exec(5).
    fn device_of_path(&self, path: &[u8]) -> Result<String, Unknown> {
        let name = std::str::from_utf8(path).ok().and_then(|path| path.strip_prefix("/dev/"));
        if let Some(name) = name
            && let Some(device) = match name.strip_prefix("mapper/") {
                Some(mapped) => self.devices.of_mapping(mapped)?,
                None => self.devices.of_node(name),
            }
        {
            return Ok(device);
        }
        let path = path_of(path);
        let target = match self.host.read_link(&path) {
            Ok(target) => target,
            // EINVAL: it is no link.
            Err(error) if error.raw_os_error() == Some(22) => path.clone(),
            Err(error) => return Err(host::unknown(format!("look at {}", path.display()), &error)),
        };
        target
            .file_name()
            .and_then(|name| name.to_str())
            .map(str::to_owned)
            .ok_or_else(|| Unknown::new(Cause::Garbled, format!("{} names no device", path.display())))
    }

    /// The tool fscrypt keeps its state in a folder at the root of each volume that it is set up on.
    fn has_fscrypt(&self, mount: &Mount) -> bool {
        matches!(mount.file_system.as_slice(), b"ext4" | b"f2fs" | b"ubifs" | b"btrfs" | b"ceph")
            && self.host.metadata(&path_of(&mount.mount_point).join(".fscrypt")).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::PathText;

    use super::*;
    use crate::host::{Recorded, recorded::Failure};

    const ABSENT: i32 = 2;

    /// Returns the machine with LUKS, LVM and swap on it, as an agent sees it whose `/dev` has no disks.
    fn without_devices() -> Recorded {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/disk_encryption/uml-luks-lvm");
        let mut host = Recorded::at(&case).unwrap();
        let index = host.index_mut();
        let absent = || Failure { errno: Some(ABSENT), kind: String::new(), text: String::new() };
        for device in std::mem::take(&mut index.luks).into_keys() {
            index.errors.insert(format!("luks {device}"), absent());
        }
        index.links.retain(|path, _| !path.as_str().starts_with("/dev/"));
        for name in ["dm-2", "mapper/vg0-swap", "mapper/none"] {
            index.errors.insert(format!("link /dev/{name}"), absent());
        }
        let folder = |name: &str| PathText::from_bytes(name.as_bytes());
        let names = ["dm-0", "dm-1", "dm-2", "dm-3", "ubda", "ubdb", "ubdc"].map(folder);
        index.lists.insert(folder("/sys/class/block"), names.to_vec());
        host
    }

    #[test]
    fn a_swap_partition_is_followed_where_the_agent_has_no_devices() {
        let state = state(&without_devices()).unwrap();
        assert_eq!(state.swap_areas.len(), 1);
        assert_eq!(state.swap_areas[0].encrypted, Reading::Known(true));
        assert_eq!(state.swap_areas[0].layers.last().unwrap().device.as_str(), "ubdb");
    }

    #[test]
    fn a_cipher_that_the_agent_may_not_read_is_unknown_with_the_cause() {
        let state = state(&without_devices()).unwrap();
        let crypt = state.swap_areas[0].layers.iter().find_map(|layer| layer.crypt.clone()).unwrap();
        let Reading::Unknown { unknown } = crypt.cipher else { panic!("{:?}", crypt.cipher) };
        assert_eq!(unknown.cause, Cause::Forbidden);
        assert_eq!(unknown.detail.as_str(), "the agent is shown no /dev/ubdb: its service has a /dev without disks");
    }

    #[test]
    fn a_device_is_found_by_its_node_and_by_the_name_of_its_mapping() {
        let host = without_devices();
        let below = Below { host: &host, devices: Devices::new(&host), mounts: &[] };
        let mapping = |at: &str| String::from_utf8(host.read(Path::new(at), 99).unwrap()).unwrap();
        let swap = format!("/dev/mapper/{}", mapping("/sys/class/block/dm-2/dm/name").trim());
        assert_eq!(below.device_of_path(swap.as_bytes()).as_deref(), Ok("dm-2"));
        assert_eq!(below.device_of_path(b"/dev/dm-1").as_deref(), Ok("dm-1"));
        assert_eq!(below.device_of_path(b"/dev/mapper/none").unwrap_err().cause, Cause::Absent);
    }
}
