//! Expressions of a rule: what it speaks of and what it does. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        netlink::{attributes, find, number, text},
        packet::{self, Ask, Condition, Field, Test},
        rule_set::{Translated, Translation},
        rules::{Act, Rule, Scope},
        share::Share,
        xt,
    },
    Filled, Name, Sets,
    elements::{Element, spans},
    is_anonymous,
    loaded::{EQUAL, Loaded, NOT_EQUAL},
    source::{Source, UNTOLD, native, state_scope},
    value, verdict_of,
};
use crate::host::Family;

// NFT_FIB_RESULT_ADDRTYPE and NFTA_FIB_F_DADDR
const FIB_TYPE: u32 = 3;
const FIB_RECEIVER: u32 = 2;
// NFT_FIB_RESULT_OIF, NFT_FIB_RESULT_OIFNAME and NFTA_FIB_F_SADDR
const FIB_INTERFACE: u32 = 1;
const FIB_INTERFACE_NAME: u32 = 2;
const FIB_SENDER: u32 = 1;
/// NFTA_FIB_F_PRESENT: one byte says whether there is an interface.
const FIB_IS_PRESENT: u32 = 32;
// NFT_EXTHDR_OP_TCPOPT and NFT_EXTHDR_F_PRESENT
const EXTENSION_OF_TCP: u32 = 1;
const EXTENSION_IS_PRESENT: u32 = 1;
// `enum nft_payload_bases`
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// NFT_META_PKTTYPE
const META_PACKET_KIND: u32 = 19;
/// NFT_NAT_DNAT
const NAT_OF_RECEIVER: u32 = 1;
// NF_NAT_RANGE_PROTO_OFFSET and NF_NAT_RANGE_NETMAP
const NAT_IS_MAPPED: u32 = 32 | 64;
/// NFT_LIMIT_F_INV and NFT_CONNLIMIT_F_INV: of what is over the limit.
const IS_OVER: u32 = 1;
const REGISTER_BYTES: usize = 16;
const WORD_BYTES: usize = 4;

/// Reads the expressions of one rule, in order.
pub(super) struct RuleReader<'n> {
    chain: &'n Name,
    sets: &'n Sets,
    filled: &'n Filled,
    number: u32,
    /// By their first word of 4 bytes: registers of 16 bytes lie over those of 4.
    registers: BTreeMap<u32, Loaded>,
    /// What the rule itself puts into them, by the same words.
    constants: BTreeMap<u32, Vec<u8>>,
    scope: Scope,
    conditions: Vec<Condition>,
    act: Act<Name>,
    /// The conditions under which it keeps packets from being tracked.
    pub untracking: Option<Vec<Condition>>,
    /// Whether it changes to whom packets go.
    pub translates: bool,
    pub translations: Vec<Translation>,
    /// Whether it hands packets to a socket that they are not for.
    pub diverts: bool,
    /// Whether it changes from whom packets come.
    pub resends: bool,
    /// Whether it writes into the parts of a packet by which packets are told apart.
    pub rewrites: bool,
    /// Whether it leads to chains that are not told.
    pub loses_way: bool,
    /// Sets that it fills, each with whether only senders that are over some limit come so far.
    pub fills: Vec<(Name, bool)>,
    /// What the elements of a verdict map do, each for its own packets.
    map: Option<Vec<Rule<Name>>>,
    pub wanted: BTreeSet<Name>,
}

impl<'n> RuleReader<'n> {
    pub fn new(chain: &'n Name, number: u32, sets: &'n Sets, filled: &'n Filled) -> Self {
        Self {
            chain,
            sets,
            filled,
            number,
            registers: BTreeMap::new(),
            constants: BTreeMap::new(),
            scope: Scope::All,
            conditions: Vec::new(),
            act: Act::Continue,
            untracking: None,
            translates: false,
            translations: Vec::new(),
            diverts: false,
            resends: false,
            rewrites: false,
            loses_way: false,
            fills: Vec::new(),
            map: None,
            wanted: BTreeSet::new(),
        }
    }

    /// Returns the rule as one or, with a verdict map, as one for each element.
    pub fn rules(self) -> Vec<Rule<Name>> {
        // What goes on is not the packet that came.
        let act = if self.rewrites && self.act == Act::Continue { Act::Unclear } else { self.act };
        self.map
            .unwrap_or_else(|| vec![Rule { scope: self.scope, conditions: self.conditions, act, number: self.number }])
    }

