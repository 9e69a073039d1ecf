//! What the next scan of file integrity looks at, and whether lost notices are to be told. Pure.

use super::Reach;
use crate::{
    schedule::Why,
    watch::{Dirty, Places},
};

/// What was hinted at since the last scan began.
#[derive(Debug, Default)]
pub struct Scans {
    dirty: Dirty,
    lost: Lost,
}

/// Notices that were lost since the last scan of everything began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Lost {
    /// None.
    #[default]
    Nothing,
    /// Some, and that was told.
    Told,
    /// More since that was told.
    Untold,
}

impl Scans {
    /// Takes note of where something changed, and returns why a scan is to follow.
    pub fn hinted(&mut self, dirty: Dirty) -> Why {
        self.dirty.merge(dirty);
        if self.dirty.is_everything() {
            // The schedule keeps that in mind. Places that are known are not to wait for it.
            self.dirty.take();
            return Why::Hinted;
        }
        Why::HintedAt
    }

    /// Takes note that notices were lost. Returns whether that is to be told now: in a flood it is told once for each
    /// scan of everything, and what is lost meanwhile when that begins.
    pub fn lost(&mut self) -> bool {
        let is_first = self.lost == Lost::Nothing;
        self.lost = if is_first { Lost::Told } else { Lost::Untold };
        is_first
    }

    /// Returns whether more was lost than was told, which is told by now.
    pub fn tell_lost(&mut self) -> bool {
        self.lost == Lost::Untold && std::mem::replace(&mut self.lost, Lost::Told) == Lost::Untold
    }

    /// Returns how far a scan reaches that begins now. Everything includes every place.
    pub fn begin(&mut self, why: Why) -> Reach {
        let reach = match (why, self.dirty.take()) {
            (Why::Asked, _) => Reach::Full,
            (Why::Due | Why::Hinted, _) | (Why::HintedAt, Places::Everything) => Reach::Quick,
            (Why::HintedAt, Places::Below(paths)) => Reach::At(paths),
        };
        if reach.is_whole() {
            self.lost = Lost::Nothing;
        }
        reach
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Dirty {
        let mut dirty = Dirty::new([b"/etc".to_vec()]);
        dirty.add(path.as_bytes());
        dirty
    }

    #[test]
    fn a_scan_looks_where_something_changed_and_once() {
        let mut scans = Scans::default();
        assert_eq!((scans.hinted(at("/etc/a")), scans.hinted(at("/etc/b"))), (Why::HintedAt, Why::HintedAt));
        assert_eq!(scans.begin(Why::HintedAt), Reach::At(vec![b"/etc/a".to_vec(), b"/etc/b".to_vec()]));
        assert_eq!(scans.begin(Why::HintedAt), Reach::At(vec![]));
    }

    #[test]
    fn a_place_that_is_known_does_not_wait_for_a_scan_of_everything() {
        let mut scans = Scans::default();
        assert_eq!(scans.hinted(Dirty::everything()), Why::Hinted);
        assert_eq!(scans.hinted(at("/etc/a")), Why::HintedAt);
        assert_eq!(scans.begin(Why::HintedAt), Reach::At(vec![b"/etc/a".to_vec()]));
        scans.hinted(at("/etc/b"));
        assert_eq!(scans.begin(Why::Hinted), Reach::Quick);
        assert_eq!((scans.begin(Why::HintedAt), scans.begin(Why::Asked)), (Reach::At(vec![]), Reach::Full));
    }

    #[test]
    fn lost_notices_are_told_once_for_each_scan_of_everything_and_none_is_forgotten() {
        let mut scans = Scans::default();
        assert!(scans.lost() && !scans.tell_lost());
        assert!(!scans.lost() && !scans.lost());
        scans.begin(Why::HintedAt);
        assert!(!scans.lost(), "a scan of some places makes up for nothing");
        assert!(scans.tell_lost() && !scans.tell_lost());
        scans.begin(Why::Hinted);
        assert!(!scans.tell_lost() && scans.lost());
    }
}
