//! A host with every field of every fact told: the schema that conditions are checked against, and the base of fixtures.

use muster_proto::{fact::*, time::Timestamp};

use super::{Acknowledged, acknowledged, expression::Shape};

/// When the sample host is judged: 2026-06-01T00:00:00Z.
pub(crate) const NOW_SECONDS: i64 = 1_780_272_000;

/// Returns the names that conditions may read, and their shapes. `parameters` are those of the control.
pub(super) fn schema(
    parameters: &serde_json::Map<String, serde_json::Value>,
) -> std::collections::BTreeMap<String, Shape> {
    let mut schema: std::collections::BTreeMap<String, Shape> =
        full().iter().map(|fact| (fact.subject().as_str().to_owned(), numbered_times(&read_state(fact)))).collect();
    let shape = |json: serde_json::Value| Shape::of(&json);
    schema.insert("host".to_owned(), shape(serde_json::json!({"id": "", "class": ""})));
    schema.insert("reporting".to_owned(), shape(serde_json::json!({"silent_seconds": 0, "skew_millis": 0})));
    schema.insert("support".to_owned(), shape(serde_json::json!({"end_time": 0})));
    schema.insert("now".to_owned(), Shape::Int);
    let parameters = parameters.iter().map(|(name, value)| {
        let value = value.as_object().and_then(|by_class| by_class.get("*")).unwrap_or(value);
        (name.clone(), Shape::of(value))
    });
    schema.insert("param".to_owned(), Shape::Object(parameters.collect()));
    schema
}

/// Returns the JSON of a fact's state.
pub(super) fn state(fact: &Fact) -> serde_json::Value {
    let mut json = serde_json::to_value(fact).expect("facts are plain data");
    json["state"].take()
}

/// Returns the JSON of a fact's state with what conditions read beside it.
pub(super) fn read_state(fact: &Fact) -> serde_json::Value {
    let mut json = state(fact);
    acknowledged::add(&mut json, fact, &Acknowledged::default());
    json
}

/// Returns the shape of a fact, where times are numbers.
fn numbered_times(json: &serde_json::Value) -> Shape {
    match json {
        serde_json::Value::Object(fields) => Shape::Object(
            fields
                .iter()
                .map(|(name, value)| {
                    let shape =
                        if name.ends_with("_time") && !value.is_boolean() { Shape::Int } else { numbered_times(value) };
                    (name.clone(), shape)
                })
                .collect(),
        ),
        serde_json::Value::Array(items) => Shape::List(Box::new(items.first().map_or(Shape::Any, numbered_times))),
        json => Shape::of(json),
    }
}

/// Returns every fact with each of its fields told.
#[cfg(test)]
pub(crate) fn full_facts() -> Vec<Fact> {
    full()
}

/// Returns the facts of a host on which every control holds.
pub(crate) fn healthy() -> Vec<Fact> {
    let mut facts = full();
    for fact in &mut facts {
        match fact {
            Fact::PatchLevel(Reading::Known(patch)) => {
                patch.reboot_required = Reading::Known(false);
                patch.reboot_required_since_time = None;
                patch.reboot_packages.clear();
            }
            Fact::FileIntegrity(Reading::Known(integrity)) => {
                integrity.changes.clear();
                integrity.changes_total = 0;
                integrity.unreadable.clear();
                integrity.unreadable_total = 0;
            }
            Fact::Accounts(Reading::Known(accounts)) => {
                accounts.administrators.retain(|administrator| administrator.kind == AdministratorKind::Uid0);
                accounts.directories.clear();
                accounts.policy.delegates.clear();
            }
            Fact::RemoteAccess(Reading::Known(remote)) => remote.ssh.password_suffices = Reading::Known(false),
            _ => {}
        }
    }
    facts
}

fn text(text: &str) -> Text {
    Text::new(text)
}

fn path(path: &str) -> PathText {
    PathText::from_bytes(path.as_bytes())
}

fn known(value: &str) -> Reading<Text> {
    Reading::Known(text(value))
}

