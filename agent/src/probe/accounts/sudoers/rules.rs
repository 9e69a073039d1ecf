//! User specifications of sudoers(5), and what they come to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use muster_proto::fact::{Cause, Unknown};

use super::{Kind, Rule, Sudoers, id, split};

/// Aliases that name each other, at most.
const DEPTH: usize = 16;
/// Items that the aliases of one rule come to, at most.
const ITEMS: usize = 10_000;
/// Grants that all rules come to, at most.
const GRANTS: usize = 20_000;
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

/// By what a runas list may mean the superuser. Letter case does not count: all names are in lower case.
#[derive(Clone, Debug)]
pub struct Superusers {
    /// Accounts of user id 0.
    pub names: BTreeSet<String>,
    /// Groups that one of these is a member of.
    pub groups: BTreeSet<String>,
    /// The same, by id.
    pub gids: BTreeSet<u32>,
    /// Groups that are as good as being one of these to whoever takes them on.
    pub powerful_groups: BTreeSet<String>,
    /// The same, by id.
    pub powerful_gids: BTreeSet<u32>,
}

impl Default for Superusers {
    fn default() -> Self {
        let root = BTreeSet::from(["root".to_owned()]);
        let gids = BTreeSet::from([0]);
        Self {
            names: root.clone(),
            groups: root.clone(),
            gids: gids.clone(),
            powerful_groups: root,
            powerful_gids: gids,
        }
    }
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
    let users: Arc<[String]> = take_list(&mut rest).into();
    if users.is_empty() || rest.trim().is_empty() {
        return Err("neither a rule nor a setting");
    }
    let mut start = line;
    let mut rules = Vec::new();
    loop {
        let hosts = take_list(&mut rest);
        if has_hex_escape(&start[..start.len() - rest.len()]) {
            return Err("an escape that this build does not read");
        }
        let commands = rest.trim_start().strip_prefix('=').ok_or("a rule without commands")?;
        let end = end_of_commands(commands);
        let (own, after) = commands.split_at(end);
        if hosts.is_empty() || own.trim().is_empty() {
            return Err("a rule without hosts or commands");
        }
        let (users, commands) = (users.clone(), own.trim().to_owned());
        rules.push(Rule { users, hosts, commands, at: at.to_owned() });
        match after.strip_prefix(':') {
            Some(after) => (start, rest) = (after, after),
            None => return Ok(rules),
        }
    }
}

/// Returns whether a text has a letter by its number, as `\x61`.
pub(super) fn has_hex_escape(text: &str) -> bool {
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' && bytes.next() == Some(b'x') && bytes.peek().is_some_and(u8::is_ascii_hexdigit) {
            return true;
        }
    }
    false
}

