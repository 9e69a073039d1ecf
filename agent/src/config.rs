//! Settings of the agent: parsed once, handed down.
//!
//! Sources, each over the one before: defaults, `/etc/muster/agent.toml`, `/etc/muster/agent.toml.d/*.toml` in order of name, and
//! the environment, in which each key is `MUSTER_` and its path in upper case with `_` between, such as `MUSTER_INTERVALS_FIREWALL`.
//! No file at all is fine.

mod source;

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use muster_proto::{
    report::{PROBES, Probe},
    watch_set::is_watchable,
};
use serde::{Deserialize, Serialize};

use crate::{
    fim::{
        sets::{PATHS, Sets},
        watch_set::WatchSet,
    },
    probe,
};

pub use source::{DEFAULT_FILE, Error, Loaded, load};

/// Settings of the agent.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the collector, such as `https://c1.example:7443`. Unset: the one that the agent was enrolled at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collector: Option<String>,
    /// Folder that holds keys, spool and the probes' memory. Default `/var/lib/muster-agent`. It must be the agent's alone (mode 0700).
    pub state_directory: PathBuf,
    /// File by which an agent without identity enrols itself as soon as it exists. Default `/etc/muster/enroll.toml`.
    pub enroll_file: PathBuf,
    /// Bytes that the spool may take on disk, 4 MiB to 64 GiB. Default 64 MiB, which holds months of an ordinary host. When it is full,
    /// the agent stops sealing reports and says later, in a signed gap, what is missing.
    pub spool_bytes: u64,
    /// Time after which an unchanged host attests that nothing changed, `10s` to `1d`. Default `1h`. A control that demands fresher
    /// facts than this cannot pass.
    pub attestation_interval: Interval,
    /// Share of an interval, 0 to 0.5, by which looks come early or late, so that hosts do not look in step. Default 0.1.
    pub jitter: f64,
    /// Time between looks, by probe.
    pub intervals: Intervals,
    /// What probes are told to do.
    pub probes: probe::Settings,
    /// What the agent says in its log.
    pub log: Log,
}

/// Time between looks, by probe: `10s` to `1d`. A profile that the collector sends goes before these.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Intervals {
    /// Host, listeners and the agent itself. Default `5m`.
    pub system: Interval,
    /// Disk encryption. Default `5m`.
    pub disk_encryption: Interval,
    /// Patch level and software. Default `30m`.
    pub patch_level: Interval,
    /// Packet filters. Default `1m`.
    pub firewall: Interval,
    /// File integrity: a full scan. Default `1h`; changes that the kernel tells of bring it forward.
    pub file_integrity: Interval,
    /// Accounts, administrators and password rules. Default `1h`.
    pub accounts: Interval,
    /// SSH server and other remote access. Default `1h`.
    pub remote_access: Interval,
    /// Screen lock. Default `1h`.
    pub screen_lock: Interval,
    /// Removable media. Default `1h`.
    pub removable_media: Interval,
    /// Malware protection and other sensors. Default `1h`.
    pub sensors: Interval,
    /// The clock and what keeps it. Default `1h`.
    pub clock: Interval,
    /// Auditing, the journal and what sends it away. Default `1h`.
    pub logging: Interval,
    /// Firmware, TPM and measured boot. Default `1h`.
    pub boot: Interval,
    /// How full file systems are. Default `15m`.
    pub capacity: Interval,
    /// Backup clients. Default `1h`.
    pub backup: Interval,
}

/// What the agent says in its log, on standard error.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a list such as `info,muster_agent::uplink=debug`. Default `info`.
    pub level: String,
    /// `text` or `json`. Default `text`.
    pub format: LogFormat,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A time between two acts, `10s` to `1d`, written with its unit: `90s`, `5m`, `1h 30m`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interval(Duration);

impl Interval {
    /// The shortest.
    pub const MIN: Duration = Duration::from_secs(10);
    /// The longest.
    pub const MAX: Duration = Duration::from_secs(86_400);

    /// Returns the interval, or `None` outside [`Self::MIN`] to [`Self::MAX`].
    pub fn new(duration: Duration) -> Option<Self> {
        (Self::MIN..=Self::MAX).contains(&duration).then_some(Self(duration))
    }

    /// Returns it as a duration.
    pub fn duration(self) -> Duration {
        self.0
    }
}

const fn seconds(seconds: u64) -> Interval {
    Interval(Duration::from_secs(seconds))
}

