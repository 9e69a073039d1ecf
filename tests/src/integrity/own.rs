//! `muster-agent fim`: what it tells, and at what cost.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use muster_proto::fact::PathText;
use serde_json::Value;

use super::cost::{self, Cost};
use crate::harness::program;

/// The program with a baseline of one tree.
#[derive(Debug)]
pub struct Own {
    /// Words before the program.
    under: Vec<String>,
    program: PathBuf,
    tree: PathBuf,
    database: PathBuf,
    output: PathBuf,
}

/// What one look told.
#[derive(Debug)]
pub struct Told {
    /// 0 unchanged, 1 changed, 2 could not look.
    pub code: i32,
    /// Changed paths, each with the kind of change.
    pub changes: BTreeMap<Vec<u8>, String>,
    /// Paths that could not be read.
    pub unreadable: BTreeSet<Vec<u8>>,
    /// The last line.
    pub summary: Value,
}

impl Own {
    /// Prepares it to look at `tree`, with its own files in `folder`.
    pub fn at(tree: &Path, folder: &Path) -> Self {
        let (database, output) = (folder.join("own.db"), folder.join("own.out"));
        Self { under: Vec::new(), program: program("test-agent"), tree: tree.to_owned(), database, output }
    }

    /// Makes it another build of the program.
    #[must_use]
    pub fn with(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// Lets another program run it.
    #[must_use]
    pub fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Returns the file of the baseline.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// Returns `muster-agent fim` with `what` and its baseline, its output for programs going to a file.
    ///
    /// # Errors
    ///
    /// When that file cannot be made.
    pub fn command(&self, what: &str, more: &[&str]) -> anyhow::Result<Command> {
        let words = self.under.iter().map(OsStr::new).chain([self.program.as_os_str()]);
        let mut words = words.collect::<Vec<_>>().into_iter();
        let mut command = Command::new(words.next().context("a program")?);
        command.args(words);
        command.args(["fim", what, "-o", "json", "--db"]).arg(&self.database).args(more);
        // What is covered, and how, is part of the baseline.
        if what == "baseline" {
            command.args(["--force", "--attributes", "all", "--path"]).arg(&self.tree);
        }
        // Nothing of who runs this may have a say.
        command.env("MUSTER_CONFIG", "/nonexistent").stdin(Stdio::null()).stdout(File::create(&self.output)?);
        Ok(command)
    }

    /// Takes the baseline.
    ///
    /// # Errors
    ///
    /// When it ends otherwise than with a whole one.
    pub fn baseline(&self) -> anyhow::Result<Cost> {
        let (told, cost) = self.run("baseline", &[])?;
        ensure!(told.code == 0, "fim baseline ended with {}: {}", told.code, told.summary);
        Ok(cost)
    }

    /// Runs `fim` with `what`, and returns what it told.
    ///
    /// # Errors
    ///
    /// When it does not end by itself, or tells what it should not.
    pub fn run(&self, what: &str, more: &[&str]) -> anyhow::Result<(Told, Cost)> {
        let cost = cost::of(&mut self.command(what, more)?)?;
        let code = cost.status.code().with_context(|| format!("fim {what} ended with {}", cost.status))?;
        Ok((told(code, &fs::read_to_string(&self.output)?)?, cost))
    }
}

/// Returns what the lines of an output tell.
fn told(code: i32, output: &str) -> anyhow::Result<Told> {
    let mut told = Told { code, changes: BTreeMap::new(), unreadable: BTreeSet::new(), summary: Value::Null };
    for line in output.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        match value["type"].as_str() {
            Some("change") => {
                let kind = value["change"]["kind"].as_str().context("a change has a kind")?.to_owned();
                let before = told.changes.insert(bytes(&value["change"]["path"])?, kind);
                ensure!(before.is_none(), "a change is told twice: {line}");
            }
            Some("unreadable") => {
                ensure!(told.unreadable.insert(bytes(&value["path"])?), "told twice: {line}");
            }
            Some("summary" | "error") => {
                ensure!(told.summary.is_null(), "two ends: {line}");
                told.summary = value;
            }
            _ => anyhow::bail!("a line of no known type: {line}"),
        }
    }
    ensure!(!told.summary.is_null(), "the output has no end");
    Ok(told)
}

fn bytes(path: &Value) -> anyhow::Result<Vec<u8>> {
    let path = PathText::parse(path.as_str().context("a path is text")?.to_owned());
    path.and_then(|path| path.to_bytes()).context("a path that is not written as the contract says")
}
