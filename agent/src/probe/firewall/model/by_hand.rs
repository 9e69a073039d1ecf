//! Rule sets written by hand as the kernel gives them, and what is told of a socket behind each.

use muster_proto::fact::{Cause, Inbound, Reach, Reading, Transport, Unknown};

use super::{
    super::{
        Filters, inbound,
        nf_tables::{Kind, Set, Sets, Wanted, parse, parse_elements},
        packet::Interface,
        reach::{Place, Reaches},
        resending,
        rule_set::RuleSet,
        surroundings::{Surroundings, name_number},
        unless_opened, wide_translation,
    },
    nf_tables_form::{IPV4, TABLE, attribute, data, expression, message, number, text},
    surroundings,
};
use crate::host::Family;

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const HEADER_OF_NETWORK: u32 = 1;
const HEADER_OF_TRANSPORT: u32 = 2;

type Expressions = Vec<Vec<u8>>;

/// One table of IPv4.
#[derive(Default)]
struct Table {
    chains: Vec<u8>,
    rules: Vec<u8>,
    sets: Sets,
}

impl Table {
    /// Adds a chain that the kernel calls, with its rules.
    fn chain(self, name: &str, kind: &str, hook: u32, policy: i32, rules: &[Vec<Expressions>]) -> Self {
        self.chain_at(0, name, kind, hook, policy, rules)
    }

    fn chain_at(
        mut self,
        priority: i32,
        name: &str,
        kind: &str,
        hook: u32,
        policy: i32,
        rules: &[Vec<Expressions>],
    ) -> Self {
        let hook = attribute(4, &[number(1, hook), number(2, priority.cast_unsigned())].concat());
        let policy = number(5, policy.cast_unsigned());
        self.chains.extend(message(3, &[text(1, TABLE), text(3, name), hook, policy, text(7, kind)]));
        for rule in rules {
            let expressions = attribute(4, &rule.concat().concat());
            self.rules.extend(message(6, &[text(1, TABLE), text(2, name), expressions]));
        }
        self
    }

    /// Adds a set of addresses that holds one.
    fn set(self, name: &str) -> Self {
        self.set_of(name, Kind::Values, &[&[10, 0, 0, 1]])
    }

    fn set_of(mut self, name: &str, kind: Kind, keys: &[&[u8]]) -> Self {
        let elements: Vec<_> = keys.iter().map(|key| attribute(1, &data(1, key))).collect();
        let dump = message(12, &[text(1, TABLE), text(2, name), attribute(3, &elements.concat())]);
        let set = Set { kind, elements: parse_elements(&dump).unwrap() };
        self.sets.insert((IPV4, TABLE.to_owned(), name.to_owned()), set);
        self
    }

    fn parsed(&self) -> RuleSet {
        let tables = message(0, &[text(1, TABLE), number(2, 0)]);
        parse(&tables, &self.chains, &self.rules, &self.sets).unwrap()
    }

    fn reach_within(&self, surroundings: Surroundings, address: Option<u128>, port: u16) -> Reading<Reach> {
        let place = Place { family: Family::Ipv4, protocol: Transport::Tcp, address, port };
        let mut reaches = Reaches::new(vec![self.parsed()], [None, None], surroundings);
        if address.is_some_and(|address| address >> 24 == 127) { reaches.of_loopback(place) } else { reaches.of(place) }
    }

    fn reach(&self, port: u16) -> Reading<Reach> {
        self.reach_within(surroundings(), None, port)
    }

    fn inbound(&self) -> Reading<Inbound> {
        self.inbound_where(false)
    }

    /// Of a host that may take packets to the loopback from outside.
    fn inbound_where(&self, loopback_is_open: bool) -> Reading<Inbound> {
        let filters = Filters::of([Ok(vec![self.parsed()]), Ok(Vec::new()), Ok(Vec::new())]);
        let set = filters.sets().next().unwrap();
        let inputs = set.inputs();
        let told = inputs.iter().filter_map(|one| Some((&one.chain, one.ipv4.as_ref()?)));
        let told = inbound(told, None, set.rewriting(Family::Ipv4).filter(|rewriting| !rewriting.is_narrow));
        let sets = std::iter::once(set);
        let translation = wide_translation(sets.clone(), Family::Ipv4, || loopback_is_open);
        unless_opened(told, || translation.or_else(|| resending(sets, Family::Ipv4)))
    }
}

/// `tcp sport`
fn sender_port_is(port: u16) -> Expressions {
    vec![load(HEADER_OF_TRANSPORT, 0, 2), compare(&port.to_be_bytes())]
}

/// `ct state`
fn state_is(state: u32) -> Expressions {
    vec![expression("ct", &[number(1, 1), number(2, 0)]), compare(&state.to_ne_bytes())]
}

/// `tcp dport`
fn port_is(port: u16) -> Expressions {
    vec![load(HEADER_OF_TRANSPORT, 2, 2), compare(&port.to_be_bytes())]
}

