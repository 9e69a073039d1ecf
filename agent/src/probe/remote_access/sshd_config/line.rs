//! The lines of sshd_config(5): keywords, the words of their arguments, and the patterns among them.

/// What stands between words.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// Returns keyword, in lower case, and argument of a line, without its comment; `None` for an empty one or a comment.
///
/// # Errors
///
/// Why it has no sound reading. sshd refuses some such lines and passes over others.
pub(super) fn parse_line(line: &str) -> Result<Option<(String, String)>, &'static str> {
    // A NUL joins what is before it to the next line.
    if line.contains('\0') {
        return Err("a line with a NUL");
    }
    let line = line.trim_start_matches(BLANKS).trim_end_matches(|c| c == '\x0c' || BLANKS.contains(&c));
    // What stands before one `=` is an empty word, which sshd passes over.
    let line = line.strip_prefix('=').unwrap_or(line).trim_start_matches(BLANKS);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|c| matches!(c, '"' | '=') || BLANKS.contains(&c)).unwrap_or(line.len());
    let (start, rest) = line.split_at(end);
    let (name, rest) = match rest.strip_prefix('"') {
        // Quotes end the keyword, and no `=` may follow.
        Some(quoted) => {
            let (end, rest) = quoted.split_once('"').ok_or("a keyword whose quotes have no end")?;
            (format!("{start}{end}"), rest)
        }
        None => {
            let rest = rest.trim_start_matches(BLANKS);
            (start.to_owned(), rest.strip_prefix('=').unwrap_or(rest))
        }
    };
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err("a keyword that sshd does not have");
    }
    let rest = rest.trim_start_matches(BLANKS);
    let (_, end) = split(rest).ok_or("an argument whose quotes have no end")?;
    Ok(Some((name.to_ascii_lowercase(), rest[..end].trim_end_matches(BLANKS).to_owned())))
}

/// Returns the words of an argument as sshd has them since OpenSSH 8.7, and where they end: there or at a comment. Quotes of either
/// kind hold together what they are in or joined to, and a backslash takes a quote, a backslash or, outside of quotes, a blank for
/// itself. `None` where a quote has no end.
fn split(text: &str) -> Option<(Vec<String>, usize)> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if word.is_none() && c == '#' {
            return Some((words, at));
        }
        if quote.is_none() && matches!(c, ' ' | '\t') {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        let is_taken = |next: char| matches!(next, '\'' | '"' | '\\') || (quote.is_none() && next == ' ');
        match c {
            '\\' => word.push(chars.next_if(|(_, next)| is_taken(*next)).map_or(c, |(_, next)| next)),
            _ if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(c),
            _ => word.push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some((words, text.len()))
}

/// Returns the words of an argument; none where it has no sound reading.
pub(super) fn words(text: &str) -> Vec<String> {
    split(text).map_or_else(Vec::new, |(words, _)| words)
}

/// Returns whether every release of sshd takes an argument for the same words. Before OpenSSH 8.7 only `"` is a quote, and ends its word.
pub(super) fn is_plain(text: &str) -> bool {
    let is_quote = |c| matches!(c, '\'' | '"' | '\\');
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    !inner.unwrap_or(text).contains(is_quote)
}

/// Returns whether a name fits a pattern of glob(7) with `*` and `?` alone. A `*` at its begin does not fit a dot.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // The place of the last `*`, and how much of the name it has taken.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, n) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Asked of OpenSSH 9.2.
    #[test]
    fn keywords_and_arguments_are_split_as_the_server_splits_them() {
        for (line, name, expected) in [
            ("\"PermitRootLogin\" yes", "permitrootlogin", &["yes"][..]),
            ("Permit\"RootLogin\"yes", "permitrootlogin", &["yes"]),
            ("=PermitRootLogin yes", "permitrootlogin", &["yes"]),
            (" \t= PermitRootLogin\t=\tyes \x0c", "permitrootlogin", &["yes"]),
            ("\"Match\" User bob", "match", &["User", "bob"]),
            ("PermitRootLogin 'no'\r", "permitrootlogin", &["no"]),
            ("PermitRootLogin y\"e\"s#x", "permitrootlogin", &["yes#x"]),
            ("PermitRootLogin yes # don't", "permitrootlogin", &["yes"]),
            ("PermitRootLogin yes #don't", "permitrootlogin", &["yes"]),
            ("AuthenticationMethods 'password' \"a b\" '#'", "authenticationmethods", &["password", "a b", "#"]),
            ("Include x/\"a\".conf b\\ c '\\ ' \\\" \\d", "include", &["x/a.conf", "b c", "\\ ", "\"", "\\d"]),
            ("UsePAM", "usepam", &[]),
        ] {
            let (found, value) = parse_line(line).unwrap().unwrap();
            assert_eq!(
                (found.as_str(), words(&value)),
                (name, expected.iter().map(|s| (*s).to_owned()).collect()),
                "{line}"
            );
        }
        for line in ["", " ", "#x", "= # x", "\t#"] {
            assert_eq!(parse_line(line), Ok(None), "{line}");
        }
        for line in
            ["\"PermitRootLogin no", "'PermitRootLogin' yes", "==PermitRootLogin yes", "\x0cUsePAM no", "Use-PAM no"]
        {
            assert!(parse_line(line).is_err(), "{line}");
        }
        for line in ["PermitRootLogin \"no", "PermitRootLogin 'no", "PermitRootLogin no\0"] {
            assert!(parse_line(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_pattern_fits_names_as_the_shell_has_it() {
        for (pattern, name, expected) in [
            ("*.conf", "50-cloud.conf", true),
            ("*.conf", "x.conf.bak", false),
            ("*.conf", ".hidden.conf", false),
            ("?a*", "xab", true),
            ("*", "a", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(text in "[A-Za-z \"'\\\\=#:\\[\\],*\n0-9]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                let _ = parse_line(&text);
                words(&text);
                is_plain(&text);
                matches(&text, "name");
            }
        }
    }
}
