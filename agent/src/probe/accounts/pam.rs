//! What PAM asks of local passwords: the stacks of pam.d(5), and the files of the modules that make the rules.
//!
//! A module that stands in a stack is taken to be run: jumps over it are not followed. One whose result is not asked
//! (`optional`) asks for nothing.

use std::path::Path;

use muster_proto::fact::{Cause, PasswordPolicy, Reading, Text, Unknown};

use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Folders of service files, the first that has a service deciding (pam.d(5)).
const FOLDERS: [&str; 3] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"];
/// Services by which people sign in.
const SIGN_IN: [&str; 6] = ["login", "sshd", "gdm-password", "lightdm", "sddm", "kde"];
/// How deep files include each other, at most.
const DEPTH: usize = 16;
/// Lines of one stack, at most.
const LINES: usize = 1_000;
/// Modules that ask a directory.
const DIRECTORIES: [&str; 6] = ["pam_himmelblau", "pam_krb5", "pam_ldap", "pam_ldapd", "pam_sss", "pam_winbind"];

/// A line of a stack.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Line {
    kind: String,
    control: String,
    /// File name without its end.
    module: String,
    args: Vec<String>,
}

impl Line {
    fn has(&self, arg: &str) -> bool {
        self.args.iter().any(|own| own == arg)
    }

    /// Returns the value of `name=value`; of several the last.
    fn value(&self, name: &str) -> Option<&str> {
        self.args.iter().filter_map(|arg| arg.strip_prefix(name)?.strip_prefix('=')).next_back()
    }

    fn is_asked(&self) -> bool {
        self.control != "optional"
    }
}

/// Reads what a local password must be.
pub fn policy(host: &dyn Host) -> PasswordPolicy {
    let change = stack(host, "passwd", "password");
    let sign_in = sign_in_stacks(host);
    let (attempts, seconds) = lockout(host, &sign_in);
    PasswordPolicy {
        min_length: told(change.as_ref().map_err(Clone::clone).and_then(|lines| min_length(host, lines))),
        lockout_attempts: attempts,
        lockout_seconds: seconds,
        history: told(change.as_ref().map_err(Clone::clone).and_then(|lines| history(host, lines))),
        max_age_days: max_age_days(host),
        delegates: delegates(&sign_in),
    }
}

fn told<T>(result: Result<T, Unknown>) -> Reading<T> {
    match result {
        Ok(value) => Reading::Known(value),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

/// Returns the lines of `kind` of a service, its includes in their place. A service without a file is `other`.
fn stack(host: &dyn Host, service: &str, kind: &str) -> Result<Vec<Line>, Unknown> {
    let mut lines = Vec::new();
    if has_service(host, service)? {
        add(host, service, kind, 0, &mut lines)?;
    } else {
        add(host, "other", kind, 0, &mut lines)?;
    }
    Ok(lines)
}

fn has_service(host: &dyn Host, service: &str) -> Result<bool, Unknown> {
    for folder in FOLDERS {
        let path = Path::new(folder).join(service);
        match host.metadata(&path) {
            Ok(_) => return Ok(true),
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("look at {}", path.display()), &error)),
        }
    }
    Ok(false)
}

fn add(host: &dyn Host, service: &str, kind: &str, depth: usize, lines: &mut Vec<Line>) -> Result<(), Unknown> {
    if depth > DEPTH {
        return Err(Unknown::new(Cause::Limit, format!("pam.d/{service} is included too deep")));
    }
    let text = read_service(host, service)?;
    for line in logical_lines(&text) {
        let Some(item) = parse_line(&line).filter(|_| !line.contains(char::REPLACEMENT_CHARACTER)) else {
            return Err(Unknown::new(Cause::Garbled, format!("pam.d/{service}: {line}")));
        };
        match item {
            Item::Nothing => {}
            Item::Include(name) => add(host, &name, kind, depth + 1, lines)?,
            Item::Line(line) if line.kind != kind => {}
            Item::Line(line) if matches!(line.control.as_str(), "include" | "substack") => {
                add(host, &line.module, kind, depth + 1, lines)?;
            }
            Item::Line(line) => lines.push(line),
        }
        if lines.len() > LINES {
            return Err(Unknown::new(Cause::Limit, format!("pam.d/{service} has more lines than are read")));
        }
    }
    Ok(())
}

