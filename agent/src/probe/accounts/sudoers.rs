//! sudoers(5): the lines of all its files, and who may run what as the superuser by them.
//!
//! What this reader does not take as sudo(8) does, it says, with file and line; the rules around it are still read. In doubt a rule
//! lets in more than sudo would, never less.

mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::host::{self, Host, SMALL_FILE_BYTES};
use muster_proto::fact::{Cause, Unknown};

pub use rules::{Grant, Superusers, grants};

/// Where the rules begin. sudo has the usual place, and that of systems whose `/etc` holds changes alone. sudo-rs(8) has a place of its
/// own before these. Which of both programs people run is not asked: the rules of either count.
pub const MAINS: [&[&str]; 2] = [&["/etc/sudoers", "/usr/etc/sudoers"], &["/etc/sudoers-rs"]];
/// Files that are read, at most, and how deep they may include each other.
const FILES: usize = 256;
const DEPTH: usize = 16;
/// Lines of all files, at most.
const LINES: usize = 10_000;

/// Settings that name a service of PAM, and services that are kept, at most.
const PAM_SERVICES: [&str; 3] = ["pam_askpass_service", "pam_login_service", "pam_service"];
const SERVICES: usize = 16;

/// What all files say.
#[derive(Debug, Default)]
pub struct Sudoers {
    rules: Vec<Rule>,
    /// Items of an alias, as written, by its name. Each kind has names of its own.
    aliases: BTreeMap<Kind, BTreeMap<String, Vec<String>>>,
    /// Whether a password is asked where no tag says so: `Defaults !authenticate` turns it off.
    skips_password: bool,
    /// Which of `rootpw`, `targetpw` and `runaspw` are on: the password asked for is then not the caller's own.
    other_passwords: BTreeSet<&'static str>,
    /// Users who give their own password even so.
    own_password: Vec<String>,
    /// Whether a setting names who is meant where a rule names nobody: `runas_default`.
    changes_runas: bool,
    /// Services of PAM that settings name in the place of sudo's own.
    pub pam_services: BTreeSet<String>,
    /// Why there may be more rules than these.
    pub untold: Option<Unknown>,
    files: usize,
    lines: usize,
}

/// What an alias stands for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    Users,
    Hosts,
    Runas,
    Commands,
}

/// A user specification.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Rule {
    users: Arc<[String]>,
    hosts: Vec<String>,
    /// Behind `=`: runas, options, tags and commands, as written.
    commands: String,
    /// File and line.
    at: String,
}

impl Sudoers {
    /// Reads the first main file that is there and all that it includes. Without one there are no rules.
    pub fn look(host: &dyn Host, mains: &[&str], hostname: &str) -> Self {
        let mut sudoers = Self::default();
        for main in mains {
            match host.metadata(Path::new(main)) {
                Ok(_) => {
                    sudoers.add_file(host, Path::new(main), hostname, 0);
                    return sudoers;
                }
                Err(error) if host::cause(&error) == Cause::Absent => {}
                Err(error) => {
                    sudoers.doubt(host::unknown(format!("look at {main}"), &error));
                    return sudoers;
                }
            }
        }
        sudoers
    }

    fn doubt(&mut self, unknown: Unknown) {
        doubt(&mut self.untold, unknown);
    }

    fn unsound(&mut self, at: &str, why: &str) {
        self.doubt(Unknown::new(Cause::Undecidable, format!("{at}: {why}")));
    }

