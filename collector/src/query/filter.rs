//! Filters of lists: a part of AIP-160, parsed and evaluated here. Pure.
//!
//! A filter is comparisons (`field = value`, `field != value`, `field : value`) joined by `AND`, `OR`, `NOT` (or `-`) and
//! parentheses. As AIP-160 has it, `OR` binds tighter than `AND`. A value is a bare word or a quoted text. `=` ignores case;
//! `:` asks whether the field has the value inside it, and `field : *` whether it is not empty.

use std::borrow::Cow;

/// Bytes of a filter, at most.
const FILTER_BYTES: usize = 2048;
/// Parentheses and negations inside each other, at most.
const DEPTH: usize = 16;
/// Comparisons, at most.
const COMPARISONS: usize = 64;

/// A field that a filter may name.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// The values that it may have; empty when any text may stand there.
    pub values: &'static [&'static str],
}

impl Field {
    /// Returns a field that holds any text.
    pub const fn text(name: &'static str) -> Self {
        Self { name, values: &[] }
    }

    /// Returns a field that holds one of `values`.
    pub const fn of(name: &'static str, values: &'static [&'static str]) -> Self {
        Self { name, values }
    }
}

/// A text is not a filter.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// It is too long, too deep, or compares too often.
    #[error(
        "filter is longer than {FILTER_BYTES} bytes, nested deeper than {DEPTH}, or has more than {COMPARISONS} comparisons"
    )]
    TooLarge,
    /// Something else was expected.
    #[error("filter has {found} at byte {at} where {expected} is expected")]
    Unexpected {
        /// Where.
        at: usize,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// There is no such field.
    #[error("filter names `{name}`; the fields are {fields}")]
    UnknownField {
        /// What was named.
        name: String,
        /// The fields that there are.
        fields: String,
    },
    /// The field never has this value.
    #[error("filter compares {field} with `{value}`; the values are {values}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
        /// The values that there are.
        values: String,
    },
}

/// A parsed filter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter(Option<Node>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Compare { field: &'static str, how: How, value: String },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum How {
    Is,
    IsNot,
    Has,
}

impl Filter {
    /// Returns the filter of `text` over `fields`. An empty text lets everything through.
    ///
    /// # Errors
    ///
    /// Says where it is wrong and what is expected.
    pub fn parse(text: &str, fields: &'static [Field]) -> Result<Self, Error> {
        if text.len() > FILTER_BYTES {
            return Err(Error::TooLarge);
        }
        let tokens = tokens(text)?;
        if tokens.is_empty() {
            return Ok(Self(None));
        }
        let mut parser = Parser { tokens: &tokens, at: 0, end: text.len(), fields, comparisons: 0 };
        let node = parser.all(0)?;
        match parser.peek() {
            None => Ok(Self(Some(node))),
            Some(_) => Err(parser.unexpected("AND, OR or the end")),
        }
    }

    /// Returns whether the filter lets through what `value` gives the fields of.
    pub fn matches<'v>(&self, value: impl Fn(&str) -> Cow<'v, str>) -> bool {
        self.0.as_ref().is_none_or(|node| node.matches(&value))
    }
}

impl Node {
    fn matches<'v>(&self, value: &impl Fn(&str) -> Cow<'v, str>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(value)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(value)),
            Self::Not(node) => !node.matches(value),
            Self::Compare { field, how, value: wanted } => {
                let found = value(field);
                match how {
                    How::Is => found.to_lowercase() == wanted.to_lowercase(),
                    How::IsNot => found.to_lowercase() != wanted.to_lowercase(),
                    How::Has if wanted == "*" => !found.is_empty(),
                    How::Has => found.to_lowercase().contains(&wanted.to_lowercase()),
                }
            }
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Sign(&'static str),
}