/// `iifname`
fn interface_is(name: &str) -> Expressions {
    vec![expression("meta", &[number(1, 1), number(2, 6)]), compare(&name_number(name).to_be_bytes())]
}

fn load(base: u32, offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[number(1, 1), number(2, base), number(3, offset), number(4, length)])
}

fn compare(wanted: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, 1), number(2, 0), data(3, wanted)])
}

/// Writes `value` into a header, as `tcp dport set`.
fn write(base: u32, offset: u32, value: &[u8]) -> Expressions {
    let length = u32::try_from(value.len()).unwrap();
    vec![
        expression("immediate", &[number(1, 1), data(2, value)]),
        expression("payload", &[number(2, base), number(3, offset), number(4, length), number(5, 1)]),
    ]
}

fn verdict(code: i32) -> Expressions {
    let verdict = attribute(2, &attribute(2, &attribute(1, &code.to_be_bytes())));
    vec![expression("immediate", &[number(1, 0), verdict])]
}

/// `dnat to`
fn send_elsewhere() -> Expressions {
    vec![expression("nat", &[number(1, 1), number(2, 2)])]
}

/// `add @set { ip saddr }`
fn add_sender(set: &str) -> Expressions {
    vec![load(HEADER_OF_NETWORK, 12, 4), expression("dynset", &[text(1, set), number(3, 0), number(4, 1)])]
}

/// `ip saddr @set`
fn sender_is_in(set: &str) -> Expressions {
    vec![load(HEADER_OF_NETWORK, 12, 4), expression("lookup", &[text(1, set), number(2, 1)])]
}

/// `limit rate over`
fn is_over_a_limit() -> Expressions {
    vec![expression("limit", &[number(5, 1)])]
}

/// `tcp flags & mask == flags`
fn flags_are(mask: u8, flags: u8) -> Expressions {
    let mask = [number(1, 1), number(2, 1), number(3, 1), data(4, &[mask]), data(5, &[0])];
    vec![load(HEADER_OF_TRANSPORT, 13, 1), expression("bitwise", &mask), compare(&[flags])]
}

fn undecidable<T>(detail: &str) -> Reading<T> {
    Reading::unknown(Cause::Undecidable, detail)
}

#[test]
fn a_packet_whose_header_is_rewritten_comes_to_a_socket_that_no_rule_opens() {
    let other_port = || write(HEADER_OF_TRANSPORT, 2, &22_u16.to_be_bytes());
    let filter = |rule: Vec<Expressions>| Table::default().chain("input", "filter", INPUT, DROP, &[rule]);
    let named = "rule 1 of chain input of table filter";
    let table = filter(vec![port_is(2222), other_port(), verdict(ACCEPT)]);
    assert_eq!(table.reach(22), undecidable(named));
    assert_eq!(table.inbound(), Reading::Known(Inbound::Deny));
    assert_eq!(filter(vec![port_is(2222), verdict(ACCEPT)]).reach(22), Reading::Known(Reach::None));
    // One address for another, also of the loopback.
    let table = filter(vec![port_is(2222), write(HEADER_OF_NETWORK, 16, &[127, 0, 0, 1]), verdict(ACCEPT)]);
    assert_eq!(table.reach_within(surroundings(), Some(0x7f00_0001), 22), undecidable(named));
    // The kind of service, by which nothing is told apart.
    let table = filter(vec![port_is(2222), write(HEADER_OF_NETWORK, 0, &[0x45, 0]), verdict(ACCEPT)]);
    assert_eq!(table.reach(22), Reading::Known(Reach::None));
    assert_eq!(table.reach(2222), Reading::Known(Reach::Any));
    // What goes out comes to no socket.
    let closed = Table::default().chain("input", "filter", INPUT, DROP, &[]);
    let table = closed.chain("output", "filter", OUTPUT, ACCEPT, &[vec![other_port()]]);
    assert_eq!(table.reach(22), Reading::Known(Reach::None));
    // What every packet is made is narrow no longer.
    let accepts = vec![port_is(22), verdict(ACCEPT)];
    let table = filter(vec![other_port(), port_is(22), verdict(ACCEPT)]);
    assert_eq!(table.inbound(), undecidable(named));
    let before = Table::default().chain("early", "filter", PREROUTING, ACCEPT, &[vec![other_port()]]);
    let table = before.chain("input", "filter", INPUT, DROP, &[accepts]);
    assert_eq!(table.inbound(), undecidable("rule 1 of chain early of table filter"));
}

#[test]
fn what_is_dropped_after_its_header_is_rewritten_stays_dropped() {
    let rewrites = vec![port_is(2222), write(HEADER_OF_TRANSPORT, 2, &22_u16.to_be_bytes())];
    let table = Table::default().chain("early", "filter", PREROUTING, ACCEPT, &[rewrites]);
    let table = table.chain("input", "filter", INPUT, ACCEPT, &[vec![port_is(22), verdict(DROP)]]);
    assert_eq!(table.reach(22), Reading::Known(Reach::None));
    // It goes to another port.
    assert_eq!(table.reach(2222), undecidable("rule 1 of chain early of table filter"));
    assert_eq!(table.reach(80), Reading::Known(Reach::Any));
}

