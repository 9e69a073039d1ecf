//! Other programs by which a person works on the host from elsewhere, by a table of them.

use muster_proto::fact::{Cause, Listener, Listeners, Reading, RemoteProgram, SshServer, Text, Transport, Unknown};

use super::{SOCKETS, is_loopback, is_there, program, sshd_config::PORT};
use crate::host::Host;

/// Where systemd keeps links to the sockets that it opens when the host starts.
pub(super) const WANTED_SOCKETS: [&str; 2] =
    ["/etc/systemd/system/sockets.target.wants", "/usr/lib/systemd/system/sockets.target.wants"];
/// Programs that wait for peers in the place of others, and start those when a peer comes.
const STARTERS: [&str; 4] = ["inetd", "inetutils-inetd", "systemd", "xinetd"];

/// A known program for remote work.
pub(super) struct Known {
    name: &'static str,
    /// Where it is installed: any of these.
    files: &'static [&'static str],
    /// Names that its process may have, cut to 15 bytes as the kernel does.
    process: &'static [&'static str],
    /// Ports that it waits on without a setting.
    ports: &'static [u16],
    /// Units of systemd that wait in its place, by their usual names; none of a program that others do not start when a peer comes.
    pub sockets: &'static [&'static str],
}

/// In order of name.
pub(super) const KNOWN: &[Known] = &[
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

pub(super) fn look(host: &dyn Host, listeners: &Reading<Listeners>, ssh: &SshServer) -> Vec<RemoteProgram> {
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

#[cfg(test)]
mod tests {
    use super::{
        super::{
            made::{host_with, listeners},
            openssh,
        },
        *,
    };

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
    fn known_programs_are_in_order_and_their_processes_as_the_kernel_cuts_them() {
        assert!(KNOWN.is_sorted_by_key(|known| known.name));
        assert!(KNOWN.iter().flat_map(|known| known.process).chain(&STARTERS).all(|name| name.len() <= 15));
        assert!(KNOWN.iter().all(|known| !known.files.is_empty() && !known.process.is_empty()));
    }

    fn no_ssh() -> SshServer {
        openssh::without_server(Reading::Known(false), &Unknown::new(Cause::Absent, ""))
    }
}
