//! Fixtures: hosts, each told as a few changes of a sample host, and what a control must say of them.

use std::{collections::BTreeMap, sync::LazyLock};

use muster_proto::{
    fact::{Cause, Fact, Reading, Subject},
    id::AgentId,
    time::Timestamp,
};
use serde::Deserialize;

use super::{
    Acknowledged, Control, Error, Evidence, Judgement, Observed, Reporting, Verdict, acknowledged, catalogue, field,
    judge, mistake, sample,
};

/// A host, and what a control must say of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fixture {
    /// The control; empty beneath a control, which is meant then.
    #[serde(default)]
    pub control: String,
    /// What is shown.
    pub name: String,
    /// `pass`, `fail`, `unknown`, `no_data` or `not_applicable`.
    pub expect: String,
    /// A part of the reason that must be given.
    pub reason: Option<String>,
    /// Changes of the sample host: path, such as `firewall.inbound_ipv4` or `disk_encryption.volumes.0.encrypted`, and value as
    /// in the JSON of a fact; `{ unknown = { cause = "…" } }` is a reading that could not be told.
    #[serde(default)]
    pub set: BTreeMap<String, serde_json::Value>,
    /// Subjects that the host never reported.
    #[serde(default)]
    pub absent: Vec<Subject>,
    /// How long ago looks confirmed the facts, such as `30h`.
    pub age: Option<String>,
    /// How long ago the last report was received.
    pub silent: Option<String>,
    /// Host's clock minus collector's clock.
    #[serde(default)]
    pub skew_millis: i64,
    /// Paths of listed changes of files that an operator acknowledged in the state that was found.
    #[serde(default)]
    pub acknowledged: Vec<String>,
    /// When it is judged; else 2026-06-01T00:00:00Z.
    pub now: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    fixture: Vec<Fixture>,
}

/// Fixtures of the built-in controls.
static BUILT_IN: LazyLock<Vec<Fixture>> =
    LazyLock::new(|| parse(include_str!("fixtures.toml")).expect("a test parses the built-in fixtures"));

/// Returns the fixtures of the built-in controls.
pub(super) fn built_in() -> &'static [Fixture] {
    &BUILT_IN
}

/// Returns the fixtures of a file.
pub(super) fn parse(text: &str) -> Result<Vec<Fixture>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    Ok(file.fixture)
}

/// Checks that `control` gives what its fixtures expect, and that they show each verdict that it must be shown to give.
pub(super) fn check<'a>(control: &Control, fixtures: impl Iterator<Item = &'a Fixture> + Clone) -> Result<(), Error> {
    for fixture in fixtures.clone() {
        fixture.run(control).fault.map_or(Ok(()), Err)?;
    }
    match missing(control, fixtures).into_iter().next() {
        Some(verdict) => Err(Error::NoFixture { control: control.id.clone(), verdict }),
        None => Ok(()),
    }
}

/// Returns the verdicts that `control` must be shown to give and no fixture expects: of a pass, a failure and, where a fact is read,
/// an unknown.
pub(super) fn missing<'a>(control: &Control, fixtures: impl Iterator<Item = &'a Fixture> + Clone) -> Vec<Verdict> {
    let mut needed = vec![Verdict::Pass, Verdict::Fail];
    if !control.subjects.is_empty() {
        needed.push(Verdict::Unknown);
    }
    needed.retain(|verdict| !fixtures.clone().any(|fixture| Verdict::parse(&fixture.expect) == Some(*verdict)));
    needed
}

/// What a control gave on a fixture.
#[derive(Debug)]
pub(super) struct Run {
    /// What it gave; `None` when the fixture is no host.
    pub judgement: Option<Judgement>,
    /// Why that is not what the fixture expects.
    pub fault: Option<Error>,
}

