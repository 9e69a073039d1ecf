//! Hosts of pacman: its folder of what is installed, and the databases of repositories as it fetched them.
//!
//! A repository of pacman's does not tell which updates are about security, and so nothing here does.

use std::{cmp::Ordering, collections::BTreeMap, io, path::Path};

use muster_proto::{
    fact::{
        AutomaticUpdates, Cause, Package, PackageManager, PatchLevel, PendingUpdate, Reading, Software, Text, Unknown,
        UpdateSource,
    },
    time::Timestamp,
};

use super::{
    Dated, Found,
    held::matches,
    ini,
    offered::Sight,
    packing::{Packing, unpack},
    restart::{self, Restart, Running},
    tar::Archive,
};
use crate::{
    host::{self, FILE_BYTES, Host},
    probe::Look,
};

const LOCAL: &str = "/var/lib/pacman/local";
const SYNC: &str = "/var/lib/pacman/sync";
const SETTINGS: &str = "/etc/pacman.conf";
/// Packages that are taken, at most.
const PACKAGES: usize = 60_000;
/// Kernels' packages, each with the end that it gives a kernel's release.
const KERNELS: &[(&str, &str)] =
    &[("linux-lts", "-lts"), ("linux-zen", "-zen"), ("linux-hardened", "-hardened"), ("linux", "")];

/// Files that the facts are made from.
pub(super) const FILES: &[&str] = &[SETTINGS];
/// Folders of such files.
pub(super) const FOLDERS: &[&str] = &[LOCAL, SYNC];

/// A package that is installed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Installed {
    version: String,
    architecture: String,
    groups: Vec<String>,
    time: Option<Timestamp>,
}

/// A package as a `desc` file writes it: values by name of the field.
type Description = BTreeMap<String, Vec<String>>;

pub(super) fn is_there(host: &dyn Host) -> bool {
    host.list(Path::new(LOCAL)).is_ok_and(|names| !names.is_empty())
}

pub(super) fn look(look: &Look<'_>) -> Result<Found, Unknown> {
    let host = look.host;
    let installed = installed(host)?;
    let settings = settings(host);
    let offers = settings.clone().and_then(|settings| offers(host, &settings, &installed));
    let (candidates, sources, incomplete) = match offers {
        Ok((candidates, sources)) => (candidates, sources, None),
        Err(unknown) => (BTreeMap::new(), Vec::new(), Some(unknown)),
    };
    let is_complete = incomplete.is_none();
    let pending_complete = incomplete.map_or(Reading::Known(true), |unknown| Reading::Unknown { unknown });
    let settings = settings.unwrap_or_default();
    let updates = candidates
        .iter()
        .map(|(name, (version, repository))| {
            let package = &installed[name];
            let update = PendingUpdate {
                package: Text::new(name),
                architecture: Text::new(&package.architecture),
                installed_version: Text::new(&package.version),
                candidate_version: Text::new(version),
                security: false,
                held: settings.is_held(name, package),
                origin: Text::new(repository),
                first_offered_time: look.now,
                available_after_time: None,
                phased_percent: None,
            };
            Dated { update, published: None }
        })
        .collect();
    let running = host.machine().map(|machine| machine.release);
    let kernel = Running::look(host, running.as_deref().ok());
    let (restart, newest_kernel) = restart(look, &kernel, &installed);
    let newest_kernel = super::newest_kernel(&running, newest_kernel);
    let versions = |key: &str| {
        let name = key.rsplit_once(':').map_or(key, |(name, _)| name);
        installed.get(name).map(|package| package.version.clone()).into_iter().collect()
    };
    let sight = Sight { now: look.now, is_complete, metadata: sources_time(&sources) };
    let untold = || Unknown::new(Cause::Unsupported, "pacman's repositories do not tell what is about security");
    let patch_level = PatchLevel {
        manager: PackageManager::Pacman,
        pending: super::pending(look, sight, updates, &versions)?,
        pending_complete,
        security_metadata_time: Reading::Unknown { unknown: untold() },
        security_metadata_valid_until_time: Reading::Unknown { unknown: untold() },
        running_kernel: super::running_kernel(running),
        newest_kernel,
        reboot_required: restart.required,
        reboot_required_since_time: restart.since,
        reboot_packages: restart.packages,
        automatic_updates: AutomaticUpdates {
            enabled: Reading::unknown(Cause::Unsupported, "pacman has no job of its own that installs updates"),
            last_success_time: Reading::unknown(
                Cause::Unsupported,
                "pacman has no job of its own that installs updates",
            ),
        },
        security_metadata_verified: Some(Reading::Unknown { unknown: untold() }),
        sources,
        live_patches: restart::live_patches(host),
    };
    Ok(Found { patch_level, software: software(&installed) })
}

