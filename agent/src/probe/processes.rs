//! The processes of the host, and which of them are a known program.
//!
//! A process chooses its own name. Which file it executes (proc_pid_exe(5)) and which control group systemd put it in
//! (proc_pid_cgroup(5)) it does not choose, so those are what is counted. A process inside a container is not the host's.

use std::path::Path;

use muster_proto::fact::{Cause, Reading, SensorSeen, Unknown};

use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Processes that are looked at, at most.
const PROCESSES: usize = 50_000;
/// Bytes of a process's name that the kernel keeps (`TASK_COMM_LEN` less its zero).
const NAME_BYTES: usize = 15;

/// A process of the host itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Process {
    pub id: u32,
    /// Name that it gave itself or got from its program.
    pub name: String,
    /// File that it executes. `None` when the agent may not see it; empty for a thread of the kernel.
    pub program: Option<String>,
    /// Service of systemd that it belongs to.
    pub unit: Option<String>,
}

/// Returns the processes of the host, without those in containers.
pub(super) fn look(host: &dyn Host) -> Result<Vec<Process>, Unknown> {
    let names = host.list(Path::new("/proc")).map_err(|error| host::unknown("list /proc", &error))?;
    let mut ids: Vec<u32> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    if ids.len() > PROCESSES {
        return Err(Unknown::new(Cause::Limit, format!("more than {PROCESSES} processes")));
    }
    if ids.is_empty() {
        return Err(Unknown::new(Cause::Absent, "/proc shows no process"));
    }
    let mut processes = Vec::with_capacity(ids.len());
    for id in ids {
        processes.extend(process(host, id)?);
    }
    // The agent itself is one.
    if processes.is_empty() {
        return Err(Unknown::new(Cause::Absent, "/proc tells of no process of the host"));
    }
    Ok(processes)
}

/// Returns `None` for a process that ended meanwhile or is in a container.
fn process(host: &dyn Host, id: u32) -> Result<Option<Process>, Unknown> {
    let read = |name: &str| {
        let path = format!("/proc/{id}/{name}");
        match host.read(Path::new(&path), SMALL_FILE_BYTES) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if has_ended(&error) => Ok(None),
            Err(error) => Err(host::unknown(format!("read {path}"), &error)),
        }
    };
    let Some(status) = read("status")? else { return Ok(None) };
    let field = |key| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    // proc_pid_status(5): the number in each pid namespace below that of /proc. In a second one it is another system's.
    if field("NSpid:").is_some_and(|numbers| numbers.split_whitespace().count() > 1) {
        return Ok(None);
    }
    let Some(name) = field("Name:").map(str::to_owned) else {
        return Err(Unknown::new(Cause::Garbled, format!("/proc/{id}/status has no name")));
    };
    let Some(groups) = read("cgroup")? else { return Ok(None) };
    let link = format!("/proc/{id}/exe");
    let program = match host.read_link(Path::new(&link)) {
        Ok(program) => {
            let program = program.to_string_lossy().into_owned();
            // As long as it runs, the file that an update replaced is the one that it executes.
            Some(program.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(program))
        }
        // A thread of the kernel has none.
        Err(error) if has_ended(&error) => Some(String::new()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
        Err(error) => return Err(host::unknown(format!("read link {link}"), &error)),
    };
    Ok(Some(Process { id, name, program, unit: unit(&groups) }))
}

/// ENOENT and ESRCH are what /proc says of a process that is gone.
pub(super) fn has_ended(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(3)
}

/// Returns the system service whose control group `groups` (cgroups(7), `/proc/PID/cgroup`) names.
fn unit(groups: &str) -> Option<String> {
    let path = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        matches!(controllers, "" | "name=systemd").then_some(path)
    })?;
    // Anyone may name a service of one's own session as one likes.
    let below = path.strip_prefix("/system.slice/")?;
    below.split('/').find(|part| part.ends_with(".service")).map(str::to_owned)
}

