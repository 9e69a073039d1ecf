//! What a fact is about, read from its bytes alone: the number of its field in the contract's `Fact`.
//!
//! An encoded `Fact` is one protobuf field, its state, and has one form here:
//!
//! ```text
//! tag: field number << 3 | 2 (varint) | length of the state (varint) | the state
//! ```
//!
//! Protobuf would also take a field twice, out of order, or a number in more bytes than it needs. Then two readers could see two
//! subjects in the same bytes, so that none of that is a fact.

use std::fmt;

use crate::fact::{Error, Fact, Subject};

/// Field numbers of protobuf end here.
const LAST: u64 = (1 << 29) - 1;
/// Wire type of a length and that many bytes.
const LENGTH_DELIMITED: u64 = 2;

/// The number of a fact's field in the contract's `Fact`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Number(u32);

impl Number {
    /// Returns the number of a subject that this build knows.
    pub fn of(subject: Subject) -> Self {
        Self(subject.number())
    }

    /// Returns the number, if the contract can ever give it to a subject.
    pub fn new(number: u32) -> Option<Self> {
        (1..=LAST).contains(&u64::from(number)).then_some(Self(number))
    }

    /// Returns the subject, if this build knows it.
    pub fn subject(self) -> Option<Subject> {
        Subject::ALL.into_iter().find(|subject| Self::of(*subject) == self)
    }

    /// Returns it as a number, from 1.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Fact {
    /// Returns what an encoded fact is about, without reading its state.
    ///
    /// # Errors
    ///
    /// [`Error::Encoding`] when the bytes are not exactly one field with its number and length in the shortest form.
    pub fn subject_of(bytes: &[u8]) -> Result<Number, Error> {
        let (tag, rest) = varint(bytes).ok_or(Error::Encoding)?;
        let (length, state) = varint(rest).ok_or(Error::Encoding)?;
        let is_one_field = tag & 7 == LENGTH_DELIMITED && length == state.len() as u64;
        let number = u32::try_from(tag >> 3).ok().and_then(Number::new).filter(|_| is_one_field);
        number.ok_or(Error::Encoding)
    }
}

/// Returns the number at the beginning of `bytes` and what follows it; `None` when it is cut off or longer than it needs to be.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    // A tag or a length of this contract needs five bytes at most.
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let is_shortest = at == 0 || *byte != 0;
            return is_shortest.then_some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::{fact::sample, v1};

    #[test]
    fn the_number_is_that_of_the_contract() {
        for fact in sample::facts() {
            let number = Fact::subject_of(&fact.encode()).unwrap();
            assert_eq!(number.subject(), Some(fact.subject()));
            assert_eq!(Number::new(number.number()), Some(number));
        }
        assert_eq!(Number::new(100).unwrap().subject(), None);
        assert_eq!((Number::new(0), Number::new(1 << 29)), (None, None));
    }

    #[test]
    fn a_subject_of_a_later_contract_is_read_by_its_number() {
        assert_eq!(Fact::subject_of(&[0xa2, 0x06, 2, 0xff, 0xff]).map(Number::number), Ok(100));
        assert_eq!(Fact::subject_of(&[0x82, 0x7d, 1, 0]).map(Number::number), Ok(2000));
    }

    #[test]
    fn bytes_in_which_two_readers_could_see_two_subjects_are_no_fact() {
        let (system, agent) = (sample::facts().pop().unwrap().encode(), sample::facts()[0].encode());
        let cases: [(&str, Vec<u8>); 9] = [
            ("nothing", Vec::new()),
            ("two fields", [system.as_slice(), &agent].concat()),
            ("a field twice", [system.as_slice(), &system].concat()),
            ("a byte more", [system.as_slice(), &[0]].concat()),
            ("cut off", system[..system.len() - 1].to_vec()),
            ("a tag in two bytes", [&[0x8a, 0], &system[1..]].concat()),
            ("a length in more bytes than it needs", vec![10, 0x80, 0]),
            ("a number instead of a message", vec![8, 1]),
            ("field number 0", vec![2, 0]),
        ];
        for (case, bytes) in cases {
            assert_eq!(Fact::subject_of(&bytes), Err(Error::Encoding), "{case}");
        }
    }

    proptest! {
        #[test]
        fn what_has_a_number_has_it_for_protobuf_too(
            number in 1_u32..20, state in proptest::collection::vec(any::<u8>(), 0..300), noise in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = Vec::new();
            prost::encoding::bytes::encode(number, &state, &mut bytes);
            prop_assert_eq!(Fact::subject_of(&bytes).map(Number::number), Ok(number));
            if let (Ok(number), Ok(fact)) = (Fact::subject_of(&noise), v1::Fact::decode(noise.as_slice())) {
                let subject = Fact::decode(&noise).ok().map(|fact| fact.subject());
                prop_assert_eq!(fact.fact.is_some(), number.subject().is_some());
                prop_assert!(subject.is_none() || subject == number.subject());
            }
        }
    }
}
