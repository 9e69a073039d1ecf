//! Whether watched files differ from their baseline: the fact that [`crate::fim`] makes.

use std::{io, path::Path, time::Duration};

use muster_proto::{
    fact::{Baseline, Cause, Fact, FileIntegrity, Reading, Text, Unknown},
    report,
    time::Timestamp,
};

use super::{Look, Probe, Settings};
use crate::{
    fim::{
        self, Depth, Error, Outcome, Progress, Request, Scope, Sets, Store,
        actors::Actors,
        manners::{self, Power},
        scans::NO_RUN,
    },
    host::{Host, Pace},
    watch::Coverage,
};

/// Reason of a baseline that no operator asked for.
const FIRST_SCAN: &str = Baseline::FIRST_SCAN;
/// Hours within which files are read again, at most: a year.
const REREAD_HOURS: u64 = 8760;
/// Bytes that a look reads below one root of the files of one owner other than root, at most: more than such users have in places
/// that are watched, and at the usual pace under three minutes; of all of them eleven. Without it any of them keeps scans from ending.
const OWNER_BYTES: u64 = 16 << 30;

/// How file integrity looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileLook<'a> {
    /// How much is read.
    pub depth: Depth,
    /// Where.
    pub scope: Scope<'a>,
    /// How far changes are noticed as they happen; none where nothing could be watched.
    pub coverage: Option<&'a Coverage>,
    /// Who was seen writing to watched files.
    pub actors: Option<&'a Actors>,
    /// Where it is told how far a scan has come.
    pub progress: Option<&'a Progress>,
    /// Whether it is in the place of the agent that looked before: with the watch sets of the baseline, and as a part of that run.
    pub in_its_place: bool,
}

/// The probe of `file_integrity`.
pub struct FileIntegrityProbe;

impl Probe for FileIntegrityProbe {
    fn id(&self) -> report::Probe {
        report::Probe::FileIntegrity
    }

    fn name(&self) -> &'static str {
        "file_integrity"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        vec![Fact::FileIntegrity(match state(look) {
            Ok(state) => Reading::Known(state),
            Err(unknown) => Reading::Unknown { unknown },
        })]
    }
}

/// Takes the baseline afresh, for the `reason` that an operator gave, and forgets the differences from the one before. It is of the
/// watch sets of that one, which may have come from a collector; where there is none, of those of `settings`.
///
/// # Errors
///
/// When the scan does not end or the baseline cannot be written; the one before is then still in force.
pub fn rebaseline(
    host: &dyn Host,
    settings: &Settings,
    memory: &Path,
    now: Timestamp,
    reason: &str,
) -> io::Result<Outcome> {
    let (store, progress) = (Store::at(memory), Progress::default());
    let sets = match fim::left(&store) {
        Some((sets, _)) => sets,
        None => sets(settings, host).map_err(io::Error::other)?,
    };
    // Somebody waits for it.
    let pace = Pace { owner_bytes: OWNER_BYTES, ..Pace::default() };
    let request = Request { pace, ..request(host, settings, &sets, &store, &progress, now) };
    fim::take_baseline(&request, &Text::new(reason)).map_err(io::Error::other)
}

fn state(look: &Look<'_>) -> Result<FileIntegrity, Unknown> {
    let (store, unseen) = (Store::at(look.memory), Progress::default());
    let FileLook { depth, scope, coverage, actors, progress, in_its_place } = look.files;
    let (sets, run) = match in_its_place.then(|| fim::left(&store)).flatten() {
        Some(left) => left,
        None => {
            let sets = sets(look.settings, look.host);
            (sets.map_err(|error| Unknown::new(Cause::Garbled, error.to_string()))?, look.run)
        }
    };
    let request = request(look.host, look.settings, &sets, &store, progress.unwrap_or(&unseen), look.now);
    // Where names of a very wide folder wait: beside the baseline, since /tmp may lie in memory.
    let pace = Pace { spill_folder: Some(look.memory.to_owned()), ..request.pace.clone() };
    let between = |path: &[u8], from, to| actors.map(|actors| actors.between(path, from, to)).unwrap_or_default();
    let request = Request {
        run,
        depth,
        scope,
        power: manners::power(look.host),
        actors: actors.is_some().then_some(&between),
        pace,
        ..request
    };
    let mut fact = outcome(&request).map_err(|error| error.unknown())?.fact(look.watch);
    if let Some(coverage) = coverage.cloned() {
        (fact.folders_live, fact.folders_scan_only) = (coverage.folders_live, coverage.folders_scan_only);
        (fact.scan_only, fact.scan_only_total) = (fim::listed(coverage.scan_only), coverage.scan_only_total);
    }
    Ok(fact)
}

fn outcome(request: &Request<'_>) -> Result<Outcome, Error> {
    match fim::check(request) {
        Err(Error::NoBaseline) => fim::take_baseline(request, &FIRST_SCAN.into()),
        outcome => outcome,
    }
}

fn request<'a>(
    host: &'a dyn Host,
    settings: &Settings,
    sets: &'a Sets,
    store: &'a Store,
    progress: &'a Progress,
    now: Timestamp,
) -> Request<'a> {
    Request {
        host,
        sets,
        store,
        now,
        run: NO_RUN,
        depth: Depth::default(),
        scope: Scope::default(),
        pace: Pace { bytes_per_second: settings.file_bytes_per_second, owner_bytes: OWNER_BYTES, ..Pace::default() },
        reread: Duration::from_secs(3600 * settings.file_reread_hours.min(REREAD_HOURS)),
        power: Power::Mains,
        progress,
        actors: None,
    }
}

/// Returns the sets that are in force on `host`.
fn sets(settings: &Settings, host: &dyn Host) -> Result<Sets, fim::sets::Error> {
    Sets::new(&fim::sets::in_force(settings, host))
}

#[cfg(test)]
mod tests;
