//! Reports over the wire: what is built survives, what is damaged never panics, what does not fit together is refused.

use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::*;
use crate::fact::sample;

fn times() -> impl Strategy<Value = Timestamp> {
    (0..32_503_679_999_999_999_i64).prop_map(|micros| Timestamp::from_micros(micros).unwrap())
}

fn digests() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::new)
}

fn texts(limit_bytes: usize) -> impl Strategy<Value = Text> {
    any::<String>().prop_map(move |text| Text::cut(&text, limit_bytes))
}

/// Places after the first.
fn later_places() -> impl Strategy<Value = ReportSeq> {
    (2..=ReportSeq::MAX_NUMBER).prop_map(|number| ReportSeq::new(number).unwrap())
}

fn probes() -> impl Strategy<Value = Probe> {
    (1..=5).prop_map(|number| Probe::try_from(number).unwrap())
}

fn coverages() -> impl Strategy<Value = Coverage> {
    let looks =
        vec((1..=5, 1..=u32::MAX, any::<u64>(), any::<u64>()), 0..6).prop_map(|looks| {
            let looks: std::collections::BTreeMap<i32, _> =
                looks.into_iter().map(|(probe, count, last, gap)| (probe, (count, last, gap))).collect();
            let looks = looks.into_iter().map(|(probe, (count, last_before_end_millis, largest_gap_millis))| {
                ProbeLooks { probe: Probe::try_from(probe).unwrap(), count, last_before_end_millis, largest_gap_millis }
            });
            looks.collect()
        });
    let directives = vec(any::<u64>(), 0..=limits::DIRECTIVE_IDS);
    (times(), times(), looks, any::<u64>(), directives).prop_map(|(a, b, looks, suspended_millis, directive_ids)| {
        Coverage { start: a.min(b), end: a.max(b), looks, suspended_millis, directive_ids }
    })
}

fn facts() -> impl Strategy<Value = Body> {
    let subjects = vec((times(), vec(any::<u8>(), 0..40)), 0..4)
        .prop_map(|subjects| subjects.into_iter().map(|(observed, fact)| SubjectFact { observed, fact }).collect());
    let part = (times(), 2..=limits::SUBJECT_PARTS, any::<Index>(), digests(), vec(any::<u8>(), 0..40)).prop_map(
        |(observed, count, index, digest, bytes)| {
            let index = u32::try_from(index.index(count as usize)).unwrap();
            SubjectPart { observed, index, count, digest, bytes }
        },
    );
    (subjects, option::of(part), digests(), coverages(), any::<bool>()).prop_map(
        |(subjects, part, fact_set_digest, coverage, resync)| {
            Body::Facts(Facts { subjects, part, fact_set_digest, coverage, resync })
        },
    )
}

fn gaps() -> impl Strategy<Value = Body> {
    let lost = prop_oneof![
        (later_places(), later_places(), digests()).prop_map(|(a, b, digest)| Lost {
            first: a.min(b),
            last: a.max(b),
            digest_before: Some(digest)
        }),
        later_places().prop_map(|last| Lost { first: ReportSeq::FIRST, last, digest_before: None }),
    ];
    let counts = vec(any::<u64>(), 4).prop_flat_map(|counts| {
        proptest::sample::subsequence(GapKind::ALL.into_iter().zip(counts).collect::<Vec<_>>(), 0..=4)
    });
    (1..=7, times(), times(), option::of(lost), counts, texts(limits::DETAIL_BYTES)).prop_map(
        |(cause, a, b, lost, counts, detail)| {
            let cause = GapCause::try_from(cause).unwrap();
            Body::Gap(Gap { cause, start: a.min(b), end: a.max(b), lost, counts, detail })
        },
    )
}

fn lifecycles() -> impl Strategy<Value = Body> {
    let previous = option::of((any::<[u8; 16]>().prop_map(Epoch::new), 0..=ReportSeq::MAX_NUMBER));
    (1..=7, texts(limits::DETAIL_BYTES), previous, probes()).prop_map(|(kind, detail, previous, probe)| {
        let kind = LifecycleKind::try_from(kind).unwrap();
        Body::Lifecycle(Lifecycle {
            kind,
            detail,
            previous: previous.filter(|_| kind == LifecycleKind::EpochStarted),
            probe: (kind == LifecycleKind::ProbeCrashed).then_some(probe),
        })
    })
}