    pub fn take(&mut self, kind: &str, data: &[u8]) -> Option<()> {
        self.note(kind, data);
        // A verdict ends the rule.
        if self.act != Act::Continue {
            return Some(());
        }
        if let Some(map) = &mut self.map {
            // Packets whose element says so go on to what follows the map, which is not followed.
            map.iter_mut().filter(|rule| rule.act == Act::Continue).for_each(|rule| rule.act = Act::Unclear);
            return Some(());
        }
        let data = attributes(data)?;
        let field = |at: u16| find(&data, at);
        let value_at = |at: u16| field(at).and_then(number).unwrap_or(0);
        match kind {
            "counter" | "log" | "last" => {}
            "notrack" => self.untracking = Some(self.conditions.clone()),
            "payload" if field(1).is_some() => {
                let (offset, length) = (value_at(3), value_at(4));
                let source = Source::of_payload(self.family(), value_at(2), offset, length);
                self.load(value_at(1), source, length as usize);
            }
            "meta" if field(1).is_some() => {
                let (source, bytes) = Source::of_meta(value_at(2));
                self.load(value_at(1), source, bytes);
            }
            "ct" if field(1).is_some() => match value_at(2) {
                0 => self.load(value_at(1), Source::CtState, 4),
                2 => self.load(value_at(1), Source::CtStatus, 4),
                _ => self.forget(value_at(1), REGISTER_BYTES),
            },
            // The kind of the receiver's address, whatever the interface.
            "fib" if value_at(2) == FIB_TYPE && value_at(3) == FIB_RECEIVER => {
                self.load(value_at(1), Source::ReceiverType, 4);
            }
            "fib"
                if matches!(value_at(2), FIB_INTERFACE | FIB_INTERFACE_NAME)
                    && value_at(3) & (FIB_SENDER | FIB_RECEIVER) == FIB_SENDER =>
            {
                let is_present = value_at(3) & FIB_IS_PRESENT != 0;
                self.load(value_at(1), Source::WayBack { is_present }, REGISTER_BYTES);
            }
            // An option of TCP. Whether there is one is asked of every packet.
            "exthdr" if field(1).is_some() && value_at(6) == EXTENSION_OF_TCP => {
                if value_at(5) & EXTENSION_IS_PRESENT == 0 {
                    let ask = Ask::Within(packet::TCP.into(), packet::TCP.into());
                    self.limit(Scope::Unclear, Condition::test(Field::Protocol, ask, false));
                }
                self.load(value_at(1), Source::Chosen, REGISTER_BYTES);
            }
            // Without a register to load, they set something and decide nothing. What is written into headers is noted.
            "payload" | "meta" | "ct" => {}
            "bitwise" => self.mask(&data),
            "cmp" => {
                let wanted = value(field(3)?)?;
                self.compare(value_at(1), value_at(2), &wanted);
            }
            "range" => {
                let (first, last) = (value(field(3)?)?, value(field(4)?)?);
                let is_inverted = value_at(2) == NOT_EQUAL;
                let loaded = self.registers.get(&word_of(value_at(1))).filter(|loaded| loaded.mask.is_none());
                let source = loaded.map_or(Source::Other, |loaded| loaded.source);
                let Test { field, ask } = source.within(&first, &last);
                match source {
                    Source::Chosen => self.limit(Scope::Chosen, Condition::Seldom),
                    _ => {
                        let scope = source.share(&first, &last).scope().inverted_if(is_inverted);
                        self.limit(scope, Condition::test(field, ask, is_inverted));
                    }
                }
            }
            // With a destination, it is a map: to verdicts when that is register 0, else to data.
            "lookup" if field(3).is_some() && value_at(3) != 0 => {
                let set = text(field(1)?);
                if is_anonymous(&set) {
                    self.wanted.insert((self.chain.0, self.chain.1.clone(), set));
                }
                self.limit(Scope::Unclear, Condition::Unclear);
                self.forget(value_at(3), REGISTER_BYTES);
            }
            "lookup" => self.look_up(value_at(2), text(field(1)?), field(3).is_some(), value_at(5) & 1 != 0),
            "immediate" if value_at(1) == 0 => self.act = self.verdict(field(2)?)?,
            "immediate" => {
                let constant = value(field(2)?)?;
                self.forget(value_at(1), constant.len());
                self.constants.insert(word_of(value_at(1)), constant);
            }
            // A named counter, helper, timeout, label or expectation; a named limit is a condition.
            "objref" if matches!(value_at(1), 1 | 3 | 7 | 8 | 9) => {}
            "objref" if field(4).map(text).is_some_and(|set| is_anonymous(&set)) => {
                self.wanted.insert((self.chain.0, self.chain.1.clone(), text(field(4)?)));
                self.limit(Scope::Unclear, Condition::Unclear);
            }
            "reject" => self.act = Act::Reject,
            // The first packet of a connection is let in, to whomever it goes then.
            "nat" if value_at(1) == NAT_OF_RECEIVER => self.act = Act::Translate,
            "redir" => self.act = Act::Translate,
            "nat" | "masq" => self.act = Act::Accept,
            "match" if self.rewrites => self.limit(Scope::Unclear, Condition::Unclear),
            "match" => {
                let (scope, conditions) = xt::read(&text(field(1)?), field(3).unwrap_or_default(), self.family());
                self.scope = self.scope.and(scope);
                self.conditions.extend(conditions);
            }
            "target" => {
                let name = text(field(1)?);
                if xt::untracks(&name, field(3).unwrap_or_default()) {
                    self.untracking = Some(self.conditions.clone());
                }
                if xt::translates(&name) {
                    self.translates = true;
                    let info = field(3).unwrap_or_default();
                    let to = self.family_of_table().and_then(|family| xt::translated_to(&name, info, family));
                    self.translate(to);
                }
                self.diverts |= xt::diverts(&name);
                self.resends |= xt::resends(&name);
                self.act = xt::target(&name);
            }
            "limit" => self.limit(Scope::Unclear, limit(value_at(5))),
            // A connection is counted with those before it.
            "connlimit" if value_at(1) == 0 => {
                let is_met = value_at(2) & IS_OVER != 0;
                self.limit(if is_met { Scope::All } else { Scope::Narrow }, Condition::fixed(is_met));
            }
            "connlimit" => self.limit(Scope::Unclear, limit(value_at(2))),
            "dynset" => {
                let condition = match field(7).map(attributes) {
                    None if field(10).is_none() => Condition::Mostly,
                    Some(Some(expression)) => match find(&expression, 1).map(text).as_deref() {
                        Some("limit") => limit(flag_of(&expression, 5)),
                        Some("connlimit") => limit(flag_of(&expression, 2)),
                        _ => Condition::Unclear,
                    },
                    _ => Condition::Unclear,
                };
                self.limit(Scope::Unclear, condition);
            }
            // Conditions that are not followed; some load a register.
            "byteorder" | "exthdr" | "fib" | "hash" | "inner" | "numgen" | "objref" | "osf" | "quota" | "rt"
            | "socket" | "tunnel" | "xfrm" => {
                self.registers.clear();
                self.constants.clear();
                self.limit(Scope::Unclear, Condition::Unclear);
            }
            // What hands the packet on, such as a queue, and what this build does not know.
            _ => self.act = Act::Unclear,
        }
        Some(())
    }

