//! passwd(5), group(5), shadow(5) and nsswitch.conf(5).
//!
//! glibc passes over lines of passwd and group that do not follow their format, and so do these parsers: such a line is no account.

use std::collections::BTreeMap;

use muster_proto::fact::{Cause, PasswordState, Reading};
use muster_proto::time::Timestamp;

/// Seconds of a day, the unit of shadow(5).
const DAY: i64 = 86_400;
/// Shells that end at once: nologin(8), false(1) and the commands of the accounts that distributions make for them.
const CLOSED_SHELLS: [&str; 6] = ["nologin", "false", "true", "sync", "halt", "shutdown"];

/// A line of passwd(5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub name: String,
    /// What stands in the password's place, `x` where shadow(5) has it.
    pub password: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
}

impl Entry {
    /// Returns whether its shell lets a person in. No shell at all is `/bin/sh`.
    pub fn is_interactive(&self) -> bool {
        let name = self.shell.rsplit('/').next().unwrap_or_default();
        !CLOSED_SHELLS.contains(&name)
    }
}

/// Returns the accounts of a passwd(5) file, in its order.
pub fn parse_passwd(file: &[u8]) -> Vec<Entry> {
    let text = String::from_utf8_lossy(file);
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, password, uid, gid, _, home, shell] = fields.as_slice() else { return None };
        if !is_name(name) {
            return None;
        }
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        let text = |text: &str| text.to_owned();
        Some(Entry { name: text(name), password: text(password), uid, gid, home: text(home), shell: text(shell) })
    };
    text.lines().filter_map(entry).collect()
}

/// Returns whether a passwd(5) or group(5) file ends with a line's end, as every program that writes one leaves it. One that does
/// not was cut.
pub fn is_whole(file: &[u8]) -> bool {
    file.ends_with(b"\n")
}

/// Returns whether a passwd(5) or group(5) file takes entries of NIS, which `compat` of nsswitch.conf(5) follows.
pub fn has_nis_lines(file: &[u8]) -> bool {
    file.split(|byte| *byte == b'\n').any(|line| matches!(line.first(), Some(b'+' | b'-')))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['+', '-', '#'])
}

/// A line of group(5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Group {
    pub name: String,
    pub gid: u32,
    pub members: Vec<String>,
}

/// Returns the groups of a group(5) file, in its order.
pub fn parse_group(file: &[u8]) -> Vec<Group> {
    let text = String::from_utf8_lossy(file);
    let group = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members] = fields.as_slice() else { return None };
        if !is_name(name) {
            return None;
        }
        let members = members.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some(Group { name: (*name).to_owned(), gid: gid.parse().ok()?, members })
    };
    text.lines().filter_map(group).collect()
}

/// A line of shadow(5), whose hash was taken out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shadow {
    pub password: PasswordState,
    /// Days since 1970 of the last change.
    pub changed: Option<i64>,
    /// Days for which a password may be used.
    pub max: Option<i64>,
    /// Days after that until the account is shut.
    pub inactive: Option<i64>,
    /// Days since 1970 of the expiry.
    pub expires: Option<i64>,
}

/// Returns the lines of a shadow(5) file by account; of two for one account, the first, which is what glibc finds. A line of fewer
/// fields than nine was cut, and is none.
pub fn parse_shadow(file: &[u8]) -> BTreeMap<String, Shadow> {
    let text = String::from_utf8_lossy(file);
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, password, changed, _, max, _, inactive, expires, _, ..] = fields.as_slice() else { continue };
        let days = |text: &str| text.parse().ok();
        let (changed, max) = (days(changed), days(max));
        let (inactive, expires) = (days(inactive), days(expires));
        let shadow = Shadow { password: password_state(password), changed, max, inactive, expires };
        lines.entry((*name).to_owned()).or_insert(shadow);
    }
    lines
}

/// Returns what a password field of passwd(5) or shadow(5) stands for.
pub fn password_state(field: &str) -> PasswordState {
    let rest = field.trim_start_matches('!');
    match (field.is_empty(), rest.len() == field.len()) {
        (true, _) => PasswordState::Empty,
        // crypt(3) never returns a text that begins with `*`.
        _ if rest.is_empty() || rest.starts_with('*') => PasswordState::None,
        (_, false) => PasswordState::Locked,
        (_, true) => PasswordState::Set,
    }
}

impl Shadow {
    /// Returns whether the account has expired at `now`, as pam_unix(8) reckons: its day has come, or its password has been too
    /// old for longer than it may.
    pub fn expired(&self, now: Timestamp) -> Reading<bool> {
        let today = now.seconds().div_euclid(DAY);
        match self.expires {
            // shadow(5) warns that 0 is taken for either.
            Some(0) => {
                return Reading::unknown(Cause::Undecidable, "its expiry date is day 0, which means never to some");
            }
            Some(day) if day > 0 && today >= day => return Reading::Known(true),
            _ => {}
        }
        let is_shut = match (self.changed, self.max, self.inactive) {
            (Some(changed), Some(max), Some(inactive)) if changed > 0 && max >= 0 && inactive >= 0 => {
                today.saturating_sub(changed) > max.saturating_add(inactive)
            }
            _ => false,
        };
        Reading::Known(is_shut)
    }

