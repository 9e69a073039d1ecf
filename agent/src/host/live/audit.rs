//! Asks the kernel's audit system over netlink: its status and its rules. Nothing is changed.
//!
//! Only bytes leave this module; `probe::logging` reads them.

use std::{io, time::Duration};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use crate::host::{AUDIT_BYTES, AuditQuery};

// linux/netlink.h and linux/audit.h
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const AUDIT_GET: u16 = 1000;
const AUDIT_LIST_RULES: u16 = 1013;
const HEADER_BYTES: usize = 16;
/// Messages begin at multiples of it (`NLMSG_ALIGNTO`).
const ALIGNMENT: usize = 4;
const TIME_LIMIT: Duration = Duration::from_secs(5);
const RECEIVE_BYTES: usize = 64 * 1024;

/// Returns the messages of the answer.
pub(super) fn ask(query: AuditQuery) -> io::Result<Vec<u8>> {
    let kind = match query {
        AuditQuery::Status => AUDIT_GET,
        AuditQuery::Rules => AUDIT_LIST_RULES,
    };
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::AUDIT))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(TIME_LIMIT))?;
    rustix::net::send(&socket, &request(kind), SendFlags::empty())?;
    let mut messages = Vec::new();
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        let count = match rustix::net::recv(&socket, &mut buffer[..], RecvFlags::TRUNC) {
            Ok((_, count)) if count > RECEIVE_BYTES => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, count)) => count,
            Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if take(&buffer[..count], kind, &mut messages)? == End::Reached {
            return Ok(messages);
        }
        // The status is one message, which nothing ends.
        if query == AuditQuery::Status && !messages.is_empty() {
            return Ok(messages);
        }
    }
}

/// Whether an answer goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Reached,
    Open,
}

/// Adds the messages of `kind` that one datagram holds to `messages`, each padded to the 4 bytes that the next begins at.
fn take(datagram: &[u8], kind: u16, messages: &mut Vec<u8>) -> io::Result<End> {
    let mut rest = datagram;
    while let Some(header) = rest.first_chunk::<HEADER_BYTES>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let message = rest.get(..length).filter(|_| length >= HEADER_BYTES).ok_or(io::ErrorKind::InvalidData)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            NLMSG_DONE => return Ok(End::Reached),
            NLMSG_ERROR => return Err(error(&message[HEADER_BYTES..])),
            found if found == kind => {
                messages.extend_from_slice(message);
                messages.resize(messages.len().next_multiple_of(ALIGNMENT), 0);
            }
            _ => {}
        }
        if messages.len() > AUDIT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    Ok(End::Open)
}

fn request(kind: u16) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES).expect("a header is short");
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &NLM_F_REQUEST.to_ne_bytes(), &1_u32.to_ne_bytes(), &[0; 4]]
        .concat()
}

/// `struct nlmsgerr` begins with a negative errno.
fn error(body: &[u8]) -> io::Error {
    match body.first_chunk::<4>().map(|number| i32::from_ne_bytes(*number)) {
        Some(number) if number < 0 => io::Error::from_raw_os_error(number.saturating_neg()),
        _ => io::ErrorKind::InvalidData.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + body.len()).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
    }

    #[test]
    fn each_message_begins_where_netlink_aligns_it() {
        // The kernel sends each rule by itself, and its text may have any length.
        let bodies: [&[u8]; 4] = [b"key=w", b"key=wa", b"key=wat", b"key=watc"];
        let mut messages = Vec::new();
        for body in bodies {
            assert_eq!(take(&message(AUDIT_LIST_RULES, body), AUDIT_LIST_RULES, &mut messages).unwrap(), End::Open);
        }
        let done = take(&message(NLMSG_DONE, b"end"), AUDIT_LIST_RULES, &mut messages).unwrap();
        assert_eq!(done, End::Reached);
        // As netlink(7) walks them: NLMSG_NEXT.
        let (mut rest, mut found) = (&messages[..], Vec::new());
        while let Some(length) = rest.first_chunk::<4>() {
            let length = u32::from_ne_bytes(*length) as usize;
            found.push(&rest[HEADER_BYTES..length]);
            rest = &rest[length.next_multiple_of(ALIGNMENT)..];
        }
        assert_eq!(found, bodies);
    }

    #[test]
    fn a_datagram_that_is_cut_or_refused_is_an_error() {
        let mut messages = Vec::new();
        let whole = message(AUDIT_LIST_RULES, b"key=w");
        assert!(take(&whole[..18], AUDIT_LIST_RULES, &mut messages).is_err());
        assert!(take(&[0; HEADER_BYTES], AUDIT_LIST_RULES, &mut messages).is_err());
        let refused = take(&message(NLMSG_ERROR, &(-1_i32).to_ne_bytes()), AUDIT_LIST_RULES, &mut messages);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(1));
        messages.resize(AUDIT_BYTES, 0);
        assert_eq!(take(&whole, AUDIT_LIST_RULES, &mut messages).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
