//! A naive model of what the probe decides, and made-up hosts on which both must agree.
//!
//! The model knows how a host was made and never looks at it: it follows each path from a mount down to its end, one after the
//! other, and asks of each path alone whether something on it encrypts. The probe reads the made-up host as it reads a real one.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::fact::{Reading, SwapKind, VolumeKind};

use super::{made::MadeHost, state};
use crate::host::Luks;

/// Hosts that are compared; a tenth of them where the build is not optimised, which takes as long.
const CASES: u64 = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
/// Devices of a host, at most.
const DEVICES: u64 = 9;
/// Files below each other, at most: the probe follows no more than four.
const FILES: usize = 3;
/// Threads that compare; each has its own part of the cases.
const THREADS: u64 = 4;

/// What a device is made as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Made {
    Disk {
        is_removable: bool,
    },
    Virtual,
    Network,
    Ram,
    Zram,
    Partition,
    Lvm,
    Raid,
    Multipath,
    Bcache,
    Unnamed,
    Luks1,
    Luks2,
    PlainCrypt,
    /// LUKS2 with the null cipher.
    NullCrypt,
    /// LUKS2 in the middle of being encrypted in place.
    HalfCrypt,
    /// LUKS2 whose drive encrypts.
    Opal,
    /// LUKS2 whose header the agent is not shown.
    UnseenLuks2,
    Integrity,
    Verity,
    /// On a file of the file system with this number.
    Loop {
        on: usize,
        is_read_only: bool,
    },
}

/// What a path through a device tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    Encrypted,
    Plain,
    Unknown,
}

/// A made-up host.
#[derive(Debug, Default)]
struct Case {
    /// Each stands on earlier ones alone.
    devices: Vec<(Made, Vec<usize>)>,
    /// Devices that are mounted; number n at `/mn`.
    mounts: Vec<usize>,
    /// Device of the log of some mounts, by the mount's number.
    logs: BTreeMap<usize, usize>,
    swap: Option<usize>,
    swap_file: Option<usize>,
    uses_null_cipher: bool,
}

/// SplitMix64: the same cases on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }
}

impl Made {
    fn has_header(self) -> bool {
        matches!(self, Self::Luks1 | Self::Luks2 | Self::NullCrypt | Self::HalfCrypt | Self::Opal)
    }

    fn may_have_header(self) -> bool {
        self.has_header() || self == Self::UnseenLuks2
    }
}

impl Case {
    fn make(random: &mut Random) -> Self {
        let mut case = Self { uses_null_cipher: random.below(4) == 0, ..Self::default() };
        for _ in 0..1 + random.below(DEVICES) {
            let made = case.pick(random);
            let mut below = case.pick_below(made, random);
            if made.may_have_header() {
                // A volume of its own, so that no two headers are at the same place.
                case.devices.push((Made::Lvm, below));
                below = vec![case.devices.len() - 1];
            }
            case.devices.push((made, below));
            if random.below(3) == 0 {
                case.mount(random);
            }
        }
        case.mount(random);
        case.swap = (random.below(2) == 0).then(|| random.index(case.devices.len()));
        case.swap_file = (random.below(3) == 0).then(|| random.index(case.mounts.len()));
        case
    }

    /// Mounts the last device.
    fn mount(&mut self, random: &mut Random) {
        if random.below(4) == 0 {
            self.logs.insert(self.mounts.len(), random.index(self.devices.len()));
        }
        self.mounts.push(self.devices.len() - 1);
    }

    fn pick(&self, random: &mut Random) -> Made {
        use Made::*;
        if self.devices.is_empty() || random.below(3) == 0 {
            return match random.below(8) {
                0 => Virtual,
                1 => Network,
                2 => Ram,
                3 => Zram,
                4 => Disk { is_removable: true },
                _ => Disk { is_removable: false },
            };
        }
        if !self.mounts.is_empty() && random.below(6) == 0 {
            let on = random.index(self.mounts.len());
            if self.files_of_mount(on) < FILES {
                return Loop { on, is_read_only: random.below(2) == 0 };
            }
        }
        let kinds = [
            Partition,
            Lvm,
            Lvm,
            Raid,
            Multipath,
            Bcache,
            Unnamed,
            Luks1,
            Luks2,
            Luks2,
            PlainCrypt,
            NullCrypt,
            HalfCrypt,
            Opal,
            UnseenLuks2,
            Integrity,
            Verity,
        ];
        kinds[random.index(kinds.len())]
    }

