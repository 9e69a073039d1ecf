//! Who may sign in to the host, who may act as its superuser, and what its passwords must be.
//!
//! Read are the host's own files alone. Where accounts, groups or sudo rules come from a directory as well, the fact says so
//! and lists what the files hold. No hash of a password is ever read by more than the door to the machine.

mod groups;
mod keys;
mod logins;
pub mod pam;
pub(super) mod passwd;
mod roster;
mod set_up;
mod sqlite;
mod ssh;
mod sudoers;
mod unread;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use muster_proto::{
    fact::{Account, Accounts, Administrator, AdministratorKind, Cause, Fact, Reading, Text, Unknown},
    report,
    time::Timestamp,
};

use self::{
    keys::Keys,
    logins::Logins,
    passwd::{Entry, Group, Shadow},
    roster::Roster,
    ssh::Ssh,
    sudoers::{Grant, Sudoers},
};
use super::{Look, Probe, remote_access::sshd_config::Config};
use crate::host::{self, FILE_BYTES, Host, SMALL_FILE_BYTES};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const NSSWITCH: &str = "/etc/nsswitch.conf";
/// Accounts that are listed, at most.
const ACCOUNTS: usize = 10_000;
/// Ways to act as the superuser that are listed, at most.
const ADMINISTRATORS: usize = 10_000;
/// The probe of `accounts`.
pub struct AccountsProbe;

impl Probe for AccountsProbe {
    fn id(&self) -> report::Probe {
        report::Probe::Accounts
    }

    fn name(&self) -> &'static str {
        "accounts"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        vec![match accounts(look.host, look.now) {
            Ok(accounts) => Fact::Accounts(Reading::Known(accounts)),
            Err(unknown) => Fact::Accounts(Reading::Unknown { unknown }),
        }]
    }
}

fn accounts(host: &dyn Host, now: Timestamp) -> Result<Accounts, Unknown> {
    let passwd = read(host, PASSWD)?;
    // Who is not listed would be told of nobody.
    whole(&passwd, PASSWD)?;
    // Which account such a line is, if any, depends on who reads it.
    if let Some(number) = passwd::odd_line_of_passwd(&passwd) {
        return Err(Unknown::new(Cause::Garbled, format!("{PASSWD}:{number}: no line of passwd(5)")));
    }
    let entries = passwd::parse_passwd(&passwd);
    if entries.is_empty() {
        return Err(Unknown::new(Cause::Garbled, format!("{PASSWD} names no account")));
    }
    if entries.len() > ACCOUNTS {
        return Err(Unknown::new(Cause::Limit, format!("{PASSWD} has {} accounts", entries.len())));
    }
    let group = read(host, GROUP)?;
    let mut groups = passwd::parse_group(&group);
    let gshadow = add_gshadow(host, &mut groups);
    let shadow = shadow(host);
    let logins = Logins::look(host, now);
    let config = Config::look(host);
    let keys = Keys::look(host, &config);
    let ssh = Ssh::look(host, &config);
    let mut accounts: Vec<Account> =
        entries.iter().map(|entry| account(host, entry, shadow.as_ref(), &logins, &keys, &ssh, now)).collect();
    accounts.sort_by(|a, b| (a.uid, &a.name).cmp(&(b.uid, &b.name)));
    let (directories, unread) = directories(host, passwd::has_nis_lines(&passwd) || passwd::has_nis_lines(&group));
    let (administrators, mut unsound) = administrators(host, &entries, &groups, !directories.is_empty());
    if let Some(number) = passwd::odd_line_of_group(&group) {
        sudoers::doubt(&mut unsound, Unknown::new(Cause::Garbled, format!("{GROUP}:{number}: no line of group(5)")));
    }
    if let Err(unknown) = whole(&group, GROUP) {
        sudoers::doubt(&mut unsound, unknown);
    }
    if let Err(unknown) = gshadow {
        sudoers::doubt(&mut unsound, unknown);
    }
    // What could not be read goes before what was not understood.
    let untold = match (unread, unsound) {
        (Some(unread), Some(unsound)) if unsound.cause == Cause::Undecidable => Some(unread),
        (unread, unsound) => unsound.or(unread),
    };
    let sign_in = pam::SignIn::look(host);
    sign_in.doubt(&mut accounts, &entries, &groups);
    Ok(Accounts {
        accounts,
        administrators,
        administrators_complete: match untold {
            None => Reading::Known(true),
            Some(unknown) => Reading::Unknown { unknown },
        },
        directories: directories.iter().map(|name| Text::new(name)).collect(),
        policy: pam::policy(host, ssh.beside_pam().or(sign_in.anybody())),
    })
}

