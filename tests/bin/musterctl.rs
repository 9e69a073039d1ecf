//! The client, built with the tests.

fn main() -> std::process::ExitCode {
    muster_collector::ctl::main()
}
