//! Which folders are watched, where they lie, and which are only scanned. Pure: what the kernel is told follows from
//! it.

use std::collections::{BTreeMap, HashMap};

use muster_proto::{
    fact::{PathText, Unknown, UnreadablePath, WatchState},
    limits,
};

use super::{super::Coverage, kernel::Wd};

/// Topmost folders that are only scanned and kept by name, at most. The rest is counted.
const TOPS: usize = 1_000;

/// The watched folders.
#[derive(Debug, Default)]
pub struct Tree {
    folders: HashMap<Wd, Folder>,
    /// The watched paths that are folders, by number.
    roots: BTreeMap<usize, Wd>,
    tops: BTreeMap<Vec<u8>, Top>,
    /// Topmost folders beyond those in `tops`, and all folders at and below them.
    more: (u64, u64),
    generation: u64,
}

#[derive(Debug)]
struct Folder {
    place: Place,
    /// Watched folders directly in it, by name.
    children: BTreeMap<Box<[u8]>, Wd>,
    /// The walk that saw it last.
    generation: u64,
}

/// Where a watched folder lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// It is the watched path of this number.
    Root(usize, Box<[u8]>),
    /// It has this name in a watched folder.
    In(Wd, Box<[u8]>),
}

/// A folder that is only scanned, with everything below it.
#[derive(Debug)]
struct Top {
    unknown: Unknown,
    /// It, and the folders below it.
    folders: u64,
}

/// What became of a folder that is to be watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Placed {
    /// It was not watched before, or lay somewhere else.
    New,
    /// It was watched there before.
    Known,
    /// The walk under way saw it before, under another path: what happens in it is told under that one.
    Twice,
}

impl Tree {
    /// Begins a walk of all watched paths. What it does not see is gone at its end.
    pub fn begin(&mut self) {
        self.generation += 1;
        self.tops.clear();
        self.more = (0, 0);
    }

    /// Begins a walk of what is at and below `path`.
    pub fn begin_at(&mut self, path: &[u8]) {
        self.generation += 1;
        self.forget_scan_only(path);
    }

    /// Ends a walk of all watched paths, and returns the folders that are there no more.
    pub fn end(&mut self) -> Vec<Wd> {
        let generation = self.generation;
        let is_gone = |folder: &Folder| folder.generation != generation;
        let gone: Vec<Wd> =
            self.folders.iter().filter(|(_, folder)| is_gone(folder)).map(|(number, _)| *number).collect();
        for number in &gone {
            self.detach(*number);
        }
        self.folders.retain(|_, folder| !is_gone(folder));
        gone
    }

    /// Takes note that the folder of `number` lies at `place`.
    pub fn place(&mut self, number: Wd, place: Place) -> Placed {
        let generation = self.generation;
        if let Some(known) = self.folders.get_mut(&number) {
            if known.place == place {
                known.generation = generation;
                return Placed::Known;
            }
            // A folder that lies below itself would have no path.
            if known.generation == generation && self.is_where_it_was(number) || self.is_below(&place, number) {
                return Placed::Twice;
            }
            self.detach(number);
        }
        match &place {
            Place::Root(root, _) => drop(self.roots.insert(*root, number)),
            Place::In(parent, name) => {
                if let Some(parent) = self.folders.get_mut(parent) {
                    parent.children.insert(name.clone(), number);
                }
            }
        }
        let folder = self.folders.entry(number).or_insert(Folder {
            place: place.clone(),
            children: BTreeMap::new(),
            generation,
        });
        (folder.place, folder.generation) = (place, generation);
        Placed::New
    }

    /// Takes note that `path` and everything below it is only scanned, and why.
    pub fn scan_only(&mut self, path: &[u8], folders: u64, unknown: Unknown) {
        if self.tops.len() < TOPS {
            self.tops.insert(path.to_vec(), Top { unknown, folders });
        } else {
            self.more = (self.more.0 + 1, self.more.1 + folders);
        }
    }

    /// Returns whether some folder is only scanned.
    pub fn has_scan_only(&self) -> bool {
        !self.tops.is_empty() || self.more.0 > 0
    }

    /// Forgets what is only scanned at and below `path`, which is to be walked again or is gone.
    pub fn forget_scan_only(&mut self, path: &[u8]) {
        self.tops.retain(|top, _| !is_at_or_below(top, path));
    }

