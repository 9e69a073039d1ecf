//! passwd(5), group(5), shadow(5) and nsswitch.conf(5).
//!
//! passwd and group are read as glibc reads them (`nss/nss_files/files-parse.c`): blanks before a line count for nothing, fields at the
//! end may be missing, and a number is what strtoul(3) takes. A line that it does not take is no account, but is told, since other
//! releases and libraries take other lines.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::fact::{Cause, PasswordState, Reading};
use muster_proto::time::Timestamp;

/// Seconds of a day, the unit of shadow(5).
const DAY: i64 = 86_400;
/// Shells that end at once: nologin(8), false(1) and the commands of the accounts that distributions make for them. A program of such a
/// name in another folder may be any.
const CLOSED_SHELLS: [&str; 6] = ["nologin", "false", "true", "sync", "halt", "shutdown"];

const SHELL_FOLDERS: [&str; 5] = ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/run/current-system/sw/bin"];

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
        let (folder, name) = self.shell.rsplit_once('/').unwrap_or_default();
        !(SHELL_FOLDERS.contains(&folder) && CLOSED_SHELLS.contains(&name))
    }
}

/// What a line of a file comes to.
enum Line<T> {
    Item(T),
    /// A comment, nothing at all, or an entry of NIS.
    Nothing,
    /// What readers may differ on.
    Odd,
}

impl<T> Line<T> {
    fn item(self) -> Option<T> {
        match self {
            Self::Item(item) => Some(item),
            Self::Nothing | Self::Odd => None,
        }
    }
}

/// Returns the accounts of a passwd(5) file, in its order.
pub fn parse_passwd(file: &[u8]) -> Vec<Entry> {
    let text = String::from_utf8_lossy(file);
    lines(&text).filter_map(|line| passwd_line(line).item()).collect()
}

/// Returns the number of the first line of a passwd(5) file that is neither an account nor meant to be none.
pub fn odd_line_of_passwd(file: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(file);
    lines(&text).position(|line| matches!(passwd_line(line), Line::Odd)).map(|at| at + 1)
}

/// Returns the lines of a file as a reader in C sees them: from the first letter, up to a NUL.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').map(|line| line.split('\0').next().unwrap_or_default().trim_start_matches(is_space))
}

/// As isspace(3) of the locale "C".
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

fn passwd_line(line: &str) -> Line<Entry> {
    // glibc finds no account by a name that begins as an entry of NIS does.
    if line.is_empty() || line.starts_with(['#', '+', '-']) {
        return Line::Nothing;
    }
    // Behind the sixth colon, all is the shell.
    let mut fields = line.splitn(7, ':');
    let mut field = || fields.next().unwrap_or_default();
    let (name, password, uid, gid, _, home, shell) = (field(), field(), field(), field(), field(), field(), field());
    match (number(uid), number(gid)) {
        // A name of no letters is found by its number alone, and not by all.
        (Some(uid), Some(gid)) if !name.is_empty() => {
            let text = |text: &str| text.to_owned();
            Line::Item(Entry {
                name: text(name),
                password: text(password),
                uid,
                gid,
                home: text(home),
                shell: text(shell),
            })
        }
        _ => Line::Odd,
    }
}

/// Returns the id that strtoul(3) takes a field for: blanks and a sign may stand before it, and a negative one counts from the end.
/// What is too large is refused by some releases of glibc and taken for the largest by others.
fn number(field: &str) -> Option<u32> {
    let field = field.trim_start_matches(is_space);
    let (is_negative, digits) = match field.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, field.strip_prefix('+').unwrap_or(field)),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    u32::try_from(if is_negative { number.wrapping_neg() } else { number }).ok()
}

/// Returns whether a passwd(5) or group(5) file ends with a line's end, as every program that writes one leaves it. One that does
/// not was cut.
pub fn is_whole(file: &[u8]) -> bool {
    file.ends_with(b"\n")
}

/// Returns whether a passwd(5) or group(5) file takes entries of NIS, which `compat` of nsswitch.conf(5) follows.
pub fn has_nis_lines(file: &[u8]) -> bool {
    file.split(|byte| *byte == b'\n').any(|line| matches!(line.trim_ascii_start().first(), Some(b'+' | b'-')))
}

