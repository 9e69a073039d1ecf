//! The container of a snapshot: a zip file of which no byte is free.
//!
//! Files are stored, not compressed, in order of their names, with one fixed time, no extra fields and no comments. So a list of
//! files has exactly one form, whatever version of whatever compressor made it, and whoever reads it can compare every byte:
//!
//! ```text
//! for each file:  local header (30 bytes) | name | content
//! for each file:  central header (46 bytes) | name
//! zip64 end record (56 bytes) and locator (20 bytes), only from 65535 files on
//! end record (22 bytes)
//! ```
//!
//! Any zip program unpacks it.

use std::collections::BTreeMap;

/// Files in a snapshot, at most.
pub const FILES: usize = 1_000_000;
/// Bytes of a snapshot, at most; keeps every offset of the format in 32 bits.
pub const BYTES: usize = 2 << 30;
/// Bytes of a name, at most.
const NAME_BYTES: usize = 64;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
/// 2.0: folders; 4.5: zip64.
const VERSION: u16 = 20;
const VERSION_64: u16 = 45;
/// 1980-01-01 00:00:00, the first time of the format.
const DATE: u16 = 1 << 5 | 1;
const LOCAL_BYTES: usize = 30;

/// Bytes are not a snapshot's container.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// There are too many files or bytes.
    #[error("snapshot has more than {BYTES} bytes or {FILES} files")]
    TooLarge,
    /// A name is not one that snapshots use.
    #[error("file name at byte {offset} is not one that snapshots use")]
    Name {
        /// Where.
        offset: usize,
    },
    /// A file appears twice or out of order.
    #[error("{name} appears twice or out of order")]
    Order {
        /// Which.
        name: String,
    },
    /// A file ends before its content does.
    #[error("snapshot is cut off in {name}")]
    Cut {
        /// Which.
        name: String,
    },
    /// The content does not have its checksum.
    #[error("{name} was changed: its content does not have its checksum")]
    Checksum {
        /// Which.
        name: String,
    },
    /// The header of a file is not in the one form.
    #[error(
        "the header of {name} is none of a snapshot, as when a zip program packs it anew; verify the file as it was downloaded"
    )]
    Packed {
        /// Which.
        name: String,
    },
    /// A byte is not what the format has there.
    #[error("byte {offset}, in {place}, was changed, added or removed")]
    Byte {
        /// Where.
        offset: usize,
        /// In what.
        place: String,
    },
}

/// Files by name.
pub type Files<'a> = BTreeMap<&'a str, &'a [u8]>;

/// Returns the one container of `files`.
///
/// # Errors
///
/// [`Error::TooLarge`], and [`Error::Name`] for a name that snapshots do not use.
pub fn write(files: &Files<'_>) -> Result<Vec<u8>, Error> {
    let total: usize = files.iter().map(|(name, content)| content.len() + 2 * name.len() + 76).sum();
    if files.len() > FILES || total > BYTES {
        return Err(Error::TooLarge);
    }
    let mut out = Vec::with_capacity(total + 98);
    let mut central = Vec::new();
    for (name, content) in files {
        if !is_name(name.as_bytes()) {
            return Err(Error::Name { offset: out.len() });
        }
        let offset = word(out.len());
        let fields = Fields { name, crc: crc32(content), bytes: word(content.len()) };
        put(&mut out, &[LOCAL]);
        fields.put(&mut out);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(content);

        put(&mut central, &[CENTRAL]);
        // Made by version 2.0 on a machine whose file attributes say nothing.
        put_16(&mut central, &[VERSION]);
        fields.put(&mut central);
        // No comment, first disk, no attributes.
        put_16(&mut central, &[0, 0, 0]);
        put(&mut central, &[0, offset]);
        central.extend_from_slice(name.as_bytes());
    }
    let start = out.len();
    out.extend_from_slice(&central);
    end(&mut out, files.len(), start, central.len());
    Ok(out)
}

