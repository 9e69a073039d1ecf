//! The file-integrity engine: what is watched, the baseline, scans, and what explains a difference.
//!
//! The probe, the agent's loop and `muster-agent fim` all use it. It reaches the machine through [`crate::host::Host`] alone, and
//! evidence comes from scans alone: a notice of a change only says where to look sooner.

pub mod alone;
pub mod show;
pub mod watch_set;
