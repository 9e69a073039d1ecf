//! What is known of one host when it is judged, as the values that conditions read.
//!
//! Facts become CEL values with every reading that could not be told left out, and remembered by its path, so that a condition
//! that needs it says which reading was missing and why. Times become seconds since 1970, those by the host's clock on the collector's.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use cel::{
    Value,
    objects::{Key, Map},
};
use muster_proto::{
    fact::{self, Fact, HostClass, Reading, Subject, Unknown},
    id::AgentId,
    time::Timestamp,
};

use super::{
    Acknowledged, BY_STATEMENT, CLASSES, Control, ITEM_BYTES, Statement, Verdict, WITH_ACKNOWLEDGED, acknowledged,
    cost, expression::Cannot, host_text, named, reports,
};

/// Times of facts that the host's own clock gave, unlike those of publishers, and times of files, which anybody sets.
pub(super) const HOST_TIMES: [&str; 17] = [
    "accounts.accounts[].last_login_time",
    "accounts.accounts[].no_login_since_time",
    "accounts.accounts[].password_changed_time",
    "backup.clients[].last_success_time",
    "backup.stamps[].last_success_time",
    "capacity.boot_time",
    "clock.last_sync_time",
    "file_integrity.baseline.created_time",
    "file_integrity.changes[].detected_time",
    "file_integrity.changes[].last_unchanged_time",
    "file_integrity.explained[].first_detected_time",
    "file_integrity.explained[].last_detected_time",
    "file_integrity.open_changes[].detected_time",
    "logging.kept_since_time",
    "patch_level.automatic_updates.last_success_time",
    "patch_level.pending[].first_offered_time",
    "patch_level.reboot_required_since_time",
];
/// How much later than the look that told it such a time may seem, by the delay of the network and a clock that is set meanwhile.
const LATER: Duration = Duration::from_secs(600);

/// What is known of one host.
#[derive(Debug)]
pub struct Evidence {
    /// Whose.
    pub host: AgentId,
    /// Its facts by subject.
    pub facts: BTreeMap<Subject, Observed>,
    /// How it reports.
    pub reporting: Reporting,
    /// What operators acknowledged of it.
    pub acknowledged: Acknowledged,
}

/// A fact, and until when it was confirmed.
#[derive(Debug)]
pub struct Observed {
    /// The fact.
    pub fact: Fact,
    /// When a look confirmed it last, on the collector's clock: the host's time less the skew of its clock, and never later than
    /// the report that says so was received.
    pub confirmed: Timestamp,
    values: OnceCell<Values>,
}

impl Observed {
    /// Returns a fact that was confirmed last at `confirmed`, collector's clock.
    pub fn new(fact: Fact, confirmed: Timestamp) -> Self {
        Self { fact, confirmed, values: OnceCell::new() }
    }

    /// Returns the fact of encoded bytes; bytes that are none become an unknown fact about `subject`.
    pub fn decode(subject: Subject, bytes: &[u8], confirmed: Timestamp) -> Self {
        let fact = match Fact::decode(bytes) {
            Ok(fact) if fact.subject() == subject => fact,
            Ok(_) => Fact::unknown(subject, Unknown::new(fact::Cause::Garbled, "the fact is about another subject")),
            // A word of a later contract: the bytes are right and this build cannot read them.
            Err(error) if error.is_newer() => {
                Fact::unknown(subject, Unknown::new(fact::Cause::Unsupported, error.to_string()))
            }
            Err(error) => Fact::unknown(subject, Unknown::new(fact::Cause::Garbled, error.to_string())),
        };
        Self::new(fact, confirmed)
    }

    /// Returns its values; `acknowledged` and `reporting` are the same at each call.
    fn values(&self, acknowledged: &Acknowledged, reporting: &Reporting) -> &Values {
        self.values.get_or_init(|| Values::of(&self.fact, acknowledged, self.clock(reporting)))
    }

