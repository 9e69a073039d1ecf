//! Frameworks and the identifiers of their requirements that mappings may name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

/// Identifiers by framework.
static KNOWN: LazyLock<BTreeMap<String, BTreeSet<String>>> = LazyLock::new(|| {
    let lists: BTreeMap<String, Vec<String>> =
        toml::from_str(include_str!("frameworks.toml")).expect("a test parses the lists of frameworks");
    lists.into_iter().map(|(name, ids)| (name, ids.iter().flat_map(|ids| expand(ids)).collect())).collect()
});

/// Returns whether there is a framework `name`.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains_key(name)
}

/// Returns whether the framework `name` has the requirement `id`.
pub(super) fn has(name: &str, id: &str) -> bool {
    KNOWN.get(name).is_some_and(|ids| ids.contains(id))
}

/// Returns the identifiers of `CC1.1..5`; any other text is one identifier.
fn expand(ids: &str) -> Vec<String> {
    let range = || {
        let (first, last) = ids.split_once("..")?;
        let stem = first.trim_end_matches(|c: char| c.is_ascii_digit());
        let numbers = first[stem.len()..].parse::<u32>().ok()?..=last.parse::<u32>().ok()?;
        Some(numbers.map(|number| format!("{stem}{number}")).collect())
    };
    range().unwrap_or_else(|| vec![ids.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_every_identifier_of_its_ranges_and_no_other() {
        assert_eq!(KNOWN.len(), 9);
        let size = |name: &str| KNOWN[name].len();
        assert_eq!((size("soc2"), size("iso27001_2022"), size("cis_v8")), (61, 93, 153));
        for (name, id, is_there) in [
            ("soc2", "CC7.5", true),
            ("soc2", "CC7.6", false),
            ("soc2", "CC7", false),
            ("iso27001_2022", "A.8.34", true),
            ("iso27001_2022", "A.8.35", false),
            ("nist_800_53_r5", "SC-7(12)", true),
            ("nist_800_53_r5", "SC-52", false),
            ("soc3", "CC1.1", false),
        ] {
            assert_eq!(has(name, id), is_there, "{name} {id}");
        }
        assert!(KNOWN.values().flatten().all(|id| !id.contains("..")));
    }
}
