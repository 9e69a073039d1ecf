//! The file-integrity engine: what is watched, the baseline, scans, and what explains a difference.
//!
//! The probe, the agent's loop and `muster-agent fim` all use it. It reaches the machine through [`crate::host::Host`] alone, and
//! evidence comes from scans alone: a notice of a change only says where to look sooner.

pub mod actors;
pub mod alone;
mod baseline;
mod block;
mod bytes;
pub mod check;
mod cover;
mod draft;
pub mod explain;
mod found;
mod inode_times;
mod known;
mod legacy;
pub mod manners;
mod merge;
mod mounts;
mod place;
pub mod progress;
mod record;
pub mod scans;
pub mod sets;
mod shares;
pub mod show;
mod slots;
pub mod store;
mod survey;
mod tally;
pub mod watch_set;

pub use check::{Actors, Depth, Error, Request, Scope, check, each_change, left, take_baseline, verify};
pub use merge::Stats;
pub use place::{is_at_or_below, order};
pub use progress::Progress;
pub use sets::Sets;
pub use store::Store;
pub use tally::Outcome;
pub(crate) use tally::listed;

#[cfg(test)]
mod tests;
