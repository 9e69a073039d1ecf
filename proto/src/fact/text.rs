//! Texts that are safe to print, to log and to put into a table.

use std::{fmt, fmt::Write as _};

use serde::{Deserialize, Serialize};

use crate::limits::TEXT_BYTES;

/// A text of the contract: UTF-8, bounded, without control or formatting characters.
///
/// Whatever is unsafe is escaped on the way in as `\xNN`, so that a text can be printed as it is.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text(String);

impl Text {
    /// Returns `text` with unsafe characters escaped, cut to the limit of the contract.
    pub fn new(text: &str) -> Self {
        Self::cut(text, TEXT_BYTES)
    }

    /// Returns `text` with unsafe characters escaped, cut to at most `limit_bytes`.
    pub fn cut(text: &str, limit_bytes: usize) -> Self {
        Self(escape(text.as_bytes(), is_unsafe, limit_bytes))
    }

    /// Returns the text for `bytes`, of which those that are not valid UTF-8 are escaped too.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(escape(bytes, is_unsafe, TEXT_BYTES))
    }

    /// Returns `text` if it follows the rule as it stands.
    pub fn parse(text: String) -> Option<Self> {
        (text.len() <= TEXT_BYTES && !text.chars().any(is_unsafe)).then_some(Self(text))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl TryFrom<String> for Text {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(text).ok_or("text is too long or has control characters")
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path or name that the host holds as bytes, written so that it names exactly those bytes: each byte that is not
/// valid UTF-8, each control or formatting character and each backslash is `\xNN`.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathText(String);

impl PathText {
    /// Returns the text for `bytes`, of which at most `TEXT_BYTES` are taken; a path has at most 4095 on Linux.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(TEXT_BYTES)];
        // Escaping makes at most four bytes of one.
        Self(escape(bytes, |c| is_unsafe(c) || c == '\\', 4 * TEXT_BYTES))
    }

    /// Returns `text` if it follows the rule.
    pub fn parse(text: String) -> Option<Self> {
        let parsed = Self(text);
        let bytes = parsed.to_bytes()?;
        (bytes.len() <= TEXT_BYTES && Self::from_bytes(&bytes) == parsed).then_some(parsed)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the bytes that it names, or `None` when an escape is broken.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.0.len());
        let mut rest = self.0.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            if byte != b'\\' {
                bytes.push(byte);
                rest = tail;
                continue;
            }
            let (escape, tail) = tail.split_at_checked(3)?;
            let digits = std::str::from_utf8(escape.strip_prefix(b"x")?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail;
        }
        Some(bytes)
    }
}

impl From<PathText> for String {
    fn from(path: PathText) -> Self {
        path.0
    }
}

impl TryFrom<String> for PathText {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(text).ok_or("path is too long or not escaped as the contract says")
    }
}

impl fmt::Display for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns whether a terminal, a log or a table could take `c` for more than a glyph: control characters, the line and
/// paragraph separators, and the characters that turn text around (Unicode TR 9) or are invisible.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn escape(bytes: &[u8], is_escaped: impl Fn(char) -> bool, limit_bytes: usize) -> String {
    let mut out = String::with_capacity(bytes.len().min(limit_bytes));
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if !is_escaped(c) {
                if out.len() + c.len_utf8() > limit_bytes {
                    return out;
                }
                out.push(c);
            } else if !push_escaped(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes(), limit_bytes) {
                return out;
            }
        }
        if !push_escaped(&mut out, chunk.invalid(), limit_bytes) {
            return out;
        }
    }
    out
}

/// Appends `bytes` as `\xNN` each, or returns false when they do not fit.
fn push_escaped(out: &mut String, bytes: &[u8], limit_bytes: usize) -> bool {
    if out.len() + 4 * bytes.len() > limit_bytes {
        return false;
    }
    for byte in bytes {
        write!(out, "\\x{byte:02x}").expect("a String takes every write");
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_terminal_escape_is_made_harmless() {
        assert_eq!(Text::new("a\x1b]0;x\x07b\u{202e}").as_str(), "a\\x1b]0;x\\x07b\\xe2\\x80\\xae");
    }

    #[test]
    fn a_broken_escape_is_refused() {
        for text in ["\\", "\\x", "\\x1", "\\xzz", "\\x41", "\\X1b", "\\x1B", "\\x+1"] {
            assert_eq!(PathText::parse(text.to_owned()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_path_names_exactly_its_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let path = PathText::from_bytes(&bytes);
            prop_assert_eq!(path.to_bytes(), Some(bytes));
            prop_assert_eq!(PathText::parse(path.as_str().to_owned()), Some(path));
        }

        #[test]
        fn a_text_is_clean_and_bounded(text in any::<String>(), limit in 0_usize..40) {
            let cut = Text::cut(&text, limit);
            prop_assert!(cut.as_str().len() <= limit);
            prop_assert!(Text::parse(cut.as_str().to_owned()).is_some());
        }
    }
}
