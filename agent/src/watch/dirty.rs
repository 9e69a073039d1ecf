//! Where something changed since the last scan, as far as was noticed: a bounded set of paths. Pure.
//!
//! Beyond its bound it gets coarser instead of larger: paths become their folder, folders theirs, and in the end
//! everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Paths that are kept apart, at most.
pub const PATHS: usize = 1024;

/// Where something changed. An empty one says that nothing did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dirty {
    is_everything: bool,
    paths: BTreeSet<Vec<u8>>,
    /// The watched paths: nothing gets coarser than these.
    roots: Arc<BTreeSet<Vec<u8>>>,
}

/// What is to be looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Places {
    /// Everything that is watched.
    Everything,
    /// These paths with what is below them, sorted; none lies below another.
    Below(Vec<Vec<u8>>),
}

impl Dirty {
    /// Returns a set in which nothing changed. `roots` are the watched paths.
    pub fn new(roots: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { roots: Arc::new(roots.into_iter().collect()), ..Self::default() }
    }

    /// Returns a set that says that anything may have changed.
    pub fn everything() -> Self {
        Self { is_everything: true, ..Self::default() }
    }

    /// Returns whether nothing changed.
    pub fn is_empty(&self) -> bool {
        !self.is_everything && self.paths.is_empty()
    }

    /// Returns whether anything may have changed.
    pub fn is_everything(&self) -> bool {
        self.is_everything
    }

    /// Takes note that something changed at or below `path`.
    pub fn add(&mut self, path: &[u8]) {
        if self.is_everything || self.paths.contains(path) {
            return;
        }
        self.paths.insert(path.to_vec());
        if self.paths.len() > PATHS {
            self.coarsen();
        }
    }

    /// Takes note that anything may have changed.
    pub fn add_everything(&mut self) {
        self.is_everything = true;
        self.paths.clear();
    }

    /// Takes over what `other` knows.
    pub fn merge(&mut self, other: Self) {
        if other.is_everything {
            self.add_everything();
        }
        if !other.roots.is_empty() {
            self.roots = other.roots;
        }
        for path in other.paths {
            self.add(&path);
        }
    }

    /// Returns what is to be looked at, and forgets it.
    pub fn take(&mut self) -> Places {
        if std::mem::take(&mut self.is_everything) {
            self.paths.clear();
            return Places::Everything;
        }
        let paths = std::mem::take(&mut self.paths);
        let is_top = |path: &Vec<u8>| !above(path).any(|folder| paths.contains(folder));
        Places::Below(paths.iter().filter(|path| is_top(path)).cloned().collect())
    }

    /// Returns a set of nothing with the same watched paths, and leaves nothing behind.
    #[must_use]
    pub fn split_off(&mut self) -> Self {
        let empty = Self { roots: Arc::clone(&self.roots), ..Self::default() };
        std::mem::replace(self, empty)
    }

    /// Halves the number of paths at least: folders with the most changed names stand for them first.
    fn coarsen(&mut self) {
        while self.paths.len() > PATHS / 2 {
            let mut by_folder = BTreeMap::<Vec<u8>, usize>::new();
            for path in &self.paths {
                if let Some(folder) = self.coarser(path) {
                    *by_folder.entry(folder.to_vec()).or_default() += 1;
                }
            }
            let mut folders: Vec<_> = by_folder.into_iter().collect();
            folders.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            // With one name in each folder, all become their folders: the next round finds them closer together.
            let is_spread = folders.first().is_none_or(|(_, count)| *count < 2);
            if folders.is_empty() {
                return self.add_everything();
            }
            for (folder, count) in folders {
                if !is_spread && (count < 2 || self.paths.len() <= PATHS / 2) {
                    break;
                }
                let roots = Arc::clone(&self.roots);
                self.paths.retain(|path| roots.contains(path) || parent(path) != Some(&folder));
                self.paths.insert(folder);
            }
        }
    }

    /// Returns the folder that may stand for `path`; `None` for a watched path.
    fn coarser<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        if self.roots.contains(path) { None } else { parent(path) }
    }
}

/// Returns the folder that holds `path`; `None` for `/` and for what is directly in it.
fn parent(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    (slash > 0).then(|| &path[..slash])
}

/// Returns the folders above `path`, from the nearest on.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(parent(path), |folder| parent(folder))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(roots: &[&str], paths: impl IntoIterator<Item = String>) -> Dirty {
        let mut dirty = Dirty::new(roots.iter().map(|root| root.as_bytes().to_vec()));
        paths.into_iter().for_each(|path| dirty.add(path.as_bytes()));
        dirty
    }

    fn below(paths: &[&str]) -> Places {
        Places::Below(paths.iter().map(|path| path.as_bytes().to_vec()).collect())
    }

    #[test]
    fn a_path_below_another_is_not_looked_at_twice() {
        let paths = ["/etc/a", "/etc/a-b", "/etc/a/b", "/etc/a/b/c", "/usr/bin/x"];
        let mut dirty = of(&["/etc", "/usr/bin"], paths.map(str::to_owned));
        assert_eq!(dirty.take(), below(&["/etc/a", "/etc/a-b", "/usr/bin/x"]));
        assert!(dirty.is_empty());
    }

    #[test]
    fn too_many_paths_become_the_folder_that_holds_most_of_them() {
        let many = (0..PATHS).map(|at| format!("/etc/many/{at}"));
        let mut dirty = of(&["/etc", "/usr/bin"], many.chain(["/usr/bin/x".to_owned()]));
        assert_eq!(dirty.take(), below(&["/etc/many", "/usr/bin/x"]));
    }

    #[test]
    fn paths_far_apart_become_what_is_above_them_and_never_more_than_the_watched_paths() {
        let apart = (0..=PATHS).map(|at| format!("/etc/{}/{at}/x/y", at % 3));
        let Places::Below(places) = of(&["/etc", "/usr/bin"], apart).take() else { panic!("two folders would do") };
        assert!(
            places.contains(&b"/etc/0".to_vec()) && places.contains(&b"/etc/1".to_vec()) && places.len() <= PATHS / 2
        );
        let roots: Vec<_> = (0..=PATHS).map(|at| format!("/etc/{at}")).collect();
        let names: Vec<_> = roots.iter().map(String::as_str).collect();
        assert_eq!(of(&names, roots.iter().map(|root| format!("{root}/x"))).take(), Places::Everything);
    }

    #[test]
    fn everything_stays_everything() {
        let mut dirty = of(&["/etc"], ["/etc/a".to_owned()]);
        dirty.merge(Dirty::everything());
        dirty.add(b"/etc/b");
        assert!(dirty.is_everything());
        assert_eq!(dirty.take(), Places::Everything);
        assert_eq!(dirty.take(), below(&[]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn whatever_changed_is_covered_by_what_is_looked_at(
            paths in prop::collection::vec("(/[ab-]{1,2}){1,5}", 0..1_200), extra in 0_usize..1_500
        ) {
            let extra = (0..extra).map(|at| format!("/c/{}/{at}", at % 7));
            let paths: Vec<_> = paths.into_iter().chain(extra).collect();
            let mut dirty = of(&["/a", "/b", "/c", "/-"], paths.iter().cloned());
            if let Places::Below(places) = dirty.take() {
                prop_assert!(places.len() <= PATHS);
                for path in paths {
                    let path = path.as_bytes();
                    let covers = |place: &Vec<u8>| place == path || above(path).any(|folder| folder == place);
                    prop_assert_eq!(places.iter().filter(|place| covers(place)).count(), 1);
                }
            }
        }
    }
}
