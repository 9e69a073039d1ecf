//! Facts as lines for a person. Pure text; what a program reads is the fact itself.
//!
//! Every text of a fact is safe to print by its type, so the lines are too. A fact comes from a host that may lie: lists are cut at
//! [`ITEMS`], chains at [`DEPTH`], and nothing here recurses deeper.

mod access;
mod file_integrity;

pub use file_integrity::change as file_change;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Agent, Backup, Boot, Capacity, Cause, Clock, DiskEncryption, Fact, Firewall, FirewallProfile, Forwarder, Layer,
    LayerKind, Listeners, Logging, PatchLevel, PendingUpdate, Reading, Sensor, Sensors, Software, System, Unknown,
    Volume,
};

/// Items of one list that are printed; what is left out is counted.
pub const ITEMS: usize = 50;
/// Layers of one chain that are printed.
const DEPTH: usize = 16;

/// Returns the lines that show `fact` to a person.
pub fn render(fact: &Fact) -> Vec<String> {
    match fact {
        Fact::System(reading) => whole(reading, system),
        Fact::DiskEncryption(reading) => whole(reading, disk_encryption),
        Fact::PatchLevel(reading) => whole(reading, patch_level),
        Fact::Software(reading) => whole(reading, software),
        Fact::Firewall(reading) => whole(reading, firewall),
        Fact::Listeners(reading) => whole(reading, listeners),
        Fact::FileIntegrity(reading) => whole(reading, file_integrity::lines),
        Fact::Agent(reading) => whole(reading, agent),
        Fact::Accounts(reading) => whole(reading, access::accounts),
        Fact::RemoteAccess(reading) => whole(reading, access::remote_access),
        Fact::ScreenLock(reading) => whole(reading, access::screen_lock),
        Fact::RemovableMedia(reading) => whole(reading, access::removable_media),
        Fact::Sensors(reading) => whole(reading, sensors),
        Fact::Clock(reading) => whole(reading, clock),
        Fact::Logging(reading) => whole(reading, logging),
        Fact::Boot(reading) => whole(reading, boot),
        Fact::Capacity(reading) => whole(reading, capacity),
        Fact::Backup(reading) => whole(reading, backup),
    }
}

/// Returns an unknown value as text, such as `unknown (forbidden: /etc/shadow)`.
pub fn unknown(unknown: &Unknown) -> String {
    let cause = cause(unknown.cause);
    if unknown.detail.is_empty() {
        format!("unknown ({cause})")
    } else {
        format!("unknown ({cause}: {})", unknown.detail)
    }
}

/// Returns the name of a cause, such as `timed out`.
pub fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Absent => "absent",
        Cause::Stale => "stale",
        Cause::Unsupported => "unsupported",
        Cause::TimedOut => "timed out",
        Cause::Forbidden => "forbidden",
        Cause::Garbled => "garbled",
        Cause::Limit => "limit reached",
        Cause::Undecidable => "undecidable",
        Cause::Failed => "failed",
        Cause::Hidden => "hidden",
    }
}

fn whole<T>(reading: &Reading<T>, lines: impl FnOnce(&T) -> Vec<String>) -> Vec<String> {
    match reading {
        Reading::Known(state) => lines(state),
        Reading::Unknown { unknown: why } => vec![unknown(why)],
    }
}

fn value<T>(reading: &Reading<T>, show: impl FnOnce(&T) -> String) -> String {
    match reading {
        Reading::Known(known) => show(known),
        Reading::Unknown { unknown: why } => unknown(why),
    }
}

fn text<T: ToString>(reading: &Reading<T>) -> String {
    value(reading, T::to_string)
}

fn yes_no(reading: &Reading<bool>) -> String {
    value(reading, |&yes| if yes { "yes" } else { "no" }.to_owned())
}

