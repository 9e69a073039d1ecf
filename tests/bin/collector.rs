//! The collector, built with the tests.

fn main() -> std::process::ExitCode {
    muster_collector::main()
}
