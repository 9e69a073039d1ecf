//! Walks of hostile, deep, wide and changing trees.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, PermissionsExt as _, symlink},
    },
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use rustix::fs::{FileType, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::*;

/// What a visitor was told, in order, with paths below the root.
#[derive(Debug, Default)]
struct Seen {
    root: Vec<u8>,
    shown: Vec<(Vec<u8>, EntryKind)>,
    found: Vec<(Vec<u8>, Result<Scanned, io::ErrorKind>)>,
    unreadable: Vec<(Vec<u8>, io::ErrorKind)>,
    /// Entries that were shown before an earlier one was found, at most.
    ahead: usize,
    want: BTreeMap<Vec<u8>, Want>,
    /// The error of the visitor when so many entries were shown.
    ends_after: Option<usize>,
}

impl Seen {
    fn below(&self, path: &[u8]) -> Vec<u8> {
        let below = path.strip_prefix(self.root.as_slice()).unwrap();
        below.strip_prefix(b"/").unwrap_or(below).to_vec()
    }

    fn names(&self) -> Vec<String> {
        self.shown.iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
    }

    fn found_of(&self, path: &str) -> &Result<Scanned, io::ErrorKind> {
        &self.found.iter().find(|(found, _)| found == path.as_bytes()).unwrap().1
    }
}

impl Visitor for Seen {
    fn wants(&mut self, path: &[u8], metadata: &Metadata) -> io::Result<Want> {
        if self.ends_after == Some(self.shown.len()) {
            return Err(io::Error::other("enough"));
        }
        self.shown.push((self.below(path), metadata.kind));
        self.ahead = self.ahead.max(self.shown.len() - self.found.len());
        Ok(self.want.get(&self.below(path)).copied().unwrap_or(Want::Read))
    }

    fn unreadable(&mut self, path: &[u8], error: io::Error) -> io::Result<()> {
        self.unreadable.push((self.below(path), error.kind()));
        Ok(())
    }

    fn found(&mut self, path: &[u8], read: io::Result<Scanned>) -> io::Result<()> {
        self.found.push((self.below(path), read.map_err(|error| error.kind())));
        Ok(())
    }
}

fn seen(root: &Path, pace: &Pace) -> Seen {
    wanted(root, pace, &[])
}

fn wanted(root: &Path, pace: &Pace, want: &[(&str, Want)]) -> Seen {
    let want = want.iter().map(|(path, want)| (path.as_bytes().to_vec(), *want)).collect();
    let mut seen = Seen { root: path_bytes(root), want, ..Seen::default() };
    walk(Live::new(), root, pace, &mut seen).unwrap();
    seen
}

fn one() -> Pace {
    Pace::default()
}

fn three() -> Pace {
    Pace { readers: 3, ..Pace::default() }
}

fn at_once() -> Pace {
    Pace { at_once: true, ..Pace::default() }
}

fn every() -> [Pace; 3] {
    [at_once(), one(), three()]
}

fn write(root: &Path, name: impl AsRef<Path>, content: &[u8]) {
    std::fs::write(root.join(name), content).unwrap();
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

fn digest(content: &[u8]) -> Option<[u8; 32]> {
    Some(Sha256::digest(content).into())
}

#[test]
fn a_folder_comes_before_what_is_in_it_and_names_are_in_byte_order() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("a")).unwrap();
    for name in ["a/b", "a-b", "a.b"] {
        write(root.path(), name, name.as_bytes());
    }
    for pace in every() {
        let seen = seen(root.path(), &pace);
        assert_eq!(seen.names(), ["", "a", "a/b", "a-b", "a.b"]);
        let found: Vec<_> = seen.found.iter().map(|(path, _)| String::from_utf8_lossy(path)).collect();
        assert_eq!(found, ["", "a", "a/b", "a-b", "a.b"]);
        assert_eq!(seen.found_of("a/b").as_ref().unwrap().sha256, digest(b"a/b"));
        assert_eq!(seen.found_of("a").as_ref().unwrap().sha256, None);
    }
}

