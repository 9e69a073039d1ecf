//! Files: changes told, ended and acknowledged, and what is judged of them.

use muster_proto::fact::{
    Baseline, ExplainedChanges, Explanation, ExplanationSource, FileChange, FileIntegrity, PathText,
};

use super::*;
use crate::views::{CHANGES_KEPT, FileChangeRow, FileEnd};

/// Returns a change of `path` to content `content`, found some seconds after the beginning.
pub(crate) fn change(path: &str, content: u8, found: i64) -> FileChange {
    let Some(Fact::FileIntegrity(Reading::Known(mut files))) =
        sample::full_facts().into_iter().find(|fact| fact.subject() == Subject::FileIntegrity)
    else {
        panic!("the sample has files")
    };
    let mut change = files.changes.remove(0);
    change.path = PathText::from_bytes(path.as_bytes());
    change.detected_time = at(found);
    if let Some(after) = &mut change.after {
        after.sha256 = format!("{content:02x}").repeat(32).as_str().into();
    }
    change
}

/// Returns what the healthy host says of its files, with changes.
pub(crate) fn integrity(changes: Vec<FileChange>, alter: impl FnOnce(&mut FileIntegrity)) -> Fact {
    let Some(Fact::FileIntegrity(Reading::Known(mut files))) =
        sample::healthy().into_iter().find(|fact| fact.subject() == Subject::FileIntegrity)
    else {
        panic!("the sample has files")
    };
    (files.changes_total, files.changes) = (changes.len() as u64, changes);
    alter(&mut files);
    Fact::FileIntegrity(Reading::Known(files))
}

/// Returns the act that acknowledges `changes` of an agent.
pub(crate) fn acknowledgement(id: AgentId, changes: &[FileChange]) -> v1::act::Act {
    let change = |change: &FileChange| v1::AcknowledgedChange {
        agent_id: id.as_bytes().to_vec(),
        path: change.path.as_str().to_owned(),
        after_digest: change.after_digest().as_bytes().to_vec(),
    };
    v1::act::Act::FileChangesAcknowledged(v1::FileChangesAcknowledged {
        changes: changes.iter().map(change).collect(),
        reason: "planned".to_owned(),
        reference: "CHG-7".to_owned(),
    })
}

/// Returns changes, a baseline, groups and totals that `bits` choose, of few of each so that they meet again.
pub(super) fn chosen(bits: u32, found: i64) -> Fact {
    let told = (0..4).filter(|at| bits & (1 << at) != 0);
    let mut changes: Vec<FileChange> = told
        .map(|at: u32| change(&format!("/etc/{at}"), u8::from(bits & (16 << at) != 0), found / 3600 * 3600))
        .collect();
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    let group = |name: &str, changes_total| ExplainedChanges {
        explanation: Explanation {
            source: ExplanationSource::Dpkg,
            package: name.into(),
            version: "1".into(),
            basis: "md5".into(),
        },
        changes_total,
        first_detected_time: at(found),
        last_detected_time: at(found),
    };
    integrity(changes, |files| {
        files.changes_total += u64::from(bits >> 8 & 1);
        files.baseline.id = format!("{:02x}", bits >> 9 & 1).repeat(16).as_str().into();
        files.baseline.reason = if bits & (1 << 10) != 0 { "first scan" } else { "CHG-1" }.into();
        files.explained = ["a", "b", "c"]
            .iter()
            .enumerate()
            .filter(|(at, _)| bits & (1 << (11 + at)) != 0)
            .map(|(at, name)| group(name, 1 + at as u64))
            .collect();
        files.explained_groups_total = files.explained.len() as u64 + u64::from(bits >> 14 & 1);
        files.explained_total = files.explained.iter().map(|group| group.changes_total).sum();
        if bits & (1 << 15) != 0 {
            files.paths.retain(|path| path.path.as_str() != "/etc");
        }
    })
}