    /// Notes what the rule does besides its verdict, wherever in the rule that stands.
    fn note(&mut self, kind: &str, data: &[u8]) {
        let Some(data) = attributes(data) else { return };
        let value_at = |at: u16| find(&data, at).and_then(number).unwrap_or(0);
        let loads = find(&data, 1).is_some();
        match kind {
            "nat" | "redir" | "masq" => {
                self.translates = true;
                match kind {
                    // It is of what leaves.
                    "masq" => {}
                    "nat" if value_at(1) != NAT_OF_RECEIVER => self.resends = true,
                    "nat" => self.translate(self.translated(&data)),
                    _ => self.translate(None),
                }
            }
            "tproxy" => self.diverts = true,
            "payload" if !loads && is_told_by(value_at(2), value_at(3), value_at(4)) => self.rewrite(),
            "meta" if !loads && value_at(2) == META_PACKET_KIND => self.rewrite(),
            "dynset" => {
                let set = find(&data, 1).map(text).unwrap_or_default();
                let is_by_busy = self.conditions.contains(&Condition::Seldom);
                self.fills.push(((self.chain.0, self.chain.1.clone(), set), is_by_busy));
            }
            _ => {}
        }
    }

    /// Takes that packets that come so far go to another.
    fn translate(&mut self, to: Option<Translated>) {
        self.translations.push(Translation { conditions: self.conditions.clone(), to });
    }

