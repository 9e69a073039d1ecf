//! Volumes of Windows and what BitLocker says of them, by the numbers of `Win32_EncryptableVolume`.
//!
//! Never by the text of `manage-bde`, which is in the host's language. Written from Microsoft's documentation of the
//! classes; **it has never run on Windows**. Encryption by another product is not seen: such a volume reads as not encrypted.

use std::collections::BTreeMap;

use muster_proto::fact::{
    Cause, Crypt, CryptFormat, DiskEncryption, KeyProtector, Layer, LayerKind, PathText, Protection, Reading, SwapArea,
    SwapKind, Text, Unknown, Volume, VolumeKind,
};
use serde::Deserialize;

use crate::{
    host::{Host, Script},
    probe::{answer, system::is_virtual_hardware},
};

/// Types of partitions that start or repair the system: EFI system, Microsoft recovery, Microsoft reserved (the page of
/// `PARTITION_INFORMATION_GPT`).
const BOOT_PARTITIONS: &[&str] = &[
    "{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}",
    "{de94bba4-06d1-4d40-a16a-bfd50179d6ac}",
    "{e3c9e316-0b5c-4db8-817d-f92df00215ae}",
];
/// Type of the partition that repairs the system on a disk with a master boot record (the page "Configure BIOS/MBR-based hard drive
/// partitions"): `MbrType` of `MSFT_Partition`, which is told there alone.
const MBR_RECOVERY: u32 = 0x27;
/// `BusType` of `MSFT_Disk`: file backed virtual.
const IN_FILE: u32 = 15;
/// Buses of disks that are taken along, on the same page: 1394, USB, SD and MMC.
const TAKEN_ALONG: &[u32] = &[4, 7, 12, 13];
/// Bus that Windows does not know, on the same page.
const NO_BUS: u32 = 0;
/// `VolumeType` of `Win32_EncryptableVolume`: portable. Fixed disks on some controllers of SAS, and in guests of VMware, have it too
/// (dsccommunity/xBitlocker, issue 11).
const PORTABLE: u32 = 2;
/// `FVE_E_LOCKED_VOLUME` of winerror.h.
const LOCKED_VOLUME: u32 = 0x8031_0000;

/// `Win32_Volume`.
#[derive(Debug, Deserialize)]
struct Mounted {
    id: String,
    path: Option<String>,
    file_system: Option<String>,
    drive_type: Option<u32>,
    capacity: Option<u64>,
    boot: Option<bool>,
    system: Option<bool>,
}

impl Mounted {
    /// Whether a letter or a folder leads to it.
    fn has_path(&self) -> bool {
        self.path.as_ref().is_some_and(|path| !path.eq_ignore_ascii_case(&self.id))
    }

    /// Whether it only starts or repairs the system. What a letter or a folder leads to may hold anything, whatever starts from it.
    fn is_boot(&self, boot_paths: &[String]) -> bool {
        let is_by_type = boot_paths.contains(&self.id.to_ascii_lowercase());
        !self.has_path() && (is_by_type || self.system == Some(true) && self.boot == Some(false))
    }
}

/// `Win32_EncryptableVolume` with what its methods return: for each the result, 0 for success, and the value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Encryptable {
    id: String,
    volume_type: Option<u32>,
    conversion_result: Option<i64>,
    conversion: Option<i64>,
    percent: Option<i64>,
    protection_result: Option<i64>,
    protection: Option<i64>,
    lock_result: Option<i64>,
    lock: Option<i64>,
    method_result: Option<i64>,
    method: Option<i64>,
    keys: Vec<Option<u32>>,
}

/// `MSFT_Partition`, and the bus of the `MSFT_Disk` that it is on.
#[derive(Deserialize)]
struct Partition {
    paths: Vec<Option<String>>,
    gpt_type: Option<String>,
    #[serde(default)]
    mbr_type: Option<u32>,
    /// Not there in captures of earlier builds.
    #[serde(default)]
    bus: Option<u32>,
}

