//! apt's settings, pins and automatic updates.

mod unattended;

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::Path,
};

use muster_proto::{
    fact::{AutomaticUpdates, Cause, Reading, Unknown},
    time::Timestamp,
};

use super::{
    dpkg::Installed,
    lists::{Distribution, Offers, Published},
    sources::truth,
};
use crate::{
    host::{self, EntryKind, FILE_BYTES, Host, Tool},
    probe::deb822::Stanzas,
};

pub(super) const CONFIG_FOLDER: &str = "/etc/apt/apt.conf.d";
pub(super) const PREFERENCES: &str = "/etc/apt/preferences";
pub(super) const PREFERENCES_FOLDER: &str = "/etc/apt/preferences.d";
/// unattended-upgrades touches it when it ran to its end, also where that failed, or was only tried (`--dry-run`).
pub(super) const STAMP: &str = "/var/lib/apt/periodic/unattended-upgrades-stamp";
/// `apt.systemd.daily` touches it when unattended-upgrades said that all is well, also where it had nothing to do on this day.
pub(super) const UPGRADE_STAMP: &str = "/var/lib/apt/periodic/upgrade-stamp";

/// What the timers' services and the job of cron run, and what that runs to install updates.
pub(super) const PROGRAMS: [&str; 2] = ["/usr/lib/apt/apt.systemd.daily", "/usr/bin/unattended-upgrade"];
/// Folders of units that may have files beside them which change them (systemd.unit(5)).
const UNITS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"];
/// Where what fetches the lists and what runs unattended-upgrades may be masked: a link to `/dev/null`, or an empty file
/// (systemctl(1)). What is in the first place holds, whatever is in the second.
pub(super) const MASKS: [[&str; 2]; 4] = [
    ["/etc/systemd/system/apt-daily-upgrade.timer", "/run/systemd/system/apt-daily-upgrade.timer"],
    ["/etc/systemd/system/apt-daily-upgrade.service", "/run/systemd/system/apt-daily-upgrade.service"],
    ["/etc/systemd/system/apt-daily.timer", "/run/systemd/system/apt-daily.timer"],
    ["/etc/systemd/system/apt-daily.service", "/run/systemd/system/apt-daily.service"],
];
/// What has it started with the system: the link that `systemctl enable` makes, and one that may come with a distribution.
pub(super) const WANTED: &[&str] = &[
    "/etc/systemd/system/timers.target.wants/apt-daily-upgrade.timer",
    "/usr/lib/systemd/system/timers.target.wants/apt-daily-upgrade.timer",
];
/// There while systemd runs the system (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
/// Elsewhere cron starts this, which does what the timers would.
pub(super) const CRON_JOB: &str = "/etc/cron.daily/apt-compat";
/// Packages that run what is in that folder.
const CRONS: &[&str] = &["cron", "anacron", "bcron", "cronie", "systemd-cron"];

/// Returns `apt-config dump`.
pub(super) fn config(host: &dyn Host) -> io::Result<String> {
    String::from_utf8(host.run(Tool::AptConfig, &["dump"])?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "output is not text"))
}

/// Returns the value of `key` in `apt-config dump`: lines such as `APT::Periodic::Unattended-Upgrade "1";`.
fn value<'c>(config: &'c str, key: &str) -> Option<&'c str> {
    config.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        name.eq_ignore_ascii_case(key).then(|| value.strip_suffix("\";")?.strip_prefix('"')).flatten()
    })
}

/// Returns the settings for one of apt's programs alone, which `apt-config dump` shows and does not apply: the whole name, the name
/// for that program, and the value.
fn scoped(config: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    config.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        let (scope, program) = name.split_at_checked("Binary::".len())?;
        let (program, own) = program.split_once("::")?;
        let is_of_apt =
            scope.eq_ignore_ascii_case("Binary::") && program.get(..3).is_some_and(|it| it.eq_ignore_ascii_case("apt"));
        is_of_apt.then_some((name, own, value.strip_suffix("\";")?.strip_prefix('"')?))
    })
}

/// Returns whether apt's settings make it take no metadata without a signature that holds.
pub(super) fn verifies(config: &io::Result<String>) -> Reading<bool> {
    let config = match config {
        Ok(config) => config,
        Err(error) => return Reading::Unknown { unknown: host::unknown("run apt-config", error) },
    };
    const KEYS: [&str; 2] = ["Acquire::AllowInsecureRepositories", "APT::Get::AllowUnauthenticated"];
    let is_on = |word: &str| truth(word) != Some(false) && !word.is_empty();
    if KEYS.iter().any(|key| value(config, key).is_some_and(is_on)) {
        return Reading::Known(false);
    }
    let is_key = |own: &str| KEYS.iter().any(|key| own.eq_ignore_ascii_case(key));
    match scoped(config).find(|(_, own, word)| is_key(own) && is_on(word)) {
        Some((name, ..)) => Reading::unknown(Cause::Unsupported, format!("{name} is set")),
        None => Reading::Known(true),
    }
}