/// Returns whether a process executes one of `programs` or belongs to one of `units`, and what shows it.
pub(super) fn running(
    processes: &Result<Vec<Process>, Unknown>,
    programs: &[String],
    units: &[String],
) -> (Reading<bool>, SensorSeen) {
    let processes = match processes {
        Ok(processes) => processes,
        Err(unknown) => return (Reading::Unknown { unknown: unknown.clone() }, SensorSeen::None),
    };
    let is_program = |process: &Process| {
        process.program.as_ref().is_some_and(|found| programs.iter().any(|program| is_version_of(found, program)))
    };
    if processes.iter().any(is_program) {
        return (Reading::Known(true), SensorSeen::Program);
    }
    // A service may have helpers: what executes another file is no proof where the file can be seen.
    let is_unit =
        |process: &Process| process.program.is_none() && process.unit.as_ref().is_some_and(|unit| units.contains(unit));
    if processes.iter().any(is_unit) {
        return (Reading::Known(true), SensorSeen::Unit);
    }
    let is_named = |process: &&Process| {
        process.program.is_none()
            && programs.iter().any(|program| {
                let name = program.rsplit('/').next().unwrap_or_default();
                process.name.as_bytes() == &name.as_bytes()[..name.len().min(NAME_BYTES)]
            })
    };
    if let Some(process) = processes.iter().find(is_named) {
        let detail = format!("a process names itself {}, and its program may not be seen", process.name);
        return (Reading::unknown(Cause::Undecidable, detail), SensorSeen::None);
    }
    (Reading::Known(false), SensorSeen::None)
}

/// Returns whether one of `programs` is there.
pub(super) fn is_installed(host: &dyn Host, programs: &[&str]) -> Result<bool, Unknown> {
    let mut first = None;
    for program in programs {
        match host.metadata(Path::new(program)) {
            Ok(_) => return Ok(true),
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => drop(first.get_or_insert_with(|| host::unknown(format!("look at {program}"), &error))),
        }
    }
    first.map_or(Ok(false), Err)
}

/// Returns whether `found` is `program` or the same with a version after it, such as `sophos_watchdog.0`.
fn is_version_of(found: &str, program: &str) -> bool {
    found.strip_prefix(program).is_some_and(|rest| {
        rest.is_empty()
            || rest.strip_prefix('.').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str, program: Option<&str>, unit: Option<&str>) -> Process {
        Process { id: 1, name: name.to_owned(), program: program.map(str::to_owned), unit: unit.map(str::to_owned) }
    }

    #[test]
    fn the_unit_is_that_of_the_system_and_not_of_a_session() {
        for (groups, expected) in [
            ("0::/system.slice/chrony.service\n", Some("chrony.service")),
            ("0::/system.slice/system-clamd.slice/clamd@scan.service/x\n", Some("clamd@scan.service")),
            ("3:cpu:/x\n1:name=systemd:/system.slice/a.service\n0::/\n", Some("a.service")),
            ("0::/user.slice/user-1.slice/user@1.service/app.slice/falcon-sensor.service\n", None),
            ("0::/system.slice/docker-12.scope\n", None),
            ("0::/init.scope\n", None),
            ("", None),
            ("garbage", None),
        ] {
            assert_eq!(unit(groups).as_deref(), expected, "{groups:?}");
        }
    }

    #[test]
    fn a_name_alone_never_shows_that_a_program_runs() {
        let (programs, units) = (["/usr/sbin/clamd".to_owned()], ["clamav-daemon.service".to_owned()]);
        let unit = Some("clamav-daemon.service");
        let known = |yes, seen| (Some(yes), seen);
        for (found, expected) in [
            (process("clamd", Some("/usr/sbin/clamd"), unit), known(true, SensorSeen::Program)),
            (process("x", Some("/usr/sbin/clamd"), None), known(true, SensorSeen::Program)),
            (process("clamd", None, unit), known(true, SensorSeen::Unit)),
            (process("clamd", Some("/tmp/clamd"), None), known(false, SensorSeen::None)),
            (process("sleep", Some("/usr/bin/sleep"), unit), known(false, SensorSeen::None)),
            (process("clamd", Some(""), None), known(false, SensorSeen::None)),
            (process("clamd", None, None), (None, SensorSeen::None)),
            (process("sshd", None, None), known(false, SensorSeen::None)),
        ] {
            let (reading, seen) = running(&Ok(vec![found.clone()]), &programs, &units);
            assert_eq!((reading.known().copied(), seen), expected, "{found:?}");
        }
        let unknown = Unknown::new(Cause::Forbidden, "list /proc");
        assert!(running(&Err(unknown), &programs, &units).0.known().is_none());
    }

    #[test]
    fn a_program_may_have_a_version_after_its_name_and_nothing_else() {
        for (found, expected) in [("/a/b", true), ("/a/b.0", true), ("/a/b.12", true)] {
            assert_eq!(is_version_of(found, "/a/b"), expected, "{found}");
        }
        for found in ["/a/b.", "/a/b.x", "/a/bc", "/a", ""] {
            assert!(!is_version_of(found, "/a/b"), "{found}");
        }
    }
}
