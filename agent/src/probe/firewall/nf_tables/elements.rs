//! Elements of sets and maps, and what they span. Pure.

use std::collections::BTreeMap;

use super::{
    super::netlink::{attributes, find, messages, number, text},
    Name, value, verdict_of,
};

const NEW_SET: u8 = 9;
const NEW_ELEMENTS: u8 = 12;
// NFT_SET_INTERVAL and NFT_SET_CONCAT
const SET_IS_OF_RANGES: u32 = 4;
const SET_IS_OF_FIELDS: u32 = 128;
// NFT_SET_ELEM_INTERVAL_END and NFT_SET_ELEM_CATCHALL
const ELEMENT_ENDS_RANGE: u32 = 1;
const ELEMENT_IS_ANY: u32 = 2;

/// What the keys of a set are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) enum Kind {
    /// Each is one value or, where it has an end of its own, a range of several fields.
    Values,
    /// Where ranges begin and end.
    Ranges,
    Untold,
}

/// A set or a map.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in super::super) struct Set {
    pub kind: Kind,
    pub elements: Vec<Element>,
}

impl Set {
    /// Returns what the digest covers of it.
    pub fn canonical(&self) -> Vec<Vec<(u16, Vec<u8>)>> {
        // Other sets of ranges show it by the ends of them.
        let is_open = self.kind == Kind::Ranges && !self.has_ends();
        let kind = is_open.then(|| vec![(11, Vec::new())]);
        kind.into_iter().chain(self.elements.iter().map(Element::canonical)).collect()
    }

    fn has_ends(&self) -> bool {
        self.elements.iter().any(|element| element.ends_range)
    }

    fn may_be_all(&self) -> bool {
        let is_zero = |key: &Vec<u8>| key.iter().all(|byte| *byte == 0);
        let mut elements = self.elements.iter().filter(|element| element.key_end.is_none());
        !self.has_ends() && elements.any(|element| element.key.as_ref().is_some_and(is_zero))
    }
}

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

/// Returns of each set of a dump of which kind it is; `None` when it does not follow its format.
pub(in super::super) fn parse_kinds(bytes: &[u8]) -> Option<BTreeMap<Name, Kind>> {
    let mut kinds = BTreeMap::new();
    for message in messages(bytes)?.into_iter().filter(|message| message.kind == NEW_SET) {
        let set = attributes(message.attributes)?;
        let name = (message.family, text(find(&set, 1)?), text(find(&set, 2)?));
        let flags = match find(&set, 3) {
            Some(flags) => number(flags)?,
            None => 0,
        };
        let is_of_ranges = flags & (SET_IS_OF_RANGES | SET_IS_OF_FIELDS) == SET_IS_OF_RANGES;
        kinds.insert(name, if is_of_ranges { Kind::Ranges } else { Kind::Values });
    }
    Some(kinds)
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

/// Returns what each element spans, and at last those of what no other element holds; `None` where it is not told.
///
/// In a set of ranges, an element begins a range, which the next key ends, with or without a range of its own. The last one
/// reaches to the end of all keys.
pub(super) fn spans(set: &Set) -> Option<Vec<(Option<Span>, &Element)>> {
    let elements = &set.elements;
    let is_of_ranges = match set.kind {
        Kind::Values => false,
        Kind::Ranges => true,
        // Ranges that hold everything together look like values, the first of which is 0.
        Kind::Untold if set.may_be_all() => return None,
        Kind::Untold => set.has_ends(),
    };
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
        } else {
            first.clone()
        };
        spans.push((Some((first, last)), *element));
    }
    spans.extend(elements.iter().filter(|element| element.key.is_none()).map(|element| (None, element)));
    Some(spans)
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
        let found = |kind: Kind, elements: &[Element]| -> Option<Vec<_>> {
            let set = Set { kind, elements: elements.to_vec() };
            let found = spans(&set)?.into_iter().map(|(span, _)| span).collect();
            Some(found)
        };
        let span = |first: &[u8], last: &[u8]| Some((first.to_vec(), last.to_vec()));
        // As the kernel dumps a tree: from the end.
        let halves = [element(&[4, 0], false), element(&[4, 0], true), element(&[0, 0], false)];
        let one = [element(&[0, 23], true), element(&[0, 22], false), element(&[0, 0], true)];
        for kind in [Kind::Ranges, Kind::Untold] {
            let both = vec![span(&[0, 0], &[3, 255]), span(&[4, 0], &[255, 255])];
            assert_eq!(found(kind, &halves), Some(both));
            assert_eq!(found(kind, &one), Some(vec![span(&[0, 22], &[0, 22])]));
        }
        assert_eq!(found(Kind::Values, &[element(&[0, 22], false)]), Some(vec![span(&[0, 22], &[0, 22])]));
        assert_eq!(found(Kind::Ranges, &[element(&[0, 22], false)]), Some(vec![span(&[0, 22], &[255, 255])]));
        let rest = Element { key: None, key_end: None, ends_range: false, verdict: None, data: None };
        assert_eq!(found(Kind::Values, &[rest.clone(), element(&[7], false)]), Some(vec![span(&[7], &[7]), None]));
        let fields = Element { key_end: Some(vec![9, 9]), ..element(&[0, 0], false) };
        for kind in [Kind::Values, Kind::Untold] {
            assert_eq!(found(kind, std::slice::from_ref(&fields)), Some(vec![span(&[0, 0], &[9, 9])]));
        }
        // The value 0, or everything.
        let zero = element(&[0, 0], false);
        let two = [zero.clone(), element(&[0, 22], false)];
        let values = Some(vec![span(&[0, 0], &[0, 0]), span(&[0, 22], &[0, 22])]);
        assert_eq!(found(Kind::Values, &two), values);
        let both = Some(vec![span(&[0, 0], &[0, 21]), span(&[0, 22], &[255, 255])]);
        assert_eq!(found(Kind::Ranges, &two), both);
        assert_eq!(found(Kind::Untold, &two), None);
        assert_eq!(found(Kind::Values, std::slice::from_ref(&zero)), Some(vec![span(&[0, 0], &[0, 0])]));
        assert_eq!(found(Kind::Ranges, std::slice::from_ref(&zero)), Some(vec![span(&[0, 0], &[255, 255])]));
        assert_eq!(found(Kind::Untold, std::slice::from_ref(&zero)), None);
        assert_eq!(found(Kind::Untold, &[zero, rest]), None);
        assert_eq!(found(Kind::Untold, &[]), Some(Vec::new()));
    }

    #[test]
    fn flags_tell_sets_of_ranges_from_those_of_values() {
        let attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).unwrap();
            let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let kind = |flags: Option<u32>| {
            let flags = flags.map(|flags| attribute(3, &flags.to_be_bytes())).unwrap_or_default();
            let body = [attribute(1, b"filter\0"), attribute(2, b"bad\0"), flags].concat();
            let length = u32::try_from(20 + body.len()).unwrap();
            let message = [&length.to_ne_bytes()[..], &[NEW_SET, 10], &[0; 10], &[2, 0, 0, 0], &body].concat();
            parse_kinds(&message).unwrap().into_iter().collect::<Vec<_>>()
        };
        let name = (2, "filter".to_owned(), "bad".to_owned());
        // Constant, of ranges, with a time limit, of several fields.
        for (flags, expected) in [
            (None, Kind::Values),
            (Some(3), Kind::Values),
            (Some(4), Kind::Ranges),
            (Some(4 | 16), Kind::Ranges),
            (Some(4 | 128), Kind::Values),
        ] {
            assert_eq!(kind(flags), [(name.clone(), expected)], "{flags:?}");
        }
    }
}
