//! sudoers(5): the lines of all its files, and who may run what as the superuser by them.
//!
//! What this reader does not take as sudo(8) does, it says, with file and line; the rules around it are still read. In doubt a rule
//! lets in more than sudo would, never less.

mod rules;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::host::{self, Host, SMALL_FILE_BYTES};
use muster_proto::fact::{Cause, Unknown};

pub use rules::{Grant, grants};

/// Where the rules begin: the usual place, and that of systems whose `/etc` holds changes alone.
const MAIN: [&str; 2] = ["/etc/sudoers", "/usr/etc/sudoers"];
/// Files that are read, at most, and how deep they may include each other.
const FILES: usize = 256;
const DEPTH: usize = 16;
/// Lines of all files, at most.
const LINES: usize = 10_000;

/// What all files say.
#[derive(Debug, Default)]
pub struct Sudoers {
    rules: Vec<Rule>,
    /// Items of an alias, as written, by its name.
    aliases: BTreeMap<String, Vec<String>>,
    /// Whether a password is asked where no tag says so: `Defaults !authenticate` turns it off.
    skips_password: bool,
    /// Whether the password asked for is not the caller's own: `rootpw`, `targetpw`, `runaspw`.
    asks_other_password: bool,
    /// Why there may be more rules than these.
    pub untold: Option<Unknown>,
    files: usize,
    lines: usize,
}

/// A user specification.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Rule {
    users: Vec<String>,
    hosts: Vec<String>,
    /// Behind `=`: runas, options, tags and commands, as written.
    commands: String,
    /// File and line.
    at: String,
}

impl Sudoers {
    /// Reads the main file and all that it includes. Without one there are no rules.
    pub fn look(host: &dyn Host, hostname: &str) -> Self {
        let mut sudoers = Self::default();
        for main in MAIN {
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

    /// Keeps the first doubt; what could not be read goes before what was not understood.
    pub fn doubt(&mut self, unknown: Unknown) {
        let is_weaker = |kept: &Unknown| kept.cause == Cause::Undecidable && unknown.cause != Cause::Undecidable;
        if self.untold.as_ref().is_none_or(is_weaker) {
            self.untold = Some(unknown);
        }
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
            "User_Alias" | "Host_Alias" | "Runas_Alias" | "Cmnd_Alias" | "Cmd_Alias" => self.add_aliases(rest, at),
            "Defaults" => self.add_defaults(rest, at),
            _ => match rules::parse(line, at) {
                Ok(rules) => self.rules.extend(rules),
                Err(why) => self.unsound(at, why),
            },
        }
    }

    /// `NAME = item, item : NAME = item`.
    fn add_aliases(&mut self, text: &str, at: &str) {
        for part in split(text, ':') {
            match part.split_once('=') {
                Some((name, items)) if rules::is_alias(name.trim()) => {
                    let items = split(items, ',').into_iter().map(|item| item.trim().to_owned());
                    self.aliases.insert(name.trim().to_owned(), items.collect());
                }
                // A digest of a command has a colon of its own, which is read by splitting in vain.
                _ => self.unsound(at, "an alias that this build does not read"),
            }
        }
    }

    fn add_defaults(&mut self, text: &str, at: &str) {
        let is_scoped = text.starts_with(['@', ':', '!', '>']);
        let settings =
            if is_scoped { text.split_once(char::is_whitespace).map_or("", |(_, settings)| settings) } else { text };
        for setting in split(settings, ',') {
            let setting = setting.trim();
            let name = setting.trim_start_matches('!').trim();
            let is_on = (setting.len() - setting.trim_start_matches('!').len()) % 2 == 0;
            match name {
                "authenticate" if is_scoped && !is_on => {
                    self.unsound(at, "a password is not asked in some cases alone");
                }
                "authenticate" if !is_scoped => self.skips_password = !is_on,
                "rootpw" | "targetpw" | "runaspw" if !is_scoped => self.asks_other_password = is_on,
                _ if name.starts_with("exempt_group") && is_on => {
                    self.unsound(at, "a group need not give a password");
                }
                _ => {}
            }
        }
    }
}

enum Include {
    File(String),
    Folder(String),
}

/// Returns what a line includes; the spelling with `#` is the older one.
fn directive(line: &str) -> Option<Include> {
    let line = line.trim_start().strip_prefix(['#', '@'])?;
    let (word, rest) = line.split_once(char::is_whitespace)?;
    let target = rest.trim().trim_matches('"').replace("\\ ", " ");
    match word {
        "include" => Some(Include::File(target)),
        "includedir" => Some(Include::Folder(target)),
        _ => None,
    }
}

/// Returns the path that an include in `from` names; `None` where it has an escape that sudo replaces.
fn included(target: &str, from: &Path) -> Option<PathBuf> {
    (!target.contains('%')).then(|| from.parent().unwrap_or(Path::new("/")).join(target))
}

/// Returns the lines of a file with their numbers, those joined that a backslash at the end continues.
fn logical_lines(file: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in file.lines().enumerate() {
        let (number, mut text) = open.take().unwrap_or((at + 1, String::new()));
        // sudo takes a comment for ended by its line, whatever stands last in it.
        let is_comment = text.is_empty() && line.trim_start().starts_with('#');
        match line.strip_suffix('\\') {
            Some(start) if !is_comment => {
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

/// Returns a line up to its comment. A `#` before a digit at the begin of an item names a user id.
fn without_comment(line: &str) -> &str {
    let bytes = line.as_bytes();
    let (mut is_quoted, mut at) = (false, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => is_quoted = !is_quoted,
            b'#' if !is_quoted => {
                let is_id = bytes.get(at + 1).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-');
                let begins_item =
                    at == 0 || matches!(bytes[at - 1], b' ' | b'\t' | b',' | b'(' | b':' | b'!' | b'%' | b'=');
                if !(is_id && begins_item) {
                    return &line[..at];
                }
            }
            _ => {}
        }
        at += 1;
    }
    line
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