/// Returns the verdict that a control gave last, and why.
fn last(views: &Views, id: AgentId, control: &str) -> (Verdict, String) {
    let (_, hosts) = views.hosts().unwrap();
    let host = hosts.iter().find(|host| host.agent.agent == id).unwrap();
    let row = &host.verdicts[control];
    (row.verdict, row.reason.clone())
}

fn rows(views: &Views, id: AgentId) -> Vec<FileChangeRow> {
    views.file_changes(None, Some(id), None, u64::MAX).unwrap()
}

fn healthy_with(files: Fact) -> Vec<Fact> {
    let mut facts = sample::healthy();
    facts.retain(|fact| fact.subject() != Subject::FileIntegrity);
    facts.push(files);
    facts.sort_by_key(Fact::subject);
    facts
}

#[test]
fn a_change_fails_until_exactly_its_state_is_acknowledged_and_another_one_is_open_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let (first, second) = (change("/etc/passwd", 1, 5), change("/etc/passwd", 2, 25));
    let entries = vec![
        sim.enrollment(at(0)),
        sim.facts(at(10), &healthy_with(integrity(vec![first.clone()], |_| {})), true),
        act(at(20), acknowledgement(sim.id(), &[first])),
        sim.facts(at(30), &[integrity(vec![second.clone()], |_| {})], false),
        act(at(40), acknowledgement(sim.id(), &[second])),
    ];
    let fails = "content: /etc/passwd [system, high], found ";
    let acknowledged = "with changes that operators acknowledged: content: /etc/passwd";
    for (size, expected) in [(2, fails), (3, acknowledged), (4, fails), (5, acknowledged)] {
        let log = log_of(entries[..size].to_vec());
        let views = views_of(dir.path(), &format!("v{size}"), &log);
        let (verdict, reason) = last(&views, sim.id(), "FIM-02");
        assert!(reason.starts_with(expected), "{size}: {reason}");
        assert_eq!(verdict, if expected == fails { Verdict::Fail } else { Verdict::Pass }, "{size}");
    }
    let log = log_of(entries);
    let views = views_of(dir.path(), "v", &log);
    let history = views.verdict_history(sim.id(), "FIM-02").unwrap();
    let told: Vec<_> = history.iter().map(|(index, row)| (*index, row.verdict, row.since)).collect();
    assert_eq!(
        told[1..],
        [
            (1, Verdict::Fail, Some(at(10))),
            (2, Verdict::Pass, Some(at(20))),
            (3, Verdict::Fail, Some(at(30))),
            (4, Verdict::Pass, Some(at(40))),
        ]
    );
    // By an instant, whatever came later.
    let control = CATALOGUE.control("FIM-02").unwrap();
    for (instant, expected) in [(15, Verdict::Fail), (25, Verdict::Pass), (35, Verdict::Fail), (45, Verdict::Pass)] {
        let past = views.as_of(&*log, 5, at(instant)).unwrap();
        assert_eq!(judge(control, &past[0].evidence(), at(instant)).verdict, expected, "{instant}");
    }
    let rows = rows(&views, sim.id());
    assert_eq!(rows[0].ended.as_ref().map(|(index, _, end, _)| (*index, *end)), Some((3, FileEnd::ChangedAgain)));
    let word = rows[0].acknowledged.as_ref().map(|it| (it.log_index, it.reason.as_str(), it.reference.as_str()));
    assert_eq!(word, Some((2, "planned", "CHG-7")));
    assert!(rows[1].ended.is_none() && rows[1].is_listed && rows[1].acknowledged.is_some());
}

