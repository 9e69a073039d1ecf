//! Watch sets, compiled: whether an entry is covered, by which sets, and what of it is compared.
//!
//! Pure: paths come in, rules go out. It is asked for every entry of every scan, so that it allocates nothing, and a set without
//! patterns costs no more than finding the watched path above the entry.

mod default;
mod find;
mod pattern;
mod show;

use std::collections::BTreeMap;

use muster_proto::id::Digest;

use self::{
    find::{Node, Nodes},
    pattern::Patterns,
};
use super::{
    place::is_at_or_below,
    watch_set::{self, Attributes, WatchSet},
};
use crate::host::EntryKind;

pub use default::{PATHS, defaults, in_force};
pub use show::render;

/// Watch sets cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are not as they must be.
    #[error(transparent)]
    Set(#[from] watch_set::Error),
    /// The patterns of a set are too many and too long.
    #[error("watch set {set:?}: its patterns take too much memory: use fewer")]
    Patterns {
        /// Its name.
        set: String,
        /// Why.
        source: Box<regex_automata::meta::BuildError>,
    },
    /// A path of a set covers nothing.
    #[error("watch set {set:?}: its own patterns leave nothing of its path {path:?}: correct them, or remove the path")]
    Nothing {
        /// Its name.
        set: String,
        /// The path.
        path: String,
    },
}

/// What is to be done with an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// It is not covered, and nothing below it is.
    Outside,
    /// It is not covered itself, but something below it may be.
    Pass,
    /// It is covered.
    Covered {
        /// The most severe set that covers it; of those, the first by name. An index of [`Sets::sets`].
        set: usize,
        /// What the sets that cover it compare.
        attributes: Attributes,
        /// All sets that cover it.
        members: Members,
    },
}

/// Some of the sets of [`Sets`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Members(u128);

// One bit for each set.
const _: () = assert!(muster_proto::limits::WATCH_SETS <= 128);

impl Members {
    /// Returns the indexes of the sets, the most severe first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let first = Self(left).first()?;
            left &= left - 1;
            Some(first)
        })
    }

    /// Returns the index of the most severe of them.
    pub fn first(self) -> Option<usize> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as usize)
    }

    fn add(&mut self, set: usize) {
        self.0 |= 1 << set;
    }

    fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A place where a scan begins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Root {
    /// Its path, without a slash at its end.
    pub path: Vec<u8>,
    /// Whether mount points below it are crossed: some set that has a path at or below it wants it. [`Sets::crosses`] says which.
    pub cross_mounts: bool,
    /// Watched paths below it, in order: each is reached by the scan of this root, unless it is a mount point that is not crossed.
    pub below: Vec<Vec<u8>>,
    /// Sets that have a path at or below it.
    pub members: Members,
}

/// Watch sets, compiled.
#[derive(Debug)]
pub struct Sets {
    /// The most severe first, then by name.
    sets: Vec<WatchSet>,
    digests: Vec<Digest>,
    roots: Vec<Root>,
    nodes: Nodes,
    /// Of each set that has any.
    filters: Vec<Option<Filter>>,
}

/// The patterns of a set.
#[derive(Debug)]
struct Filter {
    /// Excluded paths that are no patterns.
    excluded_paths: Nodes,
    exclude: Option<Patterns>,
    include: Option<Include>,
}

#[derive(Debug)]
struct Include {
    exact: Patterns,
    leading: Patterns,
    named: Patterns,
}

/// How one set covers an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cover {
    Outside,
    Pass,
    Covered,
}