    /// Returns the clock of the host, by what `reporting` tells of it.
    fn clock(&self, reporting: &Reporting) -> HostClock {
        HostClock { ahead_minutes: reporting.ahead_minutes(), latest: self.confirmed.plus(LATER) }
    }
}

/// How a host reports, measured by the collector.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reporting {
    /// When its last report was received. `None` before the first.
    pub last_received: Option<Timestamp>,
    /// Host's clock minus collector's clock in the last report, in milliseconds.
    pub skew_millis: i64,
}

impl Reporting {
    /// Returns the minutes by which the host's clock is ahead of the collector's, rounded: what is measured anew with each connection
    /// differs by the delay of the network, and no time moves by that.
    pub fn ahead_minutes(&self) -> i64 {
        let half = if self.skew_millis < 0 { -30_000 } else { 30_000 };
        self.skew_millis.saturating_add(half) / 60_000
    }
}

/// The clock of a host beside the collector's.
#[derive(Clone, Copy, Debug)]
struct HostClock {
    /// How far it is ahead.
    ahead_minutes: i64,
    /// The latest time that it can have given, collector's clock.
    latest: Timestamp,
}

impl HostClock {
    /// Returns `time`, which it gave, on the collector's clock. `None` for one that it cannot have given, set as it is.
    fn on_collector(&self, time: Timestamp) -> Option<Timestamp> {
        let moved = reports::less_skew(time, self.ahead_minutes.saturating_mul(60_000));
        (moved <= self.latest).then_some(moved)
    }
}

/// The values of one fact, and what could not be told.
#[derive(Debug)]
struct Values {
    value: Value,
    notes: Notes,
}

/// What is found while a fact becomes a value.
#[derive(Debug, Default)]
struct Notes {
    /// By which times of the host are told.
    clock: Option<HostClock>,
    untold: Vec<Untold>,
    /// Items of the longest list at each path.
    items: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
struct Untold {
    /// As a condition writes it, without elements of lists: `disk_encryption.volumes[].encrypted`.
    path: String,
    /// As a person reads it: `disk_encryption.volumes[/home].encrypted`.
    name: String,
    why: String,
    /// Whether it is known not to be there.
    is_absent: bool,
}

impl Evidence {
    /// Returns the evidence of a host whose reports do not add up to a fact set: each subject is unknown(garbled).
    pub fn broken(host: AgentId, reporting: Reporting, detail: &str, since: Timestamp) -> Self {
        let confirmed = reporting.last_received.unwrap_or(since);
        let unknown = Unknown::new(fact::Cause::Garbled, detail);
        let facts = Subject::ALL
            .into_iter()
            .map(|subject| (subject, Observed::new(Fact::unknown(subject, unknown.clone()), confirmed)))
            .collect();
        Self { host, facts, reporting, acknowledged: Acknowledged::default() }
    }

    /// Returns the class of the host, as it says itself.
    pub fn class(&self) -> Option<HostClass> {
        match &self.facts.get(&Subject::System)?.fact {
            Fact::System(Reading::Known(system)) => system.host_class.known().copied(),
            _ => None,
        }
    }

    /// Returns what the condition of `control` says at `now`, whatever the age of the facts. Where the class could not be told, that is
    /// what it says by the parameters of each class alike.
    pub(super) fn evaluate(&self, control: &Control, class: Option<HostClass>, now: Timestamp) -> (Verdict, String) {
        let variants = parameters(control, class);
        let mut all: Vec<(Verdict, String)> =
            variants.iter().map(|parameters| self.evaluate_by(control, class, parameters, now)).collect();
        // What rests on no fact, as silence does, is judged again by no report: time alone may change it once, so that it stays open.
        let stays_open = control.subjects.is_empty() && all.len() > 1 && all[0].0 != Verdict::Pass;
        if stays_open || all.iter().any(|(verdict, _)| *verdict != all[0].0) {
            return (Verdict::Unknown, self.class_untold());
        }
        // Of passes, one that rests on somebody's word says so.
        let reasoned = all.iter().position(|(_, reason)| !reason.is_empty()).unwrap_or_default();
        all.swap_remove(reasoned)
    }

