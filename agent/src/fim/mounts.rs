//! Which mount points a scan goes into: those that are watched themselves, and those that a set wants crossed.

use super::{
    place::is_at_or_below,
    sets::{Root, Sets},
};
use crate::host::{EntryKind, Metadata};

/// The folders above the last one that was shown, with the devices that hold them.
#[derive(Debug, Default)]
pub struct Mounts {
    above: Vec<(Vec<u8>, (u32, u32))>,
    are_crossed: bool,
}

/// Returns whether a walk of `root` is to cross mount points, of which [`Mounts`] then refuses some.
pub fn are_crossed(root: &Root) -> bool {
    root.cross_mounts || !root.below.is_empty()
}

impl Mounts {
    /// Takes note that the walk of `root` begins.
    pub fn begin(&mut self, root: &Root) {
        self.above.clear();
        self.are_crossed = are_crossed(root);
    }

    /// Takes the entry that is shown, and returns whether it is a mount point that is not gone into.
    pub fn is_refused(&mut self, sets: &Sets, path: &[u8], metadata: &Metadata) -> bool {
        if !self.are_crossed || metadata.kind != EntryKind::Folder {
            return false;
        }
        while self.above.pop_if(|(above, _)| !is_at_or_below(path, above)).is_some() {}
        let is_mount_point = self.above.last().is_some_and(|(_, device)| *device != metadata.device);
        self.above.push((path.to_vec(), metadata.device));
        is_mount_point && !sets.crosses(path)
    }
}
