//! Runs a tool: absolute path, cleared environment, bounded time and output, and nothing left behind.

use std::{
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Pid, Signal},
};

use crate::host::{STREAM_OUTPUT_BYTES, STREAM_TIME, TOOL_OUTPUT_BYTES, Tool};

/// Returns the standard output of `tool`, which runs for as long as it may and never beyond the `deadline` of its look.
pub(super) fn run(tool: Tool, args: &[&str], deadline: Option<Instant>) -> io::Result<Vec<u8>> {
    let time_limit = left(deadline).min(tool.time_limit());
    run_program(program_of(tool)?, args, time_limit, TOOL_OUTPUT_BYTES, tool.telling_statuses())
}

/// Hands the standard output of `tool` to `visit` in pieces; its bounds are wider, for nothing is held.
pub(super) fn run_streamed(
    tool: Tool,
    args: &[&str],
    deadline: Option<Instant>,
    visit: &mut Visit<'_>,
) -> io::Result<()> {
    let time_limit = left(deadline).min(STREAM_TIME);
    stream_program(program_of(tool)?, args, time_limit, STREAM_OUTPUT_BYTES, tool.telling_statuses(), visit)
}

/// Takes a piece of output.
type Visit<'v> = dyn FnMut(&[u8]) -> io::Result<()> + 'v;

fn program_of(tool: Tool) -> io::Result<&'static Path> {
    let found = tool.paths().iter().map(Path::new).find(|path| path.exists());
    Ok(found.ok_or(io::ErrorKind::NotFound)?)
}

fn left(deadline: Option<Instant>) -> Duration {
    deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
}

