//! A program that runs, what it writes, and how it ends.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// A program that runs. Dropped, it is killed; in a failing test, the end of what it wrote is shown.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; both its outputs are appended to the file `output`.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start(command: &mut Command, output: &Path) -> Self {
        let file = File::options().create(true).append(true).open(output).expect("a file for the program's output");
        let copy = file.try_clone().expect("a second handle of the output");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, output: output.to_owned(), ended: None }
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns how it ended, if it has.
    ///
    /// # Panics
    ///
    /// When the system does not say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("the state of an own child");
        }
        self.ended
    }

    /// Returns what it wrote so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Panics
    ///
    /// When it had ended by itself: whoever kills a program expects it to run.
    pub fn kill(&mut self) {
        if let Some(status) = self.ended() {
            panic!("the program had ended by itself with {status}:\n{}", tail(&self.output()));
        }
        self.signal(Signal::KILL);
        self.ended = Some(self.child.wait().expect("the end of an own child"));
    }

    /// Asks it to stop (SIGTERM) and returns how it ended and after how long.
    ///
    /// # Panics
    ///
    /// When it still runs after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.signal(Signal::TERM);
        loop {
            if let Some(status) = self.ended() {
                return (status, start.elapsed());
            }
            assert!(start.elapsed() < limit, "still runs {limit:?} after SIGTERM:\n{}", tail(&self.output()));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the seconds of CPU that it has used, by user and kernel together.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("the program runs");
        // The name, in brackets, may hold spaces. utime and stime are fields 14 and 15.
        let after_name = stat.rsplit_once(')').expect("a name in brackets").1;
        let ticks: u64 =
            after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
        #[allow(clippy::cast_precision_loss, reason = "ticks since the start are few")]
        let (ticks, each) = (ticks as f64, rustix::param::clock_ticks_per_second() as f64);
        ticks / each
    }

    /// Returns the bytes of memory that it holds now and has held at most.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn memory_bytes(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the program runs");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("a field of status");
            line.split_whitespace().nth(1).expect("a value").parse::<u64>().expect("a number") * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    fn signal(&mut self, signal: Signal) {
        if self.ended().is_some() {
            return;
        }
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        kill_process(id, signal).expect("a signal to an own child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of {}\n{}", self.output.display(), tail(&self.output()));
        }
        if self.ended().is_none() {
            self.signal(Signal::KILL);
            // Nothing is left to be done about a child that cannot be waited for.
            let _ = self.child.wait();
        }
    }
}

/// Checks that none of the threads that wrote to the file `output` has panicked: a task that did is gone while its program goes on.
/// sled may, on the threads that the collector keeps it on: it does on some damaged stores, and the collector catches it there.
///
/// # Panics
///
/// When one has, or when the file cannot be read.
pub fn check_no_panic(output: &Path) {
    let read = fs::read(output).unwrap_or_else(|error| panic!("cannot look into {}: {error}", output.display()));
    let text = String::from_utf8_lossy(&read);
    let lines: Vec<&str> = text.lines().collect();
    if let Some(at) = lines.iter().position(|line| line.contains("panicked at") && !is_of_sled(line)) {
        let panic = &lines[at..lines.len().min(at + 12)];
        panic!("a thread panicked, as {} says:\n{}", output.display(), panic.join("\n"));
    }
}

/// Returns whether the panic happened on a thread of the inbox, and in no code of this repository, whose paths are relative.
fn is_of_sled(line: &str) -> bool {
    line.starts_with("thread 'inbox") && line.contains("panicked at /")
}

/// Returns the last lines of `text`.
pub fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Folder;

    #[test]
    fn a_panic_of_any_thread_is_found() {
        let folder = Folder::new();
        let output = folder.join("out");
        fs::write(&output, "started\n").unwrap();
        check_no_panic(&output);
        let said = "started\nthread 'tokio-runtime-worker' (7) panicked at collector/src/x.rs:1:1:\nboom\nstopped\n";
        fs::write(&output, said).unwrap();
        assert!(std::panic::catch_unwind(|| check_no_panic(&output)).is_err());
        for (place, is_fine) in [("/r/sled-0.34.7/src/tree.rs:1767:9", true), ("collector/src/inbox.rs:1:1", false)] {
            fs::write(&output, format!("thread 'inbox-open' (7) panicked at {place}:\ncannot find pid 5\n")).unwrap();
            assert_eq!(std::panic::catch_unwind(|| check_no_panic(&output)).is_ok(), is_fine, "{place}");
        }
        let nowhere = folder.join("nowhere");
        assert!(std::panic::catch_unwind(|| check_no_panic(&nowhere)).is_err(), "it could not look");
    }

    #[test]
    fn a_process_is_measured_killed_and_its_output_kept() {
        let folder = Folder::new();
        let output = folder.join("out");
        let mut process = Process::start(Command::new("sh").args(["-c", "echo hello; read x < /dev/zero"]), &output);
        while process.output().is_empty() {
            std::thread::yield_now();
        }
        assert!(process.cpu_seconds() >= 0.0);
        assert!(process.memory_bytes().0 > 0);
        process.kill();
        assert!(process.ended().is_some_and(|status| !status.success()));
        assert_eq!(process.output(), "hello\n");
    }
}
