//! What a fuzzer drives: one target for each format, with the valid inputs of every captured machine.
//!
//! Captures have hundreds of files of a kind. A fuzzer that learns one format from all of them finds more, and sooner, than one that
//! is given each file for itself: [`super::parsers`] is for tests that try a few inputs on every file.

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    Parser,
    captures::{self, Machine},
    parsers_of_bytes, repository,
};

/// Bytes that an input may have once it is unpacked to be a valid input, too.
const SEED_BYTES: u64 = 256 * 1024;

/// One format.
pub struct Target {
    /// Its name, such as `nf_tables_rules`.
    pub name: &'static str,
    /// Valid inputs, each once.
    pub seeds: BTreeSet<Vec<u8>>,
    /// What parses it. Each is given every input.
    pub parsers: Vec<Parser>,
}

/// What belongs to a format. Patterns are of the paths of files in captures, and `*` in them stands for anything.
enum Of {
    /// The parsers of [`parsers_of_bytes`] whose names are like this pattern.
    Bytes(&'static str),
    /// Files that a probe reads. The smallest machine that has one is looked at while the first such file of it lies.
    Files(&'static str, &'static str),
    /// The same, of files that are packed: they lie as if they had been published without.
    Unpacked(&'static str, &'static str),
    /// Files that the parsers of other lines read: valid inputs alone.
    Seeds(&'static str, &'static str),
}

use Of::{Bytes, Files, Seeds, Unpacked};

/// Every format, in the order in which one would fuzz them: first what a stranger writes and what is of many parts.
const TARGETS: &[(&str, &[Of])] = &[
    ("pacman_database", &[Files("patch_level", "files/var/lib/pacman/sync/*.db")]),
    ("sqlite", &[Files("accounts", "files/var/log/wtmp.db")]),
    (
        "rpm_metadata",
        &[
            Unpacked("patch_level", "files/var/cache/dnf/*-primary.xml.gz"),
            Unpacked("patch_level", "files/var/cache/dnf/*-updateinfo.xml.gz"),
            Files("patch_level", "files/var/cache/dnf/*/repomd.xml"),
            Seeds("patch_level", "files/var/cache/zypp/*/repomd.xml"),
            Seeds("patch_level", "files/var/cache/*.xml.gz"),
        ],
    ),
    (
        "property_list",
        &[
            Files("patch_level", "files/Library/Preferences/*.plist"),
            Files("patch_level", "files/private/var/db/softwareupdate/*.plist"),
            Files("system", "answers/tool.ioreg.*IOPlatformExpertDevice"),
            Files("system", "answers/tool.ioreg.*AppleSmartBattery"),
            Files("disk_encryption", "answers/tool.diskutil.apfs.list.-plist"),
            Files("disk_encryption", "answers/tool.diskutil.list.-plist.external"),
            Files("disk_encryption", "answers/tool.hdiutil.info.-plist"),
            Seeds("*", "files/*.plist"),
        ],
    ),
    ("dconf", &[Files("screen_lock", "files/etc/dconf/db/*"), Files("screen_lock", "files/home/*/dconf/user")]),
    ("report", &[Bytes("report")]),
    ("sealed_report", &[Bytes("sealed_report"), Bytes("evidence_key"), Bytes("log_entry")]),
    ("hello", &[Bytes("collector/hello")]),
    ("fact", &[Bytes("fact")]),
    ("certificate_request", &[Bytes("collector/certificate_request")]),
    ("filter", &[Bytes("collector/filter")]),
    ("page_token", &[Bytes("collector/page_token")]),
    ("snapshot", &[Bytes("collector/snapshot")]),
    ("luks_header", &[Bytes("agent/luks_header")]),
    ("extended_attribute", &[Bytes("agent/extended_attribute")]),
    ("integrity", &[Bytes("agent/fim_baseline"), Bytes("agent/fim_changes")]),
    ("package_databases", &[Bytes("agent/packages/*")]),
    ("nf_tables_rules", &[Files("firewall", "answers/nf_tables.rules")]),
    ("nf_tables_elements", &[Files("firewall", "answers/nf_tables.elements.*")]),
    (
        "nf_tables_chains",
        &[
            Files("firewall", "answers/nf_tables.chains"),
            Files("firewall", "answers/nf_tables.tables"),
            Files("firewall", "answers/nf_tables.sets"),
        ],
    ),
    ("iptables", &[Files("firewall", "answers/iptables.ipv4.*"), Files("firewall", "answers/iptables.ipv6.*")]),
    (
        "dpkg_status",
        &[
            Files("patch_level", "files/var/lib/dpkg/status"),
            Files("sensors", "files/var/lib/dpkg/status"),
            Seeds("*", "files/var/lib/dpkg/status"),
        ],
    ),
    ("apt_packages", &[Files("patch_level", "files/var/lib/apt/lists/*_Packages")]),
    ("apt_release", &[Files("patch_level", "files/var/lib/apt/lists/*_InRelease")]),
    (
        "apt_settings",
        &[
            Files("patch_level", "files/etc/apt/sources.list"),
            Files("patch_level", "files/etc/apt/sources.list.d/*"),
            Files("patch_level", "files/etc/apt/preferences.d/*"),
            Files("patch_level", "answers/tool.apt-config.dump"),
        ],
    ),
    ("rpm_query", &[Files("patch_level", "answers/tool.rpm.*")]),
    (
        "repository_settings",
        &[
            Files("patch_level", "files/etc/yum.repos.d/*"),
            Files("patch_level", "files/etc/zypp/repos.d/*"),
            Files("patch_level", "files/etc/dnf/dnf.conf"),
            Files("patch_level", "files/etc/pacman.conf"),
        ],
    ),
    ("pacman_description", &[Files("patch_level", "files/var/lib/pacman/local/*/desc")]),
    (
        "sudoers",
        &[
            Files("accounts", "files/etc/sudoers"),
            Files("accounts", "files/etc/sudoers.d/*"),
            Files("accounts", "files/etc/sudo.conf"),
        ],
    ),
    (
        "sshd_config",
        &[
            Files("remote_access", "files/etc/ssh/sshd_config"),
            Files("remote_access", "files/etc/ssh/sshd_config.d/*"),
            Files("accounts", "files/etc/ssh/*"),
        ],
    ),
    (
        "accounts",
        &[
            Files("accounts", "files/etc/passwd"),
            Files("accounts", "files/etc/shadow"),
            Files("accounts", "files/etc/gshadow"),
            Files("accounts", "files/etc/group"),
            Files("accounts", "files/etc/login.defs"),
            Files("accounts", "files/etc/nsswitch.conf"),
            Seeds("screen_lock", "files/etc/passwd"),
        ],
    ),
    (
        "pam",
        &[
            Files("accounts", "files/etc/pam.d/system-auth"),
            Files("accounts", "files/etc/pam.d/common-*"),
            Files("accounts", "files/etc/pam.d/su*"),
            Files("accounts", "files/etc/security/*"),
            Seeds("accounts", "files/etc/pam.d/*"),
        ],
    ),
    ("logins", &[Files("accounts", "files/var/log/wtmp"), Files("accounts", "files/var/log/lastlog")]),
    (
        "mounts",
        &[
            Files("disk_encryption", "files/proc/1/mountinfo"),
            Seeds("disk_encryption", "files/proc/*/mountinfo"),
            Files("capacity", "files/proc/1/mountinfo"),
        ],
    ),
    (
        "block_devices",
        &[
            Files("disk_encryption", "files/proc/swaps"),
            Files("disk_encryption", "files/proc/crypto"),
            Files("disk_encryption", "files/sys/class/block/*/dm/uuid"),
            Files("disk_encryption", "files/sys/class/block/*/dm/name"),
            Files("disk_encryption", "files/sys/class/block/*/md/array_state"),
            Files("disk_encryption", "files/sys/class/block/*/loop/backing_file"),
            Seeds("disk_encryption", "files/sys/class/block/*"),
            Seeds("capacity", "files/sys/class/block/*"),
        ],
    ),
    ("audit", &[Files("logging", "answers/audit.rules"), Files("logging", "answers/audit.status")]),
    ("journal", &[Files("logging", "files/var/log/journal/*")]),
    (
        "syslog_settings",
        &[
            Files("logging", "files/etc/rsyslog.conf"),
            Files("logging", "files/etc/rsyslog.d/*"),
            Files("logging", "files/etc/syslog-ng/*"),
            Files("logging", "files/etc/systemd/journald.conf"),
            Files("logging", "files/etc/systemd/journal-upload.conf"),
            Files("logging", "files/etc/hosts"),
            Files("logging", "files/proc/sys/kernel/hostname"),
            Files("logging", "files/proc/net/fib_trie"),
            Files("logging", "files/proc/net/if_inet6"),
            Seeds("logging", "files/*.conf"),
        ],
    ),
    (
        "processes",
        &[
            Files("sensors", "files/proc/*/status"),
            Files("sensors", "files/proc/*/cgroup"),
            Files("sensors", "files/proc/*/cmdline"),
            Files("remote_access", "files/proc/*/cmdline"),
            Files("remote_access", "files/proc/*/comm"),
            Files("remote_access", "files/proc/*/status"),
            Seeds("clock", "files/proc/*"),
            Seeds("logging", "files/proc/*"),
        ],
    ),
    (
        "sockets",
        &[
            Files("remote_access", "files/proc/net/tcp"),
            Files("remote_access", "files/proc/net/tcp6"),
            Files("remote_access", "files/proc/net/udp"),
            Files("remote_access", "files/proc/net/udp6"),
            Files("remote_access", "files/proc/sys/net/ipv4/ip_local_port_range"),
            Files("remote_access", "files/run/sshd.pid"),
            Seeds("system", "files/proc/net/*"),
        ],
    ),
    (
        "addresses",
        &[
            Files("firewall", "files/sys/class/net/*/ifindex"),
            Files("firewall", "files/proc/net/dev"),
            Files("firewall", "files/proc/net/fib_trie"),
            Files("firewall", "files/proc/net/if_inet6"),
            Files("firewall", "files/proc/net/igmp"),
            Files("firewall", "files/proc/net/igmp6"),
            Files("firewall", "files/proc/net/ip_tables_names"),
            Files("firewall", "files/proc/net/ip6_tables_names"),
            Files("firewall", "files/proc/sys/net/*"),
        ],
    ),
    ("clamav", &[Files("sensors", "files/etc/clamav/*"), Files("sensors", "files/var/lib/clamav/*")]),
    (
        "removable_media",
        &[
            Files("removable_media", "files/etc/udev/rules.d/*"),
            Files("removable_media", "files/etc/modprobe.d/*"),
            Files("removable_media", "files/etc/usbguard/rules.conf"),
            Files("removable_media", "files/etc/usbguard/usbguard-daemon.conf"),
            Files("removable_media", "files/proc/cmdline"),
        ],
    ),
    (
        "screen_lock",
        &[
            Files("screen_lock", "files/etc/xdg/*"),
            Files("screen_lock", "files/home/*/kscreenlockerrc"),
            Files("screen_lock", "files/etc/dconf/profile/*"),
            Files("screen_lock", "files/etc/environment"),
            Files("screen_lock", "files/etc/security/pam_env.conf"),
            Files("screen_lock", "files/usr/lib/environment.d/*"),
            Files("screen_lock", "files/etc/pam.d/*"),
        ],
    ),
    (
        "backup_records",
        &[
            Files("backup", "files/etc/rsnapshot.conf"),
            Files("backup", "files/var/log/rsnapshot.log"),
            Files("backup", "files/root/.cache/duplicity/*.manifest"),
            Files("backup", "files/proc/sys/kernel/hostname"),
            Files("backup", "files/etc/localtime"),
            Files("backup", "files/var/lib/dpkg/info/*.list"),
            Files("file_integrity", "files/var/lib/dpkg/info/*.list"),
            Seeds("sensors", "files/var/lib/dpkg/info/*.list"),
        ],
    ),
    ("baseline", &[Files("file_integrity", "memory/baseline"), Files("file_integrity", "files/*.md5sums")]),
    (
        "kernel_files",
        &[
            Files("patch_level", "files/proc/stat"),
            Files("patch_level", "files/proc/sys/kernel/*"),
            Files("system", "files/proc/cpuinfo"),
            Files("system", "files/proc/1/environ"),
            Files("system", "files/proc/self/status"),
            Files("boot", "files/sys/*"),
            Seeds("capacity", "files/proc/*"),
            Seeds("system", "files/*"),
            Seeds("logging", "files/etc/machine-id"),
            Seeds("removable_media", "files/sys/*"),
            Seeds("removable_media", "files/proc/sys/kernel/*"),
            Seeds("patch_level", "files/etc/os-release"),
        ],
    ),
    ("os_release", &[Files("system", "files/etc/os-release"), Files("patch_level", "files/etc/os-release")]),
    (
        "powershell",
        &[
            Files("system", "answers/tool.powershell-*"),
            Files("disk_encryption", "answers/tool.powershell-*"),
            Files("patch_level", "answers/tool.powershell-*"),
            Files("firewall", "answers/tool.powershell-*"),
        ],
    ),
    ("pf", &[Files("firewall", "answers/tool.pfctl.-s.rules"), Seeds("firewall", "answers/tool.pfctl.*")]),
    (
        "macos_answers",
        &[
            Files("firewall", "answers/tool.pfctl.-s.info"),
            Files("firewall", "answers/tool.pfctl.-v.-s.Anchors"),
            Files("firewall", "answers/tool.pfctl.-v.-s.Interfaces"),
            Files("firewall", "answers/tool.socketfilterfw.--getglobalstate"),
            Files("firewall", "answers/tool.socketfilterfw.--getstealthmode"),
            Files("disk_encryption", "answers/tool.fdesetup.status"),
            Files("disk_encryption", "answers/tool.mount"),
            Files("disk_encryption", "answers/tool.sysctl.*swapusage"),
            Files("system", "answers/tool.csrutil.status"),
            Files("system", "answers/tool.spctl.--status"),
            Seeds("*", "answers/tool.sysctl.*"),
        ],
    ),
    ("certificates", &[Bytes("agent/certificates")]),
    ("checkpoint", &[Bytes("agent/checkpoint"), Bytes("collector/checkpoint"), Bytes("agent/log_key")]),
    ("catalogue", &[Bytes("collector/catalogue")]),
    ("configuration", &[Bytes("collector/config"), Bytes("agent/config"), Bytes("agent/enrollment_file")]),
    ("spool_state", &[Bytes("agent/spool_state")]),
    ("names", &[Bytes("names")]),
];

/// Returns the name of every target.
pub fn names() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().map(|(name, _)| *name)
}

