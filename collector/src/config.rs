//! The collector's settings: one file, parsed once and handed down. Each key may be set by the environment too.
//!
//! The file is the one of `--config` (or `MUSTER_CONFIG`), else `collector.toml` in the data folder, else
//! `/etc/muster/collector.toml`. A key `a.b` is also the variable `MUSTER_A_B`, which wins; lists are separated by commas.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use muster_proto::caller;
use serde::{Deserialize, Serialize};

/// Where the collector keeps its data when nothing else is said.
pub const DEFAULT_DATA: &str = "/var/lib/muster-collector";
/// The file that is read when there is none in the data folder.
pub const SYSTEM_FILE: &str = "/etc/muster/collector.toml";
/// Name of the file in the data folder.
pub const FILE_NAME: &str = "collector.toml";

/// The settings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no file.
    #[error(
        "found no settings: looked for {}; make a collector with 'muster-collector init --data DIR', or name a file with --config",
        list(looked)
    )]
    Missing {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The file cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file or a variable is wrong.
    #[error("{place}: {message}")]
    Invalid {
        /// File and line, or variable.
        place: Place,
        /// What is wrong and what to do.
        message: String,
    },
}

/// Where a wrong setting stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1, when it is known.
        line: Option<usize>,
    },
    /// In the environment.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Settings of a collector.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the collector: origin of its log and fleet of its certificates. Set by `init`; it never changes. No default.
    pub name: String,
    /// Address and port for agents, people and programs. Default `127.0.0.1:7443`: this machine alone.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Further DNS names and IP addresses under which the collector is reached; each is put into its server certificate beside
    /// `localhost`, the loopback addresses, the machine's host name, `name` and the address of `listen`. Default none.
    #[serde(default)]
    pub names: Vec<String>,
    /// Address and port of the metrics (plain HTTP, `/metrics`, no authentication). Default `127.0.0.1:7445`; empty means none.
    #[serde(default = "default_metrics_listen")]
    pub metrics_listen: String,
    /// Milliseconds between checkpoints while there is something to sign; 10 to 10000. Default 200. An acknowledgement waits for
    /// a checkpoint, so this is most of its delay; each checkpoint costs a few fsyncs.
    #[serde(default = "default_checkpoint_interval_ms")]
    pub checkpoint_interval_ms: u64,
    /// File with further controls, parameters and support dates, laid over the built-in catalogue; relative to the data folder. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<PathBuf>,
    /// File with profiles: watch sets and times between looks, by class of host, that agents take in place of their own; relative to
    /// the data folder. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<PathBuf>,
    /// How long certificates hold.
    #[serde(default)]
    pub certificates: Certificates,
    /// How much one side may ask of the collector.
    #[serde(default)]
    pub limits: Limits,
    /// What the collector says of itself.
    #[serde(default)]
    pub log: Log,
}

/// How long certificates hold.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// Hours that an agent's certificate holds; 1 to 8784. Default 168 (7 days). Agents renew at half of it; one that was away for
    /// longer rejoins by proof of its evidence key.
    pub agent_lifetime_hours: u32,
    /// Hours that the collector's own certificate holds; 1 to 8784. Default 720 (30 days). It lives in memory and is renewed at
    /// half of it, without a restart.
    pub server_lifetime_hours: u32,
}

/// How much one side may ask of the collector.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections in all; 1 to 1000000. Default 10000. Further ones are closed at once.
    pub connections: usize,
    /// Connections from one address; 1 to 1000000. Default 4096: a fleet may stand behind one router.
    pub connections_per_address: usize,
    /// Connections with one certificate's identity; 1 to 1000000. Default 64.
    pub connections_per_caller: usize,
    /// TLS handshakes under way; 1 to 1000000. Default 1024. When there are more, the oldest is given up.
    pub handshakes: usize,
    /// Connections for enrolment in all, which have no certificate; 1 to 1000000. Default 256. When there are more, the oldest is
    /// cut.
    pub enrollment_connections: usize,
    /// Attempts to enrol or rejoin each second, in all; 1 to 100000. Default 50.
    pub enrollments_per_second: u32,
    /// Refused attempts to enrol or rejoin each minute from one address; 1 to 100000. Default 30.
    pub refusals_per_minute: u32,
    /// Bytes of reports that one agent may send at once; 1 MiB to 1 TiB. Default 67108864 (64 MiB): more than a whole spool. What it
    /// uses up comes back by `agent_bytes_per_second`; meanwhile it is told to slow down and not read from. A report counts for 4 KiB
    /// at least.
    pub agent_burst_bytes: u64,
    /// Bytes of reports that one agent may send each second in the long run; 1 KiB to 1 TiB. Default 32768 (32 KiB), hundreds of times
    /// what a busy host sends: it bounds what a hostile one writes into the log, which keeps everything.
    pub agent_bytes_per_second: u64,
    /// Bytes of reports that wait for the log, in memory and on disk; 1 MiB to 1 TiB. Default 268435456 (256 MiB). When there are
    /// more, agents are not read from until the log has caught up.
    pub inbox_bytes: u64,
}

