//! Release files (Debian's wiki, `DebianRepository/Format`): what a repository is, until when what it says holds, and which lists it
//! publishes, with their sizes and digests.

use std::{collections::BTreeMap, io};

use muster_proto::{
    fact::{Cause, Reading, Text, UpdateSource},
    time::Timestamp,
};

use super::{
    super::{pins::Pins, sources},
    Published,
    coverage::{base, publisher},
};
use crate::probe::deb822::Stanzas;

/// How a file begins that has its signature in itself (RFC 9580, section 7).
const SIGNED: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
/// How such a file ends.
const SIGNATURE_END: &[u8] = b"-----END PGP SIGNATURE-----";

/// What a Release file says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Release {
    pub source: UpdateSource,
    pub priority: u32,
    /// Priorities that pins give packages of it, by their names.
    pub named: BTreeMap<String, u32>,
    /// Whether it has the name of a repository for security updates. Whether those are of this host's packages is another question.
    pub names_security: bool,
    /// Components that it says it has, without what Debian's security archive has before them.
    components: Vec<String>,
    /// Architectures that it says it has.
    architectures: Vec<String>,
    /// Whether it has its signature in itself.
    pub is_signed: bool,
    /// Each list of packages that it publishes, by its place below it: `main/binary-amd64/Packages.xz`.
    lists: BTreeMap<String, Stated>,
}

/// What a Release file states of a list.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Stated {
    pub bytes: u64,
    pub sha256: Option<[u8; 32]>,
}

/// Returns the start of the names of a repository's files from the name of its Release file, and whether that is signed inside.
pub(super) fn release_file(name: &str) -> Option<(&str, bool)> {
    if let Some(prefix) = name.strip_suffix("_InRelease") {
        return Some((prefix, true));
    }
    name.strip_suffix("_Release").map(|prefix| (prefix, false))
}

impl Release {
    /// Returns whether it publishes a list of packages at `place` that has any. apt fetches no other.
    pub fn publishes(&self, place: &str) -> bool {
        let plain = self.lists.get(&format!("{place}Packages"));
        let packed = ["gz", "xz", "bz2", "lzma", "lz4", "zst"];
        plain.map_or_else(
            || packed.iter().any(|end| self.lists.contains_key(&format!("{place}Packages.{end}"))),
            |stated| stated.bytes > 0,
        )
    }

    /// Returns whether it says that it has a component for an architecture, be it with no package in it.
    pub fn states(&self, component: &str, architecture: &str) -> bool {
        let place = format!("{component}/binary-{architecture}/Packages");
        let is_it = |of: &str| of.strip_prefix(&place).is_some_and(|end| end.is_empty() || end.starts_with('.'));
        let names = |own: &[String], name: &str| own.iter().any(|own| own == name);
        (names(&self.components, component) && names(&self.architectures, architecture))
            || self
                .lists
                .range(place.clone()..)
                .map_while(|(of, _)| of.starts_with(&place).then_some(of))
                .any(|of| is_it(of))
    }

    /// Returns what it states of the list that has this name behind the start of its repository's, once that is unpacked; `None` when
    /// it states nothing.
    pub fn stated(&self, name: &str) -> Option<Stated> {
        let name = name.strip_prefix('_')?;
        // Debian's security archive has `updates/` before its components, and apt leaves it out.
        let name = name.strip_prefix("updates_").unwrap_or(name);
        let is_it = |place: &str| place.ends_with("Packages") && sources::file_name(place) == name;
        self.lists.iter().find(|(place, _)| is_it(place)).map(|(_, stated)| *stated)
    }

    /// Takes the priorities that pins give the repository whose files' names begin so.
    pub fn pin(&mut self, file: &str, pins: &Pins) {
        self.priority = pins.all.get(file).copied().unwrap_or(self.priority);
        let named = pins.named.iter().filter_map(|(name, of)| Some((name.clone(), *of.get(file)?)));
        self.named = named.collect();
    }

    /// Returns the priority that a package of it has.
    pub fn priority_of(&self, name: &str) -> u32 {
        self.named.get(name).copied().unwrap_or(self.priority)
    }

    pub fn published(&self, file: &str, components: Vec<String>) -> Published {
        let source = &self.source;
        Published {
            file: file.to_owned(),
            origin: source.origin.as_str().to_owned(),
            label: source.label.as_str().to_owned(),
            codename: source.codename.as_str().to_owned(),
            suite: source.suite.as_str().to_owned(),
            priority: self.priority,
            components,
            release: base(source).to_owned(),
            // What is maintained for longer is beside them.
            is_security: source.security && publisher(source.origin.as_str()) == source.origin.as_str(),
        }
    }
}

