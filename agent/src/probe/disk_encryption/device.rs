//! One block device: what it is by what sysfs says of it. Pure.

use muster_proto::fact::{Cause, Crypt, CryptFormat, KeySlots, Layer, LayerKind, Reading, Text, Unknown};

use crate::host::Luks;

/// Prefixes of device-mapper uuids of which is known that they pass data on as it is: of cryptsetup, LVM, multipath-tools, kpartx,
/// dmraid and Stratis, whose own encryption is a LUKS2 device below.
const PASS_ON: &[&str] =
    &["CRYPT-VERITY-", "CRYPT-SUBDEV-", "CRYPT-INTEGRITY-", "LVM-", "mpath-", "DMRAID-", "stratis-1-"];

/// What sysfs says of one device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Device {
    pub name: String,
    /// Where it is in the device tree, such as `../../devices/pci0000:00/…/block/sda/sda1`.
    pub place: String,
    pub is_partition: bool,
    pub dm_uuid: Option<String>,
    /// Device-mapper or RAID name.
    pub given_name: Option<String>,
    pub backing_file: Option<Vec<u8>>,
    /// What that is.
    pub backing: Backing,
    pub zram_backing: Option<String>,
    pub model: String,
    pub is_removable: bool,
    /// Whether another host has it, though its place does not say so.
    pub is_over_fabrics: bool,
    pub is_read_only: bool,
    pub slaves: Vec<String>,
    /// Devices that snapshots of it copy to what is written over on it.
    pub kept_on: Vec<String>,
    /// Header of a LUKS device; `None` of other devices.
    pub luks: Option<Result<Luks, Unknown>>,
    /// Of a crypt device whose cipher is not told: why some of it could be plain, or its cipher the one that encrypts nothing.
    pub may_be_plain: Option<Unknown>,
}

/// What is at the path that a loop device stands on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Backing {
    #[default]
    Device,
    File,
    /// The path shows nothing: a file, unless it was the node of a device.
    Unseen,
}

/// What a device does to the data that it passes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Effect {
    /// Encrypts all of it.
    Encrypts,
    /// Leaves it as it is.
    PassesOn,
    /// It could do either.
    Untold { unknown: Unknown },
}

impl Device {
    pub fn effect(&self) -> Effect {
        match self.kind() {
            LayerKind::Crypt => match (self.crypt_format(), &self.luks) {
                (CryptFormat::Integrity, _) => Effect::PassesOn,
                (_, Some(Ok(luks))) if luks.leaves_plain => Effect::PassesOn,
                (_, Some(Ok(_))) => Effect::Encrypts,
                (_, Some(Err(_)) | None) => match &self.may_be_plain {
                    Some(unknown) => Effect::Untold { unknown: unknown.clone() },
                    None => Effect::Encrypts,
                },
            },
            LayerKind::Other if self.starts("dm-") && !self.passes_on() => {
                let detail = format!("what the device-mapper device {} does is not told by its uuid", self.name);
                Effect::Untold { unknown: Unknown::new(Cause::Unsupported, detail) }
            }
            _ => Effect::PassesOn,
        }
    }

    fn passes_on(&self) -> bool {
        self.dm_uuid.as_deref().is_some_and(|uuid| PASS_ON.iter().any(|prefix| uuid.starts_with(prefix)))
    }

    /// Returns whether it is a loop device on a file that nothing can be written to.
    pub fn is_image(&self) -> bool {
        self.backing == Backing::File && self.is_read_only
    }

    /// Returns whether it keeps its data in memory, as brd does.
    pub fn is_ram_disk(&self) -> bool {
        self.starts("ram")
    }

    /// Returns whether a LUKS header is at the start of what it stands on.
    pub fn has_header(&self) -> bool {
        let formats = [CryptFormat::Luks1, CryptFormat::Luks2, CryptFormat::Opal, CryptFormat::OpalCrypt];
        self.kind() == LayerKind::Crypt && formats.contains(&self.crypt_format())
    }

    /// Returns whether it was opened by a header with this uuid, which cryptsetup writes into its own without dashes (`dm_prepare_uuid` in
    /// lib/libdevmapper.c).
    pub fn is_of_header(&self, uuid: &str) -> bool {
        let own = self.dm_uuid.as_deref().and_then(|own| {
            let rest = own.strip_prefix("CRYPT-LUKS1-").or_else(|| own.strip_prefix("CRYPT-LUKS2-"))?;
            rest.strip_prefix("OPAL-").unwrap_or(rest).split('-').next()
        });
        own.is_some_and(|own| own == uuid.replace('-', ""))
    }

