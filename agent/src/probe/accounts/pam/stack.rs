//! The stacks of pam.d(5): the lines of a service, and which of them a local password gets to.

use std::path::Path;

use muster_proto::fact::{Cause, Unknown};

use crate::host::{self, Host, SMALL_FILE_BYTES};

/// Folders of service files, the first that has a service deciding (pam.d(5)).
const FOLDERS: [&str; 3] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"];
/// How deep files include each other, at most.
const DEPTH: usize = 16;
/// Lines of one stack, at most.
const LINES: usize = 1_000;
/// Modules that ask a directory.
pub(super) const DIRECTORIES: [&str; 6] =
    ["pam_himmelblau", "pam_krb5", "pam_ldap", "pam_ldapd", "pam_sss", "pam_winbind"];
/// Others that know nothing of a local password: `pam_selinux_permit` lets in who needs none.
const OTHERS: [&str; 2] = ["pam_selinux_permit", "pam_systemd_home"];

/// Modules that let in by something else than a local password: a key, a device, a certificate, another server or its cache.
pub(super) const PROOFS: [&str; 30] = [
    "pam_aad",
    "pam_authd",
    "pam_authd_exec",
    "pam_ccreds",
    "pam_centrifydc",
    "pam_cockpit_cert",
    "pam_duo",
    "pam_fprintd",
    "pam_google_authenticator",
    "pam_kanidm",
    "pam_lsass",
    "pam_mysql",
    "pam_oath",
    "pam_oslogin_login",
    "pam_p11",
    "pam_pgsql",
    "pam_pkcs11",
    "pam_poldi",
    "pam_radius",
    "pam_radius_auth",
    "pam_ssh",
    "pam_ssh_agent_auth",
    "pam_sss_gss",
    "pam_systemd_home",
    "pam_tacplus",
    "pam_u2f",
    "pam_unix2",
    "pam_userdb",
    "pam_vas3",
    "pam_yubico",
];
/// Modules that let in who needs no password.
const WAIVERS: [&str; 6] =
    ["pam_listfile", "pam_rhosts", "pam_rootok", "pam_selinux_permit", "pam_succeed_if", "pam_wheel"];
/// Names that pam_unix has, too.
const UNIX: [&str; 4] = ["pam_unix_acct", "pam_unix_auth", "pam_unix_passwd", "pam_unix_session"];

/// A line of a stack.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Line {
    pub(super) kind: String,
    pub(super) control: String,
    /// File name without its end; empty where a substack begins, which counts as a line of its own.
    pub(super) module: String,
    pub(super) args: Vec<String>,
    /// How many substacks it is in.
    pub(super) level: usize,
}

impl Line {
    pub(super) fn has(&self, arg: &str) -> bool {
        self.args.iter().any(|own| own == arg)
    }

    /// Returns the value of `name=value`; of several the last.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let mut args = self.args.iter().rev().filter_map(|arg| arg.split_once('='));
        args.find(|(own, _)| self.is_name(own, name)).map(|(_, value)| value)
    }

    /// Returns whether the module takes `own` for `name`: libpwquality compares names without case.
    pub(super) fn is_name(&self, own: &str, name: &str) -> bool {
        own == name || self.module == "pam_pwquality" && own.eq_ignore_ascii_case(name)
    }

    /// Returns what is done for each return value, `default` among them (pam.conf(5)).
    pub(super) fn actions(&self) -> Vec<(&str, Action)> {
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

    pub(super) fn action(&self, result: &str) -> Action {
        let actions = self.actions();
        let of = |name: &str| actions.iter().rev().find(|(own, _)| *own == name).map(|(_, action)| *action);
        of(result).or_else(|| of("default")).unwrap_or(Action::Other)
    }

    /// Returns whether the stack fails where the module returns `result`.
    pub(super) fn fails(&self, result: &str) -> bool {
        matches!(self.action(result), Action::Bad | Action::Die)
    }

    fn is_foreign(&self) -> bool {
        DIRECTORIES.contains(&self.module.as_str()) || OTHERS.contains(&self.module.as_str())
    }

    pub(super) fn undecidable(&self, why: &str) -> Unknown {
        Unknown::new(Cause::Undecidable, format!("{} [{}] {why}", self.module, self.control))
    }
}

/// What is done with what a module returns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Action {
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
}

/// Returns which of `lines` is next where the one at `at` jumps over so many. A substack counts as one, and a jump does not leave it.
pub(super) fn behind_jump(lines: &[Line], at: usize, count: usize) -> usize {
    let level = lines[at].level;
    let mut next = at + 1;
    for _ in 0..count {
        if lines.get(next).is_none_or(|line| line.level < level) {
            break;
        }
        next += 1;
        while lines.get(next).is_some_and(|line| line.level > level) {
            next += 1;
        }
    }
    next
}

