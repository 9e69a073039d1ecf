//! Locking of idle sessions: what the settings of GNOME and KDE come to for each account that may sign in at the host.
//!
//! A host on which no graphical session is installed has none that could be left alone. Other desktops than these two keep
//! their settings where this build does not look, and so are unknown.

mod display_manager;
mod environment;
mod gvdb;
mod kde;
mod unlock;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{Cause, Desktop, Fact, Reading, ScreenLock, Sessions, Text, Unknown, UserScreenLock},
    report,
};

use self::{
    environment::Environment,
    gvdb::{Database, Value},
    unlock::Unlock,
};
use super::{Look, Probe, accounts::passwd};
use crate::host::{self, FILE_BYTES, Host, Metadata, SMALL_FILE_BYTES};

/// Folders of session files, which display managers offer.
const SESSIONS: [&str; 4] = [
    "/usr/share/xsessions",
    "/usr/share/wayland-sessions",
    "/usr/local/share/xsessions",
    "/usr/local/share/wayland-sessions",
];
/// Session files that stand for another one.
const ALIASES: [&str; 2] = ["lightdm-xsession.desktop", "default.desktop"];
/// Folders of dconf's profiles, the first that has one deciding.
const PROFILES: [&str; 2] = ["/etc/dconf/profile/user", "/usr/share/dconf/profile/user"];
/// Databases of one profile, at most.
const DATABASES: usize = 16;
const SCHEMAS: &str = "/usr/share/glib-2.0/schemas";
/// What GSettings reads of it: its files as glib-compile-schemas(1) has them.
const COMPILED: &str = "/usr/share/glib-2.0/schemas/gschemas.compiled";
/// Services of PAM of GDM, and those of KDE's own lock, which takes a finger or a card beside the password: each unlocks.
const GDM: [&str; 3] = ["gdm-password", "gdm-fingerprint", "gdm-smartcard"];
const KSCREENLOCKER: [&str; 3] = ["kde", "kde-fingerprint", "kde-smartcard"];
/// User ids of people: from `UID_MIN` of login.defs(5) where nothing else is set.
const PEOPLE: std::ops::RangeFrom<u32> = 1000..;
/// Those among them that are `nobody`, of 16 bits with and without a sign.
const NOBODY: std::ops::RangeInclusive<u32> = 65_534..=65_535;
/// Accounts whose settings are read, at most.
const USERS: usize = 1_000;

const IDLE_DELAY: &str = "/org/gnome/desktop/session/idle-delay";
const LOCK_ENABLED: &str = "/org/gnome/desktop/screensaver/lock-enabled";
const LOCK_DELAY: &str = "/org/gnome/desktop/screensaver/lock-delay";
const DISABLE_LOCK: &str = "/org/gnome/desktop/lockdown/disable-lock-screen";

/// The probe of `screen_lock`.
pub struct ScreenLockProbe;

impl Probe for ScreenLockProbe {
    fn id(&self) -> report::Probe {
        report::Probe::ScreenLock
    }

    fn name(&self) -> &'static str {
        "screen_lock"
    }

    fn look(&self, look: &Look<'_>) -> Vec<Fact> {
        vec![match screen_lock(look.host) {
            Ok(state) => Fact::ScreenLock(Reading::Known(state)),
            Err(unknown) => Fact::ScreenLock(Reading::Unknown { unknown }),
        }]
    }
}

