//! Keys by which accounts sign in to the host's SSH server.

use std::path::{Path, PathBuf};

use muster_proto::fact::{Cause, Reading, Unknown};

use super::{passwd::Entry, set_up};
use crate::{
    host::{self, Host},
    probe::remote_access::{
        self,
        sshd_config::{Config, key_file::KeyFile},
    },
};

/// Files of keys of one account that are looked for, at most.
const FILES: usize = 64;
/// Those that sshd_config(5) reads where nothing else is set.
const USUAL: [&str; 2] = [".ssh/authorized_keys", ".ssh/authorized_keys2"];

/// Where keys of accounts are.
#[derive(Default)]
pub struct Keys {
    files: Vec<KeyFile>,
    /// Why they may be elsewhere.
    elsewhere: Option<Unknown>,
}

impl Keys {
    /// Looks where the server and its settings say that keys are.
    pub fn look(host: &dyn Host, config: &Result<Config, Unknown>) -> Self {
        let config = match config {
            Ok(config) => config,
            Err(unknown) => return Self { files: Vec::new(), elsewhere: Some(unknown.clone()) },
        };
        let mut files = config.key_files();
        let mut elsewhere = elsewhere(host, config);
        if files.len() > FILES {
            files.truncate(FILES);
            elsewhere
                .get_or_insert(Unknown::new(Cause::Limit, "the SSH server has more files of keys than are looked for"));
        }
        Self { files, elsewhere }
    }

    /// Returns whether a file names keys of an account: one that the settings name, or that is usual.
    pub fn of(&self, host: &dyn Host, entry: &Entry) -> Reading<bool> {
        if !entry.is_interactive() {
            return Reading::Known(false);
        }
        let mut paths: Vec<PathBuf> = USUAL.iter().map(|name| Path::new(&entry.home).join(name)).collect();
        for path in self.files.iter().map(|file| file.of(&entry.name, entry.uid, &entry.home)) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        for path in paths.iter().filter(|path| path.has_root()) {
            match host.metadata(path) {
                // A link is taken for keys: sshd follows it.
                Ok(metadata) if metadata.size_bytes > 0 => return Reading::Known(true),
                Ok(_) => {}
                Err(error) if host::cause(&error) == Cause::Absent => {}
                Err(error) => {
                    return Reading::Unknown { unknown: host::unknown(format!("look at {}", path.display()), &error) };
                }
            }
        }
        self.elsewhere.as_ref().map_or(Reading::Known(false), |unknown| Reading::Unknown { unknown: unknown.clone() })
    }
}

/// Returns why keys may be where no file that is looked for names them.
fn elsewhere(host: &dyn Host, config: &Config) -> Option<Unknown> {
    let has_records = || match set_up::has_user_records(host) {
        Ok(false) => set_up::has_user_services(host).unwrap_or(true),
        Ok(true) | Err(_) => true,
    };
    let by_records = || config.keys_elsewhere(true).filter(|_| has_records());
    match config.keys_elsewhere(false).or_else(by_records) {
        Some(at) => Some(Unknown::new(Cause::Undecidable, format!("{at}: the SSH server takes keys from elsewhere"))),
        None => remote_access::keys_elsewhere(host),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::passwd, *};
    use crate::host::{EntryKind, Metadata, Recorded, recorded::Failure};

    #[test]
    fn keys_are_in_any_file_that_the_settings_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.json"), r#"{"version": 1, "captured": "2026-11-26T00:00:00Z"}"#)
            .unwrap();
        let mut host = Recorded::at(folder.path()).unwrap();
        let index = host.index_mut();
        let text = |path: &str| muster_proto::fact::PathText::from_bytes(path.as_bytes());
        let metadata = |size_bytes| Metadata {
            kind: EntryKind::File,
            size_bytes,
            modified: None,
            mode: 0o644,
            uid: 0,
            gid: 0,
            device: (254, 0),
            inode: 1,
            links: 1,
            changed_nanos: None,
        };
        index.metadata.insert(text("/etc/ssh/keys/bob"), metadata(80));
        index.metadata.insert(text("/etc/ssh/keys/dan"), metadata(0));
        for path in ["/etc/ssh/keys/eve", "/home/.ssh/authorized_keys", "/home/.ssh/authorized_keys2"] {
            index.errors.insert(format!("metadata {path}"), Failure::of(&std::io::ErrorKind::NotFound.into()));
        }
        let of = |name: &str, shell: &str, files: &[&str], elsewhere: Option<Unknown>| {
            let line = format!("{name}:x:1000:1000::/home:{shell}\n");
            let files = files.iter().map(|file| KeyFile::parse(file).unwrap()).collect();
            Keys { files, elsewhere }.of(&host, &passwd::parse_passwd(line.as_bytes())[0])
        };
        let files = [".ssh/authorized_keys", "/etc/ssh/keys/%u"];
        let why = Unknown::new(Cause::Undecidable, "x");
        for (name, shell, expected) in [
            ("bob", "/bin/sh", Reading::Known(true)),
            ("dan", "/bin/sh", Reading::Known(false)),
            ("eve", "/bin/sh", Reading::Known(false)),
            ("bob", "/usr/sbin/nologin", Reading::Known(false)),
        ] {
            assert_eq!(of(name, shell, &files, None), expected, "{name}");
        }
        assert_eq!(of("bob", "/bin/sh", &files, Some(why.clone())), Reading::Known(true));
        assert_eq!(of("eve", "/bin/sh", &files, Some(why.clone())), Reading::Unknown { unknown: why });
        // What the capture says nothing of may be there.
        assert!(of("gus", "/bin/sh", &files, None).known().is_none());
    }
}
