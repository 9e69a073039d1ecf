//! What unattended-upgrades is set to take: from which origins, and which packages not.
//!
//! Its settings are expressions of Python's. What cannot be told of one is unknown and not assumed.

use muster_proto::fact::{Cause, Reading, Unknown};
use regex_automata::{Anchored, Input, meta::Regex, nfa::thompson::WhichCaptures, util::syntax};

use super::{
    super::{
        dpkg::Installed,
        lists::{Distribution, Offers, Published},
        sources::truth,
    },
    value,
};

const LEGACY: &str = "Unattended-Upgrade::Allowed-Origins";
const PATTERNS: &str = "Unattended-Upgrade::Origins-Pattern";
const EXCLUDED: &str = "Unattended-Upgrade::Package-Blacklist";
const DAYS: &str = "Unattended-Upgrade::Update-Days";
const INCLUDED: &str = "Unattended-Upgrade::Package-Whitelist";

/// Expressions of excluded packages that are taken, at most.
const EXPRESSIONS: usize = 1_000;
/// Bytes that their states may take, and what is remembered of their matching.
const STATE_BYTES: usize = 8 << 20;
const CACHE_BYTES: usize = 512 << 10;

/// Conditions on a repository that must all hold: what is looked at, and the expression that it must match.
type Pattern = Vec<(Key, String)>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Key {
    Origin,
    Label,
    Suite,
    Codename,
    Component,
    Site,
}

/// Returns whether it takes updates from a repository with the host's security updates.
pub(super) fn takes_security(config: &str, offers: &Offers, distribution: &Distribution) -> Reading<bool> {
    let patterns = match patterns(config) {
        Ok(patterns) if patterns.is_empty() => return Reading::Known(false),
        Ok(patterns) => patterns,
        Err(what) => return Reading::unknown(Cause::Unsupported, what),
    };
    let security: Vec<&Published> = offers.published.iter().filter(|it| it.is_security).collect();
    if security.is_empty() {
        let none = || Unknown::new(Cause::Absent, "no security repository is in use that updates could be taken from");
        let unknown = offers.releases_unknown.clone().or_else(|| offers.security_unknown.clone());
        return Reading::Unknown { unknown: unknown.unwrap_or_else(none) };
    }
    let mut untold = None;
    for pattern in &patterns {
        for published in &security {
            match matches(pattern, published, distribution) {
                Ok(true) => return Reading::Known(true),
                Ok(false) => {}
                Err(what) => untold = Some(what),
            }
        }
    }
    untold.map_or(Reading::Known(false), |what| Reading::unknown(Cause::Unsupported, what))
}

/// Returns whether its run installs what it takes: not where that waits for the host to be switched off, or where what stands in for
/// dpkg, or for its run, installs nothing.
pub(super) fn installs(config: &str) -> Reading<bool> {
    const SWITCHES: [&str; 2] = ["Unattended-Upgrade::InstallOnShutdown", "Debug::pkgDPkgPM"];
    const PROGRAM: &str = "Dir::Bin::dpkg";
    let is_on = |key: &&str| value(config, key).is_some_and(|word| truth(word) != Some(false) && !word.is_empty());
    let is_other = |program: &str| !matches!(program, "" | "dpkg" | "/bin/dpkg" | "/usr/bin/dpkg");
    let set = SWITCHES.iter().find(|key| is_on(key)).copied();
    let set = set.or_else(|| value(config, PROGRAM).filter(|it| is_other(it)).map(|_| PROGRAM));
    match set {
        Some(key) => Reading::unknown(Cause::Unsupported, format!("{key} is set")),
        None => Reading::Known(true),
    }
}

/// Returns whether there is a day on which it runs: of those that it is set to, it takes numbers and names in the language of the
/// system.
pub(super) fn runs_on_days(config: &str) -> Reading<bool> {
    const NAMES: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    let is_day = |day: &str| {
        NAMES.iter().any(|name| day == *name || day == &name[..3]) || matches!(day.as_bytes(), [b'0'..=b'6'])
    };
    let mut days = values(config, DAYS).peekable();
    match days.peek().copied() {
        Some(first) if !days.any(is_day) => {
            Reading::unknown(Cause::Unsupported, format!("{DAYS} names no day that is known: {first}"))
        }
        _ => Reading::Known(true),
    }
}

