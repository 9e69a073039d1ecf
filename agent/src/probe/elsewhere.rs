//! Faults of what macOS and Windows answer: whatever becomes of an answer, a reading stays as it is or becomes unknown.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use muster_proto::fact::{Fact, Reading, WatchState};

use super::{Look, PROBES, Probe, Settings};
use crate::host::{Host as _, Recorded, TOOL_OUTPUT_BYTES, recorded::Failure};

/// The machines that are asked, each with every kind of answer that its probe asks for.
const MACHINES: &[&str] = &[
    "disk_encryption/made-up-macos-plain-data-volume",
    "disk_encryption/made-up-macos-filevault-off",
    "disk_encryption/made-up-macos-guest",
    "disk_encryption/made-up-windows-locked-data-drive",
    "disk_encryption/made-up-windows-bitlocker-off",
    "firewall/made-up-macos-pf-denies",
    "firewall/made-up-macos-pf-skips-an-interface",
    "firewall/made-up-macos-both-off",
    "firewall/made-up-windows-one-profile-off",
    "firewall/made-up-windows-interface-excluded",
    "patch_level/made-up-macos-german-pending",
    "patch_level/made-up-macos-declared",
    "patch_level/made-up-macos-list-of-before-the-update",
    "patch_level/made-up-windows-german-pending",
    "system/made-up-macos-laptop",
    "system/made-up-windows-laptop",
];

/// What becomes of an answer.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It is an error: `kind` of a recorded failure, or its number.
    Error(&'static str),
    Forbidden,
    Empty,
    Cut,
    Garbled,
    Huge,
}

const FAULTS: &[Fault] = &[
    Fault::Error("not_found"),
    Fault::Error("timed_out"),
    Fault::Error("too_large"),
    Fault::Forbidden,
    Fault::Empty,
    Fault::Cut,
    Fault::Garbled,
    Fault::Huge,
];

/// Tools that print nothing when there is nothing of what they are asked for.
const MAY_BE_EMPTY: &[&str] = &["-s.rules", "-c.AppleSmartBattery"];

