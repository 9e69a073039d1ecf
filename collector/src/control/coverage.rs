//! Which requirements of a framework the evidence of controls supports, and which it does not speak to.
//!
//! A control supports a requirement; no control, and no number of them, meets one. That no control supports a requirement is
//! neither a gap nor a pass: evidence of endpoints does not address it.

use std::collections::BTreeMap;

use super::{Control, framework};

/// A control that supports a requirement, and how surely.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Support {
    /// Id of the control.
    pub control: String,
    /// Its title.
    pub title: String,
    /// `high`, `medium` or `low`: how surely the mapping holds.
    pub confidence: String,
}

/// A requirement, and the controls whose evidence supports it, in order of their ids: none where nothing addresses it.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Requirement {
    /// Its identifier in the framework.
    pub id: String,
    /// The controls.
    pub controls: Vec<Support>,
}

/// What the controls' evidence addresses of one framework.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Coverage {
    /// Name of the framework, such as `soc2`.
    pub framework: String,
    /// Its title with its version.
    pub title: String,
    /// What the list of its requirements does not hold; `None` when it holds each one.
    pub lacks: Option<String>,
    /// Its requirements, in its own order.
    pub requirements: Vec<Requirement>,
}

/// A mapping of a control, as a catalogue or a collector tells it.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// Name of the framework.
    pub framework: String,
    /// Identifier of the requirement.
    pub requirement: String,
    /// The control.
    pub support: Support,
}

impl Coverage {
    /// Returns the requirements that at least one control supports.
    pub fn addressed(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter().filter(|requirement| !requirement.controls.is_empty())
    }

    /// Returns the requirements that no control supports.
    pub fn not_addressed(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter().filter(|requirement| requirement.controls.is_empty())
    }
}

/// Returns every mapping of `controls`.
pub fn mapped<'a>(controls: impl Iterator<Item = &'a Control>) -> Vec<Mapped> {
    let of = |control: &'a Control| {
        control.mappings.iter().map(|mapping| Mapped {
            framework: mapping.framework.clone(),
            requirement: mapping.requirement.clone(),
            support: Support {
                control: control.id.to_string(),
                title: control.title.clone(),
                confidence: mapping.confidence.clone(),
            },
        })
    };
    controls.flat_map(of).collect()
}

/// Returns the names of the frameworks that mappings may name, in order.
pub fn frameworks() -> impl Iterator<Item = &'static str> {
    framework::all().keys().map(String::as_str)
}

/// Returns the coverage of each framework that is known or that `mappings` name, in order of the names.
///
/// What a mapping names and no list has, because a newer collector knows more, comes after what is listed, and the list is said to
/// lack it.
pub fn of(mappings: &[Mapped]) -> Vec<Coverage> {
    let mut by_framework: BTreeMap<&str, BTreeMap<&str, Vec<Support>>> = BTreeMap::new();
    for name in frameworks() {
        by_framework.entry(name).or_default();
    }
    for mapped in mappings {
        let requirements = by_framework.entry(&mapped.framework).or_default();
        requirements.entry(&mapped.requirement).or_default().push(mapped.support.clone());
    }
    by_framework.into_iter().map(|(name, supported)| one(name, supported)).collect()
}

fn one(name: &str, mut supported: BTreeMap<&str, Vec<Support>>) -> Coverage {
    let known = framework::of(name);
    let listed = known.map_or(&[][..], |framework| &framework.ids);
    let mut requirement = |id: &str| {
        let mut controls = supported.remove(id).unwrap_or_default();
        controls.sort_by(|a, b| a.control.cmp(&b.control));
        Requirement { id: id.to_owned(), controls }
    };
    let mut requirements: Vec<Requirement> = listed.iter().map(|id| requirement(id)).collect();
    let others: Vec<String> = supported.keys().map(|id| (*id).to_owned()).collect();
    let mut lacks = match known {
        Some(framework) => framework.lacks.clone(),
        None => Some("whatever no control names: this version does not know the framework".to_owned()),
    };
    if known.is_some() && !others.is_empty() {
        lacks.get_or_insert_with(|| "requirements that only a newer version knows".to_owned());
    }
    for id in others {
        let mut controls = supported.remove(id.as_str()).unwrap_or_default();
        controls.sort_by(|a, b| a.control.cmp(&b.control));
        requirements.push(Requirement { id, controls });
    }
    let title = known.map_or_else(|| name.to_owned(), |framework| framework.title.clone());
    Coverage { framework: name.to_owned(), title, lacks, requirements }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Catalogue;

    fn one_mapped(framework: &str, requirement: &str, control: &str) -> Mapped {
        let support = Support { control: control.to_owned(), title: "t".to_owned(), confidence: "high".to_owned() };
        Mapped { framework: framework.to_owned(), requirement: requirement.to_owned(), support }
    }

    #[test]
    fn each_requirement_is_listed_once_in_the_order_of_the_framework_with_or_without_controls() {
        let all = of(&[
            one_mapped("soc2", "CC6.1", "ENC-02"),
            one_mapped("soc2", "CC6.1", "ENC-01"),
            one_mapped("soc2", "A1.1", "X-1"),
        ]);
        assert_eq!(all.iter().map(|it| it.framework.as_str()).collect::<Vec<_>>(), frameworks().collect::<Vec<_>>());
        let soc2 = all.iter().find(|it| it.framework == "soc2").unwrap();
        assert_eq!((soc2.requirements.len(), &soc2.lacks), (61, &None));
        let addressed: Vec<_> = soc2
            .addressed()
            .map(|it| (it.id.as_str(), it.controls.iter().map(|it| it.control.as_str()).collect::<Vec<_>>()))
            .collect();
        assert_eq!(addressed, [("CC6.1", vec!["ENC-01", "ENC-02"]), ("A1.1", vec!["X-1"])]);
        assert_eq!(soc2.not_addressed().count(), 59);
    }

    #[test]
    fn what_only_a_newer_version_knows_is_kept_and_the_list_is_not_called_whole() {
        let all = of(&[one_mapped("soc2", "CC10.1", "X-1"), one_mapped("soc3", "S1", "X-1")]);
        let find = |name: &str| all.iter().find(|it| it.framework == name).unwrap();
        assert!(find("soc2").lacks.is_some());
        assert_eq!(find("soc2").requirements.len(), 62);
        assert_eq!(find("soc3").requirements.len(), 1);
        assert!(find("soc3").lacks.is_some());
    }

    #[test]
    fn the_built_in_controls_leave_most_criteria_of_soc2_to_others() {
        let all = of(&mapped(Catalogue::built_in().controls()));
        let soc2 = all.iter().find(|it| it.framework == "soc2").unwrap();
        let is_addressed = |id: &str| soc2.addressed().any(|requirement| requirement.id == id);
        assert!(is_addressed("CC6.1") && is_addressed("CC7.1"));
        // Of what people decide, agree and disclose an endpoint knows nothing.
        for id in ["CC1.1", "CC1.5", "CC2.3", "P1.1", "P6.7", "PI1.1"] {
            assert!(!is_addressed(id), "{id}");
        }
    }
}
