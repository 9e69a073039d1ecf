//! User specifications of sudoers(5), and what they come to.

use super::{Rule, Sudoers, split};

/// Aliases that name each other, at most.
const DEPTH: usize = 16;
/// Items that the aliases of one rule come to, at most.
const ITEMS: usize = 10_000;
/// Tags (sudoers(5), "Tag_Spec").
const TAGS: [&str; 18] = [
    "EXEC",
    "NOEXEC",
    "FOLLOW",
    "NOFOLLOW",
    "INTERCEPT",
    "NOINTERCEPT",
    "LOG_INPUT",
    "NOLOG_INPUT",
    "LOG_OUTPUT",
    "NOLOG_OUTPUT",
    "MAIL",
    "NOMAIL",
    "NOPASSWD",
    "PASSWD",
    "SETENV",
    "NOSETENV",
    "CLOSEFROM",
    "NOCLOSEFROM",
];
/// Options (sudoers(5), "Option_Spec").
const OPTIONS: [&str; 10] =
    ["ROLE", "TYPE", "APPARMOR_PROFILE", "PRIVS", "LIMITPRIVS", "NOTBEFORE", "NOTAFTER", "TIMEOUT", "CWD", "CHROOT"];

/// That somebody may run commands as the superuser.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// As written: an account, `%group`, `#uid`, `+netgroup` or `ALL`.
    pub who: String,
    /// File and line.
    pub at: String,
    pub all_commands: bool,
    pub no_password: bool,
}

/// Returns whether a word is the name of an alias rather than of a user, host or command.
pub(super) fn is_alias(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        && word != "ALL"
}

/// Returns the rules of a line, one for each list of hosts.
pub(super) fn parse(line: &str, at: &str) -> Result<Vec<Rule>, &'static str> {
    let mut rest = line;
    let users = take_list(&mut rest);
    if users.is_empty() || rest.trim().is_empty() {
        return Err("neither a rule nor a setting");
    }
    let mut rules = Vec::new();
    loop {
        let hosts = take_list(&mut rest);
        let commands = rest.trim_start().strip_prefix('=').ok_or("a rule without commands")?;
        let end = end_of_commands(commands);
        let (own, after) = commands.split_at(end);
        if hosts.is_empty() || own.trim().is_empty() {
            return Err("a rule without hosts or commands");
        }
        let (users, commands) = (users.clone(), own.trim().to_owned());
        rules.push(Rule { users, hosts, commands, at: at.to_owned() });
        match after.strip_prefix(':') {
            Some(after) => rest = after,
            None => return Ok(rules),
        }
    }
}

/// Takes a list of words with commas between them off the front of `rest`.
fn take_list(rest: &mut &str) -> Vec<String> {
    let mut items = Vec::new();
    loop {
        *rest = rest.trim_start();
        let mut item = String::new();
        let (mut is_quoted, mut is_escaped, mut end) = (false, false, rest.len());
        for (at, c) in rest.char_indices() {
            if std::mem::take(&mut is_escaped) {
                item.push(c);
                continue;
            }
            match c {
                '\\' => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                '!' if item.is_empty() || item.bytes().all(|byte| byte == b'!') => item.push(c),
                c if c.is_whitespace() && item.bytes().all(|byte| byte == b'!') => {}
                c if !is_quoted && (c.is_whitespace() || matches!(c, ',' | '=')) => {
                    end = at;
                    break;
                }
                c => item.push(c),
            }
        }
        *rest = rest[end..].trim_start();
        if !item.is_empty() {
            items.push(item);
        }
        match rest.strip_prefix(',') {
            Some(after) => *rest = after,
            None => return items,
        }
    }
}

/// Returns where the commands of a rule end: at a colon that belongs neither to a tag, a digest nor a runas list.
fn end_of_commands(text: &str) -> usize {
    let (mut depth, mut is_escaped, mut is_quoted) = (0_u32, false, false);
    let mut word = 0;
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut is_escaped) {
            continue;
        }
        match c {
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                word = at + 1;
            }
            ',' => word = at + 1,
            ':' if depth == 0 && !is_quoted => {
                let before = text[word..at].trim();
                let last = before.rsplit(char::is_whitespace).next().unwrap_or_default();
                if !TAGS.contains(&last) && !is_digest(last) {
                    return at;
                }
                word = at + 1;
            }
            _ => {}
        }
    }
    text.len()
}

fn is_digest(word: &str) -> bool {
    matches!(word.trim_start_matches('!'), "sha224" | "sha256" | "sha384" | "sha512")
}

/// Returns whether a command is `ALL` behind a digest.
fn is_digest_of_all(item: &str) -> bool {
    let mut words = item.split_whitespace();
    words.next().is_some_and(|word| word.starts_with("sha")) && words.next_back() == Some("ALL")
}

/// What the commands of a rule let somebody do as the superuser.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Powers {
    any: bool,
    all_commands: bool,
    no_password: bool,
}

