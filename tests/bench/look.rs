//! What one full look of every probe costs a server with two thousand packages, and which programs it starts.
//!
//! `cargo run --release -p muster-tests --bin bench-look -- [--times N] [--agent PROGRAM]` (5; the one built beside it)
//!
//! Root on Debian alone: the looks are taken in a mount namespace in which dpkg's status file has so many real packages. All else is
//! the machine's own, its package lists too.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use muster_agent::probe::PROBES;
use muster_tests::{
    bench::{argument, circumstances, keep, rounded},
    harness::{Folder, agent::private_mounts, program},
};
use serde_json::{Value, json};

/// What is aimed at: seconds of CPU, MiB of memory.
const AIMS: (f64, f64) = (1.0, 40.0);
const PACKAGES: usize = 2000;
/// Every program that a look may start on Debian, and why it is not done by reading.
const REASONS: &[(&str, &str)] = &[
    ("/usr/bin/apt-config", "apt's settings have includes, scopes, clears and directives that only apt reads rightly"),
    ("/usr/bin/dpkg", "apt-config starts it, to learn the architectures of the host"),
];
const STATUS: &str = "/var/lib/dpkg/status";

/// What one look cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    cpu_seconds: f64,
    peak_bytes: u64,
}

fn main() -> anyhow::Result<()> {
    let mut before = circumstances();
    if given().is_some() {
        before["build"] = json!("of the agent that was given");
    }
    let folder = Folder::new();
    let packages = make_status(&folder.join("status"))?;
    let agent = agent(&folder)?;
    let times = argument("times", 5);
    let mut parts = serde_json::Map::new();
    for probe in PROBES {
        let cost = least(times, &agent, &folder, Some(probe.name()))?;
        parts.insert(
            probe.name().to_owned(),
            json!({ "cpu_seconds": cost.cpu_seconds, "peak_mib": mib(cost.peak_bytes) }),
        );
    }
    let all = least(times, &agent, &folder, None)?;
    let results = json!({
        "benchmark": "look", "machine": before,
        "aims": { "cpu_seconds": AIMS.0, "peak_mib": AIMS.1 },
        "packages": packages,
        "lists_bytes": muster_tests::bench::bytes_below(Path::new("/var/lib/apt/lists")),
        "watched_bytes": watched_bytes(),
        "cpu_seconds": all.cpu_seconds,
        "cpu_of_aim": all.cpu_seconds / AIMS.0,
        "peak_mib": mib(all.peak_bytes),
        "peak_of_aim": mib(all.peak_bytes) / AIMS.1,
        "each_alone_with_its_start": parts,
        "programs_started": programs_started(&agent, &folder)?,
    });
    println!("{}", serde_json::to_string_pretty(&rounded(&results))?);
    println!("kept in {}", keep("look", &results)?.display());
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
    let bytes = bytes as f64;
    bytes / 1_048_576.0
}

/// Returns the program of the argument `--agent`.
fn given() -> Option<PathBuf> {
    let mut args = std::env::args().skip_while(|arg| arg != "--agent");
    args.nth(1).map(PathBuf::from)
}

/// Returns the agent without its symbols, as packages ship it: a part of the look is the digest of the program itself.
fn agent(folder: &Folder) -> anyhow::Result<PathBuf> {
    let copy = folder.join("muster-agent");
    let source = given().unwrap_or_else(|| program("test-agent"));
    fs::copy(&source, &copy).with_context(|| format!("failed to copy {}", source.display()))?;
    let stripped = Command::new("strip").arg(&copy).status().context("strip: apt install binutils")?;
    ensure!(stripped.success(), "the agent cannot be stripped");
    Ok(copy)
}