/// Returns a place of apt's that its settings moved: then what was read is not what apt reads.
fn moved(config: &str) -> Option<String> {
    // As `apt-config dump` writes them where nothing is changed.
    const PLACES: &[(&str, &str)] = &[
        ("RootDir", ""),
        ("Dir", ""),
        ("Dir::Etc", "etc/apt"),
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::Etc::sourceparts", "sources.list.d"),
        ("Dir::Etc::preferences", "preferences"),
        ("Dir::Etc::preferencesparts", "preferences.d"),
        ("Dir::State", "var/lib/apt"),
        ("Dir::State::lists", "lists"),
        ("Dir::State::status", "var/lib/dpkg/status"),
    ];
    let is_moved =
        |(key, usual): &&(&str, &str)| value(config, key).is_some_and(|place| place.trim_matches('/') != *usual);
    // Above one that is set, a name has an empty value.
    let is_scoped = |(_, own, place): &(&str, &str, &str)| {
        let is_above =
            place.is_empty() && ["Dir", "Dir::Etc", "Dir::State"].iter().any(|it| own.eq_ignore_ascii_case(it));
        let is_of = |(key, usual): &(&str, &str)| own.eq_ignore_ascii_case(key) && place.trim_matches('/') != *usual;
        !is_above && PLACES.iter().any(is_of)
    };
    let name = PLACES.iter().find(is_moved).map(|(key, _)| *key);
    let name = name.or_else(|| scoped(config).find(is_scoped).map(|(name, ..)| name));
    name.map(|name| format!("{name} is set to another place"))
}

/// Returns the name by which a release is preferred to others.
fn preference(config: &str) -> Option<&str> {
    const KEY: &str = "APT::Default-Release";
    if value(config, KEY).is_some_and(|release| !release.is_empty()) {
        return Some(KEY);
    }
    let is_set = |(_, own, release): &(&str, &str, &str)| own.eq_ignore_ascii_case(KEY) && !release.is_empty();
    scoped(config).find(is_set).map(|(name, ..)| name)
}

/// Returns whether what the lists offer is all that apt would choose from.
pub(super) fn pending_complete(
    host: &dyn Host,
    config: &io::Result<String>,
    offers: &Offers,
    installed: &Installed,
) -> Reading<bool> {
    if let Some(unknown) = &offers.incomplete {
        return Reading::Unknown { unknown: unknown.clone() };
    }
    match pins(host, offers, installed) {
        Ok(None) => {}
        Ok(Some(path)) => {
            return Reading::unknown(
                Cause::Unsupported,
                format!("{path} pins packages or repositories that are in use"),
            );
        }
        Err(unknown) => return Reading::Unknown { unknown },
    }
    match config {
        Ok(config) if let Some(name) = preference(config) => {
            Reading::unknown(Cause::Unsupported, format!("{name} is set"))
        }
        Ok(config) if let Some(moved) = moved(config) => Reading::unknown(Cause::Unsupported, moved),
        Ok(_) => Reading::Known(true),
        Err(error) => Reading::Unknown { unknown: host::unknown("run apt-config", error) },
    }
}

/// Returns a file that has a pin which could make another version the candidate.
fn pins(host: &dyn Host, offers: &Offers, installed: &Installed) -> Result<Option<String>, Unknown> {
    let mut paths = vec![PREFERENCES.to_owned()];
    match host.list(Path::new(PREFERENCES_FOLDER)) {
        Ok(names) => {
            // As apt does: no ending, or `pref`.
            let names = names.iter().filter_map(|name| name.to_str());
            let taken = names.filter(|name| !name.contains('.') || name.ends_with(".pref"));
            paths.extend(taken.map(|name| format!("{PREFERENCES_FOLDER}/{name}")));
        }
        Err(error) if host::cause(&error) == Cause::Absent => {}
        Err(error) => return Err(host::unknown(format!("list {PREFERENCES_FOLDER}"), &error)),
    }
    for path in paths {
        match host.read(Path::new(&path), FILE_BYTES) {
            Ok(bytes) if could_choose(&bytes, &offers.published, installed) => return Ok(Some(path)),
            Ok(_) => {}
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Err(host::unknown(format!("read {path}"), &error)),
        }
    }
    Ok(None)
}