    /// Returns the names of the devices that it stands on: its slaves, or the disk that a partition is a part of.
    pub fn stands_on(&self) -> Vec<String> {
        if self.is_partition {
            return self.place.rsplit('/').nth(1).map(str::to_owned).into_iter().collect();
        }
        self.slaves.iter().chain(&self.zram_backing).cloned().collect()
    }

    /// The same, and where snapshots keep what was on it.
    pub fn below(&self) -> Vec<String> {
        let mut names = self.stands_on();
        names.extend(self.kept_on.iter().cloned());
        names
    }

    pub fn kind(&self) -> LayerKind {
        if self.is_partition {
            return LayerKind::Partition;
        }
        if let Some(uuid) = &self.dm_uuid {
            return match uuid.split_once('-').map_or("", |(kind, _)| kind) {
                "CRYPT" if uuid.starts_with("CRYPT-VERITY") || uuid.starts_with("CRYPT-SUBDEV") => LayerKind::Other,
                "CRYPT" => LayerKind::Crypt,
                "LVM" => LayerKind::Lvm,
                "mpath" => LayerKind::Multipath,
                part if is_numbered(part, "part") => LayerKind::Partition,
                _ => LayerKind::Other,
            };
        }
        if self.starts("dm-") {
            LayerKind::Other
        } else if self.starts("loop") {
            LayerKind::Loop
        } else if self.starts("md") || self.starts("md_d") || self.name.starts_with("md_") {
            LayerKind::Raid
        } else if self.starts("zram") {
            LayerKind::Zram
        } else if self.starts("bcache") {
            LayerKind::Bcache
        } else if self.is_virtual() {
            LayerKind::Virtual
        } else if self.is_made() || ["nbd", "rbd", "drbd", "zd", "ram"].into_iter().any(|prefix| self.starts(prefix)) {
            LayerKind::Other
        } else {
            LayerKind::Disk
        }
    }

    /// Returns whether the name is `prefix` and a number.
    fn starts(&self, prefix: &str) -> bool {
        is_numbered(&self.name, prefix)
    }

    /// Returns whether a driver made it with no hardware behind it that sysfs shows. A disk that NVMe has several paths to is at such a
    /// place too, and so is raw flash.
    fn is_made(&self) -> bool {
        const HARDWARE: [&str; 2] = ["/devices/virtual/nvme-subsystem/", "/devices/virtual/mtd/"];
        self.place.contains("/devices/virtual/") && !HARDWARE.iter().any(|place| self.place.contains(place))
    }

    /// Returns whether a hypervisor or another host stands behind the disk.
    fn is_virtual(&self) -> bool {
        const PLACES: &[&str] =
            &["/virtio", "/vbd-", "/VMBUS", "/vmbus", "/session", "/nvme-fabrics/", "/platform/uml-blkdev"];
        const MODELS: &[&str] = &[
            "QEMU",
            "VMware",
            "VBOX",
            "VDASD",
            "BHYVE",
            "bhyve-NVMe",
            "Alibaba Cloud",
            "Amazon Elastic Block Store",
            "Amazon EC2 NVMe Instance Storage",
            "Google",
            "nvme_card",
            "MSFT NVMe",
            "Microsoft NVMe Direct Disk",
            "Msft",
        ];
        PLACES.iter().any(|place| self.place.contains(place))
            || MODELS.iter().any(|model| self.model.contains(model))
            // Arrays of disks of Dell give what they show the host such a name.
            || (self.model.contains("Virtual") && !self.model.to_ascii_lowercase().starts_with("dell "))
            || self.is_over_fabrics
            || ["vd", "xvd", "ubd"].iter().any(|prefix| self.name.starts_with(prefix))
    }

    /// Prefixes that cryptsetup gives to the device-mapper uuid (lib/utils_device.c, `DM_UUID_PREFIX`; lib/internal.h).
    fn crypt_format(&self) -> CryptFormat {
        let uuid = self.dm_uuid.as_deref().unwrap_or_default();
        let header = self.luks.as_ref().and_then(|header| header.as_ref().ok());
        let is_opal = uuid.starts_with("CRYPT-LUKS2-OPAL-") || header.is_some_and(|luks| luks.drive_encrypts);
        match uuid.strip_prefix("CRYPT-").and_then(|rest| rest.split('-').next()) {
            Some("LUKS1") => CryptFormat::Luks1,
            Some("LUKS2") if is_opal && header.is_some_and(|luks| !luks.cipher.is_empty()) => CryptFormat::OpalCrypt,
            // Without the header, the least that is so.
            Some("LUKS2") if is_opal => CryptFormat::Opal,
            Some("LUKS2") => CryptFormat::Luks2,
            Some("PLAIN") => CryptFormat::Plain,
            Some("INTEGRITY") => CryptFormat::Integrity,
            _ => CryptFormat::Other,
        }
    }

