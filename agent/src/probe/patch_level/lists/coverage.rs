//! Which repositories are those for this host's security updates, and whether they bring them for all that it takes packages from.

use std::collections::{BTreeMap, BTreeSet};

use muster_proto::fact::UpdateSource;

use super::{
    super::{dpkg::Installed, sources::Configured},
    release::Release,
};
use crate::probe::system::os_release_value;

/// What os-release(5) says of the host's distribution. What it does not say is told by the repositories.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::probe::patch_level) struct Distribution {
    /// `ID`, in lower case.
    id: Option<String>,
    /// `VERSION_CODENAME`.
    codename: Option<String>,
    /// Release of the distribution that this one takes its packages from, by that one's `ID`: `UBUNTU_CODENAME`, as Linux Mint has
    /// it, and `DEBIAN_CODENAME`.
    bases: BTreeMap<&'static str, String>,
}

/// Which release of a publisher's the host runs.
enum Runs<'d> {
    Release(&'d str),
    /// os-release does not tell.
    Untold,
    /// None: the publisher is another.
    Nothing,
}

impl Distribution {
    /// Reads the text of an os-release file.
    pub fn parse(text: &str) -> Self {
        // A last line without its end may be half of one.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let value = |key| os_release_value(whole, key).map(|value| value.to_ascii_lowercase());
        let bases = [("ubuntu", "UBUNTU_CODENAME"), ("debian", "DEBIAN_CODENAME")];
        Self {
            id: value("ID"),
            codename: value("VERSION_CODENAME"),
            bases: bases.into_iter().filter_map(|(id, key)| Some((id, value(key)?))).collect(),
        }
    }

    /// Returns whether a publisher is the distribution itself; `None` when that is not told.
    pub fn is(&self, origin: &str) -> Option<bool> {
        self.id.as_ref().map(|id| id.eq_ignore_ascii_case(origin))
    }

    fn runs(&self, origin: &str) -> Runs<'_> {
        match self.is(origin) {
            None => Runs::Untold,
            Some(true) => self.codename.as_deref().map_or(Runs::Untold, Runs::Release),
            Some(false) => {
                let base = self.bases.get(origin.to_ascii_lowercase().as_str());
                base.map_or(Runs::Nothing, |codename| Runs::Release(codename))
            }
        }
    }
}

/// Returns the release that a repository belongs to: `bookworm` for `bookworm-security`, `buster` for `buster/updates`.
pub(super) fn base(source: &UpdateSource) -> &str {
    let codename = match source.codename.as_str() {
        "" => source.suite.as_str(),
        codename => codename,
    };
    codename.split(['-', '/']).next().unwrap_or_default()
}

/// Returns whose packages a security repository is about: those that Ubuntu maintains for longer come under names of their own.
pub(super) fn publisher(origin: &str) -> &str {
    if origin.starts_with("UbuntuESM") { "Ubuntu" } else { origin }
}

/// Returns whether `release` is a repository that the host takes packages from, beside those for security.
fn is_ordinary(release: &Release) -> bool {
    // apt takes nothing by itself from one of a lower priority, such as backports.
    !release.names_security && release.priority >= 500
}

/// Returns whether `release`, which has the name of a security repository, is one for what this host runs: of its own publisher and of
/// its own release. Where os-release does not tell, that is what its ordinary repositories are of.
pub(super) fn is_for_host(release: &Release, distribution: &Distribution, releases: &BTreeMap<&str, Release>) -> bool {
    let (own, origin) = (base(&release.source), publisher(release.source.origin.as_str()));
    match distribution.runs(origin) {
        Runs::Release(codename) => own.eq_ignore_ascii_case(codename),
        Runs::Nothing => false,
        Runs::Untold => {
            let is_beside = |it: &Release| {
                is_ordinary(it) && it.source.origin.as_str() == origin && base(&it.source).eq_ignore_ascii_case(own)
            };
            releases.values().any(is_beside)
        }
    }
}

/// A repository that is configured, with what it says of itself.
#[derive(Clone, Copy)]
struct Repository<'r> {
    configured: &'r Configured,
    release: &'r Release,
}

impl Repository<'_> {
    fn is_asked_for(&self, architecture: &str) -> bool {
        let named = &self.configured.architectures;
        named.is_empty() || named.iter().any(|name| name == architecture)
    }

    fn has(&self, component: &str) -> bool {
        self.configured.components.iter().any(|own| plain(own) == component)
    }
}

/// Returns the name of a component without what Debian's security archive has before it.
fn plain(component: &str) -> &str {
    component.strip_prefix("updates/").unwrap_or(component)
}

