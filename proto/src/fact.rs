//! What an agent observed, as domain types, and the only conversion from and to the wire.
//!
//! A fact never says whether a state is good. Every value that a probe may fail to tell is a [`Reading`], so that
//! "cannot tell" travels with its cause and is never mistaken for "no".
//!
//! The fields are those of `muster/v1/fact.proto`, which states units, ranges and sources.

mod access;
mod file_integrity;
pub mod render;
pub mod sample;
mod subject;
mod text;
mod wire;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

pub use access::{
    Account, Accounts, Administrator, AdministratorKind, Desktop, PasswordPolicy, PasswordState, PermitRootLogin,
    RemoteAccess, RemoteProgram, RemovableMedia, RemovablePolicy, ScreenLock, Sessions, SshServer, UserScreenLock,
};
pub use file_integrity::{
    Actor, Baseline, ChangeKind, ExplainedChanges, Explanation, ExplanationSource, ExtendedAttribute, FileChange,
    FileIntegrity, FileState, FileType, Severity, UnreadablePath, WatchSet, WatchState, WatchedPath,
};
pub use render::render;
pub use subject::{Fact, Subject};
pub use text::{PathText, Text, is_unsafe};
pub use wire::Error;

/// Why a value could not be told.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// What holds the value is not there, although a host of this kind has it.
    Absent,
    /// The value is there but older than what it must describe.
    Stale,
    /// This build cannot read this kind of host, format or feature.
    Unsupported,
    /// The look did not end within its time budget.
    TimedOut,
    /// The agent may not read it.
    Forbidden,
    /// What was read does not follow its format.
    Garbled,
    /// A bound on size, count, memory or output was reached.
    Limit,
    /// Everything was read, and no sound rule decides it.
    Undecidable,
    /// Reading failed with another input/output error.
    Failed,
    /// The host cannot see it from inside.
    Hidden,
}

/// A value that could not be told: why, and what was tried.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Unknown {
    /// Why.
    pub cause: Cause,
    /// What was tried and on what, for a person. Empty when the cause says it all.
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub detail: Text,
}

impl Unknown {
    /// Returns an unknown with `detail`, cut to what the contract allows.
    pub fn new(cause: Cause, detail: impl AsRef<str>) -> Self {
        Self { cause, detail: Text::cut(detail.as_ref(), crate::limits::DETAIL_BYTES) }
    }
}

/// A value, or why it could not be told.
///
/// As JSON, a known value is the value itself and an unknown one is `{"unknown": {"cause": …, "detail": …}}`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(untagged)]
pub enum Reading<T> {
    /// It could not be told. First, because an untagged read tries variants in order and a map could be taken for a value.
    Unknown {
        /// Why.
        unknown: Unknown,
    },
    /// The value.
    Known(T),
}

impl<T> Reading<T> {
    /// Returns an unknown reading.
    pub fn unknown(cause: Cause, detail: impl AsRef<str>) -> Self {
        Self::Unknown { unknown: Unknown::new(cause, detail) }
    }

    /// Returns the value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown { .. } => None,
        }
    }

    /// Returns the reading of what `f` makes of the value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Known(value) => Reading::Known(f(value)),
            Self::Unknown { unknown } => Reading::Unknown { unknown },
        }
    }
}

macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[allow(missing_docs, reason = "the text says it")]
        pub enum $name { $(#[serde(rename = $text)] $variant),* }

        impl $name {
            /// Returns the text of the contract.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// Returns the value that `text` names, if there is one.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

use text_enum;

text_enum!(
    /// Kind of operating system.
    OsFamily { Linux = "linux", Macos = "macos", Windows = "windows" }
);
text_enum!(
    /// Class of host.
    HostClass { Laptop = "laptop", Desktop = "desktop", Server = "server", Vm = "vm", Container = "container" }
);
text_enum!(
    /// State of UEFI Secure Boot.
    SecureBoot { On = "on", Off = "off", Setup = "setup", Unsupported = "unsupported" }
);
text_enum!(
    /// A mechanism that restricts what may execute.
    ExecutionControlKind {
        AppControl = "app_control", Apparmor = "apparmor", Gatekeeper = "gatekeeper", Lockdown = "lockdown",
        Selinux = "selinux", Sip = "sip",
    }
);
text_enum!(
    /// Whether such a mechanism enforces.
    ExecutionControlMode { Enforce = "enforce", Audit = "audit", Off = "off" }
);
text_enum!(
    /// Kind of volume.
    VolumeKind {
        Fixed = "fixed", Removable = "removable", Network = "network", Image = "image", Memory = "memory", Boot = "boot",
    }
);
text_enum!(
    /// What BitLocker or FileVault says of a volume.
    Protection {
        On = "on", Off = "off", Suspended = "suspended", Encrypting = "encrypting", EncryptionPaused = "encryption_paused",
        Decrypting = "decrypting", DecryptionPaused = "decryption_paused", Locked = "locked", Deferred = "deferred",
        HardwareKey = "hardware_key",
    }
);
text_enum!(
    /// What opens the key of a BitLocker volume.
    KeyProtector {
        Cng = "cng", ExternalKey = "external_key", Other = "other", Password = "password", PublicKey = "public_key",
        RecoveryPassword = "recovery_password", Tpm = "tpm", TpmCertificate = "tpm_certificate", TpmPin = "tpm_pin",
        TpmPinStartupKey = "tpm_pin_startup_key", TpmStartupKey = "tpm_startup_key",
    }
);
text_enum!(
    /// Kind of swap area.
    SwapKind { Partition = "partition", File = "file", Zram = "zram" }
);
text_enum!(
    /// Kind of device below a volume.
    LayerKind {
        Disk = "disk", Partition = "partition", Crypt = "crypt", Lvm = "lvm", Raid = "raid", Loop = "loop",
        Multipath = "multipath", Bcache = "bcache", Zram = "zram", Virtual = "virtual", Apfs = "apfs",
        Other = "other",
    }
);
text_enum!(
    /// Format of a crypt layer.
    CryptFormat {
        Luks1 = "luks1", Luks2 = "luks2", Plain = "plain", Integrity = "integrity", Opal = "opal",
        OpalCrypt = "opal_crypt", Fscrypt = "fscrypt", Ecryptfs = "ecryptfs", Zfs = "zfs",
        Apfs = "apfs", Bitlocker = "bitlocker", Other = "other",
    }
);
text_enum!(
    /// What opens a key slot.
    KeySlotKind {
        Passphrase = "passphrase", Tpm2 = "tpm2", Tpm2Pin = "tpm2_pin", Fido2 = "fido2", Pkcs11 = "pkcs11",
        Recovery = "recovery", Clevis = "clevis", Keyring = "keyring", Other = "other",
    }
);
text_enum!(
    /// Package manager.
    PackageManager {
        Apt = "apt", Dpkg = "dpkg", Rpm = "rpm", Dnf = "dnf", Zypper = "zypper", Pacman = "pacman",
        Softwareupdate = "softwareupdate", WindowsUpdate = "windows_update",
    }
);
text_enum!(
    /// What becomes of inbound packets that no rule lets in.
    Inbound { Deny = "deny", Allow = "allow" }
);
text_enum!(
    /// Packet filter of the system.
    FilterEngine {
        NfTables = "nf_tables", IptablesLegacy = "iptables_legacy", ApplicationFirewall = "application_firewall",
        Pf = "pf", WindowsFiltering = "windows_filtering",
    }
);
text_enum!(
    /// Address family of a packet filter's table.
    FilterFamily { Ip = "ip", Ip6 = "ip6", Inet = "inet", Netdev = "netdev" }
);
text_enum!(
    /// Hook of a packet filter before the input hook.
    FilterHook { Ingress = "ingress", Prerouting = "prerouting" }
);
text_enum!(
    /// Policy of a base chain.
    ChainPolicy { Accept = "accept", Drop = "drop" }
);
text_enum!(
    /// What becomes of a packet that no narrower rule of a chain decides.
    DefaultVerdict { Accept = "accept", Drop = "drop", Reject = "reject", Undecidable = "undecidable" }
);
text_enum!(
    /// Program whose packet-filter rules were recognised.
    FirewallManager { Docker = "docker", Firewalld = "firewalld", Ufw = "ufw" }
);
text_enum!(
    /// Transport protocol.
    Transport { Tcp = "tcp", Udp = "udp" }
);
text_enum!(
    /// From whom outside a socket is reached.
    Reach { None = "none", Some = "some", Any = "any" }
);
text_enum!(
    /// Kind of sensor.
    SensorKind { MalwareProtection = "malware_protection", Edr = "edr", Monitoring = "monitoring" }
);
text_enum!(
    /// What shows that a sensor runs.
    SensorSeen { Program = "program", Unit = "unit", None = "none" }
);
text_enum!(
    /// What a sensor does with what it finds as it happens.
    SensorMode { Block = "block", Detect = "detect", OnDemand = "on_demand" }
);
text_enum!(
    /// Program that sets the clock.
    ClockServiceName { Chrony = "chrony", Ntpd = "ntpd", Ptp4l = "ptp4l", SystemdTimesyncd = "systemd_timesyncd" }
);
text_enum!(
    /// Kind of firmware.
    Firmware { Uefi = "uefi", Bios = "bios", Other = "other" }
);
text_enum!(
    /// Trusted Platform Module.
    Tpm { Tpm1_2 = "tpm1_2", Tpm2_0 = "tpm2_0", None = "none" }
);
text_enum!(
    /// Where systemd's journal is kept.
    JournalStorage { Persistent = "persistent", Volatile = "volatile", None = "none" }
);
text_enum!(
    /// Program that may send the log to other hosts.
    ForwarderProgram {
        Filebeat = "filebeat", FluentBit = "fluent_bit", JournalUpload = "journal_upload", Rsyslog = "rsyslog",
        SyslogNg = "syslog_ng", Vector = "vector",
    }
);
text_enum!(
    /// Way by which the log goes to other hosts.
    Transmission {
        Http = "http", Other = "other", Relp = "relp", SyslogTcp = "syslog_tcp", SyslogTls = "syslog_tls",
        SyslogUdp = "syslog_udp",
    }
);

/// Identity and platform of a host. All of it is self-reported and authorises nothing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct System {
    pub hostname: Reading<Text>,
    pub os_family: OsFamily,
    pub os_id: Reading<Text>,
    pub os_version: Reading<Text>,
    pub os_name: Reading<Text>,
    pub kernel: Reading<Text>,
    pub architecture: Reading<Text>,
    pub host_class: Reading<HostClass>,
    pub machine_id_digest: Reading<Text>,
    pub hardware_serial: Reading<Text>,
    pub hardware_vendor: Reading<Text>,
    pub hardware_model: Reading<Text>,
    pub processors: Reading<u64>,
    pub memory_bytes: Reading<u64>,
    pub secure_boot: Reading<SecureBoot>,
    pub execution_controls: Vec<ExecutionControl>,
    pub execution_controls_complete: Reading<bool>,
    pub clock_synchronized: Reading<bool>,
}

/// A mechanism that restricts what may execute.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct ExecutionControl {
    pub kind: ExecutionControlKind,
    pub mode: ExecutionControlMode,
}

/// Every mounted file system that stores data, and every swap area.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct DiskEncryption {
    pub volumes: Vec<Volume>,
    pub swap_areas: Vec<SwapArea>,
}

