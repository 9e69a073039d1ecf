//! Complete facts of a made-up host, for tests of both ends: every field is set, every list has an item.

mod access;
mod file_integrity;

use super::{
    Agent, AutomaticUpdates, Backup, BackupClient, BackupStamp, Boot, Capacity, Cause, ChainPolicy, Clock,
    ClockService, ClockServiceName, Crypt, CryptFormat, DefaultVerdict, DiskEncryption, ExecutionControl,
    ExecutionControlKind, ExecutionControlMode, Fact, FilterEngine, FilterFamily, Firewall, FirewallManager,
    FirewallProfile, Firmware, Forwarder, ForwarderProgram, HostClass, Inbound, InputChain, JournalStorage,
    KernelAudit, KeyProtector, KeySlot, KeySlotKind, KeySlots, Layer, LayerKind, Listener, Listeners, Logging,
    OsFamily, Package, PackageManager, PatchLevel, PathText, PendingUpdate, Protection, Reach, Reading, SecureBoot,
    Sensor, SensorKind, SensorMode, SensorSeen, Sensors, Software, Subject, SwapArea, SwapKind, System, Text, Tpm,
    Transmission, Transport, Unknown, UpdateSource, Volume, VolumeKind, VolumeSpace,
};
use crate::time::Timestamp;

pub use access::{accounts, remote_access, removable_media, screen_lock};
pub use file_integrity::file_integrity;

/// Returns a known fact of each subject, in order of subject.
pub fn facts() -> Vec<Fact> {
    vec![
        Fact::Accounts(Reading::Known(accounts())),
        Fact::Agent(Reading::Known(agent())),
        Fact::Backup(Reading::Known(backup())),
        Fact::Boot(Reading::Known(boot())),
        Fact::Capacity(Reading::Known(capacity())),
        Fact::Clock(Reading::Known(clock())),
        Fact::DiskEncryption(Reading::Known(disk_encryption())),
        Fact::FileIntegrity(Reading::Known(file_integrity())),
        Fact::Firewall(Reading::Known(firewall())),
        Fact::Listeners(Reading::Known(listeners())),
        Fact::Logging(Reading::Known(logging())),
        Fact::PatchLevel(Reading::Known(patch_level())),
        Fact::RemoteAccess(Reading::Known(remote_access())),
        Fact::RemovableMedia(Reading::Known(removable_media())),
        Fact::ScreenLock(Reading::Known(screen_lock())),
        Fact::Sensors(Reading::Known(sensors())),
        Fact::Software(Reading::Known(software())),
        Fact::System(Reading::Known(system())),
    ]
}

/// Returns a fact of `subject` that could not be told.
pub fn unknown(subject: Subject, cause: Cause, detail: &str) -> Fact {
    Fact::unknown(subject, Unknown::new(cause, detail))
}

/// Returns a laptop.
pub fn system() -> System {
    System {
        hostname: text("laptop-7"),
        os_family: OsFamily::Linux,
        os_id: text("debian"),
        os_version: text("12"),
        os_name: text("Debian GNU/Linux 12 (bookworm)"),
        kernel: text("6.1.0-56-amd64"),
        architecture: text("x86_64"),
        host_class: Reading::Known(HostClass::Laptop),
        machine_id_digest: text(&"a1".repeat(32)),
        hardware_serial: Reading::unknown(Cause::Forbidden, "read /sys/class/dmi/id/product_serial"),
        hardware_vendor: text("Example Inc."),
        hardware_model: text("Book 7"),
        processors: Reading::Known(8),
        memory_bytes: Reading::Known(16 << 30),
        secure_boot: Reading::Known(SecureBoot::On),
        execution_controls: vec![ExecutionControl {
            kind: ExecutionControlKind::Apparmor,
            mode: ExecutionControlMode::Enforce,
        }],
        execution_controls_complete: Reading::Known(true),
        clock_synchronized: Reading::Known(true),
    }
}

