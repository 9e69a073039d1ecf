//! Property lists of macOS, as XML and as the binary form, with a bound on what a list may grow to.
//!
//! XML as `PropertyList-1.0.dtd` of Apple has it (plist(5)); the binary form as the head of `CFBinaryPList.c` of Apple's
//! CoreFoundation describes it. In the binary form one object may stand in many places, so that a small file can name
//! billions of them: values are counted as they are made.

use std::collections::BTreeMap;

/// Values in each other, at most.
const DEPTH: usize = 32;
/// Values of one list, at most.
const VALUES: usize = 200_000;
/// Bytes of all its texts together, at most.
const TEXT_BYTES: usize = 8 * 1024 * 1024;
/// Seconds from 1970 to 2001, when dates of the binary form begin.
const EPOCH_2001: f64 = 978_307_200.0;
/// Bytes of the binary form's trailer.
const TRAILER_BYTES: usize = 32;

/// A value of a property list.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Integer(i64),
    Real(f64),
    Text(String),
    /// Seconds since 1970.
    Date(i64),
    Data(Vec<u8>),
    Array(Vec<Value>),
    Dict(BTreeMap<String, Value>),
}

impl Value {
    /// Returns the value of `key` of a dictionary.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dict(entries) => entries.get(key),
            _ => None,
        }
    }

    /// Returns the yes or no of `key`; older writers have the numbers 1 and 0.
    pub(super) fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Self::Bool(value) => Some(*value),
            Self::Integer(value @ (0 | 1)) => Some(*value == 1),
            _ => None,
        }
    }

    /// Returns the text of `key`.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the list of `key`.
    pub(super) fn array(&self, key: &str) -> Option<&[Self]> {
        match self.get(key)? {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }
}

/// Returns the value of the property list in `bytes`, in either form. `None` when it does not follow its format or is too large.
pub(super) fn parse(bytes: &[u8]) -> Option<Value> {
    let mut left = Left { values: VALUES, text_bytes: TEXT_BYTES };
    if bytes.starts_with(b"bplist00") {
        Binary::new(bytes)?.value(None, DEPTH, &mut left)
    } else {
        Xml { rest: std::str::from_utf8(bytes).ok()? }.document(&mut left)
    }
}

/// What may still be made.
struct Left {
    values: usize,
    text_bytes: usize,
}

impl Left {
    fn take(&mut self, text_bytes: usize) -> Option<()> {
        self.values = self.values.checked_sub(1)?;
        self.text_bytes = self.text_bytes.checked_sub(text_bytes)?;
        Some(())
    }
}

/// What is left of a text in XML.
struct Xml<'t> {
    rest: &'t str,
}

