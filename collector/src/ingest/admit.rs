//! Says of one report what it is: bytes in, [`Checked`] or a rejection out. Pure; the chain has the next word.
//!
//! The order of the checks: size, encoding, agent, epoch, signature, whole facts; then, by [`super::chain`], the place.
//!
//! A whole fact is decoded here, so that what no agent can mean is refused while its sender can still hear why: bytes that
//! are no fact, a value out of range, an enum number that the contract does not have, two facts about one subject. Admitted is
//! what a good agent of a newer version may say: a subject, or a word of a vocabulary, that this build does not know. It is
//! evidence, and the judge holds that one subject as `unknown(unsupported)`. A fact in parts cannot be decoded before
//! its last part, so the judge says what it is.

use std::collections::BTreeSet;

use muster_proto::{
    fact::{self, Fact},
    id::{AgentId, Digest, Epoch, ReportSeq},
    limits,
    report::{self, Body, LifecycleKind, Lost, Report},
    seal::{EvidencePublicKey, sealed_digest},
    v1::{self, RejectionReason},
};
use prost::Message as _;

use super::chain::Place;

/// Who sends, as far as it is certain: the certificate and Hello say so.
pub struct Sender<'a> {
    /// The agent of the certificate.
    pub agent: AgentId,
    /// Its evidence key.
    pub key: &'a EvidencePublicKey,
    /// The epoch of Hello.
    pub epoch: Epoch,
}

/// A report that is the agent's own and whole. Whether it has a place in the chain is not yet said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Checked {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place.
    pub seq: ReportSeq,
    /// Digest of the sealed report before it.
    pub previous: Option<Digest>,
    /// Its own digest.
    pub digest: Digest,
    /// The places that it declares lost.
    pub lost: Option<Lost>,
    /// Whether it says that an epoch starts with it.
    pub starts_epoch: bool,
    /// Bytes of the sealed report.
    pub bytes: u32,
}

/// Returns what `sealed` is, or why it is refused.
///
/// # Errors
///
/// A rejection for the agent.
pub fn check(sealed: &v1::SealedReport, sender: &Sender<'_>) -> Result<Checked, v1::Rejection> {
    use RejectionReason as Reason;
    let bytes = sealed.encoded_len();
    if bytes > limits::SEALED_REPORT_BYTES || sealed.report.len() > limits::REPORT_BYTES {
        let detail = format!("{bytes} bytes; at most {} are taken", limits::SEALED_REPORT_BYTES);
        return Err(reject(0, Reason::TooLarge, detail));
    }
    let report = Report::decode(&sealed.report).map_err(|error| {
        let reason = match error {
            report::Error::UnknownKind(_) => Reason::UnknownKind,
            report::Error::Encoding | report::Error::Field(_) => Reason::Malformed,
        };
        reject(sequence_of(&sealed.report), reason, error.to_string())
    })?;
    let refuse = |reason, detail: &str| Err(reject(report.seq.number(), reason, detail.to_owned()));
    if report.agent != sender.agent {
        return refuse(Reason::ForeignAgent, "the report names another agent than the certificate");
    }
    if report.epoch != sender.epoch {
        return refuse(Reason::ForeignEpoch, "the report names another epoch than Hello; open a stream for each epoch");
    }
    let starts_epoch = matches!(&report.body, Body::Lifecycle(life) if life.kind == LifecycleKind::EpochStarted);
    if starts_epoch && report.seq != ReportSeq::FIRST {
        return refuse(Reason::Malformed, "an epoch starts with sequence 1");
    }
    if sealed.signature.len() != 64 || sender.key.verify_sealed(sealed).is_err() {
        return refuse(Reason::BadSignature, "the signature does not verify with the enrolled evidence key");
    }
    if let Body::Facts(facts) = &report.body {
        check_facts(facts).map_err(|(reason, detail)| reject(report.seq.number(), reason, detail))?;
    }
    let lost = match &report.body {
        Body::Gap(gap) => gap.lost,
        Body::Facts(_) | Body::Attestation(_) | Body::Lifecycle(_) => None,
    };
    Ok(Checked {
        epoch: report.epoch,
        seq: report.seq,
        previous: report.previous,
        digest: sealed_digest(sealed),
        lost,
        starts_epoch,
        bytes: u32::try_from(bytes).expect("checked above"),
    })
}

