//! How full the host's own file systems are, and since when it runs.
//!
//! A share of a disk changes at every look and a report of each would bury the log, so shares are told in steps that are near
//! each other only where it gets tight. Below those, a step is left downwards only two points below its edge; where limits lie, what
//! was told before does not matter, or of two hosts that are equally full one would fail.

use std::{collections::BTreeMap, path::Path};

use muster_proto::{
    fact::{Capacity, Cause, Fact, PathText, Reading, Text, Unknown, VolumeSpace},
    report,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{Look, Probe, disk_encryption, memory};
use crate::host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES, Space};

/// Of the first process: the agent's own service sees everything as read-only.
const MOUNTS: &str = "/proc/1/mountinfo";
const OWN_MOUNTS: &str = "/proc/self/mountinfo";
/// Kinds of file systems that keep data on local disks, and whose statvfs(3) tells how full they are.
const LOCAL: &[&[u8]] = &[
    b"bcachefs",
    b"btrfs",
    b"exfat",
    b"ext2",
    b"ext3",
    b"ext4",
    b"f2fs",
    b"fuseblk",
    b"gfs2",
    b"hfsplus",
    b"jfs",
    b"nilfs2",
    b"ntfs",
    b"ntfs3",
    b"ocfs2",
    b"reiserfs",
    b"vfat",
    b"xfs",
    b"zfs",
];
/// Where desktops mount what a person plugs in, and administrators other disks.
const REMOVABLE: [&[u8]; 2] = [b"/media/", b"/run/media/"];
/// File systems each of whose subvolumes has a device number of its own, which no mount tells.
const OWN_NUMBERS: [&[u8]; 2] = [b"bcachefs", b"btrfs"];
/// Mount points of one device that are tried to find one that no other mount covers, at most.
const TRIES: usize = 16;
/// Steps in which shares are told, in percent.
const STEPS: [u64; 9] = [50, 60, 70, 80, 85, 90, 95, 98, 100];
/// Points below the edge of a step at which the step below it is taken.
const POINTS_BELOW: u64 = 2;
/// The first step whose edge is left downwards at once.
const FIRST_EXACT: u64 = 80;
/// The time of boot is told anew when it differs by more, in seconds: the kernel reckons it back from a clock that is set.
const BOOT_TOLERANCE_SECONDS: i64 = 60;
/// Name of what was told before in the probe's memory.
const TOLD: &str = "told.json";
/// Version of that file.
const VERSION: u32 = 1;
/// Mount points that are kept, at most.
const VOLUMES: usize = 1_000;

/// The probe of `capacity`.
pub struct CapacityProbe;

impl Probe for CapacityProbe {
    fn id(&self) -> report::Probe {
        report::Probe::Capacity
    }

    fn name(&self) -> &'static str {
        "capacity"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        match capacity(look) {
            Ok(capacity) => vec![Fact::Capacity(Reading::Known(capacity))],
            Err(unknown) => super::unknown(self.id(), &unknown),
        }
    }
}

/// What was told before.
#[derive(Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Told {
    version: u32,
    boot_id: String,
    boot_time: Option<Timestamp>,
    /// Steps by device and mount point: used, inodes.
    volumes: BTreeMap<String, (Option<u64>, Option<u64>)>,
}

