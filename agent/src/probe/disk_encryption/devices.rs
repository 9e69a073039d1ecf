//! Block devices and what they stand on, from sysfs (Documentation/ABI/stable/sysfs-block, testing/sysfs-block-dm).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use muster_proto::fact::{Cause, Crypt, CryptFormat, Layer, LayerKind, Reading, Text, Unknown};

use crate::host::{self, Host, Luks, SMALL_FILE_BYTES};

/// Devices below one volume, at most.
const DEVICES: usize = 256;

/// The devices below a volume, and what follows from them.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub layers: Vec<Layer>,
    pub encrypted: Reading<bool>,
    pub is_removable: bool,
    /// Whether nothing of it is ever at rest.
    pub is_memory: bool,
    /// Whether the uppermost device is a read-only loop.
    pub is_image: bool,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            encrypted: Reading::Known(true),
            is_removable: false,
            is_memory: false,
            is_image: false,
        }
    }
}

impl Chain {
    pub fn unknown(unknown: Unknown) -> Self {
        Self { encrypted: Reading::Unknown { unknown }, ..Self::default() }
    }

    /// Returns what follows when data is spread over all of `chains`; with none, nothing is known.
    pub fn all(chains: impl Iterator<Item = Self>) -> Self {
        let mut all: Option<Self> = None;
        for chain in chains {
            all = Some(match all {
                None => chain,
                Some(all) => all.and(chain),
            });
        }
        all.unwrap_or_else(|| Self::unknown(Unknown::new(Cause::Absent, "no device below")))
    }

    fn and(mut self, other: Self) -> Self {
        for layer in other.layers {
            if !self.layers.iter().any(|known| known.device == layer.device) {
                self.layers.push(layer);
            }
        }
        self.encrypted = both(self.encrypted, other.encrypted);
        self.is_removable |= other.is_removable;
        self.is_memory &= other.is_memory;
        self.is_image &= other.is_image;
        self
    }
}

/// One plain part makes the whole plain; else one unknown part makes it unknown.
fn both(a: Reading<bool>, b: Reading<bool>) -> Reading<bool> {
    match (a, b) {
        (Reading::Known(false), _) | (_, Reading::Known(false)) => Reading::Known(false),
        (Reading::Known(true), other) | (other, Reading::Known(true)) => other,
        (unknown, Reading::Unknown { .. }) => unknown,
    }
}

/// What sysfs says of one device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Device {
    name: String,
    /// Where it is in the device tree, such as `../../devices/pci0000:00/…/block/sda/sda1`.
    place: String,
    is_partition: bool,
    dm_uuid: Option<String>,
    /// Device-mapper or RAID name.
    given_name: Option<String>,
    backing_file: Option<Vec<u8>>,
    zram_backing: Option<String>,
    model: String,
    is_removable: bool,
    is_read_only: bool,
    slaves: Vec<String>,
    /// Header of a LUKS device; `None` of other devices.
    luks: Option<Result<Luks, Unknown>>,
}

/// The block devices of a host.
pub(super) struct Devices<'h> {
    host: &'h dyn Host,
}

impl<'h> Devices<'h> {
    pub fn new(host: &'h dyn Host) -> Self {
        Self { host }
    }

    /// Returns the kernel's name of the device with these numbers.
    pub fn name_of(&self, (major, minor): (u32, u32)) -> Result<String, Unknown> {
        let path = format!("/sys/dev/block/{major}:{minor}");
        let target =
            self.host.read_link(Path::new(&path)).map_err(|error| host::unknown(format!("look at {path}"), &error))?;
        last_part(&target.to_string_lossy())
            .ok_or_else(|| Unknown::new(Cause::Garbled, format!("{path} names no device")))
    }

    /// Returns the kernel's name of the device whose node is `/dev/NODE`; `None` when sysfs has none of that name.
    pub fn of_node(&self, node: &str) -> Option<String> {
        // The kernel writes a slash in a device's name as an exclamation mark.
        let name = node.replace('/', "!");
        self.host.read_link(Path::new(&format!("/sys/class/block/{name}"))).ok().map(|_| name)
    }