fn read(host: &dyn Host, path: &str) -> Result<Vec<u8>, Unknown> {
    host.read(Path::new(path), FILE_BYTES).map_err(|error| host::unknown(format!("read {path}"), &error))
}

/// Returns an error where a file of passwd(5) or group(5) was cut.
fn whole(file: &[u8], path: &str) -> Result<(), Unknown> {
    if passwd::is_whole(file) {
        Ok(())
    } else {
        Err(Unknown::new(Cause::Garbled, format!("the last line of {path} has no end")))
    }
}

fn shadow(host: &dyn Host) -> Result<BTreeMap<String, Shadow>, Unknown> {
    let file = host.shadow().map_err(|error| host::unknown("read /etc/shadow", &error))?;
    let lines = passwd::parse_shadow(&file);
    if lines.is_empty() {
        return Err(Unknown::new(Cause::Garbled, "/etc/shadow names no account"));
    }
    Ok(lines)
}

/// Adds whom `/etc/gshadow` lets into groups; nobody where there is no such file.
fn add_gshadow(host: &dyn Host, groups: &mut [Group]) -> Result<(), Unknown> {
    match host.gshadow() {
        Ok(file) => {
            passwd::add_gshadow(groups, &file);
            whole(&file, "/etc/gshadow")
        }
        Err(error) if host::cause(&error) == Cause::Absent => Ok(()),
        Err(error) => Err(host::unknown("read /etc/gshadow", &error)),
    }
}

fn account(
    host: &dyn Host,
    entry: &Entry,
    shadow: Result<&BTreeMap<String, Shadow>, &Unknown>,
    logins: &Logins,
    keys: &Keys,
    ssh: &Ssh,
    now: Timestamp,
) -> Account {
    // passwd(5): whatever else stands there is the password itself, and shadow(5) is not asked.
    let in_shadow = entry.password == "x";
    let line = shadow.map(|lines| lines.get(&entry.name));
    fn of_line<T>(line: Result<Option<&Shadow>, &Unknown>, get: impl Fn(&Shadow) -> Reading<T>) -> Reading<T> {
        match line {
            Ok(Some(line)) => get(line),
            Ok(None) => Reading::unknown(Cause::Absent, "/etc/shadow has no line of it"),
            Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
        }
    }
    let password = if in_shadow {
        of_line(line, |line| Reading::Known(line.password))
    } else {
        Reading::Known(passwd::password_state(&entry.password))
    };
    let authorized_keys = keys.of(host, entry);
    let unrecorded = ssh.unrecorded(entry.uid, &password, &authorized_keys).filter(|_| entry.is_interactive());
    let no_login_since_time = logins.no_login_since_time(entry.uid, &entry.name, unrecorded);
    Account {
        name: Text::new(&entry.name),
        uid: entry.uid,
        interactive: entry.is_interactive(),
        password,
        expired: of_line(line, |line| line.expired(now)),
        authorized_keys,
        password_changed_time: super::past(of_line(line, Shadow::changed_time), now),
        expires_time: of_line(line, Shadow::expires_time),
        last_login_time: logins.last_login_time(entry.uid, &entry.name),
        no_login_since_time,
    }
}

