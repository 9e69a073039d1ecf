//! Controls, and the one rule that turns evidence into a verdict.
//!
//! Everything here is a pure function of values: no clock, no store, no network. The collector judges with it, and whoever
//! verifies a snapshot judges again with the same code. "Cannot tell" is [`Verdict::Unknown`] and never [`Verdict::Pass`].

mod acknowledged;
mod catalogue;
mod cost;
pub mod coverage;
mod evidence;
mod expression;
pub mod field;
mod fixture;
mod framework;
pub mod mistake;
pub mod reports;
pub(crate) mod sample;
pub mod statement;
mod support;
pub mod trial;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use muster_proto::{
    fact::{HostClass, Subject},
    id::{AgentId, ControlId},
    time::Timestamp,
    v1,
};

pub use acknowledged::Acknowledged;
pub use catalogue::{Catalogue, Error, Overlay, Texts};
pub use evidence::{Evidence, Observed, Reporting};
pub use expression::Expression;
pub use statement::Statement;

/// Items that a reason names, at most; the rest is counted.
const NAMED_ITEMS: usize = 8;
/// Bytes of one named item of a reason, at most.
const ITEM_BYTES: usize = 160;

/// Every class of host.
const CLASSES: [HostClass; 5] =
    [HostClass::Laptop, HostClass::Desktop, HostClass::Server, HostClass::Vm, HostClass::Container];

/// Beginning of the reason of a pass that rests on the statement of a provider.
const BY_STATEMENT: &str = "by the statement of ";
/// Beginning of the reason of a pass that rests on what operators acknowledged.
const WITH_ACKNOWLEDGED: &str = "with changes that operators acknowledged: ";

/// What a control says of a host.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// The facts are present and fresh and the condition holds.
    Pass,
    /// The facts that decide are present and fresh and the condition does not hold.
    Fail,
    /// The host reported, but a needed fact could not be told.
    Unknown,
    /// No report is fresh enough, or none was about what would decide.
    NoData,
    /// The control does not apply to this host.
    NotApplicable,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 5] = [Self::Pass, Self::Fail, Self::Unknown, Self::NoData, Self::NotApplicable];

    /// Returns its name, such as `no_data`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
            Self::NoData => "no_data",
            Self::NotApplicable => "not_applicable",
        }
    }

    /// Returns the verdict of a name, upper or lower case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str().eq_ignore_ascii_case(text))
    }

    /// Returns the wire form.
    pub fn to_wire(self) -> v1::Verdict {
        match self {
            Self::Pass => v1::Verdict::Pass,
            Self::Fail => v1::Verdict::Fail,
            Self::Unknown => v1::Verdict::Unknown,
            Self::NoData => v1::Verdict::NoData,
            Self::NotApplicable => v1::Verdict::NotApplicable,
        }
    }

    /// Returns how bad it is: fail, unknown, no data, pass, not applicable, the worst with the smallest number.
    pub fn badness(self) -> u8 {
        match self {
            Self::Fail => 0,
            Self::Unknown => 1,
            Self::NoData => 2,
            Self::Pass => 3,
            Self::NotApplicable => 4,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad a finding is, the worst first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Fix first.
    Critical,
    /// Fix within days.
    High,
    /// Fix within weeks.
    Medium,
    /// Fix when convenient.
    Low,
}

impl Severity {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }

    /// Returns the wire form.
    pub fn to_wire(self) -> v1::Severity {
        match self {
            Self::Critical => v1::Severity::Critical,
            Self::High => v1::Severity::High,
            Self::Medium => v1::Severity::Medium,
            Self::Low => v1::Severity::Low,
        }
    }
}

/// A requirement of a framework that a control's evidence supports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mapping {
    /// Framework with version, such as `soc2`.
    pub framework: String,
    /// Identifier of the requirement.
    pub requirement: String,
    /// `high`, `medium` or `low`.
    pub confidence: String,
}

/// A value for each class of host, with a default.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ByClass<T> {
    /// For classes that are not named.
    pub default: T,
    /// For these classes.
    pub classes: BTreeMap<HostClass, T>,
}

impl<T: Ord> ByClass<T> {
    /// Returns the value for `class`; a class that could not be told takes the least of all.
    pub fn of(&self, class: Option<HostClass>) -> &T {
        match class {
            Some(class) => self.classes.get(&class).unwrap_or(&self.default),
            None => self.classes.values().chain([&self.default]).min().unwrap_or(&self.default),
        }
    }
}

