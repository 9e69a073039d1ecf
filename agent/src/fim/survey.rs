//! Takes a baseline: reads what is covered and writes it down. What another baseline has of it is kept as it is.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

use muster_proto::fact::{Cause, PathText, Text, Unknown};

use super::{
    baseline::{self, Before, Opened, Read, Writer},
    block::Cursor,
    check::{self, Error, Request},
    draft::Draft,
    explain,
    known::{Known, Unreadable, What},
    merge::{self, Found, Linked, Stats},
    mounts::{self, Mounts},
    place::{is_at_or_below, order},
    record::State,
    scans::Scans,
    sets::{Members, Root, Rule, Sets},
    store::Name,
    tally::{self, Outcome},
    watch_set::Attributes,
};
use crate::host::{self, EntryKind, Metadata, Pace, Scanned, Visitor, Want};

/// Folders that turned out unreadable after what is in them was shown, at most.
const LATE: usize = 10_000;

/// Takes the baseline, and forgets the differences from the one before.
pub(super) fn take(request: &Request<'_>, reason: &Text) -> Result<Outcome, Error> {
    let store = request.store;
    let id = baseline::new_id().map_err(Error::of_writing(store, Name::Baseline))?;
    let mut scans = Scans::at(&id, request.sets.roots(), request.now, request.run);
    scans.databases = hex::encode(explain::database_stamp(request.host));
    let mut found = None;
    write(request, &id, reason, None, |survey| {
        for (root, scan) in request.sets.roots().iter().zip(&mut scans.roots) {
            scan.problem = survey.root(root)?;
        }
        found = Some(survey.finish()?);
        Ok(())
    })?;
    let opened = check::opened(store)?;
    let found = found.ok_or(Error::NoBaseline)?;
    tally::conclude(request, &opened, found, scans, None)
}

/// Writes a baseline that a survey makes, and puts it into force.
pub(super) fn write(
    request: &Request<'_>,
    id: &str,
    reason: &Text,
    kept: Option<&Kept<'_>>,
    scan: impl FnOnce(&mut Survey<'_, '_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut failure = None;
    let created = kept.map_or(request.now, |kept| kept.opened.baseline.created_time);
    let written = baseline::write(request.store, id, created, reason, request.sets, |writer| {
        Survey::start(request, writer, kept).and_then(|mut survey| scan(&mut survey)).map_err(|error| {
            failure = Some(error);
            io::Error::other("the scan cannot go on")
        })
    });
    match failure {
        Some(failure) => Err(failure),
        None => written.map(drop).map_err(Error::of_writing(request.store, Name::Baseline)),
    }
}

/// A baseline of which what is covered still is kept.
pub(super) struct Kept<'a> {
    pub opened: &'a Opened,
    pub sets: &'a Sets,
}

/// A survey under way.
pub(super) struct Survey<'s, 'w> {
    request: &'s Request<'s>,
    writer: &'s mut Writer<'w>,
    kept: Option<(&'s Kept<'s>, Cursor<'s>)>,
    queue: VecDeque<Item>,
    mounts: Mounts,
    /// Whether the walk of the root showed anything.
    is_shown: bool,
    /// The last path that was shown.
    shown: Vec<u8>,
    unreadable: Option<Draft>,
    late: BTreeMap<Vec<u8>, (usize, Unreadable)>,
    stats: Stats,
    problem: Option<Unknown>,
    failure: Option<Error>,
}

/// An entry on its way into the baseline.
struct Item {
    path: Vec<u8>,
    set: usize,
    members: Members,
    /// Its state, or until it is read the one that is kept if it is the same; an entry without could not be read.
    state: Option<State>,
    /// What lstat(2) said of it, where it did.
    looked: Option<Metadata>,
    /// Whether that is of the kept baseline.
    is_kept: bool,
    attributes: Attributes,
    is_waiting: bool,
    /// What is wrong with it.
    note: Option<Unknown>,
}

impl<'s, 'w> Survey<'s, 'w> {
    fn start(request: &'s Request<'s>, writer: &'s mut Writer<'w>, kept: Option<&'s Kept<'s>>) -> Result<Self, Error> {
        let store = request.store;
        let draft = Draft::start(store).map_err(Error::of_writing(store, Name::Changes))?;
        let cursor = kept.map(|kept| Ok((kept, Cursor::start(&kept.opened.blocks)?))).transpose();
        if let Some(kept) = kept {
            kept.opened.hidden.iter().for_each(|path| writer.hide(path));
        }
        Ok(Self {
            request,
            writer,
            kept: cursor.map_err(|error| Error::of_baseline(store, error))?,
            queue: VecDeque::new(),
            mounts: Mounts::default(),
            is_shown: false,
            shown: Vec::new(),
            unreadable: Some(draft),
            late: BTreeMap::new(),
            stats: Stats::default(),
            problem: None,
            failure: None,
        })
    }

