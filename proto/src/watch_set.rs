//! Watch sets: named sets of paths that are watched alike, as an operator writes them for an agent or for a fleet.
//!
//! What a set may be, and the digest by which facts name it, are rules that both ends and an auditor share.

mod attributes;
mod pattern;

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::{fact::Severity, id::Digest, limits, v1};

pub use attributes::Attributes;
pub use pattern::class_ranges;

/// Paths that are watched alike, as an operator writes them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WatchSet {
    /// Name: 1 to 64 of a-z, 0-9, `-` and `_`.
    pub name: String,
    /// Absolute paths, each with everything below it.
    pub paths: Vec<PathBuf>,
    /// Patterns of what is covered, relative to the root, such as `etc/**/*.conf`. Default: everything.
    #[serde(default)]
    pub include: Vec<String>,
    /// Patterns of what is left out, with everything below it. They come before `include`. Default: nothing.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// How many folders deep below a path. Default: 0, without limit.
    #[serde(default)]
    pub depth: u32,
    /// Attributes that are compared. Default: all but `changed_time`, `inode`, `links` and `folders`.
    #[serde(default)]
    pub attributes: Attributes,
    /// How much a difference matters. Default: `medium`.
    #[serde(default = "medium")]
    pub severity: Severity,
    /// Who answers for it, for a person. Default: nobody.
    #[serde(default)]
    pub owner: String,
    /// Whether mount points below the paths are crossed. Default: `false`.
    #[serde(default)]
    pub cross_mounts: bool,
}

fn medium() -> Severity {
    Severity::Medium
}

/// Watch sets cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// A set is not as it must be.
    #[error("watch set {set:?}: {problem}")]
    Set {
        /// Its name.
        set: String,
        /// What is wrong.
        problem: Problem,
    },
    /// Two sets have one name.
    #[error("two watch sets are named {0:?}: give each a name of its own")]
    Twice(String),
    /// There are too many.
    #[error("there are {0} watch sets, expected at most {max}: put paths that are watched alike into one", max = limits::WATCH_SETS)]
    TooMany(usize),
    /// They are too long together.
    #[error(
        "the watch sets take {0} bytes, expected at most {max}: name folders in place of files, or use patterns",
        max = limits::WATCH_SETS_BYTES
    )]
    TooLong(usize),
}

/// What is wrong with a watch set, and what to do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// Its name is none.
    #[error("its name is not 1 to 64 of a-z, 0-9, \"-\" and \"_\"")]
    Name,
    /// It has no path, or too many.
    #[error("it has {0} paths, expected 1 to {max}", max = limits::WATCH_SET_ITEMS)]
    Paths(usize),
    /// A path is none that can be watched.
    #[error("its path {0:?} is not an absolute path without \"..\" of at most {max} bytes", max = limits::WATCHED_PATH_BYTES)]
    Path(PathBuf),
    /// It has too many patterns.
    #[error("it has {0} patterns in one list, expected at most {max}", max = limits::WATCH_SET_ITEMS)]
    Patterns(usize),
    /// A pattern is none.
    #[error("its pattern {pattern:?} cannot be used: {what}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong, and what to write.
        what: &'static str,
    },
    /// An attribute is none.
    #[error("{0}")]
    Attributes(String),
    /// Its severity is none.
    #[error("its severity is {0:?}, expected low, medium, high or critical")]
    Severity(String),
    /// Its owner is too long.
    #[error("its owner has {0} bytes, expected at most {max}", max = limits::WATCH_OWNER_BYTES)]
    Owner(usize),
}

/// Checks the watch sets of one host: each by itself, and all together.
///
/// # Errors
///
/// Names the set that is wrong, and says what to do.
pub fn check(sets: &[WatchSet]) -> Result<(), Error> {
    if sets.len() > limits::WATCH_SETS {
        return Err(Error::TooMany(sets.len()));
    }
    let mut names = BTreeSet::new();
    for set in sets {
        set.check().map_err(|problem| Error::Set { set: set.name.clone(), problem })?;
        if !names.insert(&set.name) {
            return Err(Error::Twice(set.name.clone()));
        }
    }
    let bytes = sets.iter().map(|set| set.to_wire().encoded_len()).sum();
    if bytes > limits::WATCH_SETS_BYTES { Err(Error::TooLong(bytes)) } else { Ok(()) }
}

/// Returns the watch sets of a profile.
///
/// # Errors
///
/// As [`check`].
pub fn from_wire(definitions: &[v1::WatchSetDefinition]) -> Result<Vec<WatchSet>, Error> {
    if definitions.len() > limits::WATCH_SETS {
        return Err(Error::TooMany(definitions.len()));
    }
    let set = |wire: &v1::WatchSetDefinition| {
        WatchSet::from_wire(wire).map_err(|problem| Error::Set { set: wire.name.clone(), problem })
    };
    let sets = definitions.iter().map(set).collect::<Result<Vec<_>, _>>()?;
    check(&sets)?;
    Ok(sets)
}