    /// Returns to whom a translation makes packets go, where the rule itself says so: family, then registers with the first and
    /// last address and the first and last port, and flags.
    fn translated(&self, data: &[(u16, &[u8])]) -> Option<Translated> {
        let family = match u128::from(find(data, 2).and_then(number)?) {
            packet::IPV4 => Family::Ipv4,
            packet::IPV6 => Family::Ipv6,
            _ => return None,
        };
        let constant = |at: u16| self.constants.get(&word_of(find(data, at).and_then(number)?));
        let (first, flags) = (constant(3)?, find(data, 7).and_then(number).unwrap_or(0));
        let last = if find(data, 4).is_some() { constant(4)? } else { first };
        if flags & NAT_IS_MAPPED != 0 {
            return None;
        }
        let address = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte));
        let port = |at: u16| Some(u16::from_be_bytes(*constant(at)?.first_chunk()?));
        let ports = match (find(data, 5), find(data, 6)) {
            (None, None) => (0, u16::MAX),
            (_, last) => (port(5)?, if last.is_some() { port(6)? } else { port(5)? }),
        };
        Some(Translated { family, addresses: (address(first), address(last)), ports })
    }

    fn family_of_table(&self) -> Option<Family> {
        match u128::from(self.chain.0) {
            packet::IPV4 => Some(Family::Ipv4),
            packet::IPV6 => Some(Family::Ipv6),
            _ => None,
        }
    }

    /// Takes that the packet is another one from here on.
    fn rewrite(&mut self) {
        self.rewrites = true;
        self.conditions.push(Condition::Unclear);
    }

    /// Takes one more condition.
    fn limit(&mut self, scope: Scope, condition: Condition) {
        // One on what the rule itself may have written is not told.
        let (scope, condition) = if self.rewrites { (Scope::Unclear, Condition::Unclear) } else { (scope, condition) };
        self.scope = self.scope.and(scope);
        self.conditions.push(condition);
    }

    /// Returns the `NFPROTO_` number of the family whose packets alone come so far, if it is told.
    fn family(&self) -> Option<u128> {
        let of_table = u128::from(self.chain.0);
        let is_told = matches!(of_table, packet::IPV4 | packet::IPV6);
        if is_told { Some(of_table) } else { self.conditions.iter().find_map(Condition::family) }
    }

    fn load(&mut self, register: u32, source: Source, bytes: usize) {
        self.forget(register, bytes);
        self.registers.insert(word_of(register), Loaded { source, bytes, mask: None, within: None });
    }

    /// Forgets what lies in `bytes` from `register` on.
    fn forget(&mut self, register: u32, bytes: usize) {
        let start = word_of(register);
        let end = start.saturating_add(words(bytes));
        let is_apart = |at: u32, bytes: usize| at.saturating_add(words(bytes)) <= start || end <= at;
        self.registers.retain(|at, loaded| is_apart(*at, loaded.bytes));
        self.constants.retain(|at, constant| is_apart(*at, constant.len()));
    }

    fn mask(&mut self, data: &[(u16, &[u8])]) {
        let number_at = |at: u16| find(data, at).and_then(number).unwrap_or(0);
        let value_at = |at: u16| find(data, at).and_then(value);
        let loaded = self.registers.get(&word_of(number_at(1))).cloned();
        self.forget(number_at(2), REGISTER_BYTES);
        let is_plain = number_at(6) == 0 && value_at(5).is_none_or(|xor| xor.iter().all(|byte| *byte == 0));
        // A mask of a mask, a shift and other operations are not followed.
        if let (Some(loaded), Some(mask), true) = (loaded, value_at(4), is_plain)
            && loaded.mask.is_none()
        {
            let loaded = Loaded { mask: Some(mask), within: None, ..loaded };
            self.registers.insert(word_of(number_at(2)), loaded);
        }
    }

    /// Takes a set or verdict map, whose elements each speak of their own packets.
    fn look_up(&mut self, register: u32, set: String, is_map: bool, is_inverted: bool) {
        let name = (self.chain.0, self.chain.1.clone(), set);
        let filled = self.filled.get(&name);
        let set = self.sets.get(&name).filter(|_| filled.is_none() && !self.rewrites);
        self.wanted.insert(name);
        let Some(spans) = set.and_then(spans) else {
            // A sender that is not busy is not in a set of those that are.
            let condition = match filled {
                Some(true) if !is_map && !is_inverted => Condition::Seldom,
                Some(true) if !is_map => Condition::Mostly,
                _ => Condition::Unclear,
            };
            self.limit(Scope::Unclear, condition);
            self.loses_way |= is_map;
            self.act = if is_map { Act::Unclear } else { Act::Continue };
            return;
        };
        let shares: Vec<(Share, &Element)> = spans
            .iter()
            .map(|(span, element)| {
                let share = span.as_ref().map_or(Share::All, |(first, last)| self.share(register, first, last));
                (share, *element)
            })
            .collect();
        let lists = |is_of_map: bool| -> Vec<Vec<Test>> {
            let told = spans.iter().filter_map(|(span, _)| span.as_ref());
            let rest = spans.iter().filter(|(span, _)| span.is_none() && !is_of_map).map(|_| Vec::new());
            told.map(|(first, last)| self.tests(register, first, last)).chain(rest).collect()
        };
        let total = shares.iter().fold(Share::LEAST, |total, (share, _)| total.or(*share));
        if !is_map {
            let condition = Condition::AnyOf { lists: lists(false), is_inverted };
            self.limit(total.scope().inverted_if(is_inverted), condition);
            return;
        }
        let parts = shares.iter().filter(|(share, _)| *share != Share::All);
        let parts = parts.fold(Share::LEAST, |parts, (share, _)| parts.or(*share)).scope();
        let rule = |(at, (share, element)): (usize, (Share, &Element))| {
            let condition = match &spans[at].0 {
                Some((first, last)) => {
                    Condition::AnyOf { lists: vec![self.tests(register, first, last)], is_inverted: false }
                }
                None => Condition::AnyOf { lists: lists(true), is_inverted: true },
            };
            // Many narrow elements may be wide together.
            let scope = match share {
                Share::All => Scope::All,
                Share::LEAST => Scope::Narrow,
                Share::Part(_) => parts,
                Share::Chosen => Scope::Chosen,
            };
            let act = element.verdict.clone().map_or(Act::Unclear, |(code, chain)| self.act_of(code, chain));
            let conditions = self.conditions.iter().cloned().chain([condition]).collect();
            Rule { scope: self.scope.and(scope), conditions, act, number: self.number }
        };
        self.map = Some(shares.into_iter().enumerate().map(rule).collect());
    }

    /// Returns the share of the packets whose fields from `register` on lie between the two keys. In a key, each field fills
    /// whole words.
    fn share(&self, register: u32, first: &[u8], last: &[u8]) -> Share {
        let (mut share, mut at, mut word) = (Share::All, 0, word_of(register));
        while at < first.len() {
            let Some(loaded) = self.registers.get(&word).filter(|loaded| loaded.mask.is_none() && loaded.bytes > 0)
            else {
                return share.and(Share::UNTOLD);
            };
            let end = at + loaded.bytes;
            let (Some(low), Some(high)) = (first.get(at..end), last.get(at..end)) else {
                return share.and(Share::UNTOLD);
            };
            share = share.and(loaded.source.share(low, high));
            at = end.next_multiple_of(WORD_BYTES);
            word = word.saturating_add(words(loaded.bytes));
        }
        if first.is_empty() { Share::UNTOLD } else { share }
    }

    /// Returns the tests of the fields from `register` on for values between the two keys.
    fn tests(&self, register: u32, first: &[u8], last: &[u8]) -> Vec<Test> {
        let (mut tests, mut at, mut word) = (Vec::new(), 0, word_of(register));
        while at < first.len() {
            let loaded = self.registers.get(&word).filter(|loaded| loaded.mask.is_none() && loaded.bytes > 0);
            let Some(loaded) = loaded else { break };
            let end = at + loaded.bytes;
            let (Some(low), Some(high)) = (first.get(at..end), last.get(at..end)) else { break };
            tests.extend(loaded.source.tests(low, high));
            at = end.next_multiple_of(WORD_BYTES);
            word = word.saturating_add(words(loaded.bytes));
        }
        if at < first.len() || first.is_empty() {
            tests.push(UNTOLD);
        }
        tests
    }

    fn verdict(&self, data: &[u8]) -> Option<Act<Name>> {
        let (code, chain) = verdict_of(data)?;
        Some(self.act_of(code, chain))
    }

    fn act_of(&self, code: i32, chain: Option<String>) -> Act<Name> {
        let name = chain.map(|chain| (self.chain.0, self.chain.1.clone(), chain));
        match (code, name) {
            (0, _) => Act::Drop,
            (1, _) => Act::Accept,
            (-1 | -2, _) => Act::Continue,
            (-3, Some(name)) => Act::Jump(name),
            (-4, Some(name)) => Act::Goto(name),
            (-5, _) => Act::Return,
            _ => Act::Unclear,
        }
    }

    /// Takes a comparison of a register. Operators: 0 equal, 1 not equal, then below, at most, above, at least.
    fn compare(&mut self, register: u32, operator: u32, wanted: &[u8]) {
        let Some(loaded) = self.registers.get_mut(&word_of(register)) else {
            return self.limit(Scope::Unclear, Condition::Unclear);
        };
        let condition = loaded.condition(operator, wanted);
        let is_zero = wanted.iter().all(|byte| *byte == 0);
        let mask = loaded.mask.as_deref();
        let scope = match (loaded.source, operator) {
            (Source::CtState, EQUAL | NOT_EQUAL) => match (native(wanted), mask.map(native)) {
                (Some(wanted), None) => state_scope(|state| (state == wanted) == (operator == EQUAL)),
                (Some(wanted), Some(Some(mask))) => {
                    state_scope(|state| (state & mask == wanted) == (operator == EQUAL))
                }
                _ => Scope::Unclear,
            },
            // Of a connection that is known, or that a rule of address translation let in.
            (Source::CtStatus, NOT_EQUAL) if is_zero => match mask.and_then(native) {
                Some(mask) if u128::from(mask) & !packet::STATUS_OF_KNOWN == 0 => Scope::Narrow,
                _ => Scope::Unclear,
            },
            // Of a later fragment, which comes to nothing without the first.
            (Source::Fragment, NOT_EQUAL) if is_zero && mask == Some(&[0x1f, 0xff]) => Scope::Narrow,
            // Rules for the other family are told by their conditions.
            (Source::Family, EQUAL | NOT_EQUAL) if mask.is_none() => Scope::All,
            (Source::Chosen, _) => Scope::Chosen,
            // Whom nothing goes back to is not who it says it is.
            (Source::WayBack { .. }, _) => match condition {
                Condition::Seldom => Scope::Narrow,
                Condition::Mostly => Scope::All,
                Condition::AnyOf { .. } | Condition::Unclear => Scope::Unclear,
            },
            (
                Source::CtState
                | Source::CtStatus
                | Source::Family
                | Source::Fragment
                | Source::Other
                | Source::TcpFlags,
                _,
            ) => Scope::Unclear,
            _ => loaded.compare(operator, wanted),
        };
        self.limit(scope, condition);
    }
}

