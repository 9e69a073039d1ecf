//! What PAM asks of local passwords: the stacks of pam.d(5), and the files of the modules that make the rules.
//!
//! A module asks for something where its refusal fails the stack, and no line before it ends the stack or jumps over it for a
//! local password. What depends on more than that is unknown.

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
/// Others that know nothing of a local password: `pam_selinux_permit` lets in who needs none.
const OTHERS: [&str; 2] = ["pam_selinux_permit", "pam_systemd_home"];
/// Modules that choose users.
const CHOOSERS: [&str; 4] = ["pam_listfile", "pam_localuser", "pam_succeed_if", "pam_usertype"];
/// What modules return that refuse a new password.
const REFUSALS: [&str; 2] = ["authtok_err", "maxtries"];
/// Seconds in which failures are counted, at least: fewer are over between two that somebody types.
const INTERVAL_SECONDS: i64 = 60;

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
        let mut args = self.args.iter().rev().filter_map(|arg| arg.split_once('='));
        args.find(|(own, _)| self.is_name(own, name)).map(|(_, value)| value)
    }

    /// Returns whether the module takes `own` for `name`: libpwquality compares names without case.
    fn is_name(&self, own: &str, name: &str) -> bool {
        own == name || self.module == "pam_pwquality" && own.eq_ignore_ascii_case(name)
    }

    /// Returns what is done for each return value, `default` among them (pam.conf(5)).
    fn actions(&self) -> Vec<(&str, Action)> {
        let control = match self.control.as_str() {
            "required" => "success=ok new_authtok_reqd=ok ignore=ignore default=bad",
            "requisite" => "success=ok new_authtok_reqd=ok ignore=ignore default=die",
            "sufficient" => "success=done new_authtok_reqd=done default=ignore",
            "optional" => "success=ok new_authtok_reqd=ok default=ignore",
            other => other,
        };
        // Blanks may stand at a sign.
        let parts: Vec<&str> = control.split('=').map(str::trim).collect();
        let pairs = parts.windows(2).map(|pair| {
            let name = pair[0].split_whitespace().next_back().unwrap_or_default();
            (name, Action::parse(pair[1].split_whitespace().next().unwrap_or_default()))
        });
        pairs.collect()
    }

    fn action(&self, result: &str) -> Action {
        let actions = self.actions();
        let of = |name: &str| actions.iter().rev().find(|(own, _)| *own == name).map(|(_, action)| *action);
        of(result).or_else(|| of("default")).unwrap_or(Action::Other)
    }

    /// Returns whether the stack fails where the module returns `result`.
    fn fails(&self, result: &str) -> bool {
        matches!(self.action(result), Action::Bad | Action::Die)
    }

    fn is_foreign(&self) -> bool {
        DIRECTORIES.contains(&self.module.as_str()) || OTHERS.contains(&self.module.as_str())
    }

    fn undecidable(&self, why: &str) -> Unknown {
        Unknown::new(Cause::Undecidable, format!("{} [{}] {why}", self.module, self.control))
    }
}

/// What is done with what a module returns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Action {
    Ignore,
    Ok,
    Bad,
    Die,
    Done,
    /// Over that many lines.
    Jump(usize),
    /// `reset`, and what is none.
    Other,
}

impl Action {
    fn parse(word: &str) -> Self {
        match word {
            "ignore" => Self::Ignore,
            "ok" => Self::Ok,
            "bad" => Self::Bad,
            "die" => Self::Die,
            "done" => Self::Done,
            number => number.parse().map_or(Self::Other, Self::Jump),
        }
    }

    /// Returns whether it leaves out the line that comes `distance` later.
    fn passes(self, distance: usize) -> bool {
        self == Self::Done || self.jumps(distance)
    }

    fn jumps(self, distance: usize) -> bool {
        matches!(self, Self::Jump(lines) if lines >= distance)
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

/// Returns whether a local password gets to the line at `at`: none before ends the stack for it, or jumps over that line.
fn is_reached(lines: &[Line], at: usize) -> Result<bool, Unknown> {
    for (n, line) in lines[..at].iter().enumerate().filter(|(_, line)| !line.is_foreign()) {
        let passes = |action: Action| match line.module.as_str() {
            // Who gets in without a password is not asked for one.
            module if module != "pam_unix" && line.kind == "auth" => action.jumps(at - n),
            _ => action.passes(at - n),
        };
        if line.module == "pam_unix" && passes(line.action("success")) {
            return Ok(false);
        }
        if line.actions().iter().any(|(_, action)| passes(*action)) {
            return Err(line.undecidable(&format!("may leave out {}", lines[at].module)));
        }
    }
    match lines.iter().find(|line| line.actions().iter().any(|(_, action)| *action == Action::Other)) {
        Some(line) => Err(line.undecidable("has a control that this build does not follow")),
        None => Ok(true),
    }
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

/// Returns the settings of a module's file, each with its last value.
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

/// Reads `name = value`. As in the modules, a name ends at a blank or a sign, and the sign may be missing.
fn parse_settings(text: &str) -> Vec<(String, String)> {
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
fn setting<'a>(line: &'a Line, settings: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let of_file = || settings.iter().rev().find(|(own, _)| line.is_name(own, name)).map(|(_, value)| value.as_str());
    line.value(name).or_else(of_file)
}

/// Returns a number of a line or of its module's file, or the module's default.
fn number(line: &Line, settings: &[(String, String)], name: &str, default: i64) -> Result<i64, Unknown> {
    let Some(text) = setting(line, settings, name) else { return Ok(default) };
    text.parse().map_err(|_| Unknown::new(Cause::Garbled, format!("{} {name}={text}", line.module)))
}

/// Returns the characters that a new password must have at least: the most that any module asks for.
fn min_length(host: &dyn Host, lines: &[Line]) -> Result<u64, Unknown> {
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
            "pam_unix" => failure == Action::Die || failure.passes(counts - n),
            module if CHOOSERS.contains(&module) => line.actions().iter().any(|(_, action)| action.jumps(counts - n)),
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
        Ok(Self {
            attempts: positive(number(line, &settings, "deny", 3)?),
            seconds: if never { 0 } else { positive(number(line, &settings, "unlock_time", 600)?) },
            interval_seconds: number(line, &settings, "fail_interval", 900)?,
            folder: setting(line, &settings, "dir").unwrap_or("/var/run/faillock").to_owned(),
        })
    }
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

    /// A host that has one file alone.
    fn with(path: &str, text: &str) -> (tempfile::TempDir, host::Recorded) {
        let (folder, mut host) = bare();
        let file = folder.path().join("capture/files").join(&path[1..]);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        host.index_mut().errors.remove(&format!("read {path}"));
        (folder, host)
    }

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
            ("password requisite pam_passwdqc.so min=8,8,8,8,8", None),
            ("password requisite pam_pwquality.so minlen=x", None),
        ] {
            assert_eq!(min_length(&host, &lines(text)).ok(), expected, "{text}");
        }
    }

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
        for text in [
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
        for (text, expected) in [
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
