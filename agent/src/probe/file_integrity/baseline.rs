//! The baseline file: sorted, versioned, with a digest at its end, and replaced as a whole.
//!
//! ```text
//! muster-baseline 1
//! id 00112233445566778899aabbccddeeff
//! created 2026-11-24T12:00:00Z
//! reason first scan
//! path /etc
//! entries
//! folder - 4096 755 0 0 1795521600000000 /etc
//! file 9f86…0a08 1234 644 0 0 1795521600000000 /etc/passwd
//! unreadable /etc/shadow
//! end 3 SHA-256-OF-ALL-LINES-BEFORE
//! ```

use std::{
    cmp::Ordering,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write},
    path::Path,
};

use muster_proto::{
    fact::{Baseline, FileState, FileType, PathText, Reading, Text},
    limits::TEXT_BYTES,
    time::Timestamp,
};
use sha2::{Digest as _, Sha256};

use crate::{
    host::{self, EntryKind, Scanned},
    probe::memory,
};

const NAME: &str = "baseline";
const HEADER: &str = "muster-baseline 1";
/// Bytes of a line, at most: a path in which every byte is escaped, the backslash of each escape escaped again by JSON,
/// and the rest.
const LINE_BYTES: u64 = 5 * TEXT_BYTES as u64 + 2048;

/// A baseline that is whole.
#[derive(Debug)]
pub(super) struct Opened {
    pub baseline: Baseline,
    /// The paths that it covers, in order.
    pub paths: Vec<Vec<u8>>,
}

impl Opened {
    /// Returns whether `path` is one of its paths or below one.
    pub fn covers(&self, path: &[u8]) -> bool {
        self.paths.iter().any(|above| is_at_or_below(path, above))
    }
}

/// An entry of a baseline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub path: Vec<u8>,
    /// `None` when it could not be read.
    pub state: Option<FileState>,
}

/// Order of a scan: by parts of the path, so that a folder's content follows it at once.
pub(super) fn order(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

pub(super) fn is_at_or_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || above == b"/" || rest.starts_with(b"/"))
}

/// Returns the state of a scanned entry.
pub(super) fn state(scanned: &Scanned) -> FileState {
    let metadata = scanned.metadata;
    FileState {
        r#type: match metadata.kind {
            EntryKind::File => FileType::File,
            EntryKind::Folder => FileType::Folder,
            EntryKind::Link => FileType::Link,
            EntryKind::Other => FileType::Other,
        },
        sha256: scanned.sha256.map(|digest| Text::new(&hex::encode(digest))).unwrap_or_default(),
        size_bytes: metadata.size_bytes,
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        modified_time: metadata.modified_time(),
        changed_time: None,
        inode: 0,
        links: 0,
        md5: Text::default(),
        extended_attributes: Vec::new(),
    }
}

/// Takes the entries of a new baseline, in order.
pub(super) struct Writer<'w> {
    out: &'w mut dyn Write,
    hash: Sha256,
    entries: u64,
}

impl Writer<'_> {
    pub fn add(&mut self, path: &Path, scanned: io::Result<Scanned>) -> io::Result<()> {
        self.add_entry(&Entry { path: host::path_bytes(path), state: scanned.ok().map(|scanned| state(&scanned)) })
    }

    pub fn add_entry(&mut self, entry: &Entry) -> io::Result<()> {
        let path = PathText::from_bytes(&entry.path);
        let line = match &entry.state {
            Some(state) => {
                let digest = if state.sha256.is_empty() { "-" } else { state.sha256.as_str() };
                let modified = state.modified_time.known().map_or("-".to_owned(), |time| time.micros().to_string());
                format!(
                    "{} {digest} {} {:o} {} {} {modified} {path}",
                    state.r#type.as_str(),
                    state.size_bytes,
                    state.mode,
                    state.uid,
                    state.gid,
                )
            }
            None => format!("unreadable {path}"),
        };
        self.entries += 1;
        self.line(&line)
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")
    }
}

/// Writes a new baseline, whose entries `scan` adds, and puts it into force when it is whole and synced.
pub(super) fn write(
    memory: &Path,
    now: Timestamp,
    reason: &Text,
    paths: &[Vec<u8>],
    scan: impl FnOnce(&mut Writer<'_>) -> io::Result<()>,
) -> io::Result<Opened> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| io::Error::other("no randomness"))?;
    memory::replace(memory, NAME, |file| {
        let mut writer = Writer { out: file, hash: Sha256::new(), entries: 0 };
        writer.line(HEADER)?;
        writer.line(&format!("id {}", hex::encode(id)))?;
        writer.line(&format!("created {now}"))?;
        writer.line(&format!("reason {reason}"))?;
        for path in paths {
            writer.line(&format!("path {}", PathText::from_bytes(path)))?;
        }
        writer.line("entries")?;
        scan(&mut writer)?;
        let end = format!("end {} {}", writer.entries, hex::encode(writer.hash.clone().finalize()));
        writer.line(&end)
    })?;
    open(memory)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Returns the baseline in force; `None` when there is none.
