//! Looks over the bytes of a fact before anything is allocated for them.
//!
//! A decoder makes a struct of a few hundred bytes of a list's item of two, so that its memory would be bounded by nothing
//! but what a sender likes to claim. This walk allocates nothing, counts the items of every list and refuses what no
//! fact of the contract has: too many items, a message twice, a group, a number in more bytes than it needs.

use super::Error;
use crate::limits::{self, BYTES_PER_ITEM, LIST_ITEMS};

/// A message that has lists, or has a message that has.
struct Message {
    /// Its lists and its messages on the way to lists.
    fields: &'static [Field],
}

/// A field of a [`Message`].
struct Field {
    number: u32,
    /// For errors.
    name: &'static str,
    /// How often it may occur in one message of its kind.
    most: usize,
    message: &'static Message,
}

const fn one(number: u32, name: &'static str, message: &'static Message) -> Field {
    Field { number, name, most: 1, message }
}

const fn list(number: u32, name: &'static str, message: &'static Message) -> Field {
    Field { number, name, most: LIST_ITEMS, message }
}

const fn short_list(number: u32, name: &'static str, most: usize) -> Field {
    Field { number, name, most, message: &LEAF }
}

/// Nothing below it is counted: a text, or a message without lists.
static LEAF: Message = Message { fields: &[] };

static FACT: Message = Message {
    fields: &[
        one(1, "system", &Message { fields: &[one(1, "system", &SYSTEM)] }),
        one(2, "disk_encryption", &Message { fields: &[one(1, "disk_encryption", &DISK_ENCRYPTION)] }),
        one(3, "patch_level", &Message { fields: &[one(1, "patch_level", &PATCH_LEVEL)] }),
        one(4, "software", &Message { fields: &[one(1, "software", &SOFTWARE)] }),
        one(5, "firewall", &Message { fields: &[one(1, "firewall", &FIREWALL)] }),
        one(6, "listeners", &Message { fields: &[one(1, "listeners", &LISTENERS)] }),
        one(7, "file_integrity", &Message { fields: &[one(1, "file_integrity", &FILE_INTEGRITY)] }),
        one(8, "agent", &LEAF),
        one(9, "accounts", &Message { fields: &[one(1, "accounts", &ACCOUNTS)] }),
        one(10, "remote_access", &Message { fields: &[one(1, "remote_access", &REMOTE_ACCESS)] }),
        one(11, "screen_lock", &Message { fields: &[one(1, "screen_lock", &SCREEN_LOCK)] }),
        one(12, "removable_media", &Message { fields: &[one(1, "removable_media", &REMOVABLE_MEDIA)] }),
        one(13, "sensors", &Message { fields: &[one(1, "sensors", &SENSORS)] }),
        one(14, "clock", &Message { fields: &[one(1, "clock", &CLOCK)] }),
        one(15, "logging", &Message { fields: &[one(1, "logging", &LOGGING)] }),
        one(16, "boot", &LEAF),
        one(17, "capacity", &Message { fields: &[one(1, "capacity", &CAPACITY)] }),
        one(18, "backup", &Message { fields: &[one(1, "backup", &BACKUP)] }),
    ],
};
static SYSTEM: Message = Message { fields: &[list(16, "System.execution_controls", &LEAF)] };
static DISK_ENCRYPTION: Message = Message {
    fields: &[
        list(1, "DiskEncryption.volumes", &VOLUME),
        list(2, "DiskEncryption.swap_areas", &Message { fields: &[list(3, "SwapArea.layers", &LAYER)] }),
    ],
};
static VOLUME: Message = Message {
    fields: &[
        list(5, "Volume.layers", &LAYER),
        list(9, "Volume.key_protectors", &LEAF),
        list(10, "Volume.encrypted_folders", &LEAF),
    ],
};
static LAYER: Message = Message {
    fields: &[
        list(7, "Layer.below", &LEAF),
        one(8, "Layer.key_slots", &Message { fields: &[one(1, "Layer.key_slots", &KEY_SLOTS)] }),
    ],
};
static KEY_SLOTS: Message = Message { fields: &[list(1, "KeySlots.slots", &LEAF)] };
static PATCH_LEVEL: Message = Message {
    fields: &[
        list(2, "PatchLevel.pending", &LEAF),
        list(4, "PatchLevel.sources", &LEAF),
        list(11, "PatchLevel.reboot_packages", &LEAF),
        list(14, "PatchLevel.live_patches", &LEAF),
    ],
};
static SOFTWARE: Message = Message { fields: &[list(1, "Software.packages", &LEAF)] };
static FIREWALL: Message = Message {
    fields: &[
        list(3, "Firewall.input_chains", &LEAF),
        list(4, "Firewall.managers", &LEAF),
        list(6, "Firewall.profiles", &LEAF),
    ],
};
static LISTENERS: Message = Message { fields: &[list(1, "Listeners.listeners", &LEAF)] };
static FILE_INTEGRITY: Message = Message {
    fields: &[
        list(1, "FileIntegrity.paths", &LEAF),
        short_list(4, "FileIntegrity.unreadable", limits::UNREADABLE_PATHS),
        Field { number: 6, name: "FileIntegrity.changes", most: limits::FILE_CHANGES, message: &FILE_CHANGE },
        short_list(10, "FileIntegrity.sets", limits::WATCH_SETS),
        short_list(11, "FileIntegrity.explained", limits::EXPLAINED_CHANGES),
        short_list(15, "FileIntegrity.scan_only", limits::UNREADABLE_PATHS),
    ],
};
static FILE_CHANGE: Message = Message {
    fields: &[
        one(3, "FileChange.before", &FILE_STATE),
        one(4, "FileChange.after", &FILE_STATE),
        short_list(10, "FileChange.actors", limits::ACTORS),
    ],
};
static FILE_STATE: Message =
    Message { fields: &[short_list(12, "FileState.extended_attributes", limits::EXTENDED_ATTRIBUTES)] };
