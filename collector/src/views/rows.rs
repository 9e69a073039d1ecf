//! What rows hold, as values, and the packed forms of lists in them.

use std::time::Duration;

use muster_proto::{
    fact::Subject,
    id::{AgentId, Digest, Epoch},
    report::{PROBES, Probe},
    time::Timestamp,
    v1,
};

use crate::control::reports::on_collector;

/// Where an agent stands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum HostState {
    /// Enrolled; nothing reported so far.
    Enrolled,
    /// Reporting.
    Active,
    /// Frozen by a conflict until an operator decides.
    Frozen,
    /// Revoked: nothing more is taken from it.
    Revoked,
}

impl HostState {
    /// Every state, in order.
    pub const ALL: [Self; 4] = [Self::Enrolled, Self::Active, Self::Frozen, Self::Revoked];

    /// Returns its name, such as `active`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Active => "active",
            Self::Frozen => "frozen",
            Self::Revoked => "revoked",
        }
    }

    /// Returns the wire form.
    pub fn to_wire(self) -> v1::HostState {
        match self {
            Self::Enrolled => v1::HostState::Enrolled,
            Self::Active => v1::HostState::Active,
            Self::Frozen => v1::HostState::Frozen,
            Self::Revoked => v1::HostState::Revoked,
        }
    }

    pub(super) fn number(self) -> i64 {
        self as i64
    }

    pub(super) fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }
}

/// The last look of a probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Look {
    /// Log index of the report that says so.
    pub log_index: u64,
    /// When it ended, host's clock.
    pub ended: Timestamp,
    /// The same on the collector's clock: less the skew in that report, and never after it was received.
    pub confirmed: Timestamp,
}

/// Bytes of a look in packed form: the probe's place in [`PROBES`], then log index and two times, 8 bytes each.
const LOOK_BYTES: usize = 1 + 3 * 8;

/// The last look of each probe.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Looks([Option<Look>; PROBES.len()]);

impl Looks {
    /// Returns the last look of `probe`.
    pub fn get(&self, probe: Probe) -> Option<Look> {
        self.0.get(Self::place(probe)?).copied().flatten()
    }

    /// Sets the last look of `probe`.
    pub fn set(&mut self, probe: Probe, look: Look) {
        if let Some(place) = Self::place(probe) {
            self.0[place] = Some(look);
        }
    }

    /// Returns the probes that looked, and when.
    pub fn iter(&self) -> impl Iterator<Item = (Probe, Look)> {
        PROBES.into_iter().zip(self.0).filter_map(|(probe, look)| Some((probe, look?)))
    }

    /// Adds the looks of a coverage, which came in the report at `log_index`.
    pub fn add(
        &mut self,
        coverage: &muster_proto::report::Coverage,
        log_index: u64,
        skew_millis: i64,
        received: Timestamp,
    ) {
        for looks in &coverage.looks {
            let ended = coverage.end.minus(Duration::from_millis(looks.last_before_end_millis));
            self.set(looks.probe, Look { log_index, ended, confirmed: on_collector(ended, skew_millis, received) });
        }
    }

    fn place(probe: Probe) -> Option<usize> {
        PROBES.iter().position(|known| *known == probe)
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * LOOK_BYTES);
        for (place, look) in self.0.iter().enumerate() {
            let Some(look) = look else { continue };
            bytes.push(u8::try_from(place).expect("there are fewer than 256 probes"));
            bytes.extend(look.log_index.to_be_bytes());
            bytes.extend(look.ended.micros().to_be_bytes());
            bytes.extend(look.confirmed.micros().to_be_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut looks = Self::default();
        for chunk in bytes.chunks(LOOK_BYTES) {
            let (place, rest) = chunk.split_first()?;
            let (index, rest) = rest.split_first_chunk::<8>()?;
            let (ended, rest) = rest.split_first_chunk::<8>()?;
            let confirmed = <[u8; 8]>::try_from(rest).ok()?;
            *looks.0.get_mut(usize::from(*place))? = Some(Look {
                log_index: u64::from_be_bytes(*index),
                ended: Timestamp::from_micros(i64::from_be_bytes(*ended))?,
                confirmed: Timestamp::from_micros(i64::from_be_bytes(confirmed))?,
            });
        }
        Some(looks)
    }
}

/// Reports that do not add up to a fact set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broken {
    /// Log index of the first report that did not fit.
    pub log_index: u64,
    /// When it was received.
    pub time: Timestamp,
    /// What did not fit.
    pub detail: String,
}

