//! Facts as lines for a person. Pure text; what a program reads is the fact itself.
//!
//! Every text of a fact is safe to print by its type, so the lines are too. A fact comes from a host that may lie: lists are cut at
//! [`ITEMS`], and chains of layers at a depth.

mod access;
mod disks;
mod file_integrity;
mod network;
mod updates;
mod upkeep;

pub use file_integrity::change as file_change;

use super::{Agent, Cause, Fact, Reading, System, Unknown};

/// Items of one list that are printed; what is left out is counted.
pub const ITEMS: usize = 50;

/// Returns the lines that show `fact` to a person.
pub fn render(fact: &Fact) -> Vec<String> {
    match fact {
        Fact::System(reading) => whole(reading, system),
        Fact::DiskEncryption(reading) => whole(reading, disks::disk_encryption),
        Fact::PatchLevel(reading) => whole(reading, updates::patch_level),
        Fact::Software(reading) => whole(reading, updates::software),
        Fact::Firewall(reading) => whole(reading, network::firewall),
        Fact::Listeners(reading) => whole(reading, network::listeners),
        Fact::FileIntegrity(reading) => whole(reading, file_integrity::lines),
        Fact::Agent(reading) => whole(reading, agent),
        Fact::Accounts(reading) => whole(reading, access::accounts),
        Fact::RemoteAccess(reading) => whole(reading, access::remote_access),
        Fact::ScreenLock(reading) => whole(reading, access::screen_lock),
        Fact::RemovableMedia(reading) => whole(reading, access::removable_media),
        Fact::Sensors(reading) => whole(reading, upkeep::sensors),
        Fact::Clock(reading) => whole(reading, upkeep::clock),
        Fact::Logging(reading) => whole(reading, upkeep::logging),
        Fact::Boot(reading) => whole(reading, upkeep::boot),
        Fact::Capacity(reading) => whole(reading, upkeep::capacity),
        Fact::Backup(reading) => whole(reading, upkeep::backup),
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

fn agent(agent: &Agent) -> Vec<String> {
    table(&[
        ("version", agent.version.to_string()),
        ("program", value(&agent.program_digest, |digest| format!("sha256 {digest}"))),
        ("as packaged", yes_no(&agent.matches_package)),
        ("settings", format!("sha256 {}", agent.settings_digest)),
        ("runs as", format!("uid {}, capabilities {}", agent.uid, text(&agent.capabilities))),
    ])
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
    use crate::fact::{
        Crypt, CryptFormat, DiskEncryption, KeySlot, KeySlotKind, KeySlots, Layer, LayerKind, PathText, Software, Text,
        Volume, VolumeKind,
    };

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
            volumes_complete: None,
        }))
    }

    #[test]
    fn volumes_that_may_be_missing_are_told() {
        let lines = |complete| {
            let mut disk = crate::fact::sample::disk_encryption();
            disk.volumes_complete = complete;
            render(&Fact::DiskEncryption(Reading::Known(disk)))
        };
        let whole = lines(Some(Reading::Known(true)));
        assert_eq!(lines(None), whole);
        let with = |line: &str| whole.iter().cloned().chain([line.to_owned()]).collect::<Vec<_>>();
        assert_eq!(lines(Some(Reading::Known(false))), with("not all volumes are listed"));
        let untold = lines(Some(Reading::unknown(Cause::Limit, "more than 4096 mount namespaces")));
        assert_eq!(untold, with("other volumes: unknown (limit reached: more than 4096 mount namespaces)"));
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
    fn when_files_are_read_again_is_shown_as_it_is_told() {
        let lines = |seconds, in_time| {
            let mut files = crate::fact::sample::file_integrity();
            (files.reread_seconds, files.reread_in_time) = (seconds, in_time);
            render(&Fact::FileIntegrity(Reading::Known(files)))
        };
        for (seconds, in_time, expected) in [
            (0, None, "not told"),
            (0, Some(Reading::Known(false)), "only what metadata says has changed"),
            (0, Some(Reading::Known(true)), "by every scan"),
            (3600, Some(Reading::Known(true)), "within 3600 s, kept: yes"),
            (3600, None, "within 3600 s"),
        ] {
            let lines = lines(seconds, in_time);
            let line = lines.iter().find(|line| line.starts_with("read again")).unwrap();
            assert!(line.ends_with(&format!("  {expected}")), "{line}");
        }
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
    fn what_a_socket_is_told_of_stands_apart_from_its_program() {
        let line = |reachable| {
            let mut listeners = crate::fact::sample::listeners();
            listeners.listeners[0].reachable = reachable;
            render(&Fact::Listeners(Reading::Known(listeners)))[0].clone()
        };
        let told = |reach| line(Some(Reading::Known(reach)));
        assert_eq!(line(None), "tcp 0.0.0.0:22  sshd");
        assert_eq!(told(super::super::Reach::None), "tcp 0.0.0.0:22  sshd  not let in");
        let untold = line(Some(Reading::unknown(Cause::Undecidable, "rule 1")));
        assert_eq!(untold, "tcp 0.0.0.0:22  sshd  unknown (undecidable: rule 1)");
    }

    #[test]
    fn sizes_read_in_binary_units() {
        assert_eq!(
            [size(0), size(1023), size(1536), size(u64::MAX)],
            ["0 bytes", "1023 bytes", "1.5 KiB", "16383.9 PiB"]
        );
    }
}
