//! The client program, run to its end.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::program;

/// `musterctl` with one credential.
#[derive(Clone, Debug)]
pub struct Ctl {
    collector: String,
    credential: PathBuf,
}

impl Ctl {
    /// Returns the client of the collector at `address`.
    pub fn new(address: SocketAddr, credential: &Path) -> Self {
        Self { collector: format!("https://{address}"), credential: credential.to_owned() }
    }

    /// Returns the command with `args`, to be started by the caller.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("test-musterctl"));
        command
            .args(args)
            .env("MUSTER_COLLECTOR", &self.collector)
            .env("MUSTER_CREDENTIAL", &self.credential)
            .env("XDG_CONFIG_HOME", "/nonexistent");
        command
    }

    /// Runs it with `args`.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("musterctl starts")
    }

    /// Runs it with `args`, which succeeds, and returns what it printed.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn text(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "musterctl {args:?} ended with {}:\n{out}{err}", output.status);
        out
    }

    /// Runs it with `args` and `-o json`, and returns the value that it printed.
    ///
    /// # Panics
    ///
    /// When it fails or prints something else.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.text(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("musterctl {args:?}: {error} in:\n{text}"))
    }
}