#[test]
fn links_are_not_followed_and_what_is_not_a_file_is_not_opened() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "secret", b"s");
    symlink(outside.path(), root.path().join("link")).unwrap();
    fifo(&root.path().join("pipe"));
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
    for pace in every() {
        let seen = seen(root.path(), &pace);
        assert_eq!(seen.names(), ["", "link", "pipe", "socket"]);
        let kinds: Vec<_> = seen.shown.iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, [EntryKind::Folder, EntryKind::Link, EntryKind::Pipe, EntryKind::Socket]);
        let target = digest(outside.path().as_os_str().as_bytes());
        assert_eq!(seen.found_of("link").as_ref().unwrap().sha256, target);
        assert_eq!(seen.found_of("pipe").as_ref().unwrap().sha256, None);
    }
}

#[test]
fn only_what_is_wanted_is_read_and_gone_into() {
    let root = tempfile::tempdir().unwrap();
    for folder in ["in", "out"] {
        std::fs::create_dir(root.path().join(folder)).unwrap();
        write(root.path(), format!("{folder}/f"), b"f");
    }
    write(root.path(), "shown", b"s");
    write(root.path(), "without", b"w");
    let want = [
        ("", Want::Nothing),
        ("in", Want::Nothing),
        ("out", Want::NothingBelow),
        ("shown", Want::Nothing),
        ("without", Want::Attributes),
    ];
    for pace in every() {
        let seen = wanted(root.path(), &pace, &want);
        assert_eq!(seen.names(), ["", "in", "in/f", "out", "shown", "without"]);
        let found: Vec<_> = seen.found.iter().map(|(path, _)| String::from_utf8_lossy(path)).collect();
        assert_eq!(found, ["in/f", "without"]);
        assert_eq!(seen.found_of("without").as_ref().unwrap().sha256, None);
    }
}

#[test]
fn a_file_of_several_names_has_its_content_under_each_also_when_it_changes() {
    let root = tempfile::tempdir().unwrap();
    let content = vec![7; 300_000];
    write(root.path(), "a", &content);
    std::fs::hard_link(root.path().join("a"), root.path().join("b")).unwrap();
    for pace in every() {
        let before = seen(root.path(), &pace);
        for name in ["a", "b"] {
            assert_eq!(before.found_of(name).as_ref().unwrap().sha256, digest(&content));
        }
    }
    /// Writes into the file after its first name was read.
    struct Writes<'a>(&'a Path, Vec<Option<[u8; 32]>>);
    impl Visitor for Writes<'_> {
        fn wants(&mut self, _: &[u8], metadata: &Metadata) -> io::Result<Want> {
            Ok(if metadata.kind == EntryKind::File { Want::Read } else { Want::Nothing })
        }
        fn unreadable(&mut self, _: &[u8], error: io::Error) -> io::Result<()> {
            Err(error)
        }
        fn found(&mut self, _: &[u8], read: io::Result<Scanned>) -> io::Result<()> {
            self.1.push(read?.sha256);
            // The clock of a file system may stand still for a moment.
            std::thread::sleep(std::time::Duration::from_millis(30));
            std::fs::File::options().write(true).open(self.0)?.write_all_at(b"x", 9)
        }
    }
    let file = root.path().join("a");
    let mut writes = Writes(&file, Vec::new());
    walk(Live::new(), root.path(), &at_once(), &mut writes).unwrap();
    let mut changed = content.clone();
    changed[9] = b'x';
    assert_eq!(writes.1, [digest(&content), digest(&changed)]);
}

#[test]
fn files_of_all_lengths_that_are_read_beside_each_other_have_their_own_content() {
    let root = tempfile::tempdir().unwrap();
    let lengths = [0, 1, 63, 64, 65, 2047, 2048, 5000, 131_071, 131_072, 131_073, 300_000, 1_000_001];
    let content = |number: usize| -> Vec<u8> {
        let length = lengths[number * 7 % lengths.len()] + number;
        (0..length).map(|at| (at.wrapping_mul(31) + number) as u8).collect()
    };
    for number in 0..150 {
        write(root.path(), format!("{number:03}"), &content(number));
    }
    // A hole before data, and one after.
    let sparse = std::fs::File::create(root.path().join("sparse")).unwrap();
    sparse.set_len(2_000_000).unwrap();
    sparse.write_all_at(b"data", 1_000_000).unwrap();
    for pace in every() {
        let seen = seen(root.path(), &pace);
        assert!(seen.found.iter().map(|(path, _)| path).is_sorted());
        for number in 0..150 {
            let found = seen.found_of(&format!("{number:03}")).as_ref().unwrap().sha256;
            assert_eq!(found, digest(&content(number)), "{number} with {pace:?}");
        }
        let mut holes = vec![0; 2_000_000];
        holes[1_000_000..][..4].copy_from_slice(b"data");
        assert_eq!(seen.found_of("sparse").as_ref().unwrap().sha256, digest(&holes));
        assert_eq!(seen.ahead > 1, !pace.at_once, "{} entries ahead with {pace:?}", seen.ahead);
    }
}

