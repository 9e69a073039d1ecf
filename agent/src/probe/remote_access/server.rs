//! The processes of OpenSSH's server, and why one may have other settings than its files hold.

use std::{
    collections::{BTreeSet, VecDeque},
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
};

use muster_proto::{
    fact::{Cause, Reading, Unknown},
    time::Timestamp,
};

use super::sshd_config::{self, Config};
use crate::host::{self, EntryKind, Host, Metadata, SMALL_FILE_BYTES};

/// Where it leaves its process id without a setting.
const PID_FILES: [&str; 2] = ["/run/sshd.pid", "/var/run/sshd.pid"];
/// Name of its process, unless it was started by another one. Since OpenSSH 9.8 sessions have another one.
pub(super) const NAME: &str = "sshd";
/// Processes that are looked at, at most.
const PROCESSES: usize = 50_000;
/// Flags of sshd(8) that take an argument.
const WITH_ARGUMENT: &str = "CEbcfghkopu";
/// Flags with which it does not wait for peers: one connection (`-i`, `-R`), or a test.
const NOT_WAITING: &str = "iRtTGQV";
/// Programs of distributions, which take their settings from the files that are read. `/sbin` and `/bin` may be links.
const PROGRAMS: [&str; 5] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd", "/bin/sshd", "/usr/lib/ssh/sshd"];
/// Bytes of what it writes over its arguments, at most.
const TITLE_BYTES: usize = 1023;
/// What stands in that.
const WAITS: &str = " [listener]";
/// Parts of paths that are followed from one path, at most, and links among them (the kernel's own bound).
const PARTS: usize = 1_000;
const LINKS: usize = 40;
/// Characters of arguments that are told, at most.
const SHOWN_CHARACTERS: usize = 200;

/// The server's processes.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// The one that the server's file names, and that file.
    pub own: Option<(PathBuf, Process)>,
    /// Others that wait for peers.
    pub others: Vec<Process>,
    /// Whether somebody has a session.
    pub has_sessions: bool,
    /// Whether a container has a process of the name, which may wait at an address of the host.
    pub is_in_container: bool,
    /// Why there may be more although none was found.
    pub untold: Option<Unknown>,
}

/// A process that waits for peers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Process {
    pub id: u32,
    parent: Option<u32>,
    pub arguments: Arguments,
}

/// What a process was started with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Arguments {
    /// Its own name first.
    Told(Vec<String>),
    /// It writes them over its own memory, where they had no room.
    Cut(String),
}

impl Server {
    /// Looks for the server's processes, and for the one that its file names; one of another name has its number by chance.
    pub fn look(host: &dyn Host) -> Self {
        let mut server = match processes(host) {
            Ok(server) => server,
            Err(unknown) => return Self { untold: Some(unknown), ..Self::default() },
        };
        for file in PID_FILES {
            server.find_own(host, Path::new(file));
        }
        server
    }

