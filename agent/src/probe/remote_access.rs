//! Programs by which a person works on the host from elsewhere: OpenSSH's server and what its settings allow, and a table of
//! others.
//!
//! The server's files are read. `sshd -T` prints the same and needs the rights of the superuser and its host keys, which the agent
//! does not have; it knows no more of a server that runs, which took its settings when it started. Where the files are newer than
//! that, or the server was started with settings of its own, or another one runs beside it, what is in force is unknown.

#[cfg(test)]
mod made;
mod server;
pub(super) mod sshd_config;
mod units;

use std::{net::IpAddr, path::Path};

use muster_proto::{
    fact::{
        Cause, Fact, Listener, Listeners, Reading, RemoteAccess, RemoteProgram, SshServer, Text, Transport, Unknown,
    },
    report,
};

use self::{
    server::Server,
    sshd_config::{Config, PORT},
};
use super::{Look, Probe, system};
use crate::host::{self, Host};

/// Where OpenSSH's server is usually installed.
const PROGRAMS: [&str; 4] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"];
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
/// Where systemd keeps links to the sockets that it opens when the host starts.
const WANTED_SOCKETS: [&str; 2] =
    ["/etc/systemd/system/sockets.target.wants", "/usr/lib/systemd/system/sockets.target.wants"];
/// Programs that wait for peers in the place of others, and start those when a peer comes.
const STARTERS: [&str; 4] = ["inetd", "inetutils-inetd", "systemd", "xinetd"];
/// Folders of System V runlevels, where `S` and a number begin the name of what starts.
const RUNLEVELS: [&str; 2] = ["/etc/rc2.d", "/etc/rc3.d"];

/// A known program for remote work.
struct Known {
    name: &'static str,
    /// Where it is installed: any of these.
    files: &'static [&'static str],
    /// Names that its process may have, cut to 15 bytes as the kernel does.
    process: &'static [&'static str],
    /// Ports that it waits on without a setting.
    ports: &'static [u16],
    /// Units of systemd that wait in its place, by their usual names; none of a program that others do not start when a peer comes.
    sockets: &'static [&'static str],
}

/// In order of name.
const KNOWN: &[Known] = &[
    Known { name: "anydesk", files: &["/usr/bin/anydesk"], process: &["anydesk"], ports: &[7070], sockets: &[] },
    Known {
        name: "cockpit",
        files: &["/usr/lib/cockpit/cockpit-tls", "/usr/libexec/cockpit-tls"],
        process: &["cockpit-tls", "cockpit-ws"],
        ports: &[9090],
        sockets: &["cockpit.socket"],
    },
    Known {
        name: "dropbear",
        files: &["/usr/sbin/dropbear"],
        process: &["dropbear"],
        ports: &[22],
        sockets: &["dropbear.socket"],
    },
    Known {
        name: "gnome_remote_desktop",
        files: &["/usr/libexec/gnome-remote-desktop-daemon"],
        process: &["gnome-remote-de"],
        ports: &[3389],
        sockets: &[],
    },
    Known { name: "rustdesk", files: &["/usr/bin/rustdesk"], process: &["rustdesk"], ports: &[21118], sockets: &[] },
    Known {
        name: "teamviewer",
        files: &["/opt/teamviewer/tv_bin/teamviewerd"],
        process: &["teamviewerd"],
        ports: &[5938],
        sockets: &[],
    },
    Known {
        name: "telnetd",
        files: &["/usr/sbin/in.telnetd", "/usr/sbin/telnetd"],
        process: &["in.telnetd", "inetutils-telne", "telnetd"],
        ports: &[23],
        sockets: &["telnet.socket", "telnetd.socket"],
    },
    Known {
        name: "tigervnc",
        files: &["/usr/bin/Xtigervnc", "/usr/bin/Xvnc"],
        process: &["Xtigervnc", "Xvnc"],
        ports: &[5900, 5901, 5902],
        sockets: &["xvnc.socket"],
    },
    Known {
        name: "vino",
        files: &["/usr/lib/vino/vino-server", "/usr/libexec/vino-server"],
        process: &["vino-server"],
        ports: &[5900],
        sockets: &[],
    },
    Known {
        name: "webmin",
        files: &["/usr/share/webmin/miniserv.pl", "/usr/libexec/webmin/miniserv.pl"],
        process: &["miniserv.pl"],
        ports: &[10000],
        sockets: &[],
    },
    Known {
        name: "x11vnc",
        files: &["/usr/bin/x11vnc"],
        process: &["x11vnc"],
        ports: &[5900],
        sockets: &["x11vnc.socket"],
    },
    Known { name: "xrdp", files: &["/usr/sbin/xrdp"], process: &["xrdp"], ports: &[3389], sockets: &[] },
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
        let ssh = ssh(look.host, &listeners);
        let state = RemoteAccess { programs: programs(look.host, &listeners, &ssh), ssh };
        vec![Fact::RemoteAccess(Reading::Known(state))]
    }
}