/// `F_SETSIG` of fcntl(2), which the crate does not have.
const SET_SIGNAL: i32 = 10;

/// Asks for or of a lease on a file (fcntl(2)).
#[allow(unsafe_code)]
fn lease(file: &std::fs::File, command: i32, argument: i32) -> i32 {
    use std::os::fd::AsRawFd as _;
    // SAFETY: these commands take a number, and no memory.
    unsafe { libc::fcntl(file.as_raw_fd(), command, argument) }
}

#[test]
fn a_lease_that_its_holder_gives_up_is_waited_for_and_another_only_so_long() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["given", "kept", "plain"] {
        write(folder.path(), name, name.as_bytes());
    }
    let take = |name: &str| {
        let file = std::fs::File::options().read(true).write(true).open(folder.path().join(name)).unwrap();
        // The signal that tells of a break would end this process; this one is ignored.
        assert_eq!(lease(&file, SET_SIGNAL, libc::SIGURG), 0);
        assert_eq!(lease(&file, libc::F_SETLEASE, libc::F_WRLCK), 0);
        file
    };
    let (given, _kept) = (take("given"), take("kept"));
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            // While it is broken, the command tells to what.
            while lease(&given, libc::F_GETLEASE, 0) == libc::F_WRLCK {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            assert_eq!(lease(&given, libc::F_SETLEASE, libc::F_UNLCK), 0);
        });
        seen(folder.path(), &one())
    });
    for name in ["given", "plain"] {
        let found = seen.found_of(name).as_ref().unwrap();
        assert_eq!(found.sha256, digest(name.as_bytes()), "{name}");
    }
    assert_eq!(seen.found_of("kept").as_ref().unwrap_err(), &io::ErrorKind::WouldBlock);
}

#[test]
fn a_missing_root_is_an_error_and_a_root_that_is_no_folder_is_one_entry() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("f");
    let error = walk(Live::new(), &path, &one(), &mut Seen::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    write(root.path(), "f", b"abc");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink("f", root.path().join("l")).unwrap();
    for pace in every() {
        let file = seen(&path, &pace);
        assert_eq!(file.shown, [(Vec::new(), EntryKind::File)]);
        assert_eq!(file.found_of("").as_ref().unwrap().sha256, digest(b"abc"));
        let link = seen(&root.path().join("l"), &pace);
        assert_eq!(link.shown, [(Vec::new(), EntryKind::Link)]);
        assert_eq!(link.found_of("").as_ref().unwrap().sha256, digest(b"f"));
    }
}

#[test]
fn a_root_with_a_slash_at_its_end_is_not_doubled() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "f", b"");
    let mut seen = Seen { root: path_bytes(root.path()), ..Seen::default() };
    walk(Live::new(), &root.path().join(""), &one(), &mut seen).unwrap();
    assert_eq!(seen.names(), ["", "f"]);
}

#[test]
fn names_are_bytes_and_may_be_as_long_as_they_can() {
    let root = tempfile::tempdir().unwrap();
    let names = [b"\x01\n".to_vec(), b"\xff\xfe".to_vec(), vec![b'n'; 255], b"-rf".to_vec(), b" ".to_vec()];
    for name in &names {
        write(root.path(), OsStr::from_bytes(name), name);
    }
    let seen = seen(root.path(), &three());
    let mut expected = names.to_vec();
    expected.push(Vec::new());
    expected.sort();
    assert_eq!(seen.shown.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(), expected);
    let read = |name: &Vec<u8>| seen.found.iter().find(|(path, _)| path == name).unwrap().1.clone().unwrap().sha256;
    assert!(names.iter().all(|name| read(name) == digest(name)));
}

