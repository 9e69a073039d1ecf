//! File systems that stand on folders of others: overlays and eCryptfs.

use std::path::Path;

use muster_proto::fact::{Cause, Reading, Unknown};

use super::{below::Below, chain::Chain, mounts::Mount, own};
use crate::host::{self, path_of};

impl Below<'_> {
    /// What is written goes to the upper folder; without one, all that is there is in the lower ones.
    pub fn of_overlay(&self, mount: &Mount, depth: usize) -> Chain {
        let folders = match mount.option(b"upperdir=") {
            Some(upper) => vec![upper],
            None => mount.lower_folders(),
        };
        Chain::all(folders.iter().map(|folder| self.of_folder(mount, folder, depth)))
    }

    /// Returns what `folder`, which is below the overlay `mount`, stands on.
    fn of_folder(&self, mount: &Mount, folder: &[u8], depth: usize) -> Chain {
        let hidden =
            || Chain::unknown(Unknown::new(Cause::Hidden, "the folders below the overlay are not seen from inside"));
        if !folder.starts_with(b"/") {
            return hidden();
        }
        let Some(depth) = depth.checked_sub(1) else {
            return Chain::unknown(Unknown::new(Cause::Limit, "too many file systems on folders of each other"));
        };
        let metadata = match self.host.metadata(&path_of(folder)) {
            Ok(metadata) => metadata,
            Err(error) if host::cause(&error) == Cause::Absent => return hidden(),
            Err(error) => {
                let folder = path_of(folder);
                return Chain::unknown(host::unknown(format!("look at {}", folder.display()), &error));
            }
        };
        // In a container the folders are named as the host names them, and the overlay itself is the root.
        match self.holder(folder, metadata.device) {
            Some(holder) if holder != mount => self.with_policy_of(holder, &path_of(folder), depth),
            _ => hidden(),
        }
    }

    pub fn with_policy_of(&self, holder: &Mount, folder: &Path, depth: usize) -> Chain {
        let chain = self.of_mount(holder, depth);
        if holder.may_have_fscrypt() { self.with_policy(folder, chain) } else { chain }
    }

    /// Everything that is written through the mount is encrypted before the folder below it has it.
    pub fn of_ecryptfs(&self, mount: &Mount, depth: usize) -> Chain {
        let below = self.of_folder(mount, &mount.source, depth);
        match own::ecryptfs(mount) {
            Ok(layer) => below.below(layer),
            Err(_) if below.encrypted == Reading::Known(true) => below,
            Err(why) => Chain { encrypted: Reading::unknown(Cause::Undecidable, why), ..below },
        }
    }
}
