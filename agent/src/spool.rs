//! The durable queue of sealed reports, and the head of their chain.
//!
//! ```text
//! spool/
//!   state.json                     epoch, last place used, last place durable, nonce, checkpoint (see `state`)
//!   00000000000000000001.seg       records from that sequence on (see `frame`)
//!   reserve                        room for the state on a full disk: without it nothing could be acknowledged, and so freed
//!   set-aside/                     what an unusable state or damage left behind, for people; one such folder is kept
//! ```
//!
//! A report is *taken* when its record and then the state that names its place are synced; only then may it be sent. So whatever
//! lies behind the state's last place was never sent and may be cut off, and whatever is missing before it was used up and is named
//! as lost. No sequence is used twice. Damage among what is durable costs nothing of what is not.
//!
//! The newest segment stays although everything in it is durable, so that a person can read what was sent last.

mod files;
mod frame;
mod state;

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use muster_proto::{
    id::{Epoch, ReportSeq},
    report::Lost,
    seal,
    time::Timestamp,
};

pub use files::{Disk, Files, replace};
pub use state::{Contradiction, Place, Profile, Run, State};

/// Name of the file that keeps room on the disk for the state.
const RESERVE: &str = "reserve";
/// Its size; it counts as the spool's.
const RESERVE_BYTES: usize = 64 * 1024;

/// The spool cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no room inside the bound. Nothing was taken.
    #[error("spool is full")]
    Full,
    /// There is no room on the disk, or the quota is used up. Nothing was taken.
    #[error("no space left on the disk of {}; free some", path.display())]
    DiskFull {
        /// What was to be written.
        path: PathBuf,
    },
    /// A report is not one that the contract allows, so that no collector would ever take it. Nothing was taken.
    #[error("report is not one that the contract allows: {why}")]
    Unfit {
        /// What is wrong with it.
        why: String,
    },
    /// Reading or writing failed. Nothing was taken.
    #[error("failed to {act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// What was found when the spool was opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// Nothing: a new chain begins.
    New,
    /// The chain as it was left.
    Whole,
    /// The chain, but without these places, which nobody has.
    Damaged {
        /// Which.
        lost: Lost,
        /// When the last report before them was sealed, host's clock, as far as it is known.
        since: Option<Timestamp>,
    },
    /// Something that no chain can go on from: a new chain begins.
    Unusable {
        /// What is known of the chain before: its epoch and the last place in it.
        previous: Option<(Epoch, u64)>,
        /// Why, in words.
        why: String,
    },
}

/// The durable queue.
pub struct Spool {
    folder: PathBuf,
    files: Box<dyn Files>,
    bound_bytes: u64,
    segments: VecDeque<Segment>,
    state: State,
    has_reserve: bool,
    /// Where the next read is likely to begin.
    cursor: Option<Cursor>,
}

#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    first: ReportSeq,
    /// `None`: a header alone.
    last: Option<ReportSeq>,
    bytes: u64,
}

/// What was found in a segment.
struct Scan {
    /// Records that are good, and where they are with their heads.
    kept: Vec<(ReportSeq, Range<usize>)>,
    /// Whether there is something among or after them that was taken once.
    is_damaged: bool,
    /// Bytes in all.
    bytes: usize,
}

/// Where one start puts what it takes out of damaged segments; what an earlier one put there gives way.
struct Aside {
    folder: PathBuf,
    is_ready: bool,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// Everything up to here was read.
    after: ReportSeq,
    segment: ReportSeq,
    offset: u64,
}

/// What waits in the spool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backlog {
    /// Places that are not durable yet, lost ones included.
    pub reports: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

