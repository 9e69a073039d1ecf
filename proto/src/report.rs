//! One place in an agent's chain, as a domain type: parsed and checked, or built and encoded.

use std::fmt;

use prost::Message as _;

use crate::{
    fact::Text,
    id::{AgentId, Digest, Epoch, ReportSeq},
    limits,
    time::Timestamp,
    v1,
};

pub use crate::v1::{GapCause, LifecycleKind, Probe};

/// Every probe, in order of number.
pub const PROBES: [Probe; 15] = [
    Probe::System,
    Probe::DiskEncryption,
    Probe::PatchLevel,
    Probe::Firewall,
    Probe::FileIntegrity,
    Probe::Accounts,
    Probe::RemoteAccess,
    Probe::ScreenLock,
    Probe::RemovableMedia,
    Probe::Sensors,
    Probe::Clock,
    Probe::Logging,
    Probe::Boot,
    Probe::Capacity,
    Probe::Backup,
];

/// Bytes are not a report that the contract allows.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// They are not an encoded `Report`.
    #[error("report is not a protobuf message of the contract")]
    Encoding,
    /// A field has no value that the contract allows.
    #[error("report field {0} is missing or outside its range")]
    Field(&'static str),
    /// An enum value or a body that this version does not know.
    #[error("report field {0} has a value that this version does not know")]
    UnknownKind(&'static str),
}

/// One place in an agent's chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Whose.
    pub agent: AgentId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place in the epoch.
    pub seq: ReportSeq,
    /// Digest of the sealed report before it; `None` for the first place.
    pub previous: Option<Digest>,
    /// Host's clock when it was sealed.
    pub observed: Timestamp,
    /// Kernel's boot id.
    pub boot_id: [u8; 16],
    /// Milliseconds since boot, suspend included.
    pub since_boot_millis: u64,
    /// Version of the agent.
    pub agent_version: Text,
    /// Revision of the profile in force; 0 means the agent's own defaults.
    pub profile_revision: u64,
    /// The newest checkpoint that the agent holds.
    pub last_checkpoint: Option<CheckpointRef>,
    /// What is reported.
    pub body: Body,
}

/// A size and root of an evidence log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckpointRef {
    /// The log: the origin of its checkpoints.
    pub origin: Text,
    /// Entries in the log.
    pub size: u64,
    /// RFC 6962 root hash.
    pub root: Digest,
}

/// What is reported.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// Subjects changed.
    Facts(Facts),
    /// Nothing changed.
    Attestation(Attestation),
    /// Something was not observed or not kept.
    Gap(Gap),
    /// Something happened to the agent.
    Lifecycle(Lifecycle),
}

/// The subjects that changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// Whole subjects.
    pub subjects: Vec<SubjectFact>,
    /// A part of a subject too large for one report.
    pub part: Option<SubjectPart>,
    /// Digest of the complete fact set after this report.
    pub fact_set_digest: Digest,
    /// Looks since the last report that carried a coverage.
    pub coverage: Coverage,
    /// Whether the fact set was emptied before this report.
    pub resync: bool,
}

/// A subject's whole fact, still encoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubjectFact {
    /// Host's clock when the look ended.
    pub observed: Timestamp,
    /// An encoded `Fact`.
    pub fact: Vec<u8>,
}

/// A part of an encoded fact.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubjectPart {
    /// Host's clock when the look ended.
    pub observed: Timestamp,
    /// From 0.
    pub index: u32,
    /// Parts in all.
    pub count: u32,
    /// SHA-256 of the whole encoded fact.
    pub digest: Digest,
    /// The bytes of this part.
    pub bytes: Vec<u8>,
}

/// Nothing changed over the span of the coverage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attestation {
    /// Digest of the fact set.
    pub fact_set_digest: Digest,
    /// The span and the looks in it.
    pub coverage: Coverage,
}

/// The looks made in `[start, end)`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Coverage {
    /// Start of the span, host's clock.
    pub start: Timestamp,
    /// End of the span.
    pub end: Timestamp,
    /// One for each probe that looked, in order of probe.
    pub looks: Vec<ProbeLooks>,
    /// Milliseconds of the span during which the host was suspended.
    pub suspended_millis: u64,
    /// Look-now directives that these looks answer.
    pub directive_ids: Vec<u64>,
}

