//! sshd_config(5): what a server's settings allow, includes and `Match` blocks taken into account.
//!
//! Outside of `Match` the first value of a setting holds. A block's value goes before it for the connections that the block is
//! for, so that of both the one that lets in more is what some peer may use.

mod criteria;
pub mod key_file;
mod line;

use std::path::{Path, PathBuf};

use muster_proto::fact::{Cause, PermitRootLogin, Reading, Unknown};

use self::{
    criteria::{ALL, inner_scope, is_for_nobody},
    key_file::KeyFile,
    line::{is_plain, matches, parse_line, words},
};
use crate::{
    host::{self, Host, SMALL_FILE_BYTES},
    probe::accounts::pam,
};

/// The server's settings: the usual place, and that of systems whose `/etc` holds changes alone.
const MAIN: [&str; 2] = ["/etc/ssh/sshd_config", "/usr/etc/ssh/sshd_config"];
/// Files that are read, at most, and how deep they may include each other (sshd's own bound).
const FILES: usize = 256;
const DEPTH: usize = 16;
/// Lines of all files, at most.
const LINES: usize = 10_000;
/// Where keys are, and the word for nowhere.
const KEY_FILES: &str = "authorizedkeysfile";
const NONE: &str = "none";
/// Port without a setting.
pub(super) const PORT: u16 = 22;
/// Names of one setting.
const PUBKEY: [&str; 2] = ["pubkeyauthentication", "dsaauthentication"];
const KBD_INTERACTIVE: [&str; 3] =
    ["kbdinteractiveauthentication", "challengeresponseauthentication", "skeyauthentication"];
/// Other keywords that decide what is told.
const DECISIVE: [&str; 10] = [
    "authenticationmethods",
    "include",
    "listenaddress",
    "match",
    "pamservicename",
    "passwordauthentication",
    "permitemptypasswords",
    "permitrootlogin",
    "port",
    "usepam",
];
/// What update-crypto-policies(8) writes of algorithms, whenever its package is updated. Red Hat's settings include it.
const CRYPTO_POLICY: &str = "/etc/crypto-policies/back-ends/opensshserver.config";

/// A setting of a line.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Setting {
    /// In lower case.
    name: String,
    value: String,
    /// The block that holds it; `None` outside of blocks.
    scope: Option<Scope>,
    /// File and line.
    at: String,
}

/// A `Match` block.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Scope {
    /// What it is for.
    text: String,
    /// Its place among the blocks.
    block: usize,
    /// Whether it is for nobody who could sign in.
    is_for_nobody: bool,
}

/// All settings of a server, in the order in which it reads them.
#[derive(Debug, Default)]
pub struct Config {
    settings: Vec<Setting>,
    /// The files and folders that they are from.
    pub paths: Vec<PathBuf>,
    /// Files and folders that they would be from, too, were they there.
    pub absent: Vec<PathBuf>,
    lines: usize,
    blocks: usize,
}

/// What the settings allow.
#[derive(Debug)]
pub struct Allowed {
    pub permit_root_login: Reading<PermitRootLogin>,
    pub password: Reading<bool>,
    pub kbd_interactive: Reading<bool>,
    pub pubkey: Reading<bool>,
    pub empty_passwords: Reading<bool>,
    pub password_suffices: Reading<bool>,
    pub ports: Vec<u16>,
    pub listen_addresses: Vec<String>,
    pub loosened_by: Vec<String>,
}

impl Config {
    /// Reads the settings of the host's server; none when it has no file, as sshd then takes its defaults.
    ///
    /// # Errors
    ///
    /// The file or line that could not be read soundly.
    pub fn look(host: &dyn Host) -> Result<Self, Unknown> {
        let mut config = Self::default();
        for main in MAIN {
            match host.metadata(Path::new(main)) {
                Ok(_) => {
                    config.add_file(host, Path::new(main), None, 0)?;
                    break;
                }
                Err(error) if host::cause(&error) == Cause::Absent => config.absent.push(main.into()),
                Err(error) => return Err(host::unknown(format!("look at {main}"), &error)),
            }
        }
        Ok(config)
    }

