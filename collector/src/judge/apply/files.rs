//! Follows the changes of watched files that hosts tell, and what operators acknowledge of them.
//!
//! A report lists the changes that there are, not what became of those before. What ended, and why, follows from the fact before it,
//! its baseline and what is watched; where a report lists only some of its changes, none of the others is taken for ended.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use muster_proto::{
    fact::{Baseline, Explanation, Fact, FileChange, FileIntegrity, Reading, Subject},
    id::{AgentId, Digest},
    limits,
    time::Timestamp,
    v1,
};

use super::{Fleet, Known, Pass, Place, name};
use crate::views::{AcknowledgementRow, Batch, Error, FileEnd, FileHost, LastingChange, NewChange, Watched};

/// What a fact makes of the changes that lasted until it.
#[derive(Debug, Default, Eq, PartialEq)]
struct Steps {
    /// Changes that begin, as places in the fact's list.
    begin: Vec<usize>,
    /// Changes that last, as numbers, with their places in the list.
    tell: Vec<(u64, usize)>,
    /// Changes that last and are not listed, as numbers.
    unlist: Vec<u64>,
    /// Changes that end, as numbers, and why.
    end: Vec<(u64, FileEnd)>,
}

/// Brings a fact about the files of an agent into the views. `encoded` is the exact fact; one that is unknown changes nothing,
/// because what differs is not known to have ended.
pub(super) fn follow(batch: &Batch<'_>, id: AgentId, encoded: &[u8], place: &Place) -> Result<(), Error> {
    let Ok(Fact::FileIntegrity(Reading::Known(files))) = Fact::decode(encoded) else { return Ok(()) };
    let mut host = batch.file_host(id)?;
    let told = (place.index, place.received);
    let before = host.clone();
    follow_baseline(batch, id, &files, &mut host, told)?;
    let has_grown = follow_groups(batch, id, &files, &mut host, told)?;
    let explains_more = has_grown || files.explained_total > before.explained_total;
    host.explained_total = files.explained_total;
    host.watched = watched(&files);
    let lasting = batch.lasting_changes(id)?;
    let identities: Vec<Digest> = files.changes.iter().map(identity).collect();
    let steps = steps(&before, &lasting, &files, &identities, &host.watched, explains_more);
    for number in steps.unlist {
        batch.unlist_file_change(id, number)?;
    }
    for (number, end) in steps.end {
        let reason = if end == FileEnd::Accepted { files.baseline.reason.as_str() } else { "" };
        batch.end_file_change(id, number, told, end, reason)?;
    }
    let kept: HashMap<u64, &LastingChange> = lasting.iter().map(|change| (change.number, change)).collect();
    for (number, at) in steps.tell {
        let bytes = files.changes[at].encode();
        if kept.get(&number).is_none_or(|kept| !kept.is_listed || kept.told != Digest::of_bytes(&bytes)) {
            batch.tell_file_change(id, number, &bytes)?;
        }
    }
    let severities: BTreeMap<&str, &str> =
        files.sets.iter().map(|set| (set.name.as_str(), set.severity.as_str())).collect();
    for at in steps.begin {
        host.changes.told += 1;
        let change = &files.changes[at];
        let new = NewChange {
            number: host.changes.told,
            identity: identities[at],
            change,
            bytes: &change.encode(),
            severity: severities.get(change.set.as_str()).copied().unwrap_or_default(),
        };
        batch.begin_file_change(id, &new, told)?;
    }
    host.changes.dropped += batch.drop_file_changes(id)?;
    if host == before { Ok(()) } else { batch.put_file_host(id, &host) }
}

fn follow_baseline(
    batch: &Batch<'_>,
    id: AgentId,
    files: &FileIntegrity,
    host: &mut FileHost,
    told: (u64, Timestamp),
) -> Result<(), Error> {
    let baseline = &files.baseline;
    let now = (baseline.id.as_str().to_owned(), baseline.digest.as_str().to_owned());
    if now == host.baseline {
        return Ok(());
    }
    let is_new = now.0 != host.baseline.0;
    let lost_before = is_new && !host.baseline.0.is_empty() && baseline.reason.as_str() == Baseline::FIRST_SCAN;
    host.baselines.told += 1;
    host.baselines.dropped += batch.put_baseline(id, host.baselines.told, baseline, lost_before, told)?;
    host.baseline = now;
    Ok(())
}

