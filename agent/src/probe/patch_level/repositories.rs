//! Which repositories dnf and zypper use.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use muster_proto::fact::{Cause, PackageManager, Unknown};

use super::{held::matches, ini, transport::Transport, vendors::Vendors};
use crate::host::{self, FILE_BYTES, Host};

/// Repositories that are taken, at most.
const REPOSITORIES: usize = 500;
/// A repository without a priority has this one; a lower one goes first (dnf.conf(5), zypper(8)).
pub(super) const PRIORITY: u32 = 99;
pub(super) const DNF_REPOSITORIES: &[&str] =
    &["/etc/yum.repos.d", "/etc/yum/repos.d", "/etc/distro.repos.d", "/usr/share/dnf5/repos.d"];
pub(super) const ZYPPER_REPOSITORIES: &str = "/etc/zypp/repos.d";
pub(super) const DNF_SETTINGS: &str = "/etc/dnf/dnf.conf";
/// What goes before those settings in dnf5: a file of the first folder hides one of its name in the second (dnf5.conf(5)).
pub(super) const DNF_SETTINGS_FOLDERS: [&str; 2] = ["/etc/dnf/libdnf5.conf.d", "/usr/share/dnf5/libdnf.conf.d"];
/// What dnf5 lays over the sections of repositories: a file of the first folder hides one of its name in the second (dnf5.conf(5)).
pub(super) const OVERRIDES: [&str; 2] = ["/etc/dnf/repos.override.d", "/usr/share/dnf5/repos.override.d"];
/// zypper's settings: what stands in a later file holds.
pub(super) const ZYPPER_SETTINGS: [&str; 2] = ["/usr/etc/zypp/zypp.conf", "/etc/zypp/zypp.conf"];
/// More of them, which go after those.
pub(super) const ZYPPER_SETTINGS_FOLDER: &str = "/etc/zypp/zypp.conf.d";
/// Module streams that are enabled.
pub(super) const MODULES: &str = "/etc/dnf/modules.d";

pub(super) const EXCLUDED: &[&str] = &["exclude", "excludepkgs"];
const INCLUDED: &[&str] = &["includepkgs"];

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

/// The repositories of a host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Repositories {
    pub used: Vec<Repository>,
    /// Id of one of the distribution's own that is switched off, with the packages that every host needs.
    pub switched_off: Option<String>,
    pub vendors: Vendors,
}

/// Returns the text of a file; an empty one when it is not there.
pub(super) fn text(host: &dyn Host, path: &Path) -> Result<String, Unknown> {
    match host.read(path, FILE_BYTES) {
        Err(error) if host::cause(&error) == Cause::Absent => Ok(String::new()),
        result => listed_text(path, result),
    }
}

/// Returns the text of a file, which is there.
pub(super) fn listed_text(path: &Path, result: io::Result<Vec<u8>>) -> Result<String, Unknown> {
    let bytes = result.map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
    String::from_utf8(bytes).map_err(|_| Unknown::new(Cause::Garbled, format!("{} is not text", path.display())))
}

/// Returns the repositories.
pub(super) fn repositories(host: &dyn Host, manager: PackageManager) -> Result<Repositories, Unknown> {
    let is_zypper = manager == PackageManager::Zypper;
    let main = if is_zypper { zypper_settings(host)? } else { dnf_settings(host)? };
    if let Some(key) = ["reposdir", "cachedir", "metadatadir", "configdir"].into_iter().find(|key| main.has(key)) {
        let file = if is_zypper { ZYPPER_SETTINGS[1] } else { DNF_SETTINGS };
        return Err(Unknown::new(Cause::Unsupported, format!("{file} sets {key}")));
    }
    let overrides = if is_zypper { Vec::new() } else { overrides(host)? };
    let vendors = if is_zypper { Vendors::read(host, &main)? } else { Vendors::default() };
    let mut found = Repositories { vendors, ..Repositories::default() };
    for folder in if is_zypper { &[ZYPPER_REPOSITORIES] } else { DNF_REPOSITORIES } {
        for name in names(host, folder, ".repo")? {
            let path = Path::new(folder).join(name);
            let text = listed_text(&path, host.read(&path, FILE_BYTES))?;
            for section in ini::sections(&text) {
                found.add(laid_over(section, &overrides), &main, manager);
            }
            if found.used.len() > REPOSITORIES {
                return Err(Unknown::new(Cause::Limit, format!("more than {REPOSITORIES} repositories are enabled")));
            }
        }
    }
    Ok(found)
}

