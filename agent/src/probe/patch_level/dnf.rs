//! Hosts of the rpm world: which repositories dnf or zypper use, and what their fetched metadata offer.
//!
//! Both keep the metadata as they fetched them, in one format. No resolver is asked: an update is the newest version of what is
//! installed in a repository in use, and it is about security when an advisory about security brings a version that is newer
//! than the installed one. What renames a package (`Obsoletes`) is not followed.

mod automatic;
mod cache;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{Cause, PackageManager, PatchLevel, PendingUpdate, Reading, Text, Unknown, UpdateSource},
    time::Timestamp,
};

use super::{
    Dated, Found,
    held::{self, Held, is_left_out},
    offered::Sight,
    repodata::{self, Advised},
    repositories::{
        DNF_REPOSITORIES, DNF_SETTINGS, DNF_SETTINGS_FOLDERS, MODULES, OVERRIDES, Repository, ZYPPER_REPOSITORIES,
        ZYPPER_SETTINGS, ZYPPER_SETTINGS_FOLDER, module_streams, repositories,
    },
    restart::{self, Running},
    rpm::{self, Installed, Rpm},
    rpm_restart,
    rpm_version::Evr,
    security, units,
    vendors::{self, Vendors},
};
use crate::{
    host::{self, Host},
    probe::Look,
};

/// Of a distribution's own packages some are always installed. Advisories of a repository that has none of them, such as one of
/// additions, say nothing about the distribution.
const BASE: &[&str] = &[
    "bash",
    "curl",
    "glibc",
    "kernel",
    "kernel-core",
    "kernel-default",
    "libopenssl3",
    "openssl-libs",
    "rpm",
    "systemd",
];

/// Files that the facts are made from, beside those of [`folders`].
pub(super) const FILES: &[&str] = &[
    DNF_SETTINGS,
    ZYPPER_SETTINGS[0],
    ZYPPER_SETTINGS[1],
    held::ZYPPER_LOCKS,
    automatic::SETTINGS,
    automatic::OSTREE,
    automatic::ONLINE_UPDATE_SETTINGS,
    units::WANTED[1],
    rpm_restart::NOTE,
    held::VERSION_LOCK_SETTINGS,
    held::VERSION_LOCKS[0],
    held::VERSION_LOCKS[1],
    "/etc/cron.daily/opensuse.org-online_update",
    "/etc/cron.weekly/opensuse.org-online_update",
    "/etc/cron.monthly/opensuse.org-online_update",
];

/// Returns the folders of files that the facts are made from.
pub(super) fn folders(host: &dyn Host) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = rpm::FOLDERS.iter().chain(DNF_REPOSITORIES).map(PathBuf::from).collect();
    folders.extend([ZYPPER_REPOSITORIES, ZYPPER_SETTINGS_FOLDER, vendors::FOLDER, MODULES].map(PathBuf::from));
    folders.extend(DNF_SETTINGS_FOLDERS.iter().chain(&OVERRIDES).chain(&units::OWN).map(PathBuf::from));
    folders.extend(cache::folders(host));
    folders
}