/// Returns the instant `days` before the sample is judged.
fn days_ago(days: i64) -> Timestamp {
    Timestamp::from_seconds(NOW_SECONDS - days * 86_400).expect("in range")
}

fn days_ahead(days: i64) -> Timestamp {
    days_ago(-days)
}

/// Returns facts with every field told, every list filled and every optional field set.
pub(super) fn full() -> Vec<Fact> {
    vec![
        Fact::System(Reading::Known(System {
            hostname: known("web-1"),
            os_family: OsFamily::Linux,
            os_id: known("debian"),
            os_version: known("12"),
            os_name: known("Debian GNU/Linux 12 (bookworm)"),
            kernel: known("6.1.0-30-amd64"),
            architecture: known("x86_64"),
            host_class: Reading::Known(HostClass::Server),
            machine_id_digest: known(&"0".repeat(64)),
            hardware_serial: known("S-1"),
            hardware_vendor: known("Example"),
            hardware_model: known("Rack 1"),
            processors: Reading::Known(2),
            memory_bytes: Reading::Known(4 << 30),
            secure_boot: Reading::Known(SecureBoot::On),
            execution_controls: vec![ExecutionControl {
                kind: ExecutionControlKind::Apparmor,
                mode: ExecutionControlMode::Enforce,
            }],
            execution_controls_complete: Reading::Known(true),
            clock_synchronized: Reading::Known(true),
        })),
        disk_encryption(),
        patch_level(),
        sensors(),
        Fact::Clock(Reading::Known(Clock {
            synchronized: Reading::Known(true),
            offset_millis: Reading::Known(100),
            max_error_millis: Reading::Known(5_000),
            estimated_error_millis: Reading::Known(100),
            services: vec![ClockService { name: ClockServiceName::Chrony, running: Reading::Known(true) }],
            services_complete: Reading::Known(true),
            last_sync_time: Reading::Known(days_ago(1)),
        })),
        Fact::Boot(Reading::Known(Boot {
            firmware: Reading::Known(Firmware::Uefi),
            tpm: Reading::Known(Tpm::Tpm2_0),
            measured_boot: Reading::Known(true),
            ima_measures: Reading::Known(false),
        })),
        Fact::Logging(Reading::Known(Logging {
            audit: KernelAudit {
                enabled: Reading::Known(true),
                immutable: Reading::Known(false),
                daemon_running: Reading::Known(true),
                lost: Reading::Known(0),
                backlog_limit: Reading::Known(8192),
                rules: Reading::Known(12),
                rules_digest: known(&"8".repeat(64)),
            },
            journal_storage: Reading::Known(JournalStorage::Persistent),
            kept_since_time: Reading::Known(days_ago(30)),
            forwarders: vec![Forwarder {
                program: ForwarderProgram::Rsyslog,
                running: Reading::Known(true),
                sends: Reading::Known(true),
                ways: vec![Transmission::SyslogTls],
            }],
            forwarders_complete: Reading::Known(true),
        })),
        Fact::Backup(Reading::Known(Backup {
            clients: vec![BackupClient {
                name: text("rsnapshot"),
                product: text("rsnapshot"),
                program: path("/usr/bin/rsnapshot"),
                package: known("rsnapshot"),
                version: known("1.5.1-1"),
                has_settings: Reading::Known(true),
                last_success_time: Reading::Known(days_ago(0)),
            }],
            complete: Reading::Known(true),
            table_time: days_ago(100),
            stamps: vec![BackupStamp {
                path: path("/var/lib/backup/stamp"),
                last_success_time: Reading::Known(days_ago(30)),
            }],
        })),
        Fact::Capacity(Reading::Known(Capacity {
            volumes: vec![VolumeSpace {
                mount_point: path("/"),
                file_system: text("ext4"),
                used_percent: Reading::Known(60),
                inodes_percent: Reading::Known(50),
            }],
            boot_time: Reading::Known(days_ago(3)),
        })),
        Fact::Software(Reading::Known(Software {
            packages: vec![Package {
                name: text("bash"),
                version: text("5.2.15-2+b7"),
                architecture: text("amd64"),
                manager: PackageManager::Dpkg,
            }],
        })),
        Fact::Firewall(Reading::Known(Firewall {
            inbound_ipv4: Reading::Known(Inbound::Deny),
            inbound_ipv6: Reading::Known(Inbound::Deny),
            input_chains: vec![InputChain {
                engine: FilterEngine::NfTables,
                family: FilterFamily::Inet,
                table: text("filter"),
                chain: text("input"),
                priority: 0,
                policy: ChainPolicy::Drop,
                default_verdict: DefaultVerdict::Drop,
                rule_count: 3,
                hook: None,
            }],
            managers: vec![FirewallManager::Ufw],
            rule_set_digest: known(&"1".repeat(64)),
            profiles: vec![FirewallProfile {
                engine: FilterEngine::WindowsFiltering,
                name: text("public"),
                enabled: Reading::Known(true),
                inbound: Reading::Known(Inbound::Deny),
                blocks_all: Some(Reading::Known(false)),
                stealth: Some(Reading::Known(true)),
            }],
        })),
        Fact::Listeners(Reading::Known(Listeners {
            listeners: vec![Listener {
                protocol: Transport::Tcp,
                address: text("0.0.0.0"),
                port: 22,
                program: known("sshd"),
                reachable: Some(Reading::Known(Reach::Any)),
            }],
        })),
        file_integrity(),
        Fact::Agent(Reading::Known(Agent {
            version: text("0.1.0"),
            program_digest: known(&"2".repeat(64)),
            matches_package: Reading::Known(true),
            settings_digest: text(&"3".repeat(64)),
            uid: 0,
            capabilities: known("000001ffffffffff"),
        })),
        accounts(),
        remote_access(),
        Fact::ScreenLock(Reading::Known(ScreenLock {
            sessions: Sessions::Graphical,
            users: vec![UserScreenLock {
                user: text("alice"),
                desktop: Desktop::Gnome,
                enabled: Reading::Known(true),
                idle_seconds: Reading::Known(300),
                grace_seconds: Reading::Known(0),
                enforced: Reading::Known(true),
            }],
        })),
        Fact::RemovableMedia(Reading::Known(RemovableMedia {
            policy: Reading::Known(RemovablePolicy::Block),
            mechanisms: vec![text("/etc/modprobe.d/usb.conf:1: install usb-storage /bin/false")],
            driver_loaded: Reading::Known(false),
        })),
    ]
}

