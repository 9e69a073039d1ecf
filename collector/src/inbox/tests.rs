//! The inbox over a real sled, whole and damaged.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    task::Wake,
};

use muster_proto::id::{Digest, Epoch, ReportSeq};

use super::{frame::Record, *};

const NOW: Timestamp = Timestamp::EPOCH;
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn open(dir: &Path) -> Inbox {
    Inbox::open(dir, &Settings::default(), NOW).unwrap()
}

/// Records of the places in `places`, with bodies of `bytes` bytes.
fn records(places: std::ops::Range<u64>, bytes: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for place in places {
        let record = Record {
            agent: AgentId::new([1; 16]),
            epoch: Epoch::new([2; 16]),
            seq: ReportSeq::new(place).unwrap(),
            stream: 3,
            digest: Digest::new([4; 32]),
            body: &vec![place as u8; bytes],
        };
        record.write(&mut records);
    }
    records
}

fn places(drained: &Drained) -> Vec<u64> {
    drained.frames.iter().flat_map(|frame| frame.records()).map(|record| record.seq.number()).collect()
}

fn drain_all(inbox: &Inbox) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let drained = inbox.drain(10_000, PATIENCE);
        all.extend(places(&drained));
        inbox.release(drained.through);
        if !drained.has_more {
            return all;
        }
    }
}

#[test]
fn records_come_out_in_the_order_in_which_they_went_in() {
    let temp = tempfile::tempdir().unwrap();
    let inbox = open(&temp.path().join("inbox"));
    for start in (1..400).step_by(7) {
        inbox.push(&records(start..start + 7, 300), Waker::noop()).unwrap();
    }
    inbox.push(&records(407..410, 60_000), Waker::noop()).unwrap();
    assert_eq!(
        drain_all(&inbox),
        (1..400).step_by(7).flat_map(|start| start..start + 7).chain(407..410).collect::<Vec<_>>()
    );
    assert!(inbox.drain(10_000, PATIENCE).frames.is_empty());
    inbox.stop();
}

#[test]
fn a_full_inbox_takes_nothing_and_wakes_who_waits_when_there_is_room() {
    let temp = tempfile::tempdir().unwrap();
    let settings = Settings { limit_bytes: 10_000 };
    let inbox = Inbox::open(&temp.path().join("inbox"), &settings, NOW).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut taken = 0;
    while inbox.push(&records(taken + 1..taken + 2, 1_000), &waker).is_ok() {
        taken += 1;
    }
    assert!((9..=11).contains(&taken), "{taken}");
    let drained = inbox.drain(usize::MAX, PATIENCE);
    assert_eq!(places(&drained).len() as u64, taken);
    let before = woken.0.load(Ordering::SeqCst);
    assert_eq!(inbox.push(&records(99..100, 10), &waker), Err(Full));
    inbox.release(drained.through);
    while woken.0.load(Ordering::SeqCst) == before || inbox.bytes() > 0 {
        std::thread::yield_now();
    }
    inbox.push(&records(99..100, 10), &waker).unwrap();
    inbox.stop();
}

#[test]
fn what_was_not_released_is_there_after_a_restart_and_marked_as_such() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("inbox");
    let inbox = open(&dir);
    inbox.push(&records(1..100, 300), Waker::noop()).unwrap();
    let drained = inbox.drain(8_000, PATIENCE);
    let released = places(&drained);
    inbox.release(drained.through);
    inbox.keep_nonces(AgentId::new([5; 16]), b"kept");
    inbox.stop();

    let inbox = open(&dir);
    inbox.push(&records(100..103, 300), Waker::noop()).unwrap();
    let mut recovered = Vec::new();
    let last = loop {
        let drained = inbox.drain(usize::MAX, PATIENCE);
        if !drained.is_recovered {
            break places(&drained);
        }
        recovered.extend(places(&drained));
    };
    // Frames that were released may still be there, for removing lags behind; none in between is missing.
    assert!(recovered.is_sorted() && *recovered.last().unwrap() == 99 && recovered[0] <= released.last().unwrap() + 1);
    assert_eq!(last, [100, 101, 102]);
    assert_eq!(inbox.nonces(AgentId::new([5; 16])).as_deref(), Some(&b"kept"[..]));
    inbox.stop();
}

