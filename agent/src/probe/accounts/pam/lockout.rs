//! After how many failures an account is locked, and for how long.

use std::path::Path;

use muster_proto::fact::{Cause, Reading, Unknown};

use super::{
    settings::{number, setting, settings},
    stack::{Action, Line, behind_stack, is_reached, leaves_out},
    told,
};
use crate::host::Host;

/// Modules that choose users.
const CHOOSERS: [&str; 4] = ["pam_listfile", "pam_localuser", "pam_succeed_if", "pam_usertype"];
/// Seconds in which failures are counted, at least: fewer are over between two that somebody types.
const INTERVAL_SECONDS: i64 = 60;

/// Returns after how many failures an account is locked by the service that locks the latest, and for how long by the one that
/// locks for the shortest time.
pub(super) fn lockout(host: &dyn Host, stacks: &Result<Vec<Vec<Line>>, Unknown>) -> (Reading<u64>, Reading<u64>) {
    let never = || (Reading::Known(0), Reading::unknown(Cause::Absent, "no account is ever locked"));
    let unknown = |unknown: &Unknown| (told(Err(unknown.clone())), told(Err(unknown.clone())));
    let stacks = match stacks {
        Ok(stacks) => stacks,
        Err(why) => return unknown(why),
    };
    // Zero seconds are until a person unlocks it.
    let rank = |seconds: u64| if seconds == 0 { u64::MAX } else { seconds };
    let mut weakest: Option<(u64, u64)> = None;
    for lines in stacks {
        let (attempts, seconds) = match lockout_of(host, lines) {
            Err(why) => return unknown(&why),
            Ok(None) => return never(),
            Ok(Some(found)) => found,
        };
        let (most, least) = weakest.unwrap_or((attempts, seconds));
        weakest = Some((most.max(attempts), if rank(seconds) < rank(least) { seconds } else { least }));
    }
    let Some((attempts, seconds)) = weakest else { return never() };
    (Reading::Known(attempts), Reading::Known(seconds))
}

/// Returns attempts and seconds of one service; `None` when it never locks.
fn lockout_of(host: &dyn Host, lines: &[Line]) -> Result<Option<(u64, u64)>, Unknown> {
    // pam_faillock(8) counts where `authfail` stands and refuses where `preauth` or `authsucc` does.
    let of_faillock = |arg: &str| lines.iter().position(|line| line.module == "pam_faillock" && line.has(arg));
    let refuses = [of_faillock("preauth"), of_faillock("authsucc")];
    if let Some(counts) = of_faillock("authfail")
        && let Some(refuses) = refusing(lines, refuses)?
    {
        return faillock(host, lines, refuses, counts);
    }
    let positive = |number: i64| u64::try_from(number).unwrap_or_default();
    // pam_tally2(8), up to Linux-PAM 1.4: it locks where it is told after how many.
    let tally = lines.iter().position(|line| matches!(line.module.as_str(), "pam_tally2" | "pam_tally"));
    if let Some(line) = refusing(lines, [tally, None])?.map(|at| &lines[at]) {
        let deny = positive(number(line, &[], "deny", 0)?);
        return Ok((deny > 0).then_some((deny, positive(number(line, &[], "unlock_time", 0)?))));
    }
    Ok(None)
}

/// Returns the first of `places` where a locked account surely is refused; `None` where none is.
fn refusing(lines: &[Line], places: [Option<usize>; 2]) -> Result<Option<usize>, Unknown> {
    let mut untold = None;
    for (n, at) in places.into_iter().enumerate().filter_map(|(n, at)| Some((n, at?))) {
        let line = &lines[at];
        match is_reached(lines, at) {
            Ok(true) if line.fails("auth_err") => return Ok(Some(at)),
            // What comes after one that stands behind the password may refuse in its place.
            Ok(true) if n > 0 || line.action("auth_err") != Action::Ignore => {
                untold = Some(line.undecidable("may not refuse a locked account"));
            }
            Ok(_) => {}
            Err(unknown) => untold = Some(unknown),
        }
    }
    untold.map_or(Ok(None), Err)
}

