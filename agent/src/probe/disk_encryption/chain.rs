//! What follows from the devices below a volume. Pure.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::fact::{Cause, Layer, LayerKind, Reading, Unknown};

use super::device::{Backing, Device, Effect};

/// The devices below a volume, and what follows from them.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub layers: Vec<Layer>,
    pub encrypted: Reading<bool>,
    /// Whether all of it is on removable disks.
    pub is_removable: bool,
    /// Whether nothing of it is ever at rest.
    pub is_memory: bool,
    /// Whether the uppermost device is a read-only loop on a file.
    pub is_image: bool,
    /// Whether all of it is on loops on files.
    pub is_on_file: bool,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            encrypted: Reading::Known(true),
            is_removable: false,
            is_memory: false,
            is_image: false,
            is_on_file: false,
        }
    }
}

impl Chain {
    pub fn unknown(unknown: Unknown) -> Self {
        Self { encrypted: Reading::Unknown { unknown }, ..Self::default() }
    }

    /// Returns what follows when data is spread over all of `chains`; with none, nothing is known.
    pub fn all(chains: impl Iterator<Item = Self>) -> Self {
        let all = chains.reduce(Self::and);
        all.unwrap_or_else(|| Self::unknown(Unknown::new(Cause::Absent, "no device below")))
    }

    /// Returns what follows when data is spread over `other` too.
    pub fn and(mut self, other: Self) -> Self {
        self.extend(other.layers);
        self.encrypted = both(self.encrypted, other.encrypted);
        self.is_removable &= other.is_removable;
        self.is_memory &= other.is_memory;
        self.is_image &= other.is_image;
        self.is_on_file &= other.is_on_file;
        self
    }

    /// Returns what follows when there may be a further part of which nothing is told: what it is on stays what it is known to be on.
    pub fn and_untold(self, unknown: Unknown) -> Self {
        Self { encrypted: both(self.encrypted, Reading::Unknown { unknown }), ..self }
    }

    /// Adds the layers of devices that it does not have yet.
    fn extend(&mut self, layers: Vec<Layer>) {
        for layer in layers {
            if !self.layers.iter().any(|known| known.device == layer.device) {
                self.layers.push(layer);
            }
        }
    }

    /// Returns the chain with `layer` above it, through which everything is encrypted.
    pub fn below(mut self, mut layer: Layer) -> Self {
        layer.below = self.layers.first().map(|first| first.device.clone()).into_iter().collect();
        self.layers.insert(0, layer);
        Self { encrypted: Reading::Known(true), ..self }
    }

    /// Returns the chain of `name`, where `found` has it and all that it stands on. `of_file` tells what a backing file stands on.
    pub fn of(name: &str, found: &BTreeMap<String, Device>, of_file: &dyn Fn(&[u8]) -> Self) -> Self {
        let mut survey = Survey { found, of_file, done: BTreeMap::new() };
        let whole = survey.look(name);
        let mut chain = Self {
            layers: Vec::new(),
            encrypted: whole.encrypted,
            is_removable: whole.is_removable,
            is_memory: whole.is_memory,
            is_image: found.get(name).is_some_and(Device::is_image),
            is_on_file: whole.is_on_file,
        };
        let mut ordered = Vec::new();
        order(name, found, &mut BTreeSet::new(), &mut ordered);
        for name in ordered.iter().rev() {
            chain.extend(vec![found[*name].layer()]);
            if let Some(file) = &found[*name].backing_file {
                chain.extend(of_file(file).layers);
            }
        }
        chain
    }
}

/// One plain part makes the whole plain; else one unknown part makes it unknown.
fn both(a: Reading<bool>, b: Reading<bool>) -> Reading<bool> {
    match (a, b) {
        (Reading::Known(false), _) | (_, Reading::Known(false)) => Reading::Known(false),
        (Reading::Known(true), other) | (other, Reading::Known(true)) => other,
        (unknown, Reading::Unknown { .. }) => unknown,
    }
}

/// What is true of a device, all that it stands on considered.
#[derive(Clone, Debug)]
struct State {
    encrypted: Reading<bool>,
    is_removable: bool,
    is_memory: bool,
    is_on_file: bool,
}

impl State {
    fn unknown(cause: Cause, detail: String) -> Self {
        Self { encrypted: Reading::unknown(cause, detail), is_removable: false, is_memory: false, is_on_file: false }
    }

    fn and(self, other: Self) -> Self {
        Self {
            encrypted: both(self.encrypted, other.encrypted),
            is_removable: self.is_removable && other.is_removable,
            is_memory: self.is_memory && other.is_memory,
            is_on_file: self.is_on_file && other.is_on_file,
        }
    }
}

/// Looks at each device once, however many stand on it.
struct Survey<'f> {
    found: &'f BTreeMap<String, Device>,
    of_file: &'f dyn Fn(&[u8]) -> Chain,
    /// `None` while what is below a device is looked at.
    done: BTreeMap<String, Option<State>>,
}

