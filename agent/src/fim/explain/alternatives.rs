//! Where links of `/etc/alternatives` may lead: what update-alternatives(1) has registered for them.
//!
//! Each group of links has a file of the master's name:
//!
//! ```text
//! auto | manual
//! link of the master
//! (name of a slave, link of it)...
//! an empty line
//! (file for the master, priority, a line with its file, or none, for each slave)...
//! an empty line
//! ```
//!
//! Source: `update-alternatives.c` of dpkg, and `alternatives.c` of chkconfig, which puts `@family@` before a priority and the name of
//! a service behind it.

use std::{collections::BTreeSet, io, path::Path};

use muster_proto::fact::Cause;

use super::evidence::{Evidence, each_line};
use crate::host::{self, Host};

/// The folder of the links.
pub(super) const FOLDER: &[u8] = b"/etc/alternatives/";
/// Where the groups are kept: on Debian, Red Hat and SUSE.
const REGISTRIES: &[&str] = &["/var/lib/dpkg/alternatives", "/var/lib/alternatives", "/var/lib/rpm/alternatives"];

/// Adds which changed links of `/etc/alternatives` lead to what is registered for them.
pub(super) fn collect(host: &dyn Host, evidence: &mut Evidence) -> io::Result<()> {
    let names = evidence.targets.iter().filter_map(|(path, target)| Some((path.strip_prefix(FOLDER)?, target)));
    let asked: BTreeSet<(&[u8], &[u8])> = names.map(|(name, target)| (name, target.as_slice())).collect();
    if asked.is_empty() {
        return Ok(());
    }
    let mut registered = BTreeSet::new();
    for folder in REGISTRIES {
        let files = match host.list(Path::new(folder)) {
            Err(error) if host::cause(&error) == Cause::Absent => continue,
            files => files?,
        };
        for file in files {
            let mut group = Group::new(file.as_encoded_bytes(), &asked);
            match each_line(host, &Path::new(folder).join(&file), &mut |line| group.take(line)) {
                Err(error) if host::cause(&error) != Cause::Absent => return Err(error),
                Err(_) => {}
                Ok(()) => registered.extend(group.found().iter().map(|name| [FOLDER, name].concat())),
            }
        }
    }
    evidence.registered = registered;
    Ok(())
}

/// Reads the lines of one group.
#[derive(Debug)]
struct Group<'a> {
    /// Names of links, and what they were found to lead to.
    asked: &'a BTreeSet<(&'a [u8], &'a [u8])>,
    /// The master's and each slave's.
    names: Vec<Vec<u8>>,
    next: Line,
    found: Vec<Vec<u8>>,
}

/// What a line is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Line {
    Status,
    MasterLink,
    /// The name of a slave, or the end of them.
    Slave,
    SlaveLink,
    /// A file for the master, or the end of the group.
    MasterFile,
    Priority,
    /// The file for the slave of this number in `names`.
    SlaveFile(usize),
    /// Behind the end.
    None,
    /// The group is not as it must be: nothing of it is believed.
    Wrong,
}

impl<'a> Group<'a> {
    fn new(master: &[u8], asked: &'a BTreeSet<(&'a [u8], &'a [u8])>) -> Self {
        Self { asked, names: vec![master.to_vec()], next: Line::Status, found: Vec::new() }
    }

    fn take(&mut self, line: &[u8]) {
        self.next = match self.next {
            Line::Status if line == b"auto" || line == b"manual" => Line::MasterLink,
            Line::MasterLink if is_path(line) => Line::Slave,
            Line::Slave if line.is_empty() => Line::MasterFile,
            Line::Slave if !line.contains(&b'/') => {
                self.names.push(line.to_vec());
                Line::SlaveLink
            }
            Line::SlaveLink if is_path(line) => Line::Slave,
            Line::MasterFile if line.is_empty() => Line::None,
            Line::MasterFile if is_path(line) => self.leads(0, line, Line::Priority),
            Line::Priority if is_priority(line) => self.slave_file(1),
            Line::SlaveFile(slave) if line.is_empty() => self.slave_file(slave + 1),
            Line::SlaveFile(slave) if is_path(line) => self.leads(slave, line, self.slave_file(slave + 1)),
            _ => Line::Wrong,
        };
    }

