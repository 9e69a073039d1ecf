//! Mounts and swap areas, as the kernel lists them. Pure.

/// File systems that store nothing: views of the kernel, and what others mount themselves on.
const PSEUDO: &[&[u8]] = &[
    b"autofs",
    b"binfmt_misc",
    b"bpf",
    b"cgroup",
    b"cgroup2",
    b"configfs",
    b"cpuset",
    b"debugfs",
    b"devpts",
    b"devtmpfs",
    b"efivarfs",
    b"fusectl",
    b"hugetlbfs",
    b"mqueue",
    b"nfsd",
    b"nsfs",
    b"ocfs2_dlmfs",
    b"proc",
    b"pstore",
    b"resctrl",
    b"rootfs",
    b"rpc_pipefs",
    b"securityfs",
    b"selinuxfs",
    b"smackfs",
    b"sysfs",
    b"tracefs",
    b"xenfs",
    b"fuse.lxcfs",
    b"fuse.portal",
    b"fuse.gvfsd-fuse",
    b"fuse.vmware-vmblock",
];
/// Kept by another host, or by the one that a guest runs on. Those of clusters on a block device, gfs2 and ocfs2, are where that is.
const NETWORK: &[&[u8]] = &[
    b"9p",
    b"afs",
    b"beegfs",
    b"ceph",
    b"cifs",
    b"coda",
    b"fuse.ceph",
    b"fuse.glusterfs",
    b"fuse.rclone",
    b"fuse.s3fs",
    b"fuse.sshfs",
    b"fuse.vmhgfs-fuse",
    b"gpfs",
    b"hostfs",
    b"lustre",
    b"nfs",
    b"nfs4",
    b"orangefs",
    b"prl_fs",
    b"smb3",
    b"smbfs",
    b"vboxsf",
    b"virtiofs",
];
const MEMORY: &[&[u8]] = &[b"ramfs", b"tmpfs"];
/// File systems that nothing can be written to.
const IMAGE: &[&[u8]] = &[b"cramfs", b"erofs", b"fuse.snapfuse", b"fuse.squashfuse", b"iso9660", b"romfs", b"squashfs"];
/// Those of them that are of optical disks.
const OPTICAL: &[&[u8]] = &[b"iso9660", b"udf"];
/// Major number of drives of optical disks: Documentation/admin-guide/devices.txt.
const OPTICAL_MAJOR: u32 = 11;
/// File systems that may encrypt by themselves, and of which this build cannot tell.
const OWN_ENCRYPTION: &[&[u8]] = &[b"bcachefs", b"fuse.cryfs", b"fuse.encfs", b"fuse.gocryptfs"];
/// File systems on devices that find these by themselves, so that the number of their device is that of none.
const OWN_NUMBER: &[&[u8]] = &[b"bcachefs", b"btrfs", b"ubifs", b"zfs"];
/// File systems whose folders may have fscrypt policies (Documentation/filesystems/fscrypt.rst).
const FSCRYPT: &[&[u8]] = &[b"ceph", b"ext4", b"f2fs", b"ubifs"];

/// File systems whose journal may be a device of its own that no option names: ext4(5). One driver serves all three.
const JOURNAL_DEVICE: &[&[u8]] = &[b"ext2", b"ext3", b"ext4"];
/// Options that name a further device of a file system: the log and the real-time section of XFS, xfs(5), and the journal of ReiserFS.
const OTHER_DEVICES: &[&[u8]] = &[b"logdev=", b"rtdev=", b"jdev="];

/// A line of proc_pid_mountinfo(5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Mount {
    pub id: u64,
    /// Id of the mount that it is mounted on.
    pub parent: u64,
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// What of the file system is mounted: `/`, or a folder of it.
    pub root: Vec<u8>,
    pub mount_point: Vec<u8>,
    pub file_system: Vec<u8>,
    pub source: Vec<u8>,
    /// Options of the file system, still escaped.
    pub options: Vec<u8>,
}