    /// Reads what `root` covers. Returns why its entries are not counted, if they are not.
    pub fn root(&mut self, root: &Root) -> Result<Option<Unknown>, Error> {
        self.request.progress.enter(&root.path);
        self.shown.clear();
        self.is_shown = false;
        self.mounts.begin(root);
        let mut pace = Pace { cross_mounts: mounts::are_crossed(root), ..self.request.pace.clone() };
        if self.kept.is_some() {
            // What is kept and gone would wait for what is read ahead of it.
            pace.at_once = true;
        }
        let walked = self.request.host.walk(&host::path_of(&root.path), &pace, self);
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        match walked {
            Ok(()) => {}
            Err(error) if host::cause(&error) == Cause::Absent => {
                self.problem = Some(Unknown::new(Cause::Absent, "it does not exist"));
            }
            Err(error) if merge::is_of_root(&error, self.is_shown) => {
                self.cannot(&root.path, &error)?;
                self.problem = Some(host::unknown("open", &error));
            }
            Err(source) => return Err(Error::Scan { path: PathText::from_bytes(&root.path), source }),
        }
        self.end_waiting();
        self.keep(|path| is_at_or_below(path, &root.path))?;
        self.flush(0)?;
        Ok(self.problem.take())
    }

    /// Returns what a first scan found.
    pub fn finish(&mut self) -> Result<Found, Error> {
        let writing = Error::of_writing(self.request.store, Name::Changes);
        let none = Draft::start(self.request.store).and_then(Draft::finish).map_err(&writing)?;
        let unreadable = self.unreadable.take().map(Draft::finish).transpose().map_err(&writing)?;
        let drafts = [unreadable.ok_or(Error::Restless)?, none];
        Ok(Found { drafts, late: std::mem::take(&mut self.late), asks_again: false, stats: self.stats })
    }

    fn shown_entry(&mut self, path: &[u8], metadata: &Metadata) -> Result<Want, Error> {
        self.is_shown = true;
        self.stats.entries_seen += 1;
        self.request.progress.add_entry();
        let is_refused = self.mounts.is_refused(self.request.sets, path, metadata);
        let rule = self.request.sets.rule(path, metadata.kind);
        if rule == Rule::Outside {
            return Ok(Want::NothingBelow);
        }
        if let Some(error) = merge::out_of_reach(path, is_refused) {
            self.cannot(path, &error)?;
            return Ok(Want::NothingBelow);
        }
        let Rule::Covered { set, attributes, members } = rule else { return Ok(Want::Nothing) };
        self.flush(0)?;
        self.shown.clear();
        self.shown.extend_from_slice(path);
        let note = self.link_note(path, metadata.kind);
        let mut looked = Some(*metadata);
        let (state, is_read) = match self.kept_of(path, metadata.kind)? {
            None => (None, true),
            Some(Before::State(state)) => {
                let lacks = state.sha256.is_none() && attributes.has(Attributes::CONTENT)
                    || state.attributes.is_none() && attributes.has(Attributes::EXTENDED);
                (Some(state), lacks)
            }
            Some(Before::Unreadable(kept)) => {
                looked = kept.map(|state| state.metadata);
                (None, false)
            }
            // There was none when what covered it was taken: it is a difference.
            Some(Before::None | Before::Hidden) => return Ok(Want::Nothing),
        };
        let want = if is_read { merge::want(metadata.kind, attributes) } else { Want::Nothing };
        let (is_waiting, is_kept) = (want.is_read(), state.is_some());
        // What is kept stays as it is.
        let is_told = is_read && !is_waiting && !is_kept;
        let state = if is_told { Some(State::of_metadata(*metadata)) } else { state };
        let path = path.to_vec();
        self.queue.push_back(Item { path, set, members, state, looked, is_kept, attributes, is_waiting, note });
        Ok(want)
    }