/// Returns whether packets are told apart by what lies in these bytes: addresses, protocol, ports, flags of TCP, and the
/// lengths by which one header is followed by the next. Not by the kind of service or the hop limit, nor by the frame
/// or by what is inside another packet, which comes again as its own. The time to live of IPv4 is written with the protocol beside
/// it, where IPv6 has its sender.
fn is_told_by(base: u32, offset: u32, length: u32) -> bool {
    let end = offset.saturating_add(length);
    match base {
        // The frame's, with a tag of a VLAN.
        LINK_HEADER => end > 18,
        NETWORK_HEADER => {
            let is_service = end <= 2;
            let is_hop_limit = offset == 7 && length == 1;
            !(is_service || is_hop_limit)
        }
        TRANSPORT_HEADER => offset < 4 || offset < 14 && end > 12,
        _ => false,
    }
}

/// Returns the condition of a limit with these flags.
fn limit(flags: u32) -> Condition {
    if flags & IS_OVER == 0 { Condition::Mostly } else { Condition::Seldom }
}

fn flag_of(expression: &[(u16, &[u8])], at: u16) -> u32 {
    let data = find(expression, 2).and_then(attributes);
    data.and_then(|data| find(&data, at).and_then(number)).unwrap_or(0)
}

/// Returns the word of 4 bytes where a register begins: 1 to 4 are of 16 bytes, and from 8 on of 4.
fn word_of(register: u32) -> u32 {
    match register {
        1..=4 => 4 * (register - 1),
        _ => register.saturating_sub(8),
    }
}

