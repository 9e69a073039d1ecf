//! What is the host's own: its interfaces, and the addresses to which packets come. From `/proc/net` (proc_pid_net(5)).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use muster_proto::fact::{Cause, Unknown};

use super::packet::{Interface, KIND_LOCAL, Receiver};
use crate::host::{self, Family, Host};

/// Bytes of a table of interfaces or addresses, at most.
const TABLE_BYTES: usize = 4 * 1024 * 1024;
/// RTN_BROADCAST and RTN_MULTICAST of linux/rtnetlink.h
const KIND_BROADCAST: u32 = 3;
const KIND_MULTICAST: u32 = 5;
const LOOPBACK: &str = "lo";
const NAME_BYTES: usize = 16;
/// Its number, which is the same in every namespace (LOOPBACK_IFINDEX of linux/net/net_namespace.h).
const LOOPBACK_INDEX: u32 = 1;
/// Interfaces among which it is looked for under another name, at most.
const NAMES: usize = 4096;

/// What is the host's own.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// Interfaces but the loopback; at least one, which may be of no name. `None` when they are not told.
    pub interfaces: Option<Vec<Interface>>,
    /// Addresses of the host and of groups. `None` when they are not told.
    pub ipv4: Option<Vec<Receiver>>,
    /// The same of IPv6.
    pub ipv6: Option<Vec<Receiver>>,
    /// Numbers of the names of interfaces by which packets from outside to 127.0.0.0/8 are taken (`route_localnet` of
    /// Documentation/networking/ip-sysctl.rst), or why they are not told.
    pub loopback_ways: Result<BTreeSet<u128>, Unknown>,
    /// Whether all addresses of some networks of IPv4 are the host's (`ip route add local`).
    pub has_networks: bool,
    /// Whether nothing comes in over IPv6.
    pub ipv6_is_off: bool,
}

impl Surroundings {
    /// Reads what is the host's own.
    pub fn read(host: &dyn Host) -> Self {
        let text = |path: &str| read_text(host, path);
        let or_nothing = |result: io::Result<String>| match result {
            // A kernel without that family has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(String::new()),
            result => result.ok(),
        };
        let groups = or_nothing(text("/proc/net/igmp"));
        let routes = text("/proc/net/fib_trie").ok();
        let addresses6 = or_nothing(text("/proc/net/if_inet6"));
        let groups6 = or_nothing(text("/proc/net/igmp6"));
        let devices = text("/proc/net/dev");
        let loopback = loopback(host, devices.as_deref().unwrap_or_default());
        let mut indexes = BTreeMap::new();
        indexes.extend(groups.as_deref().map(indexes_of_igmp).into_iter().flatten());
        indexes.extend(addresses6.as_deref().map(indexes_of_if_inet6).into_iter().flatten());
        Self {
            loopback_ways: match &devices {
                Ok(table) => loopback_ways(host, table, &loopback),
                Err(error) => Err(host::unknown("read /proc/net/dev".to_owned(), error)),
            },
            has_networks: routes.as_deref().is_some_and(has_networks),
            ipv6_is_off: ipv6_is_off(host),
            interfaces: devices.as_ref().ok().map(|table| interfaces(table, &indexes, &loopback)),
            ipv4: routes
                .zip(groups)
                .map(|(routes, groups)| [addresses_of_fib_trie(&routes), groups_of_igmp(&groups)].concat()),
            ipv6: addresses6
                .zip(groups6)
                .map(|(addresses, groups)| [addresses_of_if_inet6(&addresses), groups_of_igmp6(&groups)].concat()),
        }
    }

    pub fn receivers(&self, family: Family) -> Option<&[Receiver]> {
        match family {
            Family::Ipv4 => self.ipv4.as_deref(),
            Family::Ipv6 => self.ipv6.as_deref(),
        }
    }

    /// Returns whether packets from outside to the loopback of `family` may be taken.
    pub fn lets_loopback_in(&self, family: Family) -> bool {
        family == Family::Ipv4 && self.loopback_ways.as_ref().map_or(true, |ways| !ways.is_empty())
    }

