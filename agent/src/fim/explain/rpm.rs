//! What rpm's database says: content, mode, owner and capabilities of each file, and the target of each link.
//!
//! Its database is of four formats and versions, of which rpm alone reads the right one: rpm(8) prints it, a line for each file. It
//! works offline, and cannot be asked of a few paths without failing for one that no package owns.

use std::{io, path::Path, rc::Rc};

use muster_proto::{
    fact::{ExplanationSource, FileType, Text},
    time::Timestamp,
};

use super::evidence::{Content, Evidence, Holds, Lines, Names, Package, Record, Whole};
use crate::host::{Host, Tool};

/// Files of the database, of its formats and places.
pub(super) const DATABASES: &[&str] = &[
    "/usr/lib/sysimage/rpm/Packages.db",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite-wal",
    "/var/lib/rpm/Packages",
    "/var/lib/rpm/Packages.db",
    "/var/lib/rpm/rpmdb.sqlite",
    "/var/lib/rpm/rpmdb.sqlite-wal",
];
/// A line for each file of each package; the path is last, for it may have anything in it but a line's end.
pub(super) const FORMAT: &str = "[%{=NAME}\\t%{=EPOCHNUM}\\t%{=VERSION}\\t%{=RELEASE}\\t%{=INSTALLTIME}\\t%{=FILEDIGESTALGO}\\t%{FILEMODES}\\t\
                      %{FILEUSERNAME}\\t%{FILEGROUPNAME}\\t%{FILEFLAGS}\\t%{FILESTATES}\\t%{FILEDIGESTS}\\t%{FILECAPS}\\t\
                      %{FILELINKTOS}\\t%{FILENAMES}\\n]";
const FIELDS: usize = 15;
/// `RPMFILE_GHOST`: a file that is the package's and not in it.
const GHOST: u32 = 1 << 6;
/// `RPMFILE_STATE_NORMAL`: neither replaced by another package's file nor left out.
const NORMAL: &[u8] = b"0";
/// Numbers of digests, as OpenPGP has them.
const MD5: &[u8] = b"1";
const SHA256: &[u8] = b"8";
/// What rpm prints for what is not there.
const NONE: &[u8] = b"(none)";

/// Adds what rpm holds at the paths in question. A host without rpm has no evidence of it.
pub(super) fn collect(host: &dyn Host, evidence: &mut Evidence) -> io::Result<()> {
    let names = Names::read(host);
    let mut last: Option<Rc<Package>> = None;
    each(host, &mut |package, fields| {
        if !last.as_ref().is_some_and(|last| Rc::ptr_eq(last, package)) {
            evidence.add_package(package);
            last = Some(Rc::clone(package));
        }
        if evidence.asks(fields.path) {
            let holds = fields.holds(&names);
            evidence.needs_md5 |= matches!(&holds, Holds::Whole(whole) if matches!(whole.content, Content::Md5(_)));
            evidence.add(fields.path, &Record { package: Rc::clone(package), holds });
        }
    })
}

/// Calls `visit` with each package and each path that it lists. Where rpm is installed and never used, it is not asked.
pub(super) fn each_owned(host: &dyn Host, visit: &mut dyn FnMut(&Package, &[u8])) -> io::Result<()> {
    if !DATABASES.iter().any(|path| host.metadata(Path::new(path)).is_ok()) {
        return Ok(());
    }
    each(host, &mut |package, fields| visit(package, fields.path))
}

/// Calls `visit` for each file of each package.
fn each(host: &dyn Host, visit: &mut dyn FnMut(&Rc<Package>, &Fields<'_>)) -> io::Result<()> {
    let mut last: Option<(Vec<u8>, Rc<Package>)> = None;
    let mut garbled = 0_u64;
    let mut count = 0_u64;
    let mut on_line = |line: &[u8]| {
        count += 1;
        let Some(fields) = Fields::parse(line) else {
            garbled += 1;
            return;
        };
        let package = match &last {
            Some((head, package)) if head == fields.head => Rc::clone(package),
            _ => Rc::new(fields.package()),
        };
        visit(&package, &fields);
        last = Some((fields.head.to_vec(), package));
    };
    let mut lines = Lines::new(&mut on_line);
    let args = ["-qa", "--nodigest", "--nosignature", "--qf", FORMAT];
    let result = host.run_streamed(Tool::Rpm, &args, &mut |bytes| {
        lines.take(bytes);
        Ok(())
    });
    lines.end();
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A path may have a line's end in it; that no line is as asked is another matter.
        Ok(()) if count > 0 && garbled == count => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "rpm -qa: output is not as its format asks"))
        }
        result => result,
    }
}

/// A line of the answer.
struct Fields<'l> {
    /// The fields that are the same for all files of a package.
    head: &'l [u8],
    package: [&'l [u8]; 5],
    algorithm: &'l [u8],
    mode: u32,
    user: &'l [u8],
    group: &'l [u8],
    flags: u32,
    state: &'l [u8],
    digest: &'l [u8],
    capabilities: &'l [u8],
    target: &'l [u8],
    path: &'l [u8],
}

