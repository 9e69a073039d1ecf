//! Whether a password alone is enough for a service of PAM, or something else is surely asked for beside it.

use muster_proto::fact::{Reading, Unknown};

use super::{
    stack::{Action, DIRECTORIES, Line, stack},
    told,
    walk::{self, May},
};
use crate::host::Host;

/// Modules that refuse whoever does not show a second factor, and the arguments with which they surely do: with none of these is an
/// account let in that has no factor, or one that has lately shown it.
const FACTORS: [(&str, &[&str]); 3] = [
    (
        "pam_google_authenticator",
        &[
            "allow_readonly",
            "allowed_perm",
            "authtok_prompt",
            "debug",
            "echo-verification-code",
            "echo_verification_code",
            "forward_pass",
            "no_increment_hotp",
            "no_strict_owner",
            "noskewadj",
            "secret",
            "try_first_pass",
            "use_first_pass",
            "user",
        ],
    ),
    ("pam_oath", &["debug", "digits", "try_first_pass", "use_first_pass", "usersfile", "window"]),
    ("pam_yubico", &["authfile", "debug", "id", "key", "try_first_pass", "url", "urllist", "use_first_pass"]),
];
/// Modules that ask for a password, or for nothing that somebody would have to show beside it.
const PLAIN: [&str; 26] = [
    "pam_cap",
    "pam_deny",
    "pam_echo",
    "pam_ecryptfs",
    "pam_env",
    "pam_faildelay",
    "pam_faillock",
    "pam_gnome_keyring",
    "pam_group",
    "pam_kwallet",
    "pam_kwallet5",
    "pam_limits",
    "pam_mount",
    "pam_nologin",
    // It knows of no account of the host itself.
    "pam_oslogin_login",
    "pam_permit",
    "pam_reauthorize",
    "pam_securetty",
    "pam_selinux_permit",
    "pam_sepermit",
    "pam_shells",
    "pam_tally",
    "pam_tally2",
    "pam_unix",
    "pam_userdb",
    "pam_warn",
];
/// Modules that choose whom the lines behind them are for.
const CHOOSERS: [&str; 7] =
    ["pam_access", "pam_listfile", "pam_localuser", "pam_succeed_if", "pam_time", "pam_usertype", "pam_wheel"];

/// Returns whether a service lets in who shows a password alone.
pub fn password_suffices(host: &dyn Host, service: &str) -> Reading<bool> {
    told(stack(host, service, "auth").and_then(|lines| suffices(&lines)))
}

fn suffices(lines: &[Line]) -> Result<bool, Unknown> {
    let at_most = |line: &Line| match line.module.as_str() {
        "pam_permit" => May::SUCCEED,
        "pam_deny" => May::FAIL,
        _ if is_factor(line) => May::FAIL,
        _ => May::ANY,
    };
    if walk::passes(lines, &at_most).is_none() {
        return Ok(false);
    }
    let is_chooser = |line: &Line| CHOOSERS.contains(&line.module.as_str());
    let is_plain = |line: &Line| {
        let module = line.module.as_str();
        // A substack begins.
        module.is_empty() || PLAIN.contains(&module) || DIRECTORIES.contains(&module)
    };
    let Some(other) = lines.iter().find(|line| !is_plain(line) && !is_chooser(line)) else { return Ok(true) };
    let untold = || other.undecidable("may ask for more than a password");
    if lines.iter().any(|line| !is_plain(line) && hangs_on_more(line)) {
        return Err(untold());
    }
    let at_least = |line: &Line| match line.module.as_str() {
        "pam_permit" => May::SUCCEED,
        "pam_deny" => May::FAIL,
        _ if is_plain(line) => May::ANY,
        _ => May::FAIL,
    };
    walk::passes(lines, &at_least).map(|_| true).ok_or_else(untold)
}

/// Returns whether it hangs on why a module refuses, or on whom it chooses, where the stack goes on.
fn hangs_on_more(line: &Line) -> bool {
    let actions = line.actions().into_iter();
    let others = actions.filter(|(name, _)| !matches!(*name, "success" | "new_authtok_reqd" | "ignore"));
    let others: Vec<Action> = others.map(|(_, action)| action).collect();
    let fails = |action: &Action| matches!(action, Action::Bad | Action::Die);
    let jumps = |action: &Action| matches!(action, Action::Jump(_) | Action::Done);
    others.iter().any(fails) != others.iter().all(fails) || others.iter().any(jumps)
}

