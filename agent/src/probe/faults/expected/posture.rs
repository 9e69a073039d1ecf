//! Sensors, clock, logging, boot, capacity, backup.

use super::{Expected, row};

pub(super) const ROWS: &[Expected] = &[
    // Sensors.
    row("sensors", "metadata /usr/sbin/clamd", "absent", "sensors.sensors", "without its program it is not there"),
    row("sensors", "read /var/lib/dpkg/status", "absent", "sensors.sensors[].", "a host without dpkg: unsupported"),
    row("sensors", "*/proc/", "absent", "sensors.sensors[].running", "a process that has ended"),
    row("sensors", "*/proc/", "absent", "sensors.sensors[].seen", "a process that has ended"),
    row(
        "sensors",
        "link /proc/",
        "error",
        "sensors.sensors[].seen",
        "where its file may not be seen, its unit shows it",
    ),
    // Clock.
    row("clock", "metadata /usr/", "absent", "clock.services", "without its program it is not there"),
    row("clock", "*/proc/", "absent", "clock.services[].running", "a process that has ended"),
    // Logging.
    row("logging", "metadata /usr/", "absent", "logging.forwarders", "without its program it is not there"),
    row("logging", "*/proc/", "absent", "logging.forwarders[].running", "a process that has ended"),
    row("logging", "list /etc/", "absent", "logging.forwarders[].", "there need not be drop-ins"),
    row("logging", "metadata /etc/systemd/", "absent", "logging.forwarders[].", "the settings need no main file"),
    row("logging", "*/proc/", "absent", "logging.journal_storage", "journald has ended"),
    row("logging", "metadata /var/log/journal", "absent", "logging.journal_storage", "without it nothing is kept"),
    row("logging", "metadata /var/log/", "absent", "logging.kept_since_time", "it was rotated away: less is kept"),
    row("logging", "audit.rules", "content", "logging.audit.rules", "a kernel without rules answers with none"),
    row(
        "logging",
        "read /etc/",
        "content",
        "logging.forwarders[].",
        "settings that are cut are settings of fewer lines",
    ),
    row(
        "logging",
        "link /proc/",
        "error",
        "logging.forwarders[].running",
        "a process of that name that may not be seen: undecidable",
    ),
    // Boot.
    row("boot", "metadata /sys/firmware/efi", "absent", "boot.firmware", "a machine that was not started by UEFI"),
    row("boot", "list /sys/class/tpm", "absent", "boot.tpm", "a kernel that found no TPM"),
    // Backup.
    row("backup", "metadata /usr/bin/", "absent", "backup.clients", "without its program it is not there"),
    row("backup", "metadata /etc/", "absent", "backup.clients[].has_settings", "a client without settings"),
    row("backup", "read /var/lib/dpkg/status", "absent", "backup.clients[].", "a host without dpkg: unsupported"),
    // Capacity.
    row("capacity", "*/sys/", "absent", "capacity.volumes", "what is not known to be removable is measured"),
    row("capacity", "*/partition", "content", "capacity.volumes", "an empty number is none: not known, and measured"),
    row("capacity", "", "error", "capacity.volumes", "the same, also of what is asked later"),
    row("capacity", "read /proc/1/mountinfo", "content", "capacity.volumes", "cut at a line: fewer mounts"),
];
