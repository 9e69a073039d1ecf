//! Encryption of what holds data at rest: every mounted file system and swap area, with the chain of devices below it.
//!
//! Of Linux the kernel is asked: proc_pid_mountinfo(5), proc_swaps(5), sysfs and ioctl(2); ZFS alone by its program. A volume is encrypted
//! when every path down to a physical device goes through what encrypts; what the kernel cannot see through is unknown, never "no".
//!
//! A file system with fscrypt is encrypted as a whole where the folder that is mounted has a policy. With policies on some folders
//! it is not, and the folders are named; where they are all that is there, no rule decides: what is written beside them is plain.
//!
//! Mounts are those of PID 1, and those of other processes' namespaces on devices which that has not mounted.

mod chain;
mod crypto;
mod device;
mod devices;
mod journal;
mod macos;
mod mounts;
mod own;
#[cfg(test)]
mod reference;
mod windows;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{
        Cause, DiskEncryption, Fact, OsFamily, PathText, Reading, SwapArea, SwapKind, Text, Unknown, Volume, VolumeKind,
    },
    report,
};

use self::{
    chain::Chain,
    devices::Devices,
    mounts::{Mount, Swap},
    own::Dataset,
};
use super::{Look, Probe};
use crate::host::{self, EntryKind, FILE_BYTES, Host, Tool, path_bytes, path_of};

/// How deep file systems may lie on files of other file systems.
const DEPTH: usize = 8;
/// The same, below what may be covered by the mount that holds a file.
const DEPTH_COVERED: usize = 2;
/// File systems mounted above one file, at most.
const MOUNTS_ABOVE: usize = 8;
/// Processes whose mount namespaces are told apart, at most.
const PROCESSES: usize = 10_000;
/// Mount namespaces that are read, at most.
const NAMESPACES: usize = 256;
/// Bytes of the start of mountinfo that have the number of the first mount.
const MOUNT_ID_BYTES: usize = 32;
/// Bytes of a block of f2fs: Documentation/filesystems/f2fs.rst. Where pages are larger it may be a page, and more is not looked for.
const F2FS_BLOCK_BYTES: u64 = 4096;
/// Folders of one volume that are asked for an fscrypt policy, at most.
const FOLDERS_ASKED: usize = 1000;
/// Encrypted folders of one volume that are named, at most.
const FOLDERS_NAMED: usize = 32;

/// ENODATA: the folder has no fscrypt policy, and could have one.
const NO_POLICY: i32 = 61;
/// ENOTTY and EOPNOTSUPP: a file system of this kind, or this one, has none.
const NEVER_POLICIES: [i32; 2] = [25, 95];

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
    // The agent may run in a mount namespace of its own, whose binds and covers are not the host's. Its own mounts would leave out
    // what is covered in it.
    let mounts = host.read(Path::new("/proc/1/mountinfo"), FILE_BYTES);
    let mounts = mounts.map_err(|error| host::unknown("read /proc/1/mountinfo", &error))?;
    let first = mounts::first_id(&mounts);
    let mounts = mounts::parse(&mounts)
        .ok_or_else(|| Unknown::new(Cause::Garbled, "mountinfo has a line that does not follow its format"))?;
    let swaps = match host.read(Path::new("/proc/swaps"), FILE_BYTES) {
        Ok(swaps) => mounts::parse_swaps(&swaps)
            .ok_or_else(|| Unknown::new(Cause::Garbled, "/proc/swaps has a line that does not follow its format"))?,
        // A kernel without swap.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(host::unknown("read /proc/swaps", &error)),
    };
    let elsewhere = mounted_elsewhere(host, first, &mounts);
    let below = Below { host, devices: Devices::new(host), mounts: &mounts, datasets: OnceCell::new() };
    let mut volumes: Vec<Volume> =
        mounts.iter().filter(|mount| !mount.is_pseudo()).map(|mount| below.volume(mount)).collect();
    volumes.extend(elsewhere.iter().map(|mount| below.volume_elsewhere(mount)));
    volumes.sort_by(|a, b| (&a.mount_point, &a.source).cmp(&(&b.mount_point, &b.source)));
    volumes.dedup();
    let mut swap_areas: Vec<SwapArea> = swaps.iter().map(|swap| below.swap_area(swap)).collect();
    swap_areas.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(DiskEncryption { volumes, swap_areas })
}

