//! The catalogue: the built-in controls, compiled in, and an operator's overlay of them. All checked when loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use muster_proto::{
    fact::{HostClass, Subject, is_unsafe},
    id::{ControlId, Digest},
    limits, v1,
};
use serde::Deserialize;

use super::{
    ByClass, Control, Expression, Mapping, Severity, acknowledged, cost, evidence,
    expression::{self, Shape, Use},
    fixture::{self, Fixture},
    framework,
    mistake::{self, Mistake},
    sample,
    statement::{self, Statement},
    support,
};

const BUILT_IN: &str = include_str!("catalogue.toml");
/// Domain of the digest of a catalogue.
const DOMAIN: &str = "muster/catalogue/v1";
/// Bytes of the texts of a catalogue together, at most: an entry of the log holds them all.
const TEXTS_BYTES: usize = limits::ENTRY_BYTES - 1024;

/// A catalogue or overlay is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not TOML of the documented shape.
    #[error("controls file is not as documented: {0}")]
    Text(String),
    /// An entry of the log cannot hold its texts.
    #[error(
        "controls file has {bytes} bytes; at most {} have a place beside the built-in controls", TEXTS_BYTES.saturating_sub(*beside)
    )]
    TooLong {
        /// Bytes of the overlay.
        bytes: usize,
        /// Bytes of the built-in texts.
        beside: usize,
    },
    /// An entry of the log does not hold the texts of a catalogue, or others than it says.
    #[error("the entry does not hold the texts of the catalogue that it names")]
    Entry,
    /// Two controls have one id.
    #[error("control {0} is defined twice")]
    Twice(ControlId),
    /// An overlay sets a parameter of a control that there is not.
    #[error("there is no control {0}")]
    UnknownControl(String),
    /// An overlay sets a parameter that the control does not have.
    #[error("control {control} has no parameter `{name}`")]
    UnknownParameter {
        /// The control.
        control: ControlId,
        /// The parameter.
        name: String,
    },
    /// A parameter has a value that the control cannot take.
    #[error("parameter `{name}` of control {control} must be {expected}, not {value}")]
    Parameter {
        /// The control.
        control: ControlId,
        /// The parameter.
        name: String,
        /// What it takes.
        expected: String,
        /// What it was given.
        value: String,
    },
    /// A mapping names a framework that there is not.
    #[error("control {control} names the framework `{framework}`, which is not known")]
    UnknownFramework {
        /// The control.
        control: ControlId,
        /// The framework.
        framework: String,
    },
    /// A mapping names a requirement that its framework does not have.
    #[error("control {control} names `{requirement}`, which is not among the identifiers of {framework}")]
    UnknownRequirement {
        /// The control.
        control: ControlId,
        /// The framework.
        framework: String,
        /// The requirement.
        requirement: String,
    },
    /// A field of a control has no value that makes sense.
    #[error("control {control} has a bad {field}: {why}")]
    Field {
        /// The control.
        control: ControlId,
        /// The field.
        field: &'static str,
        /// What is wrong.
        why: String,
    },
    /// An expression may not judge.
    #[error("control {control}: {source}")]
    Expression {
        /// The control.
        control: ControlId,
        /// Why.
        source: expression::Error,
    },
    /// A statement of a provider is not one that verdicts may rest on.
    #[error("statement {number} of the file: {why}")]
    Statement {
        /// Its place in the file, from 1.
        number: usize,
        /// What is wrong.
        why: String,
    },
    /// A control has no fixture for a verdict that it must be shown to give.
    #[error("control {control} has no fixture that expects {verdict}")]
    NoFixture {
        /// The control.
        control: ControlId,
        /// The verdict.
        verdict: super::Verdict,
    },
    /// A fixture does not give what it expects.
    #[error("control {control}: fixture \"{name}\" {why}")]
    Fixture {
        /// The control.
        control: ControlId,
        /// The fixture.
        name: String,
        /// What came instead.
        why: String,
    },
}

/// The controls that judge.
#[derive(Debug)]
pub struct Catalogue {
    texts: Texts,
    version: String,
    digest: Digest,
    controls: BTreeMap<ControlId, Control>,
}

/// What a catalogue is made of, and all of it: whoever has the texts can judge again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Texts {
    /// The built-in controls, TOML.
    pub built_in: String,
    /// The reference table of support dates, TOML.
    pub support: String,
    /// The operator's overlay, TOML; empty when there is none.
    pub overlay: String,
}