/// A line of group(5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Group {
    pub name: String,
    pub gid: u32,
    pub members: Vec<String>,
}

/// Returns the groups of a group(5) file, in its order. Those without a name are among them, and those whose name begins as an entry
/// of NIS does: no group is found by it, but glibc gives the members of any line its id (`files-initgroups.c`).
pub fn parse_group(file: &[u8]) -> Vec<Group> {
    let text = String::from_utf8_lossy(file);
    lines(&text).filter_map(|line| group_line(line).item()).collect()
}

/// Returns the number of the first line of a group(5) file that is neither a group nor meant to be none.
pub fn odd_line_of_group(file: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(file);
    lines(&text).position(|line| matches!(group_line(line), Line::Odd)).map(|at| at + 1)
}

fn group_line(line: &str) -> Line<Group> {
    if line.is_empty() || line.starts_with('#') {
        return Line::Nothing;
    }
    let mut fields = line.splitn(4, ':');
    let mut field = || fields.next().unwrap_or_default();
    let (name, _, gid, members) = (field(), field(), field(), field());
    let is_nis = name.starts_with(['+', '-']);
    let gid = match number(gid) {
        Some(gid) => gid,
        None if is_nis && gid.is_empty() && !members.is_empty() => 0,
        None if is_nis => return Line::Nothing,
        None => return Line::Odd,
    };
    let members = members.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Line::Item(Group { name: name.to_owned(), gid, members })
}

