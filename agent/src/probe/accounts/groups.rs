//! Groups whose members may become the superuser: by rules of sudo(8) and polkit(8) that name them, or because a service that runs as
//! the superuser does whatever they ask of it.

use std::path::Path;

use muster_proto::fact::{Cause, Unknown};

use crate::host::{self, Host, SMALL_FILE_BYTES};

/// A group, and by what its members become the superuser.
pub struct Known {
    pub name: &'static str,
    by: By,
}

enum By {
    /// Rules that distributions have for it.
    Rules,
    /// A service, which is there where any of these is.
    Service(&'static [&'static str]),
}

/// In order of name.
pub const KNOWN: [Known; 6] = [
    Known { name: "admin", by: By::Rules },
    Known {
        name: "docker",
        by: By::Service(&[
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/usr/bin/dockerd",
            "/usr/sbin/dockerd",
            "/usr/local/bin/dockerd",
            "/var/lib/docker",
            "/var/snap/docker",
        ]),
    },
    Known {
        name: "incus-admin",
        by: By::Service(&[
            "/run/incus",
            "/var/lib/incus",
            "/usr/bin/incusd",
            "/usr/sbin/incusd",
            "/usr/libexec/incus/incusd",
            "/usr/lib/incus/incusd",
            "/opt/incus/bin/incusd",
        ]),
    },
    Known {
        name: "lxd",
        by: By::Service(&["/var/lib/lxd", "/var/snap/lxd", "/snap/bin/lxd", "/usr/bin/lxd", "/usr/sbin/lxd"]),
    },
    Known { name: "sudo", by: By::Rules },
    Known { name: "wheel", by: By::Rules },
];

/// Other groups whose files are as good as being the superuser: disks as a whole, and hashes of passwords.
pub const OF_FILES: [&str; 2] = ["disk", "shadow"];

/// Rules of polkit(8), and what named its administrators up to release 0.105.
const FOLDERS: [(&str, &str); 6] = [
    ("/etc/polkit-1/rules.d", ".rules"),
    ("/run/polkit-1/rules.d", ".rules"),
    ("/usr/local/share/polkit-1/rules.d", ".rules"),
    ("/usr/share/polkit-1/rules.d", ".rules"),
    ("/etc/polkit-1/localauthority.conf.d", ".conf"),
    ("/var/lib/polkit-1/localauthority.conf.d", ".conf"),
];
/// Files of all of them that are read, at most.
const FILES: usize = 256;

/// Returns whether members of a group may become the superuser by it. `is_in_sudoers` says whether a rule of sudo names it. What
/// cannot be seen may be there.
pub fn is_in_force(host: &dyn Host, group: &Known, is_in_sudoers: bool) -> bool {
    match group.by {
        By::Rules => is_in_sudoers || is_in_polkit(host, group.name).unwrap_or(true),
        By::Service(paths) => paths.iter().any(|path| match host.metadata(Path::new(path)) {
            Ok(_) => true,
            Err(error) => host::cause(&error) != Cause::Absent,
        }),
    }
}

fn is_in_polkit(host: &dyn Host, group: &str) -> Result<bool, Unknown> {
    let mut files = 0;
    for (folder, end) in FOLDERS {
        let names = match host.list(Path::new(folder)) {
            Ok(names) => names,
            Err(error) if host::cause(&error) == Cause::Absent => continue,
            Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
        };
        for name in names.iter().filter(|name| name.to_string_lossy().ends_with(end)) {
            files += 1;
            if files > FILES {
                return Err(Unknown::new(Cause::Limit, format!("more rules than are read, at {folder}")));
            }
            let path = Path::new(folder).join(name);
            let bytes = host
                .read(&path, SMALL_FILE_BYTES)
                .map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
            if names_group(&String::from_utf8_lossy(&bytes), group) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Returns whether a rule has the name of a group for a word of its own, other than in a comment of a whole line.
fn names_group(text: &str, group: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with('#'));
    lines.flat_map(|line| line.split(|c| !is_part(c))).any(|word| word == group)
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the places that show the service of a group.
    pub fn places(group: &str) -> &'static [&'static str] {
        match KNOWN.iter().find(|known| known.name == group) {
            Some(Known { by: By::Service(places), .. }) => places,
            _ => &[],
        }
    }

    #[test]
    fn a_rule_of_polkit_names_a_group_for_a_word_of_its_own() {
        for (text, group, expected) in [
            ("polkit.addAdminRule(function(action, subject) {\n    return [\"unix-group:sudo\"];\n});\n", "sudo", true),
            ("[Configuration]\nAdminIdentities=unix-group:sudo;unix-group:admin\n", "admin", true),
            ("    if (subject.isInGroup('wheel')) {\n", "wheel", true),
            (
                "// Members of wheel may do it, as \"unix-group:wheel\" says.\nreturn [\"unix-group:sudo\"];\n",
                "wheel",
                false,
            ),
            ("if (action.id == \"org.example.admin-tool\") {\n", "admin", false),
            ("return [\"unix-group:wheels\"];\n", "wheel", false),
        ] {
            assert_eq!(names_group(text, group), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_rules_never_panic(text in "\\PC*") {
            names_group(&text, "wheel");
        }
    }
}
