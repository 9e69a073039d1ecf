//! What apt's fetched lists offer: `/var/lib/apt/lists`, as apt-get(8) update left it.

mod coverage;
mod release;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

pub(super) use coverage::Distribution;
use coverage::{is_for_host, uncovered, unlisted};
use debversion::Version;
use muster_proto::fact::{Cause, Reading, Unknown, UpdateSource};
use release::{Release, Stated, is_whole, parse_release, release_file};
use sha2::{Digest as _, Sha256};

use super::{
    dpkg::Installed,
    packing::{Packing, unpack},
    pins,
    sources::Configured,
};
use crate::{
    host::{self, FILE_BYTES, Host},
    probe::deb822::Stanzas,
};

pub(super) const FOLDER: &str = "/var/lib/apt/lists";
/// Priority of what is installed (apt_preferences(5)).
pub(super) const INSTALLED: u32 = 100;

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
    /// Why not every Release file could be read: then one of those may be a security repository's.
    pub releases_unknown: Option<Unknown>,
    /// Why none of the security repositories that are configured is for this host; `None` also where there are none.
    pub security_unknown: Option<Unknown>,
    /// Why it is not told what apt's pins make it choose.
    pub pins_unknown: Option<Unknown>,
    /// Of the installed packages with a component, those that some list has, in whatever version.
    pub listed: BTreeSet<String>,
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
    /// Priority of what it has, unless a pin gives another.
    pub priority: u32,
    /// Components that are configured.
    pub components: Vec<String>,
    /// The release that it belongs to, such as `bookworm`.
    pub release: String,
    /// Whether it brings the security updates of the host's own packages.
    pub is_security: bool,
}

/// What is offered for one package.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// Highest priority of a repository that has the installed version.
    installed_priority: u32,
    /// Highest priority of a repository that has an older version.
    older_priority: u32,
    best: Option<Candidate>,
    /// The newest version of a security repository.
    fix: Option<Version>,
    /// Whether a security repository has a newer version.
    pub security: bool,
}

/// A version that is newer than the installed one.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    priority: u32,
    pub version: Version,
    pub label: String,
    /// Share of hosts that it is offered to, in percent, while Ubuntu phases it in.
    pub phased_percent: Option<u64>,
}

impl Offer {
    /// Returns what apt would install: of the highest priority the newest, unless the installed version has a higher one.
    pub fn candidate(&self) -> Option<&Candidate> {
        self.best.as_ref().filter(|best| best.priority >= self.installed_priority.max(INSTALLED))
    }

    /// Returns whether pins make apt choose something else than an update that is as new as a security repository's: that is not told
    /// among what is pending.
    fn is_misled(&self) -> bool {
        let highest = self.best.as_ref().map_or(INSTALLED, |best| best.priority).max(self.installed_priority);
        // apt goes back to an older version from this on.
        self.older_priority >= 1000 && self.older_priority > highest
            || self.fix.as_ref().is_some_and(|fix| self.candidate().is_none_or(|candidate| candidate.version < *fix))
    }
}