    /// Returns whether packets to 127.0.0.0/8 that come by `interface` may be taken.
    pub fn routes_to_loopback(&self, interface: Option<Interface>) -> bool {
        let (Ok(ways), Some(interface)) = (&self.loopback_ways, interface) else { return true };
        ways.contains(&interface.name)
    }
}

/// Returns whether the interface `lo` is the loopback, which may be renamed. It is where that is not told.
pub(super) fn loopback_is_lo(host: &dyn Host) -> bool {
    index_of(host, LOOPBACK).is_none_or(|index| index == LOOPBACK_INDEX)
}

/// Returns whether packets from outside to 127.0.0.0/8 may be taken, by some interface. They may where that is not told.
pub(super) fn loopback_is_open(host: &dyn Host) -> bool {
    let Ok(devices) = read_text(host, "/proc/net/dev") else { return true };
    loopback_ways(host, &devices, &loopback(host, &devices)).map_or(true, |ways| !ways.is_empty())
}

/// Returns the name of the loopback; an empty one where it has none that is told.
fn loopback(host: &dyn Host, devices: &str) -> String {
    if loopback_is_lo(host) {
        return LOOPBACK.to_owned();
    }
    let is_loopback = |name: &&str| index_of(host, name) == Some(LOOPBACK_INDEX);
    names(devices).take(NAMES).find(is_loopback).unwrap_or_default().to_owned()
}

fn index_of(host: &dyn Host, name: &str) -> Option<u32> {
    read_text(host, &format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

fn read_text(host: &dyn Host, path: &str) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&host.read(Path::new(path), TABLE_BYTES)?).into_owned())
}

/// Returns the interfaces that take packets to 127.0.0.0/8: by their own setting, or by that for all.
fn loopback_ways(host: &dyn Host, devices: &str, loopback: &str) -> Result<BTreeSet<u128>, Unknown> {
    let is_on = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/route_localnet");
        match read_text(host, &path) {
            Ok(setting) => match setting.trim().parse::<i32>() {
                Ok(setting) => Ok(setting != 0),
                Err(_) => Err(Unknown::new(Cause::Garbled, format!("{path} is no number"))),
            },
            // An interface without IPv4, or that is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(host::unknown(format!("read {path}"), &error)),
        }
    };
    let is_on_for_all = is_on("all")?;
    let mut ways = BTreeSet::new();
    for Interface { name, .. } in interfaces(devices, &BTreeMap::new(), loopback).into_iter().filter(|_| is_on_for_all)
    {
        ways.insert(name);
    }
    for name in names(devices).filter(|name| *name != loopback && !is_on_for_all) {
        if is_on(name)? {
            ways.insert(name_number(name));
        }
    }
    Ok(ways)
}

/// Returns whether nothing comes in over IPv6: the kernel has none, and so no `/proc/net/if_inet6`, or it is switched off for
/// every interface (`disable_ipv6` of Documentation/networking/ip-sysctl.rst). The setting for all is put into each.
pub(super) fn ipv6_is_off(host: &dyn Host) -> bool {
    if read_text(host, "/proc/net/if_inet6").is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return true;
    }
    let Ok(devices) = read_text(host, "/proc/net/dev") else { return false };
    let is_off = |name: &str| match read_text(host, &format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6")) {
        Ok(setting) => setting.trim() == "1",
        // An interface without IPv6, whose packets the kernel drops.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    let loopback = loopback(host, &devices);
    let mut outer = names(&devices).filter(|name| *name != loopback).peekable();
    outer.peek().is_some() && outer.all(is_off)
}

