//! Differences as a person reads them: what a file was, and what it is.

use muster_proto::fact::{
    ChangeKind, Explanation, ExplanationSource, ExtendedAttribute, FileChange, FileState, FileType, Reading, Text,
    UnreadablePath, render,
};

/// Returns the lines for `change`: its kind and path, and below it each thing that differs, the former value first.
pub fn change(change: &FileChange) -> Vec<String> {
    let mut lines = vec![format!("{:<10} {}", change.kind.as_str(), change.path)];
    let mut below = match (&change.before, &change.after) {
        (Some(before), Some(after)) => differences(before, after),
        (Some(state), None) | (None, Some(state)) => vec![of_state(state)],
        (None, None) => Vec::new(),
    };
    below.extend(change.explanation.as_ref().map(of_explanation));
    lines.extend(below.into_iter().map(|line| format!("           {line}")));
    lines
}

/// Returns the line for an entry that could not be read.
pub fn unreadable(unreadable: &UnreadablePath) -> String {
    format!("{:<10} {}  {}", "unreadable", unreadable.path, render::unknown(&unreadable.unknown))
}

/// Returns the word of the kind that a list is sorted and counted by.
pub fn kinds() -> [ChangeKind; 5] {
    [ChangeKind::Created, ChangeKind::Deleted, ChangeKind::Type, ChangeKind::Content, ChangeKind::Metadata]
}

fn differences(before: &FileState, after: &FileState) -> Vec<String> {
    let one =
        |name: &str, before: String, after: String| (before != after).then(|| format!("{name:<9} {before} -> {after}"));
    let mut lines: Vec<String> = [
        one("type", before.r#type.as_str().to_owned(), after.r#type.as_str().to_owned()),
        one("sha256", of_content(before), of_content(after)),
        one("size", before.size_bytes.to_string(), after.size_bytes.to_string()),
        one("mode", format!("{:04o}", before.mode), format!("{:04o}", after.mode)),
        one("owner", before.uid.to_string(), after.uid.to_string()),
        one("group", before.gid.to_string(), after.gid.to_string()),
        one("modified", of_reading(&before.modified_time), of_reading(&after.modified_time)),
        // What one of both does not record does not differ.
        before
            .changed_time
            .as_ref()
            .zip(after.changed_time.as_ref())
            .and_then(|(before, after)| one("changed", of_reading(before), of_reading(after))),
        recorded(before.inode, after.inode).and_then(|(before, after)| one("inode", before, after)),
        recorded(before.links, after.links).and_then(|(before, after)| one("links", before, after)),
    ]
    .into_iter()
    .flatten()
    .collect();
    lines.extend(attribute_differences(&before.extended_attributes, &after.extended_attributes));
    lines
}

fn recorded(before: u64, after: u64) -> Option<(String, String)> {
    (before != 0 && after != 0).then(|| (before.to_string(), after.to_string()))
}

/// Returns a line for each extended attribute that differs. Both lists are sorted by name.
fn attribute_differences(before: &[ExtendedAttribute], after: &[ExtendedAttribute]) -> Vec<String> {
    let find = |list: &[ExtendedAttribute], name: &Text| list.iter().find(|one| one.name == *name).map(of_attribute);
    let mut names: Vec<&Text> = before.iter().chain(after).map(|one| &one.name).collect();
    names.sort();
    names.dedup();
    let none = || "none".to_owned();
    let line = |name: &&Text| {
        let (before, after) = (find(before, name), find(after, name));
        (before != after).then(|| format!("{name} {} -> {}", before.unwrap_or_else(none), after.unwrap_or_else(none)))
    };
    names.iter().filter_map(line).collect()
}

fn of_attribute(attribute: &ExtendedAttribute) -> String {
    if attribute.meaning.is_empty() { format!("sha256 {}", attribute.sha256) } else { attribute.meaning.to_string() }
}

fn of_state(state: &FileState) -> String {
    let content = if state.sha256.is_empty() { String::new() } else { format!(", sha256 {}", state.sha256) };
    format!(
        "{}, {} bytes, mode {:04o}, owner {}, group {}, modified {}{content}",
        state.r#type.as_str(),
        state.size_bytes,
        state.mode,
        state.uid,
        state.gid,
        of_reading(&state.modified_time)
    )
}

fn of_explanation(explanation: &Explanation) -> String {
    let Explanation { source, package, version, basis } = explanation;
    match source {
        ExplanationSource::Generated => format!("explained: made by a program of the system ({basis})"),
        ExplanationSource::Dpkg | ExplanationSource::Rpm | ExplanationSource::Pacman => {
            format!("explained: {package} {version} of {} ({basis})", source.as_str())
        }
    }
}

fn of_content(state: &FileState) -> String {
    match state.r#type {
        _ if !state.sha256.is_empty() => state.sha256.to_string(),
        FileType::File | FileType::Link => "not read".to_owned(),
        _ => "none".to_owned(),
    }
}

