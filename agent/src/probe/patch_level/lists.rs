//! What apt's fetched lists offer: `/var/lib/apt/lists`, as apt-get(8) update left it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufReader, Read as _},
    path::Path,
};

use debversion::Version;
use muster_proto::{
    fact::{Cause, Reading, Text, Unknown, UpdateSource},
    time::Timestamp,
};

use super::dpkg::Installed;
use crate::{
    host::{self, FILE_BYTES, Host},
    probe::deb822::Stanzas,
};

pub(super) const FOLDER: &str = "/var/lib/apt/lists";
/// Bytes that a list may have once it is unpacked.
const LIST_BYTES: u64 = 1024 * 1024 * 1024;
/// Priority of what is installed (apt_preferences(5)).
const INSTALLED: u32 = 100;

/// What all lists offer for what is installed.
#[derive(Debug, Default)]
pub(super) struct Offers {
    pub sources: Vec<UpdateSource>,
    /// What pins can tell repositories by, of each repository.
    pub published: Vec<Published>,
    /// By name and place among the packages of that name.
    pub candidates: BTreeMap<(String, usize), Offer>,
    /// Why not everything could be read.
    pub incomplete: Option<Unknown>,
}

/// What apt_preferences(5) can tell a repository by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Published {
    /// Start of the names of its files: host and path of its address, with `_` for each slash.
    pub file: String,
    pub origin: String,
    pub label: String,
    pub codename: String,
    pub suite: String,
}

/// What is offered for one package.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// Highest priority of a repository that has the installed version.
    installed_priority: u32,
    best: Option<Candidate>,
    /// Whether a security repository has a newer version.
    pub security: bool,
}

/// A version that is newer than the installed one.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    priority: u32,
    pub version: Version,
    pub label: String,
}

impl Offer {
    /// Returns what apt would install: of the highest priority the newest, unless the installed version has a higher one.
    pub fn candidate(&self) -> Option<&Candidate> {
        self.best.as_ref().filter(|best| best.priority >= self.installed_priority.max(INSTALLED))
    }
}

/// What a Release file says.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Release {
    source: UpdateSource,
    origin: String,
    priority: u32,
}

pub(super) fn read(host: &dyn Host, installed: &Installed) -> Offers {
    let mut offers = Offers::default();
    let names = match host.list(Path::new(FOLDER)) {
        Ok(names) => names,
        Err(error) => {
            offers.incomplete = Some(host::unknown(format!("list {FOLDER}"), &error));
            return offers;
        }
    };
    let names: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
    let mut releases: BTreeMap<&str, Release> = BTreeMap::new();
    for name in &names {
        let Some(prefix) = name.strip_suffix("_InRelease").or_else(|| name.strip_suffix("_Release")) else { continue };
        let path = Path::new(FOLDER).join(name);
        match host.read(&path, FILE_BYTES) {
            Ok(bytes) => drop(releases.insert(prefix, parse_release(&bytes))),
            Err(error) => offers.incomplete = Some(host::unknown(format!("read {}", path.display()), &error)),
        }
    }
    if releases.is_empty() && offers.incomplete.is_none() {
        offers.incomplete = Some(Unknown::new(Cause::Absent, "no package list was fetched"));
    }
    let mut with_packages = BTreeSet::new();
    for name in &names {
        let Some((list, packing)) = packing(name) else { continue };
        let Some((prefix, release)) = release_of(list, &releases) else {
            offers.incomplete = Some(Unknown::new(Cause::Absent, format!("{name} has no Release file")));
            continue;
        };
        with_packages.insert(prefix);
        let path = Path::new(FOLDER).join(name);
        let result = host.stream(&path).and_then(|file| offers.add_list(file, packing, release, installed));
        if let Err(error) = result {
            offers.incomplete = Some(host::unknown(format!("read {}", path.display()), &error));
        }
    }
    let with_sources: BTreeSet<&str> = names
        .iter()
        .filter(|name| name.contains("_Sources"))
        .filter_map(|name| release_of(name, &releases).map(|(prefix, _)| prefix))
        .collect();
    for (prefix, release) in &releases {
        // A repository that is fetched for its sources alone offers nothing to install. Of one for security updates that
        // says nothing of whether any are pending.
        let may_lack_packages = !release.source.security && with_sources.contains(prefix);
        if !with_packages.contains(prefix) && !may_lack_packages {
            let detail = format!("no package list of {prefix} was fetched, only its Release file");
            offers.incomplete = Some(Unknown::new(Cause::Absent, detail));
        }
    }
    offers.published = releases.iter().map(|(prefix, release)| release.published(prefix)).collect();
    offers.sources = releases.into_values().map(|release| release.source).collect();
    offers.sources.sort_by(|a, b| (&a.label, &a.codename, &a.suite).cmp(&(&b.label, &b.codename, &b.suite)));
    offers.sources.dedup();
    offers
}