/// Returns an encrypted home on LVM on LUKS2, and encrypted swap.
pub fn disk_encryption() -> DiskEncryption {
    let slot = KeySlot { number: 0, kind: KeySlotKind::Passphrase };
    let crypt = Crypt {
        format: CryptFormat::Luks2,
        cipher: text("aes-xts-plain64"),
        key_bits: Reading::Known(512),
        key_slots: Some(Reading::Known(KeySlots { slots: vec![slot] })),
    };
    let layer = |device: &str, kind, name: &str, crypt, below: &[&str]| Layer {
        device: device.into(),
        kind,
        name: name.into(),
        crypt,
        below: below.iter().map(|&below| below.into()).collect(),
    };
    let below = vec![
        layer("dm-0", LayerKind::Crypt, "cr", Some(crypt), &["nvme0n1p3"]),
        layer("nvme0n1p3", LayerKind::Partition, "", None, &["nvme0n1"]),
        layer("nvme0n1", LayerKind::Disk, "", None, &[]),
    ];
    let above = |device, name| {
        let mut layers = vec![layer(device, LayerKind::Lvm, name, None, &["dm-0"])];
        layers.extend(below.clone());
        layers
    };
    DiskEncryption {
        volumes: vec![Volume {
            mount_point: path("/home"),
            file_system: "ext4".into(),
            source: path("/dev/mapper/vg0-home"),
            kind: VolumeKind::Fixed,
            layers: above("dm-1", "vg0-home"),
            encrypted: Reading::Known(true),
            protection: Some(Reading::Known(Protection::On)),
            encrypted_percent: Some(Reading::Known(100)),
            key_protectors: vec![KeyProtector::Tpm],
            encrypted_folders: vec![path("/home/alice")],
        }],
        swap_areas: vec![SwapArea {
            name: path("/dev/dm-2"),
            kind: SwapKind::Partition,
            layers: above("dm-2", "vg0-swap"),
            encrypted: Reading::Known(true),
        }],
        volumes_complete: Some(Reading::Known(true)),
    }
}

/// Returns one security update pending since an hour before [`time`].
pub fn patch_level() -> PatchLevel {
    PatchLevel {
        manager: PackageManager::Apt,
        pending: vec![PendingUpdate {
            package: "libssl3".into(),
            architecture: "amd64".into(),
            installed_version: "3.0.20-1~deb12u2".into(),
            candidate_version: "3.0.22-1~deb12u2".into(),
            security: true,
            held: false,
            origin: "Debian-Security".into(),
            first_offered_time: time(-3600),
            available_after_time: Some(Reading::Known(time(-7200))),
            phased_percent: Some(Reading::Known(40)),
        }],
        pending_complete: Reading::Known(true),
        sources: vec![UpdateSource {
            label: "Debian-Security".into(),
            codename: "bookworm-security".into(),
            suite: "oldstable-security".into(),
            security: true,
            release_time: Reading::Known(time(-7200)),
            valid_until_time: Reading::Known(time(604_800)),
            origin: "Debian".into(),
            verified: Some(Reading::Known(true)),
        }],
        security_metadata_time: Reading::Known(time(-7200)),
        security_metadata_valid_until_time: Reading::Known(time(604_800)),
        running_kernel: text("6.1.0-56-amd64"),
        newest_kernel: text("6.1.0-57-amd64"),
        reboot_required: Reading::Known(true),
        reboot_required_since_time: Some(Reading::Known(time(-1800))),
        reboot_packages: vec!["linux-image-6.1.0-57-amd64".into()],
        automatic_updates: AutomaticUpdates {
            enabled: Reading::Known(true),
            last_success_time: Reading::Known(time(-5400)),
        },
        security_metadata_verified: Some(Reading::Known(true)),
        live_patches: vec!["livepatch_cve".into()],
    }
}

/// Returns one package.
pub fn software() -> Software {
    let package = Package {
        name: "libssl3".into(),
        version: "3.0.20-1~deb12u2".into(),
        architecture: "amd64".into(),
        manager: PackageManager::Dpkg,
    };
    Software { packages: vec![package] }
}

/// Returns ufw with a policy of drop.
pub fn firewall() -> Firewall {
    Firewall {
        inbound_ipv4: Reading::Known(Inbound::Deny),
        inbound_ipv6: Reading::Known(Inbound::Deny),
        input_chains: vec![InputChain {
            engine: FilterEngine::NfTables,
            family: FilterFamily::Ip,
            table: "filter".into(),
            chain: "INPUT".into(),
            priority: -10,
            policy: ChainPolicy::Drop,
            default_verdict: DefaultVerdict::Drop,
            rule_count: 6,
            hook: None,
        }],
        managers: vec![FirewallManager::Ufw],
        rule_set_digest: text(&"b2".repeat(32)),
        profiles: vec![FirewallProfile {
            engine: FilterEngine::WindowsFiltering,
            name: "public".into(),
            enabled: Reading::Known(true),
            inbound: Reading::Known(Inbound::Deny),
            blocks_all: Some(Reading::Known(false)),
            stealth: Some(Reading::Known(true)),
        }],
    }
}

