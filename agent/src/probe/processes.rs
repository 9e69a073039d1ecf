//! The processes of the host, and which of them are a known program.
//!
//! A process chooses its own name. Which file it executes (proc_pid_exe(5)) and which control group systemd put it in
//! (proc_pid_cgroup(5)) it does not choose, so those are what is counted. A process inside a container is not the host's.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use muster_proto::fact::{Cause, Reading, SensorSeen, Unknown};

use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Processes that are looked at, at most.
const PROCESSES: usize = 50_000;
/// Bytes of a process's name that the kernel keeps (`TASK_COMM_LEN` less its zero).
const NAME_BYTES: usize = 15;
/// Links that are followed to one program, at most.
const LINKS: usize = 16;

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
    let ids = ids(host)?;
    if ids.len() > PROCESSES {
        return Err(Unknown::new(Cause::Limit, format!("more than {PROCESSES} processes")));
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

/// Returns the numbers of all processes; why not, where those of others are not listed.
pub(super) fn ids(host: &dyn Host) -> Result<BTreeSet<u32>, Unknown> {
    let names = host.list(Path::new("/proc")).map_err(|error| host::unknown("list /proc", &error))?;
    let ids: BTreeSet<u32> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    if ids.is_empty() {
        return Err(Unknown::new(Cause::Absent, "/proc shows no process"));
    }
    // proc(5): with the option `hidepid` those of others are not listed, and the first is always another's.
    if !ids.contains(&1) {
        return Err(Unknown::new(Cause::Forbidden, "/proc does not list the processes of others (hidepid)"));
    }
    Ok(ids)
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
    host: &dyn Host,
    processes: &Result<Vec<Process>, Unknown>,
    programs: &[String],
    units: &[String],
) -> (Reading<bool>, SensorSeen) {
    let processes = match processes {
        Ok(processes) => processes,
        Err(unknown) => return (Reading::Unknown { unknown: unknown.clone() }, SensorSeen::None),
    };
    let places = places(host, programs);
    let known: &[String] = places.as_deref().unwrap_or(programs);
    if processes.iter().any(|process| is_program(process, known)) {
        return (Reading::Known(true), SensorSeen::Program);
    }
    if processes.iter().any(|process| is_unit(process, units)) {
        return (Reading::Known(true), SensorSeen::Unit);
    }
    let is_named = |process: &&Process| {
        process.program.is_none()
            && known.iter().any(|program| {
                let name = program.rsplit('/').next().unwrap_or_default();
                process.name.as_bytes() == &name.as_bytes()[..name.len().min(NAME_BYTES)]
            })
    };
    if let Some(process) = processes.iter().find(is_named) {
        let detail = format!("a process names itself {}, and its program may not be seen", process.name);
        return (Reading::unknown(Cause::Undecidable, detail), SensorSeen::None);
    }
    match places {
        Ok(_) => (Reading::Known(false), SensorSeen::None),
        Err(unknown) => (Reading::Unknown { unknown }, SensorSeen::None),
    }
}

/// Returns the processes that execute one of `programs` or belong to one of `units`.
pub(super) fn of<'a>(
    host: &dyn Host,
    processes: &'a [Process],
    programs: &[String],
    units: &[String],
) -> Vec<&'a Process> {
    let places = places(host, programs);
    let known: &[String] = places.as_deref().unwrap_or(programs);
    processes.iter().filter(|process| is_program(process, known) || is_unit(process, units)).collect()
}

fn is_program(process: &Process, places: &[String]) -> bool {
    process.program.as_ref().is_some_and(|found| places.iter().any(|place| is_version_of(found, place)))
}

/// A service may have helpers: what executes another file is no proof where the file can be seen.
fn is_unit(process: &Process, units: &[String]) -> bool {
    process.program.is_none() && process.unit.as_ref().is_some_and(|unit| units.contains(unit))
}

/// Returns where `programs` are, with the places that links lead to: the kernel names the file behind them all.
///
/// Some distributions have made `/usr/sbin` a link to `/usr/bin`, or put there what stood in the other.
fn places(host: &dyn Host, programs: &[String]) -> Result<Vec<String>, Unknown> {
    let mut places = programs.to_vec();
    for program in programs {
        places.extend(program.strip_prefix("/usr/sbin/").map(|name| format!("/usr/bin/{name}")));
        places.extend(behind_links(host, program)?);
    }
    Ok(places)
}

