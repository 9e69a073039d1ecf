//! What a new password must be: how long, and none of the former ones.

use std::path::Path;

use muster_proto::fact::{Cause, Unknown};

use super::{
    settings::{number, settings},
    stack::{Action, Line, is_reached},
};
use crate::host::{self, Host};

/// What modules return that refuse a new password.
const REFUSALS: [&str; 2] = ["authtok_err", "maxtries"];

/// Returns the characters that a new password must have at least: the most that any module asks for.
pub(super) fn min_length(host: &dyn Host, lines: &[Line]) -> Result<u64, Unknown> {
    let mut longest = 0;
    for (at, line) in lines.iter().enumerate() {
        let module = line.module.as_str();
        if !matches!(module, "pam_pwquality" | "pam_cracklib" | "pam_unix" | "pam_passwdqc") || !is_asked(lines, at)? {
            continue;
        }
        let asked = match module {
            // pwquality.conf(5): a credit above 0 makes a password of that class count as longer than it is.
            "pam_pwquality" => {
                let settings = pwquality_settings(host)?;
                if number(line, &settings, "enforcing", 1)? == 0 {
                    continue;
                }
                let min = number(line, &settings, "minlen", 8)?;
                min.saturating_sub(credits(line, &settings, 0)?).max(6)
            }
            // pam_cracklib(8), up to Linux-PAM 1.4.
            "pam_cracklib" => number(line, &[], "minlen", 9)?.saturating_sub(credits(line, &[], 1)?).max(6),
            // Debian's pam_unix asks for six; what it adds to the options tells it.
            "pam_unix" => number(line, &[], "minlen", if line.has("obscure") { 6 } else { 0 })?,
            "pam_passwdqc" => match passwdqc(line)? {
                Some(min) => min,
                None => continue,
            },
            _ => continue,
        };
        longest = longest.max(asked);
    }
    Ok(u64::try_from(longest).unwrap_or_default())
}

/// Returns how many former passwords are refused.
pub(super) fn history(host: &dyn Host, lines: &[Line]) -> Result<u64, Unknown> {
    let mut most = 0;
    for (at, line) in lines.iter().enumerate() {
        if !matches!(line.module.as_str(), "pam_pwhistory" | "pam_unix") || !is_asked(lines, at)? {
            continue;
        }
        let kept = match line.module.as_str() {
            // pam_pwhistory(8).
            "pam_pwhistory" => number(line, &settings(host, "/etc/security/pwhistory.conf")?, "remember", 10)?,
            "pam_unix" => number(line, &[], "remember", 0)?,
            _ => continue,
        };
        most = most.max(kept);
    }
    Ok(u64::try_from(most).unwrap_or_default())
}

/// Returns whether a password that the module at `at` refuses is not taken.
fn is_asked(lines: &[Line], at: usize) -> Result<bool, Unknown> {
    let line = &lines[at];
    // The module that changes the password takes none that it refuses, whatever is done with its result.
    if line.module == "pam_unix" {
        return Ok(line.control != "optional");
    }
    let changes = || lines[at..].iter().filter(|line| line.module == "pam_unix");
    if REFUSALS.iter().all(|refusal| line.fails(refusal)) {
        // Where the stack goes on, the next module asks anew unless it is told not to.
        let goes_on = REFUSALS.iter().any(|refusal| line.action(refusal) == Action::Bad);
        if goes_on && changes().any(|line| !line.has("use_authtok")) {
            return Err(line.undecidable("is no longer asked where pam_unix has no use_authtok"));
        }
        return is_reached(lines, at);
    }
    let is_lax = REFUSALS.iter().all(|refusal| line.action(refusal) == Action::Ignore)
        && matches!(line.action("success"), Action::Ignore | Action::Ok | Action::Done);
    if !is_lax || changes().any(|line| line.has("use_authtok")) {
        return Err(line.undecidable("may not be asked"));
    }
    Ok(false)
}

