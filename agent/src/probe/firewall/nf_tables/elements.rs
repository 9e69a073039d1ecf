//! Elements of sets and maps, and what they span. Pure.

use super::{
    super::netlink::{attributes, find, messages, number},
    value, verdict_of,
};

const NEW_ELEMENTS: u8 = 12;
// NFT_SET_ELEM_INTERVAL_END and NFT_SET_ELEM_CATCHALL
const ELEMENT_ENDS_RANGE: u32 = 1;
const ELEMENT_IS_ANY: u32 = 2;

/// An element of a set or a map.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in super::super) struct Element {
    /// `None` for what no other element holds.
    pub key: Option<Vec<u8>>,
    /// Of a range of several fields.
    pub key_end: Option<Vec<u8>>,
    pub ends_range: bool,
    /// Of a verdict map: code and chain.
    pub verdict: Option<(i32, Option<String>)>,
    /// Of a map to data, or to the name of an object.
    pub data: Option<Vec<u8>>,
}

impl Element {
    /// Returns what the digest covers of it.
    pub fn canonical(&self) -> Vec<(u16, Vec<u8>)> {
        let mut parts = vec![(5, self.key.clone().unwrap_or_default())];
        parts.push((6, vec![u8::from(self.key.is_none()), u8::from(self.ends_range)]));
        parts.extend(self.key_end.clone().map(|key| (7, key)));
        if let Some((code, chain)) = &self.verdict {
            parts.push((8, code.to_be_bytes().to_vec()));
            parts.extend(chain.as_ref().map(|chain| (9, chain.as_bytes().to_vec())));
        }
        parts.extend(self.data.clone().map(|data| (10, data)));
        parts
    }
}

/// Returns the elements of a dump; `None` when it does not follow its format.
pub(in super::super) fn parse_elements(bytes: &[u8]) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    for message in messages(bytes)?.into_iter().filter(|message| message.kind == NEW_ELEMENTS) {
        let list = attributes(message.attributes)?;
        for (_, element) in attributes(find(&list, 3).unwrap_or_default())? {
            let element = attributes(element)?;
            let flags = find(&element, 3).and_then(number).unwrap_or(0);
            let key = if flags & ELEMENT_IS_ANY != 0 { None } else { Some(value(find(&element, 1)?)?) };
            let key_end = find(&element, 10).and_then(value);
            let verdict = find(&element, 2).and_then(verdict_of);
            let object = find(&element, 9).map(<[u8]>::to_vec);
            let data = find(&element, 2).and_then(value).or(object);
            elements.push(Element { key, key_end, ends_range: flags & ELEMENT_ENDS_RANGE != 0, verdict, data });
        }
    }
    Some(elements)
}

/// First and last key.
pub(super) type Span = (Vec<u8>, Vec<u8>);

/// Returns what each element spans, and at last those of what no other element holds.
///
/// In a set of ranges, an element begins a range, which the next key ends, with or without a range of its own. The last one
/// reaches to the end of all keys.
pub(super) fn spans(elements: &[Element]) -> Vec<(Option<Span>, &Element)> {
    let is_of_ranges = elements.iter().any(|element| element.ends_range);
    let mut sorted: Vec<(&[u8], &Element)> =
        elements.iter().filter_map(|element| Some((element.key.as_deref()?, element))).collect();
    sorted.sort_by(|(a, x), (b, y)| a.cmp(b).then(y.ends_range.cmp(&x.ends_range)));
    let mut spans = Vec::new();
    for (at, (key, element)) in sorted.iter().enumerate().filter(|(_, (_, element))| !element.ends_range) {
        let first = key.to_vec();
        let last = if let Some(end) = &element.key_end {
            end.clone()
        } else if is_of_ranges {
            let next = at + sorted[at..].partition_point(|(next, _)| next <= key);
            sorted.get(next).map_or_else(|| vec![0xff; key.len()], |(next, _)| before(next))
        } else if key.iter().all(|byte| *byte == 0) {
            // The one element of a set that holds the range of everything looks like the value 0.
            vec![0xff; key.len()]
        } else {
            first.clone()
        };
        spans.push((Some((first, last)), *element));
    }
    spans.extend(elements.iter().filter(|element| element.key.is_none()).map(|element| (None, element)));
    spans
}

/// Returns the key before `key`.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_the_next_begin() {
        let element = |key: &[u8], ends_range: bool| Element {
            key: Some(key.to_vec()),
            key_end: None,
            ends_range,
            verdict: None,
            data: None,
        };
        let found = |elements: &[Element]| -> Vec<_> { spans(elements).into_iter().map(|(span, _)| span).collect() };
        let span = |first: &[u8], last: &[u8]| Some((first.to_vec(), last.to_vec()));
        // As the kernel dumps a tree: from the end.
        let halves = [element(&[4, 0], false), element(&[4, 0], true), element(&[0, 0], false)];
        assert_eq!(found(&halves), [span(&[0, 0], &[3, 255]), span(&[4, 0], &[255, 255])]);
        let one = [element(&[0, 23], true), element(&[0, 22], false), element(&[0, 0], true)];
        assert_eq!(found(&one), [span(&[0, 22], &[0, 22])]);
        assert_eq!(found(&[element(&[0, 22], false)]), [span(&[0, 22], &[0, 22])]);
        assert_eq!(found(&[element(&[0, 0], false)]), [span(&[0, 0], &[255, 255])]);
        let rest = Element { key: None, key_end: None, ends_range: false, verdict: None, data: None };
        assert_eq!(found(&[rest, element(&[7], false)]), [span(&[7], &[7]), None]);
        let fields = Element { key_end: Some(vec![9, 9]), ..element(&[0, 0], false) };
        assert_eq!(found(&[fields]), [span(&[0, 0], &[9, 9])]);
    }
}
