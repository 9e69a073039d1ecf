//! What a scan comes to know, in order, before it is put into force: a file without a name.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
};

use super::{block::PATH_BYTES, known::Known, store::Store};

/// Takes records in order. The last one may still be changed.
pub struct Draft {
    out: BufWriter<File>,
    last: Option<(Vec<u8>, Known)>,
}

impl Draft {
    /// Returns an empty draft.
    ///
    /// # Errors
    ///
    /// When its file cannot be made.
    pub fn start(store: &Store) -> io::Result<Self> {
        Ok(Self { out: BufWriter::new(store.draft()?), last: None })
    }

    /// Takes the next record.
    ///
    /// # Errors
    ///
    /// When the one before cannot be written.
    pub fn add(&mut self, path: &[u8], known: Known) -> io::Result<()> {
        self.write_last()?;
        self.last = Some((path.to_vec(), known));
        Ok(())
    }

    /// Returns the last record, if it is of `path`.
    pub fn last(&mut self, path: &[u8]) -> Option<&mut Known> {
        self.last.as_mut().filter(|(last, _)| last == path).map(|(_, known)| known)
    }

    fn write_last(&mut self) -> io::Result<()> {
        let Some((path, known)) = self.last.take() else { return Ok(()) };
        if known.is_empty() {
            return Ok(());
        }
        let record = known.encode();
        for part in [&path, &record] {
            let length = u32::try_from(part.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
            self.out.write_all(&length.to_le_bytes())?;
        }
        self.out.write_all(&path)?;
        self.out.write_all(&record)
    }

    /// Ends it, and returns its records.
    ///
    /// # Errors
    ///
    /// When they cannot be written or read.
    pub fn finish(mut self) -> io::Result<Drafted> {
        self.write_last()?;
        let mut file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        let mut drafted = Drafted { reader: BufReader::new(file), next: None };
        drafted.next = drafted.read()?;
        Ok(drafted)
    }
}

/// The records of a draft, in order.
pub struct Drafted {
    reader: BufReader<File>,
    next: Option<(Vec<u8>, Known)>,
}

impl Drafted {
    /// Returns the path of the next record.
    pub fn path(&self) -> Option<&[u8]> {
        self.next.as_ref().map(|(path, _)| path.as_slice())
    }

    /// Returns the next record, and goes on.
    ///
    /// # Errors
    ///
    /// When the one after it cannot be read.
    pub fn take(&mut self) -> io::Result<Option<(Vec<u8>, Known)>> {
        if self.next.is_none() {
            return Ok(None);
        }
        let after = self.read()?;
        Ok(std::mem::replace(&mut self.next, after))
    }

    fn read(&mut self) -> io::Result<Option<(Vec<u8>, Known)>> {
        let mut lengths = [0; 8];
        if self.reader.by_ref().take(1).read(&mut lengths)? == 0 {
            return Ok(None);
        }
        self.reader.read_exact(&mut lengths[1..])?;
        let [path, record] = lengths.as_chunks::<4>().0 else { return Err(io::ErrorKind::InvalidData.into()) };
        let (path, record) = (u32::from_le_bytes(*path) as usize, u32::from_le_bytes(*record) as usize);
        // It is this program's own file; a longer path is not written.
        let mut path = vec![0; path.min(2 * PATH_BYTES)];
        self.reader.read_exact(&mut path)?;
        let mut bytes = Vec::new();
        self.reader.by_ref().take(record as u64).read_to_end(&mut bytes)?;
        let known = Known::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some((path, known)))
    }
}