/// Takes a list of words with commas between them off the front of `rest`.
pub(super) fn take_list(rest: &mut &str) -> Vec<String> {
    let mut items = Vec::new();
    loop {
        *rest = rest.trim_start();
        let mut item = String::new();
        let (mut is_quoted, mut is_escaped, mut end) = (false, false, rest.len());
        // Whether the item has no letter of its own yet.
        let mut begins = true;
        for (at, c) in rest.char_indices() {
            if std::mem::take(&mut is_escaped) {
                item.push(c);
                begins &= c == '!';
                continue;
            }
            match c {
                '\\' => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                '!' if begins => item.push(c),
                c if c.is_whitespace() && begins => {}
                c if !is_quoted && (c.is_whitespace() || matches!(c, ',' | '=')) => {
                    end = at;
                    break;
                }
                c => {
                    item.push(c);
                    begins = false;
                }
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
    let (mut is_runas, mut is_escaped, mut is_quoted) = (false, false, false);
    let mut word = 0;
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut is_escaped) {
            continue;
        }
        match c {
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '(' if text[word..at].trim().is_empty() => is_runas = true,
            ')' if is_runas => {
                is_runas = false;
                word = at + 1;
            }
            ',' => word = at + 1,
            // A class of characters, as `[:alpha:]`, has colons of its own.
            ':' if text[..at].ends_with('[') || text[at + 1..].starts_with(']') => {}
            ':' if !is_runas && !is_quoted => {
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
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Powers {
    any: bool,
    all_commands: bool,
    no_password: bool,
    /// Who is meant where no password is asked.
    free_as: BTreeSet<Runas>,
    /// Who is meant by a plain `ALL`, which any command matches at any time.
    all_as: BTreeSet<Runas>,
    /// Why there may be more.
    doubt: Option<&'static str>,
}

/// Users and groups of a runas list, as written.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Runas {
    users: String,
    groups: String,
}

impl Runas {
    /// Returns what `users : groups` says.
    fn parse(text: &str) -> Self {
        let (users, groups) = text.split_once(':').unwrap_or((text, ""));
        Self { users: users.trim().to_owned(), groups: groups.trim().to_owned() }
    }

    /// Returns whether it means all whom another one means.
    fn covers(&self, other: &Self) -> bool {
        (self.users == "ALL" || self.users == other.users)
            && (self.groups == "ALL" || self.groups == other.groups || other.groups.is_empty())
    }
}

impl Powers {
    /// Returns whether sudo asks a password for all that an earlier rule gives without, since the last rule that matches decides.
    fn ask_instead_of(&self, earlier: &Self) -> bool {
        !self.no_password && earlier.free_as.iter().all(|free| self.all_as.iter().any(|all| all.covers(free)))
    }
}

/// Returns who may run what as the superuser on the host of that name, and doubts that came up.
pub fn grants(sudoers: &mut Sudoers, superusers: &Superusers, hostname: &str) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    let own_password = own_password(sudoers);
    // Of each rule that counts, and of each user the grants without a password with the powers that gave them.
    let mut given: Vec<Powers> = Vec::new();
    let mut free: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    for rule in std::mem::take(&mut sudoers.rules) {
        let Some(applies) = applies(sudoers, &rule, hostname) else {
            sudoers.unsound(&rule.at, "whether the rule is for this host");
            continue;
        };
        if applies == Applies::No {
            continue;
        }
        let powers = match powers(sudoers, superusers, &rule.commands) {
            Ok(powers) => powers,
            Err(why) => {
                sudoers.unsound(&rule.at, why);
                continue;
            }
        };
        if let Some(why) = powers.doubt {
            sudoers.unsound(&rule.at, why);
        }
        if !powers.any {
            continue;
        }
        let Some(users) = expand(sudoers, Kind::Users, &rule.users) else {
            sudoers.unsound(&rule.at, "aliases that have no end");
            continue;
        };
        if users.iter().any(|user| user.starts_with('!')) {
            sudoers.unsound(&rule.at, "a rule that leaves out some users");
        }
        let mut seen = BTreeSet::new();
        let mut users: Vec<String> =
            users.into_iter().filter(|user| !user.starts_with('!') && seen.insert(user.clone())).collect();
        // Where the password of the superuser is asked, the rule gives nothing that it does not give already.
        if sudoers.asks_other_password() && !powers.no_password {
            users = with_own_password(users, &own_password);
        }
        for who in users {
            if grants.len() == GRANTS {
                let limit = format!("{}: more than {GRANTS} users of all rules", rule.at);
                sudoers.doubt(Unknown::new(Cause::Limit, limit));
                return grants;
            }
            if applies == Applies::Surely
                && let Some(earlier) = free.get_mut(&who)
            {
                earlier.retain(|&(grant, by)| {
                    let is_over = given.get(by).is_some_and(|earlier| powers.ask_instead_of(earlier));
                    if let Some(grant) = grants.get_mut(grant).filter(|_| is_over) {
                        grant.no_password = false;
                    }
                    !is_over
                });
            }
            if powers.no_password {
                free.entry(who.clone()).or_default().push((grants.len(), given.len()));
            }
            let (all_commands, no_password) = (powers.all_commands, powers.no_password);
            grants.push(Grant { who, at: rule.at.clone(), all_commands, no_password });
        }
        given.push(powers);
    }
    grants
}

/// Returns the users who give their own password where others give the superuser's.
fn own_password(sudoers: &mut Sudoers) -> Vec<String> {
    let items = std::mem::take(&mut sudoers.own_password);
    let expanded = expand(sudoers, Kind::Users, &items);
    if expanded.as_ref().is_none_or(|users| users.iter().any(|user| user.starts_with('!'))) {
        sudoers.unsound("Defaults", "whose password is asked differs by case");
    }
    expanded.unwrap_or_default().into_iter().filter(|user| !user.starts_with('!')).collect()
}

/// Returns those of a rule's users who may give their own password: a name on either list may be a member of a group on the other.
fn with_own_password(users: Vec<String>, own: &[String]) -> Vec<String> {
    if own.is_empty() {
        return Vec::new();
    }
    let mut out: Vec<String> = users.iter().filter(|user| *user != "ALL").cloned().collect();
    if out.len() < users.len() {
        out.extend(own.iter().cloned());
    }
    out
}

/// Whether a rule is for this host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Applies {
    No,
    /// It names a host of the same name, maybe of another domain.
    Maybe,
    Surely,
}

/// Returns whether a rule is for the host of that name; `None` where an address, a netgroup or an exception would decide.
fn applies(sudoers: &Sudoers, rule: &Rule, hostname: &str) -> Option<Applies> {
    let hosts = expand(sudoers, Kind::Hosts, &rule.hosts)?;
    if hosts.iter().any(|host| host.starts_with('!')) {
        return None;
    }
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_short = |host: &str| !host.contains('.') && short(host) == short(hostname);
    if hosts.iter().any(|host| host == "ALL" || is_short(host)) {
        return Some(Applies::Surely);
    }
    if hosts.iter().any(|host| short(host) == short(hostname)) {
        return Some(Applies::Maybe);
    }
    let is_plain = |host: &String| {
        host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
            && host.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    hosts.iter().all(is_plain).then_some(Applies::No)
}

/// Returns the items that a list with aliases of a kind comes to. An exception of an alias is an exception of its items.
fn expand(sudoers: &Sudoers, kind: Kind, items: &[String]) -> Option<Vec<String>> {
    let aliases = sudoers.aliases.get(&kind);
    let mut open: Vec<(String, usize)> = items.iter().rev().map(|item| (item.clone(), 0)).collect();
    let mut out = Vec::new();
    while let Some((item, depth)) = open.pop() {
        let name = item.trim_start_matches('!').trim();
        let is_not = (item.len() - item.trim_start_matches('!').len()) % 2 == 1;
        match aliases.and_then(|aliases| aliases.get(name)) {
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

fn powers(sudoers: &Sudoers, superusers: &Superusers, commands: &str) -> Result<Powers, &'static str> {
    let mut powers = Powers::default();
    // All hold for the commands that follow, too.
    let (mut as_root, mut no_password, mut has_options) = (true, sudoers.skips_password, false);
    let mut meant = Runas::parse("root");
    for command in split_commands(commands) {
        let mut rest = command.trim();
        if let Some(inner) = rest.strip_prefix('(') {
            let (runas, after) = inner.split_once(')').ok_or("a runas list without an end")?;
            meant = Runas::parse(runas);
            as_root = runs_as_root(sudoers, superusers, runas)?;
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
                // Such as a time from which on the rule is none.
                has_options = true;
                let value = after_spaces[1..].trim_start();
                rest = value.split_once(char::is_whitespace).map_or("", |(_, after)| after.trim_start());
            } else {
                break;
            }
        }
        if rest.is_empty() {
            return Err("a rule without a command");
        }
        let items = expand(sudoers, Kind::Commands, &[rest.to_owned()]).ok_or("aliases that have no end")?;
        if items.iter().any(|item| item == "!ALL") {
            return Err("a rule that takes away what another gives");
        }
        if items.iter().any(|item| expression(item).is_some_and(|expression| !expression.is_whole)) {
            powers.doubt = Some("a regular expression that this build does not read");
        }
        let mut positive = items.iter().filter(|item| !item.starts_with('!')).peekable();
        if !as_root || positive.peek().is_none() {
            continue;
        }
        if positive.clone().any(|item| expression(item).is_some_and(|expression| expression.is_path)) {
            powers.doubt = Some("a command that a regular expression names");
        }
        let all = positive.any(|item| item == "ALL" || is_digest_of_all(item));
        powers.any = true;
        powers.all_commands |= all;
        powers.no_password |= no_password;
        if no_password {
            powers.free_as.insert(meant.clone());
        }
        if !has_options && items.iter().any(|item| item == "ALL") {
            powers.all_as.insert(meant.clone());
        }
    }
    Ok(powers)
}

/// Returns whether a command has a regular expression (sudoers(5), since release 1.9.10), and whether that is its path. One of arguments
/// allows a part of what the command does.
fn expression(item: &str) -> Option<Expression> {
    let mut before = item.trim_start_matches(['!', ' ']).split_whitespace();
    let has_command = |word: &str| word.starts_with('/') || word == "sudoedit";
    let (mut is_path, is_expression) = (true, |word: &str| word.starts_with(['^', '"']) && word.contains('^'));
    before.find(|word| {
        is_path &= !has_command(word);
        is_expression(word)
    })?;
    Some(Expression { is_path, is_whole: item.ends_with('$') })
}

/// A regular expression.
struct Expression {
    is_path: bool,
    /// Whether it ends with the command. Otherwise what ends a command may be part of it.
    is_whole: bool,
}

/// Returns the commands of a rule; a comma in a runas list is part of it.
fn split_commands(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for part in split(text, ',') {
        match out.last_mut().filter(|last| last.trim_start().starts_with('(') && !last.contains(')')) {
            Some(last) => {
                last.push(',');
                last.push_str(part);
            }
            None => out.push(part.to_owned()),
        }
    }
    out
}

/// Returns whether a runas list, such as `root`, `ALL : ALL` or `#0`, allows the superuser or one of its groups.
fn runs_as_root(sudoers: &Sudoers, superusers: &Superusers, runas: &str) -> Result<bool, &'static str> {
    // A group of a plug-in has a colon of its own.
    if has_hex_escape(runas) || runas.contains("%:") {
        return Err("a runas list that this build does not read");
    }
    let items = |text: &str| {
        let mut rest = text;
        let items = take_list(&mut rest);
        if !rest.is_empty() {
            return Err("a runas list that this build does not read");
        }
        expand(sudoers, Kind::Runas, &items).ok_or("aliases that have no end")
    };
    let Runas { users, groups } = Runas::parse(runas);
    let is_root = |item: &String| {
        if let Some(gid) = item.strip_prefix("%#") {
            return id(gid).is_some_and(|gid| superusers.gids.contains(&gid));
        }
        if let Some(uid) = item.strip_prefix('#') {
            return id(uid) == Some(0);
        }
        match item.strip_prefix('%') {
            Some(group) => superusers.groups.contains(&group.to_lowercase()),
            // A netgroup may have the superuser.
            None => item == "ALL" || item.starts_with('+') || superusers.names.contains(&item.to_lowercase()),
        }
    };
    let is_group_of_root = |item: &String| match item.strip_prefix('#') {
        Some(gid) => id(gid).is_some_and(|gid| superusers.powerful_gids.contains(&gid)),
        None => item == "ALL" || superusers.powerful_groups.contains(&item.to_lowercase()),
    };
    // An empty list is the caller alone; who may take on a group may be given the power of its files.
    Ok(items(&users)?.iter().any(is_root) || items(&groups)?.iter().any(is_group_of_root))
}