    fn pick_below(&self, made: Made, random: &mut Random) -> Vec<usize> {
        let most = match made {
            Made::Disk { .. } | Made::Virtual | Made::Network | Made::Ram | Made::Zram | Made::Loop { .. } => {
                return Vec::new();
            }
            // A partition is of a whole disk, which a mapping is not.
            Made::Partition => {
                let whole: Vec<_> = (0..self.devices.len()).filter(|&at| !self.is_mapping(at)).collect();
                return vec![whole[random.index(whole.len())]];
            }
            Made::Lvm | Made::Raid | Made::Bcache => 3,
            _ => 1,
        };
        let chosen: BTreeSet<_> = (0..1 + random.below(most)).map(|_| random.index(self.devices.len())).collect();
        chosen.into_iter().collect()
    }

    /// Returns how many files lie below each other on the way down from `at`.
    fn files(&self, at: usize) -> usize {
        match &self.devices[at] {
            (Made::Loop { on, .. }, _) => 1 + self.files_of_mount(*on),
            (_, below) => below.iter().map(|&lower| self.files(lower)).max().unwrap_or(0),
        }
    }

    fn files_of_mount(&self, number: usize) -> usize {
        self.mounted(number).map(|at| self.files(at)).max().unwrap_or(0)
    }

    /// Returns the devices that hold the file system of the mount with this number.
    fn mounted(&self, number: usize) -> impl Iterator<Item = usize> {
        std::iter::once(self.mounts[number]).chain(self.logs.get(&number).copied())
    }

    fn is_mapping(&self, at: usize) -> bool {
        self.name(at).starts_with("dm-") || self.devices[at].0 == Made::Partition
    }

    fn name(&self, at: usize) -> String {
        match self.devices[at].0 {
            Made::Disk { .. } => format!("sd{}", char::from(b'a' + u8::try_from(at).unwrap())),
            Made::Virtual => format!("vd{}", char::from(b'a' + u8::try_from(at).unwrap())),
            Made::Network => format!("nbd{at}"),
            Made::Ram => format!("ram{at}"),
            Made::Zram => format!("zram{at}"),
            Made::Partition => format!("part{at}"),
            Made::Raid => format!("md{at}"),
            Made::Bcache => format!("bcache{at}"),
            Made::Loop { .. } => format!("loop{at}"),
            _ => format!("dm-{at}"),
        }
    }

    // ------------------------------------------------ the model

    /// Returns what each path from the device `at` down to its end tells.
    fn paths(&self, at: usize) -> Vec<Told> {
        let (made, below) = &self.devices[at];
        let own = match made {
            Made::Luks1 | Made::Luks2 | Made::Opal => Some(Told::Encrypted),
            Made::PlainCrypt | Made::UnseenLuks2 if !self.uses_null_cipher => Some(Told::Encrypted),
            _ => None,
        };
        if let Some(own) = own {
            return vec![own];
        }
        let paths: Vec<Told> = match made {
            Made::Disk { .. } | Made::Ram | Made::Zram => vec![Told::Plain],
            Made::Virtual | Made::Network => vec![Told::Unknown],
            Made::Loop { on, .. } => self.mounted(*on).flat_map(|at| self.paths(at)).collect(),
            _ => below.iter().flat_map(|&lower| self.paths(lower)).collect(),
        };
        // Through what could do anything, a path is encrypted only if it is below; and nothing else is known of any.
        let is_dark = matches!(made, Made::Unnamed | Made::PlainCrypt | Made::UnseenLuks2);
        if is_dark && paths.iter().any(|&told| told != Told::Encrypted) {
            return vec![Told::Unknown];
        }
        paths
    }

