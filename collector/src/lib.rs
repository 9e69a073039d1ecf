//! Muster's collector: keeps what agents report, judges it, answers questions, and hands evidence out.

pub mod acts;
pub mod admin;
mod cli;
pub mod config;
pub mod control;
pub mod ctl;
pub mod data;
pub mod enroll;
pub mod inbox;
pub mod ingest;
pub mod init;
pub mod judge;
pub mod log;
pub mod members;
pub mod metrics;
pub mod pki;
pub mod profile;
pub mod query;
pub mod run;
pub mod serve;
pub mod snapshot;
pub mod views;

pub use cli::main;
