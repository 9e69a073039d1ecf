//! Sorted records on disk, of which any part can be read and checked without the rest.
//!
//! ```text
//! magic line            such as `muster-baseline 2\n`
//! header                u32 length, bytes
//! blocks                records, each: shared (bytes of the path before that it begins with), rest of the path, body
//! index                 for each block: length, records, first path, SHA-256
//! summary               bytes
//! trailer               u64 length of the index, u64 length of the summary, u64 records, SHA-256 of all but the blocks
//! ```
//!
//! Numbers of the trailer and of the header's length are little-endian, all others LEB128; paths and bodies stand behind their
//! length. A block takes records up to 64 KiB; a longer record has a block of its own. The first record of a block shares nothing,
//! so that reading can begin at any block. The digest covers magic line, header, index and summary, and by the index every block.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write},
};

use sha2::{Digest as _, Sha256};

use super::{
    bytes::{Taken, put_bytes, put_number},
    place::order,
};

/// Bytes of a block of more than one record, at most.
const BLOCK_BYTES: usize = 64 * 1024;
/// Bytes of one record, at most.
const RECORD_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of header, index and summary together, at most.
const FRAME_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a path, at most: a path that the contract can name, and one more name.
pub const PATH_BYTES: usize = 8192;
const TRAILER_BYTES: u64 = 56;

/// SHA-256.
pub type Digest = [u8; 32];

fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Writes records in order.
pub struct Writer<'w> {
    out: &'w mut dyn Write,
    hash: Sha256,
    block: Vec<u8>,
    first: Vec<u8>,
    in_block: u64,
    last: Vec<u8>,
    index: Vec<u8>,
    records: u64,
}

impl<'w> Writer<'w> {
    /// Begins a file with `magic`, a line, and `header`.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn start(out: &'w mut dyn Write, magic: &[u8], header: &[u8]) -> io::Result<Self> {
        let length = u32::try_from(header.len()).map_err(|_| io::ErrorKind::FileTooLarge)?.to_le_bytes();
        let mut hash = Sha256::new();
        for part in [magic, &length, header] {
            hash.update(part);
            out.write_all(part)?;
        }
        let (block, first, last, index) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { out, hash, block, first, in_block: 0, last, index, records: 0 })
    }

    /// Writes a record. Its path must come after the one before.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when it does not, `FileTooLarge` beyond a bound, or when it cannot be written.
    pub fn add(&mut self, path: &[u8], body: &[u8]) -> io::Result<()> {
        if self.records > 0 && !order(&self.last, path).is_lt() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "records are not in order"));
        }
        if path.len() > PATH_BYTES || body.len() > RECORD_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // Three numbers of at most five bytes each.
        if self.in_block > 0 && self.block.len() + path.len() + body.len() + 15 > BLOCK_BYTES {
            self.end_block()?;
        }
        let shared = if self.in_block == 0 { 0 } else { shared(&self.last, path) };
        put_number(&mut self.block, shared as u64);
        put_bytes(&mut self.block, &path[shared..]);
        put_bytes(&mut self.block, body);
        if self.in_block == 0 {
            self.first.clear();
            self.first.extend_from_slice(path);
        }
        self.last.clear();
        self.last.extend_from_slice(path);
        self.in_block += 1;
        self.records += 1;
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.in_block == 0 {
            return Ok(());
        }
        put_number(&mut self.index, self.block.len() as u64);
        put_number(&mut self.index, self.in_block);
        put_bytes(&mut self.index, &self.first);
        self.index.extend_from_slice(&Sha256::digest(&self.block));
        self.out.write_all(&self.block)?;
        self.block.clear();
        self.in_block = 0;
        Ok(())
    }

    /// Ends the file, and returns its digest.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn finish(mut self, summary: &[u8]) -> io::Result<Digest> {
        self.end_block()?;
        let lengths = [self.index.len() as u64, summary.len() as u64, self.records].map(u64::to_le_bytes);
        self.hash.update(&self.index);
        self.hash.update(summary);
        self.hash.update(lengths.as_flattened());
        let digest: Digest = self.hash.finalize().into();
        for part in [&self.index, summary, lengths.as_flattened(), &digest] {
            self.out.write_all(part)?;
        }
        Ok(digest)
    }
}

fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A file of records whose frame is whole. Each block is checked when it is read.
#[derive(Debug)]
pub struct Blocks {
    file: File,
    header: Vec<u8>,
    summary: Vec<u8>,
    index: Vec<Block>,
    /// First paths of the blocks, one after the other.
    paths: Vec<u8>,
    records: u64,
    digest: Digest,
}

#[derive(Debug)]
struct Block {
    offset: u64,
    length: usize,
    records: u64,
    path_end: usize,
    digest: Digest,
}

impl Blocks {
    /// Opens the file of records in `file`, which begins with `magic`.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is damaged, or the error of reading it.
    pub fn open(mut file: File, magic: &[u8]) -> io::Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        let start = magic.len() as u64 + 4;
        let body_end = length.checked_sub(TRAILER_BYTES).filter(|end| *end >= start).ok_or_else(damaged)?;
        let mut head = vec![0; magic.len() + 4];
        read_at(&file, 0, &mut head)?;
        let mut trailer = [0; 56];
        read_at(&file, body_end, &mut trailer)?;
        let mut taken = Taken(&trailer);
        let mut number = || taken.array().map(u64::from_le_bytes).ok_or_else(damaged);
        let (index_bytes, summary_bytes, records) = (number()?, number()?, number()?);
        let digest: Digest = taken.array().ok_or_else(damaged)?;
        let header_bytes =
            head.last_chunk::<4>().map(|bytes| u64::from(u32::from_le_bytes(*bytes))).ok_or_else(damaged)?;
        let frame =
            [header_bytes, index_bytes, summary_bytes].iter().try_fold(0_u64, |sum, part| sum.checked_add(*part));
        if !head.starts_with(magic) || frame.is_none_or(|frame| frame > FRAME_BYTES || frame > body_end - start) {
            return Err(damaged());
        }
        let read = |offset: u64, bytes: u64| {
            let mut part = vec![0; usize::try_from(bytes).map_err(|_| damaged())?];
            read_at(&file, offset, &mut part)?;
            io::Result::Ok(part)
        };
        let header = read(start, header_bytes)?;
        let index_start = body_end - index_bytes - summary_bytes;
        let index = read(index_start, index_bytes)?;
        let summary = read(body_end - summary_bytes, summary_bytes)?;
        let mut hash = Sha256::new();
        for part in [head.as_slice(), &header, &index, &summary, &trailer[..24]] {
            hash.update(part);
        }
        if digest != <Digest>::from(hash.finalize()) {
            return Err(damaged());
        }
        let blocks_start = start + header_bytes;
        let (index, paths) = parse_index(&index, blocks_start, index_start, records).ok_or_else(damaged)?;
        Ok(Self { file, header, summary, index, paths, records, digest })
    }

    /// Returns the header.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Returns the summary.
    pub fn summary(&self) -> &[u8] {
        &self.summary
    }

    /// Returns how many records there are.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Returns the digest of the whole.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Reads every record.
    ///
    /// # Errors
    ///
    /// `InvalidData` when one is damaged, or the error of reading it.
    pub fn verify(&self) -> io::Result<()> {
        let mut cursor = Cursor::start(self)?;
        while cursor.path().is_some() {
            cursor.advance()?;
        }
        Ok(())
    }

    fn path_of(&self, block: usize) -> &[u8] {
        let start = block.checked_sub(1).map_or(0, |before| self.index[before].path_end);
        &self.paths[start..self.index[block].path_end]
    }
}

fn parse_index(index: &[u8], start: u64, end: u64, records: u64) -> Option<(Vec<Block>, Vec<u8>)> {
    let (mut blocks, mut paths, mut offset, mut left) = (Vec::new(), Vec::new(), start, records);
    let mut taken = Taken(index);
    while !taken.0.is_empty() {
        let length: usize = taken.narrow()?;
        let records = taken.number()?;
        paths.extend_from_slice(taken.bytes().filter(|path| path.len() <= PATH_BYTES)?);
        // The bound of a block of one record, with the numbers of its frame.
        if length > RECORD_BYTES + PATH_BYTES + 15 || records == 0 {
            return None;
        }
        let digest = taken.array()?;
        blocks.push(Block { offset, length, records, path_end: paths.len(), digest });
        offset = offset.checked_add(length as u64)?;
        left = left.checked_sub(records)?;
    }
    (offset == end && left == 0).then_some((blocks, paths))
}

