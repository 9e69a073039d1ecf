//! Patterns of watch sets as machines that take linear time and bounded memory, whatever the patterns and the names are.
//!
//! What a pattern may be is checked by [`muster_proto::watch_set`], upon which the translation rests.

use muster_proto::watch_set::class_ranges;
use regex_automata::{Anchored, Input, meta::Regex, nfa::thompson::WhichCaptures, util::syntax};

/// Bytes that the states of one list of patterns may take.
const STATE_BYTES: usize = 8 << 20;
/// Bytes that what is remembered of its matching may take; beyond it, matching becomes slower.
const CACHE_BYTES: usize = 512 << 10;

/// A list of patterns, of which one must match.
#[derive(Debug)]
pub(super) struct Patterns(Regex);

impl Patterns {
    /// Returns what matches the entries that `patterns` name.
    pub(super) fn exact(patterns: &[String]) -> Result<Self, Box<regex_automata::meta::BuildError>> {
        build(patterns.iter().map(|pattern| translate(pattern)))
    }

    /// Returns what matches the entries that `patterns` name, and everything below them.
    pub(super) fn with_content(patterns: &[&String]) -> Result<Self, Box<regex_automata::meta::BuildError>> {
        build(patterns.iter().map(|pattern| translate(pattern) + "(?:/.*)?"))
    }

    /// Returns what matches the folders in which, at some depth, an entry may be that `patterns` name.
    pub(super) fn leading(patterns: &[String]) -> Result<Self, Box<regex_automata::meta::BuildError>> {
        build(patterns.iter().map(|pattern| translate_leading(pattern, true)))
    }

    /// Returns what matches the folders that `patterns` name on the way to an entry: those of [`Self::leading`] before any `**`.
    pub(super) fn named(patterns: &[String]) -> Result<Self, Box<regex_automata::meta::BuildError>> {
        build(patterns.iter().map(|pattern| translate_leading(pattern, false)))
    }

    /// Returns whether one of them matches `path`, which has no slash at its begin.
    pub(super) fn is_match(&self, path: &[u8]) -> bool {
        self.0.is_match(Input::new(path).anchored(Anchored::Yes))
    }
}

fn build(expressions: impl Iterator<Item = String>) -> Result<Patterns, Box<regex_automata::meta::BuildError>> {
    let expressions: Vec<_> = expressions.map(|expression| format!("(?:{expression})\\z")).collect();
    let syntax = syntax::Config::new().unicode(false).utf8(false).dot_matches_new_line(true);
    let config = Regex::config()
        .utf8_empty(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(STATE_BYTES))
        .hybrid_cache_capacity(CACHE_BYTES);
    Ok(Patterns(Regex::builder().syntax(syntax).configure(config).build_many(&expressions)?))
}

fn translate(pattern: &str) -> String {
    let parts: Vec<_> = pattern.split('/').collect();
    let mut expression = String::new();
    for (at, part) in parts.iter().enumerate() {
        let is_last = at + 1 == parts.len();
        match (*part, is_last) {
            ("**", true) => expression.push_str(".*"),
            ("**", false) => expression.push_str("(?:.*/)?"),
            (part, true) => push_part(&mut expression, part),
            (part, false) => {
                push_part(&mut expression, part);
                expression.push('/');
            }
        }
    }
    expression
}

fn translate_leading(pattern: &str, at_any_depth: bool) -> String {
    let parts: Vec<_> = pattern.split('/').collect();
    // The last part names the entry itself, which leads to nothing, unless it is `**`.
    let named = parts.iter().position(|part| *part == "**").unwrap_or(parts.len() - 1);
    let mut expression = String::new();
    for (at, part) in parts[..named].iter().enumerate() {
        expression.push_str(if at == 0 { "(?:" } else { "(?:/" });
        push_part(&mut expression, part);
    }
    if at_any_depth && parts[named] == "**" {
        expression.push_str(if named == 0 { ".*" } else { "(?:/.*)?" });
    }
    expression + &")?".repeat(named)
}

fn push_part(expression: &mut String, part: &str) {
    let mut rest = part.as_bytes();
    while let [next, after @ ..] = rest {
        rest = after;
        match next {
            b'*' => expression.push_str("[^/]*"),
            b'?' => expression.push_str("[^/]"),
            b'[' => rest = push_class(expression, after),
            byte => push_byte(expression, *byte),
        }
    }
}

/// Translates the class that `text` begins with, after its `[`, and returns what comes after it.
fn push_class<'a>(expression: &mut String, text: &'a [u8]) -> &'a [u8] {
    let body = text.strip_prefix(b"!").unwrap_or(text);
    let end = body.iter().skip(1).position(|byte| *byte == b']').map_or(body.len(), |at| at + 1);
    expression.push_str(if body.len() < text.len() { "[^/" } else { "[[" });
    for (first, last) in class_ranges(&body[..end]) {
        push_byte(expression, first);
        expression.push('-');
        push_byte(expression, last);
    }
    expression.push_str(if body.len() < text.len() { "]" } else { "]&&[^/]]" });
    body.get(end + 1..).unwrap_or_default()
}

