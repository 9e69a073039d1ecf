//! An agent of the tests' own: it enrols, chains, seals and streams as the contract says, and breaks each rule when asked.
//!
//! It shares only the contract (`muster-proto`) with the real agent.

pub mod admin;
pub mod chain;
pub mod identity;
pub mod invent;
pub mod raw;
pub mod session;
pub mod steady;
pub mod wire;

pub use admin::Admin;
pub use chain::Chain;
pub use identity::Identity;
pub use session::{Event, Session};
pub use wire::Target;
