//! A hostile enrolled agent: what it may send, what it is told, and that it harms nobody else.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

mod hostile {
    pub mod chain;
    pub mod content;
    pub mod frames;
    pub mod identity;
}