#[test]
fn what_packets_to_a_socket_never_meet_makes_no_more_kinds_of_them() {
    let names: Vec<String> = (0..2_100).map(|number| format!("cali{number}")).collect();
    let interfaces = names.iter().map(|name| Interface { name: name_number(name), index: None }).collect();
    let around = Surroundings { interfaces: Some(interfaces), ..surroundings() };
    let drops = |more: &dyn Fn() -> Expressions| -> Vec<Vec<Expressions>> {
        names.iter().map(|name| vec![interface_is(name), more(), verdict(DROP)]).collect()
    };
    let reach = |table: &Table| table.reach_within(around.clone(), None, 22);
    let of_all = drops(&Vec::new);
    let to_socket = || vec![vec![port_is(22), verdict(ACCEPT)]];
    let forwards = Table::default().chain("forward", "filter", FORWARD, ACCEPT, &of_all);
    assert_eq!(reach(&forwards.chain("input", "filter", INPUT, DROP, &to_socket())), Reading::Known(Reach::Any));
    let input = |rules: &[Vec<Expressions>]| Table::default().chain("input", "filter", INPUT, ACCEPT, rules);
    assert_eq!(reach(&input(&drops(&|| port_is(53)))), Reading::Known(Reach::Any));
    let too_many = Reading::unknown(Cause::Limit, "rules tell more kinds of packets apart than are tried");
    assert_eq!(reach(&input(&of_all)), too_many);
    assert_eq!(reach(&input(&of_all[..2_000])), Reading::Known(Reach::Some));
}

#[test]
fn a_set_that_packets_fill_is_not_judged_by_what_it_holds_now() {
    let table = |policy: i32, rules: &[Vec<Expressions>]| {
        Table::default().set("seen").chain("input", "filter", INPUT, policy, rules)
    };
    let lets_in = vec![sender_is_in("seen"), verdict(ACCEPT)];
    assert_eq!(table(DROP, std::slice::from_ref(&lets_in)).reach(22), Reading::Known(Reach::Some));
    let filled = table(DROP, &[vec![add_sender("seen")], lets_in.clone()]);
    assert_eq!(filled.reach(22), undecidable("rule 2 of chain input of table filter"));
    assert_eq!(filled.inbound(), undecidable("rule 2 of chain input of table filter"));
    // A port that is knocked at, after what it opens.
    let knocked = vec![port_is(22), sender_is_in("seen"), verdict(ACCEPT)];
    let knocks = vec![port_is(7000), add_sender("seen")];
    let table_of_knocks = table(DROP, &[knocked, knocks]);
    assert_eq!(table_of_knocks.reach(22), undecidable("rule 1 of chain input of table filter"));
    assert_eq!(table_of_knocks.reach(80), Reading::Known(Reach::None));
    // Senders that send too much are kept out for a while, and others are not.
    let counts = || vec![is_over_a_limit(), add_sender("seen"), verdict(DROP)];
    let keeps_out = vec![sender_is_in("seen"), verdict(DROP)];
    assert_eq!(table(ACCEPT, &[counts(), keeps_out]).reach(22), Reading::Known(Reach::Any));
    assert!(matches!(table(DROP, &[lets_in, counts()]).reach(22), Reading::Unknown { .. }));
}

#[test]
fn a_set_that_holds_the_value_0_holds_not_everything() {
    let table = |kind: Kind, keys: &[&[u8]], policy: i32, code: i32| {
        let to_port = vec![load(HEADER_OF_TRANSPORT, 2, 2), expression("lookup", &[text(1, "ports"), number(2, 1)])];
        let rule = vec![to_port, verdict(code)];
        Table::default().set_of("ports", kind, keys).chain("input", "filter", INPUT, policy, &[rule])
    };
    let (zero, telnet): (&[u8], &[u8]) = (&[0, 0], &[0, 23]);
    for keys in [&[zero][..], &[zero, telnet]] {
        assert_eq!(table(Kind::Values, keys, ACCEPT, DROP).reach(22), Reading::Known(Reach::Any));
        assert_eq!(table(Kind::Values, keys, ACCEPT, DROP).inbound(), Reading::Known(Inbound::Allow));
        assert_eq!(table(Kind::Values, keys, DROP, ACCEPT).reach(22), Reading::Known(Reach::None));
        assert_eq!(table(Kind::Values, keys, DROP, ACCEPT).inbound(), Reading::Known(Inbound::Deny));
    }
    for keys in [&[zero][..], &[zero, telnet]] {
        assert_eq!(table(Kind::Ranges, keys, ACCEPT, DROP).reach(22), Reading::Known(Reach::None));
        let untold = table(Kind::Untold, keys, ACCEPT, DROP);
        assert_eq!(untold.reach(22), undecidable("rule 1 of chain input of table filter"));
        assert_eq!(untold.inbound(), undecidable("rule 1 of chain input of table filter"));
    }
}

