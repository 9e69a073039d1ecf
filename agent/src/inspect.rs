//! What `muster-agent probe` and `muster-agent capture` do: look once, here or at a capture, and show or keep it.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{DiskEncryption, Fact, Layer, Reading, Unknown, WatchState, render},
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

impl Memory {
    /// Makes one that nobody else may look into.
    pub(crate) fn make() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("muster-agent-{}", hex::encode(host::random::<8>()?)));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).map_err(|source| Error::Write { path: path.clone(), source })?;
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
    }
}

fn show(fact: &Fact, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", fact.subject().as_str())?;
    match fact {
        Fact::DiskEncryption(Reading::Known(state)) => show_disks(state, out),
        Fact::PatchLevel(Reading::Known(state)) => {
            for update in &state.pending {
                let kind = if update.security { "security" } else { "other" };
                let held = if update.held { ", held" } else { "" };
                writeln!(
                    out,
                    "  {} {} -> {} ({kind}, {}{held}) since {}",
                    update.package,
                    update.installed_version,
                    update.candidate_version,
                    update.origin,
                    update.first_offered_time
                )?;
            }
            writeln!(out, "  {} pending, all known: {}", state.pending.len(), told(&state.pending_complete))?;
            writeln!(out, "  security metadata of {}", told(&state.security_metadata_time))?;
            writeln!(out, "  kernel {}, newest {}", told(&state.running_kernel), told(&state.newest_kernel))?;
            writeln!(out, "  restart needed: {}", told(&state.reboot_required))?;
            writeln!(out, "  automatic updates: {}", told(&state.automatic_updates.enabled))
        }
        Fact::Software(Reading::Known(state)) => writeln!(out, "  {} packages", state.packages.len()),
        Fact::Firewall(Reading::Known(state)) => {
            for chain in &state.input_chains {
                writeln!(
                    out,
                    "  {} {} {}/{} {} priority {} policy {}: {} ({} rules)",
                    chain.engine.as_str(),
                    chain.family.as_str(),
                    chain.table,
                    chain.chain,
                    chain.hook.map_or("input", |hook| hook.as_str()),
                    chain.priority,
                    chain.policy.as_str(),
                    chain.default_verdict.as_str(),
                    chain.rule_count
                )?;
            }
            let inbound = |reading: &Reading<muster_proto::fact::Inbound>| match reading {
                Reading::Known(inbound) => inbound.as_str().to_owned(),
                Reading::Unknown { unknown } => of_unknown(unknown),
            };
            writeln!(out, "  inbound IPv4: {}", inbound(&state.inbound_ipv4))?;
            writeln!(out, "  inbound IPv6: {}", inbound(&state.inbound_ipv6))
        }
        Fact::Listeners(Reading::Known(state)) => state.listeners.iter().try_for_each(|listener| {
            let (protocol, program) = (listener.protocol.as_str(), told(&listener.program));
            let reachable = match &listener.reachable {
                Some(Reading::Known(reach)) => reach.as_str().to_owned(),
                Some(Reading::Unknown { unknown }) => of_unknown(unknown),
                None => "not told".to_owned(),
            };
            writeln!(out, "  {protocol} {} port {} {program} reachable: {reachable}", listener.address, listener.port)
        }),
        Fact::FileIntegrity(Reading::Known(state)) => {
            for change in &state.changes {
                writeln!(out, "  {} {} detected {}", change.kind.as_str(), change.path, change.detected_time)?;
            }
            for unreadable in &state.unreadable {
                writeln!(out, "  unreadable {}: {}", unreadable.path, of_unknown(&unreadable.unknown))?;
            }
            writeln!(
                out,
                "  {} entries, {} changed, {} explained, {} unreadable; baseline of {} ({})",
                state.entries,
                state.changes_total,
                state.explained_total,
                state.unreadable_total,
                state.baseline.created_time,
                state.baseline.reason
            )
        }
        Fact::Sensors(Reading::Known(_))
        | Fact::Clock(Reading::Known(_))
        | Fact::Boot(Reading::Known(_))
        | Fact::Capacity(Reading::Known(_))
        | Fact::Backup(Reading::Known(_))
        | Fact::Logging(Reading::Known(_)) => show_lines(fact, out),
        Fact::System(Reading::Known(state)) => show_fields(state, out),
        Fact::Agent(Reading::Known(state)) => show_fields(state, out),
        Fact::Accounts(_) | Fact::RemoteAccess(_) | Fact::ScreenLock(_) | Fact::RemovableMedia(_) => {
            muster_proto::fact::render(fact).iter().try_for_each(|line| writeln!(out, "  {line}"))
        }
        Fact::DiskEncryption(Reading::Unknown { unknown })
        | Fact::PatchLevel(Reading::Unknown { unknown })
        | Fact::Software(Reading::Unknown { unknown })
        | Fact::Firewall(Reading::Unknown { unknown })
        | Fact::Listeners(Reading::Unknown { unknown })
        | Fact::FileIntegrity(Reading::Unknown { unknown })
        | Fact::Sensors(Reading::Unknown { unknown })
        | Fact::Clock(Reading::Unknown { unknown })
        | Fact::Boot(Reading::Unknown { unknown })
        | Fact::Capacity(Reading::Unknown { unknown })
        | Fact::Backup(Reading::Unknown { unknown })
        | Fact::Logging(Reading::Unknown { unknown })
        | Fact::System(Reading::Unknown { unknown })
        | Fact::Agent(Reading::Unknown { unknown }) => writeln!(out, "  {}", of_unknown(unknown)),
    }
}

