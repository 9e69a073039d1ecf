//! The chain of session nonces, which tells a clone from the agent that it was copied from. Pure.
//!
//! A nonce is the collector's time of issue in microseconds (8 bytes, big-endian) and 8 random bytes. The time lets a collector
//! whose store was lost or put back recognise that a nonce is newer than what it remembers: that is its own loss, not a clone.
//!
//! ```text
//! kept value: version (1), confirmed nonce (16, zero for none), nonces issued since (16 each, oldest first)
//! ```

/// A session nonce.
pub(crate) type Nonce = [u8; 16];

/// Nonces that may be outstanding. An agent that never shows one it was given loses the oldest.
pub(crate) const ISSUED: usize = 64;

const VERSION: u8 = 1;
const NONE: Nonce = [0; 16];

/// What is kept of an agent's sessions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Nonces {
    /// The nonce that the agent showed last; `NONE` before the first.
    confirmed: Nonce,
    /// Nonces issued since; the agent may have any of them.
    issued: Vec<Nonce>,
}

/// What a shown nonce says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shown {
    /// It follows the last session.
    Follows,
    /// It is newer than anything remembered: the memory was lost or put back.
    Forgotten,
    /// It was overtaken by a later session: the agent's state is a copy, or was put back.
    Overtaken,
}

impl Nonces {
    /// Returns what `bytes` hold, or `None` when they are nothing that was kept.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (confirmed, rest) = rest.split_first_chunk::<16>()?;
        let (issued, tail) = rest.as_chunks::<16>();
        (*version == VERSION && tail.is_empty() && issued.len() <= ISSUED)
            .then(|| Self { confirmed: *confirmed, issued: issued.to_vec() })
    }

    /// Returns the kept form.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.confirmed);
        bytes.extend(self.issued.iter().flatten());
        bytes
    }

    /// Takes the nonce that the agent shows; `is_new_epoch` says that it begins an epoch that is not known, so that having lost
    /// the nonce with everything else is what it says of itself.
    pub(crate) fn show(&mut self, shown: Option<Nonce>, is_new_epoch: bool) -> Shown {
        let Some(shown) = shown else {
            return if self.confirmed == NONE || is_new_epoch { Shown::Follows } else { Shown::Overtaken };
        };
        if shown == self.confirmed {
            return Shown::Follows;
        }
        if let Some(at) = self.issued.iter().position(|issued| *issued == shown) {
            self.issued.drain(..=at);
            self.confirmed = shown;
            return Shown::Follows;
        }
        let newest = self.issued.iter().chain([&self.confirmed]).map(time).max().unwrap_or_default();
        if time(&shown) > newest {
            *self = Self { confirmed: shown, issued: Vec::new() };
            return Shown::Forgotten;
        }
        Shown::Overtaken
    }

    /// Adds a nonce issued at `micros` with `random` bytes, and returns it. Its time is after every one before.
    pub(crate) fn issue(&mut self, micros: i64, random: [u8; 8]) -> Nonce {
        let newest = self.issued.iter().chain([&self.confirmed]).map(time).max().unwrap_or_default();
        let time = u64::try_from(micros).unwrap_or_default().max(newest + 1);
        let mut nonce = NONE;
        nonce[..8].copy_from_slice(&time.to_be_bytes());
        nonce[8..].copy_from_slice(&random);
        if self.issued.len() == ISSUED {
            self.issued.remove(0);
        }
        self.issued.push(nonce);
        nonce
    }
}

fn time(nonce: &Nonce) -> u64 {
    let (time, _) = nonce.split_first_chunk::<8>().expect("16 is more than 8");
    // A made-up nonce must not make the next one overflow.
    u64::from_be_bytes(*time).min(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_follows_the_last_one_and_a_copy_does_not() {
        let mut nonces = Nonces::default();
        assert_eq!(nonces.show(None, true), Shown::Follows);
        let first = nonces.issue(10, [1; 8]);
        assert_eq!(nonces.show(Some(first), false), Shown::Follows);
        let second = nonces.issue(20, [2; 8]);
        // The Welcome was lost on the way, twice.
        assert_eq!(nonces.show(Some(first), false), Shown::Follows);
        let third = nonces.issue(20, [3; 8]);
        assert!(third > second, "never the same time twice");
        assert_eq!(nonces.show(Some(third), false), Shown::Follows);
        for copied in [Some(first), Some(second), None] {
            assert_eq!(nonces.clone().show(copied, false), Shown::Overtaken, "{copied:?}");
        }
        assert_eq!(nonces.show(None, true), Shown::Follows, "an agent that lost everything begins an epoch");
    }

    #[test]
    fn a_memory_that_was_put_back_freezes_nobody() {
        let mut nonces = Nonces::default();
        let first = nonces.issue(10, [1; 8]);
        nonces.show(Some(first), false);
        let put_back = nonces.encode();
        let second = nonces.issue(20, [2; 8]);
        nonces.show(Some(second), false);
        let mut old = Nonces::decode(&put_back).unwrap();
        assert_eq!(old.show(Some(second), false), Shown::Forgotten);
        assert_eq!(old.show(Some(first), false), Shown::Overtaken);
    }

    #[test]
    fn the_outstanding_nonces_are_bounded_and_survive_their_encoding() {
        let mut nonces = Nonces::default();
        for second in 0..200 {
            nonces.issue(second, [7; 8]);
        }
        assert_eq!(nonces.issued.len(), ISSUED);
        assert_eq!(Nonces::decode(&nonces.encode()), Some(nonces));
        for bad in [&[][..], &[1], &[2; 17], &[1; 18], &[1; 17 + 16 * 65]] {
            assert_eq!(Nonces::decode(bad), None);
        }
    }

    #[test]
    fn a_made_up_nonce_cannot_overflow_the_next() {
        let mut nonces = Nonces::default();
        assert_eq!(nonces.show(Some([255; 16]), false), Shown::Forgotten);
        nonces.issue(5, [0; 8]);
    }
}
