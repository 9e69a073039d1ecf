//! A host whose answers go wrong where a test says so: what another host answers, with one fault.
//!
//! Every access is kept in order, so that a test can take a look once to learn what it asks, and then spoil each of its
//! accesses in turn. Every file has another inode than on the host below, as if it had been replaced by one of the same content.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    ffi::OsString,
    io::{self, Read},
    path::{Path, PathBuf},
};

use muster_proto::fact::OsFamily;

use super::{
    AuditQuery, Digests, Dump, Family, Host, KernelClock, Luks, Machine, Metadata, Pace, Policy, Scanned, SocketOwners,
    Space, Tool, Visitor, Want,
    recorded::{audit_name, iptables_name, key, nf_elements_name, nf_tables_name, tool_name},
};

/// Bytes that an endless file gives before the time of the look is over.
const ENDLESS_BYTES: u64 = 4 * 1024 * 1024;

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fault {
    /// It is the error of the system with this number.
    Errno(i32),
    /// It is an error of the door's own: a bound was reached, a tool failed.
    Kind(io::ErrorKind),
    /// Content ends in the error with this number where half of it was read; a scan, where half of its entries were visited.
    Breaks(i32),
    /// One entry in the middle of a scan is visited with the error of this number.
    Entry(i32),
    /// Content ends after so many bytes, as if that were all.
    Cut(usize),
    /// Every bit of the content is the other way round.
    Inverted,
    /// The content has no end: it repeats until the time of the look is over.
    Endless,
}

/// Which accesses the fault meets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum When {
    /// None: the accesses are only kept.
    Never,
    /// Each of this thing.
    Of(String),
    /// The one of this number, from 0.
    Nth(usize),
    /// The one of this number and all after it, as when the time of a look is over.
    From(usize),
}

/// What kind of answer an access has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Bytes of this number; `None` when it was an error.
    Content(Option<usize>),
    /// A scan.
    Scan,
    /// Any other.
    Value,
}

/// One access of a look.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Access {
    /// What was asked, such as `read /etc/os-release`.
    pub key: String,
    /// What kind of answer it has.
    pub kind: Kind,
}

/// A host whose answers go wrong where a test says so.
pub struct Faulty<'h> {
    host: &'h dyn Host,
    fault: Fault,
    when: When,
    accesses: RefCell<Vec<Access>>,
}

impl<'h> Faulty<'h> {
    /// Returns `host` with `fault` in it.
    pub fn new(host: &'h dyn Host, fault: Fault, when: When) -> Self {
        Self { host, fault, when, accesses: RefCell::default() }
    }

    /// Returns a host that fails nowhere and keeps what it is asked.
    pub fn watching(host: &'h dyn Host) -> Self {
        Self::new(host, Fault::Inverted, When::Never)
    }

    /// Returns every access until now, in order.
    pub fn accesses(self) -> Vec<Access> {
        self.accesses.into_inner()
    }

    /// Keeps the access and returns the fault that meets it.
    fn ask(&self, key: String, kind: Kind) -> Option<Fault> {
        let mut accesses = self.accesses.borrow_mut();
        let is_met = match &self.when {
            When::Never => false,
            When::Of(of) => *of == key,
            When::Nth(nth) => accesses.len() == *nth,
            When::From(first) => accesses.len() >= *first,
        };
        accesses.push(Access { key, kind });
        is_met.then_some(self.fault)
    }

    fn value<T>(&self, key: String, answer: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.ask(key, Kind::Value).and_then(error) {
            Some(error) => Err(error),
            None => answer(),
        }
    }

    fn content(&self, key: String, answer: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
        let answer = answer();
        let fault = self.ask(key, Kind::Content(answer.as_ref().ok().map(Vec::len)));
        match (fault, fault.and_then(error)) {
            (_, Some(error)) => Err(error),
            (Some(Fault::Endless), _) => Err(io::ErrorKind::FileTooLarge.into()),
            (Some(fault), _) => answer.map(|bytes| spoiled(bytes, fault)),
            (None, _) => answer,
        }
    }
}

/// Returns the error that a fault is, if it is one from the start.
fn error(fault: Fault) -> Option<io::Error> {
    match fault {
        Fault::Errno(errno) | Fault::Breaks(errno) => Some(io::Error::from_raw_os_error(errno)),
        Fault::Kind(kind) => Some(io::Error::new(kind, "a fault")),
        Fault::Entry(_) | Fault::Cut(_) | Fault::Inverted | Fault::Endless => None,
    }
}

fn spoiled(mut bytes: Vec<u8>, fault: Fault) -> Vec<u8> {
    match fault {
        Fault::Cut(count) => bytes.truncate(count),
        Fault::Inverted => bytes.iter_mut().for_each(|byte| *byte = !*byte),
        Fault::Errno(_) | Fault::Kind(_) | Fault::Breaks(_) | Fault::Entry(_) | Fault::Endless => {}
    }
    bytes
}