impl Survey<'_> {
    fn look(&mut self, name: &str) -> State {
        match self.done.get(name) {
            Some(Some(state)) => return state.clone(),
            Some(None) => {
                return State::unknown(Cause::Garbled, "devices stand on each other in a circle".to_owned());
            }
            None => {}
        }
        let Some(device) = self.found.get(name) else {
            return State::unknown(Cause::Absent, format!("{name} is not there"));
        };
        self.done.insert(name.to_owned(), None);
        let below = match &device.backing_file {
            Some(file) => {
                let chain = (self.of_file)(file);
                State {
                    encrypted: chain.encrypted,
                    is_removable: chain.is_removable,
                    is_memory: chain.is_memory,
                    is_on_file: device.backing != Backing::Device || chain.is_on_file,
                }
            }
            None => device
                .stands_on()
                .iter()
                .map(|name| self.look(name))
                .reduce(State::and)
                .unwrap_or_else(|| lowest(device)),
        };
        let encrypted = match device.effect() {
            Effect::Encrypts => Reading::Known(true),
            Effect::PassesOn => below.encrypted,
            // Whatever it does, what is encrypted below it is.
            Effect::Untold { .. } if below.encrypted == Reading::Known(true) => below.encrypted,
            Effect::Untold { unknown } => Reading::Unknown { unknown },
        };
        let state = State { encrypted, is_removable: below.is_removable || device.is_removable, ..below };
        // What is kept for a snapshot is what one reads from the device, whatever it does to what it passes on.
        let state = device.kept_on.iter().map(|name| self.look(name)).fold(state, State::and);
        self.done.insert(name.to_owned(), Some(state.clone()));
        state
    }
}

/// Returns what is true of a device that stands on nothing.
fn lowest(device: &Device) -> State {
    let name = &device.name;
    let (encrypted, is_memory) = match device.kind() {
        LayerKind::Virtual => {
            let detail =
                format!("no encryption on {name}, a virtual disk: what its provider does is not seen from inside");
            (Reading::unknown(Cause::Hidden, detail), false)
        }
        LayerKind::Zram => (Reading::Known(false), true),
        LayerKind::Disk => (Reading::Known(false), false),
        _ if device.is_ram_disk() => (Reading::Known(false), true),
        _ => {
            let detail = format!("what {name} stands on is not shown");
            (Reading::unknown(Cause::Unsupported, detail), false)
        }
    };
    State { encrypted, is_removable: false, is_memory, is_on_file: false }
}

