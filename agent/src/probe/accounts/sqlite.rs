//! Rows of a table of an SQLite database, read from its bytes (<https://www.sqlite.org/fileformat2.html>).
//!
//! Read is what the databases of sign-ins need: tables with row ids, in UTF-8, with rows that fit their page. What else a file may
//! have is refused. A database that is being written has a journal or a log beside it, for which whoever calls must look.

/// Pages below each other, at most.
const DEPTH: usize = 20;
/// Columns of a row that are read, at most.
const COLUMNS: usize = 64;

/// A value of a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value<'a> {
    Null,
    Number(i64),
    Text(&'a [u8]),
}

/// A database.
pub struct Database<'a> {
    bytes: &'a [u8],
    page_bytes: usize,
    /// Of a page, without what is reserved at its end.
    usable_bytes: usize,
}

/// A table: where it begins, and its columns in order.
#[derive(Debug)]
pub struct Table {
    root: usize,
    pub columns: Vec<String>,
}

impl<'a> Database<'a> {
    /// Returns the database of `bytes`; `None` when it is none that this reader takes.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        if bytes.get(..16)? != b"SQLite format 3\0" {
            return None;
        }
        let page_bytes = match number(bytes, 16, 2)? {
            1 => 65_536,
            size if size.is_power_of_two() && size >= 512 => size,
            _ => return None,
        };
        // Text in UTF-8.
        if number(bytes, 56, 4)? != 1 {
            return None;
        }
        let usable_bytes = page_bytes.checked_sub(usize::from(*bytes.get(20)?)).filter(|size| *size >= 480)?;
        Some(Self { bytes, page_bytes, usable_bytes })
    }

    /// Returns the table of that name; `None` when there is none, or the schema does not follow the format.
    pub fn table(&self, name: &str) -> Option<Table> {
        let mut found = None;
        self.rows(1, &mut |row| {
            if let [Value::Text(b"table"), Value::Text(own), _, Value::Number(root), Value::Text(sql), ..] = row
                && own.eq_ignore_ascii_case(name.as_bytes())
            {
                found = usize::try_from(*root).ok().map(|root| Table { root, columns: columns(sql) });
            }
        })?;
        found
    }

    /// Calls `see` with each row of a table, in order of row id. A column that is the row id itself is null. `None` when something
    /// does not follow the format; what was seen before that was there.
    pub fn each_row(&self, table: &Table, see: &mut dyn FnMut(&[Value<'a>])) -> Option<()> {
        self.rows(table.root, see)
    }

    fn rows(&self, root: usize, see: &mut dyn FnMut(&[Value<'a>])) -> Option<()> {
        // A page is there once in a tree, so that more visits than pages are a loop.
        let mut visits_left = self.bytes.len() / self.page_bytes + 1;
        let mut open = vec![(root, 0)];
        while let Some((page, depth)) = open.pop() {
            visits_left = visits_left.checked_sub(1)?;
            if depth > DEPTH {
                return None;
            }
            let start = page.checked_sub(1)?.checked_mul(self.page_bytes)?;
            let content = self.bytes.get(start..start.checked_add(self.page_bytes)?)?;
            // The first page begins with the header of the file.
            let header = if page == 1 { 100 } else { 0 };
            let cells = number(content, header + 3, 2)?;
            match *content.get(header)? {
                0x0d => {
                    for cell in 0..cells {
                        let at = number(content, header + 8 + 2 * cell, 2)?;
                        self.row(content.get(at..self.usable_bytes)?, see)?;
                    }
                }
                0x05 => {
                    let mut below = vec![number(content, header + 8, 4)?];
                    for cell in (0..cells).rev() {
                        let at = number(content, header + 12 + 2 * cell, 2)?;
                        below.push(number(content, at, 4)?);
                    }
                    open.extend(below.into_iter().map(|page| (page, depth + 1)));
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// Reads the row of a cell: length, row id, and a record of a header of types and the values.
    fn row(&self, cell: &'a [u8], see: &mut dyn FnMut(&[Value<'a>])) -> Option<()> {
        let mut rest = cell;
        let bytes = usize::try_from(varint(&mut rest)?).ok()?;
        varint(&mut rest)?;
        if bytes > self.usable_bytes - 35 {
            return None;
        }
        let record = rest.get(..bytes)?;
        let mut types = record;
        let header_bytes = usize::try_from(varint(&mut types)?).ok()?;
        let mut types = record.get(record.len() - types.len()..header_bytes)?;
        let mut values = record.get(header_bytes..)?;
        let mut row = Vec::new();
        while !types.is_empty() && row.len() < COLUMNS {
            let kind = varint(&mut types)?;
            let (value, len) = match kind {
                0 => (Value::Null, 0),
                1..=4 => (integer(values, kind as usize)?, kind as usize),
                5 => (integer(values, 6)?, 6),
                6 => (integer(values, 8)?, 8),
                // A number with a fraction, which no column here has.
                7 => (Value::Null, 8),
                8 => (Value::Number(0), 0),
                9 => (Value::Number(1), 0),
                10 | 11 => return None,
                kind => {
                    let len = usize::try_from((kind - 12) / 2).ok()?;
                    (Value::Text(values.get(..len)?), len)
                }
            };
            values = values.get(len..)?;
            row.push(value);
        }
        see(&row);
        Some(())
    }
}

/// Returns the names of columns of a `CREATE TABLE`, in order and in lower case.
fn columns(sql: &[u8]) -> Vec<String> {
    let sql = String::from_utf8_lossy(sql);
    let Some((_, list)) = sql.split_once('(') else { return Vec::new() };
    let name = |column: &str| {
        let word = column.split_whitespace().next().unwrap_or_default();
        word.trim_matches(['"', '`', '[', ']']).to_ascii_lowercase()
    };
    list.split(',').map(name).collect()
}

/// Returns the big-endian number of `len` bytes at `at`.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    Some(bytes.get(at..at.checked_add(len)?)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

/// Returns the signed big-endian number of `len` bytes at the begin.
fn integer<'a>(bytes: &[u8], len: usize) -> Option<Value<'a>> {
    let bytes = bytes.get(..len)?;
    let sign = if bytes.first()? & 0x80 == 0 { 0 } else { -1 };
    Some(Value::Number(bytes.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte))))
}

/// Takes a number of one to nine bytes off the front: seven bits each, and eight of the ninth.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..9 {
        let byte = *rest.get(at)?;
        if at == 8 {
            number = number << 8 | u64::from(byte);
        } else {
            number = number << 7 | u64::from(byte & 0x7f);
        }
        if byte & 0x80 == 0 || at == 8 {
            *rest = &rest[at + 1..];
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by SQLite 3.40, with pages of 512 bytes so that the table has more than one: 40 rows of
    /// `CREATE TABLE wtmp(ID INTEGER PRIMARY KEY, Type INTEGER, User TEXT NOT NULL, Login INTEGER)`.
    const FILE: &[u8] = include_bytes!("sample.sqlite");

    fn rows(file: &[u8]) -> Option<Vec<(i64, String, i64)>> {
        let database = Database::of(file)?;
        let table = database.table("wtmp")?;
        assert_eq!(table.columns.get(1).map(String::as_str).unwrap_or("type"), "type");
        let mut rows = Vec::new();
        database.each_row(&table, &mut |row| {
            if let [_, Value::Number(kind), Value::Text(user), Value::Number(login)] = row {
                rows.push((*kind, String::from_utf8_lossy(user).into_owned(), *login));
            }
        })?;
        Some(rows)
    }

    #[test]
    fn every_row_of_a_table_of_several_pages_is_read_in_order() {
        let expected: Vec<_> = (0..40).map(|n| (3, format!("user{n}"), 1_700_000_000_000_000 + n)).collect();
        assert_eq!(rows(FILE).unwrap(), expected);
        assert!(Database::of(FILE).unwrap().table("other").is_none());
    }

    #[test]
    fn numbers_have_one_to_nine_bytes() {
        for (bytes, expected) in [
            (vec![0x7f], Some(127)),
            (vec![0x81, 0x00], Some(128)),
            (vec![0xff; 9], Some(u64::MAX)),
            (vec![0x80], None),
        ] {
            assert_eq!(varint(&mut bytes.as_slice()), expected, "{bytes:?}");
        }
        assert_eq!(integer(&[0xff, 0xfe], 2), Some(Value::Number(-2)));
    }

    proptest! {
        #[test]
        fn a_damaged_file_never_panics_and_always_ends(
            damage in proptest::collection::vec((0..FILE.len(), any::<u8>()), 1..12), len in 0..FILE.len(),
        ) {
            let mut file = FILE.to_vec();
            damage.into_iter().for_each(|(at, byte)| file[at] = byte);
            for file in [&file[..], &file[..len]] {
                let Some(database) = Database::of(file) else { continue };
                if let Some(table) = database.table("wtmp") {
                    let _ = database.each_row(&table, &mut |_| {});
                }
            }
        }
    }
}
