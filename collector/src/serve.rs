//! The listener and what stands before every service.

pub mod status;
