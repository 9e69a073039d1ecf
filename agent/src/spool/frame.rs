//! Segments of the spool: a header, then records one after the other. Pure.
//!
//! ```text
//! header   "MUSTSPL1" (8)  epoch (16)
//! record   "MREC" (4)  length (4)  sequence (8)  check (8)  bytes (length)
//! ```
//!
//! Numbers are big-endian. `check` is the start of SHA-256 over length, sequence and bytes. `bytes` is an encoded `SealedReport`.

use std::ops::Range;

use muster_proto::{
    id::{Epoch, ReportSeq},
    limits,
};
use sha2::{Digest as _, Sha256};

/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 24;
/// Bytes of a record beside the report.
pub const RECORD_BYTES: usize = 24;

const SEGMENT_MAGIC: &[u8; 8] = b"MUSTSPL1";
const RECORD_MAGIC: &[u8; 4] = b"MREC";

/// Returns the header of a segment.
pub fn header(epoch: Epoch) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(SEGMENT_MAGIC);
    header[8..].copy_from_slice(epoch.as_bytes());
    header
}

/// Returns the epoch of a segment, or `None` when it has no header.
pub fn epoch_of(segment: &[u8]) -> Option<Epoch> {
    let header = segment.get(..HEADER_BYTES)?;
    Epoch::from_slice(header.strip_prefix(SEGMENT_MAGIC)?)
}

/// Appends a record to `out`.
pub fn push(out: &mut Vec<u8>, seq: ReportSeq, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a sealed report is at most 60 KiB");
    out.extend_from_slice(RECORD_MAGIC);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&seq.number().to_be_bytes());
    out.extend_from_slice(&check(length, seq.number(), bytes));
    out.extend_from_slice(bytes);
}

/// Where a record's report is in its segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Its place.
    pub seq: ReportSeq,
    /// Its bytes.
    pub bytes: Range<usize>,
}

/// Returns the record at `offset`; `None` when there is no whole and undamaged one.
pub fn record_at(segment: &[u8], offset: usize) -> Option<Record> {
    let rest = segment.get(offset..)?;
    let (magic, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (found, rest) = rest.split_first_chunk::<8>()?;
    let (length, seq) = (u32::from_be_bytes(*length), u64::from_be_bytes(*seq));
    if magic != RECORD_MAGIC || length as usize > limits::SEALED_REPORT_BYTES {
        return None;
    }
    let bytes = rest.get(..length as usize)?;
    if *found != check(length, seq, bytes) {
        return None;
    }
    let start = offset + RECORD_BYTES;
    Some(Record { seq: ReportSeq::new(seq)?, bytes: start..start + length as usize })
}

/// Returns the first whole and undamaged record at or after `offset`, whatever lies before it.
pub fn find_record(segment: &[u8], offset: usize) -> Option<Record> {
    let starts = segment.get(offset..)?.windows(RECORD_MAGIC.len()).enumerate();
    let mut starts = starts.filter(|(_, bytes)| bytes == RECORD_MAGIC);
    starts.find_map(|(at, _)| record_at(segment, offset + at))
}

/// Returns the records of a segment from `offset` on, in order, up to the first that is not whole, undamaged and next.
pub fn records(segment: &[u8], offset: usize) -> impl Iterator<Item = Record> + '_ {
    let mut offset = offset;
    let mut last: Option<ReportSeq> = None;
    std::iter::from_fn(move || {
        let record = record_at(segment, offset)?;
        if last.is_some_and(|last| record.seq <= last) {
            return None;
        }
        last = Some(record.seq);
        offset = record.bytes.end;
        Some(record)
    })
}

fn check(length: u32, seq: u64, bytes: &[u8]) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(length.to_be_bytes());
    hash.update(seq.to_be_bytes());
    hash.update(bytes);
    let digest: [u8; 32] = hash.finalize().into();
    *digest.first_chunk().expect("32 is more than 8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(number: u64) -> ReportSeq {
        ReportSeq::new(number).unwrap()
    }

    fn segment() -> Vec<u8> {
        let mut segment = header(Epoch::new([7; 16])).to_vec();
        for number in 1..=3 {
            push(&mut segment, seq(number), &vec![number as u8; 20 * number as usize]);
        }
        segment
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let segment = segment();
        assert_eq!(epoch_of(&segment), Some(Epoch::new([7; 16])));
        let read: Vec<_> = records(&segment, HEADER_BYTES).map(|r| (r.seq.number(), &segment[r.bytes])).collect();
        assert_eq!(read, [(1, &[1; 20][..]), (2, &[2; 40][..]), (3, &[3; 60][..])]);
    }

    #[test]
    fn a_cut_at_any_byte_leaves_whole_records_alone() {
        let whole = segment();
        let ends: Vec<_> = records(&whole, HEADER_BYTES).map(|record| record.bytes.end).collect();
        for len in 0..=whole.len() {
            let expected = ends.iter().filter(|end| **end <= len).count();
            assert_eq!(records(&whole[..len], HEADER_BYTES).count(), expected, "{len}");
        }
    }

    #[test]
    fn a_whole_record_is_found_behind_a_damaged_one() {
        let whole = segment();
        let ends: Vec<_> = records(&whole, HEADER_BYTES).map(|record| record.bytes.end).collect();
        for position in HEADER_BYTES..ends[0] {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x10;
            assert_eq!(find_record(&damaged, HEADER_BYTES).map(|record| record.seq), Some(seq(2)), "{position}");
        }
        assert_eq!(find_record(&whole, ends[1] + 1), None);
    }

    #[test]
    fn a_flipped_bit_never_passes_for_a_record() {
        let whole = segment();
        for bit in HEADER_BYTES * 8..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            for record in records(&damaged, HEADER_BYTES) {
                let number = record.seq.number();
                assert_eq!(damaged[record.bytes], vec![number as u8; 20 * number as usize], "{bit}");
            }
            assert!(records(&damaged, HEADER_BYTES).count() < 3, "{bit}");
        }
    }
}