/// Returns the target of this name; `None` when there is none. `scratch` is a folder for what parsers read.
pub fn target(name: &str, scratch: &Path) -> Option<Target> {
    let (name, of) = TARGETS.iter().find(|(own, _)| *own == name)?;
    let mut target = Target { name, seeds: BTreeSet::new(), parsers: Vec::new() };
    for (at, of) in of.iter().enumerate() {
        target.add(of, &scratch.join(at.to_string()));
    }
    target.seeds.extend(kept_seeds(name));
    for packed in target.seeds.clone() {
        target.seeds.extend(unpacked(&packed));
    }
    Some(target)
}

/// Returns which formats read `file` of a capture of `probe`.
#[cfg(test)]
fn of_file(probe: &str, file: &str) -> Vec<&'static str> {
    let takes = |of: &Of| match of {
        Bytes(_) => false,
        Files(own, pattern) | Unpacked(own, pattern) | Seeds(own, pattern) => {
            matches(own, probe) && matches(pattern, file)
        }
    };
    TARGETS.iter().filter(|(_, of)| of.iter().any(takes)).map(|(name, _)| *name).collect()
}

impl Target {
    fn add(&mut self, of: &Of, scratch: &Path) {
        match of {
            Bytes(name) => {
                fs::create_dir_all(scratch).expect("the scratch folder can be written");
                let own: Vec<_> =
                    parsers_of_bytes(scratch).into_iter().filter(|parser| matches(name, &parser.name)).collect();
                assert!(!own.is_empty(), "no parser is named {name}");
                self.seeds.extend(own.iter().flat_map(|parser| parser.seeds.iter().cloned()));
                self.parsers.extend(own);
            }
            Files(probe, pattern) => {
                let found = found(probe, pattern);
                self.take(&found);
                let (machine, file) = smallest(&found);
                machine.copy(scratch);
                self.parsers.push(captures::lying(format!("{probe}/{pattern}"), machine, scratch, file, Vec::new()));
            }
            Unpacked(probe, pattern) => {
                let found = found(probe, pattern);
                self.take(&found);
                let (machine, file) = smallest(&found);
                machine.copy(scratch);
                let file = unpack_in(scratch, file);
                self.parsers.push(captures::lying(format!("{probe}/{pattern}"), machine, scratch, &file, Vec::new()));
            }
            Seeds(probe, pattern) => self.take(&found(probe, pattern)),
        }
    }

