//! What `muster-agent probe` and `muster-agent capture` do: look once, here or at a capture, and show or keep it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Mutex,
    time::SystemTime,
};

use muster_proto::{
    fact::{Fact, WatchState, render},
    time::Timestamp,
};

use crate::{
    fim::Outcome,
    host::{self, Host, Live, Recorded, Recording, recorded},
    probe::{self, FileLook, Look, Probe, Settings},
};

/// How often an agent's files are copied when they change meanwhile, at most.
const COPIES: u32 = 5;

/// Looking or capturing failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No probe has this name.
    #[error("no probe is named \"{0}\": there are {1}")]
    NoSuchProbe(String, String),
    /// The folder is not a capture.
    #[error("failed to open the capture")]
    Capture(#[from] recorded::Error),
    /// Something could not be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output could not be written.
    #[error("failed to write the output")]
    Output(#[from] io::Error),
}

/// How facts are shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// For a person.
    Text,
    /// A JSON array of facts.
    Json,
}

/// Makes the probe `name`, or every probe, look once, and shows the facts on `out`.
///
/// With `capture`, it looks at that folder as of the time it was made; else at this machine, with a copy of what this machine's agent
/// remembers in its folder `state`, so far as that is there and may be read, so that it sees what the agent would.
///
/// Returns why something that is there could not be copied, if so: a probe then begins anew, and file integrity compares with what it
/// finds now.
///
/// # Errors
///
/// When there is no such probe or capture, or nothing can be written.
pub fn probe(
    name: Option<&str>,
    capture: Option<&Path>,
    state: &Path,
    settings: &Settings,
    now: Timestamp,
    format: Format,
    out: &mut dyn Write,
) -> Result<Option<io::Error>, Error> {
    let probes = chosen(name)?;
    let (facts, not_copied) = match capture {
        Some(folder) => {
            let host = Recorded::at(folder)?;
            look(&host, &probes, None, settings, host.captured())?
        }
        None => look(&Live::new(), &probes, Some(state), settings, now)?,
    };
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &facts).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => facts.iter().try_for_each(|fact| show(fact, out))?,
    }
    Ok(not_copied)
}

/// Makes the probe `name`, or every probe, look once at this machine, and keeps what it was answered in `folder`, which
/// must not be there yet.
///
/// # Errors
///
/// When there is no such probe, or the capture cannot be written.
pub fn capture(name: Option<&str>, folder: &Path, settings: &Settings, now: Timestamp) -> Result<(), Error> {
    let probes = chosen(name)?;
    let written = |source| Error::Write { path: folder.to_owned(), source };
    let live = Live::new();
    let recording = Recording::start(&live, folder, now).map_err(written)?;
    look(&recording, &probes, None, settings, now)?;
    recording.finish().map_err(written)
}

fn chosen(name: Option<&str>) -> Result<Vec<&'static dyn Probe>, Error> {
    let Some(name) = name else { return Ok(probe::PROBES.to_vec()) };
    match probe::PROBES.iter().find(|probe| probe.name() == name) {
        Some(probe) => Ok(vec![*probe]),
        None => {
            let names: Vec<_> = probe::PROBES.iter().map(|probe| probe.name()).collect();
            Err(Error::NoSuchProbe(name.to_owned(), names.join(", ")))
        }
    }
}

/// Looks with a memory that is forgotten after, so that the agent's own in `state` is left alone: it begins as a copy of that. Returns
/// why some of it could not be copied, if it is there.
fn look(
    host: &dyn Host,
    probes: &[&dyn Probe],
    state: Option<&Path>,
    settings: &Settings,
    now: Timestamp,
) -> Result<(Vec<Fact>, Option<io::Error>), Error> {
    let memory = Memory::make()?;
    let (mut facts, mut not_copied) = (Vec::new(), None);
    for probe in probes {
        let folder = memory.0.join(probe.name());
        let mut made = || -> io::Result<()> {
            fs::create_dir(&folder)?;
            let Some(own) = state.map(|state| state.join("probes").join(probe.name())) else { return Ok(()) };
            if let Err(error) = remember(&own, &folder) {
                if error.kind() != io::ErrorKind::NotFound {
                    not_copied = Some(error);
                }
                // Of a part nothing can be told.
                fs::remove_dir_all(&folder)?;
                fs::create_dir(&folder)?;
            }
            Ok(())
        };
        made().map_err(|source| Error::Write { path: folder.clone(), source })?;
        let look = Look {
            host,
            now,
            settings,
            memory: &folder,
            watch: WatchState::ScanOnly,
            run: 1,
            files: FileLook { in_its_place: true, ..FileLook::default() },
        };
        facts.extend(probe.look(&look));
    }
    Ok((facts, not_copied))
}

