//! What the databases of packages say of the paths in question.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead},
    path::Path,
    rc::Rc,
};

use muster_proto::{
    fact::{Cause, ExplanationSource, FileChange, FileState, FileType, Text},
    time::Timestamp,
};
use sha2::{Digest as _, Sha256};

use super::{Changes, generated, judge};
use crate::host::{self, EntryKind, Host};

/// Bytes of a line of a database; a longer one names no path that a system could have.
const LINE_BYTES: usize = 16 * 1024;
/// Folders that are links into `/usr` on a merged system; packages may name either.
const MERGED: &[&[u8]] = &[b"/bin/", b"/lib/", b"/lib32/", b"/lib64/", b"/libx32/", b"/sbin/"];

/// A package that is installed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Package {
    pub source: ExplanationSource,
    pub name: Text,
    pub version: Text,
    /// When its files were unpacked.
    pub time: Option<Timestamp>,
}

/// What a package holds at a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Holds {
    /// Something of which only the path is recorded: for dpkg, a folder or a link.
    Path,
    /// Something whose state is not recorded: a file that a program of the package makes, or that was not installed.
    Unknown,
    /// A file, of which only the MD5 is recorded.
    Md5([u8; 16]),
    /// A configuration file, of which only the MD5 is recorded with which it was shipped.
    Configuration([u8; 16]),
    /// An entry with everything that makes it.
    Whole(Whole),
}

/// Everything that a database records of an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Whole {
    pub kind: FileType,
    /// The low twelve bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub content: Content,
    /// File capabilities as getcap(8) writes them; empty without any.
    pub capabilities: String,
}

/// What a database records of an entry's content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Content {
    /// Nothing, as of a folder.
    None,
    Sha256([u8; 32]),
    Md5([u8; 16]),
    /// Where a link leads.
    Target(Vec<u8>),
}

/// What a package holds at a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Record {
    pub package: Rc<Package>,
    pub holds: Holds,
}

/// A package to which a path belonged that no package lists any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Former {
    pub source: ExplanationSource,
    pub name: Text,
    pub version: Text,
}

/// Mode and owner that an administrator set in the place of a package's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Rights {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Rights {
    pub fn of(state: &FileState) -> Self {
        Self { mode: state.mode, uid: state.uid, gid: state.gid }
    }
}

/// What the databases say.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Whether a database here has files by their MD5 alone, as dpkg's always has.
    pub needs_md5: bool,
    /// When the first of the changes may have happened.
    pub oldest: Option<Timestamp>,
    /// Package managers whose databases were read.
    pub sources: BTreeSet<ExplanationSource>,
    /// When each package was unpacked; some are there in several versions or for several architectures.
    pub unpacked: BTreeMap<(ExplanationSource, Text), Vec<Option<Timestamp>>>,
    /// When packages were changed: unpacked, and last of all configured, triggered or removed.
    pub times: Vec<Timestamp>,
    /// Where changed links lead, so far as it is what the scan saw.
    pub targets: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Changed links of `/etc/alternatives` that lead to what is registered for them.
    pub registered: BTreeSet<Vec<u8>>,
    /// What dpkg-statoverride(1) set.
    pub overrides: BTreeMap<Vec<u8>, Rights>,
    /// To which packages deleted paths belonged.
    pub former: BTreeMap<Vec<u8>, Former>,
    /// By path, for each path in question.
    records: BTreeMap<Vec<u8>, Vec<Record>>,
}

impl Evidence {
    /// Starts to collect evidence about `changes`.
    pub fn about(host: &dyn Host, changes: &Changes<'_>) -> Self {
        let mut evidence = Self::default();
        for (path, asked) in changes.iter().filter(|(_, asked)| asked.is_open()) {
            evidence.oldest = Some(evidence.oldest.map_or(asked.since, |oldest| oldest.min(asked.since)));
            evidence.ask(path);
            if let Some((former, _)) = judge::beside(path) {
                evidence.ask(former);
            }
            if let Some(source) = generated::source_of(path) {
                evidence.ask(&source);
            }
            if let Some(target) = target(host, path, asked.change) {
                evidence.ask(&target);
                // Whoever makes a link must not lead the agent to what may never answer.
                if generated::is_switch(&target)
                    && let Ok(next) = host.read_link(&host::path_of(&target))
                    && let Some(next) = resolve(&target, &host::path_bytes(&next))
                {
                    evidence.ask(&next);
                    evidence.targets.insert(target.clone(), next);
                }
                evidence.targets.insert(path.to_vec(), target);
            }
        }
        evidence
    }