fn read_at(mut file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(),
        _ => error,
    })
}

/// Reads records in order. It holds one block and one path.
pub struct Cursor<'b> {
    blocks: &'b Blocks,
    next_block: usize,
    buffer: Vec<u8>,
    at: usize,
    left: u64,
    path: Vec<u8>,
    body: std::ops::Range<usize>,
    is_there: bool,
}

impl<'b> Cursor<'b> {
    /// Returns a cursor at the first record.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is damaged, or the error of reading it.
    pub fn start(blocks: &'b Blocks) -> io::Result<Self> {
        let mut cursor = Self {
            blocks,
            next_block: 0,
            buffer: Vec::new(),
            at: 0,
            left: 0,
            path: Vec::new(),
            body: 0..0,
            is_there: false,
        };
        cursor.advance()?;
        Ok(cursor)
    }

    /// Returns the path of the record that it is at; `None` at the end.
    pub fn path(&self) -> Option<&[u8]> {
        self.is_there.then_some(self.path.as_slice())
    }

    /// Returns the body of the record that it is at.
    pub fn body(&self) -> &[u8] {
        &self.buffer[self.body.clone()]
    }

    /// Goes on to the next record.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is damaged, or the error of reading it.
    pub fn advance(&mut self) -> io::Result<()> {
        let is_first = self.left == 0;
        if is_first && !self.load()? {
            self.is_there = false;
            return Ok(());
        }
        let mut taken = Taken(&self.buffer[self.at..]);
        let mut parts = || Some((taken.narrow::<usize>()?, taken.bytes()?, taken.bytes()?));
        let (shared, rest, body) = parts().ok_or_else(damaged)?;
        let is_sound = if is_first {
            let is_after = !self.is_there || order(&self.path, rest).is_lt();
            shared == 0 && is_after && rest == self.blocks.path_of(self.next_block - 1)
        } else {
            self.path.get(shared..).is_some_and(|tail| order(tail, rest).is_lt())
        };
        if !is_sound || shared + rest.len() > PATH_BYTES {
            return Err(damaged());
        }
        let end = self.buffer.len() - taken.0.len();
        self.body = end - body.len()..end;
        self.path.truncate(shared);
        self.path.extend_from_slice(rest);
        self.at = end;
        self.left -= 1;
        self.is_there = true;
        if self.left == 0 && self.at != self.buffer.len() { Err(damaged()) } else { Ok(()) }
    }

    /// Reads the next block; returns false when there is none.
    fn load(&mut self) -> io::Result<bool> {
        let Some(block) = self.blocks.index.get(self.next_block) else { return Ok(false) };
        self.buffer.resize(block.length, 0);
        read_at(&self.blocks.file, block.offset, &mut self.buffer)?;
        if <Digest>::from(Sha256::digest(&self.buffer)) != block.digest {
            return Err(damaged());
        }
        self.at = 0;
        self.left = block.records;
        self.next_block += 1;
        Ok(true)
    }

    /// Goes to the first record that does not come before `path`.
    ///
    /// # Errors
    ///
    /// `InvalidData` when one on the way is damaged, or the error of reading it.
    pub fn seek(&mut self, path: &[u8]) -> io::Result<()> {
        let count = self.blocks.index.len();
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            if order(self.blocks.path_of(middle), path).is_gt() { high = middle } else { low = middle + 1 }
        }
        let block = low.saturating_sub(1);
        let is_ahead = self.path().is_some_and(|at| order(at, path).is_le());
        if !(is_ahead && self.next_block == block + 1) {
            (self.next_block, self.left, self.is_there) = (block, 0, false);
            self.advance()?;
        }
        while self.path().is_some_and(|at| order(at, path).is_lt()) {
            self.advance()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MAGIC: &[u8] = b"muster-test 1\n";

    fn written(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::start(&mut bytes, MAGIC, b"{}").unwrap();
        for (path, body) in records {
            writer.add(path, body).unwrap();
        }
        writer.finish(b"sum").unwrap();
        bytes
    }

    fn opened(bytes: &[u8]) -> io::Result<Blocks> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Blocks::open(file, MAGIC)
    }

