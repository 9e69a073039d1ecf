//! What `muster-agent fim` costs beside AIDE on the same tree, beside a bare walk, and how much memory it takes of a large one.
//!
//! `cargo run --release -p muster-tests --bin bench-fim -- [--rounds N] [--files N] [--entries N] [--tree DIR] [--agent PROGRAM]` (3
//! rounds; a copy of at least 65,000 files and 1.6 GB of `/usr`; 1,000,000 entries for memory, and a tenth of them)
//!
//! Ours and AIDE take turns in each round; a ratio is of the least of each, as what is more is of the machine's other work.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use muster_tests::{
    bench::{agent, argument, circumstances, keep, per, rounded, strip, text},
    harness::Folder,
    integrity::{Aide, Cost, Own, bare, cost, tree},
};
use serde_json::{Value, json};

/// What is aimed at: ratios to AIDE from below, ratios to the bare walk and reading from above, MiB of memory.
const BASELINE_WALL: f64 = 8.0;
const CHECK_CPU: f64 = 14.0;
const CHECK_WALL: f64 = 10.0;
const QUICK_OF_WALK: f64 = 1.5;
const CHECK_OF_PARTS: f64 = 1.15;
const PEAK_MIB: f64 = 24.0;

fn main() -> anyhow::Result<()> {
    // A part of the measuring runs as a program of its own, so that its start counts as that of the others does.
    if let Some(part) = text("part") {
        return alone(&part);
    }
    let before = circumstances();
    let folder = Folder::new();
    let program = folder.join("muster-agent");
    strip(&agent(), &program)?;
    let mut results = json!({
        "benchmark": "fim", "machine": before,
        "aims": {
            "baseline_wall_over_aide": BASELINE_WALL, "check_cpu_over_aide": CHECK_CPU, "check_wall_over_aide": CHECK_WALL,
            "quick_over_bare_walk": QUICK_OF_WALK, "check_cpu_over_parts": CHECK_OF_PARTS, "peak_mib": PEAK_MIB,
        },
    });
    results["against_aide"] = against_aide(&program)?;
    results["memory"] = memory(&program)?;
    println!("{}", serde_json::to_string_pretty(&rounded(&results))?);
    println!("kept in {}", keep("fim", &results)?.display());
    Ok(())
}

/// Runs a part alone: a walk, a walk that reads, or hashing.
fn alone(part: &str) -> anyhow::Result<()> {
    let tree = || text("tree").map(PathBuf::from).context("--tree DIR");
    match part {
        "walk" => drop(bare::walk(&tree()?, false)?),
        "read" => drop(bare::walk(&tree()?, true)?),
        "hash" => drop(bare::hash(argument("bytes", 0))),
        _ => anyhow::bail!("no part is named {part}"),
    }
    Ok(())
}

fn part(name: &str, more: &[&str]) -> anyhow::Result<Cost> {
    let mut command = Command::new(std::env::current_exe()?);
    let cost = cost::of(command.args(["--part", name]).args(more).stdin(Stdio::null()).stdout(Stdio::null()))?;
    ensure!(cost.status.success(), "the part {name} failed");
    Ok(cost)
}

/// The costs of one thing in each round.
#[derive(Debug, Default)]
struct Runs(Vec<Cost>);

impl Runs {
    fn wall(&self) -> f64 {
        self.0.iter().map(|cost| cost.wall_seconds).fold(f64::INFINITY, f64::min)
    }

    fn cpu(&self) -> f64 {
        self.0.iter().map(|cost| cost.cpu_seconds).fold(f64::INFINITY, f64::min)
    }

    fn peak_mib(&self) -> f64 {
        self.0.iter().map(|cost| per(lossy(cost.peak_bytes), 1 << 20)).fold(0.0, f64::max)
    }

    fn told(&self) -> Value {
        json!({ "wall_seconds": self.wall(), "cpu_seconds": self.cpu(), "peak_mib": self.peak_mib() })
    }
}

#[allow(clippy::cast_precision_loss, reason = "below 2^53")]
fn lossy(number: u64) -> f64 {
    number as f64
}

/// Everything that a round measures.
#[derive(Debug, Default)]
struct Rounds {
    aide_init: Runs,
    aide_check: Runs,
    baseline: Runs,
    check: Runs,
    check_one_reader: Runs,
    quick: Runs,
    walk: Runs,
    read: Runs,
    hash: Runs,
}

fn against_aide(agent: &Path) -> anyhow::Result<Value> {
    let folder = Folder::new();
    let tree = match text("tree") {
        Some(tree) => PathBuf::from(tree),
        None => {
            let tree = folder.join("tree");
            let files = argument("files", 65_000);
            tree::copy(Path::new("/usr"), &tree, files, files * 25_000)?;
            tree
        }
    };
    // All that follows finds the tree in the page cache.
    let counts = bare::walk(&tree, true)?;
    let (aide, own) = (Aide::at(&tree, folder.path())?, Own::at(&tree, folder.path()).with(agent));
    let mut rounds = Rounds::default();
    for _ in 0..argument("rounds", 3).max(1) {
        round(&mut rounds, &aide, &own, &tree, counts.bytes)?;
    }
    Ok(told(&rounds, counts))
}

