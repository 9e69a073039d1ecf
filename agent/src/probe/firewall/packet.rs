//! A new packet to a socket, and which conditions it meets. Pure, and the same for both engines.

use super::senders::{Part, Range};
use crate::host::Family;

/// A part of a packet, or of what the kernel knows of it, as a number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Field {
    /// `NFPROTO_` number of its address family.
    Family,
    Ipv4Sender,
    Ipv6Sender,
    Ipv4Receiver,
    Ipv6Receiver,
    /// Protocol above IP.
    Protocol,
    /// What follows the first header of IPv6.
    NextHeader,
    SenderPort,
    ReceiverPort,
    TcpFlags,
    /// Place of a fragment, with flags.
    Fragment,
    /// Number of the incoming interface.
    Interface,
    /// Its name, filled with zeros to 16 bytes.
    InterfaceName,
    /// `NF_CT_STATE_BIT` of its connection.
    CtState,
    /// Bits of `enum ip_conntrack_status`.
    CtStatus,
    /// Kind of the receiver's address (`RTN_` of linux/rtnetlink.h).
    ReceiverKind,
    /// `PACKET_` of linux/if_packet.h.
    PacketKind,
    /// What is not followed.
    Other,
}

/// What is asked of a field.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Ask {
    /// From the first to the last.
    Within(u128, u128),
    /// These bits have this value.
    Bits { mask: u128, value: u128 },
}

impl Ask {
    pub fn holds(self, number: u128) -> bool {
        match self {
            Self::Within(first, last) => first <= number && number <= last,
            Self::Bits { mask, value } => number & mask == value,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Test {
    pub field: Field,
    pub ask: Ask,
}

/// A condition of a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Condition {
    /// All tests of one of the lists hold; inverted, those of none.
    AnyOf { lists: Vec<Vec<Test>>, is_inverted: bool },
    /// The first packet of a sender that is not busy meets it, such as a limit; others may not.
    Mostly,
    /// Such a packet does not meet it; others may.
    Seldom,
    /// Not told.
    Unclear,
}

impl Condition {
    pub const NEVER: Self = Self::AnyOf { lists: Vec::new(), is_inverted: false };

    pub fn test(field: Field, ask: Ask, is_inverted: bool) -> Self {
        Self::AnyOf { lists: vec![vec![Test { field, ask }]], is_inverted }
    }

    /// Returns the condition that one packet meets always, or never.
    pub fn fixed(is_met: bool) -> Self {
        Self::AnyOf { lists: Vec::new(), is_inverted: is_met }
    }

    /// Returns the `NFPROTO_` number of the family whose packets alone meet it, if it is so told.
    pub fn family(&self) -> Option<u128> {
        let Self::AnyOf { lists, is_inverted: false } = self else { return None };
        let [tests] = lists.as_slice() else { return None };
        let [Test { field: Field::Family, ask: Ask::Within(first, last) }] = tests.as_slice() else { return None };
        (first == last).then_some(*first)
    }

    /// Returns whether packets meet it, of which `of_test` says what tests they all pass or fail; `None` where it depends on more.
    pub fn is_met_by(&self, of_test: impl Fn(&Test) -> Option<bool>) -> Option<bool> {
        let Self::AnyOf { lists, is_inverted } = self else { return None };
        let of_list = |tests: &Vec<Test>| {
            let mut each = tests.iter().map(&of_test);
            let is_one_other = each.clone().any(|passes| passes == Some(false));
            if is_one_other { Some(false) } else { each.all(|passes| passes == Some(true)).then_some(true) }
        };
        let mut each = lists.iter().map(of_list);
        let is_one_met = each.clone().any(|passes| passes == Some(true));
        let is_met = if is_one_met { Some(true) } else { each.all(|passes| passes == Some(false)).then_some(false) };
        is_met.map(|is_met| is_met != *is_inverted)
    }

    /// Returns every test in it.
    pub fn tests(&self) -> impl Iterator<Item = &Test> {
        self.lists().iter().flatten()
    }

    /// Returns its tests, those of each list together.
    pub fn lists(&self) -> &[Vec<Test>] {
        match self {
            Self::AnyOf { lists, .. } => lists,
            Self::Mostly | Self::Seldom | Self::Unclear => &[],
        }
    }
}

/// An interface by which packets come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Interface {
    /// Filled with zeros, as a number.
    pub name: u128,
    pub index: Option<u32>,
}

/// An address to which packets come, with its kind (`RTN_` of linux/rtnetlink.h).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Receiver {
    pub address: u128,
    pub kind: u32,
}

/// Whether the connection of a packet is looked up yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tracking {
    /// No: it counts as invalid, whatever it is.
    Before,
    /// It is or not, as to which of two of one priority was there first.
    Untold,
    After,
}