fn screen_lock(host: &dyn Host) -> Result<ScreenLock, Unknown> {
    let desktops = desktops(host)?;
    if desktops.is_empty() {
        return Ok(ScreenLock { sessions: Sessions::Console, users: Vec::new() });
    }
    let people = people(host)?;
    let mut users = Vec::new();
    let manager = display_manager::look(host);
    let environment = Environment::look(host);
    for desktop in desktops {
        let settings: Read<'_> = match desktop {
            Desktop::Gnome => {
                let gnome = Gnome::look(host);
                Box::new(move |person| gnome.of(host, person))
            }
            Desktop::Kde => Box::new(|person| kde::settings(host, person.map(|person| person.home.as_path()))),
            Desktop::Other => Box::new(|_| {
                Settings::untold(&Unknown::new(Cause::Unsupported, "this build reads the settings of GNOME and KDE"))
            }),
        };
        let unlock = Unlock::look(host, &services(desktop, &manager));
        for person in std::iter::once(None).chain(people.iter().map(Some)) {
            let home = person.map(|person| person.home.as_path());
            let Settings { enabled, idle_seconds, grace_seconds, enforced } =
                match environment.check(host, desktop, home) {
                    Ok(()) => settings(person),
                    Err(unknown) => Settings::untold(&unknown),
                };
            let enabled = match enabled {
                Reading::Known(true) => match stays_locked(desktop, &manager, &unlock, person) {
                    Ok(locks) => Reading::Known(locks),
                    Err(unknown) => Reading::Unknown { unknown },
                },
                Reading::Known(false) | Reading::Unknown { .. } => enabled,
            };
            users.push(UserScreenLock {
                user: Text::new(person.map_or("", |person| &person.name)),
                desktop,
                enabled,
                idle_seconds,
                grace_seconds,
                enforced,
            });
        }
    }
    Ok(ScreenLock { sessions: Sessions::Graphical, users })
}

/// Gives what the settings of an account come to; without one, of an account without its own.
type Read<'a> = Box<dyn Fn(Option<&Person>) -> Settings + 'a>;

/// An account that a person may sign in with.
struct Person {
    name: String,
    home: PathBuf,
    uid: u32,
    gid: u32,
}

/// What one account's settings come to.
struct Settings {
    enabled: Reading<bool>,
    idle_seconds: Reading<u64>,
    grace_seconds: Reading<u64>,
    enforced: Reading<bool>,
}

impl Settings {
    fn untold(why: &Unknown) -> Self {
        let unknown = || why.clone();
        Self {
            enabled: Reading::Unknown { unknown: unknown() },
            idle_seconds: Reading::Unknown { unknown: unknown() },
            grace_seconds: Reading::Unknown { unknown: unknown() },
            enforced: Reading::Unknown { unknown: unknown() },
        }
    }
}

/// Returns the desktops whose sessions are installed.
fn desktops(host: &dyn Host) -> Result<BTreeSet<Desktop>, Unknown> {
    let mut desktops = BTreeSet::new();
    for folder in SESSIONS {
        match host.list(Path::new(folder)) {
            Ok(names) => desktops.extend(names.iter().filter_map(|name| desktop(&name.to_string_lossy()))),
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
        }
    }
    Ok(desktops)
}

/// Returns the desktop of a session file; `None` for other files.
fn desktop(name: &str) -> Option<Desktop> {
    if !name.ends_with(".desktop") || ALIASES.contains(&name) {
        return None;
    }
    // gnome-kiosk has nothing that locks.
    if name.starts_with("gnome-kiosk") {
        return Some(Desktop::Other);
    }
    Some(match name.split(['-', '.', '_']).next().unwrap_or_default() {
        "gnome" | "ubuntu" => Desktop::Gnome,
        "plasma" | "plasmax11" | "plasmawayland" | "plasma5" => Desktop::Kde,
        _ => Desktop::Other,
    })
}

/// Returns whether an account whose settings lock its sessions has them locked by its desktop, and is then asked for something. `manager`
/// has the names of display managers.
fn stays_locked(
    desktop: Desktop,
    manager: &Result<BTreeSet<String>, Unknown>,
    unlock: &Unlock,
    person: Option<&Person>,
) -> Result<bool, Unknown> {
    if !unlock.asks(person)? {
        return Ok(false);
    }
    check_locks(desktop, manager)?;
    Ok(true)
}

/// Checks that sessions of a desktop lock where their settings say so. `manager` has the names of display managers.
fn check_locks(desktop: Desktop, manager: &Result<BTreeSet<String>, Unknown>) -> Result<(), Unknown> {
    match (desktop, manager) {
        (Desktop::Kde | Desktop::Other, _) => Ok(()),
        (Desktop::Gnome, Ok(names)) => display_manager::keeps_gnome_open(names).map_or(Ok(()), Err),
        (Desktop::Gnome, Err(unknown)) => Err(unknown.clone()),
    }
}

