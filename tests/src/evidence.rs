//! Reads an evidence log from its files, as the C2SP specifications lay them out, with no code of the collector.
//!
//! tlog-tiles: bundle `n` of 256 entries is `tile/entries/<n>`, the last one `<n>.p/<width>`, each entry framed by its length in two
//! bytes, big-endian. tlog-checkpoint: a signed note of origin, size and root. RFC 6962 section 2.1: the hashes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use muster_proto::{
    id::{AgentId, Digest, Epoch},
    report::Report,
    seal::sealed_digest,
    v1,
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

/// A size of the log and its root, once a signature over them was checked.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Checkpoint {
    /// Entries.
    pub size: u64,
    /// RFC 6962 root hash.
    pub root: [u8; 32],
}

impl Checkpoint {
    /// Returns the checkpoint of the signed `note`, its signature checked against `log_key`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the note.
    pub fn verify(note: &[u8], log_key: &str) -> anyhow::Result<Self> {
        let key = LogKey::parse(log_key)?;
        let note = std::str::from_utf8(note)?;
        let (text, signatures) = note.split_once("\n\n").context("a note without a signature")?;
        let mut lines = text.lines();
        ensure!(lines.next() == Some(key.name.as_str()), "the origin is not the key's name");
        let size = lines.next().context("a note without a size")?.parse()?;
        let root = STANDARD.decode(lines.next().context("a note without a root")?)?;
        let start = format!("\u{2014} {} ", key.name);
        let signed = signatures.lines().filter_map(|line| line.strip_prefix(&start)).any(|signature| {
            let Ok(bytes) = STANDARD.decode(signature) else { return false };
            let Some((hash, signature)) = bytes.split_first_chunk::<4>() else { return false };
            let message = format!("{text}\n");
            *hash == key.hash && UnparsedPublicKey::new(&ED25519, key.key).verify(message.as_bytes(), signature).is_ok()
        });
        ensure!(signed, "no valid signature of {}", key.name);
        Ok(Self { size, root: root.try_into().ok().context("the root is not 32 bytes")? })
    }
}

/// A signed-note key, `<name>+<hash>+<key>`.
struct LogKey {
    name: String,
    hash: [u8; 4],
    key: [u8; 32],
}

impl LogKey {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            bail!("not a signed-note key: {text}");
        };
        let key = STANDARD.decode(key)?;
        let (kind, key) = key.split_first().context("an empty key")?;
        ensure!(*kind == 1, "not an Ed25519 key");
        let hash = u32::from_str_radix(hash, 16)?.to_be_bytes();
        let full = Sha256::new().chain_update(name).chain_update([b'\n', 1]).chain_update(key).finalize();
        ensure!(full[..4] == hash, "the key's hash is not that of the key");
        Ok(Self { name: name.to_owned(), hash, key: key.try_into().ok().context("the key is not 32 bytes")? })
    }
}

/// The log's entries up to its newest checkpoint, every hash checked.
#[derive(Debug)]
pub struct Evidence {
    /// The newest checkpoint.
    pub checkpoint: Checkpoint,
    /// The exact entries, in order.
    pub entries: Vec<Vec<u8>>,
    /// The root at each size from 0.
    roots: Vec<[u8; 32]>,
}

/// Reports in the log: for each agent and epoch, by sequence, the digest and the index of each report that stands there.
pub type Chains = BTreeMap<(AgentId, Epoch), BTreeMap<u64, Vec<(Digest, u64)>>>;

impl Evidence {
    /// Reads the log in `folder`, whose checkpoints `log_key` verifies.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or the entries do not give the checkpoint's root.
    pub fn read(folder: &Path, log_key: &str) -> anyhow::Result<Self> {
        let note = fs::read(folder.join("checkpoint")).context("checkpoint")?;
        let checkpoint = Checkpoint::verify(&note, log_key)?;
        let mut entries = Vec::new();
        while (entries.len() as u64) < checkpoint.size {
            let bundle = entries.len() as u64 / 256;
            let width = (checkpoint.size - bundle * 256).min(256);
            entries.extend(read_bundle(folder, bundle, width)?);
        }
        let roots = roots(&entries);
        ensure!(roots.last() == Some(&checkpoint.root), "the entries do not give the checkpoint's root");
        Ok(Self { checkpoint, entries, roots })
    }

    /// Returns whether this log begins with the log of `earlier`.
    pub fn holds(&self, earlier: &Checkpoint) -> bool {
        usize::try_from(earlier.size).ok().and_then(|size| self.roots.get(size)) == Some(&earlier.root)
    }

    /// Returns the entries, decoded.
    ///
    /// # Errors
    ///
    /// When one is not a `LogEntry`.
    pub fn decoded(&self) -> anyhow::Result<Vec<v1::LogEntry>> {
        let decode = |entry: &Vec<u8>| Ok(v1::LogEntry::decode(entry.as_slice())?);
        self.entries.iter().map(decode).collect()
    }

    /// Returns the reports in it.
    ///
    /// # Errors
    ///
    /// When an entry or a report is not one of the contract.
    pub fn chains(&self) -> anyhow::Result<Chains> {
        let mut chains = Chains::new();
        for (index, entry) in self.decoded()?.into_iter().enumerate() {
            let Some(v1::log_entry::Entry::Report(admitted)) = entry.entry else { continue };
            let sealed = admitted.sealed.context("an admitted report without the report")?;
            let report = Report::decode(&sealed.report)?;
            let chain = chains.entry((report.agent, report.epoch)).or_default();
            chain.entry(report.seq.number()).or_default().push((sealed_digest(&sealed), index as u64));
        }
        Ok(chains)
    }