/// Measures everything once, ours and AIDE in turns.
fn round(rounds: &mut Rounds, aide: &Aide, own: &Own, tree: &Path, bytes: u64) -> anyhow::Result<()> {
    let unchanged = |what: &str, more: &[&str]| {
        let (told, cost) = own.run(what, more)?;
        ensure!(told.code == 0 && told.changes.is_empty(), "fim {what} of an unchanged tree: {}", told.summary);
        anyhow::Ok(cost)
    };
    let tree = tree.to_str().context("a path in UTF-8")?;
    rounds.aide_init.0.push(aide.init()?);
    rounds.baseline.0.push(own.baseline()?);
    let (reported, cost) = aide.check()?;
    ensure!(reported.is_empty(), "aide reports {} changes of an unchanged tree", reported.len());
    rounds.aide_check.0.push(cost);
    rounds.check.0.push(unchanged("check", &[])?);
    rounds.read.0.push(part("read", &["--tree", tree])?);
    rounds.hash.0.push(part("hash", &["--bytes", &bytes.to_string()])?);
    rounds.check_one_reader.0.push(unchanged("check", &["--readers", "1"])?);
    // The short ones more often: a moment of other work is much of them.
    for _ in 0..5 {
        rounds.walk.0.push(part("walk", &["--tree", tree])?);
        rounds.quick.0.push(unchanged("quick", &[])?);
    }
    Ok(())
}

fn told(rounds: &Rounds, counts: bare::Counts) -> Value {
    let parts = rounds.read.cpu() + rounds.hash.cpu();
    json!({
        "aide": Aide::version(),
        "tree": { "entries": counts.entries, "files": counts.files, "bytes": counts.bytes },
        "ratios": {
            "baseline_wall_over_aide": rounds.aide_init.wall() / rounds.baseline.wall(),
            "baseline_cpu_over_aide": rounds.aide_init.cpu() / rounds.baseline.cpu(),
            "check_wall_over_aide": rounds.aide_check.wall() / rounds.check.wall(),
            "check_cpu_over_aide": rounds.aide_check.cpu() / rounds.check.cpu(),
            "check_one_reader_cpu_over_aide": rounds.aide_check.cpu() / rounds.check_one_reader.cpu(),
            "quick_wall_over_bare_walk": rounds.quick.wall() / rounds.walk.wall(),
            "quick_cpu_over_bare_walk": rounds.quick.cpu() / rounds.walk.cpu(),
            "check_cpu_over_parts": rounds.check.cpu() / parts,
            "check_one_reader_cpu_over_parts": rounds.check_one_reader.cpu() / parts,
        },
        "costs": {
            "aide_init": rounds.aide_init.told(), "aide_check": rounds.aide_check.told(),
            "baseline": rounds.baseline.told(), "check": rounds.check.told(),
            "check_one_reader": rounds.check_one_reader.told(), "quick": rounds.quick.told(),
            "bare_walk": rounds.walk.told(), "bare_walk_and_read": rounds.read.told(), "bare_hash": rounds.hash.told(),
        },
    })
}

/// Measures the memory that generated trees take, of which one has ten times as many entries as the other.
fn memory(agent: &Path) -> anyhow::Result<Value> {
    let entries = argument("entries", 1_000_000);
    let sizes = [entries / 10, entries];
    sizes.into_iter().map(|entries| memory_of(agent, entries)).collect()
}

fn memory_of(agent: &Path, entries: u64) -> anyhow::Result<Value> {
    let folder = roomy()?;
    let root = folder.path().join("tree");
    fs::create_dir(&root)?;
    tree::generate(&root, entries)?;
    let own = Own::at(&root, folder.path()).with(agent);
    let one = |cost: Cost| Runs(vec![cost]).told();
    let baseline = one(own.baseline()?);
    let database = fs::metadata(own.database())?.len();
    let mut measured = json!({ "entries": entries, "baseline": baseline, "baseline_bytes": database });
    for what in ["check", "quick"] {
        let (told, cost) = own.run(what, &[])?;
        ensure!(told.code == 0, "fim {what} of an unchanged tree: {}", told.summary);
        measured[what] = one(cost);
    }
    // Every entry but the root and folders differs.
    let status = Command::new("find").arg(&root).args(["-type", "f", "-exec", "chmod", "600", "{}", "+"]).status()?;
    ensure!(status.success(), "the files cannot be changed");
    for what in ["check", "quick"] {
        let (told, cost) = own.run(what, &[])?;
        ensure!(told.code == 1 && told.changes.len() as u64 > entries / 10 * 9, "{}", told.summary);
        measured[format!("{what}_of_all_changed")] = one(cost);
    }
    Ok(measured)
}

/// Returns a folder in memory where there is such, as a million files are made and removed sooner there.
fn roomy() -> anyhow::Result<tempfile::TempDir> {
    let builder = |parent: &Path| tempfile::Builder::new().prefix("muster-bench-").tempdir_in(parent);
    Ok(builder(Path::new("/dev/shm")).or_else(|_| builder(&std::env::temp_dir()))?)
}