fn capacity(look: &Look<'_>) -> Result<Capacity, Unknown> {
    let host = look.host;
    let bytes = match host.read(Path::new(MOUNTS), FILE_BYTES) {
        Ok(bytes) => Ok((bytes, false)),
        Err(_) => host.read(Path::new(OWN_MOUNTS), FILE_BYTES).map(|bytes| (bytes, true)),
    };
    let (bytes, is_own) = bytes.map_err(|error| host::unknown(format!("read {OWN_MOUNTS}"), &error))?;
    let mounts =
        parse(&bytes, is_own).ok_or_else(|| Unknown::new(Cause::Garbled, format!("{MOUNTS} has another format")))?;
    if mounts.len() > VOLUMES {
        return Err(Unknown::new(Cause::Limit, format!("more than {VOLUMES} volumes are mounted")));
    }
    let before = memory::read_json::<Told>(&look.memory.join(TOLD)).filter(|told| told.version == VERSION);
    let before = before.unwrap_or_default();
    let (boot_id, boot_time) = boot(host, &before);
    let mut told = Told { version: VERSION, boot_id, boot_time: boot_time.known().copied(), ..Told::default() };
    let mut volumes = Vec::with_capacity(mounts.len());
    for mounts in mounts.values() {
        let Some((mount, space)) = space_of(host, mounts) else { continue };
        let name = PathText::from_bytes(&mount.mount_point);
        let key = format!("{} {}", String::from_utf8_lossy(&mount.device), name.as_str());
        let (used, inodes) = before.volumes.get(&key).copied().unwrap_or_default();
        let used_percent = share(&space, used_percent, used);
        let inodes_percent = share(&space, inodes_percent, inodes);
        told.volumes.insert(key, (used_percent.known().copied(), inodes_percent.known().copied()));
        let file_system = Text::from_bytes(&mount.file_system);
        volumes.push(VolumeSpace { mount_point: name, file_system, used_percent, inodes_percent });
    }
    // Stable: of two at one mount point, the order is that of their devices.
    volumes.sort_by(|a: &VolumeSpace, b| a.mount_point.cmp(&b.mount_point));
    if told != before {
        memory::write_json(look.memory, TOLD, &told).map_err(|error| host::unknown("keep what was told", &error))?;
    }
    Ok(Capacity { volumes, boot_time })
}

/// Returns the mount of a device at which it is measured, of all in their order, and its space; `None` where it is one that a person
/// plugged in.
fn space_of<'m>(host: &dyn Host, mounts: &'m [Mount]) -> Option<(&'m Mount, Reading<Space>)> {
    let first = mounts.first()?;
    // What cannot be told to be removable is measured.
    if first.is_below_media() && disk_encryption::is_removable(host, &first.line).is_ok_and(|removable| removable) {
        return None;
    }
    let name = |mount: &Mount| PathText::from_bytes(&mount.mount_point);
    if !first.is_supported {
        let detail = "this build does not know how such a file system fills";
        return Some((first, Reading::unknown(Cause::Unsupported, detail)));
    }
    for mount in mounts.iter().take(TRIES) {
        let path = host::path_of(&mount.mount_point);
        let is_there = match host.metadata(&path) {
            Ok(metadata) => mount.is_on(metadata.device),
            Err(error) => {
                return Some((
                    mount,
                    Reading::Unknown { unknown: host::unknown(format!("look at {}", name(mount).as_str()), &error) },
                ));
            }
        };
        if is_there {
            return Some((mount, host::reading(format!("statvfs {}", name(mount).as_str()), host.space(&path))));
        }
    }
    let detail = format!("another mount covers {}", name(first).as_str());
    Some((first, Reading::unknown(Cause::Hidden, detail)))
}

fn share(space: &Reading<Space>, of: fn(&Space) -> Option<u64>, before: Option<u64>) -> Reading<u64> {
    match space {
        Reading::Known(space) => match of(space) {
            Some(0) => Reading::Known(0),
            Some(percent) => Reading::Known(step(percent, before)),
            None => Reading::unknown(Cause::Garbled, "statvfs: its numbers do not fit each other"),
        },
        Reading::Unknown { unknown } => Reading::Unknown { unknown: unknown.clone() },
    }
}

/// Returns what `df` calls used: of the blocks that an ordinary user could use, rounded up, at least 1. `None` when the numbers do
/// not fit each other, or when there are none: FUSE answers so whom it does not let in.
fn used_percent(space: &Space) -> Option<u64> {
    let used = space.blocks.checked_sub(space.free)?;
    percent(used, used.checked_add(space.available)?)
}

/// Returns 0 where inodes have no bound.
fn inodes_percent(space: &Space) -> Option<u64> {
    if space.inodes == 0 {
        return Some(0);
    }
    percent(space.inodes.checked_sub(space.free_inodes)?, space.inodes)
}