fn accounts() -> Fact {
    let administrator = |name: &str, kind, via: &str| Administrator {
        name: text(name),
        kind,
        via: text(via),
        all_commands: true,
        no_password: false,
    };
    Fact::Accounts(Reading::Known(Accounts {
        accounts: vec![Account {
            name: text("alice"),
            uid: 1000,
            interactive: true,
            password: Reading::Known(PasswordState::Set),
            expired: Reading::Known(false),
            authorized_keys: Reading::Known(true),
            password_changed_time: Reading::Known(days_ago(400)),
            expires_time: Reading::Known(days_ahead(400)),
            last_login_time: Reading::Known(days_ago(2)),
            no_login_since_time: Reading::Known(days_ago(2)),
        }],
        administrators: vec![
            administrator("root", AdministratorKind::Uid0, ""),
            administrator("alice", AdministratorKind::Group, "sudo"),
        ],
        administrators_complete: Reading::Known(true),
        directories: vec![text("sss")],
        policy: PasswordPolicy {
            min_length: Reading::Known(14),
            lockout_attempts: Reading::Known(5),
            lockout_seconds: Reading::Known(900),
            history: Reading::Known(5),
            max_age_days: Reading::Known(365),
            delegates: vec![text("pam_sss")],
        },
    }))
}