    /// Takes the process that a file names for the server's own, unless there is one.
    pub fn find_own(&mut self, host: &dyn Host, file: &Path) {
        if self.own.is_some() {
            return;
        }
        let id: Option<u32> = match host.read(file, SMALL_FILE_BYTES) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).trim().parse().ok(),
            Err(error) if host::cause(&error) == Cause::Absent => None,
            Err(error) => {
                self.untold.get_or_insert(host::unknown(format!("read {}", file.display()), &error));
                None
            }
        };
        if let Some(at) = self.others.iter().position(|process| Some(process.id) == id) {
            self.own = Some((file.to_owned(), self.others.remove(at)));
        }
    }

    /// Returns whether a process waits for peers.
    pub fn waits(&self) -> bool {
        self.own.is_some() || !self.others.is_empty()
    }

    /// Returns why what waits for peers may take keys from elsewhere than its files say: an argument says so, or which are not told.
    pub fn keys_elsewhere(&self) -> Option<Unknown> {
        if let Some(unknown) = &self.untold {
            return Some(unknown.clone());
        }
        let own = self.own.iter().map(|(_, process)| process);
        own.chain(&self.others).find_map(|process| {
            let is_other = match &process.arguments {
                Arguments::Told(words) => words.iter().enumerate().any(|(at, word)| {
                    let is_main = word == "-f" && words.get(at + 1).is_some_and(|path| path == "/etc/ssh/sshd_config");
                    names_keys(word) || word.starts_with("-f") && !is_main
                }),
                Arguments::Cut(_) => true,
            };
            let detail = || format!("the SSH server may take keys from elsewhere: {}", process.arguments.shown());
            is_other.then(|| Unknown::new(Cause::Undecidable, detail()))
        })
    }

    /// Returns why what waits for peers may have other settings than those of `config`.
    pub fn differs(&self, host: &dyn Host, config: &Config) -> Option<Unknown> {
        if let Some(unknown) = &self.untold {
            return Some(unknown.clone());
        }
        let undecidable = |detail: String| Some(Unknown::new(Cause::Undecidable, detail));
        let main = config.paths.first().map(PathBuf::as_path);
        if let Some((_, process)) = &self.own {
            match &process.arguments {
                Arguments::Told(arguments) => {
                    if let Some(argument) = setting(arguments.iter().skip(1), main) {
                        return undecidable(format!("the server was started with {argument}"));
                    }
                }
                Arguments::Cut(shown) => {
                    return undecidable(format!("the server shows its arguments in part: {shown}"));
                }
            }
        }
        if let Some((_, process)) = &self.own
            && let Some(program) = process.own_program(host, main)
        {
            return undecidable(format!("the server is {program}, which may have its settings elsewhere"));
        }
        if let Some(Process { id, arguments, .. }) = self.others.first() {
            let whose = match self.own {
                Some(_) => "is a server beside that of the settings",
                None => "is a server that no file of process ids names",
            };
            return undecidable(format!("process {id} {whose}: {}", arguments.shown()));
        }
        let (file, _) = self.own.as_ref()?;
        // It is written when the server starts and when it takes its settings anew.
        let started = match look_at(host, file).map(|metadata| metadata.modified_time()) {
            Ok(Reading::Known(started)) => started,
            Ok(Reading::Unknown { unknown }) | Err(unknown) => return Some(unknown),
        };
        for path in config.paths.iter().filter(|path| !config.has_algorithms_alone(path)) {
            match changed_after(host, path, started) {
                Ok(Some(changed)) => {
                    let detail = format!("{} was changed after the server took its settings", changed.display());
                    return Some(Unknown::new(Cause::Stale, detail));
                }
                Ok(None) => {}
                Err(unknown) => return Some(unknown),
            }
        }
        // What is not there may have been when the server started. Then the folder was changed that it was in.
        for path in &config.absent {
            match folder_changed_after(host, path, started) {
                Ok(Some(folder)) => {
                    let (path, folder) = (path.display(), folder.display());
                    let detail =
                        format!("{path} is not there, and {folder} was changed after the server took its settings");
                    return Some(Unknown::new(Cause::Stale, detail));
                }
                Ok(None) => {}
                Err(unknown) => return Some(unknown),
            }
        }
        None
    }
}

impl Process {
    /// Returns the program where it is none of a distribution: another build may take its settings from elsewhere unless it was
    /// started with `main`. Who may not ask the kernel which one runs has the name that it was started by.
    fn own_program(&self, host: &dyn Host, main: Option<&Path>) -> Option<String> {
        let Arguments::Told(words) = &self.arguments else { return None };
        let named = words.windows(2).any(|pair| pair[0] == "-f" && Some(Path::new(&pair[1])) == main);
        let link = host.read_link(Path::new(&format!("/proc/{}/exe", self.id)));
        let program =
            link.map_or_else(|_| words.first().cloned().unwrap_or_default(), |path| path.display().to_string());
        let program = current(&program);
        (!named && !PROGRAMS.contains(&program)).then(|| program.chars().take(SHOWN_CHARACTERS).collect())
    }
}

/// Returns the path of a program, without the mark that proc_pid_exe(5) puts behind it once an update replaced it.
fn current(program: &str) -> &str {
    program.strip_suffix(" (deleted)").unwrap_or(program)
}

/// Returns whether an argument has a setting of where keys are.
fn names_keys(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    word.contains("authorizedkeys") || word.contains("trustedusercakeys")
}

