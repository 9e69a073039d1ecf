//! Whether AppArmor restricts anything.

use std::{io, path::Path};

use muster_proto::fact::{Cause, ExecutionControlMode, Unknown};

use super::read_text;
use crate::host::{self, FILE_BYTES, Host};

const PARAMETERS: &str = "/sys/module/apparmor/parameters";
/// A line for each profile that is loaded. As with the parameter `mode`, the kernel lets only root and the group root read it,
/// whatever the file's own mode says.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// Returns the mode in force; `None` where the kernel has no AppArmor.
///
/// The parameter `mode` is `enforce` from the start, with no profile too: it only says whether the profiles' own modes hold
/// (security/apparmor/lsm.c and include/policy.h). What is restricted, the profiles say.
pub(super) fn look(host: &dyn Host) -> Result<Option<ExecutionControlMode>, Unknown> {
    let path = format!("{PARAMETERS}/mode");
    let parameter = match read_text(host, &path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(host::unknown(format!("read {path}"), &error)),
    };
    // A kernel may have AppArmor built in and switched off.
    if let Ok(enabled) = read_text(host, &format!("{PARAMETERS}/enabled"))
        && enabled.trim() != "Y"
    {
        return Ok(Some(ExecutionControlMode::Off));
    }
    match overall(parameter.trim()) {
        Some(ExecutionControlMode::Enforce) => profiles(host).map(Some),
        // Every profile does no more than record.
        Some(ExecutionControlMode::Audit) => Ok(Some(match profiles(host)? {
            ExecutionControlMode::Enforce | ExecutionControlMode::Audit => ExecutionControlMode::Audit,
            ExecutionControlMode::Off => ExecutionControlMode::Off,
        })),
        Some(ExecutionControlMode::Off) => Ok(Some(ExecutionControlMode::Off)),
        None => Err(Unknown::new(Cause::Garbled, format!("{path} has an unknown value"))),
    }
}

/// Values of the parameter `mode`, as in security/apparmor/lib.c.
fn overall(text: &str) -> Option<ExecutionControlMode> {
    match text {
        "enforce" | "kill" => Some(ExecutionControlMode::Enforce),
        "complain" => Some(ExecutionControlMode::Audit),
        "unconfined" => Some(ExecutionControlMode::Off),
        _ => None,
    }
}

/// Returns the mode of the strictest profile that is loaded.
fn profiles(host: &dyn Host) -> Result<ExecutionControlMode, Unknown> {
    match host.read(Path::new(PROFILES), FILE_BYTES) {
        Ok(bytes) => Ok(strictest(&String::from_utf8_lossy(&bytes))),
        Err(error) => Err(host::unknown(format!("read {PROFILES}, which says whether a profile enforces"), &error)),
    }
}

/// Returns the mode of the strictest profile of a list of them.
fn strictest(profiles: &str) -> ExecutionControlMode {
    let mut strictest = ExecutionControlMode::Off;
    for mode in profiles.lines().filter_map(mode_of_line) {
        match mode {
            "enforce" | "kill" => return ExecutionControlMode::Enforce,
            "unconfined" => {}
            // `complain`, `prompt` or one that is not known denies nothing by itself.
            _ => strictest = ExecutionControlMode::Audit,
        }
    }
    strictest
}

/// Returns the mode in a line such as `/usr/sbin/sshd (enforce)`; `None` for a profile of another namespace, `:NAME:...`, which
/// restricts nothing of the host itself.
fn mode_of_line(line: &str) -> Option<&str> {
    if line.starts_with(':') {
        return None;
    }
    line.rsplit_once(" (")?.1.strip_suffix(')')
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::host::{Recorded, recorded::Failure};

    const EACCES: i32 = 13;
    const ENOENT: i32 = 2;

    /// A machine with these files, and these errors of reads.
    fn look_at(files: &[(&str, &str)], errors: &[(&str, i32)]) -> Result<Option<ExecutionControlMode>, Cause> {
        let folder = tempfile::tempdir().unwrap();
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/system/cloud-vm");
        let mut host = Recorded::at(&case).unwrap();
        let index = host.index_mut();
        index.errors.clear();
        for (path, errno) in errors {
            let failure: Failure = serde_json::from_value(serde_json::json!({ "errno": errno })).unwrap();
            index.errors.insert(format!("read {path}"), failure);
        }
        for (path, content) in files {
            let place = folder.path().join("files").join(path.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, content).unwrap();
        }
        fs::write(folder.path().join("index.json"), serde_json::to_vec(host.index_mut()).unwrap()).unwrap();
        look(&Recorded::at(folder.path()).unwrap()).map_err(|unknown| unknown.cause)
    }

    #[test]
    fn apparmor_enforces_where_a_profile_does() {
        use ExecutionControlMode::{Audit, Enforce, Off};
        let parameter = |mode| ("/sys/module/apparmor/parameters/mode", mode);
        let on = ("/sys/module/apparmor/parameters/enabled", "Y\n");
        for (mode, profiles, expected) in [
            ("enforce\n", "", Off),
            ("enforce\n", "/usr/sbin/cupsd (complain)\nman_groff (complain)\n", Audit),
            ("enforce\n", "/usr/sbin/cupsd (complain)\n/usr/bin/man (enforce)\n", Enforce),
            ("enforce\n", "a (b) c (kill)\n", Enforce),
            ("enforce\n", "1password (unconfined)\nQtWebEngineProcess (unconfined)\n", Off),
            ("enforce\n", "1password (unconfined)\nsnap.firefox (prompt)\n", Audit),
            ("enforce\n", ":lxd-a_<var-snap>:/usr/bin/man (enforce)\n", Off),
            ("kill\n", "x (complain)\n", Audit),
            ("complain\n", "x (enforce)\n", Audit),
            ("unconfined\n", "x (enforce)\n", Off),
        ] {
            let found = look_at(&[parameter(mode), on, (PROFILES, profiles)], &[]);
            assert_eq!(found, Ok(Some(expected)), "{mode} {profiles}");
        }
        let off = ("/sys/module/apparmor/parameters/enabled", "N\n");
        assert_eq!(look_at(&[parameter("enforce\n"), off], &[]), Ok(Some(Off)));
        assert_eq!(look_at(&[], &[("/sys/module/apparmor/parameters/mode", ENOENT)]), Ok(None));
    }

    #[test]
    fn where_the_profiles_cannot_be_read_the_mode_is_unknown() {
        let base =
            [("/sys/module/apparmor/parameters/mode", "enforce\n"), ("/sys/module/apparmor/parameters/enabled", "Y\n")];
        assert_eq!(look_at(&base, &[(PROFILES, EACCES)]), Err(Cause::Forbidden));
        assert_eq!(look_at(&base, &[(PROFILES, ENOENT)]), Err(Cause::Absent));
        let large = "x (enforce)\n".repeat(FILE_BYTES / 10);
        assert_eq!(look_at(&[base[0], base[1], (PROFILES, &large)], &[]), Err(Cause::Limit));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = (overall(&text), strictest(&text));
        }
    }
}
