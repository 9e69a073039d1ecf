//! Block devices and what they stand on, from sysfs (Documentation/ABI/stable/sysfs-block, testing/sysfs-block-dm).

use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use muster_proto::fact::{Cause, LayerKind, Unknown};

use super::{
    chain::Chain,
    crypto,
    device::{self, Backing, Device, Effect},
    journal,
    mounts::Mount,
};
use crate::host::{self, EntryKind, FILE_BYTES, Host, Luks, SMALL_FILE_BYTES, path_of};

/// Devices below one volume, at most.
const DEVICES: usize = 256;
/// Devices on one that may be snapshots of it, at most.
const HOLDERS: usize = 1024;

/// The block devices of a host.
pub(super) struct Devices<'h> {
    host: &'h dyn Host,
    /// Whether something uses the cipher that encrypts nothing.
    null_cipher: OnceCell<Result<bool, Unknown>>,
    /// Where snapshots keep what was written to a device before, by the device.
    kept: RefCell<BTreeMap<String, Result<Vec<String>, Unknown>>>,
}

impl<'h> Devices<'h> {
    pub fn new(host: &'h dyn Host) -> Self {
        Self { host, null_cipher: OnceCell::new(), kept: RefCell::new(BTreeMap::new()) }
    }

    /// Returns the kernel's name of the device with these numbers.
    pub fn name_of(&self, (major, minor): (u32, u32)) -> Result<String, Unknown> {
        let path = format!("/sys/dev/block/{major}:{minor}");
        let target =
            self.host.read_link(Path::new(&path)).map_err(|error| host::unknown(format!("look at {path}"), &error))?;
        last_part(&target.to_string_lossy())
            .ok_or_else(|| Unknown::new(Cause::Garbled, format!("{path} names no device")))
    }

    /// Returns the kernel's name of the device that `path` below `/dev` names.
    ///
    /// sysfs is asked first: the agent's own `/dev` may have no disks, as with `PrivateDevices=` of systemd.exec(5).
    pub fn of_path(&self, path: &[u8]) -> Result<String, Unknown> {
        let name = std::str::from_utf8(path).ok().and_then(|path| path.strip_prefix("/dev/"));
        if let Some(name) = name
            && let Some(device) = match name.strip_prefix("mapper/") {
                Some(mapped) => self.of_mapping(mapped)?,
                None => self.of_node(name)?,
            }
        {
            return Ok(device);
        }
        // What is no link and has no such name in sysfs is no device: a file below `/dev/shm` may be called as one is.
        let path = path_of(path);
        let target = self.host.read_link(&path);
        let target = target.map_err(|error| host::unknown(format!("look at {}", path.display()), &error))?;
        let device = match target.file_name().and_then(|name| name.to_str()) {
            Some(name) => self.of_node(name)?,
            None => None,
        };
        device.ok_or_else(|| Unknown::new(Cause::Garbled, format!("{} names no device", path.display())))
    }

    /// Returns the kernel's name of the device whose node is `/dev/NODE`; `None` when sysfs has none of that name.
    fn of_node(&self, node: &str) -> Result<Option<String>, Unknown> {
        // The kernel writes a slash in a device's name as an exclamation mark.
        let name = node.replace('/', "!");
        let path = format!("/sys/class/block/{name}");
        match self.host.read_link(Path::new(&path)) {
            Ok(_) => Ok(Some(name)),
            Err(error) if host::cause(&error) == Cause::Absent => Ok(None),
            Err(error) => Err(host::unknown(format!("look at {path}"), &error)),
        }
    }

