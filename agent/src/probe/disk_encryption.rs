//! Encryption of what holds data at rest: every mounted file system and swap area, with the chain of devices below it.
//!
//! Of Linux the kernel is asked: proc_pid_mountinfo(5), proc_swaps(5), sysfs and ioctl(2); ZFS alone by its program. A volume is encrypted
//! when every path down to a physical device goes through what encrypts; what the kernel cannot see through is unknown, never "no".
//!
//! A file system with fscrypt is encrypted as a whole where the folder that is mounted has a policy. With policies on some folders
//! it is not, and the folders are named; where they are all that is there, no rule decides: what is written beside them is plain.
//!
//! Mounts are those of PID 1, and those of other processes' namespaces on devices which that has not mounted; where `/proc` hides them,
//! the agent's own, and it is unknown whether there are others.

mod below;
mod chain;
mod crypto;
mod device;
mod devices;
mod files;
mod journal;
mod macos;
/// Takes what is on a disk that the root is on for fixed: the host runs from it, be it a card or on USB.
fn fix_own(volumes: &mut [Volume]) {
    let disks = |volume: &Volume| {
        let disks = volume.layers.iter().filter(|layer| layer.kind == LayerKind::Disk);
        disks.map(|layer| layer.device.clone()).collect::<Vec<_>>()
    };
    let own: Vec<Text> = volumes.iter().filter(|volume| volume.mount_point.as_str() == "/").flat_map(disks).collect();
    let is_own = |volume: &&mut Volume| disks(volume).iter().any(|disk| own.contains(disk));
    for volume in volumes.iter_mut().filter(|volume| volume.kind == VolumeKind::Removable).filter(is_own) {
        volume.kind = VolumeKind::Fixed;
    }
}

#[cfg(test)]
mod made;
mod mounts;
mod namespaces;
mod own;
mod policies;
#[cfg(test)]
mod reference;
mod stacked;
mod windows;

use std::{cell::OnceCell, io, path::Path};

use muster_proto::{
    fact::{Cause, DiskEncryption, Fact, LayerKind, OsFamily, Reading, SwapArea, Text, Unknown, Volume, VolumeKind},
    report,
};

use self::{below::Below, devices::Devices};
use super::{Look, Probe, processes};
use crate::host::{self, FILE_BYTES, Host};

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

/// Returns whether all of what a line of proc_pid_mountinfo(5) mounts is on removable disks.
pub(super) fn is_removable(host: &dyn Host, line: &[u8]) -> Result<bool, Unknown> {
    let mounts = mounts::parse(line).unwrap_or_default();
    let mount = mounts.first().ok_or_else(|| Unknown::new(Cause::Garbled, "no line of mountinfo"))?;
    Devices::new(host).are_removable(mount)
}

fn state(host: &dyn Host) -> Result<DiskEncryption, Unknown> {
    let (mounts, hidden) = mountinfo(host)?;
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
    let elsewhere = namespaces::look(host, first, &mounts);
    let below = Below { host, devices: Devices::new(host), mounts: &mounts, datasets: OnceCell::new() };
    let reported = if hidden.is_some() { namespaces::distinct(&mounts) } else { mounts.iter().collect() };
    let reported = reported.into_iter().filter(|mount| !mount.is_pseudo());
    let mut volumes: Vec<Volume> = reported.map(|mount| below.volume(mount)).collect();
    volumes.extend(elsewhere.mounts.iter().map(|mount| below.volume_elsewhere(mount)));
    volumes.sort_by(|a, b| (&a.mount_point, &a.source).cmp(&(&b.mount_point, &b.source)));
    volumes.dedup();
    fix_own(&mut volumes);
    let mut swap_areas: Vec<SwapArea> = swaps.iter().map(|swap| below.swap_area(swap)).collect();
    swap_areas.sort_by(|a, b| a.name.cmp(&b.name));
    let complete = hidden.map_or(elsewhere.complete, |unknown| Reading::Unknown { unknown });
    Ok(DiskEncryption { volumes, swap_areas, volumes_complete: Some(complete) })
}