    fn rest(cursor: &mut Cursor<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut records = Vec::new();
        while let Some(path) = cursor.path() {
            records.push((path.to_vec(), cursor.body().to_vec()));
            cursor.advance()?;
        }
        Ok(records)
    }

    #[test]
    fn a_file_cut_or_changed_anywhere_is_damaged_and_never_another() {
        let records = ["/a", "/a/b", "/a/c"].map(|path| (path.as_bytes().to_vec(), b"body".to_vec()));
        let whole = written(&records);
        let read = |bytes: &[u8]| opened(bytes).and_then(|blocks| rest(&mut Cursor::start(&blocks)?));
        assert_eq!(read(&whole).unwrap(), records);
        for at in 0..whole.len() {
            assert_eq!(read(&whole[..at]).unwrap_err().kind(), io::ErrorKind::InvalidData, "cut at {at}");
            for bit in [1, 0x80] {
                let mut changed = whole.clone();
                changed[at] ^= bit;
                assert_eq!(read(&changed).unwrap_err().kind(), io::ErrorKind::InvalidData, "changed at {at}");
            }
            let longer = [&whole[..at], b"\0", &whole[at..]].concat();
            assert_eq!(read(&longer).unwrap_err().kind(), io::ErrorKind::InvalidData, "longer at {at}");
        }
    }

    #[test]
    fn a_record_out_of_order_is_refused() {
        let mut bytes = Vec::new();
        let mut writer = Writer::start(&mut bytes, MAGIC, b"").unwrap();
        writer.add(b"/a-b", b"").unwrap();
        for path in ["/a-b", "/a", "/a/b"] {
            assert_eq!(writer.add(path.as_bytes(), b"").unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn a_record_longer_than_a_block_has_a_block_of_its_own() {
        let body = |length| vec![7; length];
        let records = [
            (b"/a".to_vec(), body(10)),
            (b"/b".to_vec(), body(3 * BLOCK_BYTES)),
            (b"/c".to_vec(), body(BLOCK_BYTES)),
            (b"/d".to_vec(), body(10)),
        ];
        let blocks = opened(&written(&records)).unwrap();
        assert_eq!(blocks.index.len(), 4);
        assert_eq!(rest(&mut Cursor::start(&blocks).unwrap()).unwrap(), records);
        let mut bytes = Vec::new();
        let mut writer = Writer::start(&mut bytes, MAGIC, b"").unwrap();
        assert_eq!(writer.add(b"/a", &body(RECORD_BYTES + 1)).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    proptest! {
        #[test]
        fn records_are_read_as_written_and_found_from_any_path(
            records in prop::collection::btree_map("/[a-c/.]{0,6}", prop::collection::vec(any::<u8>(), 0..9_000), 0..60),
            paths in prop::collection::vec("/[a-c/.]{0,6}", 1..9),
        ) {
            let records: BTreeMap<String, Vec<u8>> = records;
            let mut records: Vec<_> = records.into_iter().map(|(path, body)| (path.into_bytes(), body)).collect();
            records.sort_by(|a, b| order(&a.0, &b.0));
            let blocks = opened(&written(&records)).unwrap();
            prop_assert_eq!(blocks.records(), records.len() as u64);
            prop_assert_eq!(&rest(&mut Cursor::start(&blocks).unwrap()).unwrap(), &records);
            let mut cursor = Cursor::start(&blocks).unwrap();
            for path in paths {
                cursor.seek(path.as_bytes()).unwrap();
                let expected = records.iter().find(|(at, _)| !order(at, path.as_bytes()).is_lt());
                prop_assert_eq!(cursor.path(), expected.map(|(path, _)| path.as_slice()));
                if let Some((_, body)) = expected {
                    prop_assert_eq!(cursor.body(), body.as_slice());
                }
            }
        }
    }
}