    /// Returns the kernel's name of the device that device-mapper knows as `mapping`; `None` when there is none.
    fn of_mapping(&self, mapping: &str) -> Result<Option<String>, Unknown> {
        let root = "/sys/class/block";
        let names = self.host.list(Path::new(root)).map_err(|error| host::unknown(format!("list {root}"), &error))?;
        for name in names.into_iter().filter_map(|name| name.into_string().ok()) {
            if name.starts_with("dm-")
                && self.attribute(&format!("{root}/{name}"), "dm/name")?.as_deref() == Some(mapping)
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Returns the members of the btrfs file system that was mounted by naming `source`, one of them.
    pub fn btrfs_members(&self, source: &[u8]) -> Result<Vec<String>, Unknown> {
        let root = "/sys/fs/btrfs";
        let names = |folder: &str| {
            let names = self.host.list(Path::new(folder));
            let names = names.map_err(|error| host::unknown(format!("list {folder}"), &error))?;
            Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect::<Vec<_>>())
        };
        let device = self.of_path(source);
        let ids: Vec<_> = names(root)?.into_iter().filter(|name| name.contains('-')).collect();
        for id in &ids {
            let members = names(&format!("{root}/{id}/devices"))?;
            // `/dev/root`, which a kernel without initial ramdisk mounts, is no device; where one file system is, it is that.
            let is_it = device.as_ref().map_or(ids.len() == 1, |device| members.contains(device));
            if is_it && !members.is_empty() {
                return Ok(members);
            }
        }
        let device = device?;
        Err(Unknown::new(Cause::Absent, format!("{root} does not name {device}")))
    }

    /// Returns the device that is the journal of the ext4 file system on `device`; `None` where the file system has it inside or has none.
    pub fn journal_device(&self, device: &str) -> Result<Option<String>, Unknown> {
        let journals = match self.host.list(Path::new(journal::IN_USE)) {
            Ok(names) => names.into_iter().filter_map(|name| name.into_string().ok()).collect::<Vec<_>>(),
            // No journal is in use.
            Err(error) if host::cause(&error) == Cause::Absent => return Ok(None),
            Err(error) => return Err(host::unknown(format!("list {}", journal::IN_USE), &error)),
        };
        if journal::is_inside(&journals, device) {
            return Ok(None);
        }
        let mut outside = Vec::new();
        for name in journals {
            outside.extend(self.of_node(&name)?);
        }
        if outside.is_empty() {
            return Ok(None);
        }
        // The process that writes the journal; kernels before 5.0 do not tell it.
        let writer = match self.attribute(&format!("/sys/fs/ext4/{device}"), "journal_task")?.as_deref() {
            Some("<none>") => return Ok(None),
            Some(process) if process.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.attribute(&format!("/proc/{process}"), "comm")?
            }
            _ => None,
        };
        match writer.and_then(|writer| journal::written_by(&outside, &writer)) {
            Some(journal) => Ok(Some(journal.to_owned())),
            None => {
                let detail = format!("the journal of {device} may be one of the devices {}", outside.join(" "));
                Err(Unknown::new(Cause::Undecidable, detail))
            }
        }
    }

    /// Returns why `device` is not what the kernel swaps to, which names it as its node is called: it is smaller than `swap_bytes`.
    pub fn has_room_for(&self, swap_bytes: u64, device: &str) -> Result<(), Unknown> {
        match self.told_size_bytes(device)? {
            Some(size_bytes) if size_bytes < swap_bytes => {
                let detail = format!("the swap area is larger than {device}: its node is that of another device");
                Err(Unknown::new(Cause::Garbled, detail))
            }
            _ => Ok(()),
        }
    }

    /// Returns the size of `device`.
    pub fn size_bytes(&self, device: &str) -> Result<u64, Unknown> {
        self.told_size_bytes(device)?.ok_or_else(|| no_size(device))
    }

    /// Returns the size of `device`; `None` of one that has none.
    fn told_size_bytes(&self, device: &str) -> Result<Option<u64>, Unknown> {
        let Some(sectors) = self.attribute(&format!("/sys/class/block/{device}"), "size")? else { return Ok(None) };
        // Of 512 bytes, whatever the device's own are.
        let bytes = sectors.parse::<u64>().ok().and_then(|sectors| sectors.checked_mul(512));
        bytes.map(Some).ok_or_else(|| no_size(device))
    }

    /// Returns `device` with all that it stands on. `of_file` tells what a backing file stands on.
    pub fn chain(&self, device: &str, of_file: &dyn Fn(&[u8]) -> Chain) -> Chain {
        let mut found = BTreeMap::new();
        if let Err(unknown) = self.collect(device, &mut found) {
            return Chain::unknown(unknown);
        }
        self.read_headers(&mut found);
        Chain::of(device, &found, of_file)
    }

    /// Returns whether all devices of `mount` are removable disks, or are on nothing else.
    pub fn are_removable(&self, mount: &Mount) -> Result<bool, Unknown> {
        let devices = match mount.device.0 {
            0 if mount.file_system == b"btrfs" => self.btrfs_members(&mount.source)?,
            0 => vec![self.of_path(&mount.source)?],
            _ => vec![self.name_of(mount.device)?],
        };
        let not_followed = |_: &[u8]| Chain::unknown(Unknown::new(Cause::Unsupported, "a file is not followed"));
        for device in &devices {
            let mut found = BTreeMap::new();
            self.collect(device, &mut found)?;
            if !Chain::of(device, &found, &not_followed).is_removable {
                return Ok(false);
            }
        }
        Ok(!devices.is_empty())
    }

