//! What USBGuard is told: usbguard-daemon.conf(5) and usbguard-rules.conf(5).

use std::path::Path;

use muster_proto::fact::{Cause, Unknown};

use super::FILES;
use crate::host::{self, FILE_BYTES, Host};

pub(super) const FOLDER: &str = "/etc/usbguard";

/// What USBGuard is told.
pub(super) struct Guard {
    /// What becomes of a device that no rule names.
    pub implicit: String,
    /// The first rule that may let storage in.
    pub rule: Option<String>,
}

/// Returns what USBGuard is told; `None` where it is not installed.
pub(super) fn guard(host: &dyn Host) -> Result<Option<Guard>, Unknown> {
    let config = Path::new(FOLDER).join("usbguard-daemon.conf");
    let read = |path: &Path| match host.read(path, FILE_BYTES) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Unknown::new(Cause::Garbled, format!("{} is no text", path.display()))),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(None),
        Err(error) => Err(host::unknown(format!("read {}", path.display()), &error)),
    };
    let Some(config) = read(&config)? else { return Ok(None) };
    let setting = |name: &str| {
        let value = |line: &str| line.trim().strip_prefix(name)?.strip_prefix('=').map(|value| value.trim().to_owned());
        config.lines().filter_map(value).next_back()
    };
    if let Some(name) =
        ["RuleFile", "RuleFolder"].into_iter().find(|name| setting(name).is_some_and(|value| value.is_empty()))
    {
        return Err(Unknown::new(Cause::Garbled, format!("{FOLDER}/usbguard-daemon.conf: {name} names nothing")));
    }
    let mut files = vec![setting("RuleFile").unwrap_or_else(|| format!("{FOLDER}/rules.conf"))];
    let folder = setting("RuleFolder").unwrap_or_else(|| format!("{FOLDER}/rules.d"));
    match host.list(Path::new(&folder)) {
        Ok(names) => {
            let names = names.iter().map(|name| name.to_string_lossy()).filter(|name| name.ends_with(".conf"));
            files.extend(names.take(FILES).map(|name| format!("{folder}/{name}")));
        }
        Err(error) if host::cause(&error) == Cause::Absent => {}
        Err(error) => return Err(host::unknown(format!("list {folder}"), &error)),
    }
    let mut rule = None;
    for file in files {
        let text = read(Path::new(&file))?.unwrap_or_default();
        let found = text.lines().enumerate().find(|(_, line)| may_let_storage_in(line));
        rule = rule.or(found.map(|(number, line)| format!("{file}:{}: {}", number + 1, line.trim())));
    }
    let implicit = setting("ImplicitPolicyTarget").unwrap_or_else(|| "block".to_owned());
    Ok(Some(Guard { implicit, rule }))
}

/// Returns whether a rule of usbguard-rules.conf(5) may let storage in: it allows, and does not name interfaces of other kinds
/// alone. 08 is the class of mass storage.
fn may_let_storage_in(line: &str) -> bool {
    let Some(rest) =
        line.trim().strip_prefix("allow").filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    else {
        return false;
    };
    let Some((_, interfaces)) = rest.split_once("with-interface") else { return true };
    let interfaces = interfaces.trim_start();
    let list = match interfaces.split_once('{') {
        Some((operator, list))
            if operator.split_whitespace().all(|word| matches!(word, "one-of" | "equals" | "equals-ordered")) =>
        {
            list.split('}').next().unwrap_or_default()
        }
        Some(_) => return true,
        None => interfaces.split_whitespace().next().unwrap_or_default(),
    };
    // A device that is one of several kinds may be storage, too.
    let is_other = |word: &str| word.len() == 8 && !word.starts_with("08:") && !word.starts_with('*');
    list.split_whitespace().next().is_none()
        || !list.split_whitespace().all(is_other)
        || interfaces.starts_with("one-of")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_of_usbguard_lets_storage_in_unless_it_names_other_kinds_alone() {
        for (line, expected) in [
            ("allow id 1d6b:0002 serial \"x\" with-interface 09:00:00", false),
            ("allow id 046d:c31c with-interface { 03:01:01 03:00:00 }", false),
            ("allow with-interface equals { 03:00:01 }", false),
            ("allow with-interface one-of { 03:00:01 03:01:01 }", true),
            ("allow with-interface equals { 08:*:* }", true),
            ("allow with-interface 08:06:50", true),
            ("allow with-interface *:*:*", true),
            ("allow with-interface none-of { 08:*:* }", true),
            ("allow id 1234:5678", true),
            ("allow", true),
            ("block with-interface 08:*:*", false),
            ("reject", false),
            ("# allow", false),
        ] {
            assert_eq!(may_let_storage_in(line), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(text in "[a-z0-9 :*{}=,#/_-]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                may_let_storage_in(&text);
            }
        }
    }
}
