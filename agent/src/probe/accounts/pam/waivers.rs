//! Whom services of PAM let in who has shown nothing: the members of groups that lines name, and whoever else a line may let in.

use std::collections::BTreeSet;

use muster_proto::fact::{Cause, Unknown};

use super::{
    stack::{Line, has_service, stack},
    superuser::of_nothing,
    walk::{self, May},
};
use crate::{host::Host, probe::accounts::passwd::Group};

/// Words of pam_succeed_if(8) that change nothing in what it asks.
const QUIET: [&str; 5] = ["audit", "debug", "quiet", "quiet_fail", "quiet_success"];

/// Who is let in that has shown nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Waivers {
    /// Groups whose members are.
    groups: BTreeSet<String>,
    /// Why anybody may be.
    anybody: Option<Unknown>,
}

impl Waivers {
    /// Looks at services by which people sign in, or unlock their sessions. One without a file is `other`.
    ///
    /// # Errors
    ///
    /// Why a stack could not be read.
    pub fn look(host: &dyn Host, services: &[&str]) -> Result<Self, Unknown> {
        let mut waivers = Self::default();
        for service in services {
            // Nobody gets in by a service that PAM knows nothing of.
            if !has_service(host, service)? && !has_service(host, "other")? {
                continue;
            }
            let lines = stack(host, service, "auth")?;
            waivers.groups.extend(lines.iter().filter_map(group).map(str::to_owned));
            if let Some(line) = passes(&lines) {
                waivers.anybody.get_or_insert_with(|| {
                    let Line { module, control, args, .. } = line;
                    let detail = format!(
                        "pam.d/{service} may let in without a password: {module} [{control}] {}",
                        args.join(" ")
                    );
                    Unknown::new(Cause::Undecidable, detail.trim_end())
                });
            }
        }
        Ok(waivers)
    }

    /// Returns why anybody may be let in.
    pub fn anybody(&self) -> Option<&Unknown> {
        self.anybody.as_ref()
    }

    /// Returns whether members of any group are let in.
    pub fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Returns whether an account is let in as one of a group: its own, or one that names it.
    pub fn has_member(&self, name: &str, gid: u32, groups: &[Group]) -> bool {
        let mut waived = groups.iter().filter(|group| self.groups.contains(&group.name));
        waived.any(|group| group.gid == gid || group.members.iter().any(|member| member == name))
    }
}

/// Returns the group whose members a line lets in.
fn group(line: &Line) -> Option<&str> {
    if line.module != "pam_succeed_if" || line.control != "sufficient" {
        return None;
    }
    let asked: Vec<&str> = line.args.iter().map(String::as_str).filter(|word| !QUIET.contains(word)).collect();
    match asked[..] {
        ["user", "ingroup", group] if !group.contains(':') => Some(group),
        _ => None,
    }
}