/// The first packet of a connection, of which everything but its sender's address is chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub family: Family,
    pub protocol: u8,
    pub sender_port: u16,
    pub receiver_port: u16,
    /// Flags of TCP, of which a sender may choose some.
    pub tcp_flags: u8,
    /// `None` when it is not told which addresses are the host's.
    pub receiver: Option<Receiver>,
    /// `None` when it is not told which interfaces there are.
    pub interface: Option<Interface>,
    pub tracking: Tracking,
    /// `PACKET_` of linux/if_packet.h: to whom the frame is in which it comes.
    pub packet_kind: u8,
    /// Whether some rule keeps packets from being tracked.
    pub may_be_untracked: bool,
    /// Whether some rule changes to whom a packet goes.
    pub may_be_translated: bool,
    /// Whether some rule has changed from whom it comes.
    pub may_be_resent: bool,
}

/// `NFPROTO_` of linux/netfilter.h.
pub(super) const IPV4: u128 = 2;
pub(super) const IPV6: u128 = 10;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// Headers of IPv6 before that of a protocol above it: options, routes, fragments, authentication, mobility (RFC 8200,
/// section 4.1, and RFC 6275).
pub(super) const EXTENSIONS: [u8; 6] = [0, 43, 44, 51, 60, 135];
/// Of `NF_CT_STATE_BIT`.
pub(super) const STATE_INVALID: u128 = 1;
pub(super) const STATE_NEW: u128 = 8;
pub(super) const STATE_UNTRACKED: u128 = 64;
/// Bits of `enum ip_conntrack_status` that a connection has only when it is known, expected or translated: expected,
/// answered, assured, and both translations.
pub(super) const STATUS_OF_KNOWN: u128 = 1 | 2 | 4 | 16 | 32;
/// IPS_DST_NAT, of them
pub(super) const STATUS_TRANSLATED: u128 = 32;
/// IPS_SRC_NAT, of them
pub(super) const STATUS_RESENT: u128 = 16;
/// Where a fragment begins, without its flags.
pub(super) const FRAGMENT_PLACE: u128 = 0x1fff;
/// The flag by which a connection is asked for.
pub(super) const SYN: u8 = 2;
/// Flags that may come with it: PSH, URG, ECE and CWR. A socket takes no first packet with FIN, RST or ACK (RFC 9293, section
/// 3.10.7.2; `tcp_rcv_state_process` of Linux).
pub(super) const FLAGS_BESIDE_SYN: [u8; 4] = [8, 32, 64, 128];
/// Kinds of packets by their frames: for the host, for all, and for a group (PACKET_HOST, PACKET_BROADCAST and PACKET_MULTICAST).
pub(super) const PACKET_KINDS: [u8; 3] = [0, 1, 2];
/// `RTN_LOCAL`
pub(super) const KIND_LOCAL: u32 = 2;

/// Whether a packet passes a test.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Passes {
    Yes,
    No,
    /// From these senders.
    From(Range),
    Unclear,
}

impl From<bool> for Passes {
    fn from(passes: bool) -> Self {
        if passes { Self::Yes } else { Self::No }
    }
}

impl Packet {
    fn passes(&self, Test { field, ask }: &Test) -> Passes {
        let told = |number: Option<u128>| number.map_or(Passes::Unclear, |number| ask.holds(number).into());
        let is_ipv4 = match self.family {
            Family::Ipv4 => true,
            Family::Ipv6 => false,
        };
        match field {
            Field::Family => ask.holds(if is_ipv4 { IPV4 } else { IPV6 }).into(),
            Field::Ipv4Sender | Field::Ipv4Receiver if !is_ipv4 => Passes::No,
            Field::Ipv6Sender | Field::Ipv6Receiver | Field::NextHeader if is_ipv4 => Passes::No,
            Field::Ipv4Sender | Field::Ipv6Sender | Field::SenderPort if self.may_be_resent => Passes::Unclear,
            Field::Ipv4Sender | Field::Ipv6Sender => match *ask {
                Ask::Within(first, last) => Passes::From((first, last)),
                Ask::Bits { .. } => Passes::Unclear,
            },
            Field::Ipv4Receiver | Field::Ipv6Receiver => told(self.receiver.map(|receiver| receiver.address)),
            Field::Protocol => ask.holds(self.protocol.into()).into(),
            Field::NextHeader => passes_next_header(*ask, self.protocol).map_or(Passes::Unclear, Passes::from),
            Field::SenderPort => ask.holds(self.sender_port.into()).into(),
            Field::ReceiverPort => ask.holds(self.receiver_port.into()).into(),
            Field::TcpFlags => (self.protocol == TCP && ask.holds(self.tcp_flags.into())).into(),
            // It is whole; whether it may be cut is not told.
            Field::Fragment => match *ask {
                Ask::Bits { mask, value } if mask & !FRAGMENT_PLACE == 0 => (value == 0).into(),
                _ => Passes::Unclear,
            },
            Field::Interface => told(self.interface.and_then(|interface| interface.index).map(u128::from)),
            Field::InterfaceName => told(self.interface.map(|interface| interface.name)),
            Field::CtState => {
                let before = ask.holds(STATE_INVALID).into();
                let after = match (ask.holds(STATE_NEW), ask.holds(STATE_UNTRACKED)) {
                    (new, untracked) if self.may_be_untracked && new != untracked => Passes::Unclear,
                    (new, _) => new.into(),
                };
                match self.tracking {
                    Tracking::Before => before,
                    Tracking::Untold if before != after => Passes::Unclear,
                    Tracking::Untold | Tracking::After => after,
                }
            }
            Field::CtStatus => match *ask {
                Ask::Bits { mask, value } if mask & (!STATUS_OF_KNOWN | self.untold_status()) == 0 => {
                    (value == 0).into()
                }
                _ => Passes::Unclear,
            },
            Field::ReceiverKind => told(self.receiver.map(|receiver| receiver.kind.into())),
            Field::PacketKind => ask.holds(self.packet_kind.into()).into(),
            Field::Other => Passes::Unclear,
        }
    }