/// Returns the files of `bytes`, which are exactly what [`write()`] makes of them.
///
/// # Errors
///
/// Names the file or the byte that is not as it must be.
pub fn read(bytes: &[u8]) -> Result<Files<'_>, Error> {
    if bytes.len() > BYTES {
        return Err(Error::TooLarge);
    }
    let mut files = Files::new();
    let mut at = 0;
    while bytes.get(at..at + 4) == Some(&LOCAL.to_le_bytes()) {
        let (name, content, next) = local(bytes, at)?;
        let is_next = files.last_key_value().is_none_or(|(last, _)| *last < name);
        if !is_next {
            return Err(Error::Order { name: name.to_owned() });
        }
        if files.len() == FILES {
            return Err(Error::TooLarge);
        }
        files.insert(name, content);
        at = next;
    }
    // What follows the files is their list. What is neither a file nor the list was put in, or broke what stood there.
    let is_list = [CENTRAL, END, END_64].iter().any(|magic| bytes.get(at..at + 4) == Some(&magic.to_le_bytes()));
    if !is_list && at < bytes.len() {
        let place = match files.last_key_value() {
            None => "the beginning, where the first file should be".to_owned(),
            Some((last, _)) => format!("the place after {last}, where the next file or the list of files should be"),
        };
        return Err(Error::Byte { offset: at, place });
    }
    // Everything that was not read so far has one form.
    let expected = write(&files)?;
    let same = bytes.iter().zip(&expected).take_while(|(is, should)| is == should).count();
    if same < bytes.len() || same < expected.len() {
        return Err(Error::Byte { offset: same, place: place(&files, same) });
    }
    Ok(files)
}

/// Returns whether `bytes` could be a snapshot, whole or changed: a zip file that speaks of a manifest. Others are not changed ones.
pub fn is_like_a_snapshot(bytes: &[u8]) -> bool {
    let has = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    has(&LOCAL.to_le_bytes()) && has(super::manifest::NAME.as_bytes())
}

/// Returns the file whose local header is at `at`, and where the next one would be.
fn local(bytes: &[u8], at: usize) -> Result<(&str, &[u8], usize), Error> {
    let cut = |name: &str| Error::Cut { name: name.to_owned() };
    let header = bytes.get(at..at + LOCAL_BYTES).ok_or_else(|| cut("a header"))?;
    let number = |from: usize| u32::from_le_bytes([header[from], header[from + 1], header[from + 2], header[from + 3]]);
    let (crc, size) = (number(14), number(22) as usize);
    let name_bytes = usize::from(u16::from_le_bytes([header[26], header[27]]));
    let start = at + LOCAL_BYTES;
    let name = bytes.get(start..start + name_bytes).ok_or_else(|| cut("a name"))?;
    if !is_name(name) {
        return Err(Error::Name { offset: start });
    }
    let name = std::str::from_utf8(name).map_err(|_| Error::Name { offset: start })?;
    // Version, flags, method and time, and bytes of extra fields. Zip programs write their own, and what follows is elsewhere then.
    let [version, date] = [VERSION, DATE].map(u16::to_le_bytes);
    let is_ours = [version, [0; 2], [0; 2], [0; 2], date].concat() == header[4..14] && header[28..30] == [0, 0];
    if !is_ours {
        return Err(Error::Packed { name: name.to_owned() });
    }
    let start = start + name_bytes;
    let content = bytes.get(start..start + size).ok_or_else(|| cut(name))?;
    if crc32(content) != crc {
        return Err(Error::Checksum { name: name.to_owned() });
    }
    Ok((name, content, start + size))
}

/// Returns what the byte at `offset` of the container of `files` belongs to.
fn place(files: &Files<'_>, offset: usize) -> String {
    let mut at = 0;
    for (name, content) in files {
        let header = at + LOCAL_BYTES + name.len();
        if offset < header {
            return format!("the header of {name}");
        }
        at = header + content.len();
        if offset < at {
            return (*name).to_owned();
        }
    }
    "the list of files at the end".to_owned()
}

/// What the local and the central header say alike.
struct Fields<'a> {
    name: &'a str,
    crc: u32,
    bytes: u32,
}

impl Fields<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        // Version needed, flags, method (stored), time, date.
        put_16(out, &[VERSION, 0, 0, 0, DATE]);
        put(out, &[self.crc, self.bytes, self.bytes]);
        put_16(out, &[u16::try_from(self.name.len()).expect("a name is short"), 0]);
    }
}

fn end(out: &mut Vec<u8>, files: usize, start: usize, bytes: usize) {
    let count = u16::try_from(files).unwrap_or(u16::MAX);
    if count == u16::MAX {
        let record = out.len();
        put(out, &[END_64]);
        put_64(out, &[44]);
        put_16(out, &[VERSION_64, VERSION_64]);
        put(out, &[0, 0]);
        put_64(out, &[files as u64, files as u64, bytes as u64, start as u64]);
        put(out, &[LOCATOR_64, 0]);
        put_64(out, &[record as u64]);
        put(out, &[1]);
    }
    put(out, &[END]);
    put_16(out, &[0, 0, count, count]);
    put(out, &[word(bytes), word(start)]);
    put_16(out, &[0]);
}

