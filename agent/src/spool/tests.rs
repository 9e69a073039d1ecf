//! Tests of the spool under faults.

use std::{
    cell::Cell,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex},
};

use muster_proto::id::Digest;
use prost::Message as _;

use super::*;

const BOUND: u64 = 1 << 20;

fn epoch() -> Epoch {
    Epoch::new([9; 16])
}

fn seq(number: u64) -> ReportSeq {
    ReportSeq::new(number).unwrap()
}

/// Returns a sealed report that looks like none other, of about `size` bytes.
fn sealed(number: u64, size: usize) -> (Vec<u8>, Place) {
    let mut report = vec![0xaa; size];
    report[..8].copy_from_slice(&number.to_be_bytes());
    let sealed = muster_proto::v1::SealedReport { report, signature: vec![1; 64] };
    let place = Place { seq: seq(number), digest: seal::sealed_digest(&sealed) };
    (sealed.encode_to_vec(), place)
}

fn open(folder: &Path) -> (Spool, Found) {
    Spool::open(folder, BOUND, Box::new(Disk), epoch).unwrap()
}

fn take(spool: &mut Spool, numbers: std::ops::RangeInclusive<u64>, size: usize) -> Result<(), Error> {
    let reports: Vec<_> = numbers.map(|number| sealed(number, size)).collect();
    let last = reports.last().unwrap().1;
    spool.take(&reports.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>(), last, |_| ())
}

fn all(spool: &mut Spool) -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    let mut after = None;
    loop {
        let some = spool.read_after(after, 100).unwrap();
        let Some((last, _)) = some.last() else { return out };
        after = Some(*last);
        out.extend(some.into_iter().map(|(seq, bytes)| (seq.number(), bytes)));
    }
}

fn numbers(spool: &mut Spool) -> Vec<u64> {
    all(spool).into_iter().map(|(number, _)| number).collect()
}

/// A disk that stops at one of its steps.
struct Faulty {
    steps_left: Arc<Mutex<usize>>,
    /// Whether it stops for good, as a killed process does, or says once that the disk is full.
    is_killed: bool,
}

impl Faulty {
    fn step(&self) -> io::Result<()> {
        let mut left = self.steps_left.lock().unwrap();
        match *left {
            0 if self.is_killed => Err(io::Error::other("killed")),
            0 => {
                *left = usize::MAX;
                Err(io::ErrorKind::StorageFull.into())
            }
            usize::MAX => Ok(()),
            _ => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Files for Faulty {
    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let result = self.step();
        let len = if result.is_ok() { bytes.len() } else { bytes.len() / 2 };
        Disk.write_at(path, offset, &bytes[..len])?;
        result
    }
    fn sync(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.sync(path)
    }
    fn truncate(&mut self, path: &Path, len: u64) -> io::Result<()> {
        self.step()?;
        Disk.truncate(path, len)
    }
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        Disk.rename(from, to)
    }
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.remove(path)
    }
    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.sync_folder(path)
    }
}

/// A disk with room for so many bytes more.
pub(crate) struct Nearly(pub Arc<Mutex<u64>>);

impl Nearly {
    fn free(&self, path: &Path, keep: u64) {
        let len = std::fs::metadata(path).map_or(0, |file| file.len());
        *self.0.lock().unwrap() += len.saturating_sub(keep);
    }
}

impl Files for Nearly {
    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let len = std::fs::metadata(path).map_or(0, |file| file.len());
        let mut left = self.0.lock().unwrap();
        let room = (len + *left).saturating_sub(offset).min(bytes.len() as u64);
        *left -= (offset + room).saturating_sub(len);
        Disk.write_at(path, offset, &bytes[..room as usize])?;
        if room < bytes.len() as u64 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn sync(&mut self, path: &Path) -> io::Result<()> {
        Disk.sync(path)
    }
    fn truncate(&mut self, path: &Path, len: u64) -> io::Result<()> {
        self.free(path, len);
        Disk.truncate(path, len)
    }
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.free(to, 0);
        Disk.rename(from, to)
    }
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.free(path, 0);
        Disk.remove(path)
    }
    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        Disk.sync_folder(path)
    }
}

