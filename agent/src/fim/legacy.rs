//! Takes over what the first version kept, so that an upgrade forgives nothing: a baseline and its differences as lines of text.
//!
//! ```text
//! muster-baseline 1
//! id 00112233445566778899aabbccddeeff
//! created 2026-11-24T12:00:00Z
//! reason first scan
//! path /etc
//! entries
//! file 9f86…0a08 1234 644 0 0 1795521600000000 /etc/passwd
//! unreadable /etc/shadow
//! end 2 SHA-256-OF-ALL-LINES-BEFORE
//! ```
//!
//! The differences were lines of JSON below a line with the baseline's id, the time of the last scan and the run of the agent.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
};

use muster_proto::{
    fact::{ChangeKind, FileChange, FileState, FileType, PathText, Text},
    limits::TEXT_BYTES,
    time::Timestamp,
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    baseline::{self, Read},
    check::Error,
    known::{Difference, Header, Known, What},
    record::{self, State},
    scans::Scans,
    sets::{PATHS, Rule, Sets},
    store::{Name, Store},
    tally,
    watch_set::WatchSet,
};
use crate::host::{self, EntryKind, Metadata};

const FIRST_LINE: &str = "muster-baseline 1";
/// Bytes of a line of a baseline, at most: a path in which every byte is escaped, and the rest.
const LINE_BYTES: u64 = 5 * TEXT_BYTES as u64 + 2048;
/// Bytes of a line of a difference, at most: it has three texts at their longest.
const CHANGE_BYTES: u64 = 1024 * 1024;

/// Puts a baseline of the first version into the form of this one, with what is known beyond it. Returns false when there is none.
pub(super) fn convert(store: &Store) -> Result<bool, Error> {
    let reading = |source| Error::of_baseline(store, source);
    let Some(file) = store.open(Name::Baseline).map_err(reading)? else { return Ok(false) };
    let mut lines = Lines::new(file, LINE_BYTES);
    match lines.next() {
        Ok(Some(line)) if line == FIRST_LINE => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(false),
        Err(error) => return Err(reading(error)),
    }
    let head = verify(store).map_err(reading)?;
    let sets = Sets::new(&[WatchSet::of_paths(PATHS, head.paths.iter().map(|path| host::path_of(path)).collect())])
        .map_err(|_| Error::BaselineDamaged)?;
    // First, so that a kill before the baseline is replaced loses none of them.
    let scans = convert_changes(store, &head, &sets).map_err(Error::of_writing(store, Name::Changes))?;
    let written = baseline::write(store, &head.id, head.created, &head.reason, &sets, |writer| {
        while lines.next()?.is_some_and(|line| line != "entries") {}
        while let Some(line) = lines.next()?.filter(|line| !line.starts_with("end ")) {
            let (path, state) = parse_entry(&line).ok_or(io::ErrorKind::InvalidData)?;
            let Rule::Covered { members, .. } = sets.rule(&path, EntryKind::Folder) else { continue };
            writer.add(&path, members, state.as_ref().map_or(Read::Not(None), Read::State))?;
        }
        Ok(())
    });
    written.map_err(Error::of_writing(store, Name::Baseline))?;
    if let Some(scans) = scans {
        scans.write(store).map_err(Error::of_writing(store, Name::Scans))?;
    }
    Ok(true)
}

/// What a baseline says before its entries.
struct Head {
    id: String,
    created: Timestamp,
    reason: Text,
    paths: Vec<Vec<u8>>,
}

