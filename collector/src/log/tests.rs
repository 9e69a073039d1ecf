//! The log as a whole: grown, killed at each step, damaged, read while it grows.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    disk::{Disk, Folder},
    *,
};

fn key() -> Key {
    Key::generate("c1").unwrap()
}

fn again(key: &Key) -> Key {
    Key::parse(key.secret_text()).unwrap()
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

/// Appends entries up to `size` in one commit.
fn grow(appender: &mut Appender, size: u64) -> Result<Checkpoint, Error> {
    for index in appender.size()..size {
        assert_eq!(appender.append(&[&entry(index)])?, index);
    }
    appender.commit()
}

fn new_log(dir: &Path) -> (Key, Log, Appender) {
    let key = key();
    Log::create(dir, &key).unwrap();
    let (log, appender) = Log::open(dir, again(&key)).unwrap();
    (key, log, appender)
}

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for child in fs::read_dir(folder).unwrap() {
            let path = child.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    files
}

fn is_whole(dir: &Path, key: &Key, size: u64) {
    let report = fsck(dir, key.vkey()).unwrap();
    assert_eq!((report.bad, report.size, report.entries), (None, size, size));
}

#[test]
fn every_entry_has_a_proof_and_every_growth_too() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (key, log, mut appender) = new_log(&dir);
    let mut checkpoints = vec![];
    for size in [1, 2, 255, 256, 257, 300, 511, 513, 1100] {
        checkpoints.push(grow(&mut appender, size).unwrap());
    }
    let newest = checkpoints.last().unwrap();
    assert_eq!(log.checkpoint().as_ref(), Some(newest));
    assert_eq!(verify_checkpoint(&newest.note, log.key()).unwrap(), *newest);
    for index in [0, 1, 254, 255, 256, 299, 300, 512, 1099] {
        let entry = log.entry(index).unwrap();
        assert_eq!(entry, self::entry(index));
        for at in checkpoints.iter().filter(|at| at.size > index) {
            let proof = log.inclusion_proof(index, at.size).unwrap();
            verify_inclusion(&entry, index, at.size, &at.root, &proof).unwrap();
            assert!(verify_inclusion(b"another", index, at.size, &at.root, &proof).is_err());
        }
    }
    for (place, new) in checkpoints.iter().enumerate() {
        assert_eq!(log.root_at(new.size).unwrap(), new.root);
        for old in &checkpoints[..=place] {
            let proof = log.consistency_proof(old.size, new.size).unwrap();
            verify_consistency((old.size, &old.root), (new.size, &new.root), &proof).unwrap();
            let forged = Digest::new([3; 32]);
            assert!(verify_consistency((old.size, &forged), (new.size, &new.root), &proof).is_err());
        }
    }
    assert_eq!(log.entries(250..260).unwrap(), (250..260).map(entry).collect::<Vec<_>>());
    assert_eq!(log.entries(7..7).unwrap(), Vec::<Vec<u8>>::new());
    is_whole(&dir, &key, 1100);
}

#[test]
fn a_position_outside_the_log_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (_, log, mut appender) = new_log(&temp.path().join("log"));
    assert_eq!((log.checkpoint(), log.size()), (None, 0));
    grow(&mut appender, 3).unwrap();
    assert!(matches!(log.entry(3), Err(Error::Position { position: 4, size: 3 })));
    assert!(matches!(log.entry(u64::MAX), Err(Error::Position { .. })));
    assert!(matches!(log.inclusion_proof(3, 3), Err(Error::Position { .. })));
    assert!(matches!(log.inclusion_proof(0, 4), Err(Error::Position { .. })));
    assert!(matches!(log.consistency_proof(3, 2), Err(Error::Position { .. })));
    assert!(matches!(log.consistency_proof(1, 4), Err(Error::Position { .. })));
    assert!(matches!(log.root_at(4), Err(Error::Position { .. })));
}

