//! What an agent observed, as domain types, and the only conversion from and to the wire.
//!
//! A fact never says whether a state is good. Every value that a probe may fail to tell is a [`Reading`], so that
//! "cannot tell" travels with its cause and is never mistaken for "no".
//!
//! The fields are those of `muster/v1/fact.proto`, which states units, ranges and sources.

mod access;
mod disks;
mod file_integrity;
mod network;
pub mod render;
pub mod sample;
mod subject;
mod text;
mod updates;
mod upkeep;
mod wire;

use serde::{Deserialize, Serialize};

pub use access::{
    Account, Accounts, Administrator, AdministratorKind, Desktop, PasswordPolicy, PasswordState, PermitRootLogin,
    RemoteAccess, RemoteProgram, RemovableMedia, RemovablePolicy, ScreenLock, Sessions, SshServer, UserScreenLock,
};
pub use disks::{
    Crypt, CryptFormat, DiskEncryption, KeyProtector, KeySlot, KeySlotKind, KeySlots, Layer, LayerKind, Protection,
    SwapArea, SwapKind, Volume, VolumeKind,
};
pub use file_integrity::{
    Actor, Baseline, ChangeKind, ExplainedChanges, Explanation, ExplanationSource, ExtendedAttribute, FileChange,
    FileIntegrity, FileState, FileType, Severity, UnreadablePath, WatchSet, WatchState, WatchedPath,
};
pub use network::{
    ChainPolicy, DefaultVerdict, FilterEngine, FilterFamily, FilterHook, Firewall, FirewallManager, FirewallProfile,
    Inbound, InputChain, Listener, Listeners, Reach, Transport,
};
pub use render::render;
pub use subject::{Fact, Subject};
pub use text::{PathText, Text, is_unsafe};
pub use updates::{AutomaticUpdates, Package, PackageManager, PatchLevel, PendingUpdate, Software, UpdateSource};
pub use upkeep::{
    Backup, BackupClient, BackupStamp, Boot, Capacity, Clock, ClockService, ClockServiceName, Firmware, Forwarder,
    ForwarderProgram, JournalStorage, KernelAudit, Logging, Sensor, SensorKind, SensorMode, SensorSeen, Sensors, Tpm,
    Transmission, VolumeSpace,
};
pub use wire::{Error, words};

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

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 10] = [
        Self::Absent,
        Self::Stale,
        Self::Unsupported,
        Self::TimedOut,
        Self::Forbidden,
        Self::Garbled,
        Self::Limit,
        Self::Undecidable,
        Self::Failed,
        Self::Hidden,
    ];
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
            /// The texts of the contract.
            pub const WORDS: &'static [&'static str] = &[$($text),*];

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