#[test]
fn a_tree_deeper_than_any_path_is_walked_with_few_descriptors() {
    const DEPTH: usize = 10_000;
    let root = tempfile::tempdir().unwrap();
    make_deep(root.path(), DEPTH, 100);
    struct Counting {
        root: Vec<u8>,
        seen: usize,
        longest: usize,
        most_open: usize,
        files: usize,
    }
    impl Visitor for Counting {
        fn wants(&mut self, path: &[u8], metadata: &Metadata) -> io::Result<Want> {
            self.seen += 1;
            self.longest = self.longest.max(path.len());
            if self.seen.is_multiple_of(500) {
                self.most_open = self.most_open.max(descriptors_below(&self.root));
            }
            Ok(if metadata.kind == EntryKind::File { Want::Read } else { Want::Nothing })
        }
        fn unreadable(&mut self, _: &[u8], error: io::Error) -> io::Result<()> {
            Err(error)
        }
        fn found(&mut self, _: &[u8], read: io::Result<Scanned>) -> io::Result<()> {
            self.files += usize::from(read?.sha256 == digest(b"z"));
            Ok(())
        }
    }
    for pace in every() {
        let mut counting = Counting { root: path_bytes(root.path()), seen: 0, longest: 0, most_open: 0, files: 0 };
        walk(Live::new(), root.path(), &pace, &mut counting).unwrap();
        // A file comes after the folder beside it, so that its own folder is come back to.
        assert_eq!((counting.seen, counting.files), (DEPTH + DEPTH / 100 + 1, DEPTH / 100));
        assert!(counting.longest > 2 * DEPTH);
        assert!((20..=64).contains(&counting.most_open), "{} descriptors", counting.most_open);
    }
    remove_deep(root.path(), DEPTH, 100);
}