impl Sets {
    /// Compiles `sets`, which are those of one host.
    ///
    /// # Errors
    ///
    /// Names the set that cannot be used and says what to do.
    pub fn new(sets: &[WatchSet]) -> Result<Self, Error> {
        watch_set::check(sets)?;
        let mut sets = sets.to_vec();
        sets.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.name.cmp(&b.name)));
        let filters = sets.iter().map(Filter::new).collect::<Result<Vec<_>, _>>()?;
        let nodes = Nodes::new(nodes(&sets));
        let digests = sets.iter().map(WatchSet::digest).collect();
        let roots = roots(&sets, &nodes);
        let compiled = Self { sets, digests, roots, nodes, filters };
        compiled.check_paths()?;
        Ok(compiled)
    }

    /// Returns the sets, the most severe first, then by name: the order of all indexes.
    pub fn sets(&self) -> &[WatchSet] {
        &self.sets
    }

    /// Returns the digest of each set's definition, in the order of [`Self::sets`].
    pub fn definitions(&self) -> &[Digest] {
        &self.digests
    }

    /// Returns where scans begin, in the order of scans. None lies below another.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// Returns what is to be done with the entry at `path`, which is absolute and has no slash more than it needs. The answer does not
    /// depend on what was asked before: a scan may begin anywhere.
    ///
    /// A link in the place of a folder that would be passed is covered by the sets that pass it: it leads programs to what no scan sees.
    /// Such a folder is one above a watched path, or that a pattern names; what may be at any depth below `**` is not.
    pub fn rule(&self, path: &[u8], kind: EntryKind) -> Rule {
        let place = self.nodes.place(path);
        let is_above_node = place.is_above;
        let Some(node) = place.node else {
            return if is_above_node && kind == EntryKind::Folder { Rule::Pass } else { Rule::Outside };
        };
        let mut members = node.whole;
        let mut attributes = node.attributes;
        let mut is_passed = is_above_node;
        let is_link = kind == EntryKind::Link;
        for (set, deepest) in &node.filtered {
            match self.cover(*set, *deepest, path) {
                Cover::Outside => {}
                Cover::Pass if is_link && self.is_named(*set, path) => {
                    members.add(*set);
                    attributes = attributes.with(self.sets[*set].attributes);
                }
                Cover::Pass => is_passed = true,
                Cover::Covered => {
                    members.add(*set);
                    attributes = attributes.with(self.sets[*set].attributes);
                }
            }
        }
        if is_link && is_above_node {
            for set in self.sets_below(path).iter() {
                members.add(set);
                attributes = attributes.with(self.sets[set].attributes);
            }
        }
        match (members.first(), is_passed && kind == EntryKind::Folder) {
            (Some(set), _) => Rule::Covered { set, attributes, members },
            (None, true) => Rule::Pass,
            (None, false) => Rule::Outside,
        }
    }

    /// Returns the sets that have a path below `path`.
    fn sets_below(&self, path: &[u8]) -> Members {
        let mut below = Members::default();
        for node in self.nodes.below(path) {
            let filtered = node.filtered.iter().map(|(set, _)| *set);
            let has_it = |set: &usize| self.sets[*set].plain_paths().contains(&node.path);
            node.whole.iter().chain(filtered).filter(has_it).for_each(|set| below.add(set));
        }
        below
    }

    /// Returns whether a pattern of the set of that index names the folder at `path` on the way to what it covers.
    fn is_named(&self, set: usize, path: &[u8]) -> bool {
        let include = self.filters[set].as_ref().and_then(|filter| filter.include.as_ref());
        include.is_some_and(|include| include.named.is_match(below_root(path)))
    }

    /// Returns whether everything at and below `path` is compared, content included: sets cover it without patterns and without a depth.
    pub fn is_whole(&self, path: &[u8]) -> bool {
        let place = self.nodes.place(path);
        place.node.is_some_and(|node| node.whole.first().is_some() && node.attributes.has(Attributes::CONTENT))
    }

    /// Returns whether a mount point at `path` is crossed: it is watched itself, or some set that wants it has a path above it.
    pub fn crosses(&self, path: &[u8]) -> bool {
        let Some(node) = self.nodes.place(path).node else { return false };
        let filtered = node.filtered.iter().map(|(set, _)| *set);
        node.path == path || node.whole.iter().chain(filtered).any(|set| self.sets[set].cross_mounts)
    }

    /// Returns how the set of that index covers the entry at `path`, which one of its paths is at or above.
    fn cover(&self, set: usize, deepest: usize, path: &[u8]) -> Cover {
        let depth = depth(path);
        let covered = match &self.filters[set] {
            _ if depth > deepest => Cover::Outside,
            None => Cover::Covered,
            Some(filter) => filter.cover(path),
        };
        if covered == Cover::Pass && depth == deepest { Cover::Outside } else { covered }
    }

    /// Checks that each path of each set leads to something that the set itself covers.
    fn check_paths(&self) -> Result<(), Error> {
        for (at, set) in self.sets.iter().enumerate() {
            for path in set.plain_paths() {
                if self.cover(at, usize::MAX, &path) == Cover::Outside {
                    let path = String::from_utf8_lossy(&path).into_owned();
                    return Err(Error::Nothing { set: set.name.clone(), path });
                }
            }
        }
        Ok(())
    }
}

