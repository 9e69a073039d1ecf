//! A machine as a capture holds it, for tests and for looking at a host elsewhere.
//!
//! A capture is a folder:
//!
//! ```text
//! index.json            version, time of the capture, and every answer that is not a file's content
//! files/ABSOLUTE/PATH   exact content of a file that was read
//! scans/N.jsonl         entries of one scan: path, metadata and digest, never a content
//! answers/NAME          raw answers of the kernel and of tools: nf_tables.rules, iptables.ipv4.filter, tool.apt-config.dump...
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::File,
    io::{self, BufRead as _, Read as _},
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{OsFamily, PathText},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    AuditQuery, Digests, Dump, EntryKind, Family, Host, KernelClock, Luks, Machine, Metadata, Pace, Policy, Scanned,
    SocketOwners, Space, TOOL_OUTPUT_BYTES, Tool, Visitor, Want, path_bytes, path_of,
};

/// Version of the format of a capture.
pub const VERSION: u32 = 1;
/// Bytes of an index, at most.
const INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of the name of an answer, at most.
const ANSWER_NAME_BYTES: usize = 200;

/// A folder is not a capture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its index cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The index.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its index does not follow its format.
    #[error("{} is not the index of a capture", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error("capture has version {0}, and this build reads version {VERSION}")]
    Version(u32),
}

/// Every answer of a capture that is not a file's content, by what was asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Version of the format.
    pub version: u32,
    /// When the capture was made.
    pub captured: Timestamp,
    /// Kind of operating system; Linux in captures that do not say.
    #[serde(default = "linux", skip_serializing_if = "is_linux")]
    pub os_family: OsFamily,
    /// What the kernel says of itself.
    #[serde(default)]
    pub machine: Option<Answer<Machine>>,
    /// Whether the clock is synchronised.
    #[serde(default)]
    pub clock_is_synchronized: Option<Answer<bool>>,
    /// What the kernel says of its clock.
    #[serde(default)]
    pub clock: Option<Answer<KernelClock>>,
    /// Owners of sockets.
    #[serde(default)]
    pub socket_owners: Option<Answer<SocketOwners>>,
    /// Names in folders.
    #[serde(default)]
    pub lists: BTreeMap<PathText, Vec<PathText>>,
    /// Targets of links.
    #[serde(default)]
    pub links: BTreeMap<PathText, PathText>,
    /// Metadata of entries.
    #[serde(default)]
    pub metadata: BTreeMap<PathText, Metadata>,
    /// Digests of files.
    #[serde(default)]
    pub digests: BTreeMap<PathText, Digests>,
    /// How much of file systems is used.
    #[serde(default)]
    pub space: BTreeMap<PathText, Space>,
    /// LUKS headers.
    #[serde(default)]
    pub luks: BTreeMap<PathText, Luks>,
    /// fscrypt policies of folders.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub encryption_policies: BTreeMap<PathText, Policy>,
    /// Scans: root to the number of its file.
    #[serde(default)]
    pub scans: BTreeMap<PathText, u32>,
    /// Errors, by what was asked, such as `read /etc/shadow`.
    #[serde(default)]
    pub errors: BTreeMap<String, Failure>,
}

fn linux() -> OsFamily {
    OsFamily::Linux
}

fn is_linux(os_family: &OsFamily) -> bool {
    *os_family == OsFamily::Linux
}

/// An answer or an error.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the name says it")]
pub enum Answer<T> {
    Ok(T),
    Err(Failure),
}

impl<T: Clone> Answer<T> {
    fn get(answer: Option<&Self>, what: &str) -> io::Result<T> {
        match answer {
            Some(Self::Ok(value)) => Ok(value.clone()),
            Some(Self::Err(failure)) => Err(failure.to_error()),
            None => Err(not_recorded(what)),
        }
    }
}

/// An error that was met.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Number of the system's error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// Of an error that is not the system's: `timed_out`, `too_large`, `garbled`, `unsupported`, `not_found` or `other`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

const KINDS: &[(&str, io::ErrorKind)] = &[
    ("timed_out", io::ErrorKind::TimedOut),
    ("too_large", io::ErrorKind::FileTooLarge),
    ("garbled", io::ErrorKind::InvalidData),
    ("unsupported", io::ErrorKind::Unsupported),
    ("not_found", io::ErrorKind::NotFound),
];

impl Failure {
    /// Returns the record of `error`.
    pub fn of(error: &io::Error) -> Self {
        if let Some(errno) = error.raw_os_error() {
            return Self { errno: Some(errno), kind: String::new(), text: String::new() };
        }
        let kind = KINDS.iter().find(|(_, kind)| *kind == error.kind()).map_or("other", |(name, _)| name);
        Self { errno: None, kind: kind.to_owned(), text: error.to_string() }
    }