fn sources_time(sources: &[UpdateSource]) -> Option<Timestamp> {
    sources.iter().map(|source| source.release_time.known().copied()).min().flatten()
}

fn installed(host: &dyn Host) -> Result<BTreeMap<String, Installed>, Unknown> {
    let names = host.list(Path::new(LOCAL)).map_err(|error| host::unknown(format!("list {LOCAL}"), &error))?;
    if names.len() > PACKAGES {
        return Err(Unknown::new(Cause::Limit, format!("more than {PACKAGES} packages are installed")));
    }
    let mut installed = BTreeMap::new();
    for name in names.iter().filter(|name| *name != "ALPM_DB_VERSION") {
        let path = Path::new(LOCAL).join(name).join("desc");
        let bytes =
            host.read(&path, FILE_BYTES).map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
        let whole = std::str::from_utf8(&bytes).is_ok() && bytes.ends_with(b"\n\n");
        let found =
            whole.then(|| package(&description(&bytes))).flatten().filter(|(_, it)| !it.architecture.is_empty());
        let (name, package) =
            found.ok_or_else(|| Unknown::new(Cause::Garbled, format!("{} is not whole", path.display())))?;
        installed.insert(name, package);
    }
    if installed.is_empty() {
        return Err(Unknown::new(Cause::Garbled, format!("{LOCAL} has no package")));
    }
    Ok(installed)
}

/// Returns the fields of a `desc` file: `%NAME%`, then a value a line, then an empty line.
fn description(bytes: &[u8]) -> Description {
    let text = String::from_utf8_lossy(bytes);
    let mut fields = Description::new();
    let mut field: Option<String> = None;
    for line in text.lines() {
        if line.is_empty() {
            field = None;
        } else if let Some(name) = &field {
            fields.entry(name.clone()).or_default().push(line.to_owned());
        } else if let Some(name) = line.strip_prefix('%').and_then(|line| line.strip_suffix('%')) {
            field = Some(name.to_owned());
        }
    }
    fields
}

fn package(fields: &Description) -> Option<(String, Installed)> {
    let first = |name: &str| fields.get(name).and_then(|values| values.first()).cloned();
    let time = first("INSTALLDATE").and_then(|time| time.parse().ok()).and_then(Timestamp::from_seconds);
    let groups = fields.get("GROUPS").cloned().unwrap_or_default();
    let package =
        Installed { version: first("VERSION")?, architecture: first("ARCH").unwrap_or_default(), groups, time };
    Some((first("NAME")?, package))
}

fn software(installed: &BTreeMap<String, Installed>) -> Software {
    let package = |(name, package): (&String, &Installed)| Package {
        name: Text::new(name),
        version: Text::new(&package.version),
        architecture: Text::new(&package.architecture),
        manager: PackageManager::Pacman,
    };
    Software { packages: installed.iter().map(package).collect() }
}

/// What pacman.conf(5) says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Settings {
    /// In order: of a package in several, the first has it.
    repositories: Vec<String>,
    ignored: Vec<String>,
    ignored_groups: Vec<String>,
}

impl Settings {
    fn is_held(&self, name: &str, package: &Installed) -> bool {
        let is_of = |patterns: &[String], name: &str| patterns.iter().any(|pattern| matches(pattern, name));
        is_of(&self.ignored, name) || package.groups.iter().any(|group| is_of(&self.ignored_groups, group))
    }
}