/// Returns which of `lines` is next where the one at `at` ends its stack, which may be one of another.
pub(super) fn behind_stack(lines: &[Line], at: usize) -> usize {
    let is_behind = |line: &Line| line.level < lines[at].level;
    lines[at..].iter().position(is_behind).map_or(lines.len(), |distance| at + distance)
}

/// Returns whether an action of the line at `from`, other than a failure, leaves out the one at `to`.
pub(super) fn leaves_out(lines: &[Line], from: usize, action: Action, to: usize) -> bool {
    match action {
        Action::Done => behind_stack(lines, from) > to,
        Action::Jump(count) => behind_jump(lines, from, count) > to,
        Action::Ignore | Action::Ok | Action::Bad | Action::Die | Action::Other => false,
    }
}

/// Returns the lines of `kind` of a service, its includes in their place. A service without a file is `other`, and one
/// without lines of a kind has its lines.
pub(super) fn stack(host: &dyn Host, service: &str, kind: &str) -> Result<Vec<Line>, Unknown> {
    let mut lines = Vec::new();
    if has_service(host, service)? {
        add(host, service, kind, Depth::default(), &mut lines)?;
    } else {
        add(host, "other", kind, Depth::default(), &mut lines)?;
        return Ok(lines);
    }
    // libpam takes those of `other` for each kind that a service has none of.
    if lines.is_empty() && has_service(host, "other")? {
        add(host, "other", kind, Depth::default(), &mut lines)?;
    }
    Ok(lines)
}

