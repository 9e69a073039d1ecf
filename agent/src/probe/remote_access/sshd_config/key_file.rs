//! Files of keys, as `AuthorizedKeysFile` of sshd_config(5) names them.

use std::path::{Path, PathBuf};

/// What glob(3) takes for more than itself, as sshd does since OpenSSH 10.0.
const WILDCARDS: [char; 6] = ['*', '?', '[', '{', '\\', '~'];

/// The name of such a file, with tokens that stand for something of the account.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyFile(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    Home,
    Name,
    Uid,
}

impl KeyFile {
    /// Returns the file of a word; `None` of one with another token, or wildcards.
    pub fn parse(word: &str) -> Option<Self> {
        if word.is_empty() || word.contains(WILDCARDS) {
            return None;
        }
        let mut parts = Vec::new();
        let mut rest = word;
        while let Some((text, after)) = rest.split_once('%') {
            parts.push(Part::Text(text.to_owned()));
            let token = after.chars().next()?;
            parts.push(match token {
                '%' => Part::Text("%".to_owned()),
                'h' => Part::Home,
                'u' => Part::Name,
                'U' => Part::Uid,
                _ => return None,
            });
            rest = &after[token.len_utf8()..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Some(Self(parts))
    }

    /// Returns the path of the file of an account. One without a root is in its home.
    pub fn of(&self, name: &str, uid: u32, home: &str) -> PathBuf {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Home => home.to_owned(),
            Part::Name => name.to_owned(),
            Part::Uid => uid.to_string(),
        };
        Path::new(home).join(self.0.iter().map(text).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_stand_for_what_the_account_is() {
        for (word, expected) in [
            (".ssh/authorized_keys", Some("/home/bob/.ssh/authorized_keys")),
            ("%h/.ssh/authorized_keys", Some("/home/bob/.ssh/authorized_keys")),
            ("/etc/ssh/keys/%u", Some("/etc/ssh/keys/bob")),
            ("/etc/ssh/%u/%U.pub", Some("/etc/ssh/bob/1000.pub")),
            ("/srv/100%%%u%", None),
            ("/srv/100%%%u", Some("/srv/100%bob")),
            ("/etc/ssh/keys/%i", None),
            ("/etc/ssh/keys/%é", None),
            ("/etc/ssh/keys/*", None),
            ("", None),
        ] {
            let path = KeyFile::parse(word).map(|file| file.of("bob", 1000, "/home/bob"));
            assert_eq!(path.as_deref(), expected.map(Path::new), "{word}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_names_never_panic(text in "[%huUé/a.]{0,40}", any in "\\PC*") {
            for text in [text, any] {
                KeyFile::parse(&text).map(|file| file.of(&text, 0, &text));
            }
        }
    }
}