impl Partition {
    /// Whether it only starts or repairs the system.
    fn is_boot(&self) -> bool {
        let gpt_type = self.gpt_type.as_deref().unwrap_or_default().to_ascii_lowercase();
        BOOT_PARTITIONS.contains(&gpt_type.as_str()) || self.mbr_type == Some(MBR_RECOVERY)
    }
}

#[derive(Deserialize)]
struct Computer {
    vendor: Option<String>,
    model: Option<String>,
}

#[derive(Deserialize)]
struct PageFile {
    path: String,
}

pub(super) fn state(host: &dyn Host) -> Result<DiskEncryption, Unknown> {
    let answer = answer::ask(host, Script::Volumes)?;
    let mounted: Vec<Mounted> = answer.part("volumes")?;
    let partitions: Result<Vec<Partition>, Unknown> = answer.part("partitions");
    let paths = |wanted: fn(&Partition) -> bool| -> Vec<String> {
        let partitions = partitions.iter().flatten().filter(|partition| wanted(partition));
        partitions
            .flat_map(|partition| partition.paths.iter().flatten().map(|path| path.to_ascii_lowercase()))
            .collect()
    };
    let boot_paths = paths(Partition::is_boot);
    let in_file_paths = paths(|partition| partition.bus == Some(IN_FILE));
    let encryptable = answer.part::<Encryptable>("encryptable").map(|volumes| {
        volumes.into_iter().map(|volume| (volume.id.to_ascii_lowercase(), volume)).collect::<BTreeMap<_, _>>()
    });
    let is_virtual = answer
        .one::<Computer>("computer")
        .map(|computer| is_virtual_hardware(&computer.vendor.unwrap_or_default(), &computer.model.unwrap_or_default()));
    let mut volumes = Vec::new();
    for mounted in &mounted {
        // A drive without a medium.
        if mounted.capacity.is_none() && matches!(mounted.drive_type, Some(2 | 5)) {
            continue;
        }
        let bitlocker = match &encryptable {
            Ok(volumes) => volumes.get(&mounted.id.to_ascii_lowercase()).ok_or_else(|| {
                Unknown::new(Cause::Unsupported, "BitLocker does not list the volume, and nothing else is asked")
            }),
            Err(unknown) => Err(unknown.clone()),
        };
        let is_portable = match &bitlocker {
            Ok(volume) if volume.volume_type == Some(PORTABLE) => is_taken_along(&partitions, &mounted.id),
            _ => Ok(false),
        };
        let mut volume = volume(mounted, mounted.is_boot(&boot_paths), bitlocker, &is_portable, &is_virtual);
        // Without the partitions a volume that no path leads to may be one that only starts or repairs the system.
        if let (Err(unknown), false, Reading::Known(false)) = (&partitions, mounted.has_path(), &volume.encrypted) {
            volume.encrypted = Reading::Unknown { unknown: unknown.clone() };
        }
        if in_file_paths.contains(&mounted.id.to_ascii_lowercase()) {
            volume.encrypted = in_file(volume.encrypted, volume.protection.as_ref());
        }
        volumes.push(volume);
    }
    volumes.sort_by(|a, b| (&a.mount_point, &a.source).cmp(&(&b.mount_point, &b.source)));
    let swap_areas = match answer.part::<PageFile>("page_files") {
        Ok(files) => {
            let mut areas: Vec<SwapArea> = files.iter().map(|file| page_file(&file.path, &mounted, &volumes)).collect();
            areas.sort_by(|a, b| a.name.cmp(&b.name));
            areas
        }
        Err(unknown) => vec![area("pagefile.sys", Vec::new(), Reading::Unknown { unknown })],
    };
    Ok(DiskEncryption { volumes, swap_areas, volumes_complete: Some(Reading::Known(true)) })
}

