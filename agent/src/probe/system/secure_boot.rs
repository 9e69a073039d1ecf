//! Whether UEFI Secure Boot guards the start of a Linux host.

use std::{io, path::Path};

use muster_proto::fact::{Cause, Reading, SecureBoot, Unknown};

use crate::host::{self, Host, SMALL_FILE_BYTES};

/// GUID of UEFI's global variables (UEFI specification, section 3.3).
const EFI_GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// GUID of shim's own variables (`EFI_SHIM_LOCK_GUID` of linux/efi.h).
const SHIM_LOCK: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";

/// Returns what the firmware says, and the boot loader that it starts.
pub(super) fn look(host: &dyn Host) -> Reading<SecureBoot> {
    match host.metadata(Path::new("/sys/firmware/efi")) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Without sysfs nothing is known of the firmware.
            return match host.metadata(Path::new("/sys/firmware")) {
                Ok(_) => Reading::Known(SecureBoot::Unsupported),
                Err(error) => Reading::Unknown { unknown: host::unknown("look at /sys/firmware", &error) },
            };
        }
        Err(error) => return Reading::Unknown { unknown: host::unknown("look at /sys/firmware/efi", &error) },
    }
    let variable = |name: &str, guid: &str| {
        let path = format!("/sys/firmware/efi/efivars/{name}-{guid}");
        host.read(Path::new(&path), SMALL_FILE_BYTES).map_err(|error| host::unknown(format!("read {path}"), &error))
    };
    let setup = variable("SetupMode", EFI_GLOBAL).ok();
    let enabled = match variable("SecureBoot", EFI_GLOBAL) {
        Ok(bytes) => bytes,
        Err(unknown) => return Reading::Unknown { unknown },
    };
    state(&enabled, setup.as_deref(), || match variable("MokSBStateRT", SHIM_LOCK) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(unknown) if unknown.cause == Cause::Absent => Ok(None),
        Err(unknown) => Err(unknown),
    })
}

/// Returns the state by the variables as efivarfs shows them: four bytes of attributes, and the value.
///
/// Where `mokutil --disable-validation` was told to shim, shim starts what nobody signed although the firmware's Secure Boot is on.
/// The kernel then counts it as off (drivers/firmware/efi/libstub/secureboot.c). shim sets `MokSBStateRT` only then.
fn state(
    enabled: &[u8],
    setup: Option<&[u8]>,
    shim: impl FnOnce() -> Result<Option<Vec<u8>>, Unknown>,
) -> Reading<SecureBoot> {
    match (enabled, setup) {
        (_, Some([_, _, _, _, 1])) => Reading::Known(SecureBoot::Setup),
        ([_, _, _, _, 1], _) => match shim().as_ref().map(|value| value.as_deref()) {
            Ok(None | Some([_, _, _, _, 0])) => Reading::Known(SecureBoot::On),
            Ok(Some([_, _, _, _, 1])) => Reading::Known(SecureBoot::Off),
            Ok(Some(_)) => Reading::unknown(Cause::Garbled, "MokSBStateRT variable is not five bytes of 0 or 1"),
            Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
        },
        ([_, _, _, _, 0], _) => Reading::Known(SecureBoot::Off),
        _ => Reading::unknown(Cause::Garbled, "SecureBoot variable is not five bytes of 0 or 1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secure_boot_is_off_where_shim_does_not_validate() {
        let (on, off): (&[u8], &[u8]) = (&[6, 0, 0, 0, 1], &[6, 0, 0, 0, 0]);
        for (enabled, setup, shim, expected) in [
            (on, Some(off), None, Some(SecureBoot::On)),
            (on, None, None, Some(SecureBoot::On)),
            (on, Some(off), Some(off), Some(SecureBoot::On)),
            (on, Some(off), Some(on), Some(SecureBoot::Off)),
            (on, Some(off), Some(&[6, 0, 0, 0][..]), None),
            (on, Some(off), Some(&[6, 0, 0, 0, 2][..]), None),
            (off, Some(off), Some(off), Some(SecureBoot::Off)),
            (off, Some(on), None, Some(SecureBoot::Setup)),
            (&[6, 0, 0, 0], Some(off), None, None),
        ] {
            let found = state(enabled, setup, || Ok(shim.map(<[u8]>::to_vec)));
            assert_eq!(found.known().copied(), expected, "{enabled:?} {setup:?} {shim:?}");
        }
    }

    #[test]
    fn what_shim_says_and_cannot_be_read_is_unknown() {
        let found = state(&[6, 0, 0, 0, 1], None, || Err(Unknown::new(Cause::Forbidden, "read MokSBStateRT")));
        assert_eq!(found, Reading::unknown(Cause::Forbidden, "read MokSBStateRT"));
    }
}
