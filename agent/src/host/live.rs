//! The machine that the agent runs on.
//!
//! Only this module and those below it make system calls. Nothing here writes anything but a walk's unlinked temporary file of names.

#[cfg(target_os = "linux")]
mod attribution;
#[cfg(target_os = "linux")]
mod audit;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod manners;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod netfilter;
#[cfg(unix)]
mod run;
#[cfg(windows)]
#[path = "live/run_windows.rs"]
mod run;
#[cfg(target_os = "linux")]
mod walk;

use std::time::Instant;

#[cfg(target_os = "linux")]
pub use attribution::Attribution;
#[cfg(target_os = "linux")]
pub use manners::yield_to_others;
#[cfg(target_os = "linux")]
pub use memory::give_back as give_back_memory;

/// The machine that the agent runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live {
    deadline: Option<Instant>,
}

impl Live {
    /// Returns the machine without a deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the machine, whose every answer after `deadline` is the error `TimedOut`.
    pub fn until(deadline: Instant) -> Self {
        Self { deadline: Some(deadline) }
    }

    fn check_deadline(self) -> std::io::Result<()> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(std::io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

/// Tells who changes files, where the system can.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub struct Attribution(());

#[cfg(not(target_os = "linux"))]
impl Attribution {
    /// Tells nothing on this system.
    ///
    /// # Errors
    ///
    /// `Unsupported`, always.
    pub fn start(
        _: impl FnOnce() -> Vec<std::path::PathBuf> + Send + 'static,
        _: usize,
        _: std::sync::Arc<crate::fim::actors::Actors>,
    ) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Makes the calling thread yield processors and disks to others, where the system can.
#[cfg(not(target_os = "linux"))]
pub fn yield_to_others() {}

/// Returns memory that is no longer used to the system, where the allocator can.
#[cfg(not(target_os = "linux"))]
pub fn give_back_memory() {}

#[cfg(not(target_os = "linux"))]
mod elsewhere;