/// Reads all of the baseline, and returns its head if it is whole.
fn verify(store: &Store) -> io::Result<Head> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let mut lines = Lines::new(store.open(Name::Baseline)?.ok_or_else(damaged)?, LINE_BYTES);
    let mut hash = Sha256::new();
    let mut take = |lines: &mut Lines| -> io::Result<String> {
        let line = lines.next()?.ok_or_else(damaged)?;
        hash.update(line.as_bytes());
        hash.update(b"\n");
        Ok(line)
    };
    let field = |line: String, name: &str| {
        line.strip_prefix(name).map(|value| value.trim_start().to_owned()).ok_or_else(damaged)
    };
    take(&mut lines)?;
    let id = field(take(&mut lines)?, "id")?;
    let created = field(take(&mut lines)?, "created")?.parse().map_err(|_| damaged())?;
    let reason = Text::new(&field(take(&mut lines)?, "reason")?);
    let mut paths = Vec::new();
    loop {
        let line = take(&mut lines)?;
        if line == "entries" {
            break;
        }
        let path = PathText::parse(field(line, "path")?).and_then(|path| path.to_bytes());
        paths.push(path.ok_or_else(damaged)?);
    }
    let mut entries = 0_u64;
    let end = loop {
        let line = lines.next()?.ok_or_else(damaged)?;
        if let Some(end) = line.strip_prefix("end ") {
            break end.to_owned();
        }
        parse_entry(&line).ok_or_else(damaged)?;
        entries += 1;
        hash.update(line.as_bytes());
        hash.update(b"\n");
    };
    let is_whole = end == format!("{entries} {}", hex::encode(hash.finalize())) && lines.next()?.is_none();
    if is_whole { Ok(Head { id, created, reason, paths }) } else { Err(damaged()) }
}

fn parse_entry(line: &str) -> Option<(Vec<u8>, Option<State>)> {
    let path = |text: &str| PathText::parse(text.to_owned())?.to_bytes();
    let (kind, rest) = line.split_once(' ')?;
    if kind == "unreadable" {
        return Some((path(rest)?, None));
    }
    let fields: Vec<&str> = rest.splitn(7, ' ').collect();
    let [sha256, size, mode, uid, gid, modified, name] = fields[..] else { return None };
    let metadata = Metadata {
        kind: record::kind(FileType::parse(kind)?),
        size_bytes: size.parse().ok()?,
        modified: if modified == "-" { None } else { Some(Timestamp::from_micros(modified.parse().ok()?)?) },
        mode: u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777)?,
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        device: (0, 0),
        inode: 0,
        links: 0,
        changed_nanos: None,
    };
    let sha256 = if sha256 == "-" { None } else { Some(digest(sha256)?) };
    Some((path(name)?, Some(State { metadata, sha256, attributes: None })))
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok()?;
    Some(digest)
}

#[derive(Deserialize)]
struct OldHeader {
    version: u32,
    baseline: Text,
    scanned: Timestamp,
    run: u64,
}

#[derive(Deserialize)]
struct OldChange {
    change: FileChange,
}

/// Puts the differences from the baseline into the form of this version, and returns when they were found. A damaged line ends them:
/// what follows is found anew.
fn convert_changes(store: &Store, head: &Head, sets: &Sets) -> io::Result<Option<Scans>> {
    let Some(file) = store.open(Name::Changes)? else { return Ok(None) };
    let mut lines = Lines::new(file, CHANGE_BYTES);
    let header: Option<OldHeader> = lines.next().ok().flatten().and_then(|line| serde_json::from_str(&line).ok());
    let Some(old) = header.filter(|old| old.version == 1 && old.baseline.as_str() == head.id) else { return Ok(None) };
    store.replace(Name::Changes, |out| {
        tally::write(out, &Header { baselines: vec![head.id.clone()] }, |writer| {
            while let Some((path, known)) = lines.next().ok().flatten().and_then(|line| parse_change(&line)) {
                writer.add(&path, &known.encode())?;
            }
            Ok(())
        })
    })?;
    Ok(Some(Scans::at(&head.id, sets.roots(), old.scanned, old.run)))
}

fn parse_change(line: &str) -> Option<(Vec<u8>, Known)> {
    let OldChange { mut change } = serde_json::from_str(line).ok()?;
    let path = change.path.to_bytes()?;
    change.set = Text::new(PATHS);
    change.states_seen = 1;
    let found = match &change.after {
        Some(after) => Some(state(after)?),
        None => None,
    };
    let is_new = change.kind == ChangeKind::Created;
    let since = change.last_unchanged_time;
    let what = What::Differs(Box::new(Difference { change, found, since }));
    Some((path, Known { set: 0, is_new, unreadable: None, seen: Timestamp::EPOCH, what }))
}