/// Returns whether a pin of a preferences file could choose among what is offered for what is installed. One that is not
/// surely harmless could.
fn could_choose(preferences: &[u8], published: &[Published], installed: &Installed) -> bool {
    let is_pin = |line: &&[u8]| line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"pin:"));
    let pins = preferences.split(|&byte| byte == b'\n').filter(is_pin).count();
    let mut harmless = 0;
    let mut stanzas = Stanzas::new(&["Package", "Pin"], |fields| {
        let field = |name| fields.get(name).map(String::as_str);
        let is_harmless = field("Package").is_some_and(|names| names_nothing_installed(names, installed))
            || field("Pin").is_some_and(|pin| names_nothing_published(pin, published));
        harmless += usize::from(field("Pin").is_some() && is_harmless);
    });
    stanzas.write_all(preferences).expect("stanzas take every write");
    stanzas.finish();
    // A stanza that apt could cut otherwise leaves a pin over.
    harmless < pins
}

/// Returns whether `names` are names of packages, without patterns, of which none is installed.
fn names_nothing_installed(names: &str, installed: &Installed) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
    };
    let mut names = names.split_whitespace().peekable();
    names.peek().is_some()
        && names.all(|name| {
            let name = name.split_once(':').map_or(name, |(name, _)| name);
            // `src:` is before the name of a source package.
            is_name(name) && name != "src" && !installed.has(name)
        })
}

/// Returns whether no repository, nor dpkg's own list, is what `pin` tells of.
fn names_nothing_published(pin: &str, published: &[Published]) -> bool {
    let Some((kind, rest)) = pin.split_once(char::is_whitespace) else { return false };
    let rest = rest.trim();
    match kind.to_ascii_lowercase().as_str() {
        "release" => {
            let conditions: Vec<(&str, &str)> =
                rest.split(',').map(|part| part.trim().split_once('=').unwrap_or((part, ""))).collect();
            let keys: BTreeSet<_> = conditions.iter().map(|(key, _)| key.to_ascii_lowercase()).collect();
            let dpkg = Published { suite: "now".to_owned(), ..Published::default() };
            // Of one that is given twice, apt takes the last.
            keys.len() == conditions.len()
                && published
                    .iter()
                    .chain([&dpkg])
                    .all(|published| conditions.iter().any(|(key, value)| surely_differs(key, value, published)))
        }
        "origin" => {
            let host = rest.trim_matches('"').to_ascii_lowercase();
            let is_name = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
            !host.is_empty()
                && is_name(&host)
                && !published.iter().any(|published| published.file.to_ascii_lowercase().starts_with(&host))
        }
        _ => false,
    }
}

/// Returns whether a condition such as `o=Debian` surely is not what a repository says of itself. apt takes patterns, too.
fn surely_differs(key: &str, value: &str, published: &Published) -> bool {
    let own = match key.to_ascii_lowercase().as_str() {
        "o" => &published.origin,
        "l" => &published.label,
        "n" => &published.codename,
        "a" => &published.suite,
        _ => return false,
    };
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_. ".contains(&b);
    !value.is_empty() && value.bytes().all(is_plain) && !value.eq_ignore_ascii_case(own)
}

/// Returns what is to be told of unattended-upgrades.
pub(super) fn automatic_updates(
    host: &dyn Host,
    config: io::Result<String>,
    offers: &Offers,
    installed: &Installed,
    distribution: &Distribution,
) -> AutomaticUpdates {
    let enabled = match config {
        _ if !installed.has("unattended-upgrades") => Reading::Known(false),
        Ok(config) if !is_on(&config) => Reading::Known(false),
        Ok(config) => all([
            is_started(host, installed),
            unattended::runs_on_days(&config),
            unattended::takes_security(&config, offers, distribution),
            unattended::leaves_packages(&config, installed),
        ]),
        Err(error) => Reading::Unknown { unknown: host::unknown("run apt-config", &error) },
    };
    AutomaticUpdates { enabled, last_success_time: last_success(host) }
}

/// Returns whether all of `readings` are so; one that is not decides, whatever the others are.
fn all(readings: impl IntoIterator<Item = Reading<bool>>) -> Reading<bool> {
    let is_so = |reading: &Reading<bool>| *reading == Reading::Known(true);
    let rank = |reading: &Reading<bool>| *reading != Reading::Known(false);
    let others = readings.into_iter().filter(|reading| !is_so(reading));
    others.min_by_key(rank).unwrap_or(Reading::Known(true))
}