/// What the collector says of itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Filter as in tracing's `EnvFilter`, such as `info` or `info,muster_collector::ingest=debug`. Default `info`. `RUST_LOG` wins.
    pub filter: String,
    /// `text` or `json`, to standard error. Default `text`.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for a person.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

impl Default for Certificates {
    fn default() -> Self {
        Self { agent_lifetime_hours: 168, server_lifetime_hours: 720 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 4096,
            connections_per_caller: 64,
            handshakes: 1024,
            enrollment_connections: 256,
            enrollments_per_second: 50,
            refusals_per_minute: 30,
            agent_burst_bytes: 64 * 1024 * 1024,
            agent_bytes_per_second: 32 * 1024,
            inbox_bytes: 256 * 1024 * 1024,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7443))
}

fn default_metrics_listen() -> String {
    "127.0.0.1:7445".to_owned()
}

fn default_checkpoint_interval_ms() -> u64 {
    200
}

/// Every key that the environment may set.
const KEYS: &[&str] = &[
    "name",
    "listen",
    "names",
    "metrics_listen",
    "checkpoint_interval_ms",
    "catalogue",
    "profiles",
    "certificates.agent_lifetime_hours",
    "certificates.server_lifetime_hours",
    "limits.connections",
    "limits.connections_per_address",
    "limits.connections_per_caller",
    "limits.handshakes",
    "limits.enrollment_connections",
    "limits.enrollments_per_second",
    "limits.refusals_per_minute",
    "limits.agent_burst_bytes",
    "limits.agent_bytes_per_second",
    "limits.inbox_bytes",
    "log.filter",
    "log.format",
];

