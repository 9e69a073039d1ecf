//! A legacy table as getsockopt(2) gives it (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h). Pure.
//!
//! ```text
//! struct ipt_getinfo     name[32] valid_hooks hook_entry[5] underflow[5] num_entries size      84 bytes
//! struct ipt_get_entries name[32] size padding[4] entries[size]
//! entry                  addresses, interfaces, protocol, flags | target_offset next_offset | counters | matches | target
//! ```

use std::collections::BTreeMap;

use muster_proto::fact::{ChainPolicy, DefaultVerdict};

use super::{
    rules::{self, Act, Rule, Scope},
    share::{self, Share},
    xt,
};
use crate::host::Family;

const INFO_BYTES: usize = 84;
const ENTRIES_AT: usize = INFO_BYTES + 40;
const HOOK_INPUT: usize = 1;
/// `struct xt_entry_match` and `xt_entry_target` before their data: size, name, revision.
const PART_HEADER_BYTES: usize = 32;

#[derive(Debug)]
pub(super) struct Table {
    pub input: Option<Input>,
    /// Names of user chains.
    pub names: Vec<String>,
    /// The entries with their counters zeroed.
    pub canonical: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Input {
    pub policy: ChainPolicy,
    pub verdict: DefaultVerdict,
    /// Chain and number of the rule because of which the verdict cannot be told.
    pub because: Option<(String, u32)>,
    pub rule_count: u32,
}

/// Places in an entry, which differ by family.
struct Layout {
    address_bytes: usize,
    proto: usize,
    flags: usize,
    invert_flags: usize,
    /// Bit of `flags` by which a jump does not come back.
    goes: u8,
    /// Bit of `flags` by which the protocol counts; 0 where it always does.
    has_protocol: u8,
    /// Bit of `flags` by which only fragments but the first are meant.
    is_fragment: u8,
    target_offset: usize,
    counters: usize,
    parts: usize,
}

const IPV4: Layout = Layout {
    address_bytes: 4,
    proto: 80,
    flags: 82,
    invert_flags: 83,
    goes: 2,
    has_protocol: 0,
    is_fragment: 1,
    target_offset: 88,
    counters: 96,
    parts: 112,
};
const IPV6: Layout = Layout {
    address_bytes: 16,
    proto: 128,
    flags: 131,
    invert_flags: 132,
    goes: 4,
    has_protocol: 1,
    is_fragment: 0,
    target_offset: 140,
    counters: 152,
    parts: 168,
};
// Bits of what is inverted (`IPT_INV_`), the same for both families.
const INVERTS_INTERFACE: u8 = 1;
const INVERTS_SOURCE: u8 = 8;
const INVERTS_DESTINATION: u8 = 16;
const INVERTS_FRAGMENT: u8 = 32;
const INVERTS_PROTOCOL: u8 = 64;

struct Entry {
    rule: Rule<usize>,
    /// Of the head of a user chain.
    name: Option<String>,
}

/// Returns the table; `None` when it does not follow the format.
pub(super) fn parse(family: Family, bytes: &[u8]) -> Option<Table> {
    let layout = match family {
        Family::Ipv4 => IPV4,
        Family::Ipv6 => IPV6,
    };
    let valid_hooks = word(bytes, 32)?;
    let hook = word(bytes, 36 + 4 * HOOK_INPUT)? as usize;
    let underflow = word(bytes, 56 + 4 * HOOK_INPUT)? as usize;
    let entries = bytes.get(ENTRIES_AT..)?;
    let mut parsed = BTreeMap::new();
    let mut canonical = entries.to_vec();
    let mut at = 0;
    while at < entries.len() {
        let rest = &entries[at..];
        let next = usize::from(half(rest, layout.target_offset + 2)?);
        if next < layout.parts + PART_HEADER_BYTES {
            return None;
        }
        let entry = rest.get(..next)?;
        canonical[at + layout.counters..at + layout.counters + 16].fill(0);
        parsed.insert(at, parse_entry(&layout, entry, at)?);
        at += next;
    }
    let names = parsed.values().filter_map(|entry| entry.name.clone()).collect();
    let input = if valid_hooks & (1 << HOOK_INPUT) == 0 { None } else { Some(read_input(parsed, hook, underflow)?) };
    Some(Table { input, names, canonical })
}

/// Splits the entries into chains: a jump goes to the first rule of a chain, which ends before the next chain's head or at
/// the underflow of a base chain.
fn read_input(entries: BTreeMap<usize, Entry>, hook: usize, underflow: usize) -> Option<Input> {
    let policy = match entries.get(&underflow)?.rule.act {
        Act::Accept => ChainPolicy::Accept,
        Act::Drop => ChainPolicy::Drop,
        _ => return None,
    };
    let mut chains: BTreeMap<usize, Vec<Rule<usize>>> = BTreeMap::new();
    let mut names = BTreeMap::from([(hook, "INPUT".to_owned())]);
    let mut chain = None;
    let mut chain_name = None;
    for (at, entry) in entries {
        if entry.name.is_some() {
            chain = None;
            chain_name = entry.name.clone();
        } else if at == hook || chain.is_none() {
            chain = Some(at);
        }
        if at == underflow {
            // The policy is the last rule of a base chain.
            chains.entry(chain.take().unwrap_or(at)).or_default();
        } else if let (Some(chain), None) = (chain, &entry.name) {
            names.extend(chain_name.take().map(|name| (chain, name)));
            let rules = chains.entry(chain).or_default();
            let number = u32::try_from(rules.len() + 1).ok()?;
            rules.push(Rule { number, ..entry.rule });
        }
    }
    let rule_count = u32::try_from(chains.get(&hook)?.len()).ok()?;
    let found = rules::verdict(&chains, &hook, policy);
    let because = found.because.and_then(|(chain, rule)| Some((names.remove(&chain)?, rule)));
    Some(Input { policy, verdict: found.verdict, because, rule_count })
}

fn parse_entry(layout: &Layout, entry: &[u8], at: usize) -> Option<Entry> {
    let target_offset = usize::from(half(entry, layout.target_offset)?);
    let mut scope = header_scope(layout, entry)?;
    let mut parts = entry.get(layout.parts..target_offset)?;
    while !parts.is_empty() {
        let size = usize::from(half(parts, 0)?);
        let info = parts.get(PART_HEADER_BYTES..size)?;
        scope = scope.and(xt::matches(&name(parts)?, info));
        parts = parts.get(size..)?;
    }
    let target = entry.get(target_offset..)?;
    let target_name = name(target)?;
    let is_goto = entry.get(layout.flags)? & layout.goes != 0;
    let act = match target_name.as_str() {
        // The standard target: a verdict, or where to go.
        "" => match word(target, PART_HEADER_BYTES)?.cast_signed() {
            -1 => Act::Drop,
            -2 => Act::Accept,
            -5 => Act::Return,
            to if to >= 0 && to as usize == at + entry.len() => Act::Continue,
            to if to >= 0 && is_goto => Act::Goto(to as usize),
            to if to >= 0 => Act::Jump(to as usize),
            _ => Act::Unclear,
        },
        other => xt::target(other),
    };
    let chain_name = (target_name == "ERROR").then(|| c_text(target.get(PART_HEADER_BYTES..).unwrap_or_default()));
    Some(Entry { rule: Rule { scope, act, number: 0 }, name: chain_name })
}

/// Returns the scope of the conditions on addresses, interface, fragments and protocol.
fn header_scope(layout: &Layout, entry: &[u8]) -> Option<Scope> {
    let n = layout.address_bytes;
    let (flags, inverts) = (*entry.get(layout.flags)?, *entry.get(layout.invert_flags)?);
    let address = |at: usize, share: fn(&[u8], &[u8]) -> Share, inverts: bool| {
        let (address, mask) = (entry.get(at * n..(at + 1) * n)?, entry.get((at + 2) * n..(at + 3) * n)?);
        if mask.iter().all(|byte| *byte == 0) {
            return Some(Scope::All.inverted_if(inverts));
        }
        let scope = share::network(address, mask).map_or(Scope::Unclear, |(first, last)| share(&first, &last).scope());
        Some(scope.inverted_if(inverts))
    };
    let source = address(0, share::sources, inverts & INVERTS_SOURCE != 0)?;
    let destination = address(1, share::destinations, inverts & INVERTS_DESTINATION != 0)?;
    let interface = interface_scope(entry.get(4 * n..4 * n + 64)?).inverted_if(inverts & INVERTS_INTERFACE != 0);
    let fragment = if flags & layout.is_fragment != 0 {
        // Later fragments come to nothing without the first.
        Scope::Narrow.inverted_if(inverts & INVERTS_FRAGMENT != 0)
    } else {
        Scope::All
    };
    let protocol = match half(entry, layout.proto)? {
        _ if flags & layout.has_protocol != layout.has_protocol => Scope::All,
        0 if layout.has_protocol == 0 => Scope::All,
        protocol => {
            let scope = u8::try_from(protocol).map_or(Scope::Unclear, |one| share::protocols(one, one).scope());
            scope.inverted_if(inverts & INVERTS_PROTOCOL != 0)
        }
    };
    let rest = if flags & !(layout.goes | layout.has_protocol | layout.is_fragment) == 0 {
        Scope::All
    } else {
        Scope::Unclear
    };
    Some([destination, interface, fragment, protocol, rest].into_iter().fold(source, Scope::and))
}

/// Returns the scope of the interfaces: names of the incoming and the outgoing one, and masks of their bytes.
fn interface_scope(interfaces: &[u8]) -> Scope {
    let (names, masks) = interfaces.split_at(interfaces.len() / 2);
    let (incoming, outgoing) = masks.split_at(masks.len() / 2);
    let is_any = |mask: &[u8]| mask.iter().all(|byte| *byte == 0);
    if is_any(incoming) && is_any(outgoing) {
        Scope::All
    } else if is_any(outgoing) && names.starts_with(b"lo\0") && incoming.starts_with(&[0xff; 3]) {
        // With its final zero; without, it would be the beginning of names.
        Scope::Narrow
    } else {
        Scope::Unclear
    }
}

fn name(part: &[u8]) -> Option<String> {
    part.get(2..31).map(c_text)
}

fn c_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Changes a header that says nothing, of which every packet is meant.
    fn scope(layout: &Layout, change: impl Fn(&mut [u8])) -> Scope {
        let mut entry = vec![0; layout.parts];
        change(&mut entry);
        header_scope(layout, &entry).unwrap()
    }

