//! Watch sets: named sets of paths that are watched alike. What both ends must agree on is in the contract.

pub use muster_proto::watch_set::{Attributes, Error, WatchSet, check, from_wire};