/// A control: what is asked of a host, and how it is told whether it holds.
#[derive(Debug)]
pub struct Control {
    /// Its id.
    pub id: ControlId,
    /// Its title.
    pub title: String,
    /// What it asks, in words.
    pub statement: String,
    /// Its family, such as `encryption`.
    pub family: String,
    /// Host classes that it applies to; empty means all.
    pub applies_to: Vec<HostClass>,
    /// True when the control holds. Reads facts, `reporting`, `support`, `param`, `host` and `now`.
    pub condition: Expression,
    /// A list of texts that name what makes the condition false.
    pub offenders: Option<Expression>,
    /// Its parameters. A table with the key `*` is a value by host class.
    pub parameters: serde_json::Map<String, serde_json::Value>,
    /// How bad a failure is.
    pub severity: Severity,
    /// For how long an observation holds.
    pub max_age: ByClass<Duration>,
    /// Within which time a failure is to be remedied, as text such as `3d`.
    pub remediation_limit: String,
    /// What to do when it fails.
    pub hint: String,
    /// What it does not show.
    pub limits: String,
    /// Requirements that its evidence supports, ordered.
    pub mappings: Vec<Mapping>,
    /// Subjects whose facts it rests on, ordered.
    pub subjects: Vec<Subject>,
    /// Statements of providers that may stand in for hidden readings, in order of the file.
    pub statements: Vec<Statement>,
    /// Reference table behind the variable `support`.
    support: Arc<support::Table>,
    /// Whether it reads when the host last reported, or the skew of its clock.
    pub reads_reporting: bool,
    /// Whether it reads the skew of the host's clock.
    pub reads_skew: bool,
    /// Whether it reads times by the host's clock.
    pub reads_host_times: bool,
    /// Whether the verdict can change by the passing of time alone, staleness aside.
    pub reads_now: bool,
    /// Whether it reads which changes of files operators acknowledged.
    pub reads_acknowledged: bool,
    /// Whether what it says may depend on the class of the host, beside how long an observation holds.
    pub reads_class: bool,
}

/// What a control says of a host, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, for a person. Empty for a pass that rests on observations alone.
    pub reason: String,
    /// Subjects that it rests on, ordered. Empty for a control that does not apply.
    pub subjects: Vec<Subject>,
}

impl Judgement {
    /// Returns whether it is a pass by the statement of a provider, not by observations alone.
    pub fn is_by_statement(&self) -> bool {
        self.verdict == Verdict::Pass && self.reason.starts_with(BY_STATEMENT)
    }
}

/// The first change of a verdict that time alone will bring.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Turn {
    /// From when on, to the second.
    pub at: Timestamp,
    /// What holds from then on.
    pub judgement: Judgement,
}

/// Returns what `control` says of a host at `now`, the collector's clock.
pub fn judge(control: &Control, evidence: &Evidence, now: Timestamp) -> Judgement {
    let class = evidence.class();
    if let Some(class) = class
        && !control.applies_to.is_empty()
        && !control.applies_to.contains(&class)
    {
        let reason = format!("does not apply to hosts of class {}", class.as_str());
        return Judgement { verdict: Verdict::NotApplicable, reason, subjects: Vec::new() };
    }
    let verdict = |verdict, reason| Judgement { verdict, reason, subjects: control.subjects.clone() };
    if is_unheard(control, evidence) {
        return verdict(Verdict::NoData, "nothing was reported so far".to_owned());
    }
    let missing = missing(control, evidence);
    if let Some(subject) = later(control, evidence, now) {
        let after = || (Verdict::Unknown, format!("{} is known from after the instant alone", subject.as_str()));
        let (judged, reason) = missing.map_or_else(after, |reason| (Verdict::NoData, reason));
        return verdict(judged, reason);
    }
    if let Some((_, reason)) = stale(control, evidence).filter(|(until, _)| *until <= now) {
        return verdict(Verdict::NoData, missing.unwrap_or(reason));
    }
    let (judged, reason) = decided(control, evidence, class, now);
    verdict(judged, reason)
}

/// Returns what the condition says of fresh facts. Where the host never reported about a subject that it reads, that is a failure which
/// the other facts make certain, or there is no data.
fn decided(control: &Control, evidence: &Evidence, class: Option<HostClass>, now: Timestamp) -> (Verdict, String) {
    let (verdict, reason) = evidence.evaluate(control, class, now);
    let applies = class.is_some() || control.applies_to.is_empty();
    match missing(control, evidence) {
        Some(why) if verdict != Verdict::Fail || !applies => (Verdict::NoData, why),
        _ => (verdict, reason),
    }
}

/// Returns from when on what was observed no longer holds, collector's clock, and the reason to give then.
///
/// `None` when nothing of it can go stale: a control that rests on no subject, or one without data.
pub fn stale(control: &Control, evidence: &Evidence) -> Option<(Timestamp, String)> {
    let max_age = *control.max_age.of(evidence.class());
    let (confirmed, subject) =
        control.subjects.iter().filter_map(|subject| Some((evidence.facts.get(subject)?.confirmed, *subject))).min()?;
    Some((confirmed.plus(max_age), stale_reason(subject, confirmed, max_age)))
}

