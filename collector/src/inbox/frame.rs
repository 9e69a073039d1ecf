//! Records and the frames that many of them travel in. Pure.

use muster_proto::id::{AgentId, Digest, Epoch, ReportSeq};
use sha2::{Digest as _, Sha256};

/// Bytes of records after which a frame is closed: sled is cheapest with values up to 8 KiB.
pub(crate) const TARGET_BYTES: usize = 7_900;
/// First byte of a frame.
const VERSION: u8 = 1;
/// Bytes of the check.
const CHECK: usize = 8;
/// Bytes of a record before its body, the length included.
const HEAD: usize = 4 + 16 + 16 + 8 + 8 + 32;

/// A report on its way to the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record<'a> {
    /// Whose.
    pub agent: AgentId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place.
    pub seq: ReportSeq,
    /// Number of the stream that brought it.
    pub stream: u64,
    /// Digest of the sealed report.
    pub digest: Digest,
    /// An encoded `LogEntry` without its received time.
    pub body: &'a [u8],
}

impl<'a> Record<'a> {
    /// Adds the record to `records`.
    pub fn write(&self, records: &mut Vec<u8>) {
        self.write_head(records, self.body.len());
        records.extend_from_slice(self.body);
    }

    /// Adds what stands before a body of `body_bytes`, which the caller adds next.
    pub(crate) fn write_head(&self, records: &mut Vec<u8>, body_bytes: usize) {
        let length = u32::try_from(HEAD - 4 + body_bytes).expect("a body is shorter than an entry");
        records.reserve(HEAD + body_bytes);
        records.extend_from_slice(&length.to_be_bytes());
        records.extend_from_slice(self.agent.as_bytes());
        records.extend_from_slice(self.epoch.as_bytes());
        records.extend_from_slice(&self.seq.number().to_be_bytes());
        records.extend_from_slice(&self.stream.to_be_bytes());
        records.extend_from_slice(self.digest.as_bytes());
    }

    fn parse(record: &'a [u8]) -> Option<Self> {
        let (_, rest) = record.split_first_chunk::<4>()?;
        let (agent, rest) = rest.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (stream, rest) = rest.split_first_chunk()?;
        let (digest, body) = rest.split_first_chunk()?;
        Some(Self {
            agent: AgentId::new(*agent),
            epoch: Epoch::new(*epoch),
            seq: ReportSeq::new(u64::from_be_bytes(*seq))?,
            stream: u64::from_be_bytes(*stream),
            digest: Digest::new(*digest),
            body,
        })
    }
}

/// Returns each record's bytes. Stops where they are torn.
pub(crate) fn records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, _) = rest.split_first_chunk::<4>()?;
        let (record, tail) = rest.split_at_checked(4 + u32::from_be_bytes(*length) as usize)?;
        rest = tail;
        Some(record)
    })
}

/// Returns the value that `records`, or anything else, are stored as.
pub(crate) fn seal(records: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + CHECK + records.len());
    value.push(VERSION);
    value.extend_from_slice(&check(records));
    value.extend_from_slice(records);
    value
}

/// Returns what was sealed as `value`, or `None` when that is not what was stored.
pub(crate) fn open(value: &[u8]) -> Option<&[u8]> {
    let (head, content) = value.split_at_checked(1 + CHECK)?;
    let (version, found) = head.split_first()?;
    (*version == VERSION && found == check(content)).then_some(content)
}

/// A stored frame whose check matched.
#[derive(Debug)]
pub(crate) struct Sealed(sled::IVec);

impl Sealed {
    /// Returns the frame, or `None` when the value is not what was stored.
    pub(crate) fn open(value: sled::IVec) -> Option<Self> {
        open(&value).is_some().then_some(Self(value))
    }

    /// Returns its records.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        records(&self.0[1 + CHECK..]).filter_map(Record::parse)
    }
}

fn check(records: &[u8]) -> [u8; CHECK] {
    let digest: [u8; 32] = Sha256::digest(records).into();
    *digest.first_chunk().expect("32 is more than 8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64, body: &[u8]) -> Record<'_> {
        Record {
            agent: AgentId::new([1; 16]),
            epoch: Epoch::new([2; 16]),
            seq: ReportSeq::new(seq).unwrap(),
            stream: 3,
            digest: Digest::new([4; 32]),
            body,
        }
    }

    #[test]
    fn records_come_back_from_a_frame() {
        let mut bytes = Vec::new();
        record(1, b"one").write(&mut bytes);
        record(2, b"").write(&mut bytes);
        let frame = Sealed::open(seal(&bytes).into()).unwrap();
        assert_eq!(frame.records().collect::<Vec<_>>(), [record(1, b"one"), record(2, b"")]);
    }

    #[test]
    fn a_changed_or_torn_frame_is_refused() {
        let mut bytes = Vec::new();
        record(1, b"one").write(&mut bytes);
        let value = seal(&bytes);
        for bit in 0..value.len() * 8 {
            let mut changed = value.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Sealed::open(changed.into()).is_none(), "bit {bit}");
        }
        for length in 0..value.len() {
            assert!(Sealed::open(value[..length].into()).is_none(), "length {length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            for record in records(&bytes) {
                let _ = Record::parse(record);
            }
            let _ = Sealed::open(bytes.into());
        }
    }
}