impl Texts {
    /// Returns their digest: SHA-256 over `muster/catalogue/v1`, a zero byte, and the texts with a zero byte between them.
    pub fn digest(&self) -> Digest {
        let Self { built_in, support, overlay } = self;
        Digest::of(DOMAIN, &[built_in.as_bytes(), &[0], support.as_bytes(), &[0], overlay.as_bytes()])
    }
}

/// An operator's changes: parameters of built-in controls, and controls of the operator's own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// By control id and name: values that replace those of the catalogue.
    #[serde(default)]
    pub parameters: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    /// Support dates that replace the built-in table as a whole: `as_of`, and `end` by `ID` of os-release and release.
    #[serde(default)]
    support: Option<support::Table>,
    /// More controls, each with its fixtures.
    #[serde(default)]
    pub(super) control: Vec<Definition>,
    /// Hosts, and what any control must say of them with these parameters.
    #[serde(default)]
    pub(super) fixture: Vec<Fixture>,
    /// What providers stated of hosts.
    #[serde(default)]
    pub(super) statement: Vec<Statement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    control: Vec<Definition>,
}

/// A control as files write it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Definition {
    pub(super) id: ControlId,
    pub(super) title: String,
    statement: String,
    family: String,
    #[serde(default)]
    applies_to: Vec<HostClass>,
    #[serde(default)]
    statements: Vec<statement::Kind>,
    condition: String,
    offenders: Option<String>,
    #[serde(default)]
    pub(super) parameters: serde_json::Map<String, serde_json::Value>,
    severity: Severity,
    /// By host class, `*` for the others: such as `24h`.
    max_age: BTreeMap<String, String>,
    remediation: Remediation,
    limits: String,
    #[serde(default)]
    mappings: BTreeMap<String, Vec<String>>,
    confidence: Option<Confidence>,
    #[serde(default)]
    pub(super) fixture: Vec<Fixture>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remediation {
    limit: String,
    hint: String,
}

/// How sure it is that evidence supports a requirement: the least first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "snake_case")]
enum Confidence {
    Low,
    Medium,
    High,
}

impl Confidence {
    fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::High, Self::Medium, Self::Low].into_iter().find(|confidence| confidence.as_str() == text)
    }
}

impl Catalogue {
    /// Returns the controls that are compiled in.
    ///
    /// # Panics
    ///
    /// Never: a test loads them.
    pub fn built_in() -> Self {
        Self::with_overlay("").expect("a test loads the built-in catalogue")
    }

    /// Returns the built-in controls with the operator's overlay, TOML, over them. An empty overlay changes nothing.
    ///
    /// # Errors
    ///
    /// When the overlay is refused: says which control and why.
    pub fn with_overlay(overlay: &str) -> Result<Self, Error> {
        Self::from_texts(Texts {
            built_in: BUILT_IN.to_owned(),
            support: support::BUILT_IN.to_owned(),
            overlay: overlay.trim().to_owned(),
        })
    }

    /// Returns the catalogue of `texts`, also those of another version of Muster.
    ///
    /// # Errors
    ///
    /// When a text is refused: says which control and why.
    pub fn from_texts(texts: Texts) -> Result<Self, Error> {
        let (bytes, beside) = (texts.overlay.len(), texts.built_in.len().saturating_add(texts.support.len()));
        if bytes.saturating_add(beside) > TEXTS_BYTES {
            return Err(Error::TooLong { bytes, beside });
        }
        let changes: Overlay = toml::from_str(&texts.overlay).map_err(|error| Error::Text(error.to_string()))?;
        let File { version, control: mut definitions } = File::parse(&texts.built_in)?;
        let built_in = support::Table::parse(&texts.support).map_err(Error::Text)?;
        let beside = Beside::new(changes.support.unwrap_or(built_in), changes.statement)?;
        for (id, parameters) in changes.parameters {
            let found = definitions.iter_mut().find(|definition| definition.id.as_str() == id);
            set_parameters(found.ok_or(Error::UnknownControl(id))?, parameters)?;
        }
        let mut controls = BTreeMap::new();
        for definition in definitions {
            insert(&mut controls, definition, &beside)?;
        }
        for definition in changes.control {
            let own = definition.fixture.clone();
            let id = definition.id.clone();
            insert(&mut controls, definition, &beside)?;
            fixture::check(&controls[&id], own.iter().chain(of_control(&changes.fixture, &id)))?;
        }
        for fixture in &changes.fixture {
            let control = fixture.control.parse().ok().and_then(|id: ControlId| controls.get(&id));
            let control = control.ok_or_else(|| Error::UnknownControl(fixture.control.clone()))?;
            fixture.run(control).fault.map_or(Ok(()), Err)?;
        }
        let digest = texts.digest();
        let version = match texts.overlay.is_empty() {
            true => version,
            false => format!("{version}+{}", &digest.to_string()[..12]),
        };
        Ok(Self { texts, version, digest, controls })
    }