impl Token {
    fn describe(&self) -> String {
        match self {
            Self::Word(text) => format!("`{text}`"),
            Self::Quoted(_) => "a quoted text".to_owned(),
            Self::Sign(sign) => format!("`{sign}`"),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Error> {
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some(&(at, c)) = chars.peek() {
        let token = match c {
            c if c.is_whitespace() => {
                chars.next();
                continue;
            }
            '"' | '\'' => quoted(&mut chars, at)?,
            '(' | ')' | '=' | ':' | '!' | '<' | '>' => {
                chars.next();
                let is_equal = matches!(chars.peek(), Some((_, '=')));
                let sign = match (c, is_equal) {
                    ('!', true) => "!=",
                    ('<', true) => "<=",
                    ('>', true) => ">=",
                    ('(', _) => "(",
                    (')', _) => ")",
                    ('=', _) => "=",
                    (':', _) => ":",
                    ('<', false) => "<",
                    ('>', false) => ">",
                    _ => "!",
                };
                if sign.len() == 2 {
                    chars.next();
                }
                Token::Sign(sign)
            }
            _ => {
                let mut word = String::new();
                while let Some(&(_, c)) = chars.peek() {
                    if c.is_whitespace() || matches!(c, '(' | ')' | '=' | ':' | '!' | '<' | '>' | '"' | '\'') {
                        break;
                    }
                    word.push(c);
                    chars.next();
                }
                Token::Word(word)
            }
        };
        tokens.push((at, token));
    }
    Ok(tokens)
}

fn quoted(chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>, at: usize) -> Result<Token, Error> {
    let open = Error::Unexpected { at, found: "an open quote".to_owned(), expected: "a closed one" };
    let quote = chars.next().map(|(_, c)| c);
    let mut text = String::new();
    while let Some((_, c)) = chars.next() {
        match c {
            '\\' => text.push(chars.next().ok_or_else(|| open.clone())?.1),
            c if Some(c) == quote => return Ok(Token::Quoted(text)),
            c => text.push(c),
        }
    }
    Err(open)
}

struct Parser<'a> {
    tokens: &'a [(usize, Token)],
    at: usize,
    end: usize,
    fields: &'static [Field],
    comparisons: usize,
}

impl Parser<'_> {
    /// `any {AND any}`.
    fn all(&mut self, depth: usize) -> Result<Node, Error> {
        let mut nodes = vec![self.any(depth)?];
        while self.take_word("AND") {
            nodes.push(self.any(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.swap_remove(0) } else { Node::All(nodes) })
    }

    /// `term {OR term}`.
    fn any(&mut self, depth: usize) -> Result<Node, Error> {
        let mut nodes = vec![self.term(depth)?];
        while self.take_word("OR") {
            nodes.push(self.term(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.swap_remove(0) } else { Node::Any(nodes) })
    }

    /// `[NOT | -] ("(" all ")" | comparison)`.
    fn term(&mut self, depth: usize) -> Result<Node, Error> {
        if depth > DEPTH {
            return Err(Error::TooLarge);
        }
        if self.take_word("NOT") || self.take_word("-") {
            return Ok(Node::Not(Box::new(self.term(depth + 1)?)));
        }
        if self.take_sign("(") {
            let node = self.all(depth + 1)?;
            return if self.take_sign(")") { Ok(node) } else { Err(self.unexpected("AND, OR or `)`")) };
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Node, Error> {
        self.comparisons += 1;
        if self.comparisons > COMPARISONS {
            return Err(Error::TooLarge);
        }
        let Some(Token::Word(word)) = self.peek().cloned() else { return Err(self.unexpected("a field")) };
        let (name, is_negated) = match word.strip_prefix('-') {
            Some(name) => (name, true),
            None => (word.as_str(), false),
        };
        let field = self.fields.iter().find(|field| field.name == name).ok_or_else(|| Error::UnknownField {
            name: name.to_owned(),
            fields: self.fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", "),
        })?;
        self.at += 1;
        let how = match self.peek() {
            Some(Token::Sign("=")) => How::Is,
            Some(Token::Sign("!=")) => How::IsNot,
            Some(Token::Sign(":")) => How::Has,
            _ => return Err(self.unexpected("`=`, `!=` or `:`")),
        };
        self.at += 1;
        let value = match self.peek() {
            Some(Token::Word(word)) if !matches!(word.as_str(), "AND" | "OR" | "NOT") => word.clone(),
            Some(Token::Quoted(text)) => text.clone(),
            _ => return Err(self.unexpected("a value")),
        };
        self.at += 1;
        if how != How::Has && !field.values.is_empty() && !field.values.iter().any(|v| v.eq_ignore_ascii_case(&value)) {
            return Err(Error::UnknownValue { field: field.name, value, values: field.values.join(", ") });
        }
        let node = Node::Compare { field: field.name, how, value };
        Ok(if is_negated { Node::Not(Box::new(node)) } else { node })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_next = matches!(self.peek(), Some(Token::Word(next)) if next == word);
        self.at += usize::from(is_next);
        is_next
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.peek(), Some(Token::Sign(next)) if *next == sign);
        self.at += usize::from(is_next);
        is_next
    }

    fn unexpected(&self, expected: &'static str) -> Error {
        let (at, found) = match self.tokens.get(self.at) {
            Some((at, token)) => (*at, token.describe()),
            None => (self.end, "its end".to_owned()),
        };
        Error::Unexpected { at, found, expected }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIELDS: &[Field] =
        &[Field::text("hostname"), Field::text("os_id"), Field::of("verdict", &["pass", "fail", "unknown"])];

    fn matches(filter: &str) -> Result<bool, Error> {
        let value = |field: &str| {
            Cow::Borrowed(match field {
                "hostname" => "Web-1",
                "verdict" => "fail",
                _ => "",
            })
        };
        Ok(Filter::parse(filter, FIELDS)?.matches(value))
    }

    #[test]
    fn a_filter_is_read_as_aip_160_has_it() {
        for (filter, expected) in [
            ("", true),
            ("  ", true),
            ("verdict = FAIL", true),
            ("verdict=fail", true),
            ("verdict != FAIL", false),
            ("hostname = \"web-1\"", true),
            ("hostname = 'web'", false),
            ("hostname : web", true),
            ("hostname:b-1", true),
            ("os_id : *", false),
            ("hostname : *", true),
            ("NOT verdict = pass", true),
            ("-verdict = fail", false),
            ("- verdict = fail", false),
            ("verdict = fail AND hostname = web-1", true),
            ("verdict = pass OR hostname = web-1", true),
            // OR binds tighter: false AND (true OR true).
            ("verdict = pass AND hostname : web OR hostname : web", false),
            ("(verdict = pass AND hostname : web) OR hostname : web", true),
            ("NOT (verdict = fail AND hostname : db)", true),
        ] {
            assert_eq!(matches(filter), Ok(expected), "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_place() {
        for (filter, part) in [
            ("verdict", "its end at byte 7 where `=`, `!=` or `:`"),
            ("verdict =", "where a value"),
            ("verdict = AND", "where a value"),
            ("verdict > fail", "`>` at byte 8"),
            ("verdict = fail hostname = x", "`hostname` at byte 15 where AND, OR or the end"),
            ("(verdict = fail", "where AND, OR or `)`"),
            ("verdict = fail)", "`)` at byte 14"),
            ("hostname = \"x", "an open quote at byte 11"),
            ("host = x", "names `host`; the fields are hostname, os_id, verdict"),
            ("verdict = failed", "the values are pass, fail, unknown"),
            ("= x", "where a field"),
        ] {
            let error = matches(filter).unwrap_err().to_string();
            assert!(error.contains(part), "{filter}: {error}");
        }
        let deep = format!("{}verdict = fail{}", "(".repeat(40), ")".repeat(40));
        assert_eq!(matches(&deep), Err(Error::TooLarge));
        assert_eq!(matches(&"NOT ".repeat(40)), Err(Error::TooLarge));
        assert_eq!(matches(&" ".repeat(3000)), Err(Error::TooLarge));
        assert_eq!(matches(&vec!["os_id=x"; 65].join(" OR ")), Err(Error::TooLarge));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = matches(&text);
        }

        #[test]
        fn no_motif_panics(words in proptest::collection::vec(
            prop::sample::select(vec!["(", ")", "AND", "OR", "NOT", "-", "hostname", "verdict", "=", "!=", ":", "fail", "\"", "'", "\\", "*", "é"]), 0..40)
        ) {
            let _ = matches(&words.join(" "));
            let _ = matches(&words.concat());
        }
    }
}
