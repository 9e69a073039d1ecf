//! What the host's SSH server has to do with its accounts: whether their passwords let them in by it, and what it records of them.

use muster_proto::fact::{Cause, PasswordState, PermitRootLogin, Reading, Unknown};

use super::pam;
use crate::{
    host::Host,
    probe::remote_access::{self, sshd_config::Config},
};

/// The server, as far as its accounts go.
pub struct Ssh {
    /// Why sign-ins by it may leave no record.
    unrecorded: Option<Unknown>,
    /// Whether a password may open a session, and one of the superuser.
    takes_password: bool,
    takes_password_of_root: bool,
    /// Why a password may be taken that PAM is not asked about.
    beside_pam: Option<Unknown>,
}

impl Ssh {
    /// Looks at the server and its settings. What cannot be seen may be there.
    pub fn look(host: &dyn Host, config: &Result<Config, Unknown>) -> Self {
        let allowed = config.as_ref().map(Config::allowed);
        let may = |is_not: bool| !is_not;
        let takes_password = may(allowed.as_ref().is_ok_and(|it| it.password_suffices == Reading::Known(false)));
        let refuses_root =
            |permit: &Reading<PermitRootLogin>| permit.known().is_some_and(|permit| *permit != PermitRootLogin::Yes);
        let takes_password_of_root =
            takes_password && may(allowed.as_ref().is_ok_and(|it| refuses_root(&it.permit_root_login)));
        let unrecorded = match remote_access::has_ssh_server(host) {
            Ok(false) => None,
            Ok(true) => unrecorded(host, config),
            Err(unknown) => Some(unknown),
        };
        let beside_pam = beside_pam(host, config, takes_password);
        Self { unrecorded, takes_password, takes_password_of_root, beside_pam }
    }

    /// Returns why a password may be taken that PAM is not asked about.
    pub fn beside_pam(&self) -> Option<&Unknown> {
        self.beside_pam.as_ref()
    }

    /// Returns why sign-ins of an account may leave no record: sshd writes one of sessions with a terminal alone. Where it is not known
    /// whether anything lets it in, that is why.
    pub fn unrecorded<'a>(
        &'a self,
        uid: u32,
        password: &'a Reading<PasswordState>,
        keys: &'a Reading<bool>,
    ) -> Option<&'a Unknown> {
        let why = self.unrecorded.as_ref()?;
        let takes_password = if uid == 0 { self.takes_password_of_root } else { self.takes_password };
        match (keys, password) {
            (Reading::Known(true), _) => Some(why),
            (Reading::Unknown { unknown }, _) => Some(unknown),
            (Reading::Known(false), _) if !takes_password => None,
            (Reading::Known(false), Reading::Known(PasswordState::None | PasswordState::Locked)) => None,
            (Reading::Known(false), Reading::Known(PasswordState::Set | PasswordState::Empty)) => Some(why),
            (Reading::Known(false), Reading::Unknown { unknown }) => Some(unknown),
        }
    }
}

fn unrecorded(host: &dyn Host, config: &Result<Config, Unknown>) -> Option<Unknown> {
    let config = match config {
        Ok(config) => config,
        Err(unknown) => return Some(unknown.clone()),
    };
    let is_recorded = match config.uses_pam() {
        true => pam::records_sessions(host, "sshd"),
        false => Ok(false),
    };
    match is_recorded {
        Ok(true) => None,
        Ok(false) => Some(Unknown::new(Cause::Undecidable, "the SSH server records sign-ins with a terminal alone")),
        Err(unknown) => Some(unknown),
    }
}

fn beside_pam(host: &dyn Host, config: &Result<Config, Unknown>, takes_password: bool) -> Option<Unknown> {
    let undecidable = |what: &str| Some(Unknown::new(Cause::Undecidable, what));
    match remote_access::has_openssh(host) {
        Ok(true) => match config {
            Ok(config) if takes_password && !config.uses_pam() => {
                return undecidable("the SSH server takes passwords without PAM");
            }
            Ok(_) => {}
            Err(unknown) => return Some(unknown.clone()),
        },
        Ok(false) => {}
        Err(unknown) => return Some(unknown),
    }
    match remote_access::has_dropbear(host) {
        Ok(true) => undecidable("dropbear takes passwords without PAM"),
        Ok(false) => None,
        Err(unknown) => Some(unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_an_account_in_may_leave_no_record_of_it() {
        let why = Unknown::new(Cause::Undecidable, "x");
        let unread = Unknown::new(Cause::Forbidden, "y");
        let of = |takes_password, takes_password_of_root| Ssh {
            unrecorded: Some(why.clone()),
            takes_password,
            takes_password_of_root,
            beside_pam: None,
        };
        let (set, locked) = (Reading::Known(PasswordState::Set), Reading::Known(PasswordState::Locked));
        let (yes, no) = (Reading::Known(true), Reading::Known(false));
        let untold = Reading::Unknown { unknown: unread.clone() };
        for (ssh, uid, password, keys, expected) in [
            (of(false, false), 1000, &locked, &yes, Some(&why)),
            (of(true, false), 1000, &locked, &no, None),
            (of(true, false), 1000, &set, &no, Some(&why)),
            (of(true, false), 0, &set, &no, None),
            (of(true, true), 0, &set, &no, Some(&why)),
            (of(false, false), 1000, &set, &no, None),
            (of(false, false), 1000, &set, &untold, Some(&unread)),
            (Ssh { unrecorded: None, ..of(true, true) }, 1000, &set, &yes, None),
        ] {
            assert_eq!(ssh.unrecorded(uid, password, keys), expected, "{uid} {password:?} {keys:?}");
        }
    }
}
