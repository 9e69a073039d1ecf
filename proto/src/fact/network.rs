//! Packet filters and listening sockets.

use serde::{Deserialize, Serialize};

use super::{Reading, Text, text_enum};

text_enum!(
    /// What becomes of inbound packets that no rule lets in.
    Inbound { Deny = "deny", Allow = "allow" }
);
text_enum!(
    /// Packet filter of the system.
    FilterEngine {
        NfTables = "nf_tables", IptablesLegacy = "iptables_legacy", ApplicationFirewall = "application_firewall",
        Pf = "pf", WindowsFiltering = "windows_filtering",
    }
);
text_enum!(
    /// Address family of a packet filter's table.
    FilterFamily { Ip = "ip", Ip6 = "ip6", Inet = "inet", Netdev = "netdev" }
);
text_enum!(
    /// Hook of a packet filter before the input hook.
    FilterHook { Ingress = "ingress", Prerouting = "prerouting" }
);
text_enum!(
    /// Policy of a base chain.
    ChainPolicy { Accept = "accept", Drop = "drop" }
);
text_enum!(
    /// What becomes of a packet that no narrower rule of a chain decides.
    DefaultVerdict { Accept = "accept", Drop = "drop", Reject = "reject", Undecidable = "undecidable" }
);
text_enum!(
    /// Program whose packet-filter rules were recognised.
    FirewallManager { Docker = "docker", Firewalld = "firewalld", Ufw = "ufw" }
);
text_enum!(
    /// Transport protocol.
    Transport { Tcp = "tcp", Udp = "udp" }
);
text_enum!(
    /// From whom outside a socket is reached.
    Reach { None = "none", Some = "some", Any = "any" }
);

/// Packet filters of the host's initial network namespace.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Firewall {
    pub inbound_ipv4: Reading<Inbound>,
    pub inbound_ipv6: Reading<Inbound>,
    pub input_chains: Vec<InputChain>,
    pub managers: Vec<FirewallManager>,
    pub rule_set_digest: Reading<Text>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<FirewallProfile>,
}

/// A filter of macOS or Windows, as it is in force.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct FirewallProfile {
    pub engine: FilterEngine,
    pub name: Text,
    pub enabled: Reading<bool>,
    pub inbound: Reading<Inbound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_all: Option<Reading<bool>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stealth: Option<Reading<bool>>,
}

/// A chain that inbound packets enter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct InputChain {
    pub engine: FilterEngine,
    pub family: FilterFamily,
    pub table: Text,
    pub chain: Text,
    pub priority: i32,
    pub policy: ChainPolicy,
    pub default_verdict: DefaultVerdict,
    pub rule_count: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<FilterHook>,
}

/// Sockets that wait for peers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Listeners {
    pub listeners: Vec<Listener>,
}

/// A socket that waits for peers.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Listener {
    pub protocol: Transport,
    pub address: Text,
    pub port: u16,
    pub program: Reading<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<Reading<Reach>>,
}
