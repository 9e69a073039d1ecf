//! What is mounted in other mount namespaces than that of PID 1: mount_namespaces(7).

use std::{collections::BTreeSet, path::Path};

use super::mounts::{self, Mount};
use crate::host::{FILE_BYTES, Host};

/// Processes whose mount namespaces are told apart, at most.
const PROCESSES: usize = 10_000;
/// Mount namespaces that are read, at most.
const NAMESPACES: usize = 256;
/// Bytes of the start of mountinfo that have the number of the first mount.
const MOUNT_ID_BYTES: usize = 32;

/// Returns what is mounted in other mount namespaces and is on devices that PID 1 has not mounted: mount_namespaces(7). Of its
/// namespace, `mounts` are all and `first` is the number of the first.
///
/// One that no process is in is not found, and of a process that ended meanwhile nothing is. A namespace is told by its first mount,
/// as whoever may read mountinfo may not read the links in `/proc/PID/ns`.
pub(super) fn mounted_elsewhere(host: &dyn Host, first: Option<u64>, mounts: &[Mount]) -> Vec<Mount> {
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

#[cfg(test)]
mod tests {
    use muster_proto::fact::{Cause, Reading};

    use super::super::{made::made, state};

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
}
