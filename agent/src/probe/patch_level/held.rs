//! Which packages of the rpm world stay as they are: by patterns of dnf's settings, and by locks of dnf and of zypper.

use std::path::Path;

use muster_proto::fact::{Cause, PackageManager, Unknown};

use super::{
    repositories::{EXCLUDED, Repository, dnf_settings, main, text},
    rpm_version::Evr,
};
use crate::host::Host;

/// Versions that are kept as they are (dnf's plug-in versionlock).
pub(super) const VERSION_LOCKS: [&str; 2] = ["/etc/dnf/plugins/versionlock.list", "/etc/dnf/versionlock.toml"];
/// Whether dnf's plug-in with the first of them runs.
pub(super) const VERSION_LOCK_SETTINGS: &str = "/etc/dnf/plugins/versionlock.conf";
/// Packages that zypper keeps as they are (zypper(8), `addlock`).
pub(super) const ZYPPER_LOCKS: &str = "/etc/zypp/locks";

/// What keeps packages as they are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Held {
    /// Patterns of packages and their versions.
    excluded: Vec<String>,
    /// Patterns of names.
    locked: Vec<String>,
    /// Why not all of it is told.
    pub untold: Option<Unknown>,
}

/// A version of a package.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version<'p> {
    pub name: &'p str,
    pub architecture: &'p str,
    pub evr: &'p Evr,
}

impl Held {
    /// Returns whether a package stays as it is, rather than becoming this version.
    pub fn has(&self, version: Version<'_>) -> bool {
        self.locked.iter().any(|pattern| matches(pattern, version.name)) || version.is_of(&self.excluded)
    }
}

impl Version<'_> {
    /// Returns whether a pattern of dnf's settings is of it: of its name, and what may stand behind that (dnf(8), "specifying packages").
    fn is_of(self, patterns: &[String]) -> bool {
        let Self { name, architecture, evr } = self;
        let epochs = [String::new(), format!("{}:", evr.epoch)];
        let versions = epochs.iter().flat_map(|epoch| {
            let version = format!("{name}-{epoch}{}", evr.version);
            let full = format!("{version}-{}", evr.release);
            [format!("{full}.{architecture}"), version, full]
        });
        let forms: Vec<String> = versions.chain([name.to_owned(), format!("{name}.{architecture}")]).collect();
        patterns.iter().any(|pattern| forms.iter().any(|form| matches(pattern, form)))
    }
}

/// Returns whether a repository's settings leave a version of a package out of it (dnf.conf(5), `excludepkgs`).
pub(super) fn is_left_out(repository: &Repository, version: Version<'_>) -> bool {
    let Repository { excluded, included, .. } = repository;
    version.is_of(excluded) || !included.is_empty() && !version.is_of(included)
}

/// Returns why the patterns of a repository are not told, if so.
pub(super) fn untold(repository: &Repository) -> Option<Unknown> {
    let patterns = repository.excluded.iter().chain(&repository.included);
    variable(patterns, &format!("repository {}", repository.id))
}

/// Returns the pattern with a variable, whose value is not told here.
fn variable<'p>(mut patterns: impl Iterator<Item = &'p String>, of: &str) -> Option<Unknown> {
    let pattern = patterns.find(|pattern| pattern.contains('$'))?;
    Some(Unknown::new(Cause::Unsupported, format!("{of} leaves out packages by a variable: {pattern}")))
}

/// Returns what keeps packages as they are.
pub(super) fn held(host: &dyn Host, manager: PackageManager) -> Result<Held, Unknown> {
    let read = |path: &str| text(host, Path::new(path));
    if manager == PackageManager::Zypper {
        return Ok(zypper_locks(&read(ZYPPER_LOCKS)?));
    }
    let excluded: Vec<String> = dnf_settings(host)?.words(EXCLUDED).into_iter().map(str::to_owned).collect();
    let [list, newer] = VERSION_LOCKS;
    let mut locked = version_locks(&read(list)?);
    // Without its plug-in nothing reads the list.
    if !locked.is_empty() && main(&read(VERSION_LOCK_SETTINGS)?).switch("enabled") == Some(false) {
        locked.clear();
    }
    locked.extend(version_locks(&read(newer)?));
    let untold = variable(excluded.iter(), "dnf");
    Ok(Held { excluded, locked, untold })
}