    fn ask(&mut self, path: &[u8]) {
        self.records.entry(merged(path).unwrap_or_else(|| path.to_vec())).or_default();
        self.records.entry(path.to_vec()).or_default();
    }

    /// Forgets links that lead to a folder of a package in which everybody may make files, as base-files has `/tmp`.
    pub fn forget_open_folders(&mut self, host: &dyn Host) {
        let records = &self.records;
        self.targets.retain(|_, target| {
            let is_listed = records.get(target).is_some_and(|records| !records.is_empty());
            !is_listed
                || match host.metadata(&host::path_of(target)) {
                    Ok(found) => found.kind != EntryKind::Folder || found.mode & judge::OPEN_TO_ALL == 0,
                    // What cannot be looked at may be open.
                    Err(error) => host::cause(&error) == Cause::Absent,
                }
        });
    }

    /// Returns whether it is asked what is at `path`, under either of its names.
    pub fn asks(&self, path: &[u8]) -> bool {
        self.records.contains_key(path) || merged(path).is_some_and(|path| self.records.contains_key(&path))
    }

    /// Takes note of a package, of which there may be another of its name.
    pub fn add_package(&mut self, package: &Package) {
        self.sources.insert(package.source);
        self.unpacked.entry((package.source, package.name.clone())).or_default().push(package.time);
        self.times.extend(package.time);
    }

    /// Adds what a package holds at `path`, if that is asked.
    pub fn add(&mut self, path: &[u8], record: &Record) {
        for path in std::iter::once(path.to_vec()).chain(merged(path)) {
            if let Some(records) = self.records.get_mut(&path) {
                records.push(record.clone());
            }
        }
    }

    /// Returns what packages hold at `path`.
    pub fn records(&self, path: &[u8]) -> &[Record] {
        self.records.get(path).map_or(&[], Vec::as_slice)
    }
}

/// Returns the name of `path` below `/usr` on a merged system.
pub(super) fn merged(path: &[u8]) -> Option<Vec<u8>> {
    MERGED.iter().any(|folder| path.starts_with(folder)).then(|| [b"/usr", path].concat())
}

/// Returns what the changed link at `path` leads to, if it is the link that the scan saw.
fn target(host: &dyn Host, path: &[u8], change: &FileChange) -> Option<Vec<u8>> {
    let after = change.after.as_ref().filter(|after| after.r#type == FileType::Link)?;
    let target = host::path_bytes(&host.read_link(&host::path_of(path)).ok()?);
    let is_seen = after.sha256.as_str() == hex::encode(Sha256::digest(&target));
    resolve(path, &target).filter(|_| is_seen)
}

/// Returns the path that the link at `link` with `target` names, by its text alone: `None` where the text does not tell, as of a name
/// that may be a link and is followed by `..`.
fn resolve(link: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let from = if target.starts_with(b"/") { &[][..] } else { link };
    // The link's own name is not among the folders that lead to it.
    parts.extend(from.split(|&byte| byte == b'/').filter(|part| !part.is_empty()));
    parts.pop();
    let mut is_named = target.starts_with(b"/");
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if is_named => return None,
            b".." => drop(parts.pop()),
            part => {
                is_named = true;
                parts.push(part);
            }
        }
    }
    Some(parts.iter().flat_map(|part| [b"/".as_slice(), part].concat()).collect())
}

/// Calls `visit` for each line of the file at `path`, without its end. A line that is too long is left out.
pub(super) fn each_line(host: &dyn Host, path: &Path, visit: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut lines = Lines::new(visit);
    let mut reader = io::BufReader::with_capacity(64 * 1024, host.stream(path)?);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            lines.end();
            return Ok(());
        }
        lines.take(bytes);
        let count = bytes.len();
        reader.consume(count);
    }
}

