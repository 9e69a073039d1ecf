//! Puts a baseline of other watch sets into force that keeps what the one before says: new sets forgive no difference.

use muster_proto::fact::{Baseline, Text};

use super::{
    baseline::{self, Opened},
    block::Cursor,
    check::{self, Changes, Error, Request},
    known::{Header, Known, What},
    place::is_at_or_below,
    scans::{NO_RUN, RootScan, Scans},
    sets::{Rule, Sets},
    store::Name,
    survey::{self, Kept},
    tally,
};
use crate::host::EntryKind;

/// Returns a baseline of the sets of `request` that keeps what the one `before` says. Only what was not covered before is read.
pub(super) fn cover(request: &Request<'_>, before: &Opened) -> Result<Opened, Error> {
    let store = request.store;
    let id = baseline::new_id().map_err(Error::of_writing(store, Name::Baseline))?;
    // Sets that cannot be compiled any more covered nothing that could be told.
    let sets = Sets::new(&before.sets).map_err(|_| Error::BaselineDamaged)?;
    let old_id = before.baseline.id.as_str();
    let scans = Scans::read(store, old_id, before.baseline.created_time, sets.roots())
        .map_err(|source| Error::Read { path: store.path(Name::Scans), source })?;
    // First, and for both baselines: a kill before the new one is in force loses nothing.
    carry_over(request, before, &id)?;
    let kept = Kept { opened: before, sets: &sets };
    survey::write(request, &id, &reason(before, &scans), Some(&kept), |survey| {
        request.sets.roots().iter().try_for_each(|root| survey.root(root).map(drop))
    })?;
    carried(request, &scans, &id).write(store).map_err(Error::of_writing(store, Name::Scans))?;
    check::opened(store)
}

/// Returns the reason of a baseline that takes the place of the one `before`: that of an operator who took that one afresh, if no
/// agent has looked since, which would have told of it.
fn reason(before: &Opened, scans: &Scans) -> Text {
    let own = &before.baseline.reason;
    let is_operators = ![Baseline::FIRST_SCAN, Baseline::SETS_CHANGED].contains(&own.as_str());
    if is_operators && scans.roots.iter().all(|scan| scan.run == NO_RUN) {
        return own.clone();
    }
    Text::new(Baseline::SETS_CHANGED)
}

/// Keeps what is known beyond the baseline `before`, so far as it is covered still, for the one with `id` too.
fn carry_over(request: &Request<'_>, before: &Opened, id: &str) -> Result<(), Error> {
    let store = request.store;
    let Changes::Whole(blocks) = check::changes(store, before)? else { return Ok(()) };
    let header = Header { baselines: vec![before.baseline.id.to_string(), id.to_owned()] };
    let written = store.replace(Name::Changes, |out| {
        tally::write(out, &header, |writer| {
            let mut cursor = Cursor::start(&blocks)?;
            while let Some(path) = cursor.path() {
                let known = Known::decode(cursor.body()).ok_or(std::io::ErrorKind::InvalidData)?;
                if let Some(known) = covered(request, path, known) {
                    writer.add(path, &known.encode())?;
                }
                cursor.advance()?;
            }
            Ok(())
        })
    });
    written.map(drop).map_err(Error::of_writing(store, Name::Changes))
}

/// Returns what is known of `path`, for the set that covers it now.
fn covered(request: &Request<'_>, path: &[u8], mut known: Known) -> Option<Known> {
    let kind = known.kind().unwrap_or(EntryKind::Folder);
    let Rule::Covered { set, .. } = request.sets.rule(path, kind) else { return None };
    known.set = set;
    if let What::Differs(difference) = &mut known.what {
        difference.change.set = Text::new(&request.sets.sets()[set].name);
    }
    Some(known)
}

/// Returns the scans of the new roots: one that holds what was scanned before was scanned when the first of that was.
fn carried(request: &Request<'_>, before: &Scans, id: &str) -> Scans {
    let mut scans = Scans::at(id, request.sets.roots(), request.now, request.run);
    scans.slots = before.slots.clone();
    let path = |scan: &RootScan| scan.path.to_bytes().unwrap_or_default();
    for scan in &mut scans.roots {
        let own = path(scan);
        let is_held = |old: &&RootScan| {
            let old = path(old);
            is_at_or_below(&old, &own) || is_at_or_below(&own, &old)
        };
        if let Some(first) = before.roots.iter().filter(is_held).min_by_key(|old| old.time) {
            (scan.time, scan.run) = (first.time, first.run);
        }
    }
    scans
}
