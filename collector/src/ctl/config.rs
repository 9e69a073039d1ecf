//! Where `musterctl` finds the collector and the credential: flags, then the environment, then the user's file, then the machine's.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Error, print::Form};

/// The machine's configuration.
pub const SYSTEM_FILE: &str = "/etc/muster/musterctl.toml";
/// Where the collector keeps its admin's credential.
pub const ADMIN_CREDENTIAL: &str = "/var/lib/muster-collector/admin.pem";
/// The collector of this machine.
pub const DEFAULT_COLLECTOR: &str = "https://127.0.0.1:7443";

/// A configuration file. Each key may be absent.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the collector: `https://HOST:PORT`.
    pub collector: Option<String>,
    /// File of the credential (PEM).
    pub credential: Option<PathBuf>,
    /// Form of the output.
    pub output: Option<Form>,
}

impl Config {
    /// Returns the configuration of the user's file and, for what that does not say, of the machine's.
    ///
    /// # Errors
    ///
    /// When a file is there and cannot be read or does not follow its format.
    pub fn load() -> Result<Self, Error> {
        let user = match user_file() {
            Some(path) => Self::read(&path)?,
            None => Self::default(),
        };
        Ok(user.or(Self::read(Path::new(SYSTEM_FILE))?))
    }

    fn or(self, other: Self) -> Self {
        Self {
            collector: self.collector.or(other.collector),
            credential: self.credential.or(other.credential),
            output: self.output.or(other.output),
        }
    }

    fn read(path: &Path) -> Result<Self, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                Self::parse(&text).map_err(|(line, reason)| Error::Config { path: path.to_owned(), line, reason })
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(Self::default())
            }
            Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        }
    }

    /// Returns what `text` says, or the line, from 1, of what it must not say, and why.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            (text[..start].matches('\n').count() + 1, error.message().replace('\n', " "))
        })
    }
}

/// Returns the credential to use when none is named: the user's, else the admin's of a collector on this machine.
///
/// # Errors
///
/// When there is none.
pub fn usual_credential() -> Result<PathBuf, Error> {
    let user = user_folder().map(|folder| folder.join("credential.pem"));
    let admin = PathBuf::from(ADMIN_CREDENTIAL);
    let places = user.into_iter().chain([admin.clone()]);
    places.into_iter().find(|path| path.exists()).ok_or(Error::NoCredential { place: admin })
}

fn user_file() -> Option<PathBuf> {
    user_folder().map(|folder| folder.join("musterctl.toml"))
}

fn user_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config"))).map(|folder| folder.join("muster"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_file_comes_before_the_machines() {
        let user = Config::parse("collector = \"https://a:1\"").unwrap();
        let machine = Config::parse("collector = \"https://b:1\"\noutput = \"json\"").unwrap();
        let both = user.or(machine);
        assert_eq!(both.collector.as_deref(), Some("https://a:1"));
        assert_eq!(both.output, Some(Form::Json));
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused() {
        let (line, reason) = Config::parse("output = \"text\"\n\ncolector = \"https://a:1\"").unwrap_err();
        assert_eq!(line, 3);
        assert!(reason.contains("`colector`") && reason.contains("`collector`"), "{reason}");
        let error = Error::Config { path: "/etc/muster/musterctl.toml".into(), line, reason };
        assert!(error.to_string().starts_with("/etc/muster/musterctl.toml:3: "), "{error}");
        assert!(matches!(error, Error::Config { .. }) && !error.to_string().contains('\n'), "{error}");
    }

    #[test]
    fn the_form_has_one_word_and_an_older_one_is_understood() {
        for word in ["text", "table"] {
            assert_eq!(Config::parse(&format!("output = \"{word}\"")).unwrap().output, Some(Form::Text));
        }
    }
}
