//! OpenSSH's server: whether there is one, whether it runs, and what its settings allow.

use std::path::{Path, PathBuf};

use muster_proto::fact::{Cause, Listener, Listeners, Reading, SshServer, Text, Transport, Unknown};

use super::{
    SOCKETS, UNITS, is_loopback, is_there, program,
    server::{self, Server},
    sshd_config::{Config, PORT},
    units,
};
use crate::host::{self, Host};

/// Where OpenSSH's server is usually installed.
pub(super) const PROGRAMS: [&str; 4] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"];
/// Folders of System V runlevels, where `S` and a number begin the name of what starts.
const RUNLEVELS: [&str; 2] = ["/etc/rc2.d", "/etc/rc3.d"];

pub(super) fn look(host: &dyn Host, listeners: &Reading<Listeners>) -> SshServer {
    let mut server = Server::look(host);
    let is_installed = match is_there(host, &PROGRAMS) {
        Ok(true) => Reading::Known(true),
        Ok(false) => is_elsewhere(host, &server, listeners),
        Err(unknown) => Reading::Unknown { unknown },
    };
    match is_installed {
        Reading::Known(true) => {}
        Reading::Known(false) => {
            return without_server(Reading::Known(false), &Unknown::new(Cause::Absent, "no sshd is installed"));
        }
        Reading::Unknown { unknown } => {
            return without_server(Reading::Unknown { unknown: unknown.clone() }, &unknown);
        }
    }
    let config = match Config::look(host) {
        Ok(config) => config,
        Err(unknown) => {
            let mut ssh = without_server(Reading::Unknown { unknown: unknown.clone() }, &unknown);
            ssh.running = running(&server, listeners, &[]);
            ssh.enabled = enabled(host, &ssh.running);
            return ssh;
        }
    };
    if let Some(file) = config.pid_file() {
        server.find_own(host, &file);
    }
    let allowed = config.allowed();
    let password_suffices = config.password_suffices_by_pam(host, &allowed);
    let running = running(&server, listeners, &allowed.ports);
    let enabled = enabled(host, &running);
    let differs = server
        .differs(host, &config)
        .or_else(|| beside(&server, listeners, &config, &allowed.ports))
        .or_else(|| unseen(host, &server, listeners, &running))
        .or_else(|| by_socket(host, &server, listeners, &config, &allowed.ports));
    let texts = |texts: Vec<String>| texts.iter().map(|text| Text::new(text)).collect();
    let mut ssh = SshServer {
        enabled,
        running,
        permit_root_login: allowed.permit_root_login,
        password_authentication: allowed.password,
        kbd_interactive_authentication: allowed.kbd_interactive,
        pubkey_authentication: allowed.pubkey,
        permit_empty_passwords: allowed.empty_passwords,
        password_suffices,
        ports: allowed.ports,
        listen_addresses: texts(allowed.listen_addresses),
        loosened_by: texts(allowed.loosened_by),
    };
    if let Some(unknown) = differs {
        let of = |unknown: &Unknown| Reading::Unknown { unknown: unknown.clone() };
        ssh.permit_root_login = Reading::Unknown { unknown: unknown.clone() };
        for setting in [
            &mut ssh.password_authentication,
            &mut ssh.kbd_interactive_authentication,
            &mut ssh.pubkey_authentication,
            &mut ssh.permit_empty_passwords,
            &mut ssh.password_suffices,
        ] {
            *setting = of(&unknown);
        }
    }
    ssh
}

/// Returns a server of which only `enabled` is told.
pub(super) fn without_server(enabled: Reading<bool>, why: &Unknown) -> SshServer {
    let untold = || Reading::Unknown { unknown: why.clone() };
    SshServer {
        running: enabled.clone(),
        enabled,
        permit_root_login: Reading::Unknown { unknown: why.clone() },
        password_authentication: untold(),
        kbd_interactive_authentication: untold(),
        pubkey_authentication: untold(),
        permit_empty_passwords: untold(),
        password_suffices: untold(),
        ports: Vec::new(),
        listen_addresses: Vec::new(),
        loosened_by: Vec::new(),
    }
}

