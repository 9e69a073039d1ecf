//! A real collector in a folder of its own.

use std::{
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use super::{
    Folder, PATIENCE,
    ctl::Ctl,
    free_address,
    process::{Process, check_no_panic},
    program,
};
use crate::{evidence::Evidence, load::Target};

/// Name of every collector of the tests.
pub const NAME: &str = "c1";

/// A collector, running or not.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    /// Variables of its environment, by which settings are set.
    pub settings: Vec<(&'static str, String)>,
    process: Option<Process>,
    // Last, so that it goes after the process.
    folder: Folder,
}

impl Collector {
    /// Initialises a collector on loopback and starts it.
    pub fn started() -> Self {
        let mut collector = Self::at(free_address());
        collector.start();
        collector
    }

    /// Initialises a collector that will listen on `address`.
    ///
    /// # Panics
    ///
    /// When it cannot be initialised.
    pub fn at(address: SocketAddr) -> Self {
        let folder = Folder::new();
        // No metrics: collectors of several tests would meet at one port.
        let settings = vec![("MUSTER_METRICS_LISTEN", String::new())];
        let collector = Self { address, settings, process: None, folder };
        collector.run_ok(&["init", "--name", NAME, "--listen", &address.to_string()]);
        collector
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn start(&mut self) {
        self.start_by(Command::new(program("test-collector")));
    }

    /// Starts it with `before`, such as `strace`, as the first words of the command.
    ///
    /// # Panics
    ///
    /// When it does not come to listen.
    pub fn start_under(&mut self, before: &[String]) {
        let (first, rest) = before.split_first().expect("a program");
        let mut command = Command::new(first);
        command.args(rest).arg(program("test-collector"));
        self.start_by(command);
    }

    fn start_by(&mut self, command: Command) {
        self.launch(command);
        self.wait_until_it_listens();
    }

    /// Starts it without waiting for anything.
    pub fn start_unattended(&mut self) {
        self.launch(Command::new(program("test-collector")));
    }

    fn launch(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "it runs");
        command.arg("run").arg("--data").arg(self.data()).envs(self.settings.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(&mut command, &self.output()));
    }

    /// Waits until it listens.
    ///
    /// # Panics
    ///
    /// When it does not come to.
    pub fn wait_until_it_listens(&mut self) {
        let (address, process) = (self.address, self.process());
        let start = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            assert!(process.ended().is_none(), "the collector ended at once:\n{}", process.output());
            assert!(start.elapsed() < PATIENCE, "the collector does not listen:\n{}", process.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.take().kill();
    }

    /// Asks it to stop (SIGTERM), and returns after how long it had.
    ///
    /// # Panics
    ///
    /// When it ends otherwise than well, or not within `limit`, or a thread of any of its lives panicked.
    pub fn stop(&mut self, limit: Duration) -> Duration {
        let mut process = self.take();
        let (status, elapsed) = process.terminate(limit);
        assert!(status.success(), "the collector ended with {status}:\n{}", process.output());
        check_no_panic(&self.output());
        elapsed
    }

    /// Returns the running program.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the collector runs")
    }

    /// Checks that it still runs.
    ///
    /// # Panics
    ///
    /// When it has ended.
    pub fn check_alive(&mut self) {
        let process = self.process();
        let ended = process.ended();
        assert!(ended.is_none(), "the collector ended with {ended:?}:\n{}", process.output());
    }

    /// Runs a command of the collector's program on its data to the end.
    ///
    /// # Panics
    ///
    /// When the program cannot be started.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program("test-collector"));
        command
            .args(args)
            .arg("--data")
            .arg(self.data())
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("the collector's program starts")
    }

    /// Runs a command of the collector's program on its data, which succeeds, and returns what it printed.
    ///
    /// # Panics
    ///
    /// When the command fails.
    pub fn run_ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?} ended with {}:\n{out}{err}", output.status);
        out.into_owned()
    }

    /// Returns its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Returns the folder of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the client program with the first admin's credential.
    pub fn ctl(&self) -> Ctl {
        self.ctl_with(&self.data().join("admin.pem"))
    }

    /// Returns the client program with another credential.
    pub fn ctl_with(&self, credential: &Path) -> Ctl {
        Ctl::new(self.address, credential)
    }

    /// Returns what clients need to reach it.
    ///
    /// # Panics
    ///
    /// When its CA cannot be read.
    pub fn target(&self) -> Target {
        let pem = std::fs::read_to_string(self.data().join("pki/ca.pem")).expect("the collector's CA");
        Target::new(self.address, &pem)
    }

    /// Makes a token for `uses` agents.
    pub fn token(&self, uses: u32) -> String {
        let made = self.ctl().json(&["token", "create", "--uses", &uses.to_string()]);
        made["secret"].as_str().unwrap_or_else(|| panic!("no secret in {made}")).to_owned()
    }

    /// Reads its evidence log from the files.
    ///
    /// # Panics
    ///
    /// When the log is damaged.
    pub fn evidence(&self, log_key: &str) -> Evidence {
        Evidence::read(&self.data().join("log"), log_key).expect("the evidence log is whole")
    }

    /// Returns the file of what all its lives wrote.
    fn output(&self) -> PathBuf {
        self.folder.join("collector.log")
    }

    fn take(&mut self) -> Process {
        self.process.take().expect("the collector runs")
    }
}
