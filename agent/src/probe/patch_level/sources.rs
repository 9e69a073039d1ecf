//! Where apt is told to get packages from: sources.list(5), in both of its formats.

use std::{
    io::{self, Write as _},
    path::Path,
};

use muster_proto::fact::{Cause, Unknown};

use crate::{
    host::{self, EntryKind, FILE_BYTES, Host},
    probe::deb822::Stanzas,
};

pub(super) const LIST: &str = "/etc/apt/sources.list";
pub(super) const FOLDER: &str = "/etc/apt/sources.list.d";
/// Repositories that are taken, at most.
const REPOSITORIES: usize = 2_000;

/// A repository from which binary packages are to be fetched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Configured {
    /// Start of the names of its files in apt's lists: host and path of its address, with `_` for each slash.
    pub file: String,
    /// Its address and suite without a password, for people.
    pub name: String,
    /// Components; none of a repository without the usual folders.
    pub components: Vec<String>,
    /// Architectures that are asked for by name; none when those of the host are.
    pub architectures: Vec<String>,
    /// Whether its metadata are taken without a signature that holds: `trusted` or `allow-insecure`.
    pub unverified: bool,
}

/// Returns the files that apt reads, which are not all there.
pub(super) fn paths(host: &dyn Host) -> Result<Vec<String>, Unknown> {
    let mut paths = vec![LIST.to_owned()];
    match host.list(Path::new(FOLDER)) {
        Ok(names) => {
            let names = names.iter().filter_map(|name| name.to_str()).filter(|name| is_taken(name));
            paths.extend(names.map(|name| format!("{FOLDER}/{name}")));
        }
        Err(error) if host::cause(&error) == Cause::Absent => {}
        Err(error) => return Err(host::unknown(format!("list {FOLDER}"), &error)),
    }
    Ok(paths)
}

/// Returns the repositories that are configured, in the order of the files.
pub(super) fn read(host: &dyn Host, native: &str) -> Result<Vec<Configured>, Unknown> {
    let mut configured = Vec::new();
    for path in paths(host)? {
        match host.read(Path::new(&path), FILE_BYTES) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let is_garbled = |line: &str| !line.trim_start().starts_with('#') && line.contains('\u{fffd}');
                if text.lines().any(is_garbled) {
                    return Err(Unknown::new(Cause::Garbled, format!("{path} is not text")));
                }
                match path.ends_with(".sources") {
                    true => stanzas(&text, native, &mut configured),
                    false => lines(&text, native, &mut configured),
                }
                .map_err(|what| Unknown::new(Cause::Garbled, format!("{path}: {what}")))?;
            }
            Err(error) if path == LIST && host::cause(&error) == Cause::Absent => {}
            Err(_) if is_none(host, Path::new(&path)) => {}
            Err(error) => return Err(host::unknown(format!("read {path}"), &error)),
        }
        if configured.len() > REPOSITORIES {
            return Err(Unknown::new(Cause::Limit, format!("more than {REPOSITORIES} repositories are configured")));
        }
    }
    Ok(configured)
}

/// Returns whether something with the name of a file of sources is none for apt: a folder, or a link to nothing.
fn is_none(host: &dyn Host, path: &Path) -> bool {
    match host.metadata(path) {
        Ok(it) if it.kind == EntryKind::Folder => true,
        Ok(it) if it.kind == EntryKind::Link => {
            matches!(host.read(path, FILE_BYTES), Err(error) if error.kind() == io::ErrorKind::NotFound)
        }
        Ok(_) | Err(_) => false,
    }
}

/// Returns whether apt takes a file of this name (sources.list(5)).
fn is_taken(name: &str) -> bool {
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    is_plain && !name.starts_with('.') && (name.ends_with(".list") || name.ends_with(".sources"))
}