fn read_service(host: &dyn Host, service: &str) -> Result<String, Unknown> {
    // An absolute path may be included, too.
    let places: Vec<_> = FOLDERS.iter().map(|folder| Path::new(folder).join(service)).collect();
    for place in &places {
        match host.read(place, SMALL_FILE_BYTES) {
            Ok(bytes) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("read {}", place.display()), &error)),
        }
    }
    Err(Unknown::new(Cause::Absent, format!("no pam.d has {service}")))
}

enum Item {
    Nothing,
    /// The whole file of another service.
    Include(String),
    Line(Line),
}

fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let (line, continues) = line.strip_suffix('\\').map_or((line, false), |start| (start, true));
        match lines.last_mut().filter(|_| is_open) {
            Some(last) => {
                last.push(' ');
                last.push_str(line);
            }
            None => lines.push(line.to_owned()),
        }
        is_open = continues;
    }
    lines
}

/// Returns what a line says; `None` for one that follows no format.
fn parse_line(line: &str) -> Option<Item> {
    let mut rest = line.trim();
    if rest.is_empty() {
        return Some(Item::Nothing);
    }
    if let Some(name) = rest.strip_prefix("@include") {
        let name = name.trim();
        return (!name.is_empty()).then(|| Item::Include(name.to_owned()));
    }
    let kind = take_word(&mut rest)?.trim_start_matches('-').to_ascii_lowercase();
    if !matches!(kind.as_str(), "auth" | "account" | "password" | "session") {
        return None;
    }
    let control = take_word(&mut rest)?.to_ascii_lowercase();
    let module = take_word(&mut rest)?;
    let module = module.rsplit('/').next().unwrap_or_default();
    let module = module.strip_suffix(".so").unwrap_or(module).to_owned();
    let mut args = Vec::new();
    while let Some(arg) = take_word(&mut rest) {
        args.push(arg);
    }
    Some(Item::Line(Line { kind, control, module, args }))
}

