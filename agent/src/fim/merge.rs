//! Merges a walk with the baseline and with what is known beyond it: three streams in one order, of which none is ever held whole.
//!
//! An entry is decided when it is shown, from its metadata alone, or when it was read, which may be later: so what the merge comes
//! to know goes into two drafts, each in order.

mod decide;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
    io,
    path::Path,
};

use muster_proto::{
    fact::{Cause, PathText, Unknown},
    limits,
    time::Timestamp,
};

use self::decide::blinded;
use super::{
    baseline::{self, Before, Opened},
    block::{Blocks, Cursor},
    check::{Error, Request},
    draft::{Draft, Drafted},
    inode_times::InodeTimes,
    known::{Known, Unreadable, What},
    mounts::Mounts,
    place::{self, is_at_or_below, order},
    progress::Progress,
    record::State,
    scans::Scans,
    sets::Rule,
    slots::Due,
    store::Name,
    watch_set::Attributes,
};
use crate::host::{self, EntryKind, Metadata, Scanned, Visitor, Want};

/// Folders that turned out unreadable after what is in them was shown, at most.
const LATE: usize = 10_000;

/// What a scan did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Entries that were shown.
    pub entries_seen: u64,
    /// Files that were read.
    pub files_read: u64,
    /// Bytes of content that were read.
    pub bytes_read: u64,
}

impl Stats {
    /// Counts an entry that was read, if its content was.
    pub fn count(&mut self, read: &io::Result<Scanned>, progress: &Progress) {
        if let Ok(scanned) = read
            && scanned.metadata.kind == EntryKind::File
            && scanned.sha256.is_some()
        {
            self.files_read += 1;
            self.bytes_read += scanned.metadata.size_bytes;
            progress.add_bytes(scanned.metadata.size_bytes);
        }
    }
}

/// What a merge found.
pub struct Found {
    /// What was decided when entries were shown, and when they were read.
    pub drafts: [Drafted; 2],
    /// Entries that turned out unreadable after later ones were shown.
    pub late: BTreeMap<Vec<u8>, (usize, Unreadable)>,
    /// Whether differences that nothing explained are shown to the package databases again.
    pub asks_again: bool,
    /// What it did.
    pub stats: Stats,
}

/// An entry that is to be decided.
struct Entry {
    path: Vec<u8>,
    set: usize,
    attributes: Attributes,
    before: Before,
    known: Option<Known>,
    /// What lstat(2) said of it, where it was shown.
    looked: Option<Metadata>,
    unreadable: Option<Unreadable>,
}

/// A merge under way.
pub struct Merge<'a> {
    request: &'a Request<'a>,
    opened: &'a Opened,
    scans: &'a Scans,
    due: Due,
    inode_times: InodeTimes,
    /// Whether differences that nothing explained are shown to the package databases again.
    asks_again: bool,
    baseline: Cursor<'a>,
    known: Option<Cursor<'a>>,
    root: usize,
    /// The parts of the root that are looked at, the one that the walk is in or before, and whether it is in it.
    ranges: Vec<Vec<u8>>,
    range: usize,
    is_in_range: bool,
    /// Whether the walk of the root showed anything.
    is_shown: bool,
    problem: Option<Unknown>,
    /// What could not be read: nothing is said of what is below it.
    blind: Option<Vec<u8>>,
    /// The same, where it is above what is looked at, and why.
    blind_above: Option<(Vec<u8>, Unknown)>,
    /// What could not be read for the baseline, which has nothing of what is below it.
    blind_before: Option<Vec<u8>>,
    /// What could not be read at the last look, and since when.
    was_blind: Option<(Vec<u8>, Timestamp)>,
    mounts: Mounts,
    /// The last path that was shown.
    shown: Vec<u8>,
    pending: VecDeque<Entry>,
    at_shown: Draft,
    at_found: Draft,
    late: BTreeMap<Vec<u8>, (usize, Unreadable)>,
    stats: Stats,
    failure: Option<Error>,
}