/// Returns the services of PAM by which a locked session of a desktop is opened: its own, and that of the display manager, by which one
/// comes back to it from another session. Where no display manager is named, it may be any.
fn services(desktop: Desktop, manager: &Result<BTreeSet<String>, Unknown>) -> Vec<&'static str> {
    let is_it = |name: &str| match manager {
        Ok(names) => names.is_empty() || names.contains(name),
        Err(_) => true,
    };
    match desktop {
        // GDM asks in its shell's place, by each of these at a time.
        Desktop::Gnome => GDM.to_vec(),
        Desktop::Kde => {
            let managers: [(&str, &[&str]); 4] =
                [("gdm", &GDM), ("gdm3", &GDM), ("lightdm", &["lightdm"]), ("sddm", &["sddm"])];
            let managers = managers.into_iter().filter(|(name, _)| is_it(name)).flat_map(|(_, services)| services);
            KSCREENLOCKER.iter().chain(managers).copied().collect()
        }
        Desktop::Other => Vec::new(),
    }
}

/// Returns each account of the host's files that a person may sign in with, in order of name.
fn people(host: &dyn Host) -> Result<Vec<Person>, Unknown> {
    const FILE: &str = "/etc/passwd";
    let passwd =
        host.read(Path::new(FILE), FILE_BYTES).map_err(|error| host::unknown(format!("read {FILE}"), &error))?;
    if !passwd::is_whole(&passwd) {
        return Err(Unknown::new(Cause::Garbled, format!("the last line of {FILE} has no end")));
    }
    let entries = passwd::parse_passwd(&passwd).into_iter();
    let people: BTreeMap<String, Person> = entries
        .filter(|entry| entry.is_interactive() && is_of_person(entry.uid))
        .map(|entry| {
            let passwd::Entry { name, home, uid, gid, .. } = entry;
            (name.clone(), Person { name, home: home.into(), uid, gid })
        })
        .collect();
    if people.len() > USERS {
        return Err(Unknown::new(Cause::Limit, format!("{} accounts may sign in", people.len())));
    }
    Ok(people.into_values().collect())
}

fn is_of_person(uid: u32) -> bool {
    PEOPLE.contains(&uid) && !NOBODY.contains(&uid)
}

/// What dconf and the schemas say for every account.
struct Gnome {
    /// Without the account's own database; in order, the first that has a key deciding.
    databases: Result<Vec<Database>, Unknown>,
    /// Whether an account has a database of its own, before these.
    has_own: bool,
    /// Values of files that change the defaults of schemas.
    overrides: Result<BTreeMap<String, Value>, Unknown>,
}

impl Gnome {
    fn look(host: &dyn Host) -> Self {
        let (databases, has_own) = match profile(host) {
            Ok((databases, has_own)) => (Ok(databases), has_own),
            Err(unknown) => (Err(unknown), true),
        };
        Self { databases, has_own, overrides: overrides(host) }
    }

    fn of(&self, host: &dyn Host, person: Option<&Person>) -> Settings {
        match self.settings(host, person) {
            Ok(settings) => settings,
            Err(unknown) => Settings::untold(&unknown),
        }
    }

    fn settings(&self, host: &dyn Host, person: Option<&Person>) -> Result<Settings, Unknown> {
        let mut databases = Vec::new();
        if let Some(person) = person {
            no_profile_of(host, person.uid)?;
        }
        if self.has_own {
            let own = person.map(|person| read_database(host, &person.home.join(".config/dconf/user")));
            databases.push(own.transpose()?.flatten().unwrap_or_default());
        }
        databases.extend(self.databases.clone()?);
        let overrides = self.overrides.clone()?;
        let of = |key: &str, default: Value| value(&databases, key).or(overrides.get(key)).cloned().unwrap_or(default);
        let number = |key: &str, default| match of(key, Value::Number(default)) {
            Value::Number(number) => Ok(u64::from(number)),
            _ => Err(garbled(key)),
        };
        let yes_no = |key: &str, default| match of(key, Value::Bool(default)) {
            Value::Bool(yes) => Ok(yes),
            _ => Err(garbled(key)),
        };
        // Defaults of gsettings-desktop-schemas.
        let (idle, delay) = (number(IDLE_DELAY, 300)?, number(LOCK_DELAY, 0)?);
        let enabled = yes_no(LOCK_ENABLED, true)? && !yes_no(DISABLE_LOCK, false)?;
        let is_locked =
            |key: &str| databases.iter().skip(1).any(|database| database.locks.iter().any(|lock| lock == key));
        let enforced = !self.has_own || [IDLE_DELAY, LOCK_ENABLED, LOCK_DELAY].iter().all(|key| is_locked(key));
        Ok(Settings {
            enabled: Reading::Known(enabled),
            idle_seconds: Reading::Known(idle),
            grace_seconds: Reading::Known(delay),
            enforced: Reading::Known(enforced),
        })
    }
}