    fn add_file(&mut self, host: &dyn Host, path: &Path, hostname: &str, depth: usize) {
        self.files += 1;
        if self.files > FILES || depth > DEPTH {
            return self.doubt(Unknown::new(Cause::Limit, format!("more files than are read, at {}", path.display())));
        }
        let bytes = match host.read(path, SMALL_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) => return self.doubt(host::unknown(format!("read {}", path.display()), &error)),
        };
        for (number, line) in logical_lines(&String::from_utf8_lossy(&bytes)) {
            self.lines += 1;
            if self.lines > LINES {
                return self
                    .doubt(Unknown::new(Cause::Limit, format!("more lines than are read, at {}", path.display())));
            }
            let at = format!("{}:{number}", path.display());
            // A comment may be of an older encoding.
            if without_comment(&line).contains(char::REPLACEMENT_CHARACTER) {
                self.doubt(Unknown::new(Cause::Garbled, format!("{at}: no text")));
                continue;
            }
            match directive(&line) {
                Some(Include::File(target)) => match included(&target, path) {
                    Some(target) => self.add_file(host, &target, hostname, depth + 1),
                    None => self.unsound(&at, "the name of an included file holds what only sudo replaces"),
                },
                Some(Include::Folder(target)) => match included(&target, path) {
                    Some(target) => self.add_folder(host, &target, hostname, depth),
                    None => self.unsound(&at, "the name of an included folder holds what only sudo replaces"),
                },
                Some(Include::Odd) => self.unsound(&at, "an include that this build does not read"),
                None => self.add_line(without_comment(&line).trim(), &at),
            }
        }
    }

    /// Adds the files of a folder as sudoers(5) says: in order of name, without names that end in `~` or have a dot.
    fn add_folder(&mut self, host: &dyn Host, folder: &Path, hostname: &str, depth: usize) {
        let names = match host.list(folder) {
            Ok(names) => names,
            Err(error) if host::cause(&error) == Cause::Absent => return,
            Err(error) => return self.doubt(host::unknown(format!("list {}", folder.display()), &error)),
        };
        for name in names {
            let text = name.to_string_lossy();
            if !text.ends_with('~') && !text.contains('.') {
                self.add_file(host, &folder.join(&name), hostname, depth + 1);
            }
        }
    }

    fn add_line(&mut self, line: &str, at: &str) {
        if line.is_empty() {
            return;
        }
        let word_end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(line.len());
        let (word, rest) = line.split_at(word_end);
        match word {
            "User_Alias" => self.add_aliases(Kind::Users, rest, at),
            "Host_Alias" => self.add_aliases(Kind::Hosts, rest, at),
            "Runas_Alias" => self.add_aliases(Kind::Runas, rest, at),
            "Cmnd_Alias" | "Cmd_Alias" => self.add_aliases(Kind::Commands, rest, at),
            "Defaults" => self.add_defaults(rest, at),
            _ => match rules::parse(line, at) {
                Ok(rules) => self.rules.extend(rules),
                Err(why) => self.unsound(at, why),
            },
        }
    }

    /// `NAME = item, item : NAME = item`.
    fn add_aliases(&mut self, kind: Kind, text: &str, at: &str) {
        for part in split(text, ':') {
            let alias = part.split_once('=').map(|(name, items)| (name.trim(), alias_items(kind, items)));
            match alias {
                Some((name, Some(items))) if rules::is_alias(name) => {
                    let aliases = self.aliases.entry(kind).or_default();
                    if aliases.contains_key(name) {
                        // Some releases of sudo keep the first, others do nothing at all.
                        self.unsound(at, "an alias that another line defines, too");
                    } else {
                        aliases.insert(name.to_owned(), items);
                    }
                }
                // A digest of a command has a colon of its own, which is read by splitting in vain.
                _ => self.unsound(at, "an alias that this build does not read"),
            }
        }
    }

    /// `Defaults`, then at once `@hosts`, `:users`, `>runas` or `!commands` where it is for these alone, then settings.
    fn add_defaults(&mut self, text: &str, at: &str) {
        let mut settings = text;
        let scope = text.chars().next().filter(|first| matches!(first, '@' | ':' | '!' | '>'));
        let mut scoped_to = Vec::new();
        if scope.is_some() {
            settings = &text[1..];
            scoped_to = rules::take_list(&mut settings);
            if rules::has_hex_escape(&text[..text.len() - settings.len()]) {
                self.unsound(at, "an escape that this build does not read");
            }
        }
        for setting in split(settings, ',') {
            let setting = setting.trim();
            let name = setting.trim_start_matches('!').trim();
            let is_on = (setting.len() - setting.trim_start_matches('!').len()) % 2 == 0;
            if scope.is_some() && !is_setting(name) {
                self.unsound(at, "settings that this build does not read");
            }
            match (name, scope) {
                ("authenticate", None) => self.skips_password = !is_on,
                ("authenticate", Some(_)) if !is_on => self.unsound(at, "a password is not asked in some cases alone"),
                ("rootpw", None) => self.set_other_password("rootpw", is_on),
                ("targetpw", None) => self.set_other_password("targetpw", is_on),
                ("runaspw", None) => self.set_other_password("runaspw", is_on),
                ("rootpw" | "targetpw" | "runaspw", Some(':'))
                    if !is_on && !scoped_to.iter().any(|user| user.starts_with('!')) =>
                {
                    self.own_password.extend(scoped_to.iter().cloned());
                }
                ("rootpw" | "targetpw" | "runaspw", Some(_)) => {
                    self.unsound(at, "whose password is asked differs by case");
                }
                _ if name.starts_with("exempt_group") && is_on => {
                    self.unsound(at, "a group need not give a password");
                }
                _ if PAM_SERVICES.iter().any(|service| name.starts_with(service)) => self.add_pam_service(name, at),
                _ if name.starts_with("runas_default") => self.changes_runas = true,
                _ => {}
            }
        }
    }

    fn add_pam_service(&mut self, setting: &str, at: &str) {
        let value = setting.split_once('=').map_or("", |(_, value)| value.trim().trim_matches('"'));
        let is_plain =
            !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        if is_plain && self.pam_services.len() < SERVICES {
            self.pam_services.insert(value.to_owned());
        } else {
            self.unsound(at, "a service of PAM that this build does not look at");
        }
    }

    fn set_other_password(&mut self, name: &'static str, is_on: bool) {
        if is_on {
            self.other_passwords.insert(name);
        } else {
            self.other_passwords.remove(name);
        }
    }

    /// Returns whether the password that is asked is that of the superuser. Of two settings `rootpw` goes first, then `runaspw`
    /// (`get_authpw` of sudo), which is about whom `runas_default` names.
    fn asks_other_password(&self) -> bool {
        let is_on = |name| self.other_passwords.contains(name);
        is_on("rootpw") || if is_on("runaspw") { !self.changes_runas } else { is_on("targetpw") }
    }
}