#[test]
fn among_the_files_of_two_hundred_packages_one_change_stands_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let group = |at: usize| ExplainedChanges {
        explanation: Explanation {
            source: ExplanationSource::Dpkg,
            package: format!("package-{at:03}").as_str().into(),
            version: "2.0-1".into(),
            basis: "md5".into(),
        },
        changes_total: 20,
        first_detected_time: self::at(100),
        last_detected_time: self::at(110),
    };
    let upgraded = integrity(vec![change("/usr/bin/su", 1, 105)], |files| {
        files.explained = (0..200).map(group).collect();
        (files.explained_groups_total, files.explained_total) = (200, 4000);
    });
    let log = log_of(vec![
        sim.enrollment(at(0)),
        sim.facts(at(10), &sample::healthy(), true),
        sim.facts(at(120), &[upgraded], false),
    ]);
    let views = views_of(dir.path(), "v", &log);
    let rows = rows(&views, sim.id());
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].path.as_str(), rows[0].severity.as_str()), ("/usr/bin/su", "high"));
    let groups = views.explained_groups(None, Some(sim.id()), u64::MAX).unwrap();
    let lasting: Vec<_> = groups.iter().filter(|row| row.ended.is_none()).collect();
    assert_eq!(lasting.len(), 200);
    assert_eq!(lasting.iter().map(|row| row.group.changes_total).sum::<u64>(), 4000);
    let (verdict, reason) = last(&views, sim.id(), "FIM-02");
    assert_eq!(verdict, Verdict::Fail);
    assert_eq!(reason, "content: /usr/bin/su [system, high], found 2026-06-01T00:01:45Z");
}

#[test]
fn a_host_that_tells_a_thousand_new_changes_each_time_keeps_a_bounded_part_and_what_was_dropped_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let mut entries = vec![sim.enrollment(at(0))];
    let reports = 6;
    for report in 0..reports {
        let now = 10 + report;
        let changes = (0..1000).map(|path| change(&format!("/etc/{report}-{path:04}"), 1, now)).collect();
        // Only counted, so that nothing is known to have ended.
        let files = integrity(changes, |files| files.changes_total = 9000);
        let parts = sim.in_parts(at(now), &files);
        entries.extend(parts);
    }
    let log = log_of(entries);
    let views = views_of(dir.path(), "v", &log);
    let rows = rows(&views, sim.id());
    assert_eq!(rows.len() as u64, CHANGES_KEPT);
    let host = views.file_host(sim.id()).unwrap().unwrap();
    assert_eq!((host.changes.told, host.changes.dropped), (6000, 6000 - CHANGES_KEPT));
    // The newest are there, and those alone are listed.
    assert_eq!(rows.iter().filter(|row| row.is_listed).count(), 1000);
    assert!(rows.last().unwrap().path.starts_with("/etc/5-"));
    assert_eq!(rows[0].number, 1001);
}

#[test]
fn a_baseline_that_was_taken_again_without_a_reason_accepts_nothing_and_stays_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let baseline = |digit: &str, reason: &str| {
        let (id, reason) = (digit.repeat(32), reason.to_owned());
        move |files: &mut FileIntegrity| {
            files.baseline =
                Baseline { id: id.as_str().into(), reason: reason.as_str().into(), ..files.baseline.clone() };
        }
    };
    let log = log_of(vec![
        sim.enrollment(at(0)),
        sim.facts(at(10), &[integrity(vec![change("/etc/a", 1, 5)], baseline("1", "first scan"))], true),
        sim.facts(at(20), &[integrity(vec![], baseline("2", "CHG-7"))], false),
        sim.facts(at(30), &[integrity(vec![change("/etc/b", 1, 25)], baseline("2", "CHG-7"))], false),
        sim.facts(at(40), &[integrity(vec![], baseline("3", "first scan"))], false),
    ]);
    let views = views_of(dir.path(), "v", &log);
    let ends: Vec<_> = rows(&views, sim.id()).into_iter().map(|row| row.ended.unwrap()).collect();
    assert_eq!((ends[0].2, ends[0].3.as_str()), (FileEnd::Accepted, "CHG-7"));
    assert_eq!((ends[1].2, ends[1].3.as_str()), (FileEnd::BaselineLost, ""));
    let baselines = views.file_baselines(sim.id()).unwrap();
    let told: Vec<_> =
        baselines.iter().map(|row| (row.number, row.baseline.reason.as_str(), row.lost_before)).collect();
    assert_eq!(told, [(1, "first scan", false), (2, "CHG-7", false), (3, "first scan", true)]);
}