/// Returns what of the host's packages its security repositories bring no updates of. Only the `native` architecture is asked for: few
/// publishers maintain all others.
pub(super) fn uncovered(configured: &[Configured], releases: &BTreeMap<&str, Release>, native: &str) -> Option<String> {
    let all = configured.iter().filter_map(|configured| {
        let release = releases.get(configured.file.as_str())?;
        Some(Repository { configured, release })
    });
    let (security, others): (Vec<_>, Vec<_>) = all.partition(|it| it.release.source.security);
    if security.is_empty() {
        return None;
    }
    let security: Vec<Repository<'_>> = security.into_iter().filter(|it| it.is_asked_for(native)).collect();
    if security.is_empty() {
        return Some(format!("no security repository is configured for {native}, which this host is of"));
    }
    for it in &security {
        let lacks = |component: &&String| !it.release.states(plain(component), native);
        if let Some(component) = it.configured.components.iter().find(lacks) {
            return Some(format!("{} publishes nothing in {component} for {native}", it.configured.name));
        }
    }
    let origins: Vec<&str> = security.iter().map(|it| publisher(it.release.source.origin.as_str())).collect();
    let is_covered = |it: &Repository<'_>| {
        is_ordinary(it.release)
            && it.is_asked_for(native)
            && origins.contains(&it.release.source.origin.as_str())
            // Debian's unstable has no repository for security: its fixes are among the other updates.
            && base(&it.release.source) != "sid"
    };
    others.iter().filter(|it| is_covered(it)).find_map(|it| {
        let (origin, own) = (&it.release.source.origin, base(&it.release.source));
        let is_beside = |it: &&Repository<'_>| it.release.source.origin == *origin && base(&it.release.source) == own;
        let beside: Vec<_> = security.iter().filter(is_beside).collect();
        if beside.is_empty() {
            return Some(format!("no security repository of {origin} is configured for {}", it.configured.name));
        }
        let lacks = |component: &&String| {
            let place = format!("{}/binary-{native}/", plain(component));
            !beside.iter().any(|it| it.has(plain(component))) && beside.iter().any(|it| it.release.publishes(&place))
        };
        let component = it.configured.components.iter().find(lacks)?;
        Some(format!("{component} is configured for {}, and not for security updates", it.configured.name))
    })
}