/// Cuts pieces of text into lines.
pub(super) struct Lines<'v> {
    visit: &'v mut dyn FnMut(&[u8]),
    begun: Vec<u8>,
    is_too_long: bool,
}

impl<'v> Lines<'v> {
    pub fn new(visit: &'v mut dyn FnMut(&[u8])) -> Self {
        Self { visit, begun: Vec::new(), is_too_long: false }
    }

    /// Takes the next piece.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.begun.is_empty() && !self.is_too_long && line.len() <= LINE_BYTES {
                (self.visit)(line);
            } else {
                self.keep(line);
                self.end();
            }
            bytes = rest;
        }
        self.keep(bytes);
    }

    /// Ends the text, whose last line may have no end.
    pub fn end(&mut self) {
        if !self.begun.is_empty() && !self.is_too_long {
            (self.visit)(&self.begun);
        }
        self.begun.clear();
        self.is_too_long = false;
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.is_too_long |= self.begun.len() + bytes.len() > LINE_BYTES;
        if !self.is_too_long {
            self.begun.extend_from_slice(bytes);
        }
    }
}

impl io::Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Numbers of users and groups by name, of the host's own files.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: BTreeMap<Vec<u8>, u32>,
    groups: BTreeMap<Vec<u8>, u32>,
}

impl Names {
    /// Reads passwd(5) and group(5). A name that is in neither has no number.
    pub fn read(host: &dyn Host) -> Self {
        let numbers = |path: &str| {
            let mut numbers = BTreeMap::new();
            // Without the file, an entry of another owner than root's stays unexplained.
            let _ = each_line(host, Path::new(path), &mut |line| {
                let mut fields = line.split(|&byte| byte == b':');
                let number = fields.clone().nth(2).and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
                if let (Some(name), Some(number)) = (fields.next(), number) {
                    numbers.entry(name.to_vec()).or_insert(number);
                }
            });
            numbers
        };
        Self { users: numbers("/etc/passwd"), groups: numbers("/etc/group") }
    }

    pub fn user(&self, name: &[u8]) -> Option<u32> {
        Self::number(&self.users, name)
    }

    pub fn group(&self, name: &[u8]) -> Option<u32> {
        Self::number(&self.groups, name)
    }

    fn number(numbers: &BTreeMap<Vec<u8>, u32>, name: &[u8]) -> Option<u32> {
        if name == b"root" { Some(0) } else { numbers.get(name).copied() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_where_their_text_says() {
        for (link, target, expected) in [
            ("/usr/lib/a", "b", Some("/usr/lib/b")),
            ("/usr/lib/a", "../b/./c/", Some("/usr/b/c")),
            ("/usr/lib/a", "/etc//x", Some("/etc/x")),
            ("/a", "../../b", Some("/b")),
            ("/a", "..", Some("")),
            // What `b` is, the text does not say.
            ("/usr/lib/a", "b/../c", None),
            ("/usr/lib/a", "../b/../c", None),
            ("/usr/lib/a", "/var/tmp/b/../../usr/lib/c", None),
        ] {
            let expected = expected.map(|path| path.as_bytes().to_vec());
            assert_eq!(resolve(link.as_bytes(), target.as_bytes()), expected, "{link} -> {target}");
        }
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut_and_one_that_is_too_long_is_none() {
        let long = "x".repeat(LINE_BYTES + 1);
        let text = format!("a\n\n{long}\nb c\n{}\nend", "y".repeat(LINE_BYTES));
        for piece in [1, 2, 7, 1000, text.len()] {
            let mut found = Vec::new();
            let mut visit = |line: &[u8]| found.push(line.to_vec());
            let mut lines = Lines::new(&mut visit);
            text.as_bytes().chunks(piece).for_each(|piece| lines.take(piece));
            lines.end();
            let found: Vec<_> = found.iter().map(|line| (line.len(), line.first().copied())).collect();
            let expected = [(1, Some(b'a')), (0, None), (3, Some(b'b')), (LINE_BYTES, Some(b'y')), (3, Some(b'e'))];
            assert_eq!(found, expected, "in pieces of {piece}");
        }
    }
}