    /// Returns the bits of its connection's status that are not told.
    fn untold_status(&self) -> u128 {
        let translated = if self.may_be_translated { STATUS_TRANSLATED } else { 0 };
        let resent = if self.may_be_resent { STATUS_RESENT } else { 0 };
        translated | resent
    }

    /// Returns from whom it passes all tests: for certain, and perhaps.
    fn passes_all(&self, tests: &[Test]) -> (Part, Part) {
        let mut senders: Option<Range> = None;
        let mut is_told = true;
        for test in tests {
            match self.passes(test) {
                Passes::Yes => {}
                Passes::No => return (Part::NONE, Part::NONE),
                Passes::Unclear => is_told = false,
                Passes::From((first, last)) => {
                    let (start, end) = senders.unwrap_or((0, u128::MAX));
                    senders = Some((first.max(start), last.min(end)));
                }
            }
        }
        let perhaps = match senders {
            None => Part::All,
            Some((first, last)) if first > last => Part::NONE,
            Some(range) => Part::Ranges(vec![range]),
        };
        (if is_told { perhaps.clone() } else { Part::NONE }, perhaps)
    }

    fn passes_any(&self, lists: &[Vec<Test>]) -> (Part, Part) {
        let (mut certain, mut perhaps) = (Vec::new(), Vec::new());
        let (mut all_certain, mut all_perhaps) = (false, false);
        for (sure, may) in lists.iter().map(|tests| self.passes_all(tests)) {
            match sure {
                Part::All => all_certain = true,
                Part::Ranges(ranges) => certain.extend(ranges),
            }
            match may {
                Part::All => all_perhaps = true,
                Part::Ranges(ranges) => perhaps.extend(ranges),
            }
        }
        (
            if all_certain { Part::All } else { Part::of(certain) },
            if all_perhaps { Part::All } else { Part::of(perhaps) },
        )
    }

    /// Returns from whom it meets every one of `conditions`.
    pub fn meets(&self, conditions: &[Condition]) -> Met {
        let mut met = Met { certain: Part::All, perhaps: Part::All, rate: Rate::Steady };
        for condition in conditions {
            match condition {
                Condition::AnyOf { lists, is_inverted } => {
                    let (certain, perhaps) = self.passes_any(lists);
                    let (certain, perhaps) =
                        if *is_inverted { (perhaps.inverted(), certain.inverted()) } else { (certain, perhaps) };
                    met.certain = met.certain.and(certain);
                    met.perhaps = met.perhaps.and(perhaps);
                }
                Condition::Mostly => met.rate = met.rate.max(Rate::Mostly),
                Condition::Seldom => met.rate = Rate::Seldom,
                Condition::Unclear => met.certain = Part::NONE,
            }
            if met.perhaps.is_none() {
                break;
            }
        }
        met
    }
}

/// Returns whether what follows the first header of IPv6 passes, in a packet of `protocol`; `None` where that is for its sender to
/// choose, who may put headers before that of the protocol.
pub(super) fn passes_next_header(ask: Ask, protocol: u8) -> Option<bool> {
    let mut each = EXTENSIONS.iter().chain([&protocol]).map(|header| ask.holds((*header).into()));
    let is_first = each.next()?;
    each.all(|passes| passes == is_first).then_some(is_first)
}

/// From whom a packet meets the conditions of a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Met {
    /// From these it does.
    pub certain: Part,
    /// From no others.
    pub perhaps: Part,
    pub rate: Rate,
}

/// Whether every packet of a sender meets a condition that one does.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Rate {
    Steady,
    /// The first one of a sender that is not busy does.
    Mostly,
    /// That one does not.
    Seldom,
}
