//! Facts from and to the wire.
//!
//! Decoding is strict: every enum text is one of the contract, every reading is set, every text and list is inside its
//! limit, and every digest is one. What decodes, encodes to the same fact. The lists are counted before anything is
//! allocated for them.

mod check;
mod message;
mod outline;
mod value;

use prost::Message as _;

use super::Fact;
use crate::{limits, v1};
pub use message::words;
pub(in crate::fact) use value::Wire;

/// Bytes are not a fact of the contract.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// They are not an encoded `Fact`.
    #[error("fact is not a protobuf message of the contract")]
    Encoding,
    /// A field has no value that the contract allows, or a list has more items than it may.
    #[error("fact field {0} is missing or outside its range")]
    Field(&'static str),
    /// An enum number that the contract does not have.
    #[error("fact field {0} has a number that this version does not know")]
    UnknownKind(&'static str),
    /// A subject that only a newer version has.
    #[error("fact is about a subject that this version does not know, number {number}")]
    NewerSubject {
        /// Number of its field in `Fact`.
        number: u32,
    },
    /// A word that only a newer version has in the vocabulary of a text.
    #[error("fact field {0} has a word that this version does not know")]
    NewerWord(&'static str),
}

impl Error {
    /// Returns whether a good agent of a newer version may say this. Such a fact is kept as evidence, and this version holds
    /// its subject as `unknown(unsupported)`; any other error means bytes that no version sends.
    pub fn is_newer(&self) -> bool {
        match self {
            Self::NewerSubject { .. } | Self::NewerWord(_) => true,
            Self::Encoding | Self::Field(_) | Self::UnknownKind(_) => false,
        }
    }
}

impl Fact {
    /// Returns the fact of `bytes`, every field checked.
    ///
    /// # Errors
    ///
    /// Says which field is not what the contract allows; the first one found decides. See [`Error::is_newer`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > limits::FACT_BYTES {
            return Err(Error::Field("fact"));
        }
        outline::check(bytes)?;
        let wire = v1::Fact::decode(bytes).map_err(|_| Error::Encoding)?;
        Self::of_message(wire.fact.ok_or(Error::Field("fact"))?)
    }

    /// Returns the encoded fact. Equal facts have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        v1::Fact { fact: Some(self.to_message()) }.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        fact::{Cause, Reading, Subject, sample},
        report::tests::Damage,
    };

    #[test]
    fn every_fact_survives_the_wire() {
        let samples = sample::facts();
        let subjects: Vec<Subject> = samples.iter().map(Fact::subject).collect();
        assert_eq!(subjects, Subject::ALL);
        for fact in samples {
            assert_eq!(Fact::decode(&fact.encode()).as_ref(), Ok(&fact));
        }
        for subject in Subject::ALL {
            let fact = sample::unknown(subject, Cause::Forbidden, "open /x");
            assert_eq!(fact.subject(), subject);
            assert_eq!(Fact::decode(&fact.encode()), Ok(fact));
        }
    }

    /// Known from outside: the protobuf encoding of `fact.proto`, written by hand.
    #[test]
    fn a_fact_has_the_bytes_that_the_contract_gives_it() {
        let unknown = sample::unknown(Subject::Firewall, Cause::Forbidden, "nf_tables");
        assert_eq!(hex::encode(unknown.encode()), "2a0f120d080512096e665f7461626c6573");
        let agent = Fact::Agent(Reading::Known(sample::agent()));
        let expected = [
            "42a8010aa5010a05302e312e3012420a40",
            &"6636".repeat(32),
            "1a0208012240",
            &"3037".repeat(32),
            "32120a1030303030303030303030303030303034",
        ];
        assert_eq!(hex::encode(agent.encode()), expected.concat());
    }

    #[test]
    fn every_fact_survives_json() {
        for fact in sample::facts() {
            let text = serde_json::to_string(&fact).unwrap();
            assert_eq!(serde_json::from_str::<Fact>(&text).unwrap(), fact, "{text}");
        }
    }

    #[test]
    fn a_fact_without_a_subject_or_a_reading_is_refused() {
        assert_eq!(Fact::decode(&[]), Err(Error::Field("fact")));
        let unset = v1::fact::Fact::Software(v1::SoftwareFact { reading: None });
        let bytes = v1::Fact { fact: Some(unset) }.encode_to_vec();
        assert_eq!(Fact::decode(&bytes), Err(Error::Field("software")));
        assert_eq!(Fact::decode(b"\xff"), Err(Error::Encoding));
        assert_eq!(Fact::decode(&vec![0; limits::FACT_BYTES + 1]), Err(Error::Field("fact")));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Fact::decode(&bytes);
        }

        #[test]
        fn a_damaged_fact_never_panics_and_what_decodes_encodes_to_the_same_fact(
            which in 0..Subject::ALL.len(), damage in Damage::any(),
        ) {
            let mut bytes = sample::facts()[which].encode();
            damage.iter().for_each(|damage| damage.apply(&mut bytes));
            if let Ok(fact) = Fact::decode(&bytes) {
                prop_assert_eq!(Fact::decode(&fact.encode()), Ok(fact));
            }
        }
    }
}
