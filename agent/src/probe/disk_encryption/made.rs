//! Made-up hosts and captures, for the tests of each part.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use muster_proto::fact::{Cause, OsFamily, PathText, Reading, Volume};

use super::{policies::NO_POLICY, state};
use crate::host::{
    AuditQuery, Digests, Dump, EntryKind, Family, Host, KernelClock, Luks, Machine, Metadata, Pace, Policy, Recorded,
    SocketOwners, Space, Tool, Visitor,
    recorded::{Failure, Index},
};

pub(super) const ABSENT: i32 = 2;

/// A host of answers made up beforehand. What is not there is absent.
#[derive(Debug)]
pub(super) struct MadeHost {
    /// Errors by what is asked, such as `read /proc/7/mountinfo` or `list /proc`; of the start alone of a file, `stream`.
    pub errors: HashMap<String, i32>,
    files: HashMap<String, Vec<u8>>,
    pub links: HashMap<String, String>,
    pub lists: HashMap<String, Vec<String>>,
    /// Number of the device that holds a file.
    pub metadata: HashMap<String, usize>,
    /// Major number of those devices.
    pub device_major: u32,
    pub headers: HashMap<String, Luks>,
    /// Why the header of a device is not read that is there.
    pub no_header: HashMap<String, io::ErrorKind>,
    /// fscrypt policies of folders. Those that are not there have none.
    pub policies: HashMap<String, Policy>,
    /// Blocks of what is mounted at a path.
    pub blocks: HashMap<String, u64>,
    /// How many of them are free, where some are.
    pub free: HashMap<String, u64>,
}

impl Default for MadeHost {
    fn default() -> Self {
        Self {
            errors: HashMap::new(),
            files: HashMap::new(),
            links: HashMap::new(),
            lists: HashMap::from([("/proc".to_owned(), vec!["1".to_owned()])]),
            metadata: HashMap::new(),
            device_major: 8,
            headers: HashMap::new(),
            no_header: HashMap::new(),
            policies: HashMap::new(),
            blocks: HashMap::new(),
            free: HashMap::new(),
        }
    }
}

impl MadeHost {
    /// Adds a device with major number 8 that stands on those `below`; one with a `uuid` is of device-mapper.
    pub fn device(&mut self, minor: usize, name: &str, uuid: &str, below: &[&str]) {
        let (place, folder) = (format!("../../devices/x/block/{name}"), format!("/sys/class/block/{name}"));
        self.links.insert(format!("/sys/dev/block/8:{minor}"), place.clone());
        self.links.insert(folder.clone(), place);
        self.lists.insert(format!("{folder}/slaves"), below.iter().map(|&lower| lower.to_owned()).collect());
        self.lists.entry("/sys/class/block".to_owned()).or_default().push(name.to_owned());
        if !uuid.is_empty() {
            self.file(&format!("{folder}/dm/uuid"), uuid);
        }
    }

    pub fn file(&mut self, path: &str, content: &str) {
        self.files.insert(path.to_owned(), content.as_bytes().to_vec());
    }

    fn meet(&self, verb: &str, path: &Path) -> io::Result<()> {
        let error = self.errors.get(&format!("{verb} {}", path.display()));
        error.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(*errno)))
    }
}

