//! What the agent says of itself: weak evidence alone.

use std::{
    io,
    path::{Path, PathBuf},
};

use muster_proto::{
    fact::{Agent, Cause, Reading, Text, Unknown},
    id::Digest,
};
use serde::{Deserialize, Serialize};

use crate::{
    host::{self, Digests, FILE_BYTES, Host, Metadata, SMALL_FILE_BYTES},
    probe::Look,
};

/// Name of the agent's package.
const PACKAGE: &str = "muster-agent";

/// Digests of the program's file, kept so that an unchanged file is read once.
#[derive(Deserialize, Eq, PartialEq, Serialize)]
struct Cache {
    path: PathBuf,
    metadata: Metadata,
    digests: Digests,
}

pub(super) fn look(look: &Look<'_>) -> Reading<Agent> {
    let status = match look.host.read(Path::new("/proc/self/status"), SMALL_FILE_BYTES) {
        Ok(status) => status,
        Err(error) => return Reading::Unknown { unknown: host::unknown("read /proc/self/status", &error) },
    };
    let status = String::from_utf8_lossy(&status);
    let Some(uid) = effective_uid(&status) else {
        return Reading::unknown(Cause::Garbled, "/proc/self/status has no effective user id");
    };
    let capabilities = match status_value(&status, "CapEff") {
        Some(value) => Reading::Known(Text::new(value)),
        None => Reading::unknown(Cause::Absent, "/proc/self/status has no CapEff"),
    };
    let (program_digest, matches_package) = match program(look) {
        Ok((path, digests)) => {
            (Reading::Known(Text::new(&hex::encode(digests.sha256))), matches_package(look.host, &path, digests))
        }
        Err(unknown) => (Reading::Unknown { unknown: unknown.clone() }, Reading::Unknown { unknown }),
    };
    let settings = serde_json::to_vec(look.settings).expect("settings are plain values");
    Reading::Known(Agent {
        version: Text::new(env!("CARGO_PKG_VERSION")),
        program_digest,
        matches_package,
        settings_digest: Text::new(&Digest::of_bytes(&settings).to_string()),
        uid,
        capabilities,
    })
}

/// Returns the value of `key` in proc_pid_status(5).
fn status_value<'t>(status: &'t str, key: &str) -> Option<&'t str> {
    status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// `Uid` has the real, effective, saved and file-system ids.
fn effective_uid(status: &str) -> Option<u32> {
    status_value(status, "Uid")?.split_whitespace().nth(1)?.parse().ok()
}

fn program(look: &Look<'_>) -> Result<(PathBuf, Digests), Unknown> {
    let refused = |error: &io::Error| host::unknown("read /proc/self/exe", error);
    let path = look.host.read_link(Path::new("/proc/self/exe")).map_err(|error| refused(&error))?;
    // An upgrade replaces the file under the running program (proc_pid_exe(5)).
    if host::path_bytes(&path).ends_with(b" (deleted)") {
        return Err(Unknown::new(Cause::Absent, "the file of the running program was replaced or removed"));
    }
    let metadata = look.host.metadata(&path).map_err(|error| refused(&error))?;
    let cache_path = look.memory.join("program.json");
    let cache: Option<Cache> = std::fs::read(&cache_path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(cache) = cache
        && cache.path == path
        && cache.metadata == metadata
    {
        return Ok((path, cache.digests));
    }
    let digests = look.host.digests(&path, &path).map_err(|error| refused(&error))?;
    let cache = Cache { path: path.clone(), metadata, digests };
    if let Ok(json) = serde_json::to_vec(&cache) {
        // A cache that cannot be written costs the next look a read.
        let _ = std::fs::write(&cache_path, json);
    }
    Ok((path, digests))
}

/// Returns whether the package's own MD5 of the file is the one read.
fn matches_package(host: &dyn Host, path: &Path, digests: Digests) -> Reading<bool> {
    let sums_path = format!("/var/lib/dpkg/info/{PACKAGE}.md5sums");
    let sums = match host.read(Path::new(&sums_path), FILE_BYTES) {
        Ok(sums) => sums,
        Err(error) => return Reading::Unknown { unknown: host::unknown(format!("read {sums_path}"), &error) },
    };
    let path = host::path_bytes(path);
    let expected = sums.split(|&byte| byte == b'\n').find_map(|line| {
        let (digest, file) = line.split_at_checked(32)?;
        (file.trim_ascii_start() == path.strip_prefix(b"/")?).then_some(digest)
    });
    match expected {
        Some(digest) => Reading::Known(digest == hex::encode(digests.md5).as_bytes()),
        None => Reading::unknown(Cause::Absent, "no package owns the running program"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_and_capabilities_are_read_from_status() {
        let status = "Name:\tx\nUid:\t1000\t0\t0\t0\nCapInh:\t01\nCapEff:\t0000000000000004\n";
        assert_eq!(effective_uid(status), Some(0));
        assert_eq!(status_value(status, "CapEff"), Some("0000000000000004"));
        assert_eq!(effective_uid("Uid:\tx"), None);
    }
}