    /// Returns the catalogue that an entry of the log puts in force.
    ///
    /// # Errors
    ///
    /// When the entry does not hold the texts that it names, or a text is refused.
    pub fn from_entry(entry: &v1::CatalogueVersion) -> Result<Self, Error> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Error::Entry);
        let texts =
            Texts { built_in: text(&entry.built_in)?, support: text(&entry.support)?, overlay: text(&entry.overlay)? };
        if texts.digest().as_bytes().as_slice() != entry.digest {
            return Err(Error::Entry);
        }
        Self::from_texts(texts)
    }

    /// Returns the entry of the log that puts it in force.
    pub fn to_entry(&self) -> v1::CatalogueVersion {
        let Texts { built_in, support, overlay } = self.texts.clone();
        v1::CatalogueVersion {
            version: self.version.clone(),
            digest: self.digest.as_bytes().to_vec(),
            built_in: built_in.into_bytes(),
            support: support.into_bytes(),
            overlay: overlay.into_bytes(),
        }
    }

    /// Returns what it is made of.
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// Returns its version: that of the built-in controls, and a part of the digest where an overlay changes them.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the digest of its text: the controls, the reference tables and the overlay.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the text of the built-in controls, as TOML.
    pub fn built_in_text() -> &'static str {
        BUILT_IN
    }

    /// Returns the controls in order of id.
    pub fn controls(&self) -> impl ExactSizeIterator<Item = &Control> {
        self.controls.values()
    }

    /// Returns what its controls do that cannot be meant, with the control.
    pub fn mistakes(&self) -> impl Iterator<Item = (&ControlId, Mistake)> {
        self.controls().flat_map(|control| mistake::of(control).into_iter().map(|mistake| (&control.id, mistake)))
    }

    /// Returns a control.
    pub fn control(&self, id: &str) -> Option<&Control> {
        self.controls.get(&id.parse::<ControlId>().ok()?)
    }
}

impl File {
    fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| Error::Text(error.to_string()))
    }
}

/// What controls are judged with beside the facts.
#[derive(Clone, Debug)]
pub(super) struct Beside {
    support: Arc<support::Table>,
    statements: Arc<[Statement]>,
}

impl Beside {
    fn new(support: support::Table, statements: Vec<Statement>) -> Result<Self, Error> {
        statement::check(&statements).map_err(|(number, why)| Error::Statement { number, why })?;
        Ok(Self { support: Arc::new(support), statements: statements.into() })
    }

    /// Returns the built-in reference table with the statements of a file.
    pub fn built_in(statements: Vec<Statement>) -> Result<Self, Error> {
        Self::new(support::Table::parse(support::BUILT_IN).expect("a test parses the built-in table"), statements)
    }
}

/// Returns the built-in controls as they are written.
pub(super) fn built_in_definitions() -> Vec<Definition> {
    File::parse(BUILT_IN).expect("a test loads the built-in catalogue").control
}

/// Returns those of `fixtures` that are of the control `id`.
pub(super) fn of_control<'a>(fixtures: &'a [Fixture], id: &'a ControlId) -> impl Iterator<Item = &'a Fixture> + Clone {
    fixtures.iter().filter(|fixture| fixture.control == id.as_str())
}

fn insert(controls: &mut BTreeMap<ControlId, Control>, definition: Definition, beside: &Beside) -> Result<(), Error> {
    let control = build(definition, beside)?;
    if controls.contains_key(&control.id) {
        return Err(Error::Twice(control.id));
    }
    controls.insert(control.id.clone(), control);
    Ok(())
}

