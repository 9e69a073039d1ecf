//! Files that programs of the system make from what packages installed: a dated table of rules.
//!
//! A rule is weaker than a package's record, and is shown by its name. It holds only where packages were changed in the same window.

use std::sync::LazyLock;

use muster_proto::{
    fact::{ChangeKind, Explanation, ExplanationSource, FileChange, FileState, FileType, Text},
    time::Timestamp,
};
use serde::Deserialize;

use super::{
    Asked, alternatives, dpkg,
    evidence::{Evidence, Rights},
    judge::{attributes, is_safe},
    pacman,
};

/// The table that is compiled in.
static TABLE: LazyLock<Table> =
    LazyLock::new(|| toml::from_str(include_str!("generated.toml")).expect("a test reads the table"));
/// Folders of links that lead on to what packages have.
const SWITCHES: &[&[u8]] = &[alternatives::FOLDER, b"/etc/ssl/certs/"];
/// What stands between a module's name and the version of its compiled form.
const COMPILED: &[&[u8]] = &[b".cpython-", b".pypy"];
const CACHE: &[u8] = b"__pycache__";

/// The rules that this build knows; the file says what each field means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[allow(dead_code, reason = "for who reads the table, and a test")]
    as_of: Timestamp,
    /// In order of name.
    rule: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    #[allow(dead_code, reason = "for who reads the table, and a test")]
    program: String,
    paths: Vec<String>,
    kinds: Vec<FileType>,
    target: Option<Target>,
    #[serde(default)]
    source: bool,
    #[serde(default)]
    sha256: Vec<String>,
    #[serde(default)]
    same: bool,
    deleted: bool,
}

/// What a link must lead to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Target {
    Listed,
    Unpacked,
    Registered,
    Alternative,
}

/// Returns what explains a difference by a rule.
pub(super) fn explanation(path: &[u8], asked: &Asked<'_>, evidence: &Evidence) -> Option<Explanation> {
    // Packages that were changed in the window are asked for first: on most days there are none.
    if !evidence.times.iter().any(|time| asked.is_soon(Some(*time))) {
        return None;
    }
    let rule = TABLE.rule.iter().find(|rule| rule.explains(path, asked, evidence))?;
    Some(Explanation {
        source: ExplanationSource::Generated,
        package: Text::default(),
        version: Text::default(),
        basis: Text::new(&rule.name),
    })
}

