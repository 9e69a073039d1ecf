//! What can go wrong with the store, at the moment at which a test wants it.

use std::{
    path::Path,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Error, Inbox,
    store::{Failed, Store},
};

/// What happens to the next frame that is on its way to the store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The store refuses it.
    Refuse,
    /// The store keeps something else in its place.
    Spoil,
    /// The store does not take it before another fault is set.
    Block,
    /// The inbox's thread panics over it.
    Panic,
}

#[derive(Default)]
pub(super) struct Faults {
    next: Mutex<Fault>,
    changed: Condvar,
    is_opening_barred: AtomicBool,
}

impl Faults {
    /// Returns what happens instead of storing a frame; `None` when it is to be stored.
    pub(super) fn meet(&self, store: &Store, number: u64) -> Option<Result<(), Failed>> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next =
            self.changed.wait_while(next, |fault| *fault == Fault::Block).unwrap_or_else(PoisonError::into_inner);
        match std::mem::take(&mut *next) {
            Fault::None | Fault::Block => None,
            Fault::Refuse => Some(Err(Failed::Gone)),
            Fault::Spoil => {
                store.put(number, b"spoiled");
                Some(Ok(()))
            }
            Fault::Panic => {
                drop(next);
                panic!("as the test wants it");
            }
        }
    }
}

impl Faults {
    /// Returns whether a new store may be opened in `dir`.
    pub(super) fn may_open(&self, dir: &Path) -> Result<(), Error> {
        if self.is_opening_barred.load(Ordering::SeqCst) {
            return Err(Error::Open { path: dir.to_owned(), source: "the test wants it so".into() });
        }
        Ok(())
    }
}

impl Inbox {
    /// Says whether opening a new store fails.
    pub(crate) fn fail_opening(&self, is_barred: bool) {
        self.shared.faults.is_opening_barred.store(is_barred, Ordering::SeqCst);
    }

    /// Makes `fault` happen to the next frame.
    pub(crate) fn fail_next(&self, fault: Fault) {
        *self.shared.faults.next.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        self.shared.faults.changed.notify_all();
    }
}