    /// A root that is a link is noted unless what it leads to is watched under a path of its own.
    fn link_note(&mut self, path: &[u8], kind: EntryKind) -> Option<Unknown> {
        if kind != EntryKind::Link || !self.request.sets.roots().iter().any(|root| root.path == path) {
            return None;
        }
        match merge::linked(self.request, path) {
            Linked::Watched => None,
            Linked::InPart(unknown) => {
                self.problem = Some(unknown);
                None
            }
            Linked::Elsewhere(unknown) => {
                self.problem = Some(unknown.clone());
                Some(unknown)
            }
        }
    }

    /// Returns what the kept baseline has of `path`; `None` when its sets did not cover it.
    fn kept_of(&mut self, path: &[u8], kind: EntryKind) -> Result<Option<Before>, Error> {
        self.keep(|kept| order(kept, path).is_lt())?;
        let Some((kept, cursor)) = &mut self.kept else { return Ok(None) };
        if !matches!(kept.sets.rule(path, kind), Rule::Covered { .. }) {
            return Ok(None);
        }
        if cursor.path() != Some(path) {
            return Ok(Some(Before::None));
        }
        let taken = baseline::before(cursor).and_then(|before| cursor.advance().map(|()| before));
        taken.map(Some).map_err(|error| Error::of_baseline(self.request.store, error))
    }

    /// Keeps the entries of the kept baseline whose paths are told, and that are covered still.
    fn keep(&mut self, is_kept: impl Fn(&[u8]) -> bool) -> Result<(), Error> {
        let Some((_, cursor)) = &mut self.kept else { return Ok(()) };
        let failed = |error| Error::of_baseline(self.request.store, error);
        while let Some(path) = cursor.path().filter(|path| is_kept(path)) {
            let (state, looked) = match baseline::before(cursor).map_err(failed)? {
                Before::State(state) => (Some(state), None),
                Before::Unreadable(looked) => (None, looked.map(|state| state.metadata)),
                Before::None | Before::Hidden => (None, None),
            };
            let kind = state.as_ref().map_or(EntryKind::Folder, |state| state.metadata.kind);
            if let Rule::Covered { set, attributes, members } = self.request.sets.rule(path, kind) {
                let path = path.to_vec();
                let is_kept = state.is_some();
                let item =
                    Item { path, set, members, state, looked, is_kept, attributes, is_waiting: false, note: None };
                self.queue.push_back(item);
            }
            cursor.advance().map_err(failed)?;
            flush(&mut self.queue, self.writer, self.unreadable.as_mut(), self.request, 0)?;
        }
        Ok(())
    }

    /// Takes note of an entry that cannot be read.
    fn cannot(&mut self, path: &[u8], error: &io::Error) -> Result<(), Error> {
        let Rule::Covered { set, attributes, members } = self.request.sets.rule(path, EntryKind::Folder) else {
            // What is only passed is not among the entries, but nothing is known of what is below it.
            self.writer.hide(path);
            return Ok(());
        };
        let unknown = host::unknown("read", error);
        if self.shown.is_empty() || order(&self.shown, path).is_lt() {
            self.flush(0)?;
            let (state, looked) = match self.kept_of(path, EntryKind::Folder)? {
                Some(Before::State(state)) => (Some(state), None),
                Some(Before::None | Before::Hidden) => return Ok(()),
                Some(Before::Unreadable(looked)) => (None, looked.map(|state| state.metadata)),
                None => (None, None),
            };
            let (path, is_kept, note, is_waiting) = (path.to_vec(), state.is_some(), Some(unknown), false);
            self.queue.push_back(Item { path, set, members, state, looked, is_kept, attributes, is_waiting, note });
        } else if let Some(item) = self.queue.back_mut().filter(|item| item.path == path) {
            (item.is_waiting, item.note) = (false, Some(unknown));
            if !item.is_kept {
                item.state = None;
            }
        } else {
            self.writer.hide(path);
            self.late.insert(path.to_vec(), (set, Unreadable { unknown, since: self.request.now }));
            if self.late.len() > LATE {
                return Err(Error::Restless);
            }
        }
        Ok(())
    }