/// A tag: its name, and what kind it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tag<'t> {
    Open(&'t str),
    Close(&'t str),
    Empty(&'t str),
}

impl<'t> Xml<'t> {
    fn document(mut self, left: &mut Left) -> Option<Value> {
        let Tag::Open("plist") = self.tag()? else { return None };
        let first = self.tag()?;
        let value = self.value(first, DEPTH, left)?;
        (self.tag()? == Tag::Close("plist") && self.rest.trim().is_empty()).then_some(value)
    }

    /// Takes the next tag; only white space, comments, declarations and instructions may stand before it.
    fn tag(&mut self) -> Option<Tag<'t>> {
        loop {
            self.rest = self.rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix("<!--") {
                self.rest = rest.split_once("-->")?.1;
            } else if let Some(rest) = self.rest.strip_prefix("<?") {
                self.rest = rest.split_once("?>")?.1;
            } else if let Some(rest) = self.rest.strip_prefix("<!") {
                let (declaration, rest) = rest.split_once('>')?;
                // Entities of its own could grow without bound; Apple's lists declare none.
                if declaration.contains('[') {
                    return None;
                }
                self.rest = rest;
            } else {
                let (tag, rest) = self.rest.strip_prefix('<')?.split_once('>')?;
                self.rest = rest;
                return Some(if let Some(name) = tag.strip_prefix('/') {
                    Tag::Close(name.trim_end())
                } else if let Some(name) = tag.strip_suffix('/') {
                    Tag::Empty(name.trim_end())
                } else {
                    Tag::Open(tag.split_ascii_whitespace().next()?)
                });
            }
        }
    }

    fn value(&mut self, tag: Tag<'t>, depth: usize, left: &mut Left) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        left.take(0)?;
        Some(match tag {
            Tag::Empty("true") => Value::Bool(true),
            Tag::Empty("false") => Value::Bool(false),
            Tag::Empty("array") => Value::Array(Vec::new()),
            Tag::Empty("dict") => Value::Dict(BTreeMap::new()),
            Tag::Empty("string") => Value::Text(String::new()),
            Tag::Empty("data") => Value::Data(Vec::new()),
            Tag::Open(name @ "string") => Value::Text(self.content(name, left)?),
            Tag::Open(name @ "integer") => Value::Integer(integer(self.content(name, left)?.trim())?),
            Tag::Open(name @ "real") => Value::Real(self.content(name, left)?.trim().parse().ok()?),
            Tag::Open(name @ "date") => {
                let text = self.content(name, left)?;
                Value::Date(text.trim().parse::<jiff::Timestamp>().ok()?.as_second())
            }
            Tag::Open(name @ "data") => {
                use base64::Engine as _;
                let mut text = self.content(name, left)?;
                text.retain(|c| !c.is_ascii_whitespace());
                Value::Data(base64::engine::general_purpose::STANDARD.decode(text).ok()?)
            }
            Tag::Open("array") => {
                let mut items = Vec::new();
                loop {
                    match self.tag()? {
                        Tag::Close("array") => break Value::Array(items),
                        tag => items.push(self.value(tag, depth, left)?),
                    }
                }
            }
            Tag::Open("dict") => {
                let mut entries = BTreeMap::new();
                loop {
                    match self.tag()? {
                        Tag::Close("dict") => break Value::Dict(entries),
                        Tag::Open(name @ "key") => {
                            let key = self.content(name, left)?;
                            let tag = self.tag()?;
                            entries.insert(key, self.value(tag, depth, left)?);
                        }
                        _ => return None,
                    }
                }
            }
            _ => return None,
        })
    }

    /// Takes the text up to the closing tag `name`, without its escapes.
    fn content(&mut self, name: &str, left: &mut Left) -> Option<String> {
        let (text, rest) = self.rest.split_once('<')?;
        let (close, rest) = rest.split_once('>')?;
        if close.strip_prefix('/')?.trim_end() != name {
            return None;
        }
        self.rest = rest;
        left.text_bytes = left.text_bytes.checked_sub(text.len())?;
        unescape(text)
    }
}

/// As strtol(3) with base 0, which older lists make use of.
fn integer(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut parts = text.split('&');
    out.push_str(parts.next()?);
    for part in parts {
        let (name, rest) = part.split_once(';')?;
        let number = |digits: &str, radix| char::from_u32(u32::from_str_radix(digits, radix).ok()?);
        out.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "apos" => '\'',
            "quot" => '"',
            _ => match (name.strip_prefix("#x"), name.strip_prefix('#')) {
                (Some(hex), _) => number(hex, 16)?,
                (None, Some(decimal)) => number(decimal, 10)?,
                (None, None) => return None,
            },
        });
        out.push_str(rest);
    }
    Some(out)
}

/// A list in the binary form: `bplist00`, objects, a table of their offsets, and a trailer that says where all that is.
struct Binary<'b> {
    /// Header and objects.
    objects: &'b [u8],
    offsets: &'b [u8],
    offset_bytes: usize,
    reference_bytes: usize,
    top: usize,
}

impl<'b> Binary<'b> {
    fn new(bytes: &'b [u8]) -> Option<Self> {
        let (body, trailer) = bytes.split_at_checked(bytes.len().checked_sub(TRAILER_BYTES)?)?;
        let (offset_bytes, reference_bytes) = (usize::from(trailer[6]), usize::from(trailer[7]));
        if !(1..=8).contains(&offset_bytes) || !(1..=8).contains(&reference_bytes) {
            return None;
        }
        let [count, top, table] = [8, 16, 24].map(|at| number(&trailer[at..at + 8]));
        let (objects, offsets) = body.split_at_checked(table?)?;
        let offsets = offsets.get(..count?.checked_mul(offset_bytes)?)?;
        Some(Self { objects, offsets, offset_bytes, reference_bytes, top: top? })
    }