static ACCOUNTS: Message = Message {
    fields: &[
        list(1, "Accounts.accounts", &LEAF),
        list(2, "Accounts.administrators", &LEAF),
        list(4, "Accounts.directories", &LEAF),
        one(5, "Accounts.policy", &Message { fields: &[list(6, "PasswordPolicy.delegates", &LEAF)] }),
    ],
};
static REMOTE_ACCESS: Message = Message {
    fields: &[
        one(
            1,
            "RemoteAccess.ssh",
            &Message {
                fields: &[
                    list(9, "SshServer.ports", &LEAF),
                    list(10, "SshServer.listen_addresses", &LEAF),
                    list(11, "SshServer.loosened_by", &LEAF),
                ],
            },
        ),
        list(2, "RemoteAccess.programs", &LEAF),
    ],
};
static SCREEN_LOCK: Message = Message { fields: &[list(2, "ScreenLock.users", &LEAF)] };
static REMOVABLE_MEDIA: Message = Message { fields: &[list(2, "RemovableMedia.mechanisms", &LEAF)] };
static SENSORS: Message = Message { fields: &[list(1, "Sensors.sensors", &LEAF)] };
static CLOCK: Message = Message { fields: &[list(5, "Clock.services", &LEAF)] };
static LOGGING: Message =
    Message { fields: &[list(4, "Logging.forwarders", &Message { fields: &[list(4, "Forwarder.ways", &LEAF)] })] };
static CAPACITY: Message = Message { fields: &[list(1, "Capacity.volumes", &LEAF)] };
static BACKUP: Message = Message { fields: &[list(1, "Backup.clients", &LEAF), list(4, "Backup.stamps", &LEAF)] };

/// Fields of one message that are counted, at most.
const FIELDS: usize = 32;

/// Checks that `bytes` are the outline of one fact that this version knows, with plausible lists.
pub(super) fn check(bytes: &[u8]) -> Result<(), Error> {
    let number = subject(bytes)?;
    if FACT.fields.iter().all(|field| field.number != number) {
        return Err(Error::NewerSubject { number });
    }
    let mut items = LIST_ITEMS.min(bytes.len() / BYTES_PER_ITEM);
    walk(bytes, &FACT, &mut items)
}

/// Returns the number of the subject that the fact in `bytes` is about; a fact has one.
fn subject(bytes: &[u8]) -> Result<u32, Error> {
    let mut rest = bytes;
    match (take(&mut rest)?, take(&mut rest)?) {
        (Some(Taken { number, content: Some(_) }), None) => Ok(number),
        (Some(Taken { content: None, .. }), None) => Err(Error::Encoding),
        (None, _) | (Some(_), Some(_)) => Err(Error::Field("fact")),
    }
}