/// A mounted file system.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Volume {
    pub mount_point: PathText,
    pub file_system: Text,
    pub source: PathText,
    pub kind: VolumeKind,
    pub layers: Vec<Layer>,
    pub encrypted: Reading<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Reading<Protection>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_percent: Option<Reading<u64>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_protectors: Vec<KeyProtector>,
    /// Empty in facts of a version that did not look for them.
    #[serde(default)]
    pub encrypted_folders: Vec<PathText>,
}

/// A swap area.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct SwapArea {
    pub name: PathText,
    pub kind: SwapKind,
    pub layers: Vec<Layer>,
    pub encrypted: Reading<bool>,
}

/// One device in the chain below a volume.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Layer {
    pub device: Text,
    pub kind: LayerKind,
    pub name: Text,
    /// Present on crypt layers alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crypt: Option<Crypt>,
    pub below: Vec<Text>,
}

/// What a crypt layer does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Crypt {
    pub format: CryptFormat,
    pub cipher: Reading<Text>,
    pub key_bits: Reading<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_slots: Option<Reading<KeySlots>>,
}

/// What unlocks a LUKS device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct KeySlots {
    pub slots: Vec<KeySlot>,
}

/// A key slot in use.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct KeySlot {
    pub number: u32,
    pub kind: KeySlotKind,
}