/// Takes, acknowledges and rolls on `files`; returns the last place taken and the last acknowledged.
fn work(folder: &Path, files: Faulty, goes_on_when_full: bool) -> (u64, u64) {
    // Segments of 128 KiB hold four of these batches.
    const REPORT: usize = 10_000;
    let (mut taken, mut acknowledged) = (0, 0);
    let Ok((mut spool, _)) = Spool::open(folder, BOUND, Box::new(files), epoch) else { return (0, 0) };
    for batch in 0..9_u64 {
        loop {
            match take(&mut spool, batch * 3 + 1..=batch * 3 + 3, REPORT) {
                Ok(()) => break,
                Err(_) if goes_on_when_full => {}
                Err(_) => return (taken, acknowledged),
            }
        }
        taken = batch * 3 + 3;
        if batch % 3 == 2 {
            let (_, place) = sealed(taken - 4, REPORT);
            match spool.acknowledge(place, |_| ()) {
                Ok(()) => acknowledged = taken - 4,
                Err(_) if goes_on_when_full => {}
                Err(_) => return (taken, acknowledged),
            }
        }
    }
    (taken, acknowledged)
}

#[test]
fn what_was_taken_survives_a_kill_at_any_step() {
    let done = Cell::new(false);
    let mut steps = 0;
    while !done.get() {
        let folder = tempfile::tempdir().unwrap();
        let left = Arc::new(Mutex::new(steps));
        let (taken, acknowledged) = work(folder.path(), Faulty { steps_left: left.clone(), is_killed: true }, false);
        done.set(*left.lock().unwrap() > 0);

        let (mut spool, found) = open(folder.path());
        assert!(matches!(found, Found::Whole | Found::New), "step {steps}: {found:?}");
        let there = all(&mut spool);
        for number in acknowledged + 1..=taken {
            let expected = sealed(number, 10_000).0;
            assert!(there.contains(&(number, expected)), "step {steps}: {number} of {taken} is gone");
        }
        let next = spool.state().next_seq().number();
        assert!(next > taken, "step {steps}: {next} was used");
        assert!(there.iter().all(|(number, _)| *number < next), "step {steps}");
        // And the chain goes on.
        take(&mut spool, next..=next, 100).unwrap();
        assert_eq!(numbers(&mut spool).last(), Some(&next));
        steps += 1;
    }
    assert!(steps > 60, "{steps}");
}

#[test]
fn a_disk_that_is_full_at_any_step_takes_nothing_then_and_goes_on_later() {
    for steps in 8..150 {
        let folder = tempfile::tempdir().unwrap();
        let left = Arc::new(Mutex::new(steps));
        let (taken, acknowledged) = work(folder.path(), Faulty { steps_left: left, is_killed: false }, true);
        assert_eq!(taken, 27);
        let (mut spool, found) = open(folder.path());
        assert_eq!(found, Found::Whole, "step {steps}");
        let there = numbers(&mut spool);
        assert!(there.ends_with(&(acknowledged + 1..=27).collect::<Vec<_>>()), "step {steps}: {there:?}");
    }
}

#[test]
fn damage_names_exactly_what_is_missing_and_never_gives_a_place_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, found) = open(folder.path());
    assert_eq!(found, Found::New);
    take(&mut spool, 1..=5, 100).unwrap();
    let path = spool.segments[0].path.clone();
    let whole = std::fs::read(&path).unwrap();
    let record = (whole.len() - frame::HEADER_BYTES) / 5;
    for position in frame::HEADER_BYTES..whole.len() {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(folder.path().join("state.json"), copy.path().join("state.json")).unwrap();
        let damaged = copy.path().join(path.file_name().unwrap());
        std::fs::write(&damaged, &whole).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&damaged).unwrap();
        file.write_all_at(&[whole[position] ^ 0x10], position as u64).unwrap();

        let (mut spool, found) = open(copy.path());
        let first = ((position - frame::HEADER_BYTES) / record) as u64 + 1;
        let digest_before = (first > 1).then(|| sealed(first - 1, 100).1.digest);
        let lost = Lost { first: seq(first), last: seq(5), digest_before };
        assert_eq!(found, Found::Damaged { lost, since: None }, "{position}");
        assert_eq!(spool.state().next_seq(), seq(6));
        assert_eq!(numbers(&mut spool), (1..first).collect::<Vec<_>>());
        // What is cut off and was taken once is kept for people.
        let aside = std::fs::read(copy.path().join("set-aside").join(path.file_name().unwrap())).unwrap();
        assert_eq!((aside.len(), aside[position]), (whole.len(), whole[position] ^ 0x10));
        assert_eq!(open(copy.path()).1, Found::Damaged { lost, since: None });
    }

    // Damage among what is durable loses nothing that is not.
    spool.acknowledge(sealed(3, 100).1, |_| ()).unwrap();
    for position in frame::HEADER_BYTES..whole.len() {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(folder.path().join("state.json"), copy.path().join("state.json")).unwrap();
        let mut bytes = whole.clone();
        bytes[position] ^= 0x10;
        std::fs::write(copy.path().join(path.file_name().unwrap()), &bytes).unwrap();
        let damaged = ((position - frame::HEADER_BYTES) / record) as u64 + 1;
        let (mut spool, found) = open(copy.path());
        let (expected, kept) = match damaged {
            1..=3 => (Found::Whole, (1..=5).filter(|number| *number != damaged).collect::<Vec<_>>()),
            _ => {
                let digest_before = Some(sealed(damaged - 1, 100).1.digest);
                let lost = Lost { first: seq(damaged), last: seq(5), digest_before };
                (Found::Damaged { lost, since: None }, (1..damaged).collect())
            }
        };
        assert_eq!((found, numbers(&mut spool)), (expected, kept), "{position}");
        assert!(copy.path().join("set-aside").join(path.file_name().unwrap()).exists());
        take(&mut spool, 6..=6, 100).unwrap();
        assert_eq!(numbers(&mut spool).last(), Some(&6));
    }
}

