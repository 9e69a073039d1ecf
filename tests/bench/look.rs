//! What one full look of every probe costs a server with two thousand packages, and which programs it starts.
//!
//! `cargo run --release -p muster-tests --bin bench-look -- [--times N] [--agent PROGRAM] [--root DIR]` (5; the one built beside it; `/`)
//!
//! Root on Debian alone. On this machine itself, dpkg's status file has so many real packages, and all else is the machine's own. A
//! root folder of Debian, such as `tests/hosts/server` makes, has them really installed: packages, lists, settings and watched files
//! are those of the folder, and kernel, devices and processes are the machine's. There it is also measured what a look costs an
//! hour after the one before, with what the probes remember.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use muster_agent::{
    host::Live,
    probe::{FileLook, Look, PROBES, Settings},
};
use muster_proto::fact::WatchState;
use muster_tests::{
    bench::{agent, argument, bytes_below, circumstances, keep, per, rounded, strip, text},
    harness::{agent::private_mounts, now},
    integrity::{Cost, cost},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What is aimed at: seconds of CPU, MiB of memory.
const AIMS: (f64, f64) = (1.0, 40.0);
const PACKAGES: usize = 2000;
/// Every program that a look may start on Debian, and why it is not done by reading.
const REASONS: &[(&str, &str)] = &[
    ("/usr/bin/apt-config", "apt's settings have includes, scopes, clears and directives that only apt reads rightly"),
    ("/usr/bin/dpkg", "apt-config starts it, to learn the architectures of the host"),
];
const STATUS: &str = "/var/lib/dpkg/status";
const INSTALLED: &str = "\nStatus: install ok installed\n";
/// From one scan of watched files to the next, by default.
const INTERVAL: Duration = Duration::from_secs(3600);

fn main() -> anyhow::Result<()> {
    // A look that remembers runs as a program of its own, so that its start counts as the agent's does.
    if let Some(memory) = text("memory") {
        return look_with(Path::new(&memory), argument("intervals", 0));
    }
    // What is mounted goes with the namespace.
    if !std::env::args().any(|arg| arg == "--inside") {
        let own = std::env::current_exe()?;
        let error = private_mounts("exec \"$0\" \"$@\" --inside").arg(own).args(std::env::args_os().skip(1)).exec();
        return Err(error).context("unshare: apt install util-linux");
    }
    let machine = circumstances();
    let place = Place::at(&text("root").unwrap_or("/".to_owned()))?;
    let mut results = measure(&place)?;
    results["machine"] = machine;
    if text("agent").is_some() {
        results["machine"]["build"] = json!("of the agent that was given");
    }
    println!("{}", serde_json::to_string_pretty(&rounded(&results))?);
    println!("kept in {}", keep(if place.is_machine() { "look" } else { "look-server" }, &results)?.display());
    Ok(())
}

fn measure(place: &Place) -> anyhow::Result<Value> {
    let mut results = json!({
        "benchmark": "look",
        "aims": { "cpu_seconds": AIMS.0, "peak_mib": AIMS.1 },
        "place": if place.is_machine() { "the machine, with more packages by name" } else { "a root folder" },
        "debian": fs::read_to_string(place.root.join("etc/debian_version"))?.trim(),
        "packages": place.packages()?,
        "lists_bytes": bytes_below(&place.root.join("var/lib/apt/lists")),
    });
    let alone = PROBES.iter().map(|probe| Ok((probe.name().to_owned(), place.first(Some(probe.name()))?)));
    let alone: serde_json::Map<_, _> = alone.collect::<anyhow::Result<_>>()?;
    results["first"] = of_aims(place.first(None)?);
    results["first"]["each_alone_with_its_start"] = alone.into();
    let facts: Vec<Value> = serde_json::from_slice(&fs::read(place.facts())?).context("what the look said")?;
    let watched = facts.iter().find(|fact| fact["subject"] == "file_integrity").context("it is looked at")?;
    results["watched_entries"] = watched["state"]["entries"].clone();
    results["unknown"] = facts.iter().filter(|fact| fact["state"].get("unknown").is_some()).cloned().collect();
    if !place.is_machine() {
        results["an_hour_later"] = of_aims(place.later()?);
    }
    results["programs_started"] = place.programs_started()?.into();
    Ok(results)
}

/// Looks once as the running agent does, `intervals` after now, with what `memory` has of the looks before.
fn look_with(memory: &Path, intervals: u64) -> anyhow::Result<()> {
    let later = INTERVAL * u32::try_from(intervals)?;
    let (host, now, settings) = (Live::new(), now().plus(later), Settings::default());
    let mut facts = Vec::new();
    for probe in PROBES {
        let memory = memory.join(probe.name());
        fs::create_dir_all(&memory)?;
        facts.extend(probe.look(&Look {
            host: &host,
            now,
            settings: &settings,
            memory: &memory,
            watch: WatchState::ScanOnly,
            run: 1,
            files: FileLook::default(),
        }));
    }
    Ok(serde_json::to_writer(std::io::stdout().lock(), &facts)?)
}

/// Where looks are taken: a root, and a folder in it for the programs and what they leave.
struct Place {
    root: PathBuf,
    folder: TempDir,
    times: u64,
}

impl Place {
    /// Prepares `root` in this mount namespace.
    fn at(root: &str) -> anyhow::Result<Self> {
        let root = fs::canonicalize(root).with_context(|| format!("--root {root}"))?;
        let folder = tempfile::tempdir_in(root.join("var/tmp"))?;
        let place = Self { root, folder, times: argument("times", 5).max(1) };
        let file = |name: &str| place.folder.path().join(name);
        strip(&agent(), &file("muster-agent"))?;
        if place.is_machine() {
            make_status(&file("status"))?;
            mount("--bind", &file("status"), Path::new(STATUS))?;
            return Ok(place);
        }
        strip(&std::env::current_exe()?, &file("bench-look"))?;
        mount("--bind", &place.root, &place.root)?;
        for tree in ["proc", "sys", "dev"] {
            mount("--rbind", &Path::new("/").join(tree), &place.root.join(tree))?;
        }
        Ok(place)
    }

    /// Returns whether it is this machine's own root.
    fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Returns how many packages are installed.
    fn packages(&self) -> anyhow::Result<usize> {
        let installed = installed(&fs::read_to_string(self.root.join(&STATUS[1..]))?);
        ensure!(installed >= PACKAGES, "{installed} packages are installed, which is less than {PACKAGES}");
        Ok(installed)
    }

    /// Returns where the last look said what it saw.
    fn facts(&self) -> PathBuf {
        self.folder.path().join("facts")
    }

    /// Returns `path` as it is called in the root.
    fn inside(&self, path: &Path) -> anyhow::Result<PathBuf> {
        Ok(Path::new("/").join(path.strip_prefix(&self.root)?))
    }

    /// Returns a look of the probe of this name, or of all, by the agent, which is run by `tracer`.
    fn look(&self, tracer: &[&str], probe: Option<&str>) -> anyhow::Result<Command> {
        let mut command = self.command(tracer, "muster-agent")?;
        command.arg("probe").args(probe).args(["-o", "json"]);
        Ok(command)
    }

    fn command(&self, tracer: &[&str], program: &str) -> anyhow::Result<Command> {
        let words = [tracer, &["chroot"]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(&self.root).arg(self.inside(&self.folder.path().join(program))?);
        command.stdin(Stdio::null()).stdout(File::create(self.facts())?);
        Ok(command)
    }

    /// Returns what a look costs that remembers nothing: the least of some, as what is more is of the machine's other work.
    fn first(&self, probe: Option<&str>) -> anyhow::Result<Value> {
        let costs: Vec<_> = (0..self.times).map(|_| run(self.look(&[], probe)?)).collect::<anyhow::Result<_>>()?;
        Ok(told(&costs, |figures| figures.fold(f64::INFINITY, f64::min)))
    }

    /// Returns what a look of all probes costs after another: the mean of some, each an interval after the one before, as each reads
    /// the watched files again whose turn has come.
    fn later(&self) -> anyhow::Result<Value> {
        let memory = tempfile::tempdir_in(&self.folder)?;
        let look = |intervals: u64| {
            let mut command = self.command(&[], "bench-look")?;
            command.arg("--memory").arg(self.inside(memory.path())?).args(["--intervals", &intervals.to_string()]);
            run(command)
        };
        look(0)?;
        let costs: Vec<_> = (1..=self.times).map(look).collect::<anyhow::Result<_>>()?;
        Ok(told(&costs, |figures| per(figures.sum(), self.times)))
    }

    /// Returns the programs that a full look starts, and those that these start, in order, each with its reason.
    ///
    /// A program without one is an error: where a file suffices, none is to be started.
    fn programs_started(&self) -> anyhow::Result<Vec<Value>> {
        let trace = self.folder.path().join("trace");
        let output = trace.to_str().context("a path in UTF-8")?;
        // Calls that succeed, each on a line whatever other threads do meanwhile.
        let tracer = ["strace", "-f", "--seccomp-bpf", "-z", "-qq", "-e", "trace=execve,execveat", "-o", output];
        let mut look = self.look(&tracer, None)?;
        ensure!(look.status()?.success(), "the traced look failed: apt install strace");
        let calls = fs::read_to_string(trace)?;
        let names: Vec<_> = calls.lines().filter_map(|line| line.split('"').nth(1)).collect();
        let agent = names.iter().position(|name| name.ends_with("/muster-agent")).context("the agent is traced")?;
        let with_reason = |name: &&str| {
            let reason = REASONS.iter().find(|(program, _)| program == name).map(|(_, reason)| *reason);
            let reason = reason.with_context(|| format!("{name} is started without a reason"))?;
            Ok(json!({ "program": name, "reason": reason }))
        };
        names[agent + 1..].iter().map(with_reason).collect()
    }
}

fn mount(how: &str, source: &Path, target: &Path) -> anyhow::Result<()> {
    let status = Command::new("mount").arg(how).args([source, target]).status()?;
    ensure!(status.success(), "{} cannot be mounted", target.display());
    Ok(())
}

fn run(mut command: Command) -> anyhow::Result<Cost> {
    let cost = cost::of(&mut command)?;
    ensure!(cost.status.success(), "the look failed");
    Ok(cost)
}

/// Returns the figures of some looks, of which `one` makes one; of memory it is the most.
fn told(costs: &[Cost], one: impl Fn(&mut dyn Iterator<Item = f64>) -> f64) -> Value {
    #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let read: Option<Vec<_>> = costs.iter().map(|cost| cost.read_bytes.map(mib)).collect();
    json!({
        "cpu_seconds": one(&mut costs.iter().map(|cost| cost.cpu_seconds)),
        "peak_mib": costs.iter().map(|cost| mib(cost.peak_bytes)).fold(0.0, f64::max),
        "read_mib": read.map(|read| one(&mut read.into_iter())),
    })
}

/// Returns `figures` with what they are of the aims.
fn of_aims(mut figures: Value) -> Value {
    for (ratio, figure, aim) in [("cpu_of_aim", "cpu_seconds", AIMS.0), ("peak_of_aim", "peak_mib", AIMS.1)] {
        figures[ratio] = json!(figures[figure].as_f64().map(|figure| figure / aim));
    }
    figures
}

/// Returns how many packages are installed by a status file.
fn installed(status: &str) -> usize {
    status.matches(INSTALLED).count()
}

/// Writes a status file of this machine's packages, filled up with such that its lists offer.
fn make_status(path: &Path) -> anyhow::Result<()> {
    let own = fs::read_to_string(STATUS).context("this is for Debian")?;
    let mut stanzas: Vec<String> =
        own.split("\n\n").filter(|text| !text.trim().is_empty()).map(str::to_owned).collect();
    let mut names: BTreeSet<String> =
        stanzas.iter().filter_map(|text| text.lines().next().map(str::to_owned)).collect();
    let mut installed = installed(&own);
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
        stanza.insert(1, INSTALLED.trim().to_owned());
        stanzas.push(stanza.join("\n"));
        installed += 1;
    }
    offered.kill()?;
    offered.wait()?;
    fs::write(path, stanzas.iter().map(|text| format!("{}\n\n", text.trim_end())).collect::<String>())?;
    Ok(())
}