/// What the host's own package manager knows of updates.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct PatchLevel {
    pub manager: PackageManager,
    pub pending: Vec<PendingUpdate>,
    pub pending_complete: Reading<bool>,
    pub sources: Vec<UpdateSource>,
    pub security_metadata_time: Reading<Timestamp>,
    pub security_metadata_valid_until_time: Reading<Timestamp>,
    pub running_kernel: Reading<Text>,
    pub newest_kernel: Reading<Text>,
    pub reboot_required: Reading<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_required_since_time: Option<Reading<Timestamp>>,
    pub reboot_packages: Vec<Text>,
    pub automatic_updates: AutomaticUpdates,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_metadata_verified: Option<Reading<bool>>,
    #[serde(default)]
    pub live_patches: Vec<Text>,
}

/// An update that is offered and not installed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct PendingUpdate {
    pub package: Text,
    pub architecture: Text,
    pub installed_version: Text,
    pub candidate_version: Text,
    pub security: bool,
    pub held: bool,
    pub origin: Text,
    pub first_offered_time: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_after_time: Option<Reading<Timestamp>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phased_percent: Option<Reading<u64>>,
}

/// A package repository in use.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct UpdateSource {
    pub label: Text,
    pub codename: Text,
    pub suite: Text,
    pub security: bool,
    pub release_time: Reading<Timestamp>,
    pub valid_until_time: Reading<Timestamp>,
    #[serde(default)]
    pub origin: Text,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Reading<bool>>,
}

/// Whether updates are installed without a person.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct AutomaticUpdates {
    pub enabled: Reading<bool>,
    pub last_success_time: Reading<Timestamp>,
}

/// Packages that are installed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Software {
    pub packages: Vec<Package>,
}

/// An installed package.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Package {
    pub name: Text,
    pub version: Text,
    pub architecture: Text,
    pub manager: PackageManager,
}

/// Packet filters of the host's initial network namespace.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Firewall {
    pub inbound_ipv4: Reading<Inbound>,
    pub inbound_ipv6: Reading<Inbound>,
    pub input_chains: Vec<InputChain>,
    pub managers: Vec<FirewallManager>,
    pub rule_set_digest: Reading<Text>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<FirewallProfile>,
}

/// A filter of macOS or Windows, as it is in force.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct FirewallProfile {
    pub engine: FilterEngine,
    pub name: Text,
    pub enabled: Reading<bool>,
    pub inbound: Reading<Inbound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_all: Option<Reading<bool>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stealth: Option<Reading<bool>>,
}

/// A chain that inbound packets enter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct InputChain {
    pub engine: FilterEngine,
    pub family: FilterFamily,
    pub table: Text,
    pub chain: Text,
    pub priority: i32,
    pub policy: ChainPolicy,
    pub default_verdict: DefaultVerdict,
    pub rule_count: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<FilterHook>,
}

