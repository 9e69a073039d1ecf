//! The inbox over a real sled, whole and damaged.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    task::Wake,
};

use muster_proto::id::{Digest, Epoch, ReportSeq};

use super::{frame::Record, *};

const NOW: Timestamp = Timestamp::EPOCH;

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
        let drained = inbox.drain(10_000);
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
    assert!(inbox.drain(10_000).frames.is_empty());
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
    let drained = inbox.drain(usize::MAX);
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
    let drained = inbox.drain(8_000);
    let released = places(&drained);
    inbox.release(drained.through);
    inbox.keep_nonces(AgentId::new([5; 16]), b"kept");
    inbox.stop();

    let inbox = open(&dir);
    inbox.push(&records(100..103, 300), Waker::noop()).unwrap();
    let mut recovered = Vec::new();
    let last = loop {
        let drained = inbox.drain(usize::MAX);
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
    drop(inbox.drain(1));
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
