//! Volumes of macOS and what APFS says of their encryption.
//!
//! What is mounted comes from mount(8), what APFS knows from `diskutil apfs list -plist`, and which disks are attached images
//! from `hdiutil info -plist`. Written from documentation and from lists that others published; **it has never run on macOS**.
//! Core Storage, which macOS 10.13 left, is not read.

use std::collections::BTreeSet;

use muster_proto::fact::{
    Cause, Crypt, CryptFormat, DiskEncryption, Layer, LayerKind, PathText, Protection, Reading, SwapArea, SwapKind,
    Text, Unknown, Volume, VolumeKind,
};

use crate::{
    host::{self, Host, Tool},
    probe::{
        plist::{self, Value},
        system::is_guest,
    },
};

/// Roles of volumes that start or repair the system, or belong to its hardware. Anyone who makes a volume may give it one.
const BOOT_ROLES: &[&str] = &["Preboot", "Recovery", "Update", "Hardware", "xART", "Prelogin", "Installer"];

/// Where the system that runs has its files: since macOS 10.15 `/` is what Apple published, and the rest is in the other.
const OWN_PLACES: &[&[u8]] = &[b"/", b"/System/Volumes/Data"];

/// Where the system mounts volumes of its own, the one with all data among them: nobody else can make a folder there.
const SYSTEM_PLACE: &[u8] = b"/System/Volumes/";

/// Where the volume with the role VM is mounted, and was until macOS 10.15.
const SWAP_PLACES: &[&[u8]] = &[b"/System/Volumes/VM", b"/private/var/vm"];

pub(super) fn state(host: &dyn Host) -> Result<DiskEncryption, Unknown> {
    let mounts = host.run(Tool::Mount, &[]).map_err(|error| host::unknown("run mount", &error))?;
    let mounts = parse_mounts(&mounts)
        .filter(|mounts| !mounts.is_empty())
        .ok_or_else(|| Unknown::new(Cause::Garbled, "mount printed a line that does not follow its format"))?;
    let apfs = list(host, Tool::Diskutil, &["apfs", "list", "-plist"]).and_then(|list| {
        Apfs::of(&list).ok_or_else(|| Unknown::new(Cause::Garbled, "diskutil apfs list gave no list of containers"))
    });
    let external = list(host, Tool::Diskutil, &["list", "-plist", "external"]).and_then(|list| {
        let absent = || Unknown::new(Cause::Garbled, "diskutil list external has no AllDisks");
        list.array("AllDisks").map(|_| names(&list, "AllDisks")).ok_or_else(absent)
    });
    let look = Look { host, apfs, external, images: images(host) };
    let (mut volumes, mut swap_areas) = (Vec::new(), Vec::new());
    for mount in mounts.iter().filter(|mount| !mount.is_pseudo()) {
        match look.apfs_volume(mount) {
            Some(Ok((container, volume))) if volume.has_role(&["VM"]) => {
                swap_areas.push(look.swap_area(mount, Ok((container, volume))));
            }
            // Without the roles, the place tells.
            Some(Err(unknown)) if SWAP_PLACES.contains(&mount.mount_point.as_slice()) => {
                swap_areas.push(look.swap_area(mount, Err(unknown)));
            }
            found => volumes.push(look.volume(mount, found)),
        }
    }
    volumes.sort_by(|a, b| (&a.mount_point, &a.source).cmp(&(&b.mount_point, &b.source)));
    swap_areas.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(DiskEncryption { volumes, swap_areas, volumes_complete: Some(Reading::Known(true)) })
}

/// Returns the property list that `tool` prints.
fn list(host: &dyn Host, tool: Tool, args: &[&str]) -> Result<Value, Unknown> {
    let what = || format!("{} {}", tool.name(), args.join(" "));
    let output = host.run(tool, args).map_err(|error| host::unknown(format!("run {}", what()), &error))?;
    plist::parse(&output).ok_or_else(|| Unknown::new(Cause::Garbled, format!("{} printed no property list", what())))
}

