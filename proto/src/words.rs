//! Words of messages.

use std::fmt::Display;

/// Returns `number` of what is called `name`, in the plural unless it is one, such as `1 host` and `3 entries`.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(number: N, name: &str) -> String {
    if number == N::from(1) {
        return format!("{number} {name}");
    }
    match name.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u'])) {
        Some(stem) => format!("{number} {stem}ies"),
        None => format!("{number} {name}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_is_singular() {
        for (number, name, expected) in [
            (0, "host", "0 hosts"),
            (1, "host", "1 host"),
            (2, "host", "2 hosts"),
            (1, "entry", "1 entry"),
            (3, "entry", "3 entries"),
            (3, "day", "3 days"),
        ] {
            assert_eq!(counted(number, name), expected);
        }
        assert_eq!((counted(1_usize, "file"), counted(1_u64, "file")), ("1 file".into(), "1 file".into()));
    }
}