fn garbled(key: &str) -> Unknown {
    Unknown::new(Cause::Garbled, format!("the value of {key} has another type than its schema says"))
}

/// Returns the value of a key as dconf(7) finds it: of the databases from the last that locks the key on, the first that has it.
fn value<'a>(databases: &'a [Database], key: &str) -> Option<&'a Value> {
    let locks = |database: &Database| database.locks.iter().any(|lock| lock == key);
    let from = databases.iter().rposition(locks).unwrap_or(0);
    databases[from..].iter().find_map(|database| database.values.get(key))
}

/// Checks that an account has no profile of its own, which goes before that of the host (dconf(7)).
fn no_profile_of(host: &dyn Host, uid: u32) -> Result<(), Unknown> {
    let path = format!("/run/dconf/user/{uid}");
    match host.metadata(Path::new(&path)) {
        Ok(_) => Err(Unknown::new(Cause::Undecidable, format!("{path} is another profile of dconf"))),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(()),
        Err(error) => Err(host::unknown(format!("look at {path}"), &error)),
    }
}

/// Returns the databases of the profile of users, and whether an account's own stands before them.
fn profile(host: &dyn Host) -> Result<(Vec<Database>, bool), Unknown> {
    let mut text = None;
    for path in PROFILES {
        match host.read(Path::new(path), SMALL_FILE_BYTES) {
            Ok(bytes) => {
                text = Some((path, String::from_utf8_lossy(&bytes).into_owned()));
                break;
            }
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("read {path}"), &error)),
        }
    }
    let Some((path, text)) = text else { return Ok((Vec::new(), true)) };
    let mut databases = Vec::new();
    let mut has_own = false;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    for (at, line) in lines.filter(|line| !line.is_empty()).take(DATABASES).enumerate() {
        let file = match line.split_once(':') {
            Some(("user-db", "user")) if at == 0 => {
                has_own = true;
                continue;
            }
            Some(("system-db", name)) if !name.is_empty() => Path::new("/etc/dconf/db").join(name),
            Some(("file-db", file)) if !file.is_empty() => PathBuf::from(file),
            _ => return Err(Unknown::new(Cause::Unsupported, format!("{path}: {line}"))),
        };
        databases.extend(read_database(host, &file)?);
    }
    Ok((databases, has_own))
}

/// Returns a database, which dconf takes for empty where there is none.
fn read_database(host: &dyn Host, path: &Path) -> Result<Option<Database>, Unknown> {
    match host.read(path, FILE_BYTES) {
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => match gvdb::parse(&bytes) {
            Some(database) => Ok(Some(database)),
            None => Err(Unknown::new(Cause::Garbled, format!("{} is no dconf database", path.display()))),
        },
        Err(error) if host::cause(&error) == Cause::Absent => Ok(None),
        Err(error) => Err(host::unknown(format!("read {}", path.display()), &error)),
    }
}