/// Returns who may run what as the superuser on the host of that name, and doubts that came up.
pub fn grants(sudoers: &mut Sudoers, hostname: &str) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    for rule in std::mem::take(&mut sudoers.rules) {
        let Some(applies) = applies(sudoers, &rule, hostname) else {
            sudoers.unsound(&rule.at, "whether the rule is for this host");
            continue;
        };
        if !applies {
            continue;
        }
        let powers = match powers(sudoers, &rule.commands) {
            Ok(powers) => powers,
            Err(why) => {
                sudoers.unsound(&rule.at, why);
                continue;
            }
        };
        let Some(users) = expand(sudoers, &rule.users) else {
            sudoers.unsound(&rule.at, "aliases that have no end");
            continue;
        };
        if users.iter().any(|user| user.starts_with('!')) {
            sudoers.unsound(&rule.at, "a rule that leaves out some users");
        }
        // Where the password of the superuser is asked, the rule gives nothing that it does not give already.
        if !powers.any || sudoers.asks_other_password && !powers.no_password {
            continue;
        }
        for who in users.into_iter().filter(|user| !user.starts_with('!')) {
            // The last rule that matches decides.
            if powers.all_commands && !powers.no_password {
                grants.iter_mut().filter(|grant| grant.who == who).for_each(|grant| grant.no_password = false);
            }
            let (all_commands, no_password) = (powers.all_commands, powers.no_password);
            grants.push(Grant { who, at: rule.at.clone(), all_commands, no_password });
        }
    }
    grants
}

/// Returns whether a rule is for the host of that name; `None` where an address, a netgroup or an exception would decide.
fn applies(sudoers: &Sudoers, rule: &Rule, hostname: &str) -> Option<bool> {
    let hosts = expand(sudoers, &rule.hosts)?;
    if hosts.iter().any(|host| host.starts_with('!')) {
        return None;
    }
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    if hosts.iter().any(|host| host == "ALL" || short(host) == short(hostname)) {
        return Some(true);
    }
    let is_plain = |host: &String| {
        host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
            && host.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    hosts.iter().all(is_plain).then_some(false)
}

/// Returns the items that a list with aliases comes to. An exception of an alias is an exception of its items.
fn expand(sudoers: &Sudoers, items: &[String]) -> Option<Vec<String>> {
    let mut open: Vec<(String, usize)> = items.iter().rev().map(|item| (item.clone(), 0)).collect();
    let mut out = Vec::new();
    while let Some((item, depth)) = open.pop() {
        let name = item.trim_start_matches('!').trim();
        let is_not = (item.len() - item.trim_start_matches('!').len()) % 2 == 1;
        match sudoers.aliases.get(name).filter(|_| is_alias(name)) {
            Some(_) if depth == DEPTH || open.len() > ITEMS => return None,
            Some(inner) => open.extend(inner.iter().rev().map(|inner| {
                let text = if is_not { format!("!{inner}") } else { inner.clone() };
                (text, depth + 1)
            })),
            None => out.push(if is_not { format!("!{name}") } else { name.to_owned() }),
        }
        if out.len() > ITEMS {
            return None;
        }
    }
    Some(out)
}

fn powers(sudoers: &Sudoers, commands: &str) -> Result<Powers, &'static str> {
    let mut powers = Powers::default();
    // Both hold for the commands that follow, too.
    let (mut as_root, mut no_password) = (true, sudoers.skips_password);
    for command in split_commands(commands) {
        let mut rest = command.trim();
        if let Some(inner) = rest.strip_prefix('(') {
            let (runas, after) = inner.split_once(')').ok_or("a runas list without an end")?;
            as_root = runs_as_root(sudoers, runas).ok_or("aliases that have no end")?;
            rest = after.trim_start();
        }
        loop {
            let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let after_spaces = after.trim_start();
            if TAGS.contains(&word) && after_spaces.starts_with(':') {
                match word {
                    "NOPASSWD" => no_password = true,
                    "PASSWD" => no_password = false,
                    _ => {}
                }
                rest = after_spaces[1..].trim_start();
            } else if OPTIONS.contains(&word) && after_spaces.starts_with('=') {
                let value = after_spaces[1..].trim_start();
                rest = value.split_once(char::is_whitespace).map_or("", |(_, after)| after.trim_start());
            } else {
                break;
            }
        }
        if rest.is_empty() {
            return Err("a rule without a command");
        }
        if rest.contains('^') {
            return Err("a command that a regular expression names");
        }
        let items = expand(sudoers, &[rest.to_owned()]).ok_or("aliases that have no end")?;
        if items.iter().any(|item| item == "!ALL") {
            return Err("a rule that takes away what another gives");
        }
        let mut positive = items.iter().filter(|item| !item.starts_with('!')).peekable();
        if !as_root || positive.peek().is_none() {
            continue;
        }
        let all = positive.any(|item| item == "ALL" || is_digest_of_all(item));
        powers.any = true;
        powers.all_commands |= all;
        powers.no_password |= no_password;
    }
    Ok(powers)
}

/// Returns the commands of a rule; a comma in a runas list is part of it.
fn split_commands(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut open = 0_i32;
    for part in split(text, ',') {
        match out.last_mut().filter(|_| open > 0) {
            Some(last) => {
                last.push(',');
                last.push_str(part);
            }
            None => out.push(part.to_owned()),
        }
        open += i32::try_from(part.matches('(').count()).unwrap_or(i32::MAX / 2);
        open -= i32::try_from(part.matches(')').count()).unwrap_or(i32::MAX / 2);
        open = open.max(0);
    }
    out
}

/// Returns whether a runas list, such as `root`, `ALL : ALL` or `#0`, allows the superuser or one of its groups.
fn runs_as_root(sudoers: &Sudoers, runas: &str) -> Option<bool> {
    let (users, groups) = runas.split_once(':').map_or((runas, ""), |(users, groups)| (users, groups));
    let items = |text: &str| {
        split(text, ',').iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    };
    let (users, groups): (Vec<String>, Vec<String>) = (items(users), items(groups));
    let is_root = |item: &String| matches!(item.as_str(), "root" | "ALL" | "#0" | "%root" | "%#0");
    // An empty list is the caller alone; who may take on a group may be given the power of its files.
    Some(expand(sudoers, &users)?.iter().any(is_root) || expand(sudoers, &groups)?.iter().any(is_root))
}
