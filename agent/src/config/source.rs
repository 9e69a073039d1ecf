//! Where settings come from, and what to say when one of them is wrong.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use toml::{Table, Value};

use super::Config;

/// The file that is read unless another one is named.
pub const DEFAULT_FILE: &str = "/etc/muster/agent.toml";

/// Settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that was named, or that is there, cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has something in it that is not a setting.
    #[error("{}:{line}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What, and what is expected.
        message: String,
    },
    /// A variable of the environment is not what its setting takes.
    #[error("environment: {message}")]
    Environment {
        /// What, and what is expected.
        message: String,
    },
    /// The settings together are not possible.
    #[error("{message}")]
    Together {
        /// What, and what is expected.
        message: String,
    },
}

/// Settings, and where they came from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings in force.
    pub config: Config,
    /// Files that were read, in order.
    pub files: Vec<PathBuf>,
    /// Variables of the environment that were taken, in order of name.
    pub variables: Vec<String>,
}

/// Loads the settings: from `named` when a file is named, else from [`DEFAULT_FILE`] when it is there; then from `<file>.d/*.toml`,
/// then from `environment`.
///
/// # Errors
///
/// Says which file and line, or which variable, is wrong and what is expected there.
pub fn load(named: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Loaded, Error> {
    let main = named.unwrap_or(Path::new(DEFAULT_FILE));
    let mut files = Vec::new();
    let mut table = Table::new();
    // A named file that is missing must not mean "defaults".
    if named.is_some() || main.exists() {
        files.push(main.to_owned());
    }
    files.extend(drop_ins(main)?);
    for path in &files {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        merge(&mut table, parse(path, &text)?);
    }
    let (overlay, variables) = from_environment(environment);
    Config::deserialize(Value::Table(overlay.clone()))
        .map_err(|error| Error::Environment { message: with_advice(error.message()) })?;
    merge(&mut table, overlay);
    let config =
        Config::deserialize(Value::Table(table)).map_err(|error| Error::Together { message: error.to_string() })?;
    config.check().map_err(|message| Error::Together { message })?;
    Ok(Loaded { config, files, variables })
}

fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut folder = main.as_os_str().to_owned();
    folder.push(".d");
    let folder = PathBuf::from(folder);
    let read = |source| Error::Read { path: folder.clone(), source };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read(error)),
    };
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(read)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

fn parse(path: &Path, text: &str) -> Result<Table, Error> {
    let wrong = |error: toml::de::Error| Error::File {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1),
        message: with_advice(error.message()),
    };
    toml::from_str::<Config>(text).map_err(wrong)?;
    text.parse::<Table>().map_err(wrong)
}

fn with_advice(message: &str) -> String {
    let message = message.replace('\n', " ");
    if message.contains("unknown field") { format!("{message}; remove it or correct its name") } else { message }
}

/// Puts `over` over `table`, key by key; a list replaces a list.
fn merge(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(value)) => merge(below, value),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

fn from_environment(environment: impl Iterator<Item = (String, String)>) -> (Table, Vec<String>) {
    let mut known = Table::try_from(Config::default()).expect("the defaults are settings");
    // Has no default, so that it is not among them.
    known.insert("collector".to_owned(), Value::String(String::new()));
    let mut overlay = Table::new();
    let mut taken = Vec::new();
    let mut environment: Vec<_> = environment.filter(|(name, _)| name.starts_with("MUSTER_")).collect();
    environment.sort();
    for (name, text) in environment {
        if set_from(&known, &mut overlay, "MUSTER", &name, &text) {
            taken.push(name);
        }
    }
    (overlay, taken)
}

/// Sets the key whose path makes `name`, if there is one.
fn set_from(known: &Table, overlay: &mut Table, prefix: &str, name: &str, text: &str) -> bool {
    for (key, default) in known {
        let full = format!("{prefix}_{}", key.to_ascii_uppercase());
        if let Value::Table(inner) = default {
            let mut below = overlay.get(key).and_then(Value::as_table).cloned().unwrap_or_default();
            if set_from(inner, &mut below, &full, name, text) {
                overlay.insert(key.clone(), Value::Table(below));
                return true;
            }
        } else if full == name {
            overlay.insert(key.clone(), typed(default, text));
            return true;
        }
    }
    false
}

