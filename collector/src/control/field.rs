//! What conditions may read: each field of each fact, and the variables beside the facts.

use std::collections::BTreeMap;

use super::{expression::Shape, sample};

/// A field that a condition may read.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Field {
    /// Its path. `[]` stands for the elements of a list: a condition reads them by `all`, `exists`, `filter` and `map`.
    pub path: String,
    /// `yes or no`, `whole number`, `seconds since 1970`, `text`, or a list of those.
    pub kind: &'static str,
    /// Its value on the sample host that fixtures change; `null` where the host has none.
    pub sample: serde_json::Value,
}

/// Returns the fields whose path is `prefix` or begins with it, in order; every field for an empty prefix.
pub fn all(prefix: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    for (name, shape) in sample::schema(&serde_json::Map::new()) {
        if name != "param" {
            collect(&name, &shape, &mut fields);
        }
    }
    let values: BTreeMap<&str, serde_json::Value> =
        sample::healthy().iter().map(|fact| (fact.subject().as_str(), sample::read_state(fact))).collect();
    fields.retain(|field| field.path.starts_with(prefix));
    for field in &mut fields {
        let (subject, rest) = field.path.split_once('.').unwrap_or((&field.path, ""));
        let pointer: String = rest.replace("[]", ".0").split('.').map(|part| format!("/{part}")).collect();
        let value = values.get(subject).and_then(|state| state.pointer(&pointer));
        field.sample = value.filter(|value| !value.is_array() && !value.is_object()).cloned().unwrap_or_default();
    }
    fields
}

fn collect(path: &str, shape: &Shape, fields: &mut Vec<Field>) {
    let mut field = |kind| fields.push(Field { path: path.to_owned(), kind, sample: serde_json::Value::Null });
    match shape {
        Shape::Bool => field("yes or no"),
        Shape::Int if path.ends_with("_time") || path == "now" => field("seconds since 1970"),
        Shape::Int => field("whole number"),
        Shape::Text | Shape::Any => field("text"),
        Shape::List(element) => match element.as_ref() {
            Shape::Object(_) | Shape::List(_) => {
                field("list");
                collect(&format!("{path}[]"), element, fields);
            }
            Shape::Int => field("list of whole numbers"),
            Shape::Bool | Shape::Text | Shape::Any => field("list of texts"),
        },
        Shape::Object(inner) => {
            inner.iter().for_each(|(name, shape)| collect(&format!("{path}.{name}"), shape, fields));
        }
    }
}

/// Returns the names that may stand where `path` stops being known under `schema`, and what they stand beneath: empty for the
/// beginning of a path.
pub(super) fn beside(schema: &BTreeMap<String, Shape>, path: &str) -> (String, Vec<String>) {
    let mut fields = schema;
    let mut above: Vec<&str> = Vec::new();
    for part in path.split('.') {
        let mut shape = fields.get(part.trim_end_matches("[]"));
        if part.ends_with("[]")
            && let Some(Shape::List(element)) = shape
        {
            shape = Some(element);
        }
        let Some(Shape::Object(inner)) = shape else { break };
        above.push(part);
        fields = inner;
    }
    (above.join("."), fields.keys().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_has_its_kind_and_its_value_on_the_sample_host() {
        let find = |path: &str| all("").into_iter().find(|field| field.path == path).unwrap();
        for (path, kind, sample) in [
            ("disk_encryption.volumes", "list", serde_json::Value::Null),
            ("disk_encryption.volumes[].encrypted", "yes or no", true.into()),
            ("patch_level.pending[].first_offered_time", "seconds since 1970", "2026-05-30T00:00:00Z".into()),
            ("patch_level.reboot_packages", "list of texts", serde_json::Value::Null),
            ("system.processors", "whole number", 2.into()),
            ("firewall.inbound_ipv4", "text", "deny".into()),
            ("now", "seconds since 1970", serde_json::Value::Null),
        ] {
            let field = find(path);
            assert_eq!((field.kind, &field.sample), (kind, &sample), "{path}");
        }
        assert!(all("system.").iter().all(|field| field.path.starts_with("system.")));
        assert!(all("no_such").is_empty());
    }

    #[test]
    fn a_wrong_name_is_told_what_may_stand_in_its_place() {
        let schema = sample::schema(&serde_json::Map::new());
        let names = |path| beside(&schema, path);
        assert!(names("system.procesors").1.contains(&"processors".to_owned()));
        let (above, fields) = names("disk_encryption.volumes[].encryptd");
        assert_eq!(above, "disk_encryption.volumes[]");
        assert!(fields.contains(&"encrypted".to_owned()));
        let (above, fields) = names("sytem.hostname");
        assert_eq!(above, "");
        assert!(fields.contains(&"system".to_owned()) && fields.contains(&"param".to_owned()));
    }
}
