//! Patch level and software.

use super::{Expected, row};

pub(super) const ROWS: &[Expected] = &[
    row("patch_level", "*/var/lib/dpkg/status", "absent", "patch_level", "a host without dpkg: unsupported"),
    row("patch_level", "*/var/lib/dpkg/status", "absent", "software", "a host without dpkg: unsupported"),
    row("patch_level", "read /var/lib/dpkg/status", "content", "", "cut between two packages it is a legal file"),
    row("patch_level", "machine", "absent", "patch_level.reboot_required", "no release to compare: undecidable"),
    row("patch_level", "machine", "error", "patch_level.reboot_required", "no release to compare: undecidable"),
    row("patch_level", "tool.apt-config", "content", "patch_level.automatic_updates", "a tool that succeeds says all"),
    row("patch_level", "tool.rpm", "content", "", "a tool that succeeds says all"),
    row(
        "patch_level",
        "*/apt/",
        "absent",
        "patch_level.security_metadata_verified",
        "no security repository is configured or fetched: undecidable",
    ),
    row(
        "patch_level",
        "*_InRelease",
        "content",
        "patch_level.automatic_updates.enabled",
        "cut at a line: a repository that says less of itself, and that no origin means",
    ),
    row(
        "patch_level",
        "metadata /usr/",
        "absent",
        "patch_level.automatic_updates.enabled",
        "without its programs nothing is installed",
    ),
    row("patch_level", "read /etc/apt/sources.list", "content", "patch_level.", "any line may be the last"),
    row(
        "patch_level",
        "read /private/var/db/softwareupdate/SoftwareUpdateDDMStatePersistence.plist",
        "absent",
        "patch_level.pending_complete",
        "a Mac to which nothing was declared",
    ),
    row("patch_level", "list /etc/zypp/repos.d", "absent", "patch_level.manager", "a host without zypper"),
    row(
        "patch_level",
        "list /etc/zypp/repos.d",
        "absent",
        "patch_level.pending",
        "a host without zypper, of which pending_complete says that no repository is enabled",
    ),
    row("patch_level", "list /etc/zypp/repos.d", "absent", "patch_level.sources", "the same"),
    row("patch_level", "read /etc/dnf/dnf.conf", "absent", "patch_level.pending[].held", "nothing is set"),
    row("patch_level", "read /etc/dnf/dnf.conf", "content", "patch_level.pending[].held", "any line may be the last"),
    row("patch_level", "read /etc/yum.repos.d/", "content", "patch_level.pending[].held", "any line may be the last"),
];
