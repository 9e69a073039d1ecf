//! Updates that the Windows Update Agent knows of from its last search, asked offline.
//!
//! Classes are told by the ids of Microsoft's categories and states by numbers, never by text that is translated. Written from
//! Microsoft's documentation; **it has never run on Windows**.

use muster_proto::{
    fact::{AutomaticUpdates, Cause, PackageManager, PatchLevel, PendingUpdate, Reading, Text, Unknown},
    time::Timestamp,
};
use serde::Deserialize;

use super::offered::{self, Sight, Since};
use crate::{
    host::{self, Script},
    probe::{
        Look,
        answer::{self, Answer},
    },
};

/// Classifications of updates (the page "WSUS classification GUIDs"): security updates and critical updates.
const SECURITY: [&str; 2] = ["0fa1201d-4330-4fa8-8ae9-b877473b6441", "e6cf1350-c01b-414d-a61f-263d14d133b4"];
/// Name of the restart among what was first seen; no update's id has this form.
const RESTART: &str = "restart";

/// `IUpdate`.
#[derive(Deserialize)]
struct Update {
    id: String,
    title: Option<String>,
    #[serde(default)]
    articles: Vec<Option<String>>,
    severity: Option<String>,
    hidden: Option<bool>,
    #[serde(default)]
    categories: Vec<Option<String>>,
}

/// `IAutomaticUpdates` with its settings and results.
#[derive(Deserialize)]
struct Automatic {
    service: Option<bool>,
    level: Option<i64>,
    searched: Option<String>,
    installed: Option<String>,
}

/// `IUpdateHistoryEntry`.
#[derive(Deserialize)]
struct Event {
    time: Option<String>,
    operation: Option<i64>,
    result: Option<i64>,
}

/// The policy of automatic updates in the registry.
#[derive(Default, Deserialize)]
struct Policy {
    off: Option<i64>,
    options: Option<i64>,
}

#[derive(Deserialize)]
struct Restart {
    required: Option<bool>,
}

#[derive(Deserialize)]
struct Build {
    build: Option<String>,
    revision: Option<u32>,
}

pub(super) fn state(look: &Look<'_>) -> Result<PatchLevel, Unknown> {
    let answer = answer::ask(look.host, Script::Updates)?;
    let (updates, pending_complete) = match answer.part::<Update>("pending") {
        Ok(updates) => (updates, Reading::Known(true)),
        Err(unknown) => (Vec::new(), Reading::Unknown { unknown }),
    };
    let reboot_required = match answer.one::<Restart>("restart") {
        Ok(Restart { required: Some(required) }) => Reading::Known(required),
        Ok(Restart { required: None }) => Reading::unknown(Cause::Garbled, "RebootRequired has no value"),
        Err(unknown) => Reading::Unknown { unknown },
    };
    let needs_restart = reboot_required == Reading::Known(true);
    let automatic = answer.one::<Automatic>("automatic");
    let searched = time(&automatic, |automatic| &automatic.searched, "LastSearchSuccessDate");
    let is_complete = pending_complete == Reading::Known(true);
    let sight = Sight { now: look.now, is_complete, metadata: searched.known().copied() };
    let seen: Vec<offered::Update> = updates
        .iter()
        .map(|update| (update.id.clone(), is_security(update)))
        .chain(needs_restart.then(|| (RESTART.to_owned(), false)))
        .map(|(key, security)| offered::Update { key, installed_version: String::new(), security, published: None })
        .collect();
    let since = offered::since(look, sight, &seen, &|_| Some(vec![String::new()]))
        .map_err(|error| host::unknown("keep when updates were first offered", &error))?;
    let restart_since = needs_restart.then(|| since.last().map_or(look.now, |since| since.first_offered));
    let mut pending: Vec<PendingUpdate> =
        updates.iter().zip(since).map(|(update, since)| pending_update(update, since)).collect();
    pending.sort_by(|a, b| (&a.package, &a.candidate_version).cmp(&(&b.package, &b.candidate_version)));
    Ok(PatchLevel {
        manager: PackageManager::WindowsUpdate,
        pending,
        pending_complete,
        sources: Vec::new(),
        security_metadata_time: searched,
        security_metadata_valid_until_time: Reading::unknown(Cause::Absent, "states none: Windows Update sets no end"),
        running_kernel: build(&answer),
        newest_kernel: Reading::unknown(Cause::Unsupported, "an update that waits for a restart names no build"),
        reboot_required,
        reboot_required_since_time: restart_since.map(Reading::Known),
        reboot_packages: Vec::new(),
        automatic_updates: AutomaticUpdates {
            enabled: enabled(&answer, &automatic),
            last_success_time: installed(&answer, &automatic),
        },
        security_metadata_verified: None,
        live_patches: Vec::new(),
    })
}