    /// Returns what the condition says by `parameters`: by what was observed, and where that leaves it open for hidden readings, by what
    /// a provider stated of them.
    fn evaluate_by(
        &self,
        control: &Control,
        class: Option<HostClass>,
        parameters: &serde_json::Value,
        now: Timestamp,
    ) -> (Verdict, String) {
        let observed = self.evaluate_with(control, class, parameters, now, None);
        match observed.0 {
            Verdict::Unknown => {}
            Verdict::Pass if control.reads_acknowledged => return (Verdict::Pass, self.acknowledged_reason()),
            _ => return observed,
        }
        // Of two that hold, the one that holds longer.
        let covering = control.statements.iter().filter(|statement| statement.covers(self.host, now));
        let stated = covering.max_by_key(|statement| statement.until);
        stated.and_then(|statement| self.by_statement(control, class, parameters, now, statement)).unwrap_or(observed)
    }

    /// Says why the class of the host could not be told.
    fn class_untold(&self) -> String {
        let untold = self.facts.get(&Subject::System).and_then(|observed| {
            let mut untold = self.values(observed).notes.untold.iter();
            untold.find(|untold| ["system", "system.host_class"].contains(&untold.path.as_str()))
        });
        untold.map_or_else(|| "system.host_class was not reported".to_owned(), Untold::describe)
    }

    /// Names the changes that are there and pass because operators acknowledged them.
    fn acknowledged_reason(&self) -> String {
        let fact = self.facts.get(&Subject::FileIntegrity).map(|observed| &observed.fact);
        let changes = fact.map(|fact| self.acknowledged.named(fact)).unwrap_or_default();
        if changes.is_empty() { String::new() } else { format!("{WITH_ACKNOWLEDGED}{}", named(&changes)) }
    }

    /// Returns the pass that `statement` makes of a condition that only hidden readings leave open.
    fn by_statement(
        &self,
        control: &Control,
        class: Option<HostClass>,
        parameters: &serde_json::Value,
        now: Timestamp,
        statement: &Statement,
    ) -> Option<(Verdict, String)> {
        let subject = statement.kind.subject();
        let observed = self.facts.get(&subject)?;
        let clock = observed.clock(&self.reporting);
        let (values, stated) = Values::stated(&observed.fact, statement.kind.reading(), clock);
        if stated.is_empty() {
            return None;
        }
        let (verdict, _) = self.evaluate_with(control, class, parameters, now, Some((subject, &values)));
        let reason = || format!("{BY_STATEMENT}{statement}, not by observation: {}", named(&stated));
        (verdict == Verdict::Pass).then(|| (verdict, reason()))
    }