    /// Looks at `name` and all below it.
    fn collect(&self, name: &str, found: &mut BTreeMap<String, Device>) -> Result<(), Unknown> {
        let mut waiting = vec![name.to_owned()];
        while let Some(name) = waiting.pop() {
            if found.contains_key(&name) {
                continue;
            }
            if found.len() == DEVICES {
                return Err(Unknown::new(Cause::Limit, "more devices than a volume may stand on"));
            }
            let mut device = self.look(&name)?;
            // Of two below one that says nothing of itself, either may be the snapshot's own.
            device.kept_on.retain(|other| !found.contains_key(other));
            waiting.extend(device.below());
            found.insert(name, device);
        }
        Ok(())
    }

    fn look(&self, name: &str) -> Result<Device, Unknown> {
        let folder = format!("/sys/class/block/{name}");
        let refused = |what: &str, error: &io::Error| host::unknown(format!("{what} {folder}"), error);
        let place = self.host.read_link(Path::new(&folder)).map_err(|error| refused("look at", &error))?;
        let slaves = self.neighbours(&folder, "slaves")?;
        let place = place.to_string_lossy().into_owned();
        // Each attribute is asked only of devices that have it.
        let value = |has_it: bool, attribute: &str| {
            if has_it { self.attribute(&folder, attribute) } else { Ok(None) }
        };
        let (is_mapping, is_loop) = (name.starts_with("dm-"), name.starts_with("loop"));
        // A disk that NVMe has several paths to stands below none of them, and is no less one: drivers/nvme/host/multipath.c.
        let has_paths = place.contains("/devices/virtual/nvme-subsystem/");
        let is_made = place.contains("/devices/virtual/") && !has_paths;
        let is_partition = value(!is_mapping, "partition")?.is_some();
        let is_whole = !is_made && !is_partition;
        let is_raid = value(name.starts_with("md"), "md/array_state")?.is_some();
        let backing_file = if is_loop { self.path(&folder, "loop/backing_file")? } else { None };
        let zram_backing = if name.starts_with("zram") { self.path(&folder, "backing_dev")? } else { None };
        let is_on_usb = place.split('/').any(|part| part.starts_with("usb"));
        let vendor = value(is_whole, "device/vendor")?;
        // libata marks so each disk at a port where it may be plugged in, also inside the machine: `ata_dev_configure` and
        // `ata_scsiop_inq_std` in drivers/ata.
        let is_marked = value(is_whole, "removable")?.as_deref() == Some("1") && vendor.as_deref() != Some("ATA");
        let is_card = value(is_whole && name.starts_with("mmcblk"), "device/type")?.as_deref() == Some("SD");
        Ok(Device {
            name: name.to_owned(),
            is_partition,
            dm_uuid: value(is_mapping, "dm/uuid")?,
            given_name: if is_raid { Some(name.to_owned()) } else { value(is_mapping, "dm/name")? },
            backing: backing_file.as_deref().map_or(Backing::Device, |path| self.backing(path)),
            backing_file,
            zram_backing: zram_backing.filter(|path| path != b"none").map(|path| self.of_path(&path)).transpose()?,
            is_removable: is_on_usb || is_card || is_marked,
            model: [vendor, value(is_whole, "device/model")?].into_iter().flatten().collect::<Vec<_>>().join(" "),
            is_over_fabrics: has_paths && !is_partition && self.is_over_fabrics(&folder)?,
            is_read_only: value(is_loop, "ro")?.as_deref() == Some("1"),
            kept_on: if is_mapping { self.kept_on(name)? } else { Vec::new() },
            slaves,
            place,
            luks: None,
            may_be_plain: None,
        })
    }

    /// Returns the names in a folder of `folder` that links a device with others; none of a device without it, such as a partition.
    fn neighbours(&self, folder: &str, links: &str) -> Result<Vec<String>, Unknown> {
        match self.host.list(Path::new(&format!("{folder}/{links}"))) {
            Ok(names) => Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(host::unknown(format!("list {links} of {folder}"), &error)),
        }
    }

    /// Returns the devices to which what lies on the device-mapper device `name` is copied before it is written over: those that a
    /// snapshot of it has besides (Documentation/admin-guide/device-mapper/snapshot.rst).
    fn kept_on(&self, name: &str) -> Result<Vec<String>, Unknown> {
        if let Some(known) = self.kept.borrow().get(name) {
            return known.clone();
        }
        let found = self.look_for_snapshots(name);
        self.kept.borrow_mut().insert(name.to_owned(), found.clone());
        found
    }

