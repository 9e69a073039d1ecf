//! What dpkg's database says: the MD5 of each file as it was installed, and the path of everything else.
//!
//! Versions and configuration files are in `status`, and while dpkg runs in `updates`, which it folds into `status` when it ends.
//! `info` has a list of paths and one of digests for each package. A diverted path is looked for where the diversion leads.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use muster_proto::fact::{ExplanationSource, Text};

use super::evidence::{Evidence, Holds, Names, Package, Record, Rights, each_line};
use crate::{host::Host, probe::deb822::Stanzas};

pub(super) const STATUS: &str = "/var/lib/dpkg/status";
pub(super) const UPDATES: &str = "/var/lib/dpkg/updates";
pub(super) const INFO: &str = "/var/lib/dpkg/info";
const DIVERSIONS: &str = "/var/lib/dpkg/diversions";
const OVERRIDES: &str = "/var/lib/dpkg/statoverride";
/// Diversions and overrides that are read, at most.
const SPECIAL: usize = 100_000;
/// State of a package of which nothing is there, as dpkg(1) names it. Of one that was removed, configuration files may be.
const NOT_INSTALLED: &str = "not-installed";
/// Words behind the digest of a configuration file.
const FLAGS: &[&str] = &["obsolete", "remove-on-upgrade"];

/// Packages by the name that their files in `info` begin with.
type Installed = BTreeMap<String, Rc<Package>>;
/// MD5 of configuration files as they were shipped, by that name and path.
type Conffiles = BTreeMap<String, Vec<(Vec<u8>, [u8; 16])>>;

/// Adds what dpkg holds at the paths in question. A host without dpkg has no evidence of it.
pub(super) fn collect(host: &dyn Host, evidence: &mut Evidence) -> io::Result<()> {
    let mut conffiles = Conffiles::new();
    let Some(installed) = installed(host, evidence, &mut conffiles)? else { return Ok(()) };
    evidence.needs_md5 = true;
    evidence.sources.insert(ExplanationSource::Dpkg);
    evidence.overrides = overrides(host)?;
    let diversions = Diversions::read(host)?;
    each_list(host, &installed, &mut |stem, package, list| {
        let mut listed = BTreeMap::new();
        let read = each_line(host, list, &mut |path| {
            let place = diversions.place(path, package);
            if evidence.asks(place) {
                listed.insert(path.to_vec(), Holds::Path);
            }
        });
        if is_gone(&read) || listed.is_empty() {
            return read_or_gone(read);
        }
        read?;
        let of_files = each_line(host, &info(stem, "md5sums"), &mut |line| {
            if let Some((md5, path)) = parse_digest(line)
                && let Some(holds) = listed.get_mut(&[b"/", path].concat())
            {
                *holds = Holds::Md5(md5);
            }
        });
        read_or_gone(of_files)?;
        for (path, md5) in conffiles.get(stem).into_iter().flatten() {
            if let Some(holds) = listed.get_mut(path) {
                *holds = Holds::Configuration(*md5);
            }
        }
        for (path, holds) in listed {
            evidence.add(diversions.place(&path, package), &Record { package: Rc::clone(package), holds });
        }
        Ok(())
    })?;
    installed.values().for_each(|package| evidence.add_package(package));
    Ok(())
}

/// Calls `visit` with each package and each path that it lists.
pub(super) fn each_owned(host: &dyn Host, visit: &mut dyn FnMut(&Package, &[u8])) -> io::Result<()> {
    let Some(installed) = installed(host, &Evidence::default(), &mut Conffiles::new())? else { return Ok(()) };
    let diversions = Diversions::read(host)?;
    each_list(host, &installed, &mut |_, package, list| {
        read_or_gone(each_line(host, list, &mut |path| {
            // A package's first line names the root.
            if path != b"/." && !path.is_empty() {
                visit(package, diversions.place(path, package));
            }
        }))
    })
}