fn is_factor(line: &Line) -> bool {
    let Some((_, strict)) = FACTORS.iter().find(|(module, _)| *module == line.module) else { return false };
    line.args.iter().all(|arg| strict.contains(&arg.split('=').next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::{
        super::made::{bare, lines, services},
        *,
    };

    const DEBIAN: &str = "auth [success=1 default=ignore] pam_unix.so nullok
        auth requisite pam_deny.so
        auth required pam_permit.so
        auth optional pam_cap.so\n";
    const RED_HAT: &str = "auth required pam_sepermit.so
        auth required pam_env.so
        auth required pam_faildelay.so delay=2000000
        auth required pam_faillock.so preauth silent
        auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular
        auth [default=1 ignore=ignore success=ok] pam_localuser.so
        auth sufficient pam_unix.so nullok
        auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular
        auth sufficient pam_sss.so forward_pass
        auth required pam_faillock.so authfail
        auth required pam_deny.so\n";
    const CODE: &str = "auth required pam_google_authenticator.so";

    fn of(text: &str) -> Option<bool> {
        suffices(&lines(text)).ok()
    }

    #[test]
    fn a_password_is_enough_where_nothing_else_is_asked_for() {
        let fingerprint = format!("auth [success=3 default=ignore] pam_fprintd.so max-tries=1\n{DEBIAN}");
        let chosen = format!("auth required pam_succeed_if.so user ingroup ssh\n{RED_HAT}");
        let cloud = format!("auth [success=done perm_denied=die default=ignore] pam_oslogin_login.so\n{DEBIAN}");
        let joined = format!("auth [success=3 default=ignore] pam_centrifydc.so\n{DEBIAN}");
        for text in [DEBIAN, RED_HAT, &fingerprint, &chosen, &cloud, &joined, "auth requisite pam_unix.so\n"] {
            assert_eq!(of(text), Some(true), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_enough_where_a_second_factor_is_asked_of_everybody() {
        let mut substack = lines(&format!("{RED_HAT}{CODE}\n"));
        let last = substack.len() - 1;
        // It may end the whole stack before the code is asked for.
        assert!(suffices(&substack).is_err());
        substack[1..last].iter_mut().for_each(|line| line.level = 1);
        assert_eq!(suffices(&substack), Ok(false));
        for (text, expected) in [
            (format!("{DEBIAN}{CODE}\n"), Some(false)),
            (format!("{DEBIAN}{CODE} secret=/x/${{USER}} forward_pass [authtok_prompt=The code: ]\n"), Some(false)),
            (format!("{CODE}\n{DEBIAN}"), Some(false)),
            (format!("{DEBIAN}auth requisite pam_oath.so usersfile=/etc/users.oath window=20 digits=6\n"), Some(false)),
            (format!("auth required pam_yubico.so id=1 authfile=/etc/yubikeys\n{DEBIAN}"), Some(false)),
            (format!("{CODE}\n"), Some(false)),
            (format!("auth requisite pam_deny.so\n{DEBIAN}"), Some(false)),
            // Not of everybody, or not surely.
            (format!("{DEBIAN}{CODE} nullok\n"), None),
            (format!("{DEBIAN}{CODE} grace_period=86400\n"), None),
            (format!("{DEBIAN}auth optional pam_google_authenticator.so\n"), Some(true)),
            (format!("{DEBIAN}auth sufficient pam_google_authenticator.so\n"), Some(true)),
            (format!("{DEBIAN}auth [success=ok user_unknown=ignore default=die] pam_oath.so\n"), None),
            (format!("{DEBIAN}auth required pam_yubico.so id=1 alwaysok\n"), None),
            (format!("{DEBIAN}auth required pam_duo.so\n"), None),
            (format!("{DEBIAN}auth required pam_own.so\n"), None),
            (format!("{DEBIAN}auth [success=1 default=ignore] pam_access.so accessfile=/x\n{CODE}\n"), None),
            (format!("{DEBIAN}auth [default=1 success=ignore] pam_succeed_if.so user ingroup x\n{CODE}\n"), None),
            (format!("auth sufficient pam_unix.so\n{CODE}\n"), Some(true)),
            (format!("{DEBIAN}{CODE}\nauth [default=reset] pam_own.so\n{DEBIAN}"), Some(true)),
        ] {
            assert_eq!(of(&text), expected, "{text}");
        }
    }

    #[test]
    fn a_stack_that_cannot_be_read_leaves_it_untold() {
        let with_code = format!("@include common-auth\n{CODE}\n");
        let (_folder, host) = services(&[("sshd", &with_code), ("common-auth", DEBIAN)]);
        assert_eq!(password_suffices(&host, "sshd"), Reading::Known(false));
        let (_folder, host) = services(&[("sshd", &with_code)]);
        assert!(matches!(password_suffices(&host, "sshd"), Reading::Unknown { .. }));
        assert!(matches!(password_suffices(&bare().1, "sshd"), Reading::Unknown { .. }));
    }
}
