//! What volumes rest on, as lines.

use std::collections::{BTreeMap, BTreeSet};

use super::{ITEMS, more, text, unknown, value};
use crate::fact::{CryptFormat, DiskEncryption, KeySlots, Layer, LayerKind, Reading, SwapKind, Volume, VolumeKind};

/// Layers of one chain that are printed.
const DEPTH: usize = 16;

pub(super) fn disk_encryption(disk: &DiskEncryption) -> Vec<String> {
    let row = |volume: &Volume| {
        let mut head = format!("{}  {}", volume.mount_point, volume.file_system);
        if volume.kind != VolumeKind::Fixed {
            head.push_str(&format!(" ({})", volume.kind.as_str()));
        }
        let is_at_rest = volume.kind != VolumeKind::Memory;
        let said = format!("{}{}", encrypted(&volume.encrypted, is_at_rest), protection(volume));
        (format!("{head}{}", below(&volume.layers, volume.source.as_str())), said)
    };
    let mut rows: Vec<_> = disk.volumes.iter().take(ITEMS).map(row).collect();
    let folder = |volume: &Volume| {
        let folders = volume.encrypted_folders.iter().take(ITEMS);
        folders.map(|folder| (format!("  {folder}  fscrypt"), "encrypted".to_owned())).collect::<Vec<_>>()
    };
    rows.extend(disk.volumes.iter().take(ITEMS).flat_map(folder).take(ITEMS));
    rows.extend(disk.swap_areas.iter().take(ITEMS).map(|swap| {
        let chain = below(&swap.layers, "");
        let is_at_rest = swap.kind != SwapKind::Zram;
        (format!("{}  swap ({}){chain}", swap.name, swap.kind.as_str()), encrypted(&swap.encrypted, is_at_rest))
    }));
    let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0).min(100);
    let mut lines: Vec<_> = rows.into_iter().map(|(left, right)| format!("{left:<width$}   {right}")).collect();
    lines.extend(more(disk.volumes.len(), "volumes"));
    lines.extend(more(disk.swap_areas.len(), "swap areas"));
    if lines.is_empty() {
        lines.push("no volumes and no swap".to_owned());
    }
    match &disk.volumes_complete {
        None | Some(Reading::Known(true)) => {}
        Some(Reading::Known(false)) => lines.push("not all volumes are listed".to_owned()),
        Some(Reading::Unknown { unknown: why }) => lines.push(format!("other volumes: {}", unknown(why))),
    }
    lines
}

fn encrypted(reading: &Reading<bool>, is_at_rest: bool) -> String {
    let said = |&yes: &bool| match (yes, is_at_rest) {
        (true, _) => "encrypted",
        (false, true) => "NOT encrypted",
        (false, false) => "in memory, not encrypted",
    };
    value(reading, |yes| said(yes).to_owned())
}

/// Returns what the volume's own encryption says of itself, such as ` (encrypting, 42 %)`.
fn protection(volume: &Volume) -> String {
    let Some(protection) = &volume.protection else { return String::new() };
    let mut words = vec![value(protection, |protection| protection.as_str().replace('_', " "))];
    words.extend(volume.encrypted_percent.as_ref().map(|percent| value(percent, |percent| format!("{percent} %"))));
    words.extend(volume.key_protectors.iter().take(ITEMS).map(|protector| protector.as_str().replace('_', " ")));
    format!(" ({})", words.join(", "))
}

/// Returns ` <- ` and the chain of devices below a volume; those that stand beside each other in brackets.
fn below(layers: &[Layer], source: &str) -> String {
    let Some(first) = layers.first() else {
        return if source.is_empty() { String::new() } else { format!(" <- {source}") };
    };
    let mut unseen: BTreeMap<&str, &Layer> =
        layers.iter().take(ITEMS).skip(1).map(|layer| (layer.device.as_str(), layer)).collect();
    format!(" <- {}", chain(first, &mut unseen, DEPTH))
}

/// Takes each layer out of `unseen` when it is printed, so that neither a loop nor a lattice makes the text grow.
fn chain(layer: &Layer, unseen: &mut BTreeMap<&str, &Layer>, depth: usize) -> String {
    let here = layer_text(layer);
    if layer.below.is_empty() {
        return here;
    }
    if depth == 0 {
        return format!("{here} <- …");
    }
    let next: Vec<_> = layer
        .below
        .iter()
        .take(ITEMS)
        .map(|device| match unseen.remove(device.as_str()) {
            Some(layer) => chain(layer, unseen, depth - 1),
            None => device.to_string(),
        })
        .collect();
    match next.as_slice() {
        [one] => format!("{here} <- {one}"),
        several => format!("{here} <- [{}]", several.join(", ")),
    }
}

fn layer_text(layer: &Layer) -> String {
    let name = if layer.name.is_empty() { &layer.device } else { &layer.name };
    let kind = match layer.kind {
        LayerKind::Disk | LayerKind::Partition => return name.to_string(),
        LayerKind::Lvm => "LVM",
        LayerKind::Raid => "RAID",
        LayerKind::Crypt => "crypt",
        LayerKind::Apfs => "APFS",
        LayerKind::Loop
        | LayerKind::Multipath
        | LayerKind::Bcache
        | LayerKind::Zram
        | LayerKind::Virtual
        | LayerKind::Other => layer.kind.as_str(),
    };
    let Some(crypt) = &layer.crypt else {
        return format!("{name} ({kind})");
    };
    let format = match crypt.format {
        CryptFormat::Luks1 => "LUKS1",
        CryptFormat::Luks2 => "LUKS2",
        CryptFormat::Plain => "dm-crypt plain",
        CryptFormat::Integrity => "dm-integrity",
        CryptFormat::Apfs => "APFS encryption",
        CryptFormat::Bitlocker => "BitLocker",
        CryptFormat::Opal => "LUKS2, OPAL drive",
        CryptFormat::OpalCrypt => "LUKS2 on OPAL drive",
        CryptFormat::Fscrypt => "fscrypt",
        CryptFormat::Ecryptfs => "eCryptfs",
        CryptFormat::Zfs => "ZFS",
        CryptFormat::Other => "dm-crypt",
    };
    let slots = crypt.key_slots.as_ref().map_or_else(String::new, |slots| format!(", {}", key_slots(slots)));
    match (&crypt.cipher, &crypt.key_bits) {
        (Reading::Known(cipher), Reading::Known(bits)) => format!("{name} ({format}, {cipher} {bits}{slots})"),
        (cipher, bits) => format!("{name} ({format}, cipher {}, key {}{slots})", text(cipher), text(bits)),
    }
}

/// Returns what unlocks a device, such as `unlocked by passphrase, tpm2`: each kind once.
fn key_slots(slots: &Reading<KeySlots>) -> String {
    let kinds = |slots: &KeySlots| {
        let kinds: BTreeSet<_> = slots.slots.iter().map(|slot| slot.kind.as_str()).collect();
        if kinds.is_empty() { "nothing".to_owned() } else { Vec::from_iter(kinds).join(", ") }
    };
    format!("unlocked by {}", value(slots, kinds))
}