/// A file of `info` that is gone between two calls is of a package that is being unpacked or removed.
fn is_gone(result: &io::Result<()>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn read_or_gone(result: io::Result<()>) -> io::Result<()> {
    if is_gone(&result) { Ok(()) } else { result }
}

/// Returns whose file `path` is, if it is one that a package has in `info`, such as `/var/lib/dpkg/info/libc6:amd64.list`.
pub(super) fn package_of(path: &[u8]) -> Option<(ExplanationSource, &str)> {
    let file = path.strip_prefix(INFO.as_bytes())?.strip_prefix(b"/")?;
    // No name of a package has a dot at its end, and no ending has one: the name itself may have one.
    let (stem, _) = std::str::from_utf8(file).ok()?.rsplit_once('.')?;
    Some((ExplanationSource::Dpkg, stem.split(':').next().unwrap_or(stem)))
}

fn info(stem: &str, ending: &str) -> PathBuf {
    Path::new(INFO).join(format!("{stem}.{ending}"))
}

type EachList<'v> = dyn FnMut(&str, &Rc<Package>, &Path) -> io::Result<()> + 'v;

/// Calls `visit` for each list of a package.
fn each_list(host: &dyn Host, installed: &Installed, visit: &mut EachList<'_>) -> io::Result<()> {
    let names = match host.list(Path::new(INFO)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    for name in &names {
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".list")) else { continue };
        if let Some(package) = installed.get(stem) {
            visit(stem, package, &info(stem, "list"))?;
        }
    }
    Ok(())
}

/// Returns the packages that are there, and the configuration files in question; `None` without dpkg.
fn installed(host: &dyn Host, evidence: &Evidence, conffiles: &mut Conffiles) -> io::Result<Option<Installed>> {
    let mut files = vec![PathBuf::from(STATUS)];
    // Numbers of equal length; others are drafts.
    let is_number = |name: &OsString| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let updates = host.list(Path::new(UPDATES)).unwrap_or_default();
    files.extend(updates.iter().filter(|name| is_number(name)).map(|name| Path::new(UPDATES).join::<&OsStr>(name)));
    let mut installed = Installed::new();
    for (number, file) in files.iter().enumerate() {
        let mut stream = match host.stream(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => return Ok(None),
            // Folded into `status` meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result?,
        };
        let wanted = &["Package", "Status", "Version", "Architecture", "Multi-Arch", "Conffiles"];
        let mut stanzas = Stanzas::new(wanted, |fields| add_package(fields, evidence, &mut installed, conffiles));
        io::copy(&mut stream, &mut stanzas)?;
        stanzas.finish();
    }
    // dpkg writes a package's list when it unpacks the package.
    for (stem, package) in &mut installed {
        let time = host.metadata(&info(stem, "list")).ok().and_then(|metadata| metadata.modified);
        *package = Rc::new(Package { time, ..(**package).clone() });
    }
    Ok(Some(installed))
}

fn add_package(
    fields: &BTreeMap<&'static str, String>,
    evidence: &Evidence,
    installed: &mut Installed,
    conffiles: &mut Conffiles,
) {
    let field = |name| fields.get(name).map(String::as_str).unwrap_or_default();
    let (name, architecture) = (field("Package"), field("Architecture"));
    // Of a package that may be there for several architectures, the files have that in their names.
    let stem = if field("Multi-Arch") == "same" { format!("{name}:{architecture}") } else { name.to_owned() };
    installed.remove(&stem);
    conffiles.remove(&stem);
    let is_there = field("Status").split_whitespace().nth(2).is_some_and(|state| state != NOT_INSTALLED);
    if !is_there || name.contains('/') || architecture.contains('/') {
        return;
    }
    let found = field("Conffiles").lines().filter_map(parse_conffile).filter(|(path, _)| evidence.asks(path));
    let found: Vec<_> = found.collect();
    if !found.is_empty() {
        conffiles.insert(stem.clone(), found);
    }
    let (name, version) = (Text::new(name), Text::new(field("Version")));
    installed.insert(stem, Rc::new(Package { source: ExplanationSource::Dpkg, name, version, time: None }));
}

/// A line of the field `Conffiles`: path, MD5, and words on what became of it.
fn parse_conffile(line: &str) -> Option<(Vec<u8>, [u8; 16])> {
    let mut line = line.trim();
    while let Some((rest, word)) = line.rsplit_once(' ')
        && FLAGS.contains(&word)
    {
        line = rest;
    }
    let (path, md5) = line.rsplit_once(' ')?;
    Some((path.as_bytes().to_vec(), digest(md5.as_bytes())?))
}

/// A line of an md5sums file: MD5, two spaces, path without its first slash.
fn parse_digest(line: &[u8]) -> Option<([u8; 16], &[u8])> {
    let (md5, path) = line.split_at_checked(32)?;
    Some((digest(md5)?, path.strip_prefix(b"  ")?))
}

fn digest(md5: &[u8]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(md5, &mut bytes).ok()?;
    Some(bytes)
}