fn is_security(update: &Update) -> bool {
    let is_rated = update.severity.as_ref().is_some_and(|severity| !severity.is_empty());
    let is_of_class = |id: &String| SECURITY.contains(&id.trim_matches(['{', '}']).to_ascii_lowercase().as_str());
    is_rated || update.categories.iter().flatten().any(is_of_class)
}

fn pending_update(update: &Update, since: Since) -> PendingUpdate {
    let article = update.articles.iter().flatten().find(|article| !article.is_empty());
    PendingUpdate {
        package: Text::new(&article.map_or_else(|| update.id.clone(), |article| format!("KB{article}"))),
        architecture: Text::default(),
        installed_version: Text::default(),
        candidate_version: Text::new(update.title.as_deref().unwrap_or_default()),
        security: is_security(update),
        held: update.hidden == Some(true),
        origin: Text::new("Microsoft"),
        first_offered_time: since.first_offered,
        available_after_time: Some(since.available_after_time()),
        phased_percent: None,
    }
}

fn time(
    automatic: &Result<Automatic, Unknown>,
    get: impl FnOnce(&Automatic) -> &Option<String>,
    name: &str,
) -> Reading<Timestamp> {
    match automatic.as_ref().map(get) {
        Ok(Some(text)) => match text.parse() {
            Ok(time) => Reading::Known(time),
            Err(_) => Reading::unknown(Cause::Garbled, format!("{name} is no time")),
        },
        Ok(None) => Reading::unknown(Cause::Absent, format!("{name} is not told")),
        Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
    }
}

/// Returns when an update was last installed without an error: newer versions of Windows leave the result of the automatic
/// updates empty, and have it in the history alone.
fn installed(answer: &Answer, automatic: &Result<Automatic, Unknown>) -> Reading<Timestamp> {
    let told = time(automatic, |automatic| &automatic.installed, "LastInstallationSuccessDate");
    match (answer.part::<Event>("history"), told) {
        (Ok(events), told) => match (last_success(&events), told) {
            (Some(event), Reading::Known(told)) => Reading::Known(event.max(told)),
            (Some(event), Reading::Unknown { .. }) => Reading::Known(event),
            (None, told) => told,
        },
        (Err(_), Reading::Known(told)) => Reading::Known(told),
        (Err(unknown), Reading::Unknown { .. }) => Reading::Unknown { unknown },
    }
}

/// UpdateOperation 1 is an installation, OperationResultCode 2 a success (wuapi.h).
fn last_success(events: &[Event]) -> Option<Timestamp> {
    let installed = events.iter().filter(|event| (event.operation, event.result) == (Some(1), Some(2)));
    installed.filter_map(|event| event.time.as_ref()?.parse().ok()).max()
}

fn build(answer: &Answer) -> Reading<Text> {
    match answer.one::<Build>("build") {
        Ok(Build { build: Some(build), revision: Some(revision) }) => {
            Reading::Known(Text::new(&format!("{build}.{revision}")))
        }
        Ok(_) => Reading::unknown(Cause::Absent, "CurrentBuildNumber or UBR is not in the registry"),
        Err(unknown) => Reading::Unknown { unknown },
    }
}

