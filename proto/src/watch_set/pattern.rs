//! What a pattern of a watch set may be, which `ingest_service.proto` says.
//!
//! Whoever matches paths may rely on it: each part between slashes is `**`, or literals, `*`, `?` and closed classes of ASCII.

use crate::limits;

/// Parts between slashes, at most: what matches them is built one in the other.
const PARTS: usize = 100;

/// Says what is wrong with `pattern`, and what to write in its place.
pub(super) fn check(pattern: &str) -> Result<(), &'static str> {
    if pattern.is_empty() {
        return Err("it is empty");
    }
    if pattern.len() > limits::WATCH_PATTERN_BYTES {
        return Err("it is longer than 1024 bytes");
    }
    if pattern.split('/').count() > PARTS {
        return Err("it has 100 slashes or more");
    }
    if pattern.starts_with('/') {
        return Err("leave out its first slash: patterns are relative to the root");
    }
    pattern.split('/').try_for_each(check_part)
}

fn check_part(part: &str) -> Result<(), &'static str> {
    match part {
        "" => return Err("it has two slashes in a row, or one at its end"),
        "." | ".." => return Err("it has \".\" or \"..\" between slashes, which no path has"),
        "**" => return Ok(()),
        _ => {}
    }
    let mut rest = part.chars();
    let mut last = '\0';
    while let Some(next) = rest.next() {
        match next {
            '\0' => return Err("it has a zero byte"),
            '\\' | '{' | '}' => return Err("for \"\\\", \"{\" or \"}\" write a class, such as \"[{]\""),
            '*' if last == '*' => return Err("\"**\" stands alone between slashes"),
            '[' => rest = check_class(rest.as_str())?.chars(),
            _ => {}
        }
        last = next;
    }
    Ok(())
}

/// Checks the class that `text` begins with, after its `[`, and returns what comes after it.
fn check_class(text: &str) -> Result<&str, &'static str> {
    let body = text.strip_prefix('!').unwrap_or(text);
    // A `]` that comes first is a member.
    let end = body.char_indices().skip(1).find(|(_, member)| *member == ']').map(|(at, _)| at);
    let Some(end) = end else { return Err("a class is not closed by \"]\", or has a slash") };
    let (members, rest) = (&body[..end], &body[end + 1..]);
    if !members.is_ascii() || members.contains('\0') {
        return Err("a class has a member that is not ASCII: write \"?\" for each of its bytes");
    }
    if class_ranges(members.as_bytes()).any(|(first, last)| first > last) {
        return Err("a range of a class ends before it begins");
    }
    Ok(rest)
}

/// Returns the ranges of a class, of which `members` stand between its brackets. A `-` that is first or last is a member.
pub fn class_ranges(members: &[u8]) -> impl Iterator<Item = (u8, u8)> {
    let mut rest = members;
    std::iter::from_fn(move || match rest {
        [] => None,
        [first, b'-', last, after @ ..] => {
            rest = after;
            Some((*first, *last))
        }
        [one, after @ ..] => {
            rest = after;
            Some((*one, *one))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_taken_or_refused_with_what_to_do() {
        for pattern in [
            "etc",
            "**",
            "**/x",
            "etc/**/*.conf",
            "a?b",
            "[a-z]",
            "[!a]x",
            "[]]",
            "[!]]",
            "[a-]",
            "home/*/.ssh/**",
            "é",
            "[{]",
        ] {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
        }
        let deep = "a/".repeat(101) + "a";
        let long = "a".repeat(limits::WATCH_PATTERN_BYTES + 1);
        for (pattern, part) in [
            ("", "empty"),
            ("/etc", "first slash"),
            ("etc/", "at its end"),
            ("a//b", "in a row"),
            ("a/../b", "\"..\""),
            ("./a", "\"..\""),
            ("a**", "alone"),
            ("***", "alone"),
            ("a/**b/c", "alone"),
            ("[a", "not closed"),
            ("[]", "not closed"),
            ("[!]", "not closed"),
            ("[a/b]", "not closed"),
            ("[z-a]", "ends before"),
            ("[é]", "ASCII"),
            ("a\\*", "class"),
            ("{a,b}", "class"),
            ("a\0b", "zero byte"),
            (long.as_str(), "1024"),
            (deep.as_str(), "100 slashes or more"),
        ] {
            assert!(check(pattern).unwrap_err().contains(part), "{pattern}: {:?}", check(pattern));
        }
        assert_eq!(check(&long[1..]), Ok(()));
    }
}