#[test]
fn a_segment_that_vanished_is_named_as_lost_unless_all_of_it_was_durable() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    take(&mut spool, 1..=3, 100).unwrap();
    spool.acknowledge(sealed(2, 100).1, |_| ()).unwrap();
    std::fs::remove_file(&spool.segments[0].path).unwrap();
    let lost = Lost { first: seq(3), last: seq(3), digest_before: Some(sealed(2, 100).1.digest) };
    assert_eq!(open(folder.path()).1, Found::Damaged { lost, since: None });

    spool.acknowledge(sealed(3, 100).1, |_| ()).unwrap();
    let (spool, found) = open(folder.path());
    assert_eq!((found, spool.state().next_seq()), (Found::Whole, seq(4)));
}

#[test]
fn a_gap_that_declares_the_lost_places_lets_the_chain_go_on_from_there() {
    use muster_proto::{fact::Text, report};

    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    take(&mut spool, 1..=5, 100).unwrap();
    let segment = spool.segments[0].path.clone();
    let len = std::fs::metadata(&segment).unwrap().len();
    Disk.truncate(&segment, len - 250).unwrap();
    let (mut spool, found) = open(folder.path());
    let Found::Damaged { lost, .. } = found else { panic!("{found:?}") };
    assert_eq!((lost.first, lost.last), (seq(4), seq(5)));

    let now = muster_proto::time::Timestamp::EPOCH;
    let gap = report::Gap {
        cause: report::GapCause::SpoolDamaged,
        start: now,
        end: now,
        lost: Some(lost),
        counts: vec![],
        detail: Text::default(),
    };
    let report = report::Report {
        agent: muster_proto::id::AgentId::new([1; 16]),
        epoch: epoch(),
        seq: seq(6),
        previous: spool.state().sealed.map(|place| place.digest),
        observed: now,
        boot_id: [0; 16],
        since_boot_millis: 0,
        agent_version: "1".into(),
        profile_revision: 0,
        last_checkpoint: None,
        body: report::Body::Gap(gap),
    };
    let sealed_gap = muster_proto::v1::SealedReport { report: report.encode(), signature: vec![1; 64] };
    let place = Place { seq: seq(6), digest: seal::sealed_digest(&sealed_gap) };
    spool.take(&[sealed_gap.encode_to_vec()], place, |_| ()).unwrap();
    take(&mut spool, 7..=7, 100).unwrap();
    assert_eq!(numbers(&mut spool), [1, 2, 3, 6, 7]);
    let (mut spool, found) = open(folder.path());
    assert_eq!((found, numbers(&mut spool)), (Found::Whole, vec![1, 2, 3, 6, 7]));
}