/// Returns whether some rule is about what `change` found at `path`.
pub(super) fn is_about(path: &[u8], change: &FileChange) -> bool {
    let Some(found) = change.after.as_ref().or(change.before.as_ref()) else { return false };
    let is_of = |rule: &Rule| {
        let is_content = rule.sha256.is_empty() || rule.sha256.iter().any(|digest| digest == found.sha256.as_str());
        let is_same = !rule.same || change.before.as_ref().is_some_and(|before| before.sha256 == found.sha256);
        rule.kinds.contains(&found.r#type) && is_content && is_same && rule.is_about(path)
    };
    TABLE.rule.iter().any(is_of)
}

/// Returns the source of the compiled Python at `path`.
pub(super) fn source_of(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts = path.rsplitn(3, |&byte| byte == b'/');
    let (name, folder, above) = (parts.next()?, parts.next()?, parts.next()?);
    let ends = |mark: &&[u8]| name.windows(mark.len()).position(|part| part == *mark);
    let end = COMPILED.iter().find_map(ends).filter(|_| folder == CACHE)?;
    Some([above, b"/", &name[..end], b".py"].concat())
}

/// Returns whether what is at `path` may be a link that leads on to what a package has.
pub(super) fn is_switch(path: &[u8]) -> bool {
    SWITCHES.iter().any(|folder| path.starts_with(folder))
}

impl Rule {
    fn explains(&self, path: &[u8], asked: &Asked<'_>, evidence: &Evidence) -> bool {
        if !self.is_about(path) || !is_of_changed_package(path, asked, evidence) {
            return false;
        }
        let change = &*asked.change;
        match (&change.before, &change.after) {
            (Some(before), None) => self.deleted && self.kinds.contains(&before.r#type),
            (before, Some(after)) => {
                self.kinds.contains(&after.r#type)
                    && keeps_rights(before.as_ref(), after)
                    && self.believes(path, asked, before.as_ref(), after, evidence)
            }
            (None, None) => false,
        }
    }

    fn believes(
        &self,
        path: &[u8],
        asked: &Asked<'_>,
        before: Option<&FileState>,
        after: &FileState,
        evidence: &Evidence,
    ) -> bool {
        let is_target = self.target.is_none_or(|target| leads_to(target, path, asked, evidence));
        let is_source = !self.source || source_of(path).is_some_and(|source| !evidence.records(&source).is_empty());
        let is_content = self.sha256.is_empty() || self.sha256.iter().any(|digest| digest == after.sha256.as_str());
        let is_same = before.is_some_and(|before| before.sha256 == after.sha256) && !after.sha256.is_empty();
        is_target && is_source && is_content && (!self.same || is_same && asked.change.kind == ChangeKind::Metadata)
    }

    fn is_about(&self, path: &[u8]) -> bool {
        self.paths.iter().any(|pattern| matches(pattern.as_bytes(), path))
    }
}

/// Whether an entry may be what it was before, and nobody has more rights by it.
fn keeps_rights(before: Option<&FileState>, after: &FileState) -> bool {
    // Everybody may write to a link, for whose mode nothing asks.
    let Some(before) = before else { return after.r#type == FileType::Link && after.uid == 0 || is_safe(after) };
    let is_same = Rights::of(before) == Rights::of(after) && attributes(before).eq(attributes(after));
    before.r#type == after.r#type && is_same
}

/// Whether the package whose own file of a database `path` is was unpacked in the window, or is gone and the file with it. What is no
/// such file says nothing against it.
fn is_of_changed_package(path: &[u8], asked: &Asked<'_>, evidence: &Evidence) -> bool {
    let Some((source, name)) = dpkg::package_of(path).or_else(|| pacman::package_of(path)) else { return true };
    match evidence.unpacked.get(&(source, Text::new(name))) {
        Some(times) => times.iter().any(|time| asked.is_within(*time)),
        None => asked.change.after.is_none(),
    }
}

fn leads_to(target: Target, path: &[u8], asked: &Asked<'_>, evidence: &Evidence) -> bool {
    let Some(first) = evidence.targets.get(path) else { return false };
    // What is at the end of a switch, or what it leads to itself.
    let last = evidence.targets.get(first).filter(|_| is_switch(first)).unwrap_or(first);
    let records = evidence.records(last);
    match target {
        Target::Listed => !records.is_empty(),
        Target::Unpacked => records.iter().any(|record| asked.is_within(record.package.time)),
        Target::Registered => !records.is_empty() && evidence.registered.contains(path),
        Target::Alternative => first.starts_with(alternatives::FOLDER) && !records.is_empty(),
    }
}

/// Whether `path` is one that `pattern` means: `*` is any text in a name, `**` any folders, or anything at the end.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let mut pattern = pattern.split(|&byte| byte == b'/').peekable();
    let mut path = path.split(|&byte| byte == b'/');
    while let Some(part) = pattern.next() {
        if part == b"**" {
            let rest: Vec<&[u8]> = pattern.collect();
            let names: Vec<&[u8]> = path.collect();
            return ends_with(&rest, &names);
        }
        if !path.next().is_some_and(|name| is_name(part, name)) {
            return false;
        }
    }
    path.next().is_none()
}

/// Whether the last of `names` are those of `pattern`, after any folders, or one at least where `pattern` is empty.
fn ends_with(pattern: &[&[u8]], names: &[&[u8]]) -> bool {
    let Some(start) = names.len().checked_sub(pattern.len().max(1)) else { return false };
    pattern.is_empty() || pattern.iter().zip(&names[start..]).all(|(part, name)| is_name(part, name))
}

fn is_name(pattern: &[u8], name: &[u8]) -> bool {
    let mut pieces = pattern.split(|&byte| byte == b'*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<&[u8]> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        let Some(at) = rest.windows(piece.len()).position(|part| part == piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_each_rule_is_whole() {
        assert!(TABLE.rule.is_sorted_by_key(|rule| &rule.name));
        for rule in &TABLE.rule {
            assert!(!rule.program.is_empty() && !rule.paths.is_empty() && !rule.kinds.is_empty(), "{}", rule.name);
            assert_eq!(rule.target.is_some(), rule.kinds == [FileType::Link], "{}: links need a target", rule.name);
            for path in &rule.paths {
                let deep = path.split('/').filter(|part| *part == "**").count();
                assert!(path.starts_with('/') && deep <= 1, "{path}");
            }
        }
        assert!(TABLE.as_of > Timestamp::from_seconds(1_790_000_000).unwrap());
    }

    #[test]
    fn no_rule_is_about_what_grants_rights_by_its_content() {
        for path in [
            "/etc/passwd",
            "/etc/shadow",
            "/etc/group",
            "/etc/gshadow",
            "/etc/subuid",
            "/etc/sudoers",
            "/etc/sudoers.d/x",
            "/etc/pam.d/sshd",
            "/etc/security/access.conf",
            "/etc/ssh/sshd_config",
            "/etc/ssh/ssh_host_ed25519_key",
            "/etc/crontab",
            "/etc/cron.d/x",
            "/etc/cron.daily/x",
            "/etc/ld.so.preload",
            "/etc/ld.so.conf.d/x.conf",
            "/etc/systemd/system/x.service",
            "/usr/lib/systemd/system/x.service",
            "/etc/init.d/x",
            "/etc/profile.d/x.sh",
            "/etc/machine-id",
            "/etc/hosts",
            "/etc/nsswitch.conf",
            "/etc/apt/sources.list",
            "/etc/polkit-1/rules.d/x",
            "/usr/bin/sudo",
            "/usr/sbin/sshd",
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/boot/vmlinuz-6.1.0",
            "/etc/apparmor.d/usr.sbin.x",
            "/usr/lib/python3/dist-packages/x.py",
            "/usr/lib/modules/6.1/kernel/x.ko",
        ] {
            for rule in TABLE.rule.iter().filter(|rule| rule.kinds.contains(&FileType::File) && !rule.same) {
                assert!(!rule.is_about(path.as_bytes()), "{} is about {path}", rule.name);
            }
        }
    }

    #[test]
    fn a_pattern_means_names_and_folders() {
        for (pattern, path, expected) in [
            ("/etc/a", "/etc/a", true),
            ("/etc/a", "/etc/a/b", false),
            ("/etc/*", "/etc/a", true),
            ("/etc/*", "/etc/a/b", false),
            ("/etc/*.d/S*", "/etc/rc2.d/S01x", true),
            ("/etc/*.d/S*", "/etc/rc2.d/K01x", false),
            ("/a/x-*-y", "/a/x-1-y", true),
            ("/a/x-*-y", "/a/x-y", false),
            ("/a/*b*c", "/a/1b2b3c", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/a", false),
            ("/a/**/c/*.x", "/a/b/d/c/1.x", true),
            ("/a/**/c/*.x", "/a/c/1.x", true),
            ("/a/**/c/*.x", "/a/b/1.x", false),
            ("/a/**/c", "/ab/c", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn compiled_python_names_its_source() {
        for (path, source) in [
            ("/usr/lib/a/__pycache__/b.cpython-311.pyc", Some("/usr/lib/a/b.py")),
            ("/usr/lib/a/__pycache__/b.cpython-311.opt-1.pyc", Some("/usr/lib/a/b.py")),
            ("/usr/lib/a/b.cpython-311.pyc", None),
            ("/usr/lib/a/__pycache__/b.pyc", None),
            ("b", None),
        ] {
            assert_eq!(source_of(path.as_bytes()).as_deref(), source.map(str::as_bytes), "{path}");
        }
    }
}