    fn values<'a>(&self, observed: &'a Observed) -> &'a Values {
        observed.values(&self.acknowledged, &self.reporting)
    }

    /// Returns what the condition says, with other values of one subject when they are given.
    fn evaluate_with(
        &self,
        control: &Control,
        class: Option<HostClass>,
        parameters: &serde_json::Value,
        now: Timestamp,
        other: Option<(Subject, &Values)>,
    ) -> (Verdict, String) {
        let (support, support_untold) = self.support(control, now);
        let beside = Beside { class, parameters, support: &support, now, other };
        if let Some(steps) = self.too_many_steps(control, &control.condition) {
            let most = cost::STEPS;
            let why = format!("the facts are too many for the condition: {steps} steps, of {most} at most");
            return (Verdict::Unknown, why);
        }
        let absent = self.absent(control, &control.condition);
        match control.condition.evaluate(self.variables(&control.condition, &beside).into_iter(), absent) {
            Ok(Value::Bool(true)) => (Verdict::Pass, String::new()),
            Ok(Value::Bool(false)) => (Verdict::Fail, self.fail_reason(control, &beside)),
            Ok(_) => (Verdict::Unknown, "the condition is neither true nor false".to_owned()),
            Err(Cannot::Tell(why)) => (Verdict::Unknown, why),
            Err(Cannot::Broken(why)) => (Verdict::Unknown, format!("the condition does not fit the facts: {why}")),
            Err(Cannot::Absent(name)) => (Verdict::Unknown, self.untold_reason(control, &name, support_untold)),
        }
    }

    /// Returns what `support` is for the condition of `control`, and why it is not told.
    fn support(&self, control: &Control, now: Timestamp) -> (serde_json::Value, Option<String>) {
        if !control.condition.reads("support") {
            return (serde_json::Value::Null, None);
        }
        control.support.value(self.facts.get(&Subject::System).map(|observed| &observed.fact), now)
    }

    /// Returns the variables that `expression` reads.
    fn variables(&self, expression: &super::Expression, beside: &Beside<'_>) -> Vec<(&'static str, Value)> {
        let mut variables = vec![("now", Value::Int(beside.now.seconds()))];
        for subject in Subject::ALL.into_iter().filter(|subject| expression.reads(subject.as_str())) {
            let value = match (beside.other, self.facts.get(&subject)) {
                (Some((other, values)), _) if other == subject => values.value.clone(),
                (_, Some(observed)) => self.values(observed).value.clone(),
                // What was never reported is as little told as what is unknown.
                (_, None) => object(HashMap::new()),
            };
            variables.push((subject.as_str(), value));
        }
        if expression.reads("host") {
            variables.push(("host", to_cel(&self.host_value(beside.class))));
        }
        if expression.reads("reporting") {
            variables.push(("reporting", to_cel(&self.reporting_value(beside.now))));
        }
        if expression.reads("param") {
            variables.push(("param", to_cel(beside.parameters)));
        }
        if expression.reads("support") {
            variables.push(("support", to_cel(beside.support)));
        }
        variables
    }

    fn fail_reason(&self, control: &Control, beside: &Beside<'_>) -> String {
        match self.offenders_by(control, beside) {
            Ok(items) if !items.is_empty() => named(&items),
            _ => format!("not so: {}", control.title),
        }
    }

    /// Returns what the offenders of `control` name, or why they name nothing. None where it has no such expression.
    pub(super) fn offenders(&self, control: &Control, now: Timestamp) -> Option<Result<Vec<String>, String>> {
        control.offenders.as_ref()?;
        let class = self.class();
        let parameters = parameters(control, class).swap_remove(0);
        let (support, _) = self.support(control, now);
        let beside = Beside { class, parameters: &parameters, support: &support, now, other: None };
        Some(self.offenders_by(control, &beside))
    }

    fn offenders_by(&self, control: &Control, beside: &Beside<'_>) -> Result<Vec<String>, String> {
        let Some(offenders) = &control.offenders else { return Ok(Vec::new()) };
        if let Some(steps) = self.too_many_steps(control, offenders) {
            return Err(format!("the facts are too many for them: {steps} steps, of {} at most", cost::STEPS));
        }
        match offenders.evaluate(self.variables(offenders, beside).into_iter(), self.absent(control, offenders)) {
            Ok(Value::List(items)) => Ok(items.iter().filter_map(item_text).collect()),
            Ok(_) => Err("they are no list".to_owned()),
            Err(Cannot::Absent(name)) => Err(format!("{name} was not reported")),
            Err(Cannot::Tell(why) | Cannot::Broken(why)) => Err(why),
        }
    }

    /// Returns the steps of an expression of `control`, if they are more than it may take.
    fn too_many_steps(&self, control: &Control, expression: &super::Expression) -> Option<u64> {
        let notes = |subject| self.facts.get(subject).map(|observed| &self.values(observed).notes);
        // With lists of the usual lengths it was counted when it was loaded.
        let lists = || control.subjects.iter().filter_map(notes).flat_map(|notes| &notes.items);
        if lists().all(|(_, items)| *items <= cost::USUAL_ITEMS) {
            return None;
        }
        let items = |path: &str| {
            let of_fact = || lists().find(|(list, _)| *list == path).map(|(_, items)| *items);
            parameter_items(&control.parameters, path).or_else(of_fact).unwrap_or_default()
        };
        Some(expression.steps(&items)).filter(|steps| *steps > cost::STEPS)
    }

    /// Returns the paths of readings that are known to be absent, as far as an expression asks.
    fn absent(&self, control: &Control, expression: &super::Expression) -> BTreeSet<String> {
        if !expression.asks_absent() {
            return BTreeSet::new();
        }
        let facts = control.subjects.iter().filter_map(|subject| self.facts.get(subject));
        let untold = facts.flat_map(|observed| &self.values(observed).notes.untold);
        untold.filter(|untold| untold.is_absent).map(|untold| untold.path.clone()).collect()
    }

    /// Says which reading was missing, and why.
    fn untold_reason(&self, control: &Control, field: &str, support: Option<String>) -> String {
        let untold = || {
            control
                .subjects
                .iter()
                .filter_map(|subject| self.facts.get(subject))
                .flat_map(|o| &self.values(o).notes.untold)
        };
        let whole: Vec<String> = untold().filter(|untold| !untold.path.contains('.')).map(Untold::describe).collect();
        if !whole.is_empty() {
            return named(&whole);
        }
        if field == "end_time"
            && let Some(why) = support
        {
            return format!("support.end_time: {why}");
        }
        let paths = control.condition.paths();
        let suffix = format!(".{field}");
        let read: Vec<String> = untold()
            .filter(|untold| untold.path.ends_with(&suffix) && paths.contains(&untold.path))
            .map(Untold::describe)
            .collect();
        if read.is_empty() { format!("{field} was not reported") } else { named(&read) }
    }

    fn host_value(&self, class: Option<HostClass>) -> serde_json::Value {
        let mut host = serde_json::Map::new();
        host.insert("id".to_owned(), host_text(self.host).into());
        if let Some(class) = class {
            host.insert("class".to_owned(), class.as_str().into());
        }
        host.into()
    }

    fn reporting_value(&self, now: Timestamp) -> serde_json::Value {
        let mut reporting = serde_json::Map::new();
        reporting.insert("skew_millis".to_owned(), self.reporting.skew_millis.into());
        if let Some(received) = self.reporting.last_received {
            reporting.insert("silent_seconds".to_owned(), now.since(received).as_secs().into());
        }
        reporting.into()
    }
}