/// Returns what is mounted in other mount namespaces and is on devices that PID 1 has not mounted: mount_namespaces(7). Of its
/// namespace, `mounts` are all and `first` is the number of the first.
///
/// One that no process is in is not found, and of a process that ended meanwhile nothing is. A namespace is told by its first mount,
/// as whoever may read mountinfo may not read the links in `/proc/PID/ns`.
fn mounted_elsewhere(host: &dyn Host, first: Option<u64>, mounts: &[Mount]) -> Vec<Mount> {
    let Ok(names) = host.list(Path::new("/proc")) else { return Vec::new() };
    let processes = names.iter().filter_map(|name| name.to_str()?.parse::<u32>().ok());
    let mut devices: BTreeSet<_> = mounts.iter().map(|mount| mount.device).collect();
    let mut namespaces: BTreeSet<u64> = first.into_iter().collect();
    let mut found = Vec::new();
    for process in processes.filter(|&process| process != 1).take(PROCESSES) {
        let path = format!("/proc/{process}/mountinfo");
        let start = host.read_start(Path::new(&path), MOUNT_ID_BYTES);
        let Some(first) = start.ok().and_then(|start| mounts::first_id(&start)) else { continue };
        if !namespaces.insert(first) {
            continue;
        }
        if namespaces.len() > NAMESPACES {
            break;
        }
        let read = host.read(Path::new(&path), FILE_BYTES);
        let Some(mounts) = read.ok().and_then(|bytes| mounts::parse(&bytes)) else { continue };
        found.extend(mounts.into_iter().filter(|mount| mount.is_on_device() && devices.insert(mount.device)));
    }
    found
}

/// What lies below mounts and swap areas.
struct Below<'a> {
    host: &'a dyn Host,
    devices: Devices<'a>,
    mounts: &'a [Mount],
    /// ZFS datasets by name, which are asked for once and only where ZFS is mounted.
    datasets: OnceCell<Result<BTreeMap<String, Dataset>, Unknown>>,
}