fn of<'a, T>(answers: &'a HashMap<String, T>, path: &Path) -> io::Result<&'a T> {
    answers.get(path.to_str().unwrap()).ok_or_else(|| io::Error::from_raw_os_error(2))
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Host for MadeHost {
    fn os_family(&self) -> OsFamily {
        OsFamily::Linux
    }

    fn clock(&self) -> io::Result<KernelClock> {
        unsupported()
    }

    fn audit(&self, _: AuditQuery) -> io::Result<Vec<u8>> {
        unsupported()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let blocks = *of(&self.blocks, path)?;
        let free = of(&self.free, path).copied().unwrap_or_default();
        Ok(Space { blocks, free, available: 0, inodes: 0, free_inodes: 0 })
    }

    fn read(&self, path: &Path, limit_bytes: usize) -> io::Result<Vec<u8>> {
        self.meet("read", path)?;
        let bytes = of(&self.files, path)?;
        if bytes.len() > limit_bytes { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.clone()) }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.meet("list", folder)?;
        Ok(of(&self.lists, folder)?.iter().map(OsString::from).collect())
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let device = (self.device_major, u32::try_from(*of(&self.metadata, path)?).unwrap());
        Ok(Metadata {
            kind: EntryKind::File,
            size_bytes: 0,
            modified: None,
            mode: 0,
            uid: 0,
            gid: 0,
            device,
            inode: 0,
            links: 0,
            changed_nanos: None,
        })
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        of(&self.links, path).map(PathBuf::from)
    }

    fn luks(&self, device: &Path) -> io::Result<Luks> {
        if let Ok(kind) = of(&self.no_header, device) {
            return Err((*kind).into());
        }
        of(&self.headers, device).cloned()
    }

    fn encryption_policy(&self, folder: &Path) -> io::Result<Policy> {
        of(&self.policies, folder).copied().map_err(|_| io::Error::from_raw_os_error(NO_POLICY))
    }

    fn stream(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        self.meet("stream", path)?;
        Ok(Box::new(io::Cursor::new(of(&self.files, path)?.clone())))
    }

    fn machine(&self) -> io::Result<Machine> {
        unsupported()
    }

    fn clock_is_synchronized(&self) -> io::Result<bool> {
        unsupported()
    }

    fn socket_owners(&self, _: &BTreeSet<u64>) -> io::Result<SocketOwners> {
        unsupported()
    }

    fn nf_tables(&self, _: Dump) -> io::Result<Vec<u8>> {
        unsupported()
    }

    fn nf_elements(&self, _: u8, _: &str, _: &str) -> io::Result<Vec<u8>> {
        unsupported()
    }

    fn iptables(&self, _: Family, _: &str) -> io::Result<Vec<u8>> {
        unsupported()
    }

    fn run(&self, _: Tool, _: &[&str]) -> io::Result<Vec<u8>> {
        unsupported()
    }

    fn walk(&self, _: &Path, _: &Pace, _: &mut dyn Visitor) -> io::Result<()> {
        unsupported()
    }

    fn digests(&self, _: &Path, _: &Path) -> io::Result<Digests> {
        unsupported()
    }
}

pub(super) fn captured(machine: &str) -> Recorded {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/disk_encryption");
    Recorded::at(&fixtures.join(machine)).unwrap()
}

pub(super) fn failure(errno: i32) -> Failure {
    Failure { errno: Some(errno), kind: String::new(), text: String::new() }
}

pub(super) fn path(path: &str) -> PathText {
    PathText::from_bytes(path.as_bytes())
}

/// Returns what is said of a host with these lines of mountinfo on one plain disk, `8:0`, changed by `change`.
pub(super) fn volumes_of(mounts: &str, change: impl FnOnce(&mut Index)) -> Vec<Volume> {
    let folder = tempfile::tempdir().unwrap();
    let write = |at: &str, content: &str| {
        let at = folder.path().join("files").join(at);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, content).unwrap();
    };
    write("proc/1/mountinfo", mounts);
    write("proc/swaps", "Filename Type Size Used Priority\n");
    write("sys/class/block/loop0/loop/backing_file", "/var/x\n");
    std::fs::write(folder.path().join("index.json"), r#"{"version": 1, "captured": "2026-11-24T12:00:00Z"}"#).unwrap();
    let mut host = Recorded::at(folder.path()).unwrap();
    let index = host.index_mut();
    index.lists.insert(path("/proc/fs/jbd2"), ["loop0-8", "sda-8"].map(path).to_vec());
    let disk = path("../../devices/pci0000:00/ata1/block/sda");
    index.links.insert(path("/sys/dev/block/8:0"), disk.clone());
    index.links.insert(path("/sys/class/block/sda"), disk);
    index.lists.insert(path("/sys/class/block/sda/slaves"), Vec::new());
    for attribute in ["partition", "dm/name", "dm/uuid", "device/vendor", "device/model", "removable", "ro"] {
        index.errors.insert(format!("read /sys/class/block/sda/{attribute}"), failure(ABSENT));
    }
    change(index);
    state(&host).unwrap().volumes
}

pub(super) fn cause(reading: &Reading<bool>) -> Option<Cause> {
    match reading {
        Reading::Unknown { unknown } => Some(unknown.cause),
        Reading::Known(_) => None,
    }
}

/// Returns a host with these lines of mountinfo, the plain disks `sda` and `sdb` as 8:0 and 8:1, and `dm-2` and `dm-3` as 8:2 and
/// 8:3, which encrypt what is on them.
pub(super) fn made(mounts: &str) -> MadeHost {
    let mut host = MadeHost::default();
    host.file("/proc/1/mountinfo", mounts);
    host.file("/proc/crypto", "name : ecb(cipher_null)\nrefcnt : 1\ntype : skcipher\n");
    host.device(0, "sda", "", &[]);
    host.device(1, "sdb", "", &[]);
    host.device(2, "dm-2", "CRYPT-PLAIN-a", &["sda"]);
    host.device(3, "dm-3", "CRYPT-PLAIN-b", &["sdb"]);
    host
}

pub(super) fn volume_at(host: &MadeHost, point: &str) -> Volume {
    state(host).unwrap().volumes.into_iter().find(|volume| volume.mount_point == path(point)).unwrap()
}