/// Checks the whole facts of a report.
fn check_facts(facts: &report::Facts) -> Result<(), (RejectionReason, String)> {
    let mut subjects = BTreeSet::new();
    for (at, subject) in facts.subjects.iter().enumerate() {
        match Fact::decode(&subject.fact) {
            Ok(fact) if subjects.insert(fact.subject()) => {}
            Ok(fact) => {
                let detail = format!("two facts about {}; a report has one of each subject", fact.subject().as_str());
                return Err((RejectionReason::Malformed, detail));
            }
            Err(error) if error.is_newer() => {}
            Err(error @ fact::Error::UnknownKind(_)) => {
                return Err((RejectionReason::UnknownKind, format!("subjects[{at}]: {error}")));
            }
            Err(error) => return Err((RejectionReason::Malformed, format!("subjects[{at}]: {error}"))),
        }
    }
    Ok(())
}

/// Returns the rejection that a place in the chain means; `None` when it means none, or a conflict that is still to be proved.
pub fn reject_place(place: Place, report: &Checked) -> Option<v1::Rejection> {
    use RejectionReason as Reason;
    let refuse = |reason, detail: String, expected: Option<ReportSeq>| {
        let mut rejection = reject(report.seq.number(), reason, detail);
        rejection.expected_sequence = expected.map(ReportSeq::number).unwrap_or_default();
        Some(rejection)
    };
    match place {
        Place::Next | Place::Known { .. } | Place::Before => None,
        Place::Fork(_) => {
            let detail = "another report stands at this place; the identity is frozen until an operator decides";
            refuse(Reason::Conflict, detail.to_owned(), None)
        }
        Place::OutOfOrder(expected) => refuse(Reason::OutOfOrder, format!("send {expected} next"), Some(expected)),
        Place::BrokenChain(expected) => {
            let detail = format!("the report at {expected} must name the digest of the one before");
            refuse(Reason::BrokenChain, detail, Some(expected))
        }
        Place::NoStart => {
            let detail = "the first report of an epoch says that the epoch starts";
            refuse(Reason::Malformed, detail.to_owned(), Some(ReportSeq::FIRST))
        }
        Place::TooManyEpochs => {
            refuse(Reason::Malformed, "the agent began too many epochs; enrol it anew".to_owned(), None)
        }
    }
}

fn reject(sequence: u64, reason: RejectionReason, detail: String) -> v1::Rejection {
    v1::Rejection { sequence, reason: reason.into(), detail, expected_sequence: 0 }
}