    /// Returns the kernel's name of the device that device-mapper knows as `mapping`; `None` when there is none.
    pub fn of_mapping(&self, mapping: &str) -> Result<Option<String>, Unknown> {
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

    /// Returns the members of the btrfs file system that `device` belongs to.
    pub fn btrfs_members(&self, device: &str) -> Result<Vec<String>, Unknown> {
        let root = "/sys/fs/btrfs";
        let names = |folder: &str| {
            let names = self.host.list(Path::new(folder));
            let names = names.map_err(|error| host::unknown(format!("list {folder}"), &error))?;
            Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect::<Vec<_>>())
        };
        for id in names(root)?.into_iter().filter(|name| name.contains('-')) {
            let members = names(&format!("{root}/{id}/devices"))?;
            if members.iter().any(|member| member == device) {
                return Ok(members);
            }
        }
        Err(Unknown::new(Cause::Absent, format!("{root} does not name {device}")))
    }

    /// Returns `device` with all that it stands on. `of_file` tells what a backing file stands on.
    pub fn chain(&self, device: &str, of_file: &dyn Fn(&[u8]) -> Chain) -> Chain {
        let mut found = BTreeMap::new();
        if let Err(unknown) = self.collect(device, &mut found) {
            return Chain::unknown(unknown);
        }
        self.read_headers(&mut found);
        let mut chain = Chain { encrypted: encrypted(device, &found, of_file, DEVICES), ..Chain::default() };
        let mut ordered = Vec::new();
        order(device, &found, &mut BTreeSet::new(), &mut ordered);
        for name in ordered.iter().rev() {
            let device = &found[*name];
            chain.layers.push(layer(device));
            chain.is_removable |= device.is_removable;
            if let Some(file) = &device.backing_file {
                let below = of_file(file);
                chain.is_removable |= below.is_removable;
                let layers = below.layers.into_iter();
                chain.layers.extend(layers.filter(|layer| !found.contains_key(layer.device.as_str())));
            }
        }
        chain.is_image = found.get(device).is_some_and(|device| device.backing_file.is_some() && device.is_read_only);
        chain
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
            let device = self.look(&name)?;
            waiting.extend(below(&device));
            found.insert(name, device);
        }
        Ok(())
    }

    fn look(&self, name: &str) -> Result<Device, Unknown> {
        let folder = format!("/sys/class/block/{name}");
        let refused = |what: &str, error: &io::Error| host::unknown(format!("{what} {folder}"), error);
        let place = self.host.read_link(Path::new(&folder)).map_err(|error| refused("look at", &error))?;
        let slaves = match self.host.list(Path::new(&format!("{folder}/slaves"))) {
            Ok(slaves) => slaves.into_iter().filter_map(|name| name.into_string().ok()).collect(),
            // Partitions have no such folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(refused("list slaves of", &error)),
        };
        let value = |attribute: &str| self.attribute(&folder, attribute);
        let place = place.to_string_lossy().into_owned();
        let is_partition = value("partition")?.is_some();
        let is_loop = name.starts_with("loop");
        let given_name = match value("dm/name")? {
            Some(name) => Some(name),
            None if name.starts_with("md") => value("md/array_state")?.map(|_| name.to_owned()),
            None => None,
        };
        let is_on_usb = place.split('/').any(|part| part.starts_with("usb"));
        Ok(Device {
            name: name.to_owned(),
            is_partition,
            dm_uuid: value("dm/uuid")?,
            given_name,
            backing_file: if is_loop { value("loop/backing_file")?.map(String::into_bytes) } else { None },
            zram_backing: if name.starts_with("zram") { value("backing_dev")?.filter(|v| v != "none") } else { None },
            model: [value("device/vendor")?, value("device/model")?]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" "),
            is_removable: is_on_usb || value("removable")?.as_deref() == Some("1"),
            is_read_only: value("ro")?.as_deref() == Some("1"),
            slaves,
            place,
            luks: None,
        })
    }

    /// Returns an attribute without its line end; `None` when the device has none of that name or it is empty.
    fn attribute(&self, folder: &str, attribute: &str) -> Result<Option<String>, Unknown> {
        let path = format!("{folder}/{attribute}");
        match self.host.read(Path::new(&path), SMALL_FILE_BYTES) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()).filter(|text| !text.is_empty())),
            Err(error) if matches!(host::cause(&error), Cause::Absent) => Ok(None),
            // EINVAL: the attribute is not for a device in this state.
            Err(error) if error.raw_os_error() == Some(22) => Ok(None),
            Err(error) => Err(host::unknown(format!("read {path}"), &error)),
        }
    }

    /// Reads the header of each LUKS device.
    fn read_headers(&self, found: &mut BTreeMap<String, Device>) {
        let is_luks = |device: &&Device| {
            let format = device.dm_uuid.as_deref().map(crypt_format);
            kind(device) == LayerKind::Crypt && matches!(format, Some(CryptFormat::Luks1 | CryptFormat::Luks2))
        };
        let headers: Vec<_> = found
            .values()
            .filter(is_luks)
            .map(|device| (device.name.clone(), self.header(header_device(device, found))))
            .collect();
        for (name, header) in headers {
            found.get_mut(&name).expect("its name was taken from there").luks = Some(header);
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

fn layer(device: &Device) -> Layer {
    let kind = kind(device);
    let mut names = below(device);
    names.sort();
    Layer {
        device: Text::new(&device.name),
        kind,
        name: Text::new(device.given_name.as_deref().unwrap_or_default()),
        crypt: (kind == LayerKind::Crypt).then(|| crypt(device)),
        below: names.iter().map(|name| Text::new(name)).collect(),
    }
}

fn crypt(device: &Device) -> Crypt {
    let format = device.dm_uuid.as_deref().map_or(CryptFormat::Other, crypt_format);
    let unknown = match &device.luks {
        Some(Ok(luks)) => {
            let (cipher, key_bits) = (Text::new(&luks.cipher), luks.key_bits);
            return Crypt { format, cipher: Reading::Known(cipher), key_bits: Reading::Known(key_bits) };
        }
        Some(Err(unknown)) => unknown.clone(),
        None => Unknown::new(Cause::Unsupported, "only LUKS headers are read"),
    };
    Crypt { format, cipher: Reading::Unknown { unknown: unknown.clone() }, key_bits: Reading::Unknown { unknown } }
}

/// Returns whether all that is written to the device is encrypted by it.
fn encrypts(device: &Device) -> bool {
    let format = device.dm_uuid.as_deref().map(crypt_format);
    let leaves_plain = matches!(&device.luks, Some(Ok(luks)) if luks.leaves_plain);
    kind(device) == LayerKind::Crypt && format != Some(CryptFormat::Integrity) && !leaves_plain
}

fn last_part(path: &str) -> Option<String> {
    path.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Returns the names of the devices that `device` stands on: its slaves, or the disk that a partition is a part of.
fn below(device: &Device) -> Vec<String> {
    if device.is_partition {
        return device.place.rsplit('/').nth(1).map(str::to_owned).into_iter().collect();
    }
    let backing = device.zram_backing.as_deref().and_then(last_part);
    device.slaves.iter().cloned().chain(backing).collect()
}

fn kind(device: &Device) -> LayerKind {
    if device.is_partition {
        return LayerKind::Partition;
    }
    if let Some(uuid) = &device.dm_uuid {
        return match uuid.split_once('-').map_or("", |(kind, _)| kind) {
            "CRYPT" if uuid.starts_with("CRYPT-VERITY") || uuid.starts_with("CRYPT-SUBDEV") => LayerKind::Other,
            "CRYPT" => LayerKind::Crypt,
            "LVM" => LayerKind::Lvm,
            "mpath" => LayerKind::Multipath,
            part if part.starts_with("part") => LayerKind::Partition,
            _ => LayerKind::Other,
        };
    }
    let starts = |prefix: &str| {
        device.name.strip_prefix(prefix).is_some_and(|rest| rest.bytes().next().is_some_and(|b| b.is_ascii_digit()))
    };
    if starts("dm-") {
        LayerKind::Other
    } else if starts("loop") {
        LayerKind::Loop
    } else if starts("md") || starts("md_d") {
        LayerKind::Raid
    } else if starts("zram") {
        LayerKind::Zram
    } else if starts("bcache") {
        LayerKind::Bcache
    } else if is_virtual(device) {
        LayerKind::Virtual
    } else if ["nbd", "rbd", "drbd", "zd", "ram"].into_iter().any(starts) {
        LayerKind::Other
    } else {
        LayerKind::Disk
    }
}

/// Returns whether a hypervisor or another host stands behind the disk.
fn is_virtual(device: &Device) -> bool {
    const PLACES: &[&str] = &["/virtio", "/vbd-", "/VMBUS", "/vmbus", "/session", "/platform/uml-blkdev"];
    const MODELS: &[&str] = &[
        "QEMU",
        "VMware",
        "VBOX",
        "Virtual",
        "Amazon Elastic Block Store",
        "Google",
        "nvme_card",
        "MSFT NVMe",
        "Msft",
    ];
    PLACES.iter().any(|place| device.place.contains(place))
        || MODELS.iter().any(|model| device.model.contains(model))
        || ["vd", "xvd", "ubd"].iter().any(|prefix| device.name.starts_with(prefix))
}

/// Prefixes that cryptsetup gives to the device-mapper uuid (lib/utils_device.c, `DM_UUID_PREFIX`).
fn crypt_format(uuid: &str) -> CryptFormat {
    match uuid.strip_prefix("CRYPT-").and_then(|rest| rest.split('-').next()) {
        Some("LUKS1") => CryptFormat::Luks1,
        Some("LUKS2") => CryptFormat::Luks2,
        Some("PLAIN") => CryptFormat::Plain,
        Some("INTEGRITY") => CryptFormat::Integrity,
        _ => CryptFormat::Other,
    }
}

/// Returns whether all data of `name` is encrypted before it reaches each physical device.
fn encrypted(
    name: &str,
    found: &BTreeMap<String, Device>,
    of_file: &dyn Fn(&[u8]) -> Chain,
    depth: usize,
) -> Reading<bool> {
    let Some(device) = found.get(name) else {
        return Reading::unknown(Cause::Absent, format!("{name} is not there"));
    };
    let Some(depth) = depth.checked_sub(1) else {
        return Reading::unknown(Cause::Garbled, "devices stand on each other in a circle");
    };
    if encrypts(device) {
        return Reading::Known(true);
    }
    if let Some(file) = &device.backing_file {
        return of_file(file).encrypted;
    }
    let below = below(device);
    if !below.is_empty() {
        return below.iter().map(|name| encrypted(name, found, of_file, depth)).fold(Reading::Known(true), both);
    }
    match kind(device) {
        LayerKind::Virtual => Reading::unknown(
            Cause::Hidden,
            format!("no encryption on {name}, a virtual disk: what its provider does is not seen from inside"),
        ),
        LayerKind::Disk | LayerKind::Zram => Reading::Known(false),
        _ => Reading::unknown(Cause::Unsupported, format!("what {name} stands on is not shown")),
    }
}

/// Appends `name` after all that it stands on.
fn order<'f>(
    name: &'f str,
    found: &'f BTreeMap<String, Device>,
    seen: &mut BTreeSet<&'f str>,
    ordered: &mut Vec<&'f str>,
) {
    let Some((name, device)) = found.get_key_value(name) else { return };
    if !seen.insert(name.as_str()) {
        return;
    }
    for lower in below(device).into_iter().rev() {
        if let Some((lower, _)) = found.get_key_value(&lower) {
            order(lower, found, seen, ordered);
        }
    }
    ordered.push(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, dm_uuid: Option<&str>, slaves: &[&str]) -> (String, Device) {
        let device = Device {
            name: name.to_owned(),
            dm_uuid: dm_uuid.map(str::to_owned),
            slaves: slaves.iter().map(|&slave| slave.to_owned()).collect(),
            place: format!("../../devices/pci0000:00/ata1/block/{name}"),
            ..Device::default()
        };
        (name.to_owned(), device)
    }

    fn is_encrypted(name: &str, devices: impl IntoIterator<Item = (String, Device)>) -> Reading<bool> {
        let found = devices.into_iter().collect();
        encrypted(name, &found, &|_| Chain::unknown(Unknown::new(Cause::Hidden, "")), DEVICES)
    }

    #[test]
    fn every_path_must_go_through_a_crypt_device() {
        let luks = Some("CRYPT-LUKS2-00-cr");
        let mirror = |second| {
            [
                device("dm-2", Some("LVM-x"), &["dm-0", "dm-1"]),
                device("dm-0", luks, &["sda"]),
                device("dm-1", second, &["sdb"]),
                device("sda", None, &[]),
                device("sdb", None, &[]),
            ]
        };
        assert_eq!(is_encrypted("dm-2", mirror(luks)), Reading::Known(true));
        assert_eq!(is_encrypted("dm-2", mirror(Some("LVM-y"))), Reading::Known(false));
    }

    #[test]
    fn integrity_and_verity_alone_do_not_encrypt() {
        for uuid in ["CRYPT-INTEGRITY-00-x", "CRYPT-VERITY-00-x", "CRYPT-SUBDEV-00-x"] {
            let devices = [device("dm-0", Some(uuid), &["sda"]), device("sda", None, &[])];
            assert_eq!(is_encrypted("dm-0", devices), Reading::Known(false), "{uuid}");
        }
    }

    #[test]
    fn a_crypt_device_that_leaves_data_plain_does_not_encrypt() {
        let luks = |leaves_plain| {
            let cipher = "aes-xts-plain64".to_owned();
            let (name, mut device) = device("dm-0", Some("CRYPT-LUKS2-00-x"), &["sda"]);
            device.luks = Some(Ok(Luks { version: 2, cipher, key_bits: 512, leaves_plain }));
            (name, device)
        };
        let disk = || device("sda", None, &[]);
        assert_eq!(is_encrypted("dm-0", [luks(false), disk()]), Reading::Known(true));
        assert_eq!(is_encrypted("dm-0", [luks(true), disk()]), Reading::Known(false));
        let (_, outer) = luks(true);
        let nested =
            [("dm-1".to_owned(), Device { name: "dm-1".to_owned(), slaves: vec!["dm-0".to_owned()], ..outer })];
        assert_eq!(is_encrypted("dm-1", nested.into_iter().chain([luks(false), disk()])), Reading::Known(true));
    }

    #[test]
    fn a_virtual_disk_hides_what_is_below_it() {
        let cause = |reading: Reading<bool>| match reading {
            Reading::Unknown { unknown } => Some(unknown.cause),
            Reading::Known(_) => None,
        };
        assert_eq!(cause(is_encrypted("vda", [device("vda", None, &[])])), Some(Cause::Hidden));
        assert_eq!(cause(is_encrypted("nbd0", [device("nbd0", None, &[])])), Some(Cause::Unsupported));
        assert_eq!(is_encrypted("sda", [device("sda", None, &[])]), Reading::Known(false));
        let circle = [device("dm-0", Some("LVM-x"), &["dm-1"]), device("dm-1", Some("LVM-y"), &["dm-0"])];
        assert_eq!(cause(is_encrypted("dm-0", circle)), Some(Cause::Garbled));
    }

    #[test]
    fn a_plain_part_outweighs_an_unknown_one() {
        let unknown = || Reading::unknown(Cause::Hidden, "");
        assert_eq!(both(unknown(), Reading::Known(false)), Reading::Known(false));
        assert_eq!(both(unknown(), Reading::Known(true)), unknown());
        assert_eq!(both(Reading::Known(true), Reading::Known(true)), Reading::Known(true));
    }

    #[test]
    fn a_device_comes_before_all_that_it_stands_on() {
        let found: BTreeMap<_, _> = [
            device("dm-2", Some("LVM-x"), &["dm-0", "dm-1"]),
            device("dm-0", Some("LVM-y"), &["sda"]),
            device("dm-1", Some("LVM-z"), &["dm-0"]),
            device("sda", None, &[]),
        ]
        .into();
        let mut ordered = Vec::new();
        order("dm-2", &found, &mut BTreeSet::new(), &mut ordered);
        ordered.reverse();
        assert_eq!(ordered, ["dm-2", "dm-1", "dm-0", "sda"]);
    }
}
