//! Whether hosts of the rpm world install updates by themselves: by timers of dnf and transactional-update, or by YaST's job of cron.

use std::path::Path;

use muster_proto::fact::{AutomaticUpdates, Cause, PackageManager, Reading};

use super::super::{
    ini,
    repositories::text,
    units::{self, Unit, all, any},
};
use crate::host::{self, Host};

/// What dnf-automatic does with what it finds.
pub(super) const SETTINGS: &str = "/etc/dnf/automatic.conf";
/// There while the host runs an image that rpm-ostree or bootc brings up to date as a whole.
pub(super) const OSTREE: &str = "/run/ostree-booted";
/// YaST's online update, which cron runs.
const ONLINE_UPDATE: &[&str] = &[
    "/etc/cron.daily/opensuse.org-online_update",
    "/etc/cron.weekly/opensuse.org-online_update",
    "/etc/cron.monthly/opensuse.org-online_update",
];
/// Its settings (sysconfig, `AOU_ENABLE_CRONJOB`).
pub(super) const ONLINE_UPDATE_SETTINGS: &str = "/etc/sysconfig/automatic_online_update";
/// Starts SUSE's os-update, which installs what its settings say.
const OS_UPDATE: &str = "os-update.timer";

/// Returns whether updates are installed by themselves.
pub(super) fn updates(host: &dyn Host, manager: PackageManager) -> AutomaticUpdates {
    let enabled = match (manager, is_there(host, OSTREE)) {
        (PackageManager::Zypper, _) => {
            any([online_update(host), is_started(host, "transactional-update.timer"), os_update(host)])
        }
        (_, Reading::Known(false)) => {
            let usual = ["dnf-automatic.timer", "dnf5-automatic.timer"].map(|timer| is_started(host, timer));
            any([is_started(host, "dnf-automatic-install.timer"), all([any(usual), applies_updates(host)])])
        }
        (_, Reading::Known(true)) => {
            let what = "this host runs an image, and whether something brings that up to date is not read here";
            Reading::unknown(Cause::Unsupported, what)
        }
        (_, unknown) => unknown,
    };
    let last_success_time =
        Reading::unknown(Cause::Unsupported, "the host keeps when the job was started last, and not how it ended");
    AutomaticUpdates { enabled, last_success_time }
}

fn is_there(host: &dyn Host, path: &str) -> Reading<bool> {
    match host.metadata(Path::new(path)) {
        Ok(_) => Reading::Known(true),
        Err(error) if host::cause(&error) == Cause::Absent => Reading::Known(false),
        Err(error) => Reading::Unknown { unknown: host::unknown(format!("look at {path}"), &error) },
    }
}

/// Returns whether a timer starts with the system. What a host has beside it may say when, and that is not followed.
fn is_started(host: &dyn Host, timer: &str) -> Reading<bool> {
    let is_wanted = units::is_wanted(host, timer);
    if is_wanted == Reading::Known(false) {
        return is_wanted;
    }
    let usual = [timer, units::TIMERS].map(|name| match units::unit(host, name) {
        Ok(Unit::Usual) => Reading::Known(true),
        Ok(Unit::Masked) => Reading::Known(false),
        Ok(Unit::Own(place)) => {
            let what = format!("{} is in place of the unit that is delivered", place.display());
            Reading::unknown(Cause::Unsupported, what)
        }
        Err(unknown) => Reading::Unknown { unknown },
    });
    all(usual.into_iter().chain([is_wanted]))
}

/// Returns whether dnf-automatic is set to install what it finds.
fn applies_updates(host: &dyn Host) -> Reading<bool> {
    match text(host, Path::new(SETTINGS)) {
        Ok(text) => {
            let sections = ini::sections(&text);
            let commands = sections.iter().filter(|section| section.name == "commands");
            Reading::Known(commands.filter_map(|section| section.switch("apply_updates")).next_back() == Some(true))
        }
        Err(unknown) => Reading::Unknown { unknown },
    }
}

/// Returns whether os-update installs updates: what its settings make of a run is not read here.
fn os_update(host: &dyn Host) -> Reading<bool> {
    match is_started(host, OS_UPDATE) {
        Reading::Known(true) => Reading::unknown(
            Cause::Unsupported,
            format!("{OS_UPDATE} is started, and what it installs is not read here"),
        ),
        other => other,
    }
}