/// Where an entry lies.
enum Place {
    Inside,
    /// Above something that is looked at.
    Above,
    Outside,
}

/// Records that are passed.
#[derive(Clone, Copy)]
enum Limit<'p> {
    Before(&'p [u8]),
    Within(&'p [u8]),
    All,
}

impl Limit<'_> {
    fn has(self, path: &[u8]) -> bool {
        match self {
            Self::Before(end) => order(path, end).is_lt(),
            Self::Within(range) => is_at_or_below(path, range),
            Self::All => true,
        }
    }
}

impl<'a> Merge<'a> {
    /// Begins a merge of the baseline `opened` and what is `known` beyond it, with the times of the scans before.
    pub fn start(
        request: &'a Request<'a>,
        opened: &'a Opened,
        known: Option<&'a Blocks>,
        scans: &'a Scans,
        due: Due,
        asks_again: bool,
    ) -> Result<Self, Error> {
        let store = request.store;
        let draft = || Draft::start(store).map_err(Error::of_writing(store, Name::Changes));
        Ok(Self {
            request,
            opened,
            scans,
            due,
            inode_times: InodeTimes::of(request.host),
            asks_again,
            baseline: Cursor::start(&opened.blocks).map_err(|error| Error::of_baseline(store, error))?,
            known: known.map(Cursor::start).transpose().map_err(|error| Error::of_changes(store, error))?,
            root: 0,
            ranges: Vec::new(),
            range: 0,
            is_in_range: false,
            is_shown: false,
            problem: None,
            blind: None,
            blind_above: None,
            blind_before: None,
            was_blind: None,
            mounts: Mounts::default(),
            shown: Vec::new(),
            pending: VecDeque::new(),
            at_shown: draft()?,
            at_found: draft()?,
            late: BTreeMap::new(),
            stats: Stats::default(),
            failure: None,
        })
    }

    /// Takes note that the walk of the root of this number begins, of which `ranges` are looked at.
    pub fn begin_root(&mut self, number: usize, ranges: Vec<Vec<u8>>) {
        (self.root, self.ranges, self.range, self.is_in_range) = (number, ranges, 0, false);
        (self.is_shown, self.blind, self.blind_above, self.blind_before, self.problem) =
            (false, None, None, None, None);
        self.shown.clear();
        self.mounts.begin(&self.request.sets.roots()[number]);
    }