/// Reads what the repositories that are `configured` offer; lists of others are left behind and apt uses them no more.
/// `verifies` says whether apt's settings make it check signatures.
pub(super) fn read(
    host: &dyn Host,
    installed: &Installed,
    configured: &Result<Vec<Configured>, Unknown>,
    verifies: &Reading<bool>,
    distribution: &Distribution,
) -> Offers {
    let mut offers = Offers::default();
    let configured: &[Configured] = match configured {
        Ok(configured) if configured.is_empty() => {
            offers.incomplete = Some(Unknown::new(Cause::Absent, "no package source is configured"));
            return offers;
        }
        Ok(configured) => configured,
        Err(unknown) => return Offers::without_releases(unknown.clone()),
    };
    let names = match host.list(Path::new(FOLDER)) {
        Ok(names) => names,
        Err(error) => return Offers::without_releases(host::unknown(format!("list {FOLDER}"), &error)),
    };
    let names: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
    let mut releases: BTreeMap<&str, Release> = BTreeMap::new();
    for name in &names {
        let Some((prefix, is_inline)) = release_file(name) else { continue };
        if !configured.iter().any(|it| it.file == prefix) {
            continue;
        }
        let path = Path::new(FOLDER).join(name);
        match host.read(&path, FILE_BYTES) {
            Ok(bytes) => {
                let mut release = parse_release(&bytes);
                let has_date = release.source.release_time.known().is_some();
                // What a host has in a folder of its own states little, and is none for security.
                let needs_date = !configured.iter().all(|it| it.file != prefix || is_own(it)) || release.names_security;
                if !is_whole(&bytes) || !has_date && needs_date {
                    let what = format!("{} is cut off, or has no date", path.display());
                    offers.releases_unknown = Some(Unknown::new(Cause::Garbled, what));
                }
                let is_signed =
                    if is_inline { release.is_signed } else { names.contains(&&*format!("{prefix}_Release.gpg")) };
                let is_unverified = configured.iter().any(|it| it.file == prefix && it.unverified);
                release.source.verified =
                    Some(if is_unverified || !is_signed { Reading::Known(false) } else { verifies.clone() });
                releases.insert(prefix, release);
            }
            Err(error) => {
                offers.releases_unknown = Some(host::unknown(format!("read {}", path.display()), &error));
            }
        }
    }
    for configured in configured.iter().filter(|it| is_own(it)) {
        let is_list = |name: &&str| {
            let list = packing(name).and_then(|(list, _)| list.strip_prefix(configured.file.as_str()));
            list == Some("_Packages")
        };
        if names.iter().any(is_list) {
            // apt takes it without a Release file, as if that stated nothing.
            let release = releases.entry(configured.file.as_str()).or_insert_with(|| parse_release(b""));
            release.source.verified = Some(Reading::Known(false));
        }
    }
    // One that could not be read may be what tells which release the host runs.
    if offers.releases_unknown.is_none() {
        offers.security_unknown = tell_security(&mut releases, distribution);
    }
    offers.incomplete = offers.releases_unknown.clone();
    let components = |prefix: &str| -> Vec<String> {
        configured.iter().filter(|it| it.file == prefix).flat_map(|it| it.components.iter().cloned()).collect()
    };
    offers.published = releases.iter().map(|(prefix, release)| release.published(prefix, components(prefix))).collect();
    let pins = pins::read(host, &offers.published, installed).unwrap_or_else(|unknown| {
        offers.pins_unknown = Some(unknown);
        pins::Pins::default()
    });
    releases.iter_mut().for_each(|(prefix, release)| release.pin(prefix, &pins));
    for name in &names {
        let Some((list, packing)) = packing(name) else { continue };
        let Some((prefix, release)) = release_of(list, &releases) else { continue };
        let stated = release.stated(list.strip_prefix(prefix).unwrap_or_default());
        let path = Path::new(FOLDER).join(name);
        let result = host.stream(&path).and_then(|file| offers.add_list(file, packing, stated, release, installed));
        if let Err(error) = result {
            offers.incomplete = Some(host::unknown(format!("read {}", path.display()), &error));
        }
    }
    if offers.incomplete.is_none() {
        let found: BTreeSet<&str> = names.iter().filter_map(|name| packing(name)).map(|(list, _)| list).collect();
        let missing = configured.iter().find_map(|it| missing(it, releases.get(it.file.as_str()), &found, installed));
        let uncovered = || uncovered(configured, &releases, installed.native());
        let unlisted = || unlisted(configured, &releases, installed, &offers.listed);
        let missing = missing.or_else(uncovered).or_else(unlisted).map(|what| Unknown::new(Cause::Absent, what));
        offers.incomplete = missing.or_else(|| offers.security_unknown.clone());
    }
    if let Some(path) = &pins.path
        && let Some(((name, _), _)) = offers.candidates.iter().find(|(_, offer)| offer.is_misled())
    {
        let what = format!("{path} pins repositories so that {name} is not updated as far as a repository has it");
        offers.pins_unknown = Some(Unknown::new(Cause::Unsupported, what));
    }
    offers.sources = releases.into_values().map(|release| release.source).collect();
    offers.sources.sort_by(|a, b| (&a.label, &a.codename, &a.suite).cmp(&(&b.label, &b.codename, &b.suite)));
    offers.sources.dedup();
    offers
}