/// Makes folders `d` in each other, with a file `z` beside one of `every`.
fn make_deep(root: &Path, depth: usize, every: usize) {
    let mut folder = rustix::fs::openat(CWD, root, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    for number in 0..depth {
        if number.is_multiple_of(every) {
            write_file(&folder);
        }
        rustix::fs::mkdirat(&folder, c"d", Mode::RWXU).unwrap();
        folder = rustix::fs::openat(&folder, c"d", OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    }
}

fn write_file(folder: &OwnedFd) {
    let file = rustix::fs::openat(folder, c"z", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).unwrap();
    std::fs::File::from(file).write_all_at(b"z", 0).unwrap();
}

/// Removes them from the deepest up: no path is short enough, and a recursive removal needs a stack as deep.
fn remove_deep(root: &Path, depth: usize, every: usize) {
    let open = |folder: &OwnedFd, name: &CStr| {
        rustix::fs::openat(folder, name, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap()
    };
    let mut folder = rustix::fs::openat(CWD, root, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    for _ in 0..depth {
        folder = open(&folder, c"d");
    }
    for number in (0..depth).rev() {
        folder = open(&folder, c"..");
        if number.is_multiple_of(every) {
            rustix::fs::unlinkat(&folder, c"z", AtFlags::empty()).unwrap();
        }
        rustix::fs::unlinkat(&folder, c"d", AtFlags::REMOVEDIR).unwrap();
    }
}

/// Returns how many descriptors of this process lead into the tree of `root`; other tests have descriptors of their own.
fn descriptors_below(root: &[u8]) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let is_below = |link: &PathBuf| match rustix::fs::readlinkat(CWD, link, Vec::new()) {
        Ok(target) => target.as_bytes().starts_with(root),
        // What is deeper than a path may be: only this tree is.
        Err(error) => error == rustix::io::Errno::NAMETOOLONG,
    };
    links.map(|link| link.unwrap().path()).filter(is_below).count()
}

#[test]
fn a_folder_that_was_moved_is_found_from_the_root_or_its_names_are_unreadable() {
    /// Renames folders when the deepest one is shown, and puts others in their places.
    struct Moving {
        seen: Seen,
        depth: usize,
        moves: Vec<(PathBuf, PathBuf)>,
    }
    impl Visitor for Moving {
        fn wants(&mut self, path: &[u8], metadata: &Metadata) -> io::Result<Want> {
            if path.split(|byte| *byte == b'/').filter(|name| *name == b"d").count() == self.depth {
                for (from, to) in self.moves.drain(..) {
                    std::fs::rename(&from, &to).unwrap();
                    std::fs::create_dir_all(from.join("d")).unwrap();
                    std::fs::write(from.join("z"), "other").unwrap();
                }
            }
            self.seen.wants(path, metadata)
        }
        fn unreadable(&mut self, path: &[u8], error: io::Error) -> io::Result<()> {
            self.seen.unreadable(path, error)
        }
        fn found(&mut self, path: &[u8], read: io::Result<Scanned>) -> io::Result<()> {
            self.seen.found(path, read)
        }
    }
    const DEPTH: usize = 40;
    for pace in every() {
        // The deepest folders are open, so that 6 and 12 must be opened again.
        for (moved, lost) in [(vec![6], 0), (vec![12], 0), (vec![12, 6], 6), (vec![30, 12, 6], 6)] {
            let root = tempfile::tempdir().unwrap();
            let tree = root.path().join("tree");
            std::fs::create_dir(&tree).unwrap();
            make_deep(&tree, DEPTH, 1);
            let at = |depth: usize| tree.join(vec!["d"; depth].join("/"));
            let moves = moved.iter().map(|depth| (at(*depth), root.path().join(depth.to_string()))).collect();
            let seen = Seen { root: path_bytes(&tree), ..Seen::default() };
            let mut moving = Moving { seen, depth: DEPTH, moves };
            walk(Live::new(), &tree, &pace, &mut moving).unwrap();
            let (files, unreadable) = (moving.seen.found, moving.seen.unreadable);
            let files: Vec<_> = files.into_iter().filter(|(path, _)| path.ends_with(b"z")).collect();
            assert_eq!((files.len(), unreadable.len()), (DEPTH - lost, lost), "{moved:?}");
            assert!(unreadable.iter().all(|(_, kind)| *kind == io::ErrorKind::InvalidData));
            // Those of another folder in its place are not taken for its own.
            assert!(files.iter().all(|(_, read)| read.as_ref().unwrap().sha256 == digest(b"z")), "{moved:?}");
        }
    }
}

#[test]
fn a_tree_that_is_swapped_for_links_all_the_time_never_leads_out_of_the_root() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(outside.path().join("d/e")).unwrap();
    write(outside.path(), "d/secret", b"secret");
    write(outside.path(), "d/e/secret", b"secret");
    write(outside.path(), "secret", b"secret");
    for folder in ["d/e", "x"] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    write(root.path(), "d/inside", b"inside");
    write(root.path(), "f", b"inside");
    symlink(outside.path().join("d"), root.path().join("x/link")).unwrap();
    symlink(outside.path().join("secret"), root.path().join("x/file")).unwrap();
    fifo(&root.path().join("x/fifo"));
    let is_over = AtomicBool::new(false);
    let swaps = AtomicUsize::new(0);
    let at = |name: &str| CString::new(path_bytes(&root.path().join(name))).unwrap();
    let swap = |a: &str, b: &str| {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let swapped = rustix::fs::renameat_with(CWD, at(a), CWD, at(b), flags);
        swaps.fetch_add(usize::from(swapped.is_ok()), Ordering::Relaxed);
    };
    swap("f", "x/file");
    assert_eq!(swaps.load(Ordering::Relaxed), 1, "the file system can swap");
    std::thread::scope(|scope| {
        // Also when an assertion fails, so that the thread ends.
        let _over = Over(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                swap("d", "x/link");
                swap("f", "x/file");
                swap("f", "x/fifo");
            }
        });
        let mut round = 0;
        // A walk tells nothing where nothing was swapped.
        while round < 200 || swaps.load(Ordering::Relaxed) < 200 {
            round += 1;
            let seen = seen(root.path(), &every()[round % 3]);
            for (path, read) in &seen.found {
                assert!(!path.ends_with(b"secret"), "{}", String::from_utf8_lossy(path));
                if let Ok(scanned) = read {
                    assert_ne!(scanned.sha256, digest(b"secret"));
                }
            }
        }
    });
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn special_files_are_never_opened_and_what_they_are_is_shown() {
    let root = tempfile::tempdir().unwrap();
    // A device that nothing drives: opening it is an error.
    let device = rustix::fs::makedev(4095, 1);
    let made = rustix::fs::mknodat(CWD, root.path().join("device"), FileType::CharacterDevice, Mode::RUSR, device);
    fifo(&root.path().join("fifo"));
    let seen = seen(root.path(), &one());
    let expected: &[&str] = if made.is_ok() { &["", "device", "fifo"] } else { &["", "fifo"] };
    assert_eq!(seen.names(), expected);
    assert!(seen.found.iter().all(|(_, read)| read.is_ok()) && seen.unreadable.is_empty());
}

#[test]
fn what_is_found_comes_in_order_and_the_walk_runs_ahead_by_a_bounded_number() {
    let root = tempfile::tempdir().unwrap();
    // The first is slow to hash, a hole of many zeroes.
    std::fs::File::create(root.path().join("0")).unwrap().set_len(8 * 1024 * 1024).unwrap();
    write(root.path(), "f", b"x");
    for number in 0..5000 {
        std::fs::hard_link(root.path().join("f"), root.path().join(format!("f{number:04}"))).unwrap();
    }
    let seen = seen(root.path(), &three());
    assert!(seen.found.iter().map(|(path, _)| path).is_sorted());
    assert_eq!((seen.shown.len(), seen.found.len()), (5003, 5003));
    assert!(seen.ahead <= 4097, "{} entries", seen.ahead);
    assert_eq!(seen.found_of("0").as_ref().unwrap().sha256, digest(&vec![0; 8 * 1024 * 1024]));
}

#[test]
fn an_error_of_the_visitor_ends_the_walk_and_its_readers() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..200 {
        write(root.path(), format!("f{number:04}"), b"x");
    }
    for pace in every() {
        let mut seen = Seen { root: path_bytes(root.path()), ends_after: Some(100), ..Seen::default() };
        let error = walk(Live::new(), root.path(), &pace, &mut seen).unwrap_err();
        assert_eq!(error.to_string(), "enough");
        assert_eq!(seen.shown.len(), 100);
    }
}