/// Sockets that wait for peers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Listeners {
    pub listeners: Vec<Listener>,
}

/// A socket that waits for peers.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Listener {
    pub protocol: Transport,
    pub address: Text,
    pub port: u16,
    pub program: Reading<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<Reading<Reach>>,
}

/// What the agent says of itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Agent {
    pub version: Text,
    pub program_digest: Reading<Text>,
    pub matches_package: Reading<bool>,
    pub settings_digest: Text,
    pub uid: u32,
    pub capabilities: Reading<Text>,
}

/// The sensors of the agent's table that are on the host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Sensors {
    pub sensors: Vec<Sensor>,
    pub complete: Reading<bool>,
    pub table_time: Timestamp,
}

/// A program that watches the host for malware or for what attackers do.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Sensor {
    pub name: Text,
    pub product: Text,
    pub vendor: Text,
    pub kind: SensorKind,
    pub program: PathText,
    pub package: Reading<Text>,
    pub version: Reading<Text>,
    pub running: Reading<bool>,
    pub seen: SensorSeen,
    pub mode: Reading<SensorMode>,
    pub uses_definitions: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definitions_time: Option<Reading<Timestamp>>,
}

/// What keeps the clock right, and how far off it may be.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Clock {
    pub synchronized: Reading<bool>,
    pub offset_millis: Reading<u64>,
    pub max_error_millis: Reading<u64>,
    pub estimated_error_millis: Reading<u64>,
    pub services: Vec<ClockService>,
    pub services_complete: Reading<bool>,
    pub last_sync_time: Reading<Timestamp>,
}

/// A program that sets the clock.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct ClockService {
    pub name: ClockServiceName,
    pub running: Reading<bool>,
}

/// What guards the host before and while its kernel starts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Boot {
    pub firmware: Reading<Firmware>,
    pub tpm: Reading<Tpm>,
    pub measured_boot: Reading<bool>,
    pub ima_measures: Reading<bool>,
}

/// How full the host's own file systems are.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Capacity {
    pub volumes: Vec<VolumeSpace>,
    pub boot_time: Reading<Timestamp>,
}

/// How full a file system is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct VolumeSpace {
    pub mount_point: PathText,
    pub file_system: Text,
    pub used_percent: Reading<u64>,
    pub inodes_percent: Reading<u64>,
}

/// The backup clients of the agent's table that are on the host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Backup {
    pub clients: Vec<BackupClient>,
    pub complete: Reading<bool>,
    pub table_time: Timestamp,
    pub stamps: Vec<BackupStamp>,
}

/// A program that makes backups of the host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct BackupClient {
    pub name: Text,
    pub product: Text,
    pub program: PathText,
    pub package: Reading<Text>,
    pub version: Reading<Text>,
    pub has_settings: Reading<bool>,
    pub last_success_time: Reading<Timestamp>,
}

/// A file that a backup job touches when it ended well.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct BackupStamp {
    pub path: PathText,
    pub last_success_time: Reading<Timestamp>,
}

/// Whether the host keeps a record of what happens on it, and sends it away.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Logging {
    pub audit: KernelAudit,
    pub journal_storage: Reading<JournalStorage>,
    pub kept_since_time: Reading<Timestamp>,
    pub forwarders: Vec<Forwarder>,
    pub forwarders_complete: Reading<bool>,
}

/// What the kernel says of its audit system.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct KernelAudit {
    pub enabled: Reading<bool>,
    pub immutable: Reading<bool>,
    pub daemon_running: Reading<bool>,
    pub lost: Reading<u64>,
    pub backlog_limit: Reading<u64>,
    pub rules: Reading<u64>,
    pub rules_digest: Reading<Text>,
}

/// A program that may send the log to other hosts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Forwarder {
    pub program: ForwarderProgram,
    pub running: Reading<bool>,
    pub sends: Reading<bool>,
    pub ways: Vec<Transmission>,
}
