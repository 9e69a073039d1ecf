//! Who may sign in and how: accounts, remote access, screen lock, removable media.

use serde::{Deserialize, Serialize};

use super::{Reading, Text, text_enum};
use crate::time::Timestamp;

text_enum!(
    /// What stands for an account's password.
    PasswordState { Set = "set", Empty = "empty", Locked = "locked", None = "none" }
);
text_enum!(
    /// How somebody may act as the superuser.
    AdministratorKind { Uid0 = "uid_0", Group = "group", Sudoers = "sudoers" }
);
text_enum!(
    /// Whether the superuser may sign in by SSH.
    PermitRootLogin {
        Yes = "yes", ProhibitPassword = "prohibit_password", ForcedCommandsOnly = "forced_commands_only", No = "no",
    }
);
text_enum!(
    /// Kind of sessions that a person can have at the host.
    Sessions { Graphical = "graphical", Console = "console" }
);
text_enum!(
    /// Desktop environment.
    Desktop { Gnome = "gnome", Kde = "kde", Other = "other" }
);
text_enum!(
    /// What becomes of storage that is plugged in.
    RemovablePolicy { Block = "block", ReadOnly = "read_only", EncryptedOnly = "encrypted_only", Allow = "allow" }
);

/// Accounts of the host's own files.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Accounts {
    pub accounts: Vec<Account>,
    pub administrators: Vec<Administrator>,
    pub administrators_complete: Reading<bool>,
    pub directories: Vec<Text>,
    pub policy: PasswordPolicy,
}

/// An account of passwd(5).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Account {
    pub name: Text,
    pub uid: u32,
    pub interactive: bool,
    pub password: Reading<PasswordState>,
    pub expired: Reading<bool>,
    pub authorized_keys: Reading<bool>,
    pub password_changed_time: Reading<Timestamp>,
    pub expires_time: Reading<Timestamp>,
    pub last_login_time: Reading<Timestamp>,
    pub no_login_since_time: Reading<Timestamp>,
}

/// A way to act as the superuser.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct Administrator {
    pub name: Text,
    pub kind: AdministratorKind,
    pub via: Text,
    pub all_commands: bool,
    pub no_password: bool,
}

/// What a local password must be.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct PasswordPolicy {
    pub min_length: Reading<u64>,
    pub lockout_attempts: Reading<u64>,
    pub lockout_seconds: Reading<u64>,
    pub history: Reading<u64>,
    pub max_age_days: Reading<u64>,
    pub delegates: Vec<Text>,
}

/// Programs by which a person works on the host from elsewhere.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct RemoteAccess {
    pub ssh: SshServer,
    pub programs: Vec<RemoteProgram>,
}

/// OpenSSH's server.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct SshServer {
    pub enabled: Reading<bool>,
    pub running: Reading<bool>,
    pub permit_root_login: Reading<PermitRootLogin>,
    pub password_authentication: Reading<bool>,
    pub kbd_interactive_authentication: Reading<bool>,
    pub pubkey_authentication: Reading<bool>,
    pub permit_empty_passwords: Reading<bool>,
    pub password_suffices: Reading<bool>,
    pub ports: Vec<u16>,
    pub listen_addresses: Vec<Text>,
    pub loosened_by: Vec<Text>,
}

/// A known program for remote work.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct RemoteProgram {
    pub name: Text,
    pub listening: Reading<bool>,
}

/// Locking of idle sessions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct ScreenLock {
    pub sessions: Sessions,
    pub users: Vec<UserScreenLock>,
}

/// What one account's settings in one desktop come to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct UserScreenLock {
    pub user: Text,
    pub desktop: Desktop,
    pub enabled: Reading<bool>,
    pub idle_seconds: Reading<u64>,
    pub grace_seconds: Reading<u64>,
    pub enforced: Reading<bool>,
}

/// Whether USB storage can be used.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fact.proto documents each field")]
pub struct RemovableMedia {
    pub policy: Reading<RemovablePolicy>,
    pub mechanisms: Vec<Text>,
    pub driver_loaded: Reading<bool>,
}
