//! The machine that the agent runs on.
//!
//! Only this module and those below it make system calls. Nothing here writes anything but a walk's unlinked temporary file of names.

#[cfg(target_os = "linux")]
mod audit;
#[cfg(target_os = "linux")]
mod linux;
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

/// Returns memory that is no longer used to the system, where the allocator can.
#[cfg(not(target_os = "linux"))]
pub fn give_back_memory() {}

#[cfg(not(target_os = "linux"))]
mod elsewhere;