/// Returns whether cron runs YaST's online update.
fn online_update(host: &dyn Host) -> Reading<bool> {
    const SWITCH: &str = "AOU_ENABLE_CRONJOB";
    let is_in_cron = any(ONLINE_UPDATE.iter().map(|path| is_there(host, path)));
    if is_in_cron != Reading::Known(true) {
        return is_in_cron;
    }
    let text = match text(host, Path::new(ONLINE_UPDATE_SETTINGS)) {
        Ok(text) => text,
        Err(unknown) => return Reading::Unknown { unknown },
    };
    let value = text.lines().rev().find_map(|line| line.trim().strip_prefix(SWITCH)?.strip_prefix('='));
    match value.map(|value| value.trim_matches(['"', '\''])) {
        None | Some("true") => Reading::Known(true),
        Some(_) => {
            let what = format!("cron runs the online update, and {ONLINE_UPDATE_SETTINGS} does not say so by {SWITCH}");
            Reading::unknown(Cause::Undecidable, what)
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;

    use muster_proto::fact::PathText;

    use super::*;
    use crate::host::{Recorded, recorded::Failure};

    #[test]
    fn updates_are_automatic_by_a_timer_that_nothing_is_in_place_of_or_by_cron() {
        const WANTED: &str = units::WANTED[0];
        let wanted = |timer: &str| format!("{WANTED}/{timer}.timer");
        let own = |name: &str| format!("{}/{name}", units::OWN[2]);
        let (install, usual) = (wanted("dnf-automatic-install"), wanted("dnf-automatic"));
        let (applied, not) = ("[commands]\napply_updates = yes\n", "[commands]\napply_updates = no\n");
        let (dnf, zypper) = (PackageManager::Dnf, PackageManager::Zypper);
        let (null, unit) = ("/dev/null", "/usr/lib/systemd/system/x.timer");
        for (manager, links, files, expected) in [
            (dnf, vec![], vec![], Some(false)),
            (dnf, vec![(install.clone(), unit)], vec![], Some(true)),
            (dnf, vec![(install.clone(), unit), (own("dnf-automatic-install.timer"), null)], vec![], Some(false)),
            (dnf, vec![(install.clone(), unit), (own("timers.target"), null)], vec![], Some(false)),
            (dnf, vec![(install.clone(), unit), (own("dnf-automatic-install.timer"), "/srv/x")], vec![], None),
            (dnf, vec![(usual.clone(), unit)], vec![(SETTINGS, applied)], Some(true)),
            (dnf, vec![(usual.clone(), unit)], vec![(SETTINGS, not)], Some(false)),
            (dnf, vec![(usual.clone(), unit)], vec![], Some(false)),
            (dnf, vec![], vec![(SETTINGS, applied)], Some(false)),
            // An image, whatever its package says.
            (dnf, vec![], vec![(OSTREE, "")], None),
            (dnf, vec![(install, unit)], vec![(OSTREE, "")], None),
            (zypper, vec![], vec![], Some(false)),
            (zypper, vec![(wanted("transactional-update"), unit)], vec![], Some(true)),
            (
                zypper,
                vec![(wanted("transactional-update"), unit), (own("transactional-update.timer"), null)],
                vec![],
                Some(false),
            ),
            (zypper, vec![], vec![(ONLINE_UPDATE[0], "")], Some(true)),
            (
                zypper,
                vec![],
                vec![(ONLINE_UPDATE[1], ""), (ONLINE_UPDATE_SETTINGS, "A=\"\"\nAOU_ENABLE_CRONJOB=\"true\"\n")],
                Some(true),
            ),
            (
                zypper,
                vec![],
                vec![(ONLINE_UPDATE[1], ""), (ONLINE_UPDATE_SETTINGS, "AOU_ENABLE_CRONJOB=\"false\"\n")],
                None,
            ),
            (zypper, vec![], vec![(ONLINE_UPDATE_SETTINGS, "AOU_ENABLE_CRONJOB=\"true\"\n")], Some(false)),
            (zypper, vec![(wanted("os-update"), unit)], vec![], None),
            (zypper, vec![(wanted("os-update"), unit)], vec![(ONLINE_UPDATE[0], "")], Some(true)),
        ] {
            let (_case, host) = machine(&links, &files);
            let found = updates(&host, manager).enabled;
            assert_eq!(found.known().copied(), expected, "{links:?} {files:?}: {found:?}");
        }
        let (_case, mut host) = machine(&[], &[]);
        let forbidden = || Failure::of(&io::Error::from_raw_os_error(13));
        host.index_mut().errors.insert(format!("metadata {OSTREE}"), forbidden());
        host.index_mut().errors.insert(format!("metadata {}", ONLINE_UPDATE[0]), forbidden());
        assert_eq!((updates(&host, dnf).enabled.known(), updates(&host, zypper).enabled.known()), (None, None));
    }

    /// Returns a machine with these links and files of those that tell whether updates are automatic.
    pub fn machine(links: &[(String, &str)], files: &[(&str, &str)]) -> (tempfile::TempDir, Recorded) {
        const TIMERS: [&str; 5] =
            ["dnf-automatic-install", "dnf-automatic", "dnf5-automatic", "transactional-update", "os-update"];
        let case = tempfile::tempdir().unwrap();
        let of = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/patch_level/rpm-dnf/index.json");
        std::fs::copy(of, case.path().join("index.json")).unwrap();
        let mut host = Recorded::at(case.path()).unwrap();
        let index = host.index_mut();
        let absent = || Failure::of(&io::ErrorKind::NotFound.into());
        let text = |text: &str| PathText::from_bytes(text.as_bytes());
        let names: Vec<String> =
            TIMERS.iter().map(|timer| format!("{timer}.timer")).chain([units::TIMERS.to_owned()]).collect();
        for folder in units::WANTED.iter().chain(&units::OWN) {
            index.errors.extend(names.iter().map(|name| (format!("link {folder}/{name}"), absent())));
        }
        for (link, target) in links {
            index.errors.remove(&format!("link {link}"));
            index.links.insert(text(link), text(target));
        }
        let entry = *index.metadata.values().next().unwrap();
        for path in ONLINE_UPDATE.iter().chain(&[OSTREE, SETTINGS, ONLINE_UPDATE_SETTINGS]) {
            index.errors.extend(["read", "metadata"].map(|verb| (format!("{verb} {path}"), absent())));
        }
        for (path, content) in files {
            for verb in ["read", "metadata"] {
                index.errors.remove(&format!("{verb} {path}"));
            }
            index.metadata.insert(text(path), entry);
            let file = case.path().join("files").join(path.trim_start_matches('/'));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        (case, host)
    }
}