pub(super) fn has_service(host: &dyn Host, service: &str) -> Result<bool, Unknown> {
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

/// How deep a file is included: at all, and in substacks.
#[derive(Clone, Copy, Default)]
struct Depth {
    files: usize,
    level: usize,
}

impl Depth {
    fn below(self, substacks: usize) -> Self {
        Self { files: self.files + 1, level: self.level + substacks }
    }
}

fn add(host: &dyn Host, service: &str, kind: &str, depth: Depth, lines: &mut Vec<Line>) -> Result<(), Unknown> {
    if depth.files > DEPTH {
        return Err(Unknown::new(Cause::Limit, format!("pam.d/{service} is included too deep")));
    }
    let text = read_service(host, service)?;
    for line in logical_lines(&text) {
        let Some(item) = parse_line(&line).filter(|_| !line.contains(char::REPLACEMENT_CHARACTER)) else {
            return Err(Unknown::new(Cause::Garbled, format!("pam.d/{service}: {line}")));
        };
        match item {
            Item::Nothing => {}
            Item::Include(name) => add(host, &name, kind, depth.below(0), lines)?,
            Item::Line(line) if line.kind != kind => {}
            Item::Line(line) if line.control == "include" => add(host, &line.module, kind, depth.below(0), lines)?,
            Item::Line(line) if line.control == "substack" => {
                let control = "default=ignore".to_owned();
                lines.push(Line { control, module: String::new(), level: depth.level, ..line.clone() });
                add(host, &line.module, kind, depth.below(1), lines)?;
            }
            Item::Line(line) => lines.push(Line { level: depth.level, ..line }),
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

pub(super) enum Item {
    Nothing,
    /// The whole file of another service.
    Include(String),
    Line(Line),
}

pub(super) fn logical_lines(text: &str) -> Vec<String> {
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
pub(super) fn parse_line(line: &str) -> Option<Item> {
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
    let module = module.strip_suffix(".so").unwrap_or(module);
    let module = if UNIX.contains(&module) { "pam_unix" } else { module }.to_owned();
    let mut args = Vec::new();
    while let Some(arg) = take_word(&mut rest) {
        args.push(arg);
    }
    Some(Item::Line(Line { kind, control, module, args, level: 0 }))
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

/// Returns whether the line at `at` is run unless the stack fails.
pub(super) fn is_always_run(lines: &[Line], at: usize) -> bool {
    lines[..at].iter().enumerate().all(|(n, line)| {
        line.actions().iter().all(|(_, action)| *action != Action::Other && !leaves_out(lines, n, *action, at))
    })
}

/// Returns whether a local password gets to the line at `at`: none before ends the stack for it, or jumps over that line.
pub(super) fn is_reached(lines: &[Line], at: usize) -> Result<bool, Unknown> {
    for (n, line) in lines[..at].iter().enumerate().filter(|(_, line)| !line.is_foreign()) {
        let passes = |action: Action| leaves_out(lines, n, action, at);
        let module = line.module.as_str();
        if matches!(module, "pam_unix" | "pam_permit") && passes(line.action("success")) {
            return Ok(false);
        }
        // Who gets in without a password is not asked for one.
        let is_harmless = |action: Action| {
            let is_other = PROOFS.contains(&module) || WAIVERS.contains(&module);
            action == Action::Done && is_other && line.kind == "auth"
        };
        if line.actions().iter().any(|(_, action)| passes(*action) && !is_harmless(*action)) {
            return Err(line.undecidable(&format!("may leave out {}", lines[at].module)));
        }
    }
    match lines.iter().find(|line| line.actions().iter().any(|(_, action)| *action == Action::Other)) {
        Some(line) => Err(line.undecidable("has a control that this build does not follow")),
        None => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::made::{lines, services},
        *,
    };

    #[test]
    fn a_line_may_be_continued_and_have_brackets() {
        let text = "-auth [success=2 \\\n default=ignore] /lib/security/pam_sss.so a [b c] # d\n\n";
        let expected = Line {
            kind: "auth".to_owned(),
            control: "success=2   default=ignore".to_owned(),
            module: "pam_sss".to_owned(),
            args: vec!["a".to_owned(), "b c".to_owned()],
            level: 0,
        };
        assert_eq!(lines(text), [expected]);
        assert!(parse_line("auth").is_none() && parse_line("what is this").is_none());
    }

    #[test]
    fn a_service_without_lines_of_a_kind_has_those_of_other() {
        let session = ("login", "session required pam_env.so\n");
        let (_folder, host) = services(&[session, ("other", "auth required pam_unix.so\n")]);
        assert_eq!(stack(&host, "login", "auth").unwrap(), lines("auth required pam_unix.so"));
        assert_eq!(stack(&host, "login", "session").unwrap(), lines("session required pam_env.so"));
    }

    #[test]
    fn a_line_that_surely_lets_in_before_leaves_out_and_one_that_may_is_told() {
        let counts = "auth required pam_faillock.so authfail";
        for (text, expected) in [
            ("auth sufficient pam_unix_auth.so", Some(false)),
            ("auth sufficient pam_permit.so", Some(false)),
            ("auth sufficient pam_own.so", None),
            ("auth sufficient pam_localuser.so", None),
            ("auth sufficient pam_fprintd.so", Some(true)),
            ("auth sufficient pam_succeed_if.so user ingroup nopasswdlogin", Some(true)),
            ("auth [success=1 default=ignore] pam_fprintd.so", None),
            ("auth required pam_own.so", Some(true)),
        ] {
            assert_eq!(is_reached(&lines(&format!("{text}\n{counts}")), 1).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_substack_counts_as_one_line_and_ends_itself_alone() {
        let levels = [0, 0, 1, 1, 2, 1, 0, 0];
        let lines: Vec<Line> =
            levels.map(|level| Line { level, ..lines("auth required pam_env.so").remove(0) }).into_iter().collect();
        for (at, count, expected) in
            [(0, 0, 1), (0, 1, 6), (0, 2, 7), (0, 9, 8), (2, 1, 5), (2, 2, 6), (2, 3, 6), (4, 1, 5), (6, usize::MAX, 8)]
        {
            assert_eq!(behind_jump(&lines, at, count), expected, "{at} {count}");
        }
        let ends: Vec<usize> = (0..lines.len()).map(|at| behind_stack(&lines, at)).collect();
        assert_eq!(ends, [8, 8, 6, 6, 5, 6, 8, 8]);
    }

    #[test]
    fn a_substack_is_read_with_its_depth_and_an_include_without() {
        let (_folder, host) = services(&[
            ("sshd", "auth substack system-auth\nauth include postlogin\nsession required pam_env.so\n"),
            ("system-auth", "auth sufficient pam_unix.so\nauth required pam_deny.so\n"),
            ("postlogin", "auth optional pam_permit.so\n"),
        ]);
        let lines = stack(&host, "sshd", "auth").unwrap();
        let found: Vec<_> = lines.iter().map(|line| (line.module.as_str(), line.level)).collect();
        assert_eq!(found, [("", 0), ("pam_unix", 1), ("pam_deny", 1), ("pam_permit", 0)]);
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in "[a-z \\[\\]=@#.\\\\\n-]{0,200}", any in "\\PC*") {
            for text in [text, any] {
                for line in logical_lines(&text) {
                    parse_line(&line);
                }
            }
        }
    }
}
