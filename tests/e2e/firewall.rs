//! What an agent is told of a real kernel's packet filters with what its unit gives it: a user and two capabilities.
//!
//! Root only; elsewhere each test says that it was left out, and why.

#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::process::Command;

use muster_tests::harness::{left_out, netns::Namespace, program};

const NF_TABLES: &str = "nft 'table inet filter { chain input { type filter hook input priority 0; policy drop; \
                         tcp dport { 22, 80 } accept; }; }'";
const LEGACY: &str = "iptables-legacy -P INPUT DROP && ip6tables-legacy -P INPUT DROP && \
                      iptables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT";

/// Returns the capabilities of the packaged unit, as setpriv(1) takes them.
fn capabilities() -> String {
    let unit = include_str!("../../deploy/systemd/muster-agent.service");
    let given = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).unwrap();
    given
        .split_whitespace()
        .fold("-all".to_owned(), |list, name| format!("{list},+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()))
}

fn inside(namespace: &Namespace) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", namespace.name())).arg("--");
    command
}

/// Returns what the agent says of the firewall as another user with these capabilities.
fn look(namespace: &Namespace, capabilities: &str) -> String {
    let mut command = inside(namespace);
    command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    for kind in ["inh-caps", "ambient-caps", "bounding-set"] {
        command.arg(format!("--{kind}={capabilities}"));
    }
    let output = command.arg(program("test-agent")).args(["probe", "firewall"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn the_unit_reads(engine: &str, rules: &str) {
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(why) => return left_out(engine, why),
    };
    let output = inside(&namespace).args(["sh", "-c", rules]).output().unwrap();
    if !output.status.success() {
        return left_out(engine, String::from_utf8_lossy(&output.stderr).trim());
    }
    let told = look(&namespace, &capabilities());
    for line in ["inbound IPv4  denied unless a rule", "inbound IPv6  denied unless a rule"] {
        assert!(told.contains(line), "{engine}: {told}");
    }
    let told = look(&namespace, "-all");
    assert!(told.contains("forbidden"), "without capabilities: {told}");
}

#[test]
fn nf_tables_is_read_with_the_capabilities_of_the_unit() {
    the_unit_reads("nf_tables with the capabilities of the unit", NF_TABLES);
}

#[test]
fn legacy_tables_are_read_with_the_capabilities_of_the_unit() {
    the_unit_reads("legacy tables with the capabilities of the unit", LEGACY);
}
