//! apt's settings and automatic updates.

mod unattended;

use std::{io, path::Path};

use muster_proto::{
    fact::{AutomaticUpdates, Cause, Reading},
    time::Timestamp,
};

use super::{
    dpkg::Installed,
    lists::{Distribution, Offers},
    sources::truth,
    units::{self, Unit, all},
};
use crate::host::{self, EntryKind, Host, Tool};

pub(super) const CONFIG_FOLDER: &str = "/etc/apt/apt.conf.d";
/// unattended-upgrades touches it when it ran to its end, also where that failed, or was only tried (`--dry-run`).
pub(super) const STAMP: &str = "/var/lib/apt/periodic/unattended-upgrades-stamp";
/// `apt.systemd.daily` touches it when unattended-upgrades said that all is well, also where it had nothing to do on this day.
pub(super) const UPGRADE_STAMP: &str = "/var/lib/apt/periodic/upgrade-stamp";

/// What the timers' services and the job of cron run, and what that runs to install updates.
pub(super) const PROGRAMS: [&str; 2] = ["/usr/lib/apt/apt.systemd.daily", "/usr/bin/unattended-upgrade"];
/// What fetches the lists and what runs unattended-upgrades.
const UNITS: [&str; 5] =
    ["apt-daily-upgrade.timer", "apt-daily-upgrade.service", "apt-daily.timer", "apt-daily.service", units::TIMERS];
/// Days between two times that the lists are fetched, at most: what is found less often is not kept up to date.
const LISTS_DAYS: i64 = 7;
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
pub(super) fn pending_complete(config: &io::Result<String>, offers: &Offers) -> Reading<bool> {
    if let Some(unknown) = offers.incomplete.as_ref().or(offers.pins_unknown.as_ref()) {
        return Reading::Unknown { unknown: unknown.clone() };
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
        Ok(config) => all([
            is_set(&config),
            is_started(host, installed),
            unattended::runs_on_days(&config),
            unattended::takes_security(&config, offers, distribution),
            unattended::leaves_packages(&config, installed),
            unattended::installs(&config),
        ]),
        Err(error) => Reading::Unknown { unknown: host::unknown("run apt-config", &error) },
    };
    AutomaticUpdates { enabled, last_success_time: last_success(host) }
}

/// Returns whether the lists are to be fetched and their updates to be installed, as `apt.systemd.daily` takes its settings: 0 or
/// nothing is off, else it is an interval, or `always`.
fn is_set(config: &str) -> Reading<bool> {
    let is_off = |word: &str| word.trim().parse() == Ok(0_i64);
    let interval = |key| Some(value(config, key).unwrap_or("0")).filter(|word| !matches!(*word, "" | "0"));
    const LISTS: &str = "APT::Periodic::Update-Package-Lists";
    let (Some(lists), Some(_)) = (interval(LISTS), interval("APT::Periodic::Unattended-Upgrade")) else {
        return Reading::Known(false);
    };
    if value(config, "APT::Periodic::Enable").is_some_and(is_off) {
        return Reading::Known(false);
    }
    match seconds(lists) {
        Some(seconds) => Reading::Known(seconds <= LISTS_DAYS * 86_400),
        None => Reading::unknown(Cause::Unsupported, format!("{LISTS} is no interval that is known: {lists}")),
    }
}

/// Returns the seconds of an interval: days, unless a unit is behind the number.
fn seconds(interval: &str) -> Option<i64> {
    if interval == "always" {
        return Some(0);
    }
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let unit = units.iter().find_map(|(unit, seconds)| Some((interval.strip_suffix(*unit)?, *seconds)));
    let (number, seconds) = unit.unwrap_or((interval, 86_400));
    number.parse::<i64>().ok()?.checked_mul(seconds)
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
    for name in UNITS {
        match units::unit(host, name) {
            Ok(Unit::Masked) => return Reading::Known(false),
            Ok(Unit::Own(place)) => own = own.or(Some(place)),
            Ok(Unit::Usual) => {}
            Err(unknown) => return Reading::Unknown { unknown },
        }
    }
    let programs = all(PROGRAMS.map(|path| is_program(host, path)));
    let started = match host.metadata(Path::new(SYSTEMD)) {
        Ok(_) => {
            let [upgrade, _, lists, ..] = UNITS;
            all([units::is_wanted(host, upgrade), units::is_wanted(host, lists), is_as_delivered(host, own.as_deref())])
        }
        Err(error) if host::cause(&error) == Cause::Absent => is_in_cron(host, installed),
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {SYSTEMD}"), &error) },
    };
    all([programs, started])
}