/// Takes a word, or what stands in brackets, off the front.
fn take_word(rest: &mut &str) -> Option<String> {
    *rest = rest.trim_start();
    if rest.is_empty() {
        return None;
    }
    if let Some(inner) = rest.strip_prefix('[') {
        let (inner, after) = inner.split_once(']')?;
        *rest = after;
        return Some(inner.to_owned());
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    Some(word.to_owned())
}

fn sign_in_stacks(host: &dyn Host) -> Result<Vec<Vec<Line>>, Unknown> {
    let mut services = Vec::new();
    for service in SIGN_IN {
        if has_service(host, service)? {
            services.push(service);
        }
    }
    let services = if services.is_empty() { vec!["other"] } else { services };
    services.into_iter().map(|service| stack(host, service, "auth")).collect()
}

fn delegates(stacks: &Result<Vec<Vec<Line>>, Unknown>) -> Vec<Text> {
    let lines = stacks.iter().flatten().flatten();
    let mut names: Vec<&str> =
        lines.map(|line| line.module.as_str()).filter(|name| DIRECTORIES.contains(name)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(Text::new).collect()
}

/// Returns the settings of a module's file, `name = value`, each with its last value.
fn settings(host: &dyn Host, path: &str) -> Result<Vec<(String, String)>, Unknown> {
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

fn parse_settings(text: &str) -> Vec<(String, String)> {
    let setting = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (!name.trim().is_empty()).then(|| (name.trim().to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(setting).collect()
}

fn last<'a>(settings: &'a [(String, String)], name: &str) -> Option<&'a str> {
    settings.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

/// Returns a number of a line or of its module's file, or the module's default.
fn number(line: &Line, settings: &[(String, String)], name: &str, default: i64) -> Result<i64, Unknown> {
    let Some(text) = line.value(name).or_else(|| last(settings, name)) else { return Ok(default) };
    text.parse().map_err(|_| Unknown::new(Cause::Garbled, format!("{} {name}={text}", line.module)))
}

/// Returns the characters that a new password must have at least: the most that any module asks for.
fn min_length(host: &dyn Host, lines: &[Line]) -> Result<u64, Unknown> {
    let mut longest = 0;
    for line in lines.iter().filter(|line| line.is_asked()) {
        let asked = match line.module.as_str() {
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
            "pam_passwdqc" => {
                return Err(Unknown::new(Cause::Unsupported, "this build does not read what pam_passwdqc asks for"));
            }
            _ => continue,
        };
        longest = longest.max(asked);
    }
    Ok(u64::try_from(longest).unwrap_or_default())
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

/// Returns how many former passwords are refused.
fn history(host: &dyn Host, lines: &[Line]) -> Result<u64, Unknown> {
    let mut most = 0;
    for line in lines.iter().filter(|line| line.is_asked()) {
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

/// Returns after how many failures an account is locked by the service that locks the latest, and for how long by the one that
/// locks for the shortest time.
fn lockout(host: &dyn Host, stacks: &Result<Vec<Vec<Line>>, Unknown>) -> (Reading<u64>, Reading<u64>) {
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
    let positive = |number: i64| u64::try_from(number).unwrap_or_default();
    // pam_faillock(8) counts where `authfail` stands and refuses where `preauth` or `authsucc` does.
    let of_faillock = |arg: &str| lines.iter().find(|line| line.module == "pam_faillock" && line.has(arg));
    if let (Some(line), Some(_)) = (of_faillock("authfail"), of_faillock("preauth").or(of_faillock("authsucc"))) {
        let file = line.value("conf").unwrap_or("/etc/security/faillock.conf").to_owned();
        let settings = settings(host, &file)?;
        let deny = positive(number(line, &settings, "deny", 3)?);
        let text = line.value("unlock_time").or_else(|| last(&settings, "unlock_time"));
        let seconds = if text == Some("never") { 0 } else { positive(number(line, &settings, "unlock_time", 600)?) };
        return Ok((deny > 0).then_some((deny, seconds)));
    }
    // pam_tally2(8), up to Linux-PAM 1.4: it locks where it is told after how many.
    let tally = lines.iter().find(|line| matches!(line.module.as_str(), "pam_tally2" | "pam_tally"));
    if let Some(line) = tally.filter(|line| line.is_asked()) {
        let deny = positive(number(line, &[], "deny", 0)?);
        return Ok((deny > 0).then_some((deny, positive(number(line, &[], "unlock_time", 0)?))));
    }
    Ok(None)
}

/// `PASS_MAX_DAYS` of login.defs(5), where 99999 and -1 are written for none.
fn max_age_days(host: &dyn Host) -> Reading<u64> {
    const FILE: &str = "/etc/login.defs";
    let text = match host.read(Path::new(FILE), SMALL_FILE_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return Reading::Unknown { unknown: host::unknown(format!("read {FILE}"), &error) },
    };
    match login_defs_value(&text, "PASS_MAX_DAYS").map(|value| value.parse::<i64>()) {
        None | Some(Ok(..0 | 99_999..)) => Reading::unknown(Cause::Absent, "login.defs sets none"),
        Some(Ok(days)) => Reading::Known(u64::try_from(days).unwrap_or_default()),
        Some(Err(_)) => Reading::unknown(Cause::Garbled, "login.defs: PASS_MAX_DAYS is no number"),
    }
}

fn login_defs_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.trim().strip_prefix(name)?.strip_prefix(char::is_whitespace);
    text.lines().filter_map(value).next_back().map(str::trim)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        let parsed = logical_lines(text).into_iter().filter_map(|line| match parse_line(&line) {
            Some(Item::Line(line)) => Some(line),
            Some(Item::Nothing) => None,
            _ => panic!("{line}"),
        });
        parsed.collect()
    }

    /// A host that has no file at all.
    fn bare() -> (tempfile::TempDir, host::Recorded) {
        let folder = tempfile::tempdir().unwrap();
        let capture = folder.path().join("capture");
        let live = host::Live::new();
        let epoch = muster_proto::time::Timestamp::EPOCH;
        host::Recording::start(&live, &capture, epoch).unwrap().finish().unwrap();
        let mut host = host::Recorded::at(&capture).unwrap();
        let absent = || host::recorded::Failure::of(&std::io::Error::from(std::io::ErrorKind::NotFound));
        for key in [
            "list /etc/security/pwquality.conf.d",
            "read /etc/security/pwquality.conf",
            "read /etc/security/faillock.conf",
            "read /etc/security/pwhistory.conf",
        ] {
            host.index_mut().errors.insert(key.to_owned(), absent());
        }
        (folder, host)
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
            ("password requisite pam_passwdqc.so min=8,8,8,8,8", None),
            ("password requisite pam_pwquality.so minlen=x", None),
        ] {
            assert_eq!(min_length(&host, &lines(text)).ok(), expected, "{text}");
        }
    }

    #[test]
    fn an_account_is_locked_where_failures_are_counted_and_asked_for() {
        let (_folder, host) = bare();
        let pre = "auth required pam_faillock.so preauth silent deny=5 unlock_time=900\n";
        let fail = "auth [default=die] pam_faillock.so authfail deny=5 unlock_time=900\n";
        for (text, expected) in [
            (format!("{pre}{fail}"), Some((5, 900))),
            (pre.to_owned(), None),
            (fail.to_owned(), None),
            (format!("{pre}auth [default=die] pam_faillock.so authfail"), Some((3, 600))),
            (format!("{pre}auth [default=die] pam_faillock.so authfail unlock_time=never"), Some((3, 0))),
            (format!("{pre}auth [default=die] pam_faillock.so authfail deny=0"), None),
            ("auth required pam_tally2.so deny=4 onerr=fail".to_owned(), Some((4, 0))),
            ("auth required pam_tally2.so".to_owned(), None),
        ] {
            assert_eq!(lockout_of(&host, &lines(&text)).unwrap(), expected, "{text}");
        }
        // The service that locks latest decides, and one that never does decides for all.
        let of = |text: &str| lines(&format!("{pre}{}", text));
        let strict = of("auth [default=die] pam_faillock.so authfail deny=3");
        let lax = of("auth [default=die] pam_faillock.so authfail deny=9");
        let brief = of("auth [default=die] pam_faillock.so authfail deny=4 unlock_time=1");
        let stacks = Ok(vec![of("auth [default=die] pam_faillock.so authfail unlock_time=never"), lax.clone(), brief]);
        assert_eq!(lockout(&host, &stacks), (Reading::Known(9), Reading::Known(1)));
        assert_eq!(lockout(&host, &Ok(vec![lax.clone(), strict])).0, Reading::Known(9));
        assert_eq!(lockout(&host, &Ok(vec![lax, Vec::new()])).0, Reading::Known(0));
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

    #[test]
    fn a_line_may_be_continued_and_have_brackets() {
        let text = "-auth [success=2 \\\n default=ignore] /lib/security/pam_sss.so a [b c] # d\n\n";
        let expected = Line {
            kind: "auth".to_owned(),
            control: "success=2   default=ignore".to_owned(),
            module: "pam_sss".to_owned(),
            args: vec!["a".to_owned(), "b c".to_owned()],
        };
        assert_eq!(lines(text), [expected]);
        assert_eq!(delegates(&Ok(vec![lines(text)])), [Text::new("pam_sss")]);
        assert!(parse_line("auth").is_none() && parse_line("what is this").is_none());
    }

    #[test]
    fn login_defs_has_words_without_a_sign_between() {
        let text = "# PASS_MAX_DAYS 1\nPASS_MAX_DAYS\t99999\nPASS_MAX_DAYS 365 \nPASS_MAX_DAYSX 3\n";
        assert_eq!(login_defs_value(text, "PASS_MAX_DAYS"), Some("365"));
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in "[a-z \\[\\]=@#.\\\\\n-]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                for line in logical_lines(&text) {
                    parse_line(&line);
                }
                parse_settings(&text);
                login_defs_value(&text, "PASS_MAX_DAYS");
            }
        }
    }
}