/// Returns the Release file that covers the file `name`: the one of the longest prefix.
fn release_of<'r, 'n>(name: &str, releases: &'r BTreeMap<&'n str, Release>) -> Option<(&'n str, &'r Release)> {
    releases
        .iter()
        .filter(|(prefix, _)| name.strip_prefix(**prefix).is_some_and(|rest| rest.starts_with('_')))
        .max_by_key(|(prefix, _)| prefix.len())
        .map(|(prefix, release)| (*prefix, release))
}

impl Release {
    fn published(&self, file: &str) -> Published {
        let source = &self.source;
        Published {
            file: file.to_owned(),
            origin: self.origin.clone(),
            label: source.label.as_str().to_owned(),
            codename: source.codename.as_str().to_owned(),
            suite: source.suite.as_str().to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Packing {
    None,
    Gzip,
    Lz4,
    Xz,
    Unknown,
}

/// Returns the name of a list of packages without its ending, and how it is packed.
fn packing(name: &str) -> Option<(&str, Packing)> {
    let (list, rest) = name.split_at(name.find("_Packages")? + "_Packages".len());
    Some((
        list,
        match rest {
            "" => Packing::None,
            ".gz" => Packing::Gzip,
            ".lz4" => Packing::Lz4,
            ".xz" => Packing::Xz,
            // The index of changes to a list, which is beside it.
            ".diff_Index" | ".IndexDiff" => return None,
            _ if rest.starts_with('.') => Packing::Unknown,
            _ => return None,
        },
    ))
}

impl Offers {
    fn add_list(
        &mut self,
        file: Box<dyn io::Read>,
        packing: Packing,
        release: &Release,
        installed: &Installed,
    ) -> io::Result<()> {
        let mut stanzas = Stanzas::new(&["Package", "Version", "Architecture"], |fields| {
            self.add(fields, release, installed);
        });
        match packing {
            Packing::None => io::copy(&mut file.take(LIST_BYTES), &mut stanzas).map(drop)?,
            Packing::Gzip => {
                let unpacked = flate2::read::MultiGzDecoder::new(BufReader::new(file));
                io::copy(&mut unpacked.take(LIST_BYTES), &mut stanzas).map(drop)?;
            }
            Packing::Lz4 => {
                let unpacked = lz4_flex::frame::FrameDecoder::new(BufReader::new(file));
                io::copy(&mut unpacked.take(LIST_BYTES), &mut stanzas).map(drop)?;
            }
            Packing::Xz => lzma_rs::xz_decompress(&mut BufReader::new(file), &mut stanzas)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{error:?}")))?,
            Packing::Unknown => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "its compression is not known"));
            }
        }
        stanzas.finish();
        Ok(())
    }

    fn add(&mut self, fields: &BTreeMap<&'static str, String>, release: &Release, installed: &Installed) {
        let (Some(name), Some(version)) = (fields.get("Package"), fields.get("Version")) else { return };
        let Some(packages) = installed.packages.get(name) else { return };
        let architecture = fields.get("Architecture").map(String::as_str).unwrap_or_default();
        let Ok(version) = version.parse::<Version>() else { return };
        for (at, package) in packages.iter().enumerate() {
            let fits = architecture == package.architecture || architecture == "all" || package.architecture == "all";
            if !fits || version < package.version {
                continue;
            }
            let offer = self.candidates.entry((name.clone(), at)).or_default();
            if version == package.version {
                offer.installed_priority = offer.installed_priority.max(release.priority);
                continue;
            }
            offer.security |= release.source.security;
            let is_better =
                offer.best.as_ref().is_none_or(|best| (best.priority, &best.version) < (release.priority, &version));
            if is_better {
                let label = release.source.label.as_str().to_owned();
                offer.best = Some(Candidate { priority: release.priority, version: version.clone(), label });
            }
        }
    }
}