fn settings(host: &dyn Host) -> Result<Settings, Unknown> {
    let bytes = host.read(Path::new(SETTINGS), FILE_BYTES);
    let bytes = bytes.map_err(|error| host::unknown(format!("read {SETTINGS}"), &error))?;
    let garbled = |_| Unknown::new(Cause::Garbled, format!("{SETTINGS} is not text"));
    parse_settings(std::str::from_utf8(&bytes).map_err(garbled)?)
        .map_err(|what| Unknown::new(Cause::Unsupported, format!("{SETTINGS} {what}")))
}

fn parse_settings(text: &str) -> Result<Settings, &'static str> {
    let mut settings = Settings::default();
    for section in ini::sections(text) {
        match section.name.as_str() {
            "" if section.has("Include") => return Err("includes another file before its first section"),
            "" => {}
            "options" => {
                if section.has("DBPath") || section.has("Include") || section.has("RootDir") {
                    return Err("sets DBPath, RootDir or Include among its options");
                }
                let words = |key| section.words(&[key]).into_iter().map(str::to_owned);
                settings.ignored.extend(words("IgnorePkg"));
                settings.ignored_groups.extend(words("IgnoreGroup"));
            }
            name => settings.repositories.push(name.to_owned()),
        }
    }
    Ok(settings)
}

/// By name: version and repository.
type Candidates = BTreeMap<String, (String, String)>;

fn offers(
    host: &dyn Host,
    settings: &Settings,
    installed: &BTreeMap<String, Installed>,
) -> Result<(Candidates, Vec<UpdateSource>), Unknown> {
    if settings.repositories.is_empty() {
        return Err(Unknown::new(Cause::Absent, format!("{SETTINGS} has no repository")));
    }
    let (mut first, mut sources) = (Candidates::new(), Vec::new());
    for repository in &settings.repositories {
        let path = Path::new(SYNC).join(format!("{repository}.db"));
        database(host, &path, |name, version| {
            if installed.contains_key(&name) {
                first.entry(name).or_insert_with(|| (version, repository.clone()));
            }
        })
        .map_err(|error| host::unknown(format!("read {}", path.display()), &error))?;
        sources.push(source(host, repository, &path));
    }
    sources.sort_by(|a, b| a.label.cmp(&b.label));
    first.retain(|name, (version, _)| compare(version, &installed[name].version).is_gt());
    Ok((first, sources))
}

fn source(host: &dyn Host, repository: &str, path: &Path) -> UpdateSource {
    let none = || Reading::unknown(Cause::Absent, "a database of pacman's states no end");
    UpdateSource {
        label: Text::new(repository),
        codename: Text::default(),
        suite: Text::default(),
        security: false,
        // pacman gives the file the time that the server states of it.
        release_time: match host.metadata(path) {
            Ok(metadata) => metadata.modified_time(),
            Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {}", path.display()), &error) },
        },
        valid_until_time: none(),
        origin: Text::default(),
        verified: None,
    }
}

/// Calls `each` with name and version of every package in the database of a repository.
fn database(host: &dyn Host, path: &Path, mut each: impl FnMut(String, String)) -> io::Result<()> {
    let mut beginning = [0; 8];
    let count = io::Read::read(&mut host.stream(path)?, &mut beginning)?;
    let mut is_whole = true;
    let mut archive = Archive::new(
        |path| path.ends_with("/desc"),
        |_, content| match package(&description(content)) {
            Some((name, package)) => each(name, package.version),
            None => is_whole = false,
        },
    );
    unpack(host.stream(path)?, Packing::of_beginning(&beginning[..count]), &mut archive)?;
    archive.finish()?;
    if is_whole { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "a package is not whole")) }
}

/// Returns how two versions `epoch:version-release` compare (vercmp(8)).
fn compare(own: &str, other: &str) -> Ordering {
    let parts = |text: &str| {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let (version, release) =
            rest.rsplit_once('-').map_or((rest, None), |(version, release)| (version, Some(release)));
        (epoch.to_owned(), version.to_owned(), release.map(str::to_owned))
    };
    let (own, other) = (parts(own), parts(other));
    let by_version = compare_part(&own.0, &other.0).then_with(|| compare_part(&own.1, &other.1));
    by_version.then_with(|| match (&own.2, &other.2) {
        (Some(own), Some(other)) => compare_part(own, other),
        _ => Ordering::Equal,
    })
}