#[test]
fn an_entry_that_is_too_long_leaves_the_log_as_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (key, _, mut appender) = new_log(&dir);
    grow(&mut appender, 2).unwrap();
    assert!(matches!(appender.append(&[&[0; 65_536]]), Err(Error::EntryTooLong)));
    assert!(!appender.is_dirty());
    grow(&mut appender, 3).unwrap();
    is_whole(&dir, &key, 3);
}

#[test]
fn a_log_goes_on_after_each_restart() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (key, log, mut appender) = new_log(&dir);
    drop((log, grow(&mut appender, 1), appender));
    let mut roots = vec![];
    for size in [2, 255, 256, 300, 512, 700] {
        let (log, mut appender) = Log::open(&dir, again(&key)).unwrap();
        let old = log.checkpoint().unwrap();
        let new = grow(&mut appender, size).unwrap();
        let proof = log.consistency_proof(old.size, new.size).unwrap();
        verify_consistency((old.size, &old.root), (new.size, &new.root), &proof).unwrap();
        roots.push(new.root);
        is_whole(&dir, &key, size);
    }
}

#[test]
fn partial_tiles_do_not_pile_up() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (key, log, mut appender) = new_log(&dir);
    for size in 1..600 {
        grow(&mut appender, size).unwrap();
    }
    // Lock, checkpoint, two full bundles and tiles, and at each of three edges the last three forms.
    assert!(files(&dir).len() <= 2 + 4 + 3 * 3, "{:?}", files(&dir));
    drop((log, appender));
    drop(Log::open(&dir, again(&key)).unwrap());
    let left = files(&dir);
    let expected = [
        "checkpoint",
        "lock",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/87",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/87",
    ];
    assert_eq!(left, expected.iter().map(PathBuf::from).collect());
}

/// Fails at one step, and at every one after it, as a killed process would: steps are counted over files, syncs and renames.
struct Failing {
    disk: Folder,
    left: Arc<AtomicUsize>,
    is_torn: bool,
}

impl Failing {
    fn step(&self) -> io::Result<()> {
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::other("injected")),
        }
    }
}

impl Disk for Failing {
    fn create(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.step() {
            if self.is_torn {
                self.disk.create(path, &bytes[..bytes.len() / 2])?;
            }
            return Err(error);
        }
        self.disk.create(path, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step()?;
        self.disk.sync()
    }

    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        self.disk.replace(path, bytes)
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
}

#[test]
fn whatever_step_fails_the_log_stops_and_a_restart_has_what_was_signed() {
    for (old, new) in [(0, 1), (1, 2), (255, 257), (300, 800)] {
        for is_torn in [false, true] {
            let mut steps = 0;
            loop {
                let temp = tempfile::tempdir().unwrap();
                let dir = temp.path().join("log");
                let key = key();
                Log::create(&dir, &key).unwrap();
                let left = Arc::new(AtomicUsize::new(usize::MAX));
                let disk = Failing { disk: Folder::new(&dir).unwrap(), left: Arc::clone(&left), is_torn };
                let (log, mut appender) = Log::open_on(&dir, again(&key), 0, Box::new(disk)).unwrap();
                let signed = if old > 0 { Some(grow(&mut appender, old).unwrap()) } else { None };
                left.store(steps, Ordering::Relaxed);
                if grow(&mut appender, new).is_ok() {
                    break;
                }
                assert_eq!(log.checkpoint(), signed, "nothing is published");
                assert!(log.stopped().borrow().is_some());
                left.store(usize::MAX, Ordering::Relaxed);
                assert!(matches!(appender.append(&[b"x"]), Err(Error::Stopped(_))));
                assert!(matches!(appender.commit(), Err(Error::Stopped(_))));
                if old > 0 {
                    assert_eq!(log.entry(old - 1).unwrap(), entry(old - 1), "reads go on");
                }
                drop((log, appender));

                let (log, mut appender) = Log::open(&dir, again(&key)).unwrap();
                assert_eq!(log.checkpoint(), signed);
                is_whole(&dir, &key, old);
                // Other entries take the places of those that were never signed.
                for index in old..new + 7 {
                    appender.append(&[b"other", &entry(index)]).unwrap();
                }
                appender.commit().unwrap();
                is_whole(&dir, &key, new + 7);
                steps += 1;
            }
            assert!(steps >= 4, "bundle, tile, sync and checkpoint are steps: {steps}");
        }
    }
}

#[test]
fn a_checkpoint_that_something_else_changed_is_not_signed_over() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (_, _, mut appender) = new_log(&dir);
    let first = grow(&mut appender, 1).unwrap();
    grow(&mut appender, 2).unwrap();
    fs::write(dir.join("checkpoint"), &first.note).unwrap();
    assert!(matches!(grow(&mut appender, 3), Err(Error::Damaged { .. })));
    assert_eq!(fs::read(dir.join("checkpoint")).unwrap(), *first.note);
}