    fn take(&mut self, found: &[(Machine, Vec<String>)]) {
        let contents = found.iter().flat_map(|(machine, files)| files.iter().map(|file| machine.read(file)));
        self.seeds.extend(contents);
    }
}

/// Returns the machines that have files like `pattern`, with those.
fn found(probe: &str, pattern: &str) -> Vec<(Machine, Vec<String>)> {
    let probes = muster_agent::probe::PROBES.iter().filter(|it| matches(probe, it.name()));
    let machines = probes.flat_map(|probe| captures::machines(*probe));
    let with_files = machines.map(|machine| {
        let files: Vec<String> = machine.files.iter().filter(|file| matches(pattern, file)).cloned().collect();
        (machine, files)
    });
    let found: Vec<(Machine, Vec<String>)> = with_files.filter(|(_, files)| !files.is_empty()).collect();
    assert!(!found.is_empty(), "no capture of {probe} has a file like {pattern}");
    found
}

/// Returns the machine that is looked at soonest, with the first file of it.
fn smallest(found: &[(Machine, Vec<String>)]) -> (&Machine, &str) {
    let smallest = found.iter().min_by_key(|(machine, _)| machine.size_bytes);
    smallest.map(|(machine, files)| (machine, files[0].as_str())).expect("some machine has such a file")
}