/// Returns attempts and seconds of pam_faillock(8), which refuses in one line what it counts in another.
fn faillock(host: &dyn Host, lines: &[Line], refuses: usize, counts: usize) -> Result<Option<(u64, u64)>, Unknown> {
    let (refusing, counting) = (Faillock::of(host, &lines[refuses])?, Faillock::of(host, &lines[counts])?);
    if refusing.attempts == 0 || refusing.interval_seconds <= 0 {
        return Ok(None);
    }
    if refusing != counting {
        return Err(Unknown::new(Cause::Undecidable, "the lines of pam_faillock have different settings"));
    }
    if refusing.interval_seconds < INTERVAL_SECONDS {
        let detail = format!("pam_faillock counts failures within {} s alone", refusing.interval_seconds);
        return Err(Unknown::new(Cause::Undecidable, detail));
    }
    for (n, line) in lines[..counts].iter().enumerate() {
        let failure = line.action("auth_err");
        let is_left_out = match line.module.as_str() {
            "pam_unix" if failure == Action::Die => behind_stack(lines, n) > counts,
            "pam_unix" => leaves_out(lines, n, failure, counts),
            module if CHOOSERS.contains(&module) => line
                .actions()
                .iter()
                .any(|(_, action)| matches!(action, Action::Jump(_)) && leaves_out(lines, n, *action, counts)),
            _ => false,
        };
        if is_left_out {
            return Err(line.undecidable("may leave out the line of pam_faillock that counts"));
        }
    }
    Ok(Some((refusing.attempts, refusing.seconds)))
}

/// Settings of a line of pam_faillock(8).
#[derive(Debug, Eq, PartialEq)]
struct Faillock {
    /// 0 locks nobody.
    attempts: u64,
    /// 0 is until a person unlocks it.
    seconds: u64,
    interval_seconds: i64,
    /// Where failures are kept.
    folder: String,
}

