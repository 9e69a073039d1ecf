//! The watch of Linux, by inotify(7), folder by folder: so it can say to the exact count what is watched and what is
//! not.
//!
//! Not through notify, whose inotify side asks for a notice of every file that is opened: in folders of programs and
//! libraries those are more than all others together, and they fill the queue with what changed nothing.

mod kernel;
mod tree;
mod walk;
mod worker;

use std::{io, sync::Arc};

use muster_proto::fact::{Cause, Unknown};

use self::{
    kernel::{Kernel, Waker},
    worker::{Worker, count},
};
use super::{Plan, Shared};
use crate::host;

/// A watch under way.
pub enum Watching {
    /// A thread takes notices.
    Live(Waker),
    /// Nothing is watched, for this reason. Folders are counted.
    Not(Plan, Unknown, Arc<Shared>),
}

impl Watching {
    /// Starts to watch, or finds out why not.
    pub fn start(plan: Plan, shared: &Arc<Shared>) -> Self {
        let refused = match plan.folders {
            0 => Unknown::new(Cause::Limit, "the setting watched_folders lets no folder be watched"),
            _ => match live(plan.clone(), shared) {
                Ok(waker) => return Self::Live(waker),
                Err(error) => {
                    tracing::warn!(%error, "changes of files are only found by scans");
                    host::unknown("watch", &error)
                }
            },
        };
        let watching = Self::Not(plan, refused, Arc::clone(shared));
        watching.wake();
        watching
    }

    /// Makes it notice that it is to end, or to go through all folders again.
    pub fn wake(&self) {
        match self {
            Self::Live(waker) => waker.wake(),
            Self::Not(_, _, shared) if shared.is_stopped() => {}
            Self::Not(plan, refused, shared) => {
                let (plan, refused, shared) = (plan.clone(), refused.clone(), Arc::clone(shared));
                let tell = move || {
                    let coverage = count(&plan, &shared, refused).coverage();
                    shared.tell(super::Dirty::default(), false, false, false, coverage);
                };
                if let Err(error) = std::thread::Builder::new().name("watch".to_owned()).spawn(tell) {
                    tracing::warn!(%error, "the folders that are only scanned are not counted");
                }
            }
        }
    }
}

fn live(plan: Plan, shared: &Arc<Shared>) -> io::Result<Waker> {
    let kernel = Kernel::open()?;
    let waker = kernel.waker()?;
    let worker = Worker::new(kernel, plan, Arc::clone(shared));
    // On a file system that hangs it never ends, so that nobody waits for it.
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || worker.run())?;
    Ok(waker)
}
