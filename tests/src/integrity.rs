//! What the tests and benchmarks of `muster-agent fim` stand on: trees, changes to them, and another program that looks at both.

pub mod aide;
pub mod bare;
pub mod changes;
pub mod cost;
pub mod own;
pub mod tree;

pub use aide::Aide;
pub use cost::Cost;
pub use own::{Own, Told};
