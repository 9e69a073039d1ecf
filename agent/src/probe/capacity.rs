//! How full the host's own file systems are, and since when it runs.
//!
//! A share of a disk changes at every look and a report of each would bury the log, so shares are told in steps that are near
//! each other only where it gets tight, and a step is left downwards only two points below its edge.

use std::{collections::BTreeMap, path::Path};

use muster_proto::{
    fact::{Capacity, Cause, Fact, PathText, Reading, Text, Unknown, VolumeSpace},
    report,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{Look, Probe, memory};
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
/// Where desktops mount what a person plugs in.
const REMOVABLE: [&[u8]; 2] = [b"/media/", b"/run/media/"];
/// Steps in which shares are told, in percent.
const STEPS: [u64; 9] = [50, 60, 70, 80, 85, 90, 95, 98, 100];
/// Points below the edge of a step at which the step below it is taken.
const POINTS_BELOW: u64 = 2;
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
    /// Steps by mount point: used, inodes.
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
    for mount in mounts {
        let path = host::path_of(&mount.mount_point);
        let name = PathText::from_bytes(&mount.mount_point);
        let space = match mount.is_supported {
            true => host::reading(format!("statvfs {}", name.as_str()), host.space(&path)),
            false => Reading::unknown(Cause::Unsupported, "this build does not know how such a file system fills"),
        };
        let (used, inodes) = before.volumes.get(name.as_str()).copied().unwrap_or_default();
        let used_percent = share(&space, used_percent, used);
        let inodes_percent = share(&space, inodes_percent, inodes);
        told.volumes.insert(name.as_str().to_owned(), (used_percent.known().copied(), inodes_percent.known().copied()));
        let file_system = Text::from_bytes(&mount.file_system);
        volumes.push(VolumeSpace { mount_point: name, file_system, used_percent, inodes_percent });
    }
    volumes.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    if told != before {
        memory::write_json(look.memory, TOLD, &told).map_err(|error| host::unknown("keep what was told", &error))?;
    }
    Ok(Capacity { volumes, boot_time })
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

/// Returns the least step that `percent` does not exceed; the one `before` until it is well below that one's edge.
fn step(percent: u64, before: Option<u64>) -> u64 {
    let at = |percent: u64| STEPS.into_iter().find(|&step| percent <= step).unwrap_or(100);
    let (plain, late) = (at(percent), at(percent.saturating_add(POINTS_BELOW).min(100)));
    // Only upwards at once: what is told is never less than what is so.
    match before {
        Some(before) if plain < before && late >= before => before,
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
}

/// Returns the file systems of local disks that can be written, each device once: those of known kinds, those of other kinds on a
/// block device, and an overlay that is the root, whose numbers are those of its upper layer. `bytes` is proc_pid_mountinfo(5); `None`
/// when a line is none of that or is cut. Where they are the agent's own (`is_own`), its service made each of them read-only.
fn parse(bytes: &[u8], is_own: bool) -> Option<Vec<Mount>> {
    let mut by_device: BTreeMap<Vec<u8>, Mount> = BTreeMap::new();
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
        if !(is_supported || is_on_block_device)
            || is_read_only(super_options)
            || REMOVABLE.iter().any(|place| mount_point.starts_with(place))
        {
            continue;
        }
        // A read-only view of a file system says nothing of whether it fills; another mount of it may.
        let mount = Mount { device: device.to_vec(), mount_point, file_system: file_system.to_vec(), is_supported };
        let rank = |mount: &Mount| (mount.mount_point.len(), mount.mount_point.clone());
        match by_device.get_mut(device) {
            Some(other) if rank(&mount) < rank(other) => *other = mount,
            Some(_) => {}
            None if is_read_only(options) && !is_own => {}
            None => drop(by_device.insert(device.to_vec(), mount)),
        }
    }
    // Something is always mounted, and each line has an end.
    bytes.ends_with(b"\n").then(|| by_device.into_values().collect())
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
    fn a_step_is_left_upwards_at_once_and_downwards_late() {
        for (percent, before, expected) in [
            (1, None, 50),
            (50, None, 50),
            (51, None, 60),
            (100, None, 100),
            (91, Some(90), 95),
            (90, Some(95), 95),
            (89, Some(95), 95),
            (88, Some(95), 90),
            (20, Some(100), 50),
            (97, Some(100), 100),
            (96, Some(100), 98),
        ] {
            assert_eq!(step(percent, before), expected, "{percent} after {before:?}");
        }
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
        let found: Vec<_> = parse(text, false).unwrap().into_iter().map(|mount| mount.mount_point).collect();
        assert_eq!(found, [b"/".to_vec(), b"/home\\x".to_vec()]);
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
        let found: Vec<_> = parse(text, false)
            .unwrap()
            .into_iter()
            .map(|mount| (String::from_utf8(mount.mount_point).unwrap(), mount.is_supported))
            .collect();
        let expected = [("/", true), ("/data", true), ("/new", false)];
        assert_eq!(found, expected.map(|(at, is_supported)| (at.to_owned(), is_supported)));
    }

    #[test]
    fn the_agents_own_view_is_read_only_and_the_file_systems_behind_it_are_not() {
        let text = b"22 1 8:1 / / ro,relatime - ext4 /dev/sda1 rw\n25 22 8:2 / /mnt ro - xfs /dev/sdb1 ro\n";
        assert_eq!(parse(text, false), Some(Vec::new()));
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
