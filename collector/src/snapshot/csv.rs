//! Tables for spreadsheets: the same content as the JSON beside them, which is authoritative.
//!
//! Every cell is quoted. A text that a spreadsheet could take for a formula gets an apostrophe in front.

/// The rule, for the manifest.
pub const FORMULA_RULE: &str = "every cell is quoted; a text cell whose first character after white space is one of = + - @ (or \
    their full-width forms), a tab, a carriage return, a line feed or NUL has an apostrophe put before it; the JSON file beside \
    each CSV file is authoritative and has no such apostrophes";

/// A table under way.
#[derive(Debug)]
pub struct Table {
    text: String,
}

/// A cell.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    /// A text, which may come from anybody.
    Text(&'a str),
    /// A number, which cannot be a formula.
    Number(i128),
}

impl Table {
    /// Starts a table with these columns.
    pub fn new(columns: &[&str]) -> Self {
        let mut table = Self { text: String::new() };
        table.row(&columns.iter().map(|column| Cell::Text(column)).collect::<Vec<_>>());
        table
    }

    /// Appends a row.
    pub fn row(&mut self, cells: &[Cell<'_>]) {
        for (index, cell) in cells.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.text.push('"');
            match cell {
                Cell::Number(number) => self.text.push_str(&number.to_string()),
                Cell::Text(text) => {
                    if is_formula(text) {
                        self.text.push('\'');
                    }
                    self.text.push_str(&text.replace('"', "\"\""));
                }
            }
            self.text.push('"');
        }
        self.text.push_str("\r\n");
    }

    /// Returns the table as UTF-8 (RFC 4180).
    pub fn into_bytes(self) -> Vec<u8> {
        self.text.into_bytes()
    }
}

/// Returns whether a spreadsheet could take `text` for a formula.
fn is_formula(text: &str) -> bool {
    let is_trigger = |c: char| {
        matches!(
            c,
            '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '\0' | '＝' | '＋' | '－' | '＠' | '﹢' | '﹣' | '﹦' | '﹫'
        )
    };
    let is_blank = |c: char| c.is_whitespace() || fact_unsafe(c);
    for c in text.chars() {
        if is_trigger(c) {
            return true;
        }
        if !is_blank(c) {
            return false;
        }
    }
    false
}

/// Invisible characters do not hide what follows.
fn fact_unsafe(c: char) -> bool {
    muster_proto::fact::is_unsafe(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_starts_a_formula() {
        let corpus = [
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "\n=1",
            "\0=1",
            " =1",
            "   \u{a0}=1",
            "\u{3000}=1",
            "＝1",
            "\u{3000}＋1",
            "－1",
            "＠x",
            "\u{feff}=1",
            "\u{200b}=1",
            "=cmd|' /C calc'!A0",
            "=HYPERLINK(\"http://x\",\"y\")",
        ];
        let mut table = Table::new(&["host"]);
        for text in corpus {
            table.row(&[Cell::Text(text)]);
        }
        let bytes = table.into_bytes();
        let mut reader = csv::ReaderBuilder::new().from_reader(bytes.as_slice());
        let mut count = 0;
        for (record, original) in reader.records().zip(corpus) {
            let record = record.unwrap();
            assert_eq!(&record[0], format!("'{original}"));
            count += 1;
        }
        assert_eq!(count, corpus.len());
    }

    #[test]
    fn other_texts_and_numbers_stay_as_they_are() {
        let mut table = Table::new(&["a", "b"]);
        table.row(&[Cell::Text("web-7, \"x\""), Cell::Number(-5)]);
        assert_eq!(String::from_utf8(table.into_bytes()).unwrap(), "\"a\",\"b\"\r\n\"web-7, \"\"x\"\"\",\"-5\"\r\n");
    }
}
