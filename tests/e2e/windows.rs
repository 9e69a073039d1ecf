//! BitLocker on a host whose Windows does not speak English: what the probe makes of a capture, and what the control says of that.
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

/// Returns the volume `C:` of the capture, and what ENC-01 says of its host.
fn look_at(machine: &str) -> (Volume, Verdict, String) {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/fixtures/disk_encryption").join(machine);
    let host = Recorded::at(&case).expect("a capture");
    let memory = tempfile::tempdir().expect("a folder");
    let (now, settings) = (host.captured(), Settings::default());
    let probe = probe::find(Probe::DiskEncryption).expect("there is one");
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
    // As the collector has it: from the bytes that travel.
    let observed = Observed::decode(fact.subject(), &fact.encode(), now);
    let Fact::DiskEncryption(Reading::Known(disk)) = &observed.fact else { panic!("{fact:?}") };
    let volume = disk.volumes.iter().find(|volume| volume.mount_point.as_str() == "C:").expect("every Windows has it");
    let volume = volume.clone();
    let evidence = Evidence {
        host: AgentId::new([7; 16]),
        facts: [(fact.subject(), observed)].into(),
        reporting: Reporting { last_received: Some(now), skew_millis: 0 },
        acknowledged: Acknowledged::default(),
    };
    let catalogue = Catalogue::built_in();
    let control = catalogue.control("ENC-01").expect("it is built in");
    let judgement = judge(control, &evidence, now);
    (volume, judgement.verdict, judgement.reason)
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
