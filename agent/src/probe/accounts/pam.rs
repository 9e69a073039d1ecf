//! What PAM asks of local passwords: the stacks of pam.d(5), and the files of the modules that make the rules.
//!
//! A module asks for something where its refusal fails the stack, and no line before it ends the stack or jumps over it for a
//! local password. What depends on more than that is unknown.

mod lockout;
mod quality;
mod second_factor;
mod settings;
mod sign_in;
mod stack;
mod superuser;
mod waivers;
mod walk;

pub use self::{second_factor::password_suffices, sign_in::SignIn, superuser::asks_nobody, waivers::Waivers};

use std::{collections::BTreeSet, path::Path};

use muster_proto::fact::{Cause, PasswordPolicy, Reading, Text, Unknown};

use self::stack::{DIRECTORIES, Line, is_always_run, stack};
use super::set_up;
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Services by which people sign in.
const SIGN_IN: [&str; 14] = [
    "login",
    "sshd",
    "gdm-password",
    "lightdm",
    "sddm",
    "kde",
    "xdm",
    "lxdm",
    "greetd",
    "ly",
    "gdm",
    "cockpit",
    "xrdp-sesman",
    "remote",
];

/// Reads what a local password must be. `unasked` is why one may be let in whose password PAM is not asked about: then failures count for
/// nothing.
pub fn policy(host: &dyn Host, unasked: Option<&Unknown>) -> PasswordPolicy {
    let change = stack(host, "passwd", "password");
    let sign_in = sign_in_stacks(host);
    let (attempts, seconds) = match (lockout::lockout(host, &sign_in), unasked) {
        ((Reading::Known(1..), _), Some(unknown)) => (told(Err(unknown.clone())), told(Err(unknown.clone()))),
        (found, _) => found,
    };
    let (delegates, untold) = delegates(host, &sign_in);
    // A host whose passwords a directory may have is judged by none of its own.
    let or_untold = |reading: Reading<u64>| match &untold {
        Some(unknown) => Reading::Unknown { unknown: unknown.clone() },
        None => reading,
    };
    PasswordPolicy {
        min_length: or_untold(told(
            change.as_ref().map_err(Clone::clone).and_then(|lines| quality::min_length(host, lines)),
        )),
        lockout_attempts: or_untold(attempts),
        lockout_seconds: seconds,
        history: told(change.as_ref().map_err(Clone::clone).and_then(|lines| quality::history(host, lines))),
        max_age_days: max_age_days(host),
        delegates,
    }
}

/// Returns whether each session of a service is recorded as a sign-in of its account, with a terminal or without: by pam_lastlog(8),
/// pam_lastlog2(8) or pam_wtmpdb(8), in the file that is read.
///
/// # Errors
///
/// Why that could not be told.
pub fn records_sessions(host: &dyn Host, service: &str) -> Result<bool, Unknown> {
    let lines = stack(host, service, "session")?;
    let is_recorded = |(at, line): (usize, &Line)| records(line, service) && is_always_run(&lines, at);
    Ok(lines.iter().enumerate().any(is_recorded))
}

fn records(line: &Line, service: &str) -> bool {
    let skips = |value: &str| value.split(',').any(|skipped| skipped == service);
    match line.module.as_str() {
        "pam_lastlog" => !line.has("noupdate"),
        "pam_lastlog2" => line.value("database").is_none(),
        "pam_wtmpdb" => line.value("database").is_none() && !line.value("skip_if").is_some_and(skips),
        _ => false,
    }
}