impl Config {
    /// Returns settings with this name and every default.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            listen: default_listen(),
            names: Vec::new(),
            metrics_listen: default_metrics_listen(),
            checkpoint_interval_ms: default_checkpoint_interval_ms(),
            catalogue: None,
            profiles: None,
            certificates: Certificates::default(),
            limits: Limits::default(),
            log: Log::default(),
        }
    }

    /// Reads the settings of the file at `path`, and of `variables` over them.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or the first setting that is wrong.
    pub fn read(path: &Path, variables: &Variables) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text, variables)
    }

    /// Parses the settings in `text`, which is that of the file at `path`, and `variables` over them.
    ///
    /// # Errors
    ///
    /// The first setting that is wrong.
    pub fn parse(path: &Path, text: &str, variables: &Variables) -> Result<Self, Error> {
        let mut table: toml::Table = toml::from_str(text).map_err(|error| from_toml(path, text, &error))?;
        // Without variables first, so that an error of the file names its line.
        if !variables.sets("name") || table.contains_key("name") {
            let config: Self = toml::from_str(text).map_err(|error| from_toml(path, text, &error))?;
            config.check().map_err(|(key, message)| Error::Invalid {
                place: Place::File { path: path.to_owned(), line: line_of(text, key) },
                message: format!("{key}: {message}"),
            })?;
        }
        for (key, value) in &variables.0 {
            set(&mut table, key, value);
            let variable = variable(key);
            let merged: Result<Self, _> = table.clone().try_into();
            let problem = match merged {
                Ok(config) => config.check().err().map(|(key, message)| format!("{key}: {message}")),
                Err(error) => Some(error.message().to_owned()),
            };
            if let Some(message) = problem {
                return Err(Error::Invalid { place: Place::Variable(variable), message });
            }
        }
        table.try_into().map_err(|error| from_toml(path, text, &error))
    }

    /// Returns the file of these settings, as `init` writes it.
    pub fn to_toml(&self) -> String {
        let names: Vec<_> = self.names.iter().map(|name| quoted(name)).collect();
        format!(
            "# Settings of this collector. 'muster-collector check-config' checks them; every key is explained in\n\
             # muster-collector(1) and has a default but name.\n\
             \n\
             # Origin of the evidence log and fleet of every certificate. It must not change.\n\
             name = {}\n\
             \n\
             # Address and port for agents, people and programs.\n\
             listen = {}\n\
             \n\
             # Further names and addresses under which the collector is reached.\n\
             names = [{}]\n\
             \n\
             # Address and port of the metrics; empty means none.\n\
             metrics_listen = {}\n",
            quoted(&self.name),
            quoted(&self.listen.to_string()),
            names.join(", "),
            quoted(&self.metrics_listen),
        )
    }

    /// Returns the address of the metrics, if there are to be any.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        // `check` has refused what is neither empty nor an address.
        self.metrics_listen.parse().ok()
    }

    /// Returns the time between checkpoints.
    pub fn checkpoint_interval(&self) -> Duration {
        Duration::from_millis(self.checkpoint_interval_ms)
    }

    /// Returns the life of an agent's certificate.
    pub fn agent_lifetime(&self) -> Duration {
        hours(self.certificates.agent_lifetime_hours)
    }

    /// Returns the life of the collector's own certificate.
    pub fn server_lifetime(&self) -> Duration {
        hours(self.certificates.server_lifetime_hours)
    }

    /// Returns the first key that is wrong, and what to do about it.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if !caller::is_name(&self.name) {
            return Err(("name", "use 1 to 64 of a-z, 0-9, '.', '_' and '-'".to_owned()));
        }
        if let Some(name) = self.names.iter().find(|name| !is_host(name)) {
            return Err((
                "names",
                format!("{name:?} is neither a DNS name nor an IP address; name neither port nor scheme"),
            ));
        }
        if !self.metrics_listen.is_empty() && SocketAddr::from_str(&self.metrics_listen).is_err() {
            let message = "use an IP address and a port such as \"127.0.0.1:7445\", or \"\" for no metrics";
            return Err(("metrics_listen", message.to_owned()));
        }
        in_range("checkpoint_interval_ms", self.checkpoint_interval_ms, 10, 10_000)?;
        let certificates = &self.certificates;
        in_range("certificates.agent_lifetime_hours", certificates.agent_lifetime_hours.into(), 1, 8784)?;
        in_range("certificates.server_lifetime_hours", certificates.server_lifetime_hours.into(), 1, 8784)?;
        let limits = &self.limits;
        for (key, value) in [
            ("limits.connections", limits.connections),
            ("limits.connections_per_address", limits.connections_per_address),
            ("limits.connections_per_caller", limits.connections_per_caller),
            ("limits.handshakes", limits.handshakes),
            ("limits.enrollment_connections", limits.enrollment_connections),
        ] {
            in_range(key, value as u64, 1, 1_000_000)?;
        }
        in_range("limits.enrollments_per_second", limits.enrollments_per_second.into(), 1, 100_000)?;
        in_range("limits.refusals_per_minute", limits.refusals_per_minute.into(), 1, 100_000)?;
        in_range("limits.agent_burst_bytes", limits.agent_burst_bytes, 1 << 20, 1 << 40)?;
        in_range("limits.agent_bytes_per_second", limits.agent_bytes_per_second, 1 << 10, 1 << 40)?;
        in_range("limits.inbox_bytes", limits.inbox_bytes, 1 << 20, 1 << 40)?;
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.filter) {
            return Err(("log.filter", format!("{error}; use a filter such as \"info\"")));
        }
        Ok(())
    }
}

/// What the environment sets, by key.
#[derive(Clone, Debug, Default)]
pub struct Variables(Vec<(&'static str, String)>);

impl Variables {
    /// Returns what `lookup` finds for the variable of each key.
    pub fn from(lookup: impl Fn(&str) -> Option<String>) -> Self {
        Self(KEYS.iter().filter_map(|key| lookup(&variable(key)).map(|value| (*key, value))).collect())
    }

    fn sets(&self, key: &str) -> bool {
        self.0.iter().any(|(set, _)| *set == key)
    }
}

/// Returns the file to read: `named`, else the one in `data`, else the system's.
///
/// # Errors
///
/// [`Error::Missing`] when none is named and there is none.
pub fn locate(named: Option<&Path>, data: &Path) -> Result<PathBuf, Error> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let looked = vec![data.join(FILE_NAME), PathBuf::from(SYSTEM_FILE)];
    looked.iter().find(|path| path.exists()).cloned().ok_or(Error::Missing { looked })
}

/// Returns whether `text` is a DNS name or an IP address, as a certificate may carry it.
pub fn is_host(text: &str) -> bool {
    if IpAddr::from_str(text).is_ok() {
        return true;
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn in_range(key: &'static str, value: u64, least: u64, most: u64) -> Result<(), (&'static str, String)> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err((key, format!("{value} is not within {least} to {most}")))
    }
}

fn hours(hours: u32) -> Duration {
    Duration::from_secs(u64::from(hours) * 3600)
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn variable(key: &str) -> String {
    format!("MUSTER_{}", key.replace('.', "_").to_uppercase())
}

fn set(table: &mut toml::Table, key: &str, value: &str) {
    let value = match key {
        "names" => {
            let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
            toml::Value::Array(items.map(|item| toml::Value::String(item.to_owned())).collect())
        }
        _ => value.parse().map_or_else(|_| toml::Value::String(value.to_owned()), toml::Value::Integer),
    };
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, key)) => {
            let section = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let toml::Value::Table(section) = section {
                section.insert(key.to_owned(), value);
            }
        }
    }
}