/// Replaces values of parameters, each by one of the same type.
pub(super) fn set_parameters(
    definition: &mut Definition,
    parameters: serde_json::Map<String, serde_json::Value>,
) -> Result<(), Error> {
    for (name, value) in parameters {
        let control = &definition.id;
        let Some(old) = definition.parameters.get_mut(&name) else {
            return Err(Error::UnknownParameter { control: control.clone(), name });
        };
        if !same_type(old, &value) {
            let (control, value) = (control.clone(), value.to_string());
            return Err(Error::Parameter { control, name, expected: expected(old), value });
        }
        *old = value;
    }
    Ok(())
}

fn same_type(old: &serde_json::Value, new: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Bool, Number, Object, String};
    match (old, new) {
        (Bool(_), Bool(_)) | (String(_), String(_)) => true,
        (Number(_), Number(_)) => are_whole(new),
        (Array(old), Array(new)) => old.first().is_none_or(|old| new.iter().all(|new| same_type(old, new))),
        (Object(old), Object(new)) => {
            let default = old.get("*");
            new.contains_key("*") == default.is_some()
                && new.iter().all(|(class, new)| {
                    old.get(class).or(default).is_some_and(|old| same_type(old, new))
                        && (class == "*" || HostClass::parse(class).is_some())
                })
        }
        _ => false,
    }
}

/// Returns whether every number in `value` is one that conditions can count with: whole, not negative, and small enough that seconds
/// in that many days are a number still.
fn are_whole(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => number.as_u64().is_some_and(|number| number <= u32::MAX.into()),
        serde_json::Value::Array(items) => items.iter().all(are_whole),
        serde_json::Value::Object(fields) => fields.values().all(are_whole),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::String(_) => true,
    }
}

/// Says what a parameter takes that has the value `old`.
fn expected(old: &serde_json::Value) -> String {
    match old {
        serde_json::Value::Null => "nothing".to_owned(),
        serde_json::Value::Bool(_) => "true or false".to_owned(),
        serde_json::Value::Number(_) => format!("a whole number from 0 to {}", u32::MAX),
        serde_json::Value::String(_) => "a text".to_owned(),
        serde_json::Value::Array(items) => match items.first() {
            Some(item) => format!("a list, each item {}", expected(item)),
            None => "a list".to_owned(),
        },
        serde_json::Value::Object(by_class) => {
            let value = by_class.get("*").map_or_else(|| "a value".to_owned(), expected);
            format!("a table with `*` and classes of hosts, each with {value}")
        }
    }
}

/// Builds the control of a definition, checked in all but its fixtures.
pub(super) fn build(definition: Definition, beside: &Beside) -> Result<Control, Error> {
    let id = definition.id;
    let bad = |field, why: String| Error::Field { control: id.clone(), field, why };
    for (field, text) in [
        ("title", &definition.title),
        ("statement", &definition.statement),
        ("family", &definition.family),
        ("limits", &definition.limits),
        ("hint", &definition.remediation.hint),
    ] {
        if text.trim().is_empty() || text.len() > 1024 || text.chars().any(is_unsafe) {
            return Err(bad(
                field,
                "it is empty, longer than 1024 bytes, or has control or invisible characters".to_owned(),
            ));
        }
    }
    for (name, value) in &definition.parameters {
        if !are_whole(value) {
            let (name, value) = (name.clone(), value.to_string());
            let expected = format!("made of whole numbers from 0 to {}", u32::MAX);
            return Err(Error::Parameter { control: id, name, expected, value });
        }
    }
    let schema = sample::schema(&definition.parameters);
    let items = |path: &str| match evidence::parameter_items(&definition.parameters, path) {
        Some(items) => items,
        None if Shape::may_be_list(&schema, path) => cost::USUAL_ITEMS,
        None => 0,
    };
    let parse = |source: &str, usage| {
        let expression = Expression::parse(source, &schema, usage).and_then(|expression| {
            let steps = expression.steps(&items);
            if steps > cost::STEPS { Err(expression::Error::TooManySteps { steps }) } else { Ok(expression) }
        });
        expression.map_err(|source| Error::Expression { control: id.clone(), source })
    };
    let condition = parse(&definition.condition, Use::Condition)?;
    let offenders = definition.offenders.as_deref().map(|source| parse(source, Use::Offenders)).transpose()?;
    let mut subjects: BTreeSet<Subject> =
        Subject::ALL.into_iter().filter(|subject| condition.reads(subject.as_str())).collect();
    if condition.reads("support") {
        subjects.insert(Subject::System);
    }
    if subjects.is_empty() && !condition.reads("reporting") {
        return Err(bad("condition", "it reads no fact".to_owned()));
    }
    let takes = |statement: &&Statement| definition.statements.contains(&statement.kind);
    let statements: Vec<Statement> = beside.statements.iter().filter(takes).cloned().collect();
    if let Some(kind) = definition.statements.iter().find(|kind| !subjects.contains(&kind.subject())) {
        return Err(bad("statements", format!("the condition does not read {}", kind.subject().as_str())));
    }
    let max_age = by_class(&definition.max_age).map_err(|why| bad("max_age", why))?;
    let reads_now =
        condition.reads("now") || condition.reads("reporting") || condition.reads("support") || !statements.is_empty();
    let expressions = || [Some(&condition), offenders.as_ref()].into_iter().flatten();
    let reads_host_times = expressions().flat_map(Expression::paths).any(|path| evidence::is_host_time(path));
    let control = Control {
        reads_class: !definition.applies_to.is_empty()
            || definition.parameters.values().any(is_by_class)
            || condition.reads("host")
            // What can turn is sought for as long as an observation holds.
            || reads_now && !max_age.classes.is_empty(),
        max_age,
        remediation_limit: duration(&definition.remediation.limit)
            .map(|_| definition.remediation.limit)
            .map_err(|why| bad("remediation.limit", why))?,
        mappings: mappings(&id, definition.mappings, definition.confidence)?,
        support: Arc::clone(&beside.support),
        reads_reporting: condition.reads("reporting"),
        reads_host_times,
        reads_skew: condition.paths().contains("reporting.skew_millis"),
        reads_now,
        reads_acknowledged: acknowledged::is_read_by(&condition),
        statements,
        id,
        title: definition.title,
        statement: definition.statement,
        family: definition.family,
        applies_to: definition.applies_to,
        condition,
        offenders,
        parameters: definition.parameters,
        severity: definition.severity,
        hint: definition.remediation.hint,
        limits: definition.limits,
        subjects: subjects.into_iter().collect(),
    };
    fixture::check_type(&control)?;
    Ok(control)
}