#[test]
fn sets_of_chains_that_packets_to_the_host_come_to_are_asked_for_first() {
    let leads =
        vec![load(HEADER_OF_NETWORK, 12, 4), expression("lookup", &[text(1, "ways"), number(2, 1), number(3, 0)])];
    let table = Table::default().chain("forward", "filter", FORWARD, DROP, &[vec![sender_is_in("forwarded")]]);
    let table = table.chain("input", "filter", INPUT, DROP, &[vec![leads]]);
    // By way of the map alone.
    let table = table.chain("zone", "filter", OUTPUT, DROP, &[vec![sender_is_in("zoned")]]);
    let verdict = attribute(2, &[attribute(1, &(-3_i32).to_be_bytes()), text(2, "zone")].concat());
    let element = attribute(1, &[attribute(1, &data(1, &[10, 0, 0, 1])), attribute(2, &verdict)].concat());
    let dump = message(12, &[text(1, TABLE), text(2, "ways"), attribute(3, &element)]);
    let ways = Set { kind: Kind::Values, elements: parse_elements(&dump).unwrap() };
    let asked = |ways: &Set| {
        let mut wanted = Wanted::new(&table.chains, &table.rules).unwrap();
        let mut asked = Vec::new();
        while let Some(name) = wanted.take() {
            if name.2 == "ways" {
                wanted.note(&name, ways);
            }
            asked.push(name.2);
        }
        assert!(wanted.is_empty());
        asked
    };
    assert_eq!(asked(&ways), ["ways", "zoned", "forwarded"]);
    assert_eq!(asked(&Set { kind: Kind::Values, elements: Vec::new() }), ["ways", "forwarded", "zoned"]);
}

#[test]
fn a_rule_by_the_port_that_a_sender_chooses_keeps_nobody_out() {
    let inbound = |rule: Vec<Expressions>, policy: i32| {
        Table::default().chain("input", "filter", INPUT, policy, &[rule]).inbound()
    };
    let named = undecidable("rule 1 of chain input of table filter");
    assert_eq!(inbound(vec![sender_port_is(53), verdict(ACCEPT)], DROP), named);
    assert_eq!(inbound(vec![sender_port_is(53), port_is(68), verdict(ACCEPT)], DROP), Reading::Known(Inbound::Deny));
    assert_eq!(inbound(vec![sender_port_is(53), state_is(2), verdict(ACCEPT)], DROP), Reading::Known(Inbound::Deny));
    assert_eq!(inbound(vec![sender_port_is(53), verdict(DROP)], ACCEPT), Reading::Known(Inbound::Allow));
}

#[test]
fn every_packet_is_invalid_before_connections_are_looked_up() {
    let table = |priority: i32, state: u32| {
        let rule = vec![state_is(state), verdict(ACCEPT)];
        Table::default().chain_at(priority, "early", "filter", PREROUTING, DROP, &[rule])
    };
    let named = undecidable("rule 1 of chain early of table filter");
    // Invalid, established, new: before the look-up, at its own priority, and after.
    for (priority, state, inbound, reach) in [
        (-300, 1, named.clone(), Reading::Known(Reach::Any)),
        (-300, 2, Reading::Known(Inbound::Deny), Reading::Known(Reach::None)),
        (-300, 8, Reading::Known(Inbound::Deny), Reading::Known(Reach::None)),
        (-200, 1, named.clone(), undecidable("rule 1 of chain early of table filter")),
        (-200, 2, Reading::Known(Inbound::Deny), Reading::Known(Reach::None)),
        (-200, 8, named.clone(), undecidable("rule 1 of chain early of table filter")),
        (-199, 1, Reading::Known(Inbound::Deny), Reading::Known(Reach::None)),
        (-199, 8, Reading::Known(Inbound::Allow), Reading::Known(Reach::Any)),
    ] {
        let table = table(priority, state);
        assert_eq!((table.inbound(), table.reach(22)), (inbound, reach), "{priority} {state}");
    }
    // Ports that are narrow each, of packets that are invalid.
    let few = |block: u16| {
        let ports = expression(
            "range",
            &[
                number(1, 1),
                number(2, 0),
                data(3, &(block << 12).to_be_bytes()),
                data(4, &(block << 12 | 0xfff).to_be_bytes()),
            ],
        );
        vec![state_is(1), vec![load(HEADER_OF_TRANSPORT, 2, 2), ports], verdict(ACCEPT)]
    };
    let all: Vec<_> = (0..16).map(few).collect();
    let table = |priority: i32| Table::default().chain_at(priority, "early", "filter", PREROUTING, DROP, &all);
    assert_eq!(table(-300).inbound(), named);
    assert_eq!(table(-199).inbound(), Reading::Known(Inbound::Deny));
}