fn percent(part: u64, whole: u64) -> Option<u64> {
    if whole == 0 {
        return None;
    }
    let percent = (u128::from(part) * 100).div_ceil(u128::from(whole));
    u64::try_from(percent.max(1)).ok().filter(|percent| *percent <= 100)
}

/// Returns the least step that `percent` does not exceed; below [`FIRST_EXACT`] the one `before` until it is well below that one's edge.
fn step(percent: u64, before: Option<u64>) -> u64 {
    let at = |percent: u64| STEPS.into_iter().find(|&step| percent <= step).unwrap_or(100);
    let (plain, late) = (at(percent), at(percent.saturating_add(POINTS_BELOW).min(100)));
    // Only upwards at once: what is told is never less than what is so.
    match before {
        Some(before) if plain < FIRST_EXACT && plain < before && late >= before => before,
        _ => plain,
    }
}

/// Returns the id and the time of the boot.
fn boot(host: &dyn Host, before: &Told) -> (String, Reading<Timestamp>) {
    let read = |path: &str| {
        let bytes =
            host.read(Path::new(path), FILE_BYTES).map_err(|error| host::unknown(format!("read {path}"), &error))?;
        Ok::<_, Unknown>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let id = match host.read(Path::new("/proc/sys/kernel/random/boot_id"), SMALL_FILE_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(_) => String::new(),
    };
    let time = match read("/proc/stat") {
        Ok(text) => match boot_time(&text) {
            Some(time) => time,
            None => return (id, Reading::unknown(Cause::Garbled, "/proc/stat has no btime")),
        },
        Err(unknown) => return (id, Reading::Unknown { unknown }),
    };
    let told = before
        .boot_time
        .filter(|told| before.boot_id == id && (told.seconds() - time.seconds()).abs() <= BOOT_TOLERANCE_SECONDS);
    (id, Reading::Known(told.unwrap_or(time)))
}

/// Returns `btime` of proc_stat(5); `None` where its line is cut.
fn boot_time(stat: &str) -> Option<Timestamp> {
    let line = stat.split_inclusive('\n').find_map(|line| line.strip_prefix("btime "))?;
    let seconds = line.strip_suffix('\n')?.trim().parse().ok()?;
    Timestamp::from_seconds(seconds)
}

/// A mounted file system of a local disk.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Mount {
    device: Vec<u8>,
    mount_point: Vec<u8>,
    file_system: Vec<u8>,
    /// Whether it is known to tell how full it is.
    is_supported: bool,
    /// The whole line.
    line: Vec<u8>,
}

impl Mount {
    fn is_below_media(&self) -> bool {
        REMOVABLE.iter().any(|place| self.mount_point.starts_with(place))
    }

    /// Returns whether it is what lies at its mount point, where lstat(2) says of that that it is on `device`.
    fn is_on(&self, (major, minor): (u32, u32)) -> bool {
        OWN_NUMBERS.contains(&self.file_system.as_slice()) || self.device == format!("{major}:{minor}").as_bytes()
    }

    /// Returns its place among the mounts of one device: the shortest mount point first, and those of plugged in ones last.
    fn rank(&self) -> (bool, usize, &[u8]) {
        (self.is_below_media(), self.mount_point.len(), &self.mount_point)
    }
}