impl Arguments {
    fn shown(&self) -> String {
        match self {
            Self::Told(words) => words.join(" ").chars().take(SHOWN_CHARACTERS).collect(),
            Self::Cut(shown) => shown.clone(),
        }
    }
}

/// Returns the processes, in order of their numbers, none being the server's own yet.
fn processes(host: &dyn Host) -> Result<Server, Unknown> {
    let names = host.list(Path::new("/proc")).map_err(|error| host::unknown("list /proc", &error))?;
    let mut ids: Vec<u32> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    if ids.len() > PROCESSES {
        return Err(Unknown::new(Cause::Limit, format!("more than {PROCESSES} processes")));
    }
    // proc(5): with the option `hidepid` those of others are not listed, and the first is always another's.
    if ids.first() != Some(&1) {
        return Err(Unknown::new(Cause::Forbidden, "/proc does not list the processes of others"));
    }
    let mut server = Server::default();
    for id in ids {
        let Some(name) = read(host, id, "comm")? else { continue };
        if name.trim_end() != NAME && !is_renamed(host, id)? {
            continue;
        }
        let (Some(status), Some(cmdline)) = (read(host, id, "status")?, read(host, id, "cmdline")?) else { continue };
        let field = |key| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        // proc_pid_status(5): one of a container has a number in each pid namespace.
        if field("NSpid:").is_some_and(|numbers| numbers.split_whitespace().count() > 1) {
            server.is_in_container = true;
            continue;
        }
        match arguments(&cmdline) {
            Some(arguments) => {
                server.others.push(Process { id, parent: field("PPid:").and_then(|id| id.parse().ok()), arguments });
            }
            None => server.has_sessions = true,
        }
    }
    // One that has yet to execute its own program shows the arguments of the one that it is from.
    let ids: BTreeSet<u32> = server.others.iter().map(|process| process.id).collect();
    server.others.retain(|process| process.parent.is_none_or(|parent| !ids.contains(&parent)));
    Ok(server)
}

/// Returns whether a process of another name is the server: by its program, or where that may not be asked or is of another build by
/// its title.
fn is_renamed(host: &dyn Host, id: u32) -> Result<bool, Unknown> {
    match host.read_link(Path::new(&format!("/proc/{id}/exe"))) {
        Ok(program) if PROGRAMS.contains(&current(&program.to_string_lossy())) => return Ok(true),
        // Neither has one of the kernel.
        Err(error) if is_gone(&error) => return Ok(false),
        Ok(_) | Err(_) => {}
    }
    let path = format!("/proc/{id}/cmdline");
    match host.read_start(Path::new(&path), TITLE_BYTES) {
        Ok(start) => Ok(title(&String::from_utf8_lossy(&start)).is_some_and(|title| title.contains(WAITS))),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(host::unknown(format!("read {path}"), &error)),
    }
}

/// Returns whether a process is not there any more: ENOENT and ESRCH are what /proc says of it.
fn is_gone(error: &io::Error) -> bool {
    host::cause(error) == Cause::Absent || error.raw_os_error() == Some(3)
}

/// Returns a file of a process; `None` of one that is gone.
fn read(host: &dyn Host, id: u32, name: &str) -> Result<Option<String>, Unknown> {
    let path = format!("/proc/{id}/{name}");
    match host.read(Path::new(&path), SMALL_FILE_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(host::unknown(format!("read {path}"), &error)),
    }
}

/// Returns what a program wrote over its arguments, behind its own name; `None` of arguments as they were given.
fn title(cmdline: &str) -> Option<&str> {
    let (name, title) = cmdline.split_once(':')?;
    (!name.contains(['/', ' ', '\0'])).then(|| title.trim_start())
}