/// Returns the reason for a verdict on evidence that no longer holds.
pub fn stale_reason(subject: Subject, confirmed: Timestamp, max_age: Duration) -> String {
    format!("{} was last confirmed at {}; that holds for {}", subject.as_str(), confirmed.to_second(), hours(max_age))
}

/// Returns the first change of `judged` within `horizon` after `now` that the condition, or the beginning or end of a statement, makes
/// by time alone.
///
/// Going stale is not counted: [`stale`] tells it. A condition that changes and changes back between two such instants is not found,
/// which conditions that compare an age with a limit do not do.
pub fn turn(
    control: &Control,
    evidence: &Evidence,
    now: Timestamp,
    judged: &Judgement,
    horizon: Duration,
) -> Option<Turn> {
    let by_condition = match judged.verdict {
        Verdict::Pass | Verdict::Fail | Verdict::Unknown => true,
        // What is fresh may come to be a failure, whatever was never reported.
        Verdict::NoData => {
            missing(control, evidence).is_some()
                && !is_unheard(control, evidence)
                && later(control, evidence, now).is_none()
                && stale(control, evidence).is_some_and(|(until, _)| until > now)
        }
        Verdict::NotApplicable => false,
    };
    if !control.reads_now || !by_condition {
        return None;
    }
    let class = evidence.class();
    let verdict_at = |time| decided(control, evidence, class, time);
    let turned =
        |seconds: &i64| Timestamp::from_seconds(*seconds).is_some_and(|time| verdict_at(time).0 != judged.verdict);
    let points = points(control, evidence.host, now, now.plus(horizon));
    let turned = points.iter().position(turned)?;
    let (mut before, mut after) = (turned.checked_sub(1).map_or(now.seconds(), |last| points[last]), points[turned]);
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        if verdict_at(Timestamp::from_seconds(middle)?).0 == judged.verdict { before = middle } else { after = middle }
    }
    let at = Timestamp::from_seconds(after)?;
    let (verdict, reason) = verdict_at(at);
    Some(Turn { at, judgement: Judgement { verdict, reason, subjects: judged.subjects.clone() } })
}

/// Returns the seconds after `now` at which a statement about `host` begins or ends, and the last before each, and `end`, in order.
fn points(control: &Control, host: AgentId, now: Timestamp, end: Timestamp) -> Vec<i64> {
    let about = control.statements.iter().filter(|statement| statement.hosts.contains(&host));
    let edges = about.flat_map(|statement| [statement.from.seconds(), statement.until.seconds()]);
    let mut points: Vec<i64> = edges.flat_map(|edge| [edge - 1, edge]).chain([end.seconds()]).collect();
    points.retain(|point| (now.seconds() + 1..=end.seconds()).contains(point));
    points.sort_unstable();
    points.dedup();
    points
}

/// Returns whether nothing was reported that `control` could rest on.
fn is_unheard(control: &Control, evidence: &Evidence) -> bool {
    // What was observed by an instant and received after it counts, unless the question is when the host was heard.
    evidence.reporting.last_received.is_none() && (evidence.facts.is_empty() || control.reads_reporting)
}

/// Returns a subject of `control` that was confirmed after `now` alone.
fn later(control: &Control, evidence: &Evidence, now: Timestamp) -> Option<Subject> {
    let is_later = |subject: &Subject| evidence.facts.get(subject).is_some_and(|observed| observed.confirmed > now);
    control.subjects.iter().copied().find(is_later)
}

fn missing(control: &Control, evidence: &Evidence) -> Option<String> {
    missing_reason(control, |subject| evidence.facts.contains_key(&subject))
}

/// Returns the reason for a verdict without data of each subject of `control`; `None` where all were reported.
pub fn missing_reason(control: &Control, is_reported: impl Fn(Subject) -> bool) -> Option<String> {
    let names: Vec<&str> =
        control.subjects.iter().filter(|subject| !is_reported(**subject)).map(|subject| subject.as_str()).collect();
    (!names.is_empty()).then(|| format!("nothing was reported about {}", names.join(", ")))
}

/// Returns a duration as a person reads it: hours, or minutes below one hour.
fn hours(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    if minutes < 60 { format!("{minutes} min") } else { format!("{} h", minutes / 60) }
}

/// Returns the first few of `items`, and how many more there are.
fn named(items: &[String]) -> String {
    let mut text = items.iter().take(NAMED_ITEMS).map(String::as_str).collect::<Vec<_>>().join(", ");
    if items.len() > NAMED_ITEMS {
        text.push_str(&format!(" and {} more", items.len() - NAMED_ITEMS));
    }
    text
}

/// Returns the id of a host as it appears in conditions.
fn host_text(host: AgentId) -> String {
    host.to_string()
}

#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod tests;
