//! Updates that the Windows Update Agent knows of from its last search, asked offline.
//!
//! Classes are told by the ids of Microsoft's categories and states by numbers, never by text that is translated. Written from
//! Microsoft's documentation; **it has never run on Windows**.

use std::collections::{BTreeMap, BTreeSet};

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
/// Classification of definition updates, on the same page: malware signatures, which come daily and whatever becomes of the rest.
const DEFINITIONS: &str = "e0789628-ce08-4437-be74-2495b842f43b";
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
}

/// `IUpdateHistoryEntry`.
#[derive(Deserialize)]
struct Event {
    time: Option<String>,
    operation: Option<i64>,
    result: Option<i64>,
    id: Option<String>,
    /// Not there in captures of earlier builds.
    #[serde(default)]
    categories: Option<Vec<Option<String>>>,
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
    let searched = searched(&automatic);
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
    let wanted = is_complete.then(|| updates.iter().map(|update| plain_id(&update.id)).collect());
    let last_success_time = match answer.part::<Event>("history") {
        Ok(events) => last_run(&events, wanted.as_ref(), searched.clone()),
        Err(unknown) => Reading::Unknown { unknown },
    };
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
        automatic_updates: AutomaticUpdates { enabled: enabled(&answer, &automatic), last_success_time },
        security_metadata_verified: None,
        live_patches: Vec::new(),
    })
}