/// Returns the state that a fact names.
fn state(state: &FileState) -> Option<State> {
    let metadata = Metadata {
        kind: record::kind(state.r#type),
        size_bytes: state.size_bytes,
        modified: state.modified_time.known().copied(),
        mode: state.mode,
        uid: state.uid,
        gid: state.gid,
        device: (0, 0),
        inode: 0,
        links: 0,
        changed_nanos: None,
    };
    let sha256 = if state.sha256.is_empty() { None } else { Some(digest(state.sha256.as_str())?) };
    Some(State { metadata, sha256, attributes: None })
}

/// Lines of bounded length.
struct Lines {
    reader: BufReader<File>,
    limit_bytes: u64,
}

impl Lines {
    fn new(file: File, limit_bytes: u64) -> Self {
        Self { reader: BufReader::new(file), limit_bytes }
    }

    /// Returns the next line without its end; `None` at the end of the file.
    fn next(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        if self.reader.by_ref().take(self.limit_bytes).read_until(b'\n', &mut line)? == 0 {
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

    fn baseline() -> String {
        let lines = [
            FIRST_LINE,
            "id 00112233445566778899aabbccddeeff",
            "created 2026-11-24T12:00:00Z",
            "reason first scan",
            "path /a b",
            "entries",
            "folder - 4096 755 0 0 - /a b",
            &format!("file {} 3 4755 1 2 1795521600000000 /a b/c\\x0ad", "07".repeat(32)),
            "unreadable /a b/e",
        ];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let digest = hex::encode(Sha256::digest(&text));
        format!("{text}end 3 {digest}\n")
    }

    fn change() -> String {
        let header =
            r#"{"version":1,"baseline":"00112233445566778899aabbccddeeff","scanned":"2026-11-24T13:00:00Z","run":7}"#;
        let state = |mode: u32| {
            format!(
                r#"{{"type":"file","sha256":"{}","size_bytes":3,"mode":{mode},"uid":1,"gid":2,"modified_time":"2026-11-24T12:00:00Z"}}"#,
                "07".repeat(32)
            )
        };
        format!(
            "{header}\n{{\"change\":{{\"path\":\"/a b/c\\\\x0ad\",\"kind\":\"metadata\",\"before\":{},\"after\":{},\
             \"last_unchanged_time\":\"2026-11-24T12:30:00Z\",\"detected_time\":\"2026-11-24T12:40:00Z\",\
             \"while_not_observed\":true}},\"explained\":true}}\n",
            state(0o4755),
            state(0o755)
        )
    }

    #[test]
    fn a_baseline_of_the_first_version_and_its_differences_are_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        std::fs::write(store.path(Name::Baseline), baseline()).unwrap();
        std::fs::write(store.path(Name::Changes), change()).unwrap();
        assert!(convert(&store).unwrap());
        assert!(!convert(&store).unwrap());
        let opened = baseline::open(&store).unwrap().unwrap();
        opened.blocks.verify().unwrap();
        assert_eq!((opened.baseline.entries, opened.baseline.id.as_str()), (3, "00112233445566778899aabbccddeeff"));
        assert_eq!((opened.counts.unreadable, opened.baseline.reason.as_str()), (1, "first scan"));
        let mut changes = Vec::new();
        super::super::each_change(&store, &mut |change| {
            changes.push(change);
            Ok(())
        })
        .unwrap();
        assert_eq!((changes.len(), changes[0].path.as_str()), (1, "/a b/c\\x0ad"));
        assert_eq!(changes[0].last_unchanged_time, "2026-11-24T12:30:00Z".parse().unwrap());
        let sets = Sets::new(&opened.sets).unwrap();
        let scans = Scans::read(&store, opened.baseline.id.as_str(), Timestamp::EPOCH, sets.roots()).unwrap();
        assert_eq!((scans.roots[0].time, scans.roots[0].run), ("2026-11-24T13:00:00Z".parse().unwrap(), 7));
    }

    #[test]
    fn a_damaged_baseline_of_the_first_version_is_not_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let whole = baseline().into_bytes();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for bytes in [&changed[..], &whole[..at]] {
                std::fs::write(store.path(Name::Baseline), bytes).unwrap();
                assert!(!matches!(convert(&store), Ok(true)), "at {at}");
                assert_eq!(std::fs::read(store.path(Name::Baseline)).unwrap(), bytes);
            }
        }
    }
}
