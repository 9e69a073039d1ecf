//! What a host runs on: on its battery, files that nothing points at are not read again until that is long due.

use std::path::Path;

use crate::host::{Host, SMALL_FILE_BYTES};

const SUPPLIES: &str = "/sys/class/power_supply";

/// What a host runs on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Power {
    /// Mains, or whatever else does not run out.
    Mains,
    /// Its battery alone.
    Battery,
}

/// Returns what the host runs on. One that does not say has no battery that could run out.
///
/// Documentation/ABI/testing/sysfs-class-power: `type` is `Mains`, `USB`, `UPS`, `Battery`..., `online` tells whether a supply
/// supplies, `status` whether a battery is `Discharging`, and `scope` is `Device` for one of a mouse or a keyboard.
pub fn power(host: &dyn Host) -> Power {
    let text = |supply: &Path, name: &str| {
        let bytes = host.read(&supply.join(name), SMALL_FILE_BYTES).unwrap_or_default();
        String::from_utf8_lossy(bytes.trim_ascii()).into_owned()
    };
    let mut drains = false;
    for name in host.list(Path::new(SUPPLIES)).unwrap_or_default() {
        let supply = Path::new(SUPPLIES).join(name);
        match text(&supply, "type").as_str() {
            "Battery" => drains |= text(&supply, "scope") != "Device" && text(&supply, "status") == "Discharging",
            _ if text(&supply, "online") == "1" => return Power::Mains,
            _ => {}
        }
    }
    if drains { Power::Battery } else { Power::Mains }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::PathText;

    use super::*;
    use crate::host::Recorded;

    /// Returns a host with these power supplies: name, and the values of its attributes.
    fn of(supplies: &[(&str, &[(&str, &str)])]) -> Power {
        let folder = tempfile::tempdir().unwrap();
        let mut names = Vec::new();
        for (name, attributes) in supplies {
            names.push(PathText::from_bytes(name.as_bytes()));
            let files = folder.path().join("files/sys/class/power_supply").join(name);
            std::fs::create_dir_all(&files).unwrap();
            for (attribute, value) in *attributes {
                std::fs::write(files.join(attribute), format!("{value}\n")).unwrap();
            }
        }
        let index = serde_json::json!({
            "version": 1,
            "captured": "2026-11-01T00:00:00Z",
            "lists": { SUPPLIES: names },
        });
        std::fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
        power(&Recorded::at(folder.path()).unwrap())
    }

    #[test]
    fn a_host_runs_on_its_battery_only_while_that_drains_and_nothing_else_supplies() {
        let battery = |status| [("type", "Battery"), ("status", status)];
        assert_eq!(of(&[]), Power::Mains);
        assert_eq!(of(&[("BAT0", &battery("Discharging"))]), Power::Battery);
        assert_eq!(of(&[("BAT0", &battery("Full"))]), Power::Mains);
        let unplugged: &[(&str, &str)] = &[("type", "Mains"), ("online", "0")];
        assert_eq!(of(&[("AC", unplugged), ("BAT0", &battery("Discharging"))]), Power::Battery);
        // A weak charger: the battery drains all the same.
        let plugged: &[(&str, &str)] = &[("type", "USB"), ("online", "1")];
        assert_eq!(of(&[("BAT0", &battery("Discharging")), ("usb", plugged)]), Power::Mains);
        let mouse: &[(&str, &str)] = &[("type", "Battery"), ("status", "Discharging"), ("scope", "Device")];
        assert_eq!(of(&[("hidpp_battery_0", mouse)]), Power::Mains);
    }
}