/// Returns whether there is a server although its program is in none of the usual places.
fn is_elsewhere(host: &dyn Host, server: &Server, listeners: &Reading<Listeners>) -> Reading<bool> {
    waits(server, listeners, |others| {
        let is_untold = |listener: &Listener| listener.port == PORT && program(listener).is_none();
        if server.is_in_container && others.iter().any(|listener| is_untold(listener)) {
            let what = format!("who waits on port {PORT} is not shown, and a container has an sshd");
            return Some(Reading::unknown(Cause::Forbidden, what));
        }
        // systemd may wait in its place. Otherwise what is not shown is none: it would be among the processes.
        let is_by_systemd = |listener: &Listener| listener.port == PORT && program(listener) == Some("systemd");
        if !others.iter().any(|listener| is_untold(listener) || is_by_systemd(listener)) {
            return None;
        }
        match is_there(host, &SOCKETS) {
            Ok(true) => Some(Reading::Known(true)),
            Ok(false) => None,
            Err(unknown) => Some(Reading::Unknown { unknown }),
        }
    })
}

/// Returns whether the server waits for peers, itself or by systemd in its place.
fn running(server: &Server, listeners: &Reading<Listeners>, ports: &[u16]) -> Reading<bool> {
    waits(server, listeners, |others| {
        let mut at_its_ports = others.iter().filter(|listener| ports.contains(&listener.port));
        if at_its_ports.clone().any(|listener| program(listener) == Some("systemd")) {
            return Some(Reading::Known(true));
        }
        // A port that somebody holds who may be it.
        let untold = at_its_ports.find(|listener| program(listener).is_none())?;
        Some(Reading::unknown(Cause::Forbidden, format!("who waits on port {} is not shown", untold.port)))
    })
}

/// Returns whether the server itself waits for peers. Where neither its processes nor their sockets show that it does, `others` may tell
/// of the sockets of TCP whose holder is another, or not told.
fn waits(
    server: &Server,
    listeners: &Reading<Listeners>,
    others: impl FnOnce(&[&Listener]) -> Option<Reading<bool>>,
) -> Reading<bool> {
    if server.waits() {
        return Reading::Known(true);
    }
    let listeners = match listeners {
        Reading::Known(listeners) => &listeners.listeners,
        Reading::Unknown { unknown } => return Reading::Unknown { unknown: unknown.clone() },
    };
    let tcp = listeners.iter().filter(|listener| listener.protocol == Transport::Tcp);
    let (own, of_others): (Vec<_>, Vec<_>) = tcp.partition(|&listener| program(listener) == Some(server::NAME));
    if !own.is_empty() {
        return Reading::Known(true);
    }
    let untold = || server.untold.clone().map_or(Reading::Known(false), |unknown| Reading::Unknown { unknown });
    others(&of_others).unwrap_or_else(untold)
}

/// Returns why there may be a server beside the one whose settings are read: one waits where these do not say.
///
/// Before OpenSSH 9.8 the process of a session has the server's name, too. It waits on the loopback for what its client forwards, and
/// elsewhere where a setting lets it.
fn beside(server: &Server, listeners: &Reading<Listeners>, config: &Config, ports: &[u16]) -> Option<Unknown> {
    // What waits is told by the server's processes; this is of one that they do not show.
    let Reading::Known(listeners) = listeners else { return None };
    if server.has_sessions && config.forwards_to_others() {
        return None;
    }
    let of_other = listeners.listeners.iter().find(|listener| {
        listener.protocol == Transport::Tcp
            && program(listener) == Some(server::NAME)
            && !ports.contains(&listener.port)
            && !is_loopback(listener)
    })?;
    let what = format!("an sshd waits on port {}, which the settings that were read do not name", of_other.port);
    Some(Unknown::new(Cause::Undecidable, what))
}

/// Returns why the server that systemd starts when a peer comes may have other settings than its files.
fn by_socket(
    host: &dyn Host,
    server: &Server,
    listeners: &Reading<Listeners>,
    config: &Config,
    ports: &[u16],
) -> Option<Unknown> {
    if server.waits() {
        return None;
    }
    let is_held = listeners.known().is_some_and(|listeners| {
        let mut all = listeners.listeners.iter();
        all.any(|listener| {
            listener.protocol == Transport::Tcp
                && ports.contains(&listener.port)
                && program(listener) == Some("systemd")
        })
    });
    let has_socket = if is_held { Ok(true) } else { is_there(host, &SOCKETS) };
    match has_socket {
        Ok(true) => units::differs(host, config.paths.first().map(PathBuf::as_path)),
        Ok(false) => None,
        Err(unknown) => Some(unknown),
    }
}