/// Unpacks `file` of the capture in `folder`, whose name ends in `.gz`, and tells the machine of it by the name without.
fn unpack_in(folder: &Path, file: &str) -> String {
    let name = file.strip_suffix(".gz").expect("a packed file");
    let content = unpacked(&fs::read(folder.join(file)).expect("it is there")).expect("it unpacks");
    fs::write(folder.join(name), content).expect("the scratch folder can be written");
    let base = |path: &str| path.rsplit('/').next().expect("a path has an end").to_owned();
    let repodata = PathBuf::from(file).parent().expect("it is in a folder").join("repomd.xml");
    for told_in in [Path::new("index.json"), &repodata] {
        let path = folder.join(told_in);
        let text = fs::read_to_string(&path).expect("it is text").replace(&base(file), &base(name));
        fs::write(path, text).expect("the scratch folder can be written");
    }
    name.to_owned()
}

/// Returns the content of what gzip(1) packed; `None` for anything else.
fn unpacked(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let unpacking = flate2::read::MultiGzDecoder::new(bytes);
    unpacking.take(SEED_BYTES).read_to_end(&mut content).ok()?;
    (!content.is_empty()).then_some(content)
}

/// Returns valid inputs that no capture has.
fn kept_seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = repository().join("tests/fuzz/seeds").join(name);
    let files = fs::read_dir(folder).into_iter().flatten();
    files.map(|file| fs::read(file.expect("an entry").path()).expect("it is there")).collect()
}