/// Returns the devices of attached disk images, such as `disk8s1`: each `dev-entry` of hdiutil(1). An entity without one has no device.
fn images(host: &dyn Host) -> Result<BTreeSet<String>, Unknown> {
    let list = list(host, Tool::Hdiutil, &["info", "-plist"])?;
    let devices = || {
        let mut devices = BTreeSet::new();
        for image in list.array("images")? {
            for entity in image.array("system-entities")? {
                match entity.get("dev-entry") {
                    Some(Value::Text(device)) => drop(devices.insert(device.strip_prefix("/dev/")?.to_owned())),
                    Some(_) => return None,
                    None => {}
                }
            }
        }
        Some(devices)
    };
    devices().ok_or_else(|| Unknown::new(Cause::Garbled, "hdiutil info gave no list of images"))
}

/// A line of mount(8).
#[derive(Debug, Eq, PartialEq)]
struct Mount {
    source: Vec<u8>,
    mount_point: Vec<u8>,
    file_system: String,
    options: Vec<String>,
}

impl Mount {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|other| other == option)
    }

    /// Whether it stores nothing of its own.
    fn is_pseudo(&self) -> bool {
        matches!(self.file_system.as_str(), "devfs" | "autofs" | "fdesc" | "nullfs" | "unionfs")
    }

    /// Whether the system that runs has its files here.
    fn is_own(&self) -> bool {
        OWN_PLACES.contains(&self.mount_point.as_slice())
    }

    /// Whether the system mounted it for itself.
    fn is_by_system(&self) -> bool {
        self.mount_point.strip_prefix(SYSTEM_PLACE).is_some_and(|rest| !rest.starts_with(b"Data/"))
    }

    /// Returns the name of its device, such as `disk3s1s1`.
    ///
    /// A snapshot of Time Machine is `com.apple.TimeMachine.2026-11-24-101500.local@/dev/disk3s5`, a file system that a program of
    /// macOS serves `msdos://disk5s1/STICK`.
    fn device(&self) -> Option<&str> {
        let source = std::str::from_utf8(&self.source).ok()?;
        match self.file_system.as_str() {
            "apfs" => source.rsplit_once('@').map_or(source, |(_, device)| device).strip_prefix("/dev/"),
            "lifs" => source.split_once("://")?.1.split('/').next(),
            _ => source.strip_prefix("/dev/"),
        }
    }
}

/// Returns the mounts of mount(8): lines such as `/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled)`.
///
/// `None` when a line does not follow that. A device's name has no blank, so that the first ` on ` before a path ends it.
fn parse_mounts(output: &[u8]) -> Option<Vec<Mount>> {
    output.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(parse_mount).collect()
}

fn parse_mount(line: &[u8]) -> Option<Mount> {
    let find = |pattern: &[u8]| line.windows(pattern.len()).position(|window| window == pattern);
    let on = find(b" on /")?;
    let open = line.windows(2).rposition(|window| window == b" (").filter(|open| *open >= on + 4)?;
    let inside = std::str::from_utf8(line[open + 2..].strip_suffix(b")")?).ok()?;
    let mut words = inside.split(", ").map(str::to_owned);
    let file_system = words.next().filter(|name| !name.is_empty())?;
    let (source, mount_point) = (line[..on].to_vec(), line[on + 4..open].to_vec());
    Some(Mount { source, mount_point, file_system, options: words.collect() })
}

/// A container of APFS.
#[derive(Debug)]
struct Container {
    device: String,
    stores: Vec<String>,
    volumes: Vec<ApfsVolume>,
}

/// A volume of APFS. A switch that the list does not have is `None`.
#[derive(Debug, Default)]
struct ApfsVolume {
    device: String,
    roles: Vec<String>,
    encryption: Option<bool>,
    filevault: Option<bool>,
    migration: Option<bool>,
    direction: Option<String>,
    progress: Option<f64>,
}

impl ApfsVolume {
    fn has_role(&self, roles: &[&str]) -> bool {
        self.roles.iter().any(|role| roles.contains(&role.as_str()))
    }
}

/// What `diskutil apfs list` tells.
struct Apfs {
    containers: Vec<Container>,
}

impl Apfs {
    fn of(list: &Value) -> Option<Self> {
        let containers = list.array("Containers")?.iter().map(|container| {
            let stores = container.array("PhysicalStores")?.iter();
            Some(Container {
                device: container.text("ContainerReference")?.to_owned(),
                stores: stores.map(|store| Some(store.text("DeviceIdentifier")?.to_owned())).collect::<Option<_>>()?,
                volumes: container.array("Volumes")?.iter().map(volume_of).collect::<Option<_>>()?,
            })
        });
        Some(Self { containers: containers.collect::<Option<_>>()? })
    }
}

