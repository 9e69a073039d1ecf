//! Which of a few packages are installed, and which of them owns a file: dpkg's database, read in one pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use muster_proto::fact::{Cause, Reading, Text, Unknown};

use super::deb822::Stanzas;
use crate::host::{self, FILE_BYTES, Host};

/// Where dpkg keeps what is installed.
const STATUS: &str = "/var/lib/dpkg/status";

/// Version and architecture of the wanted packages that are installed, by name.
pub(super) type Packages = BTreeMap<String, (String, String)>;

/// Returns those of `wanted` that are installed.
pub(super) fn look(host: &dyn Host, wanted: &BTreeSet<&str>) -> Result<Packages, Unknown> {
    let mut file = match host.stream(Path::new(STATUS)) {
        Ok(file) => file,
        Err(error) if host::cause(&error) == Cause::Absent => {
            return Err(Unknown::new(Cause::Unsupported, "this build reads dpkg's database alone"));
        }
        Err(error) => return Err(host::unknown(format!("read {STATUS}"), &error)),
    };
    parse(&mut file, wanted).map_err(|error| host::unknown(format!("read {STATUS}"), &error))
}

fn parse(file: &mut dyn io::Read, wanted: &BTreeSet<&str>) -> io::Result<Packages> {
    let mut found = Packages::new();
    let mut is_cut = false;
    let mut stanzas = Stanzas::new(&["Package", "Status", "Version", "Architecture"], |fields| {
        let field = |name| fields.get(name).map(String::as_str).unwrap_or_default();
        let state = field("Status").split_whitespace().nth(2);
        if wanted.contains(field("Package")) && state == Some("installed") {
            is_cut |= field("Version").is_empty() || field("Architecture").is_empty();
            found.insert(field("Package").to_owned(), (field("Version").to_owned(), field("Architecture").to_owned()));
        }
    });
    let mut last = Last { inner: &mut stanzas, byte: b'\n' };
    io::copy(file, &mut last)?;
    let has_end = last.byte == b'\n';
    stanzas.finish();
    // dpkg ends every line, and every package that is installed has both.
    if is_cut || !has_end {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is cut"));
    }
    Ok(found)
}

/// Passes on what is written, and keeps its last byte.
struct Last<W> {
    inner: W,
    byte: u8,
}

impl<W: io::Write> io::Write for Last<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        if let Some(&byte) = bytes[..count].last() {
            self.byte = byte;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Returns which of `names` is installed and owns `program`, and its version.
pub(super) fn owner(
    host: &dyn Host,
    packages: &Result<Packages, Unknown>,
    names: &[String],
    program: &str,
) -> (Reading<Text>, Reading<Text>) {
    let both = |unknown: Unknown| (Reading::Unknown { unknown: unknown.clone() }, Reading::Unknown { unknown });
    let packages = match packages {
        Ok(packages) => packages,
        Err(unknown) => return both(unknown.clone()),
    };
    for name in names {
        let Some((version, architecture)) = packages.get(name) else { continue };
        match owns(host, name, architecture, program) {
            Ok(true) => return (Reading::Known(Text::new(name)), Reading::Known(Text::new(version))),
            Ok(false) => {}
            Err(unknown) => return both(unknown),
        }
    }
    let who = if names.is_empty() { "no package is known to own it" } else { "none of its packages owns it" };
    both(Unknown::new(Cause::Absent, format!("{program}: {who}")))
}

/// The list is that of `dpkg -L`: dpkg(1), `/var/lib/dpkg/info`.
fn owns(host: &dyn Host, name: &str, architecture: &str, program: &str) -> Result<bool, Unknown> {
    let of = |name: String| format!("/var/lib/dpkg/info/{name}.list");
    let (plain, qualified) = (of(name.to_owned()), of(format!("{name}:{architecture}")));
    let list = match host.read(Path::new(&plain), FILE_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => host.read(Path::new(&qualified), FILE_BYTES),
        result => result,
    };
    let list = list.map_err(|error| host::unknown(format!("read {plain}"), &error))?;
    // Packages of before the merge of /usr say /sbin for what is now in /usr/sbin.
    let short = program.strip_prefix("/usr").unwrap_or(program).as_bytes();
    Ok(list.split(|&byte| byte == b'\n').any(|line| line == program.as_bytes() || line == short))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_package_that_is_removed_or_half_there_is_not_installed() {
        let stanza = |name: &str, status: &str| {
            format!("Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: 1-1\n\n")
        };
        let text = [
            stanza("a", "install ok installed"),
            stanza("b", "deinstall ok config-files"),
            stanza("c", "install ok half-installed"),
            stanza("d", "hold ok installed"),
            stanza("e", "install ok installed"),
        ]
        .concat();
        let found = parse(&mut text.as_bytes(), &BTreeSet::from(["a", "b", "c", "d"])).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "d"]);
        for count in [30, 40, 45, 60] {
            let cut = &text.as_bytes()[..count];
            assert!(parse(&mut &*cut, &BTreeSet::from(["a"])).is_err(), "{:?}", String::from_utf8_lossy(cut));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&mut bytes.as_slice(), &BTreeSet::from(["a"]));
        }
    }
}
