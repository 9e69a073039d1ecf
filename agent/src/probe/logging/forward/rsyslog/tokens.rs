//! Words of rsyslog.conf(5), in its old form and in RainerScript, as rsyslog's own grammar cuts them.

/// Parameters of an object, their names in lower case.
pub(super) type Parameters = Vec<(String, Vec<String>)>;

/// A part of a statement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Token<'a> {
    /// A line such as `$IncludeConfig /etc/rsyslog.d/*.conf`, without its `$`.
    Directive(&'a str),
    /// A selector such as `*.*;mail.none`.
    Selector(&'a str),
    /// A filter by a property such as `:msg, contains, "x"`, what stands between `if` and `then`, or `else` or `foreach … do`, which
    /// say nothing of what they let through and are empty.
    Condition(&'a str),
    /// Such as `action(type="omfwd")`; its name is in lower case.
    Object(String, Parameters),
    Open,
    Close,
    /// `call NAME`: what gets here is handed to a ruleset; empty where its name is that of no ruleset in the text.
    Call(&'a str),
    /// What comes next is done for what the action before was done for.
    And,
    /// `stop` or `~`: what gets here goes no further.
    Stop,
    /// An action of the old form.
    Old(&'a str),
}

/// The tokens of a text. Comments are left out, as is what sets variables.
pub(super) struct Tokens<'a> {
    rest: &'a str,
    is_at_line_start: bool,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, is_at_line_start: true }
    }

    /// Skips white space and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest.trim_start();
            self.is_at_line_start |= self.rest[..self.rest.len() - rest.len()].contains('\n');
            self.rest = rest;
            if rest.starts_with('#') {
                self.line();
            } else if let Some(comment) = rest.strip_prefix("/*") {
                self.rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else {
                return;
            }
        }
    }

    /// Takes the rest of the line.
    fn line(&mut self) -> &'a str {
        let (line, rest) = self.rest.split_at(self.rest.find('\n').unwrap_or(self.rest.len()));
        self.rest = rest;
        line.trim_end()
    }

    /// Takes what consists of characters that `is_part`.
    fn take(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let (part, rest) = self.rest.split_at(self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len()));
        self.rest = rest;
        part
    }

    /// Takes what is written up to `word`, outside quotes and comments, and skips the word too.
    fn take_past(&mut self, word: &str) -> &'a str {
        let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '!' | '.');
        let start = self.rest;
        loop {
            self.skip_expression_space();
            let before = &start[..start.len() - self.rest.len()];
            let Some(first) = self.rest.chars().next() else { return before };
            if matches!(first, '"' | '\'' | '`') {
                self.quoted();
            } else if word.starts_with(first) && !is_of_word(first) {
                self.rest = &self.rest[first.len_utf8()..];
                return before;
            } else if is_of_word(first) {
                if self.take(is_of_word).eq_ignore_ascii_case(word) {
                    return before;
                }
            } else {
                self.rest = &self.rest[first.len_utf8()..];
            }
        }
    }

    /// Skips white space and comments where `#` begins none.
    fn skip_expression_space(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let Some(comment) = self.rest.strip_prefix("/*") else { return };
            self.rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
        }
    }

    /// Takes a quoted text, without its quotes and escapes.
    fn quoted(&mut self) -> String {
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map(|(_, quote)| quote);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            if Some(c) == quote {
                self.rest = &self.rest[at + c.len_utf8()..];
                return text;
            }
            text.extend(if c == '\\' { chars.next().map(|(_, c)| c) } else { Some(c) });
        }
        self.rest = "";
        text
    }

    /// Takes the parameters of an object, after its bracket, and the closing bracket.
    fn parameters(&mut self) -> Parameters {
        let mut parameters: Parameters = Vec::new();
        loop {
            self.skip();
            let Some(first) = self.rest.chars().next() else { return parameters };
            if matches!(first, '"' | '`') {
                let value = self.quoted();
                if let Some((_, values)) = parameters.last_mut() {
                    values.push(value);
                }
            } else if first.is_ascii_alphanumeric() {
                let name = self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
                parameters.push((name.to_ascii_lowercase(), Vec::new()));
            } else {
                self.rest = &self.rest[first.len_utf8()..];
                if first == ')' {
                    return parameters;
                }
            }
        }
    }

    /// Takes a selector, which stands at the begin of a line: `FACILITIES.LEVEL`, and more after `;`.
    fn selector(&mut self) -> Option<&'a str> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '*' | '.' | ',' | ';' | '!' | '=');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (selector, rest) = self.rest.split_at(end);
        let is_selector =
            selector.starts_with(|c: char| c == '*' || c.is_ascii_alphabetic()) && selector.contains(['.', ',']);
        if !is_selector {
            return None;
        }
        self.rest = rest;
        Some(selector)
    }

    /// Takes a filter such as `:msg, contains, "x"`, or an action such as `:omrelp:host`.
    fn colon(&mut self) -> Token<'a> {
        let line = &self.rest[..self.rest.find('\n').unwrap_or(self.rest.len())];
        let name = line[1..].find(|c: char| !c.is_ascii_alphanumeric()).map(|end| &line[1 + end..]);
        if name.is_some_and(|rest| rest.starts_with(':')) {
            return Token::Old(self.line());
        }
        let start = self.rest;
        match line.find('"') {
            Some(at) => {
                self.rest = &self.rest[at..];
                self.quoted();
            }
            None => {
                self.line();
            }
        }
        Token::Condition(&start[..start.len() - self.rest.len()])
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.skip();
            let first = self.rest.chars().next()?;
            let is_at_line_start = std::mem::take(&mut self.is_at_line_start);
            if is_at_line_start && let Some(selector) = self.selector() {
                return Some(Token::Selector(selector));
            }
            let single = match first {
                '{' => Some(Token::Open),
                '}' => Some(Token::Close),
                '&' => Some(Token::And),
                '~' => Some(Token::Stop),
                _ => None,
            };
            if let Some(token) = single {
                self.rest = &self.rest[1..];
                return Some(token);
            }
            match first {
                '$' => return Some(Token::Directive(&self.line()[1..])),
                ':' => return Some(self.colon()),
                c if !c.is_ascii_alphanumeric() => return Some(Token::Old(self.line())),
                _ => {}
            }
            let start = self.rest;
            let word = self.take(|c| c.is_ascii_alphanumeric() || c == '_').to_ascii_lowercase();
            match word.as_str() {
                "if" => return Some(Token::Condition(self.take_past("then").trim())),
                "foreach" => {
                    self.take_past("do");
                    return Some(Token::Condition(""));
                }
                "else" => return Some(Token::Condition("")),
                "set" | "unset" | "reset" => {
                    self.take_past(";");
                    continue;
                }
                "call_indirect" => {
                    self.take_past(";");
                    return Some(Token::Call(""));
                }
                "call" => {
                    self.skip();
                    return Some(Token::Call(self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))));
                }
                "continue" => continue,
                "stop" => return Some(Token::Stop),
                _ => {
                    let is_object = self.rest.trim_start().starts_with('(');
                    if !is_object {
                        // Users to whom it is shown.
                        self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | ',' | ';'));
                        return Some(Token::Old(&start[..start.len() - self.rest.len()]));
                    }
                    self.take(|c| c != '(');
                    self.rest = &self.rest[1..];
                    return Some(Token::Object(word, self.parameters()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_cut_as_rsyslog_cuts_it() {
        let object = |name: &str, parameters: &[(&str, &[&str])]| {
            let owned = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
            Token::Object(
                name.to_owned(),
                parameters.iter().map(|(name, values)| ((*name).to_owned(), owned(values))).collect(),
            )
        };
        for (text, expected) in [
            (
                "# x\n *.*;mail.none -/var/log/x # y\n",
                vec![Token::Selector("*.*;mail.none"), Token::Old("-/var/log/x # y")],
            ),
            (
                "auth,authpriv.* @@h;T\n& stop",
                vec![Token::Selector("auth,authpriv.*"), Token::Old("@@h;T"), Token::And, Token::Stop],
            ),
            ("*.* /* a\n@x */ ~", vec![Token::Selector("*.*"), Token::Stop]),
            ("*.emerg :omusrmsg:*\n", vec![Token::Selector("*.emerg"), Token::Old(":omusrmsg:*")]),
            (
                ":msg, contains, \"a \\\" b\" @h\n",
                vec![Token::Condition(":msg, contains, \"a \\\" b\""), Token::Old("@h")],
            ),
            (
                "if ( \\\n /* then */ $a == 'then' ) THEN {\n stop }\nelse @h",
                vec![
                    Token::Condition("( \\\n /* then */ $a == 'then' )"),
                    Token::Open,
                    Token::Stop,
                    Token::Close,
                    Token::Condition(""),
                    Token::Old("@h"),
                ],
            ),
            ("set $!a = \"x;\" & 'y';\ncall b.c\nstop", vec![Token::Call("b.c"), Token::Stop]),
            ("call_indirect $!a;\nstop", vec![Token::Call(""), Token::Stop]),
            (
                "Action (Type=\"a)b\" # x)\n target=[\"c\", \"d\"])\n$Umask 0022",
                vec![object("action", &[("type", &["a)b"]), ("target", &["c", "d"])]), Token::Directive("Umask 0022")],
            ),
            ("*.* root,adm", vec![Token::Selector("*.*"), Token::Old("root,adm")]),
        ] {
            assert_eq!(Tokens::new(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_cut_to_its_end(text in any::<String>()) {
            assert!(Tokens::new(&text).count() <= text.len());
        }

        #[test]
        fn text_of_the_language_is_cut_to_its_end(text in r#"([a-z*.,;:$&{}~()"'\\/# \n@-]|if |then |set |action|/\*|\*/){0,60}"#) {
            assert!(Tokens::new(&text).count() <= text.len());
        }
    }
}
