//! Whether watched files differ from their baseline: the fact that [`crate::fim`] makes.

use std::{io, path::Path, time::Duration};

use muster_proto::{
    fact::{Baseline, Cause, Fact, FileIntegrity, Reading, Text, Unknown},
    report,
    time::Timestamp,
};

use super::{Look, Probe, Settings};
use crate::{
    fim::{self, Depth, Error, Outcome, Progress, Request, Scope, Sets, Store, scans::NO_RUN},
    host::{Host, Pace},
};

/// Reason of a baseline that no operator asked for.
const FIRST_SCAN: &str = "first scan";
/// Every file is read again within this time, whatever its metadata says.
const REREAD: Duration = Duration::from_secs(24 * 60 * 60);

/// How file integrity looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileLook<'a> {
    /// How much is read.
    pub depth: Depth,
    /// Where.
    pub scope: Scope<'a>,
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

/// Takes the baseline afresh, for the `reason` that an operator gave, and forgets the differences from the one before.
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
) -> io::Result<Baseline> {
    let sets = sets(settings, host).map_err(io::Error::other)?;
    let (store, progress) = (Store::at(memory), Progress::default());
    let request = request(host, &sets, &store, &progress, now);
    fim::take_baseline(&request, &Text::new(reason)).map(|outcome| outcome.baseline).map_err(io::Error::other)
}

fn state(look: &Look<'_>) -> Result<FileIntegrity, Unknown> {
    let sets = sets(look.settings, look.host).map_err(|error| Unknown::new(Cause::Garbled, error.to_string()))?;
    let (store, progress) = (Store::at(look.memory), Progress::default());
    let FileLook { depth, scope } = look.files;
    let request = Request { run: look.run, depth, scope, ..request(look.host, &sets, &store, &progress, look.now) };
    outcome(&request).map(|outcome| outcome.fact(look.watch)).map_err(|error| error.unknown())
}

fn outcome(request: &Request<'_>) -> Result<Outcome, Error> {
    match fim::check(request) {
        Err(Error::NoBaseline) => fim::take_baseline(request, &FIRST_SCAN.into()),
        outcome => outcome,
    }
}

fn request<'a>(
    host: &'a dyn Host,
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
        pace: Pace::default(),
        reread: REREAD,
        progress,
        actors: None,
    }
}

/// Returns the sets that are in force on `host`.
fn sets(settings: &Settings, host: &dyn Host) -> Result<Sets, fim::sets::Error> {
    Sets::new(&fim::sets::in_force(settings, host))
}