fn volume(
    mounted: &Mounted,
    is_boot: bool,
    bitlocker: Result<&Encryptable, Unknown>,
    is_portable: &Result<bool, Unknown>,
    is_virtual: &Result<bool, Unknown>,
) -> Volume {
    // DriveType of Win32_Volume.
    let kind = match mounted.drive_type {
        _ if is_boot => VolumeKind::Boot,
        // Wherever the disk is: Windows runs from it.
        _ if mounted.boot == Some(true) => VolumeKind::Fixed,
        Some(2) => VolumeKind::Removable,
        Some(4) => VolumeKind::Network,
        Some(5) => VolumeKind::Image,
        Some(6) => VolumeKind::Memory,
        _ if *is_portable == Ok(true) => VolumeKind::Removable,
        _ => VolumeKind::Fixed,
    };
    let state = match &bitlocker {
        Ok(volume) => State::of(volume),
        Err(unknown) => State::unknown(unknown),
    };
    // What a virtual disk is kept on cannot be seen from inside.
    let encrypted = match (state.protection.known(), is_virtual) {
        (Some(Protection::Off), Ok(true)) => Reading::unknown(Cause::Hidden, "disk of a virtual machine"),
        (Some(Protection::Off), Err(unknown)) => Reading::Unknown { unknown: unknown.clone() },
        _ => state.encrypted,
    };
    // A disk that may be taken along is no fixed one that is known to be plain.
    let encrypted = match (is_portable, kind, encrypted) {
        (Err(unknown), VolumeKind::Fixed, Reading::Known(false)) if mounted.boot != Some(true) => {
            Reading::Unknown { unknown: unknown.clone() }
        }
        (_, _, encrypted) => encrypted,
    };
    let mut key_protectors: Vec<KeyProtector> =
        bitlocker_keys(bitlocker.as_ref().map_or(&[][..], |volume| volume.keys.as_slice())).collect();
    key_protectors.sort_by_key(|protector| protector.as_str());
    key_protectors.dedup();
    let layers = match (bitlocker, state.protection.known()) {
        (Ok(volume), protection) if protection != Some(&Protection::Off) => vec![layer(&mounted.id, volume)],
        _ => Vec::new(),
    };
    Volume {
        mount_point: path(mounted.path.as_deref().unwrap_or(&mounted.id)),
        file_system: Text::new(mounted.file_system.as_deref().unwrap_or_default()),
        source: path(&mounted.id),
        kind,
        layers,
        encrypted,
        protection: Some(state.protection),
        encrypted_percent: state.percent,
        key_protectors,
        encrypted_folders: Vec::new(),
    }
}

/// Returns whether all disks that hold the volume `id` are on buses of such as are taken along.
fn is_taken_along(partitions: &Result<Vec<Partition>, Unknown>, id: &str) -> Result<bool, Unknown> {
    let partitions = partitions.as_ref().map_err(Unknown::clone)?;
    let is_of = |partition: &&Partition| partition.paths.iter().flatten().any(|path| path.eq_ignore_ascii_case(id));
    let buses: Vec<Option<u32>> =
        partitions.iter().filter(is_of).map(|partition| partition.bus.filter(|bus| *bus != NO_BUS)).collect();
    if buses.iter().flatten().any(|bus| !TAKEN_ALONG.contains(bus)) {
        return Ok(false);
    }
    if buses.is_empty() || buses.contains(&None) {
        let detail = "BitLocker calls the volume portable, and the bus of its disk is not told";
        return Err(Unknown::new(Cause::Undecidable, detail));
    }
    Ok(true)
}

/// A virtual disk is kept in a file, and which volume holds that is not asked: it is encrypted where that is.
fn in_file(encrypted: Reading<bool>, protection: Option<&Reading<Protection>>) -> Reading<bool> {
    match protection {
        Some(Reading::Known(Protection::Off)) if encrypted == Reading::Known(false) => Reading::unknown(
            Cause::Undecidable,
            "virtual disk in a file: whether the volume that holds it is encrypted",
        ),
        _ => encrypted,
    }
}

/// What BitLocker's numbers come to.
#[derive(Debug, Eq, PartialEq)]
struct State {
    encrypted: Reading<bool>,
    protection: Reading<Protection>,
    percent: Option<Reading<u64>>,
}

