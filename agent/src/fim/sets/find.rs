//! Finds the path of a list that is at or above another path.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Attributes, Members};
use crate::fim::place::{is_at_or_below, order};

/// A watched path, and how sets cover what is at and below it, as far as no longer watched path says more.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The path.
    pub path: Vec<u8>,
    /// Sets that cover all of it.
    pub whole: Members,
    /// What those compare.
    pub attributes: Attributes,
    /// Sets that cover some of it, by patterns or as deep as this many names.
    pub filtered: Vec<(usize, usize)>,
    parent: Option<usize>,
    /// Index after the last node at or below it.
    end: usize,
}

impl Node {
    /// Returns a node that no set covers.
    pub(super) fn new(path: Vec<u8>) -> Self {
        let (whole, attributes, filtered) = (Members::default(), Attributes::NONE, Vec::new());
        Self { path, whole, attributes, filtered, parent: None, end: 0 }
    }

    /// Takes over how the node `above` is covered.
    fn inherit(&mut self, above: &Self) {
        self.whole = self.whole.with(above.whole);
        self.attributes = self.attributes.with(above.attributes);
        for (set, deepest) in &above.filtered {
            match self.filtered.iter_mut().find(|(own, _)| own == set) {
                Some((_, own)) => *own = (*own).max(*deepest),
                None => self.filtered.push((*set, *deepest)),
            }
        }
    }
}

/// Where a path is among nodes.
pub(super) struct Place<'a> {
    /// The longest that is at or above it.
    pub node: Option<&'a Node>,
    /// Whether nodes are below it.
    pub is_above: bool,
}

/// Nodes, in order.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// Where the last answer was: a scan asks for one entry after the other, mostly below one node.
    last: AtomicUsize,
}

impl Nodes {
    /// Returns nodes of unlike paths.
    pub(super) fn new(nodes: impl Iterator<Item = Node>) -> Self {
        let mut nodes: Vec<_> = nodes.collect();
        nodes.sort_by(|a, b| order(&a.path, &b.path));
        nodes.dedup_by(|a, b| a.path == b.path);
        for at in 0..nodes.len() {
            nodes[at].end = at + 1;
            let parent = above(&nodes, at.checked_sub(1), &nodes[at].path);
            if let Some(parent) = parent {
                let (before, rest) = nodes.split_at_mut(at);
                rest[0].inherit(&before[parent]);
            }
            nodes[at].parent = parent;
        }
        for at in (0..nodes.len()).rev() {
            if let Some(parent) = nodes[at].parent {
                nodes[parent].end = nodes[parent].end.max(nodes[at].end);
            }
        }
        Self { nodes, last: AtomicUsize::new(0) }
    }

    /// Returns them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// Returns those below `path`, which is none of them.
    pub(super) fn below<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = &'a Node> {
        let after = self.nodes.partition_point(|node| order(&node.path, path).is_le());
        self.nodes[after..].iter().take_while(move |node| is_at_or_below(&node.path, path))
    }

    /// Returns where `path` is among them.
    pub(super) fn place(&self, path: &[u8]) -> Place<'_> {
        // A guess that other threads may spoil, and that is proven before it is used: all that is at or below a node, and that alone,
        // lies between it and its end.
        let last = self.last.load(Relaxed);
        let (first, end) = match self.nodes.get(last) {
            Some(node) if is_at_or_below(path, &node.path) => (last, node.end),
            _ => (0, self.nodes.len()),
        };
        let after = first + self.nodes[first..end].partition_point(|node| order(&node.path, path).is_le());
        let found = above(&self.nodes, after.checked_sub(1), path);
        if let Some(found) = found {
            self.last.store(found, Relaxed);
        }
        let is_above = self.nodes.get(after).is_some_and(|node| is_at_or_below(&node.path, path));
        Place { node: found.map(|at| &self.nodes[at]), is_above }
    }
}

/// Returns the longest of `nodes` that is at or above `path`, from `before` on, which is the last that is not after it.
fn above(nodes: &[Node], before: Option<usize>, path: &[u8]) -> Option<usize> {
    let mut at = before;
    while let Some(here) = at
        && !is_at_or_below(path, &nodes[here].path)
    {
        at = nodes[here].parent;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_before_its_content_and_that_before_its_siblings() {
        let sorted = ["/", "/a", "/a/b", "/a/b/c", "/a/b-c", "/a\u{1}", "/a-b", "/a.b", "/ab", "/b"];
        assert!(sorted.is_sorted_by(|a, b| order(a.as_bytes(), b.as_bytes()).is_lt()));
    }

    #[test]
    fn the_longest_path_above_is_found_wherever_one_asked_before() {
        let paths = ["/a", "/a/b", "/a/b/c", "/a-b", "/d/e"];
        let nodes = Nodes::new(paths.iter().map(|path| Node::new(path.as_bytes().to_vec())));
        let cases = [
            ("/", None, true),
            ("/a", Some("/a"), true),
            ("/a/b", Some("/a/b"), true),
            ("/a/b/c", Some("/a/b/c"), false),
            ("/a/b/c/d", Some("/a/b/c"), false),
            ("/a/b/cc", Some("/a/b"), false),
            ("/a/z", Some("/a"), false),
            ("/a-b/x", Some("/a-b"), false),
            ("/aa", None, false),
            ("/d", None, true),
            ("/d/e/f", Some("/d/e"), false),
            ("/d/f", None, false),
        ];
        for (first, ..) in cases {
            for (path, node, is_above) in cases {
                nodes.place(first.as_bytes());
                let place = nodes.place(path.as_bytes());
                let found = place.node.map(|node| std::str::from_utf8(&node.path).unwrap());
                assert_eq!((found, place.is_above), (node, is_above), "{path} after {first}");
            }
        }
    }
}
