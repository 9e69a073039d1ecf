//! Files, the kernel's own numbers and sockets of a Linux host.
#![allow(unsafe_code)]

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    os::{fd::AsRawFd as _, unix::ffi::OsStringExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};

use muster_proto::{fact::OsFamily, time::Timestamp};

use super::{Live, audit, netfilter, run, walk};
use crate::host::{
    AuditQuery, Digests, Dump, EntryKind, FOLDER_NAMES, Family, Host, KernelClock, Luks, Machine, Metadata, Pace,
    Policy, SocketOwners, Space, Tool, Visitor, fscrypt, luks,
};

/// Bytes that `union` of `struct fscrypt_get_policy_ex_arg` has: the policy of version 2.
const POLICY_BYTES: usize = 24;
/// `FS_IOC_GET_ENCRYPTION_POLICY_EX`, whose argument linux/fscrypt.h counts as nine bytes, whatever the policy has.
const GET_ENCRYPTION_POLICY_EX: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<[u8; 9]>(b'f', 22);

/// `struct fscrypt_get_policy_ex_arg` of linux/fscrypt.h.
#[repr(C)]
struct PolicyArgument {
    size: u64,
    policy: [u8; POLICY_BYTES],
}

impl Host for Live {
    fn os_family(&self) -> OsFamily {
        OsFamily::Linux
    }