fn of_reading<T: ToString>(reading: &Reading<T>) -> String {
    match reading {
        Reading::Known(value) => value.to_string(),
        Reading::Unknown { unknown } => render::unknown(unknown),
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::{
        fact::{Cause, FileType, PathText, Unknown},
        time::Timestamp,
    };

    use super::*;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000).unwrap()
    }

    fn state() -> FileState {
        FileState {
            r#type: FileType::File,
            sha256: "ab".repeat(32).as_str().into(),
            size_bytes: 7,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified_time: Reading::Known(time(1_700_000_000)),
            changed_time: None,
            inode: 0,
            links: 0,
            md5: Text::default(),
            extended_attributes: Vec::new(),
        }
    }

    fn of(kind: ChangeKind, before: Option<FileState>, after: Option<FileState>) -> FileChange {
        FileChange {
            path: PathText::from_bytes(b"/etc/caf\xe9"),
            kind,
            before,
            after,
            last_unchanged_time: time(1_700_000_000),
            detected_time: time(1_700_000_100),
            while_not_observed: false,
            set: Text::default(),
            explanation: None,
            actors: Vec::new(),
            states_seen: 1,
        }
    }

    #[test]
    fn only_what_differs_is_shown_and_the_former_value_comes_first() {
        let capability = ExtendedAttribute {
            name: "security.capability".into(),
            sha256: "cd".repeat(32).as_str().into(),
            meaning: "cap_net_raw=ep".into(),
        };
        let after = FileState { mode: 0o4755, links: 2, extended_attributes: vec![capability], ..state() };
        let changed = FileChange {
            explanation: Some(Explanation {
                source: ExplanationSource::Dpkg,
                package: "iputils-ping".into(),
                version: "3:20221126-1".into(),
                basis: "md5".into(),
            }),
            ..of(ChangeKind::Metadata, Some(state()), Some(after))
        };
        let expected = [
            r"metadata   /etc/caf\xe9",
            "           mode      0644 -> 4755",
            "           security.capability none -> cap_net_raw=ep",
            "           explained: iputils-ping 3:20221126-1 of dpkg (md5)",
        ];
        assert_eq!(change(&changed), expected);
    }

    #[test]
    fn what_came_or_went_is_shown_with_its_state() {
        let digest = "ab".repeat(32);
        let shown = format!(
            "           file, 7 bytes, mode 0644, owner 0, group 0, modified 2023-11-14T22:13:20Z, sha256 {digest}"
        );
        assert_eq!(change(&of(ChangeKind::Created, None, Some(state())))[1..], *std::slice::from_ref(&shown));
        assert_eq!(change(&of(ChangeKind::Deleted, Some(state()), None))[1..], [shown]);
    }

    #[test]
    fn what_could_not_be_read_is_shown_with_its_cause() {
        let path = PathText::from_bytes(b"/etc/shadow");
        let forbidden = UnreadablePath { path, unknown: Unknown::new(Cause::Forbidden, "read: denied") };
        assert_eq!(unreadable(&forbidden), "unreadable /etc/shadow  unknown (forbidden: read: denied)");
    }
}
