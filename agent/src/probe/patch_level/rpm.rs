//! What rpm says is installed.
//!
//! Its database is of four formats and versions, of which rpm alone reads the right one: rpm(8) is run.

use std::{collections::BTreeMap, path::Path};

use muster_proto::{
    fact::{Cause, Package, PackageManager, Software, Text, Unknown},
    time::Timestamp,
};

use super::rpm_version::Evr;
use crate::host::{self, Host, Tool};

/// Where rpm's database may be; the second is a link to the first, or the other way round.
pub(super) const FOLDERS: &[&str] = &["/usr/lib/sysimage/rpm", "/var/lib/rpm"];
/// Packages that are taken, at most.
const PACKAGES: usize = 60_000;
/// A line for each package.
const FORMAT: &str = "%{NAME}\\t%{EPOCHNUM}\\t%{VERSION}\\t%{RELEASE}\\t%{ARCH}\\t%{INSTALLTIME}\\t%{VENDOR}\\n";

/// A package that is installed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Rpm {
    pub name: String,
    pub evr: Evr,
    pub architecture: String,
    pub installed: Option<Timestamp>,
    pub vendor: String,
}

/// Packages by name and architecture: of several versions, as of kernels, the newest is the last.
pub(super) type Installed = BTreeMap<(String, String), Vec<Rpm>>;

pub(super) fn read(host: &dyn Host) -> Result<Installed, Unknown> {
    let output = host.run(Tool::Rpm, &["-qa", "--qf", FORMAT]);
    parse(&output.map_err(|error| host::unknown("run rpm -qa", &error))?)
}

fn parse(output: &[u8]) -> Result<Installed, Unknown> {
    let garbled = || Unknown::new(Cause::Garbled, "rpm -qa: output is not as its format asks");
    let text = String::from_utf8_lossy(output);
    if !text.ends_with('\n') {
        return Err(garbled());
    }
    let mut installed = Installed::new();
    let mut count = 0;
    for line in text.lines() {
        // A vendor is any text, be it of an encoding of old or with tabs.
        let fields: Vec<&str> = line.splitn(7, '\t').collect();
        let [name, epoch, version, release, architecture, time, vendor] = fields[..] else { return Err(garbled()) };
        if fields[..6].iter().any(|field| field.contains(char::REPLACEMENT_CHARACTER)) {
            return Err(garbled());
        }
        if name == "gpg-pubkey" {
            // A key that rpm keeps as if it were a package.
            continue;
        }
        let evr = Evr::new(epoch, version, release).filter(|_| !name.is_empty()).ok_or_else(garbled)?;
        count += 1;
        if count > PACKAGES {
            return Err(Unknown::new(Cause::Limit, format!("more than {PACKAGES} packages are installed")));
        }
        let package = Rpm {
            name: name.to_owned(),
            evr,
            architecture: architecture.to_owned(),
            installed: time.parse().ok().and_then(Timestamp::from_seconds),
            // What rpm writes where a package names none.
            vendor: if vendor == "(none)" { String::new() } else { vendor.to_owned() },
        };
        installed.entry((name.to_owned(), architecture.to_owned())).or_default().push(package);
    }
    if count == 0 {
        return Err(Unknown::new(Cause::Garbled, "rpm -qa lists no package"));
    }
    for packages in installed.values_mut() {
        packages.sort_by(|a, b| a.evr.cmp(&b.evr));
    }
    Ok(installed)
}

pub(super) fn software(installed: &Installed) -> Software {
    let mut packages: Vec<Package> = installed
        .values()
        .flatten()
        .map(|package| Package {
            name: Text::new(&package.name),
            version: Text::new(&package.evr.to_string()),
            architecture: Text::new(&package.architecture),
            manager: PackageManager::Rpm,
        })
        .collect();
    packages.sort_by(|a, b| (&a.name, &a.architecture, &a.version).cmp(&(&b.name, &b.architecture, &b.version)));
    packages.dedup();
    Software { packages }
}

/// Returns whether one of the files of rpm's database is there.
pub(super) fn has_database(host: &dyn Host) -> bool {
    let names = ["rpmdb.sqlite", "Packages.db", "Packages"];
    let mut files = FOLDERS.iter().flat_map(|folder| names.map(|name| Path::new(folder).join(name)));
    files.any(|file| host.metadata(&file).is_ok())
}

/// Returns what is installed, for tests of what is decided from it: `name architecture epoch:version-release` each.
#[cfg(test)]
pub(super) fn installed(packages: &[&str]) -> Installed {
    let lines: String = packages
        .iter()
        .map(|package| {
            let mut words = package.split(' ');
            let (name, architecture) = (words.next().unwrap(), words.next().unwrap());
            let evr = Evr::parse(words.next().unwrap()).unwrap();
            let (epoch, version, release) = (evr.epoch, evr.version, evr.release);
            format!("{name}\t{epoch}\t{version}\t{release}\t{architecture}\t1790000000\tMuster\n")
        })
        .collect();
    parse(lines.as_bytes()).unwrap()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packages_are_read_and_the_newest_of_several_versions_is_the_last() {
        let found =
            installed(&["kernel-core x86_64 5.14.0-9.el9", "kernel-core x86_64 5.14.0-70.el9", "a noarch 1:2-1"]);
        let kernels = &found[&("kernel-core".to_owned(), "x86_64".to_owned())];
        let releases: Vec<_> = kernels.iter().map(|package| package.evr.release.as_str()).collect();
        assert_eq!(releases, ["9.el9", "70.el9"]);
        assert_eq!(software(&found).packages[0].version.as_str(), "1:2-1");
    }

    #[test]
    fn output_that_is_not_as_asked_is_garbled() {
        let key = "gpg-pubkey\t0\t1\t2\t(none)\t1\t(none)\n";
        for output in ["", key, "a\t0\t1\n", "a\tx\t1\t1\tnoarch\t1\tv\n", "\t0\t1\t1\tnoarch\t1\tv\n"] {
            assert_eq!(parse(output.as_bytes()).unwrap_err().cause, Cause::Garbled, "{output}");
        }
        for output in [&b"\xff"[..], b"a\xff\t0\t1\t1\tnoarch\t1\tv\n", b"a\t0\t1\t1\xff\tnoarch\t1\tv\n"] {
            assert_eq!(parse(output).unwrap_err().cause, Cause::Garbled);
        }
    }

    #[test]
    fn a_vendor_is_any_text() {
        for (vendor, expected) in
            [(&b"M\xfcller GmbH"[..], "M\u{fffd}ller GmbH"), (b"A\tB", "A\tB"), (b"", ""), (b"(none)", "")]
        {
            let line = [b"a\t0\t1\t1\tnoarch\t1\t", vendor, b"\nb\t0\t1\t1\tnoarch\t1\tv\n"].concat();
            let found = parse(&line).unwrap();
            let vendors: Vec<_> = found.values().flatten().map(|package| package.vendor.as_str()).collect();
            assert_eq!(vendors, [expected, "v"]);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(text in "([a-z0-9.\t\n-]|\\PC)*") {
            let _ = parse(text.as_bytes());
        }
    }
}