/// Returns the names in version locks: `name-epoch:version-release.architecture` lines, or `name = "..."` of the newer format.
fn version_locks(text: &str) -> Vec<String> {
    let name = |line: &str| -> Option<String> {
        let line = line.trim().trim_start_matches('!');
        if line.is_empty() || line.starts_with(['#', '[']) {
            return None;
        }
        if let Some((key, value)) = line.split_once('=') {
            return (key.trim() == "name").then(|| value.trim().trim_matches('"').to_owned());
        }
        let mut parts = line.rsplitn(3, '-');
        let (last, _, name) = (parts.next()?, parts.next(), parts.next());
        Some(name.unwrap_or(last).to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// Returns what zypper's locks hold: stanzas of `key: value`. Those of packages by patterns of their whole names are told.
fn zypper_locks(text: &str) -> Held {
    let mut held = Held::default();
    let mut stanza: Vec<(&str, &str)> = Vec::new();
    for line in text.lines().chain([""]).map(str::trim) {
        if line.starts_with('#') {
            continue;
        }
        if !line.is_empty() {
            stanza.push(line.split_once(':').map_or((line, ""), |(key, value)| (key.trim(), value.trim())));
            continue;
        }
        let fields = std::mem::take(&mut stanza);
        // What these hold is no package.
        let is_other =
            |field: &(&str, &str)| matches!(field, ("type", "pattern" | "product" | "srcpackage" | "application"));
        if fields.is_empty() || fields.iter().any(is_other) {
            continue;
        }
        match zypper_lock(&fields) {
            Ok(names) => held.locked.extend(names.into_iter().map(str::to_owned)),
            Err(what) => {
                let what = format!("{ZYPPER_LOCKS} has a lock that is not read here: {what}");
                held.untold = Some(Unknown::new(Cause::Unsupported, what));
            }
        }
    }
    held
}

/// Returns the patterns of names of a lock, or what of it is not told.
fn zypper_lock<'t>(fields: &[(&'t str, &'t str)]) -> Result<Vec<&'t str>, String> {
    let is_glob = fields.contains(&("match_type", "glob"));
    let (mut names, mut known) = (Vec::new(), 0);
    for (key, value) in fields {
        match (*key, *value) {
            ("type", "package") | ("match_type", "glob" | "exact") | ("case_sensitive", "on") => known += 1,
            ("solvable_name", name) if is_glob || !name.contains(['*', '?', '[', '\\']) => names.push(name),
            _ => return Err(format!("{key}: {value}")),
        }
    }
    // What is not set may be of all kinds, of a part of a name, or of any case.
    if known < 3 || names.is_empty() { Err("not all of it is set".to_owned()) } else { Ok(names) }
}

/// A part of a pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Some,
    Any,
    Set { is_not: bool, ranges: Vec<(char, char)> },
    One(char),
}

impl Part {
    fn has(&self, c: char) -> bool {
        match self {
            Self::Some | Self::Any => true,
            Self::Set { is_not, ranges } => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *is_not,
            Self::One(own) => *own == c,
        }
    }
}

/// Returns whether a pattern is of a name (fnmatch(3)).
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (parts(pattern), name.chars().collect::<Vec<_>>());
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < name.len() {
        match pattern.get(at) {
            Some(Part::Some) => {
                star = Some((at, of));
                at += 1;
            }
            Some(part) if part.has(name[of]) => (at, of) = (at + 1, of + 1),
            _ => match star {
                Some((star_at, star_of)) => {
                    star = Some((star_at, star_of + 1));
                    (at, of) = (star_at + 1, star_of + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|part| *part == Part::Some)
}

fn parts(pattern: &str) -> Vec<Part> {
    let pattern: Vec<char> = pattern.chars().collect();
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(c) = pattern.get(at) {
        at += 1;
        parts.push(match c {
            '*' => Part::Some,
            '?' => Part::Any,
            '\\' if at < pattern.len() => {
                at += 1;
                Part::One(pattern[at - 1])
            }
            '[' => match set(&pattern[at..]) {
                Some((part, length)) => {
                    at += length;
                    part
                }
                None => Part::One('['),
            },
            c => Part::One(*c),
        });
    }
    parts
}

/// Returns the set that a pattern begins with behind its bracket, and how many characters that takes. A set of a named class is taken
/// for any character.
fn set(pattern: &[char]) -> Option<(Part, usize)> {
    let is_not = matches!(pattern.first(), Some('!' | '^'));
    let start = usize::from(is_not);
    if pattern.get(start) == Some(&'[') && pattern.get(start + 1) == Some(&':') {
        let end = pattern.windows(2).position(|two| two == [']', ']'])?;
        return Some((Part::Any, end + 2));
    }
    // A bracket that stands first is of the set.
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let (mut ranges, mut at) = (Vec::new(), start);
    while at < end {
        let is_range = at + 2 < end && pattern[at + 1] == '-';
        let last = if is_range { at + 2 } else { at };
        ranges.push((pattern[at], pattern[last]));
        at = last + 1;
    }
    Some((Part::Set { is_not, ranges }, end + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probe::patch_level::{
        repositories::{DNF_SETTINGS, DNF_SETTINGS_FOLDERS, PRIORITY, tests::machine},
        transport::Transport,
    };

    /// Returns whether a pattern is of `openssl-libs-3-2.noarch`.
    fn is_of(pattern: &str) -> bool {
        let evr = Evr::parse("3-2").unwrap();
        Version { name: "openssl-libs", architecture: "noarch", evr: &evr }.is_of(&[pattern.to_owned()])
    }

    #[test]
    fn a_pattern_is_of_a_name_and_what_may_stand_behind_it() {
        for (pattern, expected) in [
            ("openssl-libs", true),
            ("openssl-libs.noarch", true),
            ("openssl-libs.x86_64", false),
            ("openssl-libs-3", true),
            ("openssl-libs-3*", true),
            ("openssl-libs-3-2", true),
            ("openssl-libs-3-2*", true),
            ("openssl-libs-0:3-2.noarch", true),
            ("openssl-libs-1:3-2.noarch", false),
            ("openssl-libs-3-1", false),
            ("openssl-libs-4*", false),
            ("[!x]*", true),
            ("[o]*", true),
            ("[!o]*", false),
            ("openssl", false),
        ] {
            assert_eq!(is_of(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn a_repository_leaves_out_what_its_settings_exclude_or_do_not_include() {
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let repository = Repository {
            id: "a".to_owned(),
            priority: PRIORITY,
            is_signed: false,
            transport: Transport::Trusted,
            excluded: list(&["kernel*", "x", "y-2*"]),
            included: list(&["k*", "y", "z.noarch"]),
        };
        let (first, second) = (Evr::parse("1-1").unwrap(), Evr::parse("2-1").unwrap());
        for (name, architecture, evr, expected) in [
            ("kernel-core", "noarch", &first, true),
            ("x", "noarch", &first, true),
            ("y", "noarch", &first, false),
            ("y", "noarch", &second, true),
            ("kmod", "noarch", &first, false),
            ("z", "noarch", &first, false),
            ("z", "x86_64", &first, true),
            ("w", "noarch", &first, true),
        ] {
            assert_eq!(
                is_left_out(&repository, Version { name, architecture, evr }),
                expected,
                "{name} {architecture}"
            );
        }
        assert_eq!(untold(&repository), None);
        let with_variable = Repository { excluded: list(&["x-$releasever*"]), ..repository };
        assert_eq!(untold(&with_variable).unwrap().cause, Cause::Unsupported);
    }

    #[test]
    fn settings_and_locks_of_dnf_hold_packages() {
        let list = (VERSION_LOCKS[0], "bash-0:5-1.*\n");
        let main = (DNF_SETTINGS, "[main]\nexcludepkgs=a-2*\n[main]\nexclude=b\n");
        let drop_in = format!("{}/60-holds.conf", DNF_SETTINGS_FOLDERS[0]);
        let evr = Evr::parse("2-1").unwrap();
        for (files, expected) in [
            (vec![list], vec!["bash"]),
            (vec![list, (VERSION_LOCK_SETTINGS, "[main]\nenabled = 1\n")], vec!["bash"]),
            (vec![list, (VERSION_LOCK_SETTINGS, "[main]\nenabled = 0\n")], vec![]),
            (vec![main], vec!["a", "b"]),
            (vec![(&*drop_in, "[main]\nexcludepkgs=c\n"), main], vec!["a", "b", "c"]),
        ] {
            let (_case, host) = machine(&files);
            let held = held(&host, PackageManager::Dnf).unwrap();
            let mut names = vec!["a", "aa", "b", "bash", "c"];
            names.retain(|name| held.has(Version { name, architecture: "noarch", evr: &evr }));
            assert_eq!(names, expected, "{files:?}");
            assert_eq!(held.untold, None);
        }
        let (_case, host) = machine(&[(DNF_SETTINGS, "[main]\nexclude=a-$releasever\n")]);
        assert_eq!(held(&host, PackageManager::Dnf).unwrap().untold.unwrap().cause, Cause::Unsupported);
    }

    #[test]
    fn locked_packages_are_named() {
        let list = "# c\nbash-0:5.1.8-6.el9.*\n!vim-enhanced-2:8.2-1.*\n";
        assert_eq!(version_locks(list), ["bash", "vim-enhanced"]);
        let toml = "version = \"1.0\"\n[[packages]]\nname = \"bash\"\n[[packages.conditions]]\nkey = \"evr\"\n";
        assert_eq!(version_locks(toml), ["bash"]);
    }

    #[test]
    fn locks_of_zypper_are_told_where_they_are_of_whole_names() {
        const PLAIN: &str = "type: package\nmatch_type: glob\ncase_sensitive: on\n";
        for (text, names, is_told) in [
            (String::new(), vec![], true),
            (
                format!("\n{PLAIN}solvable_name: kernel-*\n\n{PLAIN}solvable_name: bash\n"),
                vec!["kernel-*", "bash"],
                true,
            ),
            ("type: package\nmatch_type: exact\ncase_sensitive: on\nsolvable_name: a\n".to_owned(), vec!["a"], true),
            ("type: package\nmatch_type: exact\ncase_sensitive: on\nsolvable_name: a*\n".to_owned(), vec![], false),
            ("type: pattern\nmatch_type: regex\nsolvable_name: x\n".to_owned(), vec![], true),
            ("type: patch\nmatch_type: glob\ncase_sensitive: on\nsolvable_name: A:1\n".to_owned(), vec![], false),
            (format!("{PLAIN}solvable_name: a\nversion: < 2\n"), vec![], false),
            (format!("{PLAIN}solvable_name: a\nrepo: r\n"), vec![], false),
            (format!("{PLAIN}query_string: a\n"), vec![], false),
            (PLAIN.to_owned(), vec![], false),
            ("type: package\nmatch_type: glob\nsolvable_name: a\n".to_owned(), vec![], false),
            ("type: package\nmatch_type: glob\ncase_sensitive: off\nsolvable_name: A\n".to_owned(), vec![], false),
            ("type: package\nmatch_type: regex\ncase_sensitive: on\nsolvable_name: a.*\n".to_owned(), vec![], false),
            ("type: package\nmatch_type: substring\ncase_sensitive: on\nsolvable_name: a\n".to_owned(), vec![], false),
            ("complex: AttrMatchData solvable:name a C GLOB\n".to_owned(), vec![], false),
            (format!("complex: x\n\n{PLAIN}solvable_name: b\n"), vec!["b"], false),
        ] {
            let held = zypper_locks(&text);
            assert_eq!(held.locked, names, "{text}");
            assert_eq!(held.untold.is_none(), is_told, "{text}");
        }
    }

    #[test]
    fn patterns_match_as_those_of_a_shell() {
        for (pattern, name, expected) in [
            ("kernel*", "kernel-core", true),
            ("*", "", true),
            ("k?rnel", "kernel", true),
            ("*-core", "kernel-core-core", true),
            ("kernel", "kernel-core", false),
            ("*x*y", "axbyc", false),
            ("openssl-[l]ibs", "openssl-libs", true),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]x", "dx", true),
            ("[^d]x", "dx", false),
            ("[]a]", "]", true),
            ("[a-]", "-", true),
            ("[[:alpha:]]x", "ax", true),
            ("[x", "[x", true),
            ("[x", "x", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "([a-z*?:=!#\n \\[\\]^-]|\\PC)*", name in "[a-z]{0,5}") {
            let _ = (matches(&text, &name), version_locks(&text), zypper_locks(&text));
        }
    }
}