/// Returns whether a repository is one folder, which apt takes as it is.
fn is_own(configured: &Configured) -> bool {
    configured.components.is_empty() && configured.unverified
}

/// Marks those of `releases` that are for this host's security updates, and returns why none is of those that have such a name.
fn tell_security(releases: &mut BTreeMap<&str, Release>, distribution: &Distribution) -> Option<Unknown> {
    let named = releases.iter().filter(|(_, release)| release.names_security);
    let strange: Vec<String> = named
        .clone()
        .filter(|(_, release)| !is_for_host(release, distribution, releases))
        .map(|(prefix, _)| (*prefix).to_owned())
        .collect();
    let is_none = !strange.is_empty() && strange.len() == named.count();
    let mut what = String::new();
    for (prefix, release) in releases.iter_mut().filter(|(prefix, _)| strange.iter().any(|it| it == **prefix)) {
        release.source.security = false;
        if what.is_empty() {
            what = format!(
                "{prefix} of {} is for another release or publisher than this host is of",
                release.source.origin
            );
        }
    }
    is_none.then(|| Unknown::new(Cause::Absent, what))
}

/// Returns what is missing of a repository that is configured.
fn missing(
    configured: &Configured,
    release: Option<&Release>,
    found: &BTreeSet<&str>,
    installed: &Installed,
) -> Option<String> {
    let (file, name) = (&configured.file, &configured.name);
    let Some(release) = release else {
        return Some(format!("{name} is configured, and there is no Release file of it"));
    };
    if configured.components.is_empty() {
        let is_there = found.contains(&*format!("{file}_Packages")) || !release.publishes("");
        return (!is_there).then(|| format!("no package list of {name} was fetched, only its Release file"));
    }
    let architectures = match configured.architectures.as_slice() {
        [] => installed.architectures(),
        named => named.iter().map(String::as_str).collect(),
    };
    configured.components.iter().find_map(|component| {
        let lacks = |architecture: &&&str| {
            let list = format!("{file}_{}_binary-{architecture}_Packages", super::sources::file_name(component));
            // Debian's security archive has `updates/` before its components, and apt leaves it out.
            let place = format!("{}/binary-{architecture}/", component.strip_prefix("updates/").unwrap_or(component));
            !found.contains(&*list) && release.publishes(&place)
        };
        let architecture = architectures.iter().find(lacks)?;
        Some(format!("no package list of {name} {component} for {architecture} was fetched"))
    })
}

/// Returns the Release file that covers the file `name`: the one of the longest prefix.
fn release_of<'r, 'n>(name: &str, releases: &'r BTreeMap<&'n str, Release>) -> Option<(&'n str, &'r Release)> {
    releases
        .iter()
        .filter(|(prefix, _)| name.strip_prefix(**prefix).is_some_and(|rest| rest.starts_with('_')))
        .max_by_key(|(prefix, _)| prefix.len())
        .map(|(prefix, release)| (*prefix, release))
}

/// Returns the name of a list of packages without its ending, and how it is packed.
fn packing(name: &str) -> Option<(&str, Packing)> {
    let (list, rest) = name.split_at(name.find("_Packages")? + "_Packages".len());
    Some((
        list,
        match rest {
            // The index of changes to a list, which is beside it.
            ".diff_Index" | ".IndexDiff" => return None,
            _ if rest.is_empty() || rest.starts_with('.') => Packing::of_ending(rest),
            _ => return None,
        },
    ))
}

impl Offers {
    fn without_releases(unknown: Unknown) -> Self {
        Self { incomplete: Some(unknown.clone()), releases_unknown: Some(unknown), ..Self::default() }
    }