    /// Takes note that the walk of the root ended so, and returns why its entries are not counted, if they are not.
    pub fn end_root(&mut self, walked: io::Result<()>) -> Result<Option<Unknown>, Error> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let path = self.request.sets.roots()[self.root].path.clone();
        match walked {
            Ok(()) => {}
            // What was below it is gone, and the comparison says so.
            Err(error) if matches!(host::cause(&error), Cause::Absent) => {
                self.problem = Some(Unknown::new(Cause::Absent, "it does not exist"));
            }
            Err(error) if is_of_root(&error, self.is_shown) => {
                self.problem = Some(host::unknown("open", &error));
                self.unreadable_entry(&path, error)?;
            }
            Err(source) => return Err(Error::Scan { path: PathText::from_bytes(&path), source }),
        }
        while let Some(entry) = self.pending.pop_front() {
            self.not_read(entry, &io::Error::other("it was not read"))?;
        }
        while self.range < self.ranges.len() {
            self.end_range()?;
        }
        Ok(self.problem.take())
    }

    /// Ends the merge. What is known of what was not looked at stays known.
    pub fn finish(mut self) -> Result<Found, Error> {
        self.keep_known(Limit::All)?;
        let store = self.request.store;
        let finish = |draft: Draft| draft.finish().map_err(Error::of_writing(store, Name::Changes));
        let drafts = [finish(self.at_shown)?, finish(self.at_found)?];
        Ok(Found { drafts, late: self.late, asks_again: self.asks_again, stats: self.stats })
    }

    /// Returns where `path` lies, and passes what comes before it.
    fn place(&mut self, path: &[u8]) -> Result<Place, Error> {
        while let Some(range) = self.ranges.get(self.range) {
            if is_at_or_below(path, range) {
                if !self.is_in_range {
                    self.start_range()?;
                }
                return Ok(Place::Inside);
            }
            if is_at_or_below(range, path) {
                return Ok(Place::Above);
            }
            if order(path, range).is_lt() {
                return Ok(Place::Outside);
            }
            self.end_range()?;
        }
        Ok(Place::Outside)
    }

    fn start_range(&mut self) -> Result<(), Error> {
        let range = self.ranges[self.range].clone();
        self.keep_known(Limit::Before(&range))?;
        if self.opened.counts.unreadable > 0 {
            let root = &self.request.sets.roots()[self.root].path;
            for above in place::above(&range).filter(|above| is_at_or_below(above, root)) {
                self.seek(above)?;
                if self.baseline.path() == Some(above) {
                    self.take_before()?;
                }
            }
        }
        self.seek(&range)?;
        self.is_in_range = true;
        Ok(())
    }

    fn end_range(&mut self) -> Result<(), Error> {
        if !self.is_in_range {
            self.start_range()?;
        }
        let range = std::mem::take(&mut self.ranges[self.range]);
        if let Some((above, unknown)) = self.blind_above.clone()
            && is_at_or_below(&range, &above)
        {
            self.cannot_reach(&range, unknown)?;
        }
        self.pass(Limit::Within(&range))?;
        self.range += 1;
        self.is_in_range = false;
        Ok(())
    }

    fn seek(&mut self, path: &[u8]) -> Result<(), Error> {
        self.baseline.seek(path).map_err(|error| Error::of_baseline(self.request.store, error))
    }

    /// What the baseline has and the walk has not is deleted; what was known and is neither here nor there, is known no more.
    fn pass(&mut self, limit: Limit<'_>) -> Result<(), Error> {
        loop {
            let before = self.baseline.path().filter(|path| limit.has(path));
            let known = self.known.as_ref().and_then(Cursor::path).filter(|path| limit.has(path));
            let (first, path) = match (before, known) {
                (None, None) => return Ok(()),
                (Some(path), None) => (Ordering::Less, path),
                (None, Some(path)) => (Ordering::Greater, path),
                (Some(before), Some(known)) => match order(before, known) {
                    Ordering::Greater => (Ordering::Greater, known),
                    first => (first, before),
                },
            };
            let path = path.to_vec();
            let before = if first.is_le() { self.take_before()? } else { Before::None };
            let known = if first.is_ge() { Some(self.take_known()?) } else { None };
            self.is_gone(&path, &before, known)?;
        }
    }

    fn is_gone(&mut self, path: &[u8], before: &Before, known: Option<Known>) -> Result<(), Error> {
        if self.blind.as_ref().is_some_and(|blind| is_at_or_below(path, blind)) {
            return known.map_or(Ok(()), |known| self.decided(path, known));
        }
        let kind = if let Before::State(state) = before { state.metadata.kind } else { EntryKind::Folder };
        let (set, attributes) = self.covered(path, kind).unwrap_or_default();
        let entry =
            Entry { path: path.to_vec(), set, attributes, before: Before::None, known, looked: None, unreadable: None };
        match self.gone(entry, before) {
            Some(known) => self.decided(path, known),
            None => Ok(()),
        }
    }

    fn covered(&self, path: &[u8], kind: EntryKind) -> Option<(usize, Attributes)> {
        match self.request.sets.rule(path, kind) {
            Rule::Covered { set, attributes, .. } => Some((set, attributes)),
            Rule::Outside | Rule::Pass => None,
        }
    }

    /// Keeps what is known as it is.
    fn keep_known(&mut self, limit: Limit<'_>) -> Result<(), Error> {
        while let Some(path) = self.known.as_ref().and_then(Cursor::path).filter(|path| limit.has(path)) {
            let path = path.to_vec();
            let known = self.take_known()?;
            self.decided(&path, known)?;
        }
        Ok(())
    }

    /// Takes the record that the baseline is at.
    fn take_before(&mut self) -> Result<Before, Error> {
        let failed = |error| Error::of_baseline(self.request.store, error);
        let before = baseline::before(&self.baseline).map_err(failed)?;
        if matches!(before, Before::Unreadable(_)) {
            self.blind_before = self.baseline.path().map(<[u8]>::to_vec);
        }
        self.baseline.advance().map_err(failed)?;
        Ok(before)
    }

    /// Takes the record that what is known is at.
    fn take_known(&mut self) -> Result<Known, Error> {
        let failed = |error| Error::of_changes(self.request.store, error);
        let cursor = self.known.as_mut().ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
        let known = Known::decode(cursor.body()).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        if let (Some(unreadable), Some(path)) = (&known.unreadable, cursor.path()) {
            let is_inside = self.was_blind.as_ref().is_some_and(|(blind, _)| is_at_or_below(path, blind));
            if !is_inside {
                self.was_blind = Some((path.to_vec(), unreadable.since));
            }
        }
        cursor.advance().map_err(failed)?;
        Ok(known)
    }

    /// Takes what the baseline has of `path`, and what is known beyond it.
    fn take(&mut self, path: &[u8]) -> Result<(Before, Option<Known>), Error> {
        if self.baseline.path() != Some(path) || self.known.is_some() {
            self.pass(Limit::Before(path))?;
        }
        let before = if self.baseline.path() == Some(path) {
            self.take_before()?
        } else if self.is_hidden(path) {
            Before::Hidden
        } else {
            Before::None
        };
        let is_known = self.known.as_ref().is_some_and(|known| known.path() == Some(path));
        Ok((before, if is_known { Some(self.take_known()?) } else { None }))
    }

    fn is_hidden(&self, path: &[u8]) -> bool {
        let mut blind = self.blind_before.iter().chain(&self.opened.hidden);
        blind.any(|blind| is_at_or_below(path, blind))
    }

    fn decided(&mut self, path: &[u8], known: Known) -> Result<(), Error> {
        self.at_shown.add(path, known).map_err(Error::of_writing(self.request.store, Name::Changes))
    }

    /// Takes what is known of an entry that was read.
    fn read(&mut self, path: &[u8], known: Known) -> Result<(), Error> {
        self.at_found.add(path, known).map_err(Error::of_writing(self.request.store, Name::Changes))
    }

    fn shown_entry(&mut self, path: &[u8], metadata: &Metadata) -> Result<Want, Error> {
        self.is_shown = true;
        self.stats.entries_seen += 1;
        self.request.progress.add_entry();
        let place = self.place(path)?;
        let is_refused = self.mounts.is_refused(self.request.sets, path, metadata);
        match place {
            Place::Inside => {}
            Place::Above if is_refused => {
                self.blind_above(path, host::unknown("read", &mounted()));
                return Ok(Want::NothingBelow);
            }
            Place::Above => return Ok(Want::Nothing),
            Place::Outside => return Ok(Want::NothingBelow),
        }
        let rule = self.request.sets.rule(path, metadata.kind);
        if rule == Rule::Outside {
            return Ok(Want::NothingBelow);
        }
        if let Some(error) = out_of_reach(path, is_refused) {
            self.unreadable_entry(path, error)?;
            self.set_shown(path);
            return Ok(Want::NothingBelow);
        }
        self.set_shown(path);
        let Rule::Covered { set, attributes, .. } = rule else { return Ok(Want::Nothing) };
        let want = self.want(path, metadata, set, attributes)?;
        if metadata.kind == EntryKind::Link && path == self.request.sets.roots()[self.root].path {
            self.root_is_link(path)?;
        }
        Ok(want)
    }

    fn set_shown(&mut self, path: &[u8]) {
        self.shown.clear();
        self.shown.extend_from_slice(path);
    }

    fn want(&mut self, path: &[u8], metadata: &Metadata, set: usize, attributes: Attributes) -> Result<Want, Error> {
        let (before, known) = self.take(path)?;
        if self.is_as_recorded(path, metadata, &before, known.as_ref()) {
            if let Some(known) = known {
                self.decided(path, known)?;
            }
            return Ok(Want::Nothing);
        }
        let looked = Some(*metadata);
        let entry = Entry { path: path.to_vec(), set, attributes, before, known, looked, unreadable: None };
        let want = want(metadata.kind, attributes);
        if want.is_read() {
            self.pending.push_back(entry);
            return Ok(want);
        }
        let known = self.found_state(entry, State::of_metadata(*metadata));
        self.decided(path, known)?;
        Ok(Want::Nothing)
    }

    /// Returns whether the entry needs no reading: it has the metadata with which it was recorded, which cannot hide a change, and
    /// is not due.
    fn is_as_recorded(&self, path: &[u8], metadata: &Metadata, before: &Before, known: Option<&Known>) -> bool {
        let recorded = match (known, before) {
            (Some(Known { unreadable: Some(_), .. }), _) => return false,
            (Some(known), _) => known.metadata().map(|metadata| (metadata, known.seen)),
            (None, Before::State(state)) => Some((&state.metadata, self.opened.baseline.created_time)),
            (None, Before::None | Before::Hidden | Before::Unreadable(_)) => None,
        };
        recorded.is_some_and(|(recorded, seen)| {
            recorded == metadata
                && !self.inode_times.is_racy(metadata, seen)
                && !(self.due.is_any() && self.due.has(path))
        })
    }

    /// What is known of an entry that cannot be read stays known.
    fn not_read(&mut self, entry: Entry, error: &io::Error) -> Result<(), Error> {
        let said = entry.unreadable.clone();
        let own = || self.unreadable_of(&entry.path, entry.known.as_ref(), host::unknown("read", error));
        let unreadable = said.unwrap_or_else(own);
        let path = entry.path.clone();
        let known = match self.seen(&entry) {
            Some(state) => Known { unreadable: Some(unreadable), ..self.found_state(entry, state) },
            None => blinded(&entry, unreadable, self.request.now),
        };
        self.read(&path, known)
    }

    fn unreadable_entry(&mut self, path: &[u8], error: io::Error) -> Result<(), Error> {
        let unknown = host::unknown("read", &error);
        match self.place(path)? {
            Place::Inside if self.set_of(path).is_some() => {
                self.cannot(path, unknown)?;
                self.blind = Some(path.to_vec());
            }
            Place::Above => self.blind_above(path, unknown),
            // What is below it is left out.
            Place::Inside | Place::Outside => {}
        }
        Ok(())
    }

    fn blind_above(&mut self, path: &[u8], unknown: Unknown) {
        self.blind = Some(path.to_vec());
        self.blind_above = Some((path.to_vec(), unknown));
    }

    fn set_of(&self, path: &[u8]) -> Option<(usize, Attributes)> {
        let covered = self.covered(path, EntryKind::Folder).or_else(|| self.covered(path, EntryKind::File));
        covered.or_else(|| self.above_covered(path))
    }

    /// Takes note that the entry at `path` cannot be read, or is not what is wanted.
    fn cannot(&mut self, path: &[u8], unknown: Unknown) -> Result<(), Error> {
        let Some((set, attributes)) = self.set_of(path) else { return Ok(()) };
        if self.shown.is_empty() || order(&self.shown, path).is_lt() {
            let (before, known) = self.take(path)?;
            let unreadable = self.unreadable_of(path, known.as_ref(), unknown);
            let entry = Entry { path: path.to_vec(), set, attributes, before, known, looked: None, unreadable: None };
            let known = blinded(&entry, unreadable, self.request.now);
            return self.decided(path, known);
        }
        let unreadable = self.unreadable_of(path, None, unknown);
        if let Some(entry) = self.pending.back_mut().filter(|entry| entry.path == path) {
            let since = entry.known.as_ref().and_then(|known| known.unreadable.as_ref()).map(|before| before.since);
            entry.unreadable = Some(Unreadable { since: since.unwrap_or(unreadable.since), ..unreadable });
        } else if let Some(known) = self.at_shown.last(path).or_else(|| self.at_found.last(path)) {
            let since = known.unreadable.as_ref().map_or(unreadable.since, |before| before.since);
            known.unreadable = Some(Unreadable { since, ..unreadable });
        } else if self.shown == path {
            let what = What::AsBaseline;
            let known = Known { set, is_new: false, unreadable: Some(unreadable), seen: self.request.now, what };
            return self.decided(path, known);
        } else if self.late.len() < LATE {
            self.late.insert(path.to_vec(), (set, unreadable));
        } else {
            return Err(Error::Restless);
        }
        Ok(())
    }

    /// Takes note that it cannot be told what is at `range`, or whether anything is.
    fn cannot_reach(&mut self, range: &[u8], unknown: Unknown) -> Result<(), Error> {
        let Some((set, attributes)) = self.set_of(range) else { return Ok(()) };
        let (before, known) = self.take(range)?;
        let (unreadable, is_known) = (self.unreadable_of(range, known.as_ref(), unknown), known.is_some());
        let entry = Entry { path: range.to_vec(), set, attributes, before, known, looked: None, unreadable: None };
        let known = blinded(&entry, unreadable, self.request.now);
        self.decided(range, Known { is_new: is_known && known.is_new, ..known })
    }

    /// Returns the set of an entry that is only passed on the way to what is covered.
    fn above_covered(&self, path: &[u8]) -> Option<(usize, Attributes)> {
        let is_passed = self.request.sets.rule(path, EntryKind::Folder) == Rule::Pass;
        let set = self.request.sets.roots()[self.root].members.first()?;
        is_passed.then(|| (set, Attributes::default()))
    }

    /// A scan follows no link, so that what the root leads to is only watched under a path of its own. Without one, nothing is
    /// watched where the operator wanted it.
    fn root_is_link(&mut self, path: &[u8]) -> Result<(), Error> {
        match linked(self.request, path) {
            Linked::Watched => {}
            Linked::InPart(unknown) => self.problem = Some(unknown),
            Linked::Elsewhere(unknown) => {
                self.cannot(path, unknown.clone())?;
                self.problem = Some(unknown);
            }
        }
        Ok(())
    }

    fn found_entry(&mut self, path: &[u8], read: io::Result<Scanned>) -> Result<(), Error> {
        self.stats.count(&read, self.request.progress);
        let entry = loop {
            match self.pending.pop_front() {
                Some(entry) if entry.path == path => break entry,
                Some(other) => self.not_read(other, &io::Error::other("it was not read"))?,
                None => {
                    let source = io::Error::other("an entry was read that was not asked for");
                    return Err(Error::Scan { path: PathText::from_bytes(path), source });
                }
            }
        };
        let known = match read.and_then(State::of_read) {
            Ok(state) => self.found_state(entry, state),
            // It ended after it was shown: as if it had ended before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let Some(known) = self.gone(entry.without_before(), &entry.before) else { return Ok(()) };
                known
            }
            Err(error) => return self.not_read(entry, &error),
        };
        self.read(path, known)
    }

    /// Keeps an error for whoever began the walk, which only hands on that there is one.
    fn kept<T>(&mut self, result: Result<T, Error>) -> io::Result<T> {
        result.map_err(|error| {
            self.failure = Some(error);
            io::Error::other("the scan cannot go on")
        })
    }
}