    /// Returns the first day on which the account is expired.
    pub fn expires_time(&self) -> Reading<Timestamp> {
        day(self.expires, "no expiry date is set")
    }

    /// Returns the day of the last change of the password.
    pub fn changed_time(&self) -> Reading<Timestamp> {
        day(self.changed, "no change is recorded")
    }
}

fn day(days: Option<i64>, absent: &str) -> Reading<Timestamp> {
    let Some(days) = days.filter(|days| *days > 0) else { return Reading::unknown(Cause::Absent, absent) };
    crate::host::time_reading(days.checked_mul(DAY).and_then(Timestamp::from_seconds))
}

/// Returns the services of `database` in an nsswitch.conf(5) file; `files` alone where it is not named.
pub fn services(file: &str, database: &str) -> Vec<String> {
    let mut lines = file.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default().trim();
        line.strip_prefix(database)?.trim_start().strip_prefix(':')
    });
    let Some(line) = lines.next_back() else { return vec!["files".to_owned()] };
    // What to do after a service stands in brackets behind it.
    let mut services = Vec::new();
    let mut is_action = false;
    for word in line.split_whitespace() {
        is_action |= word.starts_with('[');
        if !is_action {
            services.push(word.to_owned());
        }
        if word.ends_with(']') {
            is_action = false;
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_account_is_a_line_of_seven_fields_with_numbers() {
        let file = b"root:x:0:0:root:/root:/bin/bash\n# a comment\nbroken:x:0\nx:x:no:0::/:/bin/sh\n+@nis::::::\nopen::1000:1000::/home/open:\n";
        let names: Vec<_> =
            parse_passwd(file).into_iter().map(|entry| (entry.name.clone(), entry.is_interactive())).collect();
        assert_eq!(names, [("root".to_owned(), true), ("open".to_owned(), true)]);
        assert!(has_nis_lines(file) && !has_nis_lines(b"root:x:0:0:+:/root:/bin/bash\n"));
    }

    #[test]
    fn a_shell_that_ends_at_once_lets_nobody_in() {
        for (shell, expected) in [
            ("/usr/sbin/nologin", false),
            ("/sbin/nologin", false),
            ("/bin/false", false),
            ("/bin/sync", false),
            ("", true),
            ("/bin/rbash", true),
            ("/opt/own", true),
        ] {
            let line = format!("a:x:1:1::/:{shell}\n");
            assert_eq!(parse_passwd(line.as_bytes())[0].is_interactive(), expected, "{shell}");
        }
    }

    #[test]
    fn a_password_field_is_told_by_its_first_bytes() {
        for (field, expected) in [
            ("", PasswordState::Empty),
            ("*", PasswordState::None),
            ("!", PasswordState::None),
            ("!!", PasswordState::None),
            ("!*", PasswordState::None),
            ("(hash)", PasswordState::Set),
            ("!(hash)", PasswordState::Locked),
        ] {
            assert_eq!(password_state(field), expected, "{field}");
        }
    }

    #[test]
    fn an_account_expires_on_its_day_and_when_its_password_is_too_old_for_too_long() {
        let now = |day: i64| Timestamp::from_seconds(day * DAY + 1).unwrap();
        let of = |line: &str| parse_shadow(line.as_bytes()).remove("a").unwrap();
        let known = |reading: Reading<bool>| reading.known().copied();
        let dated = of("a:(hash):100:0:99999:7::200:\n");
        assert_eq!([199, 200].map(|day| known(dated.expired(now(day)))), [Some(false), Some(true)]);
        let inactive = of("a:(hash):100:0:10:7:5::\n");
        assert_eq!([115, 116].map(|day| known(inactive.expired(now(day)))), [Some(false), Some(true)]);
        assert_eq!(known(of("a:(hash):100:0:10:7:::\n").expired(now(500))), Some(false));
        assert_eq!(known(of("a:(hash):100:0:10:7::0:\n").expired(now(500))), None);
    }

    #[test]
    fn services_are_read_without_their_actions() {
        let file =
            "# x\npasswd:\tfiles [SUCCESS=merge] sss [NOTFOUND=return UNAVAIL=continue] ldap # more\ngroup: files\n";
        assert_eq!(services(file, "passwd"), ["files", "sss", "ldap"]);
        assert_eq!(services(file, "sudoers"), ["files"]);
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[a-z:!*0-9\n,+-]{0,200}") {
            for file in [bytes.as_slice(), text.as_bytes()] {
                parse_passwd(file);
                parse_group(file);
                for shadow in parse_shadow(file).values() {
                    shadow.expired(Timestamp::EPOCH);
                    shadow.expires_time();
                    shadow.changed_time();
                }
                services(&String::from_utf8_lossy(file), "passwd");
            }
        }
    }
}