fn volume_of(volume: &Value) -> Option<ApfsVolume> {
    Some(ApfsVolume {
        device: volume.text("DeviceIdentifier")?.to_owned(),
        roles: names(volume, "Roles").into_iter().collect(),
        encryption: volume.bool("Encryption"),
        filevault: volume.bool("FileVault"),
        migration: volume.bool("CryptoMigrationOn"),
        direction: volume.text("CryptoMigrationDirection").map(str::to_ascii_lowercase),
        progress: match volume.get("CryptoMigrationProgressPercent") {
            Some(Value::Integer(percent)) => Some(*percent as f64),
            Some(Value::Real(percent)) => Some(*percent),
            _ => None,
        },
    })
}

/// Returns the texts of the list of `key`.
fn names(list: &Value, key: &str) -> BTreeSet<String> {
    let items = list.array(key).unwrap_or_default().iter();
    items.filter_map(|item| if let Value::Text(text) = item { Some(text.clone()) } else { None }).collect()
}

struct Look<'a> {
    host: &'a dyn Host,
    apfs: Result<Apfs, Unknown>,
    external: Result<BTreeSet<String>, Unknown>,
    images: Result<BTreeSet<String>, Unknown>,
}

type Found<'f> = Option<Result<(&'f Container, &'f ApfsVolume), Unknown>>;

