//! What pacman's database says: a folder for each package, with its version and, as mtree(5), everything it installed.

use std::{collections::BTreeMap, io, path::Path, rc::Rc};

use flate2::read::MultiGzDecoder;
use muster_proto::{
    fact::{ExplanationSource, FileType, Text},
    time::Timestamp,
};

use super::evidence::{Content, Evidence, Holds, Lines, Package, Record, Whole};
use crate::host::{FILE_BYTES, Host};

pub(super) const LOCAL: &str = "/var/lib/pacman/local";
/// Bytes of one package's mtree once it is unpacked, at most: the largest packages have some ten megabytes.
const MTREE_BYTES: u64 = 256 * 1024 * 1024;

/// Adds what pacman holds at the paths in question. A host without pacman has no evidence of it.
pub(super) fn collect(host: &dyn Host, evidence: &mut Evidence) -> io::Result<()> {
    let mut last: Option<Rc<Package>> = None;
    each(host, &mut |package, entry| {
        if !last.as_ref().is_some_and(|last| Rc::ptr_eq(last, package)) {
            evidence.add_package(package);
            last = Some(Rc::clone(package));
        }
        if evidence.asks(&entry.path) {
            let holds = entry.whole().map_or(Holds::Unknown, Holds::Whole);
            evidence.add(&entry.path, &Record { package: Rc::clone(package), holds });
        }
    })
}

/// Returns whose file `path` is, if it is of a package's folder, such as `/var/lib/pacman/local/zlib-1:1.3-2/desc`.
pub(super) fn package_of(path: &[u8]) -> Option<(ExplanationSource, &str)> {
    let folder = path.strip_prefix(LOCAL.as_bytes())?.strip_prefix(b"/")?.split(|&byte| byte == b'/').next()?;
    // Behind the name are version and release, in which no `-` may be.
    let (name, _) = std::str::from_utf8(folder).ok()?.rsplit_once('-')?.0.rsplit_once('-')?;
    Some((ExplanationSource::Pacman, name))
}

/// Calls `visit` with each package and each path that it lists.
pub(super) fn each_owned(host: &dyn Host, visit: &mut dyn FnMut(&Package, &[u8])) -> io::Result<()> {
    each(host, &mut |package, entry| visit(package, &entry.path))
}

