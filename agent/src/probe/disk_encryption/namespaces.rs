//! What is mounted in other mount namespaces than that of PID 1: mount_namespaces(7).
//!
//! A namespace is told by its first mount, as whoever may read mountinfo may not read the links in `/proc/PID/ns`. One that no process has
//! its first thread in is not found, nor is what a process does not see from where chroot(2) put it.

use std::{collections::BTreeSet, io, path::Path};

use muster_proto::fact::{Cause, Reading, Unknown};

use super::{
    super::processes,
    mounts::{self, Mount},
};
use crate::host::{self, FILE_BYTES, Host};

/// Processes whose mount namespaces are told apart, at most.
const PROCESSES: usize = 50_000;
/// Mount namespaces that are read, at most. A host full of containers has some for each.
const NAMESPACES: usize = 4096;
/// Bytes of the start of mountinfo that have the number of the first mount.
const MOUNT_ID_BYTES: usize = 32;
/// EINVAL: the process has ended, and its parent has not asked how (fs/proc_namespace.c).
const ZOMBIE: i32 = 22;

/// What the namespaces beside that of PID 1 have.
#[derive(Debug)]
pub(super) struct Elsewhere {
    /// Mounts on devices that PID 1 has not mounted, one for each; of file systems with fscrypt, one for each folder that lies in none
    /// of those before.
    pub mounts: Vec<Mount>,
    /// Whether each namespace was read: true, or why that is not known.
    pub complete: Reading<bool>,
}

/// Looks at the namespaces of all processes. Of that of PID 1, `mounts` are all and `first` is the number of the first.
pub(super) fn look(host: &dyn Host, first: Option<u64>, mounts: &[Mount]) -> Elsewhere {
    let mut search = Search {
        host,
        known: mounts.iter().map(what_is_mounted).collect(),
        read: first.into_iter().collect(),
        found: Vec::new(),
        untold: None,
    };
    match processes::ids(host) {
        Ok(processes) => search.processes(processes),
        Err(unknown) => search.untold = Some(unknown),
    }
    let complete = search.untold.map_or(Reading::Known(true), |unknown| Reading::Unknown { unknown });
    Elsewhere { mounts: search.found, complete }
}

/// Returns of the mounts of one namespace the first of each device, and of file systems with fscrypt of each folder that lies in none of
/// those before: what a service of systemd has besides are binds of the same to other places.
pub(super) fn distinct(mounts: &[Mount]) -> Vec<&Mount> {
    let mut known = BTreeSet::new();
    mounts.iter().filter(|mount| is_new(mount, &mut known)).collect()
}

/// Device of a mount, and which folder of it is mounted where that matters.
type Mounted = ((u32, u32), Vec<u8>);

struct Search<'h> {
    host: &'h dyn Host,
    /// What a mount was found of.
    known: BTreeSet<Mounted>,
    /// Numbers of the first mounts of the namespaces that were read, or could not be.
    read: BTreeSet<u64>,
    found: Vec<Mount>,
    /// Why there may be more. It names no process: others come and go, and the fact is the same.
    untold: Option<Unknown>,
}

impl Search<'_> {
    fn processes(&mut self, processes: BTreeSet<u32>) {
        if processes.len() > PROCESSES {
            self.doubt(Unknown::new(Cause::Limit, format!("more than {PROCESSES} processes")));
        }
        for process in processes.into_iter().filter(|&process| process != 1).take(PROCESSES) {
            let path = format!("/proc/{process}/mountinfo");
            if let Err(unknown) = self.process(Path::new(&path)) {
                self.doubt(unknown);
            }
        }
    }

    /// Reads the namespace of a process, whose mountinfo is at `path`, unless it was.
    fn process(&mut self, path: &Path) -> Result<(), Unknown> {
        let Some(start) = unless_ended(self.host.read_start(path, MOUNT_ID_BYTES))? else { return Ok(()) };
        // After chroot(2) to where nothing is mounted, a process sees no mount.
        if start.is_empty() {
            return Ok(());
        }
        let first = mounts::first_id(&start).ok_or_else(garbled)?;
        if self.read.contains(&first) {
            return Ok(());
        }
        if self.read.len() > NAMESPACES {
            return Err(Unknown::new(Cause::Limit, format!("more than {NAMESPACES} mount namespaces")));
        }
        let bytes = match unless_ended(self.host.read(path, FILE_BYTES)) {
            Ok(Some(bytes)) => bytes,
            // Another process may still be in it.
            Ok(None) => return Ok(()),
            Err(unknown) => {
                // It is not tried again by each process of it: all are told the same.
                self.read.insert(first);
                return Err(unknown);
            }
        };
        let mounts = mounts::parse(&bytes).ok_or_else(garbled)?;
        // That of the whole: the process may have gone to another namespace in between.
        self.read.extend(mounts::first_id(&bytes));
        for mount in mounts.into_iter().filter(Mount::is_on_device) {
            if is_new(&mount, &mut self.known) {
                self.found.push(mount);
            }
        }
        Ok(())
    }

    fn doubt(&mut self, unknown: Unknown) {
        self.untold.get_or_insert(unknown);
    }
}