    #[test]
    fn a_header_is_as_narrow_as_its_conditions() {
        let address = |entry: &mut [u8], at: usize, address: [u8; 4], bits: u32| {
            entry[4 * at..4 * at + 4].copy_from_slice(&address);
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            entry[4 * at + 8..4 * at + 12].copy_from_slice(&mask.to_be_bytes());
        };
        let interface = |entry: &mut [u8], name: &[u8]| {
            entry[16..16 + name.len()].copy_from_slice(name);
            entry[48..48 + name.len()].fill(0xff);
        };
        type Change<'c> = &'c dyn Fn(&mut [u8]);
        let cases: [(Change<'_>, Scope); 18] = [
            (&|_| {}, Scope::All),
            (&|e| address(e, 0, [192, 0, 2, 0], 24), Scope::Narrow),
            (&|e| address(e, 0, [128, 0, 0, 0], 1), Scope::Unclear),
            (&|e| address(e, 1, [192, 0, 2, 7], 32), Scope::Unclear),
            (&|e| address(e, 1, [224, 0, 0, 251], 32), Scope::Narrow),
            (&|e| interface(e, b"lo\0"), Scope::Narrow),
            (&|e| interface(e, b"lo"), Scope::Unclear),
            (&|e| interface(e, b"eth0\0"), Scope::Unclear),
            (&|e| e[80] = 1, Scope::Narrow),
            (&|e| e[80] = 6, Scope::Unclear),
            // Fragments, a jump that does not come back, and a flag that is not known.
            (&|e| e[82] = 1, Scope::Narrow),
            (&|e| e[82] = 2, Scope::All),
            (&|e| e[82] = 4, Scope::Unclear),
            (&|e| e[83] = INVERTS_DESTINATION, Scope::Narrow),
            (&|e| (e[82], e[83]) = (1, INVERTS_FRAGMENT), Scope::All),
            (&|e| (e[80], e[83]) = (1, INVERTS_PROTOCOL), Scope::All),
            (
                &|e| {
                    address(e, 0, [192, 0, 2, 0], 24);
                    e[83] = INVERTS_SOURCE;
                },
                Scope::All,
            ),
            (
                &|e| {
                    interface(e, b"lo\0");
                    e[83] = INVERTS_INTERFACE;
                },
                Scope::All,
            ),
        ];
        for (case, (change, expected)) in cases.into_iter().enumerate() {
            assert_eq!(scope(&IPV4, change), expected, "case {case}");
        }
    }

    #[test]
    fn with_ipv6_the_protocol_counts_by_a_flag_and_another_bit_is_a_goto() {
        for (protocol, flags, expected) in [
            (58, 1, Scope::Narrow),
            (58, 0, Scope::All),
            (6, 1, Scope::Unclear),
            (0, 0, Scope::All),
            (58, 1 | 4, Scope::Narrow),
            (0, 4, Scope::All),
            (0, 2, Scope::Unclear),
        ] {
            let change = |entry: &mut [u8]| (entry[128], entry[131]) = (protocol, flags);
            assert_eq!(scope(&IPV6, change), expected, "{protocol} {flags}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..600), next in 0_u16..400, target in 0_u16..400,
        ) {
            let _ = parse(Family::Ipv4, &bytes);
            let _ = parse(Family::Ipv6, &bytes);
            for (family, at) in [(Family::Ipv4, 88), (Family::Ipv6, 140)] {
                if let Some(offsets) = bytes.get_mut(ENTRIES_AT + at..ENTRIES_AT + at + 4) {
                    offsets[..2].copy_from_slice(&target.to_ne_bytes());
                    offsets[2..].copy_from_slice(&next.to_ne_bytes());
                }
                let _ = parse(family, &bytes);
            }
        }
    }
}
