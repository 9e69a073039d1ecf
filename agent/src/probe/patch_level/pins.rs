//! apt's pins (apt_preferences(5)).
//!
//! Plain ones give repositories their priorities. Any other that could choose among what is offered leaves open what apt would choose.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    ops::RangeInclusive,
    path::Path,
};

use muster_proto::fact::{Cause, Unknown};

use super::{
    dpkg::Installed,
    lists::{INSTALLED, Published},
};
use crate::{
    host::{self, FILE_BYTES, Host},
    probe::deb822::Stanzas,
};

pub(super) const FILE: &str = "/etc/apt/preferences";
pub(super) const FOLDER: &str = "/etc/apt/preferences.d";

/// Priorities that are taken from a pin: a lower one hides what a repository has.
const PRIORITIES: RangeInclusive<u32> = 500..=1001;

/// The priorities that pins give repositories, by the start of the names of a repository's files.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Pins {
    /// Of all packages.
    pub all: BTreeMap<String, u32>,
    /// Of some packages, by their names.
    pub named: BTreeMap<String, BTreeMap<String, u32>>,
    /// The first file with one of them.
    pub path: Option<String>,
}

/// What a pin is to a repository.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Match {
    Yes,
    No,
    Untold,
}

/// Returns what pins say of what is `published`.
pub(super) fn read(host: &dyn Host, published: &[Published], installed: &Installed) -> Result<Pins, Unknown> {
    let mut paths = vec![FILE.to_owned()];
    match host.list(Path::new(FOLDER)) {
        Ok(names) => {
            // As apt does: no ending, or `pref`.
            let names = names.iter().filter_map(|name| name.to_str());
            let taken = names.filter(|name| !name.contains('.') || name.ends_with(".pref"));
            paths.extend(taken.map(|name| format!("{FOLDER}/{name}")));
        }
        Err(error) if host::cause(&error) == Cause::Absent => {}
        Err(error) => return Err(host::unknown(format!("list {FOLDER}"), &error)),
    }
    let mut pins = Pins::default();
    for path in paths {
        match host.read(Path::new(&path), FILE_BYTES) {
            Ok(bytes) => {
                if !pins.add(&bytes, &path, published, installed) {
                    let what = format!("{path} pins packages or repositories that are in use");
                    return Err(Unknown::new(Cause::Unsupported, what));
                }
            }
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("read {path}"), &error)),
        }
    }
    // A version that a pin of its name is about has the priority of that one, whatever a repository has it, too.
    let lowest = pins.named.values().flat_map(BTreeMap::values).min();
    if let Some(path) = pins.path.as_ref().filter(|_| lowest.is_some() && lowest < pins.all.values().max()) {
        let what = format!("{path} pins packages with a lower priority than others pin repositories with");
        return Err(Unknown::new(Cause::Unsupported, what));
    }
    Ok(pins)
}

impl Pins {
    /// Adds those of a preferences file, and returns whether they are told: that none could choose otherwise than by priorities which
    /// are taken from it.
    fn add(&mut self, preferences: &[u8], path: &str, published: &[Published], installed: &Installed) -> bool {
        let Some(stanzas) = std::str::from_utf8(preferences).ok().and_then(stanzas) else {
            return !could_choose(preferences, published, installed);
        };
        stanzas.iter().all(|fields| self.add_stanza(fields, path, published, installed))
    }

