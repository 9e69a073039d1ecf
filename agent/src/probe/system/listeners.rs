//! Sockets that wait for peers, from `/proc/net` (proc_pid_net(5)).

use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use muster_proto::fact::{Cause, Listener, Listeners, Reach, Reading, Text, Transport};

use crate::{
    host::{self, Host, SocketOwners},
    probe::firewall::Reachability,
};

use super::read_text;

/// Sockets that are listed, at most.
const LISTENERS: usize = 10_000;
/// Bytes of a line, at most.
const LINE_BYTES: u64 = 1024;
/// First ephemeral port of the kernel's own choice (Documentation/networking/ip-sysctl.rst). Where an administrator gives more
/// ports to be taken, services still wait at those below.
const EPHEMERAL: u16 = 32768;

const TABLES: [(&str, Transport, bool); 4] = [
    ("/proc/net/tcp", Transport::Tcp, false),
    ("/proc/net/tcp6", Transport::Tcp, true),
    ("/proc/net/udp", Transport::Udp, false),
    ("/proc/net/udp6", Transport::Udp, true),
];

#[derive(Clone, Debug, Eq, PartialEq)]
struct Socket {
    protocol: Transport,
    address: IpAddr,
    port: u16,
    inode: u64,
}

pub(in crate::probe) fn look(host: &dyn Host) -> Reading<Listeners> {
    let ephemeral =
        read_text(host, "/proc/sys/net/ipv4/ip_local_port_range").map_or(EPHEMERAL, |text| ephemeral(&text));
    let mut sockets = Vec::new();
    for (path, protocol, is_ipv6) in TABLES {
        match read_table(host, path, protocol, is_ipv6, ephemeral, &mut sockets) {
            Ok(()) => {}
            // A kernel without IPv6 has no such table.
            Err(error) if is_ipv6 && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Reading::Unknown { unknown: host::unknown(format!("read {path}"), &error) },
        }
    }
    let inodes: BTreeSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
    let owners = host.socket_owners(&inodes);
    let mut reachability = Reachability::read(host);
    let takes_ipv4 = takes_ipv4(&sockets);
    let mut listeners: Vec<Listener> = sockets
        .into_iter()
        .map(|socket| {
            let takes_ipv4 = takes_ipv4.contains(&(socket.protocol, socket.port));
            let reachable = reachability.of(socket.protocol, socket.address, socket.port, takes_ipv4);
            listener(socket, &owners, reachable)
        })
        .collect();
    listeners.sort();
    listeners.dedup();
    Reading::Known(Listeners { listeners })
}

/// Returns the first port at which an unconnected UDP socket is taken for one that asks, and not for one that waits.
fn ephemeral(range: &str) -> u16 {
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok());
    first.unwrap_or(EPHEMERAL).max(EPHEMERAL)
}

/// Returns protocols and ports at which a socket for every IPv6 address may take IPv4 too (ipv6(7), `IPV6_V6ONLY`): not where
/// another one waits for every IPv4 address, which the kernel lets be beside it only when the first takes none.
fn takes_ipv4(sockets: &[Socket]) -> BTreeSet<(Transport, u16)> {
    let waits = |address: IpAddr| {
        let found = sockets.iter().filter(move |socket| socket.address == address);
        found.map(|socket| (socket.protocol, socket.port)).collect::<BTreeSet<_>>()
    };
    &waits(Ipv6Addr::UNSPECIFIED.into()) - &waits(Ipv4Addr::UNSPECIFIED.into())
}

fn read_table(
    host: &dyn Host,
    path: &str,
    protocol: Transport,
    is_ipv6: bool,
    ephemeral: u16,
    sockets: &mut Vec<Socket>,
) -> io::Result<()> {
    let mut reader = io::BufReader::new(host.stream(Path::new(path))?);
    let mut line = Vec::new();
    let mut is_first = true;
    loop {
        line.clear();
        if reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            // The kernel gives the line of headings also where no socket is.
            return if is_first { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) };
        }
        if !line.ends_with(b"\n") {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if std::mem::take(&mut is_first) {
            continue;
        }
        let row = parse_row(&line, protocol, is_ipv6).ok_or(io::ErrorKind::InvalidData)?;
        if row.waits && (protocol == Transport::Tcp || row.socket.port < ephemeral) {
            if sockets.len() == LISTENERS {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more sockets than are listed"));
            }
            sockets.push(row.socket);
        }
    }
}

