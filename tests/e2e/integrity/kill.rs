//! `kill -9` at random moments of a baseline, a look and a replacement: a baseline is never lost, and no false change is reported.

use std::{
    collections::BTreeMap,
    fs,
    process::Child,
    time::{Duration, Instant},
};

use muster_tests::{
    harness::{Folder, random::Random, setting},
    integrity::{
        Own, Told,
        changes::{self, Change},
        tree,
    },
};

/// Kinds of change that every look reports, so that what is expected is known beforehand.
const KINDS: [Change; 4] = [Change::Content, Change::Mode, Change::Created, Change::Deleted];

struct Killed {
    own: Own,
    /// What a look reports as long as the baseline is the one before.
    expected: BTreeMap<Vec<u8>, String>,
    kills: u64,
    in_time: u64,
}

impl Killed {
    /// Runs `fim` with `what`, and kills it at a random moment of the time that it usually takes.
    fn run(&mut self, what: &str, usual: Duration, random: &mut Random) {
        let mut child = self.own.command(what, &[]).unwrap().spawn().unwrap();
        let moment = random.duration(Duration::ZERO, usual + usual / 8);
        std::thread::sleep(moment);
        if end(&mut child) {
            self.kills += 1;
        } else {
            self.in_time += 1;
        }
    }

    fn look(&self, what: &str) -> Told {
        self.own.run(what, &[]).unwrap().0
    }
}

/// Kills `child`, and returns whether it was in time.
fn end(child: &mut Child) -> bool {
    // One that has ended cannot be killed, and is waited for as well.
    let _ = child.kill();
    child.wait().unwrap().code().is_none()
}

fn usual(own: &Own, what: &str) -> Duration {
    let least = (0..3).map(|_| own.run(what, &[]).unwrap().1.wall_seconds).fold(f64::INFINITY, f64::min);
    Duration::from_secs_f64(least)
}

#[test]
fn a_killed_look_loses_no_baseline_and_reports_no_false_change() {
    let mut random = Random::printed("a killed look");
    let (kills, start) = (setting("MUSTER_TEST_KILLS", 40), Instant::now());
    let folder = Folder::new();
    let root = folder.join("tree");
    fs::create_dir(&root).unwrap();
    tree::generate(&root, 3000).unwrap();
    let mut killed = Killed { own: Own::at(&root, folder.path()), expected: BTreeMap::new(), kills: 0, in_time: 0 };
    let baseline_time = usual(&killed.own, "baseline");
    let look_time = usual(&killed.own, "check");
    let (mut replaced, mut kept, mut firsts) = (0, 0, 0);
    while killed.kills < kills {
        match random.below(4) {
            // The first baseline: whole, or none.
            0 => {
                remove_state(&killed.own);
                killed.run("baseline", baseline_time, &mut random);
                if killed.own.database().exists() {
                    assert_same(&killed.look("check"), &BTreeMap::new());
                } else {
                    let told = killed.look("check");
                    assert_eq!((told.code, told.changes.len()), (2, 0), "{}", told.summary);
                    firsts += 1;
                    killed.own.baseline().unwrap();
                }
                killed.expected.clear();
            }
            // A baseline in the place of another: the one or the other.
            1 => {
                change(&mut killed, &root, &mut random);
                killed.run("baseline", baseline_time, &mut random);
                let told = killed.look("check");
                if told.code == 0 && !killed.expected.is_empty() {
                    killed.expected.clear();
                    replaced += 1;
                } else {
                    kept += 1;
                }
                assert_same(&told, &killed.expected);
            }
            // A look, of stamps or of content, which keeps what it learnt.
            number => {
                if random.below(3) == 0 {
                    change(&mut killed, &root, &mut random);
                }
                let what = if number == 2 { "quick" } else { "check" };
                killed.run(what, look_time, &mut random);
                assert_same(&killed.look("quick"), &killed.expected);
                assert_same(&killed.look("check"), &killed.expected);
            }
        }
    }
    eprintln!(
        "{kills} kills in {:.0?} ({} came too late): {firsts} first baselines and {replaced} others cut off or done, {kept} kept; none lost, \
         no false change",
        start.elapsed(),
        killed.in_time
    );
}

/// Changes the tree, and learns from whole looks what is reported of it from now on.
fn change(killed: &mut Killed, root: &std::path::Path, random: &mut Random) {
    changes::apply(root, &KINDS, 4, random).unwrap();
    let (quick, check) = (killed.look("quick"), killed.look("check"));
    assert_eq!(quick.changes, check.changes, "two looks at one state");
    for path in killed.expected.keys() {
        assert!(check.changes.contains_key(path) || !exists(path), "a change that stays is forgotten");
    }
    killed.expected = check.changes;
}

fn exists(path: &[u8]) -> bool {
    std::path::Path::new(std::str::from_utf8(path).unwrap()).symlink_metadata().is_ok()
}

fn assert_same(told: &Told, expected: &BTreeMap<Vec<u8>, String>) {
    assert_eq!(told.code, i32::from(!expected.is_empty()), "{}", told.summary);
    assert_eq!(&told.changes, expected, "{}", told.summary);
}

/// Removes the baseline and what stands beside it.
fn remove_state(own: &Own) {
    let folder = own.database().parent().unwrap();
    let name = own.database().file_name().unwrap().to_str().unwrap().to_owned();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().is_some_and(|other| other.starts_with(&name)) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}
