//! Asks the kernel for its packet filters: nf_tables over netlink, and the legacy tables by getsockopt(2).
//!
//! Only bytes leave this module; `probe::firewall` reads them.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use crate::host::{Dump, Family, RULE_SET_BYTES};

// linux/netlink.h and linux/netfilter/{nfnetlink,nf_tables}.h
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_GETSET: u16 = 10;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const HEADER_BYTES: usize = 16;

// linux/netfilter_ipv4/ip_tables.h; the numbers of IPv6 are the same.
const SO_GET_INFO: i32 = 64;
const SO_GET_ENTRIES: i32 = 65;
const TABLE_NAME_BYTES: usize = 32;
/// `struct ipt_getinfo`: name, valid hooks, entries of 5 hooks, underflows of 5 hooks, number and size of entries.
const INFO_BYTES: usize = TABLE_NAME_BYTES + 4 * (1 + 5 + 5 + 2);
/// `struct ipt_get_entries` without its entries: name, size, and padding to 8.
const ENTRIES_HEADER_BYTES: usize = TABLE_NAME_BYTES + 8;

/// How often a dump that the rule set changed under is made again.
const TRIES: u32 = 4;
const TIME_LIMIT: Duration = Duration::from_secs(5);
const RECEIVE_BYTES: usize = 64 * 1024;

/// Returns the messages of a dump.
pub(super) fn dump(what: Dump) -> io::Result<Vec<u8>> {
    let message = match what {
        Dump::Tables => NFT_MSG_GETTABLE,
        Dump::Chains => NFT_MSG_GETCHAIN,
        Dump::Rules => NFT_MSG_GETRULE,
        Dump::Sets => NFT_MSG_GETSET,
    };
    ask(&request(message, 0, &[]))
}

/// Returns the messages of a dump of a set's elements.
pub(super) fn elements(family: u8, table: &str, set: &str) -> io::Result<Vec<u8>> {
    ask(&request(NFT_MSG_GETSETELEM, family, &[(NFTA_SET_ELEM_LIST_TABLE, table), (NFTA_SET_ELEM_LIST_SET, set)]))
}

fn ask(request: &[u8]) -> io::Result<Vec<u8>> {
    for _ in 0..TRIES {
        if let Some(messages) = ask_once(request)? {
            return Ok(messages);
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "rule set kept changing while it was read"))
}

/// Returns `None` when the rule set changed meanwhile.
fn ask_once(request: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(TIME_LIMIT))?;
    rustix::net::send(&socket, request, SendFlags::empty())?;
    let mut messages = Vec::new();
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        let count = match rustix::net::recv(&socket, &mut buffer[..], RecvFlags::TRUNC) {
            Ok((_, count)) if count > RECEIVE_BYTES => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok((_, count)) => count,
            Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut rest = &buffer[..count];
        while let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let (kind, flags) =
                (u16::from_ne_bytes([header[4], header[5]]), u16::from_ne_bytes([header[6], header[7]]));
            if flags & NLM_F_DUMP_INTR != 0 {
                return Ok(None);
            }
            let body = body.get(..length.saturating_sub(HEADER_BYTES)).ok_or(io::ErrorKind::InvalidData)?;
            match kind {
                NLMSG_DONE => return Ok(Some(messages)),
                NLMSG_ERROR => return Err(netlink_error(body)),
                _ => messages.extend_from_slice(&rest[..length]),
            }
            if messages.len() > RULE_SET_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            // Messages are aligned to 4 bytes.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A netlink header, a `struct nfgenmsg` and attributes that are texts.
fn request(message: u16, family: u8, texts: &[(u16, &str)]) -> Vec<u8> {
    let mut request = vec![0; HEADER_BYTES];
    request[4..6].copy_from_slice(&(NFNL_SUBSYS_NFTABLES << 8 | message).to_ne_bytes());
    request[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.extend_from_slice(&[family, 0, 0, 0]);
    for (kind, text) in texts {
        // Names are at most NFT_NAME_MAXLEN (256) bytes, so that the length fits.
        let length = u16::try_from(4 + text.len() + 1).unwrap_or(u16::MAX);
        request.extend_from_slice(&length.to_ne_bytes());
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(text.as_bytes());
        request.push(0);
        request.resize(request.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request
}

/// Returns the error of a `struct nlmsgerr`. The kernel says EINVAL when no subsystem nf_tables answers.
fn netlink_error(body: &[u8]) -> io::Error {
    match body.first_chunk::<4>().map(|code| i32::from_ne_bytes(*code).saturating_neg()) {
        Some(22) => io::Error::new(io::ErrorKind::Unsupported, "kernel has no nf_tables"),
        Some(code) if code > 0 => io::Error::from_raw_os_error(code),
        _ => io::ErrorKind::InvalidData.into(),
    }
}

/// Returns `struct ipt_getinfo` and `struct ipt_get_entries` of a legacy table that is there.
///
/// Asking for a table that is not there would make it, so that the caller asks only for those of
/// `/proc/net/ip_tables_names`.
pub(super) fn legacy(family: Family, table: &str) -> io::Result<Vec<u8>> {
    let (address_family, level) = match family {
        Family::Ipv4 => (AddressFamily::INET, libc::IPPROTO_IP),
        Family::Ipv6 => (AddressFamily::INET6, libc::IPPROTO_IPV6),
    };
    if table.len() >= TABLE_NAME_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Any socket of the family answers. A raw one would need CAP_NET_RAW, which an agent has no other use for.
    let socket = rustix::net::socket_with(address_family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut info = vec![0; INFO_BYTES];
    info[..table.len()].copy_from_slice(table.as_bytes());
    get(&socket, level, SO_GET_INFO, &mut info)?;
    let size_at = INFO_BYTES - 4;
    let size = u32::from_ne_bytes([info[size_at], info[size_at + 1], info[size_at + 2], info[size_at + 3]]);
    if size as usize > RULE_SET_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut entries = vec![0; ENTRIES_HEADER_BYTES + size as usize];
    entries[..table.len()].copy_from_slice(table.as_bytes());
    entries[TABLE_NAME_BYTES..TABLE_NAME_BYTES + 4].copy_from_slice(&size.to_ne_bytes());
    get(&socket, level, SO_GET_ENTRIES, &mut entries)?;
    info.extend_from_slice(&entries);
    Ok(info)
}

/// Calls getsockopt(2), which reads the request from `buffer` and writes the answer over it.
fn get(socket: &OwnedFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes, which is what `buffer` has.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
