//! What a scan is to say, by comparing whole trees held in memory.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::fact::{ChangeKind, PathText};

use super::{
    super::{Outcome, is_at_or_below},
    tree::{Node, Tree},
};
use crate::host::EntryKind;

/// What is known of a path.
#[derive(Clone, Debug, Default)]
struct Status {
    difference: Option<(ChangeKind, Option<Node>)>,
    is_unreadable: bool,
    is_not_compared: bool,
    is_new: bool,
    is_gone: bool,
}

type Watched = (String, String, Option<(u8, u8, u32, i64)>);

/// The comparison.
pub struct Model {
    roots: Vec<Vec<u8>>,
    /// Entries of the baseline; of those that could not be read the content is unknown.
    baseline: BTreeMap<Vec<u8>, Node>,
    known: BTreeMap<Vec<u8>, Status>,
    /// Digests of watched states, and states of digests.
    digests: BTreeMap<(String, Vec<Watched>), [u8; 32]>,
    states: BTreeMap<[u8; 32], (String, Vec<Watched>)>,
}

impl Model {
    pub fn new(roots: &[&str]) -> Self {
        let roots = roots.iter().map(|root| root.as_bytes().to_vec()).collect();
        let (digests, states) = (BTreeMap::new(), BTreeMap::new());
        Self { roots, baseline: BTreeMap::new(), known: BTreeMap::new(), digests, states }
    }

    fn is_below_root(&self, path: &[u8]) -> bool {
        self.roots.iter().any(|root| is_at_or_below(path, root))
    }

    /// Returns whether a folder that lies above `path`, and is watched, cannot be read.
    fn is_blind(&self, tree: &Tree, path: &[u8]) -> bool {
        tree.nodes.iter().any(|(above, node)| {
            let is_above = above != path && is_at_or_below(path, above) && self.is_below_root(above);
            is_above && node.kind == EntryKind::Folder && node.is_unreadable
        })
    }

    fn is_link_root(&self, path: &[u8], node: &Node) -> bool {
        node.kind == EntryKind::Link && self.roots.iter().any(|root| root == path)
    }

    pub fn baseline(&mut self, tree: &Tree) {
        let shown = |path: &Vec<u8>| self.is_below_root(path) && !self.is_blind(tree, path);
        let state =
            |node: &Node| Node { content: if node.is_unreadable { UNKNOWN } else { node.content }, ..node.clone() };
        self.baseline =
            tree.nodes.iter().filter(|(path, _)| shown(path)).map(|(path, node)| (path.clone(), state(node))).collect();
        self.known.clear();
        for (path, node) in &tree.nodes {
            let is_unreadable = node.is_unreadable || self.is_link_root(path, node);
            if is_unreadable && self.baseline.contains_key(path) {
                self.known.insert(path.clone(), Status { is_unreadable, ..Status::default() });
            }
        }
    }

    pub fn look(&mut self, tree: &Tree, scope: Option<&[&str]>) {
        let parts = scope.unwrap_or_default();
        for part in parts.iter().map(|part| part.as_bytes()) {
            let is_outer =
                !parts.iter().any(|other| other.as_bytes() != part && is_at_or_below(part, other.as_bytes()));
            if is_outer && self.is_below_root(part) && self.is_blind(tree, part) {
                self.known.entry(part.to_vec()).or_default().is_unreadable = true;
            }
        }
        let mut paths: BTreeSet<Vec<u8>> = tree.nodes.keys().cloned().collect();
        paths.extend(self.baseline.keys().chain(self.known.keys()).cloned());
        for path in paths {
            let is_in_scope = scope.is_none_or(|scope| scope.iter().any(|part| is_at_or_below(&path, part.as_bytes())));
            if !is_in_scope || !self.is_below_root(&path) || self.is_blind(tree, &path) {
                continue;
            }
            let before = self.known.remove(&path);
            if let Some(status) = self.status(tree, &path, before) {
                self.known.insert(path, status);
            }
        }
    }

    fn status(&self, tree: &Tree, path: &[u8], before: Option<Status>) -> Option<Status> {
        let own = self.baseline.get(path);
        let Some(node) = tree.nodes.get(path) else {
            let difference = (!own?.is_unreadable).then_some((ChangeKind::Deleted, None));
            let is_not_compared = difference.is_none();
            return Some(Status { difference, is_not_compared, is_gone: true, ..Status::default() });
        };
        let is_hidden = self.baseline.iter().any(|(above, state)| state.is_unreadable && is_at_or_below(path, above));
        if node.is_unreadable && !node.is_found_closed() {
            let plain = Status { is_new: own.is_none(), ..Status::default() };
            let kept = before.unwrap_or(plain);
            let is_compared = !is_hidden || own.is_some();
            let known = kept.difference.as_ref().and_then(|(_, after)| after.as_ref());
            let difference = seen(own, known, node).filter(|_| is_compared);
            return Some(match difference {
                Some(_) => Status { difference, is_unreadable: true, is_new: own.is_none(), ..Status::default() },
                None => Status { is_unreadable: true, ..kept },
            });
        }
        let difference = match own {
            Some(before) => kind(before, node).map(|kind| (kind, Some(node.clone()))),
            None if is_hidden => None,
            None => Some((ChangeKind::Created, Some(node.clone()))),
        };
        let is_not_compared = is_hidden && own.is_none_or(|own| own.is_unreadable && difference.is_none());
        let is_unreadable = node.is_unreadable || self.is_link_root(path, node);
        Some(Status { difference, is_unreadable, is_not_compared, is_new: own.is_none(), is_gone: false })
    }