fn mappings(
    control: &ControlId,
    mappings: BTreeMap<String, Vec<String>>,
    confidence: Option<Confidence>,
) -> Result<Vec<Mapping>, Error> {
    let of_control = confidence.unwrap_or(Confidence::Low);
    let mut out = Vec::new();
    for (framework, requirements) in mappings {
        let Some(known) = framework::of(&framework) else {
            return Err(Error::UnknownFramework { control: control.clone(), framework });
        };
        for text in requirements {
            let (requirement, confidence) = with_confidence(&text, of_control);
            let requirement = requirement.to_owned();
            if !known.has(&requirement) {
                return Err(Error::UnknownRequirement { control: control.clone(), framework, requirement });
            }
            let confidence = confidence.as_str().to_owned();
            out.push(Mapping { framework: framework.clone(), requirement, confidence });
        }
    }
    Ok(out)
}

/// Returns the requirement of a text such as `3.5.1` or `3.5.1 low`, and its confidence, which is never above that of the control.
fn with_confidence(text: &str, of_control: Confidence) -> (&str, Confidence) {
    let own = text.rsplit_once(' ').and_then(|(id, word)| Some((id, Confidence::parse(word)?)));
    own.map_or((text, of_control), |(id, confidence)| (id, confidence.min(of_control)))
}

/// Returns whether a parameter has values for classes of hosts beside the one for the others.
fn is_by_class(parameter: &serde_json::Value) -> bool {
    parameter.as_object().is_some_and(|values| values.contains_key("*") && values.len() > 1)
}

fn by_class(texts: &BTreeMap<String, String>) -> Result<ByClass<Duration>, String> {
    let mut default = None;
    let mut classes = BTreeMap::new();
    for (class, text) in texts {
        let duration = duration(text)?;
        if class == "*" {
            default = Some(duration);
        } else {
            let class = HostClass::parse(class).ok_or_else(|| format!("`{class}` is not a class of host"))?;
            classes.insert(class, duration);
        }
    }
    Ok(ByClass { default: default.ok_or("there is no default `*`")?, classes })
}

/// Returns the duration of a text such as `90m`, `24h` or `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a time such as 90m, 24h or 7d, of at most 3650d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    let number: u64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let seconds = number.checked_mul(seconds).filter(|seconds| (1..=3650 * 86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(bad)
}