/// Compares part by part, each of digits alone or of letters alone, as rpm of old did: what ends sooner is older, unless letters
/// follow, which are of a version before it.
fn compare_part(own: &str, other: &str) -> Ordering {
    if own == other {
        return Ordering::Equal;
    }
    let (mut own, mut other) = (own.as_bytes(), other.as_bytes());
    while !own.is_empty() && !other.is_empty() {
        let (own_start, other_start) = (separators(own), separators(other));
        if own_start == own.len() || other_start == other.len() {
            (own, other) = (&own[own_start..], &other[other_start..]);
            break;
        }
        if own_start != other_start {
            return own_start.cmp(&other_start);
        }
        (own, other) = (&own[own_start..], &other[other_start..]);
        let is_digit = own[0].is_ascii_digit();
        let length = |text: &[u8]| {
            let ends = |byte: &u8| if is_digit { !byte.is_ascii_digit() } else { !byte.is_ascii_alphabetic() };
            text.iter().position(ends).unwrap_or(text.len())
        };
        let ((own_part, own_rest), (other_part, other_rest)) =
            (own.split_at(length(own)), other.split_at(length(other)));
        if other_part.is_empty() {
            return if is_digit { Ordering::Greater } else { Ordering::Less };
        }
        let without_zeros = |digits: &'_ [u8]| digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
        let order = if is_digit {
            let (own, other) = (&own_part[without_zeros(own_part)..], &other_part[without_zeros(other_part)..]);
            own.len().cmp(&other.len()).then_with(|| own.cmp(other))
        } else {
            own_part.cmp(other_part)
        };
        if order.is_ne() {
            return order;
        }
        (own, other) = (own_rest, other_rest);
    }
    let is_letter = |text: &[u8]| text.first().is_some_and(u8::is_ascii_alphabetic);
    match (own.is_empty(), other.is_empty()) {
        (true, true) => Ordering::Equal,
        _ if is_letter(own) || own.is_empty() && !is_letter(other) => Ordering::Less,
        _ => Ordering::Greater,
    }
}

fn separators(text: &[u8]) -> usize {
    text.iter().position(u8::is_ascii_alphanumeric).unwrap_or(text.len())
}

/// Returns whether another kernel than the running one is installed in its place, and its release.
fn restart(look: &Look<'_>, running: &Running, installed: &BTreeMap<String, Installed>) -> (Restart, Reading<Text>) {
    let own = running.release.as_deref().unwrap_or_default();
    let installed_kernels = KERNELS.iter().filter_map(|(name, end)| Some((*name, *end, installed.get(*name)?)));
    let mut of_line = installed_kernels.clone().filter(|(_, end, package)| is_of_line(own, end, &package.version));
    let Some((name, end, package)) = of_line.next().filter(|_| !running.is_container) else {
        if let Some(package) = exact(installed, own).filter(|_| !running.is_container) {
            let restart = Restart { required: Reading::Known(false), since: None, packages: Vec::new() };
            let _ = restart::since(look, running, &restart.required, None);
            return (restart, Reading::Known(Text::new(&package.version)));
        }
        let required = match installed_kernels.count() {
            0 if !running.is_container => {
                Reading::unknown(Cause::Undecidable, "no kernel package of the running flavour is installed")
            }
            count => Reading::Unknown { unknown: running.incomparable(count > 0) },
        };
        let newest = Reading::unknown(Cause::Absent, "no kernel package of the running flavour is installed");
        return (Restart { required, since: None, packages: Vec::new() }, newest);
    };
    let is_running = is_running(own, end, &package.version);
    let required = Reading::Known(!is_running);
    let since = restart::since(look, running, &required, package.time).map(Reading::Known);
    let packages = if is_running { Vec::new() } else { vec![Text::new(name)] };
    (Restart { required, since, packages }, Reading::Known(Text::new(&package.version)))
}

