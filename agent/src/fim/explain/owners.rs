//! Which package each path belonged to: what is needed to tell a deletion by a package from any other, for the databases forget a
//! path with the version that had it.
//!
//! The file holds, for each package, its version and a keyed digest of each path that it lists; and of paths that no longer belong
//! to a package that had them, when that was. A deletion is explained when the package was changed or removed within the window of
//! the deletion, and no package lists the path now.
//!
//! ```text
//! muster-owners 1\n     the format
//! File                  protocol buffers, as below
//! SHA-256               of all before
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _, Write as _},
};

use muster_proto::{
    fact::{ChangeKind, ExplanationSource, Text},
    time::Timestamp,
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::{
    Asked, Changes, Memory, SCAN_TIME, dpkg,
    evidence::{Evidence, Former, Package, merged},
    pacman, rpm,
};
use crate::{
    host::{self, Host},
    probe::memory,
};

const MAGIC: &[u8] = b"muster-owners 1\n";
const DIGEST_BYTES: usize = 32;
/// Bytes of the file, at most: some seven million paths.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Paths of all packages, at most: a system with all of Debian's desktops has half a million.
const PATHS: usize = 4_000_000;
/// Paths that packages had before, at most; the oldest are forgotten first.
const FORMER: usize = 500_000;
/// For how long it is kept what a package had before: by then each watched path was scanned many times.
const KEPT: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

#[derive(Clone, PartialEq, prost::Message)]
struct Owners {
    /// 16 random bytes, so that nobody can choose a path that has another's digest.
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    /// Stamp of the databases when they were read.
    #[prost(bytes = "vec", tag = "2")]
    stamp: Vec<u8>,
    /// When they were read, in microseconds since 1970.
    #[prost(int64, tag = "3")]
    read: i64,
    /// In order of source and name.
    #[prost(message, repeated, tag = "4")]
    packages: Vec<Held>,
    /// In order of time.
    #[prost(message, repeated, tag = "5")]
    former: Vec<Lost>,
}

/// Of [`Owners`] what each scan asks for.
#[derive(Clone, PartialEq, prost::Message)]
struct Stamped {
    #[prost(bytes = "vec", tag = "2")]
    stamp: Vec<u8>,
}

/// What a package holds.
#[derive(Clone, PartialEq, prost::Message)]
struct Held {
    #[prost(string, tag = "1")]
    source: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
    /// Digests of its paths, sorted.
    #[prost(fixed64, repeated, tag = "4")]
    paths: Vec<u64>,
}

/// What a package held and holds no more.
#[derive(Clone, PartialEq, prost::Message)]
struct Lost {
    /// The package as it was.
    #[prost(message, optional, tag = "1")]
    held: Option<Held>,
    /// The last time at which it held them, in microseconds since 1970.
    #[prost(int64, tag = "2")]
    from: i64,
    /// The first time at which it did not.
    #[prost(int64, tag = "3")]
    until: i64,
}

/// Adds to which packages the deleted paths of `changes` belonged. Without a file that can be read, to none.
pub(super) fn collect(memory: Memory<'_>, changes: &Changes<'_>, evidence: &mut Evidence) -> io::Result<()> {
    let Some(owners) = read(memory)? else { return Ok(()) };
    let deleted = changes.iter().filter(|(_, asked)| asked.change.kind == ChangeKind::Deleted && asked.is_open());
    let mut asked: BTreeMap<u64, Vec<&[u8]>> = BTreeMap::new();
    for (path, _) in deleted {
        asked.entry(digest(&owners.key, path)).or_default().push(path);
    }
    let mut found = BTreeMap::new();
    let mut find = |held: &Held, is_then: &dyn Fn(&Asked<'_>) -> bool| {
        let Some(former) = held.former().filter(|former| evidence.sources.contains(&former.source)) else { return };
        for path in held.paths.iter().filter_map(|path| asked.get(path)).flatten() {
            if changes.get(*path).is_some_and(is_then) {
                found.entry(path.to_vec()).or_insert_with(|| former.clone());
            }
        }
    };
    for held in &owners.packages {
        let Some(former) = held.former() else { continue };
        match evidence.unpacked.get(&(former.source, former.name)) {
            // A package that is there as it was has deleted nothing, whatever became of its list.
            Some(times) => find(held, &|asked| times.iter().any(|time| asked.is_within(*time))),
            // It was removed since the databases were read last.
            None => find(held, &|asked| asked.change.detected_time.micros() > owners.read),
        }
    }
    for lost in &owners.former {
        if let Some(held) = &lost.held {
            find(held, &|asked| lost.overlaps(asked));
        }
    }
    evidence.former = found;
    Ok(())
}

/// Returns whether no package has one of `paths`, nor had; `false` where that is not known of databases with this `stamp`.
pub(super) fn have_none_of<'p>(memory: Memory<'_>, stamp: [u8; 32], mut paths: impl Iterator<Item = &'p [u8]>) -> bool {
    let Ok(Some(owners)) = read(memory) else { return false };
    let former = owners.former.iter().filter_map(|lost| lost.held.as_ref());
    let held: Vec<_> = owners.packages.iter().chain(former).collect();
    let has = |path: &[u8]| {
        let digest = digest(&owners.key, path);
        held.iter().any(|held| held.paths.binary_search(&digest).is_ok())
    };
    owners.stamp == stamp && !paths.any(has)
}