/// How often a probe looked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProbeLooks {
    /// The probe.
    pub probe: Probe,
    /// Looks that ended in the span.
    pub count: u32,
    /// End of the last of them, before the end of the span.
    pub last_before_end_millis: u64,
    /// Largest time between the ends of two looks that follow each other.
    pub largest_gap_millis: u64,
}

impl Coverage {
    /// Returns when `probe` looked last in the span, host's clock.
    pub fn last_look(&self, probe: Probe) -> Option<Timestamp> {
        let looks = self.looks.iter().find(|looks| looks.probe == probe)?;
        Some(self.end.minus(std::time::Duration::from_millis(looks.last_before_end_millis)))
    }
}

/// Something was not observed, or observed and not kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gap {
    /// Why.
    pub cause: GapCause,
    /// Start of the span, host's clock.
    pub start: Timestamp,
    /// End of the span.
    pub end: Timestamp,
    /// Sequence numbers that were used up and lost.
    pub lost: Option<Lost>,
    /// What was lost, by kind, in order of kind.
    pub counts: Vec<(GapKind, u64)>,
    /// For a person.
    pub detail: Text,
}

/// What a gap counts, in order of name.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum GapKind {
    /// Notices of changed files that the kernel dropped.
    Events,
    /// Looks that were not reported.
    Looks,
    /// Time in which nobody looked, or by which the clock was set.
    Milliseconds,
    /// Reports that were not kept.
    Reports,
}

impl GapKind {
    /// Every kind, in order.
    pub const ALL: [Self; 4] = [Self::Events, Self::Looks, Self::Milliseconds, Self::Reports];

    /// Returns the word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Looks => "looks",
            Self::Milliseconds => "milliseconds",
            Self::Reports => "reports",
        }
    }

    /// Returns the kind that `text` names, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for GapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Sequence numbers that were used up and lost. The report that says so follows the last of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lost {
    /// The first.
    pub first: ReportSeq,
    /// The last, inclusive.
    pub last: ReportSeq,
    /// Digest of the sealed report before the first; `None` when the first is the first place.
    pub digest_before: Option<Digest>,
}

/// Something happened to the agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lifecycle {
    /// What.
    pub kind: LifecycleKind,
    /// For a person.
    pub detail: Text,
    /// For an epoch's start alone: the epoch before, and the last place in it that the agent knows; 0 when none.
    pub previous: Option<(Epoch, u64)>,
    /// For a crashed probe, always, and for nothing else: which.
    pub probe: Option<Probe>,
}

