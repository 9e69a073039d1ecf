//! Numbers and byte strings in records: LEB128 numbers, and byte strings behind their length.

use muster_proto::time::Timestamp;

/// Appends a number in LEB128: seven bits a byte, the lowest first.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        #[allow(clippy::cast_possible_truncation, reason = "the low seven bits")]
        let low = number as u8 & 0x7f;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends bytes behind their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a time.
pub fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend_from_slice(&time.micros().to_le_bytes());
}

/// Bytes that are taken from their start. Nothing is taken of what is not there.
#[derive(Clone, Copy)]
pub struct Taken<'b>(pub &'b [u8]);

impl<'b> Taken<'b> {
    /// Takes `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes so many bytes that an array has.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    /// Takes one byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Takes a number.
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let low = u64::from(byte & 0x7f);
            if low << shift >> shift != low {
                return None;
            }
            number |= low << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// Takes a number of a narrower type.
    pub fn narrow<T: TryFrom<u64>>(&mut self) -> Option<T> {
        self.number()?.try_into().ok()
    }

    /// Takes bytes behind their length.
    pub fn bytes(&mut self) -> Option<&'b [u8]> {
        let count = self.narrow()?;
        self.take(count)
    }

    /// Takes a text behind its length.
    pub fn text(&mut self) -> Option<&'b str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// Takes a signed number of eight bytes.
    pub fn signed(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// Takes a time.
    pub fn time(&mut self) -> Option<Timestamp> {
        Timestamp::from_micros(self.signed()?)
    }

    /// Returns `value` if nothing is left.
    pub fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        assert_eq!(Taken(&[0xff; 10]).number(), None);
        assert_eq!(Taken(&[0x80; 3]).number(), None);
        assert_eq!(Taken(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).number(), Some(u64::MAX));
        assert_eq!(Taken(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).number(), None);
    }

    proptest! {
        #[test]
        fn what_was_put_is_taken(number: u64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_number(&mut out, number);
            put_bytes(&mut out, &bytes);
            let mut taken = Taken(&out);
            prop_assert_eq!(taken.number(), Some(number));
            prop_assert_eq!(taken.bytes(), Some(bytes.as_slice()));
            prop_assert_eq!(taken.end(()), Some(()));
        }
    }
}