/// Returns the mounts of PID 1; where those are hidden from the agent, its own, and why.
///
/// The agent may run in a mount namespace of its own, whose binds and covers are not the host's. Its own mounts leave out what is
/// covered in it, and what is in plain on them is so all the same.
fn mountinfo(host: &dyn Host) -> Result<(Vec<u8>, Option<Unknown>), Unknown> {
    let error = match host.read(Path::new("/proc/1/mountinfo"), FILE_BYTES) {
        Ok(bytes) => return Ok((bytes, None)),
        Err(error) => error,
    };
    let unknown = match processes::ids(host) {
        Err(unknown) if unknown.cause == Cause::Forbidden => unknown,
        _ => host::unknown("read /proc/1/mountinfo", &error),
    };
    if unknown.cause != Cause::Forbidden {
        return Err(unknown);
    }
    match host.read(Path::new("/proc/self/mountinfo"), FILE_BYTES) {
        Ok(bytes) => Ok((bytes, Some(unknown))),
        Err(_) => Err(unknown),
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::LayerKind;

    use super::{
        made::{ABSENT, captured, cause, failure, made, volume_at},
        *,
    };
    use crate::host::Luks;

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
    fn what_a_snapshot_keeps_of_a_volume_is_a_part_of_it() {
        let encrypted = |below_cow: &str, mounted: &str| {
            let mut host = made(&format!("1 0 8:{mounted} / /home rw - xfs /dev/mapper/home rw\n"));
            host.device(5, "dm-5", "LVM-abc-real", &["dm-2"]);
            host.device(6, "dm-6", "LVM-def-cow", &[below_cow]);
            host.device(7, "dm-7", "LVM-abc", &["dm-5"]);
            host.device(8, "dm-8", "LVM-def", &["dm-5", "dm-6"]);
            host.device(9, "dm-9", "CRYPT-PLAIN-c", &["dm-7"]);
            for (lower, holders) in [("dm-5", vec!["dm-7", "dm-8"]), ("dm-6", vec!["dm-8"]), ("dm-7", vec!["dm-9"])] {
                let holders = holders.into_iter().map(str::to_owned).collect();
                host.lists.insert(format!("/sys/class/block/{lower}/holders"), holders);
            }
            volume_at(&host, "/home").encrypted
        };
        for mounted in ["7", "8"] {
            assert_eq!(encrypted("dm-3", mounted), Reading::Known(true));
            assert_eq!(encrypted("sdb", mounted), Reading::Known(false));
        }
        // What it keeps was encrypted before.
        assert_eq!(encrypted("sdb", "9"), Reading::Known(true));
    }

    #[test]
    fn two_devices_below_one_that_says_nothing_of_itself_may_keep_what_is_written_on_the_other() {
        let encrypted = |mounted: &str, other: &str| {
            let mut host = made(&format!("1 0 8:{mounted} / /home rw - xfs /dev/x rw\n"));
            host.device(9, "dm-9", "", &["dm-2", other]);
            for lower in ["dm-2", other] {
                host.lists.insert(format!("/sys/class/block/{lower}/holders"), vec!["dm-9".to_owned()]);
            }
            volume_at(&host, "/home").encrypted
        };
        for mounted in ["2", "9"] {
            assert_eq!(encrypted(mounted, "dm-3"), Reading::Known(true));
        }
        assert_eq!(encrypted("2", "sdb"), Reading::Known(false));
    }

    #[test]
    fn more_devices_on_another_than_are_looked_at_leave_it_unknown() {
        let mut host = made("1 0 8:2 / /home rw - xfs /dev/mapper/home rw\n");
        let mut of = |count: usize| {
            host.lists.insert("/sys/class/block/dm-2/holders".to_owned(), vec!["dm-9".to_owned(); count]);
            volume_at(&host, "/home").encrypted
        };
        assert_eq!(of(1024), Reading::Known(true));
        assert_eq!(cause(&of(1025)), Some(Cause::Limit));
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
    fn a_luks_device_without_a_header_below_it_may_have_been_decrypted() {
        let encrypted = |header: Option<io::ErrorKind>, below: &str| {
            let mut host = made("1 0 8:5 / /data rw - xfs /dev/mapper/data rw\n");
            host.device(5, "dm-5", "CRYPT-LUKS2-00-data", &[below]);
            host.no_header.extend(header.map(|kind| (format!("/dev/{below}"), kind)));
            volume_at(&host, "/data").encrypted
        };
        let decrypted = encrypted(Some(io::ErrorKind::InvalidData), "sda");
        assert_eq!(cause(&decrypted), Some(Cause::Undecidable), "{decrypted:?}");
        assert_eq!(encrypted(Some(io::ErrorKind::InvalidData), "dm-2"), Reading::Known(true));
        // The agent is shown no disks, or may not read them.
        assert_eq!(encrypted(None, "sda"), Reading::Known(true));
        assert_eq!(encrypted(Some(io::ErrorKind::PermissionDenied), "sda"), Reading::Known(true));
    }

    #[test]
    fn a_header_that_another_device_was_opened_by_tells_nothing() {
        let encrypted = |uuid: Option<&str>, name: &str| {
            let mut host = made("1 0 8:5 / /data rw - xfs /dev/mapper/data rw\n");
            host.device(5, "dm-5", &format!("CRYPT-LUKS2-00ab-{name}"), &["sda"]);
            let header = Luks {
                version: 2,
                cipher: "aes-xts-plain64".to_owned(),
                key_bits: 512,
                drive_encrypts: false,
                leaves_plain: false,
                uuid: uuid.map(str::to_owned),
                key_slots: None,
            };
            host.headers.insert("/dev/sda".to_owned(), header);
            volume_at(&host, "/data").encrypted
        };
        assert_eq!(encrypted(Some("00-ab"), "data"), Reading::Known(true));
        // A capture of an earlier version.
        assert_eq!(encrypted(None, "data"), Reading::Known(true));
        for uuid in ["11-cd", ""] {
            assert_eq!(cause(&encrypted(Some(uuid), "11cd")), Some(Cause::Undecidable), "{uuid}");
        }
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
}