    /// Returns the conflicts in it.
    ///
    /// # Errors
    ///
    /// When an entry is not one of the contract.
    pub fn conflicts(&self) -> anyhow::Result<Vec<v1::Conflict>> {
        let conflict = |entry: v1::LogEntry| match entry.entry {
            Some(v1::log_entry::Entry::Conflict(conflict)) => Some(conflict),
            _ => None,
        };
        Ok(self.decoded()?.into_iter().filter_map(conflict).collect())
    }
}

/// Checks that no chain has a report twice or a hole.
///
/// # Errors
///
/// Names the first agent and place where it is otherwise.
pub fn check_chains(chains: &Chains) -> anyhow::Result<()> {
    for ((agent, epoch), chain) in chains {
        for (expected, (seq, reports)) in (1..).zip(chain) {
            ensure!(*seq == expected, "agent {agent} epoch {epoch}: {expected} is missing, {seq} comes instead");
            ensure!(reports.len() == 1, "agent {agent} epoch {epoch}: {seq} is there {} times", reports.len());
        }
        let indexes: Vec<_> = chain.values().flatten().map(|(_, index)| *index).collect();
        ensure!(indexes.is_sorted(), "agent {agent} epoch {epoch}: not in order");
        let digests: BTreeSet<_> = chain.values().flatten().map(|(digest, _)| *digest).collect();
        ensure!(digests.len() == chain.len(), "agent {agent} epoch {epoch}: one report at two places");
    }
    Ok(())
}

/// Reads a bundle of which at least `width` entries are needed: the full file, or the partial one of that width.
fn read_bundle(folder: &Path, bundle: u64, width: u64) -> anyhow::Result<Vec<Vec<u8>>> {
    let path = folder.join("tile/entries").join(tile_path(bundle));
    let partial = PathBuf::from(format!("{}.p", path.display())).join(width.to_string());
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(_) if width < 256 => fs::read(&partial).with_context(|| partial.display().to_string())?,
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let (mut rest, mut entries) = (bytes.as_slice(), Vec::new());
    while (entries.len() as u64) < width {
        let (len, after) = rest.split_first_chunk::<2>().context("an entry without its length")?;
        let (entry, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len))).context("a cut entry")?;
        entries.push(entry.to_vec());
        rest = after;
    }
    Ok(entries)
}

/// Returns the path of tile `n`: three digits a level, all but the last with an `x` before them.
fn tile_path(n: u64) -> PathBuf {
    let mut path = format!("{:03}", n % 1000);
    let mut rest = n / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    path.into()
}

/// Returns the RFC 6962 root at each size from 0 to the number of entries.
fn roots(entries: &[Vec<u8>]) -> Vec<[u8; 32]> {
    let mut roots = vec![Sha256::digest([]).into()];
    // Perfect subtrees from left to right, with their heights.
    let mut peaks: Vec<(u32, [u8; 32])> = Vec::new();
    for entry in entries {
        let mut peak = (0, Sha256::new().chain_update([0]).chain_update(entry).finalize().into());
        while let Some((height, left)) = peaks.pop_if(|(height, _)| *height == peak.0) {
            peak = (height + 1, node(&left, &peak.1));
        }
        peaks.push(peak);
        let mut from_right = peaks.iter().rev().map(|(_, hash)| *hash);
        let last = from_right.next().expect("one was pushed");
        roots.push(from_right.fold(last, |right, left| node(&left, &right)));
    }
    roots
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_those_of_rfc_6962() {
        let leaf = |data: &[u8]| -> [u8; 32] { Sha256::new().chain_update([0]).chain_update(data).finalize().into() };
        let (a, b, c) = (leaf(b"a"), leaf(b"b"), leaf(b"c"));
        let roots = roots(&[b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
        assert_eq!(roots[1..], [a, node(&a, &b), node(&node(&a, &b), &c)]);
        assert_eq!(
            roots[0].map(|byte| format!("{byte:02x}")).concat(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn tile_paths_are_those_of_tlog_tiles() {
        assert_eq!(tile_path(7), Path::new("007"));
        assert_eq!(tile_path(1_234_067), Path::new("x001/x234/067"));
    }

    #[test]
    fn a_hole_or_a_double_is_found() {
        let place = (AgentId::new([1; 16]), Epoch::new([2; 16]));
        let report = |n: u8| (Digest::new([n; 32]), u64::from(n));
        let chain = |reports: &[(u64, &[u8])]| {
            let chain = reports.iter().map(|(seq, ns)| (*seq, ns.iter().map(|n| report(*n)).collect())).collect();
            Chains::from([(place, chain)])
        };
        assert!(check_chains(&chain(&[(1, &[1]), (2, &[2])])).is_ok());
        assert!(check_chains(&chain(&[(1, &[1]), (3, &[3])])).is_err());
        assert!(check_chains(&chain(&[(1, &[1]), (2, &[2, 2])])).is_err());
        assert!(check_chains(&chain(&[(1, &[2]), (2, &[1])])).is_err());
    }
}