/// Copies what an agent remembers for a probe: the files of its folder, each of which the agent replaces as a whole.
fn remember(own: &Path, folder: &Path) -> io::Result<()> {
    for _ in 0..COPIES {
        let before = files(own)?;
        for stale in files(folder)?.keys() {
            fs::remove_file(folder.join(stale))?;
        }
        for name in before.keys() {
            match fs::copy(own.join(name), folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if files(own)? == before {
            return Ok(());
        }
    }
    // A scan that changes them so fast leaves each whole, and the engine sees where two do not belong together.
    Ok(())
}

/// Returns the files of a folder, each with its size and when it was made. What is about to take the place of one is none.
fn files(folder: &Path) -> io::Result<BTreeMap<OsString, (u64, SystemTime)>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_draft = Path::new(&name).extension().is_some_and(|extension| extension == "new" || extension == "draft");
        if is_draft || !entry.file_type()?.is_file() {
            continue;
        }
        match entry.metadata() {
            Ok(metadata) => drop(files.insert(name, (metadata.len(), metadata.modified()?))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// A folder of this process alone, removed when dropped.
pub(crate) struct Memory(PathBuf);

/// Those that are there, for a process that is stopped from outside.
static MEMORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Memory {
    /// Removes all of this process, which is about to end.
    pub(crate) fn remove_all() {
        if let Ok(memories) = MEMORIES.lock() {
            memories.iter().for_each(|path| drop(fs::remove_dir_all(path)));
        }
    }

    /// Makes one that nobody else may look into.
    pub(crate) fn make() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("muster-agent-{}", hex::encode(host::random::<8>()?)));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).map_err(|source| Error::Write { path: path.clone(), source })?;
        if let Ok(mut memories) = MEMORIES.lock() {
            memories.push(path.clone());
        }
        Ok(Self(path))
    }

    /// Returns its path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // What is left behind is a file list in a folder of this user alone.
        let _ = fs::remove_dir_all(&self.0);
        if let Ok(mut memories) = MEMORIES.lock() {
            memories.retain(|path| *path != self.0);
        }
    }
}

/// Shows a fact by the lines that a person is shown everywhere.
fn show(fact: &Fact, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", fact.subject().as_str())?;
    render(fact).iter().try_for_each(|line| writeln!(out, "  {line}"))
}

/// Takes the file-integrity baseline of the agent with this `state` folder afresh. What is written belongs to the folder's
/// owner.
///
/// # Errors
///
/// When the scan does not end or the baseline cannot be written.
pub fn rebaseline(state: &Path, settings: &Settings, now: Timestamp, reason: &str) -> Result<Outcome, Error> {
    let written = |source| Error::Write { path: state.join("probes/file_integrity"), source };
    let folder = probe::Folder::open(state, &["probes", "file_integrity"]).map_err(written)?;
    probe::file_integrity::rebaseline(&host::Live::new(), settings, folder.path(), now, reason).map_err(written)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_proto::report;

    use super::*;
    use crate::{prober::Prober, run::Reach};

    fn now() -> Timestamp {
        muster_proto::time::Clock::now(&muster_proto::time::SystemClock)
    }

    /// Returns what a look by hand shows of file integrity.
    fn shown(state: &Path, settings: &Settings) -> serde_json::Value {
        let mut out = Vec::new();
        let not_copied = probe(Some("file_integrity"), None, state, settings, now(), Format::Json, &mut out).unwrap();
        assert!(not_copied.is_none(), "{not_copied:?}");
        serde_json::from_slice::<serde_json::Value>(&out).unwrap()[0]["state"].clone()
    }

    fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut contents: Vec<_> = entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        contents.sort();
        contents
    }

    #[tokio::test]
    async fn a_look_by_hand_sees_what_the_agent_would_and_leaves_its_memory_alone() {
        let (state, watched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(watched.path().join("same"), "same").unwrap();
        fs::write(watched.path().join("changed"), "before").unwrap();
        let settings = Settings { watched_paths: vec![watched.path().to_owned()], ..Settings::default() };
        let prober = Prober::start(settings.clone(), &state.path().join("probes")).unwrap();
        let first = prober.look(report::Probe::FileIntegrity, Reach::Full, now()).await;
        let first = serde_json::to_value(&first.facts).unwrap()[0]["state"].clone();
        tokio::time::sleep(Duration::from_millis(20)).await;
        fs::write(watched.path().join("changed"), "after").unwrap();
        let memory = state.path().join("probes/file_integrity");
        let before = contents(&memory);

        // The agent's watch sets may have come from its collector: those of its configuration are others.
        let by_hand = shown(state.path(), &Settings::default());
        assert_eq!(by_hand["baseline"], first["baseline"], "{by_hand}");
        assert_eq!(by_hand["changes_total"], 1, "{by_hand}");
        let change = &by_hand["changes"][0];
        assert_eq!(change["path"].as_str(), watched.path().join("changed").to_str(), "{change}");
        assert_eq!(change["while_not_observed"], false, "{change}");
        assert_eq!(contents(&memory), before);
    }

    #[test]
    fn a_look_by_hand_without_an_agent_takes_a_baseline_for_itself() {
        let (state, watched) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(watched.path().join("file"), "content").unwrap();
        let settings = Settings { watched_paths: vec![watched.path().to_owned()], ..Settings::default() };
        let by_hand = shown(&state.path().join("absent"), &settings);
        assert_eq!((&by_hand["changes_total"], &by_hand["baseline"]["reason"]), (&0.into(), &"first scan".into()));
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_look_by_hand_says_that_it_could_not_copy_what_the_agent_remembers() {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join("probes")).unwrap();
        // As what is refused to the user: no folder that can be read.
        fs::write(state.path().join("probes/capacity"), "").unwrap();
        let (mut out, settings) = (Vec::new(), Settings::default());
        let not_copied = probe(Some("capacity"), None, state.path(), &settings, now(), Format::Text, &mut out).unwrap();
        assert!(not_copied.is_some());
        assert!(out.starts_with(b"capacity"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn files_that_are_not_whole_or_no_files_are_not_copied() {
        let (own, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, content) in [("baseline", "1"), ("changes.new", "2"), ("baseline.draft", "3")] {
            fs::write(own.path().join(name), content).unwrap();
        }
        fs::create_dir(own.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", own.path().join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            own.path().join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        remember(own.path(), folder.path()).unwrap();
        assert_eq!(contents(folder.path()), [(folder.path().join("baseline"), b"1".to_vec())]);
        assert!(remember(&own.path().join("absent"), folder.path()).is_err());
    }
}