/// Checks that the condition of `control` is true, false or undecided on a host whose every fact is told.
pub(super) fn check_type(control: &Control) -> Result<(), Error> {
    let evidence = evidence_of(sample::healthy(), now(), Some(now()), 0);
    let (_, reason) = evidence.evaluate(control, evidence.class(), now());
    for broken in ["the condition is neither", "the condition does not fit"] {
        if reason.starts_with(broken) {
            return Err(Error::Field { control: control.id.clone(), field: "condition", why: reason });
        }
    }
    Ok(())
}

impl Fixture {
    /// Judges the host by `control`.
    pub fn run(&self, control: &Control) -> Run {
        let fault = |why| Some(Error::Fixture { control: control.id.clone(), name: self.name.clone(), why });
        if !self.control.is_empty() && self.control != control.id.as_str() {
            return Run { judgement: None, fault: fault(format!("stands beneath it and names {}", self.control)) };
        }
        let Some(expected) = Verdict::parse(&self.expect) else {
            let verdicts = Verdict::ALL.map(Verdict::as_str).join(", ");
            return Run {
                judgement: None,
                fault: fault(format!("expects `{}`, which is none of {verdicts}", self.expect)),
            };
        };
        let (evidence, now) = match self.evidence() {
            Ok(told) => told,
            Err(why) => return Run { judgement: None, fault: fault(why) },
        };
        let judged = judge(control, &evidence, now);
        let fault = match &self.reason {
            _ if judged.verdict != expected => {
                let reason = if judged.reason.is_empty() { String::new() } else { format!(" ({})", judged.reason) };
                fault(format!("gives {}{reason}, not {expected}", judged.verdict))
            }
            Some(part) if !judged.reason.contains(part) => {
                fault(format!("gives the reason \"{}\", without \"{part}\"", judged.reason))
            }
            _ => None,
        };
        Run { judgement: Some(judged), fault }
    }

    /// Returns why the offenders of `control` name nothing of the host; `None` where they do, or there are none.
    pub fn unnamed(&self, control: &Control) -> Option<String> {
        let (evidence, now) = self.evidence().ok()?;
        match evidence.offenders(control, now)? {
            Ok(items) if items.is_empty() => Some("they are a list without a text or a number".to_owned()),
            Ok(_) => None,
            Err(why) => Some(why),
        }
    }

    /// Returns the evidence of the host, and when it is judged.
    pub fn evidence(&self) -> Result<(Evidence, Timestamp), String> {
        let now = self.now.unwrap_or_else(now);
        let before = |age: &Option<String>| match age {
            Some(age) => catalogue::duration(age).map(|age| now.minus(age)),
            None => Ok(now),
        };
        let mut facts = Vec::new();
        for fact in sample::healthy() {
            if self.absent.contains(&fact.subject()) {
                continue;
            }
            facts.push(self.changed(&fact)?);
        }
        let subjects: Vec<&str> = facts.iter().map(|fact| fact.subject().as_str()).collect();
        if let Some(path) = self.set.keys().find(|path| !subjects.contains(&path.split('.').next().unwrap_or_default()))
        {
            return Err(format!("sets `{path}`, which is not of a reported subject"));
        }
        let silent = before(&self.silent)?;
        let acknowledged = self.acknowledged(&facts)?;
        let evidence = evidence_of(facts, before(&self.age)?.min(silent), Some(silent), self.skew_millis);
        Ok((Evidence { acknowledged, ..evidence }, now))
    }

    fn acknowledged(&self, facts: &[Fact]) -> Result<Acknowledged, String> {
        let changes = facts.iter().find_map(|fact| match fact {
            Fact::FileIntegrity(Reading::Known(files)) => Some(files.changes.as_slice()),
            _ => None,
        });
        let mut acknowledged = Acknowledged::default();
        for path in &self.acknowledged {
            let change = changes.unwrap_or_default().iter().find(|change| change.path.as_str() == path);
            let change = change.ok_or_else(|| format!("acknowledges `{path}`, which is no change of the host"))?;
            acknowledged.insert(path, change.after_digest(), 0);
        }
        Ok(acknowledged)
    }

