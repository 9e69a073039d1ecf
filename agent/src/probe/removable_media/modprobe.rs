//! What modprobe.d(5) and the kernel's command line say of modules, as libkmod reads them (libkmod/libkmod-config.c). Pure.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::fact::{Cause, Unknown};

use super::{DRIVER, Finding, UAS};

/// What stands in an `install` line that never loads anything.
const NOTHING: [&str; 6] = ["/bin/true", "/bin/false", "/usr/bin/true", "/usr/bin/false", "/sbin/nologin", ":"];

/// What is told of modules, in the order in which it is read. Each has its place and its line.
#[derive(Debug, Default)]
pub(super) struct Settings {
    installs: Vec<Install>,
    blacklists: BTreeMap<String, String>,
}

/// What is run in place of loading a module.
#[derive(Debug)]
struct Install {
    /// As fnmatch(3) reads it.
    pattern: String,
    does_nothing: bool,
    /// Whether every modprobe(8) reads it.
    is_read: bool,
    line: String,
}

impl Settings {
    /// Adds a line, which [`lines`] made, and which is at `at`.
    pub fn add(&mut self, line: &str, at: &str) {
        self.add_line(line, at, true);
    }

    /// Adds a line, as [`Self::add`], of a file that not every modprobe(8) reads: of what it says, only what may let the driver in counts.
    pub fn add_of_some(&mut self, line: &str, at: &str) {
        self.add_line(line, at, false);
    }

    fn add_line(&mut self, line: &str, at: &str, is_read: bool) {
        const BLANK: [char; 2] = [' ', '\t'];
        let (word, rest) = line.trim_start_matches(BLANK).split_once(BLANK).unwrap_or_default();
        let (module, rest) = rest.trim_start_matches(BLANK).split_once(BLANK).unwrap_or((rest.trim_matches(BLANK), ""));
        if module.is_empty() {
            return;
        }
        let line = format!("{at}: {}", line.trim());
        match word {
            "install" => {
                // A shell runs what follows.
                let command: Vec<_> = rest.split(BLANK).filter(|word| !word.is_empty()).collect();
                let command = command.split(|word| word.starts_with('#')).next().unwrap_or_default();
                let does_nothing = matches!(command, [nothing] if NOTHING.contains(nothing));
                if let Some(pattern) = underscored_pattern(module) {
                    self.installs.push(Install { pattern, does_nothing, is_read, line });
                }
            }
            "blacklist" if is_read => drop(self.blacklists.entry(underscored(module)).or_insert(line)),
            _ => {}
        }
    }

    /// Adds what the kernel's command line tells modprobe(8).
    pub fn add_command_line(&mut self, command_line: &str) {
        for word in words(command_line) {
            for module in word.strip_prefix("modprobe.blacklist=").into_iter().flat_map(|names| names.split(',')) {
                self.blacklists.entry(underscored(module)).or_insert_with(|| format!("/proc/cmdline: {word}"));
            }
        }
    }

    /// Returns what is run in place of loading `module`, and whether it is that: the first line that is like it tells.
    fn install(&self, module: &str) -> Option<(&Install, bool)> {
        let found = |install: &Install| is_like(&install.pattern, module) != Some(false);
        let install = self.installs.iter().find(|install| found(install))?;
        Some((install, install.is_read && is_like(&install.pattern, module) == Some(true)))
    }

    /// Returns whether `module` is for certain never loaded by itself or when asked for.
    fn is_never_loaded(&self, module: &str) -> bool {
        self.install(module).is_some_and(|(install, is_certain)| install.does_nothing && is_certain)
    }

    /// Returns whether the driver can get into the kernel, whose modules for USB storage are `modules`.
    pub fn finding(&self, modules: &BTreeSet<String>, mechanisms: &mut BTreeSet<String>) -> Finding {
        let is_kept_out = |module: &str| self.blacklists.contains_key(module) || self.is_never_loaded(module);
        for module in modules.iter().map(String::as_str).chain([DRIVER]) {
            mechanisms.extend(self.blacklists.get(module).cloned());
            mechanisms.extend(self.install(module).map(|(install, _)| install.line.clone()));
        }
        // Every other module needs the driver, and cannot be loaded without it.
        match self.install(DRIVER) {
            Some(_) if self.is_never_loaded(DRIVER) => return Finding::Blocks,
            Some((install, _)) => return Finding::Untold(Unknown::new(Cause::Undecidable, &install.line)),
            None if !self.blacklists.contains_key(DRIVER) => return Finding::Silent,
            None => {}
        }
        // What is blacklisted is loaded all the same where another module needs it, as those for some devices do.
        let mut open = modules.iter().filter(|module| !is_kept_out(module));
        match open.next() {
            None => Finding::Blocks,
            Some(_) if modules.contains(UAS) && !is_kept_out(UAS) => Finding::Silent,
            Some(module) => {
                let detail =
                    format!("{module} is not blacklisted, and brings {DRIVER} along for the devices that it is for");
                Finding::Untold(Unknown::new(Cause::Undecidable, detail))
            }
        }
    }
}

