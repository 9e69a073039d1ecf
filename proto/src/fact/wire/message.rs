//! Each message with its fields, in the order of `fact.proto`, and the enums that travel as text.

use std::collections::BTreeSet;

use crate::{fact::*, v1};

use super::{
    Error, check,
    value::{Wire, readable, required},
};

macro_rules! text_enums {
    ($($type:ident),* $(,)?) => {
        /// Returns every word that a field of a fact may hold which is no free text, ordered.
        pub fn words() -> BTreeSet<&'static str> {
            [$($type::WORDS),*].concat().into_iter().collect()
        }

        $(
        impl Wire for $type {
            type Message = String;

            fn encode(&self) -> String {
                self.as_str().to_owned()
            }

            fn decode(message: String, field: &'static str) -> Result<Self, Error> {
                Self::parse(&message).ok_or_else(|| check::no_word(&message, field))
            }
        }

        readable!($type => TextReading in text_reading);
    )* };
}

text_enums!(
    AdministratorKind,
    ChainPolicy,
    ChangeKind,
    ClockServiceName,
    CryptFormat,
    DefaultVerdict,
    Desktop,
    ExecutionControlKind,
    ExecutionControlMode,
    ExplanationSource,
    FileType,
    FilterEngine,
    FilterFamily,
    FilterHook,
    FirewallManager,
    Firmware,
    ForwarderProgram,
    HostClass,
    Inbound,
    KeyProtector,
    KeySlotKind,
    JournalStorage,
    LayerKind,
    OsFamily,
    PackageManager,
    PasswordState,
    PermitRootLogin,
    RemovablePolicy,
    Protection,
    Reach,
    SecureBoot,
    Sessions,
    SensorKind,
    Severity,
    SensorMode,
    SensorSeen,
    SwapKind,
    Tpm,
    Transmission,
    Transport,
    VolumeKind,
    WatchState,
);

/// A struct and the message of the same name and fields. `required` fields are those that are messages themselves, which
/// proto3 lets a sender leave out; `check` says what else the contract asks of the whole.
macro_rules! message {
    ($type:ident { $($plain:ident),* $(,)? } required { $($required:ident),* $(,)? } check $check:expr) => {
        impl Wire for $type {
            type Message = v1::$type;

            fn encode(&self) -> v1::$type {
                v1::$type {
                    $($plain: self.$plain.encode(),)*
                    $($required: Some(self.$required.encode()),)*
                }
            }

            fn decode(message: v1::$type, _field: &'static str) -> Result<Self, Error> {
                let value = Self {
                    $($plain: Wire::decode(message.$plain, concat!(stringify!($type), ".", stringify!($plain)))?,)*
                    $($required: required(message.$required, concat!(stringify!($type), ".", stringify!($required)))?,)*
                };
                let check: fn(&Self) -> Result<(), Error> = $check;
                check(&value)?;
                Ok(value)
            }
        }
    };
    ($type:ident { $($plain:ident),* $(,)? } required { $($required:ident),* $(,)? }) => {
        message!($type { $($plain),* } required { $($required),* } check |_| Ok(()));
    };
}

message!(System { os_family, execution_controls } required {
    hostname, os_id, os_version, os_name, kernel, architecture, host_class, machine_id_digest, hardware_serial,
    hardware_vendor, hardware_model, processors, memory_bytes, secure_boot, execution_controls_complete,
    clock_synchronized,
} check |system| check::read_digest(&system.machine_id_digest, "System.machine_id_digest"));
message!(ExecutionControl { kind, mode } required {});

message!(DiskEncryption { volumes, swap_areas, volumes_complete } required {});
message!(Volume {
    mount_point, file_system, source, kind, layers, protection, encrypted_percent, key_protectors, encrypted_folders,
} required { encrypted } check check::volume);
message!(SwapArea { name, kind, layers } required { encrypted });

impl Wire for Layer {
    type Message = v1::Layer;