#[test]
fn a_damaged_or_missing_state_begins_a_new_chain_that_names_the_old_one() {
    for damage in ["flip", "remove", "empty"] {
        let folder = tempfile::tempdir().unwrap();
        let (mut spool, _) = open(folder.path());
        take(&mut spool, 1..=3, 100).unwrap();
        let path = folder.path().join("state.json");
        match damage {
            "flip" => {
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
            "remove" => std::fs::remove_file(&path).unwrap(),
            _ => std::fs::write(&path, "").unwrap(),
        }
        let other = Epoch::new([10; 16]);
        let (mut spool, found) = Spool::open(folder.path(), BOUND, Box::new(Disk), || other).unwrap();
        let Found::Unusable { previous, .. } = found else { panic!("{damage}: {found:?}") };
        assert_eq!(previous, Some((epoch(), 3)));
        assert_eq!((spool.state().epoch, spool.state().next_seq()), (other, ReportSeq::FIRST));
        assert_eq!(numbers(&mut spool), Vec::<u64>::new());
        assert_eq!(std::fs::read_dir(folder.path().join("set-aside")).unwrap().count(), 1);
        take(&mut spool, 1..=2, 100).unwrap();
        drop(spool);
        let (mut spool, found) = open(folder.path());
        assert_eq!((found, numbers(&mut spool)), (Found::Whole, vec![1, 2]));
    }
}

#[test]
fn a_full_spool_refuses_whole_batches_and_takes_again_after_an_acknowledgement() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    let mut next = 1;
    loop {
        match take(&mut spool, next..=next + 1, 30_000) {
            Ok(()) => next += 2,
            Err(Error::Full) => break,
            Err(error) => panic!("{error}"),
        }
        assert!(spool.backlog().bytes <= BOUND);
    }
    let used: u64 =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(used <= BOUND + 4096, "{used}");
    assert_eq!(numbers(&mut spool), (1..next).collect::<Vec<_>>());
    assert_eq!(spool.backlog().reports, next - 1);

    spool.acknowledge(sealed(10, 30_000).1, |_| ()).unwrap();
    take(&mut spool, next..=next + 1, 30_000).unwrap();
    assert_eq!(numbers(&mut spool).last(), Some(&(next + 1)));
}

#[test]
fn a_full_disk_is_named_and_an_acknowledgement_frees_it() {
    let folder = tempfile::tempdir().unwrap();
    let left = Arc::new(Mutex::new(400_000));
    let (mut spool, _) = Spool::open(folder.path(), BOUND, Box::new(Nearly(left.clone())), epoch).unwrap();
    let mut next = 1;
    let error = loop {
        match take(&mut spool, next..=next, 30_000) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::DiskFull { .. }) && error.to_string().contains("free some"), "{error}");
    let names = || std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names().any(|name| name.to_string_lossy().ends_with(".new")));
    assert_eq!(numbers(&mut spool), (1..next).collect::<Vec<_>>());

    // Others take the rest, so that the state has the room of the reserve alone.
    *left.lock().unwrap() = 0;
    spool.acknowledge(sealed(next - 2, 30_000).1, |_| ()).unwrap();
    assert_eq!(spool.backlog().reports, 1);
    take(&mut spool, next..=next, 30_000).unwrap();
    assert!(names().any(|name| name == RESERVE), "it is made again");

    // What is durable gives way.
    spool.acknowledge(sealed(next, 30_000).1, |_| ()).unwrap();
    *left.lock().unwrap() = 5_000;
    take(&mut spool, next + 1..=next + 1, 30_000).unwrap();
    assert_eq!(numbers(&mut spool), [next + 1]);
    drop(spool);
    assert_eq!(open(folder.path()).1, Found::Whole);
}

#[test]
fn a_report_is_kept_until_it_is_acknowledged_and_the_newest_segment_after_that() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    for number in 1..=20 {
        take(&mut spool, number..=number, 30_000).unwrap();
    }
    spool.acknowledge(sealed(12, 30_000).1, |state| state.session_nonce = "ab".to_owned()).unwrap();
    spool.acknowledge(sealed(3, 30_000).1, |_| ()).unwrap();
    assert_eq!(spool.state().durable.map(|place| place.seq), Some(seq(12)));
    assert_eq!(spool.read_after(Some(seq(12)), 1).unwrap()[0].0, seq(13));
    spool.acknowledge(sealed(20, 30_000).1, |_| ()).unwrap();
    assert_eq!(spool.backlog().reports, 0);
    let mut kept = Vec::new();
    peek(folder.path(), |seq, _| kept.push(seq.number())).unwrap();
    assert_eq!(kept, [17, 18, 19, 20]);
    assert_eq!(peek_state(folder.path()).unwrap().session_nonce, "ab");
    assert_eq!(open(folder.path()).1, Found::Whole);
}

#[test]
fn a_new_epoch_starts_from_one_and_keeps_what_is_not_the_chains() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    take(&mut spool, 1..=3, 100).unwrap();
    spool.update(|state| state.session_nonce = "cd".to_owned()).unwrap();
    let other = Epoch::new([11; 16]);
    spool.begin_epoch(other).unwrap();
    assert_eq!((spool.state().epoch, spool.state().next_seq()), (other, ReportSeq::FIRST));
    assert_eq!(spool.state().session_nonce, "cd");
    take(&mut spool, 1..=1, 100).unwrap();
    let (mut spool, found) = open(folder.path());
    assert_eq!((found, numbers(&mut spool)), (Found::Whole, vec![1]));
    let _: Option<Digest> = spool.state().fact_set;
}