    fn changed(&self, fact: &Fact) -> Result<Fact, String> {
        let subject = fact.subject().as_str();
        let set: Vec<(&str, &serde_json::Value)> =
            self.set.iter().map(|(path, value)| (path.as_str(), value)).collect();
        let set: Vec<_> = set.into_iter().filter(|(path, _)| path.split('.').next() == Some(subject)).collect();
        let json = changed_state(fact, &set)?;
        let changed = as_fact(subject, json).map_err(|error| not_held(fact, &set, &error))?;
        // A misspelt field would be dropped without a word, and the fixture would show nothing.
        let mut kept = sample::state(&changed);
        acknowledged::fill(&mut kept, &changed);
        for (path, _) in set {
            let pointer = path.split('.').skip(1).map(|part| format!("/{part}")).collect::<String>();
            if kept.pointer(&pointer).is_none() {
                let (above, names) = field::beside(&sample::schema(&serde_json::Map::new()), &in_lists(path));
                return Err(format!("sets `{path}`, which {subject} does not have; {above} has: {}", names.join(", ")));
            }
        }
        Ok(changed)
    }
}

/// Returns the JSON of the state of `fact` with other values at some paths.
fn changed_state(fact: &Fact, set: &[(&str, &serde_json::Value)]) -> Result<serde_json::Value, String> {
    let subject = fact.subject().as_str();
    let mut json = serde_json::json!({ subject: sample::state(fact) });
    for (path, value) in set {
        let mut at = &mut json;
        for part in path.split('.') {
            at = match part.parse::<usize>() {
                Ok(index) => at.get_mut(index),
                Err(_) => at.as_object_mut().map(|fields| fields.entry(part).or_insert(serde_json::Value::Null)),
            }
            .ok_or_else(|| format!("sets `{path}`, which no fact has"))?;
        }
        *at = (*value).clone();
    }
    Ok(json[subject].take())
}

fn as_fact(subject: &str, state: serde_json::Value) -> Result<Fact, serde_json::Error> {
    serde_json::from_value(serde_json::json!({ "subject": subject, "state": state }))
}

/// Says which of the values of `set` makes `fact` none, and what may stand there.
fn not_held(fact: &Fact, set: &[(&str, &serde_json::Value)], error: &serde_json::Error) -> String {
    let subject = fact.subject().as_str();
    let is_fact = |set: &[(&str, &serde_json::Value)]| {
        changed_state(fact, set).is_ok_and(|state| as_fact(subject, state).is_ok())
    };
    let without = |left_out: usize| {
        let rest: Vec<_> =
            set.iter().enumerate().filter(|(index, _)| *index != left_out).map(|(_, one)| *one).collect();
        is_fact(&rest)
    };
    // Of two that are wrong, each makes it none alone.
    let alone = || set.iter().find(|one| !is_fact(&[**one]));
    let Some((path, value)) = (0..set.len()).find(|index| without(*index)).map(|index| &set[index]).or_else(alone)
    else {
        return format!("makes {subject} no fact: {error}");
    };
    let place = in_lists(path);
    let absent = serde_json::json!({ "unknown": { "cause": "absent" } });
    let takes_unknown = is_fact(&[(*path, &absent)]);
    let words = mistake::words(&place);
    let what = match field::all(&place).into_iter().find(|field| field.path == place) {
        _ if value.get("unknown").is_some() && takes_unknown => {
            let causes = Cause::ALL.iter().filter_map(|cause| serde_json::to_value(cause).ok()).collect::<Vec<_>>();
            let causes: Vec<&str> = causes.iter().filter_map(serde_json::Value::as_str).collect();
            format!("{{ unknown = {{ cause = \"…\", detail = \"…\" }} }}, with a cause of: {}", causes.join(", "))
        }
        _ if !words.is_empty() => format!("one of: {}", words.join(", ")),
        Some(field) if field.kind.starts_with("seconds") => "a time, such as \"2026-06-01T00:00:00Z\"".to_owned(),
        Some(field) if field.kind == "yes or no" => "true or false".to_owned(),
        Some(field) => format!("a {}", field.kind),
        None => return format!("makes {subject} no fact by `{path}`: {error}"),
    };
    let or_unknown = if takes_unknown && value.get("unknown").is_none() { ", or unknown with its cause" } else { "" };
    format!("sets `{path}` to {value}, which it cannot hold; it takes {what}{or_unknown}")
}

