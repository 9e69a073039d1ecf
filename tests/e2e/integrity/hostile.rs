//! A tree made by somebody who wants a look to leave it, to hang in it, or to skip a part of it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    mem::MaybeUninit,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use muster_proto::limits;
use muster_tests::{
    harness::{left_out, setting},
    integrity::{Own, bare, tree},
};
use rustix::{
    fs::{
        CWD, FileType, Mode, RenameFlags,
        inotify::{self, CreateFlags, ReadFlags, WatchFlags},
        makedev, mknodat, renameat_with,
    },
    io::Errno,
};
use sha2::{Digest as _, Sha256};

/// How long a look at the tree may take, for each thousand entries and in all at least: what it is far below on a busy machine.
const BUDGET: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(120));
/// What lies outside, and must be read by nobody.
const SECRET: &str = "what lies outside of the tree";
const SPARSE_BYTES: u64 = 50 << 30;
const DEPTH: u64 = 10_000;

/// A folder beside the tree, where the kernel tells of every opening and reading.
struct Outside {
    folder: PathBuf,
    notices: std::os::fd::OwnedFd,
}

impl Outside {
    fn at(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("secret"), SECRET).unwrap();
        let notices = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        for path in [&folder, &folder.join("secret")] {
            inotify::add_watch(&notices, path, WatchFlags::OPEN | WatchFlags::ACCESS).unwrap();
        }
        Self { folder, notices }
    }

    /// Returns how often something of it was opened or read.
    fn touched(&self) -> usize {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.notices, &mut buffer);
        let mut count = 0;
        loop {
            match reader.next() {
                Ok(event) => {
                    assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW), "more than can be counted");
                    count += 1;
                }
                Err(Errno::AGAIN) => return count,
                Err(error) => panic!("the notices cannot be read: {error}"),
            }
        }
    }
}

/// Makes what a look must not follow, open or wait for.
fn plant(root: &Path, outside: &Path) {
    let traps = root.join("traps");
    fs::create_dir(&traps).unwrap();
    for (name, target) in [("to-folder", outside.to_owned()), ("to-file", outside.join("secret"))] {
        symlink(target, traps.join(name)).unwrap();
    }
    symlink(".", traps.join("to-itself")).unwrap();
    mknodat(CWD, traps.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(traps.join("socket")).unwrap());
    if rustix::process::geteuid().is_root() {
        let device = |name, kind, major, minor| mknodat(CWD, traps.join(name), kind, Mode::RUSR, makedev(major, minor));
        // Zeroes without end, and a disk.
        device("zero", FileType::CharacterDevice, 1, 5).unwrap();
        device("disk", FileType::BlockDevice, 7, 0).unwrap();
    } else {
        left_out("device files in a hostile tree", "need root");
    }
    File::create(traps.join("sparse")).unwrap().set_len(SPARSE_BYTES).unwrap();
    let long = [b'n'; 255];
    let odd: [&[u8]; 5] = [&long, b"\xff\xfe\xfd", b"new\nline", b"\x1b[2J", "\u{202e}txt.exe".as_bytes()];
    for name in odd {
        fs::write(traps.join(OsStr::from_bytes(name)), "odd").unwrap();
    }
    let deep = root.join("deep");
    fs::create_dir(&deep).unwrap();
    tree::dig(&deep, DEPTH).unwrap();
    // What takes turns: a file and a link out, a folder and a link out. Their names are always there.
    let swapped = root.join("swapped");
    fs::create_dir_all(swapped.join("folder")).unwrap();
    fs::write(swapped.join("file"), "inside").unwrap();
    fs::write(swapped.join("folder/secret"), "inside").unwrap();
    symlink(outside.join("secret"), swapped.join("link-of-file")).unwrap();
    symlink(outside, swapped.join("link-of-folder")).unwrap();
}

/// Exchanges files and folders with links out of the tree until `is_over`, and returns how often.
fn swap(root: &Path, is_over: &AtomicBool, count: &AtomicU64) {
    let swapped = root.join("swapped");
    let pairs = [("file", "link-of-file"), ("folder", "link-of-folder")]
        .map(|(one, other)| (swapped.join(one), swapped.join(other)));
    while !is_over.load(Ordering::Relaxed) {
        for (one, other) in &pairs {
            renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    // Each pair as it began, as far as counts go.
    if swapped.join("folder").is_symlink() {
        renameat_with(CWD, &pairs[1].0, CWD, &pairs[1].1, RenameFlags::EXCHANGE).unwrap();
    }
}

fn roomy() -> tempfile::TempDir {
    let builder = |parent: &Path| tempfile::Builder::new().prefix("muster-test-").tempdir_in(parent);
    builder(Path::new("/dev/shm")).or_else(|_| builder(&std::env::temp_dir())).unwrap()
}

/// A tree that is removed at the end, however deep it is.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        // What is left behind is named by the folder's own removal.
        let _ = tree::remove(&self.0);
    }
}

