//! Hosts with Windows, and Macs: what the probes make of a capture, and what the controls say of that.
//!
//! The captures are made up from Microsoft's documentation; see `agent/fixtures/README.md`.

use std::path::Path;

use muster_agent::{
    host::Recorded,
    probe::{self, Look, Settings},
};
use muster_collector::control::{Acknowledged, Catalogue, Evidence, Observed, Reporting, Verdict, judge};
use muster_proto::{
    fact::{Fact, Protection, Reading, Volume, WatchState},
    id::AgentId,
    report::Probe,
};

/// Returns what `probe` sees of the capture, as the collector has it, and what `control` says of the host by that alone.
fn judged(probe: Probe, machine: &str, control: &str) -> (Fact, Verdict, String) {
    let probe = probe::find(probe).expect("there is one");
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/fixtures").join(probe.name()).join(machine);
    let host = Recorded::at(&case).expect("a capture");
    let memory = tempfile::tempdir().expect("a folder");
    let (now, settings) = (host.captured(), Settings::default());
    let look = Look {
        host: &host,
        now,
        settings: &settings,
        memory: memory.path(),
        watch: WatchState::Live,
        run: 7,
        files: Default::default(),
    };
    let fact = probe.look(&look).remove(0);
    // From the bytes that travel.
    let observed = Observed::decode(fact.subject(), &fact.encode(), now);
    let decoded = observed.fact.clone();
    let evidence = Evidence {
        host: AgentId::new([7; 16]),
        facts: [(fact.subject(), observed)].into(),
        reporting: Reporting { last_received: Some(now), skew_millis: 0 },
        acknowledged: Acknowledged::default(),
    };
    let catalogue = Catalogue::built_in();
    let judgement = judge(catalogue.control(control).expect("it is built in"), &evidence, now);
    (decoded, judgement.verdict, judgement.reason)
}

/// Returns the volume `C:` of the capture, and what ENC-01 says of its host.
fn look_at(machine: &str) -> (Volume, Verdict, String) {
    let (fact, verdict, reason) = judged(Probe::DiskEncryption, machine, "ENC-01");
    let Fact::DiskEncryption(Reading::Known(disk)) = &fact else { panic!("{fact:?}") };
    let volume = disk.volumes.iter().find(|volume| volume.mount_point.as_str() == "C:").expect("every Windows has it");
    (volume.clone(), verdict, reason)
}

#[test]
fn a_host_that_has_all_updates_passes_and_one_that_is_kept_from_them_is_unknown() {
    for (machine, control) in [
        ("made-up-windows-nothing-pending", "PAT-02"),
        ("made-up-windows-nothing-pending", "PAT-03"),
        ("made-up-macos-nothing-pending", "PAT-02"),
        ("made-up-macos-declared", "PAT-02"),
    ] {
        let (_, verdict, reason) = judged(Probe::PatchLevel, machine, control);
        assert_eq!(verdict, Verdict::Pass, "{machine} {control}: {reason}");
    }
    let (_, verdict, reason) = judged(Probe::PatchLevel, "made-up-macos-declared-delay", "PAT-02");
    assert_eq!(verdict, Verdict::Unknown);
    assert!(reason.contains("held back"), "{reason}");
}

#[test]
fn bitlocker_suspended_or_converting_on_a_german_host_is_a_state_of_its_own_and_never_passes() {
    let (volume, verdict, reason) = look_at("made-up-windows-german-suspended");
    assert_eq!(volume.protection, Some(Reading::Known(Protection::Suspended)));
    assert_eq!((verdict, volume.encrypted_percent), (Verdict::Fail, None));
    assert!(reason.contains("not encrypted: C: (suspended)"), "{reason}");

    let (volume, verdict, reason) = look_at("made-up-windows-german-converting-at-42");
    assert_eq!(volume.protection, Some(Reading::Known(Protection::Encrypting)));
    assert_eq!((verdict, volume.encrypted_percent), (Verdict::Fail, Some(Reading::Known(42))));
    assert!(reason.contains("not encrypted: C: (encrypting)"), "{reason}");
}

#[test]
fn bitlocker_that_is_on_passes_and_a_locked_drive_or_a_refused_answer_is_unknown() {
    assert_eq!(look_at("made-up-windows-bitlocker-on").1, Verdict::Pass);
    let (_, verdict, reason) = look_at("made-up-windows-locked-data-drive");
    assert_eq!(verdict, Verdict::Unknown);
    assert!(reason.contains("locked"), "{reason}");
    let (volume, verdict, reason) = look_at("made-up-windows-not-an-administrator");
    assert_eq!((verdict, volume.encrypted.known()), (Verdict::Unknown, None));
    assert!(reason.contains("forbidden"), "{reason}");
}
