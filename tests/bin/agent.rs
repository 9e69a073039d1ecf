//! The agent, built with the tests.

fn main() -> std::process::ExitCode {
    muster_agent::main()
}
