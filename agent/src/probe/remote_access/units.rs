//! What systemd starts the server with when a peer comes: systemd.service(5), systemd.exec(5) and systemd.socket(5).
//!
//! Every place is read where something may be set, and not decided which of them holds.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use muster_proto::fact::{Cause, Unknown};

use super::server;
use crate::host::{self, EntryKind, Host, SMALL_FILE_BYTES};

/// Folders of units, systemd.unit(5).
const FOLDERS: [&str; 6] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Units that start the server.
const SERVICES: [&str; 4] = ["ssh.service", "ssh@.service", "sshd.service", "sshd@.service"];
/// Units that wait for peers in its place.
const SOCKETS: [&str; 2] = ["ssh.socket", "sshd.socket"];
/// Files whose variables distributions give the server as arguments: Debian and Ubuntu, Red Hat's, SUSE.
const ENVIRONMENTS: [&str; 3] = ["/etc/default/ssh", "/etc/sysconfig/sshd", "/etc/sysconfig/ssh"];
/// Files that are read, at most.
const FILES: usize = 200;

/// Returns why the server that systemd starts may have other settings than its files. `main` is the file of its settings.
pub(super) fn differs(host: &dyn Host, main: Option<&Path>) -> Option<Unknown> {
    look(host, main).err()
}

fn look(host: &dyn Host, main: Option<&Path>) -> Result<(), Unknown> {
    let mut environments: BTreeSet<PathBuf> = ENVIRONMENTS.iter().map(PathBuf::from).collect();
    for file in unit_files(host)? {
        let Some(text) = read(host, &file)? else { continue };
        check_unit(&text, main, &mut environments).map_err(|what| undecidable(&file, &what))?;
        if environments.len() > FILES {
            return Err(Unknown::new(Cause::Limit, format!("more files than are read, at {}", file.display())));
        }
    }
    for file in environments {
        let Some(text) = read(host, &file)? else { continue };
        check_environment(&text, main).map_err(|what| undecidable(&file, &what))?;
    }
    Ok(())
}

fn undecidable(file: &Path, what: &str) -> Unknown {
    Unknown::new(Cause::Undecidable, format!("systemd starts the server with {what} by {}", file.display()))
}

/// Returns the units, and the files beside them that change them.
fn unit_files(host: &dyn Host) -> Result<Vec<PathBuf>, Unknown> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        for unit in SERVICES.iter().chain(&SOCKETS) {
            files.push(Path::new(folder).join(unit));
            let beside = Path::new(folder).join(format!("{unit}.d"));
            let names = match host.list(&beside) {
                Ok(names) => names,
                Err(error) if host::cause(&error) == Cause::Absent => continue,
                Err(error) => return Err(host::unknown(format!("list {}", beside.display()), &error)),
            };
            let is_conf = |name: &&std::ffi::OsString| name.to_string_lossy().ends_with(".conf");
            files.extend(names.iter().filter(is_conf).map(|name| beside.join(name)));
            if files.len() > FILES {
                return Err(Unknown::new(Cause::Limit, format!("more files than are read, at {}", beside.display())));
            }
        }
    }
    Ok(files)
}

/// Returns the text of a file; `None` without one, and of a unit that is masked: a link to `/dev/null`.
fn read(host: &dyn Host, file: &Path) -> Result<Option<String>, Unknown> {
    let what = |verb: &str| format!("{verb} {}", file.display());
    let metadata = match host.metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if host::cause(&error) == Cause::Absent => return Ok(None),
        Err(error) => return Err(host::unknown(what("look at"), &error)),
    };
    if metadata.kind == EntryKind::Link {
        let target = host.read_link(file).map_err(|error| host::unknown(what("read link"), &error))?;
        if target == Path::new("/dev/null") {
            return Ok(None);
        }
    }
    match host.read(file, SMALL_FILE_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(None),
        Err(error) => Err(host::unknown(what("read"), &error)),
    }
}