#[test]
fn a_damaged_store_is_dropped_in_part_or_moved_aside_and_never_stops_the_collector() {
    let temp = tempfile::tempdir().unwrap();
    let whole = temp.path().join("whole");
    let inbox = open(&whole);
    inbox.push(&records(1..200, 300), Waker::noop()).unwrap();
    drop(inbox.drain(1, PATIENCE));
    inbox.stop();

    let sizes = |name: &str| fs::metadata(whole.join(name)).unwrap().len();
    for case in 0..12_u64 {
        let dir = temp.path().join(format!("case-{case}"));
        copy(&whole, &dir);
        let db = dir.join("db");
        let mut bytes = fs::read(&db).unwrap();
        match case {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes.clear(),
            2 => {
                fs::remove_file(&db).unwrap();
                fs::create_dir(&db).unwrap();
            }
            3 => bytes.fill(0xff),
            _ => {
                let used = sizes("db").min(70_000);
                let at = usize::try_from(case * 7_919 * 31 % (used * 8)).unwrap();
                bytes[at / 8] ^= 1 << (at % 8);
            }
        }
        if case != 2 {
            fs::write(&db, bytes).unwrap();
        }
        let inbox = open(&dir);
        let found = drain_all(&inbox);
        assert!(found.is_sorted() && found.iter().all(|place| (1..200).contains(place)), "case {case}: {found:?}");
        inbox.push(&records(1_000..1_010, 300), Waker::noop()).unwrap();
        assert_eq!(drain_all(&inbox), (1_000..1_010).collect::<Vec<_>>(), "case {case}");
        inbox.stop();
        let is_aside = fs::read_dir(temp.path())
            .unwrap()
            .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(&format!("case-{case}.bad-")));
        assert!(case != 2 || is_aside, "what sled cannot open is kept");
    }
}

#[test]
fn a_file_in_the_place_of_the_inbox_is_moved_aside() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("inbox");
    fs::write(&dir, b"not a folder").unwrap();
    let inbox = open(&dir);
    inbox.push(&records(1..2, 10), Waker::noop()).unwrap();
    assert_eq!(drain_all(&inbox), [1]);
    inbox.stop();
}

#[test]
fn a_spoiled_nonce_is_as_if_it_were_lost() {
    let temp = tempfile::tempdir().unwrap();
    let inbox = open(&temp.path().join("inbox"));
    let agent = AgentId::new([5; 16]);
    inbox.keep_nonces(agent, b"kept");
    assert_eq!(inbox.nonces(agent).as_deref(), Some(&b"kept"[..]));
    let mut value = frame::seal(b"kept");
    *value.last_mut().unwrap() ^= 1;
    inbox.shared.store().put_nonces(agent, &value);
    assert_eq!(inbox.nonces(agent), None);
    inbox.stop();
}

#[test]
fn a_number_far_from_all_others_costs_the_store_and_no_time() {
    for far in [1 << 40, u64::MAX - 1] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("inbox");
        let inbox = open(&dir);
        inbox.push(&records(1..3, 300), Waker::noop()).unwrap();
        drop(inbox.drain(1, PATIENCE));
        inbox.shared.store().put(far, &frame::seal(&records(3..4, 300)));
        inbox.stop();
        let inbox = open(&dir);
        assert_eq!(drain_all(&inbox), Vec::<u64>::new());
        inbox.push(&records(3..5, 300), Waker::noop()).unwrap();
        assert_eq!(drain_all(&inbox), [3, 4]);
        inbox.stop();
    }
}

#[test]
fn of_the_stores_that_were_set_aside_the_newest_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("inbox");
    for name in ["inbox.bad-2020-01-01T000000Z", "inbox.bad-2020-01-01T000000Z-1", "inbox-of-somebody-else"] {
        fs::create_dir(temp.path().join(name)).unwrap();
    }
    for number in ["one", "two"] {
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(number), number).unwrap();
        store::set_aside(&dir, NOW).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[0], "inbox-of-somebody-else");
    assert!(temp.path().join(&names[1]).join("two").exists());
}

#[test]
fn what_is_in_a_mount_point_is_set_aside_inside_of_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("inbox");
    let inbox = open(&dir);
    inbox.push(&records(1..3, 300), Waker::noop()).unwrap();
    inbox.stop();
    let aside = store::move_content(&dir, "2020").unwrap();
    assert_eq!(aside, dir.join("bad-2020"));
    assert!(aside.join("db").exists() && !dir.join("db").exists());
    let inbox = open(&dir);
    assert_eq!(drain_all(&inbox), Vec::<u64>::new());
    inbox.push(&records(3..5, 300), Waker::noop()).unwrap();
    assert_eq!(drain_all(&inbox), [3, 4]);
    inbox.stop();
    let again = store::move_content(&dir, "2021").unwrap();
    assert!(again.join("db").exists() && aside.join("db").exists());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