/// Shows a fact by the lines that a person is shown everywhere.
fn show_lines(fact: &Fact, out: &mut dyn Write) -> io::Result<()> {
    render(fact).iter().try_for_each(|line| writeln!(out, "  {line}"))
}

/// Shows each field of a flat state by its name in JSON.
fn show_fields(state: &impl serde::Serialize, out: &mut dyn Write) -> io::Result<()> {
    let value = serde_json::to_value(state)?;
    for (name, value) in value.as_object().into_iter().flatten() {
        let text = match value.get("unknown") {
            Some(unknown) => serde_json::from_value(unknown.clone()).map(|unknown| of_unknown(&unknown))?,
            None => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        };
        writeln!(out, "  {name}: {text}")?;
    }
    Ok(())
}

fn show_disks(state: &DiskEncryption, out: &mut dyn Write) -> io::Result<()> {
    let yes_no = |encrypted: &Reading<bool>| match encrypted {
        Reading::Known(true) => "encrypted".to_owned(),
        Reading::Known(false) => "not encrypted".to_owned(),
        Reading::Unknown { unknown } => of_unknown(unknown),
    };
    for volume in &state.volumes {
        let below: String = volume.layers.iter().map(|layer| format!(" <- {}", of_layer(layer))).collect();
        let (kind, encrypted) = (volume.kind.as_str(), yes_no(&volume.encrypted));
        writeln!(out, "  {}  {}{below}   {kind}, {encrypted}", volume.mount_point, volume.file_system)?;
        for folder in &volume.encrypted_folders {
            writeln!(out, "    {folder}  fscrypt   encrypted")?;
        }
    }
    for swap in &state.swap_areas {
        let below: String = swap.layers.iter().map(|layer| format!(" <- {}", of_layer(layer))).collect();
        writeln!(out, "  swap {}  {}{below}   {}", swap.name, swap.kind.as_str(), yes_no(&swap.encrypted))?;
    }
    Ok(())
}

/// Returns such as `cr (LUKS2, aes-xts-plain64 512)` or `sda1`.
fn of_layer(layer: &Layer) -> String {
    let name = if layer.name.is_empty() { &layer.device } else { &layer.name };
    match &layer.crypt {
        Some(crypt) => {
            let (cipher, bits) = (told(&crypt.cipher), told(&crypt.key_bits));
            format!("{name} ({}, {cipher} {bits})", crypt.format.as_str().to_uppercase())
        }
        None if layer.name.is_empty() => name.to_string(),
        None => format!("{name} ({})", layer.kind.as_str()),
    }
}

fn told<T: ToString>(reading: &Reading<T>) -> String {
    match reading {
        Reading::Known(value) => value.to_string(),
        Reading::Unknown { unknown } => of_unknown(unknown),
    }
}

/// Returns such as `unknown (forbidden: read /etc/shadow: ...)`.
pub(crate) fn of_unknown(unknown: &Unknown) -> String {
    let cause = serde_json::to_value(unknown.cause).ok().and_then(|cause| cause.as_str().map(str::to_owned));
    let cause = cause.unwrap_or_default().replace('_', " ");
    if unknown.detail.is_empty() {
        format!("unknown ({cause})")
    } else {
        format!("unknown ({cause}: {})", unknown.detail)
    }
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
