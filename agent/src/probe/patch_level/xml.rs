//! Elements of an XML document, taken in pieces so that a document of any size needs only one element's memory.
//!
//! It knows what repository metadata use: elements with attributes, text, the five named entities and numbered ones, CDATA
//! and comments. Names lose the prefix of their name space.

use std::io;

/// Bytes of a tag, at most; a longer one is refused.
const TAG_BYTES: usize = 64 * 1024;
/// Bytes of a text that are kept.
const TEXT_BYTES: usize = 4 * 1024;
/// Elements in one another, at most.
const DEPTH: usize = 100;

/// What comes next in a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Event<'t> {
    /// An element begins.
    Open(Element<'t>),
    /// Text, cut to [`TEXT_BYTES`], with its entities as they are.
    Text(&'t str),
    /// The element of this name ends.
    Close(&'t str),
}

/// A start tag without its brackets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Element<'t> {
    pub name: &'t str,
    rest: &'t str,
}

impl Element<'_> {
    /// Returns the value of an attribute.
    pub fn attribute(&self, wanted: &str) -> Option<String> {
        let mut rest = self.rest;
        loop {
            let (name, after) = rest.trim_start().split_once('=')?;
            let after = after.trim_start();
            let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let (value, after) = after[1..].split_once(quote)?;
            if local(name.trim()) == wanted {
                return Some(decode(value));
            }
            rest = after;
        }
    }
}

/// Calls `each` for every event of a document that is written to it.
pub(super) struct Document<F> {
    each: F,
    /// What was seen of the piece that has not ended.
    piece: Vec<u8>,
    state: State,
    depth: usize,
    has_root: bool,
    has_second_root: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Text,
    Tag,
    /// In a value of a tag, up to this quotation mark.
    Quoted(u8),
}

impl<F: FnMut(Event<'_>)> Document<F> {
    pub fn new(each: F) -> Self {
        Self { each, piece: Vec::new(), state: State::Text, depth: 0, has_root: false, has_second_root: false }
    }

    /// Ends the document.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is cut off.
    pub fn finish(self) -> io::Result<()> {
        if self.has_second_root {
            return Err(garbled("the document has two roots"));
        }
        if self.depth == 0 && self.has_root && self.state == State::Text {
            return Ok(());
        }
        Err(garbled("the document is cut off"))
    }

    fn byte(&mut self, byte: u8) -> io::Result<()> {
        match (self.state, byte) {
            (State::Text, b'<') => {
                self.text();
                self.piece.clear();
                self.state = State::Tag;
                return Ok(());
            }
            (State::Text, _) => {
                if self.piece.len() < TEXT_BYTES {
                    self.piece.push(byte);
                }
                return Ok(());
            }
            (State::Tag, b'>') if self.is_whole() => {
                self.state = State::Text;
                let piece = std::mem::take(&mut self.piece);
                let result = self.tag(&piece);
                self.piece = piece;
                self.piece.clear();
                return result;
            }
            (State::Tag, b'"' | b'\'') if !self.piece.starts_with(b"!") => self.state = State::Quoted(byte),
            (State::Quoted(quote), _) if byte == quote => self.state = State::Tag,
            (State::Tag | State::Quoted(_), _) => {}
        }
        if self.piece.len() == TAG_BYTES {
            return Err(garbled("a tag is too long"));
        }
        self.piece.push(byte);
        Ok(())
    }

    /// Returns whether a bracket ends what is open: a comment and CDATA have ends of their own.
    fn is_whole(&self) -> bool {
        if self.piece.starts_with(b"!--") {
            return self.piece.len() >= 5 && self.piece.ends_with(b"--");
        }
        !self.piece.starts_with(b"![CDATA[") || self.piece.ends_with(b"]]")
    }

    fn text(&mut self) {
        if self.depth > 0 && !self.piece.is_empty() {
            (self.each)(Event::Text(&String::from_utf8_lossy(&self.piece)));
        }
    }

    fn tag(&mut self, piece: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(piece);
        if text.starts_with(['!', '?']) {
            return Ok(());
        }
        if let Some(name) = text.strip_prefix('/') {
            self.depth = self.depth.checked_sub(1).ok_or_else(|| garbled("an element ends that did not begin"))?;
            (self.each)(Event::Close(local(name.trim())));
            return Ok(());
        }
        let (text, is_empty) = text.strip_suffix('/').map_or((&*text, false), |text| (text, true));
        let (name, rest) = text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""));
        if self.depth == DEPTH {
            return Err(garbled("elements are nested too deep"));
        }
        if self.depth == 0 && self.has_root {
            self.has_second_root = true;
            return Ok(());
        }
        self.has_root = true;
        (self.each)(Event::Open(Element { name: local(name), rest }));
        if is_empty {
            (self.each)(Event::Close(local(name)));
        } else {
            self.depth += 1;
        }
        Ok(())
    }
}

impl<F: FnMut(Event<'_>)> io::Write for Document<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if self.has_second_root {
                // The rest is of no use, and is taken still: whoever gives it meets its own end or bound.
                break;
            }
            self.byte(*byte)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn garbled(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Returns a name without its name space.
fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, name)| name)
}

/// Returns text with its entities replaced; one that is not known stays as it is.
pub(super) fn decode(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        decoded.push_str(before);
        let known = after.split_once(';').and_then(|(name, after)| Some((entity(name)?, after)));
        rest = match known {
            Some((character, after)) => {
                decoded.push(character);
                after
            }
            None => {
                decoded.push('&');
                after
            }
        };
    }
    decoded.push_str(rest);
    decoded
}

fn entity(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn events(document: &[u8], piece: usize) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut parsed = Document::new(|event| {
            found.push(match event {
                Event::Open(element) => format!("<{} a={:?}", element.name, element.attribute("a")),
                Event::Text(text) => decode(text),
                Event::Close(name) => format!("/{name}"),
            });
        });
        document.chunks(piece.max(1)).try_for_each(|piece| parsed.write_all(piece))?;
        parsed.finish()?;
        Ok(found)
    }

    #[test]
    fn elements_are_the_same_however_the_document_is_cut() {
        let document =
            b"<?xml version='1.0'?>\n<!-- <no> \" -- > --><r:x xmlns:r='u'><y b=\"1\" r:a='2 > 1 &amp; &#65;'/>\
            a &lt; b<z a=\"/\"></z ><![CDATA[<q>]]]></r:x>\n";
        let expected = ["<x a=None", "<y a=Some(\"2 > 1 & A\")", "/y", "a < b", "<z a=Some(\"/\")", "/z", "/x"];
        for piece in 1..document.len() {
            assert_eq!(events(document, piece).unwrap(), expected);
        }
    }

    #[test]
    fn a_document_that_is_cut_off_or_too_deep_is_garbled() {
        let deep = "<a>".repeat(200);
        let long = format!("<a b='{}'/>", "x".repeat(TAG_BYTES));
        for text in ["", "<a>", "<a><b></b>", "<a/", "</a>", "<a/><b/>", "<a b='>", &deep, &long, "<a><!-- </a>"] {
            assert_eq!(events(text.as_bytes(), 7).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:.20}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(text in "([<>/&;='\"! a#x-]|\\PC|<a>|</a>|\\[CDATA\\[)*", piece in 1_usize..9) {
            let _ = events(text.as_bytes(), piece);
        }
    }
}