impl Faillock {
    fn of(host: &dyn Host, line: &Line) -> Result<Self, Unknown> {
        let positive = |number: i64| u64::try_from(number).unwrap_or_default();
        let settings = settings(host, line.value("conf").unwrap_or("/etc/security/faillock.conf"))?;
        let never = setting(line, &settings, "unlock_time") == Some("never");
        // Members of the group are handled as the superuser is, whom it locks where it is told to, and for a time of his own.
        let locks_superuser = line.has("even_deny_root") || settings.iter().any(|(name, _)| name == "even_deny_root");
        let has_own_time = setting(line, &settings, "root_unlock_time").is_some();
        if setting(line, &settings, "admin_group").is_some() && (!locks_superuser || has_own_time) {
            return Err(line.undecidable("may not lock members of its admin_group as it does others"));
        }
        let folder = setting(line, &settings, "dir").unwrap_or("/var/run/faillock").to_owned();
        if folder.contains("..") || ["/proc", "/sys", "/dev"].iter().any(|top| Path::new(&folder).starts_with(top)) {
            return Err(line.undecidable(&format!("may not keep failures in {folder}")));
        }
        Ok(Self {
            attempts: positive(number(line, &settings, "deny", 3)?),
            seconds: if never { 0 } else { positive(number(line, &settings, "unlock_time", 600)?) },
            interval_seconds: number(line, &settings, "fail_interval", 900)?,
            folder,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::made::{bare, lines, with},
        *,
    };

    #[test]
    fn an_account_is_locked_where_failures_are_counted_and_asked_for() {
        let (_folder, host) = bare();
        let both = |pre: &str, fail: &str| {
            format!("auth required pam_faillock.so preauth {pre}\nauth [default=die] pam_faillock.so authfail {fail}\n")
        };
        let pre = "auth required pam_faillock.so preauth silent deny=5 unlock_time=900\n";
        let fail = "auth [default=die] pam_faillock.so authfail deny=5 unlock_time=900\n";
        for (text, expected) in [
            (format!("{pre}{fail}"), Some((5, 900))),
            (pre.to_owned(), None),
            (fail.to_owned(), None),
            (both("", ""), Some((3, 600))),
            (both("unlock_time=never", "unlock_time=never"), Some((3, 0))),
            (both("deny=0", "deny=0"), None),
            (both("deny=0", ""), None),
            (both("fail_interval=0", "fail_interval=0"), None),
            ("auth required pam_tally2.so deny=4 onerr=fail".to_owned(), Some((4, 0))),
            ("auth optional pam_tally2.so deny=4 onerr=fail".to_owned(), None),
            ("auth required pam_tally2.so".to_owned(), None),
            (format!("auth optional pam_faillock.so preauth\n{fail}"), None),
            (format!("auth [default=ignore] pam_faillock.so preauth\n{fail}"), None),
            (format!("auth sufficient pam_unix.so\n{pre}{fail}"), None),
            // Debian, RHEL and Arch.
            (format!("{pre}auth [success=2 default=ignore] pam_unix.so\n{fail}"), Some((5, 900))),
            (
                format!(
                    "auth [success=done ignore=ignore default=bad] pam_selinux_permit.so
                    {pre}auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular
                    auth [default=1 ignore=ignore success=ok] pam_localuser.so
                    auth sufficient pam_unix.so nullok
                    auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular
                    auth sufficient pam_sss.so forward_pass\n{fail}"
                ),
                Some((5, 900)),
            ),
            (
                format!(
                    "{pre}-auth [success=2 default=ignore] pam_systemd_home.so
                    auth [success=1 default=bad] pam_unix.so try_first_pass nullok\n{fail}"
                ),
                Some((5, 900)),
            ),
        ] {
            assert_eq!(lockout_of(&host, &lines(&text)), Ok(expected), "{text}");
        }
        // A jump over the substack that has both.
        let mut nested = lines(&format!(
            "auth [success=1 default=ignore] pam_unix.so\n{pre}{pre}auth sufficient pam_unix.so\n{fail}"
        ));
        nested[1].module.clear();
        nested[2..].iter_mut().for_each(|line| line.level = 1);
        assert_eq!(lockout_of(&host, &nested), Ok(None));
        nested.remove(0);
        assert_eq!(lockout_of(&host, &nested), Ok(Some((5, 900))));
        for text in [
            both("admin_group=users", "admin_group=users"),
            both(
                "admin_group=users even_deny_root root_unlock_time=1",
                "admin_group=users even_deny_root root_unlock_time=1",
            ),
            both("dir=/proc", "dir=/proc"),
            both("dir=/dev/shm/x", "dir=/dev/shm/x"),
            both("dir=/var/../proc", "dir=/var/../proc"),
            both("deny=5", ""),
            both("unlock_time=900", ""),
            both("", "dir=/var/tmp/x"),
            both("fail_interval=1", "fail_interval=1"),
            format!("auth [success=1 default=ignore] pam_succeed_if.so user = x\n{pre}{fail}"),
            format!("{pre}auth requisite pam_unix.so\n{fail}"),
            format!("{pre}auth [default=1 success=ok] pam_succeed_if.so user = x\n{fail}"),
            format!("auth [success=ok ignore=ignore] pam_faillock.so preauth deny=5 unlock_time=900\n{fail}"),
            format!("{fail}auth sufficient pam_faillock.so authsucc deny=5 unlock_time=900"),
        ] {
            let found = lockout_of(&host, &lines(&text));
            assert!(matches!(&found, Err(unknown) if unknown.cause == Cause::Undecidable), "{text}: {found:?}");
        }
        let (_folder, with_group) = with("/etc/security/faillock.conf", "admin_group = users\n");
        assert!(lockout_of(&with_group, &lines(&both("", ""))).is_err());
        for (text, expected) in [
            ("admin_group = users\neven_deny_root\n", Some((3, 600))),
            ("even_deny_root\nroot_unlock_time = 60\n", Some((3, 600))),
            ("dir = /var/lib/faillock\n", Some((3, 600))),
            ("deny 0\n", None),
            ("deny 9\n", Some((9, 600))),
            ("deny = 9\nunlock_time never\n", Some((9, 0))),
            ("fail_interval = 0\n", None),
        ] {
            let (_folder, host) = with("/etc/security/faillock.conf", text);
            assert_eq!(lockout_of(&host, &lines(&both("", ""))), Ok(expected), "{text}");
        }
        // The service that locks latest decides, and one that never does decides for all.
        let of = |args: &str| lines(&both(args, args));
        let (strict, lax, brief) = (of("deny=3"), of("deny=9"), of("deny=4 unlock_time=1"));
        let stacks = Ok(vec![of("unlock_time=never"), lax.clone(), brief]);
        assert_eq!(lockout(&host, &stacks), (Reading::Known(9), Reading::Known(1)));
        assert_eq!(lockout(&host, &Ok(vec![lax.clone(), strict])).0, Reading::Known(9));
        assert_eq!(lockout(&host, &Ok(vec![lax, Vec::new()])).0, Reading::Known(0));
    }
}
