//! What the spool knows beside its records: `state.json`, replaced as a whole.
//!
//! The first line is the SHA-256 (hex) of all that follows, so that a damaged file is noticed and never half believed.

use std::path::PathBuf;

use muster_proto::{
    id::{Digest, Epoch, ReportSeq},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::Checkpoint,
    fim::{sets::PATHS, watch_set::WatchSet},
};

/// A place in the chain, and the digest of the sealed report there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Its number.
    pub seq: ReportSeq,
    /// By which the next report names it.
    pub digest: Digest,
}

/// State of the chain and of the agent's last run.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Version of this file; 1.
    pub version: u32,
    /// The chain's epoch.
    pub epoch: Epoch,
    /// The last report that was taken. Every place up to it is used up, whatever becomes of the records.
    pub sealed: Option<Place>,
    /// The last report that a verified checkpoint of the collector covers.
    pub durable: Option<Place>,
    /// When that report was sealed, host's clock, as far as it was still here.
    #[serde(default)]
    pub durable_time: Option<Timestamp>,
    /// Nonce of the last session, hex; empty before the first.
    pub session_nonce: String,
    /// The newest checkpoint under the log key. Those of acknowledgements come without proof.
    pub checkpoint: Option<Checkpoint>,
    /// The checkpoint of the last Welcome, or the first that there was: the log of every later Welcome must continue it too.
    #[serde(default)]
    pub proven: Option<Checkpoint>,
    /// Two checkpoints of which one log can have one alone: kept for those who must explain it.
    #[serde(default)]
    pub contradiction: Option<Contradiction>,
    /// Digest of the fact set after the last report that changed it.
    pub fact_set: Option<Digest>,
    /// How far coverage reached, and in which way the agent ended.
    pub run: Run,
    /// Settings that the collector sent.
    pub profile: Option<Profile>,
}

/// Two signed checkpoints that contradict each other.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contradiction {
    /// The one that the agent held.
    pub held: Checkpoint,
    /// The one that it was shown.
    pub shown: Checkpoint,
    /// When, host's clock.
    pub notice_time: Timestamp,
}

/// How far coverage reached, and in which way the agent ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// End of the last coverage, host's clock; unset before the first.
    pub covered_until: Option<Timestamp>,
    /// Whether the agent stopped in order after it.
    pub stopped: bool,
    /// Version of the agent that wrote this.
    pub agent_version: String,
    /// Boot in which it ran, hex.
    pub boot_id: String,
}

/// Settings that the collector sent.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its revision, from 1.
    pub revision: u64,
    /// Probe (its number in the contract) and seconds between its looks.
    pub interval_seconds: Vec<(i32, u32)>,
    /// Paths to watch in place of the agent's own; empty keeps them.
    pub watched_paths: Vec<String>,
    /// Watch sets in place of the agent's own; empty keeps them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watch_sets: Vec<WatchSet>,
}

impl Profile {
    /// Returns the watch sets that it puts in place of the agent's own; none keeps them.
    pub fn sets(&self) -> Vec<WatchSet> {
        if self.watched_paths.is_empty() {
            return self.watch_sets.clone();
        }
        vec![WatchSet::of_paths(PATHS, self.watched_paths.iter().map(PathBuf::from).collect())]
    }
}

impl State {
    /// Returns the state of a new chain.
    pub fn new(epoch: Epoch) -> Self {
        Self {
            version: 1,
            epoch,
            sealed: None,
            durable: None,
            durable_time: None,
            session_nonce: String::new(),
            checkpoint: None,
            proven: None,
            contradiction: None,
            fact_set: None,
            run: Run {
                covered_until: None,
                stopped: false,
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                boot_id: String::new(),
            },
            profile: None,
        }
    }

    /// Returns the place of the next report.
    pub fn next_seq(&self) -> ReportSeq {
        self.sealed.map_or(ReportSeq::FIRST, |sealed| sealed.seq.next())
    }

    /// Returns the file's content.
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_string_pretty(self).expect("a state has text keys alone") + "\n";
        format!("{}\n{body}", Digest::of_bytes(body.as_bytes())).into_bytes()
    }

    /// Returns the state of a file, or why it is not one.
    ///
    /// # Errors
    ///
    /// Says in words what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
        let (digest, body) = text.split_once('\n').ok_or("it has no digest")?;
        if digest.parse() != Ok(Digest::of_bytes(body.as_bytes())) {
            return Err("its digest does not match".to_owned());
        }
        let state: Self = serde_json::from_str(body).map_err(|error| error.to_string())?;
        if state.version != 1 { Err(format!("its version is {}", state.version)) } else { Ok(state) }
    }
}
