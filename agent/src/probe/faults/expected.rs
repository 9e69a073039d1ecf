//! Where a fault cannot be told from a machine on which things are so.

/// Differences that are expected.
#[derive(Debug)]
pub(super) struct Expected {
    /// Name of the probe.
    probe: &'static str,
    /// What was asked: the start of the access, or with `*` before it any part.
    access: &'static str,
    /// `absent` (it is not there), `error` (it cannot be read), `content` (it is cut or damaged).
    class: &'static str,
    /// The reading: the start of its place.
    reading: &'static str,
    /// Why that is right.
    #[allow(dead_code, reason = "shown in its debug form")]
    why: &'static str,
}

impl Expected {
    pub(super) fn covers(&self, probe: &str, access: &str, class: &str, reading: &str) -> bool {
        let is_access = match self.access.strip_prefix('*') {
            Some(part) => access.contains(part),
            None => access.starts_with(self.access),
        };
        self.probe == probe && is_access && self.class == class && reading.starts_with(self.reading)
    }
}

/// Values with a reading beside them that says whether they are all, or a list of what could not be read.
pub(super) const COMPANIONS: &[(&str, &str)] = &[
    ("disk_encryption.volumes[].layers", "encrypted"),
    ("disk_encryption.swap_areas[].layers", "encrypted"),
    ("disk_encryption.swap_areas[].kind", "encrypted"),
    ("system.execution_controls", "execution_controls_complete"),
    ("patch_level.pending", "pending_complete"),
    ("patch_level.sources", "pending_complete"),
    ("firewall.input_chains", "inbound_ipv4"),
    ("firewall.input_chains", "inbound_ipv6"),
    ("file_integrity.paths", "unreadable"),
    ("file_integrity.entries", "unreadable"),
    ("file_integrity.unreadable", "unreadable"),
    ("file_integrity.unreadable_total", "unreadable"),
    ("file_integrity.changes", "unreadable"),
    ("file_integrity.changes_total", "unreadable"),
    ("file_integrity.explained_total", "unreadable"),
];

const fn row(
    probe: &'static str,
    access: &'static str,
    class: &'static str,
    reading: &'static str,
    why: &'static str,
) -> Expected {
    Expected { probe, access, class, reading, why }
}

/// Every row is a promise that someone looked. Those whose reason begins with "limit" are not right, and are known.
pub(super) const EXPECTED: &[Expected] = &[
    // Disk encryption.
    row("disk_encryption", "read /proc/swaps", "absent", "disk_encryption.swap_areas", "a kernel without swap"),
    row("disk_encryption", "read /proc/swaps", "content", "disk_encryption.swap_areas", "cut at a line: fewer areas"),
    row(
        "disk_encryption",
        "read /proc/1/mountinfo",
        "content",
        "disk_encryption.volumes",
        "cut at a line: fewer mounts",
    ),
    row("disk_encryption", "*/slaves", "absent", "disk_encryption.", "a device that stands on none"),
    row("disk_encryption", "*/dm/", "absent", "disk_encryption.", "a device that is not of device-mapper"),
    row(
        "disk_encryption",
        "*/dm/",
        "content",
        "disk_encryption.",
        "the name is the kernel's only word on what a device is",
    ),
    row("disk_encryption", "*/md/array_state", "absent", "disk_encryption.volumes[].layers[].name", "not an array"),
    row("disk_encryption", "*/md/array_state", "content", "disk_encryption.volumes[].layers[].name", "not an array"),
    row(
        "disk_encryption",
        "*/loop/backing_file",
        "absent",
        "disk_encryption.volumes[].layers",
        "a loop without a file",
    ),
    row(
        "disk_encryption",
        "*/loop/backing_file",
        "content",
        "disk_encryption.volumes[].layers",
        "any bytes are a path",
    ),
    row("disk_encryption", "luks ", "absent", "disk_encryption.", "the node is hidden from the agent: forbidden"),
    row(
        "disk_encryption",
        "link /sys/class/block/",
        "error",
        "disk_encryption.",
        "the device's node is asked, and that is absent",
    ),
    row(
        "disk_encryption",
        "*vda",
        "absent",
        "disk_encryption.volumes[].layers",
        "a file's own volume has its own reading",
    ),
    row("disk_encryption", "link /sys/dev/block/", "absent", "disk_encryption.volumes[].layers", "as above"),
    row(
        "disk_encryption",
        "*vda",
        "error",
        "disk_encryption.volumes[].layers",
        "a file's own volume has its own reading",
    ),
    row("disk_encryption", "link /sys/dev/block/", "error", "disk_encryption.volumes[].layers", "as above"),
    // File integrity.
    row("file_integrity", "scan ", "absent", "file_integrity.", "what is not there is deleted"),
    row("file_integrity", "scan ", "absent", "after: file_integrity.changes", "it was deleted in between"),
    // Firewall.
    row("firewall", "*_tables_names", "absent", "firewall.", "a kernel without legacy tables"),
    row("firewall", "*_tables_names", "content", "firewall.", "cut at a line: fewer tables"),
    row("firewall", "nf_tables.", "content", "firewall.", "cut between two messages: fewer objects"),
    row("firewall", "nf_tables.elements.", "error", "firewall.", "what an unread set may hold is undecidable"),
    // Patch level.
    row("patch_level", "*/var/lib/dpkg/status", "absent", "patch_level", "a host without dpkg: unsupported"),
    row("patch_level", "*/var/lib/dpkg/status", "absent", "software", "a host without dpkg: unsupported"),
    row(
        "patch_level",
        "read /var/lib/dpkg/status",
        "content",
        "",
        "limit: cut between two packages, or in the last line",
    ),
    row("patch_level", "machine", "absent", "patch_level.reboot_required", "no release to compare: undecidable"),
    row("patch_level", "machine", "error", "patch_level.reboot_required", "no release to compare: undecidable"),
    row("patch_level", "tool.apt-config", "content", "patch_level.automatic_updates", "a tool that succeeds says all"),
    row("patch_level", "*_InRelease", "error", "patch_level.", "a list without its Release file: absent"),
    row("patch_level", "*_InRelease", "content", "patch_level.", "limit: a Release file that is cut is not told"),
    row("patch_level", "*_Packages", "content", "patch_level.pending", "limit: a list that is cut is not told"),
    row("patch_level", "list /var/lib/apt/lists", "error", "patch_level.security_metadata", "no list is there: absent"),
    // System.
    row("system", "read /proc/self/status", "content", "agent.capabilities", "any digits are capabilities"),
    row("system", "read /etc/os-release", "content", "system.os_", "any text is a name"),
    row("system", "*ip_local_port_range", "content", "listeners.listeners", "any number is the first port"),
    row("system", "read /proc/net/", "error", "listeners", "a table that repeats does not follow its format"),
];