    /// Returns the number of the folder with `name` in the folder `parent`.
    pub fn child(&self, parent: Wd, name: &[u8]) -> Option<Wd> {
        self.folders.get(&parent)?.children.get(name).copied()
    }

    /// Returns the number of the folder that lies at `below` the watched path of number `root`; nothing when it is not
    /// watched.
    pub fn find(&self, root: usize, below: &[u8]) -> Option<Wd> {
        let start = *self.roots.get(&root)?;
        below
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .try_fold(start, |at, name| self.child(at, name))
    }

    /// Returns the number of the watched path and the path of the folder of `number`.
    pub fn path(&self, number: Wd) -> Option<(usize, Vec<u8>)> {
        let mut names = Vec::new();
        let mut at = number;
        loop {
            match &self.folders.get(&at)?.place {
                Place::Root(root, path) => {
                    let mut path = path.to_vec();
                    for name in names.into_iter().rev() {
                        push(&mut path, name);
                    }
                    return Some((*root, path));
                }
                Place::In(parent, name) => {
                    names.push(&**name);
                    at = *parent;
                }
            }
        }
    }

    /// Forgets a folder and all below it. Returns their numbers.
    pub fn remove(&mut self, number: Wd) -> Vec<Wd> {
        self.detach(number);
        let (mut removed, mut waiting) = (Vec::new(), vec![number]);
        while let Some(number) = waiting.pop() {
            if let Some(folder) = self.folders.remove(&number) {
                waiting.extend(folder.children.values());
                removed.push(number);
            }
        }
        removed
    }

    /// Returns the number of watched folders.
    pub fn len(&self) -> usize {
        self.folders.len()
    }

    /// Returns whether the folder of `number` is watched.
    pub fn has(&self, number: Wd) -> bool {
        self.folders.contains_key(&number)
    }

    /// Returns what is watched and what is not.
    pub fn coverage(&self) -> Coverage {
        let (folders_live, tops) = (self.folders.len() as u64, self.tops.len() as u64);
        let state = match (folders_live, self.has_scan_only()) {
            (0, _) => WatchState::ScanOnly,
            (_, true) => WatchState::Partial,
            (_, false) => WatchState::Live,
        };
        let named = self.tops.iter().take(limits::UNREADABLE_PATHS);
        Coverage {
            state,
            folders_live,
            folders_scan_only: self.tops.values().map(|top| top.folders).sum::<u64>() + self.more.1,
            scan_only: named
                .map(|(path, top)| UnreadablePath { path: PathText::from_bytes(path), unknown: top.unknown.clone() })
                .collect(),
            scan_only_total: tops + self.more.0,
        }
    }

    /// Takes a folder out of the one that it lies in.
    fn detach(&mut self, number: Wd) {
        match self.folders.get(&number).map(|folder| folder.place.clone()) {
            Some(Place::Root(root, _)) if self.roots.get(&root) == Some(&number) => drop(self.roots.remove(&root)),
            Some(Place::In(parent, name)) => {
                if let Some(parent) = self.folders.get_mut(&parent)
                    && parent.children.get(&name) == Some(&number)
                {
                    parent.children.remove(&name);
                }
            }
            Some(Place::Root(..)) | None => {}
        }
    }

    /// Returns whether no later name took the place of the folder of `number`.
    fn is_where_it_was(&self, number: Wd) -> bool {
        match self.folders.get(&number).map(|folder| &folder.place) {
            Some(Place::In(parent, name)) => self.child(*parent, name) == Some(number),
            Some(Place::Root(root, _)) => self.roots.get(root) == Some(&number),
            None => false,
        }
    }

    fn is_below(&self, place: &Place, number: Wd) -> bool {
        let mut place = place;
        while let Place::In(parent, _) = place {
            if *parent == number {
                return true;
            }
            match self.folders.get(parent) {
                Some(folder) => place = &folder.place,
                None => return false,
            }
        }
        false
    }
}

