//! Which repositories dnf and zypper use, and which packages their settings keep as they are.

use std::{collections::BTreeSet, io, path::Path};

use muster_proto::fact::{Cause, PackageManager, Unknown};

use super::{ini, transport::Transport};
use crate::host::{self, FILE_BYTES, Host};

/// Repositories that are taken, at most.
const REPOSITORIES: usize = 500;
/// A repository without a priority has this one; a lower one goes first (dnf.conf(5), zypper(8)).
pub(super) const PRIORITY: u32 = 99;
pub(super) const DNF_REPOSITORIES: &[&str] = &["/etc/yum.repos.d", "/etc/distro.repos.d", "/usr/share/dnf5/repos.d"];
pub(super) const ZYPPER_REPOSITORIES: &str = "/etc/zypp/repos.d";
pub(super) const DNF_SETTINGS: &str = "/etc/dnf/dnf.conf";
/// Versions that are kept as they are (dnf's plug-in versionlock).
const VERSION_LOCKS: &[&str] = &["/etc/dnf/plugins/versionlock.list", "/etc/dnf/versionlock.toml"];
/// Packages that zypper keeps as they are (zypper(8), `addlock`).
pub(super) const ZYPPER_LOCKS: &str = "/etc/zypp/locks";
/// Module streams that are enabled.
pub(super) const MODULES: &str = "/etc/dnf/modules.d";

/// A repository that is in use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Repository {
    pub id: String,
    pub priority: u32,
    /// Whether its metadata are to be signed.
    pub is_signed: bool,
    /// How they come.
    pub transport: Transport,
    /// Patterns of packages that are not taken from it.
    pub excluded: Vec<String>,
    /// Patterns of the only packages that are; none for all.
    pub included: Vec<String>,
}

/// Returns the text of a file; an empty one when it is not there.
pub(super) fn text(host: &dyn Host, path: &Path) -> Result<String, Unknown> {
    match host.read(path, FILE_BYTES) {
        Err(error) if host::cause(&error) == Cause::Absent => Ok(String::new()),
        result => listed_text(path, result),
    }
}

/// Returns the text of a file, which is there.
fn listed_text(path: &Path, result: io::Result<Vec<u8>>) -> Result<String, Unknown> {
    let bytes = result.map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
    String::from_utf8(bytes).map_err(|_| Unknown::new(Cause::Garbled, format!("{} is not text", path.display())))
}

/// Returns the repositories in use.
pub(super) fn repositories(host: &dyn Host, manager: PackageManager) -> Result<Vec<Repository>, Unknown> {
    let main = text(host, Path::new(DNF_SETTINGS))?;
    let main = ini::sections(&main).into_iter().find(|section| section.name == "main").unwrap_or_default();
    let folders = if manager == PackageManager::Zypper { &[ZYPPER_REPOSITORIES] } else { DNF_REPOSITORIES };
    if manager == PackageManager::Dnf
        && let Some(key) = ["reposdir", "cachedir"].into_iter().find(|key| main.has(key))
    {
        return Err(Unknown::new(Cause::Unsupported, format!("{DNF_SETTINGS} sets {key}")));
    }
    let mut found = Vec::new();
    for folder in folders {
        let names = match host.list(Path::new(folder)) {
            Ok(names) => names,
            Err(error) if host::cause(&error) == Cause::Absent => continue,
            Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
        };
        for name in names.iter().filter_map(|name| name.to_str()).filter(|name| name.ends_with(".repo")) {
            let path = Path::new(folder).join(name);
            let text = listed_text(&path, host.read(&path, FILE_BYTES))?;
            found.extend(ini::sections(&text).iter().filter_map(|section| repository(section, &main, manager)));
            if found.len() > REPOSITORIES {
                return Err(Unknown::new(Cause::Limit, format!("more than {REPOSITORIES} repositories are enabled")));
            }
        }
    }
    Ok(found)
}

/// Returns the repository of a section, if it is in use.
fn repository(section: &ini::Section, main: &ini::Section, manager: PackageManager) -> Option<Repository> {
    if section.name.is_empty() || section.name == "main" || section.switch("enabled") == Some(false) {
        return None;
    }
    let is_signed = match manager {
        PackageManager::Zypper => {
            section.switch("repo_gpgcheck").or_else(|| section.switch("gpgcheck")).unwrap_or(true)
        }
        _ => section.switch("repo_gpgcheck").or_else(|| main.switch("repo_gpgcheck")).unwrap_or(false),
    };
    let patterns = |keys: &[&str]| section.words(keys).into_iter().map(str::to_owned).collect();
    Some(Repository {
        id: section.name.clone(),
        priority: section.value("priority").and_then(|priority| priority.parse().ok()).unwrap_or(PRIORITY),
        is_signed,
        transport: Transport::of(section, main),
        excluded: patterns(&["exclude", "excludepkgs"]),
        included: patterns(&["includepkgs"]),
    })
}