    fn add_stanza(
        &mut self,
        fields: &BTreeMap<&'static str, &str>,
        path: &str,
        published: &[Published],
        installed: &Installed,
    ) -> bool {
        let Some(pin) = fields.get("pin") else { return true };
        let Some(names) = fields.get("package") else { return false };
        if names_nothing_installed(names, installed) {
            return true;
        }
        let dpkg = Published { suite: "now".to_owned(), priority: INSTALLED, ..Published::default() };
        if matching(pin, &dpkg) != Match::No {
            return changes_nothing(pin, priority(fields.get("pin-priority")), published);
        }
        let found = published.iter().map(|published| (published, matching(pin, published)));
        let found: Vec<_> = found.filter(|(_, matching)| *matching != Match::No).collect();
        let Some(priority) = priority(fields.get("pin-priority")) else { return found.is_empty() };
        let is_usual = |(published, _): &(&Published, Match)| published.priority == priority;
        if found.iter().any(|(_, matching)| *matching == Match::Untold) {
            return found.iter().all(is_usual);
        }
        if !found.iter().all(is_usual) && !PRIORITIES.contains(&priority) {
            return false;
        }
        let names: Vec<&str> = names.split_whitespace().collect();
        let is_all = names == ["*"];
        if !is_all && !names.iter().all(|name| is_name(name)) {
            return found.iter().all(is_usual);
        }
        self.path.get_or_insert_with(|| path.to_owned());
        // Of several pins the first holds for all packages, and none is taken here for the first.
        found.iter().all(|(published, _)| {
            let give =
                |to: &mut BTreeMap<String, u32>| *to.entry(published.file.clone()).or_insert(priority) == priority;
            if is_all {
                return give(&mut self.all);
            }
            let installed = names.iter().filter(|name| installed.has(name));
            installed.into_iter().all(|name| give(self.named.entry((*name).to_owned()).or_default()))
        })
    }
}

/// Returns the stanzas of a preferences file, with their fields' names in lower case. `None` where apt could cut it otherwise.
fn stanzas(text: &str) -> Option<Vec<BTreeMap<&'static str, &str>>> {
    const FIELDS: &[&str] = &["package", "pin", "pin-priority", "explanation"];
    let mut stanzas = vec![BTreeMap::new()];
    if text.contains('\r') {
        return None;
    }
    for line in text.split('\n') {
        if line.is_empty() {
            stanzas.push(BTreeMap::new());
        } else if !line.starts_with('#') {
            let (name, value) = line.split_once(':')?;
            let field = FIELDS.iter().find(|field| field.eq_ignore_ascii_case(name))?;
            // Of a field that is given twice, apt takes the last.
            stanzas.last_mut().expect("there is a first one").insert(*field, value.trim());
        }
    }
    stanzas.retain(|fields| !fields.is_empty());
    Some(stanzas)
}

fn priority(text: Option<&&str>) -> Option<u32> {
    text.and_then(|priority| priority.trim().parse().ok())
}

/// Returns whether a pin is of a repository.
fn matching(pin: &str, published: &Published) -> Match {
    let Some((kind, rest)) = pin.split_once(char::is_whitespace) else { return Match::Untold };
    let rest = rest.trim();
    match kind.to_ascii_lowercase().as_str() {
        "release" => {
            let conditions: Vec<(&str, &str)> =
                rest.split(',').map(|part| part.trim().split_once('=').unwrap_or((part, ""))).collect();
            let keys: BTreeSet<_> = conditions.iter().map(|(key, _)| key.to_ascii_lowercase()).collect();
            if keys.len() < conditions.len() {
                // Of one that is given twice, apt takes the last.
                return Match::Untold;
            }
            let own = |(key, value): &(&str, &str)| condition(key, value, published);
            let found: Vec<Match> = conditions.iter().map(own).collect();
            match () {
                () if found.contains(&Match::No) => Match::No,
                () if found.contains(&Match::Untold) => Match::Untold,
                () => Match::Yes,
            }
        }
        "origin" => {
            let host = rest.trim_matches('"').to_ascii_lowercase();
            let is_name = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
            if host.is_empty() || !is_name(&host) {
                return Match::Untold;
            }
            // The name of a file begins with the host, and its port where one is given.
            let file = published.file.to_ascii_lowercase();
            let own = file.split('_').next().and_then(|place| place.split(':').next());
            match own == Some(&host) {
                true => Match::Yes,
                false if file.starts_with(&host) => Match::Untold,
                false => Match::No,
            }
        }
        _ => Match::Untold,
    }
}