impl Entry {
    /// Returns it without what the baseline has, which is at hand.
    fn without_before(&self) -> Self {
        Self {
            path: self.path.clone(),
            set: self.set,
            attributes: self.attributes,
            before: Before::None,
            known: self.known.clone(),
            looked: self.looked,
            unreadable: None,
        }
    }
}

impl Visitor for Merge<'_> {
    fn wants(&mut self, path: &[u8], metadata: &Metadata) -> io::Result<Want> {
        let want = self.shown_entry(path, metadata);
        self.kept(want)
    }

    fn unreadable(&mut self, path: &[u8], error: io::Error) -> io::Result<()> {
        // It ended between listing and looking: as if it had ended before.
        if error.kind() == io::ErrorKind::NotFound {
            return Ok(());
        }
        let done = self.unreadable_entry(path, error);
        self.kept(done)
    }

    fn found(&mut self, path: &[u8], read: io::Result<Scanned>) -> io::Result<()> {
        let done = self.found_entry(path, read);
        self.kept(done)
    }
}

/// Returns whether a walk that ended with `error`, and did or did not show an entry, could not open its root: nothing is then known of
/// that one alone. The end of its time, which no call of the system told, ends every scan.
pub(super) fn is_of_root(error: &io::Error, is_shown: bool) -> bool {
    let is_time_over = error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none();
    host::cause(error) == Cause::Forbidden || !is_shown && !is_time_over
}

