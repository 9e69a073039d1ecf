//! GVDB, the file format of dconf's databases: a hash table whose keys are made of parts and whose values are GVariants.
//!
//! ```text
//! 0   "GVariant", version (u32, 0), options (u32), root: start and end (u32 each)
//! table: bloom words (u32, the low 27 bits count), buckets (u32), the bloom words, the buckets, then items of 24 bytes:
//!        hash (u32), parent (u32), key: start (u32) and size (u16), type (u8), unused (u8), value: start and end (u32 each)
//! ```
//!
//! Every number is little-endian; a file of the other order is refused. Buckets and hashes are only for looking up fast: here
//! every item is read. Source: gvdb-format.h of the GVDB library.

use std::collections::BTreeMap;

/// Items of one file, at most.
const ITEMS: usize = 100_000;
/// Parts of one key, at most.
const PARTS: usize = 64;
/// Bytes of one key, at most.
const KEY_BYTES: usize = 4096;
const ITEM_BYTES: usize = 24;
const NO_PARENT: u32 = u32::MAX;

/// A value of the types that are asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    Bool(bool),
    Number(u32),
    /// Of another type.
    Other,
}

/// A database of settings.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Database {
    /// Value by key, such as `/org/gnome/desktop/session/idle-delay`.
    pub values: BTreeMap<String, Value>,
    /// Keys that databases before this one may not change.
    pub locks: Vec<String>,
}

/// Returns the database of a file; `None` when it does not follow the format.
pub fn parse(file: &[u8]) -> Option<Database> {
    if file.get(..8)? != b"GVariant" || number(file, 8)? != 0 {
        return None;
    }
    let mut database = Database::default();
    for item in table(file, region(file, 16)?)? {
        match item.kind {
            b'v' => {
                database.values.insert(item.key, value(item.content));
            }
            b'H' if item.key == ".locks" => {
                database.locks = table(file, item.content)?.into_iter().map(|lock| lock.key).collect();
            }
            _ => {}
        }
    }
    Some(database)
}

struct Item<'a> {
    key: String,
    kind: u8,
    content: &'a [u8],
}

/// Returns the items of a hash table.
fn table<'a>(file: &'a [u8], table: &'a [u8]) -> Option<Vec<Item<'a>>> {
    if table.is_empty() {
        return Some(Vec::new());
    }
    let bloom = (number(table, 0)? & ((1 << 27) - 1)) as usize;
    let buckets = number(table, 4)? as usize;
    let start = bloom.checked_add(buckets)?.checked_mul(4)?.checked_add(8)?;
    let items = table.get(start..)?;
    let count = items.len() / ITEM_BYTES;
    if count > ITEMS || items.len() % ITEM_BYTES != 0 {
        return None;
    }
    let item = |index: usize| items.get(index * ITEM_BYTES..(index + 1) * ITEM_BYTES);
    let part = |item: &'a [u8]| {
        let size = usize::from(u16::from_le_bytes(*item.get(12..)?.first_chunk()?));
        let start = number(item, 8)? as usize;
        std::str::from_utf8(file.get(start..start.checked_add(size)?)?).ok()
    };
    let mut found = Vec::with_capacity(count);
    for index in 0..count {
        let own = item(index)?;
        let mut parts = vec![part(own)?];
        let mut parent = number(own, 4)?;
        while parent != NO_PARENT {
            let above = item(parent as usize)?;
            parts.push(part(above)?);
            parent = number(above, 4)?;
            if parts.len() > PARTS {
                return None;
            }
        }
        if parts.iter().map(|part| part.len()).sum::<usize>() > KEY_BYTES {
            return None;
        }
        let kind = *own.get(14)?;
        // The children of a folder are found by their parent.
        let content = if matches!(kind, b'v' | b'H') { region(file, offset_of(file, own)? + 16)? } else { &[] };
        found.push(Item { key: parts.into_iter().rev().collect(), kind, content });
    }
    Some(found)
}

/// Returns where in `file` a part of it begins.
fn offset_of(file: &[u8], part: &[u8]) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(file.as_ptr() as usize)
}

/// Returns the bytes that the two numbers at `at` point to.
fn region(file: &[u8], at: usize) -> Option<&[u8]> {
    file.get(number(file, at)? as usize..number(file, at.checked_add(4)?)? as usize)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Returns the value of a GVariant of type `v`: the value, a zero, and its type.
fn value(bytes: &[u8]) -> Value {
    match bytes {
        [value @ (0 | 1), 0, b'b'] => Value::Bool(*value == 1),
        [a, b, c, d, 0, b'u'] => Value::Number(u32::from_le_bytes([*a, *b, *c, *d])),
        _ => Value::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by `dconf compile` of dconf 0.40 from: [org/gnome/desktop/session] idle-delay=uint32 900,
    /// [org/gnome/desktop/screensaver] lock-enabled=true, lock-delay=uint32 0, and a lock of the first.
    const COMPILED: &[u8] = include_bytes!("compiled.gvdb");

    #[test]
    fn a_compiled_database_has_its_values_and_locks() {
        let database = parse(COMPILED).unwrap();
        let values: Vec<_> = database.values.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let expected = [
            ("/org/gnome/desktop/screensaver/lock-delay", &Value::Number(0)),
            ("/org/gnome/desktop/screensaver/lock-enabled", &Value::Bool(true)),
            ("/org/gnome/desktop/session/idle-delay", &Value::Number(900)),
        ];
        assert_eq!(values, expected);
        assert_eq!(database.locks, ["/org/gnome/desktop/session/idle-delay"]);
    }

    #[test]
    fn another_byte_order_and_a_torn_file_are_refused() {
        assert_eq!(parse(b"raVGtnai\0\0\0\0"), None);
        for len in 0..COMPILED.len() {
            // Never a panic, and never more than the whole file says.
            if let Some(part) = parse(&COMPILED[..len]) {
                assert!(part.values.len() <= 3, "{len}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_damaged_file_never_panics(damage in proptest::collection::vec((0..COMPILED.len(), any::<u8>()), 1..8)) {
            let mut file = COMPILED.to_vec();
            damage.into_iter().for_each(|(at, byte)| file[at] = byte);
            let _ = parse(&file);
        }
    }
}