fn system(system: &System) -> Vec<String> {
    let os = match &system.os_name {
        Reading::Known(name) => name.to_string(),
        Reading::Unknown { .. } => {
            format!("{} {} {}", system.os_family.as_str(), text(&system.os_id), text(&system.os_version))
        }
    };
    let mut lines = table(&[
        ("hostname", text(&system.hostname)),
        ("system", os),
        ("kernel", format!("{} ({})", text(&system.kernel), text(&system.architecture))),
        ("class", value(&system.host_class, |class| class.as_str().to_owned())),
        (
            "hardware",
            format!(
                "{}, {}, serial {}",
                text(&system.hardware_vendor),
                text(&system.hardware_model),
                text(&system.hardware_serial)
            ),
        ),
        ("machine id", value(&system.machine_id_digest, |digest| format!("sha256 {digest}"))),
        (
            "size",
            format!("{} processors, {} of memory", text(&system.processors), value(&system.memory_bytes, |&n| size(n))),
        ),
        ("secure boot", value(&system.secure_boot, |state| state.as_str().to_owned())),
        ("clock synced", yes_no(&system.clock_synchronized)),
    ]);
    let controls: Vec<_> = system
        .execution_controls
        .iter()
        .take(ITEMS)
        .map(|control| format!("{} {}", control.kind.as_str(), control.mode.as_str()))
        .collect();
    let complete = match &system.execution_controls_complete {
        Reading::Known(true) => String::new(),
        Reading::Known(false) => " (not all listed)".to_owned(),
        Reading::Unknown { unknown: why } => format!(" (others: {})", unknown(why)),
    };
    let controls = if controls.is_empty() { "none".to_owned() } else { controls.join(", ") };
    lines.push(format!("{:<14}{controls}{complete}", "confinement"));
    lines
}

fn disk_encryption(disk: &DiskEncryption) -> Vec<String> {
    let row = |volume: &Volume| {
        let mut head = format!("{}  {}", volume.mount_point, volume.file_system);
        if volume.kind != super::VolumeKind::Fixed {
            head.push_str(&format!(" ({})", volume.kind.as_str()));
        }
        let is_at_rest = volume.kind != super::VolumeKind::Memory;
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
        let is_at_rest = swap.kind != super::SwapKind::Zram;
        (format!("{}  swap ({}){chain}", swap.name, swap.kind.as_str()), encrypted(&swap.encrypted, is_at_rest))
    }));
    let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0).min(100);
    let mut lines: Vec<_> = rows.into_iter().map(|(left, right)| format!("{left:<width$}   {right}")).collect();
    lines.extend(more(disk.volumes.len(), "volumes"));
    lines.extend(more(disk.swap_areas.len(), "swap areas"));
    if lines.is_empty() {
        lines.push("no volumes and no swap".to_owned());
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
        super::CryptFormat::Luks1 => "LUKS1",
        super::CryptFormat::Luks2 => "LUKS2",
        super::CryptFormat::Plain => "dm-crypt plain",
        super::CryptFormat::Integrity => "dm-integrity",
        super::CryptFormat::Apfs => "APFS encryption",
        super::CryptFormat::Bitlocker => "BitLocker",
        super::CryptFormat::Opal => "LUKS2, OPAL drive",
        super::CryptFormat::OpalCrypt => "LUKS2 on OPAL drive",
        super::CryptFormat::Fscrypt => "fscrypt",
        super::CryptFormat::Ecryptfs => "eCryptfs",
        super::CryptFormat::Zfs => "ZFS",
        super::CryptFormat::Other => "dm-crypt",
    };
    let slots = crypt.key_slots.as_ref().map_or_else(String::new, |slots| format!(", {}", key_slots(slots)));
    match (&crypt.cipher, &crypt.key_bits) {
        (Reading::Known(cipher), Reading::Known(bits)) => format!("{name} ({format}, {cipher} {bits}{slots})"),
        (cipher, bits) => format!("{name} ({format}, cipher {}, key {}{slots})", text(cipher), text(bits)),
    }
}

/// Returns what unlocks a device, such as `unlocked by passphrase, tpm2`: each kind once.
fn key_slots(slots: &Reading<super::KeySlots>) -> String {
    let kinds = |slots: &super::KeySlots| {
        let kinds: BTreeSet<_> = slots.slots.iter().map(|slot| slot.kind.as_str()).collect();
        if kinds.is_empty() { "nothing".to_owned() } else { Vec::from_iter(kinds).join(", ") }
    };
    format!("unlocked by {}", value(slots, kinds))
}

