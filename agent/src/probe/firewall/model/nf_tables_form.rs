//! A rule set as nf_tables dumps it.

use muster_proto::fact::ChainPolicy;

use super::{
    super::{
        nf_tables::{Kind, Set, Sets, parse, parse_elements},
        rule_set::{Hook, RuleSet},
    },
    Acts, Conditions, Not, Random, Rules,
};

pub(super) const IPV4: u8 = 2;
pub(super) const TABLE: &str = "filter";

pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub(super) fn message(kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = attributes.concat();
    let length = u32::try_from(20 + body.len()).unwrap();
    [&length.to_ne_bytes()[..], &[kind, 10], &[0; 10], &[IPV4, 0, 0, 0], &body].concat()
}

pub(super) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

pub(super) fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

pub(super) fn data(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind, &attribute(1, value))
}

pub(super) fn expression(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(1, &[text(1, name), attribute(2, &parts.concat())].concat())
}

/// Expressions of one rule, and the sets that they name.
struct Writer<'w> {
    expressions: Vec<Vec<u8>>,
    sets: &'w mut Sets,
    random: &'w mut Random,
}

impl Writer<'_> {
    fn push(&mut self, name: &str, parts: &[Vec<u8>]) {
        self.expressions.push(expression(name, parts));
    }

    fn meta(&mut self, key: u32) {
        self.push("meta", &[number(1, 1), number(2, key)]);
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        self.push("payload", &[number(1, 1), number(2, base), number(3, offset), number(4, length)]);
    }

    fn compare(&mut self, operator: u32, value: &[u8]) {
        self.push("cmp", &[number(1, 1), number(2, operator), data(3, value)]);
    }

    /// Asks for a range in one of the ways in which nft writes it; `has_zero` tells whether 0 may be beside it, as no packet that is
    /// tried has it.
    fn within(&mut self, first: &[u8], last: &[u8], is_inverted: bool, has_zero: bool) {
        let operator = u32::from(is_inverted);
        let element = |key: &[u8], flags: u32| attribute(1, &[data(1, key), number(3, flags)].concat());
        match self.random.below(4) {
            0 if first == last => self.compare(operator, first),
            3 if first == last && has_zero => {
                let set = self.set(Kind::Values, &[element(&vec![0; first.len()], 0), element(first, 0)]);
                self.push("lookup", &[text(1, &set), number(2, 1), number(5, operator)]);
            }
            0 if !is_inverted => {
                self.compare(5, first);
                self.compare(3, last);
            }
            1 => self.push("range", &[number(1, 1), number(2, operator), data(3, first), data(4, last)]),
            _ => {
                let after = last.iter().rev().scan(true, |carries, byte| {
                    let (more, over) = byte.overflowing_add(u8::from(*carries));
                    *carries = over;
                    Some(more)
                });
                let mut after: Vec<u8> = after.collect();
                after.reverse();
                let set = self.set(Kind::Ranges, &[element(&after, 1), element(first, 0)]);
                self.push("lookup", &[text(1, &set), number(2, 1), number(5, operator)]);
            }
        }
    }

    fn set(&mut self, kind: Kind, elements: &[Vec<u8>]) -> String {
        let name = format!("__set{}", self.sets.len());
        let dump = message(12, &[text(1, TABLE), text(2, &name), attribute(3, &elements.concat())]);
        let set = Set { kind, elements: parse_elements(&dump).unwrap() };
        self.sets.insert((IPV4, TABLE.to_owned(), name.clone()), set);
        name
    }

    fn conditions(&mut self, conditions: &Conditions) {
        if let Some(Not { is_inverted, is: (name, is_beginning) }) = conditions.interface {
            self.meta(6);
            let mut wanted = name.as_bytes().to_vec();
            if !is_beginning {
                wanted.resize(16, 0);
            }
            self.compare(is_inverted.into(), &wanted);
        }
        if let Some(Not { is_inverted, is: states }) = conditions.states {
            self.push("ct", &[number(1, 1), number(2, 0)]);
            let (mask, none) = (states.to_ne_bytes(), [0; 4]);
            self.push("bitwise", &[number(1, 1), number(2, 1), number(3, 4), data(4, &mask), data(5, &none)]);
            self.compare((!is_inverted).into(), &none);
        }
        if let Some(Not { is_inverted, is: (network, bits) }) = conditions.sender {
            let whole = bits % 8 == 0;
            let bytes = network.to_be_bytes();
            let wanted = usize::try_from(4 - bits / 8).unwrap();
            if whole && wanted < 4 {
                self.payload(1, 12, u32::try_from(wanted).unwrap());
                self.compare(is_inverted.into(), &bytes[..wanted]);
            } else if self.random.one_in(2) {
                self.payload(1, 12, 4);
                let mask = (u32::MAX << bits).to_be_bytes();
                self.push("bitwise", &[number(1, 1), number(2, 1), number(3, 4), data(4, &mask), data(5, &[0; 4])]);
                self.compare(is_inverted.into(), &bytes);
            } else {
                self.payload(1, 12, 4);
                self.within(&bytes, &(network | !(u32::MAX << bits)).to_be_bytes(), is_inverted, false);
            }
        }
        if let Some(Not { is_inverted, is: protocol }) = conditions.protocol {
            if self.random.one_in(2) {
                self.meta(16)
            } else {
                self.payload(1, 9, 1)
            }
            self.compare(is_inverted.into(), &[protocol]);
        }
        for (ports, offset) in [(&conditions.sender_ports, 0), (&conditions.ports, 2)] {
            let Some(Not { is_inverted, is: (first, last) }) = ports else { continue };
            self.payload(2, offset, 2);
            self.within(&first.to_be_bytes(), &last.to_be_bytes(), *is_inverted, offset == 2);
        }
        if let Some(Not { is_inverted, is: (mask, flags) }) = conditions.flags {
            self.payload(2, 13, 1);
            self.push("bitwise", &[number(1, 1), number(2, 1), number(3, 1), data(4, &[mask]), data(5, &[0])]);
            self.compare(is_inverted.into(), &[flags]);
        }
    }

    fn acts(&mut self, acts: &Acts) {
        match acts {
            Acts::Reject => self.push("reject", &[number(1, 0)]),
            Acts::Count => self.push("counter", &[]),
            Acts::ByPort(map) => {
                let element = |(port, acts): &(u16, Acts)| {
                    attribute(1, &[data(1, &port.to_be_bytes()), attribute(2, &verdict(acts))].concat())
                };
                let set = self.set(Kind::Values, &map.iter().map(element).collect::<Vec<_>>());
                self.payload(2, 2, 2);
                self.push("lookup", &[text(1, &set), number(2, 1), number(3, 0)]);
            }
            Acts::Accept | Acts::Drop | Acts::Return | Acts::Jump(_) | Acts::Goto(_) => {
                self.push("immediate", &[number(1, 0), attribute(2, &verdict(acts))]);
            }
        }
    }
}