    /// Returns the object of number `at`; `None` is the top one.
    fn value(&self, at: Option<usize>, depth: usize, left: &mut Left) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        let entry = at.unwrap_or(self.top).checked_mul(self.offset_bytes)?;
        let offset = number(self.offsets.get(entry..entry.checked_add(self.offset_bytes)?)?)?;
        let (marker, rest) = self.objects.get(offset..)?.split_first()?;
        let (kind, low) = (marker >> 4, usize::from(marker & 0xf));
        left.take(0)?;
        let fixed = |len: usize| rest.get(..len);
        Some(match kind {
            0 if low == 8 => Value::Bool(false),
            0 if low == 9 => Value::Bool(true),
            // Eight bytes are signed, fewer are not; sixteen hold what no signed eight can.
            1 if low <= 2 => Value::Integer(i64::try_from(number(fixed(1 << low)?)?).ok()?),
            1 if low == 3 => Value::Integer(i64::from_be_bytes(fixed(8)?.try_into().ok()?)),
            2 if low == 2 => Value::Real(f64::from(f32::from_be_bytes(fixed(4)?.try_into().ok()?))),
            2 if low == 3 => Value::Real(f64::from_be_bytes(fixed(8)?.try_into().ok()?)),
            3 if low == 3 => {
                let seconds = f64::from_be_bytes(fixed(8)?.try_into().ok()?) + EPOCH_2001;
                // A cast saturates; what is not a number becomes 0, which no list writes.
                seconds.is_finite().then_some(Value::Date(seconds.floor() as i64))?
            }
            4..=6 => {
                let (count, rest) = count(low, rest)?;
                let len = if kind == 6 { count.checked_mul(2)? } else { count };
                let bytes = rest.get(..len)?;
                left.text_bytes = left.text_bytes.checked_sub(len)?;
                match kind {
                    4 => Value::Data(bytes.to_vec()),
                    5 => Value::Text(bytes.is_ascii().then(|| String::from_utf8_lossy(bytes).into_owned())?),
                    _ => {
                        let units: Vec<u16> =
                            bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
                        Value::Text(String::from_utf16(&units).ok()?)
                    }
                }
            }
            0xa => {
                let (count, rest) = count(low, rest)?;
                let items = self.references(rest, count)?;
                Value::Array(items.map(|item| self.value(Some(item?), depth, left)).collect::<Option<_>>()?)
            }
            0xd => {
                let (count, rest) = count(low, rest)?;
                let keys = self.references(rest, count)?;
                let values = self.references(rest.get(count.checked_mul(self.reference_bytes)?..)?, count)?;
                let mut entries = BTreeMap::new();
                for (key, value) in keys.zip(values) {
                    let Value::Text(key) = self.value(Some(key?), depth, left)? else { return None };
                    entries.insert(key, self.value(Some(value?), depth, left)?);
                }
                Value::Dict(entries)
            }
            _ => return None,
        })
    }

    fn references(&self, bytes: &'b [u8], count: usize) -> Option<impl Iterator<Item = Option<usize>> + use<'b>> {
        Some(bytes.get(..count.checked_mul(self.reference_bytes)?)?.chunks_exact(self.reference_bytes).map(number))
    }
}

/// Returns how many there are: in the marker, or in the integer that follows when that is full.
fn count(low: usize, rest: &[u8]) -> Option<(usize, &[u8])> {
    if low < 0xf {
        return Some((low, rest));
    }
    let (marker, rest) = rest.split_first()?;
    let len = match marker {
        0x10..=0x13 => 1_usize << (marker & 0xf),
        _ => return None,
    };
    let (bytes, rest) = rest.split_at_checked(len)?;
    Some((number(bytes)?, rest))
}