fn patch_level(patch: &PatchLevel) -> Vec<String> {
    let security = patch.pending.iter().filter(|update| update.security).count();
    let complete = match &patch.pending_complete {
        Reading::Known(true) => String::new(),
        Reading::Known(false) => ", list is not complete".to_owned(),
        Reading::Unknown { unknown: why } => format!(", whether the list is complete: {}", unknown(why)),
    };
    let reboot = match (&patch.reboot_required, &patch.reboot_required_since_time) {
        (Reading::Known(true), Some(since)) => format!("required since {}", text(since)),
        (required, _) => yes_no(required),
    };
    let mut lines = table(&[
        ("manager", patch.manager.as_str().to_owned()),
        ("pending", format!("{} updates, {security} of them security{complete}", patch.pending.len())),
        (
            "metadata",
            format!(
                "security {}, valid until {}{}",
                text(&patch.security_metadata_time),
                text(&patch.security_metadata_valid_until_time),
                patch
                    .security_metadata_verified
                    .as_ref()
                    .map_or_else(String::new, |it| format!(", verified {}", yes_no(it)))
            ),
        ),
        ("kernel", format!("running {}, newest {}", text(&patch.running_kernel), text(&patch.newest_kernel))),
        ("restart", reboot),
        (
            "unattended",
            format!(
                "{}, last success {}",
                yes_no(&patch.automatic_updates.enabled),
                text(&patch.automatic_updates.last_success_time)
            ),
        ),
    ]);
    if !patch.live_patches.is_empty() {
        let patches: Vec<_> = patch.live_patches.iter().take(ITEMS).map(|patch| patch.as_str()).collect();
        lines.push(format!("{:<14}{}", "live patches", patches.join(", ")));
    }
    if !patch.reboot_packages.is_empty() {
        let packages: Vec<_> = patch.reboot_packages.iter().take(ITEMS).map(|package| package.as_str()).collect();
        lines.push(format!("{:<14}{}", "restart for", packages.join(", ")));
    }
    lines.extend(patch.pending.iter().take(ITEMS).map(pending_update));
    lines.extend(more(patch.pending.len(), "updates"));
    lines.extend(patch.sources.iter().take(ITEMS).map(|source| {
        format!(
            "source {} {} ({}){}: of {}, valid until {}",
            source.label,
            source.codename,
            source.suite,
            if source.security { ", security" } else { "" },
            text(&source.release_time),
            text(&source.valid_until_time)
        )
    }));
    lines.extend(more(patch.sources.len(), "sources"));
    lines
}

fn pending_update(update: &PendingUpdate) -> String {
    format!(
        "{} {} -> {} ({}) from {}, since {}{}{}{}{}",
        update.package,
        update.installed_version,
        update.candidate_version,
        update.architecture,
        update.origin,
        update.first_offered_time,
        update
            .available_after_time
            .as_ref()
            .map_or_else(String::new, |it| format!(" at the latest, not before {}", text(it))),
        update.phased_percent.as_ref().map_or_else(String::new, |it| format!(", phased at {} %", text(it))),
        if update.security { ", security" } else { "" },
        if update.held { ", held" } else { "" },
    )
}

fn software(software: &Software) -> Vec<String> {
    let mut lines = vec![format!("{} packages", software.packages.len())];
    lines.extend(software.packages.iter().take(ITEMS).map(|package| {
        format!("{} {} ({}, {})", package.name, package.version, package.architecture, package.manager.as_str())
    }));
    lines.extend(more(software.packages.len(), "packages"));
    lines
}

fn firewall(firewall: &Firewall) -> Vec<String> {
    let inbound = |reading: &Reading<super::Inbound>| {
        value(reading, |inbound| match inbound {
            super::Inbound::Deny => "denied unless a rule lets it in".to_owned(),
            super::Inbound::Allow => "ALLOWED by default".to_owned(),
        })
    };
    let managers: Vec<_> = firewall.managers.iter().take(ITEMS).map(|manager| manager.as_str()).collect();
    let mut lines = table(&[
        ("inbound IPv4", inbound(&firewall.inbound_ipv4)),
        ("inbound IPv6", inbound(&firewall.inbound_ipv6)),
        ("managed by", if managers.is_empty() { "nothing recognised".to_owned() } else { managers.join(", ") }),
        ("rule set", value(&firewall.rule_set_digest, |digest| format!("sha256 {digest}"))),
    ]);
    lines.extend(firewall.input_chains.iter().take(ITEMS).map(|chain| {
        format!(
            "chain {} {} {} (priority {}, {}): policy {}, {} rules, else {}",
            chain.family.as_str(),
            chain.table,
            chain.chain,
            chain.priority,
            chain.engine.as_str(),
            chain.policy.as_str(),
            chain.rule_count,
            chain.default_verdict.as_str()
        )
    }));
    lines.extend(more(firewall.input_chains.len(), "chains"));
    lines.extend(firewall.profiles.iter().take(ITEMS).map(firewall_profile));
    lines.extend(more(firewall.profiles.len(), "profiles"));
    lines
}

