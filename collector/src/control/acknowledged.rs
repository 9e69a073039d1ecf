//! What conditions read of file integrity beside what a host reported: its changes without those that operators acknowledged.
//!
//! An acknowledgement holds for one path of one host in exactly the state that was found, or that is gone. A change that a fact
//! only counts and does not list stays open, because nobody can have seen it. Pure, and the same for whoever judges and whoever
//! verifies.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::{
    fact::{Fact, FileChange, FileIntegrity, Reading, Subject},
    id::Digest,
};
use serde_json::{Value, json};

use super::Expression;

/// Fields that [`add`] makes.
const FIELDS: [&str; 3] = ["open_changes", "open_changes_total", "unlisted_changes_total"];
/// Lists and numbers that the JSON of a fact leaves out where they are empty.
const EMPTY: [(&str, Kind); 9] = [
    ("sets", Kind::List),
    ("explained", Kind::List),
    ("scan_only", Kind::List),
    ("explained_groups_total", Kind::Number),
    ("folders_live", Kind::Number),
    ("folders_scan_only", Kind::Number),
    ("scan_only_total", Kind::Number),
    ("reread_seconds", Kind::Number),
    ("state_digest", Kind::Text),
];

#[derive(Clone, Copy)]
enum Kind {
    List,
    Number,
    Text,
}

/// What operators acknowledged of one host: paths, the states that were found there, and the log index of the first act for each.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Acknowledged(BTreeMap<String, BTreeMap<Digest, u64>>);

impl Acknowledged {
    /// Takes note of an act at `log_index`. Of two for the same state the first counts.
    pub fn insert(&mut self, path: &str, after_digest: Digest, log_index: u64) {
        let states = self.0.entry(path.to_owned()).or_default();
        let first = states.entry(after_digest).or_insert(log_index);
        *first = log_index.min(*first);
    }

    /// Returns the log index of the act that acknowledges `change`.
    pub fn by(&self, change: &FileChange) -> Option<u64> {
        self.0.get(change.path.as_str())?.get(&change.after_digest()).copied()
    }

    /// Returns the log indexes of the acts that acknowledge a change that `fact` lists.
    pub fn acts(&self, fact: &Fact) -> BTreeSet<u64> {
        self.of(fact).map(|(_, index)| index).collect()
    }

    /// Returns every path, state and log index, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Digest, u64)> {
        self.0.iter().flat_map(|(path, states)| states.iter().map(|(digest, index)| (path.as_str(), *digest, *index)))
    }

    /// Keeps what acknowledges a change that `fact` lists.
    pub fn retain(&mut self, fact: &Fact) {
        let mut kept = Self::default();
        for (change, index) in self.of(fact) {
            kept.insert(change.path.as_str(), change.after_digest(), index);
        }
        *self = kept;
    }

    /// Returns the changes that `fact` lists and acts acknowledge, as a person reads them.
    pub(super) fn named(&self, fact: &Fact) -> Vec<String> {
        self.of(fact).map(|(change, _)| format!("{}: {}", change.kind.as_str(), change.path)).collect()
    }

    fn of<'a>(&'a self, fact: &'a Fact) -> impl Iterator<Item = (&'a FileChange, u64)> {
        let changes = match fact {
            Fact::FileIntegrity(Reading::Known(files)) if !self.0.is_empty() => files.changes.as_slice(),
            _ => &[],
        };
        changes.iter().filter_map(|change| Some((change, self.by(change)?)))
    }
}

/// Returns whether `expression` reads what acknowledgements decide.
pub(super) fn is_read_by(expression: &Expression) -> bool {
    let subject = Subject::FileIntegrity.as_str();
    FIELDS.iter().any(|field| expression.paths().contains(&format!("{subject}.{field}")))
}

/// Adds to `state`, the JSON of `fact`'s state, what it leaves out because it is empty: a condition would not find it told.
pub(super) fn fill(state: &mut Value, fact: &Fact) {
    let (Fact::FileIntegrity(Reading::Known(_)), Value::Object(fields)) = (fact, state) else { return };
    for (field, kind) in EMPTY {
        let empty = match kind {
            Kind::List => json!([]),
            Kind::Number => json!(0),
            Kind::Text => json!(""),
        };
        fields.entry(field).or_insert(empty);
    }
}

/// Adds to `state`, the JSON of `fact`'s state, what conditions read beside it.
pub(super) fn add(state: &mut Value, fact: &Fact, acknowledged: &Acknowledged) {
    fill(state, fact);
    let (Fact::FileIntegrity(Reading::Known(files)), Value::Object(fields)) = (fact, state) else { return };
    let open: Vec<&FileChange> = files.changes.iter().filter(|change| acknowledged.by(change).is_none()).collect();
    let unlisted = files.changes_total.saturating_sub(files.changes.len() as u64);
    fields.insert("open_changes_total".to_owned(), json!(unlisted.saturating_add(open.len() as u64)));
    fields.insert("unlisted_changes_total".to_owned(), json!(unlisted));
    fields.insert("open_changes".to_owned(), open.into_iter().map(|change| open_change(change, files)).collect());
}

