//! A host that keeps what another one answers, as a capture.
//!
//! What a capture holds is what the probes ask, and nothing more: of watched files only metadata and digests, of the
//! sockets' owners only names, of LUKS headers only the cipher and the kinds of key slots.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{OsFamily, PathText},
    time::Timestamp,
};

use super::{
    AuditQuery, Digests, Dump, EntryKind, Family, Host, KernelClock, Luks, Machine, Metadata, Pace, Policy, Scanned,
    SocketOwners, Space, Tool, Visitor, Want,
    recorded::{
        Answer, Failure, Index, ScanLine, VERSION, audit_name, file, iptables_name, key, nf_elements_name,
        nf_tables_name, text, tool_name,
    },
    shadow,
};

/// A host that keeps what another one answers.
pub struct Recording<'h> {
    host: &'h dyn Host,
    folder: PathBuf,
    index: RefCell<Index>,
}

impl<'h> Recording<'h> {
    /// Starts a capture of `host` in `folder`, which must not be there yet.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made.
    pub fn start(host: &'h dyn Host, folder: &Path, now: Timestamp) -> io::Result<Self> {
        make_private(folder)?;
        for part in ["files", "scans", "answers"] {
            fs::create_dir(folder.join(part))?;
        }
        let index = Index {
            version: VERSION,
            captured: now,
            os_family: host.os_family(),
            machine: None,
            clock_is_synchronized: None,
            clock: None,
            socket_owners: None,
            lists: Default::default(),
            links: Default::default(),
            metadata: Default::default(),
            digests: Default::default(),
            space: Default::default(),
            luks: Default::default(),
            encryption_policies: Default::default(),
            scans: Default::default(),
            errors: Default::default(),
        };
        Ok(Self { host, folder: folder.to_owned(), index: RefCell::new(index) })
    }

    /// Ends the capture.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn finish(self) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(&self.index.into_inner())?;
        json.push(b'\n');
        fs::write(self.folder.join("index.json"), json)
    }

    fn keep_error<T>(&self, what: String, result: &io::Result<T>) {
        if let Err(error) = result {
            self.index.borrow_mut().errors.insert(what, Failure::of(error));
        }
    }

    fn keep_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = file(&self.folder, path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, bytes)
    }

    fn keep_answer(&self, name: &str, result: &io::Result<Vec<u8>>) -> io::Result<()> {
        match result {
            Ok(bytes) => fs::write(self.folder.join("answers").join(name), bytes),
            Err(error) => {
                self.index.borrow_mut().errors.insert(name.to_owned(), Failure::of(error));
                Ok(())
            }
        }
    }
}

/// Makes a folder that its owner alone may enter: what root could read is in it.
fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn answer<T: Clone>(result: &io::Result<T>) -> Answer<T> {
    match result {
        Ok(value) => Answer::Ok(value.clone()),
        Err(error) => Answer::Err(Failure::of(error)),
    }
}