#[test]
fn what_asks_for_packets_that_are_not_tracked_is_narrow_where_no_rule_makes_them_so() {
    let state = |operator: u32, wanted: u32| {
        let compares = [number(1, 1), number(2, operator), data(3, &wanted.to_ne_bytes())];
        vec![expression("ct", &[number(1, 1), number(2, 0)]), expression("cmp", &compares)]
    };
    // `ct state established,related,untracked`
    let mask = [number(1, 1), number(2, 1), number(3, 4), data(4, &(2_u32 | 4 | 64).to_ne_bytes()), data(5, &[0; 4])];
    let not_none = expression("cmp", &[number(1, 1), number(2, 1), data(3, &[0; 4])]);
    let of_known = vec![expression("ct", &[number(1, 1), number(2, 0)]), expression("bitwise", &mask), not_none];
    let table = |rule: &Expressions| {
        Table::default().chain("input", "filter", INPUT, DROP, &[vec![rule.clone(), verdict(ACCEPT)]])
    };
    let untracks = [vec![port_is(53), vec![expression("notrack", &[])]]];
    for rule in [of_known, state(0, 64), state(1, 8)] {
        assert_eq!(table(&rule).inbound(), Reading::Known(Inbound::Deny));
        let untracked = table(&rule).chain_at(-300, "raw", "filter", PREROUTING, ACCEPT, &untracks);
        assert_eq!(untracked.inbound(), undecidable("rule 1 of chain input of table filter"));
    }
    assert_eq!(table(&state(1, 2)).inbound(), Reading::Known(Inbound::Allow));
}

#[test]
fn a_map_that_is_not_read_may_lead_to_a_rule_that_writes() {
    let leads =
        vec![load(HEADER_OF_NETWORK, 12, 4), expression("lookup", &[text(1, "ways"), number(2, 1), number(3, 0)])];
    let writes = vec![write(HEADER_OF_TRANSPORT, 2, &22_u16.to_be_bytes())];
    let table = |sets: Table| {
        let table = sets.chain("early", "filter", PREROUTING, ACCEPT, &[vec![leads.clone()]]);
        // One that packets to the host meet by way of the map alone.
        let table = table.chain("zone", "filter", OUTPUT, ACCEPT, std::slice::from_ref(&writes));
        table.chain("input", "filter", INPUT, DROP, &[])
    };
    assert_eq!(table(Table::default()).inbound(), undecidable("rule 1 of chain zone of table filter"));
    assert_eq!(table(Table::default().set_of("ways", Kind::Values, &[])).inbound(), Reading::Known(Inbound::Deny));
}

#[test]
fn what_a_rule_made_for_another_receiver_is_narrow_where_that_rule_is() {
    let inbound = |translating: Vec<Expressions>, policy: i32| {
        let nat = Table::default().chain(
            "docker",
            "nat",
            PREROUTING,
            ACCEPT,
            &[vec![port_is(1), verdict(ACCEPT)], translating],
        );
        let status = [number(1, 1), number(2, 1), number(3, 4), data(4, &32_u32.to_ne_bytes()), data(5, &[0; 4])];
        let is_translated = vec![
            expression("ct", &[number(1, 1), number(2, 2)]),
            expression("bitwise", &status),
            expression("cmp", &[number(1, 1), number(2, 1), data(3, &[0; 4])]),
        ];
        nat.chain("input", "filter", INPUT, policy, &[vec![is_translated, verdict(ACCEPT)]]).inbound()
    };
    assert_eq!(inbound(vec![port_is(8080), send_elsewhere()], DROP), Reading::Known(Inbound::Deny));
    let receiver_is = vec![load(HEADER_OF_NETWORK, 16, 4), compare(&[10, 99, 0, 1])];
    let named = undecidable("rule 2 of chain docker of table filter");
    assert_eq!(inbound(vec![receiver_is, send_elsewhere()], DROP), named);
    assert_eq!(inbound(vec![send_elsewhere()], DROP), undecidable("chain docker of table filter"));
    assert_eq!(inbound(vec![send_elsewhere()], ACCEPT), Reading::Known(Inbound::Allow));
}

#[test]
fn what_a_rule_made_one_for_the_loopback_is_narrow_where_packets_to_it_are_not_taken() {
    let table = |translating: Vec<Expressions>, code: i32, operator: u32| {
        let nat = Table::default().chain("docker", "nat", PREROUTING, ACCEPT, &[translating]);
        let network = expression("cmp", &[number(1, 1), number(2, operator), data(3, &[127])]);
        let to_loopback = vec![vec![load(HEADER_OF_NETWORK, 16, 1), network], verdict(code)];
        nat.chain("input", "filter", INPUT, if code == DROP { ACCEPT } else { DROP }, &[to_loopback])
    };
    let named = undecidable("chain docker of table filter");
    let wide = table(vec![send_elsewhere()], ACCEPT, 0);
    assert_eq!(wide.inbound_where(true), named);
    assert_eq!(wide.inbound_where(false), Reading::Known(Inbound::Deny));
    assert_eq!(
        table(vec![port_is(80), send_elsewhere()], ACCEPT, 0).inbound_where(true),
        Reading::Known(Inbound::Deny)
    );
    // To drop what is for another one lets it in, too.
    assert_eq!(table(vec![send_elsewhere()], DROP, 1).inbound_where(true), named);
    assert_eq!(table(vec![send_elsewhere()], DROP, 1).inbound_where(false), Reading::Known(Inbound::Deny));
}