#[derive(Debug)]
struct Row {
    waits: bool,
    socket: Socket,
}

fn parse_row(line: &[u8], protocol: Transport, is_ipv6: bool) -> Option<Row> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.split_ascii_whitespace();
    let (local, remote, state) = (fields.nth(1)?, fields.next()?, fields.next()?);
    let inode = fields.nth(5)?.parse().ok()?;
    let (address, port) = parse_address(local, is_ipv6)?;
    let (_, remote_port) = parse_address(remote, is_ipv6)?;
    let waits = match protocol {
        // TCP_LISTEN of net/tcp_states.h
        Transport::Tcp => state == "0A",
        // TCP_CLOSE is what an unconnected UDP socket has.
        Transport::Udp => state == "07" && remote_port == 0,
    };
    Some(Row { waits: waits && port != 0, socket: Socket { protocol, address, port, inode } })
}

/// Returns the address and port of `0100007F:0016`: 32-bit words as this machine's memory holds them, and a number.
fn parse_address(text: &str, is_ipv6: bool) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |hex: &str| u32::from_str_radix(hex, 16).ok().map(u32::to_ne_bytes);
    if !address.is_ascii() || address.len() != if is_ipv6 { 32 } else { 8 } {
        return None;
    }
    if !is_ipv6 {
        return Some((Ipv4Addr::from(word(address)?).into(), port));
    }
    let mut bytes = [0; 16];
    for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
        chunk.copy_from_slice(&word(&address[at * 8..at * 8 + 8])?);
    }
    Some((Ipv6Addr::from(bytes).into(), port))
}

fn listener(socket: Socket, owners: &io::Result<SocketOwners>, reachable: Reading<Reach>) -> Listener {
    let program = match owners {
        Ok(owners) => match owners.programs.get(&socket.inode) {
            Some(program) => Reading::Known(Text::new(program)),
            None if owners.is_partial => Reading::unknown(Cause::Forbidden, "some processes do not show their files"),
            None => Reading::unknown(Cause::Absent, "no process holds the socket"),
        },
        Err(error) => Reading::Unknown { unknown: host::unknown("list /proc", error) },
    };
    Listener {
        protocol: socket.protocol,
        address: Text::new(&socket.address.to_string()),
        port: socket.port,
        program,
        reachable: Some(reachable),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTENS: &[u8] =
        b"   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0\n";

    #[test]
    fn a_listening_socket_is_told_from_a_connected_one() {
        let row = parse_row(LISTENS, Transport::Tcp, false).unwrap();
        assert!(row.waits);
        let expected = Socket { protocol: Transport::Tcp, address: Ipv4Addr::LOCALHOST.into(), port: 22, inode: 4711 };
        assert_eq!(row.socket, expected);
        let connected = String::from_utf8(LISTENS.to_vec()).unwrap().replace(" 0A ", " 01 ");
        assert!(!parse_row(connected.as_bytes(), Transport::Tcp, false).unwrap().waits);
    }

    #[test]
    fn more_ports_to_ask_from_hide_no_service() {
        for (range, expected) in
            [("32768\t60999\n", 32_768), ("1024\t65535\n", 32_768), ("49152\t65535\n", 49_152), ("", 32_768)]
        {
            assert_eq!(ephemeral(range), expected, "{range:?}");
        }
    }

    #[test]
    fn an_ipv6_address_is_read_word_by_word() {
        let any = parse_address("00000000000000000000000000000000:0035", true);
        assert_eq!(any, Some((Ipv6Addr::UNSPECIFIED.into(), 53)));
        if cfg!(target_endian = "little") {
            let local = parse_address("00000000000000000000000001000000:0035", true);
            assert_eq!(local, Some((Ipv6Addr::LOCALHOST.into(), 53)));
        }
        assert_eq!(parse_address("0100007F:0016", true), None);
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(line in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC*") {
            let _ = parse_row(&line, Transport::Udp, true);
            let _ = parse_address(&text, true);
            let _ = parse_address(&text, false);
        }
    }
}
