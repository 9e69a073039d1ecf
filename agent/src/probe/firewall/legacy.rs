//! A legacy table as getsockopt(2) gives it (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h). Pure.
//!
//! ```text
//! struct ipt_getinfo     name[32] valid_hooks hook_entry[5] underflow[5] num_entries size      84 bytes
//! struct ipt_get_entries name[32] size padding[4] entries[size]
//! entry                  addresses, interfaces, protocol, flags | target_offset next_offset | counters | matches | target
//! ```

use std::collections::BTreeMap;

use muster_proto::fact::{ChainPolicy, FilterEngine, FilterFamily};

use super::{
    packet::{self, Ask, Condition, Field},
    rule_set::{Base, Hook, Name, RuleSet, Translated, Translation},
    rules::{Act, Rule, Scope},
    share::{self, Share},
    xt,
};
use crate::host::Family;

const INFO_BYTES: usize = 84;
const ENTRIES_AT: usize = INFO_BYTES + 40;
const HOOKS: usize = 5;
/// The hooks that packets to the host meet: number, name of the chain, place.
const MET: [(usize, &str, Hook); 2] = [(0, "PREROUTING", Hook::Prerouting), (1, "INPUT", Hook::Input)];
/// `struct xt_entry_match` and `xt_entry_target` before their data: size, name, revision.
const PART_HEADER_BYTES: usize = 32;

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
    untracks: bool,
    translates: bool,
    translated_to: Option<Translated>,
    diverts: bool,
    resends: bool,
}

/// Returns the chains of the table `name`; `None` when it does not follow the format. `priority` is that of the table.
pub(super) fn parse(family: Family, name: &str, priority: i32, bytes: &[u8]) -> Option<RuleSet> {
    let layout = match family {
        Family::Ipv4 => IPV4,
        Family::Ipv6 => IPV6,
    };
    let valid_hooks = word(bytes, 32)?;
    let mut hooks = BTreeMap::new();
    let mut underflows = BTreeMap::new();
    for hook in (0..HOOKS).filter(|hook| valid_hooks & 1 << hook != 0) {
        hooks.insert(word(bytes, 36 + 4 * hook)? as usize, hook);
        underflows.insert(word(bytes, 56 + 4 * hook)? as usize, hook);
    }
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
        parsed.insert(at, parse_entry(family, &layout, entry, at)?);
        at += next;
    }
    let mut set = RuleSet { canonical, ..RuleSet::default() };
    let untracking = parsed.values().filter(|entry| entry.untracks);
    set.untracking = untracking.map(|entry| entry.rule.conditions.clone()).collect();
    set.diverts = parsed.values().any(|entry| entry.diverts);
    set.translates = parsed.values().any(|entry| entry.translates);
    let translating = parsed.values().filter(|entry| entry.translates);
    let translation =
        |entry: &Entry| Translation { conditions: entry.rule.conditions.clone(), to: entry.translated_to };
    set.translations = translating.map(translation).collect();
    let number = number_of(family);
    let chains = chains(parsed, &hooks, &underflows)?;
    let named = |at: usize| -> Name {
        let chain = chains.names.get(&at).cloned().unwrap_or_else(|| at.to_string());
        (u8::try_from(number).unwrap_or_default(), name.to_owned(), chain)
    };
    for (number, _, hook) in MET {
        let Some((entry, _)) = hooks.iter().find(|(_, hook)| **hook == number) else { continue };
        set.bases.push(Base {
            name: named(*entry),
            engine: FilterEngine::IptablesLegacy,
            family: match family {
                Family::Ipv4 => FilterFamily::Ip,
                Family::Ipv6 => FilterFamily::Ip6,
            },
            hook,
            priority,
            policy: *chains.policies.get(&number)?,
            is_nat: name == "nat",
            devices: Vec::new(),
            rewritten_by: None,
            resent_by: None,
        });
    }
    for (at, rules) in &chains.rules {
        set.rule_counts.insert(named(*at), u32::try_from(rules.len()).ok()?);
        let rules = rules.iter().map(|rule| Rule {
            scope: rule.scope,
            conditions: rule.conditions.clone(),
            number: rule.number,
            act: match &rule.act {
                Act::Jump(to) => Act::Jump(named(*to)),
                Act::Goto(to) => Act::Goto(named(*to)),
                Act::Continue => Act::Continue,
                Act::Accept => Act::Accept,
                Act::Translate => Act::Translate,
                Act::Drop => Act::Drop,
                Act::Reject => Act::Reject,
                Act::Return => Act::Return,
                Act::Unclear => Act::Unclear,
            },
        });
        set.chains.insert(named(*at), rules.collect());
    }
    let resending: Vec<_> = chains.resending.iter().map(|(at, number)| (named(*at), *number)).collect();
    set.note_resending(&resending);
    Some(set)
}

/// Chains by the place of their first rule.
#[derive(Default)]
struct Chains {
    rules: BTreeMap<usize, Vec<Rule<usize>>>,
    names: BTreeMap<usize, String>,
    /// By number of the hook.
    policies: BTreeMap<usize, ChainPolicy>,
    /// Rules that change from whom packets come, by chain and number.
    resending: Vec<(usize, u32)>,
}