    fn encode(&self) -> v1::Layer {
        v1::Layer {
            device: self.device.encode(),
            kind: self.kind.encode(),
            name: self.name.encode(),
            format: self.crypt.as_ref().map(|crypt| crypt.format.encode()).unwrap_or_default(),
            cipher: self.crypt.as_ref().map(|crypt| crypt.cipher.encode()),
            key_bits: self.crypt.as_ref().map(|crypt| crypt.key_bits.encode()),
            below: self.below.encode(),
            key_slots: self.crypt.as_ref().and_then(|crypt| crypt.key_slots.encode()),
        }
    }

    fn decode(message: v1::Layer, _field: &'static str) -> Result<Self, Error> {
        let kind = LayerKind::decode(message.kind, "Layer.kind")?;
        let crypt = if kind == LayerKind::Crypt {
            Some(Crypt {
                format: CryptFormat::decode(message.format, "Layer.format")?,
                cipher: required(message.cipher, "Layer.cipher")?,
                key_bits: required(message.key_bits, "Layer.key_bits")?,
                key_slots: Wire::decode(message.key_slots, "Layer.key_slots")?,
            })
        } else if message.format.is_empty()
            && message.cipher.is_none()
            && message.key_bits.is_none()
            && message.key_slots.is_none()
        {
            None
        } else {
            return Err(Error::Field("Layer.format"));
        };
        Ok(Self {
            device: Text::decode(message.device, "Layer.device")?,
            kind,
            name: Text::decode(message.name, "Layer.name")?,
            crypt,
            below: Vec::decode(message.below, "Layer.below")?,
        })
    }
}

message!(KeySlots { slots } required {});
message!(KeySlot { number, kind } required {});

message!(PatchLevel {
    manager, pending, sources, reboot_packages, reboot_required_since_time, security_metadata_verified, live_patches,
} required {
    pending_complete, security_metadata_time, security_metadata_valid_until_time, running_kernel, newest_kernel,
    reboot_required, automatic_updates,
});
message!(PendingUpdate {
    package, architecture, installed_version, candidate_version, security, held, origin, available_after_time,
    phased_percent,
} required { first_offered_time });
message!(UpdateSource { label, codename, suite, security, origin, verified } required { release_time, valid_until_time });
message!(AutomaticUpdates {} required { enabled, last_success_time });

message!(Software { packages } required {});
message!(Package { name, version, architecture, manager } required {});

message!(Firewall { input_chains, managers, profiles } required { inbound_ipv4, inbound_ipv6, rule_set_digest }
    check |firewall| check::read_digest(&firewall.rule_set_digest, "Firewall.rule_set_digest"));
message!(InputChain { engine, family, table, chain, priority, policy, default_verdict, rule_count, hook } required {});

message!(FirewallProfile { engine, name, blocks_all, stealth } required { enabled, inbound });

message!(Listeners { listeners } required {});
message!(Listener { protocol, address, port, reachable } required { program }
    check |listener| check::holds(listener.port != 0, "Listener.port"));

message!(FileIntegrity {
    paths, entries, unreadable, unreadable_total, changes, changes_total, explained_total, watch, sets, explained,
    explained_groups_total, folders_live, folders_scan_only, scan_only, scan_only_total, reread_seconds, reread_in_time,
    state_digest,
} required { baseline } check check::file_integrity);
message!(WatchSet {
    name, severity, owner, entries, changes_total, explained_total, unreadable_total, digest,
} required {} check check::watch_set);
message!(ExplainedChanges { changes_total } required { explanation, first_detected_time, last_detected_time });
message!(Explanation { source, package, version, basis } required {} check check::explanation);
message!(WatchedPath { path, whole } required { entries });
message!(Baseline { id, reason, entries, digest } required { created_time } check check::baseline);
message!(UnreadablePath { path } required { unknown });
message!(FileChange {
    path, kind, before, after, while_not_observed, set, explanation, actors, states_seen,
} required { last_unchanged_time, detected_time } check check::file_change);
message!(Actor { pid, source } required { time, program, uid, login_uid, parent_pid, parent_program }
    check |actor| check::word(&actor.source, "Actor.source"));
