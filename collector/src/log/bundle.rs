//! Entry bundles: up to 256 entries, each behind its length as a 16-bit big-endian number (C2SP tlog-tiles). Pure.

use muster_proto::limits;

/// Adds the entry that `parts` make together. Returns `false`, adding nothing, when it is longer than a bundle can frame.
pub(crate) fn push(bundle: &mut Vec<u8>, parts: &[&[u8]]) -> bool {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let Ok(length) = u16::try_from(bytes) else { return false };
    debug_assert!(bytes <= limits::ENTRY_BYTES, "16 bits are the limit");
    bundle.reserve(2 + bytes);
    bundle.extend_from_slice(&length.to_be_bytes());
    for part in parts {
        bundle.extend_from_slice(part);
    }
    true
}

/// Returns the entries of `bundle`, or `None` when it does not end where an entry ends.
pub(crate) fn split(bundle: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::with_capacity(256);
    let mut rest = bundle;
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (entry, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        rest = tail;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_a_torn_bundle_does_not() {
        let mut bundle = Vec::new();
        assert!(push(&mut bundle, &[b"ab", b"c"]));
        assert!(push(&mut bundle, &[]));
        assert!(push(&mut bundle, &[&vec![7; limits::ENTRY_BYTES]]));
        assert!(!push(&mut bundle, &[&vec![7; limits::ENTRY_BYTES], b"x"]));
        let entries = split(&bundle).unwrap();
        assert_eq!(entries.iter().map(|entry| entry.len()).collect::<Vec<_>>(), [3, 0, limits::ENTRY_BYTES]);
        assert_eq!(entries[0], b"abc");
        for torn in [1, 3, 6, bundle.len() - 1] {
            assert!(split(&bundle[..torn]).is_none(), "{torn}");
        }
    }
}