pub(super) fn look(look: &Look<'_>) -> Result<Found, Unknown> {
    let host = look.host;
    let installed = rpm::read(host)?;
    let manager = match host.list(Path::new(ZYPPER_REPOSITORIES)) {
        Ok(_) => PackageManager::Zypper,
        Err(error) if host::cause(&error) == Cause::Absent => PackageManager::Dnf,
        Err(error) => return Err(host::unknown(format!("list {ZYPPER_REPOSITORIES}"), &error)),
    };
    let mut offers = Offers::of(&installed, manager);
    let held = offers.add_all(host).unwrap_or_else(|unknown| {
        offers.lacks(unknown);
        Held::default()
    });
    let running = host.machine().map(|machine| machine.release);
    let kernel = Running::look(host, running.as_deref().ok());
    let (restart, newest_kernel) = rpm_restart::look(look, &kernel, &installed);
    let newest_kernel = super::newest_kernel(&running, newest_kernel);
    let pending_complete = match offers.incomplete.clone().or_else(|| offers.undecided()).or_else(|| offers.unlisted())
    {
        Some(unknown) => Reading::Unknown { unknown },
        None => Reading::Known(true),
    };
    // What could not be read may be about security; a repository that has no metadata here says nothing.
    let faulty = offers.incomplete.clone().filter(is_fault);
    let security_time = match (&faulty, offers.has_base) {
        (Some(unknown), _) => Reading::Unknown { unknown: unknown.clone() },
        (None, true) => security::time(&offers.sources),
        (None, false) => Reading::unknown(
            Cause::Absent,
            "no repository with the distribution's own packages has security advisories",
        ),
    };
    let is_complete = pending_complete == Reading::Known(true);
    let sight = Sight { now: look.now, is_complete, metadata: security_time.known().copied() };
    let versions = |key: &str| {
        let (name, architecture) = key.rsplit_once(':').unwrap_or((key, ""));
        let packages = installed.get(&(name.to_owned(), architecture.to_owned())).into_iter().flatten();
        packages.map(|package| package.evr.to_string()).collect()
    };
    let patch_level = PatchLevel {
        manager,
        pending: super::pending(look, sight, offers.pending(&held, look.now), &versions)?,
        pending_complete,
        security_metadata_time: security_time,
        security_metadata_valid_until_time: security::end(&offers.sources),
        running_kernel: super::running_kernel(running),
        newest_kernel,
        reboot_required: restart.required,
        reboot_required_since_time: restart.since,
        reboot_packages: restart.packages,
        automatic_updates: automatic::updates(host, manager),
        security_metadata_verified: Some(security::unless_false(&faulty, security::verified(&offers.sources))),
        sources: offers.sources,
        live_patches: restart::live_patches(host),
    };
    Ok(Found { patch_level, software: rpm::software(&installed) })
}

/// What the metadata of all repositories offer for what is installed.
struct Offers<'i> {
    /// The newest installed version of each package.
    installed: BTreeMap<(&'i str, &'i str), &'i Rpm>,
    names: BTreeSet<&'i str>,
    /// Names that a list has, in whatever version.
    listed: BTreeSet<&'i str>,
    /// Id of a repository of the distribution's own that is switched off.
    switched_off: Option<String>,
    manager: PackageManager,
    vendors: Vendors,
    /// Versions that the repository which is being read has of other vendors than the installed ones are of.
    foreign: BTreeSet<(String, String, Evr)>,
    streams: BTreeSet<String>,
    candidates: BTreeMap<(&'i str, &'i str), Candidate>,
    /// By package: the newest version that an advisory about security brings, and the date of the oldest such advisory.
    fixes: BTreeMap<(&'i str, &'i str), Fix>,
    /// Packages that an advisory of an enabled stream names.
    of_streams: BTreeSet<(&'i str, &'i str)>,
    /// By package: why it is not told whether a fix is of its stream.
    undecided: BTreeMap<(&'i str, &'i str), Undecided>,
    sources: Vec<UpdateSource>,
    /// Whether advisories about security cover the distribution itself.
    has_base: bool,
    incomplete: Option<Unknown>,
}

struct Candidate {
    priority: u32,
    evr: Evr,
    repository: String,
}

struct Fix {
    evr: Evr,
    repository: String,
    issued: Option<Timestamp>,
    /// Whether the settings of each repository that has it leave it out.
    left_out: bool,
}

/// Whose a version of a module is that an advisory brings.
enum Stream {
    /// It follows the installed version.
    Own,
    /// It is of another stream, or it is of one and the installed version of none.
    Other,
    Undecided(Undecided),
}

/// A fix of which it is not told whether it is of the installed package's stream.
struct Undecided {
    evr: Evr,
    /// `name:stream` that its advisory tells.
    module: Option<String>,
}

/// Returns whether a version is of a module, whose streams are counted apart: `1.module+el8.4.0+404+316a0dc5`, and with
/// `.module_el8` or `.module_f31` where the distribution's tag has no plus.
fn is_modular(evr: &Evr) -> bool {
    evr.release.contains(".module+") || evr.release.contains(".module_")
}

/// Returns whether something failed, rather than that there is nothing or nothing that is read here.
fn is_fault(unknown: &Unknown) -> bool {
    !matches!(unknown.cause, Cause::Absent | Cause::Unsupported)
}