impl Host for Faulty<'_> {
    fn os_family(&self) -> OsFamily {
        self.host.os_family()
    }

    fn read(&self, path: &Path, limit_bytes: usize) -> io::Result<Vec<u8>> {
        self.content(key("read", path), || self.host.read(path, limit_bytes))
    }

    fn stream(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        let content = self.host.stream(path).and_then(|mut reader| {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let fault = self.ask(key("read", path), Kind::Content(content.as_ref().ok().map(Vec::len)));
        if let Some(Fault::Errno(_) | Fault::Kind(_)) = fault {
            return Err(fault.and_then(error).expect("it is one"));
        }
        let content = content?;
        Ok(match fault {
            Some(Fault::Breaks(errno)) => {
                let half = content[..content.len() / 2].to_vec();
                Box::new(io::Cursor::new(half).chain(Broken(errno)))
            }
            Some(Fault::Endless) => Box::new(Endless { content, at: 0, given: 0 }),
            Some(fault) => Box::new(io::Cursor::new(spoiled(content, fault))),
            None => Box::new(io::Cursor::new(content)),
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.value(key("list", folder), || self.host.list(folder))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.value(key("metadata", path), || {
            // Touched, so that what a probe kept for as long as a file is the same does not answer in place of the machine.
            let metadata = self.host.metadata(path)?;
            Ok(Metadata { inode: metadata.inode ^ 1, ..metadata })
        })
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.value(key("link", path), || self.host.read_link(path))
    }

    fn machine(&self) -> io::Result<Machine> {
        self.value("machine".to_owned(), || self.host.machine())
    }

    fn clock_is_synchronized(&self) -> io::Result<bool> {
        self.value("clock is synchronized".to_owned(), || self.host.clock_is_synchronized())
    }

    fn clock(&self) -> io::Result<KernelClock> {
        self.value("clock".to_owned(), || self.host.clock())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.value(key("space", path), || self.host.space(path))
    }

    fn socket_owners(&self, inodes: &BTreeSet<u64>) -> io::Result<SocketOwners> {
        self.value("socket owners".to_owned(), || self.host.socket_owners(inodes))
    }

    fn luks(&self, device: &Path) -> io::Result<Luks> {
        self.value(key("luks", device), || self.host.luks(device))
    }

    fn audit(&self, query: AuditQuery) -> io::Result<Vec<u8>> {
        self.content(audit_name(query), || self.host.audit(query))
    }

    fn encryption_policy(&self, folder: &Path) -> io::Result<Policy> {
        self.value(key("policy", folder), || self.host.encryption_policy(folder))
    }

    fn nf_tables(&self, dump: Dump) -> io::Result<Vec<u8>> {
        self.content(nf_tables_name(dump), || self.host.nf_tables(dump))
    }

    fn nf_elements(&self, family: u8, table: &str, set: &str) -> io::Result<Vec<u8>> {
        self.content(nf_elements_name(family, table, set), || self.host.nf_elements(family, table, set))
    }

    fn iptables(&self, family: Family, table: &str) -> io::Result<Vec<u8>> {
        self.content(iptables_name(family, table), || self.host.iptables(family, table))
    }

    fn run(&self, tool: Tool, args: &[&str]) -> io::Result<Vec<u8>> {
        self.content(tool_name(tool, args), || self.host.run(tool, args))
    }

    /// The half of a walk is half of its entries as a visitor sees them who wants to read everything.
    fn walk(&self, root: &Path, pace: &Pace, visitor: &mut dyn Visitor) -> io::Result<()> {
        let fault = self.ask(key("scan", root), Kind::Scan);
        if let Some(Fault::Errno(_) | Fault::Kind(_)) = fault {
            return Err(fault.and_then(error).expect("it is one"));
        }
        let mut counted = Counted(0);
        self.host.walk(root, pace, &mut counted)?;
        let mut spoiling = Spoiling { visitor, fault, at: 0, half: counted.0 / 2 };
        self.host.walk(root, &Pace { at_once: true, ..pace.clone() }, &mut spoiling)
    }

    fn digests(&self, root: &Path, path: &Path) -> io::Result<Digests> {
        self.value(key("digests", path), || self.host.digests(root, path))
    }
}

/// Counts entries.
struct Counted(usize);

impl Visitor for Counted {
    fn wants(&mut self, _: &[u8], _: &Metadata) -> io::Result<Want> {
        self.0 += 1;
        Ok(Want::Nothing)
    }

    fn unreadable(&mut self, _: &[u8], _: io::Error) -> io::Result<()> {
        Ok(())
    }

    fn found(&mut self, _: &[u8], _: io::Result<Scanned>) -> io::Result<()> {
        Ok(())
    }
}

/// Shows a visitor a walk with a fault in the middle.
struct Spoiling<'v> {
    visitor: &'v mut dyn Visitor,
    fault: Option<Fault>,
    at: usize,
    half: usize,
}

impl Visitor for Spoiling<'_> {
    fn wants(&mut self, path: &[u8], metadata: &Metadata) -> io::Result<Want> {
        let is_met = self.at == self.half;
        self.at += 1;
        match self.fault {
            Some(Fault::Breaks(errno)) if is_met => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Entry(errno)) if is_met => {
                self.visitor.unreadable(path, io::Error::from_raw_os_error(errno))?;
                // An entry that cannot be looked at is not gone into.
                Ok(Want::NothingBelow)
            }
            _ => self.visitor.wants(path, metadata),
        }
    }

    fn unreadable(&mut self, path: &[u8], error: io::Error) -> io::Result<()> {
        self.visitor.unreadable(path, error)
    }

    fn found(&mut self, path: &[u8], read: io::Result<Scanned>) -> io::Result<()> {
        self.visitor.found(path, read)
    }
}

/// A reader that has only an error.
struct Broken(i32);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(self.0))
    }
}

/// A reader that gives its content again and again, until [`super::Live`] would say that the time is over.
struct Endless {
    content: Vec<u8>,
    at: usize,
    given: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given >= ENDLESS_BYTES {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let rest = &self.content[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at = (self.at + count) % self.content.len().max(1);
        self.given += count as u64;
        Ok(count)
    }
}
