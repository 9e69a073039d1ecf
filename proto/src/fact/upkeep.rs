//! What keeps a host in order: sensors, clock, logging, boot, capacity and backup.

use serde::{Deserialize, Serialize};

use super::{PathText, Reading, Text, text_enum};
use crate::time::Timestamp;

text_enum!(
    /// Trusted Platform Module.
    Tpm { Tpm1_2 = "tpm1_2", Tpm2_0 = "tpm2_0", None = "none" }
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
    ClockServiceName {
        Chrony = "chrony",
        Ntpd = "ntpd",
        NtpdRs = "ntpd_rs",
        Ptp4l = "ptp4l",
        SystemdTimesyncd = "systemd_timesyncd",
    }
);
text_enum!(
    /// Kind of firmware.
    Firmware { Uefi = "uefi", Bios = "bios", Other = "other" }
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
