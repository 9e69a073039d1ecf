//! `muster-agent fim` beside AIDE, on a hostile tree, and killed at random moments.
//!
//! Not among what `cargo test` runs by itself, as it needs AIDE: `tests/run integrity` installs it. In long form with
//! `MUSTER_TEST_SETS=500 MUSTER_TEST_ENTRIES=1000000 MUSTER_TEST_KILLS=300`; `MUSTER_TEST_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

mod integrity {
    mod agent;
    mod differential;
    mod hostile;
    mod kill;
    mod sandbox;
}