fn open_change(change: &FileChange, files: &FileIntegrity) -> Value {
    let set = files.sets.iter().find(|set| set.name == change.set);
    json!({
        "path": change.path, "kind": change.kind, "set": change.set,
        "severity": set.map(|set| set.severity.as_str()).unwrap_or_default(),
        "detected_time": change.detected_time, "found": change.detected_time.to_second().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::sample;

    use super::*;

    fn integrity(changes: &[&str], total: u64) -> Fact {
        let mut files = sample::file_integrity();
        let change = files.changes.remove(0);
        let at = |path: &&str| FileChange {
            path: muster_proto::fact::PathText::from_bytes(path.as_bytes()),
            ..change.clone()
        };
        (files.changes, files.changes_total) = (changes.iter().map(at).collect(), total);
        Fact::FileIntegrity(Reading::Known(files))
    }

    fn changes(fact: &Fact) -> &[FileChange] {
        let Fact::FileIntegrity(Reading::Known(files)) = fact else { panic!("not known") };
        &files.changes
    }

    fn added(fact: &Fact, acknowledged: &Acknowledged) -> Value {
        let mut json = serde_json::to_value(fact).unwrap()["state"].take();
        add(&mut json, fact, acknowledged);
        json
    }

    #[test]
    fn what_is_acknowledged_is_not_open_and_what_is_not_listed_is() {
        let fact = integrity(&["/etc/a", "/etc/b", "/etc/c"], 5);
        let mut acknowledged = Acknowledged::default();
        let digest = changes(&fact)[1].after_digest();
        acknowledged.insert("/etc/b", digest, 9);
        acknowledged.insert("/etc/c", Digest::new([0; 32]), 10);
        acknowledged.insert("/etc/x", digest, 11);
        let json = added(&fact, &acknowledged);
        assert_eq!((&json["open_changes_total"], &json["unlisted_changes_total"]), (&json!(4), &json!(2)));
        let open: Vec<&str> =
            json["open_changes"].as_array().unwrap().iter().map(|c| c["path"].as_str().unwrap()).collect();
        assert_eq!(open, ["/etc/a", "/etc/c"]);
        assert_eq!(acknowledged.acts(&fact), BTreeSet::from([9]));
        assert_eq!(acknowledged.named(&fact), ["content: /etc/b"]);
        acknowledged.retain(&fact);
        let mut kept = Acknowledged::default();
        kept.insert("/etc/b", digest, 9);
        assert_eq!(acknowledged, kept);
    }

    #[test]
    fn a_deletion_that_is_acknowledged_forgives_none_of_another_state() {
        let deletion = |sha256: &str| {
            let mut files = sample::file_integrity();
            let mut change = files.changes.remove(0);
            change.before = change.after.take();
            change.before.iter_mut().for_each(|before| before.sha256 = sha256.repeat(32).as_str().into());
            change.kind = muster_proto::fact::ChangeKind::Deleted;
            change
        };
        let (first, later) = (deletion("aa"), deletion("bb"));
        let mut acknowledged = Acknowledged::default();
        acknowledged.insert(first.path.as_str(), first.after_digest(), 3);
        assert_eq!((acknowledged.by(&first), acknowledged.by(&later)), (Some(3), None));
    }

    #[test]
    fn the_first_of_two_acts_counts_in_whatever_order_they_are_taken() {
        let fact = integrity(&["/etc/a"], 1);
        let digest = changes(&fact)[0].after_digest();
        for order in [[3, 8], [8, 3]] {
            let mut acknowledged = Acknowledged::default();
            order.iter().for_each(|index| acknowledged.insert("/etc/a", digest, *index));
            assert_eq!(acknowledged.by(&changes(&fact)[0]), Some(3));
        }
    }

    #[test]
    fn a_fact_that_is_not_known_gets_nothing() {
        let fact = Fact::FileIntegrity(Reading::unknown(muster_proto::fact::Cause::Garbled, "baseline"));
        let json = added(&fact, &Acknowledged::default());
        assert!(json.get("open_changes_total").is_none(), "{json}");
    }

    #[test]
    fn an_open_change_has_the_severity_of_its_set_and_an_empty_one_where_there_is_none() {
        let mut fact = integrity(&["/etc/a", "/etc/b"], 2);
        if let Fact::FileIntegrity(Reading::Known(files)) = &mut fact {
            files.changes[1].set = muster_proto::fact::Text::default();
        }
        let json = added(&fact, &Acknowledged::default());
        let open = json["open_changes"].as_array().unwrap();
        assert_eq!((open[0]["set"].as_str(), open[0]["severity"].as_str()), (Some("system"), Some("high")));
        assert_eq!((open[1]["set"].as_str(), open[1]["severity"].as_str()), (Some(""), Some("")));
    }
}