/// Follows the groups of explained changes, and returns whether one of them may be new or larger than before: another one may have
/// become smaller meanwhile, so that the total does not tell.
fn follow_groups(
    batch: &Batch<'_>,
    id: AgentId,
    files: &FileIntegrity,
    host: &mut FileHost,
    told: (u64, Timestamp),
) -> Result<bool, Error> {
    let is_whole = files.explained_groups_total <= files.explained.len() as u64;
    let mut has_grown = !is_whole;
    let mut lasting: BTreeMap<Explanation, _> =
        batch.lasting_groups(id)?.into_iter().map(|row| (row.group.explanation.clone(), row)).collect();
    let mut seen: BTreeSet<&Explanation> = BTreeSet::new();
    for group in files.explained.iter().filter(|group| seen.insert(&group.explanation)) {
        match lasting.remove(&group.explanation) {
            Some(row) if row.group == *group => {}
            Some(row) => {
                has_grown |= row.group.changes_total < group.changes_total;
                batch.put_group(id, row.number, group, told)?;
            }
            None => {
                has_grown = true;
                host.groups.told += 1;
                batch.put_group(id, host.groups.told, group, told)?;
            }
        }
    }
    // Of groups that are only counted, nobody knows that they ended.
    if is_whole {
        for row in lasting.into_values() {
            batch.end_group(id, row.number, told)?;
        }
    }
    host.groups.dropped += batch.drop_groups(id)?;
    Ok(has_grown)
}

/// Decides what became of each change. `identities` are those of the fact's changes, `watched` is what it watches, and
/// `explains_more` says whether it may explain changes that the fact before it did not.
fn steps(
    before: &FileHost,
    lasting: &[LastingChange],
    files: &FileIntegrity,
    identities: &[Digest],
    watched: &Watched,
    explains_more: bool,
) -> Steps {
    let mut steps = Steps::default();
    let mut places: HashMap<Digest, usize> = HashMap::new();
    for (at, identity) in identities.iter().enumerate() {
        places.entry(*identity).or_insert(at);
    }
    let paths: HashSet<&str> = files.changes.iter().map(|change| change.path.as_str()).collect();
    for change in lasting {
        if let Some(at) = places.remove(&change.identity) {
            steps.tell.push((change.number, at));
        } else if paths.contains(change.path.as_str()) {
            steps.end.push((change.number, FileEnd::ChangedAgain));
        } else if let Some(end) = end(before, change, files, watched, explains_more) {
            steps.end.push((change.number, end));
        } else if change.is_listed {
            steps.unlist.push(change.number);
        }
    }
    steps.begin = places.into_values().collect();
    steps.begin.sort_unstable();
    steps
}

/// Returns why a change that a fact does not list ended; `None` when it may last.
fn end(
    before: &FileHost,
    change: &LastingChange,
    files: &FileIntegrity,
    watched: &Watched,
    explains_more: bool,
) -> Option<FileEnd> {
    let reason = files.baseline.reason.as_str();
    let is_new_baseline = before.baseline.0 != files.baseline.id.as_str() && reason != Baseline::SETS_CHANGED;
    let set = |watched: &Watched| watched.sets.get(&change.set).cloned();
    let is_set_changed = !change.set.is_empty() && set(&before.watched) != set(watched);
    if is_new_baseline && reason == Baseline::FIRST_SCAN {
        Some(FileEnd::BaselineLost)
    } else if is_new_baseline {
        // A baseline that was taken now holds what was there; what the fact does not list of its changes is newer.
        Some(FileEnd::Accepted)
    } else if !watched.covers(&change.path) || is_set_changed {
        Some(FileEnd::NotWatched)
    } else if files.changes_total > files.changes.len() as u64 {
        None
    } else if explains_more {
        Some(FileEnd::RestoredOrExplained)
    } else {
        Some(FileEnd::Restored)
    }
}

