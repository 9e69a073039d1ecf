//! A rule set as a legacy table.

use muster_proto::fact::ChainPolicy;

use super::{
    super::{legacy::parse, rule_set::RuleSet},
    Acts, Conditions, Not, Rules,
};
use crate::host::Family;

const HEADER_BYTES: usize = 112;
const PART_BYTES: usize = 32;

/// A match or target: size, name, revision, data.
fn part(name: &str, revision: u8, data: &[u8]) -> Vec<u8> {
    let size = (PART_BYTES + data.len()).next_multiple_of(8);
    let mut bytes = u16::try_from(size).unwrap().to_ne_bytes().to_vec();
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(PART_BYTES - 1, 0);
    bytes.push(revision);
    bytes.extend_from_slice(data);
    bytes.resize(size, 0);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn entry(conditions: &Conditions, goes: bool, target: &[u8]) -> Vec<u8> {
    let mut header = vec![0; HEADER_BYTES];
    let mut inverts = 0;
    if let Some(Not { is_inverted, is: (network, bits) }) = conditions.sender {
        put(&mut header, 0, &network.to_be_bytes());
        put(&mut header, 8, &(u32::MAX << bits).to_be_bytes());
        inverts |= u8::from(is_inverted) * 8;
    }
    if let Some(Not { is_inverted, is: (name, is_beginning) }) = conditions.interface {
        put(&mut header, 16, name.as_bytes());
        put(&mut header, 48, &vec![0xff; name.len() + usize::from(!is_beginning)]);
        inverts |= u8::from(is_inverted);
    }
    if let Some(Not { is_inverted, is: protocol }) = conditions.protocol {
        put(&mut header, 80, &u16::from(protocol).to_ne_bytes());
        inverts |= u8::from(is_inverted) * 64;
    }
    put(&mut header, 82, &[u8::from(goes) * 2, inverts]);
    let mut matches = Vec::new();
    let (any, not) = ((0, u16::MAX), |ports: &Option<Not<(u16, u16)>>| ports.as_ref().is_some_and(|p| p.is_inverted));
    let range = |ports: &Option<Not<(u16, u16)>>| ports.as_ref().map_or(any, |ports| ports.is);
    let (sender, receiver) = (range(&conditions.sender_ports), range(&conditions.ports));
    let halves = |numbers: &[u16]| numbers.iter().flat_map(|half| half.to_ne_bytes()).collect::<Vec<_>>();
    if let Some(Not { is_inverted: false, is: protocol }) = conditions.protocol {
        let mut info = halves(&[sender.0, sender.1, receiver.0, receiver.1]);
        let inverts = u8::from(not(&conditions.sender_ports)) | (u8::from(not(&conditions.ports)) * 2);
        // `struct xt_tcp` asks for flags too.
        let is_tcp = protocol == super::TCP;
        let (mask, flags, inverts_flags) = match &conditions.flags {
            Some(Not { is_inverted, is: (mask, flags) }) => (*mask, *flags, u8::from(*is_inverted) * 4),
            None => (0x17, 2, 0),
        };
        let rest = [0, mask, flags, inverts_flags];
        info.extend_from_slice(if is_tcp { &rest } else { &[0, 0] });
        let last = if is_tcp { 11 } else { 8 };
        info[last] |= inverts;
        matches.extend(part(if is_tcp { "tcp" } else { "udp" }, 0, &info));
    } else {
        for (flags, ports) in [(0, &conditions.sender_ports), (1, &conditions.ports)] {
            let Some(Not { is_inverted, is: (first, last) }) = ports else { continue };
            let mut info = vec![flags, 2];
            info.extend(halves(&[*first, *last]));
            info.resize(48, 0);
            info[32] = 1;
            info[47] = u8::from(*is_inverted);
            matches.extend(part("multiport", 1, &info));
        }
    }
    if let Some(Not { is_inverted, is: states }) = conditions.states {
        let mut info = vec![0; 146];
        info.extend(halves(&[1, u16::from(is_inverted), u16::try_from(states).unwrap(), 0]));
        info.resize(160, 0);
        matches.extend(part("conntrack", 3, &info));
    }
    let target_at = HEADER_BYTES + matches.len();
    put(&mut header, 88, &u16::try_from(target_at).unwrap().to_ne_bytes());
    put(&mut header, 90, &u16::try_from(target_at + target.len()).unwrap().to_ne_bytes());
    [header, matches, target.to_vec()].concat()
}

fn standard(verdict: i32) -> Vec<u8> {
    part("", 0, &verdict.to_ne_bytes())
}

fn head(name: &str) -> Vec<u8> {
    let mut data = name.as_bytes().to_vec();
    data.resize(32, 0);
    entry(&Conditions::default(), false, &part("ERROR", 0, &data))
}

/// Returns the entries of a chain, when chains begin at `starts` and these at `at`.
fn chain(rules: &Rules, number: usize, starts: &[usize], mut at: usize) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    for rule in &rules.chains[number] {
        let goes = matches!(rule.acts, Acts::Goto(_));
        let build = |target: &[u8]| entry(&rule.conditions, goes, target);
        let to = |chain: usize| i32::try_from(starts.get(chain).copied().unwrap_or(0)).unwrap();
        let built = match &rule.acts {
            Acts::Accept => build(&standard(-2)),
            Acts::Drop => build(&standard(-1)),
            Acts::Return => build(&standard(-5)),
            Acts::Reject => build(&part("REJECT", 0, &[0; 4])),
            Acts::Jump(chain) | Acts::Goto(chain) => build(&standard(to(*chain))),
            // A rule without a target goes on with the next entry.
            Acts::Count | Acts::ByPort(_) => {
                let next = at + build(&standard(0)).len();
                build(&standard(i32::try_from(next).unwrap()))
            }
        };
        at += built.len();
        entries.push(built);
    }
    let last = match (number, rules.policy) {
        (0, ChainPolicy::Accept) => -2,
        (0, ChainPolicy::Drop) => -1,
        _ => -5,
    };
    entries.push(entry(&Conditions::default(), false, &standard(last)));
    entries
}

/// Returns what is read of the rule set in the kernel's form.
pub(super) fn read(rules: &Rules) -> RuleSet {
    let count = rules.chains.len();
    // Sizes do not depend on where chains begin.
    let sizes: Vec<usize> = (0..count).map(|number| chain(rules, number, &[], 0).concat().len()).collect();
    let mut starts = Vec::new();
    let mut at = 0;
    for (number, size) in sizes.iter().enumerate() {
        at += if number == 0 { 0 } else { head("x").len() };
        starts.push(at);
        at += size;
    }
    let mut entries = Vec::new();
    let mut underflow = 0;
    for number in 0..count {
        if number > 0 {
            entries.extend(head(&format!("chain{number}")));
        }
        let built = chain(rules, number, &starts, entries.len());
        if number == 0 {
            underflow = built[..built.len() - 1].concat().len();
        }
        entries.extend(built.concat());
    }
    entries.extend(head("ERROR"));
    let mut bytes = vec![0; 84 + 40];
    put(&mut bytes, 32, &2_u32.to_ne_bytes());
    put(&mut bytes, 56 + 4, &u32::try_from(underflow).unwrap().to_ne_bytes());
    bytes.extend(entries);
    parse(Family::Ipv4, "filter", 0, &bytes).unwrap()
}