/// Returns whether `text` is like `pattern`, in which each `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().expect("a pattern has a part");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use muster_agent::probe::PROBES;

    use super::*;

    #[test]
    fn every_file_of_a_captured_machine_is_of_a_format() {
        // What a capture itself writes is not a format that a machine has.
        let is_of_the_capture = |file: &str| file == "index.json" || file.starts_with("scans/");
        for probe in PROBES {
            for machine in captures::machines(*probe) {
                for file in machine.files.iter().filter(|file| !is_of_the_capture(file)) {
                    let name = machine.name();
                    assert!(!of_file(probe.name(), file).is_empty(), "{}/{name}/{file} is of no target", probe.name());
                }
            }
        }
    }

    #[test]
    fn every_parser_of_bytes_is_in_one_target() {
        let scratch = tempfile::tempdir().unwrap();
        for parser in parsers_of_bytes(scratch.path()) {
            let is_it = |of: &&Of| matches!(of, Bytes(name) if matches(name, &parser.name));
            let found = TARGETS.iter().flat_map(|(_, of)| of.iter()).filter(is_it).count();
            assert_eq!(found, 1, "{}", parser.name);
        }
    }

    #[test]
    fn every_target_has_valid_inputs_and_takes_them() {
        for name in names() {
            let scratch = tempfile::tempdir().unwrap();
            let target = target(name, scratch.path()).unwrap();
            assert!(!target.seeds.is_empty() && !target.parsers.is_empty(), "{name}");
            for parser in &target.parsers {
                target.seeds.iter().for_each(|seed| (parser.parse)(seed));
            }
        }
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c*", "abcd", true),
            ("a*bc*c", "abc", false),
            ("a*b*c", "axxbyyc", true),
            ("*b", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} and {text}");
        }
    }
}