/// A nested `NFTA_DATA_VERDICT`. A map cannot reject, and what it counts goes on.
fn verdict(acts: &Acts) -> Vec<u8> {
    let code = |code: i32| attribute(1, &code.to_be_bytes());
    let parts = match acts {
        Acts::Accept => code(1),
        Acts::Drop | Acts::Reject => code(0),
        Acts::Count | Acts::ByPort(_) => code(-1),
        Acts::Return => code(-5),
        Acts::Jump(to) => [code(-3), text(2, &format!("chain{to}"))].concat(),
        Acts::Goto(to) => [code(-4), text(2, &format!("chain{to}"))].concat(),
    };
    attribute(2, &parts)
}

/// Returns what is read of the rule set in the kernel's form.
pub(super) fn read(rules: &Rules, hook: Hook, random: &mut Random) -> RuleSet {
    let tables = message(0, &[text(1, TABLE), number(2, 0)]);
    let mut sets = Sets::new();
    let (mut chains, mut dump) = (Vec::new(), Vec::new());
    for (at, chain) in rules.chains.iter().enumerate() {
        let name = format!("chain{at}");
        let mut parts = vec![text(1, TABLE), text(3, &name)];
        if at == 0 {
            let hook = u32::from(hook == Hook::Input);
            parts.push(attribute(4, &[number(1, hook), number(2, 0)].concat()));
            parts.push(number(5, u32::from(rules.policy == ChainPolicy::Accept)));
            parts.push(text(7, "filter"));
        }
        chains.extend(message(3, &parts));
        for rule in chain {
            let mut writer = Writer { expressions: Vec::new(), sets: &mut sets, random };
            writer.conditions(&rule.conditions);
            writer.acts(&rule.acts);
            let expressions = attribute(4, &writer.expressions.concat());
            dump.extend(message(6, &[text(1, TABLE), text(2, &name), expressions]));
        }
    }
    parse(&tables, &chains, &dump, &sets).unwrap()
}
