//! Updates that the Windows Update Agent knows of from its last search, asked offline.
//!
//! Classes are told by the ids of Microsoft's categories and states by numbers, never by text that is translated. Written from
//! Microsoft's documentation; **it has never run on Windows**.

use std::collections::BTreeMap;

use muster_proto::{
    fact::{AutomaticUpdates, Cause, PackageManager, PatchLevel, PendingUpdate, Reading, Text, Unknown},
    time::Timestamp,
};
use serde::{Deserialize, de::DeserializeOwned};

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
/// Classifications of the rest that is the system's, on the same page: updates, and update rollups.
const OTHER: [&str; 2] = ["cd5ffd1e-e932-4e3a-bf74-18bf0b1bbd83", "28bc880e-0592-4cbf-8f95-c79b17911d5f"];
/// Classification of definition updates, on the same page: malware signatures, which come daily and whatever becomes of the rest.
const DEFINITIONS: &str = "e0789628-ce08-4437-be74-2495b842f43b";
/// Parts of the answer that say whether updates are held back: by a policy, a manager of devices and the host's own settings, and whether
/// they pause at all (the page "Configure Windows Update client policies").
const HOLDS: [&str; 4] = ["held_by_policy", "held_by_manager", "held_by_settings", "pause"];
/// Name of the restart among what was first seen; no update's id has this form.
const RESTART: &str = "restart";

/// What an update mends. Drivers and apps of the Store have neither class.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Class {
    Other,
    Security,
}

/// By the ids of the updates that are pending, their class; `None` of those that are not the system's.
type Wanted = BTreeMap<String, Option<Class>>;

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
    /// Not there in captures of earlier builds.
    #[serde(default)]
    server: Option<i64>,
}

/// What a key of the registry says of updates that are held back. Each has a part of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Hold {
    days: Option<i64>,
    server: Option<String>,
    status: Option<i64>,
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
        Ok(updates) => (updates, held_back(&answer)),
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
    // What is held back is not tried.
    let is_listed = answer.part::<Update>("pending").is_ok();
    let wanted = is_listed.then(|| updates.iter().map(|update| (plain_id(&update.id), wanted_class(update))).collect());
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
        security_metadata_verified: Some(super::checked_by_updater()),
        live_patches: Vec::new(),
    })
}

fn is_security(update: &Update) -> bool {
    class_of(update) == Some(Class::Security)
}

fn class_of(update: &Update) -> Option<Class> {
    let is_rated = update.severity.as_ref().is_some_and(|severity| !severity.is_empty());
    let categories: Vec<String> = update.categories.iter().flatten().map(|id| plain_id(id)).collect();
    is_rated.then_some(Class::Security).max(class(&categories))
}

/// Returns the class of an update that is pending, by which its failure counts.
fn wanted_class(update: &Update) -> Option<Class> {
    let is_untold = update.categories.iter().flatten().next().is_none();
    class_of(update).or(is_untold.then_some(Class::Other))
}