impl<'i> Offers<'i> {
    fn of(installed: &'i Installed, manager: PackageManager) -> Self {
        let newest = installed.iter().filter_map(|((name, architecture), packages)| {
            Some(((name.as_str(), architecture.as_str()), packages.last()?))
        });
        Self {
            installed: newest.collect(),
            names: installed.keys().map(|(name, _)| name.as_str()).collect(),
            listed: BTreeSet::new(),
            switched_off: None,
            manager,
            vendors: Vendors::default(),
            foreign: BTreeSet::new(),
            streams: BTreeSet::new(),
            candidates: BTreeMap::new(),
            fixes: BTreeMap::new(),
            of_streams: BTreeSet::new(),
            undecided: BTreeMap::new(),
            sources: Vec::new(),
            has_base: false,
            incomplete: None,
        }
    }

    /// Adds what all repositories in use offer, and returns which packages stay as they are.
    fn add_all(&mut self, host: &dyn Host) -> Result<Held, Unknown> {
        self.streams = module_streams(host)?;
        let repositories = repositories(host, self.manager)?;
        if repositories.used.is_empty() {
            return Err(Unknown::new(Cause::Absent, "no repository is enabled"));
        }
        self.switched_off = repositories.switched_off;
        self.vendors = repositories.vendors;
        for repository in &repositories.used {
            if let Err(unknown) = self.try_add(host, repository) {
                self.lacks(unknown);
            }
            held::untold(repository).into_iter().for_each(|unknown| self.lacks(unknown));
        }
        let held = held::held(host, self.manager)?;
        held.untold.iter().for_each(|unknown| self.lacks(unknown.clone()));
        Ok(held)
    }

    /// Keeps why something is not among what is offered: of several reasons, rather one that something failed.
    fn lacks(&mut self, unknown: Unknown) {
        if !self.incomplete.as_ref().is_some_and(is_fault) {
            self.incomplete = Some(unknown);
        }
    }

    fn try_add(&mut self, host: &dyn Host, repository: &Repository) -> Result<(), Unknown> {
        let id = &repository.id;
        if id.contains('$') {
            let what = format!("repository {id} has a variable in its name, for which its metadata are not found");
            return Err(Unknown::new(Cause::Unsupported, what));
        }
        let (folder, index) = cache::newest(host, self.manager, id)?;
        if ["primary", "updateinfo"].into_iter().any(|kind| cache::is_zchunk_alone(host, &folder, &index, kind)) {
            let what =
                format!("lists of repository {id} are kept in the format of zchunk alone, which is not read here");
            return Err(Unknown::new(Cause::Unsupported, what));
        }
        let primary = cache::list(&folder, &index, "primary").ok_or_else(|| {
            let what = format!("metadata of repository {id} have no list of packages that is read here");
            Unknown::new(Cause::Unsupported, what)
        })?;
        self.foreign.clear();
        let mut has_base = false;
        let unknown = |path: &Path, error: &io::Error| host::unknown(format!("read {}", path.display()), error);
        let each = |package: &repodata::Offered| {
            has_base |= BASE.contains(&package.name.as_str()) && self.names.contains(package.name.as_str());
            self.add_package(repository, package);
        };
        repodata::primary(|to| cache::fill(host, &primary, to), each).map_err(|error| unknown(&primary, &error))?;
        let mut is_security = false;
        if index.lists.contains_key("updateinfo") {
            let path = cache::list(&folder, &index, "updateinfo").expect("the index has it");
            let names = self.names.clone();
            let each = |advised: &Advised| self.add_advised(repository, advised);
            let advisories = repodata::advisories(|to| cache::fill(host, &path, to), |name| names.contains(name), each);
            is_security = advisories.map_err(|error| unknown(&path, &error))?;
        }
        self.has_base |= has_base && is_security;
        let is_signed = repository.is_signed && host.metadata(&folder.join("repomd.xml.asc")).is_ok();
        let no_time = || Reading::unknown(Cause::Absent, "repomd.xml states no time");
        self.sources.push(UpdateSource {
            label: Text::new(&repository.id),
            codename: Text::default(),
            suite: Text::default(),
            security: is_security,
            release_time: index.made.map_or_else(no_time, Reading::Known),
            valid_until_time: Reading::unknown(Cause::Absent, "repomd.xml states no end"),
            origin: Text::default(),
            verified: Some(match is_signed {
                true => Reading::Known(true),
                false => repository.transport.verified(|| cache::mirrors(host, &folder)),
            }),
        });
        self.sources.sort_by(|a, b| a.label.cmp(&b.label));
        Ok(())
    }

