//! Disk encryption, file integrity, firewall, system.

use super::{Expected, row};

pub(super) const ROWS: &[Expected] = &[
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
    // System.
    row("system", "read /proc/self/status", "content", "agent.capabilities", "any digits are capabilities"),
    row("system", "read /etc/os-release", "content", "system.os_", "any text is a name"),
    row("system", "*ip_local_port_range", "content", "listeners.listeners", "any number is the first port"),
    row("system", "read /proc/net/", "error", "listeners", "a table that repeats does not follow its format"),
];
