//! Which processes were seen writing to watched files: a bounded memory of what the kernel told, and never evidence of more.
//!
//! The kernel drops notices when many come at once, a process may be gone before it can be looked at, and a write through a
//! mapping is never told. So an actor is named where there is one, and the lack of one says nothing.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use muster_proto::{fact::Actor, limits::ACTORS, time::Timestamp};

/// Notices that are remembered, at most; the oldest give way.
const REMEMBERED: usize = 4096;

/// What is remembered of who wrote to which path.
#[derive(Debug, Default)]
pub struct Actors {
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// In the order in which they were told.
    notices: VecDeque<Notice>,
    forgotten: u64,
}

#[derive(Clone, Debug)]
struct Notice {
    path: Box<[u8]>,
    actor: Actor,
}

impl Actors {
    /// Remembers that `actor` changed `path`.
    pub fn add(&self, path: &[u8], actor: Actor) {
        let mut ring = self.lock();
        if ring.notices.len() == REMEMBERED {
            ring.notices.pop_front();
            ring.forgotten += 1;
        }
        ring.notices.push_back(Notice { path: path.into(), actor });
    }

    /// Takes note that process `pid` changed `path` again at `now`, if it is among the last that were remembered: a program
    /// that writes many times is looked at once. Returns whether it was.
    pub fn is_again(&self, path: &[u8], pid: u32, now: Timestamp) -> bool {
        let mut ring = self.lock();
        let recent = ring.notices.iter_mut().rev().take(64);
        let known = recent.into_iter().find(|notice| notice.actor.pid == pid && *notice.path == *path);
        known.map(|notice| notice.actor.time = now).is_some()
    }

    /// Returns who changed `path` in `[from, to]`, each process once, newest last; at most [`ACTORS`].
    pub fn between(&self, path: &[u8], from: Timestamp, to: Timestamp) -> Vec<Actor> {
        let ring = self.lock();
        let of_path = ring.notices.iter().filter(|notice| *notice.path == *path);
        let mut found: Vec<Actor> = Vec::new();
        for notice in of_path.filter(|notice| from <= notice.actor.time && notice.actor.time <= to) {
            found.retain(|actor| actor.pid != notice.actor.pid || actor.program != notice.actor.program);
            found.push(notice.actor.clone());
        }
        drop(ring);
        found.sort_by_key(|actor| actor.time);
        found.drain(..found.len().saturating_sub(ACTORS));
        found
    }

    /// Returns how many notices gave way to later ones.
    pub fn forgotten(&self) -> u64 {
        self.lock().forgotten
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        // Nothing under this lock can panic between two writes that belong together.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::{Cause, Reading};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds).unwrap()
    }

    fn actor(pid: u32, seconds: i64) -> Actor {
        Actor {
            time: at(seconds),
            pid,
            program: Reading::Known("/usr/bin/vi".into()),
            uid: Reading::Known(0),
            login_uid: Reading::unknown(Cause::Absent, ""),
            parent_pid: Reading::Known(1),
            parent_program: Reading::Known("/usr/bin/bash".into()),
            source: "fanotify".into(),
        }
    }

    fn pids(found: &[Actor]) -> Vec<u32> {
        found.iter().map(|actor| actor.pid).collect()
    }

    #[test]
    fn a_change_names_who_wrote_to_that_path_within_its_window() {
        let actors = Actors::default();
        for (path, pid, time) in [("/a", 1, 10), ("/b", 2, 20), ("/a", 3, 30), ("/a", 1, 40)] {
            actors.add(path.as_bytes(), actor(pid, time));
        }
        assert_eq!(pids(&actors.between(b"/a", at(0), at(100))), [3, 1]);
        assert_eq!(pids(&actors.between(b"/a", at(30), at(39))), [3]);
        assert!(actors.between(b"/c", at(0), at(100)).is_empty());
    }

    #[test]
    fn a_process_that_goes_on_writing_is_remembered_once_with_its_last_time() {
        let actors = Actors::default();
        actors.add(b"/a", actor(1, 10));
        assert!(actors.is_again(b"/a", 1, at(50)));
        assert!(!actors.is_again(b"/b", 1, at(50)));
        assert!(!actors.is_again(b"/a", 2, at(50)));
        assert_eq!(pids(&actors.between(b"/a", at(40), at(60))), [1]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_gave_way_is_counted() {
        let actors = Actors::default();
        for pid in 0..REMEMBERED as u32 + 10 {
            actors.add(b"/a", actor(pid, 1));
        }
        assert_eq!(actors.forgotten(), 10);
        let found = actors.between(b"/a", at(0), at(2));
        assert_eq!(pids(&found), ((REMEMBERED as u32 + 2)..(REMEMBERED as u32 + 10)).collect::<Vec<_>>());
    }
}
