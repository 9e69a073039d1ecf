//! A network namespace of a test's own, joined to the machine by one pair of virtual cables. Root only.

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

/// A network namespace. Dropped, it is gone with its cables.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    cable: String,
    /// Address of the machine, as the namespace sees it.
    pub outside: Ipv4Addr,
}

impl Namespace {
    /// Makes a namespace whose packet filters can be set, or says why this machine or user cannot.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn new() -> Result<Self, String> {
        static COUNT: AtomicU8 = AtomicU8::new(1);
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id();
        let third = u8::try_from(id % 200).expect("below 200");
        let (outside, inside) =
            (Ipv4Addr::new(10, 97, third, n.wrapping_mul(4) | 1), Ipv4Addr::new(10, 97, third, n.wrapping_mul(4) | 2));
        let namespace = Self { name: format!("muster-{id}-{n}"), cable: format!("mt{}-{n}", id % 1_000_000), outside };
        let (name, cable) = (namespace.name.clone(), namespace.cable.clone());
        run(&["ip", "netns", "add", &name])?;
        run(&["ip", "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
        run(&["ip", "addr", "add", &format!("{outside}/30"), "dev", &cable])?;
        run(&["ip", "link", "set", &cable, "up"])?;
        run(&["ip", "-n", &name, "addr", "add", &format!("{inside}/30"), "dev", "eth0"])?;
        run(&["ip", "-n", &name, "link", "set", "eth0", "up"])?;
        run(&["ip", "-n", &name, "link", "set", "lo", "up"])?;
        run(&["ip", "netns", "exec", &name, "nft", "list", "ruleset"])?;
        Ok(namespace)
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command inside, which succeeds.
    ///
    /// # Panics
    ///
    /// When the command fails.
    pub fn run(&self, command: &[&str]) {
        let whole = [&["ip", "netns", "exec", &self.name], command].concat();
        if let Err(error) = run(&whole) {
            panic!("{error}");
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for command in [["ip", "link", "del", &self.cable], ["ip", "netns", "del", &self.name]] {
            if let Err(error) = run(&command) {
                eprintln!("left behind: {error}");
            }
        }
    }
}

fn run(command: &[&str]) -> Result<(), String> {
    let (program, args) = command.split_first().expect("a program");
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
