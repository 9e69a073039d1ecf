//! Mistakes: what a control does that is sound and cannot be meant, such as a comparison with a word that no host reports.
//!
//! A trial calls them wrong. The collector, and whoever judges a snapshot again, judges with them all the same: a catalogue that is
//! in force stays so with each later build.

use std::{collections::BTreeSet, fmt};

use muster_proto::fact::{self, Fact, HostClass};
use serde_json::{Value, json};

use super::{
    Control,
    expression::{FUNCTIONS, METHODS},
    sample,
};

/// A text that no field with words of its own holds.
const NO_WORD: &str = "no such word";

/// What cannot be meant.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Mistake {
    /// An expression calls a function that there is not, which makes the verdict unknown.
    Function(String),
    /// An expression asks which of two texts comes first; the path of one of them.
    Order(String),
    /// An expression compares a field with a word that it never holds.
    Word {
        /// The field.
        path: String,
        /// The word.
        word: String,
    },
    /// A parameter has a word that the field with which it is compared never holds.
    Parameter {
        /// The parameter.
        name: String,
        /// The field.
        path: String,
        /// The word.
        word: String,
    },
}

/// A field of facts, and what an expression compares it with.
#[derive(Clone, Debug)]
pub(super) struct Compared {
    path: String,
    with: With,
}

/// What a field is compared with.
#[derive(Clone, Debug)]
pub(super) enum With {
    /// Texts that are written out.
    Texts(Vec<String>),
    /// The value of a parameter.
    Parameter(String),
}

impl Compared {
    /// Returns the comparison of the field at `path`. `None` for a parameter, which holds what it was given.
    pub fn of(path: String, with: With) -> Option<Self> {
        (!path.starts_with("param.")).then_some(Self { path, with })
    }

    fn mistakes(&self, control: &Control) -> Vec<Mistake> {
        let path = &self.path;
        if may_be(path, NO_WORD) {
            return Vec::new();
        }
        let is_strange = |word: &String| !may_be(path, word);
        match &self.with {
            With::Texts(words) => {
                let strange = words.iter().filter(|word| is_strange(word)).cloned();
                strange.map(|word| Mistake::Word { path: path.clone(), word }).collect()
            }
            With::Parameter(name) => {
                let strange =
                    control.parameters.get(name).map(texts).unwrap_or_default().into_iter().filter(is_strange);
                strange.map(|word| Mistake::Parameter { name: name.clone(), path: path.clone(), word }).collect()
            }
        }
    }
}

/// Returns the mistakes of `control`, ordered.
pub(super) fn of(control: &Control) -> BTreeSet<Mistake> {
    let mut mistakes = BTreeSet::new();
    for expression in [Some(&control.condition), control.offenders.as_ref()].into_iter().flatten() {
        mistakes.extend(expression.mistakes().iter().cloned());
        mistakes.extend(expression.compared().iter().flat_map(|compared| compared.mistakes(control)));
    }
    mistakes
}

impl Mistake {
    /// Says what to do.
    pub fn advice(&self) -> String {
        match self {
            Self::Function(_) => {
                format!("call one of: {}; behind a value and a dot: {}", FUNCTIONS.join(", "), METHODS.join(", "))
            }
            Self::Order(_) => {
                "name what is meant, as in: p.version in param.versions, or p.version.startsWith('3.0.'); \
                               patch_level.pending tells what the package manager calls newer"
                    .to_owned()
            }
            Self::Word { path, .. } | Self::Parameter { path, .. } => {
                format!("write one of: {}", words(path).join(", "))
            }
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(name) => write!(f, "expression calls `{name}`, which is no function there"),
            Self::Order(path) => {
                write!(f, "expression compares `{path}` by the order of letters, in which 3.0.15 comes before 3.0.9")
            }
            Self::Word { path, word } => write!(f, "expression compares `{path}` with `{word}`, which it never is"),
            Self::Parameter { name, path, word } => {
                write!(f, "parameter `{name}` has `{word}`, which `{path}` never is")
            }
        }
    }
}

/// Returns the words that the field at `path` may hold; none where it may hold any text.
pub(super) fn words(path: &str) -> Vec<&'static str> {
    if may_be(path, NO_WORD) {
        return Vec::new();
    }
    fact::words().into_iter().filter(|word| may_be(path, word)).collect()
}

/// Returns whether the field at `path` may hold `word`, as far as is known.
fn may_be(path: &str, word: &str) -> bool {
    if path == "host.class" {
        return HostClass::parse(word).is_some();
    }
    let Some((subject, field)) = path.split_once('.') else { return true };
    let Some(fact) = sample::full().into_iter().find(|fact| fact.subject().as_str() == subject) else { return true };
    let mut state = sample::state(&fact);
    let pointer: String = field.replace("[]", ".0").split('.').map(|part| format!("/{part}")).collect();
    // What is read beside the fact itself is not examined.
    let Some(value) = state.pointer_mut(&pointer).filter(|value| value.is_string()) else { return true };
    *value = word.into();
    serde_json::from_value::<Fact>(json!({ "subject": subject, "state": state })).is_ok()
}