impl Mount {
    pub fn is_pseudo(&self) -> bool {
        PSEUDO.contains(&self.file_system.as_slice())
    }

    pub fn is_network(&self) -> bool {
        NETWORK.contains(&self.file_system.as_slice())
    }

    pub fn is_memory(&self) -> bool {
        MEMORY.contains(&self.file_system.as_slice())
    }

    pub fn is_image(&self) -> bool {
        // UDF is that of optical disks, and may be written to on others.
        let is_read_only = || self.file_system == b"udf" && self.has_option(b"ro");
        IMAGE.contains(&self.file_system.as_slice()) || is_read_only()
    }

    /// Returns whether it is an image wherever that may be, and not only in a file: in a drive of optical disks, or given by a program.
    pub fn is_image_anywhere(&self) -> bool {
        let is_in_drive = || self.device.0 == OPTICAL_MAJOR && OPTICAL.contains(&self.file_system.as_slice());
        self.is_image() && (self.device.0 == 0 || is_in_drive())
    }

    pub fn has_own_encryption(&self) -> bool {
        OWN_ENCRYPTION.contains(&self.file_system.as_slice())
    }

    pub fn may_have_fscrypt(&self) -> bool {
        FSCRYPT.contains(&self.file_system.as_slice())
    }

    /// Returns whether the folder that is mounted may have an fscrypt policy: ext4 encrypts none that holds all of it.
    pub fn may_have_policy(&self) -> bool {
        self.may_have_fscrypt() && !(self.file_system == b"ext4" && self.root == b"/")
    }

    /// Returns whether it is on devices of its own, which the number of its device tells apart from all others.
    pub fn is_on_device(&self) -> bool {
        let has_device = || self.device.0 != 0 || OWN_NUMBER.contains(&self.file_system.as_slice());
        has_device() && !self.is_pseudo() && !self.is_network()
    }

    pub fn may_have_journal_device(&self) -> bool {
        JOURNAL_DEVICE.contains(&self.file_system.as_slice())
    }

    /// Returns the paths of further devices that the options name.
    pub fn other_devices(&self) -> Vec<Vec<u8>> {
        OTHER_DEVICES.iter().filter_map(|key| self.option(key)).collect()
    }

    /// Returns the value of the option that begins with `key`, such as `upperdir=`.
    pub fn option(&self, key: &[u8]) -> Option<Vec<u8>> {
        // A comma in a value is written as `\054`.
        self.options.split(|&byte| byte == b',').find_map(|option| option.strip_prefix(key)).map(unescape)
    }

    pub fn has_option(&self, option: &[u8]) -> bool {
        self.options.split(|&byte| byte == b',').any(|one| one == option)
    }

    /// Returns the lower folders of an overlay, the uppermost first. A colon in a name has a backslash before it.
    pub fn lower_folders(&self) -> Vec<Vec<u8>> {
        let Some(names) = self.option(b"lowerdir=") else {
            // Newer mounts name each by itself: `ovl_show_options` in fs/overlayfs/params.c.
            let options = self.options.split(|&byte| byte == b',');
            let folder = |option: &[u8]| {
                option.strip_prefix(b"lowerdir+=").or_else(|| option.strip_prefix(b"datadir+=")).map(unescape)
            };
            return options.filter_map(folder).collect();
        };
        let mut folders = vec![Vec::new()];
        let mut bytes = names.into_iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b':' => folders.push(Vec::new()),
                b'\\' => folders.last_mut().expect("has one from the start").extend(bytes.next()),
                byte => folders.last_mut().expect("has one from the start").push(byte),
            }
        }
        // Two colons in a row stand before layers of data alone.
        folders.retain(|folder| !folder.is_empty());
        folders
    }

    /// Returns whether `path` is at or below the mount point.
    pub fn holds(&self, path: &[u8]) -> bool {
        match path.strip_prefix(self.mount_point.as_slice()) {
            Some(rest) => self.mount_point == b"/" || rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }

    /// Returns where in the file system `path` is, which the mount holds.
    pub fn inside(&self, path: &[u8]) -> Vec<u8> {
        let trimmed = |path: &[u8]| path.strip_suffix(b"/").unwrap_or(path).to_vec();
        let rest = path.get(trimmed(&self.mount_point).len()..).unwrap_or_default();
        trimmed(&[trimmed(&self.root).as_slice(), rest].concat())
    }
}