fn parse_release(bytes: &[u8]) -> Release {
    const FIELDS: &[&str] =
        &["Origin", "Label", "Codename", "Suite", "Date", "Valid-Until", "NotAutomatic", "ButAutomaticUpgrades"];
    let mut found: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut stanzas = Stanzas::new(FIELDS, |fields| {
        // A signed file has armour around its one stanza.
        for (name, value) in fields {
            found.entry(name).or_insert_with(|| value.clone());
        }
    });
    io::Write::write_all(&mut stanzas, bytes).expect("stanzas take every write");
    stanzas.finish();
    let field = |name| found.get(name).map(String::as_str).unwrap_or_default();
    let time = |name: &'static str| match found.get(name) {
        None => Reading::unknown(Cause::Absent, format!("Release file has no {name}")),
        Some(text) => match parse_date(text) {
            Some(time) => Reading::Known(time),
            None => Reading::unknown(Cause::Garbled, format!("{name} of the Release file is no date")),
        },
    };
    let (label, codename, suite) = (field("Label"), field("Codename"), field("Suite"));
    // apt_preferences(5), the default priorities.
    let priority = match (field("NotAutomatic"), field("ButAutomaticUpgrades")) {
        ("yes", "yes") => 100,
        ("yes", _) => 1,
        _ => 500,
    };
    Release {
        priority,
        origin: field("Origin").to_owned(),
        source: UpdateSource {
            label: Text::new(label),
            codename: Text::new(codename),
            suite: Text::new(suite),
            // Debian's suite changes its name with each release (`oldstable-security`), its label does not.
            security: label == "Debian-Security" || [codename, suite].iter().any(|name| name.ends_with("-security")),
            release_time: time("Date"),
            valid_until_time: time("Valid-Until"),
            origin: Text::new(field("Origin")),
            verified: None,
        },
    }
}

