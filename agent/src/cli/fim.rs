//! `muster-agent fim`: file integrity on its own, without a collector and as any user, and the baseline of a running agent.
//!
//! Exit codes of `baseline`, `check` and `quick`: 0 unchanged (or taken), 1 changed, 2 could not look, or not at everything.

use std::{
    io::{self, Write},
    path::{Component, Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use muster_proto::{
    fact::{Baseline as BaselineFact, Cause, Reading, Severity, UnreadablePath, WatchedPath, render},
    time::{Clock as _, SystemClock},
    words::counted,
};
use serde_json::json;

use super::Output;
use crate::{
    config::Config,
    fim::{
        Outcome,
        alone::{self, Item, Looked},
        check::Depth,
        sets::{self, Sets},
        show,
        store::Lock,
        watch_set::{Attributes, WatchSet},
    },
    host::{Live, Pace},
    identity, inspect,
};

/// Every file is read again within this many seconds.
const DAY: u64 = 86_400;
/// Something differs from the baseline.
const CHANGED: u8 = 1;
/// It could not be looked, or not at everything.
const NOT_LOOKED: u8 = 2;

const EXIT_CODES: &str = "Exit codes of baseline, check and quick: 0 nothing differs (baseline: taken, and everything was read); 1 something \
    differs, explained or\nnot; 2 nothing is known to differ, but it could not be looked, or not at everything: what could not be read is \
    listed.";

/// What `fim` does.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub(super) enum Fim {
    #[command(flatten)]
    Alone(Alone),
    /// Takes the baseline of this host's agent afresh: every difference up to now is accepted. The next report says so, with the
    /// reason. It is of the watch sets of the baseline in force; a profile or other settings cover what is new when the agent looks.
    Rebaseline {
        /// Why, for the auditor.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Shows the watch sets of this host's settings, or the default ones, each with the digest of its definition.
    ///
    /// A profile of the collector goes before them: `musterctl hosts show` tells which are in force.
    Sets {
        /// `json` for programs: an array, in the form of the settings.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
}

/// What needs no agent.
#[derive(Debug, Subcommand)]
pub(super) enum Alone {
    /// Takes a baseline of paths into a file.
    ///
    /// What is covered, and what is compared of it, is kept in the file: later looks cover the same. No agent and no collector is
    /// needed.
    Baseline(Baseline),
    /// Reads every file again and compares it with a baseline, which stays as it is.
    Check(Check),
    /// Compares with a baseline, and reads again only files whose metadata differs or that nobody read for a day.
    ///
    /// What it learns is kept beside the baseline, in FILE.changes, FILE.scans and FILE.owners, where they may be written. The baseline stays as
    /// it is.
    Quick(Check),
}

impl Alone {
    fn name(&self) -> &'static str {
        match self {
            Self::Baseline(_) => "baseline",
            Self::Check(_) => "check",
            Self::Quick(_) => "quick",
        }
    }

    fn look(&self) -> &Look {
        match self {
            Self::Baseline(options) => &options.look,
            Self::Check(options) | Self::Quick(options) => &options.look,
        }
    }
}

/// What `fim baseline` takes.
#[derive(Args, Debug)]
pub(super) struct Baseline {
    /// Path that is covered with everything below it; no link below it is followed.
    #[arg(long = "path", value_name = "PATH", required = true, num_args = 1..)]
    paths: Vec<PathBuf>,
    /// Pattern of what is left out with everything below it, such as `var/log/**`, from the root of the file system.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// What is compared, with commas between: `all`, or of type, content, size, mode, owner, group, modified_time, changed_time,
    /// inode, links, extended_attributes, folders. Without it: all but changed_time, inode, links and folders.
    #[arg(long, value_name = "LIST", value_parser = attributes)]
    attributes: Option<Attributes>,
    /// Crosses mount points below the paths.
    #[arg(long)]
    cross_mounts: bool,
    /// Puts the new baseline in the place of one that is there. What differed from that one is forgotten.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    look: Look,
}

/// What `fim check` and `fim quick` take.
#[derive(Args, Debug)]
pub(super) struct Check {
    /// Looks only at this path and what is below it; it must be covered. Without it: everything that the baseline covers.
    #[arg(long = "path", value_name = "PATH", num_args = 1..)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    look: Look,
}

#[derive(Args, Debug)]
struct Look {
    /// File of the baseline. Only its owner should be able to write it.
    #[arg(long, value_name = "FILE")]
    db: PathBuf,
    /// Threads that read files; at most as many as there are processors.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    readers: u16,
    /// Bytes that are read in a second, at most; 0 is without limit.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    rate: u64,
    /// `json` for programs: a line for each change and each entry that could not be read, and one at the end.
    #[arg(short, long, default_value = "text")]
    output: Output,
}

impl Baseline {
    fn set(&self) -> WatchSet {
        WatchSet {
            name: alone::SET.to_owned(),
            paths: self.paths.iter().map(|path| absolute(path)).collect(),
            include: Vec::new(),
            exclude: self.exclude.clone(),
            depth: 0,
            attributes: self.attributes.unwrap_or_default(),
            severity: Severity::Medium,
            owner: String::new(),
            cross_mounts: self.cross_mounts,
        }
    }
}

impl Check {
    fn paths(&self) -> Vec<PathBuf> {
        self.paths.iter().map(|path| absolute(path)).collect()
    }
}

/// Returns `path` from the root of the file system on. What cannot be made so is refused later.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // What is above the place that a link leads to is not what is above the link.
    let parts: Vec<_> = path.components().collect();
    let Some(last) = parts.iter().rposition(|part| *part == Component::ParentDir) else { return path };
    let (above, below) = parts.split_at(last + 1);
    match above.iter().collect::<PathBuf>().canonicalize() {
        Ok(above) => above.join(below.iter().collect::<PathBuf>()),
        Err(_) => path,
    }
}

fn attributes(list: &str) -> Result<Attributes, String> {
    if list == "all" {
        return Ok(Attributes::all());
    }
    Attributes::try_from(list.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>())
}

/// Runs `fim` with what needs no agent. What keeps it from looking is said, and ends with 2.
pub(super) fn alone(command: &Alone) -> ExitCode {
    let look = command.look();
    remove_drafts_when_stopped();
    let out = &mut io::BufWriter::new(io::stdout().lock());
    let told = match run(command) {
        Ok(looked) => tell(out, command.name(), look.output, &looked),
        Err(error) => fail(out, look.output, &error.into()),
    };
    let told = told.and_then(|code| out.flush().map(|()| code));
    told.unwrap_or_else(|error| {
        eprintln!("muster-agent: failed to write the output: {error}");
        ExitCode::from(NOT_LOOKED)
    })
}

fn run(command: &Alone) -> Result<Looked, alone::Error> {
    let host = Live::new();
    let options = command.look();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let look = alone::Look {
        file: &options.db,
        pace: Pace {
            readers: usize::from(options.readers).min(processors),
            bytes_per_second: options.rate,
            ..Pace::default()
        },
        now: SystemClock.now(),
        reread: Duration::from_secs(DAY),
    };
    match command {
        Alone::Baseline(options) => alone::take(&host, &look, options.set(), options.force),
        Alone::Check(options) => alone::compare(&host, &look, Depth::Full, &options.paths()),
        Alone::Quick(options) => alone::compare(&host, &look, Depth::Quick, &options.paths()),
    }
}

/// What was told, by number.
#[derive(Debug, Default)]
struct Counts {
    changes: u64,
    explained: u64,
    unreadable: u64,
    /// Paths that are to be covered and do not exist.
    absent: u64,
}

impl Counts {
    fn add(&mut self, item: &Item) {
        match item {
            Item::Change(change) if change.explanation.is_some() => self.explained += 1,
            Item::Change(_) => self.changes += 1,
            Item::Unreadable(_) => self.unreadable += 1,
        }
    }

    /// Returns the word for it, and the exit code. A change is one, whatever could not be read beside it.
    fn result(&self, name: &str) -> (&'static str, u8) {
        match (self.changes + self.explained, self.unreadable + self.absent) {
            (0, 0) if name == "baseline" => ("taken", 0),
            (0, 0) => ("unchanged", 0),
            (0, _) => ("incomplete", NOT_LOOKED),
            (_, _) => ("changed", CHANGED),
        }
    }
}

fn tell(out: &mut dyn Write, name: &str, output: Output, looked: &Looked) -> io::Result<ExitCode> {
    let mut counts = Counts::default();
    looked.each(&mut |item| {
        counts.add(&item);
        match (output, &item) {
            (Output::Json, Item::Change(change)) => writeln!(out, "{}", json!({ "type": "change", "change": change })),
            (Output::Json, Item::Unreadable(UnreadablePath { path, unknown })) => {
                writeln!(out, "{}", json!({ "type": "unreadable", "path": path, "unknown": unknown }))
            }
            (Output::Text, Item::Change(change)) => {
                show::change(change).iter().try_for_each(|line| writeln!(out, "{line}"))
            }
            (Output::Text, Item::Unreadable(unreadable)) => writeln!(out, "{}", show::unreadable(unreadable)),
        }
    })?;
    let outcome = &looked.outcome;
    let is_absent =
        |path: &&WatchedPath| matches!(&path.entries, Reading::Unknown { unknown } if unknown.cause == Cause::Absent);
    counts.absent = outcome.paths.iter().filter(is_absent).count() as u64;
    let (result, code) = counts.result(name);
    match output {
        Output::Json => writeln!(
            out,
            "{}",
            json!({
                "type": "summary", "command": name, "result": result, "baseline": outcome.baseline, "paths": outcome.paths,
                "entries": outcome.entries, "changes": counts.changes, "explained": counts.explained,
                "unreadable": counts.unreadable, "state_digest": hex::encode(outcome.state_digest),
                "entries_seen": outcome.stats.entries_seen, "files_read": outcome.stats.files_read,
                "bytes_read": outcome.stats.bytes_read,
            })
        )?,
        Output::Text => summary(out, result, outcome, &counts)?,
    }
    Ok(ExitCode::from(code))
}

fn summary(out: &mut dyn Write, result: &str, outcome: &Outcome, counts: &Counts) -> io::Result<()> {
    let Counts { changes, explained, unreadable, absent: _ } = counts;
    for path in &outcome.paths {
        if let Reading::Unknown { unknown } = &path.entries {
            writeln!(out, "{:<10} {}  {}", "not there", path.path, render::unknown(unknown))?;
        }
    }
    let read = match outcome.stats.bytes_read {
        bytes @ 0..0x10_0000 => format!("{bytes} bytes"),
        bytes => format!("{} MiB", bytes >> 20),
    };
    writeln!(
        out,
        "{result}: {}, {} differ ({explained} of them explained), {unreadable} not read; files read: {} ({read})",
        counted(outcome.entries, "entry"),
        changes + explained,
        outcome.stats.files_read
    )?;
    let BaselineFact { id, created_time, digest, .. } = &outcome.baseline;
    writeln!(out, "baseline {id} of {created_time}, digest {digest}")
}

fn fail(out: &mut dyn Write, output: Output, error: &anyhow::Error) -> io::Result<ExitCode> {
    match output {
        Output::Text => eprintln!("muster-agent: {error:#}"),
        Output::Json => writeln!(out, "{}", json!({ "type": "error", "error": format!("{error:#}") }))?,
    }
    Ok(ExitCode::from(NOT_LOOKED))
}

/// Removes what a look has written and not put into force when it is stopped from outside: by Ctrl-C, by SIGTERM, by the end of its terminal.
fn remove_drafts_when_stopped() {
    std::thread::spawn(move || {
        let stopped = super::runtime().and_then(|runtime| Ok(runtime.block_on(stop_signal())?));
        // Without it the look goes on, and the next one removes what this one may leave.
        let Ok(signal) = stopped else { return };
        for draft in Lock::drafts() {
            // It was not made, or took its name.
            let _ = std::fs::remove_file(draft);
        }
        inspect::Memory::remove_all();
        // As shells count: 128 and the signal.
        std::process::exit(128 + signal);
    });
}

#[cfg(unix)]
async fn stop_signal() -> io::Result<i32> {
    use tokio::signal::unix::{SignalKind, signal};

    let [interrupt, terminate, hangup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let (mut interrupted, mut terminated, mut hung_up) = (signal(interrupt)?, signal(terminate)?, signal(hangup)?);
    tokio::select! {
        _ = interrupted.recv() => Ok(interrupt.as_raw_value()),
        _ = terminated.recv() => Ok(terminate.as_raw_value()),
        _ = hung_up.recv() => Ok(hangup.as_raw_value()),
    }
}

#[cfg(not(unix))]
async fn stop_signal() -> io::Result<i32> {
    tokio::signal::ctrl_c().await.map(|()| 2)
}

/// Shows the watch sets of the settings.
pub(super) fn show_sets(config: &Config, output: Output) -> anyhow::Result<ExitCode> {
    let sets = Sets::new(&sets::in_force(&config.probes, &Live::new()))?;
    match output {
        Output::Text => super::print(&sets::render(&sets))?,
        Output::Json => {
            let told = sets.sets().iter().zip(sets.definitions()).map(|(set, digest)| {
                let mut told = serde_json::to_value(set)?;
                told["digest"] = json!(digest.to_string());
                Ok(told)
            });
            super::print(&format!("{}\n", serde_json::Value::Array(told.collect::<anyhow::Result<_>>()?)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the baseline of this host's agent afresh.
pub(super) fn rebaseline(config: &Config, reason: &str) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!reason.trim().is_empty(), "a reason is needed: it is part of the evidence");
    let state = &config.state_directory;
    anyhow::ensure!(
        !matches!(identity::Folder::below(state).identity(), Ok(None)),
        "no agent is enrolled whose state is in {}: name its folder with --state; for a baseline without an agent there is \
         'muster-agent fim baseline'",
        state.display()
    );
    match identity::Folder::open(state) {
        // Root may act for the agent: what it writes there is given to the agent.
        Ok(_) | Err(identity::Error::Owner { user: 0, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let Outcome { baseline, unreadable_total, .. } =
        inspect::rebaseline(state, &config.probes, SystemClock.now(), reason)?;
    let entries = counted(baseline.entries, "entry");
    super::print(&format!("baseline {} of {entries}, taken {}\n", baseline.id, baseline.created_time))?;
    if unreadable_total > 0 {
        eprintln!(
            "muster-agent: {} could not be read: the next report lists what and why",
            counted(unreadable_total, "entry")
        );
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{super::Cli, *};

    fn parsed(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["muster-agent", "fim"].iter().chain(arguments))
    }

    #[cfg(unix)]
    #[test]
    fn what_is_above_a_place_behind_a_link_is_above_that_place() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(real.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a/b", real.join("link")).unwrap();
        assert_eq!(absolute(&real.join("link/../conf")), real.join("a/conf"));
        assert_eq!(absolute(&real.join("a/./b/../conf")), real.join("a/conf"));
        // The last part may be a link, which is not followed.
        assert_eq!(absolute(&real.join("a/../link")), real.join("link"));
        assert_eq!(absolute(&real.join("absent/../conf")), real.join("absent/../conf"));
    }

    #[test]
    fn a_state_folder_of_no_agent_is_refused_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { state_directory: folder.path().join("typo"), ..Config::default() };
        let error = rebaseline(&config, "reason").unwrap_err().to_string();
        assert!(error.contains("--state") && !config.state_directory.exists(), "{error}");
    }

    #[test]
    fn what_is_compared_is_named_or_all() {
        assert_eq!(attributes("all").unwrap(), Attributes::all());
        assert_eq!(attributes("content, mode").unwrap(), Attributes::CONTENT.with(Attributes::MODE));
        assert!(attributes("contents").unwrap_err().contains("contents"));
        let wrong = parsed(&["baseline", "--db", "f", "--path", "/etc", "--attributes", "contents"]).unwrap_err();
        assert_eq!(wrong.exit_code(), i32::from(NOT_LOOKED));
    }

    #[test]
    fn a_baseline_needs_paths_and_a_look_does_not() {
        assert!(parsed(&["baseline", "--db", "f"]).is_err());
        assert!(parsed(&["baseline", "--db", "f", "--path", "/etc", "/usr", "--path", "/boot"]).is_ok());
        for look in ["check", "quick"] {
            assert!(parsed(&[look, "--db", "f"]).is_ok());
            assert!(parsed(&[look]).is_err(), "of which baseline?");
        }
        assert!(parsed(&["check", "--db", "f", "--readers", "0"]).is_err());
    }

    #[test]
    fn a_look_that_did_not_see_all_is_never_unchanged() {
        let counts = |changes, explained, unreadable| Counts { changes, explained, unreadable, absent: 0 };
        for (counts, name, expected) in [
            (counts(0, 0, 0), "check", ("unchanged", 0)),
            (counts(0, 0, 0), "baseline", ("taken", 0)),
            (counts(0, 0, 1), "quick", ("incomplete", NOT_LOOKED)),
            (counts(0, 0, 1), "baseline", ("incomplete", NOT_LOOKED)),
            (counts(1, 0, 1), "check", ("changed", CHANGED)),
            (counts(0, 1, 0), "check", ("changed", CHANGED)),
            (Counts { absent: 1, ..Counts::default() }, "baseline", ("incomplete", NOT_LOOKED)),
            (Counts { absent: 1, ..counts(1, 0, 0) }, "check", ("changed", CHANGED)),
        ] {
            assert_eq!(counts.result(name), expected, "{counts:?}");
        }
    }
}