/// Returns the names of the files of a folder that end so; none where it is not there.
pub(super) fn names(host: &dyn Host, folder: &str, end: &str) -> Result<Vec<String>, Unknown> {
    match host.list(Path::new(folder)) {
        Ok(names) => {
            let names = names.iter().filter_map(|name| name.to_str()).filter(|name| name.ends_with(end));
            Ok(names.map(str::to_owned).collect())
        }
        Err(error) if host::cause(&error) == Cause::Absent => Ok(Vec::new()),
        Err(error) => Err(host::unknown(format!("list {folder}"), &error)),
    }
}

/// Returns the settings for all: what stands in a later section of that name holds.
pub(super) fn main(text: &str) -> ini::Section {
    let mut main = ini::Section::default();
    for section in ini::sections(text).iter().filter(|section| section.name == "main") {
        main.lay(section, &lists());
    }
    main
}

/// Returns the keys of which each value holds.
fn lists() -> Vec<&'static str> {
    [EXCLUDED, INCLUDED].concat()
}

/// Returns dnf's settings for all repositories.
pub(super) fn dnf_settings(host: &dyn Host) -> Result<ini::Section, Unknown> {
    let mut settings = ini::Section::default();
    for path in shadowed(host, &DNF_SETTINGS_FOLDERS, ".conf")? {
        settings.lay(&main(&listed_text(&path, host.read(&path, FILE_BYTES))?), &lists());
    }
    settings.lay(&main(&text(host, Path::new(DNF_SETTINGS))?), &lists());
    Ok(settings)
}

/// Returns the files of folders that end so, in the order of their names: one of a folder hides those of its name in the folders
/// behind it.
fn shadowed(host: &dyn Host, folders: &[&str], end: &str) -> Result<Vec<PathBuf>, Unknown> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for folder in folders.iter().rev() {
        files.extend(names(host, folder, end)?.into_iter().map(|name| {
            let path = Path::new(folder).join(&name);
            (name, path)
        }));
    }
    Ok(files.into_values().collect())
}

/// Returns zypper's settings for all repositories.
fn zypper_settings(host: &dyn Host) -> Result<ini::Section, Unknown> {
    let mut settings = ini::Section::default();
    for path in ZYPPER_SETTINGS {
        settings.lay(&main(&text(host, Path::new(path))?), &[]);
    }
    let names: BTreeSet<String> = names(host, ZYPPER_SETTINGS_FOLDER, ".conf")?.into_iter().collect();
    for path in names.iter().map(|name| Path::new(ZYPPER_SETTINGS_FOLDER).join(name)) {
        settings.lay(&main(&listed_text(&path, host.read(&path, FILE_BYTES))?), &[]);
    }
    Ok(settings)
}

/// Returns the sections that dnf5 lays over those of repositories, in order. Their names may be patterns.
fn overrides(host: &dyn Host) -> Result<Vec<ini::Section>, Unknown> {
    let mut found = Vec::new();
    for path in shadowed(host, &OVERRIDES, ".repo")? {
        let text = listed_text(&path, host.read(&path, FILE_BYTES))?;
        found.extend(ini::sections(&text).into_iter().filter(|it| !it.name.is_empty() && it.name != "main"));
        if let Some(section) = found.iter().find(|it| it.name.contains(['$', '[', '{', '\\'])) {
            let what = format!("{}: whose section {} is, is not told", path.display(), section.name);
            return Err(Unknown::new(Cause::Unsupported, what));
        }
        if found.len() > REPOSITORIES {
            return Err(Unknown::new(Cause::Limit, format!("more than {REPOSITORIES} sections override repositories")));
        }
    }
    Ok(found)
}