fn bodies() -> impl Strategy<Value = Body> {
    let attestations = (digests(), coverages())
        .prop_map(|(fact_set_digest, coverage)| Body::Attestation(Attestation { fact_set_digest, coverage }));
    prop_oneof![facts(), attestations, gaps(), lifecycles()]
}

fn reports() -> impl Strategy<Value = Report> {
    let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u8; 16]>());
    let place = option::of((later_places(), digests()));
    let origin = texts(limits::ORIGIN_BYTES).prop_filter("an origin has a name", |origin| !origin.is_empty());
    let checkpoint =
        (origin, any::<u64>(), digests()).prop_map(|(origin, size, root)| CheckpointRef { origin, size, root });
    let rest = (times(), any::<u64>(), texts(limits::VERSION_BYTES), any::<u64>(), option::of(checkpoint));
    (ids, place, rest, bodies()).prop_map(|((agent, epoch, boot_id), place, rest, body)| {
        let (observed, since_boot_millis, agent_version, profile_revision, last_checkpoint) = rest;
        Report {
            agent: AgentId::new(agent),
            epoch: Epoch::new(epoch),
            seq: place.map_or(ReportSeq::FIRST, |(seq, _)| seq),
            previous: place.map(|(_, previous)| previous),
            observed,
            boot_id,
            since_boot_millis,
            agent_version,
            profile_revision,
            last_checkpoint,
            body,
        }
    })
}

/// Ways to damage bytes that are otherwise good.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Flip(Index, u8),
    Cut(Index),
    /// Puts a piece of the bytes to another place of them.
    Splice(Index, Index, Index),
}