#[test]
fn after_the_deadline_a_walk_is_over() {
    /// Lets the time pass when it is shown an entry.
    struct Late(std::time::Instant);
    impl Visitor for Late {
        fn wants(&mut self, _: &[u8], _: &Metadata) -> io::Result<Want> {
            while std::time::Instant::now() < self.0 {
                std::thread::yield_now();
            }
            Ok(Want::Read)
        }
        fn unreadable(&mut self, _: &[u8], _: io::Error) -> io::Result<()> {
            panic!("the time of the walk is no finding")
        }
        fn found(&mut self, _: &[u8], read: io::Result<Scanned>) -> io::Result<()> {
            assert!(read.is_ok(), "the time of the walk is no finding");
            Ok(())
        }
    }
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "f", b"x");
    let walked = walk(Live::until(std::time::Instant::now()), root.path(), &one(), &mut Seen::default());
    assert_eq!(walked.unwrap_err().kind(), io::ErrorKind::TimedOut);
    for (root, pace) in
        [(root.path().to_owned(), one()), (root.path().to_owned(), three()), (root.path().join("f"), one())]
    {
        let deadline = std::time::Instant::now() + std::time::Duration::from_millis(20);
        let walked = walk(Live::until(deadline), &root, &pace, &mut Late(deadline));
        assert_eq!(walked.unwrap_err().kind(), io::ErrorKind::TimedOut, "{}", root.display());
    }
}

#[test]
fn a_folder_without_permission_is_unreadable_and_the_walk_goes_on() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("closed")).unwrap();
    write(root.path(), "closed/f", b"x");
    write(root.path(), "z", b"z");
    std::fs::set_permissions(root.path().join("closed"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let seen = seen(root.path(), &one());
    std::fs::set_permissions(root.path().join("closed"), std::fs::Permissions::from_mode(0o700)).unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!(seen.names(), ["", "closed", "closed/f", "z"]);
    } else {
        assert_eq!(seen.names(), ["", "closed", "z"]);
        assert_eq!(seen.unreadable, [(b"closed".to_vec(), io::ErrorKind::PermissionDenied)]);
    }
    assert_eq!(seen.found_of("z").as_ref().unwrap().sha256, digest(b"z"));
}

