//! What the agent tells the person at its own host: `status.json`, and what can be read beside it while the agent runs.
//!
//! Files alone, no socket: the agent has no inbound port of any kind.

mod show;

use std::{path::Path, time::Duration};

use crate::fim::progress;
use muster_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use show::{Options, show};

/// A running agent writes its status at least about this often, unless the disk is full.
pub const WRITTEN_EVERY: Duration = Duration::from_secs(60);

/// State of a running agent, replaced as a whole whenever it changes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// Version of the agent.
    pub agent_version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub start_time: Timestamp,
    /// When this was written.
    pub write_time: Timestamp,
    /// What it does.
    pub phase: Phase,
    /// The link to the collector.
    pub uplink: Link,
    /// Since when reports are held back because the spool is full.
    pub held_since_time: Option<Timestamp>,
    /// Why they are.
    #[serde(default)]
    pub held_reason: Option<String>,
    /// The last look of each probe, in order of probe.
    pub probes: Vec<ProbeStatus>,
    /// The scan of watched files that was under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<progress::Shown>,
    /// Whether the kernel tells who changes watched files, and why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<String>,
}

/// What the agent does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has no identity and waits for the enrolment file.
    Waiting {
        /// Why it has none yet, and what to do.
        reason: String,
    },
    /// It looks and reports.
    Running,
    /// It was asked to stop, and did.
    Stopped,
}

/// The link to the collector.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Link {
    /// Whether a stream is open.
    pub is_up: bool,
    /// When the collector last answered.
    pub last_contact_time: Option<Timestamp>,
    /// Host's clock minus collector's clock then, in milliseconds.
    pub clock_skew_millis: Option<i64>,
    /// Why there is no stream.
    pub error: Option<String>,
    /// Whether someone must do something about it.
    pub needs_someone: bool,
    /// When the next stream is tried.
    pub next_try_time: Option<Timestamp>,
}

/// The last look of a probe.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ProbeStatus {
    /// The probe.
    pub probe: String,
    /// When its last look ended.
    pub last_look_time: Timestamp,
    /// How long it took, in milliseconds.
    pub took_millis: u64,
    /// Looks since the agent started.
    pub looks: u64,
    /// `done`, or what went wrong.
    pub outcome: String,
}

impl Status {
    /// Writes the status into the state folder. It is for people: it is renamed into place but not synced.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, state_directory: &Path) -> std::io::Result<()> {
        let beside = state_directory.join("status.json.new");
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let written =
            std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, state_directory.join("status.json")));
        if written.is_err() {
            // What a full disk left of it; the error that counts is the first.
            let _ = std::fs::remove_file(&beside);
        }
        written
    }

    /// Reads the status of the state folder; `None` when no agent wrote one.
    pub fn read(state_directory: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(state_directory.join("status.json")).ok()?).ok()
    }
}