    fn leads(&mut self, name: usize, file: &[u8], next: Line) -> Line {
        let name = &self.names[name];
        if self.asked.contains(&(name.as_slice(), file)) {
            self.found.push(name.clone());
        }
        next
    }

    fn slave_file(&self, slave: usize) -> Line {
        if slave < self.names.len() { Line::SlaveFile(slave) } else { Line::MasterFile }
    }

    /// Returns the names of the links that lead to what is registered for them, when all lines were taken.
    fn found(&self) -> &[Vec<u8>] {
        if self.next == Line::None { &self.found } else { &[] }
    }
}

fn is_path(line: &[u8]) -> bool {
    line.starts_with(b"/")
}

/// Whether `line` is a number, as chkconfig writes it or without what that adds.
fn is_priority(line: &[u8]) -> bool {
    let number = match line.strip_prefix(b"@") {
        Some(family) => family.iter().position(|&byte| byte == b'@').map(|end| &family[end + 1..]),
        None => Some(line),
    };
    let number = number.and_then(|rest| rest.split(|&byte| byte == b' ').next());
    number.and_then(|number| std::str::from_utf8(number).ok()).is_some_and(|number| number.parse::<i32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns which of `asked`, `name target`, a group of the master `editor` has registered.
    fn found(lines: &str, asked: &[&str]) -> Vec<String> {
        let pairs = asked.iter().map(|pair| pair.split_once(' ').unwrap());
        let asked = pairs.map(|(name, target)| (name.as_bytes(), target.as_bytes())).collect();
        let mut group = Group::new(b"editor", &asked);
        lines.lines().for_each(|line| group.take(line.as_bytes()));
        group.found().iter().map(|name| String::from_utf8(name.clone()).unwrap()).collect()
    }

    const HEAD: &str = "auto\n/usr/bin/editor\neditor.1.gz\n/usr/share/man/man1/editor.1.gz\n50\n/usr/share/fifty\n\n";

    #[test]
    fn a_link_leads_to_what_stands_for_its_own_name() {
        let lines = format!("{HEAD}/bin/ed\n-100\n/man/ed.1.gz\n\n/usr/bin/vim\n30\n\n/usr/share/vim\n\n");
        for (asked, expected) in [
            ("editor /bin/ed", true),
            ("editor /usr/bin/vim", true),
            ("editor.1.gz /man/ed.1.gz", true),
            ("50 /usr/share/vim", true),
            ("editor /man/ed.1.gz", false),
            ("editor.1.gz /bin/ed", false),
            ("editor /usr/bin/editor", false),
            ("50 /bin/ed", false),
            ("30 /usr/bin/vim", false),
            ("auto /usr/bin/vim", false),
            ("editor.1.gz ", false),
        ] {
            assert_eq!(!found(&lines, &[asked]).is_empty(), expected, "{asked}");
        }
    }

    #[test]
    fn priorities_are_numbers_as_either_program_writes_them() {
        for (line, expected) in [
            ("50", true),
            ("-100", true),
            ("@java-17@1700", true),
            ("20 service", true),
            ("@a@20 service", true),
            ("", false),
            ("@20", false),
            ("/usr/bin/vim", false),
            ("99999999999", false),
        ] {
            assert_eq!(is_priority(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn nothing_is_believed_of_a_group_that_is_not_whole() {
        let whole = format!("{HEAD}/bin/ed\n-100\n/man/ed.1.gz\n\n\n");
        assert_eq!(found(&whole, &["editor /bin/ed"]), ["editor"]);
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        for left_out in 0..lines.len() {
            let rest: String =
                lines.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, line)| *line).collect();
            assert_eq!(found(&rest, &["editor /bin/ed", "editor.1.gz /man/ed.1.gz"]), [] as [&str; 0], "{rest}");
        }
        for wrong in [format!("{whole}more\n"), whole.replace("auto", "other"), whole.replace("/bin/ed", "bin/ed")] {
            assert_eq!(found(&wrong, &["editor /bin/ed"]), [] as [&str; 0], "{wrong}");
        }
    }
}