fn told<T>(result: Result<T, Unknown>) -> Reading<T> {
    match result {
        Ok(value) => Reading::Known(value),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

fn sign_in_stacks(host: &dyn Host) -> Result<Vec<Vec<Line>>, Unknown> {
    sign_in::services(host)?.into_iter().map(|service| stack(host, service, "auth")).collect()
}

/// Returns the modules by which a directory is asked that the host is set up for, and why there may be more.
fn delegates(host: &dyn Host, stacks: &Result<Vec<Vec<Line>>, Unknown>) -> (Vec<Text>, Option<Unknown>) {
    let (mut names, mut untold) = (BTreeSet::new(), None);
    let lines = stacks.iter().flatten().flatten();
    for line in lines.filter(|line| DIRECTORIES.contains(&line.module.as_str())) {
        match set_up::has_directory(host, &line.module, &line.args) {
            Ok(true) => {
                names.insert(line.module.as_str());
            }
            Ok(false) => {}
            Err(unknown) => {
                untold.get_or_insert(unknown);
            }
        }
    }
    // One that is asked is enough.
    let untold = untold.filter(|_| names.is_empty());
    (names.into_iter().map(Text::new).collect(), untold)
}

/// `PASS_MAX_DAYS` of login.defs(5), where 99999 and -1 are written for none.
fn max_age_days(host: &dyn Host) -> Reading<u64> {
    const FILE: &str = "/etc/login.defs";
    let text = match host.read(Path::new(FILE), SMALL_FILE_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return Reading::Unknown { unknown: host::unknown(format!("read {FILE}"), &error) },
    };
    match login_defs_value(&text, "PASS_MAX_DAYS").map(|value| value.parse::<i64>()) {
        None | Some(Ok(..0 | 99_999..)) => Reading::unknown(Cause::Absent, "login.defs sets none"),
        Some(Ok(days)) => Reading::Known(u64::try_from(days).unwrap_or_default()),
        Some(Err(_)) => Reading::unknown(Cause::Garbled, "login.defs: PASS_MAX_DAYS is no number"),
    }
}

fn login_defs_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.trim().strip_prefix(name)?.strip_prefix(char::is_whitespace);
    text.lines().filter_map(value).next_back().map(str::trim)
}

/// Stacks and hosts that tests make.
#[cfg(test)]
pub(in crate::probe) mod made {
    use super::stack::{Item, Line, logical_lines, parse_line};
    use crate::host;

    pub(super) fn lines(text: &str) -> Vec<Line> {
        let parsed = logical_lines(text).into_iter().filter_map(|line| match parse_line(&line) {
            Some(Item::Line(line)) => Some(line),
            Some(Item::Nothing) => None,
            _ => panic!("{line}"),
        });
        parsed.collect()
    }

    /// A host that has no file at all.
    pub(super) fn bare() -> (tempfile::TempDir, host::Recorded) {
        let folder = tempfile::tempdir().unwrap();
        let capture = folder.path().join("capture");
        let live = host::Live::new();
        let epoch = muster_proto::time::Timestamp::EPOCH;
        host::Recording::start(&live, &capture, epoch).unwrap().finish().unwrap();
        let mut host = host::Recorded::at(&capture).unwrap();
        let absent = || host::recorded::Failure::of(&std::io::Error::from(std::io::ErrorKind::NotFound));
        for key in [
            "list /etc/security/pwquality.conf.d",
            "read /etc/security/pwquality.conf",
            "read /etc/security/faillock.conf",
            "read /etc/security/pwhistory.conf",
        ] {
            host.index_mut().errors.insert(key.to_owned(), absent());
        }
        (folder, host)
    }

    /// A host that has services of PAM alone.
    pub(in crate::probe) fn services(files: &[(&str, &str)]) -> (tempfile::TempDir, host::Recorded) {
        let (folder, mut host) = bare();
        let place = folder.path().join("capture/files/etc/pam.d");
        std::fs::create_dir_all(&place).unwrap();
        let metadata = host::Metadata {
            kind: host::EntryKind::File,
            size_bytes: 1,
            modified: None,
            mode: 0o644,
            uid: 0,
            gid: 0,
            device: (8, 1),
            inode: 1,
            links: 1,
            changed_nanos: None,
        };
        for (name, text) in files {
            std::fs::write(place.join(name), text).unwrap();
            let path = format!("/etc/pam.d/{name}");
            host.index_mut().metadata.insert(muster_proto::fact::PathText::from_bytes(path.as_bytes()), metadata);
        }
        (folder, host)
    }

    /// A host that has one file alone.
    pub(super) fn with(path: &str, text: &str) -> (tempfile::TempDir, host::Recorded) {
        let (folder, mut host) = bare();
        let file = folder.path().join("capture/files").join(&path[1..]);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        host.index_mut().errors.remove(&format!("read {path}"));
        (folder, host)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        made::{bare, lines, services, with},
        *,
    };

    #[test]
    fn a_module_that_asks_a_directory_is_named_where_the_host_is_set_up_for_one() {
        let stack = |line: &str| Ok(vec![lines(line)]);
        let winbind = stack("-auth [success=2 default=ignore] /lib/security/pam_winbind.so krb5_auth\n");
        for (text, expected) in
            [("[global]\nserver role = standalone server\n", false), ("[global]\nsecurity = ads\n", true)]
        {
            let (_folder, host) = with("/etc/samba/smb.conf", text);
            let named = if expected { vec![Text::new("pam_winbind")] } else { Vec::new() };
            assert_eq!(delegates(&host, &winbind), (named, None), "{text}");
        }
        let (_folder, host) = with("/etc/samba/smb.conf", "[global]\ninclude = registry\n");
        let (named, untold) = delegates(&host, &winbind);
        assert_eq!((named, untold.unwrap().cause), (Vec::new(), Cause::Undecidable));
        // What sssd has of settings is not to be seen.
        let (_folder, host) = bare();
        let (named, untold) = delegates(&host, &stack("auth sufficient pam_sss.so\n"));
        assert_eq!((named, untold.unwrap().cause), (Vec::new(), Cause::Failed));
        assert_eq!(delegates(&host, &stack("auth required pam_unix.so\n")), (Vec::new(), None));
        let (_folder, host) = with("/etc/krb5.conf", "[libdefaults]\ndns_lookup_kdc = true\n");
        assert_eq!(delegates(&host, &stack("auth sufficient pam_krb5.so\n")), (Vec::new(), None));
        let realm = stack("auth sufficient pam_krb5.so realm=EXAMPLE.COM\n");
        assert_eq!(delegates(&host, &realm), (vec![Text::new("pam_krb5")], None));
    }

    #[test]
    fn a_session_is_recorded_where_a_module_that_does_so_is_always_run() {
        // Red Hat's postlogin leaves out the line that writes for all but two services.
        let postlogin = "session [success=1 default=ignore] pam_succeed_if.so service !~ gdm* service !~ su* quiet
            session [default=1] pam_lastlog.so nowtmp showfailed
            session optional pam_lastlog.so silent noupdate showfailed\n";
        for (text, expected) in [
            ("session required pam_unix.so\n", false),
            (postlogin, false),
            ("session optional pam_lastlog.so\n", true),
            ("session optional pam_lastlog.so noupdate\n", false),
            ("session optional pam_wtmpdb.so\n", true),
            ("session optional pam_wtmpdb.so skip_if=cron,sshd\n", false),
            ("session optional pam_lastlog2.so silent\n", true),
            ("session optional pam_lastlog2.so database=/x\n", false),
            ("session sufficient pam_permit.so\nsession optional pam_lastlog2.so\n", false),
            // Debian's own begins so.
            (
                "session [default=1] pam_permit.so\nsession requisite pam_deny.so\nsession optional pam_lastlog2.so\n",
                true,
            ),
        ] {
            let (_folder, host) = services(&[("sshd", text)]);
            assert_eq!(records_sessions(&host, "sshd"), Ok(expected), "{text}");
        }
        assert!(records_sessions(&bare().1, "sshd").is_err());
    }

    #[test]
    fn login_defs_has_words_without_a_sign_between() {
        let text = "# PASS_MAX_DAYS 1\nPASS_MAX_DAYS\t99999\nPASS_MAX_DAYS 365 \nPASS_MAX_DAYSX 3\n";
        assert_eq!(login_defs_value(text, "PASS_MAX_DAYS"), Some("365"));
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in "[A-Z_ \\t0-9#\n-]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                login_defs_value(&text, "PASS_MAX_DAYS");
            }
        }
    }
}