/// Returns a number of at most eight bytes, the most significant first.
fn number(bytes: &[u8]) -> Option<usize> {
    let value = bytes.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
    usize::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const XML: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
        <plist version=\"1.0\"><dict><!-- c --><key>a &amp; b</key><array><true/><false/></array>\
        <key>n</key><integer>-42</integer><key>t</key><string>&#xe4;&lt;x&gt;</string>\
        <key>d</key><date>2026-11-24T12:00:00Z</date><key>r</key><real>1.5</real><key>b</key><data>\n\tAQI=\n</data>\
        <key>e</key><string/></dict></plist>\n";

    /// Known from outside: made by Python's plistlib of a list [true, 300, -1] as `a`, 2026-11-24T12:00:00Z as `d`, the byte 1 as
    /// `\u{e4}`, a text with an umlaut as `t` and twenty letters as `u`.
    const BINARY: &str = "62706c6973743030d50102030405060a0b0c0d51615164517451756100e4a30708090911012c13ffffffffffffffff\
        3341c85ad9e00000006f1015005300690063006800650072006800650069007400730075007000640061007400650020006600fc00725f1014\
        7878787878787878787878787878787878787878410108131517191b1e2223262f38657c0000000000000101000000000000000e0000000000\
        000000000000000000007e";

    #[test]
    fn an_xml_list_is_read_whole() {
        let value = parse(XML.as_bytes()).unwrap();
        assert_eq!(value.array("a & b"), Some([Value::Bool(true), Value::Bool(false)].as_slice()));
        assert_eq!(value.get("n"), Some(&Value::Integer(-42)));
        assert_eq!(value.text("t"), Some("\u{e4}<x>"));
        assert_eq!(value.get("d"), Some(&Value::Date(1_795_521_600)));
        assert_eq!(value.get("b"), Some(&Value::Data(vec![1, 2])));
        assert_eq!(value.text("e"), Some(""));
    }

    #[test]
    fn a_binary_list_is_read_whole() {
        let value = parse(&hex::decode(BINARY).unwrap()).unwrap();
        let expected = [Value::Bool(true), Value::Integer(300), Value::Integer(-1)];
        assert_eq!(value.array("a"), Some(expected.as_slice()));
        assert_eq!(value.get("d"), Some(&Value::Date(1_795_521_600)));
        assert_eq!(value.get("\u{e4}"), Some(&Value::Data(vec![1])));
        assert_eq!(value.text("t"), Some("Sicherheitsupdate f\u{fc}r"));
        assert_eq!(value.text("u"), Some("xxxxxxxxxxxxxxxxxxxx"));
    }

    /// Returns a list whose every array has the next one twice, `levels` of them.
    fn doubling(levels: u8) -> Vec<u8> {
        let mut bytes = b"bplist00".to_vec();
        let mut offsets = Vec::new();
        for level in 0..levels {
            offsets.push(u8::try_from(bytes.len()).unwrap());
            bytes.extend([0xa2, level + 1, level + 1]);
        }
        offsets.push(u8::try_from(bytes.len()).unwrap());
        bytes.push(0x09);
        let table = bytes.len() as u64;
        bytes.extend(&offsets);
        bytes.extend([0, 0, 0, 0, 0, 0, 1, 1]);
        bytes.extend([offsets.len() as u64, 0, table].iter().flat_map(|number| number.to_be_bytes()));
        bytes
    }

    #[test]
    fn a_small_list_that_names_a_billion_values_is_refused() {
        assert!(parse(&doubling(4)).is_some());
        assert_eq!(parse(&doubling(30)), None);
    }

    #[test]
    fn a_list_that_holds_itself_or_is_too_deep_is_refused() {
        let mut own = doubling(2);
        own[9] = 0;
        assert_eq!(parse(&own), None);
        let deep = |depth: usize| {
            format!("<plist version=\"1.0\">{}{}</plist>", "<array>".repeat(depth), "</array>".repeat(depth))
        };
        assert!(parse(deep(DEPTH).as_bytes()).is_some());
        assert_eq!(parse(deep(DEPTH + 1).as_bytes()), None);
        assert_eq!(parse(deep(1_000_000).as_bytes()), None);
    }

    #[test]
    fn what_is_cut_or_no_list_is_refused() {
        let binary = hex::decode(BINARY).unwrap();
        for cut in 0..binary.len() {
            assert_eq!(parse(&binary[..cut]), None, "{cut}");
        }
        for cut in 0..XML.len() - 1 {
            assert_eq!(parse(&XML.as_bytes()[..cut]), None, "{cut}");
        }
        let entity = "<!DOCTYPE plist [<!ENTITY a \"b\">]><plist><string>&a;</string></plist>";
        for text in ["", "<plist></plist>", "<dict/>", entity] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"bplist00".as_slice(), &bytes].concat());
        }
    }
}