#[test]
fn two_processes_do_not_write_one_log() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (key, _, appender) = new_log(&dir);
    assert!(matches!(Log::open(&dir, again(&key)), Err(Error::Locked { .. })));
    drop(appender);
    assert!(Log::open(&dir, again(&key)).is_ok());
}

#[test]
fn no_new_log_is_begun_where_one_was() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    assert!(matches!(Log::open(&dir, key()), Err(Error::Missing { .. })));
    let (key, _, mut appender) = new_log(&dir);
    grow(&mut appender, 300).unwrap();
    drop(appender);
    assert!(matches!(Log::create(&dir, &key), Err(Error::Exists { .. })));
    assert!(matches!(Log::open(&dir, self::key()), Err(Error::Note(NoteError::Signature))));
    let note = fs::read(dir.join("checkpoint")).unwrap();
    fs::remove_file(dir.join("checkpoint")).unwrap();
    let error = Log::open(&dir, again(&key)).err().unwrap();
    assert!(matches!(error, Error::Missing { .. }) && error.to_string().contains("backup"), "{error}");
    for damaged in [&note[..note.len() - 9], b"", b"c1\n300\n"] {
        fs::write(dir.join("checkpoint"), damaged).unwrap();
        assert!(matches!(Log::open(&dir, again(&key)), Err(Error::Note(_))));
    }
}

#[test]
fn a_log_that_is_shorter_than_it_was_known_to_be_is_refused_and_left_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (key, log, mut appender) = new_log(&dir);
    let old = grow(&mut appender, 300).unwrap();
    grow(&mut appender, 700).unwrap();
    drop((log, appender));
    fs::write(dir.join("checkpoint"), &*old.note).unwrap();
    let before = files(&dir);
    let error = Log::open_at_least(&dir, again(&key), 700).err().unwrap();
    assert!(matches!(error, Error::Behind { known: 700, size: 300, .. }), "{error}");
    assert_eq!(files(&dir), before);
}

#[test]
fn a_file_that_is_gone_is_found_although_a_wider_one_is_beside_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (key, log, mut appender) = new_log(&dir);
    let old = grow(&mut appender, 600).unwrap();
    grow(&mut appender, 601).unwrap();
    drop((log, appender));
    let newest = fs::read(dir.join("checkpoint")).unwrap();
    for path in ["tile/0/002.p/88", "tile/entries/002.p/88"] {
        let whole = fs::read(dir.join(path)).unwrap();
        fs::remove_file(dir.join(path)).unwrap();
        fs::write(dir.join("checkpoint"), &*old.note).unwrap();
        let bad = fsck(&dir, key.vkey()).unwrap().bad.unwrap();
        assert_eq!(bad.path, Path::new(path), "{bad:?}");
        assert!(matches!(Log::open(&dir, again(&key)), Err(Error::Damaged { .. })));
        fs::write(dir.join(path), &whole).unwrap();
        fs::write(dir.join("checkpoint"), &newest).unwrap();
    }
    is_whole(&dir, &key, 601);
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_its_file_named() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (key, log, mut appender) = new_log(&dir);
    grow(&mut appender, 600).unwrap();
    drop((log, appender));
    drop(Log::open(&dir, again(&key)).unwrap());
    for path in files(&dir).into_iter().filter(|path| path != Path::new("lock")) {
        let whole = fs::read(dir.join(&path)).unwrap();
        let step = (whole.len() * 8 / 40).max(1);
        for bit in (0..whole.len() * 8).step_by(step) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(dir.join(&path), &flipped).unwrap();
            let bad = fsck(&dir, key.vkey()).unwrap().bad.unwrap_or_else(|| panic!("{} bit {bit}", path.display()));
            let is_named = bad.path == path || bad.what.contains(path.to_str().unwrap());
            assert!(is_named, "{} bit {bit}: {bad:?}", path.display());
        }
        fs::write(dir.join(&path), &whole[..whole.len() - 1]).unwrap();
        assert!(fsck(&dir, key.vkey()).unwrap().bad.is_some(), "{} cut", path.display());
        fs::remove_file(dir.join(&path)).unwrap();
        let found = fsck(&dir, key.vkey());
        assert!(found.is_err() || found.unwrap().bad.is_some(), "{} gone", path.display());
        fs::write(dir.join(&path), &whole).unwrap();
    }
    is_whole(&dir, &key, 600);
}

