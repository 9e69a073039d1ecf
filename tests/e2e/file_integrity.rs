//! What others get wrong in file integrity, by a real agent on a real tree: floods, changes while it is stopped, and
//! limits of the kernel.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use muster_proto::{
    fact::{ChangeKind, FileIntegrity, WatchState},
    time::{Clock as _, SystemClock},
};
use muster_tests::harness::{
    PATIENCE,
    files::{Watched, differing},
    left_out,
};

/// So long an interval that what a test sees in time comes from hints.
const HOUR: u64 = 3_600;
/// Memory that an agent may take in a flood.
const MEMORY_BYTES: u64 = 64 << 20;

/// Folders `0` to `count - 1`, each with two folders and a file in it: three times as many folders and the root.
fn folders(tree: &Path, count: usize) {
    for at in 0..count {
        for name in ["a", "b"] {
            fs::create_dir_all(tree.join(format!("{at:03}/{name}"))).unwrap();
        }
        fs::write(tree.join(format!("{at:03}/file")), "x").unwrap();
    }
}

fn shows(fact: &FileIntegrity, path: &Path, kind: ChangeKind) -> bool {
    let path = path.display().to_string();
    fact.changes.iter().any(|change| change.path.to_string() == path && change.kind == kind)
}

/// Runs a shell's script in `folder`.
fn shell(folder: &Path, script: &str) -> Child {
    Command::new("sh").args(["-c", script]).current_dir(folder).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_in_evidence_without_waiting_for_a_scan() {
    let mut watched = Watched::prepare(HOUR, 8_192, |tree| folders(tree, 3));
    watched.agent.start();
    watched.reports(PATIENCE, "the tree is watched", |fact| fact.folders_live == 10).await;
    let file = watched.tree().join("001/file");
    // Replaced as an editor or a package manager does it, then the same again: the name stays watched.
    for content in ["y", "zz"] {
        fs::write(watched.tree().join("001/new"), content).unwrap();
        fs::rename(watched.tree().join("001/new"), &file).unwrap();
        let size = content.len() as u64;
        let seen = |fact: &FileIntegrity| {
            let after = fact.changes.iter().filter_map(|change| change.after.as_ref());
            shows(fact, &file, ChangeKind::Content) && after.into_iter().any(|after| after.size_bytes == size)
        };
        let (_, fact) = watched.reports(PATIENCE, "the replaced file is reported", seen).await;
        assert_eq!(fact.changes_total, 1);
    }
    fs::create_dir_all(watched.tree().join("new/in/new")).unwrap();
    fs::write(watched.tree().join("new/in/new/file"), "at once").unwrap();
    let (_, fact) = watched.reports(PATIENCE, "new folders are reported", |fact| fact.changes_total == 5).await;
    assert!(shows(&fact, &watched.tree().join("new/in/new/file"), ChangeKind::Created));
    watched.reports(PATIENCE, "new folders are watched", |fact| fact.folders_live == 13).await;
    watched.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_a_flood_of_changes_is_bounded_and_ends_as_the_disk_is() {
    let mut watched = Watched::prepare(HOUR, 8_192, |tree| folders(tree, 20));
    let (before, start) = (watched.entries(), Instant::now());
    watched.agent.start();
    watched.reports(PATIENCE, "the tree is watched", |fact| fact.folders_live == 61).await;
    let (cpu, flooded) = (watched.agent.process().cpu_seconds(), Instant::now());
    let floods = [
        "i=0; while [ $((i+=1)) -le 3000 ]; do touch 000/file; done",
        "i=0; while [ $((i+=1)) -le 600 ]; do echo $i > 001/$i; mkdir -p 002/$i/x; mv 002/$i 003/; \
         rm -rf 003/$i 001/$((i-50)); done",
    ];
    let floods = floods.map(|script| shell(&watched.tree(), script));
    tokio::task::spawn_blocking(move || {
        floods.into_iter().for_each(|mut flood| assert!(flood.wait().unwrap().success()))
    })
    .await
    .unwrap();
    let (seconds, used) = (flooded.elapsed().as_secs_f64(), watched.agent.process().cpu_seconds() - cpu);
    let (after, fresh) = (watched.entries(), watched.scanned_afresh());
    let expected = differing(&before, &after);
    assert_eq!(fresh.changes_total, expected.len() as u64);
    let same =
        |fact: &FileIntegrity| fact.state_digest == fresh.state_digest && fact.changes_total == fresh.changes_total;
    watched.reports(PATIENCE, "the agent says what is so", same).await;
    let (_, peak) = watched.agent.process().memory_bytes();
    watched.agent.stop(Duration::from_secs(20));
    let (looked, ran) = (looks(&watched), start.elapsed().as_secs_f64());
    eprintln!(
        "{seconds:.1} s of flood: {used:.2} s of processor; {looked} looks in {ran:.1} s; {} KiB at most",
        peak >> 10
    );
    // What is saved for a burst of changes, then one each second, and some of everything should notices have been lost.
    assert!((1.0..100.0 + ran + 10.0).contains(&(looked as f64)), "{looked} looks in {ran:.1} s");
    assert!(peak < MEMORY_BYTES, "{peak} bytes");
}

/// Returns how often a stopped agent had looked at the tree, as its status says.
fn looks(watched: &Watched) -> u64 {
    let status = watched.agent.status().unwrap();
    let probes = status["probes"].as_array().unwrap();
    probes.iter().find(|probe| probe["probe"] == "file_integrity").map_or(0, |probe| probe["looks"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_change_while_the_agent_was_stopped_is_found_as_such() {
    let mut watched = Watched::prepare(HOUR, 8_192, |tree| folders(tree, 2));
    let program = watched.tree().join("000/program");
    fs::write(&program, "original").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    watched.agent.start();
    let (seen, _) = watched.reports(PATIENCE, "the tree is watched", |fact| fact.folders_live == 7).await;
    // As it stops in order, and as it is killed.
    watched.agent.stop(Duration::from_secs(20));
    let before = SystemClock.now();
    fs::write(&program, "replaced").unwrap();
    watched.agent.start();
    let (_, fact) = watched.reports(PATIENCE, "the change is found", |fact| fact.changes_total == 1).await;
    let change = &fact.changes[0];
    assert!(shows(&fact, &program, ChangeKind::Content) && change.while_not_observed, "{change:?}");
    // Another scan may have seen it as it was between that report and the end.
    let (unchanged, detected) = (change.last_unchanged_time, change.detected_time);
    assert!(unchanged <= before && before <= detected && seen <= detected, "{change:?} after {seen} and {before}");
    watched.reports(PATIENCE, "the tree is watched", |fact| fact.folders_live == 7).await;
    watched.agent.kill();
    fs::remove_file(watched.tree().join("001/file")).unwrap();
    watched.agent.start();
    let (_, fact) = watched.reports(PATIENCE, "the deletion is found", |fact| fact.changes_total == 2).await;
    assert!(fact.changes.iter().all(|change| change.while_not_observed), "{:?}", fact.changes);
    // A change from now on is one that was observed.
    watched.reports(PATIENCE, "the tree is watched", |fact| fact.folders_live == 7).await;
    fs::write(watched.tree().join("000/file"), "z").unwrap();
    let (_, fact) = watched.reports(PATIENCE, "the last change is found", |fact| fact.changes_total == 3).await;
    assert_eq!(fact.changes.iter().filter(|change| !change.while_not_observed).count(), 1);
    watched.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_a_watch_limit_is_told_and_scanned_instead() {
    // The agent's own limit: of 31 folders, the root, `000` to `002` with what is in them and `003` are watched.
    let mut watched = Watched::prepare(10, 11, |tree| folders(tree, 10));
    watched.agent.start();
    let (_, fact) = watched.reports(PATIENCE, "the limit is told", |fact| fact.folders_live == 11).await;
    assert_eq!((fact.watch, fact.folders_scan_only, fact.scan_only_total), (WatchState::Partial, 20, 8));
    let listed: Vec<_> = fact.scan_only.iter().map(|top| top.path.to_string()).collect();
    let expected = ["003/b", "004", "005", "006", "007", "008", "009"].map(|name| watched.tree().join(name));
    assert!(expected.iter().all(|path| listed.contains(&path.display().to_string())), "{listed:?}");
    let file = watched.tree().join("009/file");
    fs::write(&file, "found by a scan").unwrap();
    watched.reports(PATIENCE, "a scan finds the change", |fact| shows(fact, &file, ChangeKind::Content)).await;
    // Room is used as soon as there is some.
    fs::remove_dir_all(watched.tree().join("000")).unwrap();
    let (_, fact) = watched.reports(PATIENCE, "the rest is counted", |fact| fact.folders_scan_only == 17).await;
    assert_eq!(fact.folders_live, 11);
    watched.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_a_limit_of_the_kernel_is_told_and_watching_goes_on_when_it_is_raised() {
    let limit = "/proc/sys/user/max_inotify_watches";
    let tried = Command::new("unshare").args(["-Ur", "sh", "-c", &format!("echo 9 > {limit}")]).output();
    match tried {
        Ok(output) if output.status.success() => {}
        Ok(output) => return left_out("a kernel's limit of watches", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => return left_out("a kernel's limit of watches", error),
    }
    let mut watched = Watched::prepare(10, 8_192, |tree| folders(tree, 10));
    let raise = watched.outside();
    // In a user namespace of its own, since the limit is one of those.
    let inside = format!(
        "echo 9 > {limit}; (until [ -e {} ]; do sleep 0.1; done; echo 1000 > {limit}) & exec \"$0\" \"$@\"",
        raise.display()
    );
    watched.agent.prepared(&format!("exec unshare -Ur sh -c '{inside}' \"$0\" \"$@\""));
    watched.agent.start();
    let is_told = |fact: &FileIntegrity| fact.folders_live > 0 && fact.folders_live + fact.folders_scan_only == 31;
    let (_, fact) = watched.reports(PATIENCE, "the limit is told", is_told).await;
    assert!(fact.watch == WatchState::Partial && fact.folders_live < 9, "{fact:?}");
    assert!(fact.scan_only.iter().all(|top| top.unknown.detail.as_str().contains("max_user_watches")), "{fact:?}");
    fs::write(&raise, "").unwrap();
    let is_live = |fact: &FileIntegrity| fact.folders_live == 31 && fact.watch == WatchState::Live;
    watched.reports(PATIENCE, "all folders are watched again", is_live).await;
    watched.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_more_files_than_may_be_watched_are_scanned_and_counted_exactly() {
    let (count, each) = (300, 40);
    let mut watched = Watched::prepare(10, 200, |tree| {
        folders(tree, count);
        for at in 0..count {
            (0..each).for_each(|file| fs::write(tree.join(format!("{at:03}/a/{file}")), "x").unwrap());
        }
    });
    watched.agent.start();
    let (_, fact) = watched.reports(PATIENCE, "the tree is counted", |fact| fact.folders_live == 200).await;
    let folders = 3 * count as u64 + 1;
    assert_eq!((fact.entries, fact.folders_scan_only), (folders + (count + count * each) as u64, folders - 200));
    assert_eq!((fact.unreadable_total, fact.scan_only.len()), (0, 100), "the first of {}", fact.scan_only_total);
    let file = watched.tree().join("299/a/39");
    fs::write(&file, "y").unwrap();
    watched.reports(PATIENCE, "a scan finds the change", |fact| shows(fact, &file, ChangeKind::Content)).await;
    watched.end();
}