impl State {
    fn unknown(unknown: &Unknown) -> Self {
        let (encrypted, protection) =
            (Reading::Unknown { unknown: unknown.clone() }, Reading::Unknown { unknown: unknown.clone() });
        Self { encrypted, protection, percent: None }
    }

    /// Values as on the pages of GetConversionStatus, GetProtectionStatus and GetLockStatus of Win32_EncryptableVolume.
    fn of(volume: &Encryptable) -> Self {
        let is_locked = |result: Option<i64>| result.map(|result| result as u32) == Some(LOCKED_VOLUME);
        if value(volume.lock_result, volume.lock, "GetLockStatus") == Ok(1) || is_locked(volume.conversion_result) {
            return Self {
                encrypted: Reading::unknown(Cause::Hidden, "the volume is locked, which hides how much is encrypted"),
                protection: Reading::Known(Protection::Locked),
                percent: None,
            };
        }
        let conversion = match value(volume.conversion_result, volume.conversion, "GetConversionStatus") {
            Ok(conversion) => conversion,
            Err(unknown) => return Self::unknown(&unknown),
        };
        let protection = match conversion {
            0 => Protection::Off,
            1 => match value(volume.protection_result, volume.protection, "GetProtectionStatus") {
                Ok(0) => Protection::Suspended,
                Ok(1) => Protection::On,
                Ok(2) => return Self::unknown(&Unknown::new(Cause::Undecidable, "GetProtectionStatus says unknown")),
                Ok(other) => return Self::unknown(&undocumented("GetProtectionStatus", other)),
                Err(unknown) => return Self::unknown(&unknown),
            },
            2 => Protection::Encrypting,
            3 => Protection::Decrypting,
            4 => Protection::EncryptionPaused,
            5 => Protection::DecryptionPaused,
            other => return Self::unknown(&undocumented("GetConversionStatus", other)),
        };
        let percent = (2..=5).contains(&conversion).then(|| match volume.percent.map(u64::try_from) {
            Some(Ok(percent @ 0..=100)) => Reading::Known(percent),
            _ => Reading::unknown(Cause::Garbled, "GetConversionStatus gave no percentage"),
        });
        Self {
            encrypted: Reading::Known(protection == Protection::On),
            protection: Reading::Known(protection),
            percent,
        }
    }
}

/// Returns the value that `method` gave, when it succeeded.
fn value(result: Option<i64>, value: Option<i64>, method: &str) -> Result<i64, Unknown> {
    match (result, value) {
        (Some(0), Some(value)) => Ok(value),
        (Some(0) | None, _) => Err(Unknown::new(Cause::Garbled, format!("{method} gave no value"))),
        (Some(error), _) => {
            let detail = format!("{method} failed with {:#010x}", error as u32);
            Err(Unknown::new(answer::failure_cause(error, 0), detail))
        }
    }
}

fn undocumented(method: &str, value: i64) -> Unknown {
    Unknown::new(Cause::Unsupported, format!("{method} gave {value}, which is not documented"))
}