/// Reports of one agent that follow each other in its chain and in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// Their epoch.
    pub epoch: Epoch,
    /// Place of the first.
    pub first_seq: u64,
    /// Place of the last.
    pub last_seq: u64,
    /// Log index of the first.
    pub first_index: u64,
    /// Log index of the last.
    pub last_index: u64,
    /// When the first was received.
    pub first_time: Timestamp,
    /// When the last was received.
    pub last_time: Timestamp,
    /// When the last was sealed, host's clock.
    pub observed: Timestamp,
    /// Until when the last speaks, host's clock.
    pub through: Timestamp,
    /// Skew of the host's clock in the last.
    pub skew_millis: i64,
    /// Last looks after the last of them.
    pub looks: Looks,
}

/// The last durable report of an agent's epoch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Whose.
    pub agent: AgentId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place.
    pub seq: u64,
    /// Digest of the sealed report.
    pub digest: Digest,
    /// Its log index.
    pub log_index: u64,
}

/// An agent as the log has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentRow {
    /// Whose.
    pub agent: AgentId,
    /// Where it stands.
    pub state: HostState,
    /// Log index and time of its first enrolment.
    pub enrolled: Option<(u64, Timestamp)>,
    /// The run that its last report is in; the report's own place, index and times are the run's last.
    pub run: Option<Run>,
    /// Digest of its fact set.
    pub set_digest: Digest,
    /// Set while its reports do not add up.
    pub broken: Option<Broken>,
    /// When they added up again last: the received time of the report.
    pub mended: Option<Timestamp>,
    /// When controls that time alone can turn were judged last.
    pub judged_at: Timestamp,
    /// Version of its agent.
    pub agent_version: String,
    /// Name that it gives itself; may be empty.
    pub hostname: String,
    /// `ID` of its os-release; may be empty.
    pub os_id: String,
    /// `VERSION_ID` of its os-release; may be empty.
    pub os_version: String,
    /// Its class; may be empty.
    pub host_class: String,
    /// Revision of the profile that was in force when it made its last report; 0 means its own defaults.
    pub profile_revision: u64,
}

impl AgentRow {
    /// Returns an agent of which nothing is known.
    pub fn new(agent: AgentId, empty_set: Digest) -> Self {
        Self {
            agent,
            state: HostState::Enrolled,
            enrolled: None,
            run: None,
            set_digest: empty_set,
            broken: None,
            mended: None,
            judged_at: Timestamp::EPOCH,
            agent_version: String::new(),
            hostname: String::new(),
            os_id: String::new(),
            os_version: String::new(),
            host_class: String::new(),
            profile_revision: 0,
        }
    }

    /// Returns the last looks of its probes.
    pub fn looks(&self) -> Looks {
        self.run.map(|run| run.looks).unwrap_or_default()
    }
}

/// A fact under way in parts.
pub type Partial = muster_proto::fact_set::Partial<u64>;

/// Returns log indexes as bytes, 8 each.
pub(super) fn pack(indexes: &[u64]) -> Vec<u8> {
    indexes.iter().flat_map(|index| index.to_be_bytes()).collect()
}

/// Returns log indexes of bytes.
pub(super) fn unpack(bytes: &[u8]) -> Option<Vec<u64>> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect())
}

/// Returns the subject of a name.
pub(super) fn subject(name: &str) -> Option<Subject> {
    Subject::ALL.into_iter().find(|subject| subject.as_str() == name)
}
