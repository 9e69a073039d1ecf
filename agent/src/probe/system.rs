//! What the host is, which sockets wait for peers, and what the agent is.

mod apparmor;
mod class;
pub(super) mod listeners;
mod macos;
mod own;
mod secure_boot;
mod windows;

use std::{io, path::Path};

use muster_proto::{
    fact::{
        Cause, ExecutionControl, ExecutionControlKind, ExecutionControlMode, Fact, HostClass, OsFamily, Reading,
        Subject, System, Text, Unknown,
    },
    id::Digest,
    report,
};

pub(super) use class::is_virtual_hardware;
pub(super) use macos::{is_guest, product_build, product_version};

use super::{Look, Probe};
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Domain of the digest of a machine id.
const MACHINE_ID_DOMAIN: &str = "muster/machine-id/v1";

/// Returns the class of a Linux host, by which defaults are chosen.
pub(crate) fn host_class(host: &dyn Host) -> Reading<HostClass> {
    match host.os_family() {
        OsFamily::Linux => class::look(host),
        OsFamily::Macos | OsFamily::Windows => Reading::unknown(Cause::Unsupported, "told by the system probe alone"),
    }
}

/// The probe of `system`, `listeners` and `agent`.
pub struct SystemProbe;

impl Probe for SystemProbe {
    fn id(&self) -> report::Probe {
        report::Probe::System
    }

    fn name(&self) -> &'static str {
        "system"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        let host = look.host;
        let elsewhere = |system: System| {
            let unsupported = || Unknown::new(Cause::Unsupported, "this build reads it on Linux alone");
            vec![
                Fact::System(Reading::Known(system)),
                Fact::unknown(Subject::Listeners, unsupported()),
                Fact::unknown(Subject::Agent, unsupported()),
            ]
        };
        match host.os_family() {
            OsFamily::Linux => vec![
                Fact::System(Reading::Known(system(host))),
                Fact::Listeners(listeners::look(host)),
                Fact::Agent(own::look(look)),
            ],
            OsFamily::Macos => elsewhere(macos::system(host)),
            OsFamily::Windows => elsewhere(windows::system(host)),
        }
    }
}

fn system(host: &dyn Host) -> System {
    let machine = host.machine();
    let of_machine = |get: fn(&host::Machine) -> &str| match &machine {
        Ok(machine) => Reading::Known(Text::new(get(machine))),
        Err(error) => Reading::Unknown { unknown: host::unknown("uname", error) },
    };
    let number = |get: fn(&host::Machine) -> u64| match &machine {
        Ok(machine) => Reading::Known(get(machine)),
        Err(error) => Reading::Unknown { unknown: host::unknown("sysconf", error) },
    };
    let os_release = read_text(host, "/etc/os-release").or_else(|error| {
        // os-release(5): the second place is for hosts without the first.
        if error.kind() == io::ErrorKind::NotFound { read_text(host, "/usr/lib/os-release") } else { Err(error) }
    });
    let of_os_release = |key: &str| match &os_release {
        Ok(text) => match os_release_value(text, key) {
            Some(value) => Reading::Known(Text::new(&value)),
            None => Reading::unknown(Cause::Absent, format!("os-release has no {key}")),
        },
        Err(error) => Reading::Unknown { unknown: host::unknown("read /etc/os-release", error) },
    };
    let (execution_controls, execution_controls_complete) = execution_controls(host);
    System {
        hostname: of_machine(|machine| &machine.hostname),
        os_family: OsFamily::Linux,
        os_id: of_os_release("ID"),
        os_version: of_os_release("VERSION_ID"),
        os_name: of_os_release("PRETTY_NAME"),
        kernel: of_machine(|machine| &machine.release),
        architecture: of_machine(|machine| &machine.machine),
        host_class: class::look(host),
        machine_id_digest: machine_id_digest(host),
        hardware_serial: dmi(host, "product_serial"),
        hardware_vendor: dmi(host, "sys_vendor"),
        hardware_model: dmi(host, "product_name"),
        processors: number(|machine| machine.processors),
        memory_bytes: number(|machine| machine.memory_bytes),
        secure_boot: secure_boot::look(host),
        execution_controls,
        execution_controls_complete,
        clock_synchronized: host::reading("adjtimex", host.clock_is_synchronized()),
    }
}

/// Returns the value of `key` in an os-release file, without its quotes and escapes.
///
/// `text` is the whole file, as in `os-release(5)`. Returns `None` when the key is absent or empty.
pub(in crate::probe) fn os_release_value(text: &str, key: &str) -> Option<String> {
    // As in a shell, the last assignment holds.
    let value = text.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix('=')).next_back()?;
    let quoted = |quote: char| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    let value = match (quoted('"'), quoted('\'')) {
        (Some(value), _) => unescape(value),
        (_, Some(value)) => value.to_owned(),
        // A quote that does not end: the file is cut.
        _ if value.starts_with(['"', '\'']) => return None,
        _ => unescape(value),
    };
    (!value.is_empty()).then_some(value)
}