impl FromStr for Interval {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a time with its unit from 10s to 1d, such as \"90s\", \"5m\" or \"1h 30m\"";
        let text = text.trim();
        // jiff calls days a calendar unit; here a day is 24 hours.
        let parsed = match text.strip_suffix('d').map(str::parse::<u64>) {
            Some(Ok(days)) => Some(Duration::from_secs(days.saturating_mul(86_400))),
            _ => text.parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok()),
        };
        parsed.and_then(Self::new).ok_or(EXPECTED)
    }
}

impl TryFrom<String> for Interval {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        interval.to_string()
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds if seconds % 3_600 == 0 => write!(f, "{}h", seconds / 3_600),
            seconds if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
            seconds => write!(f, "{seconds}s"),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            collector: None,
            state_directory: PathBuf::from("/var/lib/muster-agent"),
            enroll_file: PathBuf::from("/etc/muster/enroll.toml"),
            spool_bytes: 64 * 1024 * 1024,
            attestation_interval: seconds(3_600),
            jitter: 0.1,
            intervals: Intervals::default(),
            probes: probe::Settings::default(),
            log: Log::default(),
        }
    }
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            system: seconds(300),
            disk_encryption: seconds(300),
            patch_level: seconds(1_800),
            firewall: seconds(60),
            file_integrity: seconds(3_600),
            accounts: seconds(3_600),
            remote_access: seconds(3_600),
            screen_lock: seconds(3_600),
            removable_media: seconds(3_600),
            sensors: seconds(3_600),
            clock: seconds(3_600),
            logging: seconds(3_600),
            boot: seconds(3_600),
            capacity: seconds(900),
            backup: seconds(3_600),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

impl Intervals {
    /// Returns the interval of each probe, in order of probe.
    pub fn by_probe(&self) -> [(Probe, Duration); PROBES.len()] {
        [
            (Probe::System, self.system.0),
            (Probe::DiskEncryption, self.disk_encryption.0),
            (Probe::PatchLevel, self.patch_level.0),
            (Probe::Firewall, self.firewall.0),
            (Probe::FileIntegrity, self.file_integrity.0),
            (Probe::Accounts, self.accounts.0),
            (Probe::RemoteAccess, self.remote_access.0),
            (Probe::ScreenLock, self.screen_lock.0),
            (Probe::RemovableMedia, self.removable_media.0),
            (Probe::Sensors, self.sensors.0),
            (Probe::Clock, self.clock.0),
            (Probe::Logging, self.logging.0),
            (Probe::Boot, self.boot.0),
            (Probe::Capacity, self.capacity.0),
            (Probe::Backup, self.backup.0),
        ]
    }
}

impl Config {
    /// Checks what the types do not say.
    fn check(&self) -> Result<(), String> {
        if !(4 << 20..=64 << 30).contains(&self.spool_bytes) {
            return Err(format!(
                "spool_bytes is {}, expected 4194304 (4 MiB) to 68719476736 (64 GiB)",
                self.spool_bytes
            ));
        }
        if !(0.0..=0.5).contains(&self.jitter) {
            return Err(format!("jitter is {}, expected 0 to 0.5", self.jitter));
        }
        if let Some(collector) = &self.collector {
            collector.parse::<crate::identity::CollectorUrl>().map_err(|error| format!("collector: {error}"))?;
        }
        let stamps = &self.probes.backup_stamps;
        if stamps.len() > 100 || stamps.iter().any(|path| !path.has_root()) {
            return Err("probes.backup_stamps has more than 100 paths, or one that is not absolute".to_owned());
        }
        self.check_watched()?;
        self.log
            .level
            .parse::<tracing_subscriber::filter::Targets>()
            .map_err(|_| format!("log.level is {:?}, expected error, warn, info, debug or trace", self.log.level))?;
        Ok(())
    }

    fn check_watched(&self) -> Result<(), String> {
        let probe::Settings { watched_paths, watch_sets, .. } = &self.probes;
        if !watched_paths.is_empty() && !watch_sets.is_empty() {
            let message = "probes.watched_paths and probes.watch_sets are both set: give the paths a set of their own";
            return Err(message.to_owned());
        }
        if let Some(path) = watched_paths.iter().find(|path| !is_watchable(path)) {
            return Err(format!("probes.watched_paths has {path:?}, expected absolute paths without \"..\""));
        }
        if !watched_paths.is_empty() {
            Sets::new(&[WatchSet::of_paths(PATHS, watched_paths.clone())])
                .map_err(|error| format!("probes.watched_paths: {error}"))?;
        }
        Sets::new(watch_sets).map(drop).map_err(|error| format!("probes.watch_sets: {error}"))
    }
}