impl WatchSet {
    /// Returns a set of `paths` with everything below them, and every default.
    pub fn of_paths(name: &str, paths: Vec<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            paths,
            include: Vec::new(),
            exclude: Vec::new(),
            depth: 0,
            attributes: Attributes::default(),
            severity: medium(),
            owner: String::new(),
            cross_mounts: false,
        }
    }

    /// Returns its paths without `.` and without a slash more than they need, sorted by bytes, each once.
    pub fn plain_paths(&self) -> BTreeSet<Vec<u8>> {
        self.paths.iter().map(|path| plain(path)).collect()
    }

    /// Returns the digest of the definition, as `WatchSetDefinition` of the contract says. Order and repetition in its lists, and how
    /// defaults are written, make no difference.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        let text = |bytes: &mut Vec<u8>, text: &[u8]| {
            bytes.extend(length(text.len()));
            bytes.extend(text);
        };
        let list = |bytes: &mut Vec<u8>, items: BTreeSet<Vec<u8>>| {
            bytes.extend(length(items.len()));
            items.iter().for_each(|item| text(bytes, item));
        };
        let texts = |texts: &[String]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<BTreeSet<_>>();
        text(&mut bytes, self.name.as_bytes());
        list(&mut bytes, self.plain_paths());
        list(&mut bytes, texts(&self.include));
        list(&mut bytes, texts(&self.exclude));
        bytes.extend(self.depth.to_be_bytes());
        list(&mut bytes, texts(&Vec::from(self.attributes)));
        text(&mut bytes, self.severity.as_str().as_bytes());
        text(&mut bytes, self.owner.as_bytes());
        bytes.push(self.cross_mounts.into());
        Digest::of("muster/watch-set/v1", &[&bytes])
    }

    /// Returns the definition for the wire. A path that is not UTF-8, which only a command line can name, is written lossily.
    pub fn to_wire(&self) -> v1::WatchSetDefinition {
        v1::WatchSetDefinition {
            name: self.name.clone(),
            paths: self.paths.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            depth: self.depth,
            attributes: self.attributes.into(),
            severity: self.severity.as_str().to_owned(),
            owner: self.owner.clone(),
            cross_mounts: self.cross_mounts,
        }
    }

    fn from_wire(wire: &v1::WatchSetDefinition) -> Result<Self, Problem> {
        let severity = match wire.severity.as_str() {
            "" => medium(),
            text => Severity::parse(text).ok_or_else(|| Problem::Severity(text.to_owned()))?,
        };
        Ok(Self {
            name: wire.name.clone(),
            paths: wire.paths.iter().map(PathBuf::from).collect(),
            include: wire.include.clone(),
            exclude: wire.exclude.clone(),
            depth: wire.depth,
            attributes: wire.attributes.clone().try_into().map_err(Problem::Attributes)?,
            severity,
            owner: wire.owner.clone(),
            cross_mounts: wire.cross_mounts,
        })
    }

    fn check(&self) -> Result<(), Problem> {
        let is_of_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(is_of_name) {
            return Err(Problem::Name);
        }
        if !(1..=limits::WATCH_SET_ITEMS).contains(&self.paths.len()) {
            return Err(Problem::Paths(self.paths.len()));
        }
        if let Some(path) = self.paths.iter().find(|path| !is_watchable(path)) {
            return Err(Problem::Path(path.clone()));
        }
        for patterns in [&self.include, &self.exclude] {
            if patterns.len() > limits::WATCH_SET_ITEMS {
                return Err(Problem::Patterns(patterns.len()));
            }
            for pattern in patterns {
                let wrong = |what| Problem::Pattern { pattern: pattern.clone(), what };
                pattern::check(pattern).map_err(wrong)?;
            }
        }
        if self.owner.len() > limits::WATCH_OWNER_BYTES {
            return Err(Problem::Owner(self.owner.len()));
        }
        Ok(())
    }
}

/// Returns whether `path` is absolute, goes nowhere up, and has a length that a path may have.
pub fn is_watchable(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.starts_with(b"/")
        && !bytes.contains(&0)
        && bytes.len() <= limits::WATCHED_PATH_BYTES
        && !path.components().any(|part| part == Component::ParentDir)
}

fn plain(path: &Path) -> Vec<u8> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(part) => Some(part.as_encoded_bytes()),
        _ => None,
    });
    let mut plain = Vec::new();
    for part in parts {
        plain.push(b'/');
        plain.extend(part);
    }
    if plain.is_empty() { vec![b'/'] } else { plain }
}

/// Returns a count or length as the digest takes it. Checked sets have none that needs more than four bytes.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests;