/// Walks one message. `items` is how many more items the lists of the whole fact may have.
fn walk(mut bytes: &[u8], message: &Message, items: &mut usize) -> Result<(), Error> {
    let mut counts = [0_usize; FIELDS];
    while let Some(Taken { number, content }) = take(&mut bytes)? {
        let Some(at) = message.fields.iter().position(|field| field.number == number) else { continue };
        let field = &message.fields[at];
        // Every field of the table is a message or a text; anything else is no encoding of it.
        let content = content.ok_or(Error::Encoding)?;
        counts[at] += 1;
        if counts[at] > field.most {
            return Err(Error::Field(field.name));
        }
        if field.most > 1 {
            *items = items.checked_sub(1).ok_or(Error::Field(field.name))?;
        }
        if !field.message.fields.is_empty() {
            walk(content, field.message, items)?;
        }
    }
    Ok(())
}

/// A field of an encoded message.
struct Taken<'a> {
    number: u32,
    /// `None` when it is not length-delimited.
    content: Option<&'a [u8]>,
}

/// Takes the next field off the front of `bytes`. `None` at the end.
fn take<'a>(bytes: &mut &'a [u8]) -> Result<Option<Taken<'a>>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let key = u32::try_from(varint(bytes)?).map_err(|_| Error::Encoding)?;
    let number = key >> 3;
    if number == 0 {
        return Err(Error::Encoding);
    }
    // Wire types of the protobuf encoding; 3 and 4 are groups, which proto3 does not have.
    let content = match key & 7 {
        0 => {
            varint(bytes)?;
            None
        }
        1 => skip(bytes, 8)?,
        2 => {
            let len = usize::try_from(varint(bytes)?).map_err(|_| Error::Encoding)?;
            let (content, rest) = bytes.split_at_checked(len).ok_or(Error::Encoding)?;
            *bytes = rest;
            Some(content)
        }
        5 => skip(bytes, 4)?,
        _ => return Err(Error::Encoding),
    };
    Ok(Some(Taken { number, content }))
}

fn skip<'a>(bytes: &mut &[u8], len: usize) -> Result<Option<&'a [u8]>, Error> {
    *bytes = bytes.get(len..).ok_or(Error::Encoding)?;
    Ok(None)
}

