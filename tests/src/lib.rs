//! What whole-system tests and benchmarks stand on. Nothing here is part of a product.
//!
//! [`harness`] runs the real programs in folders of their own. [`load`] is an agent of the tests' own, which keeps the protocol and
//! can break it in every way. [`bench`] measures. [`evidence`] reads an evidence log from its files, without any code of the
//! collector. [`integrity`] makes trees and changes to them, and looks at both by other programs. [`foreign`] lists the parsers that meet
//! bytes from elsewhere.

pub mod bench;
pub mod evidence;
pub mod foreign;
pub mod harness;
pub mod integrity;
pub mod load;