fn ssh(host: &dyn Host, listeners: &Reading<Listeners>) -> SshServer {
    let server = Server::look(host);
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
    let allowed = config.allowed();
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
        password_suffices: allowed.password_suffices,
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
fn without_server(enabled: Reading<bool>, why: &Unknown) -> SshServer {
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

/// Returns whether there is a server although its program is in none of the usual places.
fn is_elsewhere(host: &dyn Host, server: &Server, listeners: &Reading<Listeners>) -> Reading<bool> {
    if server.waits() {
        return Reading::Known(true);
    }
    let listeners = match listeners {
        Reading::Known(listeners) => &listeners.listeners,
        Reading::Unknown { unknown } => return Reading::Unknown { unknown: unknown.clone() },
    };
    let tcp = || listeners.iter().filter(|listener| listener.protocol == Transport::Tcp);
    if tcp().any(|listener| program(listener) == Some(server::NAME)) {
        return Reading::Known(true);
    }
    let is_untold = |listener: &Listener| listener.port == PORT && program(listener).is_none();
    if server.is_in_container && tcp().any(is_untold) {
        let what = format!("who waits on port {PORT} is not shown, and a container has an sshd");
        return Reading::unknown(Cause::Forbidden, what);
    }
    // systemd may wait in its place. Otherwise what is not shown is none: it would be among the processes.
    if tcp().any(|listener| is_untold(listener) || (listener.port == PORT && program(listener) == Some("systemd"))) {
        match is_there(host, &SOCKETS) {
            Ok(true) => return Reading::Known(true),
            Ok(false) => {}
            Err(unknown) => return Reading::Unknown { unknown },
        }
    }
    server.untold.clone().map_or(Reading::Known(false), |unknown| Reading::Unknown { unknown })
}

/// Returns whether the server waits for peers, itself or by systemd in its place.
fn running(server: &Server, listeners: &Reading<Listeners>, ports: &[u16]) -> Reading<bool> {
    if server.waits() {
        return Reading::Known(true);
    }
    let listeners = match listeners {
        Reading::Known(listeners) => &listeners.listeners,
        Reading::Unknown { unknown } => return Reading::Unknown { unknown: unknown.clone() },
    };
    let tcp = || listeners.iter().filter(|listener| listener.protocol == Transport::Tcp);
    let is_its_port = |listener: &Listener| ports.contains(&listener.port);
    if tcp().any(|listener| match program(listener) {
        Some(server::NAME) => true,
        Some("systemd") => is_its_port(listener),
        _ => false,
    }) {
        return Reading::Known(true);
    }
    // A port that somebody holds who may be it.
    match tcp().find(|listener| is_its_port(listener) && program(listener).is_none()) {
        Some(listener) => {
            Reading::unknown(Cause::Forbidden, format!("who waits on port {} is not shown", listener.port))
        }
        None => server.untold.clone().map_or(Reading::Known(false), |unknown| Reading::Unknown { unknown }),
    }
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
        Ok(true) => units::differs(host, config.paths.first().map(std::path::PathBuf::as_path)),
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

/// Returns the name of the program that holds a socket, where it is told.
fn program(listener: &Listener) -> Option<&str> {
    listener.program.known().map(Text::as_str)
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

fn programs(host: &dyn Host, listeners: &Reading<Listeners>, ssh: &SshServer) -> Vec<RemoteProgram> {
    let program = |known: &Known| {
        let listening = match is_there(host, known.files) {
            Ok(false) => return None,
            Ok(true) => listening(host, known, listeners, ssh),
            Err(unknown) => Reading::Unknown { unknown },
        };
        Some(RemoteProgram { name: Text::new(known.name), listening })
    };
    KNOWN.iter().filter_map(program).collect()
}

/// Returns whether an installed program waits for peers: by its name, or where names are not shown by its usual ports.
fn listening(host: &dyn Host, known: &Known, listeners: &Reading<Listeners>, ssh: &SshServer) -> Reading<bool> {
    let listeners = match listeners {
        Reading::Known(listeners) => &listeners.listeners,
        Reading::Unknown { unknown } => return Reading::Unknown { unknown: unknown.clone() },
    };
    if listeners.iter().filter_map(program).any(|name| known.process.contains(&name)) {
        return Reading::Known(true);
    }
    let mut untold = None;
    for listener in listeners {
        match by_starter(host, known, listener, ssh) {
            Reading::Known(false) => {}
            Reading::Known(true) => return Reading::Known(true),
            Reading::Unknown { unknown } => {
                untold.get_or_insert(unknown);
            }
        }
    }
    if let Some(unknown) = untold {
        return Reading::Unknown { unknown };
    }
    let is_untold = |listener: &&Listener| program(listener).is_none();
    if !listeners.iter().any(|listener| is_untold(&listener)) {
        return Reading::Known(false);
    }
    match listeners.iter().filter(is_untold).find(|listener| known.ports.contains(&listener.port)) {
        Some(listener) => {
            Reading::unknown(Cause::Forbidden, format!("who waits on port {} is not shown", listener.port))
        }
        None => Reading::unknown(Cause::Forbidden, "who waits on some ports is not shown"),
    }
}

/// Returns whether a program that starts others waits at `listener` in the place of `known`.
fn by_starter(host: &dyn Host, known: &Known, listener: &Listener, ssh: &SshServer) -> Reading<bool> {
    let starter = match program(listener) {
        Some(name) if STARTERS.contains(&name) && listener.protocol == Transport::Tcp => name,
        _ => return Reading::Known(false),
    };
    let may_be = || {
        let what = format!("{starter} waits on port {}, and what it starts is not shown", listener.port);
        Reading::unknown(Cause::Undecidable, what)
    };
    match (known.ports.contains(&listener.port), starter) {
        // OpenSSH's server has the same port, and its settings are judged.
        (true, "systemd") if has_port(ssh, listener.port) => match is_there(host, &SOCKETS) {
            Ok(true) => Reading::Known(false),
            Ok(false) => may_be(),
            Err(unknown) => Reading::Unknown { unknown },
        },
        (true, _) => Reading::Known(true),
        (false, _) if known.sockets.is_empty() || is_loopback(listener) => Reading::Known(false),
        (false, "systemd") => match has_socket(host, known) {
            Ok(true) => may_be(),
            Ok(false) => Reading::Known(false),
            Err(unknown) => Reading::Unknown { unknown },
        },
        (false, _) => may_be(),
    }
}

/// Returns whether OpenSSH's server, if there is one, waits on `port` by its settings.
fn has_port(ssh: &SshServer, port: u16) -> bool {
    // Without settings that could be read, it may be the usual one.
    ssh.ports.contains(&port) || (ssh.ports.is_empty() && ssh.enabled != Reading::Known(false) && port == PORT)
}

/// Returns whether systemd opens a socket for the program when the host starts.
fn has_socket(host: &dyn Host, known: &Known) -> Result<bool, Unknown> {
    let links: Vec<String> = WANTED_SOCKETS
        .iter()
        .flat_map(|folder| known.sockets.iter().map(move |socket| format!("{folder}/{socket}")))
        .collect();
    is_there(host, &links.iter().map(String::as_str).collect::<Vec<_>>())
}

fn is_loopback(listener: &Listener) -> bool {
    listener.address.as_str().parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::PathText;

    use super::{made::Made, *};
    use crate::host::{Recorded, recorded::Failure};

    fn listeners(rows: &[(u16, Option<&str>)]) -> Reading<Listeners> {
        let listener = |(port, program): &(u16, Option<&str>)| Listener {
            protocol: Transport::Tcp,
            address: Text::new("0.0.0.0"),
            port: *port,
            program: program
                .map_or_else(|| Reading::unknown(Cause::Forbidden, ""), |name| Reading::Known(Text::new(name))),
            reachable: None,
        };
        Reading::Known(Listeners { listeners: rows.iter().map(listener).collect() })
    }

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
    fn an_installed_program_listens_by_its_name_alone() {
        let host = host_with(&[]);
        let xrdp = KNOWN.iter().find(|known| known.name == "xrdp").unwrap();
        for (port, program, expected) in
            [(3389, Some("xrdp"), Some(true)), (3389, Some("other"), Some(false)), (3389, None, None), (80, None, None)]
        {
            let found = listening(&host, xrdp, &listeners(&[(port, program)]), &no_ssh());
            assert_eq!(found.known().copied(), expected, "{port} {program:?}");
        }
        assert_eq!(listening(&host, xrdp, &listeners(&[]), &no_ssh()), Reading::Known(false));
    }

    #[test]
    fn a_program_that_another_starts_listens_where_that_one_holds_its_port() {
        let ssh = SshServer { enabled: Reading::Known(true), ports: vec![22], ..no_ssh() };
        let cockpit = "/etc/systemd/system/sockets.target.wants/cockpit.socket";
        let ssh_socket = "/etc/systemd/system/sockets.target.wants/ssh.socket";
        for (name, links, ssh, port, holder, expected) in [
            ("cockpit", &[][..], &no_ssh(), 9090, "systemd", Some(true)),
            ("cockpit", &[], &no_ssh(), 9090, "cockpit-ws", Some(true)),
            ("cockpit", &[], &no_ssh(), 9091, "systemd", Some(false)),
            ("cockpit", &[cockpit], &no_ssh(), 9091, "systemd", None),
            ("telnetd", &[], &no_ssh(), 23, "inetd", Some(true)),
            ("telnetd", &[], &no_ssh(), 23, "xinetd", Some(true)),
            ("telnetd", &[], &no_ssh(), 23, "telnetd", Some(true)),
            ("telnetd", &[], &no_ssh(), 2323, "inetutils-inetd", None),
            ("telnetd", &[], &no_ssh(), 2323, "systemd", Some(false)),
            ("tigervnc", &[], &no_ssh(), 5903, "Xvnc", Some(true)),
            ("xrdp", &[], &no_ssh(), 79, "inetd", Some(false)),
            ("dropbear", &[], &no_ssh(), 22, "systemd", Some(true)),
            ("dropbear", &[], &ssh, 22, "systemd", None),
            ("dropbear", &[ssh_socket], &ssh, 22, "systemd", Some(false)),
            ("dropbear", &[ssh_socket], &ssh, 22, "xinetd", Some(true)),
        ] {
            let known = KNOWN.iter().find(|known| known.name == name).unwrap();
            let found = listening(&host_with(links), known, &listeners(&[(port, Some(holder))]), ssh);
            assert_eq!(found.known().copied(), expected, "{name} {port} {holder} {links:?}: {found:?}");
        }
    }

    #[test]
    fn what_is_on_the_loopback_alone_is_no_port_that_may_be_of_another_program() {
        let telnetd = KNOWN.iter().find(|known| known.name == "telnetd").unwrap();
        for (address, expected) in [("127.0.0.1", Some(false)), ("::1", Some(false)), ("::", None), ("10.0.0.1", None)]
        {
            let Reading::Known(mut found) = listeners(&[(631, Some("inetd"))]) else { panic!() };
            found.listeners[0].address = Text::new(address);
            let found = listening(&host_with(&[]), telnetd, &Reading::Known(found), &no_ssh());
            assert_eq!(found.known().copied(), expected, "{address}");
        }
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

    fn no_ssh() -> SshServer {
        without_server(Reading::Known(false), &Unknown::new(Cause::Absent, ""))
    }

    /// Returns a host on which none of the sockets' units is linked but `links`.
    fn host_with(links: &[&str]) -> Recorded {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/remote_access/debian-13");
        let mut host = Recorded::at(&case).unwrap();
        let index = host.index_mut();
        let file = *index.metadata.values().next().unwrap();
        let sockets = KNOWN.iter().flat_map(|known| known.sockets);
        let links_of = |socket: &&str| WANTED_SOCKETS.map(|folder| format!("{folder}/{socket}"));
        for path in sockets.flat_map(links_of).chain(SOCKETS.map(str::to_owned)) {
            if links.contains(&path.as_str()) {
                index.metadata.insert(PathText::from_bytes(path.as_bytes()), file);
            } else {
                index.errors.insert(format!("metadata {path}"), Failure::of(&std::io::ErrorKind::NotFound.into()));
            }
        }
        host
    }

    #[test]
    fn known_programs_are_in_order_and_their_processes_as_the_kernel_cuts_them() {
        assert!(KNOWN.is_sorted_by_key(|known| known.name));
        assert!(KNOWN.iter().flat_map(|known| known.process).chain(&STARTERS).all(|name| name.len() <= 15));
        assert!(KNOWN.iter().all(|known| !known.files.is_empty() && !known.process.is_empty()));
    }

    /// Checks that a password alone is told to suffice where `expected` is empty, and else unknown with it in the words.
    fn check(made: &Made, rows: &[(u16, Option<&str>)], expected: &str) {
        let ssh = ssh(&made.host, &listeners(rows));
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
        let found = ssh(&session().host, &Reading::Known(forwarded));
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
            assert_eq!(ssh(&gone().host, &listeners(rows)).enabled.known().copied(), enabled, "{rows:?}");
        }
        let hidden = bare().folder("/proc", &["14"]).absent("read /run/sshd.pid").absent("read /var/run/sshd.pid");
        check(&hidden, &[], "/proc does not list the processes of others");
        assert!(ssh(&hidden.host, &listeners(&[])).enabled.known().is_none());
        let contained =
            gone().process(77, "NSpid:\t77\t5\n", "sshd: /usr/sbin/sshd -D [listener]").folder("/proc", &["1", "77"]);
        assert!(ssh(&contained.host, &listeners(&[(22, None)])).enabled.known().is_none());
        assert_eq!(ssh(&contained.host, &listeners(&[])).enabled, Reading::Known(false));
        for holder in [Some("systemd"), None] {
            let socket = gone().file(SOCKETS[0], "").file(UNITS[0], "");
            assert_eq!(ssh(&socket.host, &listeners(&[(22, holder)])).enabled, Reading::Known(true), "{holder:?}");
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