/// Takes a number off the front of `bytes`. In more bytes than it needs it is none: an encoded fact has one form for each.
fn varint(bytes: &mut &[u8]) -> Result<u64, Error> {
    let before = bytes.len();
    let number = prost::encoding::decode_varint(bytes).map_err(|_| Error::Encoding)?;
    let is_shortest = before - bytes.len() == prost::encoding::encoded_len_varint(number);
    is_shortest.then_some(number).ok_or(Error::Encoding)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;
    use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Label};

    use super::*;
    use crate::fact::{Fact, sample};

    /// Returns a field with `content`, length-delimited.
    fn field(number: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(u64::from(number << 3 | 2), &mut bytes);
        prost::encoding::encode_varint(content.len() as u64, &mut bytes);
        bytes.extend_from_slice(content);
        bytes
    }

    /// Returns `count` empty items of the list `number`.
    fn empty_items(number: u32, count: usize) -> Vec<u8> {
        field(number, &[]).repeat(count)
    }

    #[test]
    fn a_list_of_empty_items_is_refused_before_anything_is_allocated_for_it() {
        let count = (limits::FACT_BYTES - 40) / 2;
        let changes = field(7, &field(1, &empty_items(6, count)));
        let pending = field(3, &field(1, &empty_items(2, count)));
        let layers = field(2, &field(1, &field(1, &empty_items(5, count))));
        let cases = [(changes, "FileIntegrity.changes"), (pending, "PatchLevel.pending"), (layers, "Volume.layers")];
        for (bytes, name) in cases {
            assert!((1_500_000..=limits::FACT_BYTES).contains(&bytes.len()), "{name}");
            assert_eq!(check(&bytes), Err(Error::Field(name)));
            assert_eq!(Fact::decode(&bytes), Err(Error::Field(name)));
        }
    }

    #[test]
    fn all_lists_of_a_fact_together_have_a_bound() {
        // Each volume is far inside the bound of its own list, and the bytes are many enough for their items.
        let layer = field(5, &field(1, b"disk"));
        let volumes = |count: usize| field(2, &field(1, &field(1, &layer.repeat(999)).repeat(count)));
        assert_eq!(check(&volumes(100)), Ok(()));
        assert_eq!(check(&volumes(101)), Err(Error::Field("DiskEncryption.volumes")));
    }

    #[test]
    fn items_that_are_few_for_their_bytes_pass() {
        let packages = |count| field(3, &field(1, &field(11, b"vi").repeat(count)));
        assert_eq!(check(&packages(LIST_ITEMS)), Ok(()));
        assert_eq!(check(&packages(LIST_ITEMS + 1)), Err(Error::Field("PatchLevel.reboot_packages")));
        assert_eq!(
            check(&field(3, &field(1, &empty_items(11, 1000)))),
            Err(Error::Field("PatchLevel.reboot_packages"))
        );
    }

    #[test]
    fn a_fact_is_about_one_subject_and_says_it_once() {
        let [software, system] = [field(4, &field(2, &[8, 1])), field(1, &field(2, &[8, 1]))];
        assert_eq!(check(&software), Ok(()));
        assert_eq!(check(&[software.clone(), system].concat()), Err(Error::Field("fact")));
        assert_eq!(check(&software.repeat(2)), Err(Error::Field("fact")));
        let twice = field(4, &field(1, &field(1, b"vim")).repeat(2));
        assert_eq!(check(&twice), Err(Error::Field("software")));
    }

    #[test]
    fn a_newer_subject_is_told_from_garbage() {
        let newer = field(99, &field(1, b"x"));
        let error = Fact::decode(&newer).unwrap_err();
        assert_eq!(error, Error::NewerSubject { number: 99 });
        assert!(error.is_newer());
        let long_tag = b"\x9a\x86\x00\x00".as_slice();
        for garbage in [
            b"\x98\x06\x01".as_slice(),
            b"\x9b\x06\x9c\x06",
            b"\x9a\x06\x05x",
            b"\x9a\x06\x80\x00",
            b"\x02\x00",
            b"\xff",
            b"\x49\x00",
            long_tag,
        ] {
            assert_eq!(Fact::decode(garbage), Err(Error::Encoding), "{garbage:?}");
        }
    }

    #[test]
    fn a_word_of_a_newer_version_has_an_error_of_its_own() {
        for fact in sample::facts() {
            assert_eq!(check(&fact.encode()), Ok(()));
        }
        // A volume of a kind that this version does not know.
        let newer = field(2, &field(1, &field(1, &[field(4, b"zfs_dataset"), field(6, &[8, 1])].concat())));
        let error = Fact::decode(&newer).unwrap_err();
        assert_eq!(error, Error::NewerWord("Volume.kind"));
        assert!(error.is_newer());
    }

    #[test]
    fn the_table_has_every_list_of_the_contract() {
        let set = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        let messages: BTreeMap<String, DescriptorProto> = set
            .file
            .into_iter()
            .flat_map(|file| file.message_type)
            .map(|message| (format!(".muster.v1.{}", message.name()), message))
            .collect();
        let (mut in_contract, mut in_table) = (Vec::new(), Vec::new());
        lists_of_contract(&messages, ".muster.v1.Fact", &mut Vec::new(), &mut in_contract);
        lists_of_table(&FACT, &mut Vec::new(), &mut in_table);
        in_contract.sort();
        in_table.sort();
        assert_eq!(in_table, in_contract);
        assert!(in_contract.len() > 10, "{in_contract:?}");
    }

    fn lists_of_contract(
        messages: &BTreeMap<String, DescriptorProto>,
        name: &str,
        path: &mut Vec<u32>,
        found: &mut Vec<Vec<u32>>,
    ) {
        let Some(message) = messages.get(name) else { return };
        for field in &message.field {
            path.push(field.number().try_into().unwrap());
            if field.label() == Label::Repeated {
                found.push(path.clone());
            }
            lists_of_contract(messages, field.type_name(), path, found);
            path.pop();
        }
    }

    fn lists_of_table(message: &Message, path: &mut Vec<u32>, found: &mut Vec<Vec<u32>>) {
        assert!(message.fields.len() <= FIELDS);
        for field in message.fields {
            path.push(field.number);
            if field.most > 1 {
                found.push(path.clone());
            }
            lists_of_table(field.message, path, found);
            path.pop();
        }
    }
}
