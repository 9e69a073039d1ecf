//! Muster's contract: the wire format and the rules that both ends and an auditor must agree on.
//!
//! Nothing here does I/O, and only [`time::SystemClock`] reads a clock.

pub mod caller;
pub mod fact;
pub mod fact_set;
pub mod id;
pub mod limits;
pub mod report;
pub mod seal;
pub mod time;
pub mod watch_set;
pub mod words;

/// Generated from `muster/v1/*.proto`, which documents it.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("muster.v1");
}

/// The encoded descriptors of the contract, for reflection and for tests that compare it with tables.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/muster.bin"));
