//! What PAM asks of local passwords: the stacks of pam.d(5), and the files of the modules that make the rules.
//!
//! A module asks for something where its refusal fails the stack, and no line before it ends the stack or jumps over it for a
//! local password. What depends on more than that is unknown.

mod lockout;
mod quality;
mod settings;
mod stack;

use std::path::Path;

use muster_proto::fact::{Cause, PasswordPolicy, Reading, Text, Unknown};

use self::stack::{DIRECTORIES, Line, has_service, stack};
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Services by which people sign in.
const SIGN_IN: [&str; 6] = ["login", "sshd", "gdm-password", "lightdm", "sddm", "kde"];

/// Reads what a local password must be.
pub fn policy(host: &dyn Host) -> PasswordPolicy {
    let change = stack(host, "passwd", "password");
    let sign_in = sign_in_stacks(host);
    let (attempts, seconds) = lockout::lockout(host, &sign_in);
    PasswordPolicy {
        min_length: told(change.as_ref().map_err(Clone::clone).and_then(|lines| quality::min_length(host, lines))),
        lockout_attempts: attempts,
        lockout_seconds: seconds,
        history: told(change.as_ref().map_err(Clone::clone).and_then(|lines| quality::history(host, lines))),
        max_age_days: max_age_days(host),
        delegates: delegates(&sign_in),
    }
}

fn told<T>(result: Result<T, Unknown>) -> Reading<T> {
    match result {
        Ok(value) => Reading::Known(value),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

fn sign_in_stacks(host: &dyn Host) -> Result<Vec<Vec<Line>>, Unknown> {
    let mut services = Vec::new();
    for service in SIGN_IN {
        if has_service(host, service)? {
            services.push(service);
        }
    }
    let services = if services.is_empty() { vec!["other"] } else { services };
    services.into_iter().map(|service| stack(host, service, "auth")).collect()
}

fn delegates(stacks: &Result<Vec<Vec<Line>>, Unknown>) -> Vec<Text> {
    let lines = stacks.iter().flatten().flatten();
    let mut names: Vec<&str> =
        lines.map(|line| line.module.as_str()).filter(|name| DIRECTORIES.contains(name)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(Text::new).collect()
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
mod made {
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

    use super::{made::lines, *};

    #[test]
    fn modules_that_ask_a_directory_are_named() {
        let stack = lines("-auth [success=2 default=ignore] /lib/security/pam_sss.so a\n");
        assert_eq!(delegates(&Ok(vec![stack])), [Text::new("pam_sss")]);
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