    fn add_list(
        &mut self,
        file: Box<dyn io::Read>,
        packing: Packing,
        stated: Option<Stated>,
        release: &Release,
        installed: &Installed,
    ) -> io::Result<()> {
        let mut has_any = false;
        let mut stanzas = Stanzas::new(&["Package", "Version", "Architecture", "Phased-Update-Percentage"], |fields| {
            has_any = true;
            self.add(fields, release, installed);
        });
        let sha256 = stated.and_then(|stated| stated.sha256);
        let mut digested = Digested { to: &mut stanzas, hash: sha256.map(|_| Sha256::new()) };
        let found = unpack(file, packing, &mut digested)?;
        let digest: Option<[u8; 32]> = digested.hash.map(|hash| hash.finalize().into());
        stanzas.finish();
        let garbled = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        match stated {
            Some(Stated { bytes, .. }) if bytes != found => {
                garbled(format!("it has {found} bytes, of {bytes} that its Release file states"))
            }
            _ if digest != sha256 => garbled("its digest is not the one that its Release file states".to_owned()),
            _ if found > 0 && !has_any => garbled("it lists no package".to_owned()),
            _ => Ok(()),
        }
    }

    fn add(&mut self, fields: &BTreeMap<&'static str, String>, release: &Release, installed: &Installed) {
        let (Some(name), Some(version)) = (fields.get("Package"), fields.get("Version")) else { return };
        let Some(packages) = installed.packages.get(name) else { return };
        if packages.iter().any(|it| it.component.is_some()) && !self.listed.contains(name) {
            self.listed.insert(name.clone());
        }
        let architecture = fields.get("Architecture").map(String::as_str).unwrap_or_default();
        let Ok(version) = version.parse::<Version>() else { return };
        for (at, package) in packages.iter().enumerate() {
            let fits = architecture == package.architecture || architecture == "all" || package.architecture == "all";
            let priority = release.priority_of(name);
            if !fits || version < package.version && priority < 1000 {
                continue;
            }
            let offer = self.candidates.entry((name.clone(), at)).or_default();
            if version < package.version {
                offer.older_priority = offer.older_priority.max(priority);
                continue;
            }
            if version == package.version {
                offer.installed_priority = offer.installed_priority.max(priority);
                continue;
            }
            offer.security |= release.names_security;
            if release.names_security && offer.fix.as_ref().is_none_or(|fix| *fix < version) {
                offer.fix = Some(version.clone());
            }
            let phased_percent = fields.get("Phased-Update-Percentage").and_then(|percent| percent.parse().ok());
            let own = (priority, &version);
            match &mut offer.best {
                // One repository that offers it to all is enough, such as that for security updates.
                Some(best) if (best.priority, &best.version) == own => {
                    best.phased_percent = best.phased_percent.and(phased_percent);
                }
                Some(best) if (best.priority, &best.version) > own => {}
                best => {
                    *best = Some(Candidate {
                        priority,
                        version: version.clone(),
                        label: release.source.label.as_str().to_owned(),
                        phased_percent,
                    });
                }
            }
        }
    }
}

/// Takes the digest of what passes, if it is asked for.
struct Digested<W> {
    to: W,
    hash: Option<Sha256>,
}