/// Returns an installed package of which updates are not seen, as no source has the component that it came from. What is in no list
/// though its component is configured was taken from the archive.
pub(super) fn unlisted(
    configured: &[Configured],
    releases: &BTreeMap<&str, Release>,
    installed: &Installed,
    listed: &BTreeSet<String>,
) -> Option<String> {
    /// Where Debian 12 has the firmware that was in `non-free` before.
    const FIRMWARE: &str = "non-free-firmware";
    let is_configured =
        |component: &str| configured.iter().any(|it| it.components.iter().any(|own| plain(own) == component));
    let place = format!("{FIRMWARE}/binary-{}/", installed.native());
    let has_moved = !is_configured(FIRMWARE) && releases.values().any(|release| release.publishes(&place));
    installed.packages.iter().filter(|(name, _)| !listed.contains(*name)).find_map(|(name, packages)| {
        let component = packages.iter().find_map(|it| it.component.as_deref())?;
        let lacking = match component {
            _ if !is_configured(component) => component,
            "non-free" if has_moved => FIRMWARE,
            _ => return None,
        };
        Some(format!("no source has {lacking}, and {name} of {component}, which is installed, is in no list"))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::release::parse_release, *};
    use crate::probe::patch_level::dpkg::installed;

    /// Returns a repository: `file origin codename suite components`, and its lists as `component/architecture`.
    fn repository(of: &str, lists: &[&str]) -> (Configured, Release) {
        let words: Vec<&str> = of.split(' ').collect();
        let [file, origin, codename, suite, components] = words[..] else { panic!("{of}") };
        let (file, architecture) = file.split_once('@').unwrap_or((file, ""));
        let lists: String = lists
            .iter()
            .map(|list| list.split_once('/').unwrap())
            .map(|(component, architecture)| format!(" 00 9 {component}/binary-{architecture}/Packages\n"))
            .collect();
        let release = parse_release(
            format!(
                "Origin: {origin}\nLabel: {origin}\nCodename: {codename}\nSuite: {suite}\nDate: Sat, 10 May 2025 09:12:01 \
                 UTC\nSHA256:\n{lists}"
            )
            .as_bytes(),
        );
        let configured = Configured {
            file: file.to_owned(),
            name: file.to_owned(),
            components: components.split(',').map(str::to_owned).collect(),
            architectures: Some(architecture).filter(|it| !it.is_empty()).map(str::to_owned).into_iter().collect(),
            unverified: false,
        };
        (configured, release)
    }

    /// Returns the files of those repositories that are the security repositories of a host, and what they leave out.
    fn seen(os_release: &str, repositories: &[(Configured, Release)], native: &str) -> (String, Option<String>) {
        let distribution = Distribution::parse(os_release);
        let mut releases: BTreeMap<&str, Release> =
            repositories.iter().map(|(configured, release)| (configured.file.as_str(), release.clone())).collect();
        let for_host: Vec<&str> = releases
            .iter()
            .filter(|(_, it)| it.names_security && is_for_host(it, &distribution, &releases))
            .map(|(file, _)| *file)
            .collect();
        for (file, release) in &mut releases {
            release.source.security = for_host.contains(file);
        }
        let configured: Vec<Configured> = repositories.iter().map(|(configured, _)| configured.clone()).collect();
        (for_host.join(" "), uncovered(&configured, &releases, native))
    }

    const DEBIAN_12: &str = "ID=debian\nVERSION_CODENAME=bookworm\n";
    const DEBIAN_13: &str = "ID=debian\nVERSION_CODENAME=trixie\n";
    const UBUNTU: &str = "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=jammy\nUBUNTU_CODENAME=jammy\n";
    const MINT: &str = "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_CODENAME=virginia\nUBUNTU_CODENAME=jammy\n";
    const KALI: &str = "ID=kali\nID_LIKE=debian\nVERSION_CODENAME=kali-rolling\n";
    const ALL: &[&str] = &["main/amd64", "contrib/amd64", "non-free/amd64", "main/s390x", "main/i386"];

    #[test]
    fn a_security_repository_is_one_of_the_hosts_own_publisher_and_release() {
        let main = |codename: &str| repository(&format!("m Debian {codename} stable main"), ALL);
        let security = |codename: &str| repository(&format!("s Debian {codename} stable-security main"), ALL);
        let other = || repository("o Other bookworm bookworm main", ALL);
        let others = || repository("os Other bookworm-security bookworm-security main", ALL);
        let jammy = || repository("m Ubuntu jammy jammy main", ALL);
        let jammys = || repository("s Ubuntu jammy jammy-security main", ALL);
        for (os_release, repositories, expected) in [
            (DEBIAN_12, vec![main("bookworm"), security("bookworm-security")], "s"),
            (DEBIAN_13, vec![main("trixie"), security("trixie-security")], "s"),
            // The line of the release before was left as it is, alone or with all others.
            (DEBIAN_13, vec![main("trixie"), security("bookworm-security")], ""),
            (DEBIAN_13, vec![main("bookworm"), security("bookworm-security")], ""),
            ("", vec![main("trixie"), security("bookworm-security")], ""),
            ("", vec![main("bookworm"), security("bookworm-security")], "s"),
            ("ID=debian\n", vec![main("bookworm"), security("bookworm-security")], "s"),
            // A name that is cut off says nothing.
            ("ID=debian\nVERSION_CODENAME=book", vec![main("bookworm"), security("bookworm-security")], "s"),
            // What another publisher names so is about its own packages.
            (DEBIAN_12, vec![main("bookworm"), other(), others()], ""),
            (DEBIAN_12, vec![main("bookworm"), security("bookworm-security"), others()], "s"),
            ("", vec![main("bookworm"), others()], ""),
            // The other repositories may come from a mirror that has a name of its own.
            (DEBIAN_12, vec![other(), security("bookworm-security")], "s"),
            (DEBIAN_12, vec![repository("s Debian buster buster-security main", ALL)], ""),
            (UBUNTU, vec![jammy(), jammys()], "s"),
            (UBUNTU, vec![jammy(), repository("e UbuntuESMApps jammy jammy-apps-security main", ALL)], "e"),
            (UBUNTU, vec![main("bookworm"), security("bookworm-security")], ""),
            (MINT, vec![repository("x linuxmint virginia virginia main", ALL), jammy(), jammys()], "s"),
            (KALI, vec![main("bookworm"), security("bookworm-security")], ""),
        ] {
            assert_eq!(seen(os_release, &repositories, "amd64").0, expected, "{os_release} {repositories:?}");
        }
    }

    #[test]
    fn security_updates_are_covered_where_each_component_of_the_host_has_them() {
        let main = |components: &str| repository(&format!("m Debian bookworm oldstable {components}"), ALL);
        let security = |components: &str| {
            let lists = &["main/amd64", "contrib/amd64", "non-free/amd64", "main/i386"];
            repository(&format!("s Debian bookworm-security oldstable-security {components}"), lists)
        };
        for (repositories, native, expected) in [
            (vec![main("main"), security("main")], "amd64", None),
            (vec![main("main,contrib,non-free"), security("main,contrib,non-free")], "amd64", None),
            (vec![main("main"), security("updates/main")], "amd64", None),
            (vec![main("main"), security("main"), security("contrib")], "amd64", None),
            // Nothing is published in it for security, so nothing can be missed.
            (vec![main("main,other"), security("main")], "amd64", None),
            (vec![main("main"), security("contrib")], "amd64", Some("main is configured for m, and not for security")),
            (vec![main("main,non-free"), security("main")], "amd64", Some("non-free is configured for m")),
            (vec![main("main"), security("mian")], "amd64", Some("s publishes nothing in mian for amd64")),
            (vec![main("mian"), security("mian")], "amd64", Some("s publishes nothing in mian for amd64")),
            (vec![main("main"), security("main")], "s390x", Some("s publishes nothing in main for s390x")),
            (
                vec![main("main"), repository("s@s390x Debian bookworm-security x main", ALL)],
                "amd64",
                Some("no security repository is configured for amd64"),
            ),
            // Of an architecture beside the host's own, none is asked for.
            (
                vec![main("main"), security("main"), repository("m2@s390x Debian bookworm x main,contrib", ALL)],
                "amd64",
                None,
            ),
            (
                vec![main("main"), security("main"), repository("x Docker bookworm stable stable", &["stable/amd64"])],
                "amd64",
                None,
            ),
            // Packages of another release have their fixes elsewhere.
            (
                vec![main("main"), security("main"), repository("t Debian trixie stable main", ALL)],
                "amd64",
                Some("no security repository of Debian is configured for t"),
            ),
            (vec![main("main"), security("main"), repository("t Debian sid unstable main", ALL)], "amd64", None),
            (vec![main("main")], "amd64", None),
        ] {
            let found = seen(DEBIAN_12, &repositories, native).1;
            match expected {
                None => assert_eq!(found, None, "{repositories:?}"),
                Some(expected) => {
                    assert!(found.as_ref().is_some_and(|it| it.contains(expected)), "{found:?}: {expected}")
                }
            }
        }
        let backports = {
            let (configured, mut release) =
                repository("b Debian bookworm-backports stable-backports main,contrib", ALL);
            release.priority = 100;
            (configured, release)
        };
        assert_eq!(seen(DEBIAN_12, &[main("main"), security("main"), backports], "amd64").1, None);
        let jammy = repository("m Ubuntu jammy jammy main", ALL);
        let esm = repository("e UbuntuESMApps jammy jammy-apps-security main", ALL);
        let found = seen(UBUNTU, &[jammy, esm], "amd64").1.unwrap();
        assert!(found.contains("no security repository of Ubuntu"), "{found}");
    }

    #[test]
    fn what_no_list_has_came_from_a_component_that_is_not_configured() {
        let mut host = installed(&[("dpkg", "amd64", "1"), ("a", "amd64", "1"), ("gone", "amd64", "1")]);
        let all = &["main/amd64", "non-free/amd64", "non-free-firmware/amd64"][..];
        for (component, components, lists, listed, expected) in [
            ("non-free-firmware", "main", all, "", Some("no source has non-free-firmware, and a of")),
            ("non-free-firmware", "main,non-free-firmware", all, "", None),
            ("non-free-firmware", "updates/non-free-firmware", all, "", None),
            ("contrib", "main", &all[..1], "", Some("no source has contrib, and a of contrib")),
            // Another source has it.
            ("contrib", "main", all, "a", None),
            // It was in the component of before.
            ("non-free", "main,non-free", all, "", Some("no source has non-free-firmware, and a of non-free,")),
            ("non-free", "main,non-free", &all[..2], "", None),
            ("non-free", "main,non-free,non-free-firmware", all, "", None),
        ] {
            host.packages.get_mut("a").unwrap()[0].component = Some(component.to_owned());
            let (configured, release) = repository(&format!("m Debian bookworm stable {components}"), lists);
            let (listed, releases) = (BTreeSet::from([listed.to_owned()]), BTreeMap::from([("m", release)]));
            let found = unlisted(&[configured], &releases, &host, &listed);
            let is_it = found
                .as_deref()
                .zip(expected)
                .map_or(found.is_none() && expected.is_none(), |(found, expected)| found.starts_with(expected));
            assert!(is_it, "{component} {components} {lists:?}: {found:?}");
        }
    }
}