/// Returns the lines of a file without its comments, each with the number of its first one: a backslash before the end of one has the
/// next continue it, also where it is a comment, and goes from before anything else (`freadline_wrapped` in shared/util.c).
pub(super) fn lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = vec![(1, String::new())];
    let mut number = 1;
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let escaped = if char == '\\' { chars.next() } else { None };
        number += usize::from(char == '\n' || escaped == Some('\n'));
        let (_, line) = lines.last_mut().expect("there is one from the start");
        match (char, escaped) {
            ('\n', _) => lines.push((number, String::new())),
            ('\\', None | Some('\n')) => {}
            (_, escaped) => line.push(escaped.unwrap_or(char)),
        }
    }
    lines.retain(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
}

/// Returns the word of the kernel's command line that has it refuse the driver. Of several the last counts, and names are those that
/// modules have, without dashes: `blacklisted` in kernel/module/main.c.
pub(super) fn refused_by_kernel(command_line: &str) -> Option<&str> {
    let word = words(command_line).filter(|word| word.starts_with("module_blacklist=")).last()?;
    let (_, names) = word.split_once('=')?;
    names.split(',').any(|name| name == DRIVER).then_some(word)
}

/// Returns the words of a command line that are the kernel's own.
fn words(command_line: &str) -> impl Iterator<Item = &str> {
    command_line.split_whitespace().take_while(|word| *word != "--")
}

pub(super) fn underscored(module: &str) -> String {
    module.replace('-', "_")
}

/// Returns the pattern as libkmod keeps it, which leaves sets as they are and drops lines with half a set: `underscores` in shared/util.c.
fn underscored_pattern(pattern: &str) -> Option<String> {
    let mut kept = String::new();
    let mut rest = pattern;
    while let Some(start) = rest.find(['[', ']']) {
        let end = start + rest[start..].find(']').filter(|length| *length > 0)?;
        kept += &underscored(&rest[..start]);
        kept += &rest[start..=end];
        rest = &rest[end + 1..];
    }
    Some(kept + &underscored(rest))
}

/// What one part of a pattern is like.
enum Part<'a> {
    Any,
    One(u8),
    Set { is_negated: bool, bytes: &'a [u8] },
    Run,
}

impl Part<'_> {
    fn is_like(&self, byte: u8) -> bool {
        match *self {
            Self::Any | Self::Run => true,
            Self::One(one) => one == byte,
            Self::Set { is_negated, mut bytes } => {
                let mut is_in = false;
                while let [first, rest @ ..] = bytes {
                    let (last, after) = match rest {
                        [b'-', last, after @ ..] => (last, after),
                        _ => (first, rest),
                    };
                    is_in |= (*first..=*last).contains(&byte);
                    bytes = after;
                }
                is_in != is_negated
            }
        }
    }
}

/// Returns the parts of a pattern; `None` where it has escapes, classes of characters or an empty set.
fn parts(pattern: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = pattern.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        parts.push(match first {
            b'\\' => return None,
            b'*' => Part::Run,
            b'?' => Part::Any,
            b'[' => {
                let end = after.iter().position(|byte| *byte == b']')?;
                rest = &after[end + 1..];
                let (is_negated, bytes) = match &after[..end] {
                    [b'!' | b'^', bytes @ ..] => (true, bytes),
                    bytes => (false, bytes),
                };
                if bytes.is_empty() || bytes.iter().any(|byte| matches!(byte, b'[' | b'\\')) {
                    return None;
                }
                Part::Set { is_negated, bytes }
            }
            one => Part::One(*one),
        });
    }
    Some(parts)
}