/// Returns whether a Release file has its end: that of the signature which is in it, or of a line.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    match bytes.starts_with(SIGNED) {
        true => bytes.trim_ascii_end().ends_with(SIGNATURE_END),
        false => bytes.ends_with(b"\n"),
    }
}

pub(super) fn parse_release(bytes: &[u8]) -> Release {
    const FIELDS: &[&str] = &[
        "Origin",
        "Label",
        "Codename",
        "Suite",
        "Date",
        "Valid-Until",
        "NotAutomatic",
        "ButAutomaticUpgrades",
        "Components",
        "Architectures",
        "MD5Sum",
        "SHA256",
        "SHA512",
    ];
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
    let mut lists: BTreeMap<String, Stated> = BTreeMap::new();
    for name in ["MD5Sum", "SHA512", "SHA256"] {
        for (digest, bytes, place) in
            field(name).lines().filter_map(file).filter(|(_, _, place)| place.contains("Packages"))
        {
            let stated = lists.entry(place.to_owned()).or_default();
            stated.bytes = bytes;
            if name == "SHA256" {
                stated.sha256 = sha256(digest);
            }
        }
    }
    let words = |name| -> Vec<String> {
        field(name).split_whitespace().map(|word| word.strip_prefix("updates/").unwrap_or(word).to_owned()).collect()
    };
    // Debian's suite changes its name with each release (`oldstable-security`), its label does not.
    let names_security = label == "Debian-Security" || [codename, suite].iter().any(|name| name.ends_with("-security"));
    Release {
        priority,
        named: BTreeMap::new(),
        names_security,
        components: words("Components"),
        architectures: words("Architectures"),
        is_signed: bytes.starts_with(SIGNED),
        lists,
        source: UpdateSource {
            label: Text::new(label),
            codename: Text::new(codename),
            suite: Text::new(suite),
            security: names_security,
            release_time: time("Date"),
            valid_until_time: time("Valid-Until"),
            origin: Text::new(field("Origin")),
            verified: None,
        },
    }
}

/// Returns digest, size and place of a file from its line.
fn file(line: &str) -> Option<(&str, u64, &str)> {
    let mut words = line.split_whitespace();
    Some((words.next()?, words.next()?.parse().ok()?, words.next()?))
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok().map(|()| digest)
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

    #[test]
    fn a_release_file_that_is_cut_off_is_told() {
        let signed = [SIGNED, b"\nDate: x\n", SIGNATURE_END, b"\n"].concat();
        for (bytes, expected) in [
            (&signed[..], true),
            (&signed[..signed.len() - 3], false),
            (b"Date: x\n", true),
            (b"Date: x", false),
            (b"", false),
        ] {
            assert_eq!(is_whole(bytes), expected);
        }
    }

    #[test]
    fn a_release_date_is_read() {
        let expected = "2025-05-10T09:12:01Z".parse().unwrap();
        let release = parse_release(b"Date: Sat, 10 May 2025 09:12:01 UTC\n");
        assert_eq!(release.source.release_time, Reading::Known(expected));
        assert_eq!(parse_date("garbage"), None);
    }

    #[test]
    fn what_is_stated_of_a_list_is_found_by_its_place() {
        let release = parse_release(
            b"MD5Sum:\n 00 20 main/binary-amd64/Packages\n 00 7 contrib/binary-amd64/Packages\nSHA256:\n \
              9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 20 main/binary-amd64/Packages\n 00 9 \
              main/x/Packages.xz\n",
        );
        let main = release.stated("_main_binary-amd64_Packages").unwrap();
        assert_eq!((main.bytes, main.sha256.map(|digest| digest[..2].to_vec())), (20, Some(vec![0x9f, 0x86])));
        assert_eq!(release.stated("_updates_main_binary-amd64_Packages"), Some(main));
        // Without a digest of a kind that still holds, its size is all.
        assert_eq!(release.stated("_contrib_binary-amd64_Packages"), Some(Stated { bytes: 7, sha256: None }));
        for name in ["_non-free_binary-amd64_Packages", "_main_x_Packages", "main_binary-amd64_Packages"] {
            assert_eq!(release.stated(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*\n\\PC*") {
            let _ = parse_release(text.as_bytes());
            let _ = parse_date(&text);
        }
    }
}
