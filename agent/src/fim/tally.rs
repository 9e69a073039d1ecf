//! Puts what a scan found into force, and counts it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io::{self, Write},
};

use muster_proto::{
    fact::{
        Baseline, Cause, ExplainedChanges, Explanation, FileChange, FileIntegrity, PathText, Reading, Text, Unknown,
        UnreadablePath, WatchSet, WatchState, WatchedPath,
    },
    limits,
};
use sha2::{Digest as _, Sha256};

use super::{
    baseline::Opened,
    block::{self, Digest},
    check::{Error, Request},
    found::Records,
    known::{self, Difference, Header, Known, What},
    merge::{Found, Stats},
    place::is_at_or_below,
    scans::Scans,
    sets::{Members, Rule},
    shares::{Part, Shares},
    store::Name,
    watch_set::Attributes,
};
use crate::host::EntryKind;

/// Groups of explained differences that are told apart, at most.
const GROUPS: usize = 50_000;
/// Bytes of a usual difference, of a group of explained ones, and of an entry that could not be read: a fact takes as many as it
/// lists of these, and of larger ones fewer.
const CHANGE_BYTES: usize = 960;
const GROUP_BYTES: usize = 192;
const UNREADABLE_BYTES: usize = 1280;
/// Bytes of the fields beside texts, at most, of what is counted by its texts.
const FIELDS_BYTES: usize = 64;
/// Bytes that paths, sets, baseline and counts of a fact have at least.
const REST_BYTES: usize = 128 * 1024;
const _: () = assert!(
    limits::FILE_CHANGES * CHANGE_BYTES
        + limits::EXPLAINED_CHANGES * GROUP_BYTES
        + 2 * limits::UNREADABLE_PATHS * UNREADABLE_BYTES
        + REST_BYTES
        <= limits::FACT_BYTES
);

/// What a scan came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What files were compared with.
    pub baseline: Baseline,
    /// The roots, sorted.
    pub paths: Vec<WatchedPath>,
    /// Entries of all roots.
    pub entries: u64,
    /// Entries that could not be read, sorted, so many as a fact takes.
    pub unreadable: Vec<UnreadablePath>,
    /// How many there are.
    pub unreadable_total: u64,
    /// Differences that nothing explains, sorted, so many as a fact takes.
    pub changes: Vec<FileChange>,
    /// How many there are.
    pub changes_total: u64,
    /// What explains differences, sorted, so many as a fact takes.
    pub explained: Vec<ExplainedChanges>,
    /// How many such groups there are.
    pub explained_groups_total: u64,
    /// How many differences are explained.
    pub explained_total: u64,
    /// The sets with what each counts, sorted by name.
    pub sets: Vec<WatchSet>,
    /// Digest of the watched state.
    pub state_digest: Digest,
    /// Within how many seconds every file is read again; 0 when no such time is set.
    pub reread_seconds: u64,
    /// Whether that was kept; false where no time is set, since scans then leave out what looks unchanged.
    pub reread_in_time: Option<Reading<bool>>,
    /// What the scan did.
    pub stats: Stats,
}

impl Outcome {
    /// Returns the fact, when changes are noticed as `watch` says.
    pub fn fact(self, watch: WatchState) -> FileIntegrity {
        FileIntegrity {
            paths: self.paths,
            baseline: self.baseline,
            entries: self.entries,
            unreadable: self.unreadable,
            unreadable_total: self.unreadable_total,
            changes: self.changes,
            changes_total: self.changes_total,
            explained_total: self.explained_total,
            watch,
            sets: self.sets,
            explained: self.explained,
            explained_groups_total: self.explained_groups_total,
            folders_live: 0,
            folders_scan_only: 0,
            scan_only: Vec::new(),
            scan_only_total: 0,
            reread_seconds: self.reread_seconds,
            reread_in_time: self.reread_in_time,
            state_digest: Text::new(&hex::encode(self.state_digest)),
        }
    }
}

/// Looks for explanations of what is new, keeps what is known for the next scan, and counts it. `digest` is the one of the file
/// that is to be replaced.
pub(super) fn conclude(
    request: &Request<'_>,
    opened: &Opened,
    found: Found,
    mut scans: Scans,
    digest: Option<Digest>,
) -> Result<Outcome, Error> {
    let store = request.store;
    let stats = found.stats;
    let mut tally = Tally::start(request, opened);
    let mut records = Records::start(request, found);
    let header = Header { baselines: vec![opened.baseline.id.to_string()] };
    let written = store.replace_if_other(Name::Changes, digest, |out| {
        write(out, &header, |writer| {
            while let Some((path, known)) = records.next()? {
                tally.add(&path, &known);
                writer.add(&path, &known.encode())?;
            }
            Ok(())
        })
    });
    written.map_err(Error::of_writing(store, Name::Changes))?;
    if !records.end() {
        scans.databases.clear();
    }
    scans.write(store).map_err(Error::of_writing(store, Name::Scans))?;
    Ok(tally.finish(&scans, stats))
}