/// Returns whether a condition such as `o=Debian` is what a repository says of itself. apt takes patterns, too.
fn condition(key: &str, value: &str, published: &Published) -> Match {
    let own = match key.to_ascii_lowercase().as_str() {
        "o" => &published.origin,
        "l" => &published.label,
        "n" => &published.codename,
        "a" => &published.suite,
        _ => return Match::Untold,
    };
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_. ".contains(&b);
    match value.eq_ignore_ascii_case(own) {
        _ if value.is_empty() || !value.bytes().all(is_plain) => Match::Untold,
        true => Match::Yes,
        false => Match::No,
    }
}

/// Returns whether a pin of a preferences file could choose among what is offered for what is installed. One that is not
/// surely harmless could.
fn could_choose(preferences: &[u8], published: &[Published], installed: &Installed) -> bool {
    let is_pin = |line: &&[u8]| {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        name.len() < line.len() && name.trim_ascii_end().eq_ignore_ascii_case(b"pin")
    };
    let pins = preferences.split(|&byte| byte == b'\n').filter(is_pin).count();
    let mut harmless = 0;
    let mut stanzas = Stanzas::new(&["Package", "Pin", "Pin-Priority"], |fields| {
        let field = |name| fields.get(name).map(String::as_str);
        let priority = priority(field("Pin-Priority").as_ref());
        let is_harmless = field("Package").is_some_and(|names| names_nothing_installed(names, installed))
            || field("Pin").is_some_and(|pin| changes_nothing(pin, priority, published));
        harmless += usize::from(field("Pin").is_some() && is_harmless);
    });
    stanzas.write_all(preferences).expect("stanzas take every write");
    stanzas.finish();
    // A stanza that apt could cut otherwise leaves a pin over.
    harmless < pins
}

/// Returns whether `names` are names of packages, without patterns, of which none is installed.
fn names_nothing_installed(names: &str, installed: &Installed) -> bool {
    let mut names = names.split_whitespace().peekable();
    names.peek().is_some()
        && names.all(|name| {
            let name = name.split_once(':').map_or(name, |(name, _)| name);
            // `src:` is before the name of a source package.
            is_name(name) && name != "src" && !installed.has(name)
        })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
}

