//! What controls say of machines that were captured: `agent/fixtures`.

use std::path::Path;

use muster_proto::fact::Fact;

use super::{fixture, *};

/// Returns the verdict of `control` and its reason for what `probe` saw of the captured `machine`, whose other facts are those of
/// a healthy host.
fn judged_by(control: &str, probe: &str, machine: &str) -> (Verdict, String) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/fixtures").join(probe);
    let facts = std::fs::read(fixtures.join(machine).join("expected.json")).unwrap();
    let [fact]: [Fact; 1] = serde_json::from_slice::<Vec<Fact>>(&facts).unwrap().try_into().unwrap();
    judged_with(control, fact)
}

fn judged(machine: &str) -> (Verdict, String) {
    judged_by("ENC-01", "disk_encryption", machine)
}

fn judged_with(control: &str, fact: Fact) -> (Verdict, String) {
    let fixture = fixture::built_in().iter().find(|fixture| fixture.control == control).unwrap();
    let (mut evidence, now) = fixture.evidence().unwrap();
    evidence.facts.insert(fact.subject(), Observed::new(fact, now));
    let judged = judge(Catalogue::built_in().control(control).unwrap(), &evidence, now);
    (judged.verdict, judged.reason)
}

fn check(machine: &str, expected: Verdict, reasons: &[&str]) {
    let (verdict, reason) = judged(machine);
    assert_eq!(verdict, expected, "{machine}: {reason}");
    for part in reasons {
        assert!(reason.contains(part), "{machine}: {reason}");
    }
}

#[test]
fn s1_lvm_on_luks_and_luks_on_lvm_pass() {
    check("uml-lvm-on-luks2", Verdict::Pass, &[]);
    check("uml-luks2-on-lvm", Verdict::Pass, &[]);
    check("uml-luks1", Verdict::Pass, &[]);
    check("uml-raid-over-luks", Verdict::Pass, &[]);
}

/// Returns the verdict on a host whose root alone is a volume, with one layer of `format`.
fn judged_of(format: &str, encrypted: serde_json::Value) -> (Verdict, String) {
    judged_with("ENC-01", fact_of(format, encrypted))
}

fn fact_of(format: &str, encrypted: serde_json::Value) -> Fact {
    let crypt = serde_json::json!({"format": format, "cipher": "aes-256-gcm", "key_bits": 256});
    let layer = serde_json::json!({"device": "x", "kind": "crypt", "name": "", "crypt": crypt, "below": []});
    let volume = serde_json::json!({
        "mount_point": "/", "file_system": "x", "source": "x", "kind": "fixed", "layers": [layer], "encrypted": encrypted,
    });
    let state = serde_json::json!({"volumes": [volume], "swap_areas": [], "volumes_complete": true});
    serde_json::from_value(serde_json::json!({"subject": "disk_encryption", "state": state})).unwrap()
}

#[test]
fn s2_a_dataset_that_zfs_encrypts_passes_and_one_that_cannot_be_told_is_unknown() {
    assert_eq!(judged_of("zfs", true.into()).0, Verdict::Pass);
    let (verdict, reason) = judged_of("zfs", serde_json::json!({"unknown": {"cause": "absent", "detail": "run zfs"}}));
    assert_eq!(verdict, Verdict::Unknown, "{reason}");
    assert!(reason.contains("absent (run zfs)"), "{reason}");
}

#[test]
fn an_agent_that_does_not_say_whether_all_volumes_are_listed_passes_nothing() {
    let mut fact = serde_json::to_value(fact_of("zfs", true.into())).unwrap();
    fact["state"].as_object_mut().unwrap().remove("volumes_complete").unwrap();
    for control in ["ENC-01", "ENC-03"] {
        let (verdict, reason) = judged_with(control, serde_json::from_value(fact.clone()).unwrap());
        assert_eq!((verdict, reason.as_str()), (Verdict::Unknown, "volumes_complete was not reported"), "{control}");
    }
}

#[test]
fn s3_a_drive_that_encrypts_passes() {
    assert_eq!(judged_of("opal", true.into()).0, Verdict::Pass);
    assert_eq!(judged_of("opal_crypt", true.into()).0, Verdict::Pass);
}

#[test]
fn s4_encryption_beside_the_data_fails_and_the_plain_mounts_are_named() {
    check("uml-decoy", Verdict::Fail, &["not encrypted: /"]);
    check("uml-plain-swap", Verdict::Fail, &["swap not encrypted: /dev/sd"]);
    check("uml-btrfs-half", Verdict::Fail, &["not encrypted: /"]);
    let kinds = ["/elsewhere", "/srv/bcache", "/srv/integrity", "/srv/multipath", "/srv/null"];
    check("uml-kinds", Verdict::Fail, &kinds);
    let (_, reason) = judged("uml-decoy");
    assert!(!reason.contains("/vault") && !reason.contains("/home/alice"), "{reason}");
}

#[test]
fn s5_a_host_passes_without_any_tool_and_without_its_devices() {
    check("uml-no-devices", Verdict::Pass, &[]);
}

#[test]
fn what_a_guest_cannot_see_below_itself_is_unknown_and_says_so() {
    check("uml-virtual-disk", Verdict::Unknown, &["disk_encryption.volumes[/].encrypted: hidden"]);
    check("cloud-vm-loop", Verdict::Unknown, &["disk_encryption.volumes[/].encrypted: hidden"]);
    check("ext4-fscrypt", Verdict::Unknown, &[]);
}

#[test]
fn s7_a_firewall_is_judged_by_what_becomes_of_packets_and_not_by_its_tables() {
    for (machine, expected) in [
        // iptables' own tables are empty: the rules are in nf_tables.
        ("ufw", Verdict::Pass),
        ("ufw-closed", Verdict::Pass),
        // Policy accept, and a rule at the end that rejects.
        ("firewalld", Verdict::Pass),
        ("nft-drop", Verdict::Pass),
        // Not among nf_tables.
        ("legacy-drop", Verdict::Pass),
        ("empty", Verdict::Fail),
        // Chains that only sort out packets for containers.
        ("docker", Verdict::Fail),
        ("nft-one-family", Verdict::Fail),
        ("forbidden", Verdict::Unknown),
    ] {
        let (verdict, reason) = judged_by("FWL-01", "firewall", machine);
        assert_eq!(verdict, expected, "{machine}: {reason}");
    }
}
