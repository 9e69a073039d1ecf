//! Whether PAM lets somebody become the superuser by su(1) or sudo(8) who has shown nothing: no password, no key, no device.
//!
//! The stack is walked in every way that it may go while no module that asks for something is content.

use std::collections::BTreeSet;

use muster_proto::fact::{Cause, Unknown};

use super::{
    stack::{DIRECTORIES, Line, PROOFS, stack},
    walk::{self, May},
};
use crate::host::Host;

/// Services of su(1) and sudo(8).
const SERVICES: [&str; 4] = ["su", "su-l", "sudo", "sudo-i"];

/// Returns why somebody may become the superuser by su(1), by sudo(8) or by one of `services` without being asked for anything.
pub fn asks_nobody(host: &dyn Host, services: &BTreeSet<String>) -> Option<Unknown> {
    let services = SERVICES.into_iter().chain(services.iter().map(String::as_str));
    services.into_iter().find_map(|service| match stack(host, service, "auth") {
        Ok(lines) => passes(&lines, matches!(service, "su" | "su-l")).map(|line| {
            let detail = format!("pam.d/{service} may ask for no password: {} [{}]", line.module, line.control);
            Unknown::new(Cause::Undecidable, detail)
        }),
        // Nobody gets in by a service that PAM knows nothing of.
        Err(unknown) if unknown.cause == Cause::Absent => None,
        Err(unknown) => Some(unknown),
    })
}

/// Returns the line that lets in who has shown nothing; `None` where none does.
fn passes(lines: &[Line], is_su: bool) -> Option<&Line> {
    walk::passes(lines, &|line| match line.module.as_str() {
        "pam_rootok" if is_su => May::FAIL,
        _ => of_nothing(line),
    })
}