    fn verdict(&self, devices: impl Iterator<Item = usize>) -> Told {
        let paths: Vec<Told> = devices.flat_map(|at| self.paths(at)).collect();
        [Told::Plain, Told::Unknown].into_iter().find(|told| paths.contains(told)).unwrap_or(Told::Encrypted)
    }

    /// Returns the devices at the ends of all paths down from `at`, through files too.
    fn ends(&self, at: usize) -> Vec<usize> {
        match &self.devices[at] {
            (Made::Loop { on, .. }, _) => self.mounted(*on).flat_map(|at| self.ends(at)).collect(),
            (_, below) if below.is_empty() => vec![at],
            (_, below) => below.iter().flat_map(|&lower| self.ends(lower)).collect(),
        }
    }

    fn kind(&self, number: usize) -> VolumeKind {
        let ends: Vec<usize> = self.mounted(number).flat_map(|at| self.ends(at)).collect();
        let is_image = |at: usize| matches!(self.devices[at].0, Made::Loop { is_read_only: true, .. });
        let all = |claim: &dyn Fn(Made) -> bool| ends.iter().all(|&end| claim(self.devices[end].0));
        if all(&|made| matches!(made, Made::Ram | Made::Zram)) {
            VolumeKind::Memory
        } else if self.mounted(number).all(is_image) {
            VolumeKind::Image
        } else if all(&|made| made == Made::Disk { is_removable: true }) {
            VolumeKind::Removable
        } else {
            VolumeKind::Fixed
        }
    }

    // ------------------------------------------------ the host

    fn host(&self) -> MadeHost {
        let mut host = MadeHost::default();
        for (at, (made, below)) in self.devices.iter().enumerate() {
            self.add_device(&mut host, at, *made, below);
        }
        let mounts: String = self
            .mounts
            .iter()
            .enumerate()
            .map(|(number, &at)| {
                let log = self.logs.get(&number).map(|&log| format!(",logdev=/dev/{}", self.name(log)));
                let log = log.unwrap_or_default();
                format!("{number} 1 8:{at} / /m{number} rw - xfs /dev/{} rw{log}\n", self.name(at))
            })
            .collect();
        host.file("/proc/1/mountinfo", &mounts);
        let mut swaps = "Filename Type Size Used Priority\n".to_owned();
        if let Some(at) = self.swap {
            swaps += &format!("/dev/{} partition 1 0 -2\n", self.name(at));
        }
        if let Some(number) = self.swap_file {
            swaps += &format!("/m{number}/swap file 1 0 -2\n");
            host.metadata.insert(format!("/m{number}/swap"), self.mounts[number]);
        }
        host.file("/proc/swaps", &swaps);
        let users = if self.uses_null_cipher { 2 } else { 1 };
        host.file("/proc/crypto", &format!("name : ecb(cipher_null)\nrefcnt : {users}\ntype : skcipher\n"));
        host
    }