impl Spool {
    /// Opens the spool in `folder`, which is made if it is not there. `new_epoch` gives 16 random bytes when a chain must begin.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the folder cannot be read or written. Damage is not an error: it is [`Found`].
    pub fn open(
        folder: &Path,
        bound_bytes: u64,
        mut files: Box<dyn Files>,
        new_epoch: impl FnOnce() -> Epoch,
    ) -> Result<(Self, Found), Error> {
        std::fs::create_dir_all(folder).map_err(io_error("make folder", folder))?;
        let mut paths = segment_paths(folder)?;
        let state_path = folder.join("state.json");
        let (state, mut found) = match std::fs::read(&state_path) {
            Ok(bytes) => match State::decode(&bytes) {
                Ok(state) => (state, Found::Whole),
                Err(why) => {
                    let why = format!("{} is not usable: {why}", state_path.display());
                    (State::new(new_epoch()), Found::Unusable { previous: last_place(&paths), why })
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound && paths.is_empty() => {
                (State::new(new_epoch()), Found::New)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let why = format!("{} is missing", state_path.display());
                (State::new(new_epoch()), Found::Unusable { previous: last_place(&paths), why })
            }
            Err(source) => return Err(Error::Io { act: "read", path: state_path, source }),
        };
        if found != Found::Whole {
            // The state goes first: a crash in between leaves segments of another epoch, which the next start sets aside.
            replace(files.as_mut(), &state_path, &state.encode()).map_err(io_error("write", &state_path))?;
        }
        let mut aside = Aside::new(folder);
        set_aside_foreign(files.as_mut(), &mut aside, &mut paths, state.epoch)?;
        let mut spool = Self {
            folder: folder.to_owned(),
            files,
            bound_bytes,
            segments: VecDeque::new(),
            state,
            has_reserve: false,
            cursor: None,
        };
        if let Some((lost, since)) = spool.recover(&paths, &mut aside)? {
            found = Found::Damaged { lost, since };
        }
        spool.restore_reserve();
        Ok((spool, found))
    }

    /// Returns the state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns what waits.
    pub fn backlog(&self) -> Backlog {
        let sealed = self.state.sealed.map_or(0, |place| place.seq.number());
        let durable = self.state.durable.map_or(0, |place| place.seq.number());
        Backlog { reports: sealed.saturating_sub(durable), bytes: self.bytes() }
    }

    /// Returns the place of the newest record that is there.
    pub fn newest(&self) -> Option<ReportSeq> {
        self.segments.iter().filter_map(|segment| segment.last).max()
    }

    /// Returns whether records of reports of these sizes would fit. What is durable is kept for people alone and gives way.
    pub fn has_room(&self, report_bytes: impl Iterator<Item = usize>) -> bool {
        let needed: u64 = report_bytes.map(|bytes| (bytes + frame::RECORD_BYTES) as u64).sum();
        let kept: u64 =
            self.segments.iter().filter(|segment| !self.is_durable(segment)).map(|segment| segment.bytes).sum();
        kept + needed + (frame::HEADER_BYTES + RESERVE_BYTES) as u64 <= self.bound_bytes
    }

    /// Takes sealed reports, which go on from the last place: all of them or none. `change` may set the rest of the state, which
    /// is written with them.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] or [`Error::DiskFull`] when there is no room, [`Error::Io`] when writing fails. Nothing is taken then.
    pub fn take(&mut self, sealed: &[Vec<u8>], last: Place, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        if !self.has_room(sealed.iter().map(Vec::len)) {
            return Err(Error::Full);
        }
        let needed: usize = sealed.iter().map(|report| report.len() + frame::RECORD_BYTES).sum();
        if self.bytes() + (needed + frame::HEADER_BYTES + RESERVE_BYTES) as u64 > self.bound_bytes {
            self.drop_durable()?;
        }
        let count = sealed.len() as u64;
        let first = ReportSeq::new(last.seq.number() + 1 - count).expect("reports go on from the last place");
        let mut bytes = Vec::with_capacity(needed);
        let mut seq = first;
        for report in sealed {
            frame::push(&mut bytes, seq, report);
            seq = seq.next();
        }
        let mut state = self.state.clone();
        state.sealed = Some(last);
        change(&mut state);
        match self.put_records(first, last.seq, &bytes, state.clone()) {
            // What is durable is kept for people alone and gives way.
            Err(Error::DiskFull { .. }) if self.drop_durable()? => self.put_records(first, last.seq, &bytes, state),
            other => other,
        }
    }

    /// Changes what the state says beside the chain, durably.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be written; the state is then as before.
    pub fn update(&mut self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        let mut state = self.state.clone();
        change(&mut state);
        self.put_state_from_reserve(state)
    }

    /// Takes note that a verified checkpoint covers everything up to `durable`, and deletes what nobody needs any more. Going back
    /// is ignored.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the state cannot be written; nothing is deleted then.
    pub fn acknowledge(&mut self, durable: Place, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        let mut state = self.state.clone();
        if state.durable.is_none_or(|before| before.seq < durable.seq) {
            state.durable = Some(durable);
            state.durable_time = self.sealed_at(durable.seq);
        }
        change(&mut state);
        if state != self.state {
            self.put_state_from_reserve(state)?;
        }
        while self.segments.len() > 1 && self.is_durable(&self.segments[0]) {
            self.files.remove(&self.segments[0].path).map_err(io_error("remove", &self.segments[0].path))?;
            self.segments.pop_front();
        }
        if !self.has_reserve {
            self.restore_reserve();
        }
        Ok(())
    }

    /// Returns records after `after`, in order, at most about `limit_bytes` of them but at least one if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a segment cannot be read, or does not hold what was written into it.
    pub fn read_after(
        &mut self,
        after: Option<ReportSeq>,
        limit_bytes: usize,
    ) -> Result<Vec<(ReportSeq, Vec<u8>)>, Error> {
        let is_after = |seq: ReportSeq| after.is_none_or(|after| seq > after);
        let Some(segment) = self.segments.iter().find(|segment| segment.last.is_some_and(is_after)).cloned() else {
            return Ok(Vec::new());
        };
        let start = match self.cursor {
            Some(cursor) if cursor.segment == segment.first && Some(cursor.after) == after => cursor.offset,
            _ => frame::HEADER_BYTES as u64,
        };
        let bytes = read_from(&segment.path, start).map_err(io_error("read", &segment.path))?;
        let mut out = Vec::new();
        let mut total = 0;
        for record in frame::records(&bytes, 0) {
            if segment.last.is_some_and(|last| record.seq > last) || (!out.is_empty() && total >= limit_bytes) {
                break;
            }
            if !is_after(record.seq) {
                continue;
            }
            total += record.bytes.len();
            self.cursor =
                Some(Cursor { after: record.seq, segment: segment.first, offset: start + record.bytes.end as u64 });
            out.push((record.seq, bytes[record.bytes].to_vec()));
        }
        if out.is_empty() {
            let source = io::Error::new(io::ErrorKind::InvalidData, "a record that was written is damaged");
            return Err(Error::Io { act: "read", path: segment.path, source });
        }
        Ok(out)
    }

    /// Ends the chain and begins another: what is left of the old one is set aside.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the new state cannot be written; the old chain goes on then.
    pub fn begin_epoch(&mut self, epoch: Epoch) -> Result<(), Error> {
        let mut state = State::new(epoch);
        // These are the agent's and the collector's, not the chain's.
        state.session_nonce = self.state.session_nonce.clone();
        state.checkpoint = self.state.checkpoint.clone();
        state.proven = self.state.proven.clone();
        state.contradiction = self.state.contradiction.clone();
        state.profile = self.state.profile.clone();
        state.run = self.state.run.clone();
        self.put_state_from_reserve(state)?;
        let mut paths = self.segments.drain(..).map(|segment| segment.path).collect();
        self.cursor = None;
        set_aside_foreign(self.files.as_mut(), &mut Aside::new(&self.folder), &mut paths, epoch)
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Returns when the report at `seq` was sealed; `None` when it is not here.
    fn sealed_at(&mut self, seq: ReportSeq) -> Option<Timestamp> {
        let cursor = self.cursor;
        let records = self.read_after(ReportSeq::new(seq.number() - 1), 1);
        // The reader that sends goes on where it was.
        self.cursor = cursor;
        let (found, sealed) = records.ok()?.pop()?;
        if found == seq { observed_of(&sealed) } else { None }
    }

    fn segment_bytes(&self) -> u64 {
        (self.bound_bytes / 8).min(1 << 20)
    }

    /// Writes records of places up to `last`, then the state that names them.
    fn put_records(&mut self, first: ReportSeq, last: ReportSeq, bytes: &[u8], state: State) -> Result<(), Error> {
        self.roll(first, bytes.len() as u64)?;
        let segment = self.segments.back().cloned().expect("there is a segment after rolling");
        self.write_records(&segment, bytes)?;
        if let Err(error) = self.put_state(state) {
            // The state may be on disk or not. If it is, the next start finds these places used up; here they are not taken.
            self.cut(&segment)?;
            return Err(error);
        }
        let segment = self.segments.back_mut().expect("there is a segment after rolling");
        segment.last = Some(last);
        segment.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes the state; on a full disk, into the room of the reserve.
    fn put_state_from_reserve(&mut self, state: State) -> Result<(), Error> {
        match self.put_state(state.clone()) {
            Err(Error::DiskFull { .. }) if self.has_reserve => {
                let path = self.folder.join(RESERVE);
                self.files.remove(&path).map_err(io_error("remove", &path))?;
                self.has_reserve = false;
                self.put_state(state)
            }
            other => other,
        }
    }

    /// Makes the reserve if there is room for it: a full disk does without until something is freed.
    fn restore_reserve(&mut self) {
        let path = self.folder.join(RESERVE);
        self.has_reserve = std::fs::metadata(&path).is_ok_and(|reserve| reserve.len() == RESERVE_BYTES as u64)
            || replace(self.files.as_mut(), &path, &[0; RESERVE_BYTES]).is_ok();
    }

    fn put_state(&mut self, state: State) -> Result<(), Error> {
        let path = self.folder.join("state.json");
        replace(self.files.as_mut(), &path, &state.encode()).map_err(full_or("write", &path))?;
        self.state = state;
        Ok(())
    }

    /// Reads every segment, cuts off what was never taken or does not go on, and returns what was taken and is not there, with the
    /// time of the last report before it.
    fn recover(&mut self, paths: &[PathBuf], aside: &mut Aside) -> Result<Option<(Lost, Option<Timestamp>)>, Error> {
        let mut whole: Option<(Place, Option<Timestamp>)> = None;
        let mut scans = Vec::new();
        for path in paths {
            let bytes = std::fs::read(path).map_err(io_error("read", path))?;
            scans.push(self.scan(&bytes, &mut whole));
        }
        let durable = self.state.durable.map(|place| (place, self.state.durable_time));
        let there = [whole, durable].into_iter().flatten().max_by_key(|(place, _)| place.seq);
        let lost =
            self.state.sealed.filter(|sealed| there.is_none_or(|(there, _)| there.seq < sealed.seq)).map(|sealed| {
                let lost = Lost {
                    first: there.map_or(ReportSeq::FIRST, |(there, _)| there.seq.next()),
                    last: sealed.seq,
                    digest_before: there.map(|(there, _)| there.digest),
                };
                (lost, there.and_then(|(_, at)| at))
            });
        for (path, scan) in paths.iter().zip(scans) {
            self.mend(path, scan, lost.is_some(), aside)?;
        }
        Ok(lost)
    }

    /// Finds the records of a segment that go on from `whole`, which moves on with them. Damage among what is durable is stepped over.
    fn scan(&self, bytes: &[u8], whole: &mut Option<(Place, Option<Timestamp>)>) -> Scan {
        let mut scan = Scan { kept: Vec::new(), is_damaged: false, bytes: bytes.len() };
        let mut offset = frame::HEADER_BYTES;
        while let Some(record) = frame::find_record(bytes, offset) {
            let report = &bytes[record.bytes.clone()];
            let is_next = self.goes_on(whole.map(|(place, _)| place), record.seq, report);
            let Some(sealed) = seal::decode_sealed(report).filter(|_| is_next) else {
                // What was taken and is whole, but cannot be sent any more, is worth a copy; what was never taken is not.
                scan.is_damaged |= self.state.sealed.is_some_and(|sealed| record.seq <= sealed.seq);
                offset = record.bytes.end;
                continue;
            };
            let start = record.bytes.start - frame::RECORD_BYTES;
            scan.is_damaged |= start != offset;
            *whole = Some((Place { seq: record.seq, digest: seal::sealed_digest(&sealed) }, observed_of(report)));
            offset = record.bytes.end;
            scan.kept.push((record.seq, start..offset));
        }
        scan
    }

    /// Makes a segment hold exactly what was found good in it. What is taken out of it is first set aside, unless it was never taken.
    fn mend(&mut self, path: &Path, scan: Scan, has_lost: bool, aside: &mut Aside) -> Result<(), Error> {
        let (Some((first, _)), Some((last, end))) = (scan.kept.first(), scan.kept.last()) else {
            if scan.is_damaged || (has_lost && scan.bytes > frame::HEADER_BYTES) {
                aside.keep(path)?;
            }
            return self.files.remove(path).map_err(io_error("remove", path));
        };
        let (first, last, end) = (*first, *last, end.end);
        let mut len = end;
        if scan.is_damaged || (has_lost && end < scan.bytes) {
            aside.keep(path)?;
            let bytes = std::fs::read(path).map_err(io_error("read", path))?;
            let mut mended = frame::header(self.state.epoch).to_vec();
            scan.kept.iter().for_each(|(_, range)| mended.extend_from_slice(&bytes[range.clone()]));
            // Another file takes the name: the one that was set aside keeps its bytes.
            replace(self.files.as_mut(), path, &mended).map_err(io_error("mend", path))?;
            len = mended.len();
        } else if end < scan.bytes {
            self.files.truncate(path, end as u64).map_err(io_error("cut", path))?;
            self.files.sync(path).map_err(io_error("sync", path))?;
        }
        self.segments.push_back(Segment { path: path.to_owned(), first, last: Some(last), bytes: len as u64 });
        Ok(())
    }

    /// Returns whether the record `seq` goes on from `whole`: it was taken, and nothing between them is missing that is not durable
    /// or declared lost.
    fn goes_on(&self, whole: Option<Place>, seq: ReportSeq, sealed_report: &[u8]) -> bool {
        if self.state.sealed.is_none_or(|sealed| seq > sealed.seq) {
            return false;
        }
        let expected = whole.map_or(ReportSeq::FIRST, |whole| whole.seq.next());
        let after_durable = self.state.durable.map_or(ReportSeq::FIRST, |durable| durable.seq.next());
        seq == expected
            || (seq > expected
                && (seq <= after_durable
                    || lost_of(sealed_report)
                        .is_some_and(|lost| lost.first <= expected.max(after_durable) && lost.last.next() == seq)))
    }

    /// Opens another segment when the newest has reached its size, or there is none.
    fn roll(&mut self, first: ReportSeq, more_bytes: u64) -> Result<(), Error> {
        if let Some(newest) = self.segments.back()
            && (newest.last.is_none() || newest.bytes + more_bytes <= self.segment_bytes())
        {
            return Ok(());
        }
        let path = self.folder.join(format!("{:020}.seg", first.number()));
        let header = frame::header(self.state.epoch);
        self.files.remove(&path).map_err(io_error("remove", &path))?;
        self.files.write_at(&path, 0, &header).map_err(full_or("write", &path))?;
        self.files.sync_folder(&self.folder).map_err(full_or("sync", &self.folder))?;
        self.segments.push_back(Segment { path, first, last: None, bytes: header.len() as u64 });
        Ok(())
    }

    fn write_records(&mut self, segment: &Segment, bytes: &[u8]) -> Result<(), Error> {
        let written = self
            .files
            .write_at(&segment.path, segment.bytes, bytes)
            .and_then(|()| self.files.sync(&segment.path))
            .map_err(full_or("write", &segment.path));
        if written.is_err() {
            self.cut(segment)?;
        }
        written
    }

    /// Cuts off what was not taken. If that fails too, the next write goes over it, and the next start cuts it off.
    fn cut(&mut self, segment: &Segment) -> Result<(), Error> {
        self.files.truncate(&segment.path, segment.bytes).map_err(io_error("cut", &segment.path))
    }

    fn is_durable(&self, segment: &Segment) -> bool {
        segment.last.is_none_or(|last| self.state.durable.is_some_and(|durable| last <= durable.seq))
    }

    /// Frees the segments of which everything is durable, also the newest. Returns whether there were any.
    fn drop_durable(&mut self) -> Result<bool, Error> {
        let before = self.segments.len();
        while let Some(segment) = self.segments.front()
            && self.is_durable(segment)
        {
            self.files.remove(&segment.path).map_err(io_error("remove", &segment.path))?;
            self.segments.pop_front();
        }
        Ok(self.segments.len() < before)
    }
}

/// Returns the records of the segments in `folder`, oldest first, without changing anything: for those who look while the agent runs.
///
/// # Errors
///
/// [`Error::Io`] when a file cannot be read. What is damaged or being written is left out.
pub fn peek(folder: &Path, mut each: impl FnMut(ReportSeq, &[u8])) -> Result<(), Error> {
    for path in segment_paths(folder)? {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // Deleted since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::Io { act: "read", path, source }),
        };
        for record in frame::records(&bytes, frame::HEADER_BYTES) {
            each(record.seq, &bytes[record.bytes]);
        }
    }
    Ok(())
}

/// Returns the state in `folder`, or `None` when there is no usable one.
pub fn peek_state(folder: &Path) -> Option<State> {
    State::decode(&std::fs::read(folder.join("state.json")).ok()?).ok()
}

/// Returns when a sealed report was sealed, host's clock.
pub fn observed_of(sealed: &[u8]) -> Option<Timestamp> {
    let sealed = seal::decode_sealed(sealed)?;
    Some(muster_proto::report::Report::decode(&sealed.report).ok()?.observed)
}

/// Returns the places that a sealed report declares lost.
pub fn lost_of(sealed: &[u8]) -> Option<Lost> {
    let sealed = seal::decode_sealed(sealed)?;
    match muster_proto::report::Report::decode(&sealed.report).ok()?.body {
        muster_proto::report::Body::Gap(gap) => gap.lost,
        _ => None,
    }
}

fn segment_paths(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(folder).map_err(io_error("list", folder))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(io_error("list", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            paths.push(path);
        }
    }
    // Twenty digits: order of name is order of sequence.
    paths.sort();
    Ok(paths)
}

/// Returns epoch and last readable place of segments whose state is gone.
fn last_place(paths: &[PathBuf]) -> Option<(Epoch, u64)> {
    let bytes = std::fs::read(paths.last()?).ok()?;
    let last = frame::records(&bytes, frame::HEADER_BYTES).last().map_or(0, |record| record.seq.number());
    Some((frame::epoch_of(&bytes)?, last))
}

/// Moves segments of another epoch into `set-aside`, in place of what was there.
fn set_aside_foreign(
    files: &mut dyn Files,
    aside: &mut Aside,
    paths: &mut Vec<PathBuf>,
    epoch: Epoch,
) -> Result<(), Error> {
    let mut foreign = Vec::new();
    for path in std::mem::take(paths) {
        let head = read_head(&path).map_err(io_error("read", &path))?;
        // A header cut short is of a segment that was being made: the recovery removes it.
        match frame::epoch_of(&head) {
            Some(found) if found != epoch => foreign.push(path),
            Some(_) | None => paths.push(path),
        }
    }
    for path in foreign {
        files.rename(&path, &aside.place(&path)?).map_err(io_error("set aside", &path))?;
    }
    Ok(())
}

impl Aside {
    fn new(spool: &Path) -> Self {
        Self { folder: spool.join("set-aside"), is_ready: false }
    }

    /// Returns where the file at `path` goes, in a folder that is there.
    fn place(&mut self, path: &Path) -> Result<PathBuf, Error> {
        if !self.is_ready {
            if self.folder.exists() {
                std::fs::remove_dir_all(&self.folder).map_err(io_error("remove", &self.folder))?;
            }
            std::fs::create_dir(&self.folder).map_err(io_error("make folder", &self.folder))?;
            self.is_ready = true;
        }
        Ok(self.folder.join(path.file_name().expect("a listed file has a name")))
    }

    /// Keeps the file at `path` under another name too, which costs no room on the disk.
    fn keep(&mut self, path: &Path) -> Result<(), Error> {
        tracing::warn!(path = %path.display(), "a part of the spool is damaged; a copy is set aside");
        std::fs::hard_link(path, self.place(path)?).map_err(io_error("set aside", path))
    }
}

fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;

    let mut head = Vec::with_capacity(frame::HEADER_BYTES);
    std::fs::File::open(path)?.take(frame::HEADER_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _};

    let mut file = std::fs::File::open(path)?;
    file.seek(io::SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn io_error(act: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { act, path: path.clone(), source }
}

/// As [`io_error`], but a full disk or quota is [`Error::DiskFull`].
fn full_or(act: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path: path.clone() },
        _ => Error::Io { act, path: path.clone(), source },
    }
}

#[cfg(test)]
pub(crate) mod tests;
