//! Names and addresses of the host itself: what is sent there has not left it. No other host is asked for them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use muster_proto::fact::{Cause, Unknown};

use crate::host::{self, FILE_BYTES, Host};

/// Names and addresses of the host, beside those of the loopback.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Own {
    /// In lower case.
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Own {
    pub(super) fn look(host: &dyn Host) -> Result<Self, Unknown> {
        let ipv4 = text(host, "/proc/net/fib_trie")?;
        let ipv6 = text(host, "/proc/net/if_inet6")?;
        let mut own = Self { names: BTreeSet::new(), addresses: ipv4_of(&ipv4).chain(ipv6_of(&ipv6)).collect() };
        let name = text(host, "/proc/sys/kernel/hostname")?.trim().to_ascii_lowercase();
        own.names.extend(Some(name).filter(|name| !name.is_empty()));
        let names = own.of_hosts(&text(host, "/etc/hosts")?);
        own.names.extend(names);
        Ok(own)
    }

    /// Returns the names that hosts(5) gives to an address of the host.
    fn of_hosts(&self, hosts: &str) -> Vec<String> {
        let mut names = Vec::new();
        for line in hosts.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            if words.next().and_then(address).is_some_and(|address| self.is_own(address)) {
                names.extend(words.map(str::to_ascii_lowercase));
            }
        }
        names
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || address.is_unspecified() || self.addresses.contains(&address)
    }

    /// Returns whether `target`, a name or an address and maybe a port, is the host itself.
    pub(super) fn is_local(&self, target: &str) -> bool {
        let name = name_of(target).to_ascii_lowercase();
        if let Some(address) = address(&name) {
            return self.is_own(address);
        }
        let name = name.trim_end_matches('.');
        name.is_empty() || is_loopback_name(name) || self.names.contains(name)
    }
}

/// Names that hosts(5) of every distribution and nss-myhostname(8) keep for the host itself.
fn is_loopback_name(name: &str) -> bool {
    ["localhost", "localhost4", "localhost6"]
        .iter()
        .any(|local| name == *local || name.strip_prefix(local).is_some_and(|rest| rest.starts_with('.')))
        || name.ends_with(".localhost")
        || ["ip6-localhost", "ip6-loopback"].contains(&name)
}

/// Returns the name or address in `target`, without its brackets and what comes behind it.
fn name_of(target: &str) -> &str {
    let target = target.trim();
    if let Some(inside) = target.strip_prefix('[') {
        return inside.split(']').next().unwrap_or_default();
    }
    let is_end = |c: char| c.is_whitespace() || matches!(c, ';' | '/' | ',' | '"' | '\'');
    let target = target.split(is_end).next().unwrap_or_default();
    // More than one colon is an address of IPv6, and no port.
    if target.matches(':').count() > 1 { target } else { target.split(':').next().unwrap_or_default() }
}

/// Reads an address as getaddrinfo(3) does, which takes the forms of inet_aton(3) too: `127.1`, `0x7f000001`, `0`.
fn address(name: &str) -> Option<IpAddr> {
    let name = name.split('%').next().unwrap_or_default();
    if let Ok(address) = name.parse::<Ipv6Addr>() {
        return Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4));
    }
    let parts: Vec<u32> = name.split('.').map(number).collect::<Option<_>>()?;
    let (last, bytes) = parts.split_last()?;
    if bytes.len() > 3 || bytes.iter().any(|&byte| byte > 0xff) {
        return None;
    }
    let width = 8 * (4 - u32::try_from(bytes.len()).ok()?);
    if width < 32 && *last >> width != 0 {
        return None;
    }
    let high = bytes.iter().zip([24, 16, 8]).map(|(byte, shift)| byte << shift).sum::<u32>();
    Some(IpAddr::V4(Ipv4Addr::from(high | last)))
}

/// Reads a number in the bases of C.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    if digits.starts_with('+') { None } else { u32::from_str_radix(digits, radix).ok() }
}

/// A leaf is a line `|-- ADDRESS`, and after it a line for each length of prefix: `/32 host LOCAL`.
fn ipv4_of(trie: &str) -> impl Iterator<Item = IpAddr> {
    let mut leaf = None;
    trie.lines().map(str::trim).filter_map(move |line| {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
            return None;
        }
        line.strip_prefix("/32 ")?.ends_with(" LOCAL").then_some(leaf).flatten().map(IpAddr::V4)
    })
}

/// Lines begin with an address in hex.
fn ipv6_of(table: &str) -> impl Iterator<Item = IpAddr> {
    let address = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok();
    table.lines().filter_map(address).map(|address| IpAddr::V6(address.into()))
}

/// Returns the text of a file, which is empty where it is not there: a kernel without IPv6, or a host without hosts(5).
fn text(host: &dyn Host, path: &str) -> Result<String, Unknown> {
    match host.read(Path::new(path), FILE_BYTES) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(String::new()),
        Err(error) => Err(host::unknown(format!("read {path}"), &error)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_host_itself_is_no_other_host() {
        let mut own = Own::default();
        own.addresses.extend(ipv4_of("  +-- 10.0.0.0/8 2 0 2\n     |-- 10.0.0.5\n        /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\n"));
        own.addresses.extend(ipv6_of("20010db8000000000000000000000005 02 40 00 80 eth0\n"));
        let hosts = "127.0.0.1 localhost loghost # x\n127.0.1.1\tWeb1.example.com web1\n10.0.0.5 me\n10.0.0.6 logs\n";
        own.names.extend(own.of_hosts(hosts));
        for target in [
            "127.0.0.1",
            "localhost:514",
            "[::1]:514",
            "::1",
            "",
            " localhost",
            "localhost4",
            "localhost6.localdomain6",
            "ip6-localhost",
            "ip6-loopback:514",
            "LOCALHOST",
            "loghost:1514;T",
            "web1",
            "WEB1.example.com.",
            "me",
            "x.localhost",
            "0",
            "[0:0:0:0:0:0:0:1]:514",
            "2130706433",
            "127.1",
            "0x7f.1",
            "0177.0.0.1",
            "::ffff:127.0.0.1",
            "[::ffff:10.0.0.5]",
            "::",
            "0.0.0.0",
            "10.0.0.5:514",
            "[2001:db8::5]:514",
            "2001:db8::5",
            "[::1%lo]:514",
        ] {
            assert!(own.is_local(target), "{target}");
        }
        for target in [
            "10.0.0.1",
            "10.0.0.255",
            "logs.example.com",
            "logs",
            "[2001:db8::1]:514",
            "localhost-logs.example.com",
            "web1.example.org",
            "localhost5",
            "256.0.0.1x",
            "0x",
            "2130706434000",
        ] {
            assert!(!own.is_local(target), "{target}");
        }
        assert!(!Own::default().is_local("web1"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), numbers in "[0-9a-fx.:%]{0,20}") {
            let own = Own { addresses: ipv4_of(&text).chain(ipv6_of(&text)).collect(), ..Own::default() };
            let _ = (own.is_local(&text), own.is_local(&numbers), own.of_hosts(&text));
        }
    }
}