/// Returns what makes a change this one: path, kind, the states before and after, and when it was found.
fn identity(change: &FileChange) -> Digest {
    let before = FileChange { after: change.before.clone(), ..change.clone() };
    let found = change.detected_time.micros().to_be_bytes();
    let path = change.path.as_str().as_bytes();
    let kind = change.kind.as_str().as_bytes();
    let states = [before.after_digest(), change.after_digest()];
    Digest::of("muster/view/file-change/v1", &[kind, b"\0", &found, states[0].as_bytes(), states[1].as_bytes(), path])
}

fn watched(files: &FileIntegrity) -> Watched {
    Watched::new(
        files.paths.iter().map(|path| path.path.as_str()),
        files.sets.iter().map(|set| (set.name.to_string(), set.digest.to_string())).collect(),
    )
}

impl Fleet {
    /// Takes what an operator acknowledges, and judges again what it may have changed.
    pub(super) fn acknowledge(
        &mut self,
        batch: &Batch<'_>,
        index: u64,
        received: Timestamp,
        actor: &str,
        act: &v1::FileChangesAcknowledged,
    ) -> Result<(), Pass> {
        let text = |text: &str| muster_proto::fact::Text::cut(text, limits::DETAIL_BYTES).into();
        let row = AcknowledgementRow {
            log_index: index,
            time: received,
            actor: name(actor),
            reason: text(&act.reason),
            reference: text(&act.reference),
        };
        let mut agents = BTreeSet::new();
        let mut is_whole = true;
        for change in &act.changes {
            let (id, digest) = (AgentId::from_slice(&change.agent_id), Digest::from_slice(&change.after_digest));
            // The rest counts, as it does for whoever selects entries for a snapshot.
            let (Some(id), Some(digest)) = (id, digest) else {
                is_whole = false;
                continue;
            };
            batch.put_acknowledgement(id, &change.path, digest, &row)?;
            agents.insert(id);
        }
        for id in agents {
            self.judge_acknowledged(batch, id, index, received)?;
        }
        if is_whole { Ok(()) } else { Err(Pass::Bad("an acknowledgement of what is no change".to_owned())) }
    }

