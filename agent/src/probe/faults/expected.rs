//! Where a fault cannot be told from a machine on which things are so.

mod access;
mod core;
mod patch_level;
mod posture;

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
    ("disk_encryption.volumes", "volumes_complete"),
    ("disk_encryption.volumes[].layers", "encrypted"),
    ("disk_encryption.volumes[].kind", "encrypted"),
    ("disk_encryption.volumes[].encrypted_folders", "encrypted"),
    ("disk_encryption.volumes[].encrypted_percent", "protection"),
    ("disk_encryption.swap_areas[].layers", "encrypted"),
    ("disk_encryption.swap_areas[].kind", "encrypted"),
    ("system.execution_controls", "execution_controls_complete"),
    ("patch_level.pending", "pending_complete"),
    ("patch_level.sources", "pending_complete"),
    ("firewall.input_chains", "inbound_ipv4"),
    ("firewall.input_chains", "inbound_ipv6"),
    ("sensors.sensors", "complete"),
    ("sensors.sensors[].program", "package"),
    ("sensors.sensors[].seen", "running"),
    ("clock.services", "services_complete"),
    ("logging.forwarders", "forwarders_complete"),
    ("logging.forwarders[].ways", "sends"),
    ("backup.clients", "complete"),
    ("accounts.administrators", "administrators_complete"),
    ("accounts.directories", "administrators_complete"),
    ("accounts.policy.delegates", "lockout_attempts"),
    ("remote_access.ssh.ports", "permit_root_login"),
    ("remote_access.ssh.listen_addresses", "permit_root_login"),
    ("remote_access.ssh.loosened_by", "permit_root_login"),
    ("remote_access.ssh.loosened_by", "password_authentication"),
    ("remote_access.ssh.loosened_by", "kbd_interactive_authentication"),
    ("removable_media.mechanisms", "policy"),
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
pub(super) fn rows() -> impl Iterator<Item = &'static Expected> {
    [core::ROWS, patch_level::ROWS, access::ROWS, posture::ROWS].into_iter().flatten()
}