fn words(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(WORD_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn rule_of(expressions: &[(&str, Vec<u8>)]) -> Vec<Rule<Name>> {
        let (name, sets, filled) = ((1, "firewall".to_owned(), "input".to_owned()), Sets::new(), Filled::new());
        let mut reader = RuleReader::new(&name, 1, &sets, &filled);
        for (kind, data) in expressions {
            reader.take(kind, data).unwrap();
        }
        reader.rules()
    }

    /// Of `immediate`: a verdict.
    fn verdict(code: i32) -> Vec<u8> {
        let verdict = attribute(2, &attribute(1, &code.to_be_bytes()));
        [attribute(1, &0_u32.to_be_bytes()), attribute(2, &verdict)].concat()
    }

    fn load_port(register: u32) -> Vec<u8> {
        let numbers = [register, 2, 2, 2];
        (1..).zip(numbers).flat_map(|(kind, number)| attribute(kind, &number.to_be_bytes())).collect()
    }

    fn port_is(register: u32, port: u16) -> Vec<u8> {
        let value = attribute(1, &port.to_be_bytes());
        [attribute(1, &register.to_be_bytes()), attribute(2, &[0; 4]), attribute(3, &value)].concat()
    }

    #[test]
    fn what_hands_a_packet_on_or_is_not_known_decides_nothing_told() {
        for kind in ["queue", "synproxy", "tproxy", "something new"] {
            let [rule] = &rule_of(&[(kind, vec![])])[..] else { panic!("{kind} is not one rule") };
            assert_eq!((rule.scope, &rule.act), (Scope::All, &Act::Unclear), "{kind}");
        }
    }

    #[test]
    fn a_register_that_is_loaded_anew_is_not_taken_for_what_it_was() {
        let accept = || ("immediate", verdict(1));
        let scope = |between: &[(&str, Vec<u8>)], loaded: u32, compared: u32| {
            let mut rule = vec![("payload", load_port(loaded))];
            rule.extend_from_slice(between);
            rule.extend([("cmp", port_is(compared, 22)), accept()]);
            rule_of(&rule)[0].scope
        };
        assert_eq!(scope(&[], 1, 1), Scope::Narrow);
        // 8 is the first word of 1, and 9 the second, which stays as it was.
        assert_eq!(scope(&[], 1, 8), Scope::Narrow);
        assert_eq!(scope(&[], 1, 2), Scope::Unclear);
        let number = attribute(2, &attribute(1, &[0, 0, 0, 1]));
        for (register, expected) in [(1_u32, Scope::Unclear), (8, Scope::Unclear), (2, Scope::Narrow)] {
            let set = [attribute(1, &register.to_be_bytes()), number.clone()].concat();
            assert_eq!(scope(&[("immediate", set)], 1, 1), expected, "{register}");
        }
        assert_eq!(scope(&[("numgen", vec![])], 1, 1), Scope::Unclear);
        assert_eq!(scope(&[("counter", vec![])], 1, 1), Scope::Narrow);
    }

    #[test]
    fn a_raw_place_in_a_header_is_told_where_the_family_is() {
        let numbers = |numbers: &[u32]| -> Vec<u8> {
            (1..).zip(numbers).flat_map(|(kind, number)| attribute(kind, &number.to_be_bytes())).collect()
        };
        let compare = |wanted: &[u8]| {
            let value = attribute(3, &attribute(1, wanted));
            [attribute(1, &1_u32.to_be_bytes()), attribute(2, &[0; 4]), value].concat()
        };
        // `meta nfproto`, and `@nh,72,8`.
        let family = |number: u8| [("meta", numbers(&[1, 15])), ("cmp", compare(&[number]))];
        let protocol = |number: u8| [("payload", numbers(&[1, 1, 9, 1])), ("cmp", compare(&[number]))];
        let scope = |parts: &[&[(&str, Vec<u8>)]]| {
            rule_of(&[parts.concat(), vec![("immediate", verdict(1))]].concat())[0].scope
        };
        assert_eq!(scope(&[&protocol(1)]), Scope::Unclear);
        assert_eq!(scope(&[&family(2), &protocol(1)]), Scope::Narrow);
        assert_eq!(scope(&[&family(10), &protocol(1)]), Scope::Unclear);
        assert_eq!(scope(&[&protocol(1), &family(2)]), Scope::Unclear);
    }

    #[test]
    fn a_header_of_ipv6_that_is_no_extension_is_that_of_the_packets_own_protocol() {
        let numbers = |numbers: &[u32]| -> Vec<u8> {
            (1..).zip(numbers).flat_map(|(kind, number)| attribute(kind, &number.to_be_bytes())).collect()
        };
        let compare = |operator: u32, wanted: u8| {
            let value = attribute(3, &attribute(1, &[wanted]));
            [attribute(1, &1_u32.to_be_bytes()), attribute(2, &operator.to_be_bytes()), value].concat()
        };
        let met_by = |operator: u32, header: u8, protocol: u8| {
            // `meta nfproto ipv6`, and `ip6 nexthdr`.
            let family = [("meta", numbers(&[1, 15])), ("cmp", compare(EQUAL, 10))];
            let next = [("payload", numbers(&[1, 1, 6, 1])), ("cmp", compare(operator, header))];
            let rules = rule_of(&[&family[..], &next, &[("immediate", verdict(1))]].concat());
            let packet = packet::Packet {
                family: Family::Ipv6,
                protocol,
                sender_port: 40_000,
                receiver_port: 9100,
                tcp_flags: packet::SYN,
                receiver: None,
                interface: None,
                tracking: packet::Tracking::After,
                packet_kind: 0,
                may_be_untracked: false,
                may_be_translated: false,
                may_be_resent: false,
            };
            let met = packet.meets(&rules[0].conditions);
            (!met.certain.is_none(), !met.perhaps.is_none())
        };
        let (yes, no, perhaps) = ((true, true), (false, false), (false, true));
        for protocol in [packet::TCP, packet::UDP] {
            for (header, equal, not_equal) in
                [(58, no, yes), (protocol, perhaps, perhaps), (0, perhaps, perhaps), (44, perhaps, perhaps)]
            {
                assert_eq!(met_by(EQUAL, header, protocol), equal, "{header} {protocol}");
                assert_eq!(met_by(NOT_EQUAL, header, protocol), not_equal, "{header} {protocol}");
            }
        }
        assert_eq!(met_by(EQUAL, packet::UDP, packet::TCP), no);
    }

    #[test]
    fn every_connection_is_over_a_limit_of_none() {
        let told = |count: u32, flags: u32| {
            let data = [attribute(1, &count.to_be_bytes()), attribute(2, &flags.to_be_bytes())].concat();
            let rules = rule_of(&[("connlimit", data), ("immediate", verdict(0))]);
            (rules[0].scope, rules[0].conditions[0].clone())
        };
        assert_eq!(told(0, IS_OVER), (Scope::All, Condition::fixed(true)));
        assert_eq!(told(0, 0), (Scope::Narrow, Condition::NEVER));
        assert_eq!(told(1, IS_OVER), (Scope::Unclear, Condition::Seldom));
        assert_eq!(told(1, 0), (Scope::Unclear, Condition::Mostly));
    }

    #[test]
    fn a_way_back_is_told_where_there_is_none_and_not_by_its_interface() {
        let told = |result: u32, flags: u32, operator: u32, wanted: &[u8]| {
            let numbers = [1, result, FIB_SENDER | flags];
            let load = (1..).zip(numbers).flat_map(|(kind, number)| attribute(kind, &number.to_be_bytes())).collect();
            let value = attribute(3, &attribute(1, wanted));
            let compare = [attribute(1, &1_u32.to_be_bytes()), attribute(2, &operator.to_be_bytes()), value].concat();
            let rules = rule_of(&[("fib", load), ("cmp", compare), ("immediate", verdict(0))]);
            (rules[0].scope, rules[0].conditions[0].clone())
        };
        let (seldom, mostly) = ((Scope::Narrow, Condition::Seldom), (Scope::All, Condition::Mostly));
        let unclear = (Scope::Unclear, Condition::Unclear);
        // `oif 0`, with `iif` too, then `oif missing` and `oif exists`.
        assert_eq!(told(FIB_INTERFACE, 0, EQUAL, &[0; 4]), seldom);
        assert_eq!(told(FIB_INTERFACE, 8, EQUAL, &[0; 4]), seldom);
        assert_eq!(told(FIB_INTERFACE, 8, NOT_EQUAL, &[0; 4]), mostly);
        assert_eq!(told(FIB_INTERFACE, FIB_IS_PRESENT, EQUAL, &[0]), seldom);
        assert_eq!(told(FIB_INTERFACE, FIB_IS_PRESENT, EQUAL, &[1]), mostly);
        assert_eq!(told(FIB_INTERFACE_NAME, FIB_IS_PRESENT, NOT_EQUAL, &[1]), seldom);
        for operator in [EQUAL, NOT_EQUAL] {
            assert_eq!(told(FIB_INTERFACE, 0, operator, &2_u32.to_ne_bytes()), unclear);
            assert_eq!(told(FIB_INTERFACE_NAME, 0, operator, b"eth1\0\0\0\0\0\0\0\0\0\0\0\0"), unclear);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_expressions_never_panic(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            let name = (2, String::new(), String::new());
            for kind in ["payload", "bitwise", "cmp", "immediate", "lookup", "match", "target", "range", "ct", "meta"] {
                let _ = RuleReader::new(&name, 1, &Sets::new(), &Filled::new()).take(kind, &data);
            }
        }
    }
}