impl Host for Recording<'_> {
    fn os_family(&self) -> OsFamily {
        self.host.os_family()
    }

    fn read(&self, path: &Path, limit_bytes: usize) -> io::Result<Vec<u8>> {
        let result = self.host.read(path, limit_bytes);
        self.keep_error(key("read", path), &result);
        let bytes = result?;
        self.keep_file(path, &bytes)?;
        Ok(bytes)
    }

    fn read_start(&self, path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
        let result = self.host.read_start(path, bytes);
        self.keep_error(key("read", path), &result);
        let start = result?;
        self.keep_file(path, &start)?;
        Ok(start)
    }

    fn stream(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        let result = self.host.stream(path);
        self.keep_error(key("read", path), &result);
        let mut reader = result?;
        self.keep_file(path, &[])?;
        let mut copy = fs::File::create(file(&self.folder, path))?;
        io::copy(&mut reader, &mut copy)?;
        Ok(Box::new(fs::File::open(file(&self.folder, path))?))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let result = self.host.list(folder);
        self.keep_error(key("list", folder), &result);
        let names = result?;
        let texts = names.iter().map(|name| PathText::from_bytes(name.as_encoded_bytes())).collect();
        self.index.borrow_mut().lists.insert(text(folder), texts);
        Ok(names)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let result = self.host.metadata(path);
        self.keep_error(key("metadata", path), &result);
        let metadata = result?;
        self.index.borrow_mut().metadata.insert(text(path), metadata);
        Ok(metadata)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let result = self.host.read_link(path);
        self.keep_error(key("link", path), &result);
        let target = result?;
        self.index.borrow_mut().links.insert(text(path), text(&target));
        Ok(target)
    }

    /// Keeps what the host says, and so no hash; [`Recorded`](super::Recorded) reads it as the file.
    fn shadow(&self) -> io::Result<Vec<u8>> {
        let path = Path::new(shadow::SHADOW);
        let result = self.host.shadow();
        self.keep_error(key("read", path), &result);
        let bytes = result?;
        self.keep_file(path, &bytes)?;
        Ok(bytes)
    }

    /// As [`Self::shadow`].
    fn gshadow(&self) -> io::Result<Vec<u8>> {
        let path = Path::new(shadow::GSHADOW);
        let result = self.host.gshadow();
        self.keep_error(key("read", path), &result);
        let bytes = result?;
        self.keep_file(path, &bytes)?;
        Ok(bytes)
    }

    fn machine(&self) -> io::Result<Machine> {
        let result = self.host.machine();
        self.index.borrow_mut().machine = Some(answer(&result));
        result
    }

    fn clock_is_synchronized(&self) -> io::Result<bool> {
        let result = self.host.clock_is_synchronized();
        self.index.borrow_mut().clock_is_synchronized = Some(answer(&result));
        result
    }

    fn clock(&self) -> io::Result<KernelClock> {
        let result = self.host.clock();
        self.index.borrow_mut().clock = Some(answer(&result));
        result
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let result = self.host.space(path);
        self.keep_error(key("space", path), &result);
        let space = result?;
        self.index.borrow_mut().space.insert(text(path), space);
        Ok(space)
    }

    fn audit(&self, query: AuditQuery) -> io::Result<Vec<u8>> {
        let result = self.host.audit(query);
        self.keep_answer(&audit_name(query), &result)?;
        result
    }

    fn socket_owners(&self, inodes: &BTreeSet<u64>) -> io::Result<SocketOwners> {
        let result = self.host.socket_owners(inodes);
        self.index.borrow_mut().socket_owners = Some(answer(&result));
        result
    }

    fn luks(&self, device: &Path) -> io::Result<Luks> {
        let result = self.host.luks(device);
        self.keep_error(key("luks", device), &result);
        let luks = result?;
        self.index.borrow_mut().luks.insert(text(device), luks.clone());
        Ok(luks)
    }

    fn encryption_policy(&self, folder: &Path) -> io::Result<Policy> {
        let result = self.host.encryption_policy(folder);
        self.keep_error(key("policy", folder), &result);
        let policy = result?;
        self.index.borrow_mut().encryption_policies.insert(text(folder), policy);
        Ok(policy)
    }

    fn nf_tables(&self, dump: Dump) -> io::Result<Vec<u8>> {
        let result = self.host.nf_tables(dump);
        self.keep_answer(&nf_tables_name(dump), &result)?;
        result
    }

    fn nf_elements(&self, family: u8, table: &str, set: &str) -> io::Result<Vec<u8>> {
        let result = self.host.nf_elements(family, table, set);
        self.keep_answer(&nf_elements_name(family, table, set), &result)?;
        result
    }

    fn iptables(&self, family: Family, table: &str) -> io::Result<Vec<u8>> {
        let result = self.host.iptables(family, table);
        self.keep_answer(&iptables_name(family, table), &result)?;
        result
    }

    fn run(&self, tool: Tool, args: &[&str]) -> io::Result<Vec<u8>> {
        let result = self.host.run(tool, args);
        self.keep_answer(&tool_name(tool, args), &result)?;
        result
    }

    fn run_streamed(
        &self,
        tool: Tool,
        args: &[&str],
        visit: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let name = tool_name(tool, args);
        let mut answer = io::BufWriter::new(fs::File::create(self.folder.join("answers").join(&name))?);
        let result = self.host.run_streamed(tool, args, &mut |bytes| {
            answer.write_all(bytes)?;
            visit(bytes)
        });
        answer.flush()?;
        self.keep_error(name, &result);
        result
    }

    fn is_recording(&self) -> bool {
        true
    }

    /// What is found of an entry is kept before the next one.
    fn walk(&self, root: &Path, pace: &Pace, visitor: &mut dyn Visitor) -> io::Result<()> {
        let number = u32::try_from(self.index.borrow().scans.len()).expect("few paths are watched");
        let lines = fs::File::create(self.folder.join("scans").join(format!("{number}.jsonl")))?;
        let mut keeping = Keeping { lines: io::BufWriter::new(lines), visitor };
        let result = self.host.walk(root, &Pace { at_once: true, ..pace.clone() }, &mut keeping);
        keeping.lines.flush()?;
        self.keep_error(key("scan", root), &result);
        result?;
        self.index.borrow_mut().scans.insert(text(root), number);
        Ok(())
    }

    fn digests(&self, root: &Path, path: &Path) -> io::Result<Digests> {
        let result = self.host.digests(root, path);
        self.keep_error(key("digests", path), &result);
        let digests = result?;
        self.index.borrow_mut().digests.insert(text(path), digests);
        Ok(digests)
    }
}

/// Keeps what a visitor is shown.
struct Keeping<'v> {
    lines: io::BufWriter<fs::File>,
    visitor: &'v mut dyn Visitor,
}

impl Keeping<'_> {
    fn keep(&mut self, path: &[u8], result: Answer<Scanned>) -> io::Result<()> {
        let line = ScanLine { path: PathText::from_bytes(path), result };
        serde_json::to_writer(&mut self.lines, &line)?;
        self.lines.write_all(b"\n")
    }
}

impl Visitor for Keeping<'_> {
    fn wants(&mut self, path: &[u8], metadata: &Metadata) -> io::Result<Want> {
        let want = self.visitor.wants(path, metadata)?;
        if !want.is_read() {
            self.keep(path, Answer::Ok(Scanned { metadata: *metadata, sha256: None, attributes: Vec::new() }))?;
        }
        if want == Want::NothingBelow && metadata.kind == EntryKind::Folder {
            // For a visitor of the capture who wants more than this one did.
            self.keep(path, Answer::Err(Failure::of(&io::Error::other("what is below was left out of the capture"))))?;
        }
        Ok(want)
    }

    fn unreadable(&mut self, path: &[u8], error: io::Error) -> io::Result<()> {
        self.keep(path, Answer::Err(Failure::of(&error)))?;
        self.visitor.unreadable(path, error)
    }

    fn found(&mut self, path: &[u8], read: io::Result<Scanned>) -> io::Result<()> {
        self.keep(path, answer(&read))?;
        self.visitor.found(path, read)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::host::Live;

    #[test]
    fn a_capture_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let capture = folder.path().join("capture");
        Recording::start(&Live::new(), &capture, Timestamp::EPOCH).unwrap().finish().unwrap();
        assert_eq!(fs::metadata(&capture).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(Recording::start(&Live::new(), &capture, Timestamp::EPOCH).is_err());
    }
}