/// Reads the databases if their `stamp` is another than that of the file, and replaces the file.
pub(super) fn remember(host: &dyn Host, memory: Memory<'_>, stamp: [u8; 32], now: Timestamp) -> io::Result<()> {
    let bytes = bytes(memory)?;
    if content(&bytes).and_then(|content| Stamped::decode(content).ok()).is_some_and(|known| known.stamp == stamp) {
        return Ok(());
    }
    let before = decode(&bytes);
    let key = match &before {
        Some(before) => before.key.clone(),
        None => new_key()?,
    };
    let packages = held(host, &key)?;
    let mut owners = Owners { key, stamp: stamp.to_vec(), read: now.micros(), packages, former: Vec::new() };
    if let Some(before) = before {
        owners.former = former(before, &owners);
    }
    memory::replace(memory.folder, memory.name, memory.owner, |file| {
        let mut bytes = MAGIC.to_vec();
        owners.encode(&mut bytes).map_err(io::Error::other)?;
        let digest = Sha256::digest(&bytes);
        file.write_all(&bytes)?;
        file.write_all(&digest)
    })
}

/// Returns the content of the file; `None` when it is not there or damaged: it holds nothing that cannot be learnt again.
fn read(memory: Memory<'_>) -> io::Result<Option<Owners>> {
    Ok(decode(&bytes(memory)?))
}

/// Returns the bytes of the file; none when it is not there.
fn bytes(memory: Memory<'_>) -> io::Result<Vec<u8>> {
    let file = match memory::open(&memory.folder.join(memory.name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    let size = file.metadata()?.len().min(FILE_BYTES + 1);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns what is between the format and the digest, if that is right.
fn content(bytes: &[u8]) -> Option<&[u8]> {
    let (content, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_BYTES)?)?;
    let is_whole = bytes.len() as u64 <= FILE_BYTES && Sha256::digest(content).as_slice() == digest;
    content.strip_prefix(MAGIC).filter(|_| is_whole)
}

fn decode(bytes: &[u8]) -> Option<Owners> {
    Owners::decode(content(bytes)?).ok()
}

fn new_key() -> io::Result<Vec<u8>> {
    Ok(host::random::<16>()?.to_vec())
}

/// Returns what each package holds now, by all databases.
fn held(host: &dyn Host, key: &[u8]) -> io::Result<Vec<Held>> {
    let mut listing = Listing { key, count: 0, packages: BTreeMap::new(), last: None };
    dpkg::each_owned(host, &mut |package, path| listing.add(package, path))?;
    rpm::each_owned(host, &mut |package, path| listing.add(package, path))?;
    pacman::each_owned(host, &mut |package, path| listing.add(package, path))?;
    if listing.count > PATHS {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("packages list more than {PATHS} paths")));
    }
    listing.end_package();
    let held = listing.packages.into_iter().map(|((source, name, version), mut paths)| {
        paths.sort_unstable();
        paths.dedup();
        Held { source: source.to_owned(), name, version, paths }
    });
    Ok(held.collect())
}

/// Source, name and version of a package.
type Name = (&'static str, String, String);

/// What packages list, as it is read.
struct Listing<'k> {
    key: &'k [u8],
    count: usize,
    packages: BTreeMap<Name, Vec<u64>>,
    /// The package whose paths are being read.
    last: Option<(Name, Vec<u64>)>,
}

impl Listing<'_> {
    fn add(&mut self, package: &Package, path: &[u8]) {
        self.count += 1;
        if self.count > PATHS {
            return;
        }
        let (source, name, version) = (package.source.as_str(), package.name.as_str(), package.version.as_str());
        let digest = digest(self.key, path);
        match &mut self.last {
            Some((last, paths)) if (last.0, last.1.as_str(), last.2.as_str()) == (source, name, version) => {
                paths.push(digest);
            }
            _ => {
                self.end_package();
                self.last = Some(((source, name.to_owned(), version.to_owned()), vec![digest]));
            }
        }
    }

    fn end_package(&mut self) {
        if let Some((name, mut paths)) = self.last.take() {
            self.packages.entry(name).or_default().append(&mut paths);
        }
    }
}

/// Returns the digest of a path by which it is kept. On a merged system a path has two names and one digest.
fn digest(key: &[u8], path: &[u8]) -> u64 {
    let merged = merged(path);
    let digest = Sha256::new_with_prefix(key).chain_update(merged.as_deref().unwrap_or(path)).finalize();
    u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}

