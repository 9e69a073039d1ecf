//! Accounts, remote access, screen lock and removable media of the made-up host.

use super::time;
use crate::fact::{
    Account, Accounts, Administrator, AdministratorKind, Cause, Desktop, PasswordPolicy, PasswordState,
    PermitRootLogin, Reading, RemoteAccess, RemoteProgram, RemovableMedia, RemovablePolicy, ScreenLock, Sessions,
    SshServer, UserScreenLock,
};

const DAY: i64 = 86_400;

/// Returns an administrator who signed in an hour ago, on a host with a directory.
pub fn accounts() -> Accounts {
    let administrator = |name: &str, kind, via: &str, no_password| Administrator {
        name: name.into(),
        kind,
        via: via.into(),
        all_commands: true,
        no_password,
    };
    Accounts {
        accounts: vec![Account {
            name: "alice".into(),
            uid: 1000,
            interactive: true,
            password: Reading::Known(PasswordState::Set),
            expired: Reading::Known(false),
            authorized_keys: Reading::Known(true),
            password_changed_time: Reading::Known(time(-200 * DAY)),
            expires_time: Reading::unknown(Cause::Absent, ""),
            last_login_time: Reading::Known(time(-3600)),
            no_login_since_time: Reading::Known(time(-3600)),
        }],
        administrators: vec![
            administrator("alice", AdministratorKind::Group, "sudo", false),
            administrator("alice", AdministratorKind::Sudoers, "/etc/sudoers.d/alice:1", true),
            administrator("root", AdministratorKind::Uid0, "", false),
        ],
        administrators_complete: Reading::Known(true),
        directories: vec!["sss".into()],
        policy: PasswordPolicy {
            min_length: Reading::Known(12),
            lockout_attempts: Reading::Known(5),
            lockout_seconds: Reading::Known(600),
            history: Reading::Known(0),
            max_age_days: Reading::unknown(Cause::Absent, ""),
            delegates: vec!["pam_sss".into()],
        },
    }
}

/// Returns an SSH server that takes keys alone, but for one address.
pub fn remote_access() -> RemoteAccess {
    RemoteAccess {
        ssh: SshServer {
            enabled: Reading::Known(true),
            running: Reading::Known(true),
            permit_root_login: Reading::Known(PermitRootLogin::ProhibitPassword),
            password_authentication: Reading::Known(true),
            kbd_interactive_authentication: Reading::Known(false),
            pubkey_authentication: Reading::Known(true),
            permit_empty_passwords: Reading::Known(false),
            password_suffices: Reading::Known(true),
            ports: vec![22, 2222],
            listen_addresses: vec!["192.0.2.7".into()],
            loosened_by: vec!["PasswordAuthentication yes by Match Address 192.0.2.8 (/etc/ssh/sshd_config:9)".into()],
        },
        programs: vec![RemoteProgram { name: "xrdp".into(), listening: Reading::Known(false) }],
    }
}

/// Returns a desktop with the defaults of GNOME.
pub fn screen_lock() -> ScreenLock {
    ScreenLock {
        sessions: Sessions::Graphical,
        users: vec![UserScreenLock {
            user: "".into(),
            desktop: Desktop::Gnome,
            enabled: Reading::Known(true),
            idle_seconds: Reading::Known(300),
            grace_seconds: Reading::Known(0),
            enforced: Reading::Known(false),
        }],
    }
}

/// Returns a host that loads no driver for USB storage.
pub fn removable_media() -> RemovableMedia {
    RemovableMedia {
        policy: Reading::Known(RemovablePolicy::Block),
        mechanisms: vec!["/etc/modprobe.d/usb.conf:1: install usb-storage /bin/false".into()],
        driver_loaded: Reading::Known(false),
    }
}
