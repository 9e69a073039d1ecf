//! A host of a kind that this build cannot look at yet: every answer says so.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use super::Live;
use crate::host::{
    AuditQuery, Digests, Dump, Family, Host, KernelClock, Luks, Machine, Metadata, SocketOwners, Space, Tool, Visit,
};

impl Host for Live {
    fn read(&self, _: &Path, _: usize) -> io::Result<Vec<u8>> {
        unsupported()
    }

    fn stream(&self, _: &Path) -> io::Result<Box<dyn io::Read>> {
        unsupported()
    }

    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        unsupported()
    }

    fn metadata(&self, _: &Path) -> io::Result<Metadata> {
        unsupported()
    }

    fn read_link(&self, _: &Path) -> io::Result<PathBuf> {
        unsupported()
    }

    fn machine(&self) -> io::Result<Machine> {
        unsupported()
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

    fn scan(&self, _: &Path, _: &mut Visit<'_>) -> io::Result<()> {
        unsupported()
    }

    fn digests(&self, _: &Path) -> io::Result<Digests> {
        unsupported()
    }
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this build looks at Linux hosts alone"))
}