fn firewall_profile(profile: &FirewallProfile) -> String {
    let mut line = profile.engine.as_str().replace('_', " ");
    if !profile.name.is_empty() {
        line.push_str(&format!(" {}", profile.name));
    }
    line.push_str(&format!(
        ": on {}, inbound {}",
        yes_no(&profile.enabled),
        value(&profile.inbound, |inbound| { inbound.as_str().to_owned() })
    ));
    for (name, switch) in [("blocks all", &profile.blocks_all), ("stealth", &profile.stealth)] {
        line.extend(switch.as_ref().map(|switch| format!(", {name} {}", yes_no(switch))));
    }
    line
}

fn listeners(listeners: &Listeners) -> Vec<String> {
    let mut lines: Vec<_> = listeners
        .listeners
        .iter()
        .take(ITEMS)
        .map(|listener| {
            let address = if listener.address.as_str().contains(':') {
                format!("[{}]:{}", listener.address, listener.port)
            } else {
                format!("{}:{}", listener.address, listener.port)
            };
            let program = text(&listener.program);
            let reachable = listener.reachable.as_ref().map_or(String::new(), |reading| {
                value(reading, |reach| match reach {
                    super::Reach::Any => "  let in from ANY sender".to_owned(),
                    super::Reach::Some => "  let in from some senders".to_owned(),
                    super::Reach::None => "  not let in".to_owned(),
                })
            });
            format!("{} {address}  {program}{reachable}", listener.protocol.as_str())
        })
        .collect();
    lines.extend(more(listeners.listeners.len(), "listeners"));
    if lines.is_empty() {
        lines.push("nothing listens".to_owned());
    }
    lines
}

fn agent(agent: &Agent) -> Vec<String> {
    table(&[
        ("version", agent.version.to_string()),
        ("program", value(&agent.program_digest, |digest| format!("sha256 {digest}"))),
        ("as packaged", yes_no(&agent.matches_package)),
        ("settings", format!("sha256 {}", agent.settings_digest)),
        ("runs as", format!("uid {}, capabilities {}", agent.uid, text(&agent.capabilities))),
    ])
}

fn sensors(state: &Sensors) -> Vec<String> {
    let complete = match &state.complete {
        Reading::Known(true) => String::new(),
        Reading::Known(false) => ", not each could be looked for".to_owned(),
        Reading::Unknown { unknown: why } => format!(", whether there are others: {}", unknown(why)),
    };
    let mut lines = vec![format!("{} sensors by the table of {}{complete}", state.sensors.len(), state.table_time)];
    lines.extend(state.sensors.iter().take(ITEMS).map(sensor));
    lines.extend(more(state.sensors.len(), "sensors"));
    lines
}

fn sensor(sensor: &Sensor) -> String {
    let running = match &sensor.running {
        Reading::Known(true) => format!("runs (seen by its {})", sensor.seen.as_str()),
        Reading::Known(false) => "DOES NOT RUN".to_owned(),
        Reading::Unknown { unknown: why } => format!("whether it runs: {}", unknown(why)),
    };
    let definitions = match &sensor.definitions_time {
        None => String::new(),
        Some(time) => format!(", definitions of {}", text(time)),
    };
    format!(
        "{} ({}, {}) {}: {running}, mode {}{definitions}",
        sensor.product,
        sensor.vendor,
        sensor.kind.as_str().replace('_', " "),
        text(&sensor.version),
        value(&sensor.mode, |mode| mode.as_str().replace('_', " "))
    )
}

fn clock(clock: &Clock) -> Vec<String> {
    let step = |reading: &Reading<u64>| value(reading, |millis| format!("at most {millis} ms"));
    let services: Vec<_> = clock
        .services
        .iter()
        .take(ITEMS)
        .map(|service| format!("{} ({})", service.name.as_str().replace('_', "-"), runs(&service.running)))
        .collect();
    table(&[
        ("synchronised", yes_no(&clock.synchronized)),
        ("off by", format!("{}, by estimate {}", step(&clock.max_error_millis), step(&clock.estimated_error_millis))),
        ("to correct", step(&clock.offset_millis)),
        ("kept by", listed(services, &clock.services_complete)),
        ("last set", text(&clock.last_sync_time)),
    ])
}

fn boot(boot: &Boot) -> Vec<String> {
    table(&[
        ("firmware", value(&boot.firmware, |firmware| firmware.as_str().to_owned())),
        ("TPM", value(&boot.tpm, |tpm| tpm.as_str().trim_start_matches("tpm").replace('_', "."))),
        ("measured", yes_no(&boot.measured_boot)),
        ("IMA measures", yes_no(&boot.ima_measures)),
    ])
}

