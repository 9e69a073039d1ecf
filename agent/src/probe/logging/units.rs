//! Settings of systemd's own services: a main file and drop-ins, as systemd.syntax(7) and journald.conf(5) say.

use std::{collections::BTreeMap, path::PathBuf};

use muster_proto::fact::{Cause, Unknown};

use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Folders of settings, the strongest first.
const FOLDERS: [&str; 4] = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];

/// Returns the value of `key` in `[section]` of the settings `name`, such as `journald.conf`; `None` where it is not set.
pub(super) fn setting(host: &dyn Host, name: &str, section: &str, key: &str) -> Result<Option<String>, Unknown> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in FOLDERS {
        let main = PathBuf::from(folder).join(name);
        match host.metadata(&main) {
            Ok(_) => {
                files.push(main);
                break;
            }
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("look at {}", main.display()), &error)),
        }
    }
    // Of drop-ins of one name the strongest folder's holds; all of them in order of name.
    let mut drop_ins: BTreeMap<_, PathBuf> = BTreeMap::new();
    for folder in FOLDERS {
        let folder = PathBuf::from(folder).join(format!("{name}.d"));
        match host.list(&folder) {
            Ok(names) => {
                for file in names.into_iter().filter(|file| file.as_encoded_bytes().ends_with(b".conf")) {
                    drop_ins.entry(file.clone()).or_insert_with(|| folder.join(file));
                }
            }
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("list {}", folder.display()), &error)),
        }
    }
    files.extend(drop_ins.into_values());
    let mut value = None;
    for file in files {
        match host.read(&file, SMALL_FILE_BYTES) {
            Ok(bytes) => {
                // A comment may be of an older encoding.
                let text = String::from_utf8_lossy(&bytes);
                if let Some(found) = last(&text, section, key) {
                    // An empty value takes back what was set before.
                    value = (!found.is_empty()).then_some(found);
                }
            }
            // A link to /dev/null hides a drop-in. One that was listed and is gone leaves open what holds.
            Err(error) if host::cause(&error) == Cause::Garbled => {}
            Err(error) => return Err(host::unknown(format!("read {}", file.display()), &error)),
        }
    }
    Ok(value)
}

/// Returns the last assignment of `key` in `[section]`.
fn last(text: &str, section: &str, key: &str) -> Option<String> {
    let mut is_inside = false;
    let mut value = None;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_inside = name == section;
        } else if is_inside
            && let Some((name, found)) = line.split_once('=')
            && name.trim_end() == key
        {
            value = Some(found.trim().to_owned());
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_assignment_in_the_section_holds() {
        let text = "[Journal]\n#Storage=none\nStorage=auto\n; Storage=x\n[Other]\nStorage=none\n[Journal]\nStorage = volatile \nStorageX=1\n";
        assert_eq!(last(text, "Journal", "Storage").as_deref(), Some("volatile"));
        assert_eq!(last("Storage=none\n", "Journal", "Storage"), None);
        assert_eq!(last("[Journal]\nStorage=\n", "Journal", "Storage").as_deref(), Some(""));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = last(&text, "A", "B");
        }
    }
}