#[test]
fn another_file_system_is_shown_and_told_and_not_gone_into_unless_it_is_wanted() {
    /// Of everything but what is to be found only shown.
    struct Mounts(Vec<(Vec<u8>, &'static str)>);
    impl Visitor for Mounts {
        fn wants(&mut self, path: &[u8], _: &Metadata) -> io::Result<Want> {
            self.0.push((path.to_vec(), "shown"));
            Ok(match path {
                b"/dev" => Want::Nothing,
                path if path.starts_with(b"/dev/shm") => Want::Attributes,
                _ => Want::NothingBelow,
            })
        }
        fn unreadable(&mut self, path: &[u8], error: io::Error) -> io::Result<()> {
            if error.kind() == io::ErrorKind::CrossesDevices {
                self.0.push((path.to_vec(), "crosses"));
            }
            Ok(())
        }
        fn found(&mut self, path: &[u8], read: io::Result<Scanned>) -> io::Result<()> {
            self.0.push((path.to_vec(), if read.is_ok() { "found" } else { "failed" }));
            Ok(())
        }
    }
    let of = |pace: &Pace, root: &str, of: &[u8]| {
        let mut mounts = Mounts(Vec::new());
        walk(Live::new(), Path::new(root), pace, &mut mounts).unwrap();
        mounts.0.into_iter().filter(|(path, _)| path == of).map(|(_, told)| told).collect::<Vec<_>>()
    };
    // Whatever of /dev is mounted on its own: a system without such a thing has nothing to test here.
    let own = rustix::fs::stat("/dev").unwrap().st_dev;
    let Ok(shm) = rustix::fs::stat("/dev/shm") else { return };
    if shm.st_dev == own {
        return;
    }
    assert_eq!(of(&one(), "/dev", b"/dev/shm"), ["shown", "found", "crosses"]);
    let crossing = Pace { cross_mounts: true, ..one() };
    assert_eq!(of(&crossing, "/dev", b"/dev/shm"), ["shown", "found"]);
}

#[test]
fn a_file_beyond_the_bound_is_a_limit_and_a_hole_is_its_zeroes() {
    let root = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(root.path().join("holes")).unwrap();
    file.set_len(3_000_000).unwrap();
    file.write_all_at(b"abc", 1_500_000).unwrap();
    file.write_all_at(b"end", 2_999_990).unwrap();
    let mut content = vec![0; 3_000_000];
    content[1_500_000..1_500_003].copy_from_slice(b"abc");
    content[2_999_990..2_999_993].copy_from_slice(b"end");
    std::fs::File::create(root.path().join("empty")).unwrap().set_len(1_000_000).unwrap();
    for (bound, holes) in [(3_000_000, Ok(digest(&content))), (2_999_999, Err(io::ErrorKind::FileTooLarge))] {
        let seen = seen(root.path(), &Pace { largest_file_bytes: bound, ..one() });
        assert_eq!(seen.found_of("holes").clone().map(|scanned| scanned.sha256), holes);
        assert_eq!(seen.found_of("empty").as_ref().unwrap().sha256, digest(&vec![0; 1_000_000]));
    }
}

#[test]
fn a_file_of_which_only_some_is_cached_is_read_whole() {
    let root = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..400_000u32).flat_map(u32::to_be_bytes).collect();
    write(root.path(), "f", &content);
    let file = std::fs::File::open(root.path().join("f")).unwrap();
    file.sync_all().unwrap();
    for (cached, uncached) in [(0, 1_600_000), (8192, 1_591_808), (200_704, 4096)] {
        let mut start = vec![0; cached];
        file.read_exact_at(&mut start, 0).unwrap();
        // Advice that a file system without a disk does not take.
        let bytes = std::num::NonZeroU64::new(uncached);
        rustix::fs::fadvise(&file, cached as u64, bytes, rustix::fs::Advice::DontNeed).unwrap();
        assert_eq!(seen(root.path(), &one()).found_of("f").as_ref().unwrap().sha256, digest(&content));
    }
}

#[test]
fn a_file_of_the_kernel_whose_size_is_not_told_has_no_digest() {
    let seen = seen(Path::new("/proc/self/status"), &one());
    assert_eq!(seen.found_of("").as_ref().unwrap_err(), &io::ErrorKind::Unsupported);
}

#[test]
fn digests_are_of_the_content() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("f");
    std::fs::write(&path, "abc").unwrap();
    let told = digests(Live::new(), &path, &path).unwrap();
    assert_eq!(hex::encode(told.md5), "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(Some(told.sha256), digest(b"abc"));
    let link = root.path().join("l");
    symlink(&path, &link).unwrap();
    assert!(digests(Live::new(), &link, &link).is_err());
    assert!(digests(Live::new(), root.path(), root.path()).is_err());
    assert!(digests(Live::new(), root.path(), Path::new("/etc/passwd")).is_err());
}

#[test]
fn digests_are_of_nothing_to_which_a_link_on_the_way_leads() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("f"), "secret").unwrap();
    std::fs::create_dir_all(root.path().join("a/b")).unwrap();
    std::fs::write(root.path().join("a/b/f"), "abc").unwrap();
    let of = |root: &Path, path: &str| digests(Live::new(), root, &root.join(path)).map(|told| told.sha256);
    assert_eq!(of(root.path(), "a/b/f").ok(), digest(b"abc"));
    symlink(outside.path(), root.path().join("a/out")).unwrap();
    symlink(root.path().join("a"), root.path().join("l")).unwrap();
    for path in ["a/out/f", "l/b/f", "a/../a/b/f"] {
        assert!(of(root.path(), path).is_err(), "{path}");
    }
    // The operator's own links lead to a watched path, and not the path itself.
    assert_eq!(of(&root.path().join("l/b"), "f").ok(), digest(b"abc"));
    assert!(of(&root.path().join("l"), "b/f").is_err());
    assert!(of(Path::new("/"), "../etc/passwd").is_err());
}

