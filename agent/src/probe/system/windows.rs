//! What a Windows host is. Written from Microsoft's documentation; **it has never run on Windows**.

use muster_proto::fact::{
    Cause, ExecutionControl, ExecutionControlKind, ExecutionControlMode, HostClass, OsFamily, Reading, SecureBoot,
    System, Text, Unknown,
};
use serde::Deserialize;

use super::{class, digest_of_id, of_machine};
use crate::{
    host::{Host, Script},
    probe::answer::{self, Answer},
};

/// `Win32_OperatingSystem`.
#[derive(Clone, Default, Deserialize)]
struct Os {
    version: Option<String>,
    caption: Option<String>,
    product_type: Option<u32>,
}

/// `Win32_ComputerSystem`.
#[derive(Clone, Default, Deserialize)]
struct Computer {
    vendor: Option<String>,
    model: Option<String>,
    system_type: Option<u32>,
}

#[derive(Clone, Deserialize)]
struct Bios {
    serial: Option<String>,
}

#[derive(Deserialize)]
struct Registry {
    revision: Option<u32>,
}

#[derive(Clone, Deserialize)]
struct Id {
    id: Option<String>,
}

#[derive(Deserialize)]
struct Firmware {
    enabled: Option<i64>,
}

/// `Win32_DeviceGuard`.
#[derive(Deserialize)]
struct DeviceGuard {
    user_mode: Option<u32>,
}

pub(super) fn system(host: &dyn Host) -> System {
    let machine = host.machine();
    let answer = answer::ask(host, Script::System);
    let part = |name: &'static str| Part { answer: &answer, name };
    let os = part("os").one::<Os>();
    let computer = part("computer").one::<Computer>();
    let (control, complete) = app_control(part("device_guard").one());
    System {
        hostname: of_machine(&machine, |machine| Text::new(&machine.hostname)),
        os_family: OsFamily::Windows,
        // ProductType: 1 is a work station; 2 and 3 are servers.
        os_id: match os.as_ref().map(|os| os.product_type) {
            Ok(Some(1)) => Reading::Known(Text::new("windows")),
            Ok(Some(2 | 3)) => Reading::Known(Text::new("windows_server")),
            Ok(_) => Reading::unknown(Cause::Garbled, "ProductType is none that is documented"),
            Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
        },
        os_version: version(&os, part("registry").one()),
        os_name: text(&os, |os| os.caption, "Caption"),
        kernel: of_machine(&machine, |machine| Text::new(&machine.release)),
        architecture: of_machine(&machine, |machine| Text::new(&machine.machine)),
        host_class: host_class(&os, &computer),
        machine_id_digest: match text(&part("machine").one::<Id>(), |id| id.id, "MachineGuid") {
            Reading::Known(id) => Reading::Known(digest_of_id(id.as_str())),
            unknown => unknown,
        },
        hardware_serial: text(&part("bios").one::<Bios>(), |bios| bios.serial, "SerialNumber"),
        hardware_vendor: text(&computer, |computer| computer.vendor, "Manufacturer"),
        hardware_model: text(&computer, |computer| computer.model, "Model"),
        processors: of_machine(&machine, |machine| machine.processors),
        memory_bytes: of_machine(&machine, |machine| machine.memory_bytes),
        secure_boot: match &answer {
            Ok(answer) => secure_boot(answer.one("secure_boot")),
            Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
        },
        execution_controls: control.into_iter().collect(),
        execution_controls_complete: complete,
        clock_synchronized: Reading::unknown(Cause::Unsupported, "w32tm tells it in the host's language alone"),
    }
}

/// A part of an answer, if there is one.
struct Part<'a> {
    answer: &'a Result<Answer, Unknown>,
    name: &'static str,
}

impl Part<'_> {
    fn one<T: serde::de::DeserializeOwned>(&self) -> Result<T, Unknown> {
        self.answer.as_ref().map_err(Clone::clone)?.one(self.name)
    }
}