impl<W: io::Write> io::Write for Digested<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes[..written]);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
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
                offers.add_list(file, Packing::None, None, release, &installed).unwrap();
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
    fn pins_that_keep_an_update_from_being_chosen_are_seen() {
        let release_of = |name: &str, priority| {
            let mut release = release(name, name, "");
            release.pin("x", &pins::Pins { all: [("x".to_owned(), priority)].into(), ..pins::Pins::default() });
            release
        };
        let (security, other) = ("Debian-Security", "Other");
        for (lists, candidate, is_misled) in [
            (vec![(release_of(other, 500), "2"), (release_of(security, 510), "3")], Some("3"), false),
            (vec![(release_of(other, 510), "2"), (release_of(security, 500), "3")], None, true),
            (vec![(release_of(other, 510), "3"), (release_of(security, 500), "4")], Some("3"), true),
            (vec![(release_of(other, 510), "4"), (release_of(security, 500), "3")], Some("4"), false),
            (vec![(release_of(other, 600), "2"), (release_of("Main", 500), "3")], None, false),
            // An older version is installed in its place.
            (vec![(release_of(other, 1000), "1")], None, true),
            (vec![(release_of(other, 1000), "1 2")], None, false),
            (vec![(release_of(other, 1000), "1 3")], Some("3"), false),
            (vec![(release_of(other, 999), "1")], None, false),
        ] {
            let offers = offers(&lists);
            let offer = offers.candidates.get(&("a".to_owned(), 0));
            let found = offer.and_then(Offer::candidate).map(|candidate| candidate.version.to_string());
            assert_eq!(found.as_deref(), candidate, "{lists:?}");
            assert_eq!(offer.is_some_and(Offer::is_misled), is_misled, "{lists:?}");
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

    #[test]
    fn an_update_is_phased_while_no_repository_offers_it_to_all() {
        let phased = |lists: &[&str]| {
            let installed = installed(&[("a", "amd64", "2")]);
            let mut offers = Offers::default();
            for text in lists {
                let file = Box::new(io::Cursor::new(format!("Package: a\nArchitecture: amd64\n{text}").into_bytes()));
                offers
                    .add_list(file, Packing::None, None, &release("Ubuntu", "jammy-updates", ""), &installed)
                    .unwrap();
            }
            offers.candidates[&("a".to_owned(), 0)].candidate().unwrap().phased_percent
        };
        assert_eq!(phased(&["Version: 3\nPhased-Update-Percentage: 20\n"]), Some(20));
        assert_eq!(phased(&["Version: 3\nPhased-Update-Percentage: 20\n", "Version: 3\n"]), None);
        assert_eq!(phased(&["Version: 3\n", "Version: 3\nPhased-Update-Percentage: 20\n"]), None);
        assert_eq!(phased(&["Version: 3\n", "Version: 4\nPhased-Update-Percentage: 0\n"]), Some(0));
        assert_eq!(phased(&["Version: 3\n"]), None);
    }

    const MAIN: &str = "deb.debian.org_debian_dists_bookworm";
    const SECURITY: &str = "deb.debian.org_debian-security_dists_bookworm-security";

    fn configured(file: &str, components: &[&str]) -> Configured {
        Configured {
            file: file.to_owned(),
            name: file.to_owned(),
            components: components.iter().map(|&component| component.to_owned()).collect(),
            architectures: Vec::new(),
            unverified: false,
        }
    }

    /// Returns what is offered by the machine with pending updates when its lists are these files.
    fn offered(names: &[String], configured: Vec<Configured>) -> Offers {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-12-pending");
        let mut host = crate::host::Recorded::at(&case).unwrap();
        let text = |name: &str| muster_proto::fact::PathText::from_bytes(name.as_bytes());
        host.index_mut().lists.insert(text(FOLDER), names.iter().map(|name| text(name)).collect());
        let installed = installed(&[("a", "amd64", "2"), ("dpkg", "amd64", "1")]);
        read(&host, &installed, &Ok(configured), &Reading::Known(true), &Distribution::default())
    }

    #[test]
    fn a_configured_source_without_its_lists_leaves_it_open_what_is_pending() {
        let all = ["_InRelease", "_main_binary-amd64_Packages"];
        let both = |main: &[&str], security: &[&str]| -> Vec<String> {
            let names = |prefix: &'static str, ends: &[&str]| -> Vec<String> {
                ends.iter().map(|end| format!("{prefix}{end}")).collect()
            };
            [names(SECURITY, security), names(MAIN, main)].concat()
        };
        let incomplete = |names: &[String], components: &[&str]| {
            let configured = vec![configured(MAIN, &["main"]), configured(SECURITY, components)];
            offered(names, configured).incomplete
        };
        assert_eq!(incomplete(&both(&all, &all), &["main"]), None);
        for (names, components, missing) in [
            (both(&all, &["_InRelease"]), vec!["main"], "_security_dists_bookworm-security main for amd64"),
            (both(&all, &["_InRelease", "_main_i18n_Translation-en"]), vec!["main"], "main for amd64"),
            (both(&all, &["_InRelease", "_main_source_Sources"]), vec!["main"], "main for amd64"),
            (both(&["_InRelease"], &all), vec!["main"], "main for amd64"),
            (both(&all, &all), vec!["main", "non-free"], "non-free for amd64"),
            (both(&all, &[]), vec!["main"], "no Release file"),
            (both(&[], &[]), vec!["main"], "no Release file"),
        ] {
            let unknown = incomplete(&names, &components).unwrap();
            assert_eq!(unknown.cause, Cause::Absent, "{names:?}");
            let missing = missing.trim_start_matches("_security_dists_bookworm-security ");
            assert!(unknown.detail.as_str().contains(missing), "{names:?}: {unknown:?}");
        }
        // A component that its publisher has nothing in is not fetched; one for security that it does not have is a mistake.
        assert_eq!(incomplete(&both(&all, &all), &["main", "contrib"]), None);
        let unknown = incomplete(&both(&all, &all), &["main", "no-such-component"]).unwrap();
        assert!(unknown.detail.as_str().contains("publishes nothing in no-such-component"), "{unknown:?}");
    }

    #[test]
    fn a_folder_of_packages_that_is_trusted_needs_no_release_file() {
        let names: Vec<String> = [MAIN, SECURITY]
            .iter()
            .flat_map(|prefix| ["_InRelease", "_main_binary-amd64_Packages"].map(|end| format!("{prefix}{end}")))
            .collect();
        let with = |list: &str, unverified: bool| {
            let flat = Configured { unverified, ..configured("_srv_flat_.", &[]) };
            let configured = vec![configured(MAIN, &["main"]), configured(SECURITY, &["main"]), flat];
            offered(&[&names[..], &[list.to_owned()]].concat(), configured)
        };
        let untold = |offers: &Offers| offers.incomplete.as_ref().map(|unknown| unknown.detail.to_string());
        // The list itself is not in the capture, and is read.
        let found = with("_srv_flat_._Packages", true);
        assert!(untold(&found).unwrap().starts_with("read /var/lib/apt/lists/_srv_flat_._Packages"), "{found:?}");
        let sources: Vec<_> = found.sources.iter().map(|it| (it.label.as_str(), it.security)).collect();
        assert_eq!(sources, [("", false), ("Debian", false), ("Debian-Security", true)]);
        for offers in [with("_srv_flat_._Packages", false), with("_srv_flat_._other", true)] {
            assert!(untold(&offers).unwrap().contains("no Release file of it"), "{offers:?}");
        }
    }

    #[test]
    fn lists_of_a_source_that_is_configured_no_more_are_left_out() {
        let names: Vec<String> = [MAIN, SECURITY]
            .iter()
            .flat_map(|prefix| ["_InRelease", "_main_binary-amd64_Packages"].map(|end| format!("{prefix}{end}")))
            .collect();
        let offers = offered(&names, vec![configured(MAIN, &["main"])]);
        assert_eq!(offers.incomplete, None);
        assert_eq!(offers.sources.iter().map(|source| source.security).collect::<Vec<_>>(), [false]);
        assert_eq!(offered(&names, Vec::new()).incomplete.map(|unknown| unknown.cause), Some(Cause::Absent));
    }

    #[test]
    fn a_security_repository_of_another_release_is_none_of_this_host() {
        let names: Vec<String> = [MAIN, SECURITY]
            .iter()
            .flat_map(|prefix| ["_InRelease", "_main_binary-amd64_Packages"].map(|end| format!("{prefix}{end}")))
            .collect();
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-12-pending");
        let mut host = crate::host::Recorded::at(&case).unwrap();
        let text = |name: &str| muster_proto::fact::PathText::from_bytes(name.as_bytes());
        host.index_mut().lists.insert(text(FOLDER), names.iter().map(|name| text(name)).collect());
        let configured = || Ok(vec![configured(MAIN, &["main"]), configured(SECURITY, &["main"])]);
        let installed = installed(&[("dpkg", "amd64", "1")]);
        for (codename, expected) in [("bookworm", true), ("trixie", false)] {
            let distribution = Distribution::parse(&format!("ID=debian\nVERSION_CODENAME={codename}\n"));
            let offers = read(&host, &installed, &configured(), &Reading::Known(true), &distribution);
            assert_eq!(offers.sources.iter().any(|source| source.security), expected);
            assert_eq!(offers.incomplete, offers.security_unknown);
            assert_eq!(offers.security_unknown.is_none(), expected, "{:?}", offers.security_unknown);
        }
    }

    #[test]
    fn a_source_is_verified_unless_it_is_trusted_as_it_is() {
        let names: Vec<String> =
            ["_InRelease", "_main_binary-amd64_Packages"].map(|end| format!("{MAIN}{end}")).to_vec();
        for unverified in [false, true] {
            let offers = offered(&names, vec![Configured { unverified, ..configured(MAIN, &["main"]) }]);
            assert_eq!(offers.sources[0].verified, Some(Reading::Known(!unverified)));
        }
        assert!(!parse_release(b"Label: x\n").is_signed);
    }

    #[test]
    fn a_list_that_is_not_as_its_release_file_states_is_garbled() {
        let stated = release("Debian", "stable", "");
        let installed = installed(&[("a", "amd64", "2")]);
        let text = b"Package: a\nVersion: 3\nArchitecture: amd64\n";
        let other = b"Package: a\nVersion: 2\nArchitecture: amd64\n";
        let sized = |bytes: u64| Some(Stated { bytes, sha256: None });
        let digested = |of: &[u8]| Some(Stated { bytes: of.len() as u64, sha256: Some(Sha256::digest(of).into()) });
        for (text, stated_of_it, expected) in [
            (&text[..], sized(text.len() as u64), true),
            (&text[..], None, true),
            (&text[..], sized(20), false),
            (&text[..], digested(text), true),
            (&text[..], digested(other), false),
            (b"", sized(0), true),
            (b"", digested(b""), true),
            (b"\xaf\x9e", None, false),
        ] {
            let file = Box::new(io::Cursor::new(text.to_vec()));
            let result = Offers::default().add_list(file, Packing::None, stated_of_it, &stated, &installed);
            let kind = result.err().map(|error| error.kind());
            assert_eq!(kind, (!expected).then_some(io::ErrorKind::InvalidData), "{stated_of_it:?}");
        }
    }

    #[test]
    fn packages_with_a_component_are_listed_in_whatever_version() {
        let mut installed = installed(&[("a", "amd64", "2"), ("b", "amd64", "2"), ("c", "amd64", "2")]);
        for name in ["a", "b"] {
            installed.packages.get_mut(name).unwrap()[0].component = Some("contrib".to_owned());
        }
        let text = b"Package: a\nVersion: 1\nArchitecture: i386\n\nPackage: c\nVersion: 2\nArchitecture: amd64\n";
        let mut offers = Offers::default();
        let file = Box::new(io::Cursor::new(text.to_vec()));
        offers.add_list(file, Packing::None, None, &release("x", "y", ""), &installed).unwrap();
        assert_eq!(offers.listed, BTreeSet::from(["a".to_owned()]));
    }

    #[test]
    fn a_list_is_told_with_its_packing() {
        assert_eq!(packing("d_main_binary-amd64_Packages.lz4"), Some(("d_main_binary-amd64_Packages", Packing::Lz4)));
        assert_eq!(packing("d_Packages"), Some(("d_Packages", Packing::None)));
        assert_eq!(packing("d_Packages.bz2"), Some(("d_Packages", Packing::Unknown)));
        assert_eq!(packing("d_InRelease"), None);
        assert_eq!(packing("d_main_binary-amd64_Packages.diff_Index"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_release(&bytes);
            let installed = installed(&[("a", "amd64", "2")]);
            for packing in [Packing::None, Packing::Gzip, Packing::Lz4, Packing::Xz] {
                let file = Box::new(io::Cursor::new(bytes.clone()));
                let _ = Offers::default().add_list(file, packing, None, &release("x", "y", ""), &installed);
            }
        }
    }
}