/// Returns a path of a fixture as conditions write it: `listeners.listeners[].port` of `listeners.listeners.0.port`.
fn in_lists(path: &str) -> String {
    let mut place = String::new();
    for part in path.split('.') {
        match part.parse::<usize>() {
            Ok(_) => place.push_str("[]"),
            Err(_) if place.is_empty() => place.push_str(part),
            Err(_) => place.extend([".", part]),
        }
    }
    place
}

fn now() -> Timestamp {
    Timestamp::from_seconds(sample::NOW_SECONDS).expect("in range")
}

/// Returns the evidence of a host with `facts`, all confirmed at one time.
pub(super) fn evidence_of(
    facts: Vec<Fact>,
    confirmed: Timestamp,
    last_received: Option<Timestamp>,
    skew_millis: i64,
) -> Evidence {
    Evidence {
        host: AgentId::new([7; 16]),
        facts: facts.into_iter().map(|fact| (fact.subject(), Observed::new(fact, confirmed))).collect(),
        reporting: Reporting { last_received, skew_millis },
        acknowledged: Acknowledged::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_a_field_cannot_hold_is_named_with_what_it_takes() {
        for (set, told) in [
            (
                "\"listeners.listeners.0.protocol\" = \"TCP\"",
                "sets `listeners.listeners.0.protocol` to \"TCP\", which it cannot hold; it takes one of: tcp, udp",
            ),
            (
                "\"system.processors\" = \"2\"",
                "sets `system.processors` to \"2\", which it cannot hold; it takes a whole number, or unknown with its cause",
            ),
            (
                "\"system.host_class\" = \"Laptop\", \"system.processors\" = 1",
                "sets `system.host_class` to \"Laptop\", which it cannot hold; it takes one of: container, desktop, laptop, \
                 server, vm, or unknown with its cause",
            ),
            (
                "\"system.hostname\" = { unknown = { cause = \"hiden\" } }",
                "cannot hold; it takes { unknown = { cause = \"…\", detail = \"…\" } }, with a cause of: absent, stale, ",
            ),
            (
                "\"listeners.listeners.0.port\" = { unknown = { cause = \"hidden\" } }",
                "`listeners.listeners.0.port` to {\"unknown\":{\"cause\":\"hidden\"}}, which it cannot hold; it takes a whole number",
            ),
            ("\"clock.last_sync_time\" = 5", "it takes a time, such as \"2026-06-01T00:00:00Z\", or unknown"),
            ("\"system.clock_synchronized\" = \"yes\"", "it takes true or false, or unknown with its cause"),
            // Two that are wrong.
            (
                "\"listeners.listeners.0.port\" = \"x\", \"listeners.listeners.0.protocol\" = \"TCP\"",
                "0.port` to \"x\"",
            ),
            ("\"software\" = { packages = 5 }", "makes software no fact by `software`: "),
            (
                "\"system.procesors\" = 1",
                "sets `system.procesors`, which system does not have; system has: architecture, clock_synchronized, ",
            ),
            (
                "\"disk_encryption.volumes.0.encryptd\" = true",
                "which disk_encryption does not have; disk_encryption.volumes[] has: encrypted, ",
            ),
            (
                "\"disk_encryption.volumes.9.encrypted\" = true",
                "sets `disk_encryption.volumes.9.encrypted`, which no fact has",
            ),
        ] {
            let text = format!("[[fixture]]\nname = \"n\"\nexpect = \"pass\"\nset = {{ {set} }}");
            let why = parse(&text).unwrap()[0].evidence().unwrap_err();
            assert!(why.contains(told), "{set}: {why}");
        }
    }
}