/// Returns the defaults that a distribution or administrator changed: files of glib-compile-schemas(1), the last deciding. One that was
/// changed since is not in force.
fn overrides(host: &dyn Host) -> Result<BTreeMap<String, Value>, Unknown> {
    let names = match host.list(Path::new(SCHEMAS)) {
        Ok(names) => names,
        Err(error) if host::cause(&error) == Cause::Absent => return Ok(BTreeMap::new()),
        Err(error) => return Err(host::unknown(format!("list {SCHEMAS}"), &error)),
    };
    let mut values = BTreeMap::new();
    for name in names.iter().filter(|name| name.to_string_lossy().ends_with(".gschema.override")) {
        let path = Path::new(SCHEMAS).join(name);
        let bytes = host
            .read(&path, SMALL_FILE_BYTES)
            .map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
        let found = parse_override(&String::from_utf8_lossy(&bytes))
            .map_err(|line| Unknown::new(Cause::Undecidable, format!("{}: {line}", path.display())))?;
        if !found.is_empty() && is_newer(&look_at(host, &path)?, &look_at(host, Path::new(COMPILED))?) {
            return Err(Unknown::new(Cause::Stale, format!("{} is newer than {COMPILED}", path.display())));
        }
        values.extend(found);
    }
    Ok(values)
}

fn look_at(host: &dyn Host, path: &Path) -> Result<Metadata, Unknown> {
    host.metadata(path).map_err(|error| host::unknown(format!("look at {}", path.display()), &error))
}

/// Returns whether content or inode of a file changed after those of what is made of it. A package's file is as old as its build, and
/// its inode is not.
fn is_newer(file: &Metadata, made: &Metadata) -> bool {
    file.modified > made.modified || file.changed_nanos > made.changed_nanos
}