/// Calls `visit` for each entry of each package. A package that is removed meanwhile is left out.
fn each(host: &dyn Host, visit: &mut dyn FnMut(&Rc<Package>, &Entry)) -> io::Result<()> {
    let folders = match host.list(Path::new(LOCAL)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    for folder in folders {
        let folder = Path::new(LOCAL).join(folder);
        match each_of(host, &folder, visit) {
            // ENOTDIR: `ALPM_DB_VERSION` is a file.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            result => result?,
        }
    }
    Ok(())
}

fn each_of(host: &dyn Host, folder: &Path, visit: &mut dyn FnMut(&Rc<Package>, &Entry)) -> io::Result<()> {
    let description = host.read(&folder.join("desc"), FILE_BYTES)?;
    let Some(package) = package(&String::from_utf8_lossy(&description)) else { return Ok(()) };
    let package = Rc::new(package);
    let mut defaults = Keywords::new();
    let mut on_line = |line: &[u8]| {
        if let Some(entry) = parse(line, &mut defaults) {
            visit(&package, &entry);
        }
    };
    let mut lines = Lines::new(&mut on_line);
    let packed = host.stream(&folder.join("mtree"))?;
    let unpacked = MultiGzDecoder::new(io::BufReader::new(packed));
    io::copy(&mut io::Read::take(unpacked, MTREE_BYTES), &mut lines)?;
    lines.end();
    Ok(())
}

/// Reads a package's `desc`: a name between percent signs, lines of value, and an empty line.
fn package(text: &str) -> Option<Package> {
    let value = |name: &str| text.lines().skip_while(|line| *line != name).nth(1);
    Some(Package {
        source: ExplanationSource::Pacman,
        name: Text::new(value("%NAME%")?),
        version: Text::new(value("%VERSION%")?),
        time: value("%INSTALLDATE%").and_then(|time| time.parse().ok()).and_then(Timestamp::from_seconds),
    })
}

type Keywords = BTreeMap<Vec<u8>, Vec<u8>>;

/// An entry of an mtree.
#[derive(Debug)]
struct Entry {
    path: Vec<u8>,
    keywords: Keywords,
}

/// Reads a line of an mtree. A line that begins with `/set` is of what holds for those after it.
fn parse(line: &[u8], defaults: &mut Keywords) -> Option<Entry> {
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let first = words.next()?;
    let pairs = words.filter_map(|word| {
        let equals = word.iter().position(|&byte| byte == b'=')?;
        Some((word[..equals].to_vec(), word[equals + 1..].to_vec()))
    });
    if first == b"/set" {
        defaults.extend(pairs);
        return None;
    }
    let path = decode(first.strip_prefix(b".")?)?;
    // What is at the top and begins with a dot is about the package.
    if !path.starts_with(b"/") || path.starts_with(b"/.") {
        return None;
    }
    let mut keywords = defaults.clone();
    keywords.extend(pairs);
    Some(Entry { path, keywords })
}

impl Entry {
    fn whole(&self) -> Option<Whole> {
        let text = |name: &str| std::str::from_utf8(self.keywords.get(name.as_bytes())?).ok();
        let kind = match text("type")? {
            "file" => FileType::File,
            "dir" => FileType::Folder,
            "link" => FileType::Link,
            _ => return None,
        };
        let content = match kind {
            FileType::File => Content::Sha256(hex::decode(text("sha256digest")?).ok()?.try_into().ok()?),
            FileType::Link => Content::Target(decode(self.keywords.get(b"link".as_slice())?)?),
            _ => Content::None,
        };
        Some(Whole {
            kind,
            mode: u32::from_str_radix(text("mode")?, 8).ok()? & 0o7777,
            uid: text("uid")?.parse().ok()?,
            gid: text("gid")?.parse().ok()?,
            content,
            capabilities: String::new(),
        })
    }
}

/// Reads `\ooo`, three octal digits, as the byte that it stands for: vis(3).
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        if after.first() == Some(&b'\\') {
            bytes.push(b'\\');
            rest = &after[1..];
            continue;
        }
        let (digits, after) = after.split_at_checked(3)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_mtree_is_read_with_its_defaults_and_without_what_is_about_the_package() {
        let text = "#mtree\n/set type=file uid=0 gid=0 mode=644\n./.PKGINFO time=1.0 size=3 sha256digest=00\n\
                    ./usr time=1.0 mode=755 type=dir\n./usr/a\\040b time=1.0 size=1 sha256digest=SHA\n\
                    ./usr/l time=1.0 mode=777 type=link link=../x\\040y\n/set mode=600\n./usr/c type=block\n"
            .replace("SHA", &"ab".repeat(32));
        let mut defaults = Keywords::new();
        let entries: Vec<Entry> = text.lines().filter_map(|line| parse(line.as_bytes(), &mut defaults)).collect();
        let paths: Vec<_> = entries.iter().map(|entry| String::from_utf8_lossy(&entry.path)).collect();
        assert_eq!(paths, ["/usr", "/usr/a b", "/usr/l", "/usr/c"]);
        let contents: Vec<_> =
            entries.iter().map(|entry| entry.whole().map(|whole| (whole.mode, whole.content))).collect();
        let target = Content::Target(b"../x y".to_vec());
        let file = Content::Sha256([0xab; 32]);
        let expected = [Some((0o755, Content::None)), Some((0o644, file)), Some((0o777, target)), None];
        assert_eq!(contents, expected);
    }

    #[test]
    fn a_description_names_the_package_and_when_it_was_installed() {
        let text = "%NAME%\nmu\n\n%VERSION%\n1:2-3\n\n%INSTALLDATE%\n1795716179\n\n";
        let found = package(text).unwrap();
        assert_eq!((found.name.as_str(), found.version.as_str()), ("mu", "1:2-3"));
        assert_eq!(found.time, Timestamp::from_seconds(1_795_716_179));
        assert_eq!(package("%NAME%\nmu\n"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut defaults = Keywords::new();
            for line in bytes.split(|&byte| byte == b'\n') {
                let _ = parse(line, &mut defaults).map(|entry| entry.whole());
            }
            let _ = package(&String::from_utf8_lossy(&bytes));
        }
    }
}