    /// Returns the installed package that a version of another architecture may stand for, too.
    fn installed_as(&self, name: &str, architecture: &str) -> Option<&'i Rpm> {
        let of_name = self.installed.range((name, "")..).take_while(|((own, _), _)| *own == name);
        let fits = |own: &str| own == architecture || own == "noarch" || architecture == "noarch";
        of_name.filter(|((_, own), _)| fits(own)).map(|(_, package)| *package).next()
    }

    fn add_package(&mut self, repository: &Repository, package: &repodata::Offered) {
        self.listed.extend(self.names.get(package.name.as_str()));
        let Some(installed) = self.installed_as(&package.name, &package.architecture) else { return };
        let repodata::Offered { name, architecture, evr, vendor } = package;
        if self.manager == PackageManager::Zypper && !self.vendors.are_one(vendor, &installed.vendor) {
            if !self.vendors.may_be_one(vendor, &installed.vendor) {
                self.foreign.insert((name.clone(), architecture.clone(), evr.clone()));
            }
            return;
        }
        let is_left_out = is_left_out(repository, held::Version { name, architecture, evr });
        if is_left_out || is_modular(&package.evr) || is_modular(&installed.evr) {
            // Of modules, the advisories tell which stream a version is of.
            return;
        }
        self.add_candidate(installed, &package.evr, repository);
    }

    fn add_candidate(&mut self, installed: &'i Rpm, evr: &Evr, repository: &Repository) {
        let key = (installed.name.as_str(), installed.architecture.as_str());
        let candidate =
            || Candidate { priority: repository.priority, evr: evr.clone(), repository: repository.id.clone() };
        let best = self.candidates.entry(key).or_insert_with(candidate);
        // A repository of a higher rank hides what others have of the same name.
        let is_better = repository.priority < best.priority || repository.priority == best.priority && *evr > best.evr;
        if is_better {
            *best = candidate();
        }
    }

    fn add_advised(&mut self, repository: &Repository, advised: &Advised) {
        let Some(installed) = self.installed_as(&advised.name, &advised.architecture) else { return };
        let key = (installed.name.as_str(), installed.architecture.as_str());
        if self.foreign.contains(&(advised.name.clone(), advised.architecture.clone(), advised.evr.clone())) {
            return;
        }
        let stream = self.stream(advised, installed);
        if let (Stream::Own, Some(_)) = (&stream, &advised.module) {
            // Older ones, too, tell of which stream the installed version is.
            self.of_streams.insert(key);
        }
        if advised.evr <= installed.evr {
            return;
        }
        match stream {
            Stream::Own => {}
            Stream::Other => return,
            Stream::Undecided(undecided) => {
                // What is told without a module stays open, whatever else is known.
                if advised.security && (undecided.module.is_none() || !self.undecided.contains_key(&key)) {
                    self.undecided.insert(key, undecided);
                }
                return;
            }
        }
        let Advised { name, architecture, evr, .. } = advised;
        let left_out = is_left_out(repository, held::Version { name, architecture, evr });
        if is_modular(&advised.evr) && !left_out {
            self.add_candidate(installed, &advised.evr, repository);
        }
        if !advised.security {
            return;
        }
        let (evr, issued) = (advised.evr.clone(), advised.issued);
        let fix = || Fix { evr, repository: repository.id.clone(), issued, left_out };
        let known = self.fixes.entry(key).or_insert_with(fix);
        match advised.evr.cmp(&known.evr) {
            Ordering::Greater => {
                (known.evr, known.repository) = (advised.evr.clone(), repository.id.clone());
                known.left_out = left_out;
            }
            Ordering::Equal if known.left_out && !left_out => {
                (known.repository, known.left_out) = (repository.id.clone(), false);
            }
            Ordering::Equal | Ordering::Less => {}
        }
        known.issued = match (known.issued, advised.issued) {
            (Some(known), Some(issued)) => Some(known.min(issued)),
            (known, issued) => known.or(issued),
        };
    }

    fn stream(&self, advised: &Advised, installed: &Rpm) -> Stream {
        let undecided = || Stream::Undecided(Undecided { evr: advised.evr.clone(), module: advised.module.clone() });
        match (is_modular(&installed.evr), &advised.module) {
            (false, Some(_)) => Stream::Other,
            (false, None) if is_modular(&advised.evr) => Stream::Other,
            (false, None) => Stream::Own,
            (true, Some(stream)) if self.streams.contains(stream) => Stream::Own,
            (true, Some(stream)) => {
                // Of a module one stream at most is enabled (dnf.modularity(7)). One that is the default need not be.
                let name = |stream: &str| stream.split(':').next().map(str::to_owned);
                let is_another = self.streams.iter().any(|enabled| name(enabled) == name(stream));
                if is_another { Stream::Other } else { undecided() }
            }
            // Some publishers leave the module out of their advisories.
            (true, None) if is_modular(&advised.evr) => undecided(),
            (true, None) => Stream::Other,
        }
    }

    /// Returns which fix may be missing, as far as it is not told of which stream it is.
    fn undecided(&self) -> Option<Unknown> {
        let is_open = |(key, it): &(&(&str, &str), &Undecided)| it.module.is_none() || !self.of_streams.contains(*key);
        let (key, Undecided { evr, module }) = self.undecided.iter().find(is_open)?;
        let (name, own) = (key.0, &self.installed.get(key)?.evr);
        let why = match module {
            Some(stream) => format!("is of {stream}, and {MODULES} enables no stream of that module"),
            None => "is told without its module".to_owned(),
        };
        let what = format!("a security update of {name} to {evr} {why}: not known whether it is of {own}'s stream");
        Some(Unknown::new(Cause::Undecidable, what))
    }

    /// Returns which package may lack updates, as it is of the distribution, in no list, and a repository of the distribution's own is
    /// switched off. Beside what such a mark tells of a release, what a release left behind is in no list either.
    fn unlisted(&self) -> Option<Unknown> {
        let id = self.switched_off.as_ref()?;
        let publisher = |package: &'i Rpm| (package.vendor.as_str(), release_mark(&package.evr.release));
        let (_, base) = self.installed.range(("bash", "")..).next().filter(|((name, _), _)| *name == "bash")?;
        let is_lost = |((name, _), package): &(&(&str, &str), &&'i Rpm)| {
            !self.listed.contains(name) && publisher(package) == publisher(base)
        };
        let ((name, _), _) = self.installed.iter().find(is_lost)?;
        let what = format!("repository {id} is not enabled, and {name}, which is installed, is in no list");
        Some(Unknown::new(Cause::Absent, what))
    }

    fn pending(&self, held: &Held, now: Timestamp) -> Vec<Dated> {
        let update = |(key, installed): (&(&'i str, &'i str), &&'i Rpm)| {
            let candidate = self.candidates.get(key).filter(|candidate| candidate.evr > installed.evr);
            let fix = self.fixes.get(key);
            let is_short = |fix: &Fix| candidate.is_none_or(|candidate| candidate.evr < fix.evr);
            let left_out = fix.filter(|fix| fix.left_out && is_short(fix));
            let (evr, origin) = match (candidate, fix) {
                (_, Some(fix)) if left_out.is_some() => (&fix.evr, &fix.repository),
                (Some(candidate), _) => (&candidate.evr, &candidate.repository),
                (None, Some(fix)) => (&fix.evr, &fix.repository),
                (None, None) => return None,
            };
            let (name, architecture) = (installed.name.as_str(), installed.architecture.as_str());
            let is_held = held.has(held::Version { name, architecture, evr });
            let update = PendingUpdate {
                package: Text::new(&installed.name),
                architecture: Text::new(&installed.architecture),
                installed_version: Text::new(&installed.evr.to_string()),
                candidate_version: Text::new(&evr.to_string()),
                security: fix.is_some(),
                held: left_out.is_some() || is_held,
                origin: Text::new(origin),
                first_offered_time: now,
                available_after_time: None,
                phased_percent: None,
            };
            Some(Dated { update, published: fix.and_then(|fix| fix.issued) })
        };
        self.installed.iter().filter_map(update).collect()
    }
}