#[test]
fn a_rule_by_the_sender_is_not_told_after_one_that_changes_from_whom_packets_come() {
    let resends = || vec![vec![expression("nat", &[number(1, 0), number(2, 2)])]];
    let sender_is = |operator: u32| {
        let network = expression("cmp", &[number(1, 1), number(2, operator), data(3, &[127])]);
        vec![load(HEADER_OF_NETWORK, 12, 1), network]
    };
    let status = [number(1, 1), number(2, 1), number(3, 4), data(4, &16_u32.to_ne_bytes()), data(5, &[0; 4])];
    let is_resent = vec![
        expression("ct", &[number(1, 1), number(2, 2)]),
        expression("bitwise", &status),
        expression("cmp", &[number(1, 1), number(2, 1), data(3, &[0; 4])]),
    ];
    let table = |of_nat: i32, of_filter: i32, rule: &Expressions, code: i32| {
        let policy = if code == DROP { ACCEPT } else { DROP };
        let table = Table::default().chain_at(of_nat, "nat", "nat", INPUT, ACCEPT, &[resends()]);
        table.chain_at(of_filter, "late", "filter", INPUT, policy, &[vec![rule.clone(), verdict(code)]])
    };
    let of_nat = undecidable("rule 1 of chain nat of table filter");
    let late = undecidable("rule 1 of chain late of table filter");
    for (rule, code) in [(sender_is(0), ACCEPT), (is_resent, ACCEPT), (sender_is(1), DROP)] {
        for (of_nat_chain, of_filter) in [(100, 150), (100, 100), (300, 150), (-50, 0)] {
            let table = table(of_nat_chain, of_filter, &rule, code);
            assert_eq!(
                (table.inbound(), table.reach(22)),
                (of_nat.clone(), late.clone()),
                "{of_nat_chain} {of_filter}"
            );
        }
        // Before it is changed.
        let table = table(100, 0, &rule, code);
        assert_eq!((table.inbound(), table.reach(22)), (Reading::Known(Inbound::Deny), Reading::Known(Reach::None)));
    }
    // By what is not changed, and where the chain is that of what goes out.
    assert_eq!(table(100, 150, &port_is(22), ACCEPT).inbound(), Reading::Known(Inbound::Deny));
    assert_eq!(table(100, 150, &port_is(22), ACCEPT).reach(22), Reading::Known(Reach::Any));
    assert_eq!(table(100, 150, &port_is(22), ACCEPT).reach(80), Reading::Known(Reach::None));
    let sent = Table::default().chain_at(100, "nat", "nat", OUTPUT, ACCEPT, &[resends()]);
    let sent = sent.chain_at(150, "late", "filter", INPUT, DROP, &[vec![sender_is(0), verdict(ACCEPT)]]);
    assert_eq!((sent.inbound(), sent.reach(22)), (Reading::Known(Inbound::Deny), Reading::Known(Reach::None)));
}

#[test]
fn a_datagram_for_the_host_may_come_in_a_frame_for_all() {
    let table = |kind: u8, code: i32, policy: i32| {
        let kind_is = vec![expression("meta", &[number(1, 1), number(2, 19)]), compare(&[kind])];
        Table::default().chain("input", "filter", INPUT, policy, &[vec![kind_is, verdict(code)]])
    };
    let reach = |table: &Table, protocol: Transport| {
        let place = Place { family: Family::Ipv4, protocol, address: None, port: 123 };
        Reaches::new(vec![table.parsed()], [None, None], surroundings()).of(place)
    };
    let named = undecidable("rule 1 of chain input of table filter");
    for (kind, code, policy, inbound, tcp, udp) in [
        (1, ACCEPT, DROP, named.clone(), Reach::None, Reach::Any),
        (2, ACCEPT, DROP, named.clone(), Reach::None, Reach::Any),
        (1, DROP, ACCEPT, Reading::Known(Inbound::Allow), Reach::Any, Reach::Any),
        (0, DROP, ACCEPT, named.clone(), Reach::None, Reach::Any),
        (3, ACCEPT, DROP, named.clone(), Reach::None, Reach::None),
    ] {
        let table = table(kind, code, policy);
        assert_eq!(table.inbound(), inbound, "{kind}");
        assert_eq!(reach(&table, Transport::Tcp), Reading::Known(tcp), "{kind}");
        assert_eq!(reach(&table, Transport::Udp), Reading::Known(udp), "{kind}");
    }
}