fn enabled(answer: &Answer, automatic: &Result<Automatic, Unknown>) -> Reading<bool> {
    let policy = match answer.one::<Policy>("policy") {
        Ok(policy) => policy,
        // Without a policy the key is not there.
        Err(unknown) if unknown.cause == Cause::Absent => Policy::default(),
        Err(unknown) => return Reading::Unknown { unknown },
    };
    match automatic {
        Ok(automatic) => decide(&policy, automatic),
        Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
    }
}

/// Values as on the pages of the policy "Configure Automatic Updates" and of `AutomaticUpdatesNotificationLevel`: 4 installs by
/// itself, 2, 3 and 7 wait for a person, 5 leaves it to the host's settings.
fn decide(policy: &Policy, automatic: &Automatic) -> Reading<bool> {
    if automatic.service == Some(false) || policy.off == Some(1) {
        return Reading::Known(false);
    }
    match (policy.options, automatic.level) {
        (Some(4), _) => Reading::Known(true),
        (Some(2 | 3 | 7), _) => Reading::Known(false),
        (None | Some(5), Some(4)) => Reading::Known(true),
        (None | Some(5), Some(1..=3)) => Reading::Known(false),
        (options, level) => {
            Reading::unknown(Cause::Undecidable, format!("AUOptions is {options:?}, NotificationLevel {level:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_installs_without_a_person_is_automatic() {
        let decide = |off, options, service, level| {
            let automatic = Automatic { service, level, searched: None, installed: None };
            decide(&Policy { off, options }, &automatic).known().copied()
        };
        assert_eq!(decide(None, None, Some(true), Some(4)), Some(true));
        assert_eq!(decide(None, None, Some(true), Some(3)), Some(false));
        assert_eq!(decide(None, None, Some(true), Some(0)), None);
        assert_eq!(decide(None, Some(4), Some(true), Some(1)), Some(true));
        assert_eq!(decide(None, Some(3), Some(true), Some(4)), Some(false));
        assert_eq!(decide(None, Some(5), Some(true), Some(4)), Some(true));
        assert_eq!(decide(Some(1), Some(4), Some(true), Some(4)), Some(false));
        assert_eq!(decide(None, None, Some(false), Some(4)), Some(false));
    }

    #[test]
    fn only_an_installation_that_succeeded_counts() {
        let event = |time: &str, operation, result| Event {
            time: Some(time.to_owned()),
            operation: Some(operation),
            result: Some(result),
        };
        let events = [
            event("2026-11-20T03:00:00Z", 1, 4),
            event("2026-11-12T03:00:00Z", 1, 2),
            event("2026-11-10T03:00:00Z", 1, 2),
            event("2026-11-21T03:00:00Z", 2, 2),
            event("gestern", 1, 2),
        ];
        assert_eq!(last_success(&events), Some("2026-11-12T03:00:00Z".parse().unwrap()));
        assert_eq!(last_success(&events[..1]), None);
    }

    #[test]
    fn a_class_is_an_id_or_a_rating_in_any_language() {
        let update = |category: &str, severity: Option<&str>| Update {
            id: "a".to_owned(),
            title: Some("Sicherheitsupdate".to_owned()),
            articles: vec![Some("5044284".to_owned())],
            severity: severity.map(str::to_owned),
            hidden: None,
            categories: vec![Some(category.to_owned())],
        };
        assert!(is_security(&update("0FA1201D-4330-4FA8-8AE9-B877473B6441", None)));
        assert!(is_security(&update("cd5ffd1e-e932-4e3a-bf74-18bf0b1bbd83", Some("Critical"))));
        assert!(!is_security(&update("cd5ffd1e-e932-4e3a-bf74-18bf0b1bbd83", None)));
    }
}