/// Returns the characters of the shortest password that pam_passwdqc(8) takes: each kind of password has its own least, or is `disabled`.
/// `None` where it refuses none.
fn passwdqc(line: &Line) -> Result<Option<i64>, Unknown> {
    if line.value("config").is_some() {
        return Err(Unknown::new(Cause::Unsupported, "this build does not read the file of pam_passwdqc"));
    }
    if line.value("enforce") == Some("none") {
        return Ok(None);
    }
    let text = line.value("min").unwrap_or("disabled,24,11,8,7");
    let garbled = || Unknown::new(Cause::Garbled, format!("pam_passwdqc min={text}"));
    let kinds: Vec<&str> = text.split(',').filter(|kind| *kind != "disabled").collect();
    if kinds.is_empty() || text.split(',').count() != 5 {
        return Err(garbled());
    }
    let least: Option<Vec<u32>> = kinds.into_iter().map(|kind| kind.parse().ok()).collect();
    Ok(least.ok_or_else(garbled)?.into_iter().min().map(i64::from))
}

fn credits(line: &Line, settings: &[(String, String)], default: i64) -> Result<i64, Unknown> {
    let mut sum: i64 = 0;
    for class in ["dcredit", "ucredit", "lcredit", "ocredit"] {
        sum = sum.saturating_add(number(line, settings, class, default)?.max(0));
    }
    Ok(sum)
}