/// Returns why a server whose process was not found may have other settings than its files: it may not have said where its
/// process is, and have been started with settings of its own. One that systemd has yet to start takes its files then.
fn unseen(
    host: &dyn Host,
    server: &Server,
    listeners: &Reading<Listeners>,
    running: &Reading<bool>,
) -> Option<Unknown> {
    if server.waits() {
        return None;
    }
    match running {
        Reading::Known(false) => None,
        Reading::Known(true) => {
            let Reading::Known(listeners) = listeners else { return None };
            let of_server = listeners.listeners.iter().find(|listener| program(listener) == Some(server::NAME))?;
            let what = format!("a server waits on port {}, and its process was not found", of_server.port);
            Some(Unknown::new(Cause::Undecidable, what))
        }
        Reading::Unknown { unknown } => match is_there(host, &SOCKETS) {
            Ok(true) => None,
            Ok(false) => Some(unknown.clone()),
            Err(unknown) => Some(unknown),
        },
    }
}

/// Returns whether the server runs or starts with the host.
fn enabled(host: &dyn Host, running: &Reading<bool>) -> Reading<bool> {
    if running.known() == Some(&true) {
        return Reading::Known(true);
    }
    match starts(host) {
        Ok(true) => Reading::Known(true),
        Ok(false) => running.clone(),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

fn starts(host: &dyn Host) -> Result<bool, Unknown> {
    if is_there(host, &UNITS)? {
        return Ok(true);
    }
    // Where systemd runs, a script of System V starts nothing for which there is a unit.
    if is_there(
        host,
        &[
            "/lib/systemd/system/ssh.service",
            "/usr/lib/systemd/system/ssh.service",
            "/usr/lib/systemd/system/sshd.service",
        ],
    )? {
        return Ok(false);
    }
    for folder in RUNLEVELS {
        match host.list(Path::new(folder)) {
            Ok(names) if names.iter().any(|name| starts_ssh(&name.to_string_lossy())) => return Ok(true),
            Ok(_) => {}
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
        }
    }
    Ok(false)
}

fn starts_ssh(name: &str) -> bool {
    let service = name.strip_prefix('S').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    matches!(service, Some("ssh" | "sshd"))
}

#[cfg(test)]
mod tests {
    use super::{
        super::made::{Made, host_with, listeners},
        *,
    };

    #[test]
    fn a_server_runs_where_it_or_systemd_for_it_holds_a_port() {
        let server = Server::default();
        for (port, program, expected) in [
            (2222, Some("sshd"), Some(true)),
            (22, Some("systemd"), Some(true)),
            (631, Some("systemd"), Some(false)),
            (22, Some("dropbear"), Some(false)),
            (22, None, None),
            (80, None, Some(false)),
        ] {
            let found = running(&server, &listeners(&[(port, program)]), &[22]);
            assert_eq!(found.known().copied(), expected, "{port} {program:?}");
        }
    }

    #[test]
    fn a_server_whose_process_could_not_be_looked_at_may_run() {
        let unknown = Unknown::new(Cause::Forbidden, "");
        let server = Server { untold: Some(unknown.clone()), ..Server::default() };
        assert_eq!(running(&server, &listeners(&[]), &[22]), Reading::Unknown { unknown });
        assert_eq!(running(&server, &listeners(&[(22, Some("sshd"))]), &[22]), Reading::Known(true));
    }

    #[test]
    fn settings_of_a_server_whose_process_was_not_found_are_not_those_of_its_files() {
        let ssh_socket = "/etc/systemd/system/sockets.target.wants/ssh.socket";
        let found = Server::look(&Made::new().host);
        assert!(found.own.is_some());
        for (server, links, listener, expected) in [
            (&Server::default(), &[][..], (22, Some("sshd")), Some(Cause::Undecidable)),
            (&Server::default(), &[], (22, Some("systemd")), None),
            (&Server::default(), &[], (80, Some("nginx")), None),
            (&Server::default(), &[], (22, None), Some(Cause::Forbidden)),
            (&Server::default(), &[ssh_socket], (22, None), None),
            (&found, &[], (22, Some("sshd")), None),
        ] {
            let listeners = listeners(&[listener]);
            let running = running(server, &listeners, &[22]);
            let unknown = unseen(&host_with(links), server, &listeners, &running);
            assert_eq!(unknown.map(|unknown| unknown.cause), expected, "{listener:?} {links:?}");
        }
    }

    /// Checks that a password alone is told to suffice where `expected` is empty, and else unknown with it in the words.
    fn check(made: &Made, rows: &[(u16, Option<&str>)], expected: &str) {
        let ssh = look(&made.host, &listeners(rows));
        match ssh.password_suffices {
            Reading::Known(yes) => assert_eq!((yes, expected), (true, ""), "{rows:?}"),
            Reading::Unknown { unknown } => {
                let is_expected = !expected.is_empty() && unknown.detail.as_str().contains(expected);
                assert!(is_expected, "{rows:?}, {expected}: {unknown:?}");
            }
        }
    }

    #[test]
    fn a_server_at_a_port_that_no_setting_names_makes_the_settings_unknown() {
        let own = (22, Some("sshd"));
        let session = || Made::new().process(77, "PPid:\t14\n", "sshd: eve@pts/0");
        let config = "/etc/ssh/sshd_config";
        check(&Made::new(), &[own, (80, Some("nginx")), (5900, None)], "");
        check(&Made::new(), &[own, (2222, Some("sshd"))], "an sshd waits on port 2222");
        check(&session(), &[own, (2222, Some("sshd"))], "an sshd waits on port 2222");
        // What clients forward.
        check(&session().file(config, "GatewayPorts yes\n"), &[own, (8080, Some("sshd"))], "");
        check(&session().file(config, "Port 22\nPort 2222\n"), &[own, (2222, Some("sshd"))], "");
        let Reading::Known(mut forwarded) = listeners(&[own, (6010, Some("sshd"))]) else { panic!() };
        forwarded.listeners[1].address = Text::new("127.0.0.1");
        let found = look(&session().host, &Reading::Known(forwarded));
        assert_eq!(found.password_suffices, Reading::Known(true));
    }

    #[test]
    fn a_server_outside_of_the_usual_places_is_one() {
        let bare = || PROGRAMS.iter().fold(Made::new(), |made, program| made.absent(&format!("metadata {program}")));
        check(&bare(), &[(22, Some("sshd"))], "");
        let gone = || bare().without_process();
        check(&gone(), &[(22, Some("sshd"))], "its process was not found");
        check(&gone(), &[(22, None)], "no sshd is installed");
        for (rows, enabled) in [
            (&[(22, Some("sshd"))][..], Some(true)),
            (&[(22, None)], Some(false)),
            (&[(22, Some("dropbear"))], Some(false)),
            (&[(22, Some("systemd"))], Some(false)),
            (&[(80, None)], Some(false)),
            (&[], Some(false)),
        ] {
            assert_eq!(look(&gone().host, &listeners(rows)).enabled.known().copied(), enabled, "{rows:?}");
        }
        let hidden = bare().folder("/proc", &["14"]).absent("read /run/sshd.pid").absent("read /var/run/sshd.pid");
        check(&hidden, &[], "/proc does not list the processes of others");
        assert!(look(&hidden.host, &listeners(&[])).enabled.known().is_none());
        let contained =
            gone().process(77, "NSpid:\t77\t5\n", "sshd: /usr/sbin/sshd -D [listener]").folder("/proc", &["1", "77"]);
        assert!(look(&contained.host, &listeners(&[(22, None)])).enabled.known().is_none());
        assert_eq!(look(&contained.host, &listeners(&[])).enabled, Reading::Known(false));
        for holder in [Some("systemd"), None] {
            let socket = gone().file(SOCKETS[0], "").file(UNITS[0], "");
            assert_eq!(look(&socket.host, &listeners(&[(22, holder)])).enabled, Reading::Known(true), "{holder:?}");
        }
    }

    #[test]
    fn what_systemd_adds_to_a_server_that_it_starts_is_looked_for_where_it_waits() {
        let options = "SSHD_OPTS='-o PasswordAuthentication=yes'\n";
        let made = || units::tests::stock().without_process();
        let enabled = || made().file(SOCKETS[0], "");
        let (held, none) = ([(22, Some("systemd"))], []);
        check(&made(), &held, "");
        check(&enabled(), &held, "");
        check(&enabled(), &none, "");
        let set = "PasswordAuthentication=yes by /etc/default/ssh";
        check(&made().file("/etc/default/ssh", options), &held, set);
        check(&enabled().file("/etc/default/ssh", options), &none, set);
        // The arguments of one that runs tell what it was given.
        check(&units::tests::stock().file("/etc/default/ssh", options), &[(22, Some("sshd"))], "");
    }
}
