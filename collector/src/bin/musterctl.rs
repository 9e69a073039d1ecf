//! `musterctl`: see [`muster_collector::ctl`].

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_collector::ctl::main()
}