impl Look<'_> {
    /// Returns the volume that `mount` mounts, or a snapshot of it; `None` when it is not APFS.
    fn apfs_volume(&self, mount: &Mount) -> Found<'_> {
        if mount.file_system != "apfs" {
            return None;
        }
        let apfs = match &self.apfs {
            Ok(apfs) => apfs,
            Err(unknown) => return Some(Err(unknown.clone())),
        };
        let device = mount.device().unwrap_or_default();
        let is_mounted = |volume: &ApfsVolume| {
            let snapshot = device.strip_prefix(&volume.device);
            snapshot.is_some_and(|rest| {
                rest.is_empty()
                    || rest.strip_prefix('s').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            })
        };
        let found = apfs
            .containers
            .iter()
            .find_map(|container| Some((container, container.volumes.iter().find(|volume| is_mounted(volume))?)));
        let absent = || Unknown::new(Cause::Absent, format!("diskutil apfs list has no volume {}", Text::new(device)));
        Some(found.ok_or_else(absent))
    }

    fn volume(&self, mount: &Mount, found: Found<'_>) -> Volume {
        let found = match found {
            Some(Ok(found)) => Ok(found),
            Some(Err(unknown)) => Err(unknown),
            None => Err(Unknown::new(Cause::Unsupported, format!("{} is not APFS", Text::new(&mount.file_system)))),
        };
        let kind = self.kind(mount, found.as_ref().ok().copied());
        let is_network = kind == VolumeKind::Network;
        let (state, layers) = match found {
            Ok((container, volume)) => (self.state(volume), layers(container, volume)),
            Err(_) if is_network => {
                (State::unknown(&Unknown::new(Cause::Hidden, "it is kept by another host")), Vec::new())
            }
            Err(unknown) => (State::unknown(&unknown), Vec::new()),
        };
        // A disk that may be an image or at the outside is no fixed one that is known to be plain.
        let encrypted = match (self.images.as_ref().err().or(self.external.as_ref().err()), kind, state.encrypted) {
            (Some(unknown), VolumeKind::Fixed, Reading::Known(false)) if !mount.is_own() => {
                Reading::Unknown { unknown: unknown.clone() }
            }
            (_, _, encrypted) => encrypted,
        };
        Volume {
            mount_point: PathText::from_bytes(&mount.mount_point),
            file_system: Text::new(&mount.file_system),
            source: PathText::from_bytes(&mount.source),
            kind,
            layers,
            encrypted,
            protection: (!is_network).then_some(state.protection),
            encrypted_percent: state.percent,
            key_protectors: Vec::new(),
            encrypted_folders: Vec::new(),
        }
    }

    fn kind(&self, mount: &Mount, found: Option<(&Container, &ApfsVolume)>) -> VolumeKind {
        // Of a volume of APFS, the partitions that its container is kept on count too.
        let is_among = |devices: &Result<BTreeSet<String>, Unknown>| {
            let stores = found.iter().flat_map(|(container, _)| container.stores.iter().map(String::as_str));
            devices
                .as_ref()
                .is_ok_and(|devices| mount.device().into_iter().chain(stores).any(|it| devices.contains(it)))
        };
        match found {
            _ if !mount.has("local") => VolumeKind::Network,
            _ if mount.file_system == "tmpfs" => VolumeKind::Memory,
            Some((_, volume)) if volume.has_role(BOOT_ROLES) && mount.is_by_system() => VolumeKind::Boot,
            // Sealed, it holds what Apple published and nothing else.
            Some((_, volume)) if volume.has_role(&["System"]) && mount.has("read-only") && mount.has("sealed") => {
                VolumeKind::Image
            }
            // Wherever the disk is: it is what the host cannot do without.
            _ if mount.is_own() => VolumeKind::Fixed,
            // Before the outside, to which diskutil(8) counts images. That it is read-only is no sign: so is NTFS of a disk.
            _ if is_among(&self.images) => VolumeKind::Image,
            _ if is_among(&self.external) => VolumeKind::Removable,
            _ => VolumeKind::Fixed,
        }
    }

    fn state(&self, volume: &ApfsVolume) -> State {
        let state = State::of(volume);
        match state.protection.known() {
            Some(Protection::Off | Protection::HardwareKey) if volume.has_role(&["Data", "System"]) => {
                State { protection: self.deferred(state.protection.clone()), ..self.in_guest(state) }
            }
            Some(Protection::Off) => self.in_guest(state),
            _ => state,
        }
    }

    /// What a virtual disk is kept on cannot be seen from inside.
    fn in_guest(&self, state: State) -> State {
        let unknown = match is_guest(self.host) {
            Ok(false) => return state,
            Ok(true) => Unknown::new(Cause::Hidden, "disk of a virtual machine"),
            Err(unknown) => unknown,
        };
        State { encrypted: Reading::Unknown { unknown }, ..state }
    }

    fn deferred(&self, protection: Reading<Protection>) -> Reading<Protection> {
        let output = match self.host.run(Tool::Fdesetup, &["status"]) {
            Ok(output) => output,
            Err(error) => return Reading::Unknown { unknown: host::unknown("run fdesetup status", &error) },
        };
        match is_deferred(&output) {
            Some(true) => Reading::Known(Protection::Deferred),
            Some(false) => protection,
            None => Reading::unknown(Cause::Garbled, "fdesetup status said nothing that is documented"),
        }
    }

    /// The volume with the role VM holds the swap files, which the kernel encrypts by itself.
    fn swap_area(&self, mount: &Mount, found: Result<(&Container, &ApfsVolume), Unknown>) -> SwapArea {
        let encrypted = match self.host.run(Tool::Sysctl, &["-n", "vm.swapusage"]) {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output);
                // The last word tells, so that a line that was cut tells nothing.
                if !text.starts_with("total = ") || !text.ends_with('\n') {
                    Reading::unknown(Cause::Garbled, "vm.swapusage does not follow its format")
                } else if text.trim_end().ends_with("(encrypted)") {
                    Reading::Known(true)
                } else {
                    match &found {
                        Ok((_, volume)) => self.state(volume).encrypted,
                        Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
                    }
                }
            }
            Err(error) => Reading::Unknown { unknown: host::unknown("run sysctl vm.swapusage", &error) },
        };
        let name = PathText::from_bytes(&mount.mount_point);
        let layers = found.map_or_else(|_| Vec::new(), |(container, volume)| layers(container, volume));
        SwapArea { name, kind: SwapKind::Partition, layers, encrypted }
    }
}

/// Returns whether FileVault waits to be switched on, by `fdesetup status`. Where an institutional key is installed, a line on that comes
/// first. fdesetup(8) is not translated: its lines are those of its manual page and of Apple's documents.
fn is_deferred(status: &[u8]) -> Option<bool> {
    let text = std::str::from_utf8(status).ok()?.strip_suffix('\n')?;
    let is_state = |line: &str| line.starts_with("FileVault is On") || line.starts_with("FileVault is Off");
    text.lines().any(is_state).then(|| {
        text.lines()
            .any(|line| line.starts_with("Deferred enablement") || line.contains("will be enabled after the next"))
    })
}