/// Returns whether the lists are to be fetched and their updates to be installed. `apt.systemd.daily`: 0 or nothing is off, else it is
/// an interval, or `always`.
fn is_on(config: &str) -> bool {
    let is_periodic = |key| !matches!(value(config, key).unwrap_or("0"), "" | "0");
    value(config, "APT::Periodic::Enable") != Some("0")
        && is_periodic("APT::Periodic::Unattended-Upgrade")
        && is_periodic("APT::Periodic::Update-Package-Lists")
}

/// Returns when unattended-upgrades last ended well. Neither stamp says so for itself: one that ended well is not later than either.
fn last_success(host: &dyn Host) -> Reading<Timestamp> {
    let time = |path: &str| match host.metadata(Path::new(path)) {
        Ok(stamp) => stamp.modified_time(),
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {path}"), &error) },
    };
    match time(STAMP) {
        Reading::Known(ended) => time(UPGRADE_STAMP).map(|well| well.min(ended)),
        unknown => unknown,
    }
}

/// Returns whether something fetches the lists and starts unattended-upgrades each day.
fn is_started(host: &dyn Host, installed: &Installed) -> Reading<bool> {
    let mut own = None;
    for places in MASKS {
        match unit(host, places) {
            Ok(Unit::Masked) => return Reading::Known(false),
            Ok(Unit::Own(place)) => own = own.or(Some(place)),
            Ok(Unit::Usual) => {}
            Err(unknown) => return Reading::Unknown { unknown },
        }
    }
    for program in PROGRAMS {
        match is_program(host, program) {
            Ok(true) => {}
            Ok(false) => return Reading::Known(false),
            Err(unknown) => return Reading::Unknown { unknown },
        }
    }
    match host.metadata(Path::new(SYSTEMD)) {
        Ok(_) => all([is_wanted(host), is_as_delivered(host, own)]),
        Err(error) if host::cause(&error) == Cause::Absent => is_in_cron(host, installed),
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {SYSTEMD}"), &error) },
    }
}

/// Returns whether a program is there and may be run.
fn is_program(host: &dyn Host, path: &str) -> Result<bool, Unknown> {
    match host.metadata(Path::new(path)) {
        Ok(file) => Ok(file.mode & 0o111 != 0),
        Err(error) if host::cause(&error) == Cause::Absent => Ok(false),
        Err(error) => Err(host::unknown(format!("look at {path}"), &error)),
    }
}

/// Returns whether systemd runs the units that apt delivers: not the host's own, at `own`, and without drop-ins, whose settings are
/// not followed.
fn is_as_delivered(host: &dyn Host, own: Option<&str>) -> Reading<bool> {
    if let Some(place) = own {
        return Reading::unknown(Cause::Unsupported, format!("{place} is in place of the unit that apt delivers"));
    }
    let names = MASKS.iter().filter_map(|[etc, _]| etc.rsplit('/').next());
    for folder in names.flat_map(|name| UNITS.map(|folder| format!("{folder}/{name}.d"))) {
        match host.list(Path::new(&folder)) {
            Ok(names) => {
                if let Some(name) = names.iter().find(|name| name.as_encoded_bytes().ends_with(b".conf")) {
                    let detail = format!("{folder}/{} changes the unit that apt delivers", name.to_string_lossy());
                    return Reading::unknown(Cause::Unsupported, detail);
                }
            }
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Reading::Unknown { unknown: host::unknown(format!("list {folder}"), &error) },
        }
    }
    Reading::Known(true)
}