fn remote_access() -> Fact {
    Fact::RemoteAccess(Reading::Known(RemoteAccess {
        ssh: SshServer {
            enabled: Reading::Known(true),
            running: Reading::Known(true),
            permit_root_login: Reading::Known(PermitRootLogin::No),
            password_authentication: Reading::Known(false),
            kbd_interactive_authentication: Reading::Known(false),
            pubkey_authentication: Reading::Known(true),
            permit_empty_passwords: Reading::Known(false),
            password_suffices: Reading::Known(true),
            ports: vec![22],
            listen_addresses: vec![text("192.0.2.1")],
            loosened_by: vec![text("passwordauthentication yes by Match User old (/etc/ssh/sshd_config:9)")],
        },
        programs: vec![RemoteProgram { name: text("xrdp"), listening: Reading::Known(false) }],
    }))
}

fn disk_encryption() -> Fact {
    let layers = || {
        vec![
            Layer {
                device: text("dm-0"),
                kind: LayerKind::Crypt,
                name: text("sda3_crypt"),
                crypt: Some(Crypt {
                    format: CryptFormat::Luks2,
                    cipher: known("aes-xts-plain64"),
                    key_bits: Reading::Known(512),
                    key_slots: Some(Reading::Known(KeySlots {
                        slots: vec![KeySlot { number: 0, kind: KeySlotKind::Passphrase }],
                    })),
                }),
                below: vec![text("sda3")],
            },
            Layer {
                device: text("sda3"),
                kind: LayerKind::Partition,
                name: text(""),
                crypt: None,
                below: vec![text("sda")],
            },
        ]
    };
    let volume = |mount: &str, source: &str, encrypted| Volume {
        mount_point: path(mount),
        file_system: text("ext4"),
        source: path(source),
        kind: VolumeKind::Fixed,
        layers: layers(),
        encrypted: Reading::Known(encrypted),
        protection: Some(Reading::Known(if encrypted { Protection::On } else { Protection::Off })),
        encrypted_percent: Some(Reading::Known(100)),
        key_protectors: vec![KeyProtector::Tpm],
        encrypted_folders: vec![path("/home/alice")],
    };
    Fact::DiskEncryption(Reading::Known(DiskEncryption {
        volumes: vec![volume("/", "/dev/mapper/sda3_crypt", true), volume("/boot", "/dev/sda2", false)],
        swap_areas: vec![SwapArea {
            name: path("/dev/dm-1"),
            kind: SwapKind::Partition,
            layers: layers(),
            encrypted: Reading::Known(true),
        }],
        volumes_complete: Some(Reading::Known(true)),
    }))
}

fn patch_level() -> Fact {
    Fact::PatchLevel(Reading::Known(PatchLevel {
        manager: PackageManager::Apt,
        pending: vec![PendingUpdate {
            package: text("openssl"),
            architecture: text("amd64"),
            installed_version: text("3.0.15-1~deb12u1"),
            candidate_version: text("3.0.16-1~deb12u1"),
            security: true,
            held: false,
            origin: text("Debian-Security"),
            first_offered_time: days_ago(2),
            available_after_time: Some(Reading::Known(days_ago(3))),
            phased_percent: Some(Reading::Known(100)),
        }],
        pending_complete: Reading::Known(true),
        sources: vec![UpdateSource {
            label: text("Debian-Security"),
            codename: text("bookworm-security"),
            suite: text("stable-security"),
            security: true,
            release_time: Reading::Known(days_ago(1)),
            valid_until_time: Reading::Known(days_ahead(6)),
            origin: text("Debian"),
            verified: Some(Reading::Known(true)),
        }],
        security_metadata_time: Reading::Known(days_ago(1)),
        security_metadata_valid_until_time: Reading::Known(days_ahead(6)),
        running_kernel: known("6.1.0-30-amd64"),
        newest_kernel: known("6.1.0-30-amd64"),
        reboot_required: Reading::Known(true),
        reboot_required_since_time: Some(Reading::Known(days_ago(1))),
        reboot_packages: vec![text("linux-image-amd64")],
        automatic_updates: AutomaticUpdates {
            enabled: Reading::Known(true),
            last_success_time: Reading::Known(days_ago(1)),
        },
        security_metadata_verified: Some(Reading::Known(true)),
        live_patches: vec![text("livepatch_cve")],
    }))
}