#[test]
fn a_fault_makes_a_reading_unknown_and_never_another_value() {
    let (mut cases, mut broken) = (0, Vec::new());
    for machine in MACHINES {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(machine);
        let probe = *PROBES.iter().find(|probe| machine.split('/').next() == Some(probe.name())).unwrap();
        let sound = readings(&look_at(probe, &Recorded::at(&case).unwrap()));
        assert!(sound.values().any(Option::is_some), "{machine}");
        for answer in answers(&case) {
            let may_be_empty = MAY_BE_EMPTY.iter().any(|end| answer.to_str().is_some_and(|name| name.ends_with(end)));
            for fault in FAULTS.iter().filter(|fault| !may_be_empty || !matches!(fault, Fault::Empty)) {
                let copy = tempfile::tempdir().unwrap();
                copy_folder(&case, copy.path());
                let host = with_fault(copy.path(), &answer, *fault);
                let facts = look_at(probe, &host);
                for fact in &facts {
                    assert_eq!(Fact::decode(&fact.encode()).as_ref(), Ok(fact));
                }
                for (name, value) in readings(&facts) {
                    let before = sound.get(&name);
                    if value.is_some() && before != Some(&value) {
                        let answer = answer.display();
                        broken
                            .push(format!("{machine}: {answer} {fault:?} made {name} {value:?}, which was {before:?}"));
                    }
                }
                cases += 1;
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(cases > 200, "{cases}");
}

/// Returns the readings that controls judge, by name; `None` is unknown.
fn readings(facts: &[Fact]) -> BTreeMap<String, Option<String>> {
    fn shown<T: std::fmt::Debug>(reading: &Reading<T>) -> Option<String> {
        reading.known().map(|value| format!("{value:?}"))
    }
    let mut readings = BTreeMap::new();
    for fact in facts {
        match fact {
            Fact::DiskEncryption(Reading::Known(disk)) => {
                for volume in &disk.volumes {
                    let name = format!("encrypted {}", volume.mount_point);
                    readings.insert(name, shown(&volume.encrypted));
                }
                for area in &disk.swap_areas {
                    // A list that could not be read is one area of which nothing is known.
                    readings.insert(format!("swap {}", area.name), shown(&area.encrypted));
                }
            }
            Fact::Firewall(Reading::Known(firewall)) => {
                readings.insert("inbound_ipv4".to_owned(), shown(&firewall.inbound_ipv4));
                readings.insert("inbound_ipv6".to_owned(), shown(&firewall.inbound_ipv6));
            }
            Fact::PatchLevel(Reading::Known(patch)) => {
                // Of a list that is known to be all, what is on it.
                let pending = patch.pending_complete.known().map(|_| format!("{:?}", names(patch)));
                readings.insert("pending".to_owned(), pending);
                readings.insert("reboot_required".to_owned(), shown(&patch.reboot_required));
                readings.insert("automatic".to_owned(), shown(&patch.automatic_updates.enabled));
                readings.insert("searched".to_owned(), shown(&patch.security_metadata_time));
            }
            Fact::System(Reading::Known(system)) => {
                readings.insert("class".to_owned(), shown(&system.host_class));
                readings.insert("os_version".to_owned(), shown(&system.os_version));
                readings.insert("secure_boot".to_owned(), shown(&system.secure_boot));
                let complete = system.execution_controls_complete.known();
                readings.insert("controls".to_owned(), complete.map(|_| format!("{:?}", system.execution_controls)));
            }
            _ => {}
        }
    }
    readings
}

fn names(patch: &muster_proto::fact::PatchLevel) -> Vec<(&str, &str)> {
    patch.pending.iter().map(|update| (update.package.as_str(), update.candidate_version.as_str())).collect()
}

/// Returns the answers and files of a machine, as paths below its folder.
fn answers(case: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for part in ["answers", "files"] {
        for entry in walkdir::WalkDir::new(case.join(part)).sort_by_file_name().into_iter().flatten() {
            if entry.file_type().is_file() {
                found.push(entry.path().strip_prefix(case).unwrap().to_owned());
            }
        }
    }
    found
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from).into_iter().flatten() {
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn with_fault(folder: &Path, answer: &Path, fault: Fault) -> Recorded {
    let file = folder.join(answer);
    let bytes = fs::read(&file).unwrap();
    let mut host = Recorded::at(folder).unwrap();
    assert_ne!(host.os_family(), muster_proto::fact::OsFamily::Linux);
    let (part, rest) = answer.to_str().unwrap().split_once('/').unwrap();
    let asked = if part == "files" { format!("read /{rest}") } else { rest.to_owned() };
    let failure = |errno, kind: &str| Failure { errno, kind: kind.to_owned(), text: String::new() };
    match fault {
        Fault::Error(kind) => drop(host.index_mut().errors.insert(asked, failure(None, kind))),
        Fault::Forbidden => drop(host.index_mut().errors.insert(asked, failure(Some(13), ""))),
        Fault::Empty => fs::write(file, b"").unwrap(),
        Fault::Cut => fs::write(file, &bytes[..bytes.len() / 2]).unwrap(),
        Fault::Garbled => fs::write(file, b"\xffFehler: Zugriff verweigert.\0\r\n").unwrap(),
        // 100 MB, of which no block is on the disk.
        Fault::Huge => fs::File::options().write(true).open(file).unwrap().set_len(100_000_000).unwrap(),
    }
    host
}

fn look_at(probe: &dyn Probe, host: &Recorded) -> Vec<Fact> {
    let memory = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    let (now, memory, watch) = (host.captured(), memory.path(), WatchState::Live);
    probe.look(&Look { host, now, settings: &settings, memory, watch, run: 7, files: Default::default() })
}

#[test]
fn an_output_at_its_bound_is_read_and_beyond_it_is_not() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/system/made-up-windows-laptop");
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&case, copy.path());
    let file = copy.path().join("answers/tool.powershell-system");
    let mut bytes = fs::read(&file).unwrap();
    bytes.resize(TOOL_OUTPUT_BYTES, b' ');
    let run = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let host = Recorded::at(copy.path()).unwrap();
        host.run(crate::host::Tool::PowerShell(crate::host::Script::System), &[]).map(|output| output.len())
    };
    assert_eq!(run(&bytes).unwrap(), TOOL_OUTPUT_BYTES);
    bytes.push(b' ');
    assert_eq!(run(&bytes).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
}