/// Returns patterns of the names of packages that stay as they are.
pub(super) fn held(host: &dyn Host, manager: PackageManager) -> Result<Vec<String>, Unknown> {
    let read = |path: &str| text(host, Path::new(path));
    if manager == PackageManager::Zypper {
        return Ok(zypper_locks(&read(ZYPPER_LOCKS)?));
    }
    let main = ini::sections(&read(DNF_SETTINGS)?);
    let main = main.iter().filter(|section| section.name == "main");
    let mut held: Vec<String> =
        main.flat_map(|section| section.words(&["exclude", "excludepkgs"])).map(str::to_owned).collect();
    for path in VERSION_LOCKS {
        held.extend(version_locks(&read(path)?));
    }
    Ok(held)
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

/// Returns the names in zypper's locks: stanzas of `solvable_name: pattern`.
fn zypper_locks(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names.filter(|(key, _)| key.trim() == "solvable_name").map(|(_, name)| name.trim().to_owned()).collect()
}

/// Returns the enabled module streams, as `name:stream`.
pub(super) fn module_streams(host: &dyn Host) -> Result<BTreeSet<String>, Unknown> {
    let names = match host.list(Path::new(MODULES)) {
        Ok(names) => names,
        Err(error) if host::cause(&error) == Cause::Absent => Vec::new(),
        Err(error) => return Err(host::unknown(format!("list {MODULES}"), &error)),
    };
    let mut streams = BTreeSet::new();
    for name in names {
        let path = Path::new(MODULES).join(name);
        let text = listed_text(&path, host.read(&path, FILE_BYTES))?;
        let sections = ini::sections(&text).into_iter().filter(|section| section.value("state") == Some("enabled"));
        streams.extend(sections.map(|it| format!("{}:{}", it.name, it.value("stream").unwrap_or_default())));
    }
    Ok(streams)
}

/// Returns whether a pattern with `*` and `?` is of a name.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[of] => (at, of) = (at + 1, of + 1),
            _ => match star {
                Some((star_at, star_of)) => {
                    star = Some((star_at, star_of + 1));
                    (at, of) = (star_at + 1, star_of + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// Returns whether a repository's settings leave a package out of it. Their patterns are of `name` or of `name.architecture`
/// (dnf.conf(5), `excludepkgs`).
pub(super) fn is_left_out(repository: &Repository, name: &str, architecture: &str) -> bool {
    let full = format!("{name}.{architecture}");
    let is_of = |patterns: &[String]| patterns.iter().any(|it| matches(it, name) || matches(it, &full));
    is_of(&repository.excluded) || !repository.included.is_empty() && !is_of(&repository.included)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn repository_of(text: &str, manager: PackageManager) -> Option<Repository> {
        repository(ini::sections(text).last().unwrap(), &ini::Section::default(), manager)
    }

    #[test]
    fn a_repository_is_in_use_unless_it_is_switched_off() {
        for (text, manager, expected) in [
            ("[a]\nenabled=1\n", PackageManager::Dnf, Some((false, 99))),
            ("[a]\n", PackageManager::Dnf, Some((false, 99))),
            ("[a]\nenabled=0\n", PackageManager::Dnf, None),
            ("[main]\n", PackageManager::Dnf, None),
            ("[a]\ngpgcheck=1\nrepo_gpgcheck=1\npriority=10\n", PackageManager::Dnf, Some((true, 10))),
            ("[a]\n", PackageManager::Zypper, Some((true, 99))),
            ("[a]\ngpgcheck=0\n", PackageManager::Zypper, Some((false, 99))),
        ] {
            let found = repository_of(text, manager).map(|repository| (repository.is_signed, repository.priority));
            assert_eq!(found, expected, "{text}");
        }
        let text = "[a]\nexcludepkgs=kernel*, x\nincludepkgs=k* y z.noarch\n";
        let left_out = repository_of(text, PackageManager::Dnf).unwrap();
        let is_out = ["kernel-core", "x", "y", "kmod", "z", "w"].map(|name| is_left_out(&left_out, name, "noarch"));
        assert_eq!(is_out, [true, true, false, false, false, true]);
        assert!(is_left_out(&left_out, "z", "x86_64"));
    }

    #[test]
    fn locked_packages_are_named() {
        let list = "# c\nbash-0:5.1.8-6.el9.*\n!vim-enhanced-2:8.2-1.*\n";
        assert_eq!(version_locks(list), ["bash", "vim-enhanced"]);
        let toml = "version = \"1.0\"\n[[packages]]\nname = \"bash\"\n[[packages.conditions]]\nkey = \"evr\"\n";
        assert_eq!(version_locks(toml), ["bash"]);
        assert_eq!(zypper_locks("\ntype: package\nmatch_type: glob\nsolvable_name: kernel-*\n"), ["kernel-*"]);
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
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "([a-z*?:=!#\n -]|\\PC)*", name in "[a-z]{0,5}") {
            let _ = (matches(&text, &name), version_locks(&text), zypper_locks(&text));
        }
    }
}
