//! What guards the host before and while its kernel starts.

use std::{io, path::Path};

use muster_proto::{
    fact::{Boot, Cause, Fact, Firmware, Reading, Tpm},
    report,
};

use super::{Look, Probe};
use crate::host::{self, Host, SMALL_FILE_BYTES};

const EFI: &str = "/sys/firmware/efi";
/// Devices that the kernel drives (Documentation/ABI/stable/sysfs-class-tpm).
const TPMS: &str = "/sys/class/tpm";
/// Tables by which the firmware tells of a TPM 2.0 and of a TPM 1.2 (TCG ACPI Specification).
const TPM_TABLES: [&str; 2] = ["/sys/firmware/acpi/tables/TPM2", "/sys/firmware/acpi/tables/TCPA"];
const SECURITY: &str = "/sys/kernel/security";
/// Log of what the firmware measured (Documentation/security/tpm/tpm_event_log.rst).
const EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
const IMA: &str = "/sys/kernel/security/ima";

/// The probe of `boot`.
pub struct BootProbe;

impl Probe for BootProbe {
    fn id(&self) -> report::Probe {
        report::Probe::Boot
    }

    fn name(&self) -> &'static str {
        "boot"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        let host = look.host;
        vec![Fact::Boot(Reading::Known(Boot {
            firmware: firmware(host),
            tpm: tpm(host),
            measured_boot: is_in_security(host, EVENT_LOG),
            ima_measures: ima_measures(host),
        }))]
    }
}

fn firmware(host: &dyn Host) -> Reading<Firmware> {
    let is_there = |path: &str| match host.metadata(Path::new(path)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(host::unknown(format!("look at {path}"), &error)),
    };
    match (is_there("/sys/firmware"), is_there(EFI)) {
        (Ok(true), Ok(true)) => Reading::Known(Firmware::Uefi),
        (Ok(true), Ok(false)) => match host.machine() {
            Ok(machine) if matches!(machine.machine.as_str(), "x86_64" | "i686") => Reading::Known(Firmware::Bios),
            Ok(_) => Reading::Known(Firmware::Other),
            Err(error) => Reading::Unknown { unknown: host::unknown("uname", &error) },
        },
        (Ok(false), _) => Reading::unknown(Cause::Absent, "/sys/firmware is not there: sysfs is not mounted"),
        (Err(unknown), _) | (_, Err(unknown)) => Reading::Unknown { unknown },
    }
}

fn tpm(host: &dyn Host) -> Reading<Tpm> {
    if let Err(error) = host.metadata(Path::new("/sys/class")) {
        return Reading::Unknown { unknown: host::unknown("look at /sys/class", &error) };
    }
    let devices = match host.list(Path::new(TPMS)) {
        Ok(devices) => devices,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Reading::Unknown { unknown: host::unknown(format!("list {TPMS}"), &error) },
    };
    let Some(device) = devices.first() else {
        for table in TPM_TABLES {
            match host.metadata(Path::new(table)) {
                Ok(_) => {
                    let detail = format!("{table} tells of one that the kernel does not drive");
                    return Reading::unknown(Cause::Unsupported, detail);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Reading::Unknown { unknown: host::unknown(format!("look at {table}"), &error) },
            }
        }
        // A container may see a part of sysfs alone.
        return match host.metadata(Path::new("/sys/firmware")) {
            Ok(_) => Reading::Known(Tpm::None),
            Err(error) => Reading::Unknown { unknown: host::unknown("look at /sys/firmware", &error) },
        };
    };
    let path = Path::new(TPMS).join(device).join("tpm_version_major");
    match host.read(&path, SMALL_FILE_BYTES) {
        Ok(bytes) => match bytes.trim_ascii() {
            b"1" => Reading::Known(Tpm::Tpm1_2),
            b"2" => Reading::Known(Tpm::Tpm2_0),
            _ => Reading::unknown(Cause::Garbled, format!("{} is neither 1 nor 2", path.display())),
        },
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("read {}", path.display()), &error) },
    }
}

/// Returns whether `path` is there, where securityfs is mounted at all.
fn is_in_security(host: &dyn Host, path: &str) -> Reading<bool> {
    match host.metadata(Path::new(path)) {
        Ok(_) => Reading::Known(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Every kernel with securityfs lists its modules there (Documentation/admin-guide/LSM/index.rst).
            match host.metadata(&Path::new(SECURITY).join("lsm")) {
                Ok(_) => Reading::Known(false),
                Err(error) => Reading::Unknown {
                    unknown: host::unknown(format!("look at {SECURITY}/lsm, whether securityfs is there"), &error),
                },
            }
        }
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {path}"), &error) },
    }
}

fn ima_measures(host: &dyn Host) -> Reading<bool> {
    match is_in_security(host, IMA) {
        Reading::Known(true) => {}
        other => return other,
    }
    let path = format!("{IMA}/runtime_measurements_count");
    match host.read(Path::new(&path), SMALL_FILE_BYTES) {
        Ok(bytes) => match std::str::from_utf8(bytes.trim_ascii()).ok().and_then(|text| text.parse::<u64>().ok()) {
            // One entry is the boot's own, whatever the policy.
            Some(count) => Reading::Known(count > 1),
            None => Reading::unknown(Cause::Garbled, format!("{path} is no number")),
        },
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("read {path}"), &error) },
    }
}