impl Report {
    /// Returns the report of `bytes`, every field checked.
    ///
    /// # Errors
    ///
    /// Says which field is not what the contract allows.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let wire = v1::Report::decode(bytes).map_err(|_| Error::Encoding)?;
        let seq = ReportSeq::new(wire.sequence).ok_or(Error::Field("sequence"))?;
        let previous = optional(&wire.previous_digest, "previous_digest")?;
        let body = match wire.body.ok_or(Error::UnknownKind("body"))? {
            v1::report::Body::Facts(facts) => Body::Facts(decode_facts(facts)?),
            v1::report::Body::Attestation(attestation) => Body::Attestation(Attestation {
                fact_set_digest: digest(&attestation.fact_set_digest, "fact_set_digest")?,
                coverage: decode_coverage(attestation.coverage)?,
            }),
            v1::report::Body::Gap(gap) => Body::Gap(decode_gap(gap)?),
            v1::report::Body::Lifecycle(lifecycle) => Body::Lifecycle(decode_lifecycle(lifecycle)?),
        };
        // The chain has one shape: nothing before the first place, something before every other.
        if (seq == ReportSeq::FIRST) != previous.is_none() {
            return Err(Error::Field("previous_digest"));
        }
        Ok(Self {
            agent: AgentId::from_slice(&wire.agent_id).ok_or(Error::Field("agent_id"))?,
            epoch: Epoch::from_slice(&wire.epoch).ok_or(Error::Field("epoch"))?,
            seq,
            previous,
            observed: time(wire.observed_time, "observed_time")?,
            boot_id: wire.boot_id.as_slice().try_into().map_err(|_| Error::Field("boot_id"))?,
            since_boot_millis: wire.since_boot_millis,
            agent_version: text(wire.agent_version, limits::VERSION_BYTES, "agent_version")?,
            profile_revision: wire.profile_revision,
            last_checkpoint: wire
                .last_checkpoint
                .map(|checkpoint| CheckpointRef::from_wire(&checkpoint))
                .transpose()?,
            body,
        })
    }

    /// Returns the encoded report.
    pub fn encode(&self) -> Vec<u8> {
        let body = match &self.body {
            Body::Facts(facts) => v1::report::Body::Facts(encode_facts(facts)),
            Body::Attestation(attestation) => v1::report::Body::Attestation(v1::Attestation {
                fact_set_digest: attestation.fact_set_digest.as_bytes().to_vec(),
                coverage: Some(encode_coverage(&attestation.coverage)),
            }),
            Body::Gap(gap) => v1::report::Body::Gap(encode_gap(gap)),
            Body::Lifecycle(lifecycle) => v1::report::Body::Lifecycle(encode_lifecycle(lifecycle)),
        };
        v1::Report {
            agent_id: self.agent.as_bytes().to_vec(),
            epoch: self.epoch.as_bytes().to_vec(),
            sequence: self.seq.number(),
            previous_digest: self.previous.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default(),
            observed_time: Some(self.observed.to_wire()),
            boot_id: self.boot_id.to_vec(),
            since_boot_millis: self.since_boot_millis,
            agent_version: self.agent_version.as_str().to_owned(),
            profile_revision: self.profile_revision,
            last_checkpoint: self.last_checkpoint.as_ref().map(CheckpointRef::to_wire),
            body: Some(body),
        }
        .encode_to_vec()
    }
}

impl CheckpointRef {
    /// Returns the reference of a wire form.
    ///
    /// # Errors
    ///
    /// When the root is not 32 bytes, or the origin is empty or too long.
    pub fn from_wire(wire: &v1::CheckpointRef) -> Result<Self, Error> {
        let origin = text(wire.origin.clone(), limits::ORIGIN_BYTES, "last_checkpoint.origin")?;
        if origin.is_empty() {
            return Err(Error::Field("last_checkpoint.origin"));
        }
        Ok(Self { origin, size: wire.size, root: digest(&wire.root, "last_checkpoint.root")? })
    }

    /// Returns the wire form.
    pub fn to_wire(&self) -> v1::CheckpointRef {
        v1::CheckpointRef {
            size: self.size,
            root: self.root.as_bytes().to_vec(),
            origin: self.origin.as_str().to_owned(),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Facts(_) => "facts",
            Self::Attestation(_) => "attestation",
            Self::Gap(_) => "gap",
            Self::Lifecycle(_) => "lifecycle",
        })
    }
}

fn decode_facts(wire: v1::Facts) -> Result<Facts, Error> {
    if wire.subjects.len() > limits::REPORT_SUBJECTS {
        return Err(Error::Field("subjects"));
    }
    let subjects = wire
        .subjects
        .into_iter()
        .map(|subject| {
            Ok(SubjectFact { observed: time(subject.observed_time, "subjects.observed_time")?, fact: subject.fact })
        })
        .collect::<Result<_, Error>>()?;
    let part = wire
        .part
        .map(|part| {
            if !(2..=limits::SUBJECT_PARTS).contains(&part.count) || part.index >= part.count {
                return Err(Error::Field("part.index"));
            }
            Ok(SubjectPart {
                observed: time(part.observed_time, "part.observed_time")?,
                index: part.index,
                count: part.count,
                digest: digest(&part.digest, "part.digest")?,
                bytes: part.bytes,
            })
        })
        .transpose()?;
    Ok(Facts {
        subjects,
        part,
        fact_set_digest: digest(&wire.fact_set_digest, "fact_set_digest")?,
        coverage: decode_coverage(wire.coverage)?,
        resync: wire.resync,
    })
}

