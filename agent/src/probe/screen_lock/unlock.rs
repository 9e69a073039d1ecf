//! Whether a locked session opens without a password: lines of pam.d(5) that let members of a group in, and end the stack.

use std::path::Path;

use muster_proto::fact::{Cause, Unknown};

use super::Person;
use crate::{
    host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES},
    probe::accounts::passwd,
};

/// Folders of service files, the first that has a service deciding (pam.d(5)).
const FOLDERS: [&str; 3] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"];
const GROUP: &str = "/etc/group";
/// How deep files include each other, and lines of one service, at most.
const DEPTH: usize = 16;
const LINES: usize = 1_000;
/// The module that asks who somebody is, and words that change nothing in what it asks.
const CHOOSER: &str = "pam_succeed_if.so";
const QUIET: [&str; 5] = ["audit", "debug", "quiet", "quiet_fail", "quiet_success"];
/// The module that lets in everybody.
const PERMIT: &str = "pam_permit.so";

/// Who is let in without a password.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Free {
    Members(String),
    /// A line that may let somebody in.
    Untold(String),
}

/// What the services by which a session is unlocked ask for.
pub struct Unlock {
    free: Result<Vec<Free>, Unknown>,
    groups: Result<Vec<passwd::Group>, Unknown>,
}

impl Unlock {
    pub fn look(host: &dyn Host, services: &[&str]) -> Self {
        let mut free = Vec::new();
        for service in services {
            if let Err(unknown) = look_at(host, service, &mut free) {
                return Self { free: Err(unknown), groups: Ok(Vec::new()) };
            }
        }
        let has_group = free.iter().any(|free| matches!(free, Free::Members(_)));
        let groups = if has_group { groups(host) } else { Ok(Vec::new()) };
        Self { free: Ok(free), groups }
    }

    /// Returns whether an account is asked for something; without one, whether one in no such group is.
    pub fn asks(&self, person: Option<&Person>) -> Result<bool, Unknown> {
        let groups = self.groups.as_deref().map_err(Clone::clone)?;
        let mut untold = None;
        for free in self.free.as_deref().map_err(Clone::clone)? {
            match free {
                Free::Members(group) => {
                    if person.is_some_and(|person| is_member(person, group, groups)) {
                        return Ok(false);
                    }
                }
                Free::Untold(line) => {
                    untold.get_or_insert(line);
                }
            }
        }
        match untold {
            None => Ok(true),
            Some(line) => Err(Unknown::new(Cause::Undecidable, format!("may unlock without a password: {line}"))),
        }
    }
}

/// Returns whether an account is in a group, as its own or as one of its members.
fn is_member(person: &Person, group: &str, groups: &[passwd::Group]) -> bool {
    let mut of_name = groups.iter().filter(|own| own.name == group);
    of_name.any(|group| group.gid == person.gid || group.members.contains(&person.name))
}

fn groups(host: &dyn Host) -> Result<Vec<passwd::Group>, Unknown> {
    let bytes =
        host.read(Path::new(GROUP), FILE_BYTES).map_err(|error| host::unknown(format!("read {GROUP}"), &error))?;
    if !passwd::is_whole(&bytes) {
        return Err(Unknown::new(Cause::Garbled, format!("the last line of {GROUP} has no end")));
    }
    Ok(passwd::parse_group(&bytes))
}

/// Adds whom a service lets in. One without a file is `other`, and without that nobody is let in.
fn look_at(host: &dyn Host, service: &str, free: &mut Vec<Free>) -> Result<(), Unknown> {
    let mut lines = 0;
    for service in [service, "other"] {
        if let Some(text) = read(host, service)? {
            return add(host, service, &text, &mut lines, 0, free);
        }
    }
    Ok(())
}

fn add(
    host: &dyn Host,
    service: &str,
    text: &str,
    lines: &mut usize,
    depth: usize,
    free: &mut Vec<Free>,
) -> Result<(), Unknown> {
    let too_much = || Unknown::new(Cause::Limit, format!("pam.d/{service} has more than is read"));
    if depth > DEPTH {
        return Err(too_much());
    }
    for line in text.replace("\\\n", " ").lines() {
        *lines += 1;
        if *lines > LINES {
            return Err(too_much());
        }
        match parse(line) {
            None => {}
            Some(Item::Free(who)) => free.push(who),
            Some(Item::Include(name)) => {
                let text = read(host, &name)?;
                let text = text.ok_or_else(|| Unknown::new(Cause::Absent, format!("no pam.d has {name}")))?;
                add(host, &name, &text, lines, depth + 1, free)?;
            }
        }
    }
    Ok(())
}

