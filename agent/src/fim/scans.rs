//! When each watched path was last scanned, and by which run of the agent.
//!
//! ```text
//! muster-scans 1 SHA-256-OF-THE-REST
//! {"baseline":"0011…","roots":[…],"slots":[…]}
//! ```
//!
//! Damaged or absent, nothing of a difference is lost: its window then begins with the baseline, and every file is due.

use std::io;

use muster_proto::{
    fact::{PathText, Unknown},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    sets::Root,
    slots::Slots,
    store::{Name, Store},
};

const MAGIC: &str = "muster-scans 1 ";
/// The run of a scan that no running agent made.
pub const NO_RUN: u64 = 0;

/// When each watched path was last scanned.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scans {
    /// Id of the baseline that the paths were compared with.
    pub baseline: String,
    /// One for each root, in their order.
    pub roots: Vec<RootScan>,
    /// When files were last read whatever their metadata says.
    pub slots: Slots,
    /// Digest of the state of the package databases when they were last asked, hex; empty when they could not be.
    #[serde(default)]
    pub databases: String,
}

/// The last scan of a root.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RootScan {
    /// The root.
    pub path: PathText,
    /// When the last scan of all of it began.
    pub time: Timestamp,
    /// The run of the agent that made it.
    pub run: u64,
    /// Why its entries are not counted: it does not exist, cannot be opened, or is a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Unknown>,
}

impl Scans {
    /// Returns the scans of `roots` that `run` made at `time`.
    pub fn at(baseline: &str, roots: &[Root], time: Timestamp, run: u64) -> Self {
        let scan = |root: &Root| RootScan { path: PathText::from_bytes(&root.path), time, run, problem: None };
        Self {
            baseline: baseline.to_owned(),
            roots: roots.iter().map(scan).collect(),
            slots: Slots::read_at(time),
            databases: String::new(),
        }
    }

    /// Returns the scans of `roots` since the `baseline` was taken at `created`.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read.
    pub fn read(store: &Store, baseline: &str, created: Timestamp, roots: &[Root]) -> io::Result<Self> {
        let none = Self::at(baseline, roots, created, NO_RUN);
        let bytes = match store.read(Name::Scans) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(none),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(none),
            Err(error) => return Err(error),
        };
        let is_of_roots = |scans: &Self| {
            let paths = scans.roots.iter().map(|root| root.path.clone());
            scans.baseline == baseline && paths.eq(none.roots.iter().map(|root| root.path.clone()))
        };
        Ok(Self::parse(&bytes).filter(is_of_roots).unwrap_or(none))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC.as_bytes())?;
        let (digest, rest) = rest.split_at_checked(64)?;
        let json = rest.strip_prefix(b"\n")?;
        if digest != hex::encode(Sha256::digest(json)).as_bytes() {
            return None;
        }
        serde_json::from_slice(json).ok().filter(|scans: &Self| scans.slots.is_whole())
    }

    /// Keeps them.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write(&self, store: &Store) -> io::Result<()> {
        let json = serde_json::to_vec(self)?;
        store.replace(Name::Scans, |out| {
            writeln!(out, "{MAGIC}{}", hex::encode(Sha256::digest(&json)))?;
            out.write_all(&json)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sets::Sets, *};

    #[test]
    fn scans_that_are_damaged_say_nothing_and_never_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        let set = serde_json::from_value(serde_json::json!({ "name": "files", "paths": ["/etc"] })).unwrap();
        let sets = Sets::new(&[set]).unwrap();
        let roots = sets.roots();
        let time = Timestamp::from_seconds(1000).unwrap();
        let scans = Scans::at("00", roots, time, 7);
        scans.write(&store).unwrap();
        let read = || Scans::read(&store, "00", Timestamp::EPOCH, roots).unwrap();
        assert_eq!(read(), scans);
        let none = Scans::at("00", roots, Timestamp::EPOCH, NO_RUN);
        let path = store.path(Name::Scans);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert_eq!(read(), none, "changed at {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(read(), none, "cut at {at}");
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(
            Scans::read(&store, "01", Timestamp::EPOCH, roots).unwrap(),
            Scans { baseline: "01".into(), ..none }
        );
    }
}
