//! Merges a scan with the baseline and with the differences known before.
//!
//! The differences are kept in a file of JSON lines in the order of the scan, below a line with the baseline's id, the time of
//! the scan and the run of the agent. A file of another baseline is forgotten.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{Cause, ChangeKind, FileChange, FileState, FileType, PathText, Text, Unknown, UnreadablePath},
    limits,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::baseline::{Entries, Entry, Lines, Opened, is_at_or_below, order, state};
use crate::{
    fim::explain,
    host::{self, Scanned},
    probe::{Look, memory},
};

const NAME: &str = "changes";
const DRAFT: &str = "changes.draft";
const VERSION: u32 = 1;
/// The run of a baseline that no running agent took.
pub(super) const NO_RUN: u64 = 0;
/// New differences for which an explanation is looked for in one look; the others stay unexplained until a baseline is taken.
const EXPLAINED: usize = 50_000;

/// What differs.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub changes: Vec<FileChange>,
    pub changes_total: u64,
    pub explained_total: u64,
    /// What was read and has no state in the baseline, because it could not be read then.
    pub not_compared: Vec<UnreadablePath>,
    pub not_compared_total: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Header {
    version: u32,
    baseline: Text,
    /// When the last whole scan began.
    scanned: Timestamp,
    /// The run of the agent that made it.
    run: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Kept {
    change: FileChange,
    explained: bool,
}

/// Takes note of a scan without differences: the one that made the baseline.
pub(super) fn start(memory: &Path, scanned: Timestamp, run: u64, opened: &Opened) -> io::Result<()> {
    let header = Header { version: VERSION, baseline: opened.baseline.id.clone(), scanned, run };
    memory::replace(memory, NAME, |file| line(file, &header))
}

/// Returns whether files were compared with a baseline before.
pub(super) fn is_started(memory: &Path) -> bool {
    memory.join(NAME).exists()
}

/// Keeps the differences from the baseline `before` at and below the paths of the one that took its place.
pub(super) fn carry_over(memory: &Path, before: &Opened, opened: &Opened) -> io::Result<()> {
    let mut known = Known::open(memory, before)?;
    memory::replace(memory, NAME, |file| {
        line(file, &Header { baseline: opened.baseline.id.clone(), ..known.header.clone() })?;
        while let Some((path, kept)) = known.take() {
            if opened.covers(&path) {
                line(file, &kept)?;
            }
        }
        Ok(())
    })
}

fn header(look: &Look<'_>, opened: &Opened) -> Header {
    Header { version: VERSION, baseline: opened.baseline.id.clone(), scanned: look.now, run: look.run }
}

fn line(out: &mut impl io::Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// A merge under way.
pub(super) struct Merge<'a> {
    look: &'a Look<'a>,
    opened: &'a Opened,
    baseline: Entries,
    known: Known,
    draft: io::BufWriter<File>,
    draft_path: PathBuf,
    /// Paths that could not be read: nothing is said of what the baseline has at and below them.
    blind: Option<Vec<u8>>,
    /// The last path that could not be read for the baseline: it has nothing of what is below it.
    blind_before: Option<Vec<u8>>,
    summary: Summary,
    /// New differences that the package database may explain.
    new: BTreeMap<Vec<u8>, FileChange>,
}

impl<'a> Merge<'a> {
    pub fn start(look: &'a Look<'a>, opened: &'a Opened) -> io::Result<Self> {
        let draft_path = look.memory.join(DRAFT);
        Ok(Self {
            look,
            opened,
            baseline: Entries::open(look.memory)?,
            known: Known::open(look.memory, opened)?,
            draft: io::BufWriter::new(File::create(&draft_path)?),
            draft_path,
            blind: None,
            blind_before: None,
            summary: Summary::default(),
            new: BTreeMap::new(),
        })
    }

    /// Takes the next entry of the scan.
    pub fn found(&mut self, path: &Path, scanned: io::Result<Scanned>) -> io::Result<()> {
        let path = host::path_bytes(path);
        self.pass_before(&path)?;
        let before = match self.baseline.peek() {
            Some(entry) if entry.path == path => self.advance()?,
            _ => None,
        };
        let Ok(scanned) = scanned else {
            self.keep_known(&path)?;
            self.blind = Some(path);
            return Ok(());
        };
        let after = state(&scanned);
        match before {
            Some(Entry { state: Some(before), .. }) => match kind(&before, &after) {
                Some(kind) => self.differs(path, kind, Some(before), Some(after)),
                None => Ok(()),
            },
            Some(Entry { state: None, .. }) => self.is_not_compared(&path),
            None if self.blind_before.as_ref().is_some_and(|blind| is_at_or_below(&path, blind)) => {
                self.is_not_compared(&path)
            }
            None => self.differs(path, ChangeKind::Created, None, Some(after)),
        }
    }

    fn advance(&mut self) -> io::Result<Option<Entry>> {
        let entry = self.baseline.advance()?;
        if let Some(Entry { path, state: None }) = &entry {
            self.blind_before = Some(path.clone());
        }
        Ok(entry)
    }

    fn is_not_compared(&mut self, path: &[u8]) -> io::Result<()> {
        self.summary.not_compared_total += 1;
        if self.summary.not_compared.len() < limits::UNREADABLE_PATHS {
            let detail = "it is not in the baseline, for which it could not be read: take it afresh with muster-agent fim \
                          rebaseline";
            let path = PathText::from_bytes(path);
            self.summary.not_compared.push(UnreadablePath { path, unknown: Unknown::new(Cause::Absent, detail) });
        }
        Ok(())
    }

    /// What is known to differ at and below a path that cannot be read stays known.
    fn keep_known(&mut self, path: &[u8]) -> io::Result<()> {
        self.known.pass_before(path);
        while self.known.peek().is_some_and(|known| is_at_or_below(known, path)) {
            if let Some((_, kept)) = self.known.take() {
                line(&mut self.draft, &kept)?;
            }
        }
        Ok(())
    }

    /// What the baseline has before `path` and the scan has not is deleted.
    fn pass_before(&mut self, path: &[u8]) -> io::Result<()> {
        while self.baseline.peek().is_some_and(|entry| order(&entry.path, path).is_lt()) {
            self.pass_one()?;
        }
        Ok(())
    }

    fn pass_one(&mut self) -> io::Result<()> {
        let Some(entry) = self.advance()? else { return Ok(()) };
        let is_blind = self.blind.as_ref().is_some_and(|blind| is_at_or_below(&entry.path, blind));
        match entry.state {
            Some(before) if !is_blind => self.differs(entry.path, ChangeKind::Deleted, Some(before), None),
            _ => Ok(()),
        }
    }

    fn differs(
        &mut self,
        path: Vec<u8>,
        kind: ChangeKind,
        before: Option<FileState>,
        after: Option<FileState>,
    ) -> io::Result<()> {
        let known = self.known.find(&path);
        if let Some(known) = &known
            && known.change.kind == kind
            && known.change.after == after
        {
            return line(&mut self.draft, known);
        }
        let header = &self.known.header;
        let was_away = header.run != self.look.run;
        let change = FileChange {
            path: PathText::from_bytes(&path),
            kind,
            before,
            after,
            last_unchanged_time: known.as_ref().map_or(header.scanned, |known| known.change.last_unchanged_time),
            detected_time: self.look.now,
            while_not_observed: was_away || known.is_some_and(|known| known.change.while_not_observed),
            set: Text::default(),
            explanation: None,
            actors: Vec::new(),
            states_seen: 0,
        };
        let kept = Kept { change, explained: false };
        line(&mut self.draft, &kept)?;
        if self.new.len() < EXPLAINED {
            self.new.insert(path, kept.change);
        }
        Ok(())
    }

    /// Ends the scan: looks for explanations of what is new, and keeps all differences for the next look.
    pub fn finish(mut self) -> io::Result<Summary> {
        while self.baseline.peek().is_some() {
            self.pass_one()?;
        }
        self.draft.flush()?;
        let memory = explain::Memory { folder: self.look.memory, name: explain::NAME };
        // Without an explanation a difference is shown to the operator, which is always right.
        let _ = explain::explain(self.look.host, Some(memory), &mut self.new);
        let _ = explain::remember(self.look.host, memory, self.look.now);
        let mut summary = self.summary;
        let mut draft = Lines::new(File::open(&self.draft_path)?);
        memory::replace(self.look.memory, NAME, |file| {
            line(file, &header(self.look, self.opened))?;
            while let Some(text) = draft.next()? {
                let mut kept: Kept = serde_json::from_str(&text)?;
                if let Some(path) = kept.change.path.to_bytes()
                    && let Some(change) = self.new.remove(&path)
                {
                    kept = Kept { explained: change.explanation.is_some(), change };
                }
                line(file, &kept)?;
                if kept.explained {
                    summary.explained_total += 1;
                    continue;
                }
                summary.changes_total += 1;
                if summary.changes.len() < limits::FILE_CHANGES {
                    summary.changes.push(kept.change);
                }
            }
            Ok(())
        })?;
        fs::remove_file(&self.draft_path)?;
        summary.changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(summary)
    }
}

/// Returns how two states differ; `None` when they do not. The size and time of a folder follow from its content, and
/// the time of a link from when it was made, so that they tell nothing.
fn kind(before: &FileState, after: &FileState) -> Option<ChangeKind> {
    if before.r#type != after.r#type {
        return Some(ChangeKind::Type);
    }
    let is_file = after.r#type == FileType::File;
    if before.sha256 != after.sha256 || is_file && before.size_bytes != after.size_bytes {
        return Some(ChangeKind::Content);
    }
    let rights = |state: &FileState| (state.mode, state.uid, state.gid);
    let is_changed = rights(before) != rights(after) || is_file && before.modified_time != after.modified_time;
    is_changed.then_some(ChangeKind::Metadata)
}