#[test]
fn extended_attributes_of_files_and_folders_are_found() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "f", b"x");
    std::fs::create_dir(root.path().join("d")).unwrap();
    let set = |name: &str, attribute: &str, value: &[u8]| {
        let path = root.path().join(name);
        rustix::fs::lsetxattr(&path, attribute, value, rustix::fs::XattrFlags::empty())
    };
    if set("f", "user.b", b"2").is_err() {
        eprintln!("the file system has no extended attributes: not tested");
        return;
    }
    set("f", "user.a", b"1").unwrap();
    set("d", "user.c", b"").unwrap();
    for pace in every() {
        let seen = seen(root.path(), &pace);
        let named = |path: &str| {
            let found = seen.found_of(path).as_ref().unwrap().attributes.iter();
            found.filter(|one| one.name.as_str().starts_with("user.")).cloned().collect::<Vec<_>>()
        };
        let attribute = |name: &str, value: &[u8]| crate::host::xattr::attribute(name.as_bytes(), value);
        assert_eq!(named("f"), [attribute("user.a", b"1"), attribute("user.b", b"2")]);
        assert_eq!(named("d"), [attribute("user.c", b"")]);
    }
}

#[test]
fn extended_attributes_of_links_and_special_files_are_found_without_opening_them() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "target", b"x");
    symlink("target", root.path().join("link")).unwrap();
    fifo(&root.path().join("fifo"));
    let set = |name: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(root.path().join(name), "trusted.muster", value, flags)
    };
    // Only who administers the system may set any on those.
    if set("link", b"of the link").is_err() {
        eprintln!("not the administrator: not tested");
        return;
    }
    set("fifo", b"of the fifo").unwrap();
    set("target", b"of the target").unwrap();
    let seen = seen(root.path(), &one());
    for name in ["link", "fifo", "target"] {
        let value = format!("of the {name}");
        let expected = crate::host::xattr::attribute(b"trusted.muster", value.as_bytes());
        assert!(seen.found_of(name).as_ref().unwrap().attributes.contains(&expected), "{name}");
    }
}

#[test]
fn a_file_with_too_many_extended_attributes_is_a_limit() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "f", b"x");
    for number in 0..=muster_proto::limits::EXTENDED_ATTRIBUTES {
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(root.path().join("f"), format!("user.{number}"), b"", flags).is_err() {
            return;
        }
    }
    let seen = seen(root.path(), &one());
    assert_eq!(seen.found_of("f").as_ref().unwrap_err(), &io::ErrorKind::FileTooLarge);
}
