//! What a traced collector did to its disk, and whether it did so before it said that it had.
//!
//! Reads the output of `strace -f -ttt -y`: one line a call, paths beside descriptors.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};

/// Finds out by trying whether programs can be traced here, or says why not.
///
/// # Errors
///
/// What strace says, or that it is not there.
pub fn can_trace() -> Result<(), String> {
    let tried = Command::new("strace").args(["-f", "--seccomp-bpf", "-o", "/dev/null", "true"]).output();
    let output = tried.map_err(|error| format!("strace cannot be started ({error}): apt install strace"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("strace does not work here: {}", said.trim())) }
}

/// Returns the words before a program that trace it into the file `trace`, and hold up each sync for `delay` before it begins.
pub fn strace_delaying(trace: &Path, delay: Duration) -> Vec<String> {
    let mut words = strace(trace);
    let inject = format!("inject={}:delay_enter={}", SYNCS.join(","), delay.as_micros());
    words.extend(["-e".to_owned(), inject]);
    words
}

/// Returns the words before a program that trace it into the file `trace`. The program stays the process that was started.
pub fn strace(trace: &Path) -> Vec<String> {
    // With `--seccomp-bpf` only the calls to trace are stopped at, and the others cost nothing.
    let words = ["strace", "-D", "-f", "--seccomp-bpf", "-ttt", "-y", "-s", "0", "-e", CALLS, "-o"];
    words.into_iter().map(str::to_owned).chain([trace.display().to_string()]).collect()
}

/// The calls to trace.
const CALLS: &str =
    "trace=fsync,fdatasync,syncfs,sync_file_range,rename,renameat,renameat2,openat,write,pwrite64,writev";

/// The calls that sync.
const SYNCS: [&str; 3] = ["fsync", "fdatasync", "syncfs"];

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Calls by name.
    pub calls: BTreeMap<String, u64>,
    /// When each sync began, in seconds since 1970.
    pub syncs: Vec<f64>,
    /// Times that a checkpoint was put into place.
    pub checkpoints: u64,
    /// Of these, those whose own bytes and all tiles written since the one before had been synced.
    pub covered: u64,
    /// Of these, those after which the folder was synced, so that the new name is durable too.
    pub folder_synced: u64,
}

/// Reads a trace.
///
/// A checkpoint is put into place by renaming a file to a path that ends in `/checkpoint`. Every file of the log that was written
/// since the checkpoint before must have been synced by then, itself or with its whole file system.
///
/// # Errors
///
/// When the trace shows no checkpoint at all.
pub fn read(trace: &str, log_folder: &str) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut unsynced: Vec<String> = Vec::new();
    let mut awaits_folder = false;
    for call in calls(trace) {
        *seen.calls.entry(call.name.to_owned()).or_default() += 1;
        if SYNCS.contains(&call.name) {
            seen.syncs.push(call.began);
        }
        match call.name {
            "write" | "pwrite64" | "writev" => {
                if let Some(path) = call.descriptor_path().filter(|path| path.starts_with(log_folder))
                    && !unsynced.iter().any(|known| known == path)
                {
                    unsynced.push(path.to_owned());
                }
            }
            "fsync" | "fdatasync" => {
                if let Some(path) = call.descriptor_path() {
                    unsynced.retain(|known| known != path);
                    if awaits_folder && path == log_folder {
                        seen.folder_synced += 1;
                        awaits_folder = false;
                    }
                }
            }
            "syncfs" => {
                unsynced.clear();
                if awaits_folder {
                    seen.folder_synced += 1;
                    awaits_folder = false;
                }
            }
            "rename" | "renameat" | "renameat2" if call.renames_to("checkpoint") => {
                seen.checkpoints += 1;
                seen.covered += u64::from(unsynced.is_empty());
                unsynced.clear();
                awaits_folder = true;
            }
            _ => {}
        }
    }
    ensure!(seen.checkpoints > 0, "the trace shows no checkpoint");
    Ok(seen)
}