/// The sequence of a report that is otherwise refused; 0 when it cannot be read.
fn sequence_of(report: &[u8]) -> u64 {
    v1::Report::decode(report).map(|report| report.sequence).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use muster_proto::{
        fact::sample,
        report::{Coverage, Facts, SubjectFact, SubjectPart},
        seal::EvidenceKey,
    };
    use proptest::prelude::*;

    use super::*;

    /// Returns what is said of a signed report with these encoded facts, whole, or as the first part of one.
    fn check_report(facts: &[Vec<u8>], part: Option<Vec<u8>>) -> Result<Checked, v1::Rejection> {
        let (key, _) = EvidenceKey::generate().unwrap();
        let public = EvidencePublicKey::new(&key.public_key()).unwrap();
        let (epoch, observed) = (Epoch::new([1; 16]), sample::time(0));
        let part = part.map(|bytes| {
            let digest = Digest::of_bytes(&bytes);
            SubjectPart { observed, index: 0, count: 2, digest, bytes }
        });
        let coverage =
            Coverage { start: observed, end: observed, looks: vec![], suspended_millis: 0, directive_ids: vec![] };
        let subjects = facts.iter().map(|fact| SubjectFact { observed, fact: fact.clone() }).collect();
        let fact_set_digest = Digest::new([2; 32]);
        let report = Report {
            agent: public.agent_id(),
            epoch,
            seq: ReportSeq::new(2).unwrap(),
            previous: Some(Digest::new([3; 32])),
            observed,
            boot_id: [1; 16],
            since_boot_millis: 1,
            agent_version: "0.1.0".into(),
            profile_revision: 0,
            last_checkpoint: None,
            body: Body::Facts(Facts { subjects, part, fact_set_digest, coverage, resync: false }),
        };
        check(&key.seal(report.encode()), &Sender { agent: public.agent_id(), key: &public, epoch })
    }

    /// Returns a firewall fact that could not be told, for the cause `number`.
    fn fact_of_cause(number: i32) -> Vec<u8> {
        let unknown = v1::Unknown { cause: number, detail: String::new() };
        let reading = Some(v1::firewall_fact::Reading::Unknown(unknown));
        v1::Fact { fact: Some(v1::fact::Fact::Firewall(v1::FirewallFact { reading })) }.encode_to_vec()
    }

    #[test]
    fn a_whole_fact_that_no_agent_can_mean_is_refused_with_its_reason() {
        use RejectionReason as Reason;
        let good = fact_of_cause(1);
        let volume = |kind: &str| {
            let encrypted = Some(v1::BoolReading { reading: Some(v1::bool_reading::Reading::Known(true)) });
            let volumes = vec![v1::Volume { kind: kind.to_owned(), encrypted, ..Default::default() }];
            let known = v1::DiskEncryption { volumes, ..Default::default() };
            let reading = Some(v1::disk_encryption_fact::Reading::Known(known));
            v1::Fact { fact: Some(v1::fact::Fact::DiskEncryption(v1::DiskEncryptionFact { reading })) }.encode_to_vec()
        };
        let cases: [(&str, Vec<u8>, Result<(), Reason>); 11] = [
            ("a good one", good.clone(), Ok(())),
            ("a cause that the contract does not have", fact_of_cause(99), Err(Reason::UnknownKind)),
            ("no cause", fact_of_cause(0), Err(Reason::UnknownKind)),
            ("a cause below all", fact_of_cause(-1), Err(Reason::UnknownKind)),
            ("nothing", Vec::new(), Err(Reason::Malformed)),
            ("no protobuf", vec![0xff; 40], Err(Reason::Malformed)),
            ("half of one", good[..good.len() - 1].to_vec(), Err(Reason::Malformed)),
            (
                "a list of empty items",
                [&[0x22, 0x83, 0x10, 0x0a, 0x80, 0x10], [0x0a, 0].repeat(1024).as_slice()].concat(),
                Err(Reason::Malformed),
            ),
            ("a kind that is no word", volume("\u{1b}[2J"), Err(Reason::Malformed)),
            ("a kind that only a newer agent knows", volume("zfs_dataset"), Ok(())),
            ("a subject that only a newer agent knows", vec![0xa2, 0x06, 0x02, 0x0a, 0x00], Ok(())),
        ];
        for (what, fact, expected) in cases {
            let said = check_report(std::slice::from_ref(&fact), None);
            assert_eq!(said.map(|_| ()).map_err(|rejection| rejection.reason()), expected, "{what}");
            // Behind a good one about another subject it is the same, and the second one is named.
            let agent = Fact::Agent(fact::Reading::Known(sample::agent())).encode();
            let said = check_report(&[agent, fact.clone()], None);
            if let Err(rejection) = &said {
                assert!(rejection.detail.contains("subjects[1]"), "{what}: {}", rejection.detail);
                assert_eq!(rejection.sequence, 2, "{what}");
            }
            assert_eq!(said.map(|_| ()).map_err(|rejection| rejection.reason()), expected, "{what}");
            // Nobody can tell before the last part.
            assert!(check_report(&[], Some(fact)).is_ok(), "{what}");
        }
    }

    #[test]
    fn two_facts_about_one_subject_are_refused() {
        let rejection = check_report(&[fact_of_cause(1), fact_of_cause(2)], None).unwrap_err();
        assert_eq!(rejection.reason(), RejectionReason::Malformed);
        assert!(rejection.detail.contains("two facts about firewall"), "{}", rejection.detail);
    }

    proptest! {
        /// Signed or not, no bytes panic; and what passes is the sender's own.
        #[test]
        fn no_bytes_make_it_panic(report in proptest::collection::vec(any::<u8>(), 0..400), is_signed: bool) {
            let (key, _) = EvidenceKey::generate().unwrap();
            let public = EvidencePublicKey::new(&key.public_key()).unwrap();
            let sender = Sender { agent: public.agent_id(), key: &public, epoch: Epoch::new([1; 16]) };
            let sealed = if is_signed {
                key.seal(report)
            } else {
                v1::SealedReport { signature: report.clone(), report }
            };
            prop_assert!(check(&sealed, &sender).is_err());
        }

        /// A signed report with any one byte of its encoding changed is still decoded, and judged, without a panic.
        #[test]
        fn a_changed_byte_is_judged(at in 0_usize..200, byte: u8) {
            let (key, _) = EvidenceKey::generate().unwrap();
            let public = EvidencePublicKey::new(&key.public_key()).unwrap();
            let epoch = Epoch::new([1; 16]);
            let mut report = v1::Report {
                agent_id: public.agent_id().as_bytes().to_vec(),
                epoch: epoch.as_bytes().to_vec(),
                sequence: 1,
                previous_digest: vec![],
                observed_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
                boot_id: vec![1; 16],
                agent_version: "0.1.0".into(),
                body: Some(v1::report::Body::Lifecycle(v1::Lifecycle { kind: 1, ..Default::default() })),
                ..Default::default()
            }
            .encode_to_vec();
            let sender = Sender { agent: public.agent_id(), key: &public, epoch };
            prop_assert!(check(&key.seal(report.clone()), &sender).is_ok());
            let at = at % report.len();
            report[at] = byte;
            if let Ok(checked) = check(&key.seal(report), &sender) {
                prop_assert_eq!((checked.epoch, checked.seq), (epoch, ReportSeq::FIRST));
            }
        }
    }
}