/// Returns what a process of the server was started with; `None` of one that does not wait for peers, such as a session.
///
/// Since OpenSSH 8.2 the one that waits writes over its arguments: `sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups`, as far
/// as arguments and environment had room, and no more than [`TITLE_BYTES`]. Before, and before it does so, they are as they were given.
fn arguments(cmdline: &str) -> Option<Arguments> {
    let text = cmdline.replace('\0', " ");
    let text = text.trim();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let Some(title) = title(text) else {
        let words = words(text);
        let is_waiting = !words.is_empty() && !has_flag(&words);
        return is_waiting.then_some(Arguments::Told(words));
    };
    match title.rsplit_once(WAITS) {
        Some((words_of_it, _)) => Some(Arguments::Told(words(words_of_it))),
        // sshd(8) wants to be started by a whole path. A session's title has a name of a user, or `[accepted]` and the like.
        None if title.starts_with('/') => Some(Arguments::Cut(title.chars().take(SHOWN_CHARACTERS).collect())),
        None => None,
    }
}

/// Returns whether a flag is there with which the program does not wait.
fn has_flag(words: &[String]) -> bool {
    words.iter().skip(1).filter_map(|word| word.strip_prefix('-')).any(|flags| {
        let flags = flags.chars().take_while(|flag| !WITH_ARGUMENT.contains(*flag));
        flags.into_iter().any(|flag| NOT_WAITING.contains(flag))
    })
}

/// Returns the argument of sshd(8), of `words` behind its name, that sets what the probe tells of its files: another file than `main`,
/// an option, a port.
///
/// The words are not those of its command line where a title holds them: an argument with a space in it is more of them. So no word
/// that begins as a flag is passed over as the argument of another.
pub(super) fn setting<'a>(words: impl Iterator<Item = &'a String>, main: Option<&Path>) -> Option<String> {
    let words: Vec<&str> = words.map(String::as_str).collect();
    for (at, word) in words.iter().enumerate() {
        let Some(flags) = word.strip_prefix('-') else { continue };
        // Behind flags without an argument may be one that has one.
        let Some((start, flag)) = flags.char_indices().find(|(_, flag)| WITH_ARGUMENT.contains(*flag)) else {
            continue;
        };
        let joined = flags.get(start + flag.len_utf8()..).unwrap_or_default();
        let argument = match joined {
            "" => words.get(at + 1).copied().unwrap_or_default(),
            joined => joined,
        };
        let is_setting = match flag {
            'f' => main != Some(Path::new(argument)),
            'o' => sshd_config::is_told(argument),
            'p' | 'C' => true,
            _ => false,
        };
        if is_setting {
            let shown = if joined.is_empty() { format!("{word} {argument}") } else { (*word).to_owned() };
            return Some(shown.trim_end().chars().take(SHOWN_CHARACTERS).collect());
        }
    }
    None
}

fn look_at(host: &dyn Host, path: &Path) -> Result<Metadata, Unknown> {
    host.metadata(path).map_err(|error| host::unknown(format!("look at {}", path.display()), &error))
}

/// Returns when an entry was last changed. Who writes it may set the time of its content back, and not that of its inode (utimensat(2)).
fn last_change(metadata: &Metadata) -> Option<Timestamp> {
    let inode = metadata.changed_nanos.and_then(|nanos| Timestamp::from_micros(nanos.div_euclid(1_000)));
    metadata.modified.max(inode)
}

/// Returns the nearest folder around `path` that is there, if it was changed after `started`.
fn folder_changed_after(host: &dyn Host, path: &Path, started: Timestamp) -> Result<Option<PathBuf>, Unknown> {
    for folder in path.ancestors().skip(1) {
        match host.metadata(folder) {
            Ok(_) => {
                let changed = changed_after(host, folder, started)?;
                return Ok(changed.map(|_| folder.to_owned()));
            }
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("look at {}", folder.display()), &error)),
        }
    }
    Ok(None)
}

