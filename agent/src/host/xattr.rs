//! What extended attributes say of who may do what: capabilities, access control lists, labels.
//!
//! Values are foreign bytes, bounded by the kernel to 64 KiB. One that does not follow its format has no meaning, and its digest
//! alone tells of it.

use std::fmt::Write as _;

use muster_proto::{
    fact::{ExtendedAttribute, PathText, Text},
    limits,
};
use sha2::{Digest as _, Sha256};

/// Bytes of the names, digests and meanings of one entry's attributes, at most: an entry with more is unreadable. It is room for
/// two access lists at their longest, and keeps a change of a file within what a fact takes of one.
pub const LIST_BYTES: usize = 10 * 1024;
/// Names of capabilities, by number: linux/capability.h.
const CAPABILITIES: [&str; 41] = [
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];
/// Bits of a set of capabilities of revision 2 and 3.
const CAPABILITY_BITS: usize = 64;

/// Flags of one capability, in the bits that [`FLAGS`] names.
type Flags = usize;
const EFFECTIVE: Flags = 1;
const PERMITTED: Flags = 1 << 1;
const INHERITABLE: Flags = 1 << 2;
/// Letters of the flags, in the order of cap_to_text(3).
const FLAGS: [(Flags, char); 3] = [(EFFECTIVE, 'e'), (INHERITABLE, 'i'), (PERMITTED, 'p')];

/// Returns whether an entry may have the `attributes`: no more, and no longer ones, than are recorded.
pub fn is_recorded(attributes: &[ExtendedAttribute]) -> bool {
    attributes.len() <= limits::EXTENDED_ATTRIBUTES && attributes.iter().map(bytes).sum::<usize>() <= LIST_BYTES
}

/// Returns how many bytes the texts of an attribute take.
pub fn bytes(attribute: &ExtendedAttribute) -> usize {
    attribute.name.as_str().len() + attribute.sha256.as_str().len() + attribute.meaning.as_str().len()
}

/// Returns the error of an entry that may not have its attributes.
pub fn too_many() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::FileTooLarge, "more or longer extended attributes than are recorded")
}

/// Returns the attribute of `name` and `value`.
pub fn attribute(name: &[u8], value: &[u8]) -> ExtendedAttribute {
    ExtendedAttribute {
        // As exact as a path, so that two names are never one.
        name: Text::new(PathText::from_bytes(name).as_str()),
        sha256: Text::new(&hex::encode(Sha256::digest(value))),
        meaning: meaning(name, value),
    }
}

fn meaning(name: &[u8], value: &[u8]) -> Text {
    let meaning = match name {
        b"security.capability" => capabilities(value),
        b"system.posix_acl_access" => access_list(value, ""),
        b"system.posix_acl_default" => access_list(value, "default:"),
        b"security.selinux" => return Text::from_bytes(value.strip_suffix(b"\0").unwrap_or(value)),
        _ => None,
    };
    meaning.map_or_else(Text::default, |meaning| Text::new(&meaning))
}

/// Returns what getcap(8) says of `value`: a `struct vfs_cap_data` of revision 1 or 2, or a `vfs_ns_cap_data` (revision 3), as in
/// linux/capability.h. The id of a namespace's root is added as `getcap -n` does.
fn capabilities(value: &[u8]) -> Option<String> {
    let (words, tail) = value.as_chunks::<4>();
    let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
    let magic = words.next()?;
    let (sets, root) = match (magic >> 24, words.len(), tail.len()) {
        (1, 2, 0) => (1, false),
        (2, 4, 0) => (2, false),
        (3, 5, 0) => (2, true),
        _ => return None,
    };
    let (mut permitted, mut inheritable) = (0u64, 0u64);
    for set in 0..sets {
        permitted |= u64::from(words.next()?) << (32 * set);
        inheritable |= u64::from(words.next()?) << (32 * set);
    }
    let is_effective = magic & 1 != 0;
    let flags: [Flags; CAPABILITY_BITS] = std::array::from_fn(|number| {
        let has = |set: u64| set >> number & 1 != 0;
        let mut flags = if has(permitted) { PERMITTED } else { 0 };
        flags |= if has(inheritable) { INHERITABLE } else { 0 };
        flags | if is_effective && flags != 0 { EFFECTIVE } else { 0 }
    });
    let mut text = capability_text(&flags);
    if root {
        let root = words.next()?;
        let _ = write!(text, " [rootid={root}]");
    }
    Some(text)
}

