//! How lists are packed, told by the ends of their names, and how they are unpacked: in pieces, with a bound.

use std::io::{self, BufReader};

/// Bytes that a list may have once it is unpacked.
const LIST_BYTES: u64 = 1024 * 1024 * 1024;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Packing {
    None,
    Gzip,
    Lz4,
    Xz,
    Zstd,
    Unknown,
}

impl Packing {
    /// Returns the packing of an ending such as `.gz`; an empty one is of what is not packed.
    pub fn of_ending(ending: &str) -> Self {
        match ending {
            "" => Self::None,
            ".gz" => Self::Gzip,
            ".lz4" => Self::Lz4,
            ".xz" => Self::Xz,
            ".zst" => Self::Zstd,
            _ => Self::Unknown,
        }
    }

    /// Returns the packing of a file that begins with these bytes: formats that are told by nothing else.
    pub fn of_beginning(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            [b'B', b'Z', b'h', ..] => Self::Unknown,
            _ => Self::None,
        }
    }
}

/// Unpacks `file` into `to`, and returns how many bytes that were.
///
/// # Errors
///
/// `Unsupported` for a packing that is not known, `InvalidData` for bytes that are not of it, `FileTooLarge` beyond the bound,
/// and what `file` and `to` return.
pub(super) fn unpack(file: impl io::Read, packing: Packing, to: &mut dyn io::Write) -> io::Result<u64> {
    if packing == Packing::Unknown {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "its compression is not known"));
    }
    let mut file = Source { file, error: None };
    let mut to = Bounded { to, left: LIST_BYTES, error: None };
    let result = unpack_into(&mut file, packing, &mut to);
    // Of an error that a decoder met, it tells no more than that there was one.
    match file.error.or(to.error) {
        Some(error) => Err(error),
        None => result.map(|()| LIST_BYTES - to.left).map_err(|error| invalid(error.to_string())),
    }
}

fn unpack_into(mut file: impl io::Read, packing: Packing, mut to: impl io::Write) -> io::Result<()> {
    match packing {
        Packing::None | Packing::Unknown => io::copy(&mut file.take(LIST_BYTES + 1), &mut to).map(drop),
        Packing::Gzip => io::copy(&mut flate2::read::MultiGzDecoder::new(BufReader::new(file)), &mut to).map(drop),
        Packing::Lz4 => io::copy(&mut lz4_flex::frame::FrameDecoder::new(BufReader::new(file)), &mut to).map(drop),
        Packing::Xz => {
            lzma_rs::xz_decompress(&mut BufReader::new(file), &mut to).map_err(|error| invalid(format!("{error:?}")))
        }
        Packing::Zstd => {
            let mut file = BufReader::new(&mut file);
            let mut unpacked =
                ruzstd::decoding::StreamingDecoder::new(&mut file).map_err(|error| invalid(error.to_string()))?;
            io::copy(&mut unpacked, &mut to).map(drop)
        }
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Keeps the error that it had.
struct Source<R> {
    file: R,
    error: Option<io::Error>,
}

impl<R: io::Read> io::Read for Source<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes).map_err(|error| keep(error, &mut self.error))
    }
}

/// Keeps an error, unless it is only to be tried again, and returns one of its kind.
fn keep(error: io::Error, kept: &mut Option<io::Error>) -> io::Error {
    let kind = error.kind();
    if kind != io::ErrorKind::Interrupted {
        *kept = Some(error);
    }
    kind.into()
}

struct Bounded<'t> {
    to: &'t mut dyn io::Write,
    left: u64,
    error: Option<io::Error>,
}

impl io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => {
                self.left = left;
                self.to.write_all(bytes)
            }
            None => Err(io::ErrorKind::FileTooLarge.into()),
        };
        written.map_err(|error| keep(error, &mut self.error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Packing; 6] =
        [Packing::None, Packing::Gzip, Packing::Lz4, Packing::Xz, Packing::Zstd, Packing::Unknown];

    /// `hello\n` as zstd 1.5 packs it.
    const ZSTD: &[u8] = &[
        0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58, 0x31, 0x00, 0x00, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x0a, 0x53, 0x88, 0xbd,
        0x91,
    ];
    /// The same as xz 5.4 packs it.
    const XZ: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x16, 0x00,
        0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x05, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x0a, 0x00, 0x00, 0x00,
        0xa5, 0x60, 0x97, 0xf1, 0x94, 0xf6, 0xfd, 0xe0, 0x00, 0x01, 0x1e, 0x06, 0xc1, 0x2f, 0xa4, 0x1d, 0x1f, 0xb6,
        0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
    ];

    struct Broken;

    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::TimedOut.into())
        }
    }

    #[test]
    fn what_other_programs_packed_is_unpacked() {
        for (packed, packing) in [(ZSTD, Packing::Zstd), (XZ, Packing::Xz), (&b"hello\n"[..], Packing::None)] {
            let mut found = Vec::new();
            unpack(packed, packing, &mut found).unwrap();
            assert_eq!(found, b"hello\n", "{packing:?}");
            assert_eq!(Packing::of_beginning(packed), packing);
            if packing != Packing::None {
                let half = || &packed[..packed.len() / 2];
                let error = unpack(half(), packing, &mut Vec::new()).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{packing:?}");
                let broken = io::Read::chain(half(), Broken);
                let error = unpack(broken, packing, &mut Vec::new()).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{packing:?}");
            }
        }
        assert_eq!(
            unpack(&b"x"[..], Packing::Unknown, &mut Vec::new()).unwrap_err().kind(),
            io::ErrorKind::Unsupported
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), keep in 0_usize..40) {
            for packing in ALL {
                let _ = unpack(&bytes[..], packing, &mut Vec::new());
            }
            let torn = [&ZSTD[..keep.min(ZSTD.len())], &bytes].concat();
            let _ = unpack(&torn[..], Packing::Zstd, &mut Vec::new());
            let torn = [&XZ[..keep.min(XZ.len())], &bytes].concat();
            let _ = unpack(&torn[..], Packing::Xz, &mut Vec::new());
        }
    }
}