/// Returns the device of a mount, and which folder of it is mounted where that matters: with fscrypt, one may be encrypted and another not.
fn what_is_mounted(mount: &Mount) -> Mounted {
    (mount.device, if mount.may_have_fscrypt() { mount.root.clone() } else { Vec::new() })
}

/// Adds a mount to those that are `known`; returns whether none was of the same, nor of a folder that it is in.
fn is_new(mount: &Mount, known: &mut BTreeSet<Mounted>) -> bool {
    let (device, root) = what_is_mounted(mount);
    let mut ends = (0..root.len()).filter(|&at| root[at] == b'/').map(|at| at.max(1)).chain([root.len()]);
    !ends.any(|end| known.contains(&(device, root[..end].to_vec()))) && known.insert((device, root))
}

fn garbled() -> Unknown {
    Unknown::new(Cause::Garbled, "mountinfo of a process does not follow its format")
}

/// Returns what was read of a process; `None` of one that has no namespace any more.
fn unless_ended(read: io::Result<Vec<u8>>) -> Result<Option<Vec<u8>>, Unknown> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if processes::has_ended(&error) || error.raw_os_error() == Some(ZOMBIE) => Ok(None),
        Err(error) => Err(host::unknown("read mountinfo of a process", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            made::{MadeHost, cause, made},
            state,
        },
        *,
    };

    /// A namespace without a device that PID 1 has not mounted.
    const SAME: &str = "70 1 8:2 / / rw - xfs /dev/dm-2 rw\n";
    /// One with `/dev/sdb`.
    const OTHER: &str = "80 1 8:2 / / rw - xfs /dev/dm-2 rw\n81 80 8:1 / /data rw - xfs /dev/sdb rw\n";

    /// Returns a host with these processes beside the first, and the mountinfo of each.
    fn host(processes: &[(u32, &str)]) -> MadeHost {
        let mut host = made("20 1 8:2 / / rw - xfs /dev/dm-2 rw\n");
        let names = processes.iter().map(|(process, _)| process.to_string());
        host.lists
            .insert("/proc".to_owned(), ["1", "self", "sys"].map(str::to_owned).into_iter().chain(names).collect());
        for (process, mountinfo) in processes {
            host.file(&format!("/proc/{process}/mountinfo"), mountinfo);
        }
        host
    }

    /// Returns the mount points that are reported, and why there may be others.
    fn found(host: &MadeHost) -> (Vec<String>, Option<Cause>) {
        let state = state(host).unwrap();
        let cause = match state.volumes_complete.unwrap() {
            Reading::Known(complete) => {
                assert!(complete);
                None
            }
            Reading::Unknown { unknown } => Some(unknown.cause),
        };
        (state.volumes.iter().map(|volume| volume.mount_point.as_str().to_owned()).collect(), cause)
    }

    #[test]
    fn a_device_that_is_mounted_in_another_namespace_alone_is_reported_once() {
        let inside = "70 1 0:40 / / rw - overlay overlay rw\n71 70 8:2 / /etc/hosts rw - xfs /dev/dm-2 rw\n\
                      72 70 0:41 / /proc rw - proc proc rw\n73 70 8:1 / /data rw - xfs /dev/sdb rw\n\
                      74 70 8:1 /a /again rw - xfs /dev/sdb rw\n75 70 8:0 /a /own rw - ext4 /dev/sda rw\n";
        let state = state(&host(&[(300, inside), (301, inside)])).unwrap();
        let found: Vec<_> =
            state.volumes.iter().map(|volume| (volume.mount_point.as_str(), &volume.encrypted)).collect();
        let unknown = Reading::unknown(Cause::Unsupported, "an fscrypt policy is not read in another mount namespace");
        let expected = [("/", &Reading::Known(true)), ("/data", &Reading::Known(false)), ("/own", &unknown)];
        assert_eq!(found, expected);
        assert_eq!(state.volumes_complete, Some(Reading::Known(true)));
    }

    #[test]
    fn of_a_device_with_fscrypt_each_folder_that_is_in_no_other_is_reported() {
        let points = |first: &str, inside: &str| {
            let mut host = host(&[(300, inside)]);
            host.file("/proc/1/mountinfo", &format!("20 1 8:2 / / rw - xfs /dev/dm-2 rw\n{first}"));
            found(&host).0
        };
        let folder = "21 20 8:0 /enc /h rw - ext4 /dev/sda rw\n";
        let whole = "70 1 8:0 / /data rw - ext4 /dev/sda rw\n";
        assert_eq!(points(folder, whole), ["/", "/data", "/h"]);
        assert_eq!(points(folder, "70 1 8:0 /enclave /data rw - ext4 /dev/sda rw\n"), ["/", "/data", "/h"]);
        let again = "71 70 8:0 /enc/x /x rw - ext4 /dev/sda rw\n72 70 8:0 /a/b /y rw - ext4 /dev/sda rw\n";
        assert_eq!(points(folder, &format!("{whole}{again}")), ["/", "/data", "/h"]);
        assert_eq!(points("21 20 8:0 / /h rw - ext4 /dev/sda rw\n", &format!("{whole}{again}")), ["/", "/h"]);
        // No other file system has an encrypted folder beside a plain one.
        assert_eq!(points("21 20 8:0 /a /h rw - xfs /dev/sda rw\n", &whole.replace("ext4", "xfs")), ["/", "/h"]);
    }

    #[test]
    fn a_process_that_ends_leaves_nothing_untold() {
        const ENDED: [i32; 3] = [2, 3, ZOMBIE];
        for errno in ENDED {
            let mut host = host(&[(7, OTHER)]);
            host.errors.insert("stream /proc/7/mountinfo".to_owned(), errno);
            assert_eq!(found(&host), (vec!["/".to_owned()], None), "{errno}");
        }
        // It ends between the two reads, and another one is in its namespace.
        for errno in ENDED {
            let mut host = host(&[(7, OTHER), (8, SAME), (9, OTHER)]);
            host.errors.insert("read /proc/7/mountinfo".to_owned(), errno);
            assert_eq!(found(&host), (["/", "/data"].map(str::to_owned).to_vec(), None), "{errno}");
        }
        // It sees no mount from where it is.
        assert_eq!(found(&host(&[(7, ""), (9, OTHER)])), (["/", "/data"].map(str::to_owned).to_vec(), None));
    }

    #[test]
    fn what_could_not_be_looked_at_leaves_open_whether_that_is_all() {
        for (asked, errno, expected) in [
            ("list /proc", 2, Cause::Absent),
            ("list /proc", 13, Cause::Forbidden),
            ("stream /proc/7/mountinfo", 1, Cause::Forbidden),
            ("stream /proc/7/mountinfo", 13, Cause::Forbidden),
            ("stream /proc/7/mountinfo", 5, Cause::Failed),
            ("read /proc/7/mountinfo", 13, Cause::Forbidden),
            ("read /proc/7/mountinfo", 5, Cause::Failed),
        ] {
            let mut host = host(&[(7, OTHER), (8, SAME)]);
            host.errors.insert(asked.to_owned(), errno);
            assert_eq!(found(&host), (vec!["/".to_owned()], Some(expected)), "{asked} {errno}");
        }
        let large = format!("{OTHER}{}", "82 80 0:1 / /x rw - proc proc rw\n".repeat(FILE_BYTES / 32));
        for (mountinfo, expected) in [
            ("torn", Cause::Garbled),
            ("80", Cause::Garbled),
            ("80 1 8:2 / /", Cause::Garbled),
            (large.as_str(), Cause::Limit),
        ] {
            let host = host(&[(7, mountinfo), (8, SAME)]);
            assert_eq!(found(&host), (vec!["/".to_owned()], Some(expected)), "{:.20}", mountinfo);
        }
        // What could be looked at is reported all the same.
        let mut host = host(&[(7, SAME), (9, OTHER)]);
        host.errors.insert("read /proc/7/mountinfo".to_owned(), 5);
        assert_eq!(found(&host), (["/", "/data"].map(str::to_owned).to_vec(), Some(Cause::Failed)));
    }

    #[test]
    fn a_list_of_processes_without_those_of_others_leaves_it_open() {
        let mut host = host(&[]);
        host.lists.insert("/proc".to_owned(), ["7", "self"].map(str::to_owned).to_vec());
        assert_eq!(found(&host).1, Some(Cause::Forbidden));
    }

    #[test]
    fn without_the_mounts_of_the_first_process_those_of_the_agent_are_reported_and_others_are_left_open() {
        let own = "90 1 8:2 / / ro - xfs /dev/dm-2 rw\n91 90 8:1 / /data ro - xfs /dev/sdb rw\n\
                   92 90 8:2 /tmp/x /tmp rw - xfs /dev/dm-2 rw\n93 90 8:1 / /var/lib/muster-agent rw - xfs /dev/sdb rw\n";
        let seen = |errno: i32, listed: &[&str]| {
            let mut host = host(&[]);
            host.errors.insert("read /proc/1/mountinfo".to_owned(), errno);
            host.lists.insert("/proc".to_owned(), listed.iter().map(|&name| name.to_owned()).collect());
            host.file("/proc/self/mountinfo", own);
            state(&host).map(|state| {
                let complete = state.volumes_complete.unwrap();
                assert_eq!(cause(&complete), Some(Cause::Forbidden), "{complete:?}");
                let volumes = state.volumes.into_iter();
                volumes.map(|volume| (volume.mount_point.as_str().to_owned(), volume.encrypted)).collect::<Vec<_>>()
            })
        };
        let known = |point: &str, encrypted| (point.to_owned(), Reading::Known(encrypted));
        let expected = vec![known("/", true), known("/data", false)];
        // proc(5): hidepid=2, and hidepid=1.
        assert_eq!(seen(2, &["7", "self"]), Ok(expected.clone()));
        assert_eq!(seen(1, &["1", "self"]), Ok(expected));
        for errno in [2, 5] {
            assert!(seen(errno, &["1", "self"]).is_err(), "{errno}");
        }
        // Nor those of the agent.
        let mut host = host(&[]);
        host.errors.insert("read /proc/1/mountinfo".to_owned(), 2);
        host.lists.insert("/proc".to_owned(), vec!["7".to_owned()]);
        assert_eq!(state(&host).unwrap_err().cause, Cause::Forbidden);
    }

    #[test]
    fn more_processes_or_namespaces_than_are_read_leave_it_open() {
        let processes = |count: usize| {
            let mut host = host(&[]);
            host.lists.insert("/proc".to_owned(), (1..=count).map(|process| process.to_string()).collect());
            found(&host).1
        };
        assert_eq!(processes(PROCESSES), None);
        assert_eq!(processes(PROCESSES + 1), Some(Cause::Limit));
        let namespaces = |count: usize| {
            let mut host = host(&[]);
            let processes = 2..count + 2;
            let names = std::iter::once(1).chain(processes.clone()).map(|process| process.to_string());
            host.lists.insert("/proc".to_owned(), names.collect());
            for process in processes {
                let mountinfo = format!("{} 1 8:2 / / rw - xfs /dev/dm-2 rw\n", process + 100);
                host.file(&format!("/proc/{process}/mountinfo"), &mountinfo);
            }
            found(&host).1
        };
        assert_eq!(namespaces(NAMESPACES), None);
        assert_eq!(namespaces(NAMESPACES + 1), Some(Cause::Limit));
    }
}