/// Returns the text of cap_to_text(3): what most of the known capabilities have, and then by how much the others differ from it.
fn capability_text(flags: &[Flags; CAPABILITY_BITS]) -> String {
    let count = |of: Flags| flags[..CAPABILITIES.len()].iter().filter(|flags| **flags == of).count();
    // Of combinations that as many have, the lowest.
    let most = (0..8).rev().max_by_key(|of| (count(*of), 8 - of)).unwrap_or(0);
    let group = |of: Flags, numbers: std::ops::Range<usize>| -> Vec<String> {
        let those = numbers.filter(|number| flags[*number] == of);
        those.map(|number| CAPABILITIES.get(number).map_or_else(|| number.to_string(), |name| (*name).into())).collect()
    };
    let mut parts = Vec::new();
    for of in (0..8).rev().filter(|of| *of != most) {
        let names = group(of, 0..CAPABILITIES.len());
        if names.is_empty() {
            continue;
        }
        let mut part = names.join(",");
        if of & !most != 0 {
            // `= a+p` is written as `a=p`.
            part.push(if most == 0 && parts.is_empty() { '=' } else { '+' });
            part.push_str(&letters(of & !most));
        }
        if !of & most != 0 {
            part.push('-');
            part.push_str(&letters(!of & most));
        }
        parts.push(part);
    }
    if most != 0 || parts.is_empty() {
        parts.insert(0, format!("={}", letters(most)));
    }
    for of in (1..8).rev() {
        let numbers = group(of, CAPABILITIES.len()..CAPABILITY_BITS);
        if !numbers.is_empty() {
            parts.push(format!("{}+{}", numbers.join(","), letters(of)));
        }
    }
    parts.join(" ")
}

fn letters(flags: Flags) -> String {
    FLAGS.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, letter)| letter).collect()
}