/// Returns the line that may let in somebody who has shown nothing and is in no group that is let in.
fn passes(lines: &[Line]) -> Option<&Line> {
    walk::passes(lines, &|line| match line.module.as_str() {
        // It lets in the guests alone that sepermit.conf(5) names.
        "pam_selinux_permit" => May::NOT_SUCCEED,
        _ if group(line).is_some() => May::FAIL,
        _ => of_nothing(line),
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::made::{bare, lines, services},
        *,
    };

    fn by(text: &str) -> Option<String> {
        passes(&lines(text)).map(|line| line.module.clone())
    }

    const UBUNTU: &str = "auth requisite pam_nologin.so
        auth sufficient pam_succeed_if.so user ingroup nopasswdlogin
        auth required pam_succeed_if.so user != root quiet_success
        auth optional pam_gdm.so
        auth optional pam_gnome_keyring.so
        auth [success=3 default=ignore] pam_fprintd.so max-tries=1 timeout=10
        auth [success=2 default=ignore] pam_unix.so nullok try_first_pass
        auth [success=1 default=ignore] pam_sss.so use_first_pass
        auth requisite pam_deny.so
        auth required pam_permit.so
        auth optional pam_ecryptfs.so unwrap
        auth optional pam_cap.so\n";
    const RED_HAT: &str = "auth [success=done ignore=ignore default=bad] pam_selinux_permit.so
        auth required pam_env.so
        auth required pam_faildelay.so delay=2000000
        auth required pam_faillock.so preauth silent
        auth [success=1 default=ignore] pam_succeed_if.so service notin login:gdm:xdm quiet use_uid
        auth [success=done ignore=ignore default=die] pam_sss.so require_cert_auth ignore_authinfo_unavail
        auth sufficient pam_fprintd.so
        auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular
        auth [default=1 ignore=ignore success=ok] pam_localuser.so
        auth sufficient pam_unix.so nullok
        auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular
        auth sufficient pam_sss.so forward_pass
        auth required pam_faillock.so authfail
        auth optional pam_gnome_keyring.so only_if=login auto_start
        auth required pam_deny.so
        auth optional pam_gnome_keyring.so\n";
    const NO_FINGERPRINT: &str = "auth required pam_debug.so auth=authinfo_unavail\n";
    const FINGERPRINT: &str = "auth requisite pam_nologin.so
        auth required pam_succeed_if.so user != root quiet_success
        auth required pam_fprintd.so
        auth optional pam_gnome_keyring.so\n";
    const ARCH: &str = "auth required pam_shells.so
        auth requisite pam_nologin.so
        auth required pam_faillock.so preauth
        -auth [success=2 default=ignore] pam_systemd_home.so
        auth [success=1 default=bad] pam_unix.so try_first_pass nullok
        auth [default=die] pam_faillock.so authfail
        auth optional pam_permit.so
        auth required pam_env.so
        auth required pam_faillock.so authsucc\n";
    const SUSE: &str = "auth required pam_env.so
        auth optional pam_gnome_keyring.so
        auth sufficient pam_unix.so try_first_pass
        auth required pam_sss.so use_first_pass\n";
    const STOCK: [&str; 6] = [UBUNTU, RED_HAT, NO_FINGERPRINT, FINGERPRINT, ARCH, SUSE];

    #[test]
    fn stacks_of_distributions_let_in_nobody_who_has_shown_nothing() {
        for text in STOCK {
            assert_eq!(by(text), None, "{text}");
        }
    }

    #[test]
    fn a_module_that_asks_for_nothing_and_ends_the_stack_may_let_in() {
        for module in [
            "pam_listfile.so item=user sense=allow file=/etc/nopass onerr=fail",
            "pam_rootok.so",
            "pam_localuser.so",
            "pam_usertype.so isregular",
            "pam_exec.so /bin/true",
            "pam_access.so",
            "pam_shells.so",
            "pam_debug.so",
            "pam_debug.so auth=success",
            "pam_echo.so",
            "pam_securetty.so",
            "pam_permit.so",
            "pam_succeed_if.so user = bob",
            "pam_succeed_if.so user ingroup a:b",
            "pam_succeed_if.so user ingroup nopasswdlogin use_uid",
        ] {
            for stock in STOCK {
                let found = by(&format!("auth sufficient {module}\n{stock}"));
                assert!(found.is_some_and(|found| module.starts_with(&found)), "{module}\n{stock}");
            }
        }
        let jump = "auth [success=2 default=ignore] pam_succeed_if.so user ingroup x
            auth required pam_unix.so
            auth requisite pam_deny.so
            auth required pam_permit.so\n";
        assert_eq!(by(jump).as_deref(), Some("pam_succeed_if"));
    }

    #[test]
    fn members_of_a_group_that_a_line_names_are_let_in() {
        let (_folder, host) = services(&[("gdm-password", UBUNTU)]);
        let waivers = Waivers::look(&host, &["gdm-password"]).unwrap();
        assert_eq!(waivers.anybody(), None);
        let groups = crate::probe::accounts::passwd::parse_group(b"users:x:100:bob\nnopasswdlogin:x:990:eve\n");
        let is_member = |name: &str, gid| waivers.has_member(name, gid, &groups);
        assert_eq!([is_member("bob", 100), is_member("eve", 100), is_member("joe", 990)], [false, true, true]);
    }

    #[test]
    fn a_service_without_a_file_is_other_and_without_that_lets_in_nobody() {
        let (_folder, mut host) = services(&[("other", "auth sufficient pam_permit.so\n")]);
        let absent = || crate::host::recorded::Failure::of(&std::io::Error::from(std::io::ErrorKind::NotFound));
        for folder in ["/etc", "/usr/lib", "/usr/etc"] {
            host.index_mut().errors.insert(format!("metadata {folder}/pam.d/kde"), absent());
        }
        let detail = Waivers::look(&host, &["kde"]).unwrap().anybody.unwrap().detail;
        assert_eq!(detail.as_str(), "pam.d/kde may let in without a password: pam_permit [sufficient]");
        host.index_mut().metadata.clear();
        for folder in ["/etc", "/usr/lib", "/usr/etc"] {
            host.index_mut().errors.insert(format!("metadata {folder}/pam.d/other"), absent());
        }
        assert_eq!(Waivers::look(&host, &["kde"]), Ok(Waivers::default()));
        // What is not to be seen may let in.
        assert!(Waivers::look(&bare().1, &["kde"]).is_err());
    }
}