impl<'l> Fields<'l> {
    fn parse(line: &'l [u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.splitn(FIELDS, |&byte| byte == b'\t').collect();
        let [
            name,
            epoch,
            version,
            release,
            time,
            algorithm,
            mode,
            user,
            group,
            flags,
            state,
            digest,
            capabilities,
            target,
            path,
        ] = fields[..]
        else {
            return None;
        };
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
        let package = [name, epoch, version, release, time];
        let head = &line[..package.iter().map(|field| field.len() + 1).sum()];
        let (mode, flags) = (number(mode)?, number(flags)?);
        path.starts_with(b"/").then_some(Self {
            head,
            package,
            algorithm,
            mode,
            user,
            group,
            flags,
            state,
            digest,
            capabilities,
            target,
            path,
        })
    }

    fn package(&self) -> Package {
        let [name, epoch, version, release, time] = self.package.map(String::from_utf8_lossy);
        let epoch = if epoch == "0" { String::new() } else { format!("{epoch}:") };
        Package {
            source: ExplanationSource::Rpm,
            name: Text::new(&name),
            version: Text::new(&format!("{epoch}{version}-{release}")),
            time: time.parse().ok().and_then(Timestamp::from_seconds),
        }
    }

    fn holds(&self, names: &Names) -> Holds {
        self.whole(names).map_or(Holds::Unknown, Holds::Whole)
    }

    fn whole(&self, names: &Names) -> Option<Whole> {
        if self.flags & GHOST != 0 || self.state != NORMAL {
            return None;
        }
        let kind = match self.mode & 0o170_000 {
            0o100_000 => FileType::File,
            0o040_000 => FileType::Folder,
            0o120_000 => FileType::Link,
            _ => return None,
        };
        let content = match (kind, self.algorithm) {
            (FileType::Link, _) => Content::Target(self.target.to_vec()),
            (FileType::File, SHA256) => Content::Sha256(digest(self.digest)?),
            // Packages of before 2009 name no algorithm.
            (FileType::File, MD5 | NONE) => Content::Md5(digest(self.digest)?),
            (FileType::File, _) => return None,
            (_, _) => Content::None,
        };
        let capabilities = if self.capabilities == NONE { &[][..] } else { self.capabilities };
        Some(Whole {
            kind,
            mode: self.mode & 0o7777,
            uid: names.user(self.user)?,
            gid: names.group(self.group)?,
            content,
            capabilities: String::from_utf8_lossy(capabilities).into_owned(),
        })
    }
}

fn digest<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA: &str = "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7";

    fn line(algorithm: &str, mode: u32, flags: u32, state: u32, digest: &str, end: &str) -> String {
        format!("mu\t2\t1.0\t3\t1795716179\t{algorithm}\t{mode}\troot\troot\t{flags}\t{state}\t{digest}\t{end}")
    }

    #[test]
    fn a_file_is_read_with_everything_that_rpm_records_of_it() {
        let text = line("8", 0o104_755, 0, 0, SHA, "cap_net_raw=ep\t\t/usr/bin/a\tb");
        let fields = Fields::parse(text.as_bytes()).unwrap();
        assert_eq!(fields.path, b"/usr/bin/a\tb");
        let package = fields.package();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("mu", "2:1.0-3"));
        assert_eq!(package.time, Timestamp::from_seconds(1_795_716_179));
        let whole = Whole {
            kind: FileType::File,
            mode: 0o4755,
            uid: 0,
            gid: 0,
            content: Content::Sha256(digest(SHA.as_bytes()).unwrap()),
            capabilities: "cap_net_raw=ep".to_owned(),
        };
        assert_eq!(fields.holds(&Names::default()), Holds::Whole(whole));
    }

    #[test]
    fn what_was_not_installed_as_recorded_says_nothing_but_its_path() {
        let md5 = &SHA[..32];
        for (text, is_known) in [
            (line("1", 0o100_644, 0, 0, md5, "(none)\t\t/a"), true),
            (line("(none)", 0o100_644, 0, 0, md5, "\t\t/a"), true),
            (line("8", 0o120_777, 0, 0, "", "\t../a b\t/a"), true),
            (line("8", 0o040_755, 0, 0, "", "\t\t/a"), true),
            (line("8", 0o100_644, 64, 0, SHA, "\t\t/ghost"), false),
            (line("8", 0o100_644, 0, 1, SHA, "\t\t/replaced"), false),
            (line("10", 0o100_644, 0, 0, &SHA.repeat(2), "\t\t/sha512"), false),
            (line("8", 0o100_644, 0, 0, "", "\t\t/no-digest"), false),
            (line("8", 0o020_644, 0, 0, "", "\t\t/dev/x"), false),
            (line("8", 0o100_644, 0, 0, SHA, "\t\t/a").replace("root\t", "nobody-here\t"), false),
        ] {
            let holds = Fields::parse(text.as_bytes()).unwrap().holds(&Names::default());
            assert_eq!(holds != Holds::Unknown, is_known, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(text in "([a-z0-9.\t()-]|\\PC)*") {
            if let Some(fields) = Fields::parse(text.as_bytes()) {
                let _ = (fields.package(), fields.holds(&Names::default()));
            }
        }
    }
}
