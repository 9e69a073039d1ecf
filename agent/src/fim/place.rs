//! The order of paths in a scan, and what lies below what.

use std::{
    cmp::Ordering,
    path::{Component, Path, PathBuf},
};

/// Order of a scan: by parts of the path, so that a folder's content follows it at once.
pub fn order(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(at) => rank(a[at]).cmp(&rank(b[at])),
        None => a.len().cmp(&b.len()),
    }
}

/// Returns whether `path` is `above` or lies below it.
pub fn is_at_or_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || above == b"/" || rest.starts_with(b"/"))
}

/// Returns `path` without `.` and `..`, without a slash at its end and without two in a row.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// Returns the folder that `path` lies in; of `/` itself, nothing.
pub fn folder_of(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)]
}

/// Returns the folders above `path`, the topmost first, without `/`.
pub fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_before_its_content_and_that_before_its_siblings() {
        let mut paths = ["/a.b", "/a/b", "/a", "/a-b", "/"].map(|path| path.as_bytes().to_vec());
        paths.sort_by(|a, b| order(a, b));
        assert_eq!(paths, ["/", "/a", "/a/b", "/a-b", "/a.b"].map(|path| path.as_bytes().to_vec()));
    }

    #[test]
    fn what_lies_below_is_told_by_whole_parts() {
        for (path, expected) in [("/a", true), ("/a/b", true), ("/ab", false), ("/", false)] {
            assert_eq!(is_at_or_below(path.as_bytes(), b"/a"), expected, "{path}");
        }
        assert!(is_at_or_below(b"/a", b"/"));
        assert_eq!(above(b"/a/b/c").collect::<Vec<_>>(), [b"/a".as_slice(), b"/a/b"]);
        assert_eq!(above(b"/").count() + above(b"/a").count(), 0);
        assert_eq!([b"/a/b".as_slice(), b"/a", b"/"].map(folder_of), [b"/a".as_slice(), b"", b""]);
    }
}
