//! What a Mac is. Written from manual pages and from output that others published; **it has never run on macOS**.

use std::path::Path;

use muster_proto::fact::{
    Cause, ExecutionControl, ExecutionControlKind, ExecutionControlMode, HostClass, OsFamily, Reading, System, Text,
    Unknown,
};

use super::{digest_of_id, of_machine};
use crate::{
    host::{self, FILE_BYTES, Host, Tool},
    probe::plist::{self, Value},
};

/// What Apple says of the system that is installed.
const VERSION: &str = "/System/Library/CoreServices/SystemVersion.plist";

pub(super) fn system(host: &dyn Host) -> System {
    let machine = host.machine();
    let version = system_version(host);
    let platform = registry(host, &["-a", "-r", "-d", "1", "-c", "IOPlatformExpertDevice"]).and_then(|devices| {
        devices.into_iter().next().ok_or_else(|| Unknown::new(Cause::Absent, "ioreg has no IOPlatformExpertDevice"))
    });
    let (execution_controls, execution_controls_complete) = execution_controls(host);
    System {
        hostname: of_machine(&machine, |machine| Text::new(&machine.hostname)),
        os_family: OsFamily::Macos,
        os_id: Reading::Known(Text::new("macos")),
        os_version: text(&version, "ProductVersion"),
        os_name: name(&version),
        kernel: of_machine(&machine, |machine| Text::new(&machine.release)),
        architecture: of_machine(&machine, |machine| Text::new(&machine.machine)),
        host_class: host_class(host),
        machine_id_digest: text(&platform, "IOPlatformUUID").map(|id| digest_of_id(id.as_str())),
        hardware_serial: text(&platform, "IOPlatformSerialNumber"),
        hardware_vendor: text(&platform, "manufacturer"),
        hardware_model: text(&platform, "model"),
        processors: of_machine(&machine, |machine| machine.processors),
        memory_bytes: of_machine(&machine, |machine| machine.memory_bytes),
        secure_boot: Reading::unknown(
            Cause::Unsupported,
            "a Mac's firmware has a policy of its own, which is not read",
        ),
        execution_controls,
        execution_controls_complete,
        clock_synchronized: Reading::unknown(Cause::Unsupported, "this build does not read timed(8)"),
    }
}

/// Returns the version of macOS, such as `15.1`.
pub(in crate::probe) fn product_version(host: &dyn Host) -> Reading<Text> {
    text(&system_version(host), "ProductVersion")
}

/// Returns the build of macOS, such as `24B83`.
pub(in crate::probe) fn product_build(host: &dyn Host) -> Reading<Text> {
    text(&system_version(host), "ProductBuildVersion")
}

fn system_version(host: &dyn Host) -> Result<Value, Unknown> {
    let bytes =
        host.read(Path::new(VERSION), FILE_BYTES).map_err(|error| host::unknown(format!("read {VERSION}"), &error))?;
    plist::parse(&bytes).ok_or_else(|| Unknown::new(Cause::Garbled, format!("{VERSION} is no property list")))
}

/// Returns the entries that ioreg(8) prints, whose texts are bytes with a zero at the end.
fn registry(host: &dyn Host, args: &[&str]) -> Result<Vec<Value>, Unknown> {
    let output = host.run(Tool::Ioreg, args).map_err(|error| host::unknown("run ioreg", &error))?;
    // It prints nothing when nothing matches.
    if output.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    match plist::parse(&output) {
        Some(Value::Array(entries)) => Ok(entries),
        _ => Err(Unknown::new(Cause::Garbled, "ioreg printed no list of entries")),
    }
}

fn text(list: &Result<Value, Unknown>, key: &str) -> Reading<Text> {
    match list.as_ref().map(|list| list.get(key)) {
        Ok(Some(Value::Text(text))) if !text.is_empty() => Reading::Known(Text::new(text)),
        Ok(Some(Value::Data(bytes))) => Reading::Known(Text::from_bytes(bytes.strip_suffix(&[0]).unwrap_or(bytes))),
        Ok(_) => Reading::unknown(Cause::Absent, format!("{key} has no value")),
        Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
    }
}