#[test]
fn a_hostile_tree_is_looked_at_whole_and_never_left() {
    let entries = setting("MUSTER_TEST_ENTRIES", 30_000);
    let folder = roomy();
    let root = folder.path().join("tree");
    fs::create_dir(&root).unwrap();
    let _removed = Tree(root.clone());
    let outside = Outside::at(folder.path().join("outside"));
    tree::generate(&root, entries).unwrap();
    plant(&root, &outside.folder);
    let expected = bare::walk(&root, false).unwrap();
    assert_eq!(outside.touched(), 0, "the walk of the test itself leaves the tree");

    let own = Own::at(&root, folder.path());
    let (is_over, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let budget = BUDGET.1 + BUDGET.0 * u32::try_from(expected.entries / 1000).unwrap();
    let start = Instant::now();
    let (baseline, looks) = std::thread::scope(|scope| {
        scope.spawn(|| swap(&root, &is_over, &swaps));
        let told = || {
            let (baseline, _) = own.run("baseline", &[])?;
            // The swapped ones may be read as files now and as links then.
            let looks = ["check", "quick", "check"].map(|what| own.run(what, &[]));
            anyhow::Ok((baseline, looks))
        };
        let told = told();
        is_over.store(true, Ordering::Relaxed);
        told
    })
    .unwrap();
    assert!(start.elapsed() < budget, "four looks took {:?}, more than {budget:?}", start.elapsed());
    assert!(swaps.load(Ordering::Relaxed) > 100, "hardly anything was swapped");

    let secret = Sha256::digest(SECRET);
    let database = fs::read(own.database()).unwrap();
    assert!(!database.windows(32).any(|window| window == secret.as_slice()), "the digest of what lies outside is kept");
    assert_eq!(outside.touched(), 0, "something outside was opened");
    fs::read(outside.folder.join("secret")).unwrap();
    assert!(outside.touched() > 0, "nothing would have been told");

    check(&baseline, &root, expected.entries);
    for look in looks {
        let (told, _) = look.unwrap();
        check(&told, &root, expected.entries);
        let elsewhere: Vec<_> = told.changes.keys().filter(|path| !is_below(path, &root.join("swapped"))).collect();
        assert!(elsewhere.is_empty(), "changes of what did not change: {elsewhere:?}");
    }
    eprintln!(
        "{} entries, {} swaps meanwhile: four looks in {:.0?}, nothing outside opened, {} listed as unreadable",
        expected.entries,
        swaps.load(Ordering::Relaxed),
        start.elapsed(),
        baseline.summary["unreadable"]
    );
}

/// Checks that each entry is either read, or listed, or below a folder that is listed.
fn check(told: &muster_tests::integrity::Told, root: &Path, expected: u64) {
    let (deep, swapped, sparse) = (root.join("deep"), root.join("swapped"), root.join("traps/sparse"));
    let listed = |folder: &Path| told.unreadable.iter().filter(|path| is_below(path, folder)).count();
    assert_eq!(told.summary["unreadable"], told.unreadable.len() as u64, "not all is listed: {}", told.summary);
    assert_eq!(listed(&sparse), 1, "the sparse file is neither read within the budget nor listed");
    assert_eq!(listed(&deep), 1, "the first folder whose path is longer than can be named stands for what is below it");
    let others = told.unreadable.len() - listed(&swapped) - 2;
    assert_eq!(others, 0, "not read although nothing hinders: {:?}", told.unreadable);
    // Each folder on the way down makes a path longer by two bytes. Below the one that is listed are the others and a file.
    let way = (limits::TEXT_BYTES - bytes(&deep).len()) as u64 / 2 + 1;
    let seen = expected - (DEPTH - way + 1);
    let entries = told.summary["entries"].as_u64().unwrap();
    // The folder that takes turns with a link holds a file, which is seen by none of the two names, by one, or by both.
    assert!(entries.abs_diff(seen) <= 1, "{entries} of {seen} entries: {}", told.summary);
}

fn is_below(path: &[u8], folder: &Path) -> bool {
    path.starts_with(bytes(folder).as_slice())
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}