/// Returns the file behind the links of `program` and of its folders; `None` where there is no link, or one to a file of another
/// name: programs that are many in one, such as busybox, are no program of the table.
fn behind_links(host: &dyn Host, program: &str) -> Result<Option<String>, Unknown> {
    let parts = |path: &str| path.split('/').rev().map(str::to_owned).collect::<Vec<_>>();
    let (mut path, mut rest, mut links) = (PathBuf::from("/"), parts(program), 0);
    while let Some(part) = rest.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                path.pop();
                continue;
            }
            part => path.push(part),
        }
        match host.read_link(&path) {
            Ok(target) => {
                links += 1;
                let Some(target) = target.to_str().filter(|_| links <= LINKS) else { return Ok(None) };
                path = if target.starts_with('/') { PathBuf::from("/") } else { path.parent().unwrap_or(&path).into() };
                rest.extend(parts(target));
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(host::unknown(format!("read link {}", path.display()), &error));
            }
            Err(error) if host::cause(&error) == Cause::Absent => return Ok(None),
            // It is no link.
            Err(_) => {}
        }
    }
    let name = program.rsplit('/').next().unwrap_or_default();
    let is_like = |path: &PathBuf| path.file_name().is_some_and(|found| found.to_string_lossy().starts_with(name));
    Ok(Some(path).filter(|path| links > 0 && is_like(path)).and_then(|path| path.to_str().map(str::to_owned)))
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
    use muster_proto::fact::PathText;

    use super::*;
    use crate::host::{Recorded, recorded::Failure};

    /// A host that has nothing but these links.
    fn linked(links: &[(&str, &str)]) -> Recorded {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sensors/debian-13");
        let mut host = Recorded::at(&case).unwrap();
        let text = |path: &str| PathText::from_bytes(path.as_bytes());
        host.index_mut().links = links.iter().map(|(link, target)| (text(link), text(target))).collect();
        host
    }

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
    fn a_list_without_the_processes_of_others_tells_of_none() {
        let listed = |names: &[&str]| {
            let mut host = linked(&[]);
            let names = names.iter().map(|name| PathText::from_bytes(name.as_bytes())).collect();
            host.index_mut().lists.insert(PathText::from_bytes(b"/proc"), names);
            (ids(&host).map_err(|unknown| unknown.cause), look(&host).map_err(|unknown| unknown.cause).err())
        };
        assert_eq!(listed(&["1", "7", "self"]).0, Ok(BTreeSet::from([1, 7])));
        assert_eq!(listed(&["7", "self"]), (Err(Cause::Forbidden), Some(Cause::Forbidden)));
        assert_eq!(listed(&["self"]), (Err(Cause::Absent), Some(Cause::Absent)));
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
            let (reading, seen) = running(&linked(&[]), &Ok(vec![found.clone()]), &programs, &units);
            assert_eq!((reading.known().copied(), seen), expected, "{found:?}");
        }
        let unknown = Unknown::new(Cause::Forbidden, "list /proc");
        assert!(running(&linked(&[]), &Err(unknown), &programs, &units).0.known().is_none());
    }

    #[test]
    fn a_program_is_found_behind_its_links() {
        let links = [
            ("/usr/sbin", "bin"),
            ("/opt/CrowdStrike/falcond", "/opt/CrowdStrike/falcond8305"),
            ("/var/ossec", "/opt/../opt/ossec"),
            ("/usr/bin/ntpd", "/bin/busybox"),
            ("/opt/a", "b"),
            ("/opt/b", "a"),
        ];
        let host = linked(&links);
        for (program, found, expected) in [
            ("/usr/sbin/rsyslogd", "/usr/bin/rsyslogd", true),
            ("/opt/CrowdStrike/falcond", "/opt/CrowdStrike/falcond8305", true),
            ("/opt/CrowdStrike/falcond", "/opt/CrowdStrike/falcond", true),
            ("/var/ossec/bin/wazuh-agentd", "/opt/ossec/bin/wazuh-agentd", true),
            ("/usr/sbin/ntpd", "/bin/busybox", false),
            ("/usr/bin/rsyslogd", "/usr/sbin/rsyslogd", false),
            ("/opt/CrowdStrike/falcond", "/opt/CrowdStrike/falcond8306", false),
            ("/opt/a", "/opt/b", false),
        ] {
            let processes = vec![process("x", Some(found), None)];
            assert_eq!(of(&host, &processes, &[program.to_owned()], &[]).len(), usize::from(expected));
            let reading = running(&host, &Ok(processes), &[program.to_owned()], &[]).0;
            assert_eq!(reading, Reading::Known(expected), "{program} {found}");
        }
        // Where /usr/sbin is a folder of its own.
        let processes = Ok(vec![process("x", Some("/usr/bin/chronyd"), None)]);
        let chrony = ["/usr/sbin/chronyd".to_owned()];
        assert_eq!(running(&linked(&[]), &processes, &chrony, &[]).0, Reading::Known(true));
        // A link that may not be read leaves it open.
        let mut closed = linked(&[]);
        let refused = Failure::of(&std::io::Error::from_raw_os_error(13));
        closed.index_mut().errors.insert("link /usr/sbin".to_owned(), refused);
        assert!(running(&closed, &Ok(vec![process("x", Some("/bin/x"), None)]), &chrony, &[]).0.known().is_none());
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