/// A line of proc_swaps(5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Swap {
    pub name: Vec<u8>,
    pub is_file: bool,
    pub size_bytes: u64,
}

/// Returns the mounts of a mountinfo file; `None` when a line does not follow the format.
pub(super) fn parse(bytes: &[u8]) -> Option<Vec<Mount>> {
    lines(bytes).map(parse_line).collect()
}

/// Returns the number of the first mount of a mountinfo file, of which this is the start.
pub(super) fn first_id(start: &[u8]) -> Option<u64> {
    let (id, _) = std::str::from_utf8(start).ok()?.split_once(' ')?;
    id.parse().ok()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let (id, parent, device) = (text()?.parse().ok()?, text()?.parse().ok()?, text()?);
    let (major, minor) = device.split_once(':')?;
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?);
    // Optional fields end with a dash.
    fields.by_ref().find(|field| *field == b"-")?;
    Some(Mount {
        id,
        parent,
        device: (major.parse().ok()?, minor.parse().ok()?),
        root,
        mount_point,
        file_system: unescape(fields.next()?),
        source: unescape(fields.next()?),
        options: fields.next().unwrap_or_default().to_vec(),
    })
}

/// Returns the swap areas of a swaps file; `None` when a line does not follow the format.
pub(super) fn parse_swaps(bytes: &[u8]) -> Option<Vec<Swap>> {
    let parse = |line: &[u8]| {
        let mut fields = line.split(|&byte| byte == b' ' || byte == b'\t').filter(|field| !field.is_empty());
        let name = unescape(fields.next()?);
        let is_file = match fields.next()? {
            b"file" => true,
            b"partition" => false,
            _ => return None,
        };
        // In units of 1024 bytes.
        let size = std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok()?;
        Some(Swap { name, is_file, size_bytes: size.checked_mul(1024)? })
    };
    lines(bytes).skip(1).map(parse).collect()
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
}

