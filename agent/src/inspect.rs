//! What `muster-agent probe` and `muster-agent capture` do: look once, here or at a capture, and show or keep it.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

use muster_proto::{
    fact::{Fact, WatchState, render},
    time::Timestamp,
};

use crate::{
    host::{self, Host, Live, Recorded, Recording, recorded},
    probe::{self, Look, Probe, Settings},
};

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
/// With `capture`, it looks at that folder as of the time it was made; else at this machine.
///
/// # Errors
///
/// When there is no such probe or capture, or nothing can be written.
pub fn probe(
    name: Option<&str>,
    capture: Option<&Path>,
    settings: &Settings,
    now: Timestamp,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let probes = chosen(name)?;
    let facts = match capture {
        Some(folder) => {
            let host = Recorded::at(folder)?;
            look(&host, &probes, settings, host.captured())?
        }
        None => look(&Live::new(), &probes, settings, now)?,
    };
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &facts).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => facts.iter().try_for_each(|fact| show(fact, out))?,
    }
    Ok(())
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
    look(&recording, &probes, settings, now)?;
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

/// Looks with a memory that is forgotten after, so that the agent's own is left alone.
fn look(host: &dyn Host, probes: &[&dyn Probe], settings: &Settings, now: Timestamp) -> Result<Vec<Fact>, Error> {
    let memory = Memory::make()?;
    let mut facts = Vec::new();
    for probe in probes {
        let folder = memory.0.join(probe.name());
        fs::create_dir(&folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
        let look = Look {
            host,
            now,
            settings,
            memory: &folder,
            watch: WatchState::ScanOnly,
            run: 1,
            files: Default::default(),
        };
        facts.extend(probe.look(&look));
    }
    Ok(facts)
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
pub fn rebaseline(
    state: &Path,
    settings: &Settings,
    now: Timestamp,
    reason: &str,
) -> Result<muster_proto::fact::Baseline, Error> {
    let written = |source| Error::Write { path: state.join("probes/file_integrity"), source };
    let folder = probe::Folder::open(state, &["probes", "file_integrity"]).map_err(written)?;
    probe::file_integrity::rebaseline(&host::Live::new(), settings, folder.path(), now, reason).map_err(written)
}