fn encode_facts(facts: &Facts) -> v1::Facts {
    v1::Facts {
        subjects: facts
            .subjects
            .iter()
            .map(|subject| v1::SubjectFact {
                observed_time: Some(subject.observed.to_wire()),
                fact: subject.fact.clone(),
            })
            .collect(),
        part: facts.part.as_ref().map(|part| v1::SubjectPart {
            observed_time: Some(part.observed.to_wire()),
            index: part.index,
            count: part.count,
            digest: part.digest.as_bytes().to_vec(),
            bytes: part.bytes.clone(),
        }),
        fact_set_digest: facts.fact_set_digest.as_bytes().to_vec(),
        coverage: Some(encode_coverage(&facts.coverage)),
        resync: facts.resync,
    }
}

fn decode_coverage(wire: Option<v1::Coverage>) -> Result<Coverage, Error> {
    let wire = wire.ok_or(Error::Field("coverage"))?;
    let (start, end) = span(wire.start_time, wire.end_time)?;
    let looks = wire
        .looks
        .iter()
        .map(|looks| {
            if looks.count == 0 {
                return Err(Error::Field("coverage.looks.count"));
            }
            Ok(ProbeLooks {
                probe: probe(looks.probe)?,
                count: looks.count,
                last_before_end_millis: looks.last_before_end_millis,
                largest_gap_millis: looks.largest_gap_millis,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    if !looks.is_sorted_by(|a, b| a.probe < b.probe) {
        return Err(Error::Field("coverage.looks"));
    }
    if wire.directive_ids.len() > limits::DIRECTIVE_IDS {
        return Err(Error::Field("coverage.directive_ids"));
    }
    Ok(Coverage { start, end, looks, suspended_millis: wire.suspended_millis, directive_ids: wire.directive_ids })
}

fn encode_coverage(coverage: &Coverage) -> v1::Coverage {
    v1::Coverage {
        start_time: Some(coverage.start.to_wire()),
        end_time: Some(coverage.end.to_wire()),
        looks: coverage
            .looks
            .iter()
            .map(|looks| v1::ProbeLooks {
                probe: looks.probe.into(),
                count: looks.count,
                last_before_end_millis: looks.last_before_end_millis,
                largest_gap_millis: looks.largest_gap_millis,
            })
            .collect(),
        suspended_millis: coverage.suspended_millis,
        directive_ids: coverage.directive_ids.clone(),
    }
}

fn decode_gap(wire: v1::Gap) -> Result<Gap, Error> {
    let cause = match GapCause::try_from(wire.cause) {
        Ok(GapCause::Unspecified) | Err(_) => return Err(Error::UnknownKind("gap.cause")),
        Ok(cause) => cause,
    };
    let (start, end) = span(wire.start_time, wire.end_time)?;
    let digest_before = optional(&wire.digest_before, "gap.digest_before")?;
    let lost = match (wire.first_sequence, wire.last_sequence) {
        (0, 0) => None,
        (first, last) if first <= last => Some(Lost {
            first: ReportSeq::new(first).ok_or(Error::Field("gap.first_sequence"))?,
            last: ReportSeq::new(last).ok_or(Error::Field("gap.last_sequence"))?,
            digest_before,
        }),
        _ => return Err(Error::Field("gap.last_sequence")),
    };
    // A report stands before the first lost one, unless nothing is lost or that one is the first of all.
    if lost.is_some_and(|lost| lost.first != ReportSeq::FIRST) != digest_before.is_some() {
        return Err(Error::Field("gap.digest_before"));
    }
    let counts = wire
        .counts
        .iter()
        .map(|count| Ok((GapKind::parse(&count.kind).ok_or(Error::UnknownKind("gap.counts.kind"))?, count.count)))
        .collect::<Result<Vec<_>, Error>>()?;
    if !counts.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(Error::Field("gap.counts"));
    }
    Ok(Gap { cause, start, end, lost, counts, detail: text(wire.detail, limits::DETAIL_BYTES, "gap.detail")? })
}

fn encode_gap(gap: &Gap) -> v1::Gap {
    v1::Gap {
        cause: gap.cause.into(),
        start_time: Some(gap.start.to_wire()),
        end_time: Some(gap.end.to_wire()),
        first_sequence: gap.lost.map(|lost| lost.first.number()).unwrap_or_default(),
        last_sequence: gap.lost.map(|lost| lost.last.number()).unwrap_or_default(),
        digest_before: gap
            .lost
            .and_then(|lost| lost.digest_before)
            .map(|digest| digest.as_bytes().to_vec())
            .unwrap_or_default(),
        counts: gap
            .counts
            .iter()
            .map(|(kind, count)| v1::GapCount { kind: kind.as_str().to_owned(), count: *count })
            .collect(),
        detail: gap.detail.as_str().to_owned(),
    }
}

fn decode_lifecycle(wire: v1::Lifecycle) -> Result<Lifecycle, Error> {
    let kind = match LifecycleKind::try_from(wire.kind) {
        Ok(LifecycleKind::Unspecified) | Err(_) => return Err(Error::UnknownKind("lifecycle.kind")),
        Ok(kind) => kind,
    };
    let previous = match (kind, wire.previous_epoch.as_slice(), wire.previous_sequence) {
        (_, [], 0) => None,
        (LifecycleKind::EpochStarted, epoch @ [_, ..], last) if last <= ReportSeq::MAX_NUMBER => {
            Some((Epoch::from_slice(epoch).ok_or(Error::Field("lifecycle.previous_epoch"))?, last))
        }
        (LifecycleKind::EpochStarted, ..) => return Err(Error::Field("lifecycle.previous_sequence")),
        (_, [_, ..], _) => return Err(Error::Field("lifecycle.previous_epoch")),
        (_, [], _) => return Err(Error::Field("lifecycle.previous_sequence")),
    };
    let crashed = match (kind, wire.probe) {
        (LifecycleKind::ProbeCrashed, number) => Some(probe(number)?),
        (_, 0) => None,
        _ => return Err(Error::Field("lifecycle.probe")),
    };
    Ok(Lifecycle {
        kind,
        detail: text(wire.detail, limits::DETAIL_BYTES, "lifecycle.detail")?,
        previous,
        probe: crashed,
    })
}

fn encode_lifecycle(lifecycle: &Lifecycle) -> v1::Lifecycle {
    v1::Lifecycle {
        kind: lifecycle.kind.into(),
        detail: lifecycle.detail.as_str().to_owned(),
        previous_epoch: lifecycle.previous.map(|(epoch, _)| epoch.as_bytes().to_vec()).unwrap_or_default(),
        previous_sequence: lifecycle.previous.map(|(_, seq)| seq).unwrap_or_default(),
        probe: lifecycle.probe.map(i32::from).unwrap_or_default(),
    }
}

fn probe(number: i32) -> Result<Probe, Error> {
    match Probe::try_from(number) {
        Ok(Probe::Unspecified) | Err(_) => Err(Error::UnknownKind("probe")),
        Ok(probe) => Ok(probe),
    }
}

fn digest(bytes: &[u8], field: &'static str) -> Result<Digest, Error> {
    Digest::from_slice(bytes).ok_or(Error::Field(field))
}

fn optional(bytes: &[u8], field: &'static str) -> Result<Option<Digest>, Error> {
    if bytes.is_empty() { Ok(None) } else { digest(bytes, field).map(Some) }
}

fn time(wire: Option<prost_types::Timestamp>, field: &'static str) -> Result<Timestamp, Error> {
    wire.as_ref().and_then(Timestamp::from_wire).ok_or(Error::Field(field))
}

fn span(
    start: Option<prost_types::Timestamp>,
    end: Option<prost_types::Timestamp>,
) -> Result<(Timestamp, Timestamp), Error> {
    let (start, end) = (time(start, "start_time")?, time(end, "end_time")?);
    if start > end { Err(Error::Field("end_time")) } else { Ok((start, end)) }
}

fn text(text: String, limit_bytes: usize, field: &'static str) -> Result<Text, Error> {
    if text.len() > limit_bytes {
        return Err(Error::Field(field));
    }
    Text::parse(text).ok_or(Error::Field(field))
}

#[cfg(test)]
pub(crate) mod tests;