#[test]
fn a_change_that_a_package_may_explain_by_now_is_not_told_as_restored() {
    let dir = tempfile::tempdir().unwrap();
    let group = |name: &str, changes_total| ExplainedChanges {
        explanation: Explanation {
            source: ExplanationSource::Dpkg,
            package: name.into(),
            version: "1".into(),
            basis: "md5".into(),
        },
        changes_total,
        first_detected_time: at(5),
        last_detected_time: at(5),
    };
    // What is explained before and after, and how many groups there are after.
    let (may_be, restored) = (FileEnd::RestoredOrExplained, FileEnd::Restored);
    let cases = [
        (vec![("a", 2)], vec![("a", 2)], 1, restored),
        (vec![("a", 2)], vec![("a", 1)], 1, restored),
        (vec![("a", 2)], vec![("a", 3)], 1, may_be),
        (vec![("a", 2)], vec![("a", 1), ("b", 1)], 2, may_be),
        (vec![("a", 2), ("b", 3)], vec![("a", 4), ("b", 1)], 2, may_be),
        (vec![("a", 2)], vec![("a", 2)], 2, may_be),
    ];
    for (name, (before, after, groups_total, expected)) in cases.into_iter().enumerate() {
        let mut sim = Sim::new();
        let files = |changes: Vec<FileChange>, groups: &[(&str, u64)], groups_total: u64| {
            integrity(changes, |files| {
                files.explained = groups.iter().map(|(name, count)| group(name, *count)).collect();
                files.explained_groups_total = groups_total;
                files.explained_total = 5;
            })
        };
        let log = log_of(vec![
            sim.enrollment(at(0)),
            sim.facts(at(10), &[files(vec![change("/etc/a", 1, 5)], &before, before.len() as u64)], true),
            sim.facts(at(20), &[files(vec![], &after, groups_total)], false),
        ]);
        let views = views_of(dir.path(), &format!("v{name}"), &log);
        let ended = rows(&views, sim.id()).remove(0).ended;
        assert_eq!(ended.map(|(_, _, end, _)| end), Some(expected), "{before:?} {after:?}");
    }
}

#[test]
fn files_that_cannot_be_told_end_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let unknown = Fact::FileIntegrity(Reading::unknown(Cause::TimedOut, "a scan"));
    let log = log_of(vec![
        sim.enrollment(at(0)),
        sim.facts(at(10), &[integrity(vec![change("/etc/a", 1, 5)], |_| {})], true),
        sim.facts(at(20), &[unknown], false),
        sim.facts(at(30), &[sample::healthy().remove(0)], true),
    ]);
    let views = views_of(dir.path(), "v", &log);
    let rows = rows(&views, sim.id());
    assert!(rows.len() == 1 && rows[0].ended.is_none(), "{rows:?}");
}

#[test]
fn an_acknowledgement_of_what_is_no_change_is_recorded_as_bad_and_the_rest_of_it_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new();
    let told = change("/etc/a", 1, 5);
    let v1::act::Act::FileChangesAcknowledged(mut word) = acknowledgement(sim.id(), &[told.clone(), told.clone()])
    else {
        panic!("another act")
    };
    word.changes[0].after_digest = vec![1; 7];
    let log = log_of(vec![
        sim.enrollment(at(0)),
        sim.facts(at(10), &healthy_with(integrity(vec![told], |_| {})), true),
        act(at(20), v1::act::Act::FileChangesAcknowledged(word)),
    ]);
    let views = views_of(dir.path(), "v", &log);
    assert_eq!(last(&views, sim.id(), "FIM-02").0, Verdict::Pass);
    assert_eq!(views.bad_entries().unwrap().len(), 1);
}
