//! Muster's collector: keeps what agents report, judges it, answers questions, and hands evidence out.

pub mod acts;
pub mod config;
pub mod control;
pub mod ctl;
pub mod enroll;
pub mod inbox;
pub mod ingest;
pub mod log;
pub mod members;
pub mod pki;
pub mod serve;
pub mod snapshot;
pub mod views;