    pub fn layer(&self) -> Layer {
        let kind = self.kind();
        let mut names = self.below();
        names.sort();
        Layer {
            device: Text::new(&self.name),
            kind,
            name: Text::new(self.given_name.as_deref().unwrap_or_default()),
            crypt: (kind == LayerKind::Crypt).then(|| self.crypt()),
            below: names.iter().map(|name| Text::new(name)).collect(),
        }
    }

    fn crypt(&self) -> Crypt {
        let format = self.crypt_format();
        let untold = |unknown: &Unknown, key_slots| Crypt {
            format,
            cipher: Reading::Unknown { unknown: unknown.clone() },
            key_bits: Reading::Unknown { unknown: unknown.clone() },
            key_slots,
        };
        match &self.luks {
            Some(Ok(luks)) => {
                let key_slots = luks.key_slots.clone().map(|slots| Reading::Known(KeySlots { slots }));
                if luks.cipher.is_empty() {
                    return untold(&Unknown::new(Cause::Hidden, "the drive encrypts"), key_slots);
                }
                let (cipher, key_bits) = (Reading::Known(Text::new(&luks.cipher)), Reading::Known(luks.key_bits));
                Crypt { format, cipher, key_bits, key_slots }
            }
            Some(Err(unknown)) => untold(unknown, Some(Reading::Unknown { unknown: unknown.clone() })),
            None => untold(&Unknown::new(Cause::Unsupported, "only LUKS headers are read"), None),
        }
    }
}

/// Returns whether a device with the device-mapper uuid `of_other` may keep for a snapshot, that with `uuid` on top of it, what was
/// written to the device of which it is one. LVM ends the uuid of such a device with its kind (`build_dm_uuid` in lib/uuid/uuid.c); what
/// no known program made, which says nothing of itself, may be a snapshot.
pub(super) fn may_keep_for_snapshot(uuid: &str, of_other: &str) -> bool {
    if uuid.starts_with("LVM-") {
        return of_other.starts_with("LVM-") && of_other.ends_with("-cow");
    }
    !uuid.starts_with("CRYPT-") && !PASS_ON.iter().any(|prefix| uuid.starts_with(prefix))
}

