//! Repository metadata of the rpm world, which dnf and zypper keep as they fetched them: `repomd.xml` names the lists, `primary`
//! the packages, `updateinfo` the advisories (createrepo_c(8); the `rpm-md` format).

use std::{collections::BTreeMap, io};

use muster_proto::time::Timestamp;

use super::{
    rpm_version::Evr,
    xml::{Document, Event, decode},
};

/// Lists that a repository may name, at most.
const LISTS: usize = 200;
/// Packages of one advisory that are kept, at most: those that are installed here.
const ADVISORY_PACKAGES: usize = 10_000;

/// What `repomd.xml` says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Index {
    /// Newest time that it states.
    pub made: Option<Timestamp>,
    /// Names of files by kind of list, such as `primary`.
    pub lists: BTreeMap<String, String>,
}

/// Returns what `repomd.xml` says.
pub(super) fn index(bytes: &[u8]) -> io::Result<Index> {
    let mut index = Index::default();
    let (mut kind, mut in_timestamp) = (None::<String>, false);
    let mut document = Document::new(|event| match event {
        Event::Open(element) => match element.name {
            "data" => kind = element.attribute("type"),
            "location" => {
                if let (Some(kind), Some(place)) = (&kind, element.attribute("href"))
                    && index.lists.len() < LISTS
                    && let Some(name) = place.rsplit('/').next().filter(|name| !name.is_empty() && *name != "..")
                {
                    index.lists.insert(kind.clone(), name.to_owned());
                }
            }
            "timestamp" => in_timestamp = true,
            _ => {}
        },
        Event::Text(text) if in_timestamp => {
            // Some publishers write a fraction.
            let seconds = text.trim().split('.').next().and_then(|seconds| seconds.parse().ok());
            index.made = index.made.max(seconds.and_then(Timestamp::from_seconds));
        }
        Event::Text(_) => {}
        Event::Close(name) => {
            in_timestamp = false;
            if name == "data" {
                kind = None;
            }
        }
    });
    io::Write::write_all(&mut document, bytes)?;
    document.finish()?;
    Ok(index)
}

/// A package that a repository has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Offered {
    pub name: String,
    pub architecture: String,
    pub evr: Evr,
    pub vendor: String,
}

/// Calls `each` for every package of a `primary` list, which `fill` writes.
pub(super) fn primary(
    fill: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    mut each: impl FnMut(&Offered),
) -> io::Result<()> {
    #[derive(Clone, Copy, PartialEq)]
    enum Of {
        Nothing,
        Name,
        Architecture,
        Vendor,
    }
    let (mut package, mut of) = (Offered::default(), Of::Nothing);
    let mut document = Document::new(|event| match event {
        Event::Open(element) => match element.name {
            "package" => package = Offered::default(),
            "name" => of = Of::Name,
            "arch" => of = Of::Architecture,
            "vendor" => of = Of::Vendor,
            "version" => {
                let text = |name| element.attribute(name).unwrap_or_default();
                package.evr = Evr::new(&text("epoch"), &text("ver"), &text("rel")).unwrap_or_default();
            }
            _ => {}
        },
        Event::Text(text) => match of {
            Of::Nothing => {}
            Of::Name => package.name = decode(text.trim()),
            Of::Architecture => package.architecture = decode(text.trim()),
            Of::Vendor => package.vendor = decode(text.trim()),
        },
        Event::Close(name) => {
            of = Of::Nothing;
            if name == "package" && !package.name.is_empty() {
                each(&package);
            }
        }
    });
    fill(&mut document)?;
    document.finish()
}

/// A package that an advisory brings.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Advised {
    pub name: String,
    pub architecture: String,
    pub evr: Evr,
    /// Whether the advisory is about security.
    pub security: bool,
    /// When the advisory was issued.
    pub issued: Option<Timestamp>,
    /// `name:stream` of the module that it is of.
    pub module: Option<String>,
}

/// Calls `each` for every package of every advisory of an `updateinfo` list, which `fill` writes, that `is_wanted` by its name.
/// Returns whether any advisory is about security.
pub(super) fn advisories(
    fill: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    is_wanted: impl Fn(&str) -> bool,
    mut each: impl FnMut(&Advised),
) -> io::Result<bool> {
    let (mut security, mut issued, mut module) = (false, None, None);
    let mut has_security = false;
    let mut packages: Vec<Advised> = Vec::new();
    let mut too_many = false;
    let mut document = Document::new(|event| match event {
        Event::Open(element) => match element.name {
            "update" => {
                // SUSE takes back what broke something, and zypper installs none of it.
                let is_retracted = element.attribute("status").as_deref() == Some("retracted");
                security = element.attribute("type").as_deref() == Some("security") && !is_retracted;
                has_security |= security;
                issued = None;
                packages.clear();
            }
            "issued" => issued = element.attribute("date").and_then(|date| parse_date(&date)),
            "collection" => module = None,
            "module" => {
                let text = |name| element.attribute(name).unwrap_or_default();
                module = Some(format!("{}:{}", text("name"), text("stream")));
            }
            "package" => {
                let text = |name| element.attribute(name).unwrap_or_default();
                let name = text("name");
                if !is_wanted(&name) {
                    return;
                }
                too_many |= packages.len() == ADVISORY_PACKAGES;
                if let (Some(evr), false) = (Evr::new(&text("epoch"), &text("version"), &text("release")), too_many) {
                    let (architecture, module) = (text("arch"), module.clone());
                    packages.push(Advised { name, architecture, evr, module, ..Advised::default() });
                }
            }
            _ => {}
        },
        Event::Text(_) => {}
        // The date may stand behind the packages.
        Event::Close("update") => {
            for package in packages.drain(..) {
                each(&Advised { security, issued, ..package });
            }
        }
        Event::Close(_) => {}
    });
    fill(&mut document)?;
    document.finish()?;
    if too_many {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "an advisory has too many packages"));
    }
    Ok(has_security)
}