/// Returns what was changed after `started`: `path`, a link on the way that it leads, or what is at its end.
pub(in super::super) fn changed_after(
    host: &dyn Host,
    path: &Path,
    started: Timestamp,
) -> Result<Option<PathBuf>, Unknown> {
    let is_later = |metadata: &Metadata| last_change(metadata).is_some_and(|changed| changed > started);
    let metadata = look_at(host, path)?;
    if is_later(&metadata) {
        return Ok(Some(path.to_owned()));
    }
    if metadata.kind != EntryKind::Link {
        return Ok(None);
    }
    let too_far = || Unknown::new(Cause::Limit, format!("{} leads farther than is followed", path.display()));
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    let mut ahead: VecDeque<OsString> = parts(path).collect();
    for _ in 0..PARTS {
        let Some(part) = ahead.pop_front() else { return Ok(None) };
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(part);
        let metadata = look_at(host, &next)?;
        let is_link = metadata.kind == EntryKind::Link;
        // A folder on the way changes with whatever else is in it.
        if (is_link || ahead.is_empty()) && is_later(&metadata) {
            return Ok(Some(next));
        }
        if !is_link {
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(too_far());
        }
        let what = || format!("read link {}", next.display());
        let target = host.read_link(&next).map_err(|error| host::unknown(what(), &error))?;
        if target.has_root() {
            at = PathBuf::from("/");
        }
        ahead = parts(&target).chain(ahead).collect();
        if ahead.len() > PARTS {
            return Err(too_far());
        }
    }
    Err(too_far())
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::made::Made, *};

    const MAIN: &str = "/etc/ssh/sshd_config";

    fn differs(made: &Made) -> Option<Unknown> {
        let config = Config::look(&made.host).unwrap();
        let mut server = Server::look(&made.host);
        if let Some(file) = config.pid_file() {
            server.find_own(&made.host, &file);
        }
        server.differs(&made.host, &config)
    }

    /// Checks that the settings are known where `expected` is empty, and else unknown with it in the words.
    fn check(made: &Made, cause: Cause, expected: &str) {
        match differs(made) {
            None => assert_eq!(expected, ""),
            Some(unknown) => {
                assert!(!expected.is_empty() && unknown.detail.as_str().contains(expected), "{expected}: {unknown:?}");
                assert_eq!(unknown.cause, cause, "{unknown:?}");
            }
        }
    }

    fn told(words: &[&str]) -> Option<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        setting(words.iter(), Some(Path::new(MAIN)))
    }

    #[test]
    fn arguments_that_set_something_are_told_from_those_that_do_not() {
        for words in [
            &["-D"][..],
            &["-D", "-e", "-f", MAIN],
            &["-Df/etc/ssh/sshd_config"],
            &["-D", "-oCiphers=aes256-gcm@openssh.com", "-oGSSAPIKexAlgorithms=a-,b-", "-oPubkeyAcceptedKeyTypes=x"],
            &["-o", "PidFile=/run/x.pid", "-o", "LogLevel", "VERBOSE", "-u0", "-h", "/etc/ssh/key"],
            &["-"],
            &[],
        ] {
            assert_eq!(told(words), None, "{words:?}");
        }
        for (words, expected) in [
            (&["-D", "-o", "PermitRootLogin=yes"][..], "-o PermitRootLogin=yes"),
            (&["-oPASSWORDAUTHENTICATION=yes"], "-oPASSWORDAUTHENTICATION=yes"),
            (&["-o", "PasswordAuthentication", "yes"], "-o PasswordAuthentication"),
            (&["-oPasswordAuthentication", "yes"], "-oPasswordAuthentication"),
            (&["-oCiphers=x", "-oMatch", "all"], "-oMatch"),
            (&["-Df", "/root/other"], "-Df /root/other"),
            (&["-f", MAIN, "-f", "other"], "-f other"),
            (&["-E", "-p", "2222"], "-p 2222"),
            (&["-p2222"], "-p2222"),
            (&["-o"], "-o"),
        ] {
            assert_eq!(told(words).as_deref(), Some(expected), "{words:?}");
        }
    }

    #[test]
    fn a_process_that_waits_is_told_from_a_session() {
        let told = |words: &[&str]| Some(Arguments::Told(words.iter().map(|word| (*word).to_owned()).collect()));
        for (cmdline, expected) in [
            ("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups\0\0\0", told(&["/usr/sbin/sshd", "-D"])),
            ("/usr/sbin/sshd\0-D\0-oCiphers=x\0", told(&["/usr/sbin/sshd", "-D", "-oCiphers=x"])),
            (
                "sshd: sshd -o Banner [listener] -p 1 [listener] 0",
                told(&["sshd", "-o", "Banner", "[listener]", "-p", "1"]),
            ),
            ("sshd: /usr/sbin/sshd -D -f /ro", Some(Arguments::Cut("/usr/sbin/sshd -D -f /ro".into()))),
            ("sshd: eve [priv]\0\0", None),
            ("sshd: eve@pts/0\0", None),
            ("sshd: [accepted]\0", None),
            ("sshd: \0", None),
            ("sshd-sftp: /usr/sbin/sshd-sftp -p 9 [listener] 0 of 10-100", told(&["/usr/sbin/sshd-sftp", "-p", "9"])),
            ("sshd-sftp: eve [priv]", None),
            ("/usr/sbin/sshd\0-o\0Banner: x\0", told(&["/usr/sbin/sshd", "-o", "Banner:", "x"])),
            ("/usr/sbin/sshd\0-D\0-R\0", None),
            ("sshd\0-i\0", None),
            ("/usr/sbin/sshd\0-T\0", None),
            ("", None),
        ] {
            assert_eq!(arguments(cmdline), expected, "{cmdline:?}");
        }
    }

    #[test]
    fn options_of_algorithms_leave_the_settings_told_and_others_do_not() {
        check(&Made::new(), Cause::Undecidable, "");
        for (cmdline, expected) in [
            ("/usr/sbin/sshd\0-D\0-oCiphers=aes256-gcm@openssh.com\0-oMACs=x\0-oGSSAPIKexAlgorithms=y\0", ""),
            ("/usr/sbin/sshd\0-D\0-o\0permitrootlogin yes\0", "started with -o permitrootlogin"),
            ("sshd: /usr/sbin/sshd -f /root/x [listener] 0 of 10-100 startups", "started with -f /root/x"),
            ("sshd: /usr/sbin/sshd -f /ro", "in part: /usr/sbin/sshd -f /ro"),
        ] {
            check(&Made::new().file("/proc/14/cmdline", cmdline), Cause::Undecidable, expected);
        }
    }

    #[test]
    fn a_second_server_of_the_host_makes_the_settings_unknown() {
        let title = "sshd: /usr/sbin/sshd -f /root/other [listener] 0 of 10-100 startups";
        let own = "PPid:\t1\nNSpid:\t77\n";
        let second = "process 77 is a server beside that of the settings: /usr/sbin/sshd -f /root/other";
        for (status, cmdline, expected) in [
            (own, title, second),
            ("", title, second),
            (own, "/usr/sbin/sshd\0-f\0/root/other\0", second),
            (own, "sshd: /usr/sbin/sshd -f /root/other", second),
            // A session, one of a container, and one that is about to be a session.
            (own, "sshd: eve [priv]", ""),
            ("PPid:\t60\nNSpid:\t77\t12\n", title, ""),
            ("PPid:\t14\nNSpid:\t77\n", title, ""),
        ] {
            check(&Made::new().process(77, status, cmdline), Cause::Undecidable, expected);
        }
        let unnamed = Made::new()
            .process(77, own, title)
            .file("/proc/14/comm", "bash\n")
            .file("/proc/14/cmdline", "bash\0")
            .absent("read /var/run/sshd.pid");
        check(&unnamed, Cause::Undecidable, "process 77 is a server that no file of process ids names");
        check(&Made::new().process(77, own, title).absent("read /proc/77/comm"), Cause::Undecidable, "");
        let has_sessions = |made: Made| Server::look(&made.host).has_sessions;
        assert!(!has_sessions(Made::new()) && has_sessions(Made::new().process(77, own, "sshd: eve [priv]")));
    }

    #[test]
    fn the_file_that_the_settings_name_tells_which_process_is_the_server() {
        let file = "/run/sshd/sshd.pid";
        let made =
            |text: &str| Made::new().absent("read /run/sshd.pid").absent("read /var/run/sshd.pid").file(MAIN, text);
        let (with, unnamed) = (format!("PidFile {file}\n"), "process 14 is a server that no file of process ids names");
        check(&made(&with).file(file, "14\n").changed(file, 0, 0), Cause::Undecidable, "");
        check(&made(&with).file(file, "15\n").changed(file, 0, 0), Cause::Undecidable, unnamed);
        check(&made(&with).absent(&format!("read {file}")), Cause::Undecidable, unnamed);
        check(&made("PidFile none\n"), Cause::Undecidable, unnamed);
        // The settings are newer than the server.
        let later = made(&with).file(file, "14\n").changed(file, -20, -20).changed(MAIN, -10, -10);
        check(&later, Cause::Stale, "/etc/ssh/sshd_config was changed after");
    }

    #[test]
    fn a_second_server_of_another_name_is_seen_by_its_program_or_its_title() {
        let second = "process 77 is a server beside that of the settings: ";
        let given = "/usr/sbin/sshd-sftp\0-f\0/etc/ssh/sshd-sftp_config\0";
        let title = "sshd-sftp: /usr/sbin/sshd-sftp -f x [listener] 0 of 10-100 startups";
        for (exe, cmdline, expected) in [
            (Some("/usr/sbin/sshd"), given, second),
            (Some("/usr/bin/sshd (deleted)"), title, second),
            (Some("/opt/ssh/sbin/sshd"), title, second),
            (None, title, second),
            (Some("/usr/sbin/sshd"), "sshd-sftp: eve [priv]", ""),
            (Some("/usr/bin/bash"), given, ""),
            (None, given, ""),
            (None, "", ""),
        ] {
            let made = Made::new().process(77, "PPid:\t1\nNSpid:\t77\n", cmdline).file("/proc/77/comm", "sshd-sftp\n");
            let made = match exe {
                Some(exe) => made.link("/proc/77/exe", exe),
                None => made,
            };
            check(&made, Cause::Undecidable, expected);
        }
        let untold = Made::new().process(77, "", given).file("/proc/77/comm", "x\n").absent("link /proc/77/exe");
        check(&untold, Cause::Undecidable, "");
    }

    #[test]
    fn a_server_of_another_build_may_have_its_settings_elsewhere() {
        let exe = "/proc/14/exe";
        for program in ["/usr/sbin/sshd", "/usr/bin/sshd (deleted)", "/usr/lib/ssh/sshd"] {
            check(&Made::new().link(exe, program), Cause::Undecidable, "");
        }
        let other = "the server is /usr/local/sbin/sshd, which";
        check(&Made::new().link(exe, "/usr/local/sbin/sshd"), Cause::Undecidable, other);
        let title = |words: &str| format!("sshd: {words} [listener] 0 of 10-100 startups");
        let named = |words: &str| Made::new().file("/proc/14/cmdline", &title(words));
        check(&named("/usr/local/sbin/sshd -D"), Cause::Undecidable, other);
        check(&named("/usr/local/sbin/sshd -D -f /etc/ssh/sshd_config"), Cause::Undecidable, "");
        // What the kernel says goes before what the server says of itself.
        check(&named("/usr/sbin/sshd").link(exe, "/usr/local/sbin/sshd"), Cause::Undecidable, other);
        check(&named("/usr/local/sbin/sshd").link(exe, "/usr/sbin/sshd"), Cause::Undecidable, "");
    }

    #[test]
    fn a_list_of_processes_without_those_of_others_tells_nothing() {
        check(&Made::new().folder("/proc", &["14"]), Cause::Forbidden, "/proc does not list the processes of others");
        check(&Made::new().absent("list /proc"), Cause::Absent, "list /proc");
    }

    #[test]
    fn a_file_that_was_changed_since_is_noticed_whatever_its_content_says_of_its_time() {
        for (content, inode, expected) in [
            (-20, -10, ""),
            (0, 0, ""),
            (10, 10, "/etc/ssh/sshd_config was changed after"),
            (-20, 10, "/etc/ssh/sshd_config was changed after"),
        ] {
            check(&Made::new().changed(MAIN, content, inode), Cause::Stale, expected);
        }
    }

    #[test]
    fn what_is_not_there_may_have_been_when_its_folder_was_changed_since() {
        let folders = || Made::new().folder("/etc", &[]).folder("/etc/ssh", &[]).folder("/etc/ssh/d", &[]);
        let extra = || folders().file(MAIN, "Include /etc/ssh/extra.conf\n").absent("metadata /etc/ssh/extra.conf");
        let folder = || folders().file(MAIN, "Include d/x.d/*.conf\n").absent("list /etc/ssh/d/x.d");
        let nested = || folder().absent("metadata /etc/ssh/d").absent("metadata /etc/ssh/d/x.d");
        let main = || {
            folders()
                .folder("/", &[])
                .absent(&format!("metadata {MAIN}"))
                .absent("metadata /usr/etc/ssh/sshd_config")
                .folder("/usr", &[])
                .absent("metadata /usr/etc")
                .absent("metadata /usr/etc/ssh")
        };
        for made in [extra(), folder(), nested(), main()] {
            check(&made, Cause::Stale, "");
        }
        let ssh = "/etc/ssh was changed after";
        check(
            &extra().changed("/etc/ssh", -20, 10),
            Cause::Stale,
            &format!("/etc/ssh/extra.conf is not there, and {ssh}"),
        );
        check(&folder().changed("/etc/ssh/d", 10, 10), Cause::Stale, "/etc/ssh/d/x.d is not there, and /etc/ssh/d was");
        check(&folder().changed("/etc/ssh", 10, 10), Cause::Stale, "");
        check(&nested().changed("/etc/ssh", 10, 10), Cause::Stale, ssh);
        check(&main().changed("/etc/ssh", 10, 10), Cause::Stale, ssh);
        // An empty folder is there, and what else is beside it changes nothing.
        let stock = Made::new().folder("/etc/ssh", &[]).changed("/etc/ssh", 10, 10);
        check(&stock, Cause::Stale, "");
    }

    #[test]
    fn links_are_followed_to_what_may_have_changed() {
        let text = "PasswordAuthentication no\n";
        let made = || {
            Made::new()
                .file(MAIN, text)
                .link(MAIN, "../site/current/sshd_config")
                .folder("/etc", &[])
                .folder("/etc/ssh", &[])
                .folder("/etc/site", &[])
                .link("/etc/site/current", "/srv/v2")
                .folder("/srv", &[])
                .folder("/srv/v2", &[])
                .file("/srv/v2/sshd_config", text)
        };
        check(&made(), Cause::Stale, "");
        for (path, expected) in [
            (MAIN, "/etc/ssh/sshd_config was changed after"),
            ("/etc/site/current", "/etc/site/current was changed after"),
            ("/srv/v2/sshd_config", "/srv/v2/sshd_config was changed after"),
            // With whatever else is in it.
            ("/srv/v2", ""),
            ("/etc/ssh", ""),
        ] {
            check(&made().changed(path, -20, 10), Cause::Stale, expected);
        }
        check(&made().absent("metadata /srv/v2/sshd_config"), Cause::Absent, "look at /srv/v2/sshd_config");
        check(&made().link("/etc/site/current", "current"), Cause::Limit, "leads farther than is followed");
    }

    proptest! {
        #[test]
        fn arbitrary_arguments_never_panic(words in proptest::collection::vec("[-ofpED=a-z é]{0,6}", 0..8), any in "\\PC*") {
            setting(words.iter(), None);
            for text in [words.join("\0"), format!("sshd: {any} [listener]"), any] {
                let _ = (arguments(&text), title(&text));
            }
        }
    }

    #[test]
    fn keys_that_arguments_name_are_elsewhere() {
        for (title, expected) in [
            ("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", false),
            ("/usr/sbin/sshd -D -p 22", false),
            (
                "sshd: /usr/sbin/sshd -D -o AuthorizedKeysCommand /opt/aws/bin/eic %u %f [listener] 0 of 10-100 startups",
                true,
            ),
            ("/usr/sbin/sshd -D -oauthorizedkeysfile=/x", true),
            ("/usr/sbin/sshd -o TrustedUserCAKeys=/x", true),
            ("/usr/sbin/sshd -f /etc/ssh/other", true),
            ("/usr/sbin/sshd -f /etc/ssh/sshd_config", false),
            ("sshd: /usr/sbin/sshd -D -o AuthorizedKeysComma", true),
        ] {
            let others = vec![Process { id: 7, parent: None, arguments: arguments(title).unwrap() }];
            let server = Server { others, ..Server::default() };
            assert_eq!(server.keys_elsewhere().is_some(), expected, "{title}");
        }
        let untold = Some(Unknown::new(Cause::Forbidden, "x"));
        assert_eq!(Server { untold: untold.clone(), ..Server::default() }.keys_elsewhere(), untold);
    }
}