/// Keeps the first doubt; what could not be read goes before what was not understood.
pub fn doubt(kept: &mut Option<Unknown>, unknown: Unknown) {
    let is_weaker = |kept: &Unknown| kept.cause == Cause::Undecidable && unknown.cause != Cause::Undecidable;
    if kept.as_ref().is_none_or(is_weaker) {
        *kept = Some(unknown);
    }
}

/// Returns the user or group id behind a `#`, which may have zeros before it.
pub fn id(text: &str) -> Option<u32> {
    text.parse::<i64>().ok().and_then(|id| u32::try_from(id).ok())
}

/// Returns the items of an alias; `None` where they are no list.
fn alias_items(kind: Kind, text: &str) -> Option<Vec<String>> {
    if kind == Kind::Commands {
        return Some(split(text, ',').into_iter().map(|item| item.trim().to_owned()).collect());
    }
    let mut rest = text;
    let items = rules::take_list(&mut rest);
    (!items.is_empty() && rest.is_empty() && !rules::has_hex_escape(text)).then_some(items)
}

/// Returns whether a text is a setting: a name, with or without a value behind `=`, `+=` or `-=`.
fn is_setting(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let rest = rest.trim_start();
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && (rest.is_empty() || ["=", "+=", "-="].iter().any(|sign| rest.starts_with(sign)))
}