#[test]
fn what_is_dropped_for_its_options_or_its_length_keeps_nobody_out() {
    // `tcp option maxseg size`, `meta length` and `ip length`.
    let size = expression("exthdr", &[number(1, 1), attribute(2, &[2]), number(3, 2), number(4, 2), number(6, 1)]);
    let length = expression("meta", &[number(1, 1), number(2, 0)]);
    for (loads, is_of_tcp) in [(size, true), (length, false), (load(HEADER_OF_NETWORK, 2, 2), false)] {
        let within = [number(1, 1), number(2, 0), data(3, &[0, 1]), data(4, &[1, 244])];
        for asks in [expression("range", &within), compare(&[1, 0])] {
            let rule = |code: i32| vec![vec![loads.clone(), asks.clone()], verdict(code)];
            let table =
                |policy: i32, code: i32| Table::default().chain("input", "filter", INPUT, policy, &[rule(code)]);
            assert_eq!(table(ACCEPT, DROP).inbound(), Reading::Known(Inbound::Allow));
            assert_eq!(table(ACCEPT, DROP).reach(22), Reading::Known(Reach::Any));
            let named = "rule 1 of chain input of table filter";
            assert_eq!(table(DROP, ACCEPT).inbound(), undecidable(named));
            assert_eq!(table(DROP, ACCEPT).reach(22), undecidable(named));
            let place = Place { family: Family::Ipv4, protocol: Transport::Udp, address: None, port: 123 };
            let udp = Reaches::new(vec![table(DROP, ACCEPT).parsed()], [None, None], surroundings()).of(place);
            assert_eq!(udp, if is_of_tcp { Reading::Known(Reach::None) } else { undecidable(named) });
        }
    }
}

#[test]
fn a_translation_to_another_host_brings_nothing_to_sockets_of_this_one() {
    let reach = |address: [u8; 4], port: Option<u16>, asked: u16| {
        let mut to = vec![expression("immediate", &[number(1, 1), data(2, &address)])];
        let mut nat = vec![number(1, 1), number(2, 2), number(3, 1)];
        if let Some(port) = port {
            to.push(expression("immediate", &[number(1, 2), data(2, &port.to_be_bytes())]));
            nat.push(number(5, 2));
        }
        to.push(expression("nat", &nat));
        let status = [number(1, 1), number(2, 1), number(3, 4), data(4, &32_u32.to_ne_bytes()), data(5, &[0; 4])];
        let is_translated = vec![
            expression("ct", &[number(1, 1), number(2, 2)]),
            expression("bitwise", &status),
            expression("cmp", &[number(1, 1), number(2, 1), data(3, &[0; 4])]),
        ];
        let table = Table::default().chain("docker", "nat", PREROUTING, ACCEPT, &[vec![port_is(8443), to]]);
        let rules = [vec![is_translated, verdict(ACCEPT)], vec![port_is(22), verdict(ACCEPT)]];
        table.chain("input", "filter", INPUT, DROP, &rules).reach(asked)
    };
    let named = undecidable("rule 1 of chain input of table filter");
    let (other, own) = ([172, 17, 0, 2], [10, 99, 0, 1]);
    assert_eq!(reach(other, Some(443), 80), Reading::Known(Reach::None));
    assert_eq!(reach(other, None, 22), Reading::Known(Reach::Any));
    assert_eq!(reach(other, Some(443), 8443), undecidable("rule 1 of chain docker of table filter"));
    assert_eq!(reach(own, None, 80), named);
    assert_eq!(reach(own, Some(80), 80), named);
    assert_eq!(reach(own, Some(81), 80), Reading::Known(Reach::None));
    assert_eq!(reach([127, 0, 0, 1], Some(80), 80), named);
}

#[test]
fn a_translation_of_one_protocol_brings_nothing_to_sockets_of_another() {
    let table = |conditions: &[Expressions]| {
        let early = Table::default().chain("early", "filter", PREROUTING, DROP, &[vec![port_is(22), verdict(ACCEPT)]]);
        let redirects = [conditions, &[port_is(8080), vec![expression("redir", &[])]]].concat();
        early.chain("nat", "nat", PREROUTING, ACCEPT, &[redirects])
    };
    let reach = |table: &Table, protocol: Transport| {
        let place = Place { family: Family::Ipv4, protocol, address: None, port: 80 };
        Reaches::new(vec![table.parsed()], [None, None], surroundings()).of(place)
    };
    let named = undecidable("chain early of table filter");
    let of_tcp = table(&[vec![load(HEADER_OF_NETWORK, 9, 1), compare(&[6])]]);
    assert_eq!(reach(&of_tcp, Transport::Tcp), named);
    assert_eq!(reach(&of_tcp, Transport::Udp), Reading::Known(Reach::None));
    for protocol in [Transport::Tcp, Transport::Udp] {
        assert_eq!(reach(&table(&[]), protocol), named);
    }
}