/// Returns sshd.
pub fn listeners() -> Listeners {
    let reachable = Some(Reading::Known(Reach::Any));
    let listener =
        Listener { protocol: Transport::Tcp, address: "0.0.0.0".into(), port: 22, program: text("sshd"), reachable };
    Listeners { listeners: vec![listener] }
}

/// Returns the agent of a package.
pub fn agent() -> Agent {
    Agent {
        version: "0.1.0".into(),
        program_digest: text(&"f6".repeat(32)),
        matches_package: Reading::Known(true),
        settings_digest: "07".repeat(32).as_str().into(),
        uid: 0,
        capabilities: text("0000000000000004"),
    }
}

/// Returns ClamAV with definitions of two hours before [`time`].
pub fn sensors() -> Sensors {
    Sensors {
        sensors: vec![Sensor {
            name: "clamav".into(),
            product: "ClamAV".into(),
            vendor: "Cisco Talos".into(),
            kind: SensorKind::MalwareProtection,
            program: path("/usr/sbin/clamd"),
            package: text("clamav-daemon"),
            version: text("1.0.9+dfsg-1~deb12u1"),
            running: Reading::Known(true),
            seen: SensorSeen::Program,
            mode: Reading::Known(SensorMode::Block),
            uses_definitions: true,
            definitions_time: Some(Reading::Known(time(-7200))),
        }],
        complete: Reading::Known(true),
        table_time: time(-86_400),
    }
}

/// Returns a clock that chrony keeps.
pub fn clock() -> Clock {
    Clock {
        synchronized: Reading::Known(true),
        offset_millis: Reading::Known(100),
        max_error_millis: Reading::Known(5_000),
        estimated_error_millis: Reading::Known(100),
        services: vec![ClockService { name: ClockServiceName::Chrony, running: Reading::Known(true) }],
        services_complete: Reading::Known(true),
        last_sync_time: Reading::unknown(Cause::Unsupported, "chrony tells it over its socket alone"),
    }
}

/// Returns UEFI with a TPM.
pub fn boot() -> Boot {
    Boot {
        firmware: Reading::Known(Firmware::Uefi),
        tpm: Reading::Known(Tpm::Tpm2_0),
        measured_boot: Reading::Known(true),
        ima_measures: Reading::Known(false),
    }
}

/// Returns a disk that is half full.
pub fn capacity() -> Capacity {
    let volume = VolumeSpace {
        mount_point: path("/"),
        file_system: "ext4".into(),
        used_percent: Reading::Known(60),
        inodes_percent: Reading::Known(50),
    };
    Capacity { volumes: vec![volume], boot_time: Reading::Known(time(-604_800)) }
}

/// Returns a host that rsnapshot keeps, and a job that touches a file.
pub fn backup() -> Backup {
    let client = BackupClient {
        name: "rsnapshot".into(),
        product: "rsnapshot".into(),
        program: path("/usr/bin/rsnapshot"),
        package: text("rsnapshot"),
        version: text("1.5.1-1"),
        has_settings: Reading::Known(true),
        last_success_time: Reading::Known(time(-3600)),
    };
    let stamp = BackupStamp { path: path("/var/lib/backup/stamp"), last_success_time: Reading::Known(time(-7200)) };
    Backup { clients: vec![client], complete: Reading::Known(true), table_time: time(-86_400), stamps: vec![stamp] }
}

/// Returns auditing, a persistent journal, and rsyslog that sends it away.
pub fn logging() -> Logging {
    let forwarder = Forwarder {
        program: ForwarderProgram::Rsyslog,
        running: Reading::Known(true),
        sends: Reading::Known(true),
        ways: vec![Transmission::SyslogTls],
    };
    Logging {
        audit: KernelAudit {
            enabled: Reading::Known(true),
            immutable: Reading::Known(false),
            daemon_running: Reading::Known(true),
            lost: Reading::Known(0),
            backlog_limit: Reading::Known(8192),
            rules: Reading::Known(12),
            rules_digest: text(&"18".repeat(32)),
        },
        journal_storage: Reading::Known(JournalStorage::Persistent),
        kept_since_time: Reading::Known(time(-2_592_000)),
        forwarders: vec![forwarder],
        forwarders_complete: Reading::Known(true),
    }
}

/// Returns the instant `seconds` after 2026-11-24T12:00:00Z, which is when the made-up host is looked at.
pub fn time(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_795_521_600 + seconds).expect("near 2026")
}

fn text(text: &str) -> Reading<Text> {
    Reading::Known(text.into())
}

fn path(path: &str) -> PathText {
    PathText::from_bytes(path.as_bytes())
}