/// Returns a field with `\040` and the like as the bytes that they stand for.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.first_chunk::<3>().filter(|_| byte == b'\\').and_then(octal);
        match escaped {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    u8::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mount_is_read_with_its_escapes_and_optional_fields() {
        let line =
            b"36 35 98:0 /mnt1 /mnt\\040two\\134x rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,a=b\n";
        let expected = Mount {
            id: 36,
            parent: 35,
            device: (98, 0),
            root: b"/mnt1".to_vec(),
            mount_point: b"/mnt two\\x".to_vec(),
            file_system: b"ext3".to_vec(),
            source: b"/dev/root".to_vec(),
            options: b"rw,a=b".to_vec(),
        };
        assert_eq!(expected.option(b"a="), Some(b"b".to_vec()));
        assert!(expected.has_option(b"rw") && !expected.has_option(b"ro"));
        assert_eq!(parse(line), Some(vec![expected]));
        assert_eq!(parse(b"36 35 98:0 /mnt1 /mnt rw master:1 ext3 /dev/root rw\n"), None);
        assert_eq!(parse(b"garbage\n"), None);
        assert_eq!(parse(b"36 x 98:0 /mnt1 /mnt rw - ext3 /dev/root rw\n"), None);
    }

    #[test]
    fn swap_areas_are_partitions_or_files() {
        let text = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/dm-1                               partition\t1048572\t\t0\t\t-2\n/a\\040b file\t1\t0\t-3\n";
        let swap = |name: &[u8], is_file, size_bytes| Swap { name: name.to_vec(), is_file, size_bytes };
        let expected = vec![swap(b"/dev/dm-1", false, 1_048_572 * 1024), swap(b"/a b", true, 1024)];
        assert_eq!(parse_swaps(text), Some(expected));
        assert_eq!(parse_swaps(b""), Some(Vec::new()));
        for line in ["/dev/x other 1 1 1", "/dev/x file", "/dev/x file x 0 -2", "/dev/x file 18014398509481984 0 -2"] {
            assert_eq!(parse_swaps(format!("Filename Type\n{line}\n").as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn doors_to_the_kernel_and_to_a_hypervisor_hold_no_data() {
        for file_system in ["nfsd", "ocfs2_dlmfs", "xenfs", "fuse.vmware-vmblock", "proc"] {
            let line = format!("1 1 0:9 / /x rw - {file_system} x rw\n");
            assert!(parse(line.as_bytes()).unwrap()[0].is_pseudo(), "{file_system}");
        }
        assert!(!parse(b"1 1 0:9 / /x rw - nfs x rw\n").unwrap()[0].is_pseudo());
    }

    #[test]
    fn the_folders_of_an_overlay_are_read_with_their_escapes() {
        let folders = |options: &str| {
            let line = format!("1 1 0:9 / /x rw - overlay overlay {options}\n");
            parse(line.as_bytes()).unwrap()[0].lower_folders()
        };
        let expected = [b"/a".to_vec(), b"/b,c:d e\\f".to_vec()];
        assert_eq!(folders(r"rw,lowerdir=/a:/b\054c\134:d\040e\134\134f,upperdir=/u"), expected);
        assert_eq!(folders("rw,lowerdir=/a::/data"), [b"/a".to_vec(), b"/data".to_vec()]);
        let one_by_one = r"ro,lowerdir+=/a:b,lowerdir+=/c\134:\054d,datadir+=/data,metacopy=on";
        assert_eq!(folders(one_by_one), [b"/a:b".to_vec(), b"/c\\:,d".to_vec(), b"/data".to_vec()]);
        assert_eq!(folders("rw"), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn only_what_cannot_be_written_to_is_an_image() {
        let is_image = |file_system: &str, options: &str| {
            let line = format!("1 1 7:0 / /x ro - {file_system} /dev/loop0 {options}\n");
            parse(line.as_bytes()).unwrap()[0].is_image()
        };
        assert!(is_image("squashfs", "ro") && is_image("iso9660", "ro") && is_image("udf", "ro,utf8"));
        assert!(!is_image("udf", "rw") && !is_image("ext4", "ro"));
    }

    #[test]
    fn a_mount_holds_what_is_at_and_below_its_point() {
        let mount = |point: &[u8]| Mount {
            mount_point: point.to_vec(),
            ..parse(b"1 1 8:1 / / rw - ext4 x rw\n").unwrap()[0].clone()
        };
        assert!(mount(b"/").holds(b"/a"));
        assert!(mount(b"/a").holds(b"/a/b") && mount(b"/a").holds(b"/a"));
        assert!(!mount(b"/a").holds(b"/ab") && !mount(b"/a/b").holds(b"/a"));
    }

    #[test]
    fn a_path_is_inside_the_folder_that_is_mounted() {
        let inside = |root: &str, point: &str, path: &str| {
            let line = format!("1 1 8:1 {root} {point} rw - ext4 x rw\n");
            String::from_utf8(parse(line.as_bytes()).unwrap()[0].inside(path.as_bytes())).unwrap()
        };
        for (root, point, path, expected) in [
            ("/", "/", "/", ""),
            ("/", "/", "/a/b", "/a/b"),
            ("/", "/a", "/a", ""),
            ("/", "/a", "/a/b", "/b"),
            ("/x", "/", "/a", "/x/a"),
            ("/x", "/a", "/a/b", "/x/b"),
        ] {
            assert_eq!(inside(root, point, path), expected, "{root} {point} {path}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse_swaps(&bytes);
            let _ = first_id(&bytes);
        }
    }
}
