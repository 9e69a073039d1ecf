//! What the services by which people sign in make of passwords and of accounts that have expired, beside what the files say of them.

use muster_proto::fact::{Account, Cause, PasswordState, Reading, Unknown};

use super::{
    SIGN_IN, Waivers,
    stack::{DIRECTORIES, Line, PROOFS, has_service, stack},
    walk::{self, May},
};
use crate::{
    host::Host,
    probe::accounts::passwd::{Entry, Group},
};

/// Returns the services of the host by which people sign in; `other` where it has none.
pub(super) fn services(host: &dyn Host) -> Result<Vec<&'static str>, Unknown> {
    let mut services = Vec::new();
    for service in SIGN_IN {
        if has_service(host, service)? {
            services.push(service);
        }
    }
    Ok(if services.is_empty() { vec!["other"] } else { services })
}

/// The services by which people sign in.
pub struct SignIn {
    waivers: Result<Waivers, Unknown>,
    /// Why one that has expired may be let in.
    lets_in_expired: Option<Unknown>,
}

impl SignIn {
    /// Looks at what they ask of whom they let in. What cannot be read may ask for nothing.
    pub fn look(host: &dyn Host) -> Self {
        let services = services(host);
        let services = services.as_ref().map_err(Clone::clone);
        Self {
            waivers: services.clone().and_then(|services| Waivers::look(host, services)),
            lets_in_expired: services.and_then(|services| lets_in_expired(host, services)).unwrap_or_else(Some),
        }
    }

    /// Returns why anybody may be let in without a password.
    pub fn anybody(&self) -> Option<&Unknown> {
        self.waivers.as_ref().ok().and_then(Waivers::anybody)
    }

    /// Makes unknown what these services may take no notice of: the password of an account, and that it has expired.
    pub fn doubt(&self, accounts: &mut [Account], entries: &[Entry], groups: &[Group]) {
        for account in accounts {
            let entry = entries.iter().find(|entry| entry.name == account.name.as_str() && entry.uid == account.uid);
            if let Some(unknown) = self.why_unasked(entry, groups).filter(|_| account.interactive)
                && matches!(account.password, Reading::Known(state) if state != PasswordState::Empty)
            {
                account.password = Reading::Unknown { unknown };
            }
            if let (Reading::Known(true), Some(unknown)) = (&account.expired, &self.lets_in_expired) {
                account.expired = Reading::Unknown { unknown: unknown.clone() };
            }
        }
    }

    fn why_unasked(&self, entry: Option<&Entry>, groups: &[Group]) -> Option<Unknown> {
        let waivers = match &self.waivers {
            Ok(waivers) => waivers,
            Err(unknown) => return Some(unknown.clone()),
        };
        if entry.is_some_and(|entry| waivers.has_member(&entry.name, entry.gid, groups)) {
            let detail = "pam.d lets in members of one of its groups without a password";
            return Some(Unknown::new(Cause::Undecidable, detail));
        }
        waivers.anybody().cloned()
    }
}

/// Returns why one of `services` may let in an account that has expired: it does not always ask pam_unix(8), or not it alone.
fn lets_in_expired(host: &dyn Host, services: &[&str]) -> Result<Option<Unknown>, Unknown> {
    for service in services {
        // Without `other`, nobody is let in.
        if !has_service(host, service)? {
            continue;
        }
        if let Some(line) = passes_expired(&stack(host, service, "account")?) {
            let Line { module, control, .. } = line;
            let detail = format!("pam.d/{service} may let in who has expired: {module} [{control}]");
            return Ok(Some(Unknown::new(Cause::Undecidable, detail)));
        }
    }
    Ok(None)
}