    fn look_for_snapshots(&self, name: &str) -> Result<Vec<String>, Unknown> {
        let holders = self.neighbours(&format!("/sys/class/block/{name}"), "holders")?;
        if holders.len() > HOLDERS {
            return Err(Unknown::new(
                Cause::Limit,
                format!("more devices on {name} than snapshots are looked for among"),
            ));
        }
        let mut kept = Vec::new();
        for holder in holders.iter().filter(|holder| holder.starts_with("dm-")) {
            let folder = format!("/sys/class/block/{holder}");
            let uuid = self.attribute(&folder, "dm/uuid")?.unwrap_or_default();
            for other in self.neighbours(&folder, "slaves")?.into_iter().filter(|other| other != name) {
                let of_other = self.attribute(&format!("/sys/class/block/{other}"), "dm/uuid")?.unwrap_or_default();
                if device::may_keep_for_snapshot(&uuid, &of_other) && !kept.contains(&other) {
                    kept.push(other);
                }
            }
        }
        Ok(kept)
    }

    /// Returns what a loop device stands on that names `path`. Below `/dev`, what is not shown is a device.
    fn backing(&self, path: &[u8]) -> Backing {
        match self.host.metadata(&path_of(path)) {
            Ok(metadata) if metadata.kind == EntryKind::File => Backing::File,
            Ok(_) => Backing::Device,
            Err(_) if path.starts_with(b"/dev/") => Backing::Device,
            Err(_) => Backing::Unseen,
        }
    }

    /// Returns whether another host has the NVMe disk: the controllers that lead to it are links in the folder of its subsystem.
    fn is_over_fabrics(&self, folder: &str) -> Result<bool, Unknown> {
        let subsystem = format!("{folder}/device");
        let names = match self.host.list(Path::new(&subsystem)) {
            Ok(names) => names,
            Err(error) if host::cause(&error) == Cause::Absent => return Ok(false),
            Err(error) => return Err(host::unknown(format!("list {subsystem}"), &error)),
        };
        let is_controller = |name: &str| name.strip_prefix("nvme").is_some_and(|rest| rest.parse::<u32>().is_ok());
        for name in names.iter().filter_map(|name| name.to_str()).filter(|name| is_controller(name)) {
            let path = format!("{subsystem}/{name}");
            match self.host.read_link(Path::new(&path)) {
                Ok(target) if target.to_string_lossy().contains("/nvme-fabrics/") => return Ok(true),
                Ok(_) => {}
                Err(error) if host::cause(&error) == Cause::Absent => {}
                Err(error) => return Err(host::unknown(format!("look at {path}"), &error)),
            }
        }
        Ok(false)
    }