/// Returns the file systems of local disks that can be written, by their devices: those of known kinds, those of other kinds on a
/// block device, and an overlay that is the root, whose numbers are those of its upper layer. `bytes` is proc_pid_mountinfo(5); `None`
/// when a line is none of that or is cut. Where they are the agent's own (`is_own`), its service made each of them read-only.
fn parse(bytes: &[u8], is_own: bool) -> Option<BTreeMap<Vec<u8>, Vec<Mount>>> {
    let mut by_device: BTreeMap<Vec<u8>, Vec<Mount>> = BTreeMap::new();
    for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let mut fields = line.split(|&byte| byte == b' ');
        let device = fields.nth(2)?;
        let mount_point = unescape(fields.nth(1)?);
        let options = fields.next()?;
        let mut after = fields.skip_while(|field| *field != b"-").skip(1);
        let (file_system, _source, super_options) = (after.next()?, after.next()?, after.next()?);
        let is_read_only = |options: &[u8]| options.split(|&byte| byte == b',').any(|option| option == b"ro");
        let is_supported = LOCAL.contains(&file_system) || (file_system == b"overlay" && mount_point == b"/");
        // What is on no block device has a number of the major 0.
        let is_on_block_device = !device.starts_with(b"0:");
        if !(is_supported || is_on_block_device) || is_read_only(super_options) {
            continue;
        }
        let (device, file_system) = (device.to_vec(), file_system.to_vec());
        let mount = Mount { device, mount_point, file_system, is_supported, line: line.to_vec() };
        match by_device.get_mut(&mount.device) {
            Some(others) => others.push(mount),
            // A read-only view of a file system says nothing of whether it fills; another mount of it may.
            None if is_read_only(options) && !is_own => {}
            None => drop(by_device.insert(mount.device.clone(), vec![mount])),
        }
    }
    for mounts in by_device.values_mut() {
        mounts.sort_by(|a, b| a.rank().cmp(&b.rank()));
    }
    // Something is always mounted, and each line has an end.
    bytes.ends_with(b"\n").then_some(by_device)
}

