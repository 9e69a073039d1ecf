//! Muster's agent: looks at one machine and gets sealed reports out.
//!
//! What it observes never becomes a verdict here, and nothing that a collector says makes it run a command or open a path.

pub mod chain;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod connect;
pub mod enroll;
pub mod fim;
pub mod host;
pub mod identity;
pub mod inspect;
pub mod looker;
pub mod moment;
pub mod probe;
pub mod prober;
pub mod report;
pub mod run;
pub mod schedule;
pub mod spool;
pub mod status;
pub mod uplink;
pub mod watch;

#[cfg(test)]
mod testing;

pub use cli::main;