    fn read(&self, path: &Path, limit_bytes: usize) -> io::Result<Vec<u8>> {
        self.check_deadline()?;
        let mut bytes = Vec::new();
        open_regular(path)?.take(limit_bytes as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    fn stream(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        self.check_deadline()?;
        Ok(Box::new(Stream { file: open_regular(path)?, live: *self }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.check_deadline()?;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            if names.len() == FOLDER_NAMES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            names.push(entry?.file_name());
        }
        names.sort();
        Ok(names)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.check_deadline()?;
        Ok(metadata(&rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.check_deadline()?;
        let target = rustix::fs::readlinkat(CWD, path, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    fn machine(&self) -> io::Result<Machine> {
        let name = rustix::system::uname();
        let mut system = sysinfo::System::new().map_err(|_| io::ErrorKind::Unsupported)?;
        system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
        Ok(Machine {
            hostname: name.nodename().to_string_lossy().into_owned(),
            release: name.release().to_string_lossy().into_owned(),
            machine: name.machine().to_string_lossy().into_owned(),
            // SAFETY: sysconf(3) takes a number and returns one.
            processors: u64::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) })
                .map_err(|_| io::ErrorKind::Unsupported)?,
            memory_bytes: system.total_memory(),
        })
    }

    fn clock_is_synchronized(&self) -> io::Result<bool> {
        self.clock().map(|clock| clock.synchronized)
    }

    #[allow(clippy::useless_conversion, reason = "a long has 32 bits on other machines")]
    fn clock(&self) -> io::Result<KernelClock> {
        // SAFETY: timex is plain numbers, for which zero is a value; modes 0 makes adjtimex(2) a pure read.
        let (state, timex) = unsafe {
            let mut timex: libc::timex = std::mem::zeroed();
            (libc::adjtimex(&raw mut timex), timex)
        };
        if state < 0 {
            return Err(io::Error::last_os_error());
        }
        let nanos_per_unit = if timex.status & libc::STA_NANO == 0 { 1000 } else { 1 };
        Ok(KernelClock {
            synchronized: timex.status & libc::STA_UNSYNC == 0,
            offset_nanos: i64::from(timex.offset).saturating_mul(nanos_per_unit),
            max_error_micros: i64::from(timex.maxerror),
            estimated_error_micros: i64::from(timex.esterror),
        })
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.check_deadline()?;
        let space = rustix::fs::statvfs(path)?;
        Ok(Space {
            blocks: space.f_blocks,
            free: space.f_bfree,
            available: space.f_bavail,
            inodes: space.f_files,
            free_inodes: space.f_ffree,
        })
    }

    fn audit(&self, query: AuditQuery) -> io::Result<Vec<u8>> {
        self.check_deadline()?;
        audit::ask(query)
    }

    fn socket_owners(&self, inodes: &BTreeSet<u64>) -> io::Result<SocketOwners> {
        let mut owners = SocketOwners::default();
        let mut processes: Vec<u32> = self
            .list(Path::new("/proc"))?
            .iter()
            .filter_map(|name| name.to_str().and_then(|name| name.parse().ok()))
            .collect();
        processes.sort_unstable();
        // proc(5): with `hidepid` those of others are not listed.
        owners.is_partial = !processes.contains(&1);
        for process in processes {
            if owners.programs.len() == inodes.len() {
                break;
            }
            self.check_deadline()?;
            self.add_sockets(process, inodes, &mut owners);
        }
        Ok(owners)
    }

    fn luks(&self, device: &Path) -> io::Result<Luks> {
        self.check_deadline()?;
        let mut start = Vec::with_capacity(luks::HEADER_BYTES);
        File::open(device)?.take(luks::HEADER_BYTES as u64).read_to_end(&mut start)?;
        luks::parse(&start).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no whole LUKS header"))
    }

    fn encryption_policy(&self, path: &Path) -> io::Result<Policy> {
        self.check_deadline()?;
        // Opening anything else, such as a device, could do something.
        match FileType::from_raw_mode(rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?.st_mode) {
            FileType::Directory | FileType::RegularFile => {}
            _ => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let mut policy = PolicyArgument { size: POLICY_BYTES as u64, policy: [0; POLICY_BYTES] };
        // SAFETY: the descriptor is open; the kernel writes no more of the policy than `size` says, and then its size.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), GET_ENCRYPTION_POLICY_EX as _, &raw mut policy) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let size = usize::try_from(policy.size).unwrap_or(usize::MAX);
        let policy = policy.policy.get(..size).and_then(fscrypt::parse);
        policy.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no policy of a version that is known"))
    }

    fn nf_tables(&self, dump: Dump) -> io::Result<Vec<u8>> {
        self.check_deadline()?;
        netfilter::dump(dump)
    }

    fn nf_elements(&self, family: u8, table: &str, set: &str) -> io::Result<Vec<u8>> {
        self.check_deadline()?;
        netfilter::elements(family, table, set)
    }

    fn iptables(&self, family: Family, table: &str) -> io::Result<Vec<u8>> {
        self.check_deadline()?;
        netfilter::legacy(family, table)
    }

    fn run(&self, tool: Tool, args: &[&str]) -> io::Result<Vec<u8>> {
        self.check_deadline()?;
        run::run(tool, args, self.deadline)
    }

    fn run_streamed(
        &self,
        tool: Tool,
        args: &[&str],
        visit: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.check_deadline()?;
        run::run_streamed(tool, args, self.deadline, visit)
    }

    fn walk(&self, root: &Path, pace: &Pace, visitor: &mut dyn Visitor) -> io::Result<()> {
        walk::walk(*self, root, pace, visitor)
    }

    fn digests(&self, root: &Path, path: &Path) -> io::Result<Digests> {
        walk::digests(*self, root, path)
    }
}

impl Live {
    /// Adds the sockets of one process. A process may end meanwhile, which is no error.
    fn add_sockets(self, process: u32, inodes: &BTreeSet<u64>, owners: &mut SocketOwners) {
        let files = PathBuf::from(format!("/proc/{process}/fd"));
        let names = match self.list(&files) {
            Ok(names) => names,
            Err(error) => {
                owners.is_partial |= error.kind() == io::ErrorKind::PermissionDenied;
                return;
            }
        };
        for name in names {
            let target = match rustix::fs::readlinkat(CWD, files.join(name), Vec::new()) {
                Ok(target) => target,
                // proc(5): who may read any folder may list the files of a process, and may still not see what they are.
                Err(error) => {
                    owners.is_partial |= io::Error::from(error).kind() == io::ErrorKind::PermissionDenied;
                    continue;
                }
            };
            let Some(inode) = socket_inode(target.as_bytes()) else { continue };
            if !inodes.contains(&inode) || owners.programs.contains_key(&inode) {
                continue;
            }
            if let Ok(comm) = std::fs::read(format!("/proc/{process}/comm")) {
                let comm = String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned();
                owners.programs.insert(inode, comm);
            }
        }
    }
}

/// Returns the inode of `socket:[123]`.
fn socket_inode(target: &[u8]) -> Option<u64> {
    std::str::from_utf8(target).ok()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Opens a regular file. Anything else is refused: opening a device or a FIFO could do something or wait for a peer.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    Ok(File::from(file))
}

#[allow(clippy::useless_conversion, reason = "a number of links has 32 bits on other machines")]
pub(super) fn metadata(stat: &Stat) -> Metadata {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Folder,
        FileType::Symlink => EntryKind::Link,
        FileType::Fifo => EntryKind::Pipe,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice => EntryKind::CharacterDevice,
        FileType::BlockDevice => EntryKind::BlockDevice,
        FileType::Unknown => EntryKind::Other,
    };
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let micros = stat.st_mtime.checked_mul(1_000_000).and_then(|micros| micros.checked_add(nanos / 1000));
    Metadata {
        kind,
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        modified: micros.and_then(Timestamp::from_micros),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        device: (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)),
        inode: stat.st_ino,
        links: stat.st_nlink.into(),
        changed_nanos: stat
            .st_ctime
            .checked_mul(1_000_000_000)
            .and_then(|nanos| nanos.checked_add(i64::try_from(stat.st_ctime_nsec).unwrap_or(0))),
    }
}

/// A file that is read in pieces, each before the deadline.
struct Stream {
    file: File,
    live: Live,
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.live.check_deadline()?;
        self.file.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_read_is_bounded_and_refuses_what_is_not_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"12345").unwrap();
        let live = Live::new();
        assert_eq!(live.read(&path, 5).unwrap(), b"12345");
        assert_eq!(live.read(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(live.read(&folder.path().join("none"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(live.read(folder.path(), 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(live.read(&fifo, 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_time_that_the_contract_cannot_name_is_unknown_and_not_1970() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut stat = rustix::fs::stat(file.path()).unwrap();
        for (seconds, nanos, expected) in [
            (-1, 0, None),
            (-1, 999_999_999, None),
            (i64::MIN, 0, None),
            (i64::MAX, 0, None),
            (32_503_680_000, 0, None),
            (0, 0, Some(0)),
            (0, 1_999, Some(1)),
            (1_700_000_000, 5_000, Some(1_700_000_000_000_005)),
        ] {
            (stat.st_mtime, stat.st_mtime_nsec) = (seconds, nanos);
            let read = metadata(&stat);
            assert_eq!(read.modified.map(Timestamp::micros), expected, "{seconds} s");
            assert_eq!(read.modified_time().known().is_some(), expected.is_some(), "{seconds} s");
        }
    }

    #[test]
    fn only_folders_and_files_are_asked_for_a_policy() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), b"x").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        for name in ["link", "fifo"] {
            let error = Live::new().encryption_policy(&at(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{name}");
        }
        // Whether the kernel and the file system know policies or not, this file has none.
        for name in ["", "file"] {
            let error = Live::new().encryption_policy(&at(name)).unwrap_err();
            assert!(matches!(error.raw_os_error(), Some(25 | 61 | 95)), "{name} {error}");
        }
        assert_eq!(Live::new().encryption_policy(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn after_the_deadline_nothing_is_read() {
        let live = Live::until(std::time::Instant::now());
        assert_eq!(live.read(Path::new("/proc/self/stat"), 9999).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(live.list(Path::new("/")).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn an_own_listening_socket_has_this_program_as_owner() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        let target = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        let inode = socket_inode(target.as_os_str().as_bytes()).unwrap();
        let owners = Live::new().socket_owners(&BTreeSet::from([inode])).unwrap();
        assert!(owners.programs.contains_key(&inode));
    }
}