/// Returns the texts of the value of a parameter, of each class where it is one by class.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(by_class) => by_class.values().flat_map(texts).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Catalogue, Error, trial};

    /// Returns the example with this condition of its control.
    fn example(condition: &str) -> String {
        let (is, list) = ("software.packages.exists(p, p.name == param.package)", "package = \"acme-sensor\"");
        let more =
            format!("{list}\nclasses = {{ \"*\" = [\"server\"], laptop = [\"Laptop\"] }}\nversions = [\"3.0.15\"]");
        trial::EXAMPLE.replacen(is, &format!("{is} && ({condition})"), 1).replacen(list, &more, 1)
    }

    fn mistakes(text: &str) -> Vec<Mistake> {
        Catalogue::with_overlay(text).unwrap().mistakes().map(|(_, mistake)| mistake).collect()
    }

    #[test]
    fn what_cannot_be_meant_is_told_by_a_trial_and_stops_no_collector() {
        let word = |path: &str, word: &str| Mistake::Word { path: path.to_owned(), word: word.to_owned() };
        let function = |name: &str| Mistake::Function(name.to_owned());
        for (condition, mistake, advice) in [
            ("system.processors > 0 || system.hostname.matches('^a')", function("matches"), "startsWith"),
            ("system.processors > 0 || system.hostname.startWith('a')", function("startWith"), "startsWith"),
            ("system.processors > 0 || timestamp('x') > now", function("timestamp"), "call one of: bool, "),
            ("system.processors > 0 || system.hostname.string() == 'x'", function("string"), "call one of: bool, "),
            (
                "software.packages.all(p, p.name != 'openssl' || p.version >= '3.0.9')",
                Mistake::Order("software.packages[].version".to_owned()),
                "patch_level.pending",
            ),
            ("'3' < system.os_version || true", Mistake::Order("system.os_version".to_owned()), "p.version in"),
            (
                "system.host_class != 'Laptop'",
                word("system.host_class", "Laptop"),
                "one of: container, desktop, laptop,",
            ),
            ("host.class != 'Laptop'", word("host.class", "Laptop"), "one of: container, desktop, laptop,"),
            (
                "disk_encryption.volumes.all(v, v.kind in ['fixed', 'bot'])",
                word("disk_encryption.volumes[].kind", "bot"),
                "boot, ",
            ),
            ("!('UFW' in firewall.managers)", word("firewall.managers[]", "UFW"), "ufw"),
            (
                "system.host_class in param.classes",
                Mistake::Parameter {
                    name: "classes".to_owned(),
                    path: "system.host_class".to_owned(),
                    word: "Laptop".to_owned(),
                },
                "one of: container, desktop, laptop,",
            ),
        ] {
            let text = example(condition);
            assert_eq!(mistakes(&text), std::slice::from_ref(&mistake), "{condition}");
            let trials = trial::of_file(&text);
            assert!(!trials.is_sound(), "{condition}");
            let faults: Vec<_> = trials.controls.iter().flat_map(|trial| &trial.faults).collect();
            let what = format!("control ACME-01: {mistake}");
            assert!(faults.iter().any(|it| it.what == what && it.advice.contains(advice)), "{condition}: {faults:#?}");
        }
    }

    #[test]
    fn what_may_be_meant_is_no_mistake() {
        for condition in [
            "system.host_class != 'laptop' && host.class in ['server', 'vm']",
            "software.packages.all(p, p.version in param.versions || p.version != '3.0.9')",
            "disk_encryption.volumes.all(v, v.source != 'no such word' && v.mount_point.startsWith('/'))",
            "string(system.processors) != 'x' && int('7') > 3 && size(system.hostname) > 0 && dyn(true)",
            "logging.forwarders[0].ways == ['syslog_tls'] && ['syslog_tls'] == logging.forwarders[0].ways",
            "file_integrity.open_changes.all(c, c.kind == 'content')",
            "[1, 2].map(n, n + 1).exists_one(n, n == 3) && {'a': 1}['a'] == 1",
            "'sss' in ['sss'] || param.package == 'x' || 'x' in param.versions",
            "system.memory_bytes >= 1 && now - clock.last_sync_time >= 0",
        ] {
            assert_eq!(mistakes(&example(condition)), [], "{condition}");
            assert!(trial::of_file(&example(condition)).is_sound(), "{condition}");
        }
        assert_eq!(Catalogue::built_in().mistakes().collect::<Vec<_>>(), []);
    }

    #[test]
    fn parameters_of_built_in_controls_have_words_that_their_fields_hold() {
        for (text, told) in [
            ("[parameters.ENC-03]\naccepted = [\"blocked\"]", "`blocked`, which `removable_media.policy` never is"),
            (
                "[parameters.PLT-02]\naccepted = [\"selinux\", \"AppArmor\"]",
                "`AppArmor`, which `system.execution_controls[].kind` never is",
            ),
            ("[parameters.PLT-02]\naccepted = [\"selinux\"]", ""),
            ("[parameters.ACC-02]\nallow = { \"*\" = [\"alice\"] }", ""),
        ] {
            let told_all: Vec<String> = mistakes(text).iter().map(ToString::to_string).collect();
            assert_eq!(told_all.len(), usize::from(!told.is_empty()), "{told_all:?}");
            assert!(told_all.iter().all(|it| it.contains(told)), "{told_all:?}");
            assert_eq!(trial::of_file(text).is_sound(), told.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_file_with_mistakes_is_refused_for_what_is_unsound_all_the_same() {
        let text = example("has(system.hostname) || system.host_class == 'Laptop'");
        assert!(matches!(Catalogue::with_overlay(&text), Err(Error::Expression { .. })));
    }
}