/// Returns keys and values of a file, lines that end with `\` joined with the next.
fn assignments(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut whole = String::new();
    for line in text.lines() {
        let is_comment = line.trim_start().starts_with(['#', ';']);
        if is_comment {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(start) => {
                whole.push_str(start);
                whole.push(' ');
                continue;
            }
            None => whole.push_str(line),
        }
        if let Some((key, value)) = whole.split_once('=') {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        whole.clear();
    }
    if let Some((key, value)) = whole.split_once('=') {
        found.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    found
}

/// Checks a unit, and adds the files of variables that it names. `Err` says what it starts the server with.
fn check_unit(text: &str, main: Option<&Path>, environments: &mut BTreeSet<PathBuf>) -> Result<(), String> {
    for (key, value) in assignments(text) {
        match key.as_str() {
            "ExecStart" => {
                let words = words(&value);
                let Some((program, arguments)) = words.split_first() else { continue };
                // systemd.service(5): characters before the path change how it is started.
                if program.trim_start_matches(['@', '-', ':', '+', '!', '|']).rsplit('/').next() != Some(server::NAME) {
                    return Err(format!("another program, {program},"));
                }
                set_nothing(arguments, main)?;
            }
            "Environment" => {
                for assignment in quoted_words(&value) {
                    let (_, value) = assignment.split_once('=').unwrap_or_default();
                    set_nothing(&words(value), main)?;
                }
            }
            "EnvironmentFile" => {
                let path = value.strip_prefix('-').unwrap_or(&value);
                if path.contains(['*', '?', '[', '%']) {
                    return Err(format!("variables of files that this build does not find, {path},"));
                }
                if !path.is_empty() {
                    environments.insert(PathBuf::from(path));
                }
            }
            "Service" if !value.is_empty() && !SERVICES.contains(&value.as_str()) => {
                return Err(format!("another unit, {value},"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks a file of variables, any of which may be arguments.
fn check_environment(text: &str, main: Option<&Path>) -> Result<(), String> {
    assignments(text).iter().try_for_each(|(_, value)| set_nothing(&words(value), main))
}

fn set_nothing(arguments: &[String], main: Option<&Path>) -> Result<(), String> {
    server::setting(arguments.iter(), main).map_or(Ok(()), Err)
}

/// Returns the words of a value, of which quotes hold none together: an option and its value may be one word or two.
fn words(value: &str) -> Vec<String> {
    let plain: String = value.chars().filter(|c| !['"', '\'', '\\'].contains(c)).collect();
    plain.split_whitespace().map(str::to_owned).collect()
}

/// Returns the words of a value, which quotes may hold together.
fn quoted_words(value: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in value.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            Some(_) | None => word.push(c),
        }
    }
    words.push(word);
    words
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::{super::made::Made, *};

    const MAIN: &str = "/etc/ssh/sshd_config";
    const VENDOR: &str = "[Service]\nEnvironmentFile=-/etc/default/ssh\nExecStartPre=/usr/sbin/sshd -t\nExecStart=/usr/sbin/sshd -D $SSHD_OPTS\nExecReload=/bin/kill -HUP $MAINPID\n";

    /// Returns a host with none of the files.
    fn bare() -> Made {
        let units = || SERVICES.iter().chain(&SOCKETS);
        let mut made = Made::new();
        for (folder, unit) in FOLDERS.iter().flat_map(|folder| units().map(move |unit| (folder, unit))) {
            made = made.absent(&format!("metadata {folder}/{unit}")).absent(&format!("list {folder}/{unit}.d"));
        }
        ENVIRONMENTS.iter().fold(made, |made, file| made.absent(&format!("metadata {file}")))
    }

    /// Returns Ubuntu as it is installed.
    pub fn stock() -> Made {
        bare()
            .file("/usr/lib/systemd/system/ssh.service", VENDOR)
            .file("/usr/lib/systemd/system/ssh.socket", "[Socket]\nListenStream=22\nAccept=no\n")
            .file(
                "/etc/default/ssh",
                "# Default settings for openssh-server.\n\n# Options to pass to sshd\nSSHD_OPTS=\n",
            )
            .folder("/run/systemd/generator/ssh.socket.d", &["addresses.conf"])
            .file("/run/systemd/generator/ssh.socket.d/addresses.conf", "[Socket]\nListenStream=\nListenStream=22\n")
    }

    fn check(made: &Made, expected: &str) {
        match differs(&made.host, Some(Path::new(MAIN))) {
            None => assert_eq!(expected, ""),
            Some(unknown) => {
                assert!(!expected.is_empty() && unknown.detail.as_str().contains(expected), "{expected}: {unknown:?}");
            }
        }
    }

    #[test]
    fn units_as_distributions_have_them_set_nothing() {
        check(&bare(), "");
        check(&stock(), "");
        let debian = VENDOR.replace("/usr/sbin/sshd -D", "-/usr/sbin/sshd -i");
        check(&stock().file("/usr/lib/systemd/system/ssh@.service", &debian), "");
        let red_hat = "[Service]\nEnvironmentFile=-/etc/crypto-policies/back-ends/opensshserver.config\nEnvironmentFile=-/etc/sysconfig/sshd\nExecStart=-/usr/sbin/sshd -i $OPTIONS $CRYPTO_POLICY\n";
        let red_hat = bare()
            .file("/usr/lib/systemd/system/sshd@.service", red_hat)
            .file(
                "/etc/crypto-policies/back-ends/opensshserver.config",
                "CRYPTO_POLICY='-oCiphers=aes256-gcm@openssh.com -oMACs=x'\n",
            )
            .file("/etc/sysconfig/sshd", "# A=\"-p 1\"\nSSH_USE_STRONG_RNG=0\nOPTIONS=\"-4\"\n");
        check(&red_hat, "");
        check(&stock().link("/etc/systemd/system/sshd.service", "/dev/null"), "");
    }

    #[test]
    fn what_sets_something_is_named_with_its_file() {
        for text in [
            "SSHD_OPTS='-o PasswordAuthentication=yes -o PermitRootLogin=yes'\n",
            "SSHD_OPTS=\"-u0 \\\n -o PasswordAuthentication=yes\"",
            "export SSHD_OPTS=-oPasswordAuthentication=yes",
        ] {
            check(&stock().file("/etc/default/ssh", text), "PasswordAuthentication=yes by /etc/default/ssh");
        }
        let beside = "/etc/systemd/system/ssh.service.d";
        let file = format!("{beside}/x.conf");
        for (text, expected) in [
            ("[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -f /root/x\n", "-f /root/x by"),
            (
                "[Service]\nEnvironment=A=b \"SSHD_OPTS=-o PasswordAuthentication=yes\"\n",
                "-o PasswordAuthentication=yes by",
            ),
            ("[Service]\nExecStart=/bin/sh -c 'exec /usr/sbin/sshd'\n", "another program, /bin/sh,"),
            ("[Service]\nEnvironmentFile=/etc/conf.d/*.conf\n", "this build does not find, /etc/conf.d/*.conf,"),
        ] {
            check(&stock().folder(beside, &["x.conf", "y.txt"]).file(&file, text), expected);
        }
        let other = "[Service]\nEnvironmentFile=/etc/other\n";
        let made = stock().folder(beside, &["x.conf"]).file(&file, other).file("/etc/other", "X=-p 2222\n");
        check(&made, "-p 2222 by /etc/other");
        let made = stock().file("/etc/systemd/system/ssh.socket", "[Socket]\nService=mine.service\n");
        check(&made, "another unit, mine.service, by /etc/systemd/system/ssh.socket");
    }

    proptest! {
        #[test]
        fn arbitrary_units_never_panic(text in "[A-Za-z'\"=;#\\\\/ \n-]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                let _ = check_unit(&text, None, &mut BTreeSet::new());
                let _ = check_environment(&text, None);
                quoted_words(&text);
            }
        }
    }
}