impl Below<'_> {
    fn volume(&self, mount: &Mount) -> Volume {
        let mut chain = self.of_mount(mount, DEPTH);
        let folders = if mount.may_have_fscrypt() && chain.encrypted.known() != Some(&true) {
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
    fn volume_elsewhere(&self, mount: &Mount) -> Volume {
        let mut chain = self.of_ground(mount, DEPTH);
        if mount.may_have_policy() && chain.encrypted == Reading::Known(false) {
            let detail = "an fscrypt policy is not read in another mount namespace";
            chain.encrypted = Reading::unknown(Cause::Unsupported, detail);
        }
        to_volume(mount, chain, Vec::new())
    }

    fn swap_area(&self, swap: &Swap) -> SwapArea {
        let name = PathText::from_bytes(&swap.name);
        let (kind, chain) = if swap.is_file {
            (SwapKind::File, self.of_swap_file(&swap.name))
        } else {
            let device = self.devices.of_path(&swap.name);
            let chain = match &device {
                Ok(device) => self.of_device(device, DEPTH),
                Err(unknown) => Chain::unknown(unknown.clone()),
            };
            let is_zram = device.is_ok_and(|device| device.starts_with("zram")) || swap.name.starts_with(b"/dev/zram");
            (if is_zram { SwapKind::Zram } else { SwapKind::Partition }, chain)
        };
        SwapArea { name, kind, layers: chain.layers, encrypted: chain.encrypted }
    }

    fn of_mount(&self, mount: &Mount, depth: usize) -> Chain {
        match mount.file_system.as_slice() {
            b"overlay" => return self.of_overlay(mount, depth),
            b"ecryptfs" => return self.of_ecryptfs(mount, depth),
            b"zfs" => return self.of_zfs(mount),
            _ => {}
        }
        let chain = self.of_ground(mount, depth);
        if mount.may_have_policy() && !mount.is_network() {
            self.with_policy(&path_of(&mount.mount_point), chain)
        } else {
            chain
        }
    }

    /// Returns what the file system that is mounted stands on, whatever it does itself to what is written to it.
    fn of_ground(&self, mount: &Mount, depth: usize) -> Chain {
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

    /// Returns what follows when `folder` and all that is in it lies on `chain`.
    fn with_policy(&self, folder: &Path, chain: Chain) -> Chain {
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

    fn of_device(&self, device: &str, depth: usize) -> Chain {
        self.devices.chain(device, &|file| match depth.checked_sub(1) {
            Some(depth) => self.of_file(file, depth),
            None => Chain::unknown(Unknown::new(Cause::Limit, "too many file systems on files of each other")),
        })
    }

    /// Returns what a file stands on; what it names may be a block device too.
    fn of_file(&self, path: &[u8], depth: usize) -> Chain {
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
        self.unless_covered(path, mount, chain, depth)
    }

    /// Returns what a swap file stands on.
    ///
    /// The kernel looks up once where on its devices the file is, and then reads and writes there past the file system, which
    /// encrypts nothing of it: mm/page_io.c and mm/swapfile.c.
    fn of_swap_file(&self, path: &[u8]) -> Chain {
        match self.mount_of_file(path) {
            Ok(mount) => self.unless_covered(path, mount, self.of_ground(mount, DEPTH), DEPTH),
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

    /// Returns `chain`, which is that of the file at `path` on `mount`, unless that could be another file than the one in use: one of
    /// the same name, on a file system that `mount` covers since, and that is not known to be encrypted. No inode tells them apart.
    fn unless_covered(&self, path: &[u8], mount: &Mount, chain: Chain, depth: usize) -> Chain {
        if chain.encrypted != Reading::Known(true) {
            return chain;
        }
        let is_same = |other: &Mount| (other.device, &other.source) == (mount.device, &mount.source);
        // What is in memory or in an image is no data at rest.
        let may_hold = |other: &Mount| {
            other.holds(path) && !other.is_pseudo() && !other.is_memory() && !other.is_image() && !is_same(other)
        };
        let others = self.mounts.iter().filter(|other| may_hold(other));
        let others: BTreeMap<_, _> = others.map(|other| ((other.device, &other.source), other)).collect();
        let is_dark = |other: &&Mount| {
            let below = self.of_ground(other, depth.min(DEPTH_COVERED));
            below.encrypted != Reading::Known(true) && !below.is_memory
        };
        let path = path_of(path);
        let unknown = if others.len() > MOUNTS_ABOVE {
            Unknown::new(Cause::Limit, format!("too many mounts above {}", path.display()))
        } else if let Some(other) = others.into_values().find(is_dark) {
            let (path, point) = (path.display(), path_of(&other.mount_point));
            let point = point.display();
            let detail =
                format!("the file in use may be an earlier {path} on {point}, which is not known to be encrypted");
            Unknown::new(Cause::Undecidable, detail)
        } else {
            return chain;
        };
        Chain { encrypted: Reading::Unknown { unknown }, ..chain }
    }

    /// Returns the mount that holds `path`, of which lstat(2) says that it is on `device`: of those above it that are of that device,
    /// the longest, and of equal ones the later, which covers the earlier.
    ///
    /// The name alone does not tell: another mount may cover it, or the name may be one of another mount namespace.
    fn holder(&self, path: &[u8], device: (u32, u32)) -> Option<&Mount> {
        let above = || self.mounts.iter().filter(|mount| mount.holds(path));
        let by_name = above().max_by_key(|mount| mount.mount_point.len());
        let by_device = above().filter(|mount| mount.device == device).max_by_key(|mount| mount.mount_point.len());
        // Each subvolume of btrfs has a device number of its own, which no mount tells.
        by_device.or(by_name.filter(|mount| mount.device.0 == 0 && device.0 == 0))
    }

    /// What is written goes to the upper folder; without one, all that is there is in the lower ones.
    fn of_overlay(&self, mount: &Mount, depth: usize) -> Chain {
        let folders = match mount.option(b"upperdir=") {
            Some(upper) => vec![upper],
            None => mount.lower_folders(),
        };
        Chain::all(folders.iter().map(|folder| self.of_folder(mount, folder, depth)))
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
            Some(holder) if holder != mount => self.with_policy_of(holder, &path_of(folder), depth),
            _ => hidden(),
        }
    }

    fn with_policy_of(&self, holder: &Mount, folder: &Path, depth: usize) -> Chain {
        let chain = self.of_mount(holder, depth);
        if holder.may_have_fscrypt() { self.with_policy(folder, chain) } else { chain }
    }

    /// Everything that is written through the mount is encrypted before the folder below it has it.
    fn of_ecryptfs(&self, mount: &Mount, depth: usize) -> Chain {
        let below = self.of_folder(mount, &mount.source, depth);
        match own::ecryptfs(mount) {
            Ok(layer) => below.below(layer),
            Err(_) if below.encrypted == Reading::Known(true) => below,
            Err(why) => Chain { encrypted: Reading::unknown(Cause::Undecidable, why), ..below },
        }
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

    /// Returns the folders with an fscrypt policy, at most two below the mount point; none where the file system has no policies.
    fn encrypted_folders(&self, mount: &Mount) -> EncryptedFolders {
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

fn to_volume(mount: &Mount, chain: Chain, encrypted_folders: Vec<PathText>) -> Volume {
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
        encrypted_folders,
    }
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

/// Folders of a volume that fscrypt encrypts.
#[derive(Debug, Default)]
struct EncryptedFolders {
    /// Sorted, at most [`FOLDERS_NAMED`].
    named: Vec<PathText>,
    /// Whether the volume has nothing beside them.
    are_all_there_is: bool,
    /// Why that is not known.
    unread: Option<Unknown>,
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::{CryptFormat, LayerKind};

    use super::{reference::MadeHost, *};
    use crate::host::{Metadata, Policy, Recorded, recorded::Failure};

    const ABSENT: i32 = 2;

    fn captured(machine: &str) -> Recorded {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/disk_encryption");
        Recorded::at(&fixtures.join(machine)).unwrap()
    }

    fn failure(errno: i32) -> Failure {
        Failure { errno: Some(errno), kind: String::new(), text: String::new() }
    }

    fn path(path: &str) -> PathText {
        PathText::from_bytes(path.as_bytes())
    }

    /// Returns what is said of a host with these lines of mountinfo on one plain disk, `8:0`, changed by `change`.
    fn volumes_of(mounts: &str, change: impl FnOnce(&mut crate::host::recorded::Index)) -> Vec<Volume> {
        let folder = tempfile::tempdir().unwrap();
        let write = |at: &str, content: &str| {
            let at = folder.path().join("files").join(at);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(at, content).unwrap();
        };
        write("proc/1/mountinfo", mounts);
        write("proc/swaps", "Filename Type Size Used Priority\n");
        write("sys/class/block/loop0/loop/backing_file", "/var/x\n");
        std::fs::write(folder.path().join("index.json"), r#"{"version": 1, "captured": "2026-11-24T12:00:00Z"}"#)
            .unwrap();
        let mut host = Recorded::at(folder.path()).unwrap();
        let index = host.index_mut();
        index.lists.insert(path("/proc/fs/jbd2"), ["loop0-8", "sda-8"].map(path).to_vec());
        let disk = path("../../devices/pci0000:00/ata1/block/sda");
        index.links.insert(path("/sys/dev/block/8:0"), disk.clone());
        index.links.insert(path("/sys/class/block/sda"), disk);
        index.lists.insert(path("/sys/class/block/sda/slaves"), Vec::new());
        for attribute in ["partition", "dm/name", "dm/uuid", "device/vendor", "device/model", "removable", "ro"] {
            index.errors.insert(format!("read /sys/class/block/sda/{attribute}"), failure(ABSENT));
        }
        change(index);
        state(&host).unwrap().volumes
    }

    fn cause(reading: &Reading<bool>) -> Option<Cause> {
        match reading {
            Reading::Unknown { unknown } => Some(unknown.cause),
            Reading::Known(_) => None,
        }
    }

    /// Returns a host with these lines of mountinfo, the plain disks `sda` and `sdb` as 8:0 and 8:1, and `dm-2` and `dm-3` as 8:2 and
    /// 8:3, which encrypt what is on them.
    fn made(mounts: &str) -> MadeHost {
        let mut host = MadeHost::default();
        host.file("/proc/1/mountinfo", mounts);
        host.file("/proc/crypto", "name : ecb(cipher_null)\nrefcnt : 1\ntype : skcipher\n");
        host.device(0, "sda", "", &[]);
        host.device(1, "sdb", "", &[]);
        host.device(2, "dm-2", "CRYPT-PLAIN-a", &["sda"]);
        host.device(3, "dm-3", "CRYPT-PLAIN-b", &["sdb"]);
        host
    }

    fn volume_at(host: &MadeHost, point: &str) -> Volume {
        state(host).unwrap().volumes.into_iter().find(|volume| volume.mount_point == path(point)).unwrap()
    }

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
    fn an_nvme_disk_of_several_paths_is_what_its_model_and_its_controllers_say() {
        let encrypted = |model: &str, controller: &str| {
            let mut host = made("1 0 8:5 / /data rw - xfs /dev/nvme0n1p1 rw\n");
            let place = "../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1";
            host.device(4, "nvme0n1", "", &[]);
            host.device(5, "nvme0n1p1", "", &[]);
            host.file("/sys/class/block/nvme0n1p1/partition", "1\n");
            host.links.insert("/sys/class/block/nvme0n1".to_owned(), place.to_owned());
            host.links.insert("/sys/class/block/nvme0n1p1".to_owned(), format!("{place}/nvme0n1p1"));
            host.file("/sys/class/block/nvme0n1/device/model", &format!("{model}\n"));
            let names = ["model", "nvme0", "nvme0n1"].map(str::to_owned).to_vec();
            host.lists.insert("/sys/class/block/nvme0n1/device".to_owned(), names);
            host.links.insert("/sys/class/block/nvme0n1/device/nvme0".to_owned(), controller.to_owned());
            volume_at(&host, "/data").encrypted
        };
        let pci = "../../../pci0000:00/0000:00:04.0/nvme/nvme0";
        assert_eq!(encrypted("Samsung SSD 980 PRO", pci), Reading::Known(false));
        assert_eq!(cause(&encrypted("Amazon Elastic Block Store", pci)), Some(Cause::Hidden));
        assert_eq!(cause(&encrypted("Linux", "../../nvme-fabrics/ctl/nvme0")), Some(Cause::Hidden));
    }

    #[test]
    fn a_device_in_the_midst_of_reencryption_is_unknown_where_its_header_is_not_read() {
        let encrypted = |helper: &str| {
            let mut host = made("1 0 8:5 / /data rw - xfs /dev/mapper/data rw\n");
            host.device(4, "dm-4", "CRYPT-SUBDEV-00-x", &["sda"]);
            host.device(5, "dm-5", "CRYPT-LUKS2-00-data", &["dm-4"]);
            host.file("/sys/class/block/dm-4/dm/name", &format!("{helper}\n"));
            host.file("/sys/class/block/dm-5/dm/name", "data\n");
            volume_at(&host, "/data").encrypted
        };
        assert_eq!(cause(&encrypted("data-overlay")), Some(Cause::Forbidden));
        assert_eq!(encrypted("data_dif"), Reading::Known(true));
    }

    #[test]
    fn a_device_that_is_mounted_in_another_namespace_alone_is_reported_once() {
        let mut host = made("20 1 8:2 / / rw - xfs /dev/dm-2 rw\n");
        let inside = "70 1 0:40 / / rw - overlay overlay rw\n71 70 8:2 / /etc/hosts rw - xfs /dev/dm-2 rw\n\
                      72 70 0:41 / /proc rw - proc proc rw\n73 70 8:1 / /data rw - xfs /dev/sdb rw\n\
                      74 70 8:1 /a /again rw - xfs /dev/sdb rw\n75 70 8:0 /a /own rw - ext4 /dev/sda rw\n";
        let names = ["1", "300", "301", "302", "303", "self", "sys"].map(str::to_owned).to_vec();
        host.lists.insert("/proc".to_owned(), names);
        host.file("/proc/300/mountinfo", inside);
        host.file("/proc/301/mountinfo", inside);
        host.file("/proc/302/mountinfo", "torn");
        let state = state(&host).unwrap();
        let found: Vec<_> =
            state.volumes.iter().map(|volume| (volume.mount_point.as_str(), &volume.encrypted)).collect();
        let unknown = Reading::unknown(Cause::Unsupported, "an fscrypt policy is not read in another mount namespace");
        let expected = [("/", &Reading::Known(true)), ("/data", &Reading::Known(false)), ("/own", &unknown)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_swap_partition_is_followed_where_the_agent_has_no_devices() {
        let state = state(&captured("uml-no-devices")).unwrap();
        assert_eq!(state.swap_areas.len(), 1);
        assert_eq!(state.swap_areas[0].encrypted, Reading::Known(true));
        assert_eq!(state.swap_areas[0].layers.last().unwrap().kind, LayerKind::Disk);
    }

    #[test]
    fn a_cipher_that_the_agent_may_not_read_is_unknown_with_the_cause() {
        let state = state(&captured("uml-no-devices")).unwrap();
        let layers = &state.swap_areas[0].layers;
        let Reading::Unknown { unknown } = &layers[0].crypt.as_ref().unwrap().cipher else { panic!("{layers:?}") };
        assert_eq!(unknown.cause, Cause::Forbidden);
        let detail = format!("the agent is shown no /dev/{}: its service has a /dev without disks", layers[1].device);
        assert_eq!(unknown.detail.as_str(), detail);
    }

    #[test]
    fn a_device_is_found_by_its_node_and_by_the_name_of_its_mapping() {
        let mut host = captured("uml-no-devices");
        for link in ["link /dev/none", "link /sys/class/block/none"] {
            host.index_mut().errors.insert(link.to_owned(), failure(ABSENT));
        }
        let swap = &state(&host).unwrap().swap_areas[0];
        let device = swap.layers[0].device.as_str();
        let devices = Devices::new(&host);
        assert_eq!(devices.of_path(b"/dev/mapper/unseen_swap").as_deref(), Ok(device));
        assert_eq!(devices.of_path(format!("/dev/{device}").as_bytes()).as_deref(), Ok(device));
        assert_eq!(devices.of_path(b"/dev/none").unwrap_err().cause, Cause::Absent);
    }

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

    /// Returns what is said of the ZFS dataset `tank/home` when `zfs` answers so.
    fn dataset(answer: Result<&str, i32>) -> Volume {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("tool.zfs.{}", own::ZFS_ARGUMENTS.join(".").replace(',', "_"));
        std::fs::create_dir_all(folder.path().join("answers")).unwrap();
        std::fs::create_dir_all(folder.path().join("files/proc/1")).unwrap();
        let mounts = "1 0 0:40 / /home rw - zfs tank/home rw,xattr,posixacl\n";
        std::fs::write(folder.path().join("files/proc/1/mountinfo"), mounts).unwrap();
        std::fs::write(folder.path().join("files/proc/swaps"), "Filename\n").unwrap();
        std::fs::write(folder.path().join("index.json"), r#"{"version": 1, "captured": "2026-11-24T12:00:00Z"}"#)
            .unwrap();
        let mut host = Recorded::at(folder.path()).unwrap();
        match answer {
            Ok(text) => std::fs::write(folder.path().join("answers").join(name), text).unwrap(),
            Err(errno) => drop(host.index_mut().errors.insert(name, failure(errno))),
        }
        state(&host).unwrap().volumes.remove(0)
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