fn layer(id: &str, volume: &Encryptable) -> Layer {
    let (cipher, key_bits) = match value(volume.method_result, volume.method, "GetEncryptionMethod").and_then(cipher) {
        Ok((cipher, bits)) => (Reading::Known(Text::new(cipher)), Reading::Known(bits)),
        Err(unknown) => (Reading::Unknown { unknown: unknown.clone() }, Reading::Unknown { unknown }),
    };
    Layer {
        device: Text::new(id.trim_start_matches(r"\\?\").trim_end_matches('\\')),
        kind: LayerKind::Crypt,
        name: Text::default(),
        crypt: Some(Crypt { format: CryptFormat::Bitlocker, cipher, key_bits, key_slots: None }),
        below: Vec::new(),
    }
}

/// Values as on the page of GetEncryptionMethod, named as dm-crypt names the same ciphers: two keys of XTS and of the diffuser
/// count as one of twice the size.
fn cipher(method: i64) -> Result<(&'static str, u64), Unknown> {
    Ok(match method {
        1 => ("aes-cbc-elephant", 256),
        2 => ("aes-cbc-elephant", 512),
        3 => ("aes-cbc-eboiv", 128),
        4 => ("aes-cbc-eboiv", 256),
        5 => return Err(Unknown::new(Cause::Hidden, "the drive encrypts by itself")),
        6 => ("aes-xts-plain64", 256),
        7 => ("aes-xts-plain64", 512),
        other => return Err(undocumented("GetEncryptionMethod", other)),
    })
}

/// Values as on the page of GetKeyProtectorType.
fn bitlocker_keys(types: &[Option<u32>]) -> impl Iterator<Item = KeyProtector> {
    types.iter().map(|number| match number {
        Some(1) => KeyProtector::Tpm,
        Some(2) => KeyProtector::ExternalKey,
        Some(3) => KeyProtector::RecoveryPassword,
        Some(4) => KeyProtector::TpmPin,
        Some(5) => KeyProtector::TpmStartupKey,
        Some(6) => KeyProtector::TpmPinStartupKey,
        Some(7) => KeyProtector::PublicKey,
        Some(8) => KeyProtector::Password,
        Some(9) => KeyProtector::TpmCertificate,
        Some(10) => KeyProtector::Cng,
        Some(_) | None => KeyProtector::Other,
    })
}

/// A page file is where the longest mount point above it is. Windows does not tell letters apart by their case.
fn page_file(file: &str, mounted: &[Mounted], volumes: &[Volume]) -> SwapArea {
    let lower = file.to_ascii_lowercase();
    let holder = mounted
        .iter()
        .filter(|volume| volume.path.as_ref().is_some_and(|path| lower.starts_with(&path.to_ascii_lowercase())))
        .max_by_key(|volume| volume.path.as_ref().map_or(0, String::len));
    let volume = holder.and_then(|holder| volumes.iter().find(|volume| volume.source == path(&holder.id)));
    match volume {
        Some(volume) => area(file, volume.layers.clone(), volume.encrypted.clone()),
        None => area(file, Vec::new(), Reading::unknown(Cause::Hidden, "no volume holds the file")),
    }
}

fn area(name: &str, layers: Vec<Layer>, encrypted: Reading<bool>) -> SwapArea {
    SwapArea { name: PathText::from_bytes(name.as_bytes()), kind: SwapKind::File, layers, encrypted }
}

/// Returns a path without the backslash at its end, so that a drive is its letter and a colon.
fn path(path: &str) -> PathText {
    PathText::from_bytes(path.trim_end_matches('\\').as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(conversion: i64, protection: i64, lock: i64) -> Encryptable {
        Encryptable {
            conversion_result: Some(0),
            conversion: Some(conversion),
            percent: Some(42),
            protection_result: Some(0),
            protection: Some(protection),
            lock_result: Some(0),
            lock: Some(lock),
            ..Encryptable::default()
        }
    }

    #[test]
    fn only_a_volume_that_is_whole_and_protected_is_encrypted() {
        for (conversion, protection, lock, expected, encrypted) in [
            (0, 0, 0, Protection::Off, Some(false)),
            (1, 1, 0, Protection::On, Some(true)),
            (1, 0, 0, Protection::Suspended, Some(false)),
            (2, 0, 0, Protection::Encrypting, Some(false)),
            (2, 1, 0, Protection::Encrypting, Some(false)),
            (3, 0, 0, Protection::Decrypting, Some(false)),
            (4, 0, 0, Protection::EncryptionPaused, Some(false)),
            (5, 0, 0, Protection::DecryptionPaused, Some(false)),
            (1, 2, 1, Protection::Locked, None),
            (0, 0, 1, Protection::Locked, None),
        ] {
            let state = State::of(&numbers(conversion, protection, lock));
            assert_eq!(state.protection, Reading::Known(expected), "{conversion} {protection} {lock}");
            assert_eq!(state.encrypted.known().copied(), encrypted, "{expected:?}");
            let is_converting = (2..=5).contains(&conversion);
            assert_eq!(state.percent, is_converting.then_some(Reading::Known(42)), "{expected:?}");
        }
    }

    /// Returns the kinds of `C:`, as `c` says, and of a data drive with these signs.
    fn kinds(c: (u32, bool), path: &str, is_system: bool, gpt_type: &str) -> Vec<VolumeKind> {
        let id = r"\\?\Volume{3f2a1b04-0000-4000-8000-000000000004}\";
        let mounted = |path: &str, drive_type, boot, system| Mounted {
            id: if boot { "c".to_owned() } else { id.to_owned() },
            path: Some(if path.is_empty() { id.to_owned() } else { path.to_owned() }),
            file_system: None,
            drive_type: Some(drive_type),
            capacity: Some(1),
            boot: Some(boot),
            system: Some(system),
        };
        let boot_paths =
            Partition { paths: Vec::new(), gpt_type: Some(gpt_type.to_owned()), mbr_type: None, bus: None };
        let boot_paths = if boot_paths.is_boot() { vec![id.to_ascii_lowercase()] } else { Vec::new() };
        [mounted(r"C:\", c.0, c.1, false), mounted(path, 3, false, is_system)]
            .iter()
            .map(|mounted| {
                let unlisted = Err(Unknown::new(Cause::Unsupported, ""));
                volume(mounted, mounted.is_boot(&boot_paths), unlisted, &Ok(false), &Ok(false)).kind
            })
            .collect()
    }

    #[test]
    fn a_volume_is_what_is_kept_on_it_and_not_what_it_is_called() {
        use VolumeKind::{Boot, Fixed, Removable};
        let (efi, data) = ("{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}", "{ebd0a0a2-b9e5-4433-87c0-68b6b72699c7}");
        let recovery = "{DE94BBA4-06D1-4D40-A16A-BFD50179D6AC}";
        for (c, path, is_system, gpt_type, expected) in [
            ((3, true), "", true, efi, [Fixed, Boot]),
            ((3, true), "", false, recovery, [Fixed, Boot]),
            ((3, true), "", false, data, [Fixed, Fixed]),
            // The boot manager is on it too, or its partition has the type of another use.
            ((3, true), r"D:\", true, data, [Fixed, Fixed]),
            ((3, true), r"C:\data\", false, recovery, [Fixed, Fixed]),
            // Windows runs from a removable disk.
            ((2, true), "", true, efi, [Fixed, Boot]),
        ] {
            assert_eq!(kinds(c, path, is_system, gpt_type), expected, "{c:?} {path} {is_system} {gpt_type}");
        }
        let stick = Mounted {
            id: "e".to_owned(),
            path: Some(r"E:\".to_owned()),
            file_system: None,
            drive_type: Some(2),
            capacity: Some(1),
            boot: Some(false),
            system: Some(true),
        };
        let unlisted = Err(Unknown::new(Cause::Unsupported, ""));
        assert_eq!(volume(&stick, stick.is_boot(&[]), unlisted, &Ok(false), &Ok(false)).kind, Removable);
    }

    #[test]
    fn what_bitlocker_calls_portable_is_removable_on_buses_of_disks_that_are_taken_along_alone() {
        use VolumeKind::{Fixed, Removable};
        let id = r"\\?\Volume{3f2a1b04-0000-4000-8000-000000000004}\";
        let drive = |drive_type, boot| Mounted {
            id: id.to_owned(),
            path: Some(r"D:\".to_owned()),
            file_system: None,
            drive_type: Some(drive_type),
            capacity: Some(1),
            boot: Some(boot),
            system: Some(false),
        };
        let on = |buses: &[Option<u32>]| {
            let partition = |bus: &Option<u32>| Partition {
                paths: vec![None, Some(r"D:\".to_owned()), Some(id.to_ascii_uppercase())],
                gpt_type: None,
                mbr_type: None,
                bus: *bus,
            };
            let other =
                Partition { paths: vec![Some(r"E:\".to_owned())], gpt_type: None, mbr_type: None, bus: Some(7) };
            is_taken_along(&Ok(buses.iter().map(partition).chain([other]).collect()), id)
        };
        let plain = numbers(0, 0, 0);
        let read = |mounted: &Mounted, is_portable| {
            let volume = volume(mounted, false, Ok(&plain), &is_portable, &Ok(false));
            let encrypted = match volume.encrypted {
                Reading::Known(encrypted) => Ok(encrypted),
                Reading::Unknown { unknown } => Err(unknown.cause),
            };
            (volume.kind, encrypted)
        };
        for bus in [8, 10, 11, 17, 99] {
            assert_eq!(read(&drive(3, false), on(&[Some(bus)])), (Fixed, Ok(false)), "{bus}");
        }
        for bus in TAKEN_ALONG {
            assert_eq!(read(&drive(3, false), on(&[Some(*bus)])), (Removable, Ok(false)), "{bus}");
        }
        let untold = (Fixed, Err(Cause::Undecidable));
        for (buses, expected) in [
            (&[Some(7), Some(10)][..], (Fixed, Ok(false))),
            (&[None, Some(10)], (Fixed, Ok(false))),
            (&[None, Some(7)], untold),
            (&[Some(NO_BUS)], untold),
            (&[None], untold),
            (&[], untold),
        ] {
            assert_eq!(read(&drive(3, false), on(buses)), expected, "{buses:?}");
        }
        let refused = is_taken_along(&Err(Unknown::new(Cause::Forbidden, "")), id);
        assert_eq!(read(&drive(3, false), refused), (Fixed, Err(Cause::Forbidden)));
        // Windows says itself that it is removable, or runs from it.
        assert_eq!(read(&drive(2, false), on(&[])), (Removable, Ok(false)));
        assert_eq!(read(&drive(3, true), on(&[Some(7)])), (Fixed, Ok(false)));
        assert_eq!(read(&drive(3, true), on(&[])), (Fixed, Ok(false)));
        let whole = volume(&drive(3, false), false, Ok(&numbers(1, 1, 0)), &on(&[]), &Ok(false));
        assert_eq!((whole.kind, whole.encrypted), (Fixed, Reading::Known(true)));
    }

    #[test]
    fn a_disk_in_a_file_is_as_the_volume_that_holds_it() {
        let off = Reading::Known(Protection::Off);
        let found = in_file(Reading::Known(false), Some(&off));
        assert!(matches!(found, Reading::Unknown { unknown } if unknown.cause == Cause::Undecidable));
        for protection in [Protection::Suspended, Protection::Decrypting] {
            let protection = Reading::Known(protection);
            assert_eq!(in_file(Reading::Known(false), Some(&protection)), Reading::Known(false));
        }
        let hidden = Reading::unknown(Cause::Hidden, "");
        assert_eq!(in_file(hidden.clone(), Some(&off)), hidden);
        let partition = r#"{"paths":["E:\\"],"gpt_type":null,"mbr_type":7,"bus":15}"#;
        assert_eq!(serde_json::from_str::<Partition>(partition).unwrap().bus, Some(IN_FILE));
    }

    #[test]
    fn a_number_that_is_not_documented_or_not_there_is_unknown() {
        let cause = |volume: &Encryptable| match State::of(volume) {
            State { encrypted: Reading::Unknown { unknown }, protection: Reading::Unknown { .. }, .. } => unknown.cause,
            state => panic!("{state:?}"),
        };
        assert_eq!(cause(&numbers(6, 1, 0)), Cause::Unsupported);
        assert_eq!(cause(&numbers(1, 3, 0)), Cause::Unsupported);
        assert_eq!(cause(&numbers(1, 2, 0)), Cause::Undecidable);
        assert_eq!(cause(&Encryptable::default()), Cause::Garbled);
        let refused = Encryptable { conversion_result: Some(0x8007_0005), ..numbers(1, 1, 0) };
        assert_eq!(cause(&refused), Cause::Forbidden);
        let locked = Encryptable { conversion_result: Some(i64::from(LOCKED_VOLUME)), ..numbers(1, 1, 0) };
        assert_eq!(State::of(&locked).protection, Reading::Known(Protection::Locked));
    }
}