fn laid_over(mut section: ini::Section, overrides: &[ini::Section]) -> ini::Section {
    for over in overrides {
        if matches(&over.name, &section.name) {
            section.lay(over, &lists());
        }
    }
    section
}

impl Repositories {
    fn add(&mut self, section: ini::Section, main: &ini::Section, manager: PackageManager) {
        match repository(&section, main, manager) {
            Some(repository) => self.used.push(repository),
            None if is_base(&section.name) => self.switched_off = Some(section.name),
            None => {}
        }
    }
}

/// Returns whether a repository of this id is one of the two that Red Hat and its rebuilds have their packages in.
fn is_base(id: &str) -> bool {
    let id = id.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| id.contains(word));
    has(&["baseos", "appstream"]) && !has(&["debug", "source", "src", "beta", "test", "staging"])
}

/// Returns the repository of a section, if it is in use.
fn repository(section: &ini::Section, main: &ini::Section, manager: PackageManager) -> Option<Repository> {
    if section.name.is_empty() || section.name == "main" || section.switch("enabled") == Some(false) {
        return None;
    }
    let is_signed = match manager {
        PackageManager::Zypper => {
            // zypp.conf: what is set of the metadata goes before what is set of all. What is no switch is none that is on.
            let set = |of: &ini::Section, key| {
                of.value(key).filter(|it| !it.is_empty()).map(|_| of.switch(key) == Some(true))
            };
            let set = |key| set(section, key).or_else(|| set(main, key));
            set("repo_gpgcheck").or_else(|| set("gpgcheck")).unwrap_or(true)
        }
        _ => section.switch("repo_gpgcheck").or_else(|| main.switch("repo_gpgcheck")).unwrap_or(false),
    };
    let patterns = |keys: &[&str]| section.words(keys).into_iter().map(str::to_owned).collect();
    let included: Vec<String> = patterns(INCLUDED);
    // dnf takes what either names.
    let included = included.into_iter().chain(main.words(INCLUDED).into_iter().map(str::to_owned)).collect();
    Some(Repository {
        id: section.name.clone(),
        priority: section.value("priority").and_then(|priority| priority.parse().ok()).unwrap_or(PRIORITY),
        is_signed,
        transport: Transport::of(section, main),
        excluded: patterns(EXCLUDED),
        included,
    })
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

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::{held, vendors},
        *,
    };
    use crate::host::{Recorded, recorded::Failure};
    use muster_proto::fact::PathText;

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
        let main = ini::sections("[main]\nincludepkgs=z\n").pop().unwrap();
        let section = ini::sections("[a]\nincludepkgs=k*, y\n").pop().unwrap();
        assert_eq!(repository(&section, &main, PackageManager::Dnf).unwrap().included, ["k*", "y", "z"]);
    }

    /// Returns a machine of dnf or zypper with these files in place of its repositories and settings.
    pub fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Recorded) {
        let (case, mut lists) = (tempfile::tempdir().unwrap(), BTreeMap::<&str, Vec<PathText>>::new());
        let text = |text: &str| PathText::from_bytes(text.as_bytes());
        for (path, content) in files {
            let file = case.path().join("files").join(path.trim_start_matches('/'));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
            let (folder, name) = path.rsplit_once('/').unwrap();
            lists.entry(folder).or_default().push(text(name));
        }
        let of = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/rpm-dnf/index.json");
        std::fs::copy(of, case.path().join("index.json")).unwrap();
        let mut host = Recorded::at(case.path()).unwrap();
        let index = host.index_mut();
        let absent = || Failure::of(&io::ErrorKind::NotFound.into());
        let folders = DNF_REPOSITORIES.iter().chain(&OVERRIDES).chain(&DNF_SETTINGS_FOLDERS);
        let folders = folders.chain([&ZYPPER_REPOSITORIES, &ZYPPER_SETTINGS_FOLDER, &vendors::FOLDER]);
        for folder in folders {
            index.lists.remove(&text(folder));
            index.errors.insert(format!("list {folder}"), absent());
            if let Some(names) = lists.get(folder) {
                index.errors.remove(&format!("list {folder}"));
                index.lists.insert(text(folder), names.clone());
            }
        }
        let locks = [held::VERSION_LOCK_SETTINGS, held::ZYPPER_LOCKS];
        for path in [DNF_SETTINGS].iter().chain(&ZYPPER_SETTINGS).chain(&held::VERSION_LOCKS).chain(&locks) {
            let key = format!("read {path}");
            match files.iter().any(|(own, _)| own == path) {
                true => index.errors.remove(&key),
                false => index.errors.insert(key, absent()),
            };
        }
        (case, host)
    }

    const ID: &str = "/etc/yum.repos.d/a.repo";

    #[test]
    fn what_overrides_a_repository_is_laid_over_it_by_the_names_of_files() {
        let usual = (ID, "[a]\nmetalink=https://m/metalink\nexclude=x\n[b]\nbaseurl=https://b/\nenabled=0\n");
        let (etc, lib) = ("/etc/dnf/repos.override.d/9.repo", "/usr/share/dnf5/repos.override.d/9.repo");
        let open = "[a]\nmetalink=\nbaseurl=http://m/\nexclude=y\n";
        let (trusted, x) = (Transport::Trusted, vec!["x"]);
        for (files, expected) in [
            (vec![], vec![("a", trusted, x.clone())]),
            (vec![(etc, open)], vec![("a", Transport::Open, vec!["x", "y"])]),
            (vec![(lib, open)], vec![("a", Transport::Open, vec!["x", "y"])]),
            // Of one name, that of the host holds; of several names, the last.
            (vec![(lib, open), (etc, "[a]\npriority=1\n")], vec![("a", trusted, x.clone())]),
            (
                vec![("/usr/share/dnf5/repos.override.d/8.repo", open), (etc, "[*]\nbaseurl=https://m/\n")],
                vec![("a", trusted, vec!["x", "y"])],
            ),
            (vec![(etc, "[a]\nenabled=0\n")], vec![]),
            (vec![(etc, "[?]\nenabled=1\n")], vec![("a", trusted, x.clone()), ("b", trusted, vec![])]),
            (vec![(etc, "[other]\nenabled=0\n")], vec![("a", trusted, x.clone())]),
        ] {
            let (_case, host) = machine(&[&[usual][..], &files].concat());
            let found = repositories(&host, PackageManager::Dnf).unwrap().used;
            let found: Vec<_> = found
                .iter()
                .map(|it| (it.id.as_str(), it.transport, it.excluded.iter().map(String::as_str).collect::<Vec<_>>()))
                .collect();
            assert_eq!(found, expected, "{files:?}");
        }
        let cause = |host: &Recorded| repositories(host, PackageManager::Dnf).unwrap_err().cause;
        assert_eq!(cause(&machine(&[usual, (etc, "[a-$releasever]\nenabled=0\n")]).1), Cause::Unsupported);
        let many: String = (0..=REPOSITORIES).map(|at| format!("[{at}]\n")).collect();
        assert_eq!(cause(&machine(&[usual, (etc, &many)]).1), Cause::Limit);
        let (_case, mut host) = machine(&[usual]);
        let forbidden = Failure::of(&io::Error::from_raw_os_error(13));
        host.index_mut().errors.insert(format!("list {}", OVERRIDES[0]), forbidden);
        assert_eq!(cause(&host), Cause::Forbidden);
    }

    #[test]
    fn zypper_asks_for_signatures_as_its_settings_and_those_of_the_repository_say() {
        let (usr, etc, more) = (ZYPPER_SETTINGS[0], ZYPPER_SETTINGS[1], "/etc/zypp/zypp.conf.d/x.conf");
        for (section, files, expected) in [
            ("", vec![], true),
            ("", vec![(etc, "[main]\n# gpgcheck = off\n")], true),
            ("", vec![(etc, "[main]\ngpgcheck = off\n")], false),
            ("", vec![(usr, "[main]\ngpgcheck = off\n")], false),
            ("", vec![(usr, "[main]\ngpgcheck = off\n"), (etc, "[main]\ngpgcheck = on\n")], true),
            ("", vec![(etc, "[main]\ngpgcheck = on\n"), (more, "[main]\ngpgcheck = off\n")], false),
            ("", vec![(etc, "[main]\ngpgcheck = never\n")], false),
            ("", vec![(etc, "[main]\ngpgcheck = on\nrepo_gpgcheck = off\n")], false),
            ("gpgcheck=1\n", vec![(etc, "[main]\ngpgcheck = off\n")], true),
            ("gpgcheck=1\n", vec![(etc, "[main]\nrepo_gpgcheck = off\n")], false),
            ("gpgcheck=0\n", vec![], false),
            ("gpgcheck=0\n", vec![(etc, "[main]\nrepo_gpgcheck = on\n")], true),
            ("repo_gpgcheck=0\n", vec![(etc, "[main]\nrepo_gpgcheck = on\n")], false),
        ] {
            let repo = format!("[a]\nbaseurl=https://a/\n{section}");
            let (_case, host) = machine(&[&[("/etc/zypp/repos.d/a.repo", repo.as_str())][..], &files].concat());
            let found = repositories(&host, PackageManager::Zypper).unwrap().used;
            assert_eq!(found[0].is_signed, expected, "{section} {files:?}");
        }
        let (_case, mut host) = machine(&[]);
        let forbidden = Failure::of(&io::Error::from_raw_os_error(13));
        host.index_mut().errors.insert(format!("read {etc}"), forbidden);
        assert_eq!(repositories(&host, PackageManager::Zypper).unwrap_err().cause, Cause::Forbidden);
    }

    #[test]
    fn a_repository_with_the_packages_of_the_distribution_is_seen_to_be_switched_off() {
        for (text, expected) in [
            ("[baseos]\n[appstream]\n", None),
            ("[baseos]\n[appstream]\nenabled=0\n", Some("appstream")),
            ("[rhel-9-for-x86_64-appstream-rpms]\nenabled=0\n", Some("rhel-9-for-x86_64-appstream-rpms")),
            ("[crb]\nenabled=0\n[appstream-debuginfo]\nenabled=0\n[baseos-source]\nenabled=0\n", None),
        ] {
            let (_case, host) = machine(&[(ID, text)]);
            let found = repositories(&host, PackageManager::Dnf).unwrap().switched_off;
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
    #[test]
    fn settings_of_all_sections_and_folders_hold() {
        let repo = (ID, "[a]\nbaseurl=https://a/\n");
        let extra = ("/etc/yum/repos.d/x.repo", "[x]\nbaseurl=https://x/\n");
        let (etc, lib) = (format!("{}/5.conf", DNF_SETTINGS_FOLDERS[0]), format!("{}/5.conf", DNF_SETTINGS_FOLDERS[1]));
        let off = "[main]\nsslverify=0\n";
        let (trusted, open) = (Transport::Trusted, Transport::Open);
        for (files, expected) in [
            (vec![], vec![("a", trusted)]),
            (vec![extra], vec![("a", trusted), ("x", trusted)]),
            (vec![(DNF_SETTINGS, off)], vec![("a", open)]),
            (vec![(DNF_SETTINGS, "[main]\ngpgcheck=1\n[main]\nsslverify=0\n")], vec![("a", open)]),
            (vec![(&*etc, off)], vec![("a", open)]),
            (vec![(&*lib, off)], vec![("a", open)]),
            (vec![(&*lib, off), (&*etc, "[main]\n")], vec![("a", trusted)]),
            // The settings themselves go last.
            (vec![(&*etc, off), (DNF_SETTINGS, "[main]\nsslverify=1\n")], vec![("a", trusted)]),
        ] {
            let (_case, host) = machine(&[&[repo][..], &files].concat());
            let found = repositories(&host, PackageManager::Dnf).unwrap().used;
            let found: Vec<_> = found.iter().map(|it| (it.id.as_str(), it.transport)).collect();
            assert_eq!(found, expected, "{files:?}");
        }
        let (_case, mut host) = machine(&[repo]);
        let forbidden = Failure::of(&io::Error::from_raw_os_error(13));
        host.index_mut().errors.insert(format!("list {}", DNF_SETTINGS_FOLDERS[0]), forbidden);
        assert_eq!(repositories(&host, PackageManager::Dnf).unwrap_err().cause, Cause::Forbidden);
    }
}