/// Returns a field with its octal escapes read, as proc_pid_mountinfo(5) says of blanks and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal.map(|digits| digits.iter().fold(0_u32, |n, d| n * 8 + u32::from(d - b'0'))) {
            Some(value) if value <= 0xff => {
                out.extend(u8::try_from(value));
                rest = &after[3..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space(blocks: u64, free: u64, available: u64, inodes: u64, free_inodes: u64) -> Space {
        Space { blocks, free, available, inodes, free_inodes }
    }

    #[test]
    fn used_is_what_an_ordinary_user_can_no_longer_have() {
        for (space, used, inodes) in [
            (space(100, 50, 50, 10, 5), Some(50), Some(50)),
            (space(100, 10, 5, 10, 10), Some(95), Some(1)),
            (space(100, 5, 0, 10, 0), Some(100), Some(100)),
            (space(1000, 999, 999, 0, 0), Some(1), Some(0)),
            (space(0, 0, 0, 0, 0), None, Some(0)),
            (space(5, 6, 6, 5, 6), None, None),
            (space(u64::MAX, 0, u64::MAX, u64::MAX, 0), None, Some(100)),
        ] {
            assert_eq!((used_percent(&space), inodes_percent(&space)), (used, inodes), "{space:?}");
        }
    }

    #[test]
    fn a_step_is_left_upwards_at_once_and_downwards_late_unless_a_limit_may_be_there() {
        for (percent, before, expected) in [
            (1, None, 50),
            (50, None, 50),
            (51, None, 60),
            (100, None, 100),
            (71, Some(70), 80),
            (70, Some(80), 80),
            (69, Some(80), 80),
            (68, Some(80), 70),
            (49, Some(60), 60),
            (48, Some(60), 50),
            (20, Some(100), 50),
            (91, Some(90), 95),
            (90, Some(95), 90),
            (80, Some(85), 80),
            (98, Some(100), 98),
        ] {
            assert_eq!(step(percent, before), expected, "{percent} after {before:?}");
        }
    }

    /// Returns the mount points at which devices are measured, sorted by device.
    fn points(text: &[u8]) -> Vec<String> {
        let found = parse(text, false).unwrap();
        found.into_values().map(|mounts| String::from_utf8(mounts[0].mount_point.clone()).unwrap()).collect()
    }

    /// Returns what is said of each volume of a host with these mounts, whose mount points are on these devices.
    fn volumes(
        mounts: &str,
        devices: &[(&str, (u32, u32))],
        removable: &[(&str, &str)],
    ) -> Vec<(String, Reading<u64>)> {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = folder.path().join(format!("files{path}"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write(MOUNTS, mounts);
        write("/proc/stat", "btime 1795687200\n");
        write("/proc/sys/kernel/random/boot_id", "x\n");
        for (device, value) in removable {
            write(&format!("/sys/class/block/{device}/removable"), value);
        }
        let part = |name: &str, entries: Vec<String>| format!(r#""{name}": {{{}}}"#, entries.join(", "));
        let metadata = |(path, (major, minor)): &(&str, (u32, u32))| {
            format!(
                r#""{path}": {{"kind": "folder", "size_bytes": 0, "modified": null, "mode": 0, "uid": 0, "gid": 0,
                "device": [{major}, {minor}], "inode": 2}}"#
            )
        };
        let space = |(path, _): &(&str, _)| {
            format!(r#""{path}": {{"blocks": 100, "free": 30, "available": 30, "inodes": 0, "free_inodes": 0}}"#)
        };
        let mut links = Vec::new();
        let mut lists = Vec::new();
        let mut errors = Vec::new();
        for (minor, (device, _)) in removable.iter().enumerate() {
            let place = format!("../../devices/pci0000:00/ata1/block/{device}");
            links.push(format!(r#""/sys/dev/block/8:{minor}": "{place}""#));
            links.push(format!(r#""/sys/class/block/{device}": "{place}""#));
            lists.push(format!(r#""/sys/class/block/{device}/slaves": []"#));
            for attribute in ["partition", "device/vendor", "device/model"] {
                errors.push(format!(r#""read /sys/class/block/{device}/{attribute}": {{"errno": 2}}"#));
            }
        }
        let index = [
            r#""version": 1, "captured": "2026-11-24T12:00:00Z""#.to_owned(),
            part("metadata", devices.iter().map(metadata).collect()),
            part("space", devices.iter().map(space).collect()),
            part("links", links),
            part("lists", lists),
            part("errors", errors),
        ];
        std::fs::write(folder.path().join("index.json"), format!("{{{}}}", index.join(", "))).unwrap();
        let host = crate::host::Recorded::at(folder.path()).unwrap();
        let now = Timestamp::from_seconds(1_795_687_300).unwrap();
        let (settings, watch) = (super::super::Settings::default(), muster_proto::fact::WatchState::Live);
        let memory = folder.path();
        let look = Look { host: &host, now, settings: &settings, memory, watch, run: 7, files: Default::default() };
        let found = capacity(&look).unwrap().volumes;
        found.into_iter().map(|volume| (volume.mount_point.as_str().to_owned(), volume.used_percent)).collect()
    }

    #[test]
    fn a_disk_below_media_is_left_out_where_it_is_removable_alone() {
        let mounts = "1 0 8:0 / / rw - ext4 /dev/sda rw\n2 1 8:1 / /media/data rw - ext4 /dev/sdb rw\n\
                      3 1 8:2 / /media/stick rw - vfat /dev/sdc rw\n4 1 8:9 / /media/untold rw - vfat /dev/sdz rw\n";
        let devices = [("/", (8, 0)), ("/media/data", (8, 1)), ("/media/stick", (8, 2)), ("/media/untold", (8, 9))];
        let found = volumes(mounts, &devices, &[("sda", "0\n"), ("sdb", "0\n"), ("sdc", "1\n")]);
        let points: Vec<_> = found.iter().map(|(point, _)| point.as_str()).collect();
        assert_eq!(points, ["/", "/media/data", "/media/untold"]);
    }

    #[test]
    fn a_volume_that_another_mount_covers_does_not_get_that_ones_numbers() {
        let mounts = "1 0 8:0 / / rw - ext4 /dev/sda rw\n2 1 8:1 / /srv rw - ext4 /dev/sdb rw\n\
                      3 2 8:2 / /srv rw - ext4 /dev/sdc rw\n4 1 0:40 / /b rw - btrfs /dev/sdd rw\n";
        let devices = [("/", (8, 0)), ("/srv", (8, 2)), ("/b", (0, 41))];
        let known = Reading::Known(70);
        let covered = Reading::unknown(Cause::Hidden, "another mount covers /srv");
        let expected = [("/", &known), ("/b", &known), ("/srv", &covered), ("/srv", &known)];
        let found = volumes(mounts, &devices, &[]);
        assert_eq!(found.iter().map(|(point, used)| (point.as_str(), used)).collect::<Vec<_>>(), expected);
        // It is mounted elsewhere, too.
        let mounts = format!("{mounts}5 1 8:1 /x /longer rw - ext4 /dev/sdb rw\n");
        let found = volumes(&mounts, &[("/", (8, 0)), ("/srv", (8, 2)), ("/b", (0, 41)), ("/longer", (8, 1))], &[]);
        let expected = [("/", &known), ("/b", &known), ("/longer", &known), ("/srv", &known)];
        assert_eq!(found.iter().map(|(point, used)| (point.as_str(), used)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn each_device_counts_once_and_what_cannot_fill_not_at_all() {
        let text = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            23 22 8:1 /srv /srv/a\\040b rw - ext4 /dev/sda1 rw\n\
            24 22 0:5 / /proc rw - proc proc rw\n\
            25 22 8:2 / /mnt ro - xfs /dev/sdb1 ro\n\
            26 22 7:1 / /snap/x ro - squashfs /dev/loop1 ro\n\
            27 22 8:3 / /media/me/stick rw - vfat /dev/sdc1 rw\n\
            28 22 8:4 / /home\\134x rw - xfs /dev/sdd1 rw\n\
            29 22 0:9 / /n rw - nfs4 s:/ rw\n";
        assert_eq!(points(text), ["/", "/media/me/stick", "/home\\x"]);
        assert_eq!(parse(b"22 1\n", false), None);
        assert_eq!(parse(b"", false), None);
        assert_eq!(parse(&text[..text.len() - 1], false), None, "a line that is cut");
    }

    #[test]
    fn a_kind_that_is_not_known_counts_where_it_is_on_a_block_device() {
        let text = b"22 1 0:30 / / rw - overlay overlay rw,lowerdir=/a,upperdir=/b\n\
            23 22 0:31 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw,lowerdir=/c\n\
            24 22 8:17 / /data rw - fuseblk /dev/sdb1 rw\n\
            25 22 8:33 / /new rw - newfs /dev/sdc1 rw\n\
            26 22 8:34 / /image ro - newfs /dev/sdc2 ro\n\
            27 22 0:40 / /n rw - fuse.sshfs me@there: rw\n\
            28 22 0:41 / /etc/pve rw - fuse /dev/fuse rw\n";
        assert_eq!(points(text), ["/", "/data", "/new"]);
        let found = parse(text, false).unwrap();
        let unsupported: Vec<_> = found.into_values().flatten().filter(|mount| !mount.is_supported).collect();
        assert_eq!((unsupported.len(), &unsupported[0].mount_point), (1, &b"/new".to_vec()));
    }

    #[test]
    fn the_agents_own_view_is_read_only_and_the_file_systems_behind_it_are_not() {
        let text = b"22 1 8:1 / / ro,relatime - ext4 /dev/sda1 rw\n25 22 8:2 / /mnt ro - xfs /dev/sdb1 ro\n";
        assert_eq!(parse(text, false), Some(BTreeMap::new()));
        assert_eq!(parse(text, true).unwrap().len(), 1);
    }

    #[test]
    fn the_time_of_boot_is_in_stat() {
        assert_eq!(boot_time("cpu 1\nbtime 1795687200\n").unwrap().seconds(), 1_795_687_200);
        for text in ["", "btime", "btime x\n", "btime -1\n", "btime 1795687"] {
            assert_eq!(boot_time(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in any::<String>()) {
            let _ = parse(&bytes, false);
            let _ = unescape(&bytes);
            let _ = boot_time(&text);
        }

        #[test]
        fn what_is_told_is_never_less_than_what_is_so(percent in 1_u64..=100, before in proptest::sample::select(STEPS.to_vec())) {
            prop_assert!(step(percent, Some(before)) >= percent);
            prop_assert!(step(percent, None) >= percent);
        }
    }
}