/// Appends `name` after all that it stands on.
fn order<'f>(
    name: &str,
    found: &'f BTreeMap<String, Device>,
    seen: &mut BTreeSet<&'f str>,
    ordered: &mut Vec<&'f str>,
) {
    let Some((name, device)) = found.get_key_value(name) else { return };
    if !seen.insert(name.as_str()) {
        return;
    }
    for lower in device.below().iter().rev() {
        order(lower, found, seen, ordered);
    }
    ordered.push(name);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Luks;

    fn device(name: &str, dm_uuid: Option<&str>, slaves: &[&str]) -> (String, Device) {
        let device = Device {
            name: name.to_owned(),
            dm_uuid: dm_uuid.map(str::to_owned),
            slaves: slaves.iter().map(|&slave| slave.to_owned()).collect(),
            place: format!("../../devices/pci0000:00/ata1/block/{name}"),
            ..Device::default()
        };
        (name.to_owned(), device)
    }

    fn chain_of(name: &str, devices: impl IntoIterator<Item = (String, Device)>) -> Chain {
        Chain::of(name, &devices.into_iter().collect(), &|_| Chain::unknown(Unknown::new(Cause::Hidden, "")))
    }

    fn is_encrypted(name: &str, devices: impl IntoIterator<Item = (String, Device)>) -> Reading<bool> {
        chain_of(name, devices).encrypted
    }

    fn cause(reading: Reading<bool>) -> Option<Cause> {
        match reading {
            Reading::Unknown { unknown } => Some(unknown.cause),
            Reading::Known(_) => None,
        }
    }

    #[test]
    fn every_path_must_go_through_a_crypt_device() {
        let luks = Some("CRYPT-LUKS2-00-cr");
        let mirror = |second| {
            [
                device("dm-2", Some("LVM-x"), &["dm-0", "dm-1"]),
                device("dm-0", luks, &["sda"]),
                device("dm-1", second, &["sdb"]),
                device("sda", None, &[]),
                device("sdb", None, &[]),
            ]
        };
        assert_eq!(is_encrypted("dm-2", mirror(luks)), Reading::Known(true));
        assert_eq!(is_encrypted("dm-2", mirror(Some("LVM-y"))), Reading::Known(false));
    }

    #[test]
    fn integrity_and_verity_alone_do_not_encrypt() {
        for uuid in ["CRYPT-INTEGRITY-00-x", "CRYPT-VERITY-00-x", "CRYPT-SUBDEV-00-x"] {
            let devices = [device("dm-0", Some(uuid), &["sda"]), device("sda", None, &[])];
            assert_eq!(is_encrypted("dm-0", devices), Reading::Known(false), "{uuid}");
        }
    }

    #[test]
    fn a_mapping_of_which_nothing_tells_what_it_does_is_unknown_over_a_plain_disk() {
        for uuid in [None, Some("acme-1")] {
            let plain = [device("dm-0", uuid, &["sda"]), device("sda", None, &[])];
            assert_eq!(cause(is_encrypted("dm-0", plain)), Some(Cause::Unsupported), "{uuid:?}");
            let luks = device("dm-1", Some("CRYPT-LUKS1-00-x"), &["sda"]);
            let encrypted = [device("dm-0", uuid, &["dm-1"]), luks, device("sda", None, &[])];
            assert_eq!(is_encrypted("dm-0", encrypted), Reading::Known(true), "{uuid:?}");
        }
    }

    #[test]
    fn a_crypt_device_that_leaves_data_plain_does_not_encrypt() {
        let luks = |leaves_plain| {
            let cipher = "aes-xts-plain64".to_owned();
            let (name, mut device) = device("dm-0", Some("CRYPT-LUKS2-00-x"), &["sda"]);
            let header = Luks {
                version: 2,
                cipher,
                key_bits: 512,
                drive_encrypts: false,
                leaves_plain,
                uuid: None,
                key_slots: None,
            };
            device.luks = Some(Ok(header));
            (name, device)
        };
        let disk = || device("sda", None, &[]);
        assert_eq!(is_encrypted("dm-0", [luks(false), disk()]), Reading::Known(true));
        assert_eq!(is_encrypted("dm-0", [luks(true), disk()]), Reading::Known(false));
        let (_, outer) = luks(true);
        let nested =
            [("dm-1".to_owned(), Device { name: "dm-1".to_owned(), slaves: vec!["dm-0".to_owned()], ..outer })];
        assert_eq!(is_encrypted("dm-1", nested.into_iter().chain([luks(false), disk()])), Reading::Known(true));
    }

    #[test]
    fn a_virtual_disk_hides_what_is_below_it() {
        assert_eq!(cause(is_encrypted("vda", [device("vda", None, &[])])), Some(Cause::Hidden));
        assert_eq!(cause(is_encrypted("nbd0", [device("nbd0", None, &[])])), Some(Cause::Unsupported));
        assert_eq!(is_encrypted("sda", [device("sda", None, &[])]), Reading::Known(false));
        let (_, nullb) = device("nullb0", None, &[]);
        let nullb = Device { place: "../../devices/virtual/block/nullb0".to_owned(), ..nullb };
        assert_eq!(cause(is_encrypted("nullb0", [("nullb0".to_owned(), nullb)])), Some(Cause::Unsupported));
        let circle = [device("dm-0", Some("LVM-x"), &["dm-1"]), device("dm-1", Some("LVM-y"), &["dm-0"])];
        assert_eq!(cause(is_encrypted("dm-0", circle)), Some(Cause::Garbled));
    }

    #[test]
    fn a_volume_is_removable_or_in_memory_only_if_all_of_it_is() {
        let stick = |name| {
            let (name, device) = device(name, None, &[]);
            (name, Device { is_removable: true, ..device })
        };
        let both = |second| chain_of("dm-0", [device("dm-0", Some("LVM-x"), &["sda", "sdb"]), stick("sda"), second]);
        assert!(both(stick("sdb")).is_removable);
        assert!(!both(device("sdb", None, &[])).is_removable);
        let zram = |backing: Option<&str>| {
            let (name, device) = device("zram0", None, &[]);
            let zram = (name, Device { zram_backing: backing.map(str::to_owned), ..device });
            chain_of("zram0", [zram, self::device("sda", None, &[])])
        };
        assert!(zram(None).is_memory);
        assert!(!zram(Some("sda")).is_memory);
        assert!(chain_of("ram1", [device("ram1", None, &[])]).is_memory);
    }

    #[test]
    fn a_plain_part_outweighs_an_unknown_one() {
        let unknown = || Reading::unknown(Cause::Hidden, "");
        assert_eq!(both(unknown(), Reading::Known(false)), Reading::Known(false));
        assert_eq!(both(unknown(), Reading::Known(true)), unknown());
        assert_eq!(both(Reading::Known(true), Reading::Known(true)), Reading::Known(true));
    }

    #[test]
    fn a_device_comes_before_all_that_it_stands_on_and_once() {
        // Twenty pairs, each on both of the pair below: a million paths.
        let mut devices = vec![device("sda", None, &[])];
        for level in 0..20 {
            let below = [format!("dm-{}", 2 * level), format!("dm-{}", 2 * level + 1)];
            let below: Vec<&str> = if level == 0 { vec!["sda"] } else { below.iter().map(String::as_str).collect() };
            for name in [format!("dm-{}", 2 * level + 2), format!("dm-{}", 2 * level + 3)] {
                devices.push(device(&name, Some("LVM-x"), &below));
            }
        }
        let chain = chain_of("dm-40", devices);
        assert_eq!(chain.encrypted, Reading::Known(false));
        let names: Vec<_> = chain.layers.iter().map(|layer| layer.device.as_str()).collect();
        assert_eq!((names.len(), names[0], names[39]), (40, "dm-40", "sda"));
    }
}
