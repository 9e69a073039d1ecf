//! Files of a tar archive (pax(1), the ustar and pax formats), taken in pieces so that an archive needs one file's memory.

use std::io;

const BLOCK: usize = 512;
/// Bytes of a file that are kept; a longer one is left out.
const FILE_BYTES: u64 = 256 * 1024;

/// Calls `each` with the path and content of every regular file that `is_wanted` by its path.
pub(super) struct Archive<W, F> {
    is_wanted: W,
    each: F,
    block: Vec<u8>,
    /// What follows the header that was read last.
    entry: Option<Entry>,
    /// Path of the next file, which an extended header gives.
    long_path: Option<String>,
    has_ended: bool,
}

struct Entry {
    kind: u8,
    path: String,
    /// `None` when it is not kept.
    content: Option<Vec<u8>>,
    left: u64,
    padding: u64,
}

impl<W: Fn(&str) -> bool, F: FnMut(&str, &[u8])> Archive<W, F> {
    pub fn new(is_wanted: W, each: F) -> Self {
        Self { is_wanted, each, block: Vec::with_capacity(BLOCK), entry: None, long_path: None, has_ended: false }
    }

    /// Ends the archive.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is cut off.
    pub fn finish(self) -> io::Result<()> {
        // Two blocks of zeros end it.
        if self.has_ended { Ok(()) } else { Err(garbled("the archive is cut off")) }
    }

    fn header(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        if block.iter().all(|byte| *byte == 0) {
            self.has_ended = true;
            return Ok(());
        }
        let size = octal(&block[124..136]).ok_or_else(|| garbled("a header has no size"))?;
        let checksum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
            .sum();
        if octal(&block[148..156]) != Some(checksum) {
            return Err(garbled("a header has another checksum"));
        }
        let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
        let kind = block[156];
        let path = match self.long_path.take() {
            Some(path) if matches!(kind, b'0' | 0) => path,
            _ if prefix.is_empty() || &block[257..262] != b"ustar" => name,
            _ => format!("{prefix}/{name}"),
        };
        let is_kept = match kind {
            b'0' | 0 => (self.is_wanted)(&path),
            b'x' | b'L' => true,
            _ => false,
        };
        let content = (is_kept && size <= FILE_BYTES).then(Vec::new);
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        let entry = Entry { kind, path, content, left: size, padding };
        match size {
            0 => self.end(entry),
            _ => self.entry = Some(entry),
        }
        Ok(())
    }

    fn end(&mut self, entry: Entry) {
        let Some(content) = entry.content else { return };
        match entry.kind {
            b'x' => self.long_path = pax_path(&content),
            b'L' => self.long_path = Some(text(&content)),
            _ => (self.each)(&entry.path, &content),
        }
    }

    /// Takes the bytes of the current entry or header, and returns how many these were.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(mut entry) = self.entry.take() else {
            let count = bytes.len().min(BLOCK - self.block.len());
            self.block.extend_from_slice(&bytes[..count]);
            if self.block.len() == BLOCK {
                self.header()?;
            }
            return Ok(count);
        };
        if entry.left > 0 {
            let count = usize::try_from(entry.left).unwrap_or(usize::MAX).min(bytes.len());
            if let Some(content) = &mut entry.content {
                content.extend_from_slice(&bytes[..count]);
            }
            entry.left -= count as u64;
            if entry.left > 0 || entry.padding > 0 {
                self.entry = Some(entry);
            } else {
                self.end(entry);
            }
            return Ok(count);
        }
        let count = usize::try_from(entry.padding).unwrap_or(usize::MAX).min(bytes.len());
        entry.padding -= count as u64;
        if entry.padding > 0 {
            self.entry = Some(entry);
        } else {
            self.end(entry);
        }
        Ok(count)
    }
}

impl<W: Fn(&str) -> bool, F: FnMut(&str, &[u8])> io::Write for Archive<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_ended {
            return Ok(bytes.len());
        }
        self.take(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn garbled(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn octal(field: &[u8]) -> Option<u64> {
    u64::from_str_radix(text(field).trim(), 8).ok()
}

/// Returns the path of an extended header: records of `length key=value` and a line's end.
fn pax_path(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    text.lines().find_map(|line| line.split_once(' ')?.1.strip_prefix("path=").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// Returns an archive of these files, written by the format's description.
    pub(in crate::probe::patch_level) fn archive(files: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (path, kind, content) in files {
            let mut block = [0_u8; BLOCK];
            block[..path.len()].copy_from_slice(path.as_bytes());
            block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
            block[156] = *kind;
            block[257..262].copy_from_slice(b"ustar");
            block[148..156].copy_from_slice(b"        ");
            let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            archive.extend_from_slice(&block);
            archive.extend_from_slice(content);
            archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        archive
    }

    fn read(bytes: &[u8], piece: usize) -> io::Result<Vec<(String, usize)>> {
        let mut found = Vec::new();
        let mut archive =
            Archive::new(|path| path.ends_with("/desc"), |path, content| found.push((path.to_owned(), content.len())));
        bytes.chunks(piece.max(1)).try_for_each(|piece| archive.write_all(piece))?;
        archive.finish()?;
        Ok(found)
    }

    #[test]
    fn files_are_the_same_however_the_archive_is_cut() {
        let long = [0_u8; 700];
        let bytes = archive(&[
            ("a-1/", b'5', b""),
            ("a-1/desc", b'0', b"x"),
            ("a-1/files", b'0', &long),
            ("b-1/desc", b'0', &long),
            ("pax", b'x', b"21 path=long-1/desc\n"),
            ("cut", b'0', b"yy"),
            ("empty/desc", b'0', b""),
        ]);
        let expected = [("a-1/desc", 1), ("b-1/desc", 700), ("long-1/desc", 2), ("empty/desc", 0)];
        let expected: Vec<_> = expected.iter().map(|(path, size)| ((*path).to_owned(), *size)).collect();
        for piece in [1, 7, 511, 512, 513, bytes.len()] {
            assert_eq!(read(&bytes, piece).unwrap(), expected);
        }
    }

    #[test]
    fn an_archive_that_is_cut_off_or_damaged_is_garbled() {
        let bytes = archive(&[("a-1/desc", b'0', b"x")]);
        let mut damaged = bytes.clone();
        damaged[0] ^= 1;
        for bytes in [&bytes[..100], &bytes[..BLOCK], &bytes[..2 * BLOCK], &damaged, b""] {
            assert_eq!(read(bytes, 64).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..1500), at in 0_usize..600, piece in 1_usize..600,
        ) {
            let _ = read(&bytes, piece);
            let mut archive = archive(&[("a-1/desc", b'0', b"x")]);
            archive.splice(at..at, bytes);
            let _ = read(&archive, piece);
        }
    }
}