/// What expressions read beside the facts.
struct Beside<'a> {
    class: Option<HostClass>,
    parameters: &'a serde_json::Value,
    support: &'a serde_json::Value,
    now: Timestamp,
    /// Other values of one subject, when they are given.
    other: Option<(Subject, &'a Values)>,
}

impl Untold {
    fn describe(&self) -> String {
        cut(&format!("{}: {}", self.name, self.why))
    }
}

impl Values {
    fn of(fact: &Fact, acknowledged: &Acknowledged, clock: HostClock) -> Self {
        let subject = fact.subject().as_str();
        let mut json = serde_json::to_value(fact).ok().and_then(|mut json| Some(json.get_mut("state")?.take()));
        json.iter_mut().for_each(|json| acknowledged::add(json, fact, acknowledged));
        let mut notes = Notes { clock: Some(clock), ..Notes::default() };
        let value = json.and_then(|json| convert(json, subject, subject, &mut notes));
        Self { value: value.unwrap_or_else(|| object(HashMap::new())), notes }
    }

    /// Returns the values of `fact` with every hidden reading named `reading` true, and which those are.
    fn stated(fact: &Fact, reading: &str, clock: HostClock) -> (Self, Vec<String>) {
        let subject = fact.subject().as_str();
        let json = serde_json::to_value(fact).ok().and_then(|mut json| Some(json.get_mut("state")?.take()));
        let (mut notes, mut stated) = (Notes { clock: Some(clock), ..Notes::default() }, Vec::new());
        let value = json.and_then(|mut json| {
            tell_hidden(&mut json, reading, subject, &mut stated);
            // Whatever the order of fields is in.
            stated.sort_unstable();
            convert(json, subject, subject, &mut notes)
        });
        (Self { value: value.unwrap_or_else(|| object(HashMap::new())), notes }, stated)
    }
}