    /// Asserts that a scan said the same.
    pub fn compare(&mut self, outcome: &Outcome) {
        let known = || self.known.iter();
        let in_part = |path: &[u8]| is_at_or_below(path, b"/r/a");
        let differences = known().filter_map(|(path, status)| Some((path, status.difference.as_ref()?)));
        let mut watched: Vec<Watched> = differences
            .map(|(path, (kind, after))| of(*kind, PathText::from_bytes(path).as_str(), after.as_ref()))
            .collect();
        watched.sort_by(|a, b| a.1.cmp(&b.1));
        let found: Vec<_> = outcome.changes.iter().map(|change| (change.kind.as_str(), change.path.as_str())).collect();
        let expected: Vec<_> = watched.iter().map(|(kind, path, _)| (kind.as_str(), path.as_str())).collect();
        assert_eq!(found, expected);
        assert_eq!(outcome.changes_total, expected.len() as u64);
        for (change, (_, path, state)) in outcome.changes.iter().zip(&watched) {
            let mode = change.after.as_ref().map(|after| after.mode);
            assert_eq!(mode, state.map(|(_, _, mode, _)| mode), "{path}");
        }
        let entries = |is_counted: &dyn Fn(&[u8]) -> bool| {
            let before = self.baseline.keys().filter(|path| is_counted(path)).count();
            let new = known().filter(|(path, status)| is_counted(path) && status.is_new).count();
            (before + new - known().filter(|(path, status)| is_counted(path) && status.is_gone).count()) as u64
        };
        assert_eq!(outcome.entries, entries(&|_| true));
        let unreadable: Vec<_> = known()
            .filter(|(_, status)| status.is_unreadable || status.is_not_compared)
            .map(|(path, _)| PathText::from_bytes(path))
            .collect();
        let found: Vec<_> = outcome.unreadable.iter().map(|unreadable| unreadable.path.clone()).collect();
        assert_eq!(found, unreadable);
        let part = outcome.sets.iter().find(|set| set.name.as_str() == "part").unwrap();
        let part_changes = watched.iter().filter(|(_, path, _)| in_part(path.as_bytes())).count() as u64;
        assert_eq!((part.entries, part.changes_total), (entries(&in_part), part_changes));
        let state = (outcome.baseline.id.to_string(), watched);
        let digest = *self.digests.entry(state.clone()).or_insert(outcome.state_digest);
        assert_eq!(digest, outcome.state_digest, "the same state has another digest");
        let other = self.states.entry(digest).or_insert_with(|| state.clone());
        assert_eq!(*other, state, "another state has the same digest");
    }
}

/// Content of which nothing is known.
const UNKNOWN: u8 = u8::MAX;

/// Returns the difference that is seen of a `node` that cannot be read, beyond what was `known`.
fn seen(before: Option<&Node>, known: Option<&Node>, node: &Node) -> Option<(ChangeKind, Option<Node>)> {
    let is_same_content = |known: &&Node| (known.kind, known.modified) == (node.kind, node.modified);
    let content = known.filter(is_same_content).map_or(UNKNOWN, |known| known.content);
    let node = Node { content, ..node.clone() };
    let kind = before.map_or(Some(ChangeKind::Created), |before| kind(before, &node))?;
    known.is_none_or(|known| self::kind(known, &node).is_some()).then_some((kind, Some(node)))
}

fn kind(before: &Node, after: &Node) -> Option<ChangeKind> {
    let is_file = after.kind == EntryKind::File;
    let is_known = before.content != UNKNOWN && after.content != UNKNOWN;
    if before.kind != after.kind {
        Some(ChangeKind::Type)
    } else if is_known && before.sha256() != after.sha256() {
        Some(ChangeKind::Content)
    } else if before.mode != after.mode || is_file && before.modified != after.modified {
        Some(ChangeKind::Metadata)
    } else {
        None
    }
}

/// Returns what is watched of a difference.
fn of(kind: ChangeKind, path: &str, after: Option<&Node>) -> Watched {
    let state = after.map(|node| {
        let (kind, modified) = match node.kind {
            EntryKind::File => (0, node.modified),
            EntryKind::Folder => (1, 0),
            EntryKind::Link => (2, 0),
            _ => (3, 0),
        };
        (kind, node.sha256().map_or(0, |_| node.content), node.mode, modified)
    });
    (kind.as_str().to_owned(), path.to_owned(), state)
}
