//! What keeps those who own files from making a scan endless: how much is read of their files, and that a file with many names is
//! read under one of them.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
};

use crate::host::Metadata;

/// How many times as much as of one owner is read of all of them: a user may have the numbers of many.
const ALL: u64 = 4;
/// Owners that are told apart; those beyond share what one has.
const OWNERS: usize = 4096;
/// Files with several names of which the digest is remembered, at most.
const FILES: usize = 4096;

/// What a walk may still read of whose files.
#[derive(Debug)]
pub(super) struct Owners {
    each_bytes: u64,
    all_bytes: u64,
    read: Mutex<Bytes>,
}

#[derive(Debug, Default)]
struct Bytes {
    all: u64,
    of: BTreeMap<u32, u64>,
}

impl Owners {
    /// Returns one of `owner_bytes` of each owner; 0 is without limit.
    pub(super) fn new(owner_bytes: u64) -> Self {
        let each_bytes = if owner_bytes == 0 { u64::MAX } else { owner_bytes };
        Self { each_bytes, all_bytes: each_bytes.saturating_mul(ALL), read: Mutex::default() }
    }

    /// Takes `bytes` of what may be read of files that `owner` has, of which root's are all read.
    pub(super) fn take(&self, owner: u32, bytes: u64) -> io::Result<()> {
        if owner == 0 || self.each_bytes == u64::MAX {
            return Ok(());
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let is_told_apart = read.of.len() < OWNERS || read.of.contains_key(&owner);
        let owner = if is_told_apart { owner } else { u32::MAX };
        let all = read.all.saturating_add(bytes);
        let own = read.of.get(&owner).copied().unwrap_or(0).saturating_add(bytes);
        if own > self.each_bytes || all > self.all_bytes {
            let (each, all) = (self.each_bytes >> 30, self.all_bytes >> 30);
            let text =
                format!("beyond the {each} GiB that a scan reads of one owner other than root, {all} GiB of all");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        read.all = all;
        read.of.insert(owner, own);
        Ok(())
    }
}

/// Digests of files with several names: such a file is read once in a walk, so long as it does not change.
#[derive(Debug, Default)]
pub(super) struct Named(Mutex<BTreeMap<Inode, Content>>);

type Inode = ((u32, u32), u64);
/// Size, time of the last change of the inode, which no program can set, and digest.
type Content = (u64, i64, [u8; 32]);

impl Named {
    /// Returns the digest of the file of which fstat(2) says `metadata`, if it was read under another name.
    pub(super) fn digest(&self, metadata: &Metadata) -> Option<[u8; 32]> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (size_bytes, changed, sha256) = files.get(&(metadata.device, metadata.inode))?;
        let is_same = *size_bytes == metadata.size_bytes && Some(*changed) == metadata.changed_nanos;
        is_same.then_some(*sha256)
    }

    /// Remembers that the file with `metadata` has that digest.
    pub(super) fn add(&self, metadata: &Metadata, sha256: [u8; 32]) {
        let Some(changed) = metadata.changed_nanos else { return };
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= FILES {
            files.clear();
        }
        files.insert((metadata.device, metadata.inode), (metadata.size_bytes, changed, sha256));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::EntryKind;

    #[test]
    fn of_each_owner_but_root_and_of_all_of_them_so_much_is_read() {
        let owners = Owners { all_bytes: 250, ..Owners::new(100) };
        let is_read = |owner, bytes| owners.take(owner, bytes).is_ok();
        assert!(is_read(0, u64::MAX) && is_read(0, u64::MAX));
        assert!(is_read(1, 100) && !is_read(1, 1), "one owner has no more");
        assert!(!is_read(2, 101) && is_read(2, 99) && is_read(2, 1), "what was not read counts nothing");
        assert!(!is_read(3, 51) && is_read(3, 50) && !is_read(4, 1), "all of them have no more");
        assert!(is_read(0, 1) && is_read(4, 0));
        assert_eq!(owners.take(1, u64::MAX).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let unlimited = Owners::new(0);
        assert!((0..3).all(|owner| unlimited.take(owner, u64::MAX).is_ok()));
    }

    #[test]
    fn owners_beyond_those_that_are_told_apart_share_what_one_has() {
        let owners = Owners { each_bytes: 10, all_bytes: u64::MAX, read: Mutex::default() };
        for owner in 1..=OWNERS as u32 {
            owners.take(owner, 10).unwrap();
        }
        owners.take(100_000, 6).unwrap();
        assert!(owners.take(100_001, 5).is_err() && owners.take(100_002, 4).is_ok() && owners.take(1, 1).is_err());
        assert_eq!(owners.read.lock().unwrap().of.len(), OWNERS + 1);
    }

    #[test]
    fn the_digest_of_another_name_holds_while_the_file_is_the_same() {
        let metadata = Metadata {
            kind: EntryKind::File,
            size_bytes: 1 << 20,
            modified: None,
            mode: 0o644,
            uid: 0,
            gid: 0,
            device: (8, 1),
            inode: 7,
            links: 2,
            changed_nanos: Some(5),
        };
        let named = Named::default();
        named.add(&metadata, [1; 32]);
        assert_eq!(named.digest(&metadata), Some([1; 32]));
        let changed = [
            Metadata { changed_nanos: Some(6), ..metadata },
            Metadata { changed_nanos: None, ..metadata },
            Metadata { size_bytes: 1, ..metadata },
            Metadata { inode: 8, ..metadata },
            Metadata { device: (8, 2), ..metadata },
        ];
        assert!(changed.iter().all(|metadata| named.digest(metadata).is_none()));
        for inode in 0..2 * FILES as u64 {
            named.add(&Metadata { inode, ..metadata }, [2; 32]);
        }
        assert!(named.0.lock().unwrap().len() <= FILES);
    }
}
