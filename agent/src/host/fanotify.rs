//! The kernel's notices of changed files, as fanotify(7) lays them out.
//!
//! ```text
//! event     u32 length, u8 version (3), u8, u16 length of what follows up to the records, u64 mask, i32 descriptor, i32 process
//! record    u8 type, u8, u16 length, and for type 2 (FAN_EVENT_INFO_TYPE_DFID_NAME):
//!           2 x i32 file system, u32 length and i32 type of a file handle, the handle of the folder, a name with a NUL at its end
//! ```
//!
//! Numbers are in the machine's byte order.

/// `FANOTIFY_METADATA_VERSION`.
const VERSION: u8 = 3;
/// Bytes of an event without records.
const EVENT_BYTES: usize = 24;
/// `FAN_EVENT_INFO_TYPE_DFID_NAME`.
const FOLDER_AND_NAME: u8 = 2;
/// `MAX_HANDLE_SZ`: bytes of a file handle, at most.
const HANDLE_BYTES: usize = 128;
/// Bytes of a record's header, of a file system's id and of a handle's header.
const RECORD_BYTES: usize = 4;
const FILE_SYSTEM_BYTES: usize = 8;
const HANDLE_HEADER_BYTES: usize = 8;

/// `FAN_Q_OVERFLOW`: notices were dropped.
pub const OVERFLOW: u64 = 0x4000;
/// `FAN_CREATE`, `FAN_MOVED_TO`.
pub const APPEARED: u64 = 0x100 | 0x80;
/// `FAN_ONDIR`: it is about a folder.
pub const FOLDER: u64 = 0x4000_0000;

/// A notice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Notice<'a> {
    /// `FAN_` bits of what happened.
    pub mask: u64,
    /// Process that did it.
    pub pid: u32,
    /// Where; `None` in notices that name no file, as that of an overflow.
    pub place: Option<Place<'a>>,
}

/// An entry of a folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place<'a> {
    /// The file system: both numbers of its id, the first in the low half.
    pub file_system: u64,
    /// Kind of the handle.
    pub handle_type: i32,
    /// Handle of the folder, at most 128 bytes.
    pub handle: &'a [u8],
    /// Name in it; `.` for the folder itself.
    pub name: &'a [u8],
}

/// Returns the notices of one read, up to the first that does not follow the format.
pub fn parse(mut bytes: &[u8]) -> impl Iterator<Item = Notice<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let header = usize::from(u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?));
        if length < header || header < EVENT_BYTES || bytes[4] != VERSION {
            return None;
        }
        let event = bytes.get(..length)?;
        let mask = u64::from_ne_bytes(event[8..16].try_into().ok()?);
        // Of a process outside the agent's own namespace, it is 0.
        let pid = u32_at(event, 20)?;
        bytes = &bytes[length..];
        Some(Notice { mask, pid, place: records(&event[header..]).find_map(place) })
    })
}

/// Returns the type and the content of each record.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?));
        let content = bytes.get(RECORD_BYTES..length)?;
        let kind = bytes[0];
        bytes = &bytes[length..];
        Some((kind, content))
    })
}

fn place((kind, content): (u8, &[u8])) -> Option<Place<'_>> {
    if kind != FOLDER_AND_NAME {
        return None;
    }
    let (low, high) = (u32_at(content, 0)?, u32_at(content, 4)?);
    let rest = content.get(FILE_SYSTEM_BYTES..)?;
    let length = u32_at(rest, 0)? as usize;
    let handle_type = i32::from_ne_bytes(rest.get(4..HANDLE_HEADER_BYTES)?.try_into().ok()?);
    let (handle, name) = rest.get(HANDLE_HEADER_BYTES..)?.split_at_checked(length)?;
    let name = name.split(|byte| *byte == 0).next()?;
    let is_name = !name.is_empty() && !name.contains(&b'/');
    (is_name && length <= HANDLE_BYTES).then_some(Place {
        file_system: u64::from(low) | u64::from(high) << 32,
        handle_type,
        handle,
        name,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a notice as the kernel writes it.
    fn written(mask: u64, pid: i32, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut record = vec![FOLDER_AND_NAME, 0, 0, 0];
        record.extend([7_i32.to_ne_bytes(), 9_i32.to_ne_bytes()].concat());
        record.extend((handle.len() as u32).to_ne_bytes());
        record.extend(1_i32.to_ne_bytes());
        record.extend(handle);
        record.extend(name);
        record.push(0);
        record.resize(record.len().next_multiple_of(4), 0);
        let length = record.len() as u16;
        record[2..4].copy_from_slice(&length.to_ne_bytes());
        let mut event = ((EVENT_BYTES + record.len()) as u32).to_ne_bytes().to_vec();
        event.extend([VERSION, 0]);
        event.extend((EVENT_BYTES as u16).to_ne_bytes());
        event.extend(mask.to_ne_bytes());
        event.extend((-1_i32).to_ne_bytes());
        event.extend(pid.to_ne_bytes());
        event.extend(record);
        event
    }

    #[test]
    fn notices_are_read_one_after_the_other() {
        let bytes = [written(8, 42, &[1, 2, 3], b"passwd"), written(0x100 | FOLDER, 43, &[4; 12], b".")].concat();
        let place = |handle, name| Some(Place { file_system: 9 << 32 | 7, handle_type: 1, handle, name });
        let expected = [
            Notice { mask: 8, pid: 42, place: place(&[1, 2, 3], b"passwd") },
            Notice { mask: 0x100 | FOLDER, pid: 43, place: place(&[4; 12], b".") },
        ];
        assert_eq!(parse(&bytes).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_notice_of_an_overflow_names_no_file() {
        let mut bytes = written(OVERFLOW, 0, &[], b"x");
        bytes.truncate(EVENT_BYTES);
        bytes[..4].copy_from_slice(&(EVENT_BYTES as u32).to_ne_bytes());
        assert_eq!(parse(&bytes).collect::<Vec<_>>(), [Notice { mask: OVERFLOW, pid: 0, place: None }]);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for name in [b"".as_slice(), b"a/b", b"../etc"] {
            let bytes = written(8, 1, &[1], name);
            assert_eq!(parse(&bytes).next().unwrap().place, None, "{name:?}");
        }
        assert_eq!(parse(&written(8, 1, &[1; HANDLE_BYTES + 1], b"x")).next().unwrap().place, None);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let count = parse(&bytes).count();
            prop_assert!(count <= bytes.len() / EVENT_BYTES);
        }

        #[test]
        fn a_damaged_notice_ends_or_says_something(at in 0..70_usize, byte: u8) {
            let mut bytes = [written(8, 42, &[1, 2, 3], b"passwd"), written(8, 43, &[1, 2, 3], b"group")].concat();
            bytes[at] = byte;
            for notice in parse(&bytes) {
                if let Some(place) = notice.place {
                    prop_assert!(!place.name.contains(&b'/') && place.handle.len() <= HANDLE_BYTES);
                }
            }
        }
    }
}