impl Damage {
    pub(crate) fn any() -> impl Strategy<Value = Vec<Self>> {
        let one = prop_oneof![
            4 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Self::Flip(at, bit)),
            1 => any::<Index>().prop_map(Self::Cut),
            2 => (any::<Index>(), any::<Index>(), any::<Index>()).prop_map(|(a, b, to)| Self::Splice(a, b, to)),
        ];
        vec(one, 1..4)
    }

    pub(crate) fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Splice(a, b, to) => {
                let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
                let piece = bytes[a.min(b)..a.max(b)].to_vec();
                let to = to.index(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

proptest! {
    #[test]
    fn every_report_survives_the_wire(report in reports()) {
        prop_assert_eq!(Report::decode(&report.encode()), Ok(report));
    }

    #[test]
    fn a_damaged_report_never_panics_and_what_decodes_encodes_to_the_same_report(
        report in reports(), damage in Damage::any(),
    ) {
        let mut bytes = report.encode();
        damage.iter().for_each(|damage| damage.apply(&mut bytes));
        if let Ok(read) = Report::decode(&bytes) {
            prop_assert_eq!(Report::decode(&read.encode()), Ok(read));
        }
    }
}

/// Returns a report at place 2 whose body is `body`, as the wire has it.
fn decode_with(body: v1::report::Body) -> Result<Report, Error> {
    let wire = v1::Report {
        agent_id: vec![1; 16],
        epoch: vec![2; 16],
        sequence: 2,
        previous_digest: vec![3; 32],
        observed_time: Some(sample::time(0).to_wire()),
        boot_id: vec![4; 16],
        since_boot_millis: 5,
        agent_version: "0.1.0".to_owned(),
        profile_revision: 0,
        last_checkpoint: None,
        body: Some(body),
    };
    Report::decode(&wire.encode_to_vec())
}

#[test]
fn a_gap_names_the_report_before_exactly_when_one_stands_before_what_it_lost() {
    let gap = |first_sequence, last_sequence, digest_before: &[u8]| {
        let time = Some(sample::time(0).to_wire());
        let digest_before = digest_before.to_vec();
        let cause = GapCause::SpoolDamaged.into();
        let gap = v1::Gap {
            cause,
            start_time: time,
            end_time: time,
            first_sequence,
            last_sequence,
            digest_before,
            ..Default::default()
        };
        decode_with(v1::report::Body::Gap(gap)).map(|_| ())
    };
    let refused = Err(Error::Field("gap.digest_before"));
    assert_eq!(gap(0, 0, &[]), Ok(()));
    assert_eq!(gap(0, 0, &[9; 32]), refused);
    assert_eq!(gap(0, 0, &[9; 7]), refused);
    assert_eq!(gap(1, 1, &[]), Ok(()));
    assert_eq!(gap(1, 1, &[9; 32]), refused);
    assert_eq!(gap(2, 3, &[9; 32]), Ok(()));
    assert_eq!(gap(2, 3, &[]), refused);
    assert_eq!(gap(2, 3, &[9; 31]), refused);
    assert_eq!(gap(0, 3, &[]), Err(Error::Field("gap.first_sequence")));
    assert_eq!(gap(3, 2, &[9; 32]), Err(Error::Field("gap.last_sequence")));
    let beyond = ReportSeq::MAX_NUMBER + 1;
    assert_eq!(gap(2, beyond, &[9; 32]), Err(Error::Field("gap.last_sequence")));
}

#[test]
fn a_gap_counts_each_kind_of_the_contract_once_in_order() {
    let gap = |kinds: &[&str]| {
        let time = Some(sample::time(0).to_wire());
        let counts = kinds.iter().map(|&kind| v1::GapCount { kind: kind.to_owned(), count: 7 }).collect();
        let cause = GapCause::SpoolFull.into();
        let gap = v1::Gap { cause, start_time: time, end_time: time, counts, ..Default::default() };
        decode_with(v1::report::Body::Gap(gap)).map(|_| ())
    };
    assert_eq!(gap(&["events", "looks", "milliseconds", "reports"]), Ok(()));
    assert_eq!(gap(&[]), Ok(()));
    assert_eq!(gap(&["looks", "looks"]), Err(Error::Field("gap.counts")));
    assert_eq!(gap(&["reports", "looks"]), Err(Error::Field("gap.counts")));
    for kind in ["", "Looks", "apples", "\u{1b}[2J"] {
        assert_eq!(gap(&[kind]), Err(Error::UnknownKind("gap.counts.kind")), "{kind:?}");
    }
}

#[test]
fn a_lifecycle_says_only_what_belongs_to_its_kind() {
    let life = |kind: LifecycleKind, previous_epoch: &[u8], previous_sequence, probe| {
        let previous_epoch = previous_epoch.to_vec();
        let kind = kind.into();
        let life = v1::Lifecycle { kind, previous_epoch, previous_sequence, probe, ..Default::default() };
        decode_with(v1::report::Body::Lifecycle(life)).map(|_| ())
    };
    use LifecycleKind as Kind;
    assert_eq!(life(Kind::EpochStarted, &[1; 16], ReportSeq::MAX_NUMBER, 0), Ok(()));
    assert_eq!(life(Kind::EpochStarted, &[1; 16], 0, 0), Ok(()));
    assert_eq!(life(Kind::EpochStarted, &[], 0, 0), Ok(()));
    assert_eq!(life(Kind::Started, &[], 0, 0), Ok(()));
    assert_eq!(life(Kind::ProbeCrashed, &[], 0, 3), Ok(()));
    let (epoch, sequence) = (Error::Field("lifecycle.previous_epoch"), Error::Field("lifecycle.previous_sequence"));
    assert_eq!(life(Kind::EpochStarted, &[1; 15], 0, 0), Err(epoch.clone()));
    assert_eq!(life(Kind::Started, &[1; 16], 0, 0), Err(epoch));
    assert_eq!(life(Kind::EpochStarted, &[], 7, 0), Err(sequence.clone()));
    assert_eq!(life(Kind::EpochStarted, &[1; 16], ReportSeq::MAX_NUMBER + 1, 0), Err(sequence.clone()));
    assert_eq!(life(Kind::Started, &[], 7, 0), Err(sequence));
    assert_eq!(life(Kind::Started, &[], 0, 3), Err(Error::Field("lifecycle.probe")));
    assert_eq!(life(Kind::ProbeCrashed, &[], 0, 0), Err(Error::UnknownKind("probe")));
    assert_eq!(life(Kind::ProbeCrashed, &[], 0, 99), Err(Error::UnknownKind("probe")));
}

#[test]
fn a_report_has_a_bound_on_its_subjects() {
    let facts = |count| {
        let subject = v1::SubjectFact { observed_time: Some(sample::time(0).to_wire()), fact: vec![] };
        let time = Some(sample::time(0).to_wire());
        let coverage = Some(v1::Coverage { start_time: time, end_time: time, ..Default::default() });
        let facts =
            v1::Facts { subjects: vec![subject; count], fact_set_digest: vec![1; 32], coverage, ..Default::default() };
        decode_with(v1::report::Body::Facts(facts)).map(|_| ())
    };
    assert_eq!(facts(limits::REPORT_SUBJECTS), Ok(()));
    assert_eq!(facts(limits::REPORT_SUBJECTS + 1), Err(Error::Field("subjects")));
}
