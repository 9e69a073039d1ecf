//! Netlink messages and attributes (linux/netlink.h). Pure and bounded: nothing is read beyond what a length allows.

/// Attributes nest at most this deep in what is read here.
const HEADER_BYTES: usize = 16;
/// Flags in the type of an attribute: nested, and network byte order.
const TYPE_MASK: u16 = 0x3fff;

/// A message of the netfilter subsystem.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'b> {
    /// Number of the message without its subsystem.
    pub kind: u8,
    /// `nfgen_family` of `struct nfgenmsg`.
    pub family: u8,
    pub attributes: &'b [u8],
}

/// Returns the messages; `None` when the lengths do not fit.
pub(super) fn messages(mut bytes: &[u8]) -> Option<Vec<Message<'_>>> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = bytes.get(HEADER_BYTES..length)?;
        messages.push(Message { kind: header[4], family: *body.first()?, attributes: body.get(4..)? });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(messages)
}

/// Returns the attributes by type; `None` when the lengths do not fit.
pub(super) fn attributes(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut attributes = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & TYPE_MASK;
        attributes.push((kind, bytes.get(4..length)?));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(attributes)
}

/// Returns the first attribute of `kind`.
pub(super) fn find<'b>(attributes: &[(u16, &'b [u8])], kind: u16) -> Option<&'b [u8]> {
    attributes.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value)
}

/// Returns a text without its final zero.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

/// Returns a number in network byte order.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_beyond_the_bytes_is_refused() {
        let mut message = vec![20, 0, 0, 0, 3, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(messages(&message).unwrap().len(), 1);
        message[0] = 24;
        assert!(messages(&message).is_none());
        assert!(attributes(&[3, 0, 1, 0]).is_none());
        assert_eq!(attributes(&[5, 0, 1, 0, 7]), Some(vec![(1, [7].as_slice())]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = messages(&bytes);
            let _ = attributes(&bytes);
        }
    }
}