enum Include {
    File(String),
    Folder(String),
    /// One whose name sudo refuses, or its releases read differently.
    Odd,
}

/// Returns what a line includes; the spelling with `#` is the older one, and a comment unless a blank follows the word.
fn directive(line: &str) -> Option<Include> {
    let rest = directive_word(line)?;
    let (is_folder, rest) = match rest.strip_prefix("dir") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let is_name = rest.starts_with(char::is_whitespace) || (rest.starts_with('"') && is_at(line));
    match included_name(rest).filter(|_| is_name) {
        Some(name) if is_folder => Some(Include::Folder(name)),
        Some(name) => Some(Include::File(name)),
        None if is_name || is_at(line) => Some(Include::Odd),
        None => None,
    }
}

fn is_at(line: &str) -> bool {
    line.trim_start().starts_with('@')
}

/// Returns what stands behind `@include` or `#include`.
fn directive_word(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix(['#', '@'])?.strip_prefix("include")
}

/// Returns the name of an include: up to a blank, which a backslash takes for its own, or in quotes. Behind it, a comment may stand.
fn included_name(text: &str) -> Option<String> {
    let text = text.trim_start();
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => {
            let (name, rest) = quoted.split_once('"')?;
            (name.to_owned(), rest)
        }
        None => {
            let is_end = |(at, c): &(usize, char)| c.is_whitespace() && !text[..*at].ends_with('\\');
            let (name, rest) = text.split_at(text.char_indices().find(is_end).map_or(text.len(), |(at, _)| at));
            (name.replace("\\ ", " "), rest)
        }
    };
    let rest = rest.trim_start();
    let is_sound = !name.is_empty() && !name.contains(['\\', '"', '#']) && (rest.is_empty() || rest.starts_with('#'));
    is_sound.then_some(name)
}

/// Returns the path that an include in `from` names; `None` where it has an escape that sudo replaces.
fn included(target: &str, from: &Path) -> Option<PathBuf> {
    (!target.contains('%')).then(|| from.parent().unwrap_or(Path::new("/")).join(target))
}

/// Returns the lines of a file with their numbers, those joined that a backslash at the end continues.
fn logical_lines(file: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let mut is_quoted = false;
    for (at, line) in file.lines().enumerate() {
        let (number, mut text) = open.take().unwrap_or_else(|| {
            is_quoted = false;
            (at + 1, String::new())
        });
        // The `#` of an include begins no comment.
        let own = if text.is_empty() { directive_word(line).unwrap_or(line) } else { line };
        // sudo takes a comment for ended by its line, whatever stands last in it.
        let has_comment = comment(own, &mut is_quoted).is_some();
        match line.strip_suffix('\\') {
            Some(start) if !has_comment => {
                text.push_str(start);
                open = Some((number, text));
            }
            _ => {
                text.push_str(line);
                lines.push((number, text));
            }
        }
    }
    lines.extend(open);
    lines
}

/// Returns a line up to its comment.
fn without_comment(line: &str) -> &str {
    comment(line, &mut false).map_or(line, |at| &line[..at])
}

/// Returns where the comment of a line begins. A `#` before a digit at the begin of an item names a user id. `is_quoted` says whether
/// the line begins within quotes, and then whether it ends there.
fn comment(line: &str, is_quoted: &mut bool) -> Option<usize> {
    let bytes = line.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => *is_quoted = !*is_quoted,
            b'#' if !*is_quoted => {
                let is_id = bytes.get(at + 1).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-');
                let begins_item =
                    at == 0 || matches!(bytes[at - 1], b' ' | b'\t' | b',' | b'(' | b':' | b'!' | b'%' | b'=');
                if !(is_id && begins_item) {
                    return Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Returns `text` in parts that `separator` ends, where it is not quoted or behind a backslash.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut is_quoted, mut is_escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut is_escaped) {
            continue;
        }
        match c {
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            c if c == separator && !is_quoted => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests;