    /// Takes note that an entry is not there any more. What is kept of it stays: that it is gone is a difference.
    fn vanished(&mut self, path: &[u8]) {
        let is_it = |item: &mut Item| item.is_waiting && item.path == path;
        if let Some(item) = self.queue.pop_back_if(is_it).filter(|item| item.is_kept) {
            self.queue.push_back(Item { is_waiting: false, ..item });
        }
    }

    fn found_entry(&mut self, path: &[u8], read: io::Result<Scanned>) -> Result<(), Error> {
        let Some(item) = self.queue.iter_mut().find(|item| item.is_waiting && item.path == path) else {
            // It was said to be unreadable after it was shown.
            return Ok(());
        };
        item.is_waiting = false;
        self.stats.count(&read, self.request.progress);
        match read.and_then(State::of_read) {
            Ok(state) => {
                // What differs from what is kept stays a difference.
                let is_same = item.state.as_ref().is_none_or(|kept| kept.difference(&state, item.attributes).is_none());
                if is_same {
                    item.state = Some(state);
                }
            }
            Err(error) if item.state.is_none() => item.note = Some(host::unknown("read", &error)),
            Err(_) => {}
        }
        self.flush(1)
    }

    /// What was asked for and did not come was not read.
    fn end_waiting(&mut self) {
        for item in self.queue.iter_mut().filter(|item| item.is_waiting) {
            item.is_waiting = false;
            item.note = Some(Unknown::new(Cause::Failed, "it was not read"));
        }
    }

    /// Writes down what is decided, but for the last `left` entries.
    fn flush(&mut self, left: usize) -> Result<(), Error> {
        flush(&mut self.queue, self.writer, self.unreadable.as_mut(), self.request, left)
    }

    fn kept_result<T>(&mut self, result: Result<T, Error>) -> io::Result<T> {
        result.map_err(|error| {
            self.failure = Some(error);
            io::Error::other("the scan cannot go on")
        })
    }
}

fn flush(
    queue: &mut VecDeque<Item>,
    writer: &mut Writer<'_>,
    mut unreadable: Option<&mut Draft>,
    request: &Request<'_>,
    left: usize,
) -> Result<(), Error> {
    while queue.len() > left
        && let Some(item) = queue.pop_front_if(|item| !item.is_waiting)
    {
        let read = item.state.as_ref().map_or(Read::Not(item.looked), Read::State);
        let written = writer.add(&item.path, item.members, read);
        written.map_err(Error::of_writing(request.store, Name::Baseline))?;
        if let (Some(unknown), Some(draft)) = (item.note, unreadable.as_deref_mut()) {
            let unreadable = Some(Unreadable { unknown, since: request.now });
            let what = What::AsBaseline;
            let known = Known { set: item.set, is_new: false, unreadable, seen: request.now, what };
            draft.add(&item.path, known).map_err(Error::of_writing(request.store, Name::Changes))?;
        }
    }
    Ok(())
}

impl Visitor for Survey<'_, '_> {
    fn wants(&mut self, path: &[u8], metadata: &Metadata) -> io::Result<Want> {
        let want = self.shown_entry(path, metadata);
        self.kept_result(want)
    }

    fn unreadable(&mut self, path: &[u8], error: io::Error) -> io::Result<()> {
        // It ended between listing and looking: as if it had ended before.
        if error.kind() == io::ErrorKind::NotFound {
            self.vanished(path);
            return Ok(());
        }
        let done = self.cannot(path, &error);
        self.kept_result(done)
    }

    fn found(&mut self, path: &[u8], read: io::Result<Scanned>) -> io::Result<()> {
        let done = self.found_entry(path, read);
        self.kept_result(done)
    }
}
