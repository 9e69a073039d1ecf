//! What the contract asks of a message beyond the range of each field.

use crate::{
    fact::{
        Agent, Baseline, ChangeKind, Explanation, ExplanationSource, FileChange, FileIntegrity, FileState, FileType,
        Reading, Sensor, Text, Volume, VolumeSpace, WatchSet,
    },
    id::Digest,
    limits,
};

use super::Error;

pub(super) fn holds(claim: bool, field: &'static str) -> Result<(), Error> {
    if claim { Ok(()) } else { Err(Error::Field(field)) }
}

/// Returns what a text means that is none of its vocabulary: every word of every version is 1 to 32 of a-z, 0-9 and `_`.
pub(super) fn no_word(text: &str, field: &'static str) -> Error {
    let is_word = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if (1..=limits::WORD_BYTES).contains(&text.len()) && text.bytes().all(is_word) {
        Error::NewerWord(field)
    } else {
        Error::Field(field)
    }
}

pub(super) fn digest(text: &Text, field: &'static str) -> Result<(), Error> {
    holds(text.as_str().parse::<Digest>().is_ok(), field)
}

pub(super) fn read_digest(reading: &Reading<Text>, field: &'static str) -> Result<(), Error> {
    reading.known().map_or(Ok(()), |text| digest(text, field))
}

pub(super) fn agent(agent: &Agent) -> Result<(), Error> {
    digest(&agent.settings_digest, "Agent.settings_digest")?;
    read_digest(&agent.program_digest, "Agent.program_digest")
}

pub(super) fn volume(volume: &Volume) -> Result<(), Error> {
    let percent = volume.encrypted_percent.as_ref().and_then(Reading::known);
    holds(percent.is_none_or(|&percent| percent <= 100), "Volume.encrypted_percent")
}

pub(super) fn file_integrity(state: &FileIntegrity) -> Result<(), Error> {
    let (unreadable, changes) = (state.unreadable.len() as u64, state.changes.len() as u64);
    holds(unreadable <= limits::UNREADABLE_PATHS as u64, "FileIntegrity.unreadable")?;
    holds(unreadable <= state.unreadable_total, "FileIntegrity.unreadable_total")?;
    holds(changes <= limits::FILE_CHANGES as u64, "FileIntegrity.changes")?;
    holds(changes <= state.changes_total, "FileIntegrity.changes_total")?;
    let (explained, scan_only) = (state.explained.len() as u64, state.scan_only.len() as u64);
    holds(explained <= state.explained_groups_total, "FileIntegrity.explained_groups_total")?;
    holds(scan_only <= state.scan_only_total, "FileIntegrity.scan_only_total")?;
    if state.state_digest.is_empty() { Ok(()) } else { digest(&state.state_digest, "FileIntegrity.state_digest") }
}

pub(super) fn watch_set(set: &WatchSet) -> Result<(), Error> {
    holds(is_set_name(set.name.as_str()), "WatchSet.name")?;
    digest(&set.digest, "WatchSet.digest")
}

/// Returns whether `name` may name a watch set.
pub fn is_set_name(name: &str) -> bool {
    let is_letter = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    (1..=64).contains(&name.len()) && name.bytes().all(is_letter)
}

pub(super) fn explanation(explanation: &Explanation) -> Result<(), Error> {
    let has_package = !explanation.package.is_empty() && !explanation.version.is_empty();
    holds(has_package == (explanation.source != ExplanationSource::Generated), "Explanation.package")
}

pub(super) fn baseline(baseline: &Baseline) -> Result<(), Error> {
    let id = baseline.id.as_str();
    let is_hex = id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    holds(is_hex, "Baseline.id")?;
    digest(&baseline.digest, "Baseline.digest")
}

pub(super) fn file_change(change: &FileChange) -> Result<(), Error> {
    holds(change.encode().len() <= limits::FILE_CHANGE_BYTES, "FileChange")?;
    let (before, after) = (change.before.is_some(), change.after.is_some());
    match change.kind {
        ChangeKind::Created => holds(!before && after, "FileChange.before"),
        ChangeKind::Deleted => holds(before && !after, "FileChange.after"),
        ChangeKind::Content | ChangeKind::Metadata | ChangeKind::Type => holds(before && after, "FileChange.before"),
    }
}

pub(super) fn file_state(state: &FileState) -> Result<(), Error> {
    holds(state.mode <= 0o7777, "FileState.mode")?;
    let md5 = state.md5.as_str();
    let is_md5 = md5.len() == 32 && md5.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    holds(md5.is_empty() || is_md5, "FileState.md5")?;
    match state.r#type {
        // Where only metadata is watched there is none.
        FileType::File | FileType::Link if state.sha256.is_empty() => Ok(()),
        FileType::File | FileType::Link => digest(&state.sha256, "FileState.sha256"),
        _ => holds(state.sha256.is_empty(), "FileState.sha256"),
    }
}

pub(super) fn sensor(sensor: &Sensor) -> Result<(), Error> {
    word(&sensor.name, "Sensor.name")?;
    holds(sensor.uses_definitions == sensor.definitions_time.is_some(), "Sensor.definitions_time")
}

