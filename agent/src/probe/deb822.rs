//! Stanzas of fields, as in deb822(5), taken in pieces so that a list of any size needs only one stanza's memory.

use std::{collections::BTreeMap, io};

/// Bytes of a line that are kept; what is longer is no field that is read here.
const LINE_BYTES: usize = 64 * 1024;

/// Calls `each` for every stanza, with the wanted fields.
pub(crate) struct Stanzas<F> {
    wanted: &'static [&'static str],
    each: F,
    line: Vec<u8>,
    fields: BTreeMap<&'static str, String>,
    /// The wanted field that the line before belongs to.
    last: Option<&'static str>,
}

impl<F: FnMut(&BTreeMap<&'static str, String>)> Stanzas<F> {
    pub fn new(wanted: &'static [&'static str], each: F) -> Self {
        Self { wanted, each, line: Vec::new(), fields: BTreeMap::new(), last: None }
    }

    /// Ends the file.
    pub fn finish(mut self) {
        self.end_line();
        self.end_stanza();
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end();
        if line.is_empty() {
            self.line.clear();
            return self.end_stanza();
        }
        if line.starts_with([' ', '\t']) {
            if let Some(value) = self.last.and_then(|field| self.fields.get_mut(field)) {
                value.push('\n');
                value.push_str(line.trim_start());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            self.last = self.wanted.iter().copied().find(|wanted| wanted.eq_ignore_ascii_case(name.trim_end()));
            if let Some(field) = self.last {
                self.fields.insert(field, value.trim().to_owned());
            }
        } else {
            self.last = None;
        }
        self.line.clear();
    }

    fn end_stanza(&mut self) {
        if !self.fields.is_empty() {
            (self.each)(&self.fields);
            self.fields.clear();
        }
        self.last = None;
    }
}

impl<F: FnMut(&BTreeMap<&'static str, String>)> io::Write for Stanzas<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LINE_BYTES - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.end_line();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn stanzas(text: &[u8], piece: usize) -> Vec<BTreeMap<&'static str, String>> {
        let mut found = Vec::new();
        let mut stanzas = Stanzas::new(&["Package", "Conffiles"], |fields| found.push(fields.clone()));
        for piece in text.chunks(piece.max(1)) {
            stanzas.write_all(piece).unwrap();
        }
        stanzas.finish();
        found
    }

    #[test]
    fn stanzas_are_the_same_however_they_are_cut() {
        let text = b"package: a\nOther: x\nConffiles:\n /etc/a 00\n /etc/b 11\n\n\nPackage: b\nVersion: 1";
        let expected = [
            BTreeMap::from([("Package", "a".to_owned()), ("Conffiles", "\n/etc/a 00\n/etc/b 11".to_owned())]),
            BTreeMap::from([("Package", "b".to_owned())]),
        ];
        for piece in 1..text.len() {
            assert_eq!(stanzas(text, piece), expected);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
            let _ = stanzas(&bytes, piece);
        }
    }
}