fn push_byte(expression: &mut String, byte: u8) {
    expression.push_str(&format!("\\x{byte:02x}"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(pattern: &str) -> Vec<String> {
        vec![pattern.to_owned()]
    }

    #[test]
    fn a_pattern_matches_whole_paths_as_the_contract_says() {
        for (pattern, yes, no) in [
            ("etc/mtab", &["etc/mtab"][..], &["etc", "etc/mtab/x", "x/etc/mtab", "etc/mtabs"][..]),
            ("etc/*.conf", &["etc/a.conf", "etc/.conf"], &["etc/a/b.conf", "etc/a.conf/x", "etc/a.config"]),
            ("etc/**/*.conf", &["etc/a.conf", "etc/a/b.conf", "etc/a/b/c.conf"], &["etc.conf", "a/etc/b.conf"]),
            ("**/tmp", &["tmp", "a/tmp", "a/b/tmp"], &["atmp", "a/tmp/b"]),
            ("var/**", &["var/a", "var/a/b"], &["var", "vara"]),
            ("**", &["", "a", "a/b"], &[]),
            ("a/**/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab"]),
            ("a?c", &["abc", "a\nc"], &["a/c", "ac", "abbc"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
            ("a[!b]c", &["axc"], &["abc", "a/c"]),
            ("a[+-9]c", &["a+c", "a9c"], &["a/c"]),
            ("[]]", &["]"], &["["]),
            ("[!]]", &["a"], &["]"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("a.b+(c)|$^", &["a.b+(c)|$^"], &["axb+(c)|$^"]),
            ("é", &["é"], &["e"]),
        ] {
            let patterns = Patterns::exact(&one(pattern)).unwrap();
            for path in yes {
                assert!(patterns.is_match(path.as_bytes()), "{pattern} {path}");
            }
            for path in no {
                assert!(!patterns.is_match(path.as_bytes()), "{pattern} {path}");
            }
        }
        assert!(Patterns::exact(&one("a/?*")).unwrap().is_match(b"a/\xff\n"));
    }

    #[test]
    fn what_is_below_is_matched_where_it_is_asked_for() {
        let excluded = Patterns::with_content(&[&"a/*.d".to_owned(), &"**/cache".to_owned()]).unwrap();
        for path in ["a/b.d", "a/b.d/c", "a/b.d/c/d", "cache/x", "b/cache/y/z"] {
            assert!(excluded.is_match(path.as_bytes()), "{path}");
        }
        for path in ["a", "a/b.dx", "b/c.d", "caches/x"] {
            assert!(!excluded.is_match(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn only_folders_that_may_hold_a_match_are_gone_into() {
        for (pattern, yes, no) in [
            ("home/*/.ssh/**", &["home", "home/a", "home/a/.ssh", "home/a/.ssh/b/c"][..], &["root", "home/a/b"][..]),
            ("etc/*/x.conf", &["etc", "etc/a"], &["etc/a/x.conf", "usr"]),
            ("**/x", &["a", "a/b"], &[]),
            ("root", &[], &["root", "root/a", "etc"]),
        ] {
            let leading = Patterns::leading(&one(pattern)).unwrap();
            assert!(leading.is_match(b""), "{pattern}");
            for path in yes {
                assert!(leading.is_match(path.as_bytes()), "{pattern} {path}");
            }
            for path in no {
                assert!(!leading.is_match(path.as_bytes()), "{pattern} {path}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_the_contract_takes_is_translated_and_what_leads_to_a_match_leads(
            pattern in r"(\*\*|[ab*?\]!\^&-]{1,4}|\[[!\^]?[ab\]&~-]{1,4}\]|é)(/(\*\*|[ab*?.]{1,3}|\[[!]?[+-9\[]{1,3}\])){0,5}",
            path in "[ab]{1,3}(/[ab.]{1,3}){0,6}",
        ) {
            let set = muster_proto::watch_set::WatchSet {
                include: vec![pattern.clone()],
                ..muster_proto::watch_set::WatchSet::of_paths("a", vec!["/".into()])
            };
            prop_assume!(muster_proto::watch_set::check(std::slice::from_ref(&set)).is_ok());
            let exact = Patterns::exact(&set.include).unwrap();
            let leading = Patterns::leading(&set.include).unwrap();
            let content = Patterns::with_content(&[&pattern]).unwrap();
            if exact.is_match(path.as_bytes()) {
                prop_assert!(content.is_match(path.as_bytes()));
                for (at, _) in path.match_indices('/') {
                    prop_assert!(leading.is_match(&path.as_bytes()[..at]), "{} leads to no {}", &path[..at], path);
                }
            }
            for (at, _) in path.match_indices('/') {
                let is_above = exact.is_match(&path.as_bytes()[..at]);
                prop_assert!(!is_above || content.is_match(path.as_bytes()));
            }
        }
    }
}