fn layers(container: &Container, volume: &ApfsVolume) -> Vec<Layer> {
    let untold = || Unknown::new(Cause::Unsupported, "diskutil does not tell it");
    let crypt = (volume.encryption == Some(true) || volume.filevault == Some(true)).then(|| Crypt {
        format: CryptFormat::Apfs,
        cipher: Reading::Unknown { unknown: untold() },
        key_bits: Reading::Unknown { unknown: untold() },
        key_slots: None,
    });
    let layer = |device: &str, kind, crypt, below: Vec<Text>| Layer {
        device: Text::new(device),
        kind,
        name: Text::default(),
        crypt,
        below,
    };
    let kind = if crypt.is_some() { LayerKind::Crypt } else { LayerKind::Apfs };
    let mut stores: Vec<Text> = container.stores.iter().map(|store| Text::new(store)).collect();
    stores.sort();
    let mut layers = vec![
        layer(&volume.device, kind, crypt, vec![Text::new(&container.device)]),
        layer(&container.device, LayerKind::Apfs, None, stores.clone()),
    ];
    layers.extend(stores.iter().map(|store| layer(store.as_str(), LayerKind::Partition, None, Vec::new())));
    layers
}

/// What the switches of a volume come to.
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

    fn of(volume: &ApfsVolume) -> Self {
        let (Some(encryption), Some(filevault), Some(migration)) =
            (volume.encryption, volume.filevault, volume.migration)
        else {
            let detail = "diskutil apfs list lacks Encryption, FileVault or CryptoMigrationOn of the volume";
            return Self::unknown(&Unknown::new(Cause::Garbled, detail));
        };
        if migration {
            return Self::converting(volume);
        }
        let protection = match (filevault, encryption) {
            (true, _) => Protection::On,
            // A Mac with a security chip encrypts every volume by itself (Apple Platform Security, volume encryption).
            (false, true) => Protection::HardwareKey,
            (false, false) => Protection::Off,
        };
        Self { encrypted: Reading::Known(filevault), protection: Reading::Known(protection), percent: None }
    }

    /// Some of the volume is not encrypted, whichever way it goes.
    fn converting(volume: &ApfsVolume) -> Self {
        let progress =
            volume.progress.filter(|progress| (0.0..=100.0).contains(progress)).map(|progress| progress as u64);
        let direction = volume.direction.as_deref().unwrap_or_default();
        let (protection, percent) = if direction.starts_with("encrypt") {
            (Reading::Known(Protection::Encrypting), progress)
        } else if direction.starts_with("decrypt") {
            (Reading::Known(Protection::Decrypting), progress.map(|progress| 100 - progress))
        } else {
            (Reading::unknown(Cause::Undecidable, "the volume is being converted, and which way is not told"), None)
        };
        let untold = || Reading::unknown(Cause::Absent, "diskutil apfs list tells no progress");
        let percent = Some(percent.map_or_else(untold, Reading::Known));
        Self { encrypted: Reading::Known(false), protection, percent }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mount_has_its_parts_even_with_blanks_in_its_name() {
        let line = b"/dev/disk5s1 on /Volumes/on (old) disk (exfat, local, nodev)\n";
        let mounts = parse_mounts(line).unwrap();
        assert_eq!(mounts[0].mount_point, b"/Volumes/on (old) disk");
        assert_eq!((mounts[0].device(), mounts[0].file_system.as_str()), (Some("disk5s1"), "exfat"));
        assert!(mounts[0].has("local") && !mounts[0].has("read-only"));
        for garbled in ["/dev/disk1 on /", "/dev/disk1 (apfs)", "x on y (apfs)", "/dev/disk1 on / ()", "Fehler"] {
            assert_eq!(parse_mounts(garbled.as_bytes()), None, "{garbled}");
        }
    }

    #[test]
    fn a_device_is_found_in_what_its_snapshots_and_programs_are_called() {
        for (line, device) in [
            ("/dev/disk3s1s1 on / (apfs, sealed, local)", Some("disk3s1s1")),
            (
                "com.apple.TimeMachine.2025-09-20-101500.local@/dev/disk3s5 on /Volumes/a@/dev/b (apfs, local, read-only)",
                Some("disk3s5"),
            ),
            ("msdos://disk5s1/STICK on /Volumes/STICK (lifs, local, nodev)", Some("disk5s1")),
            ("msdos://disk5s1/Bilder on B on /Volumes/Bilder on B (lifs, local)", Some("disk5s1")),
            // Such a name is told by nobody but these.
            ("sshfs@/dev/disk3s5 on /Volumes/x (macfuse, local)", None),
            ("msdos://disk5s1/STICK on /Volumes/STICK (macfuse, local)", None),
            ("//user@/dev/disk3s5 on /Volumes/x (smbfs, nodev)", None),
        ] {
            let mount = parse_mount(line.as_bytes()).unwrap();
            assert_eq!(mount.device(), device, "{line}");
        }
    }

    #[test]
    fn what_waits_is_told_behind_a_line_on_an_institutional_key_too() {
        let key = "FileVault master keychain appears to be installed.\n";
        let waits = "Deferred enablement appears to be active for user 'alice'.\n";
        for (status, expected) in [
            ("FileVault is Off.\n".to_owned(), Some(false)),
            ("FileVault is On.\n".to_owned(), Some(false)),
            (format!("FileVault is Off.\n{waits}"), Some(true)),
            (format!("{key}FileVault is Off.\n"), Some(false)),
            (format!("{key}FileVault is Off.\n{waits}"), Some(true)),
            (format!("{key}FileVault is Off."), None),
            (key.to_owned(), None),
            (waits.to_owned(), None),
            ("Fehler: FileVault is Off.\n".to_owned(), None),
        ] {
            assert_eq!(is_deferred(status.as_bytes()), expected, "{status}");
        }
    }

    #[test]
    fn a_role_exempts_no_volume_that_the_system_did_not_mount() {
        let kind = |mount_point: &str, role: &str| {
            let line = format!("/dev/disk5s1 on {mount_point} (apfs, local, journaled)");
            let volume =
                ApfsVolume { device: "disk5s1".to_owned(), roles: vec![role.to_owned()], ..ApfsVolume::default() };
            let container =
                Container { device: "disk5".to_owned(), stores: vec!["disk0s4".to_owned()], volumes: Vec::new() };
            let none = Unknown::new(Cause::Absent, "");
            let host = crate::host::Recorded::at(
                &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/disk_encryption/made-up-macos-guest"),
            );
            let host = host.unwrap();
            let look =
                Look { host: &host, apfs: Err(none), external: Ok(BTreeSet::new()), images: Ok(BTreeSet::new()) };
            look.kind(&parse_mount(line.as_bytes()).unwrap(), Some((&container, &volume)))
        };
        assert_eq!(kind("/System/Volumes/Preboot", "Preboot"), VolumeKind::Boot);
        assert_eq!(kind("/Volumes/Work", "Installer"), VolumeKind::Fixed);
        assert_eq!(kind("/System/Volumes/Data/Users/a/Work", "Recovery"), VolumeKind::Fixed);
        assert_eq!(kind("/System/Volumes/Preboot", "Backup"), VolumeKind::Fixed);
    }

    #[test]
    fn only_filevault_that_is_whole_is_encryption() {
        let state = |filevault, encryption, direction: Option<&str>, progress| {
            State::of(&ApfsVolume {
                encryption: Some(encryption),
                filevault: Some(filevault),
                migration: Some(direction.is_some()),
                direction: direction.map(str::to_owned),
                progress,
                ..ApfsVolume::default()
            })
        };
        for (found, protection, encrypted, percent) in [
            (state(true, true, None, None), Some(Protection::On), true, None),
            (state(false, true, None, None), Some(Protection::HardwareKey), false, None),
            (state(false, false, None, None), Some(Protection::Off), false, None),
            (state(true, true, Some("encrypting"), Some(42.5)), Some(Protection::Encrypting), false, Some(42)),
            (state(true, true, Some("decrypting"), Some(42.0)), Some(Protection::Decrypting), false, Some(58)),
            (state(true, true, Some(""), Some(42.0)), None, false, None),
        ] {
            assert_eq!(found.protection.known().copied(), protection, "{found:?}");
            assert_eq!(found.encrypted, Reading::Known(encrypted), "{found:?}");
            assert_eq!(found.percent.as_ref().and_then(Reading::known).copied(), percent, "{found:?}");
        }
        let untold = State::of(&ApfsVolume { filevault: Some(true), ..ApfsVolume::default() });
        assert!(untold.encrypted.known().is_none() && untold.protection.known().is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_mounts(&bytes);
        }
    }
}
