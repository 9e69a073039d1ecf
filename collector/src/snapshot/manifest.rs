//! `manifest.json`: what a snapshot is, what it was made from, and the digest of each of its files.

use std::collections::BTreeMap;

use muster_proto::{
    id::{AgentId, ControlId, Digest},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// The format that this version writes and reads.
pub const FORMAT: &str = "muster-snapshot/1";
/// Name of the manifest's file.
pub const NAME: &str = "manifest.json";
/// Bytes of a manifest, at most.
pub const LIMIT_BYTES: usize = 256 << 20;

/// A manifest.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: String,
    /// `snapshot`: one instant.
    pub kind: String,
    /// What was asked for.
    pub parameters: Parameters,
    /// The program that made it.
    pub made_by: String,
    /// The collector whose log it rests on; null when the log does not say.
    pub collector: Option<CollectorRef>,
    /// The log.
    pub log: LogRef,
    /// The controls that judged.
    pub catalogue: CatalogueRef,
    /// Hosts whose reports did not add up to the facts that they signed for, ordered: nothing of them can be told.
    pub broken: Vec<BrokenRef>,
    /// Counts. Those of each group add up to its total.
    pub counts: Counts,
    /// Time zone of every time in it.
    pub time_zone: String,
    /// How text cells of CSV files are kept from being formulas.
    pub csv_rule: String,
    /// What it does not show.
    pub limits: Vec<String>,
    /// Each other file.
    pub files: BTreeMap<String, FileRef>,
}

/// What was asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The instant.
    pub as_of: Timestamp,
    /// Entries of the log that it rests on.
    pub log_size: u64,
    /// Controls, ordered; null means all of the catalogue.
    pub controls: Option<Vec<ControlId>>,
    /// Hosts, ordered; null means all that were enrolled and not revoked.
    pub hosts: Option<Vec<AgentId>>,
}

/// A collector.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CollectorRef {
    /// Its name.
    pub name: String,
    /// Log index of the entry that made it.
    pub log_index: u64,
    /// SHA-256 of its CA certificate (DER).
    pub ca_sha256: Option<Digest>,
}

/// A log at a size.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogRef {
    /// Its name.
    pub origin: String,
    /// Key that verifies its checkpoints (signed-note vkey).
    pub key: String,
    /// Entries.
    pub size: u64,
    /// RFC 6962 root hash.
    pub root: Digest,
    /// When the last of the entries was received, collector's clock.
    pub last_received_time: Option<Timestamp>,
    /// Hosts that they enrolled by the instant, in scope or not.
    pub hosts_enrolled: u64,
}

/// A catalogue.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueRef {
    /// Its version.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// Log index of the entry that put it in force; null when the log does not hold it yet.
    pub log_index: Option<u64>,
    /// Controls in it, in scope or not.
    pub controls: u64,
}

/// A host whose reports did not add up.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BrokenRef {
    /// Its agent.
    pub agent_id: AgentId,
    /// Log index of the first report that did not fit the ones before.
    pub log_index: u64,
}

/// Counts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Hosts that were enrolled: those judged and those revoked.
    pub hosts: u64,
    /// Hosts that are judged.
    pub hosts_judged: u64,
    /// Hosts that are not judged because they were revoked.
    pub hosts_revoked: u64,
    /// Of the judged ones: those that never reported.
    pub hosts_without_report: u64,
    /// Controls.
    pub controls: u64,
    /// Verdicts: judged hosts times controls.
    pub results: u64,
    /// The verdicts, by verdict.
    pub verdicts: VerdictCounts,
    /// Passes that rest on the statement of a provider, not on observations alone.
    pub passes_by_statement: u64,
    /// Entries of the log in it.
    pub evidence: u64,
}

/// Verdicts, by verdict. The names are the whole row: only `pass` is pass.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each is the name of its verdict")]
pub struct VerdictCounts {
    pub pass: u64,
    pub fail: u64,
    pub unknown: u64,
    pub no_data: u64,
    pub not_applicable: u64,
    /// Always 0: this version knows no exceptions.
    pub excepted: u64,
}

/// A file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileRef {
    /// SHA-256 of its content.
    pub sha256: Digest,
    /// Bytes of its content.
    pub bytes: u64,
}

impl FileRef {
    /// Returns the reference of a content.
    pub fn of(content: &[u8]) -> Self {
        Self { sha256: Digest::of_bytes(content), bytes: content.len() as u64 }
    }
}

impl VerdictCounts {
    /// Counts a verdict.
    pub fn count(&mut self, verdict: crate::control::Verdict) {
        use crate::control::Verdict;
        *match verdict {
            Verdict::Pass => &mut self.pass,
            Verdict::Fail => &mut self.fail,
            Verdict::Unknown => &mut self.unknown,
            Verdict::NoData => &mut self.no_data,
            Verdict::NotApplicable => &mut self.not_applicable,
        } += 1;
    }

    /// Returns their sum.
    pub fn total(&self) -> u64 {
        self.pass + self.fail + self.unknown + self.no_data + self.not_applicable + self.excepted
    }
}

/// What a snapshot does not show.
pub const LIMITS: &[&str] = &[
    "Facts are what each host's agent observed and signed. They are self-reported: whoever controls a host can make its agent lie \
     about that host, from then on and in its own name.",
    "As of an instant means: by the entries of the log up to the stated size that were received by that instant, or observed by it and \
     received later. When a host was heard last is told by what was received alone. An observation holds until it is older than the \
     control's max_age; after that the verdict is no_data.",
    "Scope, instant, log size and counts are as the collector signed them (manifest.sig): nobody else can drop a host or a report. That \
     the collector itself left out neither a host nor a later report is its claim, and so is broken, the list of hosts whose \
     reports did not add up. \
     A report that is included proves the one before it through the digest that it states; the entries between can be asked for \
     from the log and checked against the same checkpoint.",
    "A pass whose reason begins with \"by the statement of\" rests on the word of a provider about what no agent can see, and not on an \
     observation. The reason names provider, document and span; the operator entered the statement and keeps the document.",
    "A pass whose reason begins with \"with changes that operators acknowledged\" rests on the word of operators that changed files are as \
     they should be. hosts.json (acknowledged_changes) names each path, who said so, when and why; the acts are among the evidence.",
    "received_time and clock_skew_millis are the collector's own measurement. The log proves that they were not changed later, not \
     that they were right.",
    "Times of observations are of the host's clock, moved by the measured skew where they are compared with the instant. A host's \
     reports count up to the first that is later than the instant.",
    "A mapping of a control says that its evidence supports a requirement, never that the requirement is met. This is no audit \
     opinion.",
    "Who asked for a snapshot, and when, is not in it, so that the same call gives the same bytes: it is in the log, as an act that \
     states the SHA-256 of the file.",
];
