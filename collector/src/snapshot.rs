//! Snapshots: one instant of the fleet as a file that proves itself.
//!
//! A snapshot is a pure function of the evidence log's first entries, an instant, a catalogue and a scope ([`bundle`]). Whoever has
//! the file, and nothing else, can check it and judge again ([`verify`]): both go through the same [`select`] and [`fleet`].

pub mod archive;
pub mod bundle;
pub mod csv;
pub mod fleet;
pub mod make;
pub mod manifest;
mod readme;
pub mod select;
pub mod service;
pub mod signature;
pub mod store;
mod tables;
#[cfg(test)]
mod tests;
pub mod verify;