fn name(version: &Result<Value, Unknown>) -> Reading<Text> {
    let values = ["ProductName", "ProductVersion", "ProductBuildVersion"].map(|key| text(version, key));
    match values {
        [Reading::Known(name), Reading::Known(version), Reading::Known(build)] => {
            Reading::Known(Text::new(&format!("{name} {version} ({build})")))
        }
        values => values.into_iter().find(|value| value.known().is_none()).expect("else the arm above"),
    }
}

/// A Mac with a battery of its own is a laptop.
fn host_class(host: &dyn Host) -> Reading<HostClass> {
    match is_guest(host) {
        Ok(true) => return Reading::Known(HostClass::Vm),
        Ok(false) => {}
        Err(unknown) => return Reading::Unknown { unknown },
    }
    match registry(host, &["-a", "-r", "-d", "1", "-c", "AppleSmartBattery"]) {
        Ok(batteries) if batteries.is_empty() => Reading::Known(HostClass::Desktop),
        Ok(_) => Reading::Known(HostClass::Laptop),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

/// Returns whether a hypervisor runs the host: 1 in a guest, 0 elsewhere. Systems before macOS 11 do not have the number, and
/// sysctl(8) ends with an error.
pub(in crate::probe) fn is_guest(host: &dyn Host) -> Result<bool, Unknown> {
    match host.run(Tool::Sysctl, &["-n", "kern.hv_vmm_present"]) {
        Ok(number) => match number.trim_ascii() {
            b"0" => Ok(false),
            b"1" => Ok(true),
            _ => Err(Unknown::new(Cause::Garbled, "kern.hv_vmm_present is neither 0 nor 1")),
        },
        Err(error) if host::cause(&error) == Cause::Failed && is_before_11(host) => Ok(false),
        Err(error) => Err(host::unknown("run sysctl kern.hv_vmm_present", &error)),
    }
}

fn is_before_11(host: &dyn Host) -> bool {
    let version = product_version(host);
    let major = version.known().and_then(|version| version.as_str().split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major < 11)
}

/// The lines of csrutil(8) and spctl(8), which are not translated.
fn execution_controls(host: &dyn Host) -> (Vec<ExecutionControl>, Reading<bool>) {
    let sources: [(ExecutionControlKind, Tool, &str, [&str; 2]); 2] = [
        (ExecutionControlKind::Gatekeeper, Tool::Spctl, "--status", ["assessments enabled", "assessments disabled"]),
        (
            ExecutionControlKind::Sip,
            Tool::Csrutil,
            "status",
            ["System Integrity Protection status: enabled", "System Integrity Protection status: disabled"],
        ),
    ];
    let (mut controls, mut complete) = (Vec::new(), Reading::Known(true));
    for (kind, tool, arg, [on, off]) in sources {
        let output = host.run(tool, &[arg]);
        let unknown = match &output {
            Ok(output) => {
                let text = String::from_utf8_lossy(output);
                let line = text.lines().next().unwrap_or_default().trim_end().trim_end_matches('.');
                let mode = [(on, ExecutionControlMode::Enforce), (off, ExecutionControlMode::Off)];
                if let Some((_, mode)) = mode.into_iter().find(|(word, _)| *word == line) {
                    controls.push(ExecutionControl { kind, mode });
                    continue;
                }
                // Some of it may be switched off one by one, which is neither on nor off.
                Unknown::new(Cause::Undecidable, format!("{} said neither on nor off", tool.name()))
            }
            Err(error) => host::unknown(format!("run {}", tool.name()), error),
        };
        // What could not be asked is the reason, before what was said and cannot be decided.
        if output.is_err() || complete.known().is_some() {
            complete = Reading::Unknown { unknown };
        }
    }
    (controls, complete)
}