/// pwquality.conf(5): the files of the folder first, in order of name, and the main file over them.
fn pwquality_settings(host: &dyn Host) -> Result<Vec<(String, String)>, Unknown> {
    const FOLDER: &str = "/etc/security/pwquality.conf.d";
    let mut all = Vec::new();
    match host.list(Path::new(FOLDER)) {
        Ok(names) => {
            for name in names.iter().filter_map(|name| name.to_str()).filter(|name| name.ends_with(".conf")) {
                all.extend(settings(host, &format!("{FOLDER}/{name}"))?);
            }
        }
        Err(error) if host::cause(&error) == Cause::Absent => {}
        Err(error) => return Err(host::unknown(format!("list {FOLDER}"), &error)),
    }
    all.extend(settings(host, "/etc/security/pwquality.conf")?);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{
        super::made::{bare, lines, with},
        *,
    };

    #[test]
    fn settings_of_a_length_are_read_as_their_library_reads_them() {
        let stack = lines("password requisite pam_pwquality.so");
        for (text, expected) in [
            ("minlen = 14\n", 14),
            ("minlen 14\n", 14),
            ("minlen\t= 14 # more\n", 14),
            ("minlen = 14\nMINLEN = 7\n", 7),
            ("minlen = 14\nenforcing 0\n", 0),
            ("minlen = 14\ndcredit 3\nucredit 3\nlcredit 2\n", 6),
        ] {
            let (_folder, host) = with("/etc/security/pwquality.conf", text);
            assert_eq!(min_length(&host, &stack), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_length_is_asked_for_where_its_refusal_holds_and_the_password_gets_there() {
        let (_folder, host) = bare();
        let unix = "password [success=1 default=ignore] pam_unix.so yescrypt";
        for (text, expected) in [
            (format!("password [default=ignore] pam_pwquality.so minlen=14\n{unix}"), Some(0)),
            (format!("password [default=ignore] pam_pwquality.so minlen=14\n{unix} use_authtok"), None),
            (format!("password sufficient pam_pwquality.so minlen=14\n{unix}"), Some(0)),
            (format!("password [success=1 default=ignore] pam_pwquality.so minlen=14\n{unix}"), None),
            (format!("password [ success = ok  default = die ] pam_pwquality.so minlen=14\n{unix}"), Some(14)),
            (format!("password required pam_pwquality.so minlen=14\n{unix}"), None),
            (format!("password required pam_pwquality.so minlen=14\n{unix} use_authtok"), Some(14)),
            ("password sufficient pam_unix.so\npassword requisite pam_pwquality.so minlen=14".to_owned(), Some(0)),
            (format!("{unix}\npassword requisite pam_pwquality.so minlen=14"), Some(0)),
            ("password sufficient pam_sss.so\npassword requisite pam_pwquality.so minlen=14".to_owned(), Some(14)),
            ("password sufficient pam_own.so\npassword requisite pam_pwquality.so minlen=14".to_owned(), None),
            (
                "password [success=1 default=ignore] pam_succeed_if.so user = x\npassword requisite pam_pwquality.so"
                    .to_owned(),
                None,
            ),
            ("password requisite pam_pwquality.so minlen=14\npassword [default=reset] pam_own.so".to_owned(), None),
            // Names of its settings have no case.
            ("password requisite pam_pwquality.so minlen=14 MinLen=9".to_owned(), Some(9)),
        ] {
            assert_eq!(min_length(&host, &lines(&text)).ok(), expected, "{text}");
        }
        // RHEL's own stack.
        let text = "password requisite pam_pwquality.so local_users_only minlen=14
            password [success=1 default=ignore] pam_localuser.so
            password sufficient pam_sss.so use_authtok
            password requisite pam_pwhistory.so use_authtok
            password sufficient pam_unix.so sha512 shadow nullok use_authtok
            password required pam_deny.so";
        assert_eq!(min_length(&host, &lines(text)), Ok(14));
        assert_eq!(history(&host, &lines(text)), Ok(10));
    }

    #[test]
    fn the_longest_length_that_a_module_asks_for_holds() {
        let (_folder, host) = bare();
        for (text, expected) in [
            ("password [success=1 default=ignore] pam_unix.so obscure yescrypt", Some(6)),
            ("password sufficient pam_unix.so sha512 shadow", Some(0)),
            ("password requisite pam_pwquality.so retry=3\npassword required pam_unix.so use_authtok", Some(8)),
            ("password requisite pam_pwquality.so minlen=14", Some(14)),
            ("password requisite pam_pwquality.so minlen=14 dcredit=-1 ucredit=2", Some(12)),
            ("password requisite pam_pwquality.so minlen=14 enforcing=0", Some(0)),
            ("password optional pam_pwquality.so minlen=14", Some(0)),
            ("password requisite pam_cracklib.so minlen=12", Some(8)),
            ("password requisite pam_passwdqc.so", Some(7)),
            ("password requisite pam_passwdqc.so min=disabled,24,16,14,14", Some(14)),
            ("password requisite pam_passwdqc.so min=8,8,8,9,10", Some(8)),
            ("password requisite pam_passwdqc.so min=disabled,24,11,8,7 enforce=none", Some(0)),
            ("password requisite pam_passwdqc.so enforce=users", Some(7)),
            ("password requisite pam_passwdqc.so config=/etc/passwdqc.conf", None),
            ("password requisite pam_passwdqc.so min=disabled,24,11,8", None),
            ("password requisite pam_passwdqc.so min=disabled,24,11,8,x", None),
            ("password requisite pam_passwdqc.so min=disabled,disabled,disabled,disabled,disabled", None),
            (
                "password requisite pam_pwquality.so minlen=14\npassword requisite pam_passwdqc.so
                password sufficient pam_unix.so use_authtok",
                Some(14),
            ),
            ("password requisite pam_pwquality.so minlen=x", None),
        ] {
            assert_eq!(min_length(&host, &lines(text)).ok(), expected, "{text}");
        }
    }

    #[test]
    fn former_passwords_are_counted_by_the_module_that_keeps_them() {
        let (_folder, host) = bare();
        for (text, expected) in [
            ("password required pam_pwhistory.so remember=24", 24),
            ("password required pam_pwhistory.so", 10),
            ("password required pam_unix.so remember=5", 5),
            ("password required pam_unix.so", 0),
        ] {
            assert_eq!(history(&host, &lines(text)).unwrap(), expected, "{text}");
        }
    }
}
