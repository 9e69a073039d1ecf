//! A host of macOS or Windows: files, folders and tools. What Linux alone has is an error that says so.
//!
//! **It has never run on one of those systems**: the compiler has checked its calls and nothing more, and the agent as a whole does not
//! build for Windows yet. Walks and digests of files are not there, so that file integrity is unknown on them.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use muster_proto::fact::OsFamily;

use super::Live;
use crate::host::{
    AuditQuery, Digests, Dump, FOLDER_NAMES, Family, Host, KernelClock, Luks, Machine, Metadata, Pace, Policy,
    SocketOwners, Space, Tool, Visitor,
};

impl Host for Live {
    fn os_family(&self) -> OsFamily {
        if cfg!(windows) { OsFamily::Windows } else { OsFamily::Macos }
    }

    fn read(&self, path: &Path, limit_bytes: usize) -> io::Result<Vec<u8>> {
        self.check_deadline()?;
        let mut bytes = Vec::new();
        open_regular(path)?.take(limit_bytes as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit_bytes { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    fn stream(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        self.check_deadline()?;
        Ok(Box::new(open_regular(path)?))
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

    fn metadata(&self, _: &Path) -> io::Result<Metadata> {
        unsupported()
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.check_deadline()?;
        std::fs::read_link(path)
    }

    fn machine(&self) -> io::Result<Machine> {
        let untold = |_| io::Error::from(io::ErrorKind::Unsupported);
        let mut system = sysinfo::System::new().map_err(untold)?;
        system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
        Ok(Machine {
            hostname: sysinfo::System::host_name().map_err(untold)?,
            release: sysinfo::System::kernel_version().map_err(untold)?,
            machine: sysinfo::System::cpu_arch(),
            processors: std::thread::available_parallelism()?.get() as u64,
            memory_bytes: system.total_memory(),
        })
    }

    fn clock_is_synchronized(&self) -> io::Result<bool> {
        unsupported()
    }

    fn clock(&self) -> io::Result<KernelClock> {
        unsupported()
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        unsupported()
    }

    fn audit(&self, _: AuditQuery) -> io::Result<Vec<u8>> {
        unsupported()
    }

    fn socket_owners(&self, _: &BTreeSet<u64>) -> io::Result<SocketOwners> {
        unsupported()
    }

    fn luks(&self, _: &Path) -> io::Result<Luks> {
        unsupported()
    }

    fn encryption_policy(&self, _: &Path) -> io::Result<Policy> {
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

    fn run(&self, tool: Tool, args: &[&str]) -> io::Result<Vec<u8>> {
        self.check_deadline()?;
        super::run::run(tool, args, self.deadline)
    }

    #[cfg(unix)]
    fn run_streamed(
        &self,
        tool: Tool,
        args: &[&str],
        visit: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.check_deadline()?;
        super::run::run_streamed(tool, args, self.deadline, visit)
    }

    fn walk(&self, _: &Path, _: &Pace, _: &mut dyn Visitor) -> io::Result<()> {
        unsupported()
    }

    fn digests(&self, _: &Path, _: &Path) -> io::Result<Digests> {
        unsupported()
    }
}

/// Opens a regular file. Anything else is refused, and looked at before it is opened: a FIFO would wait for a peer.
fn open_regular(path: &Path) -> io::Result<File> {
    let refused = || io::Error::new(io::ErrorKind::InvalidData, "not a regular file");
    if !std::fs::metadata(path)?.is_file() {
        return Err(refused());
    }
    let file = File::open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused()) }
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this build asks it of Linux hosts alone"))
}
