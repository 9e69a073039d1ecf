//! Accounts, remote access, screen lock and removable media as lines.

use super::{ITEMS, more, table, text, value, yes_no};
use crate::{
    fact::{
        Account, Accounts, Administrator, AdministratorKind, Reading, RemoteAccess, RemovableMedia, ScreenLock,
        Sessions, SshServer, Text, UserScreenLock,
    },
    words::counted,
};

pub(super) fn accounts(state: &Accounts) -> Vec<String> {
    let policy = &state.policy;
    let lockout = match &policy.lockout_attempts {
        Reading::Known(0) => "never".to_owned(),
        attempts => format!("after {} failures, for {} s", text(attempts), text(&policy.lockout_seconds)),
    };
    let mut lines = table(&[
        ("accounts", format!("{}, of the host's own files", state.accounts.len())),
        ("directories", names(&state.directories, "none")),
        ("all admins", yes_no(&state.administrators_complete)),
        ("password", format!("{} characters, history {}", text(&policy.min_length), text(&policy.history))),
        ("lockout", lockout),
        ("max age", value(&policy.max_age_days, |days| counted(*days, "day"))),
        ("delegated to", names(&policy.delegates, "nothing")),
    ]);
    lines.extend(state.administrators.iter().take(ITEMS).map(administrator));
    lines.extend(more(state.administrators.len(), "administrators"));
    // Those that may sign in are what a person looks for.
    let (open, closed): (Vec<&Account>, Vec<&Account>) = state.accounts.iter().partition(|account| account.interactive);
    lines.extend(open.iter().take(ITEMS).map(|account| {
        format!(
            "account {} ({}): password {}, keys {}, expired {}, last sign-in {}",
            account.name,
            account.uid,
            value(&account.password, |state| state.as_str().to_owned()),
            yes_no(&account.authorized_keys),
            yes_no(&account.expired),
            text(&account.last_login_time)
        )
    }));
    lines.extend(more(open.len(), "accounts"));
    if !closed.is_empty() {
        lines.push(format!("{} accounts have no shell to sign in to", closed.len()));
    }
    lines
}

fn administrator(administrator: &Administrator) -> String {
    let how = match administrator.kind {
        AdministratorKind::Uid0 => "user id 0".to_owned(),
        AdministratorKind::Group => format!("member of {}", administrator.via),
        AdministratorKind::Sudoers => format!(
            "{}: {}{}",
            administrator.via,
            if administrator.all_commands { "any command" } else { "some commands" },
            if administrator.no_password { ", NO PASSWORD" } else { "" }
        ),
    };
    format!("admin {}: {how}", administrator.name)
}

pub(super) fn remote_access(state: &RemoteAccess) -> Vec<String> {
    let mut lines = if state.ssh.enabled == Reading::Known(false) && state.ssh.ports.is_empty() {
        table(&[("SSH server", "none".to_owned())])
    } else {
        ssh_server(&state.ssh)
    };
    lines.extend(
        state
            .programs
            .iter()
            .take(ITEMS)
            .map(|program| format!("program {}: listening {}", program.name, yes_no(&program.listening))),
    );
    lines.extend(more(state.programs.len(), "programs"));
    lines
}

fn ssh_server(ssh: &SshServer) -> Vec<String> {
    let ports: Vec<String> = ssh.ports.iter().take(ITEMS).map(u16::to_string).collect();
    let mut lines = table(&[
        ("SSH server", format!("enabled {}, running {}", yes_no(&ssh.enabled), yes_no(&ssh.running))),
        ("listens on", format!("port {}, address {}", ports.join(", "), names(&ssh.listen_addresses, "any"))),
        ("root", value(&ssh.permit_root_login, |permit| permit.as_str().replace('_', " "))),
        (
            "passwords",
            format!(
                "{}, keyboard-interactive {}, empty ones {}, enough alone {}",
                yes_no(&ssh.password_authentication),
                yes_no(&ssh.kbd_interactive_authentication),
                yes_no(&ssh.permit_empty_passwords),
                yes_no(&ssh.password_suffices)
            ),
        ),
        ("public keys", yes_no(&ssh.pubkey_authentication)),
    ]);
    lines.extend(ssh.loosened_by.iter().take(ITEMS).map(|rule| format!("loosened by {rule}")));
    lines.extend(more(ssh.loosened_by.len(), "rules that loosen"));
    lines
}

pub(super) fn screen_lock(state: &ScreenLock) -> Vec<String> {
    let mut lines = vec![match state.sessions {
        Sessions::Console => "no graphical sessions".to_owned(),
        Sessions::Graphical => "graphical sessions".to_owned(),
    }];
    lines.extend(state.users.iter().take(ITEMS).map(user));
    lines.extend(more(state.users.len(), "settings"));
    lines
}

fn user(user: &UserScreenLock) -> String {
    format!(
        "{} ({}): locks {}, after {} s, password after {} s more, fixed by policy {}",
        if user.user.is_empty() { "without own settings" } else { user.user.as_str() },
        user.desktop.as_str(),
        yes_no(&user.enabled),
        value(&user.idle_seconds, |seconds| if *seconds == 0 { "never".to_owned() } else { seconds.to_string() }),
        text(&user.grace_seconds),
        yes_no(&user.enforced)
    )
}

pub(super) fn removable_media(state: &RemovableMedia) -> Vec<String> {
    let mut lines = table(&[
        ("USB storage", value(&state.policy, |policy| policy.as_str().replace('_', " "))),
        ("driver loaded", yes_no(&state.driver_loaded)),
    ]);
    lines.extend(state.mechanisms.iter().take(ITEMS).map(|mechanism| format!("by {mechanism}")));
    lines.extend(more(state.mechanisms.len(), "mechanisms"));
    lines
}

fn names(names: &[Text], none: &str) -> String {
    if names.is_empty() {
        return none.to_owned();
    }
    let mut shown: Vec<String> = names.iter().take(ITEMS).map(ToString::to_string).collect();
    shown.extend(more(names.len(), "others"));
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use crate::fact::{Fact, Reading, render, sample};

    #[test]
    fn an_administrator_who_needs_no_password_stands_out() {
        let lines = render(&Fact::Accounts(Reading::Known(sample::accounts())));
        let line = "admin alice: /etc/sudoers.d/alice:1: any command, NO PASSWORD";
        assert!(lines.iter().any(|shown| shown == line), "{lines:#?}");
    }

    #[test]
    fn an_account_without_settings_of_its_own_is_named_as_such() {
        let lines = render(&Fact::ScreenLock(Reading::Known(sample::screen_lock())));
        let line = "without own settings (gnome): locks yes, after 300 s, password after 0 s more, fixed by policy no";
        assert_eq!(lines[1], line);
    }
}