#[test]
fn a_damaged_edge_is_refused_at_the_start_and_never_signed_over() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (key, log, mut appender) = new_log(&dir);
    grow(&mut appender, 600).unwrap();
    drop((log, appender));
    for path in ["tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/002.p/88"] {
        let whole = fs::read(dir.join(path)).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        fs::write(dir.join(path), &flipped).unwrap();
        assert!(matches!(Log::open(&dir, again(&key)), Err(Error::Damaged { .. })), "{path}");
        fs::remove_file(dir.join(path)).unwrap();
        assert!(matches!(Log::open(&dir, again(&key)), Err(Error::Damaged { .. })), "{path}");
        fs::write(dir.join(path), &whole).unwrap();
    }
    assert!(Log::open(&dir, again(&key)).is_ok());
}

#[test]
fn readers_see_a_whole_log_while_it_grows() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (_, log, mut appender) = new_log(&dir);
    let writer = std::thread::spawn(move || {
        for size in (1..400).map(|step| step * 7) {
            grow(&mut appender, size).unwrap();
        }
        appender
    });
    let mut last = (0, Digest::new(tree::empty_root().0));
    while !writer.is_finished() {
        let Some(checkpoint) = log.checkpoint() else { continue };
        let proof = log.consistency_proof(last.0, checkpoint.size).unwrap();
        verify_consistency((last.0, &last.1), (checkpoint.size, &checkpoint.root), &proof).unwrap();
        let from = checkpoint.size.saturating_sub(300);
        let entries = log.entries(from..checkpoint.size).unwrap();
        assert_eq!(entries, (from..checkpoint.size).map(entry).collect::<Vec<_>>());
        let index = checkpoint.size - 1;
        let proof = log.inclusion_proof(index, checkpoint.size).unwrap();
        verify_inclusion(&entry(index), index, checkpoint.size, &checkpoint.root, &proof).unwrap();
        last = (checkpoint.size, checkpoint.root);
    }
    writer.join().unwrap();
    assert!(last.0 > 0);
}

#[test]
fn a_log_is_checked_while_it_grows() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let (key, _, mut appender) = new_log(&dir);
    grow(&mut appender, 1).unwrap();
    let writer = std::thread::spawn(move || {
        for size in 2..500 {
            grow(&mut appender, size).unwrap();
        }
        appender
    });
    while !writer.is_finished() {
        let report = fsck(&dir, key.vkey()).unwrap();
        assert_eq!((report.bad, report.entries), (None, report.size));
    }
    writer.join().unwrap();
}

#[test]
fn a_file_system_without_syncfs_gives_the_same_log() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let key = key();
    Log::create(&dir, &key).unwrap();
    let disk = Box::new(Folder::without_syncfs(&dir).unwrap());
    let (_, mut appender) = Log::open_on(&dir, again(&key), 0, disk).unwrap();
    for size in [3, 256, 700] {
        grow(&mut appender, size).unwrap();
    }
    is_whole(&dir, &key, 700);
}