/// Splits the entries into chains: a jump goes to the first rule of a chain, which ends before the next chain's head or at
/// the underflow of a base chain.
fn chains(
    entries: BTreeMap<usize, Entry>,
    hooks: &BTreeMap<usize, usize>,
    underflows: &BTreeMap<usize, usize>,
) -> Option<Chains> {
    let mut found = Chains::default();
    let mut chain = None;
    let mut chain_name = None;
    for (at, entry) in entries {
        if let Some(hook) = hooks.get(&at) {
            let name = MET.iter().find(|(number, ..)| number == hook).map(|(_, name, _)| (*name).to_owned());
            chain_name = name;
            chain = None;
        }
        if let Some(name) = entry.name {
            (chain, chain_name) = (None, Some(name));
            continue;
        }
        let first = *chain.get_or_insert(at);
        if let Some(name) = chain_name.take() {
            found.names.insert(first, name);
        }
        let rules = found.rules.entry(first).or_default();
        if let Some(hook) = underflows.get(&at) {
            // The policy is the last rule of a base chain.
            let policy = match entry.rule.act {
                Act::Accept => ChainPolicy::Accept,
                Act::Drop => ChainPolicy::Drop,
                _ => return None,
            };
            found.policies.insert(*hook, policy);
            chain = None;
            continue;
        }
        let number = u32::try_from(rules.len() + 1).ok()?;
        rules.push(Rule { number, ..entry.rule });
        if entry.resends {
            found.resending.push((first, number));
        }
    }
    Some(found)
}

fn number_of(family: Family) -> u128 {
    match family {
        Family::Ipv4 => packet::IPV4,
        Family::Ipv6 => packet::IPV6,
    }
}

fn parse_entry(family: Family, layout: &Layout, entry: &[u8], at: usize) -> Option<Entry> {
    let target_offset = usize::from(half(entry, layout.target_offset)?);
    let mut scope = header_scope(layout, entry)?;
    let mut conditions = header_conditions(family, layout, entry)?;
    let mut parts = entry.get(layout.parts..target_offset)?;
    while !parts.is_empty() {
        let size = usize::from(half(parts, 0)?);
        let info = parts.get(PART_HEADER_BYTES..size)?;
        let (of_part, more) = xt::read(&name(parts)?, info, Some(number_of(family)));
        scope = scope.and(of_part);
        conditions.extend(more);
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
    let info = target.get(PART_HEADER_BYTES..).unwrap_or_default();
    Some(Entry {
        rule: Rule { scope, conditions, act, number: 0 },
        name: chain_name,
        untracks: xt::untracks(&target_name, info),
        translates: xt::translates(&target_name),
        translated_to: xt::translated_to(&target_name, info, family),
        diverts: xt::diverts(&target_name),
        resends: xt::resends(&target_name),
    })
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

/// Returns the same conditions, for a packet of which more is known.
fn header_conditions(family: Family, layout: &Layout, entry: &[u8]) -> Option<Vec<Condition>> {
    let n = layout.address_bytes;
    let (flags, inverts) = (*entry.get(layout.flags)?, *entry.get(layout.invert_flags)?);
    let mut conditions = Vec::new();
    let (sender, receiver) = match family {
        Family::Ipv4 => (Field::Ipv4Sender, Field::Ipv4Receiver),
        Family::Ipv6 => (Field::Ipv6Sender, Field::Ipv6Receiver),
    };
    for (at, field, flag) in [(0, sender, INVERTS_SOURCE), (1, receiver, INVERTS_DESTINATION)] {
        let (address, mask) = (entry.get(at * n..(at + 1) * n)?, entry.get((at + 2) * n..(at + 3) * n)?);
        if mask.iter().any(|byte| *byte != 0) || inverts & flag != 0 {
            let ask = match share::network(address, mask) {
                Some((first, last)) => Ask::Within(big(&first), big(&last)),
                None => Ask::Bits { mask: big(mask), value: big(address) & big(mask) },
            };
            conditions.push(Condition::test(field, ask, inverts & flag != 0));
        }
    }
    let interfaces = entry.get(4 * n..4 * n + 64)?;
    let (names, masks) = interfaces.split_at(32);
    let (mask, value) = (big(&masks[..16]), big(&names[..16]));
    if mask != 0 || inverts & INVERTS_INTERFACE != 0 {
        let ask = Ask::Bits { mask, value: value & mask };
        conditions.push(Condition::test(Field::InterfaceName, ask, inverts & INVERTS_INTERFACE != 0));
    }
    if masks[16..].iter().any(|byte| *byte != 0) {
        conditions.push(Condition::Unclear);
    }
    if flags & layout.is_fragment != 0 {
        let ask = Ask::Bits { mask: packet::FRAGMENT_PLACE, value: 0 };
        conditions.push(Condition::test(Field::Fragment, ask, inverts & INVERTS_FRAGMENT == 0));
    }
    match half(entry, layout.proto)? {
        _ if flags & layout.has_protocol != layout.has_protocol => {}
        0 if layout.has_protocol == 0 => {}
        protocol => {
            let ask = Ask::Within(protocol.into(), protocol.into());
            conditions.push(Condition::test(Field::Protocol, ask, inverts & INVERTS_PROTOCOL != 0));
        }
    }
    if flags & !(layout.goes | layout.has_protocol | layout.is_fragment) != 0 {
        conditions.push(Condition::Unclear);
    }
    Some(conditions)
}

/// Returns the number of up to 16 bytes.
fn big(bytes: &[u8]) -> u128 {
    bytes.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
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
            let _ = parse(Family::Ipv4, "filter", 0, &bytes);
            let _ = parse(Family::Ipv6, "filter", 0, &bytes);
            for (family, at) in [(Family::Ipv4, 88), (Family::Ipv6, 140)] {
                if let Some(offsets) = bytes.get_mut(ENTRIES_AT + at..ENTRIES_AT + at + 4) {
                    offsets[..2].copy_from_slice(&target.to_ne_bytes());
                    offsets[2..].copy_from_slice(&next.to_ne_bytes());
                }
                let _ = parse(family, "filter", 0, &bytes);
            }
        }
    }
}
