//! A storm of changes that makes the kernel drop notices: after the dust the agent reports what is on disk. And a calm:
//! how soon single changes are in evidence.
//!
//! `MUSTER_TEST_CHANGES` says how many changes the storm has (5000), `MUSTER_TEST_SINGLE` how many the calm (40), and
//! `MUSTER_TEST_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use muster_tests::harness::{
    PATIENCE,
    files::{Watched, differing},
    left_out, now,
    random::Random,
    setting,
};

/// Seconds between scans of everything.
const INTERVAL: u64 = 10;
/// Notices that the kernel's queue is made to hold.
const QUEUE: &str = "64";
const QUEUE_SETTING: &str = "/proc/sys/fs/inotify/max_queued_events";

/// The length of new queues of notices, lowered until it is dropped.
struct ShortQueue(String);

impl ShortQueue {
    fn set() -> io::Result<Self> {
        let before = fs::read_to_string(QUEUE_SETTING)?;
        fs::write(QUEUE_SETTING, QUEUE)?;
        Ok(Self(before))
    }
}

impl Drop for ShortQueue {
    fn drop(&mut self) {
        fs::write(QUEUE_SETTING, &self.0).unwrap();
    }
}

/// Changes a tree at random, and moves folders out of it and back.
struct Storm {
    tree: PathBuf,
    outside: PathBuf,
    random: Random,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    away: Vec<PathBuf>,
    made: u64,
}

impl Storm {
    fn over(watched: &Watched) -> Self {
        let (tree, outside) = (watched.tree(), watched.outside());
        fs::create_dir(&outside).unwrap();
        let random = Random::printed("a storm");
        Self { tree, outside, random, files: Vec::new(), folders: Vec::new(), away: Vec::new(), made: 0 }
    }

    fn rage(&mut self, changes: u64) {
        let mut done = 0;
        while done < changes {
            // Names go stale when folders move: what is not there any more is no change.
            if done % 500 == 0 {
                self.look();
            }
            done += u64::from(self.change().is_ok());
        }
    }

    fn look(&mut self) {
        (self.files, self.folders) = (Vec::new(), vec![self.tree.clone()]);
        let mut at = 0;
        while let Some(folder) = self.folders.get(at).cloned() {
            at += 1;
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let to = if entry.file_type().unwrap().is_dir() { &mut self.folders } else { &mut self.files };
                to.push(entry.path());
            }
        }
    }

    fn name(&mut self) -> String {
        self.made += 1;
        format!("n{}", self.made)
    }

    fn file(&mut self) -> io::Result<PathBuf> {
        let at = self.random.index(self.files.len().max(1));
        self.files.get(at).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn folder(&mut self) -> PathBuf {
        self.folders[self.random.index(self.folders.len())].clone()
    }

    fn new_path(&mut self) -> PathBuf {
        self.folder().join(self.name())
    }

    /// Makes one change, or finds that it cannot be made.
    fn change(&mut self) -> io::Result<()> {
        let content = format!("{}", self.random.number());
        match self.random.below(14) {
            0 | 1 => {
                let path = self.new_path();
                fs::write(&path, content)?;
                self.files.push(path);
            }
            2 => fs::write(self.existing()?, content)?,
            3 => {
                io::Write::write_all(&mut fs::OpenOptions::new().append(true).open(self.file()?)?, content.as_bytes())?
            }
            4 => {
                let mode = if self.random.below(2) == 0 { 0o600 } else { 0o644 };
                fs::set_permissions(self.file()?, fs::Permissions::from_mode(mode))?;
            }
            5 => {
                let path = self.new_path();
                fs::rename(self.file()?, &path)?;
                self.files.push(path);
            }
            6 => {
                let path = self.new_path();
                fs::rename(self.lower_folder()?, path)?;
            }
            7 => {
                let away = self.outside.join(self.name());
                fs::rename(self.lower_folder()?, &away)?;
                self.away.push(away);
            }
            8 => {
                let path = self.new_path();
                fs::rename(self.away.pop().ok_or(io::ErrorKind::NotFound)?, &path)?;
                self.folders.push(path);
            }
            9 => self.new_folders(&content)?,
            10 => fs::remove_file(self.file()?)?,
            11 if self.random.below(4) == 0 => fs::remove_dir_all(self.lower_folder()?)?,
            11 | 12 => fs::hard_link(self.file()?, self.new_path())?,
            _ => {
                let path = self.folder().join("replacing");
                fs::write(&path, content)?;
                fs::rename(path, self.existing()?)?;
            }
        }
        Ok(())
    }

    fn existing(&mut self) -> io::Result<PathBuf> {
        let path = self.file()?;
        fs::symlink_metadata(&path).map(|_| path)
    }

    /// Returns a folder that is not the tree itself.
    fn lower_folder(&mut self) -> io::Result<PathBuf> {
        let folder = self.folder();
        if folder == self.tree { Err(io::ErrorKind::NotFound.into()) } else { Ok(folder) }
    }

    /// Makes folders in each other with files in them at once, before anyone can watch them.
    fn new_folders(&mut self, content: &str) -> io::Result<()> {
        let mut path = self.new_path();
        for depth in 0..=self.random.below(4) {
            fs::create_dir(&path)?;
            self.folders.push(path.clone());
            fs::write(path.join("file"), format!("{content} {depth}"))?;
            self.files.push(path.join("file"));
            path.push("in");
        }
        Ok(())
    }
}