/// `telling` are statuses beside 0 that count as success.
fn run_program(
    program: &Path,
    args: &[&str],
    time_limit: Duration,
    limit_bytes: usize,
    telling: &[i32],
) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    stream_program(program, args, time_limit, limit_bytes, telling, &mut |bytes| {
        output.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(output)
}

fn stream_program(
    program: &Path,
    args: &[&str],
    time_limit: Duration,
    limit_bytes: usize,
    telling: &[i32],
    visit: &mut Visit<'_>,
) -> io::Result<()> {
    let deadline = Instant::now() + time_limit;
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .envs([("LANG", "C"), ("LC_ALL", "C"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let status = read_output(&mut child, deadline, limit_bytes, visit);
    let status = status.and_then(|()| wait_until(&mut child, deadline));
    // The group, so that what the tool started ends with it. The child is not reaped yet, or the group is gone.
    if status.is_err() {
        let pid = Pid::from_child(&child);
        // Fails only when all of the group has ended.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        child.wait()?;
    }
    let status = status?;
    if !status.success() && !status.code().is_some_and(|code| telling.contains(&code)) {
        return Err(io::Error::other(format!("ended with {status}")));
    }
    Ok(())
}

fn read_output(child: &mut Child, deadline: Instant, limit_bytes: usize, visit: &mut Visit<'_>) -> io::Result<()> {
    let mut pipe = child.stdout.take().expect("stdout is piped above");
    let mut left_bytes = limit_bytes;
    let mut buffer = [0; 8192];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut ready = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut ready, Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match pipe.read(&mut buffer)? {
            0 => return Ok(()),
            count => {
                left_bytes = left_bytes.checked_sub(count).ok_or(io::ErrorKind::FileTooLarge)?;
                visit(&buffer[..count])?;
            }
        }
    }
}

/// Waits for a child that closed its output, which is nearly always about to end.
fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<std::process::ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::Cause;

    use super::*;
    use crate::host::{TOOL_TIME as TIME_LIMIT, cause};

    fn shell(script: &str, time_limit: Duration) -> io::Result<Vec<u8>> {
        run_program(Path::new("/bin/sh"), &["-c", script], time_limit, 100, &[])
    }

    #[test]
    fn the_environment_is_cleared() {
        let output = shell("echo \"$LANG-$HOME-$CARGO_MANIFEST_DIR-$PWD\"", TIME_LIMIT).unwrap();
        assert_eq!(output, b"C---/\n");
    }

    #[test]
    fn a_tool_that_fails_is_missing_or_says_too_much_is_an_error() {
        let missing = run_program(Path::new("/nonexistent/tool"), &[], TIME_LIMIT, 100, &[]).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert_eq!(shell("echo x; exit 3", TIME_LIMIT).unwrap_err().to_string(), "ended with exit status: 3");
        let endless = shell("while :; do echo 0123456789; done", TIME_LIMIT).unwrap_err();
        assert_eq!(endless.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_tool_that_tells_by_its_status_too_keeps_its_output() {
        let run = |script: &str| {
            let telling = Tool::Spctl.telling_statuses();
            run_program(Path::new("/bin/sh"), &["-c", script], TIME_LIMIT, 100, telling).ok()
        };
        assert_eq!(run("echo assessments disabled; exit 1").as_deref(), Some(&b"assessments disabled\n"[..]));
        assert_eq!(run("exit 1").as_deref(), Some(&b""[..]));
        assert_eq!(run("echo assessments disabled; exit 2"), None);
        assert_eq!(run("echo assessments disabled; kill -9 $$"), None);
        assert!(shell("echo assessments disabled; exit 1", TIME_LIMIT).is_err());
    }

    #[test]
    fn a_tool_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
        let started = Instant::now();
        let error = shell(&script, Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < TIME_LIMIT);
        let pid = std::fs::read_to_string(pid_file).unwrap();
        // The kernel ends the group soon after the signal; a zombie waits for a parent that is not ours.
        let is_alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !(stat.is_empty() || stat.contains(") Z "))
        };
        while is_alive() {
            assert!(started.elapsed() < TIME_LIMIT);
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_goes_wrong_with_a_tool_has_its_cause() {
        let short = Duration::from_millis(300);
        for (script, limit, expected) in [
            ("kill -9 $$", TIME_LIMIT, Cause::Failed),
            ("echo partly; kill -15 $$", TIME_LIMIT, Cause::Failed),
            ("echo partly; exit 100", TIME_LIMIT, Cause::Failed),
            ("sleep 1000", short, Cause::TimedOut),
            ("echo partly; sleep 1000", short, Cause::TimedOut),
            // The tool ends, and what it started holds its output open.
            ("sleep 1000 & exit 0", short, Cause::TimedOut),
            ("(trap '' TERM HUP; sleep 1000) & exit 0", short, Cause::TimedOut),
            ("exec head -c 100000000 /dev/zero", TIME_LIMIT, Cause::Limit),
            ("cat /dev/zero & cat /dev/zero & wait", TIME_LIMIT, Cause::Limit),
        ] {
            let started = Instant::now();
            let run = run_program(Path::new("/bin/sh"), &["-c", script], limit, TOOL_OUTPUT_BYTES, &[]);
            assert_eq!(run.as_ref().map_err(cause), Err(expected), "{script}");
            // Far beyond what it takes, and far below what the tool would take.
            assert!(started.elapsed() < Duration::from_secs(300), "{script}");
        }
        let folder = tempfile::tempdir().unwrap();
        let not_executable = folder.path().join("tool");
        std::fs::write(&not_executable, "#!/bin/sh\n").unwrap();
        let refused = run_program(&not_executable, &[], TIME_LIMIT, 100, &[]).unwrap_err();
        assert_eq!(cause(&refused), Cause::Forbidden);
    }

    #[test]
    fn a_tool_does_not_outlast_the_look() {
        let past = Instant::now();
        let error = run(Tool::AptConfig, &["dump"], Some(past)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::NotFound), "{error}");
    }

    #[test]
    fn a_tool_that_closes_its_output_and_hangs_is_ended() {
        let error = shell("exec >&-; sleep 1000", Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