/// Where the files of packages lie that dpkg-divert(1) moved out of another's way.
#[derive(Debug, Default)]
struct Diversions {
    /// Place and the package whose own file stays where it is; by the path that is diverted.
    places: BTreeMap<Vec<u8>, (Vec<u8>, Vec<u8>)>,
}

impl Diversions {
    /// Three lines each: path, place, and the package that diverts, or `:` for the administrator.
    fn read(host: &dyn Host) -> io::Result<Self> {
        let mut diversions = Self::default();
        let mut lines: Vec<Vec<u8>> = Vec::new();
        let read = each_line(host, Path::new(DIVERSIONS), &mut |line| {
            lines.push(line.to_vec());
            if let [path, place, by] = lines.as_slice() {
                if diversions.places.len() < SPECIAL {
                    diversions.places.insert(path.clone(), (place.clone(), by.clone()));
                }
                lines.clear();
            }
        });
        read_or_gone(read)?;
        Ok(diversions)
    }

    /// Returns where the file is that `package` has at `path`.
    fn place<'p>(&'p self, path: &'p [u8], package: &Package) -> &'p [u8] {
        match self.places.get(path) {
            Some((place, by)) if by != package.name.as_str().as_bytes() => place,
            _ => path,
        }
    }
}

/// Reads dpkg-statoverride(1)'s file: a line each with user, group, mode and path. A name without a number overrides nothing.
fn overrides(host: &dyn Host) -> io::Result<BTreeMap<Vec<u8>, Rights>> {
    let names = Names::read(host);
    let mut overrides = BTreeMap::new();
    let read = each_line(host, Path::new(OVERRIDES), &mut |line| {
        if let Some((path, rights)) = parse_override(line, &names)
            && overrides.len() < SPECIAL
        {
            overrides.insert(path, rights);
        }
    });
    read_or_gone(read)?;
    Ok(overrides)
}

fn parse_override(line: &[u8], names: &Names) -> Option<(Vec<u8>, Rights)> {
    let mut parts = line.splitn(4, |&byte| byte == b' ');
    let (user, group, mode, path) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // `#` and a number where there is no name.
    let number = |name: &[u8]| std::str::from_utf8(name.strip_prefix(b"#")?).ok()?.parse().ok();
    let mode = u32::from_str_radix(std::str::from_utf8(mode).ok()?, 8).ok()?;
    let uid = number(user).or_else(|| names.user(user))?;
    let gid = number(group).or_else(|| names.group(group))?;
    Some((path.to_vec(), Rights { mode, uid, gid }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_a_digest_two_spaces_and_a_path() {
        let md5 = "900150983cd24fb0d6963f7d28e17f72";
        let line = format!("{md5}  usr/bin/a b");
        assert_eq!(parse_digest(line.as_bytes()), digest(md5.as_bytes()).map(|md5| (md5, b"usr/bin/a b".as_slice())));
        for line in
            ["9001", "900150983cd24fb0d6963f7d28e17f72 usr/bin/a", "900150983cd24fb0d6963f7d28e17fxx  usr/bin/a"]
        {
            assert_eq!(parse_digest(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_configuration_file_is_read_with_what_stands_behind_it() {
        let md5 = "900150983cd24fb0d6963f7d28e17f72";
        for (line, path) in [
            (format!("/etc/a {md5}"), Some("/etc/a")),
            (format!(" /etc/a b {md5} obsolete"), Some("/etc/a b")),
            (format!("/etc/a {md5} remove-on-upgrade obsolete"), Some("/etc/a")),
            ("/etc/a newconffile".to_owned(), None),
            (String::new(), None),
        ] {
            let found = parse_conffile(&line).map(|(path, _)| path);
            assert_eq!(found.as_deref(), path.map(str::as_bytes), "{line}");
        }
    }

    #[test]
    fn an_override_without_numbers_is_none() {
        let names = Names::default();
        let rights = Rights { mode: 0o4710, uid: 7, gid: 0 };
        assert_eq!(parse_override(b"#7 root 4710 /usr/a b", &names), Some((b"/usr/a b".to_vec(), rights)));
        for line in ["nobody root 755 /a", "#7 root 888 /a", "#7 root 755", ""] {
            assert_eq!(parse_override(line.as_bytes(), &names), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC*") {
            let _ = (parse_digest(&bytes), parse_override(&bytes, &Names::default()), parse_conffile(&text));
        }
    }
}