///
/// # Errors
///
/// `InvalidData` when it is damaged: that is never taken for "there is none".
pub(super) fn open(memory: &Path) -> io::Result<Option<Opened>> {
    let file = match File::open(memory.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lines = Lines::new(file);
    let mut hash = Sha256::new();
    let mut take = |lines: &mut Lines| -> io::Result<String> {
        let line = lines.next()?.ok_or(io::ErrorKind::InvalidData)?;
        hash.update(line.as_bytes());
        hash.update(b"\n");
        Ok(line)
    };
    let field = |line: String, name: &str| {
        line.strip_prefix(name).map(|value| value.trim_start().to_owned()).ok_or(io::ErrorKind::InvalidData)
    };
    if take(&mut lines)? != HEADER {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let id = field(take(&mut lines)?, "id")?;
    let created = field(take(&mut lines)?, "created")?;
    let reason = field(take(&mut lines)?, "reason")?;
    let mut paths = Vec::new();
    loop {
        let line = take(&mut lines)?;
        if line == "entries" {
            break;
        }
        let path = PathText::parse(field(line, "path")?).and_then(|path| path.to_bytes());
        paths.push(path.ok_or(io::ErrorKind::InvalidData)?);
    }
    let mut entries = 0_u64;
    let end = loop {
        let line = lines.next()?.ok_or(io::ErrorKind::InvalidData)?;
        if let Some(end) = line.strip_prefix("end ") {
            break end.to_owned();
        }
        entries += 1;
        hash.update(line.as_bytes());
        hash.update(b"\n");
    };
    if end != format!("{entries} {}", hex::encode(hash.clone().finalize())) || lines.next()?.is_some() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    hash.update(format!("end {end}\n"));
    let baseline = Baseline {
        id: Text::new(&id),
        created_time: created.parse().map_err(|_| io::ErrorKind::InvalidData)?,
        reason: Text::new(&reason),
        entries,
        digest: Text::new(&hex::encode(hash.finalize())),
    };
    Ok(Some(Opened { baseline, paths }))
}

/// The entries of the baseline in force, in order.
pub(super) struct Entries {
    lines: Lines,
    next: Option<Entry>,
}

impl Entries {
    pub fn open(memory: &Path) -> io::Result<Self> {
        let mut lines = Lines::new(File::open(memory.join(NAME))?);
        while lines.next()?.ok_or(io::ErrorKind::InvalidData)? != "entries" {}
        let mut entries = Self { lines, next: None };
        entries.advance()?;
        Ok(entries)
    }

    pub fn peek(&self) -> Option<&Entry> {
        self.next.as_ref()
    }

    /// Returns the entry that [`Self::peek`] showed, and goes on.
    pub fn advance(&mut self) -> io::Result<Option<Entry>> {
        let line = self.lines.next()?.ok_or(io::ErrorKind::InvalidData)?;
        let next = if line.starts_with("end ") {
            // Stay at the end.
            self.lines.back = Some(line);
            None
        } else {
            Some(parse_entry(&line).ok_or(io::ErrorKind::InvalidData)?)
        };
        Ok(std::mem::replace(&mut self.next, next))
    }
}

fn parse_entry(line: &str) -> Option<Entry> {
    let path = |text: &str| PathText::parse(text.to_owned())?.to_bytes();
    let (kind, rest) = line.split_once(' ')?;
    if kind == "unreadable" {
        return Some(Entry { path: path(rest)?, state: None });
    }
    let fields: Vec<&str> = rest.splitn(7, ' ').collect();
    let [sha256, size, mode, uid, gid, modified, name] = fields[..] else { return None };
    let state = FileState {
        r#type: FileType::parse(kind)?,
        sha256: if sha256 == "-" { Text::default() } else { Text::new(sha256) },
        size_bytes: size.parse().ok()?,
        mode: u32::from_str_radix(mode, 8).ok()?,
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        modified_time: match modified {
            "-" => host::time_reading(None),
            micros => Reading::Known(Timestamp::from_micros(micros.parse().ok()?)?),
        },
        changed_time: None,
        inode: 0,
        links: 0,
        md5: Text::default(),
        extended_attributes: Vec::new(),
    };
    Some(Entry { path: path(name)?, state: Some(state) })
}

/// Lines of bounded length.
pub(super) struct Lines {
    reader: BufReader<File>,
    back: Option<String>,
}

impl Lines {
    pub fn new(file: File) -> Self {
        Self { reader: BufReader::new(file), back: None }
    }

    /// Returns the next line without its end; `None` at the end of the file.
    pub fn next(&mut self) -> io::Result<Option<String>> {
        if let Some(line) = self.back.take() {
            return Ok(Some(line));
        }
        let mut line = Vec::new();
        if self.reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        // Each line has an end: the last one of a torn file has none.
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::InvalidData.into());
        }
        String::from_utf8(line).map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Metadata;

    fn scanned(kind: EntryKind, sha256: Option<[u8; 32]>) -> Scanned {
        let metadata = Metadata {
            kind,
            size_bytes: 3,
            // A folder of before 1970 and a file of then, so that both forms are written and read.
            modified: (kind == EntryKind::File).then_some(Timestamp::EPOCH),
            mode: 0o4755,
            uid: 1,
            gid: 2,
            device: (8, 1),
            inode: 7,
            links: 1,
            changed_nanos: None,
        };
        Scanned { metadata, sha256, attributes: Vec::new() }
    }

    fn write_sample(memory: &Path) -> Opened {
        write(memory, Timestamp::EPOCH, &"first scan".into(), &[b"/a b".to_vec()], |writer| {
            writer.add(Path::new("/a b"), Ok(scanned(EntryKind::Folder, None)))?;
            writer.add(Path::new("/a b/c\nd"), Ok(scanned(EntryKind::File, Some([7; 32]))))?;
            writer.add(Path::new("/a b/e"), Err(io::ErrorKind::PermissionDenied.into()))
        })
        .unwrap()
    }

    #[test]
    fn a_baseline_reads_as_it_was_written() {
        let memory = tempfile::tempdir().unwrap();
        let written = write_sample(memory.path());
        let opened = open(memory.path()).unwrap().unwrap();
        assert_eq!((&opened.baseline, &opened.paths), (&written.baseline, &written.paths));
        assert_eq!(opened.baseline.entries, 3);
        let mut entries = Entries::open(memory.path()).unwrap();
        let mut read = Vec::new();
        while let Some(entry) = entries.advance().unwrap() {
            read.push(entry);
        }
        assert_eq!(read[0].state, Some(state(&scanned(EntryKind::Folder, None))));
        assert_eq!(read[1].path, b"/a b/c\nd");
        assert_eq!(read[1].state, Some(state(&scanned(EntryKind::File, Some([7; 32])))));
        assert_eq!(read[2], Entry { path: b"/a b/e".to_vec(), state: None });
        assert_eq!(entries.advance().unwrap(), None);
    }

    #[test]
    fn a_path_of_which_every_byte_is_escaped_is_read_again() {
        let memory = tempfile::tempdir().unwrap();
        let path = [b"/".as_slice(), &[0xff; TEXT_BYTES - 1]].concat();
        let entry = Entry { path, state: Some(state(&scanned(EntryKind::File, Some([7; 32])))) };
        write(memory.path(), Timestamp::EPOCH, &"first scan".into(), &[], |writer| writer.add_entry(&entry)).unwrap();
        assert_eq!(Entries::open(memory.path()).unwrap().peek(), Some(&entry));
    }

    #[test]
    fn a_baseline_cut_or_changed_anywhere_is_damaged_and_never_absent() {
        let memory = tempfile::tempdir().unwrap();
        write_sample(memory.path());
        let path = memory.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(open(memory.path()).unwrap_err().kind(), io::ErrorKind::InvalidData, "cut at {at}");
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert_eq!(open(memory.path()).unwrap_err().kind(), io::ErrorKind::InvalidData, "changed at {at}");
        }
    }

    #[test]
    fn a_baseline_that_fails_half_way_leaves_the_one_before() {
        let memory = tempfile::tempdir().unwrap();
        let before = write_sample(memory.path());
        let failed = write(memory.path(), Timestamp::EPOCH, &"again".into(), &[], |writer| {
            writer.add(Path::new("/x"), Ok(scanned(EntryKind::Folder, None)))?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(open(memory.path()).unwrap().unwrap().baseline, before.baseline);
    }

    #[test]
    fn a_folder_comes_before_its_content_and_that_before_its_siblings() {
        let mut paths = ["/a.b", "/a/b", "/a", "/a-b", "/"].map(|path| path.as_bytes().to_vec());
        paths.sort_by(|a, b| order(a, b));
        assert_eq!(paths, ["/", "/a", "/a/b", "/a-b", "/a.b"].map(|path| path.as_bytes().to_vec()));
    }
}