/// Returns what a module may return to who has shown nothing.
pub(super) fn of_nothing(line: &Line) -> May {
    let module = line.module.as_str();
    match module {
        "pam_permit" => May::SUCCEED,
        // Debian's gdm-fingerprint has lines behind pam_fprintd(8), which never is to be ignored.
        "pam_unix" | "pam_deny" | "pam_fprintd" => May::FAIL,
        // authselect(8) has it where nothing is set up.
        "pam_debug" if matches!(line.value("auth"), Some(result) if result != "success") => May::NOT_SUCCEED,
        "pam_faillock" if line.has("authfail") => May::NOT_SUCCEED,
        _ if DIRECTORIES.contains(&module) => May::FAIL,
        _ if PROOFS.contains(&module) => May::NOT_SUCCEED,
        _ => May::ANY,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::made::{lines, services},
        *,
    };

    /// Returns the module that lets somebody in by a stack of sudo.
    fn by(text: &str) -> Option<String> {
        passes(&lines(text), false).map(|line| line.module.clone())
    }

    const DEBIAN: &str = "auth [success=1 default=ignore] pam_unix.so nullok
        auth requisite pam_deny.so
        auth required pam_permit.so
        auth optional pam_cap.so\n";
    const RED_HAT: &str = "auth required pam_env.so
        auth required pam_faildelay.so delay=2000000
        auth required pam_faillock.so preauth silent
        auth sufficient pam_fprintd.so
        auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular
        auth [default=1 ignore=ignore success=ok] pam_localuser.so
        auth sufficient pam_unix.so nullok
        auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular
        auth sufficient pam_sss.so forward_pass
        auth required pam_faillock.so authfail
        auth required pam_deny.so\n";
    const ARCH: &str = "auth required pam_faillock.so preauth
        -auth [success=2 default=ignore] pam_systemd_home.so
        auth [success=1 default=bad] pam_unix.so try_first_pass nullok
        auth [default=die] pam_faillock.so authfail
        auth optional pam_permit.so
        auth required pam_env.so
        auth required pam_faillock.so authsucc\n";
    const SUSE: &str = "auth required pam_env.so
        auth optional pam_gnome_keyring.so
        auth required pam_unix.so try_first_pass\n";
    const UBUNTU_WITH_DIRECTORY: &str = "auth [success=3 default=ignore] pam_fprintd.so max-tries=1
        auth [success=2 default=ignore] pam_unix.so nullok
        auth [success=1 default=ignore] pam_sss.so use_first_pass
        auth requisite pam_deny.so
        auth required pam_permit.so
        auth optional pam_cap.so\n";
    const RED_HAT_7: &str = "auth required pam_env.so
        auth sufficient pam_unix.so nullok try_first_pass
        auth requisite pam_succeed_if.so uid >= 1000 quiet_success
        auth required pam_deny.so\n";

    #[test]
    fn stacks_of_distributions_let_in_nobody_who_has_shown_nothing() {
        let joined = format!("auth [success=3 default=ignore] pam_centrifydc.so\n{DEBIAN}");
        for text in [DEBIAN, RED_HAT, ARCH, SUSE, UBUNTU_WITH_DIRECTORY, RED_HAT_7, &joined] {
            assert_eq!(by(text), None, "{text}");
            let su = format!("auth sufficient pam_rootok.so\nauth required pam_wheel.so use_uid\n{text}");
            assert_eq!(passes(&lines(&su), true), None, "{text}");
        }
    }

    #[test]
    fn a_line_that_lets_in_who_has_shown_nothing_is_found() {
        for stock in [DEBIAN, RED_HAT, ARCH, SUSE, UBUNTU_WITH_DIRECTORY, RED_HAT_7] {
            for (line, module) in [
                ("auth sufficient pam_permit.so", "pam_permit"),
                ("auth sufficient pam_wheel.so trust group=sudo", "pam_wheel"),
                ("auth sufficient pam_succeed_if.so quiet user ingroup sudo", "pam_succeed_if"),
                ("auth [success=done default=ignore] pam_own.so", "pam_own"),
                ("auth sufficient pam_rootok.so", "pam_rootok"),
            ] {
                assert_eq!(by(&format!("{line}\n{stock}")).as_deref(), Some(module), "{line}\n{stock}");
            }
        }
        for (text, module) in [
            (format!("auth [success=2 default=ignore] pam_succeed_if.so user ingroup x\n{DEBIAN}"), "pam_succeed_if"),
            ("auth optional pam_unix.so\nauth required pam_permit.so\n".to_owned(), "pam_permit"),
            ("auth required pam_env.so\n".to_owned(), "pam_env"),
            ("auth [default=reset] pam_unix.so\nauth required pam_permit.so\n".to_owned(), "pam_unix"),
        ] {
            assert_eq!(by(&text).as_deref(), Some(module), "{text}");
        }
    }

    #[test]
    fn a_substack_that_one_is_refused_by_stays_so() {
        let mut nested = lines(&format!("auth sufficient pam_rootok.so\n{RED_HAT}auth optional pam_permit.so\n"));
        let last = nested.len() - 1;
        nested[1..last].iter_mut().for_each(|line| line.level = 1);
        assert_eq!(passes(&nested, true), None);
        // One that lets in ends alone, and what comes behind has its say.
        let mut nested = lines("auth sufficient pam_permit.so\nauth required pam_unix.so\n");
        nested[0].level = 1;
        assert_eq!(passes(&nested, false), None);
    }

    #[test]
    fn services_that_are_named_are_looked_at_and_those_that_are_not_there_let_nobody_in() {
        let open = "auth sufficient pam_permit.so\n";
        let stock = [("su", SUSE), ("su-l", SUSE), ("sudo", SUSE), ("sudo-i", SUSE), ("own", open)];
        let (_folder, host) = services(&stock);
        assert_eq!(asks_nobody(&host, &BTreeSet::new()), None);
        let detail = asks_nobody(&host, &BTreeSet::from(["own".to_owned()])).unwrap().detail;
        assert_eq!(detail.as_str(), "pam.d/own may ask for no password: pam_permit [sufficient]");
        // What is not to be seen may let in.
        let (_folder, host) = services(&stock[1..]);
        assert_eq!(asks_nobody(&host, &BTreeSet::new()).unwrap().cause, Cause::Failed);
    }
}
