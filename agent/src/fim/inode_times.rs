//! Where the time of an inode tells of every change: no program can put it back, as it can that of the content.

use std::path::Path;

use muster_proto::time::Timestamp;

use crate::host::{FILE_BYTES, Host, Metadata};

const MOUNTS: &str = "/proc/self/mountinfo";
/// A change of an inode so short before a look may be followed by another that leaves the same time: 2 s, the coarsest clock of a
/// file system that Linux mounts for its own files.
const RACY_NANOS: i64 = 2_000_000_000;
/// Steps in which the time of an inode is kept that is that of the content: 2 s, and 10 ms on exFAT.
const STEP_NANOS: i64 = 10_000_000;
/// File systems on which the kernel sets the time of an inode itself at each change. In an image that is only read it is what the maker
/// of the image says, the same for the next one: squashfs, erofs, and overlay, which may show them.
const OWN: [&[u8]; 9] = [b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs", b"f2fs", b"tmpfs", b"zfs", b"bcachefs"];

/// The devices whose file systems keep a time of the inode apart from that of the content.
///
/// An image that a tool makes from an archive often has the same time as both, in whole seconds, for every file of a host. On FAT and
/// exFAT they are one (`fat_truncate_time` in Linux's `fs/fat/misc.c`); what a file server or a program keeps is not known.
#[derive(Debug, Default)]
pub struct InodeTimes(Vec<(u32, u32)>);

impl InodeTimes {
    /// Returns those of the host; none where it does not tell its mounts.
    pub fn of(host: &dyn Host) -> Self {
        Self::parse(&host.read(Path::new(MOUNTS), FILE_BYTES).unwrap_or_default())
    }

    fn parse(mounts: &[u8]) -> Self {
        let mut devices: Vec<_> = mounts.split(|&byte| byte == b'\n').filter_map(own).collect();
        devices.sort_unstable();
        devices.dedup();
        Self(devices)
    }

    /// Returns whether a state with `metadata`, recorded at a look that began at `seen`, may have changed since and kept its times.
    pub fn is_racy(&self, metadata: &Metadata, seen: Timestamp) -> bool {
        // Without the time of the inode any program can put the others back.
        metadata.changed_nanos.is_none_or(|changed| {
            changed >= seen.micros().saturating_mul(1000).saturating_sub(RACY_NANOS)
                || self.is_of_content(metadata, changed)
        })
    }

    /// Returns whether the time of the inode, in nanoseconds, may be that of the content.
    fn is_of_content(&self, metadata: &Metadata, changed: i64) -> bool {
        changed % STEP_NANOS == 0
            && metadata.modified.is_some_and(|modified| modified.micros() == changed / 1000)
            && self.0.binary_search(&metadata.device).is_err()
    }
}

/// Returns the device of a line of proc_pid_mountinfo(5), if its file system keeps a time of the inode. Spaces within a field are
/// written as `\040`.
fn own(line: &[u8]) -> Option<(u32, u32)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    fields.find(|field| *field == b"-")?;
    OWN.contains(&fields.next()?).then_some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::record::tests::file, *};

    #[test]
    fn a_state_is_racy_until_two_seconds_after_its_last_change() {
        let seen = Timestamp::from_seconds(100).unwrap();
        let of = |nanos| Metadata { changed_nanos: nanos, ..file(1).metadata };
        for (nanos, expected) in
            [(Some(97_999_999_999), false), (Some(98_000_000_000), true), (Some(101_000_000_000), true), (None, true)]
        {
            assert_eq!(InodeTimes::default().is_racy(&of(nanos), seen), expected, "{nanos:?}");
        }
    }

    #[test]
    fn one_time_for_both_tells_of_every_change_only_where_the_kernel_sets_that_of_the_inode() {
        let mounts = "22 1 254:0 / / rw shared:1 master:2 - ext4 /dev/vda rw\n\
                      23 22 8:1 / /boot/ef\\040i rw - vfat /dev/sda1 rw\n\
                      24 22 0:40 / /srv/a\\040-\\040ext4 rw - fuse.sshfs there:/ rw\n\
                      28 22 7:0 / /snap/core rw - squashfs /dev/loop0 ro\n\
                      25 22 8:17 / /cut rw - \n26 22 x:1 / / rw - ext4 a rw\n27 22 9:1 / / rw";
        let times = InodeTimes::parse(mounts.as_bytes());
        let seen = Timestamp::from_seconds(2_000_000_000).unwrap();
        let of = |device, modified_micros, changed| {
            let modified = Timestamp::from_micros(modified_micros);
            times.is_racy(&Metadata { device, modified, changed_nanos: Some(changed), ..file(1).metadata }, seen)
        };
        let (micros, nanos) = (1_700_000_000_000_000, 1_700_000_000_000_000_000);
        assert!(!of((254, 0), micros, nanos));
        assert!(of((254, 0), 2_000_000_000_000_000, 2_000_000_000_000_000_000), "just before the look");
        for device in [(8, 1), (7, 0), (0, 40), (8, 17), (9, 1), (0, 0)] {
            assert!(of(device, micros, nanos), "{device:?}");
            assert!(!of(device, micros + 1, nanos) && !of(device, micros + 1, nanos + 1000), "{device:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_mounts_never_panic_and_tell_of_no_more_devices_than_lines(
            text in "([0-9:]{0,5} |- |ext4 |\\PC{0,3}|\n){0,40}",
            bytes: Vec<u8>,
        ) {
            for mounts in [text.as_bytes(), bytes.as_slice()] {
                let lines = mounts.split(|&byte| byte == b'\n').count();
                prop_assert!(InodeTimes::parse(mounts).0.len() <= lines);
            }
        }
    }
}