/// Returns whether it leaves a package that it may update.
pub(super) fn leaves_packages(config: &str, installed: &Installed) -> Reading<bool> {
    let unsupported = |what: String| Reading::unknown(Cause::Unsupported, what);
    if values(config, INCLUDED).next().is_some() {
        return unsupported(format!("{INCLUDED} is set, and what it leaves out is not told"));
    }
    let expressions: Vec<String> =
        values(config, EXCLUDED).take(EXPRESSIONS + 1).map(|text| format!("(?:{text})")).collect();
    if expressions.is_empty() {
        return Reading::Known(true);
    }
    if expressions.len() > EXPRESSIONS {
        return Reading::unknown(Cause::Limit, format!("{EXCLUDED} has more than {EXPRESSIONS} expressions"));
    }
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    let config = Regex::config()
        .utf8_empty(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(STATE_BYTES))
        .hybrid_cache_capacity(CACHE_BYTES);
    let Ok(regex) = Regex::builder().syntax(syntax).configure(config).build_many(&expressions) else {
        return unsupported(format!("{EXCLUDED} has an expression that cannot be read"));
    };
    // As Python's `re.match`: from the start of the name, to anywhere in it.
    let is_excluded = |name: &String| regex.is_match(Input::new(name).anchored(Anchored::Yes));
    Reading::Known(!installed.packages.keys().all(is_excluded))
}

/// Returns the values in the list `key` of `apt-config dump`.
fn values<'c>(config: &'c str, key: &'static str) -> impl Iterator<Item = &'c str> {
    config.lines().filter_map(move |line| {
        let (name, value) = line.split_once(' ')?;
        let is_it = name.get(..key.len()).is_some_and(|start| start.eq_ignore_ascii_case(key));
        let own = name.get(key.len()..)?.strip_prefix("::")?;
        (is_it && !own.contains("::")).then(|| value.strip_suffix("\";")?.strip_prefix('"')).flatten()
    })
}

/// Returns what it may take from. One pattern that it does not understand ends its run.
fn patterns(config: &str) -> Result<Vec<Pattern>, String> {
    let legacy = values(config, LEGACY).map(|value| legacy(value).ok_or(value));
    let patterns = values(config, PATTERNS).filter(|value| !value.trim().is_empty());
    let patterns = patterns.map(|value| pattern(value).ok_or(value));
    legacy
        .chain(patterns)
        .collect::<Result<_, _>>()
        .map_err(|value| format!("unattended-upgrades cannot read \"{value}\""))
}

/// Reads `origin:suite`, or `origin suite`.
fn legacy(value: &str) -> Option<Pattern> {
    const ESCAPED: &str = "\u{0}";
    let value = value.replace("\\:", ESCAPED);
    let (origin, suite) = match value.split_once(':') {
        Some((origin, suite)) if !suite.contains(':') => (origin, suite),
        Some(_) => return None,
        None => {
            let mut words = value.split_whitespace();
            let both = (words.next()?, words.next()?);
            words.next().is_none().then_some(both)?
        }
    };
    Some(vec![(Key::Origin, origin.replace(ESCAPED, ":")), (Key::Suite, suite.replace(ESCAPED, "\\:"))])
}

/// Reads `origin=Debian,label=Debian-Security`.
fn pattern(value: &str) -> Option<Pattern> {
    let conditions = value.trim().replace("\\,", "%2C");
    let conditions = conditions.split(',').map(|condition| {
        let (key, value) = condition.split_once('=')?;
        let key = match key.trim() {
            "o" | "origin" => Key::Origin,
            "l" | "label" => Key::Label,
            "a" | "suite" | "archive" => Key::Suite,
            "n" | "codename" => Key::Codename,
            "c" | "component" => Key::Component,
            "site" => Key::Site,
            _ => return None,
        };
        (!value.contains('=')).then(|| (key, value.trim().replace("%2C", ",")))
    });
    conditions.collect()
}

/// Returns whether a repository is what `pattern` names.
fn matches(pattern: &Pattern, published: &Published, distribution: &Distribution) -> Result<bool, String> {
    let mut untold = None;
    for (key, expression) in pattern {
        let found = substituted(expression, published, distribution).and_then(|expression| {
            let is = |value: &str| is_like(value, &expression);
            match key {
                Key::Origin => is(&published.origin),
                Key::Label => is(&published.label),
                Key::Suite => is(&published.suite),
                Key::Codename => is(&published.codename),
                Key::Component => {
                    let all: Result<Vec<bool>, String> = published.components.iter().map(|it| is(it)).collect();
                    all.map(|all| all.contains(&true))
                }
                Key::Site => match published.file.split('_').next() {
                    Some(site) if !site.is_empty() && !site.contains([':', '%']) => is(site),
                    _ => Err(format!("the site of {} is not told", published.file)),
                },
            }
        });
        match found {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(what) => untold = Some(what),
        }
    }
    untold.map_or(Ok(true), Err)
}

/// Returns an expression with the names of the distribution that `lsb_release` gives. They are those of its own repository.
fn substituted(expression: &str, published: &Published, distribution: &Distribution) -> Result<String, String> {
    let untold = || format!("what \"{expression}\" of unattended-upgrades stands for here is not told");
    let mut result = String::new();
    let mut rest = expression;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match after.strip_prefix('{') {
            Some(after) => after.split_once('}').ok_or_else(untold)?,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                after.split_at(end.unwrap_or(after.len()))
            }
        };
        let value = match name {
            "distro_id" => &published.origin,
            "distro_codename" => &published.release,
            _ => return Err(untold()),
        };
        if distribution.is(&published.origin) == Some(false) {
            return Err(untold());
        }
        result.push_str(value);
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