    fn add_device(&self, host: &mut MadeHost, at: usize, made: Made, below: &[usize]) {
        let name = self.name(at);
        let folder = format!("/sys/class/block/{name}");
        let place = match (made, below) {
            (Made::Partition, [whole]) => format!("../../devices/x/block/{}/{name}", self.name(*whole)),
            _ => format!("../../devices/x/block/{name}"),
        };
        host.links.insert(format!("/sys/dev/block/8:{at}"), place.clone());
        host.links.insert(folder.clone(), place);
        if made == Made::Partition {
            host.file(&format!("{folder}/partition"), "1\n");
        } else {
            let slaves = below.iter().map(|&lower| self.name(lower)).collect();
            host.lists.insert(format!("{folder}/slaves"), slaves);
        }
        if made == (Made::Disk { is_removable: true }) {
            host.file(&format!("{folder}/removable"), "1\n");
        }
        let uuid = match made {
            Made::Lvm => "LVM-x",
            Made::Multipath => "mpath-x",
            Made::Luks1 => "CRYPT-LUKS1-x",
            Made::Luks2 | Made::NullCrypt | Made::HalfCrypt | Made::UnseenLuks2 => "CRYPT-LUKS2-x",
            Made::Opal => "CRYPT-LUKS2-OPAL-x",
            Made::PlainCrypt => "CRYPT-PLAIN-x",
            Made::Integrity => "CRYPT-INTEGRITY-x",
            Made::Verity => "CRYPT-VERITY-x",
            _ => "",
        };
        if !uuid.is_empty() {
            host.file(&format!("{folder}/dm/uuid"), uuid);
        }
        if let Made::Loop { on, is_read_only } = made {
            let file = format!("/m{on}/f{at}");
            host.file(&format!("{folder}/loop/backing_file"), &format!("{file}\n"));
            host.file(&format!("{folder}/ro"), if is_read_only { "1\n" } else { "0\n" });
            host.metadata.insert(file, self.mounts[on]);
        }
        if made.has_header() {
            let header = Luks {
                version: 2,
                cipher: if made == Made::Opal { String::new() } else { "aes-xts-plain64".to_owned() },
                key_bits: 512,
                drive_encrypts: made == Made::Opal,
                leaves_plain: matches!(made, Made::NullCrypt | Made::HalfCrypt),
                uuid: None,
                key_slots: None,
            };
            host.headers.insert(format!("/dev/{}", self.name(below[0])), header);
        }
    }
}

// ---------------------------------------------------------------- the comparison

fn told(reading: &Reading<bool>) -> Told {
    match reading {
        Reading::Known(true) => Told::Encrypted,
        Reading::Known(false) => Told::Plain,
        Reading::Unknown { .. } => Told::Unknown,
    }
}

/// Compares what the probe says of the host of `seed` with what the model says, and counts what the model says.
fn compare(seed: u64, counts: &mut [u64; 3]) {
    let case = Case::make(&mut Random(seed));
    let found = state(&case.host()).unwrap();
    let expected: Vec<_> =
        (0..case.mounts.len()).map(|number| (case.kind(number), case.verdict(case.mounted(number)))).collect();
    let mut volumes = vec![None; case.mounts.len()];
    for volume in &found.volumes {
        let number: usize = volume.mount_point.as_str()[2..].parse().unwrap();
        volumes[number] = Some((volume.kind, told(&volume.encrypted)));
    }
    let volumes: Vec<_> = volumes.into_iter().flatten().collect();
    assert_eq!(volumes, expected, "seed {seed}: {case:?} {found:?}");
    let file = case.swap_file.map(|number| (SwapKind::File, case.verdict(case.mounted(number))));
    let area = case.swap.map(|at| match case.devices[at].0 {
        Made::Zram => (SwapKind::Zram, case.verdict(std::iter::once(at))),
        _ => (SwapKind::Partition, case.verdict(std::iter::once(at))),
    });
    // Sorted by name: /dev/x before /mN/swap.
    let swaps: Vec<_> = found.swap_areas.iter().map(|swap| (swap.kind, told(&swap.encrypted))).collect();
    assert_eq!(swaps, Vec::from_iter(area.into_iter().chain(file)), "seed {seed}: {case:?} {found:?}");
    for (_, told) in expected {
        counts[told as usize] += 1;
    }
}

#[test]
fn the_probe_and_a_naive_model_agree_on_made_up_hosts() {
    let counts = std::thread::scope(|scope| {
        let compare_part = |part: u64| {
            let mut counts = [0; 3];
            for seed in (part..CASES).step_by(usize::try_from(THREADS).unwrap()) {
                compare(seed, &mut counts);
            }
            counts
        };
        let threads: Vec<_> = (0..THREADS).map(|part| scope.spawn(move || compare_part(part))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .fold([0; 3], |sum, part| [sum[0] + part[0], sum[1] + part[1], sum[2] + part[2]])
    });
    // Each verdict is far from rare, or the agreement would say little.
    assert!(counts.iter().all(|&count| count > CASES / 4), "{counts:?}");
}