impl Seen {
    /// Returns how many syncs began from `from` until before `until_exclusive`, in seconds since 1970.
    pub fn syncs_within(&self, from: f64, until_exclusive: f64) -> u64 {
        self.syncs.iter().filter(|&&began| from <= began && began < until_exclusive).count() as u64
    }
}

struct Call<'a> {
    /// Seconds since 1970.
    began: f64,
    name: &'a str,
    args: &'a str,
}

impl<'a> Call<'a> {
    /// Returns the path that strace writes beside the first descriptor.
    fn descriptor_path(&self) -> Option<&'a str> {
        let (_, rest) = self.args.split_once('<')?;
        Some(rest.split_once('>')?.0)
    }

    fn renames_to(&self, name: &str) -> bool {
        let target = self.args.rsplit('"').nth(1);
        target.is_some_and(|target| target == name || target.ends_with(&format!("/{name}")))
    }
}

/// Returns the calls of a trace, each where it ended: a call that another thread interrupted stands in two lines.
fn calls(trace: &str) -> impl Iterator<Item = Call<'_>> {
    let mut started: BTreeMap<&str, Call<'_>> = BTreeMap::new();
    trace.lines().filter_map(move |line| {
        let (thread, rest) = line.split_once(' ')?;
        let (time, rest) = rest.trim_start().split_once(' ')?;
        let began = time.parse().ok()?;
        if rest.starts_with("<... ") {
            return started.remove(thread);
        }
        let (name, args) = rest.split_once('(')?;
        let call = Call { began, name, args };
        if rest.ends_with("<unfinished ...>") {
            started.insert(thread, call);
            return None;
        }
        Some(call)
    })
}

/// Returns an error that says how many checkpoints were not covered.
///
/// # Errors
///
/// When any was not.
pub fn check(seen: &Seen) -> anyhow::Result<()> {
    let missing = seen.checkpoints.checked_sub(seen.covered).context("more covered than there were")?;
    ensure!(
        missing == 0,
        "{missing} of {} checkpoints were put into place before what they cover was synced",
        seen.checkpoints
    );
    ensure!(
        seen.folder_synced + 1 >= seen.checkpoints,
        "the folder was synced after {} of {} checkpoints",
        seen.folder_synced,
        seen.checkpoints
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"11 1.000001 write(9</d/log/tile/0/000.tmp>, "x"..., 32) = 32
11 1.000002 fdatasync(9</d/log/tile/0/000.tmp>) = 0
12 1.000003 write(8</d/inbox/db>, "x"..., 32) = 32
11 1.000004 write(7</d/log/checkpoint.tmp>, "x"..., 32) = 32
11 1.000005 fsync(7</d/log/checkpoint.tmp> <unfinished ...>
12 1.000006 write(5<socket:[1]>, "x"..., 32) = 32
11 1.000007 <... fsync resumed>) = 0
11 1.000008 rename("/d/log/checkpoint.tmp", "/d/log/checkpoint") = 0
11 1.000009 fsync(4</d/log>) = 0
"#;

    #[test]
    fn a_good_trace_covers_its_checkpoint() {
        let seen = read(GOOD, "/d/log").unwrap();
        assert_eq!((seen.checkpoints, seen.covered, seen.folder_synced), (1, 1, 1));
        assert_eq!(seen.calls["fsync"], 2);
        assert_eq!(seen.syncs, [1.000_002, 1.000_005, 1.000_009]);
        assert_eq!(seen.syncs_within(1.000_002, 1.000_009), 2);
        check(&seen).unwrap();
    }

    #[test]
    fn a_sync_that_comes_late_or_never_is_found() {
        let lines: Vec<_> = GOOD.lines().collect();
        let without: String =
            lines.iter().filter(|line| !line.contains("fdatasync")).map(|line| format!("{line}\n")).collect();
        assert!(check(&read(&without, "/d/log").unwrap()).is_err());
        let mut late = lines.clone();
        // The rename comes before the sync of what it names.
        late.swap(4, 7);
        let late = late.join("\n");
        assert!(check(&read(&late, "/d/log").unwrap()).is_err());
        assert!(read("", "/d/log").is_err());
    }
}
