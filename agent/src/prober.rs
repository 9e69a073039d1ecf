//! The one narrow interface to all probes: a request to look, and an answer, whatever the probe does.
//!
//! Looks run on a thread of their own. A look that crashes or does not end in time still gives an answer: every subject of
//! its probe is unknown, and the outcome says why.

use std::{
    collections::BTreeSet,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use muster_proto::{
    fact::{Cause, Fact, Unknown},
    report::Probe,
    time::Timestamp,
};
use tokio::sync::oneshot;

use crate::{
    fim::{
        Depth, Scope,
        actors::Actors,
        progress::{self, Progress},
    },
    host::{self, Live, live},
    probe::{self, FileLook, Look, Settings},
    run::Reach,
    watch::Coverage,
};

/// How much longer than its own deadline a look may take to notice it.
const GRACE: Duration = Duration::from_secs(2);
/// Longest scan of watched files, so long as it comes further: a tree that grows as fast as it is read has no end.
const LONGEST_SCAN: Duration = Duration::from_secs(24 * 60 * 60);

/// What came of a request to look.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The look ended. Its facts may still be unknown.
    Done,
    /// The probe crashed; the text says where.
    Crashed(String),
    /// The look did not end in its time.
    TimedOut,
}

/// The answer to a request to look.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The probe.
    pub probe: Probe,
    /// One fact of each of its subjects.
    pub facts: Vec<Fact>,
    /// What came of the request.
    pub outcome: Outcome,
}

/// The one narrow interface to all probes. Cloning it is cheap.
#[derive(Clone)]
pub struct Prober {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Mutex<Arc<Settings>>,
    memory: PathBuf,
    coverage: Mutex<Arc<Coverage>>,
    actors: Arc<Actors>,
    progress: Progress,
    run: u64,
    /// Probes whose look has not ended, also beyond its time.
    looking: Mutex<BTreeSet<Probe>>,
}

impl Prober {
    /// Returns a prober. `memory` is the folder of the probes' own durable state, made when it is not there.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made.
    pub fn start(settings: Settings, memory: &Path) -> io::Result<Self> {
        for probe in probe::PROBES {
            fs::create_dir_all(memory.join(probe.name()))?;
        }
        let run = host::random()?;
        let shared = Shared {
            settings: Mutex::new(Arc::new(settings)),
            memory: memory.to_owned(),
            coverage: Mutex::new(Arc::new(Coverage::none())),
            actors: Arc::default(),
            progress: Progress::default(),
            run: u64::from_be_bytes(run),
            looking: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Takes other settings for the looks that begin after this.
    pub fn set_settings(&self, settings: Settings) {
        *lock(&self.shared.settings) = Arc::new(settings);
    }

    /// Takes note of how far file changes are noticed as they happen.
    pub fn set_coverage(&self, coverage: Coverage) {
        *lock(&self.shared.coverage) = Arc::new(coverage);
    }

    /// Returns what is remembered of who wrote to watched files.
    pub fn actors(&self) -> Arc<Actors> {
        Arc::clone(&self.shared.actors)
    }

    /// Returns how far the scan of watched files has come that is under way.
    pub fn scan(&self) -> Option<progress::Shown> {
        self.shared.progress.shown()
    }

    /// Makes `probe` look as far as `reach`. `now` is the host's clock when the look begins.
    pub async fn look(&self, probe: Probe, reach: Reach, now: Timestamp) -> Answer {
        let Some(known) = probe::find(probe) else {
            let unknown = Unknown::new(Cause::Unsupported, "this build has no such probe");
            return Answer { probe, facts: probe::unknown(probe, &unknown), outcome: Outcome::Done };
        };
        let settings = Arc::clone(&lock(&self.shared.settings));
        let time_limit = settings.time_limit(probe);
        if !lock(&self.shared.looking).insert(probe) {
            return timed_out(probe, "the look before this one has not ended");
        }
        let (sender, receiver) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new().name(format!("look-{}", known.name())).spawn(move || {
            let is_scan = probe == Probe::FileIntegrity;
            // A look at what has just changed is small, and its evidence is not to wait.
            if is_scan && reach.is_whole() {
                live::yield_to_others();
            }
            let deadline = Instant::now() + if is_scan { LONGEST_SCAN } else { time_limit };
            let result = look(known, &shared, &settings, &reach, now, deadline);
            lock(&shared.looking).remove(&probe);
            live::give_back_memory();
            // Nobody waits for a look that took too long.
            let _ = sender.send(result);
        });
        if let Err(error) = spawned {
            lock(&self.shared.looking).remove(&probe);
            let unknown = host::unknown("start a thread", &error);
            return Answer { probe, facts: probe::unknown(probe, &unknown), outcome: Outcome::Done };
        }
        match self.ended(probe, time_limit + GRACE, receiver).await {
            Some(Ok(Ok(facts))) => Answer { probe, facts, outcome: Outcome::Done },
            Some(Ok(Err(message))) => {
                let unknown = Unknown::new(Cause::Failed, "the probe crashed");
                Answer { probe, facts: probe::unknown(probe, &unknown), outcome: Outcome::Crashed(message) }
            }
            Some(Err(_)) => ended_silently(probe),
            None => timed_out(probe, "the look did not end in its time"),
        }
    }

    /// Waits for the end of a look; `None` when it did not come within `limit`, or for a scan, which has no other bound, within
    /// `limit` of the last step that it took.
    async fn ended<T>(
        &self,
        probe: Probe,
        limit: Duration,
        mut receiver: oneshot::Receiver<T>,
    ) -> Option<Result<T, oneshot::error::RecvError>> {
        loop {
            let before = self.shared.progress.mark();
            match tokio::time::timeout(limit, &mut receiver).await {
                Ok(ended) => return Some(ended),
                Err(_) if probe == Probe::FileIntegrity && self.shared.progress.mark() != before => {}
                Err(_) => return None,
            }
        }
    }
}

/// Looks, and returns the facts or the message of a crash.
fn look(
    probe: &dyn probe::Probe,
    shared: &Shared,
    settings: &Settings,
    reach: &Reach,
    now: Timestamp,
    deadline: Instant,
) -> Result<Vec<Fact>, String> {
    let memory = shared.memory.join(probe.name());
    let coverage = Arc::clone(&lock(&shared.coverage));
    let (depth, scope) = match reach {
        Reach::Full => (Depth::Full, Scope::All),
        Reach::Quick => (Depth::Quick, Scope::All),
        Reach::At(paths) => (Depth::Quick, Scope::Below(paths)),
    };
    let look = Look {
        host: &Live::until(deadline),
        now,
        settings,
        memory: &memory,
        watch: coverage.state,
        run: shared.run,
        files: FileLook {
            depth,
            scope,
            coverage: Some(&coverage),
            actors: Some(&shared.actors),
            progress: Some(&shared.progress),
            in_its_place: false,
        },
    };
    // What a crashed look leaves behind is its memory folder, whose files are replaced as a whole.
    catch_unwind(AssertUnwindSafe(|| probe.look(&look))).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
    })
}