/// Returns the values of an override file that are asked for. `Err` names a line that holds in one desktop alone.
fn parse_override(text: &str) -> Result<BTreeMap<String, Value>, String> {
    let keys = [IDLE_DELAY, LOCK_ENABLED, LOCK_DELAY, DISABLE_LOCK];
    let mut values = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { continue };
        let (schema, desktop) =
            section.split_once(':').map_or((section.as_str(), None), |(schema, d)| (schema, Some(d)));
        let key = format!("/{}/{}", schema.replace('.', "/"), name.trim());
        if !keys.contains(&key.as_str()) {
            continue;
        }
        if desktop.is_some() {
            return Err(format!("[{section}] {line}"));
        }
        let value = value.trim();
        let value = match (value, value.strip_prefix("uint32").unwrap_or(value).trim().parse()) {
            ("true", _) => Value::Bool(true),
            ("false", _) => Value::Bool(false),
            (_, Ok(number)) => Value::Number(number),
            _ => Value::Other,
        };
        values.insert(key, value);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use muster_proto::{fact::PathText, time::Timestamp};

    use super::*;
    use crate::{
        host::{
            EntryKind, Recorded,
            recorded::{self, Failure},
        },
        probe::accounts::pam::made,
    };

    fn database(values: &[(&str, Value)], locks: &[&str]) -> Database {
        Database {
            values: values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
            locks: locks.iter().map(|lock| (*lock).to_owned()).collect(),
        }
    }

    #[test]
    fn an_account_changes_what_no_database_locks() {
        let own = database(&[("/a", Value::Number(1)), ("/b", Value::Number(1))], &[]);
        let local = database(&[("/b", Value::Number(2))], &["/b", "/c"]);
        let site = database(&[("/c", Value::Number(3))], &[]);
        let databases = [own, local, site];
        assert_eq!(value(&databases, "/a"), Some(&Value::Number(1)));
        assert_eq!(value(&databases, "/b"), Some(&Value::Number(2)));
        assert_eq!(value(&databases, "/c"), Some(&Value::Number(3)));
        assert_eq!(value(&databases, "/d"), None);
    }

    #[test]
    fn a_session_file_tells_its_desktop() {
        for (name, expected) in [
            ("gnome.desktop", Some(Desktop::Gnome)),
            ("gnome-xorg.desktop", Some(Desktop::Gnome)),
            ("ubuntu.desktop", Some(Desktop::Gnome)),
            ("gnome-kiosk-script-wayland.desktop", Some(Desktop::Other)),
            ("plasma.desktop", Some(Desktop::Kde)),
            ("plasmax11.desktop", Some(Desktop::Kde)),
            ("xfce.desktop", Some(Desktop::Other)),
            ("lightdm-xsession.desktop", None),
            ("README", None),
        ] {
            assert_eq!(desktop(name), expected, "{name}");
        }
    }

    #[test]
    fn an_override_changes_a_default_and_one_for_a_desktop_has_no_sound_reading() {
        let text = "[org.gnome.desktop.session]\nidle-delay=uint32 600\n[org.gnome.desktop.screensaver]\nlock-enabled = false\nother=1\n";
        let expected = [(LOCK_ENABLED, Value::Bool(false)), (IDLE_DELAY, Value::Number(600))];
        let found = parse_override(text).unwrap();
        assert_eq!(found, expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
        assert!(parse_override("[org.gnome.desktop.session:ubuntu]\nidle-delay=0\n").is_err());
        assert!(parse_override("[org.gnome.shell:ubuntu]\nx=0\n").unwrap().is_empty());
    }

    #[test]
    fn people_have_any_id_but_those_of_nobody() {
        for (uid, expected) in [
            (0, false),
            (999, false),
            (1000, true),
            (65_533, true),
            (65_534, false),
            (65_535, false),
            (65_536, true),
            (100_001, true),
            (1_871_200_500, true),
        ] {
            assert_eq!(is_of_person(uid), expected, "{uid}");
        }
    }

    #[test]
    fn a_session_is_opened_by_its_desktop_and_by_the_display_manager() {
        let of =
            |desktop, names: &[&str]| services(desktop, &Ok(names.iter().map(|name| (*name).to_owned()).collect()));
        assert_eq!(of(Desktop::Gnome, &["gdm3"]), GDM);
        let kde = |of_manager: &[&'static str]| [&KSCREENLOCKER, of_manager].concat();
        assert_eq!(of(Desktop::Kde, &["sddm"]), kde(&["sddm"]));
        assert_eq!(of(Desktop::Kde, &["gdm3"]), kde(&GDM));
        assert_eq!(of(Desktop::Kde, &["greetd"]), kde(&[]));
        assert_eq!(of(Desktop::Kde, &[]), kde(&[&GDM[..], &GDM, &["lightdm", "sddm"]].concat()));
    }

    /// Returns what is known of locking, and the cause where it is not, for each account of the captured host with changes.
    fn look(change: impl FnOnce(&mut recorded::Index)) -> Vec<Result<bool, Cause>> {
        let mut host = host();
        change(host.index_mut());
        let users = screen_lock(&host).unwrap().users;
        let gnome = users.into_iter().filter(|user| user.desktop == Desktop::Gnome);
        let of = |enabled| match enabled {
            Reading::Known(enabled) => Ok(enabled),
            Reading::Unknown { unknown } => Err(unknown.cause),
        };
        gnome.map(|user| of(user.enabled)).collect()
    }

    fn host() -> Recorded {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/screen_lock/made-up-redhat");
        Recorded::at(&case).unwrap()
    }

    fn text(path: &str) -> PathText {
        PathText::from_bytes(path.as_bytes())
    }

    #[test]
    fn gnome_locks_by_its_own_display_manager_alone() {
        const UNIT: &str = "/etc/systemd/system/display-manager.service";
        assert_eq!(look(|_| {}), [Ok(true); 3]);
        let by = |unit: &'static str| look(move |index| drop(index.links.insert(text(UNIT), text(unit))));
        assert_eq!(by("/usr/lib/systemd/system/gdm3.service"), [Ok(true); 3]);
        assert_eq!(by("/usr/lib/systemd/system/lightdm.service"), [Err(Cause::Undecidable); 3]);
        assert_eq!(by("/dev/null"), [Err(Cause::Undecidable); 3]);
        let without = look(|index| {
            index.links.remove(&text(UNIT));
            index.errors.insert(format!("link {UNIT}"), Failure::of(&std::io::ErrorKind::NotFound.into()));
        });
        assert_eq!(without, [Err(Cause::Absent); 3]);
        let by_suse = |alternative: &'static str| {
            look(move |index| {
                let absent = || Failure::of(&std::io::ErrorKind::NotFound.into());
                index.links.insert(text(UNIT), text("/usr/lib/systemd/system/display-manager-legacy.service"));
                index.links.insert(text("/etc/alternatives/default-displaymanager"), text(alternative));
                index.errors.insert("read /etc/sysconfig/displaymanager".to_owned(), absent());
            })
        };
        assert_eq!(by_suse("/usr/lib/X11/displaymanagers/gdm"), [Ok(true); 3]);
        assert_eq!(by_suse("/usr/lib/X11/displaymanagers/sddm"), [Err(Cause::Undecidable); 3]);
    }

    #[test]
    fn who_is_let_in_without_a_password_is_not_locked_out_whatever_the_display_manager() {
        let unix = "auth required pam_unix.so\n";
        let free = format!("auth sufficient pam_succeed_if.so user ingroup nopasswdlogin\n{unix}");
        let others = GDM[1..].iter().chain(&KSCREENLOCKER).map(|service| (*service, unix));
        let files: Vec<_> = others.chain([("gdm-password", free.as_str())]).collect();
        let (folder, host) = made::services(&files);
        std::fs::write(folder.path().join("capture/files/etc/group"), "nopasswdlogin:x:990:eve\n").unwrap();
        let eve = Person { name: "eve".to_owned(), home: "/home/eve".into(), uid: 1000, gid: 1000 };
        for (desktop, name, someone, other) in [
            (Desktop::Gnome, "gdm", Some(false), Some(true)),
            (Desktop::Gnome, "greetd", Some(false), None),
            (Desktop::Kde, "gdm", Some(false), Some(true)),
            (Desktop::Kde, "greetd", Some(true), Some(true)),
        ] {
            let manager = Ok(BTreeSet::from([name.to_owned()]));
            let unlock = Unlock::look(&host, &services(desktop, &manager));
            let of = |person| stays_locked(desktop, &manager, &unlock, person).ok();
            assert_eq!((of(Some(&eve)), of(None)), (someone, other), "{desktop:?} {name}");
        }
    }

    #[test]
    fn each_service_that_unlocks_has_to_ask_for_something() {
        let unix = "auth required pam_unix.so\n";
        for (finger, expected) in [(unix, Some(true)), ("auth sufficient pam_permit.so\n", None)] {
            let (_folder, host) =
                made::services(&[("kde", unix), ("kde-fingerprint", finger), ("kde-smartcard", unix)]);
            let manager = Ok(BTreeSet::from(["greetd".to_owned()]));
            let unlock = Unlock::look(&host, &services(Desktop::Kde, &manager));
            assert_eq!(unlock.asks(None).ok(), expected, "{finger}");
        }
    }

    #[test]
    fn an_account_with_a_profile_of_its_own_is_told_apart() {
        let found = look(|index| {
            index.errors.remove("metadata /run/dconf/user/1001");
            index.metadata.insert(text("/run/dconf/user/1001"), metadata(0, 0));
        });
        assert_eq!(found, [Ok(true), Ok(true), Err(Cause::Undecidable)]);
    }

    #[test]
    fn a_default_that_was_not_compiled_is_stale() {
        let with = |file: Metadata| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("index.json"), r#"{"version": 1, "captured": "2026-11-26T00:00:00Z"}"#)
                .unwrap();
            let path = format!("{SCHEMAS}/99.gschema.override");
            let place = folder.path().join("files").join(&path[1..]);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, "[org.gnome.desktop.session]\nidle-delay=300\n").unwrap();
            let mut host = Recorded::at(folder.path()).unwrap();
            let index = host.index_mut();
            index.lists.insert(text(SCHEMAS), vec![text("99.gschema.override")]);
            index.metadata.insert(text(&path), file);
            index.metadata.insert(text(COMPILED), metadata(20, 20));
            overrides(&host).map(|values| values.len()).map_err(|unknown| unknown.cause)
        };
        assert_eq!(with(metadata(10, 10)), Ok(1));
        assert_eq!(with(metadata(20, 20)), Ok(1));
        assert_eq!(with(metadata(30, 30)), Err(Cause::Stale));
        assert_eq!(with(metadata(10, 30)), Err(Cause::Stale));
    }

    /// Returns what is said of a file whose content and inode changed at these seconds.
    fn metadata(content: i64, inode: i64) -> Metadata {
        Metadata {
            kind: EntryKind::File,
            size_bytes: 0,
            modified: Timestamp::from_seconds(content),
            mode: 0o644,
            uid: 0,
            gid: 0,
            device: (254, 0),
            inode: 1,
            links: 1,
            changed_nanos: Some(inode * 1_000_000_000),
        }
    }
}