    fn add_file(&mut self, host: &dyn Host, path: &Path, outer: Option<&Scope>, depth: usize) -> Result<(), Unknown> {
        if self.paths.len() >= FILES || depth > DEPTH {
            return Err(Unknown::new(Cause::Limit, format!("more files than are read, at {}", path.display())));
        }
        self.paths.push(path.to_owned());
        let bytes = host
            .read(path, SMALL_FILE_BYTES)
            .map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
        // A block of an included file ends with it, and holds only where the block around the line that includes it does.
        let mut scope = outer.cloned();
        for (number, line) in String::from_utf8_lossy(&bytes).split('\n').enumerate() {
            self.lines += 1;
            if self.lines > LINES {
                return Err(Unknown::new(Cause::Limit, format!("more lines than are read, at {}", path.display())));
            }
            let at = format!("{}:{}", path.display(), number + 1);
            let (name, value) = match parse_line(line) {
                Ok(Some(option)) => option,
                Ok(None) => continue,
                Err(why) => return Err(Unknown::new(Cause::Garbled, format!("{at}: {why}"))),
            };
            // A comment may be of an older encoding.
            if [&name, &value].iter().any(|text| text.contains(char::REPLACEMENT_CHARACTER)) {
                return Err(Unknown::new(Cause::Garbled, format!("{at}: {name} {value}")));
            }
            // sshd takes the name of a service, too, and does not start with anything else.
            if name == "port" && parse_port(&value).is_none() {
                return Err(Unknown::new(Cause::Undecidable, format!("{at}: {name} {value}")));
            }
            match name.as_str() {
                "include" => {
                    if !is_plain(&value) {
                        let detail = format!("{at}: quotes that releases of sshd differ on: {value}");
                        return Err(Unknown::new(Cause::Undecidable, detail));
                    }
                    for target in words(&value) {
                        self.add_included(host, &target, scope.as_ref(), &at, depth)?;
                    }
                }
                "match" => scope = Some(self.enter(outer, &value)),
                _ => self.add_setting(Setting { name, value, scope: scope.clone(), at }),
            }
        }
        Ok(())
    }

    fn enter(&mut self, outer: Option<&Scope>, value: &str) -> Scope {
        self.blocks += 1;
        Scope {
            text: inner_scope(outer.map(|outer| outer.text.as_str()), value),
            block: self.blocks,
            is_for_nobody: outer.is_some_and(|outer| outer.is_for_nobody) || is_for_nobody(value),
        }
    }

    fn add_setting(&mut self, setting: Setting) {
        if !setting.scope.as_ref().is_some_and(|scope| scope.is_for_nobody) {
            self.settings.push(setting);
        }
    }

    /// Adds what an `Include` names: a path, relative to `/etc/ssh`, whose last part may have wildcards.
    fn add_included(
        &mut self,
        host: &dyn Host,
        target: &str,
        scope: Option<&Scope>,
        at: &str,
        depth: usize,
    ) -> Result<(), Unknown> {
        let path = Path::new("/etc/ssh").join(target);
        let has_wildcard = |text: &str| text.contains(['*', '?', '[']);
        let (Some(folder), Some(pattern)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(Unknown::new(Cause::Undecidable, format!("{at}: includes {target}")));
        };
        if has_wildcard(&folder.to_string_lossy()) || pattern.contains(['[', '\\']) {
            return Err(Unknown::new(Cause::Undecidable, format!("{at}: wildcards that this build does not follow")));
        }
        if !has_wildcard(pattern) {
            return match host.metadata(&path) {
                Ok(_) => self.add_file(host, &path, scope, depth + 1),
                // glob(3) finds nothing, and sshd goes on.
                Err(error) if host::cause(&error) == Cause::Absent => self.add_absent(&path),
                Err(error) => Err(host::unknown(format!("look at {}", path.display()), &error)),
            };
        }
        let names = match host.list(folder) {
            Ok(names) => names,
            Err(error) if host::cause(&error) == Cause::Absent => return self.add_absent(folder),
            Err(error) => return Err(host::unknown(format!("list {}", folder.display()), &error)),
        };
        self.paths.push(folder.to_owned());
        for name in names.iter().filter(|name| matches(pattern, &name.to_string_lossy())) {
            self.add_file(host, &folder.join(name), scope, depth + 1)?;
        }
        Ok(())
    }

    fn add_absent(&mut self, path: &Path) -> Result<(), Unknown> {
        if self.absent.len() >= FILES {
            return Err(Unknown::new(Cause::Limit, format!("more files than are read, at {}", path.display())));
        }
        self.absent.push(path.to_owned());
        Ok(())
    }