/// Returns the package of another kernel whose version the running release begins with, such as `6.12.48-1` of `6.12.48-1-MANJARO`;
/// `None` also where one of the same series has another version, for which of them runs is not told.
fn exact<'i>(installed: &'i BTreeMap<String, Installed>, own: &str) -> Option<&'i Installed> {
    const OTHERS: &[&str] = &["api", "docs", "firmware", "headers", "meta", "tools"];
    let is_kernel = |name: &str| name.starts_with("linux") && !name.split('-').any(|part| OTHERS.contains(&part));
    let series = |version: &str| version.split(['.', '-']).take(2).map(str::to_owned).collect::<Vec<_>>();
    let own = own.replace('-', ".");
    let is_own = |package: &Installed| {
        let rest = own.strip_prefix(&folded(&package.version));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let kernels = installed.iter().filter(|(name, it)| is_kernel(name) && series(&it.version) == series(&own));
    let kernels: Vec<&Installed> = kernels.map(|(_, package)| package).collect();
    kernels.first().copied().filter(|_| kernels.iter().all(|package| is_own(package)))
}

/// Returns whether the running release is of the line of a package: of what else than numbers it has, the package's version names
/// all but the end. `6.12.1-arch1-1` is so of `linux`, and `6.17.2-3-cachyos` and `6.11.0-rt7-arch1-1-rt` are not.
fn is_of_line(own: &str, end: &str, version: &str) -> bool {
    let letters = |text: &str| text.chars().filter(char::is_ascii_alphabetic).collect::<String>();
    own.strip_suffix(end).is_some_and(|own| letters(own) == letters(version))
}

/// Returns whether the running release, such as `6.12.1-arch1-1`, is of the package's version, such as `6.12.1.arch1-1`.
fn is_running(own: &str, end: &str, version: &str) -> bool {
    own.strip_suffix(end).unwrap_or(own).replace('-', ".") == folded(version)
}

