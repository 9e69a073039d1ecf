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
    nf_tables::{xt_match, xt_target},
    rules::{self, Act, Rule, Scope},
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
    pub rule_count: u32,
}

/// Places in an entry, which differ by family.
struct Layout {
    address_bytes: usize,
    proto: usize,
    flags: usize,
    invert_flags: usize,
    target_offset: usize,
    counters: usize,
    parts: usize,
}

const IPV4: Layout =
    Layout { address_bytes: 4, proto: 80, flags: 82, invert_flags: 83, target_offset: 88, counters: 96, parts: 112 };
const IPV6: Layout = Layout {
    address_bytes: 16,
    proto: 128,
    flags: 131,
    invert_flags: 132,
    target_offset: 140,
    counters: 152,
    parts: 168,
};

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
    let mut chain = None;
    for (at, entry) in entries {
        if entry.name.is_some() {
            chain = None;
        } else if at == hook || chain.is_none() {
            chain = Some(at);
        }
        if at == underflow {
            // The policy is the last rule of a base chain.
            chains.entry(chain.take().unwrap_or(at)).or_default();
        } else if let (Some(chain), None) = (chain, &entry.name) {
            chains.entry(chain).or_default().push(entry.rule);
        }
    }
    let rule_count = u32::try_from(chains.get(&hook)?.len()).ok()?;
    Some(Input { policy, verdict: rules::verdict(&chains, &hook, policy), rule_count })
}

fn parse_entry(layout: &Layout, entry: &[u8], at: usize) -> Option<Entry> {
    let target_offset = usize::from(half(entry, layout.target_offset)?);
    let mut scope = address_scope(layout, entry)?;
    let mut parts = entry.get(layout.parts..target_offset)?;
    while !parts.is_empty() {
        let size = usize::from(half(parts, 0)?);
        let info = parts.get(PART_HEADER_BYTES..size)?;
        scope = scope.and(xt_match(&name(parts)?, info));
        parts = parts.get(size..)?;
    }
    let target = entry.get(target_offset..)?;
    let target_name = name(target)?;
    let is_goto = entry[layout.flags] & 2 != 0;
    let act = match target_name.as_str() {
        // The standard target: a verdict, or where to go.
        "" => match word(target, PART_HEADER_BYTES)?.cast_signed() {
            -1 => Act::Drop,
            -2 => Act::Accept,
            -5 => Act::Return,
            to if to >= 0 && is_goto => Act::Goto(to as usize),
            to if to >= 0 && to as usize == at + entry.len() => Act::Continue,
            to if to >= 0 => Act::Jump(to as usize),
            _ => Act::Unclear,
        },
        other => xt_target(other),
    };
    let chain_name = (target_name == "ERROR").then(|| c_text(target.get(PART_HEADER_BYTES..).unwrap_or_default()));
    Some(Entry { rule: Rule { scope, act }, name: chain_name })
}

fn address_scope(layout: &Layout, entry: &[u8]) -> Option<Scope> {
    let n = layout.address_bytes;
    let masks = entry.get(2 * n..4 * n)?;
    let interface = entry.get(4 * n..4 * n + 16)?;
    let interface_mask = entry.get(4 * n + 32..4 * n + 48)?;
    let protocol = half(entry, layout.proto)?;
    let inverted = *entry.get(layout.invert_flags)?;
    let mut scope = Scope::All;
    for mask in masks.chunks(n) {
        let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
        scope = scope.and(match ones {
            0 => Scope::All,
            ones if ones >= 8 && inverted == 0 => Scope::Narrow,
            _ => Scope::Unclear,
        });
    }
    if interface_mask.iter().any(|byte| *byte != 0) {
        let is_loopback = c_text(interface) == "lo" && interface_mask[2] != 0 && inverted == 0;
        scope = scope.and(if is_loopback { Scope::Narrow } else { Scope::Unclear });
    }
    // With IPv6, the protocol counts only with a flag; a protocol of 0 is every one.
    Some(scope.and(match protocol {
        0 => Scope::All,
        6 | 17 => Scope::Unclear,
        _ if inverted == 0 => Scope::Narrow,
        _ => Scope::Unclear,
    }))
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
