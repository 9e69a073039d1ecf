//! Whether a locked session opens without a password, by the services of PAM that unlock it.

use std::path::Path;

use muster_proto::fact::{Cause, Unknown};

use super::Person;
use crate::{
    host::{self, FILE_BYTES, Host},
    probe::accounts::{pam::Waivers, passwd},
};

const GROUP: &str = "/etc/group";

/// What the services by which a session is unlocked ask for.
pub struct Unlock {
    waivers: Result<Waivers, Unknown>,
    groups: Result<Vec<passwd::Group>, Unknown>,
}

impl Unlock {
    pub fn look(host: &dyn Host, services: &[&str]) -> Self {
        let waivers = Waivers::look(host, services);
        let has_groups = waivers.as_ref().is_ok_and(Waivers::has_groups);
        Self { groups: if has_groups { groups(host) } else { Ok(Vec::new()) }, waivers }
    }

    /// Returns whether an account is asked for something; without one, whether one in no such group is.
    pub fn asks(&self, person: Option<&Person>) -> Result<bool, Unknown> {
        let waivers = self.waivers.as_ref().map_err(Clone::clone)?;
        let groups = self.groups.as_deref().map_err(Clone::clone)?;
        if person.is_some_and(|person| waivers.has_member(&person.name, person.gid, groups)) {
            return Ok(false);
        }
        waivers.anybody().map_or(Ok(true), |unknown| Err(unknown.clone()))
    }
}

fn groups(host: &dyn Host) -> Result<Vec<passwd::Group>, Unknown> {
    let bytes =
        host.read(Path::new(GROUP), FILE_BYTES).map_err(|error| host::unknown(format!("read {GROUP}"), &error))?;
    if !passwd::is_whole(&bytes) {
        return Err(Unknown::new(Cause::Garbled, format!("the last line of {GROUP} has no end")));
    }
    Ok(passwd::parse_group(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::accounts::pam::made::services;

    /// Returns whether two accounts are asked for something: one in the group `nopasswdlogin`, and one in no group.
    fn asks(first: &str) -> [Option<bool>; 2] {
        let service = format!("{first}auth required pam_unix.so\n");
        let free = "auth sufficient pam_succeed_if.so user ingroup nopasswdlogin quiet\n";
        let (folder, host) = services(&[("gdm-password", &service), ("common-auth", free)]);
        std::fs::write(folder.path().join("capture/files/etc/group"), "wheel:x:10:\nnopasswdlogin:x:990:bob,eve\n")
            .unwrap();
        let unlock = Unlock::look(&host, &["gdm-password"]);
        ["eve", "frank"].map(|name| {
            let person = Person { name: name.to_owned(), home: "/home/x".into(), uid: 1000, gid: 1000 };
            unlock.asks(Some(&person)).ok()
        })
    }

    #[test]
    fn a_member_of_a_group_that_is_let_in_is_asked_for_nothing() {
        for (first, expected) in [
            ("auth sufficient pam_unix.so\n", [Some(true); 2]),
            ("auth sufficient pam_succeed_if.so user ingroup nopasswdlogin\n", [Some(false), Some(true)]),
            (
                "auth \\\n sufficient /lib/security/pam_succeed_if.so user ingroup nopasswdlogin\n",
                [Some(false), Some(true)],
            ),
            ("@include common-auth\n", [Some(false), Some(true)]),
            ("auth substack common-auth\n", [Some(false), Some(true)]),
            ("# auth sufficient pam_succeed_if.so user ingroup nopasswdlogin\n", [Some(true); 2]),
            ("auth required pam_succeed_if.so user != root quiet_success\n", [Some(true); 2]),
            ("auth requisite pam_succeed_if.so uid >= 1000 quiet_success\n", [Some(true); 2]),
            ("account sufficient pam_succeed_if.so uid < 1000 quiet\n", [Some(true); 2]),
            ("auth required pam_permit.so\n", [Some(true); 2]),
            ("auth sufficient pam_permit.so\n", [None; 2]),
            ("auth sufficient pam_listfile.so item=user sense=allow file=/etc/nopass onerr=fail\n", [None; 2]),
            ("auth sufficient pam_succeed_if.so uid >= 1000\n", [None; 2]),
            ("auth sufficient pam_succeed_if.so user ingroup nopasswdlogin use_uid\n", [None; 2]),
            ("auth required pam_env.so\nauth [success=1 default=ignore] pam_succeed_if.so user = x\n", [None; 2]),
        ] {
            assert_eq!(asks(first), expected, "{first}");
        }
    }

    #[test]
    fn a_service_that_cannot_be_read_leaves_it_untold() {
        let (_folder, host) = services(&[("gdm-password", "auth substack system-auth\n")]);
        assert!(Unlock::look(&host, &["gdm-password"]).asks(None).is_err());
    }
}
