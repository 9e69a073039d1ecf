//! What benchmarks share: figures, the machine that they are of, and the file that keeps them.
//!
//! A figure decides no test: it belongs to the machine and the moment that its file names.

pub mod flow;
pub mod syncs;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use muster_proto::{
    seal::{EvidencePublicKey, REPORT_DOMAIN},
    v1,
};
use serde_json::{Value, json};

use crate::harness::now;

/// Returns the value at `share`, 0 to 1, of sorted values.
///
/// # Panics
///
/// When there are none.
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
    let index = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[index]
}

/// Returns `part` of `whole` as a ratio; 0 when there is no whole.
pub fn per(part: f64, whole: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are small")]
    let whole = whole as f64;
    if whole == 0.0 { 0.0 } else { part / whole }
}

/// Returns the seconds that one raw Ed25519 verification of a report takes now: the strict rule of the contract on `samples`, as
/// the collector applies it, by CPU time of this thread.
///
/// # Panics
///
/// When a sample does not verify.
pub fn verification_seconds(key: &EvidencePublicKey, samples: &[v1::SealedReport], at_least: Duration) -> f64 {
    let (start, cpu) = (Instant::now(), thread_cpu());
    let mut count = 0;
    while start.elapsed() < at_least {
        for sample in samples {
            key.verify(REPORT_DOMAIN, &sample.report, &sample.signature).expect("a good signature");
        }
        count += samples.len() as u64;
    }
    per((thread_cpu() - cpu).as_secs_f64(), count)
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).expect("not negative"), u32::try_from(time.tv_nsec).expect("below 10^9"))
}

/// Returns the bytes of the files below `folder`.
pub fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            // Gone meanwhile.
            Err(_) => 0,
        })
        .sum()
}

/// Returns what this machine is, and when this is.
pub fn circumstances() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let load = read("/proc/loadavg");
    json!({
        "time": now().to_second().to_string(),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "processor": model.trim_start_matches(['\t', ' ', ':']),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_before": load.split(' ').next().unwrap_or_default(),
        "memory": read("/proc/meminfo").lines().next().unwrap_or_default().trim_start_matches("MemTotal:").trim(),
    })
}

/// Writes `results` to a file of their own and returns where: with the argument `--keep` among those that the repository keeps, else
/// beside the programs.
///
/// # Errors
///
/// When the file cannot be written.
pub fn keep(name: &str, results: &Value) -> anyhow::Result<PathBuf> {
    let is_kept = std::env::args().any(|arg| arg == "--keep");
    let folder = if is_kept {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/results")
    } else {
        crate::harness::program("").join("bench-results")
    };
    fs::create_dir_all(&folder)?;
    let stamp: String = now().to_second().to_string().chars().filter(char::is_ascii_alphanumeric).collect();
    let path = folder.join(format!("{name}-{stamp}.json"));
    fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&rounded(results))?))?;
    Ok(path)
}

/// Returns `value` with every fraction rounded to three decimals: no clock here is better, and the rest hides the figure.
pub fn rounded(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(rounded).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), rounded(value))).collect(),
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or(Value::Null, |number| json!((number * 1e3).round() / 1e3))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Returns the number of the argument `--<name> N`, or `default`.
///
/// # Panics
///
/// When the argument has no number.
pub fn argument(name: &str, default: u64) -> u64 {
    let args: Vec<_> = std::env::args().collect();
    match args.iter().position(|arg| *arg == format!("--{name}")) {
        Some(at) => args.get(at + 1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("--{name} NUMBER")),
        None => default,
    }
}

/// Returns the text of the argument `--<name> TEXT`.
pub fn text(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| *arg != format!("--{name}")).nth(1)
}

/// Returns the agent that the argument `--agent PROGRAM` names, or the one built beside this program.
pub fn agent() -> PathBuf {
    text("agent").map_or_else(|| crate::harness::program("test-agent"), PathBuf::from)
}

/// Makes a copy of `program` without its symbols, as packages ship programs.
///
/// # Errors
///
/// When it cannot be made.
pub fn strip(program: &Path, copy: &Path) -> anyhow::Result<()> {
    fs::copy(program, copy).with_context(|| format!("failed to copy {}", program.display()))?;
    let stripped = Command::new("strip").arg(copy).status().context("strip: apt install binutils")?;
    ensure!(stripped.success(), "{} cannot be stripped", program.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_kept_as_a_person_reads_them() {
        let results = json!({ "cases": [{ "ratio": 1.123_456_789, "reports": 12_345_678_u64 }], "case": "x" });
        let expected = json!({ "cases": [{ "ratio": 1.123, "reports": 12_345_678_u64 }], "case": "x" });
        assert_eq!(rounded(&results), expected);
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&values, 0.0), Duration::from_millis(1));
        assert_eq!(quantile(&values, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&values[..1], 0.5), Duration::from_millis(1));
    }
}