fn capacity(capacity: &Capacity) -> Vec<String> {
    let share = |reading: &Reading<u64>| value(reading, |percent| format!("at most {percent} %"));
    let mut lines = table(&[("booted", text(&capacity.boot_time))]);
    lines.extend(capacity.volumes.iter().take(ITEMS).map(|volume| {
        let inodes = match &volume.inodes_percent {
            Reading::Known(0) => "without bound".to_owned(),
            inodes => share(inodes),
        };
        format!("{}  {}: used {}, inodes {inodes}", volume.mount_point, volume.file_system, share(&volume.used_percent))
    }));
    lines.extend(more(capacity.volumes.len(), "volumes"));
    lines
}

fn backup(backup: &Backup) -> Vec<String> {
    let clients = backup.clients.iter().take(ITEMS).map(|client| client.product.to_string()).collect();
    let mut lines =
        table(&[("clients", listed(clients, &backup.complete)), ("table of", backup.table_time.to_string())]);
    lines.extend(backup.clients.iter().take(ITEMS).map(|client| {
        format!(
            "{} {} ({}): settings {}, last success {}",
            client.product,
            text(&client.version),
            client.program,
            yes_no(&client.has_settings),
            text(&client.last_success_time)
        )
    }));
    lines.extend(more(backup.clients.len(), "clients"));
    lines.extend(
        backup
            .stamps
            .iter()
            .take(ITEMS)
            .map(|stamp| format!("stamp {}: {}", stamp.path, text(&stamp.last_success_time))),
    );
    lines.extend(more(backup.stamps.len(), "stamps"));
    lines
}

fn logging(logging: &Logging) -> Vec<String> {
    let audit = &logging.audit;
    let rules = match &audit.rules_digest {
        Reading::Known(digest) => format!("{} rules, sha256 {digest}", text(&audit.rules)),
        Reading::Unknown { .. } => format!("rules {}", text(&audit.rules)),
    };
    let mut lines = table(&[
        ("auditing", yes_no(&audit.enabled)),
        ("immutable", yes_no(&audit.immutable)),
        ("taken up", yes_no(&audit.daemon_running)),
        ("lost", value(&audit.lost, |lost| format!("at most {lost} of a backlog of {}", text(&audit.backlog_limit)))),
        ("audited", rules),
        ("journal", value(&logging.journal_storage, |storage| storage.as_str().to_owned())),
        ("kept since", text(&logging.kept_since_time)),
        (
            "sent by",
            listed(logging.forwarders.iter().take(ITEMS).map(forwarder).collect(), &logging.forwarders_complete),
        ),
    ]);
    lines.extend(more(logging.forwarders.len(), "programs"));
    lines
}

fn forwarder(forwarder: &Forwarder) -> String {
    let ways: Vec<_> = forwarder.ways.iter().take(ITEMS).map(|way| way.as_str().replace('_', " over ")).collect();
    let sends = match &forwarder.sends {
        Reading::Known(true) => format!("sends: {}", ways.join(", ")),
        Reading::Known(false) => "sends nothing".to_owned(),
        Reading::Unknown { unknown: why } => format!("whether it sends: {}", unknown(why)),
    };
    format!("{} ({}, {sends})", forwarder.program.as_str().replace('_', "-"), runs(&forwarder.running))
}

fn runs(running: &Reading<bool>) -> String {
    value(running, |&yes| if yes { "runs" } else { "does not run" }.to_owned())
}

/// Returns the items, and whether they are all.
fn listed(items: Vec<String>, complete: &Reading<bool>) -> String {
    let items = if items.is_empty() { "nothing known".to_owned() } else { items.join(", ") };
    match complete {
        Reading::Known(true) => items,
        Reading::Known(false) => format!("{items} (not all listed)"),
        Reading::Unknown { unknown: why } => format!("{items} (others: {})", unknown(why)),
    }
}

fn table(rows: &[(&str, String)]) -> Vec<String> {
    rows.iter().map(|(name, value)| format!("{name:<14}{value}")).collect()
}

fn more(total: usize, what: &str) -> Option<String> {
    more_of(total as u64, total, what)
}

/// Counts what is not printed of `total` items, of which the fact lists `listed`.
fn more_of(total: u64, listed: usize, what: &str) -> Option<String> {
    let left = total.saturating_sub(listed.min(ITEMS) as u64);
    (left > 0).then(|| format!("… and {left} more {what}"))
}

