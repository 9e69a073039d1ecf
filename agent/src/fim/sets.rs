//! Watch sets, compiled: which entries are covered, and what is compared of them.

use std::path::PathBuf;

use muster_proto::limits;
use sha2::{Digest as _, Sha256};

use super::{
    place::{is_at_or_below, order, plain},
    watch_set::{Attributes, WatchSet},
};
use crate::host::{self, EntryKind};

/// Sets cannot be watched.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// A path is not absolute.
    #[error("watch set {set}: path {path} is not absolute", path = path.display())]
    Relative {
        /// The set.
        set: String,
        /// The path.
        path: PathBuf,
    },
    /// A set has patterns or a depth.
    #[error("watch set {set}: patterns and depth are not taken by this build")]
    Patterns {
        /// The set.
        set: String,
    },
    /// There are too many.
    #[error("{count} watch sets are more than {}", limits::WATCH_SETS)]
    Count {
        /// How many.
        count: usize,
    },
}

/// A path below which a scan goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Root {
    /// The path.
    pub path: Vec<u8>,
    /// Whether mount points below it are crossed.
    pub cross_mounts: bool,
    /// Sets that have a path at or below it.
    pub members: Members,
}

/// Some of the sets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Members(u128);

impl Members {
    /// Returns the indexes of the sets.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..128).filter(move |set| self.0 & (1 << set) != 0)
    }

    /// Returns the first of them.
    pub fn first(self) -> Option<usize> {
        self.iter().next()
    }

    fn add(&mut self, set: usize) {
        self.0 |= 1 << set;
    }
}

/// What is done with an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// It is not covered, nor is anything below it.
    Outside,
    /// It is not covered itself, but something below it may be.
    Pass,
    /// It is covered.
    Covered {
        /// The most severe set that covers it.
        set: usize,
        /// What is compared.
        attributes: Attributes,
        /// All sets that cover it.
        members: Members,
    },
}

/// Watch sets, compiled.
#[derive(Clone, Debug)]
pub struct Sets {
    sets: Vec<WatchSet>,
    roots: Vec<Root>,
    /// Each path of each set.
    paths: Vec<(Vec<u8>, usize)>,
}

impl Sets {
    /// Returns the compiled `sets`.
    ///
    /// # Errors
    ///
    /// When a set cannot be watched.
    pub fn new(sets: &[WatchSet]) -> Result<Self, Error> {
        if sets.len() > limits::WATCH_SETS {
            return Err(Error::Count { count: sets.len() });
        }
        let mut paths = Vec::new();
        for (number, set) in sets.iter().enumerate() {
            if !set.include.is_empty() || !set.exclude.is_empty() || set.depth != 0 {
                return Err(Error::Patterns { set: set.name.clone() });
            }
            for path in &set.paths {
                let bytes = host::path_bytes(&plain(path));
                if !bytes.starts_with(b"/") {
                    return Err(Error::Relative { set: set.name.clone(), path: path.clone() });
                }
                paths.push((bytes, number));
            }
        }
        paths.sort_by(|(a, _), (b, _)| order(a, b));
        let mut roots: Vec<Root> = Vec::new();
        for (path, set) in &paths {
            let cross_mounts = sets[*set].cross_mounts;
            match roots.last_mut().filter(|root| is_at_or_below(path, &root.path)) {
                Some(root) => {
                    root.cross_mounts |= cross_mounts;
                    root.members.add(*set);
                }
                None => roots.push(Root { path: path.clone(), cross_mounts, members: Members(1 << set) }),
            }
        }
        Ok(Self { sets: sets.to_vec(), roots, paths })
    }

    /// Returns the sets as an operator wrote them.
    pub fn sets(&self) -> &[WatchSet] {
        &self.sets
    }

    /// Returns the paths below which a scan goes, in its order, without those that lie below another.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Returns what is done with the entry of `kind` at `path`.
    pub fn rule(&self, path: &[u8], kind: EntryKind) -> Rule {
        let _ = kind;
        let mut covered: Option<(usize, Attributes, Members)> = None;
        for (_, set) in self.paths.iter().filter(|(above, _)| is_at_or_below(path, above)) {
            let own = self.sets[*set].attributes;
            let (most, attributes, mut members) = covered.unwrap_or((*set, own, Members::default()));
            members.add(*set);
            let rank = |set: usize| (std::cmp::Reverse(self.sets[set].severity), &self.sets[set].name);
            covered = Some((if rank(*set) < rank(most) { *set } else { most }, attributes.with(own), members));
        }
        covered.map_or(Rule::Outside, |(set, attributes, members)| Rule::Covered { set, attributes, members })
    }

    /// Returns the digest of each set's definition, hex.
    pub fn definitions(&self) -> Vec<String> {
        let digest = |set: &WatchSet| hex::encode(Sha256::digest(serde_json::to_vec(set).unwrap_or_default()));
        self.sets.iter().map(digest).collect()
    }
}
