//! A real agent in a folder of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    Folder,
    collector::Collector,
    netns::Namespace,
    process::{Process, check_no_panic},
    program,
};

/// Settings by which an agent looks and reports as often as it may, and at little.
pub const FAST: &str = "attestation_interval = \"10s\"\n\
    [intervals]\nsystem = \"10s\"\nfirewall = \"10s\"\nfile_integrity = \"10s\"\n\
    [probes]\nwatched_paths = [\"/etc/apt\"]\n";

/// An agent, running or not.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    namespace: Option<String>,
    prepare: Option<String>,
    // Last, so that it goes after the process.
    folder: Folder,
}

impl Agent {
    /// Prepares an agent of `collector` with a token of its own, and `settings` as its configuration.
    ///
    /// # Panics
    ///
    /// When its folder cannot be written.
    pub fn of(collector: &Collector, settings: &str) -> Self {
        let folder = Folder::new();
        let enroll = folder.join("enroll.toml");
        collector.ctl().text(&["token", "create", "--enroll-file", &enroll.display().to_string()]);
        fs::write(folder.join("agent.toml"), settings).expect("the agent's configuration");
        Self { process: None, namespace: None, prepare: None, folder }
    }

    /// Returns another agent whose folder is a copy of this one's, as a cloned host has it.
    ///
    /// # Panics
    ///
    /// When the folder cannot be copied.
    pub fn copied(&self) -> Self {
        let folder = Folder::new();
        let source = format!("{}/.", self.folder().display());
        let status = Command::new("cp").args(["-a", &source]).arg(folder.path()).status().expect("cp runs");
        assert!(status.success(), "the folder cannot be copied");
        Self { process: None, namespace: self.namespace.clone(), prepare: self.prepare.clone(), folder }
    }

    /// Makes it run inside `namespace` from its next start on.
    pub fn inside(&mut self, namespace: &Namespace) {
        self.namespace = Some(namespace.name().to_owned());
    }

    /// Makes it run from its next start on in a mount namespace of its own, in which a shell runs `script` first.
    pub fn prepared(&mut self, script: &str) {
        self.prepare = Some(script.to_owned());
    }

    /// Starts it.
    ///
    /// # Panics
    ///
    /// When it runs already or cannot be started.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let mut command = match (&self.prepare, &self.namespace) {
            // Each of these programs becomes the next, so that the process stays the one started.
            (Some(script), _) => {
                let mut command = private_mounts(&format!("{script} && exec \"$0\" \"$@\""));
                command.arg(program("test-agent"));
                command
            }
            // Of all of `ip netns exec` only this: a new process that stays the one started, in the other network.
            (None, Some(name)) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{name}")).arg("--").arg(program("test-agent"));
                command
            }
            (None, None) => Command::new(program("test-agent")),
        };
        command
            .arg("run")
            .arg("--config")
            .arg(self.folder.join("agent.toml"))
            .arg("--state")
            .arg(self.state())
            .env("MUSTER_ENROLL_FILE", self.folder.join("enroll.toml"));
        self.process = Some(Process::start(&mut command, &self.output()));
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process.take().expect("the agent runs").kill();
    }

    /// Asks it to stop (SIGTERM), and returns after how long it had.
    ///
    /// # Panics
    ///
    /// When it ends otherwise than well, or not within `limit`, or a thread of any of its lives panicked.
    pub fn stop(&mut self, limit: Duration) -> Duration {
        let mut process = self.process.take().expect("the agent runs");
        let (status, elapsed) = process.terminate(limit);
        assert!(status.success(), "the agent ended with {status}:\n{}", process.output());
        check_no_panic(&self.output());
        elapsed
    }

    /// Returns the running program.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent runs")
    }

    /// Returns the file of what all its lives wrote.
    fn output(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// Returns its state folder.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Returns the folder of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns what it says of itself in `status.json`, once it does.
    ///
    /// # Errors
    ///
    /// When there is no such file yet.
    pub fn status(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&fs::read(self.state().join("status.json"))?)?)
    }
}

/// Returns a shell that runs `script` in a mount namespace of its own. Root only.
pub fn private_mounts(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    command
}