/// Returns a package's version as a kernel's release has it, with dots for minuses. The first version of a series has two numbers, and
/// its release three: `6.7.0-arch3-1` is of `6.7.arch3-1`.
fn folded(version: &str) -> String {
    let (upstream, release) = version.split_once('-').unwrap_or((version, ""));
    let mut parts: Vec<&str> = upstream.split('.').collect();
    if parts.len() == 2 || parts.get(2).is_some_and(|part| part.starts_with(|c: char| !c.is_ascii_digit())) {
        parts.insert(2, "0");
    }
    format!("{}.{release}", parts.join("."))
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::WatchState;
    use proptest::prelude::*;

    use super::*;
    use crate::{host::Recorded, probe::Settings};

    /// What vercmp of pacman 6.0 says of these pairs.
    const CASES: &[(&str, &str, i8)] = &[
        ("1.0", "1.0", 0),
        ("1.0-1", "1.0", 0),
        ("1.0-1", "1.0-2", -1),
        ("1:1.0-1", "2.0-1", 1),
        ("1.0a", "1.0", -1),
        ("1.0", "1.0.1", -1),
        ("1.0.a", "1.0", 1),
        ("1.0b", "1.0beta", -1),
        ("1.0rc", "1.0", -1),
        ("1..0", "1.0", 1),
        ("1.0.", "1.0", 1),
        ("1_0", "1.0", 0),
        ("1.a", "1.1", -1),
        ("001", "1", 0),
        ("1.001", "1.1", 0),
        ("6.12.1.arch1-1", "6.12.1.arch2-1", -1),
        ("1.0alpha", "1.0b", -1),
        ("1.0+git", "1.0", 1),
        ("2:1-1", "1:9-1", 1),
        ("1", "1.a", -1),
        ("1", "1a", 1),
        (".b22", ".", -1),
        ("_1.+0", "2_.2", 1),
        ("a0", "2", -1),
        ("1.1ba", ".1", -1),
        ("a.b", "0a0", -1),
        ("0._2", "a", 1),
        ("101a", ".0", -1),
        ("2", "0+1_+", 1),
        (".1", "a122", 1),
        ("00b+2", "01.", -1),
        ("2+", ".", 1),
        ("1.1._", ".a", -1),
        ("0..0.", "a", 1),
        ("_b", "1bb", 1),
        ("+", "0", -1),
        ("+._.", "1.", -1),
        ("1.", ".+.2b", -1),
        ("b0", "2", -1),
        ("212", "0", 1),
        ("_", ".b", 1),
        ("0.b2_", "b21+b", 1),
        ("1", "_2+.", -1),
        ("2b_.1", "b", 1),
        ("2212a", "a", 1),
        ("__", "++.12", -1),
        ("_b+10", ".+b++", -1),
        ("1+b1a", "11", -1),
        ("_0_0", "0.a_a", 1),
        ("_a0", "10..1", 1),
    ];

    #[test]
    fn versions_compare_as_vercmp_compares_them() {
        for (own, other, expected) in CASES {
            assert_eq!(compare(own, other), expected.cmp(&0), "{own} {other}");
        }
    }

    #[test]
    fn a_description_has_its_fields() {
        let text = b"%NAME%\nlinux\n\n%VERSION%\n6.12.1.arch1-1\n\n%ARCH%\nx86_64\n\n%INSTALLDATE%\n1790000000\n\n%GROUPS%\na\nb\n";
        let (name, package) = package(&description(text)).unwrap();
        assert_eq!((name.as_str(), package.version.as_str(), package.groups.len()), ("linux", "6.12.1.arch1-1", 2));
        assert_eq!(package.time, Timestamp::from_seconds(1_790_000_000));
        assert_eq!(super::package(&description(b"%NAME%\nlinux\n")), None);
    }

    #[test]
    fn settings_name_repositories_in_order_and_what_is_ignored() {
        let text = "[options]\nIgnorePkg = linux* x\nIgnoreGroup=g\nCheckSpace\n[core]\nInclude = /etc/pacman.d/mirrorlist\n[extra]\nServer = x\n";
        let settings = parse_settings(text).unwrap();
        assert_eq!(settings.repositories, ["core", "extra"]);
        let of_group = Installed { groups: vec!["g".to_owned()], ..Installed::default() };
        assert!(settings.is_held("linux-lts", &Installed::default()) && settings.is_held("y", &of_group));
        assert!(!settings.is_held("y", &Installed::default()));
        for text in ["[options]\nDBPath = /srv\n", "Include = x\n[options]\n", "[options]\nInclude = x\n"] {
            assert!(parse_settings(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_kernel_that_was_replaced_needs_a_restart() {
        for (own, end, version, expected) in [
            ("6.12.1-arch1-1", "", "6.12.1.arch1-1", true),
            ("6.12.1-arch1-1", "", "6.12.2.arch1-1", false),
            ("6.6.63-1-lts", "-lts", "6.6.63-1", true),
            ("6.12.1-zen1-1-zen", "-zen", "6.12.1.zen1-1", true),
            ("6.9.6-hardened1-1-hardened", "-hardened", "6.9.6.hardened1-1", true),
            ("6.7.0-arch3-1", "", "6.7.arch3-1", true),
            ("6.7.0-arch3-1", "", "6.7.1.arch1-1", false),
            ("6.18.0-1-lts", "-lts", "6.18-1", true),
            ("6.12.1-arch1-1.1", "", "6.12.1.arch1-1.1", true),
        ] {
            assert!(is_of_line(own, end, version), "{own} {version}");
            assert_eq!(is_running(own, end, version), expected, "{own} {version}");
        }
    }

    #[test]
    fn a_kernel_of_another_line_is_not_compared_with_the_fallback() {
        for (own, end, version) in [
            ("6.17.2-3-cachyos", "", "6.17.1.arch1-1"),
            ("6.11.0-rt7-arch1-1-rt", "", "6.17.1.arch1-1"),
            ("6.18.0-rc1-1-mainline", "", "6.17.1.arch1-1"),
            ("6.6.63-1-lts", "", "6.17.1.arch1-1"),
            ("6.17.1", "", "6.17.1.arch1-1"),
            ("6.6.30-rt30-1-rt-lts", "-lts", "6.6.63-1"),
            ("6.17.1-arch1-1", "-zen", "6.17.1.zen1-1"),
        ] {
            assert!(!is_of_line(own, end, version), "{own} {version}");
        }
    }

    #[test]
    fn a_kernel_of_another_line_runs_where_its_release_begins_with_the_version_of_its_package() {
        for (own, packages, expected) in [
            ("6.12.48-1-MANJARO", vec![("linux612", "6.12.48-1"), ("linux612-headers", "6.12.48-1")], true),
            ("6.12.48-1-MANJARO", vec![("linux612", "6.12.48-1"), ("linux617", "6.17.1-1")], true),
            ("6.12.48-1-MANJARO", vec![("linux612", "6.12.50-1"), ("linux612-headers", "6.12.48-1")], false),
            ("6.12.48-1-MANJARO", vec![("linux612", "6.12.4-8")], false),
            ("6.12.48-1-MANJARO", vec![("linux612", "6.12-48")], false),
            ("6.12.48-10-MANJARO", vec![("linux612", "6.12.48-1")], false),
            ("6.16.7-1-aarch64-ARCH", vec![("linux-aarch64", "6.16.7-1"), ("linux-firmware", "6.16-2")], true),
            ("6.12.45-1-rpi", vec![("linux-rpi", "6.12.45-1"), ("linux-api-headers", "6.12-1")], true),
            ("6.17.2-3-cachyos", vec![("linux-cachyos", "6.17.2-3")], true),
            // Which of the two runs is not told.
            ("6.17.2-3-cachyos", vec![("linux-cachyos", "6.17.5-1"), ("linux-cachyos-bore", "6.17.2-3")], false),
            ("6.11.0-rt7-arch1-1-rt", vec![("linux-rt", "6.11.rt7.arch1-1")], true),
            ("6.12.48-1-MANJARO", vec![("linux-api-headers", "6.12.48-1")], false),
            ("", vec![("linux", "6.12.48-1")], false),
        ] {
            let package = |version: &str| Installed { version: version.to_owned(), ..Installed::default() };
            let installed = packages.iter().map(|(name, version)| ((*name).to_owned(), package(version))).collect();
            assert_eq!(exact(&installed, own).is_some(), expected, "{own} {packages:?}");
        }
    }

    #[test]
    fn a_kernel_that_is_not_compared_is_named() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/pacman");
        let (host, memory) = (Recorded::at(&case).unwrap(), tempfile::tempdir().unwrap());
        let (settings, watch, now) = (Settings::default(), WatchState::Live, host.captured());
        let files = Default::default();
        let at = Look { host: &host, now, settings: &settings, memory: memory.path(), watch, run: 7, files };
        let linux = Installed { version: "6.17.1.arch1-1".to_owned(), ..Installed::default() };
        let installed = BTreeMap::from([("linux".to_owned(), linux)]);
        for (own, is_container, expected) in [
            ("6.17.1-arch1-1", false, Some(false)),
            ("6.17.0-arch1-1", false, Some(true)),
            ("6.17.2-3-cachyos", false, None),
            ("6.17.0-arch1-1", true, None),
        ] {
            let running = Running { release: Some(own.to_owned()), is_container, ..Running::default() };
            let required = restart(&at, &running, &installed).0.required;
            assert_eq!(required.known().copied(), expected, "{own} {is_container}");
            if let Reading::Unknown { unknown } = required {
                assert_eq!(unknown, running.incomparable(true));
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "([%A-Z\n\\[\\]=]|\\PC)*", a in "[0-9a-b.:~-]{0,6}", b in "\\PC{0,6}") {
            let _ = (description(text.as_bytes()), parse_settings(&text));
            let _ = (compare(&a, &b), exact(&BTreeMap::from([(b.clone(), Installed { version: a.clone(), ..Installed::default() })]), &b));
        }
    }
}
