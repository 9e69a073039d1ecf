//! Everything that reaches standard output: escaped, in columns, and quiet when nobody reads on.

use std::io::{self, IsTerminal as _, Write as _};

use muster_proto::fact::{self, Text};
use serde_json::Value;

use super::Error;

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Columns and lines, for people.
    #[default]
    #[value(alias = "table")]
    #[serde(alias = "table")]
    Text,
    /// JSON, for programs: one value, or one value a line for what is streamed.
    Json,
    /// CSV (RFC 4180), for spreadsheets. Not every command has it.
    #[serde(skip)]
    Csv,
}

/// Writes to standard output.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    form: Form,
    colour: bool,
}

impl Out {
    /// Returns an output of `form`. People get colour when they look at a terminal and `NO_COLOR` is unset or empty.
    pub fn new(form: Form) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { form, colour: form == Form::Text && io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb }
    }

    /// Prints a value for programs or text for people, whichever is asked for. Only the one needed is made.
    ///
    /// # Errors
    ///
    /// When standard output cannot be written. That nobody reads on is not an error.
    pub fn show(self, value: impl FnOnce() -> Value, text: impl FnOnce(Self) -> String) -> Result<(), Error> {
        match self.form {
            Form::Json => write_out(&json_lines(&value())),
            Form::Text | Form::Csv => write_out(&text(self)),
        }
    }

    /// Prints as [`Out::show`] does, or rows of a table as CSV.
    ///
    /// # Errors
    ///
    /// As [`Out::show`].
    pub fn show_table(
        self,
        value: impl FnOnce() -> Value,
        text: impl FnOnce(Self) -> String,
        rows: impl FnOnce() -> Vec<u8>,
    ) -> Result<(), Error> {
        match self.form {
            Form::Json | Form::Text => self.show(value, text),
            Form::Csv => write_out(&String::from_utf8_lossy(&rows())),
        }
    }

    /// Prints one value of a stream: compact JSON on one line, or text.
    ///
    /// # Errors
    ///
    /// As [`Out::show`]; and `Ok(false)` when nobody reads on, so that the stream can end.
    pub fn stream(self, value: impl FnOnce() -> Value, text: impl FnOnce(Self) -> String) -> Result<bool, Error> {
        let text = match self.form {
            Form::Json => format!("{}\n", json_safe(&value().to_string())),
            Form::Text | Form::Csv => text(self),
        };
        match try_write(&text) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Error::Print(error)),
        }
    }

    /// Returns `text` in the colour of `tone`.
    pub fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Doubt => "33",
            Tone::Dim => "2",
            Tone::Strong => "1",
            Tone::Plain => return text.to_owned(),
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// What a colour says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Cannot be told.
    Doubt,
    /// Beside the point.
    Dim,
    /// A title.
    Strong,
    /// Nothing.
    #[default]
    Plain,
}

/// Prints text as it is. It must be safe.
///
/// # Errors
///
/// When standard output cannot be written. That nobody reads on is not an error.
pub fn write_out(text: &str) -> Result<(), Error> {
    match try_write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Print(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says something to the person on standard error, escaped. Nothing is to be done when that fails.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{}", safe(text));
}

fn try_write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Returns `text` with whatever a terminal could take for more than a glyph escaped.
pub fn safe(text: &str) -> String {
    // Escaping makes at most four bytes of one.
    Text::cut(text, text.len().saturating_mul(4)).into()
}

/// Returns `value` as indented JSON and a line end, safe for a terminal.
fn json_lines(value: &Value) -> String {
    let text = serde_json::to_string_pretty(value).expect("a JSON value is always written");
    format!("{}\n", json_safe(&text))
}

/// Returns JSON with unsafe characters as `\uNNNN`. They stand only inside strings, so that the value stays the same.
fn json_safe(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && fact::is_unsafe(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Returns a cell of `text`, escaped, in the colour of `tone`.
    pub fn new(text: &str, tone: Tone) -> Self {
        Self { text: safe(text), tone }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(&text, Tone::Plain)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::new(&number.to_string(), Tone::Plain)
    }
}

/// Columns that a cell is padded to, at most: one that is longer moves its own row alone.
const PADDED: usize = 64;

/// Returns a table with a line of titles. The last column is not padded.
pub fn table(out: Out, titles: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut widths: Vec<usize> = titles.iter().map(|title| width(title)).collect();
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest =
                Some(width(&cell.text)).filter(|width| *width <= PADDED).map_or(*widest, |width| width.max(*widest));
        }
    }
    let titles = titles.iter().map(|title| Cell::new(title, Tone::Dim)).collect();
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        text.push_str(&table_row(out, &widths, row));
    }
    text
}

fn table_row(out: Out, widths: &[usize], row: &[Cell]) -> String {
    let mut line = String::new();
    for (index, (cell, widest)) in row.iter().zip(widths).enumerate() {
        line.push_str(&out.tone(cell.tone, &cell.text));
        if index + 1 < row.len() {
            line.push_str(&" ".repeat(widest.saturating_sub(width(&cell.text)) + 2));
        }
    }
    line.truncate(line.trim_end_matches(' ').len());
    line.push('\n');
    line
}

/// Returns the columns that `text` takes on a terminal.
fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Out = Out { form: Form::Text, colour: false };

    #[test]
    fn nothing_that_moves_a_terminal_gets_into_a_table() {
        let hostile = "a\u{1b}]0;x\u{7}\r\n\u{9b}31m\u{202e}\u{200b}\u{feff}z";
        let text = table(PLAIN, &["HOST"], &[vec![Cell::from(hostile)]]);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.chars().any(|c| c != '\n' && fact::is_unsafe(c)), "{text:?}");
    }

    #[test]
    fn json_keeps_the_value_and_has_no_unsafe_character() {
        let value = serde_json::json!({ "host": "a\u{1b}\u{202e}\u{9b}\u{7f}\u{feff}\"\\z" });
        let text = json_lines(&value);
        assert!(!text.chars().any(|c| c != '\n' && fact::is_unsafe(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn columns_line_up_also_for_wide_characters() {
        let rows = [vec![Cell::from("日本"), Cell::from("x")], vec![Cell::from("a"), Cell::from("y")]];
        assert_eq!(table(PLAIN, &["A", "B"], &rows), "A     B\n日本  x\na     y\n");
    }

    #[test]
    fn a_long_cell_moves_its_own_row_alone() {
        let long = "x".repeat(16_384);
        let rows = [vec![Cell::from("aa"), Cell::from("b")], vec![Cell::from(long.as_str()), Cell::from("c")]];
        assert_eq!(table(PLAIN, &["A", "B"], &rows), format!("A   B\naa  b\n{long}  c\n"));
        let just = "y".repeat(PADDED);
        let rows = [vec![Cell::from("aa"), Cell::from("b")], vec![Cell::from(just.as_str()), Cell::from("c")]];
        assert!(table(PLAIN, &["A", "B"], &rows).lines().all(|line| line.len() == PADDED + 3));
    }
}