fn text<T: Clone>(part: &Result<T, Unknown>, get: fn(T) -> Option<String>, name: &str) -> Reading<Text> {
    match part.clone().map(get) {
        Ok(Some(text)) if !text.trim().is_empty() => Reading::Known(Text::new(text.trim())),
        Ok(_) => Reading::unknown(Cause::Absent, format!("{name} is empty")),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

/// Returns major, minor, build and the revision that updates count up.
fn version(os: &Result<Os, Unknown>, registry: Result<Registry, Unknown>) -> Reading<Text> {
    match (os.as_ref().map(|os| os.version.as_deref()), registry.map(|registry| registry.revision)) {
        (Ok(Some(version)), Ok(Some(revision))) => Reading::Known(Text::new(&format!("{version}.{revision}"))),
        (Ok(None), _) | (_, Ok(None)) => Reading::unknown(Cause::Absent, "Version or UBR has no value"),
        (Err(unknown), _) => Reading::Unknown { unknown: unknown.clone() },
        (_, Err(unknown)) => Reading::Unknown { unknown },
    }
}

/// PCSystemType of Win32_ComputerSystem: 2 and 8 are mobile, 1 and 3 stand on or below a desk, 4, 5 and 7 are servers.
fn host_class(os: &Result<Os, Unknown>, computer: &Result<Computer, Unknown>) -> Reading<HostClass> {
    let computer = match computer {
        Ok(computer) => computer,
        Err(unknown) => return Reading::Unknown { unknown: unknown.clone() },
    };
    let (vendor, model) =
        (computer.vendor.as_deref().unwrap_or_default(), computer.model.as_deref().unwrap_or_default());
    let is_server = os.as_ref().is_ok_and(|os| matches!(os.product_type, Some(2 | 3)));
    Reading::Known(match computer.system_type {
        _ if class::is_virtual_hardware(vendor, model) => HostClass::Vm,
        Some(4 | 5 | 7) => HostClass::Server,
        _ if is_server => HostClass::Server,
        Some(2 | 8) => HostClass::Laptop,
        Some(1 | 3) => HostClass::Desktop,
        other => return Reading::unknown(Cause::Undecidable, format!("PCSystemType is {other:?}")),
    })
}

/// The key of the registry is there only where the firmware is UEFI.
fn secure_boot(firmware: Result<Firmware, Unknown>) -> Reading<SecureBoot> {
    match firmware.map(|firmware| firmware.enabled) {
        Ok(Some(1)) => Reading::Known(SecureBoot::On),
        Ok(Some(0)) => Reading::Known(SecureBoot::Off),
        Ok(_) => Reading::unknown(Cause::Garbled, "UEFISecureBootEnabled is neither 0 nor 1"),
        Err(unknown) if unknown.cause == Cause::Absent => Reading::Known(SecureBoot::Unsupported),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

/// UsermodeCodeIntegrityPolicyEnforcementStatus of Win32_DeviceGuard: 0 off, 1 audit, 2 enforced. AppLocker is not read.
fn app_control(guard: Result<DeviceGuard, Unknown>) -> (Option<ExecutionControl>, Reading<bool>) {
    let mode = match guard.map(|guard| guard.user_mode) {
        Ok(Some(0)) => ExecutionControlMode::Off,
        Ok(Some(1)) => ExecutionControlMode::Audit,
        Ok(Some(2)) => ExecutionControlMode::Enforce,
        Ok(other) => {
            return (None, Reading::unknown(Cause::Garbled, format!("Win32_DeviceGuard has user mode {other:?}")));
        }
        Err(unknown) => return (None, Reading::Unknown { unknown }),
    };
    let complete = Reading::unknown(Cause::Unsupported, "AppLocker is not read");
    (Some(ExecutionControl { kind: ExecutionControlKind::AppControl, mode }), complete)
}