    /// Returns the files of keys that the settings name, each once, those of all blocks among them.
    pub fn key_files(&self) -> Vec<KeyFile> {
        let mut files = Vec::new();
        for setting in self.settings.iter().filter(|setting| setting.name == KEY_FILES) {
            for file in
                words(&setting.value).iter().filter(|word| *word != NONE).filter_map(|word| KeyFile::parse(word))
            {
                if files.len() <= FILES && !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        files
    }

    /// Returns file and line of a setting by which an account may sign in with keys or certificates that none of [`Self::key_files`] names.
    /// `has_records` says whether the host may have records of users, which is all that userdbctl(1) knows keys by.
    pub fn keys_elsewhere(&self, has_records: bool) -> Option<&str> {
        let is_elsewhere = |setting: &&Setting| match setting.name.as_str() {
            KEY_FILES => !words(&setting.value).iter().all(|word| word == NONE || KeyFile::parse(word).is_some()),
            "authorizedkeyscommand" if !has_records && is_userdbctl(&words(&setting.value)) => false,
            "authorizedkeyscommand" | "trustedusercakeys" => {
                !words(&setting.value).first().is_some_and(|first| first.eq_ignore_ascii_case("none"))
            }
            // The keys of the peer's host are taken for those of the account.
            "hostbasedauthentication" => parse_yes_no(&setting.value) != Some(false),
            _ => false,
        };
        self.settings.iter().find(is_elsewhere).map(|setting| setting.at.as_str())
    }

    /// Returns whether PAM is surely asked about every account and told of every session.
    pub fn uses_pam(&self) -> bool {
        self.worst(&["usepam"], parse_yes_no, false, |value| !*value, &mut Vec::new()) == Reading::Known(true)
    }

    /// Returns whether a file is that of the system's policy of algorithms, and has nothing else that would be told.
    pub(super) fn has_algorithms_alone(&self, path: &Path) -> bool {
        let is_of_it = |setting: &Setting| setting.at.strip_prefix(CRYPTO_POLICY).is_some_and(|at| at.starts_with(':'));
        path == Path::new(CRYPTO_POLICY)
            && !self.settings.iter().any(|setting| is_of_it(setting) && is_told(&setting.name))
    }

    /// Returns the file that the server is told to leave its process id in, of the folders that are the superuser's.
    pub(super) fn pid_file(&self) -> Option<PathBuf> {
        let setting = self.settings.iter().find(|setting| setting.name == "pidfile" && setting.scope.is_none())?;
        let path = PathBuf::from(words(&setting.value).into_iter().next()?);
        let own = path.strip_prefix("/run").or_else(|_| path.strip_prefix("/var/run")).ok()?;
        let is_sound = !["user", "lock", "shm"].iter().any(|folder| own.starts_with(folder))
            && !own.components().any(|part| part == std::path::Component::ParentDir);
        is_sound.then_some(path)
    }

    /// Returns whether a session may wait for peers for its client on more than the loopback.
    pub(super) fn forwards_to_others(&self) -> bool {
        self.settings.iter().any(|setting| match setting.name.as_str() {
            "gatewayports" => parse_yes_no(&setting.value) != Some(false),
            "x11uselocalhost" => parse_yes_no(&setting.value) != Some(true),
            _ => false,
        })
    }

    /// Returns what the settings allow. `defaults` are sshd's own, of OpenSSH 7.0 and later.
    pub fn allowed(&self) -> Allowed {
        let mut loosened_by = Vec::new();
        let mut yes_no =
            |names: &[&str], default: bool| self.worst(names, parse_yes_no, default, |value| *value, &mut loosened_by);
        let password = yes_no(&["passwordauthentication"], true);
        let kbd_interactive = yes_no(&KBD_INTERACTIVE, true);
        let empty_passwords = yes_no(&["permitemptypasswords"], false);
        let pubkey = self.worst(&PUBKEY, parse_yes_no, true, |_| false, &mut Vec::new());
        let rank = |permit: &PermitRootLogin| match permit {
            PermitRootLogin::No => 0,
            PermitRootLogin::ForcedCommandsOnly => 1,
            PermitRootLogin::ProhibitPassword => 2,
            PermitRootLogin::Yes => 3,
        };
        let permit_root_login = self.loosest(
            &["permitrootlogin"],
            parse_permit_root_login,
            PermitRootLogin::ProhibitPassword,
            &rank,
            &mut loosened_by,
        );
        let (ports, listen_addresses) = self.addresses();
        Allowed {
            password_suffices: self.password_suffices(&password, &kbd_interactive),
            permit_root_login,
            password,
            kbd_interactive,
            pubkey,
            empty_passwords,
            ports,
            listen_addresses,
            loosened_by,
        }
    }

    fn worst(
        &self,
        names: &[&str],
        parse: fn(&str) -> Option<bool>,
        default: bool,
        is_loose: impl Fn(&bool) -> bool,
        loosened_by: &mut Vec<String>,
    ) -> Reading<bool> {
        self.loosest(names, parse, default, &|value| u8::from(is_loose(value)), loosened_by)
    }

    /// Returns the loosest value of a setting: that outside of blocks, or one of a block.
    fn loosest<T: Clone>(
        &self,
        names: &[&str],
        parse: fn(&str) -> Option<T>,
        default: T,
        rank: &dyn Fn(&T) -> u8,
        loosened_by: &mut Vec<String>,
    ) -> Reading<T> {
        let own = || self.settings.iter().filter(|setting| names.contains(&setting.name.as_str()));
        let garbled = |setting: &Setting| {
            Reading::unknown(Cause::Garbled, format!("{}: {} {}", setting.at, setting.name, setting.value))
        };
        let mut loosest = match own().find(|setting| setting.scope.is_none()) {
            None => default,
            Some(setting) => match parse(&setting.value) {
                Some(value) => value,
                None => return garbled(setting),
            },
        };
        let mut blocks: Vec<(T, String)> = Vec::new();
        let mut last_block = 0;
        for setting in own() {
            let Some(Scope { text: scope, block, .. }) = &setting.scope else { continue };
            // In a block, too, the first value holds.
            if std::mem::replace(&mut last_block, *block) == *block {
                continue;
            }
            let Some(value) = parse(&setting.value) else { return garbled(setting) };
            blocks.push((value, format!("{} {} by Match {scope} ({})", setting.name, setting.value, setting.at)));
            // It is for every connection, so that nothing outside of blocks and no later block is asked any more.
            if scope == ALL {
                loosest = blocks[blocks.len() - 1].0.clone();
                break;
            }
        }
        for (value, by) in blocks {
            if rank(&value) > rank(&loosest) {
                loosened_by.push(by);
                loosest = value;
            }
        }
        Reading::Known(loosest)
    }

    /// Returns whether a password alone opens a session.
    fn password_suffices(&self, password: &Reading<bool>, kbd_interactive: &Reading<bool>) -> Reading<bool> {
        // Without PAM there is nothing on Linux that would ask for a password interactively.
        let pam = self.worst(&["usepam"], parse_yes_no, false, |value| *value, &mut Vec::new());
        let takes = match (password, kbd_interactive, &pam) {
            (Reading::Known(true), _, _) | (_, Reading::Known(true), Reading::Known(true)) => true,
            (Reading::Known(false), Reading::Known(false), _) | (Reading::Known(false), _, Reading::Known(false)) => {
                false
            }
            (Reading::Unknown { unknown }, _, _)
            | (_, Reading::Unknown { unknown }, _)
            | (_, _, Reading::Unknown { unknown }) => return Reading::Unknown { unknown: unknown.clone() },
        };
        if !takes {
            return Reading::Known(false);
        }
        self.worst(
            &["authenticationmethods"],
            |value| Some(is_one_enough(value)),
            true,
            |value| *value,
            &mut Vec::new(),
        )
    }

    /// Returns whether a password alone opens a session, and where the modules of PAM alone take it, whether they ask for nothing more.
    pub(super) fn password_suffices_by_pam(&self, host: &dyn Host, allowed: &Allowed) -> Reading<bool> {
        match (&allowed.password_suffices, &allowed.password) {
            (Reading::Known(true), Reading::Known(false)) => {}
            (known, _) => return known.clone(),
        }
        // OpenSSH 9.8 and later.
        match self.settings.iter().find(|setting| setting.name == "pamservicename") {
            Some(Setting { at, .. }) => Reading::unknown(Cause::Undecidable, format!("{at}: another service of PAM")),
            None => pam::password_suffices(host, "sshd"),
        }
    }

    /// Returns ports and addresses, sorted. An address of ListenAddress may have a port of its own.
    fn addresses(&self) -> (Vec<u16>, Vec<String>) {
        let values = |name: &str| {
            let own = self.settings.iter().filter(move |setting| setting.name == name && setting.scope.is_none());
            own.map(|setting| setting.value.as_str()).collect::<Vec<_>>()
        };
        let mut ports: Vec<u16> = values("port").iter().filter_map(|value| parse_port(value)).collect();
        let mut addresses = Vec::new();
        let (mut own_ports, mut all_have_ports) = (Vec::<u16>::new(), true);
        for value in values("listenaddress") {
            let value = words(value).into_iter().next().unwrap_or_default();
            let is_bare_ipv6 = value.parse::<std::net::Ipv6Addr>().is_ok();
            match value.rsplit_once(':').filter(|_| !is_bare_ipv6).and_then(|(_, port)| port.parse().ok()) {
                Some(port) => own_ports.push(port),
                None => all_have_ports = false,
            }
            addresses.push(value);
        }
        if addresses.is_empty() || !all_have_ports {
            if ports.is_empty() {
                ports.push(PORT);
            }
        } else {
            ports.clear();
        }
        ports.extend(own_ports);
        ports.sort_unstable();
        ports.dedup();
        addresses.sort();
        addresses.dedup();
        (ports, addresses)
    }
}

/// Returns whether a line, as sshd(8) takes it for an option (`Keyword=value` or `Keyword value`), decides what is told of the
/// settings. One that cannot be read may.
pub(super) fn is_told(line: &str) -> bool {
    let Ok(Some((name, _))) = parse_line(line) else { return true };
    DECISIVE.iter().chain(&PUBKEY).chain(&KBD_INTERACTIVE).any(|told| *told == name)
}

/// Returns whether a value of AuthenticationMethods asks for no more than a password: each word is one way in, and a comma joins the
/// methods that it needs together. By `none` gets in who has no password.
fn is_one_enough(value: &str) -> bool {
    words(value).iter().any(|way| {
        let mut needed = way.split(',').map(|method| method.split(':').next().unwrap_or_default());
        needed.all(|method| matches!(method, "password" | "keyboard-interactive" | "any" | "none"))
    })
}

fn parse_port(value: &str) -> Option<u16> {
    words(value).first()?.parse().ok()
}

/// Returns whether a command is that by which systemd gives sshd the keys of records of users, and nothing else.
fn is_userdbctl(command: &[String]) -> bool {
    matches!(command, [program, verb, user] if program == "/usr/bin/userdbctl" && verb == "ssh-authorized-keys" && user == "%u")
}

fn parse_yes_no(value: &str) -> Option<bool> {
    match words(value).first()?.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

fn parse_permit_root_login(value: &str) -> Option<PermitRootLogin> {
    match words(value).first()?.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(PermitRootLogin::Yes),
        "no" | "false" => Some(PermitRootLogin::No),
        "prohibit-password" | "without-password" => Some(PermitRootLogin::ProhibitPassword),
        "forced-commands-only" => Some(PermitRootLogin::ForcedCommandsOnly),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::made::Made, *};

    fn config(text: &str) -> Config {
        let mut config = Config::default();
        let mut scope = None;
        for (number, line) in text.lines().enumerate() {
            match parse_line(line) {
                Ok(Some((name, value))) if name == "match" => scope = Some(config.enter(None, &value)),
                Ok(Some((name, value))) => {
                    config.add_setting(Setting { name, value, scope: scope.clone(), at: format!("f:{}", number + 1) });
                }
                Ok(None) | Err(_) => {}
            }
        }
        config
    }

    fn allowed(text: &str) -> Allowed {
        config(text).allowed()
    }

    #[test]
    fn the_first_value_outside_of_blocks_holds_and_the_default_without_one() {
        let found = allowed("PermitRootLogin no\npermitrootlogin yes\nPasswordAuthentication=no # x\n");
        assert_eq!(found.permit_root_login, Reading::Known(PermitRootLogin::No));
        assert_eq!(found.password, Reading::Known(false));
        let found = allowed("# nothing\n");
        assert_eq!(found.permit_root_login, Reading::Known(PermitRootLogin::ProhibitPassword));
        assert_eq!((found.password, found.empty_passwords), (Reading::Known(true), Reading::Known(false)));
        assert_eq!((found.pubkey, found.ports, found.listen_addresses), (Reading::Known(true), vec![22], Vec::new()));
    }

    #[test]
    fn quotes_around_a_keyword_or_a_value_change_nothing() {
        let found = allowed(
            "\"PermitRootLogin\" yes\n=PasswordAuthentication yes\nPermitRootLogin no\nPasswordAuthentication no\n",
        );
        assert_eq!(found.permit_root_login, Reading::Known(PermitRootLogin::Yes));
        assert_eq!(found.password, Reading::Known(true));
        let text = "PasswordAuthentication no\nKbdInteractiveAuthentication no\n\"Match\" User bob\nPasswordAuthentication yes";
        assert_eq!(allowed(text).password, Reading::Known(true));
        assert_eq!(allowed("AuthenticationMethods 'password'").password_suffices, Reading::Known(true));
        assert_eq!(allowed("PermitRootLogin 'no'").permit_root_login, Reading::Known(PermitRootLogin::No));
        assert_eq!(config("\"AuthorizedKeysFile\" /etc/ssh/keys/%i").keys_elsewhere(true), Some("f:1"));
    }

    #[test]
    fn what_pam_asks_for_beside_a_password_counts_where_it_alone_takes_one() {
        let code = "auth requisite pam_unix.so\nauth required pam_google_authenticator.so\n";
        let made = Made::new().file("/etc/pam.d/sshd", code);
        let by_pam = "PasswordAuthentication no\nUsePAM yes\n";
        for (text, expected) in [
            (by_pam.to_owned(), Some(false)),
            ("PasswordAuthentication yes\nUsePAM yes\n".to_owned(), Some(true)),
            (format!("{by_pam}Match User bob\nPasswordAuthentication yes\n"), Some(true)),
            (format!("{by_pam}PAMServiceName own\n"), None),
        ] {
            let config = config(&text);
            let found = config.password_suffices_by_pam(&made.host, &config.allowed());
            assert_eq!(found.known().copied(), expected, "{text}");
        }
    }

    #[test]
    fn keys_of_records_of_users_are_nowhere_without_a_record() {
        for (command, without_records) in [
            ("/usr/bin/userdbctl ssh-authorized-keys %u", None),
            ("/usr/bin/userdbctl ssh-authorized-keys bob", Some("f:1")),
            ("/opt/userdbctl ssh-authorized-keys %u", Some("f:1")),
        ] {
            let config = config(&format!("AuthorizedKeysCommand {command}"));
            assert_eq!(config.keys_elsewhere(false), without_records, "{command}");
            assert_eq!(config.keys_elsewhere(true), Some("f:1"));
        }
    }

    #[test]
    fn an_include_that_releases_read_differently_and_an_odd_keyword_are_told() {
        for (line, cause) in [
            ("Include '/etc/ssh/x.conf'", Cause::Undecidable),
            ("Include /etc/ssh/\"x\".conf", Cause::Undecidable),
            ("Include /etc/ssh/b\\ c.conf", Cause::Undecidable),
            ("'PermitRootLogin' yes", Cause::Garbled),
            ("# x\0", Cause::Garbled),
        ] {
            let made = Made::new().file(MAIN[0], &format!("{line}\nPermitRootLogin no\n"));
            assert_eq!(Config::look(&made.host).unwrap_err().cause, cause, "{line}");
        }
        for plain in ["/etc/ssh/sshd_config.d/*.conf", "a b", "\"/etc/ssh/b c.conf\"", ""] {
            assert!(is_plain(plain), "{plain}");
        }
        assert!(!is_plain("\"a\" \"b\"\"c\""));
    }

    #[test]
    fn a_block_that_lets_in_more_is_what_holds_and_is_named() {
        let found = allowed(
            "PermitRootLogin no\nMatch Address 10.0.0.0/8\n PermitRootLogin yes\nMatch User git\n PermitRootLogin no\n",
        );
        assert_eq!(found.permit_root_login, Reading::Known(PermitRootLogin::Yes));
        assert_eq!(found.loosened_by, ["permitrootlogin yes by Match Address 10.0.0.0/8 (f:3)"]);
        let text = "PermitRootLogin yes\nMatch User git\nPermitRootLogin forced-commands-only\nMatch all\nPermitRootLogin no\nMatch User x\nPermitRootLogin yes";
        assert_eq!(allowed(text).permit_root_login, Reading::Known(PermitRootLogin::ForcedCommandsOnly));
        let text = "Match User git\nKbdInteractiveAuthentication no\nChallengeResponseAuthentication yes\nMatch all\nKbdInteractiveAuthentication no";
        assert_eq!(allowed(text).kbd_interactive, Reading::Known(false));
        let found = allowed("PermitRootLogin yes\nMatch Address 10.0.0.0/8\n PermitRootLogin no\n");
        assert_eq!((found.permit_root_login, found.loosened_by.len()), (Reading::Known(PermitRootLogin::Yes), 0));
    }

    #[test]
    fn a_block_for_names_without_an_account_lets_nobody_in() {
        for (criteria, expected) in [
            ("invalid-user", false),
            ("Host x Invalid-User", false),
            ("final invalid-user", false),
            ("User invalid-user", true),
            ("all", true),
        ] {
            let text = format!("PasswordAuthentication no\nMatch {criteria}\nPasswordAuthentication yes");
            assert_eq!(allowed(&text).password, Reading::Known(expected), "{criteria}");
        }
        let inner = Made::new()
            .file(MAIN[0], "PermitRootLogin no\nMatch invalid-user\nInclude /etc/ssh/x\n")
            .file("/etc/ssh/x", "Match User root\nPermitRootLogin yes\n");
        let config = Config::look(&inner.host).unwrap();
        assert_eq!(config.allowed().permit_root_login, Reading::Known(PermitRootLogin::No));
    }

    #[test]
    fn the_file_of_the_process_id_is_one_that_the_superuser_alone_can_write() {
        for (text, expected) in [
            ("PidFile /run/sshd/sshd.pid\nPidFile /run/x", Some("/run/sshd/sshd.pid")),
            ("PidFile /var/run/sshd-2.pid", Some("/var/run/sshd-2.pid")),
            ("PidFile /run/user/1000/sshd.pid", None),
            ("PidFile /run/../home/bob/sshd.pid", None),
            ("PidFile /home/bob/sshd.pid", None),
            ("PidFile none", None),
            ("", None),
        ] {
            assert_eq!(config(text).pid_file().as_deref(), expected.map(Path::new), "{text}");
        }
    }

    #[test]
    fn a_password_suffices_by_either_method_unless_another_is_needed() {
        for (text, expected) in [
            ("", true),
            ("PasswordAuthentication no\nUsePAM yes", true),
            ("PasswordAuthentication no\nUsePAM no", false),
            ("PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM yes", false),
            ("PasswordAuthentication no\nChallengeResponseAuthentication no\nUsePAM yes", false),
            ("AuthenticationMethods publickey,password", false),
            ("AuthenticationMethods publickey,password password", true),
            ("AuthenticationMethods publickey,keyboard-interactive:pam\nUsePAM yes", false),
            ("AuthenticationMethods any", true),
            ("AuthenticationMethods none\nPermitEmptyPasswords yes", true),
            ("AuthenticationMethods publickey\nMatch User old\nAuthenticationMethods password", true),
            ("AuthenticationMethods password\nMatch User old\nAuthenticationMethods publickey", true),
            ("Match User old\nForceCommand x\nMatch all\nAuthenticationMethods publickey", false),
            ("Match User old\nAuthenticationMethods any\nMatch all\nAuthenticationMethods publickey", true),
            ("Match all\nAuthenticationMethods publickey\nMatch User old\nAuthenticationMethods any", false),
            ("Match User *\nAuthenticationMethods publickey", false),
            ("Match User old\nAuthenticationMethods publickey", true),
            ("KbdInteractiveAuthentication no\nMatch address * user *\nPasswordAuthentication no", false),
            (
                "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMatch User old\nPasswordAuthentication yes",
                true,
            ),
        ] {
            assert_eq!(allowed(text).password_suffices, Reading::Known(expected), "{text}");
        }
    }

    #[test]
    fn keys_of_another_place_are_noticed() {
        for (text, expected) in [
            ("", None),
            ("AuthorizedKeysFile .ssh/authorized_keys %h/.ssh/authorized_keys2", None),
            ("AuthorizedKeysCommand none", None),
            ("AuthorizedKeysFile /etc/ssh/keys/%u none", None),
            ("AuthorizedKeysFile /etc/ssh/keys/%i", Some("f:1")),
            ("AuthorizedKeysFile /etc/ssh/keys/*", Some("f:1")),
            ("Match User git\nAuthorizedKeysCommand /usr/bin/keys", Some("f:2")),
            ("TrustedUserCAKeys /etc/ssh/ca.pub", Some("f:1")),
            ("HostbasedAuthentication no", None),
            ("Match Host *.example.org\nHostbasedAuthentication yes", Some("f:2")),
        ] {
            assert_eq!(config(text).keys_elsewhere(true), expected, "{text}");
        }
    }

    #[test]
    fn files_of_keys_are_those_of_any_block() {
        let text = "AuthorizedKeysFile .ssh/authorized_keys none\nMatch User git\n\
            AuthorizedKeysFile /etc/ssh/keys/%u .ssh/authorized_keys /etc/ssh/%i";
        let expected = [".ssh/authorized_keys", "/etc/ssh/keys/%u"].map(|word| KeyFile::parse(word).unwrap());
        assert_eq!(config(text).key_files(), expected);
        assert_eq!(config("PermitRootLogin no").key_files(), []);
    }

    #[test]
    fn addresses_may_have_ports_of_their_own() {
        for (text, ports, addresses) in [
            ("Port 2222\nPort \"22\"", vec![22, 2222], vec![]),
            ("ListenAddress 192.0.2.1:2022", vec![2022], vec!["192.0.2.1:2022"]),
            ("Port 2222\nListenAddress ::1\nListenAddress [::1]:99", vec![99, 2222], vec!["::1", "[::1]:99"]),
        ] {
            let found = allowed(text);
            assert_eq!(
                (found.ports, found.listen_addresses),
                (ports, addresses.into_iter().map(str::to_owned).collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_value_that_sshd_would_refuse_is_unknown_with_its_line() {
        let Reading::Unknown { unknown } = allowed("\nPermitRootLogin maybe").permit_root_login else { panic!() };
        assert_eq!((unknown.cause, unknown.detail.as_str()), (Cause::Garbled, "f:2: permitrootlogin maybe"));
    }

    #[test]
    fn an_option_is_told_by_its_keyword_in_any_form() {
        for line in [
            "PasswordAuthentication=yes",
            "passwordauthentication yes",
            " PermitRootLogin = yes",
            "\"UsePAM\" yes",
            "SkeyAuthentication=yes",
            "DSAAuthentication=no",
            "AuthenticationMethods",
            "Match all",
            "\"PasswordAuthentication",
            "=PasswordAuthentication yes",
            "-",
            "",
        ] {
            assert!(is_told(line), "{line}");
        }
        for line in [
            "Ciphers=aes256-gcm@openssh.com",
            "\"Ciphers\" x",
            "GSSAPIKexAlgorithms gss-group14-sha256-",
            "PidFile=none",
        ] {
            assert!(!is_told(line), "{line}");
        }
    }

    #[test]
    fn the_file_of_a_policy_of_algorithms_is_not_asked_for_its_time_unless_it_has_more() {
        let of = |name: &str| {
            let mut config = config(&format!("{name} x"));
            config.settings[0].at = format!("{CRYPTO_POLICY}:1");
            config
        };
        assert!(of("Ciphers").has_algorithms_alone(Path::new(CRYPTO_POLICY)));
        assert!(!of("Ciphers").has_algorithms_alone(Path::new("/etc/ssh/sshd_config")));
        assert!(!of("PasswordAuthentication").has_algorithms_alone(Path::new(CRYPTO_POLICY)));
    }

    #[test]
    fn a_session_may_wait_for_others_where_a_setting_lets_it() {
        for (text, expected) in [
            ("", false),
            ("GatewayPorts no\nX11UseLocalhost yes\nX11Forwarding yes", false),
            ("Match User a\nGatewayPorts clientspecified", true),
            ("X11UseLocalhost no", true),
        ] {
            assert_eq!(config(text).forwards_to_others(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in "[A-Za-z \"'\\\\=#:\\[\\],*\n0-9]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                let _ = allowed(&text);
                is_told(&text);
            }
        }
    }
}