/// Returns what accounts, groups or sudo rules come from beside the host's files, and why it may be others.
fn directories(host: &dyn Host, has_nis_lines: bool) -> (BTreeSet<String>, Option<Unknown>) {
    let text = match host.read(Path::new(NSSWITCH), SMALL_FILE_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        // nsswitch.conf(5): without the file, the defaults of the libraries hold, which are the files.
        Err(error) if host::cause(&error) == Cause::Absent => String::new(),
        Err(error) => return (BTreeSet::new(), Some(host::unknown(format!("read {NSSWITCH}"), &error))),
    };
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return (BTreeSet::new(), Some(Unknown::new(Cause::Garbled, format!("{NSSWITCH} is no text"))));
    }
    let mut untold = None;
    // What may not be looked into may have what makes a directory.
    let mut or_untold = |found: Result<bool, Unknown>| {
        found.unwrap_or_else(|unknown| {
            untold.get_or_insert(unknown);
            true
        })
    };
    let mut directories = BTreeSet::new();
    for service in ["passwd", "group", "sudoers"].iter().flat_map(|database| passwd::services(&text, database)) {
        let is_directory = match service.as_str() {
            // `altfiles` are files of the image, whose accounts cannot be changed.
            "files" | "altfiles" => false,
            // nss-mymachines(8): names for the user ids of containers, of which none has a password or a shell.
            "mymachines" => false,
            "compat" => has_nis_lines,
            // Distributions name it whether or not anything is set up for it.
            "sss" => or_untold(set_up::has_sssd(host)),
            // What libnss-winbind's package adds to the file by itself.
            "winbind" => or_untold(set_up::has_directory(host, "pam_winbind", &[])),
            // nss-systemd(8): users of services, and records that a host may have.
            "systemd" => or_untold(set_up::has_user_records(host)),
            _ => true,
        };
        if is_directory {
            directories.insert(service);
        }
    }
    (directories, untold)
}

/// Returns every way to act as the superuser, sorted, and why there may be more.
fn administrators(
    host: &dyn Host,
    entries: &[Entry],
    groups: &[Group],
    has_directories: bool,
) -> (Vec<Administrator>, Option<Unknown>) {
    let administrator = |name: &str, kind, via: &str, all_commands, no_password| Administrator {
        name: Text::new(name),
        kind,
        via: Text::new(via),
        all_commands,
        no_password,
    };
    let mut found: BTreeSet<Administrator> = entries
        .iter()
        .filter(|entry| entry.uid == 0)
        .map(|entry| administrator(&entry.name, AdministratorKind::Uid0, "", true, false))
        .collect();
    let roots: BTreeSet<&str> =
        entries.iter().filter(|entry| entry.uid == 0).map(|entry| entry.name.as_str()).collect();
    let roster = Roster::new(entries, groups);
    let hostname = host.machine().map(|machine| machine.hostname);
    let mut untold = hostname.as_ref().err().map(|error| host::unknown("uname", error));
    // Which rules are for this host depends on its name.
    let hostname = hostname.unwrap_or_default();
    let superusers = roster.superusers();
    let (mut in_sudoers, mut is_sudo_untold) = (BTreeSet::new(), false);
    let mut pam_services = BTreeSet::new();
    for mains in sudoers::MAINS {
        let mut sudoers = Sudoers::look(host, mains, &hostname);
        let grants = sudoers::grants(&mut sudoers, &superusers, &hostname);
        pam_services.append(&mut sudoers.pam_services);
        if let Some(unknown) = sudoers.untold {
            is_sudo_untold = true;
            sudoers::doubt(&mut untold, unknown);
        }
        for grant in grants {
            if found.len() > ADMINISTRATORS {
                break;
            }
            in_sudoers.extend(grant.who.strip_prefix('%').map(str::to_lowercase));
            for name in names(&grant, &roster, has_directories) {
                if !roots.contains(name.as_str()) {
                    let Grant { at, all_commands, no_password, .. } = &grant;
                    found.insert(administrator(&name, AdministratorKind::Sudoers, at, *all_commands, *no_password));
                }
            }
        }
    }
    for group in &groups::KNOWN {
        let gids = roster.gids(group.name);
        let mut members = roster.members(&gids);
        members.retain(|name| !roots.contains(name.as_str()));
        let is_in_sudoers = is_sudo_untold
            || in_sudoers.contains(group.name)
            || gids.iter().any(|gid| in_sudoers.contains(&format!("#{gid}")));
        if !members.is_empty() && groups::is_in_force(host, group, is_in_sudoers) {
            found.extend(
                members.iter().map(|name| administrator(name, AdministratorKind::Group, group.name, true, false)),
            );
        }
    }
    if let Some(unknown) = unread::look(host, &pam_services) {
        sudoers::doubt(&mut untold, unknown);
    }
    if found.len() > ADMINISTRATORS {
        let limit = format!("more than {ADMINISTRATORS} ways to act as the superuser");
        sudoers::doubt(&mut untold, Unknown::new(Cause::Limit, limit));
    }
    (found.into_iter().take(ADMINISTRATORS).collect(), untold)
}