/// Returns what of a version tells the distribution's release: `el9` of `503.el9_4`.
fn release_mark(release: &str) -> Option<&str> {
    release.split(['.', '_', '+']).find(|part| {
        let number = part.trim_start_matches(|c: char| c.is_ascii_lowercase());
        number.len() < part.len() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::patch_level::{repositories::PRIORITY, rpm::installed, transport::Transport};

    fn any_repository(id: &str, priority: u32) -> Repository {
        let (excluded, included) = (Vec::new(), Vec::new());
        Repository { id: id.to_owned(), priority, is_signed: false, transport: Transport::Trusted, excluded, included }
    }

    /// Returns what is on offer: packages by repository, and advisories with whether they are about security and their module.
    fn offers<'i>(
        installed: &'i Installed,
        streams: &[&str],
        offered: &[(&Repository, &str)],
        advised: &[(&Repository, &str, bool, Option<&str>)],
    ) -> Offers<'i> {
        let streams = streams.iter().map(|&stream| stream.to_owned()).collect();
        let mut offers = Offers { streams, ..Offers::of(installed, PackageManager::Dnf) };
        let split = |text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            (words[0].clone(), words[1].clone(), Evr::parse(&words[2]).unwrap())
        };
        for (repository, text) in offered {
            let (name, architecture, evr) = split(text);
            offers.add_package(repository, &repodata::Offered { name, architecture, evr, vendor: String::new() });
        }
        for (repository, text, security, module) in advised {
            let (name, architecture, evr) = split(text);
            let module = module.map(str::to_owned);
            let advised = Advised { name, architecture, evr, security: *security, issued: None, module };
            offers.add_advised(repository, &advised);
        }
        offers
    }

    /// Returns what is pending, as `name installed -> candidate origin`, `!` before what is about security and `held` behind what
    /// is held.
    fn lines(offers: &Offers<'_>) -> Vec<String> {
        let line = |it: &Dated| {
            let mark = if it.update.security { "!" } else { "" };
            let held = if it.update.held { " held" } else { "" };
            let it = &it.update;
            format!("{mark}{} {} -> {} {}{held}", it.package, it.installed_version, it.candidate_version, it.origin)
        };
        offers.pending(&Held::default(), Timestamp::EPOCH).iter().map(line).collect()
    }

    fn pending(
        packages: &[&str],
        streams: &[&str],
        offered: &[(&Repository, &str)],
        advised: &[(&str, bool, Option<&str>)],
    ) -> Vec<String> {
        let (installed, adv) = (installed(packages), any_repository("adv", PRIORITY));
        let advised: Vec<_> =
            advised.iter().map(|(text, security, module)| (&adv, *text, *security, *module)).collect();
        lines(&offers(&installed, streams, offered, &advised))
    }

    #[test]
    fn an_update_is_the_newest_version_and_about_security_by_its_advisory() {
        let (usual, first) = (any_repository("u", PRIORITY), any_repository("p", 1));
        for (packages, offered, advised, expected) in [
            (
                vec!["a noarch 1-1"],
                vec![(&usual, "a noarch 2-1"), (&usual, "a noarch 3-1")],
                vec![],
                vec!["a 1-1 -> 3-1 u"],
            ),
            (vec!["a noarch 1-1"], vec![(&usual, "a noarch 1-1"), (&usual, "b noarch 3-1")], vec![], vec![]),
            (
                vec!["a noarch 1-1"],
                vec![(&usual, "a noarch 2-1")],
                vec![("a noarch 2-1", true, None)],
                vec!["!a 1-1 -> 2-1 u"],
            ),
            // A fix that was superseded by a version that is no fix is still missing.
            (
                vec!["a noarch 1-1"],
                vec![(&usual, "a noarch 3-1")],
                vec![("a noarch 2-1", true, None), ("a noarch 3-1", false, None)],
                vec!["!a 1-1 -> 3-1 u"],
            ),
            (vec!["a noarch 2-1"], vec![(&usual, "a noarch 2-1")], vec![("a noarch 2-1", true, None)], vec![]),
            (vec!["a noarch 1-1"], vec![], vec![("a noarch 2-1", true, None)], vec!["!a 1-1 -> 2-1 adv"]),
            // Of kernels beside each other the newest counts.
            (
                vec!["kernel-core x86_64 5-1", "kernel-core x86_64 5-2"],
                vec![(&usual, "kernel-core x86_64 5-2")],
                vec![("kernel-core x86_64 5-2", true, None)],
                vec![],
            ),
            (vec!["a x86_64 1-1"], vec![(&usual, "a i686 2-1")], vec![("a aarch64 2-1", true, None)], vec![]),
            (vec!["a noarch 1-1"], vec![(&usual, "a x86_64 2-1")], vec![], vec!["a 1-1 -> 2-1 u"]),
            // A repository of a higher rank hides the others.
            (vec!["a noarch 1-1"], vec![(&usual, "a noarch 9-1"), (&first, "a noarch 1-1")], vec![], vec![]),
        ] {
            assert_eq!(pending(&packages, &[], &offered, &advised), expected, "{packages:?} {offered:?} {advised:?}");
        }
    }

    #[test]
    fn only_advisories_of_the_enabled_stream_are_about_a_module() {
        let package = ["n x86_64 10-1.module+el8"];
        let advised = [("n x86_64 12-1.module+el8", true, Some("n:12"))];
        assert_eq!(pending(&package, &["n:10"], &[], &advised), Vec::<String>::new());
        assert_eq!(pending(&package, &["n:12"], &[], &advised), ["!n 10-1.module+el8 -> 12-1.module+el8 adv"]);
        assert_eq!(pending(&["n x86_64 10-1.el8"], &["n:12"], &[], &advised), Vec::<String>::new());
        let plain = any_repository("u", PRIORITY);
        assert_eq!(pending(&package, &["n:10"], &[(&plain, "n x86_64 14-1.el8")], &[]), Vec::<String>::new());
    }

    #[test]
    fn a_fix_that_its_repository_leaves_out_is_held() {
        let plain = any_repository("u", PRIORITY);
        let excluding = Repository { excluded: vec!["a".to_owned()], ..any_repository("x", PRIORITY) };
        let including = Repository { included: vec!["b".to_owned()], ..any_repository("i", PRIORITY) };
        let fix = |repository, evr| (repository, evr, true, None);
        for (offered, advised, expected) in [
            (vec![(&excluding, "a noarch 2-1")], vec![fix(&excluding, "a noarch 2-1")], vec!["!a 1-1 -> 2-1 x held"]),
            (vec![(&including, "a noarch 2-1")], vec![fix(&including, "a noarch 2-1")], vec!["!a 1-1 -> 2-1 i held"]),
            // Another repository has it.
            (vec![(&plain, "a noarch 2-1")], vec![fix(&excluding, "a noarch 2-1")], vec!["!a 1-1 -> 2-1 u"]),
            (vec![], vec![fix(&excluding, "a noarch 2-1"), fix(&plain, "a noarch 2-1")], vec!["!a 1-1 -> 2-1 u"]),
            // Another repository has an older fix alone.
            (
                vec![(&plain, "a noarch 2-1")],
                vec![fix(&plain, "a noarch 2-1"), fix(&excluding, "a noarch 3-1")],
                vec!["!a 1-1 -> 3-1 x held"],
            ),
            // What is no fix is not taken from there.
            (vec![(&excluding, "a noarch 2-1")], vec![(&excluding, "a noarch 2-1", false, None)], vec![]),
            (vec![], vec![fix(&excluding, "a noarch 1-1")], vec![]),
        ] {
            let installed = installed(&["a noarch 1-1"]);
            assert_eq!(lines(&offers(&installed, &[], &offered, &advised)), expected, "{offered:?} {advised:?}");
        }
    }

    #[test]
    fn zypper_takes_no_fix_of_another_vendor() {
        let usual = any_repository("u", PRIORITY);
        for (own, other, listed, expected) in [
            ("SUSE LLC <https://www.suse.com/>", "SUSE LLC <https://www.suse.com/>", true, true),
            ("http://packman.links2linux.de", "SUSE LLC <https://www.suse.com/>", true, false),
            // Whether the two are one is left to its settings.
            ("openSUSE", "SUSE LLC <https://www.suse.com/>", true, true),
            // What no list has is of nobody who is told.
            ("http://packman.links2linux.de", "SUSE LLC <https://www.suse.com/>", false, true),
        ] {
            let mut installed = installed(&["a noarch 1-1"]);
            installed.values_mut().flatten().for_each(|package| package.vendor = own.to_owned());
            let mut offers = Offers::of(&installed, PackageManager::Zypper);
            let (name, architecture, evr) = ("a".to_owned(), "noarch".to_owned(), Evr::parse("2-1").unwrap());
            let advised = Advised {
                name: name.clone(),
                architecture: architecture.clone(),
                evr: evr.clone(),
                security: true,
                ..Advised::default()
            };
            if listed {
                offers.add_package(&usual, &repodata::Offered { name, architecture, evr, vendor: other.to_owned() });
            }
            offers.add_advised(&usual, &advised);
            assert_eq!(!lines(&offers).is_empty(), expected, "{own} {other}");
        }
    }

    #[test]
    fn a_fix_of_a_stream_that_is_not_told_leaves_the_list_incomplete() {
        let adv = any_repository("adv", PRIORITY);
        let (old, new) = ("n x86_64 10-1.module+el8", "n x86_64 12-1.module_el8");
        let fix = |text, module| (&adv, text, true, module);
        for (package, streams, advised, expected, is_open) in [
            // The advisory names no module.
            (old, vec!["n:10"], vec![fix(new, None)], vec![], true),
            // No stream of the module is enabled: its default may be in use.
            (old, vec![], vec![fix(new, Some("n:12"))], vec![], true),
            (old, vec!["m:1"], vec![fix(new, Some("n:12"))], vec![], true),
            // Another stream is enabled, of this module or of one that has the package, too.
            (old, vec!["n:10"], vec![fix(new, Some("n:12"))], vec![], false),
            (old, vec!["m:1"], vec![fix(old, Some("m:1")), fix(new, Some("n:12"))], vec![], false),
            (old, vec!["n:12"], vec![fix(new, Some("n:12"))], vec!["!n 10-1.module+el8 -> 12-1.module_el8 adv"], false),
            (old, vec![], vec![(&adv, new, false, None)], vec![], false),
            (new, vec![], vec![fix(old, None), fix(old, Some("n:12"))], vec![], false),
            // A package of no module does not become one of a module, nor the other way round.
            ("n x86_64 10-1.el8", vec!["n:12"], vec![fix(new, None)], vec![], false),
            (old, vec!["n:10"], vec![fix("n x86_64 12-1.el8", None)], vec![], false),
            (
                "n x86_64 10-1.modules",
                vec![],
                vec![fix("n x86_64 11-1", None)],
                vec!["!n 10-1.modules -> 11-1 adv"],
                false,
            ),
        ] {
            let installed = installed(&[package]);
            let offers = offers(&installed, &streams, &[], &advised);
            assert_eq!(lines(&offers), expected, "{package} {streams:?} {advised:?}");
            let cause = offers.undecided().map(|unknown| unknown.cause);
            assert_eq!(cause, is_open.then_some(Cause::Undecidable), "{package} {streams:?} {advised:?}");
        }
        let installed = installed(&[old]);
        let unknown = offers(&installed, &[], &[], &[fix(new, Some("n:12"))]).undecided().unwrap();
        assert!(unknown.detail.as_str().contains("n to 12-1.module_el8 is of n:12"), "{unknown:?}");
    }

    #[test]
    fn what_no_list_has_lacks_updates_where_a_repository_of_the_distribution_is_switched_off() {
        let usual = any_repository("baseos", PRIORITY);
        for (packages, switched_off, expected) in [
            (
                vec!["bash noarch 5-1.el9", "a noarch 1-1.el9_4"],
                Some("appstream"),
                Some("repository appstream is not enabled, and a,"),
            ),
            (vec!["bash noarch 5-1.el9", "a noarch 1-1.el9"], None, None),
            // Of the release before, or of nobody who says.
            (vec!["bash noarch 5-1.el9", "a noarch 1-1.el8"], Some("appstream"), None),
            (vec!["bash noarch 5-1.el9", "a noarch 1-1"], Some("appstream"), None),
            (vec!["bash noarch 5-1.el9", "listed noarch 1-1.el9"], Some("appstream"), None),
            (vec!["a noarch 1-1.el9"], Some("appstream"), None),
        ] {
            let installed = installed(&packages);
            let mut offers =
                offers(&installed, &[], &[(&usual, "bash noarch 5-1.el9"), (&usual, "listed x86_64 9-1.el9")], &[]);
            offers.switched_off = switched_off.map(str::to_owned);
            let found = offers.unlisted().map(|unknown| unknown.detail.to_string());
            let is_it = found
                .as_deref()
                .zip(expected)
                .map_or(found.is_none() && expected.is_none(), |(found, expected)| found.starts_with(expected));
            assert!(is_it, "{packages:?}: {found:?}");
        }
        let marks = ["503.el9_4", "1.module+el8.4.0+404", "1.fc43", "1"].map(release_mark);
        assert_eq!(marks, [Some("el9"), Some("el8"), Some("fc43"), None]);
    }
}