/// The differences of the look before, in order.
struct Known {
    header: Header,
    lines: Option<Lines>,
    next: Option<(Vec<u8>, Kept)>,
}

impl Known {
    fn open(folder: &Path, opened: &Opened) -> io::Result<Self> {
        let none = Self {
            // Without a scan since, the files were last as in the baseline when it was taken.
            header: Header {
                version: VERSION,
                baseline: opened.baseline.id.clone(),
                scanned: opened.baseline.created_time,
                run: NO_RUN,
            },
            lines: None,
            next: None,
        };
        let Ok(file) = File::open(folder.join(NAME)) else { return Ok(none) };
        let mut lines = Lines::new(file);
        let Some(header) = lines.next().ok().flatten().and_then(|line| serde_json::from_str::<Header>(&line).ok())
        else {
            return Ok(none);
        };
        if header.version != VERSION || header.baseline != opened.baseline.id {
            return Ok(none);
        }
        let mut known = Self { header, lines: Some(lines), next: None };
        known.advance();
        Ok(known)
    }

    /// A damaged line ends the list: what follows is then found anew, with a later time of detection.
    fn advance(&mut self) {
        let line = self.lines.as_mut().and_then(|lines| lines.next().ok().flatten());
        self.next = line.and_then(|line| {
            let kept: Kept = serde_json::from_str(&line).ok()?;
            Some((kept.change.path.to_bytes()?, kept))
        });
    }

    fn peek(&self) -> Option<&[u8]> {
        self.next.as_ref().map(|(path, _)| path.as_slice())
    }

    /// Returns the difference that [`Self::peek`] showed, and goes on.
    fn take(&mut self) -> Option<(Vec<u8>, Kept)> {
        let taken = self.next.take();
        self.advance();
        taken
    }

    /// Goes on to what is not before `path`: what is, differs no more.
    fn pass_before(&mut self, path: &[u8]) {
        while self.peek().is_some_and(|known| order(known, path).is_lt()) {
            self.advance();
        }
    }

    fn find(&mut self, path: &[u8]) -> Option<Kept> {
        self.pass_before(path);
        if self.peek() == Some(path) { self.take().map(|(_, kept)| kept) } else { None }
    }
}
