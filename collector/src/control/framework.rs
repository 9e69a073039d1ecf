//! Frameworks and the identifiers of their requirements that mappings may name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use serde::Deserialize;

/// A framework: identifiers alone, because most texts are not free.
#[derive(Debug)]
pub(super) struct Framework {
    /// Its title with its version.
    pub title: String,
    /// What the list of identifiers does not hold; `None` when it holds each one.
    pub lacks: Option<String>,
    /// Identifiers of its requirements, in its own order.
    pub ids: Vec<String>,
    known: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    title: String,
    lacks: Option<String>,
    ids: Vec<String>,
}

/// Frameworks by name.
static KNOWN: LazyLock<BTreeMap<String, Framework>> = LazyLock::new(|| {
    let definitions: BTreeMap<String, Definition> =
        toml::from_str(include_str!("frameworks.toml")).expect("a test parses the lists of frameworks");
    definitions.into_iter().map(|(name, definition)| (name, Framework::from(definition))).collect()
});

impl Framework {
    /// Returns whether it has the requirement `id`.
    pub fn has(&self, id: &str) -> bool {
        self.known.contains(id)
    }
}

impl From<Definition> for Framework {
    fn from(definition: Definition) -> Self {
        let ids: Vec<String> = definition.ids.iter().flat_map(|ids| expand(ids)).collect();
        let known = ids.iter().cloned().collect();
        Self { title: definition.title, lacks: definition.lacks, ids, known }
    }
}

/// Returns every framework by name, in order of the names.
pub(super) fn all() -> &'static BTreeMap<String, Framework> {
    &KNOWN
}

/// Returns the framework `name`.
pub(super) fn of(name: &str) -> Option<&'static Framework> {
    KNOWN.get(name)
}

/// Returns the identifiers of `CC1.1..5` or `GV.OC-01..05`; any other text is one identifier.
fn expand(ids: &str) -> Vec<String> {
    let range = || {
        let (first, last) = ids.split_once("..")?;
        let stem = first.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &first[stem.len()..];
        let numbers = digits.parse::<u32>().ok()?..=last.parse::<u32>().ok()?;
        let width = if digits.starts_with('0') { digits.len() } else { 1 };
        Some(numbers.map(|number| format!("{stem}{number:0width$}")).collect())
    };
    range().unwrap_or_else(|| vec![ids.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_every_identifier_of_its_ranges_and_no_other() {
        let sizes: Vec<(&str, usize)> =
            all().iter().map(|(name, framework)| (name.as_str(), framework.ids.len())).collect();
        let expected = [
            ("cis_v8", 153),
            ("csa_ccm_4", 197),
            ("hipaa", 73),
            ("hitrust", 29),
            ("iso27001_2022", 93),
            ("nist_800_53_r5", 321),
            ("nist_csf_2", 106),
            ("pci_dss_4", 280),
            ("soc2", 61),
        ];
        assert_eq!(sizes, expected);
        for (name, id, is_there) in [
            ("soc2", "CC7.5", true),
            ("soc2", "CC7.6", false),
            ("soc2", "CC7", false),
            ("iso27001_2022", "A.8.34", true),
            ("iso27001_2022", "A.8.35", false),
            ("nist_800_53_r5", "SC-7(12)", true),
            ("nist_800_53_r5", "SC-52", false),
            ("nist_800_53_r5", "SC-33", false),
            ("nist_csf_2", "ID.AM-05", true),
            ("nist_csf_2", "ID.AM-6", false),
            ("csa_ccm_4", "A&A-06", true),
            ("csa_ccm_4", "UEM-15", false),
            ("pci_dss_4", "12.10.4.1", true),
            ("pci_dss_4", "12.10", false),
        ] {
            assert_eq!(of(name).unwrap().has(id), is_there, "{name} {id}");
        }
        assert!(of("soc3").is_none());
    }

    #[test]
    fn no_identifier_is_listed_twice_and_no_range_stays_unread() {
        for (name, framework) in all() {
            assert_eq!(framework.ids.len(), framework.known.len(), "{name}");
            assert!(framework.ids.iter().all(|id| !id.contains("..")), "{name}");
            assert!(!framework.title.is_empty());
        }
    }

    #[test]
    fn what_a_list_lacks_is_said() {
        let lacking: Vec<&str> =
            all().iter().filter(|(_, framework)| framework.lacks.is_some()).map(|(name, _)| name.as_str()).collect();
        assert_eq!(lacking, ["hipaa", "hitrust", "nist_800_53_r5"]);
    }
}