fn timed_out(probe: Probe, detail: &str) -> Answer {
    let unknown = Unknown::new(Cause::TimedOut, detail);
    Answer { probe, facts: probe::unknown(probe, &unknown), outcome: Outcome::TimedOut }
}

/// The thread always sends; should it end without, that is a crash like any other.
fn ended_silently(probe: Probe) -> Answer {
    let unknown = Unknown::new(Cause::Failed, "the look ended without an answer");
    Answer { probe, facts: probe::unknown(probe, &unknown), outcome: Outcome::Crashed(String::new()) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code under these locks can panic between two writes that belong together.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Crashes;

    impl probe::Probe for Crashes {
        fn id(&self) -> Probe {
            Probe::Firewall
        }

        fn name(&self) -> &'static str {
            "firewall"
        }

        fn look(&self, _: &Look<'_>) -> Vec<Fact> {
            panic!("at the third rule")
        }
    }

    #[test]
    fn a_crash_is_caught_with_its_message() {
        let memory = tempfile::tempdir().unwrap();
        let prober = Prober::start(Settings::default(), memory.path()).unwrap();
        let result =
            look(&Crashes, &prober.shared, &Settings::default(), &Reach::Full, Timestamp::EPOCH, Instant::now());
        assert_eq!(result, Err("at the third rule".to_owned()));
    }

    #[tokio::test]
    async fn a_look_gives_a_fact_of_each_subject() {
        let memory = tempfile::tempdir().unwrap();
        let prober = Prober::start(Settings::default(), memory.path()).unwrap();
        let answer = prober.look(Probe::System, Reach::Full, Timestamp::EPOCH).await;
        let subjects: BTreeSet<_> = answer.facts.iter().map(Fact::subject).collect();
        assert_eq!((subjects, answer.outcome), (probe::subjects(Probe::System).collect(), Outcome::Done));
    }

    #[tokio::test]
    async fn a_look_that_has_not_ended_is_not_doubled() {
        let memory = tempfile::tempdir().unwrap();
        let prober = Prober::start(Settings::default(), memory.path()).unwrap();
        lock(&prober.shared.looking).insert(Probe::DiskEncryption);
        let answer = prober.look(Probe::DiskEncryption, Reach::Full, Timestamp::EPOCH).await;
        assert_eq!((answer.outcome, answer.facts.len()), (Outcome::TimedOut, 1));
    }
}