/// Returns the kind of an address to which a socket is bound; `None` where it is not told.
pub(super) fn kind_of(receivers: Option<&[Receiver]>, family: Family, address: u128) -> Option<u32> {
    let is_group = match family {
        Family::Ipv4 => address >> 28 == 0xe,
        Family::Ipv6 => address >> 120 == 0xff,
    };
    if is_group {
        return Some(KIND_MULTICAST);
    }
    // The host has the whole network of the loopback.
    if family == Family::Ipv4 && address >> 24 == 127 {
        return Some(KIND_LOCAL);
    }
    receivers?.iter().find(|receiver| receiver.address == address).map(|receiver| receiver.kind)
}

/// A line of an interface begins with its name and a colon.
fn names(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim())
}

fn interfaces(table: &str, indexes: &BTreeMap<String, u32>, loopback: &str) -> Vec<Interface> {
    let mut found: Vec<_> = names(table)
        .filter(|name| *name != loopback)
        .map(|name| Interface { name: name_number(name), index: indexes.get(name).copied() })
        .collect();
    if found.is_empty() {
        found.push(Interface { name: 0, index: Some(0) });
    }
    found
}

/// Returns the number of a name that is filled with zeros.
pub(super) fn name_number(name: &str) -> u128 {
    let mut bytes = [0; NAME_BYTES];
    for (byte, of_name) in bytes.iter_mut().zip(name.bytes()) {
        *byte = of_name;
    }
    u128::from_be_bytes(bytes)
}

/// Lines of an interface begin with its number and name; those of its groups with spaces.
fn indexes_of_igmp(table: &str) -> Vec<(String, u32)> {
    let lines = table.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    let index = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let index = words.next()?.parse().ok()?;
        Some((words.next()?.trim_end_matches(':').to_owned(), index))
    };
    lines.filter_map(index).collect()
}

/// An address, the number of its interface, length of prefix, scope, flags, name; numbers in hex.
fn indexes_of_if_inet6(table: &str) -> Vec<(String, u32)> {
    let index = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        Some(((*words.get(5)?).to_owned(), u32::from_str_radix(words.get(1)?, 16).ok()?))
    };
    table.lines().filter_map(index).collect()
}

fn addresses_of_if_inet6(table: &str) -> Vec<Receiver> {
    let address = |line: &str| u128::from_str_radix(line.split_ascii_whitespace().next()?, 16).ok();
    table.lines().filter_map(address).map(|address| Receiver { address, kind: KIND_LOCAL }).collect()
}

/// Number and name of an interface, and a group in hex.
fn groups_of_igmp6(table: &str) -> Vec<Receiver> {
    let address = |line: &str| u128::from_str_radix(line.split_ascii_whitespace().nth(2)?, 16).ok();
    table.lines().filter_map(address).map(|address| Receiver { address, kind: KIND_MULTICAST }).collect()
}

/// Lines of groups begin with spaces, and hold an address as this machine's memory holds it.
fn groups_of_igmp(table: &str) -> Vec<Receiver> {
    let address = |line: &str| {
        let word = u32::from_str_radix(line.split_ascii_whitespace().next()?, 16).ok()?;
        Some(u32::from_be_bytes(word.to_ne_bytes()).into())
    };
    let lines = table.lines().filter(|line| line.starts_with(char::is_whitespace));
    lines.filter_map(address).map(|address| Receiver { address, kind: KIND_MULTICAST }).collect()
}

/// A leaf is a line `|-- ADDRESS`, and after it a line for each length of prefix: `/32 host LOCAL`.
fn addresses_of_fib_trie(table: &str) -> Vec<Receiver> {
    let mut found = vec![Receiver { address: u32::MAX.into(), kind: KIND_BROADCAST }];
    let mut leaf = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<std::net::Ipv4Addr>().ok().map(|address| u32::from(address).into());
            continue;
        }
        let kind = match line.strip_prefix("/32 ").and_then(|rest| rest.split_ascii_whitespace().nth(1)) {
            Some("LOCAL") => KIND_LOCAL,
            Some("BROADCAST") => KIND_BROADCAST,
            _ => continue,
        };
        found.extend(leaf.map(|address| Receiver { address, kind }).filter(|one| !found.contains(one)));
    }
    found
}