/// Reads the format of one line: `deb [ option=value ] address suite component...`.
fn lines(text: &str, native: &str, configured: &mut Vec<Configured>) -> Result<(), String> {
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((kind, rest)) = line.split_once(char::is_whitespace) else {
            if line.is_empty() {
                continue;
            }
            return Err("a line has no address".to_owned());
        };
        if kind == "deb-src" {
            continue;
        }
        if kind != "deb" {
            return Err("a line begins with neither deb nor deb-src".to_owned());
        }
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or("options of a line have no end")?,
            None => ("", rest),
        };
        let Some((address, rest)) = address(rest.trim_start()) else { return Err("a line has no suite".to_owned()) };
        let mut words = rest.split_whitespace();
        let suite = words.next().ok_or("a line has no suite")?;
        let components = words.map(str::to_owned).collect();
        let mut repository = Repository { components, ..Repository::default() };
        for option in options.split_whitespace() {
            let (name, value) = option.split_once('=').ok_or("an option has no value")?;
            repository.set(name.trim_end_matches(['+', '-']), value, ',')?;
            // `+=` and `-=` start from the host's own, which is asked for then.
            if name.ends_with(['+', '-']) && name.starts_with("arch") {
                repository.architectures.clear();
            }
        }
        configured.extend(repository.at(address, suite, native)?);
    }
    Ok(())
}

/// Returns an address and what follows it. That of a disc has its name in brackets, with blanks.
fn address(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    let end = text.find(|c: char| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && c.is_whitespace()
    })?;
    Some(text.split_at(end))
}

/// Reads the format of stanzas (deb822(5)).
fn stanzas(text: &str, native: &str, configured: &mut Vec<Configured>) -> Result<(), String> {
    const FIELDS: &[&str] =
        &["Types", "URIs", "Suites", "Components", "Architectures", "Enabled", "Trusted", "Allow-Insecure"];
    let mut result = Ok(());
    let mut stanzas = Stanzas::new(FIELDS, |fields| {
        let field = |name| fields.get(name).map(String::as_str).unwrap_or_default();
        let words = |name| field(name).split_whitespace();
        if !words("Types").any(|kind| kind == "deb") || truth(field("Enabled")) == Some(false) {
            return;
        }
        let components = words("Components").map(str::to_owned).collect();
        let mut repository = Repository { components, ..Repository::default() };
        let options = ["Architectures", "Trusted", "Allow-Insecure"].into_iter().filter(|name| !field(name).is_empty());
        let set: Result<(), String> = options
            .map(|name| (name, field(name)))
            .try_for_each(|(name, value)| repository.set(&name.to_ascii_lowercase(), value, ' '));
        if words("URIs").next().is_none() || words("Suites").next().is_none() {
            result = Err("a stanza has no address or no suite".to_owned());
        }
        for address in words("URIs") {
            for suite in words("Suites") {
                match set.clone().and_then(|()| repository.clone().at(address, suite, native)) {
                    Ok(found) => configured.extend(found),
                    Err(error) => result = Err(error),
                }
            }
        }
    });
    // apt takes comments out before it looks at fields, also from within one.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        stanzas.write_all(line.as_bytes()).and_then(|()| stanzas.write_all(b"\n")).expect("stanzas take every write");
    }
    stanzas.finish();
    result
}

/// What lines and stanzas say beside address and suite.
#[derive(Clone, Debug, Default)]
struct Repository {
    components: Vec<String>,
    architectures: Vec<String>,
    unverified: bool,
}