impl Filter {
    fn new(set: &WatchSet) -> Result<Option<Self>, Error> {
        if set.include.is_empty() && set.exclude.is_empty() {
            return Ok(None);
        }
        let (patterns, paths): (Vec<_>, Vec<_>) = set.exclude.iter().partition(|text| text.contains(['*', '?', '[']));
        let too_much = |source| Error::Patterns { set: set.name.clone(), source };
        let include = || {
            let exact = Patterns::exact(&set.include)?;
            Ok(Include { exact, leading: Patterns::leading(&set.include)?, named: Patterns::named(&set.include)? })
        };
        Ok(Some(Self {
            excluded_paths: Nodes::new(paths.into_iter().map(|path| Node::new(format!("/{path}").into_bytes()))),
            exclude: (!patterns.is_empty()).then(|| Patterns::with_content(&patterns)).transpose().map_err(too_much)?,
            include: (!set.include.is_empty()).then(include).transpose().map_err(too_much)?,
        }))
    }

    fn cover(&self, path: &[u8]) -> Cover {
        let below_root = below_root(path);
        if self.excluded_paths.place(path).node.is_some()
            || self.exclude.as_ref().is_some_and(|patterns| patterns.is_match(below_root))
        {
            return Cover::Outside;
        }
        match &self.include {
            None => Cover::Covered,
            Some(include) if include.exact.is_match(below_root) => Cover::Covered,
            Some(include) if include.leading.is_match(below_root) => Cover::Pass,
            Some(_) => Cover::Outside,
        }
    }
}

/// Returns `path` as patterns write it.
fn below_root(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

/// Returns how many names `path` has.
fn depth(path: &[u8]) -> usize {
    if path == b"/" { 0 } else { path.iter().filter(|byte| **byte == b'/').count() }
}

/// Returns one node for each watched path, with the sets that have it.
fn nodes(sets: &[WatchSet]) -> impl Iterator<Item = Node> {
    let mut nodes: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
    for (at, set) in sets.iter().enumerate() {
        for path in set.plain_paths() {
            let node = nodes.entry(path).or_insert_with_key(|path| Node::new(path.clone()));
            if set.depth == 0 && set.include.is_empty() && set.exclude.is_empty() {
                node.whole.add(at);
                node.attributes = node.attributes.with(set.attributes);
            } else {
                let deepest = match set.depth {
                    0 => usize::MAX,
                    limit => depth(&node.path).saturating_add(limit as usize),
                };
                node.filtered.push((at, deepest));
            }
        }
    }
    nodes.into_values()
}

fn roots(sets: &[WatchSet], nodes: &Nodes) -> Vec<Root> {
    let mut roots: Vec<Root> = Vec::new();
    for node in nodes.iter() {
        let filtered = node.filtered.iter().map(|(set, _)| *set);
        let mut members = node.whole;
        filtered.for_each(|set| members.add(set));
        match roots.last_mut() {
            Some(root) if is_at_or_below(&node.path, &root.path) => {
                root.below.push(node.path.clone());
                root.members = root.members.with(members);
            }
            _ => roots.push(Root { path: node.path.clone(), cross_mounts: false, below: Vec::new(), members }),
        }
    }
    for root in &mut roots {
        root.cross_mounts = root.members.iter().any(|set| sets[set].cross_mounts);
    }
    roots
}

#[cfg(test)]
mod tests;
