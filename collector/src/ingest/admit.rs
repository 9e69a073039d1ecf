//! Says of one report what it is: bytes in, [`Checked`] or a rejection out. Pure; the chain has the next word.
//!
//! The order of the checks: size, encoding, agent, epoch, signature; then, by [`super::chain`], the place.

use muster_proto::{
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
    use muster_proto::seal::EvidenceKey;
    use proptest::prelude::*;

    use super::*;

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