/// Returns the time of a date as publishers write it: `2026-10-01`, `2026-10-01 12:30:00`, or seconds since 1970.
fn parse_date(text: &str) -> Option<Timestamp> {
    let text = text.trim().trim_end_matches(" UTC");
    if text.len() > 8 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Timestamp::from_seconds(text.parse().ok()?);
    }
    let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00:00"));
    let time = time.trim_end_matches('Z');
    let seconds = if time.len() == 5 { ":00" } else { "" };
    format!("{date}T{time}{seconds}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_index_names_its_lists_and_its_newest_time() {
        let text = br#"<?xml version="1.0"?><repomd xmlns="u"><revision>9</revision>
            <data type="primary"><timestamp>1790000000</timestamp><location href="repodata/a-primary.xml.gz"/></data>
            <data type="updateinfo"><location href="repodata/b-updateinfo.xml.zst"/><timestamp>1790000100.5</timestamp></data>
            <data type="bad"><location href="repodata/.."/></data></repomd>"#;
        let index = index(text).unwrap();
        assert_eq!(index.made, Timestamp::from_seconds(1_790_000_100));
        let expected = [("primary", "a-primary.xml.gz"), ("updateinfo", "b-updateinfo.xml.zst")];
        assert_eq!(index.lists.iter().map(|(kind, name)| (&**kind, &**name)).collect::<Vec<_>>(), expected);
        assert!(super::index(&text[..60]).is_err());
    }

    #[test]
    fn packages_of_a_list_are_read() {
        let text = br#"<metadata packages="1"><package type="rpm"><name>a&amp;b</name><arch>x86_64</arch>
            <version epoch="1" ver="2.0" rel="3.el9"/><format><rpm:vendor>Red Hat, Inc.</rpm:vendor>
            <rpm:provides><rpm:entry name="x" epoch="0" ver="9"/></rpm:provides></format></package></metadata>"#;
        let mut found = Vec::new();
        primary(|to| to.write_all(text), |package| found.push(package.clone())).unwrap();
        let expected = Offered {
            name: "a&b".to_owned(),
            architecture: "x86_64".to_owned(),
            evr: Evr::parse("1:2.0-3.el9").unwrap(),
            vendor: "Red Hat, Inc.".to_owned(),
        };
        assert_eq!(found, [expected]);
        assert!(primary(|to| to.write_all(&text[..100]), |_| {}).is_err(), "a list that is cut off");
    }

    #[test]
    fn advisories_are_read_with_their_date_and_module() {
        let text = br#"<updates><update type="security"><id>X</id><pkglist>
            <collection><module name="m" stream="1" arch="x"/><package name="a" version="2" release="1" epoch="0" arch="noarch"/></collection>
            <collection><package name="a" version="3" release="1" arch="noarch"/><package name="z" version="3" release="1"/></collection>
            </pkglist><issued date="2026-10-01 00:00:00"/></update>
            <update type="bugfix"><pkglist><collection><package name="a" version="4" release="1" epoch="0" arch="noarch"/></collection></pkglist></update>
            <update status="retracted" type="security"><pkglist><collection><package name="a" version="5" release="1" arch="noarch"/></collection></pkglist></update></updates>"#;
        let mut found = Vec::new();
        assert!(advisories(|to| to.write_all(text), |name| name == "a", |it| found.push(it.clone())).unwrap());
        let issued = "2026-10-01T00:00:00Z".parse().ok();
        let shown: Vec<_> =
            found.iter().map(|it| (it.evr.to_string(), it.security, it.issued, it.module.as_deref())).collect();
        let expected = [
            ("2-1".to_owned(), true, issued, Some("m:1")),
            ("3-1".to_owned(), true, issued, None),
            ("4-1".to_owned(), false, None, None),
            ("5-1".to_owned(), false, None, None),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn dates_are_read_as_publishers_write_them() {
        for (text, expected) in [
            ("2026-10-01", Some("2026-10-01T00:00:00Z")),
            ("2026-10-01 12:30:00", Some("2026-10-01T12:30:00Z")),
            ("2026-10-01 12:30", Some("2026-10-01T12:30:00Z")),
            ("2026-10-01T12:30:00Z", Some("2026-10-01T12:30:00Z")),
            ("2026-10-01 12:30:00 UTC", Some("2026-10-01T12:30:00Z")),
            ("1790812800", Some("2026-10-01T00:00:00Z")),
            ("20261001", Some("2026-10-01T00:00:00Z")),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse_date(text).map(|time| time.to_string()).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(text in "(<|>|/|\"|=|package|update|issued|version|date|name|[ -~]|\\PC)*") {
            let _ = index(text.as_bytes());
            let _ = primary(|to| to.write_all(text.as_bytes()), |_| {});
            let _ = advisories(|to| to.write_all(text.as_bytes()), |_| true, |_| {});
            let _ = parse_date(&text);
        }
    }
}
