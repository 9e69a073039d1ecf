//! Reads extended attributes.
//!
//! Of files and folders they are read through their open descriptor. Links and special files must not be opened: their attributes are
//! read through the name that `/proc/self/fd` gives to a descriptor that only names them, which leads to that very entry.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use muster_proto::{fact::ExtendedAttribute, limits};
use rustix::io::Errno;

use super::open::changed;
use crate::host::xattr;

/// Bytes of a list of names or of a value, at most: `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` of linux/limits.h.
const LIMIT_BYTES: usize = 64 * 1024;
/// Bytes of a list that is longer than most: the kernel takes as much memory as it is asked for, each time.
const USUAL_BYTES: usize = 1024;

/// Reads attributes; its buffers are made once, and when they are first needed.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    names: Vec<u8>,
    value: Vec<u8>,
    /// Bytes of values that were read and not taken.
    read_bytes: u64,
}

impl Attributes {
    /// Returns the attributes of an open file or folder, sorted by name.
    pub(super) fn of_open(&mut self, entry: BorrowedFd<'_>) -> io::Result<Vec<ExtendedAttribute>> {
        self.read(|names| rustix::fs::flistxattr(entry, names), |name, value| rustix::fs::fgetxattr(entry, name, value))
    }

    /// Returns the attributes of an entry that `entry` only names, sorted by name.
    pub(super) fn of_named(&mut self, entry: BorrowedFd<'_>) -> io::Result<Vec<ExtendedAttribute>> {
        let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
        let read = self.read(
            |names| rustix::fs::listxattr(path.as_str(), names),
            |name, value| rustix::fs::getxattr(path.as_str(), name, value),
        );
        match read {
            // The descriptor is open: what is missing is `/proc`.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = "extended attributes are read through /proc, which is not there";
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            }
            read => read,
        }
    }

    /// Takes how many bytes of values were read since it was asked last.
    pub(super) fn take_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.read_bytes)
    }

    fn read(
        &mut self,
        list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
        value: impl Fn(&CStr, &mut [u8]) -> rustix::io::Result<usize>,
    ) -> io::Result<Vec<ExtendedAttribute>> {
        if self.names.is_empty() {
            self.names.resize(USUAL_BYTES, 0);
        }
        let listed = match list(&mut self.names) {
            Err(Errno::RANGE) => {
                self.names.resize(LIMIT_BYTES, 0);
                list(&mut self.names)
            }
            listed => listed,
        };
        let listed = match listed {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            listed => &self.names[..listed?],
        };
        let mut names: Vec<&CStr> = Vec::new();
        for name in listed.split_inclusive(|byte| *byte == 0) {
            let name = CStr::from_bytes_with_nul(name);
            names
                .push(name.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a list of attributes has no end"))?);
        }
        if names.len() > limits::EXTENDED_ATTRIBUTES {
            return Err(xattr::too_many());
        }
        names.sort_unstable();
        names.dedup();
        self.value.resize(LIMIT_BYTES, 0);
        let mut attributes = Vec::with_capacity(names.len());
        let mut left = xattr::LIST_BYTES;
        for name in names {
            match value(name, &mut self.value) {
                Ok(bytes) => {
                    self.read_bytes += bytes as u64;
                    let attribute = xattr::attribute(name.to_bytes(), &self.value[..bytes]);
                    left = left.checked_sub(xattr::bytes(&attribute)).ok_or_else(xattr::too_many)?;
                    attributes.push(attribute);
                }
                // It was removed, or grew, since it was listed.
                Err(Errno::NODATA | Errno::RANGE) => return Err(changed()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(attributes)
    }
}
