//! Snapshots: one instant of the fleet as a file that proves itself.
//!
//! A snapshot is a pure function of the evidence log's first entries, an instant, a catalogue and a scope ([`bundle`]). Whoever has
//! the file, and nothing else, can check it and judge again ([`verify`]).

pub mod archive;
pub mod csv;