/// Returns whether `name` is `prefix` and then a digit.
fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.bytes().next().is_some_and(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_uuid(uuid: &str) -> Device {
        Device { name: "dm-0".to_owned(), dm_uuid: Some(uuid.to_owned()), ..Device::default() }
    }

    #[test]
    fn a_mapping_is_what_its_uuid_says() {
        for (uuid, kind, format) in [
            ("CRYPT-LUKS1-00-x", LayerKind::Crypt, Some(CryptFormat::Luks1)),
            ("CRYPT-LUKS2-00-x", LayerKind::Crypt, Some(CryptFormat::Luks2)),
            ("CRYPT-LUKS2-OPAL-00-x", LayerKind::Crypt, Some(CryptFormat::Opal)),
            ("CRYPT-PLAIN-x", LayerKind::Crypt, Some(CryptFormat::Plain)),
            ("CRYPT-INTEGRITY-00-x", LayerKind::Crypt, Some(CryptFormat::Integrity)),
            ("CRYPT-TCRYPT-00-x", LayerKind::Crypt, Some(CryptFormat::Other)),
            ("CRYPT-VERITY-00-x", LayerKind::Other, None),
            ("LVM-x", LayerKind::Lvm, None),
            ("mpath-36001", LayerKind::Multipath, None),
            ("part1-mpath-36001", LayerKind::Partition, None),
            ("partner-x", LayerKind::Other, None),
        ] {
            let layer = of_uuid(uuid).layer();
            assert_eq!((layer.kind, layer.crypt.map(|crypt| crypt.format)), (kind, format), "{uuid}");
        }
    }

    #[test]
    fn a_device_is_of_the_header_whose_uuid_it_bears() {
        let (own, other) = ("3f2a1c449d0e4f6b8a770123456789ab", "00000000000000000000000000000000");
        for (uuid, expected) in [
            (format!("CRYPT-LUKS2-{own}-x"), true),
            (format!("CRYPT-LUKS1-{own}-x"), true),
            (format!("CRYPT-LUKS2-OPAL-{own}-x"), true),
            (format!("CRYPT-LUKS2-{other}-{own}"), false),
            (format!("CRYPT-LUKS2-{other}-x"), false),
            (format!("CRYPT-PLAIN-{own}"), false),
        ] {
            assert_eq!(of_uuid(&uuid).is_of_header("3f2a1c44-9d0e-4f6b-8a77-0123456789ab"), expected, "{uuid}");
        }
        assert!(!of_uuid(&format!("CRYPT-LUKS2-{own}-x")).is_of_header(""));
    }

    #[test]
    fn a_device_beside_another_below_a_third_may_keep_what_is_written_over_there() {
        for (uuid, of_other, expected) in [
            ("LVM-abc", "LVM-abc-cow", true),
            // A volume over two disks, and one whose data and the pool's are on both.
            ("LVM-abc", "CRYPT-LUKS2-00-x", false),
            ("LVM-abc", "", false),
            ("LVM-abc-tpool", "LVM-abc_tdata", false),
            ("CRYPT-LUKS2-00-x", "", false),
            ("mpath-36001", "", false),
            ("stratis-1-x", "", false),
            ("", "", true),
            ("other", "CRYPT-LUKS2-00-x", true),
        ] {
            assert_eq!(may_keep_for_snapshot(uuid, of_other), expected, "{uuid} {of_other}");
        }
    }

    #[test]
    fn a_drive_that_encrypts_is_a_kind_of_its_own() {
        let with = |cipher: &str| {
            let header = Luks {
                version: 2,
                cipher: cipher.to_owned(),
                key_bits: 512,
                drive_encrypts: true,
                leaves_plain: false,
                uuid: None,
                key_slots: Some(Vec::new()),
            };
            let device = Device { luks: Some(Ok(header)), ..of_uuid("CRYPT-LUKS2-OPAL-00-x") };
            assert_eq!(device.effect(), Effect::Encrypts);
            device.layer().crypt.unwrap()
        };
        let alone = with("");
        assert_eq!(alone.format, CryptFormat::Opal);
        assert_eq!(alone.cipher, Reading::unknown(Cause::Hidden, "the drive encrypts"));
        let both = with("aes-xts-plain64");
        assert_eq!((both.format, both.key_bits), (CryptFormat::OpalCrypt, Reading::Known(512)));
    }

    #[test]
    fn what_a_driver_made_is_a_disk_only_where_hardware_is_behind_it() {
        let kind = |name: &str, place: &str| {
            Device { name: name.to_owned(), place: format!("../../devices/{place}/{name}"), ..Device::default() }.kind()
        };
        for (name, place, expected) in [
            ("nullb0", "virtual/block", LayerKind::Other),
            ("ublkb0", "virtual/block", LayerKind::Other),
            ("emcpowera", "virtual/block", LayerKind::Other),
            ("nvme0n1", "virtual/nvme-subsystem/nvme-subsys0", LayerKind::Disk),
            ("mtdblock0", "virtual/mtd/mtd0", LayerKind::Disk),
            ("sda", "pci0000:00/ata1/block", LayerKind::Disk),
        ] {
            assert_eq!(kind(name, place), expected, "{name}");
        }
    }

    #[test]
    fn a_disk_of_a_provider_is_virtual() {
        let disk = |name: &str, model: &str, place: &str| {
            Device { name: name.to_owned(), model: model.to_owned(), place: place.to_owned(), ..Device::default() }
                .kind()
        };
        let pci = "../../devices/pci0000:00/0000:00:1f.0/nvme/nvme0/nvme0n1";
        for (name, model) in [
            ("nvme0n1", "Alibaba Cloud Elastic Block Storage"),
            ("nvme0n1", "Amazon Elastic Block Store"),
            ("nvme0n1", "Amazon EC2 NVMe Instance Storage"),
            ("nvme0n1", "nvme_card-pd"),
            ("nvme0n1", "MSFT NVMe Accelerator v1.0"),
            ("sda", "Google PersistentDisk"),
            ("sda", "Msft Virtual Disk"),
            ("sda", "ATA QEMU HARDDISK"),
            ("sda", "AIX VDASD"),
            ("sda", "ATA BHYVE SATA DISK"),
            ("nvme0n1", "bhyve-NVMe"),
            ("sda", "ACME Virtual disk"),
            ("vda", ""),
            ("xvda", ""),
        ] {
            assert_eq!(disk(name, model, pci), LayerKind::Virtual, "{name} {model}");
        }
        assert_eq!(disk("sda", "LIO-ORG disk", "../../devices/platform/host3/session1/target"), LayerKind::Virtual);
        let fabrics = "../../devices/virtual/nvme-fabrics/ctl/nvme0/nvme0n1";
        assert_eq!(disk("nvme0n1", "Linux", fabrics), LayerKind::Virtual);
        for model in ["Samsung SSD 980 PRO", "Dell Virtual Disk", "DELL Virtual Disk"] {
            assert_eq!(disk("nvme0n1", model, pci), LayerKind::Disk, "{model}");
        }
    }
}