/// Returns the line of a stack of `account` that may let in a local account that has expired.
fn passes_expired(lines: &[Line]) -> Option<Line> {
    let may = |line: &Line| match line.module.as_str() {
        "pam_permit" => May::SUCCEED,
        "pam_unix" | "pam_deny" => May::FAIL,
        // They know nothing of an account of the host's files.
        module if DIRECTORIES.contains(&module) || PROOFS.contains(&module) => May::NOT_SUCCEED,
        _ => May::ANY,
    };
    walk::passes(lines, &may).cloned()
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::Text;

    use super::{
        super::made::{lines, services as made},
        *,
    };
    use crate::probe::accounts::passwd;

    const DEBIAN: &str = "account required pam_nologin.so
        account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so
        account requisite pam_deny.so
        account required pam_permit.so\n";
    const DEBIAN_WITH_DIRECTORIES: &str = "account [success=3 new_authtok_reqd=done default=ignore] pam_unix.so
        account [success=2 new_authtok_reqd=done default=ignore] pam_winbind.so
        account [success=1 new_authtok_reqd=done default=ignore] pam_ldap.so minimum_uid=1000
        account requisite pam_deny.so
        account required pam_permit.so
        account sufficient pam_localuser.so
        account [default=bad success=ok user_unknown=ignore] pam_sss.so\n";
    const RED_HAT: &str = "account required pam_sepermit.so
        account required pam_nologin.so
        account required pam_access.so
        account required pam_faillock.so
        account required pam_unix.so
        account sufficient pam_localuser.so
        account sufficient pam_usertype.so issystem
        account [default=bad success=ok user_unknown=ignore] pam_sss.so
        account required pam_permit.so\n";
    const ARCH: &str = "account required pam_access.so
        account required pam_nologin.so
        -account [success=1 default=ignore] pam_systemd_home.so
        account required pam_unix.so
        account optional pam_permit.so
        account required pam_time.so\n";
    const SUSE: &str = "account requisite pam_unix.so try_first_pass
        account sufficient pam_localuser.so
        account required pam_sss.so use_first_pass\n";

    #[test]
    fn an_account_that_has_expired_is_refused_where_pam_unix_is_always_asked() {
        for stock in [DEBIAN, DEBIAN_WITH_DIRECTORIES, RED_HAT, ARCH, SUSE] {
            assert_eq!(passes_expired(&lines(stock)), None, "{stock}");
            for (line, module) in [
                ("account sufficient pam_permit.so", "pam_permit"),
                ("account sufficient pam_localuser.so", "pam_localuser"),
                ("account [success=done default=ignore] pam_own.so", "pam_own"),
            ] {
                let found = passes_expired(&lines(&format!("{line}\n{stock}")));
                assert_eq!(found.map(|line| line.module).as_deref(), Some(module), "{line}\n{stock}");
            }
        }
        let found = passes_expired(&lines("account optional pam_unix.so\naccount required pam_permit.so\n"));
        assert_eq!(found.map(|line| line.module).as_deref(), Some("pam_permit"));
    }

    #[test]
    fn what_a_service_takes_no_notice_of_is_untold() {
        let entries =
            passwd::parse_passwd(b"bob:x:1000:100::/:/bin/sh\neve:x:1001:100::/:/bin/sh\nd:x:9:9::/:/bin/false\n");
        let groups = passwd::parse_group(b"nopasswdlogin:x:990:eve\n");
        let of = |auth: &str, account: &str| {
            let text = format!("{auth}auth requisite pam_unix.so\n{account}account required pam_unix.so\n");
            let (_folder, mut host) = made(&[("sshd", &text)]);
            let absent = || crate::host::recorded::Failure::of(&std::io::Error::from(std::io::ErrorKind::NotFound));
            for service in SIGN_IN.iter().filter(|service| **service != "sshd") {
                for folder in ["/etc", "/usr/lib", "/usr/etc"] {
                    host.index_mut().errors.insert(format!("metadata {folder}/pam.d/{service}"), absent());
                }
            }
            let mut accounts: Vec<Account> = entries.iter().map(made_account).collect();
            SignIn::look(&host).doubt(&mut accounts, &entries, &groups);
            let known = |account: &Account| (account.password.known().is_some(), account.expired.known().is_some());
            accounts.iter().map(known).collect::<Vec<_>>()
        };
        assert_eq!(of("", ""), [(true, true); 3]);
        let free = "auth sufficient pam_listfile.so item=user sense=allow file=/etc/nopass onerr=fail\n";
        assert_eq!(of(free, ""), [(false, true), (false, true), (true, true)]);
        let members = "auth sufficient pam_succeed_if.so user ingroup nopasswdlogin\n";
        assert_eq!(of(members, ""), [(true, true), (false, true), (true, true)]);
        assert_eq!(of("", "account sufficient pam_permit.so\n"), [(true, false); 3]);
        assert_eq!(of("auth include absent\n", ""), [(false, true), (false, true), (true, true)]);
    }

    fn made_account(entry: &Entry) -> Account {
        let untold = || Reading::unknown(Cause::Absent, "none");
        Account {
            name: Text::new(&entry.name),
            uid: entry.uid,
            interactive: entry.is_interactive(),
            password: Reading::Known(PasswordState::Set),
            expired: Reading::Known(true),
            authorized_keys: Reading::Known(false),
            password_changed_time: untold(),
            expires_time: untold(),
            last_login_time: untold(),
            no_login_since_time: untold(),
        }
    }
}
