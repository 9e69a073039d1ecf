//! The growing edge of the Merkle tree of RFC 6962, in memory: one node hash for each entry, amortised. Pure.

use tlog_tiles::{HASH_SIZE, Hash, node_hash};

use super::path::{HEIGHT, Kind, Tile, WIDTH};

/// The edge of a tree: the root of every complete subtree, and the hashes of the partial tile of each level.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    size: u64,
    /// Complete subtrees from left to right, each smaller than the one before: height and hash.
    subtrees: Vec<(u8, Hash)>,
    /// For each level, the hashes of its partial tile, joined.
    edges: Vec<Vec<u8>>,
}

impl Tree {
    /// Returns the tree of `size` entries whose partial tiles are `edges`, one for each level that the tree has.
    ///
    /// Returns `None` when an edge has not the length that `size` demands.
    pub(crate) fn from_edges(size: u64, edges: Vec<Vec<u8>>) -> Option<Self> {
        let mut tree = Self { size, subtrees: Vec::new(), edges };
        for level in (0..tree.edges.len()).rev() {
            let kind = Kind::Hashes(u8::try_from(level).ok()?);
            let width = usize::try_from(kind.places(size) % WIDTH).ok()?;
            if tree.edges[level].len() != width * HASH_SIZE {
                return None;
            }
            for place in 0..width {
                let hash = hash_at(&tree.edges[level], place);
                tree.push(u8::try_from(level).ok()? * HEIGHT, hash, |_, _| {});
            }
        }
        Some(tree)
    }

    /// Returns how many entries it has.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds the entry whose leaf hash is `leaf`, and gives every tile that this completes to `full`.
    pub(crate) fn append(&mut self, leaf: Hash, full: &mut Vec<(Tile, Vec<u8>)>) {
        // A complete subtree whose height is a multiple of a tile's is a place of the tile above.
        let mut grown = [(0, leaf); 9];
        let mut count = 1;
        self.push(0, leaf, |height, hash| {
            if height % HEIGHT == 0 {
                grown[count] = (height / HEIGHT, hash);
                count += 1;
            }
        });
        self.size += 1;
        for (level, hash) in grown[..count].iter().copied() {
            let at = usize::from(level);
            if self.edges.len() <= at {
                self.edges.push(Vec::with_capacity(HASH_SIZE * 256));
            }
            let edge = &mut self.edges[at];
            edge.extend_from_slice(&hash.0);
            if edge.len() == HASH_SIZE * 256 {
                let kind = Kind::Hashes(level);
                let index = kind.places(self.size) / WIDTH - 1;
                let bytes = std::mem::replace(edge, Vec::with_capacity(HASH_SIZE * 256));
                full.push((Tile { kind, index, width: 256 }, bytes));
            }
        }
    }

    /// Returns the hashes of the partial tile of `level`; empty when there is none.
    pub(crate) fn edge(&self, level: u8) -> &[u8] {
        self.edges.get(usize::from(level)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the root hash.
    pub(crate) fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev().map(|(_, hash)| *hash);
        match subtrees.next() {
            None => empty_root(),
            Some(last) => subtrees.fold(last, |right, left| node_hash(left, right)),
        }
    }

    /// Adds a complete subtree and joins equal neighbours; `grown` sees each subtree that this makes.
    fn push(&mut self, height: u8, hash: Hash, mut grown: impl FnMut(u8, Hash)) {
        let (mut height, mut hash) = (height, hash);
        while let Some((_, left)) = self.subtrees.pop_if(|(left, _)| *left == height) {
            hash = node_hash(left, hash);
            height += 1;
            grown(height, hash);
        }
        self.subtrees.push((height, hash));
    }
}

/// Returns the hash at `place` of a tile's bytes.
pub(crate) fn hash_at(tile: &[u8], place: usize) -> Hash {
    let bytes = &tile[place * HASH_SIZE..(place + 1) * HASH_SIZE];
    Hash(bytes.try_into().expect("cut to the size of a hash"))
}

/// Returns the root of the empty tree: SHA-256 of nothing (RFC 6962 section 2.1).
pub(crate) fn empty_root() -> Hash {
    Hash(*muster_proto::id::Digest::of_bytes(&[]).as_bytes())
}

#[cfg(test)]
mod tests {
    use tlog_tiles::{Error, HashReader, record_hash, stored_hashes, tree_hash};

    use super::*;

    struct Stored(Vec<Hash>);

    impl HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
            Ok(indexes.iter().map(|&index| self.0[usize::try_from(index).unwrap()]).collect())
        }
    }

    #[test]
    fn the_root_is_that_of_the_reference_at_every_size() {
        let mut stored = Stored(Vec::new());
        let mut tree = Tree::default();
        let mut full = Vec::new();
        for entry in 0..70_000_u64 {
            let data = entry.to_be_bytes();
            let hashes = stored_hashes(entry, &data, &stored).unwrap();
            stored.0.extend(hashes);
            tree.append(record_hash(&data), &mut full);
            if entry < 600 || entry % 997 == 0 || (65_500..65_600).contains(&entry) {
                assert_eq!(tree.root(), tree_hash(entry + 1, &stored).unwrap(), "size {}", entry + 1);
            }
        }
        for (tile, bytes) in &full {
            let Kind::Hashes(level) = tile.kind else { unreachable!() };
            let reference = tlog_tiles::Tile::new(8, level, tile.index, 256, false).read_data(&stored).unwrap();
            assert_eq!(*bytes, reference, "{tile:?}");
        }
        assert_eq!(full.len(), 70_000 / 256 + 1);
    }

    #[test]
    fn a_tree_goes_on_from_its_edges() {
        for size in [0_u64, 1, 255, 256, 257, 511, 65_535, 65_536, 65_793] {
            let mut tree = Tree::default();
            for entry in 0..size {
                tree.append(record_hash(&entry.to_be_bytes()), &mut Vec::new());
            }
            let edges = super::super::path::levels(size).map(|level| tree.edge(level).to_vec()).collect();
            let mut again = Tree::from_edges(size, edges).unwrap();
            assert_eq!(again.root(), tree.root(), "size {size}");
            for entry in size..size + 300 {
                let leaf = record_hash(&entry.to_be_bytes());
                let (mut a, mut b) = (Vec::new(), Vec::new());
                tree.append(leaf, &mut a);
                again.append(leaf, &mut b);
                assert_eq!(a, b);
            }
            assert_eq!(again.root(), tree.root(), "size {size} and 300");
        }
    }

    #[test]
    fn edges_of_another_size_are_refused() {
        assert!(Tree::from_edges(2, vec![vec![0; 32]]).is_none());
        assert!(Tree::from_edges(256, vec![vec![], vec![0; 64]]).is_none());
    }
}
