//! What dpkg says is installed (dpkg-query(1), `Status`).

use std::{collections::BTreeMap, io, path::Path};

use debversion::Version;
use muster_proto::fact::{Cause, Unknown};

use super::debian::STATUS;
use crate::{
    host::{self, Host},
    probe::deb822::Stanzas,
};

/// Packages that are taken, at most.
const PACKAGES: usize = 60_000;

/// A package that is installed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct InstalledPackage {
    pub version: Version,
    pub version_text: String,
    pub architecture: String,
    /// Whether its selection is `hold`.
    pub held: bool,
    /// Component of Debian or Ubuntu that it is of, beside `main`.
    pub component: Option<String>,
}

/// Packages by name; a name has several when it is installed for several architectures.
#[derive(Debug, Default)]
pub(super) struct Installed {
    pub packages: BTreeMap<String, Vec<InstalledPackage>>,
}

impl Installed {
    pub fn has(&self, name: &str) -> bool {
        self.packages.contains_key(name)
    }

    /// Returns the architectures that packages are installed of.
    pub fn architectures(&self) -> Vec<&str> {
        let all = self.packages.values().flatten().map(|package| package.architecture.as_str());
        let mut found: Vec<&str> = all.filter(|architecture| *architecture != "all").collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Returns the architecture that dpkg itself is of, which is the host's; empty when that is not told.
    pub fn native(&self) -> &str {
        let own = self.packages.get("dpkg").and_then(|packages| packages.first());
        own.map_or("", |package| package.architecture.as_str())
    }

    /// Returns the installed versions of `package:architecture`.
    pub fn versions(&self, key: &str) -> Vec<String> {
        let (name, architecture) = key.rsplit_once(':').unwrap_or((key, ""));
        let packages = self.packages.get(name).into_iter().flatten();
        packages.filter(|it| it.architecture == architecture).map(|it| it.version_text.clone()).collect()
    }
}

/// Keeps the last byte that was written.
struct Last<W> {
    to: W,
    byte: Option<u8>,
}

impl<W: io::Write> io::Write for Last<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.byte = bytes[..count].last().copied().or(self.byte);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

pub(super) fn read(host: &dyn Host) -> Result<Installed, Unknown> {
    let mut file = host.stream(Path::new(STATUS)).map_err(|error| host::unknown(format!("read {STATUS}"), &error))?;
    parse(&mut file)
}

fn parse(file: &mut dyn io::Read) -> Result<Installed, Unknown> {
    let mut installed = Installed::default();
    let mut count = 0;
    let mut garbled = None;
    let mut stanzas =
        Stanzas::new(&["Package", "Status", "Version", "Architecture", "Section", "Maintainer"], |fields| {
            let field = |name| fields.get(name).map(String::as_str).unwrap_or_default();
            let mut status = field("Status").split_whitespace();
            let (selection, state) = (status.next(), status.nth(1));
            if matches!(state, Some("not-installed" | "config-files")) {
                return;
            }
            let (name, architecture) = (field("Package"), field("Architecture"));
            match field("Version").parse::<Version>() {
                Ok(version) if state.is_some() && !name.is_empty() && !architecture.is_empty() => {
                    count += 1;
                    if count <= PACKAGES {
                        let package = InstalledPackage {
                            version,
                            version_text: field("Version").to_owned(),
                            architecture: architecture.to_owned(),
                            held: selection == Some("hold"),
                            component: component(field("Section"), field("Maintainer")).map(str::to_owned),
                        };
                        installed.packages.entry(name.to_owned()).or_default().push(package);
                    }
                }
                _ => garbled = Some(name.to_owned()),
            }
        });
    let mut last = Last { to: &mut stanzas, byte: None };
    io::copy(file, &mut last).map_err(|error| host::unknown(format!("read {STATUS}"), &error))?;
    let has_end = last.byte == Some(b'\n');
    stanzas.finish();
    if !has_end {
        return Err(Unknown::new(Cause::Garbled, format!("{STATUS} is cut off")));
    }
    if let Some(name) = garbled {
        return Err(Unknown::new(Cause::Garbled, format!("{STATUS}: package \"{name}\" is not whole")));
    }
    if count > PACKAGES {
        return Err(Unknown::new(Cause::Limit, format!("more than {PACKAGES} packages are installed")));
    }
    if count == 0 {
        return Err(Unknown::new(Cause::Garbled, format!("{STATUS} has no installed package")));
    }
    Ok(installed)
}

/// Returns the component of a package, which is before the name of its section. Vendors write such names, too, so that only packages
/// are taken whose maintainers have addresses of the distribution.
fn component<'s>(section: &'s str, maintainer: &str) -> Option<&'s str> {
    const COMPONENTS: &[&str] = &["contrib", "non-free", "non-free-firmware", "restricted", "universe", "multiverse"];
    let (component, _) = section.split_once('/')?;
    let (_, place) = maintainer.trim_end().strip_suffix('>')?.rsplit_once('@')?;
    let is_own = ["debian.org", "ubuntu.com"]
        .iter()
        .any(|own| place.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    (is_own && COMPONENTS.contains(&component)).then_some(component)
}

/// Returns what is installed, for tests of what is decided from it.
#[cfg(test)]
pub(super) fn installed(packages: &[(&str, &str, &str)]) -> Installed {
    let text: String = packages
        .iter()
        .map(|(name, architecture, version)| {
            format!(
                "Package: {name}\nStatus: install ok installed\nArchitecture: {architecture}\nVersion: {version}\n\n"
            )
        })
        .collect();
    parse(&mut text.as_bytes()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_is_not_installed_and_a_hold_is_seen() {
        let text = "Package: a\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 1:2-3\n\n\
            Package: b\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n\
            Package: c\nStatus: install ok unpacked\nArchitecture: all\nVersion: 2\n";
        let installed = parse(&mut text.as_bytes()).unwrap();
        assert_eq!(installed.packages.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert!(installed.packages["a"][0].held && !installed.packages["c"][0].held);
    }

    #[test]
    fn a_package_of_the_distribution_tells_its_component() {
        let (own, ubuntu) = ("A B <a@debian.org>", "Ubuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>");
        for (section, maintainer, expected) in [
            ("non-free-firmware/admin", own, Some("non-free-firmware")),
            ("universe/net", ubuntu, Some("universe")),
            ("non-free/kernel", "Debian Kernel Team <debian-kernel@lists.debian.org>", Some("non-free")),
            ("admin", own, None),
            ("own/admin", own, None),
            ("non-free/web", "Vendor <packages@example.com>", None),
            ("non-free/web", "Vendor <packages@notdebian.org>", None),
            ("non-free/web", "debian.org", None),
            ("", "", None),
        ] {
            assert_eq!(component(section, maintainer), expected, "{section} {maintainer}");
        }
        let text = format!(
            "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\nSection: contrib/x\nMaintainer: {own}\n"
        );
        assert_eq!(parse(&mut text.as_bytes()).unwrap().packages["a"][0].component.as_deref(), Some("contrib"));
    }

    #[test]
    fn a_torn_status_file_is_garbled() {
        for text in ["", "Package: a\nStatus: install ok installed\nArchitecture: amd64\n", "\u{0}\u{1}"] {
            assert_eq!(parse(&mut text.as_bytes()).unwrap_err().cause, Cause::Garbled, "{text:?}");
        }
    }
}