impl Repository {
    fn set(&mut self, name: &str, value: &str, separator: char) -> Result<(), String> {
        match name {
            "arch" | "architectures" => {
                let words = value.split(|c: char| c == separator || c.is_whitespace());
                self.architectures = words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
            }
            "trusted" | "allow-insecure" | "allow-weak" | "allow-downgrade-to-insecure" => {
                let value = truth(value).ok_or_else(|| format!("{name} is neither yes nor no"))?;
                self.unverified |= value && matches!(name, "trusted" | "allow-insecure");
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the repository at an address; none when it is on a disc, which has no updates.
    fn at(self, address: &str, suite: &str, native: &str) -> Result<Option<Configured>, String> {
        let (scheme, place) = address.split_once(':').ok_or("an address has no scheme")?;
        if scheme == "cdrom" {
            return Ok(None);
        }
        let place = place.strip_prefix("//").unwrap_or(place);
        // What stands before the host may be a password.
        let host_end = place.find('/').unwrap_or(place.len());
        let place = place[..host_end].rfind('@').map_or(place, |at| &place[at + 1..]);
        let suite = suite.replace("$(ARCH)", native);
        let slash = if place.ends_with('/') { "" } else { "/" };
        let path = match suite.as_str() {
            "/" => format!("{place}{slash}"),
            flat if flat.ends_with('/') => format!("{place}{slash}{flat}"),
            suite => format!("{place}{slash}dists/{suite}/"),
        };
        if self.components.is_empty() != suite.ends_with('/') {
            return Err("a suite with components ends with a slash, or one without does not".to_owned());
        }
        let file = file_name(&path);
        Ok(Some(Configured {
            file: file.strip_suffix('_').unwrap_or(&file).to_owned(),
            name: format!("{place} {suite}"),
            components: self.components,
            architectures: self.architectures,
            unverified: self.unverified,
        }))
    }
}

/// Returns the name that apt gives the file of an address: what is no plain letter is `%` and its number, a slash is `_`.
pub(super) fn file_name(path: &str) -> String {
    use std::fmt::Write as _;
    let mut name = String::new();
    for byte in path.bytes() {
        match byte {
            b'/' => name.push('_'),
            b'\\'
            | b'|'
            | b'{'
            | b'}'
            | b'['
            | b']'
            | b'<'
            | b'>'
            | b'"'
            | b'^'
            | b'~'
            | b'_'
            | b'='
            | b'!'
            | b'@'
            | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'*'
            | 0..=b' '
            | 0x7f..=0xff => {
                write!(name, "%{byte:02x}").expect("a text takes every write");
            }
            _ => name.push(char::from(byte)),
        }
    }
    name
}

/// Returns what apt takes a word for; `None` when it is neither yes nor no.
pub(super) fn truth(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "yes" | "true" | "with" | "on" | "enable" | "1" => Some(true),
        "no" | "false" | "without" | "off" | "disable" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::PathText;
    use proptest::prelude::*;

    use super::*;
    use crate::host::{Metadata, Recorded, recorded::Failure};

    /// Returns each repository as `file component,component architecture,architecture`, `!` before what is not verified.
    fn shown(result: Result<(), String>, configured: &[Configured]) -> Result<Vec<String>, String> {
        let line = |it: &Configured| {
            let mark = if it.unverified { "!" } else { "" };
            format!("{mark}{} {} {}", it.file, it.components.join(","), it.architectures.join(","))
                .trim_end()
                .to_owned()
        };
        result.map(|()| configured.iter().map(line).collect())
    }

    fn of_lines(text: &str) -> Result<Vec<String>, String> {
        let mut configured = Vec::new();
        let result = lines(text, "amd64", &mut configured);
        shown(result, &configured)
    }

    /// The names are those that apt 2.6 gave the files of these sources.
    #[test]
    fn lines_are_read() {
        for (text, expected) in [
            ("deb http://deb.debian.org/debian bookworm main", "deb.debian.org_debian_dists_bookworm main"),
            ("deb http://deb.debian.org/debian/ bookworm main", "deb.debian.org_debian_dists_bookworm main"),
            (
                "deb [ arch=amd64,i386 trusted=yes ] http://x.org:8080/a_b stable main contrib # more",
                "!x.org:8080_a%5fb_dists_stable main,contrib amd64,i386",
            ),
            ("deb [arch+=i386] https://x.org/ stable main", "x.org_dists_stable main"),
            ("deb [signed-by=/k.gpg] https://u:p@x.org/~me stable main", "x.org_%7eme_dists_stable main"),
            ("deb mirror+file:/etc/apt/mirrors/debian.list sid main", "_etc_apt_mirrors_debian.list_dists_sid main"),
            ("deb [trusted=yes] file:/srv/flat ./", "!_srv_flat_."),
            ("deb [allow-insecure=yes] file:///srv/emp/ x main", "!_srv_emp_dists_x main"),
            ("deb http://x.org /", "x.org"),
            ("deb http://x.org stable/$(ARCH)/", "x.org_stable_amd64"),
            ("deb\thttp://x.org\tbookworm/updates\tmain", "x.org_dists_bookworm_updates main"),
        ] {
            assert_eq!(of_lines(text), Ok(vec![expected.to_owned()]), "{text}");
        }
        let nothing = "# deb http://x.org a main\n\ndeb-src http://x.org a main\ndeb cdrom:[Debian 12 - A B]/ a main\n";
        assert_eq!(of_lines(nothing), Ok(Vec::new()));
        for text in [
            "deb",
            "deb http://x.org",
            "deb http://x.org stable",
            "deb http://x.org ./ main",
            "deb [arch=amd64 http://x.org stable main",
            "deb [trusted=maybe] http://x.org stable main",
            "rpm http://x.org stable main",
            "deb nowhere stable main",
        ] {
            assert!(of_lines(text).is_err(), "{text}");
        }
    }

    #[test]
    fn stanzas_are_read() {
        let text = "# comment\nTypes: deb deb-src\nURIs: http://a.org/debian https://b.org\nSuites: x x-updates\n\
            Components: main\n# in the midst: of it\n contrib\nArchitectures: amd64 i386\nTrusted: yes\nSigned-By:\n -----BEGIN\n .\n\n\
            Enabled: no\nTypes: deb\nURIs: http://c.org\nSuites: x\nComponents: main\n\n\
            Types: deb-src\nURIs: http://d.org\nSuites: x\nComponents: main\n\n\
            types: deb\nuris: http://e.org\nsuites: ./\n";
        let mut configured = Vec::new();
        let result = stanzas(text, "amd64", &mut configured);
        let expected = [
            "!a.org_debian_dists_x main,contrib amd64,i386",
            "!a.org_debian_dists_x-updates main,contrib amd64,i386",
            "!b.org_dists_x main,contrib amd64,i386",
            "!b.org_dists_x-updates main,contrib amd64,i386",
            "e.org_.",
        ];
        assert_eq!(shown(result, &configured).unwrap(), expected);
        for text in ["Types: deb\nURIs: http://a.org\n", "Types: deb\nURIs: a\nSuites: x\nComponents: main\n"] {
            assert!(stanzas(text, "amd64", &mut Vec::new()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_folder_and_a_link_to_nothing_are_no_files_of_sources() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-13");
        let file = format!("{FOLDER}/x.list");
        for (kind, error, expected) in [
            (EntryKind::Folder, io::Error::from_raw_os_error(21), true),
            (EntryKind::Link, io::Error::from_raw_os_error(2), true),
            (EntryKind::Link, io::Error::from_raw_os_error(13), false),
            // It went away while it was looked at.
            (EntryKind::File, io::Error::from_raw_os_error(2), false),
            (EntryKind::File, io::Error::from_raw_os_error(13), false),
        ] {
            let mut host = Recorded::at(&case).unwrap();
            let (text, index) = (|text: &str| PathText::from_bytes(text.as_bytes()), host.index_mut());
            let entry = *index.metadata.values().next().unwrap();
            index.metadata.insert(text(&file), Metadata { kind, ..entry });
            index.lists.insert(text(FOLDER), vec![text("x.list")]);
            let code = error.raw_os_error();
            index.errors.insert(format!("read {file}"), Failure::of(&error));
            let found = read(&host, "amd64");
            assert_eq!(found.is_ok(), expected, "{kind:?} {code:?}: {found:?}");
            assert!(found.is_err() || !found.unwrap().is_empty());
        }
    }

    #[test]
    fn files_that_apt_leaves_out_are_left_out() {
        for (name, expected) in [
            ("debian.sources", true),
            ("a-b_c.list", true),
            ("a.list.save", false),
            (".a.list", false),
            ("a b.list", false),
            ("a.list~", false),
        ] {
            assert_eq!(is_taken(name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(
            text in "(deb|Types: deb|URIs: |Suites: |\\[|\\]|[ \n:/@#a-z=\\PC])*",
        ) {
            let _ = of_lines(&text);
            let _ = stanzas(&text, "amd64", &mut Vec::new());
        }
    }
}
