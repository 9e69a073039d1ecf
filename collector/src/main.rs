//! `muster-collector`: see [`muster_collector`].

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_collector::main()
}