/// Returns whether `value` is like `expression`, as Python's `fnmatch` says.
fn is_like(value: &str, expression: &str) -> Result<bool, String> {
    if expression.contains('[') {
        return Err(format!("whether {value} is one of \"{expression}\" is not told"));
    }
    let (value, expression): (Vec<char>, Vec<char>) = (value.chars().collect(), expression.chars().collect());
    let (mut at, mut of) = (0, 0);
    // The last star, and from where in the value what follows it was tried.
    let mut star: Option<(usize, usize)> = None;
    while let Some(own) = value.get(at) {
        match expression.get(of) {
            Some('*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(c) if *c == '?' || c == own => {
                at += 1;
                of += 1;
            }
            _ => {
                let Some((place, from)) = star else { return Ok(false) };
                star = Some((place, from + 1));
                at = from + 1;
                of = place + 1;
            }
        }
    }
    Ok(expression.iter().skip(of).all(|c| *c == '*'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probe::patch_level::dpkg::installed;

    fn published(file: &str, origin: &str, label: &str, codename: &str, suite: &str) -> Published {
        Published {
            file: file.to_owned(),
            origin: origin.to_owned(),
            label: label.to_owned(),
            codename: codename.to_owned(),
            suite: suite.to_owned(),
            priority: 500,
            components: vec!["main".to_owned()],
            release: codename.split('-').next().unwrap_or_default().to_owned(),
            is_security: true,
        }
    }

    fn debian() -> Published {
        let file = "deb.debian.org_debian-security_dists_bookworm-security";
        published(file, "Debian", "Debian-Security", "bookworm-security", "oldstable-security")
    }

    fn ubuntu() -> Published {
        published("security.ubuntu.com_ubuntu_dists_jammy-security", "Ubuntu", "Ubuntu", "jammy", "jammy-security")
    }

    /// Returns whether these values of a setting take from a repository; `None` when that is not told.
    fn takes(published: Published, key: &str, values: &[&str], os_release: &str) -> Option<bool> {
        let main = Published { is_security: false, origin: "Main".to_owned(), ..published.clone() };
        let offers = Offers { published: vec![main, published], ..Offers::default() };
        let config: String = values.iter().map(|value| format!("{key}:: \"{value}\";\n")).collect();
        takes_security(&config, &offers, &Distribution::parse(os_release)).known().copied()
    }

    #[test]
    fn a_pattern_must_match_a_security_repository() {
        const DEBIAN: &str = "ID=debian\nVERSION_CODENAME=bookworm\n";
        // What the package of Debian delivers.
        let delivered = [
            "origin=Debian,codename=${distro_codename},label=Debian",
            "origin=Debian,codename=${distro_codename},label=Debian-Security",
            "origin=Debian,codename=${distro_codename}-security,label=Debian-Security",
        ];
        for (values, expected) in [
            (&delivered[..], Some(true)),
            (&delivered[..2], Some(false)),
            (&[][..], Some(false)),
            (&["origin=Docker"], Some(false)),
            (&["origin=*"], Some(true)),
            (&["o=${distro_id},a=oldstable-sec*"], Some(true)),
            (&["o=$distro_id, n=bookworm?security"], Some(true)),
            (&["o=Debian,c=main,site=deb.debian.org"], Some(true)),
            (&["o=Debian,c=contrib"], Some(false)),
            (&["site=security.debian.org"], Some(false)),
            (&["o=Main"], Some(false)),
            (&["o=[D]ebian"], None),
            (&["o=[D]ebian,l=Other"], Some(false)),
            (&["o=${distro}"], None),
            // What it does not understand ends its run, whatever else there is.
            (&["o=Debian", "x=y"], None),
            (&["o=Debian", "Debian stable"], None),
            (&["o=Debian,a=b=c"], None),
        ] {
            assert_eq!(takes(debian(), PATTERNS, values, DEBIAN), expected, "{values:?}");
        }
        // Another distribution's names are its own.
        let mint = "ID=linuxmint\nUBUNTU_CODENAME=jammy\n";
        for (values, os_release, expected) in [
            (
                &["${distro_id}:${distro_codename}", "${distro_id}:${distro_codename}-security"][..],
                "ID=ubuntu\n",
                Some(true),
            ),
            (&["${distro_id}:${distro_codename}-security"], "", Some(true)),
            (&["${distro_id}:${distro_codename}-updates"], "ID=ubuntu\n", Some(false)),
            (&["${distro_id}:${distro_codename}-security"], mint, None),
            (&["Ubuntu:jammy-security"], mint, Some(true)),
            (&["Ubuntu jammy-security"], mint, Some(true)),
            (&["Ubuntu"], mint, None),
            (&["a:b:c"], mint, None),
            (&["a\\:b:c"], mint, Some(false)),
        ] {
            assert_eq!(takes(ubuntu(), LEGACY, values, os_release), expected, "{values:?} {os_release}");
        }
    }

    #[test]
    fn without_a_security_repository_it_is_not_told_what_is_taken() {
        let config = format!("{PATTERNS}:: \"o=Debian\";\n");
        let takes = |offers: Offers| match takes_security(&config, &offers, &Distribution::default()) {
            Reading::Unknown { unknown } => unknown.cause,
            known => panic!("{known:?}"),
        };
        assert_eq!(takes(Offers::default()), Cause::Absent);
        let unknown = Some(Unknown::new(Cause::Forbidden, "x"));
        assert_eq!(takes(Offers { releases_unknown: unknown, ..Offers::default() }), Cause::Forbidden);
    }

    #[test]
    fn days_that_are_none_leave_open_whether_it_runs() {
        for (days, expected) in [
            (&[][..], Some(true)),
            (&["Sun"], Some(true)),
            (&["Saturday", "Foo"], Some(true)),
            (&["6"], Some(true)),
            (&["Foo"], None),
            (&["sun"], None),
            (&["7"], None),
            (&["Dienstag"], None),
        ] {
            let config: String = days.iter().map(|day| format!("{DAYS}:: \"{day}\";\n")).collect();
            assert_eq!(runs_on_days(&config).known().copied(), expected, "{days:?}");
        }
    }

    #[test]
    fn what_keeps_a_run_from_installing_leaves_open_whether_it_does() {
        for (config, is_told) in [
            ("", true),
            ("Dir::Bin::dpkg \"/usr/bin/dpkg\";\nUnattended-Upgrade::InstallOnShutdown \"false\";\n", true),
            ("Unattended-Upgrade::InstallOnShutdown \"true\";\n", false),
            ("unattended-upgrade::installonshutdown \"1\";\n", false),
            ("Dir::Bin::dpkg \"/bin/dpkg\";\n", true),
            ("Dir::Bin::dpkg \"/bin/true\";\n", false),
            ("Debug::pkgDPkgPM \"1\";\n", false),
            ("Debug::pkgDPkgPM \"0\";\n", true),
        ] {
            assert_eq!(installs(config).known().copied(), is_told.then_some(true), "{config}");
        }
    }

    #[test]
    fn what_excludes_every_package_leaves_none() {
        let installed = installed(&[("bash", "amd64", "1"), ("linux-image-amd64", "amd64", "1")]);
        for (excluded, expected) in [
            (&[][..], Some(true)),
            (&["linux-"], Some(true)),
            (&["vim", "libc6$"], Some(true)),
            (&["(linux|nvidia)-.*", "ash"], Some(true)),
            (&[".*"], Some(false)),
            (&[""], Some(false)),
            (&["^[a-z]"], Some(false)),
            (&["linux-", "ba"], Some(false)),
            (&["(?!linux)"], None),
            (&["("], None),
        ] {
            let config: String = excluded.iter().map(|it| format!("{EXCLUDED}:: \"{it}\";\n")).collect();
            assert_eq!(leaves_packages(&config, &installed).known().copied(), expected, "{excluded:?}");
        }
        let included = format!("{INCLUDED}:: \"vim\";\n");
        assert_eq!(leaves_packages(&included, &installed).known(), None);
        assert_eq!(leaves_packages(&format!("{INCLUDED} \"\";\n"), &installed), Reading::Known(true));
    }

    #[test]
    fn a_name_is_like_an_expression_as_fnmatch_says() {
        for (value, expression, expected) in [
            ("", "", true),
            ("", "*", true),
            ("abc", "abc", true),
            ("abc", "a*", true),
            ("abc", "*c", true),
            ("abcabd", "*abd", true),
            ("abc", "a?c", true),
            ("abc", "ab", false),
            ("ab", "abc", false),
            ("abc", "?", false),
            ("abc", "A*", false),
        ] {
            assert_eq!(is_like(value, expression), Ok(expected), "{value} {expression}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_settings_never_panic(value in "\\PC{0,20}", other in "[a=,:$\\{\\}\\\\*? ]{0,20}") {
            for value in [value, other] {
                for key in [LEGACY, PATTERNS, EXCLUDED] {
                    let config = format!("{key}:: \"{value}\";\n");
                    let offers = Offers { published: vec![debian()], ..Offers::default() };
                    let _ = takes_security(&config, &offers, &Distribution::default());
                    let _ = leaves_packages(&config, &installed(&[("bash", "amd64", "1")]));
                }
            }
        }
    }
}