fn make(tree: &Path) {
    for at in 0..400 {
        let folder = tree.join(format!("{}/{}", at % 20, at / 20 % 5));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file{at}")), format!("{at}")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_that_overflows_the_queue_the_agent_reports_what_is_on_disk() {
    let changes = setting("MUSTER_TEST_CHANGES", 5_000);
    let mut watched = Watched::prepare(INTERVAL, 50_000, make);
    let before = watched.entries();
    let short = ShortQueue::set();
    watched.agent.start();
    watched.reports(PATIENCE, "the tree is watched", |fact| fact.folders_live == 121).await;
    let is_short = short.is_ok();
    match short {
        Ok(short) => drop(short),
        Err(error) => left_out("a queue of notices that overflows", error),
    }
    let (mut storm, start) = (Storm::over(&watched), Instant::now());
    let storm = tokio::task::spawn_blocking(move || {
        storm.rage(changes);
        storm
    });
    storm.await.unwrap();
    let (raged, calm) = (start.elapsed(), Instant::now());
    let (after, fresh) = (watched.entries(), watched.scanned_afresh());
    let expected = differing(&before, &after);
    assert_eq!(fresh.changes_total, expected.len() as u64, "a scan that reads everything finds each difference");
    let folders = after.values().filter(|entry| entry.0 == 0o040_000).count() as u64;
    let is_as_on_disk = |fact: &muster_proto::fact::FileIntegrity| {
        let same = fact.state_digest == fresh.state_digest && fact.changes == fresh.changes;
        same && fact.entries == after.len() as u64 && (fact.folders_live, fact.folders_scan_only) == (folders, 0)
    };
    let limit = Duration::from_secs(2 * INTERVAL) + PATIENCE;
    let (at, _) = watched
        .reports(limit, "the agent reports what is on disk", |fact| {
            // Times are the agent's own: whoever scans afresh has none.
            let mut fact = fact.clone();
            for (own, fresh) in fact.changes.iter_mut().zip(&fresh.changes) {
                (own.last_unchanged_time, own.detected_time) = (fresh.last_unchanged_time, fresh.detected_time);
                (own.while_not_observed, own.states_seen) = (fresh.while_not_observed, fresh.states_seen);
                own.actors.clone_from(&fresh.actors);
            }
            is_as_on_disk(&fact)
        })
        .await;
    let output = watched.agent.process().output();
    let overflows = output.matches("the kernel dropped notices").count();
    assert!(!is_short || overflows > 0, "a storm of {changes} changes that overflows nothing tries nothing");
    eprintln!(
        "{changes} changes in {raged:.1?} ({} differ in the end), {overflows} overflows, \
         as on disk {:.1?} after the last, seen at {at}",
        expected.len(),
        calm.elapsed(),
    );
    watched.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_changes_are_in_evidence_while_nothing_else_happens() {
    let count = usize::try_from(setting("MUSTER_TEST_SINGLE", 40)).unwrap();
    let mut watched = Watched::prepare(3_600, 50_000, make);
    watched.agent.start();
    watched.reports(PATIENCE, "the tree is watched", |fact| fact.folders_live == 121).await;
    let mut latencies = Vec::new();
    for at in 0..count {
        let path = watched.tree().join(format!("{}/{}/single{at}", at % 20, at % 5));
        let changed = now();
        fs::write(&path, "x").unwrap();
        let total = at as u64 + 1;
        watched.reports(PATIENCE, "the change is reported", |fact| fact.changes_total == total).await;
        // Sealed and on disk by now, and what it takes to look for it is counted too.
        latencies.push(now().millis_after(changed));
    }
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    let soon = latencies.iter().filter(|millis| **millis <= 2_000).count();
    eprintln!(
        "{count} single changes: half within {} ms, 90 % within {} ms, 99 % within {} ms, \
         all within {} ms; {:.1} % within 2 s",
        at(50),
        at(90),
        at(99),
        at(100),
        100.0 * soon as f64 / count as f64,
    );
    watched.end();
}
