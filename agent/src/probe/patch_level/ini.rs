//! Sections of `key = value` lines, as dnf, zypper and pacman write their settings.

/// A section: its name, and its keys and values in order. What stands before the first section has no name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Section {
    pub name: String,
    values: Vec<(String, String)>,
}

impl Section {
    /// Returns the last value of a key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.iter().rev().find(|(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// Returns the words of all values of the keys, which blanks or commas part.
    pub fn words(&self, keys: &[&str]) -> Vec<&str> {
        let values = self.values.iter().filter(|(own, _)| keys.contains(&own.as_str()));
        let words = values.flat_map(|(_, value)| value.split(|c: char| c.is_whitespace() || c == ','));
        words.filter(|word| !word.is_empty()).collect()
    }

    /// Takes the values of another section in place of its own; of the keys that are `lists`, beside its own.
    pub fn lay(&mut self, over: &Self, lists: &[&str]) {
        self.values.retain(|(key, _)| lists.contains(&key.as_str()) || !over.has(key));
        self.values.extend(over.values.iter().cloned());
    }

    /// Returns whether a key is there, with or without a value.
    pub fn has(&self, key: &str) -> bool {
        self.values.iter().any(|(own, _)| own == key)
    }

    /// Returns a switch; `None` when it is not set or is none.
    pub fn switch(&self, key: &str) -> Option<bool> {
        match self.value(key)?.to_ascii_lowercase().as_str() {
            "1" | "yes" | "true" | "on" => Some(true),
            "0" | "no" | "false" | "off" => Some(false),
            _ => None,
        }
    }
}

/// Returns the sections of a text. A line that begins with a blank goes on with the value before it.
pub(super) fn sections(text: &str) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(name, _)| name) {
            sections.push(Section { name: name.trim().to_owned(), values: Vec::new() });
            continue;
        }
        let values = &mut sections.last_mut().expect("there is a first section").values;
        match trimmed.split_once('=') {
            _ if line.starts_with([' ', '\t']) && !values.is_empty() => {
                let (_, value) = values.last_mut().expect("there is a value before");
                value.push(' ');
                value.push_str(trimmed);
            }
            Some((key, value)) => values.push((key.trim().to_owned(), value.trim().to_owned())),
            None => values.push((trimmed.to_owned(), String::new())),
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sections_have_values_switches_and_words() {
        let found = sections(
            "a=0\n# c\n[main]\nexclude = x, y*\n  z\ngpgcheck=1\ngpgcheck = False\nColor\n[ u ]\n;x=1\nenabled=1\n",
        );
        assert_eq!(found.iter().map(|section| section.name.as_str()).collect::<Vec<_>>(), ["", "main", "u"]);
        assert_eq!(found[1].words(&["exclude"]), ["x", "y*", "z"]);
        assert_eq!((found[1].switch("gpgcheck"), found[2].switch("enabled")), (Some(false), Some(true)));
        assert_eq!((found[1].switch("exclude"), found[2].value("x"), found[1].has("Color")), (None, None, true));
    }

    #[test]
    fn values_of_another_section_are_laid_over_those_of_before() {
        let found =
            sections("[a]\nenabled=1\nbaseurl=https://a\nexclude=x\n[b]\nbaseurl=http://b\nbaseurl=\nexclude=y\n");
        let mut own = found[1].clone();
        own.lay(&found[2], &["exclude"]);
        assert_eq!((own.value("enabled"), own.value("baseurl")), (Some("1"), Some("")));
        assert_eq!((own.words(&["baseurl"]), own.words(&["exclude"])), (vec!["http://b"], vec!["x", "y"]));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(\\[|\\]|=|\n| |#|\\PC)*") {
            for section in sections(&text) {
                let _ = (section.words(&["a"]), section.switch("a"));
            }
        }
    }
}