/// Returns an access control list on one line, each entry as getfacl(1) with `--numeric` writes it, behind `prefix`.
///
/// `value` is a `struct posix_acl_xattr_header` and its entries, as in linux/posix_acl_xattr.h.
fn access_list(value: &[u8], prefix: &str) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    let (entries, tail) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != 2 || !tail.is_empty() {
        return None;
    }
    let mut text = String::new();
    for [tag, tag_high, permissions, permissions_high, id @ ..] in entries {
        let id = u32::from_le_bytes(*id);
        let id = || format!("{id}");
        let (kind, id) = match u16::from_le_bytes([*tag, *tag_high]) {
            0x01 => ("user", String::new()),
            0x02 => ("user", id()),
            0x04 => ("group", String::new()),
            0x08 => ("group", id()),
            0x10 => ("mask", String::new()),
            0x20 => ("other", String::new()),
            _ => return None,
        };
        let permissions = u16::from_le_bytes([*permissions, *permissions_high]);
        let [read, write, execute] =
            [(4, 'r'), (2, 'w'), (1, 'x')].map(|(bit, letter)| if permissions & bit != 0 { letter } else { '-' });
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{prefix}{kind}:{id}:{read}{write}{execute}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meaning_of(name: &str, value: &str) -> String {
        meaning(name.as_bytes(), &hex::decode(value).unwrap()).to_string()
    }

    /// Values and what getcap of libcap 2.66 printed of a file that had them.
    #[test]
    fn capabilities_read_as_getcap_prints_them() {
        let high = "cap_mac_override,cap_mac_admin,cap_syslog,cap_wake_alarm,cap_block_suspend,cap_audit_read,\
                    cap_perfmon,cap_bpf";
        for (value, expected) in [
            ("0100000200300000000000000000000000000000", "cap_net_admin,cap_net_raw=ep".to_owned()),
            ("0100000200000000010000000000000000000000", "cap_chown=ei".to_owned()),
            ("01000002ffffffff00000000ff01000000000000", "=ep".to_owned()),
            ("01000002feffffff00000000ff01000000000000", "=ep cap_chown-ep".to_owned()),
            ("0000000221000000200000000000000000000000", "cap_kill=ip cap_chown+p".to_owned()),
            ("0000000200000000000000000002000000000000", "= 41+p".to_owned()),
            ("0000000200000000010000000002000000000000", "cap_chown=i 41+p".to_owned()),
            ("00000002000000000000000000fe0000ff000000", format!("{high}=i 41,42,43,44,45,46,47+p")),
            ("010000020100000001000000ff01000000000000", format!("cap_chown=eip {high},cap_checkpoint_restore+ep")),
            ("0100000320000000000000000000000000000000e8030000", "cap_kill=ep [rootid=1000]".to_owned()),
            // Revision 1 has 32 bits. No kernel of today writes it.
            ("010000010020000000000000", "cap_net_raw=ep".to_owned()),
            // Cut, too long, of a revision to come, or none at all.
            ("01000002003000000000000000000000000000", String::new()),
            ("010000020030000000000000000000000000000000", String::new()),
            ("0100000400300000000000000000000000000000", String::new()),
            ("", String::new()),
        ] {
            assert_eq!(meaning_of("security.capability", value), expected, "{value}");
        }
    }

    #[test]
    fn most_capabilities_are_the_rule_and_others_the_exception() {
        // 20 of 41 do not have it, then 21.
        let permitted = |count: u32| {
            let bits = (1u64 << count) - 1;
            format!("00000002{}00000000{}00000000", hex::encode((bits as u32).to_le_bytes()), "00000000")
        };
        assert!(meaning_of("security.capability", &permitted(20)).ends_with(",cap_sys_ptrace=p"));
        assert!(meaning_of("security.capability", &permitted(21)).starts_with("=p cap_sys_admin,"));
    }

    /// Values and what getfacl of acl 2.3.1 printed with `--numeric`.
    #[test]
    fn access_control_lists_read_as_getfacl_prints_them() {
        let access = "0200000001000700ffffffff02000400e803000004000500ffffffff0800060005000000\
                      10000700ffffffff20000500ffffffff";
        let expected = "user::rwx,user:1000:r--,group::r-x,group:5:rw-,mask::rwx,other::r-x";
        assert_eq!(meaning_of("system.posix_acl_access", access), expected);
        let default = "0200000001000700ffffffff020007000700000004000500ffffffff10000700ffffffff20000500ffffffff";
        let expected = "default:user::rwx,default:user:7:rwx,default:group::r-x,default:mask::rwx,default:other::r-x";
        assert_eq!(meaning_of("system.posix_acl_default", default), expected);
        for broken in ["", "02000000010007", "0300000001000700ffffffff", "0200000003000700ffffffff"] {
            assert_eq!(meaning_of("system.posix_acl_access", broken), "", "{broken}");
        }
    }

    #[test]
    fn a_label_is_its_text_and_other_values_are_digests_alone() {
        let label = attribute(b"security.selinux", b"system_u:object_r:bin_t:s0\0");
        assert_eq!(label.meaning.as_str(), "system_u:object_r:bin_t:s0");
        let other = attribute(b"user.\xff", b"abc");
        assert_eq!((other.name.as_str(), other.meaning.as_str()), ("user.\\xff", ""));
        assert_eq!(other.sha256.as_str(), hex::encode(Sha256::digest(b"abc")));
    }

    proptest! {
        #[test]
        fn no_value_breaks_it_and_each_meaning_is_a_text_of_the_contract(
            name in prop::sample::select(vec![
                &b"security.capability"[..], b"system.posix_acl_access", b"system.posix_acl_default", b"security.selinux",
            ]),
            value in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let attribute = attribute(name, &value);
            prop_assert!(Text::parse(attribute.meaning.to_string()).is_some());
        }

        /// A reader of the text gets the same flags again.
        #[test]
        fn the_text_of_capabilities_says_all_of_them(words in prop::array::uniform4(any::<u32>()), is_effective: bool) {
            let mut value = (0x0200_0000 | u32::from(is_effective)).to_le_bytes().to_vec();
            value.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            let text = capabilities(&value).unwrap();
            let permitted = u64::from(words[0]) | u64::from(words[2]) << 32;
            let inheritable = u64::from(words[1]) | u64::from(words[3]) << 32;
            let read = read_text(&text);
            for (number, flags) in read.iter().enumerate() {
                prop_assert_eq!(flags & PERMITTED != 0, permitted >> number & 1 != 0, "{} {}", number, &text);
                prop_assert_eq!(flags & INHERITABLE != 0, inheritable >> number & 1 != 0, "{} {}", number, &text);
                let has_any = (permitted | inheritable) >> number & 1 != 0;
                prop_assert_eq!(flags & EFFECTIVE != 0, is_effective && has_any, "{} {}", number, &text);
            }
        }
    }

    /// Reads the text as cap_from_text(3) says: clauses that raise, lower or set flags, one after the other.
    fn read_text(text: &str) -> [Flags; CAPABILITY_BITS] {
        let mut flags = [0; CAPABILITY_BITS];
        for clause in text.split(' ') {
            let operators = clause.find(['=', '+', '-']).unwrap();
            let numbers: Vec<usize> = match &clause[..operators] {
                "" => (0..CAPABILITIES.len()).collect(),
                names => names.split(',').map(number_of).collect(),
            };
            let mut operator = ' ';
            for letter in clause[operators..].chars() {
                let Some((flag, _)) = FLAGS.iter().find(|(_, of)| *of == letter) else {
                    operator = letter;
                    continue;
                };
                for number in &numbers {
                    match operator {
                        '-' => flags[*number] &= !flag,
                        _ => flags[*number] |= flag,
                    }
                }
            }
        }
        flags
    }

    fn number_of(name: &str) -> usize {
        CAPABILITIES.iter().position(|known| *known == name).unwrap_or_else(|| name.parse().unwrap())
    }
}