/// Appends `name` to `path`.
pub fn push(path: &mut Vec<u8>, name: &[u8]) {
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Returns whether `path` is `root` or below it.
pub fn is_at_or_below(path: &[u8], root: &[u8]) -> bool {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::Cause;

    use super::*;

    fn at(parent: i32, name: &str) -> Place {
        Place::In(Wd::of(parent), name.as_bytes().into())
    }

    fn root(number: usize, path: &str) -> Place {
        Place::Root(number, path.as_bytes().into())
    }

    /// `/etc` (1) with `a` (2) and `a/b` (3) in it.
    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.begin();
        for (number, place) in [(1, root(0, "/etc")), (2, at(1, "a")), (3, at(2, "b"))] {
            assert_eq!(tree.place(Wd::of(number), place), Placed::New);
        }
        assert_eq!(tree.end(), []);
        tree
    }

    fn path(tree: &Tree, number: i32) -> Option<String> {
        tree.path(Wd::of(number)).map(|(_, path)| String::from_utf8(path).unwrap())
    }

    #[test]
    fn a_folder_is_found_by_its_path_and_its_path_by_its_number() {
        let mut tree = tree();
        assert_eq!(path(&tree, 3).as_deref(), Some("/etc/a/b"));
        assert_eq!((tree.find(0, b"a/b"), tree.find(0, b"")), (Some(Wd::of(3)), Some(Wd::of(1))));
        assert_eq!((tree.find(0, b"b"), tree.find(1, b"")), (None, None));
        tree.place(Wd::of(9), root(1, "/"));
        tree.place(Wd::of(10), at(9, "srv"));
        assert_eq!(path(&tree, 10).as_deref(), Some("/srv"));
    }

    #[test]
    fn what_is_moved_takes_what_is_below_it_along() {
        let mut tree = tree();
        tree.begin_at(b"/etc/c");
        assert_eq!(tree.place(Wd::of(2), at(1, "c")), Placed::New);
        assert_eq!(path(&tree, 3).as_deref(), Some("/etc/c/b"));
        assert_eq!((tree.find(0, b"a"), tree.len()), (None, 3));
        // The late notice that it went takes nothing away, since no folder has that name.
        assert_eq!(tree.child(Wd::of(1), b"a"), None);
        let mut gone = tree.remove(Wd::of(2));
        gone.sort();
        assert_eq!((gone, tree.len()), (vec![Wd::of(2), Wd::of(3)], 1));
    }

    #[test]
    fn what_a_walk_of_everything_does_not_see_is_gone() {
        let mut tree = tree();
        tree.begin();
        assert_eq!(tree.place(Wd::of(1), root(0, "/etc")), Placed::Known);
        assert_eq!(tree.place(Wd::of(3), at(1, "b")), Placed::New);
        assert_eq!(tree.end(), [Wd::of(2)]);
        assert_eq!((path(&tree, 3).as_deref(), tree.find(0, b"a"), tree.len()), (Some("/etc/b"), None, 2));
    }

    #[test]
    fn a_folder_that_one_walk_sees_twice_keeps_its_first_path_and_never_lies_below_itself() {
        let mut tree = tree();
        tree.begin();
        tree.place(Wd::of(1), root(0, "/etc"));
        tree.place(Wd::of(2), at(1, "a"));
        assert_eq!(tree.place(Wd::of(2), at(1, "mounted")), Placed::Twice);
        assert_eq!(path(&tree, 2).as_deref(), Some("/etc/a"));
        tree.begin_at(b"/etc/a/b");
        assert_eq!(tree.place(Wd::of(1), at(3, "loop")), Placed::Twice);
        assert_eq!(path(&tree, 3).as_deref(), Some("/etc/a/b"));
    }

    #[test]
    fn what_is_only_scanned_is_counted_to_the_last_folder() {
        let mut tree = tree();
        let unknown = || Unknown::new(Cause::Limit, "no more");
        for number in 0..TOPS + 5 {
            tree.scan_only(format!("/etc/a/{number:05}").as_bytes(), 3, unknown());
        }
        let coverage = tree.coverage();
        assert_eq!((coverage.state, coverage.folders_live), (WatchState::Partial, 3));
        assert_eq!((coverage.folders_scan_only, coverage.scan_only_total), (3_015, 1_005));
        assert_eq!((coverage.scan_only.len(), tree.has_scan_only()), (100, true));
        tree.begin();
        tree.scan_only(b"/etc/a", 2, unknown());
        tree.scan_only(b"/etc/a-b", 1, unknown());
        tree.begin_at(b"/etc/a");
        assert_eq!((tree.coverage().folders_scan_only, tree.has_scan_only()), (1, true));
    }
}