/// Returns whether each repository, and dpkg's own list, is not what `pin` tells of, or has this priority without it.
fn changes_nothing(pin: &str, priority: Option<u32>, published: &[Published]) -> bool {
    let dpkg = Published { suite: "now".to_owned(), priority: INSTALLED, ..Published::default() };
    published
        .iter()
        .chain([&dpkg])
        .all(|published| priority == Some(published.priority) || matching(pin, published) == Match::No)
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::PathText;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        host::{Recorded, recorded::Failure},
        probe::patch_level::dpkg::installed,
    };

    fn published() -> Vec<Published> {
        let published = |file: &str, label: &str, codename: &str, suite: &str| Published {
            file: file.to_owned(),
            origin: "Ubuntu".to_owned(),
            label: label.to_owned(),
            codename: codename.to_owned(),
            suite: suite.to_owned(),
            priority: 500,
            ..Published::default()
        };
        vec![
            published("archive.ubuntu.com_ubuntu_dists_jammy", "Ubuntu", "jammy", "jammy"),
            published("security.ubuntu.com_ubuntu_dists_jammy-security", "Ubuntu", "jammy", "jammy-security"),
        ]
    }

    #[test]
    fn a_pin_matters_unless_it_surely_names_nothing_that_is_in_use() {
        let installed = installed(&[("bash", "amd64", "5"), ("libc6", "amd64", "2")]);
        for (preferences, expected) in [
            ("", false),
            ("Explanation: Pin: of nothing\n", false),
            // What Ubuntu's Pro client delivers.
            (
                "# Written by ubuntu-pro-client\nPackage: *\nPin: release o=UbuntuESMApps, n=jammy-apps-security\nPin-Priority: never\n",
                false,
            ),
            ("Package: nodejs\nPin: origin deb.nodesource.com\nPin-Priority: 600\n", false),
            ("Package: nodejs\nPin: version 20.*\nPin-Priority: 600\n", false),
            ("Package: nodejs nsolid:amd64\nPin: origin \"\"\nPin-Priority: 600\n", false),
            ("Package: *\nPin: release l=Ubuntu, n=bionic\nPin-Priority: 600\n", false),
            // The priority that they have without it.
            ("Package: *\nPin: release o=Ubuntu\nPin-Priority: 500\n", false),
            ("Package: *\nPin: origin security.ubuntu.com\nPin-Priority: 500\n", false),
            ("Package: *\nPin: release o=Ubuntu\n", true),
            ("Package: *\nPin: release a=now\nPin-Priority: 500\n", true),
            ("Package: *\nPin: version 5*\nPin-Priority: 500\n", true),
            ("Package: *\nPin: release o=*ESM*\nPin-Priority: 600\n", true),
            ("Package: *\nPin: release o=Other,o=Ubuntu\nPin-Priority: 600\n", true),
            ("Package: *\nPin: release a=now\nPin-Priority: 600\n", true),
            ("Package: *\nPin: release jammy-proposed\nPin-Priority: 600\n", true),
            ("Package: *\nPin: release c=universe\nPin-Priority: 600\n", true),
            ("Package: *\nPin: origin \"\"\nPin-Priority: 600\n", true),
            ("Package: nodejs bash\nPin: version 5*\nPin-Priority: 600\n", true),
            ("Package: lib*\nPin: version 5*\nPin-Priority: 600\n", true),
            ("Package: /^lib/\nPin: version 5*\nPin-Priority: 600\n", true),
            ("Package: src:glibc\nPin: version 5*\nPin-Priority: 600\n", true),
            ("Package: nodejs\nPin: version 5*\nPin: version 6*\n", false),
            ("Package: nodejs\nPin: version 5*\n\nPackage: bash\nPin: version 6*\n", true),
            // What apt takes, and what could be cut otherwise.
            ("Package: *\nPin : release o=Ubuntu\nPin-Priority: -1\n", true),
            ("Package: *\nPin:\n release o=Ubuntu\nPin-Priority: -1\n", true),
            ("Package: *\r\nPin: release o=Ubuntu\r\nPin-Priority: -1\r\n", true),
            ("Package: *\nPin: release o=Ubuntu\nPin-Priority: 400\n", true),
            ("Package: *\nPin: release o=Ubuntu\nPin-Priority: 2000\n", true),
            ("Package: bas?\nPin: release o=Ubuntu\nPin-Priority: 600\n", true),
            // Of two that are not alike the first holds.
            (
                "Package: *\nPin: release o=Ubuntu\nPin-Priority: 600\n\nPackage: *\nPin: release n=jammy\nPin-Priority: 700\n",
                true,
            ),
        ] {
            let is_told = Pins::default().add(preferences.as_bytes(), "p", &published(), &installed);
            assert_eq!(!is_told, expected, "{preferences}");
        }
    }

    #[test]
    fn a_plain_pin_gives_its_repositories_its_priority() {
        let installed = installed(&[("bash", "amd64", "5"), ("nginx", "amd64", "1")]);
        let main = "archive.ubuntu.com_ubuntu_dists_jammy";
        let security = "security.ubuntu.com_ubuntu_dists_jammy-security";
        for (preferences, all, named) in [
            ("Package: *\nPin: release o=Ubuntu\nPin-Priority: 510\n", vec![(main, 510), (security, 510)], vec![]),
            ("# c\nPackage: *\nPin: release l=ubuntu, a=jammy\nPin-Priority: 990\n", vec![(main, 990)], vec![]),
            ("Package: *\nPin: origin security.ubuntu.com\nPin-Priority: 1000\n", vec![(security, 1000)], vec![]),
            (
                "Package: *\nPin: origin other\nPin: release n=jammy,a=jammy\nPin-Priority: 900\n",
                vec![(main, 900)],
                vec![],
            ),
            (
                "Package: none nginx\nPin: release a=jammy\nPin-Priority: 600\n\n\nPackage: bash\nPin: release o=Ubuntu\nPin-Priority: 601",
                vec![],
                vec![("bash", main, 601), ("bash", security, 601), ("nginx", main, 600)],
            ),
        ] {
            let mut pins = Pins::default();
            assert!(pins.add(preferences.as_bytes(), "p", &published(), &installed), "{preferences}");
            let found: Vec<_> = pins.all.iter().map(|(file, priority)| (file.as_str(), *priority)).collect();
            assert_eq!(found, all, "{preferences}");
            let found =
                pins.named.iter().flat_map(|(name, of)| of.iter().map(move |(file, it)| (&**name, &**file, *it)));
            assert_eq!(found.collect::<Vec<_>>(), named, "{preferences}");
        }
    }

    #[test]
    fn pins_of_all_files_are_read_and_one_that_cannot_be_leaves_them_open() {
        let of = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-13/index.json");
        let installed = installed(&[("bash", "amd64", "5")]);
        let pin =
            |what: &str, priority: u32| format!("Package: {what}\nPin: release o=Ubuntu\nPin-Priority: {priority}\n");
        let (a, b) = (format!("{FOLDER}/a"), format!("{FOLDER}/b.pref"));
        for (files, expected) in [
            (vec![], Some(0)),
            (vec![(FILE, pin("*", 600)), (&a, pin("bash", 700))], Some(2)),
            (vec![(FILE, pin("*", 600)), (&b, pin("*", 700))], None),
            // apt takes the pin of the name alone.
            (vec![(FILE, pin("*", 700)), (&b, pin("bash", 600))], None),
        ] {
            let case = tempfile::tempdir().unwrap();
            std::fs::copy(&of, case.path().join("index.json")).unwrap();
            for (path, content) in &files {
                let file = case.path().join("files").join(path.trim_start_matches('/'));
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, content).unwrap();
            }
            let mut host = Recorded::at(case.path()).unwrap();
            let text = |text: &str| PathText::from_bytes(text.as_bytes());
            let names: Vec<_> =
                files.iter().filter_map(|(path, _)| path.strip_prefix(FOLDER)).map(|name| text(&name[1..])).collect();
            let index = host.index_mut();
            index.errors.remove(&format!("list {FOLDER}"));
            index.lists.insert(text(FOLDER), names);
            index.errors.insert(format!("read {FILE}"), Failure::of(&std::io::ErrorKind::NotFound.into()));
            if files.iter().any(|(path, _)| *path == FILE) {
                index.errors.remove(&format!("read {FILE}"));
            }
            let found = read(&host, &published(), &installed);
            let count = found.as_ref().map(|pins| usize::from(!pins.all.is_empty()) + pins.named.len()).ok();
            assert_eq!(count, expected, "{files:?}: {found:?}");
            let forbidden = Failure::of(&std::io::Error::from_raw_os_error(13));
            host.index_mut().errors.insert(format!("read {FILE}"), forbidden);
            assert_eq!(read(&host, &published(), &installed).unwrap_err().cause, Cause::Forbidden);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(Package: |Pin: |Pin-Priority: |release |origin |[*a-z0-9,=\n ]|\\PC)*") {
            let installed = installed(&[("bash", "amd64", "5")]);
            let _ = could_choose(text.as_bytes(), &published(), &installed);
            let _ = Pins::default().add(text.as_bytes(), "p", &published(), &installed);
            let _ = changes_nothing(&text, Some(500), &published());
        }
    }
}