/// Returns whether `name` is like `pattern`, as fnmatch(3) says; `None` where the pattern is not read.
fn is_like(pattern: &str, name: &str) -> Option<bool> {
    let name = name.as_bytes();
    // Which starts of `name` are like what was read of the pattern.
    let mut alike = vec![false; name.len() + 1];
    alike[0] = true;
    for part in parts(pattern)? {
        if matches!(part, Part::Run) {
            let mut is_alike = false;
            for start in &mut alike {
                is_alike |= *start;
                *start = is_alike;
            }
        } else {
            for end in (0..name.len()).rev() {
                alike[end + 1] = alike[end] && part.is_like(name[end]);
            }
            alike[0] = false;
        }
    }
    Some(alike[name.len()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns whether these lines and command line keep the driver out; `None` where that is not told. The kernel has these modules.
    fn blocks_of(modules: &[&str], text: &str, command_line: &str) -> Option<bool> {
        let mut settings = Settings::default();
        for (number, line) in lines(text) {
            settings.add(&line, &format!("f:{number}"));
        }
        settings.add_command_line(command_line);
        let modules = modules.iter().map(|&module| module.to_owned()).collect();
        match settings.finding(&modules, &mut BTreeSet::new()) {
            Finding::Blocks => Some(true),
            Finding::Silent => Some(false),
            Finding::Untold(_) => None,
        }
    }

    fn blocks(text: &str) -> Option<bool> {
        blocks_of(&["uas", "usb_storage"], text, "")
    }

    #[test]
    fn a_driver_that_is_never_loaded_keeps_storage_out() {
        for (text, expected) in [
            ("install usb-storage /bin/false", Some(true)),
            ("install usb_storage /bin/true # x", Some(true)),
            ("\t install \t usb_storage \t /bin/true\t", Some(true)),
            ("blacklist usb-storage", Some(false)),
            ("blacklist usb-storage\nblacklist uas", Some(true)),
            ("blacklist usb_storage\ninstall uas /bin/false", Some(true)),
            ("blacklist usb-storage extra\nblacklist uas # x", Some(true)),
            ("blacklist usb-storage\r\nblacklist uas\r\n", Some(false)),
            ("blacklist uas\nblacklist usb*", Some(false)),
            ("install usb-storage /sbin/modprobe --ignore-install usb-storage", None),
            ("install usb-storage /bin/false || /sbin/modprobe -i usb-storage", None),
            ("install usb-storage /bin/false\r", None),
            ("install usb-storage", None),
            ("# install usb-storage /bin/false", Some(false)),
            ("options usb-storage quirks=1:2:u", Some(false)),
        ] {
            assert_eq!(blocks(text), expected, "{text}");
        }
    }

    #[test]
    fn the_first_line_that_is_like_the_driver_tells_what_is_run_for_it() {
        for (text, expected) in [
            ("install usb?storage /bin/false", Some(true)),
            ("install usb-st* /bin/false", Some(true)),
            ("install * /bin/false", Some(true)),
            ("install usb?stora /bin/false", Some(false)),
            ("install ?usb* /bin/false", Some(false)),
            ("install usb_st* /sbin/modprobe -i usb-storage\ninstall usb-storage /bin/false", None),
            ("install usb-storage /bin/false\ninstall usb_st* /sbin/modprobe -i usb-storage", Some(true)),
            ("install [f]irewire-* /bin/false", Some(false)),
            ("install [u]sb-storage /bin/false", Some(true)),
            ("install usb[-_]storage /bin/false", Some(true)),
            ("install usb[-]storage /bin/false", Some(false)),
            ("install [a-t]sb-* /bin/false", Some(false)),
            ("install [t-vx]sb-[!a-rt]* /bin/false", Some(true)),
            ("install [!u]* /sbin/x\ninstall usb-storage /bin/false", Some(true)),
            ("install [^t]* /sbin/x\ninstall usb-storage /bin/false", None),
            // What has half a set is not read.
            ("install [u* /sbin/x\ninstall usb-storage /bin/false", Some(true)),
            ("install u]* /sbin/x\ninstall usb-storage /bin/false", Some(true)),
            ("install [u* /bin/false", Some(false)),
            // What these are like is not looked for.
            ("install [[:lower:]]sb-storage /bin/false", Some(false)),
            ("install [[:lower:] /bin/false", None),
            ("install \\\\usb-storage /bin/false", None),
            ("install [][u]sb-storage /bin/false", None),
        ] {
            assert_eq!(blocks(text), expected, "{text}");
        }
    }

    #[test]
    fn what_only_some_read_may_let_the_driver_in_and_keeps_nothing_out() {
        for (of_some, text, expected) in [
            ("install usb-storage /sbin/modprobe -i usb-storage", "install usb-storage /bin/false", None),
            ("install usb-storage /bin/false", "", None),
            ("blacklist usb-storage", "blacklist uas", Some(false)),
            ("install uas /bin/false", "blacklist usb-storage", Some(false)),
            ("install loop /bin/false", "install usb-storage /bin/false", Some(true)),
        ] {
            let mut settings = Settings::default();
            settings.add_of_some(of_some, "f.alias:1");
            for (number, line) in lines(text) {
                settings.add(&line, &format!("f:{number}"));
            }
            let modules = ["uas", "usb_storage"].map(str::to_owned).into();
            let found = match settings.finding(&modules, &mut BTreeSet::new()) {
                Finding::Blocks => Some(true),
                Finding::Silent => Some(false),
                Finding::Untold(_) => None,
            };
            assert_eq!(found, expected, "{of_some} {text}");
        }
    }

    #[test]
    fn a_backslash_continues_a_line_and_a_comment_too() {
        for (text, expected) in [
            ("# old: \\\ninstall usb-storage /bin/false\n", Some(false)),
            ("# old:\\\n\\\nblacklist x\ninstall usb-storage /bin/false\n", Some(true)),
            ("install usb-storage \\\n  /bin/false\n", Some(true)),
            ("install usb-sto\\\nrage /bin/false", Some(true)),
            ("install usb\\-storage /bin/false", Some(true)),
            // The second of two is no end of a line.
            ("# old: \\\\\ninstall usb-storage /bin/false\n", Some(true)),
            ("install usb-storage /bin/false\\\\\n", None),
            ("install usb-storage /bin/false \\\n || /sbin/modprobe -i usb-storage", None),
        ] {
            assert_eq!(blocks(text), expected, "{text}");
        }
        let text = "a\\\nb\n\n# c\nd\\\\\ne\\";
        assert_eq!(lines(text), [(1, "ab"), (5, "d\\"), (6, "e")].map(|(number, line)| (number, line.to_owned())));
    }

    #[test]
    fn a_blacklist_keeps_out_what_no_other_module_brings_along() {
        let modules = ["uas", "ums_realtek", "usb_storage"];
        let both = "blacklist usb-storage\nblacklist uas\n";
        for (text, command_line, expected) in [
            (both.to_owned(), "", None),
            (format!("{both}blacklist ums-realtek"), "", Some(true)),
            (format!("{both}install ums-* /bin/true"), "", Some(true)),
            (format!("{both}install ums-realtek /sbin/modprobe -i ums-realtek"), "", None),
            (both.to_owned(), "modprobe.blacklist=ums-realtek", Some(true)),
            (String::new(), "modprobe.blacklist=uas modprobe.blacklist=usb-storage,ums_realtek ro", Some(true)),
            (String::new(), "modprobe.blacklist=uas,usb-storage,ums_realtek", Some(true)),
            (String::new(), "-- modprobe.blacklist=uas,usb-storage,ums_realtek", Some(false)),
            ("blacklist usb-storage\nblacklist ums-realtek".to_owned(), "", Some(false)),
            ("install usb-storage /bin/false".to_owned(), "", Some(true)),
        ] {
            assert_eq!(blocks_of(&modules, &text, command_line), expected, "{text} {command_line}");
        }
        assert_eq!(blocks_of(&["usb_storage"], "blacklist usb-storage", ""), Some(true));
    }

    #[test]
    fn the_kernel_refuses_what_is_named_as_it_names_it() {
        let word = "module_blacklist=a,usb_storage";
        assert_eq!(refused_by_kernel(&format!("quiet {word} ro")), Some(word));
        for other in [
            "quiet".to_owned(),
            "module_blacklist=usb-storage".to_owned(),
            format!("{word} module_blacklist=b"),
            format!("quiet -- {word}"),
        ] {
            assert_eq!(refused_by_kernel(&other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(text in "(install |[a-z0-9 *?!\\\\\\[\\]\n#/_-]){0,100}", any in "\\PC*") {
            for text in [text, any] {
                blocks_of(&["uas", "usb_storage"], &text, &text);
                refused_by_kernel(&text);
            }
        }
    }
}
