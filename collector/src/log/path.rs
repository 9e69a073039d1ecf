//! Where the files of a log lie, as C2SP tlog-tiles names them. Pure.
//!
//! ```text
//! checkpoint                       newest signed note
//! tile/<level>/<index>             256 hashes
//! tile/<level>/<index>.p/<width>   1 to 255 hashes at the edge
//! tile/entries/<index>             256 entries, each behind its 16-bit length
//! tile/entries/<index>.p/<width>   1 to 255 entries at the edge
//! ```
//!
//! An index is written in groups of three digits, all but the last behind an `x`: 1234067 is `x001/x234/067`.

use std::path::PathBuf;

/// Entries of a bundle and hashes of a tile.
pub(crate) const WIDTH: u64 = 256;
/// Binary levels that a tile spans: `WIDTH` is two to this power.
pub(crate) const HEIGHT: u8 = 8;
/// The newest checkpoint.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// Folder of tiles and bundles.
pub(crate) const TILES: &str = "tile";

/// What a tile holds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    /// Entries.
    Entries,
    /// Hashes of this level.
    Hashes(u8),
}

/// A tile or bundle: full, or the first `width` of its 256 places.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Tile {
    pub(crate) kind: Kind,
    pub(crate) index: u64,
    /// 1 to 256.
    pub(crate) width: u16,
}

impl Kind {
    /// Returns the folder of its tiles, below the log's folder.
    pub(crate) fn folder(self) -> PathBuf {
        match self {
            Self::Entries => PathBuf::from("tile/entries"),
            Self::Hashes(level) => PathBuf::from(format!("tile/{level}")),
        }
    }

    /// Returns how many places a log of `size` entries fills at this level.
    pub(crate) fn places(self, size: u64) -> u64 {
        match self {
            Self::Entries => size,
            Self::Hashes(level) => size.checked_shr(u32::from(level) * u32::from(HEIGHT)).unwrap_or(0),
        }
    }
}

impl Tile {
    /// Returns the tile `index` of `kind` as wide as a log of `size` entries fills it; `None` when it holds nothing.
    pub(crate) fn at(kind: Kind, index: u64, size: u64) -> Option<Self> {
        let filled = kind.places(size).checked_sub(index.checked_mul(WIDTH)?)?.min(WIDTH);
        let width = u16::try_from(filled).expect("at most 256");
        (width > 0).then_some(Self { kind, index, width })
    }

    /// Returns the partial tile at the edge of `kind` in a log of `size` entries; `None` when the edge is at a tile's end.
    pub(crate) fn edge(kind: Kind, size: u64) -> Option<Self> {
        Self::at(kind, kind.places(size) / WIDTH, size)
    }

    /// Returns whether all its places are filled.
    pub(crate) fn is_full(self) -> bool {
        u64::from(self.width) == WIDTH
    }

    /// Returns its file, below the log's folder.
    pub(crate) fn path(self) -> PathBuf {
        let path = self.full_path();
        if self.is_full() { path } else { partial_folder(path).join(self.width.to_string()) }
    }

    /// Returns the folder of its partial forms, below the log's folder.
    pub(crate) fn partials(self) -> PathBuf {
        partial_folder(self.full_path())
    }

    fn full_path(self) -> PathBuf {
        self.kind.folder().join(digits(self.index))
    }
}

fn partial_folder(full: PathBuf) -> PathBuf {
    let mut folder = full.into_os_string();
    folder.push(".p");
    folder.into()
}

/// Returns the levels of hash tiles that a log of `size` entries has.
pub(crate) fn levels(size: u64) -> impl Iterator<Item = u8> {
    (0..8).take_while(move |level| Kind::Hashes(*level).places(size) > 0)
}

fn digits(index: u64) -> String {
    let mut text = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        text = format!("x{:03}/{text}", rest % 1000);
        rest /= 1000;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = |kind, index, width| Tile { kind, index, width }.path();
        for (path, expected) in [
            (tile(Kind::Hashes(0), 0, 256), "tile/0/000"),
            (tile(Kind::Hashes(1), 1_234_067, 256), "tile/1/x001/x234/067"),
            (tile(Kind::Hashes(0), 999, 1), "tile/0/999.p/1"),
            (tile(Kind::Entries, 1000, 255), "tile/entries/x001/000.p/255"),
        ] {
            assert_eq!(path, Path::new(expected));
        }
    }

    #[test]
    fn the_edge_follows_the_size() {
        assert_eq!(Tile::edge(Kind::Entries, 0), None);
        assert_eq!(Tile::edge(Kind::Entries, 256), None);
        assert_eq!(Tile::edge(Kind::Entries, 257), Some(Tile { kind: Kind::Entries, index: 1, width: 1 }));
        assert_eq!(Tile::edge(Kind::Hashes(1), 65_535), Some(Tile { kind: Kind::Hashes(1), index: 0, width: 255 }));
        assert_eq!(Tile::edge(Kind::Hashes(1), 65_536), None);
        assert_eq!(Tile::at(Kind::Entries, 0, 300).map(|tile| tile.width), Some(256));
        assert_eq!(levels(0).count(), 0);
        assert_eq!(levels(255).count(), 1);
        assert_eq!(levels(256).count(), 2);
        assert_eq!(levels(u64::MAX).count(), 8);
    }
}
