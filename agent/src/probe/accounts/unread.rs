//! Ways to become the superuser that are not read, and only noticed: rules of other programs than sudo(8), rules of sudo in other
//! places, and su(1) and sudo(8) without a password by PAM.

use std::{collections::BTreeSet, path::Path};

use muster_proto::fact::{Cause, Unknown};

use super::{pam, sudoers};
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Settings of sudo (sudo.conf(5)): the usual place, and that of systems whose `/etc` holds changes alone.
const SUDO_CONF: [&str; 2] = ["/etc/sudo.conf", "/usr/etc/sudo.conf"];
/// Rules of doas(1): its file, and the folder that Alpine Linux has beside it.
const DOAS_CONF: &str = "/etc/doas.conf";
const DOAS_FOLDER: &str = "/etc/doas.d";
/// Parts of sudo that decide by sudoers(5), and only log.
const SUDOERS_PARTS: [&str; 3] = ["sudoers_policy", "sudoers_io", "sudoers_audit"];

/// Returns why others may become the superuser than groups and rules of sudoers(5) tell. `services` are those of PAM that rules name.
pub fn look(host: &dyn Host, services: &BTreeSet<String>) -> Option<Unknown> {
    let mut untold = None;
    let mut check = |path: &str, odd_line: fn(&str) -> Option<usize>, why: &str| match read(host, Path::new(path)) {
        Ok(text) => {
            if let Some(number) = odd_line(&text) {
                sudoers::doubt(&mut untold, Unknown::new(Cause::Undecidable, format!("{path}:{number}: {why}")));
            }
        }
        Err(unknown) => sudoers::doubt(&mut untold, unknown),
    };
    for path in SUDO_CONF {
        check(path, odd_line_of_sudo_conf, "sudo may have its rules from elsewhere");
    }
    check(DOAS_CONF, doas_rule, "rules of doas are not read");
    match host.list(Path::new(DOAS_FOLDER)) {
        Ok(names) => {
            for name in names.iter().filter_map(|name| name.to_str()).filter(|name| name.ends_with(".conf")) {
                check(&format!("{DOAS_FOLDER}/{name}"), doas_rule, "rules of doas are not read");
            }
        }
        Err(error) if host::cause(&error) == Cause::Absent => {}
        Err(error) => sudoers::doubt(&mut untold, host::unknown(format!("list {DOAS_FOLDER}"), &error)),
    }
    if let Some(unknown) = pam::asks_nobody(host, services) {
        sudoers::doubt(&mut untold, unknown);
    }
    untold
}

/// Returns a file; an empty one where there is none.
fn read(host: &dyn Host, path: &Path) -> Result<String, Unknown> {
    match host.read(path, SMALL_FILE_BYTES) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(String::new()),
        Err(error) => Err(host::unknown(format!("read {}", path.display()), &error)),
    }
}

/// Returns the number of the first line that `is_odd`, given its words up to a comment.
fn find(text: &str, is_odd: impl Fn(&[&str]) -> bool) -> Option<usize> {
    let words = |line: &str| -> bool {
        let line = line.split('#').next().unwrap_or_default();
        is_odd(&line.split_whitespace().collect::<Vec<_>>())
    };
    text.lines().position(words).map(|at| at + 1)
}

/// Returns the line of sudo.conf(5) by which something else than the usual rules may decide: another part than those of sudoers(5), one
/// that is told of another file, or one from another place. A line that continues is not read.
fn odd_line_of_sudo_conf(text: &str) -> Option<usize> {
    find(text, |words| {
        let is_usual = |path: &str| {
            path == "sudoers.so"
                || (path.starts_with("/usr/lib") && path.ends_with("/sudoers.so") && !path.contains(".."))
        };
        match words {
            [.., last] if last.ends_with('\\') => true,
            [word, part, path, arguments @ ..] if word.eq_ignore_ascii_case("plugin") => {
                !SUDOERS_PARTS.contains(part)
                    || !is_usual(path)
                    || arguments.iter().any(|argument| argument.contains("sudoers_file="))
            }
            [word, ..] if word.eq_ignore_ascii_case("plugin") => true,
            [word, name, ..] if word.eq_ignore_ascii_case("path") => name.eq_ignore_ascii_case("plugin_dir"),
            _ => false,
        }
    })
}

/// Returns the first line of a doas.conf(5).
fn doas_rule(text: &str) -> Option<usize> {
    find(text, |words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn settings_of_sudo_that_bring_other_rules_are_noticed() {
        let stock = "# Sudo plugins:\n#Plugin sudoers_policy sudoers.so\nPlugin sudoers_policy sudoers.so\n\
            Plugin sudoers_io sudoers.so\nPlugin sudoers_audit /usr/libexec/sudo/sudoers.so ldap_conf=/etc/ldap.conf\n\
            Set disable_coredump false\nPath askpass /usr/libexec/openssh/gnome-ssh-askpass\n\
            #Path plugin_dir /usr/libexec/sudo\n";
        assert_eq!(odd_line_of_sudo_conf(stock), None);
        for line in [
            "Plugin sudoers_policy sudoers.so sudoers_file=/etc/sd/bob",
            " plugin\tsudoers_policy sudoers.so sudoers_mode=0400 sudoers_file=/x # y",
            "Plugin approve_all sudoers.so",
            "Plugin sudoers_policy other.so",
            "Plugin sudoers_policy /opt/sudoers.so",
            "Plugin sudoers_policy /usr/lib/../../opt/sudoers.so",
            "Plugin sudoers_policy",
            "Path plugin_dir /opt",
            "Plugin sudoers_policy sudoers.so \\\n sudoers_file=/x",
        ] {
            assert_eq!(odd_line_of_sudo_conf(&format!("{stock}{line}\n")), Some(9), "{line}");
        }
    }

    #[test]
    fn any_rule_of_doas_is_noticed() {
        assert_eq!(doas_rule("# permit persist :wheel\n\n  # x\n"), None);
        assert_eq!(doas_rule("# x\npermit nopass bob as root\n"), Some(2));
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in "[PpluginathsudoersΩ_.=/# \\\\\n]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                let _ = (odd_line_of_sudo_conf(&text), doas_rule(&text));
            }
        }
    }
}