    /// Returns the error again.
    pub fn to_error(&self) -> io::Error {
        if let Some(errno) = self.errno {
            return io::Error::from_raw_os_error(errno);
        }
        let kind = KINDS.iter().find(|(name, _)| *name == self.kind).map_or(io::ErrorKind::Other, |(_, kind)| *kind);
        io::Error::new(kind, self.text.clone())
    }
}

/// One line of a recorded scan.
#[derive(Debug, Deserialize, Serialize)]
pub struct ScanLine {
    /// The entry.
    pub path: PathText,
    /// What was read of it.
    pub result: Answer<Scanned>,
}

/// A machine as a capture holds it.
#[derive(Clone, Debug)]
pub struct Recorded {
    folder: PathBuf,
    index: Index,
}

impl Recorded {
    /// Returns the machine of the capture in `folder`.
    ///
    /// # Errors
    ///
    /// When the folder is not a capture of this version.
    pub fn at(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("index.json");
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(INDEX_BYTES).read_to_end(&mut bytes));
        if let Err(source) = read {
            return Err(Error::Read { path, source });
        }
        let index: Index = serde_json::from_slice(&bytes).map_err(|source| Error::Index { path, source })?;
        if index.version != VERSION {
            return Err(Error::Version(index.version));
        }
        Ok(Self { folder: folder.to_owned(), index })
    }

    /// Returns when the capture was made.
    pub fn captured(&self) -> Timestamp {
        self.index.captured
    }

    /// Returns the answers for a test to change.
    pub fn index_mut(&mut self) -> &mut Index {
        &mut self.index
    }

    fn error(&self, verb: &str, path: &Path) -> Option<io::Error> {
        self.index.errors.get(&key(verb, path)).map(Failure::to_error)
    }

    fn find<T: Clone>(&self, verb: &str, path: &Path, answers: &BTreeMap<PathText, T>) -> io::Result<T> {
        match answers.get(&text(path)) {
            Some(answer) => Ok(answer.clone()),
            None => Err(self.error(verb, path).unwrap_or_else(|| not_recorded(&key(verb, path)))),
        }
    }

    fn answer(&self, name: &str) -> io::Result<Vec<u8>> {
        if let Some(failure) = self.index.errors.get(name) {
            return Err(failure.to_error());
        }
        std::fs::read(self.folder.join("answers").join(name)).map_err(|_| not_recorded(name))
    }
}

impl Host for Recorded {
    fn os_family(&self) -> OsFamily {
        self.index.os_family
    }