/// Returns what packages held in `before` or earlier, and hold no more.
fn former(before: Owners, now: &Owners) -> Vec<Lost> {
    let holds: BTreeSet<u64> = now.packages.iter().flat_map(|held| held.paths.iter().copied()).collect();
    let oldest = now.read.saturating_sub(i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX));
    let mut former: Vec<Lost> = before.former.into_iter().filter(|lost| lost.until >= oldest).collect();
    for mut held in before.packages {
        held.paths.retain(|path| !holds.contains(path));
        if !held.paths.is_empty() {
            former.push(Lost { held: Some(held), from: before.read, until: now.read });
        }
    }
    let mut left = FORMER;
    let start = former.iter().rposition(|lost| {
        let count = lost.held.as_ref().map_or(0, |held| held.paths.len());
        left.checked_sub(count).map(|rest| left = rest).is_none()
    });
    former.split_off(start.map_or(0, |start| start + 1))
}

impl Held {
    fn former(&self) -> Option<Former> {
        let known = [ExplanationSource::Dpkg, ExplanationSource::Rpm, ExplanationSource::Pacman];
        let source = known.into_iter().find(|source| source.as_str() == self.source)?;
        Some(Former { source, name: Text::new(&self.name), version: Text::new(&self.version) })
    }
}

impl Lost {
    /// Whether the package may have let go of its paths while the difference came about. The databases are read when a scan ends,
    /// and the time is that at which it began.
    fn overlaps(&self, asked: &Asked<'_>) -> bool {
        let until = self.until.saturating_add(i64::try_from(SCAN_TIME.as_micros()).unwrap_or(i64::MAX));
        asked.since.micros() < until && asked.change.detected_time.micros() > self.from
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held(name: &str, paths: &[u64]) -> Held {
        Held { source: "dpkg".to_owned(), name: name.to_owned(), version: "1".to_owned(), paths: paths.to_vec() }
    }

    fn owners(read: i64, packages: Vec<Held>, former: Vec<Lost>) -> Owners {
        Owners { key: vec![1; 16], stamp: vec![2; 32], read, packages, former }
    }

    #[test]
    fn what_a_package_holds_no_more_is_kept_for_a_while_with_its_times() {
        let day = 24 * 3_600 * 1_000_000;
        let first = owners(day, vec![held("a", &[1, 2, 3]), held("b", &[4]), held("gone", &[5])], Vec::new());
        // What moved from one package to another is still held.
        let second = owners(2 * day, vec![held("a", &[1]), held("b", &[2, 4])], Vec::new());
        let lost = former(first, &second);
        let expected = [("a", vec![3]), ("gone", vec![5])];
        let found: Vec<_> = lost.iter().map(|lost| (lost.held.clone().unwrap(), lost.from, lost.until)).collect();
        let expected: Vec<_> = expected.map(|(name, paths)| (held(name, &paths), day, 2 * day)).to_vec();
        assert_eq!(found, expected);
        let second = Owners { former: lost, ..second };
        assert_eq!(former(second.clone(), &owners(32 * day, second.packages.clone(), Vec::new())).len(), 2);
        assert_eq!(former(second.clone(), &owners(33 * day, second.packages.clone(), Vec::new())).len(), 0);
    }

    #[test]
    fn no_more_is_kept_of_the_past_than_the_bound() {
        let many: Vec<u64> = (1..=FORMER as u64).collect();
        let old = Lost { held: Some(held("old", &[0])), from: 1, until: 2 };
        let before = owners(3, vec![held("many", &many)], vec![old]);
        let lost = former(before, &owners(4, Vec::new(), Vec::new()));
        assert_eq!(lost.iter().map(|lost| lost.held.as_ref().unwrap().paths.len()).collect::<Vec<_>>(), [FORMER]);
    }

    #[test]
    fn a_damaged_file_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory { folder: folder.path(), name: "owners", owner: memory::Owner::OfFolder };
        assert_eq!(read(memory).unwrap(), None);
        let mut bytes = MAGIC.to_vec();
        let written = owners(3, vec![held("a", &[1, u64::MAX])], Vec::new());
        written.encode(&mut bytes).unwrap();
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        assert_eq!(decode(&bytes), Some(written));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn both_names_of_a_merged_path_are_one() {
        let key = [3; 16];
        assert_eq!(digest(&key, b"/lib/x86_64-linux-gnu/a"), digest(&key, b"/usr/lib/x86_64-linux-gnu/a"));
        assert_ne!(digest(&key, b"/etc/a"), digest(&key, b"/usr/etc/a"));
        assert_ne!(digest(&key, b"/etc/a"), digest(&[4; 16], b"/etc/a"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
            let _ = Owners::decode(bytes.as_slice());
        }
    }
}