/// Writes a status file of this machine's packages, filled up with such that its lists offer. Returns how many are installed.
fn make_status(path: &Path) -> anyhow::Result<usize> {
    let own = fs::read_to_string(STATUS).context("this is for Debian")?;
    let mut stanzas: Vec<String> =
        own.split("\n\n").filter(|text| !text.trim().is_empty()).map(str::to_owned).collect();
    let mut names: BTreeSet<String> =
        stanzas.iter().filter_map(|text| text.lines().next().map(str::to_owned)).collect();
    let is_installed = |text: &&String| text.contains("\nStatus: install ok installed\n");
    let mut installed = stanzas.iter().filter(is_installed).count();
    let mut offered = Command::new("apt-cache").arg("dumpavail").stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(offered.stdout.take().context("its output is piped")?).lines();
    while installed < PACKAGES {
        let mut stanza = Vec::new();
        for line in lines.by_ref() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            // dpkg keeps what a package is, and not where it was fetched.
            if !["Filename:", "Size:", "MD5sum:", "SHA256:"].iter().any(|field| line.starts_with(field)) {
                stanza.push(line);
            }
        }
        ensure!(!stanza.is_empty(), "the lists offer only {installed} packages: apt-get update");
        // A kernel would be one that runs not.
        if stanza[0].contains("linux-image") || !names.insert(stanza[0].clone()) {
            continue;
        }
        stanza.insert(1, "Status: install ok installed".to_owned());
        stanzas.push(stanza.join("\n"));
        installed += 1;
    }
    offered.kill()?;
    offered.wait()?;
    fs::write(path, stanzas.iter().map(|text| format!("{}\n\n", text.trim_end())).collect::<String>())?;
    Ok(installed)
}

/// Returns a look of the probe of this name, or of all, where the status file is the one made.
fn look(agent: &Path, folder: &Folder, probe: Option<&str>, tracer: &str) -> Command {
    let status = folder.join("status");
    let script = format!("mount --bind {} {STATUS} && exec {tracer} \"$0\" \"$@\"", status.display());
    let mut command = private_mounts(&script);
    command.arg(agent).arg("probe").args(probe).args(["-o", "json"]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Returns the least time of some looks, as what is more is of the machine's other work, and the most memory.
fn least(times: u64, agent: &Path, folder: &Folder, probe: Option<&str>) -> anyhow::Result<Cost> {
    let mut least: Option<Cost> = None;
    for _ in 0..times.max(1) {
        let mut child = look(agent, folder, probe, "").spawn()?;
        let cost = cost(&mut child)?;
        ensure!(child.wait()?.success(), "the look failed");
        least = Some(least.map_or(cost, |least| Cost {
            cpu_seconds: least.cpu_seconds.min(cost.cpu_seconds),
            peak_bytes: least.peak_bytes.max(cost.peak_bytes),
        }));
    }
    least.context("a look")
}

/// Waits for the end of a program that is not waited for yet, whose last numbers the kernel keeps until it is.
fn cost(child: &mut Child) -> anyhow::Result<Cost> {
    let folder = PathBuf::from(format!("/proc/{}", child.id()));
    let mut peak_bytes = 0;
    loop {
        let status = fs::read_to_string(folder.join("status"))?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        // Of a program that ended there is none.
        let peak = field("VmHWM:").and_then(|peak| peak.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024;
        peak_bytes = peak_bytes.max(peak);
        if field("State:").is_some_and(|state| state.starts_with('Z')) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let stat = fs::read_to_string(folder.join("stat"))?;
    let fields = stat.rsplit_once(')').context("a name in brackets")?.1.split_whitespace();
    // utime, stime, and those of the programs that it started and waited for: fields 14 to 17 of proc_pid_stat(5).
    let ticks: u64 = fields.skip(11).take(4).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    #[allow(clippy::cast_precision_loss, reason = "a look is short")]
    let cpu_seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Ok(Cost { cpu_seconds, peak_bytes })
}

/// Returns the programs that a full look starts, and those that these start, in order, each with its reason.
///
/// A program without one is an error: where a file suffices, none is to be started.
fn programs_started(agent: &Path, folder: &Folder) -> anyhow::Result<Vec<Value>> {
    let trace = folder.join("trace");
    let tracer = format!("strace -f -qq -e trace=execve,execveat -o {}", trace.display());
    ensure!(look(agent, folder, None, &tracer).status()?.success(), "the traced look failed: apt install strace");
    let calls = fs::read_to_string(trace)?;
    let programs = calls.lines().filter(|line| line.ends_with(" = 0"));
    let names = programs.filter_map(|line| line.split('"').nth(1)).filter(|name| Path::new(name) != agent);
    let with_reason = |name: &str| {
        let reason = REASONS.iter().find(|(program, _)| *program == name).map(|(_, reason)| *reason);
        Ok(json!({ "program": name, "reason": reason.with_context(|| format!("{name} is started without a reason"))? }))
    };
    names.map(with_reason).collect()
}

/// Returns the bytes of the files that file integrity reads by default.
fn watched_bytes() -> u64 {
    let sets =
        muster_agent::fim::sets::in_force(&muster_agent::probe::Settings::default(), &muster_agent::host::Live::new());
    sets.iter().flat_map(|set| &set.paths).map(|path| muster_tests::bench::bytes_below(path)).sum()
}