/// Returns the time of `Sat, 10 May 2025 09:12:01 UTC`.
fn parse_date(text: &str) -> Option<Timestamp> {
    let text = text.replace("UTC", "+0000");
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Timestamp::try_from(time).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probe::patch_level::dpkg::installed;

    fn release(label: &str, suite: &str, more: &str) -> Release {
        parse_release(
            format!("Label: {label}\nSuite: {suite}\nDate: Sat, 10 May 2025 09:12:01 UTC\n{more}\n").as_bytes(),
        )
    }

    fn offers(lists: &[(Release, &str)]) -> Offers {
        let installed = installed(&[("a", "amd64", "2")]);
        let mut offers = Offers::default();
        for (release, versions) in lists {
            for version in versions.split(' ') {
                let text = format!("Package: a\nVersion: {version}\nArchitecture: amd64\n");
                let file = Box::new(io::Cursor::new(text.into_bytes()));
                offers.add_list(file, Packing::None, release, &installed).unwrap();
            }
        }
        offers
    }

    #[test]
    fn the_candidate_follows_apts_default_priorities() {
        let main = || release("Debian", "stable", "");
        let backports =
            || release("Debian Backports", "stable-backports", "NotAutomatic: yes\nButAutomaticUpgrades: yes");
        let experimental = || release("Debian", "experimental", "NotAutomatic: yes");
        for (lists, expected) in [
            (vec![(main(), "1 3 2.5")], Some("3")),
            (vec![(main(), "1 2")], None),
            (vec![(main(), "2"), (backports(), "9")], None),
            (vec![(backports(), "9")], Some("9")),
            (vec![(main(), "3"), (backports(), "9")], Some("3")),
            (vec![(experimental(), "9")], None),
            (vec![(main(), "2.1~rc1")], Some("2.1~rc1")),
        ] {
            let offers = offers(&lists);
            let candidate = offers.candidates.get(&("a".to_owned(), 0)).and_then(Offer::candidate);
            assert_eq!(candidate.map(|candidate| candidate.version.to_string()).as_deref(), expected, "{lists:?}");
        }
    }

    #[test]
    fn a_security_repository_is_told_by_its_label_or_suite() {
        for (label, suite, expected) in [
            ("Debian-Security", "oldstable-security", true),
            ("Ubuntu", "jammy-security", true),
            ("Ubuntu", "jammy-updates", false),
            ("security", "stable", false),
        ] {
            assert_eq!(release(label, suite, "").source.security, expected, "{label} {suite}");
        }
        let both = offers(&[(release("Debian", "stable", ""), "4"), (release("Debian-Security", "x", ""), "3")]);
        let offer = &both.candidates[&("a".to_owned(), 0)];
        assert!(offer.security);
        assert_eq!(offer.candidate().unwrap().label, "Debian");
    }

    const MAIN: &str = "deb.debian.org_debian_dists_bookworm";
    const SECURITY: &str = "deb.debian.org_debian-security_dists_bookworm-security";

    /// Returns what is offered by the machine with pending updates when its lists are these files, and why it is not all.
    fn incomplete(names: &[String]) -> Option<Unknown> {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-12-pending");
        let mut host = crate::host::Recorded::at(&case).unwrap();
        let text = |name: &str| muster_proto::fact::PathText::from_bytes(name.as_bytes());
        host.index_mut().lists.insert(text(FOLDER), names.iter().map(|name| text(name)).collect());
        read(&host, &installed(&[("a", "amd64", "2")])).incomplete
    }

    #[test]
    fn a_repository_without_a_package_list_leaves_it_open_what_is_pending() {
        let all = ["_InRelease", "_main_binary-amd64_Packages"];
        let both = |main: &[&str], security: &[&str]| -> Vec<String> {
            let names = |prefix: &'static str, ends: &[&str]| -> Vec<String> {
                ends.iter().map(|end| format!("{prefix}{end}")).collect()
            };
            [names(SECURITY, security), names(MAIN, main)].concat()
        };
        assert_eq!(incomplete(&both(&all, &all)), None);
        assert_eq!(incomplete(&both(&all, &[])), None, "it is not configured, and its metadata say so");
        assert_eq!(incomplete(&both(&["_InRelease", "_main_source_Sources"], &all)), None);
        for names in [
            both(&all, &["_InRelease"]),
            both(&all, &["_InRelease", "_main_i18n_Translation-en"]),
            both(&all, &["_InRelease", "_main_source_Sources"]),
            both(&["_InRelease"], &all),
            both(&[], &[]),
        ] {
            assert_eq!(incomplete(&names).map(|unknown| unknown.cause), Some(Cause::Absent), "{names:?}");
        }
    }

    #[test]
    fn a_release_date_is_read() {
        let expected = "2025-05-10T09:12:01Z".parse().unwrap();
        assert_eq!(release("x", "y", "").source.release_time, Reading::Known(expected));
        assert_eq!(parse_date("garbage"), None);
    }

    #[test]
    fn a_list_is_told_with_its_packing() {
        assert_eq!(packing("d_main_binary-amd64_Packages.lz4"), Some(("d_main_binary-amd64_Packages", Packing::Lz4)));
        assert_eq!(packing("d_Packages"), Some(("d_Packages", Packing::None)));
        assert_eq!(packing("d_Packages.zst"), Some(("d_Packages", Packing::Unknown)));
        assert_eq!(packing("d_InRelease"), None);
        assert_eq!(packing("d_main_binary-amd64_Packages.diff_Index"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC*") {
            let _ = parse_release(&bytes);
            let _ = parse_date(&text);
            let installed = installed(&[("a", "amd64", "2")]);
            for packing in [Packing::None, Packing::Gzip, Packing::Lz4, Packing::Xz] {
                let file = Box::new(io::Cursor::new(bytes.clone()));
                let _ = Offers::default().add_list(file, packing, &release("x", "y", ""), &installed);
            }
        }
    }
}
