//! Patch level and software.

use super::{Expected, row};

pub(super) const ROWS: &[Expected] = &[
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
];