fn is_security(update: &Update) -> bool {
    let is_rated = update.severity.as_ref().is_some_and(|severity| !severity.is_empty());
    let is_of_class = |id: &String| SECURITY.contains(&plain_id(id).as_str());
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

/// Returns an id as ids are compared.
fn plain_id(id: &str) -> String {
    id.trim_matches(['{', '}']).to_ascii_lowercase()
}

fn searched(automatic: &Result<Automatic, Unknown>) -> Reading<Timestamp> {
    match automatic.as_ref().map(|automatic| &automatic.searched) {
        Ok(Some(text)) => match text.parse() {
            Ok(time) => Reading::Known(time),
            Err(_) => Reading::unknown(Cause::Garbled, "LastSearchSuccessDate is no time"),
        },
        Ok(None) => Reading::unknown(Cause::Absent, "LastSearchSuccessDate is not told"),
        Err(unknown) => Reading::Unknown { unknown: unknown.clone() },
    }
}

/// Returns when a run of updates last ended well. `wanted` are the ids of the updates that are pending, if all are known.
///
/// Definition updates do not count. Where the newest try to install another update failed, or that of one that is still wanted, it is when
/// one was last installed; else all that could be done was done when it was last searched.
fn last_run(events: &[Event], wanted: Option<&BTreeSet<String>>, searched: Reading<Timestamp>) -> Reading<Timestamp> {
    let garbled = |detail| Reading::unknown(Cause::Garbled, detail);
    // By the id of an update, its newest try. Of two at one time, the failure.
    let mut newest: BTreeMap<Option<String>, (Timestamp, bool)> = BTreeMap::new();
    let mut success: Option<Timestamp> = None;
    // UpdateOperation 1 is an installation (wuapi.h).
    for event in events.iter().filter(|event| event.operation == Some(1)) {
        // OperationResultCode: 2 succeeded; 3 succeeded with errors, 4 failed, 5 aborted; before that it is not over.
        let failed = match event.result {
            Some(2) => false,
            Some(3..=5) => true,
            _ => continue,
        };
        let Some(categories) = &event.categories else {
            return garbled("the history of updates does not tell their categories");
        };
        let mut categories = categories.iter().flatten().map(|id| plain_id(id)).peekable();
        let is_told = categories.peek().is_some();
        if categories.any(|id| id == DEFINITIONS) {
            continue;
        }
        let Some(time) = event.time.as_ref().and_then(|time| time.parse().ok()) else {
            return garbled("the history of updates has an entry without a time");
        };
        // An update that no category tells may be of definitions, and its success proves nothing.
        if !failed && is_told {
            success = success.max(Some(time));
        }
        let id = event.id.as_deref().map(plain_id);
        let newest_try = newest.entry(id).or_insert((time, failed));
        *newest_try = (time, failed).max(*newest_try);
    }
    let is_wanted = |id: &Option<String>| id.as_ref().zip(wanted).is_none_or(|(id, wanted)| wanted.contains(id));
    // An update that was replaced is wanted no more, and what replaced it has not been tried.
    let is_last_failed = newest.values().max().is_some_and(|(_, failed)| *failed);
    let is_failing = is_last_failed || newest.iter().any(|(id, (_, failed))| *failed && is_wanted(id));
    match (is_failing, success, searched) {
        (false, _, Reading::Known(searched)) => Reading::Known(searched),
        (_, Some(success), _) => Reading::Known(success),
        (true, None, _) => {
            Reading::unknown(Cause::Absent, "an update fails, and no success of one is in the history of updates")
        }
        (false, None, unknown) => unknown,
    }
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
            let automatic = Automatic { service, level, searched: None };
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

    const CUMULATIVE: &str = "0fa1201d-4330-4fa8-8ae9-b877473b6441";

    fn event(time: &str, id: &str, category: &str, result: i64) -> Event {
        Event {
            time: Some(time.to_owned()),
            operation: Some(1),
            result: Some(result),
            id: Some(id.to_owned()),
            categories: Some(vec![Some(category.to_owned())]),
        }
    }

    fn last(events: &[Event], wanted: Option<&[&str]>, searched: Option<&str>) -> Result<String, Cause> {
        let wanted: Option<BTreeSet<String>> = wanted.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect());
        let searched = searched.map_or_else(
            || Reading::unknown(Cause::Unsupported, "no search"),
            |time| Reading::Known(time.parse().unwrap()),
        );
        match last_run(events, wanted.as_ref(), searched) {
            Reading::Known(time) => Ok(time.to_string()[..10].to_owned()),
            Reading::Unknown { unknown } => Err(unknown.cause),
        }
    }

    #[test]
    fn daily_definitions_hide_no_update_that_fails() {
        let events = || {
            vec![
                event("2026-11-24T03:00:00Z", "d2", DEFINITIONS, 2),
                event("2026-11-23T03:00:00Z", "{A}", CUMULATIVE, 4),
                event("2026-11-23T02:00:00Z", "d1", &DEFINITIONS.to_uppercase(), 2),
                event("2026-09-10T03:00:00Z", "b", CUMULATIVE, 2),
            ]
        };
        let search = Some("2026-11-24T06:00:00Z");
        assert_eq!(last(&events(), Some(&["a"]), search), Ok("2026-09-10".to_owned()));
        // What is pending is not known: it may be that one.
        assert_eq!(last(&events(), None, search), Ok("2026-09-10".to_owned()));
        assert_eq!(last(&events()[..3], Some(&["a"]), search), Err(Cause::Absent));
        // Installed by another way, or replaced by what has not been tried yet.
        assert_eq!(last(&events(), Some(&["c"]), search), Ok("2026-09-10".to_owned()));
        // Another was installed since, and it is wanted no more.
        let mut events_since = events();
        events_since.push(event("2026-11-23T12:00:00Z", "c", CUMULATIVE, 2));
        assert_eq!(last(&events_since, Some(&[]), search), Ok("2026-11-24".to_owned()));
        // It succeeded later, or earlier, or at the same second.
        for (time, expected) in [("24T01", "2026-11-24"), ("22T01", "2026-11-22"), ("23T03", "2026-11-23")] {
            let mut events = events();
            events.push(event(&format!("2026-11-{time}:00:00Z"), "a", CUMULATIVE, 2));
            assert_eq!(last(&events, Some(&["a"]), search), Ok(expected.to_owned()), "{time}");
        }
        // Another update that succeeds does not undo the failure, only makes the success newer.
        let mut other = events();
        other.push(event("2026-11-23T12:00:00Z", "c", CUMULATIVE, 2));
        assert_eq!(last(&other, Some(&["a"]), search), Ok("2026-11-23".to_owned()));
    }

    #[test]
    fn a_failing_definition_or_a_removal_is_no_failing_run() {
        let mut removal = event("2026-11-23T03:00:00Z", "a", CUMULATIVE, 4);
        removal.operation = Some(2);
        let events = [removal, event("2026-11-23T03:00:00Z", "d", DEFINITIONS, 4)];
        assert_eq!(last(&events, Some(&["a", "d"]), Some("2026-11-24T06:00:00Z")), Ok("2026-11-24".to_owned()));
        assert_eq!(last(&events, Some(&["a", "d"]), None), Err(Cause::Unsupported));
        assert_eq!(last(&[], Some(&[]), Some("2026-11-24T06:00:00Z")), Ok("2026-11-24".to_owned()));
    }

    #[test]
    fn what_the_history_does_not_tell_is_no_success() {
        let search = Some("2026-11-24T06:00:00Z");
        let mut untold = event("2026-11-23T03:00:00Z", "a", CUMULATIVE, 2);
        untold.categories = None;
        assert_eq!(last(&[untold], Some(&[]), search), Err(Cause::Garbled));
        assert_eq!(last(&[event("gestern", "a", CUMULATIVE, 2)], Some(&[]), search), Err(Cause::Garbled));
        // Without any category it may be one of definitions: its success proves nothing, and its failure counts.
        let of_none = |result| Event {
            categories: Some(vec![None]),
            id: None,
            ..event("2026-11-23T03:00:00Z", "a", CUMULATIVE, result)
        };
        assert_eq!(last(&[of_none(2)], Some(&[]), None), Err(Cause::Unsupported));
        assert_eq!(last(&[of_none(4)], Some(&[]), search), Err(Cause::Absent));
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