message!(FileState {
    r#type, sha256, size_bytes, mode, uid, gid, changed_time, inode, links, md5, extended_attributes,
} required { modified_time } check check::file_state);
message!(ExtendedAttribute { name, sha256, meaning } required {}
    check |attribute| check::digest(&attribute.sha256, "ExtendedAttribute.sha256"));

message!(Agent { version, settings_digest, uid } required { program_digest, matches_package, capabilities }
    check check::agent);

message!(Accounts { accounts, administrators, directories } required { administrators_complete, policy });
message!(Account { name, uid, interactive } required {
    password, expired, authorized_keys, password_changed_time, expires_time, last_login_time, no_login_since_time,
});
message!(Administrator { name, kind, via, all_commands, no_password } required {});
message!(PasswordPolicy { delegates } required {
    min_length, lockout_attempts, lockout_seconds, history, max_age_days,
});

message!(RemoteAccess { programs } required { ssh });
message!(SshServer { ports, listen_addresses, loosened_by } required {
    enabled, running, permit_root_login, password_authentication, kbd_interactive_authentication,
    pubkey_authentication, permit_empty_passwords, password_suffices,
});
message!(RemoteProgram { name } required { listening });

message!(ScreenLock { sessions, users } required {});
message!(UserScreenLock { user, desktop } required { enabled, idle_seconds, grace_seconds, enforced });

message!(RemovableMedia { mechanisms } required { policy, driver_loaded });

message!(Sensors { sensors } required { complete, table_time });
message!(Sensor {
    name, product, vendor, kind, program, seen, uses_definitions, definitions_time,
} required { package, version, running, mode } check check::sensor);

message!(Clock { services } required {
    synchronized, offset_millis, max_error_millis, estimated_error_millis, services_complete, last_sync_time,
});
message!(ClockService { name } required { running });

message!(Boot {} required { firmware, tpm, measured_boot, ima_measures });

message!(Capacity { volumes } required { boot_time });
message!(VolumeSpace { mount_point, file_system } required { used_percent, inodes_percent }
    check check::volume_space);

message!(Backup { clients, stamps } required { complete, table_time });
message!(BackupClient { name, product, program } required { package, version, has_settings, last_success_time }
    check |client| check::word(&client.name, "BackupClient.name"));
message!(BackupStamp { path } required { last_success_time });

message!(Logging { forwarders } required { audit, journal_storage, kept_since_time, forwarders_complete });
message!(KernelAudit {} required { enabled, immutable, daemon_running, lost, backlog_limit, rules, rules_digest }
    check |audit| check::read_digest(&audit.rules_digest, "KernelAudit.rules_digest"));
message!(Forwarder { program, ways } required { running, sends });

readable!(
    System => SystemFact in system_fact,
    DiskEncryption => DiskEncryptionFact in disk_encryption_fact,
    KeySlots => KeySlotsReading in key_slots_reading,
    PatchLevel => PatchLevelFact in patch_level_fact,
    Software => SoftwareFact in software_fact,
    Firewall => FirewallFact in firewall_fact,
    Listeners => ListenersFact in listeners_fact,
    FileIntegrity => FileIntegrityFact in file_integrity_fact,
    Agent => AgentFact in agent_fact,
    Accounts => AccountsFact in accounts_fact,
    RemoteAccess => RemoteAccessFact in remote_access_fact,
    ScreenLock => ScreenLockFact in screen_lock_fact,
    RemovableMedia => RemovableMediaFact in removable_media_fact,
    Sensors => SensorsFact in sensors_fact,
    Clock => ClockFact in clock_fact,
    Logging => LoggingFact in logging_fact,
    Boot => BootFact in boot_fact,
    Capacity => CapacityFact in capacity_fact,
    Backup => BackupFact in backup_fact,
);
