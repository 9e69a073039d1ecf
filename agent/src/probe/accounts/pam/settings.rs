//! Settings of modules: those of a line, and those of the files that they have beside it.

use std::path::Path;

use muster_proto::fact::{Cause, Unknown};

use super::stack::Line;
use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Returns the settings of a module's file, each with its last value.
pub(super) fn settings(host: &dyn Host, path: &str) -> Result<Vec<(String, String)>, Unknown> {
    let bytes = match host.read(Path::new(path), SMALL_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if host::cause(&error) == Cause::Absent => return Ok(Vec::new()),
        Err(error) => return Err(host::unknown(format!("read {path}"), &error)),
    };
    let settings = parse_settings(&String::from_utf8_lossy(&bytes));
    let is_text =
        |(name, value): &(String, String)| ![name, value].iter().any(|text| text.contains(char::REPLACEMENT_CHARACTER));
    if !settings.iter().all(is_text) {
        return Err(Unknown::new(Cause::Garbled, format!("{path} is no text")));
    }
    Ok(settings)
}

/// Reads `name = value`. As in the modules, a name ends at a blank or a sign, and the sign may be missing.
pub(super) fn parse_settings(text: &str) -> Vec<(String, String)> {
    let setting = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let is_end = |c: char| c.is_whitespace() || c == '=';
        let (name, value) = line.split_at(line.find(is_end).unwrap_or(line.len()));
        let value = value.trim_start();
        let value = value.strip_prefix('=').unwrap_or(value).trim_start();
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(setting).collect()
}

/// Returns a setting of a line or, where it has none, of its module's file.
pub(super) fn setting<'a>(line: &'a Line, settings: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let of_file = || settings.iter().rev().find(|(own, _)| line.is_name(own, name)).map(|(_, value)| value.as_str());
    line.value(name).or_else(of_file)
}

/// Returns a number of a line or of its module's file, or the module's default.
pub(super) fn number(line: &Line, settings: &[(String, String)], name: &str, default: i64) -> Result<i64, Unknown> {
    let Some(text) = setting(line, settings, name) else { return Ok(default) };
    text.parse().map_err(|_| Unknown::new(Cause::Garbled, format!("{} {name}={text}", line.module)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in "[a-z \\[\\]=@#.\\\\\n-]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                parse_settings(&text);
            }
        }
    }
}