/// Returns bytes in the largest binary unit of which there is at least one, such as `15.5 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut scaled = bytes;
    let mut tenths = 0;
    let mut unit = "bytes";
    for next in UNITS {
        if scaled < 1024 {
            break;
        }
        (tenths, scaled, unit) = (scaled % 1024 * 10 / 1024, scaled / 1024, next);
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{scaled}.{tenths} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{Crypt, CryptFormat, KeySlot, KeySlotKind, KeySlots, PathText, Text, VolumeKind};

    fn layer(device: &str, kind: LayerKind, name: &str, below: &[&str]) -> Layer {
        let below = below.iter().map(|device| Text::new(device)).collect();
        Layer { device: Text::new(device), kind, name: Text::new(name), crypt: None, below }
    }

    fn volume(layers: Vec<Layer>, encrypted: Reading<bool>) -> Fact {
        Fact::DiskEncryption(Reading::Known(DiskEncryption {
            volumes: vec![Volume {
                mount_point: PathText::from_bytes(b"/home"),
                file_system: Text::new("ext4"),
                source: PathText::from_bytes(b"/dev/mapper/vg0-home"),
                kind: VolumeKind::Fixed,
                layers,
                encrypted,
                protection: None,
                encrypted_percent: None,
                key_protectors: Vec::new(),
                encrypted_folders: vec![PathText::from_bytes(b"/home/alice")],
            }],
            swap_areas: Vec::new(),
        }))
    }

    #[test]
    fn a_volume_shows_its_whole_chain() {
        let mut crypt = layer("dm-0", LayerKind::Crypt, "cr", &["nvme0n1p3"]);
        crypt.crypt = Some(Crypt {
            format: CryptFormat::Luks2,
            cipher: Reading::Known(Text::new("aes-xts-plain64")),
            key_bits: Reading::Known(512),
            key_slots: Some(Reading::Known(KeySlots {
                slots: [KeySlotKind::Tpm2, KeySlotKind::Passphrase, KeySlotKind::Passphrase]
                    .into_iter()
                    .zip(0..)
                    .map(|(kind, number)| KeySlot { number, kind })
                    .collect(),
            })),
        });
        let layers = vec![
            layer("dm-1", LayerKind::Lvm, "vg0-home", &["dm-0"]),
            crypt,
            layer("nvme0n1p3", LayerKind::Partition, "", &["nvme0n1"]),
            layer("nvme0n1", LayerKind::Disk, "", &[]),
        ];
        let lines = render(&volume(layers, Reading::Known(true)));
        let crypt = "cr (LUKS2, aes-xts-plain64 512, unlocked by passphrase, tpm2)";
        let chain = format!("vg0-home (LVM) <- {crypt} <- nvme0n1p3 <- nvme0n1");
        let volume = format!("/home  ext4 <- {chain}");
        let folder = format!("{:<100}   encrypted", "  /home/alice  fscrypt");
        assert_eq!(lines, [format!("{volume}   encrypted"), folder]);
    }

    #[test]
    fn a_chain_that_loops_or_fans_out_stays_short() {
        let names: Vec<String> = (0..40).map(|n| format!("d{n}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        let lattice = all.iter().map(|name| layer(name, LayerKind::Raid, "", &all)).collect();
        let lines = render(&volume(lattice, Reading::Known(false)));
        assert!(lines[0].len() < 20_000, "{}", lines[0].len());
        assert!(lines[0].ends_with("NOT encrypted"));
    }

    #[test]
    fn an_unknown_says_its_cause_and_detail() {
        let fact = Fact::Software(Reading::unknown(Cause::Forbidden, "/var/lib/dpkg/status"));
        assert_eq!(render(&fact), ["unknown (forbidden: /var/lib/dpkg/status)"]);
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let package = super::super::Package {
            name: Text::new("a"),
            version: Text::new("1"),
            architecture: Text::new("all"),
            manager: super::super::PackageManager::Dpkg,
        };
        let lines = render(&Fact::Software(Reading::Known(Software { packages: vec![package; ITEMS + 3] })));
        assert_eq!(lines.len(), 1 + ITEMS + 1);
        assert_eq!(lines.last().map(String::as_str), Some("… and 3 more packages"));
    }

    #[test]
    fn sizes_read_in_binary_units() {
        assert_eq!(
            [size(0), size(1023), size(1536), size(u64::MAX)],
            ["0 bytes", "1023 bytes", "1.5 KiB", "16383.9 PiB"]
        );
    }
}