/// Returns the accounts that a sudo rule names: those of a group one by one. A group that others than the host's accounts may be
/// members of stays a name, too.
fn names(grant: &Grant, roster: &Roster, has_directories: bool) -> BTreeSet<String> {
    let itself = || BTreeSet::from([grant.who.clone()]);
    let or_itself = |names: BTreeSet<String>| if names.is_empty() { itself() } else { names };
    if let Some(uid) = grant.who.strip_prefix('#') {
        return or_itself(sudoers::id(uid).map(|uid| roster.of_uids([uid])).unwrap_or_default());
    }
    let Some(group) = grant.who.strip_prefix('%') else {
        return if grant.who == "ALL" { itself() } else { or_itself(roster.called(&grant.who)) };
    };
    // A group of a plug-in of sudo, of which the host's files know nothing.
    if group.starts_with(':') {
        return itself();
    }
    let gids = match group.strip_prefix('#') {
        Some(gid) => sudoers::id(gid).into_iter().collect(),
        None => roster.gids_ignoring_case(group),
    };
    let mut names = roster.members(&gids);
    if has_directories {
        names.insert(grant.who.clone());
    }
    names
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::PasswordState;

    use super::*;

    #[test]
    fn a_file_of_accounts_without_the_end_of_its_last_line_was_cut() {
        assert!(whole(b"root:x:0:0::/:/bin/sh\n", PASSWD).is_ok());
        for cut in [&b"root:x:0:0::/:/bin/s"[..], b""] {
            assert_eq!(whole(cut, PASSWD).unwrap_err().cause, Cause::Garbled);
        }
    }

    #[test]
    fn a_password_of_a_day_to_come_is_not_taken_for_a_recent_one() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/accounts/debian-13");
        let host = crate::host::Recorded::at(&case).unwrap();
        let entry = &passwd::parse_passwd(b"bob:x:1000:1000::/:/usr/sbin/nologin\n")[0];
        let now = Timestamp::from_seconds(100 * 86_400).unwrap();
        for (day, expected) in [(100, true), (101, false), (47_117, false)] {
            let shadow = passwd::parse_shadow(format!("bob:(hash):{day}:0:99999:7:::\n").as_bytes());
            let account = account(
                &host,
                entry,
                Ok(&shadow),
                &Logins::default(),
                &Keys::default(),
                &Ssh::look(&host, &Config::look(&host)),
                now,
            );
            assert_eq!(account.password_changed_time.known().is_some(), expected, "{day}");
        }
    }

    fn named(who: &str, passwd: &str, group: &str, has_directories: bool) -> Vec<String> {
        let entries = passwd::parse_passwd(passwd.as_bytes());
        let groups = passwd::parse_group(group.as_bytes());
        let grant = Grant { who: who.to_owned(), at: String::new(), all_commands: true, no_password: false };
        names(&grant, &Roster::new(&entries, &groups), has_directories).into_iter().collect()
    }

    #[test]
    fn a_group_of_a_rule_is_its_members_and_stays_a_name_where_a_directory_may_have_more() {
        let passwd = "root:x:0:0::/:/bin/sh\nalice:x:1000:27::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n";
        let named =
            |who: &str, has_directories| named(who, passwd, "root:x:0:\nsudo:x:27:bob,carol\n", has_directories);
        assert_eq!(named("%sudo", false), ["alice", "bob", "carol"]);
        assert_eq!(named("%#27", true), ["%#27", "alice", "bob", "carol"]);
        assert_eq!(named("%gone", false), [] as [&str; 0]);
        assert_eq!(named("%gone", true), ["%gone"]);
        assert_eq!(named("%:gone", false), ["%:gone"]);
        assert_eq!(named("#1001", false), ["bob"]);
        assert_eq!(named("#77", false), ["#77"]);
        assert_eq!(named("ALL", false), ["ALL"]);
    }

    #[test]
    fn whoever_has_the_number_that_a_rule_means_is_named_by_it() {
        let passwd = "all:x:999:999\nalice:x:1006:1006\nbob:x:1006:1007\neve:x:1008:3000\n";
        let group =
            "Ops:x:3000\nops:x:3001:dan\nhidden:x:3000:mallory\nops:x:3000:frank\n:x:3001:grace\n+n:x:3001:heidi\n";
        let named = |who: &str| named(who, passwd, group, false);
        for (who, expected) in [
            ("#1006", &["alice", "bob"] as &[&str]),
            ("#01006", &["alice", "bob"]),
            // sudo calls a user by the first account of the user id.
            ("bob", &["alice", "bob"]),
            ("Alice", &["alice", "bob"]),
            ("ALL", &["ALL"]),
            ("%ops", &["dan", "eve", "frank", "grace", "heidi", "mallory"]),
            ("%hidden", &["eve", "frank", "mallory"]),
            ("%#03000", &["eve", "frank", "mallory"]),
        ] {
            assert_eq!(named(who), expected, "{who}");
        }
    }

    /// Returns what is read of the debian-13 capture with one group and other files.
    fn of_files(files: &[(&str, &str)]) -> Result<Accounts, Unknown> {
        accounts(&host_of(files).1, Timestamp::from_seconds(1_800_000_000).unwrap())
    }

    /// Returns that host, and the folder that it lives in.
    fn host_of(files: &[(&str, &str)]) -> (tempfile::TempDir, host::Recorded) {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/accounts/debian-13");
        let folder = tempfile::tempdir().unwrap();
        copy(&case, folder.path());
        std::fs::write(folder.path().join("files/etc/group"), "root:x:0:\n").unwrap();
        std::fs::write(folder.path().join("files/etc/gshadow"), "root:*::\n").unwrap();
        for (path, text) in files {
            let place = folder.path().join("files/etc").join(path);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, text).unwrap();
        }
        let mut host = crate::host::Recorded::at(folder.path()).unwrap();
        let metadata = host.metadata(Path::new("/etc/sudoers")).unwrap();
        let index = host.index_mut();
        for (path, _) in files {
            let path = format!("/etc/{path}");
            for verb in ["metadata", "read"] {
                index.errors.remove(&format!("{verb} {path}"));
            }
            index.metadata.insert(muster_proto::fact::PathText::from_bytes(path.as_bytes()), metadata);
        }
        (folder, host)
    }

    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for item in std::fs::read_dir(from).unwrap() {
            let item = item.unwrap();
            if item.file_type().unwrap().is_dir() {
                copy(&item.path(), &to.join(item.file_name()));
            } else {
                std::fs::copy(item.path(), to.join(item.file_name())).unwrap();
            }
        }
    }

    /// Returns the administrators but root as `name via`, with `free` where no password is asked.
    fn shown(accounts: &Accounts) -> Vec<String> {
        let others = accounts.administrators.iter().filter(|one| one.name.as_str() != "root");
        let free = |one: &Administrator| if one.no_password { " free" } else { "" };
        others.map(|one| format!("{} {}{}", one.name.as_str(), one.via.as_str(), free(one))).collect()
    }

    const ROOT: &str = "root:x:0:0:root:/root:/bin/bash\n";

    #[test]
    fn an_account_of_few_fields_is_listed_and_a_line_that_is_none_is_told() {
        let passwd = format!("{ROOT}evil::0:0\nevil2::-0:0:x:/root:/bin/sh\nevil3::0:0:x:/root\n");
        let found = of_files(&[("passwd", &passwd)]).unwrap();
        assert_eq!(shown(&found), ["evil ", "evil2 ", "evil3 "]);
        let open = found.accounts.iter().filter(|account| account.password == Reading::Known(PasswordState::Empty));
        assert_eq!(open.count(), 3);
        let unknown = of_files(&[("passwd", &format!("{ROOT}evil::zero:0::/:/bin/sh\n"))]).unwrap_err();
        assert_eq!((unknown.cause, unknown.detail.as_str()), (Cause::Garbled, "/etc/passwd:2: no line of passwd(5)"));
        let found = of_files(&[("group", "root:x:0:\nops:x\n")]).unwrap();
        let why = Unknown::new(Cause::Garbled, "/etc/group:2: no line of group(5)");
        assert_eq!(found.administrators_complete, Reading::Unknown { unknown: why });
        let found = of_files(&[("group", "root:x:0:\nsudo:x:27:bob"), ("sudoers", "%sudo ALL=ALL\n")]).unwrap();
        assert_eq!(shown(&found), ["bob sudo", "bob /etc/sudoers:1"]);
        let why = Unknown::new(Cause::Garbled, "the last line of /etc/group has no end");
        assert_eq!(found.administrators_complete, Reading::Unknown { unknown: why });
    }

    #[test]
    fn members_of_every_line_with_the_number_of_a_group_are_its_members() {
        let passwd = format!("{ROOT}mallory:x:1000:1000::/:/bin/sh\ntwin:x:1000:1000::/:/bin/sh\n");
        let group = "root:x:0:\nsudo:x:27:\nhidden:x:27:mallory\nops:x:3000\nops:x:3000:dan\n";
        let files = [("passwd", passwd.as_str()), ("group", group), ("sudoers", "%ops ALL=(ALL) NOPASSWD: ALL\n")];
        let found = of_files(&files).unwrap();
        assert_eq!(shown(&found), ["dan /etc/sudoers:1 free", "mallory sudo", "twin sudo"]);
        assert_eq!(found.administrators_complete, Reading::Known(true));
    }

    #[test]
    fn whoever_gshadow_lets_into_a_group_is_a_member() {
        let group = "root:x:0:\nsudo:x:27:alice\nops:x:3000:\n";
        let gshadow = "root:*::\nsudo:!:carol:alice, bob\nops:!::dan\ngone:!::eve\nshort:frank\n";
        let sudoers = ("sudoers", "root ALL=(ALL:ALL) ALL\n");
        let found = of_files(&[("group", group), ("gshadow", gshadow), sudoers]).unwrap();
        assert_eq!(shown(&found), ["alice sudo", "bob sudo", "carol sudo"]);
        assert_eq!(found.administrators_complete, Reading::Known(true));
        let mut forbidden = host_of(&[("group", group), sudoers]);
        let denied = std::io::Error::from_raw_os_error(13);
        let failure = host::recorded::Failure::of(&denied);
        forbidden.1.index_mut().errors.insert("read /etc/gshadow".to_owned(), failure);
        let found = accounts(&forbidden.1, Timestamp::from_seconds(1_800_000_000).unwrap()).unwrap();
        assert_eq!(shown(&found), ["alice sudo"]);
        let Reading::Unknown { unknown } = found.administrators_complete else { panic!() };
        assert_eq!(unknown.cause, Cause::Forbidden);
    }

    #[test]
    fn a_group_that_no_rule_names_and_that_has_no_service_makes_nobody_an_administrator() {
        let passwd = format!("{ROOT}admin:x:1000:1000::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n");
        let group = "root:x:0:\nadmin:x:1000:\nwheel:x:1002:bob\nsudo:x:27:bob\ndocker:x:999:bob\n";
        let sudoers = ("sudoers", "%sudo ALL=(ALL:ALL) ALL\n");
        let absent = host::recorded::Failure::of(&std::io::Error::from_raw_os_error(2));
        let of = |change: &dyn Fn(&mut host::Recorded)| {
            let mut host = host_of(&[("passwd", &passwd), ("group", group), sudoers]);
            let index = host.1.index_mut();
            for folder in [
                "/etc/polkit-1/rules.d",
                "/run/polkit-1/rules.d",
                "/usr/local/share/polkit-1/rules.d",
                "/usr/share/polkit-1/rules.d",
                "/etc/polkit-1/localauthority.conf.d",
                "/var/lib/polkit-1/localauthority.conf.d",
            ] {
                index.errors.insert(format!("list {folder}"), absent.clone());
            }
            for path in groups::tests::places("docker") {
                index.errors.insert(format!("metadata {path}"), absent.clone());
            }
            change(&mut host.1);
            shown(&accounts(&host.1, Timestamp::from_seconds(1_800_000_000).unwrap()).unwrap())
        };
        assert_eq!(of(&|_| ()), ["bob sudo", "bob /etc/sudoers:1"]);
        // What cannot be seen may be there.
        let without = |key: &'static str| {
            of(&move |host: &mut host::Recorded| {
                host.index_mut().errors.remove(key);
            })
        };
        assert_eq!(
            without("list /usr/share/polkit-1/rules.d"),
            ["admin admin", "bob sudo", "bob wheel", "bob /etc/sudoers:1"]
        );
        assert_eq!(without("metadata /run/docker.sock"), ["bob docker", "bob sudo", "bob /etc/sudoers:1"]);
    }

    #[test]
    fn a_name_in_nsswitch_is_a_directory_where_the_host_is_set_up_for_it() {
        for (services, smb, expected) in [
            ("files winbind", "[global]\nserver role = standalone server\n", &[] as &[&str]),
            ("files winbind", "[global]\nsecurity = ads\n", &["winbind"]),
            ("files winbind", "include = registry\n", &["winbind"]),
            ("files mymachines", "", &[]),
            ("files ldap", "", &["ldap"]),
        ] {
            let nsswitch = format!("passwd: {services}\ngroup: {services}\n");
            let found = of_files(&[("nsswitch.conf", &nsswitch), ("samba/smb.conf", smb)]).unwrap();
            let directories: Vec<_> = found.directories.iter().map(Text::as_str).collect();
            assert_eq!(directories, expected, "{services} {smb}");
            let is_told = smb != "include = registry\n";
            assert_eq!(found.administrators_complete == Reading::Known(true), is_told, "{services} {smb}");
        }
    }

    #[test]
    fn a_rule_for_a_group_that_is_as_good_as_root_counts_by_its_name_and_its_number() {
        let group = "root:x:0:\nshadow:x:42:\nops:x:43:\n";
        let sudoers =
            "alice ALL=(:shadow) NOPASSWD: ALL\nbob ALL=(:#42) ALL\neve ALL=(:#43) ALL\ndan ALL=(:Disk) ALL\n";
        let found = of_files(&[("group", group), ("sudoers", sudoers)]).unwrap();
        assert_eq!(shown(&found), ["alice /etc/sudoers:1 free", "bob /etc/sudoers:2", "dan /etc/sudoers:4"]);
    }

    #[test]
    fn rules_of_another_sudo_count_too() {
        let files =
            [("sudoers", "User_Alias A = alice\nA ALL=ALL\n"), ("sudoers-rs", "User_Alias A = bob\nA ALL=ALL\n")];
        let found = of_files(&files).unwrap();
        assert_eq!(shown(&found), ["alice /etc/sudoers:2", "bob /etc/sudoers-rs:2"]);
        assert_eq!(found.administrators_complete, Reading::Known(true));
    }

    #[test]
    fn rules_that_are_not_read_leave_the_administrators_incomplete() {
        for (path, text, expected) in [
            ("sudo.conf", "Plugin sudoers_policy sudoers.so sudoers_file=/x\n", "/etc/sudo.conf:1: sudo may have"),
            ("doas.conf", "permit nopass bob as root\n", "/etc/doas.conf:1: rules of doas are not read"),
            (
                "pam.d/su-l",
                "auth sufficient pam_wheel.so trust\n",
                "pam.d/su-l may ask for no password: pam_wheel [suf",
            ),
            ("sudoers", "Defaults pam_service=/x\n", "/etc/sudoers:1: a service of PAM"),
        ] {
            let found = of_files(&[(path, text)]).unwrap();
            let Reading::Unknown { unknown } = found.administrators_complete else { panic!("{path}") };
            assert_eq!(unknown.cause, Cause::Undecidable);
            assert!(unknown.detail.as_str().starts_with(expected), "{unknown:?}");
        }
        for (service, is_complete) in [("login", true), ("myopen", false)] {
            let rule = format!("Defaults:bob pam_login_service = \"{service}\"\n");
            let found = of_files(&[("sudoers", &rule), ("pam.d/myopen", "auth sufficient pam_permit.so\n")]).unwrap();
            assert_eq!(found.administrators_complete == Reading::Known(true), is_complete, "{service}");
        }
    }

    #[test]
    fn a_server_that_asks_no_pam_leaves_it_untold_whether_an_account_is_locked() {
        let auth = "auth required pam_faillock.so preauth\nauth [success=2 default=ignore] pam_unix.so\n\
            auth [default=die] pam_faillock.so authfail\nauth requisite pam_deny.so\nauth required pam_permit.so\n";
        for (sshd, is_known) in [
            ("UsePAM yes\n", true),
            ("UsePAM no\n", false),
            ("", false),
            ("UsePAM no\nPasswordAuthentication no\n", true),
        ] {
            let files =
                [("pam.d/common-auth", auth), ("ssh/sshd_config", sshd), ("security/faillock.conf", "deny = 5\n")];
            let policy = of_files(&files).unwrap().policy;
            assert_eq!(policy.lockout_attempts.known(), is_known.then_some(&5), "{sshd}: {policy:?}");
        }
    }

    #[test]
    fn an_account_of_the_superusers_id_is_the_superuser_whatever_its_name() {
        let passwd = format!("{ROOT}toor:x:0:0::/root:/bin/sh\n");
        let found = of_files(&[("passwd", &passwd), ("sudoers", "alice ALL=(toor) NOPASSWD: ALL\n")]).unwrap();
        assert_eq!(shown(&found), ["alice /etc/sudoers:1 free", "toor "]);
    }
}