/// Returns `text` as a value of the kind of `default`; text that is no such value stays text, and is then refused with its key.
fn typed(default: &Value, text: &str) -> Value {
    if default.is_str() {
        return Value::String(text.to_owned());
    }
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    match parsed {
        Some(Value::Integer(number)) if default.is_float() => Value::Float(number as f64),
        Some(value) => value,
        None => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_proto::report::Probe;

    use super::*;
    use crate::config::Interval;

    fn environment(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn later_sources_go_over_earlier_ones_key_by_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, "jitter = 0.2\n[intervals]\nfirewall = \"2m\"\nsystem = \"2m\"\n").unwrap();
        std::fs::create_dir(folder.path().join("agent.toml.d")).unwrap();
        std::fs::write(folder.path().join("agent.toml.d/10-a.toml"), "[intervals]\nfirewall = \"3m\"\n").unwrap();
        std::fs::write(folder.path().join("agent.toml.d/20-b.toml"), "[intervals]\nfirewall = \"4m\"\n").unwrap();
        std::fs::write(folder.path().join("agent.toml.d/note.txt"), "not a setting").unwrap();
        let variables =
            [("MUSTER_INTERVALS_SYSTEM", "90s"), ("MUSTER_JITTER", "0"), ("MUSTER_TOKEN", "x"), ("HOME", "/")];
        let loaded = load(Some(&file), environment(&variables)).unwrap();
        let config = loaded.config;
        assert_eq!(config.jitter, 0.0);
        assert_eq!(config.intervals.by_probe()[0], (Probe::System, Duration::from_secs(90)));
        assert_eq!(config.intervals.by_probe()[3], (Probe::Firewall, Duration::from_secs(240)));
        assert_eq!(config.attestation_interval.duration(), Duration::from_secs(3_600));
        assert_eq!(loaded.files.len(), 3);
        assert_eq!(loaded.variables, ["MUSTER_INTERVALS_SYSTEM", "MUSTER_JITTER"]);
    }

    #[test]
    fn a_mistake_is_named_with_its_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        for (text, line, part) in [
            ("jitter = 0.1\nspool_byte = 1\n", 2, "unknown field `spool_byte`"),
            ("\n\n[intervals]\nfirewall = \"5\"\n", 4, "such as \"90s\""),
            ("[intervals]\nfirewall = \"1s\"\n", 2, "from 10s to 1d"),
            ("jitter = \n", 1, ""),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = load(Some(&file), environment(&[])).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}:{line}: ", file.display())), "{text:?}: {error}");
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error_and_a_missing_default_is_not() {
        assert!(matches!(load(Some(Path::new("/nonexistent/agent.toml")), environment(&[])), Err(Error::Read { .. })));
    }

    #[test]
    fn impossible_values_are_refused_from_every_source() {
        for (name, value) in [
            ("MUSTER_SPOOL_BYTES", "5"),
            ("MUSTER_SPOOL_BYTES", "many"),
            ("MUSTER_JITTER", "0.9"),
            ("MUSTER_COLLECTOR", "c1:7443"),
            ("MUSTER_LOG_LEVEL", "info,x=loud"),
            ("MUSTER_LOG_FORMAT", "xml"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("agent.toml");
            std::fs::write(&file, "").unwrap();
            assert!(load(Some(&file), environment(&[(name, value)])).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn a_watched_path_that_covers_nothing_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        for (path, is_taken) in [("/etc", true), ("/etc/", true), ("etc", false), ("", false), ("/etc/../x", false)] {
            std::fs::write(&file, format!("[probes]\nwatched_paths = [\"/boot\", \"{path}\"]\n")).unwrap();
            match load(Some(&file), environment(&[])) {
                Ok(_) => assert!(is_taken, "{path}"),
                Err(error) => {
                    assert!(!is_taken && error.to_string().contains(&format!("watched_paths has {path:?}")), "{error}");
                }
            }
        }
    }

    #[test]
    fn watch_sets_are_taken_or_refused_by_name_and_stand_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        let set = |lines: &str| format!("[[probes.watch_sets]]\nname = \"web\"\npaths = [\"/srv/www\"]\n{lines}\n");
        let text = set("exclude = [\"srv/www/*/cache\"]\nattributes = [\"type\", \"mode\"]\nseverity = \"critical\"");
        std::fs::write(&file, text).unwrap();
        let sets = load(Some(&file), environment(&[])).unwrap().config.probes.watch_sets;
        assert_eq!(sets.len(), 1);
        assert!(!sets[0].attributes.has(crate::fim::watch_set::Attributes::CONTENT));
        for (text, part) in [
            (set("exclude = [\"/srv\"]"), "probes.watch_sets: watch set \"web\": its pattern \"/srv\""),
            (set("exclude = [\"srv\"]"), "probes.watch_sets: watch set \"web\": its own patterns leave nothing"),
            (set("") + &set(""), "two watch sets are named \"web\""),
            (set("attributes = [\"color\"]"), "no attribute is named \"color\""),
            (set("severity = \"bad\""), "unknown variant `bad`"),
            (set("colour = 1"), "unknown field `colour`"),
            (format!("[probes]\nwatched_paths = [\"/etc\"]\n{}", set("")), "are both set"),
        ] {
            std::fs::write(&file, &text).unwrap();
            let error = load(Some(&file), environment(&[])).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn an_interval_is_written_as_it_is_read() {
        for text in ["10s", "90s", "5m", "1h", "24h"] {
            assert_eq!(text.parse::<Interval>().unwrap().to_string(), text);
        }
        assert_eq!("1d".parse::<Interval>().unwrap().to_string(), "24h");
        for bad in ["", "5", "9s", "2d", "-5m", "25h", "soon"] {
            assert!(bad.parse::<Interval>().is_err(), "{bad}");
        }
    }
}
