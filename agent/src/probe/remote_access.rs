//! Programs by which a person works on the host from elsewhere: OpenSSH's server and what its settings allow, and a table of
//! others.
//!
//! The server's files are read. `sshd -T` prints the same and needs the rights of the superuser and its host keys, which the agent
//! does not have; it knows no more of a server that runs, which took its settings when it started. Where the files are newer than
//! that, or the server was started with settings of its own, or another one runs beside it, what is in force is unknown.

#[cfg(test)]
mod made;
mod openssh;
mod programs;
mod server;
pub(super) mod sshd_config;
mod units;

pub(super) use self::server::changed_after;

use std::{net::IpAddr, path::Path};

use muster_proto::{
    fact::{Cause, Fact, Listener, Reading, RemoteAccess, Text, Unknown},
    report,
};

use super::{Look, Probe, system};
use crate::host::{self, Host};

/// Links that systemd makes for what starts with the host.
const UNITS: [&str; 6] = [
    "/etc/systemd/system/multi-user.target.wants/ssh.service",
    "/etc/systemd/system/multi-user.target.wants/sshd.service",
    "/etc/systemd/system/sockets.target.wants/ssh.socket",
    "/etc/systemd/system/sockets.target.wants/sshd.socket",
    "/etc/systemd/system/ssh.service.requires/ssh.socket",
    "/etc/systemd/system/multi-user.target.wants/ssh.socket",
];
/// Those of them by which systemd waits for peers in the server's place.
const SOCKETS: [&str; 4] = [UNITS[2], UNITS[3], UNITS[4], UNITS[5]];

/// The program of dropbear(8).
const DROPBEAR: &str = "/usr/sbin/dropbear";

/// What starts it.
const DROPBEAR_UNITS: [&str; 6] = [
    "/etc/init.d/dropbear",
    "/etc/systemd/system/dropbear.service",
    "/etc/systemd/system/dropbear.socket",
    "/usr/lib/systemd/system/dropbear.service",
    "/usr/lib/systemd/system/dropbear.socket",
    "/lib/systemd/system/dropbear.service",
];

/// The probe of `remote_access`.
pub struct RemoteAccessProbe;

impl Probe for RemoteAccessProbe {
    fn id(&self) -> report::Probe {
        report::Probe::RemoteAccess
    }

    fn name(&self) -> &'static str {
        "remote_access"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        let listeners = system::listeners::look(look.host);
        let ssh = openssh::look(look.host, &listeners);
        let state = RemoteAccess { programs: programs::look(look.host, &listeners, &ssh), ssh };
        vec![Fact::RemoteAccess(Reading::Known(state))]
    }
}

/// Returns whether a server is installed that lets in by SSH: OpenSSH's, or dropbear.
///
/// # Errors
///
/// Why that could not be told.
pub(super) fn has_ssh_server(host: &dyn Host) -> Result<bool, Unknown> {
    Ok(has_openssh(host)? || is_there(host, &[DROPBEAR])?)
}

/// Returns why the server that runs may take keys from elsewhere than its files say.
pub(super) fn keys_elsewhere(host: &dyn Host) -> Option<Unknown> {
    server::Server::look(host).keys_elsewhere()
}

/// Returns whether OpenSSH's server is installed.
///
/// # Errors
///
/// Why that could not be told.
pub(super) fn has_openssh(host: &dyn Host) -> Result<bool, Unknown> {
    is_there(host, &openssh::PROGRAMS)
}

/// Returns whether dropbear waits for peers, or is set up to: its program alone may be there for the time before the root file system.
///
/// # Errors
///
/// Why that could not be told.
pub(super) fn has_dropbear(host: &dyn Host) -> Result<bool, Unknown> {
    if !is_there(host, &[DROPBEAR])? {
        return Ok(false);
    }
    let listeners = system::listeners::look(host);
    let waits = |listener: &Listener| program(listener) == Some("dropbear");
    let is_seen = listeners.known().is_some_and(|listeners| listeners.listeners.iter().any(waits));
    Ok(is_seen || is_there(host, &DROPBEAR_UNITS)?)
}

fn is_there(host: &dyn Host, paths: &[&str]) -> Result<bool, Unknown> {
    for path in paths {
        match host.metadata(Path::new(path)) {
            Ok(_) => return Ok(true),
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("look at {path}"), &error)),
        }
    }
    Ok(false)
}

/// Returns the name of the program that holds a socket, where it is told.
fn program(listener: &Listener) -> Option<&str> {
    listener.program.known().map(Text::as_str)
}

fn is_loopback(listener: &Listener) -> bool {
    listener.address.as_str().parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}
