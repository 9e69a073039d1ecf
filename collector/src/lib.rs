//! Muster's collector: keeps what agents report, judges it, answers questions, and hands evidence out.

pub mod members;
pub mod serve;