/// Adds to groups whom a gshadow(5) file lets into them: newgrp(1) asks its members for no password, and its administrators may make
/// themselves members (gpasswd(1)).
pub fn add_gshadow(groups: &mut [Group], file: &[u8]) {
    let text = String::from_utf8_lossy(file);
    let mut members: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in lines(&text) {
        let mut fields = line.splitn(4, ':');
        let (Some(name), Some(_), Some(administrators), own) =
            (fields.next(), fields.next(), fields.next(), fields.next().unwrap_or_default())
        else {
            continue;
        };
        let names = administrators.split(',').chain(own.split(',')).map(str::trim).filter(|name| !name.is_empty());
        members.entry(name).or_default().extend(names.map(str::to_owned));
    }
    for group in groups {
        group.members.extend(members.get(group.name.as_str()).into_iter().flatten().cloned());
    }
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
/// fields than nine was cut, and is none; nor is one behind it, which is not what glibc would find.
pub fn parse_shadow(file: &[u8]) -> BTreeMap<String, Shadow> {
    let text = String::from_utf8_lossy(file);
    let mut found = BTreeMap::new();
    let mut cut = BTreeSet::new();
    for line in lines(&text) {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, password, changed, _, max, _, inactive, expires, _, ..] = fields.as_slice() else {
            cut.insert(fields.first().copied().unwrap_or_default());
            continue;
        };
        if cut.contains(name) {
            continue;
        }
        let days = |text: &str| text.parse().ok();
        let (changed, max) = (days(changed), days(max));
        let (inactive, expires) = (days(inactive), days(expires));
        let shadow = Shadow { password: password_state(password), changed, max, inactive, expires };
        found.entry((*name).to_owned()).or_insert(shadow);
    }
    found
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
        if self.expires.is_some_and(|day| day >= 0 && today >= day) {
            return Reading::Known(true);
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
    fn an_account_is_a_line_with_two_numbers() {
        let file = b"root:x:0:0:root:/root:/bin/bash\n# a comment\nbroken:x:0\nx:x:no:0::/:/bin/sh\n+@nis::::::\nopen::1000:1000::/home/open:\n";
        let names: Vec<_> =
            parse_passwd(file).into_iter().map(|entry| (entry.name.clone(), entry.is_interactive())).collect();
        assert_eq!(names, [("root".to_owned(), true), ("open".to_owned(), true)]);
        assert!(has_nis_lines(file) && !has_nis_lines(b"root:x:0:0:+:/root:/bin/bash\n"));
        assert!(has_nis_lines(b"  +::::::\n"));
    }

    /// Each is what getent(1) of glibc 2.36 makes of the line.
    #[test]
    fn an_account_of_few_fields_or_of_an_odd_number_is_one() {
        for (line, uid, gid, shell) in [
            ("a::0:0", 0, 0, ""),
            ("a::-0:0:x:/root:/bin/sh", 0, 0, "/bin/sh"),
            ("a::0:0:x:/root", 0, 0, ""),
            (" \t\x0ba:x:0:0::/:/bin/sh", 0, 0, "/bin/sh"),
            ("a:x:+7:010", 7, 10, ""),
            ("a:x: 8:\t9", 8, 9, ""),
            ("a:x:4294967295:0", u32::MAX, 0, ""),
            ("a:x:-18446744073709551615:0", 1, 0, ""),
            ("a:x:5:5:g:/:/sbin/nologin:more", 5, 5, "/sbin/nologin:more"),
            ("a:x:5:5\0:never:seen", 5, 5, ""),
            ("a:x:0:0::/:/bin/sh\r", 0, 0, "/bin/sh\r"),
        ] {
            let file = format!("{line}\n");
            let entries = parse_passwd(file.as_bytes());
            let found: Vec<_> =
                entries.iter().map(|entry| (entry.name.as_str(), entry.uid, entry.gid, entry.shell.as_str())).collect();
            assert_eq!(found, [("a", uid, gid, shell)], "{line}");
            assert_eq!(odd_line_of_passwd(file.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_account_and_no_group_is_told_unless_it_is_meant_to_be_none() {
        let odd =
            ["a", "a:x:1", "a:x::0", "a:x:0:", "a:x:0x0:0", "a:x:8 :9", "a:x:-1:0", "a:x:4294967296:0", "a:x:0:0\r"];
        for line in odd.iter().chain(&[":x:0:0::/:/bin/sh", "a:x:-18446744073709551616:0", "a:x:--0:0", "a:x:+-0:0"]) {
            let file = format!("root:x:0:0:::\n{line}\n");
            assert_eq!(parse_passwd(file.as_bytes()).len(), 1, "{line}");
            assert_eq!(odd_line_of_passwd(file.as_bytes()), Some(2), "{line}");
        }
        for line in ["", "  ", "# x", "  #x:x:0:0", "+", "+::::::", "-bob", " +@ops:x:0:0:::"] {
            let file = format!("root:x:0:0:::\n{line}\n");
            assert_eq!((parse_passwd(file.as_bytes()).len(), odd_line_of_passwd(file.as_bytes())), (1, None), "{line}");
        }
        for (line, expected) in
            [("a", Some(1)), ("a:x::b", Some(1)), ("a:x:-1:", Some(1)), ("# a", None), ("+:::", None)]
        {
            assert_eq!(odd_line_of_group(format!("{line}\n").as_bytes()), expected, "{line}");
        }
    }

    /// Each is what id(1) with glibc 2.36 gives to `b`.
    #[test]
    fn a_group_is_a_line_with_a_number_whatever_its_name() {
        for (line, name, gid, members) in [
            ("a:x:3000", "a", 3000, &[] as &[&str]),
            (" a:x:-0:b", "a", 0, &["b"]),
            ("a:x: 5:,c,, b,", "a", 5, &["c", "b"]),
            (":x:27:b", "", 27, &["b"]),
            ("+x:x:27:b", "+x", 27, &["b"]),
            ("-x:::b", "-x", 0, &["b"]),
            ("a:x:5:c:d,b", "a", 5, &["c:d", "b"]),
        ] {
            let groups = parse_group(format!("{line}\n").as_bytes());
            let members = members.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(groups, [Group { name: name.to_owned(), gid, members }], "{line}");
        }
    }

    #[test]
    fn the_first_line_of_an_account_is_the_one_that_counts_even_where_it_is_short() {
        let shadow = parse_shadow(b"  a::1:0:9:7:::\na:(hash):1:0:9:7:::\nb:::::\nb:(hash):1:0:9:7:::\n");
        assert_eq!(shadow.get("a").map(|line| line.password), Some(PasswordState::Empty));
        assert_eq!(shadow.get("b"), None);
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
            ("/usr/local/bin/true", true),
            ("nologin", true),
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
        // As `chage -E 0` leaves it.
        assert_eq!(known(of("a:(hash):100:0:10:7::0:\n").expired(now(500))), Some(true));
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
                odd_line_of_passwd(file);
                odd_line_of_group(file);
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