/// Writes a file of what is known.
pub(super) fn write(
    out: &mut dyn Write,
    header: &Header,
    records: impl FnOnce(&mut block::Writer<'_>) -> io::Result<()>,
) -> io::Result<Digest> {
    let mut writer = block::Writer::start(out, known::MAGIC, &serde_json::to_vec(header)?)?;
    records(&mut writer)?;
    writer.finish(b"")
}

/// Counts under way.
struct Tally<'a> {
    request: &'a Request<'a>,
    opened: &'a Opened,
    root: usize,
    /// Entries more or less than the baseline has, of each root and of each set.
    roots: Vec<i64>,
    sets: Vec<SetTally>,
    unreadable: Shares<UnreadablePath>,
    unreadable_total: u64,
    changes: Shares<FileChange>,
    changes_total: u64,
    groups: BTreeMap<Explanation, ExplainedChanges>,
    explained_total: u64,
    hash: Sha256,
    text: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct SetTally {
    entries: i64,
    changes: u64,
    explained: u64,
    unreadable: u64,
}

impl<'a> Tally<'a> {
    fn start(request: &'a Request<'a>, opened: &'a Opened) -> Self {
        Self {
            request,
            opened,
            root: 0,
            roots: vec![0; request.sets.roots().len()],
            sets: vec![SetTally::default(); request.sets.sets().len()],
            unreadable: Shares::new(limits::UNREADABLE_PATHS, UNREADABLE_BYTES),
            unreadable_total: 0,
            changes: Shares::new(limits::FILE_CHANGES, CHANGE_BYTES),
            changes_total: 0,
            groups: BTreeMap::new(),
            explained_total: 0,
            hash: Sha256::new_with_prefix(opened.blocks.digest()),
            text: Vec::new(),
        }
    }

    fn add(&mut self, path: &[u8], known: &Known) {
        let (attributes, members) = self.rule(path, known);
        let more = match &known.what {
            What::Gone => -1,
            What::Differs(difference) if difference.found.is_none() => -1,
            What::AsBaseline | What::Touched(_) | What::NotCompared(_) | What::Differs(_) => i64::from(known.is_new),
        };
        let roots = self.request.sets.roots();
        self.root += roots[self.root..].iter().take_while(|root| !is_at_or_below(path, &root.path)).count();
        if let Some(root) = self.roots.get_mut(self.root) {
            *root += more;
        }
        self.each_set(members, |set| set.entries += more);
        if let Some(unknown) = not_read(known) {
            self.each_set(members, |set| set.unreadable += 1);
            self.unreadable_total += 1;
            let unreadable = UnreadablePath { path: PathText::from_bytes(path), unknown };
            let bytes = unreadable_bytes(&unreadable);
            self.unreadable.add(self.part(known), unreadable, bytes);
        }
        if let What::Differs(difference) = &known.what {
            self.add_difference(difference, attributes, members, self.part(known));
        }
    }

    fn rule(&self, path: &[u8], known: &Known) -> (Attributes, Members) {
        let kind = known.kind().unwrap_or(EntryKind::Folder);
        match self.request.sets.rule(path, kind) {
            Rule::Covered { attributes, members, .. } => (attributes, members),
            Rule::Outside | Rule::Pass => (Attributes::default(), Members::default()),
        }
    }

    fn each_set(&mut self, members: Members, count: impl Fn(&mut SetTally)) {
        members.iter().for_each(|set| count(&mut self.sets[set]));
    }

    fn part(&self, known: &Known) -> Part {
        let gone = match &known.what {
            What::Differs(difference) => difference.change.before.as_ref().map(|before| before.uid),
            What::AsBaseline | What::Touched(_) | What::NotCompared(_) | What::Gone => None,
        };
        let owner = known.metadata().map(|metadata| metadata.uid).or(gone).unwrap_or_default();
        Part { root: self.root, set: known.set, owner }
    }

    fn add_difference(&mut self, difference: &Difference, attributes: Attributes, members: Members, part: Part) {
        let Difference { change, found, .. } = difference;
        self.text.clear();
        for text in [change.kind.as_str(), change.path.as_str()] {
            self.text.extend_from_slice(text.as_bytes());
            self.text.push(0);
        }
        if let Some(found) = found {
            found.put_watched(attributes, &mut self.text);
        }
        self.hash.update(&self.text);
        if let Some(explanation) = &change.explanation {
            self.explained_total += 1;
            self.each_set(members, |set| set.explained += 1);
            self.add_explained(explanation, change);
            return;
        }
        self.changes_total += 1;
        self.each_set(members, |set| set.changes += 1);
        self.changes.add(part, change.clone(), change.encode().len());
    }

    fn add_explained(&mut self, explanation: &Explanation, change: &FileChange) {
        let time = change.detected_time;
        let is_full = self.groups.len() >= GROUPS;
        match self.groups.entry(explanation.clone()) {
            Entry::Occupied(mut group) => {
                let group = group.get_mut();
                group.changes_total += 1;
                group.first_detected_time = group.first_detected_time.min(time);
                group.last_detected_time = group.last_detected_time.max(time);
            }
            Entry::Vacant(_) if is_full => {}
            Entry::Vacant(group) => {
                group.insert(ExplainedChanges {
                    explanation: explanation.clone(),
                    changes_total: 1,
                    first_detected_time: time,
                    last_detected_time: time,
                });
            }
        }
    }

    fn finish(self, scans: &Scans, stats: Stats) -> Outcome {
        let (request, counts) = (self.request, &self.opened.counts);
        let mut paths = Vec::new();
        let mut entries = 0;
        for ((scan, more), count) in scans.roots.iter().zip(&self.roots).zip(&counts.roots) {
            let own = count.saturating_add_signed(*more);
            entries += own;
            let entries = match &scan.problem {
                Some(unknown) => Reading::Unknown { unknown: unknown.clone() },
                None => Reading::Known(own),
            };
            let whole = scan.path.to_bytes().map(|path| Reading::Known(request.sets.is_whole(&path)));
            paths.push(WatchedPath { path: scan.path.clone(), entries, whole });
        }
        paths.sort_by(|a, b| a.path.cmp(&b.path));
        let mut unreadable: Vec<_> = self.unreadable.into_items().collect();
        let mut changes: Vec<_> = self.changes.into_items().collect();
        unreadable.sort_by(|a, b| a.path.cmp(&b.path));
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        let explained_groups_total = self.groups.len() as u64;
        let (reread_seconds, reread_in_time) = reread(request, scans);
        Outcome {
            baseline: self.opened.baseline.clone(),
            paths,
            entries,
            unreadable,
            unreadable_total: self.unreadable_total,
            changes,
            changes_total: self.changes_total,
            explained: explained(self.groups),
            explained_groups_total,
            explained_total: self.explained_total,
            sets: sets(request, &counts.sets, &self.sets),
            state_digest: self.hash.finalize().into(),
            reread_seconds,
            reread_in_time,
            stats,
        }
    }
}

/// Returns so many groups of explained differences as a fact takes.
fn explained(groups: BTreeMap<Explanation, ExplainedChanges>) -> Vec<ExplainedChanges> {
    let mut list = Shares::new(limits::EXPLAINED_CHANGES, GROUP_BYTES);
    for group in groups.into_values() {
        let Explanation { source: _, package, version, basis } = &group.explanation;
        let texts = [package, version, basis].iter().map(|text| text.as_str().len()).sum::<usize>();
        list.add(Part::default(), group, texts + FIELDS_BYTES);
    }
    list.into_items().collect()
}

fn unreadable_bytes(unreadable: &UnreadablePath) -> usize {
    unreadable.path.as_str().len() + unreadable.unknown.detail.as_str().len() + FIELDS_BYTES
}

/// Returns so many of the entries `list` as a fact takes beside those that a scan could not read.
pub(crate) fn listed(list: Vec<UnreadablePath>) -> Vec<UnreadablePath> {
    let mut left = limits::UNREADABLE_PATHS * UNREADABLE_BYTES;
    let has_room = |unreadable: &UnreadablePath| {
        let rest = left.checked_sub(unreadable_bytes(unreadable));
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    list.into_iter().filter(has_room).collect()
}

/// Returns why an entry is not compared, if it is not.
pub(super) fn not_read(known: &Known) -> Option<Unknown> {
    match (&known.unreadable, &known.what) {
        (Some(unreadable), _) => Some(unreadable.unknown.clone()),
        (None, What::NotCompared(_)) => Some(Unknown::new(
            Cause::Absent,
            "it is not in the baseline, for which it could not be read: take it afresh with muster-agent fim rebaseline",
        )),
        (None, What::Gone) => Some(Unknown::new(
            Cause::Absent,
            "it is gone, and could not be read when the baseline was taken: take it afresh with muster-agent fim rebaseline",
        )),
        (None, What::AsBaseline | What::Touched(_) | What::Differs(_)) => None,
    }
}

fn sets(request: &Request<'_>, before: &[u64], tallies: &[SetTally]) -> Vec<WatchSet> {
    let digests = request.sets.definitions();
    let parts = request.sets.sets().iter().zip(digests).zip(before).zip(tallies);
    let mut sets: Vec<_> = parts
        .map(|(((set, digest), before), tally)| WatchSet {
            name: Text::new(&set.name),
            severity: set.severity,
            owner: Text::new(&set.owner),
            entries: before.saturating_add_signed(tally.entries),
            changes_total: tally.changes,
            explained_total: tally.explained,
            unreadable_total: tally.unreadable,
            digest: Text::new(&digest.to_string()),
        })
        .collect();
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    sets
}

/// Returns within how many seconds every file is read again, and whether that was kept.
fn reread(request: &Request<'_>, scans: &Scans) -> (u64, Option<Reading<bool>>) {
    let period = request.reread;
    if period.is_zero() {
        return (0, Some(Reading::Known(false)));
    }
    let in_time = if scans.slots.is_overdue(request.now, period) {
        Reading::unknown(Cause::Stale, "a scan that reads what is due is overdue")
    } else {
        Reading::Known(true)
    };
    (period.as_secs(), Some(in_time))
}