/// Returns why an entry that is shown is not looked at, nor what is below it, if so.
pub(super) fn out_of_reach(path: &[u8], is_refused: bool) -> Option<io::Error> {
    if is_refused {
        return Some(mounted());
    }
    let is_long = path.len() > limits::TEXT_BYTES;
    is_long.then(|| io::Error::new(io::ErrorKind::FileTooLarge, "its path is too long"))
}

fn mounted() -> io::Error {
    io::Error::new(io::ErrorKind::CrossesDevices, "a mount or a subvolume of its own is there")
}

/// Returns what is wanted of an entry of which `attributes` are compared.
pub(super) fn want(kind: EntryKind, attributes: Attributes) -> Want {
    let is_content = matches!(kind, EntryKind::File | EntryKind::Link) && attributes.has(Attributes::CONTENT);
    match (is_content, attributes.has(Attributes::EXTENDED)) {
        (true, _) => Want::Read,
        (false, true) => Want::Attributes,
        (false, false) => Want::Nothing,
    }
}

/// What the root that is a link leads to.
pub(super) enum Linked {
    /// To what is watched under a path of its own, as much of it as was wanted here.
    Watched,
    /// To what is watched so in part alone.
    InPart(Unknown),
    /// To what is not watched, or it cannot be told where to.
    Elsewhere(Unknown),
}

/// Returns what the root at `path`, a link, leads to.
pub(super) fn linked(request: &Request<'_>, path: &[u8]) -> Linked {
    let root = host::path_of(path);
    let target = match request.host.read_link(&root) {
        Ok(target) => target,
        Err(error) => return Linked::Elsewhere(host::unknown("read the link", &error)),
    };
    let above = root.parent().unwrap_or(Path::new("/"));
    let resolved = host::path_bytes(&place::plain(&above.join(&target)));
    let sets = request.sets;
    let unsupported =
        |more: &str| Unknown::new(Cause::Unsupported, format!("it is a link to {}{more}", target.display()));
    if !sets.roots().iter().any(|root| root.path != path && is_at_or_below(&resolved, &root.path)) {
        Linked::Elsewhere(unsupported(": watch that path"))
    } else if sets.is_whole(path) && !sets.is_whole(&resolved) {
        Linked::InPart(unsupported(", which is watched in part"))
    } else {
        Linked::Watched
    }
}