fn put(out: &mut Vec<u8>, numbers: &[u32]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

fn put_16(out: &mut Vec<u8>, numbers: &[u16]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

fn put_64(out: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

fn word(number: usize) -> u32 {
    u32::try_from(number).expect("a snapshot is smaller than 4 GiB")
}

/// Names hold neither `..` nor anything that a shell, a terminal or a file system could take for more than a letter.
fn is_name(name: &[u8]) -> bool {
    let is_part = |part: &[u8]| !part.is_empty() && part[0] != b'.' && part.iter().all(|b| is_letter(*b));
    !name.is_empty() && name.len() <= NAME_BYTES && name.split(|b| *b == b'/').all(is_part)
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Returns the CRC-32 of ISO 3309, as zip uses it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(bytes);
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn sample() -> Vec<u8> {
        write(&Files::from([("README.txt", b"hello\n".as_slice()), ("evidence/7.entry", b"\x00\xff"), ("z", b"")]))
            .unwrap()
    }

    #[test]
    fn another_zip_reader_finds_the_same_files() {
        let bytes = sample();
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&bytes)).unwrap();
        let mut found = Vec::new();
        for index in 0..archive.len() {
            let mut file = archive.by_index(index).unwrap();
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            found.push((file.name().to_owned(), content));
        }
        let ours: Vec<_> =
            read(&bytes).unwrap().into_iter().map(|(name, content)| (name.to_owned(), content.to_vec())).collect();
        assert_eq!(found, ours);
        assert_eq!(ours.len(), 3);
    }

    #[test]
    fn more_files_than_sixteen_bits_count_are_read_by_others_too() {
        let names: Vec<String> = (0..70_000).map(|n| format!("e/{n:05}")).collect();
        let files: Files<'_> = names.iter().map(|name| (name.as_str(), b"x".as_slice())).collect();
        let bytes = write(&files).unwrap();
        assert_eq!(zip::ZipArchive::new(std::io::Cursor::new(&bytes)).unwrap().len(), 70_000);
        assert_eq!(read(&bytes).unwrap(), files);
    }

    #[test]
    fn no_byte_is_free() {
        let bytes = sample();
        assert!(read(&bytes).is_ok());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(read(&changed).is_err(), "byte {at}");
            }
            assert!(read(&bytes[..at]).is_err(), "cut at {at}");
            let mut longer = bytes.clone();
            longer.insert(at, 0);
            assert!(read(&longer).is_err(), "inserted at {at}");
        }
        assert!(read(&[bytes.as_slice(), b"x"].concat()).is_err());
        assert!(read(&[b"x".as_slice(), &bytes].concat()).is_err());
    }

    #[test]
    fn a_changed_file_is_named() {
        let mut bytes = sample();
        let at = bytes.windows(5).position(|window| window == b"hello").unwrap();
        bytes[at] = b'j';
        assert_eq!(read(&bytes), Err(Error::Checksum { name: "README.txt".to_owned() }));
    }

    #[test]
    fn what_a_zip_program_packed_anew_is_not_called_changed() {
        let bytes = sample();
        for at in [4, 6, 8, 10, 12, 28] {
            let mut packed = bytes.clone();
            packed[at] = 8;
            assert_eq!(read(&packed), Err(Error::Packed { name: "README.txt".to_owned() }), "byte {at}");
        }
    }

    #[test]
    fn only_a_zip_file_with_a_manifest_is_like_a_snapshot() {
        let like = write(&Files::from([("README.txt", b"x".as_slice()), ("manifest.json", b"{}")])).unwrap();
        assert!(is_like_a_snapshot(&like));
        assert!(is_like_a_snapshot(&[b"x".as_slice(), &like].concat()));
        for other in [b"".as_slice(), b"PK", b"{\"manifest.json\": 1}", &sample()] {
            assert!(!is_like_a_snapshot(other));
        }
    }

    #[test]
    fn bytes_before_between_or_after_the_files_are_placed() {
        let bytes = sample();
        let between = LOCAL_BYTES + "README.txt".len() + "hello\n".len();
        for (at, expected) in [(0, "the beginning"), (between, "the place after README.txt"), (bytes.len(), "the end")]
        {
            let mut longer = bytes.clone();
            longer.splice(at..at, *b"abc");
            let Err(Error::Byte { offset, place }) = read(&longer) else { panic!("at {at}") };
            assert_eq!(offset, at);
            assert!(place.contains(expected), "{place}");
        }
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_refused() {
        for name in ["", "/etc/passwd", "../x", "a/../x", "a//b", "a\\b", "a b", ".x", "a\u{1b}", "é", "a/"] {
            assert!(matches!(write(&Files::from([(name, b"".as_slice())])), Err(Error::Name { .. })), "{name:?}");
        }
    }
}