fn file_integrity() -> Fact {
    let watched =
        |name: &str| WatchedPath { path: path(name), entries: Reading::Known(100), whole: Some(Reading::Known(true)) };
    let state = |digit: &str| FileState {
        r#type: FileType::File,
        sha256: text(&digit.repeat(64)),
        size_bytes: 10,
        mode: 0o644,
        uid: 0,
        gid: 0,
        modified_time: Reading::Known(days_ago(3)),
        changed_time: Some(Reading::Known(days_ago(3))),
        inode: 12,
        links: 1,
        md5: text(&"8".repeat(32)),
        extended_attributes: vec![ExtendedAttribute {
            name: text("security.capability"),
            sha256: text(&"9".repeat(64)),
            meaning: text("cap_net_raw=ep"),
        }],
    };
    let explanation = Explanation {
        source: ExplanationSource::Dpkg,
        package: text("openssl"),
        version: text("3.0.17-1~deb12u3"),
        basis: text("md5"),
    };
    Fact::FileIntegrity(Reading::Known(FileIntegrity {
        paths: vec![
            watched("/boot"),
            watched("/etc"),
            watched("/usr/bin"),
            watched("/usr/lib/systemd"),
            watched("/usr/sbin"),
        ],
        baseline: Baseline {
            id: text(&"4".repeat(32)),
            created_time: days_ago(30),
            reason: text("first scan"),
            entries: 500,
            digest: text(&"5".repeat(64)),
        },
        entries: 500,
        unreadable: vec![UnreadablePath {
            path: path("/etc/secret"),
            unknown: Unknown::new(Cause::Forbidden, "EACCES"),
        }],
        unreadable_total: 1,
        changes: vec![FileChange {
            path: path("/etc/passwd"),
            kind: ChangeKind::Content,
            before: Some(state("6")),
            after: Some(state("7")),
            last_unchanged_time: days_ago(2),
            detected_time: days_ago(1),
            while_not_observed: false,
            set: text("system"),
            explanation: None,
            actors: vec![Actor {
                time: days_ago(1),
                pid: 4242,
                program: known("/usr/bin/vim.basic"),
                uid: Reading::Known(0),
                login_uid: Reading::Known(1000),
                parent_pid: Reading::Known(4100),
                parent_program: known("/usr/bin/bash"),
                source: text("fanotify"),
            }],
            states_seen: 1,
        }],
        changes_total: 1,
        explained_total: 3,
        watch: WatchState::Live,
        sets: vec![WatchSet {
            name: text("system"),
            severity: Severity::High,
            owner: text("platform team"),
            entries: 500,
            changes_total: 1,
            explained_total: 3,
            unreadable_total: 1,
            digest: text(&"a".repeat(64)),
        }],
        explained: vec![ExplainedChanges {
            explanation,
            changes_total: 3,
            first_detected_time: days_ago(1),
            last_detected_time: days_ago(1),
        }],
        explained_groups_total: 1,
        folders_live: 40,
        folders_scan_only: 1,
        scan_only: vec![UnreadablePath {
            path: path("/etc/ssl"),
            unknown: Unknown::new(Cause::Limit, "no watch is left"),
        }],
        scan_only_total: 1,
        reread_seconds: 86_400,
        reread_in_time: Some(Reading::Known(true)),
        state_digest: text(&"b".repeat(64)),
    }))
}

fn sensors() -> Fact {
    Fact::Sensors(Reading::Known(Sensors {
        sensors: vec![Sensor {
            name: text("clamav"),
            product: text("ClamAV"),
            vendor: text("Cisco Talos"),
            kind: SensorKind::MalwareProtection,
            program: path("/usr/sbin/clamd"),
            package: known("clamav-daemon"),
            version: known("1.0.9+dfsg-1~deb12u1"),
            running: Reading::Known(true),
            seen: SensorSeen::Program,
            mode: Reading::Known(SensorMode::Block),
            uses_definitions: true,
            definitions_time: Some(Reading::Known(days_ago(1))),
        }],
        complete: Reading::Known(true),
        table_time: days_ago(100),
    }))
}