    fn judge_acknowledged(
        &mut self,
        batch: &Batch<'_>,
        id: AgentId,
        index: u64,
        received: Timestamp,
    ) -> Result<(), Pass> {
        let Some(agent) = self.agents.get(&id) else { return Ok(()) };
        if !agent.host.facts.contains_key(&Subject::FileIntegrity) {
            return Ok(());
        }
        let run = agent.host.agent.run;
        let place = Place {
            index,
            received: run.map_or(received, |run| received.max(run.last_time)),
            skew_millis: run.map(|run| run.skew_millis).unwrap_or_default(),
            observed: received,
        };
        let facts = std::sync::Arc::clone(&agent.host.facts);
        let host = agent.host.agent.clone();
        let known = Known::of(&host, &facts);
        self.touched.insert(id);
        self.judge(batch, id, &place, &[], Some(&known), |control, _, _| control.reads_acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::{PathText, sample};

    use super::*;

    fn change(path: &str, found: i64) -> FileChange {
        let change = sample::file_integrity().changes.remove(0);
        FileChange {
            path: PathText::from_bytes(path.as_bytes()),
            detected_time: Timestamp::from_seconds(found).unwrap(),
            ..change
        }
    }

    fn fact(changes: Vec<FileChange>) -> FileIntegrity {
        FileIntegrity { changes_total: changes.len() as u64, changes, ..sample::file_integrity() }
    }

    fn lasting(changes: &[FileChange]) -> Vec<LastingChange> {
        let row = |(number, change): (u64, &FileChange)| LastingChange {
            number,
            identity: identity(change),
            path: change.path.as_str().to_owned(),
            set: change.set.to_string(),
            is_listed: true,
            told: Digest::of_bytes(&change.encode()),
        };
        (1..).zip(changes).map(row).collect()
    }

    fn host(files: &FileIntegrity) -> FileHost {
        FileHost {
            baseline: (files.baseline.id.to_string(), files.baseline.digest.to_string()),
            explained_total: files.explained_total,
            watched: watched(files),
            ..FileHost::default()
        }
    }

    /// Returns what `after` makes of the changes of `before`.
    fn steps_of(before: &FileIntegrity, after: &FileIntegrity) -> Steps {
        let identities: Vec<Digest> = after.changes.iter().map(identity).collect();
        let explains_more = after.explained_total > before.explained_total;
        steps(&host(before), &lasting(&before.changes), after, &identities, &watched(after), explains_more)
    }

    fn end_of(alter: impl Fn(&mut FileIntegrity)) -> Vec<(u64, FileEnd)> {
        let before = fact(vec![change("/etc/passwd", 10)]);
        let mut after = fact(Vec::new());
        alter(&mut after);
        let steps = steps_of(&before, &after);
        assert!(steps.begin.is_empty() && steps.tell.is_empty() && steps.unlist.is_empty(), "{steps:?}");
        steps.end
    }

    #[test]
    fn a_change_that_is_told_again_lasts_and_another_state_of_its_path_is_another_change() {
        let before = fact(vec![change("/etc/a", 10), change("/etc/b", 10)]);
        let steps = steps_of(&before, &fact(vec![change("/etc/0", 20), change("/etc/a", 10), change("/etc/b", 20)]));
        let expected =
            Steps { begin: vec![0, 2], tell: vec![(1, 1)], unlist: vec![], end: vec![(2, FileEnd::ChangedAgain)] };
        assert_eq!(steps, expected);
    }

    #[test]
    fn what_ended_a_change_follows_from_baseline_watch_and_explanations() {
        assert_eq!(end_of(|_| {}), [(1, FileEnd::Restored)]);
        assert_eq!(end_of(|files| files.explained_total += 1), [(1, FileEnd::RestoredOrExplained)]);
        let new = |files: &mut FileIntegrity, reason: &str| {
            files.baseline.id = "ff".repeat(16).as_str().into();
            files.baseline.reason = reason.into();
        };
        assert_eq!(end_of(|files| new(files, "CHG-7")), [(1, FileEnd::Accepted)]);
        assert_eq!(end_of(|files| new(files, Baseline::FIRST_SCAN)), [(1, FileEnd::BaselineLost)]);
        assert_eq!(end_of(|files| new(files, Baseline::SETS_CHANGED)), [(1, FileEnd::Restored)]);
        let unwatched = |files: &mut FileIntegrity| {
            new(files, Baseline::SETS_CHANGED);
            files.paths.clear();
        };
        assert_eq!(end_of(unwatched), [(1, FileEnd::NotWatched)]);
        let other_set = |files: &mut FileIntegrity| files.sets[0].digest = "ee".repeat(32).as_str().into();
        assert_eq!(end_of(other_set), [(1, FileEnd::NotWatched)]);
        // Another digest of the same id, as after a change of the format, is no new baseline.
        assert_eq!(end_of(|files| files.baseline.digest = "dd".repeat(32).as_str().into()), [(1, FileEnd::Restored)]);
    }

    #[test]
    fn where_a_fact_only_counts_changes_none_that_it_does_not_list_is_taken_for_ended() {
        let before = fact(vec![change("/etc/a", 10), change("/etc/b", 10)]);
        let mut after = fact(vec![change("/etc/a", 10)]);
        after.changes_total = 7;
        let steps = steps_of(&before, &after);
        assert_eq!(steps, Steps { tell: vec![(1, 0)], unlist: vec![2], ..Steps::default() });
    }

    #[test]
    fn a_change_that_is_listed_twice_is_one() {
        let twice = fact(vec![change("/etc/a", 10), change("/etc/a", 10)]);
        assert_eq!(steps_of(&fact(Vec::new()), &twice), Steps { begin: vec![0], ..Steps::default() });
        assert_eq!(steps_of(&twice, &twice).begin, Vec::<usize>::new());
    }
}