/// Returns the class that the plain ids of categories tell.
fn class(categories: &[String]) -> Option<Class> {
    let is_of = |ids: &[&str]| categories.iter().any(|id| ids.contains(&id.as_str()));
    match is_of(&SECURITY) {
        true => Some(Class::Security),
        false => is_of(&OTHER).then_some(Class::Other),
    }
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

/// When an installation was tried, and whether it failed: of two at one time, the one that failed is the newest.
type Try = (Timestamp, bool);

/// Returns when a run of updates last ended well. `wanted` are the updates that are pending, if all are known.
///
/// Only updates with a class of the system count: definitions, drivers and apps of the Store come whatever becomes of these. Where the
/// newest try to install one that is still wanted failed, or the newest of all or of security while any such is wanted, it is when one was
/// last installed, and with security updates among these when one of security was; else all that could be done was done when it was last
/// searched.
fn last_run(events: &[Event], wanted: Option<&Wanted>, searched: Reading<Timestamp>) -> Reading<Timestamp> {
    let garbled = |detail| Reading::unknown(Cause::Garbled, detail);
    let mut newest: BTreeMap<Option<String>, (Try, Option<Class>)> = BTreeMap::new();
    let mut successes: Vec<(Class, Timestamp)> = Vec::new();
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
        let categories: Vec<String> = categories.iter().flatten().map(|id| plain_id(id)).collect();
        let id = event.id.as_deref().map(plain_id);
        let pending = id.as_ref().zip(wanted).and_then(|(id, wanted)| wanted.get(id).copied().flatten());
        let class = class(&categories).max(pending);
        // Without any category it may be of any class.
        if categories.iter().any(|id| id == DEFINITIONS) || class.is_none() && !categories.is_empty() {
            continue;
        }
        let Some(time) = event.time.as_ref().and_then(|time| time.parse().ok()) else {
            return garbled("the history of updates has an entry without a time");
        };
        if let (Some(class), false) = (class, failed) {
            successes.push((class, time));
        }
        let (newest_try, newest_class) = newest.entry(id).or_insert(((time, failed), class));
        *newest_try = (*newest_try).max((time, failed));
        *newest_class = (*newest_class).max(class);
    }
    let is_any_wanted =
        |least| wanted.is_none_or(|wanted| wanted.values().any(|class: &Option<Class>| *class >= Some(least)));
    let is_wanted = |id: &Option<String>| match (wanted, id) {
        (Some(wanted), Some(id)) => wanted.get(id).is_some_and(Option::is_some),
        (_, _) => is_any_wanted(Class::Other),
    };
    let failing = newest.iter().filter(|(id, ((_, failed), _))| *failed && is_wanted(id)).map(|(_, (_, class))| *class);
    // An update that was replaced is wanted no more, and what replaced it has not been tried.
    let last_failed = [Class::Other, Class::Security].into_iter().filter_map(|least| {
        let last = newest.values().filter(|(_, class)| *class >= Some(least)).max()?;
        (last.0.1 && is_any_wanted(least)).then_some(last.1)
    });
    let success_of = |least| successes.iter().filter(|(class, _)| *class >= least).map(|(_, time)| *time).max();
    match (failing.chain(last_failed).max(), searched) {
        (Some(Some(class)), _) => success_of(class).map_or_else(
            || Reading::unknown(Cause::Absent, "an update fails, and no success of one is in the history of updates"),
            Reading::Known,
        ),
        (Some(None), _) => Reading::unknown(
            Cause::Undecidable,
            "an update fails, and neither its class nor whether it is pending is told",
        ),
        (None, Reading::Known(searched)) => Reading::Known(searched),
        (None, unknown) => success_of(Class::Other).map_or(unknown, Reading::Known),
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

/// Returns the values of a key of the registry, which need not be there, nor have any.
fn values<T: Default + DeserializeOwned>(answer: &Answer, name: &str) -> Result<T, Unknown> {
    match answer.part::<T>(name) {
        Ok(mut items) => Ok(items.pop().unwrap_or_default()),
        Err(unknown) if unknown.cause == Cause::Absent => Ok(T::default()),
        Err(unknown) => Err(unknown),
    }
}

/// Returns `true` when nobody keeps updates of the system from Windows Update: no server of an organisation, which offers what was
/// approved there alone, and no deferral or pause.
fn held_back(answer: &Answer) -> Reading<bool> {
    let holds = HOLDS.iter().map(|name| Ok((*name, values::<Hold>(answer, name)?)));
    let (policy, holds) = match (values::<Policy>(answer, "policy"), holds.collect::<Result<Vec<_>, Unknown>>()) {
        (Ok(policy), Ok(holds)) => (policy, holds),
        (Err(unknown), _) | (_, Err(unknown)) => return Reading::Unknown { unknown },
    };
    let hidden = |detail: String| Reading::unknown(Cause::Hidden, detail);
    if policy.server.is_some_and(|server| server != 0) {
        return hidden("UseWUServer: a server of an organisation decides what is on offer".to_owned());
    }
    for (name, hold) in holds {
        if hold.server.is_some_and(|server| !server.is_empty()) {
            return hidden(format!("{name}: a server of an organisation decides what is on offer"));
        }
        if let Some(days @ 1..) = hold.days {
            return hidden(format!("{name}: updates of the last {days} days are held back"));
        }
        // 0 is no pause, and 2 one that has ended.
        if hold.status.is_some_and(|status| !matches!(status, 0 | 2)) {
            return hidden(format!("{name}: updates are paused"));
        }
    }
    Reading::Known(true)
}

fn enabled(answer: &Answer, automatic: &Result<Automatic, Unknown>) -> Reading<bool> {
    let policy = match values::<Policy>(answer, "policy") {
        Ok(policy) => policy,
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
            decide(&Policy { off, options, server: None }, &automatic).known().copied()
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
    fn what_is_held_back_is_not_all_that_there_is() {
        let absent =
            serde_json::json!({"hresult": -2146233087, "cim": 0, "category": 13, "reason": "ItemNotFoundException"});
        let held = |name: &str, part: serde_json::Value| {
            let mut parts = serde_json::json!({"version": 1, "policy": absent});
            HOLDS.iter().for_each(|hold| parts[*hold] = absent.clone());
            parts[name] = part;
            match held_back(&answer::parse(parts.to_string().as_bytes(), Script::Updates).unwrap()) {
                Reading::Known(complete) => Ok(complete),
                Reading::Unknown { unknown } => Err(unknown.cause),
            }
        };
        let value = |entries: serde_json::Value| serde_json::json!({"value": [entries]});
        for (name, part, expected) in [
            ("policy", absent.clone(), Ok(true)),
            ("policy", serde_json::json!({"value": []}), Ok(true)),
            ("policy", value(serde_json::json!({"off": 0, "options": 4})), Ok(true)),
            ("policy", value(serde_json::json!({"server": 0})), Ok(true)),
            ("policy", value(serde_json::json!({"server": 1})), Err(Cause::Hidden)),
            ("held_by_policy", value(serde_json::json!({"days": null})), Ok(true)),
            ("held_by_policy", value(serde_json::json!({"days": 0})), Ok(true)),
            ("held_by_policy", value(serde_json::json!({"days": 30})), Err(Cause::Hidden)),
            ("held_by_policy", value(serde_json::json!({"days": "30"})), Err(Cause::Garbled)),
            ("held_by_manager", value(serde_json::json!({"days": 0, "server": ""})), Ok(true)),
            ("held_by_manager", value(serde_json::json!({"days": 3, "server": null})), Err(Cause::Hidden)),
            ("held_by_manager", value(serde_json::json!({"server": "https://wsus"})), Err(Cause::Hidden)),
            ("held_by_settings", value(serde_json::json!({"days": 5})), Err(Cause::Hidden)),
            ("pause", value(serde_json::json!({"status": 0})), Ok(true)),
            ("pause", value(serde_json::json!({"status": 2})), Ok(true)),
            ("pause", value(serde_json::json!({"status": 1})), Err(Cause::Hidden)),
            ("pause", serde_json::json!({"hresult": -2147024891, "cim": 0}), Err(Cause::Forbidden)),
            // As in captures of earlier builds.
            ("pause", serde_json::Value::Null, Err(Cause::Garbled)),
        ] {
            assert_eq!(held(name, part.clone()), expected, "{name} {part}");
        }
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
        last_of(events, wanted.map(|ids| ids.iter().map(|id| (*id, Some(Class::Security))).collect()), searched)
    }

    fn last_of(
        events: &[Event],
        wanted: Option<Vec<(&str, Option<Class>)>>,
        searched: Option<&str>,
    ) -> Result<String, Cause> {
        let wanted: Option<Wanted> =
            wanted.map(|wanted| wanted.into_iter().map(|(id, class)| (id.to_owned(), class)).collect());
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
    }

    /// `SECURITY` and `OTHER` have what the system is updated by; a driver and an app of the Store have other categories, or none.
    const DRIVER: &str = "ebfc1fc5-71a4-4f7b-9aca-3b9a503104a0";
    const STORE: &str = "579fc437-d398-411c-a6c5-d01fd4523b94";
    const ROLLUP: &str = "28bc880e-0592-4cbf-8f95-c79b17911d5f";

    #[test]
    fn drivers_and_apps_of_the_store_are_neither_success_nor_failure() {
        let search = Some("2026-11-24T06:00:00Z");
        for other in [DRIVER, STORE] {
            let failed =
                [event("2026-11-24T03:00:00Z", "s", other, 4), event("2026-10-15T02:00:00Z", "b", CUMULATIVE, 2)];
            for wanted in [None, Some(vec![]), Some(vec![("s", None)]), Some(vec![("c", Some(Class::Security))])] {
                assert_eq!(last_of(&failed, wanted, search), Ok("2026-11-24".to_owned()), "{other}");
            }
            let installed = [
                event("2026-11-24T04:00:00Z", "s", other, 2),
                event("2026-11-23T02:00:00Z", "a", CUMULATIVE, 4),
                event("2026-10-15T02:00:00Z", "b", CUMULATIVE, 2),
            ];
            assert_eq!(last(&installed, Some(&["a"]), search), Ok("2026-10-15".to_owned()), "{other}");
            assert_eq!(last(&installed[..2], Some(&["a"]), search), Err(Cause::Absent), "{other}");
            // Without a search it is no success of its own.
            assert_eq!(last(&installed[..1], Some(&[]), None), Err(Cause::Unsupported), "{other}");
        }
    }

    #[test]
    fn while_an_update_of_security_fails_another_that_succeeds_is_no_success() {
        let search = Some("2026-11-24T06:00:00Z");
        let fails = |failing: &str| {
            [
                event("2026-11-24T04:00:00Z", "r", ROLLUP, 2),
                event("2026-11-23T02:00:00Z", "a", failing, 4),
                event("2026-10-15T02:00:00Z", "b", CUMULATIVE, 2),
            ]
        };
        for wanted in [None, Some(&["a"][..])] {
            assert_eq!(last(&fails(CUMULATIVE), wanted, search), Ok("2026-10-15".to_owned()));
        }
        let wanted = |class| Some(vec![("a", Some(class))]);
        assert_eq!(last_of(&fails(ROLLUP), wanted(Class::Other), search), Ok("2026-11-24".to_owned()));
        // It was replaced by one that is not tried yet.
        assert_eq!(last(&fails(CUMULATIVE), Some(&["c"]), search), Ok("2026-10-15".to_owned()));
        assert_eq!(
            last_of(&fails(CUMULATIVE), Some(vec![("c", Some(Class::Other))]), search),
            Ok("2026-11-24".to_owned())
        );
        // By its severity it is one of security.
        assert_eq!(last_of(&fails(ROLLUP), wanted(Class::Security), search), Ok("2026-10-15".to_owned()));
    }

    #[test]
    fn a_failure_without_a_category_counts_where_it_may_be_of_an_update_that_is_wanted() {
        let search = Some("2026-11-24T06:00:00Z");
        let events = |id: Option<&str>, result| {
            let mut untold = event("2026-11-24T03:00:00Z", "a", CUMULATIVE, result);
            (untold.categories, untold.id) = (Some(vec![None]), id.map(str::to_owned));
            [untold, event("2026-10-15T02:00:00Z", "b", CUMULATIVE, 2)]
        };
        let (searched, installed) = (Ok("2026-11-24".to_owned()), Ok("2026-10-15".to_owned()));
        let wanted = |id, class| Some(vec![(id, class)]);
        for (id, wanted, expected) in [
            (Some("a"), Some(vec![]), searched.clone()),
            (Some("a"), wanted("c", Some(Class::Security)), searched.clone()),
            (Some("a"), wanted("a", Some(Class::Security)), installed),
            (Some("a"), wanted("a", None), searched.clone()),
            (Some("a"), None, Err(Cause::Undecidable)),
            (None, Some(vec![]), searched.clone()),
            (None, wanted("c", None), searched.clone()),
            (None, wanted("c", Some(Class::Security)), Err(Cause::Undecidable)),
            (None, None, Err(Cause::Undecidable)),
        ] {
            assert_eq!(last_of(&events(id, 4), wanted.clone(), search), expected, "{id:?} {wanted:?}");
        }
        // Its success proves nothing.
        assert_eq!(last(&events(Some("a"), 2)[..1], Some(&[]), None), Err(Cause::Unsupported));
    }

    #[test]
    fn where_nothing_is_left_to_install_nothing_fails() {
        let events =
            [event("2026-11-23T03:00:00Z", "a", CUMULATIVE, 4), event("2026-10-15T02:00:00Z", "b", CUMULATIVE, 2)];
        for (wanted, expected) in
            [(vec![], "2026-11-24"), (vec![("d", None)], "2026-11-24"), (vec![("c", Some(Class::Other))], "2026-10-15")]
        {
            let found = last_of(&events, Some(wanted.clone()), Some("2026-11-24T06:00:00Z"));
            assert_eq!(found, Ok(expected.to_owned()), "{wanted:?}");
        }
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
        for (categories, expected) in [
            (vec![Some(DRIVER.to_owned())], None),
            (
                vec![Some(DRIVER.to_owned()), Some("{CD5FFD1E-E932-4E3A-BF74-18BF0B1BBD83}".to_owned())],
                Some(Class::Other),
            ),
            (vec![Some(CUMULATIVE.to_owned()), Some(ROLLUP.to_owned())], Some(Class::Security)),
            (vec![None], Some(Class::Other)),
        ] {
            assert_eq!(wanted_class(&Update { categories, ..update("", None) }), expected);
        }
    }
}
