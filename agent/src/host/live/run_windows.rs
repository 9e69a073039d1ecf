//! Runs a tool of Windows: absolute path, an environment of its own, bounded time and output. **It has never run there.**
//!
//! Standard Windows has no call of Rust's library that waits for a pipe for a time: a thread reads, and the tool is ended when it
//! does not come back. A program that the tool started would stay; the scripts start none.

use std::{
    io::{self, Read as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::Instant,
};

use crate::host::{TOOL_OUTPUT_BYTES, Tool};

/// What PowerShell needs to start, and its own modules alone.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("SystemRoot", r"C:\Windows"),
    ("PATH", r"C:\Windows\System32"),
    ("PSModulePath", r"C:\Windows\System32\WindowsPowerShell\v1.0\Modules"),
    // No profile of a user is read or written.
    ("TEMP", r"C:\Windows\Temp"),
];

/// Returns the standard output of `tool`, which runs for as long as it may and never beyond the `deadline` of its look.
pub(super) fn run(tool: Tool, args: &[&str], deadline: Option<Instant>) -> io::Result<Vec<u8>> {
    let program = tool.paths().iter().map(Path::new).find(|path| path.exists()).ok_or(io::ErrorKind::NotFound)?;
    let time_limit_end = Instant::now() + tool.time_limit();
    let deadline = deadline.map_or(time_limit_end, |deadline| deadline.min(time_limit_end));
    let mut command = Command::new(program);
    if let Tool::PowerShell(script) = tool {
        command.args(["-NoLogo", "-NoProfile", "-NonInteractive", "-Command", script.text()]);
    }
    let mut child = command
        .args(args)
        .env_clear()
        .envs(ENVIRONMENT)
        .current_dir(r"C:\Windows\System32")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pipe = child.stdout.take().expect("stdout is piped above");
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut output = Vec::new();
        let read = pipe.take(TOOL_OUTPUT_BYTES as u64 + 1).read_to_end(&mut output);
        // The receiver is gone only when the time is over.
        let _ = sender.send(read.map(|_| output));
    });
    let output = match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Ok(output)) if output.len() > TOOL_OUTPUT_BYTES => Err(io::ErrorKind::FileTooLarge.into()),
        Ok(output) => output,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let output = output.and_then(|output| Ok((output, wait_until(&mut child, deadline)?)));
    if output.is_err() {
        // Fails only when it has ended.
        let _ = child.kill();
        child.wait()?;
    }
    // With the tool its end of the pipe is gone, so that the thread comes back.
    drop(reader.join());
    let (output, status) = output?;
    if status.success() { Ok(output) } else { Err(io::Error::other(format!("ended with {status}"))) }
}

/// Waits for a child that closed its output, which is nearly always about to end.
fn wait_until(child: &mut std::process::Child, deadline: Instant) -> io::Result<std::process::ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
