//! Runs the real programs: folders, ports, processes, and waits that have an end.
//!
//! A process is ended by its own id only. What a program wrote is shown when a test fails.

pub mod agent;
pub mod collector;
pub mod ctl;
pub mod files;
pub mod netns;
pub mod process;
pub mod random;
pub mod scene;

use std::{
    fmt::Display,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use muster_proto::time::{Clock as _, SystemClock, Timestamp};

/// How long a test waits for what should take moments. Machines that run tests are slow and shared.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Says that a test cannot run here, and why: on standard error, and in the file that `MUSTER_TEST_LEFT_OUT` names, by which
/// `tests/run` lists it and fails where the machine is able to.
///
/// # Panics
///
/// When that file cannot be written.
pub fn left_out(what: &str, why: impl Display) {
    use std::io::Write as _;
    eprintln!("LEFT OUT: {what}: {why}");
    if let Some(path) = std::env::var_os("MUSTER_TEST_LEFT_OUT") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.expect("the file can be opened"), "{what}: {why}").expect("the file can be written");
    }
}

/// Returns the program `name` that Cargo built beside this test or benchmark.
///
/// # Panics
///
/// When it is not there: it was not built with the tests.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let folder = own.parent().expect("a program lies in a folder");
    let folder = if folder.ends_with("deps") { folder.parent().expect("deps lies in a folder") } else { folder };
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built; run cargo build -p muster-tests", path.display());
    path
}

/// A folder for one test. It is kept when the test fails.
#[derive(Debug)]
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// Makes an empty folder.
    ///
    /// # Panics
    ///
    /// When the machine has no room for it.
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("muster-test-").tempdir().expect("a folder for the test"))
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns the path of `name` in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("kept for a look: {}", self.path().display());
        }
    }
}

/// Returns an address on loopback that nobody listened on a moment ago.
///
/// # Panics
///
/// When the machine has none left.
pub fn free_address() -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    socket.local_addr().expect("a bound socket has an address")
}

/// Returns the wall clock's time.
pub fn now() -> Timestamp {
    SystemClock.now()
}

/// Waits until `look` gives a value, and returns it.
///
/// # Panics
///
/// When it gives none for [`PATIENCE`]; the message says `what` and what the last look found instead.
pub async fn until<T, E: Display>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    within(PATIENCE, what, look).await
}

/// Waits until `look` gives a value, and returns it, for at most `limit`.
///
/// # Panics
///
/// When it gives none; the message says `what` and what the last look found instead.
pub async fn within<T, E: Display>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(instead) if start.elapsed() > limit => panic!("waited {limit:?} for {what}: {instead}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Returns `Ok(())` when `is_so`, else `instead`: the shape that [`until`] looks for.
///
/// # Errors
///
/// `instead`, when it is not so.
pub fn check<E>(is_so: bool, instead: E) -> Result<(), E> {
    if is_so { Ok(()) } else { Err(instead) }
}

/// Returns the number in the environment variable `name`, or `default`.
///
/// # Panics
///
/// When the variable holds something else.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}
