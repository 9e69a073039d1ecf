//! What a program that runs to its end costs.

use std::{
    fs,
    process::{Command, ExitStatus},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// How often memory is looked at: its peak only rises, so that the last look misses what came in this time at most.
const LOOK: Duration = Duration::from_millis(2);

/// What one run of a program cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From its start to its end.
    pub wall_seconds: f64,
    /// By user and kernel together, of all its threads and of the programs that it waited for.
    pub cpu_seconds: f64,
    /// Memory that it held at most, its code included.
    pub peak_bytes: u64,
    /// What it and the programs that it waited for read, from wherever; `None` where the kernel does not count it.
    pub read_bytes: Option<u64>,
    /// How it ended.
    pub status: ExitStatus,
}

/// Runs `command` to its end and returns what that cost.
///
/// # Errors
///
/// When it cannot be started, or the kernel does not tell.
pub fn of(command: &mut Command) -> anyhow::Result<Cost> {
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("failed to start {command:?}"))?;
    let folder = format!("/proc/{}", child.id());
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child has a process id")?;
    let is_over = AtomicBool::new(false);
    let (wall, peak_bytes) = std::thread::scope(|scope| {
        let peak = scope.spawn(|| peak(&folder, &is_over));
        // Its last numbers are kept until it is waited for.
        let waited = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let wall = start.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let peak = peak.join().expect("it reads files alone");
        waited.map(|_| (wall, peak))
    })?;
    let (cpu_seconds, read_bytes) = (cpu_seconds(&folder)?, read_bytes(&folder));
    Ok(Cost { wall_seconds: wall.as_secs_f64(), cpu_seconds, peak_bytes, read_bytes, status: child.wait()? })
}

fn peak(folder: &str, is_over: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !is_over.load(Ordering::Relaxed) {
        let status = fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
        let held = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = held.and_then(|held| held.trim().split(' ').next()?.parse::<u64>().ok());
        // One that ended has none.
        peak = peak.max(kibibytes.unwrap_or(0) * 1024);
        std::thread::sleep(LOOK);
    }
    peak
}

/// Returns utime, stime, and those of the programs that it started and waited for: fields 14 to 17 of proc_pid_stat(5).
fn cpu_seconds(folder: &str) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("{folder}/stat"))?;
    let fields = stat.rsplit_once(')').context("a name in brackets")?.1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(4).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    #[allow(clippy::cast_precision_loss, reason = "a run is short")]
    let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Ok(seconds)
}

/// Returns `rchar` of proc_pid_io(5).
fn read_bytes(folder: &str) -> Option<u64> {
    let counts = fs::read_to_string(format!("{folder}/io")).ok()?;
    counts.lines().find_map(|line| line.strip_prefix("rchar:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_measured_to_its_end() {
        let mut command = Command::new("sh");
        let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; head -c 1000000 /dev/zero >/dev/null; exit 3";
        let cost = of(command.args(["-c", script])).unwrap();
        assert_eq!(cost.status.code(), Some(3));
        assert!(cost.cpu_seconds > 0.0 && cost.wall_seconds > 0.0, "{cost:?}");
        assert!(cost.peak_bytes > 100_000, "{cost:?}");
        assert!(cost.read_bytes.is_none_or(|bytes| (1_000_000..2_000_000).contains(&bytes)), "{cost:?}");
    }
}