/// Returns the text of a service's file; `None` without one.
fn read(host: &dyn Host, service: &str) -> Result<Option<String>, Unknown> {
    for folder in FOLDERS {
        let path = Path::new(folder).join(service);
        match host.read(&path, SMALL_FILE_BYTES) {
            Ok(bytes) => return Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("read {}", path.display()), &error)),
        }
    }
    Ok(None)
}

/// What a line has that is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Item {
    Free(Free),
    Include(String),
}

fn parse(line: &str) -> Option<Item> {
    let line = line.split('#').next().unwrap_or_default().trim();
    if let Some(service) = line.strip_prefix("@include") {
        return Some(Item::Include(service.trim().to_owned()));
    }
    let (kind, rest) = line.split_once(char::is_whitespace)?;
    if !kind.trim_start_matches('-').eq_ignore_ascii_case("auth") {
        return None;
    }
    let rest = rest.trim_start();
    let (control, rest) = match rest.strip_prefix('[') {
        Some(actions) => actions.split_once(']')?,
        None => rest.split_once(char::is_whitespace)?,
    };
    let mut words = rest.split_whitespace();
    let module = words.next()?;
    let control = control.to_ascii_lowercase();
    if matches!(control.as_str(), "include" | "substack") {
        return Some(Item::Include(module.to_owned()));
    }
    let name = module.rsplit('/').next().unwrap_or_default();
    if !ends(&control) || ![CHOOSER, PERMIT].contains(&name) {
        return None;
    }
    let asked: Vec<&str> = words.filter(|word| !QUIET.contains(word)).collect();
    Some(Item::Free(match asked[..] {
        ["user", "ingroup", group] if name == CHOOSER && !group.contains(':') && control == "sufficient" => {
            Free::Members(group.to_owned())
        }
        _ => Free::Untold(line.to_owned()),
    }))
}

/// Returns whether a stack may end well, or pass over lines, where a module lets somebody in.
fn ends(control: &str) -> bool {
    let is_end = |action: &str| action == "done" || action.parse::<u32>().is_ok();
    control == "sufficient" || control.split_whitespace().any(|pair| pair.strip_prefix("success=").is_some_and(is_end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::Recorded;

    /// Returns whether two accounts are asked for something: one in the group `nopasswdlogin`, and one in no group.
    fn asks(service: &str) -> [Option<bool>; 2] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.json"), r#"{"version": 1, "captured": "2026-11-26T00:00:00Z"}"#)
            .unwrap();
        let files = [
            ("etc/pam.d/gdm-password", service),
            ("etc/pam.d/common-auth", "auth sufficient pam_succeed_if.so user ingroup nopasswdlogin quiet\n"),
            ("etc/group", "wheel:x:10:\nnopasswdlogin:x:990:bob,eve\n"),
        ];
        for (path, text) in files {
            let path = folder.path().join("files").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Recorded::at(folder.path()).unwrap();
        let unlock = Unlock::look(&host, &["gdm-password"]);
        ["eve", "frank"].map(|name| {
            let person = Person { name: name.to_owned(), home: "/home/x".into(), uid: 1000, gid: 1000 };
            unlock.asks(Some(&person)).ok()
        })
    }

    #[test]
    fn a_member_of_a_group_that_is_let_in_is_asked_for_nothing() {
        for (service, expected) in [
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
            ("auth [success=ok default=1] pam_succeed_if.so uid >= 1000\n", [Some(true); 2]),
            ("account sufficient pam_succeed_if.so uid < 1000 quiet\n", [Some(true); 2]),
            ("auth required pam_permit.so\n", [Some(true); 2]),
            ("auth sufficient pam_permit.so\n", [None; 2]),
            ("auth sufficient pam_succeed_if.so uid >= 1000\n", [None; 2]),
            ("auth sufficient pam_succeed_if.so user ingroup nopasswdlogin use_uid\n", [None; 2]),
            ("auth [success=1 default=ignore] pam_succeed_if.so user ingroup nopasswdlogin\n", [None; 2]),
        ] {
            assert_eq!(asks(service), expected, "{service}");
        }
    }

    #[test]
    fn an_account_is_in_its_own_group() {
        let groups = passwd::parse_group(b"a:x:7:\nb:x:8:eve\n");
        let eve = Person { name: "eve".to_owned(), home: "/home/eve".into(), uid: 1000, gid: 7 };
        assert!(is_member(&eve, "a", &groups) && is_member(&eve, "b", &groups) && !is_member(&eve, "c", &groups));
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(line in "(auth |-auth )?(sufficient|include|\\[success=done\\]|\\[)? *(pam_succeed_if.so)?[a-z =#]{0,20}", any in "\\PC*") {
            for line in [line, any] {
                let _ = parse(&line);
            }
        }
    }
}
