//! AIDE, which compares files with a baseline as `muster-agent fim` does: what it reports, and at what cost.
//!
//! It is asked for SHA-256 and for the attributes that `--attributes all` stands for. Its database is given one digest in place of
//! the ten that it makes by default, as ours has one.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use super::cost::{self, Cost};

/// Type, permissions, owner, group, size, modified and changed time, inode, links, content, access lists, extended attributes and
/// capabilities.
const ATTRIBUTES: &str = "ftype+p+u+g+s+m+c+i+n+l+sha256+acl+xattrs+caps";

/// AIDE with a baseline of one tree.
#[derive(Debug)]
pub struct Aide {
    config: PathBuf,
    report: PathBuf,
}

impl Aide {
    /// Returns whether it is installed.
    pub fn is_there() -> bool {
        let version = Command::new("aide").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }

    /// Returns the first line of what it says of itself.
    pub fn version() -> String {
        let output = Command::new("aide").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
    }

    /// Prepares it to look at `tree`, with its own files in `folder`.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn at(tree: &Path, folder: &Path) -> anyhow::Result<Self> {
        let (config, report, database) = (folder.join("aide.conf"), folder.join("aide.report"), folder.join("aide.db"));
        let database = database.display();
        let text = format!(
            "database_in=file:{database}\ndatabase_out=file:{database}\ngzip_dbout=no\ndatabase_attrs=sha256\n\
             report_level=list_entries\nreport_url=file:{}\nlog_level=warning\nR = {ATTRIBUTES}\n{} R\n",
            report.display(),
            tree.display()
        );
        fs::write(&config, text)?;
        Ok(Self { config, report })
    }

    /// Takes its baseline.
    ///
    /// # Errors
    ///
    /// When it says that it failed.
    pub fn init(&self) -> anyhow::Result<Cost> {
        let cost = self.run("--init")?;
        ensure!(cost.status.success(), "aide --init ended with {}", cost.status);
        Ok(cost)
    }

    /// Compares the tree with its baseline, and returns the paths that it reports.
    ///
    /// # Errors
    ///
    /// When it says that it failed.
    pub fn check(&self) -> anyhow::Result<(BTreeSet<Vec<u8>>, Cost)> {
        match fs::remove_file(&self.report) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let cost = self.run("--check")?;
        let code = cost.status.code().context("aide was killed")?;
        // The sum of 1 (added), 2 (removed) and 4 (changed); its errors begin at 14, as aide(1) says.
        ensure!((0..=7).contains(&code), "aide --check ended with {code}");
        let reported = reported(&fs::read(&self.report)?);
        ensure!((code == 0) == reported.is_empty(), "aide ended with {code} and reported {} paths", reported.len());
        Ok((reported, cost))
    }

    fn run(&self, command: &str) -> anyhow::Result<Cost> {
        cost::of(
            Command::new("aide").arg("-c").arg(&self.config).arg(command).stdin(Stdio::null()).stdout(Stdio::null()),
        )
    }
}

/// Returns the paths of a report's lists: lines such as `f > ... ....H..   : /tree/file` and `f++++++: /tree/file`.
///
/// A control character of a name is written as `\012`; a backslash is written as it is, so that names must not hold any.
fn reported(report: &[u8]) -> BTreeSet<Vec<u8>> {
    let path = |line: &[u8]| {
        let at = line.windows(3).position(|three| three == b": /")?;
        // Type, `!` when that changed; then `l` when a link leads elsewhere; and what else did: no line of the report's head is like it.
        let has_rest = line[1] == b'l' || !line[1].is_ascii_alphanumeric();
        let is_entry = matches!(line[0], b'a'..=b'z' | b'D' | b'!' | b'?') && has_rest;
        is_entry.then(|| unescaped(&line[at + 2..]))
    };
    report.split(|byte| *byte == b'\n').filter_map(path).collect()
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(code) if byte == b'\\' => {
                bytes.push(code);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    bytes
}

/// Returns the bytes of `path`.
pub fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_a_report_are_its_lists() {
        let report = b"Start timestamp: 2026-11-26 17:54:56 +0000 (AIDE 0.18.3)\nAIDE found differences!!\n\nSummary:\n  \
            Total number of entries:\t7\n\n---\nAdded entries:\n---\n\nf+++++++++++++++++: /t/d/n\n\n---\nRemoved entries:\n\n\
            f-----------------: /t/a\n\nChanged entries:\n\nf > ... ....H..   : /t/x\xff\\012 : /q\nd = ... mc.. .. . : /t\n\
            l.= .ug .c..  .   : /t/l\nll> ... ....  .   : /t/other\n!   ...          : /t/k\n\
            \nEnd timestamp: 2026-11-26 17:54:56 +0000 (run time: 0m 0s)\n";
        let expected: [&[u8]; 7] = [b"/t", b"/t/a", b"/t/d/n", b"/t/k", b"/t/l", b"/t/other", b"/t/x\xff\n : /q"];
        assert_eq!(reported(report), expected.map(<[u8]>::to_vec).into());
    }
}