    fn read(&self, path: &Path, limit_bytes: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream(path)?.take(limit_bytes as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit_bytes { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    fn stream(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        if let Some(error) = self.error("read", path) {
            return Err(error);
        }
        match File::open(file(&self.folder, path)) {
            Ok(file) => Ok(Box::new(file)),
            Err(_) => Err(not_recorded(&key("read", path))),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let names = self.find("list", folder, &self.index.lists)?;
        let mut names = names.iter().map(|name| Ok(path(name)?.into_os_string())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.find("metadata", path, &self.index.metadata)
    }

    fn read_link(&self, link: &Path) -> io::Result<PathBuf> {
        path(&self.find("link", link, &self.index.links)?)
    }

    fn machine(&self) -> io::Result<Machine> {
        Answer::get(self.index.machine.as_ref(), "machine")
    }

    fn clock_is_synchronized(&self) -> io::Result<bool> {
        Answer::get(self.index.clock_is_synchronized.as_ref(), "clock")
    }

    fn clock(&self) -> io::Result<KernelClock> {
        Answer::get(self.index.clock.as_ref(), "clock")
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.find("space", path, &self.index.space)
    }

    fn audit(&self, query: AuditQuery) -> io::Result<Vec<u8>> {
        self.answer(&audit_name(query))
    }

    fn socket_owners(&self, _inodes: &BTreeSet<u64>) -> io::Result<SocketOwners> {
        Answer::get(self.index.socket_owners.as_ref(), "socket owners")
    }

    fn luks(&self, device: &Path) -> io::Result<Luks> {
        self.find("luks", device, &self.index.luks)
    }

    fn encryption_policy(&self, folder: &Path) -> io::Result<Policy> {
        self.find("policy", folder, &self.index.encryption_policies)
    }

    fn nf_tables(&self, dump: Dump) -> io::Result<Vec<u8>> {
        self.answer(&nf_tables_name(dump))
    }

    fn nf_elements(&self, family: u8, table: &str, set: &str) -> io::Result<Vec<u8>> {
        self.answer(&nf_elements_name(family, table, set))
    }

    fn iptables(&self, family: Family, table: &str) -> io::Result<Vec<u8>> {
        self.answer(&iptables_name(family, table))
    }

    fn run(&self, tool: Tool, args: &[&str]) -> io::Result<Vec<u8>> {
        let name = tool_name(tool, args);
        if let Some(failure) = self.index.errors.get(&name) {
            return Err(failure.to_error());
        }
        let output = File::open(self.folder.join("answers").join(&name)).map_err(|_| not_recorded(&name))?;
        let mut bytes = Vec::new();
        // As the live host bounds it.
        output.take(TOOL_OUTPUT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > TOOL_OUTPUT_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    fn run_streamed(
        &self,
        tool: Tool,
        args: &[&str],
        visit: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let name = tool_name(tool, args);
        if let Some(failure) = self.index.errors.get(&name) {
            return Err(failure.to_error());
        }
        let mut output = File::open(self.folder.join("answers").join(&name)).map_err(|_| not_recorded(&name))?;
        let mut buffer = [0; 8192];
        loop {
            match output.read(&mut buffer)? {
                0 => return Ok(()),
                count => visit(&buffer[..count])?,
            }
        }
    }

    /// Shows what a recorded scan of `root` has, whatever the pace. An entry that could not be read has no metadata in a capture, and
    /// is shown as one that cannot be looked at.
    fn walk(&self, root: &Path, _: &Pace, visitor: &mut dyn Visitor) -> io::Result<()> {
        let number = self.find("scan", root, &self.index.scans)?;
        let lines = File::open(self.folder.join("scans").join(format!("{number}.jsonl")))?;
        let mut left_out: Option<Vec<u8>> = None;
        for line in io::BufReader::new(lines).lines() {
            let line: ScanLine = serde_json::from_str(&line?)?;
            let path = line.path.to_bytes().ok_or(io::ErrorKind::InvalidData)?;
            if left_out.as_deref().is_some_and(|above| is_at_or_below(&path, above)) {
                continue;
            }
            match line.result {
                Answer::Ok(scanned) => match visitor.wants(&path, &scanned.metadata)? {
                    Want::Nothing => {}
                    Want::NothingBelow => left_out = Some(path),
                    Want::Attributes => visitor.found(&path, Ok(scanned))?,
                    Want::Read => visitor.found(&path, content_of(scanned, &line.path))?,
                },
                Answer::Err(failure) => visitor.unreadable(&path, failure.to_error())?,
            }
        }
        Ok(())
    }

    fn digests(&self, _root: &Path, path: &Path) -> io::Result<Digests> {
        self.find("digests", path, &self.index.digests)
    }
}

/// Returns what was read of an entry, if the scan read its content.
fn content_of(scanned: Scanned, path: &PathText) -> io::Result<Scanned> {
    let has_content = matches!(scanned.metadata.kind, EntryKind::File | EntryKind::Link);
    if has_content && scanned.sha256.is_none() {
        return Err(not_recorded(&format!("content of {path}")));
    }
    Ok(scanned)
}

fn is_at_or_below(path: &[u8], above: &[u8]) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || above.ends_with(b"/"))
}

pub(super) fn file(folder: &Path, path: &Path) -> PathBuf {
    let inside = path.components().filter(|part| matches!(part, std::path::Component::Normal(_)));
    folder.join("files").join(inside.collect::<PathBuf>())
}

pub(super) fn key(verb: &str, path: &Path) -> String {
    format!("{verb} {}", text(path))
}

pub(super) fn text(path: &Path) -> PathText {
    PathText::from_bytes(&path_bytes(path))
}

pub(super) fn audit_name(query: AuditQuery) -> String {
    format!("audit.{}", query.as_str())
}

pub(super) fn nf_tables_name(dump: Dump) -> String {
    format!("nf_tables.{}", dump.as_str())
}

pub(super) fn nf_elements_name(family: u8, table: &str, set: &str) -> String {
    let safe = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-', "~");
    format!("nf_tables.elements.{family}.{}.{}", safe(table), safe(set))
}

pub(super) fn iptables_name(family: Family, table: &str) -> String {
    let family = match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    let table: String = table.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("iptables.{family}.{table}")
}

pub(crate) fn tool_name(tool: Tool, args: &[&str]) -> String {
    // Arguments such as formats and paths have characters that no file name has everywhere.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let parts = std::iter::once(tool.name()).chain(args.iter().copied());
    let name = format!("tool.{}", parts.collect::<Vec<_>>().join(".").replace(|c| !is_plain(c), "_"));
    if name.len() <= ANSWER_NAME_BYTES {
        return name;
    }
    // A file's name has at most 255 bytes. What is left out is told apart by its digest.
    let digest = hex::encode(Sha256::digest(&name));
    format!("{}.{}", &name[..ANSWER_NAME_BYTES / 2], &digest[..16])
}

fn path(text: &PathText) -> io::Result<PathBuf> {
    Ok(path_of(&text.to_bytes().ok_or(io::ErrorKind::InvalidData)?))
}

fn not_recorded(what: &str) -> io::Error {
    io::Error::other(format!("not in the capture: {what}"))
}

/// A digest as hex.
pub(super) mod hex_digest {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(digest: &Option<[u8; 32]>, serializer: S) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => serializer.serialize_str(&hex::encode(digest)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Option<[u8; 32]>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).map_err(D::Error::custom)?;
        Ok(Some(digest))
    }
}