/// Makes every hidden reading named `reading` in `json` true, and names it in `stated`.
fn tell_hidden(json: &mut serde_json::Value, reading: &str, name: &str, stated: &mut Vec<String>) {
    let is_hidden = |value: &serde_json::Value| {
        value.as_object().and_then(as_unknown).is_some_and(|why| why.split(' ').next() == Some("hidden"))
    };
    match json {
        serde_json::Value::Array(items) => {
            for item in items {
                let name = format!("{name}[{}]", label(item));
                tell_hidden(item, reading, &name, stated);
            }
        }
        serde_json::Value::Object(fields) => {
            for (field, value) in fields {
                let name = format!("{name}.{field}");
                if field == reading && is_hidden(value) {
                    *value = serde_json::Value::Bool(true);
                    stated.push(cut(&name));
                } else {
                    tell_hidden(value, reading, &name, stated);
                }
            }
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

/// Returns the parameters of `control` for `class`; where that could not be told, each that a class has to which `control` applies.
fn parameters(control: &Control, class: Option<HostClass>) -> Vec<serde_json::Value> {
    let mut variants = Vec::new();
    let applies = |class: &HostClass| control.applies_to.is_empty() || control.applies_to.contains(class);
    let classes = class.map_or_else(|| CLASSES.into_iter().filter(applies).collect(), |class| vec![class]);
    for class in classes {
        let parameters = parameters_of(control, class);
        if !variants.contains(&parameters) {
            variants.push(parameters);
        }
    }
    variants
}

/// Returns the parameters of `control`, those by class resolved for `class`.
fn parameters_of(control: &Control, class: HostClass) -> serde_json::Value {
    let resolved = control.parameters.iter().map(|(name, value)| {
        let value = match value {
            serde_json::Value::Object(by_class) if by_class.contains_key("*") => {
                by_class.get(class.as_str()).unwrap_or(&by_class["*"])
            }
            value => value,
        };
        (name.clone(), value.clone())
    });
    resolved.collect::<serde_json::Map<_, _>>().into()
}

/// Returns how many items the parameter at `path`, such as `param.allow`, has: of one by class, the most. `None` where `path` is not
/// of a parameter.
pub(super) fn parameter_items(parameters: &serde_json::Map<String, serde_json::Value>, path: &str) -> Option<u64> {
    fn items(value: &serde_json::Value) -> u64 {
        match value {
            serde_json::Value::Array(items) => items.len() as u64,
            serde_json::Value::Object(fields) => fields.values().map(items).max().unwrap_or_default(),
            _ => 0,
        }
    }
    let name = path.strip_prefix("param.")?;
    match name.split_once("[]") {
        None => Some(items(parameters.get(name)?)),
        // Of an item, the longest list in it.
        Some((name, _)) => {
            let value = parameters.get(name)?;
            let lists = value.as_object().map_or_else(|| vec![value], |by_class| by_class.values().collect());
            let inner = lists.into_iter().filter_map(|list| list.as_array()).flatten();
            Some(inner.map(items).max().unwrap_or_default())
        }
    }
}

/// Returns the CEL value of JSON.
pub(super) fn to_cel(json: &serde_json::Value) -> Value {
    convert(json.clone(), "", "", &mut Notes::default()).unwrap_or(Value::Null)
}

/// Returns the CEL value of a fact's JSON, or `None` for a reading that could not be told, which is added to `notes`.
fn convert(json: serde_json::Value, path: &str, name: &str, notes: &mut Notes) -> Option<Value> {
    Some(match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::UInt(number.as_u64()?),
        },
        serde_json::Value::String(text) if path.ends_with("_time") => match text.parse::<Timestamp>() {
            Ok(time) => Value::Int(on_collector(time, path, name, notes)?.seconds()),
            Err(_) => Value::String(Arc::new(text)),
        },
        serde_json::Value::String(text) => Value::String(Arc::new(text)),
        serde_json::Value::Array(items) => {
            if let Some(longest) = notes.items.get_mut(path) {
                *longest = (*longest).max(items.len() as u64);
            } else {
                notes.items.insert(path.to_owned(), items.len() as u64);
            }
            let path = format!("{path}[]");
            let mut values = Vec::with_capacity(items.len());
            for item in items {
                let name = if path.is_empty() { String::new() } else { format!("{name}[{}]", label(&item)) };
                values.extend(convert(item, &path, &name, notes));
            }
            Value::List(Arc::new(values))
        }
        serde_json::Value::Object(fields) => {
            if let Some(unknown) = as_unknown(&fields) {
                let is_absent = unknown.split(' ').next() == Some("absent");
                notes.untold.push(Untold { path: path.to_owned(), name: name.to_owned(), why: unknown, is_absent });
                return None;
            }
            let mut map = HashMap::with_capacity(fields.len());
            for (field, value) in fields {
                let (path, name) = (format!("{path}.{field}"), format!("{name}.{field}"));
                if let Some(value) = convert(value, &path, &name, notes) {
                    map.insert(Key::String(Arc::new(field)), value);
                }
            }
            object(map)
        }
    })
}

/// Returns the time of a field on the collector's clock, or `None` for one that the host's clock cannot have given, which is added to
/// `notes`.
fn on_collector(time: Timestamp, path: &str, name: &str, notes: &mut Notes) -> Option<Timestamp> {
    let Some(clock) = notes.clock.filter(|_| is_host_time(path)) else { return Some(time) };
    let moved = clock.on_collector(time);
    if moved.is_none() {
        let why = "undecidable (it is later than the look that told it, by a clock that was set)".to_owned();
        notes.untold.push(Untold { path: path.to_owned(), name: name.to_owned(), why, is_absent: false });
    }
    moved
}

/// Returns whether the host's own clock gave the time at `path`.
pub(super) fn is_host_time(path: &str) -> bool {
    HOST_TIMES.contains(&path)
}

fn object(map: HashMap<Key, Value>) -> Value {
    Value::Map(Map { map: Arc::new(map) })
}

/// Returns cause and detail of `{"unknown": {"cause": …}}`.
fn as_unknown(fields: &serde_json::Map<String, serde_json::Value>) -> Option<String> {
    let unknown = fields.get("unknown").filter(|_| fields.len() == 1)?;
    let cause = unknown.get("cause")?.as_str()?;
    Some(match unknown.get("detail").and_then(serde_json::Value::as_str) {
        Some(detail) if !detail.is_empty() => format!("{cause} ({detail})"),
        _ => cause.to_owned(),
    })
}

/// Returns what a person calls an element of a list.
fn label(item: &serde_json::Value) -> &str {
    ["product", "mount_point", "path", "package", "name", "label", "device", "chain", "address", "kind", "user"]
        .iter()
        .find_map(|key| item.get(key)?.as_str())
        .unwrap_or("…")
}

fn item_text(item: &Value) -> Option<String> {
    match item {
        Value::String(text) => Some(cut(text)),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

fn cut(text: &str) -> String {
    fact::Text::cut(text, ITEM_BYTES).as_str().to_owned()
}