fn from_toml(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = format!("{}; see muster-collector(1) for the keys", error.message().replace('\n', " "));
    Error::Invalid { place: Place::File { path: path.to_owned(), line }, message }
}

/// Returns the line, from 1, on which `key` is set in `text`.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let mut current = "";
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            current = header.trim();
        } else if current == section && line.split('=').next().is_some_and(|left| left.trim() == name) {
            return Some(index + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Error> {
        Config::parse(Path::new("c.toml"), text, &Variables::default())
    }

    #[test]
    fn what_init_writes_is_read_back() {
        let mut config = Config::new("c1");
        config.listen = "[::1]:9000".parse().unwrap();
        config.names = vec!["muster.example".to_owned(), "192.0.2.7".to_owned()];
        assert_eq!(parse(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn an_error_names_file_line_and_what_to_do() {
        for (text, expected) in [
            ("name = \"c1\"\nlisten = \"nowhere\"\n", "c.toml:2: "),
            ("name = \"c1\"\n\nlisen = \"127.0.0.1:1\"\n", "c.toml:3: unknown field `lisen`"),
            ("listen = \"127.0.0.1:1\"\n", "missing field `name`"),
            ("name = \"C1\"\n", "c.toml:1: name: use 1 to 64"),
            ("name = \"c1\"\nnames = [\"https://x\"]\n", "c.toml:2: names: \"https://x\" is neither"),
            ("name = \"c1\"\n[limits]\nhandshakes = 0\n", "c.toml:3: limits.handshakes: 0 is not within 1 to"),
            ("name = \"c1\"\ncheckpoint_interval_ms = 5\n", "c.toml:2: checkpoint_interval_ms: 5 is not within 10 to"),
            ("name = \"c1\"\nmetrics_listen = \"on\"\n", "c.toml:2: metrics_listen: use an IP address"),
            ("name = \"c1\"\n[log]\nfilter = \"a=b=c\"\n", "c.toml:3: log.filter: "),
            ("name = \"c1\"\n= 1\n", "c.toml:2: "),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_variable_wins_and_is_named_when_it_is_wrong() {
        let with = |name: &str, value: &str| {
            let variables = Variables::from(|asked| (asked == name).then(|| value.to_owned()));
            Config::parse(Path::new("c.toml"), "name = \"c1\"\n", &variables)
        };
        assert_eq!(with("MUSTER_LISTEN", "127.0.0.1:1").unwrap().listen.port(), 1);
        assert_eq!(with("MUSTER_NAMES", "a.example, b.example").unwrap().names, ["a.example", "b.example"]);
        assert_eq!(with("MUSTER_LIMITS_HANDSHAKES", "7").unwrap().limits.handshakes, 7);
        assert_eq!(with("MUSTER_LOG_FORMAT", "json").unwrap().log.format, LogFormat::Json);
        for (name, value) in
            [("MUSTER_LIMITS_HANDSHAKES", "0"), ("MUSTER_LIMITS_HANDSHAKES", "x"), ("MUSTER_NAME", "A")]
        {
            let error = with(name, value).unwrap_err().to_string();
            assert!(error.starts_with(&format!("environment variable {name}: ")), "{error}");
        }
    }

    #[test]
    fn every_key_of_the_settings_has_a_variable() {
        let mut config = Config::new("c1");
        config.catalogue = Some("x".into());
        config.profiles = Some("x".into());
        let table = toml::Table::try_from(&config).unwrap();
        let mut keys = Vec::new();
        for (key, value) in &table {
            match value {
                toml::Value::Table(section) => keys.extend(section.keys().map(|name| format!("{key}.{name}"))),
                _ => keys.push(key.clone()),
            }
        }
        keys.sort();
        let mut known: Vec<_> = KEYS.iter().map(|key| (*key).to_owned()).collect();
        known.sort();
        assert_eq!(keys, known);
    }

    #[test]
    fn no_file_is_an_error_that_says_where_it_was_looked_for() {
        let data = tempfile::tempdir().unwrap();
        let named = Path::new("/nowhere/c.toml");
        assert_eq!(locate(Some(named), data.path()).unwrap(), named);
        std::fs::write(data.path().join(FILE_NAME), "").unwrap();
        assert_eq!(locate(None, data.path()).unwrap(), data.path().join(FILE_NAME));
    }
}