fn unescape(value: &str) -> String {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

fn machine_id_digest(host: &dyn Host) -> Reading<Text> {
    let text = match read_text(host, "/etc/machine-id") {
        Ok(text) => text,
        Err(error) => return Reading::Unknown { unknown: host::unknown("read /etc/machine-id", &error) },
    };
    let id = text.trim();
    if id.is_empty() || id == "uninitialized" {
        return Reading::unknown(Cause::Absent, "/etc/machine-id is not set");
    }
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Reading::unknown(Cause::Garbled, "/etc/machine-id is not 32 hex digits");
    }
    Reading::Known(digest_of_id(id))
}

fn digest_of_id(id: &str) -> Text {
    Text::new(&Digest::of(MACHINE_ID_DOMAIN, &[id.as_bytes()]).to_string())
}

/// Returns the reading of what the kernel says of itself.
fn of_machine<T>(machine: &io::Result<host::Machine>, get: impl FnOnce(&host::Machine) -> T) -> Reading<T> {
    match machine {
        Ok(machine) => Reading::Known(get(machine)),
        Err(error) => Reading::Unknown { unknown: host::unknown("look at the machine", error) },
    }
}

/// Returns a string of the SMBIOS as the kernel shows it (Documentation/ABI/testing/sysfs-class-dmi).
fn dmi(host: &dyn Host, name: &str) -> Reading<Text> {
    let path = format!("/sys/class/dmi/id/{name}");
    match read_text(host, &path) {
        Ok(text) if text.trim().is_empty() => Reading::unknown(Cause::Absent, format!("{path} is empty")),
        Ok(text) => Reading::Known(Text::new(text.trim())),
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("read {path}"), &error) },
    }
}

/// Returns the mechanisms that are there, and whether all could be asked.
fn execution_controls(host: &dyn Host) -> (Vec<ExecutionControl>, Reading<bool>) {
    let mut controls = Vec::new();
    let mut complete = Reading::Known(true);
    type Parse = fn(&str) -> Option<ExecutionControlMode>;
    match apparmor::look(host) {
        Ok(Some(mode)) => controls.push(ExecutionControl { kind: ExecutionControlKind::Apparmor, mode }),
        Ok(None) => {}
        Err(unknown) => complete = Reading::Unknown { unknown },
    }
    let sources: [(ExecutionControlKind, &str, Parse); 2] = [
        (ExecutionControlKind::Lockdown, "/sys/kernel/security/lockdown", lockdown_mode),
        (ExecutionControlKind::Selinux, "/sys/fs/selinux/enforce", selinux_mode),
    ];
    for (kind, path, parse) in sources {
        match read_text(host, path) {
            Ok(text) => match parse(text.trim()) {
                Some(mode) => controls.push(ExecutionControl { kind, mode }),
                None => complete = Reading::unknown(Cause::Garbled, format!("{path} has an unknown value")),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => complete = Reading::Unknown { unknown: host::unknown(format!("read {path}"), &error) },
        }
    }
    let is_blind = !controls.iter().any(|control| control.kind == ExecutionControlKind::Lockdown)
        && host.metadata(Path::new("/sys/kernel/security/lsm")).is_err();
    if is_blind && complete.known().is_some() {
        complete = Reading::unknown(Cause::Absent, "securityfs is not mounted, which shows lockdown");
    }
    (controls, complete)
}

/// The level in brackets is in force (kernel_lockdown(7)).
fn lockdown_mode(text: &str) -> Option<ExecutionControlMode> {
    let (_, level) = text.split_once('[')?;
    match level.split_once(']')?.0 {
        "none" => Some(ExecutionControlMode::Off),
        "integrity" | "confidentiality" => Some(ExecutionControlMode::Enforce),
        _ => None,
    }
}

fn selinux_mode(text: &str) -> Option<ExecutionControlMode> {
    match text {
        "1" => Some(ExecutionControlMode::Enforce),
        "0" => Some(ExecutionControlMode::Audit),
        _ => None,
    }
}

/// Returns a small file as text, with what is not UTF-8 replaced.
fn read_text(host: &dyn Host, path: &str) -> io::Result<String> {
    let bytes = host.read(Path::new(path), SMALL_FILE_BYTES)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn os_release_values_lose_their_quotes_and_escapes() {
        let text = "# c\nNAME='Debian GNU/Linux'\nID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"a \\\"b\\\" c\"\nEMPTY=\nCUT=\"x";
        for (key, expected) in [
            ("NAME", Some("Debian GNU/Linux")),
            ("ID", Some("debian")),
            ("VERSION_ID", Some("12")),
            ("PRETTY_NAME", Some("a \"b\" c")),
            ("EMPTY", None),
            ("NONE", None),
            ("CUT", None),
        ] {
            assert_eq!(os_release_value(text, key).as_deref(), expected, "{key}");
        }
    }

    #[test]
    fn the_lockdown_level_in_brackets_is_in_force() {
        assert_eq!(lockdown_mode("[none] integrity confidentiality"), Some(ExecutionControlMode::Off));
        assert_eq!(lockdown_mode("none [integrity] confidentiality"), Some(ExecutionControlMode::Enforce));
        assert_eq!(lockdown_mode("none integrity"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), key in "[A-Z]{0,3}") {
            let _ = os_release_value(&text, &key);
            let _ = lockdown_mode(&text);
        }
    }
}