/// Returns whether a program is there and may be run.
fn is_program(host: &dyn Host, path: &str) -> Reading<bool> {
    match host.metadata(Path::new(path)) {
        Ok(file) if file.kind == EntryKind::Link => Reading::unknown(
            Cause::Unsupported,
            format!("{path} is a link, and not the program that its package delivers"),
        ),
        Ok(file) => Reading::Known(file.mode & 0o111 != 0),
        Err(error) if host::cause(&error) == Cause::Absent => Reading::Known(false),
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {path}"), &error) },
    }
}

/// Returns whether systemd runs the units that are delivered: not the host's own, at `own`, and with nothing beside them that changes
/// them.
fn is_as_delivered(host: &dyn Host, own: Option<&Path>) -> Reading<bool> {
    let untold = |place: &Path, what: &str| Reading::unknown(Cause::Unsupported, format!("{} {what}", place.display()));
    if let Some(place) = own {
        return untold(place, "is in place of the unit that is delivered");
    }
    match units::changed(host, &UNITS) {
        Ok(None) => Reading::Known(true),
        Ok(Some(path)) => untold(&path, "changes the units that are delivered"),
        Err(unknown) => Reading::Unknown { unknown },
    }
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
    use crate::{
        host::recorded::Failure,
        probe::patch_level::{dpkg::installed, lists::Published},
    };

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

    const ETC: &str = "/etc/systemd/system/timers.target.wants/apt-daily-upgrade.timer";
    const LIB: &str = "/usr/lib/systemd/system/timers.target.wants/apt-daily-upgrade.timer";
    const LISTS: &str = "/etc/systemd/system/timers.target.wants/apt-daily.timer";
    const TIMER: &str = "/lib/systemd/system/apt-daily-upgrade.timer";
    const LISTS_TIMER: &str = "/lib/systemd/system/apt-daily.timer";
    /// Both timers are started.
    const BOTH: [(&str, &str); 2] = [(ETC, TIMER), (LISTS, LISTS_TIMER)];
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
        machine_at(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-13"), links, systemd_runs)
    }

    fn machine_at(case: &Path, links: &[(&str, &str)], systemd_runs: bool) -> crate::host::Recorded {
        let mut host = crate::host::Recorded::at(case).unwrap();
        let index = host.index_mut();
        let own = UNITS.iter().flat_map(|name| units::OWN.map(|folder| format!("{folder}/{name}")));
        let wanted = [UNITS[0], UNITS[2]].iter().flat_map(|name| units::WANTED.map(|it| format!("{it}/{name}")));
        for link in own.chain(wanted) {
            index.links.remove(&path(&link));
            index.errors.insert(format!("link {link}"), absent());
        }
        for (link, target) in links {
            index.errors.remove(&format!("link {link}"));
            index.links.insert(path(link), path(target));
        }
        let entry = crate::host::Metadata { kind: EntryKind::File, ..*index.metadata.values().next().unwrap() };
        let folders = units::OWN.iter().chain(["/usr/lib/systemd/system"].iter());
        index.errors.extend(folders.map(|folder| (format!("list {folder}"), absent())));
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
        let own =
            |folder: usize, unit: usize| -> &'static str { format!("{}/{}", units::OWN[folder], UNITS[unit]).leak() };
        let (upgrade, upgrade_run, service, lists_run, local) = (own(2, 0), own(3, 0), own(2, 1), own(3, 2), own(4, 0));
        let both_and = |more: &[(&'static str, &'static str)]| [&BOTH[..], more].concat();
        for (links, systemd_runs, expected) in [
            (BOTH.to_vec(), true, Some(true)),
            (vec![(LIB, TIMER), (LISTS, LISTS_TIMER)], true, Some(true)),
            (vec![], true, Some(false)),
            // What would be installed is not found, or what is found is not installed.
            (vec![(ETC, TIMER)], true, Some(false)),
            (vec![(LISTS, LISTS_TIMER)], true, Some(false)),
            (both_and(&[(upgrade, "/dev/null")]), true, Some(false)),
            (both_and(&[(upgrade_run, "/dev/null")]), true, Some(false)),
            (both_and(&[(service, "/dev/null")]), true, Some(false)),
            (both_and(&[(lists_run, "/dev/null")]), true, Some(false)),
            (both_and(&[(own(2, 4), "/dev/null")]), true, Some(false)),
            // Something else in the first place holds.
            (both_and(&[(upgrade, "/srv/own.timer"), (upgrade_run, "/dev/null")]), true, None),
            (both_and(&[(own(0, 0), "/srv/own.timer"), (upgrade, "/dev/null")]), true, None),
            (both_and(&[(local, "/srv/own.timer")]), true, None),
            (vec![(upgrade, "/srv/own.timer")], true, Some(false)),
            (vec![(upgrade, "/srv/own.timer")], false, Some(true)),
            (both_and(&[(upgrade, "/dev/null")]), false, Some(false)),
            (vec![], false, Some(true)),
        ] {
            let host = machine(&links, systemd_runs);
            let found = enabled(&host, &config, &["unattended-upgrades", "cron"]);
            assert_eq!(found.known().copied(), expected, "{links:?}, systemd runs: {systemd_runs}");
        }
        // A link of the timer says nothing where no systemd follows it.
        let found = enabled(&machine(&BOTH, false), &config, &["unattended-upgrades"]);
        assert!(matches!(&found, Reading::Unknown { unknown } if unknown.cause == Cause::Absent), "{found:?}");
        let mut host = machine(&[], false);
        host.index_mut().metadata.remove(&path(CRON_JOB));
        host.index_mut().errors.insert(format!("metadata {CRON_JOB}"), absent());
        assert_eq!(enabled(&host, &config, &["unattended-upgrades", "cron"]), Reading::Known(false));
    }

    #[test]
    fn a_unit_of_the_hosts_own_masks_nothing_unless_it_is_empty() {
        for (size_bytes, expected) in [(0, Some(false)), (40, None)] {
            let mut host = machine(&BOTH, true);
            let index = host.index_mut();
            let own = format!("{}/{}", units::OWN[2], UNITS[0]);
            index.errors.insert(format!("link {own}"), Failure::of(&io::Error::from_raw_os_error(22)));
            let entry = *index.metadata.values().next().unwrap();
            let file = crate::host::Metadata { kind: EntryKind::File, size_bytes, ..entry };
            index.metadata.insert(path(&own), file);
            let found = enabled(&host, &format!("{PERIODIC}{ORIGINS}"), &["unattended-upgrades"]);
            assert_eq!(found.known().copied(), expected, "{found:?}");
        }
    }

    #[test]
    fn whether_a_changed_unit_upgrades_is_unknown() {
        let config = format!("{PERIODIC}{ORIGINS}");
        for (place, content, expected) in [
            ("/etc/systemd/system/apt-daily-upgrade.service.d/x.conf", "[Service]\nExecStart=\n", None),
            ("/run/systemd/system/apt-daily-upgrade.timer.d/x.conf", "[Timer]\n", None),
            ("/etc/systemd/system/apt-daily.service.d/x.conf", "[Unit]\n", None),
            ("/etc/systemd/system/apt-.timer.d/x.conf", "[Timer]\nOnCalendar=\n", None),
            ("/etc/systemd/system/timer.d/x.conf", "[Unit]\nConditionPathExists=/nonexistent\n", None),
            ("/etc/systemd/system/service.d/x.conf", "[Service]\nExecCondition=/bin/false\n", None),
            ("/etc/systemd/system.control/apt-daily-upgrade.timer.d/x.conf", "[Timer]\nOnCalendar=\n", None),
            ("/etc/systemd/system/apt-daily.service.d/x.conf.off", "[Unit]\n", Some(true)),
            ("/etc/systemd/system/other.service.d/x.conf", "[Unit]\n", Some(true)),
            // As LXC has it.
            ("/run/systemd/system/service.d/zzz-lxc-service.conf", "[Service]\nPrivateNetwork=no\n", Some(true)),
        ] {
            let case = tempfile::tempdir().unwrap();
            let file = case.path().join("files").join(place.trim_start_matches('/'));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
            let of = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/debian-13");
            std::fs::copy(of.join("index.json"), case.path().join("index.json")).unwrap();
            let mut host = machine_at(case.path(), &BOTH, true);
            let (folder, name) = place.rsplit_once('/').unwrap();
            let (above, own) = folder.rsplit_once('/').unwrap();
            for (folder, name) in [(folder, name), (above, own)] {
                host.index_mut().errors.remove(&format!("list {folder}"));
                host.index_mut().lists.insert(path(folder), vec![path(name)]);
            }
            let found = enabled(&host, &config, &["unattended-upgrades"]);
            assert_eq!(found.known().copied(), expected, "{place}: {found:?}");
        }
    }

    #[test]
    fn nothing_is_upgraded_without_the_programs_that_do_it() {
        let config = format!("{PERIODIC}{ORIGINS}");
        for (program, systemd_runs) in PROGRAMS.into_iter().flat_map(|program| [(program, true), (program, false)]) {
            let mut host = machine(&BOTH, systemd_runs);
            let packages = ["unattended-upgrades", "cron"];
            assert_eq!(enabled(&host, &config, &packages), Reading::Known(true), "{program}");
            host.index_mut().metadata.get_mut(&path(program)).unwrap().kind = EntryKind::Link;
            assert_eq!(enabled(&host, &config, &packages).known(), None, "{program}");
            host.index_mut().metadata.get_mut(&path(program)).unwrap().kind = EntryKind::File;
            host.index_mut().metadata.get_mut(&path(program)).unwrap().mode = 0o644;
            assert_eq!(enabled(&host, &config, &packages), Reading::Known(false), "{program}");
            host.index_mut().metadata.remove(&path(program));
            host.index_mut().errors.insert(format!("metadata {program}"), absent());
            assert_eq!(enabled(&host, &config, &packages), Reading::Known(false), "{program}");
        }
    }

    #[test]
    fn whether_a_timer_is_started_is_unknown_where_it_is_not_told() {
        for forbidden in [
            format!("link {LISTS}"),
            format!("link {}/{}", units::OWN[3], UNITS[0]),
            format!("metadata {SYSTEMD}"),
            format!("list {}", units::OWN[2]),
        ] {
            let mut host = machine(&BOTH, true);
            let index = host.index_mut();
            if forbidden.ends_with(LISTS) {
                index.links.remove(&path(LISTS));
            }
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
        let host = machine(&BOTH, true);
        let on = format!("{PERIODIC}{ORIGINS}");
        let upgrade = "APT::Periodic::Unattended-Upgrade \"1\";\n";
        for (config, package, expected) in [
            (on.clone(), "unattended-upgrades", true),
            (format!("APT::Periodic::Enable \"1\";\n{on}"), "unattended-upgrades", true),
            (format!("APT::Periodic::Enable \"0\";\n{on}"), "unattended-upgrades", false),
            ("APT::Periodic::Unattended-Upgrade \"0\";\n".to_owned(), "unattended-upgrades", false),
            (format!("{upgrade}{ORIGINS}"), "unattended-upgrades", false),
            (format!("{upgrade}APT::Periodic::Update-Package-Lists \"0\";\n{ORIGINS}"), "unattended-upgrades", false),
            (format!("APT::Periodic::Enable \"00\";\n{on}"), "unattended-upgrades", false),
            (format!("{PERIODIC}Unattended-Upgrade::Origins-Pattern \"\";\n"), "unattended-upgrades", false),
            (format!("{on}Unattended-Upgrade::Package-Blacklist:: \".*\";\n"), "unattended-upgrades", false),
            (String::new(), "unattended-upgrades", false),
            (on.clone(), "other", false),
        ] {
            assert_eq!(enabled(&host, &config, &[package]), Reading::Known(expected), "{config}");
        }
    }

    #[test]
    fn lists_that_are_fetched_less_than_each_week_are_not_kept_up_to_date() {
        for (interval, expected) in [
            ("1", Some(true)),
            ("always", Some(true)),
            ("7", Some(true)),
            ("12h", Some(true)),
            ("0d", Some(true)),
            ("8", Some(false)),
            ("9999", Some(false)),
            ("240h", Some(false)),
            ("0", Some(false)),
            ("", Some(false)),
            ("daily", None),
            ("99999999999999999d", None),
        ] {
            let config = format!(
                "APT::Periodic::Update-Package-Lists \"{interval}\";\nAPT::Periodic::Unattended-Upgrade \"1\";\n"
            );
            assert_eq!(is_set(&config).known().copied(), expected, "{interval}");
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
        }
    }
}