/// Returns whether a network other than that of the loopback is the host's own: `/16 host LOCAL`.
fn has_networks(table: &str) -> bool {
    let mut is_loopback = false;
    table.lines().map(str::trim).any(|line| {
        if let Some(address) = line.strip_prefix("|-- ") {
            is_loopback = address.starts_with("127.");
            return false;
        }
        let Some((length, rest)) = line.strip_prefix('/').and_then(|line| line.split_once(' ')) else { return false };
        !is_loopback && length != "32" && rest.split_ascii_whitespace().nth(1) == Some("LOCAL")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::{Recorded, recorded::Failure};

    const IGMP: &str = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                        1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
                        12\tvery-long-name1:     1      V3\n\t\t\t\tFB0000E0     1 0:00000000\t\t0\n";

    #[test]
    fn interfaces_are_told_by_name_and_number() {
        assert_eq!(indexes_of_igmp(IGMP), [("lo".to_owned(), 1), ("very-long-name1".to_owned(), 12)]);
        let line = "fe8000000000000000fc00fffe000001 0c 40 20 80     eth0\n";
        assert_eq!(indexes_of_if_inet6(line), [("eth0".to_owned(), 12)]);
        assert_eq!(addresses_of_if_inet6(line)[0].address, 0xfe80_0000_0000_0000_00fc_00ff_fe00_0001);
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  eth0: 3 4\n";
        let indexes = BTreeMap::from([("eth0".to_owned(), 12)]);
        assert_eq!(interfaces(dev, &indexes, "lo"), [Interface { name: name_number("eth0"), index: Some(12) }]);
        assert_eq!(interfaces("    lo: 1 2\n", &indexes, "lo"), [Interface { name: 0, index: Some(0) }]);
    }

    #[test]
    fn addresses_are_told_with_their_kinds() {
        let trie = "Main:\n  +-- 10.0.0.0/24 2 0 2\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.2\n        \
                    /32 host LOCAL\n     |-- 10.0.0.255\n        /32 link BROADCAST\nLocal:\n     |-- 10.0.0.2\n        \
                    /32 host LOCAL\n     |-- 127.0.0.0\n        /8 host LOCAL\n";
        let found: Vec<_> = addresses_of_fib_trie(trie).iter().map(|one| (one.address, one.kind)).collect();
        assert_eq!(found, [(0xffff_ffff, 3), (0x0a00_0002, 2), (0x0a00_00ff, 3)]);
        if cfg!(target_endian = "little") {
            let groups: Vec<_> = groups_of_igmp(IGMP).iter().map(|one| one.address).collect();
            assert_eq!(groups, [0xe000_0001, 0xe000_00fb]);
        }
        let groups = groups_of_igmp6("4    eth0            ff0200000000000000000000000000fb     1 0000000C 0\n");
        assert_eq!(groups[0].address, 0xff02_0000_0000_0000_0000_0000_0000_00fb);
    }

    #[test]
    fn a_whole_network_of_the_host_is_told_from_its_addresses() {
        let own = "Main:\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.2\n        /32 host LOCAL\n     \
                   |-- 127.0.0.0\n        /8 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert!(!has_networks(own));
        assert!(has_networks(&format!("{own}     |-- 10.99.0.0\n        /16 host LOCAL\n")));
    }

    /// A machine with these files, and without those that are empty here.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Recorded) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.json"), r#"{"version":1,"captured":"2026-11-24T12:00:00Z"}"#).unwrap();
        for (path, content) in files {
            let file = folder.path().join("files").join(path.trim_start_matches('/'));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        let mut host = Recorded::at(folder.path()).unwrap();
        for (path, _) in files.iter().filter(|(_, content)| content.is_empty()) {
            let failure = Failure { errno: None, kind: "not_found".to_owned(), text: String::new() };
            host.index_mut().errors.insert(format!("read {path}"), failure);
        }
        (folder, host)
    }

    const DEVICES: &str = "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  eth0: 3 4\n  wg0: 3 4\n";

    #[test]
    fn ipv6_is_off_when_the_kernel_has_none_or_every_interface_is_without() {
        let setting = |name: &str| format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        let off = |table: &str, eth0: &str, wg0: &str| {
            let (eth0_path, wg0_path) = (setting("eth0"), setting("wg0"));
            let files = [
                ("/proc/net/if_inet6", table),
                ("/proc/net/dev", DEVICES),
                (eth0_path.as_str(), eth0),
                (wg0_path.as_str(), wg0),
            ];
            let (_folder, host) = machine(&files);
            ipv6_is_off(&host)
        };
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n";
        assert!(off("", "0\n", "0\n"));
        assert!(off(table, "1\n", "1\n"));
        // An interface that has no IPv6 has no such setting.
        assert!(off(table, "1\n", ""));
        assert!(!off(table, "1\n", "0\n"));
        assert!(!off(table, "0\n", "0\n"));
        let (_folder, host) = machine(&[]);
        assert!(!ipv6_is_off(&host), "what is not told is taken to be on");
    }

    #[test]
    fn another_interface_by_the_name_of_the_loopback_is_not_it() {
        let of = |lo: &str, wg0: &str| {
            let (_folder, host) = machine(&[("/sys/class/net/lo/ifindex", lo), ("/sys/class/net/wg0/ifindex", wg0)]);
            (loopback_is_lo(&host), loopback(&host, DEVICES))
        };
        assert_eq!(of("1\n", "3\n"), (true, "lo".to_owned()));
        assert_eq!(of("2\n", "1\n"), (false, "wg0".to_owned()));
        assert_eq!(of("2\n", "3\n"), (false, String::new()));
        // Not told, or no such interface.
        assert_eq!(of("?\n", "1\n"), (true, "lo".to_owned()));
        assert_eq!(of("", "1\n"), (true, "lo".to_owned()));
        let dev = "face |bytes\n    lo: 1 2\n  lo0: 3 4\n";
        assert_eq!(interfaces(dev, &BTreeMap::new(), "lo0"), [Interface { name: name_number("lo"), index: None }]);
    }

    #[test]
    fn packets_to_the_loopback_come_by_the_interfaces_whose_setting_says_so() {
        let setting = |name: &str| format!("/proc/sys/net/ipv4/conf/{name}/route_localnet");
        let ways = |all: &str, eth0: &str, wg0: &str| {
            let paths = [setting("all"), setting("eth0"), setting("wg0")];
            let files: Vec<_> = paths.iter().map(String::as_str).zip([all, eth0, wg0]).collect();
            let (_folder, host) = machine(&files);
            loopback_ways(&host, DEVICES, "lo")
        };
        let of = |names: &[&str]| Ok(names.iter().map(|name| name_number(name)).collect());
        assert_eq!(ways("0\n", "0\n", "0\n"), of(&[]));
        assert_eq!(ways("0\n", "0\n", "1\n"), of(&["wg0"]));
        assert_eq!(ways("1\n", "0\n", "0\n"), of(&["eth0", "wg0"]));
        assert_eq!(ways("0\n", "0\n", ""), of(&[]));
        assert_eq!(ways("0\n", "?\n", "0\n").unwrap_err().cause, Cause::Garbled);
        let (_folder, host) = machine(&[]);
        assert!(loopback_ways(&host, DEVICES, "lo").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_tables_never_panic(table in "[0-9a-f:./ |\\-\n\tA-Z]{0,300}", rest in "\\PC{0,80}") {
            for table in [&table, &rest] {
                let _ = indexes_of_igmp(table);
                let _ = indexes_of_if_inet6(table);
                let _ = addresses_of_if_inet6(table);
                let _ = groups_of_igmp6(table);
                let _ = groups_of_igmp(table);
                let _ = addresses_of_fib_trie(table);
                let _ = has_networks(table);
                let _ = interfaces(table, &BTreeMap::new(), "lo");
            }
        }
    }
}