    /// Returns an attribute without its line end; `None` when the device has none of that name or it is empty.
    fn attribute(&self, folder: &str, attribute: &str) -> Result<Option<String>, Unknown> {
        let bytes = self.path(folder, attribute)?;
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// Returns an attribute that is a path, all of its bytes but the line end; `None` as [`Self::attribute`].
    fn path(&self, folder: &str, attribute: &str) -> Result<Option<Vec<u8>>, Unknown> {
        let path = format!("{folder}/{attribute}");
        match self.host.read(Path::new(&path), SMALL_FILE_BYTES) {
            Ok(bytes) => {
                let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
                Ok(Some(bytes.to_vec()).filter(|bytes| !bytes.is_empty()))
            }
            Err(error) if matches!(host::cause(&error), Cause::Absent) => Ok(None),
            // EINVAL: the attribute is not for a device in this state.
            Err(error) if error.raw_os_error() == Some(22) => Ok(None),
            Err(error) => Err(host::unknown(format!("read {path}"), &error)),
        }
    }

    /// Reads the header of each LUKS device, and looks into what a cipher could be that no header tells.
    fn read_headers(&self, found: &mut BTreeMap<String, Device>) {
        let headers: Vec<_> = found
            .values()
            .filter(|device| device.has_header())
            .map(|device| (device.name.clone(), self.header_of(device, header_device(device, found))))
            .collect();
        for (name, header) in headers {
            found.get_mut(&name).expect("its name was taken from there").luks = Some(header);
        }
        let in_reencryption: Vec<_> = found
            .values()
            .filter(|device| is_in_reencryption(device, found))
            .map(|device| device.name.clone())
            .collect();
        for device in found.values_mut() {
            let is_untold = !matches!(device.luks, Some(Ok(_)));
            if is_untold && device.kind() == LayerKind::Crypt && device.effect() == Effect::Encrypts {
                // The header that could not be read is the reason, where there is one.
                let header = device.luks.as_ref().and_then(|header| header.as_ref().err()).map(|unknown| unknown.cause);
                device.may_be_plain = if in_reencryption.contains(&device.name) {
                    let detail =
                        format!("{} is being encrypted or decrypted in place, how far is not told", device.name);
                    Some(Unknown::new(header.unwrap_or(Cause::Undecidable), detail))
                } else if header == Some(Cause::Garbled) {
                    // Whoever decrypts a device in use leaves its uuid as it was.
                    let detail = format!(
                        "{} has no whole LUKS header of its own below it: it was decrypted, or its header is elsewhere",
                        device.name
                    );
                    Some(Unknown::new(Cause::Undecidable, detail))
                } else {
                    self.may_be_null(&device.name, header)
                };
            }
        }
    }

    /// Returns the header of `device` on `lower`. One that another device was opened by says nothing of it.
    fn header_of(&self, device: &Device, lower: Option<&str>) -> Result<Luks, Unknown> {
        let header = self.header(lower)?;
        match &header.uuid {
            Some(uuid) if !device.is_of_header(uuid) => {
                let detail = format!("the LUKS header below {} has another uuid", device.name);
                Err(Unknown::new(Cause::Garbled, detail))
            }
            _ => Ok(header),
        }
    }

    fn header(&self, device: Option<&str>) -> Result<Luks, Unknown> {
        let device = device.ok_or_else(|| Unknown::new(Cause::Absent, "no device below"))?;
        let path = format!("/dev/{}", device.replace('!', "/"));
        self.host.luks(Path::new(&path)).map_err(|error| match host::cause(&error) {
            // The kernel has the device, and a service's own `/dev` has no node of it.
            Cause::Absent => {
                let detail = format!("the agent is shown no {path}: its service has a /dev without disks");
                Unknown::new(Cause::Forbidden, detail)
            }
            _ => host::unknown(format!("read the LUKS header of {path}"), &error),
        })
    }

    /// Returns why the crypt device `name`, whose cipher is not told, could be one that encrypts nothing.
    fn may_be_null(&self, name: &str, header: Option<Cause>) -> Option<Unknown> {
        let path = PathBuf::from("/proc/crypto");
        let in_use = self.null_cipher.get_or_init(|| {
            let read = self.host.read(&path, FILE_BYTES);
            let bytes = read.map_err(|error| host::unknown("read /proc/crypto", &error))?;
            crypto::uses_null_cipher(&bytes)
                .ok_or_else(|| Unknown::new(Cause::Garbled, "/proc/crypto does not follow its format"))
        });
        match in_use {
            Ok(false) => None,
            Ok(true) => {
                let detail = format!("the cipher of {name} is not told, and something uses one that encrypts nothing");
                Some(Unknown::new(header.unwrap_or(Cause::Undecidable), detail))
            }
            Err(unknown) => Some(unknown.clone()),
        }
    }
}

fn no_size(device: &str) -> Unknown {
    Unknown::new(Cause::Garbled, format!("/sys/class/block/{device}/size tells no size"))
}

/// Returns the device with the header of a LUKS device: with integrity, a helper device lies between the two.
fn header_device<'f>(device: &'f Device, found: &'f BTreeMap<String, Device>) -> Option<&'f str> {
    let mut lower = device.slaves.first();
    while let Some(name) = lower
        && let Some(helper) = found.get(name)
        && helper.dm_uuid.as_deref().is_some_and(|uuid| uuid.starts_with("CRYPT-SUBDEV"))
    {
        lower = helper.slaves.first();
    }
    lower.map(String::as_str)
}

/// Returns whether cryptsetup encrypts, decrypts or reencrypts `device` now: it is on a helper device then, named after it, whose
/// table has a part for what is done and one for what is not (`reencrypt_context_set_names` in lib/luks2/luks2_reencrypt.c).
fn is_in_reencryption(device: &Device, found: &BTreeMap<String, Device>) -> bool {
    let Some(name) = &device.given_name else { return false };
    let is_overlay = |helper: &Device| {
        helper.given_name.as_deref().and_then(|given| given.strip_suffix("-overlay")) == Some(name)
            && helper.dm_uuid.as_deref().is_some_and(|uuid| uuid.starts_with("CRYPT-"))
    };
    device.slaves.iter().filter_map(|slave| found.get(slave)).any(is_overlay)
}

fn last_part(path: &str) -> Option<String> {
    path.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}
