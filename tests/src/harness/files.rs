//! A real agent that watches a tree of the test's own, what it says of it, and what is so.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use muster_agent::{
    chain,
    fim::{Depth, Scope},
    host::Live,
    probe::{self, FileLook, Look, Settings},
};
use muster_proto::{
    fact::{Fact, FileIntegrity, Reading, Subject, WatchState},
    report::Probe,
    time::Timestamp,
};
use sha2::{Digest as _, Sha256};

use super::{Folder, agent::Agent, check, collector::Collector, now, within};

/// A collector and an agent that watches a tree.
#[derive(Debug)]
pub struct Watched {
    /// The agent.
    pub agent: Agent,
    collector: Collector,
    settings: Settings,
    // Last, so that it goes after the processes.
    folder: Folder,
}

/// What is compared of an entry: kind, permissions, owner, group, size, time in nanoseconds, content or target.
pub type Entry = (u32, u32, u32, u32, u64, i64, Vec<u8>);

impl Watched {
    /// Prepares an agent that scans every `interval` seconds a tree in which `make` makes something, and watches so
    /// many `folders`.
    ///
    /// # Panics
    ///
    /// When it cannot be prepared.
    pub fn prepare(interval: u64, folders: usize, make: impl FnOnce(&Path)) -> Self {
        let folder = Folder::new();
        let tree = folder.join("tree");
        fs::create_dir(&tree).expect("a tree to watch");
        make(&tree);
        let collector = Collector::started();
        let text = format!(
            "jitter = 0.0\n[intervals]\nfile_integrity = \"{interval}s\"\n\
             [probes]\nwatched_folders = {folders}\nwatched_paths = [{:?}]\n",
            tree.display()
        );
        let agent = Agent::of(&collector, &text);
        let settings = Settings { watched_paths: vec![tree], watched_folders: folders, ..Settings::default() };
        Self { agent, collector, settings, folder }
    }

    /// Returns the watched tree.
    pub fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Returns a folder beside the tree, on the same file system, which nobody watches.
    pub fn outside(&self) -> PathBuf {
        self.folder.join("outside")
    }

    /// Returns what the agent last reported of the tree, and when it had seen that.
    ///
    /// # Errors
    ///
    /// What it says instead.
    pub fn fact(&self) -> Result<(Timestamp, FileIntegrity), String> {
        let reported = chain::peek_reported(&self.agent.state().join("spool")).ok_or("nothing is reported")?;
        let observed = reported.get(&Subject::FileIntegrity).ok_or("file integrity is not reported")?;
        match Fact::decode(&observed.bytes) {
            Ok(Fact::FileIntegrity(Reading::Known(fact))) => Ok((observed.at, fact)),
            other => Err(format!("{other:?}")),
        }
    }

    /// Waits for at most `limit` until the agent reports something of the tree of which `is_it` is true.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn reports(
        &mut self,
        limit: Duration,
        what: &str,
        is_it: impl Fn(&FileIntegrity) -> bool,
    ) -> (Timestamp, FileIntegrity) {
        within(limit, what, async || {
            let (at, fact) = self.fact().map_err(|instead| format!("{instead}\n{}", self.agent.process().output()))?;
            check(is_it(&fact), format!("{fact:?}")).map(|()| (at, fact))
        })
        .await
    }

    /// Returns what a scan that reads everything says now, by the agent's baseline, without the agent's knowledge.
    ///
    /// # Panics
    ///
    /// When there is no baseline.
    pub fn scanned_afresh(&self) -> FileIntegrity {
        let memory = Folder::new();
        for file in fs::read_dir(self.agent.state().join("probes/file_integrity")).expect("the engine's folder") {
            let file = file.expect("a file of the engine");
            fs::copy(file.path(), memory.join(file.file_name())).expect("a copy");
        }
        let look = Look {
            host: &Live::new(),
            now: now(),
            settings: &self.settings,
            memory: memory.path(),
            watch: WatchState::ScanOnly,
            run: 1,
            files: FileLook { depth: Depth::Full, scope: Scope::All, ..FileLook::default() },
        };
        let probe = probe::find(Probe::FileIntegrity).expect("the probe");
        match probe.look(&look).pop() {
            Some(Fact::FileIntegrity(Reading::Known(fact))) => fact,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the entries of the tree as they are.
    ///
    /// # Panics
    ///
    /// When one cannot be read.
    pub fn entries(&self) -> BTreeMap<Vec<u8>, Entry> {
        let mut entries = BTreeMap::new();
        add(&self.tree(), &mut entries);
        entries
    }

    /// Stops the programs.
    pub fn end(mut self) {
        self.agent.stop(Duration::from_secs(20));
        self.collector.stop(Duration::from_secs(10));
    }
}

/// Returns the paths whose entries differ.
pub fn differing(before: &BTreeMap<Vec<u8>, Entry>, after: &BTreeMap<Vec<u8>, Entry>) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().cloned().collect()
}

fn add(path: &Path, entries: &mut BTreeMap<Vec<u8>, Entry>) {
    let found = fs::symlink_metadata(path).expect("an entry that stays");
    let kind = found.mode() & 0o170_000;
    let (size, time, content) = match kind {
        0o100_000 => {
            let nanos = found.mtime() * 1_000_000_000 + found.mtime_nsec();
            (found.size(), nanos, Sha256::digest(fs::read(path).expect("a file")).to_vec())
        }
        0o120_000 => (0, 0, fs::read_link(path).expect("a link").as_os_str().as_bytes().to_vec()),
        _ => (0, 0, Vec::new()),
    };
    let entry = (kind, found.mode() & 0o7_777, found.uid(), found.gid(), size, time, content);
    entries.insert(path.as_os_str().as_bytes().to_vec(), entry);
    if kind == 0o040_000 {
        for name in fs::read_dir(path).expect("a folder") {
            add(&name.expect("a name").path(), entries);
        }
    }
}