/// What the folders that go before that of packages have for a unit.
enum Unit {
    /// Nothing.
    Usual,
    Masked,
    /// Another one, at this place.
    Own(&'static str),
}

/// Returns what is in the first of `places` where something is.
fn unit(host: &dyn Host, places: [&'static str; 2]) -> Result<Unit, Unknown> {
    let of = |place, is_masked| if is_masked { Unit::Masked } else { Unit::Own(place) };
    for place in places {
        let unknown = |error: &io::Error| host::unknown(format!("look at {place}"), error);
        match host.read_link(Path::new(place)) {
            Ok(target) => return Ok(of(place, target == Path::new("/dev/null"))),
            Err(error) if host::cause(&error) == Cause::Absent => {}
            // EINVAL: it is no link.
            Err(error) if error.raw_os_error() == Some(22) => {
                let file = host.metadata(Path::new(place)).map_err(|error| unknown(&error))?;
                return Ok(of(place, file.kind == EntryKind::File && file.size_bytes == 0));
            }
            Err(error) => return Err(unknown(&error)),
        }
    }
    Ok(Unit::Usual)
}

/// Returns whether the timer starts with the system.
fn is_wanted(host: &dyn Host) -> Reading<bool> {
    for wanted in WANTED {
        match host.read_link(Path::new(wanted)) {
            Ok(_) => return Reading::Known(true),
            Err(error) if host::cause(&error) == Cause::Absent => {}
            Err(error) => return Reading::Unknown { unknown: host::unknown(format!("look at {wanted}"), &error) },
        }
    }
    Reading::Known(false)
}

fn is_in_cron(host: &dyn Host, installed: &Installed) -> Reading<bool> {
    if !CRONS.iter().any(|name| installed.has(name)) {
        return Reading::unknown(Cause::Absent, "systemd does not run here, and no package of a cron is installed");
    }
    match host.metadata(Path::new(CRON_JOB)) {
        Ok(_) => Reading::Known(true),
        Err(error) if host::cause(&error) == Cause::Absent => Reading::Known(false),
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {CRON_JOB}"), &error) },
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::fact::PathText;
    use proptest::prelude::*;

    use super::*;
    use crate::{host::recorded::Failure, probe::patch_level::dpkg::installed};

    #[test]
    fn a_setting_is_found_by_its_whole_name() {
        let config = "APT \"\";\nAPT::Periodic \"\";\nAPT::Periodic::Unattended-Upgrade \"1\";\nAPT::X:: \"a b\";\n";
        assert_eq!(value(config, "APT::Periodic::Unattended-Upgrade"), Some("1"));
        assert_eq!(value(config, "apt::periodic"), Some(""));
        assert_eq!(value(config, "APT::Default-Release"), None);
    }

    #[test]
    fn apt_verifies_unless_it_is_told_not_to() {
        for (config, expected) in [
            ("", true),
            ("Acquire::AllowInsecureRepositories \"0\";\n", true),
            ("Acquire::AllowInsecureRepositories \"true\";\n", false),
            ("Acquire::AllowInsecureRepositories \"1\";\n", false),
            ("APT::Get::AllowUnauthenticated \"yes\";\n", false),
        ] {
            assert_eq!(verifies(&Ok(config.to_owned())), Reading::Known(expected), "{config}");
        }
        let scoped = |word| verifies(&Ok(format!("Binary::apt::Acquire::AllowInsecureRepositories \"{word}\";\n")));
        assert_eq!((scoped("1").known(), scoped("0").known()), (None, Some(&true)));
        assert!(verifies(&Err(io::ErrorKind::TimedOut.into())).known().is_none());
    }

    #[test]
    fn places_that_apt_was_told_to_use_instead_are_seen() {
        let usual = "Dir \"/\";\nDir::State \"var/lib/apt\";\nDir::State::lists \"lists/\";\nDir::State::status \"/var/lib/dpkg/status\";\n";
        assert_eq!(moved(usual), None);
        assert_eq!(moved(""), None);
        for config in [
            "Dir::State::lists \"/srv/lists/\";\n",
            "Dir::Etc::sourceparts \"\";\n",
            "Dir \"/srv\";\n",
            "RootDir \"/srv\";\n",
            "Binary::apt-get::Dir::State::lists \"/srv/lists\";\n",
            "binary::apt::dir::etc::sourceparts \"\";\n",
        ] {
            assert!(moved(config).is_some(), "{config}");
        }
        let above = "Binary::apt \"\";\nBinary::apt::Dir \"\";\nBinary::apt::Dir::State \"\";\n";
        let usual = "Binary::apt::Dir::State::lists \"lists/\";\nBinary::own::Dir::State::lists \"x\";\n";
        assert_eq!(moved(&format!("{above}{usual}")), None);
    }

    #[test]
    fn a_release_that_one_program_alone_prefers_is_seen() {
        for (config, expected) in [
            ("APT::Default-Release \"stable\";\n", Some("APT::Default-Release")),
            ("APT::Default-Release \"\";\n", None),
            ("Binary::apt-get::APT::Default-Release \"stable\";\n", Some("Binary::apt-get::APT::Default-Release")),
            // Debian's own.
            ("Binary::apt \"\";\nBinary::apt::APT \"\";\nBinary::apt::APT::Keep-Downloaded-Packages \"0\";\n", None),
        ] {
            assert_eq!(preference(config), expected, "{config}");
        }
    }

    fn published() -> Vec<Published> {
        let published = |file: &str, label: &str, codename: &str, suite: &str| Published {
            file: file.to_owned(),
            origin: "Ubuntu".to_owned(),
            label: label.to_owned(),
            codename: codename.to_owned(),
            suite: suite.to_owned(),
            ..Published::default()
        };
        vec![
            published("archive.ubuntu.com_ubuntu_dists_jammy", "Ubuntu", "jammy", "jammy"),
            published("security.ubuntu.com_ubuntu_dists_jammy-security", "Ubuntu", "jammy", "jammy-security"),
        ]
    }

    #[test]
    fn a_pin_matters_unless_it_surely_names_nothing_that_is_in_use() {
        let installed = installed(&[("bash", "amd64", "5"), ("libc6", "amd64", "2")]);
        for (preferences, expected) in [
            ("", false),
            ("Explanation: Pin: of nothing\n", false),
            // What Ubuntu's Pro client delivers.
            (
                "# Written by ubuntu-pro-client\nPackage: *\nPin: release o=UbuntuESMApps, n=jammy-apps-security\nPin-Priority: never\n",
                false,
            ),
            ("Package: nodejs\nPin: origin deb.nodesource.com\nPin-Priority: 600\n", false),
            ("Package: nodejs\nPin: version 20.*\nPin-Priority: 600\n", false),
            ("Package: nodejs nsolid:amd64\nPin: origin \"\"\nPin-Priority: 600\n", false),
            ("Package: *\nPin: release l=Ubuntu, n=bionic\nPin-Priority: 600\n", false),
            ("Package: *\nPin: release o=Ubuntu\nPin-Priority: 600\n", true),
            ("package: *\npin: release a=jammy-security\npin-priority: 600\n", true),
            ("Package: *\nPin: release o=UBUNTU\nPin-Priority: 600\n", true),
            ("Package: *\nPin: release o=*ESM*\nPin-Priority: 600\n", true),
            ("Package: *\nPin: release o=Other,o=Ubuntu\nPin-Priority: 600\n", true),
            ("Package: *\nPin: release a=now\nPin-Priority: 600\n", true),
            ("Package: *\nPin: release jammy-proposed\nPin-Priority: 600\n", true),
            ("Package: *\nPin: release c=universe\nPin-Priority: 600\n", true),
            ("Package: *\nPin: origin security.ubuntu.com\nPin-Priority: 600\n", true),
            ("Package: *\nPin: origin \"\"\nPin-Priority: 600\n", true),
            ("Package: nodejs bash\nPin: version 5*\nPin-Priority: 600\n", true),
            ("Package: lib*\nPin: version 5*\nPin-Priority: 600\n", true),
            ("Package: /^lib/\nPin: version 5*\nPin-Priority: 600\n", true),
            ("Package: src:glibc\nPin: version 5*\nPin-Priority: 600\n", true),
            ("Package: nodejs\nPin: version 5*\nPin: version 6*\n", true),
            ("Package: nodejs\nPin: version 5*\n\nPackage: bash\nPin: version 6*\n", true),
        ] {
            assert_eq!(could_choose(preferences.as_bytes(), &published(), &installed), expected, "{preferences}");
        }
    }

    const ETC: &str = WANTED[0];
    const LIB: &str = WANTED[1];
    const TIMER: &str = "/lib/systemd/system/apt-daily-upgrade.timer";
    const ORIGINS: &str = "Unattended-Upgrade::Origins-Pattern:: \"origin=Debian\";\n";
    const PERIODIC: &str = "APT::Periodic::Update-Package-Lists \"1\";\nAPT::Periodic::Unattended-Upgrade \"1\";\n";

    fn path(path: &str) -> PathText {
        PathText::from_bytes(path.as_bytes())
    }

    fn absent() -> Failure {
        Failure::of(&io::ErrorKind::NotFound.into())
    }

    /// Returns a machine that has these links and is run by systemd, or has the job of cron.
    fn machine(links: &[(&str, &str)], systemd_runs: bool) -> crate::host::Recorded {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-13");
        let mut host = crate::host::Recorded::at(&case).unwrap();
        let index = host.index_mut();
        for link in MASKS.iter().flatten().chain(WANTED) {
            index.links.remove(&path(link));
            index.errors.insert(format!("link {link}"), absent());
        }
        for (link, target) in links {
            index.errors.remove(&format!("link {link}"));
            index.links.insert(path(link), path(target));
        }
        let entry = *index.metadata.values().next().unwrap();
        for [etc, _] in MASKS {
            let name = etc.rsplit('/').next().unwrap();
            index.errors.extend(UNITS.map(|folder| (format!("list {folder}/{name}.d"), absent())));
        }
        for program in PROGRAMS {
            index.metadata.insert(path(program), crate::host::Metadata { mode: 0o755, ..entry });
        }
        let (there, not) = if systemd_runs { (SYSTEMD, CRON_JOB) } else { (CRON_JOB, SYSTEMD) };
        index.metadata.insert(path(there), entry);
        index.errors.insert(format!("metadata {not}"), absent());
        host
    }

    /// Returns whether automatic updates are enabled on a machine with a security repository and these packages.
    fn enabled(host: &crate::host::Recorded, config: &str, packages: &[&str]) -> Reading<bool> {
        let security = Published { origin: "Debian".to_owned(), is_security: true, ..Published::default() };
        let offers = Offers { published: vec![security], ..Offers::default() };
        let packages: Vec<_> = packages.iter().chain(&["bash"]).map(|name| (*name, "amd64", "1")).collect();
        let distribution = Distribution::default();
        automatic_updates(host, Ok(config.to_owned()), &offers, &installed(&packages), &distribution).enabled
    }

    #[test]
    fn automatic_updates_need_a_timer_that_starts_with_the_system_or_cron() {
        let config = format!("{PERIODIC}{ORIGINS}");
        let [[upgrade, upgrade_run], [service, _], [_, lists_run], _] = MASKS;
        for (links, systemd_runs, expected) in [
            (vec![(ETC, TIMER)], true, Some(true)),
            (vec![(LIB, TIMER)], true, Some(true)),
            (vec![], true, Some(false)),
            (vec![(ETC, TIMER), (upgrade, "/dev/null")], true, Some(false)),
            (vec![(ETC, TIMER), (upgrade_run, "/dev/null")], true, Some(false)),
            (vec![(ETC, TIMER), (service, "/dev/null")], true, Some(false)),
            (vec![(ETC, TIMER), (lists_run, "/dev/null")], true, Some(false)),
            // Something else in the first place holds.
            (vec![(ETC, TIMER), (upgrade, "/srv/own.timer"), (upgrade_run, "/dev/null")], true, None),
            (vec![(upgrade, "/srv/own.timer")], true, Some(false)),
            (vec![(upgrade, "/srv/own.timer")], false, Some(true)),
            (vec![(ETC, TIMER), (upgrade, "/dev/null")], false, Some(false)),
            (vec![], false, Some(true)),
        ] {
            let host = machine(&links, systemd_runs);
            let found = enabled(&host, &config, &["unattended-upgrades", "cron"]);
            assert_eq!(found.known().copied(), expected, "{links:?}, systemd runs: {systemd_runs}");
        }
        // A link of the timer says nothing where no systemd follows it.
        let found = enabled(&machine(&[(ETC, TIMER)], false), &config, &["unattended-upgrades"]);
        assert!(matches!(&found, Reading::Unknown { unknown } if unknown.cause == Cause::Absent), "{found:?}");
        let mut host = machine(&[], false);
        host.index_mut().metadata.remove(&path(CRON_JOB));
        host.index_mut().errors.insert(format!("metadata {CRON_JOB}"), absent());
        assert_eq!(enabled(&host, &config, &["unattended-upgrades", "cron"]), Reading::Known(false));
    }

    #[test]
    fn a_unit_of_the_hosts_own_masks_nothing_unless_it_is_empty() {
        for (size_bytes, expected) in [(0, Some(false)), (40, None)] {
            let mut host = machine(&[(ETC, TIMER)], true);
            let index = host.index_mut();
            index.errors.insert(format!("link {}", MASKS[0][0]), Failure::of(&io::Error::from_raw_os_error(22)));
            let entry = *index.metadata.values().next().unwrap();
            let file = crate::host::Metadata { kind: EntryKind::File, size_bytes, ..entry };
            index.metadata.insert(path(MASKS[0][0]), file);
            let found = enabled(&host, &format!("{PERIODIC}{ORIGINS}"), &["unattended-upgrades"]);
            assert_eq!(found.known().copied(), expected, "{found:?}");
        }
    }

    #[test]
    fn whether_a_changed_unit_upgrades_is_unknown() {
        let config = format!("{PERIODIC}{ORIGINS}");
        for (folder, name, expected) in [
            ("/etc/systemd/system/apt-daily-upgrade.service.d", "x.conf", None),
            ("/run/systemd/system/apt-daily-upgrade.timer.d", "x.conf", None),
            ("/etc/systemd/system/apt-daily.service.d", "x.conf", None),
            ("/etc/systemd/system/apt-daily.service.d", "x.conf.off", Some(true)),
        ] {
            let mut host = machine(&[(ETC, TIMER)], true);
            host.index_mut().errors.remove(&format!("list {folder}"));
            host.index_mut().lists.insert(path(folder), vec![path(name)]);
            let found = enabled(&host, &config, &["unattended-upgrades"]);
            assert_eq!(found.known().copied(), expected, "{folder}: {found:?}");
        }
    }

    #[test]
    fn nothing_is_upgraded_without_the_programs_that_do_it() {
        let config = format!("{PERIODIC}{ORIGINS}");
        for (program, systemd_runs) in PROGRAMS.into_iter().flat_map(|program| [(program, true), (program, false)]) {
            let mut host = machine(&[(ETC, TIMER)], systemd_runs);
            let packages = ["unattended-upgrades", "cron"];
            assert_eq!(enabled(&host, &config, &packages), Reading::Known(true), "{program}");
            host.index_mut().metadata.get_mut(&path(program)).unwrap().mode = 0o644;
            assert_eq!(enabled(&host, &config, &packages), Reading::Known(false), "{program}");
            host.index_mut().metadata.remove(&path(program));
            host.index_mut().errors.insert(format!("metadata {program}"), absent());
            assert_eq!(enabled(&host, &config, &packages), Reading::Known(false), "{program}");
        }
    }

    #[test]
    fn whether_a_timer_is_started_is_unknown_where_it_is_not_told() {
        for forbidden in [format!("link {ETC}"), format!("link {}", MASKS[0][1]), format!("metadata {SYSTEMD}")] {
            let mut host = machine(&[], true);
            let index = host.index_mut();
            if forbidden.starts_with("metadata") {
                index.metadata.remove(&path(SYSTEMD));
            }
            index.errors.insert(forbidden.clone(), Failure::of(&io::Error::from_raw_os_error(13)));
            let found = enabled(&host, &format!("{PERIODIC}{ORIGINS}"), &["unattended-upgrades"]);
            assert!(matches!(found, Reading::Unknown { unknown } if unknown.cause == Cause::Forbidden), "{forbidden}");
        }
    }

    #[test]
    fn automatic_updates_need_the_package_both_intervals_and_the_main_switch() {
        let host = machine(&[(ETC, TIMER)], true);
        let on = format!("{PERIODIC}{ORIGINS}");
        let upgrade = "APT::Periodic::Unattended-Upgrade \"1\";\n";
        for (config, package, expected) in [
            (on.clone(), "unattended-upgrades", true),
            (format!("APT::Periodic::Enable \"1\";\n{on}"), "unattended-upgrades", true),
            (format!("APT::Periodic::Enable \"0\";\n{on}"), "unattended-upgrades", false),
            ("APT::Periodic::Unattended-Upgrade \"0\";\n".to_owned(), "unattended-upgrades", false),
            (format!("{upgrade}{ORIGINS}"), "unattended-upgrades", false),
            (format!("{upgrade}APT::Periodic::Update-Package-Lists \"0\";\n{ORIGINS}"), "unattended-upgrades", false),
            (format!("{PERIODIC}Unattended-Upgrade::Origins-Pattern \"\";\n"), "unattended-upgrades", false),
            (format!("{on}Unattended-Upgrade::Package-Blacklist:: \".*\";\n"), "unattended-upgrades", false),
            (String::new(), "unattended-upgrades", false),
            (on.clone(), "other", false),
        ] {
            assert_eq!(enabled(&host, &config, &[package]), Reading::Known(expected), "{config}");
        }
    }

    #[test]
    fn a_run_ended_well_no_later_than_either_stamp_says() {
        let at = |second: i64| Timestamp::from_seconds(second).unwrap();
        for (ended, well, expected) in [
            (Some(50), Some(60), Some(50)),
            // It failed later, or was only tried.
            (Some(90), Some(60), Some(60)),
            (Some(90), None, None),
            (None, Some(60), None),
        ] {
            let mut host = machine(&[], true);
            let index = host.index_mut();
            let entry = *index.metadata.values().next().unwrap();
            for (stamp, time) in [(STAMP, ended), (UPGRADE_STAMP, well)] {
                index.errors.insert(format!("metadata {stamp}"), absent());
                if let Some(time) = time {
                    index.errors.remove(&format!("metadata {stamp}"));
                    index.metadata.insert(path(stamp), crate::host::Metadata { modified: Some(at(time)), ..entry });
                }
            }
            assert_eq!(last_success(&host).known().copied(), expected.map(at), "{ended:?} {well:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*\n\\PC*", key in "\\PC{0,5}") {
            let _ = (value(&text, &key), moved(&text), preference(&text), scoped(&text).count());
            let _ = scoped(&format!("Binary::{text}")).count();
            let _ = could_choose(text.as_bytes(), &published(), &installed(&[("bash", "amd64", "5")]));
            let _ = names_nothing_published(&text, &published());
        }
    }
}