#[test]
fn a_rule_that_speaks_of_some_packets_of_a_sender_alone_is_named() {
    let table = |rules: &[Vec<Expressions>], policy: i32| {
        Table::default().chain("input", "filter", INPUT, policy, rules).reach(22)
    };
    let other = || vec![port_is(80), verdict(DROP)];
    let over = |code: i32| vec![is_over_a_limit(), verdict(code)];
    let limit = || vec![expression("limit", &[number(5, 0)])];
    let named = undecidable("rule 2 of chain input of table filter");
    assert_eq!(table(&[other(), over(ACCEPT)], DROP), named);
    assert_eq!(table(&[other(), vec![limit(), verdict(DROP)]], ACCEPT), named);
    // What is over a limit and dropped leaves nothing open, and so it is with what is within one and let in.
    assert_eq!(table(&[over(DROP), over(ACCEPT)], DROP), named);
    assert_eq!(table(&[vec![limit(), verdict(ACCEPT)]], DROP), Reading::Known(Reach::Any));
    // As iptables over nf_tables writes `recent`: to look whether the sender is in a list.
    let recent = |rule: i32| {
        let info = [&[0; 8][..], &[1, 0], &[0; 240]].concat();
        let found = expression("match", &[text(1, "recent"), number(2, 0), attribute(3, &info)]);
        vec![vec![found], verdict(rule)]
    };
    assert_eq!(table(&[other(), recent(ACCEPT)], DROP), named);
    assert_eq!(table(&[recent(DROP)], ACCEPT), Reading::Known(Reach::Any));
}

#[test]
fn a_place_whose_packets_go_to_another_is_not_told_to_be_closed() {
    let elsewhere = vec![port_is(8080), send_elsewhere()];
    let table = Table::default().chain("docker", "nat", PREROUTING, ACCEPT, &[elsewhere]);
    let table = table.chain("input", "filter", INPUT, DROP, &[vec![port_is(22), verdict(ACCEPT)]]);
    assert_eq!(table.reach(8080), undecidable("rule 1 of chain docker of table filter"));
    assert_eq!(table.reach(22), Reading::Known(Reach::Any));
    // A packet for another port may be made one for this.
    assert_eq!(table.reach(80), Reading::Known(Reach::None));
}

#[test]
fn a_sender_chooses_the_flags_beside_the_one_that_asks_for_a_connection() {
    let table = |rule: Vec<Expressions>, policy: i32| Table::default().chain("input", "filter", INPUT, policy, &[rule]);
    let every = 0xff;
    assert_eq!(table(vec![flags_are(every, 2), verdict(DROP)], ACCEPT).reach(22), Reading::Known(Reach::Any));
    assert_eq!(table(vec![flags_are(every, 2), verdict(ACCEPT)], DROP).reach(22), Reading::Known(Reach::Any));
    assert_eq!(table(vec![flags_are(0x17, 2), verdict(DROP)], ACCEPT).reach(22), Reading::Known(Reach::None));
    // With ECE and CWR.
    assert_eq!(table(vec![flags_are(0xc2, 0xc2), verdict(ACCEPT)], DROP).reach(22), Reading::Known(Reach::Any));
    // What is no first packet.
    assert_eq!(table(vec![flags_are(3, 3), verdict(ACCEPT)], DROP).reach(22), Reading::Known(Reach::None));
}

#[test]
fn the_loopback_is_reached_where_packets_to_it_are_routed() {
    let open = Table::default().chain("input", "filter", INPUT, ACCEPT, &[vec![port_is(80), verdict(DROP)]]);
    let of = |ways: &[&str], port: u16| {
        let loopback_ways = Ok(ways.iter().map(|name| name_number(name)).collect());
        open.reach_within(Surroundings { loopback_ways, ..surroundings() }, Some(0x7f00_0001), port)
    };
    assert_eq!(of(&[], 22), Reading::Known(Reach::None));
    assert_eq!(of(&super::INTERFACES, 22), Reading::Known(Reach::Any));
    assert_eq!(of(&["wg0"], 22), Reading::Known(Reach::Some));
    assert_eq!(of(&super::INTERFACES, 80), Reading::Known(Reach::None));
    let untold = Unknown::new(Cause::Forbidden, "read of a setting");
    let around = Surroundings { loopback_ways: Err(untold.clone()), ..surroundings() };
    assert_eq!(open.reach_within(around, Some(0x7f00_0001), 22), Reading::Unknown { unknown: untold });
}

#[test]
fn a_whole_network_of_the_host_holds_addresses_that_are_not_listed() {
    let receiver_is = vec![load(HEADER_OF_NETWORK, 16, 4), compare(&[10, 99, 0, 5])];
    let table = Table::default().chain("input", "filter", INPUT, DROP, &[vec![receiver_is, verdict(ACCEPT)]]);
    assert_eq!(table.reach(22), Reading::Known(Reach::None));
    let around = Surroundings { has_networks: true, ..surroundings() };
    assert_eq!(table.reach_within(around, None, 22), undecidable("rule 1 of chain input of table filter"));
}