pub(super) fn volume_space(space: &VolumeSpace) -> Result<(), Error> {
    let is_share = |reading: &Reading<u64>| reading.known().is_none_or(|percent| *percent <= 100);
    holds(is_share(&space.used_percent), "VolumeSpace.used_percent")?;
    holds(is_share(&space.inodes_percent), "VolumeSpace.inodes_percent")
}

/// Checks a name that is a word of no vocabulary.
pub(super) fn word(text: &Text, field: &'static str) -> Result<(), Error> {
    holds(no_word(text.as_str(), field) == Error::NewerWord(field), field)
}

#[cfg(test)]
mod tests {
    use crate::fact::{ExtendedAttribute, Fact, Layer, LayerKind, Listener, Transport, sample};

    use super::*;

    /// Returns what decoding says of `fact`, which the domain types can hold and the contract refuses.
    fn refusal(fact: &Fact) -> Error {
        Fact::decode(&fact.encode()).unwrap_err()
    }

    fn file_integrity_with(change: impl FnOnce(&mut FileIntegrity)) -> Fact {
        let mut state = sample::file_integrity();
        change(&mut state);
        Fact::FileIntegrity(Reading::Known(state))
    }

    #[test]
    fn what_the_contract_forbids_is_refused_with_its_field() {
        let cases = [
            (file_integrity_with(|f| f.changes_total = 0), "FileIntegrity.changes_total"),
            (file_integrity_with(|f| f.unreadable_total = 0), "FileIntegrity.unreadable_total"),
            (
                file_integrity_with(|f| {
                    f.changes = vec![f.changes[0].clone(); limits::FILE_CHANGES + 1];
                    f.changes_total = u64::MAX;
                }),
                "FileIntegrity.changes",
            ),
            (file_integrity_with(|f| f.baseline.id = "ABC".into()), "Baseline.id"),
            (file_integrity_with(|f| f.changes[0].before = None), "FileChange.before"),
            (
                file_integrity_with(|f| {
                    if let Some(after) = &mut f.changes[0].after {
                        after.mode = 0o10000;
                    }
                }),
                "FileState.mode",
            ),
            (
                file_integrity_with(|f| {
                    if let Some(after) = &mut f.changes[0].after {
                        after.sha256 = Text::new("00");
                    }
                }),
                "FileState.sha256",
            ),
        ];
        for (fact, field) in cases {
            assert_eq!(refusal(&fact), Error::Field(field));
        }
    }

    #[test]
    fn a_file_change_is_taken_up_to_its_limit_and_refused_beyond_it() {
        let attribute = |length: usize| ExtendedAttribute {
            name: "security.selinux".into(),
            sha256: Text::new(&"00".repeat(32)),
            meaning: Text::new(&"x".repeat(length)),
        };
        let with_last = |length: usize| {
            let mut change = sample::file_integrity().changes.remove(0);
            if let Some(after) = &mut change.after {
                after.extended_attributes = [limits::TEXT_BYTES; 15].map(attribute).into();
                after.extended_attributes.push(attribute(length));
            }
            change
        };
        let length = 1000 + limits::FILE_CHANGE_BYTES - with_last(1000).encode().len();
        let (most, more) = (with_last(length), with_last(length + 1));
        assert_eq!(most.encode().len(), limits::FILE_CHANGE_BYTES);
        let fact = |change: &FileChange| file_integrity_with(|files| files.changes[0] = change.clone());
        assert!(Fact::decode(&fact(&most).encode()).is_ok());
        assert_eq!(refusal(&fact(&more)), Error::Field("FileChange"));
    }

    #[test]
    fn a_port_of_zero_is_refused() {
        let program = Reading::Known(Text::from("sshd"));
        let listener = Listener { protocol: Transport::Tcp, address: "::".into(), port: 0, program, reachable: None };
        let fact = Fact::Listeners(Reading::Known(crate::fact::Listeners { listeners: vec![listener] }));
        assert_eq!(refusal(&fact), Error::Field("Listener.port"));
    }

    #[test]
    fn a_text_outside_its_vocabulary_is_newer_only_if_it_is_a_word() {
        for word in ["zfs_dataset", "x", "0", &"a".repeat(32)] {
            assert_eq!(no_word(word, "Volume.kind"), Error::NewerWord("Volume.kind"), "{word}");
        }
        for text in ["", "Fixed", "fixed disk", "fixed\0", "\u{e9}", &"a".repeat(33)] {
            assert_eq!(no_word(text, "Volume.kind"), Error::Field("Volume.kind"), "{text}");
        }
    }

    #[test]
    fn more_than_all_of_a_volume_is_not_encrypted() {
        let mut state = sample::disk_encryption();
        state.volumes[0].encrypted_percent = Some(Reading::Known(101));
        assert_eq!(refusal(&Fact::DiskEncryption(Reading::Known(state))), Error::Field("Volume.encrypted_percent"));
    }

    #[test]
    fn a_crypt_layer_without_its_format_is_refused() {
        let mut state = sample::disk_encryption();
        let layer = Layer {
            device: "dm-9".into(),
            kind: LayerKind::Crypt,
            name: Text::default(),
            crypt: None,
            below: Vec::new(),
        };
        state.volumes[0].layers = vec![layer];
        assert_eq!(refusal(&Fact::DiskEncryption(Reading::Known(state))), Error::Field("Layer.format"));
    }
}
